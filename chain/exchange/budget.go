package exchange

import "sync"

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
