package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// A stage is one running part of the node.
type stage struct {
	name string
	run  func(ctx context.Context) error // blocks until ctx ends; joins all it started
}

// runStages starts the stages in order and, when ctx ends or one of them fails,
// stops them in reverse order, each before the one that it builds on. It returns
// when all have returned: the first failure, or nil if ctx ended the run.
//
// A stage that returns nil while the node runs has done its work: that stops nothing.
func runStages(ctx context.Context, log *slog.Logger, stages []stage) error {
	type running struct {
		stage
		cancel context.CancelFunc
		done   chan struct{}
	}
	failed := make(chan error, len(stages))
	var all []running
	for _, s := range stages {
		// Each stage has a context of its own, so that the order of the end is ours.
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stage: s, cancel: cancel, done: make(chan struct{})}
		go func() {
			defer close(r.done)
			err := s.run(sctx)
			ended := sctx.Err() != nil && errors.Is(err, context.Canceled)
			if err != nil && !ended {
				failed <- fmt.Errorf("%s: %w", s.name, err)
			}
		}()
		all = append(all, r)
	}
	var err error
	select {
	case <-ctx.Done():
		log.Info("stopping", "reason", context.Cause(ctx))
	case err = <-failed:
		log.Error("stopping because a part failed", "err", err)
	}
	for _, r := range slices.Backward(all) {
		start := time.Now()
		r.cancel()
		<-r.done
		if took := time.Since(start); took > time.Second {
			log.Info("slow to stop", "part", r.name, "took_ms", took.Milliseconds())
		}
	}
	for err == nil {
		select {
		case err = <-failed: // while stopping
		default:
			return nil
		}
	}
	return err
}
