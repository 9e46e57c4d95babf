package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"google.golang.org/protobuf/encoding/protowire"

	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
)

// The tests named TestE2EHostile… attack real daemons: with a libp2p host that
// knows the network but keeps to none of its rules, over HTTP, and through the
// files of a home. SECURITY.md says which threat each of them covers. Messages
// are made by hand from docs/protocol.md.

// hostileSeed makes a test's randomness, and prints how to repeat it.
func hostileSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("DUNLIN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("DUNLIN_SEED=%d", seed)
	return rand.New(&lockedSource{src: rand.NewPCG(seed, 0)})
}

// lockedSource is a source that several peers of a test may draw from.
type lockedSource struct {
	mu  sync.Mutex
	src rand.Source
}

func (l *lockedSource) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.src.Uint64()
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// attacker is a libp2p host without limits.
type attacker struct {
	t      *testing.T
	h      host.Host
	params *consensus.Params
}

// newAttacker makes a host with a new identity; it listens on loopback.
func newAttacker(t *testing.T, p *consensus.Params) *attacker {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPublic(),
		libp2p.UserAgent("evil\x1b[31m\n"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return &attacker{t: t, h: h, params: p}
}

func (a *attacker) addr() string {
	return fmt.Sprintf("%s/p2p/%s", a.h.Addrs()[0], a.h.ID())
}

func (a *attacker) id(name string) protocol.ID {
	return protocol.ID(exchange.Prefix(a.params.ChainID()) + "/" + name)
}

func peerInfo(d *daemon) (peer.AddrInfo, error) {
	info, err := peer.AddrInfoFromString(d.addr())
	if err != nil {
		return peer.AddrInfo{}, err
	}
	return *info, nil
}

// connect dials the daemon.
func (a *attacker) connect(d *daemon) peer.ID {
	a.t.Helper()
	info, err := peerInfo(d)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	if err := a.h.Connect(ctx, info); err != nil {
		a.t.Fatalf("dial %s: %v", d.name, err)
	}
	return info.ID
}

// open opens a stream without waiting for the protocol to be agreed on.
func (a *attacker) open(to peer.ID, id protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 30*time.Second)
	defer cancel()
	s, err := a.h.NewStream(network.WithNoDial(ctx, "attack"), to, id)
	if err == nil {
		_ = s.SetDeadline(time.Now().Add(patience))
	}
	return s, err
}

// greet dials the daemon and shakes hands, claiming tip. The hello stream stays open.
func (a *attacker) greet(d *daemon, tip wireTip) (network.Stream, *bufio.Reader) {
	a.t.Helper()
	id := a.connect(d)
	s, err := a.open(id, a.id("hello/1"))
	if err != nil {
		a.t.Fatalf("hello with %s: %v", d.name, err)
	}
	if _, err := s.Write(helloMsg(a.params, tip, "evil")); err != nil {
		a.t.Fatalf("hello with %s: %v", d.name, err)
	}
	in := bufio.NewReader(s)
	if _, err := readMsg(in); err != nil {
		a.t.Fatalf("hello with %s: %v", d.name, err)
	}
	return s, in
}

// wireTip is a Tip message.
type wireTip struct {
	height uint64
	hash   chainhash.Hash
	work   []byte
	lowest uint64
}

// field appends a length-delimited field.
func field(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

// number appends a varint field.
func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func fixed(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), v)
}

// delimited puts a message's length before it.
func delimited(m []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(m))), m...) }

func (t wireTip) bytes() []byte {
	b := number(nil, 1, t.height)
	b = field(b, 2, t.hash[:])
	b = field(b, 3, t.work)
	return number(b, 4, t.lowest)
}

func helloMsg(p *consensus.Params, t wireTip, agent string) []byte {
	h := number(nil, 1, 1)
	h = field(h, 2, []byte(agent))
	h = field(h, 3, p.GenesisHash[:])
	h = field(h, 4, t.bytes())
	h = number(h, 5, 3)
	return delimited(field(nil, 1, fixed(h, 6, rand.Uint64()|1)))
}

func tipMsg(t wireTip) []byte { return delimited(field(nil, 2, t.bytes())) }

