// Package pos is the proof-of-stake engine: what a seal proves ([Engine]), and what
// a holder needs to win slots and to make seals ([Stake], [Modifier], [Kernel]).
//
// Time is cut into slots. In each, every coin has a chance in proportion to its
// value: its kernel, a hash of where the chain has come from, of the coin and of the
// slot, must be below the target times the value. Nothing in it can be chosen, so
// trying again means waiting for the next slot. docs/pos.md has every byte, and what
// this does not protect against.
//
// It is pure and keeps no secrets. Who signs, and that nobody signs twice in a slot,
// is not decided here.
package pos

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	mathbits "math/bits"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/secp256k1"
)

// SealBytes is the size of a seal: outpoint 36, value 8, key 32, signature 64.
const SealBytes = 140

// modifierHeaders is how many kernels a modifier is made of. Each shows 32 bits in
// its block's nonce and was made with the modifier before it, so all that ever were
// count; as many as these leave nothing to guess.
const modifierHeaders = 32

// maxGap is how much of the time between two blocks counts for the target, in
// spacings. More cannot be caught up with: blocks come at most one a slot, and while
// they do everybody wins every slot, whatever his stake. After a pause the target is
// 2^(31/64) times easier at most. When 99 in 100 of the stake leave, it still has
// followed after some 850 spacings.
const maxGap = 32

// What the two tagged hashes begin with (BIP340): the hash of the tag, twice.
var (
	kernelTag   = tagOf("dunlin/kernel")
	modifierTag = tagOf("dunlin/modifier")
)

const tagBytes = 2 * sha256.Size

func tagOf(name string) (b [tagBytes]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(b[:], sum[:])
	copy(b[sha256.Size:], sum[:])
	return b
}

var _ consensus.Engine = (*Engine)(nil)

// A Stake is the coin by whose value a block is made.
type Stake struct {
	OutPoint wire.OutPoint
	Value    int64    // satoshi
	Key      [32]byte // x-only: the output key of the coin's pay-to-taproot script
}

// Script is the output script that a coin must have to be a stake: pay-to-taproot
// with the stake's key (BIP341).
func (s *Stake) Script() []byte {
	return append([]byte{txscript.OP_1, txscript.OP_DATA_32}, s.Key[:]...)
}

// append writes outpoint ‖ value ‖ key: the seal up to its signature.
func (s *Stake) append(b []byte) []byte {
	b = append(b, s.OutPoint.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.OutPoint.Index)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Value))
	return append(b, s.Key[:]...)
}

// Commitment is the output script by which a coinbase commits to its block's stake:
// OP_RETURN and SHA-256 of outpoint ‖ value ‖ key.
func (s *Stake) Commitment() []byte {
	b := s.commitment()
	return b[:]
}

func (s *Stake) commitment() (script [34]byte) {
	sum := sha256.Sum256(s.append(make([]byte, 0, SealBytes)))
	script[0], script[1] = txscript.OP_RETURN, txscript.OP_DATA_32
	copy(script[2:], sum[:])
	return script
}

// Seal returns the seal of a stake with the signature of the header's hash.
func (s *Stake) Seal(sig [64]byte) []byte {
	return append(s.append(make([]byte, 0, SealBytes)), sig[:]...)
}

// ParseSeal takes a seal apart. It checks its length and that the value is one that
// a coin can have; faults blame the sender.
func ParseSeal(b []byte) (s Stake, sig [64]byte, err error) {
	if len(b) != SealBytes {
		return s, sig, badSeal("bad-seal", "seal of %d bytes, want %d", len(b), SealBytes)
	}
	copy(s.OutPoint.Hash[:], b)
	s.OutPoint.Index = binary.LittleEndian.Uint32(b[32:])
	value := binary.LittleEndian.Uint64(b[36:])
	if value < 1 || value > btcutil.MaxSatoshi {
		return s, sig, badSeal("bad-seal-value", "stake of %d satoshi, want 1 to %d", value, int64(btcutil.MaxSatoshi))
	}
	s.Value = int64(value)
	copy(s.Key[:], b[44:])
	copy(sig[:], b[76:])
	return s, sig, nil
}

// Slot returns the slot of a block's time, and whether a slot begins then. Slot 0
// begins with genesis.
func Slot(p *consensus.Params, t int64) (slot int64, begins bool) {
	since, d := t-p.Genesis.Header.Timestamp.Unix(), int64(p.SlotDuration/time.Second)
	return since / d, since >= 0 && since%d == 0
}

