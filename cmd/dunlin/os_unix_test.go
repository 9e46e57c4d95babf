//go:build unix

package main

import (
	"os"
	"syscall"
)

// freeze stops a process in the middle of what it does, and thaw lets it go on.
func freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }
func thaw(p *os.Process) error   { return p.Signal(syscall.SIGCONT) }

// ownGroup lets a process that is to be started have a group of its own.
func ownGroup(a *syscall.SysProcAttr) { a.Setpgid = true }

// signalGroup gives a signal to a process and those of its group.
func signalGroup(p *os.Process, s syscall.Signal) error { return syscall.Kill(-p.Pid, s) }

// lockFile waits until this process alone has f.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }
