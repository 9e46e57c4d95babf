package pos

import (
	"math"
	"math/big"
	"time"

	"github.com/btcsuite/btcd/blockchain"

	"dunlin/chain/consensus"
)

// expected is how many kernels of coins worth value together win a slot at these bits,
// on average.
func expected(bits uint32, value float64) float64 {
	target, _ := new(big.Float).SetInt(blockchain.CompactToBig(bits)).Float64()
	return max(0, math.Ldexp(target, -256)*value)
}

// Chance is the probability that at least one of the coins that are worth value satoshi
// together wins a slot at these bits. Into how many coins it is split makes no difference.
func Chance(bits uint32, value int64) float64 { return -math.Expm1(-expected(bits, float64(value))) }

// TimeToWin is how long coins worth value take to win a slot at these bits, on average. It is 0 when
// they never do, or not within the range of a duration.
func TimeToWin(p *consensus.Params, bits uint32, value int64) time.Duration {
	took := p.SlotDuration.Seconds() / Chance(bits, value)
	if !(took < time.Duration(math.MaxInt64).Seconds()) { // of NaN too
		return 0
	}
	return time.Duration(took * float64(time.Second))
}

// NetworkStake estimates how many satoshi take part in making blocks, from the last
// blocks up to past: how many of their slots were won at their targets. Its standard
// error is the estimate divided by the root of the number of blocks, a tenth for 100. It
// is 0 on a chain of genesis alone.
func NetworkStake(p *consensus.Params, past consensus.Past, blocks int32) float64 {
	tip := past.Height()
	first := max(0, tip-min(blocks, consensus.Lookback))
	var slots, tried float64 // tried: kernels of a satoshi that would have won in those slots
	for h := first + 1; h <= tip; h++ {
		at := past.At(h)
		// In a longer pause it was not that nobody won, but that nobody was there.
		gap := min((at.Time-past.At(h-1).Time)/int64(p.SlotDuration/time.Second), maxGap*consensus.SlotsPerBlock)
		slots += float64(gap)
		tried += float64(gap) * expected(at.Bits, 1)
	}
	if tried == 0 {
		return 0
	}
	// One slot may have several winners and shows one; where every slot has a block
	// (only short of blocks to look at) there is no upper limit to tell.
	rate := min(float64(tip-first)/slots, 1-1/(slots+1))
	return -math.Log1p(-rate) / (tried / slots)
}
