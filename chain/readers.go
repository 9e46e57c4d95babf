package chain

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Tip returns the validated tip and a channel that is closed at its next change.
// Until the first Run it is the committed tip.
func (c *Chain) Tip() (Tip, <-chan struct{}) {
	i, changed := c.tip.watch()
	return c.tree.tip(i), changed
}

// BestHeader returns the tip of the valid header chain with most work, and a
// channel that is closed at its next change.
func (c *Chain) BestHeader() (Tip, <-chan struct{}) {
	_, changed := c.heads.watch()
	t := c.tree
	t.mu.RLock()
	i, ns := t.bestHeader, t.nodes()
	t.mu.RUnlock()
	return ns.tip(i), changed
}

// active says whether i is on the active chain. No lock needed.
func (c *Chain) active(i uint32) bool { return c.tree.descends(c.tip.get(), i) }

// Status returns what is known of a header.
func (c *Chain) Status(hash chainhash.Hash) (NodeStatus, bool) {
	t := c.tree
	tip := c.tip.get()
	t.mu.RLock()
	i, ok := t.find(&hash)
	ns := t.nodes()
	var b body
	var flags uint8
	refused := false
	if ok {
		b, flags, refused = t.body(i), *t.flags(i), !t.allowed(i)
	}
	t.mu.RUnlock()
	if !ok {
		return NodeStatus{}, false
	}
	nd := ns.node(i)
	return NodeStatus{
		Height:    nd.height,
		Header:    ns.header(i),
		Work:      nd.work.big(),
		HaveBlock: b.block.Size > 0,
		Pruned:    flags&flagPruned != 0,
		Valid:     flags&flagValid != 0,
		Invalid:   flags&flagBad != 0,
		Active:    ns.descends(tip, i),
		Refused:   refused,
		Txs:       int(b.txs),
	}, true
}

// HashAt returns the hash at height on the active chain. O(log height).
func (c *Chain) HashAt(height int32) (chainhash.Hash, bool) {
	i := c.tree.ancestor(c.tip.get(), height)
	if i == noNode {
		return chainhash.Hash{}, false
	}
	return c.tree.node(i).hash, true
}

// Ancestor returns the hash of the ancestor of hash at height (hash itself
// included) in the header tree. O(log height).
func (c *Chain) Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool) {
	ns, i, ok := c.tree.look(&hash)
	if !ok {
		return chainhash.Hash{}, false
	}
	if i = ns.ancestor(i, height); i == noNode {
		return chainhash.Hash{}, false
	}
	return ns.node(i).hash, true
}

// Fork returns the last common block of the branches that end in a and b.
func (c *Chain) Fork(a, b chainhash.Hash) (hash chainhash.Hash, height int32, ok bool) {
	t := c.tree
	t.mu.RLock()
	i, okA := t.find(&a)
	j, okB := t.find(&b)
	ns := t.nodes()
	t.mu.RUnlock()
	if !okA || !okB {
		return chainhash.Hash{}, -1, false
	}
	nd := ns.node(ns.fork(i, j))
	return nd.hash, nd.height, true
}

// Past returns the view that ends in hash, for engines and templates.
func (c *Chain) Past(hash chainhash.Hash) (consensus.Past, bool) {
	ns, i, ok := c.tree.look(&hash)
	if !ok {
		return nil, false
	}
	return past{ns, i}, true
}

// Have returns the ranges of heights in (from, to] of the branch that ends in
// tip whose block bytes are on disk, ascending and non-overlapping. Both ends of
// a range are included.
func (c *Chain) Have(tip chainhash.Hash, from, to int32) [][2]int32 {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.find(&tip)
	if !ok {
		return nil
	}
	from = max(from, -1)
	to = min(to, t.node(i).height)
	if to <= from {
		return nil
	}
	i = t.ancestor(i, to)
	var have [][2]int32
	for h := to; h > from; h-- {
		if t.body(i).block.Size > 0 {
			if n := len(have); n > 0 && have[n-1][0] == h+1 {
				have[n-1][0] = h
			} else {
				have = append(have, [2]int32{h, h})
			}
		}
		i = t.node(i).parent
	}
	slices.Reverse(have)
	return have
}

// maxLocator is the most hashes in a locator: 10 single steps and doublings over
// 2^31 heights stay below it.
const maxLocator = 64

// Locator returns a block locator (newest first, exponentially sparser, genesis
// last, at most 64 hashes) of the branch that ends in hash; nil if it is unknown.
func (c *Chain) Locator(hash chainhash.Hash) []chainhash.Hash {
	t := c.tree
	ns, i, ok := t.look(&hash)
	if !ok {
		return nil
	}
	locator := make([]chainhash.Hash, 0, maxLocator)
	for back := int32(1); ; {
		nd := ns.node(i)
		locator = append(locator, nd.hash)
		if nd.height == 0 {
			return locator
		}
		if len(locator) > 10 {
			back *= 2
		}
		i = ns.ancestor(i, max(0, nd.height-back))
	}
}

