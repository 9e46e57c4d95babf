package consensus_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// A tap is a coin with one leaf, and a transaction that spends it.
type tap struct {
	key  *btcec.PrivateKey
	leaf txscript.TapLeaf
	coin consensus.Coin
	tx   *wire.MsgTx
}

func newTap(version byte, script []byte) *tap {
	t := &tap{leaf: txscript.NewTapLeaf(txscript.TapscriptLeafVersion(version), script), tx: spendOf(2, 0)}
	t.key, _ = btcec.PrivKeyFromBytes(chainhash.HashB([]byte("tap")))
	t.coin = consensus.Coin{Value: 1000, Script: append([]byte{txscript.OP_1, 32}, schnorr.SerializePubKey(t.output())...)}
	return t
}

func (t *tap) root() chainhash.Hash { return t.leaf.TapHash() }

func (t *tap) output() *btcec.PublicKey {
	root := t.root()
	return txscript.ComputeTaprootOutputKey(t.key.PubKey(), root[:])
}

// control is the leaf's control block: its version with the parity of the output
// key, the internal key, and a path, which is empty for the only leaf.
func (t *tap) control(path ...byte) []byte {
	first := byte(t.leaf.LeafVersion)
	if t.output().SerializeCompressed()[0] == 3 {
		first |= 1
	}
	return slices.Concat([]byte{first}, schnorr.SerializePubKey(t.key.PubKey()), path)
}

// sign signs with the output key by BIP341's text, committing to an annex if there
// is one. kind 0 is the default.
func (t *tap) sign(kind byte, annex []byte) []byte {
	h := txscript.NewTxSigHashes(t.tx, txscript.NewCannedPrevOutputFetcher(t.coin.Script, t.coin.Value))
	msg := []byte{0, kind}
	msg = binary.LittleEndian.AppendUint32(msg, uint32(t.tx.Version))
	msg = binary.LittleEndian.AppendUint32(msg, t.tx.LockTime)
	msg = slices.Concat(msg, h.HashPrevOutsV1[:], h.HashInputAmountsV1[:], h.HashInputScriptsV1[:], h.HashSequenceV1[:], h.HashOutputsV1[:])
	if annex == nil {
		msg = append(msg, 0, 0, 0, 0, 0)
	} else {
		sum := sha256.Sum256(append([]byte{byte(len(annex))}, annex...))
		msg = append(append(msg, 1, 0, 0, 0, 0), sum[:]...)
	}
	root := t.root()
	sig, err := schnorr.Sign(txscript.TweakTaprootPrivKey(*t.key, root[:]), chainhash.TaggedHash([]byte("TapSighash"), msg)[:])
	if err != nil {
		panic(err)
	}
	if kind != 0 {
		return append(sig.Serialize(), kind)
	}
	return sig.Serialize()
}

// check spends the coin with a witness under the rules of a block today.
func (t *tap) check(witness ...[]byte) error {
	return t.checkUnder(consensusFlags, witness...)
}

func (t *tap) checkUnder(flags txscript.ScriptFlags, witness ...[]byte) error {
	t.tx.TxIn[0].Witness = witness
	return consensus.CheckTxScripts(t.tx, []consensus.Coin{t.coin}, uint32(flags))
}

