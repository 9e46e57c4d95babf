package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dunlin/chain/consensus"
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
		spec    config.NetworkSpec
		out, at string
		fresh   holders
	)
	def := config.DefaultNetworkSpec("x", time.Now())
	stake := config.DefaultStakeSpec("x", time.Now())
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Write a network.toml: a chain of your own, to hand out",
		Long: `create writes a network.toml with the genesis and the rules of a new network. Hand the file out; every node starts with
--network-file FILE.

With --engine pos stake makes its blocks, and it begins with those who own that: --holder names holders that exist (a taproot address of
theirs, or the key in it), --holders and --new-holder make keys for new ones and write each to a file of its own beside the network.toml,
which dunlin start --stake --key-file takes. Who has such a file has the coins: give each to its holder and to nobody else.`,
		Example: `  dunlin network create --name office --spacing 10s
  dunlin network create --name guild --engine pos --holders 1
  dunlin network create --name guild --engine pos --new-holder 500000 --holder tdun1p…=300000`,
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
			full.Slot, full.StakeMaturity, full.MaxReorg = spec.Slot, spec.StakeMaturity, spec.MaxReorg
			faults = append(faults, foreignFlags(cmd.Flags(), full.Engine)...)
			if full.Engine == config.EnginePoS {
				var err error
				if full.Holders, err = fresh.all(spec.Holders); err != nil {
					faults = append(faults, err)
				}
			}
			if len(faults) == 0 || full.Engine != config.EnginePoS || len(full.Holders) > 0 {
				if _, err := full.Network(); err != nil {
					faults = append(faults, flagFaults(err)...)
				}
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
			n, err := full.Network()
			if err == nil {
				err = fresh.write(out, n.Params)
			}
			if err != nil {
				return usage(err)
			}
			n, err = config.WriteNetworkFile(out, full)
			if err != nil {
				return usage(errors.Join(err, fresh.remove()))
			}
			return printNetwork(g, cmd, n, fresh.files()...)
		},
	}
	f := cmd.Flags()
	f.StringVar(&spec.Name, "name", "", "name of the network: 1 to 32 of a-z, 0-9 and -")
	f.StringVar(&spec.Engine, "engine", def.Engine, "what proves a block: pow (work) or pos (stake)")
	f.StringVar(&spec.GenesisText, "genesis-text", "", "text in the genesis coinbase, at most 80 bytes")
	f.StringVar(&at, "genesis-time", "", "time of the genesis block, RFC 3339 (default now)")
	f.DurationVar(&spec.Spacing, "spacing", def.Spacing, "wanted time between blocks (pow)")
	f.DurationVar(&spec.Slot, "slot", stake.Slot, "length of a slot, every fourth of which shall have a block (pos)")
	f.StringArrayVar(&spec.Holders, "holder", nil, "a holder of the initial stake: ADDRESS=COINS or KEY=COINS (pos, repeatable)")
	f.IntVar(&fresh.equal, "holders", 0, fmt.Sprintf("make keys for so many holders, who share %d coins (pos)", sharedCoins))
	f.StringArrayVar(&fresh.coins, "new-holder", nil, "make a key for a holder of so many coins (pos, repeatable)")
	f.IntVar(&spec.StakeMaturity, "stake-maturity", stake.StakeMaturity, "blocks that a coin must have on it before it is stake (pos)")
	f.IntVar(&spec.MaxReorg, "max-reorg", stake.MaxReorg, "deepest reorganisation that nodes follow by themselves, blocks (pos)")
	f.IntVar(&spec.HalvingInterval, "halving-interval", def.HalvingInterval, "blocks between halvings of the subsidy")
	f.Int64Var(&spec.Subsidy, "subsidy", def.Subsidy, "new money of the first blocks, satoshi")
	f.StringVar(&spec.PowLimitBits, "pow-limit-bits", def.PowLimitBits, "least difficulty, in the compact form of a header (pow)")
	f.IntVar(&spec.P2PPort, "p2p-port", def.P2PPort, "default port of the peer protocol")
	f.IntVar(&spec.RPCPort, "rpc-port", def.RPCPort, "default port of the HTTP interface")
	f.BoolVar(&spec.Private, "private", def.Private, "nodes live on private or shared addresses")
	f.StringArrayVar(&spec.Bootstrap, "bootstrap", nil, "multiaddr of a node to meet the network through (repeatable)")
	f.StringArrayVar(&spec.DNSSeeds, "dns-seed", nil, "name to resolve into nodes (repeatable)")
	f.StringVar(&out, "out", "", "file to write (default <name>.toml)")
	return cmd
}

