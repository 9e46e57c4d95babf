package seeder_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"

	"dunlin/discovery/seeder"
)

// patience is how long a test waits for what must come: much longer than it takes, since
// the machine may have other work.
const patience = 2 * time.Minute

// served is a seeder on loopback that knows a network of n nodes and answers.
func served(t *testing.T, n int) (string, *seeder.Seeder) {
	t.Helper()
	w := newNetwork(t, n)
	o := w.options()
	o.Listen = []string{"127.0.0.1:0"}
	o.Nameservers = []string{"ns1.example.org", "ns2.example.org."}
	o.Probe = func(context.Context, peer.AddrInfo) (seeder.Report, error) {
		return seeder.Report{Height: 1, Serves: true}, nil
	}
	for _, id := range w.ids {
		o.Bootstrap = append(o.Bootstrap, w.at[id])
	}
	s, err := seeder.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.Stats().Good < n {
		select {
		case <-deadline.C:
			t.Fatalf("stats %+v", s.Stats())
		case <-tick.C:
		}
	}
	return s.Addrs()[0], s
}

func ask(t *testing.T, addr, network, name string, kind, class uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.Question[0].Qclass = class
	c := &dns.Client{Net: network, Timeout: patience}
	m, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[kind], err)
	}
	return m
}

func TestDNSAnswers(t *testing.T) {
	addr, s := served(t, 40)
	in := uint16(dns.ClassINET)
	tests := []struct {
		name    string
		kind    uint16
		class   uint16
		rcode   int
		answers int
		soa     bool
	}{
		{"_dnsaddr.seed.example.org.", dns.TypeTXT, in, dns.RcodeSuccess, 25, false},
		{"_DNSaddr.SEED.example.org.", dns.TypeTXT, in, dns.RcodeSuccess, 25, false},
		{"seed.example.org.", dns.TypeA, in, dns.RcodeSuccess, 25, false},
		{"seed.example.org.", dns.TypeAAAA, in, dns.RcodeSuccess, 0, true},
		{"seed.example.org.", dns.TypeNS, in, dns.RcodeSuccess, 2, false},
		{"seed.example.org.", dns.TypeSOA, in, dns.RcodeSuccess, 1, false},
		{"seed.example.org.", dns.TypeMX, in, dns.RcodeSuccess, 0, true},
		{"seed.example.org.", dns.TypeANY, in, dns.RcodeSuccess, 1, false},
		{"_dnsaddr.seed.example.org.", dns.TypeA, in, dns.RcodeSuccess, 0, true},
		{"x.seed.example.org.", dns.TypeA, in, dns.RcodeNameError, 0, true},
		{"example.org.", dns.TypeA, in, dns.RcodeRefused, 0, false},
		{"seed.example.org.evil.test.", dns.TypeA, in, dns.RcodeRefused, 0, false},
		{".", dns.TypeNS, in, dns.RcodeRefused, 0, false},
		{"seed.example.org.", dns.TypeAXFR, in, dns.RcodeRefused, 0, false},
		{"version.bind.", dns.TypeTXT, dns.ClassCHAOS, dns.RcodeRefused, 0, false},
	}
	for _, tt := range tests {
		label := tt.name + " " + dns.TypeToString[tt.kind]
		m := ask(t, addr, "tcp", tt.name, tt.kind, tt.class)
		soa := false
		for _, rr := range m.Ns {
			_, soa = rr.(*dns.SOA)
		}
		if m.Rcode != tt.rcode || len(m.Answer) != tt.answers || soa != tt.soa || m.Truncated || m.Authoritative != (tt.rcode != dns.RcodeRefused) {
			t.Errorf("%s: %s", label, m)
		}
		for _, rr := range m.Answer {
			if rr.Header().Name != tt.name || rr.Header().Ttl > 60 {
				t.Errorf("%s: record %s", label, rr)
			}
		}
		// Over UDP never more than 512 bytes, and what is missing is said to be.
		u := ask(t, addr, "udp", tt.name, tt.kind, tt.class)
		u.Compress = true
		if u.Len() > 512 || u.Truncated != (len(u.Answer) < len(m.Answer)) || u.Rcode != m.Rcode {
			t.Errorf("%s over UDP: %d bytes, %d of %d records, truncated %v", label, u.Len(), len(u.Answer), len(m.Answer), u.Truncated)
		}
	}
	// EDNS does not raise the limit.
	q := new(dns.Msg)
	q.SetQuestion("_dnsaddr.seed.example.org.", dns.TypeTXT)
	q.SetEdns0(4096, false)
	c := &dns.Client{UDPSize: 4096, Timeout: patience}
	m, _, err := c.Exchange(q, addr)
	if m.Compress = true; err != nil || m.Len() > 512 || !m.Truncated || m.IsEdns0() == nil || len(m.Answer) == 0 {
		t.Errorf("with EDNS: %v, %v", m, err)
	}
	if got := s.Stats(); got.Replies["answer"] == 0 || got.Replies["refused"] == 0 || got.Replies["nxdomain"] == 0 || got.Replies["nodata"] == 0 {
		t.Errorf("counts %+v", got)
	}
}

