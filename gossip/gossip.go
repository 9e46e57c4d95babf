// Package gossip floods opaque messages over topics: GossipSub with limits,
// scoring and counts, and with errors where pubsub has none. It stands alone on
// libp2p; what a payload means is for the topic's Validate to say.
//
// New says which topics there are, Run takes part in them until its context ends, Publish sends, and what others
// sent comes to the topic's Validate, which both judges a message and is where the caller gets it.
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
//   - What a peer can make grow is bounded, by pubsub or before pubsub sees it
//     (limits.go), and what it does wrong lowers its score (score.go).
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
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// What Publish and the others return, for errors.Is.
var (
	ErrTooLarge     = errors.New("message is larger than its topic allows")
	ErrNobody       = errors.New("nobody listens to the topic")
	ErrUnknownTopic = errors.New("unknown topic")
	ErrNotRunning   = errors.New("gossip is not running")
	ErrSeen         = errors.New("message was sent or passed on already")
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
	// Rival says of what is accepted that it competes with what was accepted before (a
	// second block of a height): it is passed on, and whoever brought it earns nothing.
	Rival bool
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
	arrivals     = 2048
	defaultWaste = 1000
	maxWaste     = 100_000
	maxWorth     = 2

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
	// Waste is how many new messages of one peer may be of no use (ignored, rejected,
	// or lost because too many waited) before its messages on the topic are dropped
	// unread, and not marked as seen, until the budget has grown again: it is
	// full after SeenTTL. It bounds what useless messages cost: 2·Waste ids of
	// about 400 B a peer. Default 1000.
	Waste int

	// Worth is what a peer earns by bringing a message first, in points of its score,
	// for the last ten; default 1, at most 2. Copies that come a moment later earn that
	// much in all. Neighbours are chosen by the score of
	// all topics together: make what is cheap to bring worth little, or whoever
	// brings only that stays a neighbour.
	Worth float64

	// Validate judges a message of another peer before it is passed on; required. There is no other
	// way in which messages come: keep, or hand on, here what is wanted. It must
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
	// Direct peers are sent every message and dialled every 10 s, outside the mesh, and
	// heard whatever their score. They must have this peer as a direct one too: see
	// SetDirect.
	Direct []peer.AddrInfo
	// SeenTTL is how long a payload is known and not looked at again; default
	// 2 min. It bounds what a flood costs, and the memory of message ids.
	SeenTTL time.Duration
	// Degree is the number of mesh neighbours wanted a topic; default 5, from 4
	// to 12. Bytes sent grow with it, delay hardly shrinks.
	Degree int
	// PeerExchange tells pruned peers of others. For seeds only: it is believed by
	// those to whom AppScore of the seed is TrustedScore.
	PeerExchange bool

	// OnTopicPeer is called when a peer has joined a topic, from one goroutine a
	// topic: the time to publish again what found nobody.
	OnTopicPeer func(topic string, p peer.ID)
	// AppScore is added to a peer's score, for who it is: 0 is neutral,
	// -GraylistPoints stops listening to it, TrustedScore believes its peer
	// exchange. What it does wrong is for Blame. It is called from pubsub's loop
	// and must neither block nor call back. Default: 0 for all.
	AppScore func(peer.ID) float64
	// OnGraylisted is called when a connected peer has been graylisted for a minute,
	// and every minute while it stays so, from one goroutine: the time to
	// disconnect it.
	OnGraylisted func(peer.ID, Standing)

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
	if o.OnGraylisted == nil {
		o.OnGraylisted = func(peer.ID, Standing) {}
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
	if t.Worth == 0 {
		t.Worth = 1
	}
	if !(t.Worth > 0 && t.Worth <= maxWorth) {
		errs = append(errs, fmt.Errorf("topic %q: worth %v: want above 0, at most %d", t.Name, t.Worth, maxWorth))
	}
	if t.Waste == 0 {
		t.Waste = defaultWaste
	}
	if t.Waste < 0 || t.Waste > maxWaste {
		errs = append(errs, fmt.Errorf("topic %q: waste %d: want 1 to %d", t.Name, t.Waste, maxWaste))
	}
	if t.Validate == nil {
		errs = append(errs, fmt.Errorf("topic %q: no Validate", t.Name))
	}
	return errors.Join(errs...)
}

// Gossip is a node's part in the topics. Its methods may be called from any
// goroutine, also before and after Run.
type Gossip struct {
	o        Options
	self     peer.ID
	topics   map[string]*topic // fixed after New
	tracer   *tracer
	accounts *accounts
	blames   blames
	direct   peers
	calls    gate
	inbound  inbound
	started  atomic.Bool
	ready    chan struct{}
	running  atomic.Pointer[running]
	// standings is what pubsub's snapshots are; told has the newest.
	standings atomic.Pointer[map[peer.ID]*pubsub.PeerScoreSnapshot]
	told      chan struct{}

	badFrames atomic.Uint64
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
	g := &Gossip{
		o: o, self: o.Host.ID(), topics: make(map[string]*topic, len(o.Topics)), ready: make(chan struct{}),
		accounts: newAccounts(o.Topics, o.SeenTTL), told: make(chan struct{}, 1),
	}
	for i, t := range o.Topics {
		g.topics[t.Name] = newTopic(t, i)
	}
	for _, d := range o.Direct {
		g.direct.set(d.ID, true)
	}
	g.tracer = newTracer(g.topics, g.accounts)
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
// error if it could not start. It can be called once. When it returns, the peers' streams are
// reset and everything that could call the caller has ended; goroutines of pubsub's may need moments more.
func (g *Gossip) Run(ctx context.Context) error {
	if !g.started.CompareAndSwap(false, true) {
		return errors.New("gossip: Run was called twice")
	}
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := g.join(ctx)
	if err != nil {
		cancel()
		g.leave()
		if parent.Err() != nil { // it ended meanwhile
			return nil
		}
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
	watchers.Go(func() { g.watchGraylist(ctx) })
	g.running.Store(r)
	// Not by pubsub's option: the goroutine that dials those reads what AddDirectPeer
	// writes.
	for _, p := range g.o.Direct {
		if g.direct.has(p.ID) {
			r.setDirect(p, true)
		}
	}
	for _, p := range g.direct.all() { // those that came before Run
		r.setDirect(peer.AddrInfo{ID: p}, true)
	}
	close(g.ready)

	<-ctx.Done()
	g.running.Store(nil)
	watchers.Wait()
	g.leave()
	return nil
}

// leave ends what pubsub has of the host. pubsub ends its own goroutines with its context, which must have ended, and lets nobody
// wait for them; what matters is that none of them calls us any more.
func (g *Gossip) leave() {
	for _, id := range Protocols() {
		g.o.Host.RemoveStreamHandler(id)
	}
	g.inbound.close()
	g.calls.close()
}

// Ready is closed when Run takes part: Publish works from then on. If Run fails, it never is: wait for
// both.
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
		pubsub.WithAppSpecificRpcInspector(g.inspect),
		pubsub.WithPeerScore(scoreParams(&g.o, g.appScore), scoreThresholds()),
		// After WithPeerScore, says its documentation.
		pubsub.WithPeerScoreInspect(func(s map[peer.ID]*pubsub.PeerScoreSnapshot) {
			g.standings.Store(&s)
			select {
			case g.told <- struct{}{}:
			default:
			}
		}, scoreInterval),
		pubsub.WithPeerExchange(g.o.PeerExchange),
		pubsub.WithRawTracer(g.tracer),
		pubsub.WithLogger(g.o.Logger),
		pubsub.WithRPCLogger(g.o.Logger),
	}
	ps, err := pubsub.NewGossipSub(ctx, guardedHost{g.o.Host, largest + frameSlack, g.badFrame, &g.inbound}, opts...)
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
			g.topics[topic].listeners.set(e.Peer, true)
			g.o.OnTopicPeer(topic, e.Peer)
		} else {
			g.topics[topic].listeners.set(e.Peer, false)
		}
	}
}

