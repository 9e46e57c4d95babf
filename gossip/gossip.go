// Package gossip floods opaque messages over topics: GossipSub with limits,
// scoring and counts, and with errors where pubsub has none. It stands alone on
// libp2p; what a payload means is for the topic's Validate to say.
//
// It is no store and no queue: a message that nobody listened to, that was
// ignored, or that came while all validators were busy, is gone for SeenTTL.
// Callers heal that by other means (the node pulls blocks by hash and height).
//
// Invariants:
//   - Only the topics of Options exist; what others subscribe to is not kept.
//   - A message that is longer than its topic allows is never passed on nor
//     shown to Validate. One at the limit arrives whole.
//   - A message's id is the SHA-256 of its payload. Messages have no author, no
//     number and no signature; one that has is refused.
//   - Nothing is called after Run has returned.
//
// docs/protocol-gossip.md has the wire protocol.
package gossip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// What Publish and the others return, for errors.Is.
var (
	ErrTooLarge     = errors.New("message is larger than its topic allows")
	ErrNobody       = errors.New("nobody listens to the topic")
	ErrUnknownTopic = errors.New("unknown topic")
	ErrNotRunning   = errors.New("gossip is not running")
)

// Result is what Validate decides about a message.
type Result int

// The results. The zero value is the harmless one.
const (
	Ignore Result = iota // do not pass on; nobody is at fault
	Accept               // pass on
	Reject               // do not pass on; whoever sent it is at fault: only what is provably invalid
)

// Verdict is a result and, unless it is Accept, why, for Stats: a few words that
// do not depend on the message ("unknown parent").
type Verdict struct {
	Result Result
	Reason string
}

// Limits and defaults.
const (
	MaxTopics      = 16
	MaxTopicBytes  = 64 << 20 // of one message
	MaxNameBytes   = 128      // of a topic
	maxConcurrency = 64

	defaultSeenTTL     = 2 * time.Minute
	defaultDegree      = 5
	defaultConcurrency = 2
	defaultQueue       = 256
	maxQueue           = 8192
	queueBytes         = 32 << 20
	// queueShare is the part of a topic's queue that one peer may fill, and
	// leastShare what it may have there anyhow.
	queueShare = 4
	leastShare = 4
	// arrivals is the queue between pubsub's loop and its workers, which only start
	// validations. pubsub's 32 overflowed when one frame brought a hundred small
	// messages.
	arrivals = 2048

	// frameSlack is the room beside the largest payload in an RPC: the topic's
	// name and control messages that ride along.
	frameSlack = 64 << 10

	// meshWait is how long Publish waits for a first neighbour: a peer that has
	// just joined becomes one at the next heartbeat (1 s), and its answer travels.
	meshWait = 2500 * time.Millisecond

	// outboundRPCs is the queue to one peer. pubsub's 32 overflowed at 60 KB and
	// 16 neighbours; messages are shared between queues, so more cost little. At
	// 500 small messages a second this is a second of a link that stands still.
	outboundRPCs = 512
)

// Topic is one topic of the network.
type Topic struct {
	Name     string
	MaxBytes int // of a payload; required

	// Concurrency is how many Validate calls run at once; default 2. Keep it
	// small for anything that decodes.
	Concurrency int
	// Queue is how many messages wait for a Validate call, a quarter of them of one
	// peer; beyond, or beyond 32 MiB together, they are dropped and counted as
	// Throttled. Default: as many of the largest as fit into 32 MiB, at most 256
	// and at least 4. At most 8192.
	Queue int
	// PeerRate bounds what one peer may send.
	PeerRate Rate

	// Validate judges a message of another peer before it is passed on. It must
	// return soon: the message waits. from sent it and need not have made it.
	// data must not be changed and may be kept. ctx ends with Run. It is called
	// once for a payload within SeenTTL, from several goroutines, and not for
	// what Publish sends.
	Validate func(ctx context.Context, from peer.ID, data []byte) Verdict
}

