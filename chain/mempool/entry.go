package mempool

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// What an entry costs beside its bytes, in bytes: decoded form, hashes, maps and
// their slack. TestMemoryEstimate holds them against the heap.
const (
	entryBytes       = 800
	inputBytes       = 310
	outputBytes      = 50
	witnessItemBytes = 24
	// An orphan costs less, but each of its inputs may be waited for.
	orphanBytes      = 700
	orphanInputBytes = 250
)

// memoryOf estimates what an entry takes, in bytes.
func memoryOf(tx *wire.MsgTx) int64 { return entryBytes + bytesOf(tx) }

func bytesOf(tx *wire.MsgTx) int64 {
	n := int64(tx.SerializeSize()) + inputBytes*int64(len(tx.TxIn)) + outputBytes*int64(len(tx.TxOut))
	for _, in := range tx.TxIn {
		n += witnessItemBytes * int64(len(in.Witness))
	}
	for _, out := range tx.TxOut { // copied out of the bytes
		n += int64(len(out.PkScript))
	}
	return n
}

// vsize is BIP141's virtual size.
func vsize(weight int64) int64 { return (weight + 3) / 4 }

// A sum adds up entries. It cannot overflow: a family has few members, none with
// a fee above the money there is.
type sum struct {
	fee, weight int64
	count       int
}

func (s *sum) add(e *entry) {
	s.fee += e.Fee
	s.weight += e.FeeWeight()
	s.count++
}

func (s *sum) sub(e *entry) {
	s.fee -= e.Fee
	s.weight -= e.FeeWeight()
	s.count--
}

// CompareFeeRates compares feeA/weightA with feeB/weightB exactly. None is
// negative, no weight is zero.
func CompareFeeRates(feeA, weightA, feeB, weightB int64) int {
	// Products of money and weight do not fit 64 bits.
	hiA, loA := bits.Mul64(uint64(feeA), uint64(weightB))
	hiB, loB := bits.Mul64(uint64(feeB), uint64(weightA))
	return cmp.Or(cmp.Compare(hiA, hiB), cmp.Compare(loA, loB))
}

// feeFor returns the least fee for a size at a rate in satoshi per 1000 virtual
// bytes, rounded up.
func feeFor(rate, vsize int64) int64 {
	hi, lo := bits.Mul64(uint64(rate), uint64(vsize))
	lo, carry := bits.Add64(lo, 999, 0)
	if hi += carry; hi >= 1000 {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, 1000)
	return int64(min(q, math.MaxInt64))
}

// entry is an Entry with its place in the pool. Its Parents are nil: public
// fills them in.
type entry struct {
	Entry
	flags    uint32 // that its scripts passed under
	was      place  // block that had it until a reorganisation; zero: none
	memory   int64
	parents  []*entry
	children []*entry
	family   sum // itself and everything that builds on it
	at       int // in Pool.order
	place    int // in Pool.wids
	// own: it was made or handed in here. It is listed once others were told.
	own    bool
	listed uint64 // in Pool.shown; 0: not
	turn   *turn  // to be told; nil: none
}

// public returns what callers see. Callers hold mu.
func (e *entry) public() Entry {
	out := e.Entry
	if len(e.parents) > 0 {
		out.Parents = make([]chainhash.Hash, len(e.parents))
		for i, parent := range e.parents {
			out.Parents[i] = parent.ID
		}
	}
	return out
}

// score is the better of the entry's own fee rate and that of its family: what
// keeping it is worth.
func (e *entry) score() (fee, weight int64) {
	if CompareFeeRates(e.family.fee, e.family.weight, e.Fee, e.FeeWeight()) > 0 {
		return e.family.fee, e.family.weight
	}
	return e.Fee, e.FeeWeight()
}

// ancestors returns the entries that e builds on, without it, or nil and false
// if there are more than limit. It needs e.parents only. Callers hold mu.
func (e *entry) ancestors(limit int) (all []*entry, ok bool) {
	for next := e.parents; ; {
		for _, a := range next {
			if !slices.Contains(all, a) { // few: no map
				if all = append(all, a); len(all) > limit {
					return nil, false
				}
			}
		}
		next = nil
		for _, a := range all {
			for _, g := range a.parents {
				if !slices.Contains(all, g) {
					next = append(next, g)
				}
			}
		}
		if len(next) == 0 {
			return all, true
		}
	}
}

