// Package host makes the node's libp2p host: its identity, transports, limits
// and addresses. It knows no protocol of ours; callers hand it their limits.
//
// Transports are TCP and QUIC, and WebSocket if it is asked for; TCP is secured by TLS 1.3 or Noise and
// multiplexed by yamux. TCP is dialled first, QUIC if it does not answer: bulk is
// cheaper over TCP, and some peers can only be reached over QUIC.
//
// A host behind a NAT is reached in three ways: a port that its router maps, one that the operator
// forwards, or a hole punched with the help of a relay. A relay carries the few words that a hole needs and nothing
// else: what speaks over the host does not allow limited connections, so blocks never travel over relays.
//
// Invariants:
//   - New succeeds only if it listens on every address it was asked to (IPv6
//     excepted where the machine has none).
//   - It never tells anyone an unspecified address such as 0.0.0.0.
//   - Connections, streams and memory are bounded, in all, by peer, by protocol
//     and by address.
package host

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of Options.
const (
	DefaultMaxInbound = 128
	DefaultMaxConns   = 192

	// dialTimeout bounds one dial: two round trips of TCP and TLS to the other
	// side of the world take half a second; a host that needs ten is of no use.
	dialTimeout = 10 * time.Second

	maxListen = 32 // sockets
)

// Options configure a host. Zero values mean the default given.
type Options struct {
	Key      crypto.PrivKey // required
	Listen   []ma.Multiaddr // TCP and QUIC addresses; empty: the host only dials
	Announce []ma.Multiaddr // told to others instead of the addresses found
	// NoAnnounce are addresses never told to others.
	NoAnnounce []netip.Prefix
	Agent      string // for identify, such as "dunlin/0.1.0"; default "dunlin"

	// Private says that this is no public network (testnets on a LAN, in
	// containers, on loopback): private addresses are told to others, many nodes
	// may share an address, and the host does not ask how others see it.
	Private bool
	// NAT asks a home router for a port mapping (UPnP, NAT-PMP).
	NAT bool
	// HolePunch lets others reach the host behind a NAT, and the host them: while nobody can connect to it directly,
	// it keeps a place with at most two of Relays, through which a direct connection is arranged (DCUtR).
	HolePunch bool
	// Relays names the peers that may be asked for a place: the operator's own choice, never whoever offers.
	// It is called from time to time, by one goroutine, and must not block. Those who are not connected, or are no relays, are passed
	// over. Nil: none.
	Relays func() []peer.ID
	// Relay makes the host a relay for others, within tight limits (see limits.go). It should have a public address.
	Relay bool
	// RelayFor are protocols of which a peer must speak one to be relayed, so that the relay serves its own network only. Needed with Relay.
	RelayFor []protocol.ID
	// WebSocket adds the transport for addresses that end in /ws, and dials those that end in /wss.
	WebSocket bool

	// MaxInbound bounds the connections that others opened; default 128; -1: none. When there are so many, a newcomer may
	// take the place of one that has less right to it; see Standing. On a public network an address or an IP
	// group has a share of them only.
	MaxInbound int
	MaxConns   int // connections in all; default 192; at least MaxInbound

	// ProtocolLimits bound protocols by id; libp2p's own have defaults.
	ProtocolLimits map[protocol.ID]ProtocolLimit

	// Bans keeps peers and addresses away, both ways; nil: nobody.
	Bans *Bans

	// Resolver resolves the names in dialled multiaddrs; default the system's.
	Resolver network.MultiaddrDNSResolver

	PrometheusRegisterer prometheus.Registerer // nil: no metrics
	Logger               *slog.Logger          // default: none

	ownAutoNAT bool // not libp2p's, which has its own mind about when to ask
}

