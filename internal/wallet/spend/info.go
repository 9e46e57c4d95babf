package spend

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// An Info is what a PSBT says of an output, spent or made, besides its value and
// script.
type Info struct {
	Output *descriptor.Output // nil: nothing is known
	// PrevTx made the output, if it is spent. It is needed of outputs without a
	// witness, and wanted of those of segwit's version 0: what they are worth is
	// proven by nothing else.
	PrevTx *wire.MsgTx
}

// Means are what there is to spend coins with.
type Means struct {
	// Has says whether somebody will sign with a key; nil: of every key.
	Has func(keys.Ref) bool
	// Preimage returns what has a hash; nil: nothing is known.
	Preimage func(kind descriptor.HashKind, hash []byte) ([]byte, bool)
	// Height is the tip's, MedianTime its median time past (BIP113).
	Height     int32
	MedianTime int64
	// Since is the median time past of the block before a coin's, from which
	// relative locks by time count (BIP68); nil or 0: not known, they do not open.
	Since func(*Coin) int64
}

// emptyWitnessInput is what an input weighs beside what descriptor counts.
const emptyWitnessInput = emptyInputWeight - witnessScale

// Describe fills in what spending an output of a descriptor takes: Script,
// InputWeight, SigOpCost, Witness, the locks and what they mean now, and Info. The
// other fields are the caller's. Of several ways to spend it, one that needs no lock
// is preferred, then the lightest.
func (c *Coin) Describe(o *descriptor.Output, m *Means, prevTx *wire.MsgTx) {
	c.Script, c.Info = o.PkScript, &Info{Output: o, PrevTx: prevTx}
	c.Witness = o.SigVersion != descriptor.Legacy
	c.InputWeight = emptyWitnessInput + int64(o.MaxWeight)
	c.SigOpCost = inputSigOps(o)
	c.Older, c.After, c.OpenAt, c.Closed, c.Unspendable = 0, 0, 0, false, nil

	trial := &trial{means: m, free: true}
	if _, _, err := o.Satisfy(trial); err != nil {
		c.Unspendable = err
		return
	}
	trial.free = false
	olders, afters := o.Locks()
	found := false
	for _, older := range orNone(olders) {
		for _, after := range orNone(afters) {
			trial.older, trial.after = older, after
			witness, script, err := o.Satisfy(trial)
			if err != nil {
				continue
			}
			opens, open := c.opens(m, older, after)
			switch {
			case open && (!found || c.Closed):
			case !open && !found:
			case !open && c.Closed && opens > 0 && (c.OpenAt == 0 || opens < c.OpenAt):
			default:
				continue
			}
			found = true
			c.Older, c.After, c.Closed, c.OpenAt = older, after, !open, opens
			c.InputWeight = emptyWitnessInput + int64(descriptor.Weight(witness, script))
			if open {
				return
			}
		}
	}
	if !found {
		c.Unspendable = errors.New("its locks cannot be met by one transaction")
	}
}

// opens says whether locks hold in the next block, and else at which height they
// will; 0: not known.
func (c *Coin) opens(m *Means, older, after uint32) (height int32, open bool) {
	next := m.Height + 1
	first, known := next, true
	if older > 0 {
		n := int64(older & wire.SequenceLockTimeMask)
		switch {
		case older&wire.SequenceLockTimeIsSeconds != 0:
			since := int64(0)
			if m.Since != nil {
				since = m.Since(c)
			}
			if since <= 0 || since+n<<wire.SequenceLockTimeGranularity > m.MedianTime {
				return 0, false
			}
		case c.Height <= 0 && !c.Genesis:
			known = false
		default:
			first = max(first, int32(min(int64(c.Height)+n, int64(1)<<31-1)))
		}
	}
	if after >= lockTimeThreshold {
		if int64(after) >= m.MedianTime {
			return 0, false
		}
	} else if after > 0 {
		first = max(first, int32(after)+1)
	}
	switch {
	case !known:
		return 0, false
	case first > next:
		return first, false
	}
	return 0, true
}

