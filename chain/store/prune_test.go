package store_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/store"
)

// prunable fills a store and returns it with a batch that prunes its block files
// below first, and its undo files below 1.
func prunable(t testing.TB, o store.Options, first uint32) (*store.Store, *model, *store.Batch) {
	t.Helper()
	m := filled(t, o, newRand(21))
	s := open(t, o)
	b := s.NewBatch()
	for hash, r := range m.headers {
		changed := false
		if r.Block.File < first {
			r.Block, changed = store.Pos{}, true
			delete(m.blocks, hash)
		}
		if r.Undo.File < 1 {
			r.Undo, changed = store.Pos{}, true
			delete(m.undos, hash)
		}
		if changed {
			m.headers[hash] = r
			b.PutHeader(hash, r)
		}
	}
	b.Prune(first, 1)
	return s, m, b
}

// A pruned home has no old files, knows it over restarts, is of the second
// format, and cannot be reindexed.
func TestPrune(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	o.MaxFileBytes = 1500
	s, _, b := prunable(t, o, 2)
	blocks, undo, err := s.Files()
	must(t, err)
	if len(blocks) < 4 || len(undo) < 2 {
		t.Fatalf("%d block files and %d undo files are too few", len(blocks), len(undo))
	}
	before, _, _ := s.Size()
	var old store.Pos
	must(t, s.Scan(func(p store.Pos, _ []byte) error {
		if p.File == 1 {
			old = p
		}
		return nil
	}, nil))
	if _, err := s.ReadBlock(old); err != nil { // the file is open now
		t.Fatal(err)
	}
	must(t, s.Commit(b))
	if after, _, _ := s.Size(); after != before-blocks[0]-blocks[1] {
		t.Errorf("%d bytes of blocks after pruning %d and %d of %d", after, blocks[0], blocks[1], before)
	}
	if _, err := s.ReadBlock(old); !errors.Is(err, store.ErrPruned) {
		t.Errorf("a pruned block: %v", err)
	}
	n := 0
	count := func(store.Pos, []byte) error { n++; return nil }
	must(t, s.Scan(count, nil))
	must(t, s.ScanUndo(count, nil))
	tooMany := s.NewBatch()
	tooMany.Prune(1000, 0)
	if err := s.Commit(tooMany); err == nil {
		t.Error("the file being written was pruned")
	}
	closeStore(t, s)

	s = open(t, o)
	for dir, want := range map[string]uint32{"blocks": 2, "undo": 1} {
		names, err := fs.List("/home/chain/" + dir)
		must(t, err)
		slices.Sort(names)
		if !strings.HasPrefix(names[0], fmt.Sprintf("%05d", want)) {
			t.Errorf("first file of %s is %s", dir, names[0])
		}
	}
	again := 0
	must(t, s.Scan(func(store.Pos, []byte) error { again++; return nil }, nil))
	must(t, s.ScanUndo(func(store.Pos, []byte) error { again++; return nil }, nil))
	if again != n {
		t.Errorf("%d records, %d before", again, n)
	}
	if mend := s.Mend(); mend != "rm -r /home/chain/blocks /home/chain/undo /home/chain/index /home/chain/PRUNED" {
		t.Errorf("mend %q", mend)
	}
	closeStore(t, s)
	db := index(t, fs)
	v, c, err := db.Get([]byte("v"))
	must(t, err)
	if v[0] != 2 {
		t.Errorf("format %d", v[0])
	}
	must(t, c.Close())
	must(t, db.Close())

	for range 2 { // with its index, and without
		if err := store.Wipe(o); !errors.Is(err, store.ErrPruned) || !strings.Contains(err.Error(), "rm -r /home/chain/blocks") {
			t.Errorf("Wipe: %v", err)
		}
		must(t, fs.RemoveAll("/home/chain/index"))
	}
	_, err = store.Open(o)
	if d, ok := errors.AsType[*store.DamageError](err); !ok || !strings.HasPrefix(d.Mend, "rm -r") {
		t.Errorf("Open without an index: %v", err)
	}
	o.Rebuild = true
	if _, err := store.Open(o); !errors.Is(err, store.ErrPruned) {
		t.Errorf("Open to rebuild: %v", err)
	}
}

// What a crash leaves of pruned files goes at the next start, and a crash before
// the commit leaves everything as it was.
func TestPruneLeftovers(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := options(fs)
	o.MaxFileBytes = 1500
	s, m, b := prunable(t, o, 3)
	whole := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, s.Commit(b))
	closeStore(t, s)
	for _, name := range []string{"blocks/00000.blk", "blocks/00002.blk", "undo/00000.und"} {
		raw := contents(t, whole, "/home/chain/"+name)
		f, err := fs.Create("/home/chain/"+name, vfs.WriteCategoryUnspecified)
		must(t, err)
		_, err = f.Write(raw)
		must(t, errors.Join(err, f.Close()))
	}
	before, _, _ := open(t, o).Size()
	for _, name := range []string{"blocks/00000.blk", "blocks/00002.blk", "undo/00000.und"} {
		if _, err := fs.Stat("/home/chain/" + name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	var sum int64
	for file := uint32(3); ; file++ {
		info, err := fs.Stat(fmt.Sprintf("/home/chain/blocks/%05d.blk", file))
		if err != nil {
			break
		}
		sum += info.Size()
	}
	if before != sum {
		t.Errorf("size %d, the files have %d", before, sum)
	}
	if m.tip.Height < 0 {
		t.Fatal("an empty model")
	}

	// The mark of a prune that did not come to be does not stop a reindex.
	o.FS = whole
	f, err := whole.Create("/home/chain/PRUNED", vfs.WriteCategoryUnspecified)
	must(t, errors.Join(err, f.Close()))
	must(t, store.Wipe(o))
	if s := open(t, o); !s.Rebuilding() || s.Mend() != "dunlin chain reindex" {
		t.Errorf("rebuilding %v, mend %q", s.Rebuilding(), s.Mend())
	}
}
