package wallet_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/internal/wallet"
)

// pay sends half a coin.
func (b *bench) pay() *wallet.Sent {
	b.t.Helper()
	s, err := b.w.Send(b.t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// changeIndex is the index of the address that the change of a payment went to.
func (b *bench) changeIndex(s *wallet.Sent) uint32 {
	b.t.Helper()
	if s.Change < 0 {
		b.t.Fatal("no change")
	}
	a, ok := b.w.Mine(s.Tx.TxOut[s.Change].PkScript)
	if !ok || !a.Change {
		b.t.Fatalf("change to %+v", a)
	}
	return a.Index
}

// TestRefusedUsesNoAddress: payments that are refused leave no trace, however many: else the change of the next one
// that is mined might be beyond what a restored wallet looks at.
func TestRefusedUsesNoAddress(t *testing.T) {
	b := rich(t, 2)
	b.pool.refuse = errors.New("not now")
	for range 150 {
		if _, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}}); err == nil {
			t.Fatal("it was taken")
		}
	}
	b.pool.refuse = nil
	s := b.pay()
	if got := b.changeIndex(s); got != 0 {
		t.Errorf("change went to address %d", got)
	}
	b.chain.mine(s.Tx)
	b.settled()
	want := b.balance().Confirmed
	b.stop()
	b.dir = t.TempDir()
	b.open()
	b.create(true)
	b.settled()
	if got := b.balance().Confirmed; got != want {
		t.Errorf("restored from the words: %d of %d", got, want)
	}
}

// TestGivenUpStays: a payment that was given up and then made impossible by a block is not sent again when a
// reorganisation takes that block back.
func TestGivenUpStays(t *testing.T) {
	b := rich(t, 1)
	first := b.pay().Tx
	id := first.TxHash()
	b.pool.drop(id, wallet.Fate{Why: "a restart"})
	b.until("it is not in the mempool", func() bool { return !b.payment(id).InMempool })
	b.pool.refuse = errors.New("not now")
	if _, err := b.w.Abandon(id); err != nil {
		t.Fatal(err)
	}
	b.pool.refuse = nil
	rival := foreign(outside, coin/3, 0)
	rival.TxIn[0].PreviousOutPoint = first.TxIn[0].PreviousOutPoint
	_, height, _ := b.chain.Tip()
	b.chain.mine(rival)
	b.settled()
	if p := b.payment(id); p.State != wallet.StateConflicted {
		t.Fatalf("%s: %s", p.State, p.Explain)
	}
	b.chain.branch(height, nil, nil)
	b.settled()
	if p := b.payment(id); p.State != wallet.StateAbandoned || b.pool.Have(id) {
		t.Errorf("after the reorganisation: %s: %s", p.State, p.Explain)
	}
	b.stop()
	b.open()
	b.settled()
	if p := b.payment(id); p.State != wallet.StateAbandoned || b.pool.Have(id) {
		t.Errorf("after a restart: %s: %s", p.State, p.Explain)
	}
}

// TestStaleFate: that a block made a payment impossible is forgotten with the block, whatever the mempool remembers.
func TestStaleFate(t *testing.T) {
	b := rich(t, 1)
	first := b.pay().Tx
	id := first.TxHash()
	rival := foreign(outside, coin/3, 0)
	rival.TxIn[0].PreviousOutPoint = first.TxIn[0].PreviousOutPoint
	_, height, _ := b.chain.Tip()
	at := b.chain.mine(rival)
	b.pool.drop(id, wallet.Fate{By: rival.TxHash(), Block: &wallet.Place{Hash: at.hash, Height: at.height}, Why: "conflicted"})
	b.settled()
	b.until("it is conflicted", func() bool { return b.payment(id).State == wallet.StateConflicted })
	b.chain.branch(height, nil, nil)
	b.settled()
	b.until("it waits again", func() bool { return b.payment(id).State == wallet.StateUnconfirmed })
}

