package exchange

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"
)

func protocolID[ID ~string](id ID) protocol.ID { return protocol.ID(id) }

// TestOtherNetwork: two chains meet, in both directions; both ends learn the
// other's genesis and part.
func TestOtherNetwork(t *testing.T) {
	ca, cb := newFakeChain(), newFakeChain()
	other := *cb.params
	other.Name, other.GenesisHash = "other", chainhash.Hash{1, 2, 3}
	cb.params = &other
	a, b := newNode(t, ca), newNode(t, cb)
	for range 2 {
		connect(t, a.host, b.host)
		if f := receive(t, "a told", a.foreign); f.id != b.host.ID() || f.genesis != other.GenesisHash {
			t.Errorf("a heard of %v", f)
		}
		if f := receive(t, "b told", b.foreign); f.id != a.host.ID() || f.genesis != ca.params.GenesisHash {
			t.Errorf("b heard of %v", f)
		}
		awaitGone(t, a.host, b.host.ID())
		awaitGone(t, b.host, a.host.ID())
	}
	if n := strings.Count(a.logs.String(), "peer is of another network"); n != 1 {
		t.Errorf("told %d times in the log", n)
	}
	if len(a.Peers()) != 0 || len(b.Peers()) != 0 {
		t.Error("they are peers")
	}
}

// TestBadHellos: what is not a hello, or none in time, ends the connection.
func TestBadHellos(t *testing.T) {
	valid := func(n *testNode) Hello { return n.localHello(0) }
	send := func(h Hello) []byte { return appendDelimited(nil, (&helloMessage{Hello: &h}).append(nil)) }
	for _, tc := range []struct {
		name  string
		bytes func(victim *testNode) []byte
		blame bool
	}{ // nothing at all, and what is cut, ends with HelloTimeout
		{"silence", func(*testNode) []byte { return nil }, false},
		{"garbage", func(*testNode) []byte { return []byte(strings.Repeat("\xff\x00garbage", 50)) }, true},
		{"oversize", func(*testNode) []byte {
			return append(binary.AppendUvarint(nil, maxHelloBytes+1), make([]byte, 2000)...)
		}, true},
		{"no hello in it", func(*testNode) []byte { return appendDelimited(nil, (&helloMessage{Ping: 1}).append(nil)) }, true},
		{"half a hello", func(n *testNode) []byte { b := send(valid(n)); return b[:len(b)-5] }, false},
		{"version 0", func(n *testNode) []byte {
			h := valid(n)
			h.Nonce++
			h.Version = 0
			return send(h)
		}, false},
		{"our own nonce", func(n *testNode) []byte { return send(valid(n)) }, false},
		{"short genesis", func(*testNode) []byte { return []byte("\x05\x0a\x03\x1a\x01\x01") }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			waits := tc.name == "silence" || tc.name == "half a hello"
			n := newNode(t, newFakeChain(), func(o *Options) {
				if o.HelloTimeout = patience; waits {
					o.HelloTimeout = time.Second
				}
			})
			h := newHost(t)
			connect(t, h, n.host)
			if b := tc.bytes(n); b != nil {
				s, err := h.NewStream(t.Context(), n.host.ID(), HelloID(n.chain.params.ChainID()))
				if err == nil {
					_, err = s.Write(b)
				}
				if err != nil && !waits { // who was too slow is gone already
					t.Fatal(err)
				}
			}
			awaitGone(t, n.host, h.ID())
			if len(n.Peers()) != 0 {
				t.Error("it is a peer")
			}
			n.stop() // whatever is to be said has been said
			if tc.blame != (len(n.blames) > 0) {
				t.Errorf("blamed %d times", len(n.blames))
			}
		})
	}
}

// TestPeerWithoutHello: whoever connects must speak hello. One that does not know it, in whatever direction, is told of.
func TestPeerWithoutHello(t *testing.T) {
	strangers := make(chan peer.ID, 10)
	n := newNode(t, newFakeChain(), func(o *Options) {
		o.HelloTimeout = time.Second
		o.OnStranger = func(id peer.ID) { strangers <- id }
	})
	t.Run("does not know it", func(t *testing.T) {
		h := newHost(t)
		for _, pair := range [][2]host.Host{{n.host, h}, {h, n.host}} {
			eventually(t, "told of", func() bool { // it is not on a machine so slow that identify takes longer than HelloTimeout
				connect(t, pair[0], pair[1])
				awaitGone(t, n.host, h.ID())
				select {
				case id := <-strangers:
					return id == h.ID()
				case <-time.After(time.Second):
					return false
				}
			})
		}
		if c := strings.Count(n.logs.String(), "peer does not speak this chain's protocols"); c != 1 {
			t.Errorf("%d lines in the log", c)
		}
	})
	t.Run("says nothing", func(t *testing.T) {
		h := newHost(t)
		h.SetStreamHandler(HelloID(n.chain.params.ChainID()), silence)
		connect(t, n.host, h)
		awaitGone(t, n.host, h.ID())
		n.stop()
		for len(strangers) > 0 { // the other one may have been told of more than once
			if <-strangers == h.ID() {
				t.Error("one that is slow is taken for one that does not know it")
			}
		}
	})
}

