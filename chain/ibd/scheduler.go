package ibd

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"
)

// withDefaults returns c with the zero fields set and an error that names every
// field out of range.
func (c Config) withDefaults() (Config, error) {
	c.MaxRequestsPerPeer = cmp.Or(c.MaxRequestsPerPeer, DefaultRequestsPerPeer)
	c.MaxBlocksPerPeer = cmp.Or(c.MaxBlocksPerPeer, DefaultBlocksPerPeer)
	c.MaxBytesPerPeer = cmp.Or(c.MaxBytesPerPeer, DefaultBytesPerPeer)
	c.MaxRequests = cmp.Or(c.MaxRequests, DefaultRequests)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultBytes)
	c.MaxCount = cmp.Or(c.MaxCount, DefaultCount)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	var errs []error
	within := func(name string, v, low, high int64) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s %d: must be from %d to %d", name, v, low, high))
		}
	}
	within("MaxRequestsPerPeer", int64(c.MaxRequestsPerPeer), 1, DefaultRequestsPerPeer)
	within("MaxBlocksPerPeer", int64(c.MaxBlocksPerPeer), 1, maxWindow)
	within("MaxRequests", int64(c.MaxRequests), 1, 1<<16)
	within("MaxCount", int64(c.MaxCount), 1, DefaultCount)
	within("Window", int64(c.Window), 1, maxWindow)
	const mostBytes = 1 << 40
	within("MaxBlockBytes", c.MaxBlockBytes, 1, mostBytes)
	block := min(max(1, c.MaxBlockBytes), mostBytes)
	within("MaxBytesPerPeer", c.MaxBytesPerPeer, block, mostBytes)
	within("MaxBytes", c.MaxBytes, block, mostBytes)
	return c, errors.Join(errs...)
}

// A Scheduler tracks peers, outstanding requests and blocks that await
// connection. It is not safe for concurrent use.
type Scheduler struct {
	cfg     Config
	rng     *rand.Rand
	epoch   time.Time     // of the first Step
	now     time.Duration // since the epoch, at least 1; never goes back
	watched time.Duration // last time stalls were looked for
	actions []Action

	haveTarget      bool
	connected, best int32
	floor           int32 // connected and on-disk blocks end here
	top             int32 // slots of (floor, top] are in use
	front           int32 // lowest height in (floor, top] that is not held, or top+1
	refused         bool  // a block was refused for good: wait for a Target
	disk            spans // on-disk heights above connected
	slots           []slot
	// stray are the sizes of delivered blocks above the window, which moved down
	// because a block on disk was lost.
	stray   map[int32]int64
	missing bitmap // wanted and owed by nobody
	got     bitmap // held: not wanted

	peers  map[PeerID]*peer
	order  []*peer // of peers, by id
	lastID RequestID

	live      int   // requests not cancelled
	promised  int64 // by them
	buffered  int64
	delivered int64
	inChain   int // blocks delivered and not answered
	avg, peak int64
	margin    int64 // of promises over peak, in marginMost-ths of it
	seen      bool  // a block: avg and peak are real
	received  int64
	hedged    int64 // bytes of second copies
	guess     int64 // bytes/s of the median peer, for those without a sample
	rates     []int64
	drops     []Drop
	stalls    []Stalled
}

// New returns a Scheduler. It reports every field of cfg that is out of range.
func New(cfg Config) (*Scheduler, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("download scheduler config: %w", err)
	}
	n := max(64, 1<<bits.Len32(uint32(cfg.Window-1)))
	return &Scheduler{
		cfg:     cfg,
		rng:     rand.New(rand.NewPCG(cfg.Seed, 0x1bd)),
		slots:   make([]slot, n),
		missing: newBitmap(n),
		got:     newBitmap(n),
		peers:   make(map[PeerID]*peer),
		stray:   make(map[int32]int64),
		// Before the first block its size is anybody's guess: small enough that
		// many fit, with room for the odd big one.
		avg:    min(cfg.MaxBlockBytes, 32<<10),
		peak:   min(cfg.MaxBlockBytes, 256<<10),
		margin: marginLeast,
		guess:  unknownRate,
	}, nil
}

