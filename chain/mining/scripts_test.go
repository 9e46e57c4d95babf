package mining_test

// These tests are the examples of docs/scripts.md: how the scripts that people use
// are built, spent, and refused, on a regtest chain with a mempool and a miner. The
// page quotes them, and TestScriptsPage compares.

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

func TestPayToPublicKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, mallory := newKey(1), newKey(2)
	lock := script(alice.pub, txscript.OP_CHECKSIG)
	coin := w.fund(lock)

	forged := w.spend(coin)
	forged.TxIn[0].SignatureScript = script(mallory.sign(forged, lock))
	w.refused(forged, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].SignatureScript = script(alice.sign(tx, lock))
	w.accepted(tx)
}

func TestPayToPublicKeyHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, mallory := newKey(1), newKey(2)
	lock := script(txscript.OP_DUP, txscript.OP_HASH160, hash160(alice.pub), txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)
	coin := w.fund(lock)

	other := w.spend(coin) // a good signature, of a key with another hash
	other.TxIn[0].SignatureScript = script(mallory.sign(other, lock), mallory.pub)
	w.refused(other, scriptFault, scriptFault)
	forged := w.spend(coin) // the key is public, the signature is not hers
	forged.TxIn[0].SignatureScript = script(mallory.sign(forged, lock), alice.pub)
	w.refused(forged, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].SignatureScript = script(alice.sign(tx, lock), alice.pub)
	w.accepted(tx)
}

// Two of three keys. CHECKMULTISIG takes one item more than it uses, which must be
// empty, and wants the signatures in the order of the keys.
func TestMultisig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob, carol := newKey(1), newKey(2), newKey(3)
	lock := script(txscript.OP_2, alice.pub, bob.pub, carol.pub, txscript.OP_3, txscript.OP_CHECKMULTISIG)
	coin := w.fund(lock)

	few := w.spend(coin)
	few.TxIn[0].SignatureScript = script(txscript.OP_0, alice.sign(few, lock))
	w.refused(few, scriptFault, scriptFault)
	twice := w.spend(coin)
	twice.TxIn[0].SignatureScript = script(txscript.OP_0, bob.sign(twice, lock), bob.sign(twice, lock))
	w.refused(twice, scriptFault, scriptFault)
	order := w.spend(coin)
	order.TxIn[0].SignatureScript = script(txscript.OP_0, carol.sign(order, lock), alice.sign(order, lock))
	w.refused(order, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].SignatureScript = script(txscript.OP_0, alice.sign(tx, lock), carol.sign(tx, lock))
	w.accepted(tx)
}

// The same behind a hash: the coin names the hash, who spends it shows the script.
func TestMultisigByScriptHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob, carol := newKey(1), newKey(2), newKey(3)
	redeem := script(txscript.OP_2, alice.pub, bob.pub, carol.pub, txscript.OP_3, txscript.OP_CHECKMULTISIG)
	coin := w.fund(script(txscript.OP_HASH160, hash160(redeem), txscript.OP_EQUAL))

	few := w.spend(coin)
	few.TxIn[0].SignatureScript = script(txscript.OP_0, bob.sign(few, redeem), redeem)
	w.refused(few, scriptFault, scriptFault)
	easier := script(txscript.OP_1, bob.pub, txscript.OP_1, txscript.OP_CHECKMULTISIG)
	other := w.spend(coin)
	other.TxIn[0].SignatureScript = script(txscript.OP_0, bob.sign(other, easier), easier)
	w.refused(other, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].SignatureScript = script(txscript.OP_0, bob.sign(tx, redeem), carol.sign(tx, redeem), redeem)
	w.accepted(tx)
}