// TestNothingWithoutHello: the other protocols are closed to who has not said hello.
func TestNothingWithoutHello(t *testing.T) {
	n := newNode(t, newFakeChain())
	h := newHost(t)
	connect(t, h, n.host)
	id := n.chain.params.ChainID()
	for _, p := range []protocol.ID{HeadersID(id), BlocksID(id), TxsID(id)} {
		s, err := h.NewStream(t.Context(), n.host.ID(), p)
		if err != nil {
			continue // refused in the negotiation already
		}
		_ = s.SetDeadline(time.Now().Add(patience))
		_, _ = s.Write(appendDelimited(nil, (&headersRequest{Max: 1}).append(nil)))
		if _, err := s.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "deadline") {
			t.Errorf("%s: %v, want a reset", p, err)
		}
	}
}

// TestBothDial: a simultaneous open is one peer.
func TestBothDial(t *testing.T) {
	a, b := newNode(t, newFakeChain()), newNode(t, newFakeChain())
	dial := func(from, to *testNode) error {
		return from.host.Connect(t.Context(), peer.AddrInfo{ID: to.host.ID(), Addrs: to.host.Addrs()})
	}
	done := make(chan error)
	go func() { done <- dial(a, b) }()
	errB := dial(b, a)
	if errA := <-done; errA != nil && errB != nil {
		// From port to port, TCP itself may open simultaneously, which TLS cannot.
		connect(t, a.host, b.host)
	}
	eventually(t, "ready", func() bool { return a.Ready(b.host.ID()) && b.Ready(a.host.ID()) })
	if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
		t.Errorf("%d and %d peers", len(a.Peers()), len(b.Peers()))
	}
}

// TestHelloStreamLost: a peer whose hello stream breaks is greeted again.
func TestHelloStreamLost(t *testing.T) {
	a, b := newNode(t, newFakeChain()), newNode(t, newFakeChain())
	connect(t, a.host, b.host)
	eventually(t, "ready", func() bool { return a.Ready(b.host.ID()) && b.Ready(a.host.ID()) })
	old := a.remote(b.host.ID())
	for _, c := range a.host.Network().ConnsToPeer(b.host.ID()) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == HelloID(a.chain.params.ChainID()) {
				_ = s.Reset()
			}
		}
	}
	eventually(t, "greeted again", func() bool {
		r := a.remote(b.host.ID())
		return r != nil && r != old && b.Ready(a.host.ID())
	})
}

