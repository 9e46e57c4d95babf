package node

import (
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// advancing plays outbound peers against an advance with a clock of its own.
type advancing struct {
	*advance
	now   time.Time
	tip   int64
	spare int
	most  int // target
	peers []outboundPeer
	gone  []peer.ID
	extra int // steps at which one more was wanted
}

func newAdvancing(spacing time.Duration, most int) *advancing {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &advancing{advance: newAdvance(spacing, now), now: now, tip: 100, spare: 10, most: most}
}

func (a *advancing) join(id string, work int64) {
	a.peers = append(a.peers, outboundPeer{id: peer.ID(id), since: a.now})
	a.show(id, work)
}

// show has a peer prove work; 0: it has proven nothing.
func (a *advancing) show(id string, work int64) {
	i := slices.IndexFunc(a.peers, func(p outboundPeer) bool { return p.id == peer.ID(id) })
	if p := &a.peers[i]; work > 0 && (p.work == nil || p.work.Int64() < work) {
		p.work, p.at = big.NewInt(work), a.now
	}
}

// pass lets time pass and takes away who is to be replaced.
func (a *advancing) pass(d time.Duration) {
	for end := a.now.Add(d); a.now.Before(end); {
		a.now = a.now.Add(advanceEvery)
		out, extra := a.step(a.now, big.NewInt(a.tip), false, a.spare, a.most, a.peers)
		if extra {
			a.extra++
		}
		if out != nil {
			a.gone = append(a.gone, out.id)
			a.peers = slices.DeleteFunc(a.peers, func(p outboundPeer) bool { return p.id == out.id })
		}
	}
}

// grow lets time pass with a block each spacing, which the named peers show too.
func (a *advancing) grow(d, spacing time.Duration, also ...string) {
	for range d / spacing {
		a.tip++
		for _, id := range also {
			a.show(id, a.tip)
		}
		a.pass(spacing)
	}
}

const tenMinutes = 10 * time.Minute

// TestPeersThatNeverAdvanceAreReplaced: those that show nothing, or a chain that stays behind, go after two blocks' time, one after the
// other; those that follow, the operator's own and those that once showed our chain stay.
func TestPeersThatNeverAdvanceAreReplaced(t *testing.T) {
	a := newAdvancing(tenMinutes, 8)
	good := []string{"good1", "good2"}
	for _, id := range good {
		a.join(id, 100)
	}
	a.join("silent", 0)
	a.join("behind", 50)
	a.join("own", 0)
	a.peers[len(a.peers)-1].keep = true
	a.pass(20 * time.Minute)
	if len(a.gone) != 0 {
		t.Fatalf("%s gone after 20 min", a.gone)
	}
	a.grow(30*time.Second, 15*time.Second, good...)
	if fmt.Sprint(a.gone) != fmt.Sprint([]peer.ID{"silent"}) {
		t.Fatalf("gone %s, want the one that showed nothing", a.gone)
	}
	a.grow(time.Hour, tenMinutes, good...)
	if fmt.Sprint(a.gone) != fmt.Sprint([]peer.ID{"silent", "behind"}) {
		t.Errorf("gone %s, want the two that do not advance", a.gone)
	}
}

// TestPeersThatCatchUpStay: a peer that reaches what our tip was when it fell behind has its time anew.
func TestPeersThatCatchUpStay(t *testing.T) {
	a := newAdvancing(tenMinutes, 8)
	for i := range 4 { // who protects our chain; see below
		a.join(fmt.Sprint("steady", i), 100)
	}
	a.join("slow", 90)
	for range 20 { // always one block behind
		a.tip++
		a.show("slow", a.tip-1)
		for i := range 4 {
			a.show(fmt.Sprint("steady", i), a.tip)
		}
		a.pass(tenMinutes)
	}
	if len(a.gone) != 0 {
		t.Errorf("%s gone", a.gone)
	}
}

// TestNeverAllAreReplaced: when nobody follows our chain any more, four that once did stay; without anybody to dial, all do.
func TestNeverAllAreReplaced(t *testing.T) {
	a := newAdvancing(tenMinutes, 12)
	for i := range 12 {
		a.join(fmt.Sprintf("p%02d", i), 100)
	}
	a.pass(time.Minute)
	a.spare = 0
	a.grow(2*time.Hour, tenMinutes)
	if len(a.gone) != 0 {
		t.Fatalf("%s gone though nobody could be dialled in their place", a.gone)
	}
	a.spare = 1
	before := a.now
	for len(a.peers) > maxSteady {
		n := len(a.gone)
		a.pass(replaceEvery)
		if len(a.gone) > n+1 {
			t.Fatalf("%d replaced at once", len(a.gone)-n)
		}
		if a.now.Sub(before) > time.Hour {
			t.Fatalf("%d peers after an hour", len(a.peers))
		}
	}
	a.grow(4*time.Hour, tenMinutes)
	if len(a.peers) != maxSteady {
		t.Errorf("%d peers left, want %d", len(a.peers), maxSteady)
	}
}

// TestOneMoreWhenTheTipIsStale: when no block comes for three blocks' time a peer more is tried, which stays only if it brings what the others
// do not have.
func TestOneMoreWhenTheTipIsStale(t *testing.T) {
	full := func() *advancing {
		a := newAdvancing(tenMinutes, 8)
		for i := range 8 {
			a.join(fmt.Sprint("p", i), 100)
			a.now = a.now.Add(time.Second)
		}
		a.pass(29 * time.Minute)
		if a.extra != 0 {
			t.Fatal("one more was wanted before the tip was stale")
		}
		a.pass(2 * time.Minute)
		if a.extra == 0 {
			t.Fatal("the tip is stale, and nobody more was wanted")
		}
		return a
	}
	t.Run("it knows no more", func(t *testing.T) {
		a := full()
		a.join("extra", 100)
		was := a.extra
		a.pass(5 * time.Second)
		if a.extra != was {
			t.Error("another one was wanted at once")
		}
		a.pass(extraGrace)
		if fmt.Sprint(a.gone) != fmt.Sprint([]peer.ID{"extra"}) {
			t.Errorf("gone %s, want the one that brought nothing", a.gone)
		}
		a.pass(5 * time.Minute)
		if a.extra != was {
			t.Error("another one was wanted soon")
		}
		a.pass(10 * time.Minute)
		if a.extra == was {
			t.Error("no other one was tried")
		}
	})
	t.Run("it brings the chain", func(t *testing.T) {
		a := full()
		a.join("extra", 105)
		a.tip = 105
		a.pass(10 * time.Second)
		for i := range 8 { // through us
			a.show(fmt.Sprint("p", i), 105)
		}
		a.pass(2 * extraGrace)
		if len(a.gone) != 1 || a.gone[0] == "extra" {
			t.Errorf("gone %s, want one of the others", a.gone)
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		a := full()
		was := a.extra
		a.pass(time.Hour)
		if a.extra > was+30*12 || len(a.gone) > 0 { // two minutes of each twelve
			t.Errorf("one more wanted at %d steps, %s gone", a.extra-was, a.gone)
		}
	})
	t.Run("there are enough without it", func(t *testing.T) {
		a := full()
		a.most = 20
		a.join("extra", 100)
		a.pass(time.Hour)
		if len(a.gone) > 0 {
			t.Errorf("%s gone, though there are fewer than wanted", a.gone)
		}
	})
}

// TestAdvanceFollowsTheSpacing: the times are those of Bitcoin where blocks come as slowly, and bounded below.
func TestAdvanceFollowsTheSpacing(t *testing.T) {
	for spacing, want := range map[time.Duration][2]time.Duration{
		2 * time.Second: {2 * time.Minute, 3 * time.Minute}, 30 * time.Second: {2 * time.Minute, 3 * time.Minute},
		150 * time.Second: {5 * time.Minute, 450 * time.Second}, tenMinutes: {20 * time.Minute, 30 * time.Minute},
		24 * time.Hour: {20 * time.Minute, 30 * time.Minute},
	} {
		if a := newAdvance(spacing, time.Time{}); a.behind != want[0] || a.stale != want[1] {
			t.Errorf("spacing %s: behind %s, stale %s, want %s", spacing, a.behind, a.stale, want)
		}
	}
}

// TestDeedsAreBounded: what peers did is kept for those that are here, and for no more than there can be.
func TestDeedsAreBounded(t *testing.T) {
	d := newDeeds()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	d.now = func() time.Time { return now }
	for i := range maxDeeds + 10 {
		d.broughtTx(peer.ID(fmt.Sprint(i)))
	}
	if len(d.of) != maxDeeds {
		t.Errorf("%d peers, want %d", len(d.of), maxDeeds)
	}
	now = now.Add(time.Second)
	d.broughtBlock("7")
	d.keep(func(id peer.ID) bool { return id == "7" || id == "9" })
	if got := d.get("7"); len(d.of) != 2 || !got.block.Equal(now) || !got.tx.Equal(now.Add(-time.Second)) {
		t.Errorf("%d peers, deed %+v", len(d.of), got)
	}
}
