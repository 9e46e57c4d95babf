package mempool

import (
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// keepOrphan remembers a transaction whose inputs at lost are unknown, within
// the bounds on count, bytes and peer. The oldest orphan makes room.
func (p *Pool) keepOrphan(tx *wire.MsgTx, id chainhash.Hash, from string, weight int64, lost []wire.OutPoint) {
	bytes := memoryOf(tx)
	if weight > maxOrphanWeight || bytes > p.o.MaxOrphanBytes {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.orphans[id]; ok {
		return
	}
	mine := 0
	var myOldest *orphan
	for _, o := range p.orphans {
		if o.from == from {
			if mine++; myOldest == nil || o.seq < myOldest.seq {
				myOldest = o
			}
		}
	}
	if mine >= maxOrphansByPeer {
		p.dropOrphan(myOldest.id)
	}
	for len(p.orphans) >= p.o.MaxOrphans || p.orphanB+bytes > p.o.MaxOrphanBytes {
		var oldest *orphan
		for _, o := range p.orphans {
			if oldest == nil || o.seq < oldest.seq {
				oldest = o
			}
		}
		p.dropOrphan(oldest.id)
	}
	p.seq++
	p.orphans[id] = &orphan{tx: tx, id: id, from: from, bytes: bytes, expires: p.o.Now().Add(orphanLife), seq: p.seq}
	p.orphanB += bytes
	for _, op := range lost {
		if p.waiting[op] == nil {
			p.waiting[op] = make(map[chainhash.Hash]struct{})
		}
		p.waiting[op][id] = struct{}{}
	}
}

// completed removes and returns the orphans that waited for an output of tx.
// Callers hold mu.
func (p *Pool) completed(tx *wire.MsgTx, id chainhash.Hash) []*orphan {
	var out []*orphan
	for i := range tx.TxOut {
		for child := range p.waiting[wire.OutPoint{Hash: id, Index: uint32(i)}] {
			if o := p.orphans[child]; o != nil {
				out = append(out, o)
				p.dropOrphan(child)
			}
		}
	}
	return out
}

// dropOrphan forgets an orphan, if it is there. Callers hold mu.
func (p *Pool) dropOrphan(id chainhash.Hash) {
	o := p.orphans[id]
	if o == nil {
		return
	}
	delete(p.orphans, id)
	p.orphanB -= o.bytes
	for _, in := range o.tx.TxIn {
		if w := p.waiting[in.PreviousOutPoint]; w != nil {
			delete(w, id)
			if len(w) == 0 {
				delete(p.waiting, in.PreviousOutPoint)
			}
		}
	}
}
