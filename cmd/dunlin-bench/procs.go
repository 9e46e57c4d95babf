package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// procs owns every process of a run: what it started it stops.
// Only one goroutine uses it.
type procs struct {
	dir      string // holds a log a process
	started  int
	children []*child // running, in the order of their start
}

// A child is one process.
type child struct {
	name   string
	log    string // file with all that it wrote
	pid    int
	at     time.Time // of its start
	cmd    *exec.Cmd
	frozen bool
	done   chan struct{} // closed when it has ended
	err    error         // how; set before done is closed
}

// start runs a program that stays. Its standard output and error go to a file.
func (p *procs) start(name, program string, args ...string) (*child, error) {
	p.started++
	c := &child{name: name, log: filepath.Join(p.dir, fmt.Sprintf("%03d-%s.log", p.started, name)), done: make(chan struct{})}
	out, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.cmd = exec.Command(program, args...) //nolint:noctx // procs ends it, in order, which a context does not
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = attributes()
	c.at = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), out.Close())
	}
	c.pid = c.cmd.Process.Pid
	go func() { // ends with the process, which end and stopAll wait for
		c.err = errors.Join(c.cmd.Wait(), out.Close())
		close(c.done)
	}()
	p.children = append(p.children, c)
	return c, nil
}

// toEnd runs a program that comes to its end by itself and returns what it wrote
// to standard output.
func (p *procs) toEnd(ctx context.Context, name, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w\n%s", name, err, indented(lastLines(errs.String()+out.String(), 10)))
	}
	return out.Bytes(), nil
}

// inGroup has cmd, which is of a context, end with it in order, and with it what it has started itself: go test has tests, which have daemons.
// By itself it would be killed alone, and waited for until the others let go of its output.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return terminateGroup(cmd.Process) }
	cmd.WaitDelay = stopTimeout
}

// stopTimeout is how long a process may take to end in order before it is killed:
// btcd writes its caches, which takes seconds.
const stopTimeout = 30 * time.Second

// exited returns how the process ended, with the end of its log, if it did.
func (c *child) exited() error {
	select {
	case <-c.done:
		cause := c.err
		if cause == nil {
			cause = errors.New("exit code 0")
		}
		return fmt.Errorf("%s ended by itself: %w\n%s", c.name, cause, c.tail())
	default:
		return nil
	}
}

// tail is the end of the log, for errors.
func (c *child) tail() string {
	f, err := os.Open(c.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	const window = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return ""
		}
	}
	raw, err := io.ReadAll(io.LimitReader(f, window))
	if err != nil {
		return ""
	}
	return indented(lastLines(string(raw), 10))
}

func lastLines(s string, n int) []string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}

func indented(lines []string) string { return "  " + strings.Join(lines, "\n  ") }

// kill ends the process without a word, waits for it and forgets it.
func (p *procs) kill(c *child) {
	_ = c.cmd.Process.Kill() // it may have ended already
	<-c.done
	p.forget(c)
}

// stop asks for an end in order and waits; what does not end is killed.
func (p *procs) stop(cs ...*child) error {
	errs := make([]error, len(cs))
	var wg sync.WaitGroup
	for i, c := range cs {
		wg.Go(func() { errs[i] = c.end(stopTimeout) })
	}
	wg.Wait()
	for _, c := range cs {
		p.forget(c)
	}
	return errors.Join(errs...)
}

// stopAll ends what still runs.
func (p *procs) stopAll() error { return p.stop(slices.Clone(p.children)...) }

func (p *procs) forget(c *child) {
	p.children = slices.DeleteFunc(p.children, func(o *child) bool { return o == c })
}

func (c *child) end(timeout time.Duration) error {
	errs := []error{c.thaw()}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		errs = append(errs, err)
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		errs = append(errs, fmt.Errorf("%s did not stop within %v and was killed", c.name, timeout), c.cmd.Process.Kill())
		<-c.done
	}
	return errors.Join(errs...)
}

// freeze stops the process where it is: its connections stay open and nothing
// answers, as a machine that hangs.
func (c *child) freeze() error {
	if err := suspend(c.pid); err != nil {
		return fmt.Errorf("freeze %s: %w", c.name, err)
	}
	c.frozen = true
	return nil
}

func (c *child) thaw() error {
	if !c.frozen {
		return nil
	}
	c.frozen = false
	if err := resume(c.pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("thaw %s: %w", c.name, err)
	}
	return nil
}

// freePorts finds n ports of loopback that nobody listens on. Between this and
// their use somebody may take one; then the program that was to have it says so.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := listenLoopback(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // held until all are found, so that they differ
		ports = append(ports, portOf(l.Addr()))
	}
	return ports, nil
}
