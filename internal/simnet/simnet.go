// Package simnet runs the real stack in virtual time: libp2p hosts with QUIC, TLS,
// identify and whatever is put on them (GossipSub, kad-dht, our own protocols), each
// behind a simulated cable with a bandwidth, a latency between every two of them, and
// a clock that jumps as soon as everybody waits. A minute of a network of sixty nodes
// takes seconds, and the figures do not depend on how busy the machine is.
//
// Tests enter by Test, commands by Main. Inside, everything happens in one bubble of
// testing/synctest, from which three rules follow: (1) real sockets, DNS and child
// processes must not be used (a goroutine that waits for them keeps the clock from
// moving), files may; (2) channels, timers and contexts come from inside, so contexts
// are derived from Network.Context; (3) every goroutine must have ended at the end:
// start those that outlive a call by Network.Go, and do not wait without end.
//
// It is not a model of the machine: code takes no virtual time, however long it
// really runs, so a delay seen here is what links, timers and protocols cost, and the
// cost of the CPU is to be measured beside it. It is not deterministic either:
// Network.Rand repeats its choices, the scheduler and the keys do not. It is a package
// of tests and measurements; no product code imports it (internal/archtest).
//
// Invariants: no packet leaves the process; a host that is killed, cut off or on the
// other side of a partition neither sends nor receives one more packet, not even what
// was under way; when Test returns, no goroutine of the simulation is left.
package simnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marcopolo/simnet"
)

// Defaults of Options and of a host's link.
const (
	DefaultLatency = 25 * time.Millisecond // one way: round trips take 50 ms
	DefaultRate    = 20_000_000            // bits a second, each way

	pollEvery = 10 * time.Millisecond // of Until
)

// Options describe a network. The zero value is one of 20 Mbit/s links, 50 ms of round trip apart.
type Options struct {
	// Latency is the time that a packet is under way between two cables, one way, asked for each packet by one
	// goroutine. Nil: DefaultLatency between all.
	Latency func(from, to netip.Addr) time.Duration

	// Link is what hosts get that do not ask for another.
	Link Link

	// Seed makes Network.Rand and the hosts' keys. Zero is a seed like any other.
	Seed uint64
}

// Link is the bandwidth of a host's cable, in bits a second. Zero: DefaultRate. Packets that have to wait do so in
// fair queues for each sender and receiver (FQ-CoDel), which drop what has waited too long.
type Link struct {
	Up, Down int
}

func (l Link) settings(def Link) simnet.NodeBiDiLinkSettings {
	pick := func(rates ...int) simnet.LinkSettings {
		for _, r := range rates {
			if r > 0 {
				return simnet.LinkSettings{BitsPerSecond: r}
			}
		}
		return simnet.LinkSettings{BitsPerSecond: DefaultRate}
	}
	return simnet.NodeBiDiLinkSettings{Uplink: pick(l.Up, def.Up), Downlink: pick(l.Down, def.Down)}
}

// Network is a network in virtual time. All methods are safe for concurrent use inside the bubble.
type Network struct {
	opts  Options
	net   *simnet.Simnet
	ctx   context.Context //nolint:containedctx // the bubble's: it must be made inside and everybody derives from it
	stop  context.CancelFunc
	work  sync.WaitGroup
	split atomic.Bool // some host is on another side: look at sides

	mu    sync.Mutex // guards what follows; held while an endpoint is made
	rng   *rand.Rand
	hosts map[*Host]bool // those not closed
	next  int            // of IP
	keys  int            // that were made

	sides sync.Map // netip.Addr → int, since the last Partition; absent is 0
}

// Test runs f in a network that starts empty. What f leaves running is stopped when it returns or ends the test
// (t.Fatal): first the context of Go, then the hosts, then the network.
func Test(t *testing.T, o Options, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := start(t.Context(), o)
		defer n.close()
		f(t, n)
	})
}

