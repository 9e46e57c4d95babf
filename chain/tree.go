package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	flagParent                     // a node builds on it

	storedFlags = flagValid | flagInvalid | flagDoomed | flagPruned
	flagBad     = flagInvalid | flagDoomed
)

// noNode is the index of nothing: the parent of genesis.
const noNode = ^uint32(0)

// A node is one header of the tree: 112 bytes, immutable once added, so that
// whoever knows its index reads it without a lock. There are no pointers in it
// for the garbage collector to follow. Its seal is on disk; see sealOf.
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

// A body is what is known of a node's block: 28 bytes, guarded by tree.mu.
type body struct {
	block, undo store.Pos
	txs         uint32
}

const chunkNodes = 1 << 12

// A chunk holds nodes that never move, so that readers need no lock. The flags
// stand by themselves: whoever looks through all of them reads a byte a node.
type chunk struct {
	nodes  [chunkNodes]node
	flags  [chunkNodes]uint8 // guarded by tree.mu
	bodies *[chunkNodes]body // guarded by tree.mu; nil until one of the blocks is known
	loose  *loose            // guarded by tree.mu; nil but where stake makes blocks
}

// nodes are the nodes of a tree as they were at one moment, by number. They never
// change: where headers are forgotten (forget.go) a number may be another's in the tree
// later, in new chunks. So whoever got a number under the tree's lock and goes on without
// it gets the nodes under the same lock. That of a validated block is always the same.
type nodes []*chunk

// A tree is the header tree. Nodes are numbered in the order in which they were
// first seen (by height after a restart), so a parent's index is the smaller one; but
// where headers can be forgotten (forget.go) others get their numbers.
//
// mu guards everything but the nodes themselves; it is held for map look-ups
// and a few field updates, never across I/O, rules or logging. Walks of the
// whole tree happen under it only when a block proved invalid.
type tree struct {
	params    *consensus.Params
	sealBytes int
	dir       atomic.Pointer[nodes]
	// checkpoint is the greatest height of a checkpoint in the tree; 0: none.
	checkpoint atomic.Int32

	mu      sync.RWMutex
	n       uint32
	index   hashIndex
	seals   map[uint32][]byte   // of the nodes that no commit has written yet, on networks with seals
	pending map[uint32][]uint32 // nodes with bytes whose parent (the key) is not linked
	dirty   []uint32            // nodes to write at the next commit
	// bestLinked is the node with most work, first linked first (but see tie.go), whose
	// branch is wholly on disk and not known to be bad: where the coins should go.
	bestLinked uint32
	// tied are siblings of bestLinked with as much work and all bytes here, between which
	// and it no lot was drawn yet: see tie.go.
	tied []uint32
	// bestHeader is the node with most work, first seen first, not known to be bad.
	bestHeader uint32
	// anchor is the block that the chain does not leave by itself, accepted the first
	// block of a branch for which it may; noNode: there is none. The hashes are theirs, or
	// of those whose headers are not here yet. See maxreorg.go.
	anchor, accepted         uint32
	anchorHash, acceptedHash chainhash.Hash
	// prunedTop is the greatest height of a pruned node; -1 if there is none.
	prunedTop int32
	// maxSide, maxAhead and maxNear are the gate's limits; constant but in tests. capped
	// says that no branch may be more than maxAhead further than the validated chain.
	maxSide, maxAhead, maxNear int
	capped                     bool
	// most is the greatest work of any branch that was stored, valid or not, or was
	// proven and got room for that: mostLeft more headers on branches with no less.
	most     work128
	mostLeft int
	// nearLeft is how many headers near the validated tip nearTip need no room.
	nearTip  uint32
	nearLeft int
	// strays are blocks found on disk by a reindex whose parents' headers are not
	// known: damage lies between. They are taken up when sync brings the header.
	strays map[chainhash.Hash]tailBlock
	unproven
}

