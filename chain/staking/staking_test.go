package staking_test

import (
	"context"
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
		synctest.Wait()
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

// TestMineOne: whoever asks for a block gets the next slot that is won, before a miner that
// runs does, and several get one each; who does not want to wait does not.
func TestMineOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now(), 600, 400)
		c := open(t, p)
		_, m := staker(t, c, newHolder(c, key(1), key(2)), nil)
		run(t, m.Run)
		height(t, c, 3)
		asked, _ := c.Tip()
		type answer struct {
			height int32
			data   string
		}
		answers := make(chan answer)
		const n = 5
		for i := range n {
			data := "data " + string(rune('a'+i))
			go func() {
				b, height, err := m.MineOne(t.Context(), data)
				if err != nil || consensus.CoinbaseData(b) != data {
					t.Errorf("%s: %v", data, err)
				}
				answers <- answer{height, data}
			}()
		}
		heights := make(map[int32]bool)
		for range n {
			a := <-answers
			if heights[a.height] || a.height > asked.Height+n || consensus.CoinbaseData(block(t, c, a.height)) != a.data {
				t.Errorf("%+v asked at height %d", a, asked.Height)
			}
			heights[a.height] = true
		}
		height(t, c, asked.Height+n+3) // it goes on by itself
		m.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := m.MineOne(ctx, "x"); err != context.DeadlineExceeded { //nolint:errorlint // exactly it
			t.Error(err)
		}
		if b, _, err := m.MineTo(t.Context(), script(9), "y"); err != nil || string(b.Txs[0].MsgTx().TxOut[0].PkScript) != string(script(9)) {
			t.Error(err)
		}
		if err := m.Pay(nil); err != nil {
			t.Error(err)
		}
	})
}

// TestChances: two miners that hear each other's blocks at once win in proportion to what they
// have, and one with little says how long it takes.
func TestChances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now(), 900, 100)
		c := open(t, p)
		_, big := staker(t, c, newHolder(c, key(1)), nil)
		h := newHolder(c, key(2))
		s, small := staker(t, c, h, nil)
		run(t, big.Run)
		run(t, small.Run)
		tip := height(t, c, 300)
		past, _ := c.Past(tip.Hash)
		got := s.Chances(past)
		if got.Weight < 100e8 || got.Network < 700e8 || got.Network > 1600e8 || got.Share < 0.05 || got.Share > 0.3 {
			t.Errorf("%+v", got)
		}
		won := small.Status().Blocks
		if won < 10 || won > 60 {
			t.Errorf("%d of 300 blocks with a tenth of the stake", won)
		}
		if got.Time < 10*time.Second || got.Time > 120*time.Second { // four slots of a second for all
			t.Errorf("one in %v", got.Time)
		}
	})
}
