package ibd

import (
	"fmt"
	"strings"
	"time"
)

// checker is a second bookkeeping of what a Scheduler may have outstanding, made
// only from the events and actions that pass by, plus a look at its private
// state. Every test that drives a Scheduler drives it through one.
type checker struct {
	s    *Scheduler
	now  time.Time
	reqs map[RequestID]*owed
	// bufs are the blocks that a driver would hold.
	bufs map[blockKey]int64
	// chain are the blocks delivered and not answered.
	chain map[int32]int64

	accepted  map[blockKey]bool
	low       int32 // nothing at or below it is in chain
	delivered int32 // last height delivered in order
	redeliver map[int32]bool
	dropped   map[PeerID]string
	trace     *strings.Builder
	every     int // check after every so many steps; 0 is 1
	steps     int

	peakBytes, dupBytes, gotBytes int64
	peakReqs                      int
}

type blockKey struct {
	id RequestID
	h  int32
}

type owed struct {
	Request
	left      int64
	next      int
	cancelled bool
}

var epoch = time.Unix(1_700_000_000, 0).UTC()

func newChecker(cfg Config) (*checker, error) {
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &checker{
		s: s, now: epoch, reqs: map[RequestID]*owed{}, bufs: map[blockKey]int64{}, chain: map[int32]int64{},
		accepted: map[blockKey]bool{}, redeliver: map[int32]bool{}, dropped: map[PeerID]string{},
	}, nil
}

// step passes e on and returns a copy of the actions, or an error that names the
// invariant that broke.
func (c *checker) step(e Event) ([]Action, error) {
	s := c.s
	var sent *owed
	switch e := e.(type) {
	case Target:
		c.low = 0
		if s.haveTarget {
			keep := min(e.Keep, s.best, e.Best)
			for h := range c.chain {
				if h > keep {
					delete(c.chain, h)
				}
			}
			c.delivered = min(c.delivered, keep)
		} else {
			c.delivered = e.Base
		}
	case Block:
		if r := c.reqs[e.ID]; r != nil && r.Peer == e.Peer && c.dropped[e.Peer] == "" && !r.cancelled {
			sent = r
		}
		// The driver keeps a block until told otherwise.
		c.bufs[blockKey{e.ID, e.Height}] = e.Size
	case Done:
		if r := c.reqs[e.ID]; r != nil && r.Peer == e.Peer {
			delete(c.reqs, e.ID)
		}
	case PeerGone:
		for id, r := range c.reqs {
			if r.Peer == e.Peer {
				delete(c.reqs, id)
			}
		}
		delete(c.dropped, e.Peer)
	case Connected:
		c.answered(e.Height)
		c.delivered = max(c.delivered, e.Height)
	case Stored:
		c.answered(e.Height)
	case Rejected:
		c.low = min(c.low, e.Height-1)
		delete(c.chain, e.Height)
		c.redeliver[e.Height] = true
	}
	actions := append([]Action(nil), s.Step(c.now, e)...)
	if c.trace != nil {
		fmt.Fprintf(c.trace, "%v %T%+v -> %+v\n", c.now.Sub(epoch), e, e, actions)
	}
	if t, ok := e.(Target); ok {
		for h := range c.chain { // handed over to the disk
			for _, x := range t.Have {
				if x[0] <= h && h <= x[1] {
					delete(c.chain, h)
				}
			}
			if h <= s.connected {
				delete(c.chain, h)
			}
		}
		c.delivered = max(c.delivered, s.connected)
	}
	discarded := map[blockKey]bool{}
	for _, a := range actions {
		switch a := a.(type) {
		case Request:
			if c.reqs[a.ID] != nil || a.Count < 1 || a.MaxBytes < 1 || a.Attempt < 1 {
				return nil, fmt.Errorf("bad request %+v", a)
			}
			if c.dropped[a.Peer] != "" {
				return nil, fmt.Errorf("dropped peer asked: %+v", a)
			}
			if a.Start <= s.floor || int64(a.Start)+int64(a.Count)-1 > min(int64(s.floor)+int64(s.cfg.Window), int64(s.best)) {
				return nil, fmt.Errorf("%+v outside the window (%d, +%d] or above %d", a, s.floor, s.cfg.Window, s.best)
			}
			if a.Count > s.cfg.MaxCount || a.MaxBytes > int64(a.Count)*s.cfg.MaxBlockBytes {
				return nil, fmt.Errorf("%+v is too large", a)
			}
			c.reqs[a.ID] = &owed{Request: a, left: a.MaxBytes}
		case Cancel:
			r := c.reqs[a.ID]
			if r == nil || r.cancelled || r.Peer != a.Peer {
				return nil, fmt.Errorf("cancel of what is not outstanding: %+v", a)
			}
			r.cancelled = true
		case Deliver:
			k := blockKey{a.ID, a.Height}
			size, ok := c.bufs[k]
			if !ok {
				return nil, fmt.Errorf("%+v: the driver has no such block", a)
			}
			delete(c.bufs, k)
			c.chain[a.Height] = size
			if c.redeliver[a.Height] {
				delete(c.redeliver, a.Height)
			} else {
				if a.Height <= c.delivered {
					return nil, fmt.Errorf("%+v after height %d", a, c.delivered)
				}
				for h := c.delivered + 1; h < a.Height; h++ {
					if _, disk := s.disk.around(h); !disk && h > s.connected {
						return nil, fmt.Errorf("%+v without %d before it", a, h)
					}
				}
			}
			c.delivered = max(c.delivered, a.Height)
		case Discard:
			k := blockKey{a.ID, a.Height}
			if _, ok := c.bufs[k]; !ok {
				return nil, fmt.Errorf("%+v: the driver has no such block", a)
			}
			c.dupBytes += c.bufs[k]
			delete(c.bufs, k)
			discarded[k] = true
		case Drop:
			c.dropped[a.Peer] = a.Reason
			for id, r := range c.reqs {
				if r.Peer == a.Peer {
					delete(c.reqs, id)
				}
			}
		case Stalled:
			if a.Asked == a.Peer {
				return nil, fmt.Errorf("%+v: asked itself", a)
			}
		}
	}
	if b, ok := e.(Block); ok && sent != nil && c.reqs[b.ID] == sent {
		sent.next++
		sent.left -= b.Size
		c.gotBytes += b.Size
	}
	if c.steps++; c.every > 1 && c.steps%c.every != 0 {
		return actions, nil
	}
	return actions, c.check()
}

