package keys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"dunlin/chain/consensus"
)

// Limits of a [Ring], which bound the file of a [Vault] too.
const (
	MaxRoots = 256
	MaxKeys  = 10_000
)

// A Ring is a set of secrets in memory: masters, extended keys and single keys. It finds the one that
// a [Ref] asks for. It is not safe for concurrent changes; looking up and signing are.
type Ring struct {
	secret
	s func() *ringSecrets
}

type ringSecrets struct {
	roots []root
	keys  []*PrivateKey // in the order in which they were added
	// byX finds single keys by the x coordinate of their public key; a key may be there in both of its forms.
	byX map[[32]byte][]*PrivateKey
}

// A root is an extended private key and where it comes from.
type root struct {
	origin     Origin
	own        Fingerprint // of key
	key        *XPrv
	words      *Words // nil: imported as an extended key
	passphrase bool   // the words alone do not give the key
}

// A RootInfo is what is no secret of an extended key in a [Ring].
type RootInfo struct {
	Origin     Origin // its own fingerprint without steps, or the origin it was imported with
	Words      int    // number of words it was made of, 0 if none are kept
	Passphrase bool   // a BIP39 passphrase, which is kept nowhere, was used too
}

// NewRing returns an empty ring.
func NewRing() *Ring { return &Ring{s: hold(&ringSecrets{byX: make(map[[32]byte][]*PrivateKey)})} }

// AddWords adds the master key of words and a BIP39 passphrase ("" is the usual case), and
// keeps the words for backups, never the passphrase. It returns the master's fingerprint. w stays the caller's.
func (r *Ring) AddWords(w *Words, passphrase string, net *consensus.Params) (Fingerprint, error) {
	seed := w.Seed(passphrase)
	defer seed.Wipe()
	x, err := Master(seed, net)
	if err != nil {
		return Fingerprint{}, err
	}
	kept, err := WordsFromEntropy(w.entropy())
	if err != nil {
		return Fingerprint{}, err
	}
	fp := x.Fingerprint()
	return fp, r.addRoot(root{origin: Origin{Fingerprint: fp}, key: x, words: kept, passphrase: passphrase != ""})
}

// AddXPrv adds an extended key and all below it. Origin says where it comes from; the
// zero Origin means that it is its own. x stays the caller's.
func (r *Ring) AddXPrv(x *XPrv, origin Origin) error {
	c, err := x.Derive(nil) // a copy
	if err != nil {
		return err
	}
	if origin.Fingerprint == (Fingerprint{}) && len(origin.Path) == 0 {
		origin = Origin{Fingerprint: x.Fingerprint()}
	}
	return r.addRoot(root{origin: Origin{origin.Fingerprint, slices.Clone(origin.Path)}, key: c})
}

func (r *Ring) addRoot(add root) error {
	if len(add.origin.Path) > maxSteps {
		return fmt.Errorf("origin of %d steps: at most %d", len(add.origin.Path), maxSteps)
	}
	add.own = add.key.Fingerprint()
	for i, have := range r.s().roots {
		if have.own != add.own || have.origin.Fingerprint != add.origin.Fingerprint || !slices.Equal(have.origin.Path, add.origin.Path) {
			continue
		}
		a, b := have.key.raw(), add.key.raw()
		same := bytes.Equal(a, b)
		wipe(a)
		wipe(b)
		if same {
			if have.words == nil {
				r.s().roots[i] = add // the same key, now with its words
			}
			return nil
		}
	}
	if len(r.s().roots) >= MaxRoots {
		return fmt.Errorf("more than %d extended keys", MaxRoots)
	}
	r.s().roots = append(r.s().roots, add)
	return nil
}

// AddKey adds a single key. k stays the caller's.
func (r *Ring) AddKey(k *PrivateKey) error {
	at := xOf(k.PublicBytes())
	if slices.ContainsFunc(r.s().byX[at], func(have *PrivateKey) bool { return have.compressed == k.compressed }) {
		return nil
	}
	if len(r.s().keys) >= MaxKeys {
		return fmt.Errorf("more than %d single keys", MaxKeys)
	}
	c := k.clone()
	r.s().keys = append(r.s().keys, c)
	r.s().byX[at] = append(r.s().byX[at], c)
	return nil
}

