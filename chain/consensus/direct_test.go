package consensus_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// bothPaths is CheckTxScripts, after making sure that it says what txscript alone
// says and that the direct path accepts nothing that txscript refuses, under these
// flags and under those of them that blocks have.
func bothPaths(t *testing.T, tx *wire.MsgTx, coins []consensus.Coin, flags uint32) error {
	t.Helper()
	for _, f := range []uint32{flags, flags & consensus.DirectFlags} {
		var first error
		for i := range coins {
			err := consensus.Interpret(tx, coins, f, i)
			if err != nil && first == nil {
				first = err
			}
			if err != nil && consensus.Direct(tx, coins, f, i) {
				t.Errorf("input %d, flags %#x: accepted directly, but: %v", i, f, err)
			}
		}
		if err := consensus.CheckTxScripts(tx, coins, f); (err == nil) != (first == nil) {
			t.Errorf("flags %#x: %v, txscript says %v", f, err, first)
		}
	}
	return consensus.CheckTxScripts(tx, coins, flags)
}

// choices are decisions read from bytes, so that a fuzzer can steer them; zero when
// the bytes are used up.
type choices struct{ rest []byte }

func (c *choices) next(n int) int {
	if len(c.rest) == 0 {
		return 0
	}
	v := int(c.rest[0])
	c.rest = c.rest[1:]
	return v % n
}

// template makes an output script and what spends it. sign gives the signature by a
// key, with its hash type, over a script (nil: by taproot's rules).
type template struct {
	name  string
	spend func(s *signer) (pkScript, sigScript []byte, witness wire.TxWitness)
	// direct says that the direct path is to take it.
	direct bool
}

// A signer signs one input with as many keys as it is asked for, in one of several
// ways.
type signer struct {
	t      testing.TB
	c      *choices
	tx     *wire.MsgTx
	coins  []consensus.Coin
	i      int
	plain  bool // signatures are over everything, in strict DER, by usual keys
	signed bool // the script is known: signatures are real
}

func testKey(n int) *btcec.PrivateKey {
	b := sha256.Sum256([]byte{byte(n)})
	key, _ := btcec.PrivKeyFromBytes(b[:])
	return key
}

// pub is a key's encoding: compressed, or now and then another.
func (s *signer) pub(n int) []byte {
	key := testKey(n).PubKey()
	if s.plain {
		return key.SerializeCompressed()
	}
	switch s.c.next(4) {
	case 1:
		return key.SerializeUncompressed()
	case 2:
		b := key.SerializeUncompressed()
		b[0] = 6 | b[64]&1
		return b
	default:
		return key.SerializeCompressed()
	}
}

func (s *signer) hashType() txscript.SigHashType {
	if s.plain {
		return txscript.SigHashAll
	}
	return []txscript.SigHashType{
		txscript.SigHashAll, txscript.SigHashAll, txscript.SigHashAll, txscript.SigHashNone, txscript.SigHashSingle,
		txscript.SigHashAll | txscript.SigHashAnyOneCanPay, 0, 0x41,
	}[s.c.next(8)]
}

