package chain

import (
	"context"
	"fmt"
	"slices"

	"dunlin/chain/store"
)

// KeepBlocks is how many of the last blocks, with their undo data, pruning always
// keeps: two days of Bitcoin's, as Bitcoin Core does. No reorganisation in
// practice is deeper. Where the chain may leave more by itself
// ([consensus.Params.MaxReorg]) it is as many as that.
const KeepBlocks = 288

// keepBlocks is how many it is on this network.
func (c *Chain) keepBlocks() int32 { return max(KeepBlocks, c.o.Params.MaxReorg) }

// pruneEvery is how many blocks lie between two looks at whether there is
// anything to prune: one walks the tree.
const pruneEvery = 64

// A PruneReport says what a Prune did.
type PruneReport struct {
	Blocks int   // whose bytes were removed
	Freed  int64 // bytes
	Kept   int64 // bytes of block and undo files that are left
	Lowest int32 // height from which on all blocks of the active chain are there
}

// Lowest returns the lowest height from which on every block of the active chain
// is on disk; 0 unless blocks were pruned. Status, Have and Block tell of each.
func (c *Chain) Lowest() int32 { return c.lowest.Load() }

// Prune removes the oldest block and undo files, whole, until at most keep bytes
// are left, or the last KeepBlocks blocks (more where reorganisations may be deeper), or the file being written. A home that
// was pruned cannot be reindexed.
func (c *Chain) Prune(ctx context.Context, keep int64) (r PruneReport, err error) {
	err = c.ask(ctx, func(c *conductor) (answer, err error) {
		switch {
		case keep < 0:
			return fmt.Errorf("prune: %d bytes to keep, must not be negative", keep), nil
		case c.reindex:
			return fmt.Errorf("prune: %w", errReindexing), nil
		}
		if err := c.drain(); err != nil {
			return nil, err
		}
		if err := c.save(); err != nil {
			return nil, err
		}
		r, err = c.prune(keep)
		return nil, err
	})
	return r, err
}

// pruneIfDue follows a commit.
func (c *conductor) pruneIfDue() error {
	// A reindex that is cut off begins again with the first file.
	if c.o.PruneBytes == 0 || c.reindex {
		return nil
	}
	height := c.tree.node(c.verified).height
	if d := height - c.pruneTried; d > -pruneEvery && d < pruneEvery && c.pruneTried > 0 {
		return nil
	}
	blocks, undo, _ := c.store.Size()
	if blocks+undo <= c.o.PruneBytes {
		return nil
	}
	c.pruneTried = height
	_, err := c.prune(c.o.PruneBytes)
	return err
}

// prune does it; everything is committed. In the middle of a reorganisation it
// does nothing.
func (c *conductor) prune(keep int64) (r PruneReport, err error) {
	fail := func(err error) (PruneReport, error) { return r, fmt.Errorf("pruning: %w", err) }
	blocks, undo, err := c.store.Files()
	if err != nil {
		return fail(err)
	}
	total := sum(blocks) + sum(undo)
	r = PruneReport{Kept: total, Lowest: c.Lowest()}
	if c.away {
		return r, nil
	}
	t := c.tree
	limit := min(t.node(c.verified).height, t.node(c.tip.get()).height) - c.keepBlocks()
	blockTops, undoTops := t.fileTops()
	nextBlocks, top := firstKept(blocks, blockTops, limit, func() bool { return total > keep }, &total)
	if nextBlocks == c.keptBlocks {
		return r, nil
	}
	// Undo data is of no use without its block.
	nextUndo, _ := firstKept(undo, undoTops, top, func() bool { return true }, &total)
	nextBlocks, nextUndo = max(nextBlocks, c.keptBlocks), max(nextUndo, c.keptUndo)

	// Readers are told first: what they find they can read, or it is gone.
	t.mu.Lock()
	for i := range t.n {
		had := t.body(i).block.Size > 0
		if t.prune(i, nextBlocks, nextUndo) && had && t.body(i).block.Size == 0 {
			r.Blocks++
		}
	}
	r.Lowest = t.lowest(c.tip.get())
	t.mu.Unlock()
	c.lowest.Store(r.Lowest)
	c.keptBlocks, c.keptUndo = nextBlocks, nextUndo
	b := c.store.NewBatch()
	b.Prune(nextBlocks, nextUndo)
	if err := c.store.Commit(b); err != nil {
		return fail(err)
	}
	r.Freed, r.Kept = r.Kept-total, total
	c.log.Info("pruned", "blocks", r.Blocks, "freed_bytes", r.Freed, "kept_bytes", r.Kept, "lowest", r.Lowest)
	return r, nil
}

