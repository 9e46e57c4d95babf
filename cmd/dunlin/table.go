package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// A table aligns rows of cells, which are separated by tabs and ended by a line feed. On a terminal a row is cut at its width: wrapped, the
// columns of a wide table could not be told apart. The JSON forms have everything.
type table struct {
	*tabwriter.Writer
	w    io.Writer
	rows bytes.Buffer
}

// newTable starts a table on w with its headings; none leaves them out. Flush writes it.
func newTable(w io.Writer, headings ...string) *table {
	t := &table{w: w}
	t.Writer = tabwriter.NewWriter(&t.rows, 0, 0, 2, ' ', 0)
	if len(headings) > 0 {
		fmt.Fprintln(t, strings.Join(headings, "\t"))
	}
	return t
}

// Flush writes the table. Standard output that is gone is not told: whoever closed it knows.
func (t *table) Flush() {
	_ = t.Writer.Flush() // into memory
	width := 0
	if f, ok := t.w.(*os.File); ok && isTerminal(f) {
		width, _ = terminalSize(f)
	}
	for line := range strings.Lines(t.rows.String()) {
		_, _ = io.WriteString(t.w, cut(strings.TrimSuffix(line, "\n"), width)+"\n")
	}
}

// cut shortens a line to a number of columns, marking that; 0 is any number.
func cut(line string, columns int) string {
	if columns <= 0 || utf8.RuneCountInString(line) <= columns {
		return line
	}
	runes := []rune(line)
	return string(runes[:columns-1]) + "…"
}
