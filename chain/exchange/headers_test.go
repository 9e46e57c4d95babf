package exchange

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/big"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
)

// A headerMine makes headers of regtest, one above the other: two hashes each.
type headerMine struct {
	bits uint32
	last chainhash.Hash
	at   uint32
	made uint64
	salt uint64 // so that two mines dig different headers
}

func newHeaderMine(salt uint64) *headerMine {
	p := consensus.Regtest()
	return &headerMine{bits: p.PowLimitBits, last: p.GenesisHash, at: uint32(p.Genesis.Header.Timestamp.Unix()), salt: salt}
}

func (m *headerMine) next() []byte {
	m.made++
	m.at++
	raw := make([]byte, consensus.HeaderBytes)
	raw[0] = 4
	copy(raw[4:], m.last[:])
	binary.LittleEndian.PutUint64(raw[36:], m.made)
	binary.LittleEndian.PutUint64(raw[44:], m.salt)
	binary.LittleEndian.PutUint32(raw[68:], m.at)
	binary.LittleEndian.PutUint32(raw[72:], m.bits)
	for nonce := uint32(0); ; nonce++ {
		binary.LittleEndian.PutUint32(raw[76:], nonce)
		if m.last = chainhash.DoubleHashH(raw); m.last[chainhash.HashSize-1] < 0x7f {
			return raw
		}
	}
}

// A headerSource is a chain that has validated nothing but headers.
type headerSource struct {
	*fakeChain
	raws   [][]byte // from genesis
	hashes map[chainhash.Hash]int32
	list   []chainhash.Hash
	end    chain.Tip
	served atomic.Int64 // headers
}

// mined returns a source of n headers above genesis.
func mined(n int, salt uint64) *headerSource {
	f := newFakeChain()
	c := &headerSource{fakeChain: f, hashes: make(map[chainhash.Hash]int32)}
	m := newHeaderMine(salt)
	c.add(consensus.AppendHeader(nil, &consensus.Header{BlockHeader: f.params.Genesis.Header}))
	for range n {
		c.add(m.next())
	}
	return c
}

func (c *headerSource) add(raw []byte) {
	hash := chainhash.DoubleHashH(raw)
	c.hashes[hash] = int32(len(c.raws))
	c.raws, c.list = append(c.raws, raw), append(c.list, hash)
	height := int32(len(c.raws) - 1)
	c.end = chain.Tip{Hash: hash, Height: height, Work: big.NewInt(2 * int64(height+1))}
}

func (c *headerSource) Tip() (chain.Tip, <-chan struct{}) { return c.end, nil }

func (c *headerSource) Fork(a, b chainhash.Hash) (chainhash.Hash, int32, bool) {
	x, okA := c.hashes[a]
	y, okB := c.hashes[b]
	return c.list[min(x, y)], min(x, y), okA && okB
}

func (c *headerSource) Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool) {
	if at, ok := c.hashes[hash]; !ok || height < 0 || height > at {
		return chainhash.Hash{}, false
	}
	return c.list[height], true
}

func (c *headerSource) HeadersAfter(dst []byte, locator []chainhash.Hash, limit int) (start int32, n int, raw []byte, err error) {
	for _, h := range locator {
		if at, ok := c.hashes[h]; ok {
			start = at
			break
		}
	}
	start++
	n = max(0, min(limit, len(c.raws)-int(start)))
	for _, r := range c.raws[start:][:n] {
		dst = append(dst, r...)
	}
	c.served.Add(int64(n))
	return start, n, dst, nil
}

// sendHeaders sends headers as the answer to a request.
func sendHeaders(s network.Stream, start int32, raws [][]byte, tip TipInfo) error {
	r := headersReply{Start: start, Count: len(raws), Bytes: len(raws) * consensus.HeaderBytes, Tip: tip}
	_, err := s.Write(append(appendDelimited(nil, r.append(nil)), slices.Concat(raws...)...))
	return err
}

// A headerNode is an Exchange over a chain of regtest's rules that takes no block.
type headerNode struct {
	*Exchange
	c      *chain.Chain
	logs   *logs
	blames chan blamed
}

