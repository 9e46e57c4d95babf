// Package relay judges the messages of the block and transaction topics: whether
// to pass them on, and what to do with what they carry. It also puts blocks
// together again that came as compact blocks ([Assembler]).
//
// It is pure: no goroutine, clock or I/O, and it fetches nothing. A judgement is
// made inside a gossip validator, so it costs no more than a header check and, of
// a whole block, a guarded decode and two merkle roots; whether the transactions of
// a block are valid is found out after it was passed on (BIP152 high bandwidth).
//
// # Format of the block topic
//
// A message is one byte of encoding and the payload. Encoding 0 is a whole block
// (header ‖ seal ‖ transactions), encoding 1 a compact one ([DecodeCompact]).
// Others are reserved: they are ignored, not rejected, because a newer node may
// send them in good faith. Who makes a block sends it with [MakeCompact]; others
// pass on the message that they got.
//
// # Verdicts on the block topic
//
// In this order; the first that applies counts.
//
//	check                              verdict  why
//	empty message                      REJECT   no encoding of anything
//	first byte above 1                 IGNORE   reserved: a newer node may mean well
//	longer than its encoding can be    REJECT   the limits are constants of the network
//	shorter than header and seal       REJECT   cannot be a block
//	header does not decode             REJECT   the sender could see it
//	our own trouble                    IGNORE   nobody's fault
//	unknown parent                     IGNORE   we may be the one behind: headers are asked for
//	header not valid yet (time)        IGNORE   clocks differ
//	near the tip, stake not there      IGNORE   a header's hash does not cover its seal
//	header on a branch found invalid   IGNORE   found by validation, which relay does not wait for
//	header breaks a rule               REJECT   whoever passes it on has checked it
//	64 heights below the highest seen  IGNORE   no news; sync brings what is needed
//	block known to be invalid          IGNORE   as above: the sender may not know yet
//	block on disk                      IGNORE   late copies are normal
//	whole: body does not decode        REJECT   the sender could see it
//	whole: merkle root or commitment   REJECT   a mutated copy; the header stays clean
//	compact: malformed                 REJECT   the sender could see it; a rule for each form
//	coinbase of another seal           REJECT   the sender could see it; the block may have a right one
//	third header of a stake in a slot  IGNORE   two are evidence, more say nothing new
//	third of its encoding and header   IGNORE   cap; two cover a bad copy that came first
//	compact, after a whole one         IGNORE   cap; the whole one proved itself
//	stake: far above the blocks here   IGNORE   headers alone cost nothing; "ahead"
//	fourth header at this height       IGNORE   cap; honest forks have two or three
//	sender's second header there       IGNORE   cap; a peer has one best block
//	anything else                      ACCEPT   whether it is valid is found out after it was passed on
//
// What a cap refuses is used all the same (Raw, Compact). Once connected it is
// this node's tip, of which neighbours hear by hello: on the topic its id is seen.
//
// # False compact blocks
//
// A compact block proves no more than its header, and anybody who has seen a
// header can make false copies for nothing: short ids of no transactions, a
// coinbase of another block. So whoever sends one is not at fault, for it may
// only have passed it on. It takes up one of the two places that compact encodings of
// its header have, but none of a whole block, which proves itself. And
// [Assembler] says when all that were passed on were false: then this node sends
// the block once more, in an encoding of its own ([Reflood]), so that the real one
// travels on, hop by hop, whatever came first.
//
// # Headers of stake
//
// A header of stake proves nothing, and a branch of them costs nobody anything. So one
// whose parent's block is not here neither says how high the chain is nor takes the
// place of one whose parent's block is: such headers are passed on with caps of their
// own, and at most one height above the others. And one that leaves the validated chain near
// its tip is looked up among the coins of there: if its stake is not one it is dropped and
// takes no place.
//
// # Verdicts on the transaction topic
//
//	check                              verdict  why
//	longer than MaxTxBytes             REJECT   no standard transaction is
//	does not decode, trailing bytes    REJECT   the sender could see it
//	decodes to over 8 times its size   REJECT   no standard transaction does, and alone it proves nothing
//	known to the pool                  IGNORE   late copies are normal
//	invalid whatever the chain is      REJECT   whoever passes it on has checked it (mempool: Blame)
//	policy, fee, conflict, inputs      IGNORE   depends on tip, pool and options
//	the sender is over its budget      IGNORE   not even looked at
//	our own trouble                    IGNORE   nobody's fault
//	added to the pool                  ACCEPT
//
// # Invariants
//
//   - Reject only what its sender could have seen to be worthless: it costs the
//     sender score. Everything else that is not passed on is ignored.
//   - The caps (encodings of a header, headers of a height) limit what is passed
//     on, never what is used: a valid block is always handed to the chain.
//   - What is rejected uses up no cap: a mutated copy cannot keep the real block
//     from being passed on.
//   - Memory is bounded by maxHeights and the caps, whatever peers send.
package relay

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Encoding is the first byte of a message on the block topic.
type Encoding byte

