package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestE2EFrozenPeer stops the fastest of three servers in the middle of a sync,
// without a word: its kernel still answers, it does not. The victim's height may
// not stand still for long, and the log says who held it up and who was asked.
func TestE2EFrozenPeer(t *testing.T) {
	t.Parallel()
	l := newLedger(20_000)
	first := newDaemon(t, "best", "--network", "regtest", "--p2p-max-upload-kb-per-s", "6000")
	importBlocks(t, first, l.b.Params, l.blocks)
	servers := []*daemon{first}
	for i := range 2 {
		d := newDaemon(t, fmt.Sprint("other", i), "--network", "regtest", "--p2p-max-upload-kb-per-s", "2000")
		if err := os.CopyFS(d.home, os.DirFS(first.home)); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, d)
	}
	args := []string{"--network", "regtest"}
	for _, d := range servers {
		d.start()
		args = append(args, "--bootstrap", d.addr())
	}
	victim := startDaemon(t, "victim", args...)
	eventually(t, patience, "a tenth is here", func() error {
		if h := victim.mustStatus().Height; h < ledgerBlocks/10 {
			return fmt.Errorf("height %d", h)
		}
		return nil
	})
	if err := freeze(first.cmd.Process); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = thaw(first.cmd.Process) }()
	began := time.Now()
	frozenAt := victim.mustStatus().Height
	last, moved, gap := frozenAt, began, time.Duration(0)
	eventually(t, patience, "synced from the others", func() error {
		s := victim.mustStatus()
		now := time.Now()
		if s.Height > last {
			gap = max(gap, now.Sub(moved))
			last, moved = s.Height, now
		}
		if last < ledgerBlocks {
			return fmt.Errorf("height %d, %s %s", last, s.Sync.State, s.Sync.Reason)
		}
		return nil
	})
	if frozenAt > ledgerBlocks*9/10 {
		t.Errorf("at height %d already when the best peer froze: nothing was measured", frozenAt)
	}
	t.Logf("frozen at height %d: longest gap %v, the rest in %v", frozenAt, gap.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	figure(t, "daemons/frozen", gap.Seconds())
	// How soon the scheduler asks somebody else is tested in virtual time (chain/ibd); here
	// it must do so at all, long before a connection is given up.
	if gap > slowness*20*time.Second {
		t.Errorf("the height stood still for %v", gap)
	}
	if log := victim.log.String(); gap > time.Second && !strings.Contains(log, "sync stalled") {
		t.Error("the log does not say who held the sync up")
	}
}
