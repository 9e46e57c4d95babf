package store

import (
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An indexFS is the file system as Pebble sees it. It adds two things that
// Pebble lacks:
//
// The folder is synced before a marker file is made in it. A marker names the
// manifest to use; on a file system that does not keep the order of folder
// entries a power cut could otherwise keep the marker and lose the manifest.
//
// The first failed write is final (see index.fail). While the database is being
// opened it does not even return: Pebble would clean up and leave goroutines
// behind that use what was cleaned up, and crash the process.
type indexFS struct {
	vfs.FS
	x      *index
	opened atomic.Bool
}

// check passes err on, if the write that it is of was not the first to fail
// while opening.
func (fs *indexFS) check(err error) error {
	if err == nil {
		return nil
	}
	fs.x.fail(err)
	if !fs.opened.Load() {
		select {} // until the process ends; index.guard has woken its caller
	}
	return err
}

func (fs *indexFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, fs.check(err)
	}
	return &indexFile{f, fs}, nil
}

func (fs *indexFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(fs.PathBase(name), "marker.") {
		if err := syncDir(fs.FS, fs.PathDir(name)); err != nil {
			return nil, fs.check(err)
		}
	}
	return fs.file(fs.FS.Create(name, c))
}

func (fs *indexFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.file(fs.FS.OpenReadWrite(name, c, o...))
}

func (fs *indexFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.file(fs.FS.ReuseForWrite(old, name, c))
}

func (fs *indexFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &indexFile{f, fs}, nil
}

func (fs *indexFS) Link(old, name string) error   { return fs.check(fs.FS.Link(old, name)) }
func (fs *indexFS) Rename(old, name string) error { return fs.check(fs.FS.Rename(old, name)) }

// Unwrap returns the file system below.
func (fs *indexFS) Unwrap() vfs.FS { return fs.FS }

// An indexFile is a file that Pebble writes.
type indexFile struct {
	vfs.File
	fs *indexFS
}

func (f *indexFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.fs.check(err)
}

func (f *indexFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	return n, f.fs.check(err)
}

func (f *indexFile) Sync() error     { return f.fs.check(f.File.Sync()) }
func (f *indexFile) SyncData() error { return f.fs.check(f.File.SyncData()) }

func (f *indexFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, f.fs.check(err)
}
