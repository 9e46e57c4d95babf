package mempool

import (
	"context"
	"errors"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
)

// Check is Submit without the adding: it returns what the entry would be, or why
// there would be none. Nobody is charged, no orphan kept.
func (p *Pool) Check(ctx context.Context, tx *wire.MsgTx) (Entry, error) {
	if err := checkAlone(tx); err != nil {
		return Entry{}, err
	}
	for range maxTries {
		if err := p.await(ctx); err != nil {
			return Entry{}, err
		}
		c := newCandidate(tx, "")
		c.trial = true
		_, err := p.try(ctx, c)
		if errors.Is(err, errMoved) || errors.Is(err, chain.ErrBusy) {
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		return c.result, nil
	}
	return Entry{}, refuse("tip-moving", "%v", errMoved)
}

// Spender returns the id of the entry that spends an output.
func (p *Pool) Spender(op wire.OutPoint) (txid chainhash.Hash, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	e, ok := p.spent[op]
	if !ok {
		return chainhash.Hash{}, false
	}
	return e.ID, true
}

// Sequence counts the entries that were ever added.
func (p *Pool) Sequence() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.seq
}

// MaxBytes is the memory that entries may take.
func (p *Pool) MaxBytes() int64 { return p.o.MaxBytes }

// MinRelayFeeRate is the least fee rate that the operator allows, in satoshi per
// 1000 virtual bytes; see MinFeeRate for what it takes to get in now.
func (p *Pool) MinRelayFeeRate() int64 { return p.o.MinFeeRate }

// UnsentCount is the number of entries that nobody has been told of yet.
func (p *Pool) UnsentCount() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := 0
	for _, t := range p.turns {
		if t.told == 0 {
			n++
		}
	}
	return n
}

// IsUnsent says whether nobody has been told of an entry yet.
func (p *Pool) IsUnsent(txid chainhash.Hash) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	e := p.byID[txid]
	return e != nil && e.unsent()
}
