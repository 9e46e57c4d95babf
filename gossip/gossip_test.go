package gossip_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"google.golang.org/protobuf/proto"

	"dunlin/gossip"
)

const blocks, txs = "/test/block/1", "/test/tx/1"

// inbox is a topic's Validate: it keeps what it accepts and judges by the first
// letter: R is rejected, I ignored, all else accepted.
type inbox struct {
	mu  sync.Mutex
	got [][]byte
	all int
}

func (in *inbox) validate(_ context.Context, _ peer.ID, data []byte) gossip.Verdict {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all++
	switch {
	case bytes.HasPrefix(data, []byte("R")):
		return gossip.Verdict{Result: gossip.Reject, Reason: "starts with R"}
	case bytes.HasPrefix(data, []byte("I")):
		return gossip.Verdict{Reason: "starts with I"}
	}
	in.got = append(in.got, data)
	return gossip.Verdict{Result: gossip.Accept}
}

func (in *inbox) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.got)
}

func (in *inbox) judged() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.all
}

func (in *inbox) has(data []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range in.got {
		if bytes.Equal(d, data) {
			return true
		}
	}
	return false
}

// node is a running Gossip with an inbox for topic blocks.
type node struct {
	*gossip.Gossip
	inbox
	h host.Host
}

// run starts gossip on h and stops it at the end of the test.
func run(t testing.TB, h host.Host, edit func(*gossip.Options)) *node {
	t.Helper()
	n := &node{h: h}
	o := gossip.Options{Host: h, Private: true, Topics: []gossip.Topic{
		{Name: blocks, MaxBytes: 1 << 20, Validate: n.validate},
		{Name: txs, MaxBytes: 100_000, Validate: n.validate},
	}}
	if edit != nil {
		edit(&o)
	}
	g, err := gossip.New(o)
	if err != nil {
		t.Fatal(err)
	}
	n.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-g.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return n
}

// simHosts makes hosts of a simulated network: 50 ms round trip, mbit each way.
// Call it in a synctest bubble.
func simHosts(t testing.TB, n, mbit int) []host.Host {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: mbit * simlibp2p.OneMbps}
	nw, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
		LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: n,
	}}, simnet.StaticLatency(25*time.Millisecond), simlibp2p.NetworkSettings{UseBlankHost: true})
	if err != nil {
		t.Fatal(err)
	}
	nw.Start()
	t.Cleanup(func() {
		for _, h := range meta.Nodes {
			h.Close()
		}
		nw.Close()
	})
	// A blank host's identify misses the protocols that are set before it runs.
	synctest.Wait()
	return meta.Nodes
}

