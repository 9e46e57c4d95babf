package discovery_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// A line of four that look for nobody stays a line: each is connected to whom it was told, and to who was told of it.
// A stranger that finds nodes by itself may connect to one, and learns of no other there.
func TestClosedDialsNobodyElse(t *testing.T) {
	inSim(t, func(s *sim) {
		closed := func(to *node) func(*discovery.Options) {
			return func(o *discovery.Options) {
				o.Closed = true
				if to != nil {
					o.Persistent = []ma.Multiaddr{addr(to.host)}
				}
			}
		}
		a := s.start(simIP(0), closed(nil))
		b := s.start(simIP(1), closed(a))
		c := s.start(simIP(2), closed(b))
		d := s.start(simIP(3), closed(c))
		open := s.start(simIP(4), knows(addr(a.host)))
		line := []*node{a, b, c, d}
		s.Pass(5 * time.Minute)
		for i, want := range []int{2, 2, 2, 1} {
			if got := len(line[i].host.Network().Peers()); got != want {
				t.Errorf("node %d has %d peers, want %d", i, got, want)
			}
		}
		if got := len(open.host.Network().Peers()); got != 1 {
			t.Errorf("the stranger has %d peers", got)
		}
		// What was cut comes back.
		if err := c.host.Network().ClosePeer(b.host.ID()); err != nil {
			t.Fatal(err)
		}
		s.Pass(2 * time.Minute)
		if got := len(c.host.Network().Peers()); got != 2 {
			t.Errorf("after a cut: %d peers", got)
		}
		// One that is added is dialled.
		if err := d.disc.AddPeer(peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Addrs()}, false); err != nil {
			t.Fatal(err)
		}
		s.Pass(time.Minute)
		if got := len(d.host.Network().Peers()); got != 2 {
			t.Errorf("with an added peer: %d peers", got)
		}
		stopAll(append(line, open))
	})
}
