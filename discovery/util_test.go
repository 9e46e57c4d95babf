package discovery_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// patience is how long a test with real hosts waits for what must come: much longer than
// it takes, since the machine may have other work.
const patience = 2 * time.Minute

// drawn counts how many secrets each running test was given.
var drawn struct {
	mu    sync.Mutex
	count map[string]int
}

// secret is the next one of a test: the same in every run, so that who is near whom, and who shares a place of the book with whom,
// is no matter of luck.
func secret(tb testing.TB) [32]byte {
	tb.Helper()
	drawn.mu.Lock()
	defer drawn.mu.Unlock()
	if drawn.count == nil {
		drawn.count = make(map[string]int)
	}
	name := tb.Name()
	if drawn.count[name] == 0 {
		tb.Cleanup(func() {
			drawn.mu.Lock()
			defer drawn.mu.Unlock()
			delete(drawn.count, name)
		})
	}
	drawn.count[name]++
	return sha256.Sum256(fmt.Appendf(nil, "%s %d", name, drawn.count[name]))
}

// newKey makes an identity.
func newKey(tb testing.TB) (crypto.PrivKey, peer.ID) {
	tb.Helper()
	seed := secret(tb)
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		tb.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return key, id
}

// testPeers makes peer ids.
func testPeers(tb testing.TB, n int) []peer.ID {
	tb.Helper()
	ids := make([]peer.ID, n)
	for i := range ids {
		_, ids[i] = newKey(tb)
	}
	return ids
}

// realHost listens on a loopback port over TCP until the test ends.
func realHost(tb testing.TB) host.Host {
	tb.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { h.Close() })
	return h
}

func tcpAddr(tb testing.TB, h host.Host) ma.Multiaddr {
	tb.Helper()
	for _, a := range h.Addrs() {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			return a
		}
	}
	tb.Fatal("the host does not listen")
	return nil
}

// run runs a discovery until the test ends.
func run(tb testing.TB, o discovery.Options) *discovery.Discovery {
	tb.Helper()
	d, err := discovery.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	runDiscovery(tb, d)
	return d
}

func runDiscovery(tb testing.TB, d *discovery.Discovery) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}

// eventually polls a real condition of real hosts.
func eventually(tb testing.TB, within time.Duration, what string, ok func() bool) {
	tb.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			tb.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// withABitFlipped changes the middle of a file of lines, and no end of a line.
func withABitFlipped(b []byte) []byte {
	i := len(b) / 2
	if b[i] == '\n' {
		i++
	}
	b[i] ^= 1
	return b
}

// logLines collects what is logged.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
