package mempool_test

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// TestNewer: a reader that goes on from where it was sees every entry once, in the order of acceptance.
func TestNewer(t *testing.T) {
	l := newLab(t, consensus.Regtest(), 5, nil)
	if _, last := l.pool.Newer(0, 10); last != 0 {
		t.Fatalf("an empty pool goes on from %d", last)
	}
	var want []string
	for i := range 5 {
		tx := l.pay(10_000+int64(i), 1, l.coinbase(i))
		l.want(tx)
		want = append(want, tx.TxHash().String())
	}
	var got []string
	after := uint64(0)
	for range 4 {
		var es []mempool.Entry
		es, after = l.pool.Newer(after, 2)
		for _, e := range es {
			got = append(got, e.ID.String())
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d is %s, want %s", i, got[i], want[i])
		}
	}
}

// TestFeeRates: what fills the blocks before decides, and a parent counts with the child that pays for it.
func TestFeeRates(t *testing.T) {
	l := newLab(t, consensus.Regtest(), 5, nil)
	least := l.pool.MinFeeRate()
	if got := l.pool.FeeRates(4_000_000, 1, 6); got[0] != least || got[1] != least {
		t.Errorf("an empty pool: %v, want %d", got, least)
	}
	weight := func(txid chainhash.Hash) int64 {
		e, ok := l.pool.Get(txid)
		if !ok {
			t.Fatal("not in the pool")
		}
		return e.FeeWeight()
	}
	dear := l.pay(40_000, 1, l.coinbase(0))
	l.want(dear)
	cheap := l.pay(20_000, 1, l.coinbase(1))
	l.want(cheap)
	one := weight(dear.TxHash()) + weight(cheap.TxHash())/2 // room of a block: the dear one and a half of the other
	want := 20_000*4000/weight(cheap.TxHash()) + 1
	if got := l.pool.FeeRates(one, 1, 2); got[0] != want || got[1] != least {
		t.Errorf("two for a block of one and a half: %v, want %d and %d", got, want, least)
	}
	// Poor by itself, the parent is mined for its child, which pays more than all.
	parent := l.pay(2000, 1, l.coinbase(2))
	child := l.pay(200_000, 1, l.want(parent)...)
	l.want(child)
	family := weight(parent.TxHash()) + weight(child.TxHash())
	want = 40_000*4000/weight(dear.TxHash()) + 1
	if got := l.pool.FeeRates(family+1, 1); got[0] != want {
		t.Errorf("a block for the family alone: %v, want %d", got, want)
	}
}
