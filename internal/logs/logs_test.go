package logs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"

	"dunlin/internal/logs"
)

var stamp = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} `)

// text logs with f and returns what was written, without the times, which must
// begin every line.
func text(t *testing.T, o logs.Options, f func(*slog.Logger)) string {
	t.Helper()
	var b bytes.Buffer
	o.Writer = &b
	logger, _ := logs.New(o)
	f(logger)
	out := b.String()
	if lines, stamps := strings.Count(out, "\n"), len(stamp.FindAllString(out, -1)); o.Color != logs.Always && lines != stamps {
		t.Errorf("%d lines, %d of them with a time:\n%s", lines, stamps, out)
	}
	return stamp.ReplaceAllString(out, "")
}

var forgedKey = string([]byte{'k', '\n'})

type loud struct{}

func (loud) String() string { panic("no text") }

func TestText(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("join me", "port", 9333, "ok", true) }, "INF join me port=9333 ok=true\n"},
		{"levels", func(l *slog.Logger) { l.Warn("a"); l.Error("b"); l.Debug("c") }, "WRN a\nERR b\nDBG c\n"},
		{"quoted", func(l *slog.Logger) { l.Info("m", "a", "x y", "b", "", "c", `q"`, "d", "k=v") }, `INF m a="x y" b="" c="q\"" d="k=v"` + "\n"},
		{"kinds", func(l *slog.Logger) {
			l.Info("m", "d", 1500*time.Millisecond, "f", 0.5, "u", uint64(7), "e", errors.New("it broke"), "b", []byte{0xde, 0xad}, "n", nil)
		}, `INF m d=1.5s f=0.5 u=7 e="it broke" b=dead n=<nil>` + "\n"},
		{"groups", func(l *slog.Logger) {
			l.WithGroup("a").With("x", 1).Info("m", slog.Group("b", "y", 2), slog.Group("", "z", 3))
		}, "INF m a.x=1 a.b.y=2 a.z=3\n"},
		{"subsystem last, once", func(l *slog.Logger) {
			l.With(logs.Subsystem, "chain").With("a", 1).With(logs.Subsystem, "chain/store").Warn("m", "b", 2)
		}, "WRN m a=1 b=2 subsystem=chain/store\n"},
		{"subsystem in a group", func(l *slog.Logger) {
			l.With(logs.Subsystem, "chain").WithGroup("g").Warn("m", "b", 2)
		}, "WRN m g.b=2 subsystem=chain\n"},
		{"subsystem is evident at info", func(l *slog.Logger) {
			l.With(logs.Subsystem, "chain").Info("m", "b", 2)
		}, "INF m b=2\n"},
		{"forged line", func(l *slog.Logger) { l.Info("m", "agent", "x\n2026-01-01T00:00:00.000 ERR owned") }, `INF m agent="x\n2026-01-01T00:00:00.000 ERR owned"` + "\n"},
		{"forged message", func(l *slog.Logger) { l.Info("a\r\nb") }, `INF "a\r\nb"` + "\n"},
		{"forged key", func(l *slog.Logger) { l.LogAttrs(t.Context(), slog.LevelInfo, "m", slog.Int(forgedKey, 1)) }, `INF m "k\n"=1` + "\n"},
		{"terminal", func(l *slog.Logger) {
			l.Info("m", "esc", "\x1b[2J", "csi", "\u009b2J", "bidi", "\u202egnp", "bad", "\xff")
		}, `INF m esc="\x1b[2J" csi="\u009b2J" bidi="\u202egnp" bad="\xff"` + "\n"},
		{"error of a peer", func(l *slog.Logger) { l.Info("m", "error", fmt.Errorf("said %s", "a\x00\n")) }, `INF m error="said a\x00\n"` + "\n"},
		{"panicking value", func(l *slog.Logger) { l.Info("m", "v", loud{}) }, `INF m v="%!v(PANIC=String method: no text)"` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := text(t, logs.Options{Level: slog.LevelDebug}, c.log); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestValuesAreBounded(t *testing.T) {
	const limit = 16
	long := strings.Repeat("x", 1<<20)
	exact := strings.Repeat("x", limit)
	for name, c := range map[string]struct {
		value any
		want  string
	}{
		"at the limit":     {exact, exact},
		"one above":        {exact + "x", exact + "…(+1)"},
		"string":           {long, exact + "…(+1048560)"},
		"error":            {errors.New(long), exact + "…(+1048560)"},
		"bytes":            {make([]byte, 1<<20), strings.Repeat("0", limit)},
		"struct":           {struct{ A string }{long}, "{A:" + strings.Repeat("x", 13)},
		"not inside runes": {strings.Repeat("x", limit-1) + "ééé", strings.Repeat("x", limit-1) + "…(+6)"},
		"invalid bytes":    {strings.Repeat("\x80", 40), `"` + strings.Repeat(`\x80`, 13)},
	} {
		t.Run(name, func(t *testing.T) {
			out := text(t, logs.Options{MaxValueBytes: limit}, func(l *slog.Logger) { l.Info("m", "v", c.value) })
			if !strings.HasPrefix(out, "INF m v="+c.want) || len(out) > 120 {
				t.Errorf("got %d bytes: %.120q, want prefix %q", len(out), out, c.want)
			}
			js := jsonLine(t, logs.Options{MaxValueBytes: limit}, func(l *slog.Logger) { l.Info("m", "v", c.value) })
			if v, _ := js["v"].(string); len(v) > 100 || len(v) == 0 {
				t.Errorf("JSON value of %d bytes: %.120v", len(v), js["v"])
			}
		})
	}
	if out := text(t, logs.Options{MaxValueBytes: limit}, func(l *slog.Logger) {
		l.Handler().Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, long, 0))
	}); len(out) > 100 {
		t.Errorf("message of %d bytes", len(out))
	}
}

