package consensus_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// check is what a block meets on its way in, as far as this package goes.
func check(p *consensus.Params, past consensus.Past, raw []byte) error {
	b, err := consensus.DecodeBlock(p, raw)
	if err != nil {
		return err
	}
	if err := consensus.CheckBlockContextFree(p, b); err != nil {
		return err
	}
	return consensus.CheckBlockContext(p, past, b)
}

// chainOf is a short regtest chain whose last block has two spends, one of them
// with a witness.
func chainOf(p *consensus.Params) (*enginetest.Builder, *consensus.Block, *consensus.Block) {
	b := enginetest.NewBuilder(p)
	key := enginetest.NewKey(1)
	one := b.MineTemplate(b.Genesis(), enginetest.Template{Script: key.Script()})
	two := b.Mine(one)
	signed := enginetest.Spend(one, 0, 1000)
	key.Sign(signed, b.Coins(two.Hash).Spent(signed))
	return b, two, b.MineTemplate(two, enginetest.Template{
		Txs: []*wire.MsgTx{signed, enginetest.Spend(two, 0, 500)}, Fees: 1500,
	})
}

// TestMutatedBodies: whatever a sender does to a body, the header stays clean.
func TestMutatedBodies(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b, parent, good := chainOf(p)
	past := b.Past(parent.Hash)
	if err := check(p, past, good.Raw); err != nil {
		t.Fatal(err)
	}
	if len(good.Txs) != 3 {
		t.Fatalf("%d transactions", len(good.Txs))
	}
	for name, tt := range map[string]struct {
		change func(txs []*wire.MsgTx) []*wire.MsgTx
		want   string
	}{
		"duplicated last (CVE-2012-2459)": {func(txs []*wire.MsgTx) []*wire.MsgTx { return append(txs, txs[2]) }, "bad-txns-duplicate"},
		"dropped last":                    {func(txs []*wire.MsgTx) []*wire.MsgTx { return txs[:2] }, "bad-txnmrklroot"},
		"another order":                   {func(txs []*wire.MsgTx) []*wire.MsgTx { txs[1], txs[2] = txs[2], txs[1]; return txs }, "bad-txnmrklroot"},
		"stripped witness":                {func(txs []*wire.MsgTx) []*wire.MsgTx { txs[1].TxIn[0].Witness = nil; return txs }, "bad-witness-merkle-match"},
		"stripped all witnesses": {func(txs []*wire.MsgTx) []*wire.MsgTx {
			txs[0].TxIn[0].Witness, txs[1].TxIn[0].Witness = nil, nil
			return txs
		}, "bad-witness-nonce-size"},
		"changed witness": {func(txs []*wire.MsgTx) []*wire.MsgTx { txs[1].TxIn[0].Witness[0][9] ^= 1; return txs }, "bad-witness-merkle-match"},
		"changed nonce":   {func(txs []*wire.MsgTx) []*wire.MsgTx { txs[0].TxIn[0].Witness[0][0]++; return txs }, "bad-witness-merkle-match"},
		"long nonce": {func(txs []*wire.MsgTx) []*wire.MsgTx {
			txs[0].TxIn[0].Witness[0] = make([]byte, 33)
			return txs
		}, "bad-witness-nonce-size"},
		"added witness": {func(txs []*wire.MsgTx) []*wire.MsgTx {
			txs[2].TxIn[0].Witness = wire.TxWitness{{1}}
			return txs
		}, "bad-witness-merkle-match"},
	} {
		txs := make([]*wire.MsgTx, len(good.Txs))
		for i, tx := range good.Txs {
			txs[i] = tx.MsgTx().Copy()
		}
		bad, err := consensus.NewBlock(p, good.Header, tt.change(txs))
		if err != nil {
			t.Fatal(err)
		}
		err = check(p, past, bad.Raw)
		if rule(err) != tt.want || blame(err) != consensus.BlameSender {
			t.Errorf("%s: %v, want %s on the sender", name, err, tt.want)
		}
		if err := consensus.CheckCommitments(p, true, bad); rule(err) != tt.want || blame(err) != consensus.BlameSender {
			t.Errorf("%s, before relay: %v, want %s on the sender", name, err, tt.want)
		}
	}
}

