package gossip

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What a peer can make this node keep or do beside validating messages. pubsub
// bounds some of it; the rest is bounded before pubsub sees it, by frameReader as
// bytes and by inspect as a decoded RPC. Memory for each peer, at the limit:
//
//   - a frame being read, as far as it has come (in a minute at most), then a copy of pubsub's and its decoded
//     form: 3×(largest payload + frameSlack), and 2 MB for what maxFrame* let a frame blow up to
//   - outboundRPCs frames on their way to it, which share their payloads with
//     those to others and with the cache of the last five heartbeats
//   - ids that it does not want: maxDontWantFrames·10·3 heartbeats·60 B = 0.9 MB
//   - promises: maxIHaveFrames·4 heartbeats·200 B = 8 kB
//   - message ids that were of no use: 2·Topic.Waste·400 B a topic (see wastes)
const (
	messageIDBytes = 32 // SHA-256; ids of another length are nobody's

	// maxIHaveIDs is how many ids are told in an IHAVE, and asked of a peer
	// between two heartbeats. 500 messages a second make 1,500 in the three
	// heartbeats that gossip covers.
	maxIHaveIDs = 2000
	// maxIHaveFrames is how many frames with IHAVE are heard between two
	// heartbeats; an honest peer sends one.
	maxIHaveFrames = 10
	// maxDontWantFrames is how many frames with IDONTWANT, of ten ids each, are
	// heard between two heartbeats: one a message above 1 KiB.
	maxDontWantFrames = 500
	// maxRetransmissions is how often a peer can have a cached message by IWANT.
	maxRetransmissions = 3
	// maxBackoff bounds how long a PRUNE may keep this node away. pubsub keeps an
	// entry for each peer, gone or not, for the time it says: without a bound, for ever.
	maxBackoff = 10 * time.Minute
	// maxPX is how many peers a PRUNE may tell of, as many as pubsub sends.
	maxPX = 16

	// maxControlIDs is how many message ids in control messages a peer may send
	// at once, and controlIDRate a second after that. Each costs a look-up in
	// pubsub's loop. Two IHAVE and an IWANT of maxIHaveIDs fit into a second.
	maxControlIDs = 16_384
	controlIDRate = 6000

	// opportunisticGraftTicks: a mesh without merit is mended every 5 s, not every
	// minute, and who was turned away for lack of room may ask again after 15 s, not
	// a minute: so long a node whose mesh hostile peers have filled lives on gossip,
	// up to a heartbeat later than others (TestSilentMesh, TestSlowSiege).
	opportunisticGraftTicks = 5
	pruneBackoff            = 15 * time.Second

	// directConnectTicks: direct peers that are not connected are dialled so often,
	// in heartbeats; the first time then, too.
	directConnectTicks = 10

	// maxAccounts bounds the peers whose waste and control are counted. Accounts
	// that are full again are dropped first.
	maxAccounts = 4096
)

// account is what a peer may still do.
type account struct {
	at    time.Time // of the figures
	ids   float64   // in control messages
	waste []float64 // messages of no use, by topic
}

// accounts are the peers' accounts, also of those that left: leaving fills none.
type accounts struct {
	rates []float64 // by topic: messages a second
	most  []float64 // by topic
	// controlDropped counts ids of control messages that were over a peer's limit.
	controlDropped atomic.Uint64

	mu sync.Mutex // guards m, held for a map access; for a pass over it when it is full
	m  map[peer.ID]*account
}

func newAccounts(topics []Topic, ttl time.Duration) *accounts {
	a := &accounts{m: make(map[peer.ID]*account)}
	for _, t := range topics {
		a.most = append(a.most, float64(t.Waste))
		a.rates = append(a.rates, float64(t.Waste)/ttl.Seconds())
	}
	return a
}

// getLocked returns a peer's account as of now. The caller holds mu.
func (a *accounts) getLocked(p peer.ID, now time.Time) *account {
	c := a.m[p]
	if c == nil {
		if len(a.m) >= maxAccounts {
			a.forgetLocked(now)
		}
		c = &account{at: now, ids: maxControlIDs, waste: slices.Clone(a.most)}
		a.m[p] = c
		return c
	}
	a.refillLocked(c, now)
	return c
}

func (a *accounts) refillLocked(c *account, now time.Time) {
	s := now.Sub(c.at).Seconds()
	if s <= 0 {
		return
	}
	c.at = now
	c.ids = min(maxControlIDs, c.ids+s*controlIDRate)
	for i := range c.waste {
		c.waste[i] = min(a.most[i], c.waste[i]+s*a.rates[i])
	}
}

// forgetLocked drops the accounts that are full, or, if none is, any sixteenth part:
// so it is rarely called.
func (a *accounts) forgetLocked(now time.Time) {
	maps.DeleteFunc(a.m, func(_ peer.ID, c *account) bool {
		a.refillLocked(c, now)
		return c.ids == maxControlIDs && slices.Equal(c.waste, a.most)
	})
	if len(a.m) < maxAccounts {
		return
	}
	n := 0
	for p := range a.m {
		if n++; n > maxAccounts/16 {
			return
		}
		delete(a.m, p)
	}
}

