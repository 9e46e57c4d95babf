package mempool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

const (
	sweepEvery = time.Minute
	// retryBusy is the pause while the chain is busy with a deep reorganisation.
	retryBusy = 100 * time.Millisecond
	// maxReturnedBytes is how much, in memory, of the blocks that a reorganisation
	// disconnects is offered to the pool again, the oldest first, as in Bitcoin
	// Core.
	maxReturnedBytes = 20_000_000
	// maxReturnedTold is how many of their transactions others are told of again: on
	// the other branch they may never have been. The rest is found in the list.
	maxReturnedTold = 2000
	// maxBehind is how many blocks the pool follows one by one. With more to go it
	// takes its entries over to the tip instead and looks which are valid there:
	// during a sync, reading every block twice would cost more than it tells.
	maxBehind = 1000
)

// Run follows the chain's tip until ctx ends: it removes what was mined and what
// conflicts with it, and takes back what a reorganisation disconnected. It also
// expires old entries, reads Options.File once the chain is ready, keeps it up to
// date, and writes it a last time at the end. It may be called once.
func (p *Pool) Run(ctx context.Context) error {
	f := &follower{Pool: p}
	// The last save comes after the last change, and has what waits in the queue.
	var keeper sync.WaitGroup
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		p.mu.Lock()
		p.left = f.queue
		p.mu.Unlock()
		stop()
		keeper.Wait()
	}()
	if p.o.File != "" {
		keeper.Go(func() { p.keep(keeping) })
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	retry := time.NewTimer(retryBusy)
	defer retry.Stop()
	for {
		tip, moved := p.o.Chain.Tip()
		if tip.Hash != p.Tip() {
			if err := f.follow(ctx, place{tip.Hash, tip.Height}); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("mempool follows block %s: %w", tip.Hash, err)
			}
			continue
		}
		if len(f.queue) > 0 {
			if busy := f.offer(ctx); !busy && ctx.Err() == nil {
				continue
			}
			retry.Reset(retryBusy)
		}
		select {
		case <-moved:
		case <-retry.C:
		case <-sweep.C:
			p.sweep()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A follower is what only Run's goroutine knows.
type follower struct {
	*Pool

	// queue has what wants (back) into the pool on the present tip, parents
	// before children. A further reorganisation adds to it. claims says which of
	// its members spends an output; nil: not made yet.
	queue  []*candidate
	claims map[wire.OutPoint]*candidate
	// What became of the queue since it was last empty, and whether a
	// reorganisation added to it.
	kept, dropped int
	reorg         bool
	trouble       error // the first fault of our own
	// Of the lost transactions that the log has not told yet: the first, how many
	// they are, and whether one of them had been in a block.
	firstLost Fate
	lost      int
	undone    bool
	lines     lineLimit
}

// enqueue adds to the queue what fits. More than the pool can hold is not worth
// keeping, however often the chain changes its mind before the queue has been
// offered. Callers hold mu.
func (f *follower) enqueue(cs []*candidate) {
	if len(cs) == 0 {
		return
	}
	for i, c := range cs {
		c.memory = memoryOf(c.tx)
		if f.waiting+c.memory > f.o.MaxBytes+maxReturnedBytes {
			for _, c := range cs[i:] {
				if c.returned {
					f.buryLost(Fate{ID: c.id, Cause: Evicted, Rule: "mempool-full", Was: c.was.hash, WasHeight: c.was.height})
				}
			}
			f.dropped += len(cs) - i
			break
		}
		f.waiting += c.memory
		f.queue = append(f.queue, c)
	}
	f.claims = nil
}

// buryLost records a fate, and keeps it for the log if somebody may have counted
// on the transaction. Callers hold mu.
func (f *follower) buryLost(fate Fate) {
	f.note(f.bury(fate, f.o.Now()))
}

// note keeps a fate for the log.
func (f *follower) note(fates ...Fate) {
	for _, fate := range fates {
		if !fate.lost() {
			continue
		}
		if f.lost++; f.lost == 1 {
			f.firstLost = fate
		}
		f.undone = f.undone || fate.Was != chainhash.Hash{}
	}
}

// follow moves the pool to another tip, a block at a time: it is valid on top of
// each on the way.
func (f *follower) follow(ctx context.Context, to place) error {
	f.mu.RLock()
	from := f.tip
	idle := len(f.byID) == 0 && len(f.orphans.byWID) == 0 && len(f.queue) == 0 && len(f.fates.byID) == 0
	f.mu.RUnlock()
	hash, height, ok := f.o.Chain.Fork(from.hash, to.hash)
	if !ok {
		return fmt.Errorf("no common ancestor with %s", from.hash)
	}
	fork := place{hash, height}
	switch {
	case fork == from && idle: // during sync: nothing to take out
		f.mu.Lock()
		f.move(to)
		f.mu.Unlock()
		return nil
	}
	err := f.step(ctx, from, fork, to)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errFar):
		f.leap(nil, to)
	case err != nil:
		// Pruned meanwhile, or damaged, which is the chain's to say: what is valid
		// at the tip can be found out without.
		f.log.Warn("mempool could not read a block on its way", "tip", to.hash, "err", err)
		f.leap(nil, to)
	default:
		f.tellLost()
	}
	return nil
}