func jsonLine(t *testing.T, o logs.Options, f func(*slog.Logger)) map[string]any {
	t.Helper()
	var b bytes.Buffer
	o.Writer, o.Format = &b, logs.JSON
	logger, _ := logs.New(o)
	f(logger)
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Fatalf("%d lines, want 1: %s", n, b.String())
	}
	m := make(map[string]any)
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestJSON(t *testing.T) {
	m := jsonLine(t, logs.Options{}, func(l *slog.Logger) {
		l.With(logs.Subsystem, "chain").Warn("block\n", "height", 7, "took", time.Second, "error", errors.New("no"), "list", []int{1, 2})
	})
	if _, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil {
		t.Error(err)
	}
	delete(m, "time")
	want := map[string]any{
		"level": "warn", "msg": "block\n", "height": 7.0, "took": "1s", "error": "no",
		"list": []any{1.0, 2.0}, "subsystem": "chain",
	}
	if fmt.Sprint(m) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", m, want)
	}
}

func TestColor(t *testing.T) {
	for _, c := range []struct {
		name, want string
		log        func(*slog.Logger)
	}{
		{"block is green", "\x1b[32m", func(l *slog.Logger) { l.Info("block", "height", 1) }},
		{"reorg is yellow", "\x1b[33m", func(l *slog.Logger) { l.Warn("reorg", "depth", 1) }},
	} {
		out := text(t, logs.Options{Color: logs.Always}, c.log)
		if !strings.HasPrefix(out, c.want) || !strings.HasSuffix(out, "=1\x1b[0m\n") {
			t.Errorf("%s: got %q", c.name, out)
		}
		if out := text(t, logs.Options{}, c.log); strings.Contains(out, "\x1b") {
			t.Errorf("%s: colour in something that is no terminal: %q", c.name, out)
		}
	}
	out := text(t, logs.Options{Color: logs.Always}, func(l *slog.Logger) { l.Error("m", "a", 1) })
	if !strings.Contains(out, "\x1b[31mERR m\x1b[0m a=1\n") {
		t.Errorf("error: got %q", out)
	}
	// A device that is no terminal is not coloured either.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	logs.New(logs.Options{Writer: null})
}

