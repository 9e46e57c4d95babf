//go:build slow

package discovery_test

import (
	"math/rand/v2"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// Forty nodes, one bootstrap; then 30 % of them is replaced every minute, the
// bootstrap first of all, by newcomers that know one living node.
func TestSlowChurn(t *testing.T) {
	const size, minutes, seed = 40, 2, 1
	inSim(t, func(s *sim) {
		rng := rand.New(rand.NewPCG(seed, seed))
		nodes := []*node{s.start(simIP(0), nil)}
		for i := 1; i < size; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(nodes[0].host))))
		}
		t.Logf("seed %d: %d nodes have 8 peers after %s", seed, size, s.atLeast(nodes, 8, 1500*time.Millisecond))
		s.Pass(3 * time.Second)
		late := 0
		for _, n := range nodes {
			if a := n.disc.Stats().Advert; a.At.IsZero() || a.Held == 0 {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%d of %d nodes have no advert that works", late, size)
		}
		born := make([]time.Time, size)
		next, fewest, slowest := size, size, time.Duration(0)
		for tick := range minutes * 60 {
			if tick%5 == 0 { // a node every 5 s: twelve of forty in a minute
				i := rng.IntN(size)
				if tick == 0 {
					i = 0
				}
				nodes[i].stop()
				known := nodes[(i+1+rng.IntN(size-1))%size]
				nodes[i] = s.start(simIP(next%250), func(o *discovery.Options) {
					o.Bootstrap = []ma.Multiaddr{addr(known.host)}
				})
				born[i] = time.Now()
				slowest = max(slowest, s.atLeast(nodes[i:i+1], 4, 2*time.Second))
				next++
			}
			s.Pass(time.Second)
			for i, n := range nodes {
				peers := len(n.host.Network().Peers())
				if fewest = min(fewest, peers); peers < 4 {
					t.Errorf("minute %.1f: node %d, %s old, has %d peers", float64(tick)/60, i, time.Since(born[i]), peers)
				}
			}
		}
		t.Logf("over %d minutes: fewest peers %d, a newcomer has 4 peers after at most %s", minutes, fewest, slowest)
		stopAll(nodes)
	})
}

// Whether the nodes of the halves miss peers or have found as many as they want in their half.
func TestSlowHalves(t *testing.T) {
	t.Run("places free", func(t *testing.T) { halves(t, 8, 8, 7*time.Second) })
	t.Run("all places taken", func(t *testing.T) { halves(t, 20, 3, 30*time.Second) })
}
