package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// metaReindex is the name under which the store remembers, in one byte, that a
// reindex was not finished: 0 that it was, reindexing that blocks are still read
// and connected. Above it, all was read, but some blocks wait for headers that
// only sync can bring; each start that finds it so looks for them in the block
// files again and counts one up, until it gives them up at maxGapStarts.
const metaReindex = "reindex"

const (
	reindexing   = 1
	maxGapStarts = 8
)

// load fills the tree from the store, or creates the chain with its genesis
// block connected.
func (c *Chain) load() error {
	tip, ok, err := c.store.Tip()
	if err != nil {
		return err
	}
	if err := c.loadDenied(); err != nil {
		return err
	}
	if !ok {
		return c.create()
	}
	unfinished, _, err := c.store.Meta(metaReindex)
	if err != nil {
		return err
	}
	if len(unfinished) == 1 {
		c.reindex, c.gapStarts = unfinished[0] != 0, unfinished[0]
	}
	if c.gapStarts != reindexing && c.store.Filling() { // cut off between the two
		if err := c.store.Filled(); err != nil {
			return err
		}
	}
	if err := c.loadDoubles(); err != nil {
		return err
	}
	c.keptBlocks, c.keptUndo = c.store.Kept()
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := c.loadHeaders(); err != nil {
		return err
	}
	at, ok := t.find(&tip.Hash)
	if !ok || t.node(at).height != tip.Height {
		return fmt.Errorf("the tip %v at height %d is not in the header tree", tip.Hash, tip.Height)
	}
	if !t.has(at, flagLinked) {
		return fmt.Errorf("blocks below the tip %v at height %d are missing", tip.Hash, tip.Height)
	}
	if err := c.loadAnchor(at); err != nil {
		return err
	}
	t.forgetLoaded(at)
	t.reconsider(at)
	for hash := range c.denied { // noted, and then the commit did not come
		if i, ok := t.find(&hash); ok && !t.has(i, flagInvalid) {
			t.condemn(i, flagInvalid, at)
		}
	}
	c.tip, c.heads = newNotice(at), newNotice(t.bestHeader)
	c.lowest.Store(t.lowest(at))
	return nil
}

// create writes genesis into a new store.
func (c *Chain) create() error {
	c.created = true
	// A crash between the two steps below leaves a record that nothing knows.
	if err := c.store.ScanTail(func(store.Pos, []byte) error { return nil }); err != nil {
		return err
	}
	g := c.o.Params.GenesisBlock()
	p, err := c.store.AppendBlock(g.Raw)
	if err != nil {
		return fmt.Errorf("storing genesis: %w", err)
	}
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.add(&g.Header, g.Hash, noNode, workOf(c.o.Engine.Work(&g.Header)))
	if err := c.loadAnchor(noNode); err != nil { // a reindex has one
		return err
	}
	t.prove(i)
	t.setBlock(i, p, uint32(len(g.Txs)))
	b := c.store.NewBatch()
	r := t.record(i)
	r.Raw = g.Raw[:consensus.HeaderBytes+c.o.Params.SealBytes]
	b.PutHeader(g.Hash, r)
	b.SetTip(store.Tip{Hash: g.Hash})
	if c.o.Params.GenesisSpendable() { // at once: it is no coinbase that must mature
		for n, out := range g.Txs[0].MsgTx().TxOut {
			b.PutCoin(wire.OutPoint{Hash: *g.Txs[0].Hash(), Index: uint32(n)}, consensus.Coin{Value: out.Value, Script: out.PkScript})
		}
	}
	if c.reindex = c.store.Rebuilding(); c.reindex {
		c.gapStarts = reindexing
		b.PutMeta(metaReindex, []byte{reindexing})
	}
	if err := c.store.Commit(b); err != nil {
		return fmt.Errorf("storing genesis: %w", err)
	}
	t.dirty = nil
	delete(t.seals, i)
	*t.flags(i) &^= flagDirty
	if t.capped {
		t.loose(i).stored[i] = true
	}
	c.tip, c.heads = newNotice(i), newNotice(i)
	return nil
}