// SlotTime returns when a slot begins, in Unix seconds.
func SlotTime(p *consensus.Params, slot int64) int64 {
	return p.Genesis.Header.Timestamp.Unix() + slot*int64(p.SlotDuration/time.Second)
}

// Modifier returns what the kernels of past's children depend on besides the stake
// and the slot: a hash of the network's genesis and of nonce and time of the last 32
// headers. A nonce is the first part of its block's kernel, so the maker of a block
// can choose neither.
func Modifier(p *consensus.Params, past consensus.Past) chainhash.Hash {
	tip := past.Height()
	b := append(make([]byte, 0, tagBytes+chainhash.HashSize+8*modifierHeaders), modifierTag[:]...)
	b = append(b, p.GenesisHash[:]...)
	for h := max(0, tip-modifierHeaders+1); h <= tip; h++ {
		at := past.At(h)
		b = binary.LittleEndian.AppendUint32(b, at.Nonce)
		b = binary.LittleEndian.AppendUint32(b, uint32(at.Time))
	}
	return sha256.Sum256(b)
}

// Kernel is the hash that decides whether a coin wins a slot. Value and key follow
// from the outpoint, so they give nothing to choose; that they are in it makes a seal
// with others show another nonce.
func Kernel(modifier chainhash.Hash, stake *Stake, slot int64) chainhash.Hash {
	b := append(make([]byte, 0, tagBytes+chainhash.HashSize+SealBytes), kernelTag[:]...)
	b = append(b, modifier[:]...)
	b = stake.append(b)
	b = binary.LittleEndian.AppendUint64(b, uint64(slot))
	return sha256.Sum256(b)
}

// Nonce is what a header's nonce must be: the part of the kernel that tells nothing
// of whether it wins.
func Nonce(kernel chainhash.Hash) uint32 { return binary.LittleEndian.Uint32(kernel[:]) }

// Wins says whether a kernel, as a little-endian number, is below the target that
// bits are, times the value.
func Wins(kernel chainhash.Hash, bits uint32, value int64) bool {
	// The target is a mantissa and how many bytes it is shifted.
	mantissa, shift := uint64(bits&0x007fffff), int(bits>>24)-3
	if shift < 0 {
		mantissa >>= min(-8*shift, 63)
		shift = 0
	}
	if mantissa == 0 || bits&0x00800000 != 0 || value <= 0 {
		return false // nothing is below zero
	}
	// kernel < m·2^s is floor(kernel/2^s) < m.
	var rest [32]byte
	copy(rest[:], kernel[min(shift, len(kernel)):])
	high, low := mathbits.Mul64(mantissa, uint64(value))
	k0, k1 := binary.LittleEndian.Uint64(rest[:]), binary.LittleEndian.Uint64(rest[8:])
	if binary.LittleEndian.Uint64(rest[16:])|binary.LittleEndian.Uint64(rest[24:]) != 0 {
		return false
	}
	return k1 < high || k1 == high && k0 < low
}

// An Engine decides what stake proves. It is safe for concurrent use.
type Engine struct {
	p *consensus.Params
	// last is the latest result of Work.
	last atomic.Pointer[bitsWork]
	keys secp256k1.Keys
}

type bitsWork struct {
	bits uint32
	work *big.Int
}

// New returns the engine of a proof-of-stake network. It keeps p.
func New(p *consensus.Params) *Engine { return &Engine{p: p} }

func invalid(rule, format string, args ...any) error {
	return &consensus.RuleError{Rule: rule, Blame: consensus.BlameBlock, Detail: fmt.Sprintf(format, args...)}
}

// badSeal makes the faults of seals, which the header's hash does not cover: whoever
// sent it is to blame, and the same header may come with a right one.
func badSeal(rule, format string, args ...any) error {
	return &consensus.RuleError{Rule: rule, Blame: consensus.BlameSender, Detail: fmt.Sprintf(format, args...)}
}

// CheckHeader checks, the cheap before the dear, first what the hash covers, which
// blames the block: that a slot later than the parent's begins at its time, the bits,
// a checkpoint, the version, our clock (half a slot, blames nobody); then the seal,
// which blames the sender: its value, that the kernel is the one that the nonce shows
// and wins with that value, and the signature under its key. Whether there is such a
// coin is not known yet: anybody can claim one. past must end in the header's parent:
// another one is an error that is no RuleError.
//
// It is [Engine.CheckProposal], then [Engine.CheckSignature].
func (e *Engine) CheckHeader(past consensus.Past, h *consensus.Header, now time.Time) error {
	if err := e.CheckProposal(past, h, now); err != nil {
		return err
	}
	return e.CheckSignature(h)
}