// TestWatchedThenOwned: coins of an address that was only watched can be spent once its key is imported, also after a restart.
func TestWatchedThenOwned(t *testing.T) {
	const (
		wif  = "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA" // of the key 1
		text = "addr(mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r)"
	)
	b := running(t)
	if _, err := b.w.Import(wallet.Import{Descriptor: text, From: -1, Label: "old"}); err != nil {
		t.Fatal(err)
	}
	list, _ := b.w.Descriptors()
	if !list[len(list)-1].WatchOnly {
		t.Fatalf("%+v", list[len(list)-1])
	}
	script := append(append([]byte{txscript.OP_DUP, txscript.OP_HASH160, txscript.OP_DATA_20}, hash160OfOne...), txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
	b.chain.mine(foreign(script, coin, 1))
	b.settled()
	if _, watched, _ := b.w.Balance(); watched.Confirmed != coin || b.balance().Total() != 0 {
		t.Fatalf("watched %+v, own %+v", watched, b.balance())
	}
	if _, err := b.w.Import(wallet.Import{WIF: wif, From: -1, Passphrase: []byte(passphrase)}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"imported", "restarted"} {
		if _, watched, _ := b.w.Balance(); watched.Total() != 0 || b.balance().Spendable != coin {
			t.Errorf("%s: watched %+v, own %+v", when, watched, b.balance())
		}
		b.stop()
		b.open()
		b.settled()
	}
	if _, err := b.w.Send(t.Context(), wallet.Send{All: true, Outputs: []wallet.Pay{{Script: outside}}, Passphrase: []byte(passphrase)}); err != nil {
		t.Error(err)
	}
}

// hash160OfOne is the hash of the public key of the key 1.
var hash160OfOne = []byte{
	0x75, 0x1e, 0x76, 0xe8, 0x19, 0x91, 0x96, 0xd4, 0x54, 0x94, 0x1c, 0x45, 0xd1, 0xb3, 0xa3, 0x23, 0xf1, 0x43, 0x3b, 0xd6,
}

// TestImportSeesMempool: what is imported is looked for in the mempool too, not only in blocks to come.
func TestImportSeesMempool(t *testing.T) {
	b := running(t)
	script := append([]byte{txscript.OP_0, txscript.OP_DATA_20}, hash160OfOne...)
	b.pool.add(foreign(script, coin, 1))
	seen := foreign(b.receive("").Script, 2*coin, 2)
	b.pool.add(seen)
	b.until("the mempool was looked at", func() bool { return b.balance().Untrusted == 2*coin })
	if _, err := b.w.Import(wallet.Import{Descriptor: "addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)", From: -1}); err != nil {
		t.Fatal(err)
	}
	b.until("what was there already is seen", func() bool {
		_, watched, _ := b.w.Balance()
		return watched.Untrusted == coin
	})
}

// TestBumpSweep: who sent all there is sends all there is again, less the higher fee, and no unconfirmed coin is added;
// so does who moved all to the own change.
func TestBumpSweep(t *testing.T) {
	b := rich(t, 3)
	s, err := b.w.Send(t.Context(), wallet.Send{All: true, Outputs: []wallet.Pay{{Script: outside, Amount: coin / 10}, {Script: outside}}})
	if err != nil {
		t.Fatal(err)
	}
	young := foreign(b.receive("").Script, 5*coin, 50) // comes between
	b.pool.add(young)
	b.until("it is seen", func() bool { return b.balance().Untrusted == 5*coin })
	last := s
	for range 2 {
		r, err := b.w.Bump(t.Context(), wallet.Bump{TxID: last.Tx.TxHash()})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Tx.TxIn) != 3 || len(r.Tx.TxOut) != 2 || r.Change >= 0 || r.Fee <= last.Fee ||
			r.Tx.TxOut[0].Value != coin/10 || r.Tx.TxOut[1].Value != 3*coin-coin/10-r.Fee {
			t.Fatalf("fee %d after %d: %+v", r.Fee, last.Fee, r.Tx.TxOut)
		}
		last = r
	}

	b = rich(t, 2)
	to, err := b.w.NewAddress("", "", true)
	if err != nil {
		t.Fatal(err)
	}
	s, err = b.w.Send(t.Context(), wallet.Send{All: true, Outputs: []wallet.Pay{{Script: to.Script}}})
	if err != nil {
		t.Fatal(err)
	}
	b.chain.mine(foreign(b.receive("").Script, 7*coin, 51))
	b.settled()
	r, err := b.w.Bump(t.Context(), wallet.Bump{TxID: s.Tx.TxHash()})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Tx.TxIn) != 2 || len(r.Tx.TxOut) != 1 || r.Tx.TxOut[0].Value != 2*coin-r.Fee || r.Fee <= s.Fee {
		t.Errorf("fee %d after %d: %d inputs, %+v", r.Fee, s.Fee, len(r.Tx.TxIn), r.Tx.TxOut)
	}
	if got := b.balance(); got.Total() != 9*coin-r.Fee {
		t.Errorf("balance %+v", got)
	}
}

