package gossip_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"dunlin/gossip"
)

// join subscribes to the block topic and asks to be a neighbour.
func (st *stranger) join(t testing.TB) {
	t.Helper()
	topic := blocks
	st.send(t, &pb.RPC{
		Subscriptions: []*pb.RPC_SubOpts{{Topicid: &topic, Subscribe: new(true)}},
		Control:       &pb.ControlMessage{Graft: []*pb.ControlGraft{{TopicID: &topic}}},
	})
}

// invalid sends n messages that are rejected.
func (st *stranger) invalid(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		st.publish(t, blocks, fmt.Appendf(nil, "R%s %d %v", st.h.ID(), i, time.Now()))
	}
}

// saw counts what was heard: messages, IHAVE, PRUNE.
func (st *stranger) saw() (messages, ihaves, prunes int) {
	for _, rpc := range st.heard() {
		messages += len(rpc.GetPublish())
		ihaves += len(rpc.GetControl().GetIhave())
		prunes += len(rpc.GetControl().GetPrune())
	}
	return messages, ihaves, prunes
}

// TestThresholds counts the invalid messages that each level takes, and what the
// peer then gets.
func TestThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := []gossip.Level{
			gossip.Good, gossip.Good, gossip.Pruned, gossip.Pruned, gossip.Pruned, gossip.NoGossip, gossip.NoGossip,
			gossip.NoPublish, gossip.NoPublish, gossip.NoPublish, gossip.Graylisted, gossip.Graylisted,
		}
		for n, level := range want {
			hosts := simHosts(t, 2, 100)
			nd := run(t, hosts[0], nil)
			st := newStranger(t, hosts[1], nd)
			st.join(t)
			time.Sleep(2 * time.Second)
			if s := topicStats(t, nd.Gossip, blocks); s.Mesh != 1 {
				t.Fatalf("a peer that grafts is no neighbour: %+v", s)
			}
			st.invalid(t, n)
			time.Sleep(8 * time.Second)
			if s, ok := nd.Standing(st.h.ID()); !ok || s.Level != level || (n == 0) != (len(s.Reasons) == 0) {
				t.Errorf("%d invalid messages: %+v, want %s", n, s, level)
			}
			if s := topicStats(t, nd.Gossip, blocks); (s.Mesh == 1) != (level == gossip.Good) {
				t.Errorf("%d invalid messages: %d neighbours", n, s.Mesh)
			}
			st.heard()
			if err := nd.Publish(t.Context(), blocks, []byte("a message of our own")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			messages, ihaves, _ := st.saw()
			if (messages > 0) != (level == gossip.Good) || (ihaves > 0) != (level == gossip.Pruned) {
				t.Errorf("%d invalid messages: sent %d messages and %d IHAVE", n, messages, ihaves)
			}
			st.publish(t, blocks, []byte("something good"))
			time.Sleep(time.Second)
			if read := nd.has([]byte("something good")); read == (level == gossip.Graylisted) {
				t.Errorf("%d invalid messages: read %v", n, read)
			}
		}
	})
}

// TestForgotten: a peer that stays is forgiven with time, one that leaves is
// remembered for half an hour.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 4, 100)
		n := run(t, hosts[0], nil)
		once, ten, gone := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n), newStranger(t, hosts[3], n)
		once.invalid(t, 1)
		ten.invalid(t, 10)
		gone.invalid(t, 4)
		levelOf := func(st *stranger) gossip.Level {
			s, ok := n.Standing(st.h.ID())
			if !ok {
				return "unknown"
			}
			return s.Level
		}
		time.Sleep(10 * time.Second)
		if a, b, c := levelOf(once), levelOf(ten), levelOf(gone); a != gossip.Good || b != gossip.Graylisted || c != gossip.Pruned {
			t.Fatalf("%s, %s, %s", a, b, c)
		}
		leave := func() {
			if err := gone.h.Network().ClosePeer(hosts[0].ID()); err != nil {
				t.Fatal(err)
			}
		}
		leave()
		time.Sleep(20 * time.Minute)
		gone = newStranger(t, hosts[3], n)
		time.Sleep(10 * time.Second)
		if l := levelOf(gone); l != gossip.Pruned {
			t.Errorf("back after 20 min: %s", l)
		}
		if l := levelOf(ten); l != gossip.NoPublish {
			t.Errorf("ten invalid messages, 20 min later: %s", l)
		}
		leave()
		time.Sleep(31 * time.Minute)
		gone = newStranger(t, hosts[3], n)
		time.Sleep(10 * time.Second)
		if l := levelOf(gone); l != gossip.Good {
			t.Errorf("back after 31 min: %s", l)
		}
		time.Sleep(3*time.Hour + 15*time.Minute)
		if s, _ := n.Standing(once.h.ID()); s.Invalid != 0 {
			t.Errorf("one invalid message, 4 h later: %+v", s)
		}
		time.Sleep(2 * time.Hour)
		if s, _ := n.Standing(ten.h.ID()); s.Invalid != 0 || s.Level != gossip.Good {
			t.Errorf("ten invalid messages, 6 h later: %+v", s)
		}
	})
}

