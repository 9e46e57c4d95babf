package discovery_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// someID is a peer id that costs nothing to make.
func someID(i int) peer.ID { return peer.ID(fmt.Sprintf("peer %d", i)) }

// in returns the n-th address of the g-th IP group of a public network.
func in(g, n int) string {
	return fmt.Sprintf("%d.%d.%d.%d", 20+g/200, g%200, 1+n/250%250, 1+n%250)
}

func checkBook(t *testing.T, d *discovery.Discovery) {
	t.Helper()
	if err := d.CheckBook(); err != nil {
		t.Fatal(err)
	}
}

// Whoever has few IP groups has few places, however many peer ids it makes and whoever
// passes them on.
func TestBookBoundsAnIPGroup(t *testing.T) {
	now := time.Now()
	t.Run("heard of, from one teller", func(t *testing.T) {
		d := newDiscovery(t, discovery.Options{})
		for i := range 5000 {
			d.Learn(now, at(someID(i), in(7, i)), discovery.SourceDHT)
		}
		if n := d.Stats().Book; n > discovery.BucketSize {
			t.Errorf("%d entries, the limit is %d", n, discovery.BucketSize)
		}
		checkBook(t, d)
	})
	t.Run("answered", func(t *testing.T) {
		d := newDiscovery(t, discovery.Options{})
		for i := range 5000 {
			d.Reached(now, at(someID(i), in(7, i)))
		}
		proven := 0
		for i := range 5000 {
			if d.Proven(someID(i)) {
				proven++
			}
		}
		// Those without a place among the proven stand where one teller's do.
		if limit := discovery.TriedReach * discovery.BucketSize; proven > limit || d.Stats().Book > limit+discovery.BucketSize {
			t.Errorf("%d proven of %d entries, the limits are %d and %d more", proven, d.Stats().Book, limit, discovery.BucketSize)
		}
		checkBook(t, d)
	})
}

// One seed, or one peer that passes on addresses, cannot fill the book even with an
// address in every IP group.
func TestBookBoundsATeller(t *testing.T) {
	now := time.Now()
	d := newDiscovery(t, discovery.Options{})
	for i := range 4000 {
		d.LearnFrom(now, at(someID(i), in(i, 1)), discovery.SourceDNS, "seed.evil.test")
	}
	limit := discovery.NewReach * discovery.BucketSize
	if n := d.Stats().Book; n > limit {
		t.Errorf("%d entries of one teller, the limit is %d", n, limit)
	}
	honest := 0
	for i := range 50 {
		if d.LearnFrom(now, at(someID(10_000+i), in(1000+i, 1)), discovery.SourceDNS, "seed.honest.test") {
			honest++
		}
	}
	if honest < 25 {
		t.Errorf("of 50 peers of another teller %d have a place", honest)
	}
	checkBook(t, d)
}

func TestBookIsBounded(t *testing.T) {
	now := time.Now()
	for _, private := range []bool{false, true} {
		for _, limit := range []int{16, 300, 2048} {
			d := newDiscovery(t, discovery.Options{Private: private, MaxBook: limit})
			for i := range 8000 {
				ai := at(someID(i), in(i%1500, i))
				if i%3 == 0 {
					d.Reached(now, ai)
				} else {
					d.LearnFrom(now, ai, discovery.SourceDHT, fmt.Sprint(i%97))
				}
			}
			n := d.Stats().Book
			if n > limit || n < limit*3/4 {
				t.Errorf("private=%v: %d entries after 8000 peers, the limit is %d", private, n, limit)
			}
			checkBook(t, d)
		}
	}
}

// Hearsay takes a place from nobody of whom nothing bad is known, nor ever from one that answers.
func TestHearsayDoesNotDisplacePeers(t *testing.T) {
	now := time.Now()
	d := newDiscovery(t, discovery.Options{Private: true, MaxBook: 64})
	var good, silent []peer.ID
	for i := range 500 {
		switch {
		case i%2 == 0 && d.Reached(now, at(someID(i), in(i, 1))):
			good = append(good, someID(i))
		case d.Learn(now, at(someID(i), in(i, 1)), discovery.SourceDHT):
			silent = append(silent, someID(i))
		}
	}
	good = slices.DeleteFunc(good, func(id peer.ID) bool { return d.Known(id) == nil })
	silent = slices.DeleteFunc(silent, func(id peer.ID) bool { return d.Known(id) == nil })
	later := func(from int) {
		for i := range 3000 {
			d.Learn(now.Add(time.Hour), at(someID(from+i), in(i%700, 2)), discovery.SourceDHT)
		}
	}
	later(10_000)
	for _, id := range append(slices.Clone(good), silent...) {
		if d.Known(id) == nil {
			t.Fatal("a peer of whom nothing bad is known was displaced")
		}
	}
	for _, id := range silent {
		d.Failed(now, id, 1)
	}
	later(20_000)
	left := 0
	for _, id := range silent {
		if d.Known(id) != nil {
			left++
		}
	}
	if left > len(silent)/4 {
		t.Errorf("%d of %d peers that failed are still in the way", left, len(silent))
	}
	for _, id := range good {
		if d.Known(id) == nil {
			t.Fatal("a peer that answers gave way to hearsay")
		}
	}
	checkBook(t, d)
}

