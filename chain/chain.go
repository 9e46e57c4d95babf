// Package chain keeps the validated chain of one network: the header tree, the
// order in which a block is accepted, the coins, reorganisation and
// notifications. It is a library: it knows no peers and no libp2p.
//
// There is one door: [Chain.Submit]. Gossip, sync, RPC, miner and import all end
// there, and the order in which a block is accepted is one function (accept.go).
//
// Invariants:
//
//   - The published tip ([Chain.Tip]) is fully validated. It moves only to a tip
//     with more work, so the first seen of two equal ones stays, over restarts
//     too; a branch that proves invalid on the way is never published.
//   - The committed tip is never ahead of the bytes on disk; what a crash left
//     past it is replayed, not downloaded again.
//   - Only a fault of the block marks its header. A body that was tampered with
//     is the sender's fault and leaves no trace.
//   - Readers never wait for validation.
//   - Blocks inside the pipeline, cached coins and log lines that a peer can
//     cause are bounded by Options.
//
// One goroutine, the conductor, decides; pipeline.go has the table of goroutines.
package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// Options configure Open. Zero means the default given; Dir, Params and Engine have none.
type Options struct {
	Dir        string            // the home; blocks/, undo/ and index/ are made in it
	FS         vfs.FS            // default vfs.Default
	Params     *consensus.Params // the network
	Engine     consensus.Engine  // of that network: pow.New(Params) or pos.New(Params)
	ChainID    string            // what the home belongs to for ever; another one is an error; default Params.ChainID()
	Now        func() time.Time  // wall clock for the future limit and delays; default time.Now
	Logger     *slog.Logger      // default: discards
	Workers    int               // goroutines for decoding and scripts; default GOMAXPROCS
	CacheBytes int64             // coins cache, clean and dirty together; default 64 MiB; below that the index takes less too
	// AssumeValid names a block whose ancestors' scripts are not checked. The
	// zero hash checks all.
	AssumeValid    chainhash.Hash
	FlushBytes     int64         // dirty coins that force a commit; default 32 MiB
	FlushBlocks    int           // default 2000
	FlushInterval  time.Duration // default 3 s
	MaxQueueBlocks int           // blocks inside the pipeline; default 256
	MaxQueueBytes  int64         // default 32 MiB (one block always fits)
	MinFreeBytes   uint64        // stop accepting blocks below this much free disk; 0: off
	// MaxFileBytes is where a new block or undo file begins, and so the step in
	// which pruning frees room; default 128 MiB.
	MaxFileBytes int64
	// PruneBytes, if not 0, is how many bytes of block and undo files to keep at
	// most: older files are removed whole. The last KeepBlocks blocks and their undo
	// data stay, whatever room they take, so does the file being written.
	PruneBytes int64
	// Reindex builds the index, the coins and the undo data anew from the block
	// files: Open throws the index away, Run replays every block. If it is cut
	// off, the next start goes on with it, asked to or not. A pruned home is
	// refused (ErrPruned).
	Reindex bool
	// ReindexAnew makes Reindex start over where one was cut off.
	ReindexAnew bool
	// HeadersAhead is how many headers further than the validated chain a branch may be where
	// stake makes blocks: there headers cost nothing and prove little before their blocks
	// are here. Default 18,384: the window that sync downloads in and a reply of headers.
	HeadersAhead int
	// AsideBytes is how much of the disk, where stake makes blocks, those may take that peers
	// sent and that were never connected. Default 512 MiB, or twice what as many of the
	// largest blocks take as the deepest reorganisation has, if that is more, but 8 GiB at most.
	AsideBytes int64
	// ScriptsChecked says that the scripts of the transaction with this witness
	// id passed under these flags before (the mempool's memory). It is asked
	// from many goroutines for blocks that did not come from sync, import or
	// disk. Default: never.
	ScriptsChecked func(wtxid chainhash.Hash, flags uint32) bool
	// BlockFacts are more to say in the log's line about a block, by its header (with
	// its seal) and height. It is called by the pipeline. Default: nothing.
	BlockFacts func(h *consensus.Header, height int32) []slog.Attr
}

