package chain

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// coinStore is where coins are when the cache does not have them.
type coinStore interface {
	Coin(op wire.OutPoint) (consensus.Coin, bool, error)
}

// coinCache is the write-back cache of coins over the store, as of the last
// block applied, whether or not its scripts have been checked.
//
// One goroutine, the conductor, changes it. So that goroutine reads without mu;
// everybody else reads, and it writes, with mu, held for the coins of one
// transaction and never across disk reads.
type coinCache struct {
	store coinStore

	mu         sync.RWMutex
	table      *coinTable
	steps      []*step  // from the published tip to the state of coins, oldest first
	stepsLost  bool     // steps were dropped for their size: see view
	dirty      []uint32 // numbers of the entries that are listed
	bytes      int64    // of all entries
	dirtyBytes int64    // of those that the next commit writes
	evicted    uint32   // the number up to which clean has dropped entries

	// arena is the rest of a piece of memory for scripts that get hands out.
	// Conductor only.
	arena []byte

	// worth is what all coins are worth, in satoshi, less what they were worth
	// when the cache was made. Conductor only; see conductor.balance.
	worth int64
}

// A step is a block between the published tip and the coins: applied, or taken
// back. Readers undo it in their heads. Guarded by coinCache.mu.
type step struct {
	block *consensus.Block
	// spent has an entry a transaction; the coins of one are there once that
	// transaction has been applied.
	spent  []consensus.SpentTx
	height int32
	back   bool  // the block was disconnected
	worth  int64 // of the coins before this step
}

// gain is by how much a block that is wholly applied changed what the coins are
// worth, in satoshi: the outputs it made, less those nobody can spend, less what it
// spent or took the place of. That is the subsidy it claimed less what it burnt.
func (s *step) gain() (satoshi int64) {
	for i := range s.spent {
		for _, out := range s.spent[i].Tx.TxOut {
			if spendable(out.PkScript) {
				satoshi += out.Value
			}
		}
		for k := range s.spent[i].Coins {
			satoshi -= s.spent[i].Coins[k].Value
		}
	}
	return satoshi
}

func newCoinCache(s coinStore) *coinCache {
	return &coinCache{store: s, table: newCoinTable()}
}

// get returns the coin at op, reading it in if needed. Conductor only.
func (c *coinCache) get(op wire.OutPoint) (consensus.Coin, bool, error) {
	if i, ok := c.table.find(&op); ok {
		if c.table.has(i, coinSpent) {
			return consensus.Coin{}, false, nil
		}
		coin := c.table.coin(i)
		coin.Script = c.keepScript(coin.Script)
		return coin, true, nil
	}
	coin, ok, err := c.store.Coin(op)
	if err != nil {
		return consensus.Coin{}, false, fmt.Errorf("reading coin %v: %w", op, err)
	}
	if !ok {
		return consensus.Coin{}, false, nil
	}
	c.mu.Lock()
	c.set(c.table.add(&op), coin, 0)
	c.mu.Unlock()
	return coin, true, nil
}

// arenaBytes is how much memory for scripts is taken at once.
const arenaBytes = 16 << 10

// keepScript copies a script of the table, which may change while workers read it.
func (c *coinCache) keepScript(b []byte) []byte {
	if cap(c.arena)-len(c.arena) < len(b) {
		c.arena = make([]byte, 0, max(arenaBytes, len(b)))
	}
	n := len(c.arena)
	c.arena = append(c.arena, b...)
	return c.arena[n:len(c.arena):len(c.arena)]
}

func coinCode(c consensus.Coin) uint32 {
	code := uint32(c.Height) << 1
	if c.Coinbase {
		code |= 1
	}
	return code
}

// set fills a new entry, or one that weigh has just taken off the accounts. The
// caller holds mu.
func (c *coinCache) set(i uint32, coin consensus.Coin, state uint8) {
	e := c.table.at(i)
	e.value, e.code = coin.Value, coinCode(coin)
	e.state = coinLive | state | e.state&coinListed
	c.table.setScript(i, coin.Script)
	if state&coinDirty != 0 && e.state&coinListed == 0 {
		e.state |= coinListed
		c.dirty = append(c.dirty, i)
	}
	c.weigh(i, 1)
}

