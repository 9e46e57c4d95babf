package chain

import (
	"context"
	"slices"
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
	// signature returns the result of the check of the header's signature; nil if a worker
	// has not done that.
	signature func() error
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
	ran    bool           // its scripts are run, not taken for granted
	passed *passedScripts // those of blocks just taken back; nil outside a reorganisation

	left    atomic.Int32 // tasks not done yet
	dropped atomic.Bool  // nobody wants the result any more

	mu     sync.Mutex // guards the first fault, first by transaction and input
	faulty [2]int
	err    error
}

// A task is to run the scripts of transactions [from, to) of a flight, or some inputs
// of one that has many.
type task struct {
	f        *flight
	from, to int
	large    *largeTx
	inputs   [2]int // of large: from and to
}

// A largeTx is a transaction whose inputs several workers share.
type largeTx struct {
	once    sync.Once
	scripts *consensus.TxScripts
	err     error
}

// share cuts the scripts of f into tasks.
func (f *flight) share() (tasks []task) {
	spent := f.step.spent
	for from := 1; from < len(spent); {
		if n := len(spent[from].Coins); n >= 2*largeInputs {
			large := new(largeTx)
			for in := 0; in < n; in += largeInputs {
				tasks = append(tasks, task{f, from, from + 1, large, [2]int{in, min(in+largeInputs, n)}})
			}
			from++
			continue
		}
		to, inputs := from, 0
		for to < len(spent) && inputs < taskInputs && len(spent[to].Coins) < 2*largeInputs {
			inputs += len(spent[to].Coins)
			to++
		}
		tasks = append(tasks, task{f: f, from: from, to: to})
		from = to
	}
	return tasks
}

// taskInputs is how many inputs make a task: enough that handing it over costs
// nothing beside it (an input takes some 0.04 ms), few enough to spread a block. Twice
// largeInputs make a transaction that is itself spread.
const (
	taskInputs  = 8
	largeInputs = 32
)

// flightInputs is how many inputs a worker may be behind: a fifth of a second or so,
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
	if it.bodyErr = c.checkBody(it.block); it.bodyErr != nil {
		return
	}
	if s, ok := c.o.Engine.(signed); ok && it.ticket != nil {
		if _, known := c.tree.lookup(&it.hash); !known {
			err := s.CheckSignature(&it.block.Header)
			it.signature = func() error { return err }
		}
	}
	if ns, parent, ok := c.tree.look(&it.block.Header.PrevBlock); ok {
		it.pastErr = consensus.CheckBlockContext(p, past{ns, parent}, it.block)
		it.parent = parent // if it is forgotten meanwhile, who has its number then is not the parent, or is the same header
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
		if w.known(f, i) {
			continue
		}
		if err := t.check(i); err != nil {
			f.fail(i, t.inputs[0], err)
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

// known says whether the scripts of transaction i passed under these flags: in the
// mempool, or in a block that was just taken back.
func (w *workers) known(f *flight, i int) bool {
	asked := w.c.o.ScriptsChecked != nil && f.item.fresh()
	if !asked && f.passed == nil {
		return false
	}
	wtxid := *f.step.block.Txs[i].WitnessHash()
	return f.passed.has(wtxid, f.flags) || asked && w.c.o.ScriptsChecked(wtxid, f.flags)
}

// check runs the scripts of transaction i, or the task's share of them.
func (t *task) check(i int) error {
	s := &t.f.step.spent[i]
	if t.large == nil {
		return consensus.CheckTxScripts(s.Tx, s.Coins, t.f.flags)
	}
	t.large.once.Do(func() {
		t.large.scripts, t.large.err = consensus.NewTxScripts(s.Tx, s.Coins, t.f.flags)
	})
	if t.large.err != nil {
		return t.large.err
	}
	return t.large.scripts.Check(t.inputs[0], t.inputs[1])
}

// fail notes a fault unless an earlier one is known.
func (f *flight) fail(tx, input int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := [2]int{tx, input}
	if f.err == nil || slices.Compare(at[:], f.faulty[:]) < 0 {
		f.faulty, f.err = at, err
	}
}

// passedScripts remembers, for the time of a reorganisation, the transactions of
// blocks that were taken back and whose scripts this process has run: the other branch
// mostly has the same ones. A witness id commits to a transaction with its witness and,
// through the ids it spends, to the coins; so scripts that passed pass again under
// the same flags. All methods are safe for concurrent use; has allows nil.
type passedScripts struct {
	mu  sync.RWMutex
	txs map[chainhash.Hash]uint32 // the flags, by witness id
}

// maxPassed bounds passedScripts to some 8 MB.
const maxPassed = 1 << 17

func (p *passedScripts) add(b *consensus.Block, flags uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tx := range b.Txs[1:] {
		if len(p.txs) >= maxPassed {
			return
		}
		p.txs[*tx.WitnessHash()] = flags
	}
}

func (p *passedScripts) has(wtxid chainhash.Hash, flags uint32) bool {
	if p == nil {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	passed, ok := p.txs[wtxid]
	return ok && passed == flags
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
