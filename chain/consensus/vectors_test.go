package consensus_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// coreFlags are Bitcoin Core's names of script flags.
var coreFlags = map[string]txscript.ScriptFlags{
	"": 0, "NONE": 0,
	"P2SH":                                  txscript.ScriptBip16,
	"STRICTENC":                             txscript.ScriptVerifyStrictEncoding,
	"DERSIG":                                txscript.ScriptVerifyDERSignatures,
	"LOW_S":                                 txscript.ScriptVerifyLowS,
	"SIGPUSHONLY":                           txscript.ScriptVerifySigPushOnly,
	"MINIMALDATA":                           txscript.ScriptVerifyMinimalData,
	"NULLDUMMY":                             txscript.ScriptStrictMultiSig,
	"DISCOURAGE_UPGRADABLE_NOPS":            txscript.ScriptDiscourageUpgradableNops,
	"CLEANSTACK":                            txscript.ScriptVerifyCleanStack,
	"MINIMALIF":                             txscript.ScriptVerifyMinimalIf,
	"NULLFAIL":                              txscript.ScriptVerifyNullFail,
	"CHECKLOCKTIMEVERIFY":                   txscript.ScriptVerifyCheckLockTimeVerify,
	"CHECKSEQUENCEVERIFY":                   txscript.ScriptVerifyCheckSequenceVerify,
	"WITNESS":                               txscript.ScriptVerifyWitness,
	"DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM": txscript.ScriptVerifyDiscourageUpgradeableWitnessProgram,
	"WITNESS_PUBKEYTYPE":                    txscript.ScriptVerifyWitnessPubKeyType,
	"CONST_SCRIPTCODE":                      txscript.ScriptVerifyConstScriptCode,
	"TAPROOT":                               txscript.ScriptVerifyTaproot,
}

// consensusFlags are those that blocks are checked with today.
const consensusFlags = txscript.ScriptBip16 | txscript.ScriptVerifyDERSignatures | txscript.ScriptStrictMultiSig |
	txscript.ScriptVerifyCheckLockTimeVerify | txscript.ScriptVerifyCheckSequenceVerify |
	txscript.ScriptVerifyWitness | txscript.ScriptVerifyTaproot

func parseFlags(t *testing.T, s string) txscript.ScriptFlags {
	t.Helper()
	var flags txscript.ScriptFlags
	for name := range strings.SplitSeq(s, ",") {
		f, ok := coreFlags[name]
		if !ok {
			t.Fatalf("unknown flag %q", name)
		}
		flags |= f
	}
	return flags
}

// assemble reads the short form in which Core's vectors write scripts.
func assemble(s string) ([]byte, error) {
	b := txscript.NewScriptBuilder()
	var script []byte
	flush := func() error {
		part, err := b.Script()
		script = append(script, part...)
		b.Reset()
		return err
	}
	for word := range strings.FieldsSeq(s) {
		if n, err := strconv.ParseInt(word, 10, 64); err == nil {
			b.AddInt64(n)
			continue
		}
		switch {
		case strings.HasPrefix(word, "0x"): // raw bytes
			raw, err := hex.DecodeString(word[2:])
			if err != nil {
				return nil, err
			}
			if err := flush(); err != nil {
				return nil, err
			}
			script = append(script, raw...)
			continue
		case len(word) >= 2 && word[0] == '\'' && word[len(word)-1] == '\'':
			b.AddFullData([]byte(word[1 : len(word)-1]))
			continue
		}
		op, ok := txscript.OpcodeByName["OP_"+strings.TrimPrefix(word, "OP_")]
		if !ok {
			return nil, fmt.Errorf("unknown word %q", word)
		}
		b.AddOp(op)
	}
	return script, flush()
}

// TestCoreTransactions runs tx_valid and tx_invalid.
func TestCoreTransactions(t *testing.T) {
	t.Parallel()
	for file, valid := range map[string]bool{"tx_valid": true, "tx_invalid": false} {
		var rows [][]json.RawMessage
		if err := json.Unmarshal(enginetest.Data(t, "core/"+file+".json"), &rows); err != nil {
			t.Fatal(err)
		}
		ran := 0
		for i, row := range rows {
			if len(row) != 3 {
				continue // a comment
			}
			var (
				prevs    [][]json.RawMessage
				raw, fls string
			)
			for j, to := range []any{&prevs, &raw, &fls} {
				if err := json.Unmarshal(row[j], to); err != nil {
					t.Fatalf("%s %d: %v", file, i, err)
				}
			}
			ran++
			err := runTx(t, prevs, raw, fls, valid)
			if valid != (err == nil) {
				t.Errorf("%s %d (%s): %v", file, i, fls, err)
			}
		}
		t.Logf("%s: %d", file, ran)
		if ran < 90 {
			t.Errorf("%s: only %d", file, ran)
		}
	}
}

