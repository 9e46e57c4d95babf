package exchange

import (
	"strings"
	"testing"
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
		if !strings.Contains(a.logs.String(), want) {
			t.Errorf("log lacks %q", want)
		}
	}
}

func TestSyncFromThreePeers(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 2500, 1, 3000)
	var servers []*testNode
	for range 3 {
		c := newFakeChain()
		c.addAll(t, source.branch())
		servers = append(servers, newNode(t, c))
	}
	n := newNode(t, newFakeChain())
	for _, s := range servers {
		connect(t, n.host, s.host)
	}
	awaitTip(t, n, source)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	for _, p := range n.Peers() {
		if p.BytesIn < 100_000 {
			t.Errorf("peer served %d bytes only", p.BytesIn)
		}
	}
	log := n.logs.String()
	for _, want := range []string{"sync started", "sync finished"} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %q", want)
		}
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