// serving runs an Exchange over c that answers as it should.
func serving(t testing.TB, c Chain, change ...func(*Options)) *Exchange {
	t.Helper()
	h := newHost(t)
	o := Options{Host: h, Chain: c, ChainID: c.Params().ChainID(), Agent: "test"}
	for _, f := range change {
		f(&o)
	}
	x, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	eventually(t, "handlers set", func() bool { return slices.Contains(h.Mux().Protocols(), TxsID(o.ChainID)) })
	return x
}

// hastily makes a clock that runs so many times too fast.
func hastily(times int) func() time.Time {
	began := time.Now()
	return func() time.Time { return began.Add(time.Duration(times) * time.Since(began)) }
}

func newHeaderNode(t testing.TB, least int64, fs vfs.FS, dir string, change ...func(*Options)) *headerNode {
	t.Helper()
	p := consensus.Regtest()
	p.MinChainWork = big.NewInt(least)
	c, err := chain.Open(chain.Options{Dir: dir, FS: fs, Params: p, Engine: pow.New(p)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { // after the Exchange, which is made later
		cancel()
		<-done
		_ = c.Close()
	})
	n := &headerNode{c: c, logs: &logs{}, blames: make(chan blamed, 100)}
	n.Exchange = serving(t, FromChain(c), append([]func(*Options){func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.OnBlame = func(id peer.ID, reason string) { n.blames <- blamed{id, reason} }
		o.ReplyTimeout = 10 * time.Second
	}}, change...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", n.logs)
		}
	})
	return n
}

// awaitHeaders waits until the best header is the end of source.
func (n *headerNode) awaitHeaders(t testing.TB, source *headerSource) {
	t.Helper()
	eventually(t, "headers", func() bool {
		best, _ := n.c.BestHeader()
		return best.Hash == source.end.Hash
	})
}

// awaitKnown waits until the end of source is in the tree, best or not.
func (n *headerNode) awaitKnown(t testing.TB, source *headerSource) {
	t.Helper()
	eventually(t, "headers", func() bool { return headerKnown(n.o.Chain, source.end.Hash) })
}

// lying runs a peer that says to have a tip and answers requests for headers with f.
func lying(t *testing.T, tip TipInfo, f func(s network.Stream, r headersRequest) error) host.Host {
	t.Helper()
	c := mined(0, 0)
	c.end = chain.Tip{Hash: tip.Hash, Height: tip.Height, Work: tip.Work}
	x := serving(t, c)
	setHeaders(x.o.Host, HeadersID(x.o.ChainID), f)
	return x.o.Host
}

