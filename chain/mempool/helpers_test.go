package mempool_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/chaintest"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
)

// patience is how long a test waits for what must come: much longer than it takes, since
// the machine may have other work.
const patience = 2 * time.Minute

var run = chaintest.Run

// A clock is set by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A lab is a chain with a pool on top, a builder that makes blocks for both, and
// a key that owns every coinbase.
type lab struct {
	t     testing.TB
	b     *enginetest.Builder
	chain *chain.Chain
	pool  *mempool.Pool
	key   *enginetest.Key
	clock *clock
	fs    vfs.FS // of the chain, whose home is "home"
	tip   *consensus.Block
	mined []*consensus.Block // the active chain from height 1 on
}

// A coin is an output that the lab's key can spend.
type coin struct {
	op    wire.OutPoint
	value int64
}

// newLab opens a chain with ready spendable coinbases.
func newLab(t testing.TB, p *consensus.Params, ready int, change func(*mempool.Options)) *lab {
	t.Helper()
	l := &lab{t: t, b: enginetest.NewBuilder(p), key: enginetest.NewKey(1), clock: &clock{t: time.Unix(2_000_000_000, 0)}, fs: vfs.NewMem()}
	l.b.Engine = pow.New(p)
	home := chain.Options{
		Dir: "home", FS: l.fs, Params: p, Engine: l.b.Engine,
		Now: func() time.Time { return time.Unix(2_200_000_000, 0) },
	}
	c, err := chain.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	l.chain = c
	t.Cleanup(func() { // after Run: the last in is the first out
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		chaintest.Audit(t, home)
	})
	run(t, c.Run)
	l.tip = l.b.Genesis()
	l.fill(int(p.CoinbaseMaturity) + ready)
	o := mempool.Options{Chain: c, Now: l.clock.now}
	if change != nil {
		change(&o)
	}
	if l.pool, err = mempool.New(o); err != nil {
		t.Fatal(err)
	}
	l.pool.Cover(0) // that is left to chance
	return l
}

// running is newLab with the pool following the chain.
func running(t testing.TB, ready int, change func(*mempool.Options)) *lab {
	t.Helper()
	l := newLab(t, consensus.Regtest(), ready, change)
	run(t, l.pool.Run)
	return l
}

// fill mines n empty blocks.
func (l *lab) fill(n int) {
	l.t.Helper()
	tickets := make([]*chain.Ticket, n)
	for i := range tickets {
		l.tip = l.b.MineTemplate(l.tip, enginetest.Template{Script: l.key.Script()})
		l.mined = append(l.mined, l.tip)
		var err error
		if tickets[i], err = l.chain.Submit(l.t.Context(), l.tip.Raw, chain.Source{Kind: chain.FromSync}); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, k := range tickets {
		if v := k.Wait(l.t.Context()); v.Outcome != chain.Connected {
			l.t.Fatalf("block: outcome %d: %v", v.Outcome, v.Err)
		}
	}
}

// coinbase returns the output of the i-th block's coinbase.
func (l *lab) coinbase(i int) coin {
	tx := l.mined[i].Txs[0]
	return coin{wire.OutPoint{Hash: *tx.Hash()}, tx.MsgTx().TxOut[0].Value}
}

func coinsOf(tx *wire.MsgTx) []coin {
	id := tx.TxHash()
	out := make([]coin, len(tx.TxOut))
	for i, o := range tx.TxOut {
		out[i] = coin{wire.OutPoint{Hash: id, Index: uint32(i)}, o.Value}
	}
	return out
}

// draft makes an unsigned transaction that spends coins to outs equal outputs.
func (l *lab) draft(fee int64, outs int, coins ...coin) *wire.MsgTx {
	l.t.Helper()
	tx := wire.NewMsgTx(2)
	var in int64
	for _, c := range coins {
		tx.AddTxIn(wire.NewTxIn(&c.op, nil, nil))
		in += c.value
	}
	for range outs {
		tx.AddTxOut(wire.NewTxOut((in-fee)/int64(outs), l.key.Script()))
	}
	if outs > 0 {
		tx.TxOut[0].Value += (in - fee) % int64(outs)
	}
	return tx
}

// sign signs a draft that spends coins.
func (l *lab) sign(tx *wire.MsgTx, coins ...coin) *wire.MsgTx {
	spent := make([]consensus.Coin, len(coins))
	for i, c := range coins {
		spent[i] = consensus.Coin{Value: c.value, Script: l.key.Script()}
	}
	l.key.Sign(tx, spent)
	return tx
}

func (l *lab) pay(fee int64, outs int, coins ...coin) *wire.MsgTx {
	l.t.Helper()
	return l.sign(l.draft(fee, outs, coins...), coins...)
}

// submit submits as a peer.
func (l *lab) submit(tx *wire.MsgTx, peer string) ([]*wire.MsgTx, error) {
	return l.pool.Submit(l.t.Context(), tx, peer)
}

// want submits what must be accepted, and returns its coins.
func (l *lab) want(tx *wire.MsgTx) []coin {
	l.t.Helper()
	if _, err := l.submit(tx, "peer"); err != nil {
		l.t.Fatalf("submit %s: %v", tx.TxHash(), err)
	}
	return coinsOf(tx)
}

// wantRule submits what must be refused.
func (l *lab) wantRule(tx *wire.MsgTx, rule string, blame consensus.Blame) {
	l.t.Helper()
	_, err := l.submit(tx, "peer")
	r, ok := errors.AsType[*consensus.RuleError](err)
	if !ok || r.Rule != rule || r.Blame != blame {
		l.t.Fatalf("submit: %v, want rule %s with blame %d", err, rule, blame)
	}
}

const (
	sender = consensus.BlameSender
	nobody = consensus.BlameNobody
)

// on mines a block on parent and submits it.
func (l *lab) on(parent *consensus.Block, fees int64, txs ...*wire.MsgTx) *consensus.Block {
	l.t.Helper()
	b := l.b.MineTemplate(parent, enginetest.Template{Script: l.key.Script(), Txs: txs, Fees: fees})
	ticket, err := l.chain.Submit(l.t.Context(), b.Raw, chain.Source{Kind: chain.FromSync})
	if err != nil {
		l.t.Fatal(err)
	}
	if v := ticket.Wait(l.t.Context()); v.Outcome != chain.Connected && v.Outcome != chain.SideChain {
		l.t.Fatalf("block: outcome %d: %v", v.Outcome, v.Err)
	}
	return b
}

// mine makes a block the tip and waits for the pool.
func (l *lab) mine(txs ...*wire.MsgTx) *consensus.Block {
	l.t.Helper()
	l.tip = l.on(l.tip, 0, txs...)
	l.mined = append(l.mined, l.tip)
	l.follow(l.tip.Hash)
	return l.tip
}

// follow waits until the pool is on top of a block.
func (l *lab) follow(hash chainhash.Hash) {
	l.t.Helper()
	l.until(func() bool { return l.pool.Tip() == hash })
}

// until waits for a condition that changes with the pool.
func (l *lab) until(ok func() bool) {
	l.t.Helper()
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		changed := l.pool.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-t.C:
			l.t.Fatal("the pool does not get there")
		}
	}
}

// has says whether the pool holds all of txs.
func (l *lab) has(txs ...*wire.MsgTx) bool {
	for _, tx := range txs {
		if !l.pool.Have(tx.TxHash()) {
			return false
		}
	}
	return true
}

func (l *lab) verify() {
	l.t.Helper()
	if err := l.pool.Verify(); err != nil {
		l.t.Fatal(err)
	}
}

func pick[T any](r *rand.Rand, s []T) T { return s[r.IntN(len(s))] }
