package secp256k1

import (
	"crypto/sha256"
	"encoding/binary"
)

// A Schnorr is a BIP340 signature to be verified among others.
type Schnorr struct {
	Pub  [32]byte // x-only
	Sig  [64]byte
	Hash [32]byte
}

// leastBatch is from how many signatures on a batch is faster than one by one, if they
// are by few keys.
const leastBatch = 32

// VerifySchnorrBatch says whether all of list are signatures, as [VerifySchnorr] does of
// one. It is some four times as fast where there are many by few keys, and does not try
// where it would not be. As everywhere here false shows nothing: ask for each.
//
// It is BIP340's batch verification: of s·G = R + e·P each side is summed up with factors
// that nobody can choose, for they are a hash of all that is verified; a sum that holds
// although a part does not takes 2^128 tries.
func VerifySchnorrBatch(list []Schnorr) bool {
	if len(list) < leastBatch {
		return false
	}
	// Challenges are summed up by key.
	type key struct {
		at  affine
		sum scalar
	}
	keys := make([]key, 0, 8)
	place := make(map[[32]byte]int, 8)
	all := sha256.New()
	for i := range list {
		v := &list[i]
		all.Write(v.Pub[:])
		all.Write(v.Sig[:])
		all.Write(v.Hash[:])
		if _, ok := place[v.Pub]; ok {
			continue
		}
		if len(keys) >= len(list)/8 {
			return false
		}
		var x field
		var k key
		if !x.setBytes(&v.Pub) || !k.at.lift(&x, false) {
			return false
		}
		place[v.Pub] = len(keys)
		keys = append(keys, k)
	}
	var seed [40]byte
	all.Sum(seed[:0])

	factors := make([][2]uint64, len(list)) // 128 bits, the least first
	rs := make([]affine, len(list))
	var g scalar
	challenge := challengeTag
	for i := range list {
		v := &list[i]
		var x field
		var s, e, f scalar
		if !x.setBytes((*[32]byte)(v.Sig[:])) || s.SetBytes((*[32]byte)(v.Sig[32:])) != 0 || !rs[i].lift(&x, false) {
			return false
		}
		copy(challenge[64:], v.Sig[:32])
		copy(challenge[96:], v.Pub[:])
		copy(challenge[128:], v.Hash[:])
		sum := sha256.Sum256(challenge[:])
		e.SetBytes(&sum)

		binary.LittleEndian.PutUint64(seed[32:], uint64(i))
		sum = sha256.Sum256(seed[:])
		factors[i] = [2]uint64{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
		f = scalarOf(0, 0, factors[i][1], factors[i][0])
		g.Add(s.Mul(&f))
		keys[place[v.Pub]].sum.Add(e.Mul(&f))
	}

	var left, part point
	left.inf = true
	for i := range keys {
		part.mulAdd(&g, keys[i].sum.Negate(), &keys[i].at)
		left.add(&part)
		g = scalar{} // once is enough
	}
	right := sumOf(rs, factors)
	return left.equal(&right)
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

// sumOf returns Σ k[i]·a[i] (Pippenger's method: in each window of the factors, points
// with the same digit are summed up first).
func sumOf(a []affine, k [][2]uint64) (sum point) {
	width := 4
	for width < 10 && cost(len(a), width+1) < cost(len(a), width) {
		width++
	}
	buckets := make([]point, 1<<width) // by digit
	sum.inf = true
	for low := (127 / width) * width; low >= 0; low -= width {
		for range width {
			sum.double(&sum)
		}
		for d := range buckets {
			buckets[d].inf = true
		}
		for i := range a {
			if d := digit(&k[i], low, width); d != 0 {
				buckets[d].addAffine(&a[i], nil)
			}
		}
		// Σ d·bucket[d], as a sum of sums from the greatest digit on.
		var above, window point
		above.inf, window.inf = true, true
		for d := len(buckets) - 1; d > 0; d-- {
			above.add(&buckets[d])
			window.add(&above)
		}
		sum.add(&window)
	}
	return sum
}

// cost is about how many additions sumOf needs for n points.
func cost(n, width int) int { return (128 + width - 1) / width * (n + 2<<width) }

// digit is the number in the bits of k from low on.
func digit(k *[2]uint64, low, width int) int {
	v := k[0] >> low // a shift by 64 and more gives 0
	if low >= 64 {
		v = k[1] >> (low - 64)
	} else if low > 0 {
		v |= k[1] << (64 - low)
	}
	return int(v & (1<<width - 1))
}
