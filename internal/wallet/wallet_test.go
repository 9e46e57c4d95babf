package wallet_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// rich is a bench whose wallet has n coins of one each, and is unlocked.
func rich(t *testing.T, n int) *bench {
	t.Helper()
	b := running(t)
	var txs []*wire.MsgTx
	for i := range n {
		txs = append(txs, foreign(b.receive([]string{"p2wpkh", "p2tr", "p2pkh", "p2sh-p2wpkh"}[i%4]).Script, coin, uint32(i)))
	}
	b.chain.mine(txs...)
	b.settled()
	if err := b.w.Unlock([]byte(passphrase), time.Hour); err != nil {
		t.Fatal(err)
	}
	return b
}

// outside is a script of somebody else.
var outside = append([]byte{txscript.OP_0, txscript.OP_DATA_20}, make([]byte, 20)...)

// TestSend: coins of every kind are spent; what is paid is stored before it is sent, and forgotten if it is refused.
func TestSend(t *testing.T) {
	b := rich(t, 4)
	plan, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: 35 * coin / 10}}, DryRun: true})
	if err != nil || plan.Sent || plan.Signed || b.balance().Spendable != 4*coin {
		t.Fatalf("dry run: %+v, %v", plan, err)
	}
	b.pool.refuse = &wallet.RefusalError{Why: "no room"}
	if _, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin}}}); !errors.As(err, new(*wallet.RefusalError)) {
		t.Fatalf("refused: %v", err)
	}
	if page, _, _, _ := b.w.History("", 10); len(page) != 4 || b.balance().Spendable != 4*coin {
		t.Errorf("%d payments after one was refused, balance %+v", len(page), b.balance())
	}
	b.pool.refuse = nil
	s, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: 35 * coin / 10}}, Label: "rent"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tx.TxIn) != 4 || !s.Sent || s.Rate < 2000 {
		t.Errorf("%d inputs, %+v", len(s.Tx.TxIn), s)
	}
	p := b.payment(s.Tx.TxHash())
	if p.Kind != wallet.KindSent || p.Label != "rent" || p.Fee != s.Fee || p.Amount != -35*coin/10-s.Fee || !p.CanBump || !p.Own {
		t.Errorf("%+v", p)
	}
	if got := b.balance(); got.Trusted != 5*coin/10-s.Fee || got.Confirmed != 0 || got.Spendable != got.Trusted {
		t.Errorf("balance %+v", got)
	}
	if _, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin}}}); !errors.As(err, new(*spend.ShortError)) {
		t.Errorf("more than there is: %v", err)
	}
}

// TestBump: the replacement pays the same and more fee; both name each other.
func TestBump(t *testing.T) {
	b := rich(t, 3)
	s, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}})
	if err != nil {
		t.Fatal(err)
	}
	old := s.Tx.TxHash()
	r, err := b.w.Bump(t.Context(), wallet.Bump{TxID: old})
	if err != nil {
		t.Fatal(err)
	}
	if r.Fee < s.Fee+r.Weight/4 || r.Rate < s.Rate+1000 || r.Replaces != old || r.Tx.TxIn[0].PreviousOutPoint != s.Tx.TxIn[0].PreviousOutPoint {
		t.Errorf("%d of fee after %d: %+v", r.Fee, s.Fee, r)
	}
	if p := b.payment(old); p.State != wallet.StateConflicted || p.Conflicting != r.Tx.TxHash() {
		t.Errorf("the old one: %+v", p)
	}
	if p := b.payment(r.Tx.TxHash()); p.Replaces != old || p.Amount != -coin/2-r.Fee {
		t.Errorf("the new one: %+v", p)
	}
	if _, err := b.w.Bump(t.Context(), wallet.Bump{TxID: old}); err == nil {
		t.Error("what was replaced was replaced again")
	}
	b.chain.mine(r.Tx)
	b.settled()
	if got := b.balance(); got.Confirmed != 3*coin-coin/2-r.Fee {
		t.Errorf("balance %+v", got)
	}
}

