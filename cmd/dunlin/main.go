// Command dunlin is a peer-to-peer blockchain node: the daemon, the tools that
// talk to it and the ones that work on its home.
//
// One file holds one subcommand. This file alone ends the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// GOGC overrules these. Measured in docs/benchmarks.md.
const (
	// gcPercent lets the heap grow to three times what is alive before it is collected, in place of twice: caches make
	// up most of it, and a sync that checks no scripts is a sixth faster.
	gcPercent = 200
	// tipPercent is for a node that is in sync and has little to do: what it holds alive, and what that grows
	// by, takes twice its size and not three times.
	tipPercent = 100
)

// tuneGC is what a node tells whether it catches up; nil where GOGC says how memory is collected.
func tuneGC() func(catchesUp bool) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return func(catchesUp bool) {
		if catchesUp {
			debug.SetGCPercent(gcPercent)
		} else {
			debug.SetGCPercent(tipPercent)
		}
	}
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(untilSignal(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// untilSignal returns a context that ends with the first signal, which asks for
// an orderly end: Ctrl-C, SIGTERM, or a terminal that was closed. The next one
// ends the process at once, which is safe: any kill is a normal shutdown.
func untilSignal() context.Context {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup wants it ignored
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop)
	return ctx
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitCode(stderr, interrupted(ctx, root.ExecuteContext(ctx)))
}

// interrupted is err in words for people if all it says is that ctx ended.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	if err.Error() == context.Canceled.Error() {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	return fmt.Errorf("interrupted: %w", err)
}
