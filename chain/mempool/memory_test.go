//go:build !race

// Not under the race detector, which changes what things take.

package mempool_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// TestMemoryEstimate: what the pool says that it takes is what the heap says,
// within a fifth below and a factor of two above, for transactions of several
// shapes, decoded as relay does.
func TestMemoryEstimate(t *testing.T) { // not parallel: it measures the heap
	for _, shape := range []struct{ txs, ins, outs int }{
		{1000, 1, 1},
		{1000, 1, 2},
		{100, 10, 2},
		{100, 1, 25},
	} {
		t.Run(fmt.Sprintf("%d of %d in, %d out", shape.txs, shape.ins, shape.outs), func(t *testing.T) {
			l := newLab(t, consensus.Regtest(), 20, nil)
			run(t, l.pool.Run)
			// A block makes the coins.
			need := shape.txs * shape.ins
			var funds []*wire.MsgTx
			var coins []coin
			for i := 0; len(coins) < need; i++ {
				funds = append(funds, l.pay(1000, min(need, 2000), l.coinbase(i)))
				coins = append(coins, coinsOf(funds[i])...)
			}
			l.mine(funds...)
			raws := make([][]byte, shape.txs)
			for i := range raws {
				var b bytes.Buffer
				if err := l.pay(100_000, shape.outs, coins[i*shape.ins:(i+1)*shape.ins]...).Serialize(&b); err != nil {
					t.Fatal(err)
				}
				raws[i] = b.Bytes()
			}
			before := heap()
			for _, raw := range raws {
				tx, err := consensus.DecodeTx(bytes.Clone(raw))
				if err != nil {
					t.Fatal(err)
				}
				l.want(tx)
			}
			n, _, memory := l.pool.Size()
			if n != shape.txs {
				t.Fatalf("%d entries", n)
			}
			used := heap() - before
			t.Logf("estimate %d, heap %d bytes an entry", memory/int64(n), used/uint64(n))
			if ratio := float64(memory) / float64(used); ratio < 0.8 || ratio > 2 {
				t.Errorf("estimate is %.2f of the heap", ratio)
			}
			runtime.KeepAlive(l)
			runtime.KeepAlive(raws)
		})
	}
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
