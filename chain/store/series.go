package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// RecordHead is how many bytes of a record lie before its payload, so before the
// Offset of a [Pos]. Damage is told by where the record starts.
const RecordHead = 8

// A record is magic 4 ‖ length 4 ‖ payload ‖ CRC32C of the payload 4,
// little-endian. After the last record of a file comes the end of the file or a
// zero word, never the start of an older record: each append writes the zero
// word with its record, and the next append overwrites it.
const (
	recordHead = RecordHead                // magic ‖ length
	recordTail = 4                         // CRC32C
	frameBytes = recordHead + recordTail   // what a record adds to its payload
	zeroWord   = 4                         // after the last record
	copyBelow  = 1 << 20                   // payloads up to this many bytes go out in one write from a reused buffer
	maxHandles = 16                        // files of one series open for reading
	maxEnd     = math.MaxUint32 - zeroWord // offsets are 32 bits wide
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A series is a numbered sequence of append-only files. append, sync, roll and
// recoverTail belong to one goroutine; reads are safe at any time.
type series struct {
	fs        vfs.FS
	dir       string // full path of the folder
	name      string // of the folder, for errors
	ext       string
	id        byte // in the index
	magic     uint32
	maxFile   int64
	maxRecord int
	fix       *repair

	w        vfs.File // the file being written; nil until the first append
	dirty    bool     // w has bytes that were not synced
	appended bool     // since Open
	broken   error    // set by a failed sync: what is on disk is no longer known
	buf      []byte   // reused by append

	mu       sync.Mutex        // guards the fields below; held for a few instructions
	at       place             // where the next record goes
	first    uint32            // files below it were pruned
	ends     map[uint32]uint32 // ends of the finished files, where known
	finished []uint32          // files finished since the last commit
	bytes    int64             // sum of the file sizes

	reads handles
}

func (s *series) fileName(file uint32) string { return fmt.Sprintf("%05d%s", file, s.ext) }

func (s *series) path(file uint32) string { return s.fs.PathJoin(s.dir, s.fileName(file)) }

func (s *series) damage(file uint32, offset int64, format string, args ...any) *DamageError {
	return &DamageError{
		File:   s.name + "/" + s.fileName(file),
		Offset: offset,
		What:   fmt.Sprintf(format, args...),
		Mend:   s.fix.mend(),
	}
}

// next returns where the next record goes.
func (s *series) next() place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// size returns the bytes of all files.
func (s *series) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// append writes a record. After an error the position is unchanged and the same
// bytes may be tried again, unless a sync failed.
func (s *series) append(payload []byte) (Pos, error) {
	if s.broken != nil {
		return Pos{}, s.broken
	}
	if len(payload) == 0 || len(payload) > s.maxRecord {
		return Pos{}, fmt.Errorf("append to %s: record of %d bytes, must be 1 to %d", s.name, len(payload), s.maxRecord)
	}
	need := int64(len(payload)) + frameBytes
	if at := s.next(); at.end > 0 && int64(at.end)+need > s.maxFile {
		if err := s.roll(); err != nil {
			return Pos{}, err
		}
	}
	if err := s.openWriter(); err != nil {
		return Pos{}, err
	}
	at := s.next()
	if err := s.writeRecord(int64(at.end), payload); err != nil {
		return Pos{}, fmt.Errorf("append to %s/%s: %w", s.name, s.fileName(at.file), err)
	}
	s.dirty, s.appended = true, true
	s.advance(at.end + uint32(need))
	return Pos{File: at.file, Offset: at.end + recordHead, Size: uint32(len(payload))}, nil
}

// advance moves the end of the current file.
func (s *series) advance(end uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(end) - int64(s.at.end)
	s.at.end = end
}

// writeRecord writes the record and the zero word. Blocks of usual size are
// copied once and go out in one write; large ones are not copied.
func (s *series) writeRecord(off int64, payload []byte) error {
	s.buf = binary.LittleEndian.AppendUint32(s.buf[:0], s.magic)
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(payload)))
	crc := crc32.Checksum(payload, castagnoli)
	if len(payload) <= copyBelow {
		s.buf = append(s.buf, payload...)
		s.buf = binary.LittleEndian.AppendUint32(s.buf, crc)
		s.buf = append(s.buf, 0, 0, 0, 0)
		_, err := s.w.WriteAt(s.buf, off)
		return err
	}
	// The head goes last: until it is there, the old zero word ends the file.
	if _, err := s.w.WriteAt(payload, off+recordHead); err != nil {
		return err
	}
	tail := binary.LittleEndian.AppendUint64(nil, uint64(crc)) // CRC ‖ zero word
	if _, err := s.w.WriteAt(tail, off+recordHead+int64(len(payload))); err != nil {
		return err
	}
	_, err := s.w.WriteAt(s.buf, off)
	return err
}

