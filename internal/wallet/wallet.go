// Package wallet is the node's wallet: which coins are its own, what became of every
// payment, and how new ones are made.
//
// It keeps two things in a home, apart from each other: the vault, which alone has
// secrets and is encrypted (package keys), and a journal of everything public
// (descriptors without keys, addresses, labels, transactions). The journal can be made
// anew from the words in the vault and the chain; labels cannot.
//
// [Wallet.Run] follows the validated tip, a block at a time, and the mempool; the chain
// never waits for it. What it has seen is stored with the place where it was, so that
// after a crash at any point it goes on from there, over a reorganisation that happened
// meanwhile too.
//
// Invariants: no secret is in the journal, in a log, an error or an answer; a payment
// is stored before others hear of it; nothing that is stored is ever overwritten by a
// backup, a restore or a new wallet.
package wallet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/address"
	"dunlin/internal/wallet/keys"
)

// Names in Options.Dir.
const (
	vaultName   = "vault"
	journalName = "wallet.log"
)

const (
	// DefaultGap is how many unpaid addresses in a row end a search (BIP44).
	DefaultGap = 20
	// MaxGap bounds what is derived and watched.
	MaxGap = 10_000
	// Deep is how many confirmations make a payment confirmed.
	Deep = 6
)

// Chain is what the wallet wants of the chain. All methods are safe for concurrent use
// and answer at once, but for Block, which reads the disk.
type Chain interface {
	// Tip is the validated tip; changed is closed at its next change.
	Tip() (hash chainhash.Hash, height int32, changed <-chan struct{})
	// Where tells of a header: its height, the time in it (Unix seconds) and whether it
	// is on the active chain.
	Where(hash chainhash.Hash) (height int32, at int64, active, ok bool)
	// HashAt is the block of the active chain at a height.
	HashAt(height int32) (chainhash.Hash, bool)
	// Ancestor is the ancestor of a block (itself included) at a height.
	Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool)
	// Fork is the height of the last common block of two branches.
	Fork(a, b chainhash.Hash) (height int32, ok bool)
	// Locator lists a branch from its end, sparser with age, genesis last.
	Locator(hash chainhash.Hash) []chainhash.Hash
	// Block reads a block. [ErrNoBlock]: its bytes are not on disk.
	Block(hash chainhash.Hash) (*consensus.Block, error)
	// MedianTime is the tip's median time past, Unix seconds.
	MedianTime() int64
	// Lowest is the height from which on all blocks are on disk.
	Lowest() int32
}

// ErrNoBlock is what a Chain returns for a block that was pruned or is damaged.
var ErrNoBlock = errors.New("the block is not on disk")

// Pool is what the wallet wants of the mempool.
type Pool interface {
	// Newer lists what came in after number after, the oldest first, at most most, and
	// the number to go on from.
	Newer(after uint64, most int) (txs []*wire.MsgTx, last uint64)
	// Changed returns a channel that is closed when a transaction is added or the tip moves.
	Changed() <-chan struct{}
	Have(txid chainhash.Hash) bool
	// Fate says why a transaction left; ok false: nothing is known.
	Fate(txid chainhash.Hash) (f Fate, ok bool)
	// Family counts the unconfirmed transactions that one builds on, itself included,
	// and their weight, and those that build on it.
	Family(txid chainhash.Hash) (ancestors, descendants int, weight int64)
	// Submit hands a transaction of ours in and has it told to others. *RefusalError: it is
	// not taken.
	Submit(ctx context.Context, tx *wire.MsgTx) error
	// Rate is the fee rate to be mined within so many blocks, MinRate the least that
	// gets in, both in satoshi per 1000 virtual bytes.
	Rate(target int) int64
	MinRate() int64
}

// A Fate is why a transaction left the mempool.
type Fate struct {
	By    chainhash.Hash // who spends the same output; zero: that was not the reason
	Block *Place         // that has By; nil: none, By took its place in the mempool
	Via   chainhash.Hash // the ancestor of ours that spends it, if not the transaction itself
	Why   string         // for people
}

