// Package mempool keeps the unconfirmed transactions that could be in the next
// block.
//
// It is our own rather than btcd's: that one has no bound on memory, runs
// scripts under its lock and wants btcd's chain state. Policy on a transaction
// alone (standardness, dust) is btcd's.
//
// # Invariants
//
//   - Every entry is valid on top of [Pool.Tip], given the entries it spends from.
//   - No two entries spend the same output.
//   - Entries and orphans together take at most Options.MaxBytes and
//     Options.MaxOrphanBytes; orphans are bounded by count and by peer too.
//   - No script runs and nothing is called under the lock.
package mempool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	btcpool "github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// Policy limits, those of Bitcoin Core (policy/policy.h) unless noted.
const (
	maxTxVersion     = 3
	maxTxSigOpsCost  = 16_000 // MAX_STANDARD_TX_SIGOPS_COST
	maxAncestors     = 25     // with the transaction itself
	maxDescendants   = 25     // of any ancestor, with itself
	maxReplaced      = 100    // entries that one replacement evicts (BIP125)
	maxOrphanWeight  = 400_000
	orphanLife       = 20 * time.Minute
	maxOrphansByPeer = 25 // ours: one peer may hold a quarter of the orphans
	// entryOverhead approximates what an entry costs beside its bytes: maps, the
	// decoded form, hashes. Measured by TestMemoryEstimate.
	entryOverhead = 1200
	perInput      = 260
	perOutput     = 100
	// maxRetries is how often a check is made again because the tip moved.
	maxRetries = 5
)

// Options configure New. Zero means the default given.
type Options struct {
	Chain          *chain.Chain
	MaxBytes       int64            // memory of all entries; default 300 MB
	MinFeeRate     int64            // satoshi per 1000 virtual bytes; default 1000
	Expiry         time.Duration    // default 336 h
	MaxOrphans     int              // default 100
	MaxOrphanBytes int64            // default 10 MB
	Now            func() time.Time // default time.Now
	Logger         *slog.Logger     // default: discards
}

// An Entry is a transaction in the pool. Its fields must not be changed.
type Entry struct {
	Tx        *wire.MsgTx
	ID, WID   chainhash.Hash
	Fee       int64 // satoshi
	Weight    int
	SigOpCost int
	Added     time.Time
	Parents   []chainhash.Hash // ids of pool transactions that it spends from
}

// entry is an Entry with its place in the pool.
type entry struct {
	Entry
	memory   int64
	seq      uint64 // order of acceptance: parents come before children
	children map[chainhash.Hash]struct{}
}

// orphan is a transaction whose inputs are not known yet.
type orphan struct {
	tx      *wire.MsgTx
	id      chainhash.Hash
	from    string
	bytes   int64
	expires time.Time
	seq     uint64
}

// A Pool holds transactions that are valid on top of the chain's tip. All
// methods are safe for concurrent use.
type Pool struct {
	o      Options
	log    *slog.Logger
	params *consensus.Params

	mu      sync.Mutex // guards what follows; held for map work only
	tip     chain.Tip
	gen     uint64 // changes with the tip and with every removal
	seq     uint64
	byID    map[chainhash.Hash]*entry
	spent   map[wire.OutPoint]chainhash.Hash
	memory  int64
	vbytes  int64
	orphans map[chainhash.Hash]*orphan
	waiting map[wire.OutPoint]map[chainhash.Hash]struct{} // missing output → orphans
	orphanB int64
	changed chan struct{}
}

// New returns an empty pool on top of the chain's tip. Nothing follows the chain
// until Run.
func New(o Options) (*Pool, error) {
	var errs []error
	if o.Chain == nil {
		return nil, errors.New("mempool: chain is required")
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"max bytes", o.MaxBytes}, {"min fee rate", o.MinFeeRate}, {"expiry", int64(o.Expiry)},
		{"max orphans", int64(o.MaxOrphans)}, {"max orphan bytes", o.MaxOrphanBytes},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("%s %d: must not be negative", f.name, f.v))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("mempool: %w", err)
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, 300_000_000)
	o.MinFeeRate = cmp.Or(o.MinFeeRate, 1000)
	o.Expiry = cmp.Or(o.Expiry, 336*time.Hour)
	o.MaxOrphans = cmp.Or(o.MaxOrphans, 100)
	o.MaxOrphanBytes = cmp.Or(o.MaxOrphanBytes, 10_000_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	tip, _ := o.Chain.Tip()
	return &Pool{
		o: o, log: o.Logger, params: o.Chain.Params(), tip: tip,
		byID:    make(map[chainhash.Hash]*entry),
		spent:   make(map[wire.OutPoint]chainhash.Hash),
		orphans: make(map[chainhash.Hash]*orphan),
		waiting: make(map[wire.OutPoint]map[chainhash.Hash]struct{}),
		changed: make(chan struct{}),
	}, nil
}

