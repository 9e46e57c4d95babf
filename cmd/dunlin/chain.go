package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"

	"dunlin/chain"
	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/node"
)

func newChain(g *global) *cobra.Command {
	return group("chain", "The chain: look at it, import, export and mend it",
		newChainHead(g), newChainBlock(g), newChainList(g), newChainTips(g), newChainImport(g), newChainExport(g), newChainVerify(g), newChainReindex(g), newChainPrune(g),
		newChainMark(g, "invalidate"), newChainMark(g, "reconsider"), newChainMark(g, "accept-reorg"))
}

func newChainHead(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "head", Short: "Print the validated tip of the running node", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			b, err := c.Head(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			return g.print(cmd, b, func(w io.Writer) { printBlock(w, b) })
		},
	}
}

func newChainBlock(g *global) *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use: "block HEIGHT|HASH", Short: "Print a block", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			if raw {
				hex, err := c.RawBlock(cmd.Context(), a[0])
				if err != nil {
					return misused(err)
				}
				return g.print(cmd, api.RawBlockAnswer{Hex: hex}, func(w io.Writer) { fmt.Fprintln(w, hex) })
			}
			b, err := c.Block(cmd.Context(), a[0])
			if err != nil {
				return misused(err)
			}
			return g.print(cmd, b, func(w io.Writer) { printBlock(w, b) })
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print the block's bytes as hex")
	return cmd
}

func printBlock(w io.Writer, b api.Block) {
	t := newTable(w)
	fmt.Fprintf(t, "height\t%d\nhash\t%s\nprevious\t%s\nmerkle root\t%s\ntime\t%s\n", b.Height, b.Hash, b.PreviousHash, b.MerkleRoot, b.Time.Format(time.RFC3339))
	fmt.Fprintf(t, "bits\t%s\nnonce\t%d\nversion\t%08x\ntransactions\t%d\nsize\t%d bytes, weight %d\n", b.Bits, b.Nonce, uint32(b.Version), b.Txs, b.Size, b.Weight)
	fmt.Fprintf(t, "active\t%v\n", b.Active)
	if b.Slot != nil {
		fmt.Fprintf(t, "slot\t%d\n", *b.Slot)
	}
	if b.Stake != nil && b.Validator != nil && b.Share != nil {
		fmt.Fprintf(t, "validator\t%s\nstake\t%s of %s, share %.1f%%\n", *b.Validator, b.Stake.OutPoint(), amount(b.Stake.Value), 100**b.Share)
	}
	if b.Data != "" {
		fmt.Fprintf(t, "data\t%s\n", printable(b.Data))
	}
	if b.CoinbaseText != "" {
		fmt.Fprintf(t, "coinbase\t%s\n", printable(b.CoinbaseText))
	}
	t.Flush()
}

func newChainList(g *global) *cobra.Command {
	var last int
	cmd := &cobra.Command{
		Use: "list", Short: "Print the last blocks with their data and coinbase text", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 1 || last > 1000 {
				return usage(fmt.Errorf("--last %d: must be 1 to 1000", last))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			blocks, err := c.LastBlocks(cmd.Context(), last)
			if err != nil {
				return unreachable(err)
			}
			return g.print(cmd, blocks, func(w io.Writer) {
				heads, staked := []string{"HEIGHT", "HASH", "TIME", "TXS", "BYTES", "DATA", "COINBASE"}, len(blocks) > 0 && blocks[0].Slot != nil
				if staked {
					heads = append(heads, "SLOT", "VALIDATOR")
				}
				t := newTable(w, heads...)
				for _, b := range blocks {
					fmt.Fprintf(t, "%d\t%s…%s\t%s\t%d\t%d\t%s\t%s", b.Height, b.Hash[:12], b.Hash[60:], b.Time.Format(time.RFC3339), b.Txs, b.Size, printable(b.Data), printable(b.CoinbaseText))
					if staked && b.Slot != nil && b.Validator != nil {
						fmt.Fprintf(t, "\t%d\t%s", *b.Slot, *b.Validator)
					}
					fmt.Fprintln(t)
				}
				t.Flush()
			})
		},
	}
	cmd.Flags().IntVar(&last, "last", 10, "how many blocks, 1 to 1000")
	return cmd
}

