package seeder

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/net/netutil"

	"dunlin/discovery"
)

// Limits of answers.
const (
	// Whoever forges the sender of a question must not gain much: over UDP an answer has at
	// most as many bytes as plain DNS allows, whatever EDNS says, and more by TCP only.
	maxUDPBytes = dns.MinMsgSize
	ttl         = 60 // seconds

	sampleFor    = 10 * time.Second // everybody gets the same answer for so long,
	smallFor     = time.Second      // and while there are few nodes, for so long
	sampleSize   = 25               // TXT records; those of A and AAAA likewise
	maxPerGroup  = 2                // of one IP group, on public networks
	maxTXTString = 255

	maxTCPConns   = 256 // of each address
	tcpIdle       = 8 * time.Second
	maxTCPQueries = 16 // of one connection
	ioTimeout     = 2 * time.Second

	dnsaddrLabel = "_dnsaddr."
)

// sample is what is answered now.
type sample struct {
	at       time.Time
	txt      []string
	v4, v6   []netip.Addr
	goodness int // good nodes there were
}

// sampleNow returns the records to answer with.
func (s *Seeder) sampleNow(now time.Time) sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := sampleFor
	if s.sample.goodness < sampleSize {
		keep = smallFor
	}
	if now.Sub(s.sample.at) < keep {
		return s.sample
	}
	good := s.goodLocked(now)
	rand.Shuffle(len(good), func(i, j int) { good[i], good[j] = good[j], good[i] })
	out := sample{at: now, goodness: len(good)}
	groups := map[string]int{}
	for _, n := range good {
		if group := discovery.IPGroup(n.addrs[0]); !s.opts.Private {
			if groups[group]++; groups[group] > maxPerGroup {
				continue
			}
		}
		// Of each node one address: the one at which it answered. The others are only what somebody said.
		for _, a := range discovery.Dialable(n.addrs[:1], s.opts.Private) {
			text := "dnsaddr=" + a.String() + "/p2p/" + n.id.String()
			if len(text) <= maxTXTString && len(out.txt) < sampleSize {
				out.txt = append(out.txt, text)
			}
			out.addIP(a)
		}
	}
	s.sample = out
	return out
}

func (p *sample) addIP(a ma.Multiaddr) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return
	}
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	list := &p.v6
	if addr.Is4() {
		list = &p.v4
	}
	if !ok || len(*list) >= sampleSize {
		return
	}
	if !slices.Contains(*list, addr) {
		*list = append(*list, addr)
	}
}

// serve starts the DNS servers; they end with ctx. fail hears of one that ends before.
func (s *Seeder) serve(ctx context.Context, wg *sync.WaitGroup, fail func(error)) {
	for i := range s.udp {
		addr := s.udp[i].LocalAddr().String()
		servers := []*dns.Server{
			{PacketConn: s.udp[i], Handler: s, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout},
			{
				Listener: netutil.LimitListener(s.tcp[i], maxTCPConns), Handler: s, MaxTCPQueries: maxTCPQueries,
				IdleTimeout: func() time.Duration { return tcpIdle }, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout,
			},
		}
		s.log.Info("answering DNS", slog.String("addr", addr), slog.String("zone", s.opts.Zone))
		for _, srv := range servers {
			started := make(chan struct{})
			srv.NotifyStartedFunc = func() { close(started) }
			ended := make(chan struct{})
			wg.Go(func() {
				defer close(ended)
				if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
					fail(fmt.Errorf("DNS server on %s: %w", addr, err))
				}
			})
			wg.Go(func() {
				select {
				case <-ctx.Done():
				case <-ended:
					return
				}
				select { // a server that has not begun cannot be told to end
				case <-started:
				case <-ended:
					return
				}
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ioTimeout)
				defer cancel()
				if err := srv.ShutdownContext(ctx); err != nil {
					s.log.Debug("a DNS server ended late", slog.String("addr", addr), slog.Any("error", err))
				}
			})
		}
	}
}

