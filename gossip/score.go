package gossip

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A peer's score is the sum
//
//	credit + min(topicScoreCap, Σ topics) + min(topicScoreCap, merit) + AppScore − blame + colocation + behaviour
//
// of what the constants below say. Everyone starts with a credit, so that one
// accident takes nobody out of a mesh, and what a peer earns is small beside it,
// so that nobody earns the right to misbehave. What costs is squared: the second
// accident costs more than the first, and nobody can buy many. The thresholds
// follow from counts of invalid messages, which docs/protocol-gossip.md gives and
// TestThresholds counts with pubsub's own scoring.
//
// The shape is that of GossipSub 1.1's specification; the figures are for a chain
// with sparse blocks and many transactions: expected deliveries in the mesh (P3,
// P3b) are off, because blocks come minutes apart and a silent neighbour proves
// nothing; opportunistic grafting finds better ones.
const (
	scoreInterval = 5 * time.Second // how old Standings may be

	// decayInterval is how often counters decay. A counter that decays "in" a
	// time falls from 1 to decayToZero, where it becomes 0, within it: one of n
	// takes 1+log100(n) times as long.
	decayInterval = 10 * time.Second
	decayToZero   = 0.01

	// retainScore: a peer that comes back within it is not a stranger; its
	// counters stand still meanwhile. Only scores of 0 and below are kept, and the
	// credit sees to it that those are the ones of peers that did wrong: pubsub
	// keeps about 600 B for each.
	retainScore = 30 * time.Minute

	// credit is what every peer has. It pays for one invalid message, and for
	// broken promises under load. Without it a stranger with one accident is
	// pruned, and every stranger that left (score 0) is kept for retainScore and
	// counts as sharing its address with those that come.
	credit = 10

	// Below 0 a peer is in no mesh (pubsub's constant).

	// gossipThreshold: below, no IHAVE or IWANT of the peer is heard, and none is sent.
	gossipThreshold = -100
	// publishThreshold: below, own messages are not sent to it outside the mesh.
	publishThreshold = -200
	// graylistThreshold: below, nothing it sends is read.
	graylistThreshold = -450
	// graylistGrace is how long a peer is below graylistThreshold before OnGraylisted.
	graylistGrace = time.Minute

	// acceptPXThreshold is out of reach of everything a peer can earn (credit and
	// topicScoreCap): only those to whom AppScore gives TrustedScore may tell
	// whom to dial.
	acceptPXThreshold = 90
	// opportunisticGraftMinimum: every opportunisticGraftTicks heartbeats, if the
	// median neighbour is below, two that are better than it are grafted. Above is
	// who lately was the first to bring two messages of worth 2 (blocks); who sits
	// in two meshes for hours and brings all that is worth 0.1 is below.
	opportunisticGraftMinimum = credit + 4

	// topicScoreCap bounds what all topics give together by P1, and what is earned on
	// them by deliveries (merit.go): a few invalid messages, whatever the number of
	// topics.
	topicScoreCap = 20
	topicWeight   = 1

	// P1, time in the mesh: min(t/decayInterval, timeInMeshCap)·timeInMeshWeight,
	// half a point by an hour. It only breaks ties in favour of those who stay:
	// sitting in a mesh is no merit.
	timeInMeshCap    = 360
	timeInMeshWeight = 0.5 / timeInMeshCap

	// First deliveries and copies (merit.go; pubsub's P2 is off):
	// (min(n, firstCap) + min(c·copyShare, copyCap))·Topic.Worth; both decay in
	// firstDecay, so blocks that are minutes apart still count. This is what tells who
	// forwards from who only listens.
	firstCap   = 10
	firstDecay = time.Hour

	// P4, invalid messages: n²·invalidWeight a topic. One: −5, paid by the credit.
	// Two or three: out of the mesh. Five or six: no gossip. Seven: no own messages.
	// Ten: graylisted; a peer at exactly ten is read again 2 min later, and pays
	// for the next at once.
	invalidWeight = -5
	invalidDecay  = 4 * time.Hour

	// P6, peers on one address: (n−colocationThreshold)²·colocationWeight beyond
	// the threshold, on public networks. internal/host lets 8 connections of one
	// IPv4 address in, so this is for those who host the package otherwise:
	// thirteen are out of the mesh, eighteen lose gossip.
	colocationWeight    = -2
	colocationThreshold = 10

	// P7, behaviour: (n−behaviourThreshold)²·behaviourWeight beyond the threshold;
	// n counts broken promises (an IHAVE whose IWANT was not answered within 3 s;
	// one a frame is watched) and GRAFTs within the backoff (two if within 10 s).
	// A peer under load breaks a few promises; a liar breaks ten a second.
	behaviourWeight    = -10
	behaviourThreshold = 6
	behaviourDecay     = 30 * time.Minute
)

// TrustedScore is what an AppScore returns for a peer that the operator named: it
// may tell us whom to dial (peer exchange). It is not immune: eleven invalid
// messages graylist it.
const TrustedScore = 100

// GraylistPoints is how many points of blame (Blame, or a negative AppScore) make
// a peer that earned nothing graylisted: 460.
const GraylistPoints = credit - graylistThreshold

func scoreThresholds() *pubsub.PeerScoreThresholds {
	return &pubsub.PeerScoreThresholds{
		GossipThreshold:             gossipThreshold,
		PublishThreshold:            publishThreshold,
		GraylistThreshold:           graylistThreshold,
		AcceptPXThreshold:           acceptPXThreshold,
		OpportunisticGraftThreshold: opportunisticGraftMinimum,
	}
}

