package secp256k1

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/btcsuite/btcd/btcec/v2"
)

// A scalar is an integer modulo the order n of the group. Their arithmetic is the
// library's: it takes a hundredth of a verification.
type scalar = btcec.ModNScalar

// An affine point is one of the curve y² = x³ + 7 that is not infinity.
type affine struct{ x, y field }

// A point is (x/z², y/z³), or infinity when inf is set; then the rest is void.
type point struct {
	x, y, z field
	inf     bool
}

var fieldOne = field{1}

// onCurve says whether a satisfies the equation.
func (a *affine) onCurve() bool {
	var l, r field
	l.square(&a.y)
	r.rightSide(&a.x)
	return l.equal(&r)
}

// rightSide sets z to x³ + 7.
func (z *field) rightSide(x *field) {
	var t field
	t.square(x)
	t.mul(&t, x)
	z.add(&t, &field{7})
}

// lift sets a to the point at x with an odd or even y, if there is one.
func (a *affine) lift(x *field, odd bool) bool {
	var r field
	r.rightSide(x)
	a.x = *x
	if !a.y.sqrt(&r) {
		return false
	}
	if a.y.isOdd() != odd {
		a.y.neg(&a.y)
	}
	return true
}

// double sets p to 2q. No point of the curve has y = 0, for the order is odd.
func (p *point) double(q *point) {
	if q.inf {
		p.inf = true
		return
	}
	// L = 3/2·x², S = y², T = −x·S: x' = L² + 2T, y' = −(L·(x' + T) + S²), z' = y·z.
	var l, s, t, u field
	p.z.mul(&q.y, &q.z)
	s.square(&q.y)
	l.square(&q.x)
	u.add(&l, &l)
	l.add(&u, &l)
	l.half(&l)
	t.mul(&q.x, &s)
	t.neg(&t)
	p.x.square(&l)
	p.x.add(&p.x, &t)
	p.x.add(&p.x, &t)
	u.add(&p.x, &t)
	u.mul(&u, &l)
	s.square(&s)
	u.add(&u, &s)
	p.y.neg(&u)
	p.inf = false
}

// addAffine sets p to p + a. ratio is by what z was multiplied; it is void if p or
// the sum is infinity or the points were the same.
func (p *point) addAffine(a *affine, ratio *field) {
	if p.inf {
		*p = point{x: a.x, y: a.y, z: fieldOne}
		return
	}
	p.addAt(a, &p.z, ratio)
}

// addAt adds a, for which the z of p is az: that of p itself, or multiplied by the z
// of the curve that p is on (see mulAdd).
func (p *point) addAt(a *affine, az, ratio *field) {
	// U = a.x·z² − x, V = a.y·z³ − y: x' = V² − U³ − 2x·U², y' = V·(x·U² − x') − y·U³,
	// z' = z·U.
	var zz, u, v, uu, uuu, t field
	zz.square(az)
	u.mul(&a.x, &zz)
	u.sub(&u, &p.x)
	zz.mul(&zz, az)
	v.mul(&a.y, &zz)
	v.sub(&v, &p.y)
	if u.isZero() {
		if v.isZero() {
			p.double(p)
		} else {
			p.inf = true
		}
		return
	}
	if ratio != nil {
		*ratio = u
	}
	p.z.mul(&p.z, &u)
	uu.square(&u)
	uuu.mul(&uu, &u)
	t.mul(&p.x, &uu)
	p.x.square(&v)
	p.x.sub(&p.x, &uuu)
	p.x.sub(&p.x, &t)
	p.x.sub(&p.x, &t)
	t.sub(&t, &p.x)
	t.mul(&t, &v)
	uuu.mul(&uuu, &p.y)
	p.y.sub(&t, &uuu)
}

// Widths of the windows: digits are odd and of at most so many bits with their
// sign. Of the generator there is a table that stays in the second-level cache.
const (
	windowP, oddsP = 5, 1 << (windowP - 2)
	windowG, oddsG = 12, 1 << (windowG - 2)
)

