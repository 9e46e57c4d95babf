package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"
)

// Limits of one seed's answer.
const (
	maxDNSResults = 100 // peer addresses of a seed; as many as go-multiaddr-dns takes
	maxDNSDepth   = 4   // /dnsaddr records that name /dnsaddr records
	maxDNSQueries = 32  // questions asked for one seed
	maxTXTBytes   = 1024
	maxBare       = 16 // addresses without a peer id at which somebody is looked for

	dnsTimeout     = 3 * time.Second  // one question to one server, over UDP and then TCP
	dnsSeedTimeout = 10 * time.Second // all questions of one seed
	ednsBytes      = 1232             // passes every path without fragments (DNS flag day 2020)
)

// errNoPeerIDs says that a seed has addresses, and none with a peer id.
var errNoPeerIDs = errors.New("this seed gives no peer ids")

// dnsError is an answer that is no result; its text is for the operator.
type dnsError struct {
	text     string
	negative bool // the server answered and says there is nothing, as against no answer
}

func (e *dnsError) Error() string { return e.text }

// lookuper asks for DNS records. Names are without a trailing dot.
type lookuper interface {
	txt(ctx context.Context, name string) ([]string, error)
	ip(ctx context.Context, name string, qtype uint16) ([]netip.Addr, error) // qtype is A or AAAA
}

// systemResolver is the one of the machine.
type systemResolver struct{ r *net.Resolver }

func (s systemResolver) txt(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	out, err := s.r.LookupTXT(ctx, name)
	return out, systemError(err)
}

func (s systemResolver) ip(ctx context.Context, name string, qtype uint16) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	network := "ip4"
	if qtype == dns.TypeAAAA {
		network = "ip6"
	}
	out, err := s.r.LookupNetIP(ctx, network, name)
	return out, systemError(err)
}

func systemError(err error) error {
	var d *net.DNSError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &d) && d.IsNotFound:
		return &dnsError{text: "no such name or record", negative: true}
	case errors.As(err, &d) && d.IsTimeout:
		return &dnsError{text: "resolver timed out"}
	case errors.As(err, &d):
		return &dnsError{text: d.Err}
	}
	return err
}

// serverResolver asks given servers, all at once; the first answer with records wins.
type serverResolver struct{ servers []string }

func (s serverResolver) txt(ctx context.Context, name string) ([]string, error) {
	rrs, err := s.ask(ctx, name, dns.TypeTXT)
	var out []string
	for _, rr := range rrs {
		if t, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(t.Txt, ""))
		}
	}
	return out, err
}

