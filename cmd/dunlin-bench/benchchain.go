package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand" //nolint:depguard // the chains of the published figures were made with its sequence, which v2 has not
	"runtime"
	"sync"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A benchChain is what a chain of simnet is made of that imports and downloads are timed with, ours and btcd's. The same recipe
// gives the same bytes on every machine: keys and what is drawn come from seeded sequences, signatures have RFC 6979's nonces.
type benchChain struct {
	name string
	// heights without transactions: all of them, or so many that coins are mature and the soft forks active.
	empty int
	// then so many blocks with one transaction each that splits a coinbase's coin into splitInto.
	splits int
	// then so many with transactions, from least to most each.
	loaded, least, most int
	// fat: each transaction moves one coin and has an output with data, so many bytes that a block has fatBlockBytes.
	fat bool

	bytes int64  // of the file
	sum   string // its SHA-256
}

const (
	splitInto     = 2000
	fatBlockBytes = 980_000
	// spacing is a second above the target: the difficulty never rises.
	benchSpacing = 601 * time.Second
	// benchVersion signals for all three of simnet's soft forks.
	benchVersion = 0x20000007
	// unripe is how many blocks are empty first: three windows of 100 until the soft forks are active, and 100 until coins are mature.
	unripe = 420

	keySeed, drawSeed, keyCount = 42, 7, 1024
)

// benchChains are tiny (what a block costs), fat (what a byte costs) and full (what a signature costs).
var benchChains = []benchChain{
	{name: "tiny", empty: 20_000, bytes: 3_578_794, sum: "9353547953c514ee8e91a30def311a8296281997d78d4bfda17b4cd51a896bec"},
	{name: "fat", empty: unripe, splits: 2, loaded: 250, least: 10, most: 10, fat: true, bytes: 245_789_992, sum: "210c82e7ec5b5acd18ffbf4aaec37b9038c96458b4ee1aced076eb7a3e2e8d35"},
	{name: "full", empty: unripe, splits: 20, loaded: 1000, least: 200, most: 1000, bytes: 177_821_953, sum: "d91577f37eadf80f93f6a83a7b665ae2725e0aa48695f0c3733c7dbda217e0cf"},
}

// The templates of outputs, and of a hundred how many are of each: 55 P2WPKH, 30 P2PKH, 15 P2TR.
const (
	witnessKeyHash = iota
	keyHash
	taproot
)

// A benchKey is one that coins are sent to, with its output scripts by template.
type benchKey struct {
	private *btcec.PrivateKey
	scripts [3][]byte
}

// A benchCoin can be spent.
type benchCoin struct {
	at       wire.OutPoint
	value    int64
	key      int
	template int
}

// An unsigned transaction has the coins that its inputs spend.
type unsigned struct {
	tx    *wire.MsgTx
	coins []benchCoin
}

// chainWriter makes a chain block by block.
type chainWriter struct {
	recipe *benchChain
	out    *bufio.Writer
	keys   []benchKey
	draw   *rand.Rand
	coins  []benchCoin // that transactions may spend
	prev   chainhash.Hash
	time   time.Time
	height int64
}

// write makes the chain and writes it in bootstrap.dat form, without genesis. say is called now and then with what part is done.
func (c *benchChain) write(ctx context.Context, out io.Writer, say func(part float64)) error {
	keys, err := benchKeys()
	if err != nil {
		return err
	}
	genesis := chaincfg.SimNetParams.GenesisBlock
	w := &chainWriter{
		recipe: c, out: bufio.NewWriterSize(out, 1<<20), keys: keys,
		draw: rand.New(rand.NewSource(drawSeed)), prev: genesis.BlockHash(), time: genesis.Header.Timestamp,
	}
	coinbases := make([]*wire.MsgTx, 0, c.empty)
	for range c.empty {
		if err := ctx.Err(); err != nil {
			return err
		}
		coinbase, err := w.add(nil)
		if err != nil {
			return err
		}
		coinbases = append(coinbases, coinbase)
	}
	for i := range c.splits {
		if err := w.split(coinbases[i], i+1); err != nil {
			return err
		}
	}
	for i := range c.loaded {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.load(); err != nil {
			return err
		}
		say(float64(i+1) / float64(c.loaded))
	}
	return w.out.Flush()
}

