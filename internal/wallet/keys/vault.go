package keys

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/text/unicode/norm"

	"dunlin/chain/consensus"
)

// VaultOptions are the options of a [Vault]. The zero value is ready for use.
type VaultOptions struct {
	// KDF are the costs of passphrases that are set; the file knows those of its own.
	KDF KDF
	// Unencrypted allows [Create] and [Vault.ChangePassphrase] to write a file without a passphrase. The operator must have asked
	// for it in so many words.
	Unencrypted bool
	// Now is the clock; nil: time.Now. Times with a monotonic part are compared by both clocks.
	Now func() time.Time
}

func (o VaultOptions) withDefaults() VaultOptions {
	o.KDF = o.KDF.withDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// A Vault keeps secrets in a file, sealed by a passphrase, and in memory while it is unlocked. It is
// safe for concurrent use. It starts nothing: whoever opened it runs [Vault.Run], or a vault that nobody
// uses stays in memory after its time.
type Vault struct {
	secret
	v func() *vault
}

type vault struct {
	path string
	o    VaultOptions

	// opening is held while a passphrase is stretched, for a second: one at a time, so that
	// guesses cost memory once. It is taken before mu.
	opening sync.Mutex

	// mu guards everything below; it is held while one signature is made or the file is written.
	mu    sync.RWMutex
	file  []byte // as on disk
	ring  *Ring  // nil while locked
	key   []byte // data key; nil unless unlocked for spending
	spend bool
	// The unlocked state ends d after since, never if d is 0.
	since time.Time
	d     time.Duration
	// changed is closed and replaced when the time limit changes.
	changed chan struct{}
}

// Create writes a new vault with the secrets of r, which stays the caller's. It fails with [fs.ErrExist] rather
// than replace a file. An empty passphrase needs o.Unencrypted. The vault is locked.
func Create(path string, r *Ring, passphrase []byte, o VaultOptions) (*Vault, error) {
	o = o.withDefaults()
	if err := o.KDF.validate(); err != nil {
		return nil, fmt.Errorf("costs of the passphrase: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, &fs.PathError{Op: "create vault", Path: path, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	phrase, err := newPassphrase(passphrase, o)
	if err != nil {
		return nil, err
	}
	defer wipe(phrase)
	var id [16]byte
	_, _ = rand.Read(id[:])
	header, key := newHeader(id, phrase, o.KDF)
	defer wipe(key)
	file, err := buildFile(header, key, r)
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, file); err != nil {
		return nil, fmt.Errorf("write vault: %w", err)
	}
	return open(path, file, o)
}

// Open reads a vault. It finds damage, but knows no passphrase: the vault is locked, unless it is not
// encrypted. Errors: [fs.ErrNotExist], [ErrDamaged].
func Open(path string, o VaultOptions) (*Vault, error) {
	file, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	return open(path, file, o.withDefaults())
}

func open(path string, file []byte, o VaultOptions) (*Vault, error) {
	if err := checkFile(file); err != nil {
		return nil, fmt.Errorf("vault %s: %w", path, err)
	}
	v := &vault{path: path, o: o, file: file, changed: make(chan struct{})}
	if file[9] == cipherNone {
		r, err := openBody(file, nil)
		if err != nil {
			return nil, fmt.Errorf("vault %s: %w", path, err)
		}
		v.ring, v.spend = r, true
	}
	return &Vault{v: hold(v)}, nil
}

// newPassphrase normalises a passphrase that is being set; nil means no encryption.
func newPassphrase(p []byte, o VaultOptions) ([]byte, error) {
	if len(p) == 0 {
		if !o.Unencrypted {
			return nil, errors.New("an empty passphrase: keys are kept unencrypted only if that is asked for")
		}
		return nil, nil
	}
	return normal(p), nil
}

// normal returns a copy of a passphrase in the Unicode form that does not depend on the
// keyboard it was typed on.
func normal(p []byte) []byte { return norm.NFKD.Append(make([]byte, 0, 4*len(p)), p...) }

// VaultState is what a vault can do now.
type VaultState struct {
	Encrypted bool
	Spend     bool      // everything
	Stake     bool      // blocks can be sealed; true whenever Spend is
	Until     time.Time // when it locks; zero: not by time
}

// State returns what the vault can do now.
func (v *Vault) State() VaultState {
	v.v().expire()
	v.v().mu.RLock()
	defer v.v().mu.RUnlock()
	s := VaultState{Encrypted: v.v().file[9] != cipherNone, Spend: v.v().ring != nil && v.v().spend, Stake: v.v().ring != nil}
	if v.v().ring != nil && v.v().d > 0 {
		s.Until = v.v().since.Add(v.v().d)
	}
	return s
}

// Unlock allows everything for d, 0 meaning until [Vault.Lock]. A later Unlock replaces
// the time of an earlier one. It takes a second. Errors: [ErrPassphrase], [ErrDamaged].
func (v *Vault) Unlock(passphrase []byte, d time.Duration) error {
	return v.v().unlock(passphrase, d, true)
}

// UnlockStaking allows blocks to be sealed ([Staker]) and nothing else, for d, 0 meaning until [Vault.Lock]. It also ends
// a time of spending. Errors are as of Unlock.
func (v *Vault) UnlockStaking(passphrase []byte, d time.Duration) error {
	return v.v().unlock(passphrase, d, false)
}

func (v *vault) unlock(passphrase []byte, d time.Duration, spend bool) error {
	if d < 0 {
		return fmt.Errorf("unlock for %v: a negative time", d)
	}
	v.opening.Lock()
	defer v.opening.Unlock()
	key, ring, err := v.open(passphrase)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lock()
	v.ring, v.spend, v.since, v.d = ring, spend, v.o.Now(), d
	if spend {
		v.key = key
	} else {
		wipe(key)
	}
	v.tell()
	return nil
}

// open returns data key and secrets. The caller holds opening, so the file does not change.
func (v *vault) open(passphrase []byte) (key []byte, r *Ring, err error) {
	v.mu.RLock()
	file := v.file
	v.mu.RUnlock()
	if file[9] == cipherNone {
		return nil, nil, errors.New("the wallet is not encrypted: there is nothing to unlock")
	}
	phrase := normal(passphrase)
	defer wipe(phrase)
	if key, err = openKey(file, phrase); err != nil {
		return nil, nil, err
	}
	if r, err = openBody(file, key); err != nil {
		wipe(key)
		return nil, nil, err
	}
	return key, r, nil
}

// Lock wipes the secrets from memory. It does nothing to a vault that is not encrypted.
func (v *Vault) Lock() {
	v.v().mu.Lock()
	defer v.v().mu.Unlock()
	if v.v().file[9] != cipherNone {
		v.v().lock()
		v.v().tell()
	}
}

// lock needs mu.
func (v *vault) lock() {
	if v.ring != nil {
		v.ring.Wipe()
	}
	wipe(v.key)
	v.ring, v.key, v.spend, v.since, v.d = nil, nil, false, time.Time{}, 0
}

// tell wakes Run. It needs mu.
func (v *vault) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// left returns how much of the unlocked time is left, and false if there is no limit. It needs mu.
func (v *vault) left() (time.Duration, bool) {
	if v.ring == nil || v.d == 0 {
		return 0, false
	}
	now := v.o.Now()
	// The monotonic clock stands still while the machine sleeps and the other one may be set back: whichever
	// says that the time is over is believed.
	return min(v.d-now.Sub(v.since), v.d-now.Round(0).Sub(v.since.Round(0))), true
}

// expire locks when the time is over.
func (v *vault) expire() {
	v.mu.RLock()
	left, limited := v.left()
	v.mu.RUnlock()
	if !limited || left > 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if left, limited := v.left(); limited && left <= 0 {
		v.lock()
		v.tell()
	}
}

// maxLook is how long Run sleeps at most: a clock that was set, or a machine that
// slept, is noticed by then.
const maxLook = 15 * time.Second

// Run locks the vault when its time is over, and when ctx ends. It returns when ctx
// ends, with nil.
func (v *Vault) Run(ctx context.Context) error {
	defer v.Lock()
	timer := time.NewTimer(maxLook)
	defer timer.Stop()
	for {
		v.v().expire()
		v.v().mu.RLock()
		left, limited := v.v().left()
		changed := v.v().changed
		v.v().mu.RUnlock()
		var fires <-chan time.Time
		if limited {
			timer.Reset(min(max(left, time.Millisecond), maxLook))
			fires = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-fires:
		}
	}
}

// Update lets change add secrets and writes the file. The vault must be unlocked for spending ([ErrLocked], [ErrStakingOnly]). When it
// fails, neither file nor memory has changed. change must not call the vault, nor keep the ring.
func (v *Vault) Update(change func(*Ring) error) error {
	v.v().expire()
	v.v().opening.Lock()
	defer v.v().opening.Unlock()
	v.v().mu.Lock()
	defer v.v().mu.Unlock()
	if err := v.v().maySpend(); err != nil {
		return err
	}
	next := NewRing()
	if err := next.AddAll(v.v().ring); err != nil {
		return err
	}
	if err := change(next); err != nil {
		next.Wipe()
		return err
	}
	file, err := buildFile(v.v().file[:atBody], v.v().key, next)
	if err == nil {
		err = writeFile(v.v().path, file)
	}
	if err != nil {
		next.Wipe()
		return fmt.Errorf("write vault: %w", err)
	}
	v.v().ring.Wipe()
	v.v().ring, v.v().file = next, file
	return nil
}

// ChangePassphrase seals the same secrets by another passphrase. current is ignored if the
// vault is not encrypted; an empty next removes the encryption and needs [VaultOptions.Unencrypted].
// Copies of the old file still open by the old passphrase. An encrypted vault is locked afterwards. Errors: [ErrPassphrase], [ErrDamaged].
func (v *Vault) ChangePassphrase(current, next []byte) error {
	phrase, err := newPassphrase(next, v.v().o)
	if err != nil {
		return err
	}
	defer wipe(phrase)
	v.v().opening.Lock()
	defer v.v().opening.Unlock()
	var key []byte
	var ring *Ring
	v.v().mu.RLock()
	old := v.v().file
	v.v().mu.RUnlock()
	if old[9] == cipherNone {
		ring, err = openBody(old, nil)
	} else {
		key, ring, err = v.v().open(current)
	}
	if err != nil {
		return err
	}
	defer ring.Wipe()
	defer wipe(key)
	// A new data key too: whoever has an old file and the old passphrase has the old one.
	header, fresh := newHeader([16]byte(old[atID:atTime]), phrase, v.v().o.KDF)
	defer wipe(fresh)
	file, err := buildFile(header, fresh, ring)
	if err != nil {
		return err
	}
	v.v().mu.Lock()
	defer v.v().mu.Unlock()
	if err := writeFile(v.v().path, file); err != nil {
		return fmt.Errorf("write vault: %w", err)
	}
	v.v().file = file
	v.v().lock()
	if phrase == nil {
		if v.v().ring, err = openBody(file, nil); err != nil {
			return err
		}
		v.v().spend = true
	}
	v.v().tell()
	return nil
}

// Words returns the words of the master key with the given fingerprint, for a backup on
// paper. It wants the passphrase again, also of an unlocked vault; without encryption none.
func (v *Vault) Words(passphrase []byte, fp Fingerprint) (*Words, error) {
	v.v().opening.Lock()
	defer v.v().opening.Unlock()
	v.v().mu.RLock()
	file := v.v().file
	v.v().mu.RUnlock()
	if file[9] == cipherNone {
		r, err := openBody(file, nil)
		if err != nil {
			return nil, err
		}
		defer r.Wipe()
		return r.words(fp)
	}
	key, r, err := v.v().open(passphrase)
	if err != nil {
		return nil, err
	}
	wipe(key)
	defer r.Wipe()
	return r.words(fp)
}

// File returns a copy of the file's bytes, for a backup: sealed as on disk, plain if the vault is not encrypted.
func (v *Vault) File() []byte {
	v.v().mu.RLock()
	defer v.v().mu.RUnlock()
	return slices.Clone(v.v().file)
}

// mayStake needs mu.
func (v *vault) mayStake() error {
	if left, limited := v.left(); v.ring == nil || limited && left <= 0 {
		return ErrLocked
	}
	return nil
}

// maySpend needs mu.
func (v *vault) maySpend() error {
	if err := v.mayStake(); err != nil {
		return err
	}
	if !v.spend {
		return ErrStakingOnly
	}
	return nil
}

// Spender returns the handle that signs anything. It holds no secret: every call asks whether the
// vault is unlocked for spending, and fails with [ErrLocked] or [ErrStakingOnly] if not.
func (v *Vault) Spender() *Spender { return &Spender{v: v.v} }

// A Spender signs with the keys of a [Vault] that is unlocked for spending. It is safe for concurrent use.
type Spender struct {
	secret
	v func() *vault
}

// use runs f with the secrets, if they may be used for spending.
func (s *Spender) use(f func(*Ring) error) error {
	s.v().expire()
	s.v().mu.RLock()
	defer s.v().mu.RUnlock()
	if err := s.v().maySpend(); err != nil {
		return err
	}
	return f(s.v().ring)
}

// Has says whether the vault is unlocked for spending and can sign for ref.
func (s *Spender) Has(ref Ref) bool {
	has := false
	err := s.use(func(r *Ring) error { has = r.Has(ref); return nil })
	return err == nil && has
}

// SignECDSA signs as [Ring.SignECDSA].
func (s *Spender) SignECDSA(ref Ref, hash [32]byte) (sig []byte, err error) {
	err = s.use(func(r *Ring) error { sig, err = r.SignECDSA(ref, hash); return err })
	return sig, err
}

// SignSchnorr signs as [Ring.SignSchnorr].
func (s *Spender) SignSchnorr(ref Ref, hash [32]byte, tweak *TapTweak) (sig [64]byte, err error) {
	err = s.use(func(r *Ring) error { sig, err = r.SignSchnorr(ref, hash, tweak); return err })
	return sig, err
}

// Account returns the extended public key at a path below a master of the vault: the account keys of BIP44 and its
// like are hardened, so they need the vault once.
func (s *Spender) Account(fp Fingerprint, p Path) (xpub *XPub, err error) {
	err = s.use(func(r *Ring) error {
		x, err := r.Root(fp)
		if err != nil {
			return err
		}
		defer x.Wipe()
		child, err := x.Derive(p)
		if err != nil {
			return err
		}
		defer child.Wipe()
		xpub = child.Public()
		return nil
	})
	return xpub, err
}

// Roots lists the vault's extended keys.
func (s *Spender) Roots() (infos []RootInfo, err error) {
	err = s.use(func(r *Ring) error { infos = r.Roots(); return nil })
	return infos, err
}

// RevealKey returns a copy of a private key, for export to another wallet.
func (s *Spender) RevealKey(ref Ref) (k *PrivateKey, err error) {
	err = s.use(func(r *Ring) error { k, err = r.PrivateKey(ref); return err })
	return k, err
}

// Staker returns the handle that seals blocks and cannot sign anything else. It holds no secret: every
// call asks whether the vault is unlocked, for staking or for spending, and fails with [ErrLocked] if not.
func (v *Vault) Staker() *Staker { return &Staker{v: v.v} }

// A Staker seals blocks with the keys of a [Vault]. It is safe for concurrent use.
//
// It takes headers, not hashes, and signs by BIP340 only, so it cannot be made to spend: what taproot
// signs is a tagged hash (BIP341), which the double SHA-256 of 80 bytes is not, and older
// outputs want ECDSA.
type Staker struct {
	secret
	v func() *vault
}

// Has says whether the vault is unlocked and can seal with ref's key.
func (s *Staker) Has(ref Ref) bool {
	s.v().expire()
	s.v().mu.RLock()
	defer s.v().mu.RUnlock()
	return s.v().mayStake() == nil && s.v().ring.Has(ref)
}

// SignSeal signs the hash of a block's header by ref's key, or, with a tweak, by the output key that is made of it.
func (s *Staker) SignSeal(ref Ref, tweak *TapTweak, header *consensus.Header) ([64]byte, error) {
	s.v().expire()
	s.v().mu.RLock()
	defer s.v().mu.RUnlock()
	if err := s.v().mayStake(); err != nil {
		return [64]byte{}, err
	}
	return s.v().ring.SignSchnorr(ref, consensus.HeaderHash(header), tweak)
}

func aead(key []byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // of a key that is not 32 bytes long
	}
	return a
}
