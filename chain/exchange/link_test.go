package exchange

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// slowLink is a TCP proxy with a rate and a delay, in front of a host.
type slowLink struct {
	addr   multiaddr.Multiaddr
	rate   float64       // bytes/s towards the one who dials
	delay  time.Duration // each way
	frozen chan struct{} // closed: nothing is passed on any more
	done   chan struct{} // closed: the test is over

	carried atomic.Int64 // bytes towards the one who dials
}

// newSlowLink listens until the test ends.
func newSlowLink(t testing.TB, to host.Host, rate float64, rtt time.Duration) *slowLink {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_, target, err := manet.DialArgs(to.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	k := &slowLink{addr: addr, rate: rate, delay: rtt / 2, frozen: make(chan struct{}), done: make(chan struct{})}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var all sync.WaitGroup
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			keep(c)
			s, err := net.Dial("tcp4", target)
			if err != nil {
				_ = c.Close()
				continue
			}
			keep(s)
			all.Go(func() { k.carry(s, c, 0) })
			all.Go(func() { k.carry(c, s, k.rate) })
		}
	})
	t.Cleanup(func() {
		close(k.done)
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return k
}

// until waits for a moment of the link's own time.
func (k *slowLink) until(at time.Time) {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.done:
	}
}

// carry passes bytes on at rate (0: no limit), each later by the delay.
func (k *slowLink) carry(to, from net.Conn, rate float64) {
	// What is late because the machine was busy is made up for, up to this.
	const lateness = 50 * time.Millisecond
	type piece struct {
		at time.Time
		b  []byte
	}
	way := make(chan piece, 4096)
	var all sync.WaitGroup
	all.Go(func() {
		defer func() { _ = to.Close() }()
		for p := range way {
			k.until(p.at)
			select {
			case <-k.frozen:
				continue
			default:
			}
			if _, err := to.Write(p.b); err != nil {
				_ = from.Close()
			}
		}
	})
	defer all.Wait()
	defer close(way)
	free := time.Now()
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if n > 0 {
			if rate > 0 {
				if earliest := time.Now().Add(-lateness); free.Before(earliest) {
					free = earliest
				}
				free = free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
				k.until(free)
			}
			if rate > 0 {
				k.carried.Add(int64(n))
			}
			way <- piece{time.Now().Add(k.delay), b[:n]}
		}
		if err != nil {
			return
		}
	}
}

func (k *slowLink) connect(t testing.TB, from, to host.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: []multiaddr.Multiaddr{k.addr}}); err != nil {
		t.Fatal(err)
	}
}

// TestLinks: three links of 5 MB/s and 50 ms are used together, and when one of
// them freezes the others take over. How fast is for dunlin-bench to say.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, freeze := range []bool{false, true} {
		t.Run(map[bool]string{false: "steady", true: "one freezes"}[freeze], func(t *testing.T) {
			t.Parallel()
			const blocks, size, each = 45, 1_000_000, 5e6
			source := newFakeChain()
			source.grow(t, blocks, 1, size)
			n := newNode(t, newFakeChain())
			var links []*slowLink
			begin := make(chan struct{}) // closed when all links are there
			for range 3 {
				c := newFakeChain()
				c.served = begin
				c.addAll(t, source.branch())
				s := newNode(t, c)
				k := newSlowLink(t, s.host, each, 50*time.Millisecond)
				k.connect(t, n.host, s.host)
				links = append(links, k)
				eventually(t, "ready", func() bool { return n.Ready(s.host.ID()) })
			}
			close(begin)
			began, frozen := time.Now(), freeze
			for {
				tip, moved := n.chain.Tip()
				if tip.Height == blocks {
					break
				}
				if freeze && tip.Height >= 10 {
					freeze = false
					close(links[1].frozen)
				}
				receive(t, "the next block", moved)
			}
			took := time.Since(began)
			var carried [3]int64
			for i, k := range links {
				carried[i] = k.carried.Load()
			}
			t.Logf("%v, %.2f of the links; carried %d", took.Round(time.Millisecond), blocks*size/(3*each)/took.Seconds(), carried)
			if least := slices.Min(carried[:]); !frozen && least < blocks*size/9 {
				t.Errorf("the links carried %d bytes: they were not used together", carried)
			}
		})
	}
}