// benchKeys draws the keys.
func benchKeys() ([]benchKey, error) {
	draw := rand.New(rand.NewSource(keySeed))
	keys := make([]benchKey, keyCount)
	for i := range keys {
		var secret [32]byte
		draw.Read(secret[:])
		k := &keys[i]
		var public *btcec.PublicKey
		k.private, public = btcec.PrivKeyFromBytes(secret[:])
		hash := address.Hash160(public.SerializeCompressed())
		script := func(template int, b *txscript.ScriptBuilder) (err error) {
			k.scripts[template], err = b.Script()
			return err
		}
		tweaked := schnorr.SerializePubKey(txscript.ComputeTaprootKeyNoScript(public))
		for _, err := range []error{
			script(witnessKeyHash, txscript.NewScriptBuilder().AddOp(txscript.OP_0).AddData(hash)),
			script(keyHash, txscript.NewScriptBuilder().AddOp(txscript.OP_DUP).AddOp(txscript.OP_HASH160).AddData(hash).AddOp(txscript.OP_EQUALVERIFY).AddOp(txscript.OP_CHECKSIG)),
			script(taproot, txscript.NewScriptBuilder().AddOp(txscript.OP_1).AddData(tweaked)),
		} {
			if err != nil {
				return nil, fmt.Errorf("scripts of key %d: %w", i, err)
			}
		}
	}
	return keys, nil
}

// output draws who an output goes to, and how.
func (w *chainWriter) output(value int64) (*wire.TxOut, benchCoin) {
	coin := benchCoin{value: value, key: w.draw.Intn(len(w.keys)), template: taproot}
	switch x := w.draw.Intn(100); {
	case x < 55:
		coin.template = witnessKeyHash
	case x < 85:
		coin.template = keyHash
	}
	return wire.NewTxOut(value, w.keys[coin.key].scripts[coin.template]), coin
}

// add mines the next block and writes it.
func (w *chainWriter) add(txs []*wire.MsgTx) (coinbase *wire.MsgTx, err error) {
	w.height++
	script, err := txscript.NewScriptBuilder().AddInt64(w.height).AddInt64(w.height * 7919).Script()
	if err != nil {
		return nil, err
	}
	coinbase = wire.NewMsgTx(1)
	coinbase.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32}, SignatureScript: script, Sequence: math.MaxUint32})
	coinbase.AddTxOut(wire.NewTxOut(50*btcutil.SatoshiPerBitcoin, w.keys[int(w.height)%len(w.keys)].scripts[witnessKeyHash]))
	block := wire.MsgBlock{Transactions: append([]*wire.MsgTx{coinbase}, txs...)}
	for _, tx := range txs {
		if tx.HasWitness() {
			var nonce [32]byte
			coinbase.TxIn[0].Witness = wire.TxWitness{nonce[:]}
			coinbase.AddTxOut(wire.NewTxOut(0, consensus.WitnessCommitment(block.Transactions, nonce)))
			break
		}
	}
	w.time = w.time.Add(benchSpacing)
	params := &chaincfg.SimNetParams
	block.Header = wire.BlockHeader{
		Version: benchVersion, PrevBlock: w.prev, MerkleRoot: consensus.MerkleRoot(block.Transactions), Timestamp: w.time, Bits: params.PowLimitBits,
	}
	for w.prev = block.BlockHash(); blockchain.HashToBig(&w.prev).Cmp(params.PowLimit) > 0; w.prev = block.BlockHash() {
		block.Header.Nonce++
	}
	var raw bytes.Buffer
	if err := block.Serialize(&raw); err != nil {
		return nil, err
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(params.Net))
	frame = binary.LittleEndian.AppendUint32(frame, uint32(raw.Len()))
	if _, err := w.out.Write(frame); err != nil {
		return nil, err
	}
	_, err = w.out.Write(raw.Bytes())
	return coinbase, err
}

// split makes many coins of a coinbase's, which is at a height, in a block.
func (w *chainWriter) split(coinbase *wire.MsgTx, height int) error {
	tx := wire.NewMsgTx(2)
	from := benchCoin{at: wire.OutPoint{Hash: coinbase.TxHash()}, value: coinbase.TxOut[0].Value, key: height % len(w.keys)}
	tx.AddTxIn(wire.NewTxIn(&from.at, nil, nil))
	var made []benchCoin
	for range splitInto {
		out, coin := w.output((from.value - 10_000) / splitInto)
		tx.AddTxOut(out)
		made = append(made, coin)
	}
	if err := w.sign(unsigned{tx, []benchCoin{from}}); err != nil {
		return err
	}
	w.gain(tx, made)
	_, err := w.add([]*wire.MsgTx{tx})
	return err
}

// gain makes coins of a transaction's first outputs, which can be spent from then on.
func (w *chainWriter) gain(tx *wire.MsgTx, coins []benchCoin) {
	id := tx.TxHash()
	for i := range coins {
		coins[i].at = wire.OutPoint{Hash: id, Index: uint32(i)}
	}
	w.coins = append(w.coins, coins...)
}

