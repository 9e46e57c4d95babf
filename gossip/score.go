package gossip

import (
	"net"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The scores have the shape of Prysm's (beacon-chain/p2p/pubsub.go and
// gossip_scoring_params.go of github.com/OffchainLabs/prysm), which has carried
// a public network for years: deliveries earn little, invalid messages cost the
// square of their number, and the thresholds are far below what an accident
// costs. What differs: its slots of 12 s became 10 s, and P3 (expected
// deliveries in the mesh) is off, because blocks come minutes apart and a silent
// neighbour is no bad one.
const (
	scoreInterval = 5 * time.Second // how old Scores may be

	decayInterval = 10 * time.Second
	decayToZero   = 0.01
	// A peer that comes back within it is not a stranger. pubsub keeps an entry
	// for each peer that left, so not longer.
	retainScore = 30 * time.Minute

	gossipThreshold           = -4000  // below: no gossip with it
	publishThreshold          = -8000  // below: own messages are not sent to it
	graylistThreshold         = -16000 // below: its RPCs are not read
	acceptPXThreshold         = 100    // only AppScore reaches it
	opportunisticGraftMinimum = 5

	topicScoreCap = 32.72

	// Several nodes in a data centre are no attack; hundreds are: 35·(n-10)².
	colocationWeight    = -35.11
	colocationThreshold = 10

	// Broken promises and early GRAFTs beyond the first six.
	behaviourWeight    = -15.92
	behaviourThreshold = 6
	behaviourDecay     = time.Hour

	topicWeight = 0.5
	// A neighbour earns 10·topicWeight by an hour in the mesh.
	timeInMeshCap    = 360 // decay intervals: an hour
	timeInMeshWeight = 10.0 / timeInMeshCap
	firstWeight      = 1
	firstCap         = 23
	firstDecay       = 20 * time.Minute
	// 0.5·140·n²: one costs 70, eight stop gossip, sixteen are the graylist; it
	// takes hours to be forgotten.
	invalidWeight = -140.4475
	invalidDecay  = 5 * time.Hour
)

func scoreThresholds() *pubsub.PeerScoreThresholds {
	return &pubsub.PeerScoreThresholds{
		GossipThreshold:             gossipThreshold,
		PublishThreshold:            publishThreshold,
		GraylistThreshold:           graylistThreshold,
		AcceptPXThreshold:           acceptPXThreshold,
		OpportunisticGraftThreshold: opportunisticGraftMinimum,
	}
}

func scoreParams(o *Options) *pubsub.PeerScoreParams {
	decay := func(d time.Duration) float64 {
		return pubsub.ScoreParameterDecayWithBase(d, decayInterval, decayToZero)
	}
	colocation := colocationWeight
	if o.Private {
		// Also by public addresses: a testnet behind one NAT.
		colocation = 0
	}
	p := &pubsub.PeerScoreParams{
		Topics:                      make(map[string]*pubsub.TopicScoreParams, len(o.Topics)),
		TopicScoreCap:               topicScoreCap,
		AppSpecificScore:            func(id peer.ID) float64 { return o.AppScore(id) },
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
			FirstMessageDeliveriesWeight:   firstWeight,
			FirstMessageDeliveriesDecay:    decay(firstDecay),
			FirstMessageDeliveriesCap:      firstCap,
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

// meshParams derives GossipSub's mesh from the number of neighbours wanted.
// Dout stays below D/2, as pubsub demands.
func meshParams(degree int) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D = degree
	p.Dlo = degree - 1
	p.Dhi = degree + 3
	p.Dscore = degree - 1
	p.Dout = max(1, degree/2-1)
	return p
}

// maxSubscriptions bounds one RPC's subscriptions: one to join and one to leave
// each topic there can be, and foreign topics that the allow list drops.
const maxSubscriptions = 4 * MaxTopics