// A RefusalError is why the mempool does not take a transaction.
type RefusalError struct {
	Why string         // for people
	By  chainhash.Hash // an unconfirmed transaction that spends the same output; zero: none
}

// Error implements error.
func (r *RefusalError) Error() string { return "refused by the mempool: " + r.Why }

// Options configure New. Zero means the default given.
type Options struct {
	Dir    string            // of the wallet's files; no default; made when a wallet is
	Params *consensus.Params // no default
	Chain  Chain             // no default
	Pool   Pool              // no default
	Vault  keys.VaultOptions
	// Unsynced says that the chain is known to be behind, so that old blocks need not be
	// looked at; default: never.
	Unsynced func() bool
	Now      func() time.Time // default time.Now
	Logger   *slog.Logger     // default: discards
}

// Wallet is the wallet of a home, which may have none yet. All methods are safe for
// concurrent use.
type Wallet struct {
	o    Options
	log  *slog.Logger
	addr *chaincfg.Params
	kick chan struct{} // has a token when Run should look around; capacity 1

	// mu guards what follows. It is held while the journal is written, so for a flush of
	// the disk at most, and never while the chain or the mempool is asked for anything
	// that can wait.
	mu      sync.Mutex
	vault   *keys.Vault // nil: none
	journal *journal    // nil: there is no wallet
	book    *book
	broken  error          // why the wallet cannot be used
	scan    scanning       // what Run does
	changed chan struct{}  // closed and replaced when something did
	handing chainhash.Hash // the payment that is being handed to the mempool by who made it; zero: none

	// sending is held while a payment is made, so that two do not choose the same coins.
	sending sync.Mutex
}

// New opens the wallet of a home, if it has one. It starts nothing. A wallet that cannot
// be opened is no error: [Wallet.Info] and every operation say what is wrong with it, and
// the node runs without.
func New(o Options) (*Wallet, error) {
	if o.Dir == "" || o.Params == nil || o.Chain == nil || o.Pool == nil {
		return nil, errors.New("wallet: folder, parameters, chain and mempool are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Unsynced == nil {
		o.Unsynced = func() bool { return false }
	}
	w := &Wallet{
		o: o, log: o.Logger, addr: address.Params(o.Params),
		kick: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if err := w.open(); err != nil {
		w.broken = fmt.Errorf("%w: %w", ErrBroken, err)
		w.log.Error("wallet cannot be opened; the node runs without", "err", err)
	}
	return w, nil
}

func (w *Wallet) path(name string) string { return filepath.Join(w.o.Dir, name) }

// open opens what is there. Callers hold mu, or nobody else knows w.
func (w *Wallet) open() error {
	vault, err := keys.Open(w.path(vaultName), w.o.Vault)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wallet: %s: %w", w.path(vaultName), err)
	}
	_, err = os.Stat(w.path(journalName))
	if vault == nil && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if vault == nil {
		return fmt.Errorf("wallet: %s is missing, and %s is there: put the vault back, or move the journal away to make another wallet", w.path(vaultName), journalName)
	}
	return w.openJournal(vault)
}

// openJournal opens the journal of a vault.
func (w *Wallet) openJournal(vault *keys.Vault) error {
	j, lost, err := openJournal(w.path(journalName))
	if err != nil {
		return err
	}
	b := w.newBook()
	if err := b.load(j, w.bind); err != nil {
		return errors.Join(err, j.close())
	}
	if b.meta.ChainID != "" && b.meta.ChainID != w.o.Params.ChainID() {
		return errors.Join(fmt.Errorf("wallet: is of chain %s, not of %s", b.meta.ChainID, w.o.Params.ChainID()), j.close())
	}
	if lost != nil && lost.saved != "" {
		w.log.Error("wallet journal was damaged: what is behind the damage is lost, and what the chain has of it is found again",
			"at", lost.at, "bytes", lost.lost, "kept_as", lost.saved)
		b.meta.Lost = fmt.Sprintf("the journal was damaged: %d bytes are kept in %s; labels and payments that were not mined may be missing", lost.lost, filepath.Base(lost.saved))
		b.touchMeta()
	}
	w.vault, w.journal, w.book, w.broken = vault, j, b, nil
	return w.store(true)
}

func (w *Wallet) newBook() *book {
	return newBook(func(script []byte) (string, bool) { return address.Of(script, w.addr) }, w.o.Now)
}

// Close makes everything durable. Run has ended; nothing may be called after it.
func (w *Wallet) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.vault != nil {
		w.vault.Lock()
	}
	if w.journal == nil {
		return nil
	}
	err := errors.Join(w.store(true), w.journal.close())
	w.journal, w.broken = nil, fmt.Errorf("%w: the node is stopping", ErrBroken)
	return err
}

