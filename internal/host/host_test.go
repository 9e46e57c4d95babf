package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	libhost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"dunlin/internal/host"
)

func addrs(t testing.TB, list ...string) []ma.Multiaddr {
	t.Helper()
	out := make([]ma.Multiaddr, len(list))
	for i, s := range list {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = a
	}
	return out
}

var loopback = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

func start(t testing.TB, seed uint64, edit func(*host.Options)) *host.Host {
	t.Helper()
	o := host.Options{Key: host.KeyFromSeed(seed), Listen: addrs(t, loopback...), Private: true, Agent: "dunlin/test"}
	if edit != nil {
		edit(&o)
	}
	h, err := host.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// echo asks h for an echo over a new stream.
func echo(t testing.TB, from libhost.Host, to peer.ID, id protocol.ID) error {
	t.Helper()
	s, err := from.NewStream(t.Context(), to, id)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write([]byte("ping")); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != "ping" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

func serveEcho(h libhost.Host, id protocol.ID) {
	h.SetStreamHandler(id, func(s network.Stream) {
		defer s.Close()
		if _, err := io.Copy(s, io.LimitReader(s, 1024)); err != nil {
			s.Reset()
		}
	})
}

// patience is how long a test waits for what must come: much longer than it takes, since
// the machine may have other work.
const patience = 2 * time.Minute

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestTransports(t *testing.T) {
	server := start(t, 1, nil)
	serveEcho(server, "/echo/1")
	for i, transport := range []string{"tcp", "quic-v1"} {
		t.Run(transport, func(t *testing.T) {
			client := start(t, uint64(2+i), func(o *host.Options) { o.Listen = nil })
			var via []ma.Multiaddr
			for _, a := range server.Addrs() {
				if strings.Contains(a.String(), transport) {
					via = append(via, a)
				}
			}
			if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: via}); err != nil {
				t.Fatal(err)
			}
			if err := echo(t, client, server.ID(), "/echo/1"); err != nil {
				t.Error(err)
			}
			conn := client.Network().ConnsToPeer(server.ID())[0]
			if !strings.Contains(conn.RemoteMultiaddr().String(), transport) {
				t.Errorf("connected through %s", conn.RemoteMultiaddr())
			}
			if transport == "tcp" && (conn.ConnState().Security != libp2ptls.ID || conn.ConnState().StreamMultiplexer != "/yamux/1.0.0") {
				t.Errorf("negotiated %+v, want TLS and yamux", conn.ConnState())
			}
			eventually(t, "identify tells the agent", func() bool {
				agent, err := client.Peerstore().Get(server.ID(), "AgentVersion")
				return err == nil && agent == "dunlin/test"
			})
		})
	}
}

func TestSecurities(t *testing.T) {
	server := start(t, 1, nil)
	serveEcho(server, "/echo/1")
	for id, option := range map[string]libp2p.Option{
		libp2ptls.ID: libp2p.Security(libp2ptls.ID, libp2ptls.New),
		noise.ID:     libp2p.Security(noise.ID, noise.New),
	} {
		t.Run(id, func(t *testing.T) {
			client, err := libp2p.New(libp2p.NoListenAddrs, option, libp2p.DisableMetrics())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()[:1]}); err != nil {
				t.Fatal(err)
			}
			if err := echo(t, client, server.ID(), "/echo/1"); err != nil {
				t.Error(err)
			}
			if got := client.Network().ConnsToPeer(server.ID())[0].ConnState().Security; got != protocol.ID(id) {
				t.Errorf("security %s, want %s", got, id)
			}
		})
	}
}

func TestBusyPort(t *testing.T) {
	first := start(t, 1, nil)
	for _, a := range first.Addrs() {
		for _, private := range []bool{true, false} {
			// A free address beside it must not make it acceptable.
			_, err := host.New(host.Options{
				Key: host.KeyFromSeed(2), Private: private,
				Listen: append(addrs(t, "/ip4/127.0.0.1/tcp/0"), a),
			})
			want := "listen " + a.String() + ": address already in use by another process: choose another port with --port or stop it"
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("private %v: got %v, want %q", private, err, want)
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v is no EADDRINUSE", err)
			}
		}
	}
}

