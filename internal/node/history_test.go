package node

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"dunlin/internal/api"
)

// A node catches up until it was in sync, and again when it is far behind; a few blocks at the tip change nothing.
func TestCatchesUp(t *testing.T) {
	var s sampler
	for i, x := range []struct {
		state  string
		behind int32
		want   bool
	}{
		{api.StateStarting, 0, true},
		{api.StateHeaders, 0, true},
		{api.StateBlocks, 3, true},
		{api.StateSynced, 0, false},
		{api.StateBlocks, 1, false},
		{api.StateStalled, catchUpBlocks, false},
		{api.StateBlocks, catchUpBlocks + 1, true},
		{api.StateBlocks, 2, false},
		{api.StateSynced, 0, false},
	} {
		if got := s.catchesUp(api.Sync{SyncStatus: api.SyncStatus{State: x.state}, Height: 1000, HeaderHeight: 1000 + x.behind}); got != x.want {
			t.Errorf("%d: %s, %d behind: %v", i, x.state, x.behind, got)
		}
	}
}

// Samples are told as they were taken, the last half hour of them, whatever a node had to do: they take a tenth of a megabyte at the tip, and a
// sync with many peers has a limit.
func TestHistoryIsBounded(t *testing.T) {
	at := time.UnixMilli(1_795_000_000_123).UTC()
	sample := func(i, peers int) api.SyncSample {
		s := api.SyncSample{
			Time: at.Add(time.Duration(i) * sampleInterval), State: api.StateSynced, Height: int32(i), HeaderHeight: math.MaxInt32, BlocksPerS: 0.1, BytesPerS: 1e9,
			InFlight: 3, InFlightBytes: 1 << 40, BufferedBytes: 7, Peers: []api.PeerInFlight{},
		}
		for p := range peers {
			s.Peers = append(s.Peers, api.PeerInFlight{ID: fmt.Sprintf("12D3KooW%044d", p), InFlight: p})
		}
		return s
	}
	for _, x := range []struct{ peers, bytes int }{{0, 96 << 10}, {1, 144 << 10}, {maxSampledPeers, syncSampleBytes + 8*maxSamples}} {
		h := newHistory()
		var syncs []api.SyncSample
		var miners []api.MinerSample
		for i := range 2 * maxSamples {
			s, m := sample(i, x.peers), api.MinerSample{Time: at.Add(time.Duration(i) * sampleInterval), HashesPerS: 1e6 / 3, Running: i%2 == 0, Blocks: math.MaxInt}
			h.sync.Add(appendSync(nil, &s))
			h.miner.Add(appendMiner(nil, &m))
			syncs, miners = append(syncs, s), append(miners, m)
		}
		got := all(h.sync, syncSample)
		if x.peers < maxSampledPeers && len(got) != maxSamples || len(got) < maxSamples/3 || !slices.EqualFunc(got, syncs[len(syncs)-len(got):], func(a, b api.SyncSample) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%d peers: %d samples, %+v to %+v", x.peers, len(got), got[0], got[len(got)-1])
		}
		if got := all(h.miner, minerSample); !slices.Equal(got, miners[maxSamples:]) {
			t.Errorf("%d samples of the miner, %+v", len(got), got[0])
		}
		if s, m := h.sync.Size(), h.miner.Size(); s > x.bytes || m > maxSamples*(minerSampleBytes+8) {
			t.Errorf("%d peers: samples take %d and %d bytes", x.peers, s, m)
		}
	}
}
