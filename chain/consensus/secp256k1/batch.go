package secp256k1

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
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
func VerifySchnorrBatch(list []Schnorr) bool { return new(Keys).VerifySchnorrBatch(list, Crew{}) }

// A Crew is with whom a batch is verified: Run calls work with 0 to n − 1, all at once if
// it can, and returns when all have returned. The zero value is the caller alone.
type Crew struct {
	Workers int // n at most
	Run     func(n int, work func(worker int))
}

func (c Crew) workers() int {
	if c.Run == nil {
		return 1
	}
	return max(c.Workers, 1)
}

// inParts does the parts of something: do is given the number of the worker, and of the
// part. It leaves out the rest after a part that returns false, and then returns it.
func (c Crew) inParts(parts int, do func(worker, part int) bool) bool {
	var next atomic.Int64
	var failed atomic.Bool
	work := func(worker int) {
		for !failed.Load() {
			part := int(next.Add(1)) - 1
			if part >= parts {
				return
			}
			if !do(worker, part) {
				failed.Store(true)
			}
		}
	}
	if n := min(c.workers(), parts); n > 1 {
		c.Run(n, work)
	} else {
		work(0)
	}
	return !failed.Load()
}

// keysKept is how many keys [Keys] remembers at least of those that came last; twice as many
// at most, which takes half a megabyte.
const keysKept = 2048

// Keys verifies batches of signatures as [VerifySchnorrBatch] does, and remembers the points of
// the keys in those that were good: that of a key takes a sixth of what its signature does. The
// zero value is ready, and safe for concurrent use.
type Keys struct {
	mu sync.Mutex // held for as long as keys are looked up
	// young has those that came since old was the young one.
	young, old map[[32]byte]affine
}

// VerifySchnorrBatch is that of the package, by a crew.
//
// It is BIP340's batch verification: of s·G = R + e·P each side is summed up with factors
// that nobody can choose, for they are a hash of all that is verified; a sum that holds
// although a part does not takes 2^128 tries.
func (k *Keys) VerifySchnorrBatch(list []Schnorr, crew Crew) bool {
	if len(list) < leastBatch {
		return false
	}
	b := batch{list: list, crew: crew}
	k.find(&b)
	if !b.lift() || !b.weigh() || !b.holds() {
		return false
	}
	k.keep(&b)
	return true
}

// find notes which keys are in a batch, and the points of those that are known.
func (k *Keys) find(b *batch) {
	place := make(map[[32]byte]int32, 64)
	b.by = make([]int32, len(b.list))
	for i := range b.list {
		pub := &b.list[i].Pub
		at, ok := place[*pub]
		if !ok {
			at = int32(len(b.pubs))
			place[*pub] = at
			b.pubs = append(b.pubs, *pub)
		}
		b.by[i] = at
	}
	b.keys = make([]affine, len(b.pubs))
	n := len(b.list) + 2*(len(b.pubs)-1)
	b.right = terms{make([]affine, n), make([]multiple, n)}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range b.pubs {
		p, ok := k.young[b.pubs[i]]
		if !ok {
			p, ok = k.old[b.pubs[i]]
		}
		if b.keys[i] = p; !ok {
			b.strange = append(b.strange, int32(i))
		}
	}
}

// keep remembers the keys of a batch.
func (k *Keys) keep(b *batch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range b.pubs {
		if _, ok := k.young[b.pubs[i]]; ok {
			continue
		}
		if len(k.young) >= keysKept {
			k.young, k.old = nil, k.young
		}
		if k.young == nil {
			k.young = make(map[[32]byte]affine, min(len(b.pubs), keysKept))
		}
		k.young[b.pubs[i]] = b.keys[i]
	}
}

// A batch is being verified, step by step.
type batch struct {
	list []Schnorr
	crew Crew

	pubs    [][32]byte // each once
	by      []int32    // whose of pubs each signature is
	strange []int32    // those of pubs whose points were not known
	keys    []affine   // the points of pubs

	seed       [sha256.Size]byte // of the factors
	sum        products          // of the s, each times its factor
	challenges []products        // by key: the sum of the e, each times its factor
	right      terms             // the R of list, times their factors; then all keys but the first
}

// liftAtOnce is how many points a worker looks for at a time.
const liftAtOnce = 64