// Step takes one event and returns what to do now, in order. The slice is
// reused by the next Step.
func (s *Scheduler) Step(now time.Time, e Event) []Action {
	if s.epoch.IsZero() {
		s.epoch = now
	}
	s.now = max(s.now, now.Sub(s.epoch)+1)
	clear(s.actions)
	s.actions = s.actions[:0]
	ask := true
	tick := false
	switch e := e.(type) {
	case Target:
		s.onTarget(e)
	case PeerTip:
		s.onPeerTip(e)
	case PeerGone:
		s.onPeerGone(e)
	case Bytes:
		s.onBytes(e)
		ask = false
	case Block:
		s.onBlock(e)
	case Done:
		s.onDone(e)
	case Connected:
		s.onConnected(e)
	case Stored:
		s.onStored(e)
	case Rejected:
		s.onRejected(e)
	case Tick:
		tick = true
	default:
		panic(fmt.Sprintf("ibd: unknown event %T", e))
	}
	if !s.haveTarget {
		return s.flush()
	}
	if tick || s.now-s.watched >= watchEvery {
		s.watched = s.now
		s.watch()
		ask, tick = true, true
	}
	if ask {
		s.assign()
	}
	if tick {
		s.hedge()
	}
	return s.flush()
}

// flush appends what comes after the requests: the log of stalls, then drops,
// so that what a liar owed is asked for elsewhere first.
func (s *Scheduler) flush() []Action {
	for _, x := range s.stalls {
		if x.Asked == "" && x.Height > s.floor && x.Height <= s.top {
			if p := s.newest(x.Height, x.Peer); p != nil {
				x.Asked = p.id
			}
		}
		if s.inWindow(x.Height) {
			x.Attempt = int(s.slot(x.Height).attempts)
		}
		s.actions = append(s.actions, x)
	}
	for _, d := range s.drops {
		s.actions = append(s.actions, d)
	}
	s.stalls, s.drops = s.stalls[:0], s.drops[:0]
	return s.actions
}

func (s *Scheduler) act(a Action) { s.actions = append(s.actions, a) }

func (s *Scheduler) slot(h int32) *slot { return &s.slots[uint32(h)&s.missing.mask] }

func (s *Scheduler) inWindow(h int32) bool { return s.floor < h && h <= s.top }

// held returns the bytes that count against MaxBytes.
func (s *Scheduler) held() int64 { return s.promised + s.buffered + s.delivered }

// Events.

func (s *Scheduler) onTarget(t Target) {
	best := min(t.Best, math.MaxInt32-256) // heights near it must not overflow
	base := min(t.Base, best)
	if !s.haveTarget {
		s.haveTarget = true
		s.connected, s.floor, s.top, s.front = base, base, base, base+1
	} else {
		keep := min(t.Keep, best, s.best)
		s.forgetAbove(keep)
		s.connected = max(base, min(s.connected, keep))
	}
	s.best = best
	s.refused = false
	for _, x := range t.Have {
		if from, to := max(x[0], s.connected+1), min(x[1], best); from <= to {
			s.disk = s.disk.add(from, to)
		}
	}
	s.freeStray(func(h int32) bool {
		_, ok := s.disk.around(h)
		return ok
	})
	s.moveFloor()
	for h := s.floor + 1; h <= s.top; h++ {
		x := s.slot(h)
		if x.state == refused {
			s.want(h)
		}
		if len(t.Have) > 0 && x.state != onDisk {
			if _, ok := s.disk.around(h); ok {
				s.release(h)
				s.hold(h, onDisk)
			}
		}
	}
	s.advance()
}

// forgetAbove cancels and forgets what belongs to the branch above keep.
func (s *Scheduler) forgetAbove(keep int32) {
	s.cancelAbove(keep)
	for _, p := range s.order {
		p.forgetLacks(keep)
	}
	s.disk = s.disk.clip(s.connected+1, keep)
	s.freeStray(func(h int32) bool { return h > keep })
	for h := max(keep, s.floor) + 1; h <= s.top; h++ {
		s.retire(h)
	}
	s.floor = min(s.floor, keep)
	s.top = max(s.floor, min(s.top, keep))
	s.front = min(s.front, s.top+1)
}