// errFar says that too many blocks are to be followed.
var errFar = errors.New("too far to follow")

// step is follow by way of fork.
func (f *follower) step(ctx context.Context, from, fork, to place) error {
	if fork != from {
		if err := f.disconnect(ctx, from, fork); err != nil {
			return err
		}
	}
	if to.height-fork.height > maxBehind {
		return errFar
	}
	for h := fork.height + 1; h <= to.height; h++ {
		b, err := f.block(ctx, to.hash, h)
		if err != nil {
			return err
		}
		now := f.o.Now()
		f.mu.Lock()
		f.settle(b, h)
		ready, lost := f.mined(b, h, now)
		f.enqueue(ready)
		f.note(lost...)
		f.floor.mined(now)
		f.blocks++
		f.move(place{b.Hash, h})
		f.mu.Unlock()
	}
	return nil
}

// disconnect takes the pool back to fork. That can make any entry invalid, so
// all leave; they, and what the blocks had, are offered again once the pool is
// at the new tip.
func (f *follower) disconnect(ctx context.Context, from, fork place) error {
	var back []*candidate
	memory, h := int64(0), fork.height+1
	for ; h <= from.height && memory < maxReturnedBytes; h++ {
		b, err := f.block(ctx, from.hash, h)
		if err != nil {
			return err
		}
		for _, tx := range b.Txs[1:] {
			// A copy: the block's transactions share memory that one would keep.
			c := newCandidate(tx.MsgTx().Copy(), "")
			c.returned, c.was = true, place{b.Hash, h}
			c.relay = len(back) < maxReturnedTold
			back = append(back, c)
			memory += memoryOf(c.tx)
		}
	}
	if left := from.height - h + 1; left > 0 {
		f.log.Warn("mempool does not take back all that a reorg disconnected", "blocks", left, "from_height", h)
	}
	f.reorg = true
	f.leap(back, fork)
	return nil
}

// leap puts the pool on top of any block, with all that it has in the queue,
// behind back: what of it is valid there is found out when it is offered.
func (f *follower) leap(back []*candidate, to place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	down := to.height < f.tip.height // else blocks were passed over
	old := f.queue
	f.queue, f.waiting = nil, 0
	for _, e := range f.inSeqOrder() {
		back = append(back, &candidate{
			tx: e.Tx, id: e.ID, wid: e.WID, weight: int64(e.Weight), added: e.Added, received: e.Received,
			flags: e.flags, returned: true, was: e.was, relay: e.unsent(), own: e.own,
		})
	}
	back = append(back, old...) // which can only build on what is before it
	for _, c := range back {
		c.settled = false // by a block that may be gone
		c.blind = c.blind || !down
	}
	f.takeAll()
	f.move(to)
	f.enqueue(back)
}

