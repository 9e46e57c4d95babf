package discovery_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

const simNamespace = "/dunlin/simtest-01234567"

// sim is a network of real hosts in virtual time, 50 ms of round trip apart.
type sim struct {
	t   *testing.T
	net *simnet.Simnet
	wg  sync.WaitGroup
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
	synctest.Test(t, func(t *testing.T) {
		s := &sim{t: t, net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond)}}
		s.net.Start()
		f(s)
		s.wg.Wait()
		s.net.Close()
	})
}

// simIP is the address of the i-th host; each is in an IP group of its own.
func simIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{20, byte(i + 1), 0, 1}) }

func (s *sim) host(ip netip.Addr) host.Host {
	s.t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.hostWithKey(ip, key)
}

func (s *sim) hostWithKey(ip netip.Addr, key crypto.PrivKey) host.Host {
	s.t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 20 * simlibp2p.OneMbps}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.Transport(libp2pquic.NewTransport), // alone: nothing leaves the simulation
		libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip)),
		simlibp2p.QUICSimnet(s.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.DisableIdentifyAddressDiscovery(), // it stalls virtual time
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.wg.Go(func() {
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
	start := time.Now()
	for {
		short := 0
		for _, n := range nodes {
			if len(n.host.Network().Peers()) < peers {
				short++
			}
		}
		took := time.Since(start)
		if short == 0 {
			return took
		}
		if took >= within {
			for i, n := range nodes {
				s.t.Logf("node %d: %+v", i, n.disc.Stats())
			}
			s.t.Fatalf("after %s %d of %d nodes have fewer than %d peers", took, short, len(nodes), peers)
		}
		virtual(10 * time.Millisecond)
	}
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
		virtual(2 * time.Second)
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
