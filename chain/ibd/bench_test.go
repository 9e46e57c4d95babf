package ibd

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkStep measures one Step in the middle of a download from 64 peers with
// a full window: each round is a block, the end of its reply or a connected
// height, whichever is due.
func BenchmarkStep(b *testing.B) {
	for _, x := range []struct {
		name string
		size int64
	}{{"tiny", 250}, {"big", 1_000_000}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			s, err := New(Config{MaxBlockBytes: 4_000_000})
			if err != nil {
				b.Fatal(err)
			}
			const best = 1 << 30
			now := epoch
			var queue []Request // answered in turn
			var connect int32
			apply := func(actions []Action) {
				for _, a := range actions {
					switch a := a.(type) {
					case Request:
						queue = append(queue, a)
					case Deliver:
						connect = a.Height
					}
				}
			}
			for i := range 64 {
				apply(s.Step(now, PeerTip{Peer: PeerID(fmt.Sprintf("p%02d", i)), High: best, RTT: 50 * time.Millisecond}))
			}
			apply(s.Step(now, Target{Best: best}))
			next, left := 0, int64(0)
			for b.Loop() {
				now = now.Add(20 * time.Microsecond)
				if len(queue) == 0 {
					now = now.Add(100 * time.Millisecond)
					apply(s.Step(now, Tick{}))
					continue
				}
				r := queue[0]
				switch {
				case next == 0 && left == 0:
					left = r.MaxBytes
					apply(s.Step(now, Bytes{Peer: r.Peer, ID: r.ID, N: 100}))
				case next < r.Count && x.size <= left:
					h := r.Start + int32(next)
					next++
					left -= x.size
					apply(s.Step(now, Block{Peer: r.Peer, ID: r.ID, Height: h, Size: x.size}))
				default:
					e := Done{Peer: r.Peer, ID: r.ID}
					if next == 0 {
						e.Status, e.Size = TooLarge, x.size
					}
					queue, next, left = queue[1:], 0, 0
					apply(s.Step(now, e))
					if connect > 0 {
						apply(s.Step(now, Connected{connect}))
						connect = 0
					}
				}
			}
		})
	}
}

// BenchmarkReorg measures a Target that replaces the whole window.
func BenchmarkReorg(b *testing.B) {
	b.ReportAllocs()
	s, err := New(Config{MaxBlockBytes: 4_000_000})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 64 {
		s.Step(epoch, PeerTip{Peer: PeerID(fmt.Sprintf("p%02d", i)), High: 1 << 30, RTT: 50 * time.Millisecond})
	}
	now := epoch
	for b.Loop() {
		now = now.Add(time.Second)
		s.Step(now, Target{Base: 100, Best: 50_000, Keep: 100})
		for _, p := range s.order {
			for len(p.reqs) > 0 {
				s.Step(now, Done{Peer: p.id, ID: p.reqs[0].id, Status: Failed})
			}
		}
	}
}