// cancelAbove cancels every live request that still owes a block above h.
func (s *Scheduler) cancelAbove(h int32) {
	for _, p := range s.order {
		for _, r := range p.reqs {
			if !r.cancelled && r.last() > h && r.next < r.count {
				s.cancel(p, r)
			}
		}
	}
}

// moveFloor sets the floor to the end of the unbroken run of connected and
// on-disk blocks and moves the window there.
func (s *Scheduler) moveFloor() {
	floor := s.connected
	if i := s.disk.find(s.connected + 1); i > 0 || (i < len(s.disk) && s.disk[i].from <= s.connected) {
		s.disk = s.disk.clip(s.connected+1, s.best)
	}
	if x, ok := s.disk.around(s.connected + 1); ok {
		floor = x.to
	}
	if floor < s.floor {
		s.lower(floor)
	}
	for h := s.floor + 1; h <= min(floor, s.top); h++ {
		s.retire(h)
	}
	s.floor = floor
	s.freeStray(func(h int32) bool { return h <= floor })
	s.front = max(s.front, floor+1)
	s.top = max(s.top, floor)
	end := int32(min(int64(floor)+int64(s.cfg.Window), int64(s.best)))
	for s.top < end {
		s.top++
		s.enter(s.top)
	}
}

// lower moves the window down to start after floor.
func (s *Scheduler) lower(floor int32) {
	end := int32(min(int64(floor)+int64(s.cfg.Window), int64(s.top)))
	for _, p := range s.order {
		for _, r := range p.reqs {
			// Heights up to the old floor get new slots, which must not have owners.
			if !r.cancelled && r.next < r.count && (r.last() > end || r.nextH() <= s.floor) {
				s.cancel(p, r)
			}
		}
	}
	for h := max(end, s.floor) + 1; h <= s.top; h++ {
		if x := s.slot(h); x.state == delivered {
			s.stray[h] = x.size
			x.state = wanted // its bytes stay counted
		}
		s.retire(h)
	}
	s.top = end
	for h := floor + 1; h <= min(s.floor, end); h++ {
		s.enter(h)
	}
	s.floor = floor
	s.front = floor + 1
}

// enter starts the slot of h.
func (s *Scheduler) enter(h int32) {
	*s.slot(h) = slot{}
	s.got.clear(h)
	if _, ok := s.disk.around(h); ok {
		s.freeStray(func(o int32) bool { return o == h })
		s.hold(h, onDisk)
		return
	}
	if size, ok := s.stray[h]; ok {
		delete(s.stray, h)
		s.slot(h).size = size
		s.hold(h, delivered)
		return
	}
	s.missing.set(h)
}

// freeStray gives back the bytes of the stray blocks that match.
func (s *Scheduler) freeStray(match func(h int32) bool) {
	for h, size := range s.stray {
		if match(h) {
			delete(s.stray, h)
			s.delivered -= size
			s.inChain--
		}
	}
}

// retire ends the slot of h.
func (s *Scheduler) retire(h int32) {
	s.release(h)
	s.got.clear(h)
	s.missing.clear(h)
	*s.slot(h) = slot{}
}

// release gives back the bytes of h.
func (s *Scheduler) release(h int32) {
	x := s.slot(h)
	switch x.state {
	case buffered:
		s.buffered -= x.size
		s.act(Discard{Peer: x.from.id, ID: x.id, Height: h})
	case delivered:
		s.delivered -= x.size
		s.inChain--
	}
	x.size, x.from = 0, nil
}

// hold puts h in a state other than wanted.
func (s *Scheduler) hold(h int32, st blockState) {
	s.slot(h).state = st
	s.got.set(h)
	s.missing.clear(h)
}

// want makes h missing.
func (s *Scheduler) want(h int32) {
	x := s.slot(h)
	x.state = wanted
	s.got.clear(h)
	if x.owners == 0 {
		s.missing.set(h)
	}
	s.front = min(s.front, h)
}

