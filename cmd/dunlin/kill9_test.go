package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// killed runs a command and kills it after a while, unless it has ended by then;
// it says which. A command that ends by itself must succeed.
func killed(t *testing.T, after time.Duration, args ...string) bool {
	t.Helper()
	log := newOutput(t)
	cmd := exec.Command("dunlin", args...)
	log.of(cmd)
	cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	exit, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return false
	case exit != nil && exit.Sys().(syscall.WaitStatus).Signaled(): //nolint:misspell // the name of the method
		return true
	}
	t.Fatalf("%v: %v\n%s", args, err, lastPart(log.String(), 3000))
	return false
}

// TestE2EKill9Anywhere kills real processes at random moments, from their first
// instruction on, 200 times in the long suite: while they sync (and prune), mine,
// reindex, import and prune. After each the chain's own verify must find nothing, and no
// committed block may be lost.
func TestE2EKill9Anywhere(t *testing.T) {
	t.Parallel()
	scale := 1
	if slow {
		scale = 20
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	home := func(t *testing.T) string {
		t.Helper()
		return filepath.Join(t.TempDir(), "home")
	}
	upTo := func(rng *rand.Rand, ms int) time.Duration {
		// Half of the kills in the first tenth: the start is where most happens.
		if rng.IntN(2) == 0 {
			ms = max(1, ms/10)
		}
		return time.Duration(rng.IntN(ms*1000)) * time.Microsecond
	}
	// check verifies the chain in h, if there is one yet.
	check := func(t *testing.T, h string, args ...string) (v verifyAnswer, ok bool) {
		t.Helper()
		if err := hasChain(h); err != nil {
			return v, false
		}
		v = verified(t, append([]string{"chain", "verify", "--depth", "20", "-o", "json", "--home", h}, args...))
		if t.Failed() {
			t.FailNow()
		}
		return v, true
	}
	daemon := []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--rpc-listen", "127.0.0.1:0"}
	bitcoin := []string{"--network", "bitcoin", "--storage-file-mb", "1"}

	server := newDaemon(t, "server", bitcoin...)
	importRealBlocks(t, server.home)
	whole := home(t)
	if err := os.CopyFS(whole, os.DirFS(server.home)); err != nil {
		t.Fatal(err)
	}
	server.start()

	for name, prune := range map[string][]string{"syncing": nil, "syncing pruned": {"--prune-mb", "1"}} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(len(name))))
			h := home(t)
			args := append(append([]string{"start", "--home", h, "--bootstrap", server.addr(), "--storage-flush-blocks", "300"}, daemon...), append(bitcoin, prune...)...)
			last, fresh := int32(0), 0
			for range 3 * scale {
				killed(t, upTo(rng, 1500), args...)
				v, ok := check(t, h, bitcoin...)
				if !ok {
					continue
				}
				if v.Height < last {
					t.Fatalf("height %d was committed, %d is left", last, v.Height)
				}
				if last = v.Height; last == 14131 {
					if err := os.RemoveAll(h); err != nil {
						t.Fatal(err)
					}
					last = 0
					fresh++
				}
			}
			d := newDaemon(t, "last", append(append(bitcoin, prune...), "--bootstrap", server.addr())...)
			d.home = h
			d.args[2] = h
			d.start()
			d.reaches(realTip, patience)
			d.stop()
			if v, _ := check(t, h, bitcoin...); v.Coins != 13416 || v.Supply != 706_550*1e8 {
				t.Errorf("%+v", v)
			}
			t.Logf("synced %d times on the way", fresh)
		})
	}

	t.Run("mining", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 100))
		h := home(t)
		args := append([]string{"start", "--home", h, "--network", "regtest", "--mine", "--mine-interval", "2ms"}, daemon...)
		last := int32(0)
		for range 2 * scale {
			killed(t, upTo(rng, 1000), args...)
			v, ok := check(t, h, "--network", "regtest")
			if ok && v.Height < last {
				t.Fatalf("height %d was committed, %d is left", last, v.Height)
			}
			last = max(last, v.Height)
		}
		t.Logf("mined %d blocks", last)
	})

	t.Run("reindex", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 101))
		h := home(t)
		if err := os.CopyFS(h, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		done := 0
		for range scale {
			if !killed(t, upTo(rng, 600), append([]string{"chain", "reindex", "--home", h}, bitcoin...)...) {
				done++
			}
			check(t, h, bitcoin...)
		}
		if out, errs, code := dunlin(t, nil, append([]string{"chain", "reindex", "--home", h}, bitcoin...)...); code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		if v, _ := check(t, h, bitcoin...); v.Height != 14131 || v.Coins != 13416 {
			t.Errorf("%+v", v)
		}
		t.Logf("%d of %d came to their end", done, scale)
	})

	t.Run("import", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 103))
		h := home(t)
		command := append([]string{"chain", "import", "--home", h, testData(t, "chain/mainnet-blocks-0-14131.dat.zst")}, bitcoin...)
		last := int32(0)
		for range scale {
			killed(t, upTo(rng, 1200), command...)
			v, _ := check(t, h, bitcoin...)
			if v.Height < last {
				t.Fatalf("height %d was committed, %d is left", last, v.Height)
			}
			last = v.Height
		}
		if out, errs, code := dunlin(t, nil, command...); code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		if v, _ := check(t, h, bitcoin...); v.Height != 14131 || v.Coins != 13416 || v.Supply != 706_550*1e8 {
			t.Errorf("%+v", v)
		}
	})

	t.Run("prune", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 102))
		// Its own files of 1 MiB: the import above made one of 128.
		source := home(t)
		if out, errs, code := dunlin(t, nil, append([]string{"chain", "import", "--home", source, testData(t, "chain/mainnet-blocks-0-14131.dat.zst")}, bitcoin...)...); code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		done := 0
		for range scale {
			h := home(t)
			if err := os.CopyFS(h, os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			command := append([]string{"chain", "prune", "--keep-mb", "1", "--home", h}, bitcoin...)
			if !killed(t, upTo(rng, 120), command...) {
				done++
			}
			check(t, h, bitcoin...)
			if out, errs, code := dunlin(t, nil, command...); code != 0 {
				t.Fatalf("exit %d: %s%s", code, out, errs)
			}
			if v, _ := check(t, h, bitcoin...); v.Lowest == 0 || v.Height != 14131 || v.Coins != 13416 {
				t.Errorf("%+v", v)
			}
		}
		t.Logf("%d of %d came to their end", done, scale)
	})
	server.mustStatus() // nobody disturbed it
}
