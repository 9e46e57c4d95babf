package staking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// A Coin is one that may be a stake, now or later.
type Coin struct {
	pos.Stake

	Height int32 // of the block that made it
}

const (
	// DefaultMaxCoins is how many coins of a node take part, the largest: trying a slot
	// takes some 10 ms with so many.
	DefaultMaxCoins = 10_000
	// rescanBlocks is how many blocks behind the tip make it cheaper to read all coins
	// than to follow.
	rescanBlocks = 2_000
)

// ErrSearching is returned while coins are looked for.
var ErrSearching = errors.New("looking for coins of the keys")

// FinderOptions configure NewFinder.
type FinderOptions struct {
	Chain *chain.Chain
	// Held says whether a taproot output key is held. It must always say the same of one.
	Held func(key [32]byte) bool
	// Synced says whether the chain is as long as others know it to be: before, nothing is
	// looked for. Default: always.
	Synced func() bool
	Max    int          // coins kept, the largest; default DefaultMaxCoins
	Logger *slog.Logger // default: discards
}

// A Finder knows the unspent coins of fixed keys: it reads all coins once and follows the
// tip from there, over reorganisations. All methods are safe for concurrent use.
type Finder struct {
	o   FinderOptions
	log *slog.Logger

	mu     sync.Mutex // guards what follows; held for a copy at most
	coins  map[wire.OutPoint]Coin
	at     chain.Tip // whose coins they are; Work nil: of none yet
	pruned bool      // small coins were left out
}

// NewFinder returns a finder that knows nothing until Run.
func NewFinder(o FinderOptions) *Finder {
	if o.Synced == nil {
		o.Synced = func() bool { return true }
	}
	if o.Max == 0 {
		o.Max = DefaultMaxCoins
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Finder{o: o, log: o.Logger}
}

// Coins returns the coins, in any order, as of the tip or shortly before it; [ErrSearching]
// before they are known. The caller owns the result.
func (f *Finder) Coins() ([]Coin, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.Work == nil {
		return nil, ErrSearching
	}
	out := make([]Coin, 0, len(f.coins))
	for _, c := range f.coins {
		out = append(out, c)
	}
	return out, nil
}

// Run looks for coins and follows the tip until ctx ends.
func (f *Finder) Run(ctx context.Context) error {
	select {
	case <-f.o.Chain.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		tip, moved := f.o.Chain.Tip()
		if f.o.Synced() {
			if err := f.look(ctx, tip); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				f.log.Warn("looking for coins of the keys; tried again", "err", err)
				moved = nil // in a second, not at once
			}
		} else {
			moved = nil
		}
		select {
		case <-moved:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look brings the coins to tip, or beyond.
func (f *Finder) look(ctx context.Context, tip chain.Tip) error {
	f.mu.Lock()
	at, few := f.at, f.pruned && len(f.coins) < f.o.Max/2
	f.mu.Unlock()
	if at.Work == nil || few {
		return f.scan(ctx)
	}
	if at.Hash == tip.Hash {
		return nil
	}
	err := f.follow(ctx, at, tip)
	if err == nil || ctx.Err() != nil {
		return err
	}
	f.log.Info("coins of the keys are looked for anew", "reason", err)
	return f.scan(ctx)
}

// stakeOf returns the coin that an output is, if its key is held.
func (f *Finder) stakeOf(op wire.OutPoint, value int64, script []byte, height int32) (Coin, bool) {
	if len(script) != 34 || script[0] != txscript.OP_1 || script[1] != txscript.OP_DATA_32 || value <= 0 {
		return Coin{}, false
	}
	key := [32]byte(script[2:])
	return Coin{pos.Stake{OutPoint: op, Value: value, Key: key}, height}, f.o.Held(key)
}

// scan reads all coins.
func (f *Finder) scan(ctx context.Context) error {
	began := time.Now()
	coins, pruned := make(map[wire.OutPoint]Coin), false
	tip, err := f.o.Chain.Coins(ctx, func(op wire.OutPoint, c consensus.Coin) error {
		if s, ok := f.stakeOf(op, c.Value, c.Script, c.Height); ok {
			coins[op] = s
			pruned = f.prune(coins, 2*f.o.Max) || pruned
		}
		return nil
	})
	if err != nil {
		return err
	}
	pruned = f.prune(coins, f.o.Max) || pruned
	f.mu.Lock()
	f.coins, f.at, f.pruned = coins, tip, pruned
	f.mu.Unlock()
	f.log.Info("coins of the keys found", "coins", len(coins), "height", tip.Height, "took_ms", time.Since(began).Milliseconds())
	if pruned {
		f.log.Warn("the keys have more coins than take part: the largest do", "coins", f.o.Max)
	}
	return nil
}

// prune leaves the largest coins, once there are more than limit.
func (f *Finder) prune(coins map[wire.OutPoint]Coin, limit int) bool {
	if len(coins) <= limit {
		return false
	}
	all := make([]Coin, 0, len(coins))
	for _, c := range coins {
		all = append(all, c)
	}
	bySize(all)
	for _, c := range all[f.o.Max:] {
		delete(coins, c.OutPoint)
	}
	return true
}

// bySize sorts coins, the largest first.
func bySize(coins []Coin) {
	slices.SortFunc(coins, func(a, b Coin) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), slices.Compare(a.OutPoint.Hash[:], b.OutPoint.Hash[:]), cmp.Compare(a.OutPoint.Index, b.OutPoint.Index))
	})
}

