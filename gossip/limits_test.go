package gossip_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"google.golang.org/protobuf/proto"

	"dunlin/gossip"
)

// framed puts the length before an RPC.
func framed(t testing.TB, rpc *pb.RPC) []byte {
	t.Helper()
	raw, err := proto.Marshal(rpc)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)
}

func some[T any](n int, one func() T) []T {
	out := []T{}
	for range n {
		out = append(out, one())
	}
	return out
}

// frameCases are frames at each limit; one more of what they hold is over it.
var frameCases = []struct {
	name string
	most int
	rpc  func(n int) *pb.RPC
}{
	{"subscriptions", gossip.MaxFrameSubscriptions, func(n int) *pb.RPC {
		return &pb.RPC{Subscriptions: some(n, func() *pb.RPC_SubOpts { return new(pb.RPC_SubOpts) })}
	}},
	{"messages", gossip.MaxFrameMessages, func(n int) *pb.RPC {
		return &pb.RPC{Publish: some(n, func() *pb.Message { return new(pb.Message) })}
	}},
	{"IHAVE", gossip.MaxFrameControls, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{Ihave: some(n, func() *pb.ControlIHave { return new(pb.ControlIHave) })}}
	}},
	{"control of all kinds", gossip.MaxFrameControls, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{
			Iwant:     some(100, func() *pb.ControlIWant { return new(pb.ControlIWant) }),
			Graft:     some(200, func() *pb.ControlGraft { return new(pb.ControlGraft) }),
			Prune:     some(300, func() *pb.ControlPrune { return new(pb.ControlPrune) }),
			Idontwant: some(n-600, func() *pb.ControlIDontWant { return new(pb.ControlIDontWant) }),
		}}
	}},
	{"ids of IHAVE", gossip.MaxFrameIDs, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{Ihave: []*pb.ControlIHave{{MessageIDs: make([]string, n)}}}}
	}},
	{"ids of IWANT and IDONTWANT", gossip.MaxFrameIDs, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{
			Iwant: []*pb.ControlIWant{{MessageIDs: make([]string, 10_000)}}, Idontwant: []*pb.ControlIDontWant{{MessageIDs: make([]string, n-10_000)}},
		}}
	}},
	{"peers of PRUNE", gossip.MaxFramePeers, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{Prune: []*pb.ControlPrune{{Peers: some(n, func() *pb.PeerInfo { return new(pb.PeerInfo) })}}}}
	}},
	{"bytes of an id", 64, func(n int) *pb.RPC {
		return &pb.RPC{Control: &pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: []string{strings.Repeat("x", n)}}}}}
	}},
}