// CheckProposal is CheckHeader but for the signature: what a holder can have checked
// before it signs.
func (e *Engine) CheckProposal(past consensus.Past, h *consensus.Header, now time.Time) error {
	if parent := past.Hash(); h.PrevBlock != parent {
		return fmt.Errorf("check header: given the past of %s for a child of %s", parent, h.PrevBlock)
	}
	height := past.Height() + 1
	stake, _, err := ParseSeal(h.Seal)
	if err != nil && len(h.Seal) != SealBytes {
		return err
	}
	t := h.Timestamp.Unix()
	slot, begins := Slot(e.p, t)
	if !begins {
		return invalid("bad-slot", "time %d is not a whole number of %s after genesis", t, e.p.SlotDuration)
	}
	if before := past.At(height - 1).Time; t <= before {
		return invalid("time-too-old", "time %d at height %d, parent %d", t, height, before)
	}
	if want := e.NextBits(past, h.Timestamp); h.Bits != want {
		return invalid("bad-diffbits", "bits %08x at height %d, want %08x", h.Bits, height, want)
	}
	if want, ok := e.p.Checkpoints[height]; ok {
		if hash := consensus.HeaderHash(h); hash != want {
			return invalid("checkpoint-mismatch", "%s at height %d, want %s", hash, height, want)
		}
	}
	if err := consensus.CheckVersion(e.p, height, h.Version); err != nil {
		return err
	}
	if limit := now.Add(e.p.SlotDuration / 2); h.Timestamp.After(limit) {
		return &consensus.RuleError{
			Rule: "time-too-new", Blame: consensus.BlameNobody,
			Detail: fmt.Sprintf("slot %d begins %d s past our clock, at most %s", slot, t-now.Unix(), e.p.SlotDuration/2),
		}
	}
	if err != nil {
		return err
	}
	kernel := Kernel(Modifier(e.p, past), &stake, slot)
	if want := Nonce(kernel); h.Nonce != want {
		return badSeal("bad-kernel", "nonce %08x at height %d, the seal's kernel has %08x", h.Nonce, height, want)
	}
	if !Wins(kernel, h.Bits, stake.Value) {
		return badSeal("high-kernel", "%d satoshi of %v do not win slot %d", stake.Value, stake.OutPoint, slot)
	}
	return nil
}

// CheckSignature is the part of CheckHeader that costs most and needs no past: that
// the signature in the seal is of the header's hash and by the seal's key. Its faults
// blame the sender.
func (e *Engine) CheckSignature(h *consensus.Header) error {
	stake, sig, err := ParseSeal(h.Seal)
	if err != nil {
		return err
	}
	hash := consensus.HeaderHash(h)
	if secp256k1.VerifySchnorr(stake.Key[:], sig[:], (*[32]byte)(&hash)) {
		return nil
	}
	// The library decides what is no signature.
	key, err := schnorr.ParsePubKey(stake.Key[:])
	if err != nil {
		return badSeal("bad-seal-key", "%x is no public key", stake.Key)
	}
	signature, err := schnorr.ParseSignature(sig[:])
	if err != nil || !signature.Verify(hash[:], key) {
		return badSeal("bad-seal-signature", "not of %s by %x", hash, stake.Key)
	}
	return nil
}

// CheckSignatures says whether all headers, with these hashes, pass CheckSignature. It is
// many times as fast where they are many, and remembers the points of keys that come again;
// false shows nothing: ask for each. run, if any, calls work with 0 to n − 1, all at once,
// and returns when all have returned; n is workers at most.
func (e *Engine) CheckSignatures(hs []consensus.Header, hashes []chainhash.Hash, workers int, run func(n int, work func(worker int))) bool {
	list := make([]secp256k1.Schnorr, len(hs))
	for i := range hs {
		stake, sig, err := ParseSeal(hs[i].Seal)
		if err != nil {
			return false
		}
		list[i] = secp256k1.Schnorr{Pub: stake.Key, Sig: sig, Hash: hashes[i]}
	}
	return e.keys.VerifySchnorrBatch(list, secp256k1.Crew{Workers: workers, Run: run})
}

// Claim returns what a header's seal claims; false if it is no seal or no slot begins
// at its time.
func (e *Engine) Claim(h *consensus.Header) (consensus.Claim, bool) {
	stake, _, err := ParseSeal(h.Seal)
	slot, begins := Slot(e.p, h.Timestamp.Unix())
	if err != nil || !begins {
		return consensus.Claim{}, false
	}
	return consensus.Claim{OutPoint: stake.OutPoint, Key: stake.Key, Slot: slot}, true
}

