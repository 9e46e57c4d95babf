package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	indexName = "index"
	// Bounds of a memtable. Two may exist at once, and the whole idle node has 80 MB.
	// Batches over half of it bypass the memtable and are flushed as they are,
	// so that the commits of a sync do not suffer from a small one. Pebble begins with 256 KiB and makes each twice as large as the
	// one before: what a node at the tip takes grows for hours, until the limit is reached.
	maxMemTable = 4 << 20
	minMemTable = 512 << 10
	// indexFiles is Pebble's soft limit on open files.
	indexFiles = 256
	// ringSlots is how many of the last commits are checked on open to be all
	// there. It must exceed the number of commits that fit in the write-ahead
	// log before a memtable is flushed: 4 MiB at more than 600 bytes each.
	ringSlots = 8192
)

// A mender names the command that repairs what is damaged.
type mender interface{ mend() string }

// An index is the Pebble database. Pebble means its fatal errors to end the
// process; here the first one makes the index read-only, wakes whoever waits for
// a commit, and ends only the goroutine that it happened on.
type index struct {
	db   *pebble.DB
	home string // to shorten paths in errors
	name string // of its folder in home
	fix  mender
	log  *slog.Logger

	failed chan struct{} // closed by the first fail
	mu     sync.Mutex    // guards the fields below; held for a few instructions
	err    error         // set before failed is closed
	rotten string        // the file that Pebble last found damaged
}

// MemTableBytes is how large the memtables of a database should be, beside a cache of unspent outputs of so many bytes: whoever
// gives little memory to the one has little for the other. 4 MiB beside the default cache, 512 KiB at least.
func MemTableBytes(coinCache int64) int64 { return min(max(coinCache/16, minMemTable), maxMemTable) }

// openIndex opens or creates the database in the folder name of home. The index it
// returns must be closed, also after an error.
func openIndex(fs vfs.FS, home, name string, cacheBytes, memTable int64, log *slog.Logger, fix mender) (*index, error) {
	x := &index{home: home, name: name, fix: fix, log: log, failed: make(chan struct{})}
	dir := fs.PathJoin(home, name)
	ifs := &indexFS{FS: fs, x: x}
	opts := &pebble.Options{
		FS:        ifs,
		CacheSize: cacheBytes,
		// V6 has a checksum in the footer of a table and sync offsets in the
		// write-ahead log, which tell a torn end from damage.
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                uint64(memTable),
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                indexFiles,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000, // a stalled commit would stall the chain
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, min(4, runtime.GOMAXPROCS(0)-1)) },
		Logger:                      pebbleLog{ifs},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { _ = ifs.check(err); runtime.Goexit() },
			DataCorruption:  x.corrupt,
			WriteStallBegin: func(i pebble.WriteStallBeginInfo) { log.Debug("index stalls writes", "reason", i.Reason) },
		},
	}
	opts.Experimental.FileCacheShards = 1
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].BlockSize = 8 << 10
		opts.Levels[i].IndexBlockSize = 32 << 10
	}
	opts.TargetFileSizes[0] = 4 << 20

	err := x.guard(func() (err error) {
		x.db, err = pebble.Open(dir, opts)
		return err
	})
	switch {
	case err == nil:
		ifs.opened.Store(true)
		return x, nil
	case strings.Contains(err.Error(), "unknown format major version"):
		return x, fmt.Errorf("home %s %w: %w", home, ErrNewerFormat, err)
	case pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) || errors.Is(err, pebble.ErrDBNotPristine) ||
		strings.Contains(err.Error(), "object size mismatch"): // a table was cut: Pebble does not call it corruption
		return x, x.damage(err)
	}
	return x, fmt.Errorf("open index: %w", err)
}

// guard runs f on a goroutine of its own and waits for it or for the first
// fatal error, whichever comes first: Pebble may hang in f after one. Only then
// is the goroutine left behind; the store is dead from there on.
func (x *index) guard(f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			// Pebble panics where writing the log fails under its locks.
			if r := recover(); r != nil {
				err, ok := r.(error)
				if _, bug := r.(runtime.Error); !ok || bug {
					panic(r)
				}
				x.fail(err)
			}
		}()
		done <- f()
	}()
	select {
	case <-x.failed:
		return x.failure()
	case err := <-done:
		if failure := x.failure(); failure != nil {
			return failure
		}
		return err
	}
}

