package flood

import (
	"slices"
	"sync"
	"time"
)

// Buckets are the upper bounds in seconds of the delays that Stats counts.
var Buckets = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60}

// Delays counts how long something took.
type Delays struct {
	Count  uint64
	Sum    float64  // seconds
	Within []uint64 // how many took at most each of Buckets, cumulative
}

func newDelays() Delays { return Delays{Within: make([]uint64, len(Buckets))} }

func (d *Delays) add(t time.Duration) {
	s := max(t, 0).Seconds()
	d.Count++
	d.Sum += s
	for i, most := range slices.Backward(Buckets) {
		if s > most {
			break
		}
		d.Within[i]++
	}
}

func (d Delays) clone() Delays {
	d.Within = slices.Clone(d.Within)
	return d
}

// Stats counts since New.
type Stats struct {
	// Messages judged, by encoding. What became of them is for gossip to count.
	WholeMessages, CompactMessages uint64

	// Blocks completed here that came by the topic, by how: as a whole message; put
	// together from the pool alone; with transactions that were asked for; fetched
	// whole, for the compact one could not be put together.
	Whole, FromPool, Pulled, Fetched uint64
	// GivenUp counts compact blocks that were left to sync.
	GivenUp uint64
	// Crowded counts messages dropped because too many waited; sync brings them.
	Crowded uint64

	// Of the compact blocks completed: their transactions, those among them that were in
	// the message, and those that were asked for.
	Txs, PrefilledTxs, PulledTxs uint64
	PulledBytes                  uint64 // of transactions and whole blocks that were asked for
	Requests, RequestsFailed     uint64

	Sent    uint64 // own blocks, and tips that did not come by the topic
	SentAs  SentAs
	InWork  int // compact blocks that are not complete
	Fetches int // requests under way

	// Delays of completed blocks: from the time in the header, which has a
	// resolution of a second and is set when work on it begins; and from the first message.
	FromHeader, FromSight Delays
	// Last is the latest completed block.
	Last Completed
}

// SentAs counts own blocks by encoding, and their bytes.
type SentAs struct {
	Whole, Compact uint64
	Bytes          uint64
	Prefilled      uint64 // transactions that others were guessed not to have
}

// counters is Stats with its lock.
type counters struct {
	mu sync.Mutex // guards s, held for an instant
	s  Stats
}

func (c *counters) do(f func(s *Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.s
	s.FromHeader, s.FromSight = s.FromHeader.clone(), s.FromSight.clone()
	return s
}
