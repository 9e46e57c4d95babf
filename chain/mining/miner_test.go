package mining_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// TestPaced: 200 blocks in virtual time, each accepted, none sooner than the
// interval after the one before and none much later.
func TestPaced(t *testing.T) {
	t.Parallel()
	const blocks = 200
	for name, p := range map[string]*consensus.Params{"regtest": consensus.Regtest(), "ours": ownNetwork(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if p.Genesis.Header.Timestamp.After(time.Now()) { // time starts at 2000
					time.Sleep(time.Until(p.Genesis.Header.Timestamp) + time.Hour)
				}
				const interval = 30 * time.Second
				c := open(t, p, time.Now)
				var times []time.Time
				m := miner(t, c, func(o *mining.Options) {
					o.Interval = interval
					o.OnBlock = func(context.Context, *consensus.Block) { times = append(times, time.Now()) }
				})
				stop := run(t, m.Run)
				tip := height(t, c, blocks)
				stop()
				if got := m.Status(); got.Blocks < blocks-1 { // the verdict on the last may be on its way
					t.Errorf("made %d blocks", got.Blocks)
				}
				for i := 1; i < len(times); i++ {
					if d := times[i].Sub(times[i-1]); d < interval || d > interval+interval/8 {
						t.Fatalf("block %d %v after the one before", i, d)
					}
				}
				if late := time.Since(tip.Time); late > interval {
					t.Errorf("the tip's time is %v ago", late)
				}
			})
		})
	}
}

// TestMineOneWhileTheTipMoves: blocks of several callers and of Run; each caller
// gets its own, on the active chain.
func TestMineOneWhileTheTipMoves(t *testing.T) {
	t.Parallel()
	const callers, each = 4, 5
	// Slow enough to mine that the tip moves during it, now and then.
	now := time.Unix(1_600_000_000, 0)
	c := open(t, consensus.Regtest(), func() time.Time { return now })
	var seen atomic.Int32
	m := miner(t, c, func(o *mining.Options) {
		o.Now = func() time.Time { return now }
		o.Interval = time.Millisecond
		o.OnBlock = func(context.Context, *consensus.Block) { seen.Add(1) }
	})
	stop := run(t, m.Run)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for k := range each {
				data := fmt.Sprintf("caller %d block %d", i, k)
				b, h, err := m.MineOne(t.Context(), data)
				if err != nil {
					t.Error(err)
					return
				}
				if got := consensus.CoinbaseData(b); got != data {
					t.Errorf("data %q, want %q", got, data)
				}
				if hash, ok := c.HashAt(h); !ok || hash != b.Hash {
					t.Errorf("block %d of caller %d is not on the active chain at %d", k, i, h)
				}
			}
		})
	}
	wg.Wait()
	stop()
	if n := m.Status().Blocks; n < callers*each || int32(n) != seen.Load() {
		t.Errorf("%d blocks, %d told of", n, seen.Load())
	}
}

// TestMineOneEnds: with its context, even if no block can be found.
func TestMineOneEnds(t *testing.T) {
	t.Parallel()
	c := open(t, consensus.Regtest(), time.Now)
	s := &stuck{entered: make(chan struct{}, 1)}
	m := miner(t, c, func(o *mining.Options) { o.Sealer = s })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := m.MineOne(ctx, "x")
		done <- err
	}()
	<-s.entered
	cancel()
	if err := <-done; err != context.Canceled { //nolint:errorlint // exactly it
		t.Errorf("%v", err)
	}
}

// stuck never finds anything.
type stuck struct{ entered chan struct{} }

// Prepare implements consensus.Sealer.
func (s *stuck) Prepare(<-chan struct{}, consensus.Past) (consensus.Plan, error) {
	return consensus.Plan{}, nil
}

// Seal implements consensus.Sealer.
func (s *stuck) Seal(stop <-chan struct{}, _ *consensus.Header) (bool, error) {
	select {
	case s.entered <- struct{}{}:
	case <-stop:
	}
	<-stop
	return false, context.Canceled
}

// TestStopDuringSealing: a template in work is dropped, and Start begins anew.
func TestStopDuringSealing(t *testing.T) {
	t.Parallel()
	c := open(t, consensus.Regtest(), time.Now)
	s := &stuck{entered: make(chan struct{})}
	m := miner(t, c, func(o *mining.Options) { o.Sealer = s })
	run(t, m.Run)
	for range 3 {
		<-s.entered
		if !m.Stop() || m.Stop() || m.Status().Mining {
			t.Error("stop")
		}
		// If Run went on, it would enter again.
		if !m.Start() || m.Start() || !m.Status().Mining {
			t.Error("start")
		}
	}
	<-s.entered
}

