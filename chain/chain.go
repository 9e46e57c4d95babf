// Package chain keeps the validated chain of one network: the header tree, the
// order in which a block is accepted, the coins, reorganisation and
// notifications. It is a library: it knows no peers and no libp2p.
//
// There is one door: [Chain.Submit]. Gossip, sync, RPC, miner and import all end
// there.
package chain

import (
	"context"
	"log/slog"
	"math/big"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
)

// Options configure Open. Zero means the default given.
type Options struct {
	Dir        string // the home; blocks/, undo/ and index/ are made in it
	FS         vfs.FS // default vfs.Default
	Params     *consensus.Params
	Engine     consensus.Engine
	ChainID    string
	Now        func() time.Time // wall clock for the future limit and delays; default time.Now
	Logger     *slog.Logger     // default: discards
	Workers    int              // goroutines for decoding and scripts; default GOMAXPROCS
	CacheBytes int64            // coins cache, clean and dirty together; default 64 MiB
	// AssumeValid names a block whose ancestors' scripts are not checked. The
	// zero hash checks all.
	AssumeValid    chainhash.Hash
	FlushBytes     int64         // dirty coins that force a commit; default 32 MiB
	FlushBlocks    int           // default 2000
	FlushInterval  time.Duration // default 5 s
	MaxQueueBlocks int           // blocks inside the pipeline; default 256
	MaxQueueBytes  int64         // default 32 MiB (one block always fits)
	MinFreeBytes   uint64        // stop accepting blocks below this much free disk; 0: off
}

// Source says where a block came from, for blame and for the log.
type Source struct {
	Kind SourceKind
	Peer string // peer id; empty unless Kind is gossip or sync
}

// SourceKind is the kind of a Source.
type SourceKind uint8

const (
	FromSync SourceKind = iota + 1
	FromGossip
	FromRPC
	FromMiner
	FromImport
	FromDisk // the recovery scan
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
type Ticket struct{}

// Done is closed when the verdict is there.
func (t *Ticket) Done() <-chan struct{} { panic("stub") }

// Verdict returns the verdict; valid only after Done is closed.
func (t *Ticket) Verdict() Verdict { panic("stub") }

// Wait blocks until the verdict is there or ctx ends (then Outcome is Failed and
// Err is ctx's; the block goes on through the pipeline all the same).
func (t *Ticket) Wait(ctx context.Context) Verdict { panic("stub") }

// NodeStatus describes what is known of one header.
type NodeStatus struct {
	Height    int32
	Header    consensus.Header
	Work      *big.Int
	HaveBlock bool // bytes on disk
	Valid     bool // fully validated at some time
	Invalid   bool // it or an ancestor broke a rule
	Active    bool // on the active chain
	Txs       int
}

// A ChainTip is a leaf of the header tree, as Bitcoin Core's getchaintips has it.
type ChainTip struct {
	Tip    Tip
	Branch int32  // blocks since the fork from the active chain; 0 for the active tip
	Status string // active, valid-fork, valid-headers, headers-only, invalid
}

// A Chain is an open chain. All methods are safe for concurrent use unless they
// say otherwise.
type Chain struct{}

// Open opens or creates the chain in o.Dir, loads the header tree and the
// committed tip. It reports every option out of range. Nothing runs until Run.
func Open(o Options) (*Chain, error) { panic("stub") }

// Run first replays what a crash left on disk past the committed tip, then runs
// the pipeline until ctx ends, commits and returns. It joins every goroutine it
// started. A returned error other than ctx's is our own trouble.
func (c *Chain) Run(ctx context.Context) error { panic("stub") }

// Ready is closed when the replay is over and Submit no longer waits for it.
func (c *Chain) Ready() <-chan struct{} { panic("stub") }

// Close releases the store; call it after Run has returned.
func (c *Chain) Close() error { panic("stub") }

// Submit hands over a block as received (header ‖ seal ‖ transactions). It blocks
// only while the pipeline is full; verdicts come in the order in which blocks
// were accepted. It keeps raw. An error is ctx's or ErrClosed; everything about
// the block is in the ticket. A locally made block (FromMiner, FromRPC) gets its verdict only after it is
// durable.
func (c *Chain) Submit(ctx context.Context, raw []byte, src Source) (*Ticket, error) { panic("stub") }

// AcceptHeaders checks headers (consecutive, ascending) and adds them to the
// tree. It stops at the first fault. added counts the new ones; last is the end
// of what is now known of them. A header whose parent is unknown gives
// a *consensus.RuleError "unknown-parent" that blames nobody.
func (c *Chain) AcceptHeaders(ctx context.Context, hs []consensus.Header) (added int, last Tip, err error) {
	panic("stub")
}

// CheckHeader runs the header checks without adding anything. known is true if
// the tree has it already, then status is what Status returns.
func (c *Chain) CheckHeader(h *consensus.Header) (height int32, known bool, err error) { panic("stub") }

// Tip returns the validated tip and a channel that is closed at its next change.
// Until the first Run it is the committed tip.
func (c *Chain) Tip() (Tip, <-chan struct{}) { panic("stub") }

// BestHeader returns the tip of the valid header chain with most work, and a
// channel that is closed at its next change.
func (c *Chain) BestHeader() (Tip, <-chan struct{}) { panic("stub") }

// Status returns what is known of a header.
func (c *Chain) Status(hash chainhash.Hash) (NodeStatus, bool) { panic("stub") }

// HashAt returns the hash at height on the active chain.
func (c *Chain) HashAt(height int32) (chainhash.Hash, bool) { panic("stub") }

// Ancestor returns the hash of the ancestor of hash at height (hash itself
// included) in the header tree. O(log height).
func (c *Chain) Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool) { panic("stub") }

