package chain

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/big"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// A Presync looks at a branch of headers twice, so that one without enough work
// leaves nothing behind, as Bitcoin Core's HeadersSyncState does.
//
// In the first pass every header is checked in full, as AcceptHeaders would, and
// forgotten: what stays is the work up to there, the few headers that the next
// ones are checked against (see [consensus.Lookback]) and, for each batch, a
// keyed tag of its last hash: 16 bytes for as many headers as the caller puts into
// one batch, 2000 at most. A hash covers all headers below it, so in the second
// pass a batch whose last hash has the right tag is the one of the first pass,
// without another's having a chance of more than 2^-64, and may be stored at once.
//
// It belongs to one goroutine.
type Presync struct {
	c      *Chain
	seed   maphash.Seed
	past   rollingPast
	work   work128
	tags   []presyncTag
	again  int            // batches of the second pass so far
	before chainhash.Hash // last hash of the second pass
}

type presyncTag struct {
	sum   uint64
	count uint16
}

// maxPresyncBatches bounds the tags of a presync: 8 million headers, 64 KiB.
const maxPresyncBatches = 1 << 12

// NewPresync returns a presync of a branch above the known header base, or false if
// it is not known or found invalid.
func (c *Chain) NewPresync(base chainhash.Hash) (*Presync, bool) {
	t := c.tree
	t.mu.RLock()
	i, ok := t.find(&base)
	ok = ok && !t.has(i, flagBad)
	ns := t.nodes()
	t.mu.RUnlock()
	if !ok {
		return nil, false
	}
	nd := ns.node(i)
	return &Presync{
		c: c, seed: maphash.MakeSeed(), work: nd.work, before: base,
		past: rollingPast{base: past{ns, i}, from: nd.height, height: nd.height, last: base},
	}, true
}

// Check takes the next batch of the first pass, 1 to 2000 headers. An error is a
// *consensus.RuleError, or ctx's, and ends the presync.
func (p *Presync) Check(ctx context.Context, hs []consensus.Header) error {
	switch {
	case len(hs) == 0 || len(hs) > headerBatch:
		return fmt.Errorf("presync of %d headers at once, must be 1 to %d", len(hs), headerBatch)
	case len(p.tags) >= maxPresyncBatches:
		return ruleError("too-many-headers", consensus.BlameNobody, "more headers than are looked at without storing any")
	case p.c.tree.capped && int(p.past.height)+len(hs) > int(p.past.from)+p.c.o.HeadersAhead:
		// What comes so late would not be stored.
		return ruleError("too-many-headers", consensus.BlameNobody, "the branch shows too little work in as many headers as are taken")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	hashes, works, err := p.c.checkHeaders(ctx, &p.past, hs)
	if err != nil {
		return err
	}
	for k := range hs {
		p.work = p.work.add(works[k])
		p.past.push(&hs[k], hashes[k])
	}
	p.tags = append(p.tags, presyncTag{p.tag(&p.past.last), uint16(len(hs))})
	return nil
}

// Work returns the cumulative work of the branch as far as Check saw it. But while
// there is no room for its headers and it has not shown the work of a branch that
// is taken all the same, Work returns less than [Chain.LeastWork]: the second pass
// would be refused.
func (p *Presync) Work() *big.Int {
	g := p.c.headerGate()
	t := p.c.tree
	t.mu.RLock()
	enough := t.enough()
	t.mu.RUnlock()
	if less := g.asked().sub(work128{lo: 1}); g.room < headerBatch && enough.more(p.work) && p.work.more(less) {
		return less.big()
	}
	return p.work.big()
}

// Accept takes the next batch of the second pass, which must be that of the
// first, and adds it to the tree as AcceptProven does. Another one is a
// *consensus.RuleError "presync-mismatch" that blames nobody: the peer may have
// changed its branch in between.
func (p *Presync) Accept(ctx context.Context, hs []consensus.Header) (added int, last Tip, err error) {
	if p.again >= len(p.tags) {
		return 0, last, fmt.Errorf("presync: a batch after the %d of the first pass", len(p.tags))
	}
	hash := p.before
	for k := range hs {
		if k > 0 && hs[k].PrevBlock != hash {
			return 0, last, notConsecutive(&hs[k], hash)
		}
		hash = consensus.HeaderHash(&hs[k])
	}
	if want := p.tags[p.again]; len(hs) != int(want.count) || hs[0].PrevBlock != p.before || p.tag(&hash) != want.sum {
		return 0, last, ruleError("presync-mismatch", consensus.BlameNobody,
			fmt.Sprintf("the %d headers up to %v are not those that showed the work", len(hs), hash))
	}
	p.again++
	p.before = hash
	return p.c.acceptHeaders(ctx, hs, p.work)
}

// Done says whether the second pass is over.
func (p *Presync) Done() bool { return p.again == len(p.tags) }

func (p *Presync) tag(hash *chainhash.Hash) uint64 { return maphash.Bytes(p.seed, hash[:]) }

// A rollingPast is a past of which only the last headers above a node of the tree
// are kept.
type rollingPast struct {
	base   past
	from   int32 // height of base
	height int32
	last   chainhash.Hash
	above  []consensus.PastHeader // up to height; the first of them may be gone
}

// Height is consensus.Past, as are the methods below.
func (p *rollingPast) Height() int32 { return p.height }

// Hash is that of the last header.
func (p *rollingPast) Hash() chainhash.Hash { return p.last }

// At panics for a height outside the branch or further back than consensus.Lookback.
func (p *rollingPast) At(height int32) consensus.PastHeader {
	if height <= p.from {
		return p.base.At(height)
	}
	at := len(p.above) - 1 - int(p.height-height)
	if at < 0 || height > p.height {
		panic(fmt.Sprintf("chain: past of height %d asked for height %d", p.height, height))
	}
	return p.above[at]
}

func (p *rollingPast) push(h *consensus.Header, hash chainhash.Hash) {
	if len(p.above) >= 2*consensus.Lookback {
		n := copy(p.above, p.above[consensus.Lookback:])
		p.above = p.above[:n]
	}
	p.above = append(p.above, consensus.PastHeader{Version: h.Version, Bits: h.Bits, Nonce: h.Nonce, Time: h.Timestamp.Unix()})
	p.height++
	p.last = hash
}
