// Package mempool keeps the unconfirmed transactions that could be in the next
// block.
//
// It is our own rather than btcd's: that one has no bound on memory, runs
// scripts under its lock and wants btcd's chain state. Policy on a transaction
// alone (standardness, dust) is btcd's.
//
// # Invariants
//
//   - Every entry is valid in the block after [Pool.Tip], given the entries it
//     spends from, and so is a block of all entries in order of acceptance as far
//     as they fit.
//   - No two entries spend the same output; every entry that another spends from
//     is in the pool.
//   - Entries and orphans together take at most Options.MaxBytes and
//     Options.MaxOrphanBytes; orphans are bounded by count and by peer too. What
//     waits to get back in after a reorganisation counts as entries, with 20 MB
//     more for as long as it waits. Up to 100 transactions, of 5 MB, that were
//     refused or pushed out are kept besides: a block may have them.
//   - What a change costs does not grow with the pool, but for a logarithm: a
//     family has at most 25 members in either direction.
//   - No script runs and nothing is called under the lock.
//   - A transaction that leaves without being mined has a [Fate]; the last few
//     thousand are remembered.
//
// # Blame
//
// [Pool.Submit] blames the sender only for what is wrong whatever the chain: a
// transaction id commits to the values and scripts that it spends, so sums and
// scripts that fail here fail everywhere. What depends on our tip, our policy or
// our other entries (missing inputs, maturity, relative locks, fees, conflicts)
// blames nobody. A peer that has many of its transactions refused is not listened
// to for a while, so that it cannot burn our time with them.
package mempool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// Limits of Options, which keep sums of fees and scans of orphans in bounds.
const (
	defaultMaxBytes = 300_000_000

	maxMinFeeRate = 100 * btcutil.SatoshiPerBitcoin
	maxMaxOrphans = 10_000
)

// maxAwait is how long a transaction waits for the pool to follow the chain.
const maxAwait = time.Second

// Options configure New. Zero means the default given.
type Options struct {
	Chain          *chain.Chain
	MaxBytes       int64         // memory of all entries; default 300 MB
	MinFeeRate     int64         // satoshi per 1000 virtual bytes, at most 100 coins; default 1000, -1: none
	Expiry         time.Duration // default 336 h
	MaxOrphans     int           // a quarter of them by one peer; at most 10,000, default 100, -1: none
	MaxOrphanBytes int64         // memory, a quarter of it by one peer; default 10 MB
	// File is where Run keeps the entries over restarts; "": nowhere.
	File string
	FS   vfs.FS // of File; default vfs.Default
	// SaveEvery is the least time between two writes of a changed File; default 5 s.
	SaveEvery time.Duration
	Now       func() time.Time // default time.Now
	Logger    *slog.Logger     // default: discards
}

// An Entry is a transaction in the pool. What it points to must not be changed.
type Entry struct {
	Tx        *wire.MsgTx
	ID, WID   chainhash.Hash
	Fee       int64 // satoshi
	Weight    int
	SigOpCost int
	Height    int32 // of the tip when it came, or came back
	Added     time.Time
	// Received is when a peer's message brought it; zero if it was made here.
	Received time.Time
	Parents  []chainhash.Hash // ids of pool transactions that it spends from

	seq uint64 // order of acceptance: parents come before children
}

// sigOpWeight is the weight that a unit of signature operation cost counts as
// where fees are concerned, as in Bitcoin Core (DEFAULT_BYTES_PER_SIGOP, whose 20
// virtual bytes are for a whole operation, 4 units). Without it a few cheap
// transactions could use up a block's signature operations.
const sigOpWeight = 20

// FeeWeight is the weight that fee rates go by: Weight, or more if there are many
// signature operations.
func (e *Entry) FeeWeight() int64 { return feeWeight(int64(e.Weight), e.SigOpCost) }

func feeWeight(weight int64, sigOpCost int) int64 { return max(weight, sigOpWeight*int64(sigOpCost)) }

// A place is a block that the pool can be on top of.
type place struct {
	hash   chainhash.Hash
	height int32
}

