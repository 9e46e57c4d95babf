package spend

import (
	"errors"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// A Role is who has to act next on a packet or an input (BIP174).
type Role string

// The roles, in the order in which they act.
const (
	RoleUpdater   Role = "updater"   // what is spent, or its script, is not known
	RoleSigner    Role = "signer"    // signatures are missing
	RoleFinaliser Role = "finaliser" // there are enough
	RoleExtractor Role = "extractor" // it is final
)

// An Analysis says how far a packet is.
type Analysis struct {
	Inputs []InputAnalysis
	Next   Role
	// Fee is -1 if it is not known. Unproven counts inputs of segwit's version 0
	// whose value only the packet states.
	Fee      int64
	Unproven int
	// Weight is an estimate of what fee rates go by once it is signed, and Rate what it
	// pays then; 0 if they are not known.
	Weight int64
	Rate   Rate
}

// An InputAnalysis says how far an input is.
type InputAnalysis struct {
	Next Role
	// Known says whether it is known what it spends, of Value.
	Known bool
	Value int64
	// Missing are keys that have not signed and may have to.
	Missing []keys.Ref
	// Why says what else is in the way; nil: nothing.
	Why error
}

// Analyse says what a packet lacks, who must act next, and what it will cost.
// describe is as of [Packet.Finalise].
func (p *Packet) Analyse(describe func(pkScript []byte) *descriptor.Output) *Analysis {
	a := &Analysis{Fee: -1, Next: RoleExtractor, Inputs: make([]InputAnalysis, len(p.Inputs))}
	if fee, err := p.Fee(); err == nil && len(p.Inputs) > 0 {
		a.Fee = fee
	}
	known, witness := true, false
	weight := int64(witnessScale * len(appendBareTx(nil, p.Tx)))
	sigOps := 0
	for _, out := range p.Tx.TxOut {
		sigOps += outputSigOps(out.PkScript)
	}
	for i := range p.Inputs {
		ia := &a.Inputs[i]
		in := &p.Inputs[i]
		w := p.analyse(i, ia, describe)
		known = known && w.ok
		witness = witness || w.witness
		weight += w.weight
		sigOps += w.sigOps
		if roleOrder(ia.Next) < roleOrder(a.Next) {
			a.Next = ia.Next
		}
		if out, err := p.spent(i); err == nil && in.PrevTx == nil && !txscript.IsPayToTaproot(out.PkScript) {
			a.Unproven++
		}
	}
	if !known || len(p.Inputs) == 0 {
		return a
	}
	if witness {
		weight += markerWeight + int64(len(p.Inputs)) // at most: the counts of no items
	}
	a.Weight = feeWeight(weight, sigOps)
	if a.Fee >= 0 {
		a.Rate = rateOf(a.Fee, a.Weight)
	}
	return a
}

func roleOrder(r Role) int {
	switch r {
	case RoleUpdater:
		return 0
	case RoleSigner:
		return 1
	case RoleFinaliser:
		return 2
	}
	return 3
}

// An added is what an input adds to an empty one once it is signed.
type added struct {
	weight  int64
	sigOps  int
	witness bool
	ok      bool // it is known
}

func (p *Packet) analyse(i int, ia *InputAnalysis, describe func([]byte) *descriptor.Output) added {
	in := &p.Inputs[i]
	out, err := p.spent(i)
	if ia.Known = err == nil; ia.Known {
		ia.Value = out.Value
	}
	if in.Final() {
		ia.Next = RoleExtractor
		w := added{weight: int64(descriptor.Weight(in.FinalWitness, in.FinalScript)) - witnessScale, witness: len(in.FinalWitness) > 0, ok: true}
		if w.witness {
			w.weight-- // the count is added for all
		}
		return w
	}
	if !ia.Known {
		ia.Next, ia.Why = RoleUpdater, err
		return added{}
	}
	lock, err := in.lock(out)
	if err != nil {
		ia.Next, ia.Why = RoleUpdater, err
		return added{}
	}
	var o *descriptor.Output
	if describe != nil {
		o = describe(out.PkScript)
	}
	ia.Missing = in.missing(&lock)
	_, _, err = p.satisfy(i, describe)
	switch {
	case err == nil:
		ia.Next, ia.Missing = RoleFinaliser, nil
	case errors.Is(err, ErrIncomplete):
		ia.Next, ia.Why = RoleSigner, err
	default:
		ia.Next, ia.Why = RoleUpdater, err
	}
	if o != nil {
		w := added{weight: int64(o.MaxWeight) - witnessScale, sigOps: inputSigOps(o), witness: o.SigVersion != descriptor.Legacy, ok: o.MaxWeight > 0}
		if w.witness {
			w.weight--
		}
		return w
	}
	return in.guess(&lock, txscript.IsPayToScriptHash(out.PkScript))
}

// missing are keys that the script names and that have not signed.
func (in *Input) missing(lock *lockScript) (refs []keys.Ref) {
	if lock.form != formTaproot {
		for _, k := range in.candidates(lock) {
			if in.sigOf(k.PubKey) == nil {
				refs = append(refs, k)
			}
		}
		return refs
	}
	made := in.tapSigs()
	for _, k := range in.TapKeys {
		signed := in.TapKeySig != nil && len(k.Leaves) == 0
		for _, leaf := range k.Leaves {
			signed = signed || made[[2][32]byte{k.Key, leaf}] != nil
		}
		if !signed {
			refs = append(refs, keys.Ref{Origin: k.Origin, PubKey: k.Key[:]})
		}
	}
	return refs
}

// guess estimates what signatures of common forms weigh.
func (in *Input) guess(lock *lockScript, nested bool) added {
	if lock.form == formTaproot {
		// Of several ways it is not known which one will be gone.
		return added{weight: 1 + schnorr.SignatureSize, witness: true, ok: len(in.TapLeaves) == 0}
	}
	const sigBytes = 1 + ecdsaBytes
	var items int64 // bytes with lengths
	script := lock.code
	switch class := txscript.GetScriptClass(script); {
	case lock.keyHash != nil, class == txscript.PubKeyHashTy:
		items = sigBytes + 1 + 33
	case class == txscript.PubKeyTy:
		items = sigBytes
	case class == txscript.MultiSigTy:
		_, need, err := txscript.CalcMultiSigStats(script)
		if err != nil {
			return added{}
		}
		items = 1 + int64(need)*sigBytes
	default:
		return added{}
	}
	behind := func(b []byte) int64 { return int64(len(appendBytes(nil, b))) }
	w := added{ok: true, witness: lock.form == formWitness}
	switch {
	case w.witness && in.WitnessScript != nil:
		w.weight, w.sigOps = items+behind(script), preciseSigOps(script)
	case w.witness:
		w.weight, w.sigOps = items, 1
	case nested:
		w.weight, w.sigOps = witnessScale*(items+behind(script)+1), witnessScale*preciseSigOps(script)
	default:
		w.weight = witnessScale * items
	}
	if w.witness && nested {
		w.weight += witnessScale * behind(in.RedeemScript)
	}
	return w
}
