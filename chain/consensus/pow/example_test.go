package pow_test

import (
	"fmt"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
)

// A header is sealed by a search for its nonce.
func ExampleSealer() {
	p := consensus.Regtest()
	h := p.GenesisBlock().Header
	h.PrevBlock = p.GenesisHash
	ok, err := pow.NewSealer(1).Seal(nil, &h)
	hash := consensus.HeaderHash(&h)
	fmt.Println(ok, err, hash[31] < 0x80) // half of all hashes prove enough on this network
	fmt.Println(pow.New(p).Work(&h))
	// Output:
	// true <nil> true
	// 2
}
