//go:build !unix

package main

import (
	"errors"
	"os"
)

// terminalSize is the smallest size that is usual.
func terminalSize(*os.File) (columns, rows int) { return 80, 24 }

// hideInput is not known on this system.
func hideInput(*os.File) (show func(), err error) {
	return nil, errors.New("this system's terminals cannot hide what is typed: use --passphrase-file")
}
