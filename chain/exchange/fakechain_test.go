package exchange

import (
	"context"
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// fakeChain is a chain without rules: a block is its header and filler, every
// header has work 2, and a body is valid unless its first byte after the header is 0xff
// (invalid for ever) or 0xfe (mutated). It validates at once.
type fakeChain struct {
	params *consensus.Params
	ready  chan struct{}

	mu         sync.Mutex
	nodes      map[chainhash.Hash]*fakeNode
	tip, best  *fakeNode
	tipMoved   chan struct{}
	bestMoved  chan struct{}
	submitted  int
	news       []int32 // heights of submitted blocks that are not one of many
	reads      int
	failSubmit error // verdict Failed with it while set
	minHeight  int32 // headers are taken only if they reach it (minimum work)
	ahead      int32 // headers that are taken above the tip; 0: any number
	most       int32 // the most that there were
	anchor     int32 // height from which the chain of now is not left; 0: it may be
	refused    []chain.RefusedBranch
	accepted   int64

	served <-chan struct{} // if not nil, closed when headers may be served
}

type fakeNode struct {
	parent  *fakeNode
	skip    *fakeNode // skipHeights below; nil near genesis
	hash    chainhash.Hash
	height  int32
	header  consensus.Header
	work    *big.Int
	raw     []byte
	invalid bool
}

func newFakeChain() *fakeChain {
	p := consensus.Regtest()
	g := &fakeNode{hash: p.GenesisHash, header: consensus.Header{BlockHeader: p.Genesis.Header}, work: big.NewInt(2)}
	c := &fakeChain{
		params: p, ready: make(chan struct{}), nodes: map[chainhash.Hash]*fakeNode{g.hash: g}, tip: g, best: g,
		tipMoved: make(chan struct{}), bestMoved: make(chan struct{}),
	}
	g.raw = consensus.AppendHeader(nil, &g.header)
	close(c.ready)
	return c
}

// makeBlocks makes n blocks after parent; size gives the bytes of each.
func makeBlocks(parent chainhash.Hash, parentTime time.Time, n int, seed uint64, size func(i int) int) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out [][]byte
	for i := range n {
		var h consensus.Header
		h.PrevBlock = parent
		h.Timestamp = parentTime.Add(time.Duration(i+1) * time.Second)
		for j := range 4 {
			binary.LittleEndian.PutUint64(h.MerkleRoot[8*j:], rng.Uint64())
		}
		raw := consensus.AppendHeader(nil, &h)
		raw = append(raw, make([]byte, max(1, size(i)-len(raw)))...)
		for j := consensus.HeaderBytes + 1; j < len(raw); j++ {
			raw[j] = byte(j)
		}
		parent = chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
		out = append(out, raw)
	}
	return out
}

func fixedSize(n int) func(int) int { return func(int) int { return n } }

// grow adds n blocks of a size to the tip.
func (c *fakeChain) grow(t testing.TB, n int, seed uint64, size int) [][]byte {
	t.Helper()
	tip, _ := c.Tip()
	bs := makeBlocks(tip.Hash, tip.Time, n, seed, fixedSize(size))
	c.addAll(t, bs)
	return bs
}

func (c *fakeChain) addAll(t testing.TB, bs [][]byte) {
	t.Helper()
	for _, raw := range bs {
		tk, err := c.Submit(t.Context(), raw, chain.Source{Kind: chain.FromMiner})
		if err != nil {
			t.Fatal(err)
		}
		if v := tk.Verdict(); v.Outcome != chain.Connected && v.Outcome != chain.Stored {
			t.Fatalf("outcome %d: %v", v.Outcome, v.Err)
		}
	}
}

func (c *fakeChain) Ready() <-chan struct{}    { return c.ready }
func (c *fakeChain) Params() *consensus.Params { return c.params }

func (n *fakeNode) tipInfo() chain.Tip {
	return chain.Tip{Hash: n.hash, Height: n.height, Time: n.header.Timestamp, Work: n.work}
}

