package chain

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// A block whose bytes on disk turn out to be damaged is not lost while a peer has it:
// it is listed (Damaged), whoever speaks with peers fetches it and submits it, and its
// bytes are kept anew, at another place. Until then it is not served; a branch that
// needs it waits. Undo data is nobody else's: damage there wants a reindex.

// maxDamaged bounds the list; a disk that loses more wants a reindex.
const maxDamaged = 4096

// Damaged lists the blocks whose bytes were found damaged since Open and not restored
// yet, and returns a channel that is closed when one more is found. Submit takes their
// bytes from any source: the verdict is Duplicate, or Connected and the like for
// a block that had not been connected.
func (c *Chain) Damaged() ([]chainhash.Hash, <-chan struct{}) {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	hashes := make([]chainhash.Hash, 0, len(c.damaged))
	for i := range c.damaged {
		hashes = append(hashes, t.node(i).hash)
	}
	return hashes, c.moreDamaged
}

// blockDamage returns the damage of a block file that err tells of, or nil.
func blockDamage(err error) *store.DamageError {
	d, ok := errors.AsType[*store.DamageError](err)
	if !ok || d.File == "" || d.File[0] != 'b' && d.File[0] != 'a' { // blocks/ and aside/; not undo/ or index
		return nil
	}
	return d
}

// noteDamage lists a block and logs it, once.
func (c *Chain) noteDamage(i uint32, d *store.DamageError) {
	t := c.tree
	t.mu.Lock()
	_, known := c.damaged[i]
	full := len(c.damaged) >= maxDamaged
	if !known && !full {
		c.damaged[i] = struct{}{}
		close(c.moreDamaged)
		c.moreDamaged = make(chan struct{})
	}
	t.mu.Unlock()
	if known || full {
		return
	}
	nd := t.node(i)
	c.log.Warn("a block on disk is damaged, it is fetched again when a peer has it", "hash", nd.hash, "height", nd.height,
		"file", d.File, "offset", d.Offset, "what", d.What, "without_peers", d.Mend)
}

// isDamaged says whether i is listed.
func (c *Chain) isDamaged(i uint32) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := c.damaged[i]
	return ok
}

// restore takes the bytes of a block whose own are damaged. All that its header and
// the tree say of them is checked again; the rules that need coins are not, for it is
// the very block that was stored.
func (c *conductor) restore(it *item, i uint32) (Verdict, error) {
	t := c.tree
	nd := t.node(i)
	v := Verdict{Hash: nd.hash, Height: nd.height}
	b := it.block
	if b == nil {
		var err error
		if b, err = consensus.DecodeBlock(c.o.Params, it.raw); err != nil {
			return c.refuse(it, v, err)
		}
		it.block = b
	}
	err := c.checkBody(b)
	if err == nil {
		err = consensus.CheckBlockContext(c.o.Params, t.past(nd.parent), b)
	}
	if err == nil {
		seal, own := c.sealOf(nd)
		if own != nil {
			return Verdict{}, own
		}
		if !bytes.Equal(b.Header.Seal, seal) {
			if err = c.CheckSeal(b); err == nil { // whoever has the key can sign twice
				return c.refuse(it, v, ruleError("other-seal", consensus.BlameNobody, "the seal is not that of the known header"))
			}
		}
	}
	if rule := asRule(err); rule != nil { // the block was stored as sound: it is the sender's
		blamed := *rule
		blamed.Blame = consensus.BlameSender
		return c.refuse(it, v, &blamed)
	} else if err != nil {
		return Verdict{}, err
	}
	old, wasAside := c.asidePlace(i)
	p, err := c.putBlock(i, it)
	if err != nil {
		return Verdict{}, err
	}
	c.armFlush()
	t.mu.Lock()
	delete(c.damaged, i)
	linked, valid := t.has(i, flagLinked), t.has(i, flagValid)
	if linked {
		t.ownBody(i).block = p
		t.touch(i)
	} else {
		linked = t.setBlock(i, p, uint32(len(b.Txs)))
	}
	for _, j := range c.blocked { // what could not be reached for want of it
		t.undefer(j)
	}
	if len(c.blocked) > 0 {
		t.reconsider(c.tip.get())
	}
	c.blocked = nil
	t.mu.Unlock()
	if wasAside {
		c.dropAside(old)
	}
	c.log.Info("a damaged block was restored", "hash", nd.hash, "height", nd.height)
	switch {
	case c.active(i):
		v.Outcome = Duplicate
	case !linked:
		it.node = i
		v.Outcome = Stored
	case valid:
		v.Outcome = Duplicate
	default:
		it.node = i // to be connected
	}
	return v, nil
}

// unlink makes a block that was not connected one that is not here, after its bytes
// turned out to be damaged: what builds on it waits for it again.
func (c *conductor) unlink(i uint32, d *store.DamageError) {
	t := c.tree
	t.mu.Lock()
	t.ownBody(i).block = store.Pos{}
	t.touch(i)
	for j := min(i, t.after(i)); j < t.n; j++ {
		if !t.has(j, flagLinked) || !t.descends(j, i) {
			continue
		}
		*t.flags(j) &^= flagLinked
		if t.body(j).block.Size > 0 {
			parent := t.node(j).parent
			t.pending[parent] = append(t.pending[parent], j)
		}
	}
	t.reconsider(c.tip.get())
	t.mu.Unlock()
	c.unshelve(i)
	c.ahead = nil
	c.armFlush()
	c.noteDamage(i, d)
}

// damagedAbove reads the blocks of the active chain from the tip down to i, if i is one
// of them, and says whether the first that is damaged keeps the chain from going back
// below i. The damage found is listed.
func (c *conductor) damagedAbove(i uint32) (damage, err error) {
	if !c.active(i) {
		return nil, nil
	}
	t := c.tree
	buf := make([]byte, 64<<10)
	for up, end := c.tip.get(), t.node(i).parent; up != end; up = t.node(up).parent {
		select {
		case <-c.stop:
			return nil, errStopping
		default:
		}
		t.mu.RLock()
		at := t.body(up).block
		t.mu.RUnlock()
		err := c.store.CheckBlock(at, buf)
		d := blockDamage(err)
		if err != nil && d == nil {
			return nil, fmt.Errorf("checking block %v at height %d: %w", t.node(up).hash, t.node(up).height, err)
		}
		if d != nil {
			c.noteDamage(up, d)
			return fmt.Errorf("block %v at height %d %w, so the chain cannot go back beyond it: try again when it was fetched from a peer, or mend it: %w",
				t.node(up).hash, t.node(up).height, ErrDamaged, d), nil
		}
	}
	return nil, nil
}

// block leaves the branch to target alone until a block of the active chain that lies
// in the way, i, is restored. The target is not an ancestor of the coins' block.
func (c *conductor) block(i, target uint32, d *store.DamageError) {
	t := c.tree
	c.noteDamage(i, d)
	culprit := t.ancestor(target, t.node(t.fork(c.applied, target)).height+1)
	c.log.Error("a branch with more work cannot be followed before a damaged block is restored",
		"branch", t.node(target).hash, "branch_height", t.node(target).height, "damaged", t.node(i).hash, "damaged_height", t.node(i).height,
		"mend", "a peer that has it; if there is none, dunlin chain reindex on the stopped node")
	c.blocked = append(c.blocked, culprit)
	c.mark(culprit, flagDeferred)
}