func TestScanFrames(t *testing.T) {
	ordinary := framed(t, &pb.RPC{
		Subscriptions: []*pb.RPC_SubOpts{{Topicid: new(blocks), Subscribe: new(true)}},
		Publish:       []*pb.Message{{Topic: new(blocks), Data: bytes.Repeat([]byte{0x12}, 5000)}, {}},
		Control: &pb.ControlMessage{
			Ihave: []*pb.ControlIHave{{TopicID: new(blocks), MessageIDs: []string{strings.Repeat("i", 32), ""}}},
			Iwant: []*pb.ControlIWant{{}, {MessageIDs: []string{strings.Repeat("w", 32)}}},
			Graft: []*pb.ControlGraft{{TopicID: new(blocks)}},
			Prune: []*pb.ControlPrune{{TopicID: new(blocks), Backoff: proto.Uint64(math.MaxUint64), Peers: []*pb.PeerInfo{{PeerID: []byte("p")}}}},
		},
	})
	for _, c := range frameCases {
		for _, chunk := range []int{1, 7, 4096} {
			// Twice: counts are of one frame.
			good := bytes.Join([][]byte{ordinary, framed(t, c.rpc(c.most)), {0}, framed(t, c.rpc(c.most)), ordinary}, nil)
			if err := gossip.ScanFrames(good, chunk); err != nil {
				t.Errorf("%s at the limit, %d bytes at a time: %v", c.name, chunk, err)
			}
			if err := gossip.ScanFrames(append(bytes.Clone(ordinary), framed(t, c.rpc(c.most+1))...), chunk); err == nil {
				t.Errorf("%s over the limit, %d bytes at a time: no error", c.name, chunk)
			}
		}
	}
	for name, raw := range map[string][]byte{
		"a field longer than its frame":     {2, 0x12, 9},
		"a message longer than its parent":  {4, 0x1a, 2, 0x0a, 9},
		"a tag that ends behind its parent": {4, 0x1a, 1, 0x80, 1},
		"a group":                           {1, 0x0b},
		"a wire type that is none":          {1, 0x0f},
		"a number of 70 bits":               {12, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"fixed64 behind the end":            {2, 0x09, 0},
	} {
		if err := gossip.ScanFrames(raw, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzScanFrames: what protobuf decodes is refused only for a limit or a group, and
// what passes decodes into less than 2 MB beside its own bytes.
func FuzzScanFrames(f *testing.F) {
	for _, c := range frameCases {
		for _, n := range []int{c.most, c.most + 1} {
			raw, err := proto.Marshal(c.rpc(n))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, n%100)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, chunk int) {
		if len(body) == 0 || len(body) > 1<<20 {
			return
		}
		err := gossip.ScanFrames(append(binary.AppendUvarint(nil, uint64(len(body))), body...), 1+max(0, chunk)%10_000)
		rpc := new(pb.RPC)
		if bad := proto.Unmarshal(body, rpc); bad != nil {
			return // pubsub resets the stream
		}
		c := rpc.GetControl()
		controls := len(c.GetIhave()) + len(c.GetIwant()) + len(c.GetGraft()) + len(c.GetPrune()) + len(c.GetIdontwant())
		ids, peers, longest := 0, 0, 0
		list := func(l []string) {
			ids += len(l)
			for _, id := range l {
				longest = max(longest, len(id))
			}
		}
		for _, m := range c.GetIhave() {
			list(m.GetMessageIDs())
		}
		for _, m := range c.GetIwant() {
			list(m.GetMessageIDs())
		}
		for _, m := range c.GetIdontwant() {
			list(m.GetMessageIDs())
		}
		for _, m := range c.GetPrune() {
			peers += len(m.GetPeers())
		}
		over := len(rpc.GetSubscriptions()) > gossip.MaxFrameSubscriptions || len(rpc.GetPublish()) > gossip.MaxFrameMessages ||
			controls > gossip.MaxFrameControls || ids > gossip.MaxFrameIDs || peers > gossip.MaxFramePeers || longest > 64
		if over && err == nil {
			t.Fatalf("%d subscriptions, %d messages, %d controls, %d ids, %d peers passed", len(rpc.GetSubscriptions()), len(rpc.GetPublish()), controls, ids, peers)
		}
		if err != nil && !over && !strings.Contains(err.Error(), "group") {
			t.Fatalf("an ordinary frame was refused: %v", err)
		}
	})
}

// TestBadFrames: a frame over the limits costs its peer the stream before it is
// decoded, and five its hearing.
func TestBadFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 1000)
		n := run(t, hosts[0], nil)
		st := newStranger(t, hosts[1], n)
		// 512 KiB of empty messages are 48 MB for protobuf.
		bomb := framed(t, &pb.RPC{Publish: some(250_000, func() *pb.Message { return new(pb.Message) })})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range 5 {
			_, _ = st.s.Write(bomb) // it may be reset on the way
			time.Sleep(time.Second)
			if st.alive() {
				t.Fatal("the stream is still read")
			}
			if got := n.Stats().BadFrames; got != uint64(i+1) {
				t.Fatalf("%d bad frames counted", got)
			}
			s, err := st.h.NewStream(t.Context(), hosts[0].ID(), pubsub.GossipSubID_v11)
			if err != nil {
				t.Fatal(err)
			}
			st.s = s
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 60<<20 {
			t.Errorf("five frames of 500 kB took %d MB", used>>20)
		}
		time.Sleep(6 * time.Second)
		if s, _ := n.Standing(st.h.ID()); s.Level != gossip.Graylisted || !strings.Contains(strings.Join(s.Reasons, ";"), "over 4096 messages") {
			t.Errorf("%+v", s)
		}
	})
}

// TestOneWay: a peer that lets us open no stream to it has no score in pubsub, and is
// not heard.
func TestOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], nil)
		connect(t, hosts[1], hosts[0])
		s, err := hosts[1].NewStream(t.Context(), hosts[0].ID(), pubsub.GossipSubID_v11)
		if err != nil {
			t.Fatal(err)
		}
		st := &stranger{h: hosts[1], s: s, n: n}
		st.invalid(t, 20)
		time.Sleep(time.Second)
		if got := n.Stats().OneWay; n.judged() != 0 || got != 20 {
			t.Errorf("%d messages judged, %d RPCs counted", n.judged(), got)
		}
	})
}

