package host

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Who makes room when all inbound slots are taken. The shape is that of Bitcoin Core's eviction
// (Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network", 2015): whoever wants to push out the honest peers
// has to be better than all of them in every one of several things at once, some of which (age, many IP groups, nearness)
// cannot be made quickly. Three things differ. The groups are counted with all their connections, not only those that
// are left unprotected, and with the newcomer: a group that has the most already gains nothing by knocking again. No
// group has more than one connection protected by the same virtue. And equals rotate slowly.
const (
	// Of each class of protected connections there are a sixteenth of all at most, and so many.
	maxByGroup = 4 // by a secret draw among IP groups
	maxByRTT   = 8 // nearest
	maxByTx    = 4 // last to bring a transaction that was new
	maxByBlock = 8 // last to bring a block that was new
	maxByUse   = 8 // on whom routing table or gossip meshes count
	classShare = 16

	// A peer makes room for its equal only after this long, and one peer in so long a time.
	tenure      = 10 * time.Minute
	rotateEvery = 30 * time.Second
	// A peer's older connection makes room for its newer one: dials that race settle before.
	supplantAfter = 15 * time.Second
)

// Standing is what speaks for keeping a peer connected. The zero value: nothing is known of it.
type Standing struct {
	Keep      bool          // the operator's own: let in always, and never made to leave
	RTT       time.Duration // smallest round trip seen; 0: unknown
	LastBlock time.Time     // when it last brought a block that was new here; zero: never
	LastTx    time.Time     // likewise a transaction
	InUse     bool          // a gossip mesh counts on it
}

// inbound is a connection that a peer opened to us.
type inbound struct {
	id    string // of the connection
	peer  peer.ID
	group string // whose members count as one operator; see admission.group
	since time.Time
	Standing
	redundant bool // the peer stays connected without it, and will close it itself if it needs room
}

// makeRoom returns the index of the connection that leaves so that newcomer may stay, or false: newcomer
// deserves it less than all of them. rotate says that an equal may go. The choice is a function of its arguments;
// seed is the secret of the draw among groups.
func makeRoom(now time.Time, seed maphash.Seed, all []inbound, newcomer *inbound, rotate bool) (victim int, ok bool) {
	var left []int // who may go
	count := map[string]int{newcomer.group: 1}
	if newcomer.Keep {
		count[newcomer.group] = 0
	}
	for i, c := range all {
		switch {
		case c.peer == newcomer.peer && now.Sub(c.since) >= supplantAfter:
			return i, true
		case c.redundant && !c.Keep:
			return i, true
		case !c.Keep:
			left = append(left, i)
		}
		count[c.group]++
	}
	left = unprotected(seed, all, left)
	most := 0
	for _, i := range left {
		most = max(most, count[all[i].group])
	}
	mine := count[newcomer.group]
	if newcomer.Keep {
		mine = 0
	}
	if most < mine || most == mine && !rotate {
		return 0, false
	}
	victim = -1
	for _, i := range left {
		c := &all[i]
		if count[c.group] != most || most == mine && now.Sub(c.since) < tenure {
			continue
		}
		if victim < 0 || youngerFirst(c, &all[victim]) < 0 {
			victim = i
		}
	}
	return max(victim, 0), victim >= 0
}

// youngerFirst orders by age and, among those of one moment, by a name that no peer chooses.
func youngerFirst(a, b *inbound) int {
	return cmp.Or(b.since.Compare(a.since), cmp.Compare(a.id, b.id))
}

// unprotected takes out of left, indices of all, those that have earned their place.
func unprotected(seed maphash.Seed, all []inbound, left []int) []int {
	share := len(all) / classShare
	// protect takes out the first n by order, of those to whom it applies, each of another group.
	protect := func(n int, applies func(*inbound) bool, order func(a, b *inbound) int) {
		slices.SortFunc(left, func(i, j int) int { return cmp.Or(order(&all[i], &all[j]), youngerFirst(&all[j], &all[i])) })
		groups := map[string]bool{}
		left = slices.DeleteFunc(left, func(i int) bool {
			c := &all[i]
			if len(groups) >= n || groups[c.group] || !applies(c) {
				return false
			}
			groups[c.group] = true
			return true
		})
	}
	draw := func(c *inbound) uint64 { return maphash.String(seed, c.group) }
	protect(min(share, maxByGroup), func(*inbound) bool { return true },
		func(a, b *inbound) int { return cmp.Compare(draw(a), draw(b)) })
	protect(min(share, maxByRTT), func(c *inbound) bool { return c.RTT > 0 },
		func(a, b *inbound) int { return cmp.Compare(a.RTT, b.RTT) })
	protect(min(share, maxByTx), func(c *inbound) bool { return !c.LastTx.IsZero() },
		func(a, b *inbound) int { return b.LastTx.Compare(a.LastTx) })
	protect(min(share, maxByBlock), func(c *inbound) bool { return !c.LastBlock.IsZero() },
		func(a, b *inbound) int { return b.LastBlock.Compare(a.LastBlock) })
	protect(min(share, maxByUse), func(c *inbound) bool { return c.InUse },
		func(a, b *inbound) int { return a.since.Compare(b.since) })
	// Half of the rest by age, whatever their groups.
	slices.SortFunc(left, func(i, j int) int { return youngerFirst(&all[j], &all[i]) })
	return left[len(left)/2:]
}
