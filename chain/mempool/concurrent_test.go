package mempool_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"dunlin/chain/mempool"
)

// TestConcurrent: peers submit, also the same outputs twice, while blocks and
// reorganisations come; every account is right all the time, and in the end the
// pool is valid on top of the chain.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const peers, each = 4, 40
	l := running(t, peers*2, func(o *mempool.Options) { o.MaxBytes = 60_000 })
	ctx := t.Context()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for peer := range peers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(peer), 3))
			coins := []coin{l.coinbase(peer), l.coinbase(peers), l.coinbase(peers + 1 + peer%2)}
			for range each {
				tx := l.pay(int64(200+r.IntN(5000)), 1+r.IntN(2), pick(r, coins))
				_, _ = l.pool.Submit(ctx, tx, fmt.Sprint("peer", peer))
				coins = append(coins, coinsOf(tx)...)
				if err := l.pool.Verify(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	r := rand.New(rand.NewPCG(9, 3))
	for step := 0; ; step++ {
		select {
		case <-done:
			l.follow(l.tip.Hash)
			l.verify()
			checkTemplate(l, r)
			return
		default:
		}
		if step%4 == 3 {
			fork := l.ancestor(1)
			l.tip = l.on(l.on(fork, 0), 0)
			continue
		}
		txs, fees := template(l, r)
		l.tip = l.on(l.tip, fees, txs...)
	}
}
