package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// The file of a vault, numbers big-endian:
//
//	 0  magic     8  "dunvault"
//	 8  version   1  1
//	 9  cipher    1  0 none, 1 argon2id and XChaCha20-Poly1305
//	10  id       16  random, of this vault
//	26  time      4  passes of argon2id        } all zero
//	30  memory    4  KiB                       } with
//	34  threads   1                            } cipher 0
//	35  salt     16                            }
//	51  nonce    24                            }
//	75  data key 48  sealed by the passphrase's key; additional data: bytes 0–51
//	123 check    32  HMAC-SHA256 of bytes 0–123 by the passphrase's other key
//	155 nonce    24  of the body
//	179 length    4  of the body
//	183 body         the secrets, sealed by the data key; additional data: bytes 0–26. Plain with cipher 0
//	    sum      32  SHA-256 of everything before
//
// The sum finds damage before a passphrase is tried; the check then tells a wrong
// passphrase from a right one; the two seals are what keeps and proves the secrets. An
// attacker who rewrites the sum gets "wrong passphrase" for a changed header and "damaged" for a
// changed body, and never a changed secret.
const (
	magic       = "dunvault"
	fileVersion = 1

	cipherNone = 0
	cipherV1   = 1

	atID     = 10
	atTime   = 26
	atMemory = 30
	atThread = 34
	atSalt   = 35
	atNonce  = 51
	atKey    = 75
	atCheck  = 123
	atBody   = 155 // its nonce
	atLength = 179
	atData   = 183

	keyBytes = 32
	sumBytes = 32

	// maxVaultBytes bounds what is read: a full [Ring] takes 0.74 MB.
	maxVaultBytes = 1 << 20
)

// KDF are the costs of turning a passphrase into a key by argon2id. They are stored in the file. The defaults take
// about a second on one of the cores this was written on.
type KDF struct {
	Time      uint32 // passes, 1 to 64; 0: 2
	MemoryKiB uint32 // 8 to 1,048,576 (1 GiB); 0: 131,072 (128 MiB)
	Threads   uint8  // 1 to 16; 0: 2
}

// Limits of [KDF]: what a file may demand of the machine that opens it.
const (
	maxTime      = 64
	maxMemoryKiB = 1 << 20
	maxThreads   = 16
	// maxWorkKiB bounds passes times memory: some twenty seconds.
	maxWorkKiB = 8 << 20
)

func (k KDF) withDefaults() KDF {
	if k.Time == 0 {
		k.Time = 2
	}
	if k.MemoryKiB == 0 {
		k.MemoryKiB = 128 << 10
	}
	if k.Threads == 0 {
		k.Threads = 2
	}
	return k
}

func (k KDF) validate() error {
	var errs []error
	if k.Time < 1 || k.Time > maxTime {
		errs = append(errs, fmt.Errorf("%d passes: 1 to %d", k.Time, maxTime))
	}
	if k.Threads < 1 || k.Threads > maxThreads {
		errs = append(errs, fmt.Errorf("%d threads: 1 to %d", k.Threads, maxThreads))
	}
	if k.MemoryKiB < 8*max(uint32(k.Threads), 1) || k.MemoryKiB > maxMemoryKiB {
		errs = append(errs, fmt.Errorf("%d KiB of memory: 8 a thread to %d", k.MemoryKiB, maxMemoryKiB))
	}
	if uint64(k.Time)*uint64(k.MemoryKiB) > maxWorkKiB {
		errs = append(errs, fmt.Errorf("%d passes over %d KiB: at most %d KiB in all", k.Time, k.MemoryKiB, maxWorkKiB))
	}
	return errors.Join(errs...)
}

// Errors of vaults.
var (
	// ErrPassphrase means that the file is whole and that another passphrase opens it.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrDamaged means that the file is not what was written.
	ErrDamaged = errors.New("the file of the wallet's keys is damaged: restore it from a backup, or the wallet from its words")
	// ErrLocked means that the vault's passphrase is needed first.
	ErrLocked = errors.New("the wallet is locked")
	// ErrStakingOnly means that the vault is unlocked for staking, not for this.
	ErrStakingOnly = errors.New("the wallet is unlocked for staking only")
)

func damaged(what string) error { return fmt.Errorf("%w (%s)", ErrDamaged, what) }

// checkFile finds everything that can be found without a passphrase.
func checkFile(file []byte) error {
	if len(file) < atData+sumBytes {
		return damaged("too short")
	}
	if len(file) > maxVaultBytes {
		return damaged("too long")
	}
	if string(file[:len(magic)]) != magic {
		return damaged("not a file of keys")
	}
	body := file[:len(file)-sumBytes]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], file[len(body):]) {
		return damaged("checksum")
	}
	if v := file[8]; v != fileVersion {
		return fmt.Errorf("file of keys of version %d: this version of dunlin reads %d", v, fileVersion)
	}
	if n := binary.BigEndian.Uint32(file[atLength:]); uint64(n) != uint64(len(body)-atData) {
		return damaged("length")
	}
	switch file[9] {
	case cipherNone:
	case cipherV1:
		if err := kdfOf(file).validate(); err != nil {
			return fmt.Errorf("%w: %w", damaged("costs of the passphrase"), err)
		}
	default:
		return fmt.Errorf("file of keys with cipher %d: this version of dunlin knows %d", file[9], cipherV1)
	}
	return nil
}