// Options configure New. Zero values mean the default given.
type Options struct {
	Host   host.Host // required; the caller closes it, after Run has returned
	Topics []Topic   // required, at most 16

	// Private says that nodes may share addresses (testnets, containers, NAT):
	// peers are not marked down for that.
	Private bool
	// Direct peers are sent every message and kept connected, outside the mesh;
	// they should have this peer as a direct one too.
	Direct []peer.AddrInfo
	// SeenTTL is how long a payload is known and not looked at again; default
	// 2 min. It bounds what a flood costs, and the memory of message ids.
	SeenTTL time.Duration
	// Degree is the number of mesh neighbours wanted a topic; default 5, from 4
	// to 12. Bytes sent grow with it, delay hardly shrinks.
	Degree int
	// PeerExchange tells pruned peers of others. For seeds only.
	PeerExchange bool

	// OnTopicPeer is called when a peer has joined a topic, from one goroutine a
	// topic: the time to publish again what found nobody.
	OnTopicPeer func(topic string, p peer.ID)
	// AppScore is added to a peer's score, for what it does on other protocols:
	// 0 is neutral, -16,000 stops listening to it. It is called from pubsub's
	// loop and must neither block nor call back. Default: 0 for all.
	AppScore func(peer.ID) float64

	// Logger also gets pubsub's own lines; a peer can repeat some of those at
	// warn, so thin them out. Default: none.
	Logger *slog.Logger
}

// complete fills in defaults and reports every fault.
func (o *Options) complete() error {
	var errs []error
	if o.Host == nil {
		errs = append(errs, errors.New("no host"))
	}
	if len(o.Topics) == 0 || len(o.Topics) > MaxTopics {
		errs = append(errs, fmt.Errorf("%d topics: want 1 to %d", len(o.Topics), MaxTopics))
	}
	o.Topics = slices.Clone(o.Topics)
	names := make(map[string]bool, len(o.Topics))
	for i := range o.Topics {
		t := &o.Topics[i]
		if t.Name == "" || len(t.Name) > MaxNameBytes || names[t.Name] {
			errs = append(errs, fmt.Errorf("topic %q: want a name of at most %d bytes, once", t.Name, MaxNameBytes))
		}
		names[t.Name] = true
		errs = append(errs, t.complete())
	}
	if o.SeenTTL == 0 {
		o.SeenTTL = defaultSeenTTL
	}
	if o.SeenTTL < time.Second {
		errs = append(errs, fmt.Errorf("seen TTL %v: want at least 1 s", o.SeenTTL))
	}
	if o.Degree == 0 {
		o.Degree = defaultDegree
	}
	if o.Degree < 4 || o.Degree > 12 {
		errs = append(errs, fmt.Errorf("degree %d: want 4 to 12", o.Degree))
	}
	if o.OnTopicPeer == nil {
		o.OnTopicPeer = func(string, peer.ID) {}
	}
	if o.AppScore == nil {
		o.AppScore = func(peer.ID) float64 { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

func (t *Topic) complete() error {
	var errs []error
	if t.MaxBytes < 1 || t.MaxBytes > MaxTopicBytes {
		errs = append(errs, fmt.Errorf("topic %q: max bytes %d: want 1 to %d", t.Name, t.MaxBytes, MaxTopicBytes))
	}
	if t.Concurrency == 0 {
		t.Concurrency = defaultConcurrency
	}
	if t.Concurrency < 0 || t.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("topic %q: concurrency %d: want 1 to %d", t.Name, t.Concurrency, maxConcurrency))
	}
	if t.Queue == 0 {
		t.Queue = min(defaultQueue, max(4, queueBytes/max(t.MaxBytes, 1)))
	}
	if t.Queue < 0 || t.Queue > maxQueue {
		errs = append(errs, fmt.Errorf("topic %q: queue %d: want 1 to %d", t.Name, t.Queue, maxQueue))
	}
	if err := t.PeerRate.complete(); err != nil {
		errs = append(errs, fmt.Errorf("topic %q: %w", t.Name, err))
	}
	if t.Validate == nil {
		errs = append(errs, fmt.Errorf("topic %q: no Validate", t.Name))
	}
	return errors.Join(errs...)
}

// Gossip is a node's part in the topics. Its methods may be called from any
// goroutine, also before and after Run.
type Gossip struct {
	o       Options
	self    peer.ID
	topics  map[string]*topic // fixed after New
	tracer  *tracer
	calls   gate
	started atomic.Bool
	ready   chan struct{}
	running atomic.Pointer[running]
	scores  atomic.Pointer[map[peer.ID]float64]
}

// running is what exists only while Run runs.
type running struct {
	ps      *pubsub.PubSub
	handles map[string]*pubsub.Topic
}

// New checks the options. It starts nothing.
func New(o Options) (*Gossip, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("gossip options: %w", err)
	}
	g := &Gossip{o: o, self: o.Host.ID(), topics: make(map[string]*topic, len(o.Topics)), ready: make(chan struct{})}
	for _, t := range o.Topics {
		g.topics[t.Name] = newTopic(t)
	}
	g.tracer = &tracer{topics: g.topics, grafted: make(chan struct{}), mesh: make(map[string]map[peer.ID]struct{}, len(g.topics))}
	return g, nil
}