func headersMsg(locator []chainhash.Hash, most uint64) []byte {
	b := number(nil, 1, 1<<20)
	for i := range locator {
		b = field(b, 2, locator[i][:])
	}
	return delimited(number(b, 3, most))
}

func blocksMsg(id, start, count uint64, last chainhash.Hash, maxBytes uint64) []byte {
	b := number(nil, 1, id)
	b = number(b, 2, start)
	b = number(b, 3, count)
	b = field(b, 4, last[:])
	return delimited(number(b, 5, maxBytes))
}

func blocksByHashMsg(id uint64, hashes []chainhash.Hash, maxBytes uint64) []byte {
	b := number(number(nil, 1, id), 5, maxBytes)
	for i := range hashes {
		b = field(b, 6, hashes[i][:])
	}
	return delimited(b)
}

func frameMsg(id, length uint64) []byte { return delimited(number(number(nil, 1, id), 2, length)) }

func endMsg(id, status uint64) []byte {
	return delimited(number(number(number(nil, 1, id), 3, 1), 4, status))
}

// readMsg reads a message of at most 1 MiB.
func readMsg(in *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	if n > 1<<20 {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(in, b)
	return b, err
}

// wireFields is a decoded message: the last number and every bytes field by number.
type wireFields struct {
	n map[protowire.Number]uint64
	b map[protowire.Number][][]byte
}

func parseMsg(b []byte) (wireFields, error) {
	f := wireFields{n: map[protowire.Number]uint64{}, b: map[protowire.Number][][]byte{}}
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return f, protowire.ParseError(k)
		}
		b = b[k:]
		switch typ {
		case protowire.VarintType:
			var v uint64
			v, k = protowire.ConsumeVarint(b)
			f.n[num] = v
		case protowire.BytesType:
			var v []byte
			v, k = protowire.ConsumeBytes(b)
			f.b[num] = append(f.b[num], v)
		case protowire.Fixed64Type:
			var v uint64
			v, k = protowire.ConsumeFixed64(b)
			f.n[num] = v
		default:
			k = protowire.ConsumeFieldValue(num, typ, b)
		}
		if k < 0 {
			return f, protowire.ParseError(k)
		}
		b = b[k:]
	}
	return f, nil
}

// metric reads one number from /metrics.
func (d *daemon) metric(name string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.info.RPCAddr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	for in := bufio.NewScanner(res.Body); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), name+" "); ok {
			return strconv.ParseFloat(rest, 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// rss is the daemon's resident memory in bytes.
func (d *daemon) rss() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// siege watches a daemon while it is attacked.
type siege struct {
	d          *daemon
	end        func() // stops the watch
	watcher    sync.WaitGroup
	idleRSS    int64
	memory     int64 // how much it may cost above idle
	goroutines float64
	logged     int

	mu      sync.Mutex // guards what follows
	waits   []time.Duration
	lags    []time.Duration // what a server that does nothing took at the same moments
	peakRSS int64
	errs    []error
}

const (
	// siegeMemory is how much an attack may cost above idle, siegeAnswer how long
	// the daemon may take to answer an operator meanwhile, as a rule and at most.
	// This machine may have other work: siegeLag times what a server in the test takes,
	// which does nothing, comes on top.
	siegeMemory     = 150 << 20
	siegeAnswer     = time.Second
	siegeAnswerMost = 5 * time.Second
	siegeLag        = 20
	// siegeGoroutines may stay: an honest peer that came meanwhile takes about 25, each of forty attackers
	// would leave as many.
	siegeGoroutines = 60
)

// besiege starts to watch d.
func besiege(t *testing.T, d *daemon) *siege {
	t.Helper()
	stop := make(chan struct{})
	s := &siege{d: d, memory: slowness * siegeMemory, logged: len(d.log.String())}
	s.end = sync.OnceFunc(func() { close(stop); s.watcher.Wait() })
	var err error
	if s.idleRSS, err = d.rss(); err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	if s.goroutines, err = d.metric("go_goroutines"); err != nil {
		t.Fatal(err)
	}
	idle := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(idle.Close) // after s.end
	t.Cleanup(s.end)
	s.watcher.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			began := time.Now()
			res, lagErr := http.Get(idle.URL) //nolint:noctx // it ends with the server
			if lagErr == nil {
				_ = res.Body.Close()
			}
			lag := time.Since(began)
			began = time.Now()
			_, err := d.status()
			took := time.Since(began)
			rss, rssErr := d.rss()
			s.mu.Lock()
			s.waits, s.lags = append(s.waits, took), append(s.lags, lag)
			s.peakRSS = max(s.peakRSS, rss)
			if err := errors.Join(err, rssErr, lagErr); err != nil && len(s.errs) < 8 {
				s.errs = append(s.errs, err)
			}
			s.mu.Unlock()
		}
	})
	return s
}

