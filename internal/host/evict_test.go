package host_test

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/internal/host"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// TestMakeRoom: the decisions one by one.
func TestMakeRoom(t *testing.T) {
	conn := func(id, group string, age time.Duration) host.Inbound {
		return host.Inbound{ID: id, Peer: peer.ID(id), Group: group, Since: noon.Add(-age)}
	}
	crowd := func(n int, group string, age time.Duration) (all []host.Inbound) {
		for i := range n {
			all = append(all, conn(fmt.Sprintf("%s%03d", group, i), group, age+time.Duration(n-i)*time.Second))
		}
		return all
	}
	apart := func(n int, age time.Duration) (all []host.Inbound) {
		for i := range n {
			all = append(all, conn(fmt.Sprintf("p%03d", i), fmt.Sprint("g", i), age+time.Duration(n-i)*time.Second))
		}
		return all
	}
	with := func(c host.Inbound, edit func(*host.Inbound)) host.Inbound {
		edit(&c)
		return c
	}
	for name, c := range map[string]struct {
		all    []host.Inbound
		new    host.Inbound
		rotate bool
		want   string // id; empty: the newcomer is refused
	}{
		"the youngest of the largest group leaves": {
			slices.Concat(apart(4, time.Hour), crowd(4, "big", time.Minute)), conn("new", "other", 0), false, "big003",
		},
		"not for one more of that group": {
			slices.Concat(apart(4, time.Hour), crowd(4, "big", time.Minute)), conn("new", "big", 0), true, "",
		},
		"one more of that group takes turns": {
			slices.Concat(apart(4, time.Hour), crowd(4, "big", time.Hour)), conn("new", "big", 0), true, "big003",
		},
		"a larger group does not push out a smaller one": {
			slices.Concat(crowd(4, "old", 3*time.Hour), apart(8, time.Hour)), conn("new", "old", 0), true, "",
		},
		"equals take turns":        {apart(8, time.Hour), conn("new", "other", 0), true, "p007"},
		"equals take turns slowly": {apart(8, time.Hour), conn("new", "other", 0), false, ""},
		"equals take turns after a while": {
			slices.Concat(apart(8, time.Hour), []host.Inbound{conn("fresh", "f", host.Tenure-1)}), conn("new", "other", 0), true, "p007",
		},
		"nobody is there to leave": {nil, conn("new", "other", 0), true, ""},
		"the operator's own stays": {
			[]host.Inbound{with(conn("own", "g", time.Hour), func(c *host.Inbound) { c.Keep = true })}, conn("new", "other", 0), true, "",
		},
		"the operator's own is let in": {
			apart(8, time.Second), with(conn("own", "other", 0), func(c *host.Inbound) { c.Keep = true }), false, "p007",
		},
		"but not by another of them": {
			[]host.Inbound{with(conn("own", "g", time.Hour), func(c *host.Inbound) { c.Keep = true })},
			with(conn("new", "other", 0), func(c *host.Inbound) { c.Keep = true }), true, "",
		},
		"a peer's older connection leaves for its newer one": {
			apart(8, time.Hour), with(conn("new", "g0", 0), func(c *host.Inbound) { c.Peer = "p000" }), false, "p000",
		},
		"but not while dials race": {
			apart(8, 0), with(conn("new", "g0", 0), func(c *host.Inbound) { c.Peer = "p000" }), false, "",
		},
		"a second connection to a peer leaves first": {
			slices.Concat([]host.Inbound{with(conn("twice", "g", time.Hour), func(c *host.Inbound) { c.Redundant = true })}, apart(8, time.Hour)),
			conn("new", "other", 0), false, "twice",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i, ok := host.MakeRoom(noon, maphash.MakeSeed(), c.all, c.new, c.rotate)
			got := ""
			if ok {
				got = c.all[i].ID
			}
			if got != c.want {
				t.Errorf("%q leaves, want %q", got, c.want)
			}
		})
	}
}