func connect(t testing.TB, a, b host.Host) {
	t.Helper()
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

func topicStats(t testing.TB, g *gossip.Gossip, name string) gossip.TopicStats {
	t.Helper()
	for _, s := range g.Stats().Topics {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no topic %s", name)
	return gossip.TopicStats{}
}

func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		rng := rand.New(rand.NewPCG(1, 2))
		hosts := simHosts(t, n, 20)
		nodes := make([]*node, n)
		for i, h := range hosts {
			nodes[i] = run(t, h, nil)
		}
		for i := range hosts { // a ring, and three chords each
			connect(t, hosts[i], hosts[(i+1)%n])
			for range 3 {
				if j := rng.IntN(n); j != i {
					connect(t, hosts[i], hosts[j])
				}
			}
		}
		time.Sleep(5 * time.Second) // meshes form
		message := make([]byte, 60_000)
		for i := range message {
			message[i] = byte(rng.Uint32())
		}
		message[0] = 'x'
		const publisher = 7
		start := time.Now()
		if err := nodes[publisher].Publish(t.Context(), blocks, message); err != nil {
			t.Fatal(err)
		}
		for i, nd := range nodes {
			for i != publisher && !nd.has(message) {
				if time.Since(start) > 5*time.Second {
					t.Fatalf("node %d has it not after 5 s", i)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		t.Logf("60 kB to %d nodes in %v (virtual)", n, time.Since(start))
		time.Sleep(5 * time.Second)
		for i, nd := range nodes {
			s := topicStats(t, nd.Gossip, blocks)
			if i != publisher && (nd.count() != 1 || s.Received != 1 || s.Accepted != 1) {
				t.Errorf("node %d: validated %d times: %+v", i, nd.count(), s)
			}
			if s.Mesh < 3 || s.Mesh > s.Peers || s.Dropped != 0 || s.Throttled != 0 {
				t.Errorf("node %d: %+v", i, s)
			}
		}
		if s := topicStats(t, nodes[publisher].Gossip, blocks); s.Published != 1 || s.BytesOut < 60_000 {
			t.Errorf("publisher: %+v", s)
		}
		// Again within SeenTTL, by the publisher and by one who passed it on: not sent.
		for _, i := range []int{publisher, 0} {
			if err := nodes[i].Publish(t.Context(), blocks, message); !errors.Is(err, gossip.ErrSeen) {
				t.Errorf("published again by node %d: %v", i, err)
			}
		}
		time.Sleep(time.Second)
		if nodes[0].judged() != 1 {
			t.Error("a message was validated twice")
		}
	})
}

func TestPublishErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 20)
		idle, err := gossip.New(gossip.Options{Host: hosts[0], Topics: []gossip.Topic{{Name: blocks, MaxBytes: 10, Validate: new(inbox).validate}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := idle.Publish(t.Context(), blocks, nil); !errors.Is(err, gossip.ErrNotRunning) {
			t.Errorf("before Run: %v", err)
		}
		if idle.Peers(blocks) != nil || len(idle.Stats().Topics) != 1 || idle.Scores() != nil {
			t.Error("an idle Gossip has peers")
		}

		joined := make(chan peer.ID, 8)
		a := run(t, hosts[0], func(o *gossip.Options) {
			o.OnTopicPeer = func(topic string, p peer.ID) {
				if topic == blocks {
					joined <- p
				}
			}
		})
		if err := a.Publish(t.Context(), "/else", nil); !errors.Is(err, gossip.ErrUnknownTopic) {
			t.Errorf("unknown topic: %v", err)
		}
		if err := a.Publish(t.Context(), blocks, make([]byte, 1<<20+1)); !errors.Is(err, gossip.ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		early := []byte("mined before anyone came")
		if err := a.Publish(t.Context(), blocks, early); !errors.Is(err, gossip.ErrNobody) {
			t.Errorf("nobody there: %v", err)
		}
		b := run(t, hosts[1], nil)
		connect(t, hosts[0], hosts[1])
		if p := <-joined; p != hosts[1].ID() {
			t.Errorf("%s joined", p)
		}
		// At once, before there is a mesh: it waits for one.
		if err := a.Publish(t.Context(), blocks, early); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if !b.has(early) {
			t.Error("what was published when the first peer came did not arrive")
		}
		if err := a.Run(t.Context()); err == nil {
			t.Error("a second Run was accepted")
		}
	})
}

// stranger speaks the wire protocol by hand.
type stranger struct {
	h host.Host
	s network.Stream
	n *node

	mu sync.Mutex
	in []*pb.RPC // what it was sent
}

// heard returns what it was sent since the last call.
func (st *stranger) heard() []*pb.RPC {
	st.mu.Lock()
	defer st.mu.Unlock()
	in := st.in
	st.in = nil
	return in
}

// listen keeps what arrives; it tells of the first frame.
func (st *stranger) listen(s network.Stream, first func()) {
	r := bufio.NewReader(s)
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > 64<<20 {
			return
		}
		raw := make([]byte, n)
		if _, err := io.ReadFull(r, raw); err != nil {
			return
		}
		rpc := new(pb.RPC)
		if err := proto.Unmarshal(raw, rpc); err != nil {
			panic(err)
		}
		st.mu.Lock()
		st.in = append(st.in, rpc)
		st.mu.Unlock()
		first()
	}
}

func newStranger(t testing.TB, h host.Host, to *node) *stranger {
	t.Helper()
	told := make(chan struct{})
	once := sync.OnceFunc(func() { close(told) })
	st := &stranger{h: h, n: to}
	for _, id := range gossip.Protocols() {
		h.SetStreamHandler(id, func(s network.Stream) { st.listen(s, once) })
	}
	connect(t, h, to.h)
	<-told // like everybody, it speaks when it has heard of the topics
	s, err := h.NewStream(t.Context(), to.h.ID(), pubsub.GossipSubID_v11)
	if err != nil {
		t.Fatal(err)
	}
	st.s = s
	return st
}

func (st *stranger) send(t testing.TB, rpc *pb.RPC) {
	t.Helper()
	raw, err := proto.Marshal(rpc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.s.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)); err != nil {
		t.Fatal(err)
	}
}

