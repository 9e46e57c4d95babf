package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
	"dunlin/internal/command"
)

func newSync(g *global) *cobra.Command {
	return group("sync", "The download of the chain: look at it, wait for it", newSyncStatus(g), newSyncWait(g))
}

func newSyncStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Print how far the sync is and, if it stands, why", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			s, err := c.Sync(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			return g.print(cmd, s, func(w io.Writer) { printSync(w, &s, time.Now()) })
		},
	}
}

// printSync writes what is known of a sync at a time.
func printSync(w io.Writer, s *api.Sync, now time.Time) {
	t := newTable(w)
	fmt.Fprintf(t, "state\t%s for %v\n", s.State, since(now, s.Since))
	if s.Reason != "" {
		fmt.Fprintf(t, "reason\t%s\n", s.Reason)
	}
	fmt.Fprintf(t, "height\t%d of %d, %.1f%% (headers %d)\n", s.Height, s.TargetHeight, shownPercent(&s.SyncStatus), s.HeaderHeight)
	fmt.Fprintf(t, "rate\t%.0f blk/s, %.1f MB/s\n", s.BlocksPerS, s.BytesPerS/1e6)
	if s.State != api.StateSynced {
		eta := "unknown"
		if s.ETAS != nil {
			eta = (time.Duration(*s.ETAS) * time.Second).String()
		}
		fmt.Fprintf(t, "eta\t%s\n", eta)
		fmt.Fprintf(t, "behind\t%v\n", time.Duration(s.BehindS)*time.Second)
	}
	fmt.Fprintf(t, "peers\t%d, %d serving\n", s.Peers, s.Serving)
	fmt.Fprintf(t, "in flight\t%d of %d requests, %.1f MB\n", s.InFlight, s.InFlightLimit, float64(s.InFlightBytes)/1e6)
	fmt.Fprintf(t, "buffered\t%.1f MB; with what is in flight at most %.1f MB\n", float64(s.BufferedBytes)/1e6, float64(s.ByteLimit)/1e6)
	if l := s.LastStall; l != nil {
		fmt.Fprintf(t, "late blocks\t%d in this sync\n", s.Stalls)
		fmt.Fprintf(t, "the last\t%d, %v ago: %s held it up for %.1fs; %s\n", l.Height, since(now, l.At), l.Holder, l.WaitedS, askedInstead(l))
	}
	t.Flush()
}

// shownPercent is cut, not rounded: 100.0% is told only of what is complete.
func shownPercent(s *api.SyncStatus) float64 { return float64(int(s.Percent*10)) / 10 }

func askedInstead(l *api.Stall) string {
	if l.Asked == "" {
		return "nobody else has it"
	}
	return fmt.Sprintf("asked %s (attempt %d)", l.Asked, l.Attempt)
}

// since is a time span for people; clocks of two machines may differ.
func since(now, at time.Time) time.Duration { return max(0, now.Sub(at)).Round(time.Second) }

const (
	// waitEvery is how often sync wait asks.
	waitEvery = 200 * time.Millisecond
	// answerWithin is how long a node may take to answer; it needs a millisecond.
	answerWithin = 10 * time.Second
)