// xOf returns the x coordinate of a public key in any of its three forms; zero, which no key has, of anything else.
func xOf(pubKey []byte) (x [32]byte) {
	switch len(pubKey) {
	case 32:
		copy(x[:], pubKey)
	case 33, 65:
		copy(x[:], pubKey[1:])
	}
	return x
}

// AddAll adds what another ring holds, which stays the caller's.
func (r *Ring) AddAll(other *Ring) error {
	b := other.encode()
	defer wipe(b)
	return r.decode(b)
}

// Roots lists the extended keys.
func (r *Ring) Roots() []RootInfo {
	var infos []RootInfo
	for _, x := range r.s().roots {
		info := RootInfo{Origin: x.origin, Passphrase: x.passphrase}
		if x.words != nil {
			info.Words = x.words.Count()
		}
		infos = append(infos, info)
	}
	return infos
}

// Keys returns the number of single keys.
func (r *Ring) Keys() int { return len(r.s().keys) }

// Root returns a copy of the extended key with the given fingerprint that has no steps in its origin,
// a master as a rule; [ErrNoKey] if there is none. It is for making the descriptors of an account.
func (r *Ring) Root(fp Fingerprint) (*XPrv, error) {
	for _, x := range r.s().roots {
		if x.origin.Fingerprint == fp && len(x.origin.Path) == 0 {
			return x.key.Derive(nil)
		}
	}
	return nil, fmt.Errorf("extended key %s: %w", fp, ErrNoKey)
}

// words returns a copy of the words of a master.
func (r *Ring) words(fp Fingerprint) (*Words, error) {
	for _, x := range r.s().roots {
		if x.origin.Fingerprint == fp && x.words != nil {
			return WordsFromEntropy(x.words.entropy())
		}
	}
	return nil, fmt.Errorf("no words are kept for %s", fp)
}

// PrivateKey returns a copy of the key that ref names, which must have exactly ref's
// public key, or [ErrNoKey].
func (r *Ring) PrivateKey(ref Ref) (*PrivateKey, error) {
	for _, k := range r.s().byX[xOf(ref.PubKey)] {
		if k.matches(ref.PubKey) {
			return k.clone(), nil
		}
	}
	// Fingerprints are four bytes and origins are claimed by whoever wrote a descriptor, so only
	// the public key decides.
	for _, x := range r.s().roots {
		if ref.Fingerprint == x.origin.Fingerprint && len(ref.Path) >= len(x.origin.Path) &&
			slices.Equal(ref.Path[:len(x.origin.Path)], x.origin.Path) {
			if k := x.key.below(ref.Path[len(x.origin.Path):], ref.PubKey); k != nil {
				return k, nil
			}
		}
		if len(x.origin.Path) > 0 && ref.Fingerprint == x.own {
			if k := x.key.below(ref.Path, ref.PubKey); k != nil {
				return k, nil
			}
		}
	}
	return nil, ErrNoKey
}

// below returns the private key at a path if it has the given public key.
func (x *XPrv) below(p Path, pubKey []byte) *PrivateKey {
	child, err := x.Derive(p)
	if err != nil {
		return nil
	}
	defer child.Wipe()
	k := child.PrivateKey()
	if !k.matches(pubKey) {
		k.Wipe()
		return nil
	}
	return k
}

// Has says whether the ring can sign for ref.
func (r *Ring) Has(ref Ref) bool {
	k, err := r.PrivateKey(ref)
	if err != nil {
		return false
	}
	k.Wipe()
	return true
}

// SignECDSA signs as [PrivateKey.SignECDSA]; [ErrNoKey] if the ring lacks the key.
func (r *Ring) SignECDSA(ref Ref, hash [32]byte) ([]byte, error) {
	k, err := r.PrivateKey(ref)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	return k.SignECDSA(hash), nil
}

// SignSchnorr signs as [PrivateKey.SignSchnorr]; [ErrNoKey] if the ring lacks the key. ref names the
// internal key, also where tweak makes the output key of it.
func (r *Ring) SignSchnorr(ref Ref, hash [32]byte, tweak *TapTweak) ([64]byte, error) {
	k, err := r.PrivateKey(ref)
	if err != nil {
		return [64]byte{}, err
	}
	defer k.Wipe()
	return k.SignSchnorr(hash, tweak)
}

