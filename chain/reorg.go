package chain

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// aheadBlocks is how many blocks of the best branch are read back from disk and
// prepared ahead of the coins.
const aheadBlocks = 64

// advance moves the coins to the end of the best branch whose bytes are all on
// disk: forward, or back to a fork and forward. It takes the block at hand from
// waiting and the others from disk. When a block fails on the way it is marked,
// the best branch is another one, possibly the old, and the coins go there; the
// published tip moves only to a verified block with more work.
func (c *conductor) advance() error {
	for {
		if err := c.poll(); err != nil {
			return err
		}
		target, more := c.target()
		if !more {
			switch drew, err := c.drawTied(); {
			case err != nil:
				return err
			case drew:
				continue
			}
			// Settling may wait for scripts, and one that fails leads elsewhere.
			if err := c.settle(); err != nil {
				return err
			}
			if _, more = c.target(); !more {
				return nil
			}
			continue
		}
		if c.refuseOutOfReach(target) {
			continue
		}
		if !c.tree.descends(target, c.applied) {
			// The coins must leave this branch, and they leave it verified.
			if len(c.flights) > 0 {
				if err := c.drain(); err != nil {
					return err
				}
				continue
			}
			at := c.applied
			// A branch beside this one can wait for the block; what must be left because
			// it is invalid cannot.
			if err := c.disconnect(); blockDamage(err) != nil && c.tree.fork(at, target) != target {
				c.block(at, target, blockDamage(err))
			} else if err != nil {
				return err
			}
			continue
		}
		next := c.tree.ancestor(target, c.tree.node(c.applied).height+1)
		it, ok := c.waiting[next]
		if !ok {
			var err error
			if it, err = c.fromDisk(next, target); blockDamage(err) != nil {
				c.unlink(next, blockDamage(err))
				continue
			} else if errors.Is(err, store.ErrMoved) {
				// It was to be read where it lay aside when it was dropped with an invalid block
				// below it, or had gone to the block files: where to go is to be asked anew.
				c.ahead = nil
				continue
			} else if err != nil {
				return err
			}
		}
		if err := c.advanceTo(next, it); err != nil {
			return err
		}
	}
}

// target returns where the coins should go; more is false when they are there.
func (c *conductor) target() (i uint32, more bool) {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	// Equal work is reason enough to move: after a failed reorganisation the coins
	// are at the good part of the other branch, and the published tip was first.
	return t.bestLinked, t.bestLinked != c.applied
}

// advanceTo connects one block on top of the coins.
func (c *conductor) advanceTo(next uint32, it *item) error {
	for c.full(int64(len(it.raw))) {
		select {
		case <-c.w.done:
			if err := c.finish(); err != nil {
				return err
			}
		case <-c.stop:
			return errStopping
		}
	}
	parent := c.tree.node(next).parent
	if c.applied != parent {
		return nil // what came before failed meanwhile
	}
	err := errors.Join(it.bodyErr, it.pastErr)
	if err == nil {
		err = c.connect(next, it)
	}
	if err == nil {
		delete(c.waiting, next)
		if len(c.ahead) > 0 && c.ahead[0] == it {
			c.ahead = c.ahead[1:]
		}
		if err := c.finish(); err != nil {
			return err
		}
		return c.commitIfDue()
	}
	if asRule(err) == nil {
		return fmt.Errorf("connecting block %v at height %d: %w", it.hash, c.tree.node(next).height, err)
	}
	// The fault counts only if all that came before is sound.
	if err := c.drain(); err != nil {
		return err
	}
	if c.applied != parent {
		return nil
	}
	delete(c.waiting, next)
	c.fault(next, err)
	return c.refuseStored(it, next, err)
}

// fault marks a block whose bytes are on disk after it broke a rule. Its fault
// counts for ever; what is nobody's (or, after the checks it passed, cannot be)
// is not tried again before a restart.
func (c *conductor) fault(i uint32, err error) {
	flag := flagDeferred
	if asRule(err).Blame == consensus.BlameBlock {
		flag = flagInvalid
	}
	c.mark(i, flag)
}

