package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
)

func newNetwork(g *global) *cobra.Command {
	return group("network", "Networks: the presets and your own", newNetworkCreate(g), newNetworkShow(g), newNetworkJoin(g))
}

func newNetworkShow(g *global) *cobra.Command {
	var inviting bool
	var with []string
	cmd := &cobra.Command{
		Use: "show [FILE]", Short: "Print what a network is (a network.toml, or --network), or an invitation into it",
		Long: `show prints the chain of a network.toml, of the home, or of --network. With --invite it prints a line with which others join it (dunlin
network join): it names the node that runs in the home, if one does, the nodes given with --with, and those that the network names.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(with) > 0 && !inviting {
				return usage(errors.New("--with is for --invite"))
			}
			var n *config.Network
			var node *api.NodeFile
			var err error
			if len(a) == 1 {
				n, err = config.ReadNetworkFile(a[0])
			} else {
				var c *config.Config
				if c, err = g.load(cmd.Flags()); err == nil {
					n = c.Chain
					if info, e := api.ReadNodeFile(c.Home); e == nil {
						node = &info
					}
				}
			}
			if err != nil {
				return usage(err)
			}
			if !inviting {
				return printNetwork(g, cmd, n)
			}
			text, err := invite(n, node, with...)
			if err != nil {
				return usage(err)
			}
			if node == nil && len(with)+len(n.Bootstrap)+len(n.DNSSeeds) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "dunlin: warning: this invitation names no node to meet: give it --with ADDRESS, or make it where a node runs (--home)")
			}
			v := struct {
				ChainID    string `json:"chain_id"`
				Invitation string `json:"invitation"`
			}{n.ChainID(), text}
			return g.print(cmd, v, func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
	cmd.Flags().BoolVar(&inviting, "invite", false, "print an invitation instead: dunlin network join takes it")
	cmd.Flags().StringArrayVar(&with, "with", nil, "multiaddr of a node that the invitation shall name (repeatable)")
	return cmd
}

func newNetworkCreate(g *global) *cobra.Command {
	var (
		spec config.NetworkSpec
		out  string
		at   string
	)
	def := config.DefaultNetworkSpec("x", time.Now())
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Write a network.toml: a chain of your own, to hand out",
		Long: `create writes a network.toml with the genesis and the rules of a new proof-of-work network. Hand the file out; every
node starts with --network-file FILE.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var faults []error
			full := config.DefaultNetworkSpec(spec.Name, time.Now())
			if at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					faults = append(faults, fmt.Errorf("--genesis-time %q: must be like 2026-11-21T10:00:00Z", at))
				} else {
					full.GenesisTime = t.UTC()
				}
			}
			if spec.GenesisText != "" {
				full.GenesisText = spec.GenesisText
			}
			full.Engine, full.Spacing, full.HalvingInterval, full.Subsidy = spec.Engine, spec.Spacing, spec.HalvingInterval, spec.Subsidy
			full.P2PPort, full.RPCPort, full.Private, full.PowLimitBits = spec.P2PPort, spec.RPCPort, spec.Private, spec.PowLimitBits
			full.Bootstrap, full.DNSSeeds = spec.Bootstrap, spec.DNSSeeds
			if _, err := full.Network(); err != nil {
				faults = append(faults, flagFaults(err)...)
			}
			if spec.Name == "" {
				faults = []error{errors.New("--name is required: 1 to 32 of a-z, 0-9 and -")}
			}
			if err := errors.Join(faults...); err != nil {
				return usage(err)
			}
			if out == "" {
				out = spec.Name + ".toml"
			}
			if _, err := os.Stat(out); err == nil {
				return usage(fmt.Errorf("%s exists: choose another file with --out", out))
			}
			n, err := config.WriteNetworkFile(out, full)
			if err != nil {
				return usage(err)
			}
			return printNetwork(g, cmd, n)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Name, "name", "", "name of the network: 1 to 32 of a-z, 0-9 and -")
	f.StringVar(&spec.Engine, "engine", def.Engine, "what proves a block: pow")
	f.StringVar(&spec.GenesisText, "genesis-text", "", "text in the genesis coinbase, at most 80 bytes")
	f.StringVar(&at, "genesis-time", "", "time of the genesis block, RFC 3339 (default now)")
	f.DurationVar(&spec.Spacing, "spacing", def.Spacing, "wanted time between blocks")
	f.IntVar(&spec.HalvingInterval, "halving-interval", def.HalvingInterval, "blocks between halvings of the subsidy")
	f.Int64Var(&spec.Subsidy, "subsidy", def.Subsidy, "new money of the first blocks, satoshi")
	f.StringVar(&spec.PowLimitBits, "pow-limit-bits", def.PowLimitBits, "least difficulty, in the compact form of a header")
	f.IntVar(&spec.P2PPort, "p2p-port", def.P2PPort, "default port of the peer protocol")
	f.IntVar(&spec.RPCPort, "rpc-port", def.RPCPort, "default port of the HTTP interface")
	f.BoolVar(&spec.Private, "private", def.Private, "nodes live on private or shared addresses")
	f.StringArrayVar(&spec.Bootstrap, "bootstrap", nil, "multiaddr of a node to meet the network through (repeatable)")
	f.StringArrayVar(&spec.DNSSeeds, "dns-seed", nil, "name to resolve into nodes (repeatable)")
	f.StringVar(&out, "out", "", "file to write (default <name>.toml)")
	return cmd
}

// flagFaults puts the faults of a description into the words of its flags.
func flagFaults(err error) (out []error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		if k, ok := errors.AsType[*config.KeyError](e); ok {
			named := *k
			named.Key = "--" + strings.ReplaceAll(strings.TrimSuffix(strings.ReplaceAll(k.Key, "dns_seeds", "dns_seed"), " "), "_", "-")
			e = &named
		}
		out = append(out, e)
	}
	return out
}

func printNetwork(g *global, cmd *cobra.Command, n *config.Network) error {
	p := n.Params
	v := struct {
		Name     string   `json:"name"`
		ChainID  string   `json:"chain_id"`
		Genesis  string   `json:"genesis"`
		Spacing  string   `json:"spacing"`
		Subsidy  int64    `json:"subsidy"`
		Halving  int32    `json:"halving_interval"`
		P2PPort  uint16   `json:"p2p_port"`
		RPCPort  uint16   `json:"rpc_port"`
		Boot     []string `json:"bootstrap"`
		DNSSeeds []string `json:"dns_seeds"`
		File     string   `json:"file,omitempty"`
	}{
		p.Name, p.ChainID(), p.GenesisHash.String(), p.TargetSpacing.String(), p.BaseSubsidy, p.SubsidyHalvingInterval,
		n.P2PPort, n.RPCPort, append([]string{}, n.Bootstrap...), append([]string{}, n.DNSSeeds...), n.File,
	}
	return g.print(cmd, v, func(w io.Writer) {
		fmt.Fprintf(w, "network  %s (chain id %s)\ngenesis  %s\nspacing  %s\nports    peers %d, http %d\n", v.Name, v.ChainID, v.Genesis, v.Spacing, v.P2PPort, v.RPCPort)
		if v.File != "" {
			fmt.Fprintf(w, "file     %s\nstart    dunlin start --network-file %s\ninvite   dunlin network show --invite %s\n", v.File, v.File, v.File)
		}
	})
}
