package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// A dial-back takes 15 s at most; a router may take natPatience before.
	dialBackTimeout = 20 * time.Second
	maxDialBacks    = 4 // addresses that are asked about
)

// ErrNoDialBack says that a peer does not dial back.
var ErrNoDialBack = errors.New("it does not dial back")

// A DialBack is the result of one question.
type DialBack struct {
	Addr      ma.Multiaddr // that the other node was asked to connect to
	Reachable bool
	Err       error // why nothing is known; nil if it is
}

// ownAddress lets a dialler dial a peer of h at addresses from which that peer is connected with h, and nobody else: who asks for a dial-back
// on a private network must not have other machines of that network dialled.
type ownAddress struct {
	host host.Host
	bans *Bans
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g ownAddress) InterceptPeerDial(id peer.ID) bool {
	return g.bans == nil || g.bans.InterceptPeerDial(id)
}

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g ownAddress) InterceptAddrDial(id peer.ID, addr ma.Multiaddr) bool {
	want, ok := addrIP(addr)
	if !ok || isRelayed(addr) || g.bans != nil && !g.bans.InterceptAddrDial(id, addr) {
		return false
	}
	return slices.ContainsFunc(g.host.Network().ConnsToPeer(id), func(c network.Conn) bool {
		ip, ok := addrIP(c.RemoteMultiaddr())
		return ok && ip == want && !OverRelay(c)
	})
}

// InterceptAccept implements connmgr.ConnectionGater.
func (ownAddress) InterceptAccept(network.ConnMultiaddrs) bool { return false }

// InterceptSecured implements connmgr.ConnectionGater.
func (ownAddress) InterceptSecured(dir network.Direction, _ peer.ID, _ network.ConnMultiaddrs) bool {
	return dir == network.DirOutbound
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (ownAddress) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// newAutoNAT makes an AutoNAT v2 of our own on h: asked, it dials the asker back at the address from which it is connected, private or not.
// libp2p's own serves public addresses only.
func newAutoNAT(h host.Host, bans *Bans) (*autonatv2.AutoNAT, error) {
	dialer, err := newDialler(stackConfig{
		// The limits are those of the server: a dial a second, two at once for a peer.
		resources: &network.NullResourceManager{}, gater: ownAddress{h, bans},
		swarm: append(blackHoles(), swarm.WithDialTimeout(dialTimeout)),
	})
	if err != nil {
		return nil, err
	}
	an, err := autonatv2.New(dialer, autonatv2.AllowPrivateAddrs)
	if err == nil {
		err = an.Start(h)
	}
	if err != nil {
		return nil, errors.Join(err, dialer.Close())
	}
	return an, nil
}

// TryDialBack makes a host with the options o, which must listen, under an identity of its own, and asks peer whether it can connect to it. It
// tries what the host would announce, or the addresses at which the peer sees it with the ports that it listens on. With o.NAT it
// asks the router for a port first. It blocks for a minute at most. The error says why nothing could be asked: no connection with the peer,
// or ErrNoDialBack.
func TryDialBack(ctx context.Context, o Options, server peer.AddrInfo) (results []DialBack, state Reachability, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if o.Key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
		return nil, state, err
	}
	o.HolePunch, o.Relay, o.PrometheusRegisterer, o.ownAutoNAT = false, false, nil, true
	h, err := New(o)
	if err != nil {
		return nil, state, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	events, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return nil, state, err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	if err := h.Connect(ctx, server); err != nil {
		return nil, state, err
	}
	var seen ma.Multiaddr
	for seen == nil {
		select {
		case e := <-events.Out():
			if id, ok := e.(event.EvtPeerIdentificationCompleted); ok && id.Peer == server.ID {
				h.note(id)
				if seen = id.ObservedAddr; seen == nil {
					return nil, state, errors.New("it does not say how it sees us")
				}
			}
		case <-ctx.Done():
			return nil, state, ctx.Err()
		}
	}
	if ok, err := h.Peerstore().SupportsProtocols(server.ID, autonatv2.DialProtocol); err != nil || len(ok) == 0 {
		return nil, h.Reachability(), errors.Join(ErrNoDialBack, err)
	}
	state = h.awaitNAT(ctx)
	for _, a := range dialBackAddrs(seen, state, o.Announce) {
		results = append(results, h.askDialBack(ctx, server.ID, a))
	}
	return results, state, nil
}

// awaitNAT waits until the router has answered or will not.
func (h *Host) awaitNAT(ctx context.Context) Reachability {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		r := h.measure(time.Now())
		if r.NAT != NATAsking {
			return r
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r
		}
	}
}

// dialBackAddrs are the addresses worth asking about: what the operator announces, what the router maps, or else the address where we are
// seen with each port that we listen on.
func dialBackAddrs(seen ma.Multiaddr, r Reachability, announce []ma.Multiaddr) []ma.Multiaddr {
	out := slices.Concat(announce, r.Mapped)
	ip, ok := addrIP(seen)
	if len(out) == 0 && ok {
		for _, l := range r.Listen {
			host, err := manet.FromIP(ip.AsSlice())
			if at, has := addrIP(l); err != nil || !has || at.Is4() != ip.Is4() || len(l) < 2 {
				continue
			}
			if a := host.Encapsulate(l[1:]); !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	return out[:min(len(out), maxDialBacks)]
}

// askDialBack asks the connected peer about one address.
func (h *Host) askDialBack(ctx context.Context, server peer.ID, a ma.Multiaddr) (out DialBack) {
	out.Addr = a
	ctx, cancel := context.WithTimeout(ctx, dialBackTimeout)
	defer cancel()
	// A new one each time: it asks a peer once in two minutes only.
	an, err := newAutoNAT(h.Host, h.o.Bans)
	if err != nil {
		out.Err = err
		return out
	}
	defer an.Close()
	// It learns of peers by events, and this one is connected already.
	tell, err := h.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated))
	if err == nil {
		err = errors.Join(tell.Emit(event.EvtPeerProtocolsUpdated{Peer: server}), tell.Close())
	}
	if err != nil {
		out.Err = err
		return out
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var res autonatv2.Result
		res, out.Err = an.GetReachability(ctx, []autonatv2.Request{{Addr: a, SendDialData: true}})
		switch {
		case errors.Is(out.Err, autonatv2.ErrNoPeers) && ctx.Err() == nil: // it has not heard yet
		case out.Err == nil && res.AllAddrsRefused:
			out.Err = fmt.Errorf("it does not dial %s", a)
			return out
		default:
			out.Reachable = res.Reachability == network.ReachabilityPublic
			return out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out
		}
	}
}
