package exchange

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/ibd"
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

	// More branches of the same peer: each has more work, none comes to anything. The
	// machine may have other work for a while: most of them must not delay a block.
	late := 0
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
			t.Logf("branch %d delayed a block by %v", i, took)
			late++
		}
	}
	if late > 2 {
		t.Errorf("%d of 4 branches delayed a block", late)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
	close(release)
	awaitTip(t, n, evil)
}

// TestWithheldBranchesForgotten: however many branches are offered whose blocks
// nobody hands out, the next one is left too.
func TestWithheldBranchesForgotten(t *testing.T) {
	t.Parallel()
	c, evil := newFakeChain(), newFakeChain()
	c.grow(t, 5, 1, 300)
	g := c.params
	bs := makeBlocks(g.GenesisHash, g.Genesis.Header.Timestamp, 10, 2, fixedSize(300))
	evil.addAll(t, bs)
	for h := int32(1); h <= 10; h++ {
		if _, _, err := c.accept(headersFrom(t, evil, h)); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, c)
	n.stop() // the loop is played by hand
	d, now := newDriver(n.Exchange, nil), time.Now()
	tip := func(c *fakeChain) TipInfo {
		at, _ := c.Tip()
		return TipInfo{Height: at.Height, Hash: at.Hash, Work: at.Work}
	}
	d.peers["honest"] = &peerSync{r: &remote{id: "honest"}, tip: tip(c)}
	d.peers["evil"] = &peerSync{r: &remote{id: "evil"}, tip: tip(evil)}
	d.best, d.targeted = d.goal(), true
	if d.best.Height != 10 {
		t.Fatalf("the goal is at height %d", d.best.Height)
	}
	var hashes []chainhash.Hash
	for i := range maxWithheld {
		var h chainhash.Hash
		binary.LittleEndian.PutUint64(h[:], uint64(i+1))
		hashes = append(hashes, h)
		// The tenth is the one that is tried again first.
		until := now.Add(time.Duration(1+(i+maxWithheld-10)%maxWithheld) * time.Second)
		d.withheld[h] = &withheldBlock{height: 1, until: until, next: now}
	}
	d.leave(now, false)
	first := chainhash.DoubleHashH(bs[0][:80])
	if d.withheld[first] == nil {
		t.Error("the branch is not left")
	}
	if len(d.withheld) != maxWithheld || d.withheld[hashes[10]] != nil {
		t.Errorf("%d are remembered, the oldest among them: %v", len(d.withheld), d.withheld[hashes[10]] != nil)
	}
	if goal := d.goal(); goal.Hash != tip(c).Hash {
		t.Errorf("the goal is at height %d", goal.Height)
	}
	if p := d.peers[ibd.PeerID("evil")]; p.withholds != 1 || d.withholders != 1 {
		t.Errorf("the peer withholds %d, %d peers withhold", p.withholds, d.withholders)
	}
	// Without another goal nothing is forgotten for it.
	delete(d.withheld, first)
	d.withheld[hashes[10]] = &withheldBlock{height: 1, until: now.Add(time.Second)}
	delete(d.peers, "honest")
	d.leave(now, false)
	if d.withheld[first] != nil || len(d.withheld) != maxWithheld || d.withheld[hashes[10]] == nil {
		t.Errorf("%d are remembered", len(d.withheld))
	}
}

// headersFrom returns the header of c's chain at a height.
func headersFrom(t *testing.T, c *fakeChain, height int32) []consensus.Header {
	t.Helper()
	h, err := consensus.DecodeHeader(c.params, c.blockAt(height)[:consensus.HeaderBytes])
	if err != nil {
		t.Fatal(err)
	}
	return []consensus.Header{h}
}
