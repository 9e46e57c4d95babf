package ibd_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"dunlin/chain/ibd"
)

func TestConfigFaults(t *testing.T) {
	t.Parallel()
	_, err := ibd.New(ibd.Config{
		MaxRequestsPerPeer: 17, MaxBlocksPerPeer: -1, MaxBytesPerPeer: 99, MaxRequests: -1,
		MaxBytes: 98, MaxCount: 129, Window: -5, MaxBlockBytes: 100,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{
		"MaxRequestsPerPeer 17", "MaxBlocksPerPeer -1", "MaxBytesPerPeer 99", "MaxRequests -1",
		"MaxBytes 98", "MaxCount 129", "Window -5",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%q is not named in %v", field, err)
		}
	}
	if _, err := ibd.New(ibd.Config{}); err == nil || !strings.Contains(err.Error(), "MaxBlockBytes 0") {
		t.Errorf("no largest block: %v", err)
	}
	if _, err := ibd.New(ibd.Config{MaxBlockBytes: 4_000_000}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

// TestDefaultCaps asks 64 peers with endless links and counts what they owe: the
// caps of DESIGN §7 are reached in no peer and in sum never passed.
func TestDefaultCaps(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{300, 20_000, 1_000_000, 4_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s, err := ibd.New(ibd.Config{MaxBlockBytes: 4_000_000})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Unix(1, 0)
			type owed struct {
				ibd.Request
				left int64
				next int
			}
			var queue []*owed
			var reached int
			var held int64 // buffered and never connected
			apply := func(actions []ibd.Action) {
				for _, a := range actions {
					if r, ok := a.(ibd.Request); ok {
						queue = append(queue, &owed{Request: r, left: r.MaxBytes})
						reached = max(reached, int(r.Start)+r.Count-1)
					}
				}
				type load struct {
					reqs, blocks int
					bytes        int64
				}
				per := map[ibd.PeerID]*load{}
				sum := load{bytes: held, reqs: len(queue)}
				for _, r := range queue {
					if per[r.Peer] == nil {
						per[r.Peer] = &load{}
					}
					l := per[r.Peer]
					l.reqs++
					l.blocks += r.Count - r.next
					left := min(r.left, int64(r.Count-r.next)*4_000_000)
					l.bytes += left
					sum.bytes += left
				}
				for id, l := range per {
					if l.reqs > 16 || l.blocks > 1024 || l.bytes > 16<<20 {
						t.Fatalf("%s owes %+v", id, l)
					}
				}
				if sum.reqs > 128 || sum.bytes > 64<<20 || reached > 16384 {
					t.Fatalf("in sum %+v, up to height %d", sum, reached)
				}
			}
			apply(s.Step(now, ibd.Target{Best: 1_000_000}))
			for i := range 64 {
				apply(s.Step(now, ibd.PeerTip{Peer: ibd.PeerID(fmt.Sprint(i)), High: 1_000_000, RTT: 200 * time.Millisecond}))
			}
			for i := 0; i < 40_000 && len(queue) > 0; i++ {
				now = now.Add(10 * time.Microsecond)
				r := queue[0]
				switch {
				case r.next < r.Count && size <= r.left:
					h := r.Start + int32(r.next)
					r.next++
					r.left -= size
					held += size
					apply(s.Step(now, ibd.Block{Peer: r.Peer, ID: r.ID, Height: h, Size: size}))
				default:
					e := ibd.Done{Peer: r.Peer, ID: r.ID}
					if r.next == 0 {
						e.Status, e.Size = ibd.TooLarge, size
					}
					queue = queue[1:]
					apply(s.Step(now, e))
				}
			}
			// Nothing was connected, so memory or window must be full by now.
			if len(queue) > 0 || (held < 64<<20-2*4_000_000-size && reached < 16384) {
				t.Errorf("%d requests out, %d bytes held, height %d", len(queue), held, reached)
			}
			st := s.Stats()
			if !strings.Contains(st.Reason, "waiting for validation of block 1") {
				t.Errorf("reason %q", st.Reason)
			}
		})
	}
}

// TestExtremes passes hostile and odd values.
func TestExtremes(t *testing.T) {
	t.Parallel()
	s, err := ibd.New(ibd.Config{MaxBlockBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	for _, e := range []ibd.Event{
		ibd.Tick{},
		ibd.Connected{Height: 5},
		ibd.Stored{Height: 5},
		ibd.Rejected{Height: 5},
		ibd.PeerTip{Peer: "a", Low: math.MinInt32, High: math.MaxInt32, RTT: math.MaxInt64},
		ibd.PeerTip{Peer: "b", Low: math.MaxInt32, High: math.MinInt32, RTT: -1},
		ibd.Target{Base: 0, Best: math.MaxInt32, Keep: math.MaxInt32, Have: [][2]int32{{math.MinInt32, -1}, {5, 4}, {7, math.MaxInt32}}},
		ibd.Bytes{Peer: "a", ID: 1, N: math.MaxInt64},
		ibd.Bytes{Peer: "a", ID: 1, N: math.MinInt64},
		ibd.Tick{},
		ibd.Stored{Height: math.MaxInt32},
		ibd.Connected{Height: math.MinInt32},
		ibd.Rejected{Height: math.MinInt32},
		ibd.Target{Base: math.MaxInt32 - 20_000, Best: math.MaxInt32, Keep: math.MaxInt32},
		ibd.Target{Base: math.MaxInt32, Best: math.MaxInt32, Keep: math.MaxInt32},
		ibd.Connected{Height: math.MaxInt32},
		ibd.Target{Base: 0, Best: 10, Keep: 0},
		ibd.Target{Base: 10, Best: 3, Keep: math.MinInt32},
		ibd.Done{Peer: "a", ID: 1, Status: 99},
		ibd.Done{Peer: "nobody", ID: 1},
		ibd.PeerGone{Peer: "a"},
		ibd.PeerGone{Peer: "a"},
	} {
		s.Step(now, e)
		now = now.Add(-time.Second) // a clock that goes back does not count
		s.Stats()
	}
}
