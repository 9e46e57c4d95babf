package chain

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Flags of a node. Those of storedFlags are stored; the rest live until the next
// start.
const (
	flagValid    uint8 = 1 << iota // fully validated at some time
	flagInvalid                    // broke a rule itself, or an operator said so
	flagDoomed                     // an ancestor is invalid
	flagLinked                     // its bytes and those of all its ancestors are on disk
	flagDeferred                   // failed to connect through nobody's fault: not tried again before a restart
	flagDirty                      // differs from what is stored
	flagPruned                     // bytes or undo data were here and were removed: stored too

	storedFlags = flagValid | flagInvalid | flagDoomed | flagPruned
	flagBad     = flagInvalid | flagDoomed
)

// noNode is the index of nothing: the parent of genesis.
const noNode = ^uint32(0)

// A node is one header of the tree: 112 bytes, immutable once added, so that
// whoever knows its index reads it without a lock. There are no pointers in it
// for the garbage collector to follow.
type node struct {
	hash, merkle chainhash.Hash
	work         work128 // cumulative
	version      int32
	time         uint32 // Unix seconds, as on the wire
	bits, nonce  uint32
	height       int32
	parent, skip uint32
	votes        consensus.Votes // of the branch that ends here
}

// A body is what is known of a node's block; guarded by tree.mu.
type body struct {
	block, undo store.Pos
	txs         uint32
	flags       uint8
}

const chunkNodes = 1 << 12

// A chunk holds nodes that never move, so that readers need no lock.
type chunk struct {
	nodes  [chunkNodes]node
	bodies [chunkNodes]body
	seals  []byte // chunkNodes × sealBytes
}

// A tree is the header tree. Nodes are numbered in the order in which they were
// first seen (by height after a restart), so a parent's index is always the
// smaller one.
//
// mu guards everything but the nodes themselves; it is held for map look-ups
// and a few field updates, never across I/O, rules or logging. Walks of the
// whole tree happen under it only when a block proved invalid.
type tree struct {
	params    *consensus.Params
	sealBytes int
	salt      uint64 // so that nobody can choose colliding keys
	oneKey    bool   // tests: every key collides
	dir       atomic.Pointer[[]*chunk]

	mu      sync.RWMutex
	n       uint32
	index   map[uint64]uint32   // by salted hash prefix
	more    map[uint64][]uint32 // further nodes with the same key
	leaves  map[uint32]struct{}
	pending map[uint32][]uint32 // nodes with bytes whose parent (the key) is not linked
	dirty   []uint32            // nodes to write at the next commit
	// bestLinked is the node with most work, first linked first, whose branch is
	// wholly on disk and not known to be bad: where the coins should go.
	bestLinked uint32
	// bestHeader is the node with most work, first seen first, not known to be bad.
	bestHeader uint32
	// prunedTop is the greatest height of a pruned node; -1 if there is none.
	prunedTop int32
	// strays are blocks found on disk by a reindex whose parents' headers are not
	// known: damage lies between. They are taken up when sync brings the header.
	strays map[chainhash.Hash]tailBlock
}

func newTree(p *consensus.Params) *tree {
	t := &tree{
		params:     p,
		sealBytes:  p.SealBytes,
		salt:       rand.Uint64() | 1,
		index:      make(map[uint64]uint32),
		more:       make(map[uint64][]uint32),
		leaves:     make(map[uint32]struct{}),
		pending:    make(map[uint32][]uint32),
		bestLinked: noNode,
		bestHeader: noNode,
		prunedTop:  -1,
	}
	t.dir.Store(new([]*chunk))
	return t
}

// key maps a hash to 64 bits through a secret multiplier.
func (t *tree) key(h *chainhash.Hash) uint64 {
	if t.oneKey {
		return 0
	}
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(h[:8])^t.salt, t.salt)
	return hi ^ lo ^ binary.LittleEndian.Uint64(h[8:16])
}

// node returns the node at index i; i must be known to exist. No lock needed.
func (t *tree) node(i uint32) *node {
	return &(*t.dir.Load())[i/chunkNodes].nodes[i%chunkNodes]
}

// body returns the body at index i. The caller holds mu.
func (t *tree) body(i uint32) *body {
	return &(*t.dir.Load())[i/chunkNodes].bodies[i%chunkNodes]
}

func (t *tree) seal(i uint32) []byte {
	if t.sealBytes == 0 {
		return nil
	}
	at := int(i%chunkNodes) * t.sealBytes
	return (*t.dir.Load())[i/chunkNodes].seals[at : at+t.sealBytes : at+t.sealBytes]
}

// find returns the index of a hash. The caller holds mu.
func (t *tree) find(h *chainhash.Hash) (uint32, bool) {
	k := t.key(h)
	i, ok := t.index[k]
	if !ok {
		return noNode, false
	}
	if t.node(i).hash == *h {
		return i, true
	}
	for _, i := range t.more[k] {
		if t.node(i).hash == *h {
			return i, true
		}
	}
	return noNode, false
}

// lookup is find for those who do not hold mu.
func (t *tree) lookup(h *chainhash.Hash) (uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.find(h)
}

