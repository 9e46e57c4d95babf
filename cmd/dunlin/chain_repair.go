package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/chain"
	"dunlin/chain/index"
	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/node"
)

// verifyDepth is how many blocks verify connects again unless told otherwise, as
// Bitcoin Core does at its start.
const verifyDepth = 6

// hasChain refuses a home without a chain, so that a mistyped --home is not made.
func hasChain(home string) error {
	for _, name := range []string{"blocks", "index"} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			return nil
		}
	}
	return usage(fmt.Errorf("there is no chain in %s: see --home and --network", home))
}

// verifyAnswer is what verify prints.
type verifyAnswer struct {
	Height      int32         `json:"height"`
	Lowest      int32         `json:"lowest"`
	Blocks      int           `json:"blocks"`
	Unused      int           `json:"unused_records"`
	Remains     int           `json:"damaged_remains"`
	Undo        int           `json:"undo_records"`
	Coins       int           `json:"coins"`
	Supply      int64         `json:"supply_sat"`
	Claimed     *int64        `json:"claimed_sat"`
	Reconnected int32         `json:"reconnected"`
	Limited     bool          `json:"limited_by_memory"`
	FaultCount  int           `json:"fault_count"`
	Faults      []faultAnswer `json:"faults"`
	TookS       float64       `json:"took_s"`
}

type faultAnswer struct {
	File   string `json:"file"`
	Offset *int64 `json:"offset"`
	What   string `json:"what"`
	Mend   string `json:"mend"`
}