// Run follows the chain's tip until ctx ends: it removes what was mined and what
// conflicts with it, and takes back what a reorg disconnected. It also expires
// old entries.
func (p *Pool) Run(ctx context.Context) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		tip, moved := p.o.Chain.Tip()
		if tip.Hash != p.Tip() {
			if err := p.follow(ctx, tip); err != nil && ctx.Err() == nil {
				return fmt.Errorf("mempool follows block %s: %w", tip.Hash, err)
			}
			continue
		}
		select {
		case <-moved:
		case <-sweep.C:
			p.expire()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow moves the pool from its tip to another one.
func (p *Pool) follow(ctx context.Context, to chain.Tip) error {
	p.mu.Lock()
	from := p.tip
	empty := len(p.byID) == 0 && len(p.orphans) == 0
	p.mu.Unlock()
	_, fork, ok := p.o.Chain.Fork(from.Hash, to.Hash)
	if !ok {
		return fmt.Errorf("no common ancestor with %s", from.Hash)
	}
	if empty && fork == from.Height { // during sync: nothing to remove from
		p.setTip(to)
		return nil
	}
	back, err := p.blocks(ctx, from, fork)
	if err != nil {
		return err
	}
	forth, err := p.blocks(ctx, to, fork)
	if err != nil {
		return err
	}
	p.mu.Lock()
	for _, b := range forth {
		p.mined(b)
	}
	var again []*wire.MsgTx
	if len(back) > 0 { // a reorg can make any entry invalid: check all anew
		for _, b := range back {
			for _, tx := range b.Txs[1:] {
				again = append(again, tx.MsgTx())
			}
		}
		for _, e := range p.sorted() {
			again = append(again, e.Tx)
		}
		p.clear()
	}
	p.tip = to
	p.gen++
	p.signal()
	p.mu.Unlock()
	lost := 0
	for _, tx := range again {
		if _, err := p.add(ctx, tx, "", false); err != nil {
			lost++
		}
	}
	if len(back) > 0 {
		p.log.Info("mempool after reorg", "height", to.Height, "kept", len(again)-lost, "dropped", lost)
	}
	p.retryMined(ctx, forth)
	return ctx.Err()
}

// blocks reads the blocks above height fork of the branch that ends in tip,
// lowest first. A deep reorg is read whole: its depth is bounded by what the
// chain itself holds for the switch.
func (p *Pool) blocks(ctx context.Context, tip chain.Tip, fork int32) ([]*consensus.Block, error) {
	var out []*consensus.Block
	for h := tip.Height; h > fork; h-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hash, ok := p.o.Chain.Ancestor(tip.Hash, h)
		if !ok {
			return nil, fmt.Errorf("no ancestor of %s at height %d", tip.Hash, h)
		}
		raw, err := p.o.Chain.Block(hash)
		if err != nil {
			return nil, fmt.Errorf("block %s at height %d: %w", hash, h, err)
		}
		b, err := consensus.DecodeBlock(p.params, raw)
		if err != nil {
			return nil, fmt.Errorf("block %s at height %d: %w", hash, h, err)
		}
		out = append(out, b)
	}
	slices.Reverse(out)
	return out, nil
}

// mined removes a block's transactions and what conflicts with them. Callers
// hold mu.
func (p *Pool) mined(b *consensus.Block) {
	for _, tx := range b.Txs[1:] {
		id := *tx.Hash()
		if e := p.byID[id]; e != nil {
			p.unlink(e) // its children stay: their parent is a coin now
		}
		for _, in := range tx.MsgTx().TxIn {
			if rival, ok := p.spent[in.PreviousOutPoint]; ok {
				p.removeTree(rival)
			}
		}
		p.dropOrphan(id)
	}
}

