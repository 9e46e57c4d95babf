package ibd

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// link is a simulated peer: a server at the far end of a link of fixed rate that
// answers requests one after the other.
type link struct {
	id       PeerID
	rate     float64 // bytes/s
	rtt      time.Duration
	late     time.Duration // more that a reply takes than the hello did; requests overlap
	think    time.Duration // before each reply; requests do not overlap
	freezeAt time.Duration // stops sending for good; 0 never
	low      int32
	evil     func(n *network, l *link, r *reply) // answers in place of the link; nil if honest

	queue   []*reply
	serving bool
	thought bool // of the first reply in the queue
	gone    bool
	sent    int64 // of the block under way
	resets  int   // replies of an earlier stream are lost
}

// reply is what a link has done of a request.
type reply struct {
	Request
	done      int
	doneBytes int64
}

// scenario is a world of links, blocks and a validator.
type scenario struct {
	name    string
	links   []*link
	blocks  int32
	size    func(rng *rand.Rand, h int32) int64
	rate    float64       // bytes/s of validation; 0 is 100 MB/s
	perUnit time.Duration // of validation, a block
	seed    uint64
	log     *bytes.Buffer // of the first actions, and all that are rare
}

// result is what a scenario showed.
type result struct {
	took, gap       time.Duration // gap: longest time without a connected block
	bytes, dup      int64
	peakBytes       int64
	peakReqs, drops int
	stalls          []Stalled
	requests        int
}

func (r result) String() string {
	return fmt.Sprintf("%7.2f s %7.2f MB/s  longest gap %5.2f s  duplicate %5.2f MB  peak memory %5.1f MB  peak requests %d of %d  stalls %d",
		r.took.Seconds(), float64(r.bytes)/1e6/r.took.Seconds(), r.gap.Seconds(), float64(r.dup)/1e6,
		float64(r.peakBytes)/1e6, r.peakReqs, r.requests, len(r.stalls))
}

type timed struct {
	at  time.Duration
	seq int
	do  func()
}

type agenda []timed

func (q agenda) Len() int { return len(q) }
func (q agenda) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q agenda) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *agenda) Push(x any)   { *q = append(*q, x.(timed)) }
func (q *agenda) Pop() any {
	o := *q
	x := o[len(o)-1]
	*q = o[:len(o)-1]
	return x
}

type network struct {
	*checker
	scenario
	t         time.Duration
	q         agenda
	seq       int
	byID      map[PeerID]*link
	sizes     []int64
	connected int32
	last      time.Duration
	verdictAt time.Duration
	res       result
	err       error
}

func (n *network) after(d time.Duration, do func()) {
	n.seq++
	heap.Push(&n.q, timed{n.t + d, n.seq, do})
}

func (n *network) event(e Event) {
	if n.err != nil {
		return
	}
	n.now = epoch.Add(n.t)
	actions, err := n.step(e)
	if err != nil {
		n.err = fmt.Errorf("at %v: %w", n.t, err)
		return
	}
	for _, a := range actions {
		n.note(a)
		switch a := a.(type) {
		case Request:
			n.res.requests++
			l := n.byID[a.Peer]
			if l.gone {
				continue // PeerGone is on its way
			}
			r, resets := &reply{Request: a}, l.resets
			n.after(l.rtt/2+l.late, func() {
				if resets == l.resets {
					l.queue = append(l.queue, r)
					n.serve(l)
				}
			})
		case Cancel:
			n.reset(n.byID[a.Peer])
		case Deliver:
			rate := n.rate
			if rate == 0 {
				rate = 100e6
			}
			n.verdictAt = max(n.verdictAt, n.t) + time.Duration(float64(n.sizes[a.Height])/rate*1e9) + n.perUnit
			n.after(n.verdictAt-n.t, func() {
				n.res.gap = max(n.res.gap, n.t-n.last)
				n.last, n.connected = n.t, a.Height
				n.event(Connected{a.Height})
			})
		case Stalled:
			n.res.stalls = append(n.res.stalls, a)
		case Drop:
			n.res.drops++
			n.after(0, func() { n.leave(n.byID[a.Peer]) })
		}
	}
}

// note logs a: all of the first 0.4 s, later only what is rare.
func (n *network) note(a Action) {
	r, request := a.(Request)
	_, deliver := a.(Deliver)
	if n.log == nil || deliver || n.t > 400*time.Millisecond && request && !r.Hedge {
		return
	}
	fmt.Fprintf(n.log, "%8.3fs %s\n", n.t.Seconds(), show(a))
}

// reset resets the stream of l if nothing on it is wanted any more.
func (n *network) reset(l *link) {
	var ids []RequestID
	for id := RequestID(1); id <= n.s.lastID; id++ {
		if r := n.reqs[id]; r != nil && r.Peer == l.id {
			if !r.cancelled {
				return
			}
			ids = append(ids, id)
		}
	}
	l.resets++
	l.queue, l.serving, l.thought, l.sent = nil, false, false, 0
	for _, id := range ids {
		n.after(0, func() { n.event(Done{Peer: l.id, ID: id, Status: Failed}) })
	}
}

