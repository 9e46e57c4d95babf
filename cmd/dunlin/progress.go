package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// How often a progress is shown: drawn on a terminal, or written to the log.
const (
	redrawEvery = 100 * time.Millisecond
	logEvery    = 5 * time.Second
)

// What is left is told once this much is done and has passed: before, it would jump about.
const (
	etaAfter    = 2 * time.Second
	etaFraction = 0.01
	barColumns  = 20
)

// progress redraws one line on a terminal; elsewhere it logs one every 5 s.
type progress struct {
	w       io.Writer
	log     *slog.Logger
	what    string
	tty     bool
	columns func() int // of the terminal; nil: as wide as may be
	now     func() time.Time
	started time.Time
	last    time.Time
	part    string // see stage
	drawn   bool
}

func newProgress(w io.Writer, log *slog.Logger, what string) *progress {
	p := &progress{w: w, log: log, what: what, tty: isTerminal(w) && os.Getenv("TERM") != "dumb", now: time.Now, started: time.Now(), last: time.Now()}
	if f, ok := w.(*os.File); ok && p.tty {
		p.columns = func() int {
			columns, _ := terminalSize(f)
			return columns
		}
	}
	return p
}

// of shows that so much of a total is done, with a bar, and how long the rest will take at the average pace so far. With a total of 0 it is update.
func (p *progress) of(done, total int64, text func() string) {
	p.update(func() string {
		if total <= 0 {
			return text()
		}
		fraction := min(1, float64(done)/float64(total))
		line := fmt.Sprintf("%.1f%% %s%s", cutPercent(fraction), text(), p.left(fraction))
		if p.tty {
			full := int(fraction * barColumns)
			line = "[" + strings.Repeat("#", full) + strings.Repeat(".", barColumns-full) + "] " + line
		}
		return line
	})
}

// stage is of, for a work of several parts: each has a bar and a pace of its own.
func (p *progress) stage(name string, done, total int64, text func() string) {
	if name != p.part {
		p.part, p.started = name, p.now()
	}
	p.of(done, total, text)
}

// cutPercent is not rounded up: 100.0 is told only of what is complete.
func cutPercent(fraction float64) float64 { return float64(int(fraction*1000)) / 10 }

// left is how long the rest of a work will take, as the end of a line.
func (p *progress) left(fraction float64) string {
	passed := p.now().Sub(p.started)
	switch {
	case fraction >= 1:
		return ""
	case passed < etaAfter || fraction < etaFraction:
		return ", eta unknown"
	}
	return ", eta " + time.Duration(float64(passed)*(1-fraction)/fraction).Round(time.Second).String()
}

func (p *progress) update(text func() string) {
	every := logEvery
	if p.tty {
		every = redrawEvery
	}
	now := p.now()
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	if !p.tty {
		p.log.Info("progress", "of", p.what, "at", text())
		return
	}
	p.drawn = true
	line := p.what + ": " + text()
	if p.columns != nil {
		line = cut(line, p.columns()-1) // a line that wraps could not be drawn over
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
}

func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