// openWriter opens the current file for writing, makes it if it is missing and
// makes its directory entry durable.
func (s *series) openWriter() error {
	if s.w != nil {
		return nil
	}
	name := s.path(s.at.file)
	w, err := s.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("open %s for writing: %w", name, err)
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		s.broken = fmt.Errorf("sync folder %s: %w", s.dir, err)
		return errors.Join(s.broken, w.Close())
	}
	s.w = w
	return nil
}

// sync makes every appended byte durable. A failure is final: the kernel may
// have dropped the bytes and would report success the next time.
func (s *series) sync() error {
	if s.broken != nil {
		return s.broken
	}
	if !s.dirty {
		return nil
	}
	if err := s.w.SyncData(); err != nil {
		s.broken = fmt.Errorf("sync %s: %w", s.path(s.at.file), err)
		return s.broken
	}
	s.dirty = false
	return nil
}

// roll finishes the current file, durably, and goes on to the next.
func (s *series) roll() error {
	if err := s.sync(); err != nil {
		return err
	}
	if s.w != nil {
		err := s.w.Close()
		s.w = nil
		if err != nil {
			s.broken = fmt.Errorf("close %s: %w", s.path(s.at.file), err)
			return s.broken
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[s.at.file] = s.at.end
	s.finished = append(s.finished, s.at.file)
	s.at = place{file: s.at.file + 1}
	return nil
}

// takeFinished returns the files finished since the last commit with their
// ends; committed forgets them.
func (s *series) takeFinished() map[uint32]uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[uint32]uint32, len(s.finished))
	for _, f := range s.finished {
		m[f] = s.ends[f]
	}
	return m
}

func (s *series) committed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = nil
}

// read returns the payload at p in a fresh slice.
func (s *series) read(p Pos) ([]byte, error) {
	h, err := s.open(p)
	if err != nil {
		return nil, err
	}
	defer s.reads.put(h)

	// The head is checked before the payload is allocated: a position from a
	// damaged index must not cost 64 MiB.
	start := int64(p.Offset) - recordHead
	var head [recordHead]byte
	if _, err := h.f.ReadAt(head[:], start); err != nil {
		return nil, s.readFault(p.File, start, err)
	}
	if err := s.head(p, head[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, int(p.Size)+recordTail)
	if _, err := h.f.ReadAt(buf, int64(p.Offset)); err != nil {
		return nil, s.readFault(p.File, start, err)
	}
	payload := buf[:p.Size:p.Size]
	if want, got := binary.LittleEndian.Uint32(buf[p.Size:]), crc32.Checksum(payload, castagnoli); want != got {
		return nil, s.crcFault(p, want, got)
	}
	return payload, nil
}

func (s *series) readFault(file uint32, start int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.damage(file, start, "the file ends inside the record")
	}
	return fmt.Errorf("read %s/%s at byte %d: %w", s.name, s.fileName(file), start, err)
}

// errEnd says that no record starts here: the file ends or a zero word is there.
var errEnd = errors.New("end of records")

