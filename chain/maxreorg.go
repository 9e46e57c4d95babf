package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Where stake makes blocks ([consensus.Params.MaxReorg] is not 0) the chain has an
// anchor: a block that it does not leave by itself, however much work another branch
// claims to have. Old keys cost nothing and can sign another history; whoever was there
// is not to follow it.
//
// The anchor is the block MaxReorg below the validated tip, once the validated chain has
// been that high for half the time in which as many blocks come. For a node that is in
// step that is always so, and no reorganisation is deeper than MaxReorg. While a node
// catches up it is not: blocks come much faster, whoever it met first may have led it up
// a branch of his own, and in that time the branch with most work still wins, at whatever
// depth. The anchor only moves up, but by the operator's word ([Chain.AcceptReorg],
// [Chain.Invalidate]). It outlives restarts and a reindex.
//
// What builds on another branch below the anchor is refused before anything in it is
// looked at, is not stored, and blames nobody: whoever sends it may have been on the other
// side of a network cut in two. It is remembered, a few words a branch, so that status and
// tips show it and an operator can accept it.

// ruleTooDeep is the rule that a branch from below the anchor breaks.
const ruleTooDeep = "reorg-too-deep"

// maxRefused is how many refused branches are remembered. When there are more, the least
// recent of those makes room whose first header anybody could have made; where there are
// none, of the stake with most of them. So neither made-up branches nor those of one
// holder of a coin make the others be forgotten.
const maxRefused = 16

// sayRefused is the least time between two lines in the log on refused branches: names
// for them are cheap.
const sayRefused = time.Minute

// ErrNotRefused is returned for a block that no word of the operator is needed for.
var ErrNotRefused = errors.New("chain: is not on a refused branch")

// A RefusedBranch would need a reorganisation deeper than the network allows.
type RefusedBranch struct {
	First chainhash.Hash // its first block beside the active chain: a name that stays
	Fork  int32          // height of the last common block
	Depth int32          // blocks of the active chain above that
	Tip   Tip            // the best of it that was seen; what its headers claim is not checked in full
	Since time.Time

	// staked says that its first header is signed with the key of a coin that is there: it
	// costs one. stake is that coin.
	staked bool
	stake  wire.OutPoint
}

// refusedBranches are the branches that were refused of late.
type refusedBranches struct {
	mu     sync.Mutex // guards what follows, for a few instructions
	list   []RefusedBranch
	said   time.Time // the latest line in the log
	unsaid int
	// accepted counts the operator's words.
	accepted int64
}

// allowed says whether the chain may go to i by itself. The caller holds mu.
func (t *tree) allowed(i uint32) bool {
	return t.anchor == noNode || t.sameBranch(i, t.anchor) || t.accepted != noNode && t.descends(i, t.accepted)
}

// allows says whether a header that the tree does not have, with this hash, may be added
// above parent. The caller holds mu.
func (t *tree) allows(parent uint32, hash *chainhash.Hash) bool {
	return t.anchor == noNode || t.descends(parent, t.anchor) || *hash == t.acceptedHash ||
		t.accepted != noNode && t.descends(parent, t.accepted)
}

// lowerAnchor moves the anchor down to what an operator left of its branch. The caller
// holds mu.
func (t *tree) lowerAnchor() {
	for t.anchor != noNode && t.has(t.anchor, flagBad) {
		t.anchor = t.node(t.anchor).parent
	}
}

// loadAnchor reads the anchor; the caller holds tree.mu. What the tree does not have, in
// a reindex, is taken up when it comes.
func (c *Chain) loadAnchor(tip uint32) error {
	t := c.tree
	anchor, accepted, err := c.store.Anchor()
	if err != nil || c.o.Params.MaxReorg == 0 {
		return err
	}
	t.anchorHash, t.acceptedHash = anchor, accepted
	c.savedAnchor = [2]chainhash.Hash{anchor, accepted}
	if i, ok := t.find(&anchor); ok && tip != noNode {
		// Whether it was in step: then what is there counts as old.
		c.inStep = t.descends(tip, i) && t.node(tip).height-t.node(i).height <= c.o.Params.MaxReorg+c.o.Params.MaxReorg/10
		if t.anchor = i; !t.sameBranch(i, tip) {
			t.anchor = t.fork(i, tip)
		}
	}
	if i, ok := t.find(&accepted); ok {
		t.accepted = i
	}
	return nil
}

