package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openPTY makes a terminal of 70 columns: what a program sees, and what its user does.
func openPTY(t *testing.T) (program, user *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 70}); err != nil {
		t.Fatal(err)
	}
	return program, user
}

// TestE2EWatch: on a terminal, what is watched is drawn anew in place, cut at the terminal's width, and Ctrl-C is no error.
func TestE2EWatch(t *testing.T) {
	t.Parallel()
	a := startDaemon(t, "a", "--network", "regtest")
	startDaemon(t, "b", "--network", "regtest", "--bootstrap", a.addr())
	for _, tt := range []struct{ command, shows string }{{"status", "synced"}, {"peers", "/ip4/127.0"}} {
		program, user := openPTY(t)
		w := startWatch(t, program, user, tt.command, "--watch", "--interval", "100ms", "--home", a.home)
		_ = program.Close()
		w.shows(tt.shows)
		w.interrupt()
		w.ends(exitOK)
		drawn := w.out.String()
		if !strings.HasPrefix(drawn, "\x1b[H\x1b[2J") || !strings.Contains(drawn, "\x1b[K\r\n") {
			t.Errorf("%s: not drawn in place: %q", tt.command, drawn)
		}
		for line := range strings.SplitSeq(drawn, "\r\n") {
			for _, code := range []string{"\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"} {
				line = strings.ReplaceAll(line, code, "")
			}
			if n := len([]rune(line)); n > 70 {
				t.Errorf("%s: a line of %d columns: %q", tt.command, n, line)
			}
		}
	}
}