// lift ends the watch, after the attackers have left, and judges: the daemon
// answered, memory stayed bounded, streams and goroutines went with the attackers,
// and the log has at most lines lines without control characters.
func (s *siege) lift(t *testing.T, lines int) {
	t.Helper()
	s.end()
	for _, err := range s.errs {
		t.Errorf("%s did not answer: %v", s.d.name, err)
	}
	slices.Sort(s.waits)
	if len(s.waits) == 0 {
		t.Fatal("nothing was measured")
	}
	slices.Sort(s.lags)
	last, rule := len(s.waits)-1, len(s.waits)*95/100
	p95, most, lag, lagMost := s.waits[rule], s.waits[last], s.lags[rule], s.lags[last]
	log := s.d.log.String()[s.logged:]
	var after float64
	eventually(t, patience, "goroutines leave with the attacker", func() error {
		var err error
		if after, err = s.d.metric("go_goroutines"); err == nil && after > s.goroutines+siegeGoroutines {
			err = fmt.Errorf("%.0f goroutines, %.0f before", after, s.goroutines)
		}
		return err
	})
	t.Logf("%s: answers p95 %v, most %v (%d asked; a server that does nothing: %v, %v); memory idle %d MB, peak +%d MB; goroutines %.0f → %.0f; %d log lines",
		s.d.name, p95.Round(time.Millisecond), most.Round(time.Millisecond), len(s.waits), lag.Round(time.Millisecond), lagMost.Round(time.Millisecond), s.idleRSS>>20, (s.peakRSS-s.idleRSS)>>20,
		s.goroutines, after, strings.Count(log, "\n"))
	if p95 > slowness*siegeAnswer+siegeLag*lag || most > slowness*siegeAnswerMost+siegeLag*lagMost {
		t.Errorf("answers took %v (95%%) and %v (most) while attacked; of a server that does nothing %v and %v", p95, most, lag, lagMost)
	}
	if grew := s.peakRSS - s.idleRSS; grew > s.memory {
		t.Errorf("memory grew by %d MB while attacked, limit %d", grew>>20, s.memory>>20)
	}
	if n := strings.Count(log, "\n"); n > lines {
		t.Errorf("the attack wrote %d log lines, limit %d; the last of them:\n%s", n, lines, lastPart(log, 3000))
	}
	s.d.cleanLog(t)
}

// cleanLog fails if the log holds what a terminal would obey, or a crash.
func (d *daemon) cleanLog(t *testing.T) {
	t.Helper()
	log := d.log.String()
	if i := strings.IndexFunc(log, func(r rune) bool { return r != '\n' && r != '\t' && r < 0x20 || r == 0x7f || r == 0xfffd }); i >= 0 {
		t.Errorf("the log of %s has a control character: %q", d.name, log[max(0, i-100):min(len(log), i+100)])
	}
	for _, bad := range []string{"panic:", "fatal error:", "goroutine 1 ["} {
		if i := strings.Index(log, bad); i >= 0 {
			t.Errorf("%s crashed: %s", d.name, log[i:min(len(log), i+3000)])
		}
	}
}

// absurd is a claim that cannot be true.
func absurd(rng *rand.Rand) wireTip {
	t := wireTip{height: 1<<31 - 1, work: make([]byte, 32), lowest: 1<<31 - 1}
	copy(t.hash[:], randomBytes(rng, 32))
	for i := range t.work {
		t.work[i] = 0xff
	}
	return t
}
