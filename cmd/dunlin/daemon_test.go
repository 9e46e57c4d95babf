package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/api"
)

// daemon is one real process under test.
type daemon struct {
	t    *testing.T
	name string
	home string
	args []string
	at   place // nil: this machine

	cmd    *exec.Cmd
	log    *output
	done   chan struct{}
	info   api.NodeFile
	client *api.Client
}

// place is a host with a network of its own (netlab.Host) where a daemon can run.
type place interface {
	Start(c *exec.Cmd) error
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// patience is how long a test waits for what must come: much longer than it takes,
// since the machine may have other work. A deadline that says something about the
// daemon has a name of its own, or a comment.
const patience = 3 * time.Minute

// soon is how long what is told at once may take: what was missed comes with the tips
// that peers repeat every 30 s.
const soon = 25 * time.Second

// output keeps what a process wrote, over its restarts. It is a file and no pipe: what
// the process wrote before it answered is there when the answer is.
type output struct{ file *os.File }

func newOutput(t *testing.T) *output {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &output{f}
}

// of makes a command write here.
func (o *output) of(cmd *exec.Cmd) { cmd.Stdout, cmd.Stderr = o.file, o.file }

func (o *output) String() string {
	b, err := os.ReadFile(o.file.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// logBuffer keeps what comes through a pipe.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newDaemon describes a daemon with a home of its own; start runs it.
func newDaemon(t *testing.T, name string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, home: filepath.Join(t.TempDir(), name), log: newOutput(t)}
	d.args = append([]string{
		"start", "--home", d.home, "--listen", "/ip4/127.0.0.1/tcp/0", "--rpc-listen", "127.0.0.1:0", "--log-color", "never",
	}, args...)
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", d.name, lastPart(d.log.String(), 6000))
		}
	})
	return d
}

// startDaemon is newDaemon and start.
func startDaemon(t *testing.T, name string, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, name, args...)
	d.start()
	return d
}

// start runs the process, with more arguments for this run only, and waits until
// it listens.
func (d *daemon) start(more ...string) {
	d.t.Helper()
	d.launch(more...)
	d.listens()
}

// launch runs the process, with more arguments for this run only.
func (d *daemon) launch(more ...string) {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.home, api.NodeFileName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command("dunlin", append(slices.Clip(d.args), more...)...)
	d.log.of(d.cmd)
	d.cmd.SysProcAttr = endsWithParent(syscall.SIGKILL)
	run := d.cmd.Start
	if d.at != nil {
		run = func() error { return d.at.Start(d.cmd) }
	}
	if err := run(); err != nil {
		d.cmd = nil
		d.t.Fatal(err)
	}
	done := make(chan struct{})
	d.done = done
	cmd := d.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	d.t.Log("started", d.name, d.cmd.Process.Pid)
}

// listens waits until the process listens.
func (d *daemon) listens() {
	d.t.Helper()
	eventually(d.t, patience, d.name+" listens", func() error {
		select {
		case <-d.done:
			return fatal{fmt.Errorf("it ended: %s", lastPart(d.log.String(), 3000))}
		default:
		}
		client, info, err := api.Open(d.home)
		if err != nil {
			return err
		}
		if d.at != nil {
			client.Via(d.at.DialContext)
		}
		d.client, d.info = client, info
		return nil
	})
}

// stop asks for an orderly end and waits for it. It is no error if it ended before.
func (d *daemon) stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() {
		d.t.Errorf("%s did not stop within %v of SIGTERM", d.name, patience)
		_ = d.cmd.Process.Kill()
	})
	<-d.done
	timer.Stop()
	d.cmd = nil
}

// kill9 ends the process without a word.
func (d *daemon) kill9() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	<-d.done
	d.cmd = nil
}

// addr is the first full multiaddr.
func (d *daemon) addr() string {
	d.t.Helper()
	if len(d.info.ListenAddrs) == 0 {
		d.t.Fatalf("%s has no address", d.name)
	}
	return d.info.ListenAddrs[0]
}

func (d *daemon) status() (api.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return d.client.Status(ctx)
}

// mustStatus fails the test if the daemon does not answer.
func (d *daemon) mustStatus() api.Status {
	d.t.Helper()
	s, err := d.status()
	if err != nil {
		d.t.Fatalf("status of %s: %v", d.name, err)
	}
	return s
}

// mine makes n blocks and returns the last.
func (d *daemon) mine(n int) api.Block {
	d.t.Helper()
	var b api.Block
	for i := range n {
		ctx, cancel := context.WithTimeout(d.t.Context(), patience)
		var err error
		b, err = d.client.MineBlock(ctx, fmt.Sprintf("%s %d", d.name, i), 0)
		cancel()
		if err != nil {
			d.t.Fatalf("mine at %s: %v", d.name, err)
		}
	}
	return b
}

// reaches waits until the daemon's tip is hash.
func (d *daemon) reaches(hash string, within time.Duration) {
	d.t.Helper()
	eventually(d.t, within, d.name+" at "+hash, func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		if s.TipHash != hash {
			return fmt.Errorf("at height %d %s, %s %s, %d peers", s.Height, s.TipHash, s.Sync.State, s.Sync.Reason, s.Peers.Inbound+s.Peers.Outbound)
		}
		return nil
	})
}

// logged waits until the log has a line with all the words and returns it.
func (d *daemon) logged(words ...string) string {
	d.t.Helper()
	found := ""
	eventually(d.t, patience, fmt.Sprintf("%s logs %q", d.name, words), func() error {
		for line := range strings.Lines(d.log.String()) {
			has := true
			for _, w := range words {
				has = has && strings.Contains(line, w)
			}
			if has {
				found = line
				return nil
			}
		}
		return errors.New("no such line")
	})
	return found
}

// fatal ends eventually at once.
type fatal struct{ error }

// figure tells one to dunlin-bench all, which publishes them.
func figure(t *testing.T, name string, v float64) {
	t.Helper()
	t.Attr("figure", fmt.Sprintf("%s %.5g", name, v))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// eventually polls cond until it holds, and fails with its last error.
func eventually(t *testing.T, within time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if f := (fatal{}); errors.As(err, &f) {
			t.Fatalf("%s: %v", what, err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-tick.C
	}
}

// dunlin runs a command to its end.
func dunlin(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dunlin", args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func lastPart(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// testData is the folder of blocks that others wrote.
func testData(t *testing.T, file string) string {
	t.Helper()
	dir := os.Getenv("DUNLIN_TESTDATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("test data: %v", err)
		}
		t.Skipf("test data is missing (DUNLIN_TESTDATA): %v", err)
	}
	return path
}
