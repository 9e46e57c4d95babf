package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts this test binary on PATH as dunlin, so that every test here runs
// the real program as real processes.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		// Under -race every process sleeps a second before it ends, and these tests
		// start hundreds. Best effort: without it they are slow, not wrong.
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	testscript.Main(m, map[string]func(){"dunlin": func() {
		os.Exit(run(untilSignal(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}})
}
