// Package store keeps a chain on disk: append-only block and undo files, and a
// Pebble database with the header tree, the coins and the tip.
//
// It knows bytes and positions, not rules. Invariants:
//
//   - The committed tip is never ahead of the bytes: [Store.Commit] syncs block
//     and undo files before the one synced Pebble batch that moves coins,
//     positions, index and tip together.
//   - A commit is there wholly or not at all, and so are all commits before it.
//   - Block bytes are never removed but by [Batch.Prune], whole files at a time
//     and after a commit that says so, and never overwritten unless they lie past
//     the write position.
//   - Blocks that lie aside are no part of all this: they are gone with the process.
//   - What is read was checked: damage is a [*DamageError] that names the file
//     and the mend, never a wrong answer.
//
// docs/storage.md describes every byte of the files.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
)

// FormatVersion is the newest version of the on-disk format that is read and
// written. A newer one is refused.
const FormatVersion = 2

// A home is made with the first format; pruning raises it to the second, which an
// older dunlin must refuse.
const (
	formatFirst  = 1
	formatPruned = 2
)

// Options configure Open. Zero means the default given.
type Options struct {
	Dir            string // the folder that holds blocks/, undo/ and index/; made 0700 if missing
	FS             vfs.FS // default vfs.Default
	ChainID        string // written at creation, compared on open; 1 to 255 bytes
	Magic          uint32 // before each record of the block files (the network's, as bootstrap.dat); not 0
	MaxFileBytes   int64  // start a new block file past this; default 128 MiB, at most 2 GiB
	MaxRecordBytes int    // largest block or undo record; default 64 MiB, at most 1 GiB
	CacheBytes     int64  // Pebble block cache; default 16 MiB
	MemTableBytes  int64  // of Pebble, twice that at most; default 4 MiB, 512 KiB to 4 MiB
	// Rebuild opens block files that have no index, as Wipe leaves them: reads
	// of the index find nothing, Scan finds every block, and appends go to a new
	// file. Without it such a folder is refused.
	Rebuild bool
	Logger  *slog.Logger // default: discards
}

// withDefaults fills in the defaults and reports every option out of range.
func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MaxFileBytes == 0 {
		o.MaxFileBytes = 128 << 20
	}
	if o.MaxRecordBytes == 0 {
		o.MaxRecordBytes = 64 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = maxMemTable
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("store: "+format, args...))
		}
	}
	fault(o.Dir == "", "Dir is empty")
	fault(o.ChainID == "" || len(o.ChainID) > 255, "ChainID has %d bytes, must be 1 to 255", len(o.ChainID))
	fault(o.Magic == 0, "Magic is 0, which marks the end of a file")
	fault(o.MaxFileBytes < 1 || o.MaxFileBytes > 2<<30, "MaxFileBytes is %d, must be 1 to 2 GiB", o.MaxFileBytes)
	fault(o.MaxRecordBytes < 1 || o.MaxRecordBytes > 1<<30, "MaxRecordBytes is %d, must be 1 to 1 GiB", o.MaxRecordBytes)
	fault(o.CacheBytes < 0, "CacheBytes is %d, must not be negative", o.CacheBytes)
	fault(o.MemTableBytes < minMemTable || o.MemTableBytes > maxMemTable, "MemTableBytes is %d, must be 512 KiB to 4 MiB", o.MemTableBytes)
	return o, errors.Join(errs...)
}

// A Pos is where a record lies: the file's number and the offset of its payload.
// Size 0 means none.
type Pos struct {
	File   uint32
	Offset uint32
	Size   uint32 // of the payload, bytes
}

// A HeaderRecord is one node of the header tree as stored.
type HeaderRecord struct {
	Height int32
	Raw    []byte // header ‖ seal, 80 to 4096 bytes
	Status uint8  // opaque to the store: chain's flags
	Txs    uint32 // number of transactions once the block is known, else 0
	Block  Pos
	Undo   Pos
}

