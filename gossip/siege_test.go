package gossip_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"dunlin/gossip"
	"dunlin/internal/simnet"
)

// A siege is a network of honest and hostile nodes in virtual time. Honest nodes make
// blocks of 15 kB (a compact block's size) in turn and small transactions all the
// time; hostile ones speak raw protobuf.
type siege struct {
	n       *simnet.Network
	honest  []*citizen
	hostile []*villain

	mu   sync.Mutex
	made map[uint32]time.Time // height → when
}

const blockBytes = 15_000

// block is payload of a height; variants of one height are what an equivocating
// miner makes.
func siegeBlock(height uint32, variant byte) []byte {
	b := make([]byte, blockBytes)
	b[0] = 'x'
	binary.BigEndian.PutUint32(b[1:], height)
	b[5] = variant
	seed := sha256.Sum256(b[:6])
	_, _ = rand.NewChaCha8(seed).Read(b[6:])
	return b
}

// citizen is an honest node: it judges blocks as a chain does.
type citizen struct {
	*gossip.Gossip
	h     *simnet.Host
	warns *atomic.Int64

	mu      sync.Mutex
	got     map[uint32]time.Time // of the honest variant 0
	known   map[[32]byte]bool
	heights map[uint32]map[peer.ID]bool // who brought the blocks of a height that were passed on
	best    uint32
	verdict map[string]int
}

func (c *citizen) judge(_ context.Context, from peer.ID, data []byte) gossip.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	ignore := func(why string) gossip.Verdict { c.verdict[why]++; return gossip.Verdict{Reason: why} }
	if len(data) != blockBytes || data[0] != 'x' {
		return gossip.Verdict{Result: gossip.Reject, Reason: "no block"}
	}
	id := sha256.Sum256(data)
	if c.known[id] {
		return ignore("have")
	}
	height := binary.BigEndian.Uint32(data[1:])
	if height > c.best+3 {
		return ignore("unknown parent")
	}
	c.known[id] = true
	if data[5] == 0 {
		if _, ok := c.got[height]; !ok {
			c.got[height] = time.Now()
		}
	}
	if c.heights[height] == nil {
		c.heights[height] = make(map[peer.ID]bool)
	}
	if len(c.heights[height]) >= 3 || c.heights[height][from] {
		return ignore("too many of the height")
	}
	rival := len(c.heights[height]) > 0
	c.heights[height][from] = true
	c.best = max(c.best, height)
	return gossip.Verdict{Result: gossip.Accept, Rival: rival}
}

// counter counts lines at warn and above.
type counter struct{ n *atomic.Int64 }

func (counter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (c counter) Handle(context.Context, slog.Record) error  { c.n.Add(1); return nil }
func (c counter) WithAttrs([]slog.Attr) slog.Handler         { return c }
func (c counter) WithGroup(string) slog.Handler              { return c }

// villain is a hostile node.
type villain struct {
	s    *siege
	h    *simnet.Host
	kind string

	mu    sync.Mutex
	out   map[peer.ID]network.Stream
	old   [][]byte // blocks seen
	ids   []string // of them
	count uint64
}

// send queues nothing: what cannot be written within a second is lost.
func (v *villain) send(to peer.ID, rpc *pb.RPC) {
	raw, err := proto.Marshal(rpc)
	if err != nil {
		panic(err)
	}
	v.mu.Lock()
	s := v.out[to]
	v.mu.Unlock()
	if s == nil {
		return
	}
	_ = s.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)); err != nil {
		_ = s.Reset()
		v.mu.Lock()
		delete(v.out, to)
		v.mu.Unlock()
	}
}

func (v *villain) peers() []peer.ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []peer.ID
	for p := range v.out {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// serve reads what an honest node sends.
func (v *villain) serve(s network.Stream) {
	p := s.Conn().RemotePeer()
	v.open(p)
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
			return
		}
		v.heard(p, rpc)
	}
}

// open makes a stream to a peer and joins its meshes.
func (v *villain) open(p peer.ID) {
	v.mu.Lock()
	known := v.out[p] != nil
	v.mu.Unlock()
	if known {
		return
	}
	s, err := v.h.NewStream(v.s.n.Context(), p, pubsub.GossipSubID_v11)
	if err != nil {
		return
	}
	v.mu.Lock()
	v.out[p] = s
	v.mu.Unlock()
	v.send(p, graft(blocks, txs))
}

