package chain_test

import (
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// repeats is a chain as mainnet's in 2010: two blocks have the coinbase of an older
// one. Of the first of those nothing was spent, of the second one of three outputs
// that are alike.
type repeats struct {
	p      *consensus.Params
	b      *enginetest.Builder
	base   []*consensus.Block // up to the first repeat's parent
	branch []*consensus.Block // from the first repeat on; the fourth is the second
	early  [2]*consensus.Block
}

func newRepeats() *repeats {
	p := consensus.Regtest()
	p.BIP34Height = 100_000
	b := enginetest.NewBuilder(p)
	r := &repeats{p: p, b: b}
	again := func(parent, twin *consensus.Block) *consensus.Block {
		return b.MineTemplate(parent, enginetest.Template{Change: func(u *enginetest.Unsealed) {
			u.Txs[0] = twin.Txs[0].MsgTx().Copy()
		}})
	}
	third := b.MineN(b.Genesis(), 3)
	r.early[0] = third[2]
	r.early[1] = b.MineTemplate(third[2], enginetest.Template{Change: func(u *enginetest.Unsealed) {
		out := u.Txs[0].TxOut[0]
		out.Value /= 4
		u.Txs[0].TxOut = []*wire.TxOut{out, {PkScript: []byte{0x6a}}, out, out}
	}})
	r.base = append(third, r.early[1])
	r.base = append(r.base, b.MineN(r.early[1], 106)...)
	tip := r.base[len(r.base)-1]
	spends := enginetest.Spend(r.early[1], 0, 0)
	spends.TxIn[0].PreviousOutPoint.Index = 2
	r.base = append(r.base, b.Mine(tip, spends))
	first := again(r.base[len(r.base)-1], r.early[0])
	r.branch = append([]*consensus.Block{first}, b.MineN(first, 2)...)
	second := again(r.branch[2], r.early[1])
	r.branch = append(append(r.branch, second), b.MineN(second, 2)...)
	p.BIP30Repeats = map[int32]chainhash.Hash{
		b.Height(first.Hash):  first.Hash,
		b.Height(second.Hash): second.Hash,
	}
	return r
}

func (r *repeats) open(t *testing.T, change func(*chain.Options)) *home {
	t.Helper()
	return open(t, func(o *chain.Options) {
		o.Params = r.p
		if change != nil {
			change(o)
		}
	})
}

// A block that repeats a coinbase destroys the older coins, and taking it back, to
// whatever depth, brings exactly them back: with their height, and only those that
// were unspent.
func TestRepeatedCoinbase(t *testing.T) {
	r := newRepeats()
	fork := r.base[len(r.base)-1]
	for name, flush := range map[string]int{"commits far apart": 1000, "a commit a block": 1} {
		t.Run(name, func(t *testing.T) {
			h := r.open(t, func(o *chain.Options) { o.FlushBlocks = flush; o.FS = vfs.NewCrashableMem() })
			h.connectAll(r.base)
			h.connectAll(r.branch)
			rival := r.b.MineN(fork, 1)
			// The older coins are mature, the newer would not be.
			rival = append(rival, r.b.Mine(rival[0], enginetest.Spend(r.early[0], 0, 0)))
			rival = append(rival, r.b.MineN(rival[1], len(r.branch))...)
			for back := range len(r.branch) { // each depth on its own
				if err := h.Invalidate(t.Context(), r.branch[len(r.branch)-1-back].Hash); err != nil {
					t.Fatal(err)
				}
				tip := fork
				if n := len(r.branch) - 2 - back; n >= 0 {
					tip = r.branch[n]
				}
				h.wantTip(tip)
				h.wantView(r.b, tip)
				h.wantCoins(r.b, tip)
				verifies(t, h.o)
				h.start()
			}
			if err := h.Reconsider(t.Context(), r.branch[len(r.branch)-1].Hash); err != nil {
				t.Fatal(err)
			}
			h.wantTip(r.branch[len(r.branch)-1])
			h.connectAllButLast(rival)
			h.wantTip(rival[len(rival)-1])
			h.wantView(r.b, rival[len(rival)-1])
			h.wantCoins(r.b, rival[len(rival)-1])
			if v := verifies(t, h.o); v.Claimed != v.Supply {
				t.Errorf("%+v", v)
			}
		})
	}
}

// connectAllButLast submits a branch whose last block makes it the better one.
func (h *home) connectAllButLast(branch []*consensus.Block) {
	h.t.Helper()
	for i, v := range h.submitAll(branch) {
		if v.Outcome != chain.SideChain && v.Outcome != chain.Connected {
			h.t.Fatalf("block %d: %+v", i, v)
		}
	}
}

// wantView checks every coin of the model as readers see it.
func (h *home) wantView(b *enginetest.Builder, tip *consensus.Block) {
	h.t.Helper()
	for op, want := range modelCoins(b, tip) {
		got, ok, err := h.Coin(op)
		if err != nil || !ok || coinString(got) != want {
			h.t.Fatalf("coin %v: %v %v %v, want %s", op, coinString(got), ok, err, want)
		}
	}
}

// What fails on such a block leaves the older coins; another that repeats them and is
// not named is refused.
func TestRepeatedCoinbaseFails(t *testing.T) {
	for rule, spend := range map[string]func(r *repeats, fork *consensus.Block) *wire.MsgTx{
		"mandatory-script-verify-flag-failed":  func(r *repeats, _ *consensus.Block) *wire.MsgTx { return badScript(r.base[0]) },
		"bad-txns-premature-spend-of-coinbase": func(_ *repeats, fork *consensus.Block) *wire.MsgTx { return enginetest.Spend(fork, 0, 0) },
		"bad-txns-BIP30":                       nil, // not named
	} {
		t.Run(rule, func(t *testing.T) {
			r := newRepeats()
			fork := r.base[len(r.base)-1]
			template := enginetest.Template{
				Time:   fork.Header.Timestamp.Add(7e9),
				Change: func(u *enginetest.Unsealed) { u.Txs[0] = r.early[0].Txs[0].MsgTx().Copy() },
			}
			if spend != nil {
				template.Txs = []*wire.MsgTx{spend(r, fork)}
			}
			bad := r.b.MineTemplate(fork, template)
			delete(r.p.BIP30Repeats, r.b.Height(bad.Hash))
			if spend != nil {
				r.p.BIP30Repeats[r.b.Height(bad.Hash)] = bad.Hash
			}
			h := r.open(t, nil)
			h.connectAll(r.base)
			h.wantRule(bad, rule)
			h.wantView(r.b, fork)
			next := r.b.Mine(fork, enginetest.Spend(r.early[0], 0, 0))
			h.connectAll([]*consensus.Block{next})
			h.wantCoins(r.b, next)
		})
	}
}
