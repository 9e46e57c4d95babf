package exchange

import (
	"strings"
	"testing"
	"time"
)

// TestWithheldBranch: a branch with more work whose blocks nobody hands out delays
// a sync once, not once a block of its work, and is followed when they come.
func TestWithheldBranch(t *testing.T) {
	t.Parallel()
	common, honest, evil := newFakeChain(), newFakeChain(), newFakeChain()
	common.grow(t, 40, 1, 400)
	honest.addAll(t, common.branch())
	evil.addAll(t, common.branch())
	honest.grow(t, 10, 2, 400)
	evil.grow(t, 30, 3, 400)
	h, e := newNode(t, honest), newNode(t, evil)
	release := make(chan struct{})
	serveBlocksWith(t, e, (&countingPeer{release: release}).serve(evil))
	n := newNode(t, newFakeChain(), func(o *Options) { o.StallAfter = 2 * time.Second })
	connect(t, n.host, e.host)
	eventually(t, "the withholder's headers", func() bool {
		best, _ := n.chain.BestHeader()
		return best.Height == 70
	})
	connect(t, n.host, h.host)
	awaitTip(t, n, honest)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	if !strings.Contains(n.logs.String(), "branch left") {
		t.Error("the log does not say that a branch was left")
	}

	// More branches of the same peer: each has more work, none comes to anything.
	for i := range 4 {
		branch := makeBlocks(common.tip.hash, common.tip.header.Timestamp, 40+10*i, uint64(10+i), fixedSize(400))
		evil.addAll(t, branch)
		tip, _ := evil.Tip()
		eventually(t, "the headers of another withheld branch", func() bool {
			_, known := n.chain.Status(tip.Hash)
			return known
		})
		grown := time.Now()
		honest.grow(t, 1, uint64(100+i), 400)
		awaitTip(t, n, honest)
		if took := time.Since(grown); took > 2*time.Second {
			t.Errorf("branch %d delayed a block by %v", i, took)
		}
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
	close(release)
	awaitTip(t, n, evil)
}
