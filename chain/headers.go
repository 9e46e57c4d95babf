package chain

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/big"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// headerBatch is how many headers AcceptHeaders checks before it adds them. A
// peer's reply is no longer than that.
const headerBatch = 2000

func unknownParent(parent *chainhash.Hash) *consensus.RuleError {
	return ruleError("unknown-parent", consensus.BlameNobody, fmt.Sprintf("parent %v is unknown", parent))
}

// AcceptHeaders checks headers (consecutive, ascending) and adds them to the
// tree. It stops at the first fault; what precedes it is kept. added counts the
// new ones; last is the end of what is now known of them. A header whose parent
// is unknown gives a *consensus.RuleError "unknown-parent" that blames nobody.
//
// Nothing is added unless the valid part of hs ends on a branch with at least
// [Chain.LeastWork] ("too-little-chainwork", which blames nobody). Who has more to
// come looks at all of it first and then calls AcceptProven. More headers than
// the tree has room for beside the validated chain are refused too
// ("too-many-headers", which blames nobody), but for a branch that is short and near
// the tip, extends the best header chain, or has far more work. Where stake makes blocks
// others are forgotten for them instead, for which it may wait for the conductor (Run); those
// further than [Options.HeadersAhead] are left out
// ("headers-too-far-ahead", which blames nobody) and what precedes them is kept; a branch
// that the chain would not go over to gives "reorg-too-deep"; a first header on the validated
// tip whose stake is not there gives the fault of [Chain.CheckStake]. The headers are durable with the next
// commit; where stake makes blocks only with the blocks above them. It may be called at any time and by many.
func (c *Chain) AcceptHeaders(ctx context.Context, hs []consensus.Header) (added int, last Tip, err error) {
	return c.acceptHeaders(ctx, hs, work128{})
}

// AcceptProven is AcceptHeaders for part of a branch that the caller knows to end,
// further up, with this much cumulative work: it has seen and checked the headers
// up to there and makes sure that these are the same.
func (c *Chain) AcceptProven(ctx context.Context, hs []consensus.Header, branch *big.Int) (added int, last Tip, err error) {
	return c.acceptHeaders(ctx, hs, workOf(branch))
}

func (c *Chain) acceptHeaders(ctx context.Context, hs []consensus.Header, proven work128) (added int, last Tip, err error) {
	t := c.tree
	end, in := noNode, nodes(nil) // the last header of hs that is in the tree, in these nodes
	var far error                 // that of what was left out
	defer func() {
		if end == noNode {
			return
		}
		if last = in.tip(end); t.capped {
			t.show(&last.Hash)
		}
	}()
	for len(hs) > 0 {
		if err := ctx.Err(); err != nil {
			return added, last, err
		}
		// What is known already costs a look-up each.
		hash := consensus.HeaderHash(&hs[0])
		t.mu.RLock()
		i, ok := t.find(&hash)
		bad := ok && t.has(i, flagBad)
		parent, hasParent := t.find(&hs[0].PrevBlock)
		badAbove := hasParent && t.has(parent, flagBad)
		ns := t.nodes()
		t.mu.RUnlock()
		follows := end == noNode || in.node(end).hash == hs[0].PrevBlock
		switch {
		case bad:
			return added, last, ruleError("duplicate-invalid", consensus.BlameBlock, fmt.Sprintf("header %v was found invalid before", hash))
		case ok && !follows:
			return added, last, notConsecutive(&hs[0], in.node(end).hash)
		case ok:
			end, in, hs = i, ns, hs[1:]
			continue
		case !hasParent:
			return added, last, unknownParent(&hs[0].PrevBlock)
		case !follows:
			return added, last, notConsecutive(&hs[0], in.node(end).hash)
		case badAbove:
			return added, last, badParent(&hs[0].PrevBlock)
		}
		if err := c.tooDeep(&hash, hs); err != nil {
			return added, last, err
		}

		// Before anything of them is checked.
		height := ns.node(parent).height
		if limit := c.aheadLimit(&hs[0].PrevBlock); int64(height)+int64(len(hs)) > int64(limit) {
			room := max(0, limit-height)
			if far = c.tooFar(&hs[0].PrevBlock, height+room+1); room == 0 && far != nil {
				return added, last, far
			}
			if far != nil {
				hs = hs[:room]
			}
		}
		n := min(len(hs), headerBatch)
		g := c.headerGate()
		if g.least.more(ns.node(parent).work) && g.least.more(proven) {
			n = len(hs) // all or nothing
		}
		founded := false
		if ns.node(parent).hash == ns.node(c.tip.get()).hash {
			var rule *consensus.RuleError
			if rule, founded = c.lookUpStake(&hs[0]); rule != nil {
				return added, last, rule
			}
		}
		good, works, err := c.checkHeaders(ctx, past{ns, parent}, hs[:n])
		sum := ns.node(parent).work
		for _, w := range works {
			sum = sum.add(w)
		}
		if short := c.admit(parent, sum, proven, len(good)); short != nil {
			if err == nil {
				err = short
			}
			return added, last, err
		}
		more, i, within, own := c.insertAll(ctx, hs[:len(good)], good, works, founded, proven == maxWork)
		if added += more; i != noNode {
			end, in = i, within
		}
		if err := cmp.Or(own, err); err != nil {
			return added, last, err
		}
		if hs = hs[n:]; len(hs) == 0 && far != nil {
			return added, last, far
		}
	}
	return added, last, nil
}

