package node

import (
	"cmp"
	"context"
	"math/big"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Outbound peers are to bring the chain. One whose proven work stays below ours for two blocks' time is replaced, and when
// no block comes for three, one peer more than usual is looked for, so that whoever holds all our peers cannot keep the
// chain from us. The rules are Bitcoin Core's (ConsiderEviction, CheckForStaleTipAndEvictPeers), with times that follow the network's spacing.
const (
	behindBlocks = 2 // of spacing; 20 min at Bitcoin's
	leastBehind  = 2 * time.Minute
	mostBehind   = 20 * time.Minute
	staleBlocks  = 3 // of spacing; 30 min at Bitcoin's
	leastStale   = 3 * time.Minute
	mostStale    = 30 * time.Minute

	// So many outbound peers that have shown our chain are never replaced for falling behind: a branch that only we can see
	// must not cost us all of them.
	maxSteady = 4
	// One is replaced at a time, and the next only when there was time to find another.
	replaceEvery = 30 * time.Second
	// A peer more is looked for this long; when it has been connected so long it has had its chance.
	extraFor   = 2 * time.Minute
	extraGrace = time.Minute
	// A peer that was replaced is not dialled for so long.
	restReplaced = 30 * time.Minute
	// How often the peers are looked at.
	advanceEvery = 5 * time.Second
)

// outboundPeer is what is known of a peer that we dialled and that has greeted.
type outboundPeer struct {
	id     peer.ID
	keep   bool // the operator's own
	since  time.Time
	height int32     // proven
	work   *big.Int  // proven; nil: none
	at     time.Time // when it was proven
}

// advance decides which outbound peers are replaced. It is pure: the same steps give the same decisions.
type advance struct {
	behind, stale time.Duration

	of      map[peer.ID]*progress // of the peers of the last step
	tip     *big.Int              // work of our tip at the last step
	moved   time.Time             // when it last grew
	dropped time.Time             // when a peer was last replaced

	extra    bool      // a peer more is looked for
	extraAt  time.Time // since when, or when it was last
	extraWas map[peer.ID]bool
}

// progress is what has become of a peer.
type progress struct {
	goal     *big.Int // work of our tip when it fell behind; nil: it is not
	deadline time.Time
	steady   bool // it has shown our chain and is never replaced for falling behind
}

// drop is a peer to be replaced, and why.
type drop struct {
	outboundPeer
	reason string
}

func newAdvance(spacing time.Duration, now time.Time) *advance {
	return &advance{
		behind: min(max(behindBlocks*spacing, leastBehind), mostBehind),
		stale:  min(max(staleBlocks*spacing, leastStale), mostStale),
		of:     map[peer.ID]*progress{}, moved: now,
	}
}

// step looks at the outbound peers. tip is the work of our validated tip, busy says that blocks are on their way, spare how
// many other peers could be dialled, target how many outbound peers there are to be. It returns the peer to replace, if any, and whether one more than usual is wanted.
func (a *advance) step(now time.Time, tip *big.Int, busy bool, spare, target int, peers []outboundPeer) (out *drop, extra bool) {
	if a.tip == nil || tip.Cmp(a.tip) > 0 {
		a.tip, a.moved = tip, now
	}
	a.forget(peers)
	var late []outboundPeer
	steady := 0
	for _, g := range a.of {
		if g.steady {
			steady++
		}
	}
	for _, p := range peers {
		g := a.of[p.id]
		if g == nil {
			g = &progress{}
			a.of[p.id] = g
		}
		switch {
		case p.work != nil && p.work.Cmp(tip) >= 0:
			g.goal = nil
			if !g.steady && steady < maxSteady {
				g.steady = true
				steady++
			}
		case g.goal == nil || p.work != nil && p.work.Cmp(g.goal) >= 0:
			g.goal, g.deadline = tip, now.Add(a.behind)
		case now.After(g.deadline) && !g.steady && !p.keep:
			late = append(late, p)
		}
	}
	extra = a.wantExtra(now, busy, spare)
	if now.Sub(a.dropped) < replaceEvery {
		return nil, extra
	}
	if spare > 0 && len(late) > 0 { // nobody is sent away for nobody
		slices.SortFunc(late, worseFirst)
		out = &drop{late[0], "its chain has been behind ours for " + a.behind.String()}
	} else if a.extra {
		out = a.leastOfAll(now, target, peers)
	}
	if out != nil {
		a.dropped = now
	}
	return out, extra
}

// forget drops what is known of peers that are gone.
func (a *advance) forget(peers []outboundPeer) {
	here := make(map[peer.ID]bool, len(peers))
	for _, p := range peers {
		here[p.id] = true
	}
	for id := range a.of {
		if !here[id] {
			delete(a.of, id)
		}
	}
}

// wantExtra says whether a peer more is looked for: for a while when no block has come for long, and again as
// long as none does.
func (a *advance) wantExtra(now time.Time, busy bool, spare int) bool {
	switch {
	case busy || now.Sub(a.moved) < a.stale:
		if a.extra && len(a.newcomers()) == 0 {
			a.extra = false
		}
	case a.extra:
		if now.Sub(a.extraAt) >= extraFor && len(a.newcomers()) == 0 {
			a.extra, a.extraAt = false, now
		}
	case spare > 0 && now.Sub(a.extraAt) >= a.stale/3:
		a.extra, a.extraAt, a.extraWas = true, now, map[peer.ID]bool{}
		for id := range a.of {
			a.extraWas[id] = true
		}
	}
	return a.extra && len(a.newcomers()) == 0
}

// newcomers are the peers that came since one more was looked for.
func (a *advance) newcomers() (ids []peer.ID) {
	for id := range a.of {
		if !a.extraWas[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// leastOfAll ends the search for a peer more: when the new one has had its chance, the one that is of least use goes. That is
// the new one, unless it brought what the others did not have.
func (a *advance) leastOfAll(now time.Time, target int, peers []outboundPeer) *drop {
	var all []outboundPeer
	due := false
	for _, p := range peers {
		if !a.extraWas[p.id] {
			due = due || now.Sub(p.since) >= extraGrace
		}
		if !p.keep && !a.of[p.id].steady {
			all = append(all, p)
		}
	}
	if !due {
		return nil
	}
	a.extra, a.extraAt = false, now
	if len(all) == 0 || len(peers) <= target {
		return nil
	}
	slices.SortFunc(all, worseFirst)
	return &drop{all[0], "no block came for " + a.stale.String() + ", another peer was tried, and this one is of least use"}
}

// worseFirst orders by proven work, then those first who proved it last, then by id.
func worseFirst(a, b outboundPeer) int {
	work := func(p outboundPeer) *big.Int {
		if p.work == nil {
			return new(big.Int)
		}
		return p.work
	}
	return cmp.Or(work(a).Cmp(work(b)), b.at.Compare(a.at), cmp.Compare(a.id, b.id))
}

// runAdvance replaces outbound peers that do not advance, until ctx ends.
func (n *Node) runAdvance(ctx context.Context) error {
	a := newAdvance(n.params.TargetSpacing, time.Now())
	ticker := time.NewTicker(advanceEvery)
	defer ticker.Stop()
	wanted := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		tip, _ := n.chain.Tip()
		out, extra := a.step(time.Now(), tip.Work, n.exchange.Sync().InFlight > 0, n.disc.Spare(), n.c.P2P.MaxOutbound, n.outboundPeers())
		if extra != wanted {
			wanted = extra
			n.disc.LookForMore(extra)
			if extra {
				n.log.Info("no block for long: one more peer is tried", "height", tip.Height, "for_s", int(time.Since(a.moved).Seconds()))
			}
		}
		if out == nil {
			continue
		}
		n.log.Info("outbound peer replaced", "peer", out.id, "proven_height", out.height, "height", tip.Height, "reason", out.reason)
		n.disc.Rest(out.id, restReplaced, "replaced: "+out.reason)
		if err := n.host.Network().ClosePeer(out.id); err != nil {
			n.log.Debug("connection closed with an error", "peer", out.id, "err", err)
		}
	}
}

// outboundPeers lists the greeted peers that we dialled.
func (n *Node) outboundPeers() (out []outboundPeer) {
	kept := map[peer.ID]bool{}
	for _, id := range n.disc.Kept() {
		kept[id] = true
	}
	inbound := map[peer.ID]bool{}
	for _, c := range n.connected() {
		inbound[c.id] = c.inbound
	}
	for _, p := range n.exchange.Peers() {
		if in, ok := inbound[p.ID]; ok && !in {
			out = append(out, outboundPeer{
				id: p.ID, keep: kept[p.ID], since: p.Since, height: p.Proven.Height, work: p.Proven.Work, at: p.Proven.At,
			})
		}
	}
	return out
}