// TestRealMutant: 587 transactions, odd on the first level.
func TestRealMutant(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	b, err := consensus.DecodeBlock(p, realBlock(t, "mainnet-363703"))
	if err != nil {
		t.Fatal(err)
	}
	txs := make([]*wire.MsgTx, len(b.Txs))
	for i, tx := range b.Txs {
		txs[i] = tx.MsgTx()
	}
	mutant, err := consensus.NewBlock(p, b.Header, slices.Concat(txs, txs[len(txs)-1:]))
	if err != nil {
		t.Fatal(err)
	}
	if err := consensus.CheckBlockContextFree(p, mutant); rule(err) != "bad-txns-duplicate" || blame(err) != consensus.BlameSender {
		t.Error(err)
	}
}

// TestHashesAsTransactions: the pairs of hashes one level above the transactions
// pass for transactions of 64 bytes under the same root.
func TestHashesAsTransactions(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	fake := wire.NewMsgTx(1)
	fake.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{1}}})
	fake.AddTxOut(&wire.TxOut{PkScript: make([]byte, 4)})
	for size, want := range map[int]consensus.Blame{4: consensus.BlameSender, 5: consensus.BlameBlock} {
		fake.TxOut[0].PkScript = make([]byte, size)
		h := consensus.Header{}
		h.MerkleRoot = consensus.MerkleRoot([]*wire.MsgTx{fake})
		b, err := consensus.NewBlock(p, h, []*wire.MsgTx{fake})
		if err != nil {
			t.Fatal(err)
		}
		if err := consensus.CheckBlockContextFree(p, b); rule(err) != "bad-cb-missing" || blame(err) != want {
			t.Errorf("%d bytes: %v, blames %d, want %d", fake.SerializeSize(), err, blame(err), want)
		}
	}
}

// TestBlockRules: rules on bodies, each broken by a block that is proven
// otherwise.
func TestBlockRules(t *testing.T) {
	t.Parallel()
	own, err := consensus.New(custom()) // as testnet, but proven with two hashes
	if err != nil {
		t.Fatal(err)
	}
	scriptOf := func(n int, op byte) []byte { return bytes.Repeat([]byte{op}, n) }
	coinbaseScript := func(script []byte) func(*enginetest.Unsealed) {
		return func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].SignatureScript = script }
	}
	for name, tt := range map[string]struct {
		change func(u *enginetest.Unsealed)
		want   string
		own    string // on our own networks; default want
	}{
		"nothing": {func(*enginetest.Unsealed) {}, "", ""},
		"no coinbase": {func(u *enginetest.Unsealed) {
			u.Txs[0].TxIn[0].PreviousOutPoint.Index = 0
		}, "bad-cb-missing", ""},
		"two coinbases": {func(u *enginetest.Unsealed) {
			second := u.Txs[0].Copy()
			second.Version++
			u.Txs = append(u.Txs, second)
		}, "bad-cb-multiple", ""},
		"no outputs":       {func(u *enginetest.Unsealed) { u.Txs[0].TxOut = nil }, "bad-txns-vout-empty", ""},
		"negative output":  {func(u *enginetest.Unsealed) { u.Txs[0].TxOut[0].Value = -1 }, "bad-txns-vout-negative", ""},
		"too large output": {func(u *enginetest.Unsealed) { u.Txs[0].TxOut[0].Value = 21e14 + 1 }, "bad-txns-vout-toolarge", ""},
		"largest output":   {func(u *enginetest.Unsealed) { u.Txs[0].TxOut[0].Value = 21e14 }, "", ""},
		"too large a total": {func(u *enginetest.Unsealed) {
			u.Txs[0].TxOut[0].Value = 21e14
			u.Txs[0].AddTxOut(&wire.TxOut{Value: 1})
		}, "bad-txns-txouttotal-toolarge", ""},
		"short coinbase":   {coinbaseScript([]byte{txscript.OP_1}), "bad-cb-length", ""},
		"longest coinbase": {coinbaseScript(append(consensus.HeightScript(1), make([]byte, 99)...)), "", ""},
		"long coinbase":    {coinbaseScript(append(consensus.HeightScript(1), make([]byte, 100)...)), "bad-cb-length", ""},
		"another height":   {coinbaseScript(append(consensus.HeightScript(2), 0)), "bad-cb-height", ""},
		"height not minimal": {
			coinbaseScript([]byte{1, 1, 0}), "bad-cb-height", "",
		},
		"null input": {func(u *enginetest.Unsealed) {
			tx := wire.NewMsgTx(2)
			tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32}})
			tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Index: 1}})
			tx.AddTxOut(&wire.TxOut{})
			u.Txs = append(u.Txs, tx)
		}, "bad-txns-prevout-null", ""},
		"duplicate inputs, few":  {duplicateInputs(3), "bad-txns-inputs-duplicate", ""},
		"duplicate inputs, many": {duplicateInputs(50), "bad-txns-inputs-duplicate", ""},
		"sigops at the limit":    {func(u *enginetest.Unsealed) { u.Txs[0].TxOut[0].PkScript = scriptOf(20_000, txscript.OP_CHECKSIG) }, "", ""},
		"one sigop more":         {func(u *enginetest.Unsealed) { u.Txs[0].TxOut[0].PkScript = scriptOf(20_001, txscript.OP_CHECKSIG) }, "bad-blk-sigops", ""},
		"1,000,000 bytes":        {fill(1_000_000), "", ""},
		"1,000,001 bytes":        {fill(1_000_001), "bad-blk-length", ""},
		"lock time not reached": {func(u *enginetest.Unsealed) {
			u.Txs[0].LockTime, u.Txs[0].TxIn[0].Sequence = 1, 0
		}, "bad-txns-nonfinal", ""},
		"lock time without effect": {func(u *enginetest.Unsealed) {
			u.Txs[0].LockTime, u.Txs[0].TxIn[0].Sequence = 1, math.MaxUint32
		}, "", "bad-cb-locktime"},
		"coinbase lock time":     {func(u *enginetest.Unsealed) { u.Txs[0].LockTime = 0 }, "", ""}, // height 1 wants 0
		"final coinbase":         {func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].Sequence = math.MaxUint32 }, "", "bad-cb-sequence"},
		"64-byte transaction":    {addTx(4), "", "bad-txns-size"},
		"65-byte transaction":    {addTx(5), "", ""},
		"witness, no commitment": {func(u *enginetest.Unsealed) { u.Txs[0].TxIn[0].Witness = wire.TxWitness{{1}}; u.NoCommitment = true }, "unexpected-witness", ""},
	} {
		for _, p := range []*consensus.Params{consensus.Regtest(), own} {
			b := enginetest.NewBuilder(p)
			want := tt.want
			if p.BIP54 && tt.own != "" {
				want = tt.own
			}
			block := b.MineTemplate(b.Genesis(), enginetest.Template{Change: tt.change})
			err := check(p, b.Past(p.GenesisHash), block.Raw)
			if rule(err) != want || (err == nil) != (want == "") {
				t.Errorf("%s on %s: %v, want %q", name, p.Name, err, want)
			}
			if err != nil && (blame(err) == consensus.BlameSender) != (want == "unexpected-witness") {
				t.Errorf("%s on %s: %v blames %d", name, p.Name, err, blame(err))
			}
		}
	}
}

