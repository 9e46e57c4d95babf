package exchange

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"dunlin/chain"
	"dunlin/chain/ibd"
)

// story works out from what the driver sees what the node is doing, and tells it:
// as a status, and as the log lines of a sync. It takes the time as an argument and
// asks nobody, so that a test can play any sync to it. It belongs to the driver's
// goroutine.
//
// What it tells is meant to be believed. The height told never passes the target; a
// rate is an average over the last minute and falls to nothing when nothing
// moves; the time left is not told before it can be known; and a sync that stands
// still says why.
type story struct {
	log        *slog.Logger
	stallAfter time.Duration // without progress
	progress   time.Duration // between progress lines
	idle       time.Duration // between them while nothing moves

	state    State
	since    time.Time // of state
	moved    time.Time // something came or was validated
	behindAt time.Time // when a synced node fell behind; zero if it has not
	meter    rateMeter
	last     progressMark // when something moved last

	// The present sync, or the last one.
	syncing  bool // "sync started" was logged
	started  rateSample
	lastLine time.Time // of progress
	warned   time.Time // last "sync stalled" for a stop of the whole; zero: it goes on
	warnedOf State     // the state that the line told of
	still    time.Time // since when nothing moves, if it was warned of
	stall    *Stall    // last block that was late
	stalls   int
	limit    logLimit // of lines on late blocks
}

// progressMark is what must change for a sync to have moved.
type progressMark struct {
	tip, best int32
	received  int64
}

// A Stall is a block that came late: who held it, and who was asked besides.
type Stall struct {
	At      time.Time
	Waited  time.Duration // when it was noticed
	Height  int32         // of the block
	Holder  string        // peer id
	Asked   string        // peer id of who was asked instead or too; empty: nobody else could be
	Attempt int           // how many requests were made for the block, with that to Asked
}

// view is what the driver sees.
type view struct {
	ready     bool      // the chain takes blocks
	tip, best chain.Tip // validated; followed
	connected int32     // height of best's chain that is validated
	received  int64     // bytes of blocks
	peers     int       // greeted
	pulls     int       // of headers, under way
	ahead     *claim    // of the peer with more work than best; nil: nobody
	stats     ibd.Stats
	refused   *chain.RefusedBranch // the best branch that the chain does not go over to; nil: none
	trouble   error                // the chain takes no blocks for a reason of its own
	held      string               // why the chain lets blocks wait; empty: it does not
}

// claim is a chain that a peer says it has, and we have no headers of.
type claim struct {
	peer    string
	height  int32
	attempt int  // to get its headers
	poor    bool // less than the work that is taken: it is not asked
}

func newStory(o *Options, log *slog.Logger) *story {
	return &story{
		log: log, stallAfter: o.StallAfter, progress: o.ProgressInterval, idle: o.IdleInterval,
		state: Starting, limit: logLimit{limiter: rate.NewLimiter(0.5, 4)},
	}
}

// begin is called once, before anything else.
func (y *story) begin(now time.Time) { y.since, y.moved = now, now }

// progressed says that something came that the numbers of a view do not show.
func (y *story) progressed(now time.Time) { y.moved = now }

