package wallet_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet"
	"dunlin/internal/wallet/keys"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// A fakeChain is a tree of blocks without proof of work or rules.
type fakeChain struct {
	mu      sync.Mutex
	blocks  map[chainhash.Hash]*fakeBlock
	tip     *fakeBlock
	changed chan struct{}
	lowest  int32
	reads   int
	salt    uint32
}

type fakeBlock struct {
	hash   chainhash.Hash
	parent *fakeBlock
	height int32
	time   int64
	block  *consensus.Block
}

func newFakeChain() *fakeChain {
	c := &fakeChain{blocks: make(map[chainhash.Hash]*fakeBlock), changed: make(chan struct{})}
	c.tip = c.make(nil)
	return c
}

// make makes a block on a parent; the first transaction is its coinbase.
func (c *fakeChain) make(parent *fakeBlock, txs ...*wire.MsgTx) *fakeBlock {
	c.salt++
	b := &fakeBlock{parent: parent, time: 1_900_000_000 + int64(c.salt)}
	header := wire.BlockHeader{Timestamp: time.Unix(b.time, 0), Nonce: c.salt}
	if parent != nil {
		b.height, header.PrevBlock = parent.height+1, parent.hash
	}
	if len(txs) == 0 || txs[0].TxIn[0].PreviousOutPoint.Index != wire.MaxPrevOutIndex {
		txs = append([]*wire.MsgTx{coinbase([]byte{txscript.OP_TRUE}, int64(c.salt))}, txs...)
	}
	b.hash = header.BlockHash()
	b.block = &consensus.Block{Hash: b.hash, Header: consensus.Header{BlockHeader: header}}
	for _, tx := range txs {
		b.block.Txs = append(b.block.Txs, btcutil.NewTx(tx))
	}
	c.blocks[b.hash] = b
	return b
}

// coinbase pays 50 coins to a script.
func coinbase(script []byte, unique int64) *wire.MsgTx {
	m := wire.NewMsgTx(2)
	sig, _ := txscript.NewScriptBuilder().AddInt64(unique).AddInt64(unique).Script()
	m.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), sig, nil))
	m.AddTxOut(wire.NewTxOut(50*btcutil.SatoshiPerBitcoin, script))
	return m
}

// mine extends the tip.
func (c *fakeChain) mine(txs ...*wire.MsgTx) *fakeBlock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moveTo(c.make(c.tip, txs...))
}

// fill extends the tip by empty blocks.
func (c *fakeChain) fill(n int) {
	for range n {
		c.mine()
	}
}

// branch leaves the blocks above a height, and mines others.
func (c *fakeChain) branch(height int32, blocks ...[]*wire.MsgTx) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.tip
	for at.height > height {
		at = at.parent
	}
	for _, txs := range blocks {
		at = c.make(at, txs...)
	}
	c.moveTo(at)
}

func (c *fakeChain) moveTo(b *fakeBlock) *fakeBlock {
	c.tip = b
	close(c.changed)
	c.changed = make(chan struct{})
	return b
}

func (c *fakeChain) Tip() (chainhash.Hash, int32, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tip.hash, c.tip.height, c.changed
}

func (b *fakeBlock) at(height int32) *fakeBlock {
	for b != nil && b.height > height {
		b = b.parent
	}
	if b == nil || b.height != height {
		return nil
	}
	return b
}

func (c *fakeChain) Where(hash chainhash.Hash) (height int32, at int64, active, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.blocks[hash]
	if b == nil {
		return 0, 0, false, false
	}
	return b.height, b.time, c.tip.at(b.height) == b, true
}

func (c *fakeChain) HashAt(height int32) (chainhash.Hash, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.tip.at(height); b != nil {
		return b.hash, true
	}
	return chainhash.Hash{}, false
}

func (c *fakeChain) Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.blocks[hash]; b != nil {
		if a := b.at(height); a != nil {
			return a.hash, true
		}
	}
	return chainhash.Hash{}, false
}

func (c *fakeChain) Fork(a, b chainhash.Hash) (int32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, y := c.blocks[a], c.blocks[b]
	if x == nil || y == nil {
		return 0, false
	}
	for x != y {
		if x.height >= y.height {
			x = x.parent
		} else {
			y = y.parent
		}
	}
	return x.height, true
}

func (c *fakeChain) Locator(hash chainhash.Hash) []chainhash.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []chainhash.Hash
	for b := c.blocks[hash]; b != nil; b = b.parent {
		if len(out) < 3 || b.height%10 == 0 {
			out = append(out, b.hash)
		}
	}
	return out
}

func (c *fakeChain) Block(hash chainhash.Hash) (*consensus.Block, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	b := c.blocks[hash]
	if b == nil || b.height < c.lowest {
		return nil, wallet.ErrNoBlock
	}
	return b.block, nil
}

func (c *fakeChain) MedianTime() int64 { return 1_900_000_000 }

func (c *fakeChain) Lowest() int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lowest
}

// A fakePool holds what it is given, and what is offered in place of others.
type fakePool struct {
	mu      sync.Mutex
	txs     []*wire.MsgTx // as they came; nil: gone
	fates   map[chainhash.Hash]wallet.Fate
	refuse  error
	changed chan struct{}
	offered int
	asked   func() // called by Submit before it answers; nil: nothing
	// looking and reviewed say how far Run is since the last change.
	looking, reviewed bool
}

func newFakePool() *fakePool {
	return &fakePool{fates: make(map[chainhash.Hash]wallet.Fate), changed: make(chan struct{})}
}

func (p *fakePool) add(tx *wire.MsgTx) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.txs = append(p.txs, tx)
	delete(p.fates, tx.TxHash())
	p.change()
}

