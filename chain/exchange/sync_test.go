package exchange

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

func TestHelloOK(t *testing.T) {
	ca := newFakeChain()
	ca.grow(t, 3, 1, 200)
	cb := newFakeChain()
	cb.addAll(t, ca.branch())
	a, b := newNode(t, ca), newNode(t, cb)
	connect(t, a.host, b.host)
	eventually(t, "both ready", func() bool { return a.Ready(b.host.ID()) && b.Ready(a.host.ID()) })
	pa, pb := a.Peers()[0], b.Peers()[0]
	if pa.Inbound || !pb.Inbound || pa.Agent != "test" || pa.Height != 3 || pa.Version != Version {
		t.Errorf("peers: %+v, %+v", pa, pb)
	}
	eventually(t, "synced", func() bool { return a.Sync().State == Synced && b.Sync().State == Synced })
	eventually(t, "round trip measured", func() bool { return a.Peers()[0].RTT > 0 && b.Peers()[0].RTT > 0 })
	b.stop()
	_ = b.host.Close()
	eventually(t, "gone", func() bool { return len(a.Peers()) == 0 && a.Sync().State == Connecting })
	for _, want := range []string{"peer connected", "direction=outbound", "peer disconnected"} {
		eventually(t, "the log has "+want, func() bool { return strings.Contains(a.logs.String(), want) })
	}
}

func TestSyncFromThreePeers(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 2500, 1, 3000)
	var servers []*testNode
	begin := make(chan struct{})
	for range 3 {
		c := newFakeChain()
		c.served = begin
		c.addAll(t, source.branch())
		servers = append(servers, newNode(t, c))
	}
	n := newNode(t, newFakeChain())
	for _, s := range servers {
		connect(t, n.host, s.host)
	}
	for _, s := range servers {
		eventually(t, "ready", func() bool { return n.Ready(s.host.ID()) })
	}
	eventually(t, "the target is known", func() bool { return n.Sync().Target == 2500 })
	close(begin)
	awaitTip(t, n, source)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	for _, p := range n.Peers() {
		if p.BytesIn < 20_000 {
			t.Errorf("peer served %d bytes only", p.BytesIn)
		}
	}
	for _, want := range []string{"sync started", "sync finished"} {
		eventually(t, "the log has "+want, func() bool { return strings.Contains(n.logs.String(), want) })
	}
	// Nor is the last block of the first 2000 headers news.
	n.chain.mu.Lock()
	defer n.chain.mu.Unlock()
	if len(n.chain.news) == 0 || slices.Min(n.chain.news) < 2499 {
		t.Errorf("news of the sync: blocks %v", n.chain.news)
	}
}

func TestNewBlockAtTheTip(t *testing.T) {
	ca := newFakeChain()
	ca.grow(t, 10, 1, 500)
	cb := newFakeChain()
	a, b := newNode(t, ca), newNode(t, cb)
	connect(t, b.host, a.host)
	awaitTip(t, b, ca)
	for i := range 5 {
		ca.grow(t, 1, uint64(100+i), 500)
		awaitTip(t, b, ca)
	}
}

func (c *fakeChain) branch() (out [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := c.tip; n.height > 0; n = n.parent {
		out = append(out, n.raw)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// TestRunLeavesNothing: when Run has returned, none of its goroutines is left,
// though peers are connected and in the middle of a download.
func TestRunLeavesNothing(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 200, 1, 50_000)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	connect(t, n.host, s.host)
	eventually(t, "under way", func() bool { return n.Ready(s.host.ID()) && n.Peers()[0].BytesIn > 100_000 })
	n.stop()
	s.stop()
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "exchange.(*Exchange)") || strings.Contains(g, "exchange.(*driver)") ||
			strings.Contains(g, "exchange.(*blockClient)") || strings.Contains(g, "exchange.(*feeder)") {
			t.Errorf("left behind:\n%s", g)
		}
	}
}

// TestSideBranch: a longer branch that forks off far back is stored, then
// switched to; a shorter one is fetched as headers only.
func TestSideBranch(t *testing.T) {
	common := newFakeChain()
	common.grow(t, 40, 1, 400)
	ca, cb := newFakeChain(), newFakeChain()
	ca.addAll(t, common.branch())
	cb.addAll(t, common.branch())
	ca.grow(t, 30, 2, 400)
	cb.grow(t, 50, 3, 400)
	a, b := newNode(t, ca), newNode(t, cb)
	connect(t, a.host, b.host)
	awaitTip(t, a, cb)
	tip, _ := cb.Tip()
	if tip.Height != 90 {
		t.Errorf("height %d", tip.Height)
	}
	eventually(t, "synced", func() bool { return a.Sync().State == Synced && b.Sync().State == Synced })
}

// TestPeersProve: what a peer shows of its chain is told apart from what it claims.
func TestPeersProve(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 5, 1, 200)
	a, b := newNode(t, source), newNode(t, newFakeChain())
	connect(t, b.host, a.host)
	awaitTip(t, b, source)
	tip, _ := source.Tip()
	eventually(t, "both have shown the tip", func() bool {
		for _, n := range []*testNode{a, b} {
			ps := n.Peers()
			if len(ps) != 1 || ps[0].Proven.Hash != tip.Hash || ps[0].Proven.Height != 5 || ps[0].Proven.Work.Cmp(tip.Work) != 0 || ps[0].Proven.At.IsZero() {
				return false
			}
		}
		return true
	})

	// It claims a chain that nobody has.
	c := newNode(t, newFakeChain())
	liar := lying(t, huge(), func(network.Stream, headersRequest) error { return errors.New("no headers") })
	connect(t, c.host, liar)
	eventually(t, "greeted", func() bool { return c.Ready(liar.ID()) })
	for _, p := range c.Peers() {
		if p.Height != huge().Height || p.Proven.Height != -1 || p.Proven.Work != nil {
			t.Errorf("claims %d, proven %+v", p.Height, p.Proven)
		}
	}
}
