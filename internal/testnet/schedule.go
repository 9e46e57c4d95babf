package testnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kinds of what chaos does.
const (
	KindKill      = "kill"      // kill -9, and started again
	KindStop      = "stop"      // SIGSTOP, and SIGCONT
	KindPartition = "partition" // some nodes and the others ban one another, and no more
	KindChurn     = "churn"     // ended in order, and started again
	KindSkew      = "skew"      // started again with a clock that is set off, and again with a right one
)

// Kinds lists them all.
var Kinds = []string{KindKill, KindStop, KindPartition, KindChurn, KindSkew}

// lasts bounds how long each kind of event lasts.
var lasts = map[string][2]time.Duration{
	KindKill:      {200 * time.Millisecond, 3 * time.Second},
	KindStop:      {time.Second, 15 * time.Second},
	KindPartition: {4 * time.Second, 30 * time.Second},
	KindChurn:     {2 * time.Second, 20 * time.Second},
	KindSkew:      {6 * time.Second, 40 * time.Second},
}

// maxSkew is the furthest that a clock is set off, minSkew the least.
const (
	minSkew = 5 * time.Second
	maxSkew = 90 * time.Second
)

// rest is how long a node is left alone after an event, to be itself again.
const rest = 5 * time.Second

// An Event is something that chaos does, at a time from its start, to one node or, when it is a partition, to several: those that
// are cut off from the others.
type Event struct {
	At     time.Duration `json:"at_ns"`
	Kind   string        `json:"kind"`
	Nodes  []int         `json:"nodes"`
	Lasts  time.Duration `json:"lasts_ns"`
	Offset time.Duration `json:"clock_offset_ns,omitempty"`
}

// String is the event as a line of a schedule.
func (e Event) String() string {
	who := make([]string, len(e.Nodes))
	for i, id := range e.Nodes {
		who[i] = fmt.Sprint(id)
	}
	list := strings.Join(who, ", ")
	lasts := e.Lasts.Round(100 * time.Millisecond)
	switch e.Kind {
	case KindKill:
		return fmt.Sprintf("kill -9 node %s, start it after %v", list, lasts)
	case KindStop:
		return fmt.Sprintf("suspend node %s for %v", list, lasts)
	case KindPartition:
		return fmt.Sprintf("cut off node %s from the others for %v", list, lasts)
	case KindChurn:
		return fmt.Sprintf("end node %s in order, start it after %v", list, lasts)
	default:
		return fmt.Sprintf("set the clock of node %s off by %+ds for %v", list, int(e.Offset.Seconds()), lasts)
	}
}

// restarts says whether an event ends the process of its node.
func (e Event) restarts() bool { return e.Kind != KindStop && e.Kind != KindPartition }

// ScheduleOptions are what a schedule follows from.
type ScheduleOptions struct {
	Seed  uint64
	Nodes int
	For   time.Duration // all events have ended by then; 5 s to 24 h
	Every time.Duration // from the beginning of an event to that of the next; 200 ms to an hour
	Kinds []string      // empty: all
}

func (o *ScheduleOptions) complete() error {
	if len(o.Kinds) == 0 {
		o.Kinds = Kinds
	}
	var errs []error
	if o.Nodes < MinNodes || o.Nodes > MaxNodes {
		errs = append(errs, fmt.Errorf("nodes %d: must be %d to %d", o.Nodes, MinNodes, MaxNodes))
	}
	if o.For < 5*time.Second || o.For > 24*time.Hour {
		errs = append(errs, fmt.Errorf("for %v: must be 5s to 24h", o.For))
	}
	if o.Every < 200*time.Millisecond || o.Every > time.Hour {
		errs = append(errs, fmt.Errorf("every %v: must be 200ms to 1h", o.Every))
	}
	seen := map[string]bool{}
	for _, k := range o.Kinds {
		errs = append(errs, oneOfWords("kinds", k, Kinds))
		if seen[k] {
			errs = append(errs, fmt.Errorf("kinds: %s is there twice", k))
		}
		seen[k] = true
	}
	return errors.Join(errs...)
}

// spared is how many nodes, the last ones, never have their process ended: what leaks has time to show there.
func spared(nodes int) int { return nodes / 5 }

// Schedule draws up what chaos will do. The same options give the same schedule: nothing that happens meanwhile has a say in it. No node has two
// things done to it at once, nor has it while it recovers; partitions do not overlap.
func Schedule(o ScheduleOptions) ([]Event, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0x6368616f73))
	busy := make([]time.Duration, o.Nodes+1) // until when
	var cut time.Duration                    // until when there is a partition
	var bag []string                         // kinds that are left before all come again
	var out []Event
	for at := o.Every; at < o.For; at += o.Every {
		if len(bag) == 0 {
			bag = slices.Clone(o.Kinds)
			rng.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		kind := bag[0]
		least, most := lasts[kind][0], min(lasts[kind][1], o.For/4)
		least = min(least, most)
		e := Event{At: at, Kind: kind, Lasts: (least + time.Duration(rng.Int64N(int64(most-least)+1))).Round(10 * time.Millisecond)}
		if at+e.Lasts > o.For {
			if e.Lasts = (o.For - at).Round(10 * time.Millisecond); e.Lasts < least {
				continue // no time is left for this one
			}
		}
		if kind == KindPartition {
			if at < cut {
				continue // the kind stays in the bag
			}
			ids := idsOf(o.Nodes)
			rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			e.Nodes = ids[:1+rng.IntN(max(o.Nodes/2, 1))]
			slices.Sort(e.Nodes)
			cut = at + e.Lasts + rest
		} else {
			var free []int
			for _, id := range idsOf(o.Nodes) {
				if busy[id] <= at && (!e.restarts() || id <= o.Nodes-spared(o.Nodes)) {
					free = append(free, id)
				}
			}
			if len(free) == 0 {
				continue
			}
			e.Nodes = []int{free[rng.IntN(len(free))]}
			busy[e.Nodes[0]] = at + e.Lasts + rest
		}
		if kind == KindSkew {
			e.Offset = minSkew + time.Duration(rng.IntN(int((maxSkew-minSkew)/time.Second)+1))*time.Second
			if rng.IntN(2) == 0 {
				e.Offset = -e.Offset
			}
		}
		bag = bag[1:]
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("for %v, every %v: too short for any event of %s", o.For, o.Every, strings.Join(o.Kinds, ", "))
	}
	return out, nil
}
