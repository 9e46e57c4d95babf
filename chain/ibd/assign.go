package ibd

import (
	"math"
	"time"
)

// coldCount and coldRequests bound what is asked for before the first block
// has shown how large blocks are.
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
		if start <= s.top && start != s.front {
			if !s.quotaLeft(p) {
				p.passed = true
				continue
			}
			var ok bool
			if start, ok = s.leave(p, start, eta); !ok {
				return // every other peer would be later still
			}
		}
		if start > s.top {
			p.passed = true
			continue
		}
		if !s.ask(p, start) {
			return
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

// available reports whether the caps and back-offs of p allow a request now.
func (s *Scheduler) available(p *peer) bool {
	return !p.dropped && s.now >= p.until &&
		len(p.reqs) < s.cfg.MaxRequestsPerPeer && p.blocks < s.cfg.MaxBlocksPerPeer
}

// earliest returns the peer that would have answered a request made now first,
// and when, among those that may serve low or more.
func (s *Scheduler) earliest(low int32) (best *peer, eta time.Duration) {
	for _, p := range s.order {
		if p.passed || p.high < low || p.low > s.top || !s.available(p) {
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

// rateOf returns the bytes/s to expect of p, at least 1.
func (s *Scheduler) rateOf(p *peer) int64 {
	if p.rate == 0 {
		return s.guess
	}
	return p.rate
}

// eta returns how long p would take to send one more block.
func (s *Scheduler) eta(p *peer) time.Duration {
	return p.roundTrip() + transfer(p.expect+s.avg, max(1, s.rateOf(p)*p.scale/fullScale))
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

// quota returns the bytes that may be expected of p at a time.
func (s *Scheduler) quota(p *peer) int64 {
	q := 2*volume(s.rateOf(p), min(p.roundTrip(), 10*time.Second)+quotaSlack) + 2*s.avg
	return min(q, s.cfg.MaxBytesPerPeer) * p.scale / fullScale
}

// quotaLeft reports whether p may be asked for one more block.
func (s *Scheduler) quotaLeft(p *peer) bool {
	if p.live == 0 {
		return true
	}
	if !s.seen {
		return p.live < coldRequests
	}
	return p.expect+s.avg <= s.quota(p)
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
	room := (s.cfg.MaxBytes-s.cfg.MaxBlockBytes)/s.avg - int64(start-s.floor)
	n := ahead / s.avg
	if n > room {
		if p.live > 0 || s.now-p.idleSince < probeAfter || room <= 0 {
			return 0, false
		}
		n = room * 3 / 4
	}
	if n == 0 {
		return start, true
	}
	h := s.missing.nth(start, s.top, int(min(n, math.MaxInt32)))
	if h > s.top {
		if p.live > 0 || s.now-p.idleSince < probeAfter {
			return 0, false
		}
		h = start // the end of the chain: try it here, hedging covers a failure
	}
	return s.lowestFor(p, h), true
}

// ask asks p for a run of heights from start. It reports false if MaxBytes has
// no room; if only p has none, p is passed over.
func (s *Scheduler) ask(p *peer, start int32) bool {
	n := s.runFor(p, start)
	promise := s.promise(start, n)
	peerRoom := s.cfg.MaxBytesPerPeer - p.promised
	room := s.cfg.MaxBytes - s.cfg.MaxBlockBytes - s.held()
	for n > 1 && promise > min(room, peerRoom) {
		n /= 2
		promise = s.promise(start, n)
	}
	if promise > peerRoom {
		p.passed = true
		return true
	}
	if promise > room {
		if start != s.floor+1 {
			return false
		}
		if s.held()+promise > s.cfg.MaxBytes {
			s.reclaim()
		}
		if s.held()+promise > s.cfg.MaxBytes {
			return false
		}
	}
	s.request(p, start, n, promise, false)
	return true
}

// runFor returns how many blocks from start p should be asked for, at least 1.
func (s *Scheduler) runFor(p *peer, start int32) int32 {
	if s.slot(start).need > 0 {
		return 1
	}
	most := int64(min(s.cfg.MaxCount, s.cfg.MaxBlocksPerPeer-p.blocks))
	if !s.seen {
		most = min(most, coldCount)
	}
	quota := s.quota(p)
	// A twelfth of the quota at least: the whole must fit into 16 requests.
	chunk := min(max(volume(s.rateOf(p), chunkTime), quota/12), maxChunk, max(quota-p.expect, 0))
	most = max(1, min(most, chunk/s.avg))
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
	spread := max(s.peak+s.peak/8-s.avg, s.avg/8, 64)
	return min(int64(n)*s.avg+root(n)*spread, int64(n)*s.cfg.MaxBlockBytes)
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
	if s.slot(start).need > 0 {
		share = promise
	}
	r := &request{
		id: s.lastID, start: start, count: n, hedge: hedge, asked: s.now,
		promise: promise, share: share, expect: share * int64(n),
	}
	if hedge {
		r.charge = promise
		s.hedged += promise
	}
	p.reqs = append(p.reqs, r)
	p.blocks += int(n)
	p.promised += promise
	p.expect += r.expect
	if p.live++; p.live == 1 {
		p.busy(s.now)
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
