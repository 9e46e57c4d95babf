package staking_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/staking"
)

// A bench is a sealer alone: a past that grows by hand, coins in a map, a clock that can
// be set.
type bench struct {
	t      *testing.T
	p      *consensus.Params
	engine *pos.Engine
	past   *enginetest.Chain
	coins  enginetest.CoinSet
	sealer *staking.Sealer

	mu     sync.Mutex
	set    time.Duration // what the clock was set forward by
	why    string        // Ready's
	locked error
	fault  error // of Coins
	stakes []staking.Coin
	fs     *vfs.MemFS
}

// newBench returns the bench of a holder with all the stake. Slots are those of virtual time.
func newBench(t *testing.T, change func(*staking.Options)) *bench {
	t.Helper()
	b := &bench{t: t, p: network(t, time.Now(), 600, 400), coins: make(enginetest.CoinSet), fs: vfs.NewMem()}
	b.engine, b.past = pos.New(b.p), enginetest.NewChain(b.p)
	b.coins.Connect(0, b.p.GenesisBlock())
	for _, c := range stakesIn(b.coins, 1, 2) {
		b.stakes = append(b.stakes, c)
	}
	b.open(change)
	return b
}

// open makes the sealer anew, as after a restart.
func (b *bench) open(change func(*staking.Options)) {
	o := staking.Options{
		Params: b.p, Engine: b.engine, Coins: b.coins, Holder: b, Journal: journal(b.t, b.fs, before), Now: b.now,
		Ready: func() (bool, string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.why == "", b.why
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if b.sealer, err = staking.NewSealer(o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.set)
}

// Coins implements staking.Holder.
func (b *bench) Coins() ([]staking.Coin, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]staking.Coin{}, b.stakes...), b.fault
}

// Ready implements staking.Holder.
func (b *bench) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.locked
}

// Sign implements staking.Holder.
func (b *bench) Sign(s *pos.Stake, h *consensus.Header) ([64]byte, error) {
	for n := byte(1); n <= 2; n++ {
		if s.Key == xOnly(key(n)) {
			hash := consensus.HeaderHash(h)
			sig, err := schnorr.Sign(key(n), hash[:])
			return [64]byte(sig.Serialize()), err
		}
	}
	return [64]byte{}, errors.New("no such key")
}

func (b *bench) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// slot is the present one, by the sealer's clock.
func (b *bench) slot() int64 {
	slot, _ := pos.Slot(b.p, b.now().Unix())
	return slot
}

// prepare calls Prepare with a time limit; ok false: nothing was won in it.
func (b *bench) prepare(limit time.Duration) (plan consensus.Plan, slot int64, ok bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	plan, err := b.sealer.Prepare(ctx.Done(), b.past)
	if err == context.Canceled { //nolint:errorlint // exactly it
		return plan, 0, false
	}
	if err != nil {
		b.t.Fatal(err)
	}
	slot, begins := pos.Slot(b.p, plan.Time)
	if !begins {
		b.t.Errorf("time %d begins no slot", plan.Time)
	}
	return plan, slot, true
}

// seal makes the header of a plan and seals it; unique makes its root.
func (b *bench) seal(plan consensus.Plan, unique byte) (*consensus.Header, error) {
	h := &consensus.Header{BlockHeader: wire.BlockHeader{
		Version: b.p.BlockVersion(b.past), PrevBlock: b.past.Hash(), Timestamp: time.Unix(plan.Time, 0), Nonce: plan.Nonce,
		Bits: b.engine.NextBits(b.past, time.Unix(plan.Time, 0)),
	}, Seal: plan.Seal}
	h.MerkleRoot[0] = unique
	ok, err := b.sealer.Seal(b.t.Context().Done(), h)
	if ok != (err == nil) {
		b.t.Errorf("%v, %v", ok, err)
	}
	return h, err
}