// answered forgets the delivered blocks up to h.
func (c *checker) answered(h int32) {
	for ; c.low < h; c.low++ {
		delete(c.chain, c.low+1)
	}
}

func (c *checker) check() error {
	s := c.s
	type load struct {
		reqs, blocks int
		bytes        int64
	}
	per := map[PeerID]load{}
	var live int
	var promised, held int64
	for _, r := range c.reqs {
		left := min(r.left, int64(r.Count-r.next)*s.cfg.MaxBlockBytes)
		l := per[r.Peer]
		l.reqs++
		l.blocks += r.Count - r.next
		l.bytes += left
		per[r.Peer] = l
		if !r.cancelled {
			live++
			promised += left
		}
	}
	for id, l := range per {
		if l.reqs > s.cfg.MaxRequestsPerPeer || l.blocks > s.cfg.MaxBlocksPerPeer || l.bytes > s.cfg.MaxBytesPerPeer {
			return fmt.Errorf("peer %s owes %+v, caps %+v", id, l, s.cfg)
		}
		if p := s.peers[id]; p == nil || len(p.reqs) != l.reqs || p.blocks != l.blocks || p.promised != l.bytes {
			return fmt.Errorf("peer %s owes %+v, the scheduler counts %+v", id, l, p)
		}
	}
	for _, n := range c.bufs {
		held += n
	}
	for _, n := range c.chain {
		held += n
	}
	c.peakReqs = max(c.peakReqs, live)
	c.peakBytes = max(c.peakBytes, promised+held)
	if live > s.cfg.MaxRequests {
		return fmt.Errorf("%d requests, cap %d", live, s.cfg.MaxRequests)
	}
	if promised+held > s.cfg.MaxBytes {
		return fmt.Errorf("%d bytes promised and %d held, cap %d", promised, held, s.cfg.MaxBytes)
	}
	st := s.Stats()
	if st.Requests != live || st.PromisedBytes != promised || st.BufferedBytes != held {
		return fmt.Errorf("stats %+v, counted %d requests, %d promised, %d held", st, live, promised, held)
	}
	return c.checkHeights()
}

// checkHeights checks that no height of the window is lost.
func (c *checker) checkHeights() error {
	s := c.s
	if !s.haveTarget {
		return nil
	}
	if s.floor < s.connected || s.top < s.floor || s.top > s.best && s.top > s.floor ||
		s.front <= s.floor || s.front > s.top+1 || int64(s.top)-int64(s.floor) > int64(s.cfg.Window) {
		return fmt.Errorf("connected %d floor %d front %d top %d best %d", s.connected, s.floor, s.front, s.top, s.best)
	}
	if s.top != int32(min(int64(s.floor)+int64(s.cfg.Window), int64(max(s.best, s.floor)))) {
		return fmt.Errorf("top %d with floor %d, best %d", s.top, s.floor, s.best)
	}
	owners := map[int32]uint8{}
	for _, p := range s.order {
		for _, r := range p.reqs {
			for h := r.nextH(); !r.cancelled && h <= r.last(); h++ {
				owners[h]++
			}
		}
	}
	for h := s.floor + 1; h <= s.top; h++ {
		x := s.slot(h)
		if x.owners != owners[h] || x.owners > hedgeOwners {
			return fmt.Errorf("height %d: %d owners, counted %d", h, x.owners, owners[h])
		}
		if s.got.has(h) != (x.state != wanted) || s.missing.has(h) != (x.state == wanted && x.owners == 0) {
			return fmt.Errorf("height %d is lost: %+v, got %v, missing %v", h, *x, s.got.has(h), s.missing.has(h))
		}
		if h < s.front && !s.got.has(h) || h == s.front && s.got.has(h) && !s.refused {
			return fmt.Errorf("front %d, height %d %+v", s.front, h, *x)
		}
	}
	return nil
}