func TestProbe(t *testing.T) {
	c := newFakeChain()
	c.grow(t, 5, 1, 300)
	n := newNode(t, c)
	crawler := newNode(t, newFakeChain())
	crawler.stop()
	h, err := crawler.Probe(t.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	if h.Tip.Height != 5 || h.Agent != "test" || h.Tip.Work.Cmp(big.NewInt(12)) != 0 {
		t.Errorf("%+v", h)
	}
	awaitGone(t, n.host, crawler.host.ID())
	if strings.Contains(n.logs.String(), "peer connected") {
		t.Error("a probe counts as a peer")
	}
}

// TestTips: a new tip is told within the gap, and again and again without one.
func TestTips(t *testing.T) {
	c := newFakeChain()
	n := newNode(t, c, func(o *Options) { o.TipInterval, o.WriteTimeout = 100*time.Millisecond, patience })
	b := newNode(t, newFakeChain())
	b.stop()
	s := greetByHand(t, b, n)
	in := bufio.NewReader(s)
	tips := make(chan TipInfo)
	go func() {
		defer close(tips)
		for {
			m, err := readMessage(in, nil, maxHelloBytes)
			if err != nil {
				return
			}
			if d, err := decodeHelloMessage(m); err == nil && d.Tip != nil {
				tips <- *d.Tip
			}
		}
	}()
	for range 2 {
		if tip := receive(t, "tip", tips); tip.Height != 0 {
			t.Errorf("height %d", tip.Height)
		}
	}
	c.grow(t, 1, 1, 200)
	for tip := receive(t, "tip", tips); tip.Height != 1; tip = receive(t, "tip", tips) {
		if tip == (TipInfo{}) {
			t.Fatal("the stream has ended")
		}
	}
	// Three intervals without a word from us, and a write timeout: we are gone.
}

// TestTipWhileShakingHands: a tip that changes between our hello and the end of the
// handshake is told, and not only at the next interval.
func TestTipWhileShakingHands(t *testing.T) {
	t.Parallel()
	c := newFakeChain()
	n := newNode(t, c)
	b := newNode(t, newFakeChain())
	b.stop()
	connect(t, b.host, n.host)
	s := openByHand(t, b, n, HelloID(n.o.ChainID))
	hello := b.localHello(0)
	msg := appendDelimited(nil, (&helloMessage{Hello: &hello}).append(nil))
	if _, err := s.Write(msg[:1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "handshake begun", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.greeting[b.host.ID()] > 0
	})
	c.grow(t, 1, 1, 200) // most likely the answer is made already, with height 0
	if _, err := s.Write(msg[1:]); err != nil {
		t.Fatal(err)
	}
	if err := s.SetReadDeadline(time.Now().Add(25 * time.Second)); err != nil { // under the interval of 30 s
		t.Fatal(err)
	}
	in := bufio.NewReader(s)
	for {
		raw, err := readMessage(in, nil, maxHelloBytes)
		if err != nil {
			t.Fatalf("no word of the new tip: %v", err)
		}
		m, err := decodeHelloMessage(raw)
		if err != nil {
			t.Fatal(err)
		}
		if m.Hello != nil && m.Hello.Tip.Height == 1 || m.Tip != nil && m.Tip.Height == 1 {
			return
		}
	}
}

func TestGoodbyeForPeersWhoSayNothing(t *testing.T) {
	n := newNode(t, newFakeChain(), func(o *Options) {
		o.TipInterval, o.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	})
	b := newNode(t, newFakeChain())
	b.stop()
	greetByHand(t, b, n)
	eventually(t, "forgotten", func() bool { return !n.Ready(b.host.ID()) })
}

func TestAgentIsSanitised(t *testing.T) {
	n := newNode(t, newFakeChain())
	b := newNode(t, newFakeChain())
	b.stop()
	b.o.Agent = "\x1b[31mevil\n" + strings.Repeat("x", 200)
	greetByHand(t, b, n)
	if got := n.Peers()[0].Agent; got != "?[31mevil?"+strings.Repeat("x", 54) {
		t.Errorf("agent %q", got)
	}
}

// TestForeignIsBounded: who was told to be of another network is remembered up to a limit, also while the clock goes back; the
// one that was told of first is forgotten, and who is told of again takes nobody's place.
func TestForeignIsBounded(t *testing.T) {
	now := time.Unix(1_795_000_000, 0)
	x := &Exchange{foreign: make(map[peer.ID]time.Time), said: logLimit{limiter: rate.NewLimiter(rate.Inf, 1)}}
	x.o.Now, x.o.QuietNetwork = func() time.Time { return now }, time.Hour
	id := func(i int) peer.ID { return peer.ID(fmt.Sprintf("peer %d", i)) }
	tell := func(i int, want bool) {
		t.Helper()
		if _, ok := x.tellOf(id(i)); ok != want {
			t.Errorf("peer %d is told of: %v", i, ok)
		}
	}
	for i := range maxForeign {
		now = now.Add(time.Millisecond)
		tell(i, true)
		tell(i, false)
	}
	if len(x.foreign) != maxForeign {
		t.Fatalf("%d are remembered", len(x.foreign))
	}
	now = now.Add(time.Millisecond)
	tell(maxForeign, true)
	tell(1, false)
	tell(0, true) // forgotten
	now = now.Add(-10 * time.Minute)
	for i := range 3 * maxForeign {
		tell(2*maxForeign+i, true)
	}
	if len(x.foreign) != maxForeign {
		t.Errorf("%d are remembered when the clock went back, limit %d", len(x.foreign), maxForeign)
	}
	last := 5*maxForeign - 1
	now = now.Add(2 * time.Hour)
	tell(last, true)
	if len(x.foreign) != maxForeign {
		t.Errorf("one that is told of again took another's place: %d are remembered", len(x.foreign))
	}
}
