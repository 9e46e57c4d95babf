package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestE2ESystemd: a node that systemd starts says when it is there, how it is, that it
// lives, and that it stops.
func TestE2ESystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", fmt.Sprint((500 * time.Millisecond).Microseconds()))
	// The messages are taken at once, as systemd does: the socket has room for ten, and who
	// writes the next one waits.
	messages := make(chan string, 10_000)
	go func() {
		defer close(messages)
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return // closed
			}
			messages <- string(b[:n])
		}
	}()
	read := func() string {
		t.Helper()
		select {
		case m := <-messages:
			return m
		case <-time.After(patience):
			t.Fatal("no message")
			return ""
		}
	}
	d := startDaemon(t, "unit", "--network", "regtest")
	if got := read(); !strings.HasPrefix(got, "READY=1\nSTATUS=") || !strings.Contains(got, "height 0, 0 peers") {
		t.Errorf("first: %q", got)
	}
	for range 2 {
		if got := read(); !strings.HasPrefix(got, "STATUS=") || !strings.HasSuffix(got, "\nWATCHDOG=1") {
			t.Errorf("then: %q", got)
		}
	}
	d.stop()
	for got := read(); !strings.HasPrefix(got, "STOPPING=1\n"); got = read() {
		if !strings.HasSuffix(got, "WATCHDOG=1") {
			t.Errorf("at the end: %q", got)
		}
	}
}
