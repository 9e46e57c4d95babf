package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dunlin/internal/api"
)

// TestTutorial does what docs/tutorial.md says, box by box, and compares what it
// sees with what the reader is told to see. The first words of a box say what it is:
//
//	sh              run in bash to its end; it must succeed
//	sh until        run again and again until it prints what the next box says
//	sh terminal N   a daemon that runs on in terminal N
//	text            what the sh box before printed, line by line
//	text terminal N lines that appear in terminal N sooner or later
//	text terminal N ctrl-c   the same, after Ctrl-C there; the daemon must end well
//	js console      lines typed into the browser's console
//	json console    what the console prints next
//
// An … stands for anything. Hashes that boxes show for one height must agree.
func TestTutorial(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "tutorial.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lockTutorialPorts(t)
	boxes := parseTutorial(t, onFreePorts(t, string(doc)))
	if len(boxes) < 40 {
		t.Fatalf("%s has %d boxes only: was it read right?", path, len(boxes))
	}
	r := &tutorial{t: t, dir: t.TempDir(), terminals: make(map[string]*terminal)}
	t.Cleanup(r.end)
	for i, b := range boxes {
		var next *box
		if i+1 < len(boxes) {
			next = &boxes[i+1]
		}
		r.do(b, next)
	}
	for n := range r.terminals {
		t.Errorf("terminal %s is never told to end", n)
	}
}

// onFreePorts is the document with ports that nobody uses on this machine, below those that
// the system chooses.
func onFreePorts(t *testing.T, doc string) string {
	t.Helper()
	port := regexp.MustCompile(`\b19([12][01]\d)\b`)
	for _, thousands := range rand.Perm(20) {
		moved := port.ReplaceAllString(doc, strconv.Itoa(10+thousands)+"$1")
		free := true
		for _, p := range regexp.MustCompile(`\b`+strconv.Itoa(10+thousands)+`[12][01]\d\b`).FindAllString(moved, -1) {
			l, err := net.Listen("tcp", ":"+p)
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return moved
		}
	}
	t.Fatal("no free ports for the tutorial")
	return ""
}

// lockTutorialPorts keeps two runs of this test on one machine from using the
// tutorial's ports at once.
func lockTutorialPorts(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "dunlin-tutorial-test.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // which unlocks it
}

// A box is a fenced block.
type box struct {
	line    int // of the document
	section string
	kind    string // the words after the fence
	text    string
}

func parseTutorial(t *testing.T, doc string) []box {
	t.Helper()
	var boxes []box
	var open *box
	section := ""
	for i, line := range strings.Split(doc, "\n") {
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &box{line: i + 1, section: section, kind: kind}
		case fence:
			boxes = append(boxes, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "## "):
			section = line[3:]
		}
	}
	if open != nil {
		t.Fatalf("line %d: the box is not closed", open.line)
	}
	return boxes
}

// tutorial is a run of it.
type tutorial struct {
	t         *testing.T
	dir       string
	terminals map[string]*terminal
	console   *websocket.Conn
	section   string
	hashes    map[string]string // of the blocks in this section, by height
}

// terminal is a daemon that runs in one.
type terminal struct {
	cmd  *exec.Cmd
	log  *output
	done chan struct{}
	err  error // set before done is closed
}

func (r *tutorial) do(b box, next *box) {
	t := r.t
	t.Helper()
	if r.section != b.section {
		r.section, r.hashes = b.section, make(map[string]string)
	}
	words := strings.Fields(b.kind)
	switch {
	case b.kind == "sh" || b.kind == "sh until":
		want := ""
		if next != nil && next.kind == "text" {
			want = next.text
		} else if b.kind == "sh until" {
			t.Fatalf("line %d: until what?", b.line)
		}
		if b.kind == "sh" {
			if err := r.shell(b, want); err != nil {
				t.Fatalf("line %d: %v", b.line, err)
			}
			return
		}
		eventually(t, patience, fmt.Sprintf("line %d", b.line), func() error { return r.shell(b, want) })
	case b.kind == "text": // compared by the box before
	case len(words) == 3 && words[0] == "sh" && words[1] == "terminal":
		r.start(words[2], b)
	case len(words) >= 3 && words[0] == "text" && words[1] == "terminal":
		term := r.terminals[words[2]]
		if term == nil {
			t.Fatalf("line %d: nothing runs in terminal %s", b.line, words[2])
		}
		if len(words) == 4 && words[3] == "ctrl-c" {
			if err := term.interrupt(); err != nil {
				t.Errorf("line %d: terminal %s after Ctrl-C: %v", b.line, words[2], err)
			}
			delete(r.terminals, words[2])
		}
		eventually(t, patience, fmt.Sprintf("line %d: terminal %s", b.line, words[2]), func() error {
			return r.shown(term.log.String(), b.text)
		})
	case b.kind == "js console":
		for line := range strings.Lines(b.text) {
			if err := r.typed(strings.TrimSpace(line)); err != nil {
				t.Fatalf("line %d: %v", b.line, err)
			}
		}
	case b.kind == "json console":
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, got, err := r.console.Read(ctx)
		if err != nil {
			t.Fatalf("line %d: %v", b.line, err)
		}
		if err := r.same(string(got), b.text); err != nil {
			t.Fatalf("line %d: %v", b.line, err)
		}
	default:
		t.Fatalf("line %d: nobody runs a box of kind %q", b.line, b.kind)
	}
}

