package seeder

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"
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
	nets      map[netip.Prefix]*level
	all       level
	slips     uint64
	slip      level // of the answers that send to TCP
	swept     time.Time
	questions uint64
	replies   map[string]uint64
}

// level is a token bucket.
type level struct {
	tokens float64
	at     time.Time
}

func (l *level) take(now time.Time, rate, burst float64) bool {
	if l.at.IsZero() {
		l.tokens = burst
	} else {
		l.tokens = min(burst, l.tokens+now.Sub(l.at).Seconds()*rate)
	}
	l.at = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// question decides on one question and counts it.
func (l *limiter) question(now time.Time, from net.Addr, udp bool) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.questions++
	if !udp {
		return allow
	}
	if l.network(now, from).take(now, netRate, netBurst) && l.all.take(now, allRate, allBurst) {
		return allow
	}
	if l.slips++; l.slips%slipEvery == 0 && l.slip.take(now, allRate, allBurst) {
		return slip
	}
	l.count("dropped")
	return drop
}

// network is the bucket of the sender's network.
func (l *limiter) network(now time.Time, from net.Addr) *level {
	var ip netip.Addr
	if a, ok := from.(*net.UDPAddr); ok {
		ip = a.AddrPort().Addr().Unmap()
	}
	bits := 24
	if ip.Is6() {
		bits = 56
	}
	key, _ := ip.WithZone("").Prefix(bits)
	if l.nets == nil {
		l.nets = map[netip.Prefix]*level{}
	}
	n := l.nets[key]
	if n == nil {
		if len(l.nets) >= maxNets && now.Sub(l.swept) >= time.Second {
			l.swept = now
			maps.DeleteFunc(l.nets, func(_ netip.Prefix, n *level) bool { return now.Sub(n.at).Seconds()*netRate >= netBurst })
		}
		for k := range l.nets { // all are busy: a forged flood; any one makes room
			if len(l.nets) < maxNets {
				break
			}
			delete(l.nets, k)
		}
		n = &level{}
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
	if l.replies == nil {
		l.replies = map[string]uint64{}
	}
	l.replies[kind]++
}

func (l *limiter) counts() (uint64, map[string]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.questions, maps.Clone(l.replies)
}