// Source says where a block came from, for blame and for the log.
type Source struct {
	Kind SourceKind
	Peer string // peer id; empty unless Kind is gossip or sync
	// Facts are more to say in the log's line about the block.
	Facts []slog.Attr
	// Old says that the block is one of many to catch up with: it has no line in the log.
	Old bool
}

// SourceKind is the kind of a Source.
type SourceKind uint8

// The doors that a block can come through.
const (
	FromSync   SourceKind = iota + 1 // downloaded by height
	FromGossip                       // flooded
	FromRPC                          // submitted by a client
	FromMiner                        // made here
	FromImport                       // from a file of the operator's
	FromDisk                         // read back: a replay, or behind a gap that closed
)

// A Tip is the end of a branch.
type Tip struct {
	Hash       chainhash.Hash
	Height     int32
	Time       time.Time // of the header
	MedianTime time.Time
	Bits       uint32
	Work       *big.Int // cumulative; must not be changed
}

// Outcome says what became of a submitted block.
type Outcome uint8

// What can become of a block.
const (
	Connected Outcome = iota + 1 // part of the active chain
	SideChain                    // valid as far as checked, stored, on a branch with less (or equal, later) work
	Stored                       // bytes kept; earlier blocks of its branch are missing
	Duplicate                    // already known
	Orphan                       // parent header unknown: nothing kept
	Refused                      // Err is a *consensus.RuleError
	Failed                       // Err is our own trouble or the chain is closing
)

// A Verdict is the answer to Submit.
type Verdict struct {
	Outcome Outcome
	Hash    chainhash.Hash // zero if not even the header could be read
	Height  int32          // -1 if unknown
	Err     error
}

// A Ticket yields the verdict on one submitted block.
type Ticket struct {
	done    chan struct{}
	verdict Verdict // set before done is closed
}

// Done is closed when the verdict is there.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Verdict returns the verdict; valid only after Done is closed.
func (t *Ticket) Verdict() Verdict { return t.verdict }

// Wait blocks until the verdict is there or ctx ends (then Outcome is Failed and
// Err is ctx's; the block goes on through the pipeline all the same).
func (t *Ticket) Wait(ctx context.Context) Verdict {
	select {
	case <-t.done:
		return t.verdict
	case <-ctx.Done():
		return Verdict{Outcome: Failed, Height: -1, Err: ctx.Err()}
	}
}

// NodeStatus describes what is known of one header.
type NodeStatus struct {
	Height    int32
	Header    consensus.Header // without its seal, which is on disk; see Chain.Block
	Work      *big.Int
	HaveBlock bool // bytes on disk
	Pruned    bool // bytes or undo data were on disk and were removed
	Valid     bool // fully validated at some time
	Invalid   bool // it or an ancestor broke a rule
	Active    bool // on the active chain
	Refused   bool // on a branch that the chain does not go over to by itself, see Chain.Refused
	Txs       int
}

// A ChainTip is a leaf of the header tree, as Bitcoin Core's getchaintips has it.
type ChainTip struct { //nolint:revive // it stutters, but Tip is the end of any branch
	Tip    Tip
	Branch int32  // blocks since the fork from the active chain; 0 for the active tip
	Status string // active, valid-fork, valid-headers, headers-only, invalid, refused
}