// store writes what changed in the book. Callers hold mu.
func (w *Wallet) store(durable bool) error {
	batch, err := w.book.changes()
	if err == nil {
		err = w.journal.appendAll(batch, durable)
	}
	if err != nil {
		// The book is ahead of the disk: from here on neither can be trusted.
		w.broken = fmt.Errorf("%w: its journal could not be written: %w; start the node again", ErrBroken, err)
		w.log.Error("wallet stopped", "err", err)
		return w.broken
	}
	if len(batch) > 0 {
		w.signal()
	}
	return nil
}

// signal tells who waits for a change. Callers hold mu.
func (w *Wallet) signal() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// poke has Run look around.
func (w *Wallet) poke() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed when anything changes.
func (w *Wallet) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Exists says whether the home has a wallet that can be used.
func (w *Wallet) Exists() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.journal != nil && w.broken == nil
}

// Searching says whether old blocks are being looked through for payments.
func (w *Wallet) Searching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.journal != nil && w.broken == nil && w.book.rescan != nil
}

// use locks the wallet for an operation; release it with w.mu.Unlock. ErrNone if there is none.
func (w *Wallet) use() error {
	w.mu.Lock()
	if w.broken != nil {
		err := w.broken
		w.mu.Unlock()
		return err
	}
	if w.journal == nil {
		w.mu.Unlock()
		return ErrNone
	}
	return nil
}

// Errors that callers tell apart.
var (
	ErrNone     = errors.New("there is no wallet: dunlin wallet create makes one, dunlin wallet restore brings one back")
	ErrExists   = errors.New("there is a wallet already; it is never overwritten")
	ErrLocked   = errors.New("the wallet is locked: unlock it first (dunlin wallet unlock)")
	ErrSealed   = errors.New("the wallet is locked: unlock it for staking (dunlin wallet unlock --staking)")
	ErrPassword = errors.New("the passphrase is wrong")
	ErrBroken   = errors.New("the wallet cannot be used")
	ErrUnknown  = errors.New("not known to this wallet")
)

// A RequestError says what is wrong with what was asked.
type RequestError struct{ Reason string }

// Error implements error.
func (e *RequestError) Error() string { return e.Reason }

func refuse(format string, args ...any) error { return &RequestError{fmt.Sprintf(format, args...)} }

// raw returns the bytes of a transaction. Callers hold mu.
func (w *Wallet) raw(id chainhash.Hash) (*wire.MsgTx, []byte, error) {
	key := prefRaw + id.String()
	var raw []byte
	if v, ok := w.book.dirty[key].([]byte); ok {
		raw = v
	} else {
		var err error
		if raw, err = w.journal.get(key); err != nil {
			return nil, nil, err
		}
	}
	if raw == nil {
		return nil, nil, fmt.Errorf("transaction %s: %w", id, ErrUnknown)
	}
	m, err := consensus.DecodeTx(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("wallet journal: transaction %s: %w", id, err)
	}
	return m, raw, nil
}
