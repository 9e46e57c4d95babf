package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// An interrupting reader ends the command that reads it, and goes on for ever.
type interrupting struct{ stop func() }

func (r interrupting) Read(p []byte) (int, error) {
	r.stop()
	clear(p)
	return len(p), nil
}

// TestInterrupted: whoever ends a command that works on a home is told what that means, not that a context was cancelled.
func TestInterrupted(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := func() { cancel(errors.New("terminated signal received")) }
	var stderr bytes.Buffer
	code := run(ctx, []string{"chain", "import", "--home", home, "--network", "regtest", "-"}, interrupting{stop}, io.Discard, &stderr)
	if said := stderr.String(); code != exitError || !strings.HasSuffix(said, "dunlin: -: terminated signal received at height 0: run it again, what is there is passed over\n") {
		t.Errorf("import: exit code %d, %q", code, said)
	}
	stderr.Reset()
	code = run(ctx, []string{"chain", "verify", "--home", home}, nil, io.Discard, &stderr)
	if said := stderr.String(); code != exitError || said != "dunlin: interrupted: terminated signal received\n" {
		t.Errorf("verify: exit code %d, %q", code, said)
	}
}
