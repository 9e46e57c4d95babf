package mempool

import (
	"container/heap"
	"math"
	"time"
)

// evictionHeap orders entries by what keeping them is worth, least first; of
// equals the newest goes first.
type evictionHeap []*entry

// Len implements heap.Interface.
func (h evictionHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h evictionHeap) Less(i, j int) bool {
	feeA, weightA := h[i].score()
	feeB, weightB := h[j].score()
	if c := CompareFeeRates(feeA, weightA, feeB, weightB); c != 0 {
		return c < 0
	}
	return h[i].seq > h[j].seq
}

// Swap implements heap.Interface.
func (h evictionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *evictionHeap) Push(x any) {
	e := x.(*entry) // only add calls it, with an entry
	e.at = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *evictionHeap) Pop() any {
	old := *h
	n := len(old) - 1
	e := old[n]
	old[n] = nil
	*h = old[:n]
	return e
}

func (h *evictionHeap) add(e *entry)    { heap.Push(h, e) }
func (h *evictionHeap) remove(e *entry) { heap.Remove(h, e.at) }
func (h *evictionHeap) fix(e *entry)    { heap.Fix(h, e.at) }

// trim evicts, while over the limit, the entry that is worth least with what
// builds on it, and raises the floor above what that paid. Callers hold mu.
func (p *Pool) trim(now time.Time) {
	most := min(p.o.MaxBytes, p.o.MaxBytes+maxReturnedBytes-p.waiting)
	for p.memory > most && len(p.order) > 0 {
		worst := p.order[0]
		fee, weight := worst.score()
		if p.memory > p.o.MaxBytes { // else there is room again in a moment
			p.floor.raise(1000*float64(fee)/(float64(weight)/4)+float64(p.increment()), now)
		}
		p.removeTree(worst, Fate{Cause: Evicted, Rule: "mempool-full"}, now)
	}
}

const (
	// floorHalfLife is how fast the floor sinks, as in Bitcoin Core; twice and
	// four times as fast while the pool is under a half and a quarter full.
	floorHalfLife = 12 * time.Hour
	// floorStep is how often it does.
	floorStep = 10 * time.Second
)

// rollingFloor is the fee rate below which transactions were evicted, in satoshi
// per 1000 virtual bytes. Without it a full pool would take, check and evict the
// same cheap transactions for ever. It sinks once a block has come since, for
// until then nothing has made room.
type rollingFloor struct {
	rate  float64
	since time.Time // rate is as of then
	block bool      // a block came since the last raise
}

func (f *rollingFloor) raise(rate float64, now time.Time) {
	if rate > f.rate {
		f.rate, f.since, f.block = rate, now, false
	}
}

func (f *rollingFloor) mined(now time.Time) {
	if !f.block {
		f.block, f.since = true, now
	}
}

// sink lowers the floor for the time since it was last; fill is how full the
// pool is. It is gone below half of least.
func (f *rollingFloor) sink(now time.Time, fill float64, least int64) {
	d := now.Sub(f.since)
	if f.rate == 0 || !f.block || d < floorStep {
		return
	}
	half := floorHalfLife.Seconds()
	switch {
	case fill < 0.25:
		half /= 4
	case fill < 0.5:
		half /= 2
	}
	f.rate *= math.Exp2(-d.Seconds() / half)
	f.since = now
	if f.rate < float64(least)/2 {
		f.rate = 0
	}
}

// minFeeRate is the rate that lets a transaction in. Callers hold mu.
func (p *Pool) minFeeRate(now time.Time) int64 {
	p.floor.sink(now, float64(p.memory)/float64(p.o.MaxBytes), p.increment())
	return max(p.o.MinFeeRate, int64(min(math.Ceil(p.floor.rate), 1e18)))
}

// sweep removes entries, orphans and debts that are too old.
func (p *Pool) sweep() {
	now := p.o.Now()
	p.mu.Lock()
	var old []*entry
	for _, e := range p.order {
		if now.Sub(e.Added) > p.o.Expiry {
			old = append(old, e)
		}
	}
	expired := 0
	for _, e := range old {
		if p.byID[e.ID] == e { // not gone with a parent
			expired += len(p.removeTree(e, Fate{Cause: Expired}, now))
		}
	}
	p.orphans.expire(now)
	p.waste.settle(now)
	p.mu.Unlock()
	if expired > 0 {
		p.log.Info("mempool expired", "txs", expired, "older_than", p.o.Expiry)
	}
}
