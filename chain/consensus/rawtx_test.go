package consensus_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// TestRawTxs: sizes, ids, encodings and roots of real blocks, without decoding
// them, are those of the decoded ones.
func TestRawTxs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		segwit bool
	}{{"mainnet-100000", false}, {"mainnet-300025", false}, {"mainnet-482683", true}, {"mainnet-540107", true}, {"mainnet-702861", true}} {
		raw := enginetest.Data(t, "blocks/"+row.name+".raw")
		b, err := consensus.DecodeBlock(consensus.Bitcoin(), raw)
		if err != nil {
			t.Fatal(err)
		}
		_, size, err := consensus.ReadCount(raw[80:], "transactions")
		if err != nil {
			t.Fatal(err)
		}
		var txids, wtxids []chainhash.Hash
		rest := raw[80+size:]
		for i, tx := range b.Txs {
			size, err := consensus.TxSize(rest)
			if err != nil {
				t.Fatal(err)
			}
			txid, wtxid, err := consensus.TxIDs(rest[:size])
			if err != nil || txid != *tx.Hash() || wtxid != *tx.WitnessHash() {
				t.Fatalf("%s: transaction %d: %v %v, %v", row.name, i, txid, wtxid, err)
			}
			if got := consensus.AppendTx(nil, tx.MsgTx()); !bytes.Equal(got, rest[:size]) {
				t.Fatalf("%s: transaction %d encodes to %x", row.name, i, got)
			}
			txids, wtxids = append(txids, txid), append(wtxids, wtxid)
			rest = rest[size:]
		}
		coinbase := b.Txs[0].MsgTx()
		check := func(what string, txids, wtxids []chainhash.Hash, rule string) {
			t.Helper()
			ids, wids := slices.Clone(txids), slices.Clone(wtxids)
			err := consensus.CheckRoots(&b.Header, row.segwit, coinbase, txids, wtxids)
			fault, _ := errors.AsType[*consensus.RuleError](err)
			if (rule == "") != (err == nil) || rule != "" && (fault == nil || fault.Rule != rule || fault.Blame != consensus.BlameSender) {
				t.Errorf("%s: %s: %v, want %q", row.name, what, err, rule)
			}
			if !slices.Equal(ids, txids) || !slices.Equal(wids, wtxids) {
				t.Errorf("%s: %s: the ids were changed", row.name, what)
			}
		}
		check("good", txids, wtxids, "")
		swapped := slices.Clone(txids)
		swapped[0], swapped[1] = swapped[1], swapped[0]
		check("swapped", swapped, wtxids, "bad-txnmrklroot")
		check("none", nil, nil, "bad-blk-length")
		check("fewer", txids, wtxids[1:], "bad-blk-length")
		other := slices.Clone(wtxids)
		other[len(other)-1][0] ^= 1
		if row.segwit {
			check("another witness", txids, other, "bad-witness-merkle-match")
		} else {
			check("a witness", txids, other, "unexpected-witness")
		}
	}
}

// TestTxEncodingForms: what AppendTx writes is what the library does, whatever the
// counts, and what is not exactly one transaction has no ids.
func TestTxEncodingForms(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 0xfc, 0xfd, 70_000} {
		tx := wire.NewMsgTx(-1)
		tx.LockTime = r.Uint32()
		for range min(n, 300) {
			tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: r.Uint32()}, make([]byte, n/100), nil))
			tx.AddTxOut(wire.NewTxOut(r.Int64(), make([]byte, n/100)))
		}
		for _, witness := range []wire.TxWitness{nil, make(wire.TxWitness, n), {make([]byte, n)}} {
			tx.TxIn[0].Witness = witness
			var want bytes.Buffer
			if err := tx.Serialize(&want); err != nil {
				t.Fatal(err)
			}
			got := consensus.AppendTx(nil, tx)
			if !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("%d: another encoding", n)
			}
			if txid, wtxid, err := consensus.TxIDs(got); err != nil || txid != tx.TxHash() || wtxid != tx.WitnessHash() {
				t.Errorf("%d: ids %v %v, %v", n, txid, wtxid, err)
			}
			if _, _, err := consensus.TxIDs(append(got, 0)); err == nil {
				t.Errorf("%d: a trailing byte", n)
			}
			if _, err := consensus.TxSize(got[:len(got)-1]); err == nil {
				t.Errorf("%d: a byte less", n)
			}
		}
	}
	for _, n := range []int{0, 0xfc, 0xfd, 0xffff, 1 << 16, 1<<32 - 1, 1 << 32, 1 << 60} {
		b := consensus.AppendCount([]byte{7}, n)
		if got, size, err := consensus.ReadCount(b[1:], "n"); err != nil || got != uint64(n) || size != len(b)-1 {
			t.Errorf("%d: read %d in %d of %d bytes, %v", n, got, size, len(b)-1, err)
		}
		if _, _, err := consensus.ReadCount(b[1:len(b)-1], "n"); err == nil {
			t.Errorf("%d: read a byte short", n)
		}
	}
}
