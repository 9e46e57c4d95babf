package spend

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// A Signer has private keys. Its signatures are low in S (BIP62) and their nonces
// made of key and hash.
type Signer interface {
	// Has says whether it has the key.
	Has(k keys.Ref) bool
	// SignECDSA returns a signature in DER, without the byte of its type.
	SignECDSA(k keys.Ref, hash [32]byte) ([]byte, error)
	// SignSchnorr returns a BIP340 signature by the key, tweaked as BIP341 says
	// unless tweak is nil.
	SignSchnorr(k keys.Ref, hash [32]byte, tweak *keys.TapTweak) ([64]byte, error)
}

// SignOptions are what a signer is willing to do.
type SignOptions struct {
	// SigHashes are types of signatures that are made besides ALL and DEFAULT, which
	// commit to everything: with others, somebody else may change the transaction.
	SigHashes []uint32
	// Known returns what the wallet knows of an output, nil if nothing: a packet that
	// says something else is refused.
	Known func(wire.OutPoint) *wire.TxOut
}

// Errors of signing. They are wrapped with the number of the input.
var (
	// ErrSigHash says that the packet wants signatures of a type that the signer was
	// not told to make.
	ErrSigHash = errors.New("signatures of this type let others change the transaction: they must be allowed")
	// ErrNoPrevTx says that only a whole previous transaction proves the value.
	ErrNoPrevTx = errors.New("the transaction that it spends from is needed to sign it")
	// ErrForged says that a packet contradicts itself or what the wallet knows.
	ErrForged = errors.New("the packet does not tell the truth")
)

// sigHashMask leaves the part of a type that says to which outputs it commits.
const sigHashMask = 0x1f

// Sign adds all signatures that the signer can make and returns how many these are:
// 0, if it has no key or has signed before, is no error. An input that it cannot
// look through is left alone; one that is deceitful fails the whole, and nothing is
// signed. Every signature is verified before it is added.
func (p *Packet) Sign(s Signer, o SignOptions) (added int, err error) {
	w, err := newWork(p)
	if err != nil {
		return 0, err
	}
	var made []func() // adds a signature
	for i := range p.Inputs {
		if p.Inputs[i].Final() {
			continue
		}
		more, err := w.sign(i, s, &o)
		if err != nil {
			return 0, fmt.Errorf("input %d: %w", i, err)
		}
		made = append(made, more...)
	}
	for _, add := range made {
		add()
	}
	return len(made), nil
}

// A work is a packet with what signatures of all inputs have in common.
type work struct {
	*Packet
	outs   []*wire.TxOut // that are spent; nil: not known
	all    bool          // all are known
	fetch  *txscript.MultiPrevOutFetcher
	hashes *txscript.TxSigHashes
}

func newWork(p *Packet) (*work, error) {
	w := &work{Packet: p, outs: make([]*wire.TxOut, len(p.Inputs)), all: true, fetch: txscript.NewMultiPrevOutFetcher(nil)}
	for i := range p.Inputs {
		out, err := p.spent(i)
		if err != nil && !errors.Is(err, ErrNoUTXO) {
			return nil, fmt.Errorf("input %d: %w: %w", i, ErrForged, err)
		}
		if w.outs[i] = out; out == nil {
			w.all = false
			out = new(wire.TxOut) // what does not commit to it can be signed
		}
		w.fetch.AddPrevOut(p.Tx.TxIn[i].PreviousOutPoint, out)
	}
	w.hashes = txscript.NewTxSigHashes(p.Tx, w.fetch)
	return w, nil
}

