package relay

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// An attempt is one compact encoding of a block, being filled.
type attempt struct {
	c    *CompactBlock
	from string
	key  *shortKey

	short   []uint64 // by index in the block; prefilledID where there is none
	slots   []transaction
	missing int
	size    int // bytes of the transactions that are there
	pulled  int // of them, what peers were asked for

	// doubted: it was full and its roots wrong, or an answer did not fit, so that what
	// was prefilled is asked for. disputes counts the peers whose answers did not
	// fit. odd counts the slots filled all the same. dead: it is false.
	doubted  bool
	odd      int
	changed  bool // since it was last looked whether it is the block
	disputes int
	dead     bool
	limit    int // of size
}

// prefilledID is no short id: these have 48 bits.
const prefilledID = math.MaxUint64

// A transaction of an attempt, as bytes or decoded; neither: it is missing.
type transaction struct {
	wtxid, txid chainhash.Hash
	raw         []byte
	tx          *wire.MsgTx
	peer        string // that was asked for it; "" if nobody was
	odd         bool   // it does not fit its short id
}

// transactionBytes is what a transaction takes beside its bytes, with its short id.
const transactionBytes = 2*chainhash.HashSize + 24 + 8 + 16 + 8 + 8

func (x *transaction) there() bool { return x.raw != nil || x.tx != nil }

func (x *transaction) size() int {
	if x.tx != nil {
		return x.tx.SerializeSize()
	}
	return len(x.raw)
}

// bytes is what a compact block takes.
func (c *CompactBlock) bytes() int64 {
	n := len(c.head) + len(c.ids)
	for _, p := range c.Prefilled {
		n += 32 + len(p.Raw)
	}
	return int64(n)
}

// trueTo says whether the compact block is of the block that has these
// transactions.
func (c *CompactBlock) trueTo(txs []blockTx) bool {
	if len(txs) != c.Txs() {
		return false
	}
	key, prefilled, next := c.key(), c.Prefilled, 0
	for i := range txs {
		if len(prefilled) > 0 && prefilled[0].Index == i {
			if chainhash.DoubleHashH(prefilled[0].Raw) != txs[i].wtxid {
				return false
			}
			prefilled = prefilled[1:]
			continue
		}
		if key.shortID(&txs[i].wtxid) != c.shortID(next) {
			return false
		}
		next++
	}
	return true
}

func newAttempt(p *consensus.Params, c *CompactBlock, from string) *attempt {
	t := &attempt{
		c: c, from: from, key: c.key(),
		short: make([]uint64, c.Txs()), slots: make([]transaction, c.Txs()), missing: c.Txs(), limit: p.MaxBlockBytes(),
	}
	for _, pre := range c.Prefilled {
		t.short[pre.Index] = prefilledID
		txid, wtxid, err := consensus.TxIDs(pre.Raw)
		if err != nil { // DecodeCompact has checked it
			t.dead = true
			return t
		}
		t.put(pre.Index, transaction{wtxid: wtxid, txid: txid, raw: pre.Raw})
	}
	next := 0
	for i := range t.short {
		if t.short[i] != prefilledID {
			t.short[i] = c.shortID(next)
			next++
		}
	}
	return t
}

// bytes is what the attempt takes. Candidates are there anyhow.
func (t *attempt) bytes() int64 {
	return t.c.bytes() + int64(len(t.slots))*transactionBytes + int64(t.pulled)
}

func (t *attempt) isPrefilled(i int) bool { return t.short[i] == prefilledID }

// put fills an empty slot. More than a block may have shows that the encoding is false.
func (t *attempt) put(i int, x transaction) {
	t.slots[i] = x
	t.missing--
	t.changed = true
	if x.odd {
		t.odd++
	}
	if x.peer != "" {
		t.pulled += len(x.raw)
	}
	if t.size += x.size(); t.size > t.limit {
		t.dead = true
	}
}

// lacking returns the indexes of what is missing or does not fit, ascending.
func (t *attempt) lacking() []uint32 {
	out := make([]uint32, 0, t.missing+t.odd)
	for i := range t.slots {
		if s := &t.slots[i]; !s.there() || s.odd {
			out = append(out, uint32(i))
		}
	}
	return out
}

// A match is what was found for a short id.
type match struct {
	wtxid chainhash.Hash
	block *recentBlock // nil: a candidate
	at    int          // in block
	state matchState
}

