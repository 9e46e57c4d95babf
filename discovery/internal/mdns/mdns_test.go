package mdns_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"dunlin/discovery/internal/mdns"
)

// wire is a local network in memory: what one sends, all hear, the sender too.
type wire struct {
	mu      sync.Mutex
	plugs   []*plug
	packets [][]byte // all that was sent
}

type packet struct {
	from netip.Addr
	b    []byte
}

type plug struct {
	wire   *wire
	ip     netip.Addr
	in     chan packet
	closed chan struct{}
	once   sync.Once
}

var prefix = netip.MustParsePrefix("192.168.1.0/24")

func (w *wire) plug(ip string) *plug {
	p := &plug{wire: w, ip: netip.MustParseAddr(ip), in: make(chan packet, 20_000), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plugs = append(w.plugs, p)
	return p
}

func (p *plug) Read(b []byte) (int, netip.Addr, error) {
	select {
	case x := <-p.in:
		return copy(b, x.b), x.from, nil
	case <-p.closed:
		return 0, netip.Addr{}, errors.New("closed")
	}
}

func (p *plug) Write(b []byte) error { p.wire.send(p.ip, b); return nil }

func (w *wire) send(from netip.Addr, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets = append(w.packets, slices.Clone(b))
	for _, p := range w.plugs {
		select {
		case p.in <- packet{from, slices.Clone(b)}:
		default:
		}
	}
}

func (p *plug) OnLink(ip netip.Addr) bool { return prefix.Contains(ip) }

func (p *plug) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// count tells how many packets were sent that match.
func (w *wire) count(match func(m *dns.Msg) bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.packets {
		var m dns.Msg
		if m.Unpack(b) == nil && match(&m) {
			n++
		}
	}
	return n
}

// machine is one that runs the service; found is what it heard.
type machine struct {
	mu    sync.Mutex
	found []string
	stop  func()
}

func (m *machine) heard() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.found)
}

func (w *wire) machine(t *testing.T, ip, service, instance string, text ...string) *machine {
	t.Helper()
	m := &machine{}
	conn := w.plug(ip)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := mdns.Run(ctx, mdns.Options{
			Service: service, Instance: instance, Text: func(func(netip.Addr) bool) []string { return text },
			Found: func(_ netip.Addr, _ func(netip.Addr) bool, text []string) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.found = append(m.found, text...)
			},
			Interfaces: func(open []string) (map[string]mdns.Conn, []string, error) {
				if len(open) > 0 {
					return nil, nil, nil
				}
				return map[string]mdns.Conn{"eth0": conn}, nil, nil
			},
		})
		if err != nil {
			t.Error(err)
		}
	}()
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(m.stop)
	return m
}

const service = "_test._udp"

func TestTwoFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		a := w.machine(t, "192.168.1.1", service, "a", "x=1", `back\slash`, strings.Repeat("y", 256))
		other := w.machine(t, "192.168.1.3", "_other._udp", "c", "z=1")
		silent := w.machine(t, "192.168.1.4", service, "d")
		time.Sleep(time.Hour) // long after its first questions
		b := w.machine(t, "192.168.1.2", service, "b", "x=2")
		time.Sleep(2 * time.Second)
		if got := b.heard(); !slices.Contains(got, "x=1") || slices.Contains(got, "x=2") || slices.Contains(got, "z=1") {
			t.Errorf("b heard %q", got)
		}
		if got := a.heard(); !slices.Contains(got, "x=2") || slices.Contains(got, "x=1") {
			t.Errorf("a heard %q", got)
		}
		if got := silent.heard(); !slices.Contains(got, "x=1") || !slices.Contains(got, "x=2") {
			t.Errorf("one that tells nothing heard %q", got)
		}
		if got := other.heard(); len(got) > 0 {
			t.Errorf("another service heard %q", got)
		}
		b.stop()
		synctest.Wait()
		gone := func(m *dns.Msg) bool { return m.Response && len(m.Answer) == 1 && m.Answer[0].Header().Ttl == 0 }
		if n := w.count(gone); n != 1 {
			t.Errorf("%d goodbyes", n)
		}
	})
}