// Fork returns the last common block of the branches that end in a and b.
func (c *Chain) Fork(a, b chainhash.Hash) (hash chainhash.Hash, height int32, ok bool) { panic("stub") }

// Past returns the view that ends in hash, for engines and templates.
func (c *Chain) Past(hash chainhash.Hash) (consensus.Past, bool) { panic("stub") }

// Have returns the ranges of heights in (from, to] of the branch that ends in
// tip whose block bytes are on disk, ascending and non-overlapping.
func (c *Chain) Have(tip chainhash.Hash, from, to int32) [][2]int32 { panic("stub") }

// Locator returns a block locator (newest first, exponentially sparser, genesis
// last, at most 64 hashes) of the branch that ends in hash.
func (c *Chain) Locator(hash chainhash.Hash) []chainhash.Hash { panic("stub") }

// HeadersAfter appends to dst up to max raw headers (header ‖ seal each) of the
// active chain that follow the first hash of the locator found on it (genesis if
// none), and returns the height of the first.
func (c *Chain) HeadersAfter(dst []byte, locator []chainhash.Hash, max int) (start int32, n int, raw []byte, err error) {
	panic("stub")
}

// Block returns the bytes of a block that is on disk, after checking their CRC.
// ErrNotFound if there are none.
func (c *Chain) Block(hash chainhash.Hash) ([]byte, error) { panic("stub") }

// BlockSize returns the size of a block on disk without reading it; 0 if unknown.
func (c *Chain) BlockSize(hash chainhash.Hash) int { panic("stub") }

// Coin looks a coin up as of the validated tip.
func (c *Chain) Coin(op wire.OutPoint) (consensus.Coin, bool, error) { panic("stub") }

// Tips lists the leaves of the header tree, the active one first.
func (c *Chain) Tips() []ChainTip { panic("stub") }

// Params returns the network's parameters.
func (c *Chain) Params() *consensus.Params { panic("stub") }

// Flush commits everything validated so far.
func (c *Chain) Flush(ctx context.Context) error { panic("stub") }
