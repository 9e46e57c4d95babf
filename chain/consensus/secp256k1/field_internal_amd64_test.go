package secp256k1

import (
	"math/rand/v2"
	"testing"
)

// A processor without the instructions goes on in Go.
func TestFieldWithoutADX(t *testing.T) { // not parallel: hasADX is everybody's
	defer func(has bool) { hasADX = has }(hasADX)
	hasADX = false
	r := rand.New(rand.NewPCG(seed, 15))
	for range 10_000 {
		x, y := field(edgeWords(r)), field(edgeWords(r))
		var got, want field
		mulField(&got, &x, &y)
		if mulFieldGeneric(&want, &x, &y); got != want {
			t.Fatalf("seed %d: %x times %x is %x, want %x", seed, x, y, got, want)
		}
		squareField(&got, &x)
		if squareFieldGeneric(&want, &x); got != want {
			t.Fatalf("seed %d: %x squared is %x, want %x", seed, x, got, want)
		}
	}
}
