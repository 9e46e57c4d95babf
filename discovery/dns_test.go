package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// zone answers from a table: "TXT _dnsaddr.seed.test." → records.
type zone struct {
	mu      sync.Mutex
	records map[string][]string // guarded by mu
	udp     atomic.Int64        // questions over UDP
	tcp     atomic.Int64
	address string
}

// serveDNS answers on a loopback port, over UDP and TCP, until the test ends.
func serveDNS(t *testing.T, records map[string][]string) *zone {
	t.Helper()
	z := &zone{records: records}
	var l net.Listener
	var p net.PacketConn
	for tries := 0; p == nil; tries++ { // until both have the same port
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		z.address = l.Addr().String()
		if p, err = net.ListenPacket("udp", z.address); err != nil {
			if _ = l.Close(); tries > 100 {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: z}, {PacketConn: p, Handler: z}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return z
}

func (z *zone) set(name string, values []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[name] = values
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg)
	a.SetReply(q)
	name, qtype := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	exists := false
	z.mu.Lock()
	defer z.mu.Unlock()
	for k, values := range z.records {
		kind, n, _ := strings.Cut(k, " ")
		if n != name {
			continue
		}
		exists = true
		if kind != dns.TypeToString[qtype] {
			continue
		}
		for _, v := range values {
			if kind == "TXT" {
				v = fmt.Sprintf("%q", v)
			}
			rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN %s %s", n, kind, v))
			if err != nil {
				panic(err)
			}
			a.Answer = append(a.Answer, rr)
		}
	}
	if !exists {
		a.Rcode = dns.RcodeNameError
	}
	if w.RemoteAddr().Network() == "udp" {
		z.udp.Add(1)
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		a.Truncate(size)
	} else {
		z.tcp.Add(1)
	}
	_ = w.WriteMsg(a)
}

func txt(addrs ...string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = "dnsaddr=" + a
	}
	return out
}

