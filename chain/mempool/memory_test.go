//go:build !race

// Not under the race detector, which changes what things take.

package mempool_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
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
			used := grown(before, memory)
			t.Logf("estimate %d, heap %d bytes an entry", memory/int64(n), used/uint64(n))
			if ratio := float64(memory) / float64(used); ratio < 0.8 || ratio > 2 {
				t.Errorf("estimate is %.2f of the heap", ratio)
			}
			runtime.KeepAlive(l)
			runtime.KeepAlive(raws)
		})
	}
}

// TestMemoryOfReturned: what a reorganisation gives back takes what is accounted
// for it, and a single one does not hold on to the block that it was in.
func TestMemoryOfReturned(t *testing.T) { // not parallel: it measures the heap
	const txs, outs = 20, 400
	l := running(t, txs+1, nil)
	fork := l.tip
	large := make([]*wire.MsgTx, txs)
	for i := range large {
		large[i] = l.pay(100_000, outs, l.coinbase(i))
	}
	small := l.pay(1000, 1, l.coinbase(txs))
	all := slices.Concat(large, []*wire.MsgTx{small})
	l.follow(l.on(fork, 0, all...).Hash)
	expire := func() {
		l.clock.add(1000 * time.Hour)
		l.pool.Sweep()
		if n, _, _ := l.pool.Size(); n != 0 {
			t.Fatalf("%d entries", n)
		}
	}
	// All of it.
	two := l.on(l.on(fork, 0), 0)
	l.follow(two.Hash)
	l.until(func() bool { n, _, _ := l.pool.Size(); return n == txs+1 })
	_, _, memory := l.pool.Size()
	full := heap()
	expire()
	used := full - heap()
	t.Logf("estimate %d, heap %d bytes", memory, used)
	if ratio := float64(memory) / float64(used); ratio < 0.8 || ratio > 2 {
		t.Errorf("estimate is %.2f of the heap", ratio)
	}
	// One of them: the others are mined again.
	l.tip = l.on(l.on(two, 0, all...), 0)
	l.follow(l.tip.Hash)
	three := l.on(l.on(l.on(two, 0, large...), 0), 0)
	l.follow(three.Hash)
	l.until(func() bool { return l.has(small) })
	_, _, memory = l.pool.Size()
	full = heap()
	expire()
	used = full - min(full, heap())
	t.Logf("estimate %d, heap %d bytes", memory, used)
	if used > 20*uint64(memory) {
		t.Errorf("a transaction of %d bytes holds %d", memory, used)
	}
	runtime.KeepAlive(l)
}

// TestMemoryOfOrphans: the same for orphans.
func TestMemoryOfOrphans(t *testing.T) { // not parallel: it measures the heap
	for _, ins := range []int{1, 20} {
		const txs, peers = 400, 8
		l := running(t, 0, func(o *mempool.Options) { o.MaxOrphans, o.MaxOrphanBytes = 10_000, 1<<30 })
		raws := make([][]byte, txs)
		for i := range raws {
			var coins []coin
			for j := range ins {
				coins = append(coins, coin{wire.OutPoint{Hash: [32]byte{byte(i), byte(i >> 8), byte(j), 1}}, 100_000})
			}
			var b bytes.Buffer
			if err := l.pay(100_000*int64(ins)/2, 2, coins...).Serialize(&b); err != nil {
				t.Fatal(err)
			}
			raws[i] = b.Bytes()
		}
		before := heap()
		for i, raw := range raws {
			tx, err := consensus.DecodeTx(bytes.Clone(raw))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.submit(tx, fmt.Sprint("peer", i%peers)); err == nil {
				t.Fatal("accepted")
			}
		}
		n, bytes := l.pool.Orphans()
		if n != txs {
			t.Fatalf("%d orphans", n)
		}
		used := grown(before, bytes)
		t.Logf("%d inputs: estimate %d, heap %d bytes an orphan", ins, bytes/int64(n), used/uint64(n))
		if ratio := float64(bytes) / float64(used); ratio < 0.8 || ratio > 2 {
			t.Errorf("%d inputs: estimate is %.2f of the heap", ins, ratio)
		}
		runtime.KeepAlive(l)
		runtime.KeepAlive(raws)
	}
}

// grown is by how much the heap has grown since before, once that fits what is estimated: what the
// database still lets go of in the background is not the pool's.
func grown(before uint64, estimate int64) uint64 {
	used := heap() - before
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 300 {
		if float64(estimate) >= 0.8*float64(used) {
			break
		}
		<-tick.C
		used = heap() - before
	}
	return used
}

// heap is what is in use, once the database has let go of what it used lately.
func heap() (bytes uint64) {
	last := uint64(0)
	for range 50 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if bytes = m.HeapAlloc; max(bytes, last)-min(bytes, last) < 4<<10 {
			return bytes
		}
		last = bytes
		runtime.Gosched()
	}
	return bytes
}