// TestBumpMeanwhile: while the mempool is asked about a replacement Run looks around; never do both count, and after a
// refusal the first waits as before.
func TestBumpMeanwhile(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		b := rich(t, 1)
		s := b.pay()
		id := s.Tx.TxHash()
		before := b.balance().Total()
		n := uint32(60)
		var seen int64
		b.pool.asked = func() {
			b.pool.asked = nil
			for range 2 { // after the second the look around that follows the first is over
				n++
				b.pool.add(foreign(b.receive("").Script, 1000, n))
				seen += 1000
				b.until("another payment is seen", func() bool { return b.balance().Untrusted == seen })
			}
			if got := b.balance().Total() - seen; got >= before || got < before-coin/100 {
				t.Errorf("refused %t: while it is asked %d count, %d did", refuse, got, before)
			}
		}
		if refuse {
			b.pool.refuse = &wallet.RefusalError{Why: "no room"}
		}
		r, err := b.w.Bump(t.Context(), wallet.Bump{TxID: id})
		after := before
		if (err != nil) != refuse {
			t.Fatalf("refused %t: %v", refuse, err)
		} else if !refuse {
			after += s.Fee - r.Fee
		}
		if got := b.balance().Total() - seen; got != after || b.pool.offered != 2 {
			t.Errorf("refused %t: %d count afterwards, want %d; %d offered", refuse, got, after, b.pool.offered)
		}
		b.stop()
	}
}

// TestForgetsOthers: payments by others that left the mempool are not kept for ever: they cost their senders nothing.
func TestForgetsOthers(t *testing.T) {
	b := running(t)
	a := b.receive("")
	kept := foreign(a.Script, coin, 0)
	b.pool.add(kept)
	b.until("it is seen", func() bool { return b.w.Info().Payments == 1 })
	b.pool.drop(kept.TxHash(), wallet.Fate{Why: "evicted"})
	b.until("it is out", func() bool { return !b.payment(kept.TxHash()).InMempool })
	if got := wallet.Forget(b.w, 1); got != 0 {
		t.Errorf("%d forgotten of one", got)
	}
	if got := wallet.Forget(b.w, 0); got != 1 || b.w.Info().Payments != 0 {
		t.Errorf("%d forgotten", got)
	}
	b.chain.mine(kept)
	b.settled()
	if got := b.balance(); got.Confirmed != coin {
		t.Errorf("mined all the same: %+v", got)
	}
}

// TestBigChange: what is more than one batch of the journal takes is written all the same, how far the chain was followed
// last, and read again; a crash in between loses the end only.
func TestBigChange(t *testing.T) {
	values := make(map[string][]byte)
	for i := range 80 {
		values[fmt.Sprintf("r/%d", i)] = bytes.Repeat([]byte{byte(i)}, 1<<20)
		values[fmt.Sprintf("t/%d", i)] = []byte("{}")
	}
	values["pos"] = []byte("there")
	path := filepath.Join(t.TempDir(), "j")
	if err := wallet.WriteJournal(path, values); err != nil {
		t.Fatal(err)
	}
	got, err := wallet.ReadJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(got, values, bytes.Equal) {
		t.Fatalf("%d of %d entries came back", len(got), len(values))
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	got, err = wallet.ReadJournal(path)
	if err != nil || got["pos"] != nil || got["r/0"] == nil {
		t.Errorf("cut: %d entries, position %q, %v", len(got), got["pos"], err)
	}
	for key, value := range got {
		if !bytes.Equal(value, values[key]) {
			t.Errorf("cut: %s is not what was written", key)
		}
	}
}

// TestSignTxHalf: what is signed half, or by others wrongly, is not called complete.
func TestSignTxHalf(t *testing.T) {
	b := rich(t, 1)
	s, err := b.w.Plan(wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}})
	if err != nil {
		t.Fatal(err)
	}
	signed, complete, missing, err := b.w.SignTx(s.Tx, nil)
	if err != nil || !complete {
		t.Fatalf("%t, %q, %v", complete, missing, err)
	}
	signed.TxIn[0].Witness[0][10] ^= 1
	if _, complete, missing, err = b.w.SignTx(signed, nil); err != nil || complete || missing[0] == "" {
		t.Errorf("a bad signature: complete %t, %q, %v", complete, missing, err)
	}
}

// TestBumpRefused: a replacement that the mempool does not take leaves everything as it was.
func TestBumpRefused(t *testing.T) {
	b := rich(t, 2)
	s := b.pay()
	id := s.Tx.TxHash()
	b.until("the payment waits in the mempool", func() bool { return b.payment(id).InMempool }) // the change can be spent then
	b.until("Run waits for what comes", b.pool.seen)                                            // and does not look again by itself
	before := b.balance()
	b.pool.refuse = &wallet.RefusalError{Why: "no room"}
	if _, err := b.w.Bump(t.Context(), wallet.Bump{TxID: id}); !errors.As(err, new(*wallet.RefusalError)) {
		t.Fatalf("%v", err)
	}
	b.pool.refuse = nil
	if p := b.payment(id); p.State != wallet.StateUnconfirmed || !p.CanBump {
		t.Errorf("%s: %s", p.State, p.Explain)
	}
	b.until("the balance is as before", func() bool { return b.balance() == before })
	if r, err := b.w.Bump(t.Context(), wallet.Bump{TxID: id}); err != nil || b.balance().Total() != before.Total()+s.Fee-r.Fee {
		t.Errorf("%+v, %v", b.balance(), err)
	}
}