func runTx(t *testing.T, prevs [][]json.RawMessage, rawHex, flagNames string, valid bool) error {
	t.Helper()
	raw, err := hex.DecodeString(rawHex)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := consensus.DecodeTx(raw)
	if err != nil {
		return err
	}
	if err := consensus.CheckTx(tx); err != nil || flagNames == "BADTX" {
		return err
	}
	set := make(map[wire.OutPoint]consensus.Coin)
	for _, p := range prevs {
		var (
			id, script string
			index      int64
			value      int64
		)
		for j, to := range []any{&id, &index, &script, &value}[:len(p)] {
			if err := json.Unmarshal(p[j], to); err != nil {
				t.Fatal(err)
			}
		}
		hash, err := chainhash.NewHashFromStr(id)
		if err != nil {
			t.Fatal(err)
		}
		pk, err := assemble(script)
		if err != nil {
			t.Fatal(err)
		}
		set[wire.OutPoint{Hash: *hash, Index: uint32(index)}] = consensus.Coin{Value: value, Script: pk}
	}
	coins := make([]consensus.Coin, len(tx.TxIn))
	for i, in := range tx.TxIn {
		coins[i] = set[in.PreviousOutPoint]
	}
	flags := parseFlags(t, flagNames)
	if valid { // the file names the flags to leave out
		flags = consensusFlags &^ flags
	}
	return bothPaths(t, tx, coins, uint32(flags))
}

// TestCoreScripts runs script_tests: pass or fail, as a spend through CheckTxScripts.
func TestCoreScripts(t *testing.T) {
	t.Parallel()
	var rows [][]any
	if err := json.Unmarshal(enginetest.Data(t, "core/script_tests.json"), &rows); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for i, row := range rows {
		if len(row) < 4 {
			continue // a comment
		}
		name := fmt.Sprintf("script %d: %v", i, row)
		coin := consensus.Coin{}
		var witness wire.TxWitness
		var tapRoot []byte
		if w, ok := row[0].([]any); ok {
			coin.Value = int64(math.Round(w[len(w)-1].(float64) * 1e8))
			var err error
			if witness, tapRoot, err = parseWitness(w[:len(w)-1]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			row = row[1:]
		}
		sig, err := assemble(row[0].(string))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pk := strings.ReplaceAll(row[1].(string), "#TAPROOTOUTPUT#", "0x"+hex.EncodeToString(tapRoot))
		if coin.Script, err = assemble(pk); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ran++
		err = bothPaths(t, spendingTx(coin, sig, witness), []consensus.Coin{coin}, uint32(parseFlags(t, row[2].(string))))
		if want := row[3].(string); (want == "OK") != (err == nil) {
			t.Errorf("%s: want %s, got %v", name, want, err)
		}
	}
	t.Logf("%d scripts", ran)
	if ran < 1200 {
		t.Errorf("only %d scripts", ran)
	}
}

// parseWitness fills in the placeholders of the tapscript rows: the script, its
// control block and the output key, for a fixed internal key.
func parseWitness(items []any) (w wire.TxWitness, output []byte, err error) {
	_, internal := btcec.PrivKeyFromBytes([]byte{1})
	var leaf txscript.TapLeaf
	for _, item := range items {
		s := item.(string)
		switch {
		case strings.HasPrefix(s, "#SCRIPT#"):
			script, err := assemble(strings.TrimPrefix(s, "#SCRIPT#"))
			if err != nil {
				return nil, nil, err
			}
			leaf = txscript.NewBaseTapLeaf(script)
			w = append(w, script)
		case s == "#CONTROLBLOCK#":
			root := leaf.TapHash()
			key := txscript.ComputeTaprootOutputKey(internal, root[:])
			output = schnorr.SerializePubKey(key)
			cb := txscript.ControlBlock{
				InternalKey: internal, LeafVersion: txscript.BaseLeafVersion,
				OutputKeyYIsOdd: key.SerializeCompressed()[0] == 3,
			}
			raw, err := cb.ToBytes()
			if err != nil {
				return nil, nil, err
			}
			w = append(w, raw)
		default:
			raw, err := hex.DecodeString(s)
			if err != nil {
				return nil, nil, err
			}
			w = append(w, raw)
		}
	}
	return w, output, nil
}

// spendingTx is the pair of transactions that Core's script vectors are signed for.
func spendingTx(coin consensus.Coin, sig []byte, witness wire.TxWitness) *wire.MsgTx {
	credit := wire.NewMsgTx(1)
	credit.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32},
		SignatureScript:  []byte{txscript.OP_0, txscript.OP_0},
		Sequence:         math.MaxUint32,
	})
	credit.AddTxOut(&wire.TxOut{Value: coin.Value, PkScript: coin.Script})
	tx := wire.NewMsgTx(1)
	tx.AddTxIn(&wire.TxIn{
		PreviousOutPoint: wire.OutPoint{Hash: credit.TxHash()},
		SignatureScript:  sig, Witness: witness, Sequence: math.MaxUint32,
	})
	tx.AddTxOut(&wire.TxOut{Value: coin.Value})
	return tx
}