// see takes a view, writes the lines that are due and returns the status.
func (y *story) see(ctx context.Context, now time.Time, v *view) SyncStatus {
	height := max(v.tip.Height, v.connected)
	if mark := (progressMark{v.tip.Height, v.best.Height, v.received}); mark != y.last {
		y.last, y.moved = mark, now
	}
	target := v.best.Height
	if v.ahead != nil {
		target = max(target, v.ahead.height)
	}
	here := rateSample{at: now, height: height, bytes: v.received}
	y.meter.add(here)

	s := SyncStatus{
		Height: v.tip.Height, HeaderHeight: v.best.Height, Target: target, Percent: 100,
		Peers: v.peers, Serving: v.stats.Serving,
		InFlight: v.stats.Requests, InFlightLimit: v.stats.RequestLimit,
		InFlightBytes: v.stats.PromisedBytes, BufferedBytes: v.stats.BufferedBytes, ByteLimit: v.stats.ByteLimit,
	}
	if target > 0 {
		s.Percent = min(100, 100*float64(v.tip.Height)/float64(target))
	}
	switch {
	case v.ahead != nil:
		s.BehindS = max(0, now.Sub(v.tip.Time).Seconds())
	case v.best.Hash != v.tip.Hash:
		s.BehindS = max(0, v.best.Time.Sub(v.tip.Time).Seconds())
	}
	s.State = y.judge(now, v)
	s.Reason = y.reason(now, s.State, v)
	if s.State != y.state {
		if standing(y.state) && !standing(s.State) {
			// The time of the stop says nothing of how fast it goes on.
			y.meter.reset(here)
		}
		y.state, y.since = s.State, now
	}
	s.Since = y.since
	y.startOrFinish(ctx, now, &s, v, here)

	var over time.Duration
	s.BlocksPerS, s.BytesPerS, over = y.meter.rates(here)
	if s.State == Headers || s.State == Blocks {
		s.ETAS = eta(float64(target-height), s.BlocksPerS, y.meter.lately(here), over)
	}
	if y.syncing {
		s.Stalls = y.stalls
		s.LastStall = y.stall
	}
	y.lines(ctx, now, &s)
	return s
}

// judge works out the state.
func (y *story) judge(now time.Time, v *view) State {
	behind := v.behind()
	switch {
	case !v.ready:
		return Starting
	case v.peers == 0 && !behind:
		return Connecting
	case !behind:
		y.behindAt = time.Time{}
		return Synced
	}
	// What a peer only claims does not unsettle a synced node: headers do.
	if y.state == Synced && v.best.Hash == v.tip.Hash {
		y.behindAt = time.Time{}
		return Synced
	}
	// A new block is no new sync: it is on its way.
	if y.state == Synced && v.best.Height-v.tip.Height <= hysteresisGap {
		if y.behindAt.IsZero() {
			y.behindAt = now
		}
		if now.Sub(y.behindAt) < maxHysteresis {
			return Synced
		}
	}
	y.behindAt = time.Time{}
	switch {
	case v.peers == 0:
		return Connecting
	case now.Sub(y.moved) > y.stallAfter || v.trouble != nil || v.held != "":
		return Stalled
	case v.ahead != nil && v.pulls > 0:
		return Headers
	}
	return Blocks
}

// behind reports whether there is more to validate, known or claimed.
func (v *view) behind() bool {
	return v.ahead != nil || (v.best.Hash != v.tip.Hash && v.best.Work.Cmp(v.tip.Work) > 0)
}

// reason says why nothing moves; empty while all is well.
func (y *story) reason(now time.Time, state State, v *view) string {
	switch {
	case v.trouble != nil:
		return "chain takes no blocks: " + v.trouble.Error()
	case state == Starting:
		return "the chain replays what it has on disk"
	case state == Stalled && v.held != "":
		return v.held
	case state == Connecting:
		return "no peers"
	case state == Stalled && v.ahead != nil && v.ahead.poor && v.best.Hash == v.tip.Hash:
		return "no peer has a chain with the least work that is taken"
	case state == Stalled && v.ahead != nil && v.best.Hash == v.tip.Hash:
		return "waiting for headers of " + v.ahead.peer + nth(v.ahead.attempt)
	case state == Stalled && v.stats.Reason == "":
		return "nothing has come for " + now.Sub(y.moved).Round(time.Second).String()
	case state == Stalled, state == Blocks && v.stats.Requests == 0:
		return v.stats.Reason
	case state == Headers && v.ahead.attempt > 1:
		return "fetching headers of " + v.ahead.peer + nth(v.ahead.attempt)
	case v.refused != nil:
		return fmt.Sprintf("a branch that claims more work is kept out: it leaves the chain at height %d, %d below the tip, deeper than max_reorg (dunlin chain tips, dunlin chain accept-reorg)",
			v.refused.Fork, v.refused.Depth)
	}
	return ""
}

