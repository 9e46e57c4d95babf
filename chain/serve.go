package chain

import (
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/store"
)

// Reads for those who hand blocks on and need not own their bytes.

// ReadBlocks reads blocks into buf, after checking their CRC: as many of hashes from the
// first on as are on disk one behind the other and fit into buf with 12 bytes each
// that frame them. The slices alias buf. None and no error: the first is larger
// than buf; then CheckBlock and ReadBlockPart serve. ErrNotFound if the first is
// not here.
func (c *Chain) ReadBlocks(buf []byte, hashes []chainhash.Hash) ([][]byte, error) {
	if len(hashes) == 0 {
		return nil, nil
	}
	t := c.tree
	ps := make([]store.Pos, 0, len(hashes))
	var blocks [][]byte
	err := c.at(&hashes[0], func(store.Pos) (err error) {
		ps = ps[:0]
		t.mu.RLock()
		for k := range hashes {
			i, ok := t.find(&hashes[k])
			if !ok || t.body(i).block.Size == 0 {
				break
			}
			ps = append(ps, t.body(i).block)
		}
		t.mu.RUnlock()
		if len(ps) == 0 { // gone meanwhile
			return ErrNotFound
		}
		blocks, err = c.store.ReadBlocks(buf, ps)
		return err
	})
	return blocks, err
}

// CheckBlock reads a block through buf, which must not be empty, and checks its CRC. ErrNotFound if it
// is not here.
func (c *Chain) CheckBlock(hash chainhash.Hash, buf []byte) error {
	return c.at(&hash, func(p store.Pos) error { return c.store.CheckBlock(p, buf) })
}

// ReadBlockPart fills dst with the bytes of a block from offset on, unchecked.
// ErrNotFound if the block is not here.
func (c *Chain) ReadBlockPart(hash chainhash.Hash, offset int64, dst []byte) error {
	return c.at(&hash, func(p store.Pos) error { return c.store.ReadBlockPart(p, offset, dst) })
}

// readError turns an error of the store into one of the chain.
func (c *Chain) readError(hash *chainhash.Hash, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrPruned), c.place(hash).Size == 0: // pruned between the two
		return ErrNotFound
	}
	if d := blockDamage(err); d != nil {
		if i, ok := c.tree.lookup(hash); ok {
			c.noteDamage(i, d)
		}
	}
	return fmt.Errorf("block %v: %w", *hash, err)
}