// retryMined gives orphans that waited for a mined output another try.
func (p *Pool) retryMined(ctx context.Context, blocks []*consensus.Block) {
	p.mu.Lock()
	var ready []*orphan
	for _, b := range blocks {
		for _, tx := range b.Txs {
			ready = append(ready, p.completed(tx.MsgTx(), *tx.Hash())...)
		}
	}
	p.mu.Unlock()
	for _, o := range ready {
		_, _ = p.Submit(ctx, o.tx, o.from) //nolint:errcheck // an orphan that fails now is dropped: nobody waits for it
	}
}

// Submit checks a transaction and adds it. A *consensus.RuleError with
// BlameSender or BlameBlock says that no honest node would send it; with
// BlameNobody that it is not wanted here and now (policy, missing inputs,
// conflict, full, known: Rule tells). Any other error is our own trouble. from
// names the peer, "" is this node. accepted lists the transaction and the orphans that it
// completed: relay them. Submit keeps tx.
func (p *Pool) Submit(ctx context.Context, tx *wire.MsgTx, from string) (accepted []*wire.MsgTx, err error) {
	queue := []*orphan{{tx: tx, from: from}}
	for i := 0; len(queue) > 0; i++ {
		o := queue[0]
		queue = queue[1:]
		next, fault := p.add(ctx, o.tx, o.from, i == 0)
		if fault != nil {
			if i == 0 {
				return nil, fault
			}
			continue
		}
		accepted = append(accepted, o.tx)
		queue = append(queue, next...)
	}
	return accepted, nil
}

// add checks one transaction and adds it; it returns the orphans that it
// completed. keepOrphan says whether to keep it if inputs are missing.
func (p *Pool) add(ctx context.Context, tx *wire.MsgTx, from string, keepOrphan bool) ([]*orphan, error) {
	id := tx.TxHash()
	if err := checkAlone(tx); err != nil {
		return nil, err
	}
	weight := blockchain.GetTransactionWeight(btcutil.NewTx(tx))
	for range maxRetries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p.mu.Lock()
		if _, ok := p.byID[id]; ok {
			p.mu.Unlock()
			return nil, refuse("txn-already-in-mempool", "")
		}
		tip, gen := p.tip, p.gen
		coins, parents, missing := p.poolCoins(tx, tip.Height+1)
		p.mu.Unlock()

		past, ok := p.o.Chain.Past(tip.Hash)
		if !ok {
			return nil, chain.ErrNotFound
		}
		if err := p.checkPolicy(tx, past); err != nil {
			return nil, err
		}
		var lost []wire.OutPoint
		for _, i := range missing {
			op := tx.TxIn[i].PreviousOutPoint
			coin, ok, err := p.o.Chain.Coin(op)
			if err != nil {
				return nil, fmt.Errorf("coin %s: %w", op, err)
			}
			if !ok {
				lost = append(lost, op)
				continue
			}
			coins[i] = coin
		}
		if now, _ := p.o.Chain.Tip(); now.Hash != tip.Hash {
			// The coins are those of a newer tip: let the pool catch up.
			if err := p.await(ctx, now.Hash); err != nil {
				return nil, err
			}
			continue
		}
		if len(lost) > 0 {
			if p.confirmed(tx, id) {
				return nil, refuse("txn-already-known", "its outputs are in the chain")
			}
			if keepOrphan && from != "" {
				p.keepOrphan(tx, id, from, weight, lost)
			}
			return nil, refuse("missing-inputs", fmt.Sprintf("%d of %d inputs unknown or spent, first %s", len(lost), len(tx.TxIn), lost[0]))
		}
		fee, err := consensus.CheckTxInputs(p.params, past, tx, coins)
		if err != nil {
			return nil, err
		}
		flags := consensus.ScriptFlags(p.params, tip.Height+1, chainhash.Hash{})
		sigOps, err := consensus.SigOpCost(tx, coins, flags)
		if err != nil {
			return nil, err
		}
		if sigOps > maxTxSigOpsCost {
			return nil, refuse("bad-txns-too-many-sigops", fmt.Sprintf("cost %d, at most %d", sigOps, maxTxSigOpsCost))
		}
		if need := p.o.MinFeeRate * vsize(weight) / 1000; fee < need {
			return nil, refuse("min-relay-fee-not-met", fmt.Sprintf("fee %d satoshi, at least %d for %d virtual bytes", fee, need, vsize(weight)))
		}
		if err := checkScripts(tx, coins, flags); err != nil {
			return nil, err
		}
		e := &entry{
			Entry: Entry{
				Tx: tx, ID: id, WID: tx.WitnessHash(), Fee: fee, Weight: int(weight), SigOpCost: sigOps,
				Added: p.o.Now(), Parents: parents,
			},
			memory:   memoryOf(tx),
			children: make(map[chainhash.Hash]struct{}),
		}
		ready, again, err := p.commit(e, gen)
		if !again {
			return ready, err
		}
	}
	return nil, refuse("tip-moving", "the tip moved while the transaction was checked")
}

