package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/ibd"
)

// How long a peer may take to acknowledge that a request was withdrawn: until
// then it occupies the caps. It may have to finish a block, but if nothing else
// is due from it, a new stream costs less than waiting.
const (
	cancelPatience     = 10 * time.Second
	cancelPatienceIdle = time.Second
)

// errUnacknowledged ends the stream of a peer that goes on with what was withdrawn.
var errUnacknowledged = errors.New("withdrawn request not acknowledged")

// blockClient asks one peer for blocks over one long-lived stream. Requests are
// sent in order and answered in order. It keeps to the per-peer caps and to the
// budget of all peers by what is on the wire.
type blockClient struct {
	x *Exchange
	r *remote

	wake chan struct{} // the writer has something to look at

	mu     sync.Mutex // guards what follows, held for an instant and over SetReadDeadline
	queue  []*ask     // to be sent, in order; a withdrawn one is taken out
	open   []*ask     // sent and not ended, in order
	bytes  int64      // promised by open and not yet received
	wire   uint64     // latest id on the wire
	closed bool       // the peer is gone: what is asked fails at once
}

// ask is one request: of the scheduler (id) or of a caller of FetchBlock (result).
type ask struct {
	req       blocksRequest
	id        ibd.RequestID
	result    chan fetched
	progress  func() // bytes of a result came in; nil: nobody wants to know
	n         int    // blocks received
	received  int64  // their bytes, and those of the one that is arriving
	withdrawn time.Time
	unsent    bool // withdrawn, and the peer has not been told yet
}

type fetched struct {
	raw []byte
	err error
}

// blockEvents are what happened to the scheduler's requests at one peer.
type blockEvents struct {
	from *remote
	list []blockEvent
}

// blockEvent is Bytes (n), Block (raw) or Done (done).
type blockEvent struct {
	id     ibd.RequestID
	n      int64
	height int32
	raw    []byte
	done   bool
	status ibd.Status
	size   int64
}

func newBlockClient(x *Exchange, r *remote) *blockClient {
	return &blockClient{x: x, r: r, wake: make(chan struct{}, 1)}
}

func (c *blockClient) inFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// add queues a request. It never blocks.
func (c *blockClient) add(a *ask) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wire++
	a.req.ID = c.wire
	c.queue = append(c.queue, a)
	c.poke()
	return true
}

// withdraw takes back the request that is(a). It reports whether that ended it:
// it had not been sent.
func (c *blockClient) withdraw(is func(*ask) bool) (ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.queue, is); i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
		return true
	}
	if i := slices.IndexFunc(c.open, is); i >= 0 && c.open[i].withdrawn.IsZero() {
		c.open[i].withdrawn = time.Now()
		c.open[i].unsent = true
		c.poke()
	}
	return false
}

func (c *blockClient) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run keeps a stream open while there is something to ask, until the peer is gone.
func (c *blockClient) run(ctx context.Context) {
	defer func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.fail(ctx, nil, errGone)
	}()
	const least, most = 250 * time.Millisecond, 10 * time.Second
	backoff := least
	for {
		if !c.wait(ctx) {
			return
		}
		answered, err := c.session(ctx)
		c.fail(ctx, nil, err)
		if errors.Is(err, errProtocol) {
			return // read has blamed it
		}
		if answered {
			backoff = least
		}
		if !pause(ctx, c.r.gone, backoff) {
			return
		}
		backoff = min(2*backoff, most)
	}
}

// pause waits for d; false: ctx or the peer ended first.
func pause(ctx context.Context, gone <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-gone:
		return false
	case <-t.C:
		return true
	}
}

// wait returns true when there is something to send, false when the peer is gone.
func (c *blockClient) wait(ctx context.Context) bool {
	for {
		c.mu.Lock()
		n := len(c.queue)
		c.mu.Unlock()
		if n > 0 {
			return true
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return false
		case <-c.r.gone:
			return false
		}
	}
}

