//go:build !linux

package main

import (
	"errors"
	"syscall"
)

// endsWithParent is for systems that cannot tell a process that its parent has ended: a daemon of a test that was killed has to be ended by hand.
func endsWithParent(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// Tests that mount a file system of their own do so on Linux alone.
func mountSmall(string, string) error { return errors.ErrUnsupported }
func mountReadOnly(string) error      { return errors.ErrUnsupported }
func unmount(string) error            { return errors.ErrUnsupported }
