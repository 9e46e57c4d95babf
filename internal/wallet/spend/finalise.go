package spend

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

// ErrIncomplete says that signatures, or something else, are missing.
var ErrIncomplete = errors.New("not complete yet")

// Complete says whether all inputs are final.
func (p *Packet) Complete() bool {
	for i := range p.Inputs {
		if !p.Inputs[i].Final() {
			return false
		}
	}
	return len(p.Inputs) > 0
}

// Finalise makes final scripts and witnesses of the signatures, of all inputs that
// have enough of them; each is run before it is kept. describe returns the output of
// a descriptor with a script, or nil: then only common forms are known (keys,
// hashes of keys, multisig; taproot by its key or by scripts of signatures). nil: as if
// nothing was described. The error says, for every input that is not final, what is
// missing; it wraps ErrIncomplete where something is.
func (p *Packet) Finalise(describe func(pkScript []byte) *descriptor.Output) error {
	tx := p.soFar()
	faults := make([]error, len(p.Inputs))
	var tried []int
	for i := range p.Inputs {
		if p.Inputs[i].Final() {
			continue
		}
		in := tx.TxIn[i]
		if in.Witness, in.SignatureScript, faults[i] = p.satisfy(i, describe); faults[i] == nil {
			tried = append(tried, i)
		}
	}
	if len(tried) > 0 {
		// What other inputs spend need not be known, unless it is signed for.
		coins := make([]consensus.Coin, len(p.Inputs))
		for i := range coins {
			if out, err := p.spent(i); err == nil {
				coins[i] = consensus.Coin{Value: out.Value, Script: out.PkScript}
			}
		}
		scripts, err := consensus.NewTxScripts(tx, coins, standardFlags)
		if err != nil {
			return err
		}
		for _, i := range tried {
			if faults[i] = scripts.Check(i, i+1); faults[i] == nil {
				in := &p.Inputs[i]
				in.FinalScript, in.FinalWitness = tx.TxIn[i].SignatureScript, tx.TxIn[i].Witness
				in.dropSigning()
			}
		}
	}
	for i := range faults {
		if faults[i] != nil {
			faults[i] = fmt.Errorf("input %d: %w", i, faults[i])
		}
	}
	return errors.Join(faults...)
}

// soFar is the transaction with what is final.
func (p *Packet) soFar() *wire.MsgTx {
	tx := p.Tx.Copy()
	for i := range p.Inputs {
		tx.TxIn[i].SignatureScript, tx.TxIn[i].Witness = p.Inputs[i].FinalScript, p.Inputs[i].FinalWitness
	}
	return tx
}

