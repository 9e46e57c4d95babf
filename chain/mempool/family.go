package mempool

import (
	"cmp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
)

// Limits on families, those of Bitcoin Core (policy/policy.h): they bound what a
// change of one entry costs, and what must be mined before it can be.
const (
	maxAncestors    = 25          // with the transaction itself
	maxDescendants  = 25          // of any ancestor, with itself
	maxFamilyWeight = 4 * 101_000 // of either
	maxReplaced     = 100         // entries that one replacement evicts (BIP125)
)

// contest says which entries e would replace, with their descendants, or why it
// may not have its place. errMoved means that a parent of it is gone. Callers
// hold mu.
func (p *Pool) contest(e *entry) (replaced map[*entry]struct{}, err error) {
	for _, parent := range e.parents {
		if p.byID[parent.ID] != parent {
			return nil, errMoved
		}
	}
	if _, ok := p.byID[e.ID]; ok {
		return nil, refuse("txn-already-in-mempool", "")
	}
	if replaced, err = p.conflicts(e); err != nil {
		return nil, err
	}
	return replaced, p.checkFamily(e, replaced)
}

// conflicts returns the entries that e would replace, or why it may not (BIP125
// rules 2 to 5 and a better fee rate; every entry may be replaced). Callers hold
// mu.
func (p *Pool) conflicts(e *entry) (map[*entry]struct{}, error) {
	var rivals []*entry
	var op wire.OutPoint // of the first
	for _, in := range e.Tx.TxIn {
		if r := p.spent[in.PreviousOutPoint]; r != nil {
			if CompareFeeRates(e.Fee, e.FeeWeight(), r.Fee, r.FeeWeight()) <= 0 {
				return nil, conflict(in.PreviousOutPoint, r.ID, "insufficient-fee", "fee rate not above that of %s, which spends the same output", r.ID)
			}
			if len(rivals) == 0 {
				op = in.PreviousOutPoint
			}
			rivals = append(rivals, r)
		}
	}
	if s := sibling(e, rivals); s != nil {
		if CompareFeeRates(e.Fee, e.FeeWeight(), s.Fee, s.FeeWeight()) <= 0 {
			return nil, refuse("truc-violation", "fee rate not above that of %s, the one child that their parent may have", s.ID)
		}
		rivals = append(rivals, s)
	}
	if len(rivals) == 0 {
		return nil, nil
	}
	first := rivals[0].ID
	out := make(map[*entry]struct{})
	theirs := make(map[*entry]struct{}) // unconfirmed parents
	for _, r := range rivals {
		if !r.descendants(out, maxReplaced) {
			return nil, conflict(op, first, "too-many-replacements", "would evict more than %d entries, %s and others", maxReplaced, first)
		}
		for _, parent := range r.parents {
			theirs[parent] = struct{}{}
		}
	}
	var fees int64
	for r := range out {
		fees += r.Fee
	}
	if need := fees + feeFor(p.increment(), vsize(e.FeeWeight())); e.Fee < need {
		return nil, conflict(op, first, "insufficient-fee", "fee %d satoshi, at least %d to replace %s and %d that build on it", e.Fee, need, first, len(out)-1)
	}
	for _, parent := range e.parents {
		if _, ok := out[parent]; ok {
			return nil, conflict(op, first, "bad-txns-spends-conflicting-tx", "spends %s, which it would replace with %s", parent.ID, first)
		}
		if _, ok := theirs[parent]; !ok {
			return nil, conflict(op, first, "replacement-adds-unconfirmed", "spends unconfirmed %s, which %s, that it would replace, does not", parent.ID, first)
		}
	}
	return out, nil
}

// checkFamily enforces the limits on families. Callers hold mu.
func (p *Pool) checkFamily(e *entry, replaced map[*entry]struct{}) error {
	ancestors, ok := e.ancestors(maxAncestors - 1)
	if !ok {
		return refuse("too-long-mempool-chain", "more than %d unconfirmed ancestors", maxAncestors-1)
	}
	above := e.FeeWeight()
	for _, a := range ancestors {
		above += a.FeeWeight()
	}
	if above > maxFamilyWeight && len(ancestors) > 0 {
		return refuse("too-long-mempool-chain", "weight %d with unconfirmed ancestors, at most %d", above, maxFamilyWeight)
	}
	if err := checkTRUC(e, ancestors, replaced); err != nil {
		return err
	}
	for _, a := range ancestors {
		family := a.family
		family.add(e)
		if family.count <= maxDescendants && family.weight <= maxFamilyWeight {
			continue
		}
		for r := range replaced {
			if theirs, _ := r.ancestors(maxAncestors); slices.Contains(theirs, a) {
				family.sub(r)
			}
		}
		if family.count > maxDescendants || family.weight > maxFamilyWeight {
			return refuse("too-long-mempool-chain", "%s would have %d unconfirmed descendants of weight %d, at most %d of %d",
				a.ID, family.count-1, family.weight, maxDescendants-1, maxFamilyWeight)
		}
	}
	return nil
}

// increment is the fee rate, in satoshi per 1000 virtual bytes, that one
// transaction must pay on top of another to take its place.
func (p *Pool) increment() int64 { return cmp.Or(p.o.MinFeeRate, 1000) }

// replace removes the entries whose place e takes. Callers hold mu.
func (p *Pool) replace(e *entry, replaced map[*entry]struct{}, now time.Time) {
	if len(replaced) == 0 {
		return
	}
	var direct []*entry
	for _, in := range e.Tx.TxIn {
		if r := p.spent[in.PreviousOutPoint]; r != nil {
			direct = append(direct, r)
		}
	}
	if s := sibling(e, direct); s != nil {
		direct = append(direct, s)
	}
	for _, r := range p.removeAll(replaced) {
		p.extra.keep(r.Tx, r.ID, r.WID)
		fate := Fate{ID: r.ID, Cause: Replaced, By: e.ID}
		if !slices.Contains(direct, r) {
			ancestors, _ := r.ancestors(maxAncestors)
			for _, a := range ancestors {
				if slices.Contains(direct, a) {
					fate.Via = a.ID
				}
			}
		}
		p.bury(fate, now)
	}
}

// commit adds an entry that was checked on top of tip. relay says that this node
// must tell others of it.
func (p *Pool) commit(e *entry, tip place, relay bool, now time.Time) (ready []*candidate, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tip != tip {
		return nil, errMoved
	}
	replaced, err := p.contest(e)
	if err != nil {
		return nil, err
	}
	p.replace(e, replaced, now)
	p.link(e)
	p.trim(now)
	if p.byID[e.ID] != e {
		p.fates.forget(e.ID) // it was never in
		return nil, refuse("mempool-full", "everything that stayed pays more")
	}
	switch {
	case relay:
		p.tell(e, time.Time{})
	case e.own:
		p.shown.add(e) // others were told before a restart
		p.again(e, now)
	default:
		p.again(e, now)
	}
	p.orphans.forget(e.WID)
	p.signal()
	return p.orphans.completed(e.Tx, e.ID), nil
}