// A Chain is an open chain. All methods are safe for concurrent use unless they
// say otherwise. Readers never wait for validation.
type Chain struct {
	o       Options // with defaults filled in
	log     *slog.Logger
	store   *store.Store
	tree    *tree
	coins   *coinCache
	queue   *queue
	tip     *notice // the published tip
	heads   *notice // the best header; set under tree.mu
	kick    chan struct{}
	asked   chan request
	refused limiter // of log lines
	forgot  limiter // of those about forgotten headers
	// refusals are the branches that are kept out for their depth.
	refusals refusedBranches
	// savedAnchor is what ANCHOR holds: anchor and accepted branch. inStep says that the
	// anchor on disk was MaxReorg below the tip. Open's, then the conductor's.
	savedAnchor [2]chainhash.Hash
	inStep      bool
	forks       limiter
	claims      *claims // what the seals of the latest headers claim
	spentStakes *spentStakes

	created bool // Open made the store: there is no tail to look for
	reindex bool // every block file is to be replayed; Open's, then the conductor's
	// reindexes is what reindex was after Open.
	reindexes bool
	// gapStarts is what metaReindex says; Open's, then the conductor's.
	gapStarts uint8
	// denied are the blocks that an operator invalidated, known or not; guarded by tree.mu.
	denied map[chainhash.Hash]struct{}
	// damaged are the blocks that Damaged lists, and moreDamaged its channel; guarded by
	// tree.mu.
	damaged              map[uint32]struct{}
	moreDamaged          chan struct{}
	keptBlocks, keptUndo uint32       // first files not pruned; Open's, then the conductor's
	lowest               atomic.Int32 // see Lowest
	replayed             atomic.Int64 // see Replay
	ran                  atomic.Bool
	lowDisk              atomic.Bool
	ready                chan struct{}
	closed               chan struct{} // closed when Run returns
}

// withDefaults fills in o's defaults and reports every field out of range.
func (o Options) withDefaults() (Options, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Dir == "" {
		fault("chain: Dir is empty")
	}
	if o.Params == nil {
		fault("chain: Params is nil")
	} else if o.ChainID == "" {
		o.ChainID = o.Params.ChainID()
	}
	if o.Engine == nil {
		fault("chain: Engine is nil")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Workers < 0 || o.Workers > 1024 {
		fault("chain: Workers is %d, not in 0…1024", o.Workers)
	} else if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxQueueBlocks < 0 || o.MaxQueueBlocks > 1<<16 {
		fault("chain: MaxQueueBlocks is %d, not in 0…65536", o.MaxQueueBlocks)
	} else if o.MaxQueueBlocks == 0 {
		o.MaxQueueBlocks = 256
	}
	if o.HeadersAhead < 0 || o.HeadersAhead > maxAheadHeaders {
		fault("chain: HeadersAhead is %d, not in 0…%d", o.HeadersAhead, maxAheadHeaders)
	} else if o.HeadersAhead == 0 {
		o.HeadersAhead = 16_384 + headerBatch
	}
	if o.FlushBlocks < 0 {
		fault("chain: FlushBlocks is %d, below 0", o.FlushBlocks)
	} else if o.FlushBlocks == 0 {
		o.FlushBlocks = 2000
	}
	if o.FlushInterval < 0 {
		fault("chain: FlushInterval is %v, below 0", o.FlushInterval)
	} else if o.FlushInterval == 0 {
		o.FlushInterval = 3 * time.Second
	}
	for _, f := range []struct {
		name string
		v    *int64
		def  int64
	}{
		{"CacheBytes", &o.CacheBytes, 64 << 20},
		{"FlushBytes", &o.FlushBytes, 32 << 20},
		{"MaxQueueBytes", &o.MaxQueueBytes, 32 << 20},
		{"MaxFileBytes", &o.MaxFileBytes, 128 << 20},
		{"PruneBytes", &o.PruneBytes, 0},
		{"AsideBytes", &o.AsideBytes, defaultAside(o.Params)},
	} {
		if *f.v < 0 {
			fault("chain: %s is %d, below 0", f.name, *f.v)
		} else if *f.v == 0 {
			*f.v = f.def
		}
	}
	return o, errors.Join(faults...)
}

// defaultAside is the default of Options.AsideBytes.
func defaultAside(p *consensus.Params) int64 {
	if p == nil {
		return 0
	}
	return min(max(512<<20, 2*(int64(p.MaxReorg)+1)*int64(p.MaxBlockBytes())), 8<<30)
}

// Open opens or creates the chain in o.Dir, which it locks, loads the header tree and the
// committed tip. It reports every option out of range. Nothing runs until Run.
func Open(o Options) (*Chain, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	so := store.Options{
		Dir: o.Dir, FS: o.FS, ChainID: o.ChainID, Magic: o.Params.Magic, Logger: o.Logger,
		MaxRecordBytes: maxRecordBytes(o.Params), MaxFileBytes: o.MaxFileBytes, MemTableBytes: store.MemTableBytes(o.CacheBytes),
	}
	open := openStore
	if o.Reindex {
		open = openToReindex
	}
	return open(o, so)
}

// openStore opens the chain on the store as it is.
func openStore(o Options, so store.Options) (*Chain, error) {
	st, err := store.Open(so)
	if err != nil {
		return nil, fmt.Errorf("opening the chain in %s: %w", o.Dir, err)
	}
	c := &Chain{
		o:      o,
		log:    o.Logger,
		store:  st,
		tree:   newTree(o.Params, o.HeadersAhead),
		coins:  newCoinCache(st),
		queue:  newQueue(o.MaxQueueBlocks, o.MaxQueueBytes),
		kick:   make(chan struct{}, 1),
		asked:  make(chan request),
		ready:  make(chan struct{}),
		closed: make(chan struct{}),
		claims: newClaims(),

		spentStakes: newSpentStakes(o.Params),

		damaged: make(map[uint32]struct{}), moreDamaged: make(chan struct{}),
	}
	if err := c.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the chain in %s: %w", o.Dir, err), st.Close())
	}
	c.reindexes = c.reindex
	return c, nil
}

