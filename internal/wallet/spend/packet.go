package spend

import (
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/keys"
)

// Limits on a PSBT, checked before anything is allocated for it.
const (
	// MaxPacketBytes is the largest PSBT, encoded in binary.
	MaxPacketBytes = 4_000_000
	// maxPacketFields is how many key-value pairs it has at most: ten thousand inputs
	// with ten each are more than fit into a transaction that is relayed.
	maxPacketFields = 100_000
	// maxMapFields is how many of these one input or output has: a script has at most
	// 999 keys (multi_a), each with an origin and a signature.
	maxMapFields = 5000
	// maxTapLeaves is how many scripts of taproot it has in all: each is proven, for a
	// tenth of a millisecond.
	maxTapLeaves = 10_000
	// maxBareBytes is what a transaction without witnesses can have at most (BIP141):
	// some 24,000 inputs, or 110,000 outputs.
	maxBareBytes = 1_000_000
	// maxPathSteps is how long a derivation path is at most (BIP32's depth is a byte).
	maxPathSteps = 255
)

// A Packet is a partially signed transaction, version 0 (BIP174), with the fields
// for taproot (BIP371). Fields that are not known here are kept as they are.
type Packet struct {
	Tx      *wire.MsgTx // without scripts and witnesses
	XPubs   []XPub
	Inputs  []Input  // one for each of Tx
	Outputs []Output // one for each of Tx
	Unknown []Field
}

// A Field is a pair of a map whose meaning is not known here. Key starts with its
// type.
type Field struct{ Key, Value []byte }

// An XPub is an extended public key, 78 bytes as in BIP32, and where it is from.
type XPub struct {
	Key    [78]byte
	Origin keys.Origin
}

// An Input is what is known of an input.
type Input struct {
	// PrevTx is the transaction that it spends from, PrevOut the output; either or
	// both may be there. Only PrevTx proves what the output is worth.
	PrevTx  *wire.MsgTx
	PrevOut *wire.TxOut
	// SigHash is the type that signatures shall have; nil: the default, that
	// commits to everything.
	SigHash *uint32

	RedeemScript, WitnessScript []byte
	Keys                        []keys.Ref // of 33 or 65 bytes
	Sigs                        []Sig
	Preimages                   []Preimage

	TapInternalKey, TapRoot []byte // 32 bytes, or nil
	TapKeys                 []TapKey
	TapLeaves               []TapLeaf
	TapKeySig               []byte // 64 or 65 bytes, or nil
	TapSigs                 []TapSig

	// FinalScript and FinalWitness are what the transaction gets. Once one of them
	// is there, the fields for signing are gone.
	FinalScript  []byte
	FinalWitness wire.TxWitness

	Unknown []Field
}

// Final says whether the input is complete.
func (in *Input) Final() bool { return in.FinalScript != nil || in.FinalWitness != nil }

// An Output is what is known of an output.
type Output struct {
	RedeemScript, WitnessScript []byte
	Keys                        []keys.Ref
	TapInternalKey              []byte // 32 bytes, or nil
	TapTree                     []byte // as in BIP371
	TapKeys                     []TapKey
	Unknown                     []Field
}

// A Sig is an ECDSA signature, in DER with the byte of its type.
type Sig struct{ PubKey, Sig []byte }

// A TapSig is a Schnorr signature for a leaf, of 64 bytes, or 65 with its type.
type TapSig struct {
	Key, Leaf [32]byte
	Sig       []byte
}

// A TapLeaf is a script that a taproot output may be spent by.
type TapLeaf struct {
	ControlBlock []byte
	Script       []byte
	Version      byte
}

// A TapKey is a key of a taproot output: the internal one, or those of leaves.
type TapKey struct {
	Key    [32]byte
	Leaves [][32]byte // hashes
	Origin keys.Origin
}

// A Preimage is what a script wants to know of a hash.
type Preimage struct {
	Kind  PreimageKind
	Hash  []byte
	Value []byte
}

// A PreimageKind says how a preimage is hashed.
type PreimageKind byte

// The kinds, with their types in a PSBT.
const (
	Ripemd160 PreimageKind = 0x0a
	Sha256    PreimageKind = 0x0b
	Hash160   PreimageKind = 0x0c
	Hash256   PreimageKind = 0x0d
)

// Types of fields (BIP174, BIP371).
const (
	globalTx      = 0x00
	globalXPub    = 0x01
	globalVersion = 0xfb

	inPrevTx        = 0x00
	inPrevOut       = 0x01
	inSig           = 0x02
	inSigHash       = 0x03
	inRedeemScript  = 0x04
	inWitnessScript = 0x05
	inKey           = 0x06
	inFinalScript   = 0x07
	inFinalWitness  = 0x08
	inTapKeySig     = 0x13
	inTapSig        = 0x14
	inTapLeaf       = 0x15
	inTapKey        = 0x16
	inTapInternal   = 0x17
	inTapRoot       = 0x18

	outRedeemScript  = 0x00
	outWitnessScript = 0x01
	outKey           = 0x02
	outTapInternal   = 0x05
	outTapTree       = 0x06
	outTapKey        = 0x07
)

// packetMagic starts a PSBT.
const packetMagic = "psbt\xff"

// NewPacket makes a packet of a transaction, whose scripts and witnesses it leaves
// out. It copies tx.
func NewPacket(tx *wire.MsgTx) *Packet {
	p := &Packet{Tx: tx.Copy(), Inputs: make([]Input, len(tx.TxIn)), Outputs: make([]Output, len(tx.TxOut))}
	for _, in := range p.Tx.TxIn {
		in.SignatureScript, in.Witness = nil, nil
	}
	return p
}
