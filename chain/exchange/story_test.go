package exchange

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/ibd"
)

var updateStory = flag.Bool("update", false, "write the golden files anew")

// teller plays a sync to a story, ten times a second of time that only it moves.
type teller struct {
	y     *story
	now   time.Time
	start time.Time
	v     view
	out   strings.Builder // the lines, each with its time
	log   bytes.Buffer
	s     SyncStatus
	check func(before, after *SyncStatus)
}

func tipAt(height int32) chain.Tip {
	t := chain.Tip{Height: height, Time: time.Unix(1_700_000_000+600*int64(height), 0), Work: big.NewInt(int64(height))}
	t.Hash = chainhash.Hash{byte(height), byte(height >> 8), byte(height >> 16), 1}
	return t
}

func newTeller(o Options) *teller {
	n := &teller{now: time.Unix(1_800_000_000, 0)}
	n.start = n.now
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	orDefault(&o.StallAfter, 10*time.Second)
	orDefault(&o.ProgressInterval, 5*time.Second)
	orDefault(&o.IdleInterval, time.Minute)
	n.y = newStory(&o, slog.New(slog.NewTextHandler(&n.log, &slog.HandlerOptions{ReplaceAttr: noTime})))
	n.y.begin(n.now)
	n.v = view{ready: true, tip: tipAt(0), best: tipAt(0), stats: ibd.Stats{RequestLimit: 128}}
	return n
}

// see shows the view as it is now.
func (n *teller) see() {
	n.log.Reset()
	before := n.s
	n.s = n.y.see(context.Background(), n.now, &n.v)
	if n.check != nil {
		n.check(&before, &n.s)
	}
	n.told()
}

func (n *teller) told() {
	for line := range strings.Lines(n.log.String()) {
		fmt.Fprintf(&n.out, "%7.1fs %s", n.now.Sub(n.start).Seconds(), line)
	}
	n.log.Reset()
}

// run lets time pass while blocks and bytes come at rates.
func (n *teller) run(d time.Duration, blocksPerS, bytesPerS float64) {
	const step = tickEvery
	height, bytes := float64(n.v.tip.Height), float64(n.v.received)
	for range d / step {
		n.now = n.now.Add(step)
		height = min(height+blocksPerS*step.Seconds(), float64(n.v.best.Height))
		bytes += bytesPerS * step.Seconds()
		n.v.tip, n.v.received = tipAt(int32(height)), int64(bytes)
		n.v.connected = n.v.tip.Height
		n.see()
	}
}

func (n *teller) note(format string, args ...any) { fmt.Fprintf(&n.out, "-- "+format+"\n", args...) }