// Protocols are the protocol ids that Run serves, newest first: for the limits
// of the host (a peer needs one inbound stream of one of them, and a second
// while it reconnects).
func Protocols() []protocol.ID {
	// Not 1.0 nor floodsub: both lack what keeps a peer from being sent, or from
	// sending, everything.
	return []protocol.ID{pubsub.GossipSubID_v13, pubsub.GossipSubID_v12, pubsub.GossipSubID_v11}
}

// Run joins the topics and takes part until ctx ends, then returns nil, or an
// error if it could not start. It can be called once.
func (g *Gossip) Run(ctx context.Context) error {
	if !g.started.CompareAndSwap(false, true) {
		return errors.New("gossip: Run was called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := g.join(ctx)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	var watchers sync.WaitGroup
	for name, h := range r.handles {
		events, err := h.EventHandler()
		if err != nil {
			// Only if ctx ended meanwhile.
			break
		}
		watchers.Go(func() {
			defer events.Cancel()
			g.watch(ctx, name, events)
		})
	}
	g.running.Store(r)
	close(g.ready)

	<-ctx.Done()
	g.running.Store(nil)
	for _, id := range Protocols() {
		g.o.Host.RemoveStreamHandler(id)
	}
	watchers.Wait()
	// pubsub ends its goroutines with ctx and lets nobody wait for them; what
	// matters is that none of them calls us any more.
	g.calls.close()
	return nil
}

// Ready is closed when Run takes part: Publish works from then on.
func (g *Gossip) Ready() <-chan struct{} { return g.ready }

// join builds pubsub, which starts its goroutines, and enters the topics.
func (g *Gossip) join(ctx context.Context) (*running, error) {
	names := slices.Sorted(maps.Keys(g.topics))
	largest, validations := 0, 0
	for _, t := range g.topics {
		largest = max(largest, t.MaxBytes)
		validations += t.Concurrency + t.Queue
	}
	opts := []pubsub.Option{
		pubsub.WithGossipSubProtocols(Protocols(), pubsub.GossipSubDefaultFeatures),
		pubsub.WithGossipSubParams(meshParams(g.o.Degree)),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(
			pubsub.NewAllowlistSubscriptionFilter(names...), maxSubscriptions)),
		pubsub.WithMaxMessageSize(largest + frameSlack),
		pubsub.WithPeerOutboundQueueSize(outboundRPCs),
		pubsub.WithSeenMessagesTTL(g.o.SeenTTL),
		pubsub.WithValidateThrottle(validations),
		pubsub.WithValidateQueueSize(arrivals),
		pubsub.WithPeerScore(scoreParams(&g.o), scoreThresholds()),
		// After WithPeerScore, says its documentation.
		pubsub.WithPeerScoreInspect(func(scores map[peer.ID]float64) { g.scores.Store(&scores) }, scoreInterval),
		pubsub.WithPeerExchange(g.o.PeerExchange),
		pubsub.WithRawTracer(g.tracer),
		pubsub.WithLogger(g.o.Logger),
		pubsub.WithRPCLogger(g.o.Logger),
	}
	if len(g.o.Direct) > 0 {
		opts = append(opts, pubsub.WithDirectPeers(g.o.Direct))
	}
	ps, err := pubsub.NewGossipSub(ctx, g.o.Host, opts...)
	if err != nil {
		return nil, err
	}
	r := &running{ps: ps, handles: make(map[string]*pubsub.Topic, len(names))}
	for _, name := range names {
		t := g.topics[name]
		// Our own queue stands behind pubsub's throttle, which drops at once and,
		// being as long, never does.
		err := ps.RegisterTopicValidator(name, g.validator(t), pubsub.WithValidatorConcurrency(t.Concurrency+t.Queue))
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		h, err := ps.Join(name)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		// Relaying is all: Validate has seen the message, there is no subscriber.
		// It ends with ctx.
		if _, err := h.Relay(); err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		r.handles[name] = h
	}
	return r, nil
}

// messageID runs in pubsub's loop for every copy: 0.5 ms for a megabyte.
func messageID(m *pb.Message) string {
	id := sha256.Sum256(m.GetData())
	return string(id[:])
}

// watch tells of peers that join a topic.
func (g *Gossip) watch(ctx context.Context, topic string, events *pubsub.TopicEventHandler) {
	for {
		e, err := events.NextPeerEvent(ctx)
		if err != nil {
			return // ctx ended
		}
		if e.Type == pubsub.PeerJoin {
			g.topics[topic].listeners.add(e.Peer)
			g.o.OnTopicPeer(topic, e.Peer)
		} else {
			g.topics[topic].listeners.remove(e.Peer)
		}
	}
}

// Publish sends data to the topic's peers; data must not be changed any more.
// It returns when the message is queued for them, not when it has arrived; while
// the topic's first peer is becoming a neighbour it waits, at most 2.5 s. What
// was sent or seen on the topic within SeenTTL is not sent again, without an
// error. Errors: ErrUnknownTopic, ErrTooLarge, ErrNotRunning, or ErrNobody if no
// peer listens to the topic: then the message is not marked as seen, and can be
// published when OnTopicPeer tells of one.
func (g *Gossip) Publish(ctx context.Context, topic string, data []byte) error {
	t, ok := g.topics[topic]
	if !ok {
		return fmt.Errorf("publish on %q: %w", topic, ErrUnknownTopic)
	}
	if len(data) > t.MaxBytes {
		return fmt.Errorf("publish on %s: %d bytes, limit %d: %w", topic, len(data), t.MaxBytes, ErrTooLarge)
	}
	r := g.running.Load()
	if r == nil {
		return fmt.Errorf("publish on %s: %w", topic, ErrNotRunning)
	}
	if err := g.awaitNeighbour(ctx, r, t); err != nil {
		return fmt.Errorf("publish on %s: %w", topic, err)
	}
	if err := r.handles[topic].Publish(ctx, data); err != nil {
		if ctx.Err() == nil && g.running.Load() == nil {
			err = ErrNotRunning
		}
		return fmt.Errorf("publish on %s: %w", topic, err)
	}
	t.published.Add(1)
	return nil
}

// awaitNeighbour waits until somebody would be sent a message of ours, or
// returns ErrNobody. pubsub would drop it in silence otherwise: peers that are no
// neighbours yet are not sent it, and when the heartbeat makes them neighbours
// they are no longer told of it by gossip. If nobody wants to be a neighbour,
// gossip works: no error.
func (g *Gossip) awaitNeighbour(ctx context.Context, r *running, t *topic) error {
	peers := r.ps.ListPeers(t.Name)
	// A peer has joined as soon as it said so, but is listed only when there is a
	// stream to it.
	if len(peers) == 0 && t.listeners.empty() {
		return ErrNobody
	}
	for _, d := range g.o.Direct {
		if slices.Contains(peers, d.ID) {
			return nil // direct peers are sent everything
		}
	}
	timer := time.NewTimer(meshWait)
	defer timer.Stop()
	for {
		n, grafted := g.tracer.neighbours(t.Name)
		if n > 0 {
			return nil
		}
		select {
		case <-grafted:
		case <-timer.C:
			if len(r.ps.ListPeers(t.Name)) == 0 {
				return ErrNobody
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Peers returns the connected peers that are on the topic, in no order; none if
// the topic is unknown or Run does not run.
func (g *Gossip) Peers(topic string) []peer.ID {
	r := g.running.Load()
	if r == nil || g.topics[topic] == nil {
		return nil
	}
	return r.ps.ListPeers(topic)
}

// Scores returns peers' scores, at most 5 s old; peers that left are in it for a
// while. The caller owns the map.
func (g *Gossip) Scores() map[peer.ID]float64 {
	if s := g.scores.Load(); s != nil {
		return maps.Clone(*s)
	}
	return nil
}