// follow goes from one tip to another, block by block.
func (f *Finder) follow(ctx context.Context, from, to chain.Tip) error {
	c := f.o.Chain
	_, fork, ok := c.Fork(from.Hash, to.Hash)
	if !ok {
		return fmt.Errorf("block %s is unknown", from.Hash)
	}
	if n := from.Height - fork + to.Height - fork; n > rescanBlocks {
		return fmt.Errorf("%d blocks away", n)
	}
	f.mu.Lock()
	coins := maps.Clone(f.coins) // readers see one tip's or the other's
	f.mu.Unlock()
	var freed []wire.OutPoint // spent by blocks that were left
	each := func(end chainhash.Hash, height int32, do func(op wire.OutPoint, out *wire.TxOut)) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		hash, ok := c.Ancestor(end, height)
		if !ok {
			return fmt.Errorf("block %d of %s is unknown", height, end)
		}
		raw, err := c.Block(hash)
		if err != nil {
			return err
		}
		b, err := consensus.DecodeBlock(c.Params(), raw)
		if err != nil {
			return err
		}
		for i, tx := range b.Txs {
			for _, in := range tx.MsgTx().TxIn {
				if i > 0 {
					do(in.PreviousOutPoint, nil)
				}
			}
			for n, out := range tx.MsgTx().TxOut {
				do(wire.OutPoint{Hash: *tx.Hash(), Index: uint32(n)}, out)
			}
		}
		return nil
	}
	for h := from.Height; h > fork; h-- {
		err := each(from.Hash, h, func(op wire.OutPoint, out *wire.TxOut) {
			if out == nil {
				freed = append(freed, op)
			} else {
				delete(coins, op)
			}
		})
		if err != nil {
			return err
		}
	}
	for h := fork + 1; h <= to.Height; h++ {
		err := each(to.Hash, h, func(op wire.OutPoint, out *wire.TxOut) {
			if out == nil {
				delete(coins, op)
			} else if coin, ok := f.stakeOf(op, out.Value, out.PkScript, h); ok {
				coins[op] = coin
			}
		})
		if err != nil {
			return err
		}
	}
	// Which of the freed are coins again the chain knows. Should it be ahead of to
	// already, and they spent there, nothing is missed: the block that spends them is
	// followed next, and if it is left they are freed again.
	for _, op := range freed {
		coin, ok, err := c.Coin(op)
		if err != nil {
			return err
		}
		if s, held := f.stakeOf(op, coin.Value, coin.Script, coin.Height); ok && held {
			coins[op] = s
		}
	}
	pruned := f.prune(coins, 2*f.o.Max)
	f.mu.Lock()
	f.coins, f.at, f.pruned = coins, to, f.pruned || pruned
	f.mu.Unlock()
	return nil
}
