package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/gbt"
)

func newMinerGBT(g *global) *cobra.Command {
	var (
		o                          gbt.Options
		to, user, password, cookie string
		authority                  string
	)
	cmd := &cobra.Command{
		Use:   "gbt",
		Short: "Mine through a node's JSON-RPC (getblocktemplate, submitblock): this node's, btcd's, Bitcoin Core's",
		Long: `gbt asks a node for templates, searches for a proof of work on this machine's processors, and hands the blocks in. It follows new blocks by
long polling. Without --url it is the node of this home. --network says what the addresses look like; it must be the node's network.

Each block is told with the node's verdict. Ctrl-C ends it.`,
		Example: `  dunlin miner gbt --threads 2
  dunlin miner gbt --network regtest --url http://127.0.0.1:18334 --user me --password-file pw --address bcrt1q… --blocks 10
  dunlin miner gbt --network regtest --url http://127.0.0.1:18443 --cookie ~/.bitcoin/regtest/.cookie --address bcrt1q…`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Threads < 0 {
				return usage(fmt.Errorf("--threads %d: must not be negative", o.Threads))
			}
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			o.Params = c.Chain.Params
			if o.Params.ProofOfStake() {
				return usage(fmt.Errorf("blocks of %s are made with stake, not by mining: dunlin stake start", o.Params.Name))
			}
			if o.URL == "" {
				if user != "" || password != "" || cookie != "" || authority != "" {
					return usage(errors.New("--user, --password-file, --cookie and --ca are for --url"))
				}
				if to, err = g.ownNode(cmd, c.Home, &o, to); err != nil {
					return err
				}
			} else if err := foreignNode(&o, user, password, cookie, authority); err != nil {
				return usage(err)
			}
			if to == "" {
				return usage(errors.New("--address is required with --url: what the coinbase pays"))
			}
			if o.PayTo, err = address.Script(to, address.Params(o.Params)); err != nil {
				return usage(fmt.Errorf("--address %s: %w", to, err))
			}
			out := cmd.OutOrStdout()
			o.Found = func(f gbt.Found) { g.printFound(out, f) }
			log, _, err := newLogger(cmd.ErrOrStderr(), c)
			if err != nil {
				return err
			}
			o.Logger = log.With("subsystem", "gbt")
			return mineGBT(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.URL, "url", "", "JSON-RPC of the node (default: the node of this home)")
	f.StringVar(&user, "user", "", "user of --url")
	f.StringVar(&password, "password-file", "", "file with the password of --user, so that it stands in no list of processes")
	f.StringVar(&cookie, "cookie", "", "file with user and password, as nodes write it: .cookie, api.cookie")
	f.StringVar(&authority, "ca", "", "certificate to trust for an https --url, a PEM file (btcd's rpc.cert)")
	f.StringVar(&to, "address", "", "address that the blocks pay (default: the one that this home's node pays)")
	f.StringVar(&o.Text, "text", "", fmt.Sprintf("text in the coinbase, at most %d bytes", gbt.MaxText))
	f.IntVar(&o.Threads, "threads", 1, "threads that search; 0: one a processor")
	f.IntVar(&o.Blocks, "blocks", 0, "end after so many accepted blocks (default: never)")
	return cmd
}

func mineGBT(ctx context.Context, o gbt.Options) error {
	m, err := gbt.New(o)
	if err != nil {
		return usage(err)
	}
	o.Logger.Info("mining", "url", o.URL, "network", o.Params.Name, "threads", o.Threads)
	switch err := m.Run(ctx); {
	case errors.Is(err, context.Canceled):
		return nil // Ctrl-C
	case errors.Is(err, gbt.ErrRefused):
		return fmt.Errorf("%s: %w: see --cookie, or --user and --password-file", o.URL, err)
	case err != nil:
		return fmt.Errorf("%s: %w", o.URL, err)
	}
	return nil
}

// ownNode fills in how the node of this home is asked, and returns what its blocks pay.
func (g *global) ownNode(cmd *cobra.Command, home string, o *gbt.Options, to string) (string, error) {
	client, err := g.client(cmd)
	if err != nil {
		return "", err
	}
	token, err := api.ReadToken(home)
	if err != nil {
		return "", err
	}
	o.User, o.Password, _ = strings.Cut(token, ":")
	o.URL, o.HTTP = client.Endpoint()
	if to != "" {
		return to, nil
	}
	s, err := client.Miner(cmd.Context())
	return s.Address, unreachable(err)
}

// foreignNode fills in how another node is asked.
func foreignNode(o *gbt.Options, user, password, cookie, authority string) error {
	read := func(flag, name string) (string, error) {
		raw, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", flag, err)
		}
		return strings.TrimSpace(string(raw)), nil
	}
	switch {
	case cookie != "" && (user != "" || password != ""):
		return errors.New("--cookie, or --user and --password-file: not both")
	case (user == "") != (password == ""):
		return errors.New("--user and --password-file go together")
	case cookie != "":
		text, err := read("--cookie", cookie)
		if err != nil {
			return err
		}
		var ok bool
		if o.User, o.Password, ok = strings.Cut(text, ":"); !ok {
			return fmt.Errorf("--cookie %s: is not user:password", cookie)
		}
	case user != "":
		text, err := read("--password-file", password)
		if err != nil {
			return err
		}
		o.User, o.Password = user, text
	}
	if authority == "" {
		return nil
	}
	pem, err := read("--ca", authority)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return fmt.Errorf("--ca %s: holds no certificate", authority)
	}
	o.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	return nil
}

// printFound tells of a block as it is found: a line, or a JSON line.
func (g *global) printFound(out io.Writer, f gbt.Found) {
	if g.output != "table" {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		_ = e.Encode(f) // whoever closed the pipe knows
		return
	}
	verdict := "accepted"
	if f.Verdict != "" {
		verdict = "refused: " + printable(f.Verdict)
	}
	fmt.Fprintf(out, "block %d %s txs=%d %s after %.1fs\n", f.Height, f.Hash, f.Txs, verdict, f.Searched)
}