// ecdsa signs as before segwit, or by BIP143.
func (s *signer) ecdsa(n int, script []byte, segwit bool) []byte {
	if !s.signed {
		return make([]byte, 71)
	}
	kind := s.hashType()
	var hash []byte
	var err error
	if segwit {
		hash, err = txscript.CalcWitnessSigHash(script, consensus.SigHashes(s.tx, s.coins), kind, s.tx, s.i, s.coins[s.i].Value)
	} else {
		hash, err = txscript.CalcSignatureHash(script, kind, s.tx, s.i)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	sig := ecdsa.Sign(testKey(n), hash)
	der := sig.Serialize()
	if !s.plain {
		switch s.c.next(6) {
		case 1: // the high S
			sigR, sigS := sig.R(), sig.S()
			sigS.Negate()
			rb, sb := sigR.Bytes(), sigS.Bytes()
			der = strictDER(rb[:], sb[:])
		case 2: // a zero too many
			der = bytes.Clone(der)
			der = append(append(der[:4:4], 0), der[4:]...)
			der[1]++
			der[3]++
		case 3: // something behind
			der = append(der, 0)
		}
	}
	return append(der, byte(kind))
}

func strictDER(r, s []byte) []byte {
	var ints []byte
	for _, v := range [][]byte{r, s} {
		v = bytes.TrimLeft(v, "\x00")
		if len(v) == 0 || v[0]&0x80 != 0 {
			v = append([]byte{0}, v...)
		}
		ints = append(append(ints, 2, byte(len(v))), v...)
	}
	return append([]byte{0x30, byte(len(ints))}, ints...)
}

// push is a script of one push, in the shortest form or, now and then, a longer one.
func (s *signer) push(b []byte) []byte {
	if !s.plain && len(b) < 256 && s.c.next(8) == 1 {
		return append([]byte{txscript.OP_PUSHDATA1, byte(len(b))}, b...)
	}
	if !s.plain && s.c.next(8) == 1 {
		return append([]byte{txscript.OP_PUSHDATA2, byte(len(b)), byte(len(b) >> 8)}, b...)
	}
	script, err := txscript.NewScriptBuilder().AddFullData(b).Script()
	if err != nil {
		s.t.Fatal(err)
	}
	return script
}

func (s *signer) multisigScript(m, n int) []byte {
	script := []byte{byte(txscript.OP_1 + m - 1)}
	for k := range n {
		pub := s.pub(k)
		script = append(append(script, byte(len(pub))), pub...)
	}
	return append(script, byte(txscript.OP_1+n-1), txscript.OP_CHECKMULTISIG)
}

// multisigItems are the empty item and the signatures of m keys, in order unless not
// plain.
func (s *signer) multisigItems(m, n int, script []byte, segwit bool) [][]byte {
	items := [][]byte{nil}
	for k := range m {
		at := k + (n-m)*(k&1) // the last ones too
		if !s.plain && s.c.next(5) == 1 {
			at = s.c.next(n)
		}
		items = append(items, s.ecdsa(at, script, segwit))
	}
	if !s.plain && s.c.next(8) == 1 {
		items[0] = []byte{1}
	}
	return items
}

func (s *signer) pushes(items [][]byte) (script []byte) {
	for _, b := range items {
		if len(b) == 0 {
			script = append(script, txscript.OP_0)
		} else {
			script = append(script, s.push(b)...)
		}
	}
	return script
}

func toKeyHash(pub []byte) []byte {
	return append(append([]byte{txscript.OP_DUP, txscript.OP_HASH160, txscript.OP_DATA_20}, address.Hash160(pub)...), txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
}

func toWitnessKeyHash(pub []byte) []byte {
	return append([]byte{txscript.OP_0, txscript.OP_DATA_20}, address.Hash160(pub)...)
}

func toWitnessScriptHash(script []byte) []byte {
	h := sha256.Sum256(script)
	return append([]byte{txscript.OP_0, txscript.OP_DATA_32}, h[:]...)
}

func toScriptHash(script []byte) []byte {
	return append(append([]byte{txscript.OP_HASH160, txscript.OP_DATA_20}, address.Hash160(script)...), txscript.OP_EQUAL)
}

var templates = []template{
	{name: "P2PKH", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		pub := s.pub(1)
		pk := toKeyHash(pub)
		return pk, append(s.push(s.ecdsa(1, pk, false)), s.push(pub)...), nil
	}},
	{name: "P2PK", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		pub := s.pub(2)
		pk := append(append([]byte{byte(len(pub))}, pub...), txscript.OP_CHECKSIG)
		return pk, s.push(s.ecdsa(2, pk, false)), nil
	}},
	{name: "P2WPKH", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		pub := s.pub(3)
		return toWitnessKeyHash(pub), nil, wire.TxWitness{s.ecdsa(3, toKeyHash(pub), true), pub}
	}},
	{name: "P2SH-P2WPKH", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		pub := s.pub(4)
		program := toWitnessKeyHash(pub)
		return toScriptHash(program), s.push(program), wire.TxWitness{s.ecdsa(4, toKeyHash(pub), true), pub}
	}},
	{name: "P2TR", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		key := txscript.TweakTaprootPrivKey(*testKey(5), nil)
		pk := append([]byte{txscript.OP_1, txscript.OP_DATA_32}, schnorr.SerializePubKey(key.PubKey())...)
		if !s.signed {
			return pk, nil, wire.TxWitness{make([]byte, 64)}
		}
		kind := txscript.SigHashDefault
		if k := s.hashType(); k <= 3 || k&txscript.SigHashAnyOneCanPay != 0 {
			kind = k
		}
		if s.plain && s.c.next(2) == 1 {
			kind = txscript.SigHashDefault
		}
		if kind == txscript.SigHashSingle && s.i >= len(s.tx.TxOut) {
			kind = txscript.SigHashAll
		}
		prev := make(map[wire.OutPoint]*wire.TxOut)
		for i, in := range s.tx.TxIn {
			prev[in.PreviousOutPoint] = &wire.TxOut{Value: s.coins[i].Value, PkScript: s.coins[i].Script}
		}
		hash, err := txscript.CalcTaprootSignatureHash(consensus.SigHashes(s.tx, s.coins), kind, s.tx, s.i, txscript.NewMultiPrevOutFetcher(prev))
		if err != nil {
			s.t.Fatal(err)
		}
		sig, err := schnorr.Sign(key, hash)
		if err != nil {
			s.t.Fatal(err)
		}
		item := sig.Serialize()
		if kind != txscript.SigHashDefault || !s.plain && s.c.next(8) == 1 {
			item = append(item, byte(kind))
		}
		w := wire.TxWitness{item}
		if !s.plain && s.c.next(8) == 1 {
			w = append(w, []byte{txscript.TaprootAnnexTag, 1})
		}
		return pk, nil, w
	}},
	{name: "multisig", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		pk := s.multisigScript(2, 3)
		return pk, s.pushes(s.multisigItems(2, 3, pk, false)), nil
	}},
	{name: "P2SH multisig", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		n := 3
		if !s.plain {
			n += s.c.next(13) // 15 compressed keys are the most that fit
		}
		script := s.multisigScript(2, n)
		return toScriptHash(script), s.pushes(append(s.multisigItems(2, n, script, false), script)), nil
	}},
	{name: "P2WSH multisig", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		script := s.multisigScript(2, 3)
		return toWitnessScriptHash(script), nil, append(s.multisigItems(2, 3, script, true), script)
	}},
	{name: "P2SH-P2WSH multisig", direct: true, spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		script := s.multisigScript(1, 2)
		program := toWitnessScriptHash(script)
		return toScriptHash(program), s.push(program), append(s.multisigItems(1, 2, script, true), script)
	}},
	{name: "P2SH of true", spend: func(s *signer) ([]byte, []byte, wire.TxWitness) {
		script := []byte{txscript.OP_TRUE}
		return toScriptHash(script), s.push(script), nil
	}},
	{name: "P2WSH of true", spend: func(*signer) ([]byte, []byte, wire.TxWitness) {
		script := []byte{txscript.OP_TRUE}
		return toWitnessScriptHash(script), nil, wire.TxWitness{script}
	}},
	{name: "P2A", spend: func(*signer) ([]byte, []byte, wire.TxWitness) {
		return []byte{txscript.OP_1, txscript.OP_DATA_2, 0x4e, 0x73}, nil, nil
	}},
}