// Publish sends data to the topic's peers; data must not be changed any more.
// It returns when the message is queued for them, not when it has arrived; while
// the topic's first peer is becoming a neighbour it waits, at most 2.5 s. Errors:
// ErrUnknownTopic, ErrTooLarge, ErrNotRunning; ErrNobody if no peer listens to the
// topic: then the message is not marked as seen, and can be published when
// OnTopicPeer tells of one; ErrSeen if the same bytes were published or accepted on
// any topic within SeenTTL: nothing was sent, also not to peers that came since, who
// have to be told in another way. What was ignored, rejected or throttled when it came
// from a peer is sent.
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
	passed, done := t.own.begin(sha256.Sum256(data))
	defer done()
	if err := r.handles[topic].Publish(ctx, data); err != nil {
		if ctx.Err() == nil && g.running.Load() == nil {
			err = ErrNotRunning
		}
		return fmt.Errorf("publish on %s: %w", topic, err)
	}
	if !passed.Load() {
		return fmt.Errorf("publish on %s: %w", topic, ErrSeen)
	}
	t.published.Add(1)
	return nil
}

// Send puts a message into the queue of one connected peer, also if it was published
// or passed on before: what a peer that came late has not heard it takes like any
// other, what it has seen within its SeenTTL it drops. data must not be changed any
// more. Errors: ErrUnknownTopic, ErrTooLarge, ErrNotRunning, and ErrNobody if
// there is no stream to the peer. A full queue drops the message without an
// error (Stats.Dropped).
func (g *Gossip) Send(ctx context.Context, p peer.ID, topic string, data []byte) error {
	t, ok := g.topics[topic]
	if !ok {
		return fmt.Errorf("send on %q: %w", topic, ErrUnknownTopic)
	}
	if len(data) > t.MaxBytes {
		return fmt.Errorf("send on %s: %d bytes, limit %d: %w", topic, len(data), t.MaxBytes, ErrTooLarge)
	}
	r := g.running.Load()
	if r == nil {
		return fmt.Errorf("send on %s: %w", topic, ErrNotRunning)
	}
	// The router may be used in pubsub's loop only, and what is called there to learn
	// whether it is ready is the way in. It never is: nothing is published.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	called, err := false, error(nil)
	_ = r.handles[topic].Publish(ctx, nil, pubsub.WithReadiness(func(rt pubsub.PubSubRouter, _ string) (bool, error) {
		defer cancel()
		called = true
		gs, ok := rt.(*pubsub.GossipSubRouter)
		if !ok || !g.tracer.linked(p) {
			err = ErrNobody
			return false, nil
		}
		gs.SendControl(p, new(pb.ControlMessage), &pb.Message{Topic: &topic, Data: data})
		return false, nil
	}))
	switch {
	case called && err == nil:
		return nil
	case called:
	case g.running.Load() == nil:
		err = ErrNotRunning
	default:
		err = ctx.Err()
	}
	return fmt.Errorf("send on %s to %s: %w", topic, p, err)
}

