package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// The first byte of a key of the index says what the key is. Integers in keys
// are big-endian, so that key order is numeric order; integers in values are
// little-endian or uvarints. docs/storage.md has every byte.
const (
	prefixCoin    = 'c' // ‖ txid 32 ‖ vout 4 → coin
	prefixEnd     = 'e' // ‖ series 1 ‖ file 4 → end of a finished file 4
	prefixHeader  = 'h' // ‖ height 4 ‖ hash 32 → header record
	prefixChainID = 'i' // → chain id, text
	prefixMeta    = 'm' // ‖ name → the caller's value
	prefixPruned  = 'p' // ‖ series 1 → first file that was not pruned 4
	prefixRing    = 'r' // ‖ slot 2 → number of the commit that last used the slot 8
	prefixTip     = 't' // → hash 32 ‖ height 4
	prefixVersion = 'v' // → format version 4
	prefixWritten = 'w' // → write positions 16 ‖ number of the commit 8
)

const (
	coinKeyBytes   = 1 + chainhash.HashSize + 4
	headerKeyBytes = 1 + 4 + chainhash.HashSize
	tipBytes       = chainhash.HashSize + 4
	writtenBytes   = 4*4 + 8

	// maxHeaderBytes bounds header ‖ seal in a header record. The largest seal
	// today has 140 bytes.
	maxHeaderBytes = 4096
	// maxMetaName bounds the name of a meta value.
	maxMetaName = 255
	// maxMetaValue bounds a meta value. Large values make large blocks, and
	// Pebble searches a damaged block for the flipped bit in quadratic time.
	maxMetaValue = 64 << 10
)

func putCoinKey(dst []byte, op wire.OutPoint) {
	dst[0] = prefixCoin
	copy(dst[1:], op.Hash[:])
	binary.BigEndian.PutUint32(dst[1+chainhash.HashSize:], op.Index)
}

func parseCoinKey(k []byte) (op wire.OutPoint, ok bool) {
	if len(k) != coinKeyBytes || k[0] != prefixCoin {
		return op, false
	}
	copy(op.Hash[:], k[1:])
	op.Index = binary.BigEndian.Uint32(k[1+chainhash.HashSize:])
	return op, true
}

// coinBytes is the size of c as appendCoin encodes it.
func coinBytes(c *consensus.Coin) int {
	return uvarintBytes(coinCode(c)) + uvarintBytes(uint64(c.Value)) + len(c.Script)
}

func coinCode(c *consensus.Coin) uint64 {
	code := uint64(c.Height) << 1
	if c.Coinbase {
		code |= 1
	}
	return code
}

// appendCoin appends uvarint(height<<1 | coinbase) ‖ uvarint(value) ‖ script.
func appendCoin(dst []byte, c *consensus.Coin) []byte {
	dst = binary.AppendUvarint(dst, coinCode(c))
	dst = binary.AppendUvarint(dst, uint64(c.Value))
	return append(dst, c.Script...)
}

var errCoin = errors.New("malformed coin record")

// decodeCoin decodes what appendCoin wrote. The script aliases v.
func decodeCoin(v []byte) (consensus.Coin, error) {
	code, v, ok := uvarint(v)
	if !ok || code>>1 > math.MaxInt32 {
		return consensus.Coin{}, errCoin
	}
	value, v, ok := uvarint(v)
	if !ok || value > math.MaxInt64 {
		return consensus.Coin{}, errCoin
	}
	return consensus.Coin{
		Value:    int64(value),
		Script:   v,
		Height:   int32(code >> 1),
		Coinbase: code&1 != 0,
	}, nil
}

func headerKey(height int32, hash chainhash.Hash) []byte {
	k := make([]byte, headerKeyBytes)
	k[0] = prefixHeader
	binary.BigEndian.PutUint32(k[1:], uint32(height))
	copy(k[5:], hash[:])
	return k
}

func parseHeaderKey(k []byte) (height int32, hash chainhash.Hash, ok bool) {
	if len(k) != headerKeyBytes || k[0] != prefixHeader {
		return 0, hash, false
	}
	h := binary.BigEndian.Uint32(k[1:])
	if h > math.MaxInt32 {
		return 0, hash, false
	}
	copy(hash[:], k[5:])
	return int32(h), hash, true
}

