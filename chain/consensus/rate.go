package consensus

import (
	"encoding/binary"
	"math/big"
	"math/bits"

	"github.com/btcsuite/btcd/blockchain"
)

// Difficulty is how many times harder than Bitcoin's first blocks.
func Difficulty(bits uint32) float64 {
	shift := bits >> 24 & 0xff
	d := float64(0x0000ffff) / float64(bits&0x00ffffff)
	for ; shift < 29; shift++ {
		d *= 256
	}
	for ; shift > 29; shift-- {
		d /= 256
	}
	return d
}

// Work is how many hashes a block with these bits takes on average: 2^256 / (target + 1),
// rounded down; 0 for bits that are no target. It is blockchain.CalcWork, faster.
func Work(target uint32) *big.Int {
	m, shift := uint64(target&0x007fffff), int(target>>24)*8-24
	if target&0x00800000 != 0 || m&(m-1) == 0 || shift < 128 || shift > 248 {
		return blockchain.CalcWork(target)
	}
	// With a target of m·2^shift this is 2^(256−shift)/m, for the 1 is too small to matter:
	// that is no whole number, so it is 1/m or more from the next lower one, and the 1
	// takes off less than 2^256/(m·2^shift)², which is at most 1/m².
	var above, high, low uint64
	switch n := 256 - shift; {
	case n == 128:
		above = 1
	case n >= 64:
		high = 1 << (n - 64)
	default:
		low = 1 << n
	}
	var b [16]byte
	high, rest := bits.Div64(above, high, m)
	low, _ = bits.Div64(rest, low, m)
	binary.BigEndian.PutUint64(b[:], high)
	binary.BigEndian.PutUint64(b[8:], low)
	return new(big.Int).SetBytes(b[:])
}

// HashRate estimates the hashes per second behind the last n blocks of a branch, as
// Bitcoin Core does: their work over the time between the earliest and the latest of
// them and of the block before. It looks at no more than [Lookback] blocks; 0 if there
// is nothing to measure.
func HashRate(past Past, n int) float64 {
	top := past.Height()
	n = min(n, int(top), Lookback-1)
	if n <= 0 {
		return 0
	}
	earliest, latest := past.At(top).Time, past.At(top).Time
	work := new(big.Int)
	for i := range int32(n) {
		work.Add(work, Work(past.At(top-i).Bits))
		t := past.At(top - i - 1).Time
		earliest, latest = min(earliest, t), max(latest, t)
	}
	if earliest == latest {
		return 0
	}
	f, _ := new(big.Float).Quo(new(big.Float).SetInt(work), big.NewFloat(float64(latest-earliest))).Float64()
	return f
}