// WholeBlock says that the payload is header ‖ seal ‖ transactions.
const WholeBlock Encoding = 0

const (
	// maxEncodings is how many different messages with one header are passed on of
	// each encoding. The second covers a mutated copy that came first.
	maxEncodings = 2
	// maxHeadersPerHeight and maxHeadersPerSource limit competing blocks of one
	// height: honest forks are two, rarely three, and a peer has one best block.
	maxHeadersPerHeight = 3
	maxHeadersPerSource = 1
	// maxHeadersPerStake is how many headers by one stake in one slot are passed on: two
	// show everybody that its owner signs more than one.
	maxHeadersPerStake = 2
	// maxHeights is how many heights below the highest seen are remembered.
	maxHeights = 64
)

// Result is what becomes of a message on the topic.
type Result uint8

// The results.
const (
	Accept Result = iota + 1 // pass it on
	Ignore                   // do not pass it on; the sender is not at fault
	Reject                   // do not pass it on; the sender is at fault
)

// A Verdict is the judgement of one message.
type Verdict struct {
	Result Result
	Reason string // stable, kebab-case; empty for Accept
	Err    error  // detail of a Reject, nil otherwise

	// Raw is the whole block to hand to the chain, whatever Result says; nil if
	// there is none. It shares the message's memory.
	Raw []byte
	// Compact is the compact block to hand to an [Assembler], whatever Result
	// says; nil if there is none. It shares the message's memory.
	Compact *CompactBlock
	Hash    chainhash.Hash // zero if not even the header could be read
	Height  int32          // -1 if unknown
	// Orphan is true if the parent header is unknown: ask peers for headers.
	Orphan bool
	// Rival is true if Result is Accept and another header of the height was accepted
	// before: whoever brought it has done nobody a service.
	Rival bool
}

// Headers is what a judgement needs of the chain. Implementations answer from
// memory.
type Headers interface {
	// CheckHeader runs the header checks without adding anything; known is true
	// if the header is in the tree. Faults are *consensus.RuleError, an unknown
	// parent is "unknown-parent".
	CheckHeader(h *consensus.Header) (height int32, known bool, err error)
	// HaveBlock says whether the block's bytes are on disk, and whether it was
	// found invalid.
	HaveBlock(hash chainhash.Hash) (have, invalid bool)
	// Past returns the view that ends in a known header.
	Past(hash chainhash.Hash) (consensus.Past, bool)
	// CheckSeal says whether the seal of a block's header is signed and belongs to the
	// coinbase, the first transaction. b may have no other. Its faults blame the sender.
	CheckSeal(b *consensus.Block) error
	// Claim returns what the seal of a checked header claims; false where there are none.
	Claim(h *consensus.Header) (consensus.Claim, bool)
}

// Blocks judges messages of the block topic. It is safe for concurrent use.
type Blocks struct {
	params  *consensus.Params
	headers Headers

	mu      sync.Mutex // guards what follows; never held over a call out
	top     int32      // highest height seen, where stake makes blocks of a grounded header
	heights map[place]*seen
	// stakes are the headers of heights by what their seals claim.
	stakes map[consensus.Claim][]stakeHeader
}

// stakeHeader is a header that was passed on.
type stakeHeader struct {
	hash   chainhash.Hash
	height int32
}

// A place is a height. Headers of stake that are not grounded, of which anybody can make as
// many as he likes, have places of their own.
type place struct {
	height   int32
	grounded bool // the block of the parent is here; always where work makes blocks
}

// seen is what was passed on at one place.
type seen struct {
	first     chainhash.Hash            // header hash that was passed on first
	encodings map[chainhash.Hash]passed // by header hash
	sources   map[string]int            // first senders → headers; at most maxHeadersPerHeight
}

// passed counts the messages with one header that were passed on.
type passed struct{ whole, compact int }

// NewBlocks returns a judge for one network.
func NewBlocks(p *consensus.Params, h Headers) *Blocks {
	return &Blocks{params: p, headers: h, heights: make(map[place]*seen), stakes: make(map[consensus.Claim][]stakeHeader)}
}

// MaxMessageBytes is the largest message of the block topic, in bytes.
func MaxMessageBytes(p *consensus.Params) int { return 1 + p.MaxBlockBytes() }

