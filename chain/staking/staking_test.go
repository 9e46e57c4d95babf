package staking_test

import (
	"testing"
	"testing/synctest"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/mining"
	"dunlin/chain/staking"
)

// TestStake: a miner with a staking sealer makes valid blocks, each at the beginning of
// its slot by our clock and never before, and the rewards join the stake once mature.
func TestStake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now(), 600, 400)
		c := open(t, p)
		h := newHolder(c, key(1), key(2))
		made := 0
		_, m := staker(t, c, h, func(_ *staking.Options, o *mining.Options) {
			o.OnSealed = func(b *consensus.Block) {
				made++
				if late := time.Since(b.Header.Timestamp); late < 0 || late > time.Second {
					t.Errorf("block %s of %v made at %v", b.Hash, b.Header.Timestamp, time.Now())
				}
			}
		})
		run(t, m.Run)
		const n = 120
		began := time.Now()
		tip := height(t, c, n)
		if made < n || m.Status().Blocks < n {
			t.Errorf("%d blocks made, %+v", made, m.Status())
		}
		// A block every four slots, more or less.
		if took := time.Since(began); took < 2*n*time.Second || took > 8*n*time.Second {
			t.Errorf("%d blocks took %v", n, took)
		}
		coins, err := h.Coins()
		if err != nil || len(coins) < 2+n {
			t.Errorf("%d coins at height %d: %v", len(coins), tip.Height, err)
		}
		young := 0
		for height := int32(1); height <= n; height++ {
			b := block(t, c, height)
			stake, _, err := pos.ParseSeal(b.Header.Seal)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Txs[0].MsgTx().TxOut[0].PkScript; string(got) != string(stake.Script()) {
				t.Errorf("block %d pays %x, not its stake", height, got)
			}
			if stake.OutPoint.Hash != *block(t, c, 0).Txs[0].Hash() {
				young++
			}
		}
		if young > 20 {
			t.Errorf("%d blocks by rewards, which are mature for 20 blocks", young)
		}
	})
}
