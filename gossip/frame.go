package gossip

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
)

// pubsub decodes a frame before anybody is asked whether it should: within its
// limits 512 KiB of empty messages become 48 MB, once for each peer and 32 times in
// its queue. So frames are counted on their way in, before they are decoded. What
// an honest peer sends stays far below these limits.
const (
	maxFrameSubscriptions = 1024   // pubsub's filter takes no more than maxSubscriptions
	maxFrameMessages      = 4096   // an answer to an IWANT has at most maxIHaveIDs
	maxFrameControls      = 1024   // IHAVE, IWANT, GRAFT, PRUNE, IDONTWANT; pubsub sends a few a topic
	maxFrameIDs           = 16_384 // as many as fit into 512 KiB, if they are ids
	maxFrameIDBytes       = 64     // of one id; a promise is kept for 3 s with its id
	maxFramePeers         = 1024   // in PRUNEs
)

// badFramePoints is the blame for a frame that breaks these limits: nobody else
// can have made it. Five are the graylist.
const badFramePoints = 100

var errFrame = errors.New("frame against the limits")

// guardedHost hands pubsub inbound streams that check frames, and keeps them.
type guardedHost struct {
	host.Host
	most    int // bytes of a frame that pubsub takes
	bad     func(s network.Stream, err error)
	inbound *inbound
}

// SetStreamHandler implements host.Host.
func (h guardedHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) {
		if !h.inbound.enter(s) {
			_ = s.Reset()
			return
		}
		defer h.inbound.leave(s)
		f(&frameReader{Stream: s, most: h.most, bad: h.bad})
	})
}

// inbound are the streams that peers have opened, each with a goroutine of pubsub's that reads it. pubsub leaves them
// to the host when it ends; we do not.
type inbound struct {
	mu      sync.Mutex // guards closed and streams, held for a map access
	closed  bool
	streams map[network.Stream]struct{}
	readers sync.WaitGroup
}

// enter reports whether a stream may be read; then leave must follow.
func (in *inbound) enter(s network.Stream) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	if in.streams == nil {
		in.streams = make(map[network.Stream]struct{})
	}
	in.streams[s] = struct{}{}
	in.readers.Add(1)
	return true
}

func (in *inbound) leave(s network.Stream) {
	in.mu.Lock()
	delete(in.streams, s)
	in.mu.Unlock()
	in.readers.Done()
}

// close lets nobody in, resets what is open and waits for its readers.
func (in *inbound) close() {
	in.mu.Lock()
	in.closed = true
	open := slices.Collect(maps.Keys(in.streams))
	in.mu.Unlock()
	for _, s := range open {
		_ = s.Reset()
	}
	in.readers.Wait()
}

// A frame is read at once by pubsub, which makes room for all of it as soon as it knows the length: so one longer than holdFrom is
// handed on when it is here. A peer with four bytes would else have megabytes. And a frame that was begun must be here after frameTime: pubsub gives a
// peer 30 s to take one.
const (
	holdFrom  = 64 << 10
	frameTime = time.Minute
)

// frameReader checks what is read through it.
type frameReader struct {
	network.Stream
	most  int // bytes of a frame; pubsub refuses longer ones by their length
	scan  frameScan
	held  []byte // of a frame that is here
	timed bool   // there is a deadline
	err   error
	bad   func(s network.Stream, err error)
}