// neighboursAt are n strangers behind one address.
func neighboursAt(t *testing.T, nw *simnet.Simnet, ip string, n int) []host.Host {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	hosts := make([]host.Host, n)
	for i := range hosts {
		h, err := libp2p.New(
			libp2p.Transport(libp2pquic.NewTransport),
			libp2p.ListenAddrStrings(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, 9000+i)),
			simlibp2p.QUICSimnet(nw, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
			libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics(),
			libp2p.ResourceManager(&network.NullResourceManager{}), // its limits are not the subject
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		hosts[i] = h
	}
	return hosts
}

// TestSharedAddress: who shares an address is never hurt on a private network nor
// at a private address; on a public one thirteen are too many.
func TestSharedAddress(t *testing.T) {
	for _, c := range []struct {
		name, ip string
		private  bool
		peers    int
		want     gossip.Level
	}{
		{"private network, one public address", "30.1.2.3", true, 40, gossip.Good},
		{"public network, one private address", "192.168.7.7", false, 40, gossip.Good},
		{"public network, ten at an address", "30.1.2.3", false, 10, gossip.Good},
		{"public network, twelve", "30.1.2.3", false, 12, gossip.Good},
		{"public network, thirteen", "30.1.2.3", false, 13, gossip.Pruned},
		{"public network, eighteen", "30.1.2.3", false, 18, gossip.NoGossip},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
				nw.Start()
				t.Cleanup(nw.Close)
				n := run(t, neighboursAt(t, nw, "20.1.1.1", 1)[0], func(o *gossip.Options) { o.Private = c.private })
				hosts := neighboursAt(t, nw, c.ip, c.peers)
				for _, h := range hosts {
					newStranger(t, h, n)
				}
				time.Sleep(10 * time.Second)
				for _, h := range hosts {
					if s, ok := n.Standing(h.ID()); !ok || s.Level != c.want {
						t.Fatalf("%+v, want %s", s, c.want)
					}
				}
			})
		})
	}
}

// TestBlame: what a peer does elsewhere lowers its score, is told, and forgiven.
func TestBlame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		var mu sync.Mutex
		var told []gossip.Standing
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.OnGraylisted = func(_ peer.ID, s gossip.Standing) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, s)
			}
		})
		st := newStranger(t, hosts[1], n)
		id := st.h.ID()
		for _, none := range []float64{0, -5, math.NaN()} {
			if got := n.Blame(id, none, "nothing"); got != 0 {
				t.Errorf("%v points: %v", none, got)
			}
		}
		if got := n.Blame(id, 150, "sent a mutated block"); got != 150 {
			t.Errorf("%v points", got)
		}
		time.Sleep(6 * time.Second)
		if s, _ := n.Standing(id); s.Level != gossip.NoGossip || len(s.Reasons) != 1 || !strings.Contains(s.Reasons[0], "mutated block") {
			t.Errorf("%+v", s)
		}
		// It counts on when the peer comes back.
		_ = st.h.Network().ClosePeer(hosts[0].ID())
		time.Sleep(time.Second)
		st = newStranger(t, hosts[1], n)
		if got := n.Blame(id, gossip.GraylistPoints, strings.Repeat("x", 1000)); got < gossip.GraylistPoints+149 {
			t.Errorf("%v points", got)
		}
		st.publish(t, blocks, []byte("hello"))
		time.Sleep(50 * time.Second)
		mu.Lock()
		if len(told) != 0 || n.judged() != 0 {
			t.Errorf("told %v before a minute; %d messages read", told, n.judged())
		}
		mu.Unlock()
		time.Sleep(80 * time.Second) // two minutes in all
		mu.Lock()
		if len(told) != 2 || told[0].Level != gossip.Graylisted || len(told[0].Reasons[0]) > 250 {
			t.Errorf("told %+v", told)
		}
		mu.Unlock()
		if got := n.Stats(); got.Blamed != 1 || got.Peers[gossip.Graylisted] != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(30 * time.Minute) // half is left: 305
		if s, _ := n.Standing(id); s.Level != gossip.NoPublish {
			t.Errorf("half an hour later: %+v", s)
		}
		for range 100 {
			n.Blame(id, 5000, "again")
		}
		time.Sleep(8 * time.Hour) // 10,000 are forgiven after 13.3 half-lives
		if s, _ := n.Standing(id); s.Level != gossip.Good || s.Reasons != nil {
			t.Errorf("8 h later: %+v", s)
		}
	})
	for _, peers := range []int{10, 3 * gossip.MaxBlamed} {
		if blamed, open := gossip.Ledgers(peers); blamed > gossip.MaxBlamed || blamed < min(peers, gossip.MaxBlamed*9/10) || open > gossip.MaxAccounts {
			t.Errorf("%d peers: %d blamed, %d accounts", peers, blamed, open)
		}
	}
}