func (c *fakeChain) Tip() (chain.Tip, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tip.tipInfo(), c.tipMoved
}

func (c *fakeChain) BestHeader() (chain.Tip, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.best.tipInfo(), c.bestMoved
}

func (c *fakeChain) addHeader(h consensus.Header) (*fakeNode, bool, error) {
	raw := consensus.AppendHeader(nil, &h)
	hash := chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
	if n := c.nodes[hash]; n != nil {
		return n, false, nil
	}
	p := c.nodes[h.PrevBlock]
	if p == nil {
		return nil, false, &consensus.RuleError{Rule: "unknown-parent", Blame: consensus.BlameNobody}
	}
	if h.Version == 666 || p.invalid {
		return nil, false, &consensus.RuleError{Rule: "bad-version", Blame: consensus.BlameBlock}
	}
	n := &fakeNode{parent: p, hash: hash, height: p.height + 1, header: h, work: new(big.Int).Add(p.work, big.NewInt(2))}
	n.skip = ancestor(p, n.height-skipHeights)
	c.nodes[hash] = n
	if n.work.Cmp(c.best.work) > 0 {
		c.setBest(n)
	}
	return n, true, nil
}

func (c *fakeChain) setBest(n *fakeNode) {
	c.best = n
	close(c.bestMoved)
	c.bestMoved = make(chan struct{})
}

func (c *fakeChain) AcceptHeaders(_ context.Context, hs []consensus.Header) (added int, last chain.Tip, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.nodes[hs[0].PrevBlock]; p != nil && p.height+int32(len(hs)) < c.minHeight {
		return 0, last, &consensus.RuleError{Rule: "too-little-chainwork", Blame: consensus.BlameNobody}
	}
	return c.acceptLocked(hs)
}

func (c *fakeChain) accept(hs []consensus.Header) (added int, last chain.Tip, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acceptLocked(hs)
}

func (c *fakeChain) acceptLocked(hs []consensus.Header) (added int, last chain.Tip, err error) {
	for _, h := range hs {
		hash := h.BlockHash()
		if p := c.nodes[h.PrevBlock]; p != nil && c.nodes[hash] == nil {
			if p.height < c.anchor && ancestor(c.tip, p.height) == p {
				c.refused = []chain.RefusedBranch{{First: hash, Fork: p.height, Depth: c.tip.height - p.height}}
				return added, last, &consensus.RuleError{Rule: "reorg-too-deep", Blame: consensus.BlameNobody}
			}
			if c.ahead > 0 && p.height+1 > c.tip.height+c.ahead {
				return added, last, &consensus.RuleError{Rule: "headers-too-far-ahead", Blame: consensus.BlameNobody}
			}
			c.most = max(c.most, p.height+1-c.tip.height)
		}
		n, fresh, err := c.addHeader(h)
		if err != nil {
			return added, last, err
		}
		if fresh {
			added++
		}
		last = n.tipInfo()
	}
	return added, last, nil
}

// LeastWork is that of minHeight.
func (c *fakeChain) LeastWork() *big.Int { return big.NewInt(2 * int64(c.minHeight+1)) }

// HeaderLimit is that of ahead.
func (c *fakeChain) HeaderLimit() int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead == 0 {
		return math.MaxInt32
	}
	return c.tip.height + c.ahead
}

// Follow is nothing: no header is forgotten.
func (c *fakeChain) Follow(chainhash.Hash) {}

// Refused is the branch from below the anchor that was shown last.
func (c *fakeChain) Refused() []chain.RefusedBranch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refused)
}

// ReorgsAccepted counts the calls of acceptReorg.
func (c *fakeChain) ReorgsAccepted() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

// acceptReorg takes the anchor away.
func (c *fakeChain) acceptReorg() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anchor, c.refused = 0, nil
	c.accepted++
}

// fakePresync believes everything and remembers what it saw.
type fakePresync struct {
	c    *fakeChain
	work *big.Int
	seen [][]consensus.Header
}

func (c *fakeChain) NewPresync(base chainhash.Hash) (Presync, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[base]
	if n == nil {
		return nil, false
	}
	return &fakePresync{c: c, work: n.work}, true
}

