package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// What follows reads blocks into the caller's memory, for those who hand them on
// and need not own them: several small ones in one go, a large one piece by piece.

// ReadBlocks reads the blocks at ps into buf in one go: those from the first on
// that lie one behind the other in one file and fit into buf with what frames
// them (12 bytes each). Magic, length and CRC32C of each are checked. The slices
// alias buf. None and no error: buf is too small for the first. Blocks before a
// damaged one are returned without an error.
func (s *Store) ReadBlocks(buf []byte, ps []Pos) ([][]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.users.Done()
	if len(ps) > 0 && ps[0].Aside() {
		return s.aside.readRun(buf, ps[0])
	}
	return s.blocks.readRun(buf, ps)
}

// CheckBlock reads the block at p through buf, which must not be empty, and checks
// magic, length and CRC32C.
func (s *Store) CheckBlock(p Pos, buf []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	if p.Aside() {
		_, err := s.aside.read(p)
		return err
	}
	return s.blocks.checkRecord(p, buf)
}

// ReadBlockPart fills dst with the bytes of the block at p from offset on. It
// checks nothing: CheckBlock does, before.
func (s *Store) ReadBlockPart(p Pos, offset int64, dst []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	if p.Aside() {
		return s.aside.readPart(p, offset, dst)
	}
	return s.blocks.readPart(p, offset, dst)
}

// open returns a handle of the file that p lies in; the caller puts it back.
func (s *series) open(p Pos) (*handle, error) {
	if p.Size == 0 || int64(p.Size) > int64(s.maxRecord) || p.Offset < recordHead {
		return nil, fmt.Errorf("read %s: no record can be at file %d, offset %d, size %d", s.name, p.File, p.Offset, p.Size)
	}
	if p.File < s.kept() {
		return nil, fmt.Errorf("read %s/%s: %w", s.name, s.fileName(p.File), ErrPruned)
	}
	h, err := s.reads.get(s, p.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil, s.damage(p.File, int64(p.Offset)-recordHead, "the file is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", s.name, s.fileName(p.File), err)
	}
	return h, nil
}

// head checks the first bytes of the record whose payload is at p.
func (s *series) head(p Pos, head []byte) error {
	start := int64(p.Offset) - recordHead
	if magic := binary.LittleEndian.Uint32(head); magic != s.magic {
		return s.damage(p.File, start, "magic is %08x, should be %08x", magic, s.magic)
	}
	if n := binary.LittleEndian.Uint32(head[4:]); n != p.Size {
		return s.damage(p.File, start, "length is %d, should be %d", n, p.Size)
	}
	return nil
}

// crcFault is the damage of a payload whose CRC is not the one stored.
func (s *series) crcFault(p Pos, want, got uint32) error {
	return s.damage(p.File, int64(p.Offset)-recordHead, "CRC32C of the payload is %08x, should be %08x", got, want)
}

func (s *series) readRun(buf []byte, ps []Pos) ([][]byte, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	n, length := 0, 0
	for i, p := range ps {
		behind := i == 0 || p.File == ps[0].File && int64(p.Offset) == int64(ps[i-1].Offset)+int64(ps[i-1].Size)+frameBytes
		if !behind || p.Size == 0 || int64(p.Size) > int64(s.maxRecord) || length+frameBytes+int(p.Size) > len(buf) {
			break
		}
		n, length = i+1, length+frameBytes+int(p.Size)
	}
	h, err := s.open(ps[0])
	if err != nil {
		return nil, err
	}
	defer s.reads.put(h)
	if n == 0 {
		return nil, nil
	}
	start := int64(ps[0].Offset) - recordHead
	if _, err := h.f.ReadAt(buf[:length], start); err != nil {
		if n > 1 { // where in the run is for the record's own read to say
			return s.readRun(buf, ps[:1])
		}
		return nil, s.readFault(ps[0].File, start, err)
	}
	blocks := make([][]byte, 0, n)
	for _, p := range ps[:n] {
		rec := buf[:frameBytes+int(p.Size)]
		buf = buf[len(rec):]
		err := s.head(p, rec)
		payload := rec[recordHead : len(rec)-recordTail : len(rec)-recordTail]
		if err == nil {
			if want, got := binary.LittleEndian.Uint32(rec[len(rec)-recordTail:]), crc32.Checksum(payload, castagnoli); want != got {
				err = s.crcFault(p, want, got)
			}
		}
		switch {
		case err == nil:
			blocks = append(blocks, payload)
		case len(blocks) > 0:
			return blocks, nil
		default:
			return nil, err
		}
	}
	return blocks, nil
}

func (s *series) checkRecord(p Pos, buf []byte) error {
	h, err := s.open(p)
	if err != nil {
		return err
	}
	defer s.reads.put(h)
	start := int64(p.Offset) - recordHead
	var head [recordHead]byte
	if _, err := h.f.ReadAt(head[:], start); err != nil {
		return s.readFault(p.File, start, err)
	}
	if err := s.head(p, head[:]); err != nil {
		return err
	}
	got, at := uint32(0), int64(p.Offset)
	for left := int64(p.Size); left > 0; {
		b := buf[:min(int64(len(buf)), left)]
		if _, err := h.f.ReadAt(b, at); err != nil {
			return s.readFault(p.File, start, err)
		}
		got = crc32.Update(got, castagnoli, b)
		at, left = at+int64(len(b)), left-int64(len(b))
	}
	var tail [recordTail]byte
	if _, err := h.f.ReadAt(tail[:], at); err != nil {
		return s.readFault(p.File, start, err)
	}
	if want := binary.LittleEndian.Uint32(tail[:]); want != got {
		return s.crcFault(p, want, got)
	}
	return nil
}

func (s *series) readPart(p Pos, offset int64, dst []byte) error {
	if offset < 0 || offset+int64(len(dst)) > int64(p.Size) {
		return fmt.Errorf("read %s: %d bytes from %d on of a record of %d", s.name, len(dst), offset, p.Size)
	}
	h, err := s.open(p)
	if err != nil {
		return err
	}
	defer s.reads.put(h)
	if _, err := h.f.ReadAt(dst, int64(p.Offset)+offset); err != nil {
		return s.readFault(p.File, int64(p.Offset)-recordHead, err)
	}
	return nil
}