// TestOffered: a payment that is not in the mempool is offered again after a restart, until it is given up.
func TestOffered(t *testing.T) {
	b := rich(t, 1)
	s, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}})
	if err != nil {
		t.Fatal(err)
	}
	id := s.Tx.TxHash()
	if _, err := b.w.Abandon(id); err == nil {
		t.Error("what is in the mempool was given up")
	}
	b.stop()
	b.pool.drop(id, wallet.Fate{Why: "a restart"})
	b.open()
	b.until("it is in the mempool again", func() bool { return b.pool.Have(id) })
	b.stop()
	b.pool.drop(id, wallet.Fate{Why: "a restart"})
	b.pool.refuse = &wallet.RefusalError{Why: "min relay fee not met"}
	b.open()
	b.until("why is told", func() bool { return strings.Contains(b.payment(id).Explain, "min relay fee not met") })
	if p, err := b.w.Abandon(id); err != nil || p.State != wallet.StateAbandoned {
		t.Fatalf("%+v, %v", p, err)
	}
	if got := b.balance(); got.Spendable != coin {
		t.Errorf("balance %+v after it was given up", got)
	}
	b.chain.mine(s.Tx) // somebody kept it
	b.settled()
	if p := b.payment(id); p.State != wallet.StateConfirming {
		t.Errorf("mined all the same: %+v", p)
	}
}

// TestRestoreWords: from the words alone all coins are found, out of order and beyond the gap from the last one paid.
func TestRestoreWords(t *testing.T) {
	b := running(t)
	var paid int64
	var addrs []wallet.Address
	for range 110 {
		addrs = append(addrs, b.receive(""))
	}
	for i, n := range []int{99, 3, 105, 60, 0, 19} { // 105 is beyond what is watched at first
		b.chain.mine(foreign(addrs[n].Script, coin, uint32(i)))
		paid += coin
	}
	b.chain.mine(foreign(b.receive("p2pkh").Script, coin, 100))
	paid += coin
	b.settled()
	if got := b.balance().Confirmed; got != paid {
		t.Fatalf("balance %d, want %d", got, paid)
	}
	b.stop()
	b.dir = t.TempDir()
	b.open()
	b.create(true)
	b.settled()
	if got := b.balance().Confirmed; got != paid {
		t.Errorf("restored: balance %d, want %d", got, paid)
	}
	if next := b.receive(""); next.Index != 106 {
		t.Errorf("the next address is %d", next.Index)
	}
}

// TestPruned: what cannot be looked at is said, from where it can too.
func TestPruned(t *testing.T) {
	b := newBench(t)
	b.chain.fill(20)
	b.chain.lowest = 10
	b.open()
	words, err := keys.ParseWords(someWords)
	if err != nil {
		t.Fatal(err)
	}
	err = b.w.Create(wallet.NewWallet{Words: words, Passphrase: []byte(passphrase), Restore: true})
	if err == nil || !strings.Contains(err.Error(), "begin at height 10") {
		t.Errorf("%v", err)
	}
	if err := b.w.Create(wallet.NewWallet{Words: words, Passphrase: []byte(passphrase), Restore: true, From: 10}); err != nil {
		t.Error(err)
	}
	b.settled()
}