// And with signatures in the witness: they sign the coin's value too, and the id of
// the transaction does not depend on them.
func TestMultisigByWitnessScriptHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob, carol := newKey(1), newKey(2), newKey(3)
	redeem := script(txscript.OP_2, alice.pub, bob.pub, carol.pub, txscript.OP_3, txscript.OP_CHECKMULTISIG)
	coin := w.fund(script(txscript.OP_0, chainhash.HashB(redeem)))

	few := w.spend(coin)
	few.TxIn[0].Witness = wire.TxWitness{nil, alice.signWitness(few, coin, redeem), redeem}
	w.refused(few, scriptFault, scriptFault)
	cheaper := coin
	cheaper.value--
	lie := w.spend(coin) // signed for another value than the coin has
	lie.TxIn[0].Witness = wire.TxWitness{nil, alice.signWitness(lie, cheaper, redeem), bob.signWitness(lie, cheaper, redeem), redeem}
	w.refused(lie, scriptFault, scriptFault)

	tx := w.spend(coin)
	id := tx.TxHash()
	tx.TxIn[0].Witness = wire.TxWitness{nil, alice.signWitness(tx, coin, redeem), bob.signWitness(tx, coin, redeem), redeem}
	if tx.TxHash() != id {
		t.Error("the id depends on the witness")
	}
	w.accepted(tx)
}

// A coin that nobody can spend up to a block. The transaction says from when on it
// may be in a block (its lock time), the script demands that it says so.
func TestLockUntilHeight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice := newKey(1)
	until := w.height() + 10
	redeem := script(num(until), txscript.OP_CHECKLOCKTIMEVERIFY, txscript.OP_DROP, alice.pub, txscript.OP_CHECKSIG)
	coin := w.fund(script(txscript.OP_HASH160, hash160(redeem), txscript.OP_EQUAL))
	spend := func(lockTime int32, sequence uint32) *wire.MsgTx {
		tx := w.spend(coin)
		tx.LockTime, tx.TxIn[0].Sequence = uint32(lockTime), sequence
		tx.TxIn[0].SignatureScript = script(alice.sign(tx, redeem), redeem)
		return tx
	}
	const notFinal = wire.MaxTxInSequenceNum - 1 // or the lock time would not count

	tx := spend(until, notFinal)
	w.refused(spend(0, notFinal), scriptFault, scriptFault)
	w.refused(spend(until-1, notFinal), notFinalYet, tooEarly)
	w.refused(spend(until, wire.MaxTxInSequenceNum), scriptFault, scriptFault)
	w.mineTo(until - 1)
	w.refused(tx, notFinalYet, tooEarly) // the next block is the one it is locked until
	w.refused(spend(until-1, notFinal), scriptFault, scriptFault)
	w.mine(1)
	w.accepted(tx)
}

// The same by time: what counts is the median time of the last eleven blocks.
func TestLockUntilTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice := newKey(1)
	until := w.medianTime().Add(2 * time.Hour)
	redeem := script(num(until.Unix()), txscript.OP_CHECKLOCKTIMEVERIFY, txscript.OP_DROP, alice.pub, txscript.OP_CHECKSIG)
	coin := w.fund(script(txscript.OP_0, chainhash.HashB(redeem)))
	tx := w.spend(coin)
	tx.LockTime, tx.TxIn[0].Sequence = uint32(until.Unix()), wire.MaxTxInSequenceNum-1
	tx.TxIn[0].Witness = wire.TxWitness{alice.signWitness(tx, coin, redeem), redeem}

	for !w.medianTime().After(until) {
		w.refused(tx, notFinalYet, tooEarly)
		w.mine(1)
	}
	w.accepted(tx)
}

// A coin that has to be in the chain for ten blocks before it is spent. The input
// says so in its sequence (BIP68), the script demands that it does (BIP112).
func TestLockForBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice := newKey(1)
	const blocks = 10
	redeem := script(num(blocks), txscript.OP_CHECKSEQUENCEVERIFY, txscript.OP_DROP, alice.pub, txscript.OP_CHECKSIG)
	coin := w.fund(script(txscript.OP_0, chainhash.HashB(redeem)))
	spend := func(sequence uint32) *wire.MsgTx {
		tx := w.spend(coin)
		tx.TxIn[0].Sequence = sequence
		tx.TxIn[0].Witness = wire.TxWitness{alice.signWitness(tx, coin, redeem), redeem}
		return tx
	}

	w.refused(spend(0), scriptFault, scriptFault)
	w.refused(spend(blocks), tooEarly, tooEarly)
	w.mine(blocks - 2) // the ninth block after the coin's would be the next
	w.refused(spend(blocks-1), scriptFault, scriptFault)
	w.refused(spend(blocks), tooEarly, tooEarly)
	w.mine(1)
	w.accepted(spend(blocks))
}

