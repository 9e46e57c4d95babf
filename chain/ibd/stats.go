package ibd

import (
	"fmt"
	"time"
)

// servingFor is how long a peer counts as serving after its last bytes: between
// two requests it would not otherwise.
const servingFor = time.Second

// Stats returns a snapshot.
func (s *Scheduler) Stats() Stats {
	st := Stats{
		Requests:      s.live,
		RequestLimit:  s.cfg.MaxRequests,
		PromisedBytes: s.promised,
		BufferedBytes: s.buffered + s.delivered,
		InChain:       s.inChain,
		ByteLimit:     s.cfg.MaxBytes,
	}
	for _, p := range s.order {
		if p.dropped {
			continue
		}
		st.Peers++
		if p.live > 0 || p.lastBytes > 0 && s.now-p.lastBytes < servingFor {
			st.Serving++
		}
		if s.front <= s.top && s.owes(p, s.front) != nil {
			st.FrontRate = max(st.FrontRate, p.recent(s.now))
		}
	}
	if s.live == 0 {
		st.Reason = s.reason(st.Peers)
	}
	return st
}

// reason says why nothing is asked for; empty if nothing is missing.
func (s *Scheduler) reason(peers int) string {
	switch {
	case !s.haveTarget:
		return "no headers yet"
	case s.refused:
		return "a block was refused: waiting for another header chain"
	}
	h := s.missing.next(s.front, s.top)
	if h > s.top {
		switch {
		case s.floor == s.best:
			return ""
		case s.top < s.best:
			return fmt.Sprintf("window of %d blocks is full: waiting for validation of block %d", s.cfg.Window, s.floor+1)
		default:
			return fmt.Sprintf("waiting for validation of block %d", s.floor+1)
		}
	}
	if peers == 0 {
		return "no peers"
	}
	var serve, busy, failed, stalled, lacks, full int
	soonest := time.Duration(-1)
	wait := func(n *int, until time.Duration) {
		*n++
		if d := max(0, until-s.now); soonest < 0 || d < soonest {
			soonest = d
		}
	}
	for _, p := range s.order {
		if p.dropped || h < p.low || h > p.high {
			continue
		}
		serve++
		if s.now < p.until {
			switch p.why {
			case waitBusy:
				wait(&busy, p.until)
			case waitStalled:
				wait(&stalled, p.until)
			default:
				wait(&failed, p.until)
			}
			continue
		}
		if _, ok := p.lacking(s.now, h); ok {
			for _, l := range p.lacks {
				if l.from <= h && h <= l.to && s.now < l.until {
					wait(&lacks, l.until)
					break
				}
			}
			continue
		}
		if !s.available(p, h == s.front) {
			full++
		}
	}
	switch waiting := busy + failed + stalled + lacks; {
	case serve == 0:
		return fmt.Sprintf("no peer serves block %d", h)
	case waiting == serve:
		return fmt.Sprintf("block %d: of %d peers that serve it %s; next try in %s",
			h, serve, tally(busy, failed, stalled, lacks), soonest.Round(100*time.Millisecond))
	case full > 0 && waiting+full == serve:
		return fmt.Sprintf("block %d: cancelled requests still occupy the peers that serve it", h)
	}
	if s.held() > 0 {
		return fmt.Sprintf("memory cap of %d bytes: waiting for validation of block %d", s.cfg.MaxBytes, s.floor+1)
	}
	return fmt.Sprintf("block %d is about to be asked for", h)
}

// tally lists the counts that are not zero.
func tally(busy, failed, stalled, lacks int) string {
	text := ""
	for _, x := range []struct {
		n    int
		what string
	}{{busy, "busy"}, {failed, "failed lately"}, {stalled, "stalled lately"}, {lacks, "lack it"}} {
		if x.n == 0 {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", x.n, x.what)
	}
	return text
}
