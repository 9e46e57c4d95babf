package discovery_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
	"dunlin/internal/simnet"
)

// Two halves of a network that could not reach each other for five minutes are joined again within seconds.
func TestHalvesFindEachOther(t *testing.T) {
	t.Run("4 nodes", func(t *testing.T) { halves(t, 4, 8, 7*time.Second) })
}

// halves runs a network of so many nodes that want so many outbound peers, has it fall into halves, and reports how long
// after the line was back the first connection between them was there.
func halves(t *testing.T, size, outbound int, within time.Duration) {
	t.Helper()
	inSim(t, func(s *sim) {
		var nodes []*node
		var hosts []*simnet.Host
		for i := range size {
			h := s.host(simIP(i))
			hosts = append(hosts, h)
			nodes = append(nodes, s.startOn(h, func(o *discovery.Options) {
				o.MaxOutbound = outbound
				if i > 0 {
					knows(addr(nodes[0].host))(o)
				}
			}))
		}
		s.atLeast(nodes, 3, 5*time.Second)
		s.Pass(time.Minute)
		left, right := nodes[:size/2], nodes[size/2:]
		joined := func() bool {
			for _, n := range left {
				for _, other := range right {
					if n.host.Network().Connectedness(other.host.ID()) == network.Connected {
						return true
					}
				}
			}
			return false
		}
		s.Partition(hosts[:size/2], hosts[size/2:])
		s.Pass(5 * time.Minute)
		if joined() {
			t.Fatal("they are not apart")
		}
		s.Heal()
		took, met := s.Until(within, joined)
		if !met {
			t.Errorf("not joined within %s", within)
		}
		t.Logf("the halves met %s after the line was back", took)
		// They grow together: who is back has its place again.
		s.Pass(2 * time.Minute)
		crossing := func(n *node, others []*node) bool {
			for _, other := range others {
				for _, c := range n.host.Network().ConnsToPeer(other.host.ID()) {
					if time.Since(c.Stat().Opened) > time.Minute {
						return true
					}
				}
			}
			return false
		}
		together := 0
		for _, n := range nodes[:size/2] {
			if crossing(n, right) {
				together++
			}
		}
		if together < max(1, size/8) {
			t.Errorf("after two minutes %d of %d nodes of one half have had a peer of the other for one", together, size/2)
		}
		t.Logf("after two minutes %d of %d nodes have a lasting peer of the other half", together, size/2)
		stopAll(nodes)
	})
}

// TestOwnPeersAreNotLetGo: a persistent peer that was found again by a feeler stays, though there are as many outbound peers as are wanted
// without it; another one goes.
func TestOwnPeersAreNotLetGo(t *testing.T) {
	inSim(t, func(s *sim) {
		own, others := s.host(simIP(1)), []*simnet.Host{s.host(simIP(2)), s.host(simIP(3))}
		n := s.start(simIP(0), func(o *discovery.Options) {
			o.MaxOutbound, o.Persistent = 1, []ma.Multiaddr{own.Addr()}
		})
		for _, h := range others {
			if err := n.host.Connect(s.Context(), h.Info()); err != nil {
				t.Fatal(err)
			}
		}
		connected := func(h *simnet.Host) bool { return n.host.Network().Connectedness(h.ID()) == network.Connected }
		if _, met := s.Until(time.Minute, func() bool { return connected(own) }); !met {
			t.Fatal("the persistent peer was not dialled")
		}
		var ended atomic.Bool
		n.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
			if c.RemotePeer() == own.ID() {
				ended.Store(true)
			}
		}})
		n.disc.LetGo(s.Context(), own.ID())
		n.disc.LetGo(s.Context(), others[0].ID())
		if _, met := s.Until(time.Minute, func() bool { return !connected(others[0]) }); !met {
			t.Error("the other peer stays: the test proves nothing")
		}
		if ended.Load() || !connected(own) {
			t.Error("the persistent peer was sent away")
		}
		stopAll([]*node{n})
	})
}

