package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
)

// followPause is how long log tail waits before it asks a node again that ended the stream.
const followPause = time.Second

func newLog(g *global) *cobra.Command {
	return group("log", "The log of the running node", newLogLevel(g), newLogTail(g))
}

func newLogLevel(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "level [SUBSYSTEM] [LEVEL]", Short: "Print or change the least level that is logged, of all or of one subsystem", Args: args(cobra.MaximumNArgs(2)),
		Long: `level prints the least level that is logged, and that of each subsystem that has its own. With a level (debug, info, warn, error) it
changes it, for all or for one subsystem; level default takes a subsystem's own away. It lasts until the node stops: log.level
and log.levels in the config are for good.`,
		Example: "  dunlin log level\n  dunlin log level sync debug\n  dunlin log level sync default",
		RunE: func(cmd *cobra.Command, a []string) error {
			if n := len(a); n > 0 && a[n-1] != "default" && levelRank(a[n-1]) < 0 {
				return usage(fmt.Errorf("level %q: want debug, info, warn or error, or default behind a subsystem", a[n-1]))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			var levels api.LogLevels
			switch len(a) {
			case 0:
				levels, err = c.LogLevels(cmd.Context())
			case 1:
				levels, err = c.SetLogLevel(cmd.Context(), "", a[0])
			default:
				levels, err = c.SetLogLevel(cmd.Context(), a[0], a[1])
			}
			if err != nil {
				return misused(err)
			}
			return g.print(cmd, levels, func(w io.Writer) {
				fmt.Fprintln(w, levels.Level)
				for _, l := range levels.Levels {
					fmt.Fprintln(w, l.Subsystem+"="+l.Level)
				}
			})
		},
	}
}

func newLogTail(g *global) *cobra.Command {
	var lines int
	var level, subsystem string
	cmd := &cobra.Command{
		Use: "tail", Short: "Follow the log until Ctrl-C", Args: args(cobra.NoArgs),
		Long: `tail prints the last lines of the node's log and those that come, until Ctrl-C. What is not logged is not shown: dunlin log level makes
the node log more.`,
		Example: "  dunlin log tail\n  dunlin log tail --level warn --lines 500\n  dunlin log tail --subsystem discovery -o jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 0 || lines > maxTailLines {
				return usage(fmt.Errorf("--lines %d: want 0 to %d", lines, maxTailLines))
			}
			least := levelRank(level)
			if least < 0 {
				return usage(fmt.Errorf("--level %s: want debug, info, warn or error", level))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			t := tail{
				out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), json: g.output != "table",
				wants: func(r *api.LogRecord) bool {
					return levelRank(r.Level) >= least && (subsystem == "" || r.Subsystem == subsystem)
				},
			}
			if err := t.run(cmd.Context(), c, lines); err != nil && !errors.Is(err, context.Canceled) {
				return unreachable(err)
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&lines, "lines", "n", 20, "how many of the last lines to begin with")
	cmd.Flags().StringVar(&level, "level", "debug", "the least level to show")
	cmd.Flags().StringVar(&subsystem, "subsystem", "", "show only lines of it")
	return cmd
}

// maxTailLines is what one answer of the node may have.
const maxTailLines = 1000

func levelRank(level string) int {
	for i, l := range []string{"debug", "info", "warn", "error"} {
		if l == strings.ToLower(level) {
			return i
		}
	}
	return -1
}

// A tail follows the log of a node.
type tail struct {
	out   io.Writer
	errs  io.Writer // for what is no line of the log
	json  bool
	wants func(*api.LogRecord) bool
	last  uint64 // number of the last line that was seen
}

func (t *tail) show(r *api.LogRecord) error {
	if r.Seq <= t.last {
		return nil // the stream begins before the last lines end
	}
	t.last = r.Seq
	if !t.wants(r) {
		return nil
	}
	if t.json {
		e := json.NewEncoder(t.out)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	_, err := fmt.Fprintln(t.out, r.Time.Local().Format("15:04:05.000"), strings.ToUpper(r.Level), r.Text)
	return err
}

// run shows the last lines and what comes until ctx ends, the node goes, or out is gone.
func (t *tail) run(ctx context.Context, c *api.Client, lines int) error {
	after := ""
	for first := true; ; first = false {
		err := c.Events(ctx, []string{api.EventLog}, after, func(e api.Event) error {
			after = e.ID
			switch e.Type {
			case api.EventHello:
				if !first {
					return nil
				}
				return t.begin(ctx, c, lines)
			case api.EventReset:
				t.last = 0
				_, err := fmt.Fprintln(t.errs, "… lines are missing here")
				return err
			}
			var r api.LogRecord
			if err := json.Unmarshal(e.Data, &r); err != nil {
				return fmt.Errorf("line of the log: %w", err)
			}
			return t.show(&r)
		})
		if err != nil {
			return err
		}
		// Too slow a reader is sent away and may come again; a node that stopped is not there.
		if !pause(ctx, followPause) {
			return ctx.Err()
		}
	}
}

// begin shows the last lines.
func (t *tail) begin(ctx context.Context, c *api.Client, lines int) error {
	past, err := c.LogRecords(ctx, 0, max(1, lines))
	if err != nil {
		return err
	}
	if lines == 0 {
		t.last = past.Last
		return nil
	}
	for i := range past.Records {
		if err := t.show(&past.Records[i]); err != nil {
			return err
		}
	}
	return nil
}