// newTree returns an empty tree. ahead is Options.HeadersAhead.
func newTree(p *consensus.Params, ahead int) *tree {
	t := &tree{
		params:     p,
		sealBytes:  p.SealBytes,
		index:      newHashIndex(),
		seals:      make(map[uint32][]byte),
		pending:    make(map[uint32][]uint32),
		bestLinked: noNode,
		bestHeader: noNode,
		nearTip:    noNode,
		anchor:     noNode,
		accepted:   noNode,
		prunedTop:  -1,
		maxSide:    maxSideHeaders,
		maxAhead:   maxAheadHeaders,
		maxNear:    maxNearHeaders,
	}
	if p.SealBytes > 0 {
		t.capped, t.maxAhead, t.maxSide = true, ahead, sideBranches*ahead
	}
	t.dir.Store(new(nodes))
	return t
}

// nodes returns those of now; see there for when that is needed.
func (t *tree) nodes() nodes { return *t.dir.Load() }

// node returns the node at index i, which must be known to exist, as it is now. No lock
// needed for what cannot be forgotten; so it is with those that follow.
func (t *tree) node(i uint32) *node { return t.nodes().node(i) }

func (t *tree) ancestor(i uint32, height int32) uint32 { return t.nodes().ancestor(i, height) }
func (t *tree) descends(i, anc uint32) bool            { return t.nodes().descends(i, anc) }
func (t *tree) sameBranch(i, j uint32) bool            { return t.nodes().sameBranch(i, j) }
func (t *tree) fork(a, b uint32) uint32                { return t.nodes().fork(a, b) }
func (t *tree) header(i uint32) consensus.Header       { return t.nodes().header(i) }
func (t *tree) tip(i uint32) Tip                       { return t.nodes().tip(i) }
func (t *tree) past(i uint32) past                     { return past{t.nodes(), i} }

func (ns nodes) node(i uint32) *node { return &ns[i/chunkNodes].nodes[i%chunkNodes] }

// flags returns where the flags of i are. The caller holds mu.
func (t *tree) flags(i uint32) *uint8 {
	return &(*t.dir.Load())[i/chunkNodes].flags[i%chunkNodes]
}

// has says whether i has one of the flags. The caller holds mu.
func (t *tree) has(i uint32, flags uint8) bool { return *t.flags(i)&flags != 0 }

// body returns a copy of the body at index i. The caller holds mu.
func (t *tree) body(i uint32) body {
	if c := (*t.dir.Load())[i/chunkNodes]; c.bodies != nil {
		return c.bodies[i%chunkNodes]
	}
	return body{}
}

// ownBody returns where the body of i is, to be changed. The caller holds mu.
func (t *tree) ownBody(i uint32) *body {
	c := (*t.dir.Load())[i/chunkNodes]
	if c.bodies == nil {
		c.bodies = new([chunkNodes]body)
	}
	return &c.bodies[i%chunkNodes]
}

// find returns the index of a hash. The caller holds mu.
func (t *tree) find(h *chainhash.Hash) (uint32, bool) {
	for slot := t.index.slot(h); ; slot++ {
		i := t.index.at(slot)
		if i == noNode {
			return noNode, false
		}
		if t.node(i).hash == *h {
			return i, true
		}
	}
}

// lookup is find for those who do not hold mu.
func (t *tree) lookup(h *chainhash.Hash) (uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.find(h)
}

// look is lookup for those who go on with the number, which may be a forgotten header's by
// then: in the nodes that come with it it is not.
func (t *tree) look(h *chainhash.Hash) (nodes, uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.find(h)
	return t.nodes(), i, ok
}

// add appends a node and returns its index. The caller holds mu, has found that
// hash is not there and that parent (noNode for genesis) is. work is the header's own.
func (t *tree) add(h *consensus.Header, hash chainhash.Hash, parent uint32, work work128) uint32 {
	i := t.place(h, hash, parent, work)
	if t.sealBytes > 0 {
		t.seals[i] = slices.Clone(h.Seal)
	}
	t.enter(i)
	if t.bestHeader == noNode || !t.has(i, flagBad) && t.node(i).work.more(t.node(t.bestHeader).work) && t.allowed(i) {
		t.bestHeader = i
	}
	return i
}

