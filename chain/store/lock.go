package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	lockName = "LOCK"
	// pidName is a second file because a locked one must stay empty and must
	// not be opened: closing any descriptor of it would release the lock.
	pidName = "LOCK.pid"
)

// A homeLock is the exclusive lock of a home. The kernel releases it when the
// process dies, however it dies.
type homeLock struct {
	fs  vfs.FS
	c   io.Closer
	pid string
}

// lockHome takes the lock of dir or says who holds it.
func lockHome(fs vfs.FS, dir string) (*homeLock, error) {
	pid := fs.PathJoin(dir, pidName)
	c, err := fs.Lock(fs.PathJoin(dir, lockName))
	if err != nil {
		if !heldByOther(err) {
			return nil, fmt.Errorf("lock home %s: %w", dir, err)
		}
		if n := readPID(fs, pid); n > 0 {
			return nil, fmt.Errorf("home %s %w (pid %d)", dir, ErrLocked, n)
		}
		return nil, fmt.Errorf("home %s %w", dir, ErrLocked)
	}
	l := &homeLock{fs: fs, c: c, pid: pid}
	if err := l.writePID(); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", pid, err), c.Close())
	}
	return l, nil
}

// LockHome takes the exclusive lock of a home whose database is not opened, until Close: for commands that work on the other
// files of a stopped home. It returns [ErrLocked] if a node runs there. The folder must exist.
func LockHome(dir string) (io.Closer, error) { return lockHome(vfs.Default, dir) }

// heldByOther tells a held lock from a lock file that cannot be made: the
// former comes as a bare errno or, within one process, as Pebble's own words.
func heldByOther(err error) bool {
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return false
	}
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) ||
		strings.Contains(err.Error(), "lock held by current process")
}

func (l *homeLock) writePID() error {
	f, err := l.fs.Create(l.pid, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(strconv.Itoa(os.Getpid()) + "\n"))
	return errors.Join(err, f.Close())
}

// readPID returns 0 if the file does not say.
func readPID(fs vfs.FS, name string) int {
	f, err := fs.Open(name)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // only read
	buf := make([]byte, 20)
	n, _ := io.ReadFull(f, buf)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// Close releases the lock. The pid file goes first: afterwards it may be the
// next holder's.
func (l *homeLock) Close() error {
	err := l.fs.Remove(l.pid)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.c.Close())
}