// TestTaprootRules: what BIP341 and BIP342 leave open for later stays open, and only
// that. (Rules of policy, which our mempool has, refuse most of it.)
func TestTaprootRules(t *testing.T) {
	t.Parallel()
	const (
		tapscript = 0xc0
		success   = 0x50 // OP_RESERVED, which is OP_SUCCESS80 here
	)
	key := newTap(tapscript, nil).key
	xonly := schnorr.SerializePubKey(key.PubKey())
	annex := []byte{0x50, 1, 2, 3}
	ok := []byte{txscript.OP_TRUE}
	checksig := func(key []byte) []byte {
		return slices.Concat([]byte{byte(len(key))}, key, []byte{txscript.OP_CHECKSIG})
	}
	script := func(version byte, script []byte, args ...[]byte) func() error {
		return func() error {
			x := newTap(version, script)
			return x.check(append(args, script, x.control())...)
		}
	}
	byKey := func(witness func(*tap) [][]byte) func() error {
		return func() error {
			x := newTap(tapscript, ok)
			return x.check(witness(x)...)
		}
	}
	// other spends an output script that is no taproot of ours.
	other := func(lock, sigScript []byte, witness ...[]byte) func() error {
		return func() error {
			x := newTap(tapscript, ok)
			x.coin.Script, x.tx.TxIn[0].SignatureScript = lock, sigScript
			return x.check(witness...)
		}
	}
	// Each signature costs 50 of a budget of 50 and the size of the witness, and
	// checking it again takes 35 bytes of script.
	again := slices.Concat([]byte{txscript.OP_DUP, 32}, xonly, []byte{txscript.OP_CHECKSIGVERIFY})
	signedAgain := func(n int) func() error {
		return func() error {
			x := newTap(tapscript, slices.Concat(bytes.Repeat(again, n), []byte{txscript.OP_DROP, txscript.OP_TRUE}))
			h := txscript.NewTxSigHashes(x.tx, txscript.NewCannedPrevOutputFetcher(x.coin.Script, x.coin.Value))
			sig, err := txscript.RawTxInTapscriptSignature(x.tx, h, 0, x.coin.Value, x.coin.Script, x.leaf, txscript.SigHashDefault, key)
			if err != nil {
				panic(err)
			}
			return x.check(sig, x.leaf.Script, x.control())
		}
	}
	program1 := newTap(tapscript, ok).coin.Script
	wrapped := slices.Concat([]byte{txscript.OP_HASH160, 20}, address.Hash160(program1), []byte{txscript.OP_EQUAL})
	large := make([]byte, 521)

	for _, tt := range []struct {
		name  string
		check func() error
		valid bool
	}{
		{"key", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(0, nil)} }), true},
		{"key, hash type in a byte of its own", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(1, nil)} }), true},
		{"key, the default's type written out", byKey(func(x *tap) [][]byte { return [][]byte{append(x.sign(0, nil), 0)} }), false},
		{"key, an unknown hash type", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(4, nil)} }), false},
		{"key, an empty witness", byKey(func(*tap) [][]byte { return nil }), false},
		{"key, an empty signature", byKey(func(*tap) [][]byte { return [][]byte{nil} }), false},
		{"annex that is signed", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(0, annex), annex} }), true},
		{"annex that is not signed", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(0, nil), annex} }), false},
		{"annex signed and missing", byKey(func(x *tap) [][]byte { return [][]byte{x.sign(0, annex)} }), false},
		{"annex alone is a signature", byKey(func(*tap) [][]byte { return [][]byte{annex} }), false},
		{"annex beside a script", func() error {
			x := newTap(tapscript, ok)
			return x.check(ok, x.control(), annex)
		}, true},

		{"script", script(tapscript, ok), true},
		{"script that leaves more than one item", script(tapscript, []byte{txscript.OP_TRUE, txscript.OP_TRUE}), false},
		{"script that leaves false", script(tapscript, []byte{txscript.OP_FALSE}), false},
		{"another script", func() error {
			x := newTap(tapscript, ok)
			return x.check([]byte{txscript.OP_2}, x.control())
		}, false},
		{"another parity", func() error {
			x := newTap(tapscript, ok)
			c := x.control()
			c[0] ^= 1
			return x.check(ok, c)
		}, false},
		{"control block that is cut", func() error {
			x := newTap(tapscript, ok)
			return x.check(ok, x.control()[:32])
		}, false},
		{"control block with half a step", func() error {
			x := newTap(tapscript, ok)
			return x.check(ok, x.control(make([]byte, 16)...))
		}, false},
		{"control block of 129 steps", func() error {
			x := newTap(tapscript, ok)
			return x.check(ok, x.control(make([]byte, 129*32)...))
		}, false},

		{"unknown leaf version", script(0xc2, []byte{txscript.OP_RETURN}), true},
		{"unknown leaf version, no script at all", script(0xc2, []byte{txscript.OP_DATA_75}), true},
		{"OP_SUCCESS", script(tapscript, []byte{success}), true},
		{"OP_SUCCESS after OP_RETURN", script(tapscript, []byte{txscript.OP_RETURN, 0xfe}), true},
		{"OP_SUCCESS in a branch not taken", script(tapscript, []byte{txscript.OP_FALSE, txscript.OP_IF, success, txscript.OP_ENDIF, txscript.OP_FALSE}), true},
		{"OP_SUCCESS before what does not parse", script(tapscript, []byte{success, txscript.OP_DATA_75}), true},
		{"OP_SUCCESS after what does not parse", script(tapscript, []byte{txscript.OP_DATA_75, success}), false},
		{"OP_SUCCESS in a push", script(tapscript, []byte{1, success, txscript.OP_DROP, txscript.OP_FALSE}), false},
		{"OP_SUCCESS and an item too large", script(tapscript, []byte{success}, large), true},
		{"0xff, which is none", script(tapscript, []byte{0xff}), false},

		{"key of an unknown kind", script(tapscript, checksig(xonly[:31]), []byte{1}), true},
		{"key of an unknown kind, no signature", script(tapscript, checksig(xonly[:31]), nil), false},
		{"empty key", script(tapscript, []byte{txscript.OP_0, txscript.OP_CHECKSIG}, []byte{1}), false},
		{"a wrong signature", script(tapscript, checksig(xonly), make([]byte, 64)), false},
		{"CHECKMULTISIG", script(tapscript, []byte{txscript.OP_0, txscript.OP_0, txscript.OP_0, txscript.OP_CHECKMULTISIG}), false},
		{"IF with 1", script(tapscript, []byte{txscript.OP_IF, txscript.OP_TRUE, txscript.OP_ENDIF}, []byte{1}), true},
		{"IF with 2", script(tapscript, []byte{txscript.OP_IF, txscript.OP_TRUE, txscript.OP_ENDIF}, []byte{2}), false},
		{"more than 10,000 bytes and 201 operations", script(tapscript, append(bytes.Repeat([]byte{txscript.OP_NOP}, 10_001), txscript.OP_TRUE)), true},
		{"an item of 520 bytes", script(tapscript, []byte{txscript.OP_DROP, txscript.OP_TRUE}, large[:520]), true},
		{"an item of 521 bytes", script(tapscript, []byte{txscript.OP_DROP, txscript.OP_TRUE}, large), false},
		{"1,000 items", script(tapscript, bytes.Repeat([]byte{txscript.OP_DROP}, 999), append(make([][]byte, 0, 1000), append(slices.Repeat([][]byte{{1}}, 1), slices.Repeat([][]byte{{}}, 999)...)...)...), true},
		{"1,001 items", script(tapscript, bytes.Repeat([]byte{txscript.OP_DROP}, 1000), slices.Repeat([][]byte{{1}}, 1001)...), false},
		{"signatures within the budget", signedAgain(10), true},
		{"a signature over the budget", signedAgain(11), false},

		{"wrapped in P2SH it is open to anybody", other(wrapped, append([]byte{34}, program1...)), true},
		{"wrapped in P2SH with a witness", other(wrapped, append([]byte{34}, program1...), large), true},
		{"wrapped, pushed in another way", other(wrapped, append([]byte{txscript.OP_PUSHDATA1, 34}, program1...)), false},
		{"version 1 of 31 bytes", other(append([]byte{txscript.OP_1, 31}, xonly[:31]...), nil), true},
		{"version 1 of 31 bytes with a witness", other(append([]byte{txscript.OP_1, 31}, xonly[:31]...), nil, large, annex), true},
		{"version 16", other(append([]byte{txscript.OP_16, 32}, xonly...), nil, large), true},
		{"version 16 with an input script", other(append([]byte{txscript.OP_16, 32}, xonly...), ok), false},
		{"version 16 of zeros, which are false", other(append([]byte{txscript.OP_16, 32}, make([]byte, 32)...), nil), false},
		{"version 0 of 31 bytes", other(append([]byte{txscript.OP_0, 31}, xonly[:31]...), nil), false},
		{"version 1 of 41 bytes is no program", other(append([]byte{txscript.OP_1, 41}, make([]byte, 41)...), nil, ok), false},
		{"a witness where none belongs", other(ok, nil, ok), false},
	} {
		if err := tt.check(); (err == nil) != tt.valid || err != nil && rule(err) != "mandatory-script-verify-flag-failed" {
			t.Errorf("%s: %v, want it valid %t", tt.name, err, tt.valid)
		}
	}
	// In the one block of mainnet that is exempt, and before the vote on simnet.
	if err := newTap(tapscript, ok).checkUnder(consensusFlags&^txscript.ScriptVerifyTaproot, []byte{1}); err != nil {
		t.Errorf("before taproot: %v", err)
	}
}

