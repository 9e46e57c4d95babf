//go:build slow && linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"

	"dunlin/internal/netlab"
)

// dig asks a server as an operator would. The result is all that it prints.
func dig(t *testing.T, server string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("dig is missing (Debian: apt-get install bind9-dnsutils)")
		}
		t.Skip("dig is missing (Debian: apt-get install bind9-dnsutils)")
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"@" + host, "-p", port, "+time=20", "+tries=3"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// reply is the part of dig's output that the tests look at.
type reply struct {
	status  string
	flags   []string
	answers int
	size    int // bytes
	text    string
}

func digReply(t *testing.T, server string, args ...string) reply {
	t.Helper()
	r := reply{text: dig(t, server, args...)}
	head := regexp.MustCompile(`status: (\w+),`).FindStringSubmatch(r.text)
	flags := regexp.MustCompile(`flags: ([a-z ]*); QUERY: 1, ANSWER: (\d+)`).FindStringSubmatch(r.text)
	size := regexp.MustCompile(`MSG SIZE  rcvd: (\d+)`).FindStringSubmatch(r.text)
	if head == nil || flags == nil || size == nil {
		t.Fatalf("dig %q: no answer\n%s", args, r.text)
	}
	r.status, r.flags = head[1], strings.Fields(flags[1])
	r.answers, _ = strconv.Atoi(flags[2])
	r.size, _ = strconv.Atoi(size[1])
	return r
}

// A seeder is asked with dig, in every way that it has an answer to; a fresh daemon that has nothing but its
// name joins.
func TestDig(t *testing.T) {
	t.Parallel()
	const nodes = 6 // more than 512 bytes can tell of
	var all []*daemon
	for i := range nodes {
		args := []string{"--network", "regtest"}
		if i > 0 {
			args = append(args, "--bootstrap", all[0].addr())
		}
		all = append(all, startDaemon(t, fmt.Sprintf("node%d", i), args...))
	}
	tip := all[0].mine(3)
	seed := startSeeder(t, nil, "127.0.0.1:0", "--network", "regtest", "--bootstrap", all[0].addr())
	txt := "_dnsaddr." + testZone
	eventually(t, patience, "the seed tells of all", func() error {
		if r := digReply(t, seed.addr, "+tcp", "TXT", txt); r.answers != nodes {
			return fmt.Errorf("%d answers", r.answers)
		}
		return nil
	})

	over := digReply(t, seed.addr, "+tcp", "TXT", txt)
	for _, d := range all {
		if !strings.Contains(over.text, `"dnsaddr=`+d.addr()+`"`) {
			t.Errorf("%s is not told as %s:\n%s", d.name, d.addr(), over.text)
		}
	}
	for _, tc := range []struct {
		about   string
		args    []string
		status  string
		answers int // -1: any number
		flags   []string
		has     string
	}{
		{"over UDP as much as goes into 512 bytes, and TC", []string{"+ignore", "TXT", txt}, "NOERROR", -1, []string{"qr", "aa", "tc"}, ""},
		{"whatever EDNS says", []string{"+ignore", "+bufsize=4096", "TXT", txt}, "NOERROR", -1, []string{"qr", "aa", "tc"}, ""},
		{"dig asks again over TCP", []string{"TXT", txt}, "NOERROR", nodes, []string{"qr", "aa"}, "(TCP)"},
		{"in capitals", []string{"+tcp", "TXT", strings.ToUpper(txt)}, "NOERROR", nodes, []string{"qr", "aa"}, ""},
		{"A", []string{"A", testZone}, "NOERROR", 1, []string{"qr", "aa"}, "127.0.0.1"},
		{"AAAA: there are none, and whom to ask is told", []string{"AAAA", testZone}, "NOERROR", 0, []string{"qr", "aa"}, "SOA\tns1.example.org."},
		{"NS", []string{"NS", testZone}, "NOERROR", 1, []string{"qr", "aa"}, "ns1.example.org."},
		{"SOA", []string{"SOA", testZone}, "NOERROR", 1, []string{"qr", "aa"}, "ns1.example.org. hostmaster." + testZone},
		{"ANY is answered with next to nothing", []string{"+notcp", "ANY", testZone}, "NOERROR", 1, []string{"qr", "aa"}, "RFC8482"},
		{"no such name", []string{"A", "nobody." + testZone}, "NXDOMAIN", 0, []string{"qr", "aa"}, "SOA"},
		{"another zone", []string{"A", "example.com"}, "REFUSED", 0, []string{"qr"}, ""},
		{"a zone above", []string{"TXT", "example.org"}, "REFUSED", 0, []string{"qr"}, ""},
		{"another class", []string{"-c", "CH", "TXT", "version.bind"}, "REFUSED", 0, []string{"qr"}, ""},
	} {
		r := digReply(t, seed.addr, append([]string{"+norecurse"}, tc.args...)...)
		if r.status != tc.status || tc.answers >= 0 && r.answers != tc.answers || !slices.Equal(r.flags, tc.flags) || !strings.Contains(r.text, tc.has) {
			t.Errorf("%s: want %s, %d answers, flags %v, %q in\n%s", tc.about, tc.status, tc.answers, tc.flags, tc.has, r.text)
		}
		if !strings.Contains(r.text, "(TCP)") && r.size > 512 {
			t.Errorf("%s: %d bytes over UDP", tc.about, r.size)
		}
	}
	if out := dig(t, seed.addr, "AXFR", testZone); !strings.Contains(out, "Transfer failed") {
		t.Errorf("the whole zone is handed out:\n%s", out)
	}

	start := time.Now()
	fresh := startDaemon(t, "fresh", "--network", "regtest", "--dns-seed", testZone, "--dns-server", seed.addr)
	fresh.reaches(tip.Hash, patience)
	t.Logf("a node with nothing but the seed's name had the tip %v after its start", time.Since(start).Round(time.Millisecond))
}

