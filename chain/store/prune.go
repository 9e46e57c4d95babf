package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// prunedMark is an empty file in the home from before the first block file is
	// removed. It tells a pruned home from one that lost its first block file when
	// the index, which knows, is what is lost.
	prunedMark = "PRUNED"
	// rebuildMark is a file in the home, from before the index is removed until a
	// rebuilt one has a tip, that holds the chain id and a newline. An index beside
	// it is not to be trusted.
	rebuildMark = "REINDEX"
	// fillMark is what rebuildMark is renamed to then. It stays until the caller says
	// that the new index has all that the old one had.
	fillMark = "REINDEX.filling"
)

// A repair is what mends damage of a home: a reindex, or, where blocks were
// pruned that it would need, a fresh start.
type repair struct {
	fs     vfs.FS
	home   string
	pruned atomic.Bool // the first block file was pruned
	again  atomic.Bool // a reindex is under way: a new one must not go on with it
}

// look finds out from the files alone.
func (r *repair) look() error {
	filling, err := exists(r.fs, r.fs.PathJoin(r.home, fillMark))
	if err != nil {
		return err
	}
	r.again.Store(filling)
	marked, err := exists(r.fs, r.fs.PathJoin(r.home, prunedMark))
	if err != nil || !marked {
		return err
	}
	first, err := exists(r.fs, r.fs.PathJoin(r.home, blocksName, fmt.Sprintf("%05d.blk", 0)))
	if err != nil {
		return err
	}
	r.pruned.Store(!first)
	return nil
}

// mend is the command that repairs the home.
func (r *repair) mend() string {
	switch {
	case r == nil:
		return reindex
	case r.pruned.Load():
		return r.startOver()
	case r.again.Load():
		return reindex + " --restart"
	}
	return reindex
}

// startOver is the command after which the next start syncs the chain anew. Keys
// and peers stay.
func (r *repair) startOver() string {
	var b strings.Builder
	b.WriteString("rm -r")
	for _, name := range []string{blocksName, undoName, indexName, prunedMark} {
		b.WriteString(" " + quoted(r.fs.PathJoin(r.home, name)))
	}
	return b.String()
}

// refuse is the answer to a reindex of a pruned home.
func (r *repair) refuse() error {
	return fmt.Errorf("home %s %w: the blocks that a reindex would start from are gone; `%s` lets the next start download the chain anew",
		r.home, ErrPruned, r.startOver())
}

func exists(fs vfs.FS, name string) (bool, error) {
	_, err := fs.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", name, err)
	}
	return true, nil
}

