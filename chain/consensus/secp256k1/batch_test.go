package secp256k1_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"

	"dunlin/chain/consensus/secp256k1"
)

// signatures makes n by some keys in turn.
func signatures(tb testing.TB, r *rand.Rand, n, keys int) (list []secp256k1.Schnorr) {
	tb.Helper()
	by := make([]*btcec.PrivateKey, keys)
	for i := range by {
		by[i] = randomKey(r)
	}
	for i := range n {
		v := secp256k1.Schnorr{Hash: random32(r)}
		sig, err := schnorr.Sign(by[i%keys], v.Hash[:])
		if err != nil {
			tb.Fatal(err)
		}
		copy(v.Sig[:], sig.Serialize())
		copy(v.Pub[:], schnorr.SerializePubKey(by[i%keys].PubKey()))
		list = append(list, v)
	}
	return list
}

// A batch is good exactly if each of its signatures is, whatever their number and that
// of keys, from sixteen on.
func TestSchnorrBatch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 7))
	for _, c := range []struct {
		n, keys int
		tried   bool
	}{{0, 1, false}, {15, 1, false}, {16, 1, true}, {17, 17, true}, {32, 4, true}, {100, 100, true}, {333, 7, true}, {999, 30, true}} {
		list := signatures(t, r, c.n, c.keys)
		if got := secp256k1.VerifySchnorrBatch(list); got != c.tried {
			t.Fatalf("%d by %d keys: %v", c.n, c.keys, got)
		}
		if !c.tried {
			continue
		}
		// The same twice, which makes equal points.
		again := append(append([]secp256k1.Schnorr(nil), list...), list[:min(8, c.n)]...)
		if !secp256k1.VerifySchnorrBatch(again) {
			t.Errorf("%d, some of them twice", c.n)
		}
		// One bit anywhere.
		for range 24 {
			bad := append([]secp256k1.Schnorr(nil), list...)
			v := &bad[r.IntN(len(bad))]
			switch at, bit := r.IntN(128), byte(1)<<r.IntN(8); {
			case at < 32:
				v.Hash[at] ^= bit
			case at < 64 && c.keys > 1: // else it is another key, which alone is none the less one
				v.Pub[at-32] ^= bit
			default:
				v.Sig[at%64] ^= bit
			}
			if secp256k1.VerifySchnorrBatch(bad) {
				t.Fatalf("%d by %d keys: %+v is taken for a signature", c.n, c.keys, v)
			}
		}
	}
}

// Faults that would cancel out if the factors were all the same do not: s of one more
// and of another less by as much, two signatures swapped.
func TestSchnorrBatchFactors(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 8))
	list := signatures(t, r, 64, 1)
	move := func(v *secp256k1.Schnorr, by *btcec.ModNScalar) {
		var s btcec.ModNScalar
		s.SetByteSlice(v.Sig[32:])
		s.Add(by)
		s.PutBytesUnchecked(v.Sig[32:])
	}
	var d btcec.ModNScalar
	d.SetInt(5)
	move(&list[3], &d)
	d.Negate()
	move(&list[9], &d)
	if secp256k1.VerifySchnorrBatch(list) {
		t.Error("faults cancel out")
	}
	d.Negate()
	move(&list[9], &d)
	d.Negate()
	move(&list[3], &d)
	if !secp256k1.VerifySchnorrBatch(list) {
		t.Error("mended, it is no batch")
	}
	list[3].Hash, list[9].Hash = list[9].Hash, list[3].Hash
	if secp256k1.VerifySchnorrBatch(list) {
		t.Error("two are swapped")
	}
	// r and s at the limits of field and group.
	for i := range list[5].Sig {
		list[5].Sig[i] = 0xff
	}
	if secp256k1.VerifySchnorrBatch(list) {
		t.Error("no number at all")
	}
}

// Keys say the same of a batch whatever was seen before, and with any number of workers at
// once; a key that comes again counts only with its own signature.
func TestKeys(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 16))
	list := signatures(t, r, 700, 150)
	bad := append([]secp256k1.Schnorr(nil), list...)
	bad[612].Sig[50] ^= 1
	stranger := append([]secp256k1.Schnorr(nil), list...)
	stranger[3].Pub = random32(r) // on the curve or not
	other := append([]secp256k1.Schnorr(nil), list...)
	other[7].Pub = list[8].Pub
	keys := new(secp256k1.Keys)
	var all sync.WaitGroup
	for workers := range 9 {
		crew := secp256k1.Crew{Workers: workers, Run: func(n int, work func(worker int)) {
			var each sync.WaitGroup
			for worker := range n {
				each.Go(func() { work(worker) })
			}
			each.Wait()
		}}
		all.Go(func() {
			for range 2 {
				if !keys.VerifySchnorrBatch(list, crew) || !keys.VerifySchnorrBatch(list[:16+workers], crew) {
					t.Errorf("refused with %d workers", workers)
				}
				for _, wrong := range [][]secp256k1.Schnorr{bad, stranger, other} {
					if keys.VerifySchnorrBatch(wrong, crew) {
						t.Errorf("accepted with %d workers", workers)
					}
				}
			}
		})
	}
	all.Wait()
}

// Of an x of all bits, of the prime and of one more there is no key, nor where there is no
// point.
func TestPublicKeys(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 17))
	var good, bad [][32]byte
	for range 300 {
		key := random32(r)
		if _, err := schnorr.ParsePubKey(key[:]); err == nil {
			good = append(good, key)
		} else {
			bad = append(bad, key)
		}
	}
	all := [32]byte{}
	for i := range all {
		all[i] = 0xff
	}
	p := [32]byte(btcec.S256().P.Bytes())
	above := p
	above[31]++ // x = 1, where there is a point
	for n := range good {
		if !secp256k1.PublicKeys(good[:n]) {
			t.Fatalf("seed %d: one of %x is none", seed, good[:n])
		}
	}
	for i, key := range append(bad, all, p, above) {
		list := append([][32]byte(nil), good...)
		list[i%len(list)] = key
		if secp256k1.PublicKeys(list) {
			t.Errorf("seed %d: %x is one", seed, key)
		}
	}
}

// BenchmarkSchnorrBatch times one of a thousand signatures, by four keys and each by another.
func BenchmarkSchnorrBatch(b *testing.B) {
	const n = 1000
	for _, keys := range []int{4, n} {
		list := signatures(b, rand.New(rand.NewPCG(seed, 9)), n, keys)
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			for b.Loop() {
				if !secp256k1.VerifySchnorrBatch(list) {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/signature")
		})
	}
}