// However many ask, an answer comes once a second at most; who knows it already gets none.
func TestQuestionsAreAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		w.machine(t, "192.168.1.1", service, "a", "x=1")
		time.Sleep(10 * time.Minute)
		answers := func() int { return w.count(func(m *dns.Msg) bool { return m.Response }) }
		ask := func(known ...dns.RR) {
			m := new(dns.Msg)
			m.Question = []dns.Question{{Name: service + ".local.", Qtype: dns.TypePTR, Qclass: dns.ClassINET}}
			m.Answer = known
			b, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			w.send(netip.MustParseAddr("192.168.1.9"), b)
		}
		before := answers()
		for range 100 {
			ask()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if n := answers() - before; n < 9 || n > 12 {
			t.Errorf("%d answers to 100 questions in 10 s", n)
		}
		before = answers()
		ask(&dns.PTR{Hdr: dns.RR_Header{Name: service + ".local.", Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: 100}, Ptr: "a." + service + ".local."})
		time.Sleep(2 * time.Second)
		if n := answers() - before; n != 0 {
			t.Errorf("%d answers to one who knows", n)
		}
	})
}

// A flood costs so many packets a second; what comes from another network costs nothing and is not heard.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		a := w.machine(t, "192.168.1.1", service, "a", "x=1")
		synctest.Wait()
		tell := func(from, instance string) {
			m := new(dns.Msg)
			m.Response = true
			m.Answer = []dns.RR{&dns.TXT{
				Hdr: dns.RR_Header{Name: instance + "." + service + ".local.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 120},
				Txt: []string{instance},
			}}
			b, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			w.send(netip.MustParseAddr(from), b)
		}
		for i := range 5000 {
			tell("10.9.9.9", fmt.Sprintf("far%d", i))
		}
		synctest.Wait()
		if n := len(a.heard()); n != 0 {
			t.Errorf("%d of another network were heard", n)
		}
		for i := range 5000 {
			tell("192.168.1.66", fmt.Sprintf("fake%d", i))
		}
		time.Sleep(time.Second)
		if n := len(a.heard()); n == 0 || n > 150 {
			t.Errorf("%d of 5000 packets were looked at", n)
		}
	})
}

// What is told fits a frame, whatever there is to tell.
func TestPacketFitsAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		var text []string
		for i := range 50 {
			text = append(text, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 200)))
		}
		w.machine(t, "192.168.1.1", service, "a", text...)
		b := w.machine(t, "192.168.1.2", service, "b")
		time.Sleep(3 * time.Second)
		if got := b.heard(); len(got) == 0 || got[0] != text[0] {
			t.Errorf("heard %q", got)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, p := range w.packets {
			if len(p) > 1400 {
				t.Errorf("a packet of %d bytes", len(p))
			}
		}
	})
}

// Interfaces come and go.
func TestInterfaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		var mu sync.Mutex
		up, opened := true, 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- mdns.Run(ctx, mdns.Options{
				Service: service, Instance: "a", Text: func(func(netip.Addr) bool) []string { return []string{"x=1"} },
				Found: func(netip.Addr, func(netip.Addr) bool, []string) {},
				Interfaces: func(open []string) (map[string]mdns.Conn, []string, error) {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case up && len(open) == 0:
						opened++
						return map[string]mdns.Conn{"eth0": w.plug("192.168.1.1")}, nil, nil
					case !up && len(open) > 0:
						return nil, open, nil
					}
					return nil, nil, errors.New("one that cannot be opened")
				},
			})
		}()
		time.Sleep(time.Minute)
		mu.Lock()
		up = false
		mu.Unlock()
		time.Sleep(time.Minute)
		quiet := w.count(func(*dns.Msg) bool { return true })
		time.Sleep(10 * time.Minute)
		if n := w.count(func(*dns.Msg) bool { return true }); n != quiet {
			t.Errorf("%d packets without an interface", n-quiet)
		}
		mu.Lock()
		up = true
		mu.Unlock()
		time.Sleep(time.Minute)
		// The reader's end is noticed, too.
		w.mu.Lock()
		last := w.plugs[len(w.plugs)-1]
		w.mu.Unlock()
		_ = last.Close()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if opened != 3 {
			t.Errorf("opened %d times", opened)
		}
	})
}

func TestOptions(t *testing.T) {
	err := mdns.Run(t.Context(), mdns.Options{Instance: "a.b"})
	for _, want := range []string{"service", `instance "a.b"`, "no Text or Found"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// Nothing that is sent ends the process.
func FuzzPacket(f *testing.F) {
	m := new(dns.Msg)
	m.Response = true
	m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "b." + service + ".local.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 120}, Txt: []string{"x"}}}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	m.Response, m.Answer = false, nil
	m.Question = []dns.Question{{Name: service + ".local.", Qtype: dns.TypeANY, Qclass: dns.ClassINET}}
	if b, err = m.Pack(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, text := range mdns.Packet(service, b) {
			if len(text) > 4*255 { // escapes
				t.Errorf("a string of %d bytes", len(text))
			}
		}
	})
}
