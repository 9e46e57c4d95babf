package wallet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/wallet/descriptor"
	"dunlin/internal/wallet/keys"
)

const (
	// maxLabel bounds a label, in bytes.
	maxLabel = 200
	// MinPassphrase is the least number of bytes of a passphrase that is set.
	MinPassphrase = 8
	// maxDescriptors bounds what is imported.
	maxDescriptors = 1000
)

// Kinds of addresses that a wallet of words gives out.
var purposes = []struct {
	kind    string
	purpose keys.Purpose
}{
	{"p2wpkh", keys.BIP84}, {"p2tr", keys.BIP86}, {"p2pkh", keys.BIP44}, {"p2sh-p2wpkh", keys.BIP49},
}

// DefaultKind is the kind of an address when none is asked for.
const DefaultKind = "p2wpkh"

// A NewWallet says what to make. The words and passphrases stay the caller's, who wipes them.
type NewWallet struct {
	Words          *keys.Words
	WordPassphrase string // BIP39's; kept nowhere
	Passphrase     []byte // of the vault
	Gap            int    // default 20
	// Restore looks through the chain from height From on; else the wallet is new and nothing can have paid it.
	Restore bool
	From    int32
}

// CheckPassphrase says what is wrong with a passphrase that is to be set.
func CheckPassphrase(p []byte) error {
	if len(p) < MinPassphrase {
		return refuse("the passphrase has %d bytes: at least %d, better several words", len(p), MinPassphrase)
	}
	if len(p) > 1000 {
		return refuse("the passphrase has %d bytes: at most 1000", len(p))
	}
	if slices.Min(p) == slices.Max(p) {
		return refuse("the passphrase is one character again and again")
	}
	return nil
}