// condemn marks a header whose body broke a rule before it was stored, if the
// block is to blame.
func (c *conductor) condemn(i uint32, err error) {
	if r := asRule(err); r != nil && r.Blame == consensus.BlameBlock {
		c.mark(i, flagInvalid)
	}
}

func (c *conductor) mark(i uint32, flag uint8) {
	t := c.tree
	t.mu.Lock()
	t.condemn(i, flag, c.tip.get())
	c.heads.set(t.bestHeader)
	t.mu.Unlock()
	if flag == flagInvalid && len(c.shelf.blocks) > 0 {
		c.clearAside()
	}
	c.armFlush()
}

// absolve takes the marks back from i, its ancestors and all that builds on i. What
// builds on a pardoned ancestor beside i keeps the marks of its own, as in Bitcoin
// Core, and only those.
func (c *conductor) absolve(i uint32) {
	t := c.tree
	t.mu.Lock()
	root := i
	for up := i; up != noNode; up = t.node(up).parent {
		if t.has(up, flagBad|flagDeferred) {
			root = up
		}
	}
	var marked []uint32
	for j := min(root, t.after(root)); j < t.n; j++ {
		if t.has(j, flagBad|flagDeferred) && t.descends(j, root) {
			marked = append(marked, j)
		}
	}
	if t.capped { // parents first
		slices.SortFunc(marked, func(a, b uint32) int { return cmp.Compare(t.node(a).height, t.node(b).height) })
	}
	for _, j := range marked {
		f := t.flags(j)
		*f &^= flagDoomed | flagDeferred
		if t.sameBranch(i, j) {
			*f &^= flagInvalid
		} else if t.has(t.node(j).parent, flagBad) {
			*f |= flagDoomed
		}
		t.touch(j)
	}
	t.reconsider(c.tip.get())
	c.heads.set(t.bestHeader)
	t.mu.Unlock()
	c.armFlush()
}

// allowed says whether the chain may go to i by itself.
func (c *conductor) allowed(i uint32) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.allowed(i)
}

// bad says whether a node is known to be invalid.
func (c *conductor) bad(i uint32) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.has(i, flagBad)
}

// reject takes back the first block in flight, whose scripts failed, and all
// that follow it, then marks it.
func (c *conductor) reject(err error) error {
	flights := c.flights
	for _, f := range flights {
		f.dropped.Store(true)
	}
	for _, f := range slices.Backward(flights) {
		if err := c.takeBack(&f.step); err != nil {
			return err
		}
	}
	c.flights, c.flightInputs, c.flightBytes = nil, 0, 0
	c.applied = c.verified
	if asRule(err) == nil {
		return fmt.Errorf("checking scripts of block %v at height %d: %w", flights[0].step.block.Hash, flights[0].step.height, err)
	}
	c.fault(flights[0].node, err)
	if err := c.refuseStored(flights[0].item, flights[0].node, err); err != nil {
		return err
	}
	for _, f := range flights[1:] {
		above := badParent(&f.step.block.Header.PrevBlock)
		above.Blame = asRule(err).Blame
		if err := c.refuseStored(f.item, f.node, above); err != nil {
			return err
		}
	}
	return nil
}

// refuseStored gives the verdict on a block that failed after it was stored.
func (c *conductor) refuseStored(it *item, i uint32, err error) error {
	v, err := c.refuse(it, Verdict{Hash: it.hash, Height: c.tree.node(i).height}, err)
	if err == nil {
		// What was nobody's fault may be of use; what was the block's is gone already.
		if _, err = c.setAside(i); err == nil {
			it.answer(v)
		}
	}
	return err
}

