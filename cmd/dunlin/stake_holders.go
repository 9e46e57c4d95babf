package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
)

func newStakeHolders(g *global) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "holders", Short: "List who has coins that can win slots, and how often they did", Args: args(cobra.NoArgs),
		Long: `List the addresses that have coins which can win slots, the richest first: coins and their value, what of it
is mature (or in how many blocks the next coin is), the chance to win a slot, the part of all mature stake, how many of
the last 100 blocks were theirs, and when they last made one.

The node reads all unspent coins for this, once a tip: of a large chain it takes a while.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxHoldersListed {
				return usage(fmt.Errorf("--limit %d: must be 1 to %d", limit, maxHoldersListed))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			h, err := c.StakeHolders(cmd.Context(), limit)
			if err != nil {
				return unreachable(err)
			}
			if g.output == "jsonl" {
				return g.print(cmd, h.Holders, nil)
			}
			return g.print(cmd, h, func(w io.Writer) { printHolders(w, &h) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many holders, 1 to 10000")
	return cmd
}

// maxHoldersListed is as many as a node keeps.
const maxHoldersListed = 10_000

func printHolders(w io.Writer, h *api.StakeHolders) {
	t := newTable(w, "ADDRESS", "COINS", "VALUE", "MATURE", "CHANCE", "SHARE", fmt.Sprintf("OF LAST %d", h.WindowBlocks), "LAST WIN")
	for i := range h.Holders {
		v := &h.Holders[i]
		mature := amount(v.MatureValue)
		if v.MatureIn != nil {
			mature += fmt.Sprintf(" (more in %d blocks)", *v.MatureIn)
		}
		last := "-"
		if v.LastWin != nil {
			last = fmt.Sprintf("block %d, %s", v.LastWin.Height, v.LastWin.Time.Format(time.RFC3339))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d (%s)\t%s\n", v.Address, v.Coins, amount(v.Value), mature,
			percentText(v.Chance), percentText(v.Share), v.Wins, percentText(v.WinShare), last)
	}
	t.Flush()
	more := ""
	if h.Truncated {
		more = "more than "
	}
	fmt.Fprintf(w, "\n%s%d holders of %s, %s of it mature, at height %d. Taking part, by the target: about %s of %s.\n",
		more, h.Total, amount(h.Value), amount(h.MatureValue), h.Height, amount(h.Online), amount(h.Supply))
}

// percentText is a part of one as percent.
func percentText(part float64) string { return fmt.Sprintf("%.2f%%", 100*part) }
