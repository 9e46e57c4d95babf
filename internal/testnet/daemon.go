package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dunlin/internal/api"
)

// startTimeout is how long a daemon may take to listen; it needs a fraction of a
// second, a machine that compiles at the same time some more.
const startTimeout = time.Minute

// A daemon is one process.
type daemon struct {
	home, log string
	cmd       *exec.Cmd
	done      chan struct{} // closed when the process has ended
	err       error         // how; set before done is closed
	info      api.NodeFile
	client    *api.Client
	late      bool
	told      struct{ met, synced bool } // what the story has
}

// launch starts a daemon on ports that the system chooses.
func launch(program, home, networkFile string, extra []string) (*daemon, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	d := &daemon{home: home, log: filepath.Join(home, "dunlin.log"), done: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"start", "--home", home, "--network-file", networkFile,
		"--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
		"--rpc-listen", "127.0.0.1:0", "--log-color", "never",
	}, extra...)
	d.cmd = exec.Command(program, args...) //nolint:noctx // stop ends it: in order, which a context does not
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = attributes(false)
	// A stale node.json of an earlier run must not be taken for the new one's.
	if err := os.Remove(filepath.Join(home, api.NodeFileName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, log.Close())
	}
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() { // ends with the process, which stop waits for
		d.err = errors.Join(d.cmd.Wait(), log.Close())
		close(d.done)
	}()
	return d, nil
}

// waitReady waits until the daemon listens.
func (d *daemon) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		client, info, err := api.Open(d.home)
		if err == nil && info.PID == d.cmd.Process.Pid {
			d.client, d.info = client, info
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("did not start: %w\n%s", d.err, d.tail(10))
		case <-ctx.Done():
			return fmt.Errorf("does not listen after %v\n%s", startTimeout, d.tail(10))
		}
	}
}

// addr is the first full multiaddr, the one to join by.
func (d *daemon) addr() string {
	if len(d.info.ListenAddrs) == 0 {
		return ""
	}
	return d.info.ListenAddrs[0]
}

// exited returns how the process ended, if it did.
func (d *daemon) exited() error {
	select {
	case <-d.done:
		if d.err == nil {
			return errors.New("exit code 0")
		}
		return d.err
	default:
		return nil
	}
}

// stop ends the process in order, or kills it after the timeout, and waits.
func (d *daemon) stop(timeout time.Duration) error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-d.done:
		return nil
	case <-t.C:
	}
	err := d.cmd.Process.Kill()
	<-d.done
	return errors.Join(fmt.Errorf("%s did not stop within %v and was killed", d.home, timeout), err)
}

func (d *daemon) tail(n int) string { return "  " + strings.Join(lastLines(d.log, n), "\n  ") }
