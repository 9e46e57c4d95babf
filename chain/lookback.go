package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Spent returns the coins that each transaction of a block spent, in the order of
// its inputs; none for the coinbase. It reads the block's undo data. ErrNotFound if
// the block was never connected, or its undo data are pruned. The caller owns the
// slices.
func (c *Chain) Spent(b *consensus.Block) ([][]consensus.Coin, error) {
	t := c.tree
	t.mu.RLock()
	i, ok := t.find(&b.Hash)
	var at body
	var flags uint8
	if ok {
		at, flags = t.body(i), *t.flags(i)
	}
	t.mu.RUnlock()
	if !ok || flags&flagValid == 0 || flags&flagPruned != 0 && at.undo.Size == 0 {
		return nil, ErrNotFound
	}
	out := make([][]consensus.Coin, len(b.Txs))
	if t.node(i).height == 0 {
		return out, nil
	}
	txs, err := c.readUndo(b, t.node(i).height, at.undo)
	if errors.Is(err, ErrPruned) { // meanwhile
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("undo data of block %v: %w", b.Hash, err)
	}
	for n := 1; n < len(txs); n++ {
		out[n] = txs[n].Coins
	}
	return out, nil
}

// errTipMoved ends a walk whose coins may be of another tip than was thought.
var errTipMoved = errors.New("a commit came in between")

// coinsPerLook is how many coins pass between two looks at the context.
const coinsPerLook = 4096

// Coins commits everything validated so far and calls f with every coin, in the
// order of transaction ids (as they are stored, byte by byte) and of outputs, until
// f fails. It returns the tip whose coins they are; what is committed meanwhile is
// not seen. It reads the whole set from disk: minutes for that of Bitcoin today. f
// may keep the script. It needs Run.
func (c *Chain) Coins(ctx context.Context, f func(wire.OutPoint, consensus.Coin) error) (Tip, error) {
	return c.CoinsFrom(ctx, func(Tip) func(wire.OutPoint, consensus.Coin) error { return f })
}

// CoinsFrom is [Chain.Coins] for those who must know whose coins they are before they see
// the first: begin is called with the tip and returns f. It may be called more than once;
// then what came before does not count.
func (c *Chain) CoinsFrom(ctx context.Context, begin func(Tip) func(wire.OutPoint, consensus.Coin) error) (Tip, error) {
	if err := c.Flush(ctx); err != nil {
		return Tip{}, err
	}
	const tries = 10
	for range tries {
		before, _, err := c.store.Tip()
		if err != nil {
			return Tip{}, err
		}
		// The walk sees the state at its start: if the tip is the same before the start and
		// after it, the coins are that tip's.
		i, ok := c.tree.lookup(&before.Hash)
		if !ok {
			return Tip{}, fmt.Errorf("committed tip %v: %w", before.Hash, ErrNotFound)
		}
		tip := c.tree.tip(i)
		f, n := begin(tip), 0
		err = c.store.Coins(func(op wire.OutPoint, coin consensus.Coin) error {
			if n == 0 {
				if now, _, err := c.store.Tip(); err != nil {
					return err
				} else if now != before {
					return errTipMoved
				}
			}
			if n++; n%coinsPerLook == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			return f(op, coin)
		})
		if errors.Is(err, errTipMoved) {
			continue
		}
		if err != nil {
			return Tip{}, err
		}
		return tip, nil
	}
	return Tip{}, ErrBusy
}
