//go:build slow

package spend_test

import (
	"math/rand/v2"
	"testing"

	"dunlin/internal/wallet/spend"
)

// TestManyRandomWallets is TestRandomWallets with very many seeds.
func TestManyRandomWallets(t *testing.T) {
	for seed := range uint64(100_000) {
		rng := rand.New(rand.NewPCG(seed, 6))
		r := randomRequest(rng, 1+rng.IntN(1<<rng.IntN(10)))
		if p, err := spend.Build(r); err == nil {
			if err := checkPlan(&r, p); err != nil {
				t.Errorf("seed %d (%s): %v", seed, p.Method, err)
			}
		}
	}
}
