package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/api"
)

// damage is what happens to one file of a home.
var damages = []struct {
	name string
	do   func(rng *rand.Rand, path string) error
}{
	{"deleted", func(_ *rand.Rand, path string) error { return os.Remove(path) }},
	{"emptied", func(_ *rand.Rand, path string) error { return os.Truncate(path, 0) }},
	{"halved", func(_ *rand.Rand, path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()/2)
	}},
	{"with a flipped bit", func(rng *rand.Rand, path string) error {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return os.WriteFile(path, b, 0o600)
	}},
	// Of the blocks: in the tip, which the peer's branch leaves and the peer does not have.
	{"with a flipped bit near the end", func(_ *rand.Rand, path string) error {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		b[max(0, len(b)-300)] ^= 1
		return os.WriteFile(path, b, 0o600)
	}},
}

// tryStart starts a daemon that may refuse to. It reports whether it listens; if
// not, it has ended.
func (d *daemon) tryStart(t *testing.T, more ...string) bool {
	t.Helper()
	_ = os.Remove(filepath.Join(d.home, api.NodeFileName))
	d.cmd = exec.Command("dunlin", append(slices.Clip(d.args), more...)...)
	d.log.of(d.cmd)
	d.cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	d.done = done
	cmd := d.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	ended := false
	eventually(t, patience, d.name+" listens or ends", func() error {
		select {
		case <-done:
			ended = true
			return nil
		default:
		}
		client, info, err := api.Open(d.home)
		if err == nil {
			d.client, d.info = client, info
		}
		return err
	})
	return !ended
}