// TestScriptSizes: the limits of scripts from before tapscript, at the limit and one
// over.
func TestScriptSizes(t *testing.T) {
	t.Parallel()
	pad := func(n int) []byte { // that many bytes, which leave true
		script := []byte{txscript.OP_TRUE}
		for len(script)+524 <= n { // 520 pushed and dropped
			script = slices.Concat(script, []byte{txscript.OP_PUSHDATA2, 0x08, 0x02}, make([]byte, 520), []byte{txscript.OP_DROP})
		}
		if rest := n - len(script); rest > 3 {
			script = slices.Concat(script, []byte{txscript.OP_PUSHDATA2}, binary.LittleEndian.AppendUint16(nil, uint16(rest-4)), make([]byte, rest-4), []byte{txscript.OP_DROP})
		}
		return script
	}
	push := func(n int) []byte {
		return slices.Concat([]byte{txscript.OP_PUSHDATA2}, binary.LittleEndian.AppendUint16(nil, uint16(n)), bytes.Repeat([]byte{1}, n))
	}
	nops := func(n int) []byte { return append(bytes.Repeat([]byte{txscript.OP_NOP}, n), txscript.OP_TRUE) }
	ones := func(n int) []byte { return bytes.Repeat([]byte{txscript.OP_TRUE}, n) }
	for name, tt := range map[string]struct {
		good, bad []byte
	}{
		"10,000 bytes":   {pad(10_000), pad(10_001)},
		"520 bytes":      {push(520), push(521)},
		"201 operations": {nops(201), nops(202)},
		"1,000 items":    {ones(1000), ones(1001)},
	} {
		for i, script := range [][]byte{tt.good, tt.bad} {
			valid := i == 0
			bare := newTap(0xc0, nil)
			bare.coin.Script = script
			if err := bare.check(); (err == nil) != valid {
				t.Errorf("%s, bare, %d bytes: %v, want it valid %t", name, len(script), err, valid)
			}
			if name == "1,000 items" {
				continue // in a witness one must be left, which takes more operations than there may be
			}
			segwit := newTap(0xc0, nil)
			sum := sha256.Sum256(script)
			segwit.coin.Script = append([]byte{txscript.OP_0, 32}, sum[:]...)
			if err := segwit.check(script); (err == nil) != valid {
				t.Errorf("%s, witness, %d bytes: %v, want it valid %t", name, len(script), err, valid)
			}
		}
	}
}