// The same for 1024 seconds: sequences count in steps of 512.
func TestLockForSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice := newKey(1)
	const wait = wire.SequenceLockTimeIsSeconds | 1024/512
	redeem := script(num(wait), txscript.OP_CHECKSEQUENCEVERIFY, txscript.OP_DROP, alice.pub, txscript.OP_CHECKSIG)
	coin := w.fund(script(txscript.OP_0, chainhash.HashB(redeem)))
	tx := w.spend(coin)
	tx.TxIn[0].Sequence = wait
	tx.TxIn[0].Witness = wire.TxWitness{alice.signWitness(tx, coin, redeem), redeem}

	// Both ends are median times: that before the coin's block, and that before the
	// block that spends it. Blocks here are ten minutes apart.
	w.refused(tx, tooEarly, tooEarly)
	w.mine(1)
	w.accepted(tx)
}

// A payment against a secret (an HTLC): bob takes the coin with the secret of a
// hash, or alice takes it back after a while.
func TestHashLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob := newKey(1), newKey(2)
	secret := []byte("the stork brings the coins in May")
	until := w.height() + 10
	redeem := script(
		txscript.OP_IF,
		txscript.OP_SHA256, chainhash.HashB(secret), txscript.OP_EQUALVERIFY, bob.pub,
		txscript.OP_ELSE,
		num(until), txscript.OP_CHECKLOCKTIMEVERIFY, txscript.OP_DROP, alice.pub,
		txscript.OP_ENDIF,
		txscript.OP_CHECKSIG)
	lock := script(txscript.OP_0, chainhash.HashB(redeem))
	taken, returned := w.fund(lock), w.fund(lock)
	bySecret := func(k *key, c coin, secret []byte) *wire.MsgTx {
		tx := w.spend(c)
		tx.TxIn[0].Witness = wire.TxWitness{k.signWitness(tx, c, redeem), secret, {1}, redeem}
		return tx
	}
	byTime := func(k *key, c coin, lockTime int32) *wire.MsgTx {
		tx := w.spend(c)
		tx.LockTime, tx.TxIn[0].Sequence = uint32(lockTime), wire.MaxTxInSequenceNum-1
		tx.TxIn[0].Witness = wire.TxWitness{k.signWitness(tx, c, redeem), nil, redeem}
		return tx
	}

	w.refused(bySecret(bob, taken, []byte("a guess")), scriptFault, scriptFault)
	w.refused(bySecret(alice, taken, secret), scriptFault, scriptFault) // the secret is not enough
	w.refused(byTime(bob, taken, 0), scriptFault, scriptFault)
	w.accepted(bySecret(bob, taken, secret))

	w.refused(byTime(alice, returned, until), notFinalYet, tooEarly)
	w.refused(byTime(alice, returned, 0), scriptFault, scriptFault)
	w.mineTo(until)
	w.refused(byTime(bob, returned, until), scriptFault, scriptFault) // not his branch
	w.accepted(byTime(alice, returned, until))
}

func TestPayToWitnessPublicKeyHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, mallory := newKey(1), newKey(2)
	coin := w.fund(script(txscript.OP_0, hash160(alice.pub)))
	// What is signed is the script that the hash stands for.
	code := script(txscript.OP_DUP, txscript.OP_HASH160, hash160(alice.pub), txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG)

	other := w.spend(coin)
	other.TxIn[0].Witness = wire.TxWitness{mallory.signWitness(other, coin, code), mallory.pub}
	w.refused(other, scriptFault, scriptFault)
	bare := w.spend(coin)
	bare.TxIn[0].SignatureScript = script(alice.sign(bare, code), alice.pub) // where it would have been before
	w.refused(bare, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].Witness = wire.TxWitness{alice.signWitness(tx, coin, code), alice.pub}
	w.accepted(tx)
}

