package chain

import (
	"cmp"
	"context"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Where stake makes blocks a header costs nothing and shows nothing before its block has
// been validated. There the tree holds no more than a fixed number of headers without a
// validated block (unproven.most), and when more come it forgets some: not those of the
// branches that the node is at work on, nor those that were shown last. A branch that is
// forgotten is welcome again when somebody shows it again, so nothing is lost by that but
// the bytes of its headers. So whatever was shown before, and however much of it, there is
// room for the next branch; and what the chain has validated is never forgotten.
//
// Kept are, in this order: the branches that the conductor holds (blocks on their way
// through it, the branch it goes to), the best header chain, the branch that sync follows
// ([Chain.Follow]), that of the headers for which room is made, the operator's; then those
// shown last, as many as fit. Each of the branches has at most maxAhead headers that are
// not validated, so at least maxSide more have room after that.
//
// Headers alone are not stored there either: the index has those with a block, and what
// lies below these, so that a restart begins without the others.
//
// Forgotten headers leave free numbers, which later ones take: the tree never grows by
// more than its bound. Only the conductor forgets, between two things that it does, so its
// own numbers stay good. Others work with the nodes of the moment in which they got a
// number (see nodes), and come back to the tree with a hash.

// For as many headers as keptBranches times maxAhead there is room beside maxSide: for four
// branches that are kept in any case, the rest for those shown last. maxSide is sideBranches
// times maxAhead. By default that makes 147,072 headers, some 50 MB with their seals.
const (
	keptBranches = 6
	sideBranches = 2
)

// unproven is what a tree knows of headers that can be forgotten; all zero where work makes
// blocks. It is guarded by tree.mu.
type unproven struct {
	// waiting is how many headers have no validated block.
	waiting int
	// clock counts the times that headers were shown.
	clock uint64
	// free are the numbers of forgotten headers. Nobody who has one got it from the present
	// nodes.
	free []uint32
	// erase are the records that the index has of forgotten headers.
	erase []record
	// followed is the end of the branch that sync follows.
	followed chainhash.Hash
	// offShelf are forgotten nodes whose blocks still lie aside.
	offShelf []uint32
}

// record names what the index has of a header.
type record struct {
	hash   chainhash.Hash
	height int32
}

// loose is what is known of the nodes of a chunk where headers can be forgotten.
type loose struct {
	shown  [chunkNodes]uint64 // when last, by unproven.clock
	stored [chunkNodes]bool   // the index has it, or will with the next commit
	gone   [chunkNodes]bool   // forgotten: the number is free
}

// flagsGone are those of a forgotten node: it is no leaf, and no candidate for anything.
const flagsGone = flagInvalid | flagDoomed | flagParent

// loose returns what is known of the chunk of i. The caller holds mu, and t.capped is set.
func (t *tree) loose(i uint32) *loose { return t.nodes()[i/chunkNodes].loose }

// gone says whether i is a free number. The caller holds mu.
func (t *tree) gone(i uint32) bool { return t.capped && t.loose(i).gone[i%chunkNodes] }

// mostUnproven is how many headers without a validated block the tree holds. The caller
// holds mu.
func (t *tree) mostUnproven() int { return keptBranches*t.maxAhead + t.maxSide }

// fits says whether n more headers do. The caller holds mu.
func (t *tree) fits(n int) bool { return !t.capped || t.waiting+n <= t.mostUnproven() }

// take returns the number for a new node: a free one or the next. The caller holds mu.
func (t *tree) take() uint32 {
	i := t.n
	if k := len(t.free) - 1; k >= 0 {
		i, t.free = t.free[k], t.free[:k]
		*t.flags(i) = 0
	} else {
		if dir := t.nodes(); int(i/chunkNodes) == len(dir) {
			c := new(chunk)
			if t.capped {
				c.loose = new(loose)
			}
			dir = append(slices.Clone(dir), c)
			t.dir.Store(&dir)
		}
		t.n++
	}
	if t.capped {
		l, k := t.loose(i), i%chunkNodes
		l.shown[k], l.stored[k], l.gone[k] = t.clock, false, false
		t.waiting++
	}
	return i
}

// prove notes that the block of i has been validated. The caller holds mu.
func (t *tree) prove(i uint32) {
	if t.capped && !t.has(i, flagValid) {
		t.waiting--
	}
	*t.flags(i) |= flagValid
}

// lasts says whether the index is to have i: where headers can be forgotten only with its
// block in the block files, or when it has it already. The caller holds mu.
func (t *tree) lasts(i uint32) bool {
	if !t.capped || t.has(i, flagValid|flagPruned) || t.loose(i).stored[i%chunkNodes] {
		return true
	}
	p := t.body(i).block
	return p.Size > 0 && !p.Aside()
}

// show notes that somebody shows the branch that ends in a hash.
func (t *tree) show(hash *chainhash.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	if i, ok := t.find(hash); ok {
		t.loose(i).shown[i%chunkNodes] = t.clock
	}
}

// forget makes room: see above. kept are the ends of branches to keep in any case; of the
// others as many are kept as most allows in all. It returns how many headers are gone. It takes time in proportion to the tree, some 20 ms
// for a million headers, which as many headers as maxSide must be shown for each time. The
// caller holds mu and is the conductor, or nobody else knows the tree.
func (t *tree) forget(kept []uint32, most int) int {
	keep := make([]bool, t.n)
	held := 0
	// way marks what is not validated of a branch, unless that is more than most allows.
	way := func(i uint32, most int) bool {
		n := 0
		for up := i; up != noNode && !keep[up] && !t.has(up, flagValid); up = t.node(up).parent {
			if n++; held+n > most {
				return false
			}
		}
		held += n
		for up := i; up != noNode && !keep[up] && !t.has(up, flagValid); up = t.node(up).parent {
			keep[up] = true
		}
		return true
	}
	for _, i := range kept {
		if i != noNode {
			way(i, int(t.n))
		}
	}
	var rest []uint32
	for i := range t.n {
		if !keep[i] && !t.has(i, flagValid) && !t.gone(i) {
			rest = append(rest, i)
		}
	}
	slices.SortFunc(rest, func(a, b uint32) int {
		shownA, shownB := t.loose(a).shown[a%chunkNodes], t.loose(b).shown[b%chunkNodes]
		return cmp.Or(cmp.Compare(shownB, shownA), cmp.Compare(t.node(b).height, t.node(a).height), cmp.Compare(b, a))
	})
	for _, i := range rest {
		if never := t.loose(i).shown[i%chunkNodes] == 0; never || !keep[i] && !way(i, most) {
			break
		}
	}
	gone := slices.DeleteFunc(rest, func(i uint32) bool { return keep[i] })
	t.drop(gone)
	return len(gone)
}

// drop takes nodes out of the tree, with every one all that builds on it. The caller holds
// mu.
func (t *tree) drop(gone []uint32) {
	if len(gone) == 0 {
		return
	}
	old := t.nodes()
	for _, i := range gone {
		t.index.remove(&old.node(i).hash, i, func(j uint32) *chainhash.Hash { return &old.node(j).hash })
	}
	// Whoever works with the nodes of before goes on to see them: free numbers are in new
	// chunks only.
	dir := slices.Clone(old)
	parents := make(map[uint32]struct{})
	for _, i := range gone {
		at, k := i/chunkNodes, i%chunkNodes
		if dir[at] == old[at] {
			c := *old[at]
			dir[at] = &c
		}
		c, nd := dir[at], old.node(i)
		if c.loose.stored[k] {
			t.erase = append(t.erase, record{nd.hash, nd.height})
		}
		c.nodes[k], c.flags[k] = node{}, flagsGone
		if c.bodies != nil {
			if c.bodies[k].block.Aside() {
				t.offShelf = append(t.offShelf, i)
			}
			c.bodies[k] = body{}
		}
		c.loose.gone[k] = true
		delete(t.seals, i)
		delete(t.pending, i)
		parents[nd.parent] = struct{}{}
	}
	t.dir.Store(&dir)
	t.waiting -= len(gone)
	t.free = append(t.free, gone...)
	slices.SortFunc(t.free, func(a, b uint32) int { return cmp.Compare(b, a) }) // the lowest first
	t.dirty, t.tied = slices.DeleteFunc(t.dirty, t.gone), slices.DeleteFunc(t.tied, t.gone)
	for parent, waiting := range t.pending {
		if waiting = slices.DeleteFunc(waiting, t.gone); len(waiting) == 0 {
			delete(t.pending, parent)
		} else {
			t.pending[parent] = waiting
		}
	}
	// The branch to a checkpoint must be welcome again.
	if t.checkpoint.Load() > 0 {
		top := int32(0)
		for height, hash := range t.params.Checkpoints {
			if _, ok := t.find(&hash); ok {
				top = max(top, height)
			}
		}
		t.checkpoint.Store(top)
	}
	// What a node built on that is gone may be a leaf now.
	for i := range parents {
		if !t.gone(i) {
			*t.flags(i) &^= flagParent
		}
	}
	for i := range t.n {
		if up := dir.node(i).parent; up != noNode && !t.gone(i) {
			*t.flags(up) |= flagParent
		}
	}
}

// Follow says that sync downloads the blocks of the branch that ends in hash: where headers
// can be forgotten, these are kept until another branch is named. One that is unknown keeps
// nothing.
func (c *Chain) Follow(hash chainhash.Hash) {
	if t := c.tree; t.capped {
		t.mu.Lock()
		t.followed = hash
		t.mu.Unlock()
	}
}

// makeRoom forgets headers so that others can be added above the one of this hash. It waits
// for the conductor, and so for Run.
func (c *Chain) makeRoom(ctx context.Context, parent chainhash.Hash) error {
	return c.ask(ctx, func(c *conductor) (answer, err error) {
		c.forget(parent)
		return nil, nil
	})
}

// forget forgets headers, but not those at hand nor the branch that ends in parent.
func (c *conductor) forget(parent chainhash.Hash) {
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := []uint32{c.tip.get(), c.applied, c.verified, c.committed, t.bestHeader, t.bestLinked, t.anchor, t.accepted}
	for i := range c.waiting {
		kept = append(kept, i)
	}
	for _, f := range c.flights {
		kept = append(kept, f.node)
	}
	for _, it := range c.ahead {
		kept = append(kept, it.node)
	}
	for _, hash := range []*chainhash.Hash{&parent, &t.followed} {
		if i, ok := t.find(hash); ok {
			kept = append(kept, i)
		}
	}
	before := t.waiting
	if t.forget(kept, t.mostUnproven()-t.maxSide) == 0 {
		return
	}
	for _, i := range t.offShelf { // before somebody else gets the number
		c.unshelve(i)
	}
	t.offShelf = nil
	c.blocked = slices.DeleteFunc(c.blocked, t.gone)
	for i := range c.damaged {
		if t.gone(i) {
			delete(c.damaged, i)
		}
	}
	if len(t.erase) > 0 {
		c.armFlush()
	}
	if n, ok := c.forgot.allow(c.o.Now()); ok {
		c.log.Warn("headers without blocks were forgotten: more were shown than there is room for", "headers", before-t.waiting,
			"kept", t.waiting, "most", t.mostUnproven(), "suppressed", n)
	}
}

// forgetLoaded forgets, of what Open has read, the headers without blocks, which homes of
// earlier versions hold, and more than there is room for. The caller holds mu, and nobody
// else knows the tree.
func (t *tree) forgetLoaded(tip uint32) {
	if !t.capped {
		return
	}
	t.clock++
	for i := range t.n {
		if t.body(i).block.Size > 0 && !t.has(i, flagBad) {
			t.loose(i).shown[i%chunkNodes] = t.clock
		}
	}
	t.forget([]uint32{tip, t.anchor, t.accepted}, t.mostUnproven()-t.maxSide)
}
