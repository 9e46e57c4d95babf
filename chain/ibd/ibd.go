package ibd

import "time"

// PeerID names a peer. The scheduler only compares it.
type PeerID string

// RequestID numbers the requests of one Scheduler, from 1.
type RequestID uint64

// Defaults of [Config], and the largest values of the fields that say so.
const (
	DefaultRequestsPerPeer = 16
	DefaultBlocksPerPeer   = 1024
	DefaultBytesPerPeer    = 16 << 20
	DefaultRequests        = 128
	DefaultBytes           = 64 << 20
	DefaultCount           = 128
	DefaultWindow          = 16384
	maxWindow              = 1 << 20 // about 100 bytes of memory a height
)

// Config bounds the work of a Scheduler. Zero means the default.
type Config struct {
	MaxRequestsPerPeer int    // outstanding at one peer; default and most: 16
	MaxBlocksPerPeer   int    // blocks promised by one peer; default 1024
	MaxBytesPerPeer    int64  // bytes promised by one peer; default 16 MiB
	MaxRequests        int    // outstanding at all peers together; default 128
	MaxBytes           int64  // promised + buffered + delivered but not connected, all peers; default 64 MiB
	MaxCount           int    // blocks in one request; default and most: 128
	Window             int32  // heights past the connected tip that may be asked for; default 16,384, most 1,048,576
	MaxBlockBytes      int64  // the network's largest block on the wire; no default, most MaxBytesPerPeer
	Seed               uint64 // of ties between equal peers and of the jitter of back-off
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
	// ascending, non-overlapping [from, to] pairs: never asked for and never
	// delivered. Delivered blocks that are listed no longer count as memory.
	Have [][2]int32
}

// PeerTip reports a peer that serves heights [Low, High] of the best header
// chain: a new peer or a change of a known one.
type PeerTip struct {
	Peer      PeerID
	Low, High int32
	RTT       time.Duration // smallest seen; 0 unknown
}

// PeerGone reports that a peer disconnected and ends all its requests. What it
// sent stays buffered.
type PeerGone struct{ Peer PeerID }

// Bytes reports N bytes of the reply to ID that arrived just now, whether or
// not a block is complete.
type Bytes struct {
	Peer PeerID
	ID   RequestID
	N    int64
}

// Block reports a complete block of the reply to ID, already matched to the
// validated header at Height. Blocks of a reply come in height order from the
// first: anything else is a lie of the peer.
type Block struct {
	Peer   PeerID
	ID     RequestID
	Height int32
	Size   int64
}

// Status is how a reply ended.
type Status uint8

// The ends of a reply.
const (
	OK       Status = iota // everything promised or max bytes reached
	NotFound               // the peer lacks these blocks: not its fault
	Busy                   // the peer asks to be left alone for a moment
	TooLarge               // the first block alone exceeds max bytes: Size tells how large it is
	Failed                 // the stream broke or the deadline passed
	Lied                   // the reply did not match the request: wrong block, oversize, garbage
)

// Done reports the end of the reply to ID. Every request ends in a Done or a
// PeerGone, also a cancelled one, which counts against the caps of its peer
// until then.
type Done struct {
	Peer   PeerID
	ID     RequestID
	Status Status
	Size   int64 // with TooLarge
}

// Connected reports that the chain holds everything up to Height as validated.
type Connected struct{ Height int32 }

// Stored reports that all blocks delivered up to Height are on disk, though not
// validated: a side branch, which the chain switches to only when it has all of
// it. They no longer count as memory and the window moves past them. Optional
// where Connected follows soon.
type Stored struct{ Height int32 }

// Rejected reports that the chain refused the delivered block at Height.
// BlameSender means that the bytes were mutated, so the height is asked for
// again elsewhere and the sender is dropped; Refetch alone that the chain lost
// the bytes without a verdict (the parent was refused, the pipeline was
// flushed), so they are asked for again and nobody is blamed. With neither, a
// new Target follows from the chain, and nothing is asked for or delivered
// before it.
//
// Verdicts come in the order of delivery: at the time of Rejected{h} everything
// below h is connected, stored, or was rejected itself and is asked for again.
type Rejected struct {
	Height      int32
	BlameSender bool
	Refetch     bool
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
func (Stored) isEvent()    {}
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
	Attempt  int  // 1 for the first request for Start
	Hedge    bool // a second copy of blocks that another peer also owes
}

// Cancel withdraws a request; blocks that still arrive for it must not be kept
// in memory (reported as Block they are answered with Discard). When all
// requests at a peer are withdrawn, reset its stream and report Done (Failed)
// for each: until then they count against the peer's own caps, though no longer
// against the global ones.
type Cancel struct {
	Peer PeerID
	ID   RequestID
}

// Deliver gives the buffered block at Height, which Peer sent in its reply to
// ID, to the chain. Deliveries come in height order, heights on disk left out;
// after a Rejected that asks again, only what was refused is delivered again.
type Deliver struct {
	Peer   PeerID
	ID     RequestID
	Height int32
}

// Discard frees the block at Height that Peer sent in its reply to ID: it is
// not wanted (a hedge's second copy, or a block of an abandoned branch). The
// same peer may have sent a copy under another ID that is wanted.
type Discard struct {
	Peer   PeerID
	ID     RequestID
	Height int32
}

// Drop disconnects Peer: it lied. PeerGone follows; until then nothing that the
// peer reports counts.
type Drop struct {
	Peer   PeerID
	Reason string
}

// Stalled is for the log: Peer holds Height and has sent nothing, or far too
// little, for Waited; Asked was asked instead or too.
type Stalled struct {
	Peer    PeerID
	Height  int32
	Waited  time.Duration
	Asked   PeerID // empty: nobody else can be asked now
	Attempt int    // requests made for Height by now, that to Asked included
}

func (Request) isAction() {}
func (Cancel) isAction()  {}
func (Deliver) isAction() {}
func (Discard) isAction() {}
func (Drop) isAction()    {}
func (Stalled) isAction() {}

// Stats is a snapshot for the progress line.
type Stats struct {
	Peers, Serving         int   // known; with a request outstanding, or heard within the last second
	Requests, RequestLimit int   // in flight
	PromisedBytes          int64 // of outstanding requests, not yet received
	BufferedBytes          int64 // received, not yet connected
	InChain                int   // blocks delivered that await their verdict
	FrontRate              int64 // bytes/s of the last 4 s of the best peer that owes the next block to connect; 0 if nobody does
	ByteLimit              int64
	// Reason says why nothing is asked for. Empty while requests are
	// outstanding and when nothing is missing.
	Reason string
}