// TestPassphrase: weak ones are refused, wrong ones open nothing; the journal has no secret.
func TestPassphrase(t *testing.T) {
	b := rich(t, 1)
	if err := b.w.Lock(); err != nil {
		t.Fatal(err)
	}
	pay := wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}}
	if _, err := b.w.Send(t.Context(), pay); !errors.Is(err, wallet.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	pay.Passphrase = []byte("wrong horse battery")
	if _, err := b.w.Send(t.Context(), pay); !errors.Is(err, wallet.ErrPassword) {
		t.Errorf("wrong: %v", err)
	}
	pay.Passphrase = []byte(passphrase)
	if _, err := b.w.Send(t.Context(), pay); err != nil {
		t.Errorf("right: %v", err)
	}
	if b.w.Info().Unlocked {
		t.Error("a passphrase for one payment left the wallet unlocked")
	}
	for _, weak := range []string{"", "1234567", "aaaaaaaaaaaa"} {
		if err := b.w.ChangePassphrase([]byte(passphrase), []byte(weak)); !errors.As(err, new(*wallet.RequestError)) {
			t.Errorf("%q: %v", weak, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, "wallet.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{passphrase, "abandon", "tprv", "xprv"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("the journal has %q", secret)
		}
	}
}

// TestBackup: a copy brings everything back, labels too; a wrong passphrase and damage are told apart, and
// nothing is overwritten.
func TestBackup(t *testing.T) {
	b := rich(t, 2)
	a, err := b.w.NewAddress("", "shop", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.w.Backup([]byte("wrong horse battery")); !errors.Is(err, wallet.ErrPassword) {
		t.Errorf("wrong passphrase: %v", err)
	}
	raw, err := b.w.Backup([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("tpub")) || bytes.Contains(raw, []byte("shop")) {
		t.Error("a backup can be read")
	}
	if err := b.w.Restore(raw, []byte(passphrase), -1); !errors.Is(err, wallet.ErrExists) {
		t.Errorf("over a wallet: %v", err)
	}
	b.stop()
	late := foreign(a.Script, coin, 77)
	b.chain.mine(late) // the backup does not know it
	b.dir = filepath.Join(t.TempDir(), "wallet")
	b.open()
	for _, at := range []int{0, 12, 40, len(raw) / 2, len(raw) - 1} {
		bad := bytes.Clone(raw)
		bad[at] ^= 1
		if err := b.w.Restore(bad, []byte(passphrase), -1); !errors.Is(err, wallet.ErrDamaged) && at > 8 || err == nil {
			t.Errorf("byte %d flipped: %v", at, err)
		}
	}
	if err := b.w.Restore(raw[:len(raw)-5], []byte(passphrase), -1); !errors.Is(err, wallet.ErrDamaged) {
		t.Errorf("cut: %v", err)
	}
	if err := b.w.Restore(raw, []byte("wrong horse battery"), -1); !errors.Is(err, wallet.ErrPassword) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if err := b.w.Restore(raw, []byte(passphrase), -1); err != nil {
		t.Fatal(err)
	}
	b.settled()
	if got := b.balance().Confirmed; got != 3*coin {
		t.Errorf("balance %d", got)
	}
	if p := b.payment(late.TxHash()); p.Label != "shop" {
		t.Errorf("label %q", p.Label)
	}
	if err := b.w.Unlock([]byte(passphrase), time.Minute); err != nil {
		t.Error(err)
	}
}

// TestKilled: cut off after any byte, the journal opens, and the wallet finds on the chain what it lost.
func TestKilled(t *testing.T) {
	b := running(t)
	var ids []chainhash.Hash
	for i := range 6 {
		m := foreign(b.receive("").Script, coin, uint32(i))
		ids = append(ids, m.TxHash())
		b.chain.mine(m)
		b.settled()
	}
	b.stop()
	name := filepath.Join(b.dir, "wallet.log")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := os.ReadFile(filepath.Join(b.dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	cuts := 12
	if testing.Short() {
		cuts = 3 // each opens a wallet: seconds under the race detector
	}
	step := max(1, (len(whole)-int(first(whole)))/cuts)
	for at := int(first(whole)); at <= len(whole); at += step {
		b.dir = t.TempDir()
		for name, raw := range map[string][]byte{"wallet.log": whole[:at], "vault": vault} {
			if err := os.WriteFile(filepath.Join(b.dir, name), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b.open()
		b.settled()
		if got := b.balance().Confirmed; got != 6*coin {
			t.Errorf("cut at %d of %d: balance %d: %v", at, len(whole), got, b.w.Info().Warnings)
		}
		for _, id := range ids {
			if p := b.payment(id); p.State != wallet.StateConfirming && p.State != wallet.StateConfirmed {
				t.Errorf("cut at %d: %s", at, p.Explain)
			}
		}
		b.stop()
	}
	// Damage in the midst is told, and the file kept.
	bad := bytes.Clone(whole)
	bad[(len(bad)+int(first(whole)))/2] ^= 1
	b.dir = t.TempDir()
	for name, raw := range map[string][]byte{"wallet.log": bad, "vault": vault} {
		if err := os.WriteFile(filepath.Join(b.dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.open()
	b.settled()
	if w := fmt.Sprint(b.w.Info().Warnings); !strings.Contains(w, "damaged") || b.balance().Confirmed != 6*coin {
		t.Errorf("balance %+v, warnings %s", b.balance(), w)
	}
	if kept, err := os.ReadFile(filepath.Join(b.dir, "wallet.log.damaged-1")); err != nil || !bytes.Equal(kept, bad) {
		t.Errorf("the damaged file is not kept: %v", err)
	}
}

// first is the end of a journal's first batch: the making of the wallet.
func first(raw []byte) int64 {
	return 8 + 8 + int64(uint32(raw[8])|uint32(raw[9])<<8|uint32(raw[10])<<16|uint32(raw[11])<<24)
}

// TestVaultDamaged: a vault that is damaged says so, and the node goes on.
func TestVaultDamaged(t *testing.T) {
	b := running(t)
	b.stop()
	name := filepath.Join(b.dir, "vault")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	if _, _, err := b.w.Balance(); !errors.Is(err, wallet.ErrBroken) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
	if i := b.w.Info(); i.Broken == "" || len(i.Warnings) == 0 {
		t.Errorf("%+v", i)
	}
}

// TestLostJournal: with the vault alone, unlocking brings the addresses back, and the chain the coins.
func TestLostJournal(t *testing.T) {
	b := rich(t, 4)
	b.stop()
	if err := os.Remove(filepath.Join(b.dir, "wallet.log")); err != nil {
		t.Fatal(err)
	}
	b.open()
	if w := fmt.Sprint(b.w.Info().Warnings); !strings.Contains(w, "unlock it") {
		t.Errorf("warnings %s", w)
	}
	if err := b.w.Unlock([]byte(passphrase), time.Minute); err != nil {
		t.Fatal(err)
	}
	b.settled()
	if got := b.balance().Confirmed; got != 4*coin {
		t.Errorf("balance %d", got)
	}
}

// TestHistoryPages: pages join without a gap or a repetition while payments come in.
func TestHistoryPages(t *testing.T) {
	b := running(t)
	a := b.receive("")
	for i := range 7 {
		b.chain.mine(foreign(a.Script, coin, uint32(i)), foreign(a.Script, coin, uint32(100+i)))
	}
	b.pool.add(foreign(a.Script, coin, 500))
	b.settled()
	b.until("all are there", func() bool { _, _, n, _ := b.w.History("", 1); return n == 15 })
	seen := make(map[chainhash.Hash]bool)
	height := int32(1 << 30)
	for cursor := ""; ; {
		page, next, _, err := b.w.History(cursor, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			if seen[p.TxID] || p.Height > height {
				t.Errorf("%s at height %d again, or out of order", p.TxID, p.Height)
			}
			seen[p.TxID] = true
			if p.Height >= 0 {
				height = p.Height
			}
		}
		if cursor = next; next == "" {
			break
		}
		b.chain.mine(foreign(a.Script, coin, uint32(1000+len(seen))))
		b.settled()
	}
	if len(seen) != 15 {
		t.Errorf("%d payments on all pages, want the 15 that were there", len(seen))
	}
	if _, _, _, err := b.w.History("nonsense", 4); err == nil {
		t.Error("a cursor of nonsense was taken")
	}
}

// TestAmounts: exact, both ways.
func TestAmounts(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1": coin, "0.00000001": 1, "20999999.9769": 2_099_999_997_690_000, "21000000": 2_100_000_000_000_000, "1.10": 110_000_000} {
		if got, err := wallet.ParseAmount(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ".", "1.", ".5", "-1", "+1", "1e3", "0.123456789", "21000000.00000001", "1,5", " 1", "0x1", "99999999999999999999"} {
		if got, err := wallet.ParseAmount(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	if s := wallet.FormatAmount(-123_456_789_012); s != "-1234.56789012" {
		t.Error(s)
	}
}
