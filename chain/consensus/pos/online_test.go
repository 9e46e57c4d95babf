package pos_test

import (
	"math"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

func TestSupply(t *testing.T) {
	p := consensus.Stakenet()
	const initial = 1_000_000 * 1e8
	if got := pos.Supply(p, 0); got != initial {
		t.Errorf("genesis has %.0f satoshi", got)
	}
	p.SubsidyHalvingInterval = 7
	sum := float64(initial)
	for h := int32(1); h < 600; h++ {
		sum += float64(p.Subsidy(h))
		if got := pos.Supply(p, h); got != sum {
			t.Fatalf("height %d: %.0f satoshi, want %.0f", h, got, sum)
		}
	}
	p.SubsidyHalvingInterval = 0
	if got, want := pos.Supply(p, 1000), initial+1000*float64(p.BaseSubsidy); got != want {
		t.Errorf("without halvings %.0f satoshi, want %.0f", got, want)
	}
}

// With the target that genesis sets the initial stake wins every fourth slot by
// expectation, so all of it is online; at twice the target half of it does as well.
func TestOnline(t *testing.T) {
	p := consensus.Stakenet()
	bits := p.Genesis.Header.Bits
	if got := pos.Online(p, bits, 0); got != 1e14 {
		t.Errorf("at the first target %.0f satoshi are online, want all", got)
	}
	for holder, want := range []float64{0.5, 0.3, 0.15, 0.05} {
		value := p.Genesis.Transactions[0].TxOut[holder].Value
		if got := pos.Share(p, bits, 0, value); math.Abs(got-want) > 1e-9 {
			t.Errorf("holder %d has share %f, want %f", holder+1, got, want)
		}
		if got := pos.Chance(bits, value); math.Abs(got-want/4) > 1e-5 {
			t.Errorf("holder %d wins a slot with %f, want %f", holder+1, got, want/4)
		}
	}
	if got, want := pos.Online(p, bits+1<<24, 0), math.Log(4.0/3)/(256*0.25/1e14); math.Abs(got/want-1) > 1e-4 {
		t.Errorf("at a target 256 times as easy %.0f satoshi are online, want %.0f", got, want)
	}
	if got := pos.Share(p, bits+2<<24, 0, 5e13); got != 1 {
		t.Errorf("more than there is online is a share of %f", got)
	}
	if got, want := pos.Online(p, bits, 2), pos.Supply(p, 1); got != want {
		t.Errorf("%.0f satoshi are online for block 2, its parent has %.0f", got, want)
	}
	for _, bits := range []uint32{0, 0x01800001} {
		if c, o := pos.Chance(bits, 1), pos.Online(p, bits, 0); c != 0 || o != 1e14 {
			t.Errorf("bits %08x: chance %f, %.0f online", bits, c, o)
		}
	}
}
