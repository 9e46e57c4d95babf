package chain

import (
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// Two blocks by one stake in one slot show that its owner signs on two branches, which
// the software never does. Both stay valid and the first seen wins a tie: it is for
// people to see. A header alone shows nothing, for anybody can claim a coin with a key
// of his own; that the key is the coin's is known when one of the two has been validated.

const (
	// maxClaims is how many headers' claims of each kind are remembered, those of the
	// latest slots: many more than there are in the slots that are not settled.
	maxClaims = 1 << 10
	// maxDoubles is how much evidence is remembered.
	maxDoubles = 1 << 8
)

// A DoubleStake is two blocks by one stake in one slot.
type DoubleStake struct {
	consensus.Claim
	First, Second chainhash.Hash // in the order in which their headers came
	Height        int32          // of First
	Seen          time.Time
}

// claims are what the seals of the latest headers claim.
type claims struct {
	mu sync.Mutex // guards what follows, for a few instructions; taken under tree.mu
	by map[consensus.Claim]claimed
	// founded are those of by whose stake was there, loose the others, with which
	// whoever makes up headers pushes out his like only. The oldest slots first.
	founded, loose claimOrder

	doubles []DoubleStake // oldest first
	total   int           // there ever was, over restarts
	saved   int           // total as it is on disk
	changed chan struct{}
	said    limiter
}

// claimed are the headers with one claim, as far as they matter.
type claimed struct {
	first, second chainhash.Hash // second is zero if there is one only
	told          bool
	founded       bool
}

// A claimOrder is claims in the order of their slots, of one slot as they came.
type claimOrder []consensus.Claim

// add puts a claim in, and returns the one that makes way for it, which may be itself.
func (o *claimOrder) add(claim consensus.Claim) (gone consensus.Claim, full bool) {
	*o = slices.Insert(*o, o.after(claim.Slot), claim)
	if len(*o) <= maxClaims {
		return gone, false
	}
	gone, *o = (*o)[0], (*o)[1:]
	return gone, true
}

// remove takes a claim out that is there.
func (o *claimOrder) remove(claim consensus.Claim) {
	for i := o.after(claim.Slot) - 1; i >= 0; i-- {
		if (*o)[i] == claim {
			*o = slices.Delete(*o, i, i+1)
			return
		}
	}
}

// after is where the claims of later slots begin.
func (o *claimOrder) after(slot int64) int {
	i, _ := slices.BinarySearchFunc(*o, slot, func(c consensus.Claim, slot int64) int {
		if c.Slot <= slot {
			return -1
		}
		return 1
	})
	return i
}

func newClaims() *claims {
	return &claims{by: make(map[consensus.Claim]claimed), changed: make(chan struct{})}
}

// DoubleStakes returns the latest evidence that owners of stake signed two blocks for one
// slot, oldest first and at most 256, how much there ever was, over restarts (but not over
// a reindex), and a channel that is closed when there is more.
func (c *Chain) DoubleStakes() (latest []DoubleStake, total int, changed <-chan struct{}) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	return slices.Clone(c.claims.doubles), c.claims.total, c.claims.changed
}

// noteClaim notes what a header with this hash claims: when it comes, when another seal
// takes its place, and when its block was validated. founded says that the stake was seen
// to be there. The caller holds no lock.
func (c *Chain) noteClaim(hash chainhash.Hash, h *consensus.Header, founded bool) {
	c.lookAtClaim(hash, h, founded, true)
}

// lookAtClaim is noteClaim; without keep the claim is compared with those that are
// remembered and not remembered itself: in a download most headers are followed at once by
// so many that it would be forgotten again.
func (c *Chain) lookAtClaim(hash chainhash.Hash, h *consensus.Header, founded, keep bool) {
	s, ok := c.o.Engine.(signed)
	if !ok {
		return
	}
	claim, ok := s.Claim(h)
	if !ok {
		return
	}
	m := c.claims
	m.mu.Lock()
	at, ok := m.by[claim]
	switch {
	case !ok && !keep:
		m.mu.Unlock()
		return
	case !ok:
		at = claimed{first: hash, founded: founded}
		m.remember(claim, at)
	case at.first != hash && !at.told: // the latest, which may be the one that is validated
		at.second = hash
	}
	if founded && !at.founded {
		at.founded = true
		m.loose.remove(claim)
		m.remember(claim, at)
	} else if _, ok := m.by[claim]; ok {
		m.by[claim] = at
	}
	m.mu.Unlock()
	if at.second == (chainhash.Hash{}) || at.told {
		return
	}
	height, proven := c.provenClaim(s, &claim, &at)
	if !proven {
		return
	}
	d := DoubleStake{Claim: claim, First: at.first, Second: at.second, Height: height, Seen: c.o.Now()}
	m.mu.Lock()
	known := m.by[claim].told || slices.ContainsFunc(m.doubles, func(d DoubleStake) bool { return d.Claim == claim })
	if now, ok := m.by[claim]; ok { // it was not displaced meanwhile
		now.told = true
		m.by[claim] = now
	}
	if known {
		m.mu.Unlock()
		return
	}
	if len(m.doubles) >= maxDoubles {
		m.doubles = slices.Delete(m.doubles, 0, 1)
	}
	m.doubles = append(m.doubles, d)
	m.total++
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	c.wake()
	if suppressed, ok := m.said.allow(time.Now()); ok {
		c.log.Warn("a stake signed two blocks for one slot", "stake", claim.OutPoint, "slot", claim.Slot, "height", d.Height,
			"first", d.First, "second", d.Second, "suppressed", suppressed)
	}
}

// remember puts a claim in, in its order. The caller holds mu.
func (m *claims) remember(claim consensus.Claim, at claimed) {
	order := &m.loose
	if at.founded {
		order = &m.founded
	}
	m.by[claim] = at
	if gone, full := order.add(claim); full {
		delete(m.by, gone)
	}
}

// provenClaim says whether one of two headers with one claim was validated, with a seal
// that claims just that: a header may have come with another one, which its hash does not
// cover. height is that of the first that is known: they need not be at the same.
func (c *Chain) provenClaim(s signed, claim *consensus.Claim, at *claimed) (height int32, proven bool) {
	t := c.tree
	height = -1
	for _, hash := range []*chainhash.Hash{&at.first, &at.second} {
		t.mu.RLock()
		i, ok := t.find(hash)
		valid := ok && t.has(i, flagValid)
		ns := t.nodes()
		t.mu.RUnlock()
		if ok && height < 0 {
			height = ns.node(i).height
		}
		if !valid || proven {
			continue
		}
		h := ns.header(i)
		var err error
		if h.Seal, err = c.sealOf(ns.node(i)); err == nil {
			own, ok := s.Claim(&h)
			proven = ok && own == *claim
		}
	}
	return height, proven
}