// Taproot: the coin names a key. Whoever can sign for it spends the coin, and
// nobody sees whether there was another way.
func TestTaprootKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, mallory := newKey(1), newKey(2)
	output := txscript.ComputeTaprootKeyNoScript(alice.priv.PubKey())
	coin := w.fund(script(txscript.OP_1, schnorr.SerializePubKey(output)))

	forged := w.spend(coin)
	forged.TxIn[0].Witness = wire.TxWitness{mallory.signTaproot(forged, coin, nil)}
	w.refused(forged, scriptFault, scriptFault)

	tx := w.spend(coin)
	tx.TxIn[0].Witness = wire.TxWitness{alice.signTaproot(tx, coin, nil)}
	w.accepted(tx)
}

// The other way is a script out of a tree whose root is part of the key: it is
// shown with the branch that leads to the root. Here alice has the key; bob and
// carol together, or bob alone after ten blocks, have a script each.
func TestTaprootScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob, carol := newKey(1), newKey(2), newKey(3)
	both := txscript.NewBaseTapLeaf(script(
		bob.xonly(), txscript.OP_CHECKSIG, carol.xonly(), txscript.OP_CHECKSIGADD, num(2), txscript.OP_NUMEQUAL))
	late := txscript.NewBaseTapLeaf(script(
		num(10), txscript.OP_CHECKSEQUENCEVERIFY, txscript.OP_DROP, bob.xonly(), txscript.OP_CHECKSIG))
	tree := txscript.AssembleTaprootScriptTree(both, late)
	root := tree.RootNode.TapHash()
	output := txscript.ComputeTaprootOutputKey(alice.priv.PubKey(), root[:])
	lock := script(txscript.OP_1, schnorr.SerializePubKey(output))
	branch := func(leaf int) []byte { // the control block: internal key and path
		c := tree.LeafMerkleProofs[leaf].ToControlBlock(alice.priv.PubKey())
		return must(c.ToBytes())
	}
	first, second, third := w.fund(lock), w.fund(lock), w.fund(lock)

	one := w.spend(first)
	one.TxIn[0].Witness = wire.TxWitness{nil, bob.signLeaf(one, first, both), both.Script, branch(0)}
	w.refused(one, scriptFault, scriptFault)
	wrong := w.spend(first) // a script that is not in the tree at this place
	wrong.TxIn[0].Witness = wire.TxWitness{carol.signLeaf(wrong, first, both), bob.signLeaf(wrong, first, both), both.Script, branch(1)}
	w.refused(wrong, scriptFault, scriptFault)
	tx := w.spend(first)
	tx.TxIn[0].Witness = wire.TxWitness{carol.signLeaf(tx, first, both), bob.signLeaf(tx, first, both), both.Script, branch(0)}
	w.accepted(tx)

	alone := w.spend(second)
	alone.TxIn[0].Sequence = 10
	alone.TxIn[0].Witness = wire.TxWitness{bob.signLeaf(alone, second, late), late.Script, branch(1)}
	w.refused(alone, tooEarly, tooEarly)
	w.mine(10)
	w.accepted(alone)

	byKey := w.spend(third) // the root belongs to the key
	byKey.TxIn[0].Witness = wire.TxWitness{alice.signTaproot(byKey, third, nil)}
	w.refused(byKey, scriptFault, scriptFault)
	byKey.TxIn[0].Witness = wire.TxWitness{alice.signTaproot(byKey, third, root[:])}
	w.accepted(byKey)
}

// What the examples are refused for. The mempool says non-final of what cannot
// be in the next block by its own lock time.
const (
	scriptFault = "mandatory-script-verify-flag-failed"
	tooEarly    = "bad-txns-nonfinal"
	notFinalYet = "non-final"
)

// A num is a number in a script; other constants are opcodes.
type num int64

// script puts opcodes, numbers and pushes of data one after the other.
func script(items ...any) []byte {
	b := txscript.NewScriptBuilder()
	for _, item := range items {
		switch x := item.(type) {
		case int:
			b.AddOp(byte(x))
		case num:
			b.AddInt64(int64(x))
		case []byte:
			b.AddData(x)
		default:
			panic("script: neither opcode nor number nor data")
		}
	}
	return must(b.Script())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // of what the examples make themselves
	}
	return v
}

