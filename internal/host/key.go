package host

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// maxKeyFileBytes is far above the 68 bytes of an Ed25519 key; a larger file is
// something else.
const maxKeyFileBytes = 4096

// ErrCorruptKey is in the error for a key file that holds no Ed25519 key.
var ErrCorruptKey = errors.New("no Ed25519 identity key")

// LoadOrCreateKey reads the node's identity from path or, if there is no such
// file, makes one. The file holds libp2p's own encoding of a private key
// (protobuf), mode 0600; missing folders are made with 0700. A file that others
// may read is tightened, with a warning: the key may have been copied. A file
// that holds anything else is an error, never overwritten. logger may be nil.
func LoadOrCreateKey(path string, logger *slog.Logger) (crypto.PrivKey, error) {
	key, err := loadKey(path, logger)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if err := SaveKey(path, key); err != nil {
		return nil, err
	}
	return key, nil
}

// LoadKey reads the node's identity from path; fs.ErrNotExist if there is none.
func LoadKey(path string) (crypto.PrivKey, error) { return loadKey(path, nil) }

func loadKey(path string, logger *slog.Logger) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("identity key %s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		if err := f.Chmod(mode &^ 0o077); err != nil {
			return nil, fmt.Errorf("identity key %s: others may read it (mode %04o): %w", path, mode, err)
		}
		if logger != nil {
			logger.Warn("identity key was open to other users; now it is not: replace it if one may have copied it",
				"path", path, "was_mode", fmt.Sprintf("%04o", mode))
		}
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return nil, fmt.Errorf("identity key %s: %w (%d bytes): restore it from a backup, or remove it to become a new peer",
			path, err, len(raw))
	}
	return key, nil
}

func parseKey(raw []byte) (crypto.PrivKey, error) {
	if len(raw) > maxKeyFileBytes {
		return nil, ErrCorruptKey
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptKey, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("%w but one of type %s", ErrCorruptKey, key.Type())
	}
	// The file holds the public key too: a flipped bit in either shows.
	half, err := key.Raw()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptKey, err)
	}
	if !bytes.Equal(ed25519.NewKeyFromSeed(half[:ed25519.SeedSize]), half) {
		return nil, fmt.Errorf("%w: its halves do not belong together", ErrCorruptKey)
	}
	return key, nil
}

// SaveKey writes key to path, mode 0600, so that after a crash there is the
// whole file or none. A file that is there already is left and an error.
func SaveKey(path string, key crypto.PrivKey) (err error) {
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".key-*") // 0600 by its contract
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	defer func() {
		if e := os.Remove(tmp.Name()); err == nil && e != nil {
			err = fmt.Errorf("identity key: %w", e)
		}
	}()
	_, err = tmp.Write(raw)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path) // unlike a rename, it never replaces
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("identity key %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// KeyFromSeed returns a fixed key for tests and demonstrations: the same n gives
// the same peer id everywhere, and anyone can compute it.
func KeyFromSeed(n uint64) crypto.PrivKey {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("dunlin test identity "), n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err) // the length is right by construction
	}
	return key
}