// complete fills in defaults and reports every fault.
func (o *Options) complete() error {
	var errs []error
	if o.Key == nil {
		errs = append(errs, errors.New("no identity key"))
	}
	if o.Agent == "" {
		o.Agent = "dunlin"
	}
	if o.MaxConns == 0 {
		o.MaxConns = max(DefaultMaxConns, o.MaxInbound)
	}
	if o.MaxInbound == 0 {
		o.MaxInbound = min(DefaultMaxInbound, o.MaxConns)
	}
	if o.MaxInbound == -1 {
		o.MaxInbound = 0
	}
	if o.MaxInbound < 0 || o.MaxConns < o.MaxInbound {
		errs = append(errs, fmt.Errorf("max inbound %d and max connections %d: want 0 < inbound ≤ connections", o.MaxInbound, o.MaxConns))
	}
	if len(o.Listen) > maxListen {
		errs = append(errs, fmt.Errorf("%d listen addresses: at most %d", len(o.Listen), maxListen))
	}
	for _, a := range o.Listen {
		switch {
		case supported(a, true) && !supported(a, o.WebSocket):
			errs = append(errs, fmt.Errorf("listen address %s: the WebSocket transport is off (p2p.websocket)", a))
		case !supported(a, o.WebSocket):
			errs = append(errs, fmt.Errorf("listen address %s: want an IP address with /tcp/<port>, /tcp/<port>/ws or /udp/<port>/quic-v1", a))
		}
	}
	for _, a := range o.Announce {
		if manet.IsIPUnspecified(a) {
			errs = append(errs, fmt.Errorf("announce address %s: others cannot dial an unspecified address", a))
		}
	}
	if o.Relay && len(o.RelayFor) == 0 {
		errs = append(errs, errors.New("relay: no protocols of the peers to relay for"))
	}
	for id, l := range o.ProtocolLimits {
		if min(l.In, l.InPerPeer, l.Out, l.OutPerPeer) < 0 || min(l.Memory, l.MemoryPerPeer) < 0 {
			errs = append(errs, fmt.Errorf("limits of %s: negative", id))
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// supported reports whether one of our transports can listen on the address.
func supported(a ma.Multiaddr, ws bool) bool {
	codes := make([]int, 0, 4)
	for _, c := range a {
		if c.Protocol().Code != ma.P_IP6ZONE {
			codes = append(codes, c.Protocol().Code)
		}
	}
	for _, ip := range []int{ma.P_IP4, ma.P_IP6} {
		if slices.Equal(codes, []int{ip, ma.P_TCP}) || slices.Equal(codes, []int{ip, ma.P_UDP, ma.P_QUIC_V1}) ||
			ws && slices.Equal(codes, []int{ip, ma.P_TCP, ma.P_WS}) {
			return true
		}
	}
	return false
}

// Host is a listening libp2p host. Close it when its users have stopped.
type Host struct {
	host.Host
	o         Options
	refused   *refusals
	admission *admission
	mapper    *portMapper        // nil: the host does not find out how it can be reached
	relay     *relay.Relay       // nil: this is none
	autonat   *autonatv2.AutoNAT // nil: libp2p's, or none
	reach     reach
}

// New makes the host and listens. Like every libp2p host it runs goroutines
// from here on, until Close. Errors name the address and what to do.
func New(o Options) (*Host, error) { return newHost(o, libp2ps()) }

func newHost(o Options, parts constructors) (*Host, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("host options: %w", err)
	}
	refused := &refusals{logger: o.Logger, maxInbound: o.MaxInbound}
	admission := newAdmission(&o, refused)
	rm, err := newResources(&o, refused)
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	// What exceeds the high mark is trimmed, unprotected peers first: connections that the DHT made for a
	// query. Who dials us is for admission to judge, so a trim is small. The marks leave room below the resource manager's limit.
	high := max(o.MaxConns-o.MaxConns/16, 1)
	cm, err := connmgr.NewConnManager(max(high-o.MaxConns/32, 1), high)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connection manager: %w", err), rm.Close())
	}

	bans := o.Bans
	if bans == nil {
		bans = &Bans{now: time.Now}
	}
	o.Announce, o.NoAnnounce = slices.Clone(o.Announce), slices.Clone(o.NoAnnounce)
	h := &Host{o: o, refused: refused, admission: admission}
	inner, err := h.build(parts, rm, cm, gate{bans, admission})
	if err != nil {
		return nil, fmt.Errorf("libp2p host: %w", err)
	}
	h.Host = inner
	admission.dialled = h.dialled
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { admission.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { admission.disconnected(c) },
	})
	if err := h.listen(o.Listen, o.Logger); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	if !o.learns() && len(o.Listen) > 0 && !o.ownAutoNAT {
		// Nobody is asked on a private network, but who asks is answered.
		if h.autonat, err = newAutoNAT(inner, o.Bans); err != nil {
			return nil, errors.Join(fmt.Errorf("dial-back: %w", err), h.Close())
		}
	}
	if o.Relay {
		if h.relay, err = newRelay(inner, &o); err != nil {
			return nil, errors.Join(fmt.Errorf("relay: %w", err), h.Close())
		}
	}
	return h, nil
}

// announced are the addresses told to others, of those found.
func (h *Host) announced(found []ma.Multiaddr) []ma.Multiaddr {
	return announced(h.proven(found), h.o.Announce, h.o.NoAnnounce)
}

// SetStreamHandler is libp2p's, but what comes over a relay never gets to a handler: a peer that is not connected directly has no business
// with what speaks over this host.
func (h *Host) SetStreamHandler(id protocol.ID, handler network.StreamHandler) {
	h.Host.SetStreamHandler(id, directOnly(handler))
}

