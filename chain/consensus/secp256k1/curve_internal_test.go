package secp256k1

import (
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
)

const seed = 256

var bigP, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", 16)

func (z *field) big() *big.Int {
	b := z.bytes()
	return new(big.Int).SetBytes(b[:])
}

// edgeWords makes carries, borrows and values between p and 2^256 common.
func edgeWords(r *rand.Rand) (w [4]uint64) {
	edges := []uint64{0, 1, 2, foldP - 1, foldP, foldP + 1, 1 << 63, ^uint64(0) - foldP, ^uint64(0) - foldP + 2, ^uint64(1), ^uint64(0)}
	kind := r.IntN(4)
	for i := range w {
		if w[i] = r.Uint64(); kind == 0 || kind == 1 && r.IntN(2) == 0 {
			w[i] = edges[r.IntN(len(edges))]
		}
	}
	return w
}

// Every operation on the field is that of math/big, whatever the words.
func TestField(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 1))
	two := big.NewInt(2)
	mod := func(x *big.Int) *big.Int { return x.Mod(x, bigP) }
	for range 10_000 {
		x, y := field(edgeWords(r)), field(edgeWords(r))
		bx, by := x.big(), y.big()
		check := func(op string, got field, want *big.Int) {
			t.Helper()
			if got.big().Cmp(want) != 0 {
				t.Fatalf("seed %d: %s of %x and %x is %x, want %x", seed, op, x, y, got, want)
			}
		}
		var z field
		z.mul(&x, &y)
		check("product", z, mod(new(big.Int).Mul(bx, by)))
		z.square(&x)
		check("square", z, mod(new(big.Int).Mul(bx, bx)))
		z.add(&x, &y)
		check("sum", z, mod(new(big.Int).Add(bx, by)))
		z.sub(&x, &y)
		check("difference", z, mod(new(big.Int).Sub(bx, by)))
		z.neg(&x)
		check("negative", z, mod(new(big.Int).Neg(bx)))
		z.half(&x)
		check("twice the half", z, mod(new(big.Int).Mul(bx, new(big.Int).ModInverse(two, bigP))))
		// The operands may be the result.
		z = x
		z.mul(&z, &z)
		check("product in place", z, mod(new(big.Int).Mul(bx, bx)))
		z = x
		z.sub(&y, &z)
		check("difference in place", z, mod(new(big.Int).Sub(by, bx)))
		if x.isZero() != (bx.Sign() == 0) || x.isOdd() != (bx.Bit(0) == 1) || x.equal(&y) != (bx.Cmp(by) == 0) {
			t.Fatalf("seed %d: comparisons of %x and %x", seed, x, y)
		}
		b := x.bytes()
		if below := z.setBytes(&b); !below || z != x.reduced() {
			t.Fatalf("seed %d: %x comes back as %x, below p %v", seed, x, z, below)
		}
	}
	for _, w := range []field{primeP, {primeP[0] + 1, ^uint64(0), ^uint64(0), ^uint64(0)}, {^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}} {
		var b [32]byte
		for i, v := range w {
			binary.BigEndian.PutUint64(b[24-8*i:], v)
		}
		if new(field).setBytes(&b) {
			t.Errorf("%x is said to be below p", b)
		}
	}
}

func TestFieldPowers(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range 2000 {
		x := field(edgeWords(r))
		if i == 0 {
			x = primeP
		}
		bx := x.big()
		var z field
		z.inverse(&x)
		want := new(big.Int)
		if bx.Sign() != 0 {
			want.ModInverse(bx, bigP)
		}
		if z.big().Cmp(want) != 0 {
			t.Fatalf("seed %d: 1/%x is %x", seed, x, z)
		}
		if has, want := z.sqrt(&x), big.Jacobi(bx, bigP) >= 0; has != want {
			t.Fatalf("seed %d: %x has a root: %v, want %v", seed, x, has, want)
		} else if has {
			z.square(&z)
			if !z.equal(&x) {
				t.Fatalf("seed %d: the root of %x, squared, is %x", seed, x, z)
			}
		}
	}
}

