package mempool_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// A transaction spends the reward of a block, waits in the pool and is mined.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "mempool")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	params := *consensus.Regtest()
	params.CoinbaseMaturity = 1 // a network on which rewards can be spent at once
	engine := pow.New(&params)
	c, err := chain.Open(chain.Options{Dir: dir, Params: &params, Engine: engine})
	if err != nil {
		panic(err)
	}
	pool, err := mempool.New(mempool.Options{Chain: c})
	if err != nil {
		panic(err)
	}
	chainDone, poolDone := make(chan error, 1), make(chan error, 1)
	go func() { chainDone <- c.Run(ctx) }()
	go func() { poolDone <- pool.Run(ctx) }()

	anyone := []byte{0x51} // a script that everyone can satisfy, paid to by its hash (P2WSH)
	hash := sha256.Sum256(anyone)
	script := append([]byte{0x00, 0x20}, hash[:]...)
	miner, err := mining.New(mining.Options{Chain: c, Engine: engine, Sealer: pow.NewSealer(1), Pool: pool, PayTo: script})
	if err != nil {
		panic(err)
	}
	block, _, err := miner.MineOne(ctx, "")
	if err != nil {
		panic(err)
	}
	coinbase := block.Txs[0]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(coinbase.Hash(), 0), nil, wire.TxWitness{anyone}))
	tx.AddTxOut(wire.NewTxOut(coinbase.MsgTx().TxOut[0].Value-1000, script))
	accepted, err := pool.Submit(ctx, tx, "")
	fmt.Println(len(accepted), "accepted", err)
	entry, _ := pool.Get(tx.TxHash())
	fmt.Println("fee", entry.Fee)

	twice := tx.Copy()
	twice.TxOut[0].Value += 500 // pays less than the one that is here
	_, err = pool.Submit(ctx, twice, "")
	var conflict *mempool.ConflictError
	fmt.Println("conflict", errors.As(err, &conflict) && conflict.By == tx.TxHash())

	block, _, err = miner.MineOne(ctx, "")
	if err != nil {
		panic(err)
	}
	fmt.Println("mined", block.Txs[1].Hash().IsEqual(new(tx.TxHash())))

	cancel()
	<-poolDone // before the chain, which it follows
	<-chainDone
	fmt.Println(c.Close())
	// Output:
	// 1 accepted <nil>
	// fee 1000
	// conflict true
	// mined true
	// <nil>
}
