package discovery_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
	"dunlin/internal/simnet"
)

const simNamespace = "/dunlin/simtest-01234567"

// sim is a network of real hosts in virtual time, 50 ms of round trip apart.
type sim struct {
	*simnet.Network
	t *testing.T
}

// node is a host with a running discovery.
type node struct {
	host host.Host
	disc *discovery.Discovery
	stop func() // ends Run, waits for it and closes the host
}

// inSim runs f in a bubble of virtual time.
func inSim(t *testing.T, f func(s *sim)) {
	t.Helper()
	simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) { f(&sim{n, t}) })
}

// simIP is the address of the i-th host; each is in an IP group of its own.
func simIP(i int) netip.Addr { return simnet.IP(i) }

func (s *sim) host(ip netip.Addr) *simnet.Host {
	s.t.Helper()
	return s.hostWithKey(ip, nil)
}

func (s *sim) hostWithKey(ip netip.Addr, key crypto.PrivKey) *simnet.Host {
	s.t.Helper()
	h, err := s.NewHost(simnet.HostOptions{IP: ip, Key: key})
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// start runs a discovery on a new host; set changes its options.
func (s *sim) start(ip netip.Addr, set func(o *discovery.Options)) *node {
	s.t.Helper()
	return s.startOn(s.host(ip), set)
}

func (s *sim) startOn(h host.Host, set func(o *discovery.Options)) *node {
	s.t.Helper()
	o := discovery.Options{Host: h, Namespace: simNamespace, Private: true}
	if set != nil {
		set(&o)
	}
	d, err := discovery.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	seed := secret(s.t)
	d.SetSalt(seed[:])
	return s.run(h, d)
}

// run runs a discovery.
func (s *sim) run(h host.Host, d *discovery.Discovery) *node {
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	s.Go(func(context.Context) {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	n := &node{host: h, disc: d}
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = h.Close()
	})
	return n
}

func stopAll(nodes []*node) {
	for _, n := range nodes {
		n.stop()
	}
}

// addr is the full address of a host.
func addr(h host.Host) ma.Multiaddr {
	return ma.StringCast(h.Addrs()[0].String() + "/p2p/" + h.ID().String())
}

func knows(addrs ...ma.Multiaddr) func(*discovery.Options) {
	return func(o *discovery.Options) { o.Bootstrap = addrs }
}

// atLeast waits in virtual time until every node has so many peers, and returns
// how long the last one took.
func (s *sim) atLeast(nodes []*node, peers int, within time.Duration) time.Duration {
	s.t.Helper()
	short := 0
	took, met := s.Until(within, func() bool {
		short = 0
		for _, n := range nodes {
			if len(n.host.Network().Peers()) < peers {
				short++
			}
		}
		return short == 0
	})
	if !met {
		for i, n := range nodes {
			s.t.Logf("node %d: %+v", i, n.disc.Stats())
		}
		s.t.Fatalf("after %s %d of %d nodes have fewer than %d peers", took, short, len(nodes), peers)
	}
	return took
}

func TestOneBootstrap(t *testing.T) {
	inSim(t, func(s *sim) {
		nodes := []*node{s.start(simIP(0), nil)}
		for i := 1; i < 20; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(nodes[0].host))))
		}
		t.Logf("20 nodes have 4 peers after %s", s.atLeast(nodes, 4, 2*time.Second))
		t.Logf("… and 8 after %s more", s.atLeast(nodes, 8, 3*time.Second))
		// Every advert works, and is seen to have been taken.
		s.Pass(2 * time.Second)
		for i, n := range nodes {
			if a := n.disc.Stats().Advert; a.At.IsZero() || a.Sent == 0 || a.Held == 0 {
				t.Errorf("node %d: advert %+v", i, a)
			}
		}
		stopAll(nodes)
	})
}

func TestLineOfBootstraps(t *testing.T) {
	inSim(t, func(s *sim) {
		nodes := []*node{s.start(simIP(0), nil)}
		for i := 1; i < 6; i++ {
			nodes = append(nodes, s.start(simIP(i), knows(addr(nodes[i-1].host))))
		}
		t.Logf("a line of six has 3 peers each after %s", s.atLeast(nodes, 3, 3*time.Second))
		t.Logf("… and is a full mesh after %s more", s.atLeast(nodes, 5, 10*time.Second))
		stopAll(nodes)
	})
}
