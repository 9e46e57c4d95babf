package gossip_test

import (
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/gossip"
)

// TestMerits: what first deliveries and copies earn, and that a rival, a late copy,
// a copy of what was not accepted and the same copy again earn nothing.
func TestMerits(t *testing.T) {
	t.Parallel()
	const worth = 2
	now := time.Unix(1e9, 0)
	var m *gossip.Merits
	want := func(what string, p peer.ID, points float64) {
		t.Helper()
		if got := m.Points(p, now); math.Abs(got-points) > 0.001 {
			t.Errorf("%s: %s has %v points, want %v", what, p, got, points)
		}
	}

	m = gossip.NewMerits(worth, "a", "b", "c", "self")
	m.Deliver("a", "1", false, now)
	want("first", "a", worth)
	m.Copy("a", "1", now)
	want("a copy from the first", "a", worth)
	m.Copy("b", "1", now)
	m.Copy("b", "1", now)
	want("a copy twice", "b", worth/4.)
	now = now.Add(time.Second)
	m.Copy("c", "1", now)
	m.Copy("c", "unknown", now)
	m.Deliver("c", "2", true, now)
	m.Copy("c", "2", now)
	want("late, unknown and rival", "c", 0)
	m.Deliver("stranger", "3", false, now)
	m.Copy("stranger", "1", now)
	want("not connected", "stranger", 0)
	if n := m.Len(); n != 2 {
		t.Errorf("%d peers are kept, want 2", n)
	}
	now = now.Add(time.Hour)
	want("an hour later", "a", worth*0.01)
	m.Close("a")
	want("gone", "a", 0)

	m = gossip.NewMerits(worth, "a", "b")
	for i := range 100 {
		id := string(rune('A' + i))
		m.Deliver("a", id, false, now)
		m.Copy("b", id, now)
	}
	want("the most by first deliveries", "a", 10*worth)
	want("the most by copies", "b", worth)

	// Of each of the last 64 messages, 16 peers.
	m = gossip.NewMerits(worth, "a", "b", "c")
	m.Deliver("a", "old", false, now)
	for range 63 {
		m.Deliver("a", "x", false, now)
	}
	m.Copy("b", "old", now)
	want("the oldest that is kept", "b", worth/4.)
	m.Deliver("a", "x", false, now)
	m.Copy("c", "old", now)
	want("older", "c", 0)
	m = gossip.NewMerits(worth, "a")
	m.Deliver("a", "1", false, now)
	for i := range 15 {
		p := peer.ID(rune('A' + i))
		m.Open(p)
		m.Copy(p, "1", now)
		want("one of the first sixteen", p, worth/4.)
	}
	m.Open("late")
	m.Copy("late", "1", now)
	want("the seventeenth", "late", 0)
}
