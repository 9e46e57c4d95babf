package chaintest

import (
	"context"
	"errors"
	"testing"
	"time"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// Run runs f, the Run of some part, until the test ends, or until stop; it waits for f and expects that it ended because its context did.
func Run(tb testing.TB, f func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			tb.Errorf("run: %v", err)
		}
	}
	tb.Cleanup(stop)
	return stop
}

// Height waits until the chain is that high, for days: of virtual time where time is virtual; elsewhere the test has its own limit.
func Height(tb testing.TB, c *chain.Chain, want int32) chain.Tip {
	tb.Helper()
	limit := time.NewTimer(240 * time.Hour)
	defer limit.Stop()
	for {
		tip, moved := c.Tip()
		if tip.Height >= want {
			return tip
		}
		select {
		case <-moved:
		case <-limit.C:
			tb.Fatalf("height %d, want %d", tip.Height, want)
		}
	}
}

// Block reads a block of the active chain.
func Block(tb testing.TB, c *chain.Chain, height int32) *consensus.Block {
	tb.Helper()
	hash, ok := c.HashAt(height)
	if !ok {
		tb.Fatalf("no block at height %d", height)
	}
	raw, err := c.Block(hash)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := consensus.DecodeBlock(c.Params(), raw)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
