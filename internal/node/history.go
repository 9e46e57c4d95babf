package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/internal/api"
	"dunlin/internal/ring"
)

const (
	// sampleInterval and maxSamples make the history half an hour long.
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

// syncSampleBytes is what maxSamples of a sync with many peers take; of a node at the tip they take a tenth.
const syncSampleBytes = 384 << 10

// history is how the sync and the miner did over the last half hour.
type history struct {
	mu    sync.Mutex // guards the rings; held for a copy
	sync  *ring.Ring // each as appendSync makes it
	miner *ring.Ring // each as appendMiner makes it
}

func newHistory() *history {
	return &history{sync: ring.New(maxSamples, syncSampleBytes), miner: ring.New(maxSamples, maxSamples*minerSampleBytes)}
}

// appendSync packs a sample of the sync.
func appendSync(b []byte, s *api.SyncSample) []byte {
	b = binary.AppendVarint(b, s.Time.UnixMilli())
	for _, v := range []int64{int64(s.Height), int64(s.HeaderHeight), int64(s.InFlight), s.InFlightBytes, s.BufferedBytes} {
		b = binary.AppendVarint(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s.BlocksPerS))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s.BytesPerS))
	b = append(binary.AppendUvarint(b, uint64(len(s.State))), s.State...)
	for _, p := range s.Peers {
		b = append(binary.AppendUvarint(b, uint64(len(p.ID))), p.ID...)
		b = binary.AppendVarint(b, int64(p.InFlight))
	}
	return b
}

// syncSample reads what appendSync made.
func syncSample(raw []byte) (s api.SyncSample) {
	p := unpacker(raw)
	s.Time = time.UnixMilli(p.int()).UTC()
	s.Height, s.HeaderHeight, s.InFlight, s.InFlightBytes, s.BufferedBytes = int32(p.int()), int32(p.int()), int(p.int()), p.int(), p.int()
	s.BlocksPerS, s.BytesPerS = p.float(), p.float()
	s.State = p.string()
	s.Peers = []api.PeerInFlight{}
	for len(p) > 0 {
		s.Peers = append(s.Peers, api.PeerInFlight{ID: p.string(), InFlight: int(p.int())})
	}
	return s
}

// minerSampleBytes is the most that appendMiner makes of a sample.
const minerSampleBytes = 2*binary.MaxVarintLen64 + 8 + 1

// appendMiner packs a sample of the miner.
func appendMiner(b []byte, s *api.MinerSample) []byte {
	b = binary.AppendVarint(b, s.Time.UnixMilli())
	b = binary.AppendVarint(b, int64(s.Blocks))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(s.HashesPerS))
	if s.Running {
		return append(b, 1)
	}
	return append(b, 0)
}

// minerSample reads what appendMiner made.
func minerSample(raw []byte) (s api.MinerSample) {
	p := unpacker(raw)
	s.Time, s.Blocks, s.HashesPerS = time.UnixMilli(p.int()).UTC(), int(p.int()), p.float()
	s.Running = p[0] != 0
	return s
}

// all is what a ring holds, oldest first, each unpacked.
func all[T any](r *ring.Ring, unpack func([]byte) T) []T {
	out := make([]T, 0, r.Len())
	var raw []byte
	for n := r.First(); n < r.Next(); n++ {
		raw, _ = r.Append(raw[:0], n)
		out = append(out, unpack(raw))
	}
	return out
}

// An unpacker is what is left to read of what this process packed itself.
type unpacker []byte

func (p *unpacker) uint() uint64 {
	v, n := binary.Uvarint(*p)
	*p = (*p)[n:]
	return v
}

func (p *unpacker) int() int64 {
	v, n := binary.Varint(*p)
	*p = (*p)[n:]
	return v
}

func (p *unpacker) float() float64 {
	v := math.Float64frombits(binary.LittleEndian.Uint64(*p))
	*p = (*p)[8:]
	return v
}

func (p *unpacker) string() string {
	n := p.uint()
	s := string((*p)[:n])
	*p = (*p)[n:]
	return s
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
	n.history.sync.Add(appendSync(nil, &sync))
	n.history.miner.Add(appendMiner(nil, &miner))
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
	return api.SyncHistory{IntervalS: sampleInterval.Seconds(), Samples: all(f.history.sync, syncSample)}
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
	out.Samples = all(f.history.miner, minerSample)
	return out
}
