package mempool

import (
	"cmp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

const (
	orphanLife = 20 * time.Minute
	// maxMissing is how many unknown parents an orphan may have: with more it
	// could not get in if they came.
	maxMissing = maxAncestors - 1
	// peerShare is the part of the orphanage that one peer may fill.
	peerShare = 4
)

// An orphan is a transaction whose inputs are not all known yet.
type orphan struct {
	*candidate
	bytes   int64
	expires time.Time
	seq     uint64
	missing map[wire.OutPoint]struct{}
}

// orphanage keeps orphans by witness id (somebody can spoil a witness without
// changing the id, and must not keep the good one out so). It is guarded by
// Pool.mu.
type orphanage struct {
	maxCount int
	maxBytes int64

	byWID   map[chainhash.Hash]*orphan
	waiting map[wire.OutPoint]map[*orphan]struct{} // missing output → orphans
	bytes   int64
	seq     uint64
}

func newOrphanage(maxCount int, maxBytes int64) orphanage {
	return orphanage{
		maxCount: maxCount, maxBytes: maxBytes,
		byWID:   make(map[chainhash.Hash]*orphan),
		waiting: make(map[wire.OutPoint]map[*orphan]struct{}),
	}
}

// keep remembers a transaction that lacks the outputs missing, within the bounds.
// A peer that has its share makes room among its own; otherwise the oldest of the
// peer with the most goes.
func (o *orphanage) keep(c *candidate, missing []wire.OutPoint, now time.Time) {
	bytes := orphanBytes + orphanInputBytes*int64(len(c.tx.TxIn)) + bytesOf(c.tx)
	shareCount, shareBytes := max(1, o.maxCount/peerShare), o.maxBytes/peerShare
	if bytes > shareBytes || o.maxCount == 0 {
		return
	}
	if _, ok := o.byWID[c.wid]; ok {
		return
	}
	for {
		count, size, oldest := o.of(c.from)
		if count < shareCount && size+bytes <= shareBytes {
			break
		}
		o.drop(oldest)
	}
	for len(o.byWID) >= o.maxCount || o.bytes+bytes > o.maxBytes {
		o.drop(o.victim())
	}
	o.seq++
	again := *c // c itself goes on: its peer is charged for this try
	again.cost, again.relay = 0, true
	n := &orphan{candidate: &again, bytes: bytes, expires: now.Add(orphanLife), seq: o.seq, missing: make(map[wire.OutPoint]struct{}, len(missing))}
	o.byWID[c.wid] = n
	o.bytes += bytes
	for _, op := range missing {
		n.missing[op] = struct{}{}
		if o.waiting[op] == nil {
			o.waiting[op] = make(map[*orphan]struct{})
		}
		o.waiting[op][n] = struct{}{}
	}
}

// of returns what a peer has here.
func (o *orphanage) of(peer string) (count int, bytes int64, oldest *orphan) {
	for _, n := range o.byWID {
		if n.from == peer {
			count++
			bytes += n.bytes
			if oldest == nil || n.seq < oldest.seq {
				oldest = n
			}
		}
	}
	return count, bytes, oldest
}

// victim returns the oldest orphan of the peer that has most.
func (o *orphanage) victim() *orphan {
	type holding struct {
		count  int
		oldest *orphan
	}
	holdings := make(map[string]holding)
	for _, n := range o.byWID {
		h := holdings[n.from]
		h.count++
		if h.oldest == nil || n.seq < h.oldest.seq {
			h.oldest = n
		}
		holdings[n.from] = h
	}
	var most holding
	for _, h := range holdings {
		if h.count > most.count || h.count == most.count && h.oldest.seq < most.oldest.seq {
			most = h
		}
	}
	return most.oldest
}

// completed removes and returns the orphans that lack nothing any more now that
// tx is there.
func (o *orphanage) completed(tx *wire.MsgTx, id chainhash.Hash) []*candidate {
	if len(o.waiting) == 0 {
		return nil
	}
	var done []*orphan
	for i := range tx.TxOut {
		op := wire.OutPoint{Hash: id, Index: uint32(i)}
		for n := range o.waiting[op] {
			o.found(n, op)
			if len(n.missing) == 0 {
				done = append(done, n)
				o.drop(n)
			}
		}
	}
	slices.SortFunc(done, func(a, b *orphan) int { return cmp.Compare(a.seq, b.seq) })
	out := make([]*candidate, len(done))
	for i, n := range done {
		out[i] = n.candidate
	}
	return out
}

// found notes that op is no longer missing.
func (o *orphanage) found(n *orphan, op wire.OutPoint) {
	delete(n.missing, op)
	delete(o.waiting[op], n)
	if len(o.waiting[op]) == 0 {
		delete(o.waiting, op)
	}
}

// drop forgets an orphan.
func (o *orphanage) drop(n *orphan) {
	delete(o.byWID, n.wid)
	o.bytes -= n.bytes
	for op := range n.missing {
		o.found(n, op)
	}
}

// forget drops the orphan with a witness id, if it is there.
func (o *orphanage) forget(wid chainhash.Hash) {
	if n, ok := o.byWID[wid]; ok {
		o.drop(n)
	}
}

func (o *orphanage) expire(now time.Time) {
	for _, n := range o.byWID {
		if now.After(n.expires) {
			o.drop(n)
		}
	}
}