// TestBIP341Wallet runs the BIP's vectors: output keys and control blocks of trees,
// and a signed transaction whose every input has another hash type, through our own
// hashes.
func TestBIP341Wallet(t *testing.T) {
	t.Parallel()
	var file struct {
		ScriptPubKey []struct {
			Given struct {
				InternalPubkey string
				ScriptTree     json.RawMessage
			}
			Intermediary struct{ MerkleRoot *string }
			Expected     struct {
				ScriptPubKey            string
				BIP350Address           string
				ScriptPathControlBlocks []string
			}
		}
		KeyPathSpending []struct {
			Given struct {
				UTXOsSpent []struct {
					ScriptPubKey string
					AmountSats   int64
				}
			}
			Auxiliary struct{ FullySignedTx string }
		}
	}
	if err := json.Unmarshal(enginetest.Data(t, "core/bip341_wallet_vectors.json"), &file); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(enginetest.Data(t, "core/bip341_wallet_vectors.json"), enginetest.Data(t, "bips/bip-0341_wallet-test-vectors.json")) {
		t.Error("the BIP's file differs from Core's")
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, v := range file.ScriptPubKey {
		key, err := schnorr.ParsePubKey(unhex(v.Given.InternalPubkey))
		if err != nil {
			t.Fatal(err)
		}
		var root []byte
		if r := v.Intermediary.MerkleRoot; r != nil {
			root = unhex(*r)
		}
		output := schnorr.SerializePubKey(txscript.ComputeTaprootOutputKey(key, root))
		if got := hex.EncodeToString(append([]byte{txscript.OP_1, 32}, output...)); got != v.Expected.ScriptPubKey {
			t.Errorf("output %d: %s, want %s", i, got, v.Expected.ScriptPubKey)
		}
		// A control block proves its leaf to the interpreter, whatever the leaf does.
		var leaves []struct {
			Script      string
			LeafVersion byte
		}
		var walk func(json.RawMessage)
		walk = func(raw json.RawMessage) {
			var branch []json.RawMessage
			if json.Unmarshal(raw, &branch) == nil {
				for _, sub := range branch {
					walk(sub)
				}
				return
			}
			leaves = append(leaves, struct {
				Script      string
				LeafVersion byte
			}{})
			if err := json.Unmarshal(raw, &leaves[len(leaves)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if string(v.Given.ScriptTree) != "null" {
			walk(v.Given.ScriptTree)
		}
		if len(leaves) != len(v.Expected.ScriptPathControlBlocks) {
			t.Fatalf("output %d: %d leaves, %d control blocks", i, len(leaves), len(v.Expected.ScriptPathControlBlocks))
		}
		for k, leaf := range leaves {
			control, err := txscript.ParseControlBlock(unhex(v.Expected.ScriptPathControlBlocks[k]))
			if err != nil {
				t.Fatal(err)
			}
			if err := txscript.VerifyTaprootLeafCommitment(control, output, unhex(leaf.Script)); err != nil || byte(control.LeafVersion) != leaf.LeafVersion {
				t.Errorf("output %d, leaf %d: version %x, %v", i, k, control.LeafVersion, err)
			}
		}
	}
	for i, v := range file.KeyPathSpending {
		tx, err := consensus.DecodeTx(unhex(v.Auxiliary.FullySignedTx))
		if err != nil {
			t.Fatal(err)
		}
		coins := make([]consensus.Coin, len(v.Given.UTXOsSpent))
		for k, u := range v.Given.UTXOsSpent {
			coins[k] = consensus.Coin{Value: u.AmountSats, Script: unhex(u.ScriptPubKey)}
		}
		if err := consensus.CheckTxScripts(tx, coins, uint32(consensusFlags)); err != nil {
			t.Errorf("transaction %d: %v", i, err)
		}
		for k := range coins { // each input's signature covers it
			coins[k].Value++
			if err := consensus.CheckTxScripts(tx, coins, uint32(consensusFlags)); err == nil {
				t.Errorf("transaction %d: coin %d of another value", i, k)
			}
			coins[k].Value--
		}
	}
	if len(file.ScriptPubKey) < 7 || len(file.KeyPathSpending) == 0 {
		t.Error("the file has lost vectors")
	}
}
