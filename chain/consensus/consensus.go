// Package consensus holds the rules of a Bitcoin-format chain as pure
// functions: what a network is ([Params]), what a block is ([Block]), who is to
// blame when a rule is broken ([RuleError]) and what an engine decides
// ([Engine]).
//
// It is not a chain: it keeps no state, starts no goroutine, reads no clock and
// does no I/O. What it needs of the past comes in as a [Past], what it needs of
// the unspent outputs as a [Coins].
package consensus

import (
	"errors"
	"math/big"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// HeaderBytes is the size of a header without its seal.
const HeaderBytes = 80

// A Header is a block header and, on networks whose engine wants one, the seal
// that follows it on the wire and on disk ([Params.SealBytes] long, else nil).
type Header struct {
	wire.BlockHeader
	Seal []byte
}

// A Block is a decoded block together with the bytes it was decoded from. It is
// immutable and safe for concurrent use. Make one with [DecodeBlock] or [NewBlock].
type Block struct {
	Raw          []byte         // header ‖ seal ‖ transactions, exactly as received
	Header       Header         // the decoded header
	Hash         chainhash.Hash // double SHA-256 of the 80 header bytes
	Txs          []*btcutil.Tx  // never empty; Txs[0] is the coinbase once CheckBlockContextFree passed
	StrippedSize int            // bytes without witness data and seal (BIP141 base size)
	Weight       int            // BIP141 weight units; the seal does not count
}

// PastHeader is what rules may ask about an ancestor.
type PastHeader struct {
	Version int32
	Bits    uint32
	Nonce   uint32
	Time    int64 // Unix seconds
}

// Past is a view of the branch that ends in a block's parent.
type Past interface {
	Height() int32              // of the parent, 0 for genesis
	Hash() chainhash.Hash       // of the parent
	At(height int32) PastHeader // 0 ≤ height ≤ Height(); panics outside
}

// A Coin is an unspent transaction output.
type Coin struct {
	Value    int64  // satoshi
	Script   []byte // shared: must not be changed
	Height   int32  // of the block that created it
	Coinbase bool
}

// Coins looks up unspent outputs as of a block's parent.
type Coins interface {
	// Coin returns the coin at op and whether it exists and is unspent. An
	// error is our own trouble (disk), never a rule.
	Coin(op wire.OutPoint) (Coin, bool, error)
}

// Lookback is how many headers below the parent CheckHeader and NextBits may ask a
// past for, besides genesis: more than a difficulty period.
const Lookback = 4096

// An Engine decides what proves a block: work or stake. Engines have neither
// goroutine nor clock and are safe for concurrent use.
type Engine interface {
	// CheckHeader checks everything that a header and its seal alone prove,
	// given its past: bits, proof, version, median time, future limit. It runs
	// before anything is relayed or stored. Faults are *RuleError. It looks back at
	// most Lookback headers.
	CheckHeader(past Past, h *Header, now time.Time) error
	// CheckBody checks that a body and its seal belong together, as far as they show it
	// alone. A block's hash does not cover its seal, so a fault blames the
	// sender: the block may come with another one.
	CheckBody(b *Block) error
	// CheckBlock checks what the engine needs the coins of the parent for. b has passed
	// CheckBody.
	CheckBlock(past Past, coins Coins, b *Block) error
	// NextBits returns the bits that a child of past with timestamp t must have.
	NextBits(past Past, t time.Time) uint32
	// Work returns the work that a header adds to its branch.
	Work(h *Header) *big.Int
}

// A Claim is what a header's seal says of the stake by which its block was made: that
// it is the coin at OutPoint, and that whoever has Key made the block in Slot.
type Claim struct {
	OutPoint wire.OutPoint
	Key      [32]byte // x-only
	Slot     int64
}

// A Sealer turns a template into a valid block. What a proof is made of may have to
// be known before there is a template (who has the stake, for which slot), so it comes
// in two steps, for each attempt.
type Sealer interface {
	// Prepare waits until a block on past may be made and says what it must have: at
	// once and nothing where work proves blocks, the next slot that is won where stake
	// does. It returns [context.Canceled] when stop is closed.
	Prepare(stop <-chan struct{}, past Past) (Plan, error)
	// Seal proves b's header, which was made by a plan: it changes the nonce where work
	// is wanted, and the seal where there is one. It returns false without error when
	// the search space is exhausted (the caller changes the extranonce),
	// [context.Canceled] when stop is closed, and [ErrStale] when the plan is no longer
	// good (the caller prepares again).
	Seal(stop <-chan struct{}, h *Header) (bool, error)
}

// ErrStale is what a [Sealer] returns for a header whose plan no longer holds.
var ErrStale = errors.New("what was prepared for the seal no longer holds")

// A Plan is what a block must have so that it can be sealed. The zero value demands
// nothing.
type Plan struct {
	Time    int64         // of the header, Unix seconds; 0: the template's choice
	Nonce   uint32        // of the header
	Seal    []byte        // of the header, not signed yet; nil: none
	Outputs []*wire.TxOut // that the coinbase must have, beside what it pays
	// PayTo is the output script of who earns the block, for a coinbase that nobody has
	// named another for; nil: nobody.
	PayTo []byte
}