// leave disconnects l.
func (n *network) leave(l *link) {
	l.resets++
	l.gone, l.queue, l.serving, l.thought, l.sent = true, nil, false, false, 0
	n.event(PeerGone{l.id})
}

// serve sends the next piece of the first reply in the queue of l.
func (n *network) serve(l *link) {
	if l.serving || len(l.queue) == 0 || (l.freezeAt > 0 && n.t >= l.freezeAt) {
		return
	}
	r, resets := l.queue[0], l.resets
	arrive := func(d time.Duration, e Event) {
		n.after(d+l.rtt/2, func() {
			if resets == l.resets {
				n.event(e)
			}
		})
	}
	if l.evil != nil {
		l.queue = l.queue[1:]
		l.evil(n, l, r)
		n.serve(l)
		return
	}
	if l.think > 0 && !l.thought {
		l.serving, l.thought = true, true
		n.after(l.think, func() {
			if resets == l.resets {
				l.serving = false
				n.serve(l)
			}
		})
		return
	}
	h := r.Start + int32(r.done)
	size := n.sizes[min(int(h), len(n.sizes)-1)]
	switch {
	case r.done == r.Count || size > r.MaxBytes-r.doneBytes && r.done > 0:
		l.queue, l.thought = l.queue[1:], false
		arrive(0, Done{Peer: l.id, ID: r.ID})
		n.serve(l)
		return
	case size > r.MaxBytes:
		l.queue, l.thought = l.queue[1:], false
		arrive(0, Done{Peer: l.id, ID: r.ID, Status: TooLarge, Size: size})
		n.serve(l)
		return
	}
	piece := min(size-l.sent, 64<<10)
	d := time.Duration(float64(piece) / l.rate * 1e9)
	l.serving = true
	l.sent += piece
	arrive(d, Bytes{Peer: l.id, ID: r.ID, N: piece})
	if l.sent == size {
		l.sent = 0
		r.done++
		r.doneBytes += size
		arrive(d, Block{Peer: l.id, ID: r.ID, Height: h, Size: size})
	}
	n.after(d, func() {
		if resets == l.resets {
			l.serving = false
			n.serve(l)
		}
	})
}

// run plays the scenario to its end.
func (sc scenario) run() (result, error) {
	c, err := newChecker(Config{MaxBlockBytes: 4_000_000, Seed: sc.seed})
	if err != nil {
		return result{}, err
	}
	c.every = 500
	n := &network{checker: c, scenario: sc, byID: map[PeerID]*link{}, sizes: make([]int64, sc.blocks+1)}
	rng := rand.New(rand.NewPCG(sc.seed, 2))
	for h := int32(1); h <= sc.blocks; h++ {
		n.sizes[h] = sc.size(rng, h)
		n.res.bytes += n.sizes[h]
	}
	for i, l := range sc.links {
		l.id = PeerID(fmt.Sprintf("p%02d", i))
		n.byID[l.id] = l
		n.event(PeerTip{Peer: l.id, Low: l.low, High: sc.blocks, RTT: l.rtt})
	}
	n.event(Target{Best: sc.blocks})
	var tick func()
	tick = func() {
		n.event(Tick{})
		n.after(100*time.Millisecond, tick)
	}
	n.after(100*time.Millisecond, tick)
	for n.err == nil && n.connected < sc.blocks {
		x := heap.Pop(&n.q).(timed)
		if n.t = x.at; n.t > 2*time.Hour {
			return n.res, fmt.Errorf("not done after %v: height %d, %+v", n.t, n.connected, n.s.Stats())
		}
		x.do()
	}
	n.res.took, n.res.dup, n.res.peakBytes, n.res.peakReqs = n.t, n.dupBytes, n.peakBytes, n.peakReqs
	return n.res, n.err
}

func links(n int, rate float64, rtt time.Duration) []*link {
	var ls []*link
	for range n {
		ls = append(ls, &link{rate: rate, rtt: rtt})
	}
	return ls
}

// slowServers makes servers of ls that take longer for a reply than for a hello.
func slowServers(ls []*link, late, think time.Duration) []*link {
	for _, l := range ls {
		l.late, l.think = late, think
	}
	return ls
}

func about(mean int64) func(*rand.Rand, int32) int64 {
	return func(rng *rand.Rand, _ int32) int64 { return mean/2 + rng.Int64N(mean) }
}

// figure tells one to dunlin-bench all.
func figure(t *testing.T, name string, v float64) {
	t.Helper()
	t.Attr("figure", fmt.Sprintf("%s %.5g", name, v))
}

