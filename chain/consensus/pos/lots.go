package pos

import (
	"math/big"
	"time"

	"github.com/btcsuite/btcd/blockchain"

	"dunlin/chain/consensus"
)

// lotSlots is for how many slots, from its beginning, a slot's blocks are drawn between:
// as long as honest holders may make one.
const lotSlots = 2

// Precedes says whether a child of past goes before another one: both are of one slot, that
// has begun less than two slots ago by our clock, and its lot is the lower. The lot is the
// kernel divided by the stake's value, so each satoshi draws once and a stake gains nothing
// by being split. Blocks by one stake have one lot; of them the first goes first.
func (e *Engine) Precedes(past consensus.Past, h, other *consensus.Header, now time.Time) bool {
	slot, begins := Slot(e.p, h.Timestamp.Unix())
	if !begins || !h.Timestamp.Equal(other.Timestamp) || now.Unix() >= SlotTime(e.p, slot+lotSlots) {
		return false
	}
	own, _, err := ParseSeal(h.Seal)
	rival, _, err2 := ParseSeal(other.Seal)
	if err != nil || err2 != nil {
		return false
	}
	modifier := Modifier(e.p, past)
	lot := func(of, times *Stake) *big.Int { // each times the other's value
		k := Kernel(modifier, of, slot)
		n := blockchain.HashToBig(&k)
		return n.Mul(n, big.NewInt(times.Value))
	}
	return lot(&own, &rival).Cmp(lot(&rival, &own)) < 0
}