// session opens a stream and works on it until it breaks. answered says whether
// the peer has answered anything.
func (c *blockClient) session(ctx context.Context) (answered bool, err error) {
	open, cancel := context.WithTimeout(ctx, c.x.o.HelloTimeout)
	defer cancel()
	s, err := c.x.o.Host.NewStream(network.WithNoDial(open, "blocks"), c.r.id, BlocksID(c.x.o.ChainID))
	if err != nil {
		return false, fmt.Errorf("open blocks stream: %w", err)
	}
	if !c.r.track(s) {
		_ = s.Reset()
		return false, errGone
	}
	defer c.r.untrack(s)
	ended := make(chan struct{})
	read := make(chan struct{})
	var readErr error
	c.x.tasks.Go(func() {
		defer close(read)
		defer close(ended)
		answered, readErr = c.read(ctx, s)
	})
	err = c.write(ctx, s, ended)
	resetFor(s, err)
	<-read
	if readErr != nil && !errors.Is(err, errUnacknowledged) {
		err = readErr
	}
	return answered, err
}

// write sends what is queued as far as the caps allow, until the stream ends.
func (c *blockClient) write(ctx context.Context, s network.Stream, ended <-chan struct{}) error {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	var msg []byte
	for {
		batch, freed := c.sendable(s)
		msg = msg[:0]
		for _, req := range batch {
			msg = appendDelimited(msg, req.append(nil))
		}
		if len(msg) > 0 {
			if _, err := (&chunks{s: s, timeout: c.x.o.WriteTimeout, count: &c.r.out}).Write(msg); err != nil {
				return fmt.Errorf("ask for blocks: %w", err)
			}
		}
		select {
		case <-c.wake:
		case <-freed:
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case now := <-check.C:
			if c.stubborn(now) {
				return errUnacknowledged
			}
		}
	}
}

// sendable moves what may be sent now from queue to open and returns it with the
// withdrawals to tell. freed is closed when the budget of all peers has room again.
func (c *blockClient) sendable(s network.Stream) (batch []blocksRequest, freed <-chan struct{}) {
	l := &c.x.o.Limits
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.open {
		if a.unsent {
			a.unsent = false
			batch = append(batch, blocksRequest{ID: a.req.ID, Cancel: true})
		}
	}
	for len(c.queue) > 0 {
		a := c.queue[0]
		if len(c.open) >= l.MaxRequestsPerPeer || c.bytes+a.req.MaxBytes > l.MaxBytesPerPeer {
			break
		}
		wait, ok := c.x.budget.take(a.req.MaxBytes)
		if !ok {
			freed = wait
			break
		}
		c.queue = c.queue[1:]
		c.open = append(c.open, a)
		c.bytes += a.req.MaxBytes
		batch = append(batch, a.req)
	}
	if len(batch) > 0 {
		c.deadlineLocked(s)
	}
	return batch, freed
}

func (c *blockClient) stubborn(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	patience := cancelPatienceIdle
	if slices.ContainsFunc(c.open, func(a *ask) bool { return a.withdrawn.IsZero() }) {
		patience = cancelPatience
	}
	return slices.ContainsFunc(c.open, func(a *ask) bool {
		return !a.withdrawn.IsZero() && now.Sub(a.withdrawn) > patience
	})
}

// deadlineLocked gives the next read ReplyTimeout while something is due. The caller holds mu.
func (c *blockClient) deadlineLocked(s network.Stream) {
	var at time.Time
	if len(c.open) > 0 {
		at = time.Now().Add(c.x.o.ReplyTimeout)
	}
	_ = s.SetReadDeadline(at)
}

// patient reads from the stream and extends the deadline at each read.
type patient struct {
	c *blockClient
	s network.Stream
}

func (p *patient) Read(b []byte) (int, error) {
	p.c.mu.Lock()
	p.c.deadlineLocked(p.s)
	p.c.mu.Unlock()
	n, err := p.s.Read(b)
	p.c.r.in.Add(int64(n))
	return n, err
}

