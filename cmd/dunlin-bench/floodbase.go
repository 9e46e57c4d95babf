package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"dunlin/chain/consensus"
	"dunlin/gossip"
	"dunlin/internal/simnet"
)

// What dunlin's relay is compared with: whole blocks over GossipSub, with the parameters that the node itself uses,
// and announcements over GossipSub that each receiver answers by pulling the block before it passes the announcement on.
// Both take what they get for a block; neither looks into it.

const baseTopic = "/dunlin/bench-00000000/block/1"

type wholeNode struct{ g *gossip.Gossip }

func startWhole(n *simnet.Network, h *simnet.Host, got func(chainhash.Hash)) (floodNode, error) {
	g, err := gossip.New(gossip.Options{Host: h, Private: true, Topics: []gossip.Topic{{
		Name: baseTopic, MaxBytes: 8 << 20,
		Validate: func(_ context.Context, _ peer.ID, data []byte) gossip.Verdict {
			got(chainhash.DoubleHashH(data[:consensus.HeaderBytes]))
			return gossip.Verdict{Result: gossip.Accept}
		},
	}}})
	if err != nil {
		return nil, err
	}
	n.Go(func(ctx context.Context) { _ = g.Run(ctx) })
	return wholeNode{g}, nil
}

func (w wholeNode) publish(ctx context.Context, b *floodBlock) error {
	return w.g.Publish(ctx, baseTopic, b.Raw)
}

func (w wholeNode) stats() (s floodStats) {
	for _, t := range w.g.Stats().Topics {
		s.duplicates += t.Duplicates
	}
	return s
}

const (
	announceProtocol  = protocol.ID("/dunlin/bench-00000000/pull/1")
	announceUploads   = 2 // at once, of one node: a link shared by more brings all of them late
	announceRetry     = 50 * time.Millisecond
	announceBytes     = 120 // an announcement: about a header and a signature
	announceCountdown = time.Minute
)

// announceNode floods announcements and pulls blocks. A node that has no room for another upload says so at once, and
// the one who asked tries another of those that announced the block, the newest first, as it is the least asked.
type announceNode struct {
	net   *simnet.Network
	host  *simnet.Host
	topic *pubsub.Topic
	got   func(chainhash.Hash)

	mu         sync.Mutex
	have       map[chainhash.Hash][]byte
	announcers map[chainhash.Hash][]peer.ID
	uploads    int

	duplicates, pulled atomic.Uint64
}

func startAnnounce(n *simnet.Network, h *simnet.Host, got func(chainhash.Hash)) (floodNode, error) {
	a := &announceNode{net: n, host: h, got: got, have: map[chainhash.Hash][]byte{}, announcers: map[chainhash.Hash][]peer.ID{}}
	h.SetStreamHandler(announceProtocol, a.serve)
	ps, err := pubsub.NewGossipSub(n.Context(), h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string { return string(m.Data[:chainhash.HashSize]) }),
		pubsub.WithRawTracer(announceTracer{a}))
	if err != nil {
		return nil, err
	}
	if err := ps.RegisterTopicValidator(baseTopic, a.validate, pubsub.WithValidatorTimeout(announceCountdown)); err != nil {
		return nil, err
	}
	if a.topic, err = ps.Join(baseTopic); err != nil {
		return nil, err
	}
	_, err = a.topic.Relay()
	return a, err
}

func (a *announceNode) publish(ctx context.Context, b *floodBlock) error {
	a.mu.Lock()
	a.have[b.Hash] = b.Raw
	a.mu.Unlock()
	return a.topic.Publish(ctx, append(b.Hash[:], make([]byte, announceBytes-chainhash.HashSize)...))
}

func (a *announceNode) stats() floodStats {
	return floodStats{duplicates: a.duplicates.Load(), pulled: a.pulled.Load()}
}

