package chain

import (
	"slices"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// First seen wins a tie, but where the engine draws lots. Two blocks of one slot, which
// two stakes have won, have the same parent and the same work, and half of a network hears
// of the one first and half of the other: each builds on its own, and when both win the
// next slot too the branches grow. So which of the two goes first is decided by what
// nobody can choose, the same everywhere, whoever was heard of first.
//
// It goes no deeper than the last block, and only while the engine says that the slot is
// not long past: a block that was held back takes nobody's place. A block takes the place
// of another when its stake is there at the parent; claims do not.

// A drawing engine decides between two blocks of one slot.
type drawing interface {
	// Precedes says whether a child of past goes before another one that was seen first.
	Precedes(past consensus.Past, h, other *consensus.Header, now time.Time) bool
}

// drawTied draws between the best block, which the coins are at, and those that tie with
// it: what came after it, what became whole with it when a parent came late, and what was
// there at the start. If one goes before it that is the best block then, and drawTied says
// so; it changes nothing else, advance follows.
//
// There are no more of them than blocks were stored for; each is looked at once, and read
// from disk only if its claim goes first.
func (c *conductor) drawTied() (drew bool, err error) {
	t := c.tree
	e, draws := c.o.Engine.(drawing)
	for {
		t.mu.Lock()
		if !draws {
			t.tied = t.tied[:0]
		}
		if len(t.tied) == 0 {
			t.mu.Unlock()
			return false, nil
		}
		i, best := t.tied[0], t.bestLinked
		t.tied = slices.Delete(t.tied, 0, 1)
		// As it is now: it may have failed since.
		stands := t.ties(i, best) && t.has(i, flagLinked) && !t.has(i, flagBad|flagDeferred) && t.allowed(i)
		t.mu.Unlock()
		if !stands || best != c.applied {
			continue
		}
		first, err := c.precedes(e, i, best)
		if err != nil {
			return false, err
		}
		if !first {
			continue
		}
		t.mu.Lock()
		if t.bestLinked != best || t.has(i, flagBad|flagDeferred) || !t.allowed(i) { // a header of more work linked others meanwhile
			t.mu.Unlock()
			continue
		}
		t.bestLinked, c.drawn = i, t.node(i).hash
		if at := t.bestHeader; at == best || t.ties(at, i) && t.has(at, flagLinked) {
			t.bestHeader = i
			c.heads.set(i)
		}
		t.mu.Unlock()
		return true, nil
	}
}

// precedes draws between two blocks that tie, the second of which the coins are at.
func (c *conductor) precedes(e drawing, i, best uint32) (bool, error) {
	t := c.tree
	nd := t.node(i)
	parent, h, other := t.past(nd.parent), t.header(i), t.header(best)
	var err error
	if h.Seal, err = c.sealOf(nd); err != nil {
		return false, err
	}
	if other.Seal, err = c.sealOf(t.node(best)); err != nil {
		return false, err
	}
	if !e.Precedes(parent, &h, &other, c.o.Now()) {
		return false, nil
	}
	var b *consensus.Block
	if it := c.waiting[i]; it != nil {
		b = it.block
	} else if b, err = c.bodyOf(i); err != nil {
		// The first seen stays: who connects blocks or reads them will say what the disk has.
		return false, nil //nolint:nilerr // see above
	}
	// So it does where the disk fails here.
	return c.o.Engine.CheckBlock(parent, siblingCoins{c, best}, b) == nil, nil
}

// bodyOf reads a block from disk.
func (c *conductor) bodyOf(i uint32) (*consensus.Block, error) {
	c.tree.mu.RLock()
	at := c.tree.body(i).block
	c.tree.mu.RUnlock()
	raw, err := c.store.ReadBlock(at)
	if err != nil {
		return nil, err
	}
	return consensus.DecodeBlock(c.o.Params, raw)
}

// drew says whether the block that the coins are at takes the place of the published one,
// with as much work.
func (c *conductor) drew(old uint32) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	nd := t.node(c.verified)
	return nd.hash == c.drawn && t.bestLinked == c.verified && nd.work == t.node(old).work
}

// siblingCoins shows an engine the coins as of the parent of a block that the coins are at.
// What that block spends is read from disk, if somebody asks for it.
type siblingCoins struct {
	c  *conductor
	at uint32
}

// Coin is consensus.Coins. What the block at hand made counts as well: it is as high as
// the one that is checked, hence never mature.
func (s siblingCoins) Coin(op wire.OutPoint) (consensus.Coin, bool, error) {
	c := s.c
	coin, ok, err := c.coins.get(op)
	if ok || err != nil {
		return coin, ok, err
	}
	spent, err := s.spent()
	if err != nil {
		return coin, false, err
	}
	for _, tx := range spent[1:] {
		for n, in := range tx.Tx.TxIn {
			if in.PreviousOutPoint == op {
				return tx.Coins[n], true, nil
			}
		}
	}
	return coin, false, nil
}

// spent is what the block spends.
func (s siblingCoins) spent() ([]consensus.SpentTx, error) {
	c, nd := s.c, s.c.tree.node(s.at)
	if n := len(c.flights); n > 0 && c.flights[n-1].node == s.at {
		return c.flights[n-1].step.spent, nil
	}
	c.tree.mu.RLock()
	undo := c.tree.body(s.at).undo
	c.tree.mu.RUnlock()
	b, err := c.bodyOf(s.at)
	if err != nil {
		return nil, err
	}
	return c.readUndo(b, nd.height, undo)
}
