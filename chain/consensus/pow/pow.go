// Package pow is the proof-of-work engine: what a header proves on networks that
// mine ([Engine]), and the search for such a proof ([Sealer]).
//
// It is not a miner: it makes no templates and paces nothing. The engine is pure;
// only Sealer.Seal starts goroutines, and it joins them before it returns.
package pow

import (
	"fmt"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

const (
	// maxFuture is how far a header's time may be ahead of our clock.
	maxFuture = 2 * time.Hour
	// adjustmentLimit bounds one retarget of Bitcoin, up and down.
	adjustmentLimit = 4
	// bip94Grace and bip54Grace are how far, in seconds, the first block of a
	// period may be before the last of the one before.
	bip94Grace = 600
	bip54Grace = 7200
	// bip54Period is BIP54's difficulty period in blocks, whatever the network's
	// own retargeting: the rule is the BIP's, word for word.
	bip54Period = 2016
)

var (
	_ consensus.Engine = (*Engine)(nil)
	_ consensus.Sealer = (*Sealer)(nil)
)

// An Engine decides what work proves. It is safe for concurrent use.
type Engine struct {
	p        *consensus.Params
	interval int32 // blocks between retargets with Retarget2016
	// last is the latest result of Work: bits rarely change from header to header.
	last atomic.Pointer[bitsWork]
}

type bitsWork struct {
	bits uint32
	work *big.Int
}

// New returns the engine of a proof-of-work network. It keeps p.
func New(p *consensus.Params) *Engine {
	e := &Engine{p: p}
	if p.Retarget == consensus.Retarget2016 {
		e.interval = int32(p.TargetTimespan / p.TargetSpacing)
	}
	return e
}

// ruleError makes the errors of this package.
func ruleError(rule string, blame consensus.Blame, format string, args ...any) error {
	return &consensus.RuleError{Rule: rule, Blame: blame, Detail: fmt.Sprintf(format, args...)}
}

func invalid(rule, format string, args ...any) error {
	return ruleError(rule, consensus.BlameBlock, format, args...)
}

// CheckHeader checks, in this order: seal (none), the hash against the claimed
// bits, the bits, a checkpoint at this height, the time against the median time
// past, BIP94 and BIP54 and our clock (2 h, blames nobody), the version. past
// must end in the header's parent: another one is an error that is no RuleError.
func (e *Engine) CheckHeader(past consensus.Past, h *consensus.Header, now time.Time) error {
	if parent := past.Hash(); h.PrevBlock != parent {
		return fmt.Errorf("check header: given the past of %s for a child of %s", parent, h.PrevBlock)
	}
	height := past.Height() + 1
	if len(h.Seal) != 0 {
		return ruleError("bad-seal", consensus.BlameSender, "seal of %d bytes on a network without", len(h.Seal))
	}
	hash := consensus.HeaderHash(h)
	if err := e.checkWork(&hash, h.Bits); err != nil {
		return err
	}
	if err := e.checkBits(past, h); err != nil {
		return err
	}
	if want, ok := e.p.Checkpoints[height]; ok && hash != want {
		return invalid("checkpoint-mismatch", "%s at height %d, want %s", hash, height, want)
	}
	if err := e.checkTime(past, h.Timestamp.Unix(), now); err != nil {
		return err
	}
	return consensus.CheckVersion(e.p, height, h.Version)
}

// CheckProposal is CheckHeader of a header that is to be worked on: its hash is not
// looked at, so neither work nor a checkpoint.
func (e *Engine) CheckProposal(past consensus.Past, h *consensus.Header, now time.Time) error {
	if parent := past.Hash(); h.PrevBlock != parent {
		return fmt.Errorf("check proposal: given the past of %s for a child of %s", parent, h.PrevBlock)
	}
	if len(h.Seal) != 0 {
		return ruleError("bad-seal", consensus.BlameSender, "seal of %d bytes on a network without", len(h.Seal))
	}
	if err := e.checkBits(past, h); err != nil {
		return err
	}
	if err := e.checkTime(past, h.Timestamp.Unix(), now); err != nil {
		return err
	}
	return consensus.CheckVersion(e.p, past.Height()+1, h.Version)
}

// checkBits compares the claimed bits with those that the past demands.
func (e *Engine) checkBits(past consensus.Past, h *consensus.Header) error {
	if want := e.NextBits(past, h.Timestamp); h.Bits != want {
		return invalid("bad-diffbits", "bits %08x at height %d, want %08x", h.Bits, past.Height()+1, want)
	}
	return nil
}

// checkWork checks that the claimed bits are a target within the limit and that
// the hash meets it.
func (e *Engine) checkWork(hash *chainhash.Hash, bits uint32) error {
	target := blockchain.CompactToBig(bits)
	if target.Sign() <= 0 || target.Cmp(e.p.PowLimit) > 0 {
		return invalid("high-hash", "bits %08x are outside the limit %08x", bits, e.p.PowLimitBits)
	}
	if blockchain.HashToBig(hash).Cmp(target) > 0 {
		return invalid("high-hash", "%s is above the target of bits %08x", hash, bits)
	}
	return nil
}

func (e *Engine) checkTime(past consensus.Past, t int64, now time.Time) error {
	parent := past.Height()
	height := parent + 1
	if median := consensus.MedianTimePast(past); t <= median {
		return invalid("time-too-old", "time %d at height %d, median time past %d", t, height, median)
	}
	if e.p.EnforceBIP94 && e.interval > 0 && height%e.interval == 0 {
		if before := past.At(parent).Time; t < before-bip94Grace {
			return invalid("time-timewarp-attack", "time %d at height %d, parent %d", t, height, before)
		}
	}
	if e.p.BIP54 {
		switch height % bip54Period {
		case 0:
			if before := past.At(parent).Time; t < before-bip54Grace {
				return invalid("time-timewarp-attack", "time %d at height %d, parent %d", t, height, before)
			}
		case bip54Period - 1:
			if first := past.At(height - bip54Period + 1).Time; t < first {
				return invalid("time-murch-zawy", "time %d ends the period that %d began", t, first)
			}
		}
	}
	if limit := now.Add(maxFuture).Unix(); t > limit {
		return ruleError("time-too-new", consensus.BlameNobody, "time %d is %d s past our clock, at most %d",
			t, t-now.Unix(), int64(maxFuture/time.Second))
	}
	return nil
}

// CheckBody has nothing to check: there are no seals.
func (e *Engine) CheckBody(*consensus.Block) error { return nil }

// CheckBlock has nothing to check: work needs no coins.
func (e *Engine) CheckBlock(consensus.Past, consensus.Coins, *consensus.Block) error { return nil }

// Work is 2^256 / (target + 1); zero for bits that are no target.
func (e *Engine) Work(h *consensus.Header) *big.Int {
	last := e.last.Load()
	if last == nil || last.bits != h.Bits {
		last = &bitsWork{h.Bits, consensus.Work(h.Bits)}
		e.last.Store(last)
	}
	return new(big.Int).Set(last.work)
}

// NextBits returns the bits that a child of past with timestamp t must have. Only
// the rule for late blocks (MinDiffReduction) looks at t.
func (e *Engine) NextBits(past consensus.Past, t time.Time) uint32 {
	switch e.p.Retarget {
	case consensus.Retarget2016:
		return e.nextBits2016(past, t.Unix())
	case consensus.RetargetASERT:
		return e.nextBitsASERT(past)
	default:
		return e.p.PowLimitBits
	}
}

// nextBits2016 is Bitcoin's retarget, with the rules of its test networks.
func (e *Engine) nextBits2016(past consensus.Past, t int64) uint32 {
	parent := past.Height()
	last := past.At(parent)
	if (parent+1)%e.interval != 0 {
		if e.p.MinDiffReduction == 0 {
			return last.Bits
		}
		if t > last.Time+int64(e.p.MinDiffReduction/time.Second) {
			return e.p.PowLimitBits
		}
		// The last bits that were not such an exception. Within a period every
		// block has the limit's bits or those of the one before it that was no
		// exception, so these are the bits of the period's first block: no need to
		// walk back to it, which is a period long when all are at the limit.
		return past.At(parent - parent%e.interval).Bits
	}
	// The first block of the period is 2015 blocks back, not 2016: Bitcoin's
	// off-by-one, which is a rule now.
	first := past.At(parent - e.interval + 1)
	timespan := int64(e.p.TargetTimespan / time.Second)
	actual := min(max(last.Time-first.Time, timespan/adjustmentLimit), timespan*adjustmentLimit)
	bits := last.Bits
	if e.p.EnforceBIP94 {
		bits = first.Bits // never one of the exceptions for late blocks
	}
	target := blockchain.CompactToBig(bits)
	target.Mul(target, big.NewInt(actual))
	target.Div(target, big.NewInt(timespan))
	if target.Cmp(e.p.PowLimit) > 0 {
		return e.p.PowLimitBits
	}
	return blockchain.BigToCompact(target)
}

// nextBitsASERT counts from genesis: its missing parent counts as one spacing older,
// which cancels the specification's +1.
func (e *Engine) nextBitsASERT(past consensus.Past) uint32 {
	anchor, height := &e.p.Genesis.Header, past.Height()
	elapsed := past.At(height).Time - anchor.Timestamp.Unix()
	return consensus.ASERT(anchor.Bits, e.p.PowLimit,
		elapsed-int64(height)*int64(e.p.TargetSpacing/time.Second), int64(e.p.ASERTHalfLife/time.Second))
}
