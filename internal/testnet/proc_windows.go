package testnet

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

func attributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// startOf says when a process started, in words that are good for comparing only; "" if there is none.
func startOf(pid int) string {
	h, err := syscall.OpenProcess(syscall.PROCESS_QUERY_INFORMATION, false, uint32(pid))
	if err != nil {
		return ""
	}
	defer func() { _ = syscall.CloseHandle(h) }()
	var created, exited, kernel, user syscall.Filetime
	var code uint32
	const stillActive = 259
	if syscall.GetProcessTimes(h, &created, &exited, &kernel, &user) != nil ||
		syscall.GetExitCodeProcess(h, &code) != nil || code != stillActive {
		return ""
	}
	return strconv.FormatInt(created.Nanoseconds(), 10)
}

func suspended(int) bool { return false }

func suspend(int) error { return errors.ErrUnsupported }
func resume(int) error  { return nil }

// terminate is kill: there is no signal that asks, and any kill is a normal end.
func terminate(pid int) error { return kill(pid) }

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

func memoryBytes() (total, free int64) { return 0, 0 }
