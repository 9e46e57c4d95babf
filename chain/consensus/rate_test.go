package consensus_test

import (
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/blockchain"

	"dunlin/chain/consensus"
)

// Work is the library's for targets of every size, and for what is no target.
func TestWork(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for exponent := range uint32(256) {
		mantissas := []uint32{0, 1, 2, 3, 5, 0x7fff, 0x8000, 0x8001, 0xffff, 0x7ffffe, 0x7fffff, 0x800000, 0x800001, 0xffffff}
		for range 100 {
			mantissas = append(mantissas, rng.Uint32()>>(8+rng.IntN(23)))
		}
		for _, m := range mantissas {
			bits := exponent<<24 | m
			if got, want := consensus.Work(bits), blockchain.CalcWork(bits); got.Cmp(want) != 0 {
				t.Fatalf("work of %08x: %x, want %x", bits, got, want)
			}
		}
	}
}
