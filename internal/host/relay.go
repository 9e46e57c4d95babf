package host

import (
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

// What a relay gives away. A circuit has to carry two handshakes, two identifies and the few messages of hole
// punching, some 20 kB; three attempts at a hole take 40 s.
const (
	relayReservations      = 128       // peers with a place
	relayReservationsPerIP = 4         // of one address: a home with a few nodes
	relayCircuitsPerPeer   = 8         // open ones from or to a peer
	relayCircuits          = 128       // in all, by the streams of the service
	relayCircuitBytes      = 128 << 10 // each way
	relayCircuitTime       = 2 * time.Minute
	relayReservationTime   = time.Hour
	relayBufferBytes       = 2048

	// identifyPatience is how long a relay waits to learn what a peer speaks.
	identifyPatience = 10 * time.Second
)

// newRelay starts the relay service on h.
func newRelay(h host.Host, o *Options) (*relay.Relay, error) {
	opts := []relay.Option{
		relay.WithResources(relay.Resources{
			Limit:                &relay.RelayLimit{Duration: relayCircuitTime, Data: relayCircuitBytes},
			ReservationTTL:       relayReservationTime,
			MaxReservations:      relayReservations,
			MaxReservationsPerIP: relayReservationsPerIP, MaxReservationsPerASN: relayReservations / 4,
			MaxCircuits: relayCircuitsPerPeer,
			BufferSize:  relayBufferBytes,
		}),
		relay.WithACL(ownNetwork{h, o.RelayFor}),
	}
	if o.PrometheusRegisterer != nil {
		opts = append(opts, relay.WithMetricsTracer(relay.NewMetricsTracer(relay.WithRegisterer(o.PrometheusRegisterer))))
	}
	return relay.New(h, opts...)
}

// ownNetwork lets a relay serve the peers of its own network only. Both ends of a circuit are asked: the one when it takes its place, the
// other when it connects.
type ownNetwork struct {
	host   host.Host
	speaks []protocol.ID
}

// AllowReserve implements relay.ACLFilter.
func (n ownNetwork) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return n.speaksOurs(p) }

// AllowConnect implements relay.ACLFilter.
func (n ownNetwork) AllowConnect(src peer.ID, _ ma.Multiaddr, _ peer.ID) bool {
	return n.speaksOurs(src)
}

func (n ownNetwork) speaksOurs(p peer.ID) bool {
	// A peer may ask before we have heard what it speaks.
	if h, ok := n.host.(interface{ IDService() identify.IDService }); ok {
		patience := time.NewTimer(identifyPatience)
		defer patience.Stop()
		for _, c := range n.host.Network().ConnsToPeer(p) {
			select {
			case <-h.IDService().IdentifyWait(c):
			case <-patience.C:
				return false
			}
		}
	}
	ours, err := n.host.Peerstore().SupportsProtocols(p, n.speaks...)
	return err == nil && len(ours) > 0
}