// ServeDNS implements dns.Handler.
func (s *Seeder) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	now := time.Now()
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	verdict := s.limits.question(now, w.RemoteAddr(), udp)
	if verdict == drop {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	kind := "limited"
	if verdict == slip {
		m.Truncated = true // no more bytes than were asked with: an honest one comes by TCP
	} else {
		kind = s.answer(now, q, m)
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(maxUDPBytes, false)
	}
	if udp {
		m.Truncate(maxUDPBytes)
	}
	s.limits.reply(kind)
	if err := w.WriteMsg(m); err != nil {
		s.log.Debug("a DNS answer was not sent", slog.Any("error", err))
	}
}

// answer fills in m and says what kind of answer it is.
func (s *Seeder) answer(now time.Time, q, m *dns.Msg) string {
	if q.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
		return "notimp"
	}
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return "formerr"
	}
	ask := q.Question[0]
	name := dns.CanonicalName(ask.Name)
	transfer := ask.Qtype == dns.TypeAXFR || ask.Qtype == dns.TypeIXFR
	if ask.Qclass != dns.ClassINET || transfer || !dns.IsSubDomain(s.opts.Zone, name) {
		m.Rcode = dns.RcodeRefused
		return "refused"
	}
	m.Authoritative = true
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: ask.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	apex, dnsaddr := name == s.opts.Zone, name == dnsaddrLabel+s.opts.Zone
	switch {
	case !apex && !dnsaddr:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{s.soa(s.opts.Zone)}
		return "nxdomain"
	case ask.Qtype == dns.TypeANY: // RFC 8482
		m.Answer = []dns.RR{&dns.HINFO{Hdr: head(dns.TypeHINFO), Cpu: "RFC8482"}}
	case dnsaddr && ask.Qtype == dns.TypeTXT:
		for _, text := range s.sampleNow(now).txt {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head(dns.TypeTXT), Txt: []string{text}})
		}
	case apex && ask.Qtype == dns.TypeA:
		for _, ip := range s.sampleNow(now).v4 {
			m.Answer = append(m.Answer, &dns.A{Hdr: head(dns.TypeA), A: ip.AsSlice()})
		}
	case apex && ask.Qtype == dns.TypeAAAA:
		for _, ip := range s.sampleNow(now).v6 {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	case apex && ask.Qtype == dns.TypeNS:
		for _, ns := range s.opts.Nameservers {
			m.Answer = append(m.Answer, &dns.NS{Hdr: head(dns.TypeNS), Ns: ns})
		}
	case apex && ask.Qtype == dns.TypeSOA:
		m.Answer = []dns.RR{s.soa(ask.Name)}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{s.soa(s.opts.Zone)}
		return "nodata"
	}
	return "answer"
}

func (s *Seeder) soa(name string) *dns.SOA {
	mailbox, _ := mailboxName(s.opts.Mailbox) // checked by validate
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  s.opts.Nameservers[0], Mbox: mailbox, Serial: s.serial,
		Refresh: 3600, Retry: 600, Expire: 7 * 86400, Minttl: ttl,
	}
}

// WriteZone writes what is answered now as a zone file (RFC 1035, 5), for operators who serve it
// with a DNS server of their own.
func (s *Seeder) WriteZone(w io.Writer) error {
	now := time.Now()
	p := s.sampleNow(now)
	soa := s.soa(s.opts.Zone)
	soa.Serial = uint32(now.Unix()) //nolint:gosec // wraps in 2106, as serials do
	rrs := []dns.RR{soa}
	head := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	for _, ns := range s.opts.Nameservers {
		rrs = append(rrs, &dns.NS{Hdr: head(s.opts.Zone, dns.TypeNS), Ns: ns})
	}
	for _, ip := range p.v4 {
		rrs = append(rrs, &dns.A{Hdr: head(s.opts.Zone, dns.TypeA), A: ip.AsSlice()})
	}
	for _, ip := range p.v6 {
		rrs = append(rrs, &dns.AAAA{Hdr: head(s.opts.Zone, dns.TypeAAAA), AAAA: ip.AsSlice()})
	}
	for _, text := range p.txt {
		rrs = append(rrs, &dns.TXT{Hdr: head(dnsaddrLabel+s.opts.Zone, dns.TypeTXT), Txt: []string{text}})
	}
	var b strings.Builder
	for _, rr := range rrs {
		b.WriteString(rr.String())
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
