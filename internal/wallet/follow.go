package wallet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/sync/errgroup"

	"dunlin/chain/consensus"
)

const (
	// stepTime is how long blocks are read in one go: stopping and the operator wait no longer.
	stepTime = 200 * time.Millisecond
	// storeBlocks and storeEvery bound what a crash makes the wallet read again.
	storeBlocks = 1000
	storeEvery  = 5 * time.Second
	// storeChanges bounds what waits in memory to be stored.
	storeChanges = 10_000
	// offerEvery is how often payments that are not in the mempool are offered to it.
	offerEvery = time.Minute
	// poolPause is the least time between two looks into the mempool.
	poolPause = 100 * time.Millisecond
	// poolMost is how many transactions one look takes.
	poolMost = 5000
	// oldEnough is how much older than the wallet's birthday a block must be to be passed
	// over: clocks differ, and times in headers may lag.
	oldEnough = 24 * 3600
	// nearTip blocks are never passed over, whatever their time says.
	nearTip = 144
	// rateOver smooths the speed of a search.
	rateOver = 10 * time.Second
)

// scanning is what Run does, for people. Wallet.mu guards it.
type scanning struct {
	running  bool
	tip      int32 // of the chain when it was looked at last
	began    time.Time
	beganAt  int32 // height, for the speed
	logged   time.Time
	stored   time.Time
	unstored int // blocks
	trouble  string
}

// Run follows the chain and the mempool until ctx ends, and locks the vault when its
// time is over. It may be called once.
func (w *Wallet) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.follow(gctx) })
	g.Go(func() error { return w.runVault(gctx) })
	return g.Wait()
}

