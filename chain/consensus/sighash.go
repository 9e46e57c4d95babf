package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// spentOuts shows txscript the coins of a transaction. It does the work of
// txscript's MultiPrevOutFetcher without a map where there are few. It is safe for
// concurrent use.
type spentOuts struct {
	ins   []*wire.TxIn
	outs  []wire.TxOut
	index map[wire.OutPoint]int // nil if there are few
}

func newSpentOuts(tx *wire.MsgTx, coins []Coin) *spentOuts {
	const few = 16 // comparing so many is as cheap as a look-up
	s := &spentOuts{ins: tx.TxIn, outs: make([]wire.TxOut, len(coins))}
	if len(coins) > few {
		s.index = make(map[wire.OutPoint]int, len(coins))
	}
	for i := range coins {
		s.outs[i] = wire.TxOut{Value: coins[i].Value, PkScript: coins[i].Script}
		if s.index != nil {
			s.index[tx.TxIn[i].PreviousOutPoint] = i
		}
	}
	return s
}

// FetchPrevOutput is txscript.PrevOutputFetcher.
func (s *spentOuts) FetchPrevOutput(op wire.OutPoint) *wire.TxOut {
	if s.index != nil {
		if i, ok := s.index[op]; ok {
			return &s.outs[i]
		}
		return nil
	}
	for i, in := range s.ins {
		if in.PreviousOutPoint == op {
			return &s.outs[i]
		}
	}
	return nil
}

// sigHashes is txscript.NewTxSigHashes without its copies: that one serialises all
// outputs into a growing buffer to hash them.
func sigHashes(tx *wire.MsgTx, coins []Coin) *txscript.TxSigHashes {
	var v0, v1 bool
	for i := range coins {
		if txscript.IsPayToTaproot(coins[i].Script) {
			v1 = true
		} else {
			v0 = true
		}
	}
	s := new(txscript.TxSigHashes)
	h := newSummer()
	for _, in := range tx.TxIn {
		h.bytes(in.PreviousOutPoint.Hash[:])
		h.uint32(in.PreviousOutPoint.Index)
	}
	s.HashPrevOutsV1 = h.sum()
	for _, in := range tx.TxIn {
		h.uint32(in.Sequence)
	}
	s.HashSequenceV1 = h.sum()
	for _, out := range tx.TxOut {
		h.uint64(uint64(out.Value))
		h.script(out.PkScript)
	}
	s.HashOutputsV1 = h.sum()
	if v0 { // the same, hashed twice (BIP143)
		s.HashPrevOutsV0 = chainhash.HashH(s.HashPrevOutsV1[:])
		s.HashSequenceV0 = chainhash.HashH(s.HashSequenceV1[:])
		s.HashOutputsV0 = chainhash.HashH(s.HashOutputsV1[:])
	}
	if v1 {
		for i := range coins {
			h.uint64(uint64(coins[i].Value))
		}
		s.HashInputAmountsV1 = h.sum()
		for i := range coins {
			h.script(coins[i].Script)
		}
		s.HashInputScriptsV1 = h.sum()
	}
	return s
}

// A summer hashes what is written to it, gathering small pieces.
type summer struct {
	d   hash.Hash
	buf []byte
}

func newSummer() summer {
	return summer{d: sha256.New(), buf: make([]byte, 0, 512)}
}

func (h *summer) flush() {
	h.d.Write(h.buf) // a hash never fails
	h.buf = h.buf[:0]
}

// room makes room for n bytes in the buffer.
func (h *summer) room(n int) {
	if cap(h.buf)-len(h.buf) < n {
		h.flush()
	}
}

func (h *summer) bytes(b []byte) {
	if len(b) > cap(h.buf) {
		h.flush()
		h.d.Write(b)
		return
	}
	h.room(len(b))
	h.buf = append(h.buf, b...)
}

func (h *summer) uint32(v uint32) {
	h.room(4)
	h.buf = binary.LittleEndian.AppendUint32(h.buf, v)
}

func (h *summer) uint64(v uint64) {
	h.room(8)
	h.buf = binary.LittleEndian.AppendUint64(h.buf, v)
}

// count writes a variable-length integer.
func (h *summer) count(n int) {
	h.room(9)
	h.buf = appendCount(h.buf, n)
}

// script writes a script behind its length.
func (h *summer) script(b []byte) {
	h.count(len(b))
	h.bytes(b)
}

// sum returns the hash of what was written and starts anew.
func (h *summer) sum() (sum chainhash.Hash) {
	h.flush()
	h.d.Sum(sum[:0])
	h.d.Reset()
	return sum
}
