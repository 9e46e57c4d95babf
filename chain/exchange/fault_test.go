package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"math"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/ibd"
)

// serveHeadersWith makes n answer each headers request with f.
func serveHeadersWith(t *testing.T, n *testNode, f func(s network.Stream, r headersRequest) error) {
	t.Helper()
	setHeaders(n.host, HeadersID(n.chain.params.ChainID()), f)
}

func setHeaders(h host.Host, id protocol.ID, f func(s network.Stream, r headersRequest) error) {
	h.SetStreamHandler(id, func(s network.Stream) {
		defer func() { _ = s.Reset() }()
		in := bufio.NewReader(s)
		for {
			b, err := readMessage(in, nil, maxHeadersRequest)
			if err != nil {
				return
			}
			r, err := decodeHeadersRequest(b)
			if err != nil || f(s, r) != nil {
				return
			}
		}
	})
}

func headersOf(blocks [][]byte) (raw []byte) {
	for _, b := range blocks {
		raw = append(raw, b[:consensus.HeaderBytes]...)
	}
	return raw
}

// TestBadHeaders: whatever one peer does with requests for headers, the sync
// finishes from an honest one.
func TestBadHeaders(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 100, 1, 300)
	other := makeBlocks(chainhash.Hash{9}, time.Unix(0, 0), 10, 3, fixedSize(300))
	reply := func(start int32, raw []byte) func(network.Stream, headersRequest) error {
		return func(s network.Stream, _ headersRequest) error {
			tip, _ := source.Tip()
			r := headersReply{
				Start: start, Count: len(raw) / consensus.HeaderBytes, Bytes: len(raw),
				Tip: TipInfo{Height: tip.Height, Hash: tip.Hash, Work: tip.Work},
			}
			_, err := s.Write(append(appendDelimited(nil, r.append(nil)), raw...))
			return err
		}
	}
	bad := newFakeChain()
	badHeader := makeBlocks(bad.params.GenesisHash, time.Unix(0, 0), 1, 3, fixedSize(300))[0][:consensus.HeaderBytes]
	badHeader = slices.Clone(badHeader)
	badHeader[0], badHeader[1] = 666&0xff, 666>>8 // the version that fakeChain refuses
	for _, tc := range []struct {
		name  string
		serve func(network.Stream, headersRequest) error
		blame string
	}{
		{"do not follow", reply(1, headersOf(other)), "do not follow"},
		{"invalid", reply(1, badHeader), "bad-version"},
		{"not a whole number", func(s network.Stream, _ headersRequest) error {
			r := headersReply{Start: 1, Count: 1, Bytes: 81, Tip: TipInfo{Hash: fill(1)}}
			_, err := s.Write(append(appendDelimited(nil, r.append(nil)), make([]byte, 81)...))
			return err
		}, "bytes for 1 headers"},
		{"garbage", func(s network.Stream, _ headersRequest) error {
			_, err := s.Write([]byte(strings.Repeat("\xff", 100)))
			return err
		}, "protocol violation"},
		{"none", reply(1, nil), ""},
		{"silence", func(network.Stream, headersRequest) error { return nil }, ""},
		{"resets", func(network.Stream, headersRequest) error { return errors.New("reset") }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cb, cg := newFakeChain(), newFakeChain()
			cb.addAll(t, source.branch())
			cg.addAll(t, source.branch())
			b, g := newNode(t, cb), newNode(t, cg)
			serveHeadersWith(t, b, tc.serve)
			n := newNode(t, newFakeChain(), func(o *Options) {
				if tc.name == "silence" {
					o.ReplyTimeout = 2 * time.Second
				}
			})
			connect(t, n.host, b.host)
			if tc.blame != "" {
				if e := receive(t, "blame", n.blames); !strings.Contains(e.reason, tc.blame) {
					t.Errorf("blamed for %q, want %q", e.reason, tc.blame)
				}
				awaitGone(t, n.host, b.host.ID())
			} else {
				eventually(t, "asked", func() bool { return n.Ready(b.host.ID()) })
			}
			connect(t, n.host, g.host)
			awaitTip(t, n, source)
			if len(n.blames) > 0 {
				t.Errorf("blamed: %v", <-n.blames)
			}
		})
	}
}

