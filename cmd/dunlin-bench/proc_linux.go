package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attributes puts a process into a group of its own, so that Ctrl-C reaches the
// one who stops them in order, and ends it if that one is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func suspend(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }

func resume(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }

// usageOf returns the CPU time that a process used so far and the most memory
// that it had resident, as /proc tells; zero for what cannot be read.
func usageOf(pid int) (cpu time.Duration, peakBytes int64) {
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The second field, a name in brackets, may hold anything.
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		const userTime, systemTime, ticksPerSecond = 11, 12, 100 // fields 14 and 15 of proc(5); USER_HZ
		if len(fields) > systemTime {
			for _, f := range fields[userTime : systemTime+1] {
				n, _ := strconv.ParseInt(string(f), 10, 64)
				cpu += time.Duration(n) * time.Second / ticksPerSecond
			}
		}
	}
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				peakBytes = n << 10
			}
		}
	}
	return cpu, peakBytes
}

// peakOf is the most memory that a process which has ended had resident.
func peakOf(p *os.ProcessState) int64 {
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}

// machine describes where the figures come from.
func describeMachine() (model string, memoryBytes int64) {
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				memoryBytes = n << 10
			}
		}
	}
	return model, memoryBytes
}

// load is how many processes wanted to run over the last minute.
func load() float64 {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), " ")
	l, _ := strconv.ParseFloat(first, 64)
	return l
}
