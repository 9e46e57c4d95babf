package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
	"dunlin/internal/wallet"
)

// walletChain shows the chain to the wallet.
type walletChain struct{ *chain.Chain }

// Tip implements wallet.Chain.
func (c walletChain) Tip() (chainhash.Hash, int32, <-chan struct{}) {
	tip, changed := c.Chain.Tip()
	return tip.Hash, tip.Height, changed
}

// Where implements wallet.Chain.
func (c walletChain) Where(hash chainhash.Hash) (height int32, at int64, active, ok bool) {
	s, ok := c.Status(hash)
	if !ok {
		return 0, 0, false, false
	}
	return s.Height, s.Header.Timestamp.Unix(), s.Active, true
}

// Fork implements wallet.Chain.
func (c walletChain) Fork(a, b chainhash.Hash) (int32, bool) {
	_, height, ok := c.Chain.Fork(a, b)
	return height, ok
}

// MedianTime implements wallet.Chain.
func (c walletChain) MedianTime() int64 {
	tip, _ := c.Chain.Tip()
	return tip.MedianTime.Unix()
}

// Block implements wallet.Chain.
func (c walletChain) Block(hash chainhash.Hash) (*consensus.Block, error) {
	raw, err := c.Chain.Block(hash)
	if errors.Is(err, chain.ErrNotFound) || errors.Is(err, chain.ErrPruned) {
		return nil, wallet.ErrNoBlock
	}
	if err != nil {
		return nil, err // damaged, as a rule: it is fetched anew, and asked for again
	}
	return consensus.DecodeBlock(c.Params(), raw)
}

// walletPool shows the mempool to the wallet.
type walletPool struct{ n *Node }

// Newer implements wallet.Pool.
func (p walletPool) Newer(after uint64, most int) (txs []*wire.MsgTx, last uint64) {
	entries, last := p.n.pool.Newer(after, most)
	for i := range entries {
		txs = append(txs, entries[i].Tx)
	}
	return txs, last
}

// Changed implements wallet.Pool.
func (p walletPool) Changed() <-chan struct{} { return p.n.pool.Changed() }

// Have implements wallet.Pool.
func (p walletPool) Have(txid chainhash.Hash) bool { return p.n.pool.Have(txid) }

// Fate implements wallet.Pool.
func (p walletPool) Fate(txid chainhash.Hash) (wallet.Fate, bool) {
	f, ok := p.n.pool.Fate(txid)
	if !ok {
		return wallet.Fate{}, false
	}
	out := wallet.Fate{By: f.By, Via: f.Via}
	switch f.Cause {
	case mempool.Conflicted:
		out.Block = &wallet.Place{Hash: f.Block, Height: f.Height}
		out.Why = fmt.Sprintf("transaction %s in block %d spends the same coins", f.By, f.Height)
	case mempool.Replaced:
		out.Why = fmt.Sprintf("transaction %s took its place", f.By)
	case mempool.Evicted:
		out.By, out.Why = chainhash.Hash{}, "the mempool was full of better paying ones"
	case mempool.Expired:
		out.By, out.Why = chainhash.Hash{}, "it was not mined in time"
	default:
		out.By, out.Why = chainhash.Hash{}, "a reorganisation made it invalid ("+f.Rule+")"
	}
	return out, true
}

// Family implements wallet.Pool.
func (p walletPool) Family(txid chainhash.Hash) (ancestors, descendants int, weight int64) {
	f, _ := p.n.pool.FamilyOf(txid)
	return f.Ancestors, f.Descendants, f.AncestorWeight
}

// Submit implements wallet.Pool.
func (p walletPool) Submit(ctx context.Context, tx *wire.MsgTx) error {
	err := rpcFace{face{p.n}}.SubmitTx(ctx, tx)
	rule, ok := blame(err)
	if !ok {
		return err
	}
	r := &wallet.RefusalError{Why: rule.Error()}
	// In a block the chain says so itself, and takes it back if the block goes.
	if c, ok := errors.AsType[*mempool.ConflictError](err); ok && c.Block == (chainhash.Hash{}) && p.n.pool.Have(c.By) {
		r.By = c.By
	}
	return r
}

// Rate implements wallet.Pool.
func (p walletPool) Rate(target int) int64 {
	return p.n.pool.FeeRates(int64(p.n.params.MaxBlockWeight), target)[0]
}

// MinRate implements wallet.Pool.
func (p walletPool) MinRate() int64 { return p.n.pool.MinFeeRate() }