func TestListenErrors(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*host.Options)
		want []string
	}{
		"no such address": {func(o *host.Options) { o.Listen = addrs(t, "/ip4/192.0.2.1/tcp/9333") }, []string{"no such address"}},
		"every fault": {func(o *host.Options) {
			o.Key = nil
			o.Listen = addrs(t, "/dns4/example.org/tcp/1", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/udp/1")
			o.Announce = addrs(t, "/ip4/0.0.0.0/tcp/9333")
			o.MaxInbound, o.MaxConns = 10, 5
			o.ProtocolLimits = map[protocol.ID]host.ProtocolLimit{"/x": {In: -1}}
		}, []string{"no identity key", "/dns4/example.org/tcp/1", "/tcp/0/ws", "/udp/1:", "unspecified", "max inbound 10", "limits of /x"}},
		"too many": {func(o *host.Options) { o.Listen = slices.Repeat(addrs(t, loopback[0]), 33) }, []string{"at most 32"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := host.Options{Key: host.KeyFromSeed(1), Private: true}
			c.edit(&o)
			h, err := host.New(o)
			if err == nil {
				h.Close()
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	for _, private := range []bool{true, false} {
		// Package-level goroutines of libp2p start with the first host.
		warm, err := host.New(host.Options{Key: host.KeyFromSeed(1), Listen: addrs(t, loopback...), Private: private})
		if err != nil {
			t.Fatal(err)
		}
		warm.Close()
		settled := func() int { runtime.GC(); return runtime.NumGoroutine() }
		before := settled()
		for range 3 {
			h, err := host.New(host.Options{Key: host.KeyFromSeed(1), Listen: addrs(t, loopback...), Private: private})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			// A failing start closes what it opened.
			if _, err := host.New(host.Options{
				Key: host.KeyFromSeed(1), Private: private,
				Listen: addrs(t, "/ip4/127.0.0.1/tcp/0", "/ip4/192.0.2.1/tcp/9333"),
			}); err == nil {
				t.Fatal("no error")
			}
		}
		eventually(t, "goroutines end", func() bool { return settled() <= before })
	}
}

func TestAddresses(t *testing.T) {
	t.Run("never unspecified", func(t *testing.T) {
		h := start(t, 1, func(o *host.Options) { o.Listen = addrs(t, "/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1") })
		if len(h.Addrs()) < 2 {
			t.Fatalf("addresses: %v", h.Addrs())
		}
		for _, a := range h.Addrs() {
			if strings.Contains(a.String(), "/0.0.0.0/") || strings.Contains(a.String(), "/::/") {
				t.Errorf("announces %s", a)
			}
		}
		if first := h.JoinAddrs()[0].String(); !strings.HasSuffix(first, "/p2p/"+h.ID().String()) || !strings.Contains(first, "/tcp/") {
			t.Errorf("join address %s", first)
		}
	})
	t.Run("announce replaces, best first", func(t *testing.T) {
		list := addrs(t,
			"/ip4/127.0.0.1/tcp/9333",
			"/ip4/10.1.2.3/udp/9333/quic-v1", "/ip4/10.1.2.3/tcp/9333",
			"/ip6/2606:4700::1/tcp/9333",
			"/ip4/198.41.0.4/udp/9333/quic-v1", "/ip4/198.41.0.4/tcp/9333",
			"/dns4/node.example.org/tcp/9333")
		h := start(t, 1, func(o *host.Options) { o.Announce = list })
		var got []string
		for _, a := range h.JoinAddrs() {
			got = append(got, strings.TrimSuffix(a.String(), "/p2p/"+h.ID().String()))
		}
		want := []string{
			"/dns4/node.example.org/tcp/9333",
			"/ip4/198.41.0.4/tcp/9333", "/ip6/2606:4700::1/tcp/9333", "/ip4/198.41.0.4/udp/9333/quic-v1",
			"/ip4/10.1.2.3/tcp/9333", "/ip4/10.1.2.3/udp/9333/quic-v1",
			"/ip4/127.0.0.1/tcp/9333",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
	t.Run("no announce", func(t *testing.T) {
		h := start(t, 1, func(o *host.Options) { o.NoAnnounce = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
		if len(h.JoinAddrs()) != 0 {
			t.Errorf("announces %v", h.JoinAddrs())
		}
	})
	t.Run("public networks are told no private address", func(t *testing.T) {
		for _, private := range []bool{true, false} {
			h := start(t, 1, func(o *host.Options) { o.Private = private })
			if told := len(h.Peerstore().Addrs(h.ID())) > 0; told != private {
				t.Errorf("private %v: tells loopback %v", private, told)
			}
		}
	})
}

func TestAllLocal(t *testing.T) {
	for list, want := range map[string]bool{
		"":                     false,
		"/ip4/127.0.0.1/tcp/1": true,
		"/ip4/127.0.0.1/tcp/1 /ip4/10.0.0.1/tcp/1 /ip6/::1/tcp/1 /ip6/fe80::1/tcp/1": true,
		"/ip4/127.0.0.1/tcp/1 /ip4/198.41.0.4/tcp/1":                                 false,
		"/ip4/0.0.0.0/tcp/1":        false,
		"/dns4/example.org/tcp/1":   false,
		"/ip4/100.64.0.1/tcp/9333":  true,
		"/ip6/2606:4700::1/tcp/933": false,
	} {
		if got := host.AllLocal(addrs(t, strings.Fields(list)...)); got != want {
			t.Errorf("%q: got %v", list, got)
		}
	}
}

// admitted opens inbound connections from consecutive addresses of a subnet
// until one is refused, at most 1000.
func admitted(t *testing.T, h *host.Host, addr func(i int) string) int {
	t.Helper()
	for i := range 1000 {
		scope, err := h.Network().ResourceManager().OpenConnection(network.DirInbound, false, addrs(t, addr(i))[0])
		if err != nil {
			return i
		}
		t.Cleanup(scope.Done)
	}
	return 1000
}

func TestLimitsByAddress(t *testing.T) {
	same := func(a string) func(int) string { return func(int) string { return a } }
	in24 := func(i int) string { return fmt.Sprintf("/ip4/198.41.0.%d/tcp/1", i%250+1) }
	in16 := func(i int) string { return fmt.Sprintf("/ip4/198.41.%d.%d/tcp/1", i%250, i/250+1) }
	in48 := func(i int) string { return fmt.Sprintf("/ip6/2606:4700:1:%x::1/tcp/1", i<<8) }
	for _, c := range []struct {
		name            string
		from            func(int) string
		public, private int
	}{
		{"one public address", same("/ip4/198.41.0.4/tcp/1"), 16, 100},
		{"one public subnet", in24, 32, 100},
		{"one home's IPv6", same("/ip6/2606:4700::1/udp/1/quic-v1"), 16, 100},
		{"one site's IPv6", in48, 32, 100},
		{"one IP group", in16, 33, 100},
		{"a container network", same("/ip4/172.17.0.1/tcp/1"), 100, 100},
		{"loopback", same("/ip4/127.0.0.1/tcp/1"), 100, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, private := range []bool{false, true} {
				h := start(t, 1, func(o *host.Options) { o.Private, o.MaxInbound, o.MaxConns = private, 100, 150 })
				want := c.public
				if private {
					want = c.private
				}
				// All at once from one address, the transient limit (handshakes) is 50.
				want = min(want, 50)
				if got := admitted(t, h, c.from); got != want {
					t.Errorf("private %v: %d admitted, want %d", private, got, want)
				}
				if h.Refused().Connections != 1 {
					t.Errorf("%d refusals counted, want 1", h.Refused().Connections)
				}
			}
		})
	}
}

func TestRateByAddress(t *testing.T) {
	for _, private := range []bool{false, true} {
		h := start(t, 1, func(o *host.Options) { o.Private = private })
		n := 0
		for ; n < 500; n++ {
			scope, err := h.Network().ResourceManager().OpenConnection(network.DirInbound, false, addrs(t, "/ip4/198.41.0.4/tcp/1")[0])
			if err != nil {
				break
			}
			scope.Done() // comes and goes
		}
		if private && n < 500 || !private && (n < 32 || n > 40) {
			t.Errorf("private %v: %d connections at once from one address", private, n)
		}
	}
}

func TestRefusalsAreToldOnceAMinute(t *testing.T) {
	var b bytes.Buffer
	h := start(t, 1, func(o *host.Options) {
		o.Private, o.Logger = false, slog.New(slog.NewTextHandler(&b, nil))
	})
	for range 100 {
		if scope, err := h.Network().ResourceManager().OpenConnection(network.DirInbound, false, addrs(t, "/ip4/198.41.0.4/tcp/1")[0]); err == nil {
			t.Cleanup(scope.Done)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != 1 || !strings.Contains(b.String(), "refused inbound connections") {
		t.Errorf("%d lines: %s", n, b.String())
	}
	if got := h.Refused().Connections; got != 80 {
		t.Errorf("%d refusals counted, want 80", got)
	}
}

// TestMaxInbound: over the limit a newcomer is let in only in the place of another.
func TestMaxInbound(t *testing.T) {
	server := start(t, 1, func(o *host.Options) { o.MaxInbound, o.MaxConns = 2, 4 })
	clients := make([]*host.Host, 5)
	for i := range clients {
		clients[i] = start(t, 10+uint64(i), func(o *host.Options) { o.Listen = nil })
	}
	join := func(c *host.Host) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_ = c.Connect(ctx, peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()[:1]})
	}
	inbound := func() (ids []peer.ID) { return server.Network().Peers() }
	for i, c := range clients[:4] {
		join(c)
		if i < 2 {
			eventually(t, "it is let in", func() bool { return slices.Contains(inbound(), c.ID()) })
		} else {
			eventually(t, "it is refused", func() bool {
				return server.Refused().Full == uint64(i-1) && c.Network().Connectedness(server.ID()) != network.Connected
			})
		}
	}
	if got := inbound(); len(got) != 2 {
		t.Errorf("%d peers, want 2", len(got))
	}
	// The operator's own always has a place.
	own := clients[4]
	server.SetStanding(func() map[peer.ID]host.Standing { return map[peer.ID]host.Standing{own.ID(): {Keep: true}} })
	join(own)
	eventually(t, "the operator's own is let in, and one of the two leaves", func() bool {
		ids := inbound()
		return len(ids) == 2 && slices.Contains(ids, own.ID())
	})
	if r := server.Refused(); r.Evicted != 1 || r.Full != 2 {
		t.Errorf("counted %+v, want 1 evicted, 2 refused", r)
	}
}

// None is none, not the default.
func TestNoInbound(t *testing.T) {
	server := start(t, 1, func(o *host.Options) { o.MaxInbound, o.MaxConns = -1, 4 })
	client := start(t, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if client.Connect(ctx, peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()[:1]}) == nil {
		t.Error("a connection was accepted")
	}
	if err := server.Connect(t.Context(), peer.AddrInfo{ID: client.ID(), Addrs: client.Addrs()[:1]}); err != nil {
		t.Errorf("it cannot dial: %v", err)
	}
}

func TestProtocolLimits(t *testing.T) {
	const id = "/limited/1"
	server := start(t, 1, func(o *host.Options) {
		o.ProtocolLimits = map[protocol.ID]host.ProtocolLimit{id: {InPerPeer: 2, In: 3, MemoryPerPeer: 1 << 10}}
	})
	release := make(chan struct{})
	memory := make(chan error, 8)
	server.SetStreamHandler(id, func(s network.Stream) {
		memory <- s.Scope().ReserveMemory(1<<10+1, network.ReservationPriorityAlways)
		s.Write([]byte{1})
		<-release
		s.Close()
	})
	defer close(release)
	open := func(client *host.Host) error {
		s, err := client.NewStream(t.Context(), server.ID(), id)
		if err != nil {
			return err
		}
		if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err = io.ReadFull(s, make([]byte, 1))
		return err
	}
	a, b := start(t, 2, nil), start(t, 3, nil)
	for _, client := range []*host.Host{a, b} {
		if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		client *host.Host
		ok     bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}} {
		if err := open(step.client); (err == nil) != step.ok {
			t.Errorf("stream %d: %v, want ok %v", i, err, step.ok)
		}
	}
	if err := <-memory; err == nil {
		t.Error("more memory than the limit was granted")
	}
	if server.Refused().Streams < 2 || server.Refused().Memory == 0 {
		t.Errorf("refusals: %+v", server.Refused())
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	start(t, 1, func(o *host.Options) { o.PrometheusRegisterer = reg })
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) == 0 {
		t.Error("no metrics")
	}
}

func TestSystemPortIsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		l, err := net.Listen("tcp4", "127.0.0.1:1")
		if err == nil {
			l.Close()
			return // root may; there is nothing to see
		}
	}
	_, err := host.New(host.Options{Key: host.KeyFromSeed(1), Listen: addrs(t, "/ip4/127.0.0.1/tcp/1")})
	if err != nil && !strings.Contains(err.Error(), "above 1023") {
		t.Error(err)
	}
}

func TestKeyFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home", "deeper")
	path := filepath.Join(dir, "key")
	key, err := host.LoadOrCreateKey(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	again, err := host.LoadOrCreateKey(path, nil)
	if err != nil || !again.Equals(key) {
		t.Errorf("a second start has another identity: %v", err)
	}
	if err := host.SaveKey(path, host.KeyFromSeed(1)); !errors.Is(err, os.ErrExist) {
		t.Errorf("an identity was overwritten: %v", err)
	}

	t.Run("open to others", func(t *testing.T) {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := host.LoadOrCreateKey(path, slog.New(slog.NewTextHandler(&b, nil))); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v %v, want 0600", info.Mode(), err)
		}
		if !strings.Contains(b.String(), "level=WARN") || !strings.Contains(b.String(), "was_mode=0644") || !strings.Contains(b.String(), path) {
			t.Errorf("warning: %s", b.String())
		}
	})

	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, readerOf(7))
	if err != nil {
		t.Fatal(err)
	}
	other, err := crypto.MarshalPrivateKey(rsa)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[10] ^= 1
	for name, content := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)-1], "text": []byte("hello"), "long": make([]byte, 1<<16),
		"a flipped bit": flipped, "another type": other, "zeros": make([]byte, len(good)),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := host.LoadOrCreateKey(path, nil)
			if !errors.Is(err, host.ErrCorruptKey) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		if _, err := host.LoadOrCreateKey(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v", err)
		}
	})
}

