// Command dunlin-bench measures dunlin as its users meet it: real processes on
// this machine, timed from outside through the interfaces that everybody has, and
// where there is something to compare with, in turns with it on the same blocks;
// and what needs more nodes or slower links than a machine has, with the real stack
// in virtual time (simulate.go).
//
// One file holds one subcommand; what they share is the processes (procs.go), the
// two systems under test (dunlin.go, btcd.go), the throttling proxy (proxy.go) and
// the report (report.go). It is a tool of developers, not a part of the node, and it
// judges nothing but figures.
//
// Invariant: when a command ends, however it does, no process that it started is
// running and its working folder is gone, unless --keep asked for it to stay.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

// exitBarred is the exit code of --check when a bar is not met; the others are those of all our programs.
const exitBarred = 3

func main() { os.Exit(execute()) }

// execute runs the command line of this process.
func execute() int {
	// The first signal ends the run in order: processes are stopped, folders removed.
	// The next one ends this process at once; its children have asked the system to
	// be ended with it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, newRoot(), args, stdout, stderr)
}

func newRoot() *cobra.Command {
	return command.Tool(&cobra.Command{
		Use:   "dunlin-bench",
		Short: "Measure dunlin, in turns with other nodes",
		Long: `dunlin-bench starts real daemons on this machine and measures them from outside,
and simulates networks of the real stack in virtual time.

  dunlin-bench chains --dir DIR    make the chains that are measured with, and btcd
  dunlin-bench ibd --btcd DIR      initial block download, in turns with btcd
  dunlin-bench stake               the same of chains of stake, in turns with chains of work
  dunlin-bench discovery           how fast a network finds itself, in virtual time
  dunlin-bench flood               how long a new block takes to every node, in virtual time
  dunlin-bench flood --daemons 20  the same between real daemons on this machine
  dunlin-bench api --chain FILE    the HTTP interface under load while a node syncs
  dunlin-bench all                 all of it and more, into docs/benchmarks.md

Exit codes: 0 measured, 1 error, 2 wrong usage, 3 with --check: a bar is not met.`,
	}, newAll(), newChains(), newIBD(), newStakeBench(), newDiscovery(), newFlood(), newAPI(), newSimulate())
}