// Encode returns the message that carries a block whole.
func Encode(raw []byte) []byte {
	return append([]byte{byte(WholeBlock)}, raw...)
}

// Check judges one message. from names the peer that sent it; "" is this node.
// It keeps data.
func (b *Blocks) Check(from string, data []byte) Verdict {
	v := Verdict{Height: -1}
	if len(data) == 0 {
		return v.reject("empty", nil)
	}
	encoding, payload := Encoding(data[0]), data[1:]
	var most int
	switch encoding {
	case WholeBlock:
		most = b.params.MaxBlockBytes()
	case CompactEncoding:
		most = maxCompactBytes(b.params)
	default:
		return v.ignore("unknown-encoding")
	}
	if len(payload) > most {
		return v.reject("oversize", fmt.Errorf("%d bytes, at most %d", len(payload), most))
	}

	// 1. The header: proven before anything is decoded.
	v, h, past := b.checkHeader(payload)
	if past == nil {
		return v
	}

	// 2. The body: as far as the sender could have seen whether it is wrong.
	segwit := b.params.Forks(past).Segwit
	if encoding == CompactEncoding {
		c, err := decodeCompact(b.params, payload)
		if err != nil {
			return v.reject(err.Rule, err)
		}
		if b.params.SealBytes > 0 {
			coinbase, err := consensus.DecodeTx(c.Prefilled[0].Raw)
			if err != nil {
				return v.reject(ruleCompactPrefilled, err)
			}
			if v, ok := b.checkSeal(v, &consensus.Block{Header: h, Hash: v.Hash, Txs: []*btcutil.Tx{btcutil.NewTx(coinbase)}}); !ok {
				return v
			}
		}
		c.Height, c.Segwit = v.Height, segwit
		v.Compact = c
	} else {
		blk, err := consensus.DecodeBlock(b.params, payload)
		if err != nil {
			return v.reject("bad-encoding", err)
		}
		if err := consensus.CheckCommitments(b.params, segwit, blk); err != nil {
			return v.reject("mutated", err)
		}
		if v, ok := b.checkSeal(v, blk); !ok {
			return v
		}
		v.Raw = payload
	}

	// 3. Caps on what is passed on; what they refuse is used all the same.
	claim, staked := b.headers.Claim(&h)
	at := place{v.Height, true}
	if b.params.SealBytes > 0 {
		at.grounded, _ = b.headers.HaveBlock(h.PrevBlock)
	}
	why, rival := b.admit(from, at, v.Hash, encoding, claim, staked)
	if why != "" {
		return v.ignore(why)
	}
	v.Result, v.Rival = Accept, rival
	return v
}

// checkSeal judges the seal of a block whose commitments are right, or whose coinbase
// is said to be this.
func (b *Blocks) checkSeal(v Verdict, blk *consensus.Block) (Verdict, bool) {
	err := b.headers.CheckSeal(blk)
	if err == nil {
		return v, true
	}
	if rule, ok := errors.AsType[*consensus.RuleError](err); ok {
		return v.reject(rule.Rule, err), false
	}
	return v.ignore("our-trouble"), false
}

// checkHeader judges what both encodings begin with. past is the view of the
// parent, nil if v is the verdict already.
func (b *Blocks) checkHeader(payload []byte) (v Verdict, h consensus.Header, past consensus.Past) {
	v.Height = -1
	headerBytes := consensus.HeaderBytes + b.params.SealBytes
	if len(payload) < headerBytes {
		return v.reject("short-header", fmt.Errorf("%d bytes, a header has %d", len(payload), headerBytes)), h, nil
	}
	h, err := consensus.DecodeHeader(b.params, payload[:headerBytes])
	if err != nil {
		return v.reject("bad-header", err), h, nil
	}
	v.Hash = h.BlockHash()
	height, known, err := b.headers.CheckHeader(&h)
	var rule *consensus.RuleError
	switch {
	case err == nil:
	case !errors.As(err, &rule):
		return v.ignore("our-trouble"), h, nil // disk or shutdown: nobody's fault
	case rule.Rule == "unknown-parent":
		v.Orphan = true
		return v.ignore(rule.Rule), h, nil
	case rule.Blame == consensus.BlameNobody:
		return v.ignore(rule.Rule), h, nil
	case known && rule.Blame != consensus.BlameSender || rule.Rule == "bad-prevblk":
		// (A false seal on a known header is the sender's.) An honest peer that has not validated the block yet passes it on.
		return v.ignore("known-invalid"), h, nil
	default:
		return v.reject(rule.Rule, err), h, nil
	}
	v.Height = height
	if b.old(height) {
		return v.ignore("old-height"), h, nil
	}
	if have, invalid := b.headers.HaveBlock(v.Hash); invalid {
		return v.ignore("known-invalid"), h, nil
	} else if have {
		return v.ignore("known"), h, nil // late copies are normal
	}
	past, ok := b.headers.Past(h.PrevBlock)
	if !ok {
		return v.ignore("unknown-parent"), h, nil // CheckHeader has just known it
	}
	return v, h, past
}

