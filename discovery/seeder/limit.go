package seeder

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rates of answers over UDP, where senders can be forged: by the network of the sender (an attacker
// aims many forged questions at one victim) and in all. TCP proves the sender and is limited by
// connections.
const (
	netRate  = 10 // a second, of a /24 or a /56
	netBurst = 40
	allRate  = 5000 // a second
	allBurst = 10_000
	maxNets  = 16_384
	// Over the rate every slipEvery-th question is told to come by TCP, the rest get no answer:
	// "slip" of the response rate limiting of BIND and NSD.
	slipEvery = 2
)

type verdict int

const (
	allow verdict = iota
	slip
	drop
)

// limiter bounds the answers and counts them.
type limiter struct {
	mu        sync.Mutex
	nets      map[netip.Prefix]*rate.Limiter
	all       *rate.Limiter
	slips     uint64
	slip      *rate.Limiter // of the answers that send to TCP
	swept     time.Time
	questions uint64
	replies   map[string]uint64
}

func newLimiter() *limiter {
	return &limiter{
		nets: map[netip.Prefix]*rate.Limiter{}, replies: map[string]uint64{},
		all: rate.NewLimiter(allRate, allBurst), slip: rate.NewLimiter(allRate, allBurst),
	}
}

// question decides on one question and counts it.
func (l *limiter) question(now time.Time, from net.Addr, udp bool) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.questions++
	if !udp {
		return allow
	}
	if l.network(now, from).AllowN(now, 1) && l.all.AllowN(now, 1) {
		return allow
	}
	if l.slips++; l.slips%slipEvery == 0 && l.slip.AllowN(now, 1) {
		return slip
	}
	l.count("dropped")
	return drop
}

// network is the bucket of the sender's network.
func (l *limiter) network(now time.Time, from net.Addr) *rate.Limiter {
	var ip netip.Addr
	if a, ok := from.(*net.UDPAddr); ok {
		ip = a.AddrPort().Addr().Unmap()
	}
	bits := 24
	if ip.Is6() {
		bits = 56
	}
	key, _ := ip.WithZone("").Prefix(bits)
	n := l.nets[key]
	if n == nil {
		if len(l.nets) >= maxNets && now.Sub(l.swept) >= time.Second {
			l.swept = now
			maps.DeleteFunc(l.nets, func(_ netip.Prefix, n *rate.Limiter) bool { return n.TokensAt(now) >= netBurst })
		}
		for k := range l.nets { // all are busy: a forged flood; any one makes room
			if len(l.nets) < maxNets {
				break
			}
			delete(l.nets, k)
		}
		n = rate.NewLimiter(netRate, netBurst)
		l.nets[key] = n
	}
	return n
}

// reply counts an answer of a kind out of a small set.
func (l *limiter) reply(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(kind)
}

func (l *limiter) count(kind string) {
	l.replies[kind]++
}

func (l *limiter) counts() (uint64, map[string]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.questions, maps.Clone(l.replies)
}
