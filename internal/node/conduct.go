package node

import (
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/exchange"
	"dunlin/gossip"
)

// What becomes of peers that misbehave, in one place. A breach that one message proves,
// on another protocol than gossip, ends the connection (chain/exchange), keeps the
// peer from being dialled for a day, and lowers its gossip score; it may come back.
// Whoever stays graylisted for a minute, or is blamed until it is, is shunned for an hour,
// both ways, by its id. Nothing here is by address: others may share it.

// blamed is told of a provable breach by a peer that has been disconnected.
func (n *Node) blamed(id peer.ID, reason string) {
	n.disc.Avoid(id, avoidMisbehaved, reason)
	if points := n.gossip.Blame(id, blamePoints, reason); points >= gossip.GraylistPoints {
		n.shun(id, -points, reason)
	}
}

// graylisted is told of a connected peer that has been graylisted for a minute.
func (n *Node) graylisted(id peer.ID, s gossip.Standing) {
	n.shun(id, s.Score, strings.Join(s.Reasons, "; "))
}

func (n *Node) shun(id peer.ID, score float64, reason string) {
	what := "peer shunned"
	if n.kept[id] {
		// The operator wants it; nothing but messages of direct peers is read of it.
		what = "persistent peer misbehaves"
	} else {
		n.disc.Avoid(id, shunTime, reason)
		n.bans.Shun(id, shunTime, reason)
		n.host.Enforce(n.bans)
	}
	if more, ok := n.refusals.Allow(what); ok {
		n.log.Warn(what, "peer", id, "score", int(score), "reason", reason, "for", shunTime, "suppressed", more) //nolint:sloglint // one of two
	}
}

// greeted makes those direct peers in gossip that keep one another connected. One that
// is kept but does not keep us would push nothing to us: it stays an ordinary one.
func (n *Node) greeted(p exchange.Peer) {
	if n.kept[p.ID] {
		mutual := p.Services&exchange.KeepsYou != 0
		n.gossip.SetDirect(peer.AddrInfo{ID: p.ID}, mutual)
		n.log.Debug("persistent peer", "peer", p.ID, "direct", mutual)
	}
}
