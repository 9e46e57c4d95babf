package ibd

import (
	"math"
	"time"
)

// coldCount bounds a request before the first block has shown how large blocks
// are, coldRequests what is outstanding at a peer whose rate is not known.
const (
	coldCount    = 16
	coldRequests = 2
)

// probeAfter is how long a peer stays idle because others are faster before it
// gets one request all the same: its rate may be out of date.
const probeAfter = 10 * time.Second

// assign asks for missing heights, lowest first, until a cap, a quota or the
// window ends it.
func (s *Scheduler) assign() {
	if s.refused {
		return
	}
	for _, p := range s.order {
		p.passed = false
	}
	for {
		low := s.missing.next(s.front, s.top)
		if low > s.top || !s.requestLeft(low) {
			return
		}
		p, eta := s.earliest(low)
		if p == nil {
			return
		}
		start := s.lowestFor(p, low)
		front := start == s.front
		if start > s.reach() || !front && (!s.available(p, false) || !s.quotaLeft(p)) {
			p.passed = true
			continue
		}
		if !front {
			var ok bool
			if start, ok = s.leave(p, start, eta); !ok {
				return // every other peer would be later still
			}
			if start > s.top {
				p.passed = true
				continue
			}
		}
		if !s.ask(p, start) {
			if front || low != s.front {
				return
			}
			p.passed = true // the front has its own reserve: let another serve it
		}
	}
}

// requestLeft reports whether MaxRequests allows one more request, for h.
func (s *Scheduler) requestLeft(h int32) bool {
	// Only the next block to connect may use the reserve; see the package doc.
	if h != s.floor+1 {
		return s.live < s.cfg.MaxRequests-1
	}
	if s.live >= s.cfg.MaxRequests {
		s.reclaim()
	}
	return s.live < s.cfg.MaxRequests
}

// reclaim cancels the requests that would bring nothing new.
func (s *Scheduler) reclaim() {
	for _, p := range s.order {
		for _, r := range p.reqs {
			if r.cancelled || r.next == r.count {
				continue
			}
			from, to := max(r.nextH(), s.floor+1), min(r.last(), s.top)
			if s.got.nextClear(from, to) > to {
				s.cancel(p, r)
			}
		}
	}
}

// available reports whether the caps and back-offs of p allow a request now. The
// last request and the last block of the caps of a peer are for the front, so
// that a busy peer may still be asked for it.
func (s *Scheduler) available(p *peer, front bool) bool {
	reqs, blocks := s.cfg.MaxRequestsPerPeer, s.cfg.MaxBlocksPerPeer
	if !front {
		reqs, blocks = max(1, reqs-1), max(1, blocks-1)
	}
	return !p.dropped && s.now >= p.until && len(p.reqs) < reqs && p.blocks < blocks
}

// earliest returns the peer that would have answered a request made now first,
// and when, among those that may serve low or more.
func (s *Scheduler) earliest(low int32) (best *peer, eta time.Duration) {
	reach := s.reach()
	for _, p := range s.order {
		if p.passed || p.high < low || p.low > reach || !s.available(p, low == s.front) {
			continue
		}
		// The front may always be asked for: the quota binds the heights above it.
		if low != s.front && !s.quotaLeft(p) {
			continue
		}
		if t := s.eta(p); best == nil || t < eta || (t == eta && p.tie < best.tie) {
			best, eta = p, t
		}
	}
	return best, eta
}

// reach returns the highest height worth asking for: if all below it arrives
// first, its block still fits into memory.
func (s *Scheduler) reach() int32 {
	blocks := max(1, (s.cfg.MaxBytes-s.cfg.MaxBlockBytes)/s.avg)
	return int32(min(int64(s.top), int64(s.floor)+blocks))
}

// rateOf returns the bytes/s to expect of p, at least 1.
func (s *Scheduler) rateOf(p *peer) int64 {
	if p.rate == 0 {
		return s.guess
	}
	return p.rate
}

// eta returns how long p would take to send one more block.
func (s *Scheduler) eta(p *peer) time.Duration {
	return p.latency() + transfer(p.expect+s.avg, max(1, s.rateOf(p)*p.scale/fullScale))
}

// transfer returns how long n bytes take at rate bytes/s, at most an hour.
func transfer(n, rate int64) time.Duration {
	const most = time.Hour
	if n/rate >= int64(most/time.Second) {
		return most
	}
	return time.Duration(n*1e6/rate) * time.Microsecond
}

