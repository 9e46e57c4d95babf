package exchange

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/ibd"
)

const (
	maxWithheld = 64               // remembered blocks that nobody hands out; for more the oldest is forgotten
	withheldFor = 10 * time.Minute // before a branch with such a block is tried again as a whole
	// silentShare is the part of StallAfter, 3 s by default, without a verdict and with
	// no more than a trickle of the next block, before a branch is left if there is
	// another. Little is lost if that was too early: the block is asked for beside.
	silentShare = 0.3
	trickle     = 4 << 10 // bytes/s under which a peer's block does not count as on its way
	// maxBeside bounds the fetches beside the target: each may bring a largest block
	// on top of what the scheduler knows of.
	maxBeside   = 4
	besideFirst = 30 * time.Second // for the first such fetch of a block; doubles
	// followFor is how long a branch whose blocks come is followed before one that claims
	// more work, where claims are free: several times as long as one of these can cost.
	followFor   = 20 * time.Second
	besideAgain = 5 * time.Second // before the next one; doubles
)

// withheldBlock is a block of the best header chain that nobody handed out for
// long. While another branch is followed it is asked for by itself, so that a
// peer that is only slow costs its branch a delay, not its chance.
type withheldBlock struct {
	height   int32
	until    time.Time
	fetching bool
	tries    int
	next     time.Time // not to be fetched before
}

// besideEvent says how a fetch of a withheld block ended.
type besideEvent struct {
	from    *remote
	hash    chainhash.Hash
	verdict chain.Verdict
	err     error // no block came
}

// goal is the branch to follow: the best header chain, or, while nobody hands out
// one of its blocks, the best branch without that block that a peer says to have
// validated. Headers alone must not hold up blocks that can be had: on a network
// of little work they cost next to nothing. For where they cost nothing see fairGoal.
func (d *driver) goal() chain.Tip {
	c := d.x.o.Chain
	best, _ := c.BestHeader()
	if d.sealed {
		return d.fairGoal(best)
	}
	if len(d.withheld) == 0 || !d.lacks(best.Hash) {
		return best
	}
	goal, _ := c.Tip()
	found := false
	for _, p := range d.sorted() {
		at, ok := d.claim(p)
		if !ok || at.Work.Cmp(goal.Work) < 0 || d.lacks(at.Hash) {
			continue
		}
		if found = true; at.Work.Cmp(goal.Work) > 0 {
			goal = at
		}
	}
	if !found {
		return best
	}
	return goal
}

// fairGoal is goal where stake makes blocks. Headers cost nothing at all there, so that a
// branch claims more work than another says nothing, and whoever shows another one all the
// time always has the best. So the branches of the peers take turns: the one that was followed
// longest ago, or whose peer has been here longest, is next, if it claims more work
// than the validated chain. It is followed to its end, until nobody hands out its next
// block, or for followFor. So however many new names a liar takes, the branch of a
// peer that stays is followed again after at most one turn for each of the
// others; and whoever withheld a block has short ones.
func (d *driver) fairGoal(best chain.Tip) chain.Tip {
	c := d.x.o.Chain
	tip, _ := c.Tip()
	now := d.x.o.Now()
	s, ok := c.Status(d.best.Hash)
	if ok && d.targeted && !s.Active && !s.Invalid && !s.Refused && s.Work.Cmp(tip.Work) > 0 && now.Sub(d.followedAt) <= followFor && !d.lacks(d.best.Hash) {
		return d.furthest(d.best, best)
	}
	if best.Work.Cmp(tip.Work) <= 0 {
		return best
	}
	type candidate struct {
		end   chain.Tip
		until time.Time // when a withheld block of it is tried again; zero: it has none
		turn  time.Time
	}
	next := candidate{}
	sound, named := false, false
	consider := func(x candidate) {
		if next.end.Work == nil || cmp.Or(x.until.Compare(next.until), x.turn.Compare(next.turn)) < 0 {
			next = x
		}
	}
	for _, p := range d.sorted() {
		at, ok := d.claim(p)
		if !ok {
			continue
		}
		until := d.leftUntil(at.Hash)
		sound = sound || until.IsZero() && at.Work.Cmp(tip.Work) >= 0
		named = named || d.sameBranch(at, best)
		if at.Work.Cmp(tip.Work) > 0 {
			consider(candidate{at, until, p.followed})
		}
	}
	if !named { // gossip, a miner or an operator brought it
		consider(candidate{best, d.leftUntil(best.Hash), d.unnamed})
	}
	switch {
	case next.end.Work == nil, !next.until.IsZero() && sound:
		return tip // it is asked for by itself what the others lack
	}
	return d.furthest(next.end, best)
}

// furthest is the best of the known branches that go on from at.
func (d *driver) furthest(at, best chain.Tip) chain.Tip {
	on := at
	further := func(x chain.Tip) {
		if hash, ok := d.x.o.Chain.Ancestor(x.Hash, at.Height); ok && hash == at.Hash && x.Work.Cmp(on.Work) > 0 && !d.lacks(x.Hash) {
			on = x
		}
	}
	further(best)
	for _, p := range d.sorted() {
		if x, ok := d.claim(p); ok {
			further(x)
		}
	}
	return on
}

