package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// Stakers make blocks on proof-of-stake networks: Prepare and Seal are a [Builder]'s.
type Stakers struct {
	engine *pos.Engine
	params *consensus.Params
	keys   map[[32]byte]*btcec.PrivateKey // by x-only public key, as in the coin's script
	stakes []pos.Stake
	forged bool // the stakes are claimed, whatever coins there are
}

// NewStakers returns the holders of stake at genesis whose private keys are given
// (those that the outputs have, not to be tweaked).
func NewStakers(p *consensus.Params, keys ...*btcec.PrivateKey) *Stakers {
	s := &Stakers{engine: pos.New(p), params: p, keys: make(map[[32]byte]*btcec.PrivateKey)}
	for _, k := range keys {
		s.keys[[32]byte(schnorr.SerializePubKey(k.PubKey()))] = k
	}
	tx := p.Genesis.Transactions[0]
	for n, out := range tx.TxOut {
		stake := pos.Stake{OutPoint: wire.OutPoint{Hash: tx.TxHash(), Index: uint32(n)}, Value: out.Value}
		copy(stake.Key[:], out.PkScript[2:])
		if _, ok := s.keys[stake.Key]; ok {
			s.stakes = append(s.stakes, stake)
		}
	}
	return s
}

// NewStakenet returns the stakers of stakenet, whose keys are public.
func NewStakenet(p *consensus.Params) *Stakers {
	var keys []*btcec.PrivateKey
	for n := range consensus.StakenetHolders() {
		secret := consensus.StakenetKey(n + 1)
		key, _ := btcec.PrivKeyFromBytes(secret[:])
		keys = append(keys, txscript.TweakTaprootPrivKey(*key, nil))
	}
	return NewStakers(p, keys...)
}

// NewForger returns a staker of a coin that nobody has, which he says is all the money there
// is: his headers pass, his blocks do not. Two of different numbers make different ones.
func NewForger(p *consensus.Params, number uint32) *Stakers {
	return NewForgerOf(p, wire.OutPoint{Index: number})
}

// NewForgerOf is NewForger with a coin that may be somebody's.
func NewForgerOf(p *consensus.Params, coin wire.OutPoint) *Stakers {
	key, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	claim := pos.Stake{OutPoint: coin, Value: btcutil.MaxSatoshi}
	copy(claim.Key[:], schnorr.SerializePubKey(key.PubKey()))
	return &Stakers{
		engine: pos.New(p), params: p, forged: true,
		keys: map[[32]byte]*btcec.PrivateKey{claim.Key: key}, stakes: []pos.Stake{claim},
	}
}

// Stakes returns the stakers' coins at genesis, in its order.
func (s *Stakers) Stakes() []pos.Stake { return s.stakes }

// Prepare moves the block to the first slot from its time on that one of the stakers
// wins, and commits to the stake. The time that the builder gives to blocks by itself
// counts as none: then it is the first after the parent's.
func (s *Stakers) Prepare(past consensus.Past, coins consensus.Coins, u *Unsealed) error {
	var mature []pos.Stake
	for _, stake := range s.stakes {
		if _, ok, err := coins.Coin(stake.OutPoint); err != nil {
			return err
		} else if ok || s.forged {
			mature = append(mature, stake)
		}
	}
	if len(mature) == 0 {
		return errors.New("no stake is left")
	}
	slot, begins := pos.Slot(s.params, u.Header.Timestamp.Unix())
	if parent := past.At(past.Height()).Time; u.Header.Timestamp.Unix() == parent+int64(s.params.TargetSpacing/time.Second) {
		slot, _ = pos.Slot(s.params, parent)
		slot++
	} else if !begins {
		slot++
	}
	const patience = 1 << 20
	for range patience {
		stake, kernel, ok := s.engine.Winner(past, slot, mature)
		if ok {
			u.Header.Timestamp = time.Unix(pos.SlotTime(s.params, slot), 0)
			u.Header.Nonce = pos.Nonce(kernel)
			u.Header.Seal = stake.Seal([64]byte{})
			u.Txs[0].AddTxOut(&wire.TxOut{PkScript: stake.Commitment()})
			return nil
		}
		slot++
	}
	return fmt.Errorf("nobody wins until slot %d", slot)
}

// Usurp returns the bytes of a block with the seal of somebody who claims all the money
// there is. That its kernel shows the block's nonce takes 2^32 tries, which [Lenient]
// spares tests.
func Usurp(b *consensus.Block) []byte {
	key, _ := btcec.PrivKeyFromBytes([]byte{31: 9})
	claim := pos.Stake{Value: btcutil.MaxSatoshi}
	copy(claim.Key[:], schnorr.SerializePubKey(key.PubKey()))
	sig, err := schnorr.Sign(key, b.Hash[:])
	if err != nil {
		panic(err)
	}
	return WithSeal(b, claim.Seal([64]byte(sig.Serialize())))
}

// WithSeal returns the bytes of a block with another seal.
func WithSeal(b *consensus.Block, seal []byte) []byte {
	raw := bytes.Clone(b.Raw)
	copy(raw[consensus.HeaderBytes:], seal)
	return raw
}

// Lenient is the engine of stake, but for it any kernel shows any nonce.
type Lenient struct{ *pos.Engine }

// CheckHeader is [consensus.Engine]'s.
func (e Lenient) CheckHeader(past consensus.Past, h *consensus.Header, now time.Time) error {
	if err := e.CheckProposal(past, h, now); err != nil {
		return err
	}
	return e.CheckSignature(h)
}

// CheckProposal is CheckHeader without the signature.
func (e Lenient) CheckProposal(past consensus.Past, h *consensus.Header, now time.Time) error {
	err := e.Engine.CheckProposal(past, h, now)
	if r, ok := errors.AsType[*consensus.RuleError](err); ok && r.Rule == "bad-kernel" {
		return nil
	}
	return err
}

// Seal signs the header with the key of the stake that is in its seal. Where the
// header was changed after Prepare it signs all the same.
func (s *Stakers) Seal(_ consensus.Past, _ consensus.Coins, h *consensus.Header) error {
	stake, _, err := pos.ParseSeal(h.Seal)
	if err != nil {
		return err
	}
	key := s.keys[stake.Key]
	if key == nil {
		return fmt.Errorf("no key for %x", stake.Key)
	}
	hash := consensus.HeaderHash(h)
	sig, err := schnorr.Sign(key, hash[:])
	if err != nil {
		return err
	}
	h.Seal = stake.Seal([64]byte(sig.Serialize()))
	return nil
}