// appendHeaderRecord appends status 1 ‖ uvarint(txs) ‖ block position ‖ undo
// position ‖ header ‖ seal. The height is in the key.
func appendHeaderRecord(dst []byte, r *HeaderRecord) []byte {
	dst = append(dst, r.Status)
	dst = binary.AppendUvarint(dst, uint64(r.Txs))
	dst = appendPos(dst, r.Block)
	dst = appendPos(dst, r.Undo)
	return append(dst, r.Raw...)
}

// appendPos appends uvarint(size) and, unless it is 0, uvarint(file) ‖
// uvarint(offset).
func appendPos(dst []byte, p Pos) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.Size))
	if p.Size == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(p.File))
	return binary.AppendUvarint(dst, uint64(p.Offset))
}

var errHeaderRecord = errors.New("malformed header record")

// decodeHeaderRecord decodes what appendHeaderRecord wrote. Raw aliases v.
func decodeHeaderRecord(height int32, v []byte) (HeaderRecord, error) {
	if len(v) == 0 {
		return HeaderRecord{}, errHeaderRecord
	}
	r := HeaderRecord{Height: height, Status: v[0]}
	txs, v, ok := uvarint(v[1:])
	if !ok || txs > math.MaxUint32 {
		return HeaderRecord{}, errHeaderRecord
	}
	r.Txs = uint32(txs)
	if r.Block, v, ok = decodePos(v); !ok {
		return HeaderRecord{}, errHeaderRecord
	}
	if r.Undo, v, ok = decodePos(v); !ok {
		return HeaderRecord{}, errHeaderRecord
	}
	if len(v) < consensus.HeaderBytes || len(v) > maxHeaderBytes {
		return HeaderRecord{}, errHeaderRecord
	}
	r.Raw = v
	return r, nil
}

func decodePos(v []byte) (p Pos, rest []byte, ok bool) {
	var n [3]uint64
	for i := range n {
		n[i], v, ok = uvarint(v)
		if !ok || n[i] > math.MaxUint32 {
			return Pos{}, nil, false
		}
		if i == 0 && n[0] == 0 {
			return Pos{}, v, true
		}
	}
	return Pos{Size: uint32(n[0]), File: uint32(n[1]), Offset: uint32(n[2])}, v, true
}

func appendTip(dst []byte, t Tip) []byte {
	dst = append(dst, t.Hash[:]...)
	return binary.LittleEndian.AppendUint32(dst, uint32(t.Height))
}

func decodeTip(v []byte) (t Tip, err error) {
	if len(v) != tipBytes {
		return t, fmt.Errorf("tip record has %d bytes, not %d", len(v), tipBytes)
	}
	copy(t.Hash[:], v)
	h := binary.LittleEndian.Uint32(v[chainhash.HashSize:])
	if h > math.MaxInt32 {
		return t, fmt.Errorf("tip record has height %d", h)
	}
	t.Height = int32(h)
	return t, nil
}

// A place is where the next record of a series goes.
type place struct {
	file, end uint32
}

// written is what each commit says of the files, and its own number.
type written struct {
	blocks, undo place
	commit       uint64
}

func appendWritten(dst []byte, w written) []byte {
	for _, n := range []uint32{w.blocks.file, w.blocks.end, w.undo.file, w.undo.end} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return binary.LittleEndian.AppendUint64(dst, w.commit)
}

func decodeWritten(v []byte) (w written, err error) {
	if len(v) != writtenBytes {
		return w, fmt.Errorf("write positions have %d bytes, not %d", len(v), writtenBytes)
	}
	w.blocks = place{binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:])}
	w.undo = place{binary.LittleEndian.Uint32(v[8:]), binary.LittleEndian.Uint32(v[12:])}
	w.commit = binary.LittleEndian.Uint64(v[16:])
	return w, nil
}

func endKey(series byte, file uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{prefixEnd, series}, file)
}

func prunedKey(series byte) []byte { return []byte{prefixPruned, series} }

func ringKey(commit uint64) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixRing}, uint16(commit%ringSlots))
}

func metaKey(name string) []byte {
	return append([]byte{prefixMeta}, name...)
}

// uvarint reads a minimally encoded uvarint.
func uvarint(v []byte) (n uint64, rest []byte, ok bool) {
	n, size := binary.Uvarint(v)
	if size <= 0 || size != uvarintBytes(n) {
		return 0, nil, false
	}
	return n, v[size:], true
}

func uvarintBytes(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
