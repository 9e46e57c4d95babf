package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxAddrsPerPeer bounds the addresses kept of a peer.
const maxAddrsPerPeer = 8

// maxRelayedPerPeer bounds those of them that lead through relays.
const maxRelayedPerPeer = 4

// maxAddrBytes bounds one address; a DNS name has at most 255 bytes.
const maxAddrBytes = 512

// addrIP returns the address with which a begins. The second result is false for a
// relayed address, a DNS name and anything else without an IP of the peer itself.
func addrIP(a ma.Multiaddr) (netip.Addr, bool) {
	if isRelay(a) {
		return netip.Addr{}, false
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	n, ok := netip.AddrFromSlice(ip)
	return n.Unmap(), ok
}

func isRelay(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// relayOf divides the address of a peer behind a relay, without the peer's own id: /ip4/…/tcp/…/p2p/<relay>/p2p-circuit. It
// fails for anything else, such as two relays in a row or one without an IP.
func relayOf(a ma.Multiaddr) (addr ma.Multiaddr, relay peer.ID, ok bool) {
	if len(a) < 4 || a[len(a)-1].Protocol().Code != ma.P_CIRCUIT {
		return nil, "", false
	}
	addr, relay = splitPeer(a[:len(a)-1])
	if _, direct := addrIP(addr); !direct || relay == "" {
		return nil, "", false
	}
	_, err := addr.ValueForProtocol(ma.P_P2P)
	return addr, relay, err != nil
}

// groupOf names the IP group of an address: the /16 of IPv4 and the /32 of IPv6,
// about what one operator controls. Loopback and private ranges are groups too.
// Behind a relay it is the relay's: whoever has one address can be a relay for as many peers as it likes.
// It is "" if the address has no IP.
func groupOf(a ma.Multiaddr) string {
	if addr, _, ok := relayOf(a); ok {
		a = addr
	}
	ip, ok := addrIP(a)
	if !ok {
		return ""
	}
	bits := 32
	if ip.Is4() {
		bits = 16
	}
	p, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// dialGroup is the group for which a dial counts. Those through relays count apart: they end in a connection to another address, if in
// any, and a seed that relays would else take the place of all whom it relays for.
func dialGroup(a ma.Multiaddr) string {
	if isRelay(a) {
		return "relay " + groupOf(a)
	}
	return groupOf(a)
}

// isDNS reports whether a must be resolved before it can be dialled.
func isDNS(a ma.Multiaddr) bool {
	switch first(a) {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
		return true
	}
	return false
}

// first returns the code of the first protocol of a, or 0.
func first(a ma.Multiaddr) int {
	if len(a) == 0 {
		return 0
	}
	return a[0].Protocol().Code
}

// splitPeer divides /…/p2p/<id> into transport address and id. Either may be empty.
func splitPeer(a ma.Multiaddr) (ma.Multiaddr, peer.ID) {
	if len(a) == 0 {
		return nil, ""
	}
	last := a[len(a)-1]
	if last.Protocol().Code != ma.P_P2P {
		return a, ""
	}
	id, err := peer.IDFromBytes(last.RawValue())
	if err != nil {
		return nil, ""
	}
	return a[:len(a)-1], id
}

// usable returns the addresses that this network may dial, those through relays last, and the number left
// out for being private. Unspecified, oversized and unresolved
// addresses are left out without being counted.
func usable(addrs []ma.Multiaddr, private bool) (keep []ma.Multiaddr, hidden int) {
	var relayed []ma.Multiaddr
	defer func() {
		keep = append(keep, relayed[:min(len(relayed), maxRelayedPerPeer, maxAddrsPerPeer-len(keep))]...)
	}()
	for _, a := range addrs {
		a, _ = splitPeer(a)
		if by, _, ok := relayOf(a); ok {
			ip, _ := addrIP(by)
			if !ip.IsUnspecified() && !ip.IsMulticast() && len(a.Bytes()) <= maxAddrBytes && (private || manet.IsPublicAddr(by)) &&
				len(relayed) < maxRelayedPerPeer && !containsAddr(relayed, a) {
				relayed = append(relayed, a)
			}
			continue
		}
		ip, ok := addrIP(a)
		if !ok || ip.IsUnspecified() || ip.IsMulticast() || len(a.Bytes()) > maxAddrBytes {
			continue
		}
		if !private && !manet.IsPublicAddr(a) {
			hidden++
			continue
		}
		if len(keep) < maxAddrsPerPeer && !containsAddr(keep, a) {
			keep = append(keep, a)
		}
	}
	return keep, hidden
}

func containsAddr(s []ma.Multiaddr, a ma.Multiaddr) bool {
	return slices.ContainsFunc(s, a.Equal)
}

// hostPort shortens an address for people: 10.0.0.5:9333.
func hostPort(a ma.Multiaddr) string {
	n, err := manet.ToNetAddr(a)
	if err != nil {
		host, err := a.ValueForProtocol(first(a))
		if err != nil {
			return a.String()
		}
		for _, code := range []int{ma.P_TCP, ma.P_UDP} {
			if port, err := a.ValueForProtocol(code); err == nil {
				return net.JoinHostPort(host, port)
			}
		}
		return host
	}
	return n.String()
}

// checkStatic says what is wrong with an address that an operator gave.
func checkStatic(a ma.Multiaddr) error {
	if len(a) == 0 {
		return errors.New("empty address")
	}
	if len(a.Bytes()) > maxAddrBytes {
		return fmt.Errorf("address of %d bytes, the limit is %d", len(a.Bytes()), maxAddrBytes)
	}
	addr, id := splitPeer(a)
	switch {
	case len(addr) == 0:
		return fmt.Errorf("%s: a peer id without an address; want /ip4/…/tcp/…/p2p/%s", a, id)
	case isRelay(addr):
		return fmt.Errorf("%s: a relayed address; want a direct one", a)
	case first(addr) == ma.P_DNSADDR:
		return nil // the records bring the peer ids
	case id == "":
		return fmt.Errorf("%s: no peer id; want %s/p2p/<peer id>", a, a)
	case isDNS(addr):
		return nil
	}
	ip, ok := addrIP(addr)
	if !ok || ip.IsUnspecified() || ip.IsMulticast() {
		return fmt.Errorf("%s: not an address that can be dialled", a)
	}
	return nil
}

// IPGroup names the IP group of an address: the /16 of IPv4 and the /32 of IPv6, about
// what one operator controls; that of the relay behind one; "" if it has no IP.
func IPGroup(a ma.Multiaddr) string { return groupOf(a) }

// Dialable returns the addresses that a peer of a public or a private network may be dialled at, at most
// 8, without /p2p: none that is unspecified, multicast, relayed, a name or over 512 bytes, and on a
// public network only public ones.
func Dialable(addrs []ma.Multiaddr, private bool) []ma.Multiaddr {
	keep, _ := usable(addrs, private)
	return direct(keep)
}

// direct returns the addresses that do not lead through a relay.
func direct(addrs []ma.Multiaddr) []ma.Multiaddr {
	if !slices.ContainsFunc(addrs, isRelay) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), isRelay)
}
