package mempool

import (
	"cmp"
	"context"
	"errors"
	"slices"

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

// FeeRates estimates what to pay to be mined within so many blocks, in satoshi per
// 1000 virtual bytes, one for each of blocks: the rate at which the transactions that
// pay more fill that many blocks of blockWeight. It knows no past; with a pool that is
// not full, the least rate that gets in is enough.
func (p *Pool) FeeRates(blockWeight int64, blocks ...int) []int64 {
	type rated struct{ fee, weight int64 }
	p.mu.RLock()
	all := make([]rated, len(p.order))
	for i, e := range p.order {
		all[i] = rated{e.Fee, e.FeeWeight()}
	}
	p.mu.RUnlock()
	slices.SortFunc(all, func(a, b rated) int { return CompareFeeRates(b.fee, b.weight, a.fee, a.weight) })
	least := p.MinFeeRate()
	rates := make([]int64, len(blocks))
	for i, n := range blocks {
		rates[i] = least
		room := int64(n) * blockWeight
		for _, e := range all {
			if room -= e.weight; room < 0 {
				rates[i] = max(least, rateOf(e.fee, e.weight)+1)
				break
			}
		}
	}
	return rates
}

// Since returns the last entries, at most most, that were added behind a number and are
// still here, oldest first; how many there are; and the number of the last. The greatest
// number is behind all. It looks at every entry if any was added.
func (p *Pool) Since(after uint64, most int) (added []Entry, total int, last uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if after >= p.seq {
		return nil, 0, p.seq
	}
	var found []*entry
	for _, e := range p.order {
		if e.seq > after {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range found[max(0, len(found)-most):] {
		added = append(added, e.public())
	}
	return added, len(found), p.seq
}