func TestResolve(t *testing.T) {
	ids := testPeers(t, 300)
	var many, chain []string
	for _, id := range ids {
		many = append(many, fmt.Sprintf("/ip4/127.0.0.1/tcp/1/p2p/%s", id))
	}
	a, b := ids[0].String(), ids[1].String()
	records := map[string][]string{
		"TXT _dnsaddr.one.test.":    append(txt("/ip4/10.0.0.1/tcp/1/p2p/"+a, "/ip6/2001:db8::1/udp/1/quic-v1/p2p/"+b), "v=spf1 -all", "dnsaddr=garbage"),
		"TXT _dnsaddr.many.test.":   txt(many...),
		"A only.test.":              {"10.0.0.9"},
		"AAAA only6.test.":          {"2001:db8::9"},
		"TXT _dnsaddr.noid.test.":   txt("/ip4/10.0.0.1/tcp/1"),
		"TXT _dnsaddr.other.test.":  {"hello"},
		"TXT _dnsaddr.nested.test.": txt("/dnsaddr/one.test", "/dns4/host.test/tcp/7/p2p/"+a),
		"A host.test.":              {"10.1.1.1", "10.1.1.2"},
		"AAAA host.test.":           {"2001:db8::2"},
		"TXT _dnsaddr.loop.test.":   txt("/dnsaddr/loop.test", "/dnsaddr/loop2.test"),
		"TXT _dnsaddr.loop2.test.":  txt("/dnsaddr/loop.test", "/ip4/10.0.0.1/tcp/1/p2p/"+a),
	}
	for i := range 6 {
		records[fmt.Sprintf("TXT _dnsaddr.deep%d.test.", i)] = txt(fmt.Sprintf("/dnsaddr/deep%d.test", i+1))
	}
	records["TXT _dnsaddr.deep6.test."] = txt("/ip4/10.0.0.1/tcp/1/p2p/" + a)
	for i := range 200 { // a seed whose every record is another question
		chain = append(chain, fmt.Sprintf("/dnsaddr/w%d.test", i))
	}
	records["TXT _dnsaddr.wide.test."] = txt(chain...)
	z := serveDNS(t, records)

	tests := []struct {
		seed         string
		peers, addrs int
		err          string
	}{
		{"one.test", 2, 2, ""},
		{"/dnsaddr/one.test", 2, 2, ""},
		{"/dnsaddr/one.test/p2p/" + a, 1, 1, ""}, // of the records, those of this peer
		{"/dnsaddr/one.test/p2p/" + ids[2].String(), 0, 0, "no dnsaddr= records"},
		{"many.test", discovery.MaxDNSResults, discovery.MaxDNSResults, ""},
		{"only.test", 0, 0, "this seed gives no peer ids"},
		{"only6.test", 0, 0, "this seed gives no peer ids"},
		{"noid.test", 0, 0, "this seed gives no peer ids"},
		{"nothing.test", 0, 0, "NXDOMAIN"},
		{"other.test", 0, 0, "no dnsaddr= records"},
		{"nested.test", 2, 4, ""},
		{"loop.test", 1, 1, ""},
		{"deep3.test", 1, 1, ""},
		{"deep0.test", 0, 0, "too many records that name other records"},
		{"wide.test", 0, 0, "too many records that name other records"},
		{"/dns4/host.test/tcp/7/p2p/" + a, 1, 2, ""},
		{"/dns6/host.test/tcp/7/p2p/" + a, 1, 1, ""},
		{"/dns/host.test/tcp/7/p2p/" + a, 1, 3, ""},
		{"/dns4/nothing.test/tcp/7/p2p/" + a, 0, 0, "nothing.test: NXDOMAIN"},
	}
	for _, tt := range tests {
		t.Run(tt.seed, func(t *testing.T) {
			before := z.udp.Load() + z.tcp.Load()
			peers, addrs, err := discovery.Resolve(t.Context(), []string{z.address}, tt.seed)
			if len(peers) != tt.peers || addrs != tt.addrs {
				t.Errorf("got %d peers and %d addresses, want %d and %d (%v)", len(peers), addrs, tt.peers, tt.addrs, peers)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if n := z.udp.Load() + z.tcp.Load() - before; n > 2*34 {
				t.Errorf("asked %d questions", n)
			}
		})
	}
	if z.tcp.Load() == 0 {
		t.Error("the answer with 300 records was not asked for over TCP")
	}
}

// A dead server beside one that answers must not cost anything, nor hide the
// answer; without any answer the error names the server.
func TestResolveDeadServer(t *testing.T) {
	id := testPeers(t, 1)[0].String()
	z := serveDNS(t, map[string][]string{"TXT _dnsaddr.one.test.": txt("/ip4/10.0.0.1/tcp/1/p2p/" + id)})
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// One that waits takes its 3 s each time; the machine may have other work at one time.
	took := time.Hour
	for tries := 0; tries < 10 && took > 2500*time.Millisecond; tries++ {
		start := time.Now()
		peers, _, err := discovery.Resolve(t.Context(), []string{silent.LocalAddr().String(), z.address}, "one.test")
		if err != nil || len(peers) != 1 {
			t.Fatalf("peers %v, error %v", peers, err)
		}
		took = min(took, time.Since(start))
	}
	if took > 2500*time.Millisecond {
		t.Errorf("took %s: it waited for the silent server", took)
	}
	closed := silent.LocalAddr().String()
	_ = silent.Close()
	if _, _, err := discovery.Resolve(t.Context(), []string{closed}, "one.test"); err == nil || !strings.Contains(err.Error(), closed) {
		t.Fatalf("error %v, want it to name server %s", err, closed)
	}
	if _, _, err := discovery.Resolve(t.Context(), []string{closed, z.address}, "none.test"); err == nil || err.Error() != "NXDOMAIN" {
		t.Fatalf("error %v, want the answer that there is no such name", err)
	}
}

// Real hosts on loopback: one knows nothing but a seed's name, one nothing but a
// bootstrap with a DNS name.
func TestJoinByDNS(t *testing.T) {
	z := serveDNS(t, map[string][]string{"A boot.test.": {"127.0.0.1"}, "A web.test.": {"127.0.0.1"}})
	first := realHost(t)
	tcp := tcpAddr(t, first)
	port, err := tcp.ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	byName := ma.StringCast(fmt.Sprintf("/dns4/boot.test/tcp/%s/p2p/%s", port, first.ID()))
	z.set("TXT _dnsaddr.seed.test.", txt(tcp.String()+"/p2p/"+first.ID().String()))

	log := &logLines{}
	run(t, discovery.Options{Host: first, Namespace: simNamespace, Private: true})
	second := realHost(t)
	d2 := run(t, discovery.Options{
		Host: second, Namespace: simNamespace, Private: true, Logger: log.logger(),
		DNSSeeds: []string{"seed.test", "gone.test", "web.test"}, DNSServers: []string{z.address},
	})
	third := realHost(t)
	run(t, discovery.Options{Host: third, Namespace: simNamespace, Private: true, Bootstrap: []ma.Multiaddr{byName}, DNSServers: []string{z.address}})
	eventually(t, patience, "all three are connected", func() bool {
		return second.Network().Connectedness(first.ID()) == network.Connected &&
			third.Network().Connectedness(first.ID()) == network.Connected &&
			third.Network().Connectedness(second.ID()) == network.Connected
	})
	var got []string
	eventually(t, patience, "every seed was answered", func() bool {
		got = got[:0]
		for _, n := range d2.Stats().Names {
			got = append(got, fmt.Sprintf("%s %d %s", n.Name, n.Peers, n.Err))
		}
		return !strings.Contains(strings.Join(got, "\n"), " 0 \n") && len(got) == 3 && strings.HasPrefix(got[0], "seed.test 1")
	})
	for i, want := range []string{"seed.test 1 ", "gone.test 0 NXDOMAIN", "web.test 0 this seed gives no peer ids"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("seed %d: %q, want %q", i, got[i], want)
		}
	}
	eventually(t, patience, "the seed without peer ids is mentioned", func() bool {
		return strings.Contains(log.String(), `msg="this seed gives no peer ids, and no node answers at its addresses" seed=web.test`)
	})
}

