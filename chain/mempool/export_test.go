package mempool

import (
	"fmt"
	"time"
)

// Limits that tests go up to.
const (
	MaxAncestors   = maxAncestors
	MaxDescendants = maxDescendants
	MaxReplaced    = maxReplaced
	MaxMissing     = maxMissing
	MaxDebt        = maxDebt
	MaxDebtor      = maxDebtor
	Payback        = payback
	OrphanLife     = orphanLife
	FloorHalfLife  = floorHalfLife
	PeerShare      = peerShare
)

var (
	FeeFor   = feeFor
	MemoryOf = memoryOf
)

// Sweep does what Run does every minute.
func (p *Pool) Sweep() { p.sweep() }

// A Book is a wasteBook.
type Book struct{ w wasteBook }

// NewBook returns an empty book.
func NewBook() Book { return Book{make(wasteBook)} }

// Charge books a cost.
func (b Book) Charge(peer string, cost time.Duration, now time.Time) { b.w.charge(peer, cost, now) }

// Over says whether a peer owes too much.
func (b Book) Over(peer string, now time.Time) bool { return b.w.over(peer, now) }

// Len is the number of peers.
func (b Book) Len() int { return len(b.w) }

// Verify checks every account that the pool keeps against what it stands for.
func (p *Pool) Verify() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var memory, vbytes int64
	inputs := 0
	if len(p.byID) != len(p.order) || len(p.byWID) != len(p.order) {
		return fmt.Errorf("%d by id, %d by witness id, %d in order", len(p.byID), len(p.byWID), len(p.order))
	}
	for i, e := range p.order {
		if e.at != i || p.byID[e.ID] != e || p.byWID[e.WID] != e {
			return fmt.Errorf("%s: at %d of %d, or not in the maps", e.ID, e.at, i)
		}
		if i > 0 && p.order.Less(i, (i-1)/2) {
			return fmt.Errorf("%s: worth less than what is above it", e.ID)
		}
		memory += e.memory
		vbytes += vsize(int64(e.Weight))
		inputs += len(e.Tx.TxIn)
		parents := make(map[*entry]bool)
		for _, in := range e.Tx.TxIn {
			if p.spent[in.PreviousOutPoint] != e {
				return fmt.Errorf("%s: %s is not marked as spent by it", e.ID, in.PreviousOutPoint)
			}
			if parent := p.byID[in.PreviousOutPoint.Hash]; parent != nil {
				parents[parent] = true
			}
		}
		if len(parents) != len(e.parents) {
			return fmt.Errorf("%s: %d parents, linked to %d", e.ID, len(parents), len(e.parents))
		}
		for _, parent := range e.parents {
			if !parents[parent] || parent.seq >= e.seq {
				return fmt.Errorf("%s: parent %s is not in the pool, or younger", e.ID, parent.ID)
			}
		}
		all := make(map[*entry]struct{})
		e.descendants(all, len(p.order))
		var s sum
		for d := range all {
			s.add(d)
		}
		if s != e.family {
			return fmt.Errorf("%s: family %+v, counted %+v", e.ID, e.family, s)
		}
		if s.count > maxDescendants || s.weight > maxFamilyWeight {
			return fmt.Errorf("%s: family %+v is too large", e.ID, s)
		}
		if _, ok := e.ancestors(maxAncestors - 1); !ok {
			return fmt.Errorf("%s: too many ancestors", e.ID)
		}
	}
	if memory != p.memory || vbytes != p.vbytes || inputs != len(p.spent) {
		return fmt.Errorf("memory %d, counted %d; vbytes %d, counted %d; %d outputs spent, counted %d",
			p.memory, memory, p.vbytes, vbytes, len(p.spent), inputs)
	}
	if memory > p.o.MaxBytes {
		return fmt.Errorf("memory %d, at most %d", memory, p.o.MaxBytes)
	}
	return p.orphans.verify()
}

func (o *orphanage) verify() error {
	var bytes int64
	waiting := 0
	for wid, n := range o.byWID {
		bytes += n.bytes
		if n.wid != wid || len(n.missing) == 0 {
			return fmt.Errorf("orphan %s: lacks %d", wid, len(n.missing))
		}
		for op := range n.missing {
			if _, ok := o.waiting[op][n]; !ok {
				return fmt.Errorf("orphan %s: does not wait for %s", wid, op)
			}
			waiting++
		}
	}
	for _, w := range o.waiting {
		waiting -= len(w)
	}
	if waiting != 0 || bytes != o.bytes || bytes > o.maxBytes || len(o.byWID) > o.maxCount {
		return fmt.Errorf("%d orphans of %d bytes, counted %d; %d waits too many", len(o.byWID), o.bytes, bytes, -waiting)
	}
	return nil
}

// Charge books a cost to a peer.
func (p *Pool) Charge(peer string, cost time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waste.charge(peer, cost, now)
}
