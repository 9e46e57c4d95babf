package wallet_test

import (
	"strings"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet"
)

const coin = 100_000_000

// TestPaymentStates: a payment goes from the mempool into a block and down to six; the texts say so.
func TestPaymentStates(t *testing.T) {
	b := running(t)
	a := b.receive("")
	m := foreign(a.Script, 3*coin, 1)
	id := m.TxHash()
	b.pool.add(m)
	b.until("it is seen in the mempool", func() bool { return b.balance().Untrusted == 3*coin })
	p := b.payment(id)
	if p.State != wallet.StateUnconfirmed || !p.InMempool || p.Kind != wallet.KindReceived || p.Amount != 3*coin || p.Height != -1 {
		t.Errorf("in the mempool: %+v", p)
	}
	b.chain.mine(m)
	b.settled()
	for n := int32(1); n <= 7; n++ {
		p := b.payment(id)
		state, text := wallet.StateConfirming, string('0'+n)+" of 6"
		if n >= 6 {
			state, text = wallet.StateConfirmed, "confirmed"
		}
		if p.State != state || p.Text != text || p.Confirmations != n || p.Height != 6 {
			t.Errorf("after %d blocks: %s %q, %d confirmations, height %d: %s", n, p.State, p.Text, p.Confirmations, p.Height, p.Explain)
		}
		b.chain.mine()
		b.settled()
	}
	if got := b.balance(); got.Confirmed != 3*coin || got.Spendable != 3*coin || got.Total() != 3*coin {
		t.Errorf("balance %+v", got)
	}
}

// TestReorgConflict: a block that is left gives its payment back; another branch that spends the same coin
// makes it conflicted, and names who did; back on the old branch it is confirmed again.
func TestReorgConflict(t *testing.T) {
	b := running(t)
	a := b.receive("p2tr")
	pays := foreign(a.Script, coin, 1)
	rival := foreign([]byte{txscript.OP_TRUE}, coin, 1) // the same input
	old := b.chain.mine(pays)
	b.chain.fill(2)
	b.settled()
	if p := b.payment(pays.TxHash()); p.Confirmations != 3 {
		t.Fatalf("%+v", p)
	}
	b.chain.branch(5, nil, []*wire.MsgTx{rival}, nil, nil)
	b.settled()
	p := b.payment(pays.TxHash())
	if p.State != wallet.StateConflicted || p.Conflicting != rival.TxHash() || !strings.Contains(p.Explain, rival.TxHash().String()) || !strings.Contains(p.Explain, old.hash.String()) {
		t.Errorf("after the reorganisation: %s by %s: %s", p.State, p.Conflicting, p.Explain)
	}
	if got := b.balance(); got.Total() != 0 {
		t.Errorf("balance %+v of a conflicted payment", got)
	}
	b.chain.branch(5, []*wire.MsgTx{pays}, nil, nil, nil, nil)
	b.settled()
	if p := b.payment(pays.TxHash()); p.State != wallet.StateConfirming || p.Confirmations != 5 {
		t.Errorf("mined again: %+v", p)
	}
	b.chain.branch(5, nil, nil, nil, nil, nil, nil)
	b.settled()
	if p := b.payment(pays.TxHash()); p.State != wallet.StateUnconfirmed || p.InMempool {
		t.Errorf("in no block: %+v", p)
	}
}

// TestOrphanedReward: the reward of a block that is left does not exist, nor what spends it; it is back with its block.
func TestOrphanedReward(t *testing.T) {
	b := running(t)
	a := b.receive("")
	reward := coinbase(a.Script, 77)
	b.chain.mine(reward)
	b.settled()
	if got := b.balance(); got.Immature != 50*coin || got.Spendable != 0 {
		t.Errorf("balance %+v of a young reward", got)
	}
	b.chain.fill(99)
	b.settled()
	if got := b.balance(); got.Confirmed != 50*coin || got.Immature != 0 {
		t.Errorf("balance %+v of a reward 100 deep", got)
	}
	b.chain.branch(5, nil, nil)
	b.settled()
	if p := b.payment(reward.TxHash()); p.State != wallet.StateConflicted || p.Kind != wallet.KindMined {
		t.Errorf("left: %+v", p)
	}
	if got := b.balance(); got.Total() != 0 {
		t.Errorf("balance %+v of a reward that does not exist", got)
	}
}

// TestReplaced: what another one replaced in the mempool is conflicted, waits again when that one goes, and
// counts if it is mined all the same.
func TestReplaced(t *testing.T) {
	b := running(t)
	a := b.receive("p2pkh")
	first := foreign(a.Script, coin, 1)
	second := foreign([]byte{txscript.OP_TRUE}, coin-1, 1)
	b.pool.add(first)
	b.until("it is seen", func() bool { return b.balance().Untrusted == coin })
	b.pool.add(second)
	b.pool.drop(first.TxHash(), wallet.Fate{By: second.TxHash(), Why: "replaced"})
	b.until("it is replaced", func() bool { return b.payment(first.TxHash()).State == wallet.StateConflicted })
	if p := b.payment(first.TxHash()); p.Conflicting != second.TxHash() {
		t.Errorf("by %s", p.Conflicting)
	}
	b.pool.drop(second.TxHash(), wallet.Fate{Why: "expired"})
	b.until("it waits again", func() bool { return b.payment(first.TxHash()).State == wallet.StateUnconfirmed })
	if got := b.balance(); got.Total() != 0 {
		t.Errorf("balance %+v of what nobody would mine", got)
	}
	b.chain.mine(first)
	b.settled()
	if got := b.balance(); got.Confirmed != coin {
		t.Errorf("balance %+v", got)
	}
}

// TestRestart: whatever happened while the wallet was away, it goes on from the last block it has seen, also
// when that one was left meanwhile, and when the chain does not know it any more.
func TestRestart(t *testing.T) {
	for _, tc := range []struct {
		name string
		away func(b *bench, m *wire.MsgTx)
		want string
	}{
		{"nothing", func(*bench, *wire.MsgTx) {}, "2 of 6"},
		{"more blocks", func(b *bench, _ *wire.MsgTx) { b.chain.fill(300) }, "confirmed"},
		{"another branch without it", func(b *bench, _ *wire.MsgTx) { b.chain.branch(5, nil, nil, nil) }, "unconfirmed"},
		{"another branch with it", func(b *bench, m *wire.MsgTx) { b.chain.branch(5, nil, nil, []*wire.MsgTx{m}) }, "1 of 6"},
		{"a shorter branch", func(b *bench, _ *wire.MsgTx) { b.chain.branch(2, nil) }, "unconfirmed"},
		{"a chain that forgot the branch", func(b *bench, m *wire.MsgTx) {
			seen := b.chain.tip
			b.chain.branch(4, nil, []*wire.MsgTx{m}, nil)
			for ; seen.height > 4; seen = seen.parent {
				delete(b.chain.blocks, seen.hash)
			}
		}, "2 of 6"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := running(t)
			a := b.receive("")
			m := foreign(a.Script, coin, 1)
			b.chain.mine(m)
			b.chain.mine()
			b.settled()
			b.stop()
			tc.away(b, m)
			b.open()
			b.settled()
			if p := b.payment(m.TxHash()); p.Text != tc.want {
				t.Errorf("%q, want %q: %s", p.Text, tc.want, p.Explain)
			}
			if next := b.receive(""); next.Index != a.Index+1 {
				t.Errorf("address %d handed out after %d", next.Index, a.Index)
			}
		})
	}
}
