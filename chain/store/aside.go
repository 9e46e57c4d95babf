package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Blocks that may never be of use can lie aside, out of the block files, which only grow:
// one is held in memory at first, can be written to a file of its own, and is dropped when
// it has gone to the block files or nobody wants it. The index does not know of them, they
// are not synced, and the next Open finds none: what is lost with them is fetched again.

const (
	asideName = "aside"
	asideExt  = ".blk"
	// asideFile is the File of the Pos of a block that lies aside; Offset is its number.
	asideFile = math.MaxUint32
	// AsideUnit is what a file takes of the disk at least, and in which steps it grows.
	AsideUnit = 4096
)

// ErrMoved says that a block does not lie aside any more: it was dropped, or has gone to
// the block files.
var ErrMoved = errors.New("store: does not lie aside any more")

// Aside says whether the block at p lies aside.
func (p Pos) Aside() bool { return p.File == asideFile && p.Size > 0 }

// aside holds what lies aside. Writes belong to the goroutine that appends; reads are safe
// at any time.
type aside struct {
	fs    vfs.FS
	dir   string
	magic uint32
	made  bool // the folder is there; the writer's

	mu      sync.Mutex // guards what follows; held for a few instructions
	last    uint32
	held    map[uint32][]byte // in memory
	written map[uint32]uint32 // in a file, with the size of the payload
	bytes   int64             // that these files take
}

// openAside removes what an earlier process left.
func openAside(o *Options) (*aside, error) {
	a := &aside{
		fs: o.FS, dir: o.FS.PathJoin(o.Dir, asideName), magic: o.Magic,
		held: make(map[uint32][]byte), written: make(map[uint32]uint32),
	}
	return a, a.clear()
}

// clear removes the folder with everything in it.
func (a *aside) clear() error {
	there, err := exists(a.fs, a.dir)
	if err != nil || !there {
		return err
	}
	if err := a.fs.RemoveAll(a.dir); err != nil {
		return fmt.Errorf("remove %s: %w", asideName, err)
	}
	return nil
}

func asideFileName(number uint32) string { return fmt.Sprintf("%08d%s", number, asideExt) }

func (a *aside) path(number uint32) string { return a.fs.PathJoin(a.dir, asideFileName(number)) }

// AsideCost is what a block of so many bytes takes of the disk when it lies aside, in bytes.
func AsideCost(size int) int64 {
	return (int64(size) + frameBytes + AsideUnit - 1) / AsideUnit * AsideUnit
}

// HoldAside takes a block aside, in memory; it keeps raw, which must not be empty. Only
// the goroutine that appends may call it, WriteAside and DropAside.
func (s *Store) HoldAside(raw []byte) Pos {
	a := s.aside
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.held[a.last] = raw
	return Pos{File: asideFile, Offset: a.last, Size: uint32(len(raw))}
}

// WriteAside writes a block that HoldAside took to a file of its own and forgets its bytes.
// It is not synced. After an error it is still held.
func (s *Store) WriteAside(p Pos) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	return s.aside.write(p)
}

func (a *aside) write(p Pos) error {
	a.mu.Lock()
	raw, ok := a.held[p.Offset]
	a.mu.Unlock()
	if !ok {
		return ErrMoved
	}
	if !a.made {
		if err := a.fs.MkdirAll(a.dir, 0o700); err != nil {
			return fmt.Errorf("make folder %s: %w", asideName, err)
		}
		a.made = true
	}
	name := a.path(p.Offset)
	f, err := a.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make %s/%s: %w", asideName, asideFileName(p.Offset), err)
	}
	rec := make([]byte, 0, len(raw)+frameBytes)
	rec = binary.LittleEndian.AppendUint32(rec, a.magic)
	rec = binary.LittleEndian.AppendUint32(rec, uint32(len(raw)))
	rec = append(rec, raw...)
	rec = binary.LittleEndian.AppendUint32(rec, crc32.Checksum(raw, castagnoli))
	_, err = f.Write(rec)
	if err := errors.Join(err, f.Close()); err != nil {
		_ = a.fs.Remove(name) // the next Open does otherwise
		return fmt.Errorf("write %s/%s: %w", asideName, asideFileName(p.Offset), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.held, p.Offset)
	a.written[p.Offset] = p.Size
	a.bytes += AsideCost(int(p.Size))
	return nil
}

