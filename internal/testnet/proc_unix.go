//go:build unix

package testnet

import "syscall"

func suspend(pid int) error   { return syscall.Kill(pid, syscall.SIGSTOP) }
func resume(pid int) error    { return syscall.Kill(pid, syscall.SIGCONT) }
func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }
func kill(pid int) error      { return syscall.Kill(pid, syscall.SIGKILL) }
