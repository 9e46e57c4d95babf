package chain

import (
	"context"
	"sync"
	"sync/atomic"

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
	if !ok {
		return false
	}
	return t.body(i).block.Size > 0 || t.has(i, flagBad) || t.has(i, flagPruned) && c.active(i)
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
