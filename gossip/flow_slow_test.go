//go:build slow

package gossip_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/gossip"
)

// TestFlow: 500 messages of 250 bytes a second, published at 20 nodes in turn, reach
// all of them, over links of 20 Mbit/s and 50 ms of round trip; nothing is throttled
// or dropped on the way.
func TestFlow(t *testing.T) {
	const nodes, rate, seconds = 20, 500, 8
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, nodes, 20)
		all := make([]*node, nodes)
		for i, h := range hosts {
			all[i] = run(t, h, func(o *gossip.Options) {
				o.Topics[1].Queue, o.Topics[1].PeerRate = 4096, gossip.Rate{Messages: 1000, Bytes: 1 << 20, Burst: 10}
			})
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range hosts { // eight neighbours each, about
			connect(t, hosts[i], hosts[(i+1)%nodes])
			for range 3 {
				if j := rng.IntN(nodes); j != i {
					connect(t, hosts[i], hosts[j])
				}
			}
		}
		time.Sleep(5 * time.Second)
		began := time.Now()
		tick := time.NewTicker(time.Second / rate)
		for i := range rate * seconds {
			<-tick.C
			data := make([]byte, 250)
			binary.LittleEndian.PutUint64(data, uint64(i)<<8)
			if err := all[i%nodes].Publish(t.Context(), txs, data); err != nil {
				t.Fatal(err)
			}
		}
		tick.Stop()
		var heap runtime.MemStats
		runtime.ReadMemStats(&heap)
		last := time.Now()
		for missing := 1; missing > 0 && time.Since(last) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			missing = 0
			for _, n := range all {
				missing += rate*seconds - rate*seconds/nodes - n.count()
			}
		}
		took := time.Since(last)
		var copies, bytes, dropped, throttled, missing uint64
		for _, n := range all {
			s := topicStats(t, n.Gossip, txs)
			copies += s.Duplicates + s.Received
			bytes += s.BytesIn
			dropped += s.Dropped
			throttled += s.Throttled
			missing += uint64(rate*seconds-rate*seconds/nodes) - uint64(n.count())
		}
		t.Logf("%d nodes, %d messages in %v: everywhere %v after the last; %.1f copies and %.1f kB/s at each; %d MB of heap for all nodes together",
			nodes, rate*seconds, last.Sub(began), took, float64(copies)/float64(nodes*rate*seconds), float64(bytes)/nodes/last.Sub(began).Seconds()/1000, heap.HeapInuse>>20)
		payload := float64(rate*seconds-rate*seconds/nodes) * 250
		for name, v := range map[string]float64{
			"tx/simulated": took.Seconds() * 1000, "tx/simulated-copies": float64(copies) / float64(nodes*rate*seconds), "tx/simulated-bytes": float64(bytes) / nodes / payload,
		} {
			t.Attr("figure", fmt.Sprintf("%s %.5g", name, v)) // for dunlin-bench all
		}
		if missing != 0 || throttled != 0 {
			t.Errorf("%d missing, %d throttled, %d copies dropped on full queues", missing, throttled, dropped)
		}
	})
}