// TestTipMovesDuringSealing: the work on the old tip is dropped.
func TestTipMovesDuringSealing(t *testing.T) {
	t.Parallel()
	c := open(t, consensus.Regtest(), time.Now)
	s := &stuck{entered: make(chan struct{})}
	run(t, miner(t, c, func(o *mining.Options) { o.Sealer = s }).Run)
	<-s.entered
	other := miner(t, c, nil)
	for range 3 {
		if _, _, err := other.MineOne(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		<-s.entered
	}
}

// shy finds nothing the first few times.
type shy struct {
	*pow.Sealer

	left int
}

// Seal implements consensus.Sealer.
func (s *shy) Seal(stop <-chan struct{}, h *consensus.Header) (bool, error) {
	if s.left--; s.left >= 0 {
		return false, nil
	}
	return s.Sealer.Seal(stop, h)
}

// TestExhausted: when no nonce will do, the extranonce goes on.
func TestExhausted(t *testing.T) {
	t.Parallel()
	c := open(t, consensus.Regtest(), time.Now)
	m := miner(t, c, func(o *mining.Options) { o.Sealer = &shy{pow.NewSealer(1), 3} })
	if _, h, err := m.MineOne(t.Context(), "text"); err != nil || h != 1 {
		t.Fatal(h, err)
	}
}

// TestReady: a miner that may not mine yet waits and says why.
func TestReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20 * 365 * 24 * time.Hour) // past regtest's genesis
		c := open(t, consensus.Regtest(), time.Now)
		var ready atomic.Bool
		m := miner(t, c, func(o *mining.Options) {
			o.Ready = func() (bool, string) { return ready.Load(), "no peers" }
		})
		run(t, m.Run)
		time.Sleep(time.Minute)
		if s := m.Status(); s.Blocks != 0 || s.Reason != "no peers" {
			t.Errorf("%+v", s)
		}
		ready.Store(true)
		height(t, c, 2)
		if s := m.Status(); s.Reason != "" {
			t.Errorf("%+v", s)
		}
	})
}

// TestTransactionsAreMined: what is in the pool is in the next block, however
// soon that comes after the one before.
func TestTransactionsAreMined(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return time.Unix(2_000_000_000, 0) }
	p := ownNetwork(t)
	c := open(t, p, now)
	pool, err := mempool.New(mempool.Options{Chain: c, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	run(t, pool.Run)
	key := enginetest.NewKey(3)
	m := miner(t, c, func(o *mining.Options) { o.Pool, o.PayTo, o.Now = pool, key.Script(), now })
	for range p.CoinbaseMaturity {
		if _, _, err := m.MineOne(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	prev := block(t, c, 1)
	for i := range 3 {
		tx := enginetest.Spend(prev, 0, 1000, key.Script())
		key.Sign(tx, []consensus.Coin{{Value: prev.Txs[0].MsgTx().TxOut[0].Value, Script: key.Script()}})
		if _, err := pool.Submit(t.Context(), tx, ""); err != nil {
			t.Fatal(err)
		}
		b, h, err := m.MineOne(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Txs) != 2 || *b.Txs[1].Hash() != tx.TxHash() {
			t.Fatalf("block %d does not have the transaction", h)
		}
		if got, want := b.Txs[0].MsgTx().TxOut[0].Value, p.Subsidy(h)+1000; got != want {
			t.Errorf("coinbase of %d, want %d", got, want)
		}
		prev = block(t, c, int32(i)+2)
	}
}

// TestRunEnds: with its context, before anything else.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	m := miner(t, open(t, consensus.Regtest(), time.Now), nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Run(ctx); err != context.Canceled { //nolint:errorlint // exactly it
		t.Error(err)
	}
}

// TestNotAccepted: a block that the chain refuses is an error that names the rule.
func TestNotAccepted(t *testing.T) {
	t.Parallel()
	c := open(t, consensus.Regtest(), func() time.Time { return time.Unix(1_600_000_000, 0) })
	m := miner(t, c, func(o *mining.Options) { // a clock that is days ahead of the chain's
		o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	})
	_, _, err := m.MineOne(t.Context(), "")
	if rule, ok := errors.AsType[*consensus.RuleError](err); !ok || rule.Rule != "time-too-new" {
		t.Error(err)
	}
}
