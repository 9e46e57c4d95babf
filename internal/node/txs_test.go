package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/mempool"
	"dunlin/gossip"
)

// fakeUnsent is a mempool of transactions that are due at a time.
type fakeUnsent struct {
	mu   sync.Mutex
	txs  []mempool.Entry // Received is when it is due
	more chan struct{}
}

func newFakeUnsent() *fakeUnsent { return &fakeUnsent{more: make(chan struct{})} }

func (f *fakeUnsent) add(due time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tx := wire.NewMsgTx(int32(len(f.txs)))
	f.txs = append(f.txs, mempool.Entry{Tx: tx, ID: tx.TxHash(), Received: due})
	close(f.more)
	f.more = make(chan struct{})
}

func (f *fakeUnsent) Unsent(most int, _ time.Duration) (due []mempool.Entry, next time.Time, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.txs {
		switch {
		case !e.Received.After(time.Now()):
			if len(due) < most {
				due = append(due, e)
			}
		case next.IsZero() || e.Received.Before(next):
			next = e.Received
		}
	}
	return due, next, f.more
}

func (f *fakeUnsent) Sent(id chainhash.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txs = slices.DeleteFunc(f.txs, func(e mempool.Entry) bool { return e.ID == id })
}

func (f *fakeUnsent) Later(id chainhash.Hash, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.txs {
		if f.txs[i].ID == id {
			f.txs[i].Received = until
		}
	}
}

func (f *fakeUnsent) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.txs)
}

// TestTeller: everything is told once, in its time; with nobody there it waits
// for somebody, and looks again now and then.
func TestTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newFakeUnsent()
		joined := make(chan struct{}, 1)
		var mu sync.Mutex
		listeners, told, tried := 0, 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		var dear atomic.Bool // peers take none
		takes := func(*mempool.Entry, time.Time) bool { return !dear.Load() }
		teller := teller{pool: pool, joined: joined, takes: takes, publish: func(context.Context, *wire.MsgTx) error {
			mu.Lock()
			defer mu.Unlock()
			tried++
			if listeners == 0 {
				return fmt.Errorf("publish: %w", gossip.ErrNobody)
			}
			told++
			return nil
		}}
		go func() { done <- teller.run(ctx) }()
		check := func(when string, wantTold, wantLeft int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if told != wantTold || pool.left() != wantLeft {
				t.Errorf("%s: %d told, %d left, want %d and %d", when, told, pool.left(), wantTold, wantLeft)
			}
		}
		pool.add(time.Now())
		for range 3 * tellAtOnce {
			pool.add(time.Now())
		}
		check("nobody there", 0, 3*tellAtOnce+1)
		mu.Lock()
		if tried > 3 {
			t.Errorf("tried %d times with nobody there", tried)
		}
		listeners = 1
		mu.Unlock()
		joined <- struct{}{}
		all := 3*tellAtOnce + 1
		check("at once", tellAtOnce, all-tellAtOnce)
		timer := time.NewTimer(4 * tellPause)
		<-timer.C
		check("somebody came", all, 0)
		pool.add(time.Now())
		check("another", all+1, 0)
		pool.add(time.Now().Add(3 * time.Minute))
		check("not due", all+1, 1)
		timer.Reset(3*time.Minute + time.Second)
		<-timer.C
		check("due", all+2, 0)
		mu.Lock()
		listeners = 0
		mu.Unlock()
		pool.add(time.Now())
		check("alone", all+2, 1)
		mu.Lock()
		listeners = 1
		mu.Unlock()
		timer.Reset(tellAgain + time.Second)
		<-timer.C
		check("without a sign of a peer", all+3, 0)
		dear.Store(true)
		pool.add(time.Now())
		check("too cheap for all peers", all+3, 1)
		dear.Store(false)
		timer.Reset(tryFeeAgain + time.Second)
		<-timer.C
		check("cheaper peers", all+4, 0)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
