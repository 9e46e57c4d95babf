package consensus

import (
	"math/big"

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
		work.Add(work, blockchain.CalcWork(past.At(top-i).Bits))
		t := past.At(top - i - 1).Time
		earliest, latest = min(earliest, t), max(latest, t)
	}
	if earliest == latest {
		return 0
	}
	f, _ := new(big.Float).Quo(new(big.Float).SetInt(work), big.NewFloat(float64(latest-earliest))).Float64()
	return f
}