// TestCoreSighash decodes Core's 500 random transactions and hashes them for
// signing: one misread field changes the hash.
func TestCoreSighash(t *testing.T) {
	t.Parallel()
	var rows [][]any
	if err := json.Unmarshal(enginetest.Data(t, "core/sighash.json"), &rows); err != nil {
		t.Fatal(err)
	}
	for i, row := range rows[1:] {
		raw, err := hex.DecodeString(row[0].(string))
		if err != nil {
			t.Fatal(err)
		}
		script, err := hex.DecodeString(row[1].(string))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := consensus.DecodeTx(raw)
		if err != nil {
			t.Errorf("row %d: %v", i, err)
			continue
		}
		hashType := txscript.SigHashType(uint32(int32(row[3].(float64))))
		sum, err := txscript.CalcSignatureHash(script, hashType, tx, int(row[2].(float64)))
		if err != nil {
			continue // txscript hashes only scripts that parse
		}
		if got, _ := chainhash.NewHash(sum); got.String() != row[4].(string) {
			t.Errorf("row %d: %s, want %s", i, got, row[4])
		}
	}
}

// TestCheckBlockVectors runs python-bitcoinlib's CheckBlock vectors: header and
// body without coins, on a clock of their own.
func TestCheckBlockVectors(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	for file, valid := range map[string]bool{"checkblock_valid": true, "checkblock_invalid": false} {
		var rows [][]any
		if err := json.Unmarshal(enginetest.Data(t, "core/"+file+".json"), &rows); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if len(row) != 5 {
				continue
			}
			raw, err := hex.DecodeString(row[4].(string))
			if err != nil {
				t.Fatal(err)
			}
			err = checkBlockVector(p, raw, row[2].(bool), int64(row[3].(float64)))
			if valid != (err == nil) {
				t.Errorf("%s: %v", row[0], err)
			}
			t.Logf("%s: %v", row[0], err)
		}
	}
}

func checkBlockVector(p *consensus.Params, raw []byte, checkWork bool, now int64) error {
	b, err := consensus.DecodeBlock(p, raw)
	if err != nil {
		return err
	}
	if checkWork {
		past := &enginetest.FakePast{Parent: b.Header.PrevBlock, Bits: b.Header.Bits, Time: b.Header.Timestamp.Unix() - 600}
		if err := pow.New(p).CheckHeader(past, &b.Header, time.Unix(now, 0)); err != nil {
			return err
		}
	}
	return consensus.CheckBlockContextFree(p, b)
}

// TestBIP54Coinbases runs the BIP's blocks through engine and body checks.
func TestBIP54Coinbases(t *testing.T) {
	t.Parallel()
	var cases []struct {
		BlockChain []string `json:"block_chain"`
		Valid      bool
		Comment    string
	}
	if err := json.Unmarshal(enginetest.Data(t, "bips/bip-0054_test_vectors_coinbases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	p := consensus.Bitcoin()
	p.BIP54 = true
	e := pow.New(p)
	for _, c := range cases {
		chain := enginetest.NewChain(p)
		for i, s := range c.BlockChain[1:] {
			raw, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			b, err := consensus.DecodeBlock(p, raw)
			if err == nil {
				err = e.CheckHeader(chain, &b.Header, time.Unix(1<<32, 0))
			}
			if err == nil {
				err = consensus.CheckBlockContextFree(p, b)
			}
			if err == nil {
				err = consensus.CheckBlockContext(p, chain, b)
			}
			last := i == len(c.BlockChain)-2
			if (err == nil) != (c.Valid || !last) {
				t.Errorf("%s: block %d: %v", c.Comment, i+1, err)
			}
			if err == nil {
				chain.Append(&b.Header)
			}
		}
	}
}

// TestBIP54Sizes runs the BIP's transactions of about 64 bytes.
func TestBIP54Sizes(t *testing.T) {
	t.Parallel()
	var cases []struct {
		Tx, Comment string
		Valid       bool
	}
	if err := json.Unmarshal(enginetest.Data(t, "bips/bip-0054_test_vectors_txsize.json"), &cases); err != nil {
		t.Fatal(err)
	}
	p := consensus.Testnet()
	past := &enginetest.FakePast{At0: 10_000, Time: 2_000_000_000}
	for _, c := range cases {
		raw, err := hex.DecodeString(c.Tx)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := consensus.DecodeTx(raw)
		if err != nil {
			t.Fatal(err)
		}
		coins := make([]consensus.Coin, len(tx.TxIn))
		coins[0].Value = 21e14
		_, err = consensus.CheckTxInputs(p, past, tx, coins)
		if c.Valid != (err == nil) || !c.Valid && rule(err) != "bad-txns-size" {
			t.Errorf("%s: %v", c.Comment, err)
		}
		if _, err := consensus.CheckTxInputs(consensus.Regtest(), past, tx, coins); err != nil {
			t.Errorf("%s without BIP54: %v", c.Comment, err)
		}
	}
}
