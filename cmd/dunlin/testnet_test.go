package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/testnet"
)

// testnetRun is dunlin testnet without a terminal.
type testnetRun struct {
	cmd  *exec.Cmd
	out  *output
	tmp  string // where it makes its temporary folder
	done chan struct{}
	err  error // set before done is closed
}

func startTestnet(t *testing.T, args ...string) *testnetRun {
	t.Helper()
	r := &testnetRun{out: newOutput(t), tmp: t.TempDir(), done: make(chan struct{})}
	r.cmd = exec.Command("dunlin", append([]string{"testnet"}, args...)...)
	r.out.of(r.cmd)
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	r.cmd.SysProcAttr = endsWithParent(syscall.SIGTERM)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		<-r.done
		if t.Failed() {
			t.Logf("testnet %q:\n%s", args, lastPart(r.out.String(), 6000))
		}
	})
	return r
}

// tells waits until the output has a line like pattern.
func (r *testnetRun) tells(t *testing.T, pattern string) {
	t.Helper()
	line := regexp.MustCompile("(?m)" + pattern)
	eventually(t, patience, pattern, func() error {
		if line.MatchString(r.out.String()) {
			return nil
		}
		select {
		case <-r.done:
			return fatal{fmt.Errorf("it ended: %w", r.err)}
		default:
			return fmt.Errorf("not yet")
		}
	})
}

// ends waits for the end, which must be a good one.
func (r *testnetRun) ends(t *testing.T) {
	t.Helper()
	timer := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() }) // a hang
	<-r.done
	timer.Stop()
	if r.err != nil {
		t.Errorf("testnet: %v", r.err)
	}
	if left := processesWith(t, r.tmp); len(left) > 0 {
		t.Errorf("still running:\n%s", strings.Join(left, "\n"))
	}
}

// processesWith lists the live processes whose command line mentions text.
func processesWith(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if line := strings.ReplaceAll(string(raw), "\x00", " "); strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// TestTestnet: five daemons, one mines, a sixth joins late with one address; it
// leaves nothing.
func TestTestnet(t *testing.T) {
	t.Parallel()
	r := startTestnet(t, "--late", "2s", "--spacing", "1s")
	r.tells(t, `5 daemons run; node 1 mines a block every 1s; each other was given the address of node 1 only`)
	if n := len(processesWith(t, r.tmp)); n < 5 {
		t.Errorf("%d processes of daemons", n)
	}
	for i := range 5 {
		r.tells(t, fmt.Sprintf(`node %d has found [3-5] peers$`, i+1))
	}
	r.tells(t, `all 5 agree on block \d+ `)
	r.tells(t, `node 6 joins late, knowing the address of node 5 only$`)
	r.tells(t, `node 6 has caught up: height \d+$`)
	r.tells(t, `all 6 agree on block \d+ `)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.ends(t)
	if !strings.Contains(r.out.String(), "stopped 6 daemons in ") || !strings.Contains(r.out.String(), "its folder was temporary and is gone") {
		t.Error("it does not say how it ended")
	}
	if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	// The story is told once, not with every table.
	if n := strings.Count(r.out.String(), "5 daemons run;"); n != 1 {
		t.Errorf("told %d times that 5 daemons run", n)
	}
	if strings.Contains(r.out.String(), "\x1b") {
		t.Error("control sequences without a terminal")
	}
}

// TestTestnetFor: it ends by itself when the time is over, however far it has come, and
// leaves nothing.
func TestTestnetFor(t *testing.T) {
	t.Parallel()
	r := startTestnet(t, "--nodes", "2", "--late", "-1s", "--for", "3s")
	r.ends(t)
	if !regexp.MustCompile(`stopped [12] daemons in .*; its folder was temporary and is gone`).MatchString(r.out.String()) {
		t.Error("it does not say how it ended")
	}
	if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

// TestTestnetSignals: Ctrl-C, SIGTERM and a closed terminal end it in order;
// --dir keeps homes and logs, and the same folder goes on with the same chain.
func TestTestnetSignals(t *testing.T) {
	t.Parallel()
	// Where these tests run under nohup, what they start would ignore the closed terminal,
	// as it should: a signal that is caught here is as usual there.
	caught := make(chan os.Signal, 1)
	ossignal.Notify(caught, syscall.SIGHUP)
	defer ossignal.Stop(caught)
	dir := filepath.Join(t.TempDir(), "kept")
	for i, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		args := []string{"--nodes", "2", "--spacing", "1s", "--late", "-1s"}
		if i < 2 {
			args = append(args, "--dir", dir)
		}
		r := startTestnet(t, args...)
		r.tells(t, `all 2 agree on block \d+ `)
		if err := r.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		r.ends(t)
		if i < 2 {
			if left := processesWith(t, dir); len(left) > 0 {
				t.Errorf("%v: still running: %q", signal, left)
			}
			if !strings.Contains(r.out.String(), "logs and homes stay in "+dir) {
				t.Errorf("%v: it does not say what stays", signal)
			}
		}
		if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
			t.Errorf("%v: left in the temporary folder: %v, %v", signal, left, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"network.toml", "node1", "node2"}; !slices.Equal(names, want) {
		t.Errorf("%s holds %q, want %q", dir, names, want)
	}
	log, err := os.ReadFile(filepath.Join(dir, "node1", "dunlin.log"))
	if err != nil {
		t.Fatal(err)
	}
	heights := regexp.MustCompile(`INF dunlin .* height=(\d+)`).FindAllStringSubmatch(string(log), -1)
	if len(heights) != 2 || heights[0][1] != "0" || heights[1][1] == "0" {
		t.Errorf("node 1 started at heights %q: the second run did not go on", heights)
	}
}

// endTestnets ends the testnets in folders of dir that were left running.
func endTestnets(t *testing.T, dir string) {
	t.Helper()
	specs, err := filepath.Glob(filepath.Join(dir, "*", "testnet.json"))
	if err != nil {
		t.Error(err)
	}
	for _, spec := range specs {
		s, err := testnet.Open(filepath.Dir(spec))
		if err == nil {
			_, err = testnet.Down(context.Background(), s)
		}
		if err != nil {
			t.Errorf("testnet in %s: %v", dir, err)
		}
	}
}
