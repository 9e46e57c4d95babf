package gossip

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Reasons of our own, in Stats beside those of Validate.
const (
	reasonTooLarge    = "too large"
	reasonStopping    = "stopping"
	reasonRate        = "peer over rate"
	reasonUnspecified = "unspecified"
	reasonOther       = "other"
)

// Reasons come from code, but a careless validator could put a hash into one.
const (
	maxReasons     = 64
	maxReasonBytes = 64
)

// topic is a Topic and what has happened on it.
type topic struct {
	Topic
	index     int           // among Options.Topics
	own       ownMessages   // being published
	slots     chan struct{} // a token a running Validate call
	meter     *meter
	line      line
	listeners peers // who said that it is on the topic

	received, accepted, duplicates, throttled, limited, published, dropped atomic.Uint64
	bytesIn, bytesOut, copies                                              atomic.Uint64
	ignored, rejected                                                      reasons
}

func newTopic(t Topic, index int) *topic {
	return &topic{
		Topic: t, index: index, slots: make(chan struct{}, t.Concurrency), meter: newMeter(t.PeerRate, t.MaxBytes),
		line: line{
			share: t.Concurrency + max(leastShare, t.Queue/queueShare), mostBytes: max(queueBytes, t.MaxBytes), of: make(map[peer.ID]int),
		},
	}
}

// validator is what pubsub calls for each new message: it checks the size, waits
// for its turn and asks Validate.
func (g *Gossip) validator(t *topic) pubsub.ValidatorEx {
	return func(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		if from == g.self {
			t.own.pass(sha256.Sum256(m.Data))
			return pubsub.ValidationAccept // Publish has checked it
		}
		if !g.calls.enter() {
			return pubsub.ValidationIgnore
		}
		defer g.calls.leave()
		if len(m.Data) > t.MaxBytes {
			t.received.Add(1)
			t.rejected.add(reasonTooLarge)
			g.accounts.spend(from, t.index)
			return pubsub.ValidationReject
		}
		if !t.meter.allow(from, len(m.Data), time.Now()) {
			t.received.Add(1)
			t.ignored.add(reasonRate)
			g.accounts.spend(from, t.index)
			return pubsub.ValidationIgnore
		}
		if !t.line.join(from, len(m.Data)) {
			t.throttled.Add(1)
			g.accounts.spend(from, t.index)
			return pubsub.ValidationIgnore
		}
		defer t.line.leave(from, len(m.Data))
		t.received.Add(1)
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			t.ignored.add(reasonStopping)
			return pubsub.ValidationIgnore
		}
		v := t.Validate(ctx, from, m.Data)
		<-t.slots
		switch v.Result {
		case Accept:
			t.accepted.Add(1)
			if v.Rival {
				m.ValidatorData = rival{} // for the tracer
			}
			return pubsub.ValidationAccept
		case Reject:
			t.rejected.add(v.Reason)
			g.accounts.spend(from, t.index)
			g.o.Logger.Debug("message rejected", "topic", t.Name, "peer", from, "bytes", len(m.Data), "reason", v.Reason)
			return pubsub.ValidationReject
		case Ignore:
		}
		t.ignored.add(v.Reason)
		g.accounts.spend(from, t.index)
		return pubsub.ValidationIgnore
	}
}

// ownMessages are those that Publish is handing to pubsub. pubsub says nothing when it
// swallows one that it knows: then it does not ask the validator.
type ownMessages struct {
	mu sync.Mutex // guards m, held for a map access
	m  map[[sha256.Size]byte]*ownMessage
}

type ownMessage struct {
	users  int // calls of Publish for the same bytes
	passed atomic.Bool
}

// begin is called before the message goes to pubsub, done after.
func (o *ownMessages) begin(id [sha256.Size]byte) (passed *atomic.Bool, done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = make(map[[sha256.Size]byte]*ownMessage)
	}
	m := o.m[id]
	if m == nil {
		m = new(ownMessage)
		o.m[id] = m
	}
	m.users++
	return &m.passed, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if m.users--; m.users == 0 {
			delete(o.m, id)
		}
	}
}

// pass notes that pubsub asked for the message.
func (o *ownMessages) pass(id [sha256.Size]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := o.m[id]; m != nil {
		m.passed.Store(true)
	}
}

// peers is a set of peers.
type peers struct {
	mu sync.Mutex // guards m, held for a map access
	m  map[peer.ID]struct{}
}

func (s *peers) set(p peer.ID, member bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !member {
		delete(s.m, p)
		return
	}
	if s.m == nil {
		s.m = make(map[peer.ID]struct{})
	}
	s.m[p] = struct{}{}
}

func (s *peers) has(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[p]
	return ok
}

func (s *peers) all() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.m))
}

func (s *peers) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m) == 0
}

// reasons counts by reason, a bounded number of them.
type reasons struct {
	mu sync.Mutex // guards m, held for a map access
	m  map[string]uint64
}

func (r *reasons) add(reason string) {
	if reason == "" {
		reason = reasonUnspecified
	}
	reason = reason[:min(len(reason), maxReasonBytes)]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = make(map[string]uint64)
	}
	if _, known := r.m[reason]; !known && len(r.m) >= maxReasons-1 {
		reason = reasonOther
	}
	r.m[reason]++
}

func (r *reasons) all() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.m)
}

// gate counts calls that are under way and can be closed for good.
type gate struct {
	mu     sync.Mutex // guards closed, held for an increment
	closed bool
	calls  sync.WaitGroup
}

// enter reports whether a call may begin; then leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.calls.Add(1)
	return true
}

func (g *gate) leave() { g.calls.Done() }

// close lets nobody in and waits for those who are.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.calls.Wait()
}
