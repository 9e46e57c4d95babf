package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"dunlin/config"
	"dunlin/internal/api"
)

// ChaosOptions configure Chaos. Zero means the default given.
type ChaosOptions struct {
	Seed  uint64        // default 1
	For   time.Duration // default 1 min
	Every time.Duration // default 5 s
	Kinds []string      // default all
	// MaxRestart is how long a node may take to answer after it was started; default [MaxRestart].
	MaxRestart time.Duration
	Out        io.Writer // the schedule as it is carried out; default: silent
}

// Schedule is what Chaos would do to a testnet of so many nodes.
func (o *ChaosOptions) Schedule(nodes int) ([]Event, error) {
	events, err := Schedule(ScheduleOptions{
		Seed: cmpOr(o.Seed, 1), Nodes: nodes, For: cmpOr(o.For, time.Minute), Every: cmpOr(o.Every, 5*time.Second), Kinds: o.Kinds,
	})
	if err != nil {
		return nil, fmt.Errorf("chaos: %w: %w", ErrOptions, err)
	}
	return events, nil
}

// A Done is an event that was carried out: a line of a file.
type Done struct {
	Event
	Began int64         `json:"began"` // Unix milliseconds
	Ended int64         `json:"ended"`
	Took  time.Duration `json:"restart_ns,omitempty"` // until the node answered; the longest, if there were two
	Err   string        `json:"err,omitempty"`
}

// A BlockAck is a block that a node has made and said so: a line of a file. It must never be lost.
type BlockAck struct {
	At     int64  `json:"t"` // Unix milliseconds
	Node   int    `json:"node"`
	Height int32  `json:"height"`
	Hash   string `json:"hash"`
}

const (
	ackEvery     = 3 * time.Second
	ackTimeout   = time.Minute      // where stake makes blocks a slot must be won first
	banSlack     = time.Minute      // a partition ends by itself if nobody ends it
	callTimeout  = 20 * time.Second // of a node whose disk or processor is busy
	healTimeout  = 2 * time.Minute
	startTries   = 3
	startAgainIn = 500 * time.Millisecond
)

// chaos is one run.
type chaos struct {
	spec  *Spec
	o     ChaosOptions
	nodes []sync.Mutex // held while something is done to a node

	mu       sync.Mutex // guards what follows and Out
	began    time.Time
	restarts []time.Duration
	faults   []string
	acked    int  // blocks
	cut      bool // a partition is under way
}

// Chaos does to a testnet what a seed says, and has a node make a block every few seconds, which it acknowledges. Then it undoes what is
// left, waits until the nodes agree and judges. A verdict with faults is no error: that is when the testnet cannot be judged, or ctx
// ended. Either way every node runs again, none is suspended and no ban is left, as far as that can be done.
func Chaos(ctx context.Context, s *Spec, o ChaosOptions) (v *Verdict, err error) {
	events, err := o.Schedule(len(s.Nodes))
	if err != nil {
		return nil, err
	}
	if !s.supervised() && len(s.running()) == 0 {
		return nil, fmt.Errorf("chaos: the testnet in %s is down: dunlin testnet up --dir %[1]s starts it again", s.dir)
	}
	c := &chaos{spec: s, o: o, nodes: make([]sync.Mutex, len(s.Nodes)+1)}
	defer func() {
		if e := c.heal(context.WithoutCancel(ctx)); e != nil {
			err = errors.Join(err, e)
		}
	}()
	if err := c.heal(ctx); err != nil {
		return nil, err
	}
	c.began = time.Now()
	c.tell("chaos: seed %d, %d events in %v on %d nodes, %d of which keep their processes", cmpOr(o.Seed, 1), len(events), cmpOr(o.For, time.Minute), len(s.Nodes), spared(len(s.Nodes)))
	c.run(ctx, events)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ended := time.Now()
	if err := c.heal(ctx); err != nil {
		return nil, err
	}
	return c.judge(ctx, events, ended)
}

