package gossip

import (
	"fmt"
	"io"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits that tests press.
const (
	MaxFrameSubscriptions = maxFrameSubscriptions
	MaxFrameMessages      = maxFrameMessages
	MaxFrameControls      = maxFrameControls
	MaxFrameIDs           = maxFrameIDs
	MaxFramePeers         = maxFramePeers
	MaxControlIDs         = maxControlIDs
	MaxBlamed             = maxBlamed
	MaxAccounts           = maxAccounts
	MaxRated              = maxRated
)

// ScanFrames feeds the scanner with a stream, n bytes at a time.
func ScanFrames(stream []byte, n int) error {
	var f frameScan
	for len(stream) > 0 {
		k := min(n, len(stream))
		if err := f.feed(stream[:k]); err != nil {
			return err
		}
		stream = stream[k:]
	}
	return nil
}

// Ledgers fills the maps that peers can make grow and returns their sizes.
func Ledgers(peers int) (blamed, accountsOpen int) {
	var bs blames
	a := newAccounts([]Topic{{Waste: 10}}, time.Minute)
	now := time.Now()
	for i := range peers {
		p := peer.ID([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		bs.add(p, 1+float64(i%100), "test", now)
		a.spend(p, 0)
	}
	return len(bs.m), len(a.m)
}

// Rated has so many peers send what spends all that they have at once, and as many again an hour later. It returns how many have buckets of their
// own each time, and how many of the messages of those that share theirs were let through.
func Rated(peers int) (first, later, shared int) {
	m := newMeter(Rate{Messages: 1, Burst: 1}, 100)
	now := time.Now()
	for _, after := range []time.Duration{0, time.Hour} {
		now = now.Add(after)
		shared = 0
		for i := range peers {
			own := len(m.peers)
			if ok := m.allow(peer.ID(fmt.Sprint(after, i)), 100, now); ok && len(m.peers) == own && own >= maxRated {
				shared++
			}
		}
		first, later = later, len(m.peers)
	}
	return first, later, shared
}

// Merits is the tracer of one topic, for what peers earn.
type Merits struct{ tr *tracer }

// NewMerits returns one to which the peers are connected.
func NewMerits(worth float64, connected ...peer.ID) *Merits {
	topics := []Topic{{Name: "topic", MaxBytes: 1, Worth: worth}}
	m := &Merits{newTracer(map[string]*topic{"topic": newTopic(topics[0], 0)}, newAccounts(topics, time.Minute))}
	for _, p := range connected {
		m.Open(p)
	}
	return m
}

func (m *Merits) Open(p peer.ID)  { m.tr.OnNewOutboundStream(p, "") }
func (m *Merits) Close(p peer.ID) { m.tr.OnClosedOutboundStream(p) }
func (m *Merits) Len() int        { return len(m.tr.merits.m) }

func (m *Merits) message(p peer.ID, id string) *pubsub.Message {
	return &pubsub.Message{Message: &pb.Message{Topic: new("topic")}, ID: id, ReceivedFrom: p}
}

// Deliver has a peer bring a message that is accepted.
func (m *Merits) Deliver(p peer.ID, id string, rivals bool, now time.Time) {
	msg := m.message(p, id)
	if rivals {
		msg.ValidatorData = rival{}
	}
	m.tr.deliver(msg, now)
}

// Copy has a peer bring a message that was seen.
func (m *Merits) Copy(p peer.ID, id string, now time.Time) { m.tr.duplicate(m.message(p, id), now) }

// Points is what a peer has earned.
func (m *Merits) Points(p peer.ID, now time.Time) float64 {
	points, _ := m.tr.merit(p, now)
	return points
}

// Frames returns a reader of an inbound stream, as pubsub has it.
func Frames(s network.Stream) io.Reader {
	return &frameReader{Stream: s, most: 4 << 20, bad: func(network.Stream, error) {}}
}