// TestVirtuesProtect: each thing that speaks for a peer keeps it, though it is the youngest of the largest group.
func TestVirtuesProtect(t *testing.T) {
	for name, virtue := range map[string]func(*host.Inbound){
		"near":              func(c *host.Inbound) { c.RTT = time.Millisecond },
		"brought a block":   func(c *host.Inbound) { c.LastBlock = noon.Add(-time.Minute) },
		"brought a tx":      func(c *host.Inbound) { c.LastTx = noon.Add(-time.Minute) },
		"in use":            func(c *host.Inbound) { c.InUse = true },
		"nothing (control)": nil,
	} {
		t.Run(name, func(t *testing.T) {
			var all []host.Inbound
			for i := range 32 {
				all = append(all, host.Inbound{
					ID: fmt.Sprint(i), Peer: peer.ID(fmt.Sprint(i)), Group: fmt.Sprint(i), Since: noon.Add(-time.Hour),
					Standing: host.Standing{RTT: time.Second, LastBlock: noon.Add(-time.Hour), LastTx: noon.Add(-time.Hour)},
				})
			}
			// Enough of them that the draw among groups and age keep others.
			for i := range 32 {
				all = append(all, host.Inbound{ID: fmt.Sprint("big", i), Peer: peer.ID(fmt.Sprint("big", i)), Group: "big", Since: noon.Add(-time.Minute)})
			}
			all = append(all, host.Inbound{ID: "good", Peer: "good", Group: "big", Since: noon.Add(-time.Second)})
			if virtue != nil {
				virtue(&all[len(all)-1])
			}
			i, ok := host.MakeRoom(noon, maphash.MakeSeed(), all, host.Inbound{ID: "new", Peer: "new", Group: "other", Since: noon}, false)
			if !ok {
				t.Fatal("nobody leaves")
			}
			if left := all[i].ID == "good"; left != (virtue == nil) {
				t.Errorf("it left: %v", left)
			}
			if all[i].Group != "big" {
				t.Errorf("%s of group %s leaves, not one of the largest group", all[i].ID, all[i].Group)
			}
		})
	}
}

// TestAttackerCannotPushOut: an attacker with any number of connections from k IP groups, nearer than anybody, first with every block and
// transaction and in every routing table, plays against honest peers of groups of their own. Whatever the order:
//   - the honest peers that were there first stay, as many as half of what is left when every class of protection is the attacker's;
//   - of all honest peers it pushes out no more than it has groups, for in equal standing it gains one place a group;
//   - honest peers still get in when it holds everything else.
func TestAttackerCannotPushOut(t *testing.T) {
	for trial := range uint64(60) {
		r := rand.New(rand.NewPCG(trial, 7))
		slots := 16 + r.IntN(113)
		k := 1 + r.IntN(10)
		seed := maphash.MakeSeed()
		now := noon
		var all []host.Inbound
		serial := 0
		name := func() string { serial++; return fmt.Sprintf("%06d", r.IntN(1_000_000)) + fmt.Sprint("-", serial) }
		honest := func() host.Inbound {
			id := name()
			return host.Inbound{ID: id, Peer: peer.ID(id), Group: "honest" + id, Since: now, Standing: host.Standing{RTT: 80 * time.Millisecond}}
		}
		evil := func() host.Inbound {
			id := name()
			return host.Inbound{
				ID: id, Peer: peer.ID(id), Group: fmt.Sprint("evil", r.IntN(k)), Since: now,
				Standing: host.Standing{RTT: time.Microsecond, LastBlock: now, LastTx: now, InUse: true},
			}
		}
		isHonest := func(c host.Inbound) bool { return c.Group[0] == 'h' }
		// offer lets c in if there is room, and says who left.
		offer := func(c host.Inbound) (in bool, left *host.Inbound) {
			if len(all) < slots {
				all = append(all, c)
				return true, nil
			}
			for i := range all { // they go on bringing what is new
				if !isHonest(all[i]) {
					all[i].LastBlock, all[i].LastTx = now, now
				}
			}
			i, ok := host.MakeRoom(now, seed, all, c, true)
			if !ok {
				return false, nil
			}
			gone := all[i]
			all[i] = c
			return true, &gone
		}
		protected := 0
		for _, n := range []int{4, 8, 4, 8, 8} {
			protected += min(n, slots/host.ClassShare)
		}
		elders := map[string]bool{}
		for range (slots - protected) / 2 {
			c := honest()
			elders[c.ID] = true
			offer(c)
			now = now.Add(time.Second)
		}
		for len(all) < slots-r.IntN(slots/4+1) { // some younger honest peers, and free slots for the attacker
			offer(honest())
			now = now.Add(time.Second)
		}
		lost := 0
		for range 600 {
			now = now.Add(time.Duration(r.IntN(60)) * time.Second)
			if _, left := offer(evil()); left != nil && isHonest(*left) {
				lost++
				if elders[left.ID] {
					t.Fatalf("trial %d: %d slots, %d groups: an elder was pushed out", trial, slots, k)
				}
			}
			if len(all) > slots {
				t.Fatalf("%d connections for %d slots", len(all), slots)
			}
		}
		if lost > k {
			t.Fatalf("trial %d: %d slots: %d honest peers pushed out from %d groups", trial, slots, lost, k)
		}
		// Now the other way round: it has all slots, and honest peers come.
		all = all[:0]
		for len(all) < slots {
			offer(evil())
			now = now.Add(time.Second)
		}
		in := 0
		for range slots {
			now = now.Add(time.Second)
			if ok, left := offer(honest()); ok {
				if isHonest(*left) {
					continue // honest peers may take turns with one another
				}
				in++
			}
		}
		// What no virtue nor age keeps is theirs, but for one place a group.
		if want := (slots-protected)/2 - k; in < want {
			t.Fatalf("trial %d: %d slots, %d groups: %d honest peers got in, want %d at least", trial, slots, k, in, want)
		}
	}
}

