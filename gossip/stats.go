package gossip

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Stats counts since New. Fields are independent: a sum may be off by what is
// under way.
type Stats struct {
	Topics []TopicStats // by name
	// UnknownTopic counts messages of topics that are not ours; they are dropped
	// unread.
	UnknownTopic uint64
	// DroppedRPCs counts RPCs of all kinds lost because a peer's queue was full.
	DroppedRPCs uint64
	// BadFrames counts streams that were reset because a frame broke the limits.
	BadFrames uint64
	// ControlDropped counts message ids in control messages that were not looked
	// at because their peer had sent too many.
	ControlDropped uint64
	// OneWay counts RPCs that were dropped because their peer let this node open no
	// stream to it.
	OneWay uint64
	// Peers counts connected gossip peers by level.
	Peers map[Level]int
	// Blamed counts peers that have blame, connected or not.
	Blamed int
}

// TopicStats counts messages of other peers on one topic, and what was sent.
type TopicStats struct {
	Name       string
	Received   uint64            // new ones, taken up for validation
	Accepted   uint64            // and passed on
	Ignored    map[string]uint64 // by reason
	Rejected   map[string]uint64 // by reason, also pubsub's own ("unexpected signature")
	Duplicates uint64            // copies of what was seen
	Throttled  uint64            // lost because too many waited for validation
	Limited    uint64            // dropped unread because their peer's budget (Topic.Waste) was used up
	Published  uint64            // by Publish
	Copies     uint64            // put into peers' queues, of all messages
	Dropped    uint64            // copies lost because a peer's queue was full
	BytesIn    uint64            // payloads, copies included
	BytesOut   uint64            // payloads put into peers' queues
	Peers      int               // on the topic
	Mesh       int               // of them neighbours
}

// Stats returns the counters. While Run runs it asks pubsub's loop for the
// peers, which may take as long as the message in hand.
func (g *Gossip) Stats() Stats {
	s := Stats{
		UnknownTopic: g.tracer.unknown.Load(), DroppedRPCs: g.tracer.droppedRPCs.Load(), OneWay: g.tracer.oneWay.Load(),
		BadFrames: g.badFrames.Load(), ControlDropped: g.accounts.controlDropped.Load(),
		Peers: make(map[Level]int), Blamed: g.blames.count(),
	}
	if all := g.standings.Load(); all != nil {
		for p, snapshot := range *all {
			if g.tracer.linked(p) {
				s.Peers[level(snapshot.Score)]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.topics)) {
		t := g.topics[name]
		mesh, _ := g.tracer.neighbours(name)
		s.Topics = append(s.Topics, TopicStats{
			Name:       name,
			Received:   t.received.Load(),
			Accepted:   t.accepted.Load(),
			Ignored:    t.ignored.all(),
			Rejected:   t.rejected.all(),
			Duplicates: t.duplicates.Load(),
			Throttled:  t.throttled.Load(),
			Limited:    t.limited.Load(),
			Copies:     t.copies.Load(),
			Published:  t.published.Load(),
			Dropped:    t.dropped.Load(),
			BytesIn:    t.bytesIn.Load(),
			BytesOut:   t.bytesOut.Load(),
			Peers:      len(g.Peers(name)),
			Mesh:       mesh,
		})
	}
	return s
}

// tracer counts what pubsub does; pubsub calls it from its loop, so it only
// counts.
type tracer struct {
	topics                       map[string]*topic // fixed
	accounts                     *accounts
	unknown, droppedRPCs, oneWay atomic.Uint64

	mu      sync.Mutex // guards what follows, held for a map access
	links   map[peer.ID]struct{}
	mesh    map[string]map[peer.ID]struct{}
	merits  merits        // of the peers in links
	grafted chan struct{} // closed and replaced at each Graft
}

func newTracer(topics map[string]*topic, accounts *accounts) *tracer {
	return &tracer{
		topics: topics, accounts: accounts, grafted: make(chan struct{}),
		merits: newMerits(topics),
		links:  make(map[peer.ID]struct{}), mesh: make(map[string]map[peer.ID]struct{}, len(topics)),
	}
}

// linked reports whether there is a stream to the peer.
func (tr *tracer) linked(p peer.ID) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	_, ok := tr.links[p]
	return ok
}

// OnNewOutboundStream implements pubsub.RawTracer.
func (tr *tracer) OnNewOutboundStream(p peer.ID, _ protocol.ID) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.links[p] = struct{}{}
}