func newChainVerify(g *global) *cobra.Command {
	var full bool
	var depth int32
	var memory int
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the chain of a stopped home, byte by byte",
		Long: `verify reads every record of the block and undo files and checks its checksum, that the index and the files agree, that
every block is what its header says, and that the coins are worth the subsidies claimed. The last --depth blocks are taken back and connected
again by every rule, with all scripts; --full does that with all blocks, as far as --memory-mb suffices for the coins that change.
It changes nothing. Each fault is named with its file and place; exit code 1 says that there are some.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case full && cmd.Flags().Changed("depth"):
				return usage(errors.New("--full and --depth: choose one"))
			case depth < 0:
				return usage(fmt.Errorf("--depth %d: must not be negative", depth))
			case memory < 1:
				return usage(fmt.Errorf("--memory-mb %d: must be at least 1", memory))
			}
			if full {
				depth = -1
			}
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := hasChain(c.Home); err != nil {
				return err
			}
			log, _, err := newLogger(cmd.ErrOrStderr(), c)
			if err != nil {
				return err
			}
			ch, err := node.OpenChain(c, log)
			if errors.Is(err, store.ErrLocked) {
				return fmt.Errorf("%w (this command works on a stopped home)", err)
			}
			if err != nil {
				return err
			}
			began := time.Now()
			show := newProgress(cmd.ErrOrStderr(), log, "verify")
			r, err := ch.Verify(cmd.Context(), chain.VerifyOptions{
				Depth: depth, MaxBytes: int64(memory) << 20,
				Progress: func(p chain.VerifyProgress) {
					show.stage(p.Stage, p.Done, p.Total, func() string { return verifyStage(p) })
				},
			})
			show.end()
			if err := errors.Join(err, ch.Close()); err != nil {
				return err
			}
			return g.printVerified(cmd, r, time.Since(began))
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&full, "full", false, "connect all blocks again that are on disk")
	cmd.Flags().Int32Var(&depth, "depth", verifyDepth, "how many of the last blocks to connect again")
	cmd.Flags().IntVar(&memory, "memory-mb", 512, "memory for the coins that change meanwhile, MiB")
	return cmd
}

func verifyStage(p chain.VerifyProgress) string {
	done, total, unit := p.Done, p.Total, ""
	if p.Stage == "blocks" || p.Stage == "undo" {
		done, total, unit = done>>20, total>>20, " MB"
	}
	if total == 0 {
		return fmt.Sprintf("%s: %d%s", p.Stage, done, unit)
	}
	return fmt.Sprintf("%s: %d of %d%s", p.Stage, done, total, unit)
}

// printVerified prints the report; faults make the command fail.
func (g *global) printVerified(cmd *cobra.Command, r chain.VerifyReport, took time.Duration) error {
	a := verifyAnswer{
		Height: r.Height, Lowest: r.Lowest, Blocks: r.Blocks, Unused: r.Unused, Remains: r.Remains, Undo: r.Undo,
		Coins: r.Coins, Supply: r.Supply, Reconnected: r.Reconnected, Limited: r.Limited,
		FaultCount: r.Faulty, Faults: []faultAnswer{}, TookS: took.Seconds(),
	}
	if r.Claimed >= 0 {
		a.Claimed = &r.Claimed
	}
	for _, f := range r.Faults {
		one := faultAnswer{File: f.File, What: f.What, Mend: f.Mend}
		if f.Offset >= 0 {
			one.Offset = &f.Offset
		}
		a.Faults = append(a.Faults, one)
	}
	if err := g.print(cmd, a, func(w io.Writer) {
		fmt.Fprintf(w, "heights %d to %d: %d blocks, %d undo records, %d coins worth %s\n", r.Lowest, r.Height, r.Blocks, r.Undo, r.Coins, amount(r.Supply))
		switch {
		case r.Claimed >= 0 && r.Claimed == r.Supply:
			fmt.Fprintln(w, "the coins are worth what the blocks claimed")
		case r.Faulty == 0:
			fmt.Fprintln(w, "blocks were pruned, so what they claimed is not known")
		}
		if r.Reconnected > 0 || r.Limited {
			limited := ""
			if r.Limited {
				limited = "; more want more --memory-mb"
			}
			fmt.Fprintf(w, "the last %d blocks were connected again by every rule%s\n", r.Reconnected, limited)
		}
		if r.Remains > 0 {
			fmt.Fprintf(w, "%d damaged places in the files are of no block that is needed\n", r.Remains)
		}
		if r.Faulty == 0 {
			fmt.Fprintf(w, "no damage found in %s\n", took.Round(time.Millisecond))
		}
	}); err != nil {
		return err
	}
	if r.Faulty == 0 {
		return nil
	}
	lines := []string{fmt.Sprintf("%d faults found", r.Faulty)}
	if r.Faulty == 1 {
		lines[0] = "1 fault found"
	}
	for _, f := range r.Faults {
		lines = append(lines, f.Error())
	}
	if more := r.Faulty - len(r.Faults); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// amount is a value in coins, exactly.
func amount(sat int64) string { return fmt.Sprintf("%d.%08d", sat/1e8, sat%1e8) }

func newChainReindex(g *global) *cobra.Command {
	var restart bool
	cmd := &cobra.Command{
		Use:   "reindex",
		Short: "Build index, coins and undo data of a stopped home anew from its block files",
		Long: `reindex mends a damaged home: it removes what can be made anew and checks every block on disk again. What is missing
or damaged in the block files is told; the next start downloads it from peers, and uses the blocks behind it that are still good. If reindex is
cut off, it goes on when it is run again or the node is started. A pruned home cannot be reindexed.

With --tx-index or --address-index on the command line only that index is removed and built anew; the chain stays as it is.`,
		Example: "  dunlin chain reindex\n  dunlin chain reindex --tx-index",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			asked, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			var kinds []index.Kind
			if asked.Storage.TxIndex && cmd.Flags().Changed("tx-index") {
				kinds = append(kinds, index.Txs)
			}
			if asked.Storage.AddressIndex && cmd.Flags().Changed("address-index") {
				kinds = append(kinds, index.Addresses)
			}
			if len(kinds) > 0 {
				return g.reindexSide(cmd, kinds)
			}
			open := func(c *config.Config, log *slog.Logger) (*chain.Chain, error) {
				if err := hasChain(c.Home); err != nil {
					return nil, err
				}
				return node.ReindexChain(c, log, restart)
			}
			return g.withOpened(cmd, open, func(_ context.Context, ch *chain.Chain, _ *slog.Logger) error {
				tip, _ := ch.Tip()
				v := struct {
					Height  int32   `json:"height"`
					TipHash string  `json:"tip_hash"`
					Waiting int     `json:"waiting"`
					TookS   float64 `json:"took_s"`
				}{tip.Height, tip.Hash.String(), ch.Waiting(), time.Since(began).Seconds()}
				return g.print(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "reindexed in %s; tip %d %s\n", time.Since(began).Round(time.Millisecond), v.Height, v.TipHash)
					if v.Waiting > 0 {
						fmt.Fprintf(w, "%d more blocks on disk wait for what is lost below them: the next start brings it from peers\n", v.Waiting)
					}
				})
			})
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&restart, "restart", false, "start over where a reindex was cut off")
	return cmd
}

// reindexSide builds indexes beside the chain anew.
func (g *global) reindexSide(cmd *cobra.Command, kinds []index.Kind) error {
	var c *config.Config
	open := func(conf *config.Config, log *slog.Logger) (*chain.Chain, error) {
		c = conf
		if err := hasChain(c.Home); err != nil {
			return nil, err
		}
		return node.OpenChain(c, log)
	}
	type built struct {
		Index  string  `json:"index"`
		Height int32   `json:"height"`
		Bytes  int64   `json:"bytes"`
		TookS  float64 `json:"took_s"`
	}
	out := []built{}
	return g.withOpened(cmd, open, func(ctx context.Context, ch *chain.Chain, log *slog.Logger) error {
		for _, kind := range kinds {
			began := time.Now()
			show := newProgress(cmd.ErrOrStderr(), log, kind.String())
			s, err := node.BuildIndex(ctx, c, ch, kind, log, func(s index.Status) {
				show.update(func() string { return fmt.Sprintf("%.1f%% %d of %d", s.Percent, s.Height, s.Target) })
			})
			show.end()
			if err != nil {
				return err
			}
			out = append(out, built{kind.String(), s.Height, s.Bytes, time.Since(began).Seconds()})
		}
		return g.print(cmd, out, func(w io.Writer) {
			for _, b := range out {
				fmt.Fprintf(w, "%s built in %.1fs, %.1f MB; height %d\n", b.Index, b.TookS, float64(b.Bytes)/1e6, b.Height)
			}
		})
	})
}

func newChainPrune(g *global) *cobra.Command {
	var keep int
	cmd := &cobra.Command{
		Use:   "prune --keep-mb N",
		Short: "Remove the oldest block files of a stopped home",
		Long: fmt.Sprintf(`prune removes block and undo files, the oldest first and each whole, until they take no more than --keep-mb. The last %d blocks
and the file being written stay in any case. The coins stay: the node goes on as before, but it cannot serve the old blocks, follow a
reorganisation below them, or be reindexed. storage.prune_mb does the same all the time.`, chain.KeepBlocks),
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep < 0 {
				return usage(errors.New("prune: --keep-mb N is wanted, 0 for as little as may be"))
			}
			open := func(c *config.Config, log *slog.Logger) (*chain.Chain, error) {
				if err := hasChain(c.Home); err != nil {
					return nil, err
				}
				return node.OpenChain(c, log)
			}
			return g.withOpened(cmd, open, func(ctx context.Context, ch *chain.Chain, _ *slog.Logger) error {
				r, err := ch.Prune(ctx, int64(keep)<<20)
				if err != nil {
					return err
				}
				v := struct {
					Blocks int   `json:"blocks"`
					Freed  int64 `json:"freed_bytes"`
					Kept   int64 `json:"kept_bytes"`
					Lowest int32 `json:"lowest"`
				}{r.Blocks, r.Freed, r.Kept, r.Lowest}
				return g.print(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "removed %d blocks, %.1f MB; %.1f MB are left, from height %d on\n", r.Blocks, float64(r.Freed)/1e6, float64(r.Kept)/1e6, r.Lowest)
				})
			})
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().IntVar(&keep, "keep-mb", -1, "how much to keep of block and undo files, MiB")
	return cmd
}

// newChainMark is invalidate, reconsider or accept-reorg.
func newChainMark(g *global, what string) *cobra.Command {
	call := (*api.Client).Invalidate
	cmd := &cobra.Command{
		Use:   what + " HASH",
		Short: "Make the running node leave a block, and all that builds on it, for the best other branch",
		Long: `invalidate marks a block as an operator's decision, over restarts: the node leaves it for the best other branch, even one with
less work, and refuses it from now on. reconsider takes that back.`,
		Args: args(cobra.ExactArgs(1)),
	}
	switch what {
	case "accept-reorg":
		call = (*api.Client).AcceptReorg
		cmd.Short = "Let the running node go over to a branch that it refuses for its depth"
		cmd.Long = `accept-reorg is an operator's word for a branch that claims more work, but leaves the chain further below its tip than the network
allows (max_reorg, on networks of stake). Such branches are shown by dunlin chain tips, as refused, and named in the log; HASH is a
block of one. The node goes over to it when its blocks are here, are valid and have more work, now or after a restart. Before you
accept one, find out by other means than peers which branch the others are on: old keys can make any number of them.`
	case "reconsider":
		call = (*api.Client).Reconsider
		cmd.Short = "Make the running node forget that a block was found or declared invalid"
		cmd.Long = `reconsider forgets that a block, its ancestors and all that builds on them were found or declared invalid. What really breaks a
rule is found to do so again.`
	}
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if err := wantHash(a[0], "block hash"); err != nil {
			return err
		}
		c, err := g.client(cmd)
		if err != nil {
			return err
		}
		tip, err := call(c, cmd.Context(), a[0])
		if err != nil {
			return unreachable(err)
		}
		return g.print(cmd, tip, func(w io.Writer) { fmt.Fprintf(w, "tip %d %s\n", tip.Height, tip.TipHash) })
	}
	return cmd
}