// Odd messages get an error or nothing, and the server lives on.
func TestOddQuestions(t *testing.T) {
	addr, _ := served(t, 3)
	send := func(b []byte) *dns.Msg {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			return nil
		}
		m := new(dns.Msg)
		if m.Unpack(buf[:n]) != nil {
			return nil
		}
		return m
	}
	pack := func(change func(m *dns.Msg)) []byte {
		q := new(dns.Msg)
		q.SetQuestion("seed.example.org.", dns.TypeA)
		change(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"a response":    pack(func(m *dns.Msg) { m.Response = true }),
		"no question":   pack(func(m *dns.Msg) { m.Question = nil }),
		"two questions": pack(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		"an update":     pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }),
		"garbage":       []byte("\x00\x01garbage"),
		"empty":         {},
	} {
		if m := send(b); m != nil && (m.Rcode == dns.RcodeSuccess || m.Len() > 512) {
			t.Errorf("%s was answered: %s", name, m)
		}
	}
	if m := ask(t, addr, "udp", "seed.example.org.", dns.TypeA, dns.ClassINET); len(m.Answer) != 3 {
		t.Errorf("after odd questions: %s", m)
	}
}

// A flood over UDP gets few answers, and its sender is told to come by TCP.
func TestAnswersAreLimited(t *testing.T) {
	addr, s := served(t, 30)
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := new(dns.Msg)
	q.SetQuestion("_dnsaddr.seed.example.org.", dns.TypeTXT)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	const flood = 1000
	full, slips, bytes := 0, 0, 0
	began := time.Now()
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 4096)
		for {
			// It ends when no answer has come for a second, after the few that must come.
			wait := time.Second
			if full < 10 || slips == 0 {
				wait = patience
			}
			_ = conn.SetReadDeadline(time.Now().Add(wait))
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if err := m.Unpack(buf[:n]); err != nil {
				t.Error(err)
				return
			}
			bytes += n
			if len(m.Answer) > 0 {
				full++
			} else if m.Truncated {
				slips++
			}
		}
	})
	for range flood {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	reader.Wait()
	most := 100 + 10*int(time.Since(began).Seconds()) // more come into reach with time
	if full < 10 || full > most || slips == 0 || slips > flood/2+1 || bytes > 2*flood*len(b) {
		t.Errorf("of %d questions of %d bytes %d were answered and %d sent to TCP, with %d bytes: %+v", flood, len(b), full, slips, bytes, s.Stats())
	}
	if m := ask(t, addr, "tcp", "_dnsaddr.seed.example.org.", dns.TypeTXT, dns.ClassINET); len(m.Answer) != 25 {
		t.Errorf("over TCP in the flood: %s", m)
	}
	if st := s.Stats(); st.Replies["dropped"] == 0 || st.Replies["limited"] == 0 {
		t.Errorf("counts %+v", st)
	}
}

// A port that is taken is an error of New, not of a log line later.
func TestPortTaken(t *testing.T) {
	addr, _ := served(t, 1)
	o := newNetwork(t, 1).options()
	o.Listen = []string{addr}
	if _, err := seeder.New(o); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("error %v", err)
	}
}