// build makes a transaction that spends outputs of these templates.
func build(t testing.TB, c *choices, plain bool, kinds ...int) (*wire.MsgTx, []consensus.Coin) {
	t.Helper()
	tx := wire.NewMsgTx(int32(1 + c.next(3)))
	tx.LockTime = uint32(c.next(2))
	coins := make([]consensus.Coin, len(kinds))
	for i := range kinds {
		in := &wire.TxIn{Sequence: uint32(0xffffffff - c.next(3))}
		in.PreviousOutPoint.Hash[0] = byte(i)
		in.PreviousOutPoint.Index = uint32(c.next(3))
		tx.AddTxIn(in)
		coins[i].Value = int64(1000 + c.next(256))
	}
	for range 1 + c.next(3) {
		tx.AddTxOut(&wire.TxOut{Value: int64(c.next(256)), PkScript: make([]byte, c.next(256))})
	}
	// What is spent comes first, for taproot signs all of it; the same choices again
	// give the same scripts, now with signatures.
	at := *c
	for _, signed := range []bool{false, true} {
		*c = at
		spends := make([]wire.TxIn, len(kinds))
		for i, k := range kinds {
			mine := choices{c.rest[min(len(c.rest), 40*i):]}
			s := &signer{t: t, c: &mine, tx: tx, coins: coins, i: i, plain: plain, signed: signed}
			var pk []byte
			if pk, spends[i].SignatureScript, spends[i].Witness = templates[k].spend(s); !signed {
				coins[i].Script = pk
			}
		}
		for i, in := range tx.TxIn {
			in.SignatureScript, in.Witness = spends[i].SignatureScript, spends[i].Witness
		}
	}
	c.rest = c.rest[min(len(c.rest), 40*len(kinds)):]
	return tx, coins
}

