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
	found := p.behind(after)
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

// FeeRates estimates, for each of some numbers of blocks of blockWeight, the fee rate in
// satoshi per 1000 virtual bytes with which a transaction is mined within so many, from
// the entries alone: those that pay more, themselves or by what builds on them, fill as
// many. With a pool that is not full the least rate that gets in is enough. It knows no
// past.
func (p *Pool) FeeRates(blockWeight int64, blocks ...int) []int64 {
	type rated struct{ fee, weight, size int64 }
	p.mu.RLock()
	all := make([]rated, len(p.listed))
	for i, e := range p.listed {
		fee, weight := e.score()
		all[i] = rated{fee, max(1, weight), e.FeeWeight()}
	}
	p.mu.RUnlock()
	slices.SortFunc(all, func(a, b rated) int { return CompareFeeRates(b.fee, b.weight, a.fee, a.weight) })
	least := p.MinFeeRate()
	rates := make([]int64, len(blocks))
	for i, n := range blocks {
		rates[i] = least
		room := int64(max(1, n)) * blockWeight
		for _, r := range all {
			if room -= r.size; room < 0 {
				rates[i] = max(least, rateOf(r.fee, r.weight)+1)
				break
			}
		}
	}
	return rates
}

// Since returns the last entries, at most most, that were added behind a number and are
// still here, oldest first; how many there are; and the number of the last. The greatest
// number is behind all. It costs what Newer does.
func (p *Pool) Since(after uint64, most int) (added []Entry, total int, last uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if after >= p.seq {
		return nil, 0, p.seq
	}
	found := p.behind(after)
	for _, e := range found[max(0, len(found)-most):] {
		added = append(added, e.public())
	}
	return added, len(found), p.seq
}

// behind returns the entries that came in after a number, oldest first. Callers hold mu.
func (p *Pool) behind(after uint64) (found []*entry) {
	for _, e := range p.listed {
		if e.seq > after {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	return found
}
