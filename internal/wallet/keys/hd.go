package keys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"dunlin/chain/consensus"
)

// hdVersions are the four bytes that an extended key begins with, and what text they
// give it.
type hdVersions struct {
	private, public         [4]byte
	privateText, publicText string
}

// versionsOf: networks of our own use those of Bitcoin's test networks, as Bitcoin Core's
// regtest and signet do.
func versionsOf(net *consensus.Params) hdVersions {
	if isBitcoin(net) {
		return hdVersions{[4]byte{0x04, 0x88, 0xad, 0xe4}, [4]byte{0x04, 0x88, 0xb2, 0x1e}, "xprv", "xpub"}
	}
	return hdVersions{[4]byte{0x04, 0x35, 0x83, 0x94}, [4]byte{0x04, 0x35, 0x87, 0xcf}, "tprv", "tpub"}
}

// hdChain is what hdkeychain wants to know of a network.
func hdChain(v hdVersions) *chaincfg.Params {
	return &chaincfg.Params{HDPrivateKeyID: v.private, HDPublicKeyID: v.public}
}

const extendedBytes = 78 // without checksum

// decodeExtended reads and checks the text of an extended key. hdkeychain alone accepts keys whose version
// contradicts their contents and masters that claim a parent (BIP32's test vector 5).
func decodeExtended(text string, net *consensus.Params, private bool) (*hdkeychain.ExtendedKey, error) {
	if len(text) > 120 {
		return nil, errors.New("too long for an extended key")
	}
	raw := base58.Decode(text)
	if len(raw) != extendedBytes+4 {
		return nil, errors.New("not an extended key: wrong length or letters outside base58")
	}
	defer wipe(raw)
	v := versionsOf(net)
	version := [4]byte(raw[:4])
	want, wantText := v.public, v.publicText
	if private {
		want, wantText = v.private, v.privateText
	}
	if version != want {
		return nil, fmt.Errorf("begins with %q, but %s has %s…", text[:min(4, len(text))], net.Name, wantText)
	}
	depth, parent, child, marker := raw[4], raw[5:9], binary.BigEndian.Uint32(raw[9:13]), raw[45]
	switch {
	case depth == 0 && (!bytes.Equal(parent, make([]byte, 4)) || child != 0):
		return nil, errors.New("a master key that claims a parent")
	case private && marker != 0:
		return nil, errors.New("a private version with a public key in it")
	case !private && marker != 2 && marker != 3:
		return nil, errors.New("a public version without a compressed public key in it")
	}
	k, err := hdkeychain.NewKeyFromString(text) // checksum, range, curve
	switch {
	case errors.Is(err, hdkeychain.ErrBadChecksum):
		return nil, errors.New("the checksum is wrong: a letter was mistyped")
	case err != nil:
		return nil, errors.New("not a valid key")
	}
	return k, nil
}

// An XPrv is an extended private key (BIP32): it and every key below it. It is a secret. It is immutable
// but for Wipe.
type XPrv struct {
	secret
	k   func() *hdkeychain.ExtendedKey
	net *hdVersions
}

// Master returns the master key of a seed. The error, of a seed that gives no valid
// key, is less likely than a guessed seed.
func Master(seed *Seed, net *consensus.Params) (*XPrv, error) {
	v := versionsOf(net)
	k, err := hdkeychain.NewMaster(seed.bytes(), hdChain(v))
	if err != nil {
		return nil, err
	}
	return newXPrv(k, &v), nil
}

// newXPrv has hdkeychain compute the public key now: it would do so at first use, which would be a data
// race of two that sign at once.
func newXPrv(k *hdkeychain.ExtendedKey, net *hdVersions) *XPrv {
	_, _ = k.ECPubKey() // the key is valid: no error
	return &XPrv{k: hold(k), net: net}
}

// ParseXPrv reads an xprv… (bitcoin) or tprv… (every other network). The error does not show
// the text.
func ParseXPrv(text string, net *consensus.Params) (*XPrv, error) {
	k, err := decodeExtended(text, net, true)
	if err != nil {
		return nil, fmt.Errorf("extended private key: %w", err)
	}
	v := versionsOf(net)
	return newXPrv(k, &v), nil
}

// Derive follows the steps of a path.
func (x *XPrv) Derive(p Path) (*XPrv, error) {
	k, err := derive(x.k(), p)
	if err != nil {
		return nil, err
	}
	return newXPrv(k, x.net), nil
}

// derive returns a key that shares no memory with k.
func derive(k *hdkeychain.ExtendedKey, p Path) (*hdkeychain.ExtendedKey, error) {
	if len(p) == 0 {
		return clone(k)
	}
	first := k
	for i, step := range p {
		child, err := k.Derive(step) // the one that pads keys with leading zeros as BIP32 wants
		if k != first && k.IsPrivate() {
			k.Zero()
		}
		switch {
		case errors.Is(err, hdkeychain.ErrDeriveHardFromPublic):
			return nil, ErrHardened
		case err != nil:
			return nil, fmt.Errorf("derive step %d (%s): %w", i+1, StepString(step), err)
		}
		k = child
	}
	return k, nil
}