func (w *work) sign(i int, s Signer, o *SignOptions) ([]func(), error) {
	in, out := &w.Inputs[i], w.outs[i]
	if out == nil {
		return nil, nil
	}
	if o.Known != nil {
		if known := o.Known(w.Tx.TxIn[i].PreviousOutPoint); known != nil && (known.Value != out.Value || !bytes.Equal(known.PkScript, out.PkScript)) {
			return nil, fmt.Errorf("%w: it spends %d satoshi, not %d", ErrForged, known.Value, out.Value)
		}
	}
	lock, err := in.lock(out)
	switch {
	case errors.Is(err, errWrongRedeem), errors.Is(err, errWrongWitness):
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	case err != nil:
		return nil, nil //nolint:nilerr // others may know how
	case lock.form == formTaproot:
		return w.signTaproot(i, s, o)
	}
	refs := slices.DeleteFunc(in.candidates(&lock), func(k keys.Ref) bool { return !s.Has(k) || in.sigOf(k.PubKey) != nil })
	if len(refs) == 0 {
		return nil, nil
	}
	if lock.form == formLegacy && in.PrevTx == nil {
		return nil, ErrNoPrevTx
	}
	kind, err := w.sigHash(i, o, txscript.SigHashAll)
	if err != nil {
		return nil, err
	}
	hash, err := w.hash(i, &lock, kind)
	if err != nil {
		return nil, err
	}
	var made []func()
	for _, k := range refs {
		der, err := s.SignECDSA(k, hash)
		if err != nil {
			return nil, err
		}
		if !verifyECDSA(k.PubKey, der, hash) {
			return nil, fmt.Errorf("key %s made a signature that is not valid", k.Origin)
		}
		sig := Sig{PubKey: k.PubKey, Sig: append(der, byte(kind))}
		made = append(made, func() { in.Sigs = append(in.Sigs, sig) })
	}
	return made, nil
}

// hash is what ECDSA signatures of input i sign.
func (w *work) hash(i int, lock *lockScript, kind txscript.SigHashType) (hash [32]byte, err error) {
	var b []byte
	if lock.form == formWitness {
		b, err = txscript.CalcWitnessSigHash(lock.code, w.hashes, kind, w.Tx, i, w.outs[i].Value)
	} else {
		b, err = txscript.CalcSignatureHash(lock.code, kind, w.Tx, i)
	}
	if err != nil {
		return hash, err
	}
	return [32]byte(b), nil
}

// sigHash is the type of signatures of input i, if it may be made.
func (w *work) sigHash(i int, o *SignOptions, usual txscript.SigHashType) (txscript.SigHashType, error) {
	in := &w.Inputs[i]
	if in.SigHash == nil {
		return usual, nil
	}
	kind := *in.SigHash
	taproot := usual == txscript.SigHashDefault
	what := txscript.SigHashType(kind & sigHashMask)
	switch {
	case kind > 0xff, kind&^uint32(sigHashMask|txscript.SigHashAnyOneCanPay) != 0, what > txscript.SigHashSingle,
		what == txscript.SigHashDefault && (!taproot || kind != 0):
		return 0, fmt.Errorf("type of signatures %#x is not one", kind)
	case what == txscript.SigHashSingle && i >= len(w.Tx.TxOut):
		// Such a signature would be good for everything that the key ever has.
		return 0, errors.New("type of signatures SINGLE for an input without its output")
	case kind == uint32(txscript.SigHashAll), kind == uint32(txscript.SigHashDefault), slices.Contains(o.SigHashes, kind):
		return txscript.SigHashType(kind), nil
	}
	return 0, fmt.Errorf("type %#x: %w", kind, ErrSigHash)
}

// candidates are the keys that an input's script names: those that the packet tells
// the origin of, and the others as keys of their own.
func (in *Input) candidates(lock *lockScript) (refs []keys.Ref) {
	named, order := lock.named()
	seen := make(map[string]struct{})
	add := func(k keys.Ref) {
		if lock.form == formWitness && len(k.PubKey) != btcec.PubKeyBytesLenCompressed {
			return // not relayed
		}
		_, whole := named[string(k.PubKey)]
		_, hashed := named[string(address.Hash160(k.PubKey))]
		if _, twice := seen[string(k.PubKey)]; !twice && (whole || hashed) {
			seen[string(k.PubKey)] = struct{}{}
			refs = append(refs, k)
		}
	}
	for _, k := range in.Keys {
		add(k)
	}
	for _, data := range order {
		if checkPubKey(data) == nil {
			add(lone(data))
		}
	}
	return refs
}

// lone is a key that is from nowhere else.
func lone(pub []byte) keys.Ref { return keys.Ref{Origin: keys.OriginOf(pub), PubKey: pub} }