func kdfOf(file []byte) KDF {
	return KDF{binary.BigEndian.Uint32(file[atTime:]), binary.BigEndian.Uint32(file[atMemory:]), file[atThread]}
}

// stretch returns the key that seals the data key, and the one of the check. It takes a second and KDF.MemoryKiB.
func stretch(passphrase, salt []byte, k KDF) (seal, check []byte) {
	b := argon2.IDKey(passphrase, salt, k.Time, k.MemoryKiB, k.Threads, 2*keyBytes)
	return b[:keyBytes], b[keyBytes:]
}

// openKey returns the data key of a checked file with cipherV1, or [ErrPassphrase] or [ErrDamaged].
func openKey(file, passphrase []byte) ([]byte, error) {
	seal, check := stretch(passphrase, file[atSalt:atNonce], kdfOf(file))
	defer wipe(seal)
	defer wipe(check)
	if !hmac.Equal(mac(check, file[:atCheck]), file[atCheck:atBody]) {
		return nil, ErrPassphrase
	}
	key, err := aead(seal).Open(nil, file[atNonce:atKey], file[atKey:atCheck], file[:atNonce])
	if err != nil {
		return nil, damaged("data key")
	}
	return key, nil
}

// openBody returns the secrets of a checked file; key is nil with cipherNone.
func openBody(file, key []byte) (*Ring, error) {
	sealed := file[atData : len(file)-sumBytes]
	plain := sealed
	if file[9] == cipherV1 {
		var err error
		if plain, err = aead(key).Open(nil, file[atBody:atLength], sealed, file[:atTime]); err != nil {
			return nil, damaged("secrets")
		}
		defer wipe(plain)
	}
	r := NewRing()
	if err := r.decode(plain); err != nil {
		r.Wipe()
		return nil, fmt.Errorf("%w: %w", damaged("contents"), err)
	}
	return r, nil
}

// newHeader returns the header of a new file, up to the body's nonce, and a new data key. passphrase nil means no encryption.
func newHeader(id [16]byte, passphrase []byte, k KDF) (header, key []byte) {
	header = append(append(make([]byte, 0, atBody), magic...), fileVersion, cipherNone)
	header = append(header, id[:]...)
	header = header[:atBody]
	if passphrase == nil {
		return header, nil
	}
	key = make([]byte, keyBytes)
	_, _ = rand.Read(key)
	header[9] = cipherV1
	binary.BigEndian.PutUint32(header[atTime:], k.Time)
	binary.BigEndian.PutUint32(header[atMemory:], k.MemoryKiB)
	header[atThread] = k.Threads
	_, _ = rand.Read(header[atSalt:atKey])
	seal, check := stretch(passphrase, header[atSalt:atNonce], k)
	defer wipe(seal)
	defer wipe(check)
	aead(seal).Seal(header[:atKey], header[atNonce:atKey], key, header[:atNonce])
	copy(header[atCheck:atBody], mac(check, header[:atCheck]))
	return header, key
}

// buildFile seals secrets behind a header.
func buildFile(header, key []byte, r *Ring) ([]byte, error) {
	plain := r.encode()
	defer wipe(plain)
	file := append(make([]byte, 0, atData+len(plain)+chacha20poly1305.Overhead+sumBytes), header[:atBody]...)
	file = append(file, make([]byte, atData-atBody)...)
	if key != nil {
		_, _ = rand.Read(file[atBody:atLength])
		file = aead(key).Seal(file, file[atBody:atLength], plain, file[:atTime])
	} else {
		file = append(file, plain...)
	}
	if len(file)+sumBytes > maxVaultBytes {
		return nil, fmt.Errorf("secrets of %d bytes: at most %d", len(file), maxVaultBytes)
	}
	return finish(file), nil
}

// finish writes length and sum.
func finish(file []byte) []byte {
	binary.BigEndian.PutUint32(file[atLength:], uint32(len(file)-atData)) //nolint:gosec // At most maxVaultBytes.
	sum := sha256.Sum256(file)
	return append(file, sum[:]...)
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// readFile reads a vault's file, whatever it holds.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // The operator's file.
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxVaultBytes+1))
	return b, errors.Join(err, f.Close())
}

// writeFile replaces a file: the new bytes are on disk and read back before they take
// the old one's name, so that at every moment one whole file has it.
func writeFile(path string, data []byte) (err error) {
	tmp := path + ".tmp" // one name, so that a crash leaves one file at most
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // The operator's directory.
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // the first error matters
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if got, err := readFile(tmp); err != nil {
		return err
	} else if !bytes.Equal(got, data) {
		return fmt.Errorf("%s does not read back as it was written", tmp)
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
