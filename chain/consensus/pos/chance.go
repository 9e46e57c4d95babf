package pos

import (
	"math"
	"time"

	"dunlin/chain/consensus"
)

// Chance is the probability that a coin worth value satoshi wins a slot at these bits:
// target · value / 2^256, at most 1.
func Chance(bits uint32, value int64) float64 {
	mantissa, exponent := bits&0x007fffff, int(bits>>24)
	if exponent < 3 {
		mantissa >>= 8 * (3 - exponent)
	}
	if bits&0x00800000 != 0 || value <= 0 {
		return 0 // nothing is below zero
	}
	return min(1, math.Ldexp(float64(mantissa)*float64(value), 8*(max(exponent, 3)-3)-256))
}

// Odds are those of several coins: the logarithm of the probability that none wins a
// slot. Zero is none. They are exact: each coin draws for itself, so ten coins win a
// little less often than one that is worth as much, for two may win the same slot.
type Odds float64

// Add counts a coin that wins a slot with this probability.
func (o *Odds) Add(chance float64) { *o += Odds(math.Log1p(-chance)) }

// Chance is the probability that at least one of the coins wins a slot:
// 1 − (1 − p₁)(1 − p₂) and so on.
func (o Odds) Chance() float64 { return max(0, -math.Expm1(float64(o))) }

// Time is how long the coins take to win a slot, on average. It is 0 when they never do, or
// not within the range of a duration.
func (o Odds) Time(p *consensus.Params) time.Duration {
	took := p.SlotDuration.Seconds() / o.Chance()
	if !(took < time.Duration(math.MaxInt64).Seconds()) { // of NaN too
		return 0
	}
	return time.Duration(took * float64(time.Second))
}