// A name that has addresses only, as a headless service of Kubernetes or a service of Compose: three nodes on one port know
// nothing else. Each is in the answer itself, and so is an address where nobody is.
func TestJoinByAddresses(t *testing.T) {
	z := serveDNS(t, map[string][]string{"A nodes.test.": {"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"}, "A nobody.test.": {"127.0.0.4"}})
	hosts, port := onePort(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	for _, h := range hosts {
		run(t, discovery.Options{
			Host: h, Namespace: simNamespace, Private: true, SeedPort: port,
			DNSSeeds: []string{"nodes.test"}, DNSServers: []string{z.address},
		})
	}
	eventually(t, patience, "all three are connected with one another", func() bool {
		for _, h := range hosts {
			for _, other := range hosts {
				if h != other && h.Network().Connectedness(other.ID()) != network.Connected {
					return false
				}
			}
		}
		return true
	})

	ask := discovery.Resolver{Servers: []string{z.address}, Host: realHost(t), Port: port, Private: true}
	got, err := ask.Resolve(t.Context(), "nodes.test")
	if err != nil || len(got) != len(hosts) {
		t.Errorf("%v, error %v", got, err)
	}
	if n := len(ask.Host.Peerstore().PeersWithAddrs()); n > 1 { // but itself
		t.Errorf("%d peers are left in the peerstore", n)
	}
	if _, err := ask.Resolve(t.Context(), "nobody.test"); !errors.Is(err, discovery.ErrNoPeerIDs) || !strings.Contains(err.Error(), fmt.Sprintf("127.0.0.4:%d connection refused", port)) {
		t.Errorf("error %v", err)
	}
	ask.Private = false // nobody is asked at a private address
	if _, err := ask.Resolve(t.Context(), "nodes.test"); !errors.Is(err, discovery.ErrNoPeerIDs) || strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
	ask.Private, ask.Host = true, hosts[1]
	if got, err := ask.Resolve(t.Context(), "nodes.test"); err != nil || slices.ContainsFunc(got, func(p peer.AddrInfo) bool { return p.ID == hosts[1].ID() }) {
		t.Errorf("%v, error %v: it has found itself", got, err)
	}
}

// onePort makes hosts that listen on one port of different addresses.
func onePort(t *testing.T, ips ...string) (hosts []host.Host, port uint16) {
	t.Helper()
	for tries := 0; ; tries++ { // the port may be taken at one of them
		l, err := net.Listen("tcp", ips[0]+":0")
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		_ = l.Close()
		for _, ip := range ips {
			var h host.Host
			if h, err = libp2p.New(libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/tcp/%d", ip, port))); err != nil {
				break
			}
			hosts = append(hosts, h)
		}
		if err == nil {
			break
		}
		for _, h := range hosts {
			_ = h.Close()
		}
		if hosts = nil; tries > 20 {
			t.Fatal(err)
		}
	}
	for _, h := range hosts {
		t.Cleanup(func() { _ = h.Close() })
	}
	return hosts, port
}

// An answer with many addresses: no more than 16 are asked.
func TestManyAddresses(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("10.0.0.%d", i))
	}
	z := serveDNS(t, map[string][]string{"A many.test.": many, "AAAA many.test.": {"2001:db8::1"}})
	if n, err := discovery.BareAddresses(t.Context(), []string{z.address}, "many.test", 9333); n != 16 || !errors.Is(err, discovery.ErrNoPeerIDs) {
		t.Errorf("%d addresses, error %v", n, err)
	}
	if n, err := discovery.BareAddresses(t.Context(), []string{z.address}, "many.test", 0); n != 0 || !errors.Is(err, discovery.ErrNoPeerIDs) {
		t.Errorf("without a port: %d addresses, error %v", n, err)
	}
}

