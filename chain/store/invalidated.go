package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// invalidatedName is a file in the home that lists the blocks that an operator
	// invalidated: a hash a line, then a line with their checksum. It is text, apart
	// from the index, for it must outlive the index.
	invalidatedName = "INVALIDATED"
	// anchorName is a file in the home, of the same form, with two hashes: see PutAnchor.
	anchorName = "ANCHOR"
	// maxInvalidated bounds the list: nobody invalidates a thousand blocks by hand.
	maxInvalidated = 1 << 12
)

func encodeInvalidated(hashes []chainhash.Hash) []byte {
	var b []byte
	for i := range hashes {
		b = append(b, hashes[i].String()...)
		b = append(b, '\n')
	}
	return fmt.Appendf(b, "crc32c %08x\n", crc32.Checksum(b, castagnoli))
}

var errInvalidated = errors.New("the list of blocks is not what was written")

func decodeInvalidated(b []byte) ([]chainhash.Hash, error) {
	const line = 2*chainhash.HashSize + 1
	n := len(b) / line
	if n > maxInvalidated || len(b)%line != len("crc32c 00000000\n") {
		return nil, errInvalidated
	}
	hashes := make([]chainhash.Hash, n)
	for i := range hashes {
		text := b[i*line : (i+1)*line-1]
		var raw chainhash.Hash
		if _, err := hex.Decode(raw[:], text); err != nil {
			return nil, errInvalidated
		}
		for k := range raw { // shown in reverse
			hashes[i][k] = raw[len(raw)-1-k]
		}
	}
	if string(encodeInvalidated(hashes)) != string(b) {
		return nil, errInvalidated
	}
	return hashes, nil
}

// Invalidated returns what PutInvalidated kept last, in its order.
func (s *Store) Invalidated() ([]chainhash.Hash, error) {
	return s.readHashes(invalidatedName, "note the hashes in it, remove it, and invalidate them again")
}

// readHashes returns what putHashes kept last under a name; mend is what to do if it is
// damaged.
func (s *Store) readHashes(name, mend string) ([]chainhash.Hash, error) {
	fs, path := s.o.FS, s.o.FS.PathJoin(s.o.Dir, name)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxInvalidated*(2*chainhash.HashSize+1)+64))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	hashes, err := decodeInvalidated(b)
	if err != nil {
		return nil, &DamageError{
			File: name, Offset: -1, What: err.Error() + "; " + mend,
			Mend: "rm " + quoted(path), Err: err,
		}
	}
	return hashes, nil
}

// PutInvalidated replaces the list of blocks that an operator invalidated, at most
// 4096, durably and wholly or not at all. It is apart from the commits and survives
// [Wipe]. It belongs to the goroutine that commits.
func (s *Store) PutInvalidated(hashes []chainhash.Hash) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	if len(hashes) > maxInvalidated {
		return fmt.Errorf("store: %d invalidated blocks, at most %d", len(hashes), maxInvalidated)
	}
	return s.putHashes(invalidatedName, hashes)
}

// Anchor returns what PutAnchor kept last; zero hashes if nothing.
func (s *Store) Anchor() (anchor, accepted chainhash.Hash, err error) {
	hashes, err := s.readHashes(anchorName, "remove it: the chain then goes back as far as a branch with more work wants until it has a new one")
	if err == nil && len(hashes) == 2 {
		anchor, accepted = hashes[0], hashes[1]
	}
	return anchor, accepted, err
}

// PutAnchor keeps, as PutInvalidated does its list, the block below which the chain does
// not go back by itself, and the first block of a branch for which an operator said that
// it may; zero for none. It is apart from the commits and survives [Wipe]. It belongs
// to the goroutine that commits.
func (s *Store) PutAnchor(anchor, accepted chainhash.Hash) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.putHashes(anchorName, []chainhash.Hash{anchor, accepted})
}

func (s *Store) putHashes(name string, hashes []chainhash.Hash) error {
	fs, path := s.o.FS, s.o.FS.PathJoin(s.o.Dir, name)
	if len(hashes) == 0 {
		return removeMark(fs, s.o.Dir, name)
	}
	next := path + ".new"
	f, err := fs.Create(next, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make %s: %w", next, err)
	}
	_, err = f.Write(encodeInvalidated(hashes))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	if err := fs.Rename(next, path); err != nil {
		return fmt.Errorf("rename %s: %w", next, err)
	}
	if err := syncDir(fs, s.o.Dir); err != nil {
		return fmt.Errorf("sync folder %s: %w", s.o.Dir, err)
	}
	return nil
}

// quoted is a path as a shell takes it.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\n\"'\\$&;()<>|*?[]`") {
		return fmt.Sprintf("%q", path)
	}
	return path
}
