package chain

import (
	"fmt"
	"math"
	"math/big"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// Headers are cheap where work is: whoever makes millions on an easy branch could
// fill memory and disk of all nodes with them. What peers send therefore passes a
// gate before the tree takes it.
//
//   - A branch must have as much work as the validated one less 144 of its last
//     blocks, as in Bitcoin Core: what is below could not become the best chain
//     without showing far more first. And never less than the network's
//     MinChainWork.
//   - Headers that are on neither the validated nor the best header chain are at
//     most maxSideHeaders. When they are that many, only a branch that ends with
//     more work than the best header chain is taken: an honest reorganisation
//     has that.
//   - Headers that are not on the validated chain are at most maxSideHeaders and
//     maxAheadHeaders together: the room. More are taken when blocks have followed.
//
// Where stake makes blocks headers cost nothing at all. There no branch may be more than
// Options.HeadersAhead further than the validated chain, whatever work it claims; a peer
// with a longer chain is asked again as blocks follow. There is always room for a branch,
// for others are forgotten for it (forget.go), so only the first of the three rules
// applies.
//
// Where work makes blocks what was once stored stays, so a room that was filled with spam stays full. Some
// branches are therefore taken all the same; see [tree.exempt].
//
// Where all work is the same (regtest), nothing tells spam from a chain, and a room
// that was filled with spam keeps honest branches out that are not the best and fork
// off further down; MinChainWork helps there.
const (
	gateBlocks      = 144
	maxSideHeaders  = 1 << 18
	maxAheadHeaders = 1 << 20
	// maxNearHeaders is how many headers near the validated tip are taken without
	// room until it is another.
	maxNearHeaders = 256
)

// A gate is what headers from peers must meet at one moment.
type gate struct {
	tip, best uint32
	floor     work128 // nothing below is taken
	least     work128 // the floor, or more than the best header chain where the side is full
	beat      work128 // the least that is more than the best header chain has
	room      int     // headers; may be negative
	ahead     int     // headers of the best header chain that are not validated
}

// headerGate returns the gate as of now. O(log height).
func (c *Chain) headerGate() gate {
	t := c.tree
	g := gate{tip: c.tip.get()}
	t.mu.RLock()
	n := int(t.n)
	g.best = t.bestHeader
	side, ahead := t.maxSide, t.maxAhead
	t.mu.RUnlock()

	nd := t.node(g.tip)
	own := nd.work
	if nd.parent != noNode {
		own = own.sub(t.node(nd.parent).work)
	}
	g.floor = nd.work.sub(own.times(gateBlocks))
	if least := workOf(c.o.Params.MinChainWork); least.more(g.floor) {
		g.floor = least
	}
	g.least = g.floor
	if t.capped {
		g.room = math.MaxInt
		return g
	}
	off := n - int(nd.height) - 1
	g.room = side + ahead - off
	if g.best != noNode {
		b := t.node(g.best)
		g.ahead = int(b.height - t.node(t.fork(g.best, g.tip)).height)
		g.beat = b.work.add(work128{lo: 1})
		if off-g.ahead >= side && g.beat.more(g.least) {
			g.least = g.beat
		}
	}
	return g
}

// aheadLimit is the greatest height that a header on the branch of hash, which is known,
// may have; the greatest there is where that has no limit.
func (c *Chain) aheadLimit(hash *chainhash.Hash) int32 {
	t := c.tree
	if !t.capped {
		return math.MaxInt32
	}
	tip := c.tip.get()
	t.mu.RLock()
	i, ok := t.find(hash)
	ns, ahead := t.nodes(), t.maxAhead
	t.mu.RUnlock()
	if !ok { // forgotten just now: it will be found to be so
		return math.MaxInt32
	}
	return ns.node(ns.fork(i, tip)).height + int32(ahead)
}

// HeaderLimit is how high headers that extend the best header chain may be at present;
// the greatest number there is where there is no limit. It grows with the validated chain.
func (c *Chain) HeaderLimit() int32 {
	t := c.tree
	if !t.capped {
		return math.MaxInt32
	}
	t.mu.RLock()
	best := t.node(t.bestHeader).hash
	t.mu.RUnlock()
	return c.aheadLimit(&best)
}

// tooFar returns the fault of a header at this height on the branch of its parent; nil if
// it is within the limit.
func (c *Chain) tooFar(parent *chainhash.Hash, height int32) error {
	limit := c.aheadLimit(parent)
	if height <= limit {
		return nil
	}
	return ruleError(ruleTooFar, consensus.BlameNobody, fmt.Sprintf("header at height %d, at most %d until blocks have followed", height, limit))
}

// ruleTooFar is the rule that headers break which are too many for the blocks that
// are validated.
const ruleTooFar = "headers-too-far-ahead"

// fits says whether the tree has room for n headers, where it forgets some for others.
func (c *Chain) fits(n int) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.fits(n)
}