// named returns what a script pushes: keys and hashes of keys are among it.
func (l *lockScript) named() (set map[string]struct{}, order [][]byte) {
	set = make(map[string]struct{})
	if l.keyHash != nil {
		set[string(l.keyHash)] = struct{}{}
		return set, nil
	}
	return pushes(l.code)
}

// pushes returns what a script pushes, once each.
func pushes(script []byte) (set map[string]struct{}, order [][]byte) {
	set = make(map[string]struct{})
	for t := txscript.MakeScriptTokenizer(0, script); t.Next(); {
		data := t.Data()
		if _, twice := set[string(data)]; len(data) > 0 && !twice {
			set[string(data)] = struct{}{}
			order = append(order, data)
		}
	}
	return set, order
}

func (in *Input) sigOf(pub []byte) []byte {
	for _, s := range in.Sigs {
		if bytes.Equal(s.PubKey, pub) {
			return s.Sig
		}
	}
	return nil
}

// tapSigs are the signatures for leaves, by key and leaf.
func (in *Input) tapSigs() map[[2][32]byte][]byte {
	out := make(map[[2][32]byte][]byte, len(in.TapSigs))
	for _, s := range in.TapSigs {
		out[[2][32]byte{s.Key, s.Leaf}] = s.Sig
	}
	return out
}

func (in *Input) tapSigOf(key, leaf [32]byte) []byte {
	for _, s := range in.TapSigs {
		if s.Key == key && s.Leaf == leaf {
			return s.Sig
		}
	}
	return nil
}

// signTaproot signs for the output key and for keys of leaves.
func (w *work) signTaproot(i int, s Signer, o *SignOptions) (made []func(), err error) {
	in := &w.Inputs[i]
	keyRef, tweak, err := in.tapKey(w.outs[i])
	if err != nil {
		return nil, err
	}
	leaves, err := in.tapLeaves(w.outs[i])
	if err != nil {
		return nil, err
	}
	type task struct {
		ref   keys.Ref
		tweak *keys.TapTweak
		pub   []byte // that verifies
		leaf  *txscript.TapLeaf
		add   func(sig []byte)
	}
	var tasks []task
	if keyRef != nil && in.TapKeySig == nil && s.Has(*keyRef) {
		tasks = append(tasks, task{*keyRef, tweak, w.outs[i].PkScript[2:], nil, func(sig []byte) { in.TapKeySig = sig }})
	}
	known := make(map[[32]byte]*TapKey, len(in.TapKeys))
	for i := range in.TapKeys {
		known[in.TapKeys[i].Key] = &in.TapKeys[i]
	}
	signed := in.tapSigs()
	for _, leaf := range leaves {
		hash := [32]byte(leaf.TapHash())
		for _, k := range leafKeys(&leaf, known) {
			key := [32]byte(k.PubKey)
			if signed[[2][32]byte{key, hash}] == nil && s.Has(k) {
				tasks = append(tasks, task{k, nil, k.PubKey, &leaf, func(sig []byte) {
					in.TapSigs = append(in.TapSigs, TapSig{Key: key, Leaf: hash, Sig: sig})
				}})
			}
		}
	}
	if len(tasks) == 0 {
		return nil, nil
	}
	if !w.all { // its signatures commit to all that is spent
		return nil, fmt.Errorf("of another input: %w", ErrNoUTXO)
	}
	kind, err := w.sigHash(i, o, txscript.SigHashDefault)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		var b []byte
		if t.leaf == nil {
			b, err = txscript.CalcTaprootSignatureHash(w.hashes, kind, w.Tx, i, w.fetch)
		} else {
			b, err = txscript.CalcTapscriptSignaturehash(w.hashes, kind, w.Tx, i, w.fetch, *t.leaf)
		}
		if err != nil {
			return nil, err
		}
		hash := [32]byte(b)
		sig, err := s.SignSchnorr(t.ref, hash, t.tweak)
		if err != nil {
			return nil, err
		}
		if !verifySchnorr(t.pub, sig[:], hash) {
			return nil, fmt.Errorf("key %s made a signature that is not valid", t.ref.Origin)
		}
		full := sig[:]
		if kind != txscript.SigHashDefault {
			full = append(full, byte(kind))
		}
		made = append(made, func() { t.add(full) })
	}
	return made, nil
}