// TestPromises: a peer that tells of messages it does not have is not asked any
// more, and then not heard.
func TestPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		n := run(t, hosts[0], nil)
		liar, modest := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		topic := blocks
		promise := func(st *stranger, i int) {
			st.send(t, &pb.RPC{Control: &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: []string{fmt.Sprintf("%032d", i)}}}}})
		}
		for i := range 3 { // lost in traffic
			promise(modest, i)
		}
		start := time.Now()
		var quiet time.Duration
		for i := 1000; time.Since(start) < 30*time.Second; i++ {
			promise(liar, i)
			time.Sleep(200 * time.Millisecond)
			asked := 0
			for _, rpc := range liar.heard() {
				asked += len(rpc.GetControl().GetIwant())
			}
			if asked > 0 {
				quiet = time.Since(start)
			}
		}
		t.Logf("five lies a second: asked for the last time after %v", quiet)
		if quiet > 10*time.Second {
			t.Errorf("a liar was believed for %v", quiet)
		}
		if s, _ := n.Standing(liar.h.ID()); s.Level == gossip.Good || s.Level == gossip.Pruned || s.Behaviour < 9 {
			t.Errorf("liar: %+v", s)
		}
		if s, _ := n.Standing(modest.h.ID()); s.Level != gossip.Good || s.Reasons != nil {
			t.Errorf("three promises broken: %+v", s)
		}
	})
}

// TestPromisesUnread: a peer whose budget is used up, as that of all are while a node ignores everything in
// its first sync, is not asked for what would then be dropped unread: it would seem to break its promises.
func TestPromisesUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.Topics[0].Waste, o.Topics[0].Queue = 100, 1000
			o.Topics[0].Validate = func(context.Context, peer.ID, []byte) gossip.Verdict {
				return gossip.Verdict{Result: gossip.Ignore, Reason: "syncing"}
			}
		})
		honest := newStranger(t, hosts[1], n)
		topic, have, asked := blocks, map[string][]byte{}, 0
		for i := range 40 {
			ids := []string{}
			for k := range 200 {
				data := fmt.Appendf(nil, "%d %d", i, k)
				id := sha256.Sum256(data)
				have[string(id[:])] = data
				ids = append(ids, string(id[:]))
			}
			honest.send(t, &pb.RPC{Control: &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: ids}}}})
			time.Sleep(time.Second)
			answer := &pb.RPC{}
			for _, rpc := range honest.heard() {
				for _, w := range rpc.GetControl().GetIwant() {
					for _, id := range w.GetMessageIDs() {
						asked++
						answer.Publish = append(answer.Publish, &pb.Message{Topic: &topic, Data: have[id]})
					}
				}
			}
			if len(answer.Publish) > 0 {
				honest.send(t, answer)
			}
		}
		time.Sleep(6 * time.Second)
		if s, _ := n.Standing(honest.h.ID()); s.Level != gossip.Good || s.Behaviour != 0 {
			t.Errorf("%+v", s)
		}
		if s := topicStats(t, n.Gossip, blocks); s.Limited != 0 || asked < 100 {
			t.Errorf("%d of %d answers were dropped unread", s.Limited, asked)
		}
	})
}

