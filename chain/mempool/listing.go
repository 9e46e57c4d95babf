package mempool

import (
	"math"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// An Item is what a listing says of an entry.
type Item struct {
	ID chainhash.Hash
	// Rate is what it pays in satoshi per 1000 virtual bytes, or what it pays with
	// all that builds on it, whichever is more.
	Rate  int64
	Bytes int // serialised, with witness
}

// A Listing is a part of the pool in the order in which others may know of it.
type Listing struct {
	Items []Item
	// Run is another number for every Pool: a position means nothing in another run.
	Run uint64
	// Last is the position to go on from, End that of the newest entry that is
	// listed. Last is End if there is no more for now.
	Last, End uint64
}

// maxListingWalk is how many positions one listing looks at.
const maxListingWalk = 20_000

// slot is a place in the list: e is nil when the entry has left.
type slot struct {
	at uint64
	e  *entry
}

// list has the entries that may be listed, by the order in which they became so:
// parents before children, but for those that were made here. It is guarded by
// Pool.mu. What an operation costs does not grow with it, but for a logarithm; a
// closing of gaps is paid for by the removals before it.
type list struct {
	last  uint64
	slots []slot
	gaps  int
}

// add puts an entry at the end.
func (l *list) add(e *entry) {
	l.last++
	e.listed = l.last
	l.slots = append(l.slots, slot{l.last, e})
}

// find returns the index of the first slot behind a position.
func (l *list) find(after uint64) int {
	i, _ := slices.BinarySearchFunc(l.slots, after, func(s slot, after uint64) int {
		if s.at <= after {
			return -1
		}
		return 1
	})
	return i
}

// remove takes an entry out, if it is in.
func (l *list) remove(e *entry) {
	if e.listed == 0 {
		return
	}
	l.slots[l.find(e.listed-1)].e = nil
	e.listed = 0
	if l.gaps++; l.gaps > 1000 && l.gaps > len(l.slots)/2 {
		l.slots = slices.Clip(slices.DeleteFunc(l.slots, func(s slot) bool { return s.e == nil }))
		l.gaps = 0
	}
}

// List returns up to most entries that came into the list behind the position
// after and that pay at least minRate. It leaves out what was made here and not
// been told to anybody yet. An empty listing whose Last is not End is no end: it
// has looked at as many as it may at a time. A position of another run is
// the beginning; one behind the end is the end.
func (p *Pool) List(run, after uint64, minRate int64, most int) Listing {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := Listing{Run: p.run, End: p.shown.last}
	if run != p.run && after != math.MaxUint64 {
		after = 0
	}
	if out.Last = min(after, out.End); out.Last == out.End {
		return out
	}
	for i, looked := p.shown.find(after), 0; ; i, looked = i+1, looked+1 {
		if i == len(p.shown.slots) {
			out.Last = out.End
			return out
		}
		s := p.shown.slots[i]
		if looked == maxListingWalk || len(out.Items) == most {
			return out
		}
		out.Last = s.at
		if s.e == nil {
			continue
		}
		fee, weight := s.e.score()
		if CompareFeeRates(fee, weight, minRate, 4000) < 0 {
			continue
		}
		out.Items = append(out.Items, Item{ID: s.e.ID, Rate: rateOf(fee, weight), Bytes: s.e.Tx.SerializeSize()})
	}
}

// rateOf is a fee rate in satoshi per 1000 virtual bytes, rounded down.
func rateOf(fee, weight int64) int64 {
	if fee > math.MaxInt64/4000 {
		return math.MaxInt64 / weight
	}
	return fee * 4000 / max(1, weight)
}

// Known says of each transaction whether the pool has it, keeps it as an orphan,
// or knows that it was replaced, mined away or too old: there is no use asking for
// it.
func (p *Pool) Known(ids []chainhash.Hash) []bool {
	out := make([]bool, len(ids))
	p.mu.RLock()
	defer p.mu.RUnlock()
	orphans := make(map[chainhash.Hash]bool, len(p.orphans.byWID))
	for _, o := range p.orphans.byWID {
		orphans[o.id] = true
	}
	for i, id := range ids {
		f := p.fates.byID[id]
		out[i] = p.byID[id] != nil || orphans[id] || f != nil && (f.Cause == Conflicted || f.Cause == Replaced || f.Cause == Expired)
	}
	return out
}
