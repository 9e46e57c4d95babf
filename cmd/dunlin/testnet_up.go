package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
	"dunlin/internal/testnet"
)

// testnetDir is where the commands of a testnet look if they are not told.
const testnetDir = "testnet"

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", testnetDir, "folder of the testnet")
}

// openTestnet opens the testnet in a folder.
func openTestnet(dir string) (*testnet.Spec, error) {
	s, err := testnet.Open(dir)
	if errors.Is(err, testnet.ErrNone) {
		return nil, command.Exit(exitUnreachable, err)
	}
	return s, err
}

func testnetFault(err error) error {
	if errors.Is(err, testnet.ErrOptions) {
		return usage(err)
	}
	return err
}

func newTestnetUp() *cobra.Command {
	var o testnet.UpOptions
	var supervisor bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a testnet in a folder",
		Long: `up starts nodes on loopback, each a real process with a home, ports and a log of its own in the folder, linked as the
topology says and in no other way. It shows a table of what they do until Ctrl-C, which ends them all; with --detach it
returns when all have started, and down ends them. It records what the nodes do for the report, and starts no node again
by itself: that is what chaos does. A folder that holds a testnet that is down goes on with its chain.`,
		Example: `  dunlin testnet up -n 5 --topology ring --miners 2 --txs 5 --dir /tmp/net --detach
  dunlin testnet chaos --dir /tmp/net --seed 1 --for 5m
  dunlin testnet report --dir /tmp/net
  dunlin testnet down --dir /tmp/net`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("where this program lies: %w", err)
			}
			o.Program = program
			if !o.Detached || supervisor {
				o.Locked = supervisor
				o.Out = cmd.OutOrStdout()
				if f, ok := o.Out.(*os.File); ok && isTerminal(f) {
					o.Size = func() (int, int) { return terminalSize(f) }
				}
				return testnetFault(testnet.Up(cmd.Context(), o))
			}
			s, err := testnet.UpDetached(cmd.Context(), o, supervisorArgs(&o))
			if err != nil {
				return testnetFault(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d nodes run in %s; dunlin testnet down --dir %s ends them\n", len(s.Nodes), o.Dir, o.Dir)
			return nil
		},
	}
	f := cmd.Flags()
	dirFlag(cmd, &o.Dir)
	f.IntVarP(&o.Nodes, "nodes", "n", 5, fmt.Sprintf("nodes, %d to %d", testnet.MinNodes, testnet.MaxNodes))
	f.StringVar(&o.Engine, "engine", "pow", "what makes blocks: "+strings.Join(testnet.Engines, ", "))
	f.StringVar(&o.Topology, "topology", "ring", "links of the nodes: "+strings.Join(testnet.Topologies, ", "))
	f.IntVar(&o.Miners, "miners", 1, "nodes that make blocks, the first ones; with pos the stake is theirs")
	f.Float64Var(&o.TxRate, "txs", 0, fmt.Sprintf("transactions to send a second, all together, up to %v", testnet.MaxTxRate))
	f.DurationVar(&o.Spacing, "spacing", 0, "time between blocks, whole seconds, with pos a multiple of 4s (default 2s, with pos 8s)")
	f.Uint64Var(&o.Seed, "seed", 1, "of the random topology")
	f.DurationVar(&o.For, "for", 0, "end by itself after this time (default: never)")
	f.BoolVar(&o.Detached, "detach", false, "return when all nodes have started; they outlive the terminal")
	f.BoolVar(&supervisor, "supervisor", false, "be the process that looks after a detached testnet")
	_ = f.MarkHidden("supervisor") // it is there
	return cmd
}

// supervisorArgs are those of the process that a detached testnet is looked after by.
func supervisorArgs(o *testnet.UpOptions) []string {
	return []string{
		"testnet", "up", "--detach", "--supervisor", "--dir", o.Dir, "--nodes", fmt.Sprint(o.Nodes), "--engine", o.Engine, "--topology", o.Topology,
		"--miners", fmt.Sprint(o.Miners), "--txs", fmt.Sprint(o.TxRate), "--spacing", o.Spacing.String(), "--seed", fmt.Sprint(o.Seed), "--for", o.For.String(),
	}
}

