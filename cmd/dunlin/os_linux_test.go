package main

import (
	"errors"
	"syscall"
)

// endsWithParent lets a process get the signal when this one ends, however it does: no daemon outlives a test that was killed.
func endsWithParent(s syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: s} }

// mountSmall puts a file system in memory at dir, of a size such as 32m. It needs root.
func mountSmall(dir, size string) error { return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size) }

// mountReadOnly lets dir be read only, for root too. It needs root.
func mountReadOnly(dir string) error {
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return errors.Join(err, unmount(dir))
	}
	return nil
}

// unmount ends what the other two did.
func unmount(dir string) error { return syscall.Unmount(dir, 0) }
