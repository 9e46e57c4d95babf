package chain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// headersOf returns the headers of blocks.
func headersOf(blocks []*consensus.Block) []consensus.Header {
	hs := make([]consensus.Header, len(blocks))
	for i, b := range blocks {
		hs[i] = b.Header
	}
	return hs
}

func TestTieKeepsTheFirst(t *testing.T) {
	b, blocks := grown(3)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	rival := b.Mine(blocks[2])
	h.want(rival, chain.SideChain)
	h.wantTip(blocks[3])
	if l := h.log.with("level=INFO", "msg=fork", rival.Hash.String(), "fork=2", "active_height=3"); len(l) != 1 {
		t.Errorf("fork lines: %q", l)
	}
	tips := h.Tips()
	if len(tips) != 2 || tips[0].Status != "active" || tips[0].Tip.Hash != blocks[3].Hash ||
		tips[1].Status != "valid-headers" || tips[1].Tip.Hash != rival.Hash || tips[1].Branch != 1 {
		t.Errorf("tips %+v", tips)
	}
	for range 3 {
		h.reopen()
		h.wantTip(blocks[3])
	}

	child := b.Mine(rival)
	h.want(child, chain.Connected)
	h.wantTip(child)
	if l := h.log.with("level=WARN", "msg=reorg", "depth=1", "old="+blocks[3].Hash.String(), "new="+child.Hash.String(), "fork=2"); len(l) != 1 {
		t.Errorf("reorg lines: %q", l)
	}
	if tips := h.Tips(); tips[1].Status != "valid-fork" {
		t.Errorf("the old tip is %s", tips[1].Status)
	}
	h.reopen()
	h.wantTip(child)
}

// wantCoins closes the chain and compares its coins with those of the builder's
// model after tip.
func (h *home) wantCoins(b *enginetest.Builder, tip *consensus.Block) {
	h.t.Helper()
	sameCoins(h.t, h.coins(), modelCoins(b, tip))
}

func modelCoins(b *enginetest.Builder, tip *consensus.Block) map[wire.OutPoint]string {
	want := make(map[wire.OutPoint]string)
	for op, c := range b.Coins(tip.Hash) {
		if len(c.Script) == 0 || c.Script[0] != txscript.OP_RETURN {
			want[op] = coinString(c)
		}
	}
	return want
}

// spending returns n blocks on tip, each with a transaction that spends the
// coinbase of one of mature in turn and another that spends an output of that.
func spending(b *enginetest.Builder, tip *consensus.Block, mature []*consensus.Block, n int) []*consensus.Block {
	var out []*consensus.Block
	for i := range n {
		tx := enginetest.Spend(mature[i], 0, 1000, enginetest.OpTrue(), enginetest.OpTrue())
		again := wire.NewMsgTx(2)
		again.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: tx.TxHash(), Index: 1}, Sequence: wire.MaxTxInSequenceNum})
		again.AddTxOut(&wire.TxOut{Value: tx.TxOut[1].Value, PkScript: enginetest.OpTrue()})
		again.AddTxOut(&wire.TxOut{PkScript: []byte{txscript.OP_RETURN}})
		tip = b.MineTemplate(tip, enginetest.Template{Txs: []*wire.MsgTx{tx, again}, Fees: 1000})
		out = append(out, tip)
	}
	return out
}

// A deep reorganisation leaves the coins of the new branch, whether its blocks
// were connected before the last commit or after it.
func TestDeepReorg(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	old := spending(b, tip, base, 10)
	old = append(old, b.MineN(old[9], 20)...)
	first := b.Mine(tip)
	mature := slices.Clone(base[:9])
	slices.Reverse(mature) // the same coins in another order
	rival := append([]*consensus.Block{first}, spending(b, first, mature, 9)...)
	rival = append(rival, b.MineN(rival[9], 21)...)
	last := rival[len(rival)-1]

	for _, restart := range []bool{false, true} {
		for _, tipFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("restart=%v,tipFirst=%v", restart, tipFirst), func(t *testing.T) {
				h := open(t, func(o *chain.Options) { o.CacheBytes = 4 << 10 }) // coins come from the store
				h.connectAll(base)
				h.connectAll(old)
				if restart {
					h.reopen()
				}
				if _, _, err := h.AcceptHeaders(t.Context(), headersOf(rival)); err != nil {
					t.Fatal(err)
				}
				send := slices.Clone(rival)
				if tipFirst {
					slices.Reverse(send)
				}
				verdicts := h.submitAll(send)
				h.wantTip(last)
				for i, v := range verdicts[:len(verdicts)-1] {
					want := chain.SideChain
					if tipFirst {
						want = chain.Stored
					}
					if v.Outcome != want {
						t.Errorf("verdict %d: %+v, want %v", i, v, want)
					}
				}
				if v := verdicts[len(verdicts)-1]; v.Outcome != chain.Connected {
					t.Errorf("last verdict %+v", v)
				}
				if l := h.log.with("msg=reorg", "depth=30", "fork=111"); len(l) != 1 {
					t.Errorf("reorg lines: %q", l)
				}
				h.wantCoins(b, last)
			})
		}
	}
}