func (c *chaos) tell(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Out != nil {
		fmt.Fprintf(c.o.Out, "%8.1fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (c *chaos) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.mu.Lock()
	c.faults = append(c.faults, text)
	c.mu.Unlock()
	c.tell("FAULT: %s", text)
}

// run carries the events out, each in its time, and returns when all have ended.
func (c *chaos) run(ctx context.Context, events []Event) {
	var all sync.WaitGroup
	defer all.Wait()
	acking, stop := context.WithCancel(ctx)
	defer stop()
	all.Go(func() { c.acknowledge(acking) })
	var running sync.WaitGroup
	defer running.Wait() // before the blocks end
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, e := range events {
		timer.Reset(time.Until(c.began.Add(e.At)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		c.tell("%v", e)
		running.Go(func() {
			d := Done{Event: e, Began: time.Now().UnixMilli()}
			took, err := c.do(ctx, e)
			d.Ended, d.Took = time.Now().UnixMilli(), took
			if err != nil && ctx.Err() == nil {
				d.Err = err.Error()
				c.fault("%v: %v", e, err)
			}
			if raw, err := json.Marshal(d); err == nil {
				err = appendLine(c.spec.file(chaosFile), raw)
				if err != nil {
					c.tell("%v", err)
				}
			}
		})
	}
	running.Wait()
	// Where stake makes blocks it may be that nobody has won a slot yet, and a run in which nothing was acknowledged shows little.
	for deadline := time.Now().Add(ackTimeout); c.spec.Engine == config.EnginePoS && time.Now().Before(deadline); {
		c.mu.Lock()
		acked := c.acked
		c.mu.Unlock()
		if acked > 0 || !pause(ctx, startAgainIn) {
			return
		}
	}
}

// do carries one event out. took is how long the node needed to come back.
func (c *chaos) do(ctx context.Context, e Event) (took time.Duration, err error) {
	if e.Kind == KindPartition {
		return 0, c.partition(ctx, e)
	}
	id := e.Nodes[0]
	c.nodes[id].Lock()
	defer c.nodes[id].Unlock()
	switch e.Kind {
	case KindKill:
		if err := c.spec.killNode(ctx, id); err != nil {
			return 0, err
		}
		pause(ctx, e.Lasts)
		return c.start(ctx, id, 0)
	case KindChurn:
		if err := c.spec.stopNode(ctx, id); err != nil {
			return 0, err
		}
		pause(ctx, e.Lasts)
		return c.start(ctx, id, 0)
	case KindSkew:
		if err := c.spec.stopNode(ctx, id); err != nil {
			return 0, err
		}
		if took, err = c.start(ctx, id, e.Offset); err != nil {
			return took, err
		}
		pause(ctx, e.Lasts)
		// Whatever ends the pause, the clock is put right.
		ctx = context.WithoutCancel(ctx)
		if err := c.spec.stopNode(ctx, id); err != nil {
			return took, err
		}
		again, err := c.start(ctx, id, 0)
		return max(took, again), err
	case KindStop:
		p := c.spec.process(id)
		if !p.alive() {
			return 0, fmt.Errorf("node %d is down", id)
		}
		if err := suspend(p.PID); err != nil {
			return 0, err
		}
		pause(ctx, e.Lasts)
		if err := resume(p.PID); err != nil {
			return 0, err
		}
		c.rejoin(ctx, id)
		return 0, nil
	}
	return 0, fmt.Errorf("kind %q", e.Kind)
}

// start has a node run again, also when ctx has ended meanwhile.
func (c *chaos) start(ctx context.Context, id int, offset time.Duration) (took time.Duration, err error) {
	ctx = context.WithoutCancel(ctx)
	for try := range startTries {
		if took, err = c.spec.Start(ctx, id, offset); err == nil {
			c.mu.Lock()
			c.restarts = append(c.restarts, took)
			c.mu.Unlock()
			c.rejoin(ctx, id)
			return took, nil
		}
		if try < startTries-1 {
			c.tell("node %d does not start, trying again: %v", id, err)
			pause(ctx, startAgainIn)
		}
	}
	return took, err
}

// rejoin lifts the bans of a node that could not be asked when their partition ended: it was down, or suspended. Else it would be
// alone until they end by themselves.
func (c *chaos) rejoin(ctx context.Context, id int) {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if cut {
		return // its end looks after this node too
	}
	if err := c.unbanAt(context.WithoutCancel(ctx), id); err != nil {
		c.tell("node %d: lift its bans: %v", id, err)
	}
}

// partition has the ends of each link between the two sides ban one another.
func (c *chaos) partition(ctx context.Context, e Event) error {
	c.parted(true)
	var across [][2]int
	for _, l := range c.spec.links() {
		if slices.Contains(e.Nodes, l[0]) != slices.Contains(e.Nodes, l[1]) {
			across = append(across, l, [2]int{l[1], l[0]})
		}
	}
	c.each(ctx, across, func(ctx context.Context, n *api.Client, other string) error {
		_, err := n.Ban(ctx, other, e.Lasts+banSlack, banReason)
		return err
	})
	pause(ctx, e.Lasts)
	c.parted(false) // first: a node that starts just now is asked twice, and not never
	return c.unban(context.WithoutCancel(ctx))
}

func (c *chaos) parted(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

const banReason = "chaos: a partition"

// each calls f for each pair: with a client of the first node and the peer id of the second. A node that is down or does
// not answer is passed over: the other end of the link does the same.
func (c *chaos) each(ctx context.Context, pairs [][2]int, f func(context.Context, *api.Client, string) error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, p := range pairs {
		all.Go(func() {
			if n, err := c.spec.client(p[0]); err == nil {
				_ = f(ctx, n, c.spec.node(p[1]).PeerID) // what cannot be reached now heal looks after
			}
		})
	}
	all.Wait()
}

// unban lifts the bans of partitions at all nodes that run, and tries again where it does not work.
func (c *chaos) unban(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, len(c.spec.Nodes))
	for i := range c.spec.Nodes {
		all.Go(func() {
			for {
				p := c.spec.process(i + 1)
				if !p.alive() || suspended(p.PID) {
					return // heal looks after it
				}
				err := c.unbanAt(ctx, i+1)
				if err == nil {
					return
				}
				if !pause(ctx, startAgainIn) {
					errs[i] = fmt.Errorf("node %d: lift its bans: %w", i+1, err)
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// unbanAt lifts the bans of partitions at one node.
func (c *chaos) unbanAt(ctx context.Context, id int) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n, err := c.spec.client(id)
	if err != nil {
		return err
	}
	bans, err := n.Bans(ctx)
	if err != nil {
		return err
	}
	for _, b := range bans {
		if b.Reason != banReason {
			continue
		}
		err := n.Unban(ctx, b.Target)
		if refused, ok := errors.AsType[*api.Error](err); err != nil && (!ok || refused.Status != http.StatusNotFound) {
			return err
		}
	}
	return nil
}

// heal undoes what is left: nodes that are suspended go on, those that are down or have a wrong clock start again, bans
// are lifted. It waits until all answer.
func (c *chaos) heal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, len(c.spec.Nodes))
	for i := range c.spec.Nodes {
		id := i + 1
		all.Go(func() {
			c.nodes[id].Lock()
			defer c.nodes[id].Unlock()
			p := c.spec.process(id)
			if p.alive() && suspended(p.PID) {
				errs[i] = resume(p.PID)
			}
			if p.alive() && p.Offset != 0 {
				errs[i] = errors.Join(errs[i], c.spec.stopNode(ctx, id))
			}
			if !c.spec.process(id).alive() {
				_, err := c.spec.Start(ctx, id, 0)
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("chaos: bring the nodes back: %w", err)
	}
	w := NewWatcher(c.spec)
	for {
		status := w.Look(ctx, false)
		if status.Up == len(c.spec.Nodes) {
			return c.unban(ctx)
		}
		if !pause(ctx, 200*time.Millisecond) {
			return fmt.Errorf("chaos: %d of %d nodes answer: %w", status.Up, len(c.spec.Nodes), ctx.Err())
		}
	}
}

// acknowledge has some node make a block every few seconds until ctx ends, and notes those that it acknowledges. Where stake makes blocks
// it asks each holder for one after the other, which wait for their slots.
func (c *chaos) acknowledge(ctx context.Context) {
	rng := rand.New(rand.NewPCG(c.o.Seed, 0x61636b73))
	some := [][]int{c.spec.ids()}
	if c.spec.Engine == config.EnginePoS {
		some = nil
		for _, id := range c.spec.miners() {
			some = append(some, []int{id})
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, ids := range some {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		all.Go(func() {
			for n := 1; pause(ctx, ackEvery); n++ {
				id := ids[rng.IntN(len(ids))]
				if p := c.spec.process(id); !p.alive() || suspended(p.PID) {
					continue
				}
				_ = c.mine(ctx, id, fmt.Sprintf("chaos %d", n)) // one that is killed meanwhile acknowledges nothing
			}
		})
	}
}

// mine has a node make a block, and notes it when the node says that it is durable.
func (c *chaos) mine(ctx context.Context, id int, data string) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	n, err := c.spec.client(id)
	if err != nil {
		return err
	}
	b, err := n.MineBlock(ctx, data, 0)
	if err != nil {
		return fmt.Errorf("node %d: make a block: %w", id, err)
	}
	raw, err := json.Marshal(BlockAck{At: time.Now().UnixMilli(), Node: id, Height: b.Height, Hash: b.Hash})
	if err != nil {
		return err
	}
	if err := appendLine(c.spec.file(blockAcksFile), raw); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked++
	return nil
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