// weigh puts an entry on the accounts, or takes it off with −1. The caller holds mu.
func (c *coinCache) weigh(i uint32, sign int64) {
	cost := sign * c.table.cost(i)
	c.bytes += cost
	if c.table.has(i, coinDirty) {
		c.dirtyBytes += cost
	}
}

// spend removes a coin that get has just found. The caller holds mu.
func (c *coinCache) spend(op *wire.OutPoint) {
	i, _ := c.table.find(op)
	c.worth -= c.table.at(i).value
	c.weigh(i, -1)
	if c.table.has(i, coinFresh) {
		c.table.remove(i)
		return
	}
	c.set(i, consensus.Coin{}, coinDirty|coinSpent)
}

// create adds a coin, whose script it copies. The store has none at op unless the
// cache has it or its grave. The caller holds mu.
func (c *coinCache) create(op *wire.OutPoint, coin consensus.Coin) {
	i, had := c.table.find(op)
	state := coinDirty | coinFresh
	if had {
		c.weigh(i, -1)
		old := c.table.at(i)
		c.worth -= old.value
		state = coinDirty | old.state&coinFresh
	} else {
		i = c.table.add(op)
	}
	c.worth += coin.Value
	c.set(i, coin, state)
}

// spendable says whether an output enters the set of coins. What can provably
// never be spent does not (as in Bitcoin Core, so that the sets compare).
func spendable(script []byte) bool {
	return (len(script) == 0 || script[0] != txscript.OP_RETURN) && len(script) <= txscript.MaxScriptSize
}

// applyTx spends and creates the coins of transaction i of s. All its inputs
// were found by get; coins are theirs, or those that a coinbase takes the place of
// (see repeated). Conductor only.
func (c *coinCache) applyTx(s *step, i int, coins []consensus.Coin, height int32) {
	tx := s.block.Txs[i]
	msg := tx.MsgTx()
	op := wire.OutPoint{Hash: *tx.Hash()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.spent[i] = consensus.SpentTx{Tx: msg, Coins: coins}
	if i > 0 {
		for _, in := range msg.TxIn {
			c.spend(&in.PreviousOutPoint)
		}
	}
	for n, out := range msg.TxOut {
		if !spendable(out.PkScript) {
			continue
		}
		op.Index = uint32(n)
		c.create(&op, consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height, Coinbase: i == 0})
	}
}

// repeated returns what the coinbase of a block that may repeat an older one's id
// finds in the place of its outputs, one coin for each that is spendable (see nothing),
// or nil if there is none. It reads them in. Conductor only.
func (c *coinCache) repeated(tx *btcutil.Tx) (old []consensus.Coin, err error) {
	op := wire.OutPoint{Hash: *tx.Hash()}
	found := false
	for n, out := range tx.MsgTx().TxOut {
		if !spendable(out.PkScript) {
			continue
		}
		op.Index = uint32(n)
		coin, ok, err := c.get(op)
		if err != nil {
			return nil, err
		}
		if !ok {
			coin = consensus.Coin{}
		}
		found = found || ok
		old = append(old, coin)
	}
	if !found {
		return nil, nil
	}
	return old, nil
}

// undoTx takes back transaction i of s: its outputs vanish, what it spent is
// back. It fails if an output is not there, which means that the coins on disk
// do not belong to the blocks. Conductor only.
func (c *coinCache) undoTx(s *step, i int, coins []consensus.Coin) error {
	tx := s.block.Txs[i]
	msg := tx.MsgTx()
	op := wire.OutPoint{Hash: *tx.Hash()}
	for n, out := range msg.TxOut { // reads them in, so that spend knows them
		if !spendable(out.PkScript) {
			continue
		}
		op.Index = uint32(n)
		if _, ok, err := c.get(op); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("taking back transaction %v: its output %d is not among the coins", tx.Hash(), n)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := 0
	for n, out := range msg.TxOut {
		if !spendable(out.PkScript) {
			continue
		}
		op.Index = uint32(n)
		if e, ok := c.table.find(&op); ok && !c.table.has(e, coinSpent) {
			c.spend(&op)
		}
		if i == 0 && len(coins) > 0 {
			if !nothing(&coins[k]) {
				c.create(&op, coins[k])
			}
			k++
		}
	}
	if i > 0 {
		for n, in := range msg.TxIn {
			c.create(&in.PreviousOutPoint, coins[n])
		}
	}
	return nil
}

// push adds a step at the newest end. Conductor only.
func (c *coinCache) push(s *step) {
	s.worth = c.worth
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, s)
}