func duplicateInputs(n int) func(*enginetest.Unsealed) {
	return func(u *enginetest.Unsealed) {
		tx := wire.NewMsgTx(2)
		for i := range n {
			tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{1}, Index: uint32(i)}})
		}
		tx.AddTxIn(tx.TxIn[n/2])
		tx.AddTxOut(&wire.TxOut{})
		u.Txs = append(u.Txs, tx)
	}
}

// fill makes the block that large, in bytes.
func fill(size int) func(*enginetest.Unsealed) {
	return func(u *enginetest.Unsealed) {
		out := &wire.TxOut{}
		u.Txs[0].AddTxOut(out)
		const longCount = 4 // a script length of five bytes instead of one
		out.PkScript = make([]byte, size-consensus.HeaderBytes-1-u.Txs[0].SerializeSize()-longCount)
	}
}

// addTx adds a transaction with an output script of n bytes: 60 and n in all.
func addTx(n int) func(*enginetest.Unsealed) {
	return func(u *enginetest.Unsealed) {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{1}}})
		tx.AddTxOut(&wire.TxOut{PkScript: make([]byte, n)})
		u.Txs = append(u.Txs, tx)
	}
}

// TestWeight: the witness makes the weight, at the limit and one over.
func TestWeight(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	for _, over := range []int{0, 1} {
		b := enginetest.NewBuilder(p)
		one := b.Mine(b.Genesis())
		tx := enginetest.Spend(one, 0, 0)
		tx.TxIn[0].Witness = wire.TxWitness{make([]byte, 3_000_000)}
		trial := b.Mine(one, tx)
		tx.TxIn[0].Witness[0] = make([]byte, 3_000_000+4_000_000-trial.Weight+over)
		if trial.Weight >= 4_000_000 {
			t.Fatal(trial.Weight)
		}
		// NewBlock refuses what is longer than any block, so the weight is over
		// its limit while the bytes are not.
		block := b.Mine(one, tx)
		err := check(p, b.Past(one.Hash), block.Raw)
		if want := []string{"", "bad-blk-weight"}[over]; block.Weight != 4_000_000+over || rule(err) != want || (err == nil) != (over == 0) {
			t.Errorf("weight %d: %v", block.Weight, err)
		}
	}
}