// generator returns the odd multiples of G and of 2^128·G: 128 KiB, made in about
// a millisecond when first wanted.
var generator = sync.OnceValue(func() *[2][oddsG]affine {
	base := affine{
		x: field{0x59f2815b16f81798, 0x029bfcdb2dce28d9, 0x55a06295ce870b07, 0x79be667ef9dcbbac},
		y: field{0x9c47d08ffb10d4b8, 0xfd17b448a6855419, 0x5da4fbfc0e1108a8, 0x483ada7726a3c465},
	}
	tables := new([2][oddsG]affine)
	for i := range tables {
		z := oddMultiples(&base, tables[i][:])
		z.inverse(&z)
		for j := range tables[i] {
			tables[i][j].scale(&z)
		}
		p := point{x: base.x, y: base.y, z: fieldOne}
		for range 128 {
			p.double(&p)
		}
		p.z.inverse(&p.z)
		base = affine{p.x, p.y}
		base.scale(&p.z)
	}
	return tables
})

// scale multiplies x by z² and y by z³.
func (a *affine) scale(z *field) {
	var zz field
	zz.square(z)
	a.x.mul(&a.x, &zz)
	zz.mul(&zz, z)
	a.y.mul(&a.y, &zz)
}

// oddMultiples fills t with a, 3a, 5a and so on, all with the same z, which it
// returns. So they are affine points of the curve y² = x³ + 7z⁶, where the same
// formulas hold, for none of them uses the 7.
func oddMultiples(a *affine, t []affine) (z field) {
	// 2a is affine on such a curve too, which saves work in adding it.
	p := point{x: a.x, y: a.y, z: fieldOne}
	p.double(&p)
	two, twoZ := affine{p.x, p.y}, p.z
	t[0] = *a
	t[0].scale(&twoZ)
	p = point{x: t[0].x, y: t[0].y, z: fieldOne}
	ratios := make([]field, len(t)) // of the z of t[i] to that of t[i-1]
	for i := 1; i < len(t); i++ {
		p.addAffine(&two, &ratios[i]) // never the same or opposite: n is prime and large
		t[i] = affine{p.x, p.y}
	}
	toLast := fieldOne
	for i := len(t) - 1; i > 0; i-- {
		toLast.mul(&toLast, &ratios[i])
		t[i-1].scale(&toLast)
	}
	z.mul(&p.z, &twoZ)
	return z
}

// mulAdd sets p to g·G + k·a (Strauss's method: all parts share the doublings).
// g is split at 2^128, and k by the curve's endomorphism.
func (p *point) mulAdd(g, k *scalar, a *affine) {
	var odds, lambda [oddsP]affine
	z := oddMultiples(a, odds[:])
	k1, k2 := split(k)
	var digits [4]wNAF
	n := digits[0].signed(&k1, windowP)
	n = max(n, digits[1].signed(&k2, windowP))
	w := words(g)
	n = max(n, digits[2].set([4]uint64{w[0], w[1]}, windowG))
	n = max(n, digits[3].set([4]uint64{w[2], w[3]}, windowG))
	for i := range odds {
		lambda[i].x.mul(&odds[i].x, &beta)
		lambda[i].y = odds[i].y
	}
	gs := generator()

	// p is a point of the curve where odds are affine: with z it is one of ours.
	p.inf = true
	var at affine
	var az field
	for i := n - 1; i >= 0; i-- {
		p.double(p)
		if d := digits[0][i]; d != 0 {
			at.pick(odds[:], d)
			p.addAffine(&at, nil)
		}
		if d := digits[1][i]; d != 0 {
			at.pick(lambda[:], d)
			p.addAffine(&at, nil)
		}
		for j := range gs {
			d := digits[2+j][i]
			if d == 0 {
				continue
			}
			at.pick(gs[j][:], d)
			if p.inf {
				at.scale(&z)
				p.addAffine(&at, nil)
				continue
			}
			az.mul(&p.z, &z)
			p.addAt(&at, &az, nil)
		}
	}
	p.z.mul(&p.z, &z)
}

// pick sets a to d times the first entry of a table of odd multiples.
func (a *affine) pick(t []affine, d int16) {
	if d > 0 {
		*a = t[d>>1]
		return
	}
	*a = t[-d>>1]
	a.y.neg(&a.y)
}

// A wNAF is a number as Σ d[i]·2^i, with digits that are 0 or odd and rare.
type wNAF [258]int16

