package gossip

import (
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// Who is the first to bring what is accepted earns Topic.Worth for it. Others bring
	// it too, a moment later: that is all that tells an honest neighbour on a slower
	// path from a silent one. So copies earn as well, copyShare of a first delivery each
	// and together copyCap of one at most, for a copy can also be our own message sent
	// back to us: it breaks ties among those who are never first, and no more.
	copyShare = 0.25
	copyCap   = 1

	// copyWindow is how long after a message was accepted its copies count: what is on
	// the way from a neighbour while ours is on the way to it. recentMessages is how
	// many messages of a topic are remembered for it, and recentCopies how many peers
	// of each: with a string of 16 B for a peer, 64·(16·16+80) B = 22 kB a topic.
	copyWindow     = 250 * time.Millisecond
	recentMessages = 64
	recentCopies   = 16
)

// rival is the ValidatorData of a message whose Verdict says so.
type rival struct{}

// merits are what connected peers have earned, by what they brought, in place of
// pubsub's P2: that knows neither rivals nor, without penalties, copies. The caller
// keeps it from concurrent use, and to connected peers.
type merits struct {
	worth  []float64 // by topic
	m      map[peer.ID][]merit
	recent []ring // by topic
}

// merit is of a peer and topic; it decays by firstDecay.
type merit struct {
	at            time.Time // of the figures
	first, copies float64   // copies in first deliveries
}

func (m *merit) decay(now time.Time) {
	if d := now.Sub(m.at); d > 0 && (m.first > 0 || m.copies > 0) {
		f := math.Pow(decayToZero, float64(d)/float64(firstDecay))
		m.first, m.copies = m.first*f, m.copies*f
	}
	m.at = now
}

// ring has the messages of a topic that were accepted last.
type ring struct {
	next int
	all  [recentMessages]recent
}

type recent struct {
	id string
	at time.Time
	by []peer.ID // who brought it
}

func newMerits(topics map[string]*topic) merits {
	ms := merits{
		worth: make([]float64, len(topics)), m: make(map[peer.ID][]merit),
		recent: make([]ring, len(topics)),
	}
	for _, t := range topics {
		ms.worth[t.index] = t.Worth
	}
	return ms
}

// earned returns a peer's merit on a topic as of now.
func (ms *merits) earned(topic int, p peer.ID, now time.Time) *merit {
	if ms.m[p] == nil {
		ms.m[p] = make([]merit, len(ms.worth))
	}
	m := &ms.m[p][topic]
	m.decay(now)
	return m
}

// first notes who brought a message that was accepted.
func (ms *merits) first(topic int, p peer.ID, id string, now time.Time) {
	m := ms.earned(topic, p, now)
	m.first = min(firstCap, m.first+1)
	r := &ms.recent[topic]
	slot := &r.all[r.next]
	r.next = (r.next + 1) % recentMessages
	slot.id, slot.at, slot.by = id, now, append(slot.by[:0], p)
}

// copied notes who brought a message that was seen before. It counts once, if the
// message was accepted, within copyWindow.
func (ms *merits) copied(topic int, p peer.ID, id string, now time.Time) {
	for i := range ms.recent[topic].all {
		r := &ms.recent[topic].all[i]
		if r.id != id || now.Sub(r.at) > copyWindow {
			continue
		}
		if len(r.by) < recentCopies && !slices.Contains(r.by, p) {
			r.by = append(r.by, p)
			m := ms.earned(topic, p, now)
			m.copies = min(copyCap, m.copies+copyShare)
		}
		return
	}
}

// of returns a peer's points, at most topicScoreCap, and the number of first
// deliveries in them.
func (ms *merits) of(p peer.ID, now time.Time) (points, first float64) {
	for i := range ms.m[p] {
		m := ms.earned(i, p, now)
		points += ms.worth[i] * (m.first + m.copies)
		first += m.first
	}
	return min(topicScoreCap, points), first
}

func (ms *merits) forget(p peer.ID) { delete(ms.m, p) }