// pop removes s if it is the newest step (it is not after lose). Conductor only.
func (c *coinCache) pop(s *step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.steps); n > 0 && c.steps[n-1] == s {
		c.steps[n-1] = nil
		c.steps = c.steps[:n-1]
	}
}

// newest returns the newest step if it is the one that applied this block.
// Conductor only.
func (c *coinCache) newest(hash chainhash.Hash) *step {
	if n := len(c.steps); n > 0 && !c.steps[n-1].back && c.steps[n-1].block.Hash == hash {
		return c.steps[n-1]
	}
	return nil
}

// keep drops all but the newest n steps: the published tip is n steps behind
// the coins now. Conductor only.
func (c *coinCache) keep(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	drop := len(c.steps) - n
	if drop < 0 {
		return // some of these were lost: wait until they are behind the published tip
	}
	if drop > 0 {
		clear(c.steps[:drop])
		c.steps = c.steps[drop:]
		if n == 0 {
			c.steps = nil
		}
	}
	c.stepsLost = false
}

// lose forgets the steps: there are too many to keep. Conductor only.
func (c *coinCache) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps, c.stepsLost = nil, true
}

// view looks op up as of the published tip. It never waits for validation, only
// for the coins of one transaction. ErrBusy during a reorganisation too deep to
// keep in memory. What it returns keeps nothing else alive.
func (c *coinCache) view(op wire.OutPoint) (consensus.Coin, bool, error) {
	coin, ok, found, err := c.peek(op, 0)
	if err != nil || found {
		return coin, ok, err
	}
	return c.store.Coin(op)
}

// peek answers from memory, undoing the steps from number first on. found is
// false when only the store can tell.
func (c *coinCache) peek(op wire.OutPoint, first int) (coin consensus.Coin, ok, found bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.stepsLost {
		return coin, false, false, ErrBusy
	}
	if i, had := c.table.find(&op); had {
		coin, ok, found = c.table.coin(i), !c.table.has(i, coinSpent), true
	}
	for i := len(c.steps) - 1; i >= first; i-- {
		s := c.steps[i]
		if out, made := s.output(op); made {
			coin, ok, found = out, s.back, true
			if !s.back {
				coin, ok = s.overwritten(op)
			}
			// A coin made and spent within one block exists neither before nor after it.
			if _, gone := s.input(op); gone {
				coin, ok = consensus.Coin{}, false
			}
			continue
		}
		if in, gone := s.input(op); gone {
			coin, ok, found = in, !s.back, true
			if s.back {
				coin = consensus.Coin{}
			}
		}
	}
	// It shares memory with an entry, with a block, or with other scripts.
	coin.Script = bytes.Clone(coin.Script)
	return coin, ok, found, nil
}

// output returns the coin that the block makes at op.
func (s *step) output(op wire.OutPoint) (consensus.Coin, bool) {
	for i, tx := range s.block.Txs {
		if *tx.Hash() != op.Hash {
			continue
		}
		outs := tx.MsgTx().TxOut
		if int64(op.Index) >= int64(len(outs)) || !spendable(outs[op.Index].PkScript) {
			return consensus.Coin{}, false
		}
		out := outs[op.Index]
		return consensus.Coin{Value: out.Value, Script: out.PkScript, Height: s.height, Coinbase: i == 0}, true
	}
	return consensus.Coin{}, false
}

