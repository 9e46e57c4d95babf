package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limits of a Ring.
const (
	ringRecords = 2000
	ringBytes   = 2 << 20
	// ringRate of records a second is kept, so that what writes lines without end does not
	// drive out all that went before within a second.
	ringRate = 500
	// A value and a line are cut shorter than on standard error, which has all of it, and a
	// record has no more attributes.
	ringValueBytes = 256
	ringLineBytes  = 2048
	ringAttrs      = 32
)

// A Record is a line of the log as a [Ring] keeps it. It is not to be changed.
type Record struct {
	Seq       uint64 // ascending from 1
	Time      time.Time
	Level     slog.Level
	Subsystem string
	Message   string
	Text      string // the line without time and level
	Attrs     []TextAttr
}

// A TextAttr is an attribute of a [Record]; groups are in the key, with dots.
type TextAttr struct{ Key, Value string }

// A Ring keeps the last lines of the log in memory, for those who look at a running node:
// at most 2000 records of 2 MiB together, and 500 a second. Safe for concurrent use.
type Ring struct {
	mu      sync.Mutex // guards what follows; held for slice operations
	records []Record
	bytes   int
	last    uint64
	dropped uint64
	changed chan struct{} // nil: nobody waits
	second  int64         // Unix time that used counts
	used    int
}

// NewRing returns an empty ring.
func NewRing() *Ring { return &Ring{} }

// A Tail is a part of the log.
type Tail struct {
	Records []Record        // oldest first
	Last    uint64          // number to go on behind
	Dropped uint64          // records that were over the rate, since the start
	Changed <-chan struct{} // closed when there is another record
}

// Since returns up to most records behind a number, the oldest first. A number behind all
// there are counts as that of the last.
func (r *Ring) Since(after uint64, most int) Tail {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	t := Tail{Last: min(after, r.last), Dropped: r.dropped, Changed: r.changed}
	// Numbers have no gaps.
	first := len(r.records) - int(min(uint64(len(r.records)), r.last-t.Last))
	for i := first; i < len(r.records) && len(t.Records) < most; i++ {
		t.Records = append(t.Records, r.records[i])
		t.Last = r.records[i].Seq
	}
	return t
}

func sizeOf(r *Record) int {
	n := 128 + len(r.Subsystem) + len(r.Message) + len(r.Text)
	for _, a := range r.Attrs {
		n += 32 + len(a.Key) + len(a.Value)
	}
	return n
}

// admits says whether one more record may be kept in the second of now.
func (r *Ring) admits(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := now.Unix(); s != r.second {
		r.second, r.used = s, 0
	}
	if r.used++; r.used > ringRate {
		r.dropped++
		return false
	}
	return true
}

func (r *Ring) add(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	rec.Seq = r.last
	r.records = append(r.records, rec)
	r.bytes += sizeOf(&rec)
	n := 0
	for len(r.records)-n > ringRecords || r.bytes > ringBytes {
		r.bytes -= sizeOf(&r.records[n])
		n++
	}
	clear(r.records[:n])
	r.records = r.records[n:]
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// ringHandler writes records to a ring and to what comes after it.
type ringHandler struct {
	next  slog.Handler
	ring  *Ring
	line  textHandler // formats
	attrs []TextAttr
	group string
}

func newRingHandler(next slog.Handler, ring *Ring) *ringHandler {
	return &ringHandler{next: next, ring: ring, line: textHandler{max: ringValueBytes}}
}

// Enabled implements slog.Handler.
func (h *ringHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h *ringHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.ring.admits(time.Now()) {
		rec := Record{Time: r.Time, Level: r.Level, Attrs: append([]TextAttr{}, h.attrs...)}
		rec.Message = string(h.line.appendText(nil, r.Message, false))
		line := h.line.appendRecord(nil, r)
		cut, rest := clip(string(line), ringLineBytes)
		if rec.Text = cut; rest > 0 {
			rec.Text += "…"
		}
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == Subsystem {
				rec.Subsystem, _ = clip(a.Value.String(), ringValueBytes)
				return true
			}
			rec.Attrs = appendTextAttr(rec.Attrs, h.group, a)
			return len(rec.Attrs) < ringAttrs
		})
		h.ring.add(rec)
	}
	return h.next.Handle(ctx, r)
}

// appendTextAttr appends a as text, a group as its members.
func appendTextAttr(to []TextAttr, group string, a slog.Attr) []TextAttr {
	v := a.Value.Resolve()
	if len(to) >= ringAttrs || a.Key == "" && v.Kind() != slog.KindGroup {
		return to
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			to = appendTextAttr(to, group, member)
		}
		return to
	}
	var text string
	var rest int
	if v.Kind() == slog.KindAny {
		text, rest = anyText(v.Any(), ringValueBytes)
	} else {
		text, rest = clip(v.String(), ringValueBytes)
	}
	if rest > 0 {
		text += "…"
	}
	key, _ := clip(group+a.Key, ringValueBytes)
	return append(to, TextAttr{key, text})
}

// WithAttrs implements slog.Handler.
func (h *ringHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	c.line = h.line.with(attrs)
	c.attrs = append([]TextAttr{}, h.attrs...)
	for _, a := range attrs {
		c.attrs = appendTextAttr(c.attrs, h.group, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *ringHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	c.group += name + "."
	c.line.group += name + "."
	return &c
}
