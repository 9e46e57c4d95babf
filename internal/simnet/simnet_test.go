package simnet_test

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/internal/simnet"
)

const echo = "/echo/1"

// pair is two hosts, of which the second sends back what it is sent.
func pair(t *testing.T, n *simnet.Network, o simnet.HostOptions) (a, b *simnet.Host) {
	t.Helper()
	a, b = host(t, n, o), host(t, n, o)
	b.SetStreamHandler(echo, func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	if err := a.Connect(n.Context(), b.Info()); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func host(t *testing.T, n *simnet.Network, o simnet.HostOptions) *simnet.Host {
	t.Helper()
	h, err := n.NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// trip sends bytes to b and waits until they are back.
func trip(n *simnet.Network, a, b *simnet.Host, bytes int, within time.Duration) (time.Duration, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(n.Context(), within)
	defer cancel()
	s, err := a.NewStream(ctx, b.ID(), echo)
	if err != nil {
		return 0, err
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	n.Go(func(context.Context) {
		_, _ = s.Write(make([]byte, bytes))
		_ = s.CloseWrite()
	})
	_, err = io.Copy(io.Discard, s)
	return time.Since(start), err
}

func TestLatency(t *testing.T) {
	simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
		a, b := pair(t, n, simnet.HostOptions{})
		took, err := trip(n, a, b, 100, time.Minute)
		if err != nil || took < 50*time.Millisecond || took > 55*time.Millisecond {
			t.Errorf("a round trip took %s, %v; want 50 ms and the time on the wire", took, err)
		}
	})
}

func TestBandwidth(t *testing.T) {
	simnet.Test(t, simnet.Options{Link: simnet.Link{Up: 8_000_000}}, func(t *testing.T, n *simnet.Network) {
		a, b := pair(t, n, simnet.HostOptions{})
		before := b.Traffic()
		took, err := trip(n, a, b, 1_000_000, time.Minute) // a megabyte at a megabyte a second, both ways at once
		if err != nil || took < time.Second || took > 2*time.Second {
			t.Errorf("took %s, %v", took, err)
		}
		in := b.Traffic().BytesIn - before.BytesIn
		if in < 1_000_000 || in > 1_200_000 {
			t.Errorf("%d bytes came in", in)
		}
	})
}

// A cut cable, a partition: nothing passes, nobody is told; afterwards connections that
// have not timed out go on.
func TestCutAndPartition(t *testing.T) {
	for name, do := range map[string]struct {
		off, on func(*simnet.Network, *simnet.Host)
	}{
		"cut":       {func(_ *simnet.Network, b *simnet.Host) { b.Cut() }, func(_ *simnet.Network, b *simnet.Host) { b.Plug() }},
		"partition": {func(n *simnet.Network, b *simnet.Host) { n.Partition([]*simnet.Host{b}) }, func(n *simnet.Network, _ *simnet.Host) { n.Heal() }},
	} {
		t.Run(name, func(t *testing.T) {
			simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
				a, b := pair(t, n, simnet.HostOptions{})
				n.Pass(time.Second)
				do.off(n, b)
				in := b.Traffic().PacketsOut
				if took, err := trip(n, a, b, 100, time.Second); err == nil {
					t.Errorf("came back after %s", took)
				}
				if out := b.Traffic().PacketsOut; out != in {
					t.Errorf("%d packets were sent meanwhile", out-in)
				}
				do.on(n, b)
				if _, err := trip(n, a, b, 100, 20*time.Second); err != nil {
					t.Error(err)
				}
				do.off(n, b)
				if took, met := n.Until(2*time.Minute, func() bool { return len(a.Network().Peers()) == 0 }); !met || took < time.Second {
					t.Errorf("the connection ended after %s: %v", took, met)
				}
			})
		})
	}
}

// One who leaves tells its peers, one who is killed does not; both make room at their
// address.
func TestCloseAndKill(t *testing.T) {
	simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
		a, b := pair(t, n, simnet.HostOptions{})
		alone := func() bool { return len(a.Network().Peers()) == 0 }
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if took, met := n.Until(time.Second, alone); !met {
			t.Errorf("still connected %s after the close", took)
		}
		c := host(t, n, simnet.HostOptions{IP: b.IP()})
		if err := a.Connect(n.Context(), c.Info()); err != nil {
			t.Fatal(err)
		}
		n.Pass(time.Second)
		c.Kill()
		if took, met := n.Until(2*time.Minute, alone); !met || took < time.Second {
			t.Errorf("noticed the kill after %s: %v", took, met)
		}
	})
}

func TestSeed(t *testing.T) {
	draw := func(seed uint64) (v uint64) {
		simnet.Test(t, simnet.Options{Seed: seed}, func(_ *testing.T, n *simnet.Network) {
			n.Rand(func(r *rand.Rand) { v = r.Uint64() })
		})
		return v
	}
	if first, again := draw(7), draw(7); first != again || first == draw(8) {
		t.Error("a seed must say what is drawn")
	}
	seen := map[string]bool{}
	for i := range 50_000 {
		ip := simnet.IP(i)
		if seen[ip.String()] || ip.IsPrivate() {
			t.Fatalf("address %d: %s", i, ip)
		}
		seen[ip.String()] = true
	}
}
