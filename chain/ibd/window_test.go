package ibd

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBitmap compares the ring with a set, over ranges that wrap.
func TestBitmap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		size := int32(64 << rng.IntN(3))
		b := newBitmap(int(size))
		base := rng.Int32N(1 << 20)
		set := map[int32]bool{}
		for range 500 {
			h := base + rng.Int32N(size)
			if rng.IntN(2) == 0 {
				b.set(h)
				set[h] = true
			} else {
				b.clear(h)
				delete(set, h)
			}
			from := base + rng.Int32N(size)
			to := from - 2 + rng.Int32N(base+size-from+2)
			n := rng.IntN(10)
			next, unset, nth := to+1, to+1, to+1
			for h := to; h >= from; h-- {
				if set[h] {
					next = h
				} else {
					unset = h
				}
			}
			for h, k := from, 0; h <= to; h++ {
				if !set[h] {
					continue
				}
				if k == n {
					nth = h
					break
				}
				k++
			}
			if from > to {
				next, unset, nth = to+1, to+1, to+1
			}
			if got := b.next(from, to); got != next {
				t.Fatalf("seed %d: next(%d, %d) = %d, want %d", seed, from, to, got, next)
			}
			if got := b.nextClear(from, to); got != unset {
				t.Fatalf("seed %d: nextClear(%d, %d) = %d, want %d", seed, from, to, got, unset)
			}
			if got := b.nth(from, to, n); got != nth {
				t.Fatalf("seed %d: nth(%d, %d, %d) = %d, want %d", seed, from, to, n, got, nth)
			}
			if b.has(h) != set[h] {
				t.Fatalf("seed %d: has(%d) = %v", seed, h, b.has(h))
			}
		}
	}
}

// TestSpans compares the list with a set.
func TestSpans(t *testing.T) {
	t.Parallel()
	const n = 60
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 4))
		var s spans
		set := map[int32]bool{}
		for range 60 {
			from := rng.Int32N(n)
			to := from - 1 + rng.Int32N(8)
			switch rng.IntN(8) {
			case 0:
				s = s.remove(from)
				delete(set, from)
			case 1:
				s = s.clip(from, from+40)
				for h := range set {
					if h < from || h > from+40 {
						delete(set, h)
					}
				}
			default:
				s = s.add(from, to)
				for h := from; h <= to; h++ {
					set[h] = true
				}
			}
			var want spans
			for h := range int32(n + 10) {
				if !set[h] {
					continue
				}
				if k := len(want); k > 0 && want[k-1].to == h-1 {
					want[k-1].to = h
				} else {
					want = append(want, span{h, h})
				}
			}
			if !slices.Equal(s, want) {
				t.Fatalf("seed %d: got %v, want %v", seed, s, want)
			}
			x, ok := s.around(from)
			if ok != set[from] || ok && (from < x.from || from > x.to) {
				t.Fatalf("seed %d: around(%d) = %v, %v in %v", seed, from, x, ok, s)
			}
		}
	}
}
