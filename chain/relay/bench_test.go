package relay_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

// decoys are transactions that no block here has, which only their ids matter of.
func decoys(n int) []chainhash.Hash {
	r := rand.New(rand.NewPCG(8, 8))
	out := make([]chainhash.Hash, n)
	for i := range out {
		for j := range out[i] {
			out[i][j] = byte(r.Uint32())
		}
	}
	return out
}

// BenchmarkReconstruct puts a block of 1 MB and 2,500 transactions together out of a
// pool of so many, all of the block's among them or 5% not, from the message to the
// bytes for the chain.
func BenchmarkReconstruct(b *testing.B) {
	for _, pool := range []int{2_500, 25_000, 100_000} {
		for _, missing := range []int{0, 125} {
			b.Run(fmt.Sprintf("pool=%d/missing=%d", pool, missing), func(b *testing.B) {
				k := newBench(b, relay.AssemblerConfig{})
				blk := k.w.large(k.w.b.Genesis(), 1, 2500, 1_000_000)
				k.blocks["b"] = blk
				msg := compact(b, k.w.b.Params, blk.Raw, 1)
				k.pool.ids = decoys(pool - 2499)
				txs := msgs(blk)
				k.pool.add(txs[missing:]...)
				var answer [][]byte
				for _, tx := range txs[:missing] {
					answer = append(answer, encode(b, tx))
				}
				b.SetBytes(int64(len(blk.Raw)))
				for b.Loop() {
					a, err := relay.NewAssembler(relay.AssemblerConfig{Params: k.w.b.Params, Candidates: k.pool})
					if err != nil {
						b.Fatal(err)
					}
					c := k.decode(msg)
					actions := a.Step(epoch, relay.Announced{From: "p", Block: c})
					if ask, ok := actions[0].(relay.AskTxs); ok && len(ask.Indexes) == missing {
						actions = a.Step(epoch.Add(time.Millisecond), relay.GotTxs{ID: ask.ID, Txs: answer})
					}
					if d, ok := actions[0].(relay.Deliver); !ok || !bytes.Equal(d.Raw, blk.Raw) {
						b.Fatal("not delivered")
					}
				}
			})
		}
	}
}

// BenchmarkMakeCompact makes the message of a block of 1 MB and 2,500 transactions.
func BenchmarkMakeCompact(b *testing.B) {
	w := newWorld()
	blk := w.large(w.b.Genesis(), 1, 2500, 1_000_000)
	b.SetBytes(int64(len(blk.Raw)))
	for b.Loop() {
		if msg, err := relay.MakeCompact(w.b.Params, blk.Raw, 1, nil); err != nil || len(msg) > 20_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckCompact judges such a message.
func BenchmarkCheckCompact(b *testing.B) {
	w := newWorld()
	msg := compact(b, w.b.Params, w.large(w.b.Genesis(), 1, 2500, 1_000_000).Raw, 1)
	for b.Loop() {
		if v := w.judge().Check("p", msg); v.Result != relay.Accept {
			b.Fatal(v)
		}
	}
}

// BenchmarkAppendTx encodes the transactions of such a block.
func BenchmarkAppendTx(b *testing.B) {
	txs := many(rand.New(rand.NewPCG(1, 1)), 2500, 1_000_000)
	buf := make([]byte, 0, 1_100_000)
	each := func(b *testing.B, f func(tx *wire.MsgTx)) {
		b.Helper()
		b.SetBytes(1_000_000)
		for b.Loop() {
			buf = buf[:0]
			for _, tx := range txs {
				f(tx)
			}
		}
	}
	b.Run("append", func(b *testing.B) {
		each(b, func(tx *wire.MsgTx) { buf = consensus.AppendTx(buf, tx) })
	})
	b.Run("wire", func(b *testing.B) {
		each(b, func(tx *wire.MsgTx) { _ = tx.Serialize(bytes.NewBuffer(buf)) })
	})
}