// foreignFlags reports the flags that were given and mean nothing with the engine.
func foreignFlags(f *pflag.FlagSet, engine string) (faults []error) {
	of := map[string][]string{
		config.EnginePoW: {"slot", "holder", "holders", "new-holder", "stake-maturity", "max-reorg"},
		config.EnginePoS: {"spacing", "pow-limit-bits"},
	}
	for _, name := range of[engine] {
		switch {
		case !f.Changed(name):
		case name == "spacing":
			faults = append(faults, errors.New("--spacing: is for --engine pow; with pos a block is wanted in every fourth --slot"))
		case engine == config.EnginePoS:
			faults = append(faults, fmt.Errorf("--%s: is for --engine pow", name))
		default:
			faults = append(faults, fmt.Errorf("--%s: is for --engine pos", name))
		}
	}
	return faults
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
			named.Key = "--" + strings.ReplaceAll(strings.TrimSuffix(strings.NewReplacer("dns_seeds", "dns_seed", "holders", "holder").Replace(k.Key), " "), "_", "-")
			e = &named
		}
		out = append(out, e)
	}
	return out
}

// holderRow is a holder of initial stake.
type holderRow struct {
	Address string  `json:"address"`
	Coins   string  `json:"coins"`
	Share   float64 `json:"share"`              // of the initial stake, 0 to 1
	KeyFile string  `json:"key_file,omitempty"` // just written
}

// printNetwork prints what a network is, and the key files that were made with it: of
// its last holders, in order.
func printNetwork(g *global, cmd *cobra.Command, n *config.Network, keyFiles ...string) error {
	p := n.Params
	v := struct {
		Name     string      `json:"name"`
		ChainID  string      `json:"chain_id"`
		Genesis  string      `json:"genesis"`
		Engine   string      `json:"engine"`
		Spacing  string      `json:"spacing"`
		Slot     string      `json:"slot,omitempty"`
		Maturity int32       `json:"stake_maturity,omitempty"`
		MaxReorg int32       `json:"max_reorg,omitempty"`
		Holders  []holderRow `json:"holders,omitempty"`
		Subsidy  int64       `json:"subsidy"`
		Halving  int32       `json:"halving_interval"`
		P2PPort  uint16      `json:"p2p_port"`
		RPCPort  uint16      `json:"rpc_port"`
		Boot     []string    `json:"bootstrap"`
		DNSSeeds []string    `json:"dns_seeds"`
		File     string      `json:"file,omitempty"`
	}{
		Name: p.Name, ChainID: p.ChainID(), Genesis: p.GenesisHash.String(), Engine: config.EnginePoW, Spacing: p.TargetSpacing.String(),
		Subsidy: p.BaseSubsidy, Halving: p.SubsidyHalvingInterval,
		P2PPort: n.P2PPort, RPCPort: n.RPCPort, Boot: append([]string{}, n.Bootstrap...), DNSSeeds: append([]string{}, n.DNSSeeds...), File: n.File,
	}
	if p.ProofOfStake() {
		v.Engine, v.Slot, v.Maturity, v.MaxReorg = config.EnginePoS, p.SlotDuration.String(), p.StakeMaturity, p.MaxReorg
		v.Holders = initialHolders(p)
		for i, file := range keyFiles {
			v.Holders[len(v.Holders)-len(keyFiles)+i].KeyFile = file
		}
	}
	return g.print(cmd, v, func(w io.Writer) {
		fmt.Fprintf(w, "network  %s (chain id %s)\ngenesis  %s\nspacing  %s\n", v.Name, v.ChainID, v.Genesis, v.Spacing)
		if p.ProofOfStake() {
			fmt.Fprintf(w, "engine   proof of stake: slots of %s, stake matures in %d blocks, reorganisations of at most %d\n", v.Slot, v.Maturity, v.MaxReorg)
		}
		fmt.Fprintf(w, "ports    peers %d, http %d\n", v.P2PPort, v.RPCPort)
		for i, h := range v.Holders {
			if i == maxHolderRows && len(keyFiles) == 0 {
				fmt.Fprintf(w, "         and %d more holders\n", len(v.Holders)-i)
				break
			}
			fmt.Fprintf(w, "holder   %s  %s coins, %.2f %%", h.Address, h.Coins, 100*h.Share)
			if h.KeyFile != "" {
				fmt.Fprintf(w, ", key in %s", h.KeyFile)
			}
			fmt.Fprintln(w)
		}
		if v.File != "" {
			fmt.Fprintf(w, "file     %s\nstart    dunlin start --network-file %s\ninvite   dunlin network show --invite %s\n", v.File, v.File, v.File)
		}
	})
}

// maxHolderRows is how many holders are shown to people.
const maxHolderRows = 20

// initialHolders are the outputs of genesis.
func initialHolders(p *consensus.Params) []holderRow {
	outs := p.Genesis.Transactions[0].TxOut
	var sum int64
	for _, o := range outs {
		sum += o.Value
	}
	rows := make([]holderRow, len(outs))
	for i, o := range outs {
		rows[i] = holderRow{
			Address: config.HolderAddress([32]byte(o.PkScript[2:])), Coins: inCoins(o.Value), Share: float64(o.Value) / float64(sum),
		}
	}
	return rows
}
