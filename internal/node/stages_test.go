package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
)

// recorder notes the order in which stages end.
type recorder struct {
	mu    sync.Mutex
	ended []string
}

func (r *recorder) until(name string, started chan<- string) stage {
	return stage{name: name, run: func(ctx context.Context) error {
		started <- name
		<-ctx.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = append(r.ended, name)
		return ctx.Err()
	}}
}

func TestStagesStopInReverse(t *testing.T) {
	var r recorder
	started := make(chan string, 3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- runStages(ctx, slog.New(slog.DiscardHandler), []stage{
			r.until("store", started), r.until("host", started), r.until("miner", started),
		})
	}()
	for range 3 {
		<-started
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := []string{"miner", "host", "store"}; !slices.Equal(r.ended, want) {
		t.Errorf("ended %v, want %v", r.ended, want)
	}
}

func TestOneFailureStopsAll(t *testing.T) {
	var r recorder
	started := make(chan string, 2)
	boom := errors.New("disk on fire")
	err := runStages(t.Context(), slog.New(slog.DiscardHandler), []stage{
		r.until("store", started),
		{name: "done at once", run: func(context.Context) error { return nil }},
		{name: "host", run: func(context.Context) error { <-started; return boom }},
	})
	if !errors.Is(err, boom) || err.Error() != "host: disk on fire" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(r.ended, []string{"store"}) {
		t.Errorf("ended %v", r.ended)
	}
}