func (st *stranger) publish(t testing.TB, topic string, data []byte) {
	t.Helper()
	st.send(t, &pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: data}}})
}

// alive reports whether the other side still reads the stream.
func (st *stranger) alive() bool {
	if err := st.s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	_, err := st.s.Read(make([]byte, 1))
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestRejectCostsAndIgnoreDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		n := run(t, hosts[0], nil)
		bad, careless := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		time.Sleep(time.Second)
		for i := range 8 {
			bad.publish(t, blocks, []byte("R"+strconv.Itoa(i)))
			careless.publish(t, blocks, []byte("I"+strconv.Itoa(i)))
		}
		time.Sleep(10 * time.Second)
		if s, _ := n.Standing(bad.h.ID()); s.Level != gossip.NoPublish || len(s.Reasons) != 1 || s.Invalid < 7.9 {
			t.Errorf("eight rejected messages: %+v", s)
		}
		if s, _ := n.Standing(careless.h.ID()); s.Level != gossip.Good || s.Reasons != nil {
			t.Errorf("eight ignored messages: %+v", s)
		}
		st := topicStats(t, n.Gossip, blocks)
		if st.Rejected["starts with R"] != 8 || st.Ignored["starts with I"] != 8 || st.Accepted != 0 || st.Received != 16 {
			t.Errorf("%+v", st)
		}
		// The same again is not even looked at, but costs.
		bad.publish(t, blocks, []byte("R0"))
		time.Sleep(6 * time.Second)
		if st := topicStats(t, n.Gossip, blocks); st.Duplicates != 1 || st.Received != 16 {
			t.Errorf("%+v", st)
		}
		// Ten are the graylist: nothing more is read.
		for i := range 2 {
			bad.publish(t, blocks, []byte("R+"+strconv.Itoa(i)))
		}
		time.Sleep(10 * time.Second)
		if s, _ := n.Standing(bad.h.ID()); s.Level != gossip.Graylisted {
			t.Errorf("eleven invalid messages: %+v", s)
		}
		bad.publish(t, blocks, []byte("good, but too late"))
		careless.publish(t, blocks, []byte("good"))
		time.Sleep(time.Second)
		if !n.has([]byte("good")) || n.count() != 1 {
			t.Errorf("accepted %d messages", n.count())
		}
	})
}

func TestRejectedIsNotPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		first, second := run(t, hosts[0], nil), run(t, hosts[1], nil)
		connect(t, hosts[0], hosts[1])
		st := newStranger(t, hosts[2], first)
		time.Sleep(3 * time.Second)
		for _, m := range []string{"R", "I", "fine"} {
			st.publish(t, blocks, []byte(m))
		}
		time.Sleep(3 * time.Second)
		if second.judged() != 1 || !second.has([]byte("fine")) {
			t.Errorf("passed on: %d messages", second.judged())
		}
	})
}

func TestForeignMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], nil)
		st := newStranger(t, hosts[1], n)
		topic := blocks
		for _, m := range []*pb.Message{
			{Topic: &topic, Data: []byte("author"), From: []byte(st.h.ID())},
			{Topic: &topic, Data: []byte("number"), Seqno: []byte{1}},
			{Topic: &topic, Data: []byte("key"), Key: []byte{1}},
			{Topic: &topic, Data: []byte("signed"), Signature: []byte{1}},
		} {
			st.send(t, &pb.RPC{Publish: []*pb.Message{m}})
		}
		st.publish(t, "/unknown/topic", []byte("hello"))
		st.publish(t, blocks, nil) // empty payloads are for Validate to judge
		time.Sleep(time.Second)
		s := topicStats(t, n.Gossip, blocks)
		if n.judged() != 1 || s.Rejected["unexpected auth info"] != 3 || s.Rejected["unexpected signature"] != 1 {
			t.Errorf("%d reached Validate; %+v", n.judged(), s)
		}
		if got := n.Stats().UnknownTopic; got != 1 {
			t.Errorf("%d messages on unknown topics, want 1", got)
		}
	})
}

func TestSubscriptionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		n := run(t, hosts[0], nil)
		subscribe := func(topics ...string) *pb.RPC {
			rpc := new(pb.RPC)
			for _, name := range topics {
				rpc.Subscriptions = append(rpc.Subscriptions, &pb.RPC_SubOpts{Topicid: &name, Subscribe: new(true)})
			}
			return rpc
		}
		many := []string{blocks}
		for i := range 1000 {
			many = append(many, "/junk/"+strconv.Itoa(i))
		}

		greedy, modest := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		time.Sleep(time.Second)
		greedy.send(t, subscribe(many...))
		modest.send(t, subscribe(blocks, "/junk/1"))
		time.Sleep(time.Second)
		if got := n.Peers(blocks); len(got) != 1 || got[0] != modest.h.ID() {
			t.Errorf("peers on the topic: %v, want only %v", got, modest.h.ID())
		}
		if n.Peers("/junk/1") != nil {
			t.Error("a foreign topic is known")
		}
	})
}

func TestFrames(t *testing.T) {
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		frame := func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
		for name, c := range map[string]struct {
			send  func(st *stranger)
			alive bool
		}{
			"garbage":          {func(st *stranger) { st.write(t, append(frame(8), "\xff\xff\xff\xff\xff\xff\xff\xff"...)) }, false},
			"a frame too long": {func(st *stranger) { st.write(t, frame(limit+64<<10+1)) }, false},
			"a huge frame":     {func(st *stranger) { st.write(t, frame(1<<62)) }, false},
			"a message too long": {func(st *stranger) {
				st.publish(t, blocks, bytes.Repeat([]byte{'x'}, limit+1))
			}, true},
			"too long for its topic only": {func(st *stranger) {
				st.publish(t, txs, bytes.Repeat([]byte{'x'}, 100_001))
			}, true},
			"control too long": {func(st *stranger) {
				ids := make([]string, 20_000)
				for i := range ids {
					ids[i] = strings.Repeat("x", 32)
				}
				st.send(t, &pb.RPC{Control: &pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: ids}}}})
			}, false},
		} {
			t.Log(name)
			hosts := simHosts(t, 2, 1000)
			n := run(t, hosts[0], nil)
			st := newStranger(t, hosts[1], n)
			c.send(st)
			time.Sleep(2 * time.Second)
			if got := st.alive(); got != c.alive {
				t.Errorf("%s: stream alive %v, want %v", name, got, c.alive)
			}
			if n.judged() != 0 {
				t.Errorf("%s: reached Validate", name)
			}
			var tooLarge uint64
			for _, s := range n.Stats().Topics {
				tooLarge += s.Rejected["too large"]
			}
			if c.alive && tooLarge != 1 {
				t.Errorf("%s: %d counted as too large", name, tooLarge)
			}
		}
	})
}

func (st *stranger) write(t testing.TB, raw []byte) {
	t.Helper()
	if _, err := st.s.Write(raw); err != nil {
		t.Fatal(err)
	}
}