// block reads the block at a height of the branch that ends in tip.
func (f *follower) block(ctx context.Context, tip chainhash.Hash, height int32) (*consensus.Block, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	hash, ok := f.o.Chain.Ancestor(tip, height)
	if !ok {
		return nil, fmt.Errorf("no ancestor of %s at height %d", tip, height)
	}
	raw, err := f.o.Chain.Block(hash)
	if err != nil {
		return nil, fmt.Errorf("block %s at height %d: %w", hash, height, err)
	}
	b, err := consensus.DecodeBlock(f.params, raw)
	if err != nil {
		return nil, fmt.Errorf("block %s at height %d: %w", hash, height, err)
	}
	return b, nil
}

// settle says what a block means for what is still in the queue: some of it is in
// the block, some can never be. Callers hold mu.
func (f *follower) settle(b *consensus.Block, height int32) {
	if len(f.queue) == 0 {
		return
	}
	if f.claims == nil {
		f.claims = make(map[wire.OutPoint]*candidate, len(f.queue))
		for _, c := range f.queue {
			for _, in := range c.tx.TxIn {
				f.claims[in.PreviousOutPoint] = c
			}
		}
	}
	for _, tx := range b.Txs[1:] {
		for _, in := range tx.MsgTx().TxIn {
			c := f.claims[in.PreviousOutPoint]
			if c == nil || c.settled {
				continue
			}
			c.settled = true
			if c.id != *tx.Hash() && c.returned {
				f.buryLost(Fate{
					ID: c.id, Cause: Conflicted, By: *tx.Hash(), Block: b.Hash, Height: height,
					Was: c.was.hash, WasHeight: c.was.height,
				})
			}
		}
	}
}

// mined removes a block's transactions and what conflicts with them. It returns
// the orphans that it completed and the fates of what conflicts. Callers hold mu.
func (p *Pool) mined(b *consensus.Block, height int32, now time.Time) (ready []*candidate, lost []Fate) {
	for i, tx := range b.Txs {
		id := *tx.Hash()
		if i > 0 {
			if e := p.byID[id]; e != nil {
				p.unlink(e) // its children stay: their parent is a coin now
			}
			for _, in := range tx.MsgTx().TxIn {
				if rival := p.spent[in.PreviousOutPoint]; rival != nil {
					lost = append(lost, p.removeTree(rival, Fate{Cause: Conflicted, By: id, Block: b.Hash, Height: height}, now)...)
				}
			}
			p.orphans.forget(*tx.WitnessHash())
			p.fates.forget(id)
		}
		ready = append(ready, p.orphans.completed(tx.MsgTx(), id)...)
	}
	return ready, lost
}

// pop takes the first of the queue. Callers hold mu.
func (f *follower) pop() {
	c := f.queue[0]
	f.queue[0] = nil
	f.queue = f.queue[1:]
	f.waiting -= c.memory
	c.settled = true // for claims
}

// offer offers the queue to the pool until the chain moves on; busy says that it
// is no use before the chain is done with something.
func (f *follower) offer(ctx context.Context) (busy bool) {
	for len(f.queue) > 0 {
		c := f.queue[0]
		var ready []*candidate
		var err error
		if !c.settled {
			ready, err = f.try(ctx, c)
		}
		switch {
		case errors.Is(err, errMoved):
			return false
		case errors.Is(err, chain.ErrBusy):
			return true
		case ctx.Err() != nil:
			return false
		}
		f.charge(c, err)
		f.mu.Lock()
		settled := c.settled
		f.pop()
		switch {
		case settled:
			f.dropped++
		case err == nil:
			f.kept++
			f.enqueue(ready)
		default:
			f.dropped++
			f.refused(c, err)
		}
		f.mu.Unlock()
	}
	f.queue, f.claims = nil, nil
	if f.trouble != nil {
		f.log.Warn("transactions lost after a change of tip", "dropped", f.dropped, "err", f.trouble)
	}
	if f.reorg {
		f.log.Info("mempool after reorg", "kept", f.kept, "dropped", f.dropped)
	}
	f.kept, f.dropped, f.reorg, f.trouble = 0, 0, false, nil
	f.tellLost()
	return false
}