// push notes that s is the next thing to happen to the coins. In a reorganisation what
// was noted before is forgotten when the blocks, back and forward, take more memory
// than the queue may: nothing is published meanwhile that would let them go. The step
// itself stays, for the engine.
func (c *conductor) push(s *step) {
	if c.away || s.back {
		if c.awayBytes += int64(len(s.block.Raw)); c.awayBytes > c.o.MaxQueueBytes {
			c.coins.lose()
		}
	}
	c.coins.push(s)
}

// takeBack undoes a block in memory, from what it noted when it was applied.
func (c *conductor) takeBack(s *step) error {
	for n, tx := range slices.Backward(s.spent) {
		if tx.Tx == nil {
			continue
		}
		if err := c.coins.undoTx(s, n, tx.Coins); err != nil {
			return fmt.Errorf("taking back block %v at height %d: %w", s.block.Hash, s.height, err)
		}
	}
	c.coins.pop(s)
	return c.balanceBack(s, s.worth)
}

// balanceBack checks what the coins are worth after a block was taken back.
func (c *conductor) balanceBack(s *step, want int64) error {
	if c.coins.worth != want {
		return fmt.Errorf("taking back block %v at height %d leaves the coins %d satoshi off", s.block.Hash, s.height, c.coins.worth-want)
	}
	return nil
}

// disconnect takes the coins one verified block back, from its undo record.
func (c *conductor) disconnect() error {
	t := c.tree
	i := c.applied
	nd := t.node(i)
	t.mu.RLock()
	at, pruned := t.body(i), t.has(i, flagPruned)
	t.mu.RUnlock()
	fail := func(err error) error {
		return fmt.Errorf("disconnecting block %v at height %d: %w", nd.hash, nd.height, err)
	}
	if pruned {
		return fail(ErrPruned)
	}
	raw, err := c.store.ReadBlock(at.block)
	if err != nil {
		return fail(err)
	}
	b, err := consensus.DecodeBlock(c.o.Params, raw)
	if err != nil {
		return fail(err)
	}
	s := &step{block: b, height: nd.height, back: true}
	if s.spent, err = c.readUndo(b, nd.height, at.undo); err != nil {
		return fail(err)
	}
	// A block that was never published needs no step back: the one forward goes.
	undone := c.coins.newest(b.Hash)
	if undone == nil {
		c.push(s)
	}
	worth := c.coins.worth
	for n, tx := range slices.Backward(s.spent) {
		if err := c.coins.undoTx(s, n, tx.Coins); err != nil {
			return fail(err)
		}
	}
	if err := c.balanceBack(s, worth-s.gain()); err != nil {
		return err
	}
	if undone != nil {
		c.coins.pop(undone)
	}
	if !c.away {
		c.away, c.passedScripts = true, &passedScripts{txs: make(map[chainhash.Hash]uint32)}
	}
	// No block has the number 0, which is that of genesis.
	if r := c.ran[nd.height%ranBlocks]; r.node == i {
		c.passedScripts.add(b, r.flags)
	}
	c.applied, c.verified = nd.parent, nd.parent
	return c.commitIfDue()
}

// home ends a reorganisation: the coins are on the published branch again.
func (c *conductor) home() {
	c.away, c.awayBytes, c.passedScripts = false, 0, nil
}

// readUndo returns what each transaction of a connected block spent.
func (c *Chain) readUndo(b *consensus.Block, height int32, p store.Pos) ([]consensus.SpentTx, error) {
	inputs := 0
	for _, tx := range b.Txs[1:] {
		inputs += len(tx.MsgTx().TxIn)
	}
	var coins []consensus.Coin
	if inputs > 0 || p.Size > 0 { // a block that spends nothing has no record
		raw, err := c.store.ReadUndo(p)
		if err != nil {
			return nil, err
		}
		if coins, err = decodeUndo(raw, undoCounts(c.o.Params, b, height, inputs)...); err != nil {
			return nil, err
		}
	}
	spent := make([]consensus.SpentTx, len(b.Txs))
	for n, tx := range b.Txs {
		spent[n].Tx = tx.MsgTx()
		k := len(coins) - inputs // what the coinbase took the place of
		if n > 0 {
			k = len(spent[n].Tx.TxIn)
			inputs -= k
		}
		spent[n].Coins, coins = coins[:k:k], coins[k:]
	}
	return spent, nil
}