// inputSigOps is what spending an output adds to the cost of signature operations.
func inputSigOps(o *descriptor.Output) int {
	switch {
	case o.WitnessScript != nil:
		return preciseSigOps(o.WitnessScript)
	case o.SigVersion == descriptor.WitnessV0:
		return 1
	case o.RedeemScript != nil:
		return witnessScale * preciseSigOps(o.RedeemScript)
	}
	return 0
}

func preciseSigOps(script []byte) int { return txscript.GetPreciseSigOpCount(nil, script, true) }

// A trial satisfies outputs with signatures as long as they can be, to see what
// spending takes.
type trial struct {
	means        *Means
	free         bool   // every lock holds
	older, after uint32 // that the transaction has
}

// ecdsaBytes is the longest signature in DER of low S, with its type.
const ecdsaBytes = 72

// Signature is descriptor.Satisfier.
func (t *trial) Signature(k keys.Ref, _ *[32]byte) ([]byte, bool) {
	if t.means.Has != nil && !t.means.Has(k) {
		return nil, false
	}
	if len(k.PubKey) == schnorr.PubKeyBytesLen {
		return make([]byte, schnorr.SignatureSize), true
	}
	return make([]byte, ecdsaBytes), true
}

// Preimage is descriptor.Satisfier.
func (t *trial) Preimage(kind descriptor.HashKind, hash []byte) ([]byte, bool) {
	if t.means.Preimage == nil {
		return nil, false
	}
	return t.means.Preimage(kind, hash)
}

// Older is descriptor.Satisfier.
func (t *trial) Older(n uint32) bool {
	return t.free || t.older > 0 && descriptor.OlderHolds(n, t.older, 2)
}

// After is descriptor.Satisfier.
func (t *trial) After(n uint32) bool {
	return t.free || t.after > 0 && descriptor.AfterHolds(n, t.after, sequenceReplaceable)
}

// maxLocks is how many different locks of each kind are tried.
const maxLocks = 16

// orNone are no lock and others, the shortest first.
func orNone(locks []uint32) []uint32 {
	return append([]uint32{0}, locks[:min(len(locks), maxLocks)]...)
}

// ChangeTo is change to an output of a descriptor.
func ChangeTo(o *descriptor.Output) Change {
	return Change{Script: o.PkScript, InputWeight: emptyWitnessInput + int64(o.MaxWeight), Info: &Info{Output: o}}
}

// Packet makes a PSBT of the plan. It fails if the previous transaction of a coin
// without a witness is not known.
func (p *Plan) Packet() (*Packet, error) {
	out := NewPacket(p.Tx)
	for i := range p.Coins {
		c, in := &p.Coins[i], &out.Inputs[i]
		if c.Info != nil && c.Info.PrevTx != nil && !txscript.IsPayToTaproot(c.Script) {
			in.PrevTx = c.Info.PrevTx
		}
		if c.Witness {
			in.PrevOut = wire.NewTxOut(c.Value, c.Script)
		} else if in.PrevTx == nil {
			return nil, fmt.Errorf("coin %s: %w", c.OutPoint, ErrNoPrevTx)
		}
		spent, err := out.spent(i)
		if err != nil {
			return nil, fmt.Errorf("coin %s: %w", c.OutPoint, err)
		}
		if spent.Value != c.Value || !bytes.Equal(spent.PkScript, c.Script) {
			return nil, fmt.Errorf("coin %s: its transaction has another output there", c.OutPoint)
		}
		if c.Info != nil {
			in.describe(c.Info.Output)
		}
	}
	for i, info := range p.Outputs {
		if info != nil {
			out.Outputs[i].describe(info.Output)
		}
	}
	return out, nil
}

