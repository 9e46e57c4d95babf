package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/internal/api"
)

// TestSyncWait: it ends when the node is there, when its time is over, when nobody
// answers any more and when the one who waits gives up: each with its code.
func TestSyncWait(t *testing.T) {
	blocks := func(height int32) api.Status {
		return api.Status{Height: height, TargetHeight: 100, Sync: api.SyncStatus{State: api.StateBlocks, Percent: float64(height)}}
	}
	for _, c := range []struct {
		name    string
		timeout time.Duration
		answer  func(ctx context.Context, call int) (api.Status, error)
		code    int
		waited  time.Duration
		says    string
	}{
		{
			"at once", 0,
			func(context.Context, int) (api.Status, error) { return api.Status{Height: 100}, nil },
			exitOK, 1, "",
		}, {
			"after a while", time.Minute,
			func(_ context.Context, call int) (api.Status, error) { return blocks(int32(10 * call)), nil },
			exitOK, 10 * waitEvery, "",
		}, {
			"too late", 900 * time.Millisecond,
			func(_ context.Context, call int) (api.Status, error) {
				s := blocks(int32(call))
				s.Sync.State, s.Sync.Reason = api.StateStalled, "nothing has come for 14s"
				return s, nil
			},
			exitNotReady, 900 * time.Millisecond, "not ready after 900ms: stalled, height 4 of 100: nothing has come for 14s",
		}, {
			"gone", time.Minute,
			func(_ context.Context, call int) (api.Status, error) {
				if call > 3 {
					return api.Status{}, fmt.Errorf("killed: %w", api.ErrUnreachable)
				}
				return blocks(1), nil
			},
			exitUnreachable, 0, "killed",
		}, {
			"hangs", time.Hour,
			func(ctx context.Context, _ int) (api.Status, error) {
				<-ctx.Done()
				return api.Status{}, ctx.Err()
			},
			exitUnreachable, 0, "no answer within 10s: the node hangs",
		}, {
			"refuses", time.Hour,
			func(context.Context, int) (api.Status, error) {
				return api.Status{}, api.Errorf(503, "the node is starting")
			},
			exitNotReady, 0, "the node is starting",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := -1
				w := syncWait{
					status: func(ctx context.Context) (api.Status, error) {
						calls++
						return c.answer(ctx, calls)
					},
					done: func(s *api.Status) bool { return s.Height >= 100 }, show: newProgress(io.Discard, slog.New(slog.DiscardHandler), ""), timeout: c.timeout,
				}
				_, waited, err := w.run(t.Context())
				var errs strings.Builder
				if code := exitCode(&errs, err); code != c.code || !strings.Contains(errs.String(), c.says) {
					t.Errorf("exit %d: %s", code, errs.String())
				}
				if waited != c.waited {
					t.Errorf("waited %v, want %v", waited, c.waited)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := syncWait{
			status: func(context.Context) (api.Status, error) { return blocks(1), nil },
			done:   func(*api.Status) bool { return false }, show: newProgress(io.Discard, slog.New(slog.DiscardHandler), ""),
		}
		if _, _, err := w.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestPrintSync: what a person reads of a sync under way, and of one that stands.
func TestPrintSync(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	eta := 475.0
	s := api.Sync{
		SyncStatus: api.SyncStatus{
			State: api.StateBlocks, Percent: 41.2999, BlocksPerS: 1240.4, BytesPerS: 18.4e6, ETAS: &eta, BehindS: 273_600,
			InFlight: 96, InFlightLimit: 128,
		},
		Height: 412_033, HeaderHeight: 1_000_114, TargetHeight: 1_000_114, Since: now.Add(-90 * time.Second), Peers: 8, Serving: 5,
		InFlightBytes: 12_300_000, BufferedBytes: 40_100_000, ByteLimit: 64 << 20, Stalls: 3,
		LastStall: &api.Stall{At: now.Add(-2 * time.Second), WaitedS: 2.14, Height: 412_034, Holder: "12D3A", Asked: "12D3B", Attempt: 2},
	}
	var b strings.Builder
	printSync(&b, &s, now)
	want := `state        blocks for 1m30s
height       412033 of 1000114, 41.2% (headers 1000114)
rate         1240 blk/s, 18.4 MB/s
eta          7m55s
behind       76h0m0s
peers        8, 5 serving
in flight    96 of 128 requests, 12.3 MB
buffered     40.1 MB; with what is in flight at most 67.1 MB
late blocks  3 in this sync
the last     412034, 2s ago: 12D3A held it up for 2.1s; asked 12D3B (attempt 2)
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	s.State, s.Reason, s.ETAS, s.LastStall.Asked, s.Since = api.StateStalled, "nothing has come for 14s", nil, "", now.Add(time.Second)
	printSync(&b, &s, now)
	for _, line := range []string{"state        stalled for 0s\n", "reason       nothing has come for 14s\n", "eta          unknown\n", "for 2.1s; nobody else has it\n"} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("lacks %q:\n%s", line, b.String())
		}
	}
	status := api.Status{Height: 412_033, TargetHeight: 1_000_114, Sync: s.SyncStatus}
	if got, want := syncLine(&status), "stalled | 41.2% 412033/1000114 | 1240 blk/s | eta unknown | 18.4 MB/s | nothing has come for 14s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
