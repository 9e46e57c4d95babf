package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/internal/api"
)

func holderKey(n int) (key [32]byte) {
	binary.BigEndian.PutUint64(key[:], uint64(n))
	return key
}

func stakeCoin(n int, value int64, height int32) consensus.Coin {
	s := pos.Stake{Key: holderKey(n)}
	return consensus.Coin{Value: value, Script: s.Script(), Height: height}
}

// walking is a walk over coins as of a tip, once a call; calls counts them.
func walking(coins []consensus.Coin, tip chain.Tip, calls *int) walk {
	return func(ctx context.Context, begin func(chain.Tip) func(wire.OutPoint, consensus.Coin) error) (chain.Tip, error) {
		*calls++
		// A walk that a commit ended before it had begun does not count.
		begin(chain.Tip{Height: tip.Height - 1})
		f := begin(tip)
		for _, c := range coins {
			if err := errors.Join(f(wire.OutPoint{}, c), ctx.Err()); err != nil {
				return chain.Tip{}, err
			}
		}
		return tip, nil
	}
}

// chanceOf is the chance of a satoshi at any tip.
func chanceOf(x float64) func(chain.Tip) float64 { return func(chain.Tip) float64 { return x } }

func TestCensus(t *testing.T) {
	p := consensus.Stakenet()
	coins := []consensus.Coin{
		stakeCoin(1, 50, 0), stakeCoin(2, 30, 0), stakeCoin(1, 7, 101), stakeCoin(1, 5, 150), stakeCoin(3, 9, 199),
		{Value: 1000, Script: []byte{0x51}, Height: 3}, // nobody's
		{Value: 1000, Script: make([]byte, 34), Height: 3},
	}
	var calls int
	c, tip, err := takeCensus(t.Context(), p, 10, walking(coins, chain.Tip{Height: 200}, &calls), chanceOf(0.001))
	if err != nil || tip.Height != 200 || calls != 1 || c.known {
		t.Fatalf("tip %d, %d rounds: %v", tip.Height, calls, err)
	}
	for n, want := range map[int]holding{
		1: {coins: 3, value: 62, matureCoins: 2, ready: 57, next: 250}, // 101 + 100 is the height of the next block
		2: {coins: 1, value: 30, matureCoins: 1, ready: 30},
		3: {coins: 1, value: 9, next: 299},
	} {
		want.key = holderKey(n)
		got := c.byKey[want.key]
		if got == nil {
			t.Fatalf("no holder %d", n)
		}
		// A coin of 50 and one of 7 miss a slot both.
		if miss := map[int]float64{1: 0.950 * 0.993, 2: 0.970, 3: 1}[n]; math.Abs(1-got.odds.Chance()-miss) > 1e-9 {
			t.Errorf("holder %d wins a slot with %f, want %f", n, got.odds.Chance(), 1-miss)
		}
		if got.odds = 0; *got != want {
			t.Errorf("holder %d: %+v, want %+v", n, got, want)
		}
	}
	c.all.odds = 0
	if want := (holding{coins: 5, value: 101, matureCoins: 3, ready: 87, next: 250}); c.all != want {
		t.Errorf("all: %+v, want %+v", c.all, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := takeCensus(ctx, p, 10, walking(coins, chain.Tip{Height: 200}, &calls), chanceOf(0.001)); !errors.Is(err, context.Canceled) {
		t.Errorf("called away: %v", err)
	}
}

// Dust that pays a hundred thousand keys pushes no real holder out, costs no more memory
// than there is for it, and the numbers of those who stay are exact.
func TestCensusOfDust(t *testing.T) {
	const most, dust, rich = 500, 100_000, 40
	r := rand.New(rand.NewPCG(1, 2))
	var coins []consensus.Coin
	want := map[[32]byte]int64{}
	total := int64(0)
	for n := range dust {
		coins = append(coins, stakeCoin(1000+n, 1+r.Int64N(5), 0))
	}
	for n := range rich {
		for range 50 {
			coins = append(coins, stakeCoin(n, 100+r.Int64N(100), 0))
		}
	}
	r.Shuffle(len(coins), func(i, j int) { coins[i], coins[j] = coins[j], coins[i] })
	for _, c := range coins {
		key, _ := stakeKey(c.Script)
		want[key] += c.Value
		total += c.Value
	}
	var calls int
	c, _, err := takeCensus(t.Context(), consensus.Stakenet(), most, walking(coins, chain.Tip{Height: 200}, &calls), chanceOf(0.001))
	if err != nil || calls != 2 || !c.known {
		t.Fatalf("%d rounds: %v", calls, err)
	}
	if len(c.byKey) > 2*most {
		t.Errorf("%d holders are kept, at most %d may be", len(c.byKey), 2*most)
	}
	for key, value := range want {
		h := c.byKey[key]
		if h == nil && value > total/most {
			t.Errorf("a holder of %d of %d is left out", value, total)
		}
		if h != nil && h.value != value {
			t.Errorf("a holder of %d is said to have %d", value, h.value)
		}
	}
	if c.all.value != total || c.all.coins != int64(len(coins)) {
		t.Errorf("all: %+v, want %d coins of %d", c.all, len(coins), total)
	}
}

func TestHoldersPages(t *testing.T) {
	n := &Node{params: consensus.Stakenet()}
	r := &register{
		tip: chain.Tip{Height: 150}, out: api.StakeHolders{MatureValue: 100, WindowBlocks: 100},
		wins: map[[32]byte]*wins{holderKey(2): {count: 30, last: api.SlotSeen{Height: 149, Slot: 600}}},
	}
	for i := range 7 {
		r.held = append(r.held, &holding{key: holderKey(i), coins: 1, value: 10, ready: 10, next: int32(151 + i)})
	}
	var seen []string
	cursor := ""
	for page := 0; ; page++ {
		after, err := parseHolderCursor(cursor)
		if err != nil {
			t.Fatal(err)
		}
		out := n.holdersPage(r, after, 3)
		for _, h := range out.Holders {
			seen = append(seen, h.Address)
		}
		if page == 0 {
			if h := out.Holders[2]; h.Wins != 30 || h.WinShare != 0.3 || h.LastWin == nil || h.LastWin.Slot != 600 || h.Share != 0.1 || *h.MatureIn != 2 {
				t.Errorf("%+v", h)
			}
			// Who a page ended with is gone by the next: it goes on all the same.
			r.held = slices.Delete(r.held, 2, 3)
		}
		if cursor = out.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 7 || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 7 {
		t.Errorf("pages showed %v", seen)
	}
	for _, bad := range []string{"1", "1-2", "1-2-zz", "x-2-" + fmt.Sprintf("%064x", 1), "1-2-00"} {
		if _, err := parseHolderCursor(bad); err == nil {
			t.Errorf("cursor %q is taken", bad)
		}
	}
}

// One reads for all who ask at the same time; when he is called away the next reads; what
// was read is shown until the tip moves, and longer where reading takes long.
func TestHoldersAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holders
		var mu sync.Mutex
		tip, reads := chain.Tip{Hash: chainhash.Hash{1}}, 0
		at := func() chain.Tip {
			mu.Lock()
			defer mu.Unlock()
			return tip
		}
		read := func(ctx context.Context) (*register, error) {
			mu.Lock()
			reads++
			mu.Unlock()
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return &register{tip: at(), took: time.Second, out: api.StakeHolders{At: time.Now()}}, nil
		}
		away, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := h.get(away, at, read); !errors.Is(err, context.Canceled) {
				t.Errorf("the first reader, who left: %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if r, err := h.get(t.Context(), at, read); err != nil || r == nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		gone, stop := context.WithCancel(t.Context())
		stop()
		if _, err := h.get(gone, at, read); !errors.Is(err, context.Canceled) {
			t.Errorf("who waits and is called away: %v", err)
		}
		leave()
		wg.Wait()
		if reads != 2 {
			t.Errorf("read %d times, want once by him who left and once for all others", reads)
		}
		ask := func(want int) {
			t.Helper()
			if _, err := h.get(t.Context(), at, read); err != nil || reads != want {
				t.Errorf("%d reads, want %d: %v", reads, want, err)
			}
		}
		time.Sleep(time.Hour)
		ask(2) // the tip is the same
		mu.Lock()
		tip.Hash[0]++
		mu.Unlock()
		ask(3)
		mu.Lock()
		tip.Hash[0]++
		mu.Unlock()
		time.Sleep(9 * time.Second)
		ask(3) // ten times as long as it took has not passed
		time.Sleep(2 * time.Second)
		ask(4)
	})
}
