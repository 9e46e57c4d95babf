package flood

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

const (
	// maxFetches and maxFetchesPerPeer bound what is fetched at a time: for all blocks in
	// work together, and from one peer. Each has one request under way, or two for parts;
	// a peer serves six streams of the protocol at a time, for other purposes too.
	maxFetches        = 32
	maxFetchesPerPeer = 2
	// partTxs is how many transactions are asked for at a time.
	partTxs = 128
	// lookAgain is how often blocks in work are looked up in the chain, which may have
	// them by sync, and peers and their tips are asked for anew.
	lookAgain = 500 * time.Millisecond
	// arrivingEvery is how often a fetch says that bytes come in.
	arrivingEvery = 200 * time.Millisecond
)

// A Peer can be asked for blocks.
type Peer struct {
	ID  peer.ID
	Tip chainhash.Hash // of its validated chain, as it last said; zero: not known
}

// How says in what way a block was completed.
type How uint8

// The ways.
const (
	Whole    How = iota + 1 // it came as a whole message
	FromPool                // put together without asking anybody
	Pulled                  // put together with transactions that were asked for
	Fetched                 // asked for as a whole
)

func (h How) String() string {
	switch h {
	case Whole:
		return "whole"
	case FromPool, Pulled:
		return "compact"
	case Fetched:
		return "fetched"
	}
	return "unknown"
}

// Completed is a block whose header and commitments are right.
type Completed struct {
	Raw    []byte // header ‖ seal ‖ transactions; shared, not to be changed
	Hash   chainhash.Hash
	Height int32
	From   peer.ID // the first that it came from
	How    How
	Took   time.Duration // since its first message
	Delay  time.Duration // since the time in its header

	// Of a compact block:
	Txs, Prefilled, Pulled int
	Bytes                  int64 // asked for and received
	Requests               int
}

// Hit is the share of the transactions that were here or in the message, in
// percent; less than 100 if one was not.
func (c *Completed) Hit() float64 {
	if c.Txs == 0 || c.Pulled == 0 {
		return 100
	}
	return math.Floor(1000*float64(c.Txs-c.Pulled)/float64(c.Txs)) / 10
}

// LogAttrs are the facts for the log's line about the block: none for one that came
// whole.
func (c *Completed) LogAttrs() []slog.Attr {
	switch c.How {
	case FromPool, Pulled:
		return []slog.Attr{slog.String("relay", c.How.String()), slog.Float64("hit_percent", c.Hit()), slog.Int("pulled", c.Pulled)}
	case Fetched:
		return []slog.Attr{slog.String("relay", c.How.String())}
	case Whole:
	}
	return nil
}

// An assembly is the relay.Assembler with what it needs of the world.
type assembly struct {
	f    *Flood
	have chan relay.Have
	did  chan fetchEvent

	mu      sync.Mutex // guards what follows, held for one step of the assembler at most: a look at the pool or a decoded block
	a       *relay.Assembler
	inWork  map[chainhash.Hash]chan struct{} // closed and replaced at a change
	running int

	// What follows belongs to the goroutine of assemble.
	fetches map[uint64]fetch
	of      map[peer.ID]int            // fetches at a peer
	peers   map[peer.ID]chainhash.Hash // told, with their tips
}

// A fetch is a request under way, until its goroutine has ended.
type fetch struct {
	cancel context.CancelFunc
	block  chainhash.Hash
	from   peer.ID
}

// fetchEvent is an event of the assembler about a fetch; over says that it has ended.
type fetchEvent struct {
	id   uint64
	e    relay.Event
	over bool
}

func (m *assembly) init(f *Flood, cfg relay.AssemblerConfig) (err error) {
	m.f = f
	m.have = make(chan relay.Have, maxWaiting)
	m.did = make(chan fetchEvent, maxFetches)
	m.inWork = make(map[chainhash.Hash]chan struct{})
	m.fetches = make(map[uint64]fetch)
	m.of = make(map[peer.ID]int)
	m.peers = make(map[peer.ID]chainhash.Hash)
	m.a, err = relay.NewAssembler(cfg)
	return err
}

