//go:build !race

package chain_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
)

// A million headers with their blocks fit into 160 MB of heap, and so do fewer in
// proportion, but for what a chain takes in any case; the tree in memory is the
// one on disk. The race detector would count as well.
func TestTreeMemory(t *testing.T) {
	// What a busy machine's database has not let go of (a memtable, its readers) is a few
	// megabytes at any size: the million headers of the slow run have no such allowance.
	n, fixed := 100_000, uint64(8<<20)
	if slow {
		n, fixed = 1_000_000, 0
	}
	o := headerOptions(vfs.Default, t.TempDir()) // one in memory would count
	headerHome(t, o, n, true)
	before := liveHeap()
	c, err := chain.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	open := liveHeap() - before
	if err := c.Close(); err != nil { // the database's caches go, the tree stays
		t.Fatal(err)
	}
	// What the database still lets go of in the background, a memtable say, is not the tree's.
	heap, limit := liveHeap()-before, 160*uint64(n)+fixed
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for late := false; heap > limit && !late; heap = liveHeap() - before {
		select {
		case <-poll.C:
		case <-deadline.C:
			late = true
		}
	}
	if heap > limit {
		t.Errorf("%d bytes of heap for %d headers", heap, n)
	}
	t.Logf("%d headers: %d bytes each, %d MB in all, %d with the database open", n, heap/uint64(n), heap/1e6, open/1e6)
	best, _ := c.BestHeader()
	tip, _ := c.Tip()
	if int(best.Height) != n || tip.Hash != best.Hash {
		t.Errorf("best header at height %d, tip at height %d", best.Height, tip.Height)
	}
	mine := newHeaderMine(o.Params, 1)
	for height := int32(1); height <= int32(n); height++ {
		h, hash := mine.next()
		if height%997 != 0 && height > 10 {
			continue
		}
		s, ok := c.Status(hash)
		if !ok || s.Height != height || s.Header.BlockHash() != h.BlockHash() || !s.HaveBlock || !s.Active {
			t.Fatalf("height %d: %+v", height, s)
		}
		if got, ok := c.Ancestor(best.Hash, height); !ok || got != hash {
			t.Fatalf("ancestor at height %d: %v", height, got)
		}
	}
}
