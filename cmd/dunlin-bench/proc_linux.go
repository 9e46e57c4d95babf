package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
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

// terminateGroup asks a process of attributes and all of its group to end.
func terminateGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGTERM) }

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

// watchFor is how long processorsAtWork looks.
const watchFor = 3 * time.Second

// processorsAtWork is how many processors did something over the next seconds, whoever it was for.
func processorsAtWork(ctx context.Context) (float64, error) {
	before, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(watchFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return busyBetween(string(before), string(after), runtime.NumCPU()), nil
}

// busyBetween takes two states of /proc/stat: how many of the processors were at work in between.
func busyBetween(before, after string, processors int) float64 {
	times := func(stat string) (busy, all float64) {
		first, _, _ := strings.Cut(stat, "\n")
		const idle, ioWait, guest = 3, 4, 8 // of proc(5): what guests had is in user's time already
		for i, field := range strings.Fields(strings.TrimPrefix(first, "cpu ")) {
			ticks, err := strconv.ParseFloat(field, 64)
			if err != nil || i >= guest {
				break
			}
			if all += ticks; i != idle && i != ioWait {
				busy += ticks
			}
		}
		return busy, all
	}
	busy0, all0 := times(before)
	busy1, all1 := times(after)
	if all1 <= all0 {
		return 0
	}
	return (busy1 - busy0) / (all1 - all0) * float64(processors)
}
