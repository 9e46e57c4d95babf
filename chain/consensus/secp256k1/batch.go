package secp256k1

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// A Schnorr is a BIP340 signature to be verified among others.
type Schnorr struct {
	Pub  [32]byte // x-only
	Sig  [64]byte
	Hash [32]byte
}

// leastBatch is from how many signatures on a batch is faster than one by one, also if
// each is by another key.
const leastBatch = 16

// VerifySchnorrBatch says whether all of list are signatures, as [VerifySchnorr] does of
// one. Where there are many it takes an eighth of the time, and a fourth if each is by
// another key. As everywhere here false shows nothing: ask for each.
//
// It is BIP340's batch verification: of s·G = R + e·P each side is summed up with factors
// that nobody can choose, for they are a hash of all that is verified; a sum that holds
// although a part does not takes 2^128 tries.
func VerifySchnorrBatch(list []Schnorr) bool {
	n := len(list)
	if n < leastBatch {
		return false
	}
	// Of all points the signatures' R come first, then the keys.
	xs := make([]field, n, n+8)
	place := make(map[[32]byte]int, 8) // of a key
	all := sha256.New()
	for i := range list {
		v := &list[i]
		all.Write(v.Pub[:])
		all.Write(v.Sig[:])
		all.Write(v.Hash[:])
		if !xs[i].setBytes((*[32]byte)(v.Sig[:])) {
			return false
		}
		if _, ok := place[v.Pub]; !ok {
			var x field
			if !x.setBytes(&v.Pub) {
				return false
			}
			place[v.Pub] = len(xs)
			xs = append(xs, x)
		}
	}
	points := make([]affine, len(xs))
	if !liftAll(points, xs) {
		return false
	}
	rs, keys := points[:n], points[n:]

	var seed [40]byte // of the factors, and room for a counter
	all.Sum(seed[:0])
	t := terms{make([]affine, 0, n+2*len(keys)), make([]multiple, 0, n+2*len(keys))}
	challenges := make([]products, len(keys)) // by key
	var sum products                          // of the s
	challenge := challengeTag
	var hash [32]byte
	for i := range list {
		v := &list[i]
		s := wordsOf((*[32]byte)(v.Sig[32:]))
		if !below(&s, &orderN) {
			return false
		}
		copy(challenge[64:], v.Sig[:32])
		copy(challenge[96:], v.Pub[:])
		copy(challenge[128:], v.Hash[:])
		digest := sha256.Sum256(challenge[:])
		e := wordsOf(&digest)

		if i%2 == 0 { // a hash has the bits of two factors
			binary.LittleEndian.PutUint64(seed[32:], uint64(i))
			hash = sha256.Sum256(seed[:])
		}
		half := hash[i%2*16:]
		m := multiple{binary.LittleEndian.Uint64(half), binary.LittleEndian.Uint64(half[8:])}
		sum.add(&s, &m)
		challenges[place[v.Pub]-n].add(&e, &m)
		t.points, t.multiples = append(t.points, rs[i]), append(t.multiples, m)
	}

	// The first key is taken to the other side, where it shares the doublings of G.
	for i := range keys[1:] {
		k := challenges[i+1].scalar()
		if !t.add(&keys[i+1], &k) {
			return false
		}
	}
	var left point
	g, k := sum.scalar(), challenges[0].scalar()
	left.mulAdd(&g, k.Negate(), &keys[0])
	right := t.sum()
	return left.equal(&right)
}

// products is a sum of products of 256 and 128 bits, the least word first: what they are
// modulo n is worked out once. There is room for 2^64 of them.
type products [7]uint64

func (p *products) add(x *[4]uint64, m *multiple) {
	for j, b := range m {
		var carry, c uint64
		for i, a := range x {
			h, l := bits.Mul64(a, b)
			l, c = bits.Add64(l, carry, 0)
			h += c // no carry: a product leaves room for two words
			p[i+j], c = bits.Add64(p[i+j], l, 0)
			carry = h + c
		}
		for i := j + len(x); i < len(p); i++ {
			p[i], carry = bits.Add64(p[i], carry, 0)
		}
	}
}

// scalar is the sum modulo n.
func (p *products) scalar() scalar {
	k, high := scalarOf(p[3], p[2], p[1], p[0]), scalarOf(0, p[6], p[5], p[4])
	above := scalarOf(0, 1, 0, 0) // 2^128
	above.Mul(&above)
	return *k.Add(high.Mul(&above))
}