func notConsecutive(h *consensus.Header, before chainhash.Hash) *consensus.RuleError {
	return ruleError("headers-not-consecutive", consensus.BlameSender, fmt.Sprintf("header with parent %v follows %v", h.PrevBlock, before))
}

// checkHeaders checks consecutive headers above parent, without the tree's lock.
// It returns hash and work of those before the first fault.
func (c *Chain) checkHeaders(ctx context.Context, parent consensus.Past, hs []consensus.Header) (hashes []chainhash.Hash, works []work128, err error) {
	above := &batchPast{base: parent, height: parent.Height()}
	hashes = make([]chainhash.Hash, 0, len(hs))
	works = make([]work128, 0, len(hs))
	check := c.checkHeader
	if s, ok := c.o.Engine.(signed); ok {
		// What each needs of those before it, in order, then the signatures on all cores.
		check = c.checkUnsigned
		defer func() {
			if bad, fault := c.checkSignatures(ctx, s, hs[:len(hashes)], hashes); fault != nil {
				hashes, works, err = hashes[:bad], works[:bad], fault
			}
		}()
	}
	for k := range hs {
		if k%256 == 0 && ctx.Err() != nil {
			return hashes, works, ctx.Err()
		}
		h := &hs[k]
		if before := above.Hash(); h.PrevBlock != before {
			return hashes, works, notConsecutive(h, before)
		}
		if err := check(above, h); err != nil {
			return hashes, works, err
		}
		hash := consensus.HeaderHash(h)
		above.push(h, hash)
		hashes = append(hashes, hash)
		works = append(works, workOf(c.o.Engine.Work(h)))
	}
	return hashes, works, nil
}

// checkSignatures checks those of headers together, on as many cores as there are workers,
// and returns the first fault and whose it is. It joins what it starts.
func (c *Chain) checkSignatures(ctx context.Context, s signed, hs []consensus.Header, hashes []chainhash.Hash) (bad int, fault error) {
	const few = 32 // of which the false one is found one by one
	switch n := len(hs); {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case s.CheckSignatures(hs, hashes, c.o.Workers, atOnce):
		return n, nil
	case n <= few:
		for k := range hs {
			if err := s.CheckSignature(&hs[k]); err != nil {
				return k, err
			}
		}
		return n, nil
	default: // the false one is searched for by halves: about twice the time of them all
		half := n / 2
		if bad, fault = c.checkSignatures(ctx, s, hs[:half], hashes[:half]); fault != nil {
			return bad, fault
		}
		bad, fault = c.checkSignatures(ctx, s, hs[half:], hashes[half:])
		return half + bad, fault
	}
}

