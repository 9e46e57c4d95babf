package logs

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// ANSI colours of text output.
const (
	ansiReset  = "\x1b[0m"
	ansiFaint  = "\x1b[2m"
	ansiRed    = "\x1b[31m"
	ansiGreen  = "\x1b[32m"
	ansiYellow = "\x1b[33m"
)

// Two messages have a colour of their own, so that the eye finds them on a
// screen full of lines.
const (
	blockMessage = "block" // a block became part of the chain
	reorgMessage = "reorg" // the chain changed to another branch
)

// progressMessage is how far a sync is: on a terminal one line that is drawn anew,
// until progressOver ends it.
const (
	progressMessage = "syncing"
	progressOver    = "sync finished"
)

const timeLayout = "2006-01-02T15:04:05.000"

// textHandler writes "time LVL message key=value …".
type textHandler struct {
	w     io.Writer
	mu    *sync.Mutex // guards w; held for one Write; shared by derived handlers
	live  *Terminal   // what w is, if it is one
	color bool
	max   int    // bytes of a message or value
	attrs []byte // formatted attributes of WithAttrs, each with a space before it
	group string // "a.b." before the keys that follow
}

func (h *textHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	if h.live != nil && r.Message == progressMessage {
		if text, _, ok := phraseOf(r); ok {
			return h.live.Draw(string(h.appendText(nil, r.Message+" "+text, false)))
		}
	}
	if h.live != nil && r.Message == progressOver {
		if err := h.live.Draw(""); err != nil {
			return err
		}
	}
	b := make([]byte, 0, 256)
	line, tag := h.tints(r)
	b = append(b, line...)
	if !r.Time.IsZero() {
		if h.color && line == "" {
			b = append(b, ansiFaint...)
		}
		b = r.Time.AppendFormat(b, timeLayout)
		if h.color && line == "" {
			b = append(b, ansiReset...)
		}
		b = append(b, ' ')
	}
	b = append(b, tag...)
	b = append(b, levelTag(r.Level)...)
	b = append(b, ' ')
	b = h.appendText(b, r.Message, false)
	if tag != "" {
		b = append(b, ansiReset...)
	}
	b = h.appendAttrs(b, r)
	if line != "" {
		b = append(b, ansiReset...)
	}
	b = append(b, '\n')

	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(b)
	return err
}

// appendRecord appends a record without its time and level, and without colours.
func (h *textHandler) appendRecord(b []byte, r slog.Record) []byte {
	return h.appendAttrs(h.appendText(b, r.Message, false), r)
}

// appendAttrs appends what follows the message: a phrase if there is one, and the rest.
func (h *textHandler) appendAttrs(b []byte, r slog.Record) []byte {
	if text, rest, ok := phraseOf(r); ok {
		b = append(b, ' ')
		b = h.appendText(b, text, false)
		for _, a := range rest {
			if !evident(r, a) {
				b = h.appendAttr(b, h.group, a)
			}
		}
		return append(b, h.attrs...)
	}
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		if !evident(r, a) {
			b = h.appendAttr(b, h.group, a)
		}
		return true
	})
	return b
}

// evident says that an attribute need not be written: our own lines at info say
// what they are about without their subsystem.
func evident(r slog.Record, a slog.Attr) bool {
	return a.Key == Subsystem && r.Level == slog.LevelInfo && !within(a.Value.String(), libp2pSubsystem)
}

// tints returns the colour of the whole line and, if that is none, of its
// level and message.
func (h *textHandler) tints(r slog.Record) (line, tag string) {
	switch {
	case !h.color:
		return "", ""
	case r.Message == reorgMessage:
		return ansiYellow, ""
	case r.Message == blockMessage && r.Level == slog.LevelInfo:
		return ansiGreen, ""
	case r.Level >= slog.LevelError:
		return "", ansiRed
	case r.Level >= slog.LevelWarn:
		return "", ansiYellow
	case r.Level < slog.LevelInfo:
		return "", ansiFaint
	}
	return "", ""
}