// Create makes the wallet of a home that has none. ErrExists if it has.
func (w *Wallet) Create(n NewWallet) error {
	if !w.o.Vault.Unencrypted || len(n.Passphrase) > 0 {
		if err := CheckPassphrase(n.Passphrase); err != nil {
			return err
		}
	}
	if n.Gap == 0 {
		n.Gap = DefaultGap
	}
	if n.Gap < 1 || n.Gap > MaxGap {
		return refuse("gap %d: from 1 to %d", n.Gap, MaxGap)
	}
	if err := w.checkFrom(n.Restore, n.From); err != nil {
		return err
	}
	ring := keys.NewRing()
	defer ring.Wipe()
	fp, err := ring.AddWords(n.Words, n.WordPassphrase, w.o.Params)
	if err != nil {
		return err
	}
	chains, err := w.accounts(ring, fp)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.journal != nil || w.broken != nil {
		return ErrExists
	}
	if err := os.MkdirAll(w.o.Dir, 0o700); err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	vault, err := keys.Create(w.path(vaultName), ring, n.Passphrase, w.o.Vault)
	if errors.Is(err, os.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	return w.begin(vault, n, chains)
}

// checkFrom says whether the chain can be looked through from a height.
func (w *Wallet) checkFrom(search bool, from int32) error {
	if !search {
		return nil
	}
	_, tip, _ := w.o.Chain.Tip()
	if from < 0 || from > tip {
		return refuse("height %d: the chain has blocks 0 to %d", from, tip)
	}
	if lowest := w.o.Chain.Lowest(); from < lowest {
		return refuse("this node is pruned: its blocks begin at height %d; --from-height %d looks through those, older payments need a node that has all", lowest, lowest)
	}
	return nil
}

// begin makes the journal of a new vault. Callers hold mu.
func (w *Wallet) begin(vault *keys.Vault, n NewWallet, chains []*chainOf) error {
	if err := w.openJournal(vault); err != nil {
		return err
	}
	b := w.book
	hash, height, _ := w.o.Chain.Tip()
	b.meta = meta{Version: 1, ChainID: w.o.Params.ChainID(), Gap: n.Gap, From: height + 1}
	b.pos = position{Hash: hash, Height: height}
	if n.Restore {
		b.rescan = &rescan{From: n.From, Next: n.From, Pass: 1, Started: w.o.Now().Unix(), Until: -1}
		b.dirty[keyRescan] = b.rescan
	} else {
		b.meta.Birthday = w.o.Now().Unix()
	}
	b.touchMeta()
	for _, c := range chains {
		if err := w.addChain(c); err != nil {
			return err
		}
	}
	w.log.Info("wallet made", "dir", w.o.Dir, "restored", n.Restore, "height", height)
	if err := w.keepPlace(true); err != nil {
		return err
	}
	w.poke()
	return nil
}

// addChain takes a new descriptor over. Callers hold mu.
func (w *Wallet) addChain(c *chainOf) error {
	c.info.Order = len(w.book.order) + 1
	c.info.Used = -1
	if err := w.book.add(c, nil); err != nil {
		return err
	}
	w.book.touchDesc(c)
	return nil
}

// accounts are the first accounts of a master, of every kind.
func (w *Wallet) accounts(ring *keys.Ring, fp keys.Fingerprint) ([]*chainOf, error) {
	master, err := ring.Root(fp)
	if err != nil {
		return nil, err
	}
	defer master.Wipe()
	var out []*chainOf
	for _, p := range purposes {
		external, internal, err := descriptor.Account(master, p.purpose, 0, w.o.Params)
		if err != nil {
			return nil, fmt.Errorf("account of kind %s: %w", p.kind, err)
		}
		for i, d := range []*descriptor.Descriptor{external, internal} {
			out = append(out, newChain(d, descInfo{Kind: p.kind, Range: true, Active: true, Change: i == 1}))
		}
	}
	return out, nil
}

// newChain makes a chainOf of a public descriptor.
func newChain(d *descriptor.Descriptor, info descInfo) *chainOf {
	info.Text = d.String()
	sum := sha256.Sum256([]byte(info.Text))
	c := &chainOf{id: hex.EncodeToString(sum[:4]), info: info, d: d}
	c.derive = deriver(d)
	return c
}

func deriver(d *descriptor.Descriptor) func(uint32) ([]byte, error) {
	return func(i uint32) ([]byte, error) {
		o, err := d.Derive(i)
		if err != nil {
			return nil, err
		}
		return o.PkScript, nil
	}
}

// bind gives a stored descriptor its scripts.
func (w *Wallet) bind(c *chainOf) error {
	d, err := descriptor.Parse(c.info.Text, w.o.Params)
	if err != nil {
		return fmt.Errorf("wallet journal: descriptor %s: %w", c.id, err)
	}
	c.d, c.derive = d, deriver(d)
	return nil
}

// vaultFault gives the vault's errors our names.
func vaultFault(err error) error {
	switch {
	case errors.Is(err, keys.ErrPassphrase):
		return ErrPassword
	case errors.Is(err, keys.ErrLocked), errors.Is(err, keys.ErrStakingOnly):
		return ErrLocked
	}
	return err
}

// theVault returns the vault; ErrNone if there is no wallet.
func (w *Wallet) theVault() (*keys.Vault, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	return w.vault, nil
}

// Unlock lets the wallet sign for a time; 0 until Lock.
func (w *Wallet) Unlock(passphrase []byte, how time.Duration) error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	if !v.State().Encrypted {
		return refuse("the wallet is not encrypted: there is nothing to unlock")
	}
	if err := vaultFault(v.Unlock(passphrase, how)); err != nil {
		w.log.Warn("wallet not unlocked", "err", err)
		return err
	}
	w.log.Info("wallet unlocked", "for_s", int64(how.Seconds()))
	return w.mend(v)
}

// mend makes the addresses of a vault whose journal was lost anew, and looks through the chain.
func (w *Wallet) mend(v *keys.Vault) error {
	if err := w.use(); err != nil {
		return err
	}
	missing := len(w.book.order) == 0
	w.mu.Unlock()
	if !missing {
		return nil
	}
	roots, err := v.Spender().Roots()
	if err != nil {
		return vaultFault(err)
	}
	var chains []*chainOf
	for _, r := range roots {
		if len(r.Origin.Path) > 0 {
			continue
		}
		for _, p := range purposes {
			origin := keys.Origin{Fingerprint: r.Origin.Fingerprint, Path: keys.AccountPath(p.purpose, w.o.Params, 0)}
			xpub, err := v.Spender().Account(origin.Fingerprint, origin.Path)
			if err != nil {
				return vaultFault(err)
			}
			external, internal, err := descriptor.AccountOf(xpub, origin, p.purpose, w.o.Params)
			if err != nil {
				return err
			}
			for i, d := range []*descriptor.Descriptor{external, internal} {
				chains = append(chains, newChain(d, descInfo{Kind: p.kind, Range: true, Active: true, Change: i == 1}))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.book.order) > 0 || w.broken != nil {
		return w.broken
	}
	w.log.Warn("wallet has no journal: its addresses are made anew, and the chain is looked through")
	hash, height, _ := w.o.Chain.Tip()
	b := w.book
	b.meta = meta{Version: 1, ChainID: w.o.Params.ChainID(), Gap: DefaultGap, From: height + 1, Lost: b.meta.Lost}
	b.pos = position{Hash: hash, Height: height}
	b.touchMeta()
	for _, c := range chains {
		if err := w.addChain(c); err != nil {
			return err
		}
	}
	w.startSearch(w.o.Chain.Lowest())
	if err := w.keepPlace(true); err != nil {
		return err
	}
	w.poke()
	return nil
}

// Lock forgets the keys.
func (w *Wallet) Lock() error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	v.Lock()
	w.log.Info("wallet locked")
	return nil
}

// ChangePassphrase seals the vault by another passphrase; it is locked afterwards.
func (w *Wallet) ChangePassphrase(current, next []byte) error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	if err := CheckPassphrase(next); err != nil {
		return err
	}
	if err := vaultFault(v.ChangePassphrase(current, next)); err != nil {
		return err
	}
	w.log.Info("wallet has another passphrase")
	return nil
}

