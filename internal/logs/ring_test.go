package logs_test

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/internal/logs"
)

// TestRing: what is logged is kept as it is read by people, with its attributes, numbered
// without gaps.
func TestRing(t *testing.T) {
	ring := logs.NewRing()
	log, levels := logs.New(logs.Options{Writer: io.Discard, Ring: ring})
	empty := ring.Since(0, 10)
	if len(empty.Records) != 0 || empty.Last != 0 {
		t.Errorf("a new ring: %+v", empty)
	}
	sync := log.With(logs.Subsystem, "sync").With("peer", "12D3").WithGroup("g")
	sync.Info("hello", "n", 3, "err", errors.New("a\nb"))
	log.Debug("not logged")
	select {
	case <-empty.Changed:
	default:
		t.Error("nobody is told of a line")
	}
	log.Warn("careful", "value", strings.Repeat("v", 10_000))
	all := ring.Since(0, 10)
	if len(all.Records) != 2 || all.Last != 2 || all.Dropped != 0 {
		t.Fatalf("%+v", all)
	}
	r := all.Records[0]
	want := []logs.TextAttr{{Key: "peer", Value: "12D3"}, {Key: "g.n", Value: "3"}, {Key: "g.err", Value: "a\nb"}}
	if r.Seq != 1 || r.Subsystem != "sync" || r.Level != slog.LevelInfo || r.Message != "hello" || !slices.Equal(r.Attrs, want) ||
		r.Text != `hello peer=12D3 g.n=3 g.err="a\nb"` {
		t.Errorf("%+v", r)
	}
	if n := len(all.Records[1].Text) + len(all.Records[1].Attrs[0].Value); n > 1000 {
		t.Errorf("a long value takes %d bytes", n)
	}
	if part := ring.Since(1, 10); len(part.Records) != 1 || part.Records[0].Message != "careful" {
		t.Errorf("behind 1: %+v", part)
	}
	if part := ring.Since(0, 1); len(part.Records) != 1 || part.Last != 1 {
		t.Errorf("one: %+v", part)
	}
	if part := ring.Since(99, 10); len(part.Records) != 0 || part.Last != 2 {
		t.Errorf("behind the end: %+v", part)
	}
	if known := levels.Known(); !slices.Equal(known, []string{"sync"}) {
		t.Errorf("subsystems %v", known)
	}
}

// TestRingIsBounded: by lines, by bytes and by lines a second, whatever is logged.
func TestRingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := logs.NewRing()
		log, _ := logs.New(logs.Options{Writer: io.Discard, Ring: ring})
		const perSecond, lines, bytes = 500, 2000, 1 << 20
		for range perSecond + 100 {
			log.Info("a line")
		}
		if tail := ring.Since(0, 10_000); len(tail.Records) != perSecond || tail.Dropped != 100 {
			t.Errorf("%d kept of a second, %d dropped", len(tail.Records), tail.Dropped)
		}
		for range 4 {
			time.Sleep(time.Second) // virtual
			for range perSecond {
				log.Info("a line")
			}
		}
		tail := ring.Since(0, 10_000)
		if len(tail.Records) != lines || tail.Records[0].Seq != 501 || tail.Last != 2500 {
			t.Errorf("%d lines kept from %d to %d", len(tail.Records), tail.Records[0].Seq, tail.Last)
		}
		long := strings.Repeat("x", 5000)
		for range 4 {
			time.Sleep(time.Second)
			for range perSecond {
				log.Info("long", "a", long, "b", long, "c", long, "d", long, "e", long, "f", long, "g", long, "h", long, "i", long, "j", long)
			}
		}
		size := 0
		for _, r := range ring.Since(0, 10_000).Records {
			size += len(r.Text) + len(r.Message)
			for _, a := range r.Attrs {
				size += len(a.Key) + len(a.Value)
			}
		}
		// What is kept of a line is shorter than what is told of it: most of its text follows from its attributes.
		if size > 2*bytes || size < bytes/2 {
			t.Errorf("lines of %d bytes are kept, limit %d", size, bytes)
		}
		if n := ring.Size(); n > bytes+8*lines+64<<10 {
			t.Errorf("they take %d bytes, limit %d", n, bytes)
		}
	})
}

