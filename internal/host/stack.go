package host

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	blankhost "github.com/libp2p/go-libp2p/p2p/host/blank"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
)

// This file puts a host together from go-libp2p's parts, as its own constructor does in package config. That one cannot be had without
// WebRTC and WebTransport, which no address of ours uses: they are a tenth of the program, with parsers of a dozen protocols (decision 0013).
// TestLikeLibp2p holds the two side by side; it is what to look at after an update of the library.

// A stack is a swarm that dials, with what it rests on.
type stack struct {
	swarm    *swarm.Swarm
	bus      event.Bus
	upgrader transport.Upgrader // makes connections of what TCP brings
	peers    io.Closer          // the store of peers, which is the last to end
	closers  closers            // sockets of QUIC, swarm
	once     sync.Once
}

// Close ends all of it, once.
func (s *stack) Close() (err error) {
	s.once.Do(func() { err = errors.Join(s.closers.Close(), s.peers.Close()) })
	return err
}

// closers end parts, each after those that were made after it.
type closers []func() error

func (c closers) Close() error {
	var errs []error
	for _, f := range slices.Backward(c) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// A stackConfig says what a stack is made of.
type stackConfig struct {
	key       crypto.PrivKey
	resources network.ResourceManager // the caller's to close
	gater     connmgr.ConnectionGater
	reuseport bool // dial TCP from the port that is listened on
	webSocket bool
	metrics   prometheus.Registerer // nil: none
	swarm     []swarm.Option        // more of them
}

// blackHoles remember that UDP or IPv6 leads nowhere, so that not every dial finds out anew: below 5 of the last 100.
func blackHoles() []swarm.Option {
	return []swarm.Option{
		swarm.WithUDPBlackHoleSuccessCounter(&swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "UDP"}),
		swarm.WithIPv6BlackHoleSuccessCounter(&swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "IPv6"}),
	}
}

// newStack makes a swarm with its transports. It does not listen.
func newStack(c *stackConfig) (_ *stack, err error) {
	id, err := peer.IDFromPrivateKey(c.key)
	if err != nil {
		return nil, err
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	s := &stack{peers: peers}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := errors.Join(peers.AddPrivKey(id, c.key), peers.AddPubKey(id, c.key.GetPublic())); err != nil {
		return nil, err
	}
	// The sockets are closed after the swarm, which takes leave of its peers over them.
	sockets, err := newSockets(c)
	if err != nil {
		return nil, fmt.Errorf("quic: %w", err)
	}
	s.closers = append(s.closers, sockets.Close)

	var busOptions []eventbus.Option
	options := []swarm.Option{swarm.WithResourceManager(c.resources), swarm.WithConnectionGater(c.gater)}
	if c.metrics != nil {
		busOptions = append(busOptions, eventbus.WithMetricsTracer(eventbus.NewMetricsTracer(eventbus.WithRegisterer(c.metrics))))
		options = append(options, swarm.WithMetricsTracer(swarm.NewMetricsTracer(swarm.WithRegisterer(c.metrics))))
	}
	s.bus = eventbus.NewBus(busOptions...)
	if s.swarm, err = swarm.NewSwarm(id, peers, s.bus, append(options, c.swarm...)...); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.swarm.Close)
	if err := s.addTransports(c, sockets); err != nil {
		return nil, err
	}
	return s, nil
}

// addTransports gives the swarm TCP and QUIC, and WebSocket if it is asked for.
func (s *stack) addTransports(c *stackConfig, sockets *quicreuse.ConnManager) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	tlsTransport, err := libp2ptls.New(libp2ptls.ID, c.key, muxers)
	if err != nil {
		return err
	}
	noiseTransport, err := noise.New(noise.ID, c.key, muxers)
	if err != nil {
		return err
	}
	if s.upgrader, err = upgrader.New([]sec.SecureTransport{tlsTransport, noiseTransport}, muxers, nil, c.resources, c.gater); err != nil {
		return err
	}
	var tcpOptions []tcp.Option
	if !c.reuseport {
		tcpOptions = append(tcpOptions, tcp.DisableReuseport())
	}
	overTCP, err := tcp.NewTCPTransport(s.upgrader, c.resources, nil, tcpOptions...)
	if err != nil {
		return err
	}
	overQUIC, err := libp2pquic.NewTransport(c.key, sockets, nil, c.gater, c.resources)
	if err != nil {
		return err
	}
	err = errors.Join(s.swarm.AddTransport(overTCP), s.swarm.AddTransport(overQUIC))
	if c.webSocket && err == nil {
		overWebSocket, fault := websocket.New(s.upgrader, c.resources, nil)
		if fault != nil {
			return fault
		}
		err = s.swarm.AddTransport(overWebSocket)
	}
	return err
}

