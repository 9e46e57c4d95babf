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
