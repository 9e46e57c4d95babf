package secp256k1_test

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"

	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/secp256k1"
)

const seed = 340

// libraryECDSA is what txscript does under strict DER: its own check of the encoding
// refuses what follows the signature, the library's does not.
func libraryECDSA(pub, sig []byte, hash *[32]byte) bool {
	if len(sig) < 2 || int(sig[1]) != len(sig)-2 {
		return false
	}
	key, err := btcec.ParsePubKey(pub)
	if err != nil {
		return false
	}
	s, err := ecdsa.ParseDERSignature(sig)
	return err == nil && s.Verify(hash[:], key)
}

// laxECDSA is what txscript does before BIP66.
func laxECDSA(pub, sig []byte, hash *[32]byte) bool {
	key, err := btcec.ParsePubKey(pub)
	if err != nil {
		return false
	}
	s, err := ecdsa.ParseSignature(sig)
	return err == nil && s.Verify(hash[:], key)
}

func librarySchnorr(pub, sig []byte, hash *[32]byte) bool {
	key, err := schnorr.ParsePubKey(pub)
	if err != nil {
		return false
	}
	s, err := schnorr.ParseSignature(sig)
	return err == nil && s.Verify(hash[:], key)
}

func random32(r *rand.Rand) (b [32]byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomKey(r *rand.Rand) *btcec.PrivateKey {
	b := random32(r)
	key, _ := btcec.PrivKeyFromBytes(b[:])
	return key
}

func scalar(v *big.Int) (k btcec.ModNScalar) {
	var b [32]byte
	new(big.Int).Mod(v, btcec.S256().N).FillBytes(b[:])
	k.SetBytes(&b)
	return k
}

// mutations returns sig and what it becomes by flipping a bit, by adding, dropping
// and repeating a byte.
func mutations(r *rand.Rand, sig []byte) [][]byte {
	all := [][]byte{sig, nil, sig[:len(sig)-1], sig[1:], append(bytes.Clone(sig), 0)}
	for range 6 {
		m := bytes.Clone(sig)
		m[r.IntN(len(m))] ^= 1 << r.IntN(8)
		i := r.IntN(len(sig))
		all = append(all, m, append(append(bytes.Clone(sig[:i]), sig[i]), sig[i:]...))
	}
	for i := range min(8, len(sig)) { // the lengths and the types of DER
		m := bytes.Clone(sig)
		m[i]++
		all = append(all, m)
	}
	return all
}

// Ours says yes exactly where the library does: signatures and keys good, mutated
// and swapped, in every form of the key.
func TestECDSA(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 1))
	yes := 0
	for range 3 {
		key, hash := randomKey(r), random32(r)
		good := ecdsa.Sign(key, hash[:])
		sig := good.Serialize()
		gr, gs := good.R(), good.S()
		gs.Negate()
		sigs := append(mutations(r, sig), der(gr.Bytes(), gs.Bytes())) // the high S is good too
		pub := key.PubKey()
		hybrid := pub.SerializeUncompressed()
		hybrid[0] = 6 + hybrid[64]&1
		keys := append([][]byte{pub.SerializeUncompressed(), hybrid, randomKey(r).PubKey().SerializeCompressed()},
			mutations(r, pub.SerializeCompressed())...)
		off := pub.SerializeUncompressed()
		off[64] ^= 1
		keys = append(keys, off)
		for _, k := range keys {
			for _, s := range sigs {
				got, want := secp256k1.VerifyECDSA(k, s, &hash), libraryECDSA(k, s, &hash)
				if len(k) == 65 && k[0] != 4 {
					want = false // left to the library
				}
				if got != want {
					t.Fatalf("seed %d: key %x, signature %x, hash %x: %v, the library says %v", seed, k, s, hash, got, want)
				}
				if got {
					yes++
					if !laxECDSA(k, s, &hash) {
						t.Fatalf("seed %d: key %x, signature %x: only strict parsing accepts it", seed, k, s)
					}
				}
			}
		}
	}
	if yes < 3*4 {
		t.Errorf("%d good ones, which proves little", yes)
	}
}

// der encodes r and s, each of 32 bytes, without asking what they are.
func der(r, s [32]byte) []byte {
	ints := append(derInt(r[:]), derInt(s[:])...)
	return append([]byte{0x30, byte(len(ints))}, ints...)
}

