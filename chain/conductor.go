package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// A conductor is the one goroutine that decides: it owns the coins, the order
// and the store's writing side.
type conductor struct {
	*Chain
	w    *workers
	stop <-chan struct{}

	applied  uint32 // the coins are at this node
	verified uint32 // the last node whose scripts all passed, at or before applied
	// drawn is the last block that was to take the place of another with as much work.
	drawn chainhash.Hash

	flights      []*flight // from verified to applied, in order
	flightInputs int
	flightBytes  int64

	waiting map[uint32]*item // accepted, to be connected or found beside the best branch
	ahead   []*item          // from disk, next ones of the best branch, being prepared
	passed  []*item          // connected, the tip not published yet
	unsaved []decided        // verdicts that wait for a commit

	away      bool  // the coins left the published branch: a reorganisation is under way
	awayBytes int64 // of the blocks in its steps

	// ran are the last blocks whose scripts were run, by height; passedScripts is
	// not nil while away.
	ran           [ranBlocks]ranBlock
	passedScripts *passedScripts

	arrived arrivals
	shelf   shelf // what lies aside

	committed   uint32
	sinceCommit int // blocks verified
	flushTimer  *time.Timer
	flushArmed  bool
	replaying   bool      // before Ready
	pruneTried  int32     // height at which pruning was last looked into
	diskChecked time.Time // see checkDisk
	diskSpent   uint64    // bytes of blocks taken since then
	diskTimer   *time.Timer
	blocked     []uint32 // branches left alone until a damaged block is restored
	held        []*item  // taken off the queue while the disk was full: the next in order
}

// A ranBlock is a block whose scripts were run, not assumed or remembered from
// another process, and under which flags.
type ranBlock struct{ node, flags uint32 }

// ranBlocks is how many are known: deeper reorganisations run scripts again.
const ranBlocks = 288

// conduct is Run.
func (c *Chain) conduct(ctx context.Context) error {
	con := &conductor{
		Chain:      c,
		w:          startWorkers(c),
		stop:       ctx.Done(),
		applied:    c.tip.get(),
		verified:   c.tip.get(),
		committed:  c.tip.get(),
		waiting:    make(map[uint32]*item),
		flushTimer: time.NewTimer(time.Hour),
		diskTimer:  time.NewTimer(time.Hour),
		replaying:  true,
		arrived:    c.newArrivals(),
		shelf:      shelf{blocks: make(map[uint32]shelved)},
	}
	con.flushTimer.Stop()
	con.diskTimer.Stop()
	err := con.loop()
	if errors.Is(err, errStopping) {
		if err = con.halt(); err == nil {
			err = ctx.Err()
		}
	}
	// Nothing enters any more; whoever waits for a verdict learns why there is none.
	why := ErrClosed
	if ctx.Err() == nil {
		why = err
	}
	fail := func(it *item) { it.answer(Verdict{Outcome: Failed, Hash: it.hash, Height: -1, Err: why}) }
	close(c.closed)
	con.w.join()
	for _, it := range con.waiting {
		fail(it)
	}
	for _, f := range con.flights {
		fail(f.item)
	}
	for _, it := range con.passed {
		fail(it)
	}
	for _, d := range con.unsaved {
		fail(d.it)
	}
	for _, it := range con.held {
		fail(it)
	}
	c.queue.close(fail)
	con.flushTimer.Stop()
	con.diskTimer.Stop()
	return err
}

// loop replays and then takes what comes until its context ends (errStopping) or
// something of our own breaks.
func (c *conductor) loop() error {
	c.checkDisk() // before Ready: who submits next must know
	if err := c.replay(); err != nil {
		return err
	}
	for {
		var err error
		if len(c.held) > 0 {
			it := c.held[0]
			c.held = c.held[1:]
			if err := c.take(it); err != nil {
				return err
			}
			if err := c.advance(); err != nil {
				return err
			}
			continue
		}
		c.held = nil
		select {
		case <-c.stop:
			return errStopping
		case <-c.diskTimer.C:
			c.checkDisk()
			continue
		case it := <-c.queue.order:
			err = c.take(it)
		case <-c.w.done:
			err = c.finish()
		case <-c.flushTimer.C:
			err = c.commit()
		case r := <-c.asked:
			err = c.serve(r)
		case <-c.kick:
			c.armFlush()
			err = c.commitIfDue()
		}
		if err == nil {
			// A new block, or a fault that came to light, may have changed the best branch.
			err = c.advance()
		}
		if err != nil {
			return err
		}
	}
}