// makeMark makes a file in dir that holds text, durably, unless it is there.
func makeMark(fs vfs.FS, dir, name, text string) error {
	path := fs.PathJoin(dir, name)
	there, err := exists(fs, path)
	if err != nil {
		return err
	}
	if !there {
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		_, err = f.Write([]byte(text))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	// Also for one whose making was cut off before this.
	if err := syncDir(fs, dir); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// rebuildMarked says whether the rebuild mark is there. It must be of this chain;
// one that was cut off in the making says nothing, and nothing had been removed.
func (o *Options) rebuildMarked() (bool, error) {
	name := o.FS.PathJoin(o.Dir, rebuildMark)
	f, err := o.FS.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // only read
	text := make([]byte, 256)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	id, whole := strings.CutSuffix(string(text[:n]), "\n")
	switch {
	case !whole:
		return false, nil
	case id != o.ChainID:
		return false, fmt.Errorf("home %s %w: %q, not %q", o.Dir, ErrOtherChain, id, o.ChainID)
	}
	return true, nil
}

// removeMark removes what makeMark made, durably.
func removeMark(fs vfs.FS, dir, name string) error {
	path := fs.PathJoin(dir, name)
	if err := fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := syncDir(fs, dir); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// A prunePoint is the first file of each series that is kept.
type prunePoint struct {
	blocks, undo uint32
}

// Prune removes, once b is committed, the block files numbered below blocks and
// the undo files numbered below undo, whole. Every position in them must be
// cleared in the same batch. The files being written cannot be removed. A crash
// in between leaves files that the next Open removes.
func (b *Batch) Prune(blocks, undo uint32) {
	b.prune = &prunePoint{blocks, undo}
}

// preparePrune adds to b what makes its Prune hold.
func (s *Store) preparePrune(b *Batch) error {
	p := b.prune
	for _, f := range []struct {
		s     *series
		first uint32
	}{{s.blocks, p.blocks}, {s.undo, p.undo}} {
		from, at := f.s.kept(), f.s.next()
		if f.first > at.file {
			return fmt.Errorf("store: prune %s below file %d: file %d is being written", f.s.name, f.first, at.file)
		}
		if f.first <= from {
			continue
		}
		b.set(prunedKey(f.s.id), binary.LittleEndian.AppendUint32(nil, f.first))
		for file := from; file < f.first; file++ {
			b.keep(b.b.Delete(endKey(f.s.id, file), nil))
		}
	}
	b.set([]byte{prefixVersion}, binary.LittleEndian.AppendUint32(nil, formatPruned))
	// Before the first file is gone, and durable before the commit says so.
	return makeMark(s.o.FS, s.o.Dir, prunedMark, "")
}

// finishPrune removes the files that a commit has just given up. What cannot be
// removed now is removed by the next Open.
func (s *Store) finishPrune(p *prunePoint) {
	for _, f := range []struct {
		s     *series
		first uint32
	}{{s.blocks, p.blocks}, {s.undo, p.undo}} {
		if err := f.s.drop(f.first); err != nil {
			s.o.Logger.Warn("pruned files stay until the next start", "err", err)
		}
	}
	if p.blocks > 0 {
		s.repair.pruned.Store(true)
	}
}

// kept returns the first file that was not pruned.
func (s *series) kept() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// drop removes the files below first, the lowest first.
func (s *series) drop(first uint32) error {
	s.mu.Lock()
	from := s.first
	s.first = max(first, from)
	for file := range s.ends {
		if file < first {
			delete(s.ends, file)
		}
	}
	s.mu.Unlock()
	var errs []error
	for file := from; file < first; file++ {
		errs = append(errs, s.remove(file))
	}
	if from < first {
		errs = append(errs, syncDir(s.fs, s.dir))
	}
	return errors.Join(errs...)
}

// remove removes one file; one that is not there is no fault.
func (s *series) remove(file uint32) error {
	name := s.path(file)
	info, err := s.fs.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s/%s: %w", s.name, s.fileName(file), err)
	}
	if err := s.fs.Remove(name); err != nil {
		return fmt.Errorf("remove %s/%s: %w", s.name, s.fileName(file), err)
	}
	s.reads.forget(file) // an open file keeps its room on the disk
	s.mu.Lock()
	s.bytes -= info.Size()
	s.mu.Unlock()
	return nil
}

// sweep removes what a crash left of pruned files.
func (s *series) sweep(sizes map[uint32]int64) error {
	first := s.kept()
	for file := range sizes {
		if file >= first {
			continue
		}
		if err := s.remove(file); err != nil {
			return err
		}
		delete(sizes, file)
	}
	return nil
}

// Kept returns the numbers of the first block file and of the first undo file that
// were not pruned.
func (s *Store) Kept() (blocks, undo uint32) { return s.blocks.kept(), s.undo.kept() }

// Files returns, for each file of the blocks and of the undo data, its size in
// bytes, by its number. The one with the highest number is being written.
func (s *Store) Files() (blocks, undo map[uint32]int64, err error) {
	if err := s.enter(); err != nil {
		return nil, nil, err
	}
	defer s.users.Done()
	if blocks, err = s.blocks.files(); err != nil {
		return nil, nil, err
	}
	undo, err = s.undo.files()
	return blocks, undo, err
}

// files returns the sizes of the files that were not pruned, up to the one being
// written, which is there even if it is empty.
func (s *series) files() (map[uint32]int64, error) {
	s.mu.Lock()
	first, at := s.first, s.at
	s.mu.Unlock()
	sizes := map[uint32]int64{at.file: int64(at.end)}
	for file := first; file < at.file; file++ {
		info, err := s.fs.Stat(s.path(file))
		if errors.Is(err, os.ErrNotExist) {
			continue // lost, which is said where it is read
		}
		if err != nil {
			return nil, fmt.Errorf("stat %s/%s: %w", s.name, s.fileName(file), err)
		}
		sizes[file] = info.Size()
	}
	return sizes, nil
}

// Rebuilding says that this Open made the index anew beside block files that
// were there before. It stays true until the store is closed.
func (s *Store) Rebuilding() bool { return s.rebuilding }

// Filling says whether a rebuilt index lacks what Filled has not been told of.
func (s *Store) Filling() bool { return s.repair.again.Load() }

// beginFilling renames the mark of a rebuild whose index has a tip now.
func (s *Store) beginFilling() error {
	fs, dir := s.o.FS, s.o.Dir
	if err := fs.Rename(fs.PathJoin(dir, rebuildMark), fs.PathJoin(dir, fillMark)); err != nil {
		return fmt.Errorf("rename %s: %w", rebuildMark, err)
	}
	if err := syncDir(fs, dir); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	s.repair.again.Store(true)
	return nil
}

// Filled says that a rebuilt index is complete. It belongs to the goroutine that
// commits.
func (s *Store) Filled() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	if err := removeMark(s.o.FS, s.o.Dir, fillMark); err != nil {
		return err
	}
	s.repair.again.Store(false)
	return nil
}

// Filling says whether the home in dir has a rebuilt index that is not complete: a
// reindex that was cut off and may go on.
func Filling(fs vfs.FS, dir string) (bool, error) {
	return exists(fs, fs.PathJoin(dir, fillMark))
}

// Mend returns the command that repairs damage of this home.
func (s *Store) Mend() string { return s.repair.mend() }

// ScanUndo is Scan for the undo files.
func (s *Store) ScanUndo(f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	return s.scan(s.undo, f, damaged)
}
