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
func (z *field) mul(x, y *field) {
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]
	var c uint64

	// The product of eight words, r0 to r7, one word of x at a time: first the low
	// halves of its four products, then, one place up, the high ones.
	a := x[0]
	h0, r0 := bits.Mul64(a, y0)
	h1, l1 := bits.Mul64(a, y1)
	r1, c := bits.Add64(h0, l1, 0)
	h2, l2 := bits.Mul64(a, y2)
	r2, c := bits.Add64(h1, l2, c)
	h3, l3 := bits.Mul64(a, y3)
	r3, c := bits.Add64(h2, l3, c)
	r4 := h3 + c

	a = x[1]
	h0, l0 := bits.Mul64(a, y0)
	r1, c = bits.Add64(r1, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r2, c = bits.Add64(r2, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r3, c = bits.Add64(r3, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r4, c = bits.Add64(r4, l3, c)
	r5 := h3 + c
	r2, c = bits.Add64(r2, h0, 0)
	r3, c = bits.Add64(r3, h1, c)
	r4, c = bits.Add64(r4, h2, c)
	r5 += c

	a = x[2]
	h0, l0 = bits.Mul64(a, y0)
	r2, c = bits.Add64(r2, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r3, c = bits.Add64(r3, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r4, c = bits.Add64(r4, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r5, c = bits.Add64(r5, l3, c)
	r6 := h3 + c
	r3, c = bits.Add64(r3, h0, 0)
	r4, c = bits.Add64(r4, h1, c)
	r5, c = bits.Add64(r5, h2, c)
	r6 += c

	a = x[3]
	h0, l0 = bits.Mul64(a, y0)
	r3, c = bits.Add64(r3, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r4, c = bits.Add64(r4, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r5, c = bits.Add64(r5, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r6, c = bits.Add64(r6, l3, c)
	r7 := h3 + c
	r4, c = bits.Add64(r4, h0, 0)
	r5, c = bits.Add64(r5, h1, c)
	r6, c = bits.Add64(r6, h2, c)
	r7 += c

	// A word from r4 on is worth foldP times the word four places down.
	h0, l0 = bits.Mul64(r4, foldP)
	h1, l1 = bits.Mul64(r5, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, l1, c)
	h2, l2 = bits.Mul64(r6, foldP)
	r2, c = bits.Add64(r2, l2, c)
	h3, l3 = bits.Mul64(r7, foldP)
	r3, c = bits.Add64(r3, l3, c)
	h3 += c
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, h1, c)
	r3, c = bits.Add64(r3, h2, c)
	// h3 + c is below 2^34: once more.
	h0, l0 = bits.Mul64(h3+c, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, h0, c)
	r2, c = bits.Add64(r2, 0, c)
	r3, c = bits.Add64(r3, 0, c)
	// A carry now leaves less than 2^67.
	r0, c = bits.Add64(r0, foldP&-c, 0)
	z[0], z[1], z[2], z[3] = r0, r1+c, r2, r3
}

// square sets z to x·x.
func (z *field) square(x *field) {
	x0, x1, x2, x3 := x[0], x[1], x[2], x[3]
	var c uint64
	// Products of different words, once.
	r2, r1 := bits.Mul64(x0, x1)
	h02, l02 := bits.Mul64(x0, x2)
	h03, l03 := bits.Mul64(x0, x3)
	r2, c = bits.Add64(r2, l02, 0)
	r3, c := bits.Add64(h02, l03, c)
	r4 := h03 + c
	h12, l12 := bits.Mul64(x1, x2)
	h13, l13 := bits.Mul64(x1, x3)
	h23, l23 := bits.Mul64(x2, x3)
	r3, c = bits.Add64(r3, l12, 0)
	r4, c = bits.Add64(r4, h12, c)
	r5 := c
	r4, c = bits.Add64(r4, l13, 0)
	r5, c = bits.Add64(r5, h13, c)
	r6 := c
	r5, c = bits.Add64(r5, l23, 0)
	r6 += h23 + c
	// Twice.
	r7 := r6 >> 63
	r6 = r6<<1 | r5>>63
	r5 = r5<<1 | r4>>63
	r4 = r4<<1 | r3>>63
	r3 = r3<<1 | r2>>63
	r2 = r2<<1 | r1>>63
	r1 <<= 1
	// Squares.
	h0, r0 := bits.Mul64(x0, x0)
	h1, l1 := bits.Mul64(x1, x1)
	h2, l2 := bits.Mul64(x2, x2)
	h3, l3 := bits.Mul64(x3, x3)
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, l1, c)
	r3, c = bits.Add64(r3, h1, c)
	r4, c = bits.Add64(r4, l2, c)
	r5, c = bits.Add64(r5, h2, c)
	r6, c = bits.Add64(r6, l3, c)
	r7 += h3 + c

	// A word from r4 on is worth foldP times the word four places down.
	h0, l0 := bits.Mul64(r4, foldP)
	h1, l1 = bits.Mul64(r5, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, l1, c)
	h2, l2 = bits.Mul64(r6, foldP)
	r2, c = bits.Add64(r2, l2, c)
	h3, l3 = bits.Mul64(r7, foldP)
	r3, c = bits.Add64(r3, l3, c)
	h3 += c
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, h1, c)
	r3, c = bits.Add64(r3, h2, c)
	// h3 + c is below 2^34: once more.
	h0, l0 = bits.Mul64(h3+c, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, h0, c)
	r2, c = bits.Add64(r2, 0, c)
	r3, c = bits.Add64(r3, 0, c)
	// A carry now leaves less than 2^67.
	r0, c = bits.Add64(r0, foldP&-c, 0)
	z[0], z[1], z[2], z[3] = r0, r1+c, r2, r3
}

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