// huge is a claim that cannot be beaten.
func huge() TipInfo {
	return TipInfo{Height: 1 << 30, Hash: fill(7), Work: new(big.Int).Lsh(big.NewInt(1), 60)}
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// endless makes headers for ever, a full reply a request, pausing before each.
func endless(salt uint64, pause time.Duration, sent *atomic.Int64) func(s network.Stream, r headersRequest) error {
	m := newHeaderMine(salt)
	start := int32(1)
	return func(s network.Stream, r headersRequest) error {
		if r.Locator[0] == consensus.Regtest().GenesisHash { // from the start
			m, start = newHeaderMine(salt), 1
		}
		if pause > 0 {
			<-time.After(pause)
		}
		raws := make([][]byte, r.Max)
		for i := range raws {
			raws[i] = m.next()
		}
		err := sendHeaders(s, start, raws, huge())
		start += int32(r.Max)
		sent.Add(int64(r.Max))
		return err
	}
}

// A long chain comes in pipelined ranges, near or far, and each header once.
func TestHeaderRanges(t *testing.T) {
	t.Parallel()
	source := mined(40_001, 1)
	s := serving(t, source)
	n := newHeaderNode(t, 0, vfs.NewMem(), "home")
	connect(t, n.o.Host, s.o.Host)
	n.awaitHeaders(t, source)
	if served := source.served.Load(); served > 40_001+MaxHeaders {
		t.Errorf("%d headers were served", served)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// What a server answers to requests that skip, at the ends.
func TestHeadersSkipped(t *testing.T) {
	t.Parallel()
	source := mined(100, 1)
	x := serving(t, source)
	for _, tc := range []struct {
		locator []chainhash.Hash
		skip    int32
		start   int32
		n       int
	}{
		{[]chainhash.Hash{source.list[10]}, 0, 11, 30},
		{[]chainhash.Hash{source.list[10]}, 30, 41, 30},
		{[]chainhash.Hash{source.list[10]}, 60, 71, 30},
		{[]chainhash.Hash{source.list[10]}, 89, 100, 1},
		{[]chainhash.Hash{source.list[10]}, 90, 101, 0},
		{[]chainhash.Hash{source.list[10]}, 91, 101, 0},
		{[]chainhash.Hash{source.list[10]}, 1<<31 - 1, 1<<31 - 1, 0},
		{[]chainhash.Hash{fill(9), source.list[20], source.list[10]}, 5, 26, 30},
		{[]chainhash.Hash{fill(9)}, 5, 6, 30},
		{nil, 5, 6, 30},
	} {
		start, n, raw, err := x.headersAfter(nil, &headersRequest{Locator: tc.locator, Skip: tc.skip}, 30)
		if err != nil || n != tc.n || len(raw) != n*consensus.HeaderBytes || n > 0 && start != tc.start || start < 0 {
			t.Errorf("%d after %d hashes: %d headers from %d on, %v", tc.skip, len(tc.locator), n, start, err)
		}
		if n > 0 && [consensus.HeaderBytes]byte(raw) != [consensus.HeaderBytes]byte(source.raws[start]) {
			t.Errorf("%d after %d hashes: another header", tc.skip, len(tc.locator))
		}
	}
}

// A server that does not know what to skip is asked in single steps.
func TestHeaderServerWithoutSkip(t *testing.T) {
	t.Parallel()
	source := mined(30_000, 1)
	tip := TipInfo{Height: source.end.Height, Hash: source.end.Hash, Work: source.end.Work}
	h := lying(t, tip, func(s network.Stream, r headersRequest) error {
		start, n, _, err := source.HeadersAfter(nil, r.Locator, r.Max)
		if err != nil {
			return err
		}
		return sendHeaders(s, start, source.raws[start:][:n], tip)
	})
	n := newHeaderNode(t, 0, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(20) })
	connect(t, n.o.Host, h)
	n.awaitHeaders(t, source)
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// A chain that needs more than a reply to show enough work is looked at first and
// then stored, from wherever it leaves ours.
func TestPresyncFromPeer(t *testing.T) {
	t.Parallel()
	source := mined(15_000, 1)
	s := serving(t, source)
	n := newHeaderNode(t, 2*12_001, vfs.NewMem(), "home")
	connect(t, n.o.Host, s.o.Host)
	n.awaitHeaders(t, source)
	// 14,000 twice, what was asked for ahead, and the rest.
	if served := source.served.Load(); served < 29_000 || served > 29_000+headersAhead*MaxHeaders {
		t.Errorf("%d headers were served", served)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// Headers without end and without enough work take no memory.
func TestEndlessHeaders(t *testing.T) {
	var sent atomic.Int64
	liar := lying(t, huge(), endless(9, 0, &sent))
	n := newHeaderNode(t, 2*5001*1_000_000, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(5) })
	before := liveHeap()
	connect(t, n.o.Host, liar)
	eventually(t, "many headers", func() bool { return sent.Load() > 100_000 })
	if grown := liveHeap() - before; grown > 8<<20 {
		t.Errorf("%d headers took %d bytes", sent.Load(), grown)
	}
	if tips := n.c.Tips(); len(tips) != 1 || tips[0].Tip.Height != 0 {
		t.Errorf("tips %+v", tips)
	}
}

// While headers without end come from one, the chain of another is fetched.
func TestEndlessHeadersBesideHonest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		least int64
		pause time.Duration
	}{
		{"a presync that drags on", 2 * 5001, 3 * time.Second},
		{"a branch that forks at genesis", 0, 5 * time.Millisecond},
		{"a trickle of full replies", 0, 300 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			var asked atomic.Bool
			f := endless(9, tc.pause, &sent)
			liar := lying(t, huge(), func(s network.Stream, r headersRequest) error {
				asked.Store(true)
				return f(s, r)
			})
			source := mined(6000, 1)
			s := serving(t, source)
			n := newHeaderNode(t, tc.least, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(5) })
			connect(t, n.o.Host, liar)
			eventually(t, "the liar is asked", asked.Load)
			connect(t, n.o.Host, s.o.Host)
			n.awaitKnown(t, source)
		})
	}
}