func sum(sizes map[uint32]int64) (n int64) {
	for _, s := range sizes {
		n += s
	}
	return n
}

// firstKept goes up the files from the first on, while they hold nothing above
// limit and more wants another, and returns the first to keep and the greatest
// height below it. It takes the sizes off total. The last file always stays.
func firstKept(sizes map[uint32]int64, tops map[uint32]int32, limit int32, more func() bool, total *int64) (first uint32, top int32) {
	files := make([]uint32, 0, len(sizes))
	for f := range sizes {
		files = append(files, f)
	}
	slices.Sort(files)
	last := len(files) - 1
	for _, f := range files[:last] {
		h, known := tops[f]
		if known && h > limit || !more() {
			return f, top
		}
		top = max(top, h)
		*total -= sizes[f]
	}
	return files[last], top
}

// fileTops returns the greatest height in each block file and in each undo file.
func (t *tree) fileTops() (blocks, undo map[uint32]int32) {
	blocks, undo = make(map[uint32]int32), make(map[uint32]int32)
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := range t.n {
		b, h := t.body(i), t.node(i).height
		if b.block.Size > 0 && !b.block.Aside() {
			blocks[b.block.File] = max(blocks[b.block.File], h)
		}
		if b.undo.Size > 0 {
			undo[b.undo.File] = max(undo[b.undo.File], h)
		}
	}
	return blocks, undo
}

// prune forgets where the bytes and undo data of i were if that is in a file
// below the first that is kept, and says whether it did. What the index has of it
// need not be written: the next load comes to the same end. The caller holds mu.
func (t *tree) prune(i uint32, blocks, undo uint32) bool {
	had, did := t.body(i), false
	if had.block.Size == 0 && had.undo.Size == 0 && !t.has(i, flagPruned) {
		return false
	}
	b, flags := t.ownBody(i), t.flags(i)
	if b.block.Size > 0 && b.block.File < blocks {
		b.block, did = store.Pos{}, true
	}
	if b.undo.Size > 0 && b.undo.File < undo {
		b.undo, did = store.Pos{}, true
	}
	if did {
		*flags |= flagPruned
	}
	if *flags&flagPruned != 0 {
		t.prunedTop = max(t.prunedTop, t.node(i).height)
	}
	return did
}

// lowest returns the height of the last of the ancestors of i, i first, that has
// its bytes without a gap. The caller holds mu.
func (t *tree) lowest(i uint32) int32 {
	if t.prunedTop < 0 {
		return 0
	}
	low := t.node(i).height + 1
	for i != noNode && t.body(i).block.Size > 0 {
		low = t.node(i).height
		i = t.node(i).parent
	}
	return low
}

// prunedAbove says whether i or one of its ancestors above the node below cannot
// be taken back.
func (t *tree) prunedAbove(i, below uint32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	least := t.node(below).height
	for t.prunedTop > least && t.node(i).height > least {
		if t.has(i, flagPruned) {
			return true
		}
		i = t.node(i).parent
	}
	return false
}

// undefer lets i and what builds on it be tried again. The caller holds mu.
func (t *tree) undefer(i uint32) {
	for j := min(i, t.after(i)); j < t.n; j++ {
		if t.has(j, flagDeferred) && t.descends(j, i) {
			*t.flags(j) &^= flagDeferred
		}
	}
}

// refuseOutOfReach marks a branch as one to leave alone if the way to target leads
// over blocks that were pruned, and says whether it did.
func (c *conductor) refuseOutOfReach(target uint32) bool {
	t := c.tree
	fork := t.fork(c.applied, target)
	least := t.node(fork).height
	t.mu.RLock()
	near := t.prunedTop <= least
	culprit := noNode
	if !near {
		for i := target; i != fork; i = t.node(i).parent {
			if t.body(i).block.Size == 0 {
				culprit = i // the lowest of them
			}
		}
	}
	t.mu.RUnlock()
	if near {
		return false
	}
	if t.prunedAbove(c.applied, fork) {
		culprit = t.ancestor(target, least+1)
	}
	if culprit == noNode || culprit == fork {
		return false
	}
	if n, ok := c.forks.allow(c.o.Now()); ok {
		c.log.Error("a branch with more work needs blocks that were pruned, it cannot be followed",
			"fork_height", least, "lowest", c.Lowest(), "branch", t.node(target).hash, "branch_height", t.node(target).height,
			"to_follow_it", c.store.Mend(), "suppressed", n)
	}
	c.mark(culprit, flagDeferred)
	return true
}
