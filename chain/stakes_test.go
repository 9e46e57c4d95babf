package chain_test

import (
	"fmt"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// A header whose stake is not there is told from others without its block, on the tip, below
// it and above a block beside the chain; a coin that was spent since was there all the same.
func TestStakesBelowTheTip(t *testing.T) {
	p := consensus.Stakenet()
	b, blocks := stakers(p, 8)
	stake, key, move := holder(t, p, 4)
	blocks = append(blocks, b.Mine(blocks[8], move)) // 9 spends it
	blocks = append(blocks, b.MineN(blocks[9], 3)...)
	h := openStakenet(t, p)
	h.connectAll(blocks[1:])
	nobody, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	check := func(blk *consensus.Block, rule string) {
		t.Helper()
		_, _, err := h.CheckHeader(&blk.Header)
		if rule == "" {
			if err != nil {
				t.Errorf("an honest header: %v", err)
			}
			return
		}
		wantBlame(t, err, rule, consensus.BlameNobody)
	}
	beside := b.MineN(blocks[6], 2)
	look := func() {
		t.Helper()
		for _, at := range []int{12, 11, 9, 8, 5, 0} {
			check(forgeChild(t, b, blocks[at], wire.OutPoint{Index: 1}, nobody, fmt.Sprint("made up", at)), "bad-stake-missing")
			check(forgeChild(t, b, blocks[at], stakeOf(t, p, 2), nobody, fmt.Sprint("another's", at)), "bad-stake-value")
			rule := ""
			if at >= 9 {
				rule = "bad-stake-missing"
			}
			check(claimChild(t, b, blocks[at], stake, key, fmt.Sprint("spent", at)), rule)
		}
		check(b.Mine(blocks[3]), "")
		if _, _, err := h.AcceptHeaders(t.Context(), headersOf(beside)); err != nil {
			t.Fatal(err)
		}
		check(forgeChild(t, b, beside[1], wire.OutPoint{Index: 1}, nobody, "above"), "bad-stake-missing")
		check(claimChild(t, b, beside[1], stake, key, "above"), "")
	}
	look()
	h.reopen()
	look()
	// On a branch that takes the place of the spending block the coin is there.
	branch := b.MineN(blocks[7], 6)
	for _, blk := range branch {
		if v := h.submit(blk.Raw); v.Outcome != chain.SideChain && v.Outcome != chain.Connected {
			t.Fatalf("%+v", v)
		}
	}
	h.wantTip(branch[5])
	check(claimChild(t, b, branch[5], stake, key, "there"), "")
	check(claimChild(t, b, branch[1], stake, key, "there"), "")
	check(claimChild(t, b, blocks[7], stake, key, "there"), "")
	check(forgeChild(t, b, blocks[7], wire.OutPoint{Index: 1}, nobody, "made up again"), "bad-stake-missing")
}

// stakeOf is the coin of a holder.
func stakeOf(t *testing.T, p *consensus.Params, n int) wire.OutPoint {
	t.Helper()
	stake, _, _ := holder(t, p, n)
	return stake.OutPoint
}

// Refused branches that anybody could have made do not make one be forgotten that cost a
// stake, nor do all those of one holder.
func TestRefusedBranchesOfNobody(t *testing.T) {
	d := newDeepBench(t)
	d.grow(20)
	p := d.b.Params
	nobody, _ := btcec.PrivKeyFromBytes([]byte{31: 7})
	// A first block by a holder, then as many made-up headers as it takes.
	branch := func(first *consensus.Block) []*consensus.Block {
		blocks := []*consensus.Block{first}
		for range 24 {
			first = forgeChild(t, d.b, first, wire.OutPoint{Index: 9}, nobody, "more")
			blocks = append(blocks, first)
		}
		d.at(first)
		_, _, err := d.AcceptHeaders(t.Context(), headersOf(blocks))
		d.wantNobody(err)
		return blocks
	}
	one, oneKey, _ := holder(t, p, 1)
	real1 := branch(claimChild(t, d.b, d.main[3], one, oneKey, "real"))
	shown := func() bool {
		for _, r := range d.Refused() {
			if r.First == real1[0].Hash {
				return true
			}
		}
		return false
	}
	for k := range 20 {
		branch(forgeChild(t, d.b, d.main[3], wire.OutPoint{Index: 9}, nobody, fmt.Sprint(k)))
		if !shown() {
			t.Fatalf("forgotten for %d branches of nobody", k+1)
		}
	}
	two, twoKey, _ := holder(t, p, 2)
	for k := range 20 {
		branch(claimChild(t, d.b, d.main[4], two, twoKey, fmt.Sprint(k)))
		if !shown() {
			t.Fatalf("forgotten for %d branches of another holder", k+1)
		}
	}
	if n := len(d.Refused()); n != 16 {
		t.Errorf("%d branches are remembered", n)
	}
}
