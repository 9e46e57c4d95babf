package host_test

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/event"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"dunlin/internal/host"
)

// registered notes what is registered with it.
type registered struct {
	mu    sync.Mutex
	descs map[string]bool
}

func (r *registered) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.descs == nil {
		r.descs = map[string]bool{}
	}
	for d := range ch {
		r.descs[d.String()] = true
	}
	return nil
}

func (r *registered) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c)
	}
}

func (*registered) Unregister(prometheus.Collector) bool { return false }

func (r *registered) list() []string { return slices.Sorted(maps.Keys(r.descs)) }

// libp2pHost is what libp2p's own constructor makes of the options that New puts a host together from.
func libp2pHost(t *testing.T, o host.Options, h *host.Host) libhost.Host {
	t.Helper()
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.DefaultLimits.AutoScale()))
	if err != nil {
		t.Fatal(err)
	}
	cm, err := connmgr.NewConnManager(174, 180)
	if err != nil {
		t.Fatal(err)
	}
	learns := !o.Private || o.NAT || o.HolePunch
	options := []libp2p.Option{
		libp2p.Identity(o.Key), libp2p.UserAgent(o.Agent), libp2p.NoListenAddrs,
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.Transport(quic.NewTransport), libp2p.ResourceManager(rm), libp2p.ConnectionManager(cm), libp2p.AddrsFactory(h.Announce),
		libp2p.WithDialTimeout(10 * time.Second), libp2p.SwarmOpts(swarm.WithDialRanker(host.RankDials)),
		libp2p.NonPublicAddrPublishing(o.Private), libp2p.ForceReachabilityPublic(),
	}
	if learns {
		options = append(options, libp2p.Transport(tcp.NewTCPTransport))
	} else {
		options = append(options, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.DisableIdentifyAddressDiscovery())
	}
	if learns && len(o.Listen) > 0 {
		options = append(options, libp2p.EnableAutoNATv2(), libp2p.NATManager(func(n network.Network) basichost.NATManager { return h.NewMapper(n) }))
	}
	if o.HolePunch {
		options = append(options, libp2p.EnableRelay(), libp2p.EnableHolePunching())
		if o.Relays != nil {
			options = append(options, libp2p.EnableAutoRelayWithPeerSource(h.RelaySource, autorelay.WithNumRelays(2), autorelay.WithMinCandidates(1)))
		}
	}
	if o.WebSocket {
		options = append(options, libp2p.Transport(websocket.New))
	}
	if o.PrometheusRegisterer != nil {
		options = append(options, libp2p.PrometheusRegisterer(o.PrometheusRegisterer))
	} else {
		options = append(options, libp2p.DisableMetrics())
	}
	out, err := libp2p.New(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, a := range o.Listen {
		if err := out.Network().Listen(a); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestLikeLibp2p holds what New puts together against what libp2p's constructor makes of the same options: protocols that are answered,
// transports, metrics, first events.
func TestLikeLibp2p(t *testing.T) {
	for name, edit := range map[string]func(*host.Options){
		"private":          func(*host.Options) {},
		"private, metrics": func(o *host.Options) { o.PrometheusRegisterer = &registered{} },
		"public":           func(o *host.Options) { o.Private = false },
		"dials only":       func(o *host.Options) { o.Private, o.Listen, o.PrometheusRegisterer = false, nil, &registered{} },
		"WebSocket": func(o *host.Options) {
			o.WebSocket, o.Listen = true, append(o.Listen, addrs(t, "/ip4/127.0.0.1/tcp/0/ws")...)
		},
		"punches holes": func(o *host.Options) { o.HolePunch, o.PrometheusRegisterer = true, &registered{} },
		"public with relay": func(o *host.Options) {
			o.Private, o.HolePunch, o.PrometheusRegisterer = false, true, &registered{}
			o.Relays = func() []peer.ID { return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			var o host.Options
			ours := start(t, 1, func(p *host.Options) { edit(p); o = *p })
			mine := o.PrometheusRegisterer
			if mine != nil {
				o.PrometheusRegisterer = &registered{}
			}
			theirs := libp2pHost(t, o, ours)

			// A private host answers who asks where it can be reached, which libp2p's does not.
			answered := ours.Mux().Protocols()
			if o.Private && !o.HolePunch && len(o.Listen) > 0 {
				answered = slices.DeleteFunc(answered, func(id protocol.ID) bool { return id == autonatv2.DialProtocol || id == autonatv2.DialBackProtocol })
			}
			same(t, "protocols", answered, theirs.Mux().Protocols())
			for _, a := range addrs(t, "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/ws", "/p2p-circuit",
				"/ip4/1.2.3.4/udp/1/quic-v1/webtransport", "/ip4/1.2.3.4/udp/1/webrtc-direct") {
				a1, a2 := listener(t, ours, a), listener(t, theirs, a)
				if a1 != a2 {
					t.Errorf("transport of %s: %s, libp2p's %s", a, a1, a2)
				}
			}
			if len(ours.Network().ListenAddresses()) != len(theirs.Network().ListenAddresses()) {
				t.Errorf("listens on %v, libp2p's on %v", ours.Network().ListenAddresses(), theirs.Network().ListenAddresses())
			}
			if mine != nil {
				same(t, "metrics", mine.(*registered).list(), o.PrometheusRegisterer.(*registered).list())
			}
			if got, want := reachability(t, ours), reachability(t, theirs); got != want {
				t.Errorf("reachability %v, libp2p's %v", got, want)
			}
		})
	}
}

// same says what only one of two lists has.
func same[T ~string](t *testing.T, what string, ours, theirs []T) {
	t.Helper()
	for _, s := range ours {
		if !slices.Contains(theirs, s) {
			t.Errorf("%s: libp2p's host does not have %s", what, s)
		}
	}
	for _, s := range theirs {
		if !slices.Contains(ours, s) {
			t.Errorf("%s: ours does not have %s", what, s)
		}
	}
}

// listener is the kind of transport that would listen at a.
func listener(t *testing.T, h libhost.Host, a ma.Multiaddr) string {
	t.Helper()
	n, ok := h.Network().(*swarm.Swarm)
	if !ok {
		t.Fatalf("network %T", h.Network())
	}
	return fmt.Sprintf("%T", n.TransportForListening(a))
}

// reachability is what a host tells its parts before anything is known.
func reachability(t *testing.T, h libhost.Host) network.Reachability {
	t.Helper()
	events, err := h.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	select {
	case e := <-events.Out():
		return e.(event.EvtLocalReachabilityChanged).Reachability
	case <-time.After(patience):
		t.Fatal("no reachability")
		return 0
	}
}

// TestServiceLimits holds the limits of libp2p's services against libp2p's own.
func TestServiceLimits(t *testing.T) {
	for name, o := range map[string]host.Options{
		"private": {Private: true, MaxInbound: 128, MaxConns: 192},
		"relay":   {Relay: true, MaxInbound: 128, MaxConns: 192},
	} {
		// Maps are shared by copies: each gets its own.
		theirs := rcmgr.DefaultLimits
		libp2p.SetDefaultServiceLimits(&theirs)
		want := host.Limits(o, theirs, false).ToPartialLimitConfig()
		got := host.Limits(o, rcmgr.ScalingLimitConfig{}, true).ToPartialLimitConfig()
		for _, m := range []map[string]rcmgr.ResourceLimits{want.Service, want.ServicePeer} {
			delete(m, autonat.ServiceName) // version 1, which nobody serves
		}
		delete(want.Protocol, autonat.AutoNATProto)
		delete(want.ProtocolPeer, autonat.AutoNATProto)
		sameLimits(t, name+", service", got.Service, want.Service)
		sameLimits(t, name+", service by peer", got.ServicePeer, want.ServicePeer)
		sameLimits(t, name+", protocol", got.Protocol, want.Protocol)
		sameLimits(t, name+", protocol by peer", got.ProtocolPeer, want.ProtocolPeer)
	}
}

func sameLimits[K ~string](t *testing.T, what string, got, want map[K]rcmgr.ResourceLimits) {
	t.Helper()
	same(t, what, slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want)))
	for k, l := range want {
		if got[k] != l {
			t.Errorf("%s %s: %+v, libp2p's %+v", what, k, got[k], l)
		}
	}
}

