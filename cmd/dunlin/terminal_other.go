//go:build !unix

package main

import "os"

// terminalSize is the smallest size that is usual.
func terminalSize(*os.File) (columns, rows int) { return 80, 24 }
