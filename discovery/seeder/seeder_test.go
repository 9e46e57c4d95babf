package seeder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery/seeder"
)

const namespace = "/dunlin/simtest-01234567"

// network is a made-up one: who is there, whom they know, and who answers.
type network struct {
	mu    sync.Mutex
	ids   []peer.ID
	at    map[peer.ID]peer.AddrInfo
	knows map[peer.ID][]peer.AddrInfo
	down  map[peer.ID]bool
	alien map[peer.ID]bool
	probe map[peer.ID]int
	most  int // probes at once
	now   int
}

// ip gives every node an IP group of its own.
func ip(i int) string { return fmt.Sprintf("%d.%d.0.1", 20+i/250, i%250) }

func newNetwork(tb testing.TB, n int) *network {
	tb.Helper()
	w := &network{
		at: map[peer.ID]peer.AddrInfo{}, knows: map[peer.ID][]peer.AddrInfo{}, down: map[peer.ID]bool{},
		alien: map[peer.ID]bool{}, probe: map[peer.ID]int{},
	}
	for i := range n {
		id, err := test.RandPeerID()
		if err != nil {
			tb.Fatal(err)
		}
		w.ids = append(w.ids, id)
		w.at[id] = peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/" + ip(i) + "/tcp/9333")}}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, id := range w.ids {
		for range 10 {
			w.knows[id] = append(w.knows[id], w.at[w.ids[r.IntN(n)]])
		}
	}
	return w
}

func (w *network) visit(ctx context.Context, info peer.AddrInfo) (seeder.Report, error) {
	w.mu.Lock()
	w.probe[info.ID]++
	w.now++
	w.most = max(w.most, w.now)
	down, alien := w.down[info.ID], w.alien[info.ID]
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.now--
		w.mu.Unlock()
	}()
	pause := time.Duration(50+rand.IntN(100)) * time.Millisecond
	if down {
		pause = 10 * time.Second
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return seeder.Report{}, ctx.Err()
	case <-t.C:
	}
	switch {
	case down:
		return seeder.Report{}, errors.New("timed out")
	case alien:
		return seeder.Report{}, fmt.Errorf("hello: %w", seeder.ErrForeign)
	}
	return seeder.Report{Height: 100, Agent: "dunlin/test\n", Serves: true, Addr: info.Addrs[0], Peers: w.knows[info.ID]}, nil
}

func (w *network) options() seeder.Options {
	return seeder.Options{
		Namespace: namespace, Zone: "Seed.Example.org", Nameservers: []string{"ns1.example.org"},
		Bootstrap: []peer.AddrInfo{w.at[w.ids[0]]}, Probe: w.visit,
	}
}

// run runs a seeder in a bubble until the returned function is called.
func run(t *testing.T, o seeder.Options) (*seeder.Seeder, func()) {
	t.Helper()
	s, err := seeder.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func virtual(d time.Duration) { <-time.After(d) }

// From one node all of a network are found, those that are down or of another network
// are not told, and probes at once are bounded.
func TestCrawl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 400)
		for i := 10; i < 50; i++ {
			w.down[w.ids[i]] = true
		}
		w.alien[w.ids[7]], w.alien[w.ids[8]] = true, true
		o := w.options()
		o.Workers = 16
		s, stop := run(t, o)
		virtual(time.Minute)
		st := s.Stats()
		if st.Good < 300 || st.Height != 100 {
			t.Errorf("after a minute: %+v", st)
		}
		w.mu.Lock()
		most, alien := w.most, w.probe[w.ids[7]]
		w.mu.Unlock()
		if most > 16 {
			t.Errorf("%d probes at once, the limit is 16", most)
		}
		zone := zoneOf(t, s)
		for i := 7; i < 50; i++ {
			if i != 9 && slices.ContainsFunc(zone, func(rr dns.RR) bool { return strings.Contains(rr.String(), w.ids[i].String()) }) {
				t.Errorf("node %d is told", i)
			}
		}
		if alien != 1 {
			t.Errorf("a node of another network was probed %d times", alien)
		}
		// It goes down, and after some failures nobody is sent there; it comes back, and is told again.
		victim := w.ids[0]
		virtual(3 * time.Hour)
		w.mu.Lock()
		for _, id := range w.ids[1:] {
			w.down[id] = true
		}
		w.mu.Unlock()
		virtual(2 * time.Hour)
		if st := s.Stats(); st.Good != 1 {
			t.Errorf("%d good nodes when one is left", st.Good)
		}
		told := 0
		for _, rr := range zoneOf(t, s) {
			if _, ok := rr.(*dns.TXT); ok {
				told++
				if !strings.Contains(rr.String(), victim.String()) {
					t.Errorf("told: %s", rr)
				}
			}
		}
		if told != 1 {
			t.Errorf("%d nodes told", told)
		}
		probes := func(i int) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.probe[w.ids[i]]
		}
		before := probes(20)
		virtual(30 * 24 * time.Hour)
		if n := probes(20) - before; n > 0 {
			t.Errorf("a node that never answered was probed %d more times in a month", n)
		}
		// The one that is left goes on naming ten others.
		if st := s.Stats(); st.Known > 1+10 {
			t.Errorf("%d nodes are still known after a month of silence", st.Known)
		}
		stop()
	})
}

