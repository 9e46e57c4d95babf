package mempool_test

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// TestUnheard: others lack what is not here, what they were not told of, and what
// was made here a moment ago; not what a peer sent.
func TestUnheard(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	unheard := func(tx *wire.MsgTx) bool {
		id, wid := tx.TxHash(), tx.WitnessHash()
		return l.pool.Unheard(&id, &wid)
	}
	theirs := l.pay(1000, 1, l.coinbase(0))
	if !unheard(theirs) {
		t.Error("what is not here was heard of")
	}
	l.want(theirs)
	if unheard(theirs) {
		t.Error("what a peer sent was not heard of")
	}
	if id := theirs.TxHash(); !l.pool.Unheard(&id, &chainhash.Hash{}) {
		t.Error("it was heard of with another witness")
	}
	ours := l.pay(1000, 1, l.coinbase(1))
	if _, err := l.submit(ours, ""); err != nil {
		t.Fatal(err)
	}
	l.clock.add(time.Hour)
	if !unheard(ours) {
		t.Error("what nobody was told of was heard of")
	}
	l.pool.Sent(ours.TxHash())
	if unheard(ours) {
		t.Error("what was made here long ago, and told, was not heard of")
	}
	fresh := l.pay(1000, 1, l.coinbase(2))
	if _, err := l.submit(fresh, ""); err != nil {
		t.Fatal(err)
	}
	l.pool.Sent(fresh.TxHash())
	if !unheard(fresh) {
		t.Error("what was told this moment was heard of")
	}
	l.clock.add(time.Second)
	if unheard(fresh) {
		t.Error("what was told a second ago was not heard of")
	}
}