// fakeConn is an inbound connection.
type fakeConn struct {
	network.Conn // nil: what is not here is not asked for
	id           string
	peer         peer.ID
	addr         ma.Multiaddr
	closed       bool
}

func (c *fakeConn) ID() string                                   { return c.id }
func (c *fakeConn) RemotePeer() peer.ID                          { return c.peer }
func (c *fakeConn) RemoteMultiaddr() ma.Multiaddr                { return c.addr }
func (c *fakeConn) IsClosed() bool                               { return c.closed }
func (c *fakeConn) CloseWithError(_ network.ConnErrorCode) error { c.closed = true; return nil }

// crowd offers n connections with addresses by from and counts those that stay.
func crowd(t *testing.T, a *host.Admission, n int, name string, from func(i int) string) (conns []*fakeConn, in int) {
	t.Helper()
	for i := range n {
		c := &fakeConn{id: fmt.Sprint(name, i), peer: peer.ID(fmt.Sprint(name, i)), addr: addrs(t, from(i))[0]}
		if a.Admit(c) {
			a.Up(c)
			conns = append(conns, c)
		}
	}
	for _, c := range conns {
		if !c.closed {
			in++
		}
	}
	return conns, in
}

// TestShares: one address and one IP group have their share of the slots on a public network; on a private one, and
// behind a proxy with a private address, everybody has the same right.
func TestShares(t *testing.T) {
	one := func(int) string { return "/ip4/198.41.0.4/tcp/1" }
	group := func(i int) string { return fmt.Sprintf("/ip4/198.41.%d.%d/tcp/1", i/250, i%250+1) }
	home6 := func(i int) string { return fmt.Sprintf("/ip6/2606:4700:0:a%02x::%d/tcp/1", i%256, i+1) }
	for _, c := range []struct {
		name    string
		slots   int
		private bool
		from    func(int) string
		want    int
	}{
		{"forty nodes behind one address, private", 128, true, one, 40},
		{"forty nodes behind one address, public", 128, false, one, 16},
		{"a small node, one address", 16, false, one, 2},
		{"a container's proxy on a public network", 128, false, func(int) string { return "/ip4/172.17.0.1/tcp/1" }, 40},
		{"loopback on a public network", 128, false, func(int) string { return "/ip4/127.0.0.1/tcp/1" }, 40},
		{"one IP group", 128, false, group, 32},
		{"one IP group, small node", 16, false, group, 4},
		{"one home's IPv6", 128, false, home6, 16},
		{"through one relay", 128, false, func(int) string {
			return "/ip4/198.41.0.4/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"
		}, 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := host.NewAdmission(host.Options{MaxInbound: c.slots, Private: c.private, Logger: slog.New(slog.DiscardHandler)}, func() time.Time { return noon })
			if _, in := crowd(t, a, 40, "p", c.from); in != c.want {
				t.Errorf("%d of 40 have a slot, want %d", in, c.want)
			}
			if r := a.Refused(); r.Share != uint64(40-c.want) || r.Evicted != 0 {
				t.Errorf("counted %+v", r)
			}
			// Whatever the first took, others get in.
			if _, in := crowd(t, a, 4, "other", func(i int) string { return fmt.Sprintf("/ip4/93.%d.1.1/tcp/1", i+1) }); in != 4 {
				t.Errorf("%d of 4 others have a slot", in)
			}
		})
	}
}

