package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dunlin/internal/api"
)

// A frame replaces the one before, line by line, within the screen.
func TestRedraw(t *testing.T) {
	t.Parallel()
	if got, want := redraw("one\ntwo\n", 80, 24, false), "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := redraw("x\n", 80, 24, true); !strings.HasPrefix(got, "\x1b[H\x1b[2J") {
		t.Errorf("first: %q", got)
	}
	got := redraw(strings.Repeat("äbcdefgh\n", 10), 5, 4, false)
	if want := "\x1b[Häbcd…\x1b[K\näbcd…\x1b[K\n… an…\x1b[K\n\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := redraw("a\nb\n", 3, 1, false); got != "\x1b[H… …\x1b[K\n\x1b[J" {
		t.Errorf("one row: %q", got)
	}
}

// In plain lines each peer that comes or goes is told once.
func TestPeerChanges(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 20, 0, 1, 0, time.UTC)
	a, b := api.Peer{ID: "A", Addr: "/ip4/192.0.2.1/tcp/1"}, api.Peer{ID: "B", Addr: "/ip4/192.0.2.2/tcp/1", Inbound: true}
	var before map[string]api.Peer
	for _, tt := range []struct {
		peers []api.Peer
		want  []string
	}{
		{[]api.Peer{a}, []string{"20:00:01 + A out /ip4/192.0.2.1/tcp/1"}},
		{[]api.Peer{a}, nil},
		{[]api.Peer{a, b}, []string{"20:00:01 + B in /ip4/192.0.2.2/tcp/1"}},
		{nil, []string{"20:00:01 - A /ip4/192.0.2.1/tcp/1", "20:00:01 - B /ip4/192.0.2.2/tcp/1"}},
	} {
		var lines []string
		lines, before = peerChanges(now, before, tt.peers)
		if strings.Join(lines, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%q, want %q", lines, tt.want)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in      string
		columns int
		want    string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 0, "abcd"}, {"äöü", 2, "ä…"}, {"abc", 1, "…"}} {
		if got := cut(tt.in, tt.columns); got != tt.want {
			t.Errorf("cut(%q, %d) = %q, want %q", tt.in, tt.columns, got, tt.want)
		}
	}
}

// A watched is a command that goes on until it is interrupted, and what it has written.
type watched struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *logBuffer
	errs *logBuffer
	read chan struct{} // closed once all output is read
}

// startWatch runs dunlin with its standard output at out, and reads what it writes from in.
func startWatch(t *testing.T, out, in *os.File, args ...string) *watched {
	t.Helper()
	w := &watched{t: t, cmd: exec.CommandContext(t.Context(), "dunlin", args...), out: &logBuffer{}, errs: &logBuffer{}, read: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), "TERM=xterm")
	w.cmd.Stdout, w.cmd.Stderr = out, w.errs
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.read)
		_, _ = io.Copy(w.out, in) // a terminal ends with an error
	}()
	return w
}

// onPipe is startWatch with a pipe.
func onPipe(t *testing.T, args ...string) *watched {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	w := startWatch(t, out, in, args...)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) shows(want string) {
	w.t.Helper()
	eventually(w.t, patience, "shows "+want, func() error {
		if !strings.Contains(w.out.String(), want) {
			return fmt.Errorf("%q, %s", w.out.String(), w.errs)
		}
		return nil
	})
}

func (w *watched) interrupt() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) ends(code int) {
	w.t.Helper()
	limit := time.AfterFunc(patience, func() { _ = w.cmd.Process.Kill() })
	defer limit.Stop()
	<-w.read
	_ = w.cmd.Wait() // the code says it
	if got := w.cmd.ProcessState.ExitCode(); got != code {
		w.t.Errorf("%v: exit %d, want %d\n%s", w.cmd.Args, got, code, w.errs)
	}
}

// TestE2EWatchLines: where nothing can be drawn, --watch writes plain lines or JSON lines until Ctrl-C, which is no error; a node that goes
// away is one.
func TestE2EWatchLines(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "watched", "--network", "regtest")
	other := newDaemon(t, "other", "--network", "regtest", "--bootstrap", d.addr())
	flags := []string{"--watch", "--interval", "100ms", "--home", d.home}
	text := onPipe(t, append([]string{"status"}, flags...)...)
	lines := onPipe(t, append([]string{"status", "-o", "json"}, flags...)...)
	peers := onPipe(t, append([]string{"peers"}, flags...)...)
	list := onPipe(t, append([]string{"peers", "list", "-o", "jsonl"}, flags...)...)
	text.shows(" synced height 0 of 0 peers 0 in 0 out mempool 0 | no peers yet")
	list.shows("[]\n")
	d.mine(1)
	text.shows(" synced height 1 of 1 ")
	lines.shows(`"height":1,`)
	other.start()
	peers.shows(" + " + other.info.PeerID + " ")
	list.shows(other.info.PeerID)
	other.stop()
	peers.shows(" - " + other.info.PeerID + " ")
	for _, w := range []*watched{text, lines, peers} {
		w.interrupt()
		w.ends(exitOK)
	}
	if strings.Contains(text.out.String(), "\x1b") {
		t.Errorf("escapes in a pipe: %q", text.out.String())
	}
	for line := range strings.Lines(lines.out.String()) {
		var s api.Status
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	d.stop()
	list.ends(exitUnreachable)
}