// graft subscribes to topics and asks to be a neighbour.
func graft(topics ...string) *pb.RPC {
	rpc := &pb.RPC{Control: new(pb.ControlMessage)}
	for _, t := range topics {
		rpc.Subscriptions = append(rpc.Subscriptions, &pb.RPC_SubOpts{Topicid: &t, Subscribe: new(true)})
		rpc.Control.Graft = append(rpc.Control.Graft, &pb.ControlGraft{TopicID: &t})
	}
	return rpc
}

// heard reacts to a frame.
func (v *villain) heard(from peer.ID, rpc *pb.RPC) {
	for _, m := range rpc.GetPublish() {
		if m.GetTopic() == blocks {
			id := sha256.Sum256(m.GetData())
			v.mu.Lock()
			v.old, v.ids = append(v.old, m.GetData()), append(v.ids, string(id[:]))
			v.mu.Unlock()
		} else if v.kind == "censor" { // it earns its place with transactions
			for _, p := range v.peers() {
				if p != from {
					v.send(p, &pb.RPC{Publish: []*pb.Message{m}})
				}
			}
		}
	}
	for _, m := range rpc.GetControl().GetPrune() {
		topic := m.GetTopicID()
		wait := time.Duration(m.GetBackoff())*time.Second + 3*time.Second
		if v.kind == "grafter" {
			wait = 0
		}
		v.s.n.Go(func(ctx context.Context) { // it comes back as soon as it may
			if pause(ctx, wait) {
				v.send(from, graft(topic))
			}
		})
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attack is what it does at each tick.
func (v *villain) attack() {
	v.mu.Lock()
	v.count++
	count, old, ids := v.count, v.old, v.ids
	v.mu.Unlock()
	topic := blocks
	unique := func(n int) string {
		return fmt.Sprintf("%s %s %d %d", v.h.ID().ShortString(), time.Now(), count, n)
	}
	id := func(n int) string { h := sha256.Sum256([]byte(unique(n))); return string(h[:]) }
	for _, p := range v.peers() {
		switch v.kind {
		case "replayer":
			if count%4 == 0 && len(old) > 22 { // long forgotten by pubsub
				v.send(p, &pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: old[rand.IntN(len(old)-22)]}}})
			}
		case "invalid":
			v.send(p, &pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: []byte("R" + unique(0))}}})
		case "wanter":
			want := slices.Clone(ids)
			for i := range 200 {
				want = append(want, id(i))
			}
			v.send(p, &pb.RPC{Control: &pb.ControlMessage{Iwant: []*pb.ControlIWant{{MessageIDs: want}}}})
		case "subscriber":
			rpc := new(pb.RPC)
			for i := range 60 {
				rpc.Subscriptions = append(rpc.Subscriptions, &pb.RPC_SubOpts{Topicid: new(unique(i)), Subscribe: new(true)})
			}
			rpc.Subscriptions = append(rpc.Subscriptions, &pb.RPC_SubOpts{Topicid: &topic, Subscribe: new(count%2 == 0)})
			v.send(p, rpc)
		case "liar":
			v.send(p, &pb.RPC{Control: &pb.ControlMessage{Ihave: []*pb.ControlIHave{{TopicID: &topic, MessageIDs: []string{id(0), id(1), id(2)}}}}})
		case "equivocator":
			if count%8 == 0 && len(old) > 0 { // another block of the last height, for each peer its own
				height := binary.BigEndian.Uint32(old[len(old)-1][1:])
				v.send(p, &pb.RPC{Publish: []*pb.Message{{Topic: &topic, Data: siegeBlock(height, 1+byte(rand.IntN(255)))}}})
			}
		case "bomber":
			if count%20 == 0 {
				v.open(p)
				v.send(p, &pb.RPC{Publish: some(5000, func() *pb.Message { return new(pb.Message) })})
			}
		}
	}
}

