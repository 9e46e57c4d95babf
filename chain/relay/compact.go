package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/aead/siphash"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// CompactEncoding says that the payload is a compact block ([DecodeCompact]).
const CompactEncoding Encoding = 1

// WholeBelow is the size in bytes below which a block is sent whole: it leaves in
// a few packets either way, and whole it needs no further question.
const WholeBelow = 64 << 10

const (
	shortIDBytes = 6 // BIP152
	nonceBytes   = 8
	// minTxWeight is the weight of the smallest transaction that can be valid: one
	// input, one output, no scripts. It bounds how many a block has.
	minTxWeight = 4 * 60
	// maxPrefilledBytes bounds the prefilled part. A compact block proves no more
	// than its header, so what a false copy can have the network carry is bounded
	// by this and the short ids, not by the size of a block. Coinbases of pools
	// have a few kilobytes; a block with a larger one is sent whole.
	maxPrefilledBytes = 100_000
	// minPrefilledBytes is the least that one takes: an index and a transaction.
	minPrefilledBytes = 1 + 60
)

// A CompactBlock is a block without the transactions that its receiver should
// have. It proves no more than its header: short ids and what is prefilled may
// be false, by fault of its maker, whom nobody knows; whoever passes it on cannot
// tell. It is immutable, but for what [Blocks.Check] fills in.
type CompactBlock struct {
	Header    consensus.Header
	Hash      chainhash.Hash // of the header
	Nonce     uint64
	Prefilled []Prefilled // by index, ascending; the first is the coinbase

	// Height and Segwit (whether the block may have witnesses) are set by
	// [Blocks.Check]; DecodeCompact does not know them.
	Height int32
	Segwit bool

	head []byte // header ‖ seal as received
	ids  []byte // the short ids of the others, in order
}

// Prefilled is a transaction that a compact block has whole.
type Prefilled struct {
	Index int    // in the block
	Raw   []byte // serialised with witness; checked to be one transaction
}

// Txs is how many transactions the block has.
func (c *CompactBlock) Txs() int { return len(c.Prefilled) + len(c.ids)/shortIDBytes }

// shortID returns the i-th short id.
func (c *CompactBlock) shortID(i int) uint64 {
	b := c.ids[i*shortIDBytes:]
	return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
}

// key is that of the short ids: the start of the SHA-256 of header and nonce. The
// seal is left out: it says nothing about the body, and without it the key is
// BIP152's on every network.
func (c *CompactBlock) key() *shortKey { return newShortKey(c.head[:consensus.HeaderBytes], c.Nonce) }

// shortKey is a key of SipHash-2-4.
type shortKey [siphash.KeySize]byte

func newShortKey(header []byte, nonce uint64) *shortKey {
	var buf [consensus.HeaderBytes + nonceBytes]byte
	binary.LittleEndian.PutUint64(buf[copy(buf[:], header):], nonce)
	sum := sha256.Sum256(buf[:])
	return (*shortKey)(sum[:siphash.KeySize])
}

// shortID returns the short id of a transaction by its witness id.
func (k *shortKey) shortID(wtxid *chainhash.Hash) uint64 {
	return siphash.Sum64(wtxid[:], (*[siphash.KeySize]byte)(k)) & (1<<(8*shortIDBytes) - 1)
}

// maxTxs is the most transactions that a valid block of the network can have.
func maxTxs(p *consensus.Params) int { return p.MaxBlockWeight / minTxWeight }

// maxCompactBytes bounds the payload of a compact block.
func maxCompactBytes(p *consensus.Params) int {
	const maxCount = 5
	return consensus.HeaderBytes + p.SealBytes + nonceBytes + 2*maxCount + shortIDBytes*maxTxs(p) + maxPrefilledBytes
}

// Rules that a malformed compact block breaks; each is the Reason of a REJECT,
// for whoever passed it on could have seen it. All blame the sender.
const (
	ruleCompactSize      = "compact-oversize"
	ruleCompactShort     = "compact-truncated"
	ruleCompactCount     = "compact-count"
	ruleCompactIndex     = "compact-index"
	ruleCompactPrefilled = "compact-prefilled"
	ruleCompactCoinbase  = "compact-coinbase"
	ruleCompactTrailing  = "compact-trailing"
)

func malformed(rule, format string, args ...any) *consensus.RuleError {
	return &consensus.RuleError{Rule: rule, Blame: consensus.BlameSender, Detail: fmt.Sprintf(format, args...)}
}

