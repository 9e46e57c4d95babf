package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
	"dunlin/internal/command"
)

// Limits and aims of the load on a node that syncs.
const (
	apiConns   = 8 // connections that are kept open
	apiAimP99  = 20 * time.Millisecond
	apiAimSlow = 15.0 // percent
)

// apiOptions are the flags.
type apiOptions struct {
	chain, dunlin, work, json string
	runs, rate                int
	check                     bool
}

// apiReport is what a run found.
type apiReport struct {
	Bench    string    `json:"bench"`
	At       time.Time `json:"at"`
	Machine  machine   `json:"machine"`
	Dunlin   string    `json:"dunlin"`
	Blocks   int       `json:"blocks"`
	Rate     int       `json:"rate"`     // requests a second asked for
	Quiet    []float64 `json:"quiet_s"`  // syncs without load
	Loaded   []float64 `json:"loaded_s"` // and with
	Requests int       `json:"requests"`
	Failed   int       `json:"failed"`
	P50MS    float64   `json:"p50_ms"` // from when a request was due to its whole answer
	P99MS    float64   `json:"p99_ms"`
	MostMS   float64   `json:"most_ms"`
	SlowerPC float64   `json:"slower_percent"` // medians
}

func newAPI() *cobra.Command {
	var o apiOptions
	cmd := &cobra.Command{
		Use:   "api",
		Short: "Time the status route while a node syncs, and the sync meanwhile",
		Long: `api imports a chain file into the home of a server and has fresh clients download it over loopback, in turns left
alone and asked for GET /api/v1/status at a fixed rate over 8 connections. A request's time runs from when it was due, so that
waiting for a slow answer before it counts. What asks runs on the same machine, and slows the sync too.`,
		Example: "  dunlin-bench api --chain mainnet-blocks-0-14131.dat.zst --runs 7 --check",
		Args:    command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAPI(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.chain, "chain", "", "file of blocks in bootstrap.dat form, plain or zstd")
	f.IntVar(&o.runs, "runs", 5, "pairs of syncs, 1 to 100")
	f.IntVar(&o.rate, "rate", 500, "requests a second, 1 to 20000")
	f.StringVar(&o.json, "json", "", "write the figures to this file, too")
	f.StringVar(&o.dunlin, "dunlin", "", "the binary to measure (default: dunlin beside this program, else built from the module of this folder)")
	f.StringVar(&o.work, "work", "", "folder for homes and logs (default: the system's for temporary files)")
	f.BoolVar(&o.check, "check", false, fmt.Sprintf("exit with code 3 if p99 is over %v or the sync is slower by over %.0f%%", apiAimP99, apiAimSlow))
	return cmd
}

func runAPI(ctx context.Context, stdout, stderr io.Writer, o apiOptions) error {
	if o.chain == "" || o.runs < 1 || o.runs > 100 || o.rate < 1 || o.rate > 20_000 {
		return command.Usage(errors.New("--chain FILE is needed, --runs is 1 to 100, --rate 1 to 20000"))
	}
	chain, err := scanChain(o.chain)
	if err != nil {
		return err
	}
	return withDaemons(ctx, stderr, o.work, o.dunlin, false, func(_ *procs, ours *dunlins) error {
		return measureAPI(ctx, stdout, stderr, o, ours, chain)
	})
}

func measureAPI(ctx context.Context, stdout, stderr io.Writer, o apiOptions, ours *dunlins, chain *chainFile) (err error) {
	r := apiReport{Bench: "api", At: time.Now(), Machine: thisMachine(), Blocks: chain.blocks, Rate: o.rate}
	if r.Dunlin, err = ours.version(ctx); err != nil {
		return err
	}
	servers, err := ours.serve(ctx, "api", chain, 1)
	if err != nil {
		return err
	}
	var all []time.Duration
	for run := range 2 * o.runs {
		rate := 0
		if run%2 == 1 {
			rate = o.rate
		}
		home := filepath.Join(ours.dir, "client")
		took, waits, failed, err := loadedSync(ctx, ours, chain, servers[0], home, rate)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(home); err != nil {
			return err
		}
		if rate == 0 {
			r.Quiet = append(r.Quiet, took.Seconds())
		} else {
			r.Loaded = append(r.Loaded, took.Seconds())
		}
		r.Failed += failed
		all = append(all, waits...)
		fmt.Fprintf(stderr, "run %d, %d requests/s: %.2f s\n", run/2+1, rate, took.Seconds())
	}
	slices.Sort(all)
	if r.Requests = len(all); r.Requests == 0 {
		return errors.New("no request was answered while the node synced: the chain is too short")
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.P50MS, r.P99MS, r.MostMS = ms(all[len(all)/2]), ms(all[len(all)*99/100]), ms(all[len(all)-1])
	r.SlowerPC = 100 * (median(r.Loaded)/median(r.Quiet) - 1)
	fmt.Fprintf(stdout, "status at %d requests/s while %d blocks sync: p50 %.2f ms, p99 %.2f ms, most %.1f ms of %d requests, %d failed\n",
		r.Rate, r.Blocks, r.P50MS, r.P99MS, r.MostMS, r.Requests, r.Failed)
	fmt.Fprintf(stdout, "sync, medians of %d: %.3f s alone, %.3f s under load, %.0f%% slower\n", o.runs, median(r.Quiet), median(r.Loaded), r.SlowerPC)
	if o.json != "" {
		if err := writeJSON(o.json, r); err != nil {
			return err
		}
	}
	if o.check && (r.Failed > 0 || r.P99MS > ms(apiAimP99) || r.SlowerPC > apiAimSlow) {
		return command.Exit(exitBarred, errors.New("not met: the figures above"))
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// loadedSync times one sync, asked for its status at a rate (0: only by the one that waits for the end) from when it
// answers until it has all blocks.
func loadedSync(ctx context.Context, ours *dunlins, chain *chainFile, server *node, home string, rate int) (took time.Duration, waits []time.Duration, failed int, err error) {
	n, err := ours.client(ctx, chain, home, []remote{{server, server.listen}}, nil)
	if err != nil {
		return 0, nil, 0, err
	}
	defer func() { err = errors.Join(err, ours.procs.stop(n.child)) }()
	loadCtx, stop := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer stop()
	begun := false
	err = n.await(ctx, syncTimeout, func(_ int32, hash string) (bool, error) {
		if !begun && rate > 0 {
			begun = true
			info, err := api.ReadNodeFile(home)
			if err != nil {
				return false, err
			}
			asked.Go(func() { waits, failed = askAt(loadCtx, info.RPCAddr, rate) })
		}
		return hash == chain.last.String(), nil
	})
	took = time.Since(n.at)
	stop()
	asked.Wait()
	return took, waits, failed, err
}

// askAt asks for the status at a rate until ctx ends, and tells how long each answer took from when its request was due.
func askAt(ctx context.Context, addr string, rate int) (waits []time.Duration, failed int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	start := time.Now()
	for i := range apiConns {
		all.Go(func() {
			mine, bad := askOver(ctx, addr, start, time.Duration(i)*time.Second/time.Duration(rate), apiConns*time.Second/time.Duration(rate))
			mu.Lock()
			defer mu.Unlock()
			waits, failed = append(waits, mine...), failed+bad
		})
	}
	all.Wait()
	return waits, failed
}

// askOver asks over one connection, the first time after a while, then at intervals.
func askOver(ctx context.Context, addr string, start time.Time, after, every time.Duration) (waits []time.Duration, failed int) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		if ctx.Err() == nil {
			failed++
		}
		return nil, failed
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	from := bufio.NewReader(c)
	request := []byte("GET /api/v1/status HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := start.Add(after); ; due = due.Add(every) {
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return waits, failed
			}
		}
		_, err := c.Write(request)
		if err == nil {
			var w *http.Response
			if w, err = http.ReadResponse(from, nil); err == nil {
				_, err = io.Copy(io.Discard, w.Body)
				if w.StatusCode != http.StatusOK {
					err = errors.New(w.Status)
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return waits, failed // the last answer was not waited for
		case err != nil:
			return waits, failed + 1
		}
		waits = append(waits, time.Since(due))
	}
}
