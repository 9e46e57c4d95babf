package chain

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Where stake makes blocks, one that was never connected shows nothing: its header may
// claim a coin that is not there, and whoever has a coin can make as many blocks for one
// slot as he likes. So what peers send goes to the block files, which only grow, when it
// has been connected: at step 12, behind everything that is checked. A block that is
// connected as it comes is held in memory until then, as the pipeline holds it anyway.
// One that is not, since its branch has less work or lacks a block, lies aside: in a file
// of its own, which is removed when the block has gone to the block files, is found
// invalid, or makes way for others.
//
// What lies aside takes Options.AsideBytes at most. When more comes, others make way, branch
// by branch: those first of which nobody asked for a block, then those of which the latest
// came longest ago, the highest block of each before those below it, so that what is left
// is of use. Never the branch that sync follows ([Chain.Follow]) or the
// one that the chain goes to. When only these are left the branch may take a quarter of the
// free space besides, for a node that catches up may have to leave a chain of any length;
// what does not fit is not kept, which is nobody's fault. None of it outlives the process:
// what was of use is fetched again.
//
// What the node's own operator, miner or disk brings is believed to be worth its place.

// asideFreeShare is the part of the free disk space that the branch that is followed may
// take beyond Options.AsideBytes.
const asideFreeShare = 4

// asideKept is the part of Options.AsideBytes, in eighths, that stays when blocks make way:
// not one block each time, for which all would be looked through.
const asideKept = 7

// A shelf is the book of what lies aside. It belongs to the conductor.
type shelf struct {
	blocks map[uint32]shelved // by node
	came   uint64             // counts them
	bytes  int64              // that the files of blocks take
	said   limiter
}

// shelved is a block that lies aside.
type shelved struct {
	place store.Pos
	came  uint64 // in which order
	asked bool   // sync asked for it
	file  int64  // bytes that its file takes; 0: it is held in memory
}

// ownBlock says whether the block was brought by somebody who may fill the disk.
func (it *item) ownBlock() bool { return it.src.Kind != FromSync && it.src.Kind != FromGossip }

// putBlock takes the bytes of a block: aside if a peer sent it and it may prove to be worth
// nothing, else to the block files. The tree is to be told.
func (c *conductor) putBlock(i uint32, it *item) (store.Pos, error) {
	c.tree.mu.RLock()
	valid := c.tree.has(i, flagValid) // its bytes were pruned, or are damaged
	c.tree.mu.RUnlock()
	if valid || !c.tree.capped || it.ownBlock() {
		p, err := c.store.AppendBlock(it.block.Raw)
		if err != nil {
			return p, fmt.Errorf("storing block %v at height %d: %w", it.hash, c.tree.node(i).height, err)
		}
		return p, nil
	}
	p := c.store.HoldAside(it.block.Raw)
	c.shelf.came++
	c.shelf.blocks[i] = shelved{place: p, came: c.shelf.came, asked: it.src.Kind == FromSync}
	return p, nil
}

// asidePlace is where the bytes of i lie aside; false if they do not.
func (c *conductor) asidePlace(i uint32) (shelved, bool) {
	s, ok := c.shelf.blocks[i]
	return s, ok
}

// unshelve forgets that i lies aside, and its bytes there. The tree has been told: whoever
// looks for them now looks elsewhere.
func (c *conductor) unshelve(i uint32) {
	if s, ok := c.shelf.blocks[i]; ok {
		delete(c.shelf.blocks, i)
		c.dropAside(s)
	}
}

// dropAside is unshelve of what is not in the book any more.
func (c *conductor) dropAside(s shelved) {
	c.shelf.bytes -= s.file
	if err := c.store.DropAside(s.place); err != nil && !errors.Is(err, store.ErrClosed) {
		if n, ok := c.shelf.said.allow(c.o.Now()); ok {
			c.log.Warn("a block that is of no use stays on disk until the next start", "err", err, "suppressed", n)
		}
	}
}

// toFiles takes the bytes of a block that has been connected to the block files, if they
// lie aside.
func (c *conductor) toFiles(i uint32, b *consensus.Block) error {
	if _, ok := c.asidePlace(i); !ok {
		return nil
	}
	p, err := c.store.AppendBlock(b.Raw)
	if err != nil {
		return fmt.Errorf("storing block %v at height %d: %w", b.Hash, c.tree.node(i).height, err)
	}
	c.tree.mu.Lock()
	c.tree.ownBody(i).block = p
	c.tree.mu.Unlock()
	c.unshelve(i)
	return nil
}

// setAside writes a block that is not connected now to its file, if there is room, and says
// whether it is kept.
func (c *conductor) setAside(i uint32) (kept bool, err error) {
	s, ok := c.asidePlace(i)
	if !ok || s.file > 0 {
		return true, nil
	}
	s.file = store.AsideCost(int(s.place.Size))
	if !c.asideRoom(i, s.file) {
		c.takeOff([]uint32{i})
		return false, nil
	}
	if err := c.store.WriteAside(s.place); err != nil {
		nd := c.tree.node(i)
		return false, fmt.Errorf("storing block %v at height %d: %w", nd.hash, nd.height, err)
	}
	c.shelf.blocks[i] = s
	c.shelf.bytes += s.file
	return true, nil
}