// advance delivers what has become next in order.
func (s *Scheduler) advance() {
	if s.refused {
		return
	}
	for s.front <= s.top && s.got.has(s.front) {
		x := s.slot(s.front)
		if x.state == buffered {
			s.buffered -= x.size
			s.delivered += x.size
			s.inChain++
			x.state = delivered
			s.act(Deliver{Peer: x.from.id, ID: x.id, Height: s.front})
		}
		s.front++
	}
}

func (s *Scheduler) onPeerTip(e PeerTip) {
	p := s.peers[e.Peer]
	if p == nil {
		p = &peer{id: e.Peer, tie: s.rng.Uint64(), scale: fullScale, idleSince: s.now}
		s.peers[e.Peer] = p
		i, _ := slices.BinarySearchFunc(s.order, e.Peer, func(p *peer, id PeerID) int { return cmp.Compare(p.id, id) })
		s.order = slices.Insert(s.order, i, p)
	}
	p.low, p.high = e.Low, e.High
	if e.RTT > 0 && (p.rtt == 0 || e.RTT < p.rtt) {
		p.rtt = e.RTT
	}
}

func (s *Scheduler) onPeerGone(e PeerGone) {
	p := s.peers[e.Peer]
	if p == nil {
		return
	}
	s.endAll(p)
	delete(s.peers, e.Peer)
	i, _ := slices.BinarySearchFunc(s.order, e.Peer, func(p *peer, id PeerID) int { return cmp.Compare(p.id, id) })
	s.order = slices.Delete(s.order, i, i+1)
}

// lied drops p.
func (s *Scheduler) lied(p *peer, format string, args ...any) {
	if p.dropped {
		return
	}
	p.dropped = true
	s.endAll(p)
	s.drops = append(s.drops, Drop{Peer: p.id, Reason: fmt.Sprintf(format, args...)})
}

func (s *Scheduler) onBytes(e Bytes) {
	p := s.peers[e.Peer]
	if p == nil || e.N <= 0 {
		return
	}
	r := p.find(e.ID)
	if r == nil {
		return
	}
	s.arrived(p, r, r.arrived+min(e.N, s.cfg.MaxBytes))
}

// arrived notes that the bytes of r's reply have grown to total.
func (s *Scheduler) arrived(p *peer, r *request, total int64) {
	if total <= r.arrived {
		return
	}
	n := total - r.arrived
	if r.arrived == 0 {
		p.began(s.now, r, n)
	}
	r.arrived = total
	p.count(s.now, r.asked, n)
}

func (s *Scheduler) onBlock(e Block) {
	discard := Discard{Peer: e.Peer, ID: e.ID, Height: e.Height}
	p := s.peers[e.Peer]
	var r *request
	if p != nil {
		r = p.find(e.ID)
	}
	if r == nil || r.cancelled {
		s.act(discard)
		if r != nil {
			r.frames += max(0, e.Size)
			s.arrived(p, r, r.frames)
		}
		return
	}
	if r.next >= r.count || e.Height != r.nextH() {
		// A second copy of a block still buffered took its place at the driver.
		x := s.slot(e.Height)
		if !s.inWindow(e.Height) || x.state != buffered || x.id != e.ID {
			s.act(discard)
		}
		s.lied(p, "sent block %d in place of %d", e.Height, r.nextH())
		return
	}
	if e.Size <= 0 || e.Size > r.promise {
		s.act(discard)
		s.lied(p, "sent %d bytes at block %d where %d were left", e.Size, e.Height, r.promise)
		return
	}
	r.next++
	r.frames += e.Size
	s.arrived(p, r, r.frames)
	left := min(r.promise-e.Size, int64(r.count-r.next)*s.cfg.MaxBlockBytes)
	p.promised -= r.promise - left
	s.promised -= r.promise - left
	r.promise = left
	expect := max(0, min(r.expect-r.share, left))
	p.expect -= r.expect - expect
	r.expect = expect
	p.blocks--
	p.backoffs, p.lackRounds, p.strikes, p.stallTold = 0, 0, 0, 0
	s.received += e.Size
	s.learnSize(e.Size)
	if !s.inWindow(e.Height) {
		s.act(discard)
		return
	}
	x := s.slot(e.Height)
	x.owners--
	if x.state != wanted {
		s.act(discard)
		return
	}
	if x.claimant != nil && e.Size > x.tooBig {
		x.claimant.claims = 0
	}
	x.from, x.id, x.size = p, e.ID, e.Size
	s.buffered += e.Size
	s.hold(e.Height, buffered)
	s.advance()
}

