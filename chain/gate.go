package chain

import (
	"fmt"
	"math/big"

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
//     maxAheadHeaders together. More are taken when blocks have followed.
//
// So a node that starts from genesis, without anything to compare with, holds
// about 150 MB of headers at most above what it has validated. Where all work is the
// same (regtest), nothing tells spam from a chain, and a gate that was filled with
// spam keeps honest branches out that are not longer; MinChainWork helps there.
const (
	gateBlocks      = 144
	maxSideHeaders  = 1 << 18
	maxAheadHeaders = 1 << 20
)

// A gate is what headers from peers must meet at one moment.
type gate struct {
	least work128
	room  int // headers
}

// headerGate returns the gate as of now. O(log height).
func (c *Chain) headerGate() gate {
	t := c.tree
	tip := c.tip.get()
	t.mu.RLock()
	n, best := int(t.n), t.bestHeader
	side, ahead := t.maxSide, t.maxAhead
	t.mu.RUnlock()

	nd := t.node(tip)
	own := nd.work
	if nd.parent != noNode {
		own = own.sub(t.node(nd.parent).work)
	}
	g := gate{least: nd.work.sub(own.times(gateBlocks))}
	if least := workOf(c.o.Params.MinChainWork); least.more(g.least) {
		g.least = least
	}
	off := n - int(nd.height) - 1
	g.room = side + ahead - off
	beside := off
	if best != noNode {
		b := t.node(best)
		beside -= int(b.height - t.node(t.fork(best, tip)).height)
		if beat := b.work.add(work128{lo: 1}); beside >= side && beat.more(g.least) {
			g.least = beat
		}
	}
	return g
}

// check says why a branch that ends with this much work, or is proven to, may
// not be added to by n headers.
func (g gate) check(have, proven work128, n int) error {
	if proven.more(have) {
		have = proven
	}
	if g.least.more(have) {
		return ruleError("too-little-chainwork", consensus.BlameNobody, fmt.Sprintf("the branch has %x, the least is %x", have.big(), g.least.big()))
	}
	if n > g.room {
		return ruleError("too-many-headers", consensus.BlameNobody, fmt.Sprintf("%d more headers beside the validated chain, there is room for %d", n, max(0, g.room)))
	}
	return nil
}

// LeastWork returns the cumulative work that a branch of headers from peers must
// have for AcceptHeaders to add any of them. It changes with the tip.
func (c *Chain) LeastWork() *big.Int { return c.headerGate().least.big() }
