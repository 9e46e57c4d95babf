package discovery_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	relayclient "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

const testID = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

func TestRelayedAddresses(t *testing.T) {
	via := func(at string) string { return at + "/p2p/" + testID + "/p2p-circuit" }
	for name, c := range map[string]struct {
		in, public, private []string
	}{
		"direct ones first": {
			[]string{via("/ip4/20.0.0.1/tcp/1") + "/p2p/" + testID, "/ip4/20.0.0.2/tcp/1"},
			[]string{"/ip4/20.0.0.2/tcp/1", via("/ip4/20.0.0.1/tcp/1")},
			[]string{"/ip4/20.0.0.2/tcp/1", via("/ip4/20.0.0.1/tcp/1")},
		},
		"a relay with a private address": {[]string{via("/ip4/10.0.0.1/tcp/1")}, nil, []string{via("/ip4/10.0.0.1/tcp/1")}},
		"no relay that can be dialled": {
			[]string{via("/ip4/0.0.0.0/tcp/1"), via("/ip4/224.0.0.1/tcp/1"), via("/dns4/x.test/tcp/1"), "/p2p/" + testID + "/p2p-circuit", "/ip4/20.0.0.1/tcp/1/p2p-circuit"},
			nil, nil,
		},
		"two in a row": {[]string{via(via("/ip4/20.0.0.1/tcp/1"))}, nil, nil},
		"too many": {
			[]string{via("/ip4/20.0.0.1/tcp/1"), via("/ip4/20.0.0.1/tcp/2"), via("/ip4/20.0.0.1/tcp/3"), via("/ip4/20.0.0.1/tcp/4"), via("/ip4/20.0.0.1/tcp/5")},
			[]string{via("/ip4/20.0.0.1/tcp/1"), via("/ip4/20.0.0.1/tcp/2"), via("/ip4/20.0.0.1/tcp/3"), via("/ip4/20.0.0.1/tcp/4")},
			[]string{via("/ip4/20.0.0.1/tcp/1"), via("/ip4/20.0.0.1/tcp/2"), via("/ip4/20.0.0.1/tcp/3"), via("/ip4/20.0.0.1/tcp/4")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var in []ma.Multiaddr
			for _, s := range c.in {
				in = append(in, ma.StringCast(s))
			}
			for private, want := range map[bool][]string{false: c.public, true: c.private} {
				var got []string
				keep, _ := discovery.Usable(in, private)
				for _, a := range keep {
					got = append(got, a.String())
				}
				if !slices.Equal(got, want) {
					t.Errorf("private %v: got %q, want %q", private, got, want)
				}
				for _, a := range discovery.Dialable(in, private) {
					if strings.Contains(a.String(), "circuit") {
						t.Errorf("tells %s", a)
					}
				}
			}
		})
	}
}

// Whoever has one address and a relay gets no more places for its peer ids than without the relay.
func TestRelayedPeersAreOneGroup(t *testing.T) {
	filled := func(addr string) int {
		d := newDiscovery(t, discovery.Options{})
		for i, id := range testPeers(t, 3000) {
			d.LearnFrom(time.Now(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(addr)}}, discovery.SourcePeers, fmt.Sprint(i%2))
		}
		return d.Stats().Book
	}
	direct := filled("/ip4/20.0.0.1/tcp/1")
	relayed := filled("/ip4/20.0.0.1/tcp/1/p2p/" + testID + "/p2p-circuit")
	// Which places are free is drawn: allow for that.
	if direct == 0 || relayed > direct+direct/2+16 {
		t.Errorf("%d places for direct addresses, %d for relayed ones", direct, relayed)
	}
}