// await waits until the pool has followed the chain to hash, or away from its
// present tip.
func (p *Pool) await(ctx context.Context, hash chainhash.Hash) error {
	p.mu.Lock()
	at, changed := p.tip.Hash, p.changed
	p.mu.Unlock()
	if at == hash {
		return nil
	}
	t := time.NewTimer(time.Second) // Run may not be running: do not wait for ever
	defer t.Stop()
	select {
	case <-changed:
		return nil
	case <-t.C:
		return refuse("tip-moving", "the pool has not caught up with the chain")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poolCoins returns the coins that pool entries provide for tx, the ids of these
// entries, and the indexes of the inputs that the chain must provide. Callers
// hold mu.
func (p *Pool) poolCoins(tx *wire.MsgTx, height int32) (coins []consensus.Coin, parents []chainhash.Hash, missing []int) {
	coins = make([]consensus.Coin, len(tx.TxIn))
	for i, in := range tx.TxIn {
		op := in.PreviousOutPoint
		e := p.byID[op.Hash]
		if e == nil || int(op.Index) >= len(e.Tx.TxOut) {
			missing = append(missing, i)
			continue
		}
		out := e.Tx.TxOut[op.Index]
		coins[i] = consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height}
		if !slices.Contains(parents, op.Hash) {
			parents = append(parents, op.Hash)
		}
	}
	return coins, parents, missing
}

// commit adds a checked entry unless the pool changed under the check (again).
func (p *Pool) commit(e *entry, gen uint64) (ready []*orphan, again bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen != gen {
		return nil, true, nil
	}
	if _, ok := p.byID[e.ID]; ok {
		return nil, false, refuse("txn-already-in-mempool", "")
	}
	replaced, err := p.conflicts(e)
	if err != nil {
		return nil, false, err
	}
	if err := p.checkFamily(e, replaced); err != nil {
		return nil, false, err
	}
	for id := range replaced {
		if old := p.byID[id]; old != nil {
			p.unlink(old)
		}
	}
	p.seq++
	e.seq = p.seq
	p.byID[e.ID] = e
	for _, in := range e.Tx.TxIn {
		p.spent[in.PreviousOutPoint] = e.ID
	}
	for _, parent := range e.Parents {
		p.byID[parent].children[e.ID] = struct{}{}
	}
	p.memory += e.memory
	p.vbytes += vsize(int64(e.Weight))
	if len(replaced) > 0 {
		p.gen++
	}
	p.trim()
	if p.byID[e.ID] == nil {
		return nil, false, refuse("mempool-full", "its fee rate is below that of everything that stayed")
	}
	p.dropOrphan(e.ID)
	ready = p.completed(e.Tx, e.ID)
	p.signal()
	return ready, false, nil
}

// conflicts returns the entries that e would replace, with their descendants, or
// why it may not (BIP125 rules 3 to 5; every entry may be replaced). Callers hold mu.
func (p *Pool) conflicts(e *entry) (map[chainhash.Hash]struct{}, error) {
	out := make(map[chainhash.Hash]struct{})
	for _, in := range e.Tx.TxIn {
		rival, ok := p.spent[in.PreviousOutPoint]
		if !ok {
			continue
		}
		r := p.byID[rival]
		if e.Fee*int64(r.Weight) <= r.Fee*int64(e.Weight) {
			return nil, refuse("insufficient-fee", fmt.Sprintf("fee rate not above that of %s, which spends the same output", rival))
		}
		p.descendants(rival, out)
		if len(out) > maxReplaced {
			return nil, refuse("too-many-replacements", fmt.Sprintf("would evict %d entries, at most %d", len(out), maxReplaced))
		}
	}
	if len(out) == 0 {
		return out, nil
	}
	var fees int64
	for id := range out {
		fees += p.byID[id].Fee
	}
	if need := fees + p.o.MinFeeRate*vsize(int64(e.Weight))/1000; e.Fee < need {
		return nil, refuse("insufficient-fee", fmt.Sprintf("fee %d satoshi, at least %d to replace %d entries", e.Fee, need, len(out)))
	}
	for _, parent := range e.Parents {
		if _, ok := out[parent]; ok {
			return nil, refuse("bad-txns-spends-conflicting-tx", fmt.Sprintf("spends %s, which it would replace", parent))
		}
	}
	return out, nil
}

// checkFamily enforces the limits on chains of unconfirmed transactions. Callers
// hold mu.
func (p *Pool) checkFamily(e *entry, replaced map[chainhash.Hash]struct{}) error {
	ancestors := make(map[chainhash.Hash]struct{})
	stack := slices.Clone(e.Parents)
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := ancestors[id]; ok {
			continue
		}
		a := p.byID[id]
		if a == nil {
			continue
		}
		ancestors[id] = struct{}{}
		if len(ancestors)+1 > maxAncestors {
			return refuse("too-long-mempool-chain", fmt.Sprintf("more than %d unconfirmed ancestors", maxAncestors-1))
		}
		stack = append(stack, a.Parents...)
	}
	for id := range ancestors {
		family := make(map[chainhash.Hash]struct{})
		p.descendants(id, family)
		for r := range replaced {
			delete(family, r)
		}
		if len(family)+1 > maxDescendants {
			return refuse("too-long-mempool-chain", fmt.Sprintf("%s has %d unconfirmed descendants already", id, len(family)-1))
		}
	}
	return nil
}