// TestStory plays a whole sync and compares every line that the log gets.
func TestStory(t *testing.T) {
	n := newTeller(Options{})
	n.v.ready = false
	n.note("starting")
	n.run(2*time.Second, 0, 0)
	n.note("ready, no peers: nothing to say yet (%s: %s)", n.s.State, n.s.Reason)
	n.v.ready = true
	n.run(3*time.Second, 0, 0)
	n.note("a peer that claims more (%s: %s)", n.s.State, n.s.Reason)
	n.v.peers, n.v.ahead, n.v.pulls = 3, &claim{"A", 100_000, 1, false}, 1
	for h := int32(0); h < 100_000; h += 10_000 {
		n.v.best = tipAt(h)
		n.run(time.Second, 0, 0)
	}
	n.note("its headers are here; blocks come at 500 a second")
	n.v.best, n.v.ahead, n.v.pulls = tipAt(100_000), nil, 0
	n.v.stats.Requests, n.v.stats.Serving = 30, 3
	n.run(70*time.Second, 500, 5e6)
	n.note("a block is late: B is asked, then C; then nobody is left")
	n.late(Stall{Waited: 1100 * time.Millisecond, Height: 35_001, Holder: "A", Asked: "B", Attempt: 2})
	n.run(2*time.Second, 0, 0)
	n.late(Stall{Waited: 2 * time.Second, Height: 35_001, Holder: "B", Asked: "C", Attempt: 3})
	n.run(2*time.Second, 0, 0)
	n.late(Stall{Waited: 2 * time.Second, Height: 35_001, Holder: "C", Attempt: 3})
	n.note("status: %d late, the last %+v", n.s.Stalls, *n.y.stall)
	n.note("it comes; then all peers hang")
	n.run(5*time.Second, 500, 5e6)
	n.run(100*time.Second, 0, 0)
	n.note("they go on")
	n.run(10*time.Second, 500, 5e6)
	n.note("the last peer hangs, and leaves after 30 s")
	n.run(30*time.Second, 0, 0)
	n.v.peers, n.v.stats.Requests, n.v.stats.Serving, n.v.stats.Reason = 0, 0, 0, "no peers"
	n.run(75*time.Second, 0, 0)
	n.note("one comes back; the rest at 10,000 a second")
	n.v.peers, n.v.stats.Requests, n.v.stats.Serving, n.v.stats.Reason = 1, 9, 1, ""
	n.run(7*time.Second, 10_000, 50e6)
	n.note("synced; a block now and then is no sync (%s, %.1f%%)", n.s.State, n.s.Percent)
	for h := int32(100_001); h < 100_010; h++ {
		n.v.best = tipAt(h)
		n.run(time.Second, 0, 1e5)
		n.run(29*time.Second, 1, 0)
	}
	n.note("the disk is full: rate %.0f", n.s.BlocksPerS)
	n.v.trouble = errors.New("no space left on device")
	n.v.best = tipAt(100_500)
	n.run(6*time.Second, 0, 0)
	n.note("there is room again")
	n.v.trouble = nil
	n.run(3*time.Second, 0, 0)
	n.note("it is almost full: blocks wait, and it is no peer's fault")
	n.v.held, n.v.stats.Reason = "the disk is almost full", "waiting for validation of block 100010"
	n.run(6*time.Second, 0, 1e5)
	n.note("there is room again")
	n.v.held, n.v.stats.Reason = "", ""
	n.run(15*time.Second, 50, 1e5)
	n.note("just after: %s, rate %.1f", n.s.State, n.s.BlocksPerS)
	n.run(70*time.Second, 0, 0)
	n.note("a minute later: %s, rate %.1f and %.1f, eta %v", n.s.State, n.s.BlocksPerS, n.s.BytesPerS, n.s.ETAS)

	path := filepath.Join("testdata", "story.txt")
	if *updateStory {
		if err := os.WriteFile(path, []byte(n.out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n.out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", n.out.String(), want)
	}
}

func (n *teller) late(x Stall) {
	n.y.late(n.now, n.v.tip.Height, x)
	n.told()
}

// TestETA: nothing is told before it can be known; when the rate drops to a tenth the
// time left grows to ten times of it within a minute, never by a jump, and never
// falls on the way; when nothing comes any more there is none.
func TestETA(t *testing.T) {
	n := newTeller(Options{})
	n.v.peers, n.v.best = 3, tipAt(1_000_000)
	n.run(30*time.Second, 0, 0) // the peers think it over: no part of any rate
	n.v.stats.Requests = 9
	from := n.now
	for n.s.ETAS == nil {
		if n.now.Sub(from) > 2*time.Minute {
			t.Fatal("no time left is told")
		}
		n.run(tickEvery, 1000, 1e6)
	}
	if after := n.now.Sub(from); (after - time.Minute).Abs() > 2*time.Second {
		t.Errorf("a sync of 17 minutes has an eta after %v", after)
	}
	if want := 999.0 - 60; math.Abs(*n.s.ETAS-want) > want/20 {
		t.Errorf("eta %.0f s, want about %.0f s", *n.s.ETAS, want)
	}
	n.run(time.Minute, 1000, 1e6)
	steady := *n.s.ETAS
	last := steady
	for range 620 { // a tenth of the rate
		n.run(tickEvery, 100, 1e5)
		if n.s.ETAS == nil || *n.s.ETAS < last-1 || *n.s.ETAS > 1.2*last+1 {
			t.Fatalf("eta went from %.1f to %v", last, n.s.ETAS)
		}
		last = *n.s.ETAS
	}
	if last < 9*steady || last > 11*steady {
		t.Errorf("eta %.0f s at a tenth of the rate, was %.0f s", last, steady)
	}
	for range 200 {
		n.run(tickEvery, 0, 0)
		if n.s.ETAS != nil && (*n.s.ETAS < last-1 || *n.s.ETAS > 1.1*last) {
			t.Fatalf("eta went from %.1f to %v", last, *n.s.ETAS)
		} else if n.s.ETAS != nil {
			last = *n.s.ETAS
		}
	}
	if n.s.State != Stalled || n.s.ETAS != nil || n.s.BlocksPerS == 0 {
		t.Errorf("20 s without a block: %s, eta %v, %.0f blk/s over the last minute", n.s.State, n.s.ETAS, n.s.BlocksPerS)
	}
	n.run(45*time.Second, 0, 0)
	defer func() { // and when it goes on, the stop is no part of the rate
		n.run(30*time.Second, 100, 1e5)
		if n.s.BlocksPerS < 90 || n.s.BlocksPerS > 101 || n.s.ETAS != nil {
			t.Errorf("30 s after a stop: %.1f blk/s, eta %v", n.s.BlocksPerS, n.s.ETAS)
		}
	}()
	if n.s.BlocksPerS != 0 || n.s.BytesPerS != 0 {
		t.Errorf("65 s without a block: %.2f blk/s, %.2f B/s", n.s.BlocksPerS, n.s.BytesPerS)
	}
}

// TestShortETA: what is almost done may be told early.
func TestShortETA(t *testing.T) {
	for _, c := range []struct {
		left, rate, lately float64
		over               time.Duration
		want               float64 // -1: none
	}{
		{100, 10, 10, 9 * time.Second, -1},
		{100, 10, 10, 10 * time.Second, 10},
		{101, 10, 10, 10 * time.Second, -1},
		{100, 10, 12, 11 * time.Second, 10},
		{100, 10, 5, 20 * time.Second, 20},   // it slows down
		{100, 10, 4, 20 * time.Second, -1},   // so much that nothing is known
		{100, 10, 0, 20 * time.Second, -1},   //
		{1000, 10, 4, 61 * time.Second, 100}, // a minute evens that out
		{1e6, 10, 10, 59 * time.Second, -1},
		{1e6, 10, 10, 60 * time.Second, 1e5},
		{0, 10, 10, time.Minute, -1},
		{-5, 10, 10, time.Minute, -1},
		{100, 0, 0, time.Minute, -1},
	} {
		got := eta(c.left, c.rate, c.lately, c.over)
		if (got == nil) != (c.want < 0) || (got != nil && *got != c.want) {
			t.Errorf("%v: %v", c, got)
		}
	}
}

// TestPercentIsHonest: whatever peers claim and whenever they go, the percentage is
// between 0 and 100, is 100 when synced, and falls only when the target grows or the
// tip goes back.
func TestPercentIsHonest(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n := newTeller(Options{})
		n.check = func(a, b *SyncStatus) {
			switch {
			case b.Percent < 0 || b.Percent > 100 || math.IsNaN(b.Percent):
				t.Fatalf("seed %d: %.2f%%", seed, b.Percent)
			case b.State == Synced && b.Target == b.Height && b.Percent != 100:
				t.Fatalf("seed %d: synced at %.2f%%", seed, b.Percent)
			case b.Percent < a.Percent && b.Target <= a.Target && b.Height >= a.Height && !a.Since.IsZero():
				t.Fatalf("seed %d: from %.2f%% (%d/%d) to %.2f%% (%d/%d)", seed, a.Percent, a.Height, a.Target, b.Percent, b.Height, b.Target)
			case b.ETAS != nil && (*b.ETAS < 0 || math.IsInf(*b.ETAS, 0) || math.IsNaN(*b.ETAS)):
				t.Fatalf("seed %d: eta %v", seed, *b.ETAS)
			case b.BlocksPerS < 0 || b.BytesPerS < 0 || b.BehindS < 0:
				t.Fatalf("seed %d: %+v", seed, b)
			}
		}
		for range 60 {
			switch rng.IntN(6) {
			case 0:
				n.v.peers = rng.IntN(4)
			case 1:
				n.v.best = tipAt(n.v.tip.Height + rng.Int32N(5000))
			case 2:
				n.v.ahead = nil
			case 3:
				n.v.peers, n.v.ahead = max(1, n.v.peers), &claim{"A", n.v.best.Height + 1 + rng.Int32N(9000), 1 + rng.IntN(3), rng.IntN(4) == 0}
				n.v.pulls = rng.IntN(2)
			case 4: // a reorganisation
				n.v.tip = tipAt(max(0, n.v.tip.Height-rng.Int32N(10)))
			case 5:
				n.v.trouble = nil
				if rng.IntN(4) == 0 {
					n.v.trouble = errors.New("full")
				}
			}
			n.run(time.Duration(1+rng.IntN(30))*time.Second, float64(rng.IntN(2000)), float64(rng.IntN(1e7)))
		}
	}
}
