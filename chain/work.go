package chain

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// work128 is cumulative work as a fixed-width integer. Bitcoin's whole history
// is below 2^97; sums past 2^128-1 saturate, and a saturated branch never beats
// another saturated one (first seen wins), so no header can wrap it round.
type work128 struct{ hi, lo uint64 }

var maxWork = work128{math.MaxUint64, math.MaxUint64}

// workOf converts w; negative and nil count as none.
func workOf(w *big.Int) work128 {
	if w == nil || w.Sign() <= 0 {
		return work128{}
	}
	if w.BitLen() > 128 {
		return maxWork
	}
	var b [16]byte
	w.FillBytes(b[:])
	return work128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (w work128) add(x work128) work128 {
	lo, carry := bits.Add64(w.lo, x.lo, 0)
	hi, over := bits.Add64(w.hi, x.hi, carry)
	if over != 0 {
		return maxWork
	}
	return work128{hi, lo}
}

// sub is w - x, no less than none.
func (w work128) sub(x work128) work128 {
	lo, borrow := bits.Sub64(w.lo, x.lo, 0)
	hi, under := bits.Sub64(w.hi, x.hi, borrow)
	if under != 0 {
		return work128{}
	}
	return work128{hi, lo}
}

// times is w · n, saturating.
func (w work128) times(n uint64) work128 {
	over, hi := bits.Mul64(w.hi, n)
	carry, lo := bits.Mul64(w.lo, n)
	hi, c := bits.Add64(hi, carry, 0)
	if over != 0 || c != 0 {
		return maxWork
	}
	return work128{hi, lo}
}

func (w work128) more(x work128) bool {
	return w.hi > x.hi || (w.hi == x.hi && w.lo > x.lo)
}

func (w work128) big() *big.Int {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w.hi)
	binary.BigEndian.PutUint64(b[8:], w.lo)
	return new(big.Int).SetBytes(b[:])
}