// recordAt reads the record that starts at off of a file whose bytes count up to
// limit. A fault of the bytes is a *DamageError or errEnd, anything else is an
// error of the disk. Nothing is allocated for a length that cannot be true.
func (s *series) recordAt(r io.ReaderAt, file uint32, off, limit int64) ([]byte, error) {
	if off == limit {
		return nil, errEnd
	}
	var head [recordHead]byte
	n := min(recordHead, limit-off)
	if _, err := r.ReadAt(head[:n], off); err != nil {
		return nil, s.readFault(file, off, err)
	}
	if n >= zeroWord && binary.LittleEndian.Uint32(head[:]) == 0 {
		return nil, errEnd
	}
	if n < recordHead {
		return nil, s.damage(file, off, "%d bytes that are no record", n)
	}
	if magic := binary.LittleEndian.Uint32(head[:]); magic != s.magic {
		return nil, s.damage(file, off, "magic is %08x, should be %08x", magic, s.magic)
	}
	length := int64(binary.LittleEndian.Uint32(head[4:]))
	switch {
	case length == 0 || length > int64(s.maxRecord):
		return nil, s.damage(file, off, "length is %d, must be 1 to %d", length, s.maxRecord)
	case off+frameBytes+length > limit:
		return nil, s.damage(file, off, "a record of %d bytes does not fit in the %d that are left", length, limit-off-frameBytes)
	}
	buf := make([]byte, length+recordTail)
	if _, err := r.ReadAt(buf, off+recordHead); err != nil {
		return nil, s.readFault(file, off, err)
	}
	payload := buf[:length:length]
	if want, got := binary.LittleEndian.Uint32(buf[length:]), crc32.Checksum(payload, castagnoli); want != got {
		return nil, s.damage(file, off, "CRC32C of the payload is %08x, should be %08x", got, want)
	}
	return payload, nil
}

// recoverTail hands out the whole records past the write position and moves the
// position behind them. It ends at the first torn one, which it returns.
//
// Each record is written again where it lies: after a failed fsync the kernel
// calls pages clean that never reached the disk, and a later fsync would not
// write them.
func (s *series) recoverTail(f func(Pos, []byte) error) (torn *DamageError, err error) {
	for {
		more, err := s.recoverFile(f)
		if torn, ok := errors.AsType[*DamageError](err); ok {
			return torn, nil
		}
		if err != nil || !more {
			return nil, err
		}
		if err := s.roll(); err != nil {
			return nil, err
		}
	}
}

// recoverFile is recoverTail for the current file; more says that there is a
// next one.
func (s *series) recoverFile(f func(Pos, []byte) error) (more bool, err error) {
	file := s.at.file
	h, err := s.reads.get(s, file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s/%s: %w", s.name, s.fileName(file), err)
	}
	defer s.reads.put(h)
	limit, err := fileSize(h.f)
	if err != nil {
		return false, err
	}
	for off := int64(s.at.end); ; off = int64(s.at.end) {
		if off > limit {
			return false, s.damage(file, limit, "the file ends here, before byte %d", off)
		}
		payload, err := s.recordAt(h.f, file, off, limit)
		if errors.Is(err, errEnd) {
			break
		}
		if err != nil {
			return false, err
		}
		if err := s.openWriter(); err != nil {
			return false, err
		}
		if err := s.rewriteRecord(off, payload); err != nil {
			return false, fmt.Errorf("rewrite %s/%s: %w", s.name, s.fileName(file), err)
		}
		pos := Pos{File: file, Offset: uint32(off + recordHead), Size: uint32(len(payload))}
		if err := f(pos, payload); err != nil {
			return false, err
		}
		s.mu.Lock()
		s.at.end = uint32(off + frameBytes + int64(len(payload))) // bytes were counted at Open
		s.mu.Unlock()
	}
	if s.at.end == 0 {
		return false, nil // an empty file is where appends go on
	}
	_, err = s.fs.Stat(s.path(file + 1))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// rewriteRecord writes a record again with the bytes that it has.
func (s *series) rewriteRecord(off int64, payload []byte) error {
	s.dirty = true
	s.buf = binary.LittleEndian.AppendUint32(s.buf[:0], s.magic)
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(payload)))
	if _, err := s.w.WriteAt(s.buf, off); err != nil {
		return err
	}
	if _, err := s.w.WriteAt(payload, off+recordHead); err != nil {
		return err
	}
	crc := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(payload, castagnoli))
	_, err := s.w.WriteAt(crc, off+recordHead+int64(len(payload)))
	return err
}

