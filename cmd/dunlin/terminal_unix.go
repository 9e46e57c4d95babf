//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminalSize asks a terminal how large it is; one that does not say is taken
// for the smallest that is usual.
func terminalSize(f *os.File) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}