// sleep lets virtual time pass.
func sleep(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// TestSlots: a plan comes when its slot begins, and its header passes the engine at that
// moment by our clock.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for range 50 {
			plan, slot, ok := b.prepare(time.Hour)
			if !ok || slot != b.slot() || time.Now().UnixNano()%1e9 != 0 {
				t.Fatalf("slot %d at %v", slot, time.Now())
			}
			h, err := b.seal(plan, 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.engine.CheckHeader(b.past, h, time.Now()); err != nil {
				t.Fatal(err)
			}
			stake, _, _ := pos.ParseSeal(h.Seal)
			if string(plan.PayTo) != string(stake.Script()) || len(plan.Outputs) != 1 || string(plan.Outputs[0].PkScript) != string(stake.Commitment()) {
				t.Errorf("plan %+v", plan)
			}
			b.past.Append(h)
		}
	})
}

// TestLate: a slot that was won is used until a slot after its end, when the parent came late
// or we did; those before are not, however long nobody made a block.
func TestLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		_, first, _ := b.prepare(time.Hour)
		sleep(time.Until(time.Unix(pos.SlotTime(b.p, first+1), 0)) + 900*time.Millisecond)
		if _, slot, ok := b.prepare(0 + time.Millisecond); !ok || slot != first {
			t.Errorf("slot %d %v in the slot after %d, which was won", slot, ok, first)
		}
		sleep(200 * time.Millisecond)
		if _, slot, ok := b.prepare(time.Hour); !ok || slot <= first {
			t.Errorf("slot %d %v, %d is over", slot, ok, first)
		}
		sleep(1000 * time.Hour)
		now := b.slot()
		if _, slot, ok := b.prepare(time.Hour); !ok || slot < now-1 {
			t.Errorf("slot %d %v after an outage that ended in slot %d", slot, ok, now)
		}
	})
}

// TestNeverTwice: a slot that was signed for is not won again, on no parent and after no
// restart; where one stake cannot another may.
func TestNeverTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		type signature struct {
			slot int64
			coin wire.OutPoint
		}
		signed := make(map[signature]bool)
		for n := range 60 {
			plan, slot, ok := b.prepare(time.Hour)
			if !ok {
				t.Fatal("nothing won")
			}
			stake, _, _ := pos.ParseSeal(plan.Seal)
			if signed[signature{slot, stake.OutPoint}] {
				t.Fatalf("slot %d won again by %v", slot, stake.OutPoint)
			}
			signed[signature{slot, stake.OutPoint}] = true
			if _, err := b.seal(plan, 1); err != nil {
				t.Fatal(err)
			}
			// Whoever had prepared it before does not get it either.
			if _, err := b.seal(plan, 2); !errors.Is(err, consensus.ErrStale) {
				t.Errorf("sealed twice: %v", err)
			}
			switch n % 3 { // the parent stays: the block was not heard of
			case 1: // somebody sets the clock back
				b.do(func() { b.set -= 3 * time.Second })
			case 2:
				b.do(func() { b.set -= 3 * time.Second })
				b.open(nil)
			}
		}
	})
}

// TestClockJumps: after a jump nothing is made for four slots, then in present slots only.
func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forward": time.Hour, "back": -time.Minute, "by a slot": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				sleep(10 * time.Minute)
				var jumped int64
				go func() {
					sleep(500 * time.Millisecond)
					b.do(func() { b.set += jump })
					slot := b.slot()
					b.do(func() { jumped = slot })
				}()
				// Without coins for a moment, so that it waits over the jump.
				var stakes []staking.Coin
				b.do(func() { stakes, b.stakes = b.stakes, nil })
				go func() {
					sleep(1600 * time.Millisecond)
					b.do(func() { b.stakes = stakes })
					if why := b.sealer.Obstacle(b.past); !strings.HasPrefix(why, "the clock jumped by") {
						t.Errorf("%q", why)
					}
				}()
				_, slot, ok := b.prepare(time.Hour)
				b.mu.Lock()
				defer b.mu.Unlock()
				if now, _ := pos.Slot(b.p, time.Now().Add(b.set).Unix()); !ok || slot < jumped+4 || slot < now-1 {
					t.Errorf("slot %d %v, the clock jumped in %d", slot, ok, jumped)
				}
			})
		})
	}
}

