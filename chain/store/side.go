package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Keys of a Side that are its own; the caller's may not begin with a zero byte.
var (
	sideVersion = []byte{0, 'v'}
	sideChain   = []byte{0, 'i'}
)

const defaultSideCache = 8 << 20

// SideOptions configure OpenSide.
type SideOptions struct {
	FS         vfs.FS
	Dir        string // the home, which the chain's store holds locked
	Name       string // of the database's folder in it
	ChainID    string
	Version    uint32 // of what the caller writes
	Mend       string // the command that drops it and makes it anew, for errors
	CacheBytes int64  // default 8 MiB
	// MemTableBytes is what Options.MemTableBytes is.
	MemTableBytes int64
	Logger        *slog.Logger // default: discards
}

// A Side is a database of its own beside the chain's, for what is made of the blocks and
// can be made anew: it shares no commit and no cache with the chain, so that whoever does
// not want it pays nothing for it, and dropping it is removing a folder. It survives any
// crash with a prefix of its commits. As with the chain's, the first failed write is
// final until it is opened again. Safe for concurrent use.
type Side struct {
	x *index

	users  sync.WaitGroup // uses under way
	mu     sync.Mutex     // guards closed and the first of users; held for an instant
	closed bool
}

// A mendWith is a fixed command.
type mendWith string

func (m mendWith) mend() string { return string(m) }

// OpenSide opens or makes a database. fresh: it was made. ErrOtherChain: it belongs to
// another; ErrNewerFormat: a later version wrote it; *DamageError: it is to be dropped.
func OpenSide(o SideOptions) (s *Side, fresh bool, err error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultSideCache
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = maxMemTable
	}
	if o.MemTableBytes < minMemTable || o.MemTableBytes > maxMemTable {
		return nil, false, fmt.Errorf("store: MemTableBytes is %d, must be 512 KiB to 4 MiB", o.MemTableBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.FS.MkdirAll(o.FS.PathJoin(o.Dir, o.Name), 0o700); err != nil {
		return nil, false, fmt.Errorf("make %s: %w", o.Name, err)
	}
	x, err := openIndex(o.FS, o.Dir, o.Name, o.CacheBytes, o.MemTableBytes, o.Logger, mendWith(o.Mend))
	if err != nil {
		return nil, false, errors.Join(err, x.close())
	}
	s = &Side{x: x}
	if fresh, err = s.check(&o); err != nil {
		return nil, false, errors.Join(err, s.Close())
	}
	return s, fresh, nil
}

// check finds out whose the database is; a new one is made the caller's.
func (s *Side) check(o *SideOptions) (fresh bool, err error) {
	v, ok, err := s.x.get("read format version", sideVersion)
	if err != nil {
		return false, err
	}
	if !ok {
		b := s.Batch()
		b.Put(sideVersion, binary.LittleEndian.AppendUint32(nil, o.Version))
		b.Put(sideChain, []byte(o.ChainID))
		return true, s.Commit(b)
	}
	if len(v) != 4 {
		return false, s.x.malformed(sideVersion, errors.New("malformed format version"))
	}
	if n := binary.LittleEndian.Uint32(v); n > o.Version {
		return false, fmt.Errorf("%s %w: format %d, this one reads up to %d", o.Name, ErrNewerFormat, n, o.Version)
	}
	id, _, err := s.x.get("read chain id", sideChain)
	if err != nil {
		return false, err
	}
	if string(id) != o.ChainID {
		return false, fmt.Errorf("%s %w: %q, not %q", o.Name, ErrOtherChain, id, o.ChainID)
	}
	return false, nil
}

// DropSide removes a database that is not open; none is no error.
func DropSide(fs vfs.FS, home, name string) error {
	if err := fs.RemoveAll(fs.PathJoin(home, name)); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return syncDir(fs, home)
}

func (s *Side) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.users.Add(1)
	return nil
}

// Get returns a copy of the value at key.
func (s *Side) Get(key []byte) (value []byte, ok bool, err error) {
	if err := s.enter(); err != nil {
		return nil, false, err
	}
	defer s.users.Done()
	return s.x.get("read "+s.x.name, key)
}

// Each calls f with every key from low to before high, ascending, until f fails. Key and
// value are valid only during the call.
func (s *Side) Each(low, high []byte, f func(key, value []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.x.between("read "+s.x.name, low, high, f)
}

// Back is Each descending, from before high to low.
func (s *Side) Back(low, high []byte, f func(key, value []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	it, err := s.x.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return s.x.wrap("read "+s.x.name, err)
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(s.x.wrap("read "+s.x.name, err), it.Close())
		}
		if err := f(it.Key(), v); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return s.x.wrap("read "+s.x.name, err)
	}
	return nil
}

// Malformed is the error for a record that cannot be read although its checksum is right.
func (s *Side) Malformed(key []byte, what string) error {
	return s.x.malformed(bytes.Clone(key), errors.New(what))
}

// A SideBatch collects what one commit writes. Its bytes are copied.
type SideBatch struct{ b *pebble.Batch }

// Batch returns an empty batch, for Commit.
func (s *Side) Batch() *SideBatch { return &SideBatch{s.x.db.NewBatch()} }

// Put sets a key.
func (b *SideBatch) Put(key, value []byte) { _ = b.b.Set(key, value, nil) } // into memory: never fails

// Bytes is what the batch takes.
func (b *SideBatch) Bytes() int { return b.b.Len() }

// Commit writes a batch, wholly or not at all, and syncs it; it consumes it.
func (s *Side) Commit(b *SideBatch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	if err := s.x.failure(); err != nil {
		return err
	}
	if err := s.x.guard(func() error { return b.b.Commit(pebble.Sync) }); err != nil {
		return fmt.Errorf("write %s: %w", s.x.name, err)
	}
	return b.b.Close()
}

// Size is the bytes that it takes on disk; 0 after Close.
func (s *Side) Size() int64 {
	if s.enter() != nil {
		return 0
	}
	defer s.users.Done()
	return int64(min(s.x.db.Metrics().DiskSpaceUsage(), math.MaxInt64))
}

// Close closes the database. It waits for uses under way. A second Close does nothing.
func (s *Side) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.users.Wait()
	return s.x.close()
}