func derInt(v []byte) []byte {
	v = bytes.TrimLeft(v, "\x00")
	if len(v) == 0 || v[0]&0x80 != 0 {
		v = append([]byte{0}, v...)
	}
	return append([]byte{2, byte(len(v))}, v...)
}

// Values of r and s at the limits of the group: what is out of range is refused,
// what is in it is judged as the library does.
func TestECDSAEdges(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 2))
	key, hash := randomKey(r).PubKey().SerializeCompressed(), random32(r)
	n, p := btcec.S256().N, btcec.S256().P
	var edges [][32]byte
	for _, at := range []*big.Int{new(big.Int), n, p, new(big.Int).Rsh(n, 1), new(big.Int).Sub(p, n)} {
		for d := int64(-2); d <= 2; d++ {
			if v := new(big.Int).Add(at, big.NewInt(d)); v.Sign() >= 0 {
				var b [32]byte
				v.FillBytes(b[:])
				edges = append(edges, b)
			}
		}
	}
	for _, er := range edges {
		for _, es := range edges {
			sig := der(er, es)
			if got, want := secp256k1.VerifyECDSA(key, sig, &hash), libraryECDSA(key, sig, &hash); got != want {
				t.Errorf("r %x, s %x: %v, the library says %v", er, es, got, want)
			}
		}
	}
}

// forge makes a key for which r = x mod n and s sign hash, where x is the nonce
// point's: Q = (s·R − e·G)/r.
func forge(t *testing.T, nonce *btcec.JacobianPoint, s *btcec.ModNScalar, hash *[32]byte) (pub, sig []byte) {
	t.Helper()
	nonce.ToAffine()
	var r, e btcec.ModNScalar
	r.SetBytes(nonce.X.Bytes())
	e.SetBytes(hash)
	inv := new(btcec.ModNScalar).InverseValNonConst(&r)
	var sR, eG, q btcec.JacobianPoint
	btcec.ScalarMultNonConst(new(btcec.ModNScalar).Mul2(s, inv), nonce, &sR)
	btcec.ScalarBaseMultNonConst(e.Mul(inv).Negate(), &eG)
	btcec.AddNonConst(&sR, &eG, &q)
	q.ToAffine()
	return btcec.NewPublicKey(&q.X, &q.Y).SerializeCompressed(), der(r.Bytes(), s.Bytes())
}

// The x of the nonce point is compared modulo n: one that is n or more, which
// nobody meets by chance, is found.
func TestECDSAWrap(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 3))
	n := btcec.S256().N
	found := 0
	for d := int64(1); found < 20; d++ {
		var b [32]byte
		new(big.Int).Add(n, big.NewInt(d)).FillBytes(b[:])
		var nonce btcec.JacobianPoint
		nonce.X.SetBytes(&b)
		nonce.Z.SetInt(1)
		if !btcec.DecompressY(&nonce.X, d&1 == 1, &nonce.Y) {
			continue
		}
		nonce.Y.Normalize()
		found++
		hash := random32(r)
		s := scalar(new(big.Int).SetUint64(r.Uint64()))
		pub, sig := forge(t, &nonce, &s, &hash)
		if !libraryECDSA(pub, sig, &hash) || !secp256k1.VerifyECDSA(pub, sig, &hash) {
			t.Fatalf("x = n + %d: key %x, signature %x, hash %x is refused (library %v)", d, pub, sig, hash, libraryECDSA(pub, sig, &hash))
		}
	}
	// And a small r whose point has x = r, for r + n is out of reach or another point.
	for d := int64(1); d < 40; d++ {
		var nonce btcec.JacobianPoint
		nonce.X.SetInt(uint16(d))
		nonce.Z.SetInt(1)
		if !btcec.DecompressY(&nonce.X, false, &nonce.Y) {
			continue
		}
		nonce.Y.Normalize()
		hash := random32(r)
		s := scalar(big.NewInt(d))
		pub, sig := forge(t, &nonce, &s, &hash)
		if !secp256k1.VerifyECDSA(pub, sig, &hash) {
			t.Fatalf("x = %d is refused", d)
		}
	}
}

