package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"dunlin/internal/api"
)

// Whatever the size, a screen never scrolls: the table's head stays in sight.
func TestScreenFits(t *testing.T) {
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("line %d %s", i, strings.Repeat("é", 100)))
	}
	for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 100}, {20, 5}, {1, 1}} {
		s := screen(lines, size[0], size[1], true)
		if n := strings.Count(s, "\n"); n > max(size[1]-1, 1) {
			t.Errorf("%v: %d line breaks", size, n)
		}
		s = strings.TrimSuffix(strings.TrimPrefix(s, "\x1b[2J\x1b[H"), "\r\n\x1b[J")
		for i, line := range strings.Split(s, "\r\n") {
			line = strings.TrimSuffix(line, "\x1b[K")
			if n := utf8.RuneCountInString(line); n > size[0] {
				t.Errorf("%v: line %d has %d columns", size, i, n)
			}
		}
	}
	if s := screen([]string{"a", "b"}, 80, 24, false); s != "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J" {
		t.Errorf("redraw: %q", s)
	}
}

// The logs of all daemons are told as one, in the order of time, with names.
func TestLogsAreMerged(t *testing.T) {
	dir := t.TempDir()
	hash := strings.Repeat("0123456789abcdef", 4)
	n := &network{}
	for i, text := range []string{
		"2026-11-21T10:00:00.001 INF block hash=" + hash + " from=miner\n2026-11-21T10:00:00.004 INF peer connected peer=idB\n",
		"2026-11-21T10:00:00.002 INF block from=idA\n\tno time here\n2026-11-21T10:00:00.003 INF x\n",
	} {
		log := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n.nodes = append(n.nodes, &daemon{log: log, info: api.NodeFile{PeerID: "id" + string(rune('A'+i))}})
	}
	want := []string{
		"  node1 10:00:00.001 INF block hash=01234567…cdef from=miner",
		"  node2 10:00:00.002 INF block from=node1",
		"  node2 10:00:00.003 INF x",
		"  node1 10:00:00.004 INF peer connected peer=node2",
	}
	if got := n.logs(10); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := n.logs(2); !slices.Equal(got, want[2:]) {
		t.Errorf("the last two: %q", got)
	}
	if got := n.logs(-1); len(got) != 0 {
		t.Errorf("no room: %q", got)
	}
}
