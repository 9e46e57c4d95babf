package mempool

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Limits that tests go up to.
const (
	MaxAncestors   = maxAncestors
	MaxDescendants = maxDescendants
	MaxReplaced    = maxReplaced
	MaxMissing     = maxMissing
	MaxDebt        = maxDebt
	MaxDebtor      = maxDebtor
	MaxAllDebt     = maxAllDebt
	SmallDebt      = smallDebt
	AllPayback     = allPayback
	Payback        = payback
	OrphanLife     = orphanLife
	FloorHalfLife  = floorHalfLife
	PeerShare      = peerShare
	MaxFates       = maxFates
	MaxBehind      = maxBehind
)

// Fates is a fateBook.
type Fates struct{ b fateBook }

// NewFates returns an empty book.
func NewFates() *Fates { return &Fates{newFateBook()} }

// Add records a fate.
func (f *Fates) Add(fate Fate) { f.b.add(fate) }

// Len counts what is remembered.
func (f *Fates) Len() (lost, other, byID int) { return len(f.b.lost), len(f.b.other), len(f.b.byID) }

var (
	FeeFor   = feeFor
	MemoryOf = memoryOf

	WitnessStandard = witnessStandard
)

// Cover sets which part of others' entries is told again; 0: none.
func (p *Pool) Cover(share uint64) { p.cover = share }

// ReadFile does what Run does first.
func (p *Pool) ReadFile(ctx context.Context) error { return p.readFile(ctx) }

// LoadUpTo is Load with another limit.
func (p *Pool) LoadUpTo(ctx context.Context, r io.Reader, size, most int64) (LoadReport, error) {
	return p.load(ctx, r, size, most)
}

// ReadRecords decodes a file without a pool, and counts its transactions.
func ReadRecords(r io.Reader, size int64, genesis chainhash.Hash) (txs int, err error) {
	f := newFileReader(r, size)
	if err := f.head(genesis); err != nil {
		return 0, err
	}
	for {
		kind, payload, err := f.next()
		if err != nil {
			return txs, err
		}
		switch kind {
		case recordFate:
			if _, ok := parseFate(payload); !ok {
				return txs, errFile
			}
		case recordTx:
			s, ok := parseTx(payload)
			if !ok {
				return txs, errFile
			}
			if _, err := consensus.DecodeTx(s.raw); err != nil {
				return txs, err
			}
			txs++
		default:
			return txs, nil
		}
	}
}

// Mend gives every record of a file the checksum that it should have, and the
// head that of a chain.
func Mend(b []byte, genesis chainhash.Hash) []byte {
	if len(b) < fileHead {
		return b
	}
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], FileVersion)
	copy(b[12:], genesis[:])
	binary.LittleEndian.PutUint32(b[fileHead-4:], crc32.Checksum(b[:fileHead-4], castagnoli))
	for rest := b[fileHead:]; len(rest) >= recordHead+recordTail; {
		n := recordHead + int64(binary.LittleEndian.Uint32(rest[1:]))
		if n+recordTail > int64(len(rest)) {
			break
		}
		binary.LittleEndian.PutUint32(rest[n:], crc32.Checksum(rest[:n], castagnoli))
		rest = rest[n+recordTail:]
	}
	return b
}

// Allocated is the least that f allocates in a few runs: others may at the same
// time.
func Allocated(f func()) uint64 {
	least := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// Sweep does what Run does every minute.
func (p *Pool) Sweep() { p.sweep() }

// A Book is a wasteBook.
type Book struct{ w *wasteBook }

// NewBook returns an empty book.
func NewBook() Book {
	w := newWasteBook()
	return Book{&w}
}

// Charge books a cost.
func (b Book) Charge(peer string, cost time.Duration, now time.Time) { b.w.charge(peer, cost, now) }

// Over says whether a peer owes too much.
func (b Book) Over(peer string, now time.Time) bool { return b.w.over(peer, now) }

// Len is the number of peers.
func (b Book) Len() int { return len(b.w.peers) }

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
	if memory > p.o.MaxBytes || memory+p.waiting > p.o.MaxBytes+maxReturnedBytes {
		return fmt.Errorf("memory %d, at most %d, with %d waiting", memory, p.o.MaxBytes, p.waiting)
	}
	for i, t := range p.turns {
		if p.byID[t.e.ID] != t.e || t.e.turn != t || t.at != i {
			return fmt.Errorf("%s: has a turn, and is not in the pool", t.e.ID)
		}
	}
	listed, gaps := 0, 0
	for i, s := range p.shown.slots {
		switch {
		case i > 0 && s.at <= p.shown.slots[i-1].at || s.at > p.shown.last:
			return fmt.Errorf("position %d behind %d", s.at, p.shown.slots[i-1].at)
		case s.e == nil:
			gaps++
		case p.byID[s.e.ID] != s.e || s.e.listed != s.at:
			return fmt.Errorf("%s: listed, and not in the pool", s.e.ID)
		default:
			listed++
		}
	}
	for id, e := range p.byID {
		if e.listed == 0 {
			listed++
			if !e.own || !e.unsent() {
				return fmt.Errorf("%s: not listed", id)
			}
		}
	}
	if listed != len(p.byID) || gaps != p.shown.gaps {
		return fmt.Errorf("%d listed or secret of %d, %d gaps, counted %d", listed, len(p.byID), p.shown.gaps, gaps)
	}
	if len(p.fates.lost) > maxFates || len(p.fates.other) > maxFates || len(p.fates.byID) > 2*maxFates {
		return fmt.Errorf("%d and %d fates, %d by id", len(p.fates.lost), len(p.fates.other), len(p.fates.byID))
	}
	for id := range p.fates.byID {
		if p.byID[id] != nil {
			return fmt.Errorf("%s: in the pool, and has a fate", id)
		}
	}
	if err := p.verifyBlockTxs(); err != nil {
		return err
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

// Owes returns what a peer is in debt with.
func (p *Pool) Owes(peer string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waste.owes(peer, p.o.Now())
}

// Charge books a cost to a peer.
func (p *Pool) Charge(peer string, cost time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waste.charge(peer, cost, now)
}

// MaxListingWalk is the limit of a listing.
const MaxListingWalk = maxListingWalk

// FillList lists n transactions that pay nothing, and again without nine of ten.
func (p *Pool) FillList(n int) (first, last Listing, gaps int) {
	p.mu.Lock()
	es := make([]*entry, n)
	for i := range es {
		es[i] = &entry{Entry: Entry{Tx: wire.NewMsgTx(2), Weight: 400}}
		p.shown.add(es[i])
	}
	p.mu.Unlock()
	first = p.List(p.run, 0, 1, 100)
	p.mu.Lock()
	for i, e := range es {
		if i%10 != 0 {
			p.shown.remove(e)
		}
	}
	p.mu.Unlock()
	last = p.List(p.run, 0, 0, n)
	p.mu.Lock()
	defer p.mu.Unlock()
	gaps = p.shown.gaps
	p.shown = list{}
	return first, last, gaps
}
