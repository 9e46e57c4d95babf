package pos_test

import (
	"fmt"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// How often somebody with two coins wins a slot, and how long that takes.
func ExampleOdds() {
	p := consensus.Stakenet()
	bits := p.GenesisBlock().Header.Bits
	var odds pos.Odds
	for _, satoshi := range []int64{1000e8, 500e8} {
		odds.Add(pos.Chance(bits, satoshi))
	}
	fmt.Printf("%.6f a slot, one in %s\n", odds.Chance(), odds.Time(p).Round(time.Minute))
	// Output:
	// 0.000375 a slot, one in 11h51m0s
}
