package wallet

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"dunlin/internal/wallet/keys"
)

// A backup is one file (docs/storage.md):
//
//	magic, passes u32, memory in KiB u32, threads u8, salt 16, nonce 24,
//	XChaCha20-Poly1305 of the gzip of a journal's batch payload (the vault's file is the entry "vault"),
//	SHA-256 of all that
//
// The key is argon2id of the passphrase; what comes before the ciphertext is authenticated with it. The sum tells a
// damaged file from a wrong passphrase.
const (
	backupMagic  = "dunlinWB1"
	backupHeader = len(backupMagic) + 4 + 4 + 1 + backupSalt + chacha20poly1305.NonceSizeX
	backupSalt   = 16
	vaultEntry   = "vault"
	// maxBackupBytes bounds a backup, packed and unpacked.
	maxBackupBytes = 256 << 20
	// maxPackedBytes is what a backup that is made has packed at most: what the API takes back, in base64.
	maxPackedBytes = 23 << 20
	// Costs of a backup's passphrase if the vault's options say nothing.
	backupPasses, backupMemoryKiB, backupThreads = 4, 128 << 10, 2
	// What a file may demand at most.
	maxPasses, maxMemoryKiB, maxThreads = 64, 1 << 20, 16
)

// ErrDamaged says that a backup is not what was written.
var ErrDamaged = errors.New("the backup is damaged: its checksum is wrong")

// Backup returns an encrypted copy of the vault and of everything that the journal knows. passphrase is the
// wallet's, and opens the copy too, whatever it is changed to later.
func (w *Wallet) Backup(passphrase []byte) ([]byte, error) {
	v, err := w.theVault()
	if err != nil {
		return nil, err
	}
	if err := checkPassphrase(v, passphrase); err != nil {
		return nil, err
	}
	if err := w.use(); err != nil {
		return nil, err
	}
	plain, err := func() ([]byte, error) {
		defer w.mu.Unlock()
		if err := w.keepPlace(false); err != nil {
			return nil, err
		}
		out := appendEntry(nil, change{vaultEntry, v.File()})
		for _, key := range w.journal.keys("") {
			if strings.HasPrefix(key, prefOut) {
				continue // derived anew
			}
			value, err := w.journal.get(key)
			if err != nil {
				return nil, err
			}
			out = appendEntry(out, change{key, value})
		}
		return out, nil
	}()
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if packed.Len() > maxPackedBytes {
		return nil, refuse("the wallet's history is too long for a backup: %d bytes, and restoring takes %d; its words bring the coins back, and the vault is %s",
			packed.Len(), maxPackedBytes, w.path(vaultName))
	}
	out, err := sealBackup(packed.Bytes(), passphrase, w.o.Vault.KDF)
	if err == nil {
		w.log.Info("wallet backed up", "bytes", len(out))
	}
	return out, err
}

// checkPassphrase says whether a passphrase opens a vault, without unlocking it.
func checkPassphrase(v *keys.Vault, passphrase []byte) error {
	if !v.State().Encrypted {
		return CheckPassphrase(passphrase)
	}
	words, err := v.Words(passphrase, keys.Fingerprint{})
	if err == nil {
		words.Wipe()
	}
	if errors.Is(err, keys.ErrPassphrase) {
		return ErrPassword
	}
	if errors.Is(err, keys.ErrDamaged) {
		return err
	}
	return nil // that it keeps no words for nobody's fingerprint is no fault
}

