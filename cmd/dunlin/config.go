package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/node"
)

// setting is config.Entry as JSON shows it.
type setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // as TOML
	Origin string `json:"origin"`
	Type   string `json:"type"`
	Unit   string `json:"unit"`
	Env    string `json:"env"`
	Flag   string `json:"flag"`
	Doc    string `json:"doc"`
}

func newConfig(g *global) *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Print every setting and where it came from", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			var settings []setting
			for _, e := range c.Entries() {
				settings = append(settings, setting(e))
			}
			return g.print(cmd, settings, func(w io.Writer) {
				t := newTable(w)
				for _, s := range settings {
					fmt.Fprintf(t, "%s\t%s\t%s\n", s.Key, s.Value, s.Origin)
				}
				t.Flush()
			})
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Check the settings and report every fault", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := errors.Join(node.CheckConfig(c), sameChain(c)); err != nil {
				return usage(err)
			}
			v := struct {
				ChainID string `json:"chain_id"`
				Home    string `json:"home"`
				File    string `json:"file"`
			}{c.Chain.ChainID(), c.Home, c.File}
			return g.print(cmd, v, func(w io.Writer) {
				file := v.File
				if file == "" {
					file = "no config file"
				}
				fmt.Fprintf(w, "ok: network %s, home %s, %s\n", v.ChainID, v.Home, file)
			})
		},
	}
	template := &cobra.Command{
		Use: "template", Short: "Print a config file with every key explained", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			return config.WriteTemplate(cmd.OutOrStdout(), c)
		},
	}
	for _, cmd := range []*cobra.Command{show, check} {
		config.Flags(cmd.Flags())
	}
	return group("config", "Settings: file < environment < flags", show, check, template, newRPCAuth(g))
}

func newRPCAuth(g *global) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "rpcauth USER", Short: "Make a user of the HTTP interface, with a password that is shown once",
		Long: `rpcauth makes an entry of rpc.auth in Bitcoin Core's form, user:salt$hash, and a random password. It changes
nothing: put the entry into the config file and restart the node. What the user may do is in rpc.whitelist and
rpc.read_only; without them, all that the interface has but profiles.`,
		Example: "  dunlin config rpcauth alice\n  pass show node | dunlin config rpcauth alice --password-stdin",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			password := ""
			if stdin {
				line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("password: %w", err)
				}
				if password = strings.TrimRight(line, "\r\n"); password == "" {
					return usage(errors.New("password: standard input is empty"))
				}
			}
			entry, given, err := api.NewUser(a[0], password)
			if err != nil {
				return usage(err)
			}
			if stdin {
				given = "" // whoever gave it knows it
			}
			v := struct {
				Auth     string `json:"auth"`
				User     string `json:"user"`
				Password string `json:"password,omitempty"`
			}{entry, a[0], given}
			return g.print(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "[rpc]\nauth = [%q]\n", v.Auth)
				if given != "" {
					fmt.Fprintf(w, "\npassword of %s, which is kept nowhere: %s\n", v.User, given)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return cmd
}
