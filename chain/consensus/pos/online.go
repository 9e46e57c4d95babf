package pos

import (
	"math"

	"dunlin/chain/consensus"
)

// Supply returns the most money that there can be after the block of a height, in
// satoshi: the initial stake and all subsidies. It is exact up to 2^53.
func Supply(p *consensus.Params, height int32) (satoshi float64) {
	for _, out := range p.Genesis.Transactions[0].TxOut {
		satoshi += float64(out.Value)
	}
	for from := int32(1); from <= height; {
		each, blocks := p.Subsidy(from), height-from+1
		if p.SubsidyHalvingInterval > 0 {
			if each == 0 {
				break
			}
			blocks = min(blocks, p.SubsidyHalvingInterval-from%p.SubsidyHalvingInterval)
		}
		satoshi += float64(each) * float64(blocks)
		from += blocks
	}
	return satoshi
}

// Online estimates how much stake takes part in making the block of a height whose
// bits are given, in satoshi: as much as wins one slot in [consensus.SlotsPerBlock] at
// its target if it lies in many coins, and no more than its parent had. The target follows
// luck too, which makes the estimate some 8 % wrong. Only headers are needed for it.
func Online(p *consensus.Params, bits uint32, height int32) float64 {
	supply := Supply(p, height-1)
	chance := Chance(bits, 1)
	if chance <= 0 {
		return supply
	}
	// Of n coins that win each with chance x, none does with (1-x)^n = e^-nx.
	return min(supply, -math.Log1p(-1.0/consensus.SlotsPerBlock)/chance)
}

// Share is the part of the stake online, 0 to 1, that a value is; see [Online].
func Share(p *consensus.Params, bits uint32, height int32, value int64) float64 {
	return min(1, float64(value)/Online(p, bits, height))
}