// runVault runs the vault, once there is one.
func (w *Wallet) runVault(ctx context.Context) error {
	for {
		w.mu.Lock()
		vault, changed := w.vault, w.changed
		w.mu.Unlock()
		if vault != nil {
			return vault.Run(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow is the loop of Run.
func (w *Wallet) follow(ctx context.Context) error {
	p := poolWatch{w: w}
	offer := time.NewTicker(offerEvery)
	defer offer.Stop()
	pause := time.NewTimer(poolPause)
	defer pause.Stop()
	for ctx.Err() == nil {
		hash, height, moved := w.o.Chain.Tip()
		pooled := w.o.Pool.Changed()
		more, err := w.step(ctx, hash, height)
		if err != nil && ctx.Err() == nil {
			// The wallet's trouble is not the node's: it says so and waits for the next block.
			w.report(err)
		}
		if more && err == nil {
			continue
		}
		if err == nil {
			w.report(nil)
		}
		p.look(ctx)
		pause.Reset(poolPause)
		select { // a mempool that changes all the time is looked at ten times a second
		case <-pause.C:
		case <-moved:
			continue
		case <-w.kick:
			p.offered = time.Time{}
			continue
		case <-ctx.Done():
			continue
		}
		select {
		case <-moved:
		case <-pooled:
		case <-w.kick:
			p.offered = time.Time{}
		case <-offer.C:
			p.offered = time.Time{}
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scan.running = false
	if w.journal != nil && w.broken == nil {
		_ = w.keepPlace(true) // it is told where it is stored
	}
	return ctx.Err()
}

// report keeps what hinders the wallet for people, and logs it once.
func (w *Wallet) report(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.scan.trouble {
		w.scan.trouble = text
		if text != "" && w.broken == nil {
			w.log.Warn("wallet cannot follow the chain", "err", err)
		}
	}
}

// step goes some blocks towards the tip, or through a search, and says whether there is more to do.
func (w *Wallet) step(ctx context.Context, tip chainhash.Hash, height int32) (more bool, err error) {
	w.mu.Lock()
	ready := w.journal != nil && w.broken == nil
	w.scan.running, w.scan.tip = true, height
	var pos position
	if ready {
		pos = w.book.pos
	}
	w.mu.Unlock()
	if !ready {
		return false, nil
	}
	if pos.Hash != tip {
		return w.advance(ctx, tip, height)
	}
	return w.search(ctx)
}

// advance goes towards the tip, over a fork if need be.
func (w *Wallet) advance(ctx context.Context, tip chainhash.Hash, height int32) (more bool, err error) {
	w.mu.Lock()
	pos := w.book.pos
	w.mu.Unlock()
	fork, err := w.forkWith(pos, tip)
	if err != nil {
		return false, err
	}
	if fork < pos.Height {
		if err := w.back(fork, tip); err != nil {
			return false, err
		}
	}
	start := w.o.Now()
	for h := fork + 1; h <= height; h++ {
		if ctx.Err() != nil || w.o.Now().Sub(start) > stepTime {
			return true, ctx.Err()
		}
		hash, ok := w.o.Chain.Ancestor(tip, h)
		if !ok {
			return false, fmt.Errorf("height %d of the branch of %s is not known", h, tip)
		}
		blk, err := w.read(hash, h, height)
		if err != nil {
			return false, err
		}
		if err := w.connect(hash, h, blk); err != nil {
			return false, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return true, w.keepPlace(false)
}

// forkWith is the height of the last block of the branch to tip that was followed.
func (w *Wallet) forkWith(pos position, tip chainhash.Hash) (int32, error) {
	if fork, ok := w.o.Chain.Fork(pos.Hash, tip); ok {
		return fork, nil
	}
	// The header is gone: the chain was made anew, or was brought from elsewhere.
	for _, hash := range pos.Locator {
		if height, _, active, ok := w.o.Chain.Where(hash); ok && active {
			return height, nil
		}
	}
	return 0, errors.New("the chain has nothing in common with what the wallet has seen")
}

// back takes back the blocks above a height.
func (w *Wallet) back(fork int32, tip chainhash.Hash) error {
	hash, ok := w.o.Chain.Ancestor(tip, fork)
	if !ok {
		return fmt.Errorf("height %d of the branch of %s is not known", fork, tip)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	from := w.book.pos.Height
	w.book.disconnect(fork)
	if r := w.book.rescan; r != nil && r.Next > fork+1 {
		r.Next = fork + 1
		w.book.dirty[keyRescan] = r
	}
	w.book.pos = position{Hash: hash, Height: fork}
	w.log.Info("wallet left blocks of another branch", "from", from, "to", fork)
	return w.keepPlace(false)
}

// read reads a block if it must be looked at; nil if it need not, or cannot.
func (w *Wallet) read(hash chainhash.Hash, h, tip int32) (*consensus.Block, error) {
	w.mu.Lock()
	birthday := w.book.meta.Birthday
	w.mu.Unlock()
	_, at, _, _ := w.o.Chain.Where(hash)
	if h <= tip-nearTip && birthday > 0 && at+oldEnough < birthday {
		return nil, nil //nolint:nilnil // nothing in it can be ours
	}
	blk, err := w.o.Chain.Block(hash)
	if errors.Is(err, ErrNoBlock) {
		return nil, w.hole(h)
	}
	if err != nil {
		return nil, fmt.Errorf("block %s at height %d: %w", hash, h, err)
	}
	return blk, nil
}

// hole notes that a block could not be looked at.
func (w *Wallet) hole(h int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.book.meta
	if n := len(m.Holes); n > 0 && h >= m.Holes[n-1][0] && h <= m.Holes[n-1][1]+1 {
		m.Holes[n-1][1] = max(m.Holes[n-1][1], h)
	} else {
		w.log.Warn("wallet cannot look at blocks that are not on disk: payments in them stay unknown", "from", h, "first_on_disk", w.o.Chain.Lowest())
		m.Holes = append(m.Holes, [2]int32{h, h})
		if len(m.Holes) > 100 {
			m.Holes = m.Holes[1:]
		}
	}
	w.book.touchMeta()
	return nil
}

// connect takes over a block of the branch that is followed.
func (w *Wallet) connect(hash chainhash.Hash, h int32, blk *consensus.Block) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if blk != nil {
		txs, ids := transactions(blk)
		if err := w.book.connect(Place{Hash: hash, Height: h, Time: blk.Header.Timestamp.Unix()}, txs, ids); err != nil {
			return err
		}
	}
	w.book.pos = position{Hash: hash, Height: h}
	w.scan.unstored++
	if len(w.book.dirty) > 0 || w.scan.unstored >= storeBlocks || w.o.Now().Sub(w.scan.stored) > storeEvery {
		return w.keepPlace(false)
	}
	return nil
}

func transactions(blk *consensus.Block) ([]*wire.MsgTx, []chainhash.Hash) {
	txs, ids := make([]*wire.MsgTx, len(blk.Txs)), make([]chainhash.Hash, len(blk.Txs))
	for i, t := range blk.Txs {
		txs[i], ids[i] = t.MsgTx(), *t.Hash()
	}
	return txs, ids
}

// keepPlace stores where the wallet is, with all that changed. Callers hold mu.
func (w *Wallet) keepPlace(durable bool) error {
	if w.broken != nil {
		return w.broken
	}
	if len(w.book.pos.Locator) == 0 {
		w.book.pos.Locator = w.o.Chain.Locator(w.book.pos.Hash)
		w.book.dirty[keyPos] = &w.book.pos
	}
	w.scan.stored, w.scan.unstored = w.o.Now(), 0
	return w.store(durable)
}

// search goes on with a search through old blocks, if there is one.
func (w *Wallet) search(ctx context.Context) (more bool, err error) {
	start := w.o.Now()
	for {
		w.mu.Lock()
		r, pos := w.book.rescan, w.book.pos
		if r == nil {
			w.mu.Unlock()
			return false, nil
		}
		if w.scan.began.IsZero() {
			w.scan.began, w.scan.beganAt = start, r.Next
		}
		until := pos.Height
		if r.Until >= 0 {
			until = min(until, r.Until)
		}
		if r.Next > until {
			err := w.endPass(r)
			w.mu.Unlock()
			return err == nil, err
		}
		next := r.Next
		w.mu.Unlock()

		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		hash, ok := w.o.Chain.Ancestor(pos.Hash, next)
		if !ok {
			return false, fmt.Errorf("height %d of the branch of %s is not known", next, pos.Hash)
		}
		blk, err := w.o.Chain.Block(hash)
		if errors.Is(err, ErrNoBlock) {
			err = w.hole(next)
		}
		if err != nil {
			return false, fmt.Errorf("block %s at height %d: %w", hash, next, err)
		}
		if err := w.searched(hash, next, blk); err != nil {
			return false, err
		}
		if w.o.Now().Sub(start) > stepTime {
			return true, nil
		}
	}
}

// searched takes over a block of a search.
func (w *Wallet) searched(hash chainhash.Hash, h int32, blk *consensus.Block) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.book.rescan
	if w.broken != nil || r == nil || r.Next != h { // cancelled, or begun anew
		return w.broken
	}
	if blk != nil && (h > 0 || w.o.Params.GenesisSpendable()) {
		txs, ids := transactions(blk)
		w.book.grown = false
		if err := w.book.connect(Place{Hash: hash, Height: h, Time: blk.Header.Timestamp.Unix()}, txs, ids); err != nil {
			return err
		}
		if w.book.grown && h > r.From {
			// A block that was passed may have paid one of the new ones.
			r.Grown = true
		}
	}
	r.Next++
	now := w.o.Now()
	w.scan.unstored++
	if now.Sub(w.scan.logged) > storeEvery {
		w.scan.logged = now
		w.log.Info("wallet searches the chain", "pass", r.Pass, "height", h, "of", w.book.pos.Height, "payments", len(w.book.txs))
	}
	if w.scan.unstored >= storeBlocks || len(w.book.dirty) >= storeChanges || now.Sub(w.scan.stored) > storeEvery {
		w.book.dirty[keyRescan] = r
		return w.keepPlace(false)
	}
	return nil
}

// endPass ends a pass of a search: the next one looks for what the scripts that were
// added in this one may have been paid before they were. Callers hold mu.
func (w *Wallet) endPass(r *rescan) error {
	if r.Grown {
		// Blocks that came meanwhile were looked through without the scripts that this pass added.
		*r = rescan{From: r.From, Next: r.From, Pass: r.Pass + 1, Started: r.Started, Until: w.book.pos.Height}
		w.book.dirty[keyRescan] = r
		w.scan.began = time.Time{}
		return w.keepPlace(false)
	}
	w.log.Info("wallet has searched the chain", "from", r.From, "to", w.book.pos.Height, "passes", r.Pass,
		"payments", len(w.book.txs), "took_s", w.o.Now().Unix()-r.Started)
	w.book.meta.From = min(w.book.meta.From, r.From)
	w.book.touchMeta()
	w.book.rescan, w.book.news = nil, true
	w.book.dirty[keyRescan] = nil
	w.scan.began = time.Time{}
	return w.keepPlace(true)
}

// A poolWatch is what Run knows of the mempool.
type poolWatch struct {
	w       *Wallet
	after   uint64
	offered time.Time // zero: at once
}

// look takes over what is new in the mempool, and offers it what it lacks of ours.
func (p *poolWatch) look(ctx context.Context) {
	w := p.w
	for ctx.Err() == nil {
		w.mu.Lock()
		if w.journal == nil || w.broken != nil {
			w.mu.Unlock()
			p.after = 0
			return // what is there now is looked at when there is a wallet
		}
		if w.book.news {
			w.book.news, p.after = false, 0
		}
		w.mu.Unlock()
		txs, last := w.o.Pool.Newer(p.after, poolMost)
		w.mu.Lock()
		if w.broken != nil {
			w.mu.Unlock()
			return
		}
		for _, m := range txs {
			if !w.book.concerns(m) {
				continue
			}
			if err := w.book.record(m, m.TxHash(), nil, false); err != nil {
				w.log.Warn("wallet could not take over a transaction of the mempool", "txid", m.TxHash(), "err", err)
			}
		}
		err := w.store(false)
		w.mu.Unlock()
		p.after = last
		if err != nil || len(txs) < poolMost {
			break
		}
	}
	p.review()
	if w.o.Now().Sub(p.offered) >= offerEvery {
		p.offered = w.o.Now()
		p.offer(ctx)
	}
}

// review looks which unconfirmed transactions of ours are in the mempool, and why others are not.
func (p *poolWatch) review() {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.journal == nil || w.broken != nil {
		return
	}
	changed := false
	for _, t := range w.book.open {
		have := w.o.Pool.Have(t.id)
		changed = changed || have != t.pooled
		t.pooled = have
		switch {
		case t.info.Dead == replaced && t.info.By == w.handing && w.handing != (chainhash.Hash{}):
			// The mempool is being asked.
		case have:
			if t.trouble = ""; t.info.Dead != alive { // whatever was thought of it, it may be mined
				t.info.GivenUp = false
				w.book.wait(t)
			}
		case t.info.Dead == replaced && !w.replaces(t.info.By):
			// Who took its place is gone too, and not into a block: that would have ended this one for good.
			w.book.wait(t)
		case t.info.Dead == alive:
			f, ok := w.o.Pool.Fate(t.id)
			if !ok {
				continue
			}
			if f.Block != nil && !w.active(f.Block.Hash) {
				continue // that block was left
			}
			t.trouble = f.Why
			if f.Block != nil {
				w.book.kill(t, conflicted, f.By, f.Block, f.Via)
			} else if w.replaces(f.By) {
				w.book.kill(t, replaced, f.By, nil, f.Via)
			}
		}
	}
	w.book.forget(maxDead)
	if changed {
		w.signal()
	}
	_ = w.store(false) // it is told where it is stored
}

// active says whether a block is on the active chain.
func (w *Wallet) active(hash chainhash.Hash) bool {
	_, _, active, _ := w.o.Chain.Where(hash)
	return active
}

// replaces says whether a transaction may still be mined in place of others. Callers hold mu.
func (w *Wallet) replaces(by chainhash.Hash) bool {
	if by == (chainhash.Hash{}) {
		return false
	}
	t := w.book.txs[by]
	return t != nil && (t.info.Block != nil || t.info.Dead == alive && t.info.Own) || w.o.Pool.Have(by)
}

// wait lets a dead transaction wait to be mined again.
func (b *book) wait(t *tx) {
	t.info.Dead, t.info.By, t.info.ByBlock, t.info.Via = alive, chainhash.Hash{}, nil, chainhash.Hash{}
	if t.info.GivenUp {
		t.info.Dead = abandoned
	}
	b.touchTx(t)
}

// offer hands the payments that were made here and are not mined to the mempool again,
// parents before children.
func (p *poolWatch) offer(ctx context.Context) {
	w := p.w
	w.mu.Lock()
	var due []*wire.MsgTx
	if w.journal != nil && w.broken == nil {
		for _, t := range w.book.toOffer() {
			if t.id == w.handing {
				continue
			}
			if m, _, err := w.raw(t.id); err == nil {
				due = append(due, m)
			}
		}
	}
	w.mu.Unlock()
	for _, m := range due {
		if ctx.Err() != nil {
			return
		}
		id := m.TxHash()
		err := w.o.Pool.Submit(ctx, m)
		w.mu.Lock()
		if t := w.book.txs[id]; t != nil && t.info.Block == nil {
			w.noteOffer(t, err)
		}
		w.mu.Unlock()
	}
}

// noteOffer keeps what the mempool said to a transaction. Callers hold mu.
func (w *Wallet) noteOffer(t *tx, err error) {
	refusal, refused := errors.AsType[*RefusalError](err)
	switch {
	case err == nil:
		t.pooled, t.trouble = true, ""
	case refused && refusal.By != (chainhash.Hash{}) && refusal.By != t.id:
		w.book.kill(t, replaced, refusal.By, nil, chainhash.Hash{})
		_ = w.store(false) // it is told where it is stored
	case refused:
		t.trouble = refusal.Why
	default:
		t.trouble = "the node could not check it: " + err.Error()
	}
	w.signal()
}

// toOffer are the payments that were made here and that the mempool lacks, the oldest first.
func (b *book) toOffer() []*tx {
	var due []*tx
	seen := make(map[chainhash.Hash]bool)
	var add func(t *tx)
	add = func(t *tx) {
		if seen[t.id] || t.info.Block != nil || t.info.Dead != alive || t.pooled || t.info.Coinbase {
			return
		}
		seen[t.id] = true
		for _, in := range t.info.Ins {
			if op, err := parseOp(in); err == nil && b.open[op.Hash] != nil {
				add(b.open[op.Hash])
			}
		}
		// What others sent is theirs to send again, unless one of ours builds on it.
		due = append(due, t)
	}
	for _, t := range slices.SortedFunc(maps.Values(b.open), func(x, y *tx) int { return byAge(y, x) }) {
		if t.info.Own {
			add(t)
		}
	}
	return due
}
