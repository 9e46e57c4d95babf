// Package ibd decides which peer to ask for which blocks while a node catches
// up with the network (initial block download).
//
// A [Scheduler] is a pure state machine: no goroutine, no clock, no I/O. The
// driver (chain/exchange) reports each event with the time at which it happened
// and performs the actions that [Scheduler.Step] returns. The same seed, config
// and events give the same actions.
package ibd

import "time"

// PeerID names a peer. The scheduler only compares it.
type PeerID string

// RequestID numbers the requests of one Scheduler, from 1.
type RequestID uint64

// Config bounds the work of a Scheduler. Zero means the default.
type Config struct {
	MaxRequestsPerPeer int   // outstanding at one peer; default and most: 16
	MaxBlocksPerPeer   int   // blocks promised by one peer; default 1024
	MaxBytesPerPeer    int64 // bytes promised by one peer; default 16 MiB
	MaxRequests        int   // outstanding at all peers together; default 128
	MaxBytes           int64 // promised + buffered + delivered but not connected, all peers; default 64 MiB
	MaxCount           int   // blocks in one request; default and most: 128
	Window             int32 // heights past the connected tip that may be asked for; default 16,384
	MaxBlockBytes      int64 // the network's largest block on the wire; no default
	Seed               uint64
}

// An Event is something that happened: one of the types below.
type Event interface{ isEvent() }

// Target says what to download: the blocks at heights (Base, Best] of the best
// header chain. Base is the highest height up to which the validated chain and
// the best header chain agree. Sent at the start and at each change.
type Target struct {
	Base, Best int32
	// Keep is the highest height whose block is the same as under the previous
	// Target: what is in flight or buffered above it is cancelled and forgotten.
	Keep int32
	// Have lists heights in (Base, Best] whose bytes are already on disk, as
	// ascending, non-overlapping [from, to] pairs: never asked for.
	Have [][2]int32
}

// PeerTip reports a peer that serves heights [Low, High] of the best header
// chain: a new peer or a change of a known one.
type PeerTip struct {
	Peer      PeerID
	Low, High int32
	RTT       time.Duration // smallest seen; 0 unknown
}

// PeerGone reports that a peer disconnected.
type PeerGone struct{ Peer PeerID }

// Bytes reports n bytes of the reply to ID that arrived just now, whether or
// not a block is complete.
type Bytes struct {
	Peer PeerID
	ID   RequestID
	N    int64
}

// Block reports a complete block of the reply to ID, already matched to the
// validated header at Height.
type Block struct {
	Peer   PeerID
	ID     RequestID
	Height int32
	Size   int64
}

// Status is how a reply ended.
type Status uint8

const (
	OK       Status = iota // everything promised or max bytes reached
	NotFound               // the peer lacks these blocks: not its fault
	Busy                   // the peer asks to be left alone for a moment
	TooLarge               // the first block alone exceeds max bytes: Size tells how large it is
	Failed                 // the stream broke or the deadline passed
	Lied                   // the reply did not match the request: wrong block, oversize, garbage
)

// Done reports the end of the reply to ID.
type Done struct {
	Peer   PeerID
	ID     RequestID
	Status Status
	Size   int64 // with TooLarge
}

// Connected reports that the chain holds everything up to Height as validated.
type Connected struct{ Height int32 }

// Rejected reports that the chain refused the delivered block at Height.
// BlameSender means that the bytes were mutated, so the height is asked for
// again elsewhere; otherwise a new Target follows from the chain.
type Rejected struct {
	Height      int32
	BlameSender bool
}

// Tick lets time pass. Send one at least every 100 ms while syncing.
type Tick struct{}

func (Target) isEvent()    {}
func (PeerTip) isEvent()   {}
func (PeerGone) isEvent()  {}
func (Bytes) isEvent()     {}
func (Block) isEvent()     {}
func (Done) isEvent()      {}
func (Connected) isEvent() {}
func (Rejected) isEvent()  {}
func (Tick) isEvent()      {}

// An Action is something the driver must do: one of the types below.
type Action interface{ isAction() }

// Request asks Peer for Count blocks from Start; the reply may not exceed MaxBytes.
type Request struct {
	Peer     PeerID
	ID       RequestID
	Start    int32
	Count    int
	MaxBytes int64
	Attempt  int // 1 for the first request for Start
}

// Cancel withdraws a request; blocks that still arrive for it are discarded.
type Cancel struct {
	Peer PeerID
	ID   RequestID
}

// Deliver gives the buffered block at Height, which Peer sent, to the chain.
// Deliveries come in height order.
type Deliver struct {
	Peer   PeerID
	Height int32
}

// Discard frees a received block that is not wanted (a hedge's second copy, or
// a block of an abandoned branch).
type Discard struct {
	Peer   PeerID
	Height int32
}

// Drop disconnects Peer: it lied.
type Drop struct {
	Peer   PeerID
	Reason string
}

// Stalled is for the log: Peer holds Height and has sent nothing for Waited;
// Asked was asked instead or too.
type Stalled struct {
	Peer   PeerID
	Height int32
	Waited time.Duration
	Asked  PeerID // empty: nobody else has it
}

func (Request) isAction() {}
func (Cancel) isAction()  {}
func (Deliver) isAction() {}
func (Discard) isAction() {}
func (Drop) isAction()    {}
func (Stalled) isAction() {}

// Stats is a snapshot for the progress line.
type Stats struct {
	Peers, Serving         int   // known; with a request outstanding
	Requests, RequestLimit int   // in flight
	PromisedBytes          int64 // of outstanding requests, not yet received
	BufferedBytes          int64 // received, not yet connected
	ByteLimit              int64
	Reason                 string // why nothing is asked for; empty while working
}

// A Scheduler tracks peers, outstanding requests and blocks that await
// connection. It is not safe for concurrent use.
type Scheduler struct{}

// New returns a Scheduler. It reports every field of cfg that is out of range.
func New(cfg Config) (*Scheduler, error) { panic("stub") }

// Step takes one event and returns what to do now, in order. The slice is
// reused by the next Step.
func (s *Scheduler) Step(now time.Time, e Event) []Action { panic("stub") }

// Stats returns a snapshot.
func (s *Scheduler) Stats() Stats { panic("stub") }