// TestQUICKeys holds the keys of QUIC against libp2p's: who updates a node does not lose what its peers know of it.
func TestQUICKeys(t *testing.T) {
	key := host.KeyFromSeed(7)
	secret, err := key.Raw()
	if err != nil {
		t.Fatal(err)
	}
	reset, token, err := host.QUICKeys(secret)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := config.PrivKeyToStatelessResetKey(key); err != nil || reset != want {
		t.Errorf("reset key differs from libp2p's (%v)", err)
	}
	if want, err := config.PrivKeyToTokenGeneratorKey(key); err != nil || token != want {
		t.Errorf("token key differs from libp2p's (%v)", err)
	}
}

// TestCloseTwice: who closes a host again gets no panic.
func TestCloseTwice(t *testing.T) {
	for _, private := range []bool{true, false} {
		h, err := host.New(host.Options{Key: host.KeyFromSeed(1), Listen: addrs(t, loopback...), Private: private, HolePunch: !private})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestConstructorFails has one of libp2p's constructors fail when others have made their parts: New says so, and nothing runs on.
func TestConstructorFails(t *testing.T) {
	for _, part := range []string{"host", "circuit", "relays"} {
		t.Run(part, func(t *testing.T) {
			fault := errors.New("no " + part)
			o := host.Options{
				Key: host.KeyFromSeed(1), Listen: addrs(t, loopback...), HolePunch: true, Relays: func() []peer.ID { return nil },
				PrometheusRegisterer: &registered{},
			}
			before := runtime.NumGoroutine()
			h, err := host.NewFailing(o, part, fault)
			if h != nil || !errors.Is(err, fault) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %v", h, err)
			}
			for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
				if time.Now().After(deadline) {
					stacks := make([]byte, 1<<20)
					t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
				}
			}
		})
	}
}
