package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// minWatch is the shortest time between two looks: a node has other things to do.
const minWatch = 100 * time.Millisecond

// A watch looks at something again and again until Ctrl-C, which is its orderly end.
type watch struct {
	on    bool
	every time.Duration
}

// flags adds --watch and --interval to cmd.
func (o *watch) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.on, "watch", "w", false, "print it anew until Ctrl-C: in place on a terminal, else a line a time")
	cmd.Flags().DurationVar(&o.every, "interval", time.Second, "time between two looks of --watch, at least 100ms")
}

func (o *watch) check() error {
	if o.every < minWatch {
		return usage(fmt.Errorf("--interval %v: must be at least %v", o.every, minWatch))
	}
	return nil
}

// run prints what look returns: once, or with --watch until ctx ends, which is no error. On a terminal table draws it in place; elsewhere
// lines says what is to be told of it in plain lines; as JSON each is one line.
func (o *watch) run(g *global, cmd *cobra.Command, look func(context.Context) (any, error), table func(io.Writer, any), lines func(any) []string) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	for first := true; ; first = false {
		v, err := look(ctx)
		switch {
		case o.on && ctx.Err() != nil:
			return nil //nolint:nilerr // Ctrl-C cut the question off
		case err != nil:
			return err
		case !o.on:
			return g.print(cmd, v, func(w io.Writer) { table(w, v) })
		}
		if err := o.show(out, g.output, first, v, table, lines); err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
		if !pause(ctx, o.every) {
			return nil
		}
	}
}

func (o *watch) show(out io.Writer, form string, first bool, v any, table func(io.Writer, any), lines func(any) []string) error {
	if form != "table" {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	f, ok := out.(*os.File)
	if !ok || !isTerminal(f) || os.Getenv("TERM") == "dumb" {
		for _, line := range lines(v) {
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
		return nil
	}
	var frame bytes.Buffer
	table(&frame, v)
	columns, rows := terminalSize(f)
	_, err := io.WriteString(f, redraw(frame.String(), columns, rows, first))
	return err
}

// redraw is what puts a frame in the place of the one before. Each line is overwritten and what follows wiped, so that nothing flickers; the
// screen is cleared only at first.
func redraw(frame string, columns, rows int, first bool) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	if first {
		b.WriteString("\x1b[2J")
	}
	lines := strings.Split(strings.TrimSuffix(frame, "\n"), "\n")
	if most := max(1, rows-1); len(lines) > most {
		hidden := len(lines) - most + 1
		lines = append(lines[:most-1:most-1], fmt.Sprintf("… and %d lines more", hidden))
	}
	for _, line := range lines {
		b.WriteString(cut(line, columns) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	return b.String()
}