// lift finds all points that are not known; false if there is none at one of them. Meanwhile
// it hashes everything.
func (b *batch) lift() bool {
	n := len(b.list)
	many := n + len(b.strange)
	return b.crew.inParts(1+(many+liftAtOnce-1)/liftAtOnce, func(_, part int) bool {
		if part == 0 {
			b.hash()
			return true
		}
		var xs [liftAtOnce]field
		var points [liftAtOnce]affine
		from := (part - 1) * liftAtOnce
		m := min(many-from, liftAtOnce)
		for i := range m {
			var x *[32]byte
			if from+i < n {
				x = (*[32]byte)(b.list[from+i].Sig[:])
			} else {
				x = &b.pubs[b.strange[from+i-n]]
			}
			if !xs[i].setBytes(x) {
				return false
			}
		}
		if !liftAll(points[:m], xs[:m]) {
			return false
		}
		for i := range m {
			if from+i < n {
				b.right.points[from+i] = points[i]
			} else {
				b.keys[b.strange[from+i-n]] = points[i]
			}
		}
		return true
	})
}

// hash makes the seed: whoever changes a bit of the batch has other factors.
func (b *batch) hash() {
	all := sha256.New()
	var one [128]byte
	for i := range b.list {
		v := &b.list[i]
		copy(one[:], v.Pub[:])
		copy(one[32:], v.Sig[:])
		copy(one[96:], v.Hash[:])
		all.Write(one[:])
	}
	all.Sum(b.seed[:0])
}

// weighAtOnce is how many signatures a worker weighs at a time; even.
const weighAtOnce = 128

// weigh gives each signature its factor, and sums up s, and the challenges of each key, by
// these. False if an s is none.
func (b *batch) weigh() bool {
	n := len(b.list)
	workers := b.crew.workers()
	sums, challenges := make([]products, workers), make([][]products, workers)
	ok := b.crew.inParts((n+weighAtOnce-1)/weighAtOnce, func(worker, part int) bool {
		if challenges[worker] == nil {
			challenges[worker] = make([]products, len(b.keys))
		}
		var counted [sha256.Size + 8]byte
		copy(counted[:], b.seed[:])
		var hash [sha256.Size]byte
		challenge := challengeTag
		for i := part * weighAtOnce; i < min(n, (part+1)*weighAtOnce); i++ {
			v := &b.list[i]
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
				binary.LittleEndian.PutUint64(counted[sha256.Size:], uint64(i))
				hash = sha256.Sum256(counted[:])
			}
			half := hash[i%2*16:]
			m := multiple{binary.LittleEndian.Uint64(half), binary.LittleEndian.Uint64(half[8:])}
			sums[worker].add(&s, &m)
			challenges[worker][b.by[i]].add(&e, &m)
			b.right.multiples[i] = m
		}
		return true
	})
	if !ok {
		return false
	}
	for w := range sums {
		b.sum.join(&sums[w])
		switch of := challenges[w]; {
		case b.challenges == nil:
			b.challenges = of
		case of != nil:
			for i := range of {
				b.challenges[i].join(&of[i])
			}
		}
	}
	return true
}

// keysAtOnce is how many keys a worker makes terms of at a time.
const keysAtOnce = 64

// holds says whether both sides are the same. The first key is taken to the left one, where
// it shares the doublings of G.
func (b *batch) holds() bool {
	n, others := len(b.list), len(b.keys)-1
	var left point
	ok := b.crew.inParts(1+(others+keysAtOnce-1)/keysAtOnce, func(_, part int) bool {
		if part == 0 {
			g, k := b.sum.scalar(), b.challenges[0].scalar()
			left.mulAdd(&g, k.Negate(), &b.keys[0])
			return true
		}
		for i := (part - 1) * keysAtOnce; i < min(others, part*keysAtOnce); i++ {
			k := b.challenges[1+i].scalar()
			if !b.right.set(n+2*i, &b.keys[1+i], &k) {
				return false
			}
		}
		return true
	})
	if !ok {
		return false
	}
	right := b.right.sum(b.crew)
	return left.equal(&right)
}

// PublicKeys says whether all of keys are x-only public keys (BIP340), some three times as
// fast as one by one. As everywhere here false shows nothing: ask for each.
func PublicKeys(keys [][32]byte) bool {
	xs := make([]field, len(keys))
	for i := range keys {
		if !xs[i].setBytes(&keys[i]) {
			return false
		}
	}
	return liftAll(make([]affine, len(xs)), xs)
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

// join adds q, another such sum.
func (p *products) join(q *products) {
	var c uint64
	for i := range p {
		p[i], c = bits.Add64(p[i], q[i], c)
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