// Two peers that answered want one place: the one that has it is tested first.
func TestTestBeforeEvict(t *testing.T) {
	start := time.Now()
	collide := func(t *testing.T) (*discovery.Discovery, peer.ID, peer.ID) {
		t.Helper()
		d := newDiscovery(t, discovery.Options{Private: true, MaxBook: 64})
		for i := range 500 {
			d.Reached(start, at(someID(i), in(i, 1)))
			if p := d.Tests(); len(p) > 0 {
				return d, p[0][0], p[0][1]
			}
		}
		t.Fatal("no two peers met")
		return nil, "", ""
	}
	t.Run("the holder answers", func(t *testing.T) {
		d, candidate, holder := collide(t)
		d.Reached(start.Add(time.Minute), peer.AddrInfo{ID: holder, Addrs: d.Known(holder)})
		d.SettleTests(start.Add(2 * time.Minute))
		if !d.Proven(holder) || d.Proven(candidate) || d.Known(candidate) == nil || len(d.Tests()) != 0 {
			t.Errorf("holder proven %v, candidate proven %v", d.Proven(holder), d.Proven(candidate))
		}
		checkBook(t, d)
	})
	t.Run("the holder fails", func(t *testing.T) {
		d, candidate, holder := collide(t)
		d.SettleTests(start.Add(time.Minute))
		if !d.Proven(holder) || len(d.Tests()) != 1 {
			t.Fatal("displaced without a test")
		}
		d.Failed(start.Add(time.Minute), holder, 1)
		d.SettleTests(start.Add(2 * time.Minute))
		if d.Proven(holder) || !d.Proven(candidate) || len(d.Tests()) != 0 {
			t.Errorf("holder proven %v, candidate proven %v", d.Proven(holder), d.Proven(candidate))
		}
		checkBook(t, d)
	})
	t.Run("nobody could test", func(t *testing.T) {
		d, candidate, holder := collide(t)
		d.SettleTests(start.Add(time.Hour))
		if !d.Proven(holder) || d.Proven(candidate) || len(d.Tests()) != 0 {
			t.Errorf("holder proven %v, candidate proven %v, %d tests", d.Proven(holder), d.Proven(candidate), len(d.Tests()))
		}
	})
	t.Run("few at once", func(t *testing.T) {
		d := newDiscovery(t, discovery.Options{Private: true, MaxBook: 64})
		for i := range 5000 {
			d.Reached(start, at(someID(i), in(i, 1)))
		}
		if n := len(d.Tests()); n == 0 || n > discovery.MaxTests {
			t.Errorf("%d tests wait, the limit is %d", n, discovery.MaxTests)
		}
	})
}

// A pulled cable must not cost the book its entries.
func TestBeingOfflineCostsNoPlace(t *testing.T) {
	now := time.Now()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: t.TempDir()})
	d.Learn(now, at(someID(1), "10.0.0.1"), discovery.SourceDNS)
	d.Reached(now.Add(-8*24*time.Hour), at(someID(2), "10.0.0.2"))
	d.FailedAlone(now, someID(1), 1000)
	d.FailedAlone(now, someID(2), 1000)
	if err := d.SaveBook(); err != nil { // forgets first
		t.Fatal(err)
	}
	if d.Known(someID(1)) == nil || d.Known(someID(2)) == nil {
		t.Fatal("forgotten for failures while offline")
	}
	d.Failed(now, someID(1), discovery.MaxNewAttempts)
	d.Learn(now, at(someID(3), "10.0.0.3"), discovery.SourceDNS) // something to save
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	if d.Known(someID(1)) != nil {
		t.Fatal("never answered, failed often, and still there")
	}
}