// validate passes an announcement on once the block is here.
func (a *announceNode) validate(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == a.host.ID() {
		return pubsub.ValidationAccept
	}
	hash := chainhash.Hash(m.Data[:chainhash.HashSize])
	for tried := 0; ctx.Err() == nil; tried++ {
		a.mu.Lock()
		sources := append([]peer.ID{from}, a.announcers[hash]...)
		a.mu.Unlock()
		raw, err := a.pull(ctx, sources[(len(sources)-1+tried)%len(sources)], hash)
		if err == nil {
			a.mu.Lock()
			a.have[hash] = raw
			a.mu.Unlock()
			a.got(hash)
			return pubsub.ValidationAccept
		}
		if (tried+1)%len(sources) == 0 {
			a.net.Pass(announceRetry + rand.N(announceRetry))
		}
	}
	return pubsub.ValidationIgnore
}

// pull fetches a block from one peer.
func (a *announceNode) pull(ctx context.Context, from peer.ID, hash chainhash.Hash) ([]byte, error) {
	s, err := a.host.NewStream(ctx, from, announceProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err := s.Write(hash[:]); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint32(size[:]))
	if len(raw) == 0 {
		return nil, fmt.Errorf("%s is busy", from)
	}
	if _, err := io.ReadFull(s, raw); err != nil {
		return nil, err
	}
	a.pulled.Add(uint64(len(raw)))
	return raw, nil
}

// serve answers one pull, with the size 0 if there is no room.
func (a *announceNode) serve(s network.Stream) {
	defer s.Close()
	var hash chainhash.Hash
	if _, err := io.ReadFull(s, hash[:]); err != nil {
		return
	}
	a.mu.Lock()
	raw := a.have[hash]
	if a.uploads >= announceUploads {
		raw = nil
	}
	if raw != nil {
		a.uploads++
	}
	a.mu.Unlock()
	if _, err := s.Write(binary.BigEndian.AppendUint32(nil, uint32(len(raw)))); err == nil && raw != nil { //nolint:gosec // a block
		_, _ = s.Write(raw)
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s) // until the other end has it
	}
	if raw != nil {
		a.mu.Lock()
		a.uploads--
		a.mu.Unlock()
	}
}

// announceTracer learns who else has a block from the copies of its announcement.
type announceTracer struct{ a *announceNode }

// DuplicateMessage implements pubsub.RawTracer.
func (t announceTracer) DuplicateMessage(m *pubsub.Message) {
	t.a.duplicates.Add(1)
	hash := chainhash.Hash(m.Data[:chainhash.HashSize])
	t.a.mu.Lock()
	t.a.announcers[hash] = append(t.a.announcers[hash], m.ReceivedFrom)
	t.a.mu.Unlock()
}

// The rest of pubsub.RawTracer counts nothing.

func (announceTracer) OnNewOutboundStream(peer.ID, protocol.ID)    {}
func (announceTracer) OnNewIncomingStream(peer.ID, protocol.ID)    {}
func (announceTracer) OnClosedIncomingStream(peer.ID, protocol.ID) {}
func (announceTracer) OnClosedOutboundStream(peer.ID)              {}
func (announceTracer) Join(string)                                 {}
func (announceTracer) Leave(string)                                {}
func (announceTracer) Graft(peer.ID, string)                       {}
func (announceTracer) Prune(peer.ID, string)                       {}
func (announceTracer) ValidateMessage(*pubsub.Message)             {}
func (announceTracer) DeliverMessage(*pubsub.Message)              {}
func (announceTracer) RejectMessage(*pubsub.Message, string)       {}
func (announceTracer) ThrottlePeer(peer.ID)                        {}
func (announceTracer) RecvRPC(*pubsub.RPC)                         {}
func (announceTracer) SendRPC(*pubsub.RPC, peer.ID)                {}
func (announceTracer) DropRPC(*pubsub.RPC, peer.ID)                {}
func (announceTracer) UndeliverableMessage(*pubsub.Message)        {}
