package chain

import (
	"math"
	"sync"
	"time"
)

// A limiter lets a burst of lines through, then one an interval, and counts the
// rest, so that a peer cannot fill the disk. The zero limiter is full.
type limiter struct {
	mu         sync.Mutex // guards the fields, for a few instructions
	spent      int        // lines since the bucket was full, less what flowed back
	last       time.Time
	suppressed int
}

const (
	limiterBurst    = 10
	limiterInterval = time.Second
)

// allow says whether to write a line now and how many were not since the last.
func (l *limiter) allow(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if back := int(now.Sub(l.last) / limiterInterval); back > 0 {
		l.spent = max(0, l.spent-back)
		l.last = now
	}
	if l.spent >= limiterBurst {
		l.suppressed++
		return 0, false
	}
	l.spent++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// String names the kind as the log does.
func (k SourceKind) String() string {
	switch k {
	case FromSync:
		return "sync"
	case FromGossip:
		return "gossip"
	case FromRPC:
		return "rpc"
	case FromMiner:
		return "miner"
	case FromImport:
		return "import"
	case FromDisk:
		return "disk"
	}
	return "unknown"
}

// String is the peer, or the kind of a source that is none.
func (s Source) String() string {
	if s.Peer != "" {
		return s.Peer
	}
	return s.Kind.String()
}

// refuse logs a broken rule and completes the verdict. Any other error is passed on.
func (c *conductor) refuse(it *item, v Verdict, err error) (Verdict, error) {
	r := asRule(err)
	if r == nil {
		return Verdict{}, err
	}
	v.Outcome, v.Err = Refused, r
	if suppressed, ok := c.refused.allow(time.Now()); ok {
		args := []any{"height", v.Height, "hash", v.Hash, "rule", r.Rule, "detail", r.Detail, "from", it.src.Kind.String()}
		if it.src.Peer != "" {
			args = append(args, "peer", it.src.Peer)
		}
		if suppressed > 0 {
			args = append(args, "suppressed", suppressed)
		}
		c.log.Warn("block refused", args...)
	}
	return v, nil
}

// atTip says whether a block is news and not one of many to catch up with.
func (c *conductor) atTip(i uint32, src Source) bool {
	if c.replaying || src.Kind == FromImport || src.Old {
		return false
	}
	return c.tree.node(c.heads.get()).height-c.tree.node(i).height <= 1
}

func (c *conductor) logConnected(f *flight) {
	// What comes from disk in a reorganisation was told of when it came.
	if c.away && f.item.src.Kind == FromDisk || !c.atTip(f.node, f.item.src) {
		return
	}
	nd, b := c.tree.node(f.node), f.step.block
	args := []any{
		"height", nd.height, "hash", nd.hash, "txs", len(b.Txs), "bytes", len(b.Raw),
		"from", f.item.src.String(), "delay", c.delay(f.node),
	}
	if c.o.BlockFacts != nil {
		for _, a := range c.o.BlockFacts(&b.Header, nd.height) {
			args = append(args, a)
		}
	}
	for _, a := range f.item.src.Facts {
		args = append(args, a)
	}
	c.log.Info("block", args...)
}

// delay is how many seconds after its time a block is here.
func (c *conductor) delay(i uint32) float64 {
	return math.Round(c.o.Now().Sub(time.Unix(int64(c.tree.node(i).time), 0)).Seconds()*100) / 100
}

// logReorg tells of a tip that left the old branch.
func (c *conductor) logReorg(from, to uint32) {
	t := c.tree
	fork := t.fork(from, to)
	o, n := t.node(from), t.node(to)
	c.log.Warn("reorg", "depth", o.height-t.node(fork).height, "old", o.hash, "old_height", o.height,
		"new", n.hash, "height", n.height, "fork", t.node(fork).height)
}

// logFork tells of a good block beside the active chain.
func (c *conductor) logFork(it *item) {
	if !it.fresh() && !c.atTip(it.node, it.src) {
		return
	}
	suppressed, ok := c.forks.allow(time.Now())
	if !ok {
		return
	}
	t := c.tree
	nd, tip := t.node(it.node), c.tip.get()
	args := []any{
		"height", nd.height, "hash", nd.hash, "fork", t.node(t.fork(it.node, tip)).height,
		"active", t.node(tip).hash, "active_height", t.node(tip).height, "from", it.src.String(), "delay", c.delay(it.node),
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	c.log.Info("fork", args...)
}