// Everyone stands where they stood: a restart loses nobody.
func TestPlacesSurviveARestart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	d := newDiscovery(t, discovery.Options{Dir: dir})
	ids := testPeers(t, 1200)
	for i, id := range ids {
		if i%2 == 0 {
			d.Reached(now, at(id, in(i%400, i)))
		} else {
			d.LearnFrom(now, at(id, in(i%400, i)), discovery.SourceDNS, fmt.Sprint(i%31))
		}
	}
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	again := newDiscovery(t, discovery.Options{Dir: dir})
	for _, id := range ids {
		if (d.Known(id) == nil) != (again.Known(id) == nil) || d.Proven(id) != again.Proven(id) {
			t.Fatalf("%s: known %v, proven %v; after the restart %v, %v", id, d.Known(id), d.Proven(id), again.Known(id), again.Proven(id))
		}
	}
	if a, b := d.Stats(), again.Stats(); a.Book != b.Book || a.Book < 700 {
		t.Fatalf("%d entries, after a restart %d", a.Book, b.Book)
	}
	checkBook(t, again)
}

// The inner order holds whatever happens in whatever order.
func TestBookInAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Now()
		d := newDiscovery(t, discovery.Options{Private: seed%2 == 0, MaxBook: 64})
		ids := testPeers(t, 40)
		for range 3000 {
			now = now.Add(time.Duration(r.IntN(3600)) * time.Second)
			id := ids[r.IntN(len(ids))]
			ai := at(id, in(r.IntN(30), r.IntN(200)))
			switch r.IntN(8) {
			case 0, 1:
				d.LearnFrom(now, ai, discovery.SourceDNS, fmt.Sprint(r.IntN(5)))
			case 2, 3:
				d.Reached(now, ai)
			case 4:
				if d.Known(id) != nil {
					d.Failed(now, id, 1+r.IntN(4))
				}
			case 5:
				d.SettleTests(now)
			case 6:
				_ = d.AddPeer(ai, r.IntN(2) == 0)
			case 7:
				_ = d.RemovePeer(id)
			}
			checkBook(t, d)
		}
	}
}

// A peer whose best address moves to another IP group moves with it.
func TestGroupFollowsTheAddress(t *testing.T) {
	now := time.Now()
	d := newDiscovery(t, discovery.Options{})
	for g := range 300 {
		d.Reached(now, at(someID(1), in(g, 1)))
		if !d.Proven(someID(1)) || !slices.ContainsFunc(d.Known(someID(1)), func(a ma.Multiaddr) bool { return discovery.GroupOf(a) == fmt.Sprintf("%d.%d.0.0/16", 20+g/200, g%200) }) {
			t.Fatalf("group %d: %v", g, d.Known(someID(1)))
		}
		checkBook(t, d)
	}
}

// Who is avoided no longer counts as proven, neither now nor after a restart.
func TestAvoidedIsNotProven(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	id := testPeers(t, 1)[0]
	d.Reached(now, at(id, "10.0.0.1"))
	d.Avoid(id, time.Hour, "wrong genesis")
	if d.Proven(id) {
		t.Error("proven")
	}
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	if again := newDiscovery(t, discovery.Options{Private: true, Dir: dir}); again.Proven(id) {
		t.Error("proven after a restart")
	}
	checkBook(t, d)
}

// While we have no peer at all, a failed test says nothing of the holder.
func TestOfflineEndsNoTest(t *testing.T) {
	start := time.Now()
	d := newDiscovery(t, discovery.Options{Private: true, MaxBook: 64})
	for i := 0; len(d.Tests()) == 0; i++ {
		d.Reached(start, at(someID(i), in(i, 1)))
	}
	candidate, holder := d.Tests()[0][0], d.Tests()[0][1]
	d.FailedAlone(start.Add(time.Minute), holder, 3)
	d.SettleTests(start.Add(2 * time.Minute))
	if !d.Proven(holder) || d.Proven(candidate) {
		t.Error("a pulled cable cost a place")
	}
}

// What others say of an operator's peer does not push out the address that the operator gave.
func TestOperatorsAddressStays(t *testing.T) {
	id := testPeers(t, 1)[0]
	own := ma.StringCast("/ip4/10.0.0.1/tcp/1")
	d := newDiscovery(t, discovery.Options{Private: true, Bootstrap: []ma.Multiaddr{ma.StringCast(own.String() + "/p2p/" + id.String())}})
	for i := range 20 {
		d.Learn(time.Now(), at(id, fmt.Sprintf("10.6.6.%d", i+1)), discovery.SourceDHT)
	}
	if got := d.Known(id); len(got) != 8 || !got[0].Equal(own) {
		t.Errorf("addresses %v", got)
	}
}
