package host

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
)

// ProtocolLimit bounds what a protocol may take. Zero fields keep libp2p's
// defaults (64 inbound streams and 16 MiB a peer, 512 streams in all).
type ProtocolLimit struct {
	InPerPeer     int   // inbound streams of one peer
	In            int   // inbound streams of all peers
	OutPerPeer    int   // outbound streams to one peer
	Out           int   // outbound streams to all peers
	MemoryPerPeer int64 // bytes that handlers reserve for one peer
	Memory        int64 // bytes that handlers reserve in all
}

// Per-address limits of a public network. Eight connections are what one swarm
// may try at once; libp2p's own 0.2 new connections a second refuses a home
// with three nodes that restart together, so a little more.
const (
	publicConnsPerIP = 8  // and what admission lets in, see slotsPerIP
	publicConnsPer24 = 32 // a /24 is one operator more often than not
	publicRatePerIP  = 1  // new connections a second
	publicBurstPerIP = 32

	// A whole testnet may stand behind one NAT address.
	privateRatePerIP  = 50
	privateBurstPerIP = 500

	// Behind Docker's proxy the whole Internet comes from one private address:
	// the total (MaxInbound) bounds those, the rate only dampens.
	localRate  = 20
	localBurst = 200
)

// localPrefixes can be sent from only by hosts of one's own network (or by a
// proxy in front of the node). They cannot be spoofed from the Internet, where a
// handshake does not reach them.
var localPrefixes = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),  // carrier NAT, overlay networks
	netip.MustParsePrefix("169.254.0.0/16"), // link local
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// loopbackPrefixes have no limit of their own: who is on this machine has
// easier ways to trouble the node.
var loopbackPrefixes = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("::1/128"),
}

// manager is what libp2p's resource manager offers beyond the interface; parts
// of libp2p look for it by type assertion.
type manager interface {
	network.ResourceManager
	rcmgr.ResourceManagerState
	GetConnLimit() int
	OpenConnectionNoIP(dir network.Direction, usefd bool, endpoint multiaddr.Multiaddr) (network.ConnManagementScope, error)
}

// resources is libp2p's resource manager, which also counts refusals: it reports
// those by address to nobody.
type resources struct {
	manager
	refused *refusals
}

// OpenConnection implements network.ResourceManager.
func (r resources) OpenConnection(dir network.Direction, usefd bool, endpoint multiaddr.Multiaddr) (network.ConnManagementScope, error) {
	scope, err := r.manager.OpenConnection(dir, usefd, endpoint)
	if err != nil && dir == network.DirInbound {
		r.refused.connection(err)
	}
	return scope, err
}

// newResources builds the resource manager from validated options.
func newResources(o *Options, refused *refusals) (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	serviceLimits(&scaling)
	limits := partialLimits(o).Build(scaling.AutoScale())

	v4, v6 := subnetLimits(o)
	prefix4, prefix6 := prefixLimits(o)
	opts := []rcmgr.Option{
		rcmgr.WithLimitPerSubnet(v4, v6),
		rcmgr.WithNetworkPrefixLimit(prefix4, prefix6),
		rcmgr.WithConnRateLimiters(rateLimits(o)),
		rcmgr.WithMetrics(refused),
	}
	if o.PrometheusRegisterer == nil {
		opts = append(opts, rcmgr.WithMetricsDisabled())
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), opts...)
	if err != nil {
		return nil, err
	}
	m, ok := rm.(manager)
	if !ok {
		return nil, errors.Join(errors.New("resource manager lacks a method of version 0.51"), rm.Close())
	}
	return resources{manager: m, refused: refused}, nil
}