// add appends a node and returns its index. The caller holds mu, has found that
// hash is not there and that parent (noNode for genesis) is.
func (t *tree) add(h *consensus.Header, hash chainhash.Hash, parent uint32, work work128) uint32 {
	i := t.n
	dir := *t.dir.Load()
	if int(i/chunkNodes) == len(dir) {
		c := &chunk{seals: make([]byte, chunkNodes*t.sealBytes)}
		dir = append(slices.Clone(dir), c)
		t.dir.Store(&dir)
	}
	nd := t.node(i)
	*nd = node{
		hash:    hash,
		merkle:  h.MerkleRoot,
		work:    work,
		version: h.Version,
		time:    uint32(h.Timestamp.Unix()),
		bits:    h.Bits,
		nonce:   h.Nonce,
		parent:  parent,
		skip:    noNode,
	}
	copy(t.seal(i), h.Seal)
	if parent != noNode {
		p := t.node(parent)
		nd.height = p.height + 1
		nd.work = p.work.add(work)
		nd.skip = t.skipOf(parent)
		nd.votes = t.params.NextVotes(p.votes, past{t, i})
		if t.body(parent).flags&flagBad != 0 {
			t.body(i).flags |= flagDoomed
		}
		delete(t.leaves, parent)
	}
	t.leaves[i] = struct{}{}
	t.n++
	k := t.key(&hash)
	if _, taken := t.index[k]; taken {
		t.more[k] = append(t.more[k], i)
	} else {
		t.index[k] = i
	}
	if t.body(i).flags&flagBad == 0 && (t.bestHeader == noNode || nd.work.more(t.node(t.bestHeader).work)) {
		t.bestHeader = i
	}
	return i
}

// touch notes that a node must be written at the next commit. The caller holds mu.
func (t *tree) touch(i uint32) {
	if b := t.body(i); b.flags&flagDirty == 0 {
		b.flags |= flagDirty
		t.dirty = append(t.dirty, i)
	}
}

// setBlock notes where a node's bytes are and links what became whole by it.
// The caller holds mu. It returns whether i is linked.
func (t *tree) setBlock(i uint32, p store.Pos, txs uint32) bool {
	b := t.body(i)
	b.block, b.txs = p, txs
	b.flags &^= flagPruned
	t.touch(i)
	parent := t.node(i).parent
	if parent != noNode && t.body(parent).flags&flagDeferred != 0 {
		b.flags |= flagDeferred
	}
	if parent != noNode && t.body(parent).flags&flagLinked == 0 {
		t.pending[parent] = append(t.pending[parent], i)
		return false
	}
	t.link(i)
	return true
}

// link marks i and every descendant whose bytes were waiting for it. The caller
// holds mu.
func (t *tree) link(i uint32) {
	todo := []uint32{i}
	for len(todo) > 0 {
		i, todo = todo[0], todo[1:]
		t.body(i).flags |= flagLinked
		t.consider(i)
		if waiting, ok := t.pending[i]; ok {
			todo = append(todo, waiting...)
			delete(t.pending, i)
		}
	}
}

// consider makes i the best linked node if it has more work. The caller holds mu.
func (t *tree) consider(i uint32) {
	b := t.body(i)
	if b.flags&flagLinked == 0 || b.flags&(flagBad|flagDeferred) != 0 {
		return
	}
	if t.bestLinked == noNode || t.node(i).work.more(t.node(t.bestLinked).work) {
		t.bestLinked = i
	}
}

// condemn marks i with flag and its descendants as doomed (or deferred), then
// looks for the best nodes anew, favouring prefer in a tie. The caller holds mu.
// It walks the tree from i on.
func (t *tree) condemn(i uint32, flag uint8, prefer uint32) {
	t.body(i).flags |= flag
	t.touch(i)
	inherit := flagDoomed
	if flag == flagDeferred {
		inherit = flagDeferred
	}
	for j := i + 1; j < t.n; j++ {
		if p := t.node(j).parent; t.body(p).flags&(flag|inherit) != 0 && t.body(j).flags&inherit == 0 && t.descends(j, i) {
			t.body(j).flags |= inherit
			t.touch(j)
		}
	}
	t.reconsider(prefer)
}

// reconsider finds the best nodes anew, favouring prefer in a tie. The caller
// holds mu.
func (t *tree) reconsider(prefer uint32) {
	t.bestLinked, t.bestHeader = noNode, noNode
	look := func(i uint32) {
		t.consider(i)
		if t.body(i).flags&flagBad == 0 && (t.bestHeader == noNode || t.node(i).work.more(t.node(t.bestHeader).work)) {
			t.bestHeader = i
		}
	}
	look(prefer)
	for i := range t.n {
		look(i)
	}
}

// skipOf chooses the skip index of a child of parent: jumps of equal length are
// merged into one of twice the length (Myers, "An applicative random-access
// stack", 1983), so that a walk of skips and single steps takes O(log height)
// and nodes of equal height skip to equal heights. No lock needed.
func (t *tree) skipOf(parent uint32) uint32 {
	p := t.node(parent)
	if p.skip == noNode {
		return parent
	}
	s := t.node(p.skip)
	if s.skip != noNode && p.height-s.height == s.height-t.node(s.skip).height {
		return s.skip
	}
	return parent
}

