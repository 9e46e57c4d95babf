package ibd

import (
	"slices"
	"time"
)

const (
	watchEvery   = 100 * time.Millisecond
	stallFirst   = time.Second     // shortest silence that is a stall
	stallUnknown = 2 * time.Second // of a peer whose rate is not known yet
	stallMost    = 64 * time.Second
	slowOver     = buckets * bucketTime // the holder of the front is judged over this long
	slowTimes    = 10                   // as long as the best of the others is too long for the front
	hedgeAfter   = 250 * time.Millisecond
	hedgeOwners  = 3
	hedgePercent = 3
)

// watch looks for peers that owe blocks and do not send, and gives what they
// owe to others.
func (s *Scheduler) watch() {
	s.rates = s.rates[:0]
	for _, p := range s.order {
		if p.rate > 0 {
			s.rates = append(s.rates, p.rate)
		}
	}
	if len(s.rates) > 0 {
		slices.Sort(s.rates)
		s.guess = s.rates[len(s.rates)/2]
	}
	// A silence is the peer's own only if somebody else was heard meanwhile.
	var last, second time.Duration
	var lastPeer *peer
	for _, p := range s.order {
		if p.lastBytes > last {
			last, second, lastPeer = p.lastBytes, last, p
		} else {
			second = max(second, p.lastBytes)
		}
	}
	for _, p := range s.order {
		if p.live == 0 {
			continue
		}
		others := last
		if p == lastPeer {
			others = second
		}
		since := max(p.lastBytes, p.lastDone, p.busySince)
		waited := s.now - since
		switch {
		case waited > s.patience(p):
			s.silent(p, waited, others > since)
		case s.slow(p):
			s.stalled(p, slowOver)
		}
	}
}

// patience returns how long p may be silent while it owes blocks.
func (s *Scheduler) patience(p *peer) time.Duration {
	least := stallFirst
	if p.rate == 0 {
		least = stallUnknown
	}
	share := s.avg
	if len(p.reqs) > 0 {
		share = max(share, p.reqs[0].share)
	}
	usual := 4 * (min(p.roundTrip(), mostAnswer) + transfer(share, s.rateOf(p)))
	return min(max(least, usual, 2*(p.latency()+p.pause)), stallMost)
}

// silent deals with p, which has sent nothing for too long. It is to blame if
// others sent something meanwhile. If nobody did because nobody was asked to,
// what p owes moves to a peer that is idle, without blame: our own link may be
// at fault.
func (s *Scheduler) silent(p *peer, waited time.Duration, others bool) {
	if others {
		s.stalled(p, waited)
		return
	}
	h := s.lowestOwed(p)
	for _, o := range s.order {
		if o != p && o.live == 0 && s.available(o, true) && h != 0 && s.lowestServed(o, h) {
			s.takeBack(p, waited)
			p.until, p.why = s.now+2*s.patience(p), waitStalled
			return
		}
	}
	// Nobody else can be asked: tell it, ever more rarely.
	if p.stallTold == 0 || s.now-p.stallTold > max(waited/2, 5*time.Second) {
		p.stallTold = s.now
		s.stalls = append(s.stalls, Stalled{Peer: p.id, Height: h, Waited: waited})
	}
}

// lowestServed reports whether o may be asked for h.
func (s *Scheduler) lowestServed(o *peer, h int32) bool {
	if h < o.low || h > o.high {
		return false
	}
	_, lacks := o.lacking(s.now, h)
	return !lacks
}

// slow reports whether p holds up the front: it was asked long ago, and at what it
// sends, the next block to connect would take it many times as long as the best
// of the others. The others may be as slow, or worse, so it is the best that
// counts, not what is usual.
func (s *Scheduler) slow(p *peer) bool {
	if s.front > s.top || s.now-p.busySince < slowOver {
		return false
	}
	r := s.owes(p, s.front)
	if r == nil || s.now-r.asked < slowOver {
		return false
	}
	left := s.remaining(p, r, max(1, p.recent(s.now)))
	if left < stallFirst {
		return false
	}
	for _, o := range s.order {
		if o != p && o.rate > 0 && s.available(o, true) && s.lowestServed(o, s.front) && left > slowTimes*s.eta(o) {
			return true
		}
	}
	return false
}

// owes returns the live request with which p owes h.
func (s *Scheduler) owes(p *peer, h int32) *request {
	for _, r := range p.reqs {
		if !r.cancelled && r.nextH() <= h && h <= r.last() {
			return r
		}
	}
	return nil
}

