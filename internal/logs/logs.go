// Package logs builds the one slog logger of the process: text for people,
// JSON for machines, a level per subsystem that can be changed while the
// process runs, and a way for the three log paths of libp2p to end in it.
//
// It is not a place for log calls: packages take a *slog.Logger in their
// Options, and name themselves once with logger.With(logs.Subsystem, "…").
//
// Invariants:
//   - A record is one line, written with one Write call. Whatever a peer managed
//     to get into a message or a value is escaped and bounded, so that it can
//     neither forge a line, steer a terminal, nor fill the disk with one record.
//   - The level of a record is decided by its subsystem before anything is
//     formatted.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/mattn/go-isatty"
)

// Subsystem is the attribute key that names the part of the node a line comes
// from. Levels are set by it; in text it stands at the end of the line, except in
// our own lines at info, which say what they are about.
const Subsystem = "subsystem"

// defaultMaxValueBytes fits a multiaddr with two peer ids, a chain of wrapped
// errors, or a join line; nothing honest is longer.
const defaultMaxValueBytes = 1024

// Format is how a record becomes a line.
type Format int

// The formats.
const (
	Text Format = iota // 2026-11-21T10:31:39.123 INF message key=value …
	JSON               // an object a line, the keys of log/slog
)

// ParseFormat reads "text" or "json".
func ParseFormat(s string) (Format, error) {
	switch s {
	case "text":
		return Text, nil
	case "json":
		return JSON, nil
	}
	return 0, fmt.Errorf("log format %q: want text or json", s)
}

// Color is when text output is coloured.
type Color int

// The choices of colour.
const (
	Auto   Color = iota // if the writer is a terminal, NO_COLOR is unset and TERM is not dumb
	Always              // even into a file
	Never
)

// ParseColor reads "auto", "always" or "never".
func ParseColor(s string) (Color, error) {
	switch s {
	case "auto":
		return Auto, nil
	case "always":
		return Always, nil
	case "never":
		return Never, nil
	}
	return 0, fmt.Errorf("log colour %q: want auto, always or never", s)
}

// ParseLevel reads debug, info, warn or error, in any case.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log level %q: want debug, info, warn or error", s)
}

// Options says how and where to log. The zero value logs text at info to
// standard error, coloured if that is a terminal.
type Options struct {
	Writer        io.Writer  // default os.Stderr; written to under a lock, a line a call; on a Terminal, text keeps its progress in one line
	Format        Format     // default Text
	Level         slog.Level // of every subsystem that has none of its own; default info
	LibraryLevel  slog.Level // of libp2p's own lines, if it is above info; default warn
	Color         Color      // default Auto; JSON is never coloured
	MaxValueBytes int        // a message or value is cut after so many bytes; default 1024
	Ring          *Ring      // keeps the last lines too; default none
}

// New builds the logger and the handle on its levels. It starts nothing.
func New(o Options) (*slog.Logger, *Levels) {
	if o.Writer == nil {
		o.Writer = os.Stderr
	}
	if o.MaxValueBytes <= 0 {
		o.MaxValueBytes = defaultMaxValueBytes
	}
	if o.LibraryLevel <= slog.LevelInfo {
		o.LibraryLevel = slog.LevelWarn
	}
	levels := newLevels(o.Level)
	levels.mustSet(libp2pSubsystem, max(o.LibraryLevel, o.Level))

	var out slog.Handler
	switch o.Format {
	case JSON:
		out = newJSONHandler(o.Writer, o.MaxValueBytes)
	case Text:
		live, _ := o.Writer.(*Terminal)
		out = &textHandler{
			w:     o.Writer,
			mu:    new(sync.Mutex),
			live:  live,
			color: coloured(o.Color, o.Writer),
			max:   o.MaxValueBytes,
		}
	}
	if o.Ring != nil {
		out = newRingHandler(out, o.Ring)
	}
	return slog.New(&handler{out: out, levels: levels}), levels
}

// coloured decides about colour once, when the logger is built.
func coloured(c Color, w io.Writer) bool {
	switch c {
	case Always:
		return true
	case Never:
		return false
	case Auto:
	}
	f, ok := w.(interface{ Fd() uintptr }) // a file, or a Terminal on one
	// https://no-color.org: any value that is not empty counts.
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isatty.IsTerminal(f.Fd())
}

// handler decides about levels. It takes the subsystem out of the attributes
// and hands it on with each record, so that the last one given is the only one.
type handler struct {
	out       slog.Handler
	levels    *Levels
	subsystem string
	grouped   bool // after WithGroup, attributes belong to the group
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.levels.Get(h.subsystem)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if h.subsystem != "" {
		r = r.Clone()
		r.AddAttrs(slog.String(Subsystem, h.subsystem))
	}
	return h.out.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	if !h.grouped {
		rest := slices.DeleteFunc(slices.Clone(attrs), func(a slog.Attr) bool {
			switch {
			case a.Key == Subsystem:
				c.subsystem = a.Value.String()
				return true
			case a.Key == libraryLoggerKey && within(c.subsystem, libp2pSubsystem):
				c.subsystem = libp2pSubsystem + "/" + a.Value.String()
				return true
			}
			return false
		})
		attrs = rest
		if c.subsystem != h.subsystem {
			c.levels.note(c.subsystem)
		}
	}
	if len(attrs) > 0 {
		c.out = h.out.WithAttrs(attrs)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.out, c.grouped = h.out.WithGroup(name), true
	return &c
}