// assemble puts compact blocks together until ctx ends.
func (f *Flood) assemble(ctx context.Context) {
	m := &f.asm
	var workers sync.WaitGroup
	defer workers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	looked := time.Now()
	for {
		select {
		case a := <-f.compacts:
			m.heed(ctx, &workers) // of what came before it
			f.o.Header(ctx, &a.block.Header)
			m.askWhom(ctx, &workers)
			m.step(ctx, &workers, a.block.Hash, relay.Announced{From: string(a.from), Block: a.block, Relayed: a.fresh})
		case h := <-m.have:
			m.step(ctx, &workers, h.Block, h)
		case d := <-m.did:
			k := m.fetches[d.id]
			if d.over {
				m.ended(d.id)
			}
			m.step(ctx, &workers, k.block, d.e)
		case <-timer.C:
			m.step(ctx, &workers, chainhash.Hash{}, relay.Tick{})
		case <-ctx.Done():
			return
		}
		// Events come more often than this while a fetch is under way, and put off the timer.
		if now := time.Now(); now.Sub(looked) >= lookAgain {
			m.lookUp(ctx, &workers)
			looked = now
		}
		timer.Reset(m.pause(time.Now()))
	}
}

// heed takes note of the blocks that need not be put together.
func (m *assembly) heed(ctx context.Context, workers *sync.WaitGroup) {
	for {
		select {
		case h := <-m.have:
			m.step(ctx, workers, h.Block, h)
		default:
			return
		}
	}
}

// pause is how long nothing is due; an hour if nothing is in work.
func (m *assembly) pause(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	next, ok := m.a.Next()
	if !ok {
		return time.Hour
	}
	return min(lookAgain, max(0, next.Sub(now)))
}

// step feeds an event about a block, zero for none, to the assembler and performs
// what it wants.
func (m *assembly) step(ctx context.Context, workers *sync.WaitGroup, block chainhash.Hash, e relay.Event) {
	events := []relay.Event{e}
	for len(events) > 0 {
		e, events = events[0], events[1:]
		now := time.Now()
		m.mu.Lock()
		actions := m.a.Step(now, e)
		if a, ok := e.(relay.Announced); ok && m.inWork[block] == nil && m.busyWith(block) {
			m.inWork[a.Block.Hash] = make(chan struct{})
		}
		m.change(block)
		for _, a := range actions {
			if d, ok := a.(relay.Deliver); ok {
				m.f.kept.put(d.Block, d.Raw) // before it is not in work any more for who asks
			}
		}
		for hash := range m.inWork {
			if !m.busyWith(hash) {
				m.change(hash)
				delete(m.inWork, hash)
			}
		}
		m.mu.Unlock()
		for _, a := range actions { // they are reused by the next step: all are performed before it
			if back := m.perform(ctx, workers, a, now); back != nil {
				events = append(events, back)
			}
		}
	}
}

// busyWith reports whether the assembler has a block in work. The caller holds mu.
func (m *assembly) busyWith(hash chainhash.Hash) bool {
	_, known, _ := m.a.Txs(hash, nil)
	return known
}

// change tells those who wait for parts of a block. The caller holds mu.
func (m *assembly) change(hash chainhash.Hash) {
	if c := m.inWork[hash]; c != nil {
		close(c)
		m.inWork[hash] = make(chan struct{})
	}
}

// perform does what the assembler wants. What cannot be done becomes an event.
func (m *assembly) perform(ctx context.Context, workers *sync.WaitGroup, a relay.Action, now time.Time) relay.Event {
	f := m.f
	switch a := a.(type) {
	case relay.AskTxs:
		return m.fetch(ctx, workers, a.ID, peer.ID(a.Peer), a.Block, func(ctx context.Context, progress func()) (relay.Event, error) {
			txs, err := m.fetchTxs(ctx, a, progress)
			return relay.GotTxs{ID: a.ID, Txs: txs}, err
		})
	case relay.AskBlock:
		return m.fetch(ctx, workers, a.ID, peer.ID(a.Peer), a.Block, func(ctx context.Context, progress func()) (relay.Event, error) {
			raw, err := f.o.Fetch.FetchBlock(ctx, peer.ID(a.Peer), a.Block, progress)
			return relay.GotBlock{ID: a.ID, Raw: raw}, err
		})
	case relay.Cancel:
		if k, ok := m.fetches[a.ID]; ok {
			k.cancel()
		}
	case relay.Deliver:
		c := Completed{
			Raw: a.Raw, Hash: a.Block, Height: a.Height, From: peer.ID(a.From[0]), How: FromPool,
			Txs: a.Txs, Prefilled: a.Prefilled, Pulled: a.Pulled, Bytes: a.Bytes, Requests: a.Asks,
		}
		if a.Whole {
			c.How = Fetched
		} else if a.Pulled > 0 {
			c.How = Pulled
		}
		f.deliver(&c, now)
	case relay.Reflood:
		f.log.Debug("block sent once more: what was passed on was false", "hash", a.Block)
		f.publish(a.Raw, a.Block, nil)
	case relay.GiveUp:
		f.count.do(func(s *Stats) { s.GivenUp++ })
		f.log.Debug("compact block given up", "hash", a.Block, "height", a.Height, "reason", a.Reason)
		if a.From != "" {
			f.o.Unplaced(peer.ID(a.From), a.Block)
		}
	case relay.Blame:
		f.o.Blame(peer.ID(a.Peer), a.Err.Error())
	}
	return nil
}