func sealBackup(plain, passphrase []byte, costs keys.KDF) ([]byte, error) {
	passes, memory, threads := costs.Time, costs.MemoryKiB, costs.Threads
	if passes == 0 {
		passes = backupPasses
	}
	if memory == 0 {
		memory = backupMemoryKiB
	}
	if threads == 0 {
		threads = backupThreads
	}
	out := []byte(backupMagic)
	out = binary.LittleEndian.AppendUint32(out, passes)
	out = binary.LittleEndian.AppendUint32(out, memory)
	out = append(out, threads)
	random := make([]byte, backupSalt+chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(random) // never fails, says crypto/rand
	out = append(out, random...)
	aead, err := chacha20poly1305.NewX(argon2.IDKey(passphrase, random[:backupSalt], passes, memory, threads, chacha20poly1305.KeySize))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	out = aead.Seal(out, random[backupSalt:], plain, out)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// openBackup returns the entries of a backup.
func openBackup(raw, passphrase []byte) ([]change, error) {
	if len(raw) > maxBackupBytes {
		return nil, refuse("a backup of %d bytes: at most %d", len(raw), maxBackupBytes)
	}
	if !bytes.HasPrefix(raw, []byte(backupMagic)) {
		return nil, refuse("this is no wallet backup of dunlin")
	}
	if len(raw) < backupHeader+sha256.Size {
		return nil, ErrDamaged
	}
	body, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, ErrDamaged
	}
	at := len(backupMagic)
	passes, memory, threads := binary.LittleEndian.Uint32(body[at:]), binary.LittleEndian.Uint32(body[at+4:]), body[at+8]
	if passes == 0 || passes > maxPasses || memory == 0 || memory > maxMemoryKiB || threads == 0 || threads > maxThreads {
		return nil, ErrDamaged
	}
	salt, nonce := body[at+9:at+9+backupSalt], body[at+9+backupSalt:backupHeader]
	aead, err := chacha20poly1305.NewX(argon2.IDKey(passphrase, salt, passes, memory, threads, chacha20poly1305.KeySize))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	packed, err := aead.Open(nil, nonce, body[backupHeader:], body[:backupHeader])
	if err != nil {
		return nil, ErrPassword // the sum was right
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxBackupBytes+1))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	placed, ok := decodeBatch(plain)
	if !ok || len(plain) > maxBackupBytes {
		return nil, ErrDamaged
	}
	var out []change
	for _, e := range placed {
		out = append(out, change{e.key, plain[e.at : e.at+e.n]})
	}
	return out, nil
}

// Restore makes the wallet of a home that has none from a backup. It goes on from the block that the backup had
// seen; from, unless it is -1, has the chain looked through from there on.
func (w *Wallet) Restore(raw, passphrase []byte, from int32) error {
	if err := w.checkFrom(from >= 0, from); err != nil {
		return err
	}
	entries, err := openBackup(raw, passphrase)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.journal != nil || w.broken != nil {
		return ErrExists
	}
	if err := w.unpack(entries); err != nil {
		return err
	}
	if err := w.open(); err != nil {
		w.broken = fmt.Errorf("%w: %w", ErrBroken, err)
		return w.broken
	}
	if from >= 0 {
		w.startSearch(from)
		if err := w.keepPlace(true); err != nil {
			return err
		}
	}
	w.log.Info("wallet restored from a backup", "payments", len(w.book.txs), "height", w.book.pos.Height)
	w.signal()
	w.poke()
	return nil
}

// unpack writes the files of a backup beside the wallet's folder and puts them there at once, so that
// there is a whole wallet or none. Callers hold mu.
func (w *Wallet) unpack(entries []change) (err error) {
	if left, err := os.ReadDir(w.o.Dir); err == nil && len(left) > 0 {
		return fmt.Errorf("%w: %s is not empty", ErrExists, w.o.Dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wallet: %w", err)
	}
	parent := filepath.Dir(w.o.Dir)
	tmp, err := os.MkdirTemp(parent, ".wallet-*")
	if err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp) // the first error matters
		}
	}()
	j, _, err := openJournal(filepath.Join(tmp, journalName))
	if err != nil {
		return err
	}
	var vault []byte
	var batch []change
	for _, e := range entries {
		if e.key == vaultEntry {
			vault = e.value
		} else {
			batch = append(batch, e)
		}
	}
	if err = errors.Join(j.appendAll(batch, false), j.close()); err != nil {
		return err
	}
	if vault == nil {
		return ErrDamaged
	}
	if err := writeNew(filepath.Join(tmp, vaultName), vault); err != nil {
		return err
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, w.o.Dir); err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	return syncDir(parent)
}

// writeNew writes a file that must not exist yet, mode 0600.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// BackupTo writes a backup to a file on this machine that must not exist yet.
func (w *Wallet) BackupTo(path string, passphrase []byte) error {
	raw, err := w.Backup(passphrase)
	if err != nil {
		return err
	}
	if err := writeNew(path, raw); errors.Is(err, fs.ErrExist) {
		return refuse("%s is there already; it is never overwritten", path)
	} else if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// CopyVault writes the vault, sealed as it is, to a file on this machine that must not exist yet: all keys, but no
// labels and no descriptors that were imported without keys.
func (w *Wallet) CopyVault(path string) error {
	v, err := w.theVault()
	if err != nil {
		return err
	}
	if err := writeNew(path, v.File()); errors.Is(err, fs.ErrExist) {
		return refuse("%s is there already; it is never overwritten", path)
	} else if err != nil {
		return err
	}
	w.log.Info("wallet's vault copied", "file", path, "at", w.o.Now().Format(time.RFC3339))
	return syncDir(filepath.Dir(path))
}