// ancestor returns the ancestor of i at height (i itself included), noNode if
// there is none. No lock needed. O(log height).
func (t *tree) ancestor(i uint32, height int32) uint32 {
	nd := t.node(i)
	if height < 0 || height > nd.height {
		return noNode
	}
	for nd.height > height {
		if s := t.node(nd.skip); s.height >= height {
			i, nd = nd.skip, s
			continue
		}
		i = nd.parent
		nd = t.node(i)
	}
	return i
}

// descends says whether i is a descendant of anc, or anc itself. No lock needed.
func (t *tree) descends(i, anc uint32) bool {
	return t.ancestor(i, t.node(anc).height) == anc
}

// fork returns the last common node of two branches. No lock needed.
func (t *tree) fork(a, b uint32) uint32 {
	h := min(t.node(a).height, t.node(b).height)
	a, b = t.ancestor(a, h), t.ancestor(b, h)
	for a != b {
		na, nb := t.node(a), t.node(b)
		if na.skip != nb.skip {
			a, b = na.skip, nb.skip
			continue
		}
		a, b = na.parent, nb.parent
	}
	return a
}

// header rebuilds the header of i. No lock needed.
func (t *tree) header(i uint32) consensus.Header {
	nd := t.node(i)
	var h consensus.Header
	h.Version, h.MerkleRoot, h.Bits, h.Nonce = nd.version, nd.merkle, nd.bits, nd.nonce
	h.Timestamp = time.Unix(int64(nd.time), 0)
	if nd.parent != noNode {
		h.PrevBlock = t.node(nd.parent).hash
	}
	h.Seal = t.seal(i)
	return h
}

// appendRaw appends header ‖ seal of i to dst. No lock needed.
func (t *tree) appendRaw(dst []byte, i uint32) []byte {
	nd := t.node(i)
	var prev chainhash.Hash
	if nd.parent != noNode {
		prev = t.node(nd.parent).hash
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(nd.version))
	dst = append(dst, prev[:]...)
	dst = append(dst, nd.merkle[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, nd.time)
	dst = binary.LittleEndian.AppendUint32(dst, nd.bits)
	dst = binary.LittleEndian.AppendUint32(dst, nd.nonce)
	return append(dst, t.seal(i)...)
}

// record is what the store keeps of i. The caller holds mu.
func (t *tree) record(i uint32) store.HeaderRecord {
	b := t.body(i)
	return store.HeaderRecord{
		Height: t.node(i).height,
		Raw:    t.appendRaw(make([]byte, 0, consensus.HeaderBytes+t.sealBytes), i),
		Status: b.flags & storedFlags,
		Txs:    b.txs,
		Block:  b.block,
		Undo:   b.undo,
	}
}

// tip describes i. No lock needed.
func (t *tree) tip(i uint32) Tip {
	nd := t.node(i)
	return Tip{
		Hash:       nd.hash,
		Height:     nd.height,
		Time:       time.Unix(int64(nd.time), 0),
		MedianTime: time.Unix(consensus.MedianTimePast(past{t, i}), 0),
		Bits:       nd.bits,
		Work:       nd.work.big(),
	}
}

// past is the view of the branch that ends in a node. Nodes never change, so
// neither does a past, and it needs no lock.
type past struct {
	t *tree
	i uint32
}

// Height is consensus.Past, as are the methods below.
func (p past) Height() int32 { return p.t.node(p.i).height }

// Hash is that of the branch's last block.
func (p past) Hash() chainhash.Hash { return p.t.node(p.i).hash }

// At panics outside the branch.
func (p past) At(height int32) consensus.PastHeader {
	i := p.t.ancestor(p.i, height)
	if i == noNode {
		panic("chain: past asked for a height outside it")
	}
	nd := p.t.node(i)
	return consensus.PastHeader{Version: nd.version, Bits: nd.bits, Time: int64(nd.time)}
}

// Votes is consensus.Voted.
func (p past) Votes() consensus.Votes { return p.t.node(p.i).votes }

// batchPast is a past with headers on top that are not in the tree yet.
type batchPast struct {
	base   past
	height int32 // of base
	above  []consensus.PastHeader
	last   chainhash.Hash // of the last of above
}

// Height counts those on top.
func (p *batchPast) Height() int32 { return p.height + int32(len(p.above)) }

// Hash is that of the last of all.
func (p *batchPast) Hash() chainhash.Hash {
	if len(p.above) == 0 {
		return p.base.Hash()
	}
	return p.last
}

// At looks in the tree for what is not on top.
func (p *batchPast) At(height int32) consensus.PastHeader {
	if height > p.height {
		return p.above[height-p.height-1]
	}
	return p.base.At(height)
}

func (p *batchPast) push(h *consensus.Header, hash chainhash.Hash) {
	p.above = append(p.above, consensus.PastHeader{Version: h.Version, Bits: h.Bits, Time: h.Timestamp.Unix()})
	p.last = hash
}