func clone(k *hdkeychain.ExtendedKey) (*hdkeychain.ExtendedKey, error) {
	var key []byte
	if priv, err := k.ECPrivKey(); err == nil {
		key = priv.Serialize()
		priv.Zero()
	} else {
		pub, err := k.ECPubKey()
		if err != nil {
			return nil, err
		}
		key = pub.SerializeCompressed()
	}
	parent := binary.BigEndian.AppendUint32(nil, k.ParentFingerprint())
	return hdkeychain.NewExtendedKey(k.Version(), key, k.ChainCode(), parent, k.Depth(), k.ChildIndex(), k.IsPrivate()), nil
}

// Public returns the extended public key.
func (x *XPrv) Public() *XPub {
	pub, err := x.k().ECPubKey()
	if err != nil {
		panic(err) // of a private key in range: never
	}
	parent := binary.BigEndian.AppendUint32(nil, x.k().ParentFingerprint())
	k := hdkeychain.NewExtendedKey(x.net.public[:], pub.SerializeCompressed(), x.k().ChainCode(), parent, x.k().Depth(), x.k().ChildIndex(), false)
	return &XPub{k: k, net: x.net}
}

// Fingerprint identifies the key; of a master key it is the master fingerprint.
func (x *XPrv) Fingerprint() Fingerprint { return x.Public().Fingerprint() }

// Depth is the number of steps from the master key, 0 of the master itself.
func (x *XPrv) Depth() int { return int(x.k().Depth()) }

// PrivateKey returns the private key itself, for compressed public keys.
func (x *XPrv) PrivateKey() *PrivateKey {
	k, err := x.k().ECPrivKey()
	if err != nil {
		panic(err) // x is private
	}
	return &PrivateKey{k: hold(k), pub: x.Public().PublicKey(), compressed: true}
}

// Reveal returns the key as xprv… or tprv….
func (x *XPrv) Reveal() string { return x.k().String() }

// Wipe forgets the key. It must not be used afterwards.
func (x *XPrv) Wipe() { x.k().Zero() }

// raw returns the 78 bytes of the key, a secret.
func (x *XPrv) raw() []byte {
	k := x.PrivateKey()
	defer k.Wipe()
	b := make([]byte, 0, extendedBytes)
	b = append(b, x.net.private[:]...)
	b = append(b, x.k().Depth())
	b = binary.BigEndian.AppendUint32(b, x.k().ParentFingerprint())
	b = binary.BigEndian.AppendUint32(b, x.k().ChildIndex())
	b = append(b, x.k().ChainCode()...)
	b = append(b, 0)
	return append(b, k.k().Serialize()...)
}

// xprvOfRaw reads what raw returned.
func xprvOfRaw(raw []byte) (*XPrv, error) {
	v := versionsOf(&consensus.Params{Name: "bitcoin"})
	if [4]byte(raw) != v.private {
		v = versionsOf(&consensus.Params{})
	}
	k, err := NewPrivateKey(raw[46:extendedBytes], true)
	if err != nil || [4]byte(raw) != v.private || raw[45] != 0 {
		return nil, errors.New("not an extended private key")
	}
	defer k.Wipe()
	return newXPrv(hdkeychain.NewExtendedKey(v.private[:], k.k().Serialize(), slices.Clone(raw[13:45]), slices.Clone(raw[5:9]),
		raw[4], binary.BigEndian.Uint32(raw[9:13]), true), &v), nil
}

// An XPub is an extended public key (BIP32). It is immutable.
//
// It gives away every address below it, and with any one private key that is a step below it without
// hardening, every private key: it is no secret, but not for publication either.
type XPub struct {
	k   *hdkeychain.ExtendedKey
	net *hdVersions
}

// ParseXPub reads an xpub… (bitcoin) or tpub… (every other network).
func ParseXPub(text string, net *consensus.Params) (*XPub, error) {
	k, err := decodeExtended(text, net, false)
	if err != nil {
		return nil, fmt.Errorf("extended public key: %w", err)
	}
	v := versionsOf(net)
	return &XPub{k: k, net: &v}, nil
}

// Derive follows the steps of a path; [ErrHardened] if one is hardened.
func (x *XPub) Derive(p Path) (*XPub, error) {
	k, err := derive(x.k, p)
	if err != nil {
		return nil, err
	}
	return &XPub{k: k, net: x.net}, nil
}

// PublicKey returns the public key itself.
func (x *XPub) PublicKey() *btcec.PublicKey {
	k, err := x.k.ECPubKey()
	if err != nil {
		panic(err) // checked when it was read or derived
	}
	return k
}

// Fingerprint identifies the key.
func (x *XPub) Fingerprint() Fingerprint { return fingerprint(x.PublicKey().SerializeCompressed()) }

// Depth is the number of steps from the master key, 0 of the master itself.
func (x *XPub) Depth() int { return int(x.k.Depth()) }

// String returns xpub… or tpub….
func (x *XPub) String() string { return x.k.String() }

// Equal says whether two extended keys are the same.
func (x *XPub) Equal(y *XPub) bool { return x.String() == y.String() }

func fingerprint(pubKey []byte) Fingerprint { return Fingerprint(address.Hash160(pubKey)[:4]) }

// OriginOf is the origin of a lone public key: its own fingerprint and no steps.
func OriginOf(pubKey []byte) Origin {
	if len(pubKey) == 32 {
		pubKey = slices.Concat([]byte{2}, pubKey)
	}
	return Origin{Fingerprint: fingerprint(pubKey)}
}
