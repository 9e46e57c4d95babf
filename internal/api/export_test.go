package api

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// KeepEvents publishes n events with so many bytes of data each and tells how many are kept, and what they take by
// the broker's account.
func KeepEvents(n, size int) (kept, account int, err error) {
	b := newBroker(1, time.Now)
	for range n {
		if _, err := b.publish(EventWallet, strings.Repeat("x", size-2)); err != nil { // and quotes
			return 0, 0, err
		}
	}
	r := b.rings[EventWallet]
	all := r.since(0, b.id)
	for i, e := range all {
		if want := uint64(n - len(all) + i + 1); len(e.Data) != size || e.number != want || e.ID != b.id(want) || e.Type != EventWallet || e.Time.IsZero() {
			return 0, 0, fmt.Errorf("event %d of %d bytes: %+v", want, len(e.Data), e)
		}
	}
	if want := uint64(n - len(all)); r.gone != want {
		return 0, 0, fmt.Errorf("event %d is the last that is gone, told %d", want, r.gone)
	}
	return len(all), r.ring.Size(), nil
}

// Limits of the events.
const (
	RingEvents    = ringEvents
	RingBytes     = ringBytes
	MaxEventBytes = maxEventBytes
)

// addressed is a connection that has an address and nothing else.
type addressed struct {
	net.Conn

	from string
}

// Crowd lets connections from addresses into a gate and tells who had to make room, and how many are in.
func Crowd(most int, from ...string) string {
	g := newGate(nil, most)
	out := "ended "
	for _, f := range from {
		n := &gated{Conn: addressed{from: f}, gate: g, from: source(f)}
		if n.from.Addr().IsLoopback() {
			n.from = source("")
		}
		if victim, _ := g.enter(n); victim != nil {
			a, _ := victim.Conn.(addressed)
			out += a.from
		}
	}
	now, _, _ := g.stats()
	return fmt.Sprintf("%s, %d in", out, now[waiting])
}