// lay starts a siege: every node dials eight others, hostile ones honest only.
func lay(t *testing.T, n *simnet.Network, honest int, kinds []string, tick time.Duration) *siege {
	t.Helper()
	s := &siege{n: n, made: make(map[uint32]time.Time)}
	for range honest {
		h, err := n.NewHost(simnet.HostOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := &citizen{
			h: h, warns: new(atomic.Int64), got: make(map[uint32]time.Time), known: make(map[[32]byte]bool),
			heights: make(map[uint32]map[peer.ID]bool), verdict: make(map[string]int),
		}
		o := gossip.Options{
			Host: h, Logger: slog.New(counter{c.warns}),
			Topics: []gossip.Topic{
				{Name: blocks, MaxBytes: 1 << 20, Worth: 2, Validate: c.judge},
				{Name: txs, MaxBytes: 100_000, Worth: 0.1, Validate: func(_ context.Context, _ peer.ID, data []byte) gossip.Verdict {
					if !bytes.HasPrefix(data, []byte("tx ")) {
						return gossip.Verdict{Result: gossip.Reject, Reason: "no transaction"}
					}
					return gossip.Verdict{Result: gossip.Accept}
				}},
			},
		}
		if c.Gossip, err = gossip.New(o); err != nil {
			t.Fatal(err)
		}
		n.Go(func(ctx context.Context) {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		<-c.Ready()
		s.honest = append(s.honest, c)
	}
	for _, kind := range kinds {
		h, err := n.NewHost(simnet.HostOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v := &villain{s: s, h: h, kind: kind, out: make(map[peer.ID]network.Stream)}
		for _, id := range gossip.Protocols() {
			h.SetStreamHandler(id, v.serve)
		}
		s.hostile = append(s.hostile, v)
	}
	const dials = 8
	dial := func(from, to *simnet.Host) {
		if from != to {
			_ = from.Connect(n.Context(), to.Info())
		}
	}
	n.Rand(func(r *rand.Rand) {
		all := len(s.honest) + len(s.hostile)
		for _, c := range s.honest {
			for range dials {
				if i := r.IntN(all); i < len(s.honest) {
					dial(c.h, s.honest[i].h)
				} else {
					dial(c.h, s.hostile[i-len(s.honest)].h)
				}
			}
		}
		for _, v := range s.hostile {
			for range dials {
				dial(v.h, s.honest[r.IntN(len(s.honest))].h)
			}
		}
	})
	for _, v := range s.hostile {
		for _, c := range s.honest {
			if v.h.Network().Connectedness(c.h.ID()) == network.Connected {
				v.open(c.h.ID())
			}
		}
		n.Go(func(ctx context.Context) {
			for pause(ctx, tick) {
				v.attack()
			}
		})
	}
	return s
}

// trade has honest nodes make blocks and, between them, transactions.
func (s *siege) trade(t *testing.T, from, to uint32, every time.Duration) {
	t.Helper()
	for height := from; height < to; height++ {
		c := s.honest[int(height)%len(s.honest)]
		s.mu.Lock()
		s.made[height] = time.Now()
		s.mu.Unlock()
		block := siegeBlock(height, 0)
		c.mu.Lock()
		c.got[height] = time.Now()
		c.known[sha256.Sum256(block)] = true
		c.best = max(c.best, height)
		c.mu.Unlock()
		if err := c.Publish(s.n.Context(), blocks, block); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			teller := s.honest[(int(height)*7+i)%len(s.honest)]
			if err := teller.Publish(s.n.Context(), txs, fmt.Appendf(nil, "tx %d %d %s", height, i, strings.Repeat("x", 200))); err != nil {
				t.Fatal(err)
			}
			s.n.Pass(every/8 + rand.N(every/4))
		}
	}
}

// outcome is how blocks fared.
type outcome struct {
	share            float64 // of blocks and nodes that met
	mean, p95, worst time.Duration
	last             time.Duration // mean of the time to the last node
}

func (o outcome) String() string {
	return fmt.Sprintf("%.2f%% arrived; mean %v, 95%% %v, worst %v; last node on average %v", 100*o.share,
		o.mean.Round(time.Millisecond), o.p95.Round(time.Millisecond), o.worst.Round(time.Millisecond), o.last.Round(time.Millisecond))
}

func (s *siege) outcome(from, to uint32) outcome {
	var delays []time.Duration
	var sum, lasts time.Duration
	total := 0
	for height := from; height < to; height++ {
		var last time.Duration
		for _, c := range s.honest {
			total++
			c.mu.Lock()
			at, ok := c.got[height]
			c.mu.Unlock()
			if ok {
				d := at.Sub(s.made[height])
				delays, sum, last = append(delays, d), sum+d, max(last, d)
			}
		}
		lasts += last
	}
	slices.Sort(delays)
	return outcome{
		share: float64(len(delays)) / float64(total), mean: sum / time.Duration(len(delays)),
		p95: delays[len(delays)*95/100], worst: delays[len(delays)-1], last: lasts / time.Duration(to-from),
	}
}

// levels counts how honest nodes see the villains that they are connected with, by
// kind.
func (s *siege) levels() map[string]map[gossip.Level]int {
	out := make(map[string]map[gossip.Level]int)
	for _, v := range s.hostile {
		if out[v.kind] == nil {
			out[v.kind] = make(map[gossip.Level]int)
		}
		for _, c := range s.honest {
			if st, ok := c.Standing(v.h.ID()); ok && c.h.Network().Connectedness(v.h.ID()) == network.Connected {
				out[v.kind][st.Level]++
			}
		}
	}
	return out
}

// besiege runs a siege and checks what is to hold in every one.
func besiege(t *testing.T, honest int, kinds []string, heights uint32, every time.Duration) (whole, later outcome) {
	t.Helper()
	start := time.Now()
	var heap runtime.MemStats
	simnet.Test(t, simnet.Options{Seed: 7}, func(t *testing.T, n *simnet.Network) {
		s := lay(t, n, honest, kinds, every/8)
		n.Pass(3 * time.Second)
		s.trade(t, 0, heights, every)
		n.Pass(10 * time.Second)
		whole, later = s.outcome(0, heights), s.outcome(heights/2, heights)
		levels := s.levels()
		for _, kind := range slices.Sorted(maps.Keys(levels)) {
			t.Logf("%s: %v", kind, levels[kind])
			bad := kind == "invalid" || kind == "liar" || kind == "bomber"
			if sum := levels[kind]; bad && (len(sum) == 0 || sum[gossip.Good] > 0) {
				t.Errorf("%s: %v, want none of them to look good", kind, levels[kind])
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&heap)
		for i, c := range s.honest {
			if w := c.warns.Load(); w > 50 {
				t.Errorf("honest node %d wrote %d warnings", i, w)
			}
			for _, other := range s.honest {
				if st, ok := c.Standing(other.h.ID()); ok && st.Level != gossip.Good {
					t.Errorf("an honest node is %+v", st)
				}
			}
		}
	})
	t.Logf("%d honest, %d hostile: %v; second half %v; heap %d MB, %v real", honest, len(kinds), whole, later, heap.HeapAlloc>>20,
		time.Since(start).Round(time.Millisecond))
	if most := uint64(20+15*(honest+len(kinds))) << 20; heap.HeapAlloc > most {
		t.Errorf("heap of %d MB", heap.HeapAlloc>>20)
	}
	return whole, later
}

// TestSiege: as many hostile nodes as honest ones. What is measured depends on where
// they happen to sit, and TestSlowSiege tells; here is what must be so.
func TestSiege(t *testing.T) {
	whole, _ := besiege(t, 8, []string{"silent", "silent", "silent", "censor", "censor", "invalid", "liar", "equivocator"}, 16, 2*time.Second)
	if whole.share < 0.75 || whole.mean > 2*time.Second {
		t.Error(whole)
	}
}

// TestSilentMesh: all neighbours of a node are silent. It hears of everything by
// gossip, and gets honest neighbours.
func TestSilentMesh(t *testing.T) {
	for _, dialled := range []bool{false, true} {
		simnet.Test(t, simnet.Options{Seed: 3}, func(t *testing.T, n *simnet.Network) {
			kinds := slices.Repeat([]string{"silent"}, 8)
			s := lay(t, n, 10, nil, time.Second) // nine, and the victim apart
			victim := s.honest[0]
			for _, c := range victim.h.Network().Conns() {
				_ = c.Close()
			}
			n.Pass(time.Second)
			for _, kind := range kinds {
				h, err := n.NewHost(simnet.HostOptions{})
				if err != nil {
					t.Fatal(err)
				}
				v := &villain{s: s, h: h, kind: kind, out: make(map[peer.ID]network.Stream)}
				for _, id := range gossip.Protocols() {
					h.SetStreamHandler(id, v.serve)
				}
				if dialled { // the victim chose them
					err = victim.h.Connect(n.Context(), h.Info())
				} else {
					err = h.Connect(n.Context(), victim.h.Info())
				}
				if err != nil {
					t.Fatal(err)
				}
				v.open(victim.h.ID())
			}
			n.Pass(200 * time.Millisecond)
			for _, c := range s.honest[1:7] {
				if err := victim.h.Connect(n.Context(), c.h.Info()); err != nil {
					t.Fatal(err)
				}
			}
			n.Pass(300 * time.Millisecond)
			mended := time.Duration(-1)
			var worst time.Duration
			start := time.Now()
			for height := range uint32(40) {
				maker := s.honest[1+height%9]
				block := siegeBlock(height, 0)
				maker.mu.Lock()
				maker.known[sha256.Sum256(block)], maker.best = true, max(maker.best, height)
				maker.mu.Unlock()
				at := time.Now()
				if err := maker.Publish(n.Context(), blocks, block); err != nil {
					t.Fatal(err)
				}
				took, ok := n.Until(5*time.Second, func() bool {
					victim.mu.Lock()
					defer victim.mu.Unlock()
					_, ok := victim.got[height]
					return ok
				})
				if !ok {
					t.Errorf("block %d did not arrive", height)
				}
				worst = max(worst, took)
				switch {
				case took > 300*time.Millisecond:
					mended = -1
				case mended < 0:
					mended = at.Sub(start)
				}
				n.Pass(time.Second + 37*time.Millisecond)
			}
			t.Logf("chosen by the victim %v: the slowest block took %v; blocks came by push for good after %v", dialled, worst, mended)
			if mended < 0 || worst > 3*time.Second {
				t.Errorf("the mesh was not mended within 40 s, or a block took %v", worst)
			}
		})
	}
}

// TestPartition: two halves that saw nothing of one another for five minutes share
// blocks again soon after their connections are back, and hold nothing against one
// another. What was missed meanwhile is for others to pull.
func TestPartition(t *testing.T) {
	simnet.Test(t, simnet.Options{Seed: 5}, func(t *testing.T, n *simnet.Network) {
		s := lay(t, n, 12, nil, time.Second)
		n.Pass(3 * time.Second)
		var left []*simnet.Host
		for _, c := range s.honest[:6] {
			left = append(left, c.h)
		}
		n.Partition(left)
		// Both sides go on: their heights differ, as those of two branches would.
		s.trade(t, 0, 30, 10*time.Second)
		n.Heal()
		healed := time.Now()
		for i, c := range s.honest { // as discovery does: it redials within seconds
			for k := range 3 {
				_ = c.h.Connect(n.Context(), s.honest[(i+4+k)%12].h.Info())
			}
		}
		dialled := time.Since(healed)
		for _, c := range s.honest { // as hello and headers do
			c.mu.Lock()
			c.best = 31
			c.mu.Unlock()
		}
		block := siegeBlock(32, 0)
		if err := s.honest[0].Publish(n.Context(), blocks, block); err != nil {
			t.Fatal(err)
		}
		took, ok := n.Until(10*time.Second, func() bool {
			for _, c := range s.honest[1:] {
				c.mu.Lock()
				_, ok := c.got[32]
				c.mu.Unlock()
				if !ok {
					return false
				}
			}
			return true
		})
		t.Logf("dialled again in %v, a new block was everywhere %v later", dialled, took)
		if !ok {
			t.Error("a block made after the partition is not everywhere within 10 s")
		}
		n.Pass(6 * time.Second)
		for _, c := range s.honest {
			for _, other := range s.honest {
				if st, ok := c.Standing(other.h.ID()); ok && st.Level != gossip.Good {
					t.Errorf("%+v", st)
				}
			}
		}
	})
}