// blockFlags are the flags that blocks of some time are checked under.
var blockFlags = []uint32{
	0,
	uint32(txscript.ScriptBip16),
	uint32(txscript.ScriptBip16 | txscript.ScriptVerifyDERSignatures),
	uint32(txscript.ScriptBip16 | txscript.ScriptVerifyWitness),
	uint32(txscript.ScriptBip16 | txscript.ScriptVerifyWitness | txscript.ScriptVerifyDERSignatures | txscript.ScriptVerifyCheckLockTimeVerify | txscript.ScriptVerifyCheckSequenceVerify),
	consensus.DirectFlags &^ uint32(txscript.ScriptVerifyTaproot),
	consensus.DirectFlags,
	uint32(txscript.ScriptVerifyWitness), // makes no sense: txscript refuses it
	consensus.DirectFlags | uint32(txscript.ScriptVerifyLowS|txscript.ScriptVerifyStrictEncoding|txscript.ScriptVerifyMinimalData),
}

// The direct path takes every template spent as people spend it, alone and beside
// others, and txscript agrees, as it does under the flags of any height.
func TestDirect(t *testing.T) {
	t.Parallel()
	for k, kind := range templates {
		for _, kinds := range [][]int{{k}, {0, k, 4}} {
			for _, more := range [][]byte{nil, bytes.Repeat([]byte{1}, 50)} {
				tx, coins := build(t, &choices{more}, true, kinds...)
				i := len(kinds) / 2
				for _, flags := range blockFlags {
					err := bothPaths(t, tx, coins, flags)
					if flags == consensus.DirectFlags && err != nil {
						t.Errorf("%s: %v", kind.name, err)
					}
				}
				if got := consensus.Direct(tx, coins, consensus.DirectFlags, i); got != kind.direct {
					t.Errorf("%s: taken directly: %v", kind.name, got)
				}
				// Not under flags it was not proven for.
				if consensus.Direct(tx, coins, consensus.DirectFlags|uint32(txscript.ScriptVerifyLowS), i) {
					t.Errorf("%s: taken under a flag that blocks never have", kind.name)
				}
			}
		}
	}
}

