package consensus

import "math"

// NotBuried is the height of a fork that no height activates.
const NotBuried = math.MaxInt32

// Signalling is how a network activates CSV, segwit and taproot by what miners
// signal in versions (BIP9): the vote is always open and never ends, as on btcd's
// simnet. The zero value says that heights decide alone.
type Signalling struct {
	Window    int32 // blocks; votes are counted at the end of one
	Threshold int32 // votes in a window that lock a fork in
}

// Forks says which of the soft forks that can be voted on apply to a block. For
// the others their height is all there is to know.
type Forks struct {
	CSV     bool // BIP68, BIP112, BIP113
	Segwit  bool // BIP141's commitment, BIP147
	Taproot bool // BIP341, BIP342
}

// The forks that are voted on are numbered as the version bits that vote for them.
const (
	forkCSV = iota
	forkSegwit
	forkTaproot
	votedForks
)

// BIP9's states, less the one that a vote without an end cannot reach.
const (
	forkDefined = iota
	forkStarted
	forkLockedIn
	forkActive
)

// Votes is how far the forks got on a branch: the states, two bits each, that
// apply to the block after its last. Zero is right for genesis.
type Votes uint8

const allActive Votes = 1<<(2*votedForks) - 1

func (v Votes) state(fork int) int { return int(v>>(2*fork)) & 3 }

const (
	versionTop     = 0x2000_0000 // the top bits of BIP9
	versionTopMask = 0xe000_0000
)

// votesFor says whether a version signals for a fork.
func votesFor(version int32, fork int) bool {
	v := uint32(version)
	return v&versionTopMask == versionTop && v>>fork&1 == 1
}

// NextVotes returns the votes of the branch that past is, given those of the
// branch without its last block. It looks further back only at the end of a
// window, so who remembers a branch's votes pays for one version a block.
func (p *Params) NextVotes(before Votes, past Past) Votes {
	return p.nextVotes(before, past, past.Height())
}

// nextVotes is NextVotes for the ancestor at height.
func (p *Params) nextVotes(before Votes, past Past, height int32) Votes {
	w := p.Signalling.Window
	if w <= 0 || (height+1)%w != 0 || before == allActive {
		return before
	}
	var count [votedForks]int32
	for h := height - w + 1; h <= height; h++ {
		version := past.At(h).Version
		for fork := range count {
			if votesFor(version, fork) {
				count[fork]++
			}
		}
	}
	var after Votes
	for fork := range count {
		state := before.state(fork)
		if state == forkDefined || state == forkLockedIn || state == forkStarted && count[fork] >= p.Signalling.Threshold {
			state++
		}
		after |= Votes(state) << (2 * fork)
	}
	return after
}

// A Voted past remembers the votes of its branch. Without it they are counted
// from genesis each time.
type Voted interface {
	Votes() Votes // what NextVotes gave, from genesis to the last block
}

func (p *Params) votes(past Past) (v Votes) {
	if p.Signalling.Window <= 0 {
		return 0
	}
	if voted, ok := past.(Voted); ok {
		return voted.Votes()
	}
	for h := p.Signalling.Window - 1; h <= past.Height() && v != allActive; h += p.Signalling.Window {
		v = p.nextVotes(v, past, h)
	}
	return v
}

// Forks returns the forks that apply to the block after past.
func (p *Params) Forks(past Past) Forks {
	height, v := past.Height()+1, p.votes(past)
	return Forks{
		CSV:     height >= p.CSVHeight || v.state(forkCSV) == forkActive,
		Segwit:  height >= p.SegwitHeight || v.state(forkSegwit) == forkActive,
		Taproot: height >= p.TaprootHeight || v.state(forkTaproot) == forkActive,
	}
}

// BlockVersion is the version that a block made here after past carries: it
// signals for what is being voted on.
func (p *Params) BlockVersion(past Past) int32 {
	version := int32(versionTop)
	if p.Signalling.Window > 0 {
		v := p.votes(past)
		for fork := range votedForks {
			if s := v.state(fork); s == forkStarted || s == forkLockedIn {
				version |= 1 << fork
			}
		}
	}
	return version
}
