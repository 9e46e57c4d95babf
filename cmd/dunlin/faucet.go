package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/faucet"
)

// Limits of the faucet's HTTP server.
const (
	faucetConns   = 256
	faucetTimeout = 10 * time.Second
	payTimeout    = time.Minute
)

func newFaucet(g *global) *cobra.Command {
	var o faucet.Options
	var listen, give, daily string
	cmd := &cobra.Command{
		Use:   "faucet",
		Short: "Give coins of a test network away: a page, a queue, limits",
		Long: `faucet serves a small page on which people ask for coins, and pays them from the wallet of this home's running node, several in one
transaction. An address and an IP prefix (/24, /48) are paid once in --rest, all together at most --daily in 24 hours; --work asks each for a proof of work.
The limits are forgotten when it ends; what the wallet has is the last one: give it a wallet of its own, unlocked (dunlin wallet unlock).

It is for test networks: on bitcoin it refuses. Put a proxy with TLS before it (--trust-proxy takes the asker's address from it).`,
		Example: "  dunlin wallet unlock --for 24h\n  dunlin faucet --amount 0.5 --daily 100 --work 16\n  curl -s http://127.0.0.1:8090/claims -H 'Content-Type: application/json' -d '{\"address\":\"bcrt1q…\"}'",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var faults []error
			var err error
			if o.Amount, err = satoshi(give); err != nil {
				faults = append(faults, fmt.Errorf("--amount %s: %w", give, err))
			}
			if o.Daily, err = satoshi(daily); err != nil {
				faults = append(faults, fmt.Errorf("--daily %s: %w", daily, err))
			}
			if _, _, err := net.SplitHostPort(listen); err != nil {
				faults = append(faults, fmt.Errorf("--listen %s: must be host:port", listen))
			}
			if err := errors.Join(faults...); err != nil {
				return usage(err)
			}
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			p := c.Chain.Params
			if !p.Test {
				return usage(fmt.Errorf("network %s has value: a faucet is for test networks", p.Name))
			}
			log, _, err := newLogger(cmd.ErrOrStderr(), c)
			if err != nil {
				return err
			}
			o.Network, o.Logger = p.Name, log.With("subsystem", "faucet")
			net := address.Params(p)
			o.Check = func(a string) error { _, err := address.Script(a, net); return err }
			o.Pay = func(ctx context.Context, to []string) (string, error) {
				return g.give(ctx, cmd, p.ChainID(), o.Amount, to)
			}
			f, err := faucet.New(o)
			if err != nil {
				return usage(err)
			}
			node, err := g.client(cmd)
			if err != nil {
				return err
			}
			s, err := node.Status(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if s.ChainID != p.ChainID() {
				return usage(fmt.Errorf("the node is of %s, not of %s: see --network", s.ChainID, p.ChainID()))
			}
			return serveFaucet(cmd.Context(), f, listen, o.Logger)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&listen, "listen", "127.0.0.1:8090", "address of the page")
	fs.StringVar(&give, "amount", "0.1", "coins for each who asks")
	fs.StringVar(&daily, "daily", "10", "most coins in 24 hours")
	fs.DurationVar(&o.Rest, "rest", 24*time.Hour, "until an address or an IP prefix is paid again")
	fs.IntVar(&o.Queue, "queue", 100, "most who wait")
	fs.DurationVar(&o.Interval, "interval", 10*time.Second, "time between two payments")
	fs.IntVar(&o.WorkBits, "work", 0, "zero bits of a proof of work that each must bring (16: a second in a browser)")
	fs.BoolVar(&o.TrustProxy, "trust-proxy", false, "a proxy on this machine says who asks, in X-Forwarded-For")
	return cmd
}

// give pays from the wallet of the running node. Only what the node itself refused was surely not paid.
func (g *global) give(ctx context.Context, cmd *cobra.Command, chainID string, each int64, to []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, payTimeout)
	defer cancel()
	node, err := g.client(cmd) // anew: the node may have been started again
	if err == nil {
		var s api.Status
		if s, err = node.Status(ctx); err == nil && s.ChainID != chainID {
			err = fmt.Errorf("the node is of %s now", s.ChainID)
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", faucet.ErrRefused, err)
	}
	type output struct {
		Address string `json:"address"`
		Amount  int64  `json:"amount"`
	}
	req := struct {
		Outputs []output `json:"outputs"`
		Label   string   `json:"label"`
	}{Label: "faucet"}
	for _, a := range to {
		req.Outputs = append(req.Outputs, output{a, each})
	}
	var sent struct {
		TxID string `json:"txid"`
	}
	err = node.Call(ctx, http.MethodPost, "/api/v1/wallet/send", req, &sent)
	if r, ok := errors.AsType[*api.Error](err); ok && r.Status < http.StatusInternalServerError {
		return "", fmt.Errorf("%w: %w", faucet.ErrRefused, err)
	}
	return sent.TxID, err
}

func serveFaucet(ctx context.Context, f *faucet.Faucet, listen string, log *slog.Logger) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	log.Info("faucet", "url", "http://"+l.Addr().String()+"/")
	server := &http.Server{
		Handler: f, ReadHeaderTimeout: faucetTimeout, ReadTimeout: faucetTimeout, WriteTimeout: faucetTimeout, IdleTimeout: faucetTimeout,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(netutil.LimitListener(l, faucetConns)); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil // Ctrl-C
}

// satoshi reads an amount of coins with at most 8 decimals, exactly.
func satoshi(coins string) (int64, error) {
	const decimals = 8
	bad := errors.New("want coins such as 0.1, with at most 8 decimals")
	whole, fraction, _ := strings.Cut(coins, ".")
	if len(fraction) > decimals || whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, bad
	}
	v, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", decimals-len(fraction)), 10, 64)
	if err != nil || v > 21_000_000*100_000_000 {
		return 0, bad
	}
	return v, nil
}
