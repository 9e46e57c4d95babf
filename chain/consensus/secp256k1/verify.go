// Package secp256k1 verifies signatures on the curve of that name, three to four
// times as fast as the library that decides in the end.
//
// It only ever says yes: true means that the library (btcec, as txscript calls it)
// accepts the signature too; false that nothing was shown and the library must be
// asked. So a fault here that refuses costs time, and only one that accepts would
// matter; the tests compare every layer with the library.
//
// It is for public data: nothing takes a constant time, and there is no signing.
// All functions are pure and safe for concurrent use.
package secp256k1

import (
	"crypto/sha256"
)

// VerifyECDSA says whether sig, in strict DER (BIP66, without a hash type), is a
// signature of hash by pub, which has 33 bytes that start with 2 or 3 or 65 that
// start with 4. High values of s are good, as they are in blocks.
func VerifyECDSA(pub, sig []byte, hash *[32]byte) bool {
	var r, s scalar
	if !parseDER(sig, &r, &s) {
		return false
	}
	var a affine
	if !a.parse(pub) {
		return false
	}
	var e, w scalar
	e.SetBytes(hash)
	w.InverseValNonConst(&s)
	var p point
	p.mulAdd(e.Mul(&w), w.Mul(&r), &a)
	if p.inf {
		return false
	}
	// The affine x, taken modulo n, must be r: x is r, or r + n if that is below p.
	var zz, x, sum field
	zz.square(&p.z)
	x = words(&r)
	sum.mul(&x, &zz)
	if sum.equal(&p.x) {
		return true
	}
	if !lessThanPMinusN(&x) {
		return false
	}
	x.add(&x, &orderN)
	sum.mul(&x, &zz)
	return sum.equal(&p.x)
}

// VerifySchnorr says whether sig is a BIP340 signature of hash by the x-only key
// pub.
func VerifySchnorr(pub, sig []byte, hash *[32]byte) bool {
	if len(pub) != 32 || len(sig) != 64 {
		return false
	}
	var r, x field
	var s, e scalar
	if !r.setBytes((*[32]byte)(sig)) || !x.setBytes((*[32]byte)(pub)) || s.SetBytes((*[32]byte)(sig[32:])) != 0 {
		return false
	}
	var a affine
	if !a.lift(&x, false) {
		return false
	}
	challenge := challengeTag
	copy(challenge[64:], sig[:32])
	copy(challenge[96:], pub)
	copy(challenge[128:], hash[:])
	sum := sha256.Sum256(challenge[:])
	e.SetBytes(&sum)
	var p point
	p.mulAdd(&s, e.Negate(), &a)
	if p.inf {
		return false
	}
	var zz, t field
	zz.square(&p.z)
	t.mul(&r, &zz)
	if !t.equal(&p.x) {
		return false
	}
	zz.mul(&zz, &p.z)
	zz.inverse(&zz)
	t.mul(&p.y, &zz)
	return !t.isOdd()
}

// challengeTag is what BIP340 hashes before r, key and message, and room for these.
var challengeTag = func() (b [160]byte) {
	tag := sha256.Sum256([]byte("BIP0340/challenge"))
	copy(b[:], tag[:])
	copy(b[32:], tag[:])
	return b
}()

// orderN is n, the order of the group.
var orderN = field{0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe, 0xffffffffffffffff}

// lessThanPMinusN says whether x + n is below p, that is x below p − n.
func lessThanPMinusN(x *field) bool {
	var pn field
	pn.sub(&primeP, &orderN)
	for i := 3; i >= 0; i-- {
		if x[i] != pn[i] {
			return x[i] < pn[i]
		}
	}
	return false
}

// parse sets a to the key of 33 or 65 bytes, if it is one.
func (a *affine) parse(pub []byte) bool {
	switch {
	case len(pub) == 33 && pub[0]|1 == 3:
		var x field
		return x.setBytes((*[32]byte)(pub[1:])) && a.lift(&x, pub[0] == 3)
	case len(pub) == 65 && pub[0] == 4:
		return a.x.setBytes((*[32]byte)(pub[1:])) && a.y.setBytes((*[32]byte)(pub[33:])) && a.onCurve()
	}
	return false
}

// parseDER reads 0x30 n 0x02 n r 0x02 n s, integers positive and in their shortest
// form and from 1 to n − 1, and nothing else.
func parseDER(sig []byte, r, s *scalar) bool {
	if len(sig) < 8 || sig[0] != 0x30 || int(sig[1]) != len(sig)-2 {
		return false
	}
	rest, ok := parseInt(sig[2:], r)
	if !ok {
		return false
	}
	rest, ok = parseInt(rest, s)
	return ok && len(rest) == 0
}

func parseInt(b []byte, k *scalar) (rest []byte, ok bool) {
	if len(b) < 3 || b[0] != 0x02 || b[1] == 0 || int(b[1]) > len(b)-2 {
		return nil, false
	}
	v, rest := b[2:2+int(b[1])], b[2+int(b[1]):]
	if v[0]&0x80 != 0 || v[0] == 0 && (len(v) == 1 || v[1]&0x80 == 0) {
		return nil, false // negative, zero, or a zero too many
	}
	if v[0] == 0 {
		v = v[1:]
	}
	if len(v) > 32 {
		return nil, false
	}
	var whole [32]byte
	copy(whole[32-len(v):], v)
	return rest, k.SetBytes(&whole) == 0 && !k.IsZero()
}
