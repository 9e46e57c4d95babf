package mempool_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// offered says whether a block may have tx for all that the pool knows.
func (l *lab) offered(tx *wire.MsgTx) bool {
	l.t.Helper()
	wid := tx.WitnessHash()
	listed := false
	for id := range l.pool.WitnessIDs() {
		listed = listed || *id == wid
	}
	got, id, ok := l.pool.ByWitnessID(wid)
	if ok != listed || ok && (got.WitnessHash() != wid || id != tx.TxHash()) {
		l.t.Fatalf("%v: listed %v, there %v", wid, listed, ok)
	}
	return ok
}

// TestBlockTxs: what a block may have is offered: entries, orphans, what was
// refused for reasons that others may not share, and what lost its place; not what is
// wrong everywhere, mined or too old.
func TestBlockTxs(t *testing.T) {
	t.Parallel()
	l := running(t, 10, nil)
	check := func(what string, tx *wire.MsgTx, want bool) {
		t.Helper()
		if got := l.offered(tx); got != want {
			t.Errorf("%s: offered %v", what, got)
		}
		l.verify()
	}
	entry := l.pay(1000, 2, l.coinbase(0))
	l.want(entry)
	check("an entry", entry, true)

	parent := l.pay(1000, 1, l.coinbase(1))
	orphan := l.pay(1000, 1, coinsOf(parent)...)
	l.wantRule(orphan, "missing-inputs", nobody)
	check("an orphan", orphan, true)

	cheap := l.pay(1, 1, l.coinbase(2))
	l.wantRule(cheap, "min-relay-fee-not-met", nobody)
	check("a fee too low", cheap, true)

	wrong := l.pay(-1, 1, l.coinbase(3))
	l.wantRule(wrong, "bad-txns-in-belowout", sender)
	check("wrong everywhere", wrong, false)

	l.wantRule(entry, "txn-already-in-mempool", nobody)
	better := l.pay(50_000, 1, l.coinbase(0))
	l.want(better)
	check("replaced", entry, true)
	check("a replacement", better, true)
	l.wantRule(entry, "insufficient-fee", nobody)

	child := l.pay(1000, 1, coinsOf(better)...)
	l.want(child)
	rival := l.pay(2000, 3, l.coinbase(0))
	l.mine(rival)
	check("lost to a block", better, true)
	check("what built on it", child, true)
	check("mined", rival, false)

	old := l.pay(1000, 1, l.coinbase(4))
	l.want(old)
	l.clock.add(1000 * time.Hour)
	l.pool.Sweep()
	check("too old", old, false)
}

// TestBlockTxsOfFullPool: what others pushed out is offered.
func TestBlockTxsOfFullPool(t *testing.T) {
	t.Parallel()
	const txs = 10
	l := running(t, txs+1, func(o *mempool.Options) { o.MaxBytes = txs * 1500 })
	var out []*wire.MsgTx
	for i := range txs + 1 {
		tx := l.pay(int64(1000+100*i), 1, l.coinbase(i))
		_, _ = l.submit(tx, "peer")
		out = append(out, tx)
	}
	if l.has(out[0]) {
		t.Fatal("it is not full")
	}
	for i, tx := range out {
		if !l.offered(tx) {
			t.Errorf("transaction %d is not offered", i)
		}
	}
}

// TestExtraBounds: what is kept besides keeps its bounds, the newest of it.
func TestExtraBounds(t *testing.T) {
	t.Parallel()
	x := mempool.NewExtras()
	tx := func(n, size int) *wire.MsgTx {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(n)}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, make([]byte, size)))
		return tx
	}
	check := func(want int) {
		t.Helper()
		if n, bytes, err := x.Verify(); err != nil || want >= 0 && n != want {
			t.Fatalf("%d extras of %d bytes, want %d: %v", n, bytes, want, err)
		}
	}
	for i := range mempool.MaxExtra + 7 {
		x.Keep(tx(i, 10))
		x.Keep(tx(i, 10)) // once is enough
		check(min(i+1, mempool.MaxExtra))
	}
	if x.Has(tx(6, 10)) || !x.Has(tx(7, 10)) {
		t.Error("it is not the oldest that goes")
	}
	x.Keep(tx(1000, mempool.MaxExtraBytes/mempool.ExtraShare))
	check(mempool.MaxExtra)
	for i := range 50 {
		x.Keep(tx(2000+i, mempool.MaxExtraBytes/mempool.ExtraShare/3))
		check(-1)
	}
	n, bytes, err := x.Verify()
	if err != nil || !x.Has(tx(2049, mempool.MaxExtraBytes/mempool.ExtraShare/3)) || bytes < mempool.MaxExtraBytes*9/10 {
		t.Errorf("%d extras of %d bytes: %v", n, bytes, err)
	}
}

// TestWitnessIDsWhileThePoolChanges: whatever is in the pool all the time is yielded,
// however much comes and goes in between.
func TestWitnessIDsWhileThePoolChanges(t *testing.T) {
	t.Parallel()
	const txs = mempool.WIDsAtOnce + 100
	l := running(t, 1, nil)
	funds := l.pay(100_000, txs, l.coinbase(0))
	l.mine(funds)
	r := rand.New(rand.NewPCG(3, 3))
	var wids []chainhash.Hash
	for _, c := range coinsOf(funds) {
		tx := l.pay(1000, 1, c)
		l.want(tx)
		wids = append(wids, tx.WitnessHash())
	}
	kept := make(map[chainhash.Hash]bool)
	for _, wid := range wids {
		kept[wid] = true
	}
	seen := make(map[chainhash.Hash]bool)
	steps := 0
	for id := range l.pool.WitnessIDs() {
		seen[*id] = true
		if steps++; steps%100 == 0 { // some are mined
			var gone []*wire.MsgTx
			for range 5 {
				wid := wids[r.IntN(len(wids))]
				if tx, _, ok := l.pool.ByWitnessID(wid); ok && kept[wid] && !slices.Contains(gone, tx) {
					gone = append(gone, tx)
					delete(kept, wid)
				}
			}
			l.mine(gone...)
		}
	}
	for wid := range kept {
		if !seen[wid] {
			t.Errorf("%v was not yielded", wid)
		}
	}
	l.verify()
	for range l.pool.WitnessIDs() {
		break // whoever has enough may stop
	}
}

// BenchmarkWitnessIDs looks through the ids of a pool.
func BenchmarkWitnessIDs(b *testing.B) {
	const coins = 2000
	l := newLab(b, consensus.Regtest(), 1, nil)
	run(b, l.pool.Run)
	funds := l.pay(1000, coins, l.coinbase(0))
	l.mine(funds)
	for _, c := range coinsOf(funds) {
		l.want(l.pay(1000, 1, c))
	}
	var sum byte
	for b.Loop() {
		for id := range l.pool.WitnessIDs() {
			sum ^= id[0]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/coins, "ns/tx")
	_ = sum
}
