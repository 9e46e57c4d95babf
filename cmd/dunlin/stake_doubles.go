package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
)

func newStakeDoubles(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "doubles", Short: "List stakes that signed two blocks for one slot", Args: args(cobra.NoArgs),
		Long: `List the cases, the latest first, in which a stake signed two blocks for one slot. The software never does that: two nodes
run with the same keys, or somebody signs on two branches of the chain. Both blocks are valid, and nothing is taken from the owner.

The node keeps the last 256 that it saw, over restarts.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			d, err := c.DoubleStakes(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if g.output == "jsonl" {
				return g.print(cmd, d.Doubles, nil)
			}
			return g.print(cmd, d, func(w io.Writer) { printDoubles(w, &d) })
		},
	}
}

func printDoubles(w io.Writer, d *api.DoubleStakes) {
	if d.Total == 0 {
		fmt.Fprintln(w, "no stake is known to have signed two blocks for one slot")
		return
	}
	t := newTable(w, "SEEN", "SLOT", "HEIGHT", "ADDRESS", "STAKE", "FIRST", "SECOND")
	for i := range d.Doubles {
		v := &d.Doubles[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\n", v.Seen.Format(time.DateTime), v.Slot, v.Height, v.Address, v.OutPoint, v.First, v.Second)
	}
	t.Flush()
	if d.Total > len(d.Doubles) {
		fmt.Fprintf(w, "\nthe latest %d of %d\n", len(d.Doubles), d.Total)
	}
}
