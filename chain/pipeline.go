package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// The pipeline. Submit → workers (decode, hash, context-free checks, in
// parallel) → the conductor, one goroutine (accept order, coins, in height
// order) → workers (scripts, a few transactions a task, across blocks) → the
// conductor again (undo record, tip, verdicts, commit, in order).
//
//	goroutine   started by  ends when         owns
//	conductor   Run         ctx ends          coins, appends, commits, the published tip
//	worker × N  Run         conductor ended   nothing: an item or a task at a time
//
// Workers wait for nothing but the next piece of work, so the conductor may wait
// for them anywhere.

// An item is a block on its way to the conductor.
type item struct {
	src    Source
	ticket *Ticket // nil for a block that was read back from disk
	queue  *queue  // where it takes up room until its verdict; nil if nowhere
	node   uint32  // its node, once known
	place  store.Pos
	raw    []byte // nil until read, for a block from disk

	prepared chan struct{} // closed by the worker when what follows is set
	hash     chainhash.Hash
	block    *consensus.Block
	err      error  // the bytes do not decode, or could not be read
	checked  bool   // bodyErr tells
	bodyErr  error  // of the context-free checks
	parent   uint32 // the parent for which pastErr tells; noNode if none
	pastErr  error  // of the checks that need the past
}

// answer gives the verdict and makes room.
func (it *item) answer(v Verdict) {
	if it.queue != nil {
		it.queue.leave(int64(len(it.raw)))
		it.queue = nil
	}
	if it.ticket != nil {
		it.ticket.verdict = v
		close(it.ticket.done)
	}
}

// durable says whether the verdict waits for a commit.
func (it *item) durable() bool { return it.src.Kind == FromMiner || it.src.Kind == FromRPC }

// A flight is a block whose coins are applied and whose scripts are under way.
type flight struct {
	node   uint32
	item   *item
	step   step // its coins; guarded by coinCache.mu while it is pushed
	flags  uint32
	inputs int

	left    atomic.Int32 // tasks not done yet
	dropped atomic.Bool  // nobody wants the result any more

	mu     sync.Mutex // guards the first fault, first by transaction
	faulty int
	err    error
}

// A task is to run the scripts of transactions [from, to) of a flight.
type task struct {
	f        *flight
	from, to int
}

// taskInputs is how many inputs make a task: enough that handing it over costs
// nothing beside it (an input takes about 0.1 ms), few enough to spread a block.
const taskInputs = 8

// flightInputs is how many inputs a worker may be behind: half a second or so,
// which bounds how long a barrier waits.
const flightInputs = 4096

type workers struct {
	c     *Chain
	tasks chan task
	disk  chan *item    // blocks to read back
	done  chan struct{} // signals that a flight has no task left
	stop  chan struct{}
	wg    sync.WaitGroup
}

func startWorkers(c *Chain) *workers {
	w := &workers{
		c:     c,
		tasks: make(chan task, 256),
		disk:  make(chan *item, aheadBlocks),
		done:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
	}
	for range c.o.Workers {
		w.wg.Go(w.work)
	}
	return w
}

// join ends the workers; nobody may wait for their results any more.
func (w *workers) join() {
	close(w.stop)
	w.wg.Wait()
}

func (w *workers) work() {
	for {
		select {
		case <-w.stop:
			return
		case it := <-w.c.queue.prep:
			w.c.prepare(it)
		case it := <-w.disk:
			w.c.prepare(it)
		case t := <-w.tasks:
			w.run(t)
		}
	}
}

// prepare does what a block needs no order for.
func (c *Chain) prepare(it *item) {
	defer close(it.prepared)
	p := c.o.Params
	if it.raw == nil {
		if it.raw, it.err = c.store.ReadBlock(it.place); it.err != nil {
			return
		}
	} else if len(it.raw) >= consensus.HeaderBytes {
		// What is known already need not even be decoded.
		it.hash = chainhash.DoubleHashH(it.raw[:consensus.HeaderBytes])
		if c.settled(&it.hash) {
			return
		}
	}
	if it.block, it.err = consensus.DecodeBlock(p, it.raw); it.err != nil {
		return
	}
	it.hash = it.block.Hash
	it.checked = true
	if it.bodyErr = consensus.CheckBlockContextFree(p, it.block); it.bodyErr != nil {
		return
	}
	if parent, ok := c.tree.lookup(&it.block.Header.PrevBlock); ok {
		it.pastErr = consensus.CheckBlockContext(p, past{c.tree, parent}, it.block)
		it.parent = parent
	}
}

// settled says whether a block with this hash needs no checks: its bytes are on
// disk, or it is known to be bad. It never unsettles while Reconsider is not
// called, and the conductor looks again.
func (c *Chain) settled(hash *chainhash.Hash) bool {
	t := c.tree
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.find(hash)
	return ok && (t.body(i).block.Size > 0 || t.body(i).flags&flagBad != 0)
}