// read handles frames until the stream ends. answered says whether any came.
func (c *blockClient) read(ctx context.Context, s network.Stream) (answered bool, err error) {
	in := bufio.NewReaderSize(&patient{c, s}, maxChunkBytes)
	events := blockEvents{from: c.r}
	flush := func(force bool) {
		if len(events.list) > 0 && (force || in.Buffered() == 0 || len(events.list) >= 64) {
			c.x.driver.post(ctx, events)
			events.list = nil
		}
	}
	defer func() {
		if err != nil {
			flush(true)
			if errors.Is(err, errProtocol) {
				c.mu.Lock()
				var liar *ask
				if len(c.open) > 0 {
					liar = c.open[0]
				}
				c.mu.Unlock()
				// Before the scheduler hears of it: our reason is the precise one.
				c.x.blame(c.r.id, "blocks: "+err.Error())
				c.fail(ctx, liar, err)
			}
		}
	}()
	var buf []byte
	for {
		flush(false)
		if buf, err = readMessage(in, buf, maxFrameHeader); err != nil {
			return answered, fmt.Errorf("read frame: %w", unexpectedEOF(err))
		}
		f, err := decodeFrame(buf)
		if err != nil {
			return answered, err
		}
		answered = true
		c.mu.Lock()
		var a *ask
		if len(c.open) > 0 {
			a = c.open[0]
		}
		c.mu.Unlock()
		switch {
		case a == nil:
			return answered, violation("blocks that nobody asked for")
		case f.ID != a.req.ID:
			return answered, violation("reply to request %d, due is %d", f.ID, a.req.ID)
		case f.End:
			e, err := c.end(a, &f)
			if err != nil {
				return answered, err
			}
			if e.done {
				events.list = append(events.list, e)
			}
		default:
			if err := c.block(in, a, f.Length, &events, flush); err != nil {
				return answered, err
			}
		}
	}
}

// expected returns the hash of the next block of the reply to a.
func (c *blockClient) expected(a *ask) (chainhash.Hash, bool) {
	if len(a.req.Hashes) > 0 {
		if a.n >= len(a.req.Hashes) {
			return chainhash.Hash{}, false
		}
		return a.req.Hashes[a.n], true
	}
	if a.n >= a.req.Count {
		return chainhash.Hash{}, false
	}
	return c.x.o.Chain.Ancestor(a.req.Last, a.req.Start+int32(a.n))
}

// block reads one raw block of the reply to a.
func (c *blockClient) block(in *bufio.Reader, a *ask, length int64, events *blockEvents, flush func(bool)) error {
	hash, ok := c.expected(a)
	if !ok {
		return violation("more blocks than the %d asked for", a.n)
	}
	if left := a.req.MaxBytes - a.received; length > left {
		return violation("block of %d bytes, %d promised", length, left)
	}
	if length < consensus.HeaderBytes {
		return violation("block of %d bytes", length)
	}
	c.mu.Lock()
	wanted := a.withdrawn.IsZero()
	c.mu.Unlock()
	// What is not wanted any more is read past, not kept.
	keep := length
	if !wanted {
		keep = min(length, maxChunkBytes)
	}
	raw := make([]byte, keep)
	height := a.req.Start + int32(a.n)
	var got int64
	for checked := false; got < length; {
		dst := raw[got%int64(len(raw)):]
		n, err := in.Read(dst[:min(len(dst), maxChunkBytes, int(length-got))])
		got += int64(n)
		if n > 0 {
			c.arrived(a, int64(n))
			if a.id != 0 {
				events.list = append(events.list, blockEvent{id: a.id, n: int64(n)})
			}
		}
		if err != nil && got < length {
			return fmt.Errorf("read block at height %d: %w", height, unexpectedEOF(err))
		}
		if wanted && !checked && got >= consensus.HeaderBytes {
			if checked = true; chainhash.DoubleHashH(raw[:consensus.HeaderBytes]) != hash {
				return violation("wrong block for height %d: header is not %v", height, hash)
			}
		}
		flush(false)
	}
	a.n++
	switch {
	case !wanted:
	case a.id != 0:
		events.list = append(events.list, blockEvent{id: a.id, height: height, raw: raw})
	case a.result != nil:
		a.result <- fetched{raw: raw} // has room for one: such an ask is for one block
		a.result = nil
	}
	return nil
}

// arrived turns promised bytes into received ones.
func (c *blockClient) arrived(a *ask, n int64) {
	c.mu.Lock()
	a.received += n
	c.bytes -= n
	wanted := a.withdrawn.IsZero()
	c.mu.Unlock()
	c.x.budget.give(0, n)
	if wanted && a.progress != nil {
		a.progress()
	}
}

