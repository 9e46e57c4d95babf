package testnet

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// fundBlocks is how many blocks are made in advance for the sender of transactions: the coinbase of a block can be
// spent 100 blocks later, and it wants a few of them.
const fundBlocks = 110

// fundedGenesis is the time of genesis of a chain whose first blocks are made in advance: they have the times that
// they would have had, so the difficulty stays where it is.
func fundedGenesis(now time.Time, spacing time.Duration) time.Time {
	return now.Add(-(fundBlocks + 1) * spacing).UTC().Truncate(time.Second)
}

// fundingBlocks makes the first n blocks of a proof-of-work chain of the easiest difficulty, which pay script.
func fundingBlocks(p *consensus.Params, n int32, script []byte) ([][]byte, error) {
	if p.ProofOfStake() {
		return nil, errors.New("where stake makes blocks none can be made in advance")
	}
	var out [][]byte
	target := blockchain.CompactToBig(p.PowLimitBits)
	prev, at := p.GenesisHash, p.Genesis.Header.Timestamp
	for height := int32(1); height <= n; height++ {
		at = at.Add(p.TargetSpacing)
		coinbase := wire.NewMsgTx(2)
		// BIP54: final only because its lock is one below its height.
		coinbase.LockTime = uint32(height - 1)
		in := &wire.TxIn{
			PreviousOutPoint: *wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), Sequence: wire.MaxTxInSequenceNum - 1,
		}
		var err error
		if in.SignatureScript, err = txscript.NewScriptBuilder().AddOps(consensus.HeightScript(height)).AddData([]byte("made in advance")).Script(); err != nil {
			return nil, err
		}
		coinbase.AddTxIn(in)
		coinbase.AddTxOut(wire.NewTxOut(p.Subsidy(height), script))
		txs := []*wire.MsgTx{coinbase}
		h := consensus.Header{BlockHeader: wire.BlockHeader{
			Version: 0x20000000, PrevBlock: prev, MerkleRoot: consensus.MerkleRoot(txs), Timestamp: at, Bits: p.PowLimitBits,
		}}
		for ; ; h.Nonce++ {
			hash := consensus.HeaderHash(&h)
			if blockchain.HashToBig(&hash).Cmp(target) <= 0 {
				prev = hash
				break
			}
			if h.Nonce == math.MaxUint32 {
				return nil, fmt.Errorf("block %d: no proof of work", height)
			}
		}
		b, err := consensus.NewBlock(p, h, txs)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", height, err)
		}
		out = append(out, b.Raw)
	}
	return out, nil
}