// serviceLimits bound libp2p's own services, by the figures that libp2p has for them: in all, more with each GiB of memory, and by peer. Those
// that traversalLimits has figures for, and AutoNAT of version 1, which nobody serves here, are left out.
func serviceLimits(l *rcmgr.ScalingLimitConfig) {
	const windows = 32 * (256<<20 + 16<<10) // of yamux and QUIC, that many streams
	streams := func(each, all int, memory int64) rcmgr.BaseLimit {
		return rcmgr.BaseLimit{StreamsInbound: each, StreamsOutbound: each, Streams: all, Memory: memory}
	}
	grows := func(b rcmgr.BaseLimit) rcmgr.BaseLimitIncrease {
		return rcmgr.BaseLimitIncrease{StreamsInbound: b.StreamsInbound, StreamsOutbound: b.StreamsOutbound, Streams: b.Streams, Memory: b.Memory}
	}
	once := rcmgr.BaseLimitIncrease{}

	all := streams(64, 128, 4<<20)
	l.AddServiceLimit(identify.ServiceName, all, grows(all))
	l.AddServicePeerLimit(identify.ServiceName, streams(16, 32, 1<<20), once)
	for _, id := range []protocol.ID{identify.ID, identify.IDPush} {
		l.AddProtocolLimit(id, all, grows(all))
		l.AddProtocolPeerLimit(id, streams(16, 32, windows), once)
	}

	all = streams(64, 64, 4<<20)
	one := rcmgr.BaseLimit{StreamsInbound: 2, StreamsOutbound: 3, Streams: 4, Memory: windows}
	l.AddServiceLimit(ping.ServiceName, all, grows(all))
	l.AddServicePeerLimit(ping.ServiceName, one, once)
	l.AddProtocolLimit(ping.ID, all, grows(all))
	l.AddProtocolPeerLimit(ping.ID, one, once)

	all = streams(256, 256, 16<<20) // of one that is a relay traversalLimits decides
	l.AddServiceLimit(relay.ServiceName, all, grows(all))
	l.AddServicePeerLimit(relay.ServiceName, streams(64, 64, 1<<20), once)
}

// partialLimits are the limits that differ from libp2p's defaults.
func partialLimits(o *Options) rcmgr.PartialLimitConfig {
	// MaxInbound is for admission to keep, which knows who the peers are; this is what may be on its way there.
	over := handshakes(o)
	inbound := rcmgr.LimitVal(o.MaxInbound + over)
	if o.MaxInbound == 0 {
		inbound, over = rcmgr.BlockAllLimit, 0 // a plain 0 stands for the library's default
	}
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns:         rcmgr.LimitVal(o.MaxConns + over),
			ConnsInbound:  inbound,
			ConnsOutbound: rcmgr.LimitVal(o.MaxConns),
			// Each peer keeps a handful of long-lived streams and some short ones.
			Streams:         rcmgr.LimitVal(o.MaxConns * 64),
			StreamsInbound:  rcmgr.LimitVal(o.MaxConns * 32),
			StreamsOutbound: rcmgr.LimitVal(o.MaxConns * 32),
			FD:              rcmgr.LimitVal(o.MaxConns + over),
		},
		// Connections in their handshake.
		Transient: rcmgr.ResourceLimits{
			Conns:         rcmgr.LimitVal(max(o.MaxConns/2, 64)),
			ConnsInbound:  rcmgr.LimitVal(max(o.MaxInbound/2, 32)),
			ConnsOutbound: rcmgr.LimitVal(max(o.MaxConns/2, 64)),
			FD:            rcmgr.LimitVal(max(o.MaxConns/2, 64)),
		},
		Protocol:     make(map[protocol.ID]rcmgr.ResourceLimits, len(o.ProtocolLimits)),
		ProtocolPeer: make(map[protocol.ID]rcmgr.ResourceLimits, len(o.ProtocolLimits)),
	}
	traversalLimits(o, &limits)
	for id, l := range o.ProtocolLimits {
		limits.Protocol[id] = streamLimits(l.In, l.Out, l.Memory)
		limits.ProtocolPeer[id] = streamLimits(l.InPerPeer, l.OutPerPeer, l.MemoryPerPeer)
	}
	return limits
}

