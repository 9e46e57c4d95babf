package exchange

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// patience is how long a test waits for what must come: much longer than it takes, since
// the machine may have other work.
const patience = 2 * time.Minute

// logs collects what was logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type blamed struct {
	id     peer.ID
	reason string
}

type foreigner struct {
	id      peer.ID
	genesis chainhash.Hash
}

// testNode is an Exchange that runs on a host of its own.
type testNode struct {
	*Exchange
	host    host.Host
	chain   *fakeChain
	logs    *logs
	blames  chan blamed
	foreign chan foreigner
	stop    func()
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func newNode(t testing.TB, c *fakeChain, change ...func(*Options)) *testNode {
	t.Helper()
	n := &testNode{host: newHost(t), chain: c, logs: &logs{}, blames: make(chan blamed, 100), foreign: make(chan foreigner, 100)}
	o := Options{
		Host: n.host, Chain: c, ChainID: c.params.ChainID(), Agent: "test",
		Logger:         slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		TipGrace:       20 * time.Millisecond,
		TipGap:         50 * time.Millisecond,
		OnBlame:        func(id peer.ID, reason string) { n.blames <- blamed{id, reason} },
		OnWrongNetwork: func(id peer.ID, genesis chainhash.Hash) { n.foreign <- foreigner{id, genesis} },
	}
	for _, f := range change {
		f(&o)
	}
	x, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	n.Exchange = x
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	eventually(t, "handlers set", func() bool { return slices.Contains(n.host.Mux().Protocols(), TxsID(o.ChainID)) })
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run does not return")
			}
		})
	}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", n.host.ID(), n.logs)
		}
	})
	return n
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// eventually polls a real condition; there is nothing to subscribe to.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func awaitTip(t testing.TB, n *testNode, want *fakeChain) {
	t.Helper()
	w, _ := want.Tip()
	eventually(t, "tip at height "+w.Hash.String(), func() bool {
		g, _ := n.chain.Tip()
		return g.Hash == w.Hash
	})
}

func awaitGone(t testing.TB, h host.Host, id peer.ID) {
	t.Helper()
	eventually(t, "disconnected", func() bool { return h.Network().Connectedness(id) != network.Connected })
}

func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
		panic("unreachable")
	}
}
