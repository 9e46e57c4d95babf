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

// A work whose size is known has a bar on a terminal, and says how long the rest will take once that can be told.
func TestProgressOf(t *testing.T) {
	t.Parallel()
	var drawn, logged strings.Builder
	now := time.Now()
	p := newProgress(&drawn, slog.New(slog.NewTextHandler(&logged, nil)), "import")
	p.now, p.last, p.started, p.tty = func() time.Time { return now }, now, now, true
	p.columns = func() int { return 60 }
	show := func(after time.Duration, done int64, want string) {
		t.Helper()
		now = now.Add(after)
		drawn.Reset()
		p.of(done, 2000, func() string { return "height 7" })
		if got := strings.TrimPrefix(drawn.String(), "\r\x1b[K"); got != want {
			t.Errorf("%d: %q, want %q", done, got, want)
		}
	}
	show(time.Second, 500, "import: [#####...............] 25.0% height 7, eta unknown")
	show(time.Second, 500, "import: [#####...............] 25.0% height 7, eta 6s")
	show(8*time.Second, 1999, "import: [###################.] 99.9% height 7, eta 0s")
	show(time.Second, 2000, "import: [####################] 100.0% height 7")
	p.columns = func() int { return 30 }
	show(time.Second, 1000, "import: [##########.........…")
	p.tty = false
	now = now.Add(logEvery)
	p.of(1000, 2000, func() string { return "height 8" })
	if !strings.Contains(logged.String(), `at="50.0% height 8, eta 17s"`) {
		t.Error(logged.String())
	}
	// Another part begins anew.
	p.stage("second", 1000, 2000, func() string { return "x" })
	now = now.Add(logEvery)
	p.stage("second", 500, 2000, func() string { return "x" })
	if !strings.Contains(logged.String(), `at="25.0% x, eta 15s"`) {
		t.Error(logged.String())
	}
}