func (p *fakePresync) Check(_ context.Context, hs []consensus.Header) error {
	p.seen = append(p.seen, slices.Clone(hs))
	p.work = new(big.Int).Add(p.work, big.NewInt(2*int64(len(hs))))
	return nil
}

func (p *fakePresync) Work() *big.Int { return p.work }

func (p *fakePresync) Accept(_ context.Context, hs []consensus.Header) (added int, last chain.Tip, err error) {
	if !slices.EqualFunc(hs, p.seen[0], func(a, b consensus.Header) bool { return a.BlockHash() == b.BlockHash() }) {
		return 0, last, &consensus.RuleError{Rule: "presync-mismatch", Blame: consensus.BlameNobody}
	}
	p.seen = p.seen[1:]
	return p.c.accept(hs)
}

func (p *fakePresync) Done() bool { return len(p.seen) == 0 }

type fakeTicket struct{ v chain.Verdict }

func (fakeTicket) Done() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
func (t fakeTicket) Verdict() chain.Verdict { return t.v }

func (c *fakeChain) Submit(_ context.Context, raw []byte, src chain.Source) (Ticket, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.submitted++
	if c.failSubmit != nil {
		return fakeTicket{chain.Verdict{Outcome: chain.Failed, Err: c.failSubmit}}, nil
	}
	h, err := consensus.DecodeHeader(c.params, raw[:consensus.HeaderBytes])
	if err != nil {
		return nil, err
	}
	n, _, err := c.addHeader(h)
	if err != nil {
		return fakeTicket{chain.Verdict{Outcome: chain.Refused, Hash: chainhash.DoubleHashH(raw[:80]), Height: -1, Err: err}}, nil
	}
	if !src.Old {
		c.news = append(c.news, n.height)
	}
	v := chain.Verdict{Hash: n.hash, Height: n.height}
	switch {
	case n.raw != nil:
		v.Outcome = chain.Duplicate
		return fakeTicket{v}, nil
	case raw[80] == 0xfe:
		v.Outcome, v.Err = chain.Refused, &consensus.RuleError{Rule: "bad-txnmrklroot", Blame: consensus.BlameSender}
		return fakeTicket{v}, nil
	case raw[80] == 0xff || n.invalid:
		for _, o := range c.nodes {
			if ancestor(o, n.height) == n {
				o.invalid = true
			}
		}
		best := c.tip
		for _, o := range c.nodes {
			if !o.invalid && o.work.Cmp(best.work) > 0 {
				best = o
			}
		}
		if best != c.best {
			c.setBest(best)
			c.connect(best) // its blocks may be here already
		}
		v.Outcome, v.Err = chain.Refused, &consensus.RuleError{Rule: "bad-block", Blame: consensus.BlameBlock}
		return fakeTicket{v}, nil
	}
	n.raw = raw
	c.connect(n)
	v.Outcome = chain.Stored
	if ancestor(c.tip, n.height) == n {
		v.Outcome = chain.Connected
	}
	return fakeTicket{v}, nil
}

// connect moves the tip to the node with most work whose blocks are all here, of
// the best header chain or the branch that ends in last.
func (c *fakeChain) connect(last *fakeNode) {
	best := c.tip
	for _, n := range []*fakeNode{c.best, last} {
		for ; n != nil && n.work.Cmp(best.work) > 0; n = n.parent {
			whole := true
			for m := n; m != nil && ancestor(c.tip, m.height) != m; m = m.parent {
				if m.raw == nil {
					whole = false
					break
				}
			}
			if whole {
				best = n
				break
			}
		}
	}
	if best != c.tip {
		c.tip = best
		close(c.tipMoved)
		c.tipMoved = make(chan struct{})
	}
}

const skipHeights = 64

func ancestor(n *fakeNode, height int32) *fakeNode {
	for n != nil && n.skip != nil && n.skip.height >= height {
		n = n.skip
	}
	for n != nil && n.height > height {
		n = n.parent
	}
	if n == nil || n.height != height {
		return nil
	}
	return n
}