// poll handles, without waiting, what may interrupt a long advance.
func (c *conductor) poll() error {
	for {
		select {
		case <-c.stop:
			return errStopping
		case <-c.w.done:
			if err := c.finish(); err != nil {
				return err
			}
		case <-c.flushTimer.C:
			c.flushArmed = false
			if !c.away {
				if err := c.commit(); err != nil {
					return err
				}
			}
		case <-c.kick:
			c.armFlush()
		default:
			return nil
		}
	}
}

// serve does a request and goes where it leads.
func (c *conductor) serve(r request) error {
	answer, err := r.do(c)
	if err == nil {
		err = c.advance()
	}
	if err != nil {
		answer = err
		if errors.Is(err, errStopping) {
			answer = ErrClosed
		}
	}
	r.done <- answer
	return err
}

// take takes one submitted block through accept. Unless that is the end of it,
// advance goes on with it.
func (c *conductor) take(it *item) error {
	err := c.waitForDisk(it)
	low := errors.Is(err, ErrLowDisk)
	if err == nil || low {
		err = c.await(it)
	}
	if err == nil && low {
		it.answer(Verdict{Outcome: Failed, Hash: it.hash, Height: -1, Err: ErrLowDisk})
		return nil
	}
	if err != nil { // a worker may still have the item, so its hash stays unread
		it.answer(Verdict{Outcome: Failed, Height: -1, Err: ErrClosed})
		return err
	}
	v, err := c.accept(it)
	if err != nil {
		it.answer(Verdict{Outcome: Failed, Hash: it.hash, Height: -1, Err: err})
		return err
	}
	switch v.Outcome {
	case 0:
		c.waiting[it.node] = it
	case Stored:
		kept, err := c.setAside(it.node)
		if err == nil && !kept {
			v, err = c.refuse(it, v, noRoomAside())
		}
		if err != nil {
			it.answer(Verdict{Outcome: Failed, Hash: it.hash, Height: -1, Err: err})
			return err
		}
		c.decide(it, v)
	default:
		it.answer(v)
	}
	return nil
}

// await waits until a worker has prepared it, finishing blocks meanwhile.
func (c *conductor) await(it *item) error {
	for {
		select {
		case <-it.prepared:
			return nil
		default:
		}
		select {
		case <-it.prepared:
			return nil
		case <-c.w.done:
			if err := c.finish(); err != nil {
				return err
			}
		case <-c.stop:
			return errStopping
		}
	}
}

// keepBlock is step 8: it takes the bytes and notes where they are.
func (c *conductor) keepBlock(i uint32, it *item) (linked bool, err error) {
	p, err := c.putBlock(i, it)
	if err != nil {
		return false, err
	}
	c.armFlush()
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	again := t.has(i, flagPruned)
	linked = t.setBlock(i, p, uint32(len(it.block.Txs)))
	if again { // its branch may be within reach now
		t.undefer(i)
		t.reconsider(c.tip.get())
	}
	return linked, nil
}

// launch hands the scripts of f to the workers and queues it as in flight.
func (c *conductor) launch(f *flight) {
	c.applied = f.node
	c.flights = append(c.flights, f)
	c.flightInputs += f.inputs
	c.flightBytes += int64(len(f.step.block.Raw))
	if f.inputs == 0 || c.scriptsKnown(f.node) {
		return
	}
	f.ran, f.passed = true, c.passedScripts
	// Count first: a fast worker must not find the count at zero early.
	tasks := f.share()
	f.left.Store(int32(len(tasks)))
	for _, t := range tasks {
		c.w.tasks <- t
	}
}

// scriptsKnown says whether the scripts of a block need no check: it was valid
// before, or it is an ancestor of the assumed-valid block and that is part of
// the best header chain.
func (c *conductor) scriptsKnown(i uint32) bool {
	t := c.tree
	var av uint32
	assumed := c.o.AssumeValid != (chainhash.Hash{})
	t.mu.RLock()
	valid := t.has(i, flagValid)
	best := t.bestHeader
	if assumed {
		av, assumed = t.find(&c.o.AssumeValid)
	}
	t.mu.RUnlock()
	return valid || (assumed && t.descends(av, i) && t.descends(best, av))
}