// TestGrafts: whoever does not respect the backoff is shut out.
func TestGrafts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 100)
		n := run(t, hosts[0], nil)
		st := newStranger(t, hosts[1], n)
		topic := blocks
		st.join(t)
		time.Sleep(time.Second)
		st.send(t, &pb.RPC{Control: &pb.ControlMessage{Prune: []*pb.ControlPrune{{TopicID: &topic}}}})
		st.heard()
		grafts := make([]*pb.ControlGraft, 500)
		for i := range grafts {
			grafts[i] = &pb.ControlGraft{TopicID: &topic}
		}
		for range 10 {
			st.send(t, &pb.RPC{Control: &pb.ControlMessage{Graft: grafts}})
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(6 * time.Second)
		if s, _ := n.Standing(st.h.ID()); s.Level != gossip.Graylisted || s.Behaviour < 13 {
			t.Errorf("%+v", s)
		}
		if _, _, prunes := st.saw(); prunes == 0 || prunes > 10 {
			t.Errorf("10 frames of 500 GRAFTs were answered with %d PRUNEs", prunes)
		}
	})
}

// TestPeerExchange: seeds tell of peers, and are believed only by those who name
// them.
func TestPeerExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := blocks
		for _, seed := range []bool{false, true} {
			hosts := simHosts(t, 10, 100)
			n := run(t, hosts[0], func(o *gossip.Options) { o.PeerExchange, o.Degree = seed, 4 })
			told := 0
			var all []*stranger
			for _, h := range hosts[1:] { // D_high is 7: the last are refused
				st := newStranger(t, h, n)
				st.join(t)
				all = append(all, st)
			}
			time.Sleep(3 * time.Second)
			for _, st := range all {
				for _, rpc := range st.heard() {
					for _, p := range rpc.GetControl().GetPrune() {
						told += len(p.GetPeers())
					}
				}
			}
			if (told > 0) != seed {
				t.Errorf("seed %v: told of %d peers", seed, told)
			}
		}
		for _, trusted := range []bool{false, true} {
			hosts := simHosts(t, 3, 100)
			n := run(t, hosts[0], func(o *gossip.Options) {
				o.AppScore = func(p peer.ID) float64 {
					if trusted && p == hosts[1].ID() {
						return gossip.TrustedScore
					}
					return 0
				}
			})
			st := newStranger(t, hosts[1], n)
			// As good as a peer can become by itself.
			for i := range 50 {
				st.publish(t, blocks, []byte("good "+strconv.Itoa(i)))
				st.publish(t, txs, []byte("also good "+strconv.Itoa(i)))
			}
			st.join(t)
			time.Sleep(2 * time.Minute)
			third := hosts[2]
			envelope, err := record.Seal(&peer.PeerRecord{PeerID: third.ID(), Seq: 1, Addrs: third.Addrs()}, third.Peerstore().PrivKey(third.ID()))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := envelope.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			st.send(t, &pb.RPC{Control: &pb.ControlMessage{Prune: []*pb.ControlPrune{
				{TopicID: &topic, Peers: []*pb.PeerInfo{{PeerID: []byte(third.ID()), SignedPeerRecord: raw}}},
			}}})
			time.Sleep(5 * time.Second)
			if dialled := len(hosts[0].Network().ConnsToPeer(third.ID())) > 0; dialled != trusted {
				s, _ := n.Standing(st.h.ID())
				t.Errorf("trusted %v: dialled %v; %+v", trusted, dialled, s)
			}
		}
	})
}

// TestDirect: direct peers are in no mesh, are sent everything, and are heard
// whatever their score.
func TestDirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		info := func(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }
		a := run(t, hosts[0], func(o *gossip.Options) { o.Direct = []peer.AddrInfo{info(hosts[1])} })
		b := run(t, hosts[1], nil)
		b.SetDirect(info(hosts[0]), true)
		c := run(t, hosts[2], nil) // beyond: it hears of it from b
		connect(t, hosts[1], hosts[2])
		time.Sleep(15 * time.Second) // a dials by itself
		if err := a.Publish(t.Context(), blocks, []byte("to a direct peer")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if !b.has([]byte("to a direct peer")) || !c.has([]byte("to a direct peer")) {
			t.Error("it did not arrive at once")
		}
		if s := topicStats(t, a.Gossip, blocks); s.Mesh != 0 || s.Peers != 1 {
			t.Errorf("%+v", s)
		}
		a.Blame(hosts[1].ID(), 2*gossip.GraylistPoints, "test")
		if err := b.Publish(t.Context(), blocks, []byte("still heard")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !a.has([]byte("still heard")) {
			t.Error("a direct peer was not heard")
		}
		a.SetDirect(info(hosts[1]), false)
		if err := b.Publish(t.Context(), blocks, []byte("no longer heard")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if a.has([]byte("no longer heard")) {
			t.Error("an ordinary graylisted peer was heard")
		}
	})
}