// DecodeCompact decodes the payload of a compact block, which it keeps:
//
//	header  80 bytes
//	seal    as long as the network's headers have one, else nothing
//	nonce   8 bytes, little-endian
//	count   of short ids, at least 1
//	ids     6 bytes each, little-endian
//	count   of prefilled transactions, at least 1
//	each:   index, less that of the one before and 1; the transaction with witness
//
// Counts and indexes are Bitcoin's variable-length integers in their shortest
// form. The first prefilled transaction is the coinbase, at index 0. Counts are
// checked against the bytes that remain, and the sum of both against the most
// transactions that a block can have, before anything is allocated: at most as
// much as raw has, and the prefilled ones are not decoded. Faults are *RuleError with
// BlameSender, a rule for each form.
func DecodeCompact(p *consensus.Params, raw []byte) (*CompactBlock, error) {
	c, err := decodeCompact(p, raw)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func decodeCompact(p *consensus.Params, raw []byte) (*CompactBlock, *consensus.RuleError) {
	if most := maxCompactBytes(p); len(raw) > most {
		return nil, malformed(ruleCompactSize, "%d bytes, at most %d", len(raw), most)
	}
	head := consensus.HeaderBytes + p.SealBytes
	if len(raw) < head+nonceBytes {
		return nil, malformed(ruleCompactShort, "%d bytes, header and nonce have %d", len(raw), head+nonceBytes)
	}
	c := &CompactBlock{
		Hash:   chainhash.DoubleHashH(raw[:consensus.HeaderBytes]),
		Nonce:  binary.LittleEndian.Uint64(raw[head:]),
		Height: -1,
		head:   raw[:head:head],
	}
	header, err := consensus.DecodeHeader(p, c.head)
	if err != nil {
		return nil, malformed(ruleCompactShort, "header: %v", err)
	}
	c.Header = header
	rest := raw[head+nonceBytes:]

	n, size, err := consensus.ReadCount(rest, "short ids")
	if err != nil {
		return nil, malformed(ruleCompactCount, "%v", err)
	}
	rest = rest[size:]
	if n == 0 { // a whole block in disguise, whose body nobody would check
		return nil, malformed(ruleCompactCount, "no short ids")
	}
	if n > uint64(len(rest)/shortIDBytes) {
		return nil, malformed(ruleCompactCount, "%d short ids in %d bytes", n, len(rest))
	}
	c.ids, rest = rest[:n*shortIDBytes:n*shortIDBytes], rest[n*shortIDBytes:]

	m, size, err := consensus.ReadCount(rest, "prefilled transactions")
	if err != nil {
		return nil, malformed(ruleCompactCount, "%v", err)
	}
	rest = rest[size:]
	if m == 0 || m > uint64(len(rest)/minPrefilledBytes) {
		return nil, malformed(ruleCompactCount, "%d prefilled transactions in %d bytes", m, len(rest))
	}
	if total, most := n+m, uint64(maxTxs(p)); total > most {
		return nil, malformed(ruleCompactCount, "%d transactions, a block has at most %d", total, most)
	}
	if len(rest) > maxPrefilledBytes {
		return nil, malformed(ruleCompactPrefilled, "%d bytes prefilled, at most %d", len(rest), maxPrefilledBytes)
	}
	return c, c.decodePrefilled(rest, int(m))
}

// decodePrefilled decodes the last part, m transactions, which fit b as far as
// their least size goes.
func (c *CompactBlock) decodePrefilled(b []byte, m int) *consensus.RuleError {
	c.Prefilled = make([]Prefilled, m)
	next := 0
	for i := range c.Prefilled {
		skip, size, err := consensus.ReadCount(b, "index")
		if err != nil {
			return malformed(ruleCompactIndex, "prefilled %d: %v", i, err)
		}
		b = b[size:]
		if skip > uint64(c.Txs()-1-next) { // Txs() > next, for indexes are in bounds so far
			return malformed(ruleCompactIndex, "prefilled %d is past the last of %d transactions", i, c.Txs())
		}
		if size, err = consensus.TxSize(b); err != nil {
			return malformed(ruleCompactPrefilled, "prefilled %d: %v", i, err)
		}
		c.Prefilled[i] = Prefilled{next + int(skip), b[:size:size]}
		b, next = b[size:], next+int(skip)+1
		if next == c.Txs() && i < m-1 {
			return malformed(ruleCompactIndex, "prefilled %d is past the last of %d transactions", i+1, c.Txs())
		}
	}
	if len(b) > 0 {
		return malformed(ruleCompactTrailing, "%d trailing bytes", len(b))
	}
	if first := c.Prefilled[0]; first.Index != 0 || !isCoinbase(first.Raw) {
		return malformed(ruleCompactCoinbase, "the first prefilled transaction, at index %d, is not the coinbase", first.Index)
	}
	return nil
}

// isCoinbase says whether an encoded transaction, which was checked, has the form
// of a coinbase.
func isCoinbase(raw []byte) bool {
	off := 4
	if raw[off] == 0 { // the marker of BIP144
		off += 2
	}
	prev := raw[off+1:][:chainhash.HashSize+4]
	return raw[off] == 1 &&
		bytes.Count(prev[:chainhash.HashSize], []byte{0}) == chainhash.HashSize &&
		binary.LittleEndian.Uint32(prev[chainhash.HashSize:]) == math.MaxUint32
}

// MakeCompact returns the message of the block topic for a block, which it trusts:
// compact, or whole if it has fewer than [WholeBelow] bytes or that is smaller.
// The coinbase is prefilled, and so are those for which missing (nil: none) says
// that others will hardly have them, as far as they fit: only who makes a block
// knows, so others that send it on leave it nil. missing is asked in ascending
// order. Nonces should be random, so that nobody can have prepared transactions
// whose short ids are alike; transactions of the block that are alike with this
// one are prefilled too. Raw is only read.
func MakeCompact(p *consensus.Params, raw []byte, nonce uint64, missing func(index int, wtxid chainhash.Hash) bool) ([]byte, error) {
	if len(raw) < WholeBelow {
		return Encode(raw), nil
	}
	return makeCompact(p, raw, nonce, missing)
}

// makeCompact is MakeCompact for blocks of any size.
func makeCompact(p *consensus.Params, raw []byte, nonce uint64, missing func(index int, wtxid chainhash.Hash) bool) ([]byte, error) {
	at, err := consensus.TxOffsets(p, raw)
	if err != nil {
		return nil, fmt.Errorf("make compact block: %w", err)
	}
	n := len(at) - 1
	if n > maxTxs(p) {
		return Encode(raw), nil
	}
	head := consensus.HeaderBytes + p.SealBytes
	key := newShortKey(raw[:consensus.HeaderBytes], nonce)
	ids := make([]uint64, n)
	wids := make([]chainhash.Hash, n)
	alike := make(map[uint64]int, n)
	tx := func(i int) []byte { return raw[at[i]:at[i+1]] }
	for i := range ids {
		wids[i] = chainhash.DoubleHashH(tx(i))
		ids[i] = key.shortID(&wids[i])
		alike[ids[i]]++
	}

	const maxIndexBytes = 3 // fewer than 65,536 transactions
	room := maxPrefilledBytes - len(tx(0)) - maxIndexBytes
	if room < 0 {
		return Encode(raw), nil
	}
	whole := []int{0}
	for i := 1; i < n; i++ {
		if alike[ids[i]] > 1 || missing != nil && missing(i, wids[i]) {
			if need := len(tx(i)) + maxIndexBytes; need <= room {
				whole, room = append(whole, i), room-need
			}
		}
	}
	if len(whole) == n {
		return Encode(raw), nil
	}
	msg := make([]byte, 0, 1+head+nonceBytes+2*wire.MaxVarIntPayload+shortIDBytes*n+maxPrefilledBytes-room)
	msg = append(append(msg, byte(CompactEncoding)), raw[:head]...)
	msg = binary.LittleEndian.AppendUint64(msg, nonce)
	msg = consensus.AppendCount(msg, n-len(whole))
	for i, id := range ids {
		if _, ok := slices.BinarySearch(whole, i); !ok {
			msg = binary.LittleEndian.AppendUint32(msg, uint32(id))
			msg = binary.LittleEndian.AppendUint16(msg, uint16(id>>32))
		}
	}
	msg = consensus.AppendCount(msg, len(whole))
	next := 0
	for _, i := range whole {
		msg = consensus.AppendCount(msg, i-next)
		msg = append(msg, tx(i)...)
		next = i + 1
	}
	if len(msg) > len(raw) {
		return Encode(raw), nil
	}
	return msg, nil
}
