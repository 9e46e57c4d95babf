// Package mdns tells the machines of a local network of a service and hears of theirs: multicast
// DNS (RFC 6762) with as much of DNS service discovery (RFC 6763) as one service type needs.
//
// It knows nothing of what the text records mean. It is no resolver: it asks for one service and answers for one
// instance of it. IPv4 only, which every local network has that has neighbours to find.
//
// Invariants: nothing that is heard is kept; a flood on the network costs a bounded number of decoded packets a second; an
// answer is sent once a second at most on an interface, however many ask.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"
)

const (
	port          = 5353
	maxPacket     = 9000 // bytes, RFC 6762 §17
	maxSent       = 1400 // bytes: fits a frame
	maxText       = 255  // bytes of one string
	maxInterfaces = 16
	maxRecords    = 64 // of a packet that are looked at

	// What an interface decodes of what it hears.
	packetsPerSecond = 50
	packetsBurst     = 100

	recordTTL = 120 // seconds

	// Pauses between questions: doubled from the first to the last.
	firstPause = time.Second
	lastPause  = time.Minute
	// interfacesEvery is the time between two looks at the machine's interfaces.
	interfacesEvery = 10 * time.Second
	// Answers wait a moment, so that those of all machines do not collide, and come once a second at most.
	answerDelay, answerSpread = 20 * time.Millisecond, 100 * time.Millisecond
	answerEvery               = time.Second
)

var group = netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 251}), port)

// A Conn is one interface of the machine.
type Conn interface {
	// Read waits for a packet; it ends with an error when the Conn is closed.
	Read(b []byte) (n int, from netip.Addr, err error)
	// Write sends a packet to everyone on the network.
	Write(b []byte) error
	// OnLink says whether an address is one of the network that the interface is on.
	OnLink(ip netip.Addr) bool
	Close() error
}

// Options of Run. All but Interfaces and Logger are required.
type Options struct {
	Service  string // such as _http._tcp
	Instance string // a label that no other has, without dots, at most 63 bytes
	// Text gives the strings to tell on a network, each of at most 255 bytes; what does not fit a packet is left out. None: nothing is told.
	Text func(onLink func(netip.Addr) bool) []string
	// Found is called, by one goroutine of an interface at a time, with what another instance on that network tells. It must not block.
	Found func(from netip.Addr, onLink func(netip.Addr) bool, text []string)

	// Interfaces opens the interfaces that are not yet open and up, by name. Default: the machine's.
	Interfaces func(open []string) (fresh map[string]Conn, gone []string, err error)
	Logger     *slog.Logger // default: none
}