func (s serverResolver) ip(ctx context.Context, name string, qtype uint16) ([]netip.Addr, error) {
	rrs, err := s.ask(ctx, name, qtype)
	var out []netip.Addr
	for _, rr := range rrs {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out, err
}

// ask returns the first answer of any server, else the error that tells most. It
// returns when every question has ended.
func (s serverResolver) ask(ctx context.Context, name string, qtype uint16) ([]dns.RR, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	type result struct {
		rrs []dns.RR
		err error
	}
	answers := make(chan result, len(s.servers))
	for _, server := range s.servers {
		go func() {
			rrs, err := exchange(ctx, server, name, qtype)
			answers <- result{rrs, err}
		}()
	}
	var best result
	for range s.servers { // every goroutine sends once, so all have ended after the loop
		r := <-answers
		var d *dnsError
		switch {
		case best.rrs != nil:
		case r.err == nil:
			best = r
			cancel() // the others need not go on
		case best.err == nil || errors.As(r.err, &d) && d.negative:
			best = r
		}
	}
	return best.rrs, best.err
}

// exchange asks one server over UDP, and over TCP if the answer was cut.
func exchange(ctx context.Context, server, name string, qtype uint16) ([]dns.RR, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(ednsBytes, false)
	a, err := roundTrip(ctx, &dns.Client{UDPSize: ednsBytes}, q, server)
	if a != nil && a.Truncated {
		a, err = roundTrip(ctx, &dns.Client{Net: "tcp"}, q, server)
	}
	if err != nil {
		return nil, &dnsError{text: fmt.Sprintf("server %s: %s", server, cause(err))}
	}
	switch {
	case a.Rcode != dns.RcodeSuccess:
		return nil, &dnsError{text: dns.RcodeToString[a.Rcode], negative: a.Rcode == dns.RcodeNameError}
	case len(a.Answer) == 0:
		return nil, &dnsError{text: "no " + dns.TypeToString[qtype] + " records", negative: true}
	}
	return a.Answer, nil
}

// roundTrip is dns.Client.ExchangeContext, but ends when ctx does.
func roundTrip(ctx context.Context, c *dns.Client, q *dns.Msg, server string) (*dns.Msg, error) {
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer atEnd(ctx, func() { _ = conn.Close() })()
	a, _, err := c.ExchangeWithConnContext(ctx, q, conn)
	if ctx.Err() != nil && a == nil {
		err = errors.New("no answer")
	}
	return a, err
}

// seedAnswer is what one seed or DNS address gave.
type seedAnswer struct {
	peers map[peer.ID][]ma.Multiaddr // transport addresses with IPs, without /p2p
	found int                        // addresses in peers, at most maxDNSResults
	noID  int                        // addresses without a peer id
	bare  []ma.Multiaddr             // of these, what can be asked who is there: /ip4/…/tcp/…, at most maxBare
}

// walk is the state of one seed's resolution.
type walk struct {
	r       lookuper
	out     seedAnswer
	port    uint16 // of nodes behind a name that has addresses only; 0: unknown
	queries int
	seen    map[string]bool // names asked for TXT records
	lastErr error
}

// resolveSeed resolves a seed: the multiaddr of a bootstrap or persistent peer
// with a DNS name, or /dnsaddr/<host> for a plain host name. A host that has no dnsaddr records may have
// A or AAAA records: those, with port, are the answer's bare addresses. It blocks for at most
// dnsSeedTimeout. The error is nil if there is any peer, and errNoPeerIDs, wrapped, if there are only addresses without a peer id.
func resolveSeed(ctx context.Context, r lookuper, a ma.Multiaddr, port uint16) (seedAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsSeedTimeout)
	defer cancel()
	w := walk{r: r, port: port, out: seedAnswer{peers: map[peer.ID][]ma.Multiaddr{}}, seen: map[string]bool{}}
	w.resolve(ctx, a, 0)
	if w.out.found > 0 {
		return w.out, nil
	}
	if w.out.noID == 0 && first(a) == ma.P_DNSADDR && len(a) == 1 && w.lastErr != nil {
		w.addresses(ctx, a[0].Value())
	}
	if w.out.noID > 0 {
		return w.out, fmt.Errorf("%w (%d addresses without one)", errNoPeerIDs, w.out.noID)
	}
	if w.lastErr == nil {
		w.lastErr = &dnsError{text: "no dnsaddr= records", negative: true}
	}
	return w.out, w.lastErr
}

