package staking_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/staking"
)

// builder makes blocks of a network with the stake of all its holders.
func builder(p *consensus.Params) *enginetest.Builder {
	var keys []*btcec.PrivateKey
	for n := range p.Genesis.Transactions[0].TxOut {
		keys = append(keys, key(byte(n+1)))
	}
	s := enginetest.NewStakers(p, keys...)
	b := enginetest.NewBuilder(p)
	b.Engine, b.Prepare, b.Seal = pos.New(p), s.Prepare, s.Seal
	return b
}

// pay spends a coin of the n-th key to scripts, in equal parts.
func pay(t testing.TB, op wire.OutPoint, coin consensus.Coin, n byte, scripts ...[]byte) *wire.MsgTx {
	t.Helper()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(&wire.TxIn{PreviousOutPoint: op})
	for _, s := range scripts {
		tx.AddTxOut(wire.NewTxOut(coin.Value/int64(len(scripts)), s))
	}
	fetch := txscript.NewCannedPrevOutputFetcher(coin.Script, coin.Value)
	witness, err := txscript.TaprootWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetch), 0, coin.Value, coin.Script, txscript.SigHashDefault, internal(n))
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	return tx
}

func submit(t testing.TB, c *chain.Chain, b *consensus.Block) chain.Verdict {
	t.Helper()
	ticket, err := c.Submit(t.Context(), b.Raw, chain.Source{Kind: chain.FromRPC})
	if err != nil {
		t.Fatal(err)
	}
	v := ticket.Wait(t.Context())
	if v.Err != nil {
		t.Fatal(v.Err)
	}
	return v
}

// stakesIn are the coins of a set that pay one of the keys.
func stakesIn(set enginetest.CoinSet, keys ...byte) map[wire.OutPoint]staking.Coin {
	out := make(map[wire.OutPoint]staking.Coin)
	for op, c := range set {
		for _, n := range keys {
			if string(c.Script) == string(script(n)) {
				out[op] = staking.Coin{Stake: pos.Stake{OutPoint: op, Value: c.Value, Key: xOnly(key(n))}, Height: c.Height}
			}
		}
	}
	return out
}

func wantCoins(t *testing.T, f *staking.Finder, want map[wire.OutPoint]staking.Coin, what string) {
	t.Helper()
	coins, err := f.Coins()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got := make(map[wire.OutPoint]staking.Coin)
	for _, c := range coins {
		got[c.OutPoint] = c
	}
	if !maps.Equal(got, want) || len(coins) != len(want) {
		t.Errorf("%s: %d coins, want %d:\n%v\n%v", what, len(coins), len(want), got, want)
	}
}

// TestFinder: over a random tree of blocks whose transactions move coins among keys that
// are held and others, the finder knows at each tip what a replay of its branch does.
func TestFinder(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			p := network(t, time.Now().Add(-24*time.Hour), 400, 300, 200, 100)
			c := open(t, p)
			b := builder(p)
			h := newHolder(c, key(1), key(2))
			if _, err := h.Coins(); err == nil {
				t.Error("coins before they were looked for")
			}
			run(t, h.finder.Run)
			synctest.Wait()
			wantCoins(t, h.finder, stakesIn(b.Coins(p.GenesisHash), 1, 2), "genesis")
			blocks := []*consensus.Block{b.Genesis()}
			for n := range 50 {
				// Mostly on the latest, sometimes a few below: branches that win later.
				parent := blocks[max(0, len(blocks)-1-max(0, r.IntN(10)-5))]
				set := b.Coins(parent.Hash)
				ops := slices.SortedFunc(maps.Keys(set), func(x, y wire.OutPoint) int {
					return slices.Compare(append(x.Hash[:], byte(x.Index)), append(y.Hash[:], byte(y.Index)))
				})
				tpl := enginetest.Template{Script: script(byte(1 + r.IntN(5)))}
				height := b.Height(parent.Hash) + 1
				for range r.IntN(3) {
					op := ops[r.IntN(len(ops))]
					coin := set[op]
					by := byte(0)
					for k := byte(1); k <= 5; k++ {
						if string(coin.Script) == string(script(k)) {
							by = k
						}
					}
					if by == 0 || coin.Coinbase || coin.Value < 10 || slices.ContainsFunc(tpl.Txs, func(tx *wire.MsgTx) bool { return tx.TxIn[0].PreviousOutPoint == op }) {
						continue
					}
					// Initial stake of keys 3 and 4 stays, so that somebody makes the blocks.
					if coin.Height == 0 && by > 2 {
						continue
					}
					tpl.Txs = append(tpl.Txs, pay(t, op, coin, by, script(byte(1+r.IntN(5))), script(byte(1+r.IntN(5)))))
				}
				block := b.MineTemplate(parent, tpl)
				blocks = append(blocks, block)
				submit(t, c, block)
				if n%3 != 0 { // several at once, now and then
					synctest.Wait()
					tip, _ := c.Tip()
					wantCoins(t, h.finder, stakesIn(b.Coins(tip.Hash), 1, 2), "height")
				}
				if t.Failed() {
					t.Fatalf("seed %d, block %d at height %d", seed, n, height)
				}
			}
		})
	}
}

// TestFinderBound: the largest coins are kept, and small ones are found when there is room.
func TestFinderBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now().Add(-24*time.Hour), 100, 90, 80, 70, 60, 50, 40, 30, 20, 10)
		c := open(t, p)
		b := builder(p)
		f := staking.NewFinder(staking.FinderOptions{Chain: c, Max: 4, Held: func(key [32]byte) bool { return true }})
		run(t, f.Run)
		synctest.Wait()
		values := func() (out []int64) {
			coins, err := f.Coins()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range coins {
				out = append(out, c.Value/1e8)
			}
			slices.Sort(out)
			return out
		}
		if got := values(); !slices.Equal(got, []int64{70, 80, 90, 100}) {
			t.Errorf("%v", got)
		}
		// The four largest are gone: others take their places.
		tip := b.Genesis()
		for n := range uint32(3) {
			op := wire.OutPoint{Hash: *b.Genesis().Txs[0].Hash(), Index: n}
			coin := b.Coins(tip.Hash)[op]
			tip = b.MineTemplate(tip, enginetest.Template{Txs: []*wire.MsgTx{pay(t, op, coin, byte(n+1), enginetest.OpTrue())}})
			submit(t, c, tip)
		}
		timer := time.NewTimer(5 * time.Second) // virtual: it looks again each second
		<-timer.C
		synctest.Wait()
		if got := values(); !slices.Equal(got, []int64{40, 50, 60, 70}) {
			t.Errorf("afterwards %v", got)
		}
	})
}

// TestFinderWaits: nothing is looked for before the chain is synced.
func TestFinderWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := network(t, time.Now().Add(-time.Hour), 100)
		c := open(t, p)
		began := time.Now()
		f := staking.NewFinder(staking.FinderOptions{
			Chain: c, Held: func([32]byte) bool { return true }, Synced: func() bool { return time.Since(began) > 10*time.Second },
		})
		run(t, f.Run)
		synctest.Wait()
		if _, err := f.Coins(); err != staking.ErrSearching { //nolint:errorlint // exactly it
			t.Error(err)
		}
		timer := time.NewTimer(12 * time.Second)
		<-timer.C
		synctest.Wait()
		if coins, err := f.Coins(); err != nil || len(coins) != 1 {
			t.Error(coins, err)
		}
	})
}