func (c *fakeChain) Status(hash chainhash.Hash) (chain.NodeStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[hash]
	if n == nil {
		return chain.NodeStatus{}, false
	}
	return chain.NodeStatus{
		Height: n.height, Header: n.header, Work: n.work, HaveBlock: n.raw != nil, Invalid: n.invalid,
		Active: ancestor(c.tip, n.height) == n,
	}, true
}

func (c *fakeChain) Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := ancestor(c.nodes[hash], height)
	if n == nil {
		return chainhash.Hash{}, false
	}
	return n.hash, true
}

func (c *fakeChain) Fork(a, b chainhash.Hash) (chainhash.Hash, int32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, y := c.nodes[a], c.nodes[b]
	if x == nil || y == nil {
		return chainhash.Hash{}, 0, false
	}
	lower := min(x.height, y.height)
	x, y = ancestor(x, lower), ancestor(y, lower)
	for x != y {
		if x.height >= y.height {
			x = x.parent
		} else {
			y = y.parent
		}
	}
	return x.hash, x.height, true
}

func (c *fakeChain) Have(tip chainhash.Hash, from, to int32) (out [][2]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := from + 1; h <= to; h++ {
		if n := ancestor(c.nodes[tip], h); n != nil && n.raw != nil {
			if k := len(out); k > 0 && out[k-1][1] == h-1 {
				out[k-1][1] = h
			} else {
				out = append(out, [2]int32{h, h})
			}
		}
	}
	return out
}

func (c *fakeChain) Locator(hash chainhash.Hash) (out []chainhash.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step := 1
	for n := c.nodes[hash]; n != nil; {
		out = append(out, n.hash)
		if n.height == 0 {
			break
		}
		if len(out) > 10 {
			step *= 2
		}
		n = ancestor(n, max(0, n.height-int32(step)))
	}
	return out
}

func (c *fakeChain) HeadersAfter(dst []byte, locator []chainhash.Hash, limit int) (start int32, n int, raw []byte, err error) {
	if c.served != nil {
		<-c.served
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	start = 1
	for _, h := range locator {
		if x := c.nodes[h]; x != nil && ancestor(c.tip, x.height) == x {
			start = x.height + 1
			break
		}
	}
	n = min(limit, int(c.tip.height-start)+1)
	list := make([]*fakeNode, n)
	x := ancestor(c.tip, start+int32(n)-1)
	for i := n - 1; i >= 0; i-- {
		list[i] = x
		x = x.parent
	}
	for _, x := range list {
		dst = consensus.AppendHeader(dst, &x.header)
	}
	return start, n, dst, nil
}

func (c *fakeChain) Block(hash chainhash.Hash) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	if n := c.nodes[hash]; n != nil && n.raw != nil {
		return n.raw, nil
	}
	return nil, chain.ErrNotFound
}

func (c *fakeChain) BlockSize(hash chainhash.Hash) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[hash]; n != nil {
		return len(n.raw)
	}
	return 0
}

func (c *fakeChain) ReadBlocks(buf []byte, hashes []chainhash.Hash) (blocks [][]byte, err error) {
	for i, h := range hashes {
		if size := c.BlockSize(h); i > 0 && (size == 0 || size+recordFrame > len(buf)) {
			break
		}
		raw, err := c.Block(h)
		if err != nil || len(raw)+recordFrame > len(buf) {
			return nil, err
		}
		n := copy(buf, raw)
		blocks = append(blocks, buf[:n:n])
		buf = buf[n+recordFrame:]
	}
	return blocks, nil
}

func (c *fakeChain) CheckBlock(hash chainhash.Hash, _ []byte) error {
	_, err := c.Block(hash)
	return err
}

func (c *fakeChain) ReadBlockPart(hash chainhash.Hash, offset int64, dst []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[hash]
	if n == nil || n.raw == nil {
		return chain.ErrNotFound
	}
	copy(dst, n.raw[offset:])
	return nil
}