// TestObstacles: what is in the way is said, and once it is not, blocks are made within
// a second or so.
func TestObstacles(t *testing.T) {
	young := func(b *bench) {
		for i := range b.stakes {
			b.stakes[i].Height = 1
		}
	}
	for _, c := range []struct {
		want string
		set  func(b *bench)
		free func(b *bench)
	}{
		{"not synced: blocks", func(b *bench) { b.why = "not synced: blocks" }, func(b *bench) { b.why = "" }},
		{"the wallet is locked", func(b *bench) { b.locked = errors.New("the wallet is locked") }, func(b *bench) { b.locked = nil }},
		{"looking for coins", func(b *bench) { b.fault = staking.ErrSearching }, func(b *bench) { b.fault = nil }},
		{"no coins: a stake is", func(b *bench) { b.fs, b.stakes = vfs.NewMem(), nil }, func(b *bench) {
			for _, s := range stakesIn(b.coins, 1, 2) {
				b.stakes = append(b.stakes, s)
			}
		}},
		{"no mature coins: the first is in 100 blocks", young, func(b *bench) {
			for i := range b.stakes {
				b.stakes[i].Height = 0
			}
		}},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				sleep(time.Minute)
				b.do(func() { c.set(b) })
				if why := b.sealer.Obstacle(b.past); !strings.HasPrefix(why, c.want) {
					t.Errorf("%q, want %q", why, c.want)
				}
				if _, slot, ok := b.prepare(time.Hour); ok {
					t.Errorf("slot %d won", slot)
				}
				freed := b.slot()
				b.do(func() { c.free(b) })
				if why := b.sealer.Obstacle(b.past); why != "" {
					t.Errorf("%q", why)
				}
				if _, slot, ok := b.prepare(time.Hour); !ok || slot < freed-1 {
					t.Errorf("slot %d %v, free since %d", slot, ok, freed)
				}
			})
		})
	}
}

// TestLockedMeanwhile: a wallet that is locked between winning and signing does not take the
// slot from its stake.
func TestLockedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		plan, _, _ := b.prepare(time.Hour)
		b.do(func() { b.locked = errors.New("locked") })
		if _, err := b.seal(plan, 1); !errors.Is(err, consensus.ErrStale) {
			t.Error(err)
		}
		b.do(func() { b.locked = nil })
		if _, err := b.seal(plan, 2); err != nil {
			t.Error(err)
		}
	})
}

// TestSpentStake: a coin that the holder still lists and the parent has spent is no stake, nor
// is one with another value.
func TestSpentStake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for op, coin := range b.coins {
			if coin.Value == 600e8 {
				delete(b.coins, op)
			}
		}
		for range 20 {
			plan, slot, ok := b.prepare(time.Hour)
			if !ok {
				t.Fatal("nothing won")
			}
			if stake, _, _ := pos.ParseSeal(plan.Seal); stake.Value != 400e8 {
				t.Errorf("slot %d won by %d satoshi", slot, stake.Value)
			}
			sleep(3 * time.Second)
		}
	})
}

// TestTooManyCoins: the largest take part.
func TestTooManyCoins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *staking.Options) { o.MaxCoins = 1 })
		c := b.sealer.Chances(b.past)
		if c.Coins != 1 || c.Weight != 600e8 || c.Slot < 0.1 || c.Slot > 0.2 || c.Time < 4*time.Second || c.Time > 10*time.Second {
			t.Errorf("%+v", c)
		}
		for range 20 {
			plan, _, ok := b.prepare(time.Hour)
			if !ok {
				t.Fatal("nothing won")
			}
			if stake, _, _ := pos.ParseSeal(plan.Seal); stake.Value != 600e8 {
				t.Errorf("won by %d satoshi", stake.Value)
			}
			sleep(3 * time.Second)
		}
	})
}

// TestFreshJournal: nothing is signed in the slot in which a node starts.
func TestFreshJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *staking.Options) {
			sleep(10 * time.Minute)
			o.Journal = journal(t, vfs.NewMem(), 600)
		})
		if why := b.sealer.Obstacle(b.past); !strings.HasPrefix(why, "just started") {
			t.Errorf("%q", why)
		}
		if _, slot, ok := b.prepare(time.Hour); !ok || slot <= 600 {
			t.Errorf("slot %d %v", slot, ok)
		}
		sleep(2 * time.Second)
		if why := b.sealer.Obstacle(b.past); why != "" {
			t.Errorf("%q", why)
		}
	})
}
