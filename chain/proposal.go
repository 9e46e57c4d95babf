package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dunlin/chain/consensus"
)

// ErrNotNext is returned by TestBlock for a block that does not build on the tip.
var ErrNotNext = errors.New("chain: the block does not build on the tip")

// A proposer is an engine that can check a header that is yet to be proven.
type proposer interface {
	// CheckProposal is CheckHeader but for the proof.
	CheckProposal(past consensus.Past, h *consensus.Header, now time.Time) error
}

// TestBlock checks a block that builds on the tip by every rule but its proof, and
// leaves nothing of it behind: its header does not enter the tree, nothing is
// stored, nobody is told. nil: it would be accepted on top of that tip, were it
// proven. A *consensus.RuleError says which rule it breaks, ErrNotNext that it
// builds on something else or that the tip moved meanwhile. Networks whose engine
// cannot tell a header from its proof answer errors.ErrUnsupported.
//
// The chain waits while the coins are looked up, not while scripts run, which is in
// the caller's goroutine and up to Options.Workers more, joined when it returns.
func (c *Chain) TestBlock(ctx context.Context, b *consensus.Block) error {
	engine, ok := c.o.Engine.(proposer)
	if !ok {
		return fmt.Errorf("test block %v: the engine of network %s: %w", b.Hash, c.o.Params.Name, errors.ErrUnsupported)
	}
	at := c.tip.get()
	if c.tree.node(at).hash != b.Header.PrevBlock {
		return ErrNotNext
	}
	parent := c.tree.past(at)
	// The order of accept.
	if err := engine.CheckProposal(parent, &b.Header, c.o.Now()); err != nil {
		return err
	}
	if err := c.checkBody(b); err != nil {
		return err
	}
	if err := consensus.CheckBlockContext(c.o.Params, parent, b); err != nil {
		return err
	}
	f := &flight{
		node:  noNode,
		step:  step{block: b, height: parent.Height() + 1, spent: make([]consensus.SpentTx, len(b.Txs))},
		flags: consensus.ScriptFlags(c.o.Params, parent, b.Hash),
	}
	if err := c.ask(ctx, func(c *conductor) (answer, err error) { return c.tryCoins(at, f) }); err != nil {
		return err // the conductor may still have f
	}
	known := func(i int) bool {
		return ctx.Err() != nil || c.o.ScriptsChecked != nil && c.o.ScriptsChecked(*b.Txs[i].WitnessHash(), f.flags)
	}
	return cmp.Or(c.checkScripts(f.step.spent, f.flags, known), ctx.Err())
}

// tryCoins is steps 9 and 10 of accept for a block that nobody has accepted, and
// their undoing. The coins that it spends stay in f.
func (c *conductor) tryCoins(at uint32, f *flight) (answer, err error) {
	// What is in flight may fail, and readers undo steps in order.
	if err := c.drain(); err != nil {
		return nil, err
	}
	if c.away || c.applied != at || c.tip.get() != at {
		return ErrNotNext, nil
	}
	parent := c.tree.past(at)
	c.push(&f.step)
	answer = c.applyCoins(parent, f)
	if answer == nil {
		answer = c.o.Engine.CheckBlock(parent, parentCoins{c.coins}, f.step.block)
	}
	if own := c.takeBack(&f.step); own != nil {
		return nil, own
	}
	if r := asRule(answer); r != nil && r.Rule == missingInput {
		if twin := c.checkBIP30(f.step.block); twin != nil { // see giveUp
			answer = twin
		}
	}
	return answer, c.commitIfDue() // the coins were touched
}

// checkScripts runs the scripts of a block's transactions on every core, and returns
// the fault of the first that has one. known, which may be nil, says whose need not.
func (c *Chain) checkScripts(spent []consensus.SpentTx, flags uint32, known func(tx int) bool) error {
	var wg sync.WaitGroup
	next := make(chan int)
	errs := make([]error, len(spent))
	for range c.o.Workers {
		wg.Go(func() {
			for n := range next {
				if known == nil || !known(n) {
					errs[n] = consensus.CheckTxScripts(spent[n].Tx, spent[n].Coins, flags)
				}
			}
		})
	}
	for n := 1; n < len(errs); n++ {
		next <- n
	}
	close(next)
	wg.Wait()
	return cmp.Or(errs...)
}