// fromDisk returns the next block of the branch to target, read and prepared,
// and lets the workers prepare those after it.
func (c *conductor) fromDisk(next, target uint32) (*item, error) {
	t := c.tree
	if len(c.ahead) > 0 && c.ahead[0].node != next {
		c.ahead = nil
	}
	last := t.node(next).height - 1
	if n := len(c.ahead); n > 0 {
		last = t.node(c.ahead[n-1].node).height
		if !t.descends(target, c.ahead[n-1].node) {
			c.ahead, last = nil, t.node(next).height-1
		}
	}
	for len(c.ahead) < aheadBlocks && last < t.node(target).height {
		last++
		it := &item{src: Source{Kind: FromDisk}, node: t.ancestor(target, last), parent: noNode, prepared: make(chan struct{})}
		t.mu.RLock()
		it.place = t.body(it.node).block
		t.mu.RUnlock()
		if len(c.ahead) > 0 && c.aheadBytes()+int64(it.place.Size) > c.o.MaxQueueBytes {
			break
		}
		c.ahead = append(c.ahead, it)
		c.w.disk <- it
	}
	it := c.ahead[0]
	if err := c.await(it); err != nil {
		return nil, err
	}
	if it.err != nil {
		// What was stored had been decoded once: the disk is at fault.
		nd := t.node(next)
		return nil, fmt.Errorf("reading block %v at height %d back: %w", nd.hash, nd.height, it.err)
	}
	return it, nil
}

func (c *conductor) aheadBytes() (n int64) {
	for _, it := range c.ahead {
		n += int64(it.place.Size)
	}
	return n
}

// settle ends an advance: the coins are where they should be, so the blocks that
// still wait lie beside the best branch.
func (c *conductor) settle() error {
	if len(c.flights) == 0 {
		if err := c.publish(0); err != nil {
			return err
		}
		// The old branch again, or steps were lost whose blocks were never published.
		if (c.away || c.coins.stepsLost) && c.verified == c.tip.get() {
			c.coins.keep(0)
			c.home()
		}
		for _, it := range c.passed { // good, but what built on them was not
			c.unpublished(it)
		}
		clear(c.passed)
		c.passed = c.passed[:0]
	}
	for i, it := range c.waiting {
		delete(c.waiting, i)
		if c.bad(i) {
			if err := c.refuseStored(it, i, badParent(&it.block.Header.PrevBlock)); err != nil {
				return err
			}
			continue
		}
		kept, err := c.setAside(i)
		if err != nil {
			it.answer(Verdict{Outcome: Failed, Hash: it.hash, Height: -1, Err: err})
			return err
		}
		if !kept {
			v, err := c.refuse(it, Verdict{Hash: it.hash, Height: c.tree.node(i).height}, noRoomAside())
			if err != nil {
				return err
			}
			it.answer(v)
			continue
		}
		c.logFork(it)
		c.unpublished(it)
	}
	if len(c.unsaved) > 0 {
		return c.commit()
	}
	return nil
}

// unpublished gives the verdict on a good block that is not part of the active
// chain.
func (c *conductor) unpublished(it *item) {
	c.decide(it, Verdict{Outcome: SideChain, Hash: it.hash, Height: c.tree.node(it.node).height})
}

// decide gives a good block's verdict, after the next commit if that matters.
func (c *conductor) decide(it *item, v Verdict) {
	if it.durable() {
		c.unsaved = append(c.unsaved, decided{it, v})
		return
	}
	it.answer(v)
}

// A decided item waits for the commit that makes its verdict true.
type decided struct {
	it *item
	v  Verdict
}