// run runs the scripts of a task.
func (w *workers) run(t task) {
	f := t.f
	for i := t.from; i < t.to && !f.dropped.Load(); i++ {
		s := &f.step.spent[i]
		if w.c.o.ScriptsChecked != nil && f.item.fresh() && w.c.o.ScriptsChecked(s.Tx.WitnessHash(), f.flags) {
			continue
		}
		if err := consensus.CheckTxScripts(s.Tx, s.Coins, f.flags); err != nil {
			f.mu.Lock()
			if f.err == nil || i < f.faulty {
				f.faulty, f.err = i, err
			}
			f.mu.Unlock()
			break
		}
	}
	if f.left.Add(-1) == 0 {
		select {
		case w.done <- struct{}{}:
		default:
		}
	}
}

// fresh says whether a mempool may know the block's transactions.
func (it *item) fresh() bool {
	return it.src.Kind == FromGossip || it.src.Kind == FromRPC || it.src.Kind == FromMiner
}

// A request is something that somebody wants the conductor to do. Its error says
// that our own trouble ends Run; what is merely the asker's goes into answer.
type request struct {
	do   func(c *conductor) (answer, err error)
	done chan error
}

// ask lets the conductor do something between two blocks and waits for it.
func (c *Chain) ask(ctx context.Context, do func(*conductor) (answer, err error)) error {
	r := request{do: do, done: make(chan error, 1)}
	select {
	case c.asked <- r:
	case <-c.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-c.closed:
		// The answer may have been given just before.
		select {
		case err := <-r.done:
			return err
		default:
			return ErrClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A conductor is the one goroutine that decides: it owns the coins, the order
// and the store's writing side.
type conductor struct {
	*Chain
	w    *workers
	stop <-chan struct{}

	applied  uint32 // the coins are at this node
	verified uint32 // the last node whose scripts all passed, at or before applied

	flights      []*flight // from verified to applied, in order
	flightInputs int
	flightBytes  int64

	waiting map[uint32]*item // accepted, to be connected or found beside the best branch
	ahead   []*item          // from disk, next ones of the best branch, being prepared
	passed  []*item          // connected, the tip not published yet
	unsaved []decided        // verdicts that wait for a commit

	away      bool  // the coins left the published branch: a reorganisation is under way
	awayBytes int64 // of the blocks in its steps

	committed   uint32
	sinceCommit int // blocks verified
	flushTimer  *time.Timer
	flushArmed  bool
	replaying   bool      // before Ready
	diskChecked time.Time // see waitForDisk
}

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
		replaying:  true,
	}
	con.flushTimer.Stop()
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
	c.queue.close(fail)
	con.flushTimer.Stop()
	return err
}

// loop replays and then takes what comes until its context ends (errStopping) or
// something of our own breaks.
func (c *conductor) loop() error {
	if err := c.replay(); err != nil {
		return err
	}
	for {
		var err error
		select {
		case <-c.stop:
			return errStopping
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
	err := c.waitForDisk()
	if err == nil {
		err = c.await(it)
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

// keepBlock is step 8: it appends the bytes and notes where they are.
func (c *conductor) keepBlock(i uint32, b *consensus.Block) (linked bool, err error) {
	p, err := c.store.AppendBlock(b.Raw)
	if err != nil {
		return false, fmt.Errorf("storing block %v at height %d: %w", b.Hash, c.tree.node(i).height, err)
	}
	c.armFlush()
	t := c.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.setBlock(i, p, uint32(len(b.Txs))), nil
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
	// Count first: a fast worker must not find the count at zero early.
	var tasks []task
	spent := f.step.spent
	for from := 1; from < len(spent); {
		to, inputs := from, 0
		for to < len(spent) && inputs < taskInputs {
			inputs += len(spent[to].Coins)
			to++
		}
		tasks = append(tasks, task{f, from, to})
		from = to
	}
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
	valid := t.body(i).flags&flagValid != 0
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
			return err
		}
		done++
	}
	return c.publish(done)
}

// connected is step 12: the undo record is kept and the block is valid for ever.
func (c *conductor) connected(f *flight) error {
	t := c.tree
	t.mu.RLock()
	b := *t.body(f.node)
	t.mu.RUnlock()
	undo := b.undo
	// What an earlier connection wrote still holds: the same block spends the same coins.
	if undo.Size == 0 && f.inputs > 0 {
		var err error
		if undo, err = c.store.AppendUndo(appendUndo(nil, f.step.spent)); err != nil {
			return fmt.Errorf("storing undo data of block %v at height %d: %w", f.step.block.Hash, f.step.height, err)
		}
	}
	t.mu.Lock()
	to := t.body(f.node)
	to.undo = undo
	to.flags |= flagValid
	t.touch(f.node)
	t.mu.Unlock()

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
// verified block, unless that has no more work: then a reorganisation is under
// way or has just failed.
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
	if !more && !condemned {
		return nil
	}
	if c.away {
		c.logReorg(old, c.verified)
		c.away, c.awayBytes = false, 0
	}
	c.coins.keep(len(c.flights))
	c.tip.set(c.verified)
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

// armFlush starts the clock of the next commit.
func (c *conductor) armFlush() {
	if !c.flushArmed {
		c.flushArmed = true
		c.flushTimer.Reset(c.o.FlushInterval)
	}
}

// maxDirtyHeaders is how many changed headers force a commit: about 10 MB of batch.
const maxDirtyHeaders = 1 << 16

// commitIfDue commits when there is much to lose.
func (c *conductor) commitIfDue() error {
	c.tree.mu.RLock()
	headers := len(c.tree.dirty)
	c.tree.mu.RUnlock()
	if c.coins.dirtyBytes >= c.o.FlushBytes || c.coins.bytes >= c.o.CacheBytes ||
		headers >= maxDirtyHeaders || (!c.away && c.sinceCommit >= c.o.FlushBlocks) {
		return c.commit()
	}
	return nil
}

// commit is the barrier: it waits for the scripts in flight, then makes coins,
// headers and tip durable together.
func (c *conductor) commit() error {
	if err := c.drain(); err != nil {
		return err
	}
	return c.save()
}

// save commits; nothing is in flight.
func (c *conductor) save() error {
	c.flushTimer.Stop()
	c.flushArmed = false
	c.tree.mu.RLock()
	headers := len(c.tree.dirty)
	c.tree.mu.RUnlock()
	if headers > 0 || len(c.coins.dirty) > 0 || c.verified != c.committed {
		b := c.store.NewBatch()
		c.writeHeaders(b)
		c.coins.write(b)
		nd := c.tree.node(c.verified)
		b.SetTip(store.Tip{Hash: nd.hash, Height: nd.height})
		if err := c.store.Commit(b); err != nil {
			return fmt.Errorf("committing the chain at height %d: %w", nd.height, err)
		}
		c.coins.clean(c.o.CacheBytes / 4 * 3) // so that the next commit is not due at once
		c.committed = c.verified
	}
	c.sinceCommit = 0
	for _, d := range c.unsaved {
		d.it.answer(d.v)
	}
	clear(c.unsaved)
	c.unsaved = c.unsaved[:0]
	return nil
}

// writeHeaders puts every changed node into b, a few at a time, for readers wait
// meanwhile.
func (c *conductor) writeHeaders(b *store.Batch) {
	const some = 1024
	t := c.tree
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = nil
	t.mu.Unlock()
	for rest := dirty; len(rest) > 0; {
		n := min(some, len(rest))
		t.mu.Lock()
		for _, i := range rest[:n] {
			b.PutHeader(t.node(i).hash, t.record(i))
			t.body(i).flags &^= flagDirty
		}
		t.mu.Unlock()
		rest = rest[n:]
	}
}

// halt ends in good order: what is not verified yet is taken back, for its bytes
// are on disk and the next start goes on with it, and the rest is committed.
func (c *conductor) halt() error {
	for _, f := range c.flights {
		f.dropped.Store(true)
	}
	for _, f := range slices.Backward(c.flights) {
		if err := c.takeBack(&f.step); err != nil {
			return err
		}
		c.waiting[f.node] = f.item // which learns that there is no verdict
	}
	c.flights, c.applied = nil, c.verified
	return c.save()
}

// How often the free space is asked for, and while there is too little of it.
const diskInterval = time.Second

// waitForDisk returns when there is room on the disk; it says once that there is
// none and once that there is again.
func (c *conductor) waitForDisk() error {
	if c.o.MinFreeBytes == 0 {
		return nil
	}
	now := time.Now()
	if now.Sub(c.diskChecked) < diskInterval && !c.lowDisk.Load() {
		return nil
	}
	c.diskChecked = now
	for {
		free, err := c.store.DiskFree()
		if err != nil || free >= c.o.MinFreeBytes { // a file system that cannot tell is none that is full
			if c.lowDisk.Swap(false) {
				c.log.Info("disk space is back, accepting blocks again", "free_bytes", free, "least_bytes", c.o.MinFreeBytes)
			}
			return nil
		}
		if !c.lowDisk.Swap(true) {
			c.log.Error("too little disk space, no block is accepted until some is freed", "dir", c.o.Dir, "free_bytes", free, "least_bytes", c.o.MinFreeBytes)
		}
		timer := time.NewTimer(diskInterval)
		select {
		case <-timer.C:
		case <-c.w.done:
			err = c.finish()
		case r := <-c.asked:
			err = c.serve(r)
		case <-c.stop:
			err = errStopping
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}
