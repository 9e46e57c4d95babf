// Package enginetest is for tests: a conformance suite that every consensus
// engine must pass ([Run]) and a builder of valid blocks, branches and spends
// ([Builder]) for the tests of other packages.
//
// It is not a miner and keeps everything in memory. A mistake in its use panics.
package enginetest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// A Fixture is an engine and what the suite needs to make blocks for it.
type Fixture struct {
	Params *consensus.Params
	Engine consensus.Engine
	// Seal proves a header, as [Builder.Seal]; nil grinds nonces. On a PoW
	// network the limit should be hard enough that a header is not valid by
	// chance: at least 0x1f0fffff.
	Seal func(past consensus.Past, coins consensus.Coins, h *consensus.Header) error
	// Prepare is as [Builder.Prepare]; nil for none.
	Prepare func(past consensus.Past, coins consensus.Coins, u *Unsealed) error
	// Blocks is the length of the chain that the suite builds; default 24.
	Blocks int
}

// suite is a fixture with a chain on it.
type suite struct {
	Fixture
	b      *Builder
	blocks []*consensus.Block // from genesis
	past   consensus.Past     // ends in the last block
	coins  consensus.Coins    // of the last block
	next   consensus.Header   // of a valid child of the last block
	now    time.Time          // of the child
}

// Run checks what [consensus.Engine] promises of f's engine.
func Run(t *testing.T, f Fixture) {
	t.Helper()
	if f.Blocks == 0 {
		f.Blocks = 24
	}
	b := NewBuilder(f.Params)
	b.Engine, b.Seal, b.Prepare = f.Engine, f.Seal, f.Prepare
	s := &suite{Fixture: f, b: b, blocks: []*consensus.Block{b.Genesis()}}
	s.blocks = append(s.blocks, b.MineN(b.Genesis(), f.Blocks)...)
	tip := s.blocks[len(s.blocks)-1]
	s.past, s.coins = b.Past(tip.Hash), b.Coins(tip.Hash)
	child := b.Mine(tip)
	s.next, s.now = child.Header, child.Header.Timestamp

	t.Run("accepts a valid chain", s.acceptsChain)
	t.Run("refuses another parent", s.refusesParent)
	t.Run("refuses a header without proof", s.refusesTampered)
	t.Run("refuses wrong bits", s.refusesBits)
	t.Run("refuses the median time past", s.refusesOldTime)
	t.Run("postpones the future", s.postponesFuture)
	t.Run("refuses a seal of another length", s.refusesSealLength)
	t.Run("work is positive and repeatable", s.work)
	t.Run("is pure and safe for concurrent use", s.concurrent)
}

func (s *suite) acceptsChain(t *testing.T) {
	for i, b := range s.blocks[1:] {
		past := s.b.Past(s.blocks[i].Hash)
		if err := s.Engine.CheckHeader(past, &b.Header, b.Header.Timestamp); err != nil {
			t.Fatalf("header %d: %v", i+1, err)
		}
		if err := s.Engine.CheckBody(b); err != nil {
			t.Fatalf("body %d: %v", i+1, err)
		}
		if err := s.Engine.CheckBlock(past, s.b.Coins(s.blocks[i].Hash), b); err != nil {
			t.Fatalf("block %d: %v", i+1, err)
		}
		if got := s.Engine.NextBits(past, b.Header.Timestamp); got != b.Header.Bits {
			t.Fatalf("block %d: next bits %08x, block has %08x", i+1, got, b.Header.Bits)
		}
	}
}

func (s *suite) refusesParent(t *testing.T) {
	err := s.Engine.CheckHeader(s.b.Past(s.blocks[len(s.blocks)-2].Hash), &s.next, s.now)
	var rule *consensus.RuleError
	if err == nil || errors.As(err, &rule) {
		t.Errorf("a past that does not end in the parent: %v, want an error that blames no peer", err)
	}
}

func (s *suite) refusesTampered(t *testing.T) {
	for i := range 8 {
		h := s.next
		h.MerkleRoot[i] ^= 1
		s.want(t, &h, s.now, consensus.BlameBlock, consensus.BlameSender)
	}
}

func (s *suite) refusesBits(t *testing.T) {
	h := s.next
	h.Bits--
	s.reseal(t, &h)
	s.want(t, &h, s.now, consensus.BlameBlock)
	h.Bits = 0
	s.want(t, &h, s.now, consensus.BlameBlock)
	h.Bits = 0x1f800000 | h.Bits // negative
	s.want(t, &h, s.now, consensus.BlameBlock)
}

func (s *suite) refusesOldTime(t *testing.T) {
	h := s.next
	h.Timestamp = time.Unix(consensus.MedianTimePast(s.past), 0)
	h.Bits = s.Engine.NextBits(s.past, h.Timestamp)
	s.reseal(t, &h)
	s.want(t, &h, s.now, consensus.BlameBlock)
}