// learnSize moves the expected block size.
func (s *Scheduler) learnSize(n int64) {
	if !s.seen {
		s.seen = true
		s.avg, s.peak, s.margin = n, min(2*n, s.cfg.MaxBlockBytes), marginMost
	}
	switch d := n - s.avg; {
	case d > 3*s.avg, -d > s.avg/4*3: // a new era, or an outlier: forgotten again as fast
		s.avg += d / 4
	default:
		s.avg += d / 16
	}
	s.avg = max(s.avg, 1)
	if n >= s.peak {
		s.peak = n
	} else {
		s.peak -= (s.peak - min(s.peak, s.avg)) / 256
	}
	s.margin = max(s.margin-1, marginLeast)
}

// learnClaim moves the expected block size by the word of p, who says that a
// block has size bytes: what was asked for with the old expectation comes back
// unanswered, and what is asked for next should fit. A liar gets away with
// maxClaims of them; the blocks that arrive undo what they did.
func (s *Scheduler) learnClaim(p *peer, size int64) {
	s.margin = marginMost
	if p.claims >= maxClaims {
		return
	}
	p.claims++
	s.peak = max(s.peak, size)
	s.avg += (size - s.avg) / 4
}

func (s *Scheduler) onDone(e Done) {
	p := s.peers[e.Peer]
	if p == nil {
		return
	}
	r := p.find(e.ID)
	if r == nil {
		return
	}
	if e.Status == Lied {
		s.lied(p, "the reply for block %d was not what was asked for", r.nextH())
		return
	}
	s.end(p, r)
	if r.cancelled {
		return
	}
	p.lastDone = s.now
	if p.rate == 0 {
		p.quick()
	}
	short := r.next < r.count
	switch {
	case e.Status == Busy:
		s.backoff(p, waitBusy)
	case e.Status == Failed:
		s.backoff(p, waitFailed)
	case e.Status == TooLarge && short:
		s.tooLarge(p, r, e.Size)
	case e.Status == NotFound && short, e.Status == OK && r.next == 0:
		// An OK without a block is no answer either.
		p.lackRounds = min(p.lackRounds+1, 8)
		p.addLack(lack{r.nextH(), r.last(), s.now + s.jitter(doubled(p.lackRounds))}, s.now)
	default:
		if short {
			s.didNotFit(p, r)
		}
		p.scale = min(fullScale, p.scale+1)
	}
}

// tooLarge notes that p says that the next block of r has size bytes.
func (s *Scheduler) tooLarge(p *peer, r *request, size int64) {
	h := r.nextH()
	if size == 0 {
		size = s.cfg.MaxBlockBytes
	}
	if size > s.cfg.MaxBlockBytes || size <= r.promise {
		s.lied(p, "said that block %d has %d bytes when %d were allowed", h, size, r.promise)
		return
	}
	if !s.inWindow(h) {
		return
	}
	x := s.slot(h)
	if x.need > 0 { // the second word on the same block: take no third
		size = s.cfg.MaxBlockBytes
	}
	x.need, x.tooBig, x.claimant, x.unsaid = size, r.promise, p, false
	s.learnClaim(p, size)
}

// didNotFit notes that p ended r early though it has the next block: it is larger
// than what was left of the promise, how large it did not say. Other servers may
// have other reasons, so nobody is blamed if it turns out small.
func (s *Scheduler) didNotFit(p *peer, r *request) {
	s.margin = marginMost
	if p.claims >= maxClaims || !s.inWindow(r.nextH()) {
		return
	}
	if x := s.slot(r.nextH()); x.need == 0 {
		p.claims++
		need := min(max(4*s.peak, 2*r.promise, 4*promiseSlack), s.cfg.MaxBlockBytes)
		x.need, x.tooBig, x.claimant, x.unsaid = need, r.promise, p, true
	}
}

