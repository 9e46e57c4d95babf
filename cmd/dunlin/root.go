package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dunlin/config"
)

// Exit codes, part of the interface.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotReady    = 3
	exitUnreachable = 4
)

// codedError is an error with the exit code that it leads to.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usage(err error) error { return &codedError{exitUsage, err} }

// exitCode prints err, if any, and says how the process ends.
func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitError
	if coded, ok := errors.AsType[*codedError](err); ok {
		code = coded.code
	}
	for i, line := range strings.Split(strings.TrimRight(err.Error(), "\n"), "\n") {
		if i == 0 {
			fmt.Fprintf(stderr, "dunlin: %s\n", line)
		} else {
			fmt.Fprintf(stderr, "        %s\n", line)
		}
	}
	return code
}

// global holds the flags that every command takes.
type global struct {
	home   string
	rpc    string // address of the node's HTTP interface; empty: from the home's node.json
	output string // table or json
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "dunlin",
		Short: "A peer-to-peer blockchain node",
		Long: `dunlin runs a full node of a Bitcoin-format chain over libp2p.

  dunlin start                 run a node on the test network
  dunlin testnet               run six nodes on this machine and watch them
  dunlin status                what the node is doing

Exit codes: 0 ok, 1 error, 2 wrong usage or settings, 3 not ready, 4 no node answers.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q: see dunlin --help", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	config.GlobalFlags(root.PersistentFlags(), &g.home)
	root.PersistentFlags().Lookup("network").Usage = "testnet (the default), regtest, simnet or bitcoin; a home remembers its network"
	root.PersistentFlags().Lookup("network-file").Usage = "network.toml of a network of your own, in place of --network"
	root.PersistentFlags().StringVar(&g.rpc, "rpc", "", "address of the node's HTTP interface (default: what the home's node.json says)")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", "table", "form of the answer: table or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if g.output != "table" && g.output != "json" {
			return usage(fmt.Errorf("--output %q: must be table or json", g.output))
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	})
	root.AddCommand(
		newStart(g), newInit(g), newStatus(g), newID(g), newPeers(g), newBootstrap(g), newSync(g), newMempool(g), newChain(g), newMiner(g),
		newNetwork(g), newConfig(g), newTestnet(), newSeeder(g), newDoctor(g), newVersion(g), newHealthcheck(g), newTx(g), newLog(g),
	)
	return root
}

// args wraps a check of cobra's so that its fault is one of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usage(fmt.Errorf("%s: %w", cmd.CommandPath(), err))
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, a []string) error {
			if len(a) > 0 {
				return usage(fmt.Errorf("unknown command %q: see %s --help", a[0], cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(children...)
	return cmd
}

// load reads the settings with the flags that cmd was given.
func (g *global) load(flags *pflag.FlagSet) (*config.Config, error) {
	if flags.Changed("port") && flags.Changed("listen") {
		return nil, usage(errors.New("--port and --listen: only one of them; --listen /ip4/0.0.0.0/tcp/N says the port too"))
	}
	c, err := config.Load(config.LoadOptions{Home: g.home, Flags: config.FromFlags(flags)})
	if err != nil {
		return nil, usage(err)
	}
	return c, nil
}

// print writes v as JSON if that was asked for, else what table writes.
func (g *global) print(cmd *cobra.Command, v any, table func(io.Writer)) error {
	out := cmd.OutOrStdout()
	if g.output != "json" {
		table(out)
		return nil
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
