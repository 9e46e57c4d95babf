package jsonrpc

import (
	"encoding/hex"
	"errors"
	"math"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

// stakeInfo is what getblock and getblockheader say where stake makes blocks, beside
// Core's keys: flags, proofhash, modifier and signature are named as in Blackcoin and
// Qtum, the rest is ours.
type stakeInfo struct {
	Flags     string     `json:"flags"`
	Slot      int64      `json:"slot"`
	Validator string     `json:"validator"` // empty of genesis, which nobody won
	Stake     *stakeCoin `json:"stake,omitempty"`
	Modifier  string     `json:"modifier,omitempty"`
	ProofHash string     `json:"proofhash,omitempty"`
	Signature string     `json:"signature,omitempty"`
}

type stakeCoin struct {
	TxID  string `json:"txid"`
	VOut  uint32 `json:"vout"`
	Value amount `json:"value"`
}

// stakeInfo tells who made a block; nil where work makes blocks, and of headers without a
// block, whose seal anybody may have put there.
func (h *Handler) stakeInfo(hash chainhash.Hash, s *chain.NodeStatus) (*stakeInfo, error) {
	if !h.params.ProofOfStake() || !s.HaveBlock && !s.Pruned {
		return nil, nil //nolint:nilnil // nothing to tell
	}
	seal, err := h.o.Chain.Seal(hash)
	if err != nil {
		return nil, err
	}
	out := &stakeInfo{Flags: "proof-of-stake"}
	out.Slot, _ = pos.Slot(h.params, s.Header.Timestamp.Unix())
	stake, sig, err := pos.ParseSeal(seal)
	if err != nil || s.Height == 0 {
		return out, nil //nolint:nilerr // genesis has a seal of zeros
	}
	out.Validator, _ = address.Of(stake.Script(), h.addr)
	out.Stake = &stakeCoin{stake.OutPoint.Hash.String(), stake.OutPoint.Index, amount(stake.Value)}
	out.Signature = hex.EncodeToString(sig[:])
	if past, ok := h.o.Chain.Past(s.Header.PrevBlock); ok {
		modifier := pos.Modifier(h.params, past)
		out.Modifier, out.ProofHash = modifier.String(), pos.Kernel(modifier, &stake, out.Slot).String()
	}
	return out, nil
}

// netStakeWeight estimates how much stake takes part, in satoshi, as Qtum has it; nil where
// work makes blocks.
func (h *Handler) netStakeWeight() *int64 {
	if !h.params.ProofOfStake() {
		return nil
	}
	tip, _ := h.o.Chain.Tip()
	bits := tip.Bits
	if past, ok := h.o.Chain.Past(tip.Hash); ok {
		bits = h.o.Engine.NextBits(past, h.o.Now())
	}
	online := int64(pos.Online(h.params, bits, tip.Height+1))
	return &online
}

// moneySupply is how much money there is at most, as Qtum has it; nil where work makes
// blocks.
func (h *Handler) moneySupply(height int32) *amount {
	if !h.params.ProofOfStake() {
		return nil
	}
	supply := amount(pos.Supply(h.params, height))
	return &supply
}

// getStakingInfo has the keys of Blackcoin and Qtum, weights in satoshi and times in
// seconds; expectedtime is 0 where no slot can be won.
func getStakingInfo(c *call) (any, error) {
	s, err := c.o.Node.Staking(0)
	if e, ok := errors.AsType[*api.Error](err); ok {
		return nil, fault(codeMisc, "%s", e.Reason)
	}
	if err != nil {
		return nil, err
	}
	tip, _ := c.o.Chain.Tip()
	count, _, _ := c.o.Pool.Size()
	out := struct {
		Enabled    bool    `json:"enabled"`
		Staking    bool    `json:"staking"`
		Errors     string  `json:"errors"` // why it waits
		Pooled     int     `json:"pooledtx"`
		Difficulty float64 `json:"difficulty"`
		Interval   float64 `json:"search-interval"` // of slots
		Weight     int64   `json:"weight"`
		NetStake   int64   `json:"netstakeweight"`
		Expected   float64 `json:"expectedtime"`
	}{
		Enabled: s.Enabled, Staking: s.State == "staking", Errors: s.Reason, Pooled: count, Difficulty: consensus.Difficulty(tip.Bits),
		Interval: s.SlotS, Weight: s.Weight, NetStake: s.NetworkWeight,
	}
	if s.ExpectedS != nil {
		out.Expected = math.Round(*s.ExpectedS)
	}
	return out, nil
}