// A persistent peer behind a name gets another address while a node has other
// peers: the failed dial makes it ask again, long before the answer's half hour is over.
func TestNameMoves(t *testing.T) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.2/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	port, err := tcpAddr(t, h).ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	z := serveDNS(t, map[string][]string{"A move.test.": {"127.0.0.3"}}) // nobody is there
	other := realHost(t)
	node := realHost(t)
	if err := node.Connect(t.Context(), peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}); err != nil {
		t.Fatal(err)
	}
	d := run(t, discovery.Options{
		Host: node, Namespace: simNamespace, Private: true, DNSServers: []string{z.address},
		Persistent: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/dns4/move.test/tcp/%s/p2p/%s", port, h.ID()))},
	})
	eventually(t, patience, "the old address is refused", func() bool { return d.Stats().Failures["refused"] > 0 })
	z.set("A move.test.", []string{"127.0.0.2"})
	eventually(t, patience, "connected at the new address", func() bool {
		return node.Network().Connectedness(h.ID()) == network.Connected
	})
}

// Six real hosts in a line of bootstraps, all started at once; when their runs
// have ended, nothing of the package runs any more.
func TestLineOnLoopback(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var hosts []host.Host
	var runs sync.WaitGroup
	for i := range 6 {
		h := realHost(t)
		o := discovery.Options{Host: h, Namespace: simNamespace, Private: true, Dir: t.TempDir()}
		if i > 0 {
			o.Bootstrap = []ma.Multiaddr{tcpAddr(t, hosts[i-1]).Encapsulate(ma.StringCast("/p2p/" + hosts[i-1].ID().String()))}
		}
		d := newDiscovery(t, o)
		hosts = append(hosts, h)
		runs.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
			if err := d.Run(ctx); err == nil {
				t.Error("a second Run")
			}
		})
	}
	start := time.Now()
	eventually(t, patience, "every host has 3 peers", func() bool {
		for _, h := range hosts {
			if len(h.Network().Peers()) < 3 {
				return false
			}
		}
		return true
	})
	t.Logf("every host has 3 peers after %s", time.Since(start))
	cancel()
	runs.Wait()
	// A handler that told that it has ended may still be on its way out.
	stacks := make([]byte, 16<<20)
	eventually(t, patience, "nothing of the package runs", func() bool {
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "dunlin/discovery.")
	})
}

func FuzzSeedRecord(f *testing.F) {
	f.Add("dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
	f.Add("dnsaddr=/dnsaddr/x.test/p2p-circuit")
	f.Fuzz(func(t *testing.T, record string) {
		peers, addrs, err := discovery.ResolveRecord(t.Context(), record)
		if err == nil && (addrs == 0 || len(peers) == 0) {
			t.Fatalf("no peers and no error from %q", record)
		}
		if addrs > discovery.MaxDNSResults {
			t.Fatalf("%d addresses from %q", addrs, record)
		}
	})
}

func TestErrNoPeerIDs(t *testing.T) {
	_, _, err := discovery.ResolveRecord(t.Context(), "dnsaddr=/ip4/10.0.0.1/tcp/1")
	if !errors.Is(err, discovery.ErrNoPeerIDs) {
		t.Fatalf("error %v", err)
	}
}
