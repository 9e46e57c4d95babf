package enginetest

import (
	"fmt"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A Form is a way to lock a coin.
type Form struct {
	Name   string
	Script []byte // of the output
	// LockTime and Sequence are what a spend needs; 0 if nothing.
	LockTime, Sequence uint32
	Witness            bool // the input is unlocked by its witness
	// Sign unlocks an input whose transaction is otherwise complete.
	Sign func(*Spending)
}

// A Spending is an input being signed.
type Spending struct {
	Tx     *wire.MsgTx
	Index  int // of the input
	Coin   consensus.Coin
	Hashes *txscript.TxSigHashes // of Tx
}

// Forms returns the forms of script that people use, for fixed keys. None needs
// more than a signature of its own kind and its lock to be over.
func Forms() []Form {
	var keys [3]*btcec.PrivateKey
	var pubs [3][]byte
	for i := range keys {
		keys[i], _ = btcec.PrivKeyFromBytes(chainhash.HashB([]byte{byte(i)}))
		pubs[i] = keys[i].PubKey().SerializeCompressed()
	}
	build := func(add func(*txscript.ScriptBuilder)) []byte {
		b := txscript.NewScriptBuilder()
		add(b)
		return must(b.Script())
	}
	p2sh := func(redeem []byte) []byte {
		return build(func(b *txscript.ScriptBuilder) {
			b.AddOp(txscript.OP_HASH160).AddData(address.Hash160(redeem)).AddOp(txscript.OP_EQUAL)
		})
	}
	p2wsh := func(redeem []byte) []byte { return append([]byte{txscript.OP_0, 32}, chainhash.HashB(redeem)...) }
	pushes := func(items ...[]byte) []byte {
		return build(func(b *txscript.ScriptBuilder) {
			for _, item := range items {
				b.AddData(item)
			}
		})
	}
	legacy := func(s *Spending, redeem []byte, key int) []byte {
		return must(txscript.RawTxInSignature(s.Tx, s.Index, redeem, txscript.SigHashAll, keys[key]))
	}
	multisig := build(func(b *txscript.ScriptBuilder) {
		b.AddOp(txscript.OP_2).AddData(pubs[0]).AddData(pubs[1]).AddData(pubs[2]).AddOp(txscript.OP_3).AddOp(txscript.OP_CHECKMULTISIG)
	})
	timed := func(n int64, op byte) []byte {
		return build(func(b *txscript.ScriptBuilder) {
			b.AddInt64(n).AddOp(op).AddOp(txscript.OP_DROP).AddData(pubs[0]).AddOp(txscript.OP_CHECKSIG)
		})
	}
	pkh := build(func(b *txscript.ScriptBuilder) {
		b.AddOp(txscript.OP_DUP).AddOp(txscript.OP_HASH160).AddData(address.Hash160(pubs[0])).
			AddOp(txscript.OP_EQUALVERIFY).AddOp(txscript.OP_CHECKSIG)
	})
	wpkh := append([]byte{txscript.OP_0, 20}, address.Hash160(pubs[0])...)
	tr := must(txscript.PayToTaprootScript(txscript.ComputeTaprootKeyNoScript(keys[0].PubKey())))
	leaf := txscript.NewBaseTapLeaf(build(func(b *txscript.ScriptBuilder) {
		b.AddData(schnorr.SerializePubKey(keys[1].PubKey())).AddOp(txscript.OP_CHECKSIG)
	}))
	other := txscript.NewBaseTapLeaf([]byte{txscript.OP_RETURN})
	tree := txscript.AssembleTaprootScriptTree(leaf, other)
	root := tree.RootNode.TapHash()
	trTree := must(txscript.PayToTaprootScript(txscript.ComputeTaprootOutputKey(keys[0].PubKey(), root[:])))
	control := tree.LeafMerkleProofs[0].ToControlBlock(keys[0].PubKey())
	controlBytes := must(control.ToBytes())

	all := []Form{
		{Name: "true", Script: OpTrue(), Sign: func(*Spending) {}},
		{Name: "pk", Script: build(func(b *txscript.ScriptBuilder) { b.AddData(pubs[0]).AddOp(txscript.OP_CHECKSIG) }), Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(legacy(s, s.Coin.Script, 0))
		}},
		{Name: "pkh", Script: pkh, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(legacy(s, pkh, 0), pubs[0])
		}},
		{Name: "wpkh", Script: wpkh, Witness: true, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].Witness = must(txscript.WitnessSignature(s.Tx, s.Hashes, s.Index, s.Coin.Value, wpkh, txscript.SigHashAll, keys[0], true))
		}},
		{Name: "taproot key", Script: tr, Witness: true, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].Witness = must(txscript.TaprootWitnessSignature(s.Tx, s.Hashes, s.Index, s.Coin.Value, tr, txscript.SigHashDefault, keys[0]))
		}},
		{Name: "taproot script", Script: trTree, Witness: true, Sign: func(s *Spending) {
			sig := must(txscript.RawTxInTapscriptSignature(s.Tx, s.Hashes, s.Index, s.Coin.Value, trTree, leaf, txscript.SigHashDefault, keys[1]))
			s.Tx.TxIn[s.Index].Witness = wire.TxWitness{sig, leaf.Script, controlBytes}
		}},
		{Name: "multisig", Script: multisig, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(nil, legacy(s, multisig, 0), legacy(s, multisig, 2))
		}},
		{Name: "multisig by hash", Script: p2sh(multisig), Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(nil, legacy(s, multisig, 1), legacy(s, multisig, 2), multisig)
		}},
		{Name: "multisig by witness hash", Script: p2wsh(multisig), Witness: true, Sign: func(s *Spending) {
			w := wire.TxWitness{nil}
			for _, key := range keys[:2] {
				w = append(w, must(txscript.RawTxInWitnessSignature(s.Tx, s.Hashes, s.Index, s.Coin.Value, multisig, txscript.SigHashAll, key)))
			}
			s.Tx.TxIn[s.Index].Witness = append(w, multisig)
		}},
	}
	for _, height := range []uint32{120, 150} {
		redeem := timed(int64(height), txscript.OP_CHECKLOCKTIMEVERIFY)
		all = append(all, Form{Name: fmt.Sprint("after block ", height), Script: p2sh(redeem), LockTime: height, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(legacy(s, redeem, 0), redeem)
		}})
	}
	for _, blocks := range []uint32{1, 6} {
		redeem := timed(int64(blocks), txscript.OP_CHECKSEQUENCEVERIFY)
		all = append(all, Form{Name: fmt.Sprint("after ", blocks, " blocks"), Script: p2sh(redeem), Sequence: blocks, Sign: func(s *Spending) {
			s.Tx.TxIn[s.Index].SignatureScript = pushes(legacy(s, redeem, 0), redeem)
		}})
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // of fixed input
	}
	return v
}
