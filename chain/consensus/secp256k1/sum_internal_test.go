package secp256k1

import (
	"math/big"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
)

// The digits of a multiple are it, whatever the width of the windows.
func TestMultipleDigits(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 10))
	for range 500 {
		w := edgeWords(r)
		m := multiple{w[0], w[1]}
		want := new(big.Int).SetUint64(m[1])
		want.Lsh(want, 64).Or(want, new(big.Int).SetUint64(m[0]))
		for width := 3; width <= 12; width++ {
			got := new(big.Int)
			for low := 128 / width * width; low >= 0; low -= width {
				d := m.digit(low, width)
				if d < -1<<(width-1) || d > 1<<(width-1) {
					t.Fatalf("seed %d: digit %d of %x at bit %d, width %d", seed, d, m, low, width)
				}
				got.Add(got, new(big.Int).Lsh(big.NewInt(int64(d)), uint(low)))
			}
			if got.Cmp(want) != 0 {
				t.Fatalf("seed %d: the digits of %x, width %d, are %x", seed, m, width, got)
			}
		}
	}
}

// crewOf works at once.
func crewOf(workers int) Crew {
	return Crew{workers, func(n int, work func(worker int)) {
		var all sync.WaitGroup
		for worker := range n {
			all.Go(func() { work(worker) })
		}
		all.Wait()
	}}
}

// Sums of many multiples are the library's, also where most points are equal or opposite,
// so that they double and vanish while they are paired, and for multiples at every limit.
func TestSumOfTerms(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 11))
	ks := edgeScalars()
	for _, n := range []int{0, 1, 2, 3, 8, 60, 200, 900} {
		for _, different := range []int{1, 2, 50} {
			var of []affine
			var ds []scalar
			for i := range different {
				d := randomScalar(r)
				if i%2 == 1 {
					d = *new(scalar).NegateVal(&ds[i-1])
				}
				if d.IsZero() {
					d.SetInt(1)
				}
				var q btcec.JacobianPoint
				btcec.ScalarBaseMultNonConst(&d, &q)
				ds, of = append(ds, d), append(of, affineOf(t, &q))
			}
			var sum scalar
			all := terms{make([]affine, 2*n), make([]multiple, 2*n)}
			same := randomScalar(r)
			for i := range n {
				at, k := r.IntN(different), randomScalar(r)
				switch r.IntN(4) {
				case 0:
					k = ks[r.IntN(len(ks))]
				case 1:
					k = same // the same digits in all windows
				}
				if i == n-1 && different == 1 { // the sum is infinity
					k = *new(scalar).InverseValNonConst(&ds[0])
					k.Mul(&sum).Negate()
				}
				if !all.set(2*i, &of[at], &k) {
					t.Fatalf("seed %d: %v is too long when split", seed, k)
				}
				sum.Add(k.Mul(&ds[at]))
			}
			var want btcec.JacobianPoint
			btcec.ScalarBaseMultNonConst(&sum, &want)
			got := all.sum(crewOf(n % 4))
			if got.inf != sum.IsZero() {
				t.Fatalf("seed %d: %d terms of %d points: infinity %v", seed, n, different, got.inf)
			}
			if p := got.library(); !got.inf && !p.EquivalentNonConst(&want) {
				t.Fatalf("seed %d: %d terms of %d points are %v, the library has %v", seed, n, different, p, want)
			}
		}
	}
}

// Points are found as one by one, and where there is none for one of them for none.
func TestLiftAll(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 12))
	var xs []field
	var want []affine
	for range 200 {
		x, a := field(edgeWords(r)), affine{}
		if a.lift(&x, false) {
			xs, want = append(xs, x), append(want, a)
			continue
		}
		at := r.IntN(len(xs) + 1)
		bad := append(append(append([]field(nil), xs[:at]...), x), xs[at:]...)
		if liftAll(make([]affine, len(bad)), bad) {
			t.Fatalf("seed %d: a point at %x", seed, x)
		}
	}
	for n := range xs {
		got := make([]affine, n)
		if !liftAll(got, xs[:n]) {
			t.Fatalf("seed %d: of %d points one is not found", seed, n)
		}
		for i := range got {
			if !got[i].x.equal(&want[i].x) || !got[i].y.equal(&want[i].y) {
				t.Fatalf("seed %d: point %d of %d at %x is %x, want %x", seed, i, n, xs[i], got[i], want[i])
			}
		}
	}
}

// Sums of products are those of math/big, modulo n.
func TestProducts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 13))
	n := btcec.S256().N
	number := func(words ...uint64) *big.Int { // the least first
		v := new(big.Int)
		for i, w := range words {
			v.Or(v, new(big.Int).Lsh(new(big.Int).SetUint64(w), uint(64*i)))
		}
		return v
	}
	for _, count := range []int{0, 1, 2, 5000} {
		var sum products
		want := new(big.Int)
		for i := range count {
			x, w := edgeWords(r), edgeWords(r)
			m := multiple{w[0], w[1]}
			if i%2 == 1 { // the greatest there are
				x, m = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}, multiple{^uint64(0), ^uint64(0)}
			}
			sum.add(&x, &m)
			want.Add(want, new(big.Int).Mul(number(x[:]...), number(m[:]...)))
			if less := number(x[:]...).Cmp(n) < 0; below(&x, &orderN) != less {
				t.Fatalf("%x below n: want %v", x, less)
			}
		}
		if got := sum.scalar(); number(sum[:]...).Cmp(want) != 0 || new(big.Int).SetBytes(bytesOf(&got)).Cmp(want.Mod(want, n)) != 0 {
			t.Errorf("seed %d: %d products are %x, modulo n %v, want %x", seed, count, sum, got, want)
		}
	}
	for _, x := range [][4]uint64{orderN, {orderN[0] - 1, orderN[1], orderN[2], orderN[3]}, {orderN[0] + 1, orderN[1], orderN[2], orderN[3]}} {
		if below(&x, &orderN) != (x[0] < orderN[0]) {
			t.Errorf("%x below n", x)
		}
	}
}

// However many keys come, few stay; those of a batch that is refused do not.
func TestKeysKept(t *testing.T) {
	t.Parallel()
	var keys Keys
	r := rand.New(rand.NewPCG(seed, 18))
	for n := range 5 * keysKept / 100 {
		b := batch{pubs: make([][32]byte, 100), keys: make([]affine, 100)}
		for i := range b.pubs {
			w := edgeWords(r)
			b.pubs[i] = [32]byte{byte(n), byte(n >> 8), byte(i), 31: byte(w[0])}
			b.keys[i].x = w
		}
		keys.keep(&b)
		if len(keys.young) > keysKept || len(keys.old) > keysKept {
			t.Fatalf("%d and %d keys", len(keys.young), len(keys.old))
		}
		again := batch{list: make([]Schnorr, 100)}
		for i := range again.list {
			again.list[i].Pub = b.pubs[i]
		}
		keys.find(&again)
		if len(again.strange) != 0 || again.keys[99] != b.keys[99] {
			t.Fatalf("%d of 100 keys that just came are not known", len(again.strange))
		}
	}
	if len(keys.old) != keysKept {
		t.Errorf("%d older keys, want %d", len(keys.old), keysKept)
	}
	keys = Keys{}
	if keys.VerifySchnorrBatch(make([]Schnorr, 20), Crew{}) || len(keys.young) != 0 {
		t.Errorf("%d keys of what is no signature", len(keys.young))
	}
}