// sameBranch says whether one of a and b is an ancestor of the other, or both are the same.
func (d *driver) sameBranch(a, b chain.Tip) bool {
	if a.Height > b.Height {
		a, b = b, a
	}
	hash, ok := d.x.o.Chain.Ancestor(b.Hash, a.Height)
	return ok && hash == a.Hash
}

// nowFollowed notes that the branch of best is followed from now on, and whose turn that is.
func (d *driver) nowFollowed() {
	now := d.x.o.Now()
	d.followedAt = now
	named := false
	for _, p := range d.peers {
		if at, ok := d.claim(p); ok && d.sameBranch(at, d.best) {
			p.followed, named = now, true
		}
	}
	if !named {
		d.unnamed = now
	}
}

// claim is the end of the branch that a peer says to have validated, as far as its headers
// are known and the chain may go there.
func (d *driver) claim(p *peerSync) (chain.Tip, bool) {
	c := d.x.o.Chain
	hash := p.tip.Hash
	s, ok := c.Status(hash)
	if !ok { // it has more headers than are taken before blocks have followed
		hash = p.common
		s, ok = c.Status(hash)
	}
	if !ok || s.Invalid || s.Refused {
		return chain.Tip{}, false
	}
	return chain.Tip{Hash: hash, Height: s.Height, Time: s.Header.Timestamp, Bits: s.Header.Bits, Work: s.Work}, true
}

// patience is how long there may be no verdict before a branch is left for another.
func (d *driver) patience() time.Duration {
	return time.Duration(silentShare * float64(d.x.o.StallAfter))
}

// lacks reports whether the branch that ends in hash has a withheld block.
func (d *driver) lacks(hash chainhash.Hash) bool { return !d.leftUntil(hash).IsZero() }

// leftUntil is when the branch that ends in hash may be followed again, for its withheld
// blocks; zero if it has none.
func (d *driver) leftUntil(hash chainhash.Hash) (until time.Time) {
	for h, w := range d.withheld {
		if at, ok := d.x.o.Chain.Ancestor(hash, w.height); ok && at == h && w.until.After(until) {
			until = w.until
		}
	}
	return until
}

// watchFront leaves a target whose lowest missing block nobody hands out, if there
// is another to follow, and takes it up again later.
func (d *driver) watchFront(ctx context.Context, now time.Time) {
	if !d.targeted {
		return
	}
	for h, w := range d.withheld {
		if s, _ := d.x.o.Chain.Status(h); s.HaveBlock || !now.Before(w.until) {
			delete(d.withheld, h)
			d.bestMoved = true
		}
	}
	stats := d.sched.Stats()
	if d.trouble != nil || d.connected >= d.best.Height || stats.InChain > 0 {
		d.gained = now
	}
	// Bytes of a large block on a slow link buy time, but not for ever. Peers that
	// withhold a block already get none for the next.
	waited, silent := now.Sub(d.gained), now.Sub(d.bytesAt)
	patience := d.patience()
	switch {
	case waited > 2*d.x.o.StallAfter, waited > patience && (silent > patience || stats.FrontRate < trickle):
		d.gained = now
		d.leave(now, false)
	case waited > tickEvery && d.withholders > 0:
		d.leave(now, true)
	}
	if len(d.withheld) > 0 && d.goal().Hash != d.best.Hash {
		d.bestMoved = true
	}
	d.askBeside(ctx, now)
}

// leave marks the lowest missing block as withheld if that gives another goal,
// with known set only if all who claim to have it withhold another one.
func (d *driver) leave(now time.Time, known bool) {
	height, hash, ok := d.lowestMissing()
	if !ok {
		return
	}
	claimants := d.claimants(height, hash)
	if known && (len(claimants) == 0 || slices.ContainsFunc(claimants, func(p *peerSync) bool { return p.withholds == 0 })) {
		return
	}
	if w := d.withheld[hash]; w != nil { // its branch had another turn
		w.until = now.Add(withheldFor)
	} else {
		d.withheld[hash] = &withheldBlock{height: height, until: now.Add(withheldFor), next: now}
	}
	goal := d.goal()
	if goal.Hash == d.best.Hash {
		delete(d.withheld, hash) // there is nothing better than to wait
		return
	}
	if len(d.withheld) > maxWithheld {
		d.forgetWithheld(hash)
	}
	for _, p := range claimants {
		d.withholding(p, p.withholds+1)
	}
	if n, ok := d.story.limit.allow(now); ok {
		d.x.log.Warn("branch left: nobody hands out its next block", "height", height, "hash", hash,
			"header_height", d.best.Height, "instead_height", goal.Height, "instead", goal.Hash, "suppressed", n)
	}
}