// overwritten returns the coin at op, an output of the block, that its coinbase took
// the place of.
func (s *step) overwritten(op wire.OutPoint) (consensus.Coin, bool) {
	old := s.spent[0].Coins
	if len(old) == 0 || op.Hash != *s.block.Txs[0].Hash() {
		return consensus.Coin{}, false
	}
	k := 0
	for _, out := range s.block.Txs[0].MsgTx().TxOut[:op.Index] {
		if spendable(out.PkScript) {
			k++
		}
	}
	return old[k], !nothing(&old[k])
}

// input returns the coin at op if the block spends it and got as far.
func (s *step) input(op wire.OutPoint) (consensus.Coin, bool) {
	for i := range s.spent {
		if i == 0 || s.spent[i].Tx == nil {
			continue
		}
		for n, in := range s.spent[i].Tx.TxIn {
			if in.PreviousOutPoint == op {
				return s.spent[i].Coins[n], true
			}
		}
	}
	return consensus.Coin{}, false
}

// parentCoins shows an engine the coins as of the parent of the block that the
// newest step applies. Conductor only.
type parentCoins struct{ c *coinCache }

// Coin is consensus.Coins.
func (p parentCoins) Coin(op wire.OutPoint) (consensus.Coin, bool, error) {
	c := p.c
	s := c.steps[len(c.steps)-1]
	if in, gone := s.input(op); gone {
		if _, made := s.output(op); made {
			return consensus.Coin{}, false, nil
		}
		return in, true, nil
	}
	if _, made := s.output(op); made {
		old, ok := s.overwritten(op)
		return old, ok, nil
	}
	return c.get(op)
}

// write puts every dirty coin into b, in the order of the store, which then need not
// sort them. Conductor only.
func (c *coinCache) write(b *store.Batch) {
	type key struct {
		first uint64 // bytes of the transaction's id
		i     uint32
	}
	keys := make([]key, 0, len(c.dirty))
	for _, i := range c.dirty {
		if c.table.has(i, coinDirty) {
			keys = append(keys, key{binary.BigEndian.Uint64(c.table.at(i).op.Hash[:]), i})
		}
	}
	slices.SortFunc(keys, func(x, y key) int {
		if x.first != y.first {
			return cmp.Compare(x.first, y.first)
		}
		ox, oy := &c.table.at(x.i).op, &c.table.at(y.i).op
		return cmp.Or(bytes.Compare(ox.Hash[:], oy.Hash[:]), cmp.Compare(ox.Index, oy.Index))
	})
	for _, k := range keys {
		if op := c.table.at(k.i).op; c.table.has(k.i, coinSpent) {
			b.DeleteCoin(op)
		} else {
			b.PutCoin(op, c.table.coin(k.i))
		}
	}
}

// evictBatch is how many entries clean handles under one hold of the lock.
const evictBatch = 4096

// clean follows a commit of what write wrote: nothing is dirty any more, and
// clean coins are dropped, by and large the oldest, while there are more than limit
// bytes. Conductor only.
func (c *coinCache) clean(limit int64) {
	for dirty := range slices.Chunk(c.dirty, evictBatch) {
		c.mu.Lock()
		for _, i := range dirty {
			e := c.table.at(i)
			e.state &^= coinListed
			switch {
			case e.state&coinLive == 0:
			case e.state&coinSpent != 0:
				c.weigh(i, -1)
				c.table.remove(i)
			default:
				e.state = coinLive
			}
		}
		c.mu.Unlock()
	}
	c.dirty, c.dirtyBytes = c.dirty[:0], 0
	if c.bytes > limit {
		c.evict(limit / 2)
	}
}

// evict drops entries, none of which is dirty, until there are at most limit bytes.
func (c *coinCache) evict(limit int64) {
	for c.bytes > limit && c.table.count() > 0 {
		c.mu.Lock()
		for n := 0; n < evictBatch && c.bytes > limit && c.table.count() > 0; n++ {
			if c.evicted++; c.evicted >= c.table.n {
				c.evicted = 0
			}
			if c.table.has(c.evicted, 0) {
				c.weigh(c.evicted, -1)
				c.table.remove(c.evicted)
			}
		}
		c.mu.Unlock()
	}
}
