package chain

import (
	"bytes"
	"maps"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// What an operator said of a block is kept apart from what the rules say: in a file
// beside the index, by hash. So a reindex, which forgets the header tree, goes on
// refusing those blocks as it meets them again. (Bitcoin Core's forgets the marks.)

// loadDenied reads the list.
func (c *Chain) loadDenied() error {
	hashes, err := c.store.Invalidated()
	if err != nil {
		return err
	}
	c.denied = make(map[chainhash.Hash]struct{}, len(hashes))
	for _, h := range hashes {
		c.denied[h] = struct{}{}
	}
	if len(hashes) > 0 && c.store.Rebuilding() {
		c.log.Warn("blocks that were invalidated by hand stay invalid, see `dunlin chain reconsider`", "blocks", len(hashes), "first", hashes[0])
	}
	return nil
}

// deny adds a block to the list, durably.
func (c *conductor) deny(hash chainhash.Hash) error {
	denied := maps.Clone(c.denied)
	denied[hash] = struct{}{}
	return c.putDenied(denied)
}

// pardon takes a block, its ancestors and all that builds on it off the list,
// durably.
func (c *conductor) pardon(node uint32) error {
	t := c.tree
	denied := maps.Clone(c.denied)
	maps.DeleteFunc(denied, func(hash chainhash.Hash, _ struct{}) bool {
		i, ok := t.lookup(&hash)
		return ok && t.sameBranch(i, node)
	})
	return c.putDenied(denied)
}

func (c *conductor) putDenied(denied map[chainhash.Hash]struct{}) error {
	if maps.Equal(denied, c.denied) {
		return nil
	}
	hashes := slices.SortedFunc(maps.Keys(denied), func(a, b chainhash.Hash) int { return bytes.Compare(a[:], b[:]) })
	if err := c.store.PutInvalidated(hashes); err != nil {
		return err
	}
	c.tree.mu.Lock()
	c.denied = denied
	c.tree.mu.Unlock()
	return nil
}
