package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"dunlin/config"
)

const bootstrapKey = "p2p.bootstrap"

// A source is one node or name to learn of the network from, as bootstrap list prints it.
type source struct {
	Kind   string `json:"kind"` // bootstrap, persistent or dns
	Addr   string `json:"addr"`
	Origin string `json:"origin"` // as config show tells it; "network" is the network's own list
}

func newBootstrap(g *global) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "Print every bootstrap node, persistent peer and DNS seed, and where it was set", Args: args(cobra.NoArgs),
		Long: `list prints what a start would meet the network through. Of the two words, bootstrap means a node that may be forgotten once others are
known, persistent one that is kept and redialled for ever.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			all := []source{}
			for _, of := range []struct {
				kind, key string
				addrs     []string
			}{{"bootstrap", bootstrapKey, c.P2P.Bootstrap}, {"persistent", "p2p.persistent", c.P2P.Persistent}, {"dns", "p2p.dns_seeds", c.P2P.DNSSeeds}} {
				origin := c.Origin(of.key)
				if origin == "default" {
					origin = "network " + c.Chain.Params.Name
				}
				for _, a := range of.addrs {
					all = append(all, source{of.kind, a, origin})
				}
			}
			return g.print(cmd, all, func(w io.Writer) {
				if len(all) == 0 {
					fmt.Fprintln(w, "none: dunlin bootstrap add MULTIADDR, or wait to be dialled")
					return
				}
				t := newTable(w, "KIND", "ADDRESS", "SET BY")
				for _, s := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\n", s.Kind, s.Addr, s.Origin)
				}
				t.Flush()
			})
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Resolve, dial and greet every bootstrap node, persistent peer and DNS seed", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return g.doctor(cmd, true) },
	}
	for _, cmd := range []*cobra.Command{list, check} {
		config.Flags(cmd.Flags())
	}
	return group("bootstrap", "The nodes to meet the network through", list, newBootstrapAdd(g), newBootstrapRemove(g), check)
}

func newBootstrapAdd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "add MULTIADDR…", Short: "Write a bootstrap node into the home's config file",
		Long: `add puts nodes into p2p.bootstrap of <home>/config.toml, beside those that stand there or that the network has. All else in the file
stays as it is. It holds from the next start on; dunlin peers add dials a node at once.`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return g.changeBootstrap(cmd, func(have []string) ([]string, error) {
				for _, addr := range a {
					if !slices.Contains(have, addr) {
						have = append(have, addr)
					}
				}
				return have, nil
			})
		},
	}
}

func newBootstrapRemove(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "remove MULTIADDR|PEER_ID…", Short: "Take a bootstrap node out of the home's config file", Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return g.changeBootstrap(cmd, func(have []string) ([]string, error) {
				for _, name := range a {
					left := slices.DeleteFunc(slices.Clone(have), func(h string) bool {
						info, err := peer.AddrInfoFromString(h)
						return h == name || err == nil && info.ID.String() == name
					})
					if len(left) == len(have) {
						return nil, fmt.Errorf("%s is no bootstrap node: dunlin bootstrap list prints them", name)
					}
					have = left
				}
				return have, nil
			})
		},
	}
}

// changeBootstrap writes what change makes of the bootstrap nodes into the home's config file.
func (g *global) changeBootstrap(cmd *cobra.Command, change func([]string) ([]string, error)) error {
	c, err := g.load(cmd.Flags())
	if err != nil {
		return err
	}
	if origin := c.Origin(bootstrapKey); strings.HasPrefix(origin, "environment ") {
		return usage(fmt.Errorf("%s sets the bootstrap nodes and would overrule the file: change it there", origin))
	}
	if err := sameChain(c); err != nil {
		return err
	}
	after, err := change(slices.Clone(c.P2P.Bootstrap))
	if err != nil {
		return err
	}
	if err := config.EnsureHome(c.Home); err != nil {
		return err
	}
	if _, err := c.WriteFile(); err != nil {
		return err
	}
	file, err := config.SetInFile(c.Home, bootstrapKey, after...)
	if err != nil {
		return usage(err)
	}
	v := struct {
		File      string   `json:"file"`
		Bootstrap []string `json:"bootstrap"`
	}{file, append([]string{}, after...)}
	return g.print(cmd, v, func(w io.Writer) {
		fmt.Fprintf(w, "%d bootstrap nodes in %s, from the next start on\n", len(after), file)
	})
}

// configured completes with the bootstrap nodes that are set.
func (g *global) configured(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := g.load(cmd.Flags())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.P2P.Bootstrap, cobra.ShellCompDirectiveNoFileComp
}