// A peer that can only be reached through a relay is dialled if the host punches holes, and counts as no peer while there is no hole.
func TestRelayedOnly(t *testing.T) {
	newHost := func(opts ...libp2p.Option) host.Host {
		h, err := libp2p.New(append(opts, libp2p.DisableMetrics(), libp2p.ForceReachabilityPublic())...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	listen := libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")
	by := newHost(listen)
	r, err := relay.New(by)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	behind := newHost(libp2p.NoListenAddrs, libp2p.EnableRelay())
	at := peer.AddrInfo{ID: by.ID(), Addrs: by.Addrs()}
	if err := behind.Connect(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if _, err := relayclient.Reserve(t.Context(), behind, at); err != nil {
		t.Fatal(err)
	}
	via := ma.StringCast(fmt.Sprintf("%s/p2p/%s/p2p-circuit", by.Addrs()[0], by.ID()))
	for _, punch := range []bool{false, true} {
		t.Run(fmt.Sprint("hole punching ", punch), func(t *testing.T) {
			h := newHost(listen)
			d, err := discovery.New(discovery.Options{Host: h, Namespace: simNamespace, Private: true, HolePunch: punch})
			if err != nil {
				t.Fatal(err)
			}
			d.SetPunchFor(200 * time.Millisecond)
			if !d.Learn(time.Now(), peer.AddrInfo{ID: behind.ID(), Addrs: []ma.Multiaddr{via}}, discovery.SourcePeers) {
				t.Fatal("not in the book")
			}
			runDiscovery(t, d)
			if !punch {
				// The dialler has looked when it has dialled another one, learned later.
				if err := d.AddPeer(at, false); err != nil {
					t.Fatal(err)
				}
				eventually(t, patience, "the relay itself is dialled", func() bool { return h.Network().Connectedness(by.ID()) == network.Connected })
				if s := d.Stats(); s.Sources[discovery.SourcePeers].Dialed != 0 || h.Network().Connectedness(behind.ID()) != network.NotConnected {
					t.Errorf("%+v", s.Sources[discovery.SourcePeers])
				}
				return
			}
			eventually(t, patience, "the dial has failed for want of a hole", func() bool { return d.Stats().Failures["relayed_only"] > 0 })
			eventually(t, patience, "the relayed connection is ended", func() bool { return h.Network().Connectedness(behind.ID()) == network.NotConnected })
			if s := d.Stats(); s.Tried != 0 {
				t.Errorf("%d peers count as reached", s.Tried)
			}
		})
	}
}

// lan is a local network in memory.
type lan struct {
	mu    sync.Mutex
	plugs []*lanPlug
}

type lanPlug struct {
	lan    *lan
	ip     netip.Addr
	in     chan []byte
	closed chan struct{}
	once   sync.Once
}

func (l *lan) plug(ip netip.Addr) *lanPlug {
	p := &lanPlug{lan: l, ip: ip, in: make(chan []byte, 10_000), closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plugs = append(l.plugs, p)
	return p
}

func (p *lanPlug) Read(b []byte) (int, netip.Addr, error) {
	select {
	case x := <-p.in:
		return copy(b, x), p.ip, nil
	case <-p.closed:
		return 0, netip.Addr{}, errors.New("closed")
	}
}

func (p *lanPlug) Write(b []byte) error {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	for _, q := range p.lan.plugs {
		select {
		case q.in <- slices.Clone(b):
		default:
		}
	}
	return nil
}

func (*lanPlug) OnLink(ip netip.Addr) bool {
	return !ip.IsLoopback() && ip != netip.MustParseAddr("8.8.8.8")
}

func (p *lanPlug) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// onLAN runs a discovery that has no other source than the local network.
func (s *sim) onLAN(l *lan, i int, namespace string) *node {
	s.t.Helper()
	h := s.host(simIP(i))
	d, err := discovery.New(discovery.Options{Host: h, Namespace: namespace, Private: true, MDNS: true})
	if err != nil {
		s.t.Fatal(err)
	}
	d.SetInterfaces(l.plug(simIP(i)))
	return s.run(h, d)
}

func TestMDNS(t *testing.T) {
	inSim(t, func(s *sim) {
		l := &lan{}
		var nodes []*node
		for i := range 4 {
			nodes = append(nodes, s.onLAN(l, i, simNamespace))
		}
		other := s.onLAN(l, 4, "/dunlin/other-76543210")
		defer func() { stopAll(append(nodes, other)) }()
		took := s.atLeast(nodes, 3, 10*time.Second)
		t.Logf("all connected after %s", took)
		found := uint64(0)
		for _, n := range nodes {
			found += n.disc.Stats().Sources[discovery.SourceMDNS].Found
		}
		if found < 6 { // of each two that meet, one has found the other
			t.Errorf("%d peers found by multicast DNS", found)
		}
		if n := other.disc.Stats(); n.Peers != 0 || n.Book != 0 {
			t.Errorf("another chain's node knows %d peers and has %d", n.Book, n.Peers)
		}
	})
}

// Whoever makes up peers on the local network fills neither the book nor the dialler's time, and sends nobody elsewhere.
func TestMDNSFlood(t *testing.T) {
	inSim(t, func(s *sim) {
		l := &lan{}
		a, b := s.onLAN(l, 0, simNamespace), s.onLAN(l, 1, simNamespace)
		defer stopAll([]*node{a, b})
		liar := l.plug(simIP(9))
		tell := func(i int, addr string, id peer.ID) {
			name := discovery.MDNSService(simNamespace) + ".local."
			m := new(dns.Msg)
			m.Response = true
			m.Answer = []dns.RR{&dns.TXT{
				Hdr: dns.RR_Header{Name: fmt.Sprintf("liar%d.%s", i, name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 120},
				Txt: []string{"dnsaddr=" + addr + "/p2p/" + id.String()},
			}}
			raw, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			_ = liar.Write(raw)
		}
		s.atLeast([]*node{a, b}, 1, 10*time.Second)
		ids := testPeers(t, 1500)
		start := time.Now()
		for i, id := range ids[:500] {
			tell(i, "/ip4/8.8.8.8/udp/1/quic-v1", id)
			tell(i, "/ip4/127.0.0.1/udp/1/quic-v1", id)
			time.Sleep(20 * time.Millisecond)
		}
		if n := a.disc.Stats().Book; n > 1 {
			t.Errorf("%d peers are known, of which nobody told from where they are", n)
		}
		for i, id := range ids[500:] {
			tell(i, fmt.Sprintf("/ip4/20.99.%d.%d/udp/1/quic-v1", i/250, 1+i%250), id)
			time.Sleep(300 * time.Millisecond)
		}
		limit := discovery.MDNSBurst + int(time.Since(start)/(2*time.Second)) + 2
		st := a.disc.Stats()
		if n := int(st.Sources[discovery.SourceMDNS].Found); n > limit {
			t.Errorf("%d made-up peers were listened to in %s, want at most %d", n, time.Since(start), limit)
		}
		if st.Book > discovery.MaxMDNS+2 {
			t.Errorf("%d peers are known", st.Book)
		}
		if st.Peers != 1 {
			t.Errorf("the honest neighbour is gone: %d peers", st.Peers)
		}
	})
}

func TestMDNSService(t *testing.T) {
	for namespace, want := range map[string]string{
		"/dunlin/testnet-0000a5c4":            "_dunlin-testnet-0000a5c4._udp",
		"/dunlin/x.y_z":                       "_dunlin-x-y-z._udp",
		"/dunlin/" + strings.Repeat("a", 100): "_dunlin-" + strings.Repeat("a", 55) + "._udp",
	} {
		if got := discovery.MDNSService(namespace); got != want {
			t.Errorf("%s: %s, want %s", namespace, got, want)
		}
	}
}
