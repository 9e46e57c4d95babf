package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/discovery"
	"dunlin/internal/api"
	"dunlin/internal/node"
)

// errNoNode says that no node answers, so that its home may be looked at itself.
var errNoNode = errors.New("no node runs")

// runningOr returns the client of the running node. errNoNode: there is none, and the operator did not name one.
func (g *global) runningOr(cmd *cobra.Command) (*api.Client, error) {
	c, err := g.client(cmd)
	if err == nil && g.rpc == "" {
		if _, err = c.Status(cmd.Context()); err == nil {
			return c, nil
		}
	}
	if g.rpc == "" && errors.Is(err, api.ErrUnreachable) {
		return nil, errNoNode
	}
	return c, err
}

// withBook runs f on the address book of a stopped home.
func (g *global) withBook(cmd *cobra.Command, f func(*discovery.Book) error) error {
	c, err := g.load(cmd.Flags())
	if err != nil {
		return err
	}
	log, _, err := newLogger(cmd.ErrOrStderr(), c)
	if err != nil {
		return err
	}
	book, unlock, err := node.OpenBook(c, log)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w, whose HTTP interface does not answer", err)
	}
	if err != nil {
		return err
	}
	return errors.Join(f(book), unlock.Close())
}

func newPeersExport(g *global) *cobra.Command {
	var format string
	var proven bool
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write the peers that the node knows, running or stopped, to a file",
		Long: `export writes the address book, the peers that answered first: a JSON object a line with full multiaddrs and, from a running node, the peer's
signed record; or with --format text a full multiaddr a line. The file is replaced as a whole; - is standard output.`,
		Example: "  dunlin peers export peers.jsonl\n  dunlin peers import --home other peers.jsonl",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if format != "jsonl" && format != "text" {
				return usage(fmt.Errorf("--format %q: must be jsonl or text", format))
			}
			var known []discovery.KnownPeer
			c, err := g.runningOr(cmd)
			switch {
			case errors.Is(err, errNoNode):
				err = g.withBook(cmd, func(b *discovery.Book) error { known = b.Export(proven); return nil })
			case err == nil:
				var book []api.BookPeer
				book, err = c.Book(cmd.Context(), proven)
				for _, p := range book {
					known = append(known, discovery.KnownPeer(p))
				}
				err = unreachable(err)
			}
			if err != nil {
				return err
			}
			var out bytes.Buffer
			if err := discovery.WriteKnown(&out, known, format == "text"); err != nil {
				return err
			}
			if a[0] == "-" {
				_, err := cmd.OutOrStdout().Write(out.Bytes())
				return err
			}
			if err := replaceFile(a[0], out.Bytes()); err != nil {
				return fmt.Errorf("export: %w", err)
			}
			v := struct {
				Peers int    `json:"peers"`
				File  string `json:"file"`
			}{len(known), a[0]}
			return g.print(cmd, v, func(w io.Writer) { fmt.Fprintf(w, "%d peers written to %s\n", v.Peers, v.File) })
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or text")
	cmd.Flags().BoolVar(&proven, "proven", false, "only peers that answered")
	return cmd
}

func newPeersImport(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Read peers from a file into the address book of a node, running or stopped",
		Long: `import reads what export writes, or a list of full multiaddrs, one a line; empty lines and those that begin with # are passed over. A line that
cannot be used is told and costs itself only; if none can, the exit code is 1. At most 8 MiB are read; - is standard input.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			in := cmd.InOrStdin()
			if a[0] != "-" {
				f, err := os.Open(a[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			var report api.BookImport
			c, err := g.runningOr(cmd)
			switch {
			case errors.Is(err, errNoNode):
				err = g.withBook(cmd, func(b *discovery.Book) error {
					r, err := b.Import(in)
					report = api.BookImport(r)
					return err
				})
			case err == nil:
				var list []byte
				if list, err = io.ReadAll(io.LimitReader(in, discovery.MaxImportBytes+1)); err != nil {
					return fmt.Errorf("%s: %w", a[0], err)
				}
				if len(list) > discovery.MaxImportBytes {
					return fmt.Errorf("%s: more than %d bytes", a[0], discovery.MaxImportBytes)
				}
				report, err = c.ImportBook(cmd.Context(), string(list))
				err = unreachable(err)
			}
			if err != nil {
				return err
			}
			if err := g.print(cmd, report, func(w io.Writer) {
				fmt.Fprintf(w, "%d peers read: %d new, %d known, %d without a place\n", report.Peers, report.Added, report.Known, report.NoPlace)
			}); err != nil {
				return err
			}
			if report.Damaged == 0 {
				return nil
			}
			for _, f := range report.Faults {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", a[0], f)
			}
			if more := report.Damaged - len(report.Faults); more > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: and %d lines more\n", a[0], more)
			}
			if report.Peers == 0 {
				return fmt.Errorf("%s: no line could be used", a[0])
			}
			return nil
		},
	}
	config.Flags(cmd.Flags())
	return cmd
}

// replaceFile writes a file beside its place, syncs and renames it.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