// nameServer runs a DNS server on a host of a lab until the test ends. A name that answer gives nil for is never answered;
// the first line of an answer may be NXDOMAIN, every other one is a TXT record.
func nameServer(t *testing.T, h *netlab.Host, answer func(name string) []string) (addr string) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
		lines := answer(name)
		if lines == nil {
			return
		}
		m := new(dns.Msg)
		m.SetReply(q)
		if lines[0] == "NXDOMAIN" {
			m.Rcode = dns.RcodeNameError
		} else if q.Question[0].Qtype == dns.TypeTXT {
			for _, l := range lines {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{l}})
			}
		}
		if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
			m.Truncate(512)
		}
		_ = w.WriteMsg(m)
	})
	var udp net.PacketConn
	var tcp net.Listener
	if err := h.Do(func() (err error) {
		addr = net.JoinHostPort(h.Addr().String(), "53")
		if udp, err = net.ListenPacket("udp", addr); err != nil {
			return err
		}
		tcp, err = net.Listen("tcp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		ready, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { done <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			if err := errors.Join(s.Shutdown(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
	return addr
}

// Seeds that are down, never answer or lie do not keep a node from joining, nor for long.
func TestNetnsBadSeeds(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	old := onHost(t, lab.Host("20.1.0.1"), "old", "--network", "regtest", public)
	old.start()
	tip := old.mine(5)
	other := onHost(t, lab.Host("20.2.0.1"), "other", "--network", "simnet", public)
	other.start()
	lab.Host("20.3.0.1") // nothing listens there

	// 500 addresses: of hosts that are not there, that refuse, that are somebody else, and of a node of another network.
	var lies []string
	for i := range 500 {
		key, _, err := crypto.GenerateEd25519Key(nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("/ip4/%d.%d.0.%d/tcp/9333/p2p/%s", 21+i%50, i/50, 1+i%200, id) // nobody
		switch i % 10 {
		case 0:
			at = fmt.Sprintf("/ip4/20.3.0.1/tcp/%d/p2p/%s", 1+i, id)
		case 1:
			at = fmt.Sprintf("/ip4/20.1.0.1/tcp/9333/p2p/%s", id)
		case 2:
			at = other.addr()
		}
		lies = append(lies, "dnsaddr="+at)
	}
	server := nameServer(t, lab.Host("20.9.0.53"), func(name string) []string {
		switch name {
		case "_dnsaddr.good.example.org":
			return []string{"dnsaddr=" + old.addr()}
		case "_dnsaddr.slow.example.org": // when the lies are being dialled
			<-time.After(time.Second)
			return []string{"dnsaddr=" + old.addr()}
		case "_dnsaddr.liar.example.org":
			return lies
		case "_dnsaddr.hole.example.org":
			return nil
		}
		return []string{"NXDOMAIN"}
	})
	for i, tc := range []struct {
		name  string
		seeds []string
	}{
		{"one good seed", []string{"good"}},
		{"one does not exist, one never answers", []string{"gone", "hole", "good"}},
		{"one tells 500 lies", []string{"liar", "good"}},
		{"one tells 500 lies, and the good one is late", []string{"liar", "slow"}},
		{"the same, and one never answers", []string{"hole", "liar", "good"}},
	} {
		args := []string{"--network", "regtest", public, "--dns-server", server}
		for _, s := range tc.seeds {
			args = append(args, "--dns-seed", s+".example.org")
		}
		d := onHost(t, lab.Host(fmt.Sprintf("20.%d.0.1", 100+i)), "fresh"+strconv.Itoa(i), args...)
		start := time.Now()
		d.start()
		d.reaches(tip.Hash, time.Minute) // alone it takes 0.1 to 1.2 s
		t.Logf("%s: joined and synced %v after the start", tc.name, time.Since(start).Round(time.Millisecond))
		d.stop()
	}
}
