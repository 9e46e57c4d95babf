package seeder

import (
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// periods are those over which reliability is averaged.
var periods = [4]time.Duration{2 * time.Hour, 8 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}

// A node is good if it answered its last probe and more than half of its first three, or if its average
// over one of the periods is high enough after enough probes: the numbers of bitcoin-seeder.
var enough = [4]struct{ reliability, count float64 }{{0.85, 2}, {0.70, 4}, {0.55, 8}, {0.45, 16}}

const (
	firstProbes = 3
	maxPause    = 24 * time.Hour // between probes of a node that does not answer

	// A node that never answered is forgotten after so many probes, one that did after so long.
	maxNewTries = 5
	maxSilence  = 14 * 24 * time.Hour

	maxAddrs      = 4 // kept of a node
	maxAgentBytes = 64
)

// average is an exponentially decaying average of outcomes.
type average struct {
	Reliability float64 `json:"r"` // share of probes that were answered
	Weight      float64 `json:"w"` // 0 to 1: how much of the period has been seen
	Count       float64 `json:"n"` // probes in the period
}

// update adds an outcome, age after the one before.
func (a *average) update(ok bool, age, period time.Duration) {
	f := math.Exp(-age.Seconds() / period.Seconds())
	a.Reliability *= f
	if ok {
		a.Reliability += 1 - f
	}
	a.Count = a.Count*f + 1
	a.Weight = a.Weight*f + 1 - f
}

// origin says who named a node.
type origin int

const (
	byNode origin = iota
	byCandidates
	byOperator
)

// node is what we know of one.
type node struct {
	id      peer.ID
	addrs   []ma.Multiaddr // where it answered first; at most maxAddrs
	height  int32
	agent   string
	serves  bool
	tries   uint64
	success uint64
	fails   int // in a row
	last    time.Time
	lastOK  time.Time
	first   time.Time // learnt
	avg     [4]average

	by    origin
	fixed bool // of Options.Bootstrap
	busy  bool // being probed
}

// due is when the node is to be probed next.
func (n *node) due(interval time.Duration) time.Time {
	if n.tries == 0 {
		return time.Time{}
	}
	return n.last.Add(min(interval<<min(max(n.fails-1, 0), 16), max(maxPause, interval)))
}

// probed notes an outcome.
func (n *node) probed(now time.Time, ok bool, interval time.Duration) {
	age := interval // the first probe stands for one interval
	if n.tries > 0 {
		age = max(now.Sub(n.last), 0)
	}
	for i := range n.avg {
		n.avg[i].update(ok, age, periods[i])
	}
	n.tries++
	n.last = now
	if ok {
		n.success++
		n.fails = 0
		n.lastOK = now
		return
	}
	n.fails++
}

// good reports whether newcomers are to be sent to the node. median is the height of the network.
func (n *node) good(now time.Time, interval time.Duration, median int32) bool {
	const mayLag = 2016 // blocks: it is syncing itself
	if !n.serves || n.success == 0 || n.fails > 0 || now.Sub(n.last) > 3*interval+time.Minute || median-n.height > mayLag {
		return false
	}
	if n.tries <= firstProbes {
		return 2*n.success > n.tries
	}
	for i, e := range enough {
		// The average of a young node is low because its weight is: judged by what was seen.
		if a := n.avg[i]; a.Count > e.count && a.Reliability > e.reliability*a.Weight {
			return true
		}
	}
	return false
}

// hopeless reports whether the node may be forgotten.
func (n *node) hopeless(now time.Time) bool {
	if n.fixed || n.busy {
		return false
	}
	if n.success == 0 {
		return n.tries >= maxNewTries
	}
	return now.Sub(n.lastOK) > maxSilence && n.fails > 0
}

// merge puts addresses behind those known.
func merge(first, rest []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, list := range [][]ma.Multiaddr{first, rest} {
		for _, a := range list {
			if len(out) < maxAddrs && !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	return out
}
