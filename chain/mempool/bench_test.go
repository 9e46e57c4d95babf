package mempool_test

import (
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// BenchmarkSubmit submits P2WPKH chains of 25, one input and two outputs each.
func BenchmarkSubmit(b *testing.B) {
	const families = 40
	l := newLab(b, consensus.Regtest(), families, nil)
	var txs []*wire.MsgTx
	for i := range families {
		c := l.coinbase(i)
		for range mempool.MaxAncestors {
			tx := l.draft(1000, 1, c)
			tx.AddTxOut(wire.NewTxOut(10_000, l.key.Script()))
			tx.TxOut[0].Value -= 10_000
			l.sign(tx, c)
			c = coinsOf(tx)[0]
			txs = append(txs, tx)
		}
	}
	i := len(txs)
	for b.Loop() {
		if i == len(txs) {
			b.StopTimer()
			var err error
			if l.pool, err = mempool.New(mempool.Options{Chain: l.chain}); err != nil {
				b.Fatal(err)
			}
			i = 0
			b.StartTimer()
		}
		l.want(txs[i])
		i++
	}
}

// BenchmarkEvict submits to a full pool what evicts something each time.
func BenchmarkEvict(b *testing.B) {
	const coins = 2000
	l := newLab(b, consensus.Regtest(), 1, func(o *mempool.Options) { o.MaxBytes = coins / 2 * 1500 })
	run(b, l.pool.Run)
	funds := l.pay(1000, coins, l.coinbase(0))
	l.mine(funds)
	outs := coinsOf(funds)
	txs := make([]*wire.MsgTx, coins)
	for i := range txs {
		txs[i] = l.pay(int64(1000+1000*i), 1, outs[i])
	}
	i := 0
	for b.Loop() {
		if i == coins {
			b.StopTimer()
			o := mempool.Options{Chain: l.chain, MaxBytes: coins / 2 * 1500}
			var err error
			if l.pool, err = mempool.New(o); err != nil {
				b.Fatal(err)
			}
			i = 0
			b.StartTimer()
		}
		l.want(txs[i])
		i++
	}
}