// meetAnchor takes up an anchor, or an accepted branch, whose header has just come. The
// caller holds tree.mu. met says that the best nodes may be others now.
func (t *tree) meetAnchor(i uint32) (met bool) {
	hash := &t.node(i).hash
	if t.anchor == noNode && *hash == t.anchorHash {
		t.anchor, met = i, true
	}
	if t.accepted == noNode && *hash == t.acceptedHash {
		t.accepted, met = i, true
	}
	return met
}

// arrivals are since when the published chain has been as high as it is now, or up to
// MaxReorg less, by height.
type arrivals []time.Time

func (c *Chain) newArrivals() arrivals {
	n := c.o.Params.MaxReorg
	if n == 0 {
		return nil
	}
	a := make(arrivals, n+1)
	if !c.inStep {
		now := c.o.Now()
		for k := range a {
			a[k] = now
		}
	}
	return a
}

// anchorDelay is how long the chain must have been as high as its anchor.
func anchorDelay(p *consensus.Params) time.Duration {
	return time.Duration(p.MaxReorg) * p.TargetSpacing / 2
}

// moveAnchor follows the published tip, which was old until now.
func (c *conductor) moveAnchor(old uint32) {
	n := c.o.Params.MaxReorg
	if n == 0 {
		return
	}
	t := c.tree
	tip, now := c.tip.get(), c.o.Now()
	height := t.node(tip).height
	for h := max(t.node(old).height+1, height-n); h <= height; h++ {
		c.arrived[h%(n+1)] = now
	}
	t.mu.Lock()
	before := t.anchor
	if t.anchor != noNode && !t.sameBranch(tip, t.anchor) {
		t.anchor = t.fork(t.anchor, tip) // by the operator's word
	}
	if t.accepted != noNode && t.descends(tip, t.accepted) {
		t.accepted, t.acceptedHash = noNode, chainhash.Hash{}
	}
	low := int32(-1)
	if t.anchor != noNode {
		low = t.node(t.anchor).height
	}
	if at := height - n; at > low && now.Sub(c.arrived[at%(n+1)]) >= anchorDelay(c.o.Params) {
		t.anchor = t.ancestor(tip, at)
	}
	left := noNode // the best header before, if it is out of reach now
	if t.anchor != before {
		t.anchorHash = t.node(t.anchor).hash
		c.armFlush()
		if best := t.bestHeader; !t.allowed(best) || !t.allowed(t.bestLinked) {
			if t.node(best).work.more(t.node(tip).work) && !t.allowed(best) {
				left = best
			}
			t.reconsider(tip)
			c.heads.set(t.bestHeader)
		}
	}
	t.mu.Unlock()
	if left != noNode {
		_ = c.noteRefused(t.nodes(), tip, left, nil) // nobody sent it just now
	}
}

// saveAnchor keeps anchor and accepted branch if they are others than those on disk. What
// they name has been committed.
func (c *conductor) saveAnchor() error {
	if c.o.Params.MaxReorg == 0 {
		return nil
	}
	t := c.tree
	t.mu.RLock()
	if t.anchor != noNode {
		t.anchorHash = t.node(t.anchor).hash // it may have been lowered
	}
	now := [2]chainhash.Hash{t.anchorHash, t.acceptedHash}
	t.mu.RUnlock()
	if now == c.savedAnchor {
		return nil
	}
	if err := c.store.PutAnchor(now[0], now[1]); err != nil {
		return fmt.Errorf("keeping the anchor: %w", err)
	}
	c.savedAnchor = now
	return nil
}

// tooDeep returns the fault of headers, the first of which the tree does not have, but its
// parent, if they are on a branch that is refused; nil if they are not. It remembers the
// branch if it may have more work than the validated chain.
func (c *Chain) tooDeep(hash *chainhash.Hash, hs []consensus.Header) error {
	if c.o.Params.MaxReorg == 0 {
		return nil
	}
	t := c.tree
	tip := c.tip.get()
	t.mu.RLock()
	ns := t.nodes()
	parent, known := t.find(&hs[0].PrevBlock)
	ok := known && t.allows(parent, hash)
	t.mu.RUnlock()
	switch {
	case ok:
		return nil
	case !known: // it was forgotten just now
		return unknownParent(&hs[0].PrevBlock)
	}
	return c.noteRefused(ns, tip, parent, hs)
}