// satisfy makes the final fields of input i.
func (p *Packet) satisfy(i int, describe func([]byte) *descriptor.Output) (wire.TxWitness, []byte, error) {
	in := &p.Inputs[i]
	out, err := p.spent(i)
	if err != nil {
		return nil, nil, err
	}
	if err := in.checkTypes(); err != nil {
		return nil, nil, err
	}
	if describe == nil {
		return in.satisfy(out)
	}
	o := describe(out.PkScript)
	if o == nil {
		return in.satisfy(out)
	}
	witness, script, err := o.Satisfy(&satisfier{in: in, tx: p.Tx, index: i, out: out})
	if errors.Is(err, descriptor.ErrUnsatisfied) {
		err = fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return witness, script, err
}

// checkTypes wants all signatures to be of the type that the input names.
func (in *Input) checkTypes() error {
	if in.SigHash == nil {
		return nil
	}
	want := *in.SigHash
	for _, s := range in.Sigs {
		if got := s.Sig[len(s.Sig)-1]; uint32(got) != want {
			return fmt.Errorf("signature by %x of type %#x, not %#x", s.PubKey, got, want)
		}
	}
	taproot := [][]byte{in.TapKeySig}
	for _, s := range in.TapSigs {
		taproot = append(taproot, s.Sig)
	}
	for _, sig := range taproot {
		if sig == nil {
			continue
		}
		got := uint32(txscript.SigHashDefault)
		if len(sig) > 64 {
			got = uint32(sig[64])
		}
		if got != want {
			return fmt.Errorf("a signature of type %#x, not %#x", got, want)
		}
	}
	return nil
}

// A satisfier shows a descriptor what an input has.
type satisfier struct {
	in    *Input
	tx    *wire.MsgTx
	index int
	out   *wire.TxOut
}

// Signature is descriptor.Satisfier.
func (s *satisfier) Signature(k keys.Ref, leaf *[32]byte) ([]byte, bool) {
	var sig []byte
	switch {
	case leaf != nil:
		sig = s.in.tapSigOf([32]byte(k.PubKey), *leaf)
	case txscript.IsPayToTaproot(s.out.PkScript):
		sig = s.in.TapKeySig
	default:
		sig = s.in.sigOf(k.PubKey)
	}
	return sig, sig != nil
}

// Preimage is descriptor.Satisfier.
func (s *satisfier) Preimage(kind descriptor.HashKind, hash []byte) ([]byte, bool) {
	kinds := map[descriptor.HashKind]PreimageKind{
		descriptor.SHA256: Sha256, descriptor.HASH256: Hash256, descriptor.RIPEMD160: Ripemd160, descriptor.HASH160: Hash160,
	}
	for _, h := range s.in.Preimages {
		if h.Kind == kinds[kind] && bytes.Equal(h.Hash, hash) {
			return h.Value, true
		}
	}
	return nil, false
}

// Older is descriptor.Satisfier.
func (s *satisfier) Older(n uint32) bool {
	return descriptor.OlderHolds(n, s.tx.TxIn[s.index].Sequence, s.tx.Version)
}

// After is descriptor.Satisfier.
func (s *satisfier) After(n uint32) bool {
	return descriptor.AfterHolds(n, s.tx.LockTime, s.tx.TxIn[s.index].Sequence)
}

// satisfy makes the final fields of common forms without a descriptor.
func (in *Input) satisfy(out *wire.TxOut) (witness wire.TxWitness, script []byte, err error) {
	lock, err := in.lock(out)
	if err != nil {
		return nil, nil, err
	}
	if lock.form == formTaproot {
		witness, err := in.satisfyTaproot(out)
		return witness, nil, err
	}
	items, err := in.stack(&lock)
	if err != nil {
		return nil, nil, err
	}
	if in.WitnessScript != nil && lock.form == formWitness {
		items = append(items, in.WitnessScript)
	}
	b := txscript.NewScriptBuilder()
	nested := txscript.IsPayToScriptHash(out.PkScript)
	if lock.form == formWitness {
		if nested {
			script, err = b.AddData(in.RedeemScript).Script()
		}
		return items, script, err
	}
	for _, item := range items {
		b.AddData(item)
	}
	if nested {
		b.AddFullData(in.RedeemScript)
	}
	script, err = b.Script()
	return nil, script, err
}

// stack is what a script of keys wants on the stack.
func (in *Input) stack(lock *lockScript) (wire.TxWitness, error) {
	if lock.keyHash != nil {
		for _, s := range in.Sigs {
			if bytes.Equal(address.Hash160(s.PubKey), lock.keyHash) {
				return wire.TxWitness{s.Sig, s.PubKey}, nil
			}
		}
		return nil, fmt.Errorf("%w: the signature of one key", ErrIncomplete)
	}
	var pubs [][]byte
	need := 1
	switch txscript.GetScriptClass(lock.code) {
	case txscript.PubKeyHashTy: // in P2SH or P2WSH
		l := *lock
		l.keyHash = lock.code[3:23]
		return in.stack(&l)
	case txscript.PubKeyTy:
		_, pubs = pushes(lock.code)
	case txscript.MultiSigTy:
		_, required, err := txscript.CalcMultiSigStats(lock.code)
		if err != nil {
			return nil, err
		}
		need = required
		for t := txscript.MakeScriptTokenizer(0, lock.code); t.Next(); {
			if t.Data() != nil { // a key may be there twice
				pubs = append(pubs, t.Data())
			}
		}
	default:
		return nil, errUnknownScript
	}
	var sigs wire.TxWitness
	for _, pub := range pubs {
		if sig := in.sigOf(pub); sig != nil && len(sigs) < need {
			sigs = append(sigs, sig)
		}
	}
	if len(sigs) < need {
		return nil, fmt.Errorf("%w: %d of %d signatures", ErrIncomplete, len(sigs), need)
	}
	if txscript.GetScriptClass(lock.code) == txscript.MultiSigTy {
		sigs = append(wire.TxWitness{nil}, sigs...) // what CHECKMULTISIG takes too much
	}
	return sigs, nil
}

// satisfyTaproot takes the signature for the output key, or of a leaf that wants
// nothing but signatures: <key> CHECKSIG, followed by <key> CHECKSIGVERIFY or <key>
// CHECKSIGADD as in multi_a.
func (in *Input) satisfyTaproot(out *wire.TxOut) (wire.TxWitness, error) {
	if in.TapKeySig != nil {
		return wire.TxWitness{in.TapKeySig}, nil
	}
	leaves, err := in.tapLeaves(out)
	if err != nil {
		return nil, err
	}
	signed := in.tapSigs()
	for _, leaf := range leaves {
		stack, ok := leafStack(&leaf, signed)
		if !ok {
			continue
		}
		for _, l := range in.TapLeaves {
			if bytes.Equal(l.Script, leaf.Script) {
				return append(stack, l.Script, l.ControlBlock), nil
			}
		}
	}
	return nil, fmt.Errorf("%w: no signature for the key, nor all of a script", ErrIncomplete)
}

// leafStack is what a leaf of signatures wants on the stack.
func leafStack(leaf *txscript.TapLeaf, signed map[[2][32]byte][]byte) (stack wire.TxWitness, ok bool) {
	var (
		hash = [32]byte(leaf.TapHash())
		sigs wire.TxWitness // in the order of the script
		key  []byte
		adds = false // multi_a: absent signatures are empty
		need = -1
		n    = 0
	)
	t := txscript.MakeScriptTokenizer(0, leaf.Script)
	for t.Next() {
		switch op := t.Opcode(); {
		case len(t.Data()) == 32:
			key = t.Data()
		case (op == txscript.OP_CHECKSIG || op == txscript.OP_CHECKSIGVERIFY || op == txscript.OP_CHECKSIGADD) && key != nil:
			adds = adds || op == txscript.OP_CHECKSIGADD
			sigs = append(sigs, signed[[2][32]byte{[32]byte(key), hash}])
			key = nil
		case adds && (op >= txscript.OP_1 && op <= txscript.OP_16 || len(t.Data()) == 1 || len(t.Data()) == 2):
			v := int(op) - (txscript.OP_1 - 1)
			if d := t.Data(); len(d) > 0 {
				v = int(d[0])
				if len(d) == 2 {
					v |= int(d[1]) << 8
				}
			}
			need = v
		case adds && op == txscript.OP_NUMEQUAL && need > 0:
		default:
			return nil, false
		}
	}
	if t.Err() != nil || key != nil || len(sigs) == 0 {
		return nil, false
	}
	if need < 0 {
		need = len(sigs)
	}
	for _, sig := range slices.Backward(sigs) { // the first key's on top
		if sig != nil {
			n++
		}
		stack = append(stack, sig)
	}
	for i := range stack { // exactly as many as wanted
		if n > need && stack[i] != nil {
			stack[i] = nil
			n--
		}
	}
	return stack, n == need
}

// Extract returns the signed transaction. All inputs must be final, what they spend
// known, and every script passes under the rules of relay; a fee below 0 is refused.
func (p *Packet) Extract() (*wire.MsgTx, error) {
	for i := range p.Inputs {
		if !p.Inputs[i].Final() {
			return nil, fmt.Errorf("input %d: %w", i, ErrIncomplete)
		}
	}
	if len(p.Inputs) == 0 || len(p.Outputs) == 0 {
		return nil, fmt.Errorf("%w: a transaction has inputs and outputs", ErrIncomplete)
	}
	fee, err := p.Fee()
	if err != nil {
		return nil, err
	}
	if fee < 0 {
		return nil, fmt.Errorf("outputs are worth %d satoshi more than inputs", -fee)
	}
	coins, err := p.coins()
	if err != nil {
		return nil, err
	}
	tx := p.soFar()
	if err := CheckScripts(tx, coins); err != nil {
		return nil, err
	}
	return tx, nil
}
