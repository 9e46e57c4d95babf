package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dunlin/config"
)

func newNetwork(g *global) *cobra.Command {
	show := &cobra.Command{
		Use: "show [FILE]", Short: "Print what a network is (a network.toml, or --network)", Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			var n *config.Network
			var err error
			if len(a) == 1 {
				n, err = config.ReadNetworkFile(a[0])
			} else {
				var c *config.Config
				if c, err = g.load(cmd.Flags()); err == nil {
					n = c.Chain
				}
			}
			if err != nil {
				return usage(err)
			}
			return printNetwork(g, cmd, n)
		},
	}
	return group("network", "Networks: the presets and your own", newNetworkCreate(g), show)
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
			if spec.Name == "" {
				return usage(errors.New("--name is required: 1 to 32 of a-z, 0-9 and -"))
			}
			full := config.DefaultNetworkSpec(spec.Name, time.Now())
			if at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return usage(fmt.Errorf("--genesis-time %q: must be like 2026-11-21T10:00:00Z", at))
				}
				full.GenesisTime = t.UTC()
			}
			if spec.GenesisText != "" {
				full.GenesisText = spec.GenesisText
			}
			full.Spacing, full.HalvingInterval, full.Subsidy = spec.Spacing, spec.HalvingInterval, spec.Subsidy
			full.Bootstrap, full.DNSSeeds = spec.Bootstrap, spec.DNSSeeds
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
	f.StringVar(&spec.GenesisText, "genesis-text", "", "text in the genesis coinbase, at most 80 bytes")
	f.StringVar(&at, "genesis-time", "", "time of the genesis block, RFC 3339 (default now)")
	f.DurationVar(&spec.Spacing, "spacing", def.Spacing, "wanted time between blocks")
	f.IntVar(&spec.HalvingInterval, "halving-interval", def.HalvingInterval, "blocks between halvings of the subsidy")
	f.Int64Var(&spec.Subsidy, "subsidy", def.Subsidy, "new money of the first blocks, satoshi")
	f.StringArrayVar(&spec.Bootstrap, "bootstrap", nil, "multiaddr of a node to meet the network through (repeatable)")
	f.StringArrayVar(&spec.DNSSeeds, "dns-seed", nil, "name to resolve into nodes (repeatable)")
	f.StringVar(&out, "out", "", "file to write (default <name>.toml)")
	return cmd
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
			fmt.Fprintf(w, "file     %s\nstart    dunlin start --network-file %s\n", v.File, v.File)
		}
	})
}