func (o *Options) complete() error {
	var errs []error
	if _, ok := dns.IsDomainName(o.Service + ".local."); !ok || o.Service == "" {
		errs = append(errs, fmt.Errorf("service %q is no name", o.Service))
	}
	if o.Instance == "" || len(o.Instance) > 63 || strings.ContainsAny(o.Instance, `.\ `) {
		errs = append(errs, fmt.Errorf("instance %q is no label", o.Instance))
	}
	if o.Text == nil || o.Found == nil {
		errs = append(errs, errors.New("no Text or Found"))
	}
	if o.Interfaces == nil {
		o.Interfaces = systemInterfaces
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// Run tells and listens on every interface until ctx ends; then it says goodbye and returns nil. Interfaces
// may come and go. It returns an error only for bad Options.
func Run(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return fmt.Errorf("mdns options: %w", err)
	}
	open := map[string]*link{}
	tick := time.NewTicker(interfacesEvery)
	defer tick.Stop()
	told := ""
	for {
		for name, l := range open {
			select {
			case <-l.done: // the interface went away under the reader
				delete(open, name)
			default:
			}
		}
		fresh, gone, err := o.Interfaces(slices.Sorted(maps.Keys(open)))
		if err != nil && err.Error() != told {
			told = err.Error()
			o.Logger.Debug("not every interface is asked by multicast DNS", slog.Any("error", err))
		}
		for _, name := range gone {
			if l := open[name]; l != nil {
				l.stop()
				<-l.done
				delete(open, name)
			}
		}
		for name, c := range fresh {
			if open[name] != nil || len(open) >= maxInterfaces {
				_ = c.Close()
				continue
			}
			open[name] = newLink(ctx, &o, c)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // a tick may have come first
			for _, l := range open {
				l.stop()
				<-l.done
			}
			return nil
		}
	}
}

// link is one interface at work.
type link struct {
	o       *Options
	conn    Conn
	service string // with the domain
	self    string // our instance, with service and domain
	asked   chan struct{}
	stop    context.CancelFunc
	done    chan struct{}
}

// newLink starts a link, which ends with ctx or by stop, and then closes done.
func newLink(ctx context.Context, o *Options, c Conn) *link {
	ctx, cancel := context.WithCancel(ctx)
	service := o.Service + ".local."
	l := &link{
		o: o, conn: c, service: service, self: o.Instance + "." + service,
		asked: make(chan struct{}, 1), stop: cancel, done: make(chan struct{}),
	}
	go func() {
		defer close(l.done)
		defer cancel()
		var reader sync.WaitGroup
		reader.Go(func() {
			defer cancel()
			l.read()
		})
		l.talk(ctx)
		_ = l.conn.Close()
		reader.Wait()
	}()
	return l
}

// talk asks, and answers those who ask, until ctx ends.
func (l *link) talk(ctx context.Context) {
	pause := firstPause
	ask := time.NewTimer(0)
	defer ask.Stop()
	answer := time.NewTimer(answerDelay)
	defer answer.Stop()
	var last time.Time
	due := true // an answer
	for {
		select {
		case <-ctx.Done():
			l.send(l.answer(0))
			return
		case <-ask.C:
			l.send(l.question())
			ask.Reset(pause + rand.N(pause/4)) //nolint:gosec // jitter
			pause = min(2*pause, lastPause)
		case <-l.asked:
			if due {
				continue // who asks all the time must not put it off
			}
			due = true
			wait := answerDelay + rand.N(answerSpread) //nolint:gosec // jitter
			answer.Reset(max(wait, time.Until(last.Add(answerEvery))))
		case <-answer.C:
			due, last = false, time.Now()
			l.send(l.answer(recordTTL))
		}
	}
}

func (l *link) send(m *dns.Msg) {
	if m == nil {
		return
	}
	m.Compress = true
	b, err := m.Pack()
	if err == nil {
		err = l.conn.Write(b)
	}
	if err != nil {
		l.o.Logger.Debug("multicast DNS packet not sent", slog.Any("error", err))
	}
}

// question asks who is there but us, whose question comes back to us too.
func (l *link) question() *dns.Msg {
	m := new(dns.Msg)
	m.Answer = []dns.RR{l.pointer(recordTTL)}
	m.Question = []dns.Question{{Name: l.service, Qtype: dns.TypePTR, Qclass: dns.ClassINET}}
	return m
}

// answer tells of our instance; nil if there is nothing to tell. A TTL of 0 takes back what was told.
func (l *link) answer(ttl uint32) *dns.Msg {
	m := new(dns.Msg)
	m.Response, m.Authoritative = true, true
	txt := &dns.TXT{Hdr: dns.RR_Header{Name: l.self, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: ttl}}
	m.Answer = []dns.RR{l.pointer(ttl)}
	m.Extra = []dns.RR{txt}
	size := m.Len()
	for _, s := range l.o.Text(l.conn.OnLink) {
		if len(s) > maxText || size+len(s)+1 > maxSent {
			continue
		}
		size += len(s) + 1
		// The library reads backslashes as escapes.
		txt.Txt = append(txt.Txt, strings.ReplaceAll(s, `\`, `\\`))
	}
	if len(txt.Txt) == 0 {
		return nil
	}
	return m
}

// pointer is the record that names our instance.
func (l *link) pointer(ttl uint32) dns.RR {
	return &dns.PTR{Hdr: dns.RR_Header{Name: l.service, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: l.self}
}

// read hears what others send until the Conn is closed.
func (l *link) read() {
	limit := rate.NewLimiter(packetsPerSecond, packetsBurst)
	b := make([]byte, maxPacket)
	for {
		n, from, err := l.conn.Read(b)
		if err != nil {
			return
		}
		// Whoever is on another network has no business here (RFC 6762 §11).
		if l.conn.OnLink(from) && limit.Allow() {
			l.packet(from, b[:n])
		}
	}
}

// packet looks at what was sent.
func (l *link) packet(from netip.Addr, b []byte) {
	var m dns.Msg
	if m.Unpack(b) != nil || m.Opcode != dns.OpcodeQuery {
		return
	}
	if m.Response {
		l.heard(from, &m)
	} else if l.isAsked(&m) {
		select {
		case l.asked <- struct{}{}:
		default:
		}
	}
}

// isAsked says whether a question is for us, and not answered by what the asker knows already.
func (l *link) isAsked(m *dns.Msg) bool {
	asked := slices.ContainsFunc(m.Question[:min(len(m.Question), maxRecords)], func(q dns.Question) bool {
		return strings.EqualFold(q.Name, l.service) && (q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY)
	})
	return asked && !slices.ContainsFunc(m.Answer[:min(len(m.Answer), maxRecords)], func(rr dns.RR) bool {
		p, ok := rr.(*dns.PTR)
		return ok && strings.EqualFold(p.Ptr, l.self) && p.Hdr.Ttl >= recordTTL/2
	})
}

// heard hands on what other instances tell.
func (l *link) heard(from netip.Addr, m *dns.Msg) {
	records := slices.Concat(m.Answer, m.Extra)
	for _, rr := range records[:min(len(records), maxRecords)] {
		t, ok := rr.(*dns.TXT)
		if !ok || t.Hdr.Ttl == 0 || strings.EqualFold(t.Hdr.Name, l.self) {
			continue
		}
		name := strings.ToLower(t.Hdr.Name)
		if !strings.HasSuffix(name, "."+strings.ToLower(l.service)) {
			continue
		}
		l.o.Found(from, l.conn.OnLink, t.Txt[:min(len(t.Txt), maxRecords)])
	}
}

// systemInterfaces opens the interfaces of the machine that are up, can multicast and have an IPv4 address.
func systemInterfaces(open []string) (fresh map[string]Conn, gone []string, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, nil, err
	}
	fresh = map[string]Conn{}
	up := map[string]bool{}
	var errs []error
	for i := range all {
		ifi := &all[i]
		if ifi.Flags&net.FlagUp == 0 || ifi.Flags&net.FlagMulticast == 0 {
			continue
		}
		prefixes := prefixesOf(ifi)
		if len(prefixes) == 0 {
			continue
		}
		name := fmt.Sprint(ifi.Name, prefixes) // an interface with another address is another one
		up[name] = true
		if slices.Contains(open, name) || len(open)+len(fresh) >= maxInterfaces {
			continue
		}
		c, err := openInterface(ifi, prefixes)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ifi.Name, err))
			continue
		}
		fresh[name] = c
	}
	for _, name := range open {
		if !up[name] {
			gone = append(gone, name)
		}
	}
	return fresh, gone, errors.Join(errs...)
}

func prefixesOf(ifi *net.Interface) (out []netip.Prefix) {
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP.To4())
		if ones, _ := n.Mask.Size(); ok && len(out) < maxRecords {
			out = append(out, netip.PrefixFrom(ip, ones).Masked())
		}
	}
	return out
}

// socket is a Conn of the machine.
type socket struct {
	conn     *net.UDPConn
	prefixes []netip.Prefix
}

func openInterface(ifi *net.Interface, prefixes []netip.Prefix) (*socket, error) {
	conn, err := net.ListenMulticastUDP("udp4", ifi, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, err
	}
	// Two nodes on one machine hear each other.
	p := ipv4.NewPacketConn(conn)
	if err := errors.Join(p.SetMulticastLoopback(true), p.SetMulticastTTL(255)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &socket{conn, prefixes}, nil
}

func (s *socket) Read(b []byte) (int, netip.Addr, error) {
	n, from, err := s.conn.ReadFromUDPAddrPort(b)
	return n, from.Addr().Unmap(), err
}

func (s *socket) Write(b []byte) error {
	_, err := s.conn.WriteToUDPAddrPort(b, group)
	return err
}

func (s *socket) OnLink(ip netip.Addr) bool {
	return slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

func (s *socket) Close() error { return s.conn.Close() }
