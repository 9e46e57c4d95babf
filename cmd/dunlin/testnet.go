package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/testnet"
)

func newTestnet(g *global) *cobra.Command {
	var o testnet.Options
	cmd := &cobra.Command{
		Use:   "testnet",
		Short: "Run a network of daemons on this machine and watch it",
		Long: `testnet starts daemons on loopback as real processes, lets one mine and one join late, and shows a table of what they
do until Ctrl-C. Each daemon's log is a file in its folder. This is for looking on; up makes a testnet that other commands work on.`,
		Args: onlyChildren,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("where this program lies: %w", err)
			}
			o.Keep = o.Dir != ""
			o.Program, o.Out = program, cmd.OutOrStdout()
			if f, ok := o.Out.(*os.File); ok && isTerminal(f) {
				o.Size = func() (int, int) { return terminalSize(f) }
			}
			if err := testnet.Run(cmd.Context(), o); errors.Is(err, testnet.ErrOptions) {
				return usage(err)
			} else if err != nil {
				return err
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.Nodes, "nodes", "n", 5, "daemons at the start, 2 to 20")
	f.DurationVar(&o.Late, "late", 20*time.Second, "when one more joins with a single bootstrap address; negative: never")
	f.DurationVar(&o.Spacing, "spacing", 2*time.Second, "time between blocks, whole seconds")
	f.StringVar(&o.Dir, "dir", "", "folder for homes and logs, which stays (default: a temporary one, removed at the end)")
	f.DurationVar(&o.For, "for", 0, "end by itself after this time (default: at Ctrl-C)")
	cmd.AddCommand(newTestnetUp(), newTestnetDown(), newTestnetStatus(g), newTestnetChaos(g), newTestnetReport())
	return cmd
}
