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

// hideInput makes a terminal not show what is typed, until the function that it returns is called.
func hideInput(f *os.File) (show func(), err error) {
	old, err := unix.IoctlGetTermios(int(f.Fd()), readTermios)
	if err != nil {
		return nil, err
	}
	quiet := *old
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(f.Fd()), writeTermios, &quiet); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), writeTermios, old) }, nil
}
