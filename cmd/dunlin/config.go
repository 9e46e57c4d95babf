package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dunlin/config"
)

func newConfig(g *global) *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Print every setting and where it came from", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			entries := c.Entries()
			return g.print(cmd, entries, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				for _, e := range entries {
					fmt.Fprintf(t, "%s\t%s\t%s\n", e.Key, e.Value, c.Origin(e.Key))
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
			file := c.File
			if file == "" {
				file = "no config file"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: network %s, home %s, %s\n", c.Chain.ChainID(), c.Home, file)
			return nil
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
	return group("config", "Settings: file < environment < flags", show, check, template)
}
