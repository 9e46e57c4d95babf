// Package descriptor reads output descriptors (BIP380–386, 389, and miniscript, BIP379) and makes of them
// output scripts, the keys that these need, and what satisfies them.
//
// It signs nothing and knows no coins. Private keys may stand in the text that is
// parsed; [Descriptor.String] never shows them, [Descriptor.AddTo] hands them over, and
// [Descriptor.Public] is without them.
//
// Invariants:
//   - What Parse accepts, String returns in a form that Parse accepts and that gives the same scripts.
//   - An output that [Descriptor.Derive] returns can be spent within the limits of consensus and of relay: script
//     size, operations, stack; a script of miniscript needs a signature in every way to spend it, and nobody else can change
//     the witness of a transaction that was signed.
//   - No error shows a private key.
package descriptor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/address/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// Limits of what is parsed. Each is checked before memory is taken for it.
const (
	MaxTextBytes   = 64 << 10 // of a descriptor, with its checksum
	MaxDepth       = 32       // functions in functions
	MaxTreeDepth   = 128      // of a script tree (BIP341)
	MaxMultipath   = 32       // alternatives of a <0;1> step
	maxBareKeys    = 3        // of a multi that is no script hash (standardness)
	maxMultiKeys   = 20       // of CHECKMULTISIG (consensus)
	maxMultiAKeys  = 999      // of multi_a: the stack holds 1,000
	maxRedeemBytes = 520      // of a P2SH script (consensus)
	maxWshBytes    = 3600     // of a P2WSH script (standardness)
	maxWshItems    = 100      // on a P2WSH script's stack (standardness)
	maxOps         = 201      // of a script before taproot (consensus)
	maxStack       = 1000     // items at any time (consensus)
	maxThresh      = 200      // conditions of a thresh: the work for it grows with the square
	maxWrappers    = 16       // letters before a colon
	maxSteps       = 4096     // behind all keys: each takes some 50 µs to follow
)

// A Kind is the outermost shape of a descriptor.
type Kind uint8

// Kinds of descriptors.
const (
	Pk     Kind = iota + 1 // pk(KEY)
	Pkh                    // pkh(KEY)
	Wpkh                   // wpkh(KEY)
	ShWpkh                 // sh(wpkh(KEY))
	Multi                  // multi(…) or sortedmulti(…), bare
	Sh                     // sh(SCRIPT)
	Wsh                    // wsh(SCRIPT)
	ShWsh                  // sh(wsh(SCRIPT))
	Combo                  // combo(KEY): Pk, Pkh, Wpkh and ShWpkh at once
	Tr                     // tr(KEY) or tr(KEY,TREE)
	Rawtr                  // rawtr(KEY)
	Addr                   // addr(ADDRESS)
	Raw                    // raw(HEX)
)

