package node

import (
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/wallet"
)

// bySlot tells how stake made the block of a height with a header and its seal; nothing
// where work makes blocks.
func bySlot(p *consensus.Params, h *consensus.Header, height int32) (out api.BySlot) {
	if !p.ProofOfStake() {
		return out
	}
	slot, _ := pos.Slot(p, h.Timestamp.Unix())
	out.Slot = &slot
	if height == 0 {
		out.Validator = new(string) // nobody won genesis
		return out
	}
	stake, _, err := pos.ParseSeal(h.Seal)
	if err != nil {
		return out // without a block there is none that could be believed
	}
	winner := stakeAddress(p, &stake)
	out.Validator = &winner
	out.Stake = &api.StakeCoin{TxID: stake.OutPoint.Hash.String(), VOut: stake.OutPoint.Index, Value: stake.Value}
	share := round4(pos.Share(p, h.Bits, height, stake.Value))
	out.Share = &share
	return out
}

// round4 is a share as it is told: a hundredth of a percent is more than an estimate knows.
func round4(share float64) float64 { return math.Round(share*1e4) / 1e4 }

// stakeAddress is the address that a stake's coin pays to.
func stakeAddress(p *consensus.Params, stake *pos.Stake) string {
	a, _ := address.Of(stake.Script(), address.Params(p)) // a pay-to-taproot script has one
	return a
}

// slotFacts are what the log's line about a block says of its winner.
func slotFacts(p *consensus.Params) func(h *consensus.Header, height int32) []slog.Attr {
	if !p.ProofOfStake() {
		return nil
	}
	return func(h *consensus.Header, height int32) []slog.Attr {
		by := bySlot(p, h, height)
		if by.Share == nil {
			return nil
		}
		return []slog.Attr{slog.Int64("slot", *by.Slot), slog.String("winner", *by.Validator), slog.Float64("share", *by.Share)}
	}
}

// sealed is a header of the tree with its seal, if there is or was a block that showed
// that it is the right one.
func (n *Node) sealed(hash chainhash.Hash, s *chain.NodeStatus) (*consensus.Header, error) {
	h := s.Header
	if !n.params.ProofOfStake() || !s.HaveBlock && !s.Pruned {
		return &h, nil
	}
	var err error
	h.Seal, err = n.chain.Seal(hash)
	return &h, err
}

// kernelOf is what decided a slot: the modifier of the block's parent, in which past
// ends, and the kernel that won, as hashes of the interface. Empty without a seal.
func kernelOf(p *consensus.Params, past consensus.Past, h *consensus.Header) (modifier, kernel string) {
	stake, _, err := pos.ParseSeal(h.Seal)
	if err != nil {
		return "", ""
	}
	slot, _ := pos.Slot(p, h.Timestamp.Unix())
	m := pos.Modifier(p, past)
	return m.String(), pos.Kernel(m, &stake, slot).String()
}

// stakeOnline estimates from the target of the block after a tip how much stake takes
// part, in satoshi.
func (n *Node) stakeOnline(tip chain.Tip) (satoshi float64, bits uint32) {
	bits = tip.Bits
	if past, ok := n.chain.Past(tip.Hash); ok {
		bits = n.engine.NextBits(past, time.Now())
	}
	return pos.Online(n.params, bits, tip.Height+1), bits
}

// DoubleStakes implements api.Explorer.
func (f face) DoubleStakes(most int) (api.DoubleStakes, <-chan struct{}) {
	list, total, changed := f.chain.DoubleStakes()
	out := api.DoubleStakes{Total: total}
	for _, d := range slices.Backward(list[max(0, len(list)-most):]) {
		out.Doubles = append(out.Doubles, api.DoubleStake{
			Slot: d.Slot, Address: stakeAddress(f.params, &pos.Stake{Key: d.Key}), OutPoint: wallet.CoinText(d.OutPoint),
			Height: d.Height, First: d.First.String(), Second: d.Second.String(), Seen: d.Seen.UTC(),
		})
	}
	return out, changed
}

// slots is the network's time by slots; nil where work makes blocks.
func (n *Node) slots(tip chain.Tip, now time.Time) *api.Slots {
	if !n.params.ProofOfStake() {
		return nil
	}
	at, _ := pos.Slot(n.params, now.Unix())
	last, _ := pos.Slot(n.params, tip.Time.Unix())
	online, _ := n.stakeOnline(tip)
	return &api.Slots{
		LengthS: n.params.SlotDuration.Seconds(), Now: at, SinceBlock: max(0, at-last),
		Online: int64(online), Supply: int64(pos.Supply(n.params, tip.Height)),
	}
}