// withKeys runs do while the vault is unlocked: with a passphrase it is unlocked for that
// only, if it is locked.
func (w *Wallet) withKeys(passphrase []byte, do func(*keys.Spender) error) error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	if was := v.State(); !was.Spend {
		if len(passphrase) == 0 {
			return ErrLocked
		}
		if err := vaultFault(v.Unlock(passphrase, time.Minute)); err != nil {
			return err
		}
		defer w.lockAgain(v, was, passphrase)
	}
	return vaultFault(do(v.Spender()))
}

// lockAgain ends a time of spending that was for one thing only: a vault that was
// unlocked for staking is again, for what is left of its time.
func (w *Wallet) lockAgain(v *keys.Vault, was keys.VaultState, passphrase []byte) {
	if was.Stake {
		var left time.Duration
		if !was.Until.IsZero() {
			left = was.Until.Sub(w.o.Now())
		}
		if left > 0 || was.Until.IsZero() {
			err := v.UnlockStaking(passphrase, left)
			if err == nil {
				return
			}
			w.log.Warn("wallet not unlocked for staking again", "err", err)
		}
	}
	v.Lock()
}

// NewAddress hands out an address of a kind; "" is [DefaultKind]. It is on disk when it is returned.
func (w *Wallet) NewAddress(kind, label string, change bool) (Address, error) {
	if kind == "" {
		kind = DefaultKind
	}
	if len(label) > maxLabel {
		return Address{}, refuse("label of %d bytes: at most %d", len(label), maxLabel)
	}
	if err := w.use(); err != nil {
		return Address{}, err
	}
	defer w.mu.Unlock()
	var known []string
	for _, c := range slices.Backward(w.book.order) { // imported ones last, and so preferred
		if !c.info.Active || c.info.Change != change || !c.info.Range {
			continue
		}
		if c.info.Kind != kind {
			known = append(known, c.info.Kind)
			continue
		}
		a, err := w.book.hand(c, label)
		if err != nil {
			return Address{}, err
		}
		if err := w.store(true); err != nil {
			return Address{}, err
		}
		out := w.address(a)
		if n := c.unusedInARow(); n > w.book.meta.Gap {
			out.Warning = fmt.Sprintf("%d addresses in a row are unpaid: a wallet restored from the words needs --gap %d to find payments to all of them", n, n)
		}
		return out, nil
	}
	slices.Sort(known)
	return Address{}, refuse("no descriptor for addresses of kind %q: there are %v", clip(kind), slices.Compact(known))
}

// MiningAddress is an address for the rewards of blocks made here: the first one that was not paid, handed
// out once. Its label is "mining".
func (w *Wallet) MiningAddress() (Address, error) {
	if err := w.use(); err != nil {
		return Address{}, err
	}
	for _, c := range w.book.order {
		if c.info.WatchOnly || c.info.Change || c.info.Kind != DefaultKind {
			continue
		}
		for _, a := range c.scripts {
			if a.info.Label == miningLabel {
				defer w.mu.Unlock()
				return w.address(a), nil
			}
		}
	}
	w.mu.Unlock()
	return w.NewAddress(DefaultKind, miningLabel, false)
}

const miningLabel = "mining"

// SetLabel names an address or a payment; "" removes the name.
func (w *Wallet) SetLabel(script []byte, txid *chainhash.Hash, label string) error {
	if len(label) > maxLabel {
		return refuse("label of %d bytes: at most %d", len(label), maxLabel)
	}
	if err := w.use(); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if txid != nil {
		t := w.book.txs[*txid]
		if t == nil {
			return fmt.Errorf("transaction %s: %w", txid, ErrUnknown)
		}
		t.info.Label = label
		w.book.touchTx(t)
	} else {
		a := w.book.scripts[string(script)]
		if a == nil {
			return fmt.Errorf("address: %w", ErrUnknown)
		}
		a.info.Label = label
		w.book.touchAddr(a)
	}
	return w.store(true)
}