// When a block of the better branch proves invalid on the way, the old tip is
// restored before anything is published, and the block and what builds on it
// are marked.
func TestFailedReorgRestores(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	old := spending(b, tip, base, 5)
	good := spending(b, tip, base[5:], 4)
	failures := map[string]struct {
		tx   *wire.MsgTx
		rule string
	}{
		"missing input": {enginetest.Spend(base[5], 0, 0), "bad-txns-inputs-missingorspent"},
		"script":        {badScript(base[10]), "mandatory-script-verify-flag-failed"},
	}
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			bad := b.Mine(good[3], f.tx)
			above := b.MineN(bad, 5)
			rival := append(append(slices.Clone(good), bad), above...)
			h := open(t, nil)
			h.connectAll(base)
			h.connectAll(old)
			if _, _, err := h.AcceptHeaders(t.Context(), headersOf(rival)); err != nil {
				t.Fatal(err)
			}
			_, changed := h.Tip()
			// Tip first, so that the whole branch is there when its first block comes.
			for _, x := range slices.Backward(rival[1:]) {
				h.want(x, chain.Stored)
			}
			h.want(rival[0], chain.SideChain)
			select {
			case <-changed:
				t.Error("a tip was published")
			default:
			}
			h.wantTip(old[4])
			for i, x := range rival {
				if s, _ := h.Status(x.Hash); s.Invalid != (i >= 4) || s.Valid != (i < 4) {
					t.Errorf("block %d: %+v", i, s)
				}
			}
			if l := h.log.with("block refused", f.rule, bad.Hash.String()); len(l) != 1 {
				t.Errorf("refusals: %q", l)
			}
			if best, _ := h.BestHeader(); best.Hash != old[4].Hash {
				t.Errorf("best header %v", best.Hash)
			}
			h.wantRule(bad, "duplicate-invalid")
			h.wantRule(above[0], "bad-prevblk")
			h.wantRule(b.Mine(above[4]), "bad-prevblk")
			h.reopen()
			h.wantTip(old[4])
			h.wantRule(bad, "duplicate-invalid")
			next := b.Mine(old[4])
			h.want(next, chain.Connected)
			h.wantCoins(b, next)
		})
	}
}

// badScript spends the coinbase of from, which pays OP_TRUE, with an input script
// that fails.
func badScript(from *consensus.Block) *wire.MsgTx {
	tx := enginetest.Spend(from, 0, 0)
	tx.TxIn[0].SignatureScript = []byte{txscript.OP_1, txscript.OP_RETURN}
	return tx
}

// A branch with the same transactions as the one it replaces does not have their
// scripts run again, if this process has run them: here a lie of the mempool's about a
// script that fails shows what is run. What was only assumed valid, or was run
// before a restart, is run.
func TestReorgRemembersScripts(t *testing.T) {
	t.Parallel()
	b, blocks := grown(111)
	tx := badScript(blocks[1])
	old := b.Mine(blocks[111], tx)
	first := b.Mine(blocks[111])
	second := b.Mine(first, tx)
	third := b.Mine(second)
	for _, tt := range []struct {
		name             string
		assumed, restart bool
		want             chain.Outcome
	}{
		{name: "run", want: chain.Connected},
		{name: "run before a restart", restart: true, want: chain.Refused},
		{name: "assumed", assumed: true, want: chain.Refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := open(t, func(o *chain.Options) {
				if tt.assumed {
					o.AssumeValid = old.Hash
					return
				}
				o.ScriptsChecked = func(wtxid chainhash.Hash, _ uint32) bool { return wtxid == tx.WitnessHash() }
			})
			h.connectAll(blocks[1:])
			if tt.assumed {
				if _, _, err := h.AcceptHeaders(t.Context(), headersOf([]*consensus.Block{old})); err != nil {
					t.Fatal(err)
				}
			}
			if v := h.submitFrom(old.Raw, chain.Source{Kind: chain.FromGossip}); v.Outcome != chain.Connected {
				t.Fatalf("verdict %+v", v)
			}
			if tt.restart {
				h.reopen()
			}
			h.want(first, chain.SideChain)
			if tt.want == chain.Refused {
				h.submitAll([]*consensus.Block{second, third})
				h.rest()
				h.wantTip(old)
				return
			}
			h.want(second, chain.Connected)
			h.want(third, chain.Connected)
		})
	}
}

// The inputs of a transaction that has many are shared out, and one that fails is
// still found, wherever it is, with a verdict on its block.
func TestManyInputs(t *testing.T) {
	t.Parallel()
	const inputs = 150
	b, blocks := grown(111)
	scripts := make([][]byte, inputs)
	for i := range scripts {
		scripts[i] = enginetest.OpTrue()
	}
	many := func(bad int) (split, join *wire.MsgTx) {
		scripts := slices.Clone(scripts)
		if bad >= 0 {
			scripts[bad] = []byte{txscript.OP_FALSE}
		}
		split = enginetest.Spend(blocks[1], 0, 1000, scripts...)
		join = wire.NewMsgTx(2)
		for i := range scripts {
			join.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: split.TxHash(), Index: uint32(i)}, Sequence: wire.MaxTxInSequenceNum})
		}
		join.AddTxOut(&wire.TxOut{Value: 1, PkScript: enginetest.OpTrue()})
		return split, join
	}
	for _, bad := range []int{-1, 0, 31, 32, 128, inputs - 1} {
		h := open(t, nil)
		h.connectAll(blocks[1:])
		split, join := many(bad)
		next := b.Mine(blocks[111], split, join)
		if bad < 0 {
			h.want(next, chain.Connected)
			continue
		}
		v := h.want(next, chain.Refused)
		checkRule(t, v.Err, "mandatory-script-verify-flag-failed")
		if want := fmt.Sprintf("%v input %d:", join.TxHash(), bad); !strings.Contains(v.Err.Error(), want) {
			t.Errorf("fault %v, want one that names %q", v.Err, want)
		}
	}
}