// old says whether a height is too far below the highest seen to be news.
func (b *Blocks) old(height int32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return height <= b.top-maxHeights
}

// admit counts a message against the caps and says which one refuses it; if none
// does, whether the first header of the place was another.
func (b *Blocks) admit(from string, at place, hash chainhash.Hash, encoding Encoding, claim consensus.Claim, staked bool) (refusal string, rival bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	height := at.height
	if !at.grounded && height > b.top+1 {
		return "ahead", false
	}
	if at.grounded && height > b.top {
		b.top = height
		for old := range b.heights {
			if old.height <= b.top-maxHeights {
				delete(b.heights, old)
			}
		}
		maps.DeleteFunc(b.stakes, func(_ consensus.Claim, made []stakeHeader) bool {
			return !slices.ContainsFunc(made, func(s stakeHeader) bool { return s.height > b.top-maxHeights })
		})
	}
	if height <= b.top-maxHeights { // another message raised it meanwhile
		return "old-height", false
	}
	s := b.heights[at]
	if s == nil {
		s = &seen{encodings: make(map[chainhash.Hash]passed), sources: make(map[string]int)}
		b.heights[at] = s
	}
	n, again := s.encodings[hash]
	compact := encoding == CompactEncoding
	switch {
	case compact && (n.compact >= maxEncodings || n.whole > 0), !compact && n.whole >= maxEncodings:
		return "encodings-cap", false
	case !again && len(s.encodings) >= maxHeadersPerHeight:
		return "height-cap", false
	case !again && from != "" && s.sources[from] >= maxHeadersPerSource:
		return "source-cap", false
	case !again && staked && len(b.stakes[claim]) >= maxHeadersPerStake:
		return "stake-cap", false
	}
	if !again && staked {
		b.stakes[claim] = append(b.stakes[claim], stakeHeader{hash, height})
	}
	if compact {
		n.compact++
	} else {
		n.whole++
	}
	if len(s.encodings) == 0 {
		s.first = hash
	}
	s.encodings[hash] = n
	if !again && from != "" {
		s.sources[from]++ // the first to send a header answers for it
	}
	return "", hash != s.first
}

func (v Verdict) reject(reason string, err error) Verdict {
	v.Result, v.Reason, v.Err = Reject, reason, err
	return v
}

func (v Verdict) ignore(reason string) Verdict {
	v.Result, v.Reason = Ignore, reason
	return v
}

// Pool is what a judgement of a transaction needs of the mempool.
type Pool interface {
	// HaveTx says whether the pool holds the transaction.
	HaveTx(txid chainhash.Hash) bool
}

// MaxTxBytes is the largest message of the transaction topic: the largest
// standard transaction weighs 400,000 units (Bitcoin Core's policy), so its
// bytes are at most that.
const MaxTxBytes = 400_000

// CheckTx judges the encoding of a message of the transaction topic: one
// transaction in Bitcoin's encoding. Acceptance to the pool is judged by the
// pool; see [TxVerdict].
func CheckTx(pool Pool, data []byte) (Verdict, *wire.MsgTx) {
	v := Verdict{Height: -1}
	if len(data) > MaxTxBytes {
		return v.reject("oversize", fmt.Errorf("%d bytes, at most %d", len(data), MaxTxBytes)), nil
	}
	tx, err := consensus.DecodeTx(data)
	if err != nil {
		return v.reject("bad-encoding", err), nil
	}
	v.Hash = tx.TxHash()
	if pool.HaveTx(v.Hash) {
		return v.ignore("known"), nil
	}
	v.Result, v.Raw = Accept, data
	return v, tx
}

// TxVerdict turns the pool's answer into a verdict: a transaction that breaks a
// consensus rule for ever is its sender's fault; policy, missing inputs and
// conflicts are not.
func TxVerdict(v Verdict, err error) Verdict {
	var rule *consensus.RuleError
	switch {
	case err == nil:
		v.Result, v.Reason = Accept, ""
		return v
	case errors.As(err, &rule) && rule.Blame != consensus.BlameNobody:
		return v.reject(rule.Rule, err)
	case errors.As(err, &rule):
		return v.ignore(rule.Rule)
	default:
		return v.ignore("our-trouble")
	}
}
