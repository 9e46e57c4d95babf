package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/internal/logs"
	"dunlin/internal/node"
)

func newStart(g *global) *cobra.Command {
	var offset time.Duration
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run a node until Ctrl-C",
		Long: `start runs a full node. On its first run it makes its key, home and config file; it prints the line with
which the next machine joins. Logs go to standard error. Ctrl-C (or SIGTERM) ends it in order; any kill is safe.

Defaults are those of the network: dunlin config show prints them. Every setting can also stand in <home>/config.toml or
in the environment: dunlin config template explains each.`,
		Example: `  dunlin start                                            the test network
  dunlin start --network regtest --mine                   a chain of your own, mining
  dunlin start --bootstrap /ip4/192.0.2.7/tcp/9333/p2p/…  join that machine`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := node.CheckConfig(c); err != nil {
				return usage(err)
			}
			if err := node.CheckClockOffset(c, offset); err != nil {
				return usage(fmt.Errorf("--%s: %w", clockOffsetFlag, err))
			}
			return start(cmd.Context(), cmd.ErrOrStderr(), c, offset)
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().DurationVar(&offset, clockOffsetFlag, 0, "for tests on loopback: what the node's clock is set off, -90s to 90s")
	_ = cmd.Flags().MarkHidden(clockOffsetFlag) // it is there
	return cmd
}

// clockOffsetFlag is no setting: neither a file nor the environment can set it by accident.
const clockOffsetFlag = "testing-clock-offset"

func start(ctx context.Context, stderr io.Writer, c *config.Config, clockOffset time.Duration) error {
	live := liveTerminal(stderr, c)
	if live != nil {
		defer func() { _ = live.Close() }() // the screen is gone or it is not
		stderr = live
	}
	ring := logs.NewRing()
	log, levels, err := newRingLogger(stderr, c, ring)
	if err != nil {
		return err
	}
	logs.CaptureLibp2p(log, levels)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n, err := node.New(ctx, node.Options{
		Config: c, Logger: log, Levels: levels, Ring: ring, Version: buildVersion(), Live: live != nil, ClockOffset: clockOffset, Stop: func() { stop(errAsked) }, OnCatchUp: tuneGC(),
	})
	if err != nil {
		return homeFault(err)
	}
	if err := n.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// errAsked is why a node stops that a client told to.
var errAsked = errors.New("a client asked for it")

// homeFault adds to err what to do if the home is another chain's.
func homeFault(err error) error {
	if errors.Is(err, store.ErrOtherChain) {
		return fmt.Errorf("%w: name the home's chain with --network or --network-file, or choose another --home", err)
	}
	return err
}

// liveTerminal is the terminal to keep the progress of a sync in one line of, nil if
// w is none, or none that can, or the log is for machines.
func liveTerminal(w io.Writer, c *config.Config) *logs.Terminal {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) || os.Getenv("TERM") == "dumb" || c.Log.Format != "text" {
		return nil
	}
	return logs.NewTerminal(f, func() int {
		columns, _ := terminalSize(f)
		return columns
	})
}

// newLogger makes the logger that the settings ask for.
func newLogger(w io.Writer, c *config.Config) (*slog.Logger, *logs.Levels, error) {
	return newRingLogger(w, c, nil)
}

// newRingLogger is newLogger with a ring that keeps the last lines.
func newRingLogger(w io.Writer, c *config.Config, ring *logs.Ring) (*slog.Logger, *logs.Levels, error) {
	format, err1 := logs.ParseFormat(c.Log.Format)
	level, err2 := logs.ParseLevel(c.Log.Level)
	library, err3 := logs.ParseLevel(c.Log.Libp2pLevel)
	color, err4 := logs.ParseColor(c.Log.Color)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, nil, usage(fmt.Errorf("log settings: %w", err))
	}
	log, levels := logs.New(logs.Options{Writer: w, Format: format, Level: level, LibraryLevel: library, Color: color, Ring: ring})
	if len(c.Log.Levels) > 0 {
		if err := levels.Apply(strings.Join(c.Log.Levels, ",")); err != nil {
			return nil, nil, usage(fmt.Errorf("log.levels: %w", err))
		}
	}
	return log, levels, nil
}
