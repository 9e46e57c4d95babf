package gossip

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// blameHalfLife is the time in which half of the blame is forgiven.
	blameHalfLife = 30 * time.Minute
	// maxBlamed bounds the peers with blame, connected or not; about 200 B each. Beyond, the
	// least blamed are forgiven.
	maxBlamed = 4096
	// maxBlameReason bounds what is kept of a reason.
	maxBlameReason = 200
	// maxBlamePoints bounds what one peer can have, and so how long it has it.
	maxBlamePoints = 10_000
)

// blames are points against peers, halved every blameHalfLife and forgotten below
// one.
type blames struct {
	mu sync.Mutex // guards m, held for a map access; for a pass over it when it is full
	m  map[peer.ID]blame
}

type blame struct {
	points float64
	at     time.Time // when there were so many
	reason string    // of the last
}

func (b blame) now(now time.Time) float64 {
	points := b.points * math.Exp2(-float64(now.Sub(b.at))/float64(blameHalfLife))
	if points < 1 {
		return 0
	}
	return points
}

// add blames a peer and returns its points.
func (bs *blames) add(p peer.ID, points float64, reason string, now time.Time) float64 {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.m == nil {
		bs.m = make(map[peer.ID]blame)
	}
	b, known := bs.m[p]
	if !known && len(bs.m) >= maxBlamed {
		bs.forgetLocked(now)
	}
	b = blame{points: min(maxBlamePoints, b.now(now)+points), at: now, reason: reason[:min(len(reason), maxBlameReason)]}
	bs.m[p] = b
	return b.points
}

// forgetLocked drops whoever is forgiven, or, if nobody is, the sixteenth part that
// has least: so it is rarely called.
func (bs *blames) forgetLocked(now time.Time) {
	maps.DeleteFunc(bs.m, func(_ peer.ID, b blame) bool { return b.now(now) == 0 })
	if len(bs.m) < maxBlamed {
		return
	}
	all := slices.Collect(maps.Keys(bs.m))
	slices.SortFunc(all, func(a, b peer.ID) int { return cmp.Compare(bs.m[a].now(now), bs.m[b].now(now)) })
	for _, p := range all[:maxBlamed/16] {
		delete(bs.m, p)
	}
}

// of returns a peer's points and the last reason.
func (bs *blames) of(p peer.ID, now time.Time) (points float64, reason string) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b, ok := bs.m[p]
	if !ok {
		return 0, ""
	}
	if points = b.now(now); points == 0 {
		delete(bs.m, p)
		return 0, ""
	}
	return points, b.reason
}

// Blame lowers a peer's score by points, for what it provably did on another
// protocol; GraylistPoints stop listening to it. Half is forgiven every 30 min; at
// most 10,000 points a peer and 4,096 peers are kept. It returns the points that
// the peer has now. reason is for people; its first 200 bytes are kept.
func (g *Gossip) Blame(p peer.ID, points float64, reason string) float64 {
	if !(points > 0) { // also what is not a number
		points = 0
	}
	return g.blames.add(p, points, reason, time.Now())
}

// count returns how many peers have blame.
func (bs *blames) count() int {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return len(bs.m)
}