// traversalLimits bound what libp2p does for hosts behind NATs: its own limits grow with the memory of the machine,
// and what strangers may ask for should not.
func traversalLimits(o *Options, limits *rcmgr.PartialLimitConfig) {
	limits.Service = map[string]rcmgr.ResourceLimits{}
	limits.ServicePeer = map[string]rcmgr.ResourceLimits{}
	service := func(name string, perPeer, total int, memory int64, ids ...protocol.ID) {
		limits.Service[name] = streamLimits(total, total, memory)
		limits.ServicePeer[name] = streamLimits(perPeer, perPeer, memory/4)
		for _, id := range ids {
			limits.Protocol[id] = streamLimits(total, total, memory)
			limits.ProtocolPeer[id] = streamLimits(perPeer, perPeer, memory/4)
		}
	}
	// A request to dial back lasts 15 s at most; the server takes one a second, and one in 5 s from a peer.
	service(autonatv2.ServiceName, 4, 32, 1<<20, autonatv2.DialProtocol, autonatv2.DialBackProtocol)
	service(holepunch.ServiceName, 4, 32, 1<<20, holepunch.Protocol)
	if o.Relay {
		service(relay.ServiceName, relayCircuitsPerPeer+2, relayCircuits, 8<<20) // a stream each way
	}
	for _, id := range []protocol.ID{proto.ProtoIDv2Hop, proto.ProtoIDv2Stop} {
		limits.Protocol[id] = streamLimits(relayCircuits+relayReservations, relayCircuits+relayReservations, 8<<20)
		limits.ProtocolPeer[id] = streamLimits(relayCircuitsPerPeer+2, relayCircuitsPerPeer+2, 2<<20)
	}
}

func streamLimits(in, out int, memory int64) rcmgr.ResourceLimits {
	l := rcmgr.ResourceLimits{
		StreamsInbound:  rcmgr.LimitVal(in),
		StreamsOutbound: rcmgr.LimitVal(out),
		Memory:          rcmgr.LimitVal64(memory),
	}
	if in > 0 && out > 0 {
		l.Streams = rcmgr.LimitVal(in + out)
	}
	return l
}

// subnetLimits are the connections from one address or subnet that no prefix
// limit covers.
func subnetLimits(o *Options) (v4, v6 []rcmgr.ConnLimitPerSubnet) {
	// Admission's shares and some handshakes, so that equals can take turns, and outbound ones, which count here too.
	narrow := max(publicConnsPerIP, slotsPerIP(o)+4)
	wide := max(publicConnsPer24, narrow)
	group := max(slotsPerGroup(o)+handshakes(o)/2, wide)
	if o.Private {
		narrow, wide, group = o.MaxConns, o.MaxConns, o.MaxConns
	}
	v4 = []rcmgr.ConnLimitPerSubnet{
		{PrefixLength: 32, ConnCount: narrow}, {PrefixLength: 24, ConnCount: wide}, {PrefixLength: 16, ConnCount: group},
	}
	// A /56 is what a home gets.
	v6 = []rcmgr.ConnLimitPerSubnet{
		{PrefixLength: 56, ConnCount: narrow}, {PrefixLength: 48, ConnCount: wide}, {PrefixLength: 32, ConnCount: group},
	}
	return v4, v6
}

// prefixLimits lift the limit by subnet for the addresses where it would hit
// the wrong ones.
func prefixLimits(o *Options) (v4, v6 []rcmgr.NetworkPrefixLimit) {
	add := func(p netip.Prefix, count int) {
		l := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: count}
		if p.Addr().Is4() {
			v4 = append(v4, l)
		} else {
			v6 = append(v6, l)
		}
	}
	for _, p := range loopbackPrefixes {
		add(p, math.MaxInt)
	}
	for _, p := range localPrefixes {
		add(p, o.MaxConns)
	}
	return v4, v6
}

// rateLimits bound new connections by address.
func rateLimits(o *Options) *rate.Limiter {
	perIP := rate.Limit{RPS: publicRatePerIP, Burst: publicBurstPerIP}
	if o.Private {
		perIP = rate.Limit{RPS: privateRatePerIP, Burst: privateBurstPerIP}
	}
	local := rate.Limit{RPS: localRate, Burst: localBurst}
	if o.Private {
		local = rate.Limit{} // none
	}
	l := &rate.Limiter{SubnetRateLimiter: rate.SubnetLimiter{
		IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perIP}},
		IPv6SubnetLimits: []rate.SubnetLimit{
			{PrefixLength: 56, Limit: perIP},
			{PrefixLength: 48, Limit: rate.Limit{RPS: 4 * perIP.RPS, Burst: 4 * perIP.Burst}},
		},
		GracePeriod: time.Minute,
	}}
	for _, p := range loopbackPrefixes {
		l.NetworkPrefixLimits = append(l.NetworkPrefixLimits, rate.PrefixLimit{Prefix: p})
	}
	for _, p := range localPrefixes {
		l.NetworkPrefixLimits = append(l.NetworkPrefixLimits, rate.PrefixLimit{Prefix: p, Limit: local})
	}
	return l
}
