package mempool

import (
	"container/heap"
	"hash/maphash"
	"math/rand/v2"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

const (
	// retellFirst is when an entry that was made here, and is not mined yet, is told
	// again, about; each time twice as long, up to retellMost. Sooner would be in
	// vain: gossip takes it for known for minutes.
	retellFirst = 10 * time.Minute
	retellMost  = 8 * time.Hour
	// coverShare: of so many entries of others one is told again as if it had been
	// made here, so that telling again does not say whose it is. Always the same
	// ones, or the others could be told apart by and by.
	coverShare = 64
)

// A turn is an entry's place among those that others are to be told of.
type turn struct {
	e      *entry
	due    time.Time // zero: at once
	told   int
	blocks uint64 // Pool.blocks when it was told
	at     int    // in turns
}

// turns orders them by due, then by age. It is guarded by Pool.mu.
type turns []*turn

// Len implements heap.Interface.
func (t turns) Len() int { return len(t) }

// Less implements heap.Interface.
func (t turns) Less(i, j int) bool {
	if c := t[i].due.Compare(t[j].due); c != 0 {
		return c < 0
	}
	return t[i].e.seq < t[j].e.seq
}

// Swap implements heap.Interface.
func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].at, t[j].at = i, j
}

// Push implements heap.Interface.
func (t *turns) Push(x any) {
	n := x.(*turn) // only this file calls it, with a turn
	n.at = len(*t)
	*t = append(*t, n)
}

// Pop implements heap.Interface.
func (t *turns) Pop() any {
	old := *t
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return n
}

// Unsent returns up to most entries that this node must tell others of now:
//
//   - those that were made here, again and again until they are mined, after about
//     10 min first and then twice as long each time, up to 8 h, if blocks came since
//     that could have had them; among them, as cover, one in 64 that were not;
//   - orphans that were completed here, whose message was not passed on when it came.
//     Their turn comes seenFor after they were received, for until then gossip takes
//     them for known;
//   - what a peer gave when it was asked, and what a reorganisation took from blocks.
//
// next is when the next of them is due, zero if none is. The channel is closed when
// there is another. Whoever has told others of one says so with Sent. They are kept
// over restarts with the rest.
func (p *Pool) Unsent(most int, seenFor time.Duration) (due []Entry, next time.Time, more <-chan struct{}) {
	now := p.o.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*turn
	for len(p.turns) > 0 && len(due) < most {
		t := p.turns[0]
		if t.due.After(now) {
			break
		}
		switch at := t.e.Received.Add(seenFor); {
		case t.told == 0 && !t.e.Received.IsZero() && at.After(now):
			t.due = at
			heap.Fix(&p.turns, 0)
		case t.told > 0 && t.blocks == p.blocks: // nobody could have mined it
			t.due = now.Add(jitter(retellFirst))
			heap.Fix(&p.turns, 0)
		default:
			due = append(due, t.e.public())
			taken = append(taken, heap.Pop(&p.turns).(*turn)) //nolint:forcetypeassert // it is one
		}
	}
	if len(p.turns) > 0 {
		next = p.turns[0].due
	}
	for _, t := range taken { // until Sent says so
		heap.Push(&p.turns, t)
	}
	return due, next, p.told
}

// Resend has others told of an entry once more, at once. It returns false if there is none.
func (p *Pool) Resend(txid chainhash.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byID[txid]
	if ok {
		p.tell(e, time.Time{})
	}
	return ok
}

// tell notes that others are to be told of an entry. Callers hold mu.
func (p *Pool) tell(e *entry, due time.Time) {
	if e.turn == nil {
		e.turn = &turn{e: e, due: due}
		heap.Push(&p.turns, e.turn)
	} else {
		e.turn.due, e.turn.told = due, 0
		heap.Fix(&p.turns, e.turn.at)
	}
	p.changes++
	close(p.told)
	p.told = make(chan struct{})
}

// unsent says whether others are still to be told of an entry a first time. Callers hold mu.
func (e *entry) unsent() bool { return e.turn != nil && e.turn.told == 0 }

// untell forgets an entry's turn. Callers hold mu.
func (p *Pool) untell(e *entry) {
	if e.turn != nil {
		heap.Remove(&p.turns, e.turn.at)
		e.turn = nil
	}
}

// Sent says that others have been told of an entry.
func (p *Pool) Sent(txid chainhash.Hash) {
	now := p.o.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[txid]
	if e == nil || e.turn == nil {
		return
	}
	if e.unsent() {
		p.changes++
	}
	if e.listed == 0 {
		p.shown.add(e) // it is no secret any more
	}
	p.again(e, now)
}

// again gives an entry that others were told of its next turn, if it has one.
// Callers hold mu.
func (p *Pool) again(e *entry, now time.Time) {
	if !e.own && !p.covers(e) {
		p.untell(e)
		return
	}
	t := e.turn
	if t == nil {
		t = &turn{e: e, due: now}
		e.turn = t
		heap.Push(&p.turns, t)
	}
	t.due = now.Add(jitter(min(retellMost, retellFirst<<min(t.told, 10))))
	t.told++
	t.blocks = p.blocks
	heap.Fix(&p.turns, t.at)
}

// Later puts off an entry that others are to be told of.
func (p *Pool) Later(txid chainhash.Hash, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.byID[txid]; e != nil && e.turn != nil {
		e.turn.due = until
		heap.Fix(&p.turns, e.turn.at)
	}
}

// covers says whether an entry of others is told again as cover.
func (p *Pool) covers(e *entry) bool {
	return p.cover > 0 && maphash.Bytes(p.salt, e.ID[:])%p.cover == 0
}

// jitter spreads a time over 75 to 150% of it.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + 0.75*rand.Float64()))
}