// String returns the functions of the kind, as "sh(wpkh)".
func (k Kind) String() string {
	names := [...]string{
		Pk: "pk", Pkh: "pkh", Wpkh: "wpkh", ShWpkh: "sh(wpkh)", Multi: "multi", Sh: "sh", Wsh: "wsh",
		ShWsh: "sh(wsh)", Combo: "combo", Tr: "tr", Rawtr: "rawtr", Addr: "addr", Raw: "raw",
	}
	if int(k) >= len(names) || names[k] == "" {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return names[k]
}

// Errors of deriving.
var (
	// ErrExpand means that the descriptor stands for several: see [Descriptor.Expand].
	ErrExpand = errors.New("the descriptor stands for several scripts: expand it first")
	// ErrNeedsPrivate means that a hardened step follows a public key.
	ErrNeedsPrivate = errors.New("the descriptor has a hardened step after an extended public key: its scripts cannot be computed without the private key")
)

// A KeyRef is one key of an output.
type KeyRef = keys.Ref

// A Descriptor describes scripts. It is immutable and safe for concurrent use.
type Descriptor struct {
	net  *consensus.Params
	kind Kind

	key    *keyExpr // Wpkh, ShWpkh, Combo, Tr (internal), Rawtr
	script *node    // Pk, Pkh, Multi, Sh, Wsh, ShWsh
	tree   *tree    // Tr; nil: key only
	addr   string   // Addr
	raw    []byte   // Addr, Raw

	all []*keyExpr // every key, in the order of the text
}

// Kind returns the outermost shape.
func (d *Descriptor) Kind() Kind { return d.kind }

// Params returns the network that the descriptor was parsed for.
func (d *Descriptor) Params() *consensus.Params { return d.net }

// Private says whether the text had at least one private key.
func (d *Descriptor) Private() bool {
	return slices.ContainsFunc(d.all, (*keyExpr).private)
}

// IsRange says whether the descriptor has a * step: a script for every index.
func (d *Descriptor) IsRange() bool {
	return slices.ContainsFunc(d.all, func(k *keyExpr) bool { return k.wildcard != fixed })
}

// IsMulti says whether the descriptor stands for several ([Descriptor.Expand]).
func (d *Descriptor) IsMulti() bool { return d.kind == Combo || d.alternatives() > 1 }

// alternatives is the length of the <a;b;…> steps, 1 if there are none.
func (d *Descriptor) alternatives() int {
	for _, k := range d.all {
		if len(k.tuple) > 0 {
			return len(k.tuple)
		}
	}
	return 1
}

// Expand returns one descriptor for every alternative of the <a;b> steps (BIP389), in their order, and
// for every script of combo. It returns d itself, alone, if there is nothing to expand.
func (d *Descriptor) Expand() []*Descriptor {
	if !d.IsMulti() {
		return []*Descriptor{d}
	}
	var out []*Descriptor
	for i := range d.alternatives() {
		one := d.with(func(k *keyExpr) *keyExpr { return k.choose(i) })
		if d.kind != Combo {
			out = append(out, one)
			continue
		}
		key := one.key
		out = append(out,
			&Descriptor{net: d.net, kind: Pk, script: pkNode(key, fPkK), all: one.all},
			&Descriptor{net: d.net, kind: Pkh, script: pkNode(key, fPkH), all: one.all})
		if !key.uncompressed() {
			out = append(out,
				&Descriptor{net: d.net, kind: Wpkh, key: key, all: one.all},
				&Descriptor{net: d.net, kind: ShWpkh, key: key, all: one.all})
		}
	}
	return out
}

// with returns a copy whose keys are replaced.
func (d *Descriptor) with(replace func(*keyExpr) *keyExpr) *Descriptor {
	c := *d
	c.all = nil
	sub := func(k *keyExpr) *keyExpr {
		k = replace(k)
		c.all = append(c.all, k)
		return k
	}
	if d.key != nil {
		c.key = sub(d.key)
	}
	if d.script != nil {
		c.script = d.script.with(sub)
	}
	if d.tree != nil {
		c.tree = d.tree.with(sub)
	}
	return &c
}

// Public returns the descriptor without its private keys. Where hardened steps follow an extended private key, the public key
// behind them takes its place, with its origin (BIP380). [ErrNeedsPrivate] if the range itself
// is hardened: then the scripts cannot be computed without the private key.
func (d *Descriptor) Public() (*Descriptor, error) {
	pub := d.with((*keyExpr).public)
	for _, k := range pub.all {
		if k.hardened() {
			return nil, ErrNeedsPrivate
		}
	}
	return pub, nil
}

// AddTo copies the private keys of the descriptor into a ring, with their origins.
func (d *Descriptor) AddTo(r *keys.Ring) error {
	for _, k := range d.all {
		var err error
		switch {
		case k.xprv != nil && k.origin != nil:
			err = r.AddXPrv(k.xprv, *k.origin)
		case k.xprv != nil:
			err = r.AddXPrv(k.xprv, keys.Origin{})
		case k.priv != nil:
			err = r.AddKey(k.priv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Wipe forgets the private keys. The descriptor must not be used afterwards, nor what Expand made of it.
func (d *Descriptor) Wipe() {
	for _, k := range d.all {
		if k.priv != nil {
			k.priv.Wipe()
		}
		for _, x := range []*keys.XPrv{k.xprv, k.privBase} {
			if x != nil {
				x.Wipe()
			}
		}
	}
}

// Equal says whether two descriptors have the same public form.
func (d *Descriptor) Equal(other *Descriptor) bool { return d.String() == other.String() }

// A SigVersion says which hash signatures of an output sign.
type SigVersion uint8

// Hashes that signatures sign.
const (
	Legacy    SigVersion = iota // before segwit
	WitnessV0                   // BIP143
	Taproot                     // BIP341, BIP342
)

// An Output is one script of a descriptor. It is immutable.
type Output struct {
	PkScript      []byte
	RedeemScript  []byte       // of P2SH
	WitnessScript []byte       // of P2WSH
	Taproot       *TaprootInfo // of tr and rawtr
	// Keys are all keys of the output, in the order of the descriptor, no two equal; of tr the internal key comes first.
	Keys []KeyRef
	// MaxWeight bounds the weight of what spends the output, in whatever way: four times the signature script with
	// its length, and the witness with its counts, of signatures as long as they can be
	// (of taproot: with the default hash type, 64 bytes). The rest of an input weighs 160. It is 0 where the descriptor does
	// not say how to spend (addr, raw).
	MaxWeight  int
	SigVersion SigVersion
	// ScriptCode is what signatures of SigVersion Legacy and WitnessV0 commit to.
	ScriptCode []byte

	kind   Kind
	script *node
	env    *env
}

// A TaprootInfo is what is behind a taproot output.
type TaprootInfo struct {
	InternalKey [32]byte // zero of rawtr
	OutputKey   [32]byte
	Root        []byte // merkle root of the leaves, 32 bytes; nil if there are none
	Leaves      []Leaf // in the order of the descriptor
}

// Tweak is what the internal key is signed with for the key path; nil of rawtr, whose key is the output key.
func (t *TaprootInfo) Tweak() *keys.TapTweak {
	if t.InternalKey == [32]byte{} {
		return nil
	}
	return &keys.TapTweak{Root: t.Root}
}

// A Leaf is one script of a taproot output, of leaf version 0xc0.
type Leaf struct {
	Script       []byte
	Hash         [32]byte // tapleaf hash
	ControlBlock []byte   // that proves the leaf
	Depth        int      // 0: the only one
	Keys         []KeyRef // in the order of the leaf

	script *node
	env    *env
}

// Kind returns the shape of the descriptor that made the output.
func (o *Output) Kind() Kind { return o.kind }

// Address returns the output's address, and false if it has none, as bare keys and multisig.
func (o *Output) Address(net *consensus.Params) (string, bool) { return addressOf(o.PkScript, net) }

// Derive returns the script of an index, which must be less than 2³¹ and is ignored if the descriptor is no range. Errors:
// [ErrExpand], [ErrNeedsPrivate]; that a key of the index is invalid is less likely than that it is guessed.
func (d *Descriptor) Derive(index uint32) (*Output, error) {
	if d.IsMulti() {
		return nil, ErrExpand
	}
	if index >= keys.Hardened {
		return nil, fmt.Errorf("index %d: at most %d", index, keys.Hardened-1)
	}
	o := &Output{kind: d.kind}
	if d.kind == Addr || d.kind == Raw {
		o.PkScript = slices.Clone(d.raw)
		return o, nil
	}
	e := &env{tap: d.kind == Tr || d.kind == Rawtr, refs: make(map[*keyExpr]KeyRef, len(d.all))}
	for _, k := range d.all {
		ref, err := k.derive(index, e.tap)
		if err != nil {
			return nil, err
		}
		e.refs[k] = ref
		o.Keys = appendRef(o.Keys, ref)
	}
	o.env, o.script = e, d.script
	switch d.kind {
	case Pk, Pkh, Multi:
		o.PkScript = d.script.appendScript(nil, e, false)
		o.ScriptCode = o.PkScript
	case Sh:
		o.RedeemScript = d.script.appendScript(nil, e, false)
		o.PkScript, o.ScriptCode = p2sh(o.RedeemScript), o.RedeemScript
	case Wpkh, ShWpkh:
		o.SigVersion = WitnessV0
		o.script = pkNode(d.key, fPkH)
		o.ScriptCode = o.script.appendScript(nil, e, false)
		o.PkScript = append([]byte{0, 20}, address.Hash160(e.refs[d.key].PubKey)...)
	case Wsh, ShWsh:
		o.SigVersion = WitnessV0
		o.WitnessScript = d.script.appendScript(nil, e, false)
		o.PkScript, o.ScriptCode = p2wsh(o.WitnessScript), o.WitnessScript
	case Tr, Rawtr:
		o.SigVersion = Taproot
		if err := o.deriveTaproot(d); err != nil {
			return nil, err
		}
	}
	if d.kind == ShWpkh || d.kind == ShWsh {
		o.RedeemScript = o.PkScript
		o.PkScript = p2sh(o.RedeemScript)
	}
	o.MaxWeight = o.maxWeight()
	return o, nil
}

// appendRef appends a key unless the list has it.
func appendRef(refs []KeyRef, ref KeyRef) []KeyRef {
	if slices.ContainsFunc(refs, func(r KeyRef) bool { return slices.Equal(r.PubKey, ref.PubKey) }) {
		return refs
	}
	return append(refs, ref)
}

// An env is what a script is made with: the keys of one index.
type env struct {
	tap  bool
	refs map[*keyExpr]KeyRef
}
