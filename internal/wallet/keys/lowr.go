package keys

import (
	"encoding/binary"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
)

// signLowR signs as Bitcoin Core does: the nonce is that of RFC6979, and while R would take 33 bytes in DER, again with a
// counter as extra data. Half of all signatures need no second try; all are a byte shorter at most, and of
// one look. It takes, as the library that it calls, no constant time.
func signLowR(key *btcec.PrivateKey, hash [32]byte) *ecdsa.Signature {
	if sig := ecdsa.Sign(key, hash[:]); isLow(sig.R()) {
		return sig
	}
	secret := key.Serialize()
	defer wipe(secret)
	var e btcec.ModNScalar
	e.SetBytes(&hash)
	for counter := uint32(1); ; counter++ {
		var extra [32]byte
		binary.LittleEndian.PutUint32(extra[:], counter)
		if sig := signWith(&key.Key, &e, btcec.NonceRFC6979(secret, hash[:], extra[:], nil, 0)); sig != nil {
			return sig
		}
	}
}

// signWith makes a signature of low R and S with a nonce, which it wipes; nil if there is none.
func signWith(key, e, nonce *btcec.ModNScalar) *ecdsa.Signature {
	defer nonce.Zero()
	var point btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(nonce, &point)
	point.ToAffine()
	var r btcec.ModNScalar
	if over := r.SetBytes(point.X.Bytes()); over != 0 || r.IsZero() || !isLow(r) {
		return nil
	}
	s := new(btcec.ModNScalar).InverseValNonConst(nonce)
	s.Mul(new(btcec.ModNScalar).Mul2(key, &r).Add(e))
	if s.IsZero() {
		return nil
	}
	if s.IsOverHalfOrder() {
		s.Negate()
	}
	return ecdsa.NewSignature(&r, s)
}

// isLow says whether a number takes 32 bytes in DER.
func isLow(r btcec.ModNScalar) bool {
	const sign = 0x80
	return r.Bytes()[0] < sign
}