// drop removes a transaction.
func (p *fakePool) drop(id chainhash.Hash, f wallet.Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, tx := range p.txs {
		if tx != nil && tx.TxHash() == id {
			p.txs[i] = nil
		}
	}
	p.fates[id] = f
	p.change()
}

// change tells of a change. Callers hold mu.
func (p *fakePool) change() {
	close(p.changed)
	p.changed = make(chan struct{})
	p.looking, p.reviewed = false, false
}

// seen says whether Run has begun to review what there is since the last change; it holds the wallet until it is done.
func (p *fakePool) seen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reviewed
}

func (p *fakePool) Newer(after uint64, most int) ([]*wire.MsgTx, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*wire.MsgTx
	for after < uint64(len(p.txs)) && len(out) < most {
		if tx := p.txs[after]; tx != nil {
			out = append(out, tx)
		}
		after++
	}
	return out, after
}

func (p *fakePool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looking = true
	return p.changed
}

func (p *fakePool) Have(id chainhash.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reviewed = p.looking
	for _, tx := range p.txs {
		if tx != nil && tx.TxHash() == id {
			return true
		}
	}
	return false
}

func (p *fakePool) Fate(id chainhash.Hash) (wallet.Fate, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.fates[id]
	return f, ok
}

func (p *fakePool) Family(chainhash.Hash) (int, int, int64) { return 1, 0, 1000 }

func (p *fakePool) Submit(_ context.Context, tx *wire.MsgTx) error {
	if p.asked != nil {
		p.asked()
	}
	p.mu.Lock()
	p.offered++
	err := p.refuse
	var replaced []chainhash.Hash
	for _, old := range p.txs {
		if old != nil && old.TxHash() != tx.TxHash() && spendsSame(old, tx) {
			replaced = append(replaced, old.TxHash())
		}
	}
	p.mu.Unlock()
	if err == nil && !p.Have(tx.TxHash()) {
		for _, id := range replaced {
			p.drop(id, wallet.Fate{Why: "replaced", By: tx.TxHash()})
		}
		p.add(tx)
	}
	return err
}

// spendsSame says whether two transactions spend an output both.
func spendsSame(a, b *wire.MsgTx) bool {
	return slices.ContainsFunc(a.TxIn, func(x *wire.TxIn) bool {
		return slices.ContainsFunc(b.TxIn, func(y *wire.TxIn) bool { return x.PreviousOutPoint == y.PreviousOutPoint })
	})
}

func (p *fakePool) Rate(int) int64 { return 2000 }
func (p *fakePool) MinRate() int64 { return 1000 }

// A bench is a wallet on a fake chain, and its owner.
type bench struct {
	t     *testing.T
	dir   string
	chain *fakeChain
	pool  *fakePool
	w     *wallet.Wallet
	stop  func()
}

const (
	someWords  = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
	passphrase = "correct horse battery"
)

// cheap makes passphrases cost little.
var cheap = keys.VaultOptions{KDF: keys.KDF{MemoryKiB: 64, Time: 1, Threads: 1}}

// newBench makes a bench without a wallet.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), chain: newFakeChain(), pool: newFakePool()}
	b.chain.fill(5)
	return b
}

// open opens the wallet and runs it.
func (b *bench) open() {
	b.t.Helper()
	w, err := wallet.New(wallet.Options{Dir: b.dir, Params: consensus.Regtest(), Chain: b.chain, Pool: b.pool, Vault: cheap})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	b.w, b.stop = w, func() {
		once.Do(func() {
			cancel()
			<-done
			if err := w.Close(); err != nil {
				b.t.Errorf("close: %v", err)
			}
		})
	}
	b.t.Cleanup(b.stop)
}

// create makes a wallet of words.
func (b *bench) create(restore bool) {
	b.t.Helper()
	words, err := keys.ParseWords(someWords)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.w.Create(wallet.NewWallet{Words: words, Passphrase: []byte(passphrase), Restore: restore}); err != nil {
		b.t.Fatal(err)
	}
}

// running is a bench whose wallet is there.
func running(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.open()
	b.create(false)
	return b
}

// until waits for a condition that what changes in the wallet makes true.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		changed := b.w.Changed()
		if ok() {
			return
		}
		tick := time.NewTimer(20 * time.Millisecond) // what changes elsewhere
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
			b.t.Fatalf("never: %s; %+v", what, b.w.Info())
		}
		tick.Stop()
	}
}

// settled waits until the wallet has seen the tip.
func (b *bench) settled() {
	b.t.Helper()
	b.until("the tip is followed", func() bool {
		_, height, _ := b.chain.Tip()
		i := b.w.Info()
		return i.Height == height && i.Scan.State == wallet.ScanIdle
	})
}

// receive hands out an address.
func (b *bench) receive(kind string) wallet.Address {
	b.t.Helper()
	a, err := b.w.NewAddress(kind, "", false)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// foreign is a payment by somebody else; the number makes it another one.
func foreign(script []byte, amount int64, n uint32) *wire.MsgTx {
	m := wire.NewMsgTx(2)
	in := wire.NewTxIn(&wire.OutPoint{Hash: chainhash.HashH(fmt.Append(nil, "foreign", n))}, nil, nil)
	in.Sequence = 0
	m.AddTxIn(in)
	m.AddTxOut(wire.NewTxOut(amount, script))
	return m
}

// payment returns a payment.
func (b *bench) payment(id chainhash.Hash) wallet.Payment {
	b.t.Helper()
	p, _, _, err := b.w.Payment(id)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// balance returns the balance of own coins.
func (b *bench) balance() wallet.Balance {
	b.t.Helper()
	own, _, err := b.w.Balance()
	if err != nil {
		b.t.Fatal(err)
	}
	return own
}
