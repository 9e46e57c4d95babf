package wallet_test

import (
	"errors"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet"
)

// TestStakes: the taproot coins in blocks are stakes, those that an unconfirmed payment spends
// too until it is mined; others and those of watched keys are none.
func TestStakes(t *testing.T) {
	b := rich(t, 8) // two of each kind
	stakes, err := b.w.Stakes()
	if err != nil || len(stakes) != 2 {
		t.Fatalf("%v, %v", stakes, err)
	}
	for _, s := range stakes {
		if s.Amount != coin || s.Height <= 0 || s.Key == [32]byte{} {
			t.Errorf("%+v", s)
		}
	}
	if _, err := b.w.LockCoins(true, []wire.OutPoint{stakes[0].OutPoint}); err != nil {
		t.Fatal(err)
	}
	s, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 2}}, Coins: []wire.OutPoint{stakes[1].OutPoint}})
	if err != nil {
		t.Fatal(err)
	}
	if now, err := b.w.Stakes(); err != nil || len(now) != 2 {
		t.Errorf("with one set aside and one about to be spent: %v, %v", now, err)
	}
	b.chain.mine(s.Tx)
	b.settled()
	if now, err := b.w.Stakes(); err != nil || len(now) != 1 || now[0] != stakes[0] {
		t.Errorf("with one spent: %v, %v", now, err)
	}
}

// TestUnlockStaking: a wallet that is unlocked for staking seals, and spends nothing; a passphrase that
// is given for one payment does not end that.
func TestUnlockStaking(t *testing.T) {
	b := rich(t, 4)
	stakes, err := b.w.Stakes()
	if err != nil || len(stakes) != 1 {
		t.Fatalf("%v, %v", stakes, err)
	}
	key, err := schnorr.ParsePubKey(stakes[0].Key[:])
	if err != nil {
		t.Fatal(err)
	}
	seal := func() error {
		h := &consensus.Header{}
		h.Timestamp = time.Unix(1e9, 0)
		raw, err := b.w.SignSeal(stakes[0].Key, h)
		if err != nil {
			return err
		}
		hash := consensus.HeaderHash(h)
		sig, err := schnorr.ParseSignature(raw[:])
		if err != nil || !sig.Verify(hash[:], key) {
			t.Errorf("signature %x is not of the output's key: %v", raw, err)
		}
		return nil
	}
	pay := func(phrase string) error {
		_, err := b.w.Send(t.Context(), wallet.Send{Outputs: []wallet.Pay{{Script: outside, Amount: coin / 4}}, Passphrase: []byte(phrase)})
		return err
	}
	state := func(spend, stake bool, what string) {
		t.Helper()
		if i := b.w.Info(); i.Unlocked != spend || i.Staking != stake {
			t.Errorf("%s: %+v", what, i)
		}
	}
	if err := seal(); err != nil {
		t.Errorf("unlocked for everything: %v", err)
	}
	if err := b.w.Lock(); err != nil {
		t.Fatal(err)
	}
	state(false, false, "locked")
	if err := seal(); !errors.Is(err, wallet.ErrSealed) {
		t.Errorf("locked: %v", err)
	}
	if err := b.w.StakingReady(); !errors.Is(err, wallet.ErrSealed) {
		t.Errorf("locked: %v", err)
	}
	if err := b.w.UnlockStaking([]byte("wrong one"), 0); !errors.Is(err, wallet.ErrPassword) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if err := b.w.UnlockStaking([]byte(passphrase), 0); err != nil {
		t.Fatal(err)
	}
	state(false, true, "for staking")
	if err := errors.Join(seal(), b.w.StakingReady()); err != nil {
		t.Errorf("unlocked for staking: %v", err)
	}
	if err := pay(""); !errors.Is(err, wallet.ErrLocked) {
		t.Errorf("paid while unlocked for staking: %v", err)
	}
	if _, err := b.w.SignPSBT("cHNidP8BAAoCAAAAAAAAAAAAAA==", nil); err == nil {
		t.Error("signed while unlocked for staking")
	}
	if err := pay(passphrase); err != nil {
		t.Fatal(err)
	}
	state(false, true, "after a payment with its passphrase")
	if err := seal(); err != nil {
		t.Errorf("after a payment: %v", err)
	}
	if _, err := b.w.SignSeal([32]byte{1}, &consensus.Header{}); !errors.Is(err, wallet.ErrUnknown) {
		t.Errorf("a key that is not ours: %v", err)
	}
}

// TestNoStakes: without a wallet there is nothing to stake.
func TestNoStakes(t *testing.T) {
	b := newBench(t)
	b.open()
	if _, err := b.w.Stakes(); !errors.Is(err, wallet.ErrNone) {
		t.Error(err)
	}
	if err := b.w.StakingReady(); !errors.Is(err, wallet.ErrNone) {
		t.Error(err)
	}
}
