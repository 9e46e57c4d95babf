package discovery

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"

	"dunlin/discovery/internal/mdns"
)

const (
	mdnsPrefix = "dnsaddr=" // of a text record, as libp2p has it

	// Whoever is on the local network can make up peers. So many are listened to, and kept.
	mdnsEvery = 2 * time.Second
	mdnsBurst = 32
	maxMDNS   = 128
)

// mdnsService is the service type of a namespace: what follows its last slash, which is the chain id, in a label of
// at most 63 bytes.
func mdnsService(namespace string) string {
	label := []byte(namespace[strings.LastIndexByte(namespace, '/')+1:])
	for i, c := range label {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			label[i] = '-'
		}
	}
	return "_dunlin-" + string(label[:min(len(label), 55)]) + "._udp"
}

// mdnsLoop finds peers on the local network until ctx ends.
func (d *Discovery) mdnsLoop(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(mdnsEvery), mdnsBurst)
	err := mdns.Run(ctx, mdns.Options{
		Service: mdnsService(d.opts.Namespace), Instance: strings.ToLower(rand.Text()),
		Text:       d.mdnsText,
		Found:      func(_ netip.Addr, onLink func(netip.Addr) bool, text []string) { d.mdnsFound(limit, onLink, text) },
		Interfaces: d.interfaces, Logger: d.log,
	})
	if err != nil {
		d.log.Warn("no peers are looked for on the local network", slog.Any("error", err))
	}
}

// mdnsText is what we tell on a network: our addresses there.
func (d *Discovery) mdnsText(onLink func(netip.Addr) bool) []string {
	all, err := d.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil
	}
	announced := d.host.Addrs()
	var told, rest []string
	for _, a := range all {
		ip, ok := addrIP(a)
		if !ok || manet.IsIPLoopback(a) || !onLink(ip) {
			continue
		}
		text := mdnsPrefix + a.Encapsulate(p2pAddr(d.host.ID())).String()
		if containsAddr(announced, a) {
			told = append(told, text)
		} else {
			rest = append(rest, text)
		}
	}
	// What the operator keeps from others is kept here too. But one who announces addresses of elsewhere has neighbours all the same.
	if len(told) > 0 {
		return told
	}
	return rest
}

// mdnsFound learns what a neighbour tells of itself. Only addresses on the network where it was heard count: nobody is sent elsewhere.
func (d *Discovery) mdnsFound(limit *rate.Limiter, onLink func(netip.Addr) bool, text []string) {
	found := map[peer.ID][]ma.Multiaddr{}
	for _, s := range text {
		s, ok := strings.CutPrefix(s, mdnsPrefix)
		if !ok {
			continue
		}
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		addr, id := splitPeer(a)
		if ip, ok := addrIP(addr); !ok || id == "" || !onLink(ip) {
			continue
		}
		found[id] = append(found[id], addr)
	}
	fresh := false
	for id, addrs := range found {
		if id == d.host.ID() || d.mdnsHeard(id) || !limit.Allow() || !d.mdnsRoom(id) {
			continue
		}
		fresh = d.learn(peer.AddrInfo{ID: id, Addrs: addrs}, SourceMDNS, "") || fresh
	}
	if fresh {
		d.poke()
	}
}

// mdnsHeard says whether a peer is known already and answers, so that nothing new is to be heard of it.
func (d *Discovery) mdnsHeard(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.book.byID[id]
	return e != nil && e.tries == 0 // else it may have moved
}

// mdnsRoom says whether there is room for a peer that is told of by multicast DNS. It looks at the whole book, so it
// comes after the rate limit: names cost a neighbour nothing.
func (d *Discovery) mdnsRoom(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.book.byID[id] != nil {
		return true
	}
	n := 0
	for _, e := range d.book.byID {
		if e.source == SourceMDNS {
			n++
		}
	}
	return n < maxMDNS
}