func hash160(data []byte) []byte { return address.Hash160(data) }

// A key belongs to somebody.
type key struct {
	priv *btcec.PrivateKey
	pub  []byte // compressed
}

func newKey(n byte) *key {
	priv, pub := btcec.PrivKeyFromBytes(chainhash.HashB([]byte{n}))
	return &key{priv, pub.SerializeCompressed()}
}

// xonly is the public key as taproot has it.
func (k *key) xonly() []byte { return schnorr.SerializePubKey(k.priv.PubKey()) }

// sign signs the first input of tx, whose coin is locked by code.
func (k *key) sign(tx *wire.MsgTx, code []byte) []byte {
	return must(txscript.RawTxInSignature(tx, 0, code, txscript.SigHashAll, k.priv))
}

// signWitness does so for version 0 witness programs, which sign the value too.
func (k *key) signWitness(tx *wire.MsgTx, c coin, code []byte) []byte {
	return must(txscript.RawTxInWitnessSignature(tx, c.hashes(tx), 0, c.value, code, txscript.SigHashAll, k.priv))
}

// signTaproot signs with the key that a tree's root was added to.
func (k *key) signTaproot(tx *wire.MsgTx, c coin, root []byte) []byte {
	return must(txscript.RawTxInTaprootSignature(tx, c.hashes(tx), 0, c.value, c.lock, root, txscript.SigHashDefault, k.priv))
}

// signLeaf signs for one script of a tree.
func (k *key) signLeaf(tx *wire.MsgTx, c coin, leaf txscript.TapLeaf) []byte {
	return must(txscript.RawTxInTapscriptSignature(tx, c.hashes(tx), 0, c.value, c.lock, leaf, txscript.SigHashDefault, k.priv))
}

// A coin is an output in the chain.
type coin struct {
	op    wire.OutPoint
	value int64 // satoshi
	lock  []byte
}

func (c coin) hashes(tx *wire.MsgTx) *txscript.TxSigHashes {
	return txscript.NewTxSigHashes(tx, txscript.NewCannedPrevOutputFetcher(c.lock, c.value))
}

// A world is a regtest chain with a mempool and a miner who pays.
type world struct {
	t     *testing.T
	chain *chain.Chain
	pool  *mempool.Pool
	now   time.Time // of the miner
	purse []coin    // the miner's
	key   *enginetest.Key
}

const fee = 10_000 // satoshi

func newWorld(t *testing.T) *world {
	t.Helper()
	p := consensus.Regtest()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := func() time.Time { return start.AddDate(1, 0, 0) }
	w := &world{t: t, chain: open(t, p, later), now: start, key: enginetest.NewKey(1)}
	w.pool = must(mempool.New(mempool.Options{Chain: w.chain, Now: later}))
	run(t, w.pool.Run)
	w.mine(int(p.CoinbaseMaturity) + 10)
	return w
}

func (w *world) height() int32 {
	tip, _ := w.chain.Tip()
	return tip.Height
}

func (w *world) medianTime() time.Time {
	tip, _ := w.chain.Tip()
	return tip.MedianTime
}

// template makes a block of txs ten minutes after the last.
func (w *world) template(txs ...*wire.MsgTx) *mining.Template {
	w.t.Helper()
	tip, _ := w.chain.Tip()
	w.now = w.now.Add(10 * time.Minute)
	o := mining.TemplateOptions{PayTo: w.key.Script(), Now: w.now}
	if txs == nil {
		o.Entries = w.pool.Entries()
	}
	tpl, err := mining.NewTemplate(w.chain, pow.New(w.chain.Params()), tip, o)
	if err != nil {
		w.t.Fatal(err)
	}
	if txs != nil { // what the pool does not want
		tpl.Txs = append(tpl.Txs, txs...)
		commitment := tpl.Txs[0].TxOut[len(tpl.Txs[0].TxOut)-1]
		commitment.PkScript = consensus.WitnessCommitment(tpl.Txs, [32]byte{})
		if err := tpl.NextExtraNonce(); err != nil {
			w.t.Fatal(err)
		}
	}
	return tpl
}

