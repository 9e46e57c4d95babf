package exchange

import (
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
)

const (
	maxWithheld = 64               // remembered blocks that nobody hands out
	withheldFor = 10 * time.Minute // before a branch with such a block is tried again
)

// withheldBlock is a block of the best header chain that nobody handed out for long.
type withheldBlock struct {
	height int32
	until  time.Time
}

// goal is the branch to follow: the best header chain, or, while nobody hands out
// one of its blocks, the best branch without that block that a peer says to have
// validated. Headers alone must not hold up blocks that can be had: on a network
// of little work they cost next to nothing.
func (d *driver) goal() chain.Tip {
	c := d.x.o.Chain
	best, _ := c.BestHeader()
	if len(d.withheld) == 0 || !d.lacks(best.Hash) {
		return best
	}
	goal, _ := c.Tip()
	found := false
	for _, p := range d.sorted() {
		s, ok := c.Status(p.tip.Hash)
		if !ok || s.Invalid || s.Work.Cmp(goal.Work) < 0 || d.lacks(p.tip.Hash) {
			continue
		}
		if found = true; s.Work.Cmp(goal.Work) > 0 {
			goal = chain.Tip{Hash: p.tip.Hash, Height: s.Height, Time: s.Header.Timestamp, Bits: s.Header.Bits, Work: s.Work}
		}
	}
	if !found {
		return best
	}
	return goal
}

// lacks reports whether the branch that ends in hash has a withheld block.
func (d *driver) lacks(hash chainhash.Hash) bool {
	for h, w := range d.withheld {
		if at, ok := d.x.o.Chain.Ancestor(hash, w.height); ok && at == h {
			return true
		}
	}
	return false
}

// watchFront leaves a target whose lowest missing block nobody hands out, if there
// is another to follow, and takes it up again later.
func (d *driver) watchFront(now time.Time) {
	if !d.targeted {
		return
	}
	for h, w := range d.withheld {
		if s, _ := d.x.o.Chain.Status(h); s.HaveBlock || !now.Before(w.until) {
			delete(d.withheld, h)
			d.bestMoved = true
		}
	}
	if d.trouble != nil || d.connected >= d.best.Height {
		d.gained = now
	}
	// Bytes of a large block on a slow link buy time, but not for ever.
	waited := now.Sub(d.gained)
	if waited > 2*d.x.o.StallAfter && now.Sub(d.moved) > d.x.o.StallAfter || waited > 12*d.x.o.StallAfter {
		d.gained = now
		d.leave(now)
	}
	if len(d.withheld) > 0 && d.goal().Hash != d.best.Hash {
		d.bestMoved = true
	}
}

// leave marks the lowest missing block as withheld if that gives another goal.
func (d *driver) leave(now time.Time) {
	height, hash, ok := d.lowestMissing()
	if !ok || len(d.withheld) >= maxWithheld {
		return
	}
	d.withheld[hash] = withheldBlock{height, now.Add(withheldFor)}
	goal := d.goal()
	if goal.Hash == d.best.Hash {
		delete(d.withheld, hash) // there is nothing better than to wait
		return
	}
	if n, ok := d.stalls.allow(now); ok {
		d.x.log.Warn("branch left: nobody hands out its next block", "height", height, "hash", hash,
			"header_height", d.best.Height, "instead_height", goal.Height, "instead", goal.Hash, "suppressed", n)
	}
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
