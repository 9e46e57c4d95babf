package ibd_test

import (
	"testing"
	"time"

	"dunlin/chain/ibd"
)

// TestLackOfAnotherBranch: a peer that lacked blocks of one branch is asked at
// once for those of the next.
func TestLackOfAnotherBranch(t *testing.T) {
	s, err := ibd.New(ibd.Config{MaxBlockBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	asked := func(e ibd.Event) (id ibd.RequestID, n int) {
		for _, a := range s.Step(now, e) {
			if r, ok := a.(ibd.Request); ok {
				id = r.ID
				n++
			}
		}
		return id, n
	}
	asked(ibd.PeerTip{Peer: "p", Low: 0, High: 1})
	id, n := asked(ibd.Target{Best: 1})
	if n != 1 {
		t.Fatalf("%d requests for one block", n)
	}
	if _, n := asked(ibd.Done{Peer: "p", ID: id, Status: ibd.NotFound}); n != 0 {
		t.Fatal("asked for again what it lacks")
	}
	if _, n := asked(ibd.Target{Best: 1, Keep: 0}); n != 1 {
		t.Errorf("%d requests for the other branch's block", n)
	}
}
