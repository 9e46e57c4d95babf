package exchange

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// TestHeadersInStep: a chain that is longer than the headers that are taken ahead of
// blocks is fetched step by step. Peers that hold more are not blamed.
func TestHeadersInStep(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 6000, 1, 200)
	var servers []*testNode
	for range 2 {
		c := newFakeChain()
		c.addAll(t, source.branch())
		servers = append(servers, newNode(t, c))
	}
	c := newFakeChain()
	c.ahead = 2500
	n := newNode(t, c)
	for _, s := range servers {
		connect(t, n.host, s.host)
	}
	awaitTip(t, n, source)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	if c.mu.Lock(); c.most > 2500 {
		t.Errorf("%d headers ahead of the blocks", c.most)
	}
	c.mu.Unlock()
	if len(n.blames) > 0 || len(n.Peers()) != 2 {
		t.Errorf("blamed: %v, %d peers", len(n.blames), len(n.Peers()))
	}
}

// TestDeepBranch: peers on a branch that the chain does not go over to are kept, are
// asked for nothing of it, and do not make this node one that is behind; its status says
// what is kept out. When an operator accepts the branch it is fetched.
func TestDeepBranch(t *testing.T) {
	common := newFakeChain()
	common.grow(t, 40, 1, 400)
	ours, deep := newFakeChain(), newFakeChain()
	ours.addAll(t, common.branch())
	deep.addAll(t, common.branch())
	ours.grow(t, 30, 2, 400)
	deep.grow(t, 300, 3, 400)
	ours.anchor = 60
	friend := newFakeChain()
	friend.addAll(t, ours.branch())
	n, other, honest := newNode(t, ours), newNode(t, deep), newNode(t, friend)
	connect(t, n.host, other.host)
	eventually(t, "the branch is kept out", func() bool {
		s := n.Sync()
		return s.State == Synced && strings.Contains(s.Reason, "kept out: it leaves the chain at height 40, 30 below the tip") && s.Target == 70 && s.BehindS == 0
	})
	connect(t, n.host, honest.host)
	// The chain goes on, with blocks of who is on it.
	friend.grow(t, 5, 4, 400)
	awaitTip(t, n, friend)
	s := n.Sync()
	if len(n.blames) > 0 || n.host.Network().Connectedness(other.host.ID()) != network.Connected || !n.Ready(other.host.ID()) {
		t.Errorf("%d blames; the peer on the other branch is not kept", len(n.blames))
	}
	if s.State != Synced && s.State != Blocks {
		t.Errorf("state %s, %s", s.State, s.Reason)
	}
	if ours.mu.Lock(); len(ours.nodes) != 40+30+5+1 {
		t.Errorf("%d headers are kept", len(ours.nodes))
	}
	ours.mu.Unlock()

	ours.acceptReorg()
	awaitTip(t, n, deep)
	eventually(t, "synced", func() bool { s := n.Sync(); return s.State == Synced && s.Reason == "" })
}

// TestRealStakeChain: the same with real chains of stake, one longer than the headers
// that are taken ahead.
func TestRealStakeChain(t *testing.T) {
	p := consensus.Stakenet()
	p.MaxReorg = 10
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	b.Engine, b.Prepare, b.Seal = pos.New(p), s.Prepare, s.Seal
	blocks := b.MineN(b.Genesis(), 240)
	clock := func() time.Time { return time.Unix(math.MaxUint32, 0) }
	stake := func(o *chain.Options) {
		o.Params, o.Engine, o.HeadersAhead, o.Now = p, pos.New(p), 50, clock
	}
	source := newRealNode(t, vfs.NewMem(), stake)
	source.submit(t, blocks)
	n := newRealNode(t, vfs.NewMem(), stake)
	connect(t, n.o.Host, source.o.Host)
	most := int32(0)
	for {
		best, moved := n.c.BestHeader()
		tip, tipMoved := n.c.Tip()
		most = max(most, best.Height-tip.Height)
		if tip.Hash == blocks[239].Hash {
			break
		}
		select {
		case <-moved:
		case <-tipMoved:
		}
	}
	// The tip that was read may be older than the headers by some blocks, not more.
	if most > 2*50 {
		t.Errorf("%d headers ahead of the blocks", most)
	}
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	if ps := n.Peers(); len(ps) != 1 {
		t.Errorf("%d peers", len(ps))
	}
}
