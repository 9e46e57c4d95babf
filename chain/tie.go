package chain

import (
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

// draw makes b, whose bytes are on disk, the best block if it ties with the best one and
// goes before it. It changes nothing else; advance follows.
func (c *conductor) draw(i uint32, b *consensus.Block) error {
	e, ok := c.o.Engine.(drawing)
	if !ok {
		return nil
	}
	t := c.tree
	t.mu.RLock()
	best := t.bestLinked
	t.mu.RUnlock()
	nd, rival := t.node(i), t.node(best)
	if i == best || best != c.applied || nd.parent == noNode || nd.parent != rival.parent || nd.work != rival.work {
		return nil
	}
	other := t.header(best)
	var err error
	if other.Seal, err = c.sealOf(rival); err != nil {
		return err
	}
	parent := t.past(nd.parent)
	// Where the disk fails the first seen stays: who connects blocks will say it.
	if !e.Precedes(parent, &b.Header, &other, c.o.Now()) || c.o.Engine.CheckBlock(parent, siblingCoins{c, best}, b) != nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bestLinked != best || t.has(i, flagBad|flagDeferred) || !t.allowed(i) {
		return nil
	}
	t.bestLinked, c.drawn = i, nd.hash
	if t.bestHeader == best {
		t.bestHeader = i
		c.heads.set(i)
	}
	return nil
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
	at := c.tree.body(s.at)
	c.tree.mu.RUnlock()
	raw, err := c.store.ReadBlock(at.block)
	if err != nil {
		return nil, err
	}
	b, err := consensus.DecodeBlock(c.o.Params, raw)
	if err != nil {
		return nil, err
	}
	return c.readUndo(b, nd.height, at.undo)
}