// realHosts listen on loopback.
func realHosts(t testing.TB, n int) []host.Host {
	t.Helper()
	hosts := make([]host.Host, n)
	for i := range hosts {
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics(), libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts[i] = h
	}
	return hosts
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 2 min: %s", what)
		}
	}
}

// TestLargestMessage uses real hosts: TCP, TLS, yamux.
func TestLargestMessage(t *testing.T) {
	const limit = 4 << 20
	hosts := realHosts(t, 3)
	nodes := make([]*node, 3)
	for i, h := range hosts {
		nodes[i] = run(t, h, func(o *gossip.Options) { o.Topics[0].MaxBytes = limit })
	}
	connect(t, hosts[0], hosts[1])
	connect(t, hosts[1], hosts[2]) // the last hears of it from the middle only
	for i, n := range nodes {      // in the middle both: who becomes a neighbour after a message has passed is not told of it
		eventually(t, "mesh of node "+strconv.Itoa(i), func() bool { return topicStats(t, n.Gossip, blocks).Mesh == []int{1, 2, 1}[i] })
	}
	for _, size := range []int{0, 1, limit - 1, limit} {
		message := bytes.Repeat([]byte{'x'}, size)
		if err := nodes[0].Publish(t.Context(), blocks, message); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%d bytes at the end of the line", size), func() bool { return nodes[2].has(message) })
	}
	if err := nodes[0].Publish(t.Context(), blocks, make([]byte, limit+1)); !errors.Is(err, gossip.ErrTooLarge) {
		t.Errorf("above the limit: %v", err)
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		var now, most atomic.Int32
		release := make(chan struct{})
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.Topics[0].Concurrency, o.Topics[0].Queue = 2, 3
			o.Topics[0].Validate = func(context.Context, peer.ID, []byte) gossip.Verdict {
				most.Store(max(most.Load(), now.Add(1)))
				<-release
				now.Add(-1)
				return gossip.Verdict{Result: gossip.Accept}
			}
		})
		st := newStranger(t, hosts[1], n)
		for i := range 20 {
			st.publish(t, blocks, []byte(strconv.Itoa(i)))
		}
		time.Sleep(time.Second)
		if s := topicStats(t, n.Gossip, blocks); s.Received != 5 || s.Throttled != 15 {
			t.Errorf("while two are busy: %+v", s)
		}
		close(release)
		time.Sleep(time.Second)
		if s := topicStats(t, n.Gossip, blocks); s.Accepted != 5 || most.Load() != 2 {
			t.Errorf("%d at once, want 2: %+v", most.Load(), s)
		}
		if s := n.Scores()[st.h.ID()]; s < 0 {
			t.Errorf("throttling cost the peer its score: %v", s)
		}
	})
}

func TestAppScoreAndColocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.AppScore = func(p peer.ID) float64 {
				if p == hosts[1].ID() {
					return -20_000
				}
				return 0
			}
		})
		st := newStranger(t, hosts[1], n)
		time.Sleep(10 * time.Second)
		if s := n.Scores()[st.h.ID()]; s != 10-20_000 {
			t.Errorf("score %v", s)
		}
		st.publish(t, blocks, []byte("hello"))
		time.Sleep(time.Second)
		if n.judged() != 0 {
			t.Error("a peer below the graylist was read")
		}
	})
	// Twenty peers on one address are welcome on a private network.
	hosts := realHosts(t, 1)
	n := run(t, hosts[0], func(o *gossip.Options) { o.Private = false }) // loopback is exempt on public ones too
	for _, h := range realHosts(t, 12) {
		newStranger(t, h, n)
	}
	eventually(t, "scores", func() bool { return len(n.Scores()) == 12 })
	for p, s := range n.Scores() {
		if s < 0 {
			t.Errorf("%s: score %v for sharing an address", p, s)
		}
	}
}

