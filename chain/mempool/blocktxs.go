package mempool

import (
	"errors"
	"iter"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

const (
	// maxExtra is how many transactions are kept that are not wanted but that
	// others may mine, as many as in Bitcoin Core (-blockreconstructionextratxn).
	maxExtra = 100
	// maxExtraBytes bounds their memory, a tenth of it for one.
	maxExtraBytes = 5_000_000
	extraShare    = 10
	// widsAtOnce is how many ids are read at a time, in some microseconds.
	widsAtOnce = 512
)

// A bystander is a transaction that is not in the pool.
type bystander struct {
	id, wid chainhash.Hash
	tx      *wire.MsgTx
	bytes   int64
}

// extraBook remembers the last transactions that were refused for policy, or left
// for another one: other nodes may think otherwise, and a block have them. It is
// guarded by Pool.mu.
type extraBook struct {
	byWID map[chainhash.Hash]*bystander
	order []*bystander // oldest first
	bytes int64
}

// keep remembers a transaction; the oldest make room.
func (b *extraBook) keep(tx *wire.MsgTx, id, wid chainhash.Hash) {
	n := &bystander{id: id, wid: wid, tx: tx, bytes: memoryOf(tx)}
	if b.byWID[wid] != nil || n.bytes > maxExtraBytes/extraShare {
		return
	}
	for len(b.order) > 0 && (len(b.order) >= maxExtra || b.bytes+n.bytes > maxExtraBytes) {
		old := b.order[0]
		delete(b.byWID, old.wid)
		b.bytes -= old.bytes
		b.order[0] = nil
		b.order = b.order[1:]
	}
	b.byWID[wid] = n
	b.order = append(b.order, n)
	b.bytes += n.bytes
}

// bystand keeps a candidate that was refused, if others may think otherwise of it.
func (p *Pool) bystand(c *candidate, err error) {
	rule, ok := errors.AsType[*consensus.RuleError](err)
	if !ok || rule.Blame != consensus.BlameNobody || here[rule.Rule] {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.orphans.byWID[c.wid] == nil {
		p.extra.keep(c.tx, c.id, c.wid)
	}
}

// here are the rules that refuse what is here already, or in a block.
var here = map[string]bool{"txn-already-in-mempool": true, "txn-already-known": true}

// WitnessIDs yields the witness ids of all transactions that a block may have and
// that are here: entries, orphans, and the last that were refused or lost. What
// comes in or leaves meanwhile may be left out or come twice. A pool of 100,000
// takes a millisecond; nothing is locked while the caller looks at an id.
func (p *Pool) WitnessIDs() iter.Seq[*chainhash.Hash] {
	return func(yield func(*chainhash.Hash) bool) {
		buf := make([]chainhash.Hash, widsAtOnce)
		// From the end: an entry that fills a gap comes from behind and was yielded.
		for end := -1; end != 0; {
			p.mu.RLock()
			if end < 0 || end > len(p.wids) {
				end = len(p.wids)
			}
			n := copy(buf, p.wids[max(0, end-len(buf)):end])
			p.mu.RUnlock()
			end -= n
			for i := range buf[:n] {
				if !yield(&buf[i]) {
					return
				}
			}
		}
		var others []chainhash.Hash
		p.mu.RLock()
		for wid := range p.orphans.byWID {
			others = append(others, wid)
		}
		for wid := range p.extra.byWID {
			others = append(others, wid)
		}
		p.mu.RUnlock()
		for i := range others {
			if !yield(&others[i]) {
				return
			}
		}
	}
}

// ByWitnessID returns a transaction that WitnessIDs yielded, and its id; false if
// it has gone since. It must not be changed.
func (p *Pool) ByWitnessID(wtxid chainhash.Hash) (tx *wire.MsgTx, txid chainhash.Hash, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if e := p.byWID[wtxid]; e != nil {
		return e.Tx, e.ID, true
	}
	if n := p.orphans.byWID[wtxid]; n != nil {
		return n.tx, n.id, true
	}
	if n := p.extra.byWID[wtxid]; n != nil {
		return n.tx, n.id, true
	}
	return nil, chainhash.Hash{}, false
}

// list adds an entry to wids. Callers hold mu.
func (p *Pool) list(e *entry) {
	e.place = len(p.wids)
	p.wids = append(p.wids, e.WID)
	p.listed = append(p.listed, e)
}

// unlist removes an entry from wids; the last takes its place. Callers hold mu.
func (p *Pool) unlist(e *entry) {
	last := len(p.wids) - 1
	p.wids[e.place], p.listed[e.place] = p.wids[last], p.listed[last]
	p.listed[e.place].place = e.place
	p.listed[last] = nil
	p.wids, p.listed = p.wids[:last], p.listed[:last]
}