// A Tip is what the last commit ended at.
type Tip struct {
	Hash   chainhash.Hash
	Height int32
}

// A Store is open storage of one chain. Reads are safe for concurrent use, also
// with appends; appends, commits and ScanTail belong to one goroutine.
type Store struct {
	o      Options
	lock   *homeLock
	index  *index
	blocks *series
	undo   *series
	aside  *aside
	repair *repair

	rebuilding bool // Open made the index anew beside old block files
	marked     bool // the rebuild mark is there; the writer's

	commit uint64 // number of the last commit; the writer's
	failed error  // set by a failed commit; the writer's

	mu     sync.Mutex     // guards closed and users.Add; held for a few instructions
	closed bool           // no new operation starts
	users  sync.WaitGroup // operations under way
}

// Open opens or creates a store. It takes the lock file and refuses a folder of
// another chain ([ErrOtherChain]), of a newer format ([ErrNewerFormat]), in use
// ([ErrLocked]) or damaged ([*DamageError]), each with an error that says so. It
// starts no goroutine of ours; Pebble's end with Close.
//
// Where Wipe, or an Open after it, was cut off, Open goes on as with Rebuild.
func Open(o Options) (s *Store, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	s = &Store{o: o}
	defer func() {
		if err != nil {
			// What went wrong first is what the caller must know.
			_ = s.Close()
			s = nil
		}
	}()
	for _, name := range []string{"", blocksName, undoName, indexName} {
		dir := o.Dir
		if name != "" {
			dir = o.FS.PathJoin(o.Dir, name)
		}
		if err := mkdirSynced(o.FS, dir); err != nil {
			return s, fmt.Errorf("make folder %s: %w", dir, err)
		}
		if name == "" {
			if s.lock, err = lockHome(o.FS, o.Dir); err != nil {
				return s, err
			}
		}
	}
	s.repair = &repair{fs: o.FS, home: o.Dir}
	if err := s.repair.look(); err != nil {
		return s, err
	}
	if s.marked, err = o.rebuildMarked(); err != nil {
		return s, err
	}
	if s.marked {
		s.o.Rebuild = true
		if err := s.o.removeIndex(); err != nil {
			return s, err
		}
		for _, name := range []string{undoName, indexName} {
			if err := mkdirSynced(o.FS, o.FS.PathJoin(o.Dir, name)); err != nil {
				return s, fmt.Errorf("make folder %s: %w", name, err)
			}
		}
	}
	// Again, for a folder whose making was interrupted before its sync.
	if err := syncDir(o.FS, o.Dir); err != nil {
		return s, fmt.Errorf("sync folder %s: %w", o.Dir, err)
	}
	s.blocks = o.series(blocksName, ".blk", 'b')
	s.undo = o.series(undoName, ".und", 'u')
	s.blocks.fix, s.undo.fix = s.repair, s.repair
	if s.aside, err = openAside(&o); err != nil {
		return s, err
	}
	blockSizes, err := s.blocks.list()
	if err != nil {
		return s, err
	}
	undoSizes, err := s.undo.list()
	if err != nil {
		return s, err
	}
	if err := s.openIndex(blockSizes); err != nil {
		return s, err
	}
	if err := errors.Join(s.blocks.sweep(blockSizes), s.undo.sweep(undoSizes)); err != nil {
		return s, err
	}
	if err := s.blocks.check(blockSizes); err != nil {
		return s, err
	}
	return s, s.undo.check(undoSizes)
}

const (
	blocksName = "blocks"
	undoName   = "undo"
)

func (o *Options) series(name, ext string, id byte) *series {
	return &series{
		fs:        o.FS,
		dir:       o.FS.PathJoin(o.Dir, name),
		name:      name,
		ext:       ext,
		id:        id,
		magic:     o.Magic,
		maxFile:   o.MaxFileBytes,
		maxRecord: o.MaxRecordBytes,
		ends:      make(map[uint32]uint32),
	}
}