// TestRefusedBlock: a chain with an invalid block is left, whoever claims it is
// blamed, and the best valid one is synced.
func TestRefusedBlock(t *testing.T) {
	good := newFakeChain()
	good.grow(t, 50, 1, 300)
	evil := newFakeChain()
	bs := makeBlocks(evil.params.GenesisHash, evil.params.Genesis.Header.Timestamp, 80, 7, fixedSize(300))
	evil.addAll(t, bs)
	evil.mu.Lock()
	ancestor(evil.tip, 30).raw[80] = 0xff // it serves what it says is valid
	evil.mu.Unlock()
	e, g, n := newNode(t, evil), newNode(t, good), newNode(t, newFakeChain())
	connect(t, n.host, e.host)
	connect(t, n.host, g.host)
	if b := receive(t, "blame", n.blames); b.id != e.host.ID() || !strings.Contains(b.reason, "bad-block") {
		t.Errorf("blamed %v for %q", b.id, b.reason)
	}
	awaitTip(t, n, good)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
}

// TestMutatedBlock: the sender of a mutated body is blamed and the block comes
// from another peer.
func TestMutatedBlock(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 60, 1, 300)
	cm, cg := newFakeChain(), newFakeChain()
	for _, raw := range source.branch() {
		cm.addAll(t, [][]byte{slices.Clone(raw)})
	}
	cg.addAll(t, source.branch())
	cm.mu.Lock()
	for h := int32(1); h <= 60; h++ {
		ancestor(cm.tip, h).raw[80] = 0xfe
	}
	cm.mu.Unlock()
	m, g, n := newNode(t, cm), newNode(t, cg), newNode(t, newFakeChain())
	connect(t, n.host, m.host)
	if b := receive(t, "blame", n.blames); b.id != m.host.ID() || !strings.Contains(b.reason, "mutated") {
		t.Errorf("blamed %v for %q", b.id, b.reason)
	}
	connect(t, n.host, g.host)
	awaitTip(t, n, source)
}

// TestChainInTrouble: blocks that the chain cannot take now are kept and
// submitted again, and the status says why nothing moves.
func TestChainInTrouble(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 60, 1, 300)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	n.chain.mu.Lock()
	n.chain.failSubmit = errors.New("disk full")
	n.chain.mu.Unlock()
	connect(t, n.host, s.host)
	eventually(t, "stalled", func() bool {
		st := n.Sync()
		return st.State == Stalled && strings.Contains(st.Reason, "disk full")
	})
	n.chain.mu.Lock()
	n.chain.failSubmit = nil
	n.chain.mu.Unlock()
	awaitTip(t, n, source)
	source.mu.Lock()
	defer source.mu.Unlock()
	if source.reads > 60 {
		t.Errorf("%d blocks downloaded, there are 60", source.reads)
	}
}

// TestMinimumWork: headers are kept once they have shown enough work, and who
// says himself that he has less is not asked.
func TestMinimumWork(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 4500, 1, 100)
	poor := newFakeChain()
	poor.grow(t, 2500, 2, 100)
	p, s := newNode(t, poor), newNode(t, source)
	c := newFakeChain()
	c.minHeight = 4200
	n := newNode(t, c)
	connect(t, n.host, p.host)
	eventually(t, "the poor chain is not enough", func() bool { return n.Ready(p.host.ID()) })
	if best, _ := c.BestHeader(); best.Height != 0 {
		t.Errorf("%d headers kept", best.Height)
	}
	connect(t, n.host, s.host)
	awaitTip(t, n, source)
	if len(n.blames) > 0 {
		t.Errorf("blamed: %v", <-n.blames)
	}
}

// TestFetchFrom: gossip names a hash whose parent is unknown: headers are asked
// for, though the peer's tip says nothing new.
func TestFetchFrom(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 5, 1, 300)
	quiet := func(o *Options) { o.TipGap, o.TipInterval = time.Hour, time.Hour }
	s, n := newNode(t, source, quiet), newNode(t, newFakeChain(), quiet)
	connect(t, n.host, s.host)
	awaitTip(t, n, source)
	tell := func() chainhash.Hash { // a block that no tip tells of: the gap is an hour
		bs := source.grow(t, 3, uint64(source.submitted), 300)
		return chainhash.DoubleHashH(bs[2][:80])
	}
	tell() // may be told: the first change is
	awaitTipOrWish(t, n, source)
	h := tell()
	for range 100 {
		n.FetchFrom(s.host.ID(), h)
	}
	awaitTip(t, n, source)
}

func awaitTipOrWish(t *testing.T, n *testNode, source *fakeChain) {
	t.Helper()
	tip, _ := source.Tip()
	for _, p := range n.Peers() {
		n.FetchFrom(p.ID, tip.Hash)
	}
	awaitTip(t, n, source)
}