// A Pool holds transactions that are valid on top of the chain's tip. All
// methods are safe for concurrent use.
type Pool struct {
	o      Options
	log    *slog.Logger
	params *consensus.Params
	// strict are params with relative locks and BIP54's rules on transactions in
	// force: an entry must still be good when the soft fork activates.
	strict *consensus.Params

	mu      sync.RWMutex // guards what follows; held for map work only
	tip     place
	moved   chan struct{} // closed and replaced when tip changes
	changed chan struct{} // closed and replaced when tip changes or an entry is added
	seq     uint64
	byID    map[chainhash.Hash]*entry
	byWID   map[chainhash.Hash]*entry
	spent   map[wire.OutPoint]*entry
	order   evictionHeap // all entries
	// wids and listed are all entries, at the same places: to look through their
	// witness ids, which must be fast, is to read memory from one end to the other.
	wids    []chainhash.Hash
	listed  []*entry
	extra   extraBook
	memory  int64
	vbytes  int64
	floor   rollingFloor
	orphans orphanage
	waste   wasteBook
	fates   fateBook
	// waiting is the memory of what is on its way back in after a reorganisation.
	waiting int64
	left    []*candidate // of that, what Run left when it ended
	// turns are the entries that others are to be told of; told is closed and
	// replaced when one is added. blocks counts those that the pool followed.
	turns  turns
	told   chan struct{}
	blocks uint64
	salt   maphash.Seed // of turns that are cover
	cover  uint64       // one of so many has one; 0: none
	// shown is what others may be shown, run its name in this run.
	shown list
	run   uint64
	// changes counts what would make File differ.
	changes uint64
}

// New returns an empty pool on top of the chain's tip. Nothing follows the chain
// until Run.
func New(o Options) (*Pool, error) {
	if o.Chain == nil {
		return nil, errors.New("mempool: chain is required")
	}
	var faults []error
	for _, f := range []struct {
		name           string
		v, least, most int64
	}{
		{"max bytes", o.MaxBytes, 0, 0},
		{"min fee rate", o.MinFeeRate, -1, maxMinFeeRate},
		{"expiry", int64(o.Expiry), 0, 0},
		{"max orphans", int64(o.MaxOrphans), -1, maxMaxOrphans},
		{"max orphan bytes", o.MaxOrphanBytes, 0, 0},
		{"save every", int64(o.SaveEvery), 0, 0},
	} {
		if f.v < f.least {
			faults = append(faults, fmt.Errorf("%s %d: must not be below %d", f.name, f.v, f.least))
		} else if f.most > 0 && f.v > f.most {
			faults = append(faults, fmt.Errorf("%s %d: at most %d", f.name, f.v, f.most))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("mempool: %w", err)
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultMaxBytes)
	o.MinFeeRate = max(0, cmp.Or(o.MinFeeRate, 1000))
	o.Expiry = cmp.Or(o.Expiry, 336*time.Hour)
	o.MaxOrphans = max(0, cmp.Or(o.MaxOrphans, 100))
	o.SaveEvery = cmp.Or(o.SaveEvery, 5*time.Second)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.MaxOrphanBytes = cmp.Or(o.MaxOrphanBytes, 10_000_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	strict := *o.Chain.Params()
	strict.CSVHeight, strict.BIP54 = 0, true
	tip, _ := o.Chain.Tip()
	return &Pool{
		o: o, log: o.Logger, params: o.Chain.Params(), strict: &strict,
		tip:     place{tip.Hash, tip.Height},
		moved:   make(chan struct{}),
		changed: make(chan struct{}),
		byID:    make(map[chainhash.Hash]*entry),
		byWID:   make(map[chainhash.Hash]*entry),
		spent:   make(map[wire.OutPoint]*entry),
		orphans: newOrphanage(o.MaxOrphans, o.MaxOrphanBytes),
		extra:   extraBook{byWID: make(map[chainhash.Hash]*bystander)},
		waste:   newWasteBook(),
		fates:   newFateBook(),
		told:    make(chan struct{}),
		salt:    maphash.MakeSeed(),
		cover:   coverShare,
		run:     rand.Uint64(),
	}, nil
}

// Have says whether the pool holds the transaction.
func (p *Pool) Have(txid chainhash.Hash) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.byID[txid]
	return ok
}

// Get returns an entry by id.
func (p *Pool) Get(txid chainhash.Hash) (Entry, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	e, ok := p.byID[txid]
	if !ok {
		return Entry{}, false
	}
	return e.public(), true
}

// ScriptsChecked says whether the scripts of the transaction with this witness
// id passed under these flags or stricter ones. It is chain.Options.ScriptsChecked.
func (p *Pool) ScriptsChecked(wtxid chainhash.Hash, flags uint32) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	e, ok := p.byWID[wtxid]
	return ok && e.flags&flags == flags
}