// Peers that claim much and send for ever what is known take turns with the
// others: the chain of one that claims less is fetched.
func TestKnownHeadersBesideHonest(t *testing.T) {
	t.Parallel()
	source := mined(40_000, 1)
	known := &headerSource{fakeChain: newFakeChain(), hashes: make(map[chainhash.Hash]int32)}
	for _, raw := range source.raws[:35_001] {
		known.add(raw)
	}
	var asked atomic.Int64
	serve := func(s network.Stream, r headersRequest) error {
		asked.Add(1)
		return sendHeaders(s, 1, known.raws[1:][:min(r.Max, MaxHeaders)], huge())
	}
	n := newHeaderNode(t, 0, vfs.NewMem(), "home")
	connect(t, n.o.Host, serving(t, known).o.Host)
	n.awaitHeaders(t, known)
	began := time.Now()
	for i := range int64(5) {
		connect(t, n.o.Host, lying(t, huge(), serve))
		eventually(t, "the liar is asked", func() bool { return asked.Load() > i })
	}
	connect(t, n.o.Host, serving(t, source).o.Host)
	n.awaitHeaders(t, source)
	times := 1 + int64(time.Since(began)/retryPull) // once, and once more after each rest
	if a := asked.Load(); a > 5*times*(headersAhead+1) {
		t.Errorf("the liars were asked %d times", a)
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// Peers that together take all pulls, and send slowly, do not keep another from being asked.
func TestSlowHeadersInEveryPull(t *testing.T) {
	t.Parallel()
	n := newHeaderNode(t, 0, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(20) })
	for i := range uint64(maxPulls) {
		var sent atomic.Int64
		connect(t, n.o.Host, lying(t, huge(), endless(100+i, time.Second, &sent)))
		eventually(t, "the liar is asked", func() bool { return sent.Load() > 0 })
	}
	source := mined(6000, 1)
	s := serving(t, source)
	connect(t, n.o.Host, s.o.Host)
	n.awaitKnown(t, source)
	// A liar that is asked once more, when the chain is here, does not follow the locator.
	for len(n.blames) > 0 {
		if b := <-n.blames; b.id == s.o.Host.ID() {
			t.Errorf("blamed: %v", b)
		}
	}
}

// Who waits longest is asked first, whatever is claimed.
func TestPullOrder(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_000_000, 0)
	peers := []*peerSync{
		{wished: true, turn: at, tip: TipInfo{Height: 1, Work: big.NewInt(1)}},
		{turn: at.Add(-time.Minute), tip: TipInfo{Height: 2, Work: big.NewInt(1)}},
		{turn: at.Add(-time.Second), tip: TipInfo{Height: 3, Work: big.NewInt(2)}},
		{turn: at.Add(-time.Second), tip: TipInfo{Height: 4, Work: big.NewInt(1)}},
		{turn: at.Add(-2 * time.Second), idle: 1, tip: TipInfo{Height: 5, Work: big.NewInt(9)}},
		{turn: at.Add(-2 * time.Second), idle: 1, doubts: 1, tip: TipInfo{Height: 6, Work: big.NewInt(9)}},
		{turn: at.Add(-2 * time.Second), idle: 1000, tip: TipInfo{Height: 7, Work: big.NewInt(9)}},
	}
	slices.Reverse(peers)
	slices.SortStableFunc(peers, comparePulls)
	for i, p := range peers {
		if p.tip.Height != int32(i+1) {
			t.Errorf("place %d has the peer of place %d", i+1, p.tip.Height)
		}
	}
}