// TestLastCommitmentCounts: of several outputs in a commitment's form.
func TestLastCommitmentCounts(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	for _, wrongLast := range []bool{false, true} {
		b := enginetest.NewBuilder(p)
		block := b.MineTemplate(b.Genesis(), enginetest.Template{Change: func(u *enginetest.Unsealed) {
			u.NoCommitment = true
			var nonce [32]byte
			u.Txs[0].TxIn[0].Witness = wire.TxWitness{nonce[:]}
			right := &wire.TxOut{PkScript: consensus.WitnessCommitment(u.Txs, nonce)}
			wrong := &wire.TxOut{PkScript: bytes.Clone(right.PkScript)}
			wrong.PkScript[20] ^= 1
			if wrongLast {
				right, wrong = wrong, right
			}
			u.Txs[0].TxOut = append(u.Txs[0].TxOut, wrong, right)
		}})
		err := check(p, b.Past(p.GenesisHash), block.Raw)
		if (err != nil) != wrongLast || err != nil && rule(err) != "bad-witness-merkle-match" {
			t.Errorf("wrong one last %t: %v", wrongLast, err)
		}
	}
}

// TestMedianTimeLock: BIP113 compares lock times with the median time past, before
// it the block's own time counted.
func TestMedianTimeLock(t *testing.T) {
	t.Parallel()
	for csvHeight, want := range map[int32]string{1: "bad-txns-nonfinal", 100: ""} {
		p := consensus.Regtest()
		p.CSVHeight = csvHeight
		b := enginetest.NewBuilder(p)
		tip := b.MineN(b.Genesis(), 12)[11]
		block := b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) {
			u.Txs[0].LockTime = uint32(u.Header.Timestamp.Unix() - 1)
			u.Txs[0].TxIn[0].Sequence = 0
		}})
		if err := check(p, b.Past(tip.Hash), block.Raw); rule(err) != want || (err == nil) != (want == "") {
			t.Errorf("CSV from %d: %v, want %q", csvHeight, err, want)
		}
	}
}

// TestCommitmentBeforeSegwit: mainnet block 481,815 commits to witnesses, nine
// blocks before that counts.
func TestCommitmentBeforeSegwit(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	b, err := consensus.DecodeBlock(p, realBlock(t, "mainnet-481815"))
	if err != nil {
		t.Fatal(err)
	}
	if err := consensus.CheckCommitments(p, false, b); err != nil {
		t.Errorf("before activation: %v", err)
	}
	if err := consensus.CheckCommitments(p, true, b); rule(err) != "bad-witness-nonce-size" {
		t.Errorf("after activation: %v", err)
	}
}

func spendOf(version int32, sequences ...uint32) *wire.MsgTx {
	tx := wire.NewMsgTx(version)
	for i, s := range sequences {
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{1}, Index: uint32(i)}, Sequence: s})
	}
	tx.AddTxOut(&wire.TxOut{Value: 1000})
	return tx
}

