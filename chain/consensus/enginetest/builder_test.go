package enginetest_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// TestBuilderBranches: branches do not write over one another's past, whichever
// is extended first.
func TestBuilderBranches(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	e := pow.New(p)
	var wg sync.WaitGroup
	trunk := b.MineN(b.Genesis(), 20)
	for fork := range 4 {
		wg.Go(func() {
			parent := trunk[10+fork]
			for range 30 {
				child := b.Mine(parent)
				if err := e.CheckHeader(b.Past(parent.Hash), &child.Header, child.Header.Timestamp); err != nil {
					t.Error(err)
					return
				}
				parent = child
			}
			past := b.Past(parent.Hash)
			if past.Height() != int32(41+fork) || past.Hash() != parent.Hash {
				t.Errorf("branch %d ends at %d", fork, past.Height())
			}
			for h := range int32(12) {
				if got, want := past.At(h), b.Past(trunk[19].Hash).At(h); got != want {
					t.Errorf("branch %d, height %d: %v, trunk %v", fork, h, got, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestBuilderIsDeterministic(t *testing.T) {
	t.Parallel()
	build := func() []byte {
		b := enginetest.NewBuilder(consensus.Testnet())
		b.Engine = pow.New(b.Params)
		key := enginetest.NewKey(3)
		one := b.MineTemplate(b.Genesis(), enginetest.Template{Script: key.Script(), Data: "x"})
		tx := enginetest.Spend(one, 0, 100, key.Script(), enginetest.OpTrue())
		key.Sign(tx, b.Coins(one.Hash).Spent(tx))
		return b.MineTemplate(one, enginetest.Template{Txs: []*wire.MsgTx{tx}, Fees: 100}).Raw
	}
	if !bytes.Equal(build(), build()) {
		t.Error("the same calls make other blocks")
	}
}

// TestBuilderCoins: what the builder makes passes every check with its own coins.
func TestBuilderCoins(t *testing.T) {
	t.Parallel()
	for _, p := range []*consensus.Params{consensus.Regtest(), consensus.Simnet()} {
		b := enginetest.NewBuilder(p)
		b.Engine = pow.New(p)
		first := b.Mine(b.Genesis())
		tip := b.MineN(first, int(p.CoinbaseMaturity))[p.CoinbaseMaturity-1]
		tx := enginetest.Spend(first, 0, 7)
		block := b.MineTemplate(tip, enginetest.Template{Txs: []*wire.MsgTx{tx}, Fees: 7})
		coins, past := b.Coins(tip.Hash), b.Past(tip.Hash)
		if err := consensus.CheckBlockContextFree(p, block); err != nil {
			t.Error(err)
		}
		if err := consensus.CheckBlockContext(p, past, block); err != nil {
			t.Error(err)
		}
		spent := coins.Spent(tx)
		fee, err := consensus.CheckTxInputs(p, past, tx, spent)
		if err != nil || fee != 7 {
			t.Errorf("fee %d, %v", fee, err)
		}
		height := b.Height(block.Hash)
		if err := consensus.CheckTxScripts(tx, spent, consensus.ScriptFlags(p, past, block.Hash)); err != nil {
			t.Error(err)
		}
		if err := consensus.CheckCoinbaseValue(p, height, block.Txs[0].MsgTx(), fee); err != nil {
			t.Error(err)
		}
		after := b.Coins(block.Hash)
		if _, ok, _ := after.Coin(tx.TxIn[0].PreviousOutPoint); ok || len(after) != len(coins)+1 {
			t.Errorf("%d coins before, %d after", len(coins), len(after))
		}
	}
}
