package chain_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// unproven returns b with a nonce that proves nothing.
func unproven(t testing.TB, p *consensus.Params, b *consensus.Block) *consensus.Block {
	t.Helper()
	h := b.Header
	for ; ; h.Nonce++ {
		hash := consensus.HeaderHash(&h)
		if blockchain.HashToBig(&hash).Cmp(blockchain.CompactToBig(h.Bits)) > 0 {
			break
		}
	}
	txs := make([]*wire.MsgTx, len(b.Txs))
	for i, tx := range b.Txs {
		txs[i] = tx.MsgTx()
	}
	out, err := consensus.NewBlock(p, h, txs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A proposal is held against every rule but the proof, and leaves nothing behind.
func TestTestBlock(t *testing.T) {
	b, blocks := grown(110)
	tip := blocks[110]
	h := open(t, nil)
	h.connectAll(blocks[1:])
	spend := enginetest.Spend(blocks[1], 0, 1000)
	child := spend.Copy()
	child.TxIn[0].PreviousOutPoint = wire.OutPoint{Hash: spend.TxHash()}
	child.TxOut[0].Value -= 1000
	good := b.MineTemplate(tip, enginetest.Template{Txs: []*wire.MsgTx{spend, child}, Fees: 2000})
	bad := enginetest.Spend(blocks[2], 0, 1000, []byte{0x00})
	wrong := bad.Copy()
	wrong.TxIn[0].PreviousOutPoint = wire.OutPoint{Hash: bad.TxHash()}
	for _, row := range []struct {
		name, rule string
		block      *consensus.Block
	}{
		{"good", "", good},
		{"empty", "", b.Mine(tip)},
		{"twice the same coin", "bad-txns-inputs-missingorspent", b.Mine(tip, spend, func() *wire.MsgTx {
			tx := spend.Copy()
			tx.TxOut[0].Value--
			return tx
		}())},
		{"a coin that is not", "bad-txns-inputs-missingorspent", b.Mine(tip, child)},
		{"immature", "bad-txns-premature-spend-of-coinbase", b.Mine(tip, enginetest.Spend(blocks[109], 0, 0))},
		{"too much money", "bad-cb-amount", b.MineTemplate(tip, enginetest.Template{Fees: 1})},
		{"a script that fails", "mandatory-script-verify-flag-failed", b.Mine(tip, bad, wrong)},
		{"merkle root", "bad-txnmrklroot", b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Header.MerkleRoot[0]++; u.KeepRoot = true }})},
		{"bits", "bad-diffbits", b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Header.Bits-- }})},
		{"old", "time-too-old", b.MineTemplate(tip, enginetest.Template{Time: blocks[100].Header.Timestamp})},
		{"new", "time-too-new", b.MineTemplate(tip, enginetest.Template{Time: far().Add(3 * time.Hour)})},
		{"version", "bad-version", b.MineTemplate(tip, enginetest.Template{Version: 1})},
		{"height in the coinbase", "bad-cb-height", b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].SignatureScript = []byte{1, 2, 3, 4} }})},
	} {
		for _, block := range []*consensus.Block{row.block, unproven(t, b.Params, row.block)} {
			switch err := h.TestBlock(t.Context(), block); {
			case row.rule == "" && err != nil:
				t.Errorf("%s: %v", row.name, err)
			case row.rule != "":
				if r, ok := errors.AsType[*consensus.RuleError](err); !ok || r.Rule != row.rule {
					t.Errorf("%s: %v, want %s", row.name, err, row.rule)
				}
			}
			if _, known := h.Status(block.Hash); known {
				t.Errorf("%s: its header is in the tree", row.name)
			}
		}
	}
	for name, block := range map[string]*consensus.Block{"a sibling of the tip": b.Mine(blocks[109]), "a grandchild": b.Mine(good)} {
		if err := h.TestBlock(t.Context(), block); !errors.Is(err, chain.ErrNotNext) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// What readers see, and what is committed, is as before.
	h.wantTip(tip)
	for op, want := range map[wire.OutPoint]bool{spend.TxIn[0].PreviousOutPoint: true, {Hash: spend.TxHash()}: false, {Hash: child.TxHash()}: false} {
		if _, ok, err := h.Coin(op); err != nil || ok != want {
			t.Errorf("coin %v: %v, %v", op, ok, err)
		}
	}
	h.wantRule(unproven(t, b.Params, good), "high-hash")
	h.want(good, chain.Connected)
	if err := h.TestBlock(t.Context(), good); !errors.Is(err, chain.ErrNotNext) {
		t.Errorf("a block that is the tip: %v", err)
	}
	h.wantCoins(b, good)
}

// Proposals come in among blocks and readers: neither is disturbed.
func TestTestBlockWhileBlocksCome(t *testing.T) {
	b, blocks := grown(111)
	more := spending(b, blocks[111], blocks[1:], 20)
	h := open(t, func(o *chain.Options) { o.FlushBytes = 1 })
	h.connectAll(blocks[1:])
	proposal := unproven(t, b.Params, b.Mine(blocks[111], enginetest.Spend(blocks[1], 0, 0)))
	coin := proposal.Txs[1].MsgTx().TxIn[0].PreviousOutPoint
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { // the coin is there until more spends it; the proposal's own never is
		defer close(done)
		for ctx.Err() == nil {
			if _, ok, err := h.Coin(wire.OutPoint{Hash: *proposal.Txs[1].Hash()}); ok || err != nil {
				t.Errorf("coin of a proposal: %v, %v", ok, err)
				return
			}
			if tip, _ := h.Tip(); tip.Hash == blocks[111].Hash {
				_, ok, err := h.Coin(coin)
				if now, _ := h.Tip(); now.Hash == tip.Hash && (!ok || err != nil) {
					t.Errorf("coin that a proposal spends: %v, %v", ok, err)
					return
				}
			}
		}
	}()
	for range 50 {
		if err := h.TestBlock(ctx, proposal); err != nil {
			t.Fatal(err)
		}
	}
	tested := make(chan error, 1)
	go func() {
		for {
			if err := h.TestBlock(ctx, proposal); err != nil {
				tested <- err
				return
			}
		}
	}()
	h.connectAll(more)
	if err := <-tested; !errors.Is(err, chain.ErrNotNext) {
		t.Error(err)
	}
	cancel()
	<-done
	h.wantCoins(b, more[19])
}

// Where the proof cannot be told from the rest of a header there is no answer.
func TestTestBlockNeedsAnEngineThatCan(t *testing.T) {
	b, blocks := grown(1)
	h := open(t, func(o *chain.Options) { o.Engine = struct{ consensus.Engine }{pow.New(b.Params)} })
	if err := h.TestBlock(t.Context(), blocks[1]); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
