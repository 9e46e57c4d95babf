package mempool

import (
	"cmp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Unsent returns up to most entries that this node must tell others of, by age:
// those that were made here, and orphans that were completed here, whose message
// was not passed on when it came. An orphan's turn comes seenFor after it was
// received, for until then gossip takes it for known; next is when the next of
// them is due, zero if none is waiting. The channel is closed when there is
// another. Whoever has told others of one says so with Sent. They are kept over
// restarts with the rest.
func (p *Pool) Unsent(most int, seenFor time.Duration) (due []Entry, next time.Time, more <-chan struct{}) {
	now := p.o.Now()
	p.mu.RLock()
	defer p.mu.RUnlock()
	var ready []*entry
	for _, e := range p.unsent {
		if at := e.Received.Add(seenFor); !e.Received.IsZero() && at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		ready = append(ready, e)
	}
	slices.SortFunc(ready, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	for _, e := range ready[:min(len(ready), most)] {
		due = append(due, e.public())
	}
	return due, next, p.told
}

// Resend has others told of an entry once more. It returns false if there is none.
func (p *Pool) Resend(txid chainhash.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byID[txid]
	if ok {
		p.tell(e)
	}
	return ok
}

// tell notes that others are to be told of an entry. Callers hold mu.
func (p *Pool) tell(e *entry) {
	p.unsent[e.ID] = e
	p.changes++
	close(p.told)
	p.told = make(chan struct{})
}

// Sent says that others have been told of an entry.
func (p *Pool) Sent(txid chainhash.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.unsent[txid]; ok {
		delete(p.unsent, txid)
		p.changes++
	}
}