// TestWaste: who sends what is of no use is not read for a while; the rest is, and
// what was not read comes from others.
func TestWaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waste = 100
		hosts := simHosts(t, 3, 100)
		n := run(t, hosts[0], func(o *gossip.Options) { o.Topics[0].Waste = waste })
		loud, quiet := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		useless := func(name string, count int) {
			for i := range count {
				loud.publish(t, blocks, fmt.Appendf(nil, "I %s %d", name, i))
				time.Sleep(time.Millisecond)
			}
		}
		useless("first", waste-1)
		loud.publish(t, blocks, []byte("one of use"))
		useless("second", 50)
		loud.publish(t, blocks, []byte("unread"))
		loud.publish(t, txs, []byte("on the other topic"))
		time.Sleep(time.Second)
		s := topicStats(t, n.Gossip, blocks)
		if got := s.Ignored["starts with I"]; got < waste || got > waste+2 || s.Limited < 48 || s.Limited > 51 {
			t.Errorf("%+v", s)
		}
		if !n.has([]byte("one of use")) || n.has([]byte("unread")) || !n.has([]byte("on the other topic")) {
			t.Error("the wrong messages were read")
		}
		quiet.publish(t, blocks, []byte("unread"))
		time.Sleep(time.Second)
		if !n.has([]byte("unread")) {
			t.Error("what was dropped unread did not come from another")
		}
		// Copies cost nothing.
		for range 300 {
			quiet.publish(t, blocks, []byte("one of use"))
		}
		quiet.publish(t, blocks, []byte("after many copies"))
		time.Sleep(2 * time.Minute)
		if !n.has([]byte("after many copies")) {
			t.Error("copies used up the budget")
		}
		before := topicStats(t, n.Gossip, blocks).Limited
		useless("third", waste)
		time.Sleep(time.Second)
		if got := topicStats(t, n.Gossip, blocks); got.Limited != before {
			t.Errorf("the budget was not full after two minutes: %+v", got)
		}
		if s, _ := n.Standing(loud.h.ID()); s.Level != gossip.Good {
			t.Errorf("%+v", s)
		}
	})
}

// TestControlFlood: ids of control messages have a budget, and ids that are none
// are not looked up.
func TestControlFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 1000)
		n := run(t, hosts[0], nil)
		loud, quiet := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		topic := blocks
		ids := make([]string, 8000)
		for i := range ids {
			ids[i] = fmt.Sprintf("%032d", i)
		}
		for range 10 {
			loud.send(t, &pb.RPC{Control: &pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: ids}}}})
		}
		loud.send(t, &pb.RPC{Control: &pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: make([]string, 16_000)}}}}) // no ids
		time.Sleep(time.Second)
		if got := n.Stats().ControlDropped; got < 7*8000 || got > 8*8000 {
			t.Errorf("%d ids were dropped of 80,000", got)
		}
		quiet.send(t, &pb.RPC{Control: &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: ids[:1]}}}})
		time.Sleep(time.Second)
		asked := 0
		for _, rpc := range quiet.heard() {
			asked += len(rpc.GetControl().GetIwant())
		}
		if asked != 1 {
			t.Errorf("another was asked %d times, want once", asked)
		}
	})
}

// TestBackoff: a PRUNE keeps us away for ten minutes at most, whatever it says.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], nil)
		st := newStranger(t, hosts[1], n)
		topic := blocks
		st.join(t)
		time.Sleep(time.Second)
		st.send(t, &pb.RPC{Control: &pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &topic, Backoff: proto.Uint64(1 << 33)}}}})
		grafts := func() (n int) {
			for _, rpc := range st.heard() {
				n += len(rpc.GetControl().GetGraft())
			}
			return n
		}
		time.Sleep(9 * time.Minute)
		if got := grafts(); got != 0 {
			t.Errorf("%d GRAFTs within nine minutes", got)
		}
		time.Sleep(2 * time.Minute)
		if got := grafts(); got != 1 {
			t.Errorf("%d GRAFTs after eleven minutes, want one", got)
		}
	})
}

// TestReplay: what was seen is not looked at for two minutes, then once; a replayed
// message is the application's to recognise, and its budget bounds it.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], nil)
		st := newStranger(t, hosts[1], n)
		for range 5 {
			st.publish(t, blocks, []byte("again and again"))
			time.Sleep(20 * time.Second)
		}
		if n.judged() != 1 {
			t.Errorf("judged %d times within two minutes", n.judged())
		}
		time.Sleep(90 * time.Second) // the cache is swept once a minute
		st.publish(t, blocks, []byte("again and again"))
		time.Sleep(time.Second)
		if n.judged() != 2 {
			t.Errorf("judged %d times after three minutes", n.judged())
		}
	})
}