// A tailBlock is a block found on disk that the index may not know.
type tailBlock struct {
	place  store.Pos
	header consensus.Header
	hash   chainhash.Hash
	txs    uint32
}

// replay goes on where the last run was cut off: it takes up the blocks that lie
// past the last commit and connects all that is on disk and was not connected.
// A header that was not committed is found again in its block.
func (c *conductor) replay() error {
	start := time.Now()
	from := c.verified
	found, lost := 0, 0
	if !c.created || c.reindex {
		// Out-of-order blocks lie before their parents and wait here: a few words
		// each, as many as one run stored out of order.
		waits := make(map[chainhash.Hash][]tailBlock)
		take := func(p store.Pos, raw []byte) error {
			select {
			case <-c.stop:
				return errStopping
			default:
			}
			c.replayed.Add(int64(len(raw)))
			b, err := c.readTail(p, raw)
			if err != nil {
				lost++
				c.log.Warn("a record is no block, left alone", "file", p.File, "offset", p.Offset, "err", err)
				return nil
			}
			todo := []tailBlock{b}
			for len(todo) > 0 {
				b, todo = todo[0], todo[1:]
				switch took, err := c.takeTail(b); {
				case err != nil:
					return err
				case !took:
					waits[b.header.PrevBlock] = append(waits[b.header.PrevBlock], b)
				default:
					found++
					todo = append(todo, waits[b.hash]...)
					delete(waits, b.hash)
				}
			}
			return nil
		}
		if err := c.scan(take); err != nil {
			return fmt.Errorf("looking for blocks that are not connected: %w", err)
		}
		for _, bs := range waits {
			lost += len(bs)
		}
		if c.reindex {
			c.keepStrays(waits)
		}
	}
	if err := c.advance(); err != nil {
		return err
	}
	if err := c.drain(); err != nil {
		return err
	}
	if err := c.advance(); err != nil {
		return err
	}
	if c.reindex {
		if err := c.finishReindex(); err != nil {
			return err
		}
	}
	if found > 0 || lost > 0 || c.verified != from {
		c.log.Info("replayed blocks found on disk",
			"found", found, "unusable", lost, "from_height", c.tree.node(from).height,
			"height", c.tree.node(c.verified).height, "took_ms", time.Since(start).Milliseconds())
	}
	c.loadSpentStakes()
	c.replaying = false
	close(c.ready)
	return nil
}

// scan calls take with the records past the last commit, or with all.
func (c *conductor) scan(take func(store.Pos, []byte) error) error {
	if !c.created {
		if err := c.store.ScanTail(take); err != nil || !c.reindex {
			return err
		}
	}
	c.log.Info("reindexing: reading every block file")
	c.replayed.Store(0)
	return c.store.Scan(take, func(damage *store.DamageError) error {
		c.log.Error("damage in the block files, what is missing will be downloaded again", "err", damage)
		return nil
	})
}

// finishReindex commits what was rebuilt and forgets that it was to be.
func (c *conductor) finishReindex() error {
	if err := c.commit(); err != nil {
		return err
	}
	c.tree.mu.RLock()
	strays := len(c.tree.strays)
	c.tree.mu.RUnlock()
	state := c.gapStarts + 1
	switch {
	case strays == 0:
		state = 0
	case state >= maxGapStarts:
		c.log.Warn("blocks on disk are given up, sync has brought no headers for them", "blocks", strays)
		state = 0
	default:
		c.log.Warn("blocks are missing between those on disk, sync will bring them", "waiting", strays,
			"height", c.tree.node(c.verified).height)
	}
	return c.endReindex(state)
}

// endReindex notes how far the reindex is: 0 that it is over.
func (c *conductor) endReindex(state uint8) error {
	b := c.store.NewBatch()
	b.PutMeta(metaReindex, []byte{state})
	if err := c.store.Commit(b); err != nil {
		return fmt.Errorf("finishing the reindex: %w", err)
	}
	if err := c.store.Filled(); err != nil {
		return fmt.Errorf("finishing the reindex: %w", err)
	}
	c.gapStarts = state
	if c.reindex = state != 0; !c.reindex {
		c.tree.mu.Lock()
		c.tree.strays = nil
		c.tree.mu.Unlock()
		c.log.Info("reindexed", "height", c.tree.node(c.verified).height)
	}
	return nil
}

