package flood

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
	"dunlin/gossip"
)

const (
	// maxWaiting is how many complete blocks may wait for the chain, and how many
	// compact ones for the assembler. What does not fit is not lost: its header
	// brings it back.
	maxWaiting = 8
	// maxHanded is how many verdicts are waited for: as many blocks as the chain has room for.
	maxHanded = 256
	// maxOwn is how many own blocks may wait to be sent.
	maxOwn = 8
	// maxSeen is how many blocks are remembered for when they were first seen, and
	// whether they were on the topic: many more than come within the time that
	// gossip takes a message for known.
	maxSeen = 256
	// validators decode blocks at the same time: four of the largest take some
	// 100 MB between them.
	validators = 2
)

// What a Fetcher returns, for errors.Is. Every other error is of the connection, ctx's,
// or of a peer that broke the protocol, with which the Fetcher has dealt.
var (
	ErrNotFound = errors.New("the peer does not have it")
	ErrNotYet   = errors.New("the peer has not completed it yet")
	ErrBusy     = errors.New("the peer is busy")
)

// A Fetcher asks peers for blocks. It is safe for concurrent use; calls end with
// ctx. While bytes of the answer come in it calls progress, from one goroutine and not
// after it has returned.
type Fetcher interface {
	// FetchBlockTxs returns the transactions of a block at ascending indexes,
	// serialised with witness.
	FetchBlockTxs(ctx context.Context, from peer.ID, block chainhash.Hash, indexes []uint32, progress func()) ([][]byte, error)
	// FetchBlock returns a block whose header hashes to hash.
	FetchBlock(ctx context.Context, from peer.ID, hash chainhash.Hash, progress func()) ([]byte, error)
}

// Options configure New. Callbacks are called without a lock held.
type Options struct {
	Params  *consensus.Params // required
	Headers relay.Headers     // required
	Pool    relay.Candidates  // required: where the transactions of blocks are looked for
	Fetch   Fetcher           // required

	// Send puts a message on the block topic: [gossip.Gossip.Publish]. Required.
	Send func(ctx context.Context, msg []byte) error
	// Submit hands a complete block to the chain. It may block while the chain is
	// behind; an error ends Run. Required. If it returns a function, that waits for the
	// verdict: a *consensus.RuleError that blames the sender makes the flood take the
	// block once more when it comes in other bytes.
	Submit func(ctx context.Context, c Completed) (verdict func(ctx context.Context) error, err error)
	// Peers lists those that can be asked besides who sent a block. Default: none.
	Peers func() []Peer
	// Block reads a block that Headers.HaveBlock says to be there. Default: it cannot
	// be read.
	Block func(hash chainhash.Hash) ([]byte, error)
	// Header is called with the header of a compact block that is to be put
	// together, before anything else is done about it: the chain should know it, so
	// that the blocks after it have a known parent. Default: nothing.
	Header func(ctx context.Context, h *consensus.Header)
	// Unplaced is called from Validate with a block that is not pursued here: its parent
	// is unknown, or too many wait, or it could not be put together. Sync should look
	// at it. It must not block. Default: nothing.
	Unplaced func(from peer.ID, hash chainhash.Hash)
	// Unheard says of a transaction of an own block, by its ids, that others have hardly
	// heard of it. Default: they have of all.
	Unheard func(txid, wtxid *chainhash.Hash) bool
	// Judged is called from Validate with each verdict. Default: nothing.
	Judged func(from peer.ID, v relay.Verdict)
	// Blame is called with a peer that answered with what is provably wrong. Default:
	// nothing.
	Blame func(from peer.ID, reason string)

	// Assembler's params and candidates are those above.
	Assembler relay.AssemblerConfig

	Logger *slog.Logger // default: discards
}

