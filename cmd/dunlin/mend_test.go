package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// TestE2EMend: a block deep in the history of a running node is damaged on disk. It is
// not served, it is named, and fetched again from a peer by itself.
func TestE2EMend(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 40)
	alone := newDaemon(t, "damaged", "--network", "regtest")
	importBlocks(t, alone, p, blocks)
	file := filepath.Join(alone.home, "blocks", "00000.blk")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, blocks[9].Raw)+100] ^= 4
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := dunlin(t, nil, "chain", "verify", "--home", alone.home)
	if code != 1 || !strings.Contains(errs, "blocks/00000.blk at byte") || !strings.Contains(errs, "at height 10") {
		t.Errorf("verify: exit %d\n%s%s", code, out, errs)
	}
	alone.start()
	get := func() error {
		got, err := alone.client.RawBlock(t.Context(), "10")
		if err == nil && got != hex.EncodeToString(blocks[9].Raw) {
			t.Fatalf("other bytes: %s", got)
		}
		return err
	}
	if err := get(); err == nil {
		t.Error("it was served")
	}
	_ = get()
	alone.logged("WRN a block on disk is damaged, it is fetched again when a peer has it")
	other := newDaemon(t, "whole", "--network", "regtest")
	importBlocks(t, other, p, blocks)
	other.start()
	if err := alone.client.AddPeer(t.Context(), other.addr()); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the block is whole again", get)
	alone.logged("INF a damaged block was restored")
	alone.stop()
	if n := strings.Count(alone.log.String(), "WRN a block on disk is damaged"); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	if v := verified(t, []string{"chain", "verify", "--home", alone.home, "--full", "-o", "json"}); v.Remains != 1 || v.Blocks != 41 {
		t.Errorf("%+v", v)
	}
}

// TestE2EFullFromTheStart: a node that starts on a full disk says so at once, refuses a
// block of its own at once, and goes on by itself when there is room.
func TestE2EFullFromTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := mountSmall(dir, "32m"); err != nil {
		t.Skipf("cannot mount a small file system here (needs root): %v", err)
	}
	d := newDaemon(t, "full", "--network", "regtest")
	t.Cleanup(func() {
		d.stop()
		if err := unmount(dir); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	d.home = filepath.Join(dir, "home")
	d.args[2] = d.home
	ballast := filepath.Join(dir, "ballast")
	if err := errors.Join(
		os.WriteFile(ballast, make([]byte, 20<<20), 0o600),
		os.MkdirAll(d.home, 0o700),
		os.WriteFile(filepath.Join(d.home, "config.toml"), []byte("[storage]\nmin_free_mb = 16\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	d.start()
	began := time.Now()
	out, errs, code := dunlin(t, nil, "miner", "block", "--data", "x", "--home", d.home)
	if code == 0 || !strings.Contains(errs, "storage.min_free_mb") || time.Since(began) > patience { // it does not wait for room
		t.Errorf("miner block: exit %d after %v\n%s%s", code, time.Since(began), out, errs)
	}
	if s := d.mustStatus(); s.Sync.State != "stalled" || !strings.Contains(s.Sync.Reason, "the disk is almost full") {
		t.Errorf("status %+v", s.Sync)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "a block is mined", func() error {
		if out, errs, code := dunlin(t, nil, "miner", "block", "--data", "x", "--home", d.home); code != 0 {
			return fmt.Errorf("exit %d: %s%s", code, out, errs)
		}
		return nil
	})
	log := d.log.String()
	if strings.Count(log, "ERR too little disk space") != 1 || strings.Count(log, "INF disk space is back") != 1 {
		t.Error("the log does not say it once, and its end once")
	}
}

// TestE2EUnusableHomes: whatever is in the way of a home, the message names it.
func TestE2EUnusableHomes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ro := filepath.Join(dir, "ro")
	if err := os.Mkdir(ro, 0o700); err != nil {
		t.Fatal(err)
	}
	out, errs, code := dunlin(t, nil, "init", "--home", filepath.Join(ro, "home"), "--network", "regtest")
	if code != 0 {
		t.Fatalf("init: exit %d\n%s%s", code, out, errs)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		home string
		want string
	}{
		"a file":       {plain, plain},
		"below a file": {filepath.Join(plain, "home"), plain},
	}
	// Root may write anywhere, but not on a file system that is mounted for reading.
	if err := mountReadOnly(ro); err == nil {
		t.Cleanup(func() { _ = unmount(ro) })
		cases["on a file system for reading"] = struct{ home, want string }{filepath.Join(ro, "home"), "read-only file system"}
		cases["new on one for reading"] = struct{ home, want string }{filepath.Join(ro, "new"), "read-only file system"}
	} else {
		t.Logf("without a file system for reading only: %v", err)
	}
	for name, c := range cases {
		for _, args := range [][]string{
			{"start", "--listen", "/ip4/127.0.0.1/tcp/0", "--rpc-listen", "127.0.0.1:0"}, {"chain", "import", "-"}, {"chain", "reindex"}, {"chain", "verify"},
		} {
			out, errs, code := dunlin(t, strings.NewReader(""), append(args, "--home", c.home, "--network", "regtest")...)
			named := strings.Contains(errs, c.want) || args[1] != "import" && strings.Contains(errs, "there is no chain in "+c.home)
			if code != 1 && code != 2 || !named || strings.Contains(errs, "panic") || strings.Contains(errs, "goroutine") {
				t.Errorf("%s, %v: exit %d\n%s%s", name, args, code, out, errs)
			}
			t.Logf("%s, %v: %s", name, args[:2], lastLine(errs))
		}
	}
}