type matchState uint8

const (
	noMatch matchState = iota
	oneMatch
	clash // two transactions, or two places for one
)

// fill looks for the missing transactions among the candidates and in recent
// blocks. Where two fit, or one fits in two places, none is taken.
func (t *attempt) fill(from Candidates, recent []*recentBlock, p *consensus.Params) {
	if t.dead {
		return
	}
	index := newIDIndex(t.short)
	found := make([]match, len(t.slots))
	left := t.missing
	note := func(id *chainhash.Hash, b *recentBlock, at int) {
		i, twice := index.find(t.key.shortID(id))
		if i < 0 {
			return
		}
		switch m := &found[i]; {
		case twice || m.state == clash:
			m.state = clash
		case m.state == noMatch:
			*m = match{wtxid: *id, block: b, at: at, state: oneMatch}
			left--
		case m.wtxid != *id:
			m.state = clash
			left++
		}
	}
	for id := range from.WitnessIDs() {
		// A second candidate for a short id may follow the last that was missing: so rare
		// that to look on would cost more than it saves. The roots would show it.
		if note(id, nil, 0); left == 0 {
			break
		}
	}
	for _, b := range recent {
		if left == 0 {
			break
		}
		if b.hash != t.c.Hash && b.offsets(p) != nil {
			for at, tx := range b.txs(p) {
				if at > 0 {
					note(&tx.wtxid, b, at)
				}
			}
		}
	}
	for i := range found {
		m := &found[i]
		if m.state != oneMatch {
			continue
		}
		x := transaction{wtxid: m.wtxid}
		if m.block != nil {
			x.txid, x.raw = m.block.known[m.at].txid, m.block.raw[m.block.at[m.at]:m.block.at[m.at+1]]
		} else {
			var ok bool
			if x.tx, x.txid, ok = from.ByWitnessID(m.wtxid); !ok {
				continue
			}
		}
		t.put(i, x)
	}
}

// take fills in the answers of a peer and says whether all fit. Those that do not
// are filled in as well if odd is true, until undo.
func (t *attempt) take(indexes []uint32, got []transaction, odd bool) (fits bool) {
	if t.dead {
		return true
	}
	fits = true
	for j, i := range indexes {
		if int64(i) >= int64(len(t.slots)) {
			fits = false
			continue
		}
		s, x := &t.slots[i], got[j]
		x.odd = t.short[i] != prefilledID && t.key.shortID(&x.wtxid) != t.short[i]
		if s.there() && (!s.odd || x.odd) {
			continue
		}
		if x.odd {
			fits = false
			if !odd || t.size+len(x.raw) > t.limit {
				continue
			}
		}
		t.clear(int(i))
		t.put(int(i), x)
	}
	return fits
}

// undo takes out what a peer sent that does not fit, after the roots did not either.
func (t *attempt) undo(peer string) {
	for i := range t.slots {
		if s := &t.slots[i]; s.odd && s.peer == peer {
			t.clear(i)
		}
	}
}

// clear empties a slot.
func (t *attempt) clear(i int) {
	s := &t.slots[i]
	if !s.there() {
		return
	}
	t.size -= s.size()
	if s.peer != "" {
		t.pulled -= len(s.raw)
	}
	if s.odd {
		t.odd--
	}
	*s = transaction{}
	t.missing++
}

// doubt is for an encoding that is wrong somewhere. What was prefilled is all that
// has no short id: without it, the rest may be right.
func (t *attempt) doubt() {
	if t.doubted {
		return
	}
	t.doubted = true
	for i := range t.slots {
		if t.isPrefilled(i) {
			t.clear(i)
		}
	}
}

// disputed counts a peer that says otherwise.
func (t *attempt) disputed() {
	if t.disputes++; t.disputes >= maxDisputes {
		t.dead = true
	}
}

// errFalseSeal says that an encoding has all of its block but the right seal.
var errFalseSeal = errors.New("the seal is not the block's")

