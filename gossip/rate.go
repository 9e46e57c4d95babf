package gossip

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// Rate bounds what one peer may send on a topic: new messages only, for copies of
// what was seen cost next to nothing. What is above it is ignored before Validate
// or any queue sees it: nobody is at fault, for a neighbour passes on what others
// made. Zero is no bound.
type Rate struct {
	Messages int // a second
	Bytes    int // of payloads, a second
	// Burst is how much may come at once after a pause: that many seconds' worth,
	// and always one message of the largest size; default 10.
	Burst int
}

const (
	defaultBurst = 10
	maxBurst     = 3600
	// maxRated is how many peers have buckets of their own. A peer whose buckets
	// are full again is forgotten when room is needed, which changes nothing for
	// it; if all of so many have just sent something, the next ones share theirs.
	maxRated = 1024
)

func (r *Rate) complete() error {
	if r.Burst == 0 {
		r.Burst = defaultBurst
	}
	if r.Messages < 0 || r.Bytes < 0 || r.Burst < 1 || r.Burst > maxBurst {
		return fmt.Errorf("rate %d messages and %d bytes a second, burst %d s: want none negative, burst 1 to %d", r.Messages, r.Bytes, r.Burst, maxBurst)
	}
	return nil
}

// buckets are what a peer has left.
type buckets struct{ messages, bytes *rate.Limiter }

func (b buckets) full(now time.Time) bool {
	return b.messages.TokensAt(now) >= float64(b.messages.Burst()) && b.bytes.TokensAt(now) >= float64(b.bytes.Burst())
}

// meter applies a Rate to peers.
type meter struct {
	rate    Rate
	largest int // message

	mu     sync.Mutex // guards what follows, held for a few map accesses, rarely maxRated
	peers  map[peer.ID]buckets
	shared buckets
	swept  time.Time
}

func newMeter(r Rate, largest int) *meter {
	m := &meter{rate: r, largest: largest, peers: make(map[peer.ID]buckets)}
	m.shared = m.fresh()
	return m
}

func (m *meter) fresh() buckets {
	b := buckets{rate.NewLimiter(rate.Inf, 0), rate.NewLimiter(rate.Inf, 0)}
	if n := m.rate.Messages; n > 0 {
		b.messages = rate.NewLimiter(rate.Limit(n), max(1, n*m.rate.Burst))
	}
	if n := m.rate.Bytes; n > 0 {
		b.bytes = rate.NewLimiter(rate.Limit(n), max(m.largest, n*m.rate.Burst))
	}
	return b
}

// allow takes a message of a peer from what it has left; false: it has not enough.
func (m *meter) allow(from peer.ID, bytes int, now time.Time) bool {
	if m.rate.Messages == 0 && m.rate.Bytes == 0 {
		return true
	}
	b := m.of(from, now)
	// Bytes first: who has spent them on few large messages may still not go on
	// with many small ones, and the other way round.
	return b.bytes.AllowN(now, bytes) && b.messages.AllowN(now, 1)
}

func (m *meter) of(from peer.ID, now time.Time) buckets {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.peers[from]
	if ok {
		return b
	}
	if len(m.peers) >= maxRated && now.Sub(m.swept) >= time.Second {
		m.swept = now
		for id, b := range m.peers {
			if b.full(now) {
				delete(m.peers, id)
			}
		}
	}
	if len(m.peers) >= maxRated {
		return m.shared
	}
	b = m.fresh()
	m.peers[from] = b
	return b
}

// line is what waits for a Validate call of a topic, or has its turn. pubsub's
// throttle bounds the number of messages in it.
type line struct {
	share, mostBytes int // messages of one peer; bytes of all

	mu    sync.Mutex // guards what follows, held for a few map accesses
	count int
	bytes int
	of    map[peer.ID]int
}

// join counts a message in, unless it may not wait; else leave must follow.
func (l *line) join(from peer.ID, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[from] >= l.share || l.count > 0 && l.bytes+bytes > l.mostBytes {
		return false
	}
	l.count++
	l.bytes += bytes
	l.of[from]++
	return true
}

func (l *line) leave(from peer.ID, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count--
	l.bytes -= bytes
	if l.of[from]--; l.of[from] == 0 {
		delete(l.of, from)
	}
}
