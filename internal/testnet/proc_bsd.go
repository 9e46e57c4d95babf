//go:build unix && !linux

package testnet

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes puts a daemon into a process group of its own. There is nothing portable that would end it with the one
// who started it.
func attributes(detached bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: !detached, Setsid: detached}
}

// ps returns the state of a process and when it started.
func ps(pid int) (state, started string) {
	out, err := exec.Command("ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output() //nolint:noctx // it ends by itself
	if err != nil {
		return "", ""
	}
	state, started, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return state, strings.TrimSpace(started)
}

// startOf says when a process started, in words that are good for comparing only; "" if there is none, or it has
// ended and waits for its parent to look.
func startOf(pid int) string {
	state, started := ps(pid)
	if strings.HasPrefix(state, "Z") {
		return ""
	}
	return started
}

// suspended says whether a process is stopped by a signal.
func suspended(pid int) bool {
	state, _ := ps(pid)
	return strings.HasPrefix(state, "T")
}

func memoryBytes() (total, free int64) { return 0, 0 }
