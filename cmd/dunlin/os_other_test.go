//go:build !linux

package main

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// endsWithParent is for systems that cannot tell a process that its parent has ended: a daemon of a test that was killed has to be ended by hand.
func endsWithParent(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// Tests that mount a file system of their own do so on Linux alone.
func mountSmall(string, string) error { return errors.ErrUnsupported }
func mountReadOnly(string) error      { return errors.ErrUnsupported }
func unmount(string) error            { return errors.ErrUnsupported }

// openPTY is for Linux, too: a test that types fails here and says so.
func openPTY(t *testing.T) (program, user *os.File) {
	t.Helper()
	t.Fatal("terminals of this system's kind are not known to the tests")
	return nil, nil
}