// SetStreamHandlerMatch is libp2p's, as SetStreamHandler.
func (h *Host) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handler network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(id, match, directOnly(handler))
}

func directOnly(handler network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if OverRelay(s.Conn()) {
			_ = s.ResetWithError(network.StreamProtocolViolation)
			return
		}
		handler(s)
	}
}

// OverRelay says whether a connection runs through a relay, whatever limits that one has. Such a connection makes no peer.
func OverRelay(c network.Conn) bool { return c.Stat().Limited || isRelayed(c.RemoteMultiaddr()) }

// Close ends every connection and all goroutines of the host.
func (h *Host) Close() error {
	var err error
	if h.relay != nil {
		err = h.relay.Close()
	}
	if h.autonat != nil {
		h.autonat.Close()
	}
	err = errors.Join(err, h.Host.Close())
	h.reach.sources.Wait() // their context ended with the host
	return err
}

// listen opens every address or fails with all that could not be opened.
func (h *Host) listen(addrs []ma.Multiaddr, logger *slog.Logger) error {
	n, ok := h.Network().(interface{ AddListenAddr(ma.Multiaddr) error })
	if !ok {
		return errors.New("listen: the swarm lacks a method of version 0.51")
	}
	var errs []error
	var no6 []ma.Multiaddr
	for _, a := range addrs {
		err := probe(a)
		if err == nil {
			err = n.AddListenAddr(a)
		}
		switch {
		case err == nil:
		case LacksIPv6(a, err):
			no6 = append(no6, a)
		default:
			errs = append(errs, listenError(a, err))
		}
	}
	if len(no6) > 0 {
		if len(no6) == len(addrs) {
			errs = append(errs, fmt.Errorf("listen %s: this machine has no IPv6", no6))
		} else {
			logger.Info("not listening on ipv6: this machine has none", "addrs", no6)
		}
	}
	return errors.Join(errs...)
}

// probe finds out whether another process listens on a TCP port: libp2p sets
// SO_REUSEPORT, with which two processes of one user share a port in silence and
// each gets half of the connections. UDP sockets are not shared.
func probe(a ma.Multiaddr) error {
	port, err := a.ValueForProtocol(ma.P_TCP)
	if err != nil || port == "0" {
		return nil //nolint:nilerr // another transport: nothing to find out
	}
	l, err := manet.Listen(a)
	if err != nil {
		return err
	}
	return l.Close()
}

// LacksIPv6 reports whether the address asks for all of IPv6 on a machine that
// has it switched off.
func LacksIPv6(a ma.Multiaddr, err error) bool {
	_, e := a.ValueForProtocol(ma.P_IP6)
	return e == nil && manet.IsIPUnspecified(a) &&
		(errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL))
}

// listenError says what an operator can do.
func listenError(a ma.Multiaddr, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen %s: address already in use by another process: choose another port with --port or stop it: %w", a, bare(err))
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen %s: not allowed: choose a port above 1023 with --port: %w", a, bare(err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen %s: this machine has no such address: %w", a, bare(err))
	}
	return fmt.Errorf("listen %s: %w", a, err)
}

// bare strips the address, which the text has already.
func bare(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// LocalAddrs are JoinAddrs and after them the addresses that only this machine can
// dial: for scripts that run on it.
func (h *Host) LocalAddrs() []ma.Multiaddr {
	addrs := h.direct()
	if all, err := h.Network().InterfaceListenAddresses(); err == nil {
		for _, a := range all {
			if !slices.ContainsFunc(addrs, a.Equal) {
				addrs = append(addrs, a)
			}
		}
	}
	return h.full(addrs)
}

// JoinAddrs are the full multiaddrs, with /p2p/<id>, under which others can join
// this node, best first: those that others have reached, public, then LAN, then loopback; TCP before QUIC. It is
// empty if the host does not listen. The list can change as interfaces come and
// go. Relayed addresses are none to hand out: a newcomer would depend on a third node.
func (h *Host) JoinAddrs() []ma.Multiaddr {
	return h.full(h.direct())
}

// direct are the announced addresses without those through relays.
func (h *Host) direct() []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(h.Addrs()), isRelayed)
}

// full sorts addrs, the caller's no longer, and gives each the peer id.
func (h *Host) full(addrs []ma.Multiaddr) []ma.Multiaddr {
	sortJoinAddrs(addrs, h.Reachability().Confirmed)
	id, err := ma.NewComponent("p2p", h.ID().String())
	if err != nil {
		panic(err) // a peer id encodes
	}
	for i, a := range addrs {
		addrs[i] = a.Encapsulate(id.Multiaddr())
	}
	return addrs
}

// Refused counts what the limits turned away since the start.
func (h *Host) Refused() Refusals { return h.refused.stats() }
