package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"dunlin/config"
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
			if err := node.CheckConfig(c); err != nil {
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
	return group("config", "Settings: file < environment < flags", show, check, template)
}
