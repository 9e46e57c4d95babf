package consensus_test

import (
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Our signature hashes and views of the coins are txscript's.
func TestSigHashes(t *testing.T) {
	t.Parallel()
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for range 300 {
		tx := wire.NewMsgTx(2)
		var coins []consensus.Coin
		m := make(map[wire.OutPoint]*wire.TxOut)
		for range 1 + r.IntN(40) {
			in := &wire.TxIn{Sequence: r.Uint32()}
			copy(in.PreviousOutPoint.Hash[:], random(32))
			in.PreviousOutPoint.Index = r.Uint32N(5)
			tx.AddTxIn(in)
			script := random([]int{0, 22, 25, 252, 253, 600}[r.IntN(6)])
			if r.IntN(2) == 0 {
				script = append([]byte{txscript.OP_1, txscript.OP_DATA_32}, random(32)...)
			}
			coins = append(coins, consensus.Coin{Value: r.Int64(), Script: script})
			m[in.PreviousOutPoint] = &wire.TxOut{Value: coins[len(coins)-1].Value, PkScript: script}
		}
		for range r.IntN(40) {
			tx.AddTxOut(&wire.TxOut{Value: r.Int64(), PkScript: random([]int{0, 22, 252, 253, 511, 512, 513, 65535, 65536}[r.IntN(9)])})
		}
		theirs := txscript.NewMultiPrevOutFetcher(m)
		if got, want := consensus.SigHashes(tx, coins), txscript.NewTxSigHashes(tx, theirs); *got != *want {
			t.Fatalf("seed %d: %+v, want %+v", seed, got, want)
		}
		ours := consensus.NewSpentOuts(tx, coins)
		for op, want := range m {
			if got := ours.FetchPrevOutput(op); got == nil || got.Value != want.Value || string(got.PkScript) != string(want.PkScript) {
				t.Fatalf("seed %d: coin %v is %v", seed, op, got)
			}
		}
		if got := ours.FetchPrevOutput(wire.OutPoint{Index: 9}); got != nil {
			t.Fatalf("a coin that is not there: %v", got)
		}
	}
}
