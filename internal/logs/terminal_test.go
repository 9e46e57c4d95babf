package logs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dunlin/internal/logs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// screen is a terminal of one column of lines: it keeps what a person would see,
// and does not know any sequence but those that are allowed.
type screen struct {
	t      *testing.T
	mu     sync.Mutex
	lines  []string // above the present one
	line   []rune
	column int
	writes int
	shots  []string // the screen after each write
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	text := string(p)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			s.line = s.line[:s.column]
			text = text[3:]
			continue
		case text[0] == '\r':
			s.column = 0
		case text[0] == '\n':
			s.lines = append(s.lines, string(s.line))
			s.line, s.column = nil, 0
		default:
			r := []rune(text)[0]
			if r < ' ' {
				s.t.Errorf("control character %q in %q", r, p)
			}
			s.line = append(s.line[:s.column], r)
			s.column++
			text = text[len(string(r)):]
			continue
		}
		text = text[1:]
	}
	s.shots = append(s.shots, strings.Join(append(slices.Clip(s.lines), string(s.line)), "\n"))
	return len(p), nil
}

// progress logs a progress line of a percentage.
func progress(log *slog.Logger, percent float64) {
	log.Info("syncing", "state", "blocks", "percent", percent, "height", int(percent*10), "headers", 1000, "target", 1000, "blocks_per_s", 124,
		"eta", time.Minute, "behind", time.Hour, "peers", 8, "serving", 5, "in_flight", 9, "in_flight_limit", 128, "bytes_per_s", 1_400_000, "reason", "")
}

// TestLiveLine: on a terminal the progress is one line at the bottom. Other lines
// come above it, whole; it goes when the sync is finished and when the log is closed.
func TestLiveLine(t *testing.T) {
	s := &screen{t: t}
	columns := 60
	term := logs.NewTerminal(s, func() int { return columns })
	log, _ := logs.New(logs.Options{Writer: term, Color: logs.Never})
	at := func(l *slog.Logger) *slog.Logger { return l.With(logs.Subsystem, "sync") }
	log = at(log)

	log.Info("sync started", "height", 0)
	progress(log, 10)
	progress(log, 20.5)
	log.Warn("peer lost", "peer", "evil\n\x1b[2Jpeer")
	progress(log, 30)
	columns = 24 // the window is made smaller
	progress(log, 40)
	log.Info("block", "height", 1)
	columns = 200
	progress(log, 50)
	log.Info("sync finished", "height", 1000)
	log.Info("after", "height", 1001)
	progress(log, 60)
	if err := term.Close(); err != nil {
		t.Fatal(err)
	}
	if err := term.Close(); err != nil { // nothing to remove
		t.Fatal(err)
	}
	var b strings.Builder
	for i, shot := range s.shots {
		fmt.Fprintf(&b, "-- after write %d\n", i+1)
		for line := range strings.SplitSeq(shot, "\n") {
			if _, rest, ok := strings.Cut(line, "T"); ok && strings.HasPrefix(line, "20") {
				_, rest, _ = strings.Cut(rest, " ")
				line = "TIME " + rest
			}
			fmt.Fprintf(&b, "%s|\n", line)
		}
	}
	path := filepath.Join("testdata", "live.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestLiveLineManyWriters: whoever writes when, no line is torn and the live one is
// the last.
func TestLiveLineManyWriters(t *testing.T) {
	s := &screen{t: t}
	term := logs.NewTerminal(s, func() int { return 80 })
	log, _ := logs.New(logs.Options{Writer: term, Color: logs.Never})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 50 {
				if w == 0 {
					progress(log, float64(i))
				} else {
					log.Info("line", "writer", w, "number", i)
				}
			}
		})
	}
	all.Wait()
	if len(s.lines) != 150 {
		t.Errorf("%d lines", len(s.lines))
	}
	for _, line := range s.lines {
		if !strings.Contains(line, " INF line writer=") || strings.Contains(line, "%") {
			t.Errorf("torn: %q", line)
		}
	}
	if !strings.HasPrefix(string(s.line), "syncing 49.0% ") {
		t.Errorf("live line %q", string(s.line))
	}
}

// TestNoLiveLine: into a file, and as JSON wherever to, the progress is a line like others.
func TestNoLiveLine(t *testing.T) {
	var file bytes.Buffer
	log, _ := logs.New(logs.Options{Writer: &file, Color: logs.Never})
	progress(log, 10)
	progress(log, 20)
	if strings.ContainsAny(file.String(), "\r\x1b") || strings.Count(file.String(), "\n") != 2 {
		t.Errorf("%q", file.String())
	}
	var screen bytes.Buffer
	log, _ = logs.New(logs.Options{Writer: logs.NewTerminal(&screen, func() int { return 80 }), Format: logs.JSON})
	progress(log, 10)
	progress(log, 20)
	log.Info("sync finished")
	if strings.ContainsAny(screen.String(), "\r\x1b") || strings.Count(screen.String(), "\n") != 3 {
		t.Errorf("%q", screen.String())
	}
}

// TestLiveLineThatCannotBeWritten: the fault is the caller's to know.
func TestLiveLineThatCannotBeWritten(t *testing.T) {
	term := logs.NewTerminal(broken{}, func() int { return 0 })
	if err := term.Draw("x"); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := term.Write([]byte("x\n")); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if term.Fd() != ^uintptr(0) {
		t.Error("a writer that is no file has a descriptor")
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