// LockCoins sets coins aside, or (lock false) frees them; none frees all. It returns those that
// are set aside then, sorted.
func (w *Wallet) LockCoins(lock bool, coins []wire.OutPoint) ([]wire.OutPoint, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	b := w.book
	for _, op := range coins {
		if lock && b.coins[op] == nil {
			return nil, fmt.Errorf("coin %s: %w", opText(op), ErrUnknown)
		}
		if !lock && !b.locked[op] {
			return nil, refuse("coin %s is not locked", opText(op))
		}
	}
	if !lock && len(coins) == 0 {
		for op := range b.locked {
			coins = append(coins, op)
		}
	}
	for _, op := range coins {
		if key := prefLock + opText(op); lock {
			b.locked[op] = true
			b.dirty[key] = []byte("1")
		} else {
			delete(b.locked, op)
			b.dirty[key] = nil
		}
	}
	if err := w.store(true); err != nil {
		return nil, err
	}
	return w.lockedCoins(), nil
}

// LockedCoins are those that were set aside by hand, sorted.
func (w *Wallet) LockedCoins() ([]wire.OutPoint, error) {
	if err := w.use(); err != nil {
		return nil, err
	}
	defer w.mu.Unlock()
	return w.lockedCoins(), nil
}

func (w *Wallet) lockedCoins() []wire.OutPoint {
	out := make([]wire.OutPoint, 0, len(w.book.locked))
	for op := range w.book.locked {
		out = append(out, op)
	}
	slices.SortFunc(out, func(x, y wire.OutPoint) int { return slices.Compare([]byte(opText(x)), []byte(opText(y))) })
	return out
}

// Rescan looks through the chain from a height on, in the background.
func (w *Wallet) Rescan(from int32) error {
	if err := w.checkFrom(true, from); err != nil {
		return err
	}
	if err := w.use(); err != nil {
		return err
	}
	defer w.mu.Unlock()
	w.startSearch(from)
	if err := w.keepPlace(true); err != nil {
		return err
	}
	w.log.Info("wallet looks through the chain", "from", from, "to", w.book.pos.Height)
	w.poke()
	return nil
}

// startSearch begins a search, or widens the one under way. Callers hold mu, and store.
func (w *Wallet) startSearch(from int32) {
	b := w.book
	b.rescan = &rescan{From: from, Next: from, Pass: 1, Started: w.o.Now().Unix(), Until: -1}
	b.dirty[keyRescan] = b.rescan
	w.scan.began, w.scan.logged = time.Time{}, w.o.Now()
	m := &b.meta // what is looked through again is no hole
	m.Holes = slices.DeleteFunc(m.Holes, func(h [2]int32) bool { return h[0] >= from })
	b.touchMeta()
}

// StopRescan gives a search up.
func (w *Wallet) StopRescan() error {
	if err := w.use(); err != nil {
		return err
	}
	defer w.mu.Unlock()
	if w.book.rescan == nil {
		return refuse("no search of the chain is under way")
	}
	w.log.Info("wallet gave a search of the chain up", "at", w.book.rescan.Next)
	w.book.rescan, w.book.news = nil, true
	w.book.dirty[keyRescan] = nil
	w.scan.began = time.Time{}
	return w.keepPlace(true)
}

// Abandon gives an unconfirmed payment up that is not in the mempool: its coins are free again.
func (w *Wallet) Abandon(id chainhash.Hash) (Payment, error) {
	pooled := w.o.Pool.Have(id)
	if err := w.use(); err != nil {
		return Payment{}, err
	}
	defer w.mu.Unlock()
	t := w.book.txs[id]
	switch {
	case t == nil:
		return Payment{}, fmt.Errorf("transaction %s: %w", id, ErrUnknown)
	case t.info.Block != nil:
		return Payment{}, refuse("transaction %s is in a block: it cannot be given up", id)
	case pooled:
		return Payment{}, refuse("transaction %s is in the mempool and can be mined at any time: replace it instead (dunlin wallet bump), or wait", id)
	case t.info.Dead == abandoned:
		return w.payment(t), nil
	}
	w.book.kill(t, abandoned, chainhash.Hash{}, nil, chainhash.Hash{})
	if err := w.store(true); err != nil {
		return Payment{}, err
	}
	return w.payment(t), nil
}