// noRoomAside is the fault of a block that there was no room for.
func noRoomAside() *consensus.RuleError {
	return ruleError("too-many-blocks-aside", consensus.BlameNobody, "there is no room for more blocks that are not connected")
}

// asideRoom makes room for n more bytes, those of i, and says whether there is.
func (c *conductor) asideRoom(i uint32, n int64) bool {
	limit := c.o.AsideBytes
	if c.shelf.bytes+n <= limit {
		return true
	}
	t := c.tree
	t.mu.RLock()
	ends := []uint32{t.bestLinked}
	if k, ok := t.find(&t.followed); ok {
		ends = append(ends, k)
	}
	t.mu.RUnlock()
	wanted := func(k uint32) bool {
		return slices.ContainsFunc(ends, func(end uint32) bool { return t.descends(end, k) })
	}
	busy := make(map[uint32]bool, len(c.ahead)+len(c.flights))
	for _, it := range c.ahead {
		busy[it.node] = true
	}
	for _, f := range c.flights {
		busy[f.node] = true
	}
	spare := c.shelfByWorth()
	spare = slices.DeleteFunc(spare, func(k uint32) bool { return busy[k] || wanted(k) })
	left, gone := c.shelf.bytes, 0
	for _, k := range spare {
		if left+n <= limit/8*asideKept {
			break
		}
		left -= c.shelf.blocks[k].file
		gone++
	}
	c.takeOff(spare[:gone])
	if gone > 0 {
		if suppressed, ok := c.shelf.said.allow(c.o.Now()); ok {
			c.log.Warn("blocks that were never connected made way for others", "blocks", gone, "kept_bytes", c.shelf.bytes,
				"most_bytes", limit, "suppressed", suppressed)
		}
	}
	if c.shelf.bytes+n <= limit {
		return true
	}
	free, err := c.store.DiskFree()
	return err == nil && wanted(i) && uint64(c.shelf.bytes+n-limit) <= free/asideFreeShare
}

// shelfByWorth lists the blocks that have a file aside, those first that are the least loss.
func (c *conductor) shelfByWorth() []uint32 {
	t := c.tree
	all := make([]uint32, 0, len(c.shelf.blocks))
	for k, s := range c.shelf.blocks {
		if s.file > 0 {
			all = append(all, k)
		}
	}
	// A branch is what hangs together here: its name is its lowest block.
	slices.SortFunc(all, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(t.node(a).height, t.node(b).height), cmp.Compare(a, b))
	})
	type branch struct {
		asked bool
		came  uint64 // the latest of it
	}
	root, branches := make(map[uint32]uint32, len(all)), make(map[uint32]branch)
	for _, k := range all {
		r, ok := root[t.node(k).parent]
		if !ok {
			r = k
		}
		root[k] = r
		b, s := branches[r], c.shelf.blocks[k]
		branches[r] = branch{b.asked || s.asked, max(b.came, s.came)}
	}
	slices.SortFunc(all, func(a, b uint32) int {
		x, y := branches[root[a]], branches[root[b]]
		if x.asked != y.asked {
			if y.asked {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(x.came, y.came), cmp.Compare(t.node(b).height, t.node(a).height), cmp.Compare(a, b))
	})
	return all
}

// takeOff makes blocks that lie aside ones that are not here: what builds on them waits for
// them again. None of them is on the branch that the chain goes to.
func (c *conductor) takeOff(blocks []uint32) {
	if len(blocks) == 0 {
		return
	}
	t := c.tree
	t.mu.Lock()
	for _, i := range blocks {
		b := t.ownBody(i)
		b.block, b.txs = store.Pos{}, 0
		t.touch(i) // if the index has it, from before
	}
	for parent, waiting := range t.pending {
		waiting = slices.DeleteFunc(waiting, func(i uint32) bool { return t.body(i).block.Size == 0 })
		if t.pending[parent] = waiting; len(waiting) == 0 {
			delete(t.pending, parent)
		}
	}
	// Only what was never validated can build on them.
	var linked []uint32
	for i := range t.n {
		if t.has(i, flagLinked) && !t.has(i, flagValid) {
			linked = append(linked, i)
		}
	}
	slices.SortFunc(linked, func(a, b uint32) int { return cmp.Compare(t.node(a).height, t.node(b).height) })
	for _, i := range linked {
		parent := t.node(i).parent
		if t.body(i).block.Size > 0 && t.has(parent, flagLinked) {
			continue
		}
		*t.flags(i) &^= flagLinked
		if t.body(i).block.Size > 0 {
			t.pending[parent] = append(t.pending[parent], i)
		}
	}
	t.mu.Unlock()
	for _, i := range blocks {
		c.unshelve(i)
	}
}

// clearAside drops what lies aside of blocks that are known to be invalid.
func (c *conductor) clearAside() {
	t := c.tree
	var bad []uint32
	t.mu.RLock()
	for i := range c.shelf.blocks {
		if t.has(i, flagBad) {
			bad = append(bad, i)
		}
	}
	t.mu.RUnlock()
	c.takeOff(bad)
}

// Aside returns how many blocks that were never connected lie aside, and the bytes that
// they take of the disk.
func (c *Chain) Aside() (blocks int, bytes int64) { return c.store.Aside() }