// TestE2EHostileHome damages each file of a home. The next start mends it, with
// the help of a peer if need be, or refuses with a message that names file and
// mend; what it shows of the chain is never wrong.
func TestE2EHostileHome(t *testing.T) {
	t.Parallel()
	rng := hostileSeed(t)
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 101)
	for i := range 19 { // which spend, so there is undo data
		blocks = append(blocks, b.Mine(blocks[100+i], enginetest.Spend(blocks[i], 0, 0, enginetest.OpTrue(), enginetest.OpTrue())))
	}
	// The peer's chain has more work and leaves ours ten blocks down: undo data is needed.
	first := b.MineTemplate(blocks[109], enginetest.Template{Data: "rival"})
	rival := branchOf(p, append(append(slices.Clone(blocks[:110]), first), b.MineN(first, 25)...))
	want := rival.hashes[len(rival.hashes)-1].String()
	model := newDaemon(t, "model", "--network", "regtest")
	importBlocks(t, model, p, append(slices.Clone(blocks), b.Mine(blocks[119])))
	model.start()
	// And an operator's word against a block, which is on file.
	if tip, err := model.client.Invalidate(t.Context(), model.mustStatus().TipHash); err != nil || tip.Height != 120 {
		t.Fatalf("%+v, %v", tip, err)
	}
	if err := model.client.AddPeer(t.Context(), newAttacker(t, p).addr()); err != nil { // so that peers/ has something
		t.Fatal(err)
	}
	eventually(t, patience, "peers on disk", func() error {
		if m, _ := filepath.Glob(filepath.Join(model.home, "peers", "*")); len(m) == 0 {
			return errors.New("none")
		}
		return nil
	})
	tip := model.mustStatus().TipHash
	model.stop()
	var files []string
	if err := filepath.WalkDir(model.home, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			rel, _ := filepath.Rel(model.home, path)
			files = append(files, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	files = append(files, "node.json", "api.cookie", "registered.json")
	t.Log(files)
	for _, must := range []string{"undo/00000.und", "blocks/00000.blk", "INVALIDATED", "identity.key", "config.toml", "mining.key", "LOCK", "api.cookie"} {
		if !slices.Contains(files, must) {
			t.Errorf("the model has no %s", must)
		}
	}

	offset := rng.IntN(len(damages))
	for i, file := range files {
		for j, damage := range damages {
			if !slow && j != (i+offset)%len(damages) && !strings.HasPrefix(file, "blocks/") && !strings.HasPrefix(file, "undo/") {
				continue
			}
			seed := rng.Uint64()
			t.Run(file+" "+damage.name, func(t *testing.T) {
				t.Parallel()
				d := newDaemon(t, "damaged", "--network", "regtest")
				if err := os.CopyFS(d.home, os.DirFS(model.home)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(d.home, file)
				for _, secret := range []string{"identity.key", "mining.key", "config.toml"} { // CopyFS keeps no modes
					if err := os.Chmod(filepath.Join(d.home, secret), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				switch file {
				case "registered.json":
					if err := os.WriteFile(path, []byte(`["ws://127.0.0.1:1/ws"]`), 0o600); err != nil {
						t.Fatal(err)
					}
				case "node.json", "api.cookie": // left by a kill, then damaged
					if err := os.WriteFile(path, []byte(`{"pid": 1, "rpc_addr": "127.0.0.1:1"}`), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := damage.do(rand.New(rand.NewPCG(seed, 2)), path); err != nil {
					t.Fatal(err)
				}
				judgeDamaged(t, d, file, tip, want, newLiar(t, rival).serve().addr())
			})
		}
	}
}

// judgeDamaged starts d, whose tip was tip, and lets it sync with a peer to want.
func judgeDamaged(t *testing.T, d *daemon, file, tip, want, peer string) {
	t.Helper()
	outcome := "as if nothing had happened"
	if !d.tryStart(t) {
		log := d.log.String()
		said := log[strings.LastIndex(log, "dunlin: ")+len("dunlin: "):]
		outcome = "refused: " + strings.TrimSpace(said)
		code := d.cmd.ProcessState.ExitCode()
		d.cmd = nil
		if code != 1 && code != 2 || !strings.Contains(said, filepath.Base(filepath.Dir(file))) && !strings.Contains(said, filepath.Base(file)) {
			t.Errorf("exit %d, and the message does not name the file: %s", code, said)
		}
		d.cleanLog(t)
		// What the message says mends it: a reindex, or removing the file.
		switch {
		case strings.Contains(log, "dunlin chain reindex"):
			if out, errs, code := dunlin(t, nil, "chain", "reindex", "--home", d.home, "--network", "regtest"); code != 0 {
				t.Fatalf("%s; reindex: exit %d %s%s", outcome, code, out, errs)
			}
			outcome += "; reindexed"
		case strings.Contains(said, "remove it"), strings.Contains(said, "run `rm "):
			if err := os.Remove(filepath.Join(d.home, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			outcome += "; removed"
		case strings.HasPrefix(filepath.Base(file), "config.toml"):
			return // names key and value: the operator's to mend
		default:
			t.Fatalf("the message does not say what to do: %s", said)
		}
		if !d.tryStart(t) {
			d.cmd = nil
			t.Fatalf("%s; and then: %s", outcome, lastLine(d.log.String()))
		}
	}
	d.cleanLog(t)
	if strings.Contains(d.log.String(), "ERR") || strings.Contains(d.log.String(), "WRN") {
		outcome += "; it said so in the log"
	}
	s := d.mustStatus()
	switch {
	case s.Height == 120 && s.TipHash != tip:
		t.Errorf("tip %s at height 120", s.TipHash)
	case s.Height > 120:
		t.Errorf("height %d: what was invalidated is back", s.Height)
	case s.Height != 120:
		outcome += fmt.Sprintf("; height %d", s.Height)
	}
	if err := d.client.AddPeer(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	ended := func() bool {
		select {
		case <-d.done:
			return true
		default:
			return false
		}
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	again := false
	for {
		if s, err := d.status(); err == nil && s.TipHash == want {
			break
		}
		log := d.log.String()
		waits := strings.Contains(log, "cannot be followed before a damaged block is restored")
		if (ended() || waits) && !again {
			// Damage that only the reorg met, in a block that this peer does not have, or in undo
			// data, which no peer has: what mends it must have been named.
			again = true
			outcome += "; stopped: " + lastLine(log)
			if waits {
				d.stop()
			}
			d.cmd = nil
			if !strings.Contains(log, "dunlin chain reindex") {
				t.Fatalf("%s: no mend named", outcome)
			}
			if out, errs, code := dunlin(t, nil, "chain", "reindex", "--home", d.home, "--network", "regtest"); code != 0 {
				t.Fatalf("%s; reindex: exit %d %s%s", outcome, code, out, errs)
			}
			if !d.tryStart(t) {
				d.cmd = nil
				t.Fatalf("%s; and then: %s", outcome, lastLine(d.log.String()))
			}
			if err := d.client.AddPeer(t.Context(), peer); err != nil {
				t.Fatal(err)
			}
			deadline = time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			s, err := d.status()
			t.Fatalf("%s; then it did not follow the peer: %+v %v", outcome, s, err)
		}
		<-tick.C
	}
	t.Log(outcome)
	d.cleanLog(t)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// TestE2EHostileDisk fills the disk under a syncing daemon: with a reserve it
// stops writing before the end, says so, and goes on when there is room; without
// one it ends with a message and the next start finds nothing damaged.
func TestE2EHostileDisk(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	fat := make([]byte, 400_000)
	fat[0] = txscript.OP_RETURN
	var blocks []*consensus.Block
	tip := b.Genesis()
	for range 80 {
		tip = b.MineTemplate(tip, enginetest.Template{Script: fat})
		blocks = append(blocks, tip)
	}
	branch := branchOf(p, blocks) // 32 MB
	for _, tc := range []struct{ name, reserve string }{{"reserve", "6"}, {"no reserve", "0"}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := mountSmall(dir, "48m"); err != nil {
				t.Skipf("cannot mount a small file system here (needs root): %v", err)
			}
			d := newDaemon(t, "small", "--network", "regtest")
			t.Cleanup(func() {
				d.stop()
				if err := unmount(dir); err != nil {
					t.Errorf("unmount: %v", err)
				}
			})
			d.home = filepath.Join(dir, "home")
			d.args[2] = d.home
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 28<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			x := newLiar(t, branch).serve()
			d.args = append(d.args, "--bootstrap", x.addr())
			config := "[storage]\nmin_free_mb = " + tc.reserve + "\n"
			if err := os.MkdirAll(d.home, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.home, "config.toml"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if !d.tryStart(t) {
				d.cmd = nil
				t.Fatalf("refused: %s", lastLine(d.log.String()))
			}
			want := "too little disk space"
			if tc.reserve == "0" {
				want = "no space left on device"
			}
			eventually(t, patience, "the disk is full", func() error {
				if !strings.Contains(d.log.String(), want) {
					s, err := d.status()
					return fmt.Errorf("height %d, %w", s.Height, errors.Join(err, errors.New(want)))
				}
				return nil
			})
			ended := tc.reserve == "0"
			if ended {
				timer := time.NewTimer(patience)
				defer timer.Stop()
				select {
				case <-d.done:
				case <-timer.C:
					t.Fatalf("it goes on without room: %s", lastLine(d.log.String()))
				}
				t.Logf("it ended with exit %d: %s", d.cmd.ProcessState.ExitCode(), lastLine(d.log.String()))
				d.cmd = nil
			} else {
				s := d.mustStatus()
				raw, _ := json.Marshal(s.Sync)
				t.Logf("height %d, sync %s", s.Height, raw)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if ended && !d.tryStart(t) {
				d.cmd = nil
				t.Fatalf("does not start again: %s", lastLine(d.log.String()))
			}
			d.reaches(tip.Hash.String(), patience)
			d.cleanLog(t)
			if n := strings.Count(d.log.String(), "\n"); n > 400 {
				t.Errorf("a full disk made %d log lines", n)
			}
		})
	}
}
