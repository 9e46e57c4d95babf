package staking_test

import (
	"context"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

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

// TestChances: two miners that hear each other's blocks at once leave no slot unused that
// one of their coins wins, and use none that none does; what each may expect follows from
// its coins, exactly. No luck is in this: who wins which slot is decided by the coins.
func TestChances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now(), 900, 100)
		c := open(t, p)
		_, big := staker(t, c, newHolder(c, key(1)), nil)
		s, small := staker(t, c, newHolder(c, key(2)), nil)
		run(t, big.Run)
		run(t, small.Run)
		tip := height(t, c, 200)
		synctest.Wait()
		big.Stop()
		small.Stop()

		// The coins of both, as they come: nothing is spent, and a reward is its stake's key's.
		var coins []staking.Coin
		add := func(tx *wire.MsgTx, height int32) {
			for i, out := range tx.TxOut {
				if len(out.PkScript) != 34 || out.PkScript[0] != txscript.OP_1 {
					continue
				}
				stake := pos.Stake{OutPoint: wire.OutPoint{Hash: tx.TxHash(), Index: uint32(i)}, Value: out.Value, Key: [32]byte(out.PkScript[2:])}
				coins = append(coins, staking.Coin{Stake: stake, Height: height})
			}
		}
		wins := func(past consensus.Past, slot int64) bool {
			modifier, bits := pos.Modifier(p, past), pos.New(p).NextBits(past, time.Time{})
			return slices.ContainsFunc(coins, func(c staking.Coin) bool {
				return pos.Mature(p, c.Height, past.Height()+1) && pos.Wins(pos.Kernel(modifier, &c.Stake, slot), bits, c.Value)
			})
		}
		genesis := block(t, c, 0)
		add(genesis.Txs[0].MsgTx(), 0)
		const settled = 5 // both miners are at work
		for h, parent := int32(1), genesis; h <= tip.Height; h++ {
			b := block(t, c, h)
			past, _ := c.Past(parent.Hash)
			from, _ := pos.Slot(p, parent.Header.Timestamp.Unix())
			at, _ := pos.Slot(p, b.Header.Timestamp.Unix())
			for slot := from + 1; slot < at && h > settled; slot++ {
				if wins(past, slot) {
					t.Errorf("slot %d was won on block %d, the next block is of slot %d", slot, h-1, at)
				}
			}
			if !wins(past, at) {
				t.Errorf("nobody has won slot %d, of block %d", at, h)
			}
			add(b.Txs[0].MsgTx(), h)
			parent = b
		}

		past, _ := c.Past(tip.Hash)
		got := s.Chances(past)
		bits := pos.New(p).NextBits(past, time.Time{})
		var want staking.Chances
		var odds pos.Odds
		for _, c := range coins {
			switch {
			case c.Key != xOnly(key(2)):
			case pos.Mature(p, c.Height, tip.Height+1):
				want.Coins++
				want.Weight += c.Value
				odds.Add(pos.Chance(bits, c.Value))
			default:
				want.Immature++
				want.Waiting += c.Value
			}
		}
		want.Network = max(pos.Online(p, bits, tip.Height+1), float64(want.Weight))
		want.Share, want.Slot, want.Time = float64(want.Weight)/want.Network, odds.Chance(), odds.Time(p)
		if math.Abs(got.Slot-want.Slot) > 1e-12 || (got.Time-want.Time).Abs() > time.Microsecond {
			t.Errorf("a slot is won with %g, one in %v; want %g, %v", got.Slot, got.Time, want.Slot, want.Time)
		}
		if want.Slot, want.Time = got.Slot, got.Time; got != want { // the order of the coins rounds
			t.Errorf("%+v, want %+v", got, want)
		}
		if made := big.Status().Blocks + small.Status().Blocks; made < int(tip.Height) {
			t.Errorf("%d blocks made, the tip is at height %d", made, tip.Height)
		}
	})
}
