//go:build !linux

package testnet

import "syscall"

// attributes has nothing portable to ask for.
func attributes() *syscall.SysProcAttr { return nil }