// command is bash in the tutorial's folder, as the reader's terminal is.
func (r *tutorial) command(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "XDG_DATA_HOME=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// shell runs a box to its end and compares what it prints with want, if that is
// not empty.
func (r *tutorial) shell(b box, want string) error {
	out, err := r.command(b.text).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, b.text, out)
	}
	if want == "" {
		return nil
	}
	return r.same(string(out), want)
}

// start runs a box in a terminal and waits until its node listens.
func (r *tutorial) start(name string, b box) {
	r.t.Helper()
	if r.terminals[name] != nil {
		r.t.Fatalf("line %d: terminal %s is busy", b.line, name)
	}
	home := regexp.MustCompile(`--home (\w+)`).FindStringSubmatch(b.text)
	if home == nil {
		r.t.Fatalf("line %d: no --home", b.line)
	}
	term := &terminal{cmd: r.command(b.text), log: newOutput(r.t), done: make(chan struct{})}
	term.log.of(term.cmd)
	if err := term.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.terminals[name] = term
	go func() {
		term.err = term.cmd.Wait()
		close(term.done)
	}()
	eventually(r.t, patience, fmt.Sprintf("line %d: the node listens", b.line), func() error {
		select {
		case <-term.done:
			return fatal{fmt.Errorf("it ended (%w)\n%s", term.err, term.log)}
		default:
		}
		_, err := api.ReadNodeFile(filepath.Join(r.dir, home[1]))
		return err
	})
}

// interrupt is Ctrl-C: a signal to all that runs in the terminal.
func (term *terminal) interrupt() error {
	if err := syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-term.done:
		return term.err
	case <-timer.C:
		return errors.New("it goes on")
	}
}

// end leaves no process, whatever went wrong.
func (r *tutorial) end() {
	if r.console != nil {
		_ = r.console.CloseNow()
	}
	for n, term := range r.terminals {
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
		<-term.done
		if r.t.Failed() {
			r.t.Logf("terminal %s:\n%s", n, lastPart(term.log.String(), 4000))
		}
	}
}

var (
	jsConnect = regexp.MustCompile(`^ws = new WebSocket\("(.+)"\)$`)
	jsSend    = regexp.MustCompile(`^ws\.send\('(.+)'\)$`)
)

// typed does what a line in the browser's console does.
func (r *tutorial) typed(line string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if m := jsConnect.FindStringSubmatch(line); m != nil {
		// The console belongs to a page of the same node.
		host, _, _ := strings.Cut(strings.TrimPrefix(m[1], "ws://"), "/")
		page := http.Header{"Origin": {"http://" + host}}
		c, answer, err := websocket.Dial(ctx, m[1], &websocket.DialOptions{HTTPHeader: page})
		if err != nil {
			return err
		}
		if answer.Body != nil {
			answer.Body.Close()
		}
		r.console = c
		return nil
	}
	if m := jsSend.FindStringSubmatch(line); m != nil {
		return r.console.Write(ctx, websocket.MessageText, []byte(m[1]))
	}
	if line == "ws.onmessage = (event) => console.log(event.data)" {
		return nil // what a json box does
	}
	return fmt.Errorf("the test cannot type %q", line)
}

// like makes a pattern of a line that the document shows.
func like(line string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(line, " ")), "…", ".*") + "$")
}

// same compares line by line.
func (r *tutorial) same(got, want string) error {
	gots, wants := strings.Split(strings.TrimRight(got, "\n"), "\n"), strings.Split(strings.TrimRight(want, "\n"), "\n")
	if len(gots) != len(wants) {
		return fmt.Errorf("%d lines, want %d; got\n%s\nwant\n%s", len(gots), len(wants), got, want)
	}
	for i := range gots {
		if !like(wants[i]).MatchString(strings.TrimRight(gots[i], " ")) {
			return fmt.Errorf("got\n%s\nwant\n%s\nin\n%s", gots[i], wants[i], got)
		}
		if err := r.agree(gots[i]); err != nil {
			return err
		}
	}
	return nil
}

// shown wants every line of want somewhere in log.
func (r *tutorial) shown(log, want string) error {
lines:
	for w := range strings.Lines(want) {
		pattern := like(strings.TrimSuffix(w, "\n"))
		for line := range strings.Lines(log) {
			if line = strings.TrimSuffix(line, "\n"); pattern.MatchString(line) {
				if err := r.agree(line); err != nil {
					return fatal{err}
				}
				continue lines
			}
		}
		return fmt.Errorf("no line %q in\n%s", w, log)
	}
	return nil
}

// Where a height and a hash stand together: log lines, rows of chain list, JSON.
var blockMentions = []*regexp.Regexp{
	regexp.MustCompile(` INF block (\d+) ([0-9a-f]{6})…`),
	regexp.MustCompile(`^(\d+) +([0-9a-f]{12})…`),
	regexp.MustCompile(`^block (\d+) ([0-9a-f]{12})`),
	regexp.MustCompile(`"(?:index|height)":(\d+),"hash":"([0-9a-f]{12})`),
}

// agree remembers the hashes in a line and compares them with those seen before:
// three nodes that agree have one hash for a height.
func (r *tutorial) agree(line string) error {
	for _, mention := range blockMentions {
		for _, m := range mention.FindAllStringSubmatch(line, -1) {
			before, ok := r.hashes[m[1]]
			if ok && !strings.HasPrefix(before, m[2]) && !strings.HasPrefix(m[2], before) {
				return fmt.Errorf("block %s is %s… here and was %s… before: %s", m[1], m[2], before, line)
			}
			if len(m[2]) > len(before) {
				r.hashes[m[1]] = m[2] // log lines show less of a hash
			}
		}
	}
	return nil
}