func newSyncWait(g *global) *cobra.Command {
	var timeout time.Duration
	var height int32
	var synced bool
	cmd := &cobra.Command{
		Use:   "wait [--synced | --height N]",
		Short: "Wait until the node is synced, or at a height",
		Long: `wait ends with code 0 once the node is synced or, with --height, once its validated tip is at that height or above. With
code 3 it ends when the timeout is over, saying how far the sync is and why it stands, and with code 4 as soon as no node
answers. On a terminal it shows the progress meanwhile.`,
		Example: `  dunlin sync wait && run-what-needs-a-synced-node
  dunlin sync wait --height 840000 --timeout 1h -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			byHeight := cmd.Flags().Changed("height")
			switch {
			case byHeight && synced:
				return usage(errors.New("--synced and --height: give one of them"))
			case height < 0:
				return usage(fmt.Errorf("--height %d: must not be negative", height))
			case timeout < 0:
				return usage(fmt.Errorf("--timeout %v: must not be negative", timeout))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			w := syncWait{
				status: c.Status, show: newProgress(cmd.ErrOrStderr(), slog.New(slog.DiscardHandler), "syncing"), timeout: timeout,
				done: func(s *api.Status) bool {
					if byHeight {
						return s.Height >= height
					}
					return s.Sync.State == api.StateSynced
				},
			}
			if g.output != "table" {
				w.show.tty = false
			}
			s, waited, err := w.run(cmd.Context())
			if err != nil && waited == 0 {
				return err
			}
			v := waitAnswer{
				Done: err == nil, State: s.Sync.State, Height: s.Height, HeaderHeight: s.HeaderHeight, TargetHeight: s.TargetHeight,
				TipHash: s.TipHash, Reason: s.Sync.Reason, WaitedS: waited.Round(time.Millisecond).Seconds(),
			}
			if perr := g.print(cmd, v, func(out io.Writer) {
				if err == nil {
					fmt.Fprintf(out, "ok: %s at height %d after %v\n", v.State, v.Height, waited.Round(100*time.Millisecond))
				}
			}); perr != nil {
				return perr
			}
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&timeout, "timeout", 0, "give up after this time (default: never)")
	f.Int32Var(&height, "height", 0, "wait for this height of the validated tip")
	f.BoolVar(&synced, "synced", false, "wait until no peer has a better chain and ours is validated (the default)")
	return cmd
}

// waitAnswer is what sync wait prints as JSON, also when it gives up.
type waitAnswer struct {
	Done         bool    `json:"done"`
	State        string  `json:"state"`
	Height       int32   `json:"height"`
	HeaderHeight int32   `json:"header_height"`
	TargetHeight int32   `json:"target_height"`
	TipHash      string  `json:"tip_hash"`
	Reason       string  `json:"reason"`
	WaitedS      float64 `json:"waited_s"`
}

// syncWait polls a node until it is where it shall be.
type syncWait struct {
	status  func(context.Context) (api.Status, error)
	done    func(*api.Status) bool
	show    *progress
	timeout time.Duration // 0: none
}

// run returns the last status and how long it waited. waited is 0 if there is no
// status to tell: the node does not answer.
func (w *syncWait) run(ctx context.Context) (s api.Status, waited time.Duration, err error) {
	start := time.Now()
	defer w.show.end()
	var over <-chan time.Time
	if w.timeout > 0 {
		t := time.NewTimer(w.timeout)
		defer t.Stop()
		over = t.C
	}
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		if s, err = w.ask(ctx); err != nil {
			return s, 0, err
		}
		if w.done(&s) {
			return s, max(time.Since(start), 1), nil
		}
		w.show.update(func() string { return syncLine(&s) })
		select {
		case <-tick.C:
		case <-over:
			why := ""
			if s.Sync.Reason != "" {
				why = ": " + s.Sync.Reason
			}
			return s, max(time.Since(start), 1), command.Exit(exitNotReady, fmt.Errorf("not ready after %v: %s, height %d of %d%s", w.timeout, s.Sync.State, s.Height, s.TargetHeight, why))
		case <-ctx.Done():
			return s, 0, ctx.Err()
		}
	}
}

// ask asks once. A node that hangs is as good as none.
func (w *syncWait) ask(ctx context.Context) (api.Status, error) {
	call, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	s, err := w.status(call)
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return s, ctx.Err()
	case call.Err() != nil:
		return s, command.Exit(exitUnreachable, fmt.Errorf("no answer within %v: the node hangs", answerWithin))
	}
	return s, unreachable(err)
}

// syncLine is the progress of a status in one line.
func syncLine(s *api.Status) string {
	eta := "unknown"
	if s.Sync.ETAS != nil {
		eta = (time.Duration(*s.Sync.ETAS) * time.Second).String()
	}
	line := fmt.Sprintf("%.1f%% %d/%d | %.0f blk/s | eta %s | %.1f MB/s", shownPercent(&s.Sync), s.Height, s.TargetHeight, s.Sync.BlocksPerS, eta, s.Sync.BytesPerS/1e6)
	if s.Sync.State != api.StateBlocks {
		line = s.Sync.State + " | " + line
	}
	if s.Sync.Reason != "" {
		line += " | " + s.Sync.Reason
	}
	return line
}
