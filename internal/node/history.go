package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/internal/api"
)

const (
	// sampleInterval and maxSamples make the history half an hour long: under 1 MB.
	sampleInterval = 2 * time.Second
	maxSamples     = 900
	// maxSampledPeers of those that are asked for blocks are kept with a sample.
	maxSampledPeers = 16
	// catchUpBlocks is how far validation may be behind the headers of a node that was in sync before it counts as catching up again.
	catchUpBlocks = 500
	// hashRateBlocks is over how many blocks the network's hash rate is estimated, as
	// Bitcoin Core's getmininginfo does.
	hashRateBlocks = 120
)

// A ring keeps the last maxSamples of what is added. Its owner guards it.
type ring[T any] struct {
	items []T
	next  int
}

func (r *ring[T]) add(v T) {
	if len(r.items) < maxSamples {
		r.items = append(r.items, v)
		return
	}
	r.items[r.next] = v
	r.next = (r.next + 1) % maxSamples
}

// all is a copy, oldest first.
func (r *ring[T]) all() []T {
	return append(append(make([]T, 0, len(r.items)), r.items[r.next:]...), r.items[:r.next]...)
}

// history is how the sync and the miner did over the last half hour.
type history struct {
	mu    sync.Mutex // guards the rings; held for a copy
	sync  ring[api.SyncSample]
	miner ring[api.MinerSample]
}

// A sampler makes samples out of counters.
type sampler struct {
	at     time.Time // of the last sample; zero: none yet
	height int32
	bytes  map[peer.ID]int64 // received from each peer
	hashes uint64
	synced bool // at some time
	told   bool // OnCatchUp was called
	behind bool // what it was told
}

// rate is what came a second; a counter that went back (a reorganisation) gives none.
func (s *sampler) rate(now time.Time, from, to int64) float64 {
	if took := now.Sub(s.at).Seconds(); !s.at.IsZero() && took > 0 {
		return float64(max(0, to-from)) / took
	}
	return 0
}

// catchesUp says whether many blocks are to be validated before the node is in sync. A block or two at the tip are not many, or the
// answer would change with each.
func (s *sampler) catchesUp(st api.Sync) bool {
	s.synced = s.synced || st.State == api.StateSynced
	return !s.synced || st.HeaderHeight-st.Height > catchUpBlocks
}

// runHistory samples until ctx ends.
func (n *Node) runHistory(ctx context.Context) error {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	var s sampler
	for {
		n.sample(&s, time.Now())
		n.poolViews.forget()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sample adds one sample to the history.
func (n *Node) sample(s *sampler, now time.Time) {
	st := face{n}.Sync()
	peers := n.exchange.Peers()
	received := make(map[peer.ID]int64, len(peers))
	var news int64
	busy := []api.PeerInFlight{}
	for _, p := range peers {
		received[p.ID] = p.BytesIn
		// Of a peer that is new since the last sample all is news.
		news += max(0, p.BytesIn-s.bytes[p.ID])
		if p.InFlight > 0 {
			busy = append(busy, api.PeerInFlight{ID: p.ID.String(), InFlight: p.InFlight})
		}
	}
	slices.SortFunc(busy, func(a, b api.PeerInFlight) int {
		return cmp.Or(cmp.Compare(b.InFlight, a.InFlight), cmp.Compare(a.ID, b.ID))
	})
	hashes := n.hashes()
	m := n.miner.Status()
	sync := api.SyncSample{
		Time: now.UTC(), State: st.State, Height: st.Height, HeaderHeight: st.HeaderHeight,
		BlocksPerS: s.rate(now, int64(s.height), int64(st.Height)), BytesPerS: s.rate(now, 0, news),
		InFlight: st.InFlight, InFlightBytes: st.InFlightBytes, BufferedBytes: st.BufferedBytes,
		Peers: slices.Clip(busy[:min(len(busy), maxSampledPeers)]),
	}
	miner := api.MinerSample{
		Time: now.UTC(), HashesPerS: s.rate(now, int64(s.hashes), int64(hashes)), Running: m.Mining, Blocks: m.Blocks,
	}
	s.at, s.height, s.bytes, s.hashes = now, st.Height, received, hashes
	if behind := s.catchesUp(st); n.o.OnCatchUp != nil && (!s.told || behind != s.behind) {
		s.told, s.behind = true, behind
		n.o.OnCatchUp(behind)
	}
	n.history.mu.Lock()
	defer n.history.mu.Unlock()
	n.history.sync.add(sync)
	n.history.miner.add(miner)
}

// hashes is how many hashes the miner has tried; 0 of a sealer that has none to try.
func (n *Node) hashes() uint64 {
	if s, ok := n.sealer.(interface{ Hashes() uint64 }); ok {
		return s.Hashes()
	}
	return 0
}

// SyncHistory implements api.Explorer.
func (f face) SyncHistory() api.SyncHistory {
	f.history.mu.Lock()
	defer f.history.mu.Unlock()
	return api.SyncHistory{IntervalS: sampleInterval.Seconds(), Samples: f.history.sync.all()}
}

// MinerHistory implements api.Explorer.
func (f face) MinerHistory() api.MinerHistory {
	out := api.MinerHistory{IntervalS: sampleInterval.Seconds()}
	tip, _ := f.chain.Tip()
	if past, ok := f.chain.Past(tip.Hash); ok && !f.params.ProofOfStake() { // where nobody hashes
		out.NetworkHashesPerS = consensus.HashRate(past, hashRateBlocks)
	}
	f.history.mu.Lock()
	defer f.history.mu.Unlock()
	out.Samples = f.history.miner.all()
	return out
}
