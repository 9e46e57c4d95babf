// Package testnet runs a network of dunlin daemons on this machine as one
// command: real processes on loopback, each with its home, ports and log.
//
// It is a demonstration and a tool for trying things out, not a test harness:
// it only starts daemons, watches them through their HTTP interface like anyone
// else, and shows what it sees.
//
// Invariant: when [Run] returns, no daemon that it started is running.
package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dunlin/config"
	"dunlin/internal/api"
)

// Options configure Run. Zero means the default given.
type Options struct {
	Program string // path of the dunlin binary; required
	Dir     string // holds a folder a daemon and the network file; default: a new temporary folder, removed at the end

	Nodes   int           // daemons at the start; default 5, 2 to 20
	Late    time.Duration // after which one more joins with a single bootstrap address; default 20 s; negative: none
	Spacing time.Duration // between blocks; default 2 s
	For     time.Duration // end by itself after this; 0: when ctx ends

	Out  io.Writer                  // the table
	Size func() (columns, rows int) // of the terminal that Out is: the table is redrawn in place; nil: it is none
	Keep bool                       // leave Dir in place
}

// ErrOptions is what Run returns for options that are no good; nothing was started.
var ErrOptions = errors.New("options")

func (o *Options) complete() error {
	if o.Nodes == 0 {
		o.Nodes = 5
	}
	if o.Late == 0 {
		o.Late = 20 * time.Second
	}
	if o.Spacing == 0 {
		o.Spacing = 2 * time.Second
	}
	var errs []error
	if o.Program == "" {
		errs = append(errs, errors.New("program: the path of the dunlin binary is required"))
	}
	if o.Nodes < 2 || o.Nodes > 20 {
		errs = append(errs, fmt.Errorf("nodes %d: must be 2 to 20", o.Nodes))
	}
	if o.Spacing < time.Second || o.Spacing%time.Second != 0 {
		errs = append(errs, fmt.Errorf("spacing %v: must be whole seconds, at least 1s", o.Spacing))
	}
	return errors.Join(errs...)
}

// stopTimeout is how long a daemon may take to end in order before it is killed.
const stopTimeout = 30 * time.Second

// Run starts the network and shows it until ctx ends or, with Options.For, until
// the time is over. Either way it stops every daemon and waits for it. An error
// says what went wrong on the way, with the end of the log of the daemon concerned.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.complete(); err != nil {
		return fmt.Errorf("testnet: %w: %w", ErrOptions, err)
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "dunlin-testnet-"); err != nil {
			return fmt.Errorf("testnet: %w", err)
		}
		if !o.Keep {
			defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
		}
	} else if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	n := &network{o: o, started: time.Now()}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.create(); err != nil {
		return err
	}
	if err := n.startFirst(ctx); err != nil {
		return ignoreEnd(ctx, err)
	}
	return ignoreEnd(ctx, n.watch(ctx))
}

// ignoreEnd drops the errors that an ordered end brings with it.
func ignoreEnd(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// A network is the running daemons. Only Run's goroutine starts and stops them.
type network struct {
	o       Options
	file    string // network.toml
	started time.Time
	nodes   []*daemon
	story   story
	agreed  int       // daemons that agreed on one tip when it was told
	drawn   bool      // the table was drawn before
	tabled  time.Time // when the table was last written, without a terminal
}

// create writes the network file: a chain of its own, so that it never mixes
// with another testnet on this machine.
func (n *network) create() error {
	n.file = filepath.Join(n.o.Dir, "network.toml")
	if _, err := os.Stat(n.file); err == nil {
		return nil // an earlier testnet in this folder goes on; a damaged file its daemons report
	}
	spec := config.DefaultNetworkSpec("localtest", time.Now())
	spec.Spacing = n.o.Spacing
	if _, err := config.WriteNetworkFile(n.file, spec); err != nil {
		return fmt.Errorf("testnet: network file: %w", err)
	}
	return nil
}

// startFirst starts the first daemons: the first mines, each of the others knows
// the first only.
func (n *network) startFirst(ctx context.Context) error {
	n.story.add("homes and logs are in %s", n.o.Dir)
	for i := range n.o.Nodes {
		var extra []string
		if i == 0 {
			extra = append(extra, "--mine", "--coinbase-text", "mined by node 1")
		} else {
			extra = append(extra, "--bootstrap", n.nodes[0].addr())
		}
		if err := n.start(ctx, extra...); err != nil {
			return err
		}
	}
	n.story.add("%d daemons run; node 1 mines a block every %v; each other was given the address of node 1 only", n.o.Nodes, n.o.Spacing)
	return nil
}

// join starts the late one: it knows the address of the last daemon, not the miner's.
func (n *network) join(ctx context.Context) error {
	with := n.nodes[len(n.nodes)-1]
	if err := n.start(ctx, "--bootstrap", with.addr()); err != nil {
		return err
	}
	n.nodes[len(n.nodes)-1].late = true
	n.story.add("node %d joins late, knowing the address of node %d only", len(n.nodes), len(n.nodes)-1)
	return nil
}

func (n *network) start(ctx context.Context, extra ...string) error {
	d, err := launch(n.o.Program, filepath.Join(n.o.Dir, fmt.Sprintf("node%d", len(n.nodes)+1)), n.file, extra)
	if err != nil {
		return fmt.Errorf("testnet: node %d: %w", len(n.nodes)+1, err)
	}
	n.nodes = append(n.nodes, d)
	if err := d.waitReady(ctx); err != nil {
		return fmt.Errorf("testnet: node %d: %w", len(n.nodes), err)
	}
	return nil
}

// stop ends every daemon, all at once, and waits.
func (n *network) stop() error {
	if len(n.nodes) == 0 {
		return nil
	}
	start := time.Now()
	errs := make([]error, len(n.nodes))
	var wg sync.WaitGroup
	for i, d := range n.nodes {
		wg.Go(func() { errs[i] = d.stop(stopTimeout) })
	}
	wg.Wait()
	kept := "its folder was temporary and is gone"
	if n.o.Keep {
		kept = "logs and homes stay in " + n.o.Dir
	}
	fmt.Fprintf(n.o.Out, "\nstopped %d daemons in %v; %s\n", len(n.nodes), time.Since(start).Round(time.Millisecond), kept)
	return errors.Join(errs...)
}

// watch polls and draws until ctx ends.
func (n *network) watch(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var late <-chan time.Time
	if n.o.Late > 0 {
		t := time.NewTimer(n.o.Late)
		defer t.Stop()
		late = t.C
	}
	n.draw(ctx)
	for {
		select {
		case <-tick.C:
		case <-late:
			if err := n.join(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
		for i, d := range n.nodes {
			if err := d.exited(); err != nil {
				return fmt.Errorf("testnet: node %d ended by itself: %w\n%s", i+1, err, d.tail(10))
			}
		}
		n.draw(ctx)
	}
}

// poll asks every daemon at once; one that does not answer gives its error.
func (n *network) poll(ctx context.Context) ([]api.Status, []error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, errs := make([]api.Status, len(n.nodes)), make([]error, len(n.nodes))
	var wg sync.WaitGroup
	for i, d := range n.nodes {
		wg.Go(func() { out[i], errs[i] = d.client.Status(ctx) })
	}
	wg.Wait()
	return out, errs
}

// lastLines reads the end of a file, at most n lines of the last 16 KiB.
func lastLines(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	const window = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return nil
		}
	}
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if lines = append(lines, s.Text()); len(lines) > n {
			lines = lines[1:]
		}
	}
	return lines
}
