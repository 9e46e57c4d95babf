package chain_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// Once a checkpoint is known nothing may fork off before it: it could not get past
// that height, but until then it might have more work.
func TestForkBelowCheckpoint(t *testing.T) {
	b, blocks := grown(7)
	known := b.MineN(blocks[2], 3) // 3 to 5
	late := b.Mine(blocks[1])
	after := b.Mine(blocks[5])
	h := open(t, func(o *chain.Options) {
		o.Params.Checkpoints = map[int32]chainhash.Hash{5: blocks[5].Hash}
	})
	ctx := t.Context()
	if _, _, err := h.AcceptHeaders(ctx, headersOf(blocks[1:5])); err != nil {
		t.Fatal(err)
	}
	n, _, err := h.AcceptHeaders(ctx, headersOf(known)) // nobody knows better yet
	checkRule(t, err, "checkpoint-mismatch")
	if n != 2 {
		t.Errorf("%d headers up to the checkpoint, want 2", n)
	}
	if _, _, err := h.AcceptHeaders(ctx, headersOf(blocks[5:])); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, err = h.AcceptHeaders(ctx, headersOf([]*consensus.Block{late}))
		checkRule(t, err, "bad-fork-prior-to-checkpoint")
		_, _, err = h.CheckHeader(&late.Header)
		checkRule(t, err, "bad-fork-prior-to-checkpoint")
		h.wantRule(late, "bad-fork-prior-to-checkpoint")
		if _, ok := h.Status(late.Hash); ok {
			t.Error("the fork was kept")
		}
		for _, good := range [][]*consensus.Block{blocks[1:], known[:2], {after}} { // what is known stays
			if _, _, err := h.AcceptHeaders(ctx, headersOf(good)); err != nil {
				t.Error(err)
			}
		}
		h.reopen()
	}
	h.connectAll(blocks[1:])
	h.want(known[0], chain.SideChain)
	h.wantTip(blocks[7])
	h.wantCoins(b, blocks[7])
}

// A hundred thousand real headers through the tree: the work is the known one.
func TestMainnetHeaders(t *testing.T) {
	raw := enginetest.Data(t, "headers/mainnet-headers-0-99999.bin.zst")
	h := open(t, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
	var hs []consensus.Header
	for raw = raw[consensus.HeaderBytes:]; len(raw) > 0; raw = raw[consensus.HeaderBytes:] {
		header, err := consensus.DecodeHeader(h.o.Params, raw[:consensus.HeaderBytes])
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, header)
	}
	check := func() {
		t.Helper()
		if best, _ := h.BestHeader(); best.Height != 99_999 || best.Work.Text(16) != "64492eaf00f2520" {
			t.Errorf("height %d, work %x", best.Height, best.Work)
		}
	}
	if n, _, err := h.AcceptHeaders(t.Context(), hs); n != 99_999 || err != nil {
		t.Fatalf("%d headers: %v", n, err)
	}
	check()
	h.reopen()
	check()
}

