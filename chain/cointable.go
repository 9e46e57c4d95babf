package chain

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A coinEntry is one cached coin, or the grave of one. It has no pointers: the
// garbage collector never looks at the coins, of which there may be millions.
type coinEntry struct {
	op     wire.OutPoint
	code   uint32 // height·2 + coinbase
	value  int64
	state  uint8
	size   uint8             // of the script; longScript: it is elsewhere
	script [shortScript]byte // all but bare multisig and curiosities fit
}

const (
	coinLive   uint8 = 1 << iota // the entry is in use
	coinDirty                    // differs from the store
	coinFresh                    // the store has no such coin: spending it leaves nothing to delete
	coinSpent                    // a grave: the store has the coin, the next commit deletes it
	coinListed                   // on the list of what the next commit looks at; outlives the coin
)

const (
	shortScript = 38
	longScript  = 0xff
)

// What an entry costs, in bytes: itself, its slot at the mean load and its place on
// the list of dirty ones; a long script costs its own bytes and a place in a map.
const (
	coinBytes       = 88 + 14 + 4
	longScriptBytes = 64
)

// entryChunk is how many entries are allocated at once: 88 KiB.
const entryChunk = 1 << 10

// A coinTable finds coins by outpoint: open addressing over slots of 8 bytes, which
// point into chunks of entries that never move. So a look-up touches two or three
// cache lines. Entries are known by their number, which holds until remove.
//
// Whoever calls looks after locks: find, at, script and coin only read.
type coinTable struct {
	seed   maphash.Seed // peers choose the outpoints, but not where they go
	shards [tableShards]coinSlots
	chunks []*[entryChunk]coinEntry
	n      uint32   // entries that chunks have had to give
	free   []uint32 // of those, the removed ones
	long   map[uint32][]byte
}

// tableShards bounds how much grows at once, for that is done under a lock.
const tableShards = 64

type coinSlots struct {
	slots []coinSlot // none, or a power of two
	used  int
}

// A coinSlot is empty when at is zero.
type coinSlot struct {
	hash uint32
	at   uint32 // the entry's number plus one
}

func newCoinTable() *coinTable {
	return &coinTable{seed: maphash.MakeSeed(), long: make(map[uint32][]byte)}
}

// count returns how many entries are in use.
func (t *coinTable) count() int { return int(t.n) - len(t.free) }

func (t *coinTable) at(i uint32) *coinEntry { return &t.chunks[i/entryChunk][i%entryChunk] }

func (t *coinTable) hash(op *wire.OutPoint) (*coinSlots, uint32) {
	var key [chainhash.HashSize + 4]byte
	copy(key[:], op.Hash[:])
	binary.LittleEndian.PutUint32(key[chainhash.HashSize:], op.Index)
	h := maphash.Bytes(t.seed, key[:])
	return &t.shards[h>>32%tableShards], uint32(h)
}

// find returns the number of op's entry.
func (t *coinTable) find(op *wire.OutPoint) (i uint32, ok bool) {
	s, h := t.hash(op)
	if len(s.slots) == 0 {
		return 0, false
	}
	mask := uint32(len(s.slots) - 1)
	for p := h & mask; s.slots[p].at != 0; p = (p + 1) & mask {
		if i := s.slots[p].at - 1; s.slots[p].hash == h && t.at(i).op == *op {
			return i, true
		}
	}
	return 0, false
}

// add makes an entry for op, which has none.
func (t *coinTable) add(op *wire.OutPoint) (i uint32) {
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		if i = t.n; i%entryChunk == 0 {
			t.chunks = append(t.chunks, new([entryChunk]coinEntry))
		}
		t.n++
	}
	e := t.at(i)
	e.op = *op
	e.state |= coinLive
	s, h := t.hash(op)
	if 4*(s.used+1) > 3*len(s.slots) {
		s.grow()
	}
	s.insert(coinSlot{h, i + 1})
	s.used++
	return i
}

func (s *coinSlots) grow() {
	old := s.slots
	s.slots = make([]coinSlot, max(16, 2*len(old)))
	for _, slot := range old {
		if slot.at != 0 {
			s.insert(slot)
		}
	}
}

func (s *coinSlots) insert(slot coinSlot) {
	mask := uint32(len(s.slots) - 1)
	p := slot.hash & mask
	for s.slots[p].at != 0 {
		p = (p + 1) & mask
	}
	s.slots[p] = slot
}

// remove frees an entry; whether it is listed stays known.
func (t *coinTable) remove(i uint32) {
	e := t.at(i)
	s, h := t.hash(&e.op)
	mask := uint32(len(s.slots) - 1)
	p := h & mask
	for s.slots[p].at != i+1 {
		p = (p + 1) & mask
	}
	// What was pushed past the gap moves back into it.
	for next := (p + 1) & mask; s.slots[next].at != 0; next = (next + 1) & mask {
		if home := s.slots[next].hash & mask; (next-home)&mask >= (next-p)&mask {
			s.slots[p] = s.slots[next]
			p = next
		}
	}
	s.slots[p] = coinSlot{}
	s.used--
	t.setScript(i, nil)
	*e = coinEntry{state: e.state & coinListed}
	t.free = append(t.free, i)
}

// script is that of an entry, which it shares: it holds until the entry changes.
func (t *coinTable) script(i uint32) []byte {
	e := t.at(i)
	if e.size == longScript {
		return t.long[i]
	}
	return e.script[:e.size:e.size]
}

// setScript copies b.
func (t *coinTable) setScript(i uint32, b []byte) {
	e := t.at(i)
	if e.size == longScript {
		delete(t.long, i)
	}
	if len(b) > shortScript {
		e.size = longScript
		t.long[i] = append([]byte(nil), b...)
		return
	}
	e.size = uint8(copy(e.script[:], b))
}

// cost is what an entry takes, in bytes.
func (t *coinTable) cost(i uint32) int64 {
	if t.at(i).size == longScript {
		return coinBytes + longScriptBytes + int64(len(t.long[i]))
	}
	return coinBytes
}

// coin is that of an entry, and shares its script.
func (t *coinTable) coin(i uint32) consensus.Coin {
	e := t.at(i)
	return consensus.Coin{Value: e.value, Script: t.script(i), Height: int32(e.code >> 1), Coinbase: e.code&1 == 1}
}

// has says whether an entry is in use and in all of these states.
func (t *coinTable) has(i uint32, state uint8) bool {
	state |= coinLive
	return t.at(i).state&state == state
}