func TestParse(t *testing.T) {
	if f, err := logs.ParseFormat("json"); f != logs.JSON || err != nil {
		t.Error(f, err)
	}
	if _, err := logs.ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "text or json") {
		t.Error(err)
	}
	if c, err := logs.ParseColor("never"); c != logs.Never || err != nil {
		t.Error(c, err)
	}
	if _, err := logs.ParseColor("blue"); err == nil {
		t.Error("blue was accepted")
	}
	if l, err := logs.ParseLevel("WARN"); l != slog.LevelWarn || err != nil {
		t.Error(l, err)
	}
	if _, err := logs.ParseLevel(""); err == nil {
		t.Error("empty level was accepted")
	}
}

func TestLevels(t *testing.T) {
	var b bytes.Buffer
	logger, levels := logs.New(logs.Options{Writer: &b})
	chain := logger.With(logs.Subsystem, "chain")
	store := logger.With(logs.Subsystem, "chain/store")
	said := func() string {
		b.Reset()
		for _, l := range []*slog.Logger{logger, chain, store} {
			l.Debug("d")
			l.Info("i")
		}
		var s strings.Builder
		for line := range strings.Lines(b.String()) {
			s.WriteString(strings.Fields(line)[2])
		}
		return s.String()
	}
	check := func(step, want string) {
		t.Helper()
		if got := said(); got != want {
			t.Errorf("%s: got %s, want %s", step, got, want)
		}
	}
	check("default", "iii")
	if err := levels.Apply("chain=debug"); err != nil {
		t.Fatal(err)
	}
	check("a subsystem and below", "ididi")
	if err := levels.Apply("warn, chain/store=info"); err != nil {
		t.Fatal(err)
	}
	check("own levels", "dii")
	levels.Reset("chain")
	check("reset", "i")
	if got, want := levels.String(), "warn,chain/store=info,libp2p=warn"; got != want {
		t.Errorf("String: got %s, want %s", got, want)
	}
	before := levels.String()
	err := levels.Apply("debug,chain=loud,=info")
	if err == nil || !strings.Contains(err.Error(), "loud") || !strings.Contains(err.Error(), "=info") {
		t.Errorf("every fault is reported: got %v", err)
	}
	if levels.String() != before {
		t.Errorf("half of a wrong list was applied: %s", levels)
	}
	if levels.Get("libp2p/swarm2") != slog.LevelWarn {
		t.Error("libp2p is not at warn by default")
	}
}

func TestLevelsAreBounded(t *testing.T) {
	_, levels := logs.New(logs.Options{})
	var err error
	for i := range 1000 {
		if err = levels.Set("s"+strconv.Itoa(i), slog.LevelDebug); err != nil {
			break
		}
	}
	if !errors.Is(err, logs.ErrTooManySubsystems) || len(levels.All()) > 256 {
		t.Errorf("got %v with %d levels", err, len(levels.All()))
	}
}

