package consensus_test

import (
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// TestRealBlockWithCoins validates mainnet's block 277,647 as the chain would, from
// first to last check, with the coins that it spends: several hundred real
// signatures under every flag of its height.
func TestRealBlockWithCoins(t *testing.T) {
	t.Parallel()
	const height = 277_647
	p := consensus.Bitcoin()
	raw := enginetest.Data(t, "btcd/277647.dat.bz2")
	b, err := consensus.DecodeBlock(p, raw[8:]) // magic and length
	if err != nil {
		t.Fatal(err)
	}
	past := &enginetest.FakePast{At0: height - 1, Time: b.Header.Timestamp.Unix() - 1}
	if err := check(p, past, b.Raw); err != nil {
		t.Fatal(err)
	}
	coins := readCoins(t, enginetest.Data(t, "btcd/277647.utxostore.bz2"))
	flags := consensus.ScriptFlags(p, past, b.Hash)
	var fees int64
	inputs, sigOps := 0, 0
	for i, tx := range b.Txs {
		var spent []consensus.Coin
		if i > 0 {
			spent = coins.Spent(tx.MsgTx())
			fee, err := consensus.CheckTxInputs(p, past, tx.MsgTx(), spent)
			if err != nil {
				t.Fatal(err)
			}
			fees += fee
			inputs += len(spent)
			if err := consensus.CheckTxScripts(tx.MsgTx(), spent, flags); err != nil {
				t.Error(err)
			}
			for k := range tx.MsgTx().TxOut { // the signatures are of these
				tx.MsgTx().TxOut[k].Value++
			}
			if err := consensus.CheckTxScripts(tx.MsgTx(), spent, flags); err == nil {
				t.Errorf("%v pays more than was signed", tx.Hash())
			}
			for k := range tx.MsgTx().TxOut {
				tx.MsgTx().TxOut[k].Value--
			}
		}
		cost, err := consensus.SigOpCost(tx.MsgTx(), spent, flags)
		if err != nil {
			t.Fatal(err)
		}
		sigOps += cost
		for k, out := range tx.MsgTx().TxOut {
			coins[wire.OutPoint{Hash: *tx.Hash(), Index: uint32(k)}] = consensus.Coin{Value: out.Value, Script: out.PkScript, Height: height, Coinbase: i == 0}
		}
	}
	if err := consensus.CheckCoinbaseValue(p, height, b.Txs[0].MsgTx(), fees); err != nil {
		t.Error(err)
	}
	if err := consensus.CheckCoinbaseValue(p, height, b.Txs[0].MsgTx(), fees-1); err == nil {
		t.Error("the coinbase does not claim all of the fees") // this one does
	}
	t.Logf("%d transactions, %d inputs, sigop cost %d, %d satoshi of fees", len(b.Txs), inputs, sigOps, fees)
}

// readCoins reads btcd's form of coins: txid, index and length in four bytes, then
// height·2+coinbase, the value and the script in the short forms of Bitcoin Core's
// database.
func readCoins(t *testing.T, data []byte) enginetest.CoinSet {
	t.Helper()
	coins := make(enginetest.CoinSet)
	number := func() (n uint64) { // big-endian groups of 7 bits, each form once
		for {
			c := data[0]
			data = data[1:]
			n = n<<7 | uint64(c&0x7f)
			if c&0x80 == 0 {
				return n
			}
			n++
		}
	}
	for len(data) > 0 {
		var op wire.OutPoint
		copy(op.Hash[:], data)
		op.Index = binary.LittleEndian.Uint32(data[chainhash.HashSize:])
		rest := data[chainhash.HashSize+8:]
		size := binary.LittleEndian.Uint32(data[chainhash.HashSize+4:])
		data, rest = rest[:size], rest[size:]
		code := number()
		coin := consensus.Coin{Height: int32(code >> 1), Coinbase: code&1 == 1, Value: longValue(number())}
		kind := number()
		switch kind {
		case 0:
			coin.Script = slices.Concat([]byte{txscript.OP_DUP, txscript.OP_HASH160, 20}, data, []byte{txscript.OP_EQUALVERIFY, txscript.OP_CHECKSIG})
		case 1:
			coin.Script = slices.Concat([]byte{txscript.OP_HASH160, 20}, data, []byte{txscript.OP_EQUAL})
		case 2, 3:
			coin.Script = slices.Concat([]byte{33, byte(kind)}, data, []byte{txscript.OP_CHECKSIG})
		case 4, 5:
			key, err := btcec.ParsePubKey(append([]byte{byte(kind - 2)}, data...))
			if err != nil {
				t.Fatal(err)
			}
			coin.Script = slices.Concat([]byte{65}, key.SerializeUncompressed(), []byte{txscript.OP_CHECKSIG})
		default:
			if coin.Script = data; int(kind)-6 != len(data) {
				t.Fatalf("coin %v: %v", op, io.ErrUnexpectedEOF)
			}
		}
		coins[op] = coin
		data = rest
	}
	return coins
}

// longValue undoes the compression of values: zeros at the end are counted.
func longValue(x uint64) int64 {
	if x == 0 {
		return 0
	}
	x--
	zeros := x % 10
	x /= 10
	var n uint64
	if zeros < 9 {
		last := x%9 + 1
		n = x/9*10 + last
	} else {
		n = x + 1
	}
	for range zeros {
		n *= 10
	}
	return int64(n)
}