// neighbours returns how many the topic has, and a channel that is closed when
// any topic gets another.
func (tr *tracer) neighbours(topic string) (int, <-chan struct{}) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.mesh[topic]), tr.grafted
}

// Graft implements pubsub.RawTracer.
func (tr *tracer) Graft(p peer.ID, topic string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.mesh[topic] == nil {
		tr.mesh[topic] = make(map[peer.ID]struct{})
	}
	tr.mesh[topic][p] = struct{}{}
	close(tr.grafted)
	tr.grafted = make(chan struct{})
}

// Prune implements pubsub.RawTracer.
func (tr *tracer) Prune(p peer.ID, topic string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.mesh[topic], p)
}

// OnClosedOutboundStream implements pubsub.RawTracer: the peer leaves every
// mesh, without a Prune.
func (tr *tracer) OnClosedOutboundStream(p peer.ID) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.links, p)
	tr.merits.forget(p)
	for _, peers := range tr.mesh {
		delete(peers, p)
	}
}

// RejectMessage implements pubsub.RawTracer. What Validate decided is counted
// where it is called.
func (tr *tracer) RejectMessage(m *pubsub.Message, reason string) {
	t := tr.topics[m.GetTopic()]
	if t == nil {
		return
	}
	switch reason {
	case pubsub.RejectValidationFailed, pubsub.RejectValidationIgnored:
	case pubsub.RejectValidationThrottled:
		t.throttled.Add(1)
		tr.accounts.spend(m.ReceivedFrom, t.index) // it is marked as seen
	case pubsub.RejectValidationQueueFull:
		t.throttled.Add(1)
	default:
		t.rejected.add(reason)
	}
}

// DuplicateMessage implements pubsub.RawTracer.
func (tr *tracer) DuplicateMessage(m *pubsub.Message) { tr.duplicate(m, time.Now()) }

func (tr *tracer) duplicate(m *pubsub.Message, now time.Time) {
	t := tr.topics[m.GetTopic()]
	if t == nil {
		return
	}
	t.duplicates.Add(1)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if _, ok := tr.links[m.ReceivedFrom]; ok {
		tr.merits.copied(t.index, m.ReceivedFrom, m.ID, now)
	}
}

// DeliverMessage implements pubsub.RawTracer: the message was accepted.
func (tr *tracer) DeliverMessage(m *pubsub.Message) { tr.deliver(m, time.Now()) }

func (tr *tracer) deliver(m *pubsub.Message, now time.Time) {
	t := tr.topics[m.GetTopic()]
	if t == nil {
		return
	}
	_, rivals := m.ValidatorData.(rival)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if _, ok := tr.links[m.ReceivedFrom]; ok && !rivals { // never this node
		tr.merits.first(t.index, m.ReceivedFrom, m.ID, now)
	}
}

// merit is what a peer has earned on all topics.
func (tr *tracer) merit(p peer.ID, now time.Time) (points, first float64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.merits.of(p, now)
}

// RecvRPC implements pubsub.RawTracer.
func (tr *tracer) RecvRPC(rpc *pubsub.RPC) {
	for _, m := range rpc.GetPublish() {
		if t := tr.topics[m.GetTopic()]; t != nil {
			t.bytesIn.Add(uint64(len(m.GetData())))
		} else {
			tr.unknown.Add(1)
		}
	}
}

// SendRPC implements pubsub.RawTracer.
func (tr *tracer) SendRPC(rpc *pubsub.RPC, _ peer.ID) {
	for _, m := range rpc.GetPublish() {
		if t := tr.topics[m.GetTopic()]; t != nil {
			t.copies.Add(1)
			t.bytesOut.Add(uint64(len(m.GetData())))
		}
	}
}

// DropRPC implements pubsub.RawTracer.
func (tr *tracer) DropRPC(rpc *pubsub.RPC, _ peer.ID) {
	tr.droppedRPCs.Add(1)
	for _, m := range rpc.GetPublish() {
		if t := tr.topics[m.GetTopic()]; t != nil {
			t.dropped.Add(1)
		}
	}
}

// The rest of pubsub.RawTracer says nothing that is counted.

func (*tracer) OnNewIncomingStream(peer.ID, protocol.ID)    {}
func (*tracer) OnClosedIncomingStream(peer.ID, protocol.ID) {}
func (*tracer) Join(string)                                 {}
func (*tracer) Leave(string)                                {}
func (*tracer) ValidateMessage(*pubsub.Message)             {}
func (*tracer) ThrottlePeer(peer.ID)                        {}
func (*tracer) UndeliverableMessage(*pubsub.Message)        {}