// volume returns the bytes that rate bytes/s bring in d, of which at most a
// minute counts.
func volume(rate int64, d time.Duration) int64 {
	return rate * int64(min(d, time.Minute)/time.Microsecond) / 1e6
}

// span returns how long one request should keep p busy, and how many such
// requests its quota should hold at least.
func (p *peer) span() (time.Duration, int64) {
	if d := pauseTimes * p.pause; d > chunkTime {
		return d, 2
	}
	return chunkTime, 4
}

// quota returns the bytes that may be expected of p at a time.
func (s *Scheduler) quota(p *peer) int64 {
	q := 2 * volume(s.rateOf(p), p.latency()+quotaSlack)
	if d, n := p.span(); d > chunkTime {
		q = max(q, n*volume(s.rateOf(p), d))
	}
	q += 2 * s.avg
	return min(q, s.cfg.MaxBytesPerPeer) * p.scale / fullScale
}

// chunk returns how many blocks one request to p should be for: enough to keep
// it busy for chunkTime, a part of its quota so that several are under way, and
// not so small a part that the caps on requests bind before the quota does.
func (s *Scheduler) chunk(p *peer) int {
	quota := s.quota(p)
	parts := int64(min(max(s.cfg.MaxRequests/len(s.order), 2), s.cfg.MaxRequestsPerPeer*3/4, 12))
	parts = max(parts, 1)
	span, share := p.span()
	bytes := min(volume(s.rateOf(p), span), quota/share)
	bytes = min(max(bytes, quota/parts), maxChunk)
	n := min(bytes/s.avg, int64(s.cfg.MaxCount), int64(s.cfg.MaxBlocksPerPeer/2))
	if !s.seen {
		n = min(n, coldCount)
	}
	return int(max(1, n))
}

// quotaLeft reports whether p may be asked for one more chunk. Less than a
// chunk is not worth a request: blocks leave the quota one by one, and each
// would be followed by a request for one block.
func (s *Scheduler) quotaLeft(p *peer) bool {
	if p.live == 0 {
		return true
	}
	if p.rate == 0 {
		return p.live < coldRequests // it may be dead
	}
	n := s.chunk(p)
	return p.expect+int64(n)*s.avg <= s.quota(p) && p.blocks+n < s.cfg.MaxBlocksPerPeer
}

// lowestFor returns the lowest missing height from low that p may be asked for,
// or one past the window.
func (s *Scheduler) lowestFor(p *peer, low int32) int32 {
	to := min(s.top, p.high)
	h := s.missing.next(max(low, p.low), to)
	for h <= to {
		end, lacks := p.lacking(s.now, h)
		if !lacks {
			return h
		}
		h = s.missing.next(end+1, to)
	}
	return s.top + 1
}

// leave returns the height that p, which would deliver at eta, is asked for
// when the heights from start that other peers deliver before that are left to
// them. It reports false if nothing is left for p inside the memory cap.
func (s *Scheduler) leave(p *peer, start int32, eta time.Duration) (int32, bool) {
	var ahead int64
	for _, o := range s.order {
		if o == p || o.rate == 0 || o.dropped || s.now < o.until || o.high < start || o.low > start {
			continue
		}
		if t := s.eta(o); t < eta {
			ahead = min(ahead+volume(o.rate, eta-t), 1<<50)
		}
	}
	room := int64(s.reach() - start)
	n := ahead / s.avg
	n -= n % int64(s.chunk(p)) // a hole smaller than a request would cost one of its own
	if n > room {
		if p.live > 0 || s.now-p.idleSince < probeAfter {
			return 0, false
		}
		n = room * 3 / 4
	}
	if n == 0 {
		return start, true
	}
	reach := s.reach()
	h := s.missing.nth(start, reach, int(min(n, math.MaxInt32)))
	if h > reach {
		if p.live > 0 || s.now-p.idleSince < probeAfter {
			return 0, false
		}
		h = start // few are left: try it here, hedging covers a failure
	}
	return s.lowestFor(p, h), true
}

