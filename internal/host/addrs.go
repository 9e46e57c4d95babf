package host

import (
	"cmp"
	"net/netip"
	"slices"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// announced is what the host tells others of itself: the operator's list if
// there is one, else what was found; never an unspecified address and none that
// the operator excluded. Loopback addresses are told only if there is nothing
// else: another machine that dials one reaches itself.
func announced(found, announce []ma.Multiaddr, not []netip.Prefix) []ma.Multiaddr {
	if len(announce) > 0 {
		found = announce
	} else if slices.ContainsFunc(found, beyondLoopback) {
		found = slices.DeleteFunc(slices.Clone(found), func(a ma.Multiaddr) bool { return !beyondLoopback(a) })
	}
	out := make([]ma.Multiaddr, 0, len(found))
	for _, a := range found {
		if manet.IsIPUnspecified(a) {
			continue
		}
		ip, ok := addrIP(a)
		if ok && slices.ContainsFunc(not, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			continue
		}
		out = append(out, a)
	}
	return out
}

// beyondLoopback says whether an address can be dialled from another machine, at
// least from one on the same network.
func beyondLoopback(a ma.Multiaddr) bool {
	ip, ok := addrIP(a)
	return !ok || (!ip.IsLoopback() && !ip.IsUnspecified())
}

// addrIP is the address's IP without an IPv6 zone, if it starts with one.
func addrIP(a ma.Multiaddr) (netip.Addr, bool) {
	raw, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(raw)
	return ip.Unmap(), ok
}

// rank orders addresses by how far away they can be dialled from. Lower is
// better.
func rank(a ma.Multiaddr) int {
	ip, ok := addrIP(a)
	switch {
	case !ok && isDNS(a):
		return 0 // an operator announced it: nothing else puts names here
	case !ok:
		return 5
	case ip.IsLoopback():
		return 4
	case ip.IsLinkLocalUnicast():
		return 3
	case ip.IsPrivate() || !manet.IsPublicAddr(a):
		return 2
	}
	return 1
}

func isDNS(a ma.Multiaddr) bool {
	if len(a) == 0 {
		return false
	}
	switch a[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
		return true
	}
	return false
}

// sortJoinAddrs puts the address that a person should hand out first: public
// before LAN before loopback; of the public ones those that others have reached; then TCP, which is faster for bulk; then IPv4,
// which more networks have. The order is otherwise kept.
func sortJoinAddrs(addrs, confirmed []ma.Multiaddr) {
	unproven := func(a ma.Multiaddr) int {
		if slices.ContainsFunc(confirmed, a.Equal) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)),
			cmp.Compare(unproven(a), unproven(b)),
			cmp.Compare(without(a, ma.P_TCP), without(b, ma.P_TCP)),
			cmp.Compare(without(a, ma.P_IP4), without(b, ma.P_IP4)),
		)
	})
}

// isRelayed says whether an address leads through a relay.
func isRelayed(a ma.Multiaddr) bool { return without(a, ma.P_CIRCUIT) == 0 }

// without is 1 if the address lacks the protocol, else 0.
func without(a ma.Multiaddr, code int) int {
	if _, err := a.ValueForProtocol(code); err != nil {
		return 1
	}
	return 0
}

// AllLocal reports whether every address is one that the Internet cannot reach
// (loopback, private, link local): a node that has only such addresses wants
// Options.Private, or it tells nobody where it is. Unspecified addresses and
// names are not local. An empty list is not local.
func AllLocal(addrs []ma.Multiaddr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool {
		return manet.IsIPUnspecified(a) || isDNS(a) || rank(a) < 2
	})
}