func newTestnetDown() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a testnet",
		Long: `down ends the supervisor of a testnet and every node of it that runs, suspended ones too. Homes, logs and samples
stay. A process that merely has the number of one that has ended is left alone.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := openTestnet(dir)
			if err != nil {
				return err
			}
			n, err := testnet.Down(cmd.Context(), s)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d nodes ended; homes and logs stay in %s\n", n, dir)
			return nil
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}

func newTestnetStatus(g *global) *cobra.Command {
	var dir string
	var w watch
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What the nodes of a testnet do",
		Long: `status asks every node of a testnet: height, tip, peers, how many blocks it lags behind the highest, memory. It needs
no supervisor.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return err
			}
			s, err := openTestnet(dir)
			if err != nil {
				return err
			}
			watcher := testnet.NewWatcher(s)
			look := func(ctx context.Context) (any, error) {
				status := watcher.Look(ctx, true)
				status.Sender = s.SenderStatus(ctx)
				return &status, nil
			}
			table := func(out io.Writer, v any) {
				status := v.(*testnet.Status)
				fmt.Fprintf(out, "%s\n%s\n", strings.Join(status.Table(), "\n"), status.Summary())
				if status.Supervisor == 0 {
					fmt.Fprintln(out, "its supervisor is gone: nothing is recorded, no transactions are sent")
				}
			}
			return w.run(g, cmd, look, table, func(v any) []string { return []string{v.(*testnet.Status).Summary()} })
		},
	}
	dirFlag(cmd, &dir)
	w.flags(cmd)
	return cmd
}

func newTestnetChaos(g *global) *cobra.Command {
	var dir string
	var dry bool
	o := testnet.ChaosOptions{}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Kill, suspend, cut off and mislead the nodes of a testnet, and judge",
		Long: `chaos does to a testnet that is up what a seed says, and prints it: kill (-9, and started again), stop (SIGSTOP and
SIGCONT), partition (some nodes and the others ban one another), churn (ended in order, and started again), skew (a clock
that is set off by up to 90 s). The same seed gives the same schedule. Meanwhile a block is made every few seconds by a node that
acknowledges it. Then everything is undone, and it judges: all nodes must agree on one tip and on every block before it, no
acknowledged block or transaction may be lost, memory, goroutines and open files must not have grown, and no restart may
have taken 3 s. The last fifth of the nodes keep their processes, so that what leaks has time to show.`,
		Example: `  dunlin testnet chaos --dir /tmp/net --seed 1 --for 5m --every 5s
  dunlin testnet chaos --dir /tmp/net --kinds kill,partition --dry-run`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := openTestnet(dir)
			if err != nil {
				return err
			}
			if dry {
				events, err := o.Schedule(len(s.Nodes))
				if err != nil {
					return testnetFault(err)
				}
				return g.print(cmd, events, func(out io.Writer) {
					for _, e := range events {
						fmt.Fprintf(out, "%8.1fs  %v\n", e.At.Seconds(), e)
					}
				})
			}
			if o.Out = cmd.OutOrStdout(); g.output != "table" {
				o.Out = cmd.ErrOrStderr()
			}
			v, err := testnet.Chaos(cmd.Context(), s, o)
			if err != nil {
				return testnetFault(err)
			}
			if err := g.print(cmd, v, func(out io.Writer) { fmt.Fprintf(out, "\n%s\n", strings.Join(v.Lines(), "\n")) }); err != nil {
				return err
			}
			if len(v.Faults) > 0 {
				return fmt.Errorf("chaos at seed %d: %d faults", v.Seed, len(v.Faults))
			}
			return nil
		},
	}
	dirFlag(cmd, &dir)
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 1, "of the schedule")
	f.DurationVar(&o.For, "for", time.Minute, "how long, 5s to 24h")
	f.DurationVar(&o.Every, "every", 5*time.Second, "from one event to the next, 200ms to 1h")
	f.StringSliceVar(&o.Kinds, "kinds", testnet.Kinds, "what is done")
	f.DurationVar(&o.MaxRestart, "max-restart", testnet.MaxRestart, "what a node may take to answer after it was started")
	f.BoolVar(&dry, "dry-run", false, "print the schedule and do nothing")
	return cmd
}

func newTestnetReport() *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Draw what a testnet did as a page",
		Long: `report writes one HTML page that needs nothing else, with charts of heights, of how blocks went through the nodes, of
peers, mempools, memory, goroutines and open files over time, and of what chaos did. The testnet may be up or down.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := openTestnet(dir)
			if err != nil {
				return err
			}
			path, err := testnet.WriteReport(s, out)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), path)
			return nil
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: "+testnet.ReportFile+" in the folder of the testnet)")
	return cmd
}
