package store_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/store"
)

const frameSize = 12 // magic, length, CRC

// TestReadBlocks: what lies one behind the other comes in one go, up to the end
// of the file, of the buffer, and of the row.
func TestReadBlocks(t *testing.T) {
	s := open(t, options(vfs.NewMem())) // files of 4096 bytes
	r := rand.New(rand.NewPCG(1, 2))
	var ps []store.Pos
	var raws [][]byte
	for _, n := range []int{100, 1, 2000, 300, 4000, 500, 600} {
		raws = append(raws, randBytes(r, n))
		p, err := s.AppendBlock(raws[len(raws)-1])
		must(t, err)
		ps = append(ps, p)
	}
	for _, tc := range []struct {
		name     string
		from, to int // of ps
		buf      int
		want     int
	}{
		{"all of a file", 0, 7, 1 << 20, 4},
		{"the buffer holds exactly two", 0, 7, 101 + 2*frameSize, 2},
		{"one byte less", 0, 7, 101 + 2*frameSize - 1, 1},
		{"not even one", 0, 7, 100 + frameSize - 1, 0},
		{"no buffer", 0, 7, 0, 0},
		{"a file of its own", 4, 7, 1 << 20, 1},
		{"the last file", 5, 7, 1 << 20, 2},
		{"nothing", 0, 0, 100, 0},
	} {
		got, err := s.ReadBlocks(make([]byte, tc.buf), ps[tc.from:tc.to])
		if err != nil || len(got) != tc.want {
			t.Errorf("%s: %d blocks, want %d; %v", tc.name, len(got), tc.want, err)
			continue
		}
		for i, raw := range got {
			if !bytes.Equal(raw, raws[tc.from+i]) {
				t.Errorf("%s: block %d differs", tc.name, i)
			}
		}
	}
	// Out of order, twice, with gaps: one at a time.
	for _, row := range [][]store.Pos{{ps[1], ps[0]}, {ps[0], ps[0]}, {ps[0], ps[2]}} {
		if got, err := s.ReadBlocks(make([]byte, 1<<20), row); err != nil || len(got) != 1 {
			t.Errorf("%+v: %d blocks, %v", row, len(got), err)
		}
	}
	for i, p := range ps {
		must(t, s.CheckBlock(p, make([]byte, 7)))
		part := make([]byte, (len(raws[i])+1)/2)
		must(t, s.ReadBlockPart(p, int64(len(raws[i])-len(part)), part))
		if !bytes.Equal(part, raws[i][len(raws[i])-len(part):]) {
			t.Errorf("part of block %d differs", i)
		}
		for _, offset := range []int64{-1, int64(len(raws[i])-len(part)) + 1, 1 << 40} {
			if err := s.ReadBlockPart(p, offset, part); err == nil {
				t.Errorf("a part of block %d from %d on was read", i, offset)
			}
		}
	}
}

// TestReadBlocksDamaged: each way to read finds a flipped byte of what it must
// check, and blocks before it are still given.
func TestReadBlocksDamaged(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	var ps []store.Pos
	for range 3 {
		p, err := s.AppendBlock(bytes.Repeat([]byte{7}, 200))
		must(t, err)
		ps = append(ps, p)
	}
	middle := int64(ps[1].Offset)
	for name, at := range map[string]int64{
		"magic": middle - 8, "length": middle - 4, "first byte": middle, "last byte": middle + 199, "CRC": middle + 200,
	} {
		f, err := fs.OpenReadWrite("/home/chain/blocks/00000.blk", vfs.WriteCategoryUnspecified)
		must(t, err)
		var b [1]byte
		_, err = f.ReadAt(b[:], at)
		must(t, err)
		_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
		must(t, err)
		var damage *store.DamageError
		if got, err := s.ReadBlocks(make([]byte, 1<<20), ps); err != nil || len(got) != 1 {
			t.Errorf("%s: %d blocks before it, %v", name, len(got), err)
		}
		if _, err := s.ReadBlocks(make([]byte, 1<<20), ps[1:]); !errors.As(err, &damage) || damage.Offset != middle-8 {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.CheckBlock(ps[1], make([]byte, 64)); !errors.As(err, &damage) || damage.Offset != middle-8 {
			t.Errorf("%s: %v", name, err)
		}
		must(t, s.CheckBlock(ps[2], make([]byte, 64)))
		_, err = f.WriteAt(b[:], at)
		must(t, err)
		must(t, f.Close())
	}
	must(t, s.CheckBlock(ps[1], make([]byte, 64)))
	// A file that ends inside the run: what lies before the end is given.
	f, err := fs.OpenReadWrite("/home/chain/blocks/00000.blk", vfs.WriteCategoryUnspecified)
	must(t, err)
	defer f.Close()
	gone := store.Pos{File: 0, Offset: ps[2].Offset + 200 + frameSize, Size: 200}
	if got, err := s.ReadBlocks(make([]byte, 1<<20), append(ps[:3:3], gone)); err != nil || len(got) != 1 {
		t.Errorf("past the end: %d blocks, %v", len(got), err)
	}
	if _, err := s.ReadBlocks(make([]byte, 1<<20), []store.Pos{gone}); err == nil {
		t.Error("a record past the end was read")
	}
	if err := s.CheckBlock(gone, make([]byte, 64)); err == nil {
		t.Error("a record past the end is whole")
	}
}
