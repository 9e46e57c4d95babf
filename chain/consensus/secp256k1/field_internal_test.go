package secp256k1

import (
	"math/rand/v2"
	"testing"
)

// What a processor has of its own gives the very words that every processor gives, wherever
// the result is put. (TestField compares those that are used with math/big.)
func TestFieldGeneric(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(seed, 14))
	for range 200_000 {
		x, y := field(edgeWords(r)), field(edgeWords(r))
		var got, want field
		mulField(&got, &x, &y)
		mulFieldGeneric(&want, &x, &y)
		a, b := x, y
		mulField(&a, &a, &y)
		mulField(&b, &x, &b)
		if got != want || a != want || b != want {
			t.Fatalf("seed %d: %x times %x is %x, %x and %x, want %x", seed, x, y, got, a, b, want)
		}
		squareField(&got, &x)
		squareFieldGeneric(&want, &x)
		a = x
		squareField(&a, &a)
		mulFieldGeneric(&b, &x, &x)
		if got != want || a != want || b.reduced() != want.reduced() {
			t.Fatalf("seed %d: %x squared is %x, %x and %x, want %x", seed, x, got, a, b, want)
		}
		a = x
		mulField(&a, &a, &a)
		if mulFieldGeneric(&b, &x, &x); a != b {
			t.Fatalf("seed %d: %x times itself is %x, want %x", seed, x, a, b)
		}
	}
}