// forgetWithheld forgets the withheld block whose time is over first, other than
// the one to keep. If its branch is followed once more it is left again.
func (d *driver) forgetWithheld(keep chainhash.Hash) {
	var first chainhash.Hash
	for h, w := range d.withheld {
		if o := d.withheld[first]; h != keep && (o == nil || w.until.Before(o.until)) {
			first = h
		}
	}
	delete(d.withheld, first)
}

// claimants lists the peers that say to have validated the block at height.
func (d *driver) claimants(height int32, hash chainhash.Hash) []*peerSync {
	return slices.DeleteFunc(d.sorted(), func(p *peerSync) bool { return !d.claims(p, height, hash) })
}

// claims says whether a peer says to have validated the block at height: its tip is on
// it, or, where that is further than headers are known, those that it sent are: peers send those of
// their validated chain.
func (d *driver) claims(p *peerSync, height int32, hash chainhash.Hash) bool {
	c := d.x.o.Chain
	at, ok := c.Ancestor(p.tip.Hash, height)
	if !ok && d.sealed && !headerKnown(c, p.tip.Hash) {
		at, ok = c.Ancestor(p.common, height)
	}
	return ok && at == hash
}

// withholding notes how many blocks p withholds.
func (d *driver) withholding(p *peerSync, n int) {
	if p.withholds == 0 && n > 0 {
		d.withholders++
	}
	if p.withholds > 0 && n == 0 {
		d.withholders--
	}
	p.withholds = n
}

// askBeside asks for withheld blocks by themselves: the peer that was asked for the
// fewest, for the one that was tried least. Whoever withholds many does not keep the others
// waiting for theirs.
func (d *driver) askBeside(ctx context.Context, now time.Time) {
	for d.beside < maxBeside {
		var w *withheldBlock
		var hash chainhash.Hash
		var from *peerSync
		for h, o := range d.withheld {
			if o.fetching || now.Before(o.next) {
				continue
			}
			ps := slices.DeleteFunc(d.claimants(o.height, h), func(p *peerSync) bool { return p.fetching })
			if len(ps) == 0 {
				continue
			}
			p := slices.MinFunc(ps, func(a, b *peerSync) int { return cmp.Compare(a.asked, b.asked) })
			if w == nil || cmp.Or(cmp.Compare(p.asked, from.asked), cmp.Compare(o.tries, w.tries), bytes.Compare(h[:], hash[:])) < 0 {
				w, hash, from = o, h, p
			}
		}
		if w == nil {
			return
		}
		d.beside++
		w.fetching, from.fetching = true, true
		from.asked++
		d.tellPeer(ctx, from) // its stream is for this alone: it may take long
		timeout := min(besideFirst<<min(w.tries, 8), withheldFor)
		r := from.r
		d.x.tasks.Go(func() { d.post(ctx, d.x.fetchBeside(ctx, r, hash, timeout)) })
	}
}

// fetchBeside fetches a block and submits it.
func (x *Exchange) fetchBeside(ctx context.Context, r *remote, hash chainhash.Hash, timeout time.Duration) besideEvent {
	e := besideEvent{from: r, hash: hash}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := x.FetchBlock(within, r.id, hash, nil)
	if err != nil {
		e.err = err
		return e
	}
	t, err := x.o.Chain.Submit(ctx, raw, chain.Source{Kind: chain.FromSync, Peer: r.id.String()})
	if err != nil {
		e.err = err
		return e
	}
	e.verdict, _ = wait(ctx, t)
	return e
}

func (d *driver) onBeside(ctx context.Context, e besideEvent) {
	now := d.x.o.Now()
	d.beside--
	p := d.peers[ibd.PeerID(e.from.id)]
	if p != nil && p.r == e.from {
		p.fetching = false
		if e.err == nil {
			d.withholding(p, 0)
		}
		d.tellPeer(ctx, p)
	}
	if w := d.withheld[e.hash]; w != nil {
		w.fetching = false
		w.next = now.Add(min(besideAgain<<min(w.tries, 8), withheldFor))
		w.tries++
	}
	var rule *consensus.RuleError
	if e.err == nil && e.verdict.Outcome == chain.Refused && errors.As(e.verdict.Err, &rule) {
		switch rule.Blame {
		case consensus.BlameSender:
			d.x.tasks.Go(func() { d.x.blame(e.from.id, "sent a mutated block: "+rule.Error()) })
		case consensus.BlameBlock:
			d.blameClaimants(ctx, verdictEvent{e.verdict.Height, e.hash, e.verdict})
		}
	}
	d.watchFront(ctx, now)
}

// lowestMissing is the lowest block of the target that is not on disk.
func (d *driver) lowestMissing() (int32, chainhash.Hash, bool) {
	for height := d.connected + 1; height <= d.best.Height; height++ {
		hash, ok := d.x.o.Chain.Ancestor(d.best.Hash, height)
		if !ok {
			break
		}
		if s, ok := d.x.o.Chain.Status(hash); ok && !s.HaveBlock {
			return height, hash, true
		}
	}
	return 0, chainhash.Hash{}, false
}
