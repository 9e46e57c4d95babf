package exchange

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"golang.org/x/time/rate"
)

// TestWishesAreBounded: a hash is asked for again after a while only; however many hashes are named, so many are remembered; and the pace holds.
func TestWishesAreBounded(t *testing.T) {
	d := &driver{wished: make(map[chainhash.Hash]time.Time), pace: rate.NewLimiter(rate.Inf, 1)}
	now := time.Unix(1_795_000_000, 0)
	hash := func(i int) (h chainhash.Hash) {
		binary.LittleEndian.PutUint32(h[:], uint32(i))
		return h
	}
	for i := range maxWishes {
		if !d.wishAnew(hash(i), now) || d.wishAnew(hash(i), now.Add(wishAgain-1)) {
			t.Fatalf("hash %d is not asked for once", i)
		}
	}
	if len(d.wished) != maxWishes {
		t.Fatalf("%d are remembered", len(d.wished))
	}
	// Those that may be asked for again make room for one.
	now = now.Add(wishAgain)
	if !d.wishAnew(hash(0), now) || len(d.wished) != 1 {
		t.Errorf("%d are remembered after a while", len(d.wished))
	}
	// None may.
	for i := range 3 * maxWishes {
		d.wishAnew(hash(1000+i), now)
		if len(d.wished) > maxWishes {
			t.Fatalf("%d are remembered, limit %d", len(d.wished), maxWishes)
		}
	}
	d.pace = rate.NewLimiter(1, 1)
	if !d.wishAnew(hash(1), now) || d.wishAnew(hash(2), now) || !d.wishAnew(hash(2), now.Add(time.Second)) {
		t.Error("the pace does not hold")
	}
}