func levelTag(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DBG"
	case l < slog.LevelWarn:
		return "INF"
	case l < slog.LevelError:
		return "WRN"
	}
	return "ERR"
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := h.with(attrs)
	return &c
}

func (h *textHandler) with(attrs []slog.Attr) textHandler {
	c := *h
	c.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		c.attrs = c.appendAttr(c.attrs, h.group, a)
	}
	return c
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func (h *textHandler) appendAttr(b []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if a.Key == "" && v.Kind() != slog.KindGroup {
		return b
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, ga := range v.Group() {
			b = h.appendAttr(b, group, ga)
		}
		return b
	}
	if a.Key == Subsystem {
		group = "" // said of the line, whatever group is open
	}
	b = append(b, ' ')
	b = h.appendText(b, group+a.Key, true)
	b = append(b, '=')
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindFloat64:
		return strconv.AppendFloat(b, v.Float64(), 'g', -1, 64)
	case slog.KindTime:
		return v.Time().AppendFormat(b, time.RFC3339Nano)
	case slog.KindString, slog.KindDuration:
		return h.appendText(b, v.String(), true)
	case slog.KindAny, slog.KindGroup, slog.KindLogValuer: // the last two are resolved above
	}
	cut, rest := anyText(v.Any(), h.max)
	return appendClipped(b, cut, rest, true)
}

// appendText appends s, cut to the limit and escaped if it holds anything but
// printable characters. As a value it is quoted, too, if it could be mistaken
// for more than one word; a message is quoted only if it had to be escaped.
func (h *textHandler) appendText(b []byte, s string, value bool) []byte {
	cut, rest := clip(s, h.max)
	return appendClipped(b, cut, rest, value)
}

// appendClipped is appendText after the cut of rest bytes.
func appendClipped(b []byte, cut string, rest int, value bool) []byte {
	if needsQuote(cut, value) {
		b = strconv.AppendQuote(b, cut)
	} else {
		b = append(b, cut...)
	}
	if rest > 0 {
		b = fmt.Appendf(b, "…(+%d)", rest)
	}
	return b
}

func needsQuote(s string, value bool) bool {
	if value && s == "" {
		return true
	}
	for _, r := range s {
		switch {
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return true // also C1 controls and what turns the writing direction
		case value && (r == ' ' || r == '"' || r == '='):
			return true
		}
	}
	return false
}

// clip cuts s after at most limit bytes, not inside a character, and returns
// how many bytes it left off.
func clip(s string, limit int) (cut string, rest int) {
	if len(s) <= limit {
		return s, 0
	}
	for n := 0; n < utf8.UTFMax-1 && limit > 0 && !utf8.RuneStart(s[limit]); n++ {
		limit--
	}
	return s[:limit], len(s) - limit
}

// anyText formats a value that slog has no kind for, cut like clip does. Bytes
// are hex; a panic in the value's own method becomes text (package fmt sees to
// that). It keeps no more than limit bytes of however long a text.
func anyText(v any, limit int) (cut string, rest int) {
	if raw, ok := v.([]byte); ok {
		n := min(len(raw), limit/2)
		return hex.EncodeToString(raw[:n]), 2 * (len(raw) - n)
	}
	w := boundedText{limit: limit}
	if _, ok := v.(error); ok {
		fmt.Fprintf(&w, "%v", v)
	} else {
		fmt.Fprintf(&w, "%+v", v)
	}
	return string(w.b), w.lost
}

// boundedText is a writer that keeps what fits and counts the rest.
type boundedText struct {
	b     []byte
	limit int
	lost  int
}

func (w *boundedText) Write(p []byte) (int, error) {
	n := min(len(p), w.limit-len(w.b))
	w.b = append(w.b, p[:n]...)
	w.lost += len(p) - n
	return len(p), nil
}