// zoneOf parses what WriteZone writes.
func zoneOf(t *testing.T, s *seeder.Seeder) (out []dns.RR) {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteZone(&b); err != nil {
		t.Fatal(err)
	}
	p := dns.NewZoneParser(&b, "", "")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		out = append(out, rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestZoneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 5)
		s, stop := run(t, w.options())
		virtual(10 * time.Second)
		kinds := map[uint16]int{}
		for _, rr := range zoneOf(t, s) {
			kinds[rr.Header().Rrtype]++
			if !dns.IsSubDomain("seed.example.org.", rr.Header().Name) || rr.Header().Ttl > 60 {
				t.Errorf("record %s", rr)
			}
		}
		if want := (map[uint16]int{dns.TypeSOA: 1, dns.TypeNS: 1, dns.TypeA: 5, dns.TypeTXT: 5}); fmt.Sprint(kinds) != fmt.Sprint(want) {
			t.Errorf("records %v, want %v", kinds, want)
		}
		stop()
	})
}

// Many nodes of one IP group are told as two, and reports cannot fill the list.
func TestOneGroupIsNotTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 300)
		for i, id := range w.ids[10:] { // sybils
			w.at[id] = peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/66.66.%d.%d/tcp/1", i/200, i%200+1))}}
		}
		for _, id := range w.ids {
			w.knows[id] = nil
			for _, other := range w.ids {
				w.knows[id] = append(w.knows[id], w.at[other])
			}
		}
		s, stop := run(t, w.options())
		virtual(time.Minute)
		sybils, honest := 0, 0
		for _, rr := range zoneOf(t, s) {
			switch a, ok := rr.(*dns.A); {
			case !ok:
			case strings.HasPrefix(a.A.String(), "66.66."):
				sybils++
			default:
				honest++
			}
		}
		if sybils != 2 || honest != 10 {
			t.Errorf("%d addresses of one group and %d others told, want 2 and 10", sybils, honest)
		}
		stop()
	})
}

func TestNodesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork(t, 40)
		n := 0
		o := w.options()
		o.MaxNodes = 100
		o.Candidates = func() (out []peer.AddrInfo) { // a flood of nodes that are not there
			for range 500 {
				id, _ := test.RandPeerID()
				n++
				out = append(out, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/" + ip(1000+n%50_000) + "/tcp/1")}})
				w.mu.Lock()
				w.down[id] = true
				w.mu.Unlock()
			}
			return out
		}
		s, stop := run(t, o)
		for range 60 {
			virtual(10 * time.Minute)
			if st := s.Stats(); st.Known > 100 {
				t.Fatalf("%d nodes, the limit is 100", st.Known)
			}
		}
		if st := s.Stats(); st.Good < 39 {
			t.Errorf("a flood of dead candidates left %d of 40 nodes", st.Good)
		}
		stop()
	})
}

func TestStateSurvives(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "seeder.jsonl")
	w := newNetwork(t, 40)
	o := w.options()
	o.Dir = dir
	synctest.Test(t, func(t *testing.T) {
		_, stop := run(t, o)
		virtual(24 * time.Hour)
		stop()
	})
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := func(data []byte, check func(st seeder.Stats, log string)) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		o := o
		o.Bootstrap = nil
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, err := seeder.New(o)
		if err != nil {
			t.Fatal(err)
		}
		check(s.Stats(), log.String())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	start(good, func(st seeder.Stats, log string) {
		if st.Known != 40 || log != "" {
			t.Errorf("%d nodes after a restart, log %q", st.Known, log)
		}
	})
	for name, bad := range map[string][]byte{
		"a bit flipped": func() []byte {
			b := bytes.Clone(good)
			b[bytes.IndexByte(b[len(b)/2:], '{')+len(b)/2] ^= 1 // and no end of a line
			return b
		}(),
		"cut": good[:len(good)-7],
	} {
		start(bad, func(st seeder.Stats, log string) {
			if st.Known != 39 || !strings.Contains(log, "damaged") {
				t.Errorf("%s: %d nodes, log %q", name, st.Known, log)
			}
		})
	}
	o.Namespace = "/dunlin/other-00000000"
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seeder.New(o); err == nil || !strings.Contains(err.Error(), "another network") {
		t.Errorf("the state of another network: %v", err)
	}
}

func TestOptionsReportEveryFault(t *testing.T) {
	_, err := seeder.New(seeder.Options{
		Namespace: "x", Zone: "org", Nameservers: []string{"a b"}, Mailbox: "nobody", Listen: []string{"53"},
		Bootstrap: []peer.AddrInfo{{}}, Interval: time.Millisecond, Workers: -1, MaxNodes: 1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"Namespace", "Zone", "Nameservers", "Mailbox", "Listen", "Bootstrap", "Probe", "Interval", "Workers", "MaxNodes"} {
		if !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s is not told: %v", want, err)
		}
	}
}

func FuzzState(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "seeder.jsonl")
	w := newNetwork(f, 1)
	o := w.options()
	o.Dir, o.Bootstrap = dir, nil
	f.Add([]byte(`{"dunlin_seeder":1,"namespace":"` + namespace + `"}`))
	f.Add([]byte(`{"id":"` + w.ids[0].String() + `","addrs":["/ip4/20.0.0.1/tcp/1"],"tries":3,"fails":-9,"first":1,"average":[{"r":1e308,"w":-1,"n":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := seeder.WriteLines(path, bytes.Split(data, []byte{'\n'})); err != nil {
			t.Fatal(err)
		}
		s, err := seeder.New(o)
		if err != nil {
			return
		}
		s.Stats()
		if err := s.Save(); err != nil {
			t.Fatal(err)
		}
	})
}