// SetDirect makes a peer a direct one, as those of Options.Direct, or an ordinary
// one again; before Run, it counts from then on. Both sides must do so: a direct peer
// is in no mesh, so one that does not know it would push nothing to us. The
// addresses may be missing if the caller keeps them connected.
func (g *Gossip) SetDirect(p peer.AddrInfo, direct bool) {
	g.direct.set(p.ID, direct)
	if r := g.running.Load(); r != nil {
		r.setDirect(p, direct)
	}
}

// setDirect fails only when pubsub has ended.
func (r *running) setDirect(p peer.AddrInfo, direct bool) {
	if direct {
		_ = r.ps.AddDirectPeer(p)
	} else {
		_ = r.ps.RemoveDirectPeer(p.ID)
	}
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
	if slices.ContainsFunc(peers, g.direct.has) {
		return nil // direct peers are sent everything
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

// Scores returns peers' scores, at most 5 s old; peers that left with a score of 0
// or less are in it for 30 min. The caller owns the map.
func (g *Gossip) Scores() map[peer.ID]float64 {
	all := g.standings.Load()
	if all == nil {
		return nil
	}
	scores := make(map[peer.ID]float64, len(*all))
	for p, s := range *all {
		scores[p] = s.Score
	}
	return scores
}

// Standing returns a peer's score and its reasons, at most 5 s old; false if there
// is none yet, or the peer has left.
func (g *Gossip) Standing(p peer.ID) (Standing, bool) {
	all := g.standings.Load()
	if all == nil || (*all)[p] == nil {
		return Standing{}, false
	}
	return g.standing(p, (*all)[p]), true
}

// appScore is what pubsub adds to the score of a peer. It is called from pubsub's
// loop, for every RPC.
func (g *Gossip) appScore(p peer.ID) float64 {
	now := time.Now()
	points, _ := g.blames.of(p, now)
	earned, _ := g.tracer.merit(p, now)
	return g.o.AppScore(p) - points + earned
}

// badFrame resets a stream whose peer broke the limits of a frame.
func (g *Gossip) badFrame(s network.Stream, err error) {
	g.badFrames.Add(1)
	p := s.Conn().RemotePeer()
	g.Blame(p, badFramePoints, err.Error())
	g.o.Logger.Debug("stream reset", "peer", p, "err", err)
	_ = s.ResetWithError(network.StreamProtocolViolation)
}

// watchGraylist tells of peers that stay graylisted.
func (g *Gossip) watchGraylist(ctx context.Context) {
	since := make(map[peer.ID]time.Time) // connected peers only
	for {
		select {
		case <-g.told:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		bad := make(map[peer.ID]time.Time)
		for p, s := range *g.standings.Load() {
			if s.Score >= graylistThreshold || g.o.Host.Network().Connectedness(p) == network.NotConnected {
				continue
			}
			first, known := since[p]
			if !known {
				first = now
			}
			if now.Sub(first) >= graylistGrace {
				first = now
				g.o.OnGraylisted(p, g.standing(p, s))
			}
			bad[p] = first
		}
		since = bad
	}
}
