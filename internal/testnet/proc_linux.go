package testnet

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// attributes puts a daemon into a process group of its own, so that Ctrl-C reaches the one who stops them in order.
// One that is not detached is ended when the process that started it is killed.
func attributes(detached bool) *syscall.SysProcAttr {
	if detached {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// stat returns the state of a process and when it started, in ticks since the machine did.
func stat(pid int) (state, ticks string) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", ""
	}
	// The second field, a name in brackets, may hold anything.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	const start = 19 // field 22 of proc(5)
	if len(fields) <= start {
		return "", ""
	}
	return string(fields[0]), string(fields[start])
}

// startOf says when a process started, in words that are good for comparing only; "" if there is none, or it has
// ended and waits for its parent to look.
func startOf(pid int) string {
	state, ticks := stat(pid)
	if ticks == "" || state == "Z" || state == "X" {
		return ""
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it: two boots may be taken for one
	return strings.TrimSpace(string(boot)) + " " + ticks
}

// suspended says whether a process is stopped by a signal.
func suspended(pid int) bool {
	state, _ := stat(pid)
	return state == "T"
}

// memoryBytes is what the machine has, and what of it is free to be taken; 0 unknown.
func memoryBytes() (total, free int64) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		var kib int64
		switch {
		case strings.HasPrefix(line, "MemTotal:"):
			_, _ = fmt.Sscanf(line, "MemTotal: %d kB", &kib)
			total = kib << 10
		case strings.HasPrefix(line, "MemAvailable:"):
			_, _ = fmt.Sscanf(line, "MemAvailable: %d kB", &kib)
			free = kib << 10
		}
	}
	return total, free
}