// keepStrays keeps the blocks whose parents are not known until their headers come.
func (c *conductor) keepStrays(waits map[chainhash.Hash][]tailBlock) {
	strays := make(map[chainhash.Hash]tailBlock)
	for _, bs := range waits {
		for _, b := range bs {
			strays[b.hash] = b
		}
	}
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	for hash, b := range strays {
		if i, ok := t.find(&hash); ok { // its header came meanwhile
			t.setStored(i, &b)
			delete(strays, hash)
		}
	}
	t.strays = strays
}

// readTail reads what the tree needs from the bytes of a block.
func (c *conductor) readTail(p store.Pos, raw []byte) (tailBlock, error) {
	head := consensus.HeaderBytes + c.o.Params.SealBytes
	if len(raw) < head {
		return tailBlock{}, fmt.Errorf("%d bytes", len(raw))
	}
	h, err := consensus.DecodeHeader(c.o.Params, raw[:head])
	if err != nil {
		return tailBlock{}, err
	}
	n, err := txCount(raw[head:])
	if err != nil {
		return tailBlock{}, err
	}
	return tailBlock{place: p, header: h, hash: consensus.HeaderHash(&h), txs: n}, nil
}

// takeTail adds a block past the last commit to the tree; false if its parent is
// not there.
func (c *conductor) takeTail(b tailBlock) (bool, error) {
	t := c.tree
	i, ok := t.lookup(&b.hash)
	if !ok {
		parent, ok := t.lookup(&b.header.PrevBlock)
		if !ok {
			return false, nil
		}
		var err error
		if i, err = c.acceptHeader(parent, &b.header, b.hash, Source{Kind: FromDisk}, nil); asRule(err) != nil {
			c.log.Warn("a block found on disk is not valid", "hash", b.hash, "err", err)
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setStored(i, &b)
	return true, nil
}

// setStored notes where the bytes of a block are that was found on disk. Its seal takes the
// place of that of its header, which may have come alone and be false: what is on disk was
// seen to belong to its seal. The caller holds mu.
func (t *tree) setStored(i uint32, b *tailBlock) {
	if t.body(i).block.Size > 0 {
		return
	}
	if t.sealBytes > 0 {
		t.seals[i] = bytes.Clone(b.header.Seal)
	}
	t.setBlock(i, b.place, b.txs)
}

var errTxCount = errors.New("no transaction count after the header")

// txCount reads a block's number of transactions; the block has been decoded
// before, or will be before it counts.
func txCount(b []byte) (uint32, error) {
	switch {
	case len(b) >= 1 && b[0] < 0xfd:
		return uint32(b[0]), nil
	case len(b) >= 3 && b[0] == 0xfd:
		return uint32(binary.LittleEndian.Uint16(b[1:])), nil
	case len(b) >= 5 && b[0] == 0xfe:
		return binary.LittleEndian.Uint32(b[1:]), nil
	}
	return 0, errTxCount
}

// A ReplayProgress says how far the reading of block files after Open got.
type ReplayProgress struct {
	Reindexing bool
	Bytes      int64 // of blocks read
	Total      int64 // bytes of all block files
	Height     int32 // of the validated tip
}

// Replay says how far the replay is; after Ready it stands still, but for a
// Height that goes on. Reindexing is as of Open.
func (c *Chain) Replay() ReplayProgress {
	total, _, _ := c.store.Size()
	return ReplayProgress{
		Reindexing: c.reindexes, Bytes: c.replayed.Load(), Total: total,
		Height: c.tree.node(c.tip.get()).height,
	}
}

// Waiting returns how many blocks a reindex found behind damage: they are used
// when sync brings what is missing below them.
func (c *Chain) Waiting() int {
	c.tree.mu.RLock()
	defer c.tree.mu.RUnlock()
	return len(c.tree.strays)
}
