package secp256k1

import (
	"encoding/binary"
	"math/bits"
)

// A field is an integer modulo p = 2^256 − 2^32 − 977 in four words, the least
// first. Every value of the words is allowed and stands for its remainder: what
// lies between p and 2^256 is not reduced before somebody looks (isZero, equal,
// bytes). So no operation has a condition on its operands, and no caller must
// count magnitudes. Any operand may be the result.
type field [4]uint64

// foldP is 2^256 mod p: how much a carry out of the highest word is worth.
const foldP = 1<<32 + 977

// primeP is p.
var primeP = field{^uint64(0) - foldP + 1, ^uint64(0), ^uint64(0), ^uint64(0)}

// setBytes sets z to the big-endian b and says whether it is below p.
func (z *field) setBytes(b *[32]byte) bool {
	z[3] = binary.BigEndian.Uint64(b[0:])
	z[2] = binary.BigEndian.Uint64(b[8:])
	z[1] = binary.BigEndian.Uint64(b[16:])
	z[0] = binary.BigEndian.Uint64(b[24:])
	return !z.overflows()
}

// overflows says whether the words are p or more.
func (z *field) overflows() bool {
	return z[3]&z[2]&z[1] == ^uint64(0) && z[0] >= primeP[0]
}

// reduced returns the remainder itself.
func (z *field) reduced() field {
	if !z.overflows() {
		return *z
	}
	return field{z[0] - primeP[0], 0, 0, 0}
}

// bytes is the remainder in big-endian form.
func (z *field) bytes() (b [32]byte) {
	r := z.reduced()
	binary.BigEndian.PutUint64(b[0:], r[3])
	binary.BigEndian.PutUint64(b[8:], r[2])
	binary.BigEndian.PutUint64(b[16:], r[1])
	binary.BigEndian.PutUint64(b[24:], r[0])
	return b
}

func (z *field) isZero() bool {
	return z[0]|z[1]|z[2]|z[3] == 0 || *z == primeP
}

func (z *field) isOdd() bool {
	r := z.reduced()
	return r[0]&1 == 1
}

func (z *field) equal(x *field) bool {
	return z.reduced() == x.reduced()
}

// add sets z to x + y.
func (z *field) add(x, y *field) {
	z0, c := bits.Add64(x[0], y[0], 0)
	z1, c := bits.Add64(x[1], y[1], c)
	z2, c := bits.Add64(x[2], y[2], c)
	z3, c := bits.Add64(x[3], y[3], c)
	z0, c = bits.Add64(z0, foldP&-c, 0)
	z1, c = bits.Add64(z1, 0, c)
	z2, c = bits.Add64(z2, 0, c)
	z3, c = bits.Add64(z3, 0, c)
	// A second carry leaves less than foldP.
	z0 += foldP & -c
	z[0], z[1], z[2], z[3] = z0, z1, z2, z3
}

// sub sets z to x − y.
func (z *field) sub(x, y *field) {
	z0, b := bits.Sub64(x[0], y[0], 0)
	z1, b := bits.Sub64(x[1], y[1], b)
	z2, b := bits.Sub64(x[2], y[2], b)
	z3, b := bits.Sub64(x[3], y[3], b)
	z0, b = bits.Sub64(z0, foldP&-b, 0)
	z1, b = bits.Sub64(z1, 0, b)
	z2, b = bits.Sub64(z2, 0, b)
	z3, b = bits.Sub64(z3, 0, b)
	// A second borrow leaves 2^256 − foldP or more.
	z0 -= foldP & -b
	z[0], z[1], z[2], z[3] = z0, z1, z2, z3
}

// neg sets z to −x.
func (z *field) neg(x *field) {
	z.sub(&field{}, x)
}

// half sets z to x/2.
func (z *field) half(x *field) {
	// An odd x becomes even by adding the odd p, which has 257 bits.
	m := -(x[0] & 1)
	z0, c := bits.Add64(x[0], primeP[0]&m, 0)
	z1, c := bits.Add64(x[1], m, c)
	z2, c := bits.Add64(x[2], m, c)
	z3, c := bits.Add64(x[3], m, c)
	z[0] = z0>>1 | z1<<63
	z[1] = z1>>1 | z2<<63
	z[2] = z2>>1 | z3<<63
	z[3] = z3>>1 | c<<63
}

// mul sets z to x·y.
func (z *field) mul(x, y *field) { mulField(z, x, y) }

// square sets z to x·x.
func (z *field) square(x *field) { squareField(z, x) }

// squares sets z to x squared n times.
func (z *field) squares(x *field, n int) {
	*z = *x
	for range n {
		z.square(z)
	}
}

// powers sets a to z^(2^22 − 1) and b to z^(2^223 − 1), which both long powers share.
func (z *field) powers(a, b *field) {
	// xn is z^(2^n − 1): x(m+n) = xm^(2^n)·xn.
	var x2, x3, x6, x9, x11, x44, x88, x176, x220 field
	x2.square(z)
	x2.mul(&x2, z)
	x3.square(&x2)
	x3.mul(&x3, z)
	x6.squares(&x3, 3)
	x6.mul(&x6, &x3)
	x9.squares(&x6, 3)
	x9.mul(&x9, &x3)
	x11.squares(&x9, 2)
	x11.mul(&x11, &x2)
	a.squares(&x11, 11)
	a.mul(a, &x11)
	x44.squares(a, 22)
	x44.mul(&x44, a)
	x88.squares(&x44, 44)
	x88.mul(&x88, &x44)
	x176.squares(&x88, 88)
	x176.mul(&x176, &x88)
	x220.squares(&x176, 44)
	x220.mul(&x220, &x44)
	b.squares(&x220, 3)
	b.mul(b, &x3)
}

// inverse sets z to 1/x, or to 0 for 0, as x^(p−2).
func (z *field) inverse(x *field) {
	// p − 2 is 223 ones, a zero, 22 ones, and 0000101101.
	one := *x
	var x2, x22, r field
	x2.square(&one)
	x2.mul(&x2, &one)
	one.powers(&x22, &r)
	r.squares(&r, 23)
	r.mul(&r, &x22)
	r.squares(&r, 5)
	r.mul(&r, &one)
	r.squares(&r, 3)
	r.mul(&r, &x2)
	r.squares(&r, 2)
	z.mul(&r, &one)
}

// sqrt sets z to a square root of x, as x^((p+1)/4), and says whether x has one.
func (z *field) sqrt(x *field) bool {
	// (p + 1)/4 is 223 ones, a zero, 22 ones, and 00001100.
	square := *x
	var x2, x22, r field
	x2.square(&square)
	x2.mul(&x2, &square)
	square.powers(&x22, &r)
	r.squares(&r, 23)
	r.mul(&r, &x22)
	r.squares(&r, 6)
	r.mul(&r, &x2)
	r.squares(&r, 2)
	*z = r
	r.square(&r)
	return r.equal(&square)
}
