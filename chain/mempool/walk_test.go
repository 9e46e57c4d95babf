package mempool_test

import (
	"testing"

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