// Entries returns a snapshot, parents before their children.
func (p *Pool) Entries() []Entry {
	p.mu.RLock()
	out := p.copyEntries()
	p.mu.RUnlock()
	return inOrder(out)
}

// Snapshot returns the entries, parents before their children, if the pool is on
// top of the block tip: all of them are valid in a child of it. It waits up to a
// second for the pool to follow the chain there, and returns false if it does
// not.
func (p *Pool) Snapshot(ctx context.Context, tip chainhash.Hash) ([]Entry, bool) {
	var deadline <-chan time.Time
	for {
		p.mu.RLock()
		at, moved := p.tip.hash, p.moved
		var out []Entry
		if at == tip {
			out = p.copyEntries()
		}
		p.mu.RUnlock()
		if at == tip {
			return inOrder(out), true
		}
		if now, _ := p.o.Chain.Tip(); now.Hash != tip {
			return nil, false // the chain has left it: the pool will not go there
		}
		if deadline == nil {
			t := time.NewTimer(maxAwait)
			defer t.Stop()
			deadline = t.C
		}
		select {
		case <-moved:
		case <-deadline:
			return nil, false
		case <-ctx.Done():
			return nil, false
		}
	}
}

// copyEntries returns the entries in no order. Callers hold mu.
func (p *Pool) copyEntries() []Entry {
	out := make([]Entry, len(p.order))
	for i, e := range p.order {
		out[i] = e.public()
	}
	return out
}

func inOrder(es []Entry) []Entry {
	slices.SortFunc(es, func(a, b Entry) int { return cmp.Compare(a.seq, b.seq) })
	return es
}

// Size returns the number of transactions, their virtual bytes and the memory
// that they take.
func (p *Pool) Size() (count int, vbytes, memory int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.byID), p.vbytes, p.memory
}

// MinFeeRate returns what a transaction must pay to get in now, in satoshi per
// 1000 virtual bytes: Options.MinFeeRate, or more for a while after entries were
// evicted for lack of room.
func (p *Pool) MinFeeRate() int64 {
	now := p.o.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.minFeeRate(now)
}

// Orphans returns the number of orphans and the memory that they take.
func (p *Pool) Orphans() (count int, bytes int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.orphans.byWID), p.orphans.bytes
}

// Changed returns a channel that is closed when a transaction is added, or the
// tip moves, after this call.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.changed
}

// Tip returns the block on top of which the pool is valid.
func (p *Pool) Tip() chainhash.Hash {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.tip.hash
}

// move puts the pool on top of another block. Callers hold mu.
func (p *Pool) move(to place) {
	p.tip = to
	close(p.moved)
	p.moved = make(chan struct{})
	p.signal()
}

// signal wakes who waits for a change. Callers hold mu.
func (p *Pool) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// await waits until the pool is where the chain is.
func (p *Pool) await(ctx context.Context) error {
	t := time.NewTimer(maxAwait) // Run may not be running: do not wait for ever
	defer t.Stop()
	for {
		p.mu.RLock()
		at, moved := p.tip.hash, p.moved
		p.mu.RUnlock()
		if tip, _ := p.o.Chain.Tip(); tip.Hash == at {
			return nil
		}
		select {
		case <-moved:
		case <-t.C:
			return refuse("tip-moving", "the pool has not caught up with the chain")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refuse makes the errors that blame nobody.
func refuse(rule, format string, args ...any) error {
	return &consensus.RuleError{Rule: rule, Blame: consensus.BlameNobody, Detail: fmt.Sprintf(format, args...)}
}
