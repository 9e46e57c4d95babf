package logs

import (
	"fmt"
	"io"
	"sync"
	"unicode/utf8"
)

// eraseLine returns to the first column and clears what stands in the line.
const eraseLine = "\r\x1b[K"

// A Terminal is a writer of whole lines that keeps one more below them, the live
// line, which is drawn anew in place: a line is written above it. Nothing else may
// write to the screen meanwhile. It is safe for concurrent use.
//
// Invariants: what is written is one Write of the underlying writer, so that no
// other process's output falls between clearing the live line and drawing it
// again; the live line is never longer than the terminal is wide, so that clearing
// it clears all of it.
type Terminal struct {
	w       io.Writer
	columns func() int

	mu   sync.Mutex // guards what follows and the order of writes; held for one Write
	live string     // as it was told; "" none
}

// NewTerminal returns a Terminal on w. columns is asked for its width at each
// drawing, which lets the user change it.
func NewTerminal(w io.Writer, columns func() int) *Terminal {
	return &Terminal{w: w, columns: columns}
}

// Write implements io.Writer: b is one or more whole lines.
func (t *Terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == "" {
		return t.w.Write(b)
	}
	out := make([]byte, 0, len(eraseLine)+len(b)+len(t.live))
	out = append(append(append(out, eraseLine...), b...), t.shown()...)
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Draw replaces the live line; "" removes it. text must hold no control characters.
func (t *Terminal) Draw(text string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == "" && t.live == "" {
		return nil
	}
	t.live = text
	if _, err := io.WriteString(t.w, eraseLine+t.shown()); err != nil {
		return fmt.Errorf("draw the live line: %w", err)
	}
	return nil
}

// Close removes the live line, so that a prompt finds an empty one. It does not
// close the writer.
func (t *Terminal) Close() error { return t.Draw("") }

// Fd is the file descriptor of the writer, for those who ask whether that is a
// terminal; ^0 if it has none.
func (t *Terminal) Fd() uintptr {
	if f, ok := t.w.(interface{ Fd() uintptr }); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// shown is the live line as it fits: its last column stays empty, because some
// terminals go on to the next line when it is written. Call with mu held.
func (t *Terminal) shown() string {
	room := max(t.columns()-1, 0)
	if utf8.RuneCountInString(t.live) <= room {
		return t.live
	}
	n := 0
	for i := range t.live {
		if n == room-1 {
			return t.live[:i] + "…"
		}
		n++
	}
	return ""
}