// openToReindex goes on with a reindex that was cut off, or begins one.
func openToReindex(o Options, so store.Options) (*Chain, error) {
	if !o.ReindexAnew {
		// An index that nobody says is new must not even be opened: damage may make
		// Pebble keep its lock.
		if cutOff, err := store.Filling(o.FS, o.Dir); err != nil {
			return nil, fmt.Errorf("reindexing the chain in %s: %w", o.Dir, err)
		} else if cutOff {
			c, err := openStore(o, so)
			if err != nil || c.reindex {
				return c, err
			}
			if err := c.Close(); err != nil { // it had just been finished
				return nil, err
			}
		}
	}
	if err := store.Wipe(so); err != nil {
		return nil, fmt.Errorf("reindexing the chain in %s: %w", o.Dir, err)
	}
	so.Rebuild = true
	return openStore(o, so)
}

// maxRecordBytes is the largest block or undo record. A block can spend as many
// coins as it has room for inputs of 41 bytes, each with the longest script.
func maxRecordBytes(p *consensus.Params) int {
	const inputBytes, coinBytes = 41, txscript.MaxScriptSize + 16
	return min(1<<30, max(p.MaxBlockBytes(), p.MaxBlockWeight/4/inputBytes*coinBytes))
}

// Run first replays what a crash left on disk past the committed tip, then runs
// the pipeline until ctx ends, commits and returns ctx's error. It joins every
// goroutine it started. Another error is our own trouble. Run may be called once.
func (c *Chain) Run(ctx context.Context) error {
	if !c.ran.CompareAndSwap(false, true) {
		return errors.New("chain: Run was called before")
	}
	return c.conduct(ctx)
}

// Ready is closed when the replay is over and Submit no longer waits for it.
func (c *Chain) Ready() <-chan struct{} { return c.ready }

// Close releases the store; call it after Run has returned. It commits nothing.
func (c *Chain) Close() error { return c.store.Close() }

// Params returns the network's parameters.
func (c *Chain) Params() *consensus.Params { return c.o.Params }

