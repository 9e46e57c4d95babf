package chain_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mining"
)

// A chain is opened and run; blocks are made on it, and a reader follows its tip.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "chain")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	params := consensus.Regtest()
	engine := pow.New(params)
	c, err := chain.Open(chain.Options{Dir: dir, Params: params, Engine: engine})
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()

	miner, err := mining.New(mining.Options{Chain: c, Engine: engine, Sealer: pow.NewSealer(1), PayTo: []byte{0x51}})
	if err != nil {
		panic(err)
	}
	mined := make(chan error, 1)
	go func() {
		var err error
		for _, data := range []string{"one", "two", "three"} {
			if err == nil {
				_, _, err = miner.MineOne(ctx, data)
			}
		}
		mined <- err
	}()

	// A slow reader sees the newest tip only, and holds nobody up.
	tip, moved := c.Tip()
	for tip.Height < 3 {
		<-moved
		tip, moved = c.Tip()
	}
	if err := <-mined; err != nil { // the last one is on disk now
		panic(err)
	}
	raw, err := c.Block(tip.Hash)
	if err != nil {
		panic(err)
	}
	block, err := consensus.DecodeBlock(params, raw)
	if err != nil {
		panic(err)
	}
	fmt.Println(tip.Height, consensus.CoinbaseData(block))

	cancel()
	fmt.Println(<-done)
	fmt.Println(c.Close())
	// Output:
	// 3 three
	// context canceled
	// <nil>
}

// Blocks of others are submitted as bytes. The ticket says what became of one, and an error whose fault it is.
func ExampleChain_Submit() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from, stop := exampleChain(ctx)
	defer stop()
	to, stop := exampleChain(ctx)
	defer stop()
	miner, err := mining.New(mining.Options{Chain: from, Engine: pow.New(from.Params()), Sealer: pow.NewSealer(1), PayTo: []byte{0x51}})
	if err != nil {
		panic(err)
	}
	var raw [][]byte
	for range 2 {
		b, _, err := miner.MineOne(ctx, "")
		if err != nil {
			panic(err)
		}
		raw = append(raw, b.Raw)
	}
	submit := func(raw []byte) chain.Verdict {
		t, err := to.Submit(ctx, raw, chain.Source{Kind: chain.FromImport})
		if err != nil {
			panic(err)
		}
		return t.Wait(ctx)
	}
	fmt.Println(submit(raw[1]).Outcome == chain.Orphan)
	fmt.Println(submit(raw[0]).Outcome == chain.Connected)
	fmt.Println(submit(raw[0]).Outcome == chain.Duplicate)
	v := submit(raw[1][:100])
	var rule *consensus.RuleError
	fmt.Println(v.Outcome == chain.Refused, errors.As(v.Err, &rule) && rule.Blame == consensus.BlameSender)
	v = submit(raw[1])
	fmt.Println(v.Outcome == chain.Connected, v.Height)
	// Output:
	// true
	// true
	// true
	// true true
	// true 2
}

// exampleChain runs a chain in a folder of its own until stop, and then removes the folder.
func exampleChain(ctx context.Context) (c *chain.Chain, stop func()) {
	dir, err := os.MkdirTemp("", "chain")
	if err != nil {
		panic(err)
	}
	params := consensus.Regtest()
	if c, err = chain.Open(chain.Options{Dir: dir, Params: params, Engine: pow.New(params)}); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		<-done
		if err := errors.Join(c.Close(), os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	}
}
