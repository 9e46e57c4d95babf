package api

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dunlin/internal/ring"
)

// Types of events.
const (
	EventBlock   = "block"   // a block became part of the active chain: [BlockEvent]
	EventSlot    = "slot"    // a block became part of the active chain whose maker won its slot by stake: [SlotEvent]
	EventReorg   = "reorg"   // the chain changed to another branch: [ReorgEvent]
	EventDouble  = "double"  // a stake signed two blocks for one slot: [DoubleStake]
	EventSync    = "sync"    // the sync moved: [Sync]
	EventPeer    = "peer"    // a peer came, greeted, or went: [PeerEvent]
	EventMempool = "mempool" // transactions came or went: [MempoolEvent]
	EventWallet  = "wallet"  // the wallet has news
	EventLog     = "log"     // a line of the log: [LogRecord]; wants the token

	// EventHello begins every stream, EventReset tells that something was missed. Nobody
	// asks for them.
	EventHello = "hello"
	EventReset = "reset"
)

var eventTypes = []string{EventBlock, EventSlot, EventReorg, EventDouble, EventSync, EventPeer, EventMempool, EventWallet, EventLog}

// Limits of the events.
const (
	// ringEvents of each type are kept for those who come back: at the tip, minutes to
	// days; of a busy log or mempool, seconds. ringBytes bounds what they take: 9 types make 576 KiB. It should be little: each fills
	// within the hour on a node that sees blocks and peers come and go.
	ringEvents = 512
	ringBytes  = 64 << 10
	// eventBytes is what an event that is kept takes besides its data at most: its number and its time.
	eventBytes = 2 * binary.MaxVarintLen64
	// queueEvents is how many may wait for a slow reader.
	queueEvents = 256
	// maxEventBytes is the largest event; what is larger is dropped, with a word in the log.
	maxEventBytes = ringBytes - eventBytes
)

// An Event is something that happened, as a stream tells it.
type Event struct {
	ID   string          `json:"id"` // boot id - number; numbers ascend
	Type string          `json:"type"`
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data"`

	number uint64
}

type (
	// HelloEvent begins a stream.
	HelloEvent struct {
		Boot  string   `json:"boot"`
		Last  uint64   `json:"last"` // number of the latest event
		Types []string `json:"types"`
	}
	// ResetEvent says that events are missing: whoever follows must read everything anew.
	ResetEvent struct {
		Reason string `json:"reason"`
	}
	// BlockEvent is a new block of the active chain.
	BlockEvent struct {
		BlockSummary

		Skipped int `json:"skipped"` // blocks just below that are not told: they came too fast
	}
	// ReorgEvent is a change of branch. It comes before the blocks of the new one.
	ReorgEvent struct {
		Depth        int      `json:"depth"` // blocks taken back
		ForkHeight   int32    `json:"fork_height"`
		ForkHash     string   `json:"fork_hash"`
		OldHash      string   `json:"old_hash"`
		OldHeight    int32    `json:"old_height"`
		NewHash      string   `json:"new_hash"`
		NewHeight    int32    `json:"new_height"`
		Disconnected []string `json:"disconnected"` // highest first, at most 100
		Connected    []string `json:"connected"`    // lowest first, the last 100
	}
	// PeerEvent is what became of a peer.
	PeerEvent struct {
		Action string `json:"action"` // connected, ready (it greeted) or disconnected
		Peer   Peer   `json:"peer"`
	}
	// MempoolEvent is the mempool with what came since the last one.
	MempoolEvent struct {
		Count      int       `json:"count"`
		VBytes     int64     `json:"vbytes"`
		Bytes      int64     `json:"bytes"`
		MinFeeRate int64     `json:"min_fee_rate"`
		Added      []AddedTx `json:"added"` // the last 50
		AddedTotal int       `json:"added_total"`
	}
	// AddedTx is a transaction that came to the mempool.
	AddedTx struct {
		TxID    string `json:"txid"`
		Fee     int64  `json:"fee"`
		VSize   int    `json:"vsize"`
		FeeRate int64  `json:"fee_rate"`
	}
)

// A broker numbers events, keeps the last ones of each type, and hands them to whoever
// follows. It never waits for a reader: one whose queue is full is dropped, and comes
// back with the last id that it read. Safe for concurrent use.
type broker struct {
	boot string // another at every start: numbers of two runs are not compared
	most int    // readers
	now  func() time.Time

	mu      sync.Mutex // guards what follows; held for map and slice operations
	last    uint64
	rings   map[string]*eventRing
	readers map[*reader]bool
}

// An eventRing keeps the last events of a type.
type eventRing struct {
	kind string
	ring *ring.Ring // each as appendEvent makes it, numbers ascend
	gone uint64     // number of the last event that is not kept any more
}

// A reader follows the events of some types.
type reader struct {
	types map[string]bool
	queue chan *Event
	// dropped is closed, by whoever holds the broker's mu, when the queue was full.
	dropped chan struct{}
}

