package discovery_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// The bootstrap node dies; a node that was there before finds the others by its
// book and its anchors alone.
func TestBootstrapDiesAndBookIsEnough(t *testing.T) {
	dir := t.TempDir()
	inSim(t, func(s *sim) {
		boot := s.start(simIP(0), nil)
		nodes := []*node{}
		for i := 1; i < 8; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(boot.host))))
		}
		from := addr(boot.host)
		old := s.start(simIP(20), func(o *discovery.Options) { o.Dir, o.Bootstrap = dir, []ma.Multiaddr{from} })
		s.atLeast(append(nodes, old), 4, 3*time.Second)
		s.Pass(10 * time.Second)
		old.stop()
		boot.stop()
		s.Pass(time.Minute)
		s.atLeast(nodes, 4, time.Second) // the mesh lives without the bootstrap

		again := s.start(simIP(20), func(o *discovery.Options) { o.Dir = dir })
		t.Logf("with a saved book it has 4 peers after %s", s.atLeast([]*node{again}, 4, 2*time.Second))
		st := again.disc.Stats()
		if st.Sources[discovery.SourceAnchor].Found == 0 || st.Sources[discovery.SourceAnchor].Dialed == 0 {
			t.Errorf("anchors were not dialled: %+v", st.Sources)
		}
		stopAll(append(nodes, again))
	})
}

// Nothing answers for more than a minute, and the log says so and why; then the
// source is there.
func TestLateSource(t *testing.T) {
	inSim(t, func(s *sim) {
		hosts := []*node{}
		first := s.host(simIP(0))
		full := addr(first)
		key := first.Peerstore().PrivKey(first.ID())
		_ = first.Close()
		var log logLines
		n := s.start(simIP(1), func(o *discovery.Options) {
			o.Bootstrap = []ma.Multiaddr{full}
			o.Logger = log.logger()
		})
		s.Pass(90 * time.Second)
		text := log.String()
		for _, want := range []string{`level=WARN msg="no peers" for_s=60`, "20.1.0.1:8000 timed out", "routing_table=0", "timeout="} {
			if !strings.Contains(text, want) {
				t.Errorf("the log does not have %s:\n%s", want, text)
			}
		}
		if c := strings.Count(text, `"no peers"`); c != 1 {
			t.Errorf("told %d times in 90 s", c)
		}
		hosts = append(hosts, s.startOn(s.hostWithKey(simIP(0), key), nil), n)
		t.Logf("connected %s after the source came", s.atLeast(hosts, 1, 15*time.Second))
		s.Pass(2 * time.Minute)
		if !strings.Contains(log.String(), "level=INFO msg=discovery dns=0/0 book=1 static=1") {
			t.Errorf("no line about the change:\n%s", log.String())
		}
		stopAll(hosts)
	})
}

// A node without any source says that, and not that something failed.
func TestNoSource(t *testing.T) {
	inSim(t, func(s *sim) {
		var log logLines
		n := s.start(simIP(0), func(o *discovery.Options) { o.Logger = log.logger() })
		s.Pass(17 * time.Minute)
		if !strings.Contains(log.String(), "waiting to be dialled") {
			t.Errorf("log:\n%s", log.String())
		}
		if c := strings.Count(log.String(), `"no peers"`); c != 5 { // 1, 2, 4, 8, 16 min
			t.Errorf("told %d times in 17 min", c)
		}
		n.stop()
	})
}

// A persistent peer is redialled beyond the target, a bootstrap peer is not.
func TestPersistentIsRedialled(t *testing.T) {
	inSim(t, func(s *sim) {
		a, b := s.start(simIP(0), nil), s.start(simIP(1), nil)
		n := s.start(simIP(2), func(o *discovery.Options) {
			o.MaxOutbound = 1
			o.Persistent = []ma.Multiaddr{addr(a.host), addr(b.host)}
		})
		s.atLeast([]*node{n}, 2, 2*time.Second)
		for range 3 {
			if err := n.host.Network().ClosePeer(a.host.ID()); err != nil {
				t.Fatal(err)
			}
			s.Pass(12 * time.Second) // others must not have dialled us for it
			if n.host.Network().Connectedness(a.host.ID()) != network.Connected {
				t.Fatal("not redialled")
			}
		}
		stopAll([]*node{a, b, n})
	})
}