// mine makes n blocks of what is in the pool.
func (w *world) mine(n int) {
	w.t.Helper()
	for range n {
		tpl := w.template()
		v := submit(w.t, w.chain, tpl)
		if v.Outcome != chain.Connected {
			w.t.Fatalf("block %d: %+v", tpl.Height, v)
		}
		coinbase := tpl.Txs[0]
		w.purse = append(w.purse, coin{wire.OutPoint{Hash: coinbase.TxHash()}, coinbase.TxOut[0].Value, coinbase.TxOut[0].PkScript})
		for changed := w.pool.Changed(); w.pool.Tip() != v.Hash; changed = w.pool.Changed() {
			<-changed
		}
	}
}

func (w *world) mineTo(height int32) {
	w.t.Helper()
	w.mine(int(height - w.height()))
}

// fund has the miner pay a lock, in a block, and returns the coin.
func (w *world) fund(lock []byte) coin {
	w.t.Helper()
	from := w.purse[0]
	w.purse = w.purse[1:]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&from.op, nil, nil))
	tx.AddTxOut(wire.NewTxOut(from.value-fee, lock))
	w.key.Sign(tx, []consensus.Coin{{Value: from.value, Script: from.lock}})
	w.accepted(tx)
	return coin{wire.OutPoint{Hash: tx.TxHash()}, tx.TxOut[0].Value, lock}
}

// spend returns a transaction that spends a coin, with nothing to unlock it yet.
func (w *world) spend(c coin) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&c.op, nil, nil))
	tx.AddTxOut(wire.NewTxOut(c.value-fee, w.key.Script()))
	return tx
}

// accepted has the pool take a transaction and the miner put it into a block.
func (w *world) accepted(tx *wire.MsgTx) {
	w.t.Helper()
	if _, err := w.pool.Submit(w.t.Context(), tx, "somebody"); err != nil {
		w.t.Fatalf("mempool: %v", err)
	}
	w.mine(1)
	if _, ok, err := w.chain.Coin(wire.OutPoint{Hash: tx.TxHash()}); err != nil || !ok {
		w.t.Fatalf("the miner left it out: %t, %v", ok, err)
	}
}

// refused wants the pool to refuse a transaction by one rule, and the chain a block
// with it by another.
func (w *world) refused(tx *wire.MsgTx, inPool, inBlock string) {
	w.t.Helper()
	_, err := w.pool.Submit(w.t.Context(), tx, "")
	if r, ok := errors.AsType[*consensus.RuleError](err); !ok || r.Rule != inPool {
		w.t.Fatalf("mempool: %v, want %s", err, inPool)
	}
	before := w.height()
	v := submit(w.t, w.chain, w.template(tx))
	if r, ok := errors.AsType[*consensus.RuleError](v.Err); !ok || r.Rule != inBlock || v.Outcome != chain.Refused || r.Blame != consensus.BlameBlock {
		w.t.Fatalf("block: %+v, want %s", v, inBlock)
	}
	if w.height() != before {
		w.t.Fatal("the tip moved")
	}
}

// TestScriptsPage: docs/scripts.md quotes this file as it is.
func TestScriptsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/scripts.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("scripts_test.go")
	if err != nil {
		t.Fatal(err)
	}
	quotes := 0
	for rest := string(page); ; quotes++ {
		_, after, ok := strings.Cut(rest, "```go\n")
		if !ok {
			break
		}
		quote, next, ok := strings.Cut(after, "```")
		if !ok {
			t.Fatal("a quote without an end")
		}
		rest = next
		// The page has no indentation of the function around.
		var indented bytes.Buffer
		for line := range strings.Lines(quote) {
			if strings.TrimSpace(line) != "" {
				indented.WriteByte('\t')
			}
			indented.WriteString(line)
		}
		if !bytes.Contains(source, indented.Bytes()) {
			t.Errorf("not in scripts_test.go:\n%s", quote)
		}
	}
	if quotes < 10 {
		t.Errorf("%d quotes", quotes)
	}
}