// fail records the first fatal error.
func (x *index) fail(err error) {
	if pebble.IsCorruptionError(err) { // found by a compaction
		err = x.damage(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	x.err = fmt.Errorf("index is read-only until dunlin starts again: %w", err)
	close(x.failed)
	x.log.Error("index failed", "err", err)
}

func (x *index) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *index) corrupt(info pebble.DataCorruptionInfo) {
	x.mu.Lock()
	x.rotten = info.Path
	x.mu.Unlock()
	x.log.Error("index is damaged", "file", info.Path, "err", info.Details, "mend", x.fix.mend())
}

// damage turns an error of Pebble that reports damage into a *DamageError.
func (x *index) damage(err error) error {
	x.mu.Lock()
	file := strings.TrimPrefix(strings.TrimPrefix(x.rotten, x.home), "/")
	x.mu.Unlock()
	if file == "" {
		file = x.name
	}
	// What follows the first line is the library's talk to itself.
	what, _, _ := strings.Cut(err.Error(), "\n")
	return &DamageError{File: file, Offset: -1, What: what, Mend: x.fix.mend(), Err: err}
}

// wrap names the operation of an error, and the mend if it is damage.
func (x *index) wrap(op string, err error) error {
	if pebble.IsCorruptionError(err) {
		return x.damage(err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// malformed says that a record cannot be read although its checksum is right.
func (x *index) malformed(key []byte, err error) error {
	return &DamageError{
		File:   x.name,
		Offset: -1,
		What:   fmt.Sprintf("record %x: %v", key, err),
		Mend:   x.fix.mend(),
		Err:    err,
	}
}

// get returns a copy of the value at key.
func (x *index) get(op string, key []byte) ([]byte, bool, error) {
	v, c, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, x.wrap(op, err)
	}
	v = bytes.Clone(v)
	if v == nil {
		v = []byte{}
	}
	if err := c.Close(); err != nil {
		return nil, false, x.wrap(op, err)
	}
	return v, true, nil
}

// each calls f with every key of a prefix, in order. Key and value are valid
// only during the call.
func (x *index) each(op string, prefix byte, f func(key, value []byte) error) error {
	return x.between(op, []byte{prefix}, []byte{prefix + 1}, f)
}

// last returns a copy of the last key of a prefix; false if there is none.
func (x *index) last(op string, prefix byte) (key []byte, ok bool, err error) {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return nil, false, x.wrap(op, err)
	}
	if ok = it.Last(); ok {
		key = bytes.Clone(it.Key())
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, false, x.wrap(op, err)
	}
	return key, ok, nil
}

// between calls f with every key from low to before high, as each does.
func (x *index) between(op string, low, high []byte, f func(key, value []byte) error) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return x.wrap(op, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(x.wrap(op, err), it.Close())
		}
		if err := f(it.Key(), v); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := it.Error(); err != nil {
		return errors.Join(x.wrap(op, err), it.Close())
	}
	if err := it.Close(); err != nil {
		return x.wrap(op, err)
	}
	return nil
}

// checkRing checks that the last commits are all there. Pebble takes a damaged
// manifest for one that ends early: it would then forget tables of the middle of
// the history and still replay the log of its end.
func (x *index) checkRing(last uint64) error {
	first := uint64(1)
	if last > ringSlots {
		first = last - ringSlots + 1
	}
	seen := uint64(0)
	err := x.each("read commits", prefixRing, func(k, v []byte) error {
		if len(k) != 3 || len(v) != 8 {
			return x.malformed(k, errors.New("malformed commit number"))
		}
		n := binary.LittleEndian.Uint64(v)
		if n < first || n > last || !bytes.Equal(k, ringKey(n)) {
			return x.lost(n, last)
		}
		seen++
		return nil
	})
	if err != nil {
		return err
	}
	if want := last - first + 1; seen != want {
		return x.lost(last-seen, last)
	}
	return nil
}

func (x *index) lost(around, last uint64) error {
	return &DamageError{
		File:   x.name,
		Offset: -1,
		What:   fmt.Sprintf("commits around number %d are missing, although the last is number %d", around, last),
		Mend:   x.fix.mend(),
	}
}

// close closes the database. After a fatal error it cannot be closed: Pebble may
// hold its locks for ever. It then keeps its lock file until the process ends.
func (x *index) close() error {
	if x.failure() != nil || x.db == nil {
		return nil //nolint:nilerr // the failure was returned where it happened
	}
	if err := x.guard(x.db.Close); err != nil { // a failed write may yet come
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// pebbleLog is Pebble's logger.
type pebbleLog struct{ fs *indexFS }

func (l pebbleLog) Infof(format string, args ...any) {
	if log := l.fs.x.log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("pebble", "text", fmt.Sprintf(format, args...))
	}
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.fs.x.log.Warn("pebble", "text", fmt.Sprintf(format, args...))
}

// Fatalf must not return. With an error among args it is a failed write, which
// ends the store; without one it is a bug of Pebble, which ends the process.
func (l pebbleLog) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, a := range args {
		if err, ok := a.(error); ok {
			what := strings.TrimSuffix(strings.TrimSuffix(text, err.Error()), ": ")
			if what != "" {
				err = fmt.Errorf("%s: %w", what, err)
			}
			_ = l.fs.check(err)
			runtime.Goexit()
		}
	}
	panic(text)
}