// HeadersAfter appends to dst up to most raw headers (header ‖ seal each) of the
// active chain that follow the first hash of the locator found on it (genesis if
// none), and returns the height of the first and their number.
func (c *Chain) HeadersAfter(dst []byte, locator []chainhash.Hash, most int) (start int32, n int, raw []byte, err error) {
	t := c.tree
	tip := c.tip.get()
	height := t.node(tip).height
	for k := range locator {
		if ns, i, ok := t.look(&locator[k]); ok && ns.descends(tip, i) {
			start = ns.node(i).height
			break
		}
	}
	start++
	n = min(most, int(height-start)+1)
	if n <= 0 {
		return start, 0, dst, nil
	}
	nodes := make([]uint32, n)
	i := t.ancestor(tip, start+int32(n)-1)
	for k := n - 1; k >= 0; k-- {
		nodes[k] = i
		i = t.node(i).parent
	}
	dst = slices.Grow(dst, n*(consensus.HeaderBytes+t.sealBytes))
	for _, i := range nodes {
		if dst, err = c.appendHeader(dst, i); err != nil {
			return 0, 0, nil, err
		}
	}
	return start, n, dst, nil
}

// place returns where the bytes of a block are; Size is 0 if nowhere.
func (c *Chain) place(hash *chainhash.Hash) store.Pos {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i, ok := t.find(hash); ok {
		return t.body(i).block
	}
	return store.Pos{}
}

// Block returns the bytes of a block that is on disk, after checking their CRC.
// ErrNotFound if there are none.
func (c *Chain) Block(hash chainhash.Hash) ([]byte, error) {
	var raw []byte
	err := c.at(&hash, func(p store.Pos) (err error) {
		raw, err = c.store.ReadBlock(p)
		return err
	})
	return raw, err
}

// at calls read with where the bytes of a block are, again if it has just gone elsewhere, and
// turns its error into one of the chain.
func (c *Chain) at(hash *chainhash.Hash, read func(store.Pos) error) error {
	for {
		p := c.place(hash)
		if p.Size == 0 {
			return ErrNotFound
		}
		err := read(p)
		if errors.Is(err, store.ErrMoved) && c.place(hash) != p {
			continue
		}
		return c.readError(hash, err)
	}
}

// Seal returns the seal of a header; nil on networks without seals. While the block
// is not on disk ([NodeStatus].HaveBlock, or Pruned) it is what somebody claims who may
// not have the stake. ErrNotFound if the header is unknown. The caller owns it.
func (c *Chain) Seal(hash chainhash.Hash) ([]byte, error) {
	ns, i, ok := c.tree.look(&hash)
	if !ok {
		return nil, ErrNotFound
	}
	seal, err := c.sealOf(ns.node(i))
	return bytes.Clone(seal), err
}

// BlockSize returns the size of a block on disk without reading it; 0 if unknown.
func (c *Chain) BlockSize(hash chainhash.Hash) int { return int(c.place(&hash).Size) }

// Coin looks a coin up as of the validated tip. ErrBusy during a reorganisation
// too deep for its steps to be kept in memory.
func (c *Chain) Coin(op wire.OutPoint) (consensus.Coin, bool, error) { return c.coins.view(op) }

// SizeOnDisk is the number of bytes of block files, undo files, database and what lies aside.
func (c *Chain) SizeOnDisk() int64 {
	blocks, undo, index := c.store.Size()
	_, aside := c.store.Aside()
	return blocks + undo + index + aside
}

// DiskUse is what the chain takes of the disk, in bytes.
type DiskUse struct {
	Blocks, Undo, Index int64 // block files, undo files, database
	BlockFiles          int   // of them those that hold blocks
	Free                uint64
}

// DiskUse asks the file system; it stats every file.
func (c *Chain) DiskUse() (u DiskUse, err error) {
	blocks, _, err := c.store.Files()
	if err != nil {
		return DiskUse{}, err
	}
	u.BlockFiles = len(blocks)
	u.Blocks, u.Undo, u.Index = c.store.Size()
	u.Free, err = c.store.DiskFree()
	return u, err
}

// Tips lists the leaves of the header tree and the active tip, the latter first,
// then by descending height, first seen first, then the refused branches that are not in
// the tree.
func (c *Chain) Tips() []ChainTip {
	t := c.tree
	tip := c.tip.get()
	type leaf struct {
		i     uint32
		flags uint8
		deep  bool
	}
	var leaves []leaf
	t.mu.RLock()
	ns := t.nodes()
	for i := range t.n { // a byte each: well under a millisecond for a million
		if flags := *t.flags(i); flags&flagParent == 0 && i != tip {
			leaves = append(leaves, leaf{i, flags, !t.allowed(i)})
		}
	}
	t.mu.RUnlock()
	slices.SortFunc(leaves, func(a, b leaf) int {
		return cmp.Or(cmp.Compare(ns.node(b.i).height, ns.node(a.i).height), cmp.Compare(a.i, b.i))
	})
	tips := make([]ChainTip, 0, len(leaves)+1)
	tips = append(tips, ChainTip{Tip: t.tip(tip), Status: "active"})
	for _, l := range leaves {
		ct := ChainTip{Tip: ns.tip(l.i), Branch: ns.node(l.i).height - ns.node(ns.fork(l.i, tip)).height}
		switch {
		case l.flags&flagBad != 0:
			ct.Status = "invalid"
		case l.deep && ns.node(l.i).work.more(ns.node(tip).work):
			ct.Status = statusRefused
		case l.flags&flagValid != 0:
			ct.Status = "valid-fork"
		case l.flags&flagLinked != 0:
			ct.Status = "valid-headers"
		default:
			ct.Status = "headers-only"
		}
		tips = append(tips, ct)
	}
	return append(tips, c.refusedTips()...)
}