// noteRefused remembers the branch that ends in i, beside the validated tip, with headers that are not in the tree
// on top, and returns its fault. The headers are not checked, but that each follows the
// one before and that the first could be right: a name for them costs a signature.
func (c *Chain) noteRefused(t nodes, tip, i uint32, hs []consensus.Header) *consensus.RuleError {
	fork := t.node(t.fork(i, tip)).height
	b := RefusedBranch{Fork: fork, Depth: t.node(tip).height - fork, Tip: t.tip(i), Since: c.o.Now()}
	fault := ruleError(ruleTooDeep, consensus.BlameNobody, fmt.Sprintf(
		"the branch leaves the chain at height %d, %d below the tip, and the deepest reorganisation is %d", fork, b.Depth, c.o.Params.MaxReorg))
	work := t.node(i).work
	for k := range hs {
		if h := &hs[k]; h.PrevBlock == b.Tip.Hash {
			work = work.add(workOf(c.o.Engine.Work(h)))
			b.Tip = Tip{Hash: consensus.HeaderHash(h), Height: b.Tip.Height + 1, Time: h.Timestamp, MedianTime: h.Timestamp, Bits: h.Bits}
		}
	}
	b.Tip.Work = work.big()
	switch {
	case b.Tip.Height == fork:
		return fault
	case t.node(i).height > fork:
		b.First = t.node(t.ancestor(i, fork+1)).hash
	default:
		b.First = consensus.HeaderHash(&hs[0])
	}
	if !work.more(t.node(tip).work) && len(hs) < headerBatch {
		return fault // no match for ours
	}
	r := &c.refusals
	r.mu.Lock()
	known := slices.IndexFunc(r.list, func(x RefusedBranch) bool { return x.First == b.First })
	if known >= 0 { // the most recent is the last
		if old := r.list[known]; old.Tip.Work.Cmp(b.Tip.Work) > 0 {
			b.Tip = old.Tip
		}
		b.Since, b.staked, b.stake = r.list[known].Since, r.list[known].staked, r.list[known].stake
		r.list = append(slices.Delete(r.list, known, known+1), b)
		r.mu.Unlock()
		return fault
	}
	r.mu.Unlock()
	if t.node(i).height == fork && c.o.Engine.CheckHeader(past{t, i}, &hs[0], c.o.Now()) != nil {
		return fault
	}
	first := t.header(t.ancestor(i, min(fork+1, t.node(i).height)))
	if t.node(i).height == fork {
		first = hs[0]
		_, b.staked = c.lookUpStake(&first)
	} else { // the tree has it: it came when the chain could have gone there
		b.staked = true
		first.Seal, _ = c.Seal(b.First) // without one it has no claim, and counts with the others of those
	}
	if claim, ok := c.Claim(&first); ok && b.staked {
		b.stake = claim.OutPoint
	}
	r.mu.Lock()
	if slices.ContainsFunc(r.list, func(x RefusedBranch) bool { return x.First == b.First }) {
		r.mu.Unlock() // another peer's headers have told of it meanwhile
		return fault
	}
	r.list = append(r.list, b)
	if len(r.list) > maxRefused {
		k := leastWorth(r.list)
		r.list = slices.Delete(r.list, k, k+1)
	}
	say, suppressed := r.said.IsZero() || time.Since(r.said) >= sayRefused, r.unsaid
	if r.unsaid++; say {
		r.said, r.unsaid = time.Now(), 0
	}
	r.mu.Unlock()
	if say {
		c.log.Warn("a branch with more work is kept out: too deep", "depth", b.Depth, "max_reorg", c.o.Params.MaxReorg, "fork", b.Fork,
			"branch", b.First, "branch_height", b.Tip.Height, "tip", t.node(tip).hash, "height", t.node(tip).height,
			"accept", "dunlin chain accept-reorg "+b.First.String(), "suppressed", suppressed)
	}
	return fault
}

// leastWorth is the one of refused branches, the most recent last, that makes room for
// another.
func leastWorth(list []RefusedBranch) int {
	if k := slices.IndexFunc(list, func(b RefusedBranch) bool { return !b.staked }); k >= 0 {
		return k
	}
	n := make(map[wire.OutPoint]int)
	for k := range list {
		n[list[k].stake]++
	}
	least := 0
	for k := range list {
		if n[list[k].stake] > n[list[least].stake] {
			least = k
		}
	}
	return least
}