// fetch starts a request, unless there are too many.
func (m *assembly) fetch(ctx context.Context, workers *sync.WaitGroup, id uint64, from peer.ID, block chainhash.Hash, do func(ctx context.Context, progress func()) (relay.Event, error)) relay.Event {
	if len(m.fetches) >= maxFetches || m.of[from] >= maxFetchesPerPeer {
		return relay.Failed{ID: id, Why: relay.NotYet}
	}
	within, cancel := context.WithCancel(ctx)
	m.fetches[id] = fetch{cancel, block, from}
	m.of[from]++
	m.load(+1)
	m.f.count.do(func(s *Stats) { s.Requests++ })
	post := func(d fetchEvent) {
		select {
		case m.did <- d:
		case <-ctx.Done():
		}
	}
	workers.Go(func() {
		defer cancel()
		var last time.Time
		e, err := do(within, func() {
			if now := time.Now(); now.Sub(last) >= arrivingEvery {
				last = now
				post(fetchEvent{id: id, e: relay.Arriving{ID: id}})
			}
		})
		if err != nil {
			m.f.log.Debug("parts of a block not fetched", "hash", block, "peer", from, "err", err)
			if within.Err() == nil {
				m.f.count.do(func(s *Stats) { s.RequestsFailed++ })
			}
			e = relay.Failed{ID: id, Why: failure(err)}
		}
		post(fetchEvent{id: id, e: e, over: true})
	})
	return nil
}