// TestAdmissionTakesTurns: what holds a share takes turns in it, and a connection that the swarm has not
// told of yet is never ended by us.
func TestAdmissionTakesTurns(t *testing.T) {
	now := noon
	a := host.NewAdmission(host.Options{MaxInbound: 16, Logger: slog.New(slog.DiscardHandler)}, func() time.Time { return now })
	one := func(int) string { return "/ip4/198.41.0.4/tcp/1" }
	first, _ := crowd(t, a, 1, "a", one)
	now = now.Add(time.Second)
	second, _ := crowd(t, a, 1, "a again", one)
	first = append(first, second...)
	now = now.Add(host.Tenure / 2)
	if _, in := crowd(t, a, 1, "b", one); in != 0 {
		t.Error("it took a place from one that has just come")
	}
	now = now.Add(host.Tenure / 2)
	if _, in := crowd(t, a, 1, "c", one); in != 1 || !first[1].closed || first[0].closed {
		t.Errorf("in %d, ended: %v %v; want the younger of the two to leave", in, first[0].closed, first[1].closed)
	}
	if _, in := crowd(t, a, 1, "d", one); in != 0 {
		t.Error("two took turns at once")
	}
	if got := a.Held(); got != 2 {
		t.Errorf("%d slots held, want 2", got)
	}
	a.Down(first[0])
	if got := a.Held(); got != 1 {
		t.Errorf("%d slots held after one has left, want 1", got)
	}

	pending := host.NewAdmission(host.Options{MaxInbound: 1, Private: true, Logger: slog.New(slog.DiscardHandler)}, func() time.Time { return now })
	c := &fakeConn{id: "p", peer: "p", addr: addrs(t, one(0))[0]}
	if !pending.Admit(c) {
		t.Fatal("refused though nobody is there")
	}
	now = now.Add(24 * time.Hour)
	if _, in := crowd(t, pending, 1, "q", one); in != 0 || c.closed {
		t.Error("a connection was ended before the swarm knew it")
	}
	pending.Up(c)
	if _, in := crowd(t, pending, 1, "r", one); in != 1 || !c.closed {
		t.Error("it did not make room for its equal in the end")
	}
}

// TestSecondConnectionGivesWay: where both nodes dialled, the connection that they can do without makes room.
func TestSecondConnectionGivesWay(t *testing.T) {
	now := noon
	a := host.NewAdmission(host.Options{MaxInbound: 4, Private: true, Logger: slog.New(slog.DiscardHandler)}, func() time.Time { return now })
	a.Dialled(func() map[peer.ID]bool { return map[peer.ID]bool{"p1": true} })
	conns, _ := crowd(t, a, 4, "p", func(int) string { return "/ip4/10.0.0.1/tcp/1" })
	now = now.Add(host.SupplantAfter)
	if _, in := crowd(t, a, 1, "q", func(int) string { return "/ip4/10.0.0.2/tcp/1" }); in != 1 || !conns[1].closed {
		t.Errorf("in %d, the second connection ended: %v", in, conns[1].closed)
	}
}