// TestRingKeepsTexts: whatever a line is made of, it is read as it was written: with and without a phrase, attributes of groups, a subsystem,
// what had to be escaped or cut, and levels of every kind.
func TestRingKeepsTexts(t *testing.T) {
	ring := logs.NewRing()
	var out strings.Builder
	log, _ := logs.New(logs.Options{Writer: &out, Ring: ring, Color: logs.Never, Level: slog.LevelDebug, MaxValueBytes: 256})
	long := strings.Repeat("ü", 200)
	log.Info("plain")
	log.Info("plain", "n", 3, "b", true, "d", 3*time.Second, "f", 0.25, "t", time.Unix(1, 2).UTC(), "raw", []byte{1, 2})
	log.With(logs.Subsystem, "sync").Info("of ours at info", "x", "")
	log.With(logs.Subsystem, "sync").Warn("with its subsystem", "x", "a b")
	log.With(logs.Subsystem, "a b").Debug("whose name is quoted", "k=1", `"`)
	log.With(logs.Subsystem, "sync").WithGroup("g").With("a", 1).Error("grouped", slog.Group("h", "b", 2, "c", "\x1b[0m"), "e", errors.New("x\ny"))
	log.Info("cut", "long", long)
	log.Info("a\nmessage", "after", 1)
	log.Info("block", "height", 5, "hash", strings.Repeat("0f", 32), "txs", 3, "bytes", 900)
	log.Log(t.Context(), slog.LevelError+3, "unusual level", "", "no key", "twice", 1, "twice", 2)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	kept := ring.Since(0, 100).Records
	if len(kept) != len(lines) || len(kept) != 10 {
		t.Fatalf("%d kept of %d", len(kept), len(lines))
	}
	for i, r := range kept {
		// Behind the time and three letters of the level.
		if _, want, ok := strings.Cut(lines[i][len("2006-01-02T15:04:05.000 "):], " "); !ok || r.Text != want {
			t.Errorf("line %d\nkept  %q\nlines %q", i, r.Text, want)
		}
		if r.Time.Format("2006-01-02T15:04:05.000") != lines[i][:23] || r.Seq != uint64(i+1) {
			t.Errorf("line %d: number %d, %v", i, r.Seq, r.Time)
		}
	}
	if r := kept[9]; r.Level != slog.LevelError+3 || len(r.Attrs) != 2 || r.Attrs[1] != (logs.TextAttr{Key: "twice", Value: "2"}) {
		t.Errorf("%+v", r)
	}
	if r := kept[6]; len(r.Attrs) != 1 || len(r.Attrs[0].Value) > 260 || !strings.HasSuffix(r.Attrs[0].Value, "…") {
		t.Errorf("%+v", r)
	}
	if r := kept[3]; r.Subsystem != "sync" || r.Level != slog.LevelWarn {
		t.Errorf("%+v", r)
	}
}

// TestRingIsSmall: two thousand lines of a node at the tip, blocks and peers that come and go, take half a megabyte.
func TestRingIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := logs.NewRing()
		log, _ := logs.New(logs.Options{Writer: io.Discard, Ring: ring})
		chain, p2p := log.With(logs.Subsystem, "chain"), log.With(logs.Subsystem, "p2p")
		id := "12D3KooW" + strings.Repeat("x", 44)
		for i := range 3000 {
			if i%2 == 0 {
				chain.Info("block", "height", i, "hash", strings.Repeat("0f", 32), "txs", 9, "bytes", 2400, "from", id, "delay", 12*time.Millisecond)
			} else {
				p2p.Info("peer connected", "peer", id, "direction", "inbound", "addr", "/ip4/127.0.0.1/tcp/50658", "agent", "dunlin/dev", "height", i, "inbound", 1, "outbound", 3)
			}
			time.Sleep(10 * time.Millisecond) // virtual
		}
		if kept, size := len(ring.Since(0, 10_000).Records), ring.Size(); kept != 2000 || size > 512<<10 {
			t.Errorf("%d lines take %d bytes", kept, size)
		}
	})
}
