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

// A gate gives turns to those who want something read and sent: so many reads at
// once and, with an upload limit, no more bytes than it allows. Among the peers that
// wait, the one that got least lately is next (start-time fair queueing), so that a
// peer that asks for much cannot starve one that asks for little.
//
// A turn covers reading and, for at most sendPatience, sending: where the
// processor or the line is what is short, the order of turns decides who gets how
// much of it, and yet a peer that reads slowly holds up nobody.
type gate struct {
	rate int64 // bytes a second; 0: no limit

	mu        sync.Mutex // guards what follows, held for a scan of waiters (a few for each peer)
	free      int        // turns that may begin
	clock     int64      // virtual start of the latest turn, in bytes
	waiters   []*waiter
	allowance float64     // bytes that may be sent now; below 0: a debt of a turn larger than what was left
	at        time.Time   // of allowance
	wake      *time.Timer // when the debt is paid; nil until first used
}

// account is a peer's place in virtual time. It belongs to the gate.
type account struct {
	known bool
	end   int64 // of its latest turn
}

type waiter struct {
	of      *account
	first   bool // goes on with what it has begun: before all others, at no charge
	start   int64
	n       int64
	granted chan struct{}
}

// credit is how far a peer may fall behind the others and still catch up: between
// two of its requests others go ahead, and it must not lose by that. No more, or
// whoever was idle could make all others wait; and none for those who are new, or
// new identities could.
const credit = 512 << 10

// sendPatience is how long a turn lasts after its bytes were read: many times
// what it takes to hand 128 KiB to a peer that reads.
const sendPatience = 10 * time.Millisecond

// burstSeconds is how much of an unused upload limit is kept for later.
const burstSeconds = 0.25

func newGate(turns int, rate int64) *gate {
	return &gate{free: turns, rate: rate, allowance: burstSeconds * float64(rate), at: time.Now()}
}

// acquire waits for a turn of n bytes for the peer of a. It waits at most limit
// (0: as long as it takes), then returns errBusy. The turn ends with release.
func (g *gate) acquire(ctx context.Context, gone <-chan struct{}, a *account, n int64, limit time.Duration) error {
	return g.wait(ctx, gone, &waiter{of: a, n: n}, limit)
}

// resume waits for a turn to go on with what a turn was charged for.
func (g *gate) resume(ctx context.Context, gone <-chan struct{}) error {
	return g.wait(ctx, gone, &waiter{of: &account{}, first: true}, 0)
}

func (g *gate) wait(ctx context.Context, gone <-chan struct{}, w *waiter, limit time.Duration) error {
	g.mu.Lock()
	w.granted = make(chan struct{})
	if !w.of.known {
		w.of.known, w.of.end = true, g.clock
	}
	w.start = max(g.clock-credit, w.of.end)
	g.waiters = append(g.waiters, w)
	g.next()
	g.mu.Unlock()

	select {
	case <-w.granted:
		return nil
	default:
	}
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	err := errBusy
	select {
	case <-w.granted:
		return nil
	case <-late:
	case <-gone:
		err = context.Canceled
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiters, w); i >= 0 {
		g.waiters = slices.Delete(g.waiters, i, i+1)
		return err
	}
	return nil // granted meanwhile
}

// release ends a turn; unused of its bytes will not be sent after all.
func (g *gate) release(a *account, unused int64) {
	g.settle(a, unused)
	g.done()
}

// settle gives back the part of a turn's bytes that will not be sent.
func (g *gate) settle(a *account, unused int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.end -= unused
	g.allowance += float64(unused)
}

// done ends a turn.
func (g *gate) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free++
	g.next()
}

// send calls f, which sends what was read, as the last part of a turn; the turn ends when it
// returns or after sendPatience.
func (g *gate) send(f func() error) error {
	timer := time.AfterFunc(sendPatience, g.done)
	err := f()
	if timer.Stop() {
		g.done()
	}
	return err
}

// next gives turns in order while there are any. The caller holds mu.
func (g *gate) next() {
	for len(g.waiters) > 0 && g.free > 0 {
		best := 0
		for i, w := range g.waiters {
			b := g.waiters[best]
			if w.first != b.first {
				if w.first {
					best = i
				}
			} else if w.start < b.start {
				best = i
			}
		}
		w := g.waiters[best]
		if !w.first && !g.affords() {
			return // it is next, however large: nothing slips past it for ever
		}
		g.waiters = slices.Delete(g.waiters, best, best+1)
		g.free--
		if !w.first {
			g.clock = max(g.clock, w.start)
			w.of.end = w.start + w.n
			g.allowance -= float64(w.n)
		}
		close(w.granted)
	}
}

// affords reports whether the upload limit lets a turn begin, and sees to it
// that next is called when it does. The caller holds mu.
func (g *gate) affords() bool {
	if g.rate == 0 {
		return true
	}
	now := time.Now()
	earned := now.Sub(g.at).Seconds() * float64(g.rate)
	g.allowance, g.at = min(g.allowance+earned, burstSeconds*float64(g.rate)), now
	if g.allowance >= 0 {
		return true
	}
	paid := time.Duration(-g.allowance/float64(g.rate)*float64(time.Second)) + time.Millisecond
	if g.wake == nil {
		g.wake = time.AfterFunc(paid, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.next()
		})
	} else {
		g.wake.Reset(paid)
	}
	return false
}

// stop ends what the gate may have left running; nobody waits any more.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wake != nil {
		g.wake.Stop()
	}
}