// DropAside forgets a block that lies aside, and its file. One that is not there is no
// fault; a file that cannot be removed is, and stays until the next Open.
func (s *Store) DropAside(p Pos) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	a := s.aside
	a.mu.Lock()
	size, written := a.written[p.Offset]
	delete(a.held, p.Offset)
	delete(a.written, p.Offset)
	if written {
		a.bytes -= AsideCost(int(size))
	}
	a.mu.Unlock()
	if !written {
		return nil
	}
	if err := a.fs.Remove(a.path(p.Offset)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s/%s: %w", asideName, asideFileName(p.Offset), err)
	}
	return nil
}

// Aside returns how many blocks have a file aside, and what these take of the disk, in bytes.
func (s *Store) Aside() (blocks int, bytes int64) {
	a := s.aside
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.written), a.bytes
}

// open returns what reads the record at p.
func (a *aside) open(p Pos) (interface {
	io.ReaderAt
	io.Closer
}, error,
) {
	for {
		a.mu.Lock()
		raw, held := a.held[p.Offset]
		size, written := a.written[p.Offset]
		a.mu.Unlock()
		switch {
		case held && len(raw) == int(p.Size):
			return heldRecord{bytes.NewReader(raw)}, nil
		case !written || size != p.Size:
			return nil, ErrMoved
		}
		f, err := a.fs.Open(a.path(p.Offset))
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("open %s/%s: %w", asideName, asideFileName(p.Offset), err)
		}
		a.mu.Lock()
		_, written = a.written[p.Offset]
		a.mu.Unlock()
		if written {
			return nil, a.damage(p, "the file is missing")
		}
	}
}

// heldRecord shows a block that is held as the payload of a record.
type heldRecord struct{ r *bytes.Reader }

func (h heldRecord) ReadAt(b []byte, at int64) (int, error) { return h.r.ReadAt(b, at-recordHead) }
func (heldRecord) Close() error                             { return nil }

func (a *aside) damage(p Pos, what string) error {
	return &DamageError{File: asideName + "/" + asideFileName(p.Offset), Offset: 0, What: what, Mend: "dunlin start"}
}

// readPart fills dst with the payload from offset on, unchecked.
func (a *aside) readPart(p Pos, offset int64, dst []byte) error {
	if offset < 0 || offset+int64(len(dst)) > int64(p.Size) {
		return fmt.Errorf("read %s: %d bytes from %d on of a record of %d", asideName, len(dst), offset, p.Size)
	}
	r, err := a.open(p)
	if err != nil {
		return err
	}
	_, err = r.ReadAt(dst, recordHead+offset)
	if err := errors.Join(err, r.Close()); err != nil {
		return a.readFault(p, err)
	}
	return nil
}

// readFault turns an error of a read into damage where the file ends early.
func (a *aside) readFault(p Pos, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return a.damage(p, "the file ends inside the record")
	}
	return fmt.Errorf("read %s/%s: %w", asideName, asideFileName(p.Offset), err)
}

// readInto fills buf, as long as the payload, with it and checks its CRC.
func (a *aside) readInto(p Pos, buf []byte) error {
	r, err := a.open(p)
	if err != nil {
		return err
	}
	_, err = r.ReadAt(buf, recordHead)
	var tail [recordTail]byte
	_, held := r.(heldRecord)
	if err == nil && !held {
		_, err = r.ReadAt(tail[:], recordHead+int64(p.Size))
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return a.readFault(p, err)
	}
	if got, want := crc32.Checksum(buf, castagnoli), binary.LittleEndian.Uint32(tail[:]); !held && got != want {
		return a.damage(p, fmt.Sprintf("CRC32C of the payload is %08x, should be %08x", want, got))
	}
	return nil
}

// read returns the payload in a fresh slice.
func (a *aside) read(p Pos) ([]byte, error) {
	buf := make([]byte, p.Size)
	return buf, a.readInto(p, buf)
}

// readRun is series.readRun: one record, for none lies behind another.
func (a *aside) readRun(buf []byte, p Pos) ([][]byte, error) {
	if frameBytes+int(p.Size) > len(buf) {
		return nil, nil
	}
	buf = buf[:p.Size:p.Size]
	if err := a.readInto(p, buf); err != nil {
		return nil, err
	}
	return [][]byte{buf}, nil
}