// load adds a stored node, which the index does not know yet, and returns its
// index. The caller holds mu.
func (t *tree) load(r *loadedHeader, parent uint32) uint32 {
	i := t.place(&r.header, r.hash, parent, r.work)
	if t.capped {
		l := t.loose(i)
		l.shown[i%chunkNodes], l.stored[i%chunkNodes] = 0, true
	}
	if r.Status&flagValid != 0 {
		t.prove(i)
	}
	*t.flags(i) |= r.Status & storedFlags
	if r.Block.Size > 0 || r.Undo.Size > 0 || r.Txs > 0 {
		*t.ownBody(i) = body{r.Block, r.Undo, r.Txs}
	}
	return i
}

// place appends a node below its parent and returns its index. The caller holds mu.
func (t *tree) place(h *consensus.Header, hash chainhash.Hash, parent uint32, work work128) uint32 {
	i := t.take()
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
	if parent == noNode {
		t.most = work
		return i
	}
	p := t.node(parent)
	nd.height = p.height + 1
	nd.work = p.work.add(work)
	if nd.work.more(t.most) {
		t.most = nd.work
	}
	nd.skip = t.nodes().skipOf(parent)
	nd.votes = t.params.NextVotes(p.votes, t.past(i))
	if t.has(parent, flagBad) {
		*t.flags(i) |= flagDoomed
	}
	*t.flags(parent) |= flagParent
	if _, ok := t.params.Checkpoints[nd.height]; ok && nd.height > t.checkpoint.Load() {
		t.checkpoint.Store(nd.height) // the engine lets only the right one in
	}
	return i
}

// enter puts the newest node into the index. The caller holds mu.
func (t *tree) enter(i uint32) {
	if t.index.full(t.n) {
		t.index.resize(t.n)
		for j := range t.n {
			if !t.gone(j) {
				t.index.put(&t.node(j).hash, j)
			}
		}
		return
	}
	t.index.put(&t.node(i).hash, i)
}

// touch notes that a node must be written at the next commit, if it lasts, and then what
// it builds on too, if that is not written yet. The caller holds mu.
func (t *tree) touch(i uint32) {
	if !t.lasts(i) {
		return
	}
	for ; i != noNode && !t.has(i, flagDirty); i = t.node(i).parent {
		*t.flags(i) |= flagDirty
		t.dirty = append(t.dirty, i)
		if !t.capped {
			return
		}
		if parent := t.node(i).parent; parent != noNode && t.loose(parent).stored[parent%chunkNodes] {
			return
		}
	}
}

// setBlock notes where a node's bytes are and links what became whole by it.
// The caller holds mu. It returns whether i is linked.
func (t *tree) setBlock(i uint32, p store.Pos, txs uint32) bool {
	b := t.ownBody(i)
	b.block, b.txs = p, txs
	*t.flags(i) &^= flagPruned
	t.touch(i)
	parent := t.node(i).parent
	if parent != noNode && t.has(parent, flagDeferred) {
		*t.flags(i) |= flagDeferred
	}
	if parent != noNode && !t.has(parent, flagLinked) {
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
		*t.flags(i) |= flagLinked
		t.consider(i)
		if waiting, ok := t.pending[i]; ok {
			todo = append(todo, waiting...)
			delete(t.pending, i)
		}
	}
}

// consider makes i the best linked node if it has more work, and notes it if it ties with
// that. The caller holds mu.
func (t *tree) consider(i uint32) {
	if f := *t.flags(i); f&flagLinked == 0 || f&(flagBad|flagDeferred) != 0 {
		return
	}
	if t.bestLinked == noNode || t.node(i).work.more(t.node(t.bestLinked).work) {
		if t.allowed(i) {
			t.bestLinked, t.tied = i, t.tied[:0]
		}
		return
	}
	if t.ties(i, t.bestLinked) {
		t.tied = append(t.tied, i)
	}
}