// descendants adds id and everything that builds on it to out. Callers hold mu.
func (p *Pool) descendants(id chainhash.Hash, out map[chainhash.Hash]struct{}) {
	stack := []chainhash.Hash{id}
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		e := p.byID[id]
		if _, ok := out[id]; ok || e == nil {
			continue
		}
		out[id] = struct{}{}
		for child := range e.children {
			stack = append(stack, child)
		}
	}
}

// removeTree removes an entry and everything that builds on it. Callers hold mu.
func (p *Pool) removeTree(id chainhash.Hash) {
	all := make(map[chainhash.Hash]struct{})
	p.descendants(id, all)
	for id := range all {
		p.unlink(p.byID[id])
	}
	p.gen++
}

// unlink removes one entry. Callers hold mu.
func (p *Pool) unlink(e *entry) {
	delete(p.byID, e.ID)
	for _, in := range e.Tx.TxIn {
		delete(p.spent, in.PreviousOutPoint)
	}
	for _, parent := range e.Parents {
		if pe := p.byID[parent]; pe != nil {
			delete(pe.children, e.ID)
		}
	}
	for child := range e.children {
		if ce := p.byID[child]; ce != nil {
			ce.Parents = slices.DeleteFunc(slices.Clone(ce.Parents), func(h chainhash.Hash) bool { return h == e.ID })
		}
	}
	p.memory -= e.memory
	p.vbytes -= vsize(int64(e.Weight))
	p.gen++
}

// clear removes every entry. Callers hold mu.
func (p *Pool) clear() {
	clear(p.byID)
	clear(p.spent)
	p.memory, p.vbytes = 0, 0
	p.gen++
}

// trim evicts, while over the limit, the entry whose family pays least, with its
// descendants. Callers hold mu.
func (p *Pool) trim() {
	for p.memory > p.o.MaxBytes {
		var worst *entry
		for _, e := range p.byID {
			if worst == nil || cmp.Or(
				cmp.Compare(e.Fee*int64(worst.Weight), worst.Fee*int64(e.Weight)),
				cmp.Compare(worst.seq, e.seq)) < 0 {
				worst = e
			}
		}
		if worst == nil {
			return
		}
		p.removeTree(worst.ID)
	}
}

// expire removes entries and orphans that are too old.
func (p *Pool) expire() {
	p.mu.Lock()
	now := p.o.Now()
	expired := 0
	for _, e := range p.sorted() {
		if now.Sub(e.Added) > p.o.Expiry && p.byID[e.ID] != nil {
			before := len(p.byID)
			p.removeTree(e.ID)
			expired += before - len(p.byID)
		}
	}
	for id, o := range p.orphans {
		if now.After(o.expires) {
			p.dropOrphan(id)
		}
	}
	p.mu.Unlock()
	if expired > 0 {
		p.log.Info("mempool expired", "txs", expired, "older_than", p.o.Expiry)
	}
}

