package enginetest

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// A Recipe is a chain of work or of stake for measuring: two that differ in Stake and
// Holders alone have as many blocks with the same number and kind of transactions, on networks with
// the same rules but for what proves a block.
type Recipe struct {
	Stake   bool
	Holders int // of stake, with as much each, at most 1,000; 0: stakenet's four
	Blocks  int // with Inputs; before them come those that are needed for coins
	Inputs  int // of a block: each of a transaction with one output, paid and signed as P2WPKH
}

const (
	recipeSubsidy = 50e8
	// recipeCoin is what an input is worth, in satoshi, and recipeFan how many one
	// transaction makes of a coinbase.
	recipeCoin, recipeFan = 100_000, 2000
)

// Network is that of the chain: what makes its genesis.
func (r Recipe) Network() consensus.Custom {
	c := consensus.Custom{
		Name: "bench-work", GenesisTime: time.Unix(1_700_000_000, 0), GenesisText: "bench",
		Spacing: 64 * time.Second, HalvingInterval: 1 << 30, Subsidy: recipeSubsidy,
	}
	if !r.Stake {
		return c
	}
	c.Name = "bench-stake"
	if r.Holders == 0 {
		c.Holders = consensus.StakenetHolders()
		return c
	}
	for n := range r.Holders {
		key := [32]byte(schnorr.SerializePubKey(recipeHolder(n).PubKey()))
		c.Holders = append(c.Holders, consensus.Holder{Key: key, Value: 1_000_000e8 / int64(r.Holders)})
	}
	return c
}

func recipeHolder(n int) *btcec.PrivateKey {
	key, _ := btcec.PrivKeyFromBytes(chainhash.HashB(binary.LittleEndian.AppendUint64([]byte("enginetest holder "), uint64(n))))
	return key
}

// Make makes the blocks after genesis. They are the same each time.
func (r Recipe) Make() (*consensus.Params, []*consensus.Block, error) {
	if r.Blocks < 1 || r.Inputs < 0 {
		return nil, nil, errors.New("a chain needs one block or more")
	}
	p, err := consensus.New(r.Network())
	if err != nil {
		return nil, nil, err
	}
	builder := NewBuilder(p)
	if r.Stake {
		var keys []*btcec.PrivateKey
		for n := range r.Holders {
			keys = append(keys, recipeHolder(n))
		}
		s := NewStakers(p, keys...)
		if r.Holders == 0 {
			s = NewStakenet(p)
		}
		builder.Engine, builder.Prepare, builder.Seal = pos.New(p), s.Prepare, s.Seal
	} // else the bits stay at the limit, for each block is in time

	var blocks []*consensus.Block
	tip := builder.Genesis()
	mine := func(t Template) *consensus.Block {
		tip = builder.MineTemplate(tip, t)
		blocks = append(blocks, tip)
		return tip
	}
	key := NewKey(1)
	spend := func(from wire.OutPoint, value int64, outputs int, each int64) *wire.MsgTx {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&from, nil, nil))
		for range outputs {
			tx.AddTxOut(wire.NewTxOut(each, key.Script()))
		}
		key.Sign(tx, []consensus.Coin{{Value: value, Script: key.Script()}})
		return tx
	}
	var lots []*consensus.Block
	for range (r.Blocks*r.Inputs + recipeFan - 1) / recipeFan {
		lots = append(lots, mine(Template{Script: key.Script()}))
	}
	if len(lots) > 0 {
		for range p.CoinbaseMaturity {
			mine(Template{})
		}
	}
	var coins []wire.OutPoint
	for _, lot := range lots {
		tx := spend(wire.OutPoint{Hash: *lot.Txs[0].Hash()}, recipeSubsidy, recipeFan, recipeCoin)
		mine(Template{Txs: []*wire.MsgTx{tx}})
		for k := range uint32(recipeFan) {
			coins = append(coins, wire.OutPoint{Hash: tx.TxHash(), Index: k})
		}
	}
	for range r.Blocks {
		var txs []*wire.MsgTx
		for range r.Inputs {
			txs = append(txs, spend(coins[0], recipeCoin, 1, recipeCoin-1000))
			coins = coins[1:]
		}
		mine(Template{Txs: txs})
	}
	return p, blocks, nil
}
