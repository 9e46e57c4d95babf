package keys

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
)

// A PrivateKey is one key. It is a secret.
type PrivateKey struct {
	secret
	k          func() *btcec.PrivateKey
	pub        *btcec.PublicKey // of k: computing it takes as long as signing
	compressed bool
}

func newKey(k *btcec.PrivateKey, compressed bool) *PrivateKey {
	return &PrivateKey{k: hold(k), pub: k.PubKey(), compressed: compressed}
}

// clone returns a key that shares no secret memory with k.
func (k *PrivateKey) clone() *PrivateKey {
	return &PrivateKey{k: hold(btcec.PrivKeyFromScalar(&k.k().Key)), pub: k.pub, compressed: k.compressed}
}

// NewPrivateKey takes 32 big-endian bytes. compressed says which form of the public key its outputs use.
func NewPrivateKey(b []byte, compressed bool) (*PrivateKey, error) {
	var s btcec.ModNScalar
	defer s.Zero()
	if len(b) != 32 || s.SetByteSlice(b) || s.IsZero() {
		return nil, errors.New("private key: not a number from 1 to the order of the curve")
	}
	return newKey(btcec.PrivKeyFromScalar(&s), compressed), nil
}

// ParseWIF reads a private key in the wallet import format of the given network only. The error
// does not show the text.
func ParseWIF(text string, net *consensus.Params) (*PrivateKey, error) {
	if len(text) > 64 {
		return nil, errors.New("private key (WIF): too long")
	}
	w, err := btcutil.DecodeWIF(text)
	if err != nil {
		return nil, fmt.Errorf("private key (WIF): %w", err)
	}
	if !w.IsForNet(&chaincfg.Params{PrivateKeyID: net.PrivateKeyID}) {
		return nil, fmt.Errorf("private key (WIF): of another network than %s", net.Name)
	}
	return newKey(w.PrivKey, w.CompressPubKey), nil
}

// RevealWIF returns the key in the wallet import format.
func (k *PrivateKey) RevealWIF(net *consensus.Params) string {
	w, err := btcutil.NewWIF(k.k(), &chaincfg.Params{PrivateKeyID: net.PrivateKeyID}, k.compressed)
	if err != nil {
		panic(err) // only without a network
	}
	return w.String()
}

// Compressed says which form of the public key the key's outputs use.
func (k *PrivateKey) Compressed() bool { return k.compressed }

// PublicKey returns the public key.
func (k *PrivateKey) PublicKey() *btcec.PublicKey { return k.pub }

// PublicBytes returns the public key as its outputs use it: 33 bytes compressed or 65.
func (k *PrivateKey) PublicBytes() []byte {
	if k.compressed {
		return k.pub.SerializeCompressed()
	}
	return k.pub.SerializeUncompressed()
}

// Origin is the key's own fingerprint, without steps.
func (k *PrivateKey) Origin() Origin { return OriginOf(k.PublicBytes()) }

// Wipe forgets the key. It must not be used afterwards.
func (k *PrivateKey) Wipe() { k.k().Zero() }

// SignECDSA returns a DER signature of low R and S, by RFC6979, without the hash type's byte; at most 70 bytes.
func (k *PrivateKey) SignECDSA(hash [32]byte) []byte {
	return signLowR(k.k(), hash).Serialize()
}

// A TapTweak says what an output key of taproot commits to beside the internal key.
type TapTweak struct {
	Root []byte // merkle root of the script tree, 32 bytes; nil: no scripts (BIP86)
}

// SignSchnorr returns a BIP340 signature by the key (tweak nil, as in scripts) or by the output key
// that is made of it (BIP341).
func (k *PrivateKey) SignSchnorr(hash [32]byte, tweak *TapTweak) (sig [64]byte, err error) {
	key := k.k()
	if tweak != nil {
		if len(tweak.Root) != 0 && len(tweak.Root) != 32 {
			return sig, fmt.Errorf("merkle root of %d bytes: 32 or none", len(tweak.Root))
		}
		key = txscript.TweakTaprootPrivKey(*k.k(), tweak.Root)
		defer key.Zero()
	}
	s, err := schnorr.Sign(key, hash[:])
	if err != nil {
		return sig, err
	}
	return [64]byte(s.Serialize()), nil
}

// TaprootOutputKey returns the output key of BIP341: the internal key tweaked by the merkle root
// of the script tree, or by nothing (root nil, BIP86).
func TaprootOutputKey(internal *btcec.PublicKey, root []byte) *btcec.PublicKey {
	return txscript.ComputeTaprootOutputKey(internal, root)
}

// matches says whether the key belongs to a public key in any of its three forms.
func (k *PrivateKey) matches(pubKey []byte) bool {
	pub := k.pub
	switch len(pubKey) {
	case 32:
		return bytes.Equal(schnorr.SerializePubKey(pub), pubKey)
	case 33:
		return bytes.Equal(pub.SerializeCompressed(), pubKey)
	}
	return bytes.Equal(pub.SerializeUncompressed(), pubKey)
}