// The second time another chain comes than the first time: nothing of it is kept.
func TestPresyncMismatch(t *testing.T) {
	t.Parallel()
	shown, other := mined(9000, 1), mined(9000, 2)
	g := shown.list[0]
	var passes atomic.Int32
	tip := TipInfo{Height: shown.end.Height, Hash: shown.end.Hash, Work: shown.end.Work}
	liar := lying(t, tip, func(s network.Stream, r headersRequest) error {
		source := shown
		if r.Skip == 0 && r.Locator[0] == g {
			passes.Add(1)
		}
		if passes.Load()%2 == 0 {
			source = other
		}
		start, n, _, err := source.HeadersAfter(nil, r.Locator, r.Max)
		if at, ok := source.hashes[r.Locator[0]]; ok && r.Skip > 0 {
			start = at + r.Skip + 1
			n = max(0, min(r.Max, len(source.raws)-int(start)))
		}
		if err != nil {
			return err
		}
		return sendHeaders(s, start, source.raws[start:][:n], tip)
	})
	n := newHeaderNode(t, 2*8001, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(10) })
	connect(t, n.o.Host, liar)
	eventually(t, "the difference is seen", func() bool { return strings.Contains(n.logs.String(), "presync-mismatch") })
	if best, _ := n.c.BestHeader(); best.Height != 0 {
		t.Errorf("%d headers are kept", best.Height)
	}
	eventually(t, "it is left", func() bool {
		return strings.Contains(n.logs.String(), "does not send the headers it claims to have")
	})
	honest := serving(t, mined(9000, 3))
	connect(t, n.o.Host, honest.o.Host)
	eventually(t, "headers", func() bool {
		best, _ := n.c.BestHeader()
		return best.Height == 9000
	})
}

// Who claims work and sends headers that end before it is left after three times.
func TestHeadersStopShort(t *testing.T) {
	t.Parallel()
	source := mined(50, 1)
	var asked atomic.Int32
	liar := lying(t, huge(), func(s network.Stream, r headersRequest) error {
		asked.Add(1)
		start, n, _, err := source.HeadersAfter(nil, r.Locator, r.Max)
		if err != nil {
			return err
		}
		return sendHeaders(s, start, source.raws[start:][:n], TipInfo{Height: 50, Hash: fill(7), Work: big.NewInt(1 << 40)})
	})
	n := newHeaderNode(t, 0, vfs.NewMem(), "home", func(o *Options) { o.Now = hastily(20) })
	connect(t, n.o.Host, liar)
	awaitGone(t, n.o.Host, liar.ID())
	if asked.Load() != maxPullFailures {
		t.Errorf("asked %d times", asked.Load())
	}
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
	n.awaitHeaders(t, source)
}

// One byte at a time is as good as silence.
func TestHeaderTrickle(t *testing.T) {
	t.Parallel()
	source := mined(2500, 1)
	liar := lying(t, huge(), func(s network.Stream, r headersRequest) error {
		rep := headersReply{Start: 1, Count: 2000, Bytes: 2000 * consensus.HeaderBytes, Tip: huge()}
		b := append(appendDelimited(nil, rep.append(nil)), slices.Concat(source.raws[1:2001]...)...)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range b {
			<-tick.C
			if _, err := s.Write(b[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	})
	n := newHeaderNode(t, 0, vfs.NewMem(), "home", func(o *Options) { o.Now, o.ReplyTimeout = hastily(20), time.Second })
	connect(t, n.o.Host, liar)
	awaitGone(t, n.o.Host, liar.ID())
	s := serving(t, source)
	connect(t, n.o.Host, s.o.Host)
	n.awaitHeaders(t, source)
}

// BenchmarkHeaders fetches 200,000 headers of regtest from one host over loopback
// TCP into a chain on disk, which checks them; with presync they are looked at
// once before.
func BenchmarkHeaders(b *testing.B) {
	const count = 200_000
	source := mined(count, 1)
	s := serving(b, source)
	for _, bb := range []struct {
		name  string
		least int64
	}{{"direct", 0}, {"presync", 2 * (count - 1000)}} {
		b.Run(bb.name, func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				n := newHeaderNode(b, bb.least, vfs.Default, b.TempDir(), func(o *Options) { o.ReplyTimeout = 0 })
				started := time.Now()
				connect(b, n.o.Host, s.o.Host)
				for {
					best, more := n.c.BestHeader()
					if best.Hash == source.end.Hash {
						break
					}
					<-more
				}
				took += time.Since(started)
				_ = n.o.Host.Close()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(count*float64(b.N)/took.Seconds(), "headers/s")
		})
	}
}