// newSockets makes what shares UDP sockets among QUIC's connections. Who connects is counted by the resource manager from the first packet
// on, which also says when an address must prove itself.
func newSockets(c *stackConfig) (*quicreuse.ConnManager, error) {
	secret, err := c.key.Raw()
	if err != nil {
		return nil, err
	}
	reset, token, err := quicKeys(secret)
	if err != nil {
		return nil, err
	}
	options := []quicreuse.Option{
		quicreuse.ConnContext(func(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
			from, err := quicreuse.ToQuicMultiaddr(client.RemoteAddr, quic.Version1)
			if err != nil {
				from = nil // the resource manager decides about those, too
			}
			scope, err := c.resources.OpenConnection(network.DirInbound, false, from)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}),
		quicreuse.VerifySourceAddress(func(a net.Addr) bool { return c.resources.VerifySourceAddress(a) }),
	}
	if c.metrics != nil {
		options = append(options, quicreuse.EnableMetrics(c.metrics))
	}
	return quicreuse.NewConnManager(reset, token, options...)
}

// quicKeys follow from the identity, as libp2p's do: a node that was killed and started again can tell its peers that their connections are
// gone, and knows the addresses that have proven themselves.
func quicKeys(secret []byte) (reset quic.StatelessResetKey, token quic.TokenGeneratorKey, err error) {
	a, err := hkdf.Key(sha256.New, secret, nil, "libp2p quic stateless reset key", len(reset))
	if err != nil {
		return reset, token, err
	}
	b, err := hkdf.Key(sha256.New, secret, nil, "libp2p quic token generator key", len(token))
	if err != nil {
		return reset, token, err
	}
	return quic.StatelessResetKey(a), quic.TokenGeneratorKey(b), nil
}

// A dialler is a host that only dials, under an identity of its own: it calls back those who ask whether they can be reached.
type dialler struct {
	*blankhost.BlankHost
	stack *stack
}

// Close ends its connections.
func (d *dialler) Close() error { return errors.Join(d.BlankHost.Close(), d.stack.Close()) }

// newDialler makes a dialler from c, whose key and metrics it sets. It uses ports of its own: a dial from the listening port could go through
// a hole that a NAT has for it. What it cannot reach says nothing about the network that it is in.
func newDialler(c stackConfig) (*dialler, error) {
	var err error
	if c.key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
		return nil, err
	}
	c.metrics = nil
	c.swarm = append(slices.Clone(c.swarm), swarm.WithReadOnlyBlackHoleDetector())
	s, err := newStack(&c)
	if err != nil {
		return nil, err
	}
	return &dialler{BlankHost: blankhost.NewBlankHost(s.swarm, blankhost.WithEventBus(s.bus)), stack: s}, nil
}

// A basic is libp2p's host with the parts of which it does not know that they must end with it.
type basic struct {
	*basichost.BasicHost
	parts closers
	once  sync.Once
}

// Close ends the parts, and then the host with its peers and the two managers.
func (b *basic) Close() (err error) {
	b.once.Do(func() { err = errors.Join(b.parts.Close(), b.BasicHost.Close()) })
	return err
}

// constructors are those of libp2p's parts that can fail when there are others already.
type constructors struct {
	host    func(network.Network, *basichost.HostOpts) (*basichost.BasicHost, error)
	circuit func(host.Host, transport.Upgrader) error
	relays  func(host.Host, ...autorelay.Option) (*autorelay.AutoRelay, error)
}

// libp2ps are the constructors of every host, but in a test that has one fail.
func libp2ps() constructors {
	return constructors{basichost.NewHost, circuit.AddTransport, autorelay.NewAutoRelay}
}

