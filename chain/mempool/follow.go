package mempool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

const (
	sweepEvery = time.Minute
	// retryBusy is the pause while the chain is busy with a deep reorganisation.
	retryBusy = 100 * time.Millisecond
	// maxReturnedBytes is how much of the blocks that a reorganisation
	// disconnects is offered to the pool again, as in Bitcoin Core.
	maxReturnedBytes = 20_000_000
)

// Run follows the chain's tip until ctx ends: it removes what was mined and what
// conflicts with it, and takes back what a reorganisation disconnected. It also
// expires old entries. It may be called once at a time.
func (p *Pool) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	retry := time.NewTimer(retryBusy)
	defer retry.Stop()
	f := &follower{Pool: p}
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
	// before children. A further reorganisation adds to it.
	queue []candidate
	// What became of the queue since it was last empty, and whether a
	// reorganisation added to it.
	kept, dropped int
	reorg         bool
}

// follow moves the pool to another tip, a block at a time: it is valid on top of
// each on the way.
func (f *follower) follow(ctx context.Context, to place) error {
	f.mu.RLock()
	from := f.tip
	idle := len(f.byID) == 0 && len(f.orphans.byWID) == 0 && len(f.queue) == 0
	f.mu.RUnlock()
	hash, height, ok := f.o.Chain.Fork(from.hash, to.hash)
	if !ok {
		return fmt.Errorf("no common ancestor with %s", from.hash)
	}
	fork := place{hash, height}
	if fork != from {
		if err := f.disconnect(ctx, from, fork); err != nil {
			return err
		}
	} else if idle { // during sync: nothing to take out
		f.mu.Lock()
		f.move(to)
		f.mu.Unlock()
		return nil
	}
	for h := fork.height + 1; h <= to.height; h++ {
		b, err := f.block(ctx, to.hash, h)
		if err != nil {
			return err
		}
		now := f.o.Now()
		f.mu.Lock()
		f.queue = append(f.queue, f.mined(b)...)
		f.floor.mined(now)
		f.move(place{b.Hash, h})
		f.mu.Unlock()
	}
	return nil
}

// disconnect takes the pool back to fork. That can make any entry invalid, so
// all leave; they, and what the blocks had, are offered again once the pool is
// at the new tip.
func (f *follower) disconnect(ctx context.Context, from, fork place) error {
	var back []candidate
	for h, bytes := fork.height+1, 0; h <= from.height && bytes < maxReturnedBytes; h++ {
		b, err := f.block(ctx, from.hash, h)
		if err != nil {
			return err
		}
		bytes += len(b.Raw)
		for _, tx := range b.Txs[1:] {
			// A copy: the block's transactions share memory that one would keep.
			c := newCandidate(tx.MsgTx().Copy(), "")
			c.returned = true
			back = append(back, c)
		}
	}
	f.mu.Lock()
	for _, e := range f.takeAll() {
		back = append(back, candidate{
			tx: e.Tx, id: e.ID, wid: e.WID, weight: int64(e.Weight), added: e.Added, flags: e.flags, returned: true,
		})
	}
	f.move(fork)
	f.mu.Unlock()
	// What was still waiting can only build on what is before it.
	f.queue, f.reorg = append(back, f.queue...), true
	// More than the pool can hold is not worth keeping, however often the chain
	// changes its mind before the queue has been offered.
	memory := int64(0)
	for i := range f.queue {
		if memory += memoryOf(f.queue[i].tx); memory > f.o.MaxBytes+maxReturnedBytes {
			f.dropped += len(f.queue) - i
			clear(f.queue[i:])
			f.queue = f.queue[:i]
			break
		}
	}
	return nil
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

// mined removes a block's transactions and what conflicts with them, and returns
// the orphans that it completed. Callers hold mu.
func (p *Pool) mined(b *consensus.Block) (ready []candidate) {
	for i, tx := range b.Txs {
		if i > 0 {
			if e := p.byID[*tx.Hash()]; e != nil {
				p.unlink(e) // its children stay: their parent is a coin now
			}
			for _, in := range tx.MsgTx().TxIn {
				if rival := p.spent[in.PreviousOutPoint]; rival != nil {
					p.removeTree(rival)
				}
			}
			p.orphans.forget(*tx.WitnessHash())
		}
		ready = append(ready, p.orphans.completed(tx.MsgTx(), *tx.Hash())...)
	}
	return ready
}

// offer offers the queue to the pool until the chain moves on; busy says that it
// is no use before the chain is done with something.
func (f *follower) offer(ctx context.Context) (busy bool) {
	for len(f.queue) > 0 {
		c := f.queue[0]
		ready, err := f.try(ctx, &c)
		switch {
		case errors.Is(err, errMoved):
			return false
		case errors.Is(err, chain.ErrBusy):
			return true
		case ctx.Err() != nil:
			return false
		}
		f.queue[0] = candidate{}
		f.queue = append(f.queue[1:], ready...)
		switch _, rule := errors.AsType[*consensus.RuleError](err); {
		case err == nil:
			f.kept++
		case !rule:
			f.log.Warn("transaction lost after a change of tip", "txid", c.id, "err", err)
			fallthrough
		default:
			f.dropped++
		}
	}
	f.queue = nil
	if f.reorg {
		f.log.Info("mempool after reorg", "kept", f.kept, "dropped", f.dropped)
	}
	f.kept, f.dropped, f.reorg = 0, 0, false
	return false
}
