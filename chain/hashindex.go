package chain

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// A hashIndex is a hash table from block hashes to nodes in 4 bytes a slot: the
// nodes hold the hashes, so there are no keys in it. It is open addressed with
// linear probing and never more than two thirds full.
//
// Where a hash belongs depends on a secret of the process, or who mines cheap
// headers could fill one neighbourhood and make every look-up a long walk.
type hashIndex struct {
	slots  []uint32 // a power of two of them; noNode where there is none
	shift  uint     // 64 - log2(len(slots))
	salt   [2]uint64
	oneKey bool // tests: every key collides
}

// leastSlots is the size of an index that was just made.
const leastSlots = 1 << 10

func newHashIndex() hashIndex {
	x := hashIndex{salt: [2]uint64{rand.Uint64() | 1, rand.Uint64()}}
	x.resize(0)
	return x
}

// slot returns where the search for a hash begins.
func (x *hashIndex) slot(h *chainhash.Hash) uint32 {
	if x.oneKey {
		return 0
	}
	// One folded 64×64 multiplication of 16 bytes with both secrets, as wyhash
	// mixes: without them nobody can tell which hashes meet. The first bytes are
	// the ones that proof of work leaves free.
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(h[:8])^x.salt[0], binary.LittleEndian.Uint64(h[8:16])^x.salt[1])
	return uint32(((hi ^ lo) * x.salt[0]) >> x.shift)
}

// at returns the node in a slot; slots go round.
func (x *hashIndex) at(slot uint32) uint32 { return x.slots[slot&uint32(len(x.slots)-1)] }

// full says whether the table is too small for n nodes.
func (x *hashIndex) full(n uint32) bool { return uint64(n)*3 > uint64(len(x.slots))*2 }

// resize empties the table and makes room for n nodes and some more.
func (x *hashIndex) resize(n uint32) {
	size := leastSlots
	for uint64(n)*3 > uint64(size)*2 {
		size *= 2
	}
	x.slots = make([]uint32, size)
	for i := range x.slots {
		x.slots[i] = noNode
	}
	x.shift = uint(64 - bits.TrailingZeros(uint(size)))
}

// put adds a hash that is not there. There must be room.
func (x *hashIndex) put(h *chainhash.Hash, node uint32) {
	mask := uint32(len(x.slots) - 1)
	slot := x.slot(h) & mask
	for x.slots[slot] != noNode {
		slot = (slot + 1) & mask
	}
	x.slots[slot] = node
}

// remove takes a node out, which is there, with its hash; hash returns that of others.
func (x *hashIndex) remove(h *chainhash.Hash, node uint32, hash func(uint32) *chainhash.Hash) {
	mask := uint32(len(x.slots) - 1)
	hole := x.slot(h) & mask
	for x.slots[hole] != node {
		hole = (hole + 1) & mask
	}
	// What stands behind the hole moves into it if the search for it begins there or before.
	for at := (hole + 1) & mask; x.slots[at] != noNode; at = (at + 1) & mask {
		if home := x.slot(hash(x.slots[at])); (at-home)&mask >= (at-hole)&mask {
			x.slots[hole] = x.slots[at]
			hole = at
		}
	}
	x.slots[hole] = noNode
}