// refused records what became of a candidate that could not come back. Callers
// hold mu.
func (f *follower) refused(c *candidate, err error) {
	rule, ok := errors.AsType[*consensus.RuleError](err)
	if !ok && f.trouble == nil {
		f.trouble = err
	}
	if !c.returned || !ok || rule.Rule == "txn-already-known" || rule.Rule == "txn-already-in-mempool" {
		return
	}
	if c.blind && rule.Rule == "missing-inputs" {
		return // it may have been mined in a block that was passed over
	}
	fate := Fate{ID: c.id, Cause: Evicted, Rule: rule.Rule, Was: c.was.hash, WasHeight: c.was.height}
	conflict, conflicts := errors.AsType[*ConflictError](err)
	switch {
	case conflicts && conflict.Block == chainhash.Hash{}:
		fate.Cause, fate.By = Replaced, conflict.By
	case unwelcome[rule.Rule]:
		fate.Cause = Invalid
		if parent := f.lostParent(c); parent != nil {
			fate.Cause, fate.By, fate.Block, fate.Height = parent.Cause, parent.By, parent.Block, parent.Height
			if fate.Via = parent.Via; fate.Via == (chainhash.Hash{}) {
				fate.Via = parent.ID
			}
		}
	}
	f.buryLost(fate)
}

// unwelcome are the rules by which a reorganisation makes a transaction invalid.
var unwelcome = map[string]bool{
	"missing-inputs":                       true,
	"bad-txns-premature-spend-of-coinbase": true,
	"bad-txns-nonfinal":                    true,
	"non-final":                            true,
	"no-witness-yet":                       true,
}

// lostParent returns the fate of a transaction that c spends from, if that is why
// c is lost. Callers hold mu.
func (f *follower) lostParent(c *candidate) *Fate {
	for _, in := range c.tx.TxIn {
		if fate := f.fates.byID[in.PreviousOutPoint.Hash]; fate != nil {
			return fate
		}
	}
	return nil
}

// tellLost logs what was lost: a line for a block or a reorganisation, once all
// of it is known.
func (f *follower) tellLost() {
	if f.lost == 0 || len(f.queue) > 0 {
		return
	}
	if suppressed, ok := f.lines.allow(f.o.Now()); ok {
		first := f.firstLost
		args := []any{"txid", first.ID, "cause", first.Cause}
		if first.Cause == Conflicted {
			args = append(args, "spent_by", first.By, "block", first.Block, "height", first.Height)
		} else if first.Rule != "" {
			args = append(args, "rule", first.Rule)
		}
		if first.Was != (chainhash.Hash{}) {
			args = append(args, "was_in", first.Was, "was_height", first.WasHeight)
		}
		args = append(args, "others", f.lost-1, "suppressed", suppressed)
		if f.undone {
			f.log.Warn("payment lost", args...)
		} else { // nobody could count on it yet
			f.log.Info("payment lost", args...)
		}
	}
	f.firstLost, f.lost, f.undone = Fate{}, 0, false
}

// lineLimit lets few lines a minute through.
type lineLimit struct {
	end              time.Time
	used, suppressed int
}

const maxLostLines = 10 // a minute

func (l *lineLimit) allow(now time.Time) (suppressed int, ok bool) {
	if !now.Before(l.end) {
		l.end, l.used = now.Add(time.Minute), 0
	}
	if l.used >= maxLostLines {
		l.suppressed++
		return 0, false
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
