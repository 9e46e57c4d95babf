package wallet

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// A Stake is a confirmed taproot coin by which the wallet can seal blocks.
type Stake struct {
	OutPoint wire.OutPoint
	Amount   int64    // satoshi
	Key      [32]byte // x-only: of the output
	Height   int32
}

// Stakes lists the coins that may seal blocks, in any order: mined, not spent by a mined
// transaction, and paid to a taproot key of the wallet. Coins that were set aside, or that
// an unconfirmed payment spends, are among them: sealing spends nothing, and until the
// payment is mined they are there.
func (w *Wallet) Stakes() ([]Stake, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	staker := w.vault.Staker()
	var out []Stake
	for _, c := range w.book.live {
		t, script := c.tx, c.to.script
		if t.info.Block == nil || !isTaproot(script) || !w.sealable(c.to, staker) {
			continue
		}
		out = append(out, Stake{OutPoint: c.op, Amount: c.amount, Key: [32]byte(script[2:]), Height: t.info.Block.Height})
	}
	return out, nil
}

func isTaproot(script []byte) bool { return len(script) == 34 && script[0] == 0x51 && script[1] == 32 }

// sealable says whether the key of a taproot address is the vault's. Behind a script tree may
// be a key that nobody has: of those only an open vault can tell. Callers hold mu.
func (w *Wallet) sealable(a *addr, staker *keys.Staker) bool {
	c := a.of
	if c.info.WatchOnly || c.d == nil {
		return false
	}
	if !c.treeKnown {
		o, err := c.d.Derive(a.index)
		c.treeKnown, c.tree = true, err != nil || o.Taproot == nil || len(o.Taproot.Leaves) > 0
	}
	if !c.tree {
		return true
	}
	o, err := c.d.Derive(a.index)
	return err == nil && o.Taproot != nil && len(o.Keys) > 0 && staker.Has(o.Keys[0])
}

// StakingReady says why the wallet cannot seal blocks now; nil: it can.
func (w *Wallet) StakingReady() error {
	if err := w.use(); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if !w.vault.State().Stake {
		return ErrSealed
	}
	return nil
}

// SignSeal signs a header's hash by the key of a taproot output of ours. It needs the
// wallet unlocked, for staking at least: [ErrSealed].
func (w *Wallet) SignSeal(key [32]byte, h *consensus.Header) (sig [64]byte, err error) {
	if err := w.use(); err != nil {
		return sig, err
	}
	defer w.mu.Unlock()
	a := w.book.scripts[string(append([]byte{0x51, 32}, key[:]...))]
	if a == nil || a.of.d == nil {
		return sig, fmt.Errorf("output key %x: %w", key, ErrUnknown)
	}
	o, err := a.of.d.Derive(a.index)
	if err != nil {
		return sig, err
	}
	if o.Taproot == nil || len(o.Keys) == 0 {
		return sig, fmt.Errorf("output key %x: %w", key, ErrUnknown)
	}
	sig, err = w.vault.Staker().SignSeal(o.Keys[0], o.Taproot.Tweak(), h)
	return sig, sealFault(err)
}

// sealFault is vaultFault where staking is enough.
func sealFault(err error) error {
	if err = vaultFault(err); err == ErrLocked { //nolint:errorlint // it was just made of another
		return ErrSealed
	}
	return err
}

// UnlockStaking lets the wallet seal blocks and nothing else, for a time; 0 until Lock. A
// time of spending ends with it.
func (w *Wallet) UnlockStaking(passphrase []byte, how time.Duration) error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	if !v.State().Encrypted {
		return refuse("the wallet is not encrypted: there is nothing to unlock")
	}
	if err := vaultFault(v.UnlockStaking(passphrase, how)); err != nil {
		w.log.Warn("wallet not unlocked for staking", "err", err)
		return err
	}
	w.log.Info("wallet unlocked for staking only", "for_s", int64(how.Seconds()))
	return nil
}
