package pos_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// TestChance: a coin's chance is what Wins makes of all kernels: target · value of 2^256.
func TestChance(t *testing.T) {
	t.Parallel()
	all := new(big.Float).SetInt(new(big.Int).Lsh(big.NewInt(1), 256))
	for _, bits := range []uint32{
		consensus.Stakenet().Genesis.Header.Bits, 0x1b0404cb, 0x20010000, 0x207fffff, 0x227fffff, 0xff7fffff, 0x03000001, 0x02010000, 0x02000100, 0x01010000, 0x01000001, 0, 0x1b8404cb, 0x01800001,
	} {
		for _, value := range []int64{0, 1, 2, 1e8, 5e13, 21e14} {
			target := blockchain.CompactToBig(bits)
			wins := new(big.Float).SetInt(target.Mul(target, big.NewInt(value)))
			want, _ := wins.Quo(wins, all).Float64()
			want = max(0, min(1, want))
			if got := pos.Chance(bits, value); math.Abs(got-want) > 1e-15*want {
				t.Errorf("bits %08x, %d satoshi: %g, want %g", bits, value, got, want)
			}
		}
	}
	if got := pos.Chance(0x207fffff, -1); got != 0 {
		t.Errorf("of a debt: %g", got)
	}
}

// TestOdds: of several coins at least one wins unless none does.
func TestOdds(t *testing.T) {
	t.Parallel()
	p := consensus.Stakenet()
	for _, c := range []struct {
		coins []float64
		want  float64
	}{
		{nil, 0},
		{[]float64{0}, 0},
		{[]float64{0.25}, 0.25},
		{[]float64{0.5, 0.5}, 0.75},
		{[]float64{0.1, 0.2, 0.3}, 1 - 0.9*0.8*0.7},
		{[]float64{0.1, 1}, 1},
		{[]float64{1e-18, 1e-18}, 2e-18}, // no less exact when it is small
	} {
		var o pos.Odds
		for _, chance := range c.coins {
			o.Add(chance)
		}
		if got := o.Chance(); math.Abs(got-c.want) > 1e-12*c.want {
			t.Errorf("%v: %g, want %g", c.coins, got, c.want)
		}
		want := time.Duration(0)
		if c.want > 1e-9 {
			want = time.Duration(float64(p.SlotDuration) / c.want)
		}
		if got := o.Time(p); (got - want).Abs() > time.Microsecond {
			t.Errorf("%v: one in %v, want %v", c.coins, got, want)
		}
	}
}

// TestOddsOfSlots: as many slots are won as the odds say. The coins are large for the
// target, so that it makes a difference into how many the money is split: one of 0.8, or
// eight that have 0.57 together. The seed is fixed.
func TestOddsOfSlots(t *testing.T) {
	t.Parallel()
	l := newLottery(7)
	const slots, bits = 20_000, 0x20010000 // a satoshi wins one slot in 256
	modifier := pos.Modifier(l.p, l.chain)
	for _, coins := range []int{1, 8} {
		var o pos.Odds
		stakes := make([]pos.Stake, coins)
		for i := range stakes {
			stakes[i].OutPoint.Index, stakes[i].Value = uint32(i), int64(208/coins)
			o.Add(pos.Chance(bits, stakes[i].Value))
		}
		won := 0
		for slot := range int64(slots) {
			for i := range stakes {
				if pos.Wins(pos.Kernel(modifier, &stakes[i], slot), bits, stakes[i].Value) {
					won++
					break
				}
			}
		}
		want := slots * o.Chance()
		x := chiSquare([]int{won, slots - won}, []float64{want, slots - want})
		t.Logf("%d coins: %d slots won, want %.0f (chi-square %.2f)", coins, won, want, x)
		if x > 6.635 { // p > 0.01, one degree of freedom
			t.Errorf("%d coins: %d slots won, want %.0f", coins, won, want)
		}
	}
}
