package host

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// What TCP gets as a start before QUIC is dialled too: a round trip, as libp2p
// gives QUIC before TCP.
const (
	quicDelay      = 250 * time.Millisecond
	localQUICDelay = 30 * time.Millisecond
)

// rankDials orders the dials to one peer: libp2p's own ranker, but TCP before
// QUIC, which takes 2.6 times the processor time for a gigabyte and gives a third
// of the speed on a fast link. A peer that can only be reached over QUIC, behind a
// NAT or a filter, is dialled a moment later.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	isTCP := func(a ma.Multiaddr) bool { return without(a, ma.P_TCP) == 0 }
	var tcp, rest []ma.Multiaddr
	for _, a := range addrs {
		if isTCP(a) {
			tcp = append(tcp, a)
		} else {
			rest = append(rest, a)
		}
	}
	dials := swarm.DefaultDialRanker(tcp)
	if len(tcp) == 0 {
		return swarm.DefaultDialRanker(rest)
	}
	// Addresses on one's own network answer within a millisecond or not at all: only
	// they decide when there is nothing else.
	delay := quicDelay
	if !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return rank(a) < 2 }) {
		delay = localQUICDelay
	}
	var last time.Duration
	for _, d := range dials {
		last = max(last, d.Delay)
	}
	for _, d := range swarm.DefaultDialRanker(rest) {
		d.Delay += last + delay
		dials = append(dials, d)
	}
	return dials
}