// newest returns the peer other than not that was asked for h last.
func (s *Scheduler) newest(h int32, not PeerID) *peer {
	var best *peer
	var id RequestID
	for _, p := range s.order {
		if p.id == not {
			continue
		}
		if r := s.owes(p, h); r != nil && r.id > id {
			best, id = p, r.id
		}
	}
	return best
}

// lowestOwed returns the lowest wanted height that p owes, or 0.
func (s *Scheduler) lowestOwed(p *peer) int32 {
	var low int32
	for _, r := range p.reqs {
		if r.cancelled {
			continue
		}
		to := min(r.last(), s.top)
		if h := s.got.nextClear(max(r.nextH(), s.floor+1), to); h <= to && (low == 0 || h < low) {
			low = h
		}
	}
	return low
}

// stalled takes back what p owes and trusts it with less for a while.
func (s *Scheduler) stalled(p *peer, waited time.Duration) {
	s.takeBack(p, waited)
	p.scale = max(1, p.scale/2)
	p.strikes = min(p.strikes+1, 5)
	p.until, p.why = s.now+s.jitter(min(backoffFirst<<p.strikes, backoffMost)), waitStalled
}

func (s *Scheduler) takeBack(p *peer, waited time.Duration) {
	if h := s.lowestOwed(p); h != 0 {
		s.stalls = append(s.stalls, Stalled{Peer: p.id, Height: h, Waited: waited})
	}
	for _, r := range p.reqs {
		if !r.cancelled {
			s.cancel(p, r)
		}
	}
}

// hedge asks a second or third peer for the block that the chain waits for.
func (s *Scheduler) hedge() {
	if s.refused || s.inChain > 0 || s.front > s.top || s.front != s.floor+1 {
		return
	}
	h := s.front
	n := int(s.slot(h).owners)
	if n == 0 || n >= hedgeOwners || s.live >= s.cfg.MaxRequests {
		return
	}
	var best, owner *peer
	var eta time.Duration
	var due *request // the newest request for h
	for _, p := range s.order {
		if r := s.owes(p, h); r != nil {
			if due == nil || r.id > due.id {
				due, owner = r, p
			}
			continue
		}
		if !s.available(p, true) || !s.lowestServed(p, h) {
			continue
		}
		if t := s.eta(p); best == nil || t < eta || (t == eta && p.tie < best.tie) {
			best, eta = p, t
		}
	}
	if best == nil || s.now-due.asked <= max(hedgeAfter, 2*eta) {
		return
	}
	if s.now-owner.lastBytes < hedgeAfter && s.remaining(owner, due, s.rateOf(owner)) <= eta {
		return // it is under way and will be here first
	}
	count := s.sharedRun(due, h)
	left := min(max(s.received*hedgePercent/100, s.cfg.MaxBlockBytes)-s.hedged,
		s.cfg.MaxBytes-s.held(), s.cfg.MaxBytesPerPeer-best.promised, s.cfg.MaxBlockBytes)
	count = min(count, int32(s.cfg.MaxBlocksPerPeer-best.blocks))
	promise := s.promise(h, count)
	for count > 1 && promise > left {
		count /= 2
		promise = s.promise(h, count)
	}
	if promise > left {
		return
	}
	s.request(best, h, count, promise, true)
	if waited := s.now - max(owner.lastBytes, owner.lastDone, owner.busySince); waited >= stallFirst {
		s.stalls = append(s.stalls, Stalled{Peer: owner.id, Height: h, Waited: waited, Asked: best.id})
	}
}

// sharedRun returns how many heights from h may be asked for in one hedge: those
// that only due will bring.
func (s *Scheduler) sharedRun(due *request, h int32) int32 {
	if s.slot(h).need > 0 {
		return 1
	}
	n := int32(1)
	for i := h + 1; i <= min(due.last(), s.top); i++ {
		if x := s.slot(i); x.state != wanted || x.owners != 1 || x.need > 0 {
			break
		}
		n++
	}
	return n
}

// remaining returns how long owner should still take over the next block of r at rate bytes/s.
func (s *Scheduler) remaining(owner *peer, r *request, rate int64) time.Duration {
	before := -max(0, r.arrived-r.frames) // of the block that is under way
	for _, o := range owner.reqs {
		if o.id == r.id {
			break
		}
		before += o.expect
	}
	return transfer(max(0, before+r.share), rate)
}