// tapKey finds the key that signs for a taproot output as a whole, nil if it is not
// known, and its tweak, nil if it is the output key itself.
func (in *Input) tapKey(out *wire.TxOut) (*keys.Ref, *keys.TapTweak, error) {
	program := out.PkScript[2:]
	key, tweak := program, (*keys.TapTweak)(nil)
	if in.TapInternalKey != nil {
		internal, err := schnorr.ParsePubKey(in.TapInternalKey)
		if err != nil {
			return nil, nil, err
		}
		if got := keys.TaprootOutputKey(internal, in.TapRoot); !bytes.Equal(schnorr.SerializePubKey(got), program) {
			return nil, nil, fmt.Errorf("%w: the internal key is not that of the output", ErrForged)
		}
		key, tweak = in.TapInternalKey, &keys.TapTweak{Root: in.TapRoot}
	}
	for _, k := range in.TapKeys {
		if bytes.Equal(k.Key[:], key) {
			return &keys.Ref{Origin: k.Origin, PubKey: key}, tweak, nil
		}
	}
	if in.TapInternalKey == nil {
		return nil, nil, nil
	}
	k := loneXOnly(key)
	return &k, tweak, nil
}

// loneXOnly is a key that is from nowhere else.
func loneXOnly(key []byte) keys.Ref {
	return keys.Ref{Origin: lone(append([]byte{2}, key...)).Origin, PubKey: key}
}

// tapLeaves are the scripts of the known version that the output commits to.
func (in *Input) tapLeaves(out *wire.TxOut) (leaves []txscript.TapLeaf, err error) {
	for _, l := range in.TapLeaves {
		if l.Version != byte(txscript.BaseLeafVersion) {
			continue
		}
		block, err := txscript.ParseControlBlock(l.ControlBlock)
		if err != nil {
			return nil, err
		}
		if txscript.VerifyTaprootLeafCommitment(block, out.PkScript[2:], l.Script) != nil {
			return nil, fmt.Errorf("%w: a script is none of the output's", ErrForged)
		}
		leaves = append(leaves, txscript.NewBaseTapLeaf(l.Script))
	}
	return leaves, nil
}

// leafKeys are the keys that a leaf names. known are those of which the packet tells
// the origin.
func leafKeys(leaf *txscript.TapLeaf, known map[[32]byte]*TapKey) (refs []keys.Ref) {
	hash := [32]byte(leaf.TapHash())
	_, order := pushes(leaf.Script)
	for _, key := range order {
		if len(key) != schnorr.PubKeyBytesLen {
			continue
		}
		ref := loneXOnly(key)
		if k := known[[32]byte(key)]; k != nil && slices.Contains(k.Leaves, hash) {
			ref.Origin = k.Origin
		}
		refs = append(refs, ref)
	}
	return refs
}

func verifyECDSA(pub, der []byte, hash [32]byte) bool {
	key, err := btcec.ParsePubKey(pub)
	if err != nil {
		return false
	}
	sig, err := ecdsa.ParseDERSignature(der)
	return err == nil && ecdsa.VerifyLowS(append(slices.Clone(der), byte(txscript.SigHashAll))) == nil && sig.Verify(hash[:], key)
}

func verifySchnorr(pub, raw []byte, hash [32]byte) bool {
	key, err := schnorr.ParsePubKey(pub)
	if err != nil {
		return false
	}
	sig, err := schnorr.ParseSignature(raw)
	return err == nil && sig.Verify(hash[:], key)
}

// standardFlags are what scripts must satisfy in what is handed out: all that
// consensus wants anywhere, and relay besides.
const standardFlags = uint32(txscript.StandardVerifyFlags)

// CheckScripts runs all scripts of a signed transaction, which spends coins in the
// order of its inputs, under the rules that the mempool has.
func CheckScripts(tx *wire.MsgTx, coins []consensus.Coin) error {
	return consensus.CheckTxScripts(tx, coins, standardFlags)
}

// idOf is the id of the unsigned transaction, which all packets that belong
// together share.
func (p *Packet) idOf() chainhash.Hash { return chainhash.DoubleHashH(appendBareTx(nil, p.Tx)) }
