package mempool_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// TestRandom does random things to a small pool and checks after each that every
// account is right, and that a template of what is in it could be connected.
// Blocks made of templates are connected for real.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			randomWalk(t, seed)
		})
	}
}

func randomWalk(t *testing.T, seed uint64) {
	t.Helper()
	const steps = 120
	r := rand.New(rand.NewPCG(seed, 1))
	l := running(t, 40, func(o *mempool.Options) {
		o.MaxBytes = 40_000 // some 25 entries
		o.MaxOrphans = 6
		o.Expiry = 24 * time.Hour
	})
	var coins []coin // whatever was ever made, spent or not
	for i := range 40 {
		coins = append(coins, l.coinbase(i))
	}
	var late []*wire.MsgTx // parents that their children came before
	done := make(map[string]int)
	for step := range steps {
		op := r.IntN(20)
		switch {
		case op < 9: // spend anything: a double spend, a chain, something mined
			in := []coin{pick(r, coins)}
			if c := pick(r, coins); r.IntN(4) == 0 && c.op != in[0].op {
				in = append(in, c)
			}
			tx := l.pay(int64(200+r.IntN(5000)), 1+r.IntN(3), in...)
			if _, err := l.submit(tx, fmt.Sprint("peer", r.IntN(3))); err == nil {
				done["accepted"]++
			} else {
				done["refused"]++
			}
			coins = append(coins, coinsOf(tx)...)
		case op < 11: // a child before its parent
			parent := l.pay(1000, 2, pick(r, coins))
			child := l.pay(1000, 1, coinsOf(parent)[0])
			_, _ = l.submit(child, "peer")
			late = append(late, parent)
			coins = append(coins, coinsOf(child)...)
		case op < 13 && len(late) > 0:
			i := r.IntN(len(late))
			_, _ = l.submit(late[i], "peer")
			coins = append(coins, coinsOf(late[i])...)
			late = append(late[:i], late[i+1:]...)
		case op < 15: // a block of the template
			txs, fees := template(l, r)
			l.tip = l.on(l.tip, fees, txs...)
			l.follow(l.tip.Hash)
			done["mined"] += len(txs)
		case op < 17: // a block of which some is from elsewhere
			txs, _ := template(l, r)
			if len(txs) > 3 {
				txs = txs[:3]
			}
			used := make(map[wire.OutPoint]bool)
			for _, tx := range txs {
				for _, in := range tx.TxIn {
					used[in.PreviousOutPoint] = true
				}
			}
			if c := l.coinbase(r.IntN(40)); !used[c.op] {
				if _, ok, err := l.chain.Coin(c.op); err == nil && ok {
					txs = append(txs, l.pay(500, 1, c))
				}
			}
			l.tip = l.on(l.tip, 0, txs...)
			l.follow(l.tip.Hash)
		case op < 19: // a reorganisation one or two blocks deep
			back := 1 + r.IntN(2)
			fork := l.ancestor(back)
			for range back + 1 {
				fork = l.on(fork, 0)
			}
			l.tip = fork
			l.follow(l.tip.Hash)
			done["reorgs"]++
		default:
			l.clock.add(time.Duration(r.IntN(12)) * time.Hour)
			l.pool.Sweep()
		}
		if err := l.pool.Verify(); err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, step, err)
		}
		checkTemplate(l, r)
	}
	if done["accepted"] < 5 || done["mined"] < 5 || done["reorgs"] < 1 {
		t.Errorf("seed %d did too little: %v", seed, done)
	}
}

// ancestor returns the block some heights below the tip.
func (l *lab) ancestor(back int) *consensus.Block {
	l.t.Helper()
	hash, ok := l.chain.Ancestor(l.tip.Hash, l.b.Height(l.tip.Hash)-int32(back))
	if !ok {
		l.t.Fatal("no ancestor")
	}
	raw, err := l.chain.Block(hash)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := consensus.DecodeBlock(l.chain.Params(), raw)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// template returns what a template has after its coinbase.
func template(l *lab, r *rand.Rand) (txs []*wire.MsgTx, fees int64) {
	l.t.Helper()
	tip, _ := l.chain.Tip()
	entries, ok := l.pool.Snapshot(l.t.Context(), tip.Hash)
	if !ok {
		l.t.Fatal("no snapshot")
	}
	tpl, err := mining.NewTemplate(l.chain, l.b.Engine, tip, mining.TemplateOptions{
		PayTo: enginetest.OpTrue(), Now: l.clock.now(), Entries: entries, ExtraNonce: r.Uint64(),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return tpl.Txs[1:], tpl.Fees
}

// checkTemplate checks that what a template has spends unspent coins, once, in
// order, at the fees it says.
func checkTemplate(l *lab, r *rand.Rand) {
	l.t.Helper()
	tip, _ := l.chain.Tip()
	past, ok := l.chain.Past(tip.Hash)
	if !ok {
		l.t.Fatal("no past")
	}
	txs, claimed := template(l, r)
	made := make(enginetest.CoinSet)
	var sum int64
	for _, tx := range txs {
		coins := make([]consensus.Coin, len(tx.TxIn))
		for i, in := range tx.TxIn {
			c, ok := made[in.PreviousOutPoint]
			if !ok {
				var err error
				if c, ok, err = l.chain.Coin(in.PreviousOutPoint); err != nil || !ok {
					l.t.Fatalf("%s spends %s, which is not there (%v)", tx.TxHash(), in.PreviousOutPoint, err)
				}
			}
			if c.Height < 0 {
				l.t.Fatalf("%s spends %s, which is spent in the same template", tx.TxHash(), in.PreviousOutPoint)
			}
			coins[i] = c
			made[in.PreviousOutPoint] = consensus.Coin{Height: -1}
		}
		fee, err := consensus.CheckTxInputs(l.chain.Params(), past, tx, coins)
		if err != nil {
			l.t.Fatal(err)
		}
		sum += fee
		for i, out := range tx.TxOut {
			made[wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}] = consensus.Coin{Value: out.Value, Script: out.PkScript, Height: tip.Height + 1}
		}
	}
	if sum != claimed {
		l.t.Fatalf("fees %d, the template says %d", sum, claimed)
	}
}