// descendants adds e and everything that builds on it to out, unless out would
// have more than limit members. Callers hold mu.
func (e *entry) descendants(out map[*entry]struct{}, limit int) bool {
	stack := []*entry{e}
	for len(stack) > 0 {
		e := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := out[e]; ok {
			continue
		}
		if len(out) >= limit {
			return false
		}
		out[e] = struct{}{}
		stack = append(stack, e.children...)
	}
	return true
}

// link adds an entry whose parents are in the pool. Callers hold mu.
func (p *Pool) link(e *entry) {
	p.seq++
	e.seq = p.seq
	p.changes++
	p.fates.forget(e.ID)
	p.byID[e.ID] = e
	p.byWID[e.WID] = e
	p.list(e)
	for _, in := range e.Tx.TxIn {
		p.spent[in.PreviousOutPoint] = e
	}
	p.memory += e.memory
	p.vbytes += vsize(int64(e.Weight))
	e.family = sum{}
	e.family.add(e)
	p.order.add(e)
	for _, parent := range e.parents {
		parent.children = append(parent.children, e)
	}
	p.eachAncestor(e, func(a *entry) { a.family.add(e) })
	if !e.own {
		p.shown.add(e)
	}
}

// unlink removes one entry. If it has children, its parents are gone already:
// it was mined, and they before it. Callers hold mu.
func (p *Pool) unlink(e *entry) {
	p.eachAncestor(e, func(a *entry) { a.family.sub(e) })
	for _, parent := range e.parents {
		parent.children = without(parent.children, e)
	}
	for _, child := range e.children {
		child.parents = without(child.parents, e)
	}
	p.order.remove(e)
	for _, in := range e.Tx.TxIn {
		delete(p.spent, in.PreviousOutPoint)
	}
	delete(p.byID, e.ID)
	delete(p.byWID, e.WID)
	p.unlist(e)
	p.shown.remove(e)
	p.untell(e)
	p.changes++
	p.memory -= e.memory
	p.vbytes -= vsize(int64(e.Weight))
}

// eachAncestor changes the ancestors of e and mends their order.
func (p *Pool) eachAncestor(e *entry, change func(*entry)) {
	ancestors, _ := e.ancestors(math.MaxInt)
	for _, a := range ancestors {
		change(a)
		p.order.fix(a)
	}
}

func without(es []*entry, e *entry) []*entry {
	i := slices.Index(es, e)
	if i < 0 {
		return es
	}
	if es = slices.Delete(es, i, i+1); len(es) == 0 {
		return nil
	}
	return es
}

// removeTree removes an entry and everything that builds on it. All get the same
// fate, those that build on it by way of it. It returns them, e first. Callers
// hold mu.
func (p *Pool) removeTree(e *entry, fate Fate, now time.Time) []Fate {
	all := make(map[*entry]struct{})
	e.descendants(all, math.MaxInt)
	out := make([]Fate, 0, len(all))
	for _, r := range slices.Backward(p.removeAll(all)) {
		f := fate
		if f.ID = r.ID; r != e {
			f.Via = e.ID
		}
		if fate.Cause != Expired { // nobody has mined it for weeks
			p.extra.keep(r.Tx, r.ID, r.WID)
		}
		out = append(out, p.bury(f, now))
	}
	return out
}

// removeAll removes entries; what builds on one of them is among them. It returns
// them, children before parents. Callers hold mu.
func (p *Pool) removeAll(all map[*entry]struct{}) []*entry {
	if len(all) == 0 {
		return nil
	}
	list := make([]*entry, 0, len(all))
	for e := range all {
		list = append(list, e)
	}
	// Children first, so that unlink finds none.
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(b.seq, a.seq) })
	for _, e := range list {
		p.unlink(e)
	}
	return list
}

// inSeqOrder returns all entries, parents before children. Callers hold mu.
func (p *Pool) inSeqOrder() []*entry {
	all := slices.Clone(p.order)
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

// takeAll empties the pool. Callers hold mu.
func (p *Pool) takeAll() {
	p.order, p.wids, p.listed = nil, nil, nil
	p.changes++
	clear(p.byID)
	clear(p.byWID)
	clear(p.spent)
	p.shown.slots, p.shown.gaps = nil, 0 // positions go on
	p.turns = nil
	p.memory, p.vbytes = 0, 0
}
