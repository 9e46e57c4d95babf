package host_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	relayclient "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/internal/host"
)

// logLines is a log that may be read while it is written.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWebSocket(t *testing.T) {
	server := start(t, 1, func(o *host.Options) {
		o.Listen, o.WebSocket = addrs(t, "/ip4/127.0.0.1/tcp/0/ws"), true
	})
	serveEcho(server, "/echo/1")
	if a := server.JoinAddrs(); len(a) != 1 || !strings.Contains(a[0].String(), "/ws/p2p/") {
		t.Fatalf("addresses %v", a)
	}
	info := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	t.Run("a libp2p client that speaks nothing else", func(t *testing.T) {
		client, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Transport(websocket.New), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Connect(t.Context(), info); err != nil {
			t.Fatal(err)
		}
		if err := echo(t, client, server.ID(), "/echo/1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a host of ours", func(t *testing.T) {
		client := start(t, 2, func(o *host.Options) { o.Listen, o.WebSocket = nil, true })
		if err := client.Connect(t.Context(), info); err != nil {
			t.Fatal(err)
		}
		if err := echo(t, client, server.ID(), "/echo/1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("off", func(t *testing.T) {
		client := start(t, 3, func(o *host.Options) { o.Listen = nil })
		if err := client.Connect(t.Context(), info); err == nil || !strings.Contains(err.Error(), "transport") {
			t.Errorf("dialled without the transport: %v", err)
		}
		_, err := host.New(host.Options{Key: host.KeyFromSeed(4), Private: true, Listen: addrs(t, "/ip4/127.0.0.1/tcp/0/ws")})
		if err == nil || !strings.Contains(err.Error(), "p2p.websocket") {
			t.Errorf("listened without the transport: %v", err)
		}
	})
}

func TestAdvice(t *testing.T) {
	listen := addrs(t, "/ip4/0.0.0.0/tcp/9333", "/ip6/::/tcp/9333", "/ip4/0.0.0.0/udp/9333/quic-v1")
	lan := addrs(t, "/ip4/127.0.0.1/tcp/9333", "/ip4/192.168.1.5/tcp/9333")
	for name, c := range map[string]struct {
		r          host.Reachability
		reason, do string
	}{
		"nobody knows": {host.Reachability{Verdict: host.ReachChecking}, "", ""},
		"reached":      {host.Reachability{Verdict: host.ReachConfirmed, Confirmed: listen}, "", ""},
		"behind a router that was not asked": {
			host.Reachability{Verdict: host.ReachUnreachable, Listen: listen, Announced: lan, NAT: host.NATOff, Observed: []host.Observed{{Addr: addrs(t, "/ip4/198.41.0.4/tcp/2000")[0], By: 2}}},
			"this machine has no public address, others see it as 198.41.0.4",
			"forward TCP 9333 and UDP 9333 on the router to 192.168.1.5, or set p2p.nat = true",
		},
		"behind a router that does not answer": {
			host.Reachability{Verdict: host.ReachUnreachable, Listen: listen[:1], Announced: lan, NAT: host.NATNone},
			"this machine has no public address", "forward TCP 9333 on the router to 192.168.1.5",
		},
		"a mapping that does not help": {
			host.Reachability{Verdict: host.ReachUnreachable, Listen: listen[:1], Unreachable: addrs(t, "/ip4/198.41.0.4/tcp/9333"), NAT: host.NATMapped},
			"nobody gets through to /ip4/198.41.0.4/tcp/9333", "let TCP 9333 through the firewall of this machine and of the router",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.r.Reason(); got != c.reason {
				t.Errorf("reason %q, want %q", got, c.reason)
			}
			if got := c.r.Advice(); got != c.do {
				t.Errorf("do %q, want %q", got, c.do)
			}
		})
	}
}

// A host on a public network that has no public address says so, once, and where it is seen. It asks for no mapping unless told to.
func TestUnreachable(t *testing.T) {
	var log logLines
	server := start(t, 1, func(o *host.Options) { o.Private = false })
	h := start(t, 2, func(o *host.Options) { o.Private, o.Logger = false, slog.New(slog.NewTextHandler(&log, nil)) })
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		t.Fatal(err)
	}
	run(t, h)
	eventually(t, "it knows that nobody can connect", func() bool { return h.Reachability().Verdict == host.ReachUnreachable })
	eventually(t, "it says so", func() bool { return strings.Contains(log.String(), "others cannot connect to this node") })
	if n := strings.Count(log.String(), "others cannot"); n != 1 || !strings.Contains(log.String(), "p2p.nat = true") {
		t.Errorf("log: %s", log.String())
	}
	if r := h.Reachability(); r.NAT != host.NATOff || len(r.Mapped)+len(r.Relays) > 0 {
		t.Errorf("%+v", r)
	}
}