func newChainTips(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "tips", Short: "Print every branch that the node knows, the active one first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			tips, err := c.Tips(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			return g.print(cmd, tips, func(w io.Writer) {
				t := newTable(w, "HEIGHT", "HASH", "BRANCH", "STATUS")
				for _, tip := range tips {
					fmt.Fprintf(t, "%d\t%s\t%d\t%s\n", tip.Height, tip.Hash, tip.Branch, tip.Status)
				}
				t.Flush()
			})
		},
	}
}

// withChain runs f on the chain of a stopped home.
func (g *global) withChain(cmd *cobra.Command, f func(context.Context, *chain.Chain, *slog.Logger) error) error {
	return g.withOpened(cmd, func(c *config.Config, log *slog.Logger) (*chain.Chain, error) {
		if err := config.EnsureHome(c.Home); err != nil {
			return nil, err
		}
		return node.OpenChain(c, log)
	}, f)
}

// opener opens the chain in the home of a config.
type opener func(*config.Config, *slog.Logger) (*chain.Chain, error)

func (g *global) withOpened(cmd *cobra.Command, open opener, f func(context.Context, *chain.Chain, *slog.Logger) error) (err error) {
	c, err := g.load(cmd.Flags())
	if err != nil {
		return err
	}
	log, _, err := newLogger(cmd.ErrOrStderr(), c)
	if err != nil {
		return err
	}
	ch, err := open(c, log)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w (this command works on a stopped home)", err)
	}
	if err != nil {
		return homeFault(err)
	}
	// As after a start, the home remembers its network from now on.
	if _, err := c.WriteFile(); err != nil {
		return errors.Join(err, ch.Close())
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	ran := make(chan error, 1)
	go func() { ran <- ch.Run(ctx) }()
	defer func() {
		cancel()
		if e := <-ran; e != nil && !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
		err = errors.Join(err, ch.Close())
	}()
	if e, ended := awaitReplay(ctx, ch, ran, newProgress(cmd.ErrOrStderr(), log, "reading blocks")); ended {
		ran <- nil
		return e
	} else if e != nil {
		return e
	}
	return f(ctx, ch, log)
}

// awaitReplay waits until ch is ready; ended says that Run ended before, with err.
func awaitReplay(ctx context.Context, ch *chain.Chain, ran <-chan error, show *progress) (err error, ended bool) { //nolint:revive // ended qualifies err
	defer show.end()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ch.Ready():
			return nil, false
		case err := <-ran:
			return err, true
		case <-ctx.Done():
			return ctx.Err(), false
		case <-tick.C:
			p := ch.Replay()
			show.of(p.Bytes, p.Total, func() string { return fmt.Sprintf("%d of %d MB, height %d", p.Bytes>>20, p.Total>>20, p.Height) })
		}
	}
}