// Refused lists the branches that claim more work than the validated chain and are kept
// out because they leave it too far below its tip ([consensus.Params.MaxReorg]), best
// first. Their headers are not kept and were not checked in full.
func (c *Chain) Refused() []RefusedBranch {
	if c.o.Params.MaxReorg == 0 {
		return nil
	}
	t := c.tree
	tip := c.tip.get()
	own := t.node(tip)
	c.refusals.mu.Lock()
	list := slices.Clone(c.refusals.list)
	c.refusals.mu.Unlock()
	list = slices.DeleteFunc(list, func(b RefusedBranch) bool {
		return !workOf(b.Tip.Work).more(own.work) || !c.refuses(&b)
	})
	for k := range list {
		list[k].Depth = own.height - list[k].Fork
	}
	slices.SortStableFunc(list, func(a, b RefusedBranch) int { return b.Tip.Work.Cmp(a.Tip.Work) })
	return list
}

// refuses says whether a branch that was refused is still.
func (c *Chain) refuses(b *RefusedBranch) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.anchor == noNode || b.First == t.acceptedHash {
		return false
	}
	if i, ok := t.find(&b.First); ok {
		return !t.has(i, flagBad) && !t.allowed(i)
	}
	return t.node(t.anchor).height > b.Fork
}

// ReorgsAccepted is how often AcceptReorg was successful, or Invalidate lowered the anchor, since Open: whoever was refused a
// branch may try again when it changes.
func (c *Chain) ReorgsAccepted() int64 {
	c.refusals.mu.Lock()
	defer c.refusals.mu.Unlock()
	return c.refusals.accepted
}

// AcceptReorg is an operator's word that the chain may go over to a refused branch, named
// by one of its blocks as [Chain.Refused] and [Chain.Tips] show them. It goes there as soon
// as the blocks are here and valid and have more work. The word is durable when
// it returns, and the latest counts. ErrNotFound if no such block is known, ErrNotRefused
// if nothing is needed.
func (c *Chain) AcceptReorg(ctx context.Context, hash chainhash.Hash) error {
	return c.ask(ctx, func(c *conductor) (answer, err error) {
		first, err := c.refusedFirst(hash)
		if err != nil {
			return fmt.Errorf("accept a reorganisation to %v: %w", hash, err), nil
		}
		t := c.tree
		t.mu.Lock()
		t.acceptedHash, t.accepted = first, noNode
		if i, ok := t.find(&first); ok {
			t.accepted = i
		}
		t.reconsider(c.tip.get())
		c.heads.set(t.bestHeader)
		t.mu.Unlock()
		if err := c.saveAnchor(); err != nil {
			return nil, err
		}
		c.refusals.mu.Lock()
		c.refusals.accepted++
		c.refusals.mu.Unlock()
		c.log.Warn("the chain may leave its anchor for a branch: an operator said so", "branch", first, "height", t.node(c.tip.get()).height)
		return nil, nil
	})
}

// refusedFirst returns the first block of the refused branch that hash is on.
func (c *conductor) refusedFirst(hash chainhash.Hash) (first chainhash.Hash, err error) {
	t := c.tree
	tip := c.tip.get()
	t.mu.RLock()
	i, ok := t.find(&hash)
	fine := ok && (t.allowed(i) || t.has(i, flagBad))
	t.mu.RUnlock()
	switch {
	case fine:
		return first, ErrNotRefused
	case ok:
		return t.node(t.ancestor(i, t.node(t.fork(i, tip)).height+1)).hash, nil
	}
	for _, b := range c.Refused() {
		if b.First == hash || b.Tip.Hash == hash {
			return b.First, nil
		}
	}
	return first, ErrNotFound
}

// refusedTips are the refused branches for Tips, without those that have a leaf in the tree.
func (c *Chain) refusedTips() (tips []ChainTip) {
	for _, b := range c.Refused() {
		if _, ok := c.tree.lookup(&b.Tip.Hash); !ok {
			tips = append(tips, ChainTip{Tip: b.Tip, Branch: b.Tip.Height - b.Fork, Status: statusRefused})
		}
	}
	slices.SortStableFunc(tips, func(a, b ChainTip) int { return cmp.Compare(b.Tip.Height, a.Tip.Height) })
	return tips
}

// statusRefused is a ChainTip's on a branch that would need too deep a reorganisation.
const statusRefused = "refused"
