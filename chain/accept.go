package chain

import (
	"bytes"
	"fmt"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// accept is the order in which a block is accepted, whoever it comes from. The
// workers have done the parts that need no order (1, 6 and, if they could, 7)
// already; their findings count only when their turn comes here, so the verdict
// does not depend on who was faster.
//
// Blame decides what is remembered: a fault of the block marks its header and
// all that builds on it for ever; a fault of the sender (a mutated or cut body)
// leaves the header as it was, so that the right body is welcome; a fault of
// nobody is forgotten.
//
// A returned error is our own trouble. A verdict without an outcome says that
// the block waits to be connected: steps 9 to 12 follow in connect when its
// branch is the best, at once if it builds on the tip.
func (c *conductor) accept(it *item) (Verdict, error) {
	// 1. The bytes decode, within every limit.
	if it.err != nil {
		return c.refuse(it, Verdict{Hash: it.hash, Height: -1}, it.err)
	}

	// 2. The block is new.
	v, i, done := c.known(it.hash)
	if i != noNode && v.Outcome != Refused && c.isDamaged(i) {
		return c.restore(it, i)
	}
	if done {
		if v.Outcome == Refused {
			return c.refuse(it, v, v.Err)
		}
		return v, nil
	}
	if it.block == nil { // it was known as bad when a worker had it, and was reconsidered since
		var err error
		if it.block, err = consensus.DecodeBlock(c.o.Params, it.raw); err != nil {
			return c.refuse(it, v, err)
		}
	}
	b := it.block

	// 3. Its parent's header is known.
	parent, ok := c.tree.lookup(&b.Header.PrevBlock)
	if !ok {
		return Verdict{Outcome: Orphan, Hash: b.Hash, Height: -1}, nil
	}
	v.Height = c.tree.node(parent).height + 1

	// 4. Its parent is not invalid.
	if c.bad(parent) {
		return c.refuse(it, v, badParent(&b.Header.PrevBlock))
	}

	// And on a branch that the chain may go to, see maxreorg.go.
	if i == noNode {
		err := c.tooDeep(&b.Hash, []consensus.Header{b.Header})
		if err != nil {
			return c.refuse(it, v, err)
		}
	} else if !c.allowed(i) {
		return c.refuse(it, v, c.noteRefused(c.tree.nodes(), c.tip.get(), i, nil))
	}

	// 5. Its header is valid. Only now does the tree take it, and from peers
	// only on a branch with enough work.
	if i == noNode {
		var err error
		if i, err = c.acceptHeader(parent, &b.Header, b.Hash, it.src, it.signature); err != nil {
			return c.refuse(it, v, err)
		}
		if c.bad(i) { // an operator refused it before the tree knew it
			return c.refuse(it, v, duplicateInvalid())
		}
	} else if err := c.settleSeal(i, parent, b); asRule(err) != nil {
		return c.refuse(it, v, err)
	} else if err != nil {
		return Verdict{}, err
	}

	// 6. Its body is valid as far as it can be seen without its past, and belongs to
	// its seal.
	if !it.checked {
		it.bodyErr = c.checkBody(b)
	}
	if it.bodyErr != nil {
		c.condemn(i, it.bodyErr)
		return c.refuse(it, v, it.bodyErr)
	}

	// 7. And given its past.
	if it.parent != parent {
		it.pastErr = consensus.CheckBlockContext(c.o.Params, c.tree.past(parent), b)
	}
	if it.pastErr != nil {
		c.condemn(i, it.pastErr)
		return c.refuse(it, v, it.pastErr)
	}

	// 8. Its bytes go to disk, where they stay; where stake makes blocks those of peers
	// do with step 12, and lie aside until then (aside.go).
	it.node = i
	linked, err := c.keepBlock(i, it)
	if err != nil {
		return Verdict{}, err
	}
	if !linked {
		v.Outcome = Stored // an ancestor's bytes are missing; continued when the gap closes
		return v, nil
	}

	// 9–12. See connect.
	return v, nil
}

// CheckSeal says whether the seal of b's header is signed and belongs to b's coinbase, its
// first transaction; it needs no other. Neither is covered by the block's hash, so a
// fault, a *consensus.RuleError, blames the sender.
func (c *Chain) CheckSeal(b *consensus.Block) error {
	if s, ok := c.o.Engine.(signed); ok {
		if err := s.CheckSignature(&b.Header); err != nil {
			return err
		}
	}
	return c.o.Engine.CheckBody(b)
}

// Claim returns what the seal of h claims; false where blocks have none.
func (c *Chain) Claim(h *consensus.Header) (consensus.Claim, bool) {
	if s, ok := c.o.Engine.(signed); ok {
		return s.Claim(h)
	}
	return consensus.Claim{}, false
}

// A signed engine has headers whose seals are signed.
type signed interface {
	proposer
	// CheckSignature is what CheckHeader checks beside CheckProposal. It needs no past.
	CheckSignature(h *consensus.Header) error
	// CheckSignatures says whether all of hs, whose hashes these are, pass that; false
	// shows nothing. run calls work with 0 to n − 1, at once; n is workers at most.
	CheckSignatures(hs []consensus.Header, hashes []chainhash.Hash, workers int, run func(n int, work func(worker int))) bool
	Claim(h *consensus.Header) (consensus.Claim, bool)
}

// checkBody is step 6.
func (c *Chain) checkBody(b *consensus.Block) error {
	if err := consensus.CheckBlockContextFree(c.o.Params, b); err != nil {
		return err
	}
	return c.o.Engine.CheckBody(b)
}

// settleSeal compares the seal of a block with that of its header, which is in the
// tree and has no body yet. The hash does not cover seals, so either may be false: a
// header shows that its seal is possible, and only with the body that it is the one. A
// block that belongs to its seal replaces the header's.
func (c *conductor) settleSeal(i, parent uint32, b *consensus.Block) error {
	seal, err := c.sealOf(c.tree.node(i))
	if err != nil || bytes.Equal(b.Header.Seal, seal) {
		return err
	}
	if err := c.checkHeader(c.tree.past(parent), &b.Header); err != nil {
		return err
	}
	if err := c.checkBody(b); err != nil {
		return err
	}
	c.tree.mu.Lock()
	c.tree.seals[i] = bytes.Clone(b.Header.Seal)
	c.tree.touch(i)
	c.tree.mu.Unlock()
	c.noteClaim(b.Hash, &b.Header, false)
	c.armFlush()
	return nil
}

// connect goes on with a block whose parent the coins are at. It changes the
// coins, leaves the scripts to the workers and queues the block as in flight; a
// broken rule leaves the coins as they were.
func (c *conductor) connect(i uint32, it *item) error {
	p, b := c.o.Params, it.block
	nd := c.tree.node(i)
	parent := c.tree.past(nd.parent)
	f := &flight{
		node:  i,
		item:  it,
		step:  step{block: b, height: nd.height, spent: make([]consensus.SpentTx, len(b.Txs))},
		flags: consensus.ScriptFlags(p, parent, b.Hash),
	}
	c.push(&f.step)
	if err := c.applyCoins(parent, f); err != nil {
		return c.giveUp(f, err)
	}

	// 10. The engine agrees, now that the coins are at hand.
	if err := c.o.Engine.CheckBlock(parent, parentCoins{c.coins}, b); err != nil {
		return c.giveUp(f, err)
	}

	// 11. Every script succeeds: the workers' task, across blocks.
	// 12. Connected, in order, when all of them have: see finish.
	c.launch(f)
	return nil
}

// giveUp leaves the coins as they were before f. Failing that is worse than err.
func (c *conductor) giveUp(f *flight, err error) error {
	if own := c.takeBack(&f.step); own != nil {
		return own
	}
	if r := asRule(err); r != nil && r.Rule == missingInput {
		// Where ids cannot repeat nobody has looked; the fault has a name of its own.
		if twin := c.checkBIP30(f.step.block); twin != nil {
			return twin
		}
	}
	return err
}

const missingInput = "bad-txns-inputs-missingorspent"

// applyCoins is step 9: every input spends a coin that exists, is mature and
// worth enough, sigops and coinbase keep within bounds, and no unspent output
// is overwritten (BIP30).
func (c *conductor) applyCoins(parent past, f *flight) error {
	p, b, height := c.o.Params, f.step.block, f.step.height
	var repeated []consensus.Coin
	if consensus.RepeatsCoinbase(p, height, b.Hash) {
		var err error
		if repeated, err = c.coins.repeated(b.Txs[0]); err != nil {
			return err
		}
	} else if consensus.CheckBIP30(p, parent, b.Hash) {
		if err := c.checkBIP30(b); err != nil {
			return err
		}
	}
	var fees int64
	sigops := 0
	inputs := 0
	for _, tx := range b.Txs[1:] {
		inputs += len(tx.MsgTx().TxIn)
	}
	all := make([]consensus.Coin, 0, inputs)
	for n, tx := range b.Txs {
		msg := tx.MsgTx()
		coins := repeated
		if n > 0 {
			for _, in := range msg.TxIn {
				coin, ok, err := c.coins.get(in.PreviousOutPoint)
				if err != nil {
					return err
				}
				if !ok {
					return ruleError(missingInput, consensus.BlameBlock,
						fmt.Sprintf("transaction %v spends %v, which is not an unspent output", tx.Hash(), in.PreviousOutPoint))
				}
				all = append(all, coin)
			}
			coins = all[len(all)-len(msg.TxIn) : len(all) : len(all)]
			fee, err := consensus.CheckTxInputs(p, parent, msg, coins)
			if err != nil {
				return err
			}
			// Cannot overflow: both are at most all the money.
			if fees += fee; fees > btcutil.MaxSatoshi {
				return ruleError("bad-txns-accumulated-fee-outofrange", consensus.BlameBlock, fmt.Sprintf("at transaction %v", tx.Hash()))
			}
		}
		cost, err := consensus.SigOpCost(msg, coins, f.flags)
		if err != nil {
			return err
		}
		if sigops += cost; sigops > p.MaxBlockSigOpsCost {
			return ruleError("bad-blk-sigops", consensus.BlameBlock, fmt.Sprintf("more than %d by transaction %v", p.MaxBlockSigOpsCost, tx.Hash()))
		}
		c.coins.applyTx(&f.step, n, coins, height)
	}
	f.inputs = inputs
	if err := consensus.CheckCoinbaseValue(p, height, b.Txs[0].MsgTx(), fees); err != nil {
		return err
	}
	return c.balance(&f.step)
}

// balance checks, in another way than the rules above, that no money came from
// nowhere: the coins are worth more by what the block made and less by what it
// spent, and the difference is at most its subsidy. An output that is spent twice,
// say, leaves the coins once. What does not balance is our own fault, and it is
// better to stop than to commit it.
func (c *conductor) balance(s *step) error {
	change, gain, most := c.coins.worth-s.worth, s.gain(), c.o.Params.Subsidy(s.height)
	if change != gain || gain > most {
		return fmt.Errorf("block %v at height %d changes the coins by %d satoshi: it should be %d, at most %d",
			s.block.Hash, s.height, change, gain, most)
	}
	return nil
}

// checkBIP30 looks for the outputs of b among the coins, before b changes them.
func (c *conductor) checkBIP30(b *consensus.Block) error {
	for _, tx := range b.Txs {
		op := wire.OutPoint{Hash: *tx.Hash()}
		for n := range tx.MsgTx().TxOut {
			op.Index = uint32(n)
			if _, ok, err := c.coins.get(op); err != nil {
				return err
			} else if ok {
				return ruleError("bad-txns-BIP30", consensus.BlameBlock, fmt.Sprintf("transaction %v overwrites output %d of its unspent twin", tx.Hash(), n))
			}
		}
	}
	return nil
}

// known is step 2: it says what became of a hash before. done is false if the
// block is wanted; then i is its node if its header is known.
func (c *conductor) known(hash chainhash.Hash) (v Verdict, i uint32, done bool) {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.find(&hash)
	if !ok {
		return Verdict{Hash: hash, Height: -1}, noNode, false
	}
	v = Verdict{Hash: hash, Height: t.node(i).height}
	switch {
	case t.has(i, flagInvalid):
		v.Outcome, v.Err = Refused, duplicateInvalid()
		return v, i, true
	case t.has(i, flagDoomed):
		v.Outcome, v.Err = Refused, badParent(&t.node(t.node(i).parent).hash)
		return v, i, true
	case t.body(i).block.Size > 0 || t.has(i, flagPruned) && c.active(i):
		v.Outcome = Duplicate
		return v, i, true
	}
	return v, i, false
}

func duplicateInvalid() *consensus.RuleError {
	return ruleError("duplicate-invalid", consensus.BlameBlock, "the block was found invalid before")
}

func badParent(parent *chainhash.Hash) *consensus.RuleError {
	return ruleError("bad-prevblk", consensus.BlameBlock, fmt.Sprintf("parent %v is invalid", parent))
}

// checkHeader is step 5 for a new header whose parent is known and good.
func (c *Chain) checkHeader(parent consensus.Past, h *consensus.Header) error {
	if err := c.checkFork(parent, h); err != nil {
		return err
	}
	return c.o.Engine.CheckHeader(parent, h, c.o.Now())
}

// checkUnsigned is checkHeader but for the signature, of an engine that is signed.
func (c *Chain) checkUnsigned(parent consensus.Past, h *consensus.Header) error {
	if err := c.checkFork(parent, h); err != nil {
		return err
	}
	return c.o.Engine.(signed).CheckProposal(parent, h, c.o.Now())
}

// checkFork refuses a header beside the branch to the last checkpoint.
func (c *Chain) checkFork(parent consensus.Past, h *consensus.Header) error {
	if height := parent.Height() + 1; height <= c.tree.checkpoint.Load() {
		// The branch to the checkpoint is known, so this is another one, which can
		// never be the chain: it cannot pass that height. (Unless somebody else has
		// just brought the same header.)
		hash := consensus.HeaderHash(h)
		if _, known := c.tree.lookup(&hash); !known {
			return ruleError("bad-fork-prior-to-checkpoint", consensus.BlameBlock,
				fmt.Sprintf("%v forks off at height %d, before the checkpoint at %d", hash, height, c.tree.checkpoint.Load()))
		}
	}
	return nil
}

// acceptHeader checks the header of a block and adds it to the tree. checkSig, if not
// nil, has the result of a check of its signature.
func (c *conductor) acceptHeader(parent uint32, h *consensus.Header, hash chainhash.Hash, src Source, checkSig func() error) (uint32, error) {
	if src.Kind == FromSync || src.Kind == FromGossip {
		if err := c.tooFar(&h.PrevBlock, c.tree.node(parent).height+1); err != nil {
			return noNode, err
		}
	}
	check := c.checkHeader
	if checkSig != nil {
		check = c.checkUnsigned
	}
	if err := check(c.tree.past(parent), h); err != nil {
		return noNode, err
	}
	if checkSig != nil {
		if err := checkSig(); err != nil {
			return noNode, err
		}
	}
	work := workOf(c.o.Engine.Work(h))
	sum := c.tree.node(parent).work.add(work)
	switch {
	// What sync brings has its header in the tree as a rule, which went through the
	// gate. A new block at the tip is what gossip is for: headers that were sent
	// before it must not keep it out, and it comes with its bytes.
	case src.Kind == FromSync, src.Kind == FromGossip && parent == c.tip.get():
		if least := workOf(c.o.Params.MinChainWork); least.more(sum) {
			return noNode, tooLittleWork(sum, least)
		}
	case src.Kind == FromGossip:
		if err := c.admit(parent, sum, work128{}, 1); err != nil {
			return noNode, err
		}
	}
	// What is on disk already takes no more room than that: a reindex reads all blocks before
	// it connects one.
	if src.Kind != FromDisk && !c.fits(1) {
		c.forget(h.PrevBlock)
		if (src.Kind == FromSync || src.Kind == FromGossip) && !c.fits(1) {
			return noNode, noRoom(1, 0)
		}
	}
	t := c.tree
	t.mu.Lock()
	i, _ := c.insert(h, hash, parent, work)
	t.mu.Unlock()
	c.noteClaim(hash, h, false)
	return i, nil
}

// insert adds a checked header to the tree unless it is there, and says whether it was
// not. The caller holds tree.mu.
func (c *Chain) insert(h *consensus.Header, hash chainhash.Hash, parent uint32, work work128) (i uint32, fresh bool) {
	t := c.tree
	i, ok := t.find(&hash)
	if !ok {
		i = t.add(h, hash, parent, work)
		t.touch(i)
		if t.meetAnchor(i) {
			t.reconsider(c.tip.get())
		}
		if s, ok := t.strays[hash]; ok {
			t.setStored(i, &s)
			delete(t.strays, hash)
		}
		if _, denied := c.denied[hash]; denied {
			t.condemn(i, flagInvalid, c.tip.get())
		}
		c.heads.set(t.bestHeader)
		c.wake()
	}
	return i, !ok
}

// wake tells the conductor that there is something to commit some time.
func (c *Chain) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