// nth names an attempt that is not the first.
func nth(attempt int) string {
	if attempt <= 1 {
		return ""
	}
	return fmt.Sprintf(" (attempt %d)", attempt)
}

// startOrFinish begins or ends a sync and says so.
func (y *story) startOrFinish(ctx context.Context, now time.Time, s *SyncStatus, v *view, here rateSample) {
	busy := s.State == Headers || s.State == Blocks || s.State == Stalled
	over := s.State == Synced || (s.State == Connecting && !v.behind())
	switch {
	case busy && !y.syncing:
		y.syncing = true
		y.started, y.lastLine, y.moved = here, now, now
		y.warned, y.stall, y.stalls = time.Time{}, nil, 0
		y.meter.reset(here)
		attrs := []slog.Attr{slog.Int64("height", int64(s.Height)), slog.Int64("target", int64(s.Target))}
		reason := "blocks of the best header chain are missing"
		if v.ahead != nil {
			reason = "a peer has a better chain"
			attrs = append(attrs, slog.String("best_peer", v.ahead.peer))
		}
		attrs = append(attrs, slog.Int("peers", s.Peers), slog.String("reason", reason))
		y.log.LogAttrs(ctx, slog.LevelInfo, "sync started", attrs...)
	case over && y.syncing:
		y.syncing = false
		took := now.Sub(y.started.at)
		blocks := here.height - y.started.height
		var perS float64
		if took > 0 {
			perS = float64(blocks) / took.Seconds()
		}
		y.log.LogAttrs(ctx, slog.LevelInfo, "sync finished",
			slog.Int64("height", int64(s.Height)), slog.Int64("blocks", int64(blocks)),
			slog.Duration("took", took.Round(time.Millisecond)), slog.Int64("blocks_per_s", int64(perS+0.5)),
			slog.Int64("bytes", here.bytes-y.started.bytes))
	}
}

// lines writes the progress of a sync, that it stands still, and that it goes on.
func (y *story) lines(ctx context.Context, now time.Time, s *SyncStatus) {
	if !y.syncing {
		y.warned = time.Time{}
		return
	}
	switch {
	case s.State == Stalled, s.State == Connecting && now.Sub(s.Since) > y.stallAfter:
		if y.warned.IsZero() {
			y.still = y.moved
		}
		// Once a minute, and when it stands for another reason than was told.
		if y.warned.IsZero() || s.State != y.warnedOf && now.Sub(s.Since) > y.stallAfter || now.Sub(y.warned) >= time.Minute {
			y.warned, y.warnedOf = now, s.State
			y.log.LogAttrs(ctx, slog.LevelWarn, "sync stalled",
				slog.Int64("height", int64(s.Height)), slog.Int64("target", int64(s.Target)), slog.String("reason", s.Reason))
		}
	case !standing(s.State) && !y.warned.IsZero():
		y.warned, y.lastLine = time.Time{}, now
		y.log.LogAttrs(ctx, slog.LevelInfo, "sync resumed", slog.Duration("waited", now.Sub(y.still).Round(100*time.Millisecond)),
			slog.Int64("height", int64(s.Height)), slog.Int64("target", int64(s.Target)))
	}
	every := y.progress
	if standing(s.State) {
		every = y.idle
	}
	if now.Sub(y.lastLine) >= every {
		y.lastLine = now
		y.log.LogAttrs(ctx, slog.LevelInfo, "syncing", s.attrs()...)
	}
}

// standing reports whether a sync does not move in a state.
func standing(s State) bool { return s == Stalled || s == Connecting }

// late tells that a block is late, who holds it and who was asked besides.
func (y *story) late(now time.Time, tip int32, x Stall) {
	x.At = now
	y.stall = &x
	y.stalls++
	n, ok := y.limit.allow(now)
	if !ok {
		return
	}
	asked := x.Asked
	if asked == "" {
		asked = "nobody else has it"
	}
	y.log.Warn("sync stalled", "waited", x.Waited.Round(100*time.Millisecond), "height", tip,
		"holder", x.Holder, "holds", x.Height, "asked", asked, "attempt", x.Attempt, "suppressed", n)
}
