package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"dunlin/internal/api"
	"dunlin/internal/docbox"
)

// walk does what a document says, box by box (internal/docbox has the words), and compares what it sees with what
// the reader is told to see.
type walk struct {
	t         *testing.T
	make      func(name string) *machine // a machine that is met for the first time
	machines  map[string]*machine
	terminals map[string]*terminal
	console   *websocket.Conn
	section   string
	compared  int               // text boxes with what is printed
	hashes    map[string]string // of the blocks in this section, by height; nil: not compared

	// answers are typed where a program asks: what a prompt ends with, and the line. Nil: nobody is there to be
	// asked.
	answers map[string]string

	// What documents leave to prose. All may be nil.
	begin  func(section string)            // before the first box of a section
	script func(b docbox.Box) string       // what is run of a box, in place of its text
	after  func(b docbox.Box, t *terminal) // behind each box that was run; t is nil if it has ended
}

// first is the machine of boxes that name none.
const first = "first"

// machine is where boxes run: a folder, a home and the rest of the environment, maybe a network of its own.
type machine struct {
	dir, home string
	env       []string
	at        place // nil: this machine
}

// terminal is what runs in one.
type terminal struct {
	on   *machine
	cmd  *exec.Cmd
	log  *output
	done chan struct{}
	err  error // set before done is closed
}

func newWalk(t *testing.T, machines func(name string) *machine) *walk {
	t.Helper()
	r := &walk{t: t, make: machines, machines: map[string]*machine{}, terminals: map[string]*terminal{}, hashes: map[string]string{}}
	t.Cleanup(r.end)
	return r
}

// machine is the one of a name; "" is the first.
func (r *walk) machine(name string) *machine {
	if name == "" {
		name = first
	}
	m := r.machines[name]
	if m == nil {
		m = r.make(name)
		r.machines[name] = m
	}
	return m
}

func (r *walk) do(boxes []docbox.Box) {
	r.t.Helper()
	for i, b := range boxes {
		var next docbox.Box
		if i+1 < len(boxes) {
			next = boxes[i+1]
		}
		if i == 0 || r.section != b.Section {
			r.section, r.hashes = b.Section, make(map[string]string)
			if strings.Contains(b.Section, "Stake") {
				r.hashes = nil // two may win a slot: a height can have two blocks for a while
			}
			if r.begin != nil {
				r.begin(b.Section)
			}
		}
		r.box(b, next)
	}
}