func newBroker(most int, now func() time.Time) *broker {
	var boot [4]byte
	_, _ = rand.Read(boot[:]) // never fails
	b := &broker{boot: hex.EncodeToString(boot[:]), most: most, now: now, rings: map[string]*eventRing{}, readers: map[*reader]bool{}}
	for _, t := range eventTypes {
		b.rings[t] = newEventRing(t)
	}
	return b
}

func (b *broker) id(number uint64) string { return b.boot + "-" + strconv.FormatUint(number, 10) }

// publish tells an event of one of eventTypes. It returns how many readers it dropped.
func (b *broker) publish(kind string, data any) (dropped int, err error) {
	raw := encode(data)
	if len(raw) > maxEventBytes {
		return 0, fmt.Errorf("event %s of %d bytes, limit %d", kind, len(raw), maxEventBytes)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ring := b.rings[kind]
	if ring == nil {
		return 0, fmt.Errorf("event type %q is unknown", kind)
	}
	b.last++
	e := &Event{ID: b.id(b.last), Type: kind, Time: b.now().UTC(), Data: raw, number: b.last}
	ring.add(e)
	for r := range b.readers {
		if !r.types[kind] {
			continue
		}
		select {
		case r.queue <- e:
		default:
			close(r.dropped)
			delete(b.readers, r)
			dropped++
		}
	}
	return dropped, nil
}

func newEventRing(kind string) *eventRing {
	return &eventRing{kind: kind, ring: ring.New(ringEvents, ringBytes)}
}

// appendEvent appends what is kept of an event: its id and its type are known without.
func appendEvent(b []byte, e *Event) []byte {
	b = binary.AppendUvarint(b, e.number)
	b = binary.AppendVarint(b, e.Time.UnixNano())
	return append(b, e.Data...)
}

func (r *eventRing) add(e *Event) {
	raw := appendEvent(make([]byte, 0, eventBytes+len(e.Data)), e)
	for !r.ring.Fits(len(raw)) {
		oldest, _ := r.ring.Append(nil, r.ring.First())
		r.gone, _ = binary.Uvarint(oldest)
		r.ring.Drop()
	}
	r.ring.Add(raw)
}

// since returns the events that are kept behind a number, oldest first. id makes their ids.
func (r *eventRing) since(after uint64, id func(uint64) string) (events []*Event) {
	for n := r.ring.Next(); n > r.ring.First(); n-- {
		raw, _ := r.ring.Append(nil, n-1)
		number, k := binary.Uvarint(raw)
		if number <= after {
			break
		}
		at, l := binary.Varint(raw[k:])
		events = append(events, &Event{ID: id(number), Type: r.kind, Time: time.Unix(0, at).UTC(), Data: raw[k+l:], number: number})
	}
	slices.Reverse(events)
	return events
}

// follow adds a reader of some types. after is the id of the last event that it read, ""
// if it begins. first are the events that open its stream: hello, then what it missed, or
// a reset if that is gone. nil: there are too many readers.
func (b *broker) follow(types []string, after string) (r *reader, first []*Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.readers) >= b.most {
		return nil, nil
	}
	r = &reader{types: make(map[string]bool), queue: make(chan *Event, queueEvents), dropped: make(chan struct{})}
	for _, t := range types {
		r.types[t] = true
	}
	b.readers[r] = true

	from, reason := b.last, ""
	if after != "" {
		from, reason = b.resume(r.types, after)
	}
	now := b.now().UTC()
	first = append(first, &Event{
		ID: b.id(from), Type: EventHello, Time: now, Data: encode(HelloEvent{Boot: b.boot, Last: b.last, Types: types}), number: from,
	})
	if reason != "" {
		return r, append(first, &Event{ID: b.id(b.last), Type: EventReset, Time: now, Data: encode(ResetEvent{reason}), number: b.last})
	}
	for t := range r.types {
		first = append(first, b.rings[t].since(from, b.id)...)
	}
	slices.SortStableFunc(first[1:], func(a, b *Event) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return r, first
}

// resume returns the number of the event after which a stream goes on, and why it
// cannot. Callers hold mu.
func (b *broker) resume(types map[string]bool, after string) (from uint64, reason string) {
	boot, text, _ := strings.Cut(after, "-")
	n, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil:
		return b.last, "the last event id is none of this node's"
	case boot != b.boot:
		return b.last, "the node has started anew"
	case n > b.last:
		return b.last, "the last event id is of an event that has not happened"
	}
	for t := range types {
		if b.rings[t].gone > n {
			return b.last, "events of type " + t + " are not kept so long"
		}
	}
	return n, ""
}

// leave ends a reader's following; one that was dropped has left.
func (b *broker) leave(r *reader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.readers, r)
}

// parseTypes reads a filter; all but the log if there is none.
func parseTypes(filter string) ([]string, error) {
	if filter == "" {
		return slices.DeleteFunc(slices.Clone(eventTypes), func(t string) bool { return t == EventLog }), nil
	}
	var types []string
	for name := range strings.SplitSeq(filter, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(eventTypes, name) {
			return nil, Errorf(422, "types: %q is none of %s", clip(name), strings.Join(eventTypes, ", "))
		}
		if !slices.Contains(types, name) {
			types = append(types, name)
		}
	}
	return types, nil
}