// Wipe forgets everything. The ring is empty afterwards.
func (r *Ring) Wipe() {
	for _, x := range r.s().roots {
		x.key.Wipe()
		if x.words != nil {
			x.words.Wipe()
		}
	}
	for _, k := range r.s().keys {
		k.Wipe()
	}
	*r.s() = ringSecrets{byX: make(map[[32]byte][]*PrivateKey)}
}

// Kinds of record of an encoded ring: kind 1, length 4, contents.
const (
	recordRoot byte = 1 // flags 1, fingerprint 4, number of steps 1, steps 4 each, key 78, entropy (the rest)
	recordKey  byte = 2 // compressed 1, key 32

	flagPassphrase = 1
)

// encode returns the plaintext of a vault, a secret.
func (r *Ring) encode() []byte {
	size := 0
	for _, x := range r.s().roots {
		size += 5 + 6 + 4*len(x.origin.Path) + extendedBytes + 32
	}
	b := make([]byte, 0, size+len(r.s().keys)*38) // never grows: no copies are left behind
	for _, x := range r.s().roots {
		var entropy []byte
		if x.words != nil {
			entropy = x.words.entropy()
		}
		b = append(b, recordRoot)
		b = binary.BigEndian.AppendUint32(b, uint32(6+4*len(x.origin.Path)+extendedBytes+len(entropy))) //nolint:gosec // Small.
		flags := byte(0)
		if x.passphrase {
			flags = flagPassphrase
		}
		b = append(b, flags)
		b = append(b, x.origin.Fingerprint[:]...)
		b = append(b, byte(len(x.origin.Path))) //nolint:gosec // At most maxSteps.
		for _, step := range x.origin.Path {
			b = binary.BigEndian.AppendUint32(b, step)
		}
		raw := x.key.raw()
		b = append(append(b, raw...), entropy...)
		wipe(raw)
	}
	for _, k := range r.s().keys {
		compressed := byte(0)
		if k.compressed {
			compressed = 1
		}
		raw := k.k().Serialize()
		b = append(b, recordKey, 0, 0, 0, 33, compressed)
		b = append(b, raw...)
		wipe(raw)
	}
	return b
}

var errRecord = errors.New("a record of the secrets is malformed")

// decode adds what encode returned.
func (r *Ring) decode(b []byte) error {
	for len(b) > 0 {
		if len(b) < 5 {
			return errRecord
		}
		kind, n := b[0], binary.BigEndian.Uint32(b[1:5])
		if b = b[5:]; uint64(n) > uint64(len(b)) {
			return errRecord
		}
		record := b[:n]
		b = b[n:]
		var err error
		switch kind {
		case recordRoot:
			err = r.decodeRoot(record)
		case recordKey:
			err = r.decodeKey(record)
		default:
			err = fmt.Errorf("secrets of kind %d: written by a newer version", kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Ring) decodeRoot(b []byte) error {
	if len(b) < 6 || len(b) < 6+4*int(b[5])+extendedBytes {
		return errRecord
	}
	x := root{origin: Origin{Fingerprint: Fingerprint(b[1:5])}, passphrase: b[0]&flagPassphrase != 0}
	steps := int(b[5])
	for b = b[6:]; steps > 0; steps, b = steps-1, b[4:] {
		x.origin.Path = append(x.origin.Path, binary.BigEndian.Uint32(b))
	}
	var err error
	if x.key, err = xprvOfRaw(b[:extendedBytes]); err != nil {
		return err
	}
	if b = b[extendedBytes:]; len(b) > 0 {
		if x.words, err = WordsFromEntropy(b); err != nil {
			return err
		}
	}
	return r.addRoot(x)
}

func (r *Ring) decodeKey(b []byte) error {
	if len(b) != 33 || b[0] > 1 {
		return errRecord
	}
	k, err := NewPrivateKey(b[1:], b[0] == 1)
	if err != nil {
		return err
	}
	defer k.Wipe()
	return r.AddKey(k)
}