// Whoever has removed what kept a peer away does not wait for the end of a pause that has grown meanwhile.
func TestDialStaticNow(t *testing.T) {
	inSim(t, func(s *sim) {
		key, _ := newKey(t)
		a := s.startOn(s.hostWithKey(simIP(0), key), nil)
		at := addr(a.host)
		n := s.start(simIP(2), func(o *discovery.Options) { o.Persistent = []ma.Multiaddr{at} })
		b := s.start(simIP(1), knows(addr(n.host))) // with another peer the pause is longer
		s.atLeast([]*node{n}, 2, 2*time.Second)
		a.stop()
		s.Pass(10 * time.Minute)
		n.disc.DialStaticNow() // too early: it fails, and the pause begins anew with a second
		s.Pass(100 * time.Millisecond)
		a = s.startOn(s.hostWithKey(simIP(0), key), nil)
		n.disc.DialStaticNow()
		t.Logf("connected after %s", s.atLeast([]*node{a}, 1, time.Second))
		stopAll([]*node{a, b, n})
	})
}

// A peer of another genesis is not dialled, by us nor by the DHT, until the time
// is over.
func TestAvoid(t *testing.T) {
	inSim(t, func(s *sim) {
		a := s.start(simIP(0), nil)
		n := s.start(simIP(1), knows(addr(a.host)))
		s.atLeast([]*node{n}, 1, 2*time.Second)
		a.disc.Avoid(n.host.ID(), 2*time.Hour, "other side")
		n.disc.Avoid(a.host.ID(), time.Hour, "wrong genesis")
		_ = n.host.Network().ClosePeer(a.host.ID())
		s.Pass(50 * time.Minute)
		if c := n.host.Network().Connectedness(a.host.ID()); c == network.Connected {
			t.Error("dialled within the hour")
		}
		s.Pass(12 * time.Minute)
		if c := n.host.Network().Connectedness(a.host.ID()); c != network.Connected {
			t.Errorf("not dialled after the hour: %+v", n.disc.Stats())
		}
		stopAll([]*node{a, n})
	})
}

func TestAddPeerIsDialledAtOnce(t *testing.T) {
	inSim(t, func(s *sim) {
		a, n := s.start(simIP(0), nil), s.start(simIP(1), nil)
		s.Pass(10 * time.Minute) // every pause has grown
		if err := n.disc.AddPeer(peer.AddrInfo{ID: a.host.ID(), Addrs: a.host.Addrs()}, false); err != nil {
			t.Fatal(err)
		}
		t.Logf("connected after %s", s.atLeast([]*node{a, n}, 1, time.Second))
		stopAll([]*node{a, n})
	})
}

// On a public network no more than two outbound peers of an IP group are dialled,
// while a private one takes them all.
func TestSpreadOverGroups(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) {
			inSim(t, func(s *sim) {
				// Hosts that are no DHT servers, so that only our own dials count.
				var infos []peer.AddrInfo
				var closeAll []func() error
				for g := range 4 {
					for i := range 6 {
						h := s.host(netip.AddrFrom4([4]byte{30, byte(g), 0, byte(i + 1)}))
						infos = append(infos, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
						closeAll = append(closeAll, h.Close)
					}
				}
				n := s.start(simIP(0), func(o *discovery.Options) { o.Private, o.MaxOutbound = private, 20 })
				for i, ai := range infos {
					// Each from a teller of its own: what one names of a group shares a bucket,
					// and two groups may have the same.
					n.disc.LearnFrom(time.Now(), ai, discovery.SourceDNS, fmt.Sprint(i))
				}
				s.Pass(time.Minute)
				groups := map[string]int{}
				for _, c := range n.host.Network().Conns() {
					groups[discovery.GroupOf(c.RemoteMultiaddr())]++
				}
				most, total := 0, 0
				for _, c := range groups {
					most, total = max(most, c), total+c
				}
				if !private && (most != 2 || total != 8) || private && total != 20 {
					t.Errorf("connections by group: %v; %+v", groups, n.disc.Stats())
				}
				n.stop()
				for _, c := range closeAll {
					_ = c()
				}
			})
		})
	}
}