// CheckBody checks that the coinbase commits to the stake in the seal: the block has
// no other right seal then. It looks at header and coinbase alone, and needs no coins. A
// fault blames the sender.
func (e *Engine) CheckBody(b *consensus.Block) error {
	stake, _, err := ParseSeal(b.Header.Seal)
	if err != nil {
		return err
	}
	want := stake.commitment()
	for _, out := range b.Txs[0].MsgTx().TxOut {
		if string(out.PkScript) == string(want[:]) {
			return nil
		}
	}
	return badSeal("bad-stake-commitment", "the coinbase does not commit to %v, %d satoshi and key %x", stake.OutPoint, stake.Value, stake.Key)
}

// CheckBlock checks that there is such a coin at the parent, unspent, with this value
// and key, and mature. What is wrong with it is the block's fault: its hash covers the
// stake, as CheckBody has seen.
func (e *Engine) CheckBlock(past consensus.Past, coins consensus.Coins, b *consensus.Block) error {
	return e.CheckStake(past, coins, &b.Header)
}

// CheckStake is CheckBlock of a header: its hash does not cover the stake, so the fault may
// be its sender's.
func (e *Engine) CheckStake(past consensus.Past, coins consensus.Coins, h *consensus.Header) error {
	stake, _, err := ParseSeal(h.Seal)
	if err != nil {
		return err
	}
	coin, ok, err := coins.Coin(stake.OutPoint)
	if err != nil {
		return fmt.Errorf("stake %v: %w", stake.OutPoint, err)
	}
	if !ok {
		return invalid("bad-stake-missing", "%v is no unspent output", stake.OutPoint)
	}
	if coin.Value != stake.Value {
		return invalid("bad-stake-value", "%v has %d satoshi, not %d", stake.OutPoint, coin.Value, stake.Value)
	}
	if string(coin.Script) != string(stake.Script()) {
		return invalid("bad-stake-key", "%v pays to script %x, not to key %x", stake.OutPoint, coin.Script, stake.Key)
	}
	if height := past.Height() + 1; !Mature(e.p, coin.Height, height) {
		return invalid("bad-stake-immature", "%v of height %d at height %d, %d blocks are needed", stake.OutPoint, coin.Height, height, e.p.StakeMaturity)
	}
	return nil
}

// Mature says whether a coin of one height can be the stake of a block at another.
func Mature(p *consensus.Params, coin, height int32) bool {
	return coin == 0 || height-coin >= p.StakeMaturity
}

// NextBits returns the bits that a child of past must have, whatever its time: the
// parent's target a satoshi, corrected for the parent's own gap towards a block every
// [consensus.SlotsPerBlock] slots (the formula of aserti3-2d). While blocks come this
// is the schedule since genesis; time in which the network stood still is not caught
// up with, as more than maxGap of a gap does not count.
func (e *Engine) NextBits(past consensus.Past, _ time.Time) uint32 {
	height := past.Height()
	parent := past.At(height)
	if height == 0 {
		return parent.Bits
	}
	spacing := int64(e.p.TargetSpacing / time.Second)
	gap := min(parent.Time-past.At(height-1).Time, maxGap*spacing)
	return consensus.ASERT(parent.Bits, e.p.PowLimit, gap-spacing, int64(e.p.ASERTHalfLife/time.Second))
}

// Work is 2^256 / (target + 1): in proportion to the stake that took part. It is a
// claim until the coins have been seen.
func (e *Engine) Work(h *consensus.Header) *big.Int {
	last := e.last.Load()
	if last == nil || last.bits != h.Bits {
		last = &bitsWork{h.Bits, consensus.Work(h.Bits)}
		e.last.Store(last)
	}
	return new(big.Int).Set(last.work)
}

// Winner returns the first of the stakes that wins the slot on past, and its kernel,
// if one does. It does not check that they are mature.
func (e *Engine) Winner(past consensus.Past, slot int64, stakes []Stake) (Stake, chainhash.Hash, bool) {
	modifier := Modifier(e.p, past)
	bits := e.NextBits(past, time.Unix(SlotTime(e.p, slot), 0))
	for i := range stakes {
		if k := Kernel(modifier, &stakes[i], slot); Wins(k, bits, stakes[i].Value) {
			return stakes[i], k, true
		}
	}
	return Stake{}, chainhash.Hash{}, false
}