// ties says whether two nodes are siblings with as much work. The caller holds mu.
func (t *tree) ties(i, j uint32) bool {
	a, b := t.node(i), t.node(j)
	return i != j && a.parent == b.parent && a.parent != noNode && a.work == b.work
}

// condemn marks i with flag and its descendants as doomed (or deferred), then
// looks for the best nodes anew, favouring prefer in a tie. The caller holds mu.
// It walks the tree from i on.
func (t *tree) condemn(i uint32, flag uint8, prefer uint32) {
	*t.flags(i) |= flag
	t.touch(i)
	inherit := flagDoomed
	if flag == flagDeferred {
		inherit = flagDeferred
	}
	for j := t.after(i); j < t.n; j++ {
		// Its parent has been marked just now, where parents have the smaller numbers.
		if j == i || t.has(j, inherit) || !t.capped && !t.has(t.node(j).parent, flag|inherit) || !t.descends(j, i) {
			continue
		}
		*t.flags(j) |= inherit
		t.touch(j)
	}
	t.reconsider(prefer)
}

// after returns the first number that may be that of a descendant of i: of its own, or any
// where numbers are used again.
func (t *tree) after(i uint32) uint32 {
	if t.capped {
		return 0
	}
	return i + 1
}

// reconsider finds the best nodes anew, favouring prefer in a tie. The caller
// holds mu.
func (t *tree) reconsider(prefer uint32) {
	t.lowerAnchor()
	t.bestLinked, t.bestHeader, t.tied = noNode, noNode, t.tied[:0]
	look := func(i uint32) {
		t.consider(i)
		if !t.has(i, flagBad) && (t.bestHeader == noNode || t.node(i).work.more(t.node(t.bestHeader).work)) && t.allowed(i) {
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
// and nodes of equal height skip to equal heights.
func (ns nodes) skipOf(parent uint32) uint32 {
	p := ns.node(parent)
	if p.skip == noNode {
		return parent
	}
	s := ns.node(p.skip)
	if s.skip != noNode && p.height-s.height == s.height-ns.node(s.skip).height {
		return s.skip
	}
	return parent
}

// ancestor returns the ancestor of i at height (i itself included), noNode if
// there is none. O(log height).
func (ns nodes) ancestor(i uint32, height int32) uint32 {
	nd := ns.node(i)
	if height < 0 || height > nd.height {
		return noNode
	}
	for nd.height > height {
		if s := ns.node(nd.skip); s.height >= height {
			i, nd = nd.skip, s
			continue
		}
		i = nd.parent
		nd = ns.node(i)
	}
	return i
}

// descends says whether i is a descendant of anc, or anc itself.
func (ns nodes) descends(i, anc uint32) bool {
	return ns.ancestor(i, ns.node(anc).height) == anc
}

// sameBranch says whether one of i and j is an ancestor of the other, or both are
// the same.
func (ns nodes) sameBranch(i, j uint32) bool { return ns.descends(i, j) || ns.descends(j, i) }

// fork returns the last common node of two branches.
func (ns nodes) fork(a, b uint32) uint32 {
	h := min(ns.node(a).height, ns.node(b).height)
	a, b = ns.ancestor(a, h), ns.ancestor(b, h)
	for a != b {
		na, nb := ns.node(a), ns.node(b)
		if na.skip != nb.skip {
			a, b = na.skip, nb.skip
			continue
		}
		a, b = na.parent, nb.parent
	}
	return a
}

// header rebuilds the header of i, but for its seal.
func (ns nodes) header(i uint32) consensus.Header {
	nd := ns.node(i)
	var h consensus.Header
	h.Version, h.MerkleRoot, h.Bits, h.Nonce = nd.version, nd.merkle, nd.bits, nd.nonce
	h.Timestamp = time.Unix(int64(nd.time), 0)
	if nd.parent != noNode {
		h.PrevBlock = ns.node(nd.parent).hash
	}
	return h
}

// appendRaw appends the header of i without its seal to dst.
func (ns nodes) appendRaw(dst []byte, i uint32) []byte {
	nd := ns.node(i)
	var prev chainhash.Hash
	if nd.parent != noNode {
		prev = ns.node(nd.parent).hash
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(nd.version))
	dst = append(dst, prev[:]...)
	dst = append(dst, nd.merkle[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, nd.time)
	dst = binary.LittleEndian.AppendUint32(dst, nd.bits)
	return binary.LittleEndian.AppendUint32(dst, nd.nonce)
}

// record is what the store keeps of i, but for the header. The caller holds mu.
func (t *tree) record(i uint32) store.HeaderRecord {
	b := t.body(i)
	if b.block.Aside() {
		b.block = store.Pos{} // the next process does not have it
	}
	return store.HeaderRecord{
		Height: t.node(i).height,
		Status: *t.flags(i) & storedFlags,
		Txs:    b.txs,
		Block:  b.block,
		Undo:   b.undo,
	}
}

// appendHeader appends header ‖ seal of i to dst. It reads from disk on networks
// with seals, unless the header is new; the caller holds no lock.
func (c *Chain) appendHeader(dst []byte, i uint32) ([]byte, error) {
	ns := c.tree.nodes()
	dst = ns.appendRaw(dst, i)
	seal, err := c.sealOf(ns.node(i))
	return append(dst, seal...), err
}

// sealOf returns the seal of a node, which must not be changed. It reads from disk
// unless the header is new; the caller holds no lock.
func (c *Chain) sealOf(nd *node) ([]byte, error) {
	t := c.tree
	if t.sealBytes == 0 {
		return nil, nil
	}
	t.mu.RLock()
	j, ok := t.find(&nd.hash)
	seal, fresh := t.seals[j]
	t.mu.RUnlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("seal of block %v at height %d: %w: its header was forgotten", nd.hash, nd.height, ErrNotFound)
	case fresh:
		return seal, nil
	}
	r, ok, err := c.store.Header(nd.height, nd.hash)
	if err == nil && (!ok || len(r.Raw) != consensus.HeaderBytes+t.sealBytes) {
		err = errors.New("the index does not have it")
	}
	if err != nil {
		return nil, fmt.Errorf("seal of block %v at height %d: %w", nd.hash, nd.height, err)
	}
	return r.Raw[consensus.HeaderBytes:], nil
}

// tip describes i.
func (ns nodes) tip(i uint32) Tip {
	nd := ns.node(i)
	return Tip{
		Hash:       nd.hash,
		Height:     nd.height,
		Time:       time.Unix(int64(nd.time), 0),
		MedianTime: time.Unix(consensus.MedianTimePast(past{ns, i}), 0),
		Bits:       nd.bits,
		Work:       nd.work.big(),
	}
}

// past is the view of the branch that ends in a node. Nodes never change, so
// neither does a past, and it needs no lock.
type past struct {
	nodes nodes
	i     uint32
}

// Height is consensus.Past, as are the methods below.
func (p past) Height() int32 { return p.nodes.node(p.i).height }

// Hash is that of the branch's last block.
func (p past) Hash() chainhash.Hash { return p.nodes.node(p.i).hash }

// At panics outside the branch.
func (p past) At(height int32) consensus.PastHeader {
	i := p.nodes.ancestor(p.i, height)
	if i == noNode {
		panic("chain: past asked for a height outside it")
	}
	nd := p.nodes.node(i)
	return consensus.PastHeader{Version: nd.version, Bits: nd.bits, Nonce: nd.nonce, Time: int64(nd.time)}
}

// Votes is consensus.Voted.
func (p past) Votes() consensus.Votes { return p.nodes.node(p.i).votes }

// batchPast is a past with headers on top that are not in the tree yet.
type batchPast struct {
	base   consensus.Past
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
	p.above = append(p.above, consensus.PastHeader{Version: h.Version, Bits: h.Bits, Nonce: h.Nonce, Time: h.Timestamp.Unix()})
	p.last = hash
}