// full says whether as much is in flight as may be.
func (c *conductor) full(next int64) bool {
	return len(c.flights) > 0 &&
		(len(c.flights) >= c.o.MaxQueueBlocks ||
			c.flightBytes+next > c.o.MaxQueueBytes ||
			c.flightInputs >= flightInputs*c.o.Workers)
}

// finish takes the blocks whose scripts are through, in order, publishes the tip
// and gives the verdicts. The first whose scripts fail is taken back with all
// that follow it.
func (c *conductor) finish() error {
	done := 0
	for _, f := range c.flights {
		if f.left.Load() != 0 {
			break
		}
		if f.err != nil {
			if err := c.publish(done); err != nil {
				return err
			}
			return c.reject(f.err)
		}
		if err := c.connected(f); err != nil {
			c.flights = c.flights[done:] // those before it have passed and are answered there
			return err
		}
		done++
	}
	return c.publish(done)
}

// connected is step 12: the undo record is kept, now at the latest the block goes to the
// block files, and it is valid for ever.
func (c *conductor) connected(f *flight) error {
	t := c.tree
	if err := c.toFiles(f.node, f.step.block); err != nil {
		return err
	}
	t.mu.RLock()
	undo := t.body(f.node).undo
	t.mu.RUnlock()
	// What an earlier connection wrote still holds: the same block spends the same coins.
	if undo.Size == 0 && (f.inputs > 0 || len(f.step.spent[0].Coins) > 0) {
		var err error
		if undo, err = c.store.AppendUndo(appendUndo(nil, f.step.spent)); err != nil {
			return fmt.Errorf("storing undo data of block %v at height %d: %w", f.step.block.Hash, f.step.height, err)
		}
	}
	t.mu.Lock()
	t.ownBody(f.node).undo = undo
	t.prove(f.node)
	*t.flags(f.node) &^= flagPruned // the undo data is here again
	t.touch(f.node)
	t.mu.Unlock()

	c.spentStakes.note(f.node, f.step.height, f.step.spent)
	// By the clock: what the best header is anybody says.
	latest := c.o.Now().Sub(f.step.block.Header.Timestamp) < maxClaims*c.o.Params.TargetSpacing
	c.lookAtClaim(f.step.block.Hash, &f.step.block.Header, true, latest)
	if f.ran {
		c.ran[f.step.height%ranBlocks] = ranBlock{f.node, f.flags}
	}
	c.verified = f.node
	c.flightInputs -= f.inputs
	c.flightBytes -= int64(len(f.step.block.Raw))
	c.sinceCommit++
	if f.item.ticket != nil {
		c.passed = append(c.passed, f.item)
	}
	c.logConnected(f)
	return nil
}

// publish removes the first done flights and moves the published tip to the last
// verified block, unless that has no more work, nor was drawn: then a reorganisation
// is under way or has just failed.
func (c *conductor) publish(done int) error {
	clear(c.flights[:done])
	if c.flights = c.flights[done:]; len(c.flights) == 0 {
		c.flights = nil
	}
	old := c.tip.get()
	if c.verified == old {
		return nil
	}
	more := c.tree.node(c.verified).work.more(c.tree.node(old).work)
	condemned := c.bad(old) && c.verified == c.applied // any good tip is better
	if !more && !condemned && !c.drew(old) {
		return nil
	}
	if c.away {
		c.logReorg(old, c.verified)
		c.home()
	}
	c.coins.keep(len(c.flights))
	c.tip.set(c.verified)
	c.moveAnchor(old)
	c.armFlush()
	for _, it := range c.passed {
		c.decide(it, Verdict{Outcome: Connected, Hash: it.hash, Height: c.tree.node(it.node).height})
	}
	clear(c.passed)
	c.passed = c.passed[:0]
	return nil
}

// drain waits until nothing is in flight.
func (c *conductor) drain() error {
	for len(c.flights) > 0 {
		if err := c.finish(); err != nil {
			return err
		}
		if len(c.flights) == 0 {
			break
		}
		select {
		case <-c.w.done:
		case <-c.stop:
			return errStopping
		}
	}
	return nil
}
