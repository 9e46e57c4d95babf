package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dunlin/config"
	"dunlin/internal/command"
)

// Exit codes, part of the interface.
const (
	exitOK          = command.OK
	exitError       = command.Failed
	exitUsage       = command.Misuse
	exitNotReady    = 3
	exitUnreachable = 4
)

// usage is a fault of usage.
func usage(err error) error { return command.Usage(err) }

// args wraps a check of cobra's so that its fault is one of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs { return command.Args(check) }

// exitCode prints err, if any, and says how the process ends.
func exitCode(stderr io.Writer, err error) int { return command.Report(stderr, "dunlin", err) }

// global holds the flags that every command takes.
type global struct {
	home   string
	rpc    string // address of the node's HTTP interface; empty: from the home's node.json
	output string // one of outputs
}

// outputs are the forms of an answer.
var outputs = []string{"table", "json", "jsonl"}

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
		Args:          onlyChildren,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	config.GlobalFlags(root.PersistentFlags(), &g.home)
	root.PersistentFlags().Lookup("network").Usage = "testnet (the default), stakenet, regtest, simnet or bitcoin; a home remembers its network"
	root.PersistentFlags().Lookup("network-file").Usage = "network.toml of a network of your own, in place of --network"
	root.PersistentFlags().StringVar(&g.rpc, "rpc", "", "address of the node's HTTP interface (default: what the home's node.json says)")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", "table", "form of the answer: table, json, or jsonl (a line an item)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(outputs, g.output) {
			return usage(fmt.Errorf("--output %q: must be table, json or jsonl", g.output))
		}
		return nil
	}
	root.SetFlagErrorFunc(flagFault)
	root.CompletionOptions.DisableDefaultCmd = true // ours says how to install it
	root.AddCommand(
		newStart(g), newInit(g), newStatus(g), newID(g), newPeers(g), newBootstrap(g), newSync(g), newMempool(g), newChain(g), newMiner(g), newStake(g),
		newNetwork(g), newConfig(g), newTestnet(g), newSeeder(g), newDoctor(g), newVersion(g), newHealthcheck(g), newTx(g), newLog(g),
		newWallet(g), newFaucet(g), newDebug(g), newCompletion(), newMan(),
	)
	g.completions(root)
	return root
}

// onlyChildren is the check of a command that holds others: a word that is none of them is a fault, which names what may have been meant.
func onlyChildren(cmd *cobra.Command, a []string) error {
	if len(a) == 0 {
		return nil
	}
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	if near := config.Nearest(a[0], names); near != "" {
		return usage(fmt.Errorf("unknown command %q, did you mean %s? See %s --help", a[0], near, cmd.CommandPath()))
	}
	return usage(fmt.Errorf("unknown command %q: see %s --help", a[0], cmd.CommandPath()))
}

// flagFault is a fault in the flags of cmd, with the flag that may have been meant.
func flagFault(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && len(unknown.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Deprecated == "" {
				names = append(names, f.Name)
			}
		})
		if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			return usage(fmt.Errorf("%w, did you mean --%s? See %s --help", err, near, cmd.CommandPath()))
		}
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if want := wanted[bad.GetFlag().Value.Type()]; want != "" {
			return usage(fmt.Errorf("--%s %q: want %s: see %s --help", bad.GetFlag().Name, bad.GetValue(), want, cmd.CommandPath()))
		}
	}
	return usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
}

// wanted says of the types of flags what a value looks like, where pflag tells what Go's parser thinks of it.
var wanted = map[string]string{
	"bool": "true or false", "duration": `a duration with its unit, such as "90s" or "1h30m"`, "float64": "a number, such as 0.5",
	"int": "an integer", "int32": "an integer from -2147483648 to 2147483647", "int64": "an integer", "uint64": "an integer that is not negative",
	"uint": "an integer that is not negative", "uint16": "an integer from 0 to 65535", "uint32": "an integer from 0 to 4294967295",
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: onlyChildren,
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
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	items := []any{v}
	switch g.output {
	case "json":
		e.SetIndent("", "  ")
	case "jsonl":
		if list := reflect.ValueOf(v); list.Kind() == reflect.Slice {
			items = items[:0]
			for i := range list.Len() {
				items = append(items, list.Index(i).Interface())
			}
		}
	default:
		table(out)
		return nil
	}
	for _, item := range items {
		if err := e.Encode(item); err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
	}
	return nil
}