func TestCheckTxInputs(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	past := &enginetest.FakePast{At0: 1000, Time: 2_000_000_000}
	for name, tt := range map[string]struct {
		coins []consensus.Coin
		fee   int64
		want  string
	}{
		"pays a fee":          {[]consensus.Coin{{Value: 600}, {Value: 700}}, 300, ""},
		"pays none":           {[]consensus.Coin{{Value: 1000}, {}}, 0, ""},
		"makes money":         {[]consensus.Coin{{Value: 999}, {}}, 0, "bad-txns-in-belowout"},
		"negative coin":       {[]consensus.Coin{{Value: 2000}, {Value: -1}}, 0, "bad-txns-inputvalues-outofrange"},
		"too large a coin":    {[]consensus.Coin{{Value: 21e14 + 1}, {}}, 0, "bad-txns-inputvalues-outofrange"},
		"too large a sum":     {[]consensus.Coin{{Value: 21e14}, {Value: 1}}, 0, "bad-txns-inputvalues-outofrange"},
		"mature coinbase":     {[]consensus.Coin{{Value: 1000, Coinbase: true, Height: 901}, {}}, 0, ""},
		"immature coinbase":   {[]consensus.Coin{{Value: 1000, Coinbase: true, Height: 902}, {}}, 0, "bad-txns-premature-spend-of-coinbase"},
		"no coin's too young": {[]consensus.Coin{{Value: 1000, Height: 1001}, {}}, 0, ""},
	} {
		fee, err := consensus.CheckTxInputs(p, past, spendOf(2, math.MaxUint32, math.MaxUint32), tt.coins)
		if rule(err) != tt.want || (err == nil) != (tt.want == "") || fee != tt.fee {
			t.Errorf("%s: fee %d, %v; want %d, %q", name, fee, err, tt.fee, tt.want)
		}
	}
	if _, err := consensus.CheckTxInputs(p, past, spendOf(2, 0, 0), make([]consensus.Coin, 1)); err == nil || rule(err) != "" {
		t.Errorf("too few coins: %v, want our own trouble", err)
	}
}

func TestSequenceLocks(t *testing.T) {
	t.Parallel()
	const (
		tip     = 1000
		now     = 2_000_000_000
		seconds = wire.SequenceLockTimeIsSeconds
		off     = wire.SequenceLockTimeDisabled
	)
	// The median time past of height h is the time of h-5: blocks are 600 s apart.
	past := &enginetest.FakePast{At0: tip, Time: now}
	for _, tt := range []struct {
		name     string
		version  int32
		sequence uint32
		height   int32
		met      bool
	}{
		{"one block, from the tip", 2, 1, tip, true},
		{"two blocks, from the tip", 2, 2, tip, false},
		{"same block, none wanted", 2, 0, tip + 1, true},
		{"same block, one wanted", 2, 1, tip + 1, false},
		{"65,535 blocks", 2, 0xffff, 1, false},
		{"disabled", 2, off | 0xffff, 1, true},
		{"version 1", 1, 0xffff, 1, true},
		{"negative version", -1, 0xffff, 1, false},
		{"bits without meaning", 2, 0x00300001, tip, true},
		// 512 s, counted from the median time before the coin's block.
		{"512 s, coin of the tip", 2, seconds | 1, tip, true},
		{"1024 s, coin of the tip", 2, seconds | 2, tip, false},
		{"512 s, coin of this block", 2, seconds | 1, tip + 1, false},
		{"0 s, coin of this block", 2, seconds, tip + 1, true},
		{"coin of genesis", 2, seconds | 100, 0, true},
	} {
		p := consensus.Regtest()
		_, err := consensus.CheckTxInputs(p, past, spendOf(tt.version, tt.sequence), []consensus.Coin{{Value: 2000, Height: tt.height}})
		if (err == nil) != tt.met || err != nil && rule(err) != "bad-txns-nonfinal" {
			t.Errorf("%s: %v, want met %t", tt.name, err, tt.met)
		}
		p.CSVHeight = tip + 2
		if _, err := consensus.CheckTxInputs(p, past, spendOf(tt.version, tt.sequence), []consensus.Coin{{Value: 2000, Height: tt.height}}); err != nil {
			t.Errorf("%s, before CSV: %v", tt.name, err)
		}
	}
}

func p2sh() []byte {
	return append(append([]byte{txscript.OP_HASH160, txscript.OP_DATA_20}, make([]byte, 20)...), txscript.OP_EQUAL)
}

func program(version byte, size int) []byte {
	return append([]byte{version, byte(size)}, make([]byte, size)...)
}

func push(data ...byte) []byte { return append([]byte{byte(len(data))}, data...) }