// A public network of ten finds itself too, and feelers go out.
func TestPublicNetwork(t *testing.T) {
	inSim(t, func(s *sim) {
		var log logLines
		public := func(addrs ...ma.Multiaddr) func(*discovery.Options) {
			return func(o *discovery.Options) {
				o.Private, o.Bootstrap, o.MaxOutbound, o.Logger = false, addrs, 4, log.logger()
			}
		}
		nodes := []*node{s.start(simIP(0), public())}
		for i := 1; i < 10; i++ {
			nodes = append(nodes, s.start(simIP(i), public(addr(nodes[0].host), addr(nodes[i-1].host))))
		}
		t.Logf("10 nodes have 4 peers after %s", s.atLeast(nodes, 4, 3*time.Second))
		lone := peer.AddrInfo{ID: testPeers(t, 1)[0], Addrs: []ma.Multiaddr{ma.StringCast("/ip4/40.0.0.1/udp/8000/quic-v1")}}
		nodes[3].disc.Learn(time.Now(), lone, discovery.SourceDNS)
		s.Pass(150 * time.Second)
		if f := nodes[3].disc.Stats().Feelers; f == 0 {
			t.Errorf("no feeler: %+v", nodes[3].disc.Stats())
		}
		if !strings.Contains(log.String(), `source=dns reason="40.0.0.1:8000 timed out"`) {
			t.Errorf("the feeler's failure has no reason:\n%s", log.String())
		}
		stopAll(nodes)
	})
}

// What kad-dht stores ends in our capped datastore, under the key that is exempt
// from the limit in total.
func TestProvidersAreInTheCappedStore(t *testing.T) {
	inSim(t, func(s *sim) {
		nodes := []*node{s.start(simIP(0), nil)}
		for i := 1; i < 4; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(nodes[0].host))))
		}
		s.atLeast(nodes, 3, 3*time.Second)
		s.Pass(5 * time.Second)
		stopAll(nodes)
		for i, n := range nodes {
			if got := n.disc.StoredProviders(); got != 4 {
				t.Errorf("node %d stored %d records of the rendezvous, want 4", i, got)
			}
		}
	})
}

// TestAnchorsSurviveAKill: seconds after it has peers a node may be killed at any moment, and lose its book besides: the
// anchors alone bring it back, and are dialled first.
func TestAnchorsSurviveAKill(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	inSim(t, func(s *sim) {
		nodes := []*node{s.start(simIP(0), nil)}
		for i := 1; i < 8; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(nodes[0].host))))
		}
		victim := s.start(simIP(20), func(o *discovery.Options) {
			o.Bootstrap, o.Dir = []ma.Multiaddr{addr(nodes[0].host)}, dir
		})
		s.atLeast([]*node{victim}, 4, 5*time.Second)
		s.Pass(6 * time.Second)
		// What is on disk now is what a kill leaves.
		saved, err := os.ReadFile(filepath.Join(dir, "anchors.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		victim.stop()
		if err := os.WriteFile(filepath.Join(copied, "anchors.jsonl"), saved, 0o600); err != nil {
			t.Fatal(err)
		}
		nodes[0].stop() // who brought it in is gone
		again := s.start(simIP(21), func(o *discovery.Options) { o.Dir, o.MaxOutbound = copied, 4 })
		if got := again.disc.Stats().Sources[discovery.SourceAnchor].Found; got != 4 {
			t.Errorf("%d anchors, want 4", got)
		}
		t.Logf("a killed node has a peer after %s", s.atLeast([]*node{again}, 1, 2*time.Second))
		s.Pass(time.Second) // until identify is done
		if y := again.disc.Stats().Sources; y[discovery.SourceAnchor].Dialed == 0 || y[discovery.SourceAnchor].Connected == 0 {
			t.Errorf("the anchors were not dialled: %+v", y)
		}
		// They are kept until there are others: a kill before that costs nothing.
		if now, err := os.ReadFile(filepath.Join(copied, "anchors.jsonl")); err != nil || len(now) == 0 {
			t.Errorf("the anchors are gone from the disk: %v", err)
		}
		stopAll(append(nodes[1:], again))
	})
}