func (w *walk) resolve(ctx context.Context, a ma.Multiaddr, depth int) {
	if w.out.found >= maxDNSResults || len(a) == 0 || len(a.Bytes()) > maxAddrBytes {
		return
	}
	if !isDNS(a) {
		addr, id := splitPeer(a)
		if id == "" {
			w.anonymous(addr)
			return
		}
		if _, ok := addrIP(addr); ok && !containsAddr(w.out.peers[id], addr) {
			w.out.peers[id] = append(w.out.peers[id], addr)
			w.out.found++
		}
		return
	}
	if depth >= maxDNSDepth || w.queries >= maxDNSQueries {
		w.lastErr = &dnsError{text: "too many records that name other records"}
		return
	}
	if ctx.Err() != nil {
		w.lastErr = &dnsError{text: "no answer in time"}
		return
	}
	name, rest := a[0].Value(), a[1:]
	if first(a) == ma.P_DNSADDR {
		w.dnsaddr(ctx, name, rest, depth)
		return
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	switch first(a) {
	case ma.P_DNS4:
		types = types[:1]
	case ma.P_DNS6:
		types = types[1:]
	}
	for _, t := range types {
		w.queries++
		ips, err := w.r.ip(ctx, name, t)
		if err != nil {
			w.lastErr = fmt.Errorf("%s: %w", name, err)
			continue
		}
		for _, ip := range ips {
			if ip.Is4() == (t == dns.TypeA) {
				w.resolve(ctx, ipAddr(ip).Encapsulate(rest), depth+1)
			}
		}
	}
}

// dnsaddr follows the TXT records of a name that end in rest.
func (w *walk) dnsaddr(ctx context.Context, name string, rest ma.Multiaddr, depth int) {
	key := strings.ToLower(name) + rest.String()
	if w.seen[key] {
		return
	}
	w.seen[key] = true
	w.queries++
	records, err := w.r.txt(ctx, "_dnsaddr."+name)
	if err != nil {
		w.lastErr = err
		return
	}
	// A seed may answer with more than we take: take a random part, so that no one
	// place in the answer decides whom everybody meets.
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	for _, t := range records {
		text, ok := strings.CutPrefix(t, "dnsaddr=")
		if !ok || len(t) > maxTXTBytes {
			continue
		}
		a, err := ma.NewMultiaddr(text)
		if err != nil || len(a) < len(rest) || len(rest) > 0 && !a[len(a)-len(rest):].Equal(rest) {
			continue
		}
		w.resolve(ctx, a, depth+1)
	}
}

// addresses takes the A and AAAA records of a host that has no dnsaddr records, as a Kubernetes headless service or a
// service of Docker Compose is: in random order, since not all may be taken.
func (w *walk) addresses(ctx context.Context, host string) {
	var all []netip.Addr
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		ips, err := w.r.ip(ctx, host, t)
		if err == nil {
			all = append(all, ips...)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, ip := range all {
		c, err := ma.NewComponent("tcp", strconv.Itoa(int(w.port)))
		if err != nil {
			panic(err) // a port always makes a component
		}
		w.anonymous(ipAddr(ip).AppendComponent(c))
	}
}

// anonymous notes an address without a peer id. Only over TCP can be asked who is there.
func (w *walk) anonymous(addr ma.Multiaddr) {
	w.out.noID++
	if _, ok := addrIP(addr); !ok || len(addr) != 2 || addr[1].Code() != ma.P_TCP || addr[1].Value() == "0" {
		return
	}
	if len(w.out.bare) < maxBare && !containsAddr(w.out.bare, addr) {
		w.out.bare = append(w.out.bare, addr)
	}
}

func ipAddr(ip netip.Addr) ma.Multiaddr {
	code := ma.P_IP6
	if ip.Is4() {
		code = ma.P_IP4
	}
	c, err := ma.NewComponent(ma.ProtocolWithCode(code).Name, ip.WithZone("").String())
	if err != nil {
		panic(err) // an IP always makes a component
	}
	return c.Multiaddr()
}

// seedAddr turns a configured seed into a multiaddr: /dnsaddr/<host> as it is, a
// plain host name as /dnsaddr/<host>.
func seedAddr(seed string) (ma.Multiaddr, error) {
	text := seed
	if !strings.HasPrefix(seed, "/") {
		host := strings.TrimSuffix(seed, ".")
		if _, ok := dns.IsDomainName(host); !ok || host == "" || strings.ContainsAny(host, "/: \t") {
			return nil, fmt.Errorf("%q: want a host name or /dnsaddr/<host name>", seed)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return nil, fmt.Errorf("%q: an IP address is no DNS seed; give it as a bootstrap address", seed)
		}
		text = "/dnsaddr/" + host
	}
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", seed, err)
	}
	if first(a) != ma.P_DNSADDR {
		return nil, fmt.Errorf("%q: want a host name or /dnsaddr/<host name>", seed)
	}
	return a, nil
}

// A Resolver resolves what Options.DNSSeeds, Bootstrap and Persistent may hold with a DNS name, for those who are no Discovery.
type Resolver struct {
	Servers []string  // as Options.DNSServers
	Host    host.Host // asks who is there where a name gives no peer ids; nil: that is an error
	Port    uint16    // as Options.SeedPort
	Private bool      // addresses of private networks may be asked who is there
}

// Resolve resolves a host name, or a multiaddr that begins with /dnsaddr, /dns, /dns4 or /dns6. It blocks for 15 s at most. The
// error, for an operator, is nil if there is any peer. The peers are in the order of their ids.
func (r *Resolver) Resolve(ctx context.Context, seed string) ([]peer.AddrInfo, error) {
	a, err := ma.NewMultiaddr(seed)
	if err != nil {
		if a, err = seedAddr(seed); err != nil {
			return nil, err
		}
	}
	var l lookuper = systemResolver{net.DefaultResolver}
	if len(r.Servers) > 0 {
		l = serverResolver{r.Servers}
	}
	answer, err := resolveSeed(ctx, l, a, r.Port)
	if r.Host != nil && errors.Is(err, errNoPeerIDs) {
		answer.askable(r.Private)
		err = answer.ask(ctx, r.Host, err)
	}
	if err != nil {
		return nil, err
	}
	var out []peer.AddrInfo
	for id, addrs := range answer.peers {
		out = append(out, peer.AddrInfo{ID: id, Addrs: addrs})
	}
	slices.SortFunc(out, func(a, b peer.AddrInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

// DialError names the reason of a failed dial for an operator: "refused", "timeout", "wrong_peer_id" and so
// on out of a small set, and a short text with the address. addrs are those that were dialled.
func DialError(err error, addrs []ma.Multiaddr) (reason, text string) { return dialReason(err, addrs) }