// edgeScalars are those where windows, signs and the two splits have their limits.
func edgeScalars() (ks []scalar) {
	n := btcec.S256().N
	half, bit128 := new(big.Int).Rsh(n, 1), new(big.Int).Lsh(big.NewInt(1), 128)
	lambda := new(big.Int).SetBytes(bytesOf(&lambdaN))
	for _, at := range []*big.Int{new(big.Int), n, half, bit128, new(big.Int).Lsh(bit128, 127), lambda, new(big.Int).Mul(lambda, lambda)} {
		for d := int64(-3); d <= 3; d++ {
			ks = append(ks, scalarOfBig(new(big.Int).Add(at, big.NewInt(d))))
		}
	}
	for i := uint(0); i < 256; i += 11 {
		ks = append(ks, scalarOfBig(new(big.Int).Lsh(big.NewInt(31), i)), scalarOfBig(new(big.Int).Lsh(big.NewInt(1), i)))
	}
	return ks
}

func bytesOf(k *scalar) []byte {
	b := k.Bytes()
	return b[:]
}

func scalarOfBig(v *big.Int) (k scalar) {
	var b [32]byte
	new(big.Int).Mod(v, btcec.S256().N).FillBytes(b[:])
	k.SetBytes(&b)
	return k
}

func randomScalar(r *rand.Rand) (k scalar) {
	w := edgeWords(r)
	return scalarOf(w[3], w[2], w[1], w[0])
}

// The digits of a number sum up to it, are odd, within the window and far apart.
func TestDigits(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 3))
	ks := edgeScalars()
	for range 2000 {
		ks = append(ks, randomScalar(r))
	}
	sum := func(d *wNAF, n, width int) scalar {
		v, last := new(big.Int), -width
		for i, digit := range d {
			if digit == 0 {
				continue
			}
			if i >= n || digit&1 == 0 || int(digit) >= 1<<(width-1) || int(digit) <= -1<<(width-1) || i-last < width {
				t.Fatalf("digit %d at %d of %d after %d, window %d", digit, i, n, last, width)
			}
			last = i
			v.Add(v, new(big.Int).Lsh(big.NewInt(int64(digit)), uint(i)))
		}
		return scalarOfBig(v)
	}
	for _, k := range ks {
		for _, width := range []int{windowP, windowG} {
			var d, s wNAF
			if got := sum(&d, d.set(words(&k), width), width); !got.Equals(&k) {
				t.Fatalf("%v has the digits of %v", k, got)
			}
			if got := sum(&s, s.signed(&k, width), width); !got.Equals(&k) {
				t.Fatalf("%v has the signed digits of %v", k, got)
			}
		}
		k1, k2 := split(&k)
		got := new(scalar).Mul2(&k2, &lambdaN).Add(&k1)
		if !got.Equals(&k) {
			t.Fatalf("%v is split as %v", k, got)
		}
		for _, part := range []scalar{k1, k2} {
			if part.IsOverHalfOrder() {
				part.Negate()
			}
			if w := words(&part); w[3] != 0 || w[2] > 1 {
				t.Fatalf("a part of %v is %v", k, part)
			}
		}
	}
}

// jacobian is a point of ours as the library's.
func (p *point) library() (q btcec.JacobianPoint) {
	if p.inf {
		return q
	}
	for _, c := range []struct {
		to   *btcec.FieldVal
		from *field
	}{{&q.X, &p.x}, {&q.Y, &p.y}, {&q.Z, &p.z}} {
		b := c.from.bytes()
		c.to.SetBytes(&b)
	}
	return q
}

func affineOf(t *testing.T, q *btcec.JacobianPoint) (a affine) {
	t.Helper()
	q.ToAffine()
	if !a.x.setBytes(q.X.Bytes()) || !a.y.setBytes(q.Y.Bytes()) || !a.onCurve() {
		t.Fatalf("%v is no point of ours", q)
	}
	return a
}