// scan calls f with every record from the first file to the current position,
// as it was when scan was called. Damage goes to damaged, if it is not nil and
// returns nil the scan goes on at the next whole record; otherwise it ends there.
func (s *series) scan(f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	s.mu.Lock()
	at, first := s.at, s.first
	ends := maps.Clone(s.ends)
	s.mu.Unlock()
	ends[at.file] = at.end
	for file := first; file <= at.file; file++ {
		end, known := ends[file]
		if known && end == 0 {
			continue
		}
		if err := s.scanFile(file, int64(end), known, f, damaged); err != nil {
			return err
		}
	}
	return nil
}

// scanFile scans one file. Without a known end (the index was lost) it reads to
// the end of the file, and a zero word with records behind it is a gap, not
// damage: they are left over from before a crash.
func (s *series) scanFile(file uint32, end int64, known bool, f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	report := func(d *DamageError) error {
		if damaged == nil {
			return d
		}
		return damaged(d)
	}
	h, err := s.reads.get(s, file)
	if errors.Is(err, os.ErrNotExist) {
		return report(s.damage(file, 0, "the file is missing"))
	}
	if err != nil {
		return fmt.Errorf("open %s/%s: %w", s.name, s.fileName(file), err)
	}
	defer s.reads.put(h)
	limit, err := fileSize(h.f)
	if err != nil {
		return err
	}
	limit = min(limit, maxEnd)
	if known {
		if limit < end {
			if err := report(s.damage(file, limit, "the file ends here, before byte %d", end)); err != nil {
				return err
			}
		}
		limit = min(limit, end)
	}
	for off := int64(0); off < limit; {
		payload, err := s.recordAt(h.f, file, off, limit)
		if err == nil {
			if err := f(Pos{File: file, Offset: uint32(off + recordHead), Size: uint32(len(payload))}, payload); err != nil {
				return err
			}
			off += frameBytes + int64(len(payload))
			continue
		}
		damage, ok := errors.AsType[*DamageError](err)
		switch {
		case errors.Is(err, errEnd) && known:
			damage, ok = s.damage(file, off, "zeros where a record should be"), true
		case errors.Is(err, errEnd):
			ok = false
		case !ok:
			return err
		}
		if ok {
			if err := report(damage); err != nil {
				return err
			}
		}
		if off, err = s.resync(h.f, file, off+1, limit); err != nil {
			return err
		}
	}
	return nil
}

// What resync may spend on what only looks like a record. A block's scripts may hold
// any number of magics and lengths, so each of them must not cost a read of all that
// follows: past resyncFull times the file, only short records are looked for.
const (
	resyncFull  = 16
	resyncShort = 64 << 10
)

// resync returns where the next whole record starts at or after off, or limit.
func (s *series) resync(r io.ReaderAt, file uint32, off, limit int64) (int64, error) {
	magic := binary.LittleEndian.AppendUint32(nil, s.magic)
	buf := make([]byte, min(256<<10, limit))
	scratch := make([]byte, len(buf))
	budget := resyncFull * limit
	for off < limit {
		window := buf[:min(int64(len(buf)), limit-off)]
		if _, err := r.ReadAt(window, off); err != nil {
			return 0, fmt.Errorf("read %s/%s at byte %d: %w", s.name, s.fileName(file), off, err)
		}
		for at := 0; ; {
			i := bytes.Index(window[at:], magic)
			if i < 0 {
				// A magic may straddle the windows.
				off += int64(max(1, len(window)-len(magic)+1))
				break
			}
			at += i
			most := int64(s.maxRecord)
			if budget <= 0 {
				most = min(most, resyncShort)
			}
			spent, whole, err := s.wholeAt(r, off+int64(at), limit, most, scratch)
			if err != nil {
				return 0, fmt.Errorf("read %s/%s at byte %d: %w", s.name, s.fileName(file), off+int64(at), err)
			}
			if whole {
				return off + int64(at), nil
			}
			budget -= spent
			at++
		}
	}
	return limit, nil
}