func TestConcurrentLinesStayWhole(t *testing.T) {
	var b bytes.Buffer // guarded by the handler's lock
	logger, levels := logs.New(logs.Options{Writer: &b})
	var wg sync.WaitGroup
	for g := range 8 {
		l := logger.With(logs.Subsystem, "s"+strconv.Itoa(g))
		wg.Go(func() {
			for i := range 100 {
				l.Warn("message", "i", i)
				if i%10 == 0 {
					if err := levels.Set("s"+strconv.Itoa(g), slog.LevelInfo); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	whole := regexp.MustCompile(`^\S+ WRN message i=\d+ subsystem=s\d\n$`)
	n := 0
	for line := range strings.Lines(b.String()) {
		n++
		if !whole.MatchString(line) {
			t.Fatalf("torn line %q", line)
		}
	}
	if n != 800 {
		t.Errorf("%d lines, want 800", n)
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := logs.NewLimiter(2, time.Minute, 3)
		allow := func(key string, wantN int, wantOK bool) {
			t.Helper()
			if n, ok := l.Allow(key); n != wantN || ok != wantOK {
				t.Errorf("%s: got %d %v, want %d %v", key, n, ok, wantN, wantOK)
			}
		}
		allow("a", 0, true)
		allow("a", 0, true)
		allow("a", 0, false)
		allow("a", 0, false)
		allow("b", 0, true)
		time.Sleep(time.Minute) // virtual
		allow("a", 2, true)
		allow("a", 0, true)
		allow("a", 0, false)
		if n := l.Suppressed(); n != 1 {
			t.Errorf("Suppressed: got %d, want 1", n)
		}
		if n := l.Suppressed(); n != 0 {
			t.Errorf("Suppressed a second time: got %d, want 0", n)
		}
	})
}

func TestLimiterKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := logs.NewLimiter(1, time.Minute, 10)
		allowed := 0
		for i := range 10_000 {
			if _, ok := l.Allow(strconv.Itoa(i)); ok {
				allowed++
			}
		}
		if allowed != 11 { // ten keys and the one that the rest shares
			t.Errorf("%d allowed, want 11", allowed)
		}
		time.Sleep(time.Minute)
		n, ok := l.Allow("new")
		if n != 0 || !ok {
			t.Errorf("after an interval there is room again: got %d %v", n, ok)
		}
		if n := l.Suppressed(); n != 10_000-11 {
			t.Errorf("Suppressed: got %d, want %d: a count was lost", n, 10_000-11)
		}
	})
}

// TestCaptureLibp2p is one test because what it sets is process-wide.
func TestCaptureLibp2p(t *testing.T) {
	var b bytes.Buffer
	logger, levels := logs.New(logs.Options{Writer: &b})
	logs.CaptureLibp2p(logger, levels)
	take := func() string {
		defer b.Reset()
		return stamp.ReplaceAllString(b.String(), "")
	}

	swarm := gologshim.Logger("swarm2")
	swarm.Info("quiet by default")
	swarm.Warn("listening failed", "peer", "x")
	if got, want := take(), "WRN listening failed peer=x subsystem=libp2p/swarm2\n"; got != want {
		t.Errorf("gologshim: got %q, want %q", got, want)
	}

	dht := golog.Logger("dht/test")
	dht.Infow("quiet by default")
	dht.Warnw("table is empty", "size", 0)
	if got, want := take(), "WRN table is empty size=0 subsystem=libp2p/dht/test\n"; got != want {
		t.Errorf("go-log: got %q, want %q", got, want)
	}
	if err := levels.Apply("libp2p/dht=debug"); err != nil {
		t.Fatal(err)
	}
	dht.Debugf("bucket %d", 3)
	swarm.Debug("still quiet")
	if got, want := take(), "DBG bucket 3 subsystem=libp2p/dht/test\n"; got != want {
		t.Errorf("go-log at debug: got %q, want %q", got, want)
	}

	slog.Default().Warn("someone else")
	if got, want := take(), "WRN someone else subsystem=libp2p/other\n"; got != want {
		t.Errorf("slog.Default: got %q, want %q", got, want)
	}

	pubsub := logs.Library(logger, "pubsub")
	for range 1000 {
		pubsub.Warn("bad message", "from", "x")
	}
	if got := strings.Count(take(), "\n"); got != 5 {
		t.Errorf("%d lines of one repeated warning, want 5", got)
	}
	if err := levels.Set("libp2p", slog.LevelError); err != nil {
		t.Fatal(err)
	}
	pubsub.Warn("another")
	if got := take(); got != "" {
		t.Errorf("libp2p at error: got %q", got)
	}
}