// The chain leaves a branch of 2,016 blocks with real work, which crossed a change of
// difficulty, for the real one as soon as that has more, and ends as if it had never
// seen it. What it then knows by a checkpoint it would not follow a second time.
func TestTwoMainnets(t *testing.T) {
	data := enginetest.Data(t, "chain/mainnet-blocks-0-14131.dat.zst")
	alternative := enginetest.AlternativeMainnet(t)
	h := open(t, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
	h.connectAll(alternative)
	last := alternative[len(alternative)-1]
	h.wantTip(last)
	if _, err := h.Import(t.Context(), bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	if tip, _ := h.Tip(); tip.Hash != hashOf(t, mainnetTip) {
		t.Errorf("tip %v at height %d", tip.Hash, tip.Height)
	}
	// 2,015 blocks and one of four times their work: 2,019 blocks are as much, 2,020 more.
	if l := h.log.with("msg=reorg", "depth=2016", "fork=0", "old="+last.Hash.String()); len(l) != 1 {
		t.Errorf("reorg lines %q", l)
	}
	coins := h.coins()
	if len(coins) != mainnetCoins {
		t.Errorf("%d coins, want %d", len(coins), mainnetCoins)
	}

	fresh := open(t, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
	if _, err := fresh.Import(t.Context(), bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	fresh.wantRule(alternative[0], "bad-fork-prior-to-checkpoint")
	sameCoins(t, coins, fresh.coins())
}

// What the rules have let pass must balance all the same, or the chain stops: an
// output that is spent twice leaves the coins once, and nobody makes more than a
// subsidy.
func TestBalance(t *testing.T) {
	c, err := chain.Open(chain.Options{Dir: "home", FS: vfs.NewMem(), Params: consensus.Regtest(), Engine: pow.New(consensus.Regtest())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, blocks := grown(101)
	const height, subsidy, burnt, out = 102, 50e8, 25e8 - 5, 25e8 - 10
	spends := enginetest.Spend(blocks[1], 0, 0, enginetest.OpTrue(), []byte{txscript.OP_RETURN})
	spends.TxOut[0].Value, spends.TxOut[1].Value = out, burnt
	block := b.MineTemplate(blocks[101], enginetest.Template{Txs: []*wire.MsgTx{spends}, Fees: 50e8 - out - burnt})
	coin := consensus.Coin{Value: 50e8}
	spent := func(coins ...consensus.Coin) []consensus.SpentTx {
		return []consensus.SpentTx{{Tx: block.Txs[0].MsgTx()}, {Tx: spends, Coins: coins}}
	}
	good := int64(subsidy - burnt) // the coinbase claims the fees
	for name, tt := range map[string]struct {
		spent  []consensus.SpentTx
		change int64
		ok     bool
	}{
		"right":                    {spent(coin), good, true},
		"a satoshi from nowhere":   {spent(coin), good + 1, false},
		"a satoshi lost":           {spent(coin), good - 1, false},
		"the same coin twice":      {spent(coin, coin), good, false},
		"more than the subsidy":    {spent(), good + 50e8, false},
		"what was burnt is a coin": {spent(coin), good + burnt, false},
	} {
		err := chain.Balance(c, block, height, tt.spent, tt.change)
		var r *consensus.RuleError
		if (err == nil) != tt.ok || errors.As(err, &r) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// After 33 halvings of 50 coins there is nothing left to claim, and nothing can be.
func TestSubsidyEnds(t *testing.T) {
	p := consensus.Regtest()
	p.SubsidyHalvingInterval = 1
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 70) // past 64, where a shift would begin anew
	h := open(t, func(o *chain.Options) { o.Params = p })
	one, two := int64(1), int64(2)
	h.connectAll(blocks[:31])
	h.wantRule(b.MineTemplate(blocks[30], enginetest.Template{Value: &two}), "bad-cb-amount")
	h.connectAll(blocks[31:])
	h.wantRule(b.MineTemplate(blocks[69], enginetest.Template{Value: &one}), "bad-cb-amount")
	var sum int64
	for height := range int32(71) {
		sum += p.Subsidy(height)
	}
	var worth int64
	for _, c := range b.Coins(blocks[69].Hash) {
		worth += c.Value
	}
	if sum-p.Subsidy(0) != worth {
		t.Errorf("%d satoshi, want %d", worth, sum-p.Subsidy(0))
	}
	h.wantCoins(b, blocks[69])
}

// Fees of a block are money too: no more than there can ever be.
func TestFeesOutOfRange(t *testing.T) {
	p := consensus.Regtest()
	p.BaseSubsidy, p.SubsidyHalvingInterval = 21e14, math.MaxInt32
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 102)
	h := open(t, func(o *chain.Options) { o.Params = p })
	h.connectAll(blocks)
	tip := blocks[101]
	one := int64(1)
	all := []*wire.MsgTx{enginetest.Spend(blocks[0], 0, 21e14), enginetest.Spend(blocks[1], 0, 1)}
	h.wantRule(b.MineTemplate(tip, enginetest.Template{Txs: all, Value: &one}), "bad-txns-accumulated-fee-outofrange")
	all[1] = enginetest.Spend(blocks[1], 0, 0)
	h.want(b.MineTemplate(tip, enginetest.Template{Txs: all, Value: &one}), chain.Connected)
}

// The cost of signature operations is counted over the whole block, behind hashes
// too: in P2SH four times what it is in a witness. 80,000 is the most.
func TestSigOpCostOfABlock(t *testing.T) {
	// n operations of 20 keys each that are counted and never run.
	counted := func(op byte, n int) []byte {
		return append(append([]byte{txscript.OP_0, txscript.OP_IF}, bytes.Repeat([]byte{op}, n)...), txscript.OP_ENDIF, txscript.OP_TRUE)
	}
	many, few, one := counted(txscript.OP_CHECKMULTISIG, 199), counted(txscript.OP_CHECKMULTISIG, 5), counted(txscript.OP_CHECKSIG, 1)
	p2wsh := func(script []byte) []byte { return append([]byte{txscript.OP_0, 32}, chainhash.HashB(script)...) }
	p2sh := append(append([]byte{txscript.OP_HASH160, 20}, address.Hash160(few)...), txscript.OP_EQUAL)
	b, blocks := grown(101)
	locks := [][]byte{p2sh, p2wsh(one)}
	for range 20 {
		locks = append(locks, p2wsh(many))
	}
	fund := enginetest.Spend(blocks[1], 0, 0, locks...)
	tip := b.Mine(blocks[101], fund)
	spend := func(lock int) *wire.MsgTx {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: fund.TxHash(), Index: uint32(lock)}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(fund.TxOut[lock].Value, enginetest.OpTrue()))
		switch lock {
		case 0:
			tx.TxIn[0].SignatureScript = append([]byte{byte(len(few))}, few...)
		case 1:
			tx.TxIn[0].Witness = wire.TxWitness{one}
		default:
			tx.TxIn[0].Witness = wire.TxWitness{many}
		}
		return tx
	}
	var full []*wire.MsgTx // 20 of 3,980 and one of 4·100
	for lock := range locks {
		if lock != 1 {
			full = append(full, spend(lock))
		}
	}
	h := open(t, nil)
	h.connectAll(append(blocks[1:], tip))
	h.wantRule(b.Mine(tip, append(full, spend(1))...), "bad-blk-sigops")
	h.want(b.Mine(tip, full...), chain.Connected)
}

// Reconsidering a block pardons it, its ancestors and what builds on it. Another
// block that was invalidated by itself stays so, and so does what builds on that.
func TestReconsiderIsAsCore(t *testing.T) {
	b, blocks := grown(10)
	side := b.MineN(blocks[6], 6) // 7 to 12: the longest
	h := open(t, nil)
	h.connectAll(blocks[1:])
	for _, x := range side {
		h.submit(x.Raw)
	}
	h.wantTip(side[5])
	ctx := t.Context()
	for _, x := range []*consensus.Block{side[2], blocks[4]} {
		if err := h.Invalidate(ctx, x.Hash); err != nil {
			t.Fatal(err)
		}
	}
	h.wantTip(blocks[3])
	if err := h.Reconsider(ctx, blocks[9].Hash); err != nil {
		t.Fatal(err)
	}
	invalid := func() {
		t.Helper()
		for i, x := range side {
			if s, _ := h.Status(x.Hash); s.Invalid != (i >= 2) {
				t.Errorf("side block %d: invalid %t", i, s.Invalid)
			}
		}
	}
	for range 2 {
		h.wantTip(blocks[10])
		invalid()
		h.wantRule(side[2], "duplicate-invalid")
		h.wantRule(side[3], "bad-prevblk")
		h.reopen()
	}
	// What it was marked for is taken back from below too.
	if err := h.Reconsider(ctx, side[5].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(side[5])
	h.wantCoins(b, side[5])
}