// scoreParams are pubsub's parameters; app is what AppScore and blame come to.
func scoreParams(o *Options, app func(peer.ID) float64) *pubsub.PeerScoreParams {
	decay := func(d time.Duration) float64 {
		return pubsub.ScoreParameterDecayWithBase(d, decayInterval, decayToZero)
	}
	colocation := float64(colocationWeight)
	if o.Private {
		// Also by public addresses: a testnet behind one NAT.
		colocation = 0
	}
	p := &pubsub.PeerScoreParams{
		Topics:                      make(map[string]*pubsub.TopicScoreParams, len(o.Topics)),
		TopicScoreCap:               topicScoreCap,
		AppSpecificScore:            func(id peer.ID) float64 { return credit + app(id) },
		AppSpecificWeight:           1,
		IPColocationFactorWeight:    colocation,
		IPColocationFactorThreshold: colocationThreshold,
		IPColocationFactorWhitelist: localNetworks(),
		BehaviourPenaltyWeight:      behaviourWeight,
		BehaviourPenaltyThreshold:   behaviourThreshold,
		BehaviourPenaltyDecay:       decay(behaviourDecay),
		DecayInterval:               decayInterval,
		DecayToZero:                 decayToZero,
		RetainScore:                 retainScore,
		SeenMsgTTL:                  o.SeenTTL,
	}
	for _, t := range o.Topics {
		p.Topics[t.Name] = &pubsub.TopicScoreParams{
			TopicWeight:                    topicWeight,
			TimeInMeshWeight:               timeInMeshWeight,
			TimeInMeshQuantum:              decayInterval,
			TimeInMeshCap:                  timeInMeshCap,
			InvalidMessageDeliveriesWeight: invalidWeight,
			InvalidMessageDeliveriesDecay:  decay(invalidDecay),
		}
	}
	return p
}

// localNetworks are addresses that many peers share without meaning harm: one
// machine, one LAN, the proxy in front of a container.
func localNetworks() []*net.IPNet {
	var out []*net.IPNet
	for _, s := range []string{
		"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
		"::1/128", "fc00::/7", "fe80::/10",
	} {
		_, n, err := net.ParseCIDR(s)
		if err != nil {
			panic(err) // a constant
		}
		out = append(out, n)
	}
	return out
}

// Level is what a score means for a peer.
type Level string

// The levels, best first.
const (
	Good       Level = "good"
	Pruned     Level = "pruned"     // in no mesh
	NoGossip   Level = "no gossip"  // no IHAVE or IWANT either way
	NoPublish  Level = "no publish" // nor our own messages
	Graylisted Level = "graylisted" // nothing it sends is read
)

func level(score float64) Level {
	switch {
	case score < graylistThreshold:
		return Graylisted
	case score < publishThreshold:
		return NoPublish
	case score < gossipThreshold:
		return NoGossip
	case score < 0:
		return Pruned
	}
	return Good
}

// Standing is a peer's score and what it is made of.
type Standing struct {
	Score float64
	Level Level
	// Reasons say what lowers the score, for people; empty if nothing does.
	Reasons []string
	// Invalid counts its invalid messages, less what is forgotten.
	Invalid float64
	// Behaviour counts broken promises and early GRAFTs, less what is forgotten.
	Behaviour float64
	// First counts messages that it was the first to bring, less what is forgotten.
	First float64
	// Mesh is the time in a mesh, of the topic where it is longest.
	Mesh time.Duration
}

// standing puts a snapshot of pubsub's into words.
func (g *Gossip) standing(p peer.ID, s *pubsub.PeerScoreSnapshot) Standing {
	out := Standing{Score: s.Score, Level: level(s.Score), Behaviour: s.BehaviourPenalty}
	_, out.First = g.tracer.merit(p, time.Now())
	for _, name := range slices.Sorted(maps.Keys(s.Topics)) {
		t := s.Topics[name]
		out.Invalid += t.InvalidMessageDeliveries
		out.Mesh = max(out.Mesh, t.TimeInMesh)
		if t.InvalidMessageDeliveries > 0 {
			out.Reasons = append(out.Reasons, fmt.Sprintf("%.1f invalid messages on %s", t.InvalidMessageDeliveries, name))
		}
	}
	if s.BehaviourPenalty > behaviourThreshold {
		out.Reasons = append(out.Reasons, fmt.Sprintf("%.1f broken promises or early grafts", s.BehaviourPenalty))
	}
	if s.IPColocationFactor > 0 && !g.o.Private {
		out.Reasons = append(out.Reasons, "many peers on its address")
	}
	if points, reason := g.blames.of(p, time.Now()); points >= 1 {
		out.Reasons = append(out.Reasons, fmt.Sprintf("%.0f points for: %s", points, reason))
	}
	if app := g.o.AppScore(p); app < 0 {
		out.Reasons = append(out.Reasons, fmt.Sprintf("%.0f points from the application", -app))
	}
	return out
}

// meshParams derives GossipSub's mesh and its limits from the number of
// neighbours wanted. Dout stays below D/2, as pubsub demands.
func meshParams(degree int) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D = degree
	p.Dlo = degree - 1
	p.Dhi = degree + 3
	p.Dscore = degree - 1
	p.Dout = degree/2 - 1
	p.MaxIHaveLength = maxIHaveIDs
	p.MaxIHaveMessages = maxIHaveFrames
	p.MaxIDontWantMessages = maxDontWantFrames
	p.GossipRetransmission = maxRetransmissions
	p.OpportunisticGraftTicks = opportunisticGraftTicks
	p.PruneBackoff = pruneBackoff
	p.DirectConnectTicks = directConnectTicks
	return p
}
