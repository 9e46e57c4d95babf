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
		const perSecond, lines, bytes = 500, 2000, 2 << 20
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
		if size > bytes {
			t.Errorf("%d bytes kept, limit %d", size, bytes)
		}
	})
}
