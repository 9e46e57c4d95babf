package logs

import (
	"context"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync"
	"time"

	"dunlin/internal/ring"
)

// Limits of a Ring.
const (
	ringRecords = 2000
	// Lines of a node at the tip take some 200 bytes as they are kept, with all of their attributes.
	ringBytes = 1 << 20
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
// at most 2000 records of 1 MiB together, and 500 a second. Safe for concurrent use.
type Ring struct {
	mu      sync.Mutex // guards what follows; held for copies of records
	records *ring.Ring // each as [appendPacked] makes it; record n has Seq n+1
	packed  []byte     // of the last record, to be used again
	dropped uint64
	changed chan struct{} // nil: nobody waits
	second  int64         // Unix time that used counts
	used    int
}

// NewRing returns an empty ring.
func NewRing() *Ring { return &Ring{records: ring.New(ringRecords, ringBytes)} }

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
	last := r.records.Next()
	t := Tail{Last: min(after, last), Dropped: r.dropped, Changed: r.changed}
	n := max(t.Last, r.records.First()) // numbers have no gaps
	if most = int(min(uint64(max(most, 0)), last-n)); most == 0 {
		return t
	}
	t.Records = make([]Record, 0, most)
	for ; len(t.Records) < most; n++ {
		raw, _ := r.records.Append(r.packed[:0], n)
		r.packed = raw
		t.Records = append(t.Records, unpacked(string(raw), n+1))
	}
	t.Last = n
	return t
}

// Size is how many bytes the records take.
func (r *Ring) Size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records.Size() + cap(r.packed)
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

func (r *Ring) add(rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packed = appendPacked(r.packed[:0], rec)
	r.records.Add(r.packed)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// How a packed record has its text: there, or as message and attributes make it, with or without the subsystem at its end.
const (
	textThere = iota
	textPlain
	textWithSubsystem
)

// appendPacked packs a record: it is read by people much less often than it is written, and by most nobody ever looks.
// What most texts say the attributes say once more, so such a text is not kept.
func appendPacked(b []byte, r *Record) []byte {
	b = binary.AppendVarint(b, r.Time.Unix())
	b = binary.AppendUvarint(b, uint64(r.Time.Nanosecond()))
	b = binary.AppendVarint(b, int64(r.Level))
	b = appendString(b, r.Subsystem)
	b = appendString(b, r.Message)
	b = binary.AppendUvarint(b, uint64(len(r.Attrs)))
	for _, a := range r.Attrs {
		b = appendString(appendString(b, a.Key), a.Value)
	}
	plain, behind := plainText(r), subsystemText(r)
	switch rest, ok := strings.CutPrefix(r.Text, plain); {
	case ok && rest == "":
		return append(b, textPlain)
	case ok && rest == behind:
		return append(b, textWithSubsystem)
	}
	return appendString(append(b, textThere), r.Text)
}

// unpacked reads what appendPacked made. Strings of the record are parts of b.
func unpacked(b string, seq uint64) Record {
	p := packed{b}
	r := Record{Seq: seq, Time: time.Unix(p.varint(), int64(p.uvarint())), Level: slog.Level(p.varint()), Subsystem: p.string(), Message: p.string()}
	r.Attrs = make([]TextAttr, p.uvarint())
	for i := range r.Attrs {
		r.Attrs[i] = TextAttr{Key: p.string(), Value: p.string()}
	}
	switch p.uvarint() {
	case textPlain:
		r.Text = plainText(&r)
	case textWithSubsystem:
		r.Text = plainText(&r) + subsystemText(&r)
	default:
		r.Text = p.string()
	}
	return r
}

// plainText is the line as [textHandler] writes it, if nothing was cut and there is no phrase for it.
func plainText(r *Record) string {
	b := append(make([]byte, 0, 256), r.Message...)
	for _, a := range r.Attrs {
		b = appendClipped(append(b, ' '), a.Key, 0, true)
		b = appendClipped(append(b, '='), a.Value, 0, true)
	}
	return string(b)
}

func subsystemText(r *Record) string {
	return string(appendClipped([]byte(" "+Subsystem+"="), r.Subsystem, 0, true))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A packed is what is left to read of a packed record.
type packed struct{ rest string }

func (p *packed) uvarint() (v uint64) {
	for shift := 0; ; shift += 7 {
		c := p.rest[0]
		p.rest = p.rest[1:]
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// varint undoes [binary.AppendVarint].
func (p *packed) varint() int64 {
	u := p.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (p *packed) string() (s string) {
	n := p.uvarint()
	s, p.rest = p.rest[:n], p.rest[n:]
	return s
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
		h.ring.add(&rec)
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