// Main does what Test does, for a command: it runs f in virtual time and ends the process, with 1 if f returned an
// error (which goes to standard error) and 0 otherwise. What is printed by f goes before a line "PASS" or "FAIL".
//
// A bubble exists only around a test: synctest.Run is gone, and what the testing package offers to programs that are
// not test binaries is testing.Main, which exits. A command that has more to do than one simulation therefore runs it
// in a child process of its own, which also tells the CPU time and the memory of each, and can be stopped: a signal
// that only cancels a context outside the bubble would not wake anybody inside.
func Main(o Options, f func(n *Network) error) {
	testing.Init()
	// Nothing of the command line is for the testing package.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err) // there is nothing to parse
	}
	all := func(string, string) (bool, error) { return true, nil }
	run := func(t *testing.T) {
		t.Helper()
		Test(t, o, func(t *testing.T, n *Network) {
			t.Helper()
			if err := f(n); err != nil {
				fmt.Fprintln(os.Stderr, err)
				t.Fail()
			}
		})
	}
	testing.Main(all, []testing.InternalTest{{Name: "simulation", F: run}}, nil, nil)
}

func start(ctx context.Context, o Options) *Network {
	n := &Network{opts: o, rng: rand.New(rand.NewPCG(o.Seed, o.Seed)), hosts: map[*Host]bool{}} //nolint:gosec // to repeat a run, not for secrets
	n.ctx, n.stop = context.WithCancel(ctx)
	n.net = &simnet.Simnet{
		Logger: slog.New(slog.DiscardHandler), // packets to hosts that are gone are what is being tried
		LatencyFunc: func(p *simnet.Packet) time.Duration {
			if o.Latency == nil {
				return DefaultLatency
			}
			return o.Latency(ipOf(p.From), ipOf(p.To))
		},
	}
	n.net.Start()
	return n
}

// close ends everything, in the order that lets each part say goodbye.
func (n *Network) close() {
	n.stop()
	n.work.Wait()
	n.mu.Lock()
	hosts := make([]*Host, 0, len(n.hosts))
	for h := range n.hosts {
		hosts = append(hosts, h)
	}
	n.mu.Unlock()
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Go(func() { _ = h.Close() })
	}
	all.Wait()
	n.net.Close()
}

// Context ends when the simulation does. Contexts inside are derived from it.
func (n *Network) Context() context.Context { return n.ctx }

// Go runs f in a goroutine that the simulation waits for at its end, after it has cancelled ctx, and before it
// closes the hosts.
func (n *Network) Go(f func(ctx context.Context)) { n.work.Go(func() { f(n.ctx) }) }

// Rand makes the choices of the simulation: f is called with a generator that nobody else uses meanwhile.
func (n *Network) Rand(f func(r *rand.Rand)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.rng)
}

// Pass lets d of virtual time go by, less if the simulation ends.
func (n *Network) Pass(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-n.ctx.Done():
	}
}

// Until waits in virtual time for a condition, which it looks at every 10 ms. It returns how long that took and
// whether the condition came true within the given time.
func (n *Network) Until(within time.Duration, ok func() bool) (took time.Duration, met bool) {
	start := time.Now()
	for {
		if ok() {
			return time.Since(start), true
		}
		if took = time.Since(start); took >= within || n.ctx.Err() != nil {
			return took, false
		}
		n.Pass(pollEvery)
	}
}

// Partition divides the network: packets pass only between hosts of the same group. All hosts that are in no group,
// also those that come later, are together. It replaces an earlier one. It divides by address, so a host
// that comes back at its address is on its old side.
func (n *Network) Partition(groups ...[]*Host) {
	n.sides.Clear()
	for i, g := range groups {
		for _, h := range g {
			n.sides.Store(h.ip, i+1)
		}
	}
	n.split.Store(true)
}

// Heal ends a partition.
func (n *Network) Heal() {
	n.split.Store(false)
	n.sides.Clear()
}

// joined reports whether packets pass between two addresses.
func (n *Network) joined(a, b netip.Addr) bool {
	if !n.split.Load() {
		return true
	}
	side := func(ip netip.Addr) int {
		v, _ := n.sides.Load(ip)
		i, _ := v.(int)
		return i
	}
	return side(a) == side(b)
}

// IP is the i-th of 50,000 public addresses, i from 0, each in an IP group (/16) of its own as long as i < 2,500.
func IP(i int) netip.Addr {
	const first, nets, per = 20, 10, 250 // 20.1.0.1 … 29.250.0.1, then 20.1.0.2 and so on
	group := i % (nets * per)
	return netip.AddrFrom4([4]byte{byte(first + group/per), byte(1 + group%per), 0, byte(1 + i/(nets*per))})
}

func ipOf(a net.Addr) netip.Addr {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(u.IP)
	return ip.Unmap()
}

var errClosed = errors.New("the simulation has ended")
