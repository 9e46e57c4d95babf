package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dunlin/internal/api"
)

// pollEvery is the time between two looks at a process that is to start or to end.
const pollEvery = 10 * time.Millisecond

// args are those of dunlin for a node.
func (s *Spec) args(id int, offset time.Duration) []string {
	n := s.node(id)
	args := []string{
		"start", "--home", s.home(id), "--network-file", s.file(s.Network),
		"--listen", n.Listen, "--rpc-listen", n.RPC, "--log-color", "never",
		"--coinbase-text", fmt.Sprintf("made by node %d", id),
		// The topology holds: nobody dials but whom it is told to.
		"--p2p-discovery=false",
		// Many on one machine: caches and memtables that are full soon, so that memory says something about leaks.
		"--storage-cache-mb", "8", "--storage-flush-mb", "4", "--storage-min-free-mb", "0",
	}
	for _, to := range n.Dials {
		args = append(args, "--persistent", s.node(to).addr())
	}
	if offset != 0 {
		args = append(args, "--testing-clock-offset", offset.String())
	}
	if !s.resting {
		args = append(args, n.Mining...)
	}
	return append(args, n.Args...)
}

// startNode runs a node, notes its process, and waits until it answers; it says how long that took. A node that
// does not become ready is killed. The caller waits for the process, or releases it.
func (s *Spec) startNode(ctx context.Context, id int, offset time.Duration) (cmd *exec.Cmd, took time.Duration, err error) {
	if p := s.process(id); p.alive() {
		return nil, 0, fmt.Errorf("node %d: runs already as process %d", id, p.PID)
	}
	home := s.home(id)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, 0, fmt.Errorf("node %d: %w", id, err)
	}
	// A stale node.json of a killed one must not be taken for the new one's.
	if err := api.RemoveNodeFile(home); err != nil {
		return nil, 0, fmt.Errorf("node %d: %w", id, err)
	}
	log, err := os.OpenFile(s.log(id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("node %d: %w", id, err)
	}
	defer log.Close()
	cmd = exec.Command(s.Program, s.args(id, offset)...) //nolint:noctx // it outlives the request
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = attributes(s.Detached)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("node %d: %w", id, err)
	}
	p := Process{PID: cmd.Process.Pid, Started: startOf(cmd.Process.Pid), Offset: offset}
	if err := writeJSON(filepath.Join(home, runFile), p); err != nil {
		return cmd, 0, errors.Join(fmt.Errorf("node %d: %w", id, err), cmd.Process.Kill())
	}
	if err := s.waitReady(ctx, id, p); err != nil {
		return cmd, 0, errors.Join(err, ignoreGone(cmd.Process.Kill()))
	}
	return cmd, time.Since(began), nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// waitReady waits until a node that was started answers.
func (s *Spec) waitReady(ctx context.Context, id int, p Process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if c, info, err := api.Open(s.home(id)); err == nil && info.PID == p.PID {
			if _, err := c.Status(ctx); err == nil {
				return nil
			}
		}
		if !p.alive() {
			return fmt.Errorf("node %d did not start:\n%s", id, s.tail(id, 10))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("node %d does not answer after %v\n%s", id, startTimeout, s.tail(id, 10))
		}
	}
}

func (s *Spec) tail(id, n int) string {
	return "  " + strings.Join(lastLines(s.log(id), n), "\n  ")
}

// waitGone waits until a process has ended.
func waitGone(ctx context.Context, p Process) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// killNode ends a node without a word, if it runs, and waits.
func (s *Spec) killNode(ctx context.Context, id int) error {
	p := s.process(id)
	if !p.alive() {
		return nil
	}
	if err := kill(p.PID); err != nil && p.alive() {
		return fmt.Errorf("node %d: kill process %d: %w", id, p.PID, err)
	}
	return waitGone(ctx, p)
}

// stopNode ends a node in order, if it runs, whether or not it is suspended; after stopTimeout it is killed, which is
// an error. Either way it is gone, unless ctx ended.
func (s *Spec) stopNode(ctx context.Context, id int) error {
	p := s.process(id)
	if !p.alive() {
		return nil
	}
	err := errors.Join(resume(p.PID), terminate(p.PID))
	if err != nil && p.alive() {
		return fmt.Errorf("node %d: stop process %d: %w", id, p.PID, err)
	}
	patient, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if waitGone(patient, p) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(fmt.Errorf("node %d did not stop within %v and was killed", id, stopTimeout), s.killNode(ctx, id))
}

// client returns a client of a running node.
func (s *Spec) client(id int) (*api.Client, error) {
	if !s.process(id).alive() {
		return nil, fmt.Errorf("node %d is down", id)
	}
	c, _, err := api.Open(s.home(id))
	return c, err
}

// Start has a node run again, as a child of the supervisor if there is one. It says how long that took.
// Without a supervisor only nodes that outlive theirs can be started.
func (s *Spec) Start(ctx context.Context, id int, offset time.Duration) (took time.Duration, err error) {
	switch {
	case s.supervised():
		var a startAnswer
		err := s.ask(ctx, http.MethodPost, "/start", startRequest{Node: id, Offset: offset}, &a)
		return a.Took, err
	case !s.Detached:
		return 0, errors.New("the supervisor is gone, and the nodes with it: dunlin testnet up starts them again")
	}
	cmd, took, err := s.startNode(ctx, id, offset)
	if cmd != nil {
		err = errors.Join(err, cmd.Process.Release())
	}
	return took, err
}

// What the supervisor is asked, over HTTP on loopback.
type (
	startRequest struct {
		Node   int           `json:"node"`
		Offset time.Duration `json:"clock_offset_ns"`
	}
	startAnswer struct {
		Took time.Duration `json:"took_ns"`
	}
)

const (
	tokenHeader = "X-Testnet-Token"
	maxAsked    = 64 << 10
)

// ask sends a request to the supervisor. In and out may be nil.
func (s *Spec) ask(ctx context.Context, method, path string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.Supervisor.Control+path, bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	r.Header.Set(tokenHeader, s.Supervisor.Token)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(w.Body, maxAsked))
	switch {
	case err != nil:
		return fmt.Errorf("supervisor: %w", err)
	case w.StatusCode != http.StatusOK:
		return errors.New(strings.TrimSpace(string(answer)))
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}