// block returns the block's bytes if the roots of its header fit and its seal does.
func (t *attempt) block(cfg *AssemblerConfig, w *work) ([]byte, error) {
	txids := make([]chainhash.Hash, len(t.slots))
	wtxids := make([]chainhash.Hash, len(t.slots))
	for i := range t.slots {
		txids[i], wtxids[i] = t.slots[i].txid, t.slots[i].wtxid
	}
	coinbase, err := consensus.DecodeTx(t.slots[0].encoding())
	if err != nil {
		return nil, err
	}
	if err := consensus.CheckRoots(&w.header, w.segwit, coinbase, txids, wtxids); err != nil {
		return nil, err
	}
	if err := cfg.CheckSeal(&consensus.Block{Header: t.c.Header, Hash: w.hash, Txs: []*btcutil.Tx{btcutil.NewTx(coinbase)}}); err != nil {
		return nil, fmt.Errorf("%w: %w", errFalseSeal, err)
	}
	size := len(t.c.head) + wire.VarIntSerializeSize(uint64(len(t.slots))) + t.size
	if size > t.limit {
		return nil, malformed("bad-blk-length", "%d bytes, at most %d", size, t.limit)
	}
	raw := append(make([]byte, 0, size), t.c.head...)
	raw = consensus.AppendCount(raw, len(t.slots))
	for i := range t.slots {
		raw = t.slots[i].appendTo(raw)
	}
	return raw, nil
}

func (x *transaction) appendTo(dst []byte) []byte {
	if x.tx != nil {
		return consensus.AppendTx(dst, x.tx)
	}
	return append(dst, x.raw...)
}

func (x *transaction) encoding() []byte {
	if x.tx != nil {
		return consensus.AppendTx(make([]byte, 0, x.size()), x.tx)
	}
	return x.raw
}

// encodings returns transactions at indexes; nil: not all are there.
func (t *attempt) encodings(indexes []uint32) [][]byte {
	for _, i := range indexes {
		if int64(i) >= int64(len(t.slots)) || !t.slots[i].there() || t.slots[i].odd {
			return nil
		}
	}
	out := make([][]byte, len(indexes))
	for j, i := range indexes {
		out[j] = t.slots[i].encoding()
	}
	return out
}

// An idIndex finds short ids. Nobody can choose ids that make it slow: it is a
// sorted list behind a set of bits, which all but a few of the others fail at.
type idIndex struct {
	sorted []uint64 // id<<16 | index in the block, which has fewer than 65,536
	bits   []uint64
	mask   uint64
}

func newIDIndex(short []uint64) *idIndex {
	n := 64
	for n < 64*len(short) {
		n *= 2
	}
	x := &idIndex{sorted: make([]uint64, 0, len(short)), bits: make([]uint64, n/64), mask: uint64(n - 1)}
	for i, id := range short {
		if id != prefilledID {
			x.sorted = append(x.sorted, id<<16|uint64(i))
			x.bits[id&x.mask/64] |= 1 << (id & 63)
		}
	}
	slices.Sort(x.sorted)
	return x
}

// find returns the place of an id in the block, -1 if it has none; twice says that
// there is another.
func (x *idIndex) find(id uint64) (i int, twice bool) {
	if x.bits[id&x.mask/64]&(1<<(id&63)) == 0 {
		return -1, false
	}
	at, _ := slices.BinarySearch(x.sorted, id<<16)
	if at == len(x.sorted) || x.sorted[at]>>16 != id {
		return -1, false
	}
	return int(x.sorted[at] & 0xffff), at+1 < len(x.sorted) && x.sorted[at+1]>>16 == id
}

// A recentBlock is a complete block, whose rivals have mostly the same
// transactions. What is not needed at once is computed when it is.
type recentBlock struct {
	hash  chainhash.Hash
	raw   []byte
	known []blockTx
	at    []uint32 // where its transactions begin, and where the last ends
}

type blockTx struct{ wtxid, txid chainhash.Hash }

// txs returns the ids of the block's transactions; nil if it is none.
func (b *recentBlock) txs(p *consensus.Params) []blockTx {
	if b.known == nil && b.offsets(p) != nil {
		known := make([]blockTx, len(b.at)-1)
		for i := range known {
			var err error
			if known[i].txid, known[i].wtxid, err = consensus.TxIDs(b.raw[b.at[i]:b.at[i+1]]); err != nil {
				return nil
			}
		}
		b.known = known
	}
	return b.known
}

// offsets returns where the block's transactions begin; nil if it is none.
func (b *recentBlock) offsets(p *consensus.Params) []uint32 {
	if b.at == nil {
		b.at, _ = consensus.TxOffsets(p, b.raw)
	}
	return b.at
}