// Submit hands over a block as received (header ‖ seal ‖ transactions). It blocks
// while the pipeline is full or the replay is not over; verdicts come in the
// order in which blocks were accepted. It keeps raw. An error is ctx's or
// ErrClosed; everything about the block is in the ticket. A locally made block
// (FromMiner, FromRPC) gets its verdict only after it is durable.
func (c *Chain) Submit(ctx context.Context, raw []byte, src Source) (*Ticket, error) {
	select {
	case <-c.ready:
	case <-c.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	it := &item{raw: raw, src: src, node: noNode, parent: noNode, ticket: &Ticket{done: make(chan struct{})}, prepared: make(chan struct{})}
	if most := c.o.Params.MaxBlockBytes(); len(raw) > most {
		err := ruleError("bad-blk-length", consensus.BlameSender, fmt.Sprintf("%d bytes, the most is %d", len(raw), most))
		it.answer(Verdict{Outcome: Refused, Height: -1, Err: err})
		return it.ticket, nil
	}
	if c.lowDisk.Load() && src.Kind != FromSync && src.Kind != FromImport {
		it.answer(Verdict{Outcome: Failed, Height: -1, Err: ErrLowDisk})
		return it.ticket, nil
	}
	if err := c.queue.put(ctx, it); err != nil {
		return nil, err
	}
	return it.ticket, nil
}

// Flush commits everything validated so far.
func (c *Chain) Flush(ctx context.Context) error {
	return c.ask(ctx, func(c *conductor) (answer, err error) { return nil, c.commit() })
}

// Invalidate marks a block, and with it all that builds on it, as an operator's
// decision: the chain leaves it for the best other branch, even one with less
// work, and refuses it from now on, over restarts and a reindex: that is durable when
// it returns. ErrNotFound if its header is unknown. ErrPruned or ErrDamaged if the way
// back lacks a block; then nothing has changed. It reads every block that it takes back.
func (c *Chain) Invalidate(ctx context.Context, hash chainhash.Hash) error {
	return c.ask(ctx, func(c *conductor) (answer, err error) {
		i, ok := c.tree.lookup(&hash)
		switch {
		case !ok:
			return fmt.Errorf("invalidate %v: %w", hash, ErrNotFound), nil
		case c.tree.node(i).parent == noNode:
			return fmt.Errorf("invalidate %v: genesis cannot be invalid", hash), nil
		}
		// What is in flight above it must not be published afterwards.
		if err := c.drain(); err != nil {
			return nil, err
		}
		if c.active(i) && c.tree.prunedAbove(c.tip.get(), c.tree.node(i).parent) {
			return fmt.Errorf("invalidate %v at height %d: it or a block above it %w, so it cannot be taken back", hash, c.tree.node(i).height, ErrPruned), nil
		}
		if damage, err := c.damagedAbove(i); err != nil {
			return nil, err
		} else if damage != nil {
			return fmt.Errorf("invalidate %v at height %d: %w", hash, c.tree.node(i).height, damage), nil
		}
		if err := c.deny(hash); err != nil {
			return fmt.Errorf("invalidate %v: %w", hash, err), nil
		}
		c.tree.mu.RLock()
		anchor := c.tree.anchor
		c.tree.mu.RUnlock()
		c.mark(i, flagInvalid)
		c.tree.mu.RLock()
		lowered := c.tree.anchor != anchor
		c.tree.mu.RUnlock()
		if lowered { // what was refused may be taken now
			c.refusals.mu.Lock()
			c.refusals.accepted++
			c.refusals.mu.Unlock()
		}
		return nil, nil
	})
}

// Reconsider forgets that a block, its ancestors and all that builds on it were
// found or declared invalid. What really breaks a rule is found to do so again when
// its turn comes. ErrNotFound if its header is unknown.
func (c *Chain) Reconsider(ctx context.Context, hash chainhash.Hash) error {
	return c.ask(ctx, func(c *conductor) (answer, err error) {
		i, ok := c.tree.lookup(&hash)
		if !ok {
			return fmt.Errorf("reconsider %v: %w", hash, ErrNotFound), nil
		}
		if err := c.pardon(i); err != nil {
			return fmt.Errorf("reconsider %v: %w", hash, err), nil
		}
		c.absolve(i)
		return nil, nil
	})
}
