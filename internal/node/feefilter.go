package node

import (
	"math"
	"sync"
	"time"

	"dunlin/chain/exchange"
	"dunlin/chain/mempool"
)

const (
	// feeStep is between the fee rates that peers are told, rounded down: exact
	// ones would tell nodes apart.
	feeStep = 1.1
	// floorFor is how long the peers' least fee rate is taken for known: they tell
	// it every 30 s.
	floorFor = time.Second
	// tryFeeAgain is when a transaction is looked at again that pays less than any
	// peer takes.
	tryFeeAgain = time.Minute
)

// A feeFloor knows the least fee rate that any peer takes. GossipSub decides for
// all neighbours together, so what at least one of them takes is passed on to all;
// what none takes stays here, and others find it in the list of the mempool when
// they take it again.
type feeFloor struct {
	peers func() []exchange.Peer

	mu   sync.Mutex // guards what follows, held while the peers are listed
	at   time.Time
	rate int64
}

// least returns it in satoshi per 1000 virtual bytes; 0 if a peer does not say, or
// there is none.
func (f *feeFloor) least(now time.Time) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() || now.Sub(f.at) >= floorFor {
		f.at, f.rate = now, math.MaxInt64
		for _, p := range f.peers() {
			f.rate = min(f.rate, p.MinFeeRate)
		}
		if f.rate == math.MaxInt64 {
			f.rate = 0
		}
	}
	return f.rate
}

// takes says whether a peer takes the entry, as far as its fee goes.
func (f *feeFloor) takes(e *mempool.Entry, now time.Time) bool {
	return mempool.CompareFeeRates(e.Fee, e.FeeWeight(), f.least(now), 4000) >= 0
}

// tellFeeRate is what peers are told: least while rate is not above it, else rate
// rounded down to a power of feeStep.
func tellFeeRate(rate, least int64) int64 {
	if rate <= least {
		return rate
	}
	step := math.Floor(math.Log(float64(rate)) / math.Log(feeStep))
	return max(least, min(rate, int64(math.Pow(feeStep, step))))
}

// feeRateToTell is the fee rate that lets a transaction in, as peers are told.
func (n *Node) feeRateToTell() int64 {
	return tellFeeRate(n.pool.MinFeeRate(), int64(n.c.Mempool.MinRelayFee))
}