// end closes the reply to a and returns what to tell the scheduler.
func (c *blockClient) end(a *ask, f *frame) (blockEvent, error) {
	e := blockEvent{id: a.id, done: a.id != 0, size: f.Size}
	asked := max(a.req.Count, len(a.req.Hashes))
	var err error
	c.mu.Lock()
	withdrawn := !a.withdrawn.IsZero()
	c.mu.Unlock()
	switch f.Status {
	case statusOK:
		e.status = ibd.OK
		if a.n == 0 && asked > 0 {
			return e, violation("reply without a block")
		}
	case statusNotFound:
		e.status, err = ibd.NotFound, ErrNotFound
	case statusNotYet:
		if len(a.req.Hashes) == 0 {
			return e, violation("not yet in reply to a request by height")
		}
		e.status, err = ibd.NotFound, ErrNotYet
	case statusBusy:
		e.status, err = ibd.Busy, ErrBusy
	case statusTooLarge:
		e.status, err = ibd.TooLarge, fmt.Errorf("block of %d bytes exceeds %d", f.Size, a.req.MaxBytes)
		if a.n > 0 || f.Size <= a.req.MaxBytes || f.Size > c.x.o.Limits.MaxBlockBytes {
			return e, violation("too large: a first block of %d bytes with %d allowed and a network limit of %d",
				f.Size, a.req.MaxBytes, c.x.o.Limits.MaxBlockBytes)
		}
	case statusCancelled:
		if !withdrawn {
			return e, violation("request %d cancelled, which was not withdrawn", a.req.ID)
		}
	default:
		return e, violation("blocks status %d", f.Status)
	}
	c.close(a)
	if a.result != nil {
		a.result <- fetched{err: err}
		a.result = nil
	}
	return e, nil
}

// close takes a off the list and gives back what it held.
func (c *blockClient) close(a *ask) {
	c.mu.Lock()
	c.open = c.open[1:] // replies come in order: a is the first
	left := a.req.MaxBytes - a.received
	c.bytes -= left
	c.mu.Unlock()
	c.x.budget.give(1, left)
	c.poke()
}

// fail ends everything that is open or queued; liar is the one whose reply broke
// the protocol.
func (c *blockClient) fail(ctx context.Context, liar *ask, err error) {
	c.mu.Lock()
	asks := append(slices.Clone(c.open), c.queue...)
	sent := len(c.open)
	left := c.bytes
	c.open, c.queue, c.bytes = nil, nil, 0
	c.mu.Unlock()
	c.x.budget.give(sent, left)
	events := blockEvents{from: c.r}
	for _, a := range asks {
		status := ibd.Failed
		if a == liar {
			status = ibd.Lied
		}
		if a.id != 0 {
			events.list = append(events.list, blockEvent{id: a.id, done: true, status: status})
		}
		if a.result != nil {
			a.result <- fetched{err: err}
			a.result = nil
		}
	}
	if len(events.list) > 0 {
		c.x.driver.post(ctx, events)
	}
}

// FetchBlock asks a peer for one block by hash and returns its bytes: the header is
// checked to be the one asked for, nothing else. It shares the caps and the stream
// of the download: it may wait for room. It fails with ErrNotReady, ErrNotFound,
// ErrNotYet (the block is in work there), ErrBusy or ErrViolation; every other error
// is of the stream or of ctx: nobody is at fault. While bytes come in, progress is
// called, if it is not nil; it may be called until soon after FetchBlock has returned.
func (x *Exchange) FetchBlock(ctx context.Context, from peer.ID, hash chainhash.Hash, progress func()) ([]byte, error) {
	r := x.remote(from)
	if r == nil {
		return nil, ErrNotReady
	}
	result := make(chan fetched, 1)
	a := &ask{result: result, progress: progress, req: blocksRequest{Hashes: []chainhash.Hash{hash}, MaxBytes: x.o.Limits.MaxBlockBytes}}
	if !r.blocks.add(a) {
		return nil, ErrNotReady
	}
	select {
	case f := <-result:
		if f.err != nil {
			return nil, fmt.Errorf("fetch block %v: %w", hash, f.err)
		}
		return f.raw, nil
	case <-ctx.Done():
		r.blocks.withdraw(func(b *ask) bool { return b == a })
		return nil, ctx.Err()
	}
}