// openIndex opens the database, checks whose it is and reads the positions.
func (s *Store) openIndex(blockSizes map[uint32]int64) error {
	o := &s.o
	if !o.Rebuild && len(blockSizes) > 0 {
		// Said before Pebble makes a new, empty database.
		desc, err := pebble.Peek(o.FS.PathJoin(o.Dir, indexName), o.FS)
		if err == nil && !desc.Exists {
			return s.errNoIndex()
		}
	}
	x, err := openIndex(o.FS, o.Dir, indexName, o.CacheBytes, o.MemTableBytes, o.Logger, s.repair)
	s.index = x
	if err != nil {
		return err
	}
	v, ok, err := x.get("read format version", []byte{prefixVersion})
	if err != nil {
		return err
	}
	if !ok {
		return s.create(blockSizes)
	}
	if len(v) != 4 {
		return x.malformed([]byte{prefixVersion}, errors.New("malformed format version"))
	}
	if n := binary.LittleEndian.Uint32(v); n > FormatVersion {
		return fmt.Errorf("home %s %w: format %d, this one reads up to %d", o.Dir, ErrNewerFormat, n, FormatVersion)
	}
	id, ok, err := x.get("read chain id", []byte{prefixChainID})
	if err != nil {
		return err
	}
	if !ok {
		return x.malformed([]byte{prefixChainID}, errors.New("the chain id is missing"))
	}
	if string(id) != o.ChainID {
		return fmt.Errorf("home %s %w: %q, not %q", o.Dir, ErrOtherChain, id, o.ChainID)
	}
	return s.loadPositions()
}

func (s *Store) errNoIndex() error {
	return &DamageError{
		File:   indexName,
		Offset: -1,
		What:   "there are block files, but no index of them",
		Mend:   s.repair.mend(),
	}
}

// create writes the identity of a new store. Block files without an identity are
// what is left of a lost index, unless the caller came to rebuild it.
func (s *Store) create(blockSizes map[uint32]int64) error {
	w := written{}
	if len(blockSizes) > 0 {
		if !s.o.Rebuild {
			return s.errNoIndex()
		}
		if s.repair.pruned.Load() {
			return s.repair.refuse()
		}
		s.rebuilding = true
		for file := range blockSizes {
			w.blocks.file = max(w.blocks.file, file+1)
		}
	}
	s.blocks.at, s.undo.at = w.blocks, w.undo
	b := s.NewBatch()
	b.set([]byte{prefixVersion}, binary.LittleEndian.AppendUint32(nil, formatFirst))
	b.set([]byte{prefixChainID}, []byte(s.o.ChainID))
	return s.Commit(b)
}

// loadPositions reads where the last commit left the files.
func (s *Store) loadPositions() error {
	x := s.index
	v, ok, err := x.get("read write positions", []byte{prefixWritten})
	if err != nil {
		return err
	}
	if !ok {
		return x.malformed([]byte{prefixWritten}, errors.New("write positions are missing"))
	}
	w, err := decodeWritten(v)
	if err != nil {
		return x.malformed([]byte{prefixWritten}, err)
	}
	s.commit = w.commit
	if err := x.checkRing(w.commit); err != nil {
		return err
	}
	s.blocks.at, s.undo.at = w.blocks, w.undo
	for _, f := range []*series{s.blocks, s.undo} {
		v, ok, err := x.get("read first file", prunedKey(f.id))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if len(v) != 4 || binary.LittleEndian.Uint32(v) > f.at.file {
			return x.malformed(prunedKey(f.id), errors.New("malformed number of the first file"))
		}
		f.first = binary.LittleEndian.Uint32(v)
	}
	s.repair.pruned.Store(s.repair.pruned.Load() || s.blocks.first > 0)
	return x.each("read file ends", prefixEnd, func(k, v []byte) error {
		if len(k) != 6 || len(v) != 4 {
			return x.malformed(k, errors.New("malformed file end"))
		}
		file, end := binary.BigEndian.Uint32(k[2:]), binary.LittleEndian.Uint32(v)
		switch k[1] {
		case s.blocks.id:
			s.blocks.ends[file] = end
		case s.undo.id:
			s.undo.ends[file] = end
		}
		return nil
	})
}