// sorted returns the entries in order of acceptance. Callers hold mu.
func (p *Pool) sorted() []*entry {
	out := make([]*entry, 0, len(p.byID))
	for _, e := range p.byID {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

func (p *Pool) setTip(t chain.Tip) {
	p.mu.Lock()
	p.tip = t
	p.gen++
	p.signal()
	p.mu.Unlock()
}

// signal wakes who waits for a change. Callers hold mu.
func (p *Pool) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// confirmed guesses whether tx is in the chain already: one of its outputs is a coin.
func (p *Pool) confirmed(tx *wire.MsgTx, id chainhash.Hash) bool {
	for i := range tx.TxOut {
		if _, ok, err := p.o.Chain.Coin(wire.OutPoint{Hash: id, Index: uint32(i)}); err == nil && ok {
			return true
		}
	}
	return false
}

// Have says whether the pool holds the transaction.
func (p *Pool) Have(txid chainhash.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.byID[txid]
	return ok
}

// Get returns an entry by id.
func (p *Pool) Get(txid chainhash.Hash) (Entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byID[txid]
	if !ok {
		return Entry{}, false
	}
	return e.Entry, true
}

// Entries returns a snapshot, parents before their children.
func (p *Pool) Entries() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Entry, 0, len(p.byID))
	for _, e := range p.sorted() {
		out = append(out, e.Entry)
	}
	return out
}

// Size returns the number of transactions, their virtual bytes and the memory
// that they take.
func (p *Pool) Size() (count int, vbytes, memory int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byID), p.vbytes, p.memory
}

// Orphans returns the number of orphans and their bytes.
func (p *Pool) Orphans() (count int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.orphans), p.orphanB
}

// Changed returns a channel that is closed when a transaction is added, or the
// tip moves, after this call.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Tip returns the block on top of which the pool is valid.
func (p *Pool) Tip() chainhash.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tip.Hash
}

// checkPolicy applies btcd's standardness rules, given the past of the next block.
func (p *Pool) checkPolicy(tx *wire.MsgTx, past consensus.Past) error {
	err := btcpool.CheckTransactionStandard(btcutil.NewTx(tx), past.Height()+1,
		time.Unix(consensus.MedianTimePast(past), 0), btcutil.Amount(p.o.MinFeeRate), maxTxVersion)
	if err != nil {
		return refuse("non-standard", err.Error())
	}
	return nil
}

// checkAlone checks what a transaction proves by itself.
func checkAlone(tx *wire.MsgTx) error {
	u := btcutil.NewTx(tx)
	if blockchain.IsCoinBase(u) {
		return &consensus.RuleError{Rule: "coinbase", Blame: consensus.BlameSender, Detail: "a coinbase outside a block"}
	}
	if err := blockchain.CheckTransactionSanity(u); err != nil {
		return &consensus.RuleError{Rule: "bad-tx", Blame: consensus.BlameSender, Detail: err.Error()}
	}
	return nil
}

// checkScripts runs the scripts under the flags that relayed transactions must
// satisfy. One that only consensus would allow is not wanted, but nobody's fault.
func checkScripts(tx *wire.MsgTx, coins []consensus.Coin, flags uint32) error {
	err := consensus.CheckTxScripts(tx, coins, flags|uint32(txscript.StandardVerifyFlags))
	if err == nil {
		return nil
	}
	if mandatory := consensus.CheckTxScripts(tx, coins, flags); mandatory != nil {
		return mandatory
	}
	return refuse("non-mandatory-script-verify-flag", err.Error())
}

func refuse(rule, detail string) error {
	return &consensus.RuleError{Rule: rule, Blame: consensus.BlameNobody, Detail: detail}
}

// vsize is BIP141's virtual size.
func vsize(weight int64) int64 { return (weight + 3) / 4 }

// memoryOf estimates what an entry takes, in bytes.
func memoryOf(tx *wire.MsgTx) int64 {
	return entryOverhead + int64(tx.SerializeSize()) + perInput*int64(len(tx.TxIn)) + perOutput*int64(len(tx.TxOut))
}