// wholeAt says whether a record of at most so many bytes starts at off, behind whose
// magic it is asked, and how many bytes it read to find out. It allocates nothing.
func (s *series) wholeAt(r io.ReaderAt, off, limit, most int64, scratch []byte) (spent int64, whole bool, err error) {
	if limit-off < frameBytes {
		return 0, false, nil
	}
	if _, err := r.ReadAt(scratch[:recordHead], off); err != nil {
		return 0, false, err
	}
	length := int64(binary.LittleEndian.Uint32(scratch[4:]))
	if length == 0 || length > most || off+frameBytes+length > limit {
		return recordHead, false, nil
	}
	var crc uint32
	for at, end := off+recordHead, off+recordHead+length; at < end; {
		b := scratch[:min(int64(len(scratch)), end-at)]
		if _, err := r.ReadAt(b, at); err != nil {
			return 0, false, err
		}
		crc = crc32.Update(crc, castagnoli, b)
		at += int64(len(b))
	}
	if _, err := r.ReadAt(scratch[:recordTail], off+recordHead+length); err != nil {
		return 0, false, err
	}
	return length, crc == binary.LittleEndian.Uint32(scratch), nil
}

// close closes every file. It syncs nothing.
func (s *series) close() error {
	err := s.reads.close()
	if s.w != nil {
		err = errors.Join(err, s.w.Close())
		s.w = nil
	}
	return err
}

// handles keeps files open for reading, at most maxHandles and those in use.
type handles struct {
	mu     sync.Mutex // guards all; held while a file is opened or closed, not while it is read
	open   map[uint32]*handle
	clock  uint64
	closed bool
}

type handle struct {
	f    vfs.File
	file uint32
	refs int
	used uint64 // clock at the last use
	gone bool   // forgotten: the last reader closes it
}

// get returns an open file, which put gives back.
func (c *handles) get(s *series, file uint32) (*handle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	h := c.open[file]
	if h == nil {
		f, err := s.fs.Open(s.path(file))
		if err != nil {
			return nil, err
		}
		h = &handle{f: f, file: file}
		if c.open == nil {
			c.open = make(map[uint32]*handle, maxHandles)
		}
		c.open[file] = h
	}
	c.clock++
	h.used = c.clock
	h.refs++
	c.shrink()
	return h, nil
}

func (c *handles) put(h *handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.refs--; h.gone {
		if h.refs == 0 {
			_ = h.f.Close() // only read
		}
		return
	}
	c.shrink()
}

// shrink closes the files least recently used, those in use excepted.
func (c *handles) shrink() {
	for len(c.open) > maxHandles {
		var oldest *handle
		for _, h := range c.open {
			if h.refs == 0 && (oldest == nil || h.used < oldest.used) {
				oldest = h
			}
		}
		if oldest == nil {
			return
		}
		delete(c.open, oldest.file)
		_ = oldest.f.Close() // only read
	}
}

// forget closes a file, at once or when nobody reads it any more.
func (c *handles) forget(file uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.open[file]
	if h == nil {
		return
	}
	delete(c.open, file)
	if h.gone = true; h.refs == 0 {
		_ = h.f.Close() // only read
	}
}

// close closes all files; nobody may hold one.
func (c *handles) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, h := range c.open {
		errs = append(errs, h.f.Close())
	}
	c.open = nil
	return errors.Join(errs...)
}

func fileSize(f vfs.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	return info.Size(), nil
}

// syncDir makes the entries of a folder durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mkdirSynced makes dir and what is missing above it, durably, mode 0700.
func mkdirSynced(fs vfs.FS, dir string) error {
	_, err := fs.Stat(dir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := mkdirSynced(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(fs, parent)
}
