package api

import (
	"fmt"
	"net"
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