// Update adds what the caller knows: describe returns the output of a descriptor
// with a script, utxo what an outpoint is and, if it is known, its whole transaction.
// Both may return nil, and utxo may be nil. What the packet says already stays.
func (p *Packet) Update(describe func(pkScript []byte) *descriptor.Output, utxo func(wire.OutPoint) (*wire.TxOut, *wire.MsgTx)) error {
	for i := range p.Inputs {
		in := &p.Inputs[i]
		if in.Final() {
			continue
		}
		if utxo != nil && in.PrevTx == nil {
			out, tx := utxo(p.Tx.TxIn[i].PreviousOutPoint)
			if out != nil && !txscript.IsPayToTaproot(out.PkScript) {
				in.PrevTx = tx
			}
			// Whether one of P2SH has a witness is known only with its redeem script.
			if out != nil && in.PrevOut == nil && (txscript.IsWitnessProgram(out.PkScript) || tx == nil) {
				in.PrevOut = out
			}
		}
		out, err := p.spent(i)
		if errors.Is(err, ErrNoUTXO) {
			continue
		} else if err != nil {
			return fmt.Errorf("input %d: %w: %w", i, ErrForged, err)
		}
		if o := describe(out.PkScript); o != nil {
			in.describe(o)
			if o.SigVersion == descriptor.WitnessV0 && in.PrevOut == nil {
				in.PrevOut = out
			}
		}
	}
	for i := range p.Outputs {
		if o := describe(p.Tx.TxOut[i].PkScript); o != nil {
			p.Outputs[i].describe(o)
		}
	}
	return nil
}

// describe adds what a descriptor says of the output that is spent.
func (in *Input) describe(o *descriptor.Output) {
	if o == nil {
		return
	}
	orElse(&in.RedeemScript, o.RedeemScript)
	orElse(&in.WitnessScript, o.WitnessScript)
	if o.Taproot == nil {
		in.Keys = union(in.Keys, o.Keys, refKey)
		return
	}
	t := o.Taproot
	if t.Tweak() != nil {
		orElse(&in.TapInternalKey, t.InternalKey[:])
	}
	orElse(&in.TapRoot, t.Root)
	in.TapKeys = union(in.TapKeys, tapKeys(o), tapKeyKey)
	for _, l := range t.Leaves {
		in.TapLeaves = union(in.TapLeaves, []TapLeaf{{l.ControlBlock, l.Script, byte(txscript.BaseLeafVersion)}}, tapLeafKey)
	}
}

// describe adds what a descriptor says of the output that is made.
func (out *Output) describe(o *descriptor.Output) {
	if o == nil {
		return
	}
	orElse(&out.RedeemScript, o.RedeemScript)
	orElse(&out.WitnessScript, o.WitnessScript)
	if o.Taproot == nil {
		out.Keys = union(out.Keys, o.Keys, refKey)
		return
	}
	if o.Taproot.Tweak() != nil {
		orElse(&out.TapInternalKey, o.Taproot.InternalKey[:])
	}
	out.TapKeys = union(out.TapKeys, tapKeys(o), tapKeyKey)
	var tree []byte
	for _, l := range o.Taproot.Leaves {
		tree = append(tree, byte(l.Depth), byte(txscript.BaseLeafVersion))
		tree = appendBytes(tree, l.Script)
	}
	orElse(&out.TapTree, tree)
}

// tapKeys are the keys of a taproot output with the leaves that name them.
func tapKeys(o *descriptor.Output) []TapKey {
	var out []TapKey
	for _, k := range o.Keys {
		t := TapKey{Key: [32]byte(k.PubKey), Origin: k.Origin}
		for _, l := range o.Taproot.Leaves {
			if slices.ContainsFunc(l.Keys, func(r keys.Ref) bool { return bytes.Equal(r.PubKey, k.PubKey) }) {
				t.Leaves = append(t.Leaves, l.Hash)
			}
		}
		out = append(out, t)
	}
	return out
}

// Coins are what the inputs spend, as script checks want them; their heights are not
// known.
func (p *Packet) Coins() ([]consensus.Coin, error) { return p.coins() }