// The relay serves its own network only, and what is relayed carries no protocol of ours.
func TestRelay(t *testing.T) {
	const ours protocol.ID = "/dunlin/x/peers/1"
	relay := start(t, 1, func(o *host.Options) { o.Relay, o.RelayFor, o.HolePunch = true, []protocol.ID{ours}, true })
	speaks := func(h *host.Host) { h.SetStreamHandler(ours, func(s network.Stream) { _ = s.Close() }) }
	traverse := func(o *host.Options) { o.HolePunch = true }
	behind, other, stranger := start(t, 2, traverse), start(t, 3, traverse), start(t, 4, traverse)
	speaks(behind)
	speaks(other)
	serveEcho(behind, "/echo/1")
	at := peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}
	for _, h := range []*host.Host{behind, other, stranger} {
		if err := h.Connect(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := relayclient.Reserve(t.Context(), stranger, at); err == nil {
		t.Error("a stranger got a place")
	}
	rsvp, err := relayclient.Reserve(t.Context(), behind, at)
	if err != nil {
		t.Fatal(err)
	}
	if rsvp.LimitData != 128<<10 || rsvp.LimitDuration != 2*time.Minute {
		t.Errorf("a circuit may take %d bytes and %s", rsvp.LimitData, rsvp.LimitDuration)
	}
	via := relay.Addrs()[0].Encapsulate(addrs(t, "/p2p/"+relay.ID().String()+"/p2p-circuit")[0])
	to := peer.AddrInfo{ID: behind.ID(), Addrs: []ma.Multiaddr{via}}
	if err := stranger.Connect(t.Context(), to); err == nil {
		t.Error("a stranger was relayed")
	}
	if err := other.Connect(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if got := other.Network().Connectedness(behind.ID()); got != network.Limited {
		t.Fatalf("the relayed connection is %s", got)
	}
	ctx, cancel := context.WithTimeout(network.WithNoDial(t.Context(), "test"), 200*time.Millisecond)
	defer cancel()
	if s, err := other.NewStream(ctx, behind.ID(), "/echo/1"); err == nil {
		_ = s.Reset()
		t.Error("a stream of ours runs over a relay")
	}
	// Nor if the other end does not keep to that.
	loose, cancel := context.WithTimeout(network.WithAllowLimitedConn(network.WithNoDial(t.Context(), "test"), "test"), patience)
	defer cancel()
	s, err := other.NewStream(loose, behind.ID(), "/echo/1")
	if err == nil {
		_ = s.SetDeadline(time.Now().Add(patience))
		_, _ = s.Write([]byte("ping"))
		_, err = s.Read(make([]byte, 1))
	}
	if err == nil || isTimeout(err) {
		t.Errorf("a stream that the other end allows: %v", err)
	}
	if r := behind.Reachability(); slices.ContainsFunc(behind.JoinAddrs(), func(a ma.Multiaddr) bool { return strings.Contains(a.String(), "circuit") }) {
		t.Errorf("hands out relayed addresses: %+v", r)
	}
}

// Without being asked for, no host relays.
func TestNoRelay(t *testing.T) {
	a, b := start(t, 1, func(o *host.Options) { o.HolePunch = true }), start(t, 2, nil)
	at := peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}
	if err := b.Connect(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.Peerstore().SupportsProtocols(a.ID(), proto.ProtoIDv2Hop); err != nil || len(ok) > 0 {
		t.Errorf("it offers to relay: %v %v", ok, err)
	}
	if _, err := relayclient.Reserve(t.Context(), b, at); err == nil {
		t.Error("it gave a place")
	}
	if _, err := host.New(host.Options{Key: host.KeyFromSeed(3), Private: true, Relay: true}); err == nil || !strings.Contains(err.Error(), "no protocols") {
		t.Errorf("a relay for everyone: %v", err)
	}
}

func TestDialBack(t *testing.T) {
	server := start(t, 1, nil)
	at := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	o := host.Options{Private: true, Listen: addrs(t, loopback...)}
	t.Run("reached", func(t *testing.T) {
		got, _, err := host.TryDialBack(t.Context(), o, at)
		if err != nil || len(got) != 2 || !got[0].Reachable || !got[1].Reachable {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		o := o
		o.Announce = addrs(t, "/ip4/127.0.0.1/tcp/19")
		got, _, err := host.TryDialBack(t.Context(), o, at)
		if err != nil || len(got) != 1 || got[0].Reachable || got[0].Err != nil {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("another machine is not dialled", func(t *testing.T) {
		o := o
		o.Announce = addrs(t, "/ip4/127.0.0.2/tcp/19")
		got, _, err := host.TryDialBack(t.Context(), o, at)
		if err != nil || len(got) != 1 || got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "does not dial") {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("a peer that does not", func(t *testing.T) {
		other, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		_, _, err = host.TryDialBack(t.Context(), o, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()})
		if !errors.Is(err, host.ErrNoDialBack) {
			t.Errorf("%v", err)
		}
	})
	t.Run("often", func(t *testing.T) {
		asker := start(t, 2, nil)
		if err := asker.Connect(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		// Of many requests at once those beyond a few are refused, whatever they ask; the others wait for a message that never comes.
		over := make(chan struct{}, 20)
		for range cap(over) {
			s, err := asker.NewStream(t.Context(), server.ID(), autonatv2.DialProtocol)
			if err == nil {
				_, err = s.Write([]byte{0x7f})
				defer s.Reset()
			}
			if err != nil {
				over <- struct{}{}
				continue
			}
			go func() {
				_, _ = s.Read(make([]byte, 1))
				over <- struct{}{}
			}()
		}
		eventually(t, "16 of 20 are refused", func() bool { return len(over) >= 16 })
	})
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// run runs h until the test ends.
func run(t *testing.T, h *host.Host) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

// TestRelaySourceEnds: who asks for relays gets those that there are, once, and the end.
func TestRelaySourceEnds(t *testing.T) {
	relay := start(t, 1, func(o *host.Options) { o.Relay, o.RelayFor = true, []protocol.ID{"/ours/1"} })
	h := start(t, 2, func(o *host.Options) { o.Relays = func() []peer.ID { return []peer.ID{relay.ID()} } })
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []peer.ID
	for p := range h.RelaySource(ctx, 4) { // taken as it comes: the channel is never seen full
		got = append(got, p.ID)
	}
	if ctx.Err() != nil || len(got) != 1 || got[0] != relay.ID() {
		t.Errorf("%s (%v), want the relay once", got, ctx.Err())
	}
}
