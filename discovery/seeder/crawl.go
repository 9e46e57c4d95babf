package seeder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

const (
	probeTimeout    = 20 * time.Second
	candidatesEvery = time.Minute
	shortestTick    = 100 * time.Millisecond
	statusEvery     = time.Minute
	foreignFor      = 24 * time.Hour
	maxForeign      = 4096
	maxTaken        = 256 // peers of one report
	// One IP group of a public network has at most so many nodes: neither a report nor one machine
	// with many peer ids can fill the list.
	maxPerIPGroup = 64
	// Those that nodes have named, and those of Options.Candidates and Learn, have this part of MaxNodes each
	// until they answer: neither crowds out the other.
	newShare = 4
)

// counts are totals since the start.
type counts struct {
	probes, answered uint64
	failures         map[string]uint64
}

// crawl probes what is due until ctx ends.
func (s *Seeder) crawl(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	slots := make(chan struct{}, s.opts.Workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asked, told time.Time
	var last string
	for {
		now := time.Now()
		if s.opts.Candidates != nil && now.Sub(asked) >= candidatesEvery {
			asked = now
			for _, c := range s.opts.Candidates() {
				s.learn(c, byCandidates)
			}
		}
		picked, next := s.pick(now, cap(slots)-len(slots))
		for _, info := range picked {
			slots <- struct{}{} // there is room: only this goroutine fills it
			probes.Go(func() {
				defer func() { <-slots }()
				s.probe(ctx, info)
				signal(s.wake)
			})
		}
		if now.Sub(told) >= statusEvery {
			told = now
			st := s.Stats()
			if line := fmt.Sprint(st.Good, st.Known, st.Height); line != last {
				last = line
				s.log.Info("seeder", slog.Int("good", st.Good), slog.Int("known", st.Known), slog.Int("height", int(st.Height)),
					slog.Uint64("probes", st.Probes), slog.Uint64("answered", st.Answered), slog.Uint64("questions", st.Questions))
			}
		}
		timer.Reset(min(max(next.Sub(now), shortestTick), statusEvery))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pick returns up to limit nodes to probe now, those due longest first, marks them, and says when the
// next one is due.
func (s *Seeder) pick(now time.Time, limit int) (out []peer.AddrInfo, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type choice struct {
		n   *node
		due time.Time
	}
	var all []choice
	next = now.Add(time.Hour)
	for id, n := range s.nodes {
		if n.hopeless(now) {
			delete(s.nodes, id)
			continue
		}
		switch at := n.due(s.opts.Interval); {
		case n.busy:
		case at.After(now):
			next = earlier(next, at)
		default:
			all = append(all, choice{n, at})
		}
	}
	slices.SortFunc(all, func(a, b choice) int { return cmp.Or(a.due.Compare(b.due), a.n.first.Compare(b.n.first)) })
	for _, c := range all[:min(max(limit, 0), len(all))] { // one that must wait is woken for by the end of a probe
		c.n.busy = true
		out = append(out, peer.AddrInfo{ID: c.n.id, Addrs: slices.Clone(c.n.addrs)})
	}
	return out, next
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// probe probes one node and notes the outcome.
func (s *Seeder) probe(ctx context.Context, info peer.AddrInfo) {
	probeCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	rep, err := s.opts.Probe(probeCtx, info)
	cancel()
	now := time.Now()
	s.mu.Lock()
	n := s.nodes[info.ID]
	if n == nil {
		s.mu.Unlock()
		return
	}
	n.busy = false
	if ctx.Err() != nil { // we are stopping: it says nothing of the node
		s.mu.Unlock()
		return
	}
	n.probed(now, err == nil, s.opts.Interval)
	s.counts.probes++
	switch {
	case errors.Is(err, ErrForeign):
		s.failedLocked("foreign")
		s.forbidLocked(info.ID, now)
		if !n.fixed {
			delete(s.nodes, info.ID)
		}
	case err != nil:
		s.failedLocked("no_answer")
	default:
		s.counts.answered++
		n.height, n.agent, n.serves = rep.Height, printable(rep.Agent), rep.Serves
		if rep.Addr != nil {
			n.addrs = merge([]ma.Multiaddr{rep.Addr}, n.addrs)
		}
		for _, p := range rep.Peers[:min(len(rep.Peers), maxTaken)] {
			s.learnLocked(p, byNode)
		}
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Debug("probe failed", slog.String("peer", info.ID.String()), slog.Any("error", err))
	}
}

// failedLocked counts a failure by a reason out of a small set. The caller holds mu.
func (s *Seeder) failedLocked(reason string) {
	if s.counts.failures == nil {
		s.counts.failures = map[string]uint64{}
	}
	s.counts.failures[reason]++
}

// forbidLocked keeps a node from being learnt for a day. The caller holds mu.
func (s *Seeder) forbidLocked(id peer.ID, now time.Time) {
	if len(s.foreign) >= maxForeign {
		maps.DeleteFunc(s.foreign, func(_ peer.ID, until time.Time) bool { return now.After(until) })
	}
	if len(s.foreign) < maxForeign {
		s.foreign[id] = now.Add(foreignFor)
	}
}

// Learn notes nodes that the caller has found, at the address of a name say. They have the part of MaxNodes that those of
// Options.Candidates have.
func (s *Seeder) Learn(nodes ...peer.AddrInfo) {
	for _, n := range nodes {
		s.learn(n, byCandidates)
	}
}

// learn notes a node that somebody named.
func (s *Seeder) learn(info peer.AddrInfo, by origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learnLocked(info, by)
}

func (s *Seeder) learnLocked(info peer.AddrInfo, by origin) {
	fixed := by == byOperator
	if info.ID.Validate() != nil {
		return
	}
	now := time.Now()
	addrs := discovery.Dialable(info.Addrs, s.opts.Private || fixed)
	if until, ok := s.foreign[info.ID]; len(addrs) == 0 || ok && now.Before(until) && !fixed {
		return
	}
	if n := s.nodes[info.ID]; n != nil {
		n.fixed = n.fixed || fixed
		if n.fails == 0 && n.success > 0 {
			n.addrs = merge(n.addrs, addrs) // hearsay does not displace where it answers
		} else if !n.busy {
			n.addrs = merge(addrs, n.addrs)
		}
		return
	}
	if !fixed && !s.roomLocked(by, addrs[0]) {
		return
	}
	s.nodes[info.ID] = &node{id: info.ID, addrs: merge(addrs, nil), first: now, by: by, fixed: fixed}
	signal(s.wake)
}

// roomLocked makes place for one more node at addr, if there is any to be had: of those that never
// answered, ones that failed give way. The caller holds mu.
func (s *Seeder) roomLocked(by origin, addr ma.Multiaddr) bool {
	group, inGroup, same := discovery.IPGroup(addr), 0, 0
	var victim *node
	for _, n := range s.nodes {
		if !s.opts.Private && discovery.IPGroup(n.addrs[0]) == group {
			inGroup++
		}
		if n.success > 0 || n.fixed || n.by != by {
			continue
		}
		if same++; !n.busy && n.tries > 0 && (victim == nil || n.tries > victim.tries) {
			victim = n
		}
	}
	if inGroup >= maxPerIPGroup {
		return false
	}
	if len(s.nodes) < s.opts.MaxNodes && same < s.opts.MaxNodes/newShare {
		return true
	}
	if victim == nil {
		return false
	}
	delete(s.nodes, victim.id)
	return true
}

// printable bounds a text that comes from afar.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), maxAgentBytes)]
}

// Stats is a snapshot of a Seeder. Counts are since the start.
type Stats struct {
	Known     int    // nodes
	Answering int    // nodes whose last probe was answered
	Good      int    // nodes that newcomers are sent to
	Height    int32  // median of the good ones
	Probes    uint64 // ended
	Answered  uint64 // probes
	Failures  map[string]uint64
	Questions uint64            // DNS questions
	Replies   map[string]uint64 // DNS answers by kind: answer, nodata, nxdomain, refused, formerr, notimp, limited, dropped
}

// Stats returns a snapshot, which is the caller's.
func (s *Seeder) Stats() Stats {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	good := s.goodLocked(now)
	st := Stats{
		Known: len(s.nodes), Good: len(good), Height: s.best,
		Probes: s.counts.probes, Answered: s.counts.answered, Failures: maps.Clone(s.counts.failures),
	}
	for _, n := range s.nodes {
		if n.success > 0 && n.fails == 0 {
			st.Answering++
		}
	}
	st.Questions, st.Replies = s.limits.counts()
	return st
}

// goodLocked returns the good nodes, in no order. The caller holds mu.
func (s *Seeder) goodLocked(now time.Time) (good []*node) {
	var heights []int32
	for _, n := range s.nodes {
		if n.good(now, s.opts.Interval, n.height) {
			good = append(good, n)
			heights = append(heights, n.height)
		}
	}
	if len(good) == 0 {
		s.best = 0
		return nil
	}
	slices.Sort(heights)
	s.best = heights[len(heights)/2]
	return slices.DeleteFunc(good, func(n *node) bool { return !n.good(now, s.opts.Interval, s.best) })
}