func TestSigOpCost(t *testing.T) {
	t.Parallel()
	const (
		bip16  = uint32(txscript.ScriptBip16)
		segwit = bip16 | uint32(txscript.ScriptVerifyWitness)
	)
	multisig2 := []byte{txscript.OP_2, txscript.OP_CHECKMULTISIG}
	for _, tt := range []struct {
		name            string
		sig, out, spent []byte
		witness         wire.TxWitness
		flags           uint32
		want            int
	}{
		{"none", nil, nil, nil, nil, segwit, 0},
		{"output CHECKSIG", nil, []byte{txscript.OP_CHECKSIG}, nil, nil, 0, 4},
		{"output CHECKMULTISIG counts 20", nil, multisig2, nil, nil, 0, 80},
		{"input CHECKSIG", []byte{txscript.OP_CHECKSIG}, nil, nil, nil, 0, 4},
		{"spent script counts when spent no more", nil, nil, []byte{txscript.OP_CHECKSIG}, nil, segwit, 0},
		{"P2SH counts exactly", push(multisig2...), nil, p2sh(), nil, bip16, 8},
		{"P2SH before BIP16", push(multisig2...), nil, p2sh(), nil, 0, 0},
		{"P2SH with an input that does more than push", append(push(multisig2...), txscript.OP_NOP), nil, p2sh(), nil, bip16, 0},
		{"P2WPKH", nil, nil, program(0, 20), nil, segwit, 1},
		{"P2WPKH before segwit", nil, nil, program(0, 20), nil, bip16, 0},
		{"P2WSH", nil, nil, program(0, 32), wire.TxWitness{{}, multisig2}, segwit, 2},
		{"P2WSH without witness", nil, nil, program(0, 32), nil, segwit, 0},
		{"P2WSH in P2SH", push(program(0, 32)...), nil, p2sh(), wire.TxWitness{multisig2}, segwit, 2},
		{"taproot", nil, nil, program(txscript.OP_1, 32), wire.TxWitness{multisig2}, segwit, 0},
	} {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Hash: chainhash.Hash{1}}, SignatureScript: tt.sig, Witness: tt.witness})
		tx.AddTxOut(&wire.TxOut{PkScript: tt.out})
		got, err := consensus.SigOpCost(tx, []consensus.Coin{{Script: tt.spent}}, tt.flags)
		if err != nil || got != tt.want {
			t.Errorf("%s: %d, %v; want %d", tt.name, got, err, tt.want)
		}
	}
	coinbase := consensus.Regtest().Genesis.Transactions[0]
	if got, err := consensus.SigOpCost(coinbase, nil, segwit); err != nil || got != 4 {
		t.Errorf("coinbase: %d, %v", got, err)
	}
	if _, err := consensus.SigOpCost(spendOf(2, 0), nil, segwit); err == nil || rule(err) != "" {
		t.Errorf("too few coins: %v, want our own trouble", err)
	}
}

// TestBIP54SigOps: 2500 in legacy scripts, over all inputs.
func TestBIP54SigOps(t *testing.T) {
	t.Parallel()
	checksigs := func(n int) []byte { return bytes.Repeat([]byte{txscript.OP_CHECKSIG}, n) }
	redeem := append([]byte{txscript.OP_PUSHDATA2, 0xf4, 0x01}, checksigs(500)...)
	past := &enginetest.FakePast{At0: 100, Time: 2_000_000_000}
	for n, want := range map[int]string{1000: "", 1001: "bad-txns-legacy-sigops"} {
		tx := spendOf(2, math.MaxUint32, math.MaxUint32, math.MaxUint32)
		tx.TxIn[0].SignatureScript = checksigs(1000)
		tx.TxIn[2].SignatureScript = redeem
		coins := []consensus.Coin{{Value: 1000}, {Script: checksigs(n)}, {Script: p2sh()}}
		if _, err := consensus.CheckTxInputs(consensus.Testnet(), past, tx, coins); rule(err) != want || (err == nil) != (want == "") {
			t.Errorf("%d: %v, want %q", 1500+n, err, want)
		}
		if _, err := consensus.CheckTxInputs(consensus.Regtest(), past, tx, coins); err != nil {
			t.Errorf("%d without BIP54: %v", 1500+n, err)
		}
	}
}

func TestCheckTxScripts(t *testing.T) {
	t.Parallel()
	key, other := enginetest.NewKey(1), enginetest.NewKey(2)
	tx := spendOf(2, 0, 0)
	coins := []consensus.Coin{{Value: 5, Script: key.Script()}, {Value: 6, Script: key.Script()}}
	key.Sign(tx, coins)
	flags := consensus.ScriptFlags(consensus.Regtest(), &enginetest.FakePast{}, chainhash.Hash{})
	if err := consensus.CheckTxScripts(tx, coins, flags); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string][]consensus.Coin{
		"another value": {coins[0], {Value: 7, Script: key.Script()}},
		"another key":   {coins[0], {Value: 6, Script: other.Script()}},
	} {
		err := consensus.CheckTxScripts(tx, bad, flags)
		if rule(err) != "mandatory-script-verify-flag-failed" || !strings.Contains(err.Error(), "input 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 1, 3} {
		if err := consensus.CheckTxScripts(tx, make([]consensus.Coin, n), flags); err == nil || rule(err) != "" {
			t.Errorf("%d coins: %v, want our own trouble", n, err)
		}
	}
}

