package logs

import (
	"sync"
	"time"
)

// overflowKey counts the keys that found no room. It starts with a NUL so that
// no caller's key is equal to it.
const overflowKey = "\x00others"

// Limiter says how often something may be logged: at most n times an interval
// for each key. It holds at most maxKeys keys, however many a peer makes up;
// those that find no room share one more. Safe for concurrent use.
//
//	if n, ok := limiter.Allow(id.String()); ok {
//		logger.Info("peer connected", "peer", id, "suppressed", n)
//	}
type Limiter struct {
	n        int
	interval time.Duration
	maxKeys  int

	mu        sync.Mutex // guards what follows; held for a map access, and for a sweep once an interval at most
	keys      map[string]*window
	nextSweep time.Time
}

// window is one key's current interval.
type window struct {
	end        time.Time
	used       int
	suppressed int // since the last call that was allowed
}

// NewLimiter makes a limiter of n lines an interval and key, for up to maxKeys
// keys. Values below 1 count as 1, an interval below 1 as a second.
func NewLimiter(n int, interval time.Duration, maxKeys int) *Limiter {
	if interval <= 0 {
		interval = time.Second
	}
	return &Limiter{n: max(n, 1), interval: interval, maxKeys: max(maxKeys, 1), keys: make(map[string]*window)}
}

// Allow reports whether a line for key may be written now, and how many were
// refused since the last that was.
func (l *Limiter) Allow(key string) (suppressed int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.window(key, now)
	if !now.Before(w.end) {
		w.end, w.used = now.Add(l.interval), 0
	}
	if w.used >= l.n {
		w.suppressed++
		return 0, false
	}
	w.used++
	suppressed, w.suppressed = w.suppressed, 0
	return suppressed, true
}

// Suppressed returns how many lines were refused and not yet reported by an
// allowed line of the same key, and forgets them: for a closing line.
func (l *Limiter) Suppressed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, w := range l.keys {
		total += w.suppressed
		w.suppressed = 0
	}
	return total
}

// window finds or makes the key's window. Call with mu held.
func (l *Limiter) window(key string, now time.Time) *window {
	if w, ok := l.keys[key]; ok {
		return w
	}
	if len(l.keys) >= l.maxKeys && !now.Before(l.nextSweep) {
		l.sweep(now)
	}
	if len(l.keys) >= l.maxKeys {
		key = overflowKey
		if w, ok := l.keys[key]; ok {
			return w
		}
	}
	w := new(window)
	l.keys[key] = w
	return w
}

// sweep removes the keys whose interval is over; what they refused and nobody
// was told moves to the shared key. Call with mu held.
func (l *Limiter) sweep(now time.Time) {
	lost := 0
	for k, w := range l.keys {
		if k != overflowKey && !now.Before(w.end) {
			lost += w.suppressed
			delete(l.keys, k)
		}
	}
	if lost > 0 {
		w := l.keys[overflowKey]
		if w == nil {
			w = new(window)
			l.keys[overflowKey] = w
		}
		w.suppressed += lost
	}
	l.nextSweep = now.Add(l.interval)
}