// wordsOf reads a big-endian number.
func wordsOf(b *[32]byte) (w [4]uint64) {
	for i := range w {
		w[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return w
}

// below says whether x < y.
func below(x *[4]uint64, y *field) bool {
	for i := 3; i >= 0; i-- {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// liftAll sets each of a to the point at one of xs with an even y; false if there is none
// at one of them. It takes four roots at once, for a processor has the next ones to
// do while each square waits for the one before it.
func liftAll(a []affine, xs []field) bool {
	for len(xs) > 0 {
		var squares, roots lanes
		n := min(len(xs), len(squares))
		for i := range n {
			squares[i].rightSide(&xs[i])
		}
		roots.root(&squares)
		for i := range n {
			a[i] = affine{xs[i], roots[i]}
			roots[i].square(&roots[i])
			if !roots[i].equal(&squares[i]) {
				return false
			}
			if a[i].y.isOdd() {
				a[i].y.neg(&a[i].y)
			}
		}
		a, xs = a[n:], xs[n:]
	}
	return true
}

// lanes are integers with which the same is done.
type lanes [4]field

func (z *lanes) mul(x, y *lanes) {
	for i := range z {
		z[i].mul(&x[i], &y[i])
	}
}

// squares sets z to x squared n times.
func (z *lanes) squares(x *lanes, n int) {
	*z = *x
	for range n {
		for i := range z {
			z[i].square(&z[i])
		}
	}
}

// root sets z to x^((p+1)/4), the square roots of those that have one. It is
// [field.sqrt].
func (z *lanes) root(x *lanes) {
	one := *x
	var x2, x3, x22, x44, x88, r, t lanes
	step := func(z, x *lanes, n int, y *lanes) {
		t.squares(x, n)
		z.mul(&t, y)
	}
	step(&x2, &one, 1, &one)
	step(&x3, &x2, 1, &one)
	step(&r, &x3, 3, &x3)
	step(&r, &r, 3, &x3)
	step(&r, &r, 2, &x2) // 11 ones
	step(&x22, &r, 11, &r)
	step(&x44, &x22, 22, &x22)
	step(&x88, &x44, 44, &x44)
	step(&r, &x88, 88, &x88)
	step(&r, &r, 44, &x44)
	step(&r, &r, 3, &x3) // 223 ones
	step(&r, &r, 23, &x22)
	step(&r, &r, 6, &x2)
	z.squares(&r, 2)
}

// add sets p to p + q.
func (p *point) add(q *point) {
	if q.inf {
		return
	}
	if p.inf {
		*p = *q
		return
	}
	// u = x2·z1² − x1·z2², v = y2·z1³ − y1·z2³, and as in addAt.
	var zz1, zz2, x1, y1, u, v, uu, uuu, t field
	zz1.square(&p.z)
	zz2.square(&q.z)
	x1.mul(&p.x, &zz2)
	u.mul(&q.x, &zz1)
	u.sub(&u, &x1)
	zz2.mul(&zz2, &q.z)
	y1.mul(&p.y, &zz2)
	zz1.mul(&zz1, &p.z)
	v.mul(&q.y, &zz1)
	v.sub(&v, &y1)
	if u.isZero() {
		if v.isZero() {
			p.double(p)
		} else {
			p.inf = true
		}
		return
	}
	p.z.mul(&p.z, &q.z)
	p.z.mul(&p.z, &u)
	uu.square(&u)
	uuu.mul(&uu, &u)
	t.mul(&x1, &uu)
	p.x.square(&v)
	p.x.sub(&p.x, &uuu)
	p.x.sub(&p.x, &t)
	p.x.sub(&p.x, &t)
	t.sub(&t, &p.x)
	t.mul(&t, &v)
	uuu.mul(&uuu, &y1)
	p.y.sub(&t, &uuu)
}

// equal says whether p and q are the same point.
func (p *point) equal(q *point) bool {
	if p.inf || q.inf {
		return p.inf && q.inf
	}
	var zz1, zz2, a, b field
	zz1.square(&p.z)
	zz2.square(&q.z)
	a.mul(&p.x, &zz2)
	b.mul(&q.x, &zz1)
	if !a.equal(&b) {
		return false
	}
	zz1.mul(&zz1, &p.z)
	zz2.mul(&zz2, &q.z)
	a.mul(&p.y, &zz2)
	b.mul(&q.y, &zz1)
	return a.equal(&b)
}
