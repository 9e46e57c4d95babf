package exchange

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// errBusy says that a request waited too long for its turn.
var errBusy = errors.New("busy")

// gate bounds the bytes of blocks in memory on their way out and shares them
// fairly: among the peers that wait, the one that got least lately is next
// (start-time fair queueing), so that a peer that asks for much cannot starve one
// that asks for little.
type gate struct {
	mu      sync.Mutex // guards all, held for a scan of waiters (at most one a block stream)
	free    int64
	clock   int64 // virtual start of the latest grant, in bytes
	waiters []*waiter
}

// turn is a peer's place in virtual time: the end of its latest grant.
type turn struct{ end int64 }

type waiter struct {
	of      *turn
	start   int64
	n       int64
	granted chan struct{}
}

func newGate(n int64) *gate { return &gate{free: n} }

// acquire takes n bytes for the peer whose turn is t. It waits at most limit,
// then returns errBusy.
func (g *gate) acquire(ctx context.Context, gone <-chan struct{}, t *turn, n int64, limit time.Duration) error {
	g.mu.Lock()
	w := &waiter{of: t, start: max(g.clock, t.end), n: n}
	if len(g.waiters) == 0 && g.free >= n {
		g.grant(w)
		g.mu.Unlock()
		return nil
	}
	w.granted = make(chan struct{})
	g.waiters = append(g.waiters, w)
	g.mu.Unlock()

	timer := time.NewTimer(limit)
	defer timer.Stop()
	err := errBusy
	select {
	case <-w.granted:
		return nil
	case <-timer.C:
	case <-gone:
		err = context.Canceled
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiters, w); i >= 0 {
		g.waiters = slices.Delete(g.waiters, i, i+1)
		g.next() // a smaller one behind it may fit
		return err
	}
	return nil // granted meanwhile
}

// release gives n bytes back.
func (g *gate) release(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += n
	g.next()
}

// next grants to the waiters with the earliest start while there is room. The caller holds mu.
func (g *gate) next() {
	for len(g.waiters) > 0 {
		best := 0
		for i, w := range g.waiters {
			if w.start < g.waiters[best].start {
				best = i
			}
		}
		w := g.waiters[best]
		if g.free < w.n {
			return // it goes first, however large: nothing slips past it for ever
		}
		g.waiters = slices.Delete(g.waiters, best, best+1)
		g.grant(w)
		close(w.granted)
	}
}

func (g *gate) grant(w *waiter) {
	g.free -= w.n
	g.clock = max(g.clock, w.start)
	w.of.end = w.start + w.n
}

// budget counts what is outstanding at all peers together, on the wire. It
// holds requests back only while withdrawn ones are not acknowledged yet: the scheduler keeps
// to the same limits, but forgets a request when it withdraws it.
type budget struct {
	mu       sync.Mutex // guards all, held for an instant
	requests int
	bytes    int64
	maxReqs  int
	maxBytes int64
	freed    chan struct{} // closed when something was given back; nil while nobody waits
}

func newBudget(requests int, bytes int64) *budget {
	return &budget{maxReqs: requests, maxBytes: bytes}
}

// take counts a request in, or returns a channel closed when it may be tried again.
func (b *budget) take(bytes int64) (wait <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests >= b.maxReqs || b.bytes+bytes > b.maxBytes {
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		return b.freed, false
	}
	b.requests++
	b.bytes += bytes
	return nil, true
}

// give gives back bytes that arrived or will not come, and requests that ended.
func (b *budget) give(requests int, bytes int64) {
	if requests == 0 && bytes == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests -= requests
	b.bytes -= bytes
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

func (b *budget) used() (requests int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests, b.bytes
}