func (o *Options) complete() error {
	var errs []error
	for _, r := range []struct {
		name    string
		missing bool
	}{
		{"params", o.Params == nil},
		{"headers", o.Headers == nil},
		{"pool", o.Pool == nil},
		{"fetch", o.Fetch == nil},
		{"send", o.Send == nil},
		{"submit", o.Submit == nil},
	} {
		if r.missing {
			errs = append(errs, fmt.Errorf("%s: missing", r.name))
		}
	}
	if o.Peers == nil {
		o.Peers = func() []Peer { return nil }
	}
	if o.Block == nil {
		o.Block = func(chainhash.Hash) ([]byte, error) { return nil, ErrNotFound }
	}
	if o.Header == nil {
		o.Header = func(context.Context, *consensus.Header) {}
	}
	if o.Unplaced == nil {
		o.Unplaced = func(peer.ID, chainhash.Hash) {}
	}
	if o.Unheard == nil {
		o.Unheard = func(_, _ *chainhash.Hash) bool { return false }
	}
	if o.Judged == nil {
		o.Judged = func(peer.ID, relay.Verdict) {}
	}
	if o.Blame == nil {
		o.Blame = func(peer.ID, string) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// A Flood is a node's part in the block topic. Its methods are safe for
// concurrent use.
type Flood struct {
	o     Options
	log   *slog.Logger
	judge *relay.Blocks
	kept  kept
	count counters
	ran   atomic.Bool

	compacts chan arrival   // from Validate to the assembler
	done     chan Completed // on their way to the chain
	handed   chan handed    // that wait for their verdict
	own      chan *outgoing // on their way to the topic
	joined   chan struct{}  // somebody hears us now; capacity 1
	asm      assembly

	mu       sync.Mutex // guards what follows, held for an instant
	seen     map[chainhash.Hash]*sighting
	order    []chainhash.Hash             // of seen, oldest first
	prepared map[chainhash.Hash]*outgoing // own blocks, before the chain has them; at most maxOwn
	unsent   *outgoing                    // the latest that nobody heard
}

// A sighting is when a block was first seen and what became of it.
type sighting struct {
	at     time.Time
	topic  bool // passed on, or sent
	handed bool // to the chain
}

// outgoing is an own block on its way to the topic.
type outgoing struct {
	hash      chainhash.Hash
	msg       []byte
	compact   bool
	prefilled int
}

// New returns a Flood that does nothing until Run. It reports every fault of o at
// once.
func New(o Options) (*Flood, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("flood options: %w", err)
	}
	f := &Flood{
		o: o, log: o.Logger,
		judge:    relay.NewBlocks(o.Params, o.Headers),
		kept:     kept{params: o.Params},
		compacts: make(chan arrival, maxWaiting),
		done:     make(chan Completed, maxWaiting),
		handed:   make(chan handed, maxHanded),
		own:      make(chan *outgoing, maxOwn),
		joined:   make(chan struct{}, 1),
		seen:     make(map[chainhash.Hash]*sighting),
		prepared: make(map[chainhash.Hash]*outgoing),
	}
	f.count.s.FromHeader, f.count.s.FromSight = newDelays(), newDelays()
	o.Assembler.Params, o.Assembler.Candidates, o.Assembler.CheckSeal = o.Params, o.Pool, o.Headers.CheckSeal
	if o.Assembler.Seed == 0 {
		o.Assembler.Seed = rand.Uint64()
	}
	if err := f.asm.init(f, o.Assembler); err != nil {
		return nil, fmt.Errorf("flood options: %w", err)
	}
	return f, nil
}

// Topic returns the block topic under a name, for gossip.Options.
func (f *Flood) Topic(name string) gossip.Topic {
	return gossip.Topic{
		Name: name, MaxBytes: relay.MaxMessageBytes(f.o.Params), Concurrency: validators, Validate: f.Validate,
	}
}

// Stats returns the counters.
func (f *Flood) Stats() Stats {
	s := f.count.snapshot()
	s.InWork, s.Fetches = f.asm.counts()
	return s
}

// Run drives the flood until ctx ends, and returns ctx's error, or Submit's, after all
// that it started has ended. It can run once.
func (f *Flood) Run(ctx context.Context) error {
	if !f.ran.CompareAndSwap(false, true) {
		return errors.New("flood: run twice")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	all.Go(func() { cancel(f.submitAll(ctx)) })
	all.Go(func() { f.judgeAll(ctx) })
	all.Go(func() { f.sendAll(ctx) })
	all.Go(func() { f.assemble(ctx) })
	all.Wait()
	return context.Cause(ctx)
}

// Coming in.

// arrival is a compact block on its way to the assembler.
type arrival struct {
	from  peer.ID
	block *relay.CompactBlock
	fresh bool // passed on: it has one of the places of its header
}

// Validate judges a message of the topic, and takes up what it carries whether or
// not it is passed on. It keeps data.
func (f *Flood) Validate(_ context.Context, from peer.ID, data []byte) gossip.Verdict {
	now := time.Now()
	v := f.judge.Check(from.String(), data)
	if v.Result == relay.Accept {
		f.onTopic(v.Hash, now)
	}
	f.note(from, data, &v, now)
	switch {
	case v.Orphan:
		f.o.Unplaced(from, v.Hash)
	case v.Raw != nil:
		c := Completed{Raw: v.Raw, Hash: v.Hash, Height: v.Height, From: from, How: Whole}
		f.kept.put(v.Hash, v.Raw)
		f.deliver(&c, now)
		f.asm.complete(v.Hash, v.Raw)
	case v.Compact != nil:
		select {
		case f.compacts <- arrival{from, v.Compact, v.Result == relay.Accept}:
		default:
			f.crowded(from, v.Hash)
		}
	}
	f.o.Judged(from, v)
	switch v.Result {
	case relay.Accept:
		return gossip.Verdict{Result: gossip.Accept, Rival: v.Rival}
	case relay.Reject:
		return gossip.Verdict{Result: gossip.Reject, Reason: v.Reason}
	default:
		return gossip.Verdict{Result: gossip.Ignore, Reason: v.Reason}
	}
}

// crowded leaves to sync what the chain or the assembler has no room for.
func (f *Flood) crowded(from peer.ID, hash chainhash.Hash) {
	f.count.do(func(s *Stats) { s.Crowded++ })
	f.forget(hash)
	f.o.Unplaced(from, hash)
}

// note counts and logs a message: the log's line of this hop.
func (f *Flood) note(from peer.ID, data []byte, v *relay.Verdict, now time.Time) {
	encoding := "unknown"
	if len(data) > 0 {
		switch relay.Encoding(data[0]) {
		case relay.WholeBlock:
			encoding = "whole"
			f.count.do(func(s *Stats) { s.WholeMessages++ })
		case relay.CompactEncoding:
			encoding = "compact"
			f.count.do(func(s *Stats) { s.CompactMessages++ })
		}
	}
	why := v.Reason
	if v.Result == relay.Accept {
		why = "passed on"
	}
	f.log.Debug("block message", "hash", v.Hash, "height", v.Height, "peer", from, "encoding", encoding,
		"bytes", len(data), "verdict", why, "first_ms", now.Sub(f.firstSeen(v.Hash, now)).Milliseconds())
}

// BlockTxs implements the part of an exchange's Pending that this package knows: the
// transactions at ascending indexes of a block in work or just completed; a channel
// that is closed at the next change if some are not here yet; an error if there is no
// such index; nothing if the block is unknown.
func (f *Flood) BlockTxs(block chainhash.Hash, indexes []uint32) (txs [][]byte, changed <-chan struct{}, err error) {
	// In work first: what is completed meanwhile is found below.
	if txs, changed, err = f.asm.txs(block, indexes); txs != nil || changed != nil || err != nil {
		return txs, changed, err
	}
	txs, _, err = f.kept.txs(block, indexes)
	return txs, nil, err
}

// Block returns the bytes of a block that was just completed, a channel that is closed
// at the next change if it is in work, or nothing.
func (f *Flood) Block(block chainhash.Hash) (raw []byte, changed <-chan struct{}) {
	if changed = f.asm.changed(block); changed != nil {
		return nil, changed
	}
	return f.kept.block(block), nil
}

// Blocks and when they were seen.

// sight returns a block's record, made if need be. The caller holds mu.
func (f *Flood) sight(hash chainhash.Hash, now time.Time) *sighting {
	s := f.seen[hash]
	if s == nil {
		if len(f.order) >= maxSeen {
			delete(f.seen, f.order[0])
			f.order = f.order[1:]
		}
		s = &sighting{at: now}
		f.seen[hash] = s
		f.order = append(f.order, hash)
	}
	return s
}

// firstSeen is when the first message with a proven header came; now if there was
// none, or it is forgotten.
func (f *Flood) firstSeen(hash chainhash.Hash, now time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.seen[hash]; s != nil {
		return s.at
	}
	return now
}

// onTopic notes that a block is on the topic, and says whether it was before.
func (f *Flood) onTopic(hash chainhash.Hash, now time.Time) (before bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sight(hash, now)
	before, s.topic = s.topic, true
	return before
}

// offTopic takes that back: nobody heard.
func (f *Flood) offTopic(hash chainhash.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.seen[hash]; s != nil {
		s.topic = false
	}
}

// take says whether a complete block is to be handed to the chain: it was not
// before. It fills in the delay.
func (f *Flood) take(c *Completed, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sight(c.Hash, now)
	if s.handed {
		return false
	}
	s.handed = true
	c.Took = now.Sub(s.at)
	return true
}

// forget takes take back: the chain had no room.
func (f *Flood) forget(hash chainhash.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.seen[hash]; s != nil {
		s.handed = false
	}
}

// submitAll hands complete blocks to the chain, so that nobody else waits for a
// full pipeline.
func (f *Flood) submitAll(ctx context.Context) error {
	for {
		select {
		case c := <-f.done:
			verdict, err := f.o.Submit(ctx, c)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("submit block %v: %w", c.Hash, err)
			}
			if verdict == nil {
				continue
			}
			c.Raw = nil // the chain's now
			select {
			case f.handed <- handed{c, verdict}:
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A handed block waits for the chain's verdict.
type handed struct {
	block   Completed
	verdict func(ctx context.Context) error
}

// judgeAll waits for the verdicts, which come in the order in which blocks were handed
// over. Bytes that only their sender is to blame for must not keep the block out that
// they pretend to be: it is taken again, and asked for, since it may have come meanwhile.
// Whoever sent them is not blamed here: what a neighbour can see before it passes a block
// on, the validator has checked.
func (f *Flood) judgeAll(ctx context.Context) {
	for {
		select {
		case h := <-f.handed:
			rule, ok := errors.AsType[*consensus.RuleError](h.verdict(ctx))
			if !ok || rule.Blame != consensus.BlameSender {
				continue
			}
			f.kept.drop(h.block.Hash)
			f.forget(h.block.Hash)
			f.log.Debug("false copy of a block", "hash", h.block.Hash, "height", h.block.Height, "peer", h.block.From, "rule", rule.Rule)
			f.o.Unplaced(h.block.From, h.block.Hash)
		case <-ctx.Done():
			return
		}
	}
}

// Going out.

// Prepare makes the message for a block of ours before the chain has it: by then the
// pool has forgotten which of its transactions others had heard of. Publish sends it.
func (f *Flood) Prepare(b *consensus.Block) {
	prefilled := 0
	msg, err := relay.MakeCompact(f.o.Params, b.Raw, rand.Uint64(), func(i int, wtxid chainhash.Hash) bool {
		if f.o.Unheard(b.Txs[i].Hash(), &wtxid) {
			prefilled++
			return true
		}
		return false
	})
	if err != nil {
		f.log.Warn("compact block not made", "hash", b.Hash, "err", err) // Publish sends it whole
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.prepared) >= maxOwn {
		clear(f.prepared) // they were refused, or lost to a stop: Publish can do without
	}
	f.prepared[b.Hash] = newOutgoing(b.Hash, msg, prefilled)
}

func newOutgoing(hash chainhash.Hash, msg []byte, prefilled int) *outgoing {
	o := &outgoing{hash: hash, msg: msg, compact: relay.Encoding(msg[0]) == relay.CompactEncoding}
	if o.compact {
		o.prefilled = prefilled
	}
	return o
}

// Publish has a block sent out that was made, handed in or synced here, unless it
// was on the topic. raw is kept. It does not wait: with no neighbour yet, sending
// takes seconds.
func (f *Flood) Publish(raw []byte, hash chainhash.Hash) {
	f.mu.Lock()
	o := f.prepared[hash]
	delete(f.prepared, hash)
	f.mu.Unlock()
	if head := consensus.HeaderBytes + f.o.Params.SealBytes; o != nil && !bytes.HasPrefix(o.msg[1:], raw[:min(len(raw), head)]) {
		o = nil // another seal was tried before, which the chain refused
	}
	if f.onTopic(hash, time.Now()) {
		return
	}
	f.kept.put(hash, raw)
	f.asm.complete(hash, raw)
	f.publish(raw, hash, o)
}

// publish queues a block to be sent; o is nil if its message is not made yet.
func (f *Flood) publish(raw []byte, hash chainhash.Hash, o *outgoing) {
	if o == nil {
		msg, err := relay.MakeCompact(f.o.Params, raw, rand.Uint64(), nil)
		if err != nil {
			msg = relay.Encode(raw)
		}
		o = newOutgoing(hash, msg, 0)
	}
	select {
	case f.own <- o:
	default: // peers hear of the tip by hello and ask
		f.log.Debug("block not flooded", "hash", hash, "reason", "queue full")
	}
}

// TopicPeer says that a peer has joined the topic: a block that nobody heard is sent
// again. It does not wait. What others heard is not sent again: who joins hears of
// the tip by hello, and asks.
func (f *Flood) TopicPeer() {
	select {
	case f.joined <- struct{}{}:
	default:
	}
}

// sendAll sends own blocks.
func (f *Flood) sendAll(ctx context.Context) {
	for {
		select {
		case o := <-f.own:
			f.send(ctx, o)
		case <-f.joined:
			f.mu.Lock()
			o := f.unsent
			f.mu.Unlock()
			if o != nil {
				f.send(ctx, o)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (f *Flood) send(ctx context.Context, o *outgoing) {
	err := f.o.Send(ctx, o.msg)
	if errors.Is(err, gossip.ErrSeen) { // the very same bytes came, and were passed on
		err = nil
	}
	nobody := errors.Is(err, gossip.ErrNobody) || errors.Is(err, gossip.ErrNotRunning)
	f.mu.Lock()
	if err == nil {
		f.unsent = nil // a later one was sent: who heard that asks for what it lacks
	} else if nobody {
		f.unsent = o
	}
	f.mu.Unlock()
	switch {
	case err == nil:
		f.count.do(func(s *Stats) {
			s.Sent++
			s.SentAs.Bytes += uint64(len(o.msg))
			s.SentAs.Prefilled += uint64(o.prefilled)
			if o.compact {
				s.SentAs.Compact++
			} else {
				s.SentAs.Whole++
			}
		})
		f.log.Debug("block sent", "hash", o.hash, "compact", o.compact, "bytes", len(o.msg), "prefilled", o.prefilled)
	case nobody:
		f.log.Debug("block not flooded", "hash", o.hash, "reason", "nobody listens")
	case ctx.Err() == nil:
		f.offTopic(o.hash)
		f.log.Warn("block not flooded", "hash", o.hash, "err", err)
	}
}