// fetchTxs asks a peer for transactions; many in parts, of which two are under way. Each but the last is
// reported when it comes and can be passed on from then on: so a block that nobody has goes through the network
// in parts, and not as a whole from node to node. It returns the last part.
func (m *assembly) fetchTxs(ctx context.Context, a relay.AskTxs, progress func()) ([][]byte, error) {
	parts := slices.Collect(slices.Chunk(a.Indexes, partTxs))
	if a.Backwards {
		slices.Reverse(parts)
	}
	type answer struct {
		txs [][]byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	var asks sync.WaitGroup
	defer asks.Wait()
	defer cancel()
	var one sync.Mutex // progress is called for one at a time
	ask := func(part []uint32) <-chan answer {
		c := make(chan answer, 1)
		asks.Go(func() {
			txs, err := m.f.o.Fetch.FetchBlockTxs(ctx, peer.ID(a.Peer), a.Block, part, func() {
				one.Lock()
				defer one.Unlock()
				progress()
			})
			c <- answer{txs, err}
		})
		return c
	}
	for next := ask(parts[0]); ; {
		this := next
		if len(parts) > 1 {
			next = ask(parts[1])
		}
		got := <-this
		if got.err != nil || len(parts) == 1 {
			return got.txs, got.err
		}
		select {
		case m.did <- fetchEvent{id: a.ID, e: relay.SomeTxs{ID: a.ID, Indexes: parts[0], Txs: got.txs}}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		parts = parts[1:]
	}
}

func failure(err error) relay.Failure {
	switch {
	case errors.Is(err, ErrNotYet), errors.Is(err, ErrBusy):
		return relay.NotYet
	case errors.Is(err, ErrNotFound):
		return relay.NotHere
	}
	return relay.Broken
}

// ended forgets a fetch.
func (m *assembly) ended(id uint64) {
	k, ok := m.fetches[id]
	if !ok {
		return
	}
	delete(m.fetches, id)
	if m.of[k.from]--; m.of[k.from] == 0 {
		delete(m.of, k.from)
	}
	m.load(-1)
}

func (m *assembly) load(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running += n
}

// lookUp tells the assembler of blocks in work that the chain has got by sync, and
// of peers and their tips.
func (m *assembly) lookUp(ctx context.Context, workers *sync.WaitGroup) {
	m.askWhom(ctx, workers)
	m.mu.Lock()
	var here []chainhash.Hash
	for hash := range m.inWork {
		here = append(here, hash)
	}
	m.mu.Unlock()
	for _, hash := range here {
		if have, _ := m.f.o.Headers.HaveBlock(hash); !have {
			continue
		}
		if raw, err := m.f.o.Block(hash); err == nil {
			m.f.kept.put(hash, raw)
			m.step(ctx, workers, hash, relay.Have{Block: hash, Raw: raw})
		}
	}
}

// askWhom tells the assembler which peers there are.
func (m *assembly) askWhom(ctx context.Context, workers *sync.WaitGroup) {
	there := make(map[peer.ID]bool)
	for _, p := range m.f.o.Peers() {
		there[p.ID] = true
		if tip, ok := m.peers[p.ID]; !ok || tip != p.Tip {
			m.peers[p.ID] = p.Tip
			m.step(ctx, workers, chainhash.Hash{}, relay.Peer{Peer: string(p.ID), Tip: p.Tip})
		}
	}
	for id := range m.peers {
		if !there[id] {
			delete(m.peers, id)
			m.step(ctx, workers, chainhash.Hash{}, relay.PeerGone{Peer: string(id)})
		}
	}
}

// txs returns transactions of a block in work, a channel that is closed at the
// next change if some are not here, or nothing.
func (m *assembly) txs(hash chainhash.Hash, indexes []uint32) ([][]byte, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	txs, known, err := m.a.Txs(hash, indexes)
	if !known || err != nil || txs != nil {
		return txs, nil, err
	}
	return nil, m.inWork[hash], nil
}

// changed returns a channel that is closed at the next change of a block in work;
// nil: it is not.
func (m *assembly) changed(hash chainhash.Hash) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.inWork[hash]; c != nil {
		return c
	}
	return nil
}

// complete tells the assembler of a block that it need not put together. It does not
// block: what does not fit is found in the chain later.
func (m *assembly) complete(hash chainhash.Hash, raw []byte) {
	select {
	case m.have <- relay.Have{Block: hash, Raw: raw}:
	default:
	}
}

func (m *assembly) counts() (inWork, fetches int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.inWork), m.running
}

// deliver hands a completed block to the chain, once.
func (f *Flood) deliver(c *Completed, now time.Time) {
	if !f.take(c, now) {
		return
	}
	select {
	case f.done <- *c:
		f.completed(c, now)
	default:
		f.crowded(c.From, c.Hash)
	}
}

// completed counts and logs a block that was handed to the chain.
func (f *Flood) completed(c *Completed, now time.Time) {
	c.Delay = now.Sub(time.Unix(int64(binary.LittleEndian.Uint32(c.Raw[headerTime:])), 0))
	f.count.do(func(s *Stats) {
		switch c.How {
		case Whole:
			s.Whole++
		case FromPool:
			s.FromPool++
		case Pulled:
			s.Pulled++
		case Fetched:
			s.Fetched++
		}
		if c.How == FromPool || c.How == Pulled {
			s.Txs += uint64(c.Txs)
			s.PrefilledTxs += uint64(c.Prefilled)
			s.PulledTxs += uint64(c.Pulled)
		}
		s.PulledBytes += uint64(c.Bytes)
		s.FromHeader.add(c.Delay)
		s.FromSight.add(c.Took)
		s.Last = *c
		s.Last.Raw = nil
	})
	f.log.Debug("block complete", "hash", c.Hash, "height", c.Height, "peer", c.From, "how", c.How.String(), "bytes", len(c.Raw),
		"txs", c.Txs, "prefilled", c.Prefilled, "pulled", c.Pulled, "pulled_bytes", c.Bytes, "requests", c.Requests,
		"first_ms", c.Took.Milliseconds(), "header_ms", c.Delay.Milliseconds())
}

// headerTime is where the time is in a header: after version, parent and merkle root.
const headerTime = consensus.HeaderBytes - 12
