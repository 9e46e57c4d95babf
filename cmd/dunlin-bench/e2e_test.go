//go:build !race

// Half of the time here goes into building the real binary, which the race detector
// would not look into; what runs in this process has tests of its own.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/command"
)

// buildDunlin makes the binary to measure.
func buildDunlin(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dunlin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "dunlin/cmd/dunlin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestE2E measures a chain of 40 blocks with real daemons, and is interrupted in the
// middle of another run: neither leaves a process or a folder behind.
func TestE2E(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("memory and CPU are read from /proc")
	}
	program := buildDunlin(t)
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 40)
	chains := t.TempDir()
	for _, name := range []string{"tiny", "fat", "full"} {
		writeFile(t, filepath.Join(chains, name+".dat"), framed(p, blocks...))
	}
	work := t.TempDir()
	file := filepath.Join(t.TempDir(), "ibd.json")
	args := []string{"ibd", "--dunlin", program, "--chains", chains, "--work", work, "--runs", "1", "--json", file}
	left := func(t *testing.T) {
		t.Helper()
		entries, err := os.ReadDir(work)
		if err != nil || len(entries) > 0 {
			t.Errorf("left behind: %v %v", entries, err)
		}
		if ps := processesOf(t, program); len(ps) > 0 {
			t.Errorf("left running: %v", ps)
		}
	}

	t.Run("measured", func(t *testing.T) {
		var out, errs strings.Builder
		if code := run(t.Context(), append(slices.Clip(args), "--cases", "tiny,assumevalid,links,links-share,kill9,memory"), &out, &errs); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, out.String(), errs.String())
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r report
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, row := range r.Rows {
			names = append(names, row.Case)
			if row.Ours == nil || row.Ours.Median <= 0 || row.Btcd != nil || row.Error != "" {
				t.Errorf("%+v", row)
			}
		}
		if want := []string{"tiny", "assumevalid", "links", "links-share", "kill9", "memory"}; !slices.Equal(names, want) {
			t.Errorf("rows %v, want %v", names, want)
		}
		if len(r.Samples) != 5 { // fat's for memory
			t.Errorf("%+v", r.Samples)
		}
		left(t)
	})

	t.Run("chains", func(t *testing.T) { // hold with all checks
		for i := range smallChains {
			c := &smallChains[i]
			file := filepath.Join(t.TempDir(), c.name+".dat")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.write(t.Context(), f, func(float64) {}), f.Close()); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "chain", "import", "--home", filepath.Join(t.TempDir(), "home"), "--network", "simnet", file)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), strconv.Itoa(c.empty+c.splits+c.loaded)) {
				t.Errorf("%s: %v\n%s", c.name, err, out)
			}
		}
	})

	t.Run("stake", func(t *testing.T) {
		var out, errs strings.Builder
		args := []string{"stake", "--dunlin", program, "--work", work, "--blocks", "40", "--runs", "2", "--cases", "keys,one", "--json", file}
		if code := run(t.Context(), args, &out, &errs); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, out.String(), errs.String())
		}
		got, err := taken(file)
		if err != nil {
			t.Fatal(err)
		}
		r := got.records["stake"]
		if len(r) != 2 || r[0].ID != "stake/keys" || r[1].ID != "stake/one" || r[0].Peer == nil || r[0].Ratio == nil || got.session.Command != "dunlin-bench stake --cases keys,one --runs 2" {
			t.Errorf("%+v", got)
		}
		left(t)
	})

	t.Run("missed", func(t *testing.T) {
		var out, errs strings.Builder
		// 40 blocks in a process's start are less than 60 MB/s.
		code := run(t.Context(), append(slices.Clip(args), "--cases", "assumevalid", "--check"), &out, &errs)
		if code != exitBarred || !strings.Contains(errs.String(), "not met: assumevalid") {
			t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
		}
		left(t)
	})

	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out strings.Builder
		errs := &trigger{on: "tiny 3/100", do: cancel}
		code := run(ctx, append(slices.Clip(args), "--cases", "tiny", "--runs", "100"), &out, errs)
		if code != command.Failed || !strings.Contains(errs.b.String(), "interrupted") || !strings.Contains(out.String(), "empty blocks") {
			t.Errorf("exit %d\n%s%s", code, out.String(), errs.b.String())
		}
		left(t)
	})

	t.Run("broken", func(t *testing.T) {
		bad := t.TempDir()
		other := enginetest.NewBuilder(p)
		orphans := other.MineN(other.Genesis(), 3)[1:]
		writeFile(t, filepath.Join(bad, "tiny.dat"), framed(p, orphans...))
		var out, errs strings.Builder
		code := run(t.Context(), append(slices.Clip(args), "--chains", bad, "--cases", "tiny"), &out, &errs)
		if code != command.Failed || !strings.Contains(errs.String(), "dunlin chain import") {
			t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
		}
		left(t)
	})
}

// trigger calls do when a text was written.
type trigger struct {
	b  strings.Builder
	on string
	do func()
}

func (w *trigger) Write(p []byte) (int, error) {
	w.b.Write(p)
	if strings.Contains(w.b.String(), w.on) {
		w.do()
	}
	return len(p), nil
}

// processesOf lists the processes of a program, from /proc.
func processesOf(t *testing.T, program string) (pids []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == program {
			pids = append(pids, link)
		}
	}
	return pids
}