// take draws a coin to spend.
func (w *chainWriter) take() benchCoin {
	i, last := w.draw.Intn(len(w.coins)), len(w.coins)-1
	coin := w.coins[i]
	w.coins[i] = w.coins[last]
	w.coins = w.coins[:last]
	return coin
}

// load makes a block of transactions, which spend each other's coins too.
func (w *chainWriter) load() error {
	type later struct {
		tx    *wire.MsgTx
		coins []benchCoin
	}
	var all []unsigned
	var unknown []later // a signature in the input changes the id: known when it is signed
	for n, count := 0, w.recipe.least+w.draw.Intn(w.recipe.most-w.recipe.least+1); n < count; n++ {
		inputs, outputs := w.shape()
		u := unsigned{tx: wire.NewMsgTx(2)}
		sum, stable := int64(0), true
		for len(u.coins) < inputs || sum < 20_000 {
			coin := w.take()
			u.coins = append(u.coins, coin)
			u.tx.AddTxIn(wire.NewTxIn(&coin.at, nil, nil))
			sum += coin.value
			stable = stable && coin.template != keyHash
		}
		made := w.pay(u.tx, sum-500, outputs)
		if w.recipe.fat {
			data := make([]byte, fatBlockBytes/count)
			w.draw.Read(data)
			// Far more than a script may hold: nobody runs it.
			script := binary.LittleEndian.AppendUint32([]byte{txscript.OP_RETURN, txscript.OP_PUSHDATA4}, uint32(len(data)))
			u.tx.AddTxOut(wire.NewTxOut(0, append(script, data...)))
		}
		all = append(all, u)
		if stable && !w.recipe.fat {
			w.gain(u.tx, made)
		} else {
			unknown = append(unknown, later{u.tx, made})
		}
	}
	if err := w.signAll(all); err != nil {
		return err
	}
	for _, l := range unknown {
		w.gain(l.tx, l.coins)
	}
	txs := make([]*wire.MsgTx, len(all))
	for i, u := range all {
		txs[i] = u.tx
	}
	_, err := w.add(txs)
	return err
}

// shape draws how many inputs and outputs a transaction has: mostly one and two. Where data is what counts, one and one; what is drawn
// is the same.
func (w *chainWriter) shape() (inputs, outputs int) {
	inputs, outputs = 1, 2
	if x := w.draw.Intn(100); x >= 90 {
		inputs = 3
	} else if x >= 60 {
		inputs = 2
	}
	if x := w.draw.Intn(100); x >= 90 {
		outputs = 3
	} else if x < 5 {
		outputs = 1
	}
	if w.recipe.fat {
		return 1, 1
	}
	return inputs, outputs
}

// pay shares a sum among so many outputs, each of 600 or more.
func (w *chainWriter) pay(tx *wire.MsgTx, sum int64, outputs int) (made []benchCoin) {
	for left := outputs; left > 0; left-- {
		value := sum / int64(left)
		if left > 1 {
			value = value/2 + w.draw.Int63n(value)
		}
		value = min(value, sum-600*int64(left-1))
		sum -= value
		out, coin := w.output(value)
		tx.AddTxOut(out)
		made = append(made, coin)
	}
	return made
}

// signAll signs with all processors and waits.
func (w *chainWriter) signAll(all []unsigned) error {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	for n := range workers {
		wg.Go(func() {
			for i := n; i < len(all) && errs[n] == nil; i += workers {
				errs[n] = w.sign(all[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *chainWriter) sign(u unsigned) error {
	spent := txscript.NewMultiPrevOutFetcher(nil)
	for _, c := range u.coins {
		spent.AddPrevOut(c.at, wire.NewTxOut(c.value, w.keys[c.key].scripts[c.template]))
	}
	hashes := txscript.NewTxSigHashes(u.tx, spent)
	for i, c := range u.coins {
		k, in := &w.keys[c.key], u.tx.TxIn[i]
		script := k.scripts[c.template]
		var err error
		switch c.template {
		case witnessKeyHash:
			in.Witness, err = txscript.WitnessSignature(u.tx, hashes, i, c.value, script, txscript.SigHashAll, k.private, true)
		case keyHash:
			in.SignatureScript, err = txscript.SignatureScript(u.tx, i, script, txscript.SigHashAll, k.private, true)
		case taproot:
			in.Witness, err = txscript.TaprootWitnessSignature(u.tx, hashes, i, c.value, script, txscript.SigHashDefault, k.private)
		}
		if err != nil {
			return fmt.Errorf("sign input %d: %w", i, err)
		}
	}
	return nil
}
