package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Where nobody sees a line redrawn, the log has one every 5 s.
func TestProgress(t *testing.T) {
	var drawn, logged strings.Builder
	now := time.Now()
	p := newProgress(&drawn, slog.New(slog.NewTextHandler(&logged, nil)), "import")
	p.now, p.last = func() time.Time { return now }, now
	asked := 0
	update := func() { p.update(func() string { asked++; return "41%" }) }
	for range 49 {
		update()
		now = now.Add(100 * time.Millisecond)
	}
	update()
	if asked != 0 {
		t.Errorf("a line within 5 s: %s", logged.String())
	}
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		update()
	}
	p.end()
	if n := strings.Count(logged.String(), "level=INFO msg=progress of=import at=41%\n"); n != 2 || asked != 2 || drawn.Len() > 0 {
		t.Errorf("%d lines, %q", n, drawn.String())
	}

	// On a terminal it is redrawn ten times a second and wiped in the end.
	p.tty = true
	for range 5 {
		now = now.Add(redrawEvery)
		update()
		update()
	}
	p.end()
	if want := strings.Repeat("\r\x1b[Kimport: 41%", 5) + "\r\x1b[K"; drawn.String() != want || strings.Count(logged.String(), "\n") != 2 {
		t.Errorf("%q", drawn.String())
	}
}