// TestBandwidth plays the scenarios with which the design was compared with the
// schedulers of Bitcoin Core and btcd, and a few more.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	with := func(ls []*link, i int, f func(*link)) []*link {
		f(ls[i])
		return ls
	}
	for _, x := range []struct {
		scenario
		share float64       // of the sum of the links, or of validation, at least
		gap   time.Duration // at most
	}{
		{scenario{name: "8 equal peers", blocks: 2000, size: about(1e6), links: links(8, 2.5e6, 50*ms)}, 0.9, 2 * time.Second},
		{scenario{name: "one slow peer", blocks: 2000, size: about(1e6), links: with(links(8, 5e6, 50*ms), 0, func(l *link) { l.rate = 50e3 })}, 0.9, 3 * time.Second},
		{scenario{name: "one peer freezes", blocks: 2000, size: about(1e6), links: with(links(8, 2.5e6, 50*ms), 0, func(l *link) { l.freezeAt = 5 * time.Second })}, 0.82, 3 * time.Second},
		{scenario{name: "one fast peer", blocks: 2000, size: about(1e6), links: with(links(8, 1e6, 100*ms), 3, func(l *link) { l.rate = 40e6 })}, 0.85, 3 * time.Second},
		{scenario{name: "tiny blocks", blocks: 100_000, size: about(200), perUnit: 20 * time.Microsecond, links: links(8, 5e6, 100*ms)}, 0.1, time.Second},
		{scenario{name: "last blocks and one peer dead", blocks: 500, size: about(1e6), links: with(links(8, 5e6, 50*ms), 0, func(l *link) { l.freezeAt = 1 })}, 0.8, 3 * time.Second},
		{scenario{name: "three peers", blocks: 250, size: about(1e6), links: links(3, 5e6, 50*ms)}, 0.9, 1500 * ms},
		{scenario{name: "validation is the limit", blocks: 400, size: about(1e6), rate: 2e6, links: links(8, 2.5e6, 50*ms)}, 0.098, 1500 * ms},
		{scenario{name: "sizes jump", blocks: 3000, size: func(rng *rand.Rand, h int32) int64 {
			if h/500%2 == 0 {
				return 200 + rng.Int64N(100)
			}
			return 100_000 + rng.Int64N(900_000)
		}, links: links(4, 5e6, 80*ms)}, 0.95, 1500 * ms},
		{scenario{name: "slow to answer tiny blocks", blocks: 50_000, size: about(250), perUnit: 20 * time.Microsecond, links: slowServers(links(6, 20e6, ms), 200*ms, 0)}, 0.038, 500 * ms},
		{scenario{name: "slow to answer", blocks: 5000, size: about(50e3), links: slowServers(links(6, 5e6, ms), 200*ms, 0)}, 0.93, time.Second},
		{scenario{name: "slow to begin tiny blocks", blocks: 50_000, size: about(250), perUnit: 20 * time.Microsecond, links: slowServers(links(6, 20e6, ms), 0, 200*ms)}, 0.0035, 1500 * ms},
		{scenario{name: "slow to begin", blocks: 5000, size: about(50e3), links: slowServers(links(6, 5e6, ms), 0, 200*ms)}, 0.42, 2500 * ms},
		{scenario{name: "pruned peers", blocks: 1000, size: about(1e6), links: with(with(links(4, 5e6, 50*ms), 0, func(l *link) { l.low = 500 }), 1, func(l *link) { l.low = 900 })}, 0.5, 2 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			x.log = &log
			res, err := x.run()
			t.Log(res)
			fmt.Fprintf(&log, "%v\n", res)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/network/"+strings.ReplaceAll(x.name, " ", "-")+".txt", log.Bytes())
			var sum float64
			for _, l := range x.links {
				sum += l.rate
			}
			got := float64(res.bytes) / res.took.Seconds() / sum
			name := "schedule/" + strings.ReplaceAll(x.name, " ", "-")
			figure(t, name, got)
			figure(t, name+"#gap", res.gap.Seconds())
			figure(t, name+"#rate", float64(x.blocks)/res.took.Seconds())
			if got < x.share {
				t.Errorf("%.3f of the sum of the links, want %.3f", got, x.share)
			}
			if res.gap > x.gap {
				t.Errorf("gap of %v, want at most %v", res.gap, x.gap)
			}
			if most := max(res.bytes*hedgePercent/100, 4_000_000); res.drops > 0 || res.dup > most {
				t.Errorf("%d drops, %d bytes twice (at most %d)", res.drops, res.dup, most)
			}
		})
	}
}

// TestFreezeOfTheBestPeer freezes the fastest of three peers at many moments.
func TestFreezeOfTheBestPeer(t *testing.T) {
	t.Parallel()
	for i := range 24 {
		sc := scenario{blocks: 250, size: about(1e6), links: links(3, 5e6, 50*time.Millisecond), seed: uint64(i)}
		sc.links[i%3].rate = 10e6
		sc.links[i%3].freezeAt = time.Duration(2+i/4)*time.Second + time.Duration(i)*97*time.Millisecond
		res, err := sc.run()
		if err != nil {
			t.Fatal(err)
		}
		figure(t, "schedule/freeze", res.gap.Seconds())
		if res.gap > 3*time.Second {
			t.Errorf("seed %d: gap of %v after a freeze at %v: %v", i, res.gap, sc.links[i%3].freezeAt, res)
		}
		if len(res.stalls) == 0 {
			t.Errorf("seed %d: the freeze was not told: %v", i, res)
		}
	}
}
