package flood_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/internal/flood"
)

// A block of which nothing is here is asked for in parts, from the sender's end on and from
// the other end at another peer, two requests at a time each; what has come is served before the
// rest is here, and a peer that stops in the middle leaves what it gave.
func TestParts(t *testing.T) {
	t.Parallel()
	const n = 1000
	for name, broken := range map[string]bool{"both answer": false, "the sender breaks off": true} {
		bubble(t, name, func(w *world) {
			t := w.t
			b := w.block(w.b.Genesis(), n)
			w.peers = []flood.Peer{{ID: "b"}}
			var mu sync.Mutex
			under, most, answers := map[peer.ID]int{}, 0, map[peer.ID]int{}
			began := time.Now()
			lowest, highest := map[peer.ID]uint32{"a": n, "b": n}, map[peer.ID]uint32{} // of what is asked for at once
			w.serve = func(_ context.Context, from peer.ID, indexes []uint32) ([][]byte, []byte, error) {
				mu.Lock()
				under[from]++
				most = max(most, under[from])
				if time.Since(began) < 50*time.Millisecond {
					lowest[from] = min(lowest[from], indexes[0])
					highest[from] = max(highest[from], indexes[len(indexes)-1])
				}
				mu.Unlock()
				time.Sleep(100 * time.Millisecond) // virtual
				mu.Lock()
				defer mu.Unlock()
				under[from]--
				if answers[from]++; broken && from == "a" && answers[from] > 2 {
					return nil, nil, errors.New("the stream broke")
				}
				return serves(b, indexes)
			}
			w.receive("a", w.compact(b, 1))
			time.Sleep(150 * time.Millisecond) // virtual
			if txs, _, err := w.BlockTxs(b.Hash, []uint32{1, 100}); len(txs) != 2 || err != nil {
				t.Errorf("%d transactions of the part that is here, %v", len(txs), err)
			}
			if txs, changed, _ := w.BlockTxs(b.Hash, []uint32{n / 2}); txs != nil || changed == nil {
				t.Error("what is not here is served, or not awaited")
			}
			c := w.next(b)
			if c.How != flood.Pulled || c.Pulled != n {
				t.Errorf("%v", c.LogAttrs())
			}
			mu.Lock()
			defer mu.Unlock()
			if most != 2 || lowest["a"] != 1 || highest["a"] > n/3 || highest["b"] != n || lowest["b"] < 2*n/3 {
				t.Errorf("%d requests at once to one peer, first for %v to %v", most, lowest, highest)
			}
		})
	}
}