func newChainImport(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Read blocks from a bootstrap.dat file, plain or zstd, into a stopped home",
		Long: `import checks every block by the network's rules and keeps what is valid. Blocks that are there already are passed over,
so an import that was interrupted goes on where it was. Blocks may come in any order; what lies between them and is none is passed over and told.
FILE - is standard input.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			in := cmd.InOrStdin()
			var size int64
			if a[0] != "-" {
				f, err := os.Open(a[0])
				if err != nil {
					return err
				}
				defer f.Close()
				if info, err := f.Stat(); err == nil {
					size = info.Size()
				}
				in = f
			}
			return g.withChain(cmd, func(ctx context.Context, ch *chain.Chain, log *slog.Logger) error {
				start := time.Now()
				counted := &countingReader{r: in}
				show := newProgress(cmd.ErrOrStderr(), log, "import")
				p, err := ch.Import(ctx, counted, func(p chain.ImportProgress) {
					show.of(counted.n, size, func() string {
						return fmt.Sprintf("height %d, %d blocks, %.0f blk/s", p.Height, p.Blocks, float64(p.Blocks)/time.Since(start).Seconds())
					})
				})
				show.end()
				if p.Garbage > 0 {
					log.Warn("the file holds bytes that are no block, they were passed over", "bytes", p.Garbage, "first_offset", p.GarbageAt)
				}
				tip, _ := ch.Tip()
				took := time.Since(start)
				v := struct {
					Blocks  int     `json:"blocks"`
					Added   int     `json:"added"`
					Known   int     `json:"known"`
					Garbage int64   `json:"garbage_bytes"`
					Height  int32   `json:"height"`
					TipHash string  `json:"tip_hash"`
					TookS   float64 `json:"took_s"`
				}{p.Blocks, p.Added, p.Known, p.Garbage, tip.Height, tip.Hash.String(), took.Seconds()}
				if perr := g.print(cmd, v, func(w io.Writer) {
					fmt.Fprintf(w, "read %d blocks (%d new, %d known) in %s; tip %d %s\n", v.Blocks, v.Added, v.Known, took.Round(time.Millisecond), v.Height, v.TipHash)
				}); perr != nil {
					return perr
				}
				switch {
				case ctx.Err() != nil && errors.Is(err, context.Canceled):
					return fmt.Errorf("%s: %w at height %d: run it again, what is there is passed over", a[0], context.Cause(ctx), tip.Height)
				case err != nil:
					return fmt.Errorf("%s: %w", a[0], err)
				}
				return nil
			})
		},
	}
	config.Flags(cmd.Flags())
	return cmd
}

func newChainExport(g *global) *cobra.Command {
	var from, to int32
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Write the active chain of a stopped home in bootstrap.dat form",
		Long:  `export writes blocks with their network's magic and length, as import reads them. A FILE that ends in .zst is compressed; - is standard output.`,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if from < 0 {
				return usage(fmt.Errorf("--from %d: must not be negative", from))
			}
			if to >= 0 && to < from {
				return usage(fmt.Errorf("--to %d: must not be below --from %d", to, from))
			}
			var last int32
			err := g.withChain(cmd, func(ctx context.Context, ch *chain.Chain, log *slog.Logger) (err error) {
				out := cmd.OutOrStdout()
				show := newProgress(cmd.ErrOrStderr(), log, "export")
				defer show.end()
				var size int64 // of what is exported, if that is all
				if c, err := g.load(cmd.Flags()); err == nil && from == 0 && to < 0 {
					size = blockFileBytes(c.Home)
				}
				if a[0] != "-" {
					f, openErr := os.OpenFile(a[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
					if errors.Is(openErr, os.ErrExist) {
						return usage(fmt.Errorf("%s exists: choose another file", a[0]))
					}
					if openErr != nil {
						return openErr
					}
					defer func() {
						err = errors.Join(err, f.Sync(), f.Close())
						if err != nil { // half a file would look like a whole one
							err = errors.Join(err, os.Remove(a[0]))
						}
					}()
					out = f
				}
				buf := bufio.NewWriterSize(out, 1<<20)
				var w io.Writer = buf
				if strings.HasSuffix(a[0], ".zst") {
					z, zErr := zstd.NewWriter(buf)
					if zErr != nil {
						return zErr
					}
					defer func() { err = errors.Join(err, z.Close(), buf.Flush()) }()
					w = z
				}
				if err := ch.Export(ctx, &shownWriter{w: w, show: show, size: size}, from, to); err != nil {
					return err
				}
				if w == io.Writer(buf) {
					if err := buf.Flush(); err != nil {
						return err
					}
				}
				tip, _ := ch.Tip()
				last = tip.Height
				if to >= 0 {
					last = min(to, last)
				}
				return nil
			})
			if err == nil && a[0] != "-" { // it is whole and on disk now
				fmt.Fprintf(cmd.ErrOrStderr(), "wrote blocks %d to %d into %s\n", from, last, a[0])
			}
			return err
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().Int32Var(&from, "from", 0, "first height")
	cmd.Flags().Int32Var(&to, "to", -1, "last height (default the tip)")
	return cmd
}

// printable replaces what a stranger's text could steer a terminal with.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}

// countingReader counts what is read through it.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Seek lets an import read a file's headers first. A pipe cannot.
func (c *countingReader) Seek(offset int64, whence int) (int64, error) {
	s, ok := c.r.(io.Seeker)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	at, err := s.Seek(offset, whence)
	if err == nil {
		c.n = at
	}
	return at, err
}

// ReadAt lets an import read a block of a file again. A pipe cannot.
func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r, ok := c.r.(io.ReaderAt)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return r.ReadAt(p, off)
}

// A shownWriter shows how much was written through it.
type shownWriter struct {
	w       io.Writer
	show    *progress
	n, size int64 // size 0: unknown
}

func (s *shownWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	s.show.of(s.n, s.size, func() string { return fmt.Sprintf("%d MB", s.n>>20) })
	return n, err
}

// blockFileBytes is how much the block files of a home have; 0 if that cannot be told.
func blockFileBytes(home string) (sum int64) {
	files, _ := filepath.Glob(filepath.Join(home, "blocks", "*.blk")) // the pattern is right
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			sum += info.Size()
		}
	}
	return sum
}