// readerOf is a reader of one byte for ever.
type readerOf byte

func (r readerOf) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func TestKeyFromSeed(t *testing.T) {
	id := func(n uint64) string {
		p, err := peer.IDFromPrivateKey(host.KeyFromSeed(n))
		if err != nil {
			t.Fatal(err)
		}
		return p.String()
	}
	if first, again := id(1), id(1); first != again || first == id(2) {
		t.Error("a seed does not decide the identity")
	}
	// Other tools and documents rely on it: it must never change.
	if got, want := id(1), "12D3KooWF7jJvUPnJN3ofrjtM5YTQmtaYsg4AZAckmSUqVnm64Va"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		h, err := host.New(host.Options{Key: host.KeyFromSeed(1), Listen: addrs(b, loopback...), Private: true})
		if err != nil {
			b.Fatal(err)
		}
		h.Close()
	}
}

// TestLoopbackIsToldLast: a host that others can reach tells them no loopback
// address; scripts on this machine still learn it.
func TestLoopbackIsToldLast(t *testing.T) {
	parse := func(list ...string) []ma.Multiaddr {
		var out []ma.Multiaddr
		for _, s := range list {
			out = append(out, ma.StringCast(s))
		}
		return out
	}
	for _, c := range []struct{ found, announce, want []ma.Multiaddr }{
		{parse("/ip4/127.0.0.1/tcp/1"), nil, parse("/ip4/127.0.0.1/tcp/1")},
		{parse("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip6/::1/tcp/1"), nil, parse("/ip4/10.0.0.2/tcp/1")},
		{parse("/ip4/0.0.0.0/tcp/1", "/ip4/127.0.0.1/tcp/1"), nil, parse("/ip4/127.0.0.1/tcp/1")},
		{parse("/ip4/10.0.0.2/tcp/1"), parse("/ip4/127.0.0.1/tcp/9"), parse("/ip4/127.0.0.1/tcp/9")},
	} {
		got := host.Announced(c.found, c.announce, nil)
		if len(got) != len(c.want) || (len(got) > 0 && !got[0].Equal(c.want[0])) {
			t.Errorf("of %v and %v it tells %v, want %v", c.found, c.announce, got, c.want)
		}
	}
	h := start(t, 1, nil)
	if len(h.LocalAddrs()) == 0 || len(h.LocalAddrs()) < len(h.JoinAddrs()) {
		t.Errorf("local %v, join %v", h.LocalAddrs(), h.JoinAddrs())
	}
}