func TestFetchBlock(t *testing.T) {
	source := newFakeChain()
	bs := source.grow(t, 5, 1, 100_000)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	if _, err := n.FetchBlock(t.Context(), s.host.ID(), chainhash.Hash{1}, nil); !errors.Is(err, ErrNotReady) {
		t.Errorf("before hello: %v", err)
	}
	connect(t, n.host, s.host)
	awaitTip(t, n, source)
	for i, raw := range bs {
		got, err := n.FetchBlock(t.Context(), s.host.ID(), chainhash.DoubleHashH(raw[:80]), nil)
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("block %d: %d bytes, %v", i+1, len(got), err)
		}
	}
	if _, err := n.FetchBlock(t.Context(), s.host.ID(), chainhash.Hash{1}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.FetchBlock(ctx, s.host.ID(), chainhash.DoubleHashH(bs[0][:80]), nil); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	eventually(t, "nothing outstanding", func() bool {
		r, b := n.budget.used()
		return r == 0 && b == 0 && n.Peers()[0].InFlight == 0
	})
}

func TestFetchTxs(t *testing.T) {
	b := enginetest.NewBuilder(consensus.Regtest())
	blocks := b.MineN(b.Genesis(), 3)
	s, n := newRealNode(t, vfs.NewMem()), newRealNode(t, vfs.NewMem())
	s.submit(t, blocks)
	connect(t, n.o.Host, s.o.Host)
	n.awaitBlock(t, blocks[2])
	id := s.o.Host.ID()
	txs, err := n.FetchBlockTxs(t.Context(), id, blocks[1].Hash, []uint32{0}, nil)
	if err != nil || len(txs) != 1 {
		t.Fatalf("%d transactions, %v", len(txs), err)
	}
	tx, err := consensus.DecodeTx(txs[0])
	if err != nil || tx.TxHash() != *blocks[1].Txs[0].Hash() {
		t.Errorf("another transaction: %v", err)
	}
	if _, err := n.FetchBlockTxs(t.Context(), id, chainhash.Hash{1}, []uint32{0}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown block: %v", err)
	}
	next := b.MineN(blocks[2], 1)[0]
	if _, _, err := s.c.AcceptHeaders(t.Context(), []consensus.Header{next.Header}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.FetchBlockTxs(t.Context(), id, next.Hash, []uint32{0}, nil); !errors.Is(err, ErrNotYet) {
		t.Errorf("header only: %v", err)
	}
	if txs, err := n.FetchTxs(t.Context(), id, []chainhash.Hash{{1}, {2}}); err != nil || len(txs) != 2 || txs[0] != nil {
		t.Errorf("mempool: %v, %v", txs, err)
	}
	if _, err := n.FetchTxs(t.Context(), id, make([]chainhash.Hash, MaxTxIDs+1)); err == nil {
		t.Error("too many ids were asked for")
	}
	// An index past the end is nobody's fault: a false compact block has them.
	if _, err := n.FetchBlockTxs(t.Context(), id, blocks[1].Hash, []uint32{0, 99}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("an index past the end: %v", err)
	}
	if txs, err := n.FetchBlockTxs(t.Context(), id, blocks[1].Hash, []uint32{0}, nil); err != nil || len(txs) != 1 {
		t.Errorf("after it: %d transactions, %v", len(txs), err)
	}
}

// TestStubbornPeer: a peer that ignores withdrawals loses its stream, not the caps.
func TestStubbornPeer(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 1, 1, 1000)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	serveBlocksWith(t, s, silence)
	connect(t, n.host, s.host)
	eventually(t, "ready", func() bool { return n.Ready(s.host.ID()) })
	tip, _ := source.Tip()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := n.FetchBlock(ctx, s.host.ID(), tip.Hash, nil)
		done <- err
	}()
	eventually(t, "asked", func() bool { return n.Peers()[0].InFlight > 0 })
	cancel()
	if err := receive(t, "end", done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n.remote(s.host.ID()) == nil {
		t.Fatal("disconnected")
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(2, 100)
	take := func(n int64, want bool) (wait <-chan struct{}) {
		t.Helper()
		wait, ok := b.take(n)
		if ok != want {
			t.Errorf("take %d: %v", n, ok)
		}
		return wait
	}
	take(60, true)
	wait := take(41, false)
	take(40, true)
	take(0, false) // two requests
	b.give(1, 60)
	<-wait
	take(60, true)
	b.give(0, 30)
	b.give(2, 70)
	if r, n := b.used(); r != 0 || n != 0 {
		t.Errorf("%d requests, %d bytes", r, n)
	}
}

// TestRates: rates look a minute back and do not jump.
func TestRates(t *testing.T) {
	var m rateMeter
	at := time.Unix(1000, 0)
	m.reset(rateSample{at: at})
	for i := range 200 {
		at = at.Add(time.Second)
		m.add(rateSample{at: at, height: int32(10 * (i + 1)), bytes: int64(1000 * (i + 1))})
	}
	last := rateSample{at: at, height: 2000, bytes: 200_000}
	blocks, bytes, over := m.rates(last)
	if blocks != 10 || bytes != 1000 || over < rateWindow || over > rateWindow+2*time.Second || len(m.samples) > 64 {
		t.Errorf("%v blocks/s, %v bytes/s over %v, %d samples", blocks, bytes, over, len(m.samples))
	}
	// A pause of 30 s halves the rate of the last minute rather than making it zero.
	at = at.Add(30 * time.Second)
	m.add(rateSample{at: at, height: 2000, bytes: 200_000})
	if blocks, _, _ := m.rates(rateSample{at: at, height: 2000, bytes: 200_000}); math.Abs(blocks-5) > 2 {
		t.Errorf("after a pause %v blocks/s", blocks)
	}
}

func TestOptionsReportEveryFault(t *testing.T) {
	_, err := New(Options{ChainID: "a/b", Agent: "\n", HelloTimeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"host", "chain: missing", "chain id", "agent", "hello timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	c := newFakeChain()
	_, err = New(Options{Host: newHost(t), Chain: c, ChainID: "x", ServeBytes: 1, Limits: ibd.Config{MaxCount: 1 << 20}})
	if err == nil || !strings.Contains(err.Error(), "serve bytes") {
		t.Errorf("%v", err)
	}
}

func TestLimitsNameEveryProtocol(t *testing.T) {
	n := newNode(t, newFakeChain())
	limits := Limits(n.chain.params.ChainID())
	for _, id := range n.host.Mux().Protocols() {
		if strings.HasPrefix(string(id), "/dunlin/") {
			if l := limits[id]; l.PerPeer < 1 || l.Total < l.PerPeer || l.Memory < 1 {
				t.Errorf("%s: %+v", id, l)
			}
			delete(limits, id)
		}
	}
	if len(limits) > 0 {
		t.Errorf("not served: %v", limits)
	}
}

// TestEmptyClaims: a peer that claims work which it cannot show, again and
// again, neither unsettles a synced node nor starts a sync.
func TestEmptyClaims(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 20, 1, 300)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	connect(t, n.host, s.host)
	awaitTip(t, n, source)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	before := strings.Count(n.logs.String(), "sync started")

	liar := newNode(t, newFakeChain())
	liar.stop()
	var asked atomic.Int32
	serveHeadersWith(t, liar, func(s network.Stream, _ headersRequest) error {
		asked.Add(1)
		r := headersReply{Start: 21, Tip: TipInfo{Height: 1 << 20, Hash: fill(9), Work: big.NewInt(1 << 40)}}
		_, err := s.Write(appendDelimited(nil, r.append(nil)))
		return err
	})
	hs := greetByHand(t, liar, n)
	for i := range 8 {
		tip := TipInfo{Height: 1 << 20, Hash: fill(byte(10 + i)), Work: big.NewInt(1 << 40)}
		if _, err := hs.Write(appendDelimited(nil, (&helloMessage{Tip: &tip}).append(nil))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the claim was examined", func() bool {
		return asked.Load() > 0 && slices.ContainsFunc(n.Peers(), func(p Peer) bool { return p.Hash == fill(17) })
	})
	source.grow(t, 1, 50, 300) // the loop has gone round when this is here
	awaitTip(t, n, source)
	if st := n.Sync(); st.State != Synced {
		t.Errorf("state %s: %s", st.State, st.Reason)
	}
	if got := strings.Count(n.logs.String(), "sync started"); got != before {
		t.Errorf("%d syncs started", got-before)
	}
	if a := asked.Load(); a > 3 {
		t.Errorf("asked %d times", a)
	}
}

// TestKnownTipOverstated: a peer that claims a tip which is known, with absurd
// work and height, does not keep a node from being synced.
func TestKnownTipOverstated(t *testing.T) {
	source := newFakeChain()
	source.grow(t, 20, 1, 300)
	s, n := newNode(t, source), newNode(t, newFakeChain())
	liar := lying(t, TipInfo{Height: 1 << 20, Hash: source.params.GenesisHash, Work: big.NewInt(1 << 40)},
		func(network.Stream, headersRequest) error { return nil })
	connect(t, n.host, liar)
	eventually(t, "the claim is here", func() bool { return n.Ready(liar.ID()) && n.Peers()[0].Height == 1<<20 })
	connect(t, n.host, s.host)
	awaitTip(t, n, source)
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })
	if target := n.Sync().Target; target != 20 {
		t.Errorf("the target is %d", target)
	}
}