// Read implements network.Stream. Nothing that completes a bad frame is returned.
func (r *frameReader) Read(p []byte) (int, error) {
	if len(r.held) > 0 {
		n := copy(p, r.held)
		if r.held = r.held[n:]; len(r.held) == 0 {
			r.held = nil
		}
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.Stream.Read(p)
	if bad := r.look(p[:n]); bad != nil {
		return 0, bad
	}
	if left := r.scan.left(); err == nil && left > holdFrom && left <= uint64(r.most) { //nolint:gosec // positive
		if err := r.hold(); err != nil {
			r.err = err
			return 0, err
		}
	}
	return n, err
}

// look checks bytes that were read, and sets the deadline of a frame that they begin.
func (r *frameReader) look(b []byte) error {
	if err := r.scan.feed(b); err != nil {
		r.err = err
		r.bad(r.Stream, err)
		return err
	}
	if within := r.scan.left() > 0; within != r.timed {
		r.timed = within
		var deadline time.Time
		if within {
			deadline = time.Now().Add(frameTime)
		}
		_ = r.SetReadDeadline(deadline) // of a stream that has ended it may fail
	}
	return nil
}

// hold reads the rest of the frame. Memory grows with what has come.
func (r *frameReader) hold() error {
	var b []byte
	for {
		left := int(r.scan.left()) //nolint:gosec // at most most
		if left == 0 {
			r.held = b
			return nil
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, min(left, max(len(b), holdFrom)))
		}
		n, err := r.Stream.Read(b[len(b):min(cap(b), len(b)+left)])
		if bad := r.look(b[len(b) : len(b)+n]); bad != nil {
			return bad
		}
		b = b[:len(b)+n]
		if err != nil && r.scan.left() > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// nesting is a message within a frame that is looked into.
type nesting uint8

const (
	inRPC nesting = iota
	inControl
	inIHave
	inIWant // and IDONTWANT
	inPrune
)

// scanStep is what the next byte belongs to.
type scanStep uint8

const (
	atLength  scanStep = iota // of a frame
	atTag                     // of a field
	atNumber                  // a field's varint
	atSize                    // a field's length
	inPayload                 // skipped
)

// frameScan follows a stream of length-delimited RPCs byte by byte and counts
// what is in them. It keeps no bytes. The zero value stands before a frame.
type frameScan struct {
	step scanStep

	number uint64 // the varint so far
	shift  uint

	at    uint64 // position in the frame
	skip  uint64 // bytes of a payload left
	depth int    // of nest and ends in use
	nest  [3]nesting
	ends  [3]uint64 // position behind the nested message
	tag   uint64

	subscriptions, messages, controls, ids, peers int
}

// feed takes the next bytes. Its error is final, and wraps errFrame.
func (f *frameScan) feed(b []byte) error {
	for len(b) > 0 {
		if f.step == inPayload {
			n := min(uint64(len(b)), f.skip)
			b = b[n:]
			f.skip -= n
			f.at += n
			if f.skip == 0 {
				f.next()
			}
			continue
		}
		c := b[0]
		b = b[1:]
		if f.shift == 63 && c > 1 {
			return fmt.Errorf("%w: a number over 64 bits", errFrame)
		}
		f.number |= uint64(c&0x7f) << f.shift
		if f.step != atLength {
			f.at++
			if f.at > f.ends[f.depth-1] {
				return fmt.Errorf("%w: a field ends behind its message", errFrame)
			}
		}
		if c >= 0x80 {
			f.shift += 7
			continue
		}
		v := f.number
		f.number, f.shift = 0, 0
		if err := f.take(v); err != nil {
			return err
		}
	}
	return nil
}

// left is how much of a frame that was begun has not come yet.
func (f *frameScan) left() uint64 {
	if f.step == atLength {
		return 0
	}
	return f.ends[0] - f.at
}

// take handles a complete varint.
func (f *frameScan) take(v uint64) error {
	switch f.step {
	case atLength:
		if v == 0 {
			return nil // pubsub skips it
		}
		*f = frameScan{step: atTag, depth: 1}
		f.ends[0] = v // pubsub knows how long a frame may be
	case atTag:
		f.tag = v
		switch protowire.Type(v & 7) {
		case protowire.VarintType:
			f.step = atNumber
		case protowire.BytesType:
			f.step = atSize
		case protowire.Fixed32Type:
			return f.payload(4)
		case protowire.Fixed64Type:
			return f.payload(8)
		case protowire.StartGroupType, protowire.EndGroupType:
			return fmt.Errorf("%w: a group", errFrame)
		default:
			return fmt.Errorf("%w: wire type %d", errFrame, v&7)
		}
	case atNumber:
		f.next()
	case atSize:
		return f.field(v)
	case inPayload: // has no varints
	}
	return nil
}

// next goes on behind a field, and behind all messages that end there.
func (f *frameScan) next() {
	f.step = atTag
	for f.depth > 0 && f.at == f.ends[f.depth-1] {
		f.depth--
	}
	if f.depth == 0 {
		f.step = atLength
	}
}

// payload skips n bytes.
func (f *frameScan) payload(n uint64) error {
	if n > f.ends[f.depth-1]-f.at {
		return fmt.Errorf("%w: a field ends behind its message", errFrame)
	}
	if n == 0 {
		f.next()
		return nil
	}
	f.step, f.skip = inPayload, n
	return nil
}

// enter looks into a message of n bytes.
func (f *frameScan) enter(what nesting, n uint64) error {
	if n > f.ends[f.depth-1]-f.at {
		return fmt.Errorf("%w: a message ends behind the one it is in", errFrame)
	}
	if n == 0 {
		f.next()
		return nil
	}
	f.nest[f.depth], f.ends[f.depth] = what, f.at+n
	f.depth++
	f.step = atTag
	return nil
}

// field counts a field of n bytes and skips or enters it.
func (f *frameScan) field(n uint64) error {
	count := func(c *int, most int, what string) error {
		if *c++; *c > most {
			return fmt.Errorf("%w: over %d %s", errFrame, most, what)
		}
		return nil
	}
	type key struct {
		nesting
		number uint64
	}
	// The numbers are those of pubsub's rpc.proto.
	switch k := (key{f.nest[f.depth-1], f.tag >> 3}); k {
	case key{inRPC, 1}:
		if err := count(&f.subscriptions, maxFrameSubscriptions, "subscriptions"); err != nil {
			return err
		}
	case key{inRPC, 2}:
		if err := count(&f.messages, maxFrameMessages, "messages"); err != nil {
			return err
		}
	case key{inRPC, 3}:
		return f.enter(inControl, n)
	case key{inControl, 1}, key{inControl, 2}, key{inControl, 3}, key{inControl, 4}, key{inControl, 5}:
		if err := count(&f.controls, maxFrameControls, "control messages"); err != nil {
			return err
		}
		switch k.number {
		case 1:
			return f.enter(inIHave, n)
		case 2, 5:
			return f.enter(inIWant, n)
		case 4:
			return f.enter(inPrune, n)
		}
	case key{inIHave, 2}, key{inIWant, 1}:
		if n > maxFrameIDBytes {
			return fmt.Errorf("%w: a message id of %d bytes", errFrame, n)
		}
		if err := count(&f.ids, maxFrameIDs, "message ids"); err != nil {
			return err
		}
	case key{inPrune, 2}:
		if err := count(&f.peers, maxFramePeers, "peers"); err != nil {
			return err
		}
	}
	return f.payload(n)
}
