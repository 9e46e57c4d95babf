package discovery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/discovery"
	"dunlin/internal/simnet"
)

// Walks of the DHT dial most of a small network. What they leave is closed but for the outbound peers that are wanted, while the DHT
// works on: the routing table keeps the peers, records are renewed, and nobody searches in the place of those that were closed.
func TestConnectionsOfTheDHT(t *testing.T) {
	for _, private := range []bool{true, false} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) { connectionsOfTheDHT(t, private) })
	}
}

func connectionsOfTheDHT(t *testing.T, private bool) {
	t.Helper()
	const size, most, soon = 14, 3, 30 * time.Second
	inSim(t, func(s *sim) {
		var nodes []*node
		for i := range size {
			nodes = append(nodes, s.start(simIP(i), func(o *discovery.Options) {
				o.Private, o.MaxOutbound = private, most
				if i > 0 {
					knows(addr(nodes[0].host))(o)
				}
			}))
		}
		outbound := func(n *node, age time.Duration) int {
			peers := map[peer.ID]bool{}
			for _, c := range n.host.Network().Conns() {
				if c.Stat().Direction == network.DirOutbound && time.Since(c.Stat().Opened) >= age {
					peers[c.RemotePeer()] = true
				}
			}
			return len(peers)
		}
		walked := 0
		for range 6 * 60 { // the second half has walks that renew records, and search
			s.Pass(time.Second)
			for i, n := range nodes {
				walked = max(walked, outbound(n, 0))
				if got := outbound(n, soon); got > most {
					t.Fatalf("node %d has %d outbound peers for more than %s, and wants %d", i, got, soon, most)
				}
			}
		}
		if walked <= 2*most {
			t.Errorf("the DHT dialled %d peers at most: the test proves nothing", walked)
		}
		for i, n := range nodes {
			if st := n.disc.Stats(); i > 0 && st.Outbound < most || st.RoutingTable < size/2 || st.Advert.At.IsZero() {
				t.Errorf("node %d: %+v", i, st)
			}
		}
		stopAll(nodes)
	})
}

// What the application connected, and what the connection manager was told to protect, stays.
func TestConnectionsOfOthersStay(t *testing.T) {
	inSim(t, func(s *sim) {
		var hosts []*simnet.Host
		var nodes []*node
		for i := range 10 {
			hosts = append(hosts, s.host(simIP(i)))
		}
		n := hosts[9]
		if err := n.Connect(s.Context(), hosts[3].Info()); err != nil {
			t.Fatal(err)
		}
		var protected peer.ID
		for i, h := range hosts {
			nodes = append(nodes, s.startOn(h, func(o *discovery.Options) {
				if o.MaxOutbound = 1; i > 0 {
					knows(addr(hosts[0]))(o)
				}
			}))
		}
		outbound := func(id peer.ID) bool {
			for _, c := range n.Network().ConnsToPeer(id) {
				if c.Stat().Direction == network.DirOutbound {
					return true
				}
			}
			return false
		}
		if _, met := s.Until(10*time.Second, func() bool {
			for _, h := range hosts[4:9] {
				if protected == "" && outbound(h.ID()) {
					protected = h.ID()
				}
			}
			return protected != ""
		}); !met {
			t.Fatal("the DHT dialled nobody: the test proves nothing")
		}
		n.ConnManager().Protect(protected, "test")
		s.Pass(2 * time.Minute)
		if !outbound(hosts[3].ID()) {
			t.Error("what the application had connected was closed")
		}
		if !outbound(protected) {
			t.Error("a protected peer was disconnected")
		}
		if _, met := s.Until(time.Minute, func() bool { return nodes[9].disc.Stats().Outbound <= 3 }); !met {
			t.Errorf("%d outbound peers: those two, and one is asked for", nodes[9].disc.Stats().Outbound)
		}
		stopAll(nodes)
	})
}

// Dials of the DHT that fail leave nothing behind, and nothing that they do makes a connection be forgotten that is still being made.
func TestDialsOfTheDHTThatFail(t *testing.T) {
	inSim(t, func(s *sim) {
		far := s.host(simIP(1))
		n := s.start(simIP(0), func(o *discovery.Options) { o.MaxOutbound = -1 })
		h := n.disc.DHTHost()
		s.Go(func(ctx context.Context) {
			if err := h.Connect(ctx, far.Info()); err != nil {
				t.Error(err)
			}
		})
		connected := func() bool { return h.Network().Connectedness(far.ID()) == network.Connected }
		for _, id := range testPeers(t, 5000) { // nobody knows where they are: this takes no time
			if _, err := h.NewStream(s.Context(), id, "/none"); err == nil {
				t.Fatal("reached")
			}
		}
		if connected() {
			t.Fatal("connected too soon: the test proves nothing")
		}
		if _, met := s.Until(10*time.Second, connected); !met {
			t.Fatal("not connected")
		}
		if peers, _ := n.disc.Queried(); peers != 1 {
			t.Errorf("%d peers are noted", peers)
		}
		if _, met := s.Until(30*time.Second, func() bool { return !connected() }); !met {
			t.Error("the connection stays")
		}
		s.Pass(time.Second)
		if peers, closing := n.disc.Queried(); peers+closing != 0 {
			t.Errorf("%d peers and %d connections are noted still", peers, closing)
		}
		stopAll([]*node{n})
	})
}