// checkMulAdd compares g·G + k·(d·G) with the library's.
func checkMulAdd(t *testing.T, g, k, d *scalar) {
	t.Helper()
	var base, gG, kA, want btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(d, &base)
	a := affineOf(t, &base)
	btcec.ScalarBaseMultNonConst(g, &gG)
	btcec.ScalarMultNonConst(k, &base, &kA)
	btcec.AddNonConst(&gG, &kA, &want)
	var p point
	p.mulAdd(g, k, &a)
	if p.inf != (want.Z.IsZero() || want.X.IsZero() && want.Y.IsZero()) {
		t.Fatalf("%v·G + %v·%v·G: infinity %v, the library has %v", g, k, d, p.inf, want)
	}
	if got := p.library(); !p.inf && !got.EquivalentNonConst(&want) {
		t.Fatalf("%v·G + %v·%v·G is %v, the library has %v", g, k, d, got, want)
	}
}

// Sums of multiples are the library's, for factors at every limit and for points
// that meet the table of the generator: there sums double, vanish and start anew.
func TestMulAdd(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 4))
	ks := edgeScalars()
	bit128 := scalarOf(0, 1, 0, 0)
	points := []scalar{scalarOf(0, 0, 0, 1), scalarOf(0, 0, 0, 2), scalarOf(0, 0, 0, 15), bit128, lambdaN}
	for i := range points {
		points = append(points, *new(scalar).NegateVal(&points[i]))
	}
	for _, d := range points {
		for _, k := range ks {
			// g = −k·d: the sum is infinity; one more or less: it is G or −G.
			g := *new(scalar).Mul2(&k, &d).Negate()
			checkMulAdd(t, &g, &k, &d)
			g.Negate()
			checkMulAdd(t, &g, &k, &d)
		}
	}
	for _, k := range ks {
		g, d := ks[r.IntN(len(ks))], randomScalar(r)
		if !d.IsZero() {
			checkMulAdd(t, &g, &k, &d)
		}
	}
	for range 200 {
		g, k, d := randomScalar(r), randomScalar(r), randomScalar(r)
		if !d.IsZero() {
			checkMulAdd(t, &g, &k, &d)
		}
	}
}

// The tables of the generator hold what they should, every entry of them.
func TestGenerator(t *testing.T) {
	t.Parallel()
	factor := scalarOf(0, 0, 0, 1)
	bit128 := scalarOf(0, 1, 0, 0)
	for i, table := range generator() {
		var step, want btcec.JacobianPoint
		btcec.ScalarBaseMultNonConst(new(scalar).Add2(&factor, &factor), &step)
		btcec.ScalarBaseMultNonConst(&factor, &want)
		for j, a := range table {
			p := point{x: a.x, y: a.y, z: fieldOne}
			if got := p.library(); !got.EquivalentNonConst(&want) || !a.onCurve() {
				t.Fatalf("table %d, entry %d is %v, want %v", i, j, got, want)
			}
			var next btcec.JacobianPoint
			btcec.AddNonConst(&want, &step, &next)
			want = next
		}
		factor = bit128
	}
}

// Additions at the limits: equal points, opposite ones, infinity.
func TestAdd(t *testing.T) {
	t.Parallel()
	k := scalarOf(0, 0, 0, 7)
	var q btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(&k, &q)
	a := affineOf(t, &q)
	opposite := a
	opposite.y.neg(&a.y)

	p := point{inf: true}
	p.double(&p)
	if !p.inf {
		t.Error("twice infinity is not infinity")
	}
	p.addAffine(&a, nil)
	if got := p.library(); !got.EquivalentNonConst(&q) {
		t.Error("infinity is not neutral")
	}
	p.addAffine(&a, nil)
	var twice btcec.JacobianPoint
	btcec.DoubleNonConst(&q, &twice)
	if got := p.library(); !got.EquivalentNonConst(&twice) {
		t.Error("a + a is not 2a")
	}
	p.addAffine(&opposite, nil)
	p.addAffine(&opposite, nil)
	if !p.inf {
		t.Error("2a − a − a is not infinity")
	}
}
