package exchange

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
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

// TestWithheldHeadersAhead: a branch with all the headers that are taken ahead, whose blocks
// nobody hands out, does not hold up a longer chain, of whose tip the header is not taken
// for as long.
func TestWithheldHeadersAhead(t *testing.T) {
	t.Parallel()
	honest, evil := newFakeChain(), newFakeChain()
	evil.grow(t, 4000, 1, 200)
	honest.grow(t, 6000, 2, 200)
	e := newNode(t, evil)
	serveBlocksWith(t, e, (&countingPeer{release: make(chan struct{})}).serve(evil))
	c := newFakeChain()
	c.ahead = 2500
	n := newNode(t, c, func(o *Options) { o.StallAfter = 2 * time.Second })
	connect(t, n.host, e.host)
	eventually(t, "the withholder's headers", func() bool {
		best, _ := n.chain.BestHeader()
		return best.Height == 2500
	})
	connect(t, n.host, newNode(t, honest).host)
	awaitTip(t, n, honest)
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
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

	// It is told of for as long as a peer is on it.
	if err := n.host.Network().ClosePeer(other.host.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody is on the branch", func() bool { return n.Sync().Reason == "" })
	connect(t, n.host, other.host)
	eventually(t, "a peer is on the branch again", func() bool { return strings.Contains(n.Sync().Reason, "kept out") })

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

// falseSeals is a chain that hands out headers and blocks with seals of somebody without
// stake.
type falseSeals struct{ Chain }

func (f falseSeals) swap(raw []byte, err error) ([]byte, error) {
	if err != nil {
		return raw, err
	}
	b, err := consensus.DecodeBlock(f.Params(), raw)
	if err != nil {
		return nil, err
	}
	return enginetest.Usurp(b), nil
}

func (f falseSeals) HeadersAfter(dst []byte, locator []chainhash.Hash, most int) (start int32, n int, raw []byte, err error) {
	start, n, raw, err = f.Chain.HeadersAfter(dst, locator, most)
	size := consensus.HeaderBytes + f.Params().SealBytes
	// The first may build on the tip of who asks, who would look its stake up.
	for at := len(dst) + size; err == nil && at < len(raw); at += size {
		var false1 []byte
		if false1, err = f.swap(f.Chain.Block(chainhash.DoubleHashH(raw[at : at+consensus.HeaderBytes]))); err == nil {
			copy(raw[at:at+size], false1)
		}
	}
	return start, n, raw, err
}

func (f falseSeals) Block(hash chainhash.Hash) ([]byte, error) { return f.swap(f.Chain.Block(hash)) }

func (f falseSeals) ReadBlocks(_ []byte, hashes []chainhash.Hash) (blocks [][]byte, err error) {
	for _, h := range hashes {
		raw, err := f.Block(h)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, raw)
	}
	return blocks, nil
}

func (f falseSeals) ReadBlockPart(hash chainhash.Hash, offset int64, dst []byte) error {
	raw, err := f.Block(hash)
	copy(dst, raw[min(offset, int64(len(raw))):])
	return err
}

// TestFalseSealsByPeers: whoever answers first with false seals, of headers and then of
// blocks, is dropped, and keeps nobody from the blocks with their own.
func TestFalseSealsByPeers(t *testing.T) {
	p := consensus.Stakenet()
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	e := enginetest.Lenient{Engine: pos.New(p)}
	b.Engine, b.Prepare, b.Seal = e, s.Prepare, s.Seal
	blocks := b.MineN(b.Genesis(), 20)
	stake := func(o *chain.Options) {
		o.Params, o.Engine = p, e
		o.Now = func() time.Time { return time.Unix(math.MaxUint32, 0) }
	}
	honest, n := newRealNode(t, vfs.NewMem(), stake), newRealNode(t, vfs.NewMem(), stake)
	evil := newWrappedNode(t, vfs.NewMem(), func(c Chain) Chain { return falseSeals{c} }, stake)
	honest.submit(t, blocks)
	evil.submit(t, blocks)
	connect(t, n.o.Host, evil.o.Host)
	if why := receive(t, "the liar is blamed", n.blames); !strings.Contains(why, "mutated") && !strings.Contains(why, "stake-commitment") && !strings.Contains(why, "seal") {
		t.Errorf("blamed: %s", why)
	}
	awaitGone(t, n.o.Host, evil.o.Host.ID())
	if best, _ := n.c.BestHeader(); best.Height != 20 {
		t.Errorf("the headers came to %d: the test shows little", best.Height)
	}
	connect(t, n.o.Host, honest.o.Host)
	n.awaitBlock(t, blocks[19])
	_, _, raw, err := n.c.HeadersAfter(nil, nil, 2000)
	if err != nil || string(raw[len(raw)-p.SealBytes:]) != string(blocks[19].Header.Seal) {
		t.Errorf("the last header is served with another seal (%v)", err)
	}
}