// build makes libp2p's host from h.o. It owns both managers from here on, also if it fails.
func (h *Host) build(parts constructors, resources network.ResourceManager, conns connmgr.ConnManager, gater connmgr.ConnectionGater) (_ *basic, err error) {
	undo := closers{resources.Close, conns.Close}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.Close())
		}
	}()
	o, metrics := &h.o, h.o.PrometheusRegisterer
	if metrics != nil {
		rcmgr.MustRegisterWith(metrics)
	}
	holes := blackHoles()
	c := stackConfig{
		key: o.Key, resources: resources, gater: gater, webSocket: o.WebSocket, metrics: metrics,
		// Dialling from the listening port is for learning how a NAT maps it. Between nodes on one machine it makes two that dial each other
		// at the same moment meet as two clients.
		reuseport: o.learns(),
		swarm:     append(slices.Clone(holes), swarm.WithDialTimeout(dialTimeout), swarm.WithDialRanker(rankDials)),
	}
	if o.Resolver != nil {
		c.swarm = append(c.swarm, swarm.WithMultiaddrResolver(o.Resolver))
	}
	s, err := newStack(&c)
	if err != nil {
		return nil, err
	}
	undo = append(undo, s.Close)

	options := basichost.HostOpts{
		EventBus: s.bus, ConnManager: conns, AddrsFactory: h.announced, UserAgent: o.Agent, EnablePing: true,
		EnableMetrics: metrics != nil, PrometheusRegisterer: metrics,
		DisableNonPublicAddrPublishing: !o.Private,
		EnableHolePunching:             o.HolePunch,
	}
	if len(o.Listen) > 0 && o.learns() {
		options.NATManager = h.newMapper
	}
	var seen *observedaddrs.Manager
	if o.learns() {
		if seen, err = observedaddrs.NewManager(s.bus, s.swarm); err != nil {
			return nil, err
		}
		undo = append(undo, seen.Close)
		options.ObservedAddrsManager = seen
	}
	if len(o.Listen) > 0 && o.learns() && !o.ownAutoNAT {
		var d *dialler
		if options.AutoNATv2, d, err = publicAutoNAT(c, holes); err != nil {
			return nil, err
		}
		undo = append(undo, d.Close)
	}
	inner, err := parts.host(s.swarm, &options)
	if err != nil {
		return nil, err
	}
	b := &basic{BasicHost: inner, parts: s.closers}
	if seen != nil {
		b.parts = append(b.parts, seen.Close)
	}
	// A host that was not started cannot be closed: its AutoNAT lacks the host then, and panics.
	undo = closers{b.Close, func() error { b.Start(); return nil }}
	if o.HolePunch {
		if err := parts.circuit(b.BasicHost, s.upgrader); err != nil {
			return nil, err
		}
	}
	relays, err := h.newAutoRelay(parts, b.BasicHost)
	if err != nil {
		return nil, err
	}
	if seen != nil {
		seen.Start(s.swarm)
	}
	if relays != nil {
		relays.Start()
		b.parts = append(b.parts, relays.Close)
	}
	b.Start()
	undo = closers{b.Close}
	if err := h.forceReachability(b.BasicHost); err != nil {
		return nil, err
	}
	return b, nil
}

// publicAutoNAT is libp2p's AutoNAT v2: it asks others about our public addresses and dials theirs, with the dialler. Its Close, which ends
// that, is for one that was started.
func publicAutoNAT(c stackConfig, holes []swarm.Option) (*autonatv2.AutoNAT, *dialler, error) {
	metrics := c.metrics
	c.swarm = append(slices.Clone(holes), swarm.WithDialRanker(swarm.NoDelayDialRanker))
	d, err := newDialler(c)
	if err != nil {
		return nil, nil, err
	}
	var options []autonatv2.AutoNATOption
	if metrics != nil {
		options = append(options, autonatv2.WithMetricsTracer(autonatv2.NewMetricsTracer(metrics)))
	}
	an, err := autonatv2.New(d, options...)
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return an, d, nil
}

// newAutoRelay keeps places with relays while nobody can connect; nil: not wanted.
func (h *Host) newAutoRelay(parts constructors, b host.Host) (*autorelay.AutoRelay, error) {
	if !h.o.HolePunch || len(h.o.Listen) == 0 || h.o.Relays == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	options := []autorelay.Option{
		autorelay.WithPeerSource(h.relaySource),
		autorelay.WithNumRelays(wantedRelays), autorelay.WithMinCandidates(1), autorelay.WithMaxCandidates(2 * wantedRelays),
		autorelay.WithBootDelay(0), autorelay.WithMinInterval(reachEvery), autorelay.WithBackoff(time.Minute),
	}
	if h.o.PrometheusRegisterer != nil {
		options = append(options, autorelay.WithMetricsTracer(autorelay.NewMetricsTracer(autorelay.WithRegisterer(h.o.PrometheusRegisterer))))
	}
	return parts.relays(b, options...)
}

// forceReachability keeps AutoNAT of version 1 from asking peers to dial back, for ever. What it would say is said by Run, from what version
// 2 finds.
func (h *Host) forceReachability(b *basichost.BasicHost) error {
	options := []autonat.Option{autonat.WithReachability(network.ReachabilityPublic)}
	if h.o.PrometheusRegisterer != nil {
		options = append(options, autonat.WithMetricsTracer(autonat.NewMetricsTracer(autonat.WithRegisterer(h.o.PrometheusRegisterer))))
	}
	an, err := autonat.New(b, options...)
	if err != nil {
		return err
	}
	b.SetAutoNat(an)
	return nil
}
