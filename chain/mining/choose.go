package mining

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// A pack is an entry with the ancestors that are not in the block yet: what must
// be taken to take it.
type pack struct {
	entry     *mempool.Entry
	index     int
	ancestors []*pack // all of them, in or not
	children  []*pack // those that build on it, at any distance
	fee       int64   // with the ancestors that are not in yet
	weight    int64
	feeWeight int64 // what the fee is compared with
	sigOps    int64
	in, out   bool // taken; can never be taken
	at        int  // in the heap; -1 if not
}

// inherit adds an ancestor unless it is there.
func (a *pack) inherit(b *pack) {
	if !slices.Contains(a.ancestors, b) {
		a.ancestors = append(a.ancestors, b)
	}
}

// better orders packs by fee rate, then by age.
func (a *pack) better(b *pack) bool {
	return cmp.Or(
		mempool.CompareFeeRates(b.fee, b.feeWeight, a.fee, a.feeWeight),
		cmp.Compare(a.index, b.index)) < 0
}

// packs is a heap, the best first.
type packs []*pack

// Len implements heap.Interface.
func (h packs) Len() int { return len(h) }

// Less implements heap.Interface.
func (h packs) Less(i, j int) bool { return h[i].better(h[j]) }

// Swap implements heap.Interface.
func (h packs) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface. Nothing is pushed after the start.
func (h *packs) Push(any) {}

// Pop implements heap.Interface.
func (h *packs) Pop() any {
	old := *h
	n := len(old) - 1
	p := old[n]
	old[n] = nil
	*h = old[:n]
	p.at = -1
	return p
}

// choose picks entries for a block, parents before children: the best paying
// package first, as long as weight, signature operations and lock times allow.
// cutoff is the time that lock times are compared with, Unix seconds.
func choose(p *consensus.Params, entries []mempool.Entry, height int32, cutoff int64) []*mempool.Entry {
	all := makePacks(entries, height, cutoff)
	h := make(packs, 0, len(all))
	for _, k := range all {
		if !k.out {
			k.at = len(h)
			h = append(h, k)
		}
	}
	heap.Init(&h)
	weightLeft := int64(p.MaxBlockWeight - coinbaseWeight)
	sigOpsLeft := int64(p.MaxBlockSigOpsCost - coinbaseSigOps)
	feesLeft := int64(maxMoney) // a sum above is no money (consensus)
	var chosen []*mempool.Entry
	for misses := 0; len(h) > 0 && misses < maxMisses; {
		k := h[0]
		heap.Pop(&h)
		if k.weight > weightLeft || k.sigOps > sigOpsLeft || k.fee > feesLeft {
			// It may come again, smaller, as part of another package, or when the
			// ancestors that it shares with one are in.
			misses++
			continue
		}
		misses = 0
		weightLeft -= k.weight
		sigOpsLeft -= k.sigOps
		feesLeft -= k.fee
		for _, a := range append(slices.Clone(k.ancestors), k) {
			if a.in {
				continue
			}
			a.in = true
			chosen = append(chosen, a.entry)
			if a.at >= 0 {
				heap.Remove(&h, a.at)
			}
			for _, d := range a.children {
				d.fee -= a.entry.Fee
				d.weight -= int64(a.entry.Weight)
				d.feeWeight -= a.entry.FeeWeight()
				d.sigOps -= int64(a.entry.SigOpCost)
				switch {
				case d.in || d.out:
				case d.at >= 0:
					heap.Fix(&h, d.at)
				case d != k:
					d.at = len(h) // it did not fit before; it is smaller now
					h = append(h, d)
					heap.Fix(&h, d.at)
				}
			}
		}
	}
	return chosen
}

// makePacks builds the packs of entries, given parents before children. What can
// not be in this block, or builds on what cannot, is out.
func makePacks(entries []mempool.Entry, height int32, cutoff int64) []*pack {
	all := make([]pack, len(entries))
	list := make([]*pack, len(entries))
	index := make(map[chainhash.Hash]*pack, len(entries))
	for i := range entries {
		e := &entries[i]
		k := &all[i]
		*k = pack{
			entry: e, index: i, at: -1,
			fee: e.Fee, weight: int64(e.Weight), feeWeight: e.FeeWeight(), sigOps: int64(e.SigOpCost),
			out: !consensus.IsFinal(e.Tx, height, cutoff),
		}
		list[i] = k
		index[e.ID] = k
		for _, id := range e.Parents {
			parent := index[id]
			if parent == nil || parent.out {
				k.out = true
				break
			}
			k.inherit(parent)
			for _, a := range parent.ancestors {
				k.inherit(a)
			}
		}
		if k.out {
			continue
		}
		// In order of acceptance, which has parents first.
		slices.SortFunc(k.ancestors, func(a, b *pack) int { return cmp.Compare(a.index, b.index) })
		for _, a := range k.ancestors {
			a.children = append(a.children, k)
			k.fee += a.entry.Fee
			k.weight += int64(a.entry.Weight)
			k.feeWeight += a.entry.FeeWeight()
			k.sigOps += int64(a.entry.SigOpCost)
		}
	}
	return list
}
