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
	d := startDaemon(t, "unit", "--network", "regtest")
	read := func() string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
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
