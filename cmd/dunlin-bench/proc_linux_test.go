package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestInterruptedWithAllItStarted: what a program has started ends with it, when the command is interrupted.
func TestInterruptedWithAllItStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- runToEnd(ctx, io.Discard, "sh", "-c", `sleep 3600 & echo $! >"$0.new"; mv "$0.new" "$0"; wait`, file)
	}()
	poll := func(what string, is func() bool) {
		t.Helper()
		deadline := time.Now().Add(2 * time.Minute)
		for range time.Tick(time.Millisecond) {
			if is() {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("not so: " + what)
			}
		}
	}
	var pid int
	poll("it has started another", func() bool {
		raw, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		if pid, err = strconv.Atoi(strings.TrimSpace(string(raw))); err != nil {
			t.Fatal(err)
		}
		return true
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	poll("the other has ended", func() bool {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return true
		}
		_, state, _ := bytes.Cut(raw, []byte(") "))
		return !bytes.HasPrefix(raw, []byte(strconv.Itoa(pid)+" (sleep)")) || bytes.HasPrefix(state, []byte("Z")) // where nobody takes orphans
	})
}

// TestBusyBetween reads two states of /proc/stat.
func TestBusyBetween(t *testing.T) {
	const before = "cpu  1000 0 200 5000 100 0 0 0 50 0\ncpu0 1 2 3"
	for after, want := range map[string]float64{
		"cpu  1150 0 250 5700 100 0 0 100 900 0\n": 0.6, // 300 of 1,000 ticks of two processors
		"cpu  1000 0 200 5900 200 0 0 0 50 0\n":    0,
		before:                                     0, "": 0,
	} {
		if got := busyBetween(before, after, 2); got != want {
			t.Errorf("%q: %v, want %v", after, got, want)
		}
	}
}
