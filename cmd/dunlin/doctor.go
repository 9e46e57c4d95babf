package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/node"
)

// errFindings is the error of a doctor that found a fault.
var errFindings = errors.New("something must be mended: see the lines with fail")

func newDoctor(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what would keep a node from working",
		Long: `doctor checks the home, the disk, the clock, the limit of open files, the addresses to listen on, every DNS seed, and every bootstrap and
persistent node, which it dials and greets. It takes the settings and flags of start. Each fault comes with what to do. A node may be running.
Exit code 1 if something must be mended.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return g.doctor(cmd, false) },
	}
	config.Flags(cmd.Flags())
	return cmd
}

func (g *global) doctor(cmd *cobra.Command, onlySources bool) error {
	c, err := g.load(cmd.Flags())
	if err != nil {
		return err
	}
	log, _, err := newLogger(io.Discard, c)
	if err != nil {
		return err
	}
	findings, err := node.Doctor(cmd.Context(), c, log, buildVersion(), onlySources)
	if err != nil {
		return err
	}
	err = g.print(cmd, findings, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, f := range findings {
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Verdict, f.Check, joinWords(f.Target, f.Detail))
			if f.Do != "" {
				fmt.Fprintf(t, "\t\t  do: %s\n", f.Do)
			}
		}
		t.Flush()
	})
	for _, f := range findings {
		if f.Verdict == node.FindingFail {
			return errors.Join(err, errFindings)
		}
	}
	return err
}

// joinWords puts a target before a detail, if there is one.
func joinWords(target, detail string) string {
	if target == "" {
		return detail
	}
	return target + ": " + detail
}
