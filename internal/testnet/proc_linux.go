package testnet

import "syscall"

// attributes puts a daemon into a process group of its own, so that Ctrl-C
// reaches the one who stops them in order, and ends it if that one is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