// noRoom is the fault of n headers that do not fit.
func noRoom(n, room int) *consensus.RuleError {
	return ruleError("too-many-headers", consensus.BlameNobody, fmt.Sprintf("%d more headers beside the validated chain, there is room for %d", n, max(0, room)))
}

// admit says why n new headers above parent may not be added, if the branch ends
// with this much work with them, or is proven to further up. Where headers can be
// forgotten there is room, and parent does not matter.
func (c *Chain) admit(parent uint32, have, proven work128, n int) error {
	if proven == maxWork {
		return nil // the operator's own
	}
	if proven.more(have) {
		have = proven
	}
	g := c.headerGate()
	if g.floor.more(have) {
		return tooLittleWork(have, g.floor)
	}
	if !g.least.more(have) && n <= g.room {
		return nil
	}
	t := c.tree
	if t.capped {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.exempt(&g, parent, have, n):
		return nil
	case g.least.more(have):
		return tooLittleWork(have, g.least)
	case n >= headerBatch && parent != g.best:
		// There is more to come, which may show enough.
		return tooLittleWork(have, t.enough())
	}
	return noRoom(n, g.room)
}

func tooLittleWork(have, least work128) error {
	return ruleError("too-little-chainwork", consensus.BlameNobody, fmt.Sprintf("the branch has %x, the least is %x", have.big(), least.big()))
}

// exempt says whether n headers above parent, on a branch that ends with this much
// work, are taken though there is no room, and deducts them from what they are
// taken for. The caller holds mu. These are:
//
//   - What extends the best header chain, up to maxAhead above the validated one:
//     it takes the place of nothing. If that is not the branch with most work that
//     ever was (which proved invalid, or was shown and never came), up to gateBlocks.
//   - What forks off within the last gateBlocks of the validated chain and is no
//     longer than that; maxNear in all until the validated tip is another.
//   - A branch with twice the work of all that was seen before: whoever fills the
//     room by that must double the work each time. It gives room for as many
//     headers as such a branch can have, maxAhead at most, which branches with no
//     less work share: pulls are interrupted, and others go on.
func (t *tree) exempt(g *gate, parent uint32, have work128, n int) bool {
	if parent == g.best && g.ahead+n <= t.maxAhead && (!t.most.more(t.node(parent).work) || g.ahead+n <= gateBlocks) {
		return true
	}
	if t.nearTip != g.tip {
		t.nearTip, t.nearLeft = g.tip, t.maxNear
	}
	at := t.node(t.fork(parent, g.tip)).height
	if t.node(g.tip).height-at <= gateBlocks && int(t.node(parent).height-at)+n <= gateBlocks && n <= t.nearLeft {
		t.nearLeft -= n
		return true
	}
	if !t.most.times(2).more(have) {
		t.most, t.mostLeft = have, t.maxAhead
		if easiest := t.node(0).work; easiest.times(uint64(t.maxAhead)).more(have) {
			t.mostLeft = int(new(big.Int).Div(have.big(), easiest.big()).Int64())
		}
	}
	if t.most.more(have) || n > t.mostLeft {
		return false
	}
	t.mostLeft -= n
	return true
}

// enough is the work of a branch that is taken without room. The caller holds mu.
func (t *tree) enough() work128 {
	if t.mostLeft >= headerBatch {
		return t.most
	}
	return t.most.times(2)
}

// LeastWork returns the cumulative work that a branch of headers from peers must
// have for AcceptHeaders to add any of them, but for those near the tip. It changes
// with the tip. Where there is no room, a branch that does not extend the best header
// chain needs more; [Presync.Work] heeds that.
func (c *Chain) LeastWork() *big.Int {
	g := c.headerGate()
	return g.asked().big()
}

// asked is what LeastWork returns.
func (g *gate) asked() work128 {
	if g.room < headerBatch && g.beat.more(g.least) {
		return g.beat
	}
	return g.least
}