// atOnce calls work with 0 to n − 1, each in a goroutine but the first, and joins them.
func atOnce(n int, work func(worker int)) {
	var others sync.WaitGroup
	for worker := 1; worker < n; worker++ {
		others.Go(func() { work(worker) })
	}
	work(0)
	others.Wait()
}

// insertAll adds checked headers and returns how many were new and the last, with the
// nodes that it is in. Where headers can be forgotten it makes room, unless they are to be
// added in any case. founded says that the stake of the first was seen to be there.
func (c *Chain) insertAll(ctx context.Context, hs []consensus.Header, hashes []chainhash.Hash, works []work128, founded, anyway bool) (added int, last uint32, in nodes, err error) {
	t := c.tree
	last = noNode
	for asked := false; len(hs) > 0; {
		n := min(len(hs), headerBatch) // readers wait meanwhile
		t.mu.Lock()
		parent, ok := t.find(&hs[0].PrevBlock)
		switch {
		case !ok:
			t.mu.Unlock()
			return added, last, in, unknownParent(&hs[0].PrevBlock)
		case !anyway && !t.fits(n) && !asked:
			t.mu.Unlock()
			if err := c.makeRoom(ctx, hs[0].PrevBlock); err != nil {
				return added, last, in, err
			}
			asked = true
			continue
		case !anyway && !t.fits(n): // others were faster
			room := t.mostUnproven() - t.waiting
			t.mu.Unlock()
			return added, last, in, noRoom(n, room)
		}
		t.clock++
		for k := range hs[:n] {
			var fresh bool
			if last, fresh = c.insert(&hs[k], hashes[k], parent, works[k]); fresh {
				added++
			}
			parent = last
		}
		in = t.nodes()
		t.mu.Unlock()
		for k := range hs[:n] {
			c.lookAtClaim(hashes[k], &hs[k], founded && k == 0, len(hs)-k <= maxClaims)
		}
		founded = false // that was the first
		hs, hashes, works, asked = hs[n:], hashes[n:], works[n:], false
	}
	return added, last, in, nil
}

// CheckHeader runs the header checks without adding anything. known is true if
// the tree has it already: then only a seal is checked that is not the tree's, which
// the hash does not cover. height is -1 if the parent is unknown. A header near the validated
// chain whose stake is not there gives the fault of [Chain.CheckStake].
func (c *Chain) CheckHeader(h *consensus.Header) (height int32, known bool, err error) {
	hash := consensus.HeaderHash(h)
	t := c.tree
	t.mu.RLock()
	i, known := t.find(&hash)
	parent, hasParent := t.find(&h.PrevBlock)
	bad := hasParent && t.has(parent, flagBad)
	ns := t.nodes()
	t.mu.RUnlock()
	switch {
	case known:
		return ns.node(i).height, true, c.checkOtherSeal(ns, i, h)
	case !hasParent:
		return -1, false, unknownParent(&h.PrevBlock)
	}
	height = ns.node(parent).height + 1
	if bad {
		return height, false, badParent(&h.PrevBlock)
	}
	if err := c.tooDeep(&hash, []consensus.Header{*h}); err != nil {
		return height, false, err
	}
	if err := c.tooFar(&h.PrevBlock, height); err != nil {
		return height, false, err
	}
	// Near the tip the coins show whether there is such a stake, before its signature matters.
	check := c.checkHeader
	s, staked := c.o.Engine.(signed)
	if staked {
		check = c.checkUnsigned
	}
	if err := check(past{ns, parent}, h); err != nil || !staked {
		return height, false, err
	}
	return height, false, cmp.Or(c.CheckStake(h), s.CheckSignature(h))
}

// checkOtherSeal checks a header that the tree has at i if its seal is another one.
func (c *Chain) checkOtherSeal(ns nodes, i uint32, h *consensus.Header) error {
	nd := ns.node(i)
	if c.tree.sealBytes == 0 || nd.parent == noNode {
		return nil
	}
	if seal, err := c.sealOf(nd); err != nil || bytes.Equal(seal, h.Seal) {
		return err
	}
	return c.checkHeader(past{ns, nd.parent}, h)
}