// signed sets d to the number of least size that is k modulo n, and returns how
// many digits matter.
func (d *wNAF) signed(k *scalar, width int) int {
	negative := k.IsOverHalfOrder()
	if negative {
		k = new(scalar).NegateVal(k)
	}
	n := d.set(words(k), width)
	if negative {
		for i := range d[:n] {
			d[i] = -d[i]
		}
	}
	return n
}

// set sets d, which is zero, and returns how many digits matter.
func (d *wNAF) set(w [4]uint64, width int) int {
	length := 0
	for i, v := range w {
		if v != 0 {
			length = 64*i + bits.Len64(v)
		}
	}
	var carry uint64
	last := 0
	for i := 0; i <= length; {
		if word(&w, i)&1 == carry {
			i++
			continue
		}
		v := word(&w, i)&(1<<width-1) + carry
		carry = v >> (width - 1) // v is odd: 2^width is out of reach
		d[i] = int16(v) - int16(carry<<width)
		last = i
		i += width
	}
	return last + 1
}

// word returns the 64 bits of w from bit i on.
func word(w *[4]uint64, i int) uint64 {
	n, s := i>>6, i&63
	if n >= len(w) {
		return 0
	}
	v := w[n] >> s
	if n+1 < len(w) {
		v |= w[n+1] << (64 - s) // a shift by 64 gives 0
	}
	return v
}

// words returns k's words, the least first.
func words(k *scalar) [4]uint64 {
	var b [32]byte
	k.PutBytesUnchecked(b[:])
	return wordsOf(&b)
}

// Constants of the endomorphism: λ·(x, y) = (β·x, y). (a1, b1) and (a2, b2) are
// short vectors with a + b·λ = 0 modulo n; estimate1 is 2^384·b2/n and estimate2
// 2^384·(−b1)/n, rounded (Guide to Elliptic Curve Cryptography, algorithm 3.74).
var (
	beta      = field{0xc1396c28719501ee, 0x9cf0497512f58995, 0x6e64479eac3434e9, 0x7ae96a2b657c0710}
	lambdaN   = scalarOf(0x5363ad4cc05c30e0, 0xa5261c028812645a, 0x122e22ea20816678, 0xdf02967c1b23bd72)
	minusB1   = scalarOf(0, 0, 0xe4437ed6010e8828, 0x6f547fa90abfe4c3)
	minusB2   = scalarOf(0xffffffffffffffff, 0xfffffffffffffffe, 0x8a280ac50774346d, 0xd765cda83db1562c)
	estimate1 = [4]uint64{0xe893209a45dbb031, 0x3daa8a1471e8ca7f, 0xe86c90e49284eb15, 0x3086d221a7d46bcd}
	estimate2 = [4]uint64{0x1571b4ae8ac47f71, 0x221208ac9df506c6, 0x6f547fa90abfe4c4, 0xe4437ed6010e8828}
)

func scalarOf(w3, w2, w1, w0 uint64) (k scalar) {
	var b [32]byte
	for i, w := range []uint64{w3, w2, w1, w0} {
		binary.BigEndian.PutUint64(b[8*i:], w)
	}
	k.SetBytes(&b)
	return k
}

// split returns k1 and k2 with k1 + k2·λ = k modulo n. They are short (128 bits and
// a sign), but only the speed depends on that.
func split(k *scalar) (k1, k2 scalar) {
	w := words(k)
	c1, c2 := shift384(&w, &estimate1), shift384(&w, &estimate2)
	c1.Mul(&minusB1)
	c2.Mul(&minusB2)
	k2.Add2(&c1, &c2)
	k1.NegateVal(&k2).Mul(&lambdaN).Add(k)
	return k1, k2
}

// shift384 returns x·y/2^384, rounded.
func shift384(x, y *[4]uint64) scalar {
	var r [8]uint64
	for i, a := range x {
		var carry uint64
		for j, b := range y {
			h, l := bits.Mul64(a, b)
			l, c := bits.Add64(l, carry, 0)
			h += c
			r[i+j], c = bits.Add64(r[i+j], l, 0)
			carry = h + c
		}
		r[i+4] = carry
	}
	l, c := bits.Add64(r[6], r[5]>>63, 0)
	return scalarOf(0, 0, r[7]+c, l)
}