// TestRestEndsWhenNobodyIsLeft: a peer at rest is not dialled while there is another one, and is when there is none; rest shortens no avoidance.
func TestRestEndsWhenNobodyIsLeft(t *testing.T) {
	inSim(t, func(s *sim) {
		resting, shunned, other := s.host(simIP(1)), s.host(simIP(2)), s.host(simIP(3))
		n := s.start(simIP(0), knows(resting.Addr(), shunned.Addr()))
		connected := func(h *simnet.Host) bool { return n.host.Network().Connectedness(h.ID()) == network.Connected }
		if _, met := s.Until(time.Minute, func() bool { return connected(resting) && connected(shunned) }); !met {
			t.Fatal("the bootstrap peers were not dialled")
		}
		if err := other.Connect(s.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		n.disc.Avoid(shunned.ID(), 24*time.Hour, "harm")
		for _, h := range []*simnet.Host{resting, shunned} {
			n.disc.Rest(h.ID(), 20*time.Minute, "replaced")
			if err := n.host.Network().ClosePeer(h.ID()); err != nil {
				t.Fatal(err)
			}
		}
		if _, met := s.Until(5*time.Minute, func() bool { return connected(resting) || connected(shunned) }); met {
			t.Error("dialled at rest")
		}
		if err := n.host.Network().ClosePeer(other.ID()); err != nil {
			t.Fatal(err)
		}
		if _, met := s.Until(10*time.Minute, func() bool { return connected(resting) }); !met {
			t.Error("nobody is left, and the peer at rest is not dialled")
		}
		if _, met := s.Until(30*time.Minute, func() bool { return connected(shunned) }); met {
			t.Error("rest shortened an avoidance")
		}
		stopAll([]*node{n})
	})
}

// TestNoComingBack: peers that answered and hung up at once were never ours. They are not dialled over and over, and if they stay, they stay in the
// stead of nobody: else who is dialled by a walk and hangs up could push out those that we chose.
func TestNoComingBack(t *testing.T) {
	for _, stays := range []bool{false, true} {
		t.Run(fmt.Sprintf("stays=%v", stays), func(t *testing.T) { inSim(t, func(s *sim) { noComingBack(s, stays) }) })
	}
}

func noComingBack(s *sim, stays bool) {
	t := s.t
	const many, most = 40, 2
	n := s.start(simIP(0), func(o *discovery.Options) { o.MaxOutbound = most })
	var stay atomic.Bool
	var dials atomic.Int64
	for i := range many {
		h := servesPeers(s, 1+i)
		h.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
			if dials.Add(1); stay.Load() {
				return
			}
			s.Go(func(ctx context.Context) {
				select {
				case <-time.After(500 * time.Millisecond): // of virtual time; identify is through
				case <-ctx.Done():
				}
				_ = c.Close()
			})
		}})
		if err := n.host.Connect(s.Context(), h.Info()); err != nil {
			t.Fatal(err)
		}
	}
	s.Pass(10 * time.Second)
	var honest []*simnet.Host
	for i := range most {
		h := servesPeers(s, 1+many+i)
		honest = append(honest, h)
		n.disc.Learn(time.Now(), h.Info(), discovery.SourceDNS)
	}
	has := func() bool {
		return !slices.ContainsFunc(honest, func(h *simnet.Host) bool { return n.host.Network().Connectedness(h.ID()) != network.Connected })
	}
	if _, met := s.Until(10*time.Minute, has); !met {
		t.Fatal("the honest ones were not dialled")
	}
	stay.Store(stays)
	dials.Store(0)
	s.Pass(20 * time.Minute)
	if got := dials.Load(); got > many {
		t.Errorf("%d dials in 20 minutes", got)
	}
	if !has() {
		t.Error("one that we had was disconnected for another that had hung up")
	}
	stopAll([]*node{n})
}

// TestAllComeBack: peers that were away come back one after the other while each is still looked at; in the end there are as many as are asked
// for, and those that were away among them.
func TestAllComeBack(t *testing.T) {
	const most = 8
	inSim(t, func(s *sim) {
		self := s.host(simIP(0))
		n := s.startOn(self, func(o *discovery.Options) { o.MaxOutbound = most })
		learn := func(from int) (hosts []*simnet.Host) { // a few more peers
			for i := range most {
				h := servesPeers(s, from+i)
				hosts = append(hosts, h)
				n.disc.Learn(time.Now(), h.Info(), discovery.SourceDNS)
			}
			return hosts
		}
		connected := func(hosts []*simnet.Host) (c int) {
			for _, h := range hosts {
				if self.Network().Connectedness(h.ID()) == network.Connected {
					c++
				}
			}
			return c
		}
		away := learn(1)
		if _, met := s.Until(5*time.Minute, func() bool { return connected(away) == most }); !met {
			t.Fatal("the first were not dialled")
		}
		s.Pass(time.Minute)
		s.Partition(away)
		if _, met := s.Until(5*time.Minute, func() bool { return connected(away) == 0 }); !met {
			t.Fatal("they are not away")
		}
		learn(1 + most)
		s.Pass(5 * time.Minute)
		if st := n.disc.Stats(); st.Outbound != most || connected(away) != 0 {
			t.Fatalf("%d outbound peers, %d of them away", st.Outbound, connected(away))
		}
		s.Heal()
		s.Pass(3 * time.Minute)
		if st := n.disc.Stats(); st.Outbound != most || connected(away) != most {
			t.Errorf("%d outbound peers, %d of them were away", st.Outbound, connected(away))
		}
		stopAll([]*node{n})
	})
}

// servesPeers starts a host that speaks our protocol and knows nobody.
func servesPeers(s *sim, i int) *simnet.Host {
	h := s.host(simIP(i))
	h.SetStreamHandler(simNamespace+"/peers/1", func(st network.Stream) { _ = st.Reset() })
	return h
}