func TestScriptFlags(t *testing.T) {
	t.Parallel()
	const (
		always = txscript.ScriptBip16 | txscript.ScriptVerifyWitness | txscript.ScriptVerifyTaproot
		der    = txscript.ScriptVerifyDERSignatures
		cltv   = txscript.ScriptVerifyCheckLockTimeVerify
		csv    = txscript.ScriptVerifyCheckSequenceVerify
		dummy  = txscript.ScriptStrictMultiSig
	)
	hash := func(s string) chainhash.Hash {
		h, err := chainhash.NewHashFromStr(s)
		if err != nil {
			t.Fatal(err)
		}
		return *h
	}
	for _, tt := range []struct {
		p       *consensus.Params
		height  int32
		hash    chainhash.Hash
		want    txscript.ScriptFlags
		version int32 // of all before
	}{
		{p: consensus.Bitcoin(), height: 1, want: always},
		{p: consensus.Bitcoin(), height: 170_060, hash: hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"), want: 0},
		{p: consensus.Bitcoin(), height: 170_060, want: always},
		{p: consensus.Bitcoin(), height: 363_724, want: always},
		{p: consensus.Bitcoin(), height: 363_725, want: always | der},
		{p: consensus.Bitcoin(), height: 388_381, want: always | der | cltv},
		{p: consensus.Bitcoin(), height: 419_328, want: always | der | cltv | csv},
		{p: consensus.Bitcoin(), height: 481_823, want: always | der | cltv | csv},
		{p: consensus.Bitcoin(), height: 481_824, want: always | der | cltv | csv | dummy},
		{
			p: consensus.Bitcoin(), height: 692_261, hash: hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
			want: txscript.ScriptBip16 | txscript.ScriptVerifyWitness | der | cltv | csv | dummy,
		},
		{p: consensus.Regtest(), height: 1, want: consensusFlags},
		{p: consensus.Testnet(), height: 1, want: consensusFlags},
		{p: consensus.Simnet(), height: 299, want: txscript.ScriptBip16 | der | cltv, version: 0x20000007},
		{p: consensus.Simnet(), height: 300, want: consensusFlags, version: 0x20000007},
		{p: consensus.Simnet(), height: 1000, want: txscript.ScriptBip16 | der | cltv, version: 0x20000000},
		{p: consensus.Simnet(), height: 300, want: txscript.ScriptBip16 | der | cltv | csv, version: 0x20000001},
		{p: consensus.Simnet(), height: 300, want: txscript.ScriptBip16 | txscript.ScriptVerifyTaproot | der | cltv, version: 0x2ffffffc},
	} {
		if got := consensus.ScriptFlags(tt.p, &enginetest.FakePast{At0: tt.height - 1, Version: tt.version}, tt.hash); got != uint32(tt.want) {
			t.Errorf("%s %d: %b, want %b", tt.p.Name, tt.height, got, tt.want)
		}
	}
}

func TestCheckBIP30(t *testing.T) {
	t.Parallel()
	repeat, err := chainhash.NewHashFromStr("00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		p      *consensus.Params
		height int32
		hash   chainhash.Hash
		want   bool
	}{
		{consensus.Bitcoin(), 1, chainhash.Hash{}, true},
		{consensus.Bitcoin(), 91_842, *repeat, false},
		{consensus.Bitcoin(), 91_842, chainhash.Hash{}, true},
		{consensus.Bitcoin(), 91_843, *repeat, true},
		{consensus.Bitcoin(), 227_931, chainhash.Hash{}, true},
		{consensus.Bitcoin(), 227_932, chainhash.Hash{}, false},
		{consensus.Bitcoin(), 1_983_701, chainhash.Hash{}, false},
		{consensus.Bitcoin(), 1_983_702, chainhash.Hash{}, true},
		{consensus.Regtest(), 1, chainhash.Hash{}, false},
		{consensus.Simnet(), 500_000, chainhash.Hash{}, false},
		{consensus.Testnet(), 500_000, chainhash.Hash{}, false},
	} {
		if got := consensus.CheckBIP30(tt.p, &enginetest.FakePast{At0: tt.height - 1}, tt.hash); got != tt.want {
			t.Errorf("%s %d: %t", tt.p.Name, tt.height, got)
		}
	}
}

func TestCheckCoinbaseValue(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	for fees, want := range map[int64]string{499: "bad-cb-amount", 500: "", 501: ""} {
		cb := wire.NewMsgTx(2)
		cb.AddTxOut(&wire.TxOut{Value: 25e8})
		cb.AddTxOut(&wire.TxOut{Value: 500})
		if err := consensus.CheckCoinbaseValue(p, 150, cb, fees); rule(err) != want || (err == nil) != (want == "") {
			t.Errorf("fees %d: %v", fees, err)
		}
	}
}

func TestCoinbaseData(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	one := b.MineTemplate(b.Genesis(), enginetest.Template{Data: "first"})
	signed := enginetest.Spend(one, 0, 0)
	signed.TxIn[0].Witness = wire.TxWitness{{1}}
	for want, block := range map[string]*consensus.Block{
		"":        b.Mine(b.Genesis()),
		"first":   one,
		"grüße":   b.MineTemplate(one, enginetest.Template{Data: "grüße", Txs: []*wire.MsgTx{signed}}),
		"a\uFFFD": b.MineTemplate(one, enginetest.Template{Data: "a\xff"}),
		"second": b.MineTemplate(one, enginetest.Template{Change: func(u *enginetest.Unsealed) {
			// A commitment before it does not hide it.
			u.Txs[0].AddTxOut(&wire.TxOut{PkScript: consensus.WitnessCommitment(u.Txs, [32]byte{})})
			u.Txs[0].AddTxOut(&wire.TxOut{PkScript: append([]byte{txscript.OP_RETURN}, push([]byte("second")...)...)})
		}}),
	} {
		if got := consensus.CoinbaseData(block); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHeightScript(t *testing.T) {
	t.Parallel()
	for _, h := range []int32{0, 1, 2, 15, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 65_535, 8_388_607, 8_388_608, math.MaxInt32} {
		want, err := txscript.NewScriptBuilder().AddInt64(int64(h)).Script()
		if err != nil {
			t.Fatal(err)
		}
		if got := consensus.HeightScript(h); !bytes.Equal(got, want) {
			t.Errorf("%d: %x, want %x", h, got, want)
		}
	}
}

func TestMedianTimePast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		times []int64
		want  int64
	}{
		{[]int64{5}, 5},
		{[]int64{5, 9}, 9}, // the upper of the middle two, as Bitcoin has it
		{[]int64{9, 5, 7}, 7},
		{[]int64{100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 6}, // only the last 11
		{[]int64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 6},
	} {
		c := new(enginetest.Chain)
		for _, s := range tt.times {
			h := consensus.Header{}
			h.Timestamp = time.Unix(s, 0)
			c.Append(&h)
		}
		if got := consensus.MedianTimePast(c); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.times, got, tt.want)
		}
	}
}

func TestIsFinal(t *testing.T) {
	t.Parallel()
	const threshold = txscript.LockTimeThreshold
	for _, tt := range []struct {
		lock, sequence uint32
		height         int32
		time           int64
		want           bool
	}{
		{0, 0, 1, 0, true},
		{99, 0, 100, 0, true},
		{100, 0, 100, 0, false},
		{100, math.MaxUint32, 100, 0, true},
		{threshold - 1, 0, math.MaxInt32, 0, true},
		{threshold, 0, math.MaxInt32, threshold, false},
		{threshold, 0, 1, threshold + 1, true},
		{math.MaxUint32, 0, 1, math.MaxUint32, false},
	} {
		tx := spendOf(2, math.MaxUint32, tt.sequence)
		tx.LockTime = tt.lock
		if got := consensus.IsFinal(tx, tt.height, tt.time); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

func TestRuleErrorText(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("header at height 7: %w", &consensus.RuleError{Rule: "high-hash", Blame: consensus.BlameBlock})
	var r *consensus.RuleError
	if !errors.As(err, &r) || err.Error() != "header at height 7: high-hash" {
		t.Error(err)
	}
	r.Detail = "x"
	if r.Error() != "high-hash: x" {
		t.Error(r)
	}
}