// ask asks p for a run of heights from start. It reports false if MaxBytes or
// the window has no room; if only p has none, p is passed over.
func (s *Scheduler) ask(p *peer, start int32) bool {
	n := s.runFor(p, start)
	if start != s.front && start-s.floor > s.cfg.Window/2 && s.top < s.best && start+n > s.top && int(n) < s.chunk(p) {
		return false // the window moves on height by height: wait for a whole chunk
	}
	promise := s.promise(start, n)
	peerRoom := s.cfg.MaxBytesPerPeer - p.promised
	room := s.cfg.MaxBytes - s.cfg.MaxBlockBytes - s.held()
	whole := n
	for n > 1 && promise > min(room, peerRoom) {
		n /= 2
		promise = s.promise(start, n)
	}
	if n < whole/2 && p.live > 0 && start != s.front {
		// Memory empties block by block: many tiny requests would cost more than to
		// wait, and the peer has enough to do.
		if room < peerRoom {
			return false
		}
		p.passed = true
		return true
	}
	if promise > peerRoom {
		p.passed = true
		return true
	}
	if promise > room {
		if start != s.floor+1 || !s.makeRoom(promise) {
			return false
		}
	}
	s.request(p, start, n, promise, false)
	return true
}

// makeRoom sees to it that promise fits for the block after the floor and
// reports whether it does. The next block to connect may use all of MaxBytes:
// its verdict comes first and gives it back. A block after others that are on
// disk and wait for their verdict may not (if one of them turns out to be lost,
// the memory must still hold that one), so what is far ahead makes way for it.
func (s *Scheduler) makeRoom(promise int64) bool {
	limit := s.cfg.MaxBytes
	if s.floor > s.connected {
		limit = max(limit-s.cfg.MaxBlockBytes, promise)
	}
	if s.held()+promise > limit {
		s.reclaim()
	}
	for h := s.top; h > s.front && s.held()+promise > limit; h-- {
		x := s.slot(h)
		for _, p := range s.order {
			if r := s.owes(p, h); x.owners > 0 && r != nil {
				s.cancel(p, r)
			}
		}
		if x.state == buffered {
			s.release(h)
			s.want(h)
		}
	}
	return s.held()+promise <= limit
}

// runFor returns how many blocks from start p should be asked for, at least 1.
func (s *Scheduler) runFor(p *peer, start int32) int32 {
	if s.slot(start).need > 0 {
		return 1
	}
	most := int64(min(s.chunk(p), s.cfg.MaxBlocksPerPeer-p.blocks))
	end := min(int64(start)+most-1, int64(s.top), int64(p.high), int64(p.lacksFrom(s.now, start))-1)
	end = int64(s.missing.nextClear(start, int32(end))) - 1
	for h := start + 1; int64(h) <= end; h++ {
		if s.slot(h).need > 0 {
			return h - start
		}
	}
	return int32(end) - start + 1
}

// promise returns the MaxBytes with which n blocks from start are asked for.
func (s *Scheduler) promise(start, n int32) int64 {
	if need := s.slot(start).need; need > 0 {
		return need
	}
	// One block may be as large as any seen lately; the sum of many differs from
	// n·avg by about the square root of n times what one does.
	spread := max(s.peak+s.peak*s.margin/marginMost-s.avg, s.avg/8, 64)
	// But no more than a few times what is expected: if all of them are large, the
	// reply would hold up what was asked for after it. The one that does not fit
	// is asked for alone.
	likely := min(int64(n)*s.avg+root(n)*spread, int64(n)*s.cfg.MaxBlockBytes)
	if !s.seen {
		return likely
	}
	return min(likely, promiseTimes*int64(n)*s.avg+promiseSlack)
}

// root returns the square root of n, rounded up.
func root(n int32) int64 {
	r := int64(1)
	for r*r < int64(n) {
		r++
	}
	return r
}

// request asks p for n blocks from start.
func (s *Scheduler) request(p *peer, start, n int32, promise int64, hedge bool) {
	s.lastID++
	share := min(s.avg, promise/int64(n))
	if x := s.slot(start); x.need > 0 {
		if share = promise; x.unsaid {
			share = min(promise, max(s.peak, x.tooBig))
		}
	}
	r := &request{
		id: s.lastID, start: start, count: n, hedge: hedge, asked: s.now,
		promise: promise, share: share, expect: share * int64(n),
	}
	if hedge {
		r.charge = promise
		s.hedged += promise
	}
	r.alone = len(p.reqs) == 0
	p.reqs = append(p.reqs, r)
	p.blocks += int(n)
	p.promised += promise
	p.expect += r.expect
	if p.live++; p.live == 1 {
		p.busySince = s.now
	}
	s.live++
	s.promised += promise
	for h := start; h < start+n; h++ {
		x := s.slot(h)
		x.owners++
		x.attempts = min(x.attempts+1, math.MaxUint16-1)
		s.missing.clear(h)
	}
	s.act(Request{
		Peer: p.id, ID: r.id, Start: start, Count: int(n), MaxBytes: promise,
		Attempt: int(s.slot(start).attempts), Hedge: hedge,
	})
}