// The sum of the two multiples is infinity: e = −r·d and any s.
func TestECDSAInfinity(t *testing.T) {
	t.Parallel()
	d := scalar(big.NewInt(12345))
	key := btcec.PrivKeyFromScalar(&d)
	r := scalar(big.NewInt(99))
	hash := new(btcec.ModNScalar).Mul2(&r, &d).Negate().Bytes()
	s := scalar(big.NewInt(7))
	sig := der(r.Bytes(), s.Bytes())
	if pub := key.PubKey().SerializeCompressed(); secp256k1.VerifyECDSA(pub, sig, &hash) || libraryECDSA(pub, sig, &hash) {
		t.Error("infinity is accepted")
	}
	// A hash of zero and one of n and more are numbers like others.
	for _, hash := range [][32]byte{{}, [32]byte(bytes.Repeat([]byte{0xff}, 32))} {
		sig := ecdsa.Sign(key, hash[:]).Serialize()
		if !secp256k1.VerifyECDSA(key.PubKey().SerializeCompressed(), sig, &hash) {
			t.Errorf("hash %x: refused", hash)
		}
	}
}

// BIP340's own vectors, those with messages of 32 bytes.
func TestBIP340(t *testing.T) {
	t.Parallel()
	rows, err := csv.NewReader(bytes.NewReader(enginetest.Data(t, "bips/bip-0340_test-vectors.csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, row := range rows[1:] {
		pub, message, sig := unhex(t, row[2]), unhex(t, row[4]), unhex(t, row[5])
		if len(message) != 32 {
			continue
		}
		ran++
		if got := secp256k1.VerifySchnorr(pub, sig, (*[32]byte)(message)); got != (row[6] == "TRUE") {
			t.Errorf("vector %s (%s): %v", row[0], row[7], got)
		}
	}
	if ran != 15 {
		t.Errorf("%d vectors ran", ran)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Ours says yes exactly where the library does.
func TestSchnorr(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 4))
	yes := 0
	for range 3 {
		key, hash := randomKey(r), random32(r)
		good, err := schnorr.Sign(key, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		sig, pub := good.Serialize(), schnorr.SerializePubKey(key.PubKey())
		other := bytes.Clone(sig)
		s := new(btcec.ModNScalar)
		s.SetByteSlice(sig[32:])
		s.Negate()
		s.PutBytesUnchecked(other[32:])
		keys := append(mutations(r, pub), schnorr.SerializePubKey(randomKey(r).PubKey()))
		for _, k := range keys {
			for _, s := range append(mutations(r, sig), other) {
				got, want := secp256k1.VerifySchnorr(k, s, &hash), librarySchnorr(k, s, &hash)
				if got != want {
					t.Fatalf("seed %d: key %x, signature %x, hash %x: %v, the library says %v", seed, k, s, hash, got, want)
				}
				if got {
					yes++
				}
			}
		}
	}
	if yes < 3 {
		t.Errorf("%d good ones, which proves little", yes)
	}
}

// r, s and the key at the limits of the field and of the group.
func TestSchnorrEdges(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 5))
	hash := random32(r)
	n, p := btcec.S256().N, btcec.S256().P
	g, _ := hex.DecodeString("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
	edges := [][]byte{g}
	for _, at := range []*big.Int{new(big.Int), n, p} {
		for d := int64(-2); d <= 2; d++ {
			if v := new(big.Int).Add(at, big.NewInt(d)); v.Sign() >= 0 {
				edges = append(edges, v.FillBytes(make([]byte, 32)))
			}
		}
	}
	for _, er := range edges {
		for _, es := range edges {
			for _, k := range edges {
				sig := append(bytes.Clone(er), es...)
				if got, want := secp256k1.VerifySchnorr(k, sig, &hash), librarySchnorr(k, sig, &hash); got != want {
					t.Errorf("key %x, signature %x: %v, the library says %v", k, sig, got, want)
				}
			}
		}
	}
}

// FuzzECDSA compares with the library on whatever comes, and on a signature that is
// made from it: bytes alone hardly ever sign anything.
func FuzzECDSA(f *testing.F) {
	key, _ := btcec.PrivKeyFromBytes([]byte{1})
	var hash [32]byte
	f.Add(key.PubKey().SerializeCompressed(), ecdsa.Sign(key, hash[:]).Serialize(), hash[:], []byte{7})
	f.Add(key.PubKey().SerializeUncompressed(), der([32]byte{31: 1}, [32]byte{31: 1}), bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, pub, sig, message, secret []byte) {
		var hash [32]byte
		copy(hash[:], message)
		ours, theirs := secp256k1.VerifyECDSA(pub, sig, &hash), libraryECDSA(pub, sig, &hash)
		if ours && !theirs || theirs && !ours && (len(pub) == 33 || pub[0] == 4) {
			t.Errorf("%v, the library says %v", ours, theirs)
		}
		if ours && !laxECDSA(pub, sig, &hash) {
			t.Error("only strict parsing accepts it")
		}
		var d btcec.ModNScalar
		if d.SetByteSlice(secret); d.IsZero() {
			return
		}
		key := btcec.PrivKeyFromScalar(&d)
		made := ecdsa.Sign(key, hash[:]).Serialize()
		if !secp256k1.VerifyECDSA(key.PubKey().SerializeCompressed(), made, &hash) || !secp256k1.VerifyECDSA(key.PubKey().SerializeUncompressed(), made, &hash) {
			t.Errorf("secret %x, hash %x: refused", secret, hash)
		}
		// The same key with what came.
		pub = key.PubKey().SerializeCompressed()
		if ours, theirs := secp256k1.VerifyECDSA(pub, sig, &hash), libraryECDSA(pub, sig, &hash); ours != theirs {
			t.Errorf("key %x: %v, the library says %v", pub, ours, theirs)
		}
	})
}

// FuzzSchnorr is FuzzECDSA for BIP340.
func FuzzSchnorr(f *testing.F) {
	key, _ := btcec.PrivKeyFromBytes([]byte{1})
	var hash [32]byte
	sig, err := schnorr.Sign(key, hash[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(schnorr.SerializePubKey(key.PubKey()), sig.Serialize(), hash[:], []byte{7})
	f.Fuzz(func(t *testing.T, pub, sig, message, secret []byte) {
		var hash [32]byte
		copy(hash[:], message)
		if ours, theirs := secp256k1.VerifySchnorr(pub, sig, &hash), librarySchnorr(pub, sig, &hash); ours != theirs {
			t.Errorf("%v, the library says %v", ours, theirs)
		}
		var d btcec.ModNScalar
		if d.SetByteSlice(secret); d.IsZero() {
			return
		}
		key := btcec.PrivKeyFromScalar(&d)
		made, err := schnorr.Sign(key, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		pub = schnorr.SerializePubKey(key.PubKey())
		if !secp256k1.VerifySchnorr(pub, made.Serialize(), &hash) {
			t.Errorf("secret %x, hash %x: refused", secret, hash)
		}
		if ours, theirs := secp256k1.VerifySchnorr(pub, sig, &hash), librarySchnorr(pub, sig, &hash); ours != theirs {
			t.Errorf("key %x: %v, the library says %v", pub, ours, theirs)
		}
	})
}

// BenchmarkVerify times a verification from bytes, ours and the library's.
func BenchmarkVerify(b *testing.B) {
	r := rand.New(rand.NewPCG(seed, 6))
	key, hash := randomKey(r), random32(r)
	pub, sig := key.PubKey().SerializeCompressed(), ecdsa.Sign(key, hash[:]).Serialize()
	made, err := schnorr.Sign(key, hash[:])
	if err != nil {
		b.Fatal(err)
	}
	xOnly, schnorrSig := schnorr.SerializePubKey(key.PubKey()), made.Serialize()
	for _, bb := range []struct {
		name   string
		verify func(pub, sig []byte, hash *[32]byte) bool
		pub    []byte
		sig    []byte
	}{
		{"ecdsa/ours", secp256k1.VerifyECDSA, pub, sig},
		{"ecdsa/library", libraryECDSA, pub, sig},
		{"schnorr/ours", secp256k1.VerifySchnorr, xOnly, schnorrSig},
		{"schnorr/library", librarySchnorr, xOnly, schnorrSig},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bb.verify(bb.pub, bb.sig, &hash) {
					b.Fatal("refused")
				}
			}
		})
	}
}