// Wipe removes the index and the undo files of the store in o.Dir, which must
// not be open, and keeps the block files: the first half of a reindex. Open with
// Rebuild is the second. If either is cut off, the next Open goes on with it. A
// pruned home is refused, unchanged ([ErrPruned]).
func Wipe(o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	if _, err := o.FS.Stat(o.Dir); err != nil {
		return fmt.Errorf("home %s: %w", o.Dir, err)
	}
	lock, err := lockHome(o.FS, o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	fix := &repair{fs: o.FS, home: o.Dir}
	if err := fix.look(); err != nil {
		return err
	}
	if fix.pruned.Load() {
		return fix.refuse()
	}
	if marked, err := o.rebuildMarked(); err != nil {
		return err
	} else if !marked {
		if err := removeMark(o.FS, o.Dir, rebuildMark); err != nil { // one that was cut off
			return err
		}
		if err := makeMark(o.FS, o.Dir, rebuildMark, o.ChainID+"\n"); err != nil {
			return err
		}
	}
	// The first block file is there: pruning was cut off before it removed any, and
	// the index that knew of it goes.
	if err := errors.Join(removeMark(o.FS, o.Dir, prunedMark), removeMark(o.FS, o.Dir, fillMark)); err != nil {
		return err
	}
	return o.removeIndex()
}

// removeIndex removes what can be made anew from the block files.
func (o *Options) removeIndex() error {
	// The index goes first: without undo files it would be damaged.
	for _, name := range []string{indexName, undoName} {
		if err := o.FS.RemoveAll(o.FS.PathJoin(o.Dir, name)); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		if err := syncDir(o.FS, o.Dir); err != nil {
			return fmt.Errorf("sync folder %s: %w", o.Dir, err)
		}
	}
	return nil
}

// enter begins an operation, which must end with s.users.Done().
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// AppendBlock appends a block record (not yet synced). It does not keep raw.
// After an error nothing has moved and the call may be repeated, unless a sync
// failed: then the store is read-only until reopened.
func (s *Store) AppendBlock(raw []byte) (Pos, error) { return s.append(s.blocks, raw) }

// AppendUndo appends an undo record (not yet synced), as AppendBlock.
func (s *Store) AppendUndo(raw []byte) (Pos, error) { return s.append(s.undo, raw) }

func (s *Store) append(to *series, raw []byte) (Pos, error) {
	if err := s.enter(); err != nil {
		return Pos{}, err
	}
	defer s.users.Done()
	if s.failed != nil {
		return Pos{}, s.failed
	}
	return to.append(raw)
}

// ReadBlock returns the bytes at p after checking magic, length and CRC32C. The
// slice is the caller's. ErrMoved if p lay aside and does no more.
func (s *Store) ReadBlock(p Pos) ([]byte, error) {
	if !p.Aside() {
		return s.read(s.blocks, p)
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.users.Done()
	raw, err := s.aside.read(p)
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// ReadUndo is ReadBlock for the undo files.
func (s *Store) ReadUndo(p Pos) ([]byte, error) { return s.read(s.undo, p) }

func (s *Store) read(from *series, p Pos) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.users.Done()
	return from.read(p)
}

// Coin looks a coin up in the committed state. The script is the caller's.
func (s *Store) Coin(op wire.OutPoint) (consensus.Coin, bool, error) {
	if err := s.enter(); err != nil {
		return consensus.Coin{}, false, err
	}
	defer s.users.Done()
	var key [coinKeyBytes]byte
	putCoinKey(key[:], op)
	v, ok, err := s.index.get("read coin", key[:])
	if err != nil || !ok {
		return consensus.Coin{}, false, err
	}
	c, err := decodeCoin(v)
	if err != nil {
		return consensus.Coin{}, false, s.index.malformed(key[:], err)
	}
	return c, true, nil
}

// Coins calls f with every committed coin in key order until f fails. It sees
// the state at its start, whatever is committed meanwhile. f may keep the script.
func (s *Store) Coins(f func(wire.OutPoint, consensus.Coin) error) error {
	return s.each("read coins", prefixCoin, func(k, v []byte) error {
		op, ok := parseCoinKey(k)
		if !ok {
			return s.index.malformed(k, errors.New("malformed coin key"))
		}
		c, err := decodeCoin(append([]byte(nil), v...))
		if err != nil {
			return s.index.malformed(k, err)
		}
		return f(op, c)
	})
}

// Headers calls f with every node, in ascending height, until f fails. f may
// keep the record.
func (s *Store) Headers(f func(chainhash.Hash, HeaderRecord) error) error {
	return s.each("read headers", prefixHeader, func(k, v []byte) error {
		height, hash, ok := parseHeaderKey(k)
		if !ok {
			return s.index.malformed(k, errors.New("malformed header key"))
		}
		r, err := decodeHeaderRecord(height, append([]byte(nil), v...))
		if err != nil {
			return s.index.malformed(k, err)
		}
		return f(hash, r)
	})
}

// HeaderRange is Headers for n heights from a height on, without copies: the
// record is f's only during the call.
func (s *Store) HeaderRange(from, n int32, f func(chainhash.Hash, HeaderRecord) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	low := headerKey(from, chainhash.Hash{})
	high := []byte{prefixHeader + 1}
	if from <= math.MaxInt32-n {
		high = headerKey(from+n, chainhash.Hash{})
	}
	return s.index.between("read headers", low, high, func(k, v []byte) error {
		height, hash, ok := parseHeaderKey(k)
		if !ok {
			return s.index.malformed(k, errors.New("malformed header key"))
		}
		r, err := decodeHeaderRecord(height, v)
		if err != nil {
			return s.index.malformed(k, err)
		}
		return f(hash, r)
	})
}

// HighestHeader returns the greatest height of a stored node; false if there is none.
func (s *Store) HighestHeader() (height int32, ok bool, err error) {
	if err := s.enter(); err != nil {
		return 0, false, err
	}
	defer s.users.Done()
	k, ok, err := s.index.last("read the highest header", prefixHeader)
	if err != nil || !ok {
		return 0, false, err
	}
	if height, _, ok = parseHeaderKey(k); !ok {
		return 0, false, s.index.malformed(k, errors.New("malformed header key"))
	}
	return height, true, nil
}

// Header returns the node with this hash at this height; false if there is none.
// The record is the caller's.
func (s *Store) Header(height int32, hash chainhash.Hash) (HeaderRecord, bool, error) {
	key := headerKey(height, hash)
	v, ok, err := s.get("read header", key)
	if err != nil || !ok {
		return HeaderRecord{}, false, err
	}
	r, err := decodeHeaderRecord(height, v)
	if err != nil {
		return HeaderRecord{}, false, s.index.malformed(key, err)
	}
	return r, true, nil
}

// each is index.each; it ends with ErrClosed when Close is called meanwhile.
func (s *Store) each(op string, prefix byte, f func(k, v []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.index.each(op, prefix, func(k, v []byte) error {
		if s.closing() {
			return ErrClosed
		}
		return f(k, v)
	})
}

// Tip returns the committed tip; false in a new store.
func (s *Store) Tip() (Tip, bool, error) {
	v, ok, err := s.get("read tip", []byte{prefixTip})
	if err != nil || !ok {
		return Tip{}, false, err
	}
	t, err := decodeTip(v)
	if err != nil {
		return Tip{}, false, s.index.malformed([]byte{prefixTip}, err)
	}
	return t, true, nil
}

// Meta returns what PutMeta stored.
func (s *Store) Meta(name string) ([]byte, bool, error) {
	return s.get("read meta "+name, metaKey(name))
}

func (s *Store) get(op string, key []byte) ([]byte, bool, error) {
	if err := s.enter(); err != nil {
		return nil, false, err
	}
	defer s.users.Done()
	return s.index.get(op, key)
}

// ScanTail calls f with each whole record that lies past the last committed
// write position: bytes that a crash left behind, to be used rather than
// downloaded again. It ends at the first torn record, from where appends go on.
// Call it once, after Open and before the first append; without it appends
// overwrite the tail. The bytes are f's to keep. If f fails, its error is
// returned and appends go on at the record that f failed on. Any record may be
// one that is known already.
func (s *Store) ScanTail(f func(Pos, []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	switch {
	case s.failed != nil:
		return s.failed
	case s.blocks.appended:
		return errors.New("store: ScanTail after an append")
	}
	torn, err := s.blocks.recoverTail(f)
	if torn != nil {
		s.o.Logger.Warn("torn block record after a crash", "file", torn.File, "offset", torn.Offset, "what", torn.What)
	}
	return err
}

// Scan calls f with every block record from the first to the last appended when
// it was called, in the order in which they were appended: what verify and
// reindex want. The bytes are f's to keep. At damage it returns the
// *DamageError, or, if damaged is not nil, calls it and goes on at the next
// whole record when it returns nil.
//
// After a rebuild the ends of the files are not known: then records that a crash
// left past them are found too.
func (s *Store) Scan(f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	return s.scan(s.blocks, f, damaged)
}

func (s *Store) scan(from *series, f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return from.scan(func(p Pos, raw []byte) error {
		if s.closing() {
			return ErrClosed
		}
		return f(p, raw)
	}, damaged)
}

// DiskFree returns the bytes free on the folder's file system for this user.
func (s *Store) DiskFree() (uint64, error) {
	u, err := s.o.FS.GetDiskUsage(s.o.Dir)
	if err != nil {
		return 0, fmt.Errorf("disk usage of %s: %w", s.o.Dir, err)
	}
	return u.AvailBytes, nil
}

// Size returns the bytes used by block files, undo files and the database; zeros
// after Close.
func (s *Store) Size() (blocks, undo, index int64) {
	if err := s.enter(); err != nil {
		return 0, 0, 0
	}
	defer s.users.Done()
	u := s.index.db.Metrics().DiskSpaceUsage()
	return s.blocks.size(), s.undo.size(), int64(min(u, math.MaxInt64))
}

// Close releases everything. It commits nothing. It waits for reads under way;
// iterations end with ErrClosed. A second Close does nothing.
//
// After a failed write of the database the home stays locked until the process
// ends: Pebble cannot be closed then.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.users.Wait()
	var errs []error
	for _, f := range []*series{s.blocks, s.undo} {
		if f != nil {
			errs = append(errs, f.close())
		}
	}
	dead := false
	if s.index != nil {
		errs = append(errs, s.index.close())
		dead = s.index.failure() != nil
	}
	if s.aside != nil {
		errs = append(errs, s.aside.clear())
	}
	if s.lock != nil && !dead {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// list returns the sizes of the files of a series.
func (s *series) list() (map[uint32]int64, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.dir, err)
	}
	sizes := make(map[uint32]int64, len(names))
	for _, name := range names {
		var file uint32
		if _, err := fmt.Sscanf(name, "%d", &file); err != nil || s.fileName(file) != name {
			continue // not ours
		}
		info, err := s.fs.Stat(s.fs.PathJoin(s.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("stat %s/%s: %w", s.name, name, err)
		}
		sizes[file] = info.Size()
		s.bytes += info.Size()
	}
	return sizes, nil
}

// check compares the files with what the index says of them.
func (s *series) check(sizes map[uint32]int64) error {
	ends := map[uint32]uint32{s.at.file: s.at.end}
	maps.Copy(ends, s.ends)
	for file, end := range ends {
		size, ok := sizes[file]
		switch {
		case end == 0 || ok && size >= int64(end):
		case !ok:
			return s.damage(file, 0, "the file is missing")
		default:
			return s.damage(file, size, "the file ends here, before byte %d", end)
		}
	}
	return nil
}
