package pos_test

import (
	"testing"
	"time"

	"dunlin/chain/consensus/pos"
)

// TestChance: as many slots are won as the chance says.
func TestChance(t *testing.T) {
	t.Parallel()
	l := newLottery(7)
	stakes := []pos.Stake{{Value: 400_000e8}, {Value: 200_000e8}, {Value: 400_000e8}}
	for i := range stakes {
		stakes[i].OutPoint.Index = uint32(i)
	}
	const slots = 4_000
	if won := l.continueFrom(0, slots, stakes); won < slots/5 || won > slots*3/10 {
		t.Errorf("%d of %d slots won", won, slots)
	}
	bits := l.e.NextBits(l.chain, time.Time{})
	const total = 1_000_000e8
	// One in four, and so the chance of all stake at the target that has come out.
	if got := pos.Chance(bits, total); got < 0.15 || got > 0.4 {
		t.Errorf("chance %.3f", got)
	}
	if a, b := pos.Chance(bits, total/2), pos.Chance(bits, total); a <= b/2 || a >= b {
		t.Errorf("half of the stake has %.4f of %.4f", a, b)
	}
	if got, want := pos.TimeToWin(l.p, bits, total), 4*l.p.SlotDuration; got < want/2 || got > want*2 {
		t.Errorf("one in %v", got)
	}
	if got := pos.TimeToWin(l.p, bits, 0); got != 0 {
		t.Errorf("without stake: one in %v", got)
	}
	if got := pos.Chance(bits, 0); got != 0 {
		t.Errorf("without stake: %v", got)
	}
}