func (s *suite) postponesFuture(t *testing.T) {
	day := s.now.Add(-24 * time.Hour)
	s.want(t, &s.next, day, consensus.BlameNobody)
	if err := s.Engine.CheckHeader(s.past, &s.next, s.now); err != nil {
		t.Errorf("the same header a day later: %v", err)
	}
}

func (s *suite) refusesSealLength(t *testing.T) {
	h := s.next
	h.Seal = append(bytes.Clone(h.Seal), 0)
	s.want(t, &h, s.now, consensus.BlameSender)
	if s.Params.SealBytes > 0 {
		h.Seal = nil
		s.want(t, &h, s.now, consensus.BlameSender)
	}
}

func (s *suite) work(t *testing.T) {
	w := s.Engine.Work(&s.next)
	if w.Sign() <= 0 {
		t.Fatalf("work %v", w)
	}
	first := w.String()
	w.SetInt64(-1) // the result belongs to the caller
	if got := s.Engine.Work(&s.next).String(); got != first {
		t.Errorf("work %s, then %s", first, got)
	}
}

func (s *suite) concurrent(t *testing.T) {
	before := s.next
	before.Seal = bytes.Clone(s.next.Seal)
	t.Run("checks", func(t *testing.T) { // returns when the parallel ones have
		for range 8 {
			t.Run("same header", func(t *testing.T) {
				t.Parallel()
				if err := s.Engine.CheckHeader(s.past, &s.next, s.now); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if !bytes.Equal(consensus.AppendHeader(nil, &before), consensus.AppendHeader(nil, &s.next)) {
		t.Error("the check changed the header")
	}
}

func (s *suite) reseal(t *testing.T, h *consensus.Header) {
	t.Helper()
	if err := s.b.seal(s.past, s.coins, h); err != nil {
		t.Fatalf("seal: %v", err)
	}
}

// want checks that h breaks a rule with one of the given blames.
func (s *suite) want(t *testing.T, h *consensus.Header, now time.Time, blames ...consensus.Blame) {
	t.Helper()
	err := s.Engine.CheckHeader(s.past, h, now)
	var rule *consensus.RuleError
	if !errors.As(err, &rule) {
		t.Errorf("got %v, want a RuleError", err)
		return
	}
	if slices.Contains(blames, rule.Blame) {
		return
	}
	t.Errorf("%v blames %d, want one of %v", rule, rule.Blame, blames)
}

// Chain is a consensus.Past over headers in memory. The zero value is empty; a
// Past of it is valid while nothing is appended past the view's end, which
// appending never changes.
type Chain struct {
	headers []consensus.PastHeader
	hashes  []chainhash.Hash
}

// NewChain returns a chain of a network's genesis.
func NewChain(p *consensus.Params) *Chain {
	c := new(Chain)
	h := consensus.Header{BlockHeader: p.Genesis.Header, Seal: p.GenesisSeal}
	c.headers = append(c.headers, pastHeader(&h))
	c.hashes = append(c.hashes, p.GenesisHash)
	return c
}

// Append adds a header, unchecked.
func (c *Chain) Append(h *consensus.Header) {
	c.headers = append(c.headers, pastHeader(h))
	c.hashes = append(c.hashes, consensus.HeaderHash(h))
}

// Height returns the height of the last header.
func (c *Chain) Height() int32 { return int32(len(c.headers) - 1) }

// Hash returns the hash of the last header.
func (c *Chain) Hash() chainhash.Hash { return c.hashes[len(c.hashes)-1] }

// At returns the header at height.
func (c *Chain) At(height int32) consensus.PastHeader { return c.headers[height] }

// UpTo returns the view that ends at height.
func (c *Chain) UpTo(height int32) *Chain {
	n := height + 1
	return &Chain{headers: c.headers[:n:n], hashes: c.hashes[:n:n]}
}

func pastHeader(h *consensus.Header) consensus.PastHeader {
	return consensus.PastHeader{Version: h.Version, Bits: h.Bits, Nonce: h.Nonce, Time: h.Timestamp.Unix()}
}

// FakePast is a past of which a test needs only some facts. Heights that Times
// does not have lie Spacing seconds apart before Time.
type FakePast struct {
	At0     int32 // Height
	Parent  chainhash.Hash
	Version int32
	Bits    uint32
	Time    int64           // of the last header, Unix seconds
	Spacing int64           // seconds; default 600
	Times   map[int32]int64 // exceptions
}

// Height returns p.At0.
func (p *FakePast) Height() int32 { return p.At0 }

// Hash returns p.Parent.
func (p *FakePast) Hash() chainhash.Hash { return p.Parent }

// At returns the header at height, made up.
func (p *FakePast) At(height int32) consensus.PastHeader {
	if height < 0 || height > p.At0 {
		panic("height outside the past")
	}
	spacing := p.Spacing
	if spacing == 0 {
		spacing = 600
	}
	t, ok := p.Times[height]
	if !ok {
		t = max(0, min(p.Time-int64(p.At0-height)*spacing, math.MaxUint32))
	}
	return consensus.PastHeader{Version: p.Version, Bits: p.Bits, Time: t}
}
