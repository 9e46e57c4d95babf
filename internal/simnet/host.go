package simnet

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	ma "github.com/multiformats/go-multiaddr"
)

const port = 8000 // of all hosts

// HostOptions describe a host. The zero value is one with a new key at the next free address.
type HostOptions struct {
	// IP is the address. The zero value is the next of those that IP gives, never one given before. It may be
	// that of a host that was closed or killed.
	IP netip.Addr

	// Key is the identity. Nil: a new one, which follows from Options.Seed and from how many were made before.
	Key crypto.PrivKey

	// Link is the cable's bandwidth. Zero: as in Options.
	Link Link

	// Libp2p are more options of the host, such as a connection manager or a resource manager (without one there are no
	// limits). Transports and listen addresses are not for change.
	Libp2p []libp2p.Option
}

// Host is a libp2p host behind a cable.
type Host struct {
	host.Host

	ip   netip.Addr
	net  *Network
	wire *wire
	quic *quicreuse.ConnManager
	down sync.Once
	err  error // of the close
}

// Traffic is what passed through a host's cable, in bytes of UDP payload.
type Traffic struct {
	BytesIn, BytesOut     int64
	PacketsIn, PacketsOut int64
}

// NewHost starts a host. It is closed with the simulation, if not before.
func (n *Network) NewHost(o HostOptions) (*Host, error) {
	if n.ctx.Err() != nil {
		return nil, errClosed
	}
	if o.Key == nil {
		var err error
		if o.Key, err = n.key(); err != nil {
			return nil, fmt.Errorf("key of a host: %w", err)
		}
	}
	if !o.IP.IsValid() {
		n.mu.Lock()
		o.IP = IP(n.next)
		n.next++
		n.mu.Unlock()
	}
	h := &Host{ip: o.IP, net: n}
	opts := append([]libp2p.Option{
		libp2p.Identity(o.Key),
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", o.IP, port)),
		libp2p.QUICReuse(quicreuse.NewConnManager,
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source(o.IP), nil }),
			quicreuse.OverrideListenUDP(func(_ string, at *net.UDPAddr) (net.PacketConn, error) {
				h.wire = n.plugIn(o.IP, at, o.Link)
				return h.wire, nil
			}),
		),
		// The only transport: nothing can leave the simulation. libp2p does not close a connection manager of QUIC
		// that it did not make itself, so it is kept here.
		libp2p.Transport(func(key crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, rm network.ResourceManager) (transport.Transport, error) {
			h.quic = cm
			return libp2pquic.NewTransport(key, cm, psk, gater, rm)
		}),
		libp2p.DisableIdentifyAddressDiscovery(), // it stalls virtual time
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableMetrics(),
	}, o.Libp2p...)
	lh, err := libp2p.New(opts...)
	if err != nil {
		if h.quic != nil {
			_ = h.quic.Close()
		}
		return nil, fmt.Errorf("host at %s: %w", o.IP, err)
	}
	h.Host = lh
	n.mu.Lock()
	n.hosts[h] = true
	n.mu.Unlock()
	return h, nil
}

// key makes the identity of one more host. It follows from the seed and from how many were made before: who is near whom in the DHT
// is to be the same in every run.
func (n *Network) key() (crypto.PrivKey, error) {
	n.mu.Lock()
	n.keys++
	seed := sha256.Sum256(fmt.Appendf(nil, "dunlin simulation %d, host %d", n.opts.Seed, n.keys))
	n.mu.Unlock()
	return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
}

// IP is the host's address.
func (h *Host) IP() netip.Addr { return h.ip }

// Info is how others reach the host.
func (h *Host) Info() peer.AddrInfo {
	return peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{h.listen()}}
}

// Addr is the same as one address, with /p2p.
func (h *Host) Addr() ma.Multiaddr {
	return ma.StringCast(h.listen().String() + "/p2p/" + h.ID().String())
}

func (h *Host) listen() ma.Multiaddr {
	return ma.StringCast(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", h.ip, port))
}

// Traffic is what has passed so far.
func (h *Host) Traffic() Traffic {
	s := h.wire.Stats()
	return Traffic{
		BytesIn: int64(s.BytesRcvd), BytesOut: int64(s.BytesSent),
		PacketsIn: int64(s.PacketsRcvd), PacketsOut: int64(s.PacketsSent),
	}
}

// Close stops the host in order: its peers are told.
func (h *Host) Close() error {
	h.down.Do(func() {
		h.net.mu.Lock()
		delete(h.net.hosts, h)
		h.net.mu.Unlock()
		h.err = h.Host.Close()
		_ = h.quic.Close()
	})
	return h.err
}

// Kill stops the host as a power cut would: nobody is told.
func (h *Host) Kill() {
	h.Cut()
	_ = h.Close()
}

// Cut pulls the host's cable out.
func (h *Host) Cut() { h.wire.cut.Store(true) }

// Plug puts it back.
func (h *Host) Plug() { h.wire.cut.Store(false) }

// plugIn makes the end of a cable.
func (n *Network) plugIn(ip netip.Addr, at *net.UDPAddr, l Link) *wire {
	n.mu.Lock() // the simulator's list of cables has no lock of its own
	defer n.mu.Unlock()
	return &wire{SimConn: n.net.NewEndpoint(at, l.settings(n.opts.Link)), ip: ip, net: n}
}

// wire is a host's end of its cable. What must not pass is dropped at both ends, so that what was under way is lost
// too.
type wire struct {
	*simnet.SimConn
	ip  netip.Addr
	net *Network
	cut atomic.Bool
}

func (w *wire) passes(other net.Addr) bool { return !w.cut.Load() && w.net.joined(w.ip, ipOf(other)) }

// WriteTo implements net.PacketConn. As on a real cable, the sender does not notice what is lost.
func (w *wire) WriteTo(p []byte, to net.Addr) (int, error) {
	if !w.passes(to) {
		return len(p), nil
	}
	return w.SimConn.WriteTo(p, to)
}

// ReadFrom implements net.PacketConn.
func (w *wire) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := w.SimConn.ReadFrom(p)
		if err != nil || w.passes(from) {
			return n, from, err
		}
	}
}

// source tells QUIC that a host with one address sends from it.
type source netip.Addr

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return netip.Addr(s).AsSlice(), nil
}