// doubled returns the n-th back-off, n from 1.
func doubled(n int) time.Duration {
	return min(backoffFirst<<(n-1), backoffMost)
}

// jitter returns d or up to a fifth less, so that peers which began to wait
// together do not end together.
func (s *Scheduler) jitter(d time.Duration) time.Duration {
	return d - time.Duration(s.rng.Int64N(int64(d)/5))
}

// backoff leaves p alone for a while, longer each time in a row.
func (s *Scheduler) backoff(p *peer, why waitReason) {
	if s.now < p.until {
		return // one event of many replies
	}
	p.backoffs = min(p.backoffs+1, 6)
	p.until, p.why = s.now+s.jitter(doubled(p.backoffs)), why
}

// cancel withdraws r.
func (s *Scheduler) cancel(p *peer, r *request) {
	s.withdraw(p, r)
	r.cancelled = true
	s.act(Cancel{Peer: p.id, ID: r.id})
}

// withdraw takes r, which is live, out of the global counts and makes what it
// owes missing.
func (s *Scheduler) withdraw(p *peer, r *request) {
	s.live--
	s.promised -= r.promise
	if p.live--; p.live == 0 {
		p.idle(s.now)
	}
	for h := max(r.nextH(), s.floor+1); h <= min(r.last(), s.top); h++ {
		x := s.slot(h)
		if x.owners--; x.owners == 0 && x.state == wanted {
			s.missing.set(h)
		}
	}
}

// end removes r from its peer.
func (s *Scheduler) end(p *peer, r *request) {
	if !r.cancelled {
		s.withdraw(p, r)
		if r.hedge {
			s.hedged += r.frames - r.charge
		}
	}
	p.promised -= r.promise
	p.expect -= r.expect
	p.blocks -= int(r.count - r.next)
	p.reqs = slices.DeleteFunc(p.reqs, func(o *request) bool { return o == r })
}

func (s *Scheduler) endAll(p *peer) {
	for len(p.reqs) > 0 {
		s.end(p, p.reqs[len(p.reqs)-1])
	}
}

func (s *Scheduler) onConnected(e Connected) {
	h := min(e.Height, s.best)
	if !s.haveTarget || h <= s.connected {
		return
	}
	for i := s.floor + 1; i <= min(h, s.top); i++ {
		// The size of a connected block is beyond doubt.
		x := s.slot(i)
		if x.claimant != nil && !x.unsaid && x.state == delivered && x.size <= x.tooBig/2 && s.peers[x.claimant.id] == x.claimant {
			s.lied(x.claimant, "said that block %d does not fit in %d bytes, it has %d", i, x.tooBig, x.size)
		}
	}
	s.connected = h
	s.moveFloor()
	s.advance()
}

func (s *Scheduler) onStored(e Stored) {
	s.freeStray(func(h int32) bool {
		if h > e.Height {
			return false
		}
		s.disk = s.disk.add(h, h)
		return true
	})
	h := min(e.Height, s.front-1)
	if !s.haveTarget || h <= s.floor {
		return
	}
	s.disk = s.disk.add(s.floor+1, h)
	s.moveFloor()
	s.advance()
}

func (s *Scheduler) onRejected(e Rejected) {
	h := e.Height
	var sender *peer
	switch {
	case !s.haveTarget || h <= s.connected:
		return
	case h <= s.floor: // stored
		s.disk = s.disk.remove(h)
		s.moveFloor()
	case h <= s.top && s.slot(h).state == delivered:
		sender = s.slot(h).from
		s.release(h)
		s.want(h)
	case s.stray[h] > 0: // asked for again when the window comes back to it
		s.freeStray(func(o int32) bool { return o == h })
		return
	default:
		return
	}
	switch {
	case e.BlameSender:
		if sender != nil && s.peers[sender.id] != nil {
			s.lied(s.peers[sender.id], "sent a mutated block %d", h)
		}
	case e.Refetch:
	default:
		s.refused = true
		s.hold(h, refused)
	}
}
