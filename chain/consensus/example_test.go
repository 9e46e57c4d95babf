package consensus_test

import (
	"errors"
	"fmt"
	"time"

	"dunlin/chain/consensus"
)

// A network of one's own: whoever has the same fields has the same genesis, and so the same chain id.
func ExampleNew() {
	p, err := consensus.New(consensus.Custom{
		Name: "office", GenesisText: "opened on a Monday", GenesisTime: time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC),
		Spacing: 10 * time.Second, HalvingInterval: 210_000, Subsidy: 50e8,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(p.ChainID(), p.Subsidy(1), p.Subsidy(210_000), consensus.CoinbaseText(p.GenesisBlock()))
	_, err = consensus.New(consensus.Custom{Name: "My Office"})
	fmt.Println(err != nil)
	// Output:
	// office-7dbc2c63 5000000000 2500000000 opened on a Monday
	// true
}

// What comes from a peer is decoded with a limit, and a fault says whom it is held against.
func ExampleDecodeBlock() {
	p := consensus.Regtest()
	raw := p.GenesisBlock().Raw
	b, err := consensus.DecodeBlock(p, raw)
	fmt.Println(len(raw), len(b.Txs), b.Hash, err)

	_, err = consensus.DecodeBlock(p, append(raw, 0))
	var rule *consensus.RuleError
	fmt.Println(errors.As(err, &rule), rule.Blame == consensus.BlameSender)
	// Output:
	// 285 1 0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206 <nil>
	// true true
}