// spend takes a message of no use off the peer's account.
func (a *accounts) spend(p peer.ID, topic int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.getLocked(p, time.Now()).waste[topic]--
}

// exhausted reports for which topics the peer's messages are not looked at now.
func (a *accounts) exhausted(p peer.ID, topic int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.getLocked(p, time.Now()).waste[topic] < 1
}

// room is how many more messages of the peer may turn out useless before its messages
// are not looked at.
func (a *accounts) room(p peer.ID, topic int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(0, int(a.getLocked(p, time.Now()).waste[topic]))
}

// control takes n ids off the peer's account and reports whether it had them.
func (a *accounts) control(p peer.ID, n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.getLocked(p, time.Now())
	if c.ids < float64(n) {
		c.ids = max(c.ids-float64(n), -maxControlIDs)
		a.controlDropped.Add(uint64(n))
		return false
	}
	c.ids -= float64(n)
	return true
}

// errOneWay is why an RPC is dropped; pubsub writes it at debug.
var errOneWay = errors.New("no stream to the peer")

// inspect is pubsub's hook before it looks at an RPC: it runs in pubsub's loop. It
// cuts off what the limits forbid, and keeps the rest.
func (g *Gossip) inspect(from peer.ID, rpc *pubsub.RPC) error {
	if (len(rpc.GetPublish()) > 0 || rpc.GetControl() != nil) && !g.tracer.linked(from) {
		// pubsub keeps no score of a peer that lets it open no stream: such a peer
		// could be as bad as it likes. An honest one knows of nobody to send to before
		// that stream has told it our topics.
		g.tracer.oneWay.Add(1)
		rpc.Publish, rpc.Control = nil, nil
		if len(rpc.GetSubscriptions()) == 0 {
			return errOneWay
		}
	}
	if len(rpc.GetPublish()) > 0 {
		rpc.Publish = slices.DeleteFunc(rpc.Publish, func(m *pb.Message) bool {
			t := g.topics[m.GetTopic()]
			if t == nil {
				return false // pubsub drops and the tracer counts it
			}
			if !g.accounts.exhausted(from, t.index) {
				return false
			}
			t.limited.Add(1)
			return true
		})
	}
	if c := rpc.GetControl(); c != nil {
		g.inspectControl(from, c)
	}
	return nil
}

func (g *Gossip) inspectControl(from peer.ID, c *pb.ControlMessage) {
	ids := 0
	clean := func(list []string) []string {
		list = slices.DeleteFunc(list, func(id string) bool { return len(id) != messageIDBytes })
		ids += len(list)
		return list
	}
	for _, m := range c.GetIhave() {
		m.MessageIDs = clean(m.MessageIDs)
		// What would be dropped unread must not be asked for: pubsub would take the peer
		// for one that breaks its promises. The other half is for what it sends unasked.
		if t := g.topics[m.GetTopicID()]; t != nil {
			m.MessageIDs = m.MessageIDs[:min(len(m.MessageIDs), g.accounts.room(from, t.index)/2)]
		}
	}
	for _, m := range c.GetIwant() {
		m.MessageIDs = clean(m.MessageIDs)
	}
	for _, m := range c.GetIdontwant() {
		m.MessageIDs = clean(m.MessageIDs)
	}
	if ids > 0 && !g.accounts.control(from, ids) {
		c.Ihave, c.Iwant, c.Idontwant = nil, nil, nil
	}
	// One GRAFT and one PRUNE a topic: each GRAFT that is refused is answered, from a
	// seed with the records of sixteen peers.
	seen := make(map[string]bool, len(g.topics))
	c.Graft = slices.DeleteFunc(c.Graft, func(m *pb.ControlGraft) bool { return g.repeats(seen, m.GetTopicID()) })
	clear(seen)
	c.Prune = slices.DeleteFunc(c.Prune, func(m *pb.ControlPrune) bool { return g.repeats(seen, m.GetTopicID()) })
	for _, m := range c.Prune {
		if most := uint64(maxBackoff / time.Second); m.GetBackoff() > most {
			m.Backoff = &most
		}
		m.Peers = m.Peers[:min(len(m.Peers), maxPX)]
	}
}

// repeats reports whether a topic is not ours or was seen, and marks it as seen.
func (g *Gossip) repeats(seen map[string]bool, topic string) bool {
	if g.topics[topic] == nil || seen[topic] {
		return true
	}
	seen[topic] = true
	return false
}

// maxSubscriptions bounds one RPC's subscriptions: one to join and one to leave
// each topic there can be, and foreign topics that the allow list drops.
const maxSubscriptions = 4 * MaxTopics
