package exchange

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// An outbox bounds the memory of what is on its way out to all peers together.
// Whoever does not read its reply holds what others need: when there is no room, the
// parcel that has not moved for longest is dropped, and its stream with it.
type outbox struct {
	mu       sync.Mutex // guards what follows, held for a scan of parcels (one a stream)
	free     int64
	parcels  map[*parcel]bool
	freed    chan struct{} // closed and replaced when something was given back
	dropping int64         // bytes of parcels that were dropped and are not given back yet
	dropped  int64         // parcels, since the start
}

// A parcel is memory in use for one stream.
type parcel struct {
	n     int64
	moved atomic.Int64 // Unix nanoseconds of the latest progress
	drop  func()       // resets the stream; its owner then gives the parcel back
	done  bool         // drop was called; guarded by the outbox
}

// dropAfter is how long a parcel may rest while others wait for room: ten times
// the longest round trip over the Earth, with a retransmission in it.
const dropAfter = 3 * time.Second

func newOutbox(n int64) *outbox {
	return &outbox{free: n, parcels: make(map[*parcel]bool), freed: make(chan struct{})}
}

// take waits for room for n bytes, at most limit, then returns errBusy. drop may be called
// from any goroutine until the parcel is given back.
func (o *outbox) take(ctx context.Context, gone <-chan struct{}, n int64, limit time.Duration, drop func()) (*parcel, error) {
	p := &parcel{n: n, drop: drop}
	p.touch()
	deadline := time.Now().Add(limit)
	for {
		o.mu.Lock()
		if o.free >= n {
			o.free -= n
			o.parcels[p] = true
			o.mu.Unlock()
			return p, nil
		}
		freed := o.freed
		oldest := o.oldest()
		now := time.Now()
		again := deadline.Sub(now)
		var victim *parcel
		if oldest != nil && o.free+o.dropping < n {
			if rest := oldest.idle(now); rest >= dropAfter {
				victim = oldest
				victim.done = true
				o.dropping += victim.n
				o.dropped++
			} else {
				again = min(again, dropAfter-rest)
			}
		}
		o.mu.Unlock()
		if victim != nil {
			victim.drop()
			continue
		}
		if !now.Before(deadline) {
			return nil, errBusy
		}
		timer := time.NewTimer(again)
		select {
		case <-freed:
		case <-timer.C:
		case <-gone:
			timer.Stop()
			return nil, context.Canceled
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// oldest is the parcel that has not moved for longest, of those not dropped yet.
// The caller holds mu.
func (o *outbox) oldest() (oldest *parcel) {
	for p := range o.parcels {
		if !p.done && (oldest == nil || p.moved.Load() < oldest.moved.Load()) {
			oldest = p
		}
	}
	return oldest
}

// give gives back what a parcel took. Once.
func (o *outbox) give(p *parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.free += p.n
	if p.done {
		o.dropping -= p.n
	}
	delete(o.parcels, p)
	close(o.freed)
	o.freed = make(chan struct{})
}

// touch notes that the peer has taken something. A nil parcel takes no notice.
func (p *parcel) touch() {
	if p != nil {
		p.moved.Store(time.Now().UnixNano())
	}
}

func (p *parcel) idle(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, p.moved.Load()))
}
