package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts this test binary on PATH as dunlin, so that every test here runs
// the real program as real processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dunlin": func() {
		os.Exit(run(untilSignal(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}
