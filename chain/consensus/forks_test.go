package consensus_test

import (
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// versions is a past of which only versions matter.
type versions []int32

func (v versions) Height() int32        { return int32(len(v) - 1) }
func (v versions) Hash() chainhash.Hash { return chainhash.Hash{} }
func (v versions) At(height int32) consensus.PastHeader {
	return consensus.PastHeader{Version: v[height]}
}

// votedVersions remembers its votes, as the chain's pasts do.
type votedVersions struct {
	versions
	votes consensus.Votes
}

func (v votedVersions) Votes() consensus.Votes { return v.votes }

// signalling returns a branch with votes for bits in each of the windows given.
func signalling(votes ...map[int]int) versions {
	v := make(versions, 100*len(votes))
	for w, bits := range votes {
		for i := range 100 {
			version := int32(0x2000_0000)
			for bit, n := range bits {
				if i < n {
					version |= 1 << bit
				}
			}
			v[100*w+i] = version
		}
	}
	return v
}

func TestForks(t *testing.T) {
	t.Parallel()
	none, all := map[int]int{}, map[int]int{0: 75, 1: 75, 2: 75}
	for name, tt := range map[string]struct {
		past    versions
		want    consensus.Forks
		version int32 // of a block on it
	}{
		"before the vote":           {signalling(all)[:99], consensus.Forks{}, 0x2000_0000},
		"the vote is open":          {signalling(all), consensus.Forks{}, 0x2000_0007},
		"votes before it count not": {signalling(all, none, none, none), consensus.Forks{}, 0x2000_0007},
		"locked in":                 {signalling(none, all), consensus.Forks{}, 0x2000_0007},
		"not yet active":            {signalling(none, all, none)[:299], consensus.Forks{}, 0x2000_0007},
		"active":                    {signalling(none, all, none), consensus.Forks{CSV: true, Segwit: true, Taproot: true}, 0x2000_0000},
		"for ever":                  {signalling(none, all, none, none, none), consensus.Forks{CSV: true, Segwit: true, Taproot: true}, 0x2000_0000},
		"one vote short":            {signalling(none, map[int]int{0: 74, 1: 75, 2: 74}, none), consensus.Forks{Segwit: true}, 0x2000_0005},
		"later, one by one":         {signalling(none, map[int]int{2: 75}, none, map[int]int{0: 100}, none), consensus.Forks{CSV: true, Taproot: true}, 0x2000_0002},
	} {
		if got := consensus.Simnet().Forks(tt.past); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
		if got := consensus.Simnet().BlockVersion(tt.past); got != tt.version {
			t.Errorf("%s: version %#x, want %#x", name, got, tt.version)
		}
	}
	// Only versions with BIP9's top bits vote, and regtest does not ask them.
	old := signalling(none, none, none)
	for i := range old {
		old[i] = 0x7fff_ffff
	}
	if got := consensus.Simnet().Forks(old); got != (consensus.Forks{}) {
		t.Errorf("votes without the top bits: %+v", got)
	}
	if got := consensus.Regtest().BlockVersion(signalling(all)); got != 0x2000_0000 {
		t.Errorf("regtest: version %#x", got)
	}
}

// Votes carried from block to block are those counted from genesis.
func TestNextVotes(t *testing.T) {
	t.Parallel()
	const seed = 9
	r := rand.New(rand.NewPCG(seed, 0))
	p := consensus.Simnet()
	for range 20 {
		var past versions
		var v consensus.Votes
		lazy := r.IntN(3) // a fork that few vote for
		for range 900 {
			version := int32(0x2000_0000)
			for bit := range 3 {
				if n := r.IntN(100); n < 76 && (bit != lazy || n < 70) {
					version |= 1 << bit
				}
			}
			past = append(past, version)
			v = p.NextVotes(v, past)
			if got, want := p.Forks(votedVersions{past, v}), p.Forks(past); got != want {
				t.Fatalf("seed %d, height %d: %+v, from genesis %+v", seed, past.Height(), got, want)
			}
		}
	}
}
