package gossip_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/gossip"
)

// batch sends messages of a size in one frame.
func (st *stranger) batch(t testing.TB, topic, name string, n, size int) {
	t.Helper()
	rpc := &pb.RPC{}
	for i := range n {
		data := append(fmt.Appendf(nil, "%s %d ", name, i), bytes.Repeat([]byte{'x'}, size)...)
		rpc.Publish = append(rpc.Publish, &pb.Message{Topic: &topic, Data: data[:size]})
	}
	st.send(t, rpc)
}

// TestPeerRate: what a peer sends above its rate is ignored unseen, costs it
// nothing, does not hurt others, and its bucket fills again.
func TestPeerRate(t *testing.T) {
	for _, c := range []struct {
		name        string
		rate        gossip.Rate
		sent, size  int
		most, after int // messages at once; within 3 s then
	}{
		{"messages", gossip.Rate{Messages: 10, Burst: 4}, 200, 100, 40, 30},
		{"bytes", gossip.Rate{Bytes: 5000, Burst: 4}, 300, 100, 200, 150},
		{"bytes, messages with room", gossip.Rate{Messages: 1000, Bytes: 5000, Burst: 4}, 200, 200, 100, 75},
		{"one of the largest always fits", gossip.Rate{Bytes: 1000, Burst: 1}, 3, 10_000, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := simHosts(t, 3, 100)
				n := run(t, hosts[0], func(o *gossip.Options) {
					o.Topics[0].MaxBytes, o.Topics[0].Queue, o.Topics[0].PeerRate = 10_000, 1000, c.rate
				})
				loud, quiet := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
				time.Sleep(time.Second)
				loud.batch(t, blocks, "loud", c.sent, c.size)
				quiet.batch(t, blocks, "quiet", 1, 100)
				time.Sleep(50 * time.Millisecond) // half a message's worth at most, beside the way
				if got := n.count(); got != c.most+1 {
					t.Errorf("%d came through at once, want %d of one and 1 of the other", got, c.most)
				}
				s := topicStats(t, n.Gossip, blocks)
				if over := s.Ignored["peer over rate"]; int(over) != c.sent-c.most || s.Throttled != 0 {
					t.Errorf("%+v", s)
				}
				if n.judged() != n.count() {
					t.Errorf("%d were shown to Validate", n.judged())
				}
				time.Sleep(3*time.Second - 50*time.Millisecond)
				loud.batch(t, blocks, "again", c.sent, c.size)
				time.Sleep(50 * time.Millisecond)
				if got := n.count() - c.most - 1; got < c.after || got > c.after+1 {
					t.Errorf("%d came through 3 s later, want %d", got, c.after)
				}
				time.Sleep(10 * time.Second)
				if s := n.Scores()[loud.h.ID()]; s < 0 {
					t.Errorf("it cost the peer its score: %v", s)
				}
			})
		})
	}
}

// TestQueueShare: a peer that fills its part of the queue leaves room for others,
// and many small messages of one frame are no loss.
func TestQueueShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 3, 100)
		release := make(chan struct{})
		var from [2]atomic.Int32
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.Topics[0].Concurrency, o.Topics[0].Queue = 2, 400
			o.Topics[0].Validate = func(_ context.Context, p peer.ID, _ []byte) gossip.Verdict {
				<-release
				if p == hosts[1].ID() {
					from[0].Add(1)
				} else {
					from[1].Add(1)
				}
				return gossip.Verdict{Result: gossip.Accept}
			}
		})
		loud, quiet := newStranger(t, hosts[1], n), newStranger(t, hosts[2], n)
		time.Sleep(time.Second)
		loud.batch(t, blocks, "loud", 1000, 100)
		time.Sleep(time.Second)
		quiet.batch(t, blocks, "quiet", 100, 100)
		time.Sleep(time.Second)
		close(release)
		time.Sleep(time.Second)
		if a, b := from[0].Load(), from[1].Load(); a != 102 || b != 100 {
			t.Errorf("%d of the loud peer were judged, want its share of 102; %d of the quiet one, want all 100", a, b)
		}
		if s := topicStats(t, n.Gossip, blocks); s.Throttled != 898 || s.Received != 202 {
			t.Errorf("%+v", s)
		}
	})
}

// TestQueueBytes: 32 MiB of large messages may wait.
func TestQueueBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := simHosts(t, 2, 1000)
		release := make(chan struct{})
		n := run(t, hosts[0], func(o *gossip.Options) {
			o.Topics[0].Concurrency, o.Topics[0].Queue, o.Topics[0].MaxBytes = 1, 1000, 1<<20
			o.Topics[0].Validate = func(context.Context, peer.ID, []byte) gossip.Verdict {
				<-release
				return gossip.Verdict{}
			}
		})
		st := newStranger(t, hosts[1], n)
		time.Sleep(time.Second)
		for i := range 40 {
			st.batch(t, blocks, fmt.Sprint("frame ", i), 1, 1<<20)
		}
		time.Sleep(10 * time.Second)
		if s := topicStats(t, n.Gossip, blocks); s.Received != 32 || s.Throttled != 8 {
			t.Errorf("%+v", s)
		}
		close(release)
		time.Sleep(time.Second)
	})
}

// TestRatedAreBounded: so many peers have buckets of their own, the others share theirs, and who has rested makes room.
func TestRatedAreBounded(t *testing.T) {
	if first, later, shared := gossip.Rated(2 * gossip.MaxRated); first != gossip.MaxRated || later != gossip.MaxRated || shared != 1 {
		t.Errorf("%d and %d have their own, limit %d; of the others %d were let through, want 1", first, later, gossip.MaxRated, shared)
	}
	if first, later, _ := gossip.Rated(gossip.MaxRated / 2); first != gossip.MaxRated/2 || later != gossip.MaxRated {
		t.Errorf("%d, then %d", first, later)
	}
}
