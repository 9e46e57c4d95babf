package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
)

func newMempool(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "mempool", Short: "Print how full the mempool is, what it takes to get in, and what comes", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			m, err := c.Mempool(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			return g.print(cmd, m, func(w io.Writer) { printMempool(w, &m) })
		},
	}
}

// printMempool writes what is known of a mempool.
func printMempool(w io.Writer, m *api.Mempool) {
	t := newTable(w)
	fmt.Fprintf(t, "transactions\t%d, %.1f kvB\n", m.Count, float64(m.VBytes)/1e3)
	fmt.Fprintf(t, "memory\t%.1f of %.0f MB\n", float64(m.Bytes)/1e6, float64(m.MaxBytes)/1e6)
	fmt.Fprintf(t, "least fee\t%d satoshi for 1000 vB\n", m.MinFeeRate)
	if m.PeersMinFeeRate > m.MinFeeRate {
		fmt.Fprintf(t, "of peers\t%d: what pays less is not passed on\n", m.PeersMinFeeRate)
	}
	fmt.Fprintf(t, "to be told\t%d\n", m.Unsent)
	fmt.Fprintf(t, "orphans\t%d, %.1f kB\n", m.Orphans, float64(m.OrphanBytes)/1e3)
	fmt.Fprintf(t, "lost\t%d\n", m.Lost)
	fmt.Fprintf(t, "gossip\t%d peers, %d neighbours; %d accepted, %d duplicates, %d throttled, %d copies dropped, %d sent\n",
		m.Gossip.Peers, m.Gossip.Mesh, m.Gossip.Accepted, m.Gossip.Duplicates, m.Gossip.Throttled, m.Gossip.Dropped, m.Gossip.Published)
	fmt.Fprintf(t, "from lists\t%d fetched of %d seen\n", m.Pulled, m.Listed)
	printReasons(t, "ignored", m.Gossip.Ignored)
	printReasons(t, "rejected", m.Gossip.Rejected)
	t.Flush()
}

// printReasons writes counts by reason, the most frequent first.
func printReasons(w io.Writer, what string, counts map[string]uint64) {
	reasons := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, r := range reasons {
		fmt.Fprintf(w, "%s\t%d %s\n", what, counts[r], r)
		what = ""
	}
}