func (r *walk) box(b, next docbox.Box) {
	t := r.t
	t.Helper()
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	name := b.Value("terminal")
	line := fmt.Sprintf("line %d", b.Line)
	switch {
	case b.Has("not") || b.Has("by"):
	case b.Is("sh") && name != "":
		r.start(name, r.machine(b.Value("on")), line, r.text(b))
		r.ran(b, r.terminals[name])
	case b.Is("sh"):
		want := ""
		if next.Kind == "text" && b.Before(next) {
			want = next.Text
			r.compared++
		}
		m, script := r.machine(b.Value("on")), r.text(b)
		run := func() error {
			out, err := r.shell(m, script)
			if err != nil || want == "" {
				return err
			}
			return r.same(out, want)
		}
		if !b.Has("until") {
			if err := run(); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		} else {
			eventually(t, patience, line, run)
		}
		r.ran(b, nil)
	case b.Is("text") && name != "":
		term := r.terminals[name]
		if term == nil {
			t.Fatalf("%s: nothing runs in terminal %s", line, name)
		}
		if b.Has("ctrl-c") {
			r.interrupt(name)
		}
		eventually(t, patience, line+": terminal "+name, func() error {
			return r.shown(term.log.String(), b.Text)
		})
		if other := b.Value("joins"); other != "" {
			m := joinLine.FindStringSubmatch(term.log.String())
			if m == nil {
				t.Fatalf("%s: terminal %s does not say how others join", line, name)
			}
			r.start(other, r.machine(other), line, m[1])
		}
	case b.Kind == "js console":
		for l := range strings.Lines(b.Text) {
			if err := r.typed(strings.TrimSpace(l)); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	case b.Kind == "json console":
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, got, err := r.console.Read(ctx)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := r.same(string(got), b.Text); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	// The rest is shown, or was compared by the box before.
}

// joinLine is what a node tells its operator to run elsewhere.
var joinLine = regexp.MustCompile(`(?m)join me: (dunlin .+)$`)

func (r *walk) text(b docbox.Box) string {
	if r.script != nil {
		return r.script(b)
	}
	return b.Text
}

func (r *walk) ran(b docbox.Box, t *terminal) {
	if r.after != nil {
		r.after(b, t)
	}
}

// command is bash in the machine's folder, as the reader's terminal is.
func (m *machine) command(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "HOME="+m.home, "XDG_DATA_HOME=")
	cmd.Env = append(cmd.Env, m.env...)
	cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	ownGroup(cmd.SysProcAttr)
	return cmd
}

func (m *machine) start(cmd *exec.Cmd) error {
	if m.at != nil {
		return m.at.Start(cmd)
	}
	return cmd.Start()
}

// shell runs a script to its end and returns what it prints: with answers only what goes to standard output, for a person
// sits at the other two.
func (r *walk) shell(m *machine, script string) (string, error) {
	cmd := m.command(script)
	var out, said logBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	typing := make(chan struct{})
	if r.answers == nil {
		close(typing)
		if err := m.start(cmd); err != nil {
			return "", err
		}
	} else {
		program, user := openPTY(r.t)
		defer user.Close()
		cmd.Stdin, cmd.Stderr = program, program
		err := m.start(cmd)
		_ = program.Close()
		if err != nil {
			return "", err
		}
		go func() {
			defer close(typing)
			r.answer(user, &said)
		}()
	}
	// Whatever a script does, it comes to an end.
	timer := time.AfterFunc(patience, func() { _ = signalGroup(cmd.Process, syscall.SIGKILL) })
	err := cmd.Wait()
	timer.Stop()
	<-typing
	if err != nil {
		return "", fmt.Errorf("%w\n%s\n%s%s", err, script, out.String(), said.String())
	}
	return out.String(), nil
}

// answer reads what comes on a terminal until all programs have left it, and answers the questions.
func (r *walk) answer(user *os.File, said *logBuffer) {
	var unanswered []byte
	buf := make([]byte, 4096)
	for {
		n, err := user.Read(buf)
		_, _ = said.Write(buf[:n])
		unanswered = append(unanswered, buf[:n]...)
		for prompt, line := range r.answers {
			if bytes.HasSuffix(unanswered, []byte(prompt)) {
				unanswered = nil
				_, _ = user.WriteString(line + "\n")
				break
			}
		}
		if err != nil {
			return
		}
	}
}

// start runs a script in a terminal; what runs there before gets a Ctrl-C. If a home is named it waits until its node
// listens.
func (r *walk) start(name string, m *machine, line, script string) {
	r.t.Helper()
	if r.terminals[name] != nil {
		r.interrupt(name)
	}
	term := &terminal{on: m, cmd: m.command(script), log: newOutput(r.t), done: make(chan struct{})}
	term.log.of(term.cmd)
	if err := m.start(term.cmd); err != nil {
		r.t.Fatal(err)
	}
	r.terminals[name] = term
	go func() {
		term.err = term.cmd.Wait()
		close(term.done)
	}()
	home := regexp.MustCompile(`--home (\w+)`).FindStringSubmatch(script)
	if home == nil {
		return
	}
	eventually(r.t, patience, line+": the node listens", func() error {
		if err := term.ended(); err != nil {
			return err
		}
		_, err := api.ReadNodeFile(filepath.Join(m.dir, home[1]))
		return err
	})
}

// ended is a fatal error if nothing runs in the terminal any more.
func (term *terminal) ended() error {
	select {
	case <-term.done:
		return fatal{fmt.Errorf("it ended (%w)\n%s", term.err, term.log)}
	default:
		return nil
	}
}

// interrupt is Ctrl-C: a signal to all that runs in the terminal. It must end well, but for "go run", which may call an
// interrupt an error of its own (it does if a worker of its builder sees the signal) however well the program ended.
func (r *walk) interrupt(name string) {
	r.t.Helper()
	term := r.terminals[name]
	delete(r.terminals, name)
	if err := signalGroup(term.cmd.Process, syscall.SIGINT); err != nil {
		r.t.Errorf("terminal %s: Ctrl-C: %v\n%s", name, err, lastPart(term.log.String(), 4000))
	}
	timer := time.AfterFunc(patience, func() {
		r.t.Errorf("terminal %s goes on after Ctrl-C", name)
		_ = signalGroup(term.cmd.Process, syscall.SIGKILL)
	})
	<-term.done
	timer.Stop()
	goTool := term.cmd.ProcessState.ExitCode() == 1 && strings.Contains(term.cmd.String(), "go run ")
	if term.err != nil && !goTool {
		r.t.Errorf("terminal %s after Ctrl-C: %v\n%s", name, term.err, lastPart(term.log.String(), 4000))
	}
}

// end leaves no process, whatever went wrong.
func (r *walk) end() {
	if r.console != nil {
		_ = r.console.CloseNow()
	}
	for n, term := range r.terminals {
		_ = signalGroup(term.cmd.Process, syscall.SIGKILL)
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
func (r *walk) typed(line string) error {
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
func (r *walk) same(got, want string) error {
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
func (r *walk) shown(log, want string) error {
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
func (r *walk) agree(line string) error {
	if r.hashes == nil {
		return nil
	}
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