func TestNothingIsCalledAfterRun(t *testing.T) {
	before := runtime.NumGoroutine()
	hosts := realHosts(t, 2)
	var ended atomic.Bool
	var late atomic.Int32
	judge := func(context.Context, peer.ID, []byte) gossip.Verdict {
		if ended.Load() {
			late.Add(1)
		}
		return gossip.Verdict{Result: gossip.Accept}
	}
	g, err := gossip.New(gossip.Options{
		Host: hosts[0], Topics: []gossip.Topic{{Name: blocks, MaxBytes: 100, Validate: judge}},
		OnTopicPeer: func(string, peer.ID) {
			if ended.Load() {
				late.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.Ready()
	st := newStranger(t, hosts[1], &node{h: hosts[0]})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := 0; ; i++ {
			topic := blocks
			raw, err := proto.Marshal(&pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: strconv.AppendInt(nil, int64(i), 10)}}})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := st.s.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)); err != nil {
				return // reset
			}
		}
	}()
	eventually(t, "traffic", func() bool { return topicStats(t, g, blocks).Received > 100 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ended.Store(true)
	if err := g.Publish(t.Context(), blocks, []byte("x")); !errors.Is(err, gossip.ErrNotRunning) {
		t.Errorf("publish after Run: %v", err)
	}
	for _, h := range hosts {
		h.Close()
	}
	<-sent
	eventually(t, "goroutines end", func() bool { runtime.GC(); return runtime.NumGoroutine() <= before })
	if late.Load() != 0 {
		t.Errorf("%d calls after Run had returned", late.Load())
	}
}

func TestReasonsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.Topics[0].Validate = func(_ context.Context, _ peer.ID, data []byte) gossip.Verdict {
				return gossip.Verdict{Reason: string(data) + strings.Repeat("x", 1000)}
			}
		})
		st := newStranger(t, hosts[1], n)
		for i := range 500 {
			st.publish(t, blocks, []byte(strconv.Itoa(i)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		s := topicStats(t, n.Gossip, blocks)
		var sum uint64
		for reason, count := range s.Ignored {
			sum += count
			if len(reason) > 64 {
				t.Errorf("reason of %d bytes", len(reason))
			}
		}
		if len(s.Ignored) > 64 || sum != 500-s.Throttled {
			t.Errorf("%d reasons with %d messages, %d throttled", len(s.Ignored), sum, s.Throttled)
		}
	})
}

func TestOptions(t *testing.T) {
	_, err := gossip.New(gossip.Options{
		Topics: []gossip.Topic{
			{Name: "a", MaxBytes: 1, Validate: new(inbox).validate},
			{Name: "a", MaxBytes: 65 << 20, Concurrency: -1, Queue: 9000, PeerRate: gossip.Rate{Messages: -1}, Waste: -1, Worth: 3},
			{MaxBytes: -1},
		},
		SeenTTL: time.Millisecond, Degree: 3,
	})
	for _, want := range []string{
		"no host", `topic "a": want a name`, "max bytes 68157440", "concurrency -1", "queue 9000", "rate -1 messages", "waste -1", "worth 3",
		`topic "a": no Validate`, `topic "": want a name`, "max bytes -1", "seen TTL 1ms", "degree 3",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := gossip.New(gossip.Options{}); err == nil || !strings.Contains(err.Error(), "0 topics") {
		t.Errorf("%v", err)
	}
	for degree := 4; degree <= 12; degree++ {
		h := realHosts(t, 1)[0]
		n := run(t, h, func(o *gossip.Options) { o.Degree = degree })
		if s := n.Stats(); len(s.Topics) != 2 {
			t.Errorf("degree %d: %+v", degree, s)
		}
	}
}

func FuzzFrame(f *testing.F) {
	topic := blocks
	good, err := proto.Marshal(&pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: []byte("x")}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.AppendUvarint(nil, uint64(len(good))), good...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{2, 0x12, 0})
	hosts := realHosts(f, 2)
	n := run(f, hosts[0], nil)
	st := newStranger(f, hosts[1], n)
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := st.h.NewStream(t.Context(), hosts[0].ID(), pubsub.GossipSubID_v11)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(raw); err != nil {
			return // reset already
		}
		s.Close()
	})
}
