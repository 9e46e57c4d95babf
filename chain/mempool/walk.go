package mempool

import (
	"cmp"
	"math"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Newer returns the entries that came in after number after, oldest first, at most
// most of them, and the number to go on from. It costs next to nothing when there is
// none, and else a look at every entry. Numbers begin anew with every Pool.
func (p *Pool) Newer(after uint64, most int) (out []Entry, last uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.seq <= after || most <= 0 {
		return nil, max(after, p.seq)
	}
	var found []*entry
	for _, e := range p.listed {
		if e.seq > after {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	last = p.seq
	if len(found) > most {
		found = found[:most]
		last = found[most-1].seq
	}
	for _, e := range found {
		out = append(out, e.public())
	}
	return out, last
}

// A Family is what an entry builds on and what builds on it.
type Family struct {
	// Ancestors are the entries that must be mined before, with the entry itself,
	// and AncestorWeight what they weigh.
	Ancestors      int
	AncestorWeight int64
	// Descendants build on the one of the ancestors that most build on, without it.
	Descendants int
}

// FamilyOf tells of an entry's family; false if there is no such entry.
func (p *Pool) FamilyOf(txid chainhash.Hash) (f Family, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	e, ok := p.byID[txid]
	if !ok {
		return f, false
	}
	ancestors, _ := e.ancestors(math.MaxInt)
	for _, a := range append(ancestors, e) {
		f.Ancestors++
		f.AncestorWeight += a.FeeWeight()
		f.Descendants = max(f.Descendants, a.family.count-1)
	}
	return f, true
}

// RateFor estimates the fee rate, in satoshi per 1000 virtual bytes, with which a
// transaction is mined within so many blocks, from the entries alone: those that pay
// more fill as many blocks. With a pool that is not full the least rate that gets in
// is enough. It knows no past.
func (p *Pool) RateFor(blocks int) int64 {
	room := int64(max(1, blocks)) * int64(p.params.MaxBlockWeight)
	rate := p.MinFeeRate()
	type rated struct{ fee, weight, size int64 }
	p.mu.RLock()
	all := make([]rated, 0, len(p.listed))
	total := int64(0)
	for _, e := range p.listed {
		fee, weight := e.score()
		all = append(all, rated{fee, max(1, weight), e.FeeWeight()})
		total += e.FeeWeight()
	}
	p.mu.RUnlock()
	if total <= room {
		return rate
	}
	slices.SortFunc(all, func(a, b rated) int { return CompareFeeRates(b.fee, b.weight, a.fee, a.weight) })
	for _, r := range all {
		if room -= r.size; room < 0 {
			return max(rate, rateOf(r.fee, r.weight)+1)
		}
	}
	return rate
}
