package mempool_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// script builds a script from opcodes, and pushes of bytes.
func script(t testing.TB, parts ...any) []byte {
	t.Helper()
	b := txscript.NewScriptBuilder()
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b.AddOp(byte(p))
		case []byte:
			b.AddFullData(p)
		}
	}
	s, err := b.Script()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWitnessLimits: Bitcoin Core's limits on witnesses, each at the limit.
func TestWitnessLimits(t *testing.T) {
	t.Parallel()
	item := func(n int) []byte { return make([]byte, n) }
	items := func(n int) (w [][]byte) {
		for range n {
			w = append(w, []byte{})
		}
		return w
	}
	p2wsh := script(t, txscript.OP_0, item(32))
	p2tr := script(t, txscript.OP_1, item(32))
	p2sh := script(t, txscript.OP_HASH160, item(20), txscript.OP_EQUAL)
	tapscript, otherLeaf := item(33), item(33)
	tapscript[0], otherLeaf[0] = 0xc1, 0xc2
	annex := append([]byte{0x50}, item(9)...)
	for _, row := range []struct {
		name    string
		out     []byte
		sig     []byte
		witness wire.TxWitness
		want    bool
	}{
		{"none", p2sh, nil, nil, true},
		{"where none belongs", script(t, txscript.OP_HASH160, item(20), txscript.OP_EQUALVERIFY), nil, items(1), false},
		{"P2SH of no program", p2sh, script(t, item(5)), items(1), false},
		{"P2SH of nothing", p2sh, nil, items(1), false},
		{"P2SH of a program", p2sh, script(t, p2wsh), append(items(2), item(3600)), true},
		{"P2SH of a program, script too long", p2sh, script(t, p2wsh), append(items(2), item(3601)), false},
		{"script", p2wsh, nil, wire.TxWitness{item(3600)}, true},
		{"script too long", p2wsh, nil, wire.TxWitness{item(3601)}, false},
		{"items", p2wsh, nil, append(items(100), item(1)), true},
		{"too many items", p2wsh, nil, append(items(101), item(1)), false},
		{"item", p2wsh, nil, wire.TxWitness{item(80), item(1)}, true},
		{"item too long", p2wsh, nil, wire.TxWitness{item(81), item(1)}, false},
		{"key path", p2tr, nil, wire.TxWitness{item(65)}, true},
		{"annex", p2tr, nil, wire.TxWitness{item(65), annex}, false},
		{"tapscript", p2tr, nil, wire.TxWitness{item(80), item(9000), tapscript}, true},
		{"tapscript, item too long", p2tr, nil, wire.TxWitness{item(81), item(9000), tapscript}, false},
		{"another leaf version", p2tr, nil, wire.TxWitness{item(500), item(9000), otherLeaf}, true},
		{"no control block", p2tr, nil, wire.TxWitness{item(1), {}}, false},
		{"P2SH of taproot has no meaning", p2sh, script(t, p2tr), wire.TxWitness{item(500), item(9000), tapscript}, true},
		{"another version", script(t, txscript.OP_2, item(32)), nil, wire.TxWitness{item(500)}, true},
	} {
		in := &wire.TxIn{SignatureScript: row.sig, Witness: row.witness}
		if got := mempool.WitnessStandard(in, row.out); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
	// And it is asked: a witness on a P2SH input that has none.
	l := running(t, 1, nil)
	redeem := script(t, txscript.OP_TRUE)
	c := l.coinbase(0)
	funds := l.draft(1000, 1, c)
	funds.TxOut[0].PkScript = script(t, txscript.OP_HASH160, address.Hash160(redeem), txscript.OP_EQUAL)
	l.want(l.sign(funds, c))
	l.mine(funds)
	tx := l.draft(1000, 1, coinsOf(funds)...)
	tx.TxIn[0].SignatureScript = script(t, redeem)
	stuffed := tx.Copy()
	stuffed.TxIn[0].Witness = wire.TxWitness{bytes.Repeat([]byte{1}, 500)}
	l.wantRule(stuffed, "bad-witness-nonstandard", nobody)
	l.want(tx)
}

// TestSigOpsCostFees: who uses up a block's signature operations pays for them as
// for weight, to get in, to replace, and in the order of a template.
func TestSigOpsCostFees(t *testing.T) {
	t.Parallel()
	l := running(t, 4, nil)
	key := l.key.Script()[2:]
	multisig := script(t, txscript.OP_1, append([]byte{2}, append(key, make([]byte, 12)...)...), txscript.OP_1, txscript.OP_CHECKMULTISIG)
	// 40 bare multisig outputs: 20 signature operations each, of cost 4.
	make40 := func(fee int64, c coin) *wire.MsgTx {
		tx := l.draft(fee, 40, c)
		for _, out := range tx.TxOut {
			out.PkScript = multisig
		}
		return l.sign(tx, c)
	}
	tx := make40(10_000, l.coinbase(0))
	if size := (weight(tx) + 3) / 4; size > 2200 {
		t.Fatalf("%d virtual bytes", size)
	}
	l.wantRule(tx, "min-relay-fee-not-met", nobody) // enough for its bytes
	need := int64(20 * (40*20*4 + 1) / 4)
	l.wantRule(make40(need-1, l.coinbase(0)), "min-relay-fee-not-met", nobody)
	heavy := make40(need, l.coinbase(0))
	l.want(heavy)
	if e, _ := l.pool.Get(heavy.TxHash()); e.FeeWeight() != 4*need || e.Weight > 8800 {
		t.Errorf("fee weight %d, weight %d", e.FeeWeight(), e.Weight)
	}
	plain := l.pay(1000, 1, l.coinbase(1)) // pays less, and more for what it takes
	l.want(plain)
	l.verify()
	tip, _ := l.chain.Tip()
	entries, _ := l.pool.Snapshot(t.Context(), tip.Hash)
	tpl, err := mining.NewTemplate(l.chain, l.b.Engine, tip, mining.TemplateOptions{PayTo: l.key.Script(), Now: l.clock.now(), Entries: entries})
	if err != nil || len(tpl.Txs) != 3 || tpl.Txs[1].TxHash() != plain.TxHash() {
		t.Errorf("the template does not have the plain one first: %v", err)
	}
}

// TestTRUC: BIP431's rules on transactions of version 3.
func TestTRUC(t *testing.T) {
	t.Parallel()
	l := running(t, 8, nil)
	pay := func(version int32, fee int64, outs int, coins ...coin) *wire.MsgTx {
		tx := l.draft(fee, outs, coins...)
		tx.Version = version
		return l.sign(tx, coins...)
	}
	const rule = "truc-violation"
	parent := pay(3, 1000, 3, l.coinbase(0))
	outs := l.want(parent)
	l.wantRule(pay(2, 1000, 1, outs[0]), rule, nobody)
	plain := l.want(pay(2, 1000, 2, l.coinbase(1)))
	l.wantRule(pay(3, 1000, 1, plain[0]), rule, nobody)
	l.wantRule(pay(3, 20_000, 40, outs[0]), rule, nobody) // over 1000 virtual bytes
	child := pay(3, 1000, 1, outs[0])
	l.wantRule(pay(3, 5000, 1, l.want(child)[0]), rule, nobody) // a grandchild
	// One child: another one takes its place only if it pays for it.
	l.wantRule(pay(3, 900, 1, outs[1]), rule, nobody)
	l.wantConflict(pay(3, 1050, 1, outs[1]), "insufficient-fee", child)
	better := pay(3, 3000, 1, outs[1])
	l.want(better)
	if l.has(child) || !l.has(better, parent) {
		t.Error("the better child does not take the place of the other")
	}
	if f, ok := l.pool.Fate(child.TxHash()); !ok || f.Cause != mempool.Replaced || f.By != better.TxHash() || f.Via != [32]byte{} {
		t.Errorf("fate %+v", f)
	}
	l.wantConflict(pay(3, 3050, 1, outs[2]), "insufficient-fee", better)
	l.want(pay(3, 9000, 2, outs[1])) // by the same output
	// Once the parent is mined there is no limit but the size.
	l.mine(parent)
	l.want(pay(3, 20_000, 40, outs[2]))
	l.wantRule(pay(3, 200_000, 400, l.coinbase(2)), rule, nobody) // over 10,000
	// One child of two parents is one too many.
	a, b := l.want(pay(3, 1000, 1, l.coinbase(3))), l.want(pay(3, 1000, 1, l.coinbase(4)))
	l.wantRule(pay(3, 3000, 1, a[0], b[0]), rule, nobody)
	l.verify()
}

// TestFreeAndFew: an operator may ask for no fee, and keep no orphans; a
// replacement must pay all the same, and dust stays out.
func TestFreeAndFew(t *testing.T) {
	t.Parallel()
	l := running(t, 3, func(o *mempool.Options) { o.MinFeeRate, o.MaxOrphans = -1, -1 })
	if got := l.pool.MinFeeRate(); got != 0 {
		t.Errorf("fee rate %d", got)
	}
	l.want(l.pay(0, 1, l.coinbase(0)))
	l.wantRule(l.pay(50, 1, l.coinbase(0)), "insufficient-fee", nobody)
	dust := l.draft(1000, 2, l.coinbase(1))
	dust.TxOut[0].Value = 293
	l.wantRule(l.sign(dust, l.coinbase(1)), "non-standard", nobody)
	dust.TxOut[0].Value = 294
	l.want(l.sign(dust, l.coinbase(1)))
	l.wantRule(l.pay(1000, 1, coin{wire.OutPoint{Index: 7}, 50_000}), "missing-inputs", nobody)
	if n, _ := l.pool.Orphans(); n != 0 {
		t.Errorf("%d orphans", n)
	}
	l.verify()
}

// TestBIP54Ahead: a transaction that BIP54 will forbid is not relayed where it is
// not in force, and blames nobody there.
func TestBIP54Ahead(t *testing.T) {
	t.Parallel()
	l := running(t, 3, nil)
	// A redeem script of 15 CHECKSIGs in a branch that is not taken, 168 inputs.
	parts := []any{txscript.OP_0, txscript.OP_IF}
	for range 15 {
		parts = append(parts, txscript.OP_CHECKSIG)
	}
	redeem := script(t, append(parts, txscript.OP_ENDIF, txscript.OP_TRUE)...)
	p2sh := script(t, txscript.OP_HASH160, address.Hash160(redeem), txscript.OP_EQUAL)
	c := l.coinbase(0)
	funds := l.draft(10_000, 168, c)
	for _, out := range funds.TxOut {
		out.PkScript = p2sh
	}
	l.want(l.sign(funds, c))
	l.mine(funds)
	spend := func(n int) *wire.MsgTx {
		tx := l.draft(300_000, 1, coinsOf(funds)[:n]...)
		for _, in := range tx.TxIn {
			in.SignatureScript = script(t, redeem)
		}
		return tx
	}
	l.wantRule(spend(167), "bad-txns-legacy-sigops", nobody) // 2505
	l.want(spend(166))
	if consensus.Regtest().BIP54 {
		t.Error("regtest has BIP54: the test tests nothing")
	}
}

// TestStandardScriptPath: a transaction of a P2WSH output with a script of
// standard size gets in, so that the limits do not keep honest ones out.
func TestStandardScriptPath(t *testing.T) {
	t.Parallel()
	l := running(t, 1, nil)
	witness := script(t, bytes.Repeat([]byte{1}, 400), txscript.OP_DROP, txscript.OP_TRUE)
	sum := sha256.Sum256(witness)
	c := l.coinbase(0)
	funds := l.draft(1000, 1, c)
	funds.TxOut[0].PkScript = script(t, txscript.OP_0, sum[:])
	l.want(l.sign(funds, c))
	tx := l.draft(1000, 1, coinsOf(funds)...)
	tx.TxIn[0].Witness = wire.TxWitness{witness}
	l.want(tx)
}