// mutate changes one thing about input i.
func mutate(c *choices, tx *wire.MsgTx, coins []consensus.Coin, i int) {
	in := tx.TxIn[i]
	flip := func(b []byte) []byte {
		if len(b) == 0 {
			return []byte{byte(c.next(256))}
		}
		b = bytes.Clone(b)
		b[c.next(len(b))] ^= 1 << c.next(8)
		return b
	}
	insert := func(b []byte) []byte {
		at := c.next(len(b) + 1)
		return append(append(bytes.Clone(b[:at]), byte(c.next(256))), b[at:]...)
	}
	remove := func(b []byte) []byte {
		if len(b) == 0 {
			return b
		}
		at := c.next(len(b))
		return append(bytes.Clone(b[:at]), b[at+1:]...)
	}
	change := []func([]byte) []byte{flip, insert, remove}[c.next(3)]
	switch c.next(10) {
	case 0:
		in.SignatureScript = change(in.SignatureScript)
	case 1, 2:
		if n := len(in.Witness); n > 0 {
			at := c.next(n)
			in.Witness[at] = change(in.Witness[at])
		} else {
			in.Witness = wire.TxWitness{change(nil)}
		}
	case 3:
		coins[i].Script = change(coins[i].Script)
	case 4:
		coins[i].Value++
	case 5:
		tx.TxOut[0].Value++
	case 6:
		in.Sequence--
	case 7:
		in.Witness = append(in.Witness, change(nil))
	case 8: // what another input has
		j := c.next(len(coins))
		in.SignatureScript, in.Witness = tx.TxIn[j].SignatureScript, tx.TxIn[j].Witness
	case 9:
		coins[i].Script = coins[c.next(len(coins))].Script
	}
}

// spoiled builds a spend that is unusual or wrong in a way that the choices say.
func spoiled(t testing.TB, c *choices) (tx *wire.MsgTx, coins []consensus.Coin, flags uint32) {
	t.Helper()
	flags = blockFlags[len(blockFlags)-1-c.next(len(blockFlags))]
	if c.next(2) == 0 {
		flags = consensus.DirectFlags
	}
	plain := c.next(3) == 0
	kinds := make([]int, 1+c.next(3))
	for i := range kinds {
		kinds[i] = c.next(len(templates))
	}
	changes := c.next(3)
	tx, coins = build(t, c, plain, kinds...)
	for range changes {
		mutate(c, tx, coins, c.next(len(coins)))
	}
	return tx, coins, flags
}

// Spends of every template, unusual or spoiled in thousands of ways: the direct path
// accepts nothing that txscript refuses.
func TestDirectSpoiled(t *testing.T) {
	t.Parallel()
	const seed = 143
	r := rand.New(rand.NewPCG(seed, 0))
	direct, refused := 0, 0
	for range 200 {
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		tx, coins, flags := spoiled(t, &choices{b})
		if bothPaths(t, tx, coins, flags) != nil {
			refused++
		} else if consensus.Direct(tx, coins, flags, 0) {
			direct++
		}
		if t.Failed() {
			t.Fatalf("seed %d: choices %x", seed, b)
		}
	}
	if direct < 10 || refused < 40 {
		t.Errorf("%d taken directly, %d refused: too few to prove something", direct, refused)
	}
}

// FuzzDirect is TestDirectSpoiled, steered by the fuzzer.
func FuzzDirect(f *testing.F) {
	for k := range templates {
		f.Add([]byte{0, 0, 0, 0, byte(k)})
		f.Add([]byte{0, 1, 1, 2, byte(k), 0, byte(k), 1, 2, 3, 4, 5, 6, 7, 8, 9})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, coins, flags := spoiled(t, &choices{b})
		_ = bothPaths(t, tx, coins, flags)
	})
}

// BenchmarkCheckTxScripts runs one input of each template, and the same through
// txscript alone.
func BenchmarkCheckTxScripts(b *testing.B) {
	for k, kind := range templates {
		if !kind.direct {
			continue
		}
		tx, coins := build(b, &choices{}, true, k)
		b.Run(kind.name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := consensus.CheckTxScripts(tx, coins, consensus.DirectFlags); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(kind.name+"/txscript", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := consensus.Interpret(tx, coins, consensus.DirectFlags, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
