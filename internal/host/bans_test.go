package host_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/internal/host"
)

const somePeer = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

func TestBanTargets(t *testing.T) {
	b, err := host.LoadBans("")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		somePeer: somePeer, " 203.0.113.7 ": "203.0.113.7", "::ffff:203.0.113.8": "203.0.113.8", "203.0.113.77/24": "203.0.113.0/24",
		"2001:db8::1": "2001:db8::1", "2001:db8:1::/48": "2001:db8:1::/48", "fe80::1%eth0": "fe80::1", "::ffff:198.51.100.0/120": "198.51.100.0/24",
	} {
		got, err := b.Add(in, time.Hour, "a\nreason\x00")
		if err != nil || got.Target != want || got.Reason != "a reason " {
			t.Errorf("%q: %+v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "203.0.113", "0.0.0.0/0", "::/0", "203.0.113.7/33", "203.0.113.7:9333", "/ip4/203.0.113.7"} {
		if got, err := b.Add(in, time.Hour, ""); err == nil {
			t.Errorf("%q was banned: %+v", in, got)
		}
	}
	for _, how := range []time.Duration{0, -time.Hour, time.Millisecond, host.MaxBanTime + time.Second} {
		if _, err := b.Add("203.0.113.9", how, ""); err == nil {
			t.Errorf("banned for %s", how)
		}
	}
	if err := b.Remove("203.0.113.99"); !errors.Is(err, host.ErrNotBanned) {
		t.Errorf("error %v", err)
	}
	if err := b.Remove("203.0.113.1/24"); err != nil {
		t.Error(err)
	}
}

func TestBansGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := host.LoadBans("")
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.Decode(somePeer)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{somePeer, "203.0.113.0/24", "2001:db8::/32"} {
			if _, err := b.Add(target, time.Hour, ""); err != nil {
				t.Fatal(err)
			}
		}
		allowed := func(id peer.ID, addr string) bool { return b.InterceptAddrDial(id, ma.StringCast(addr)) }
		for addr, want := range map[string]bool{
			"/ip4/203.0.113.200/tcp/1": false, "/ip4/203.0.114.1/tcp/1": true, "/ip6/2001:db8:ffff::1/udp/1/quic-v1": false,
			"/ip6/::ffff:203.0.113.1/tcp/1": false, "/dns4/x.test/tcp/1": true, "/ip6/2001:db9::1/tcp/1": true,
		} {
			if got := allowed("other", addr); got != want {
				t.Errorf("%s: allowed %v", addr, got)
			}
		}
		if allowed(id, "/ip4/8.8.8.8/tcp/1") || b.InterceptPeerDial(id) || !b.InterceptPeerDial("other") {
			t.Error("the ban of a peer")
		}
		<-time.After(time.Hour)
		if !allowed(id, "/ip4/203.0.113.200/tcp/1") || len(b.List()) != 0 {
			t.Error("a ban outlived its time")
		}
	})
}

func TestBansSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans.json")
	b, err := host.LoadBans(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range host.MaxBans {
		if i == 3 { // the rest at once: a file for each is slow
			break
		}
		if _, err := b.Add(fmt.Sprintf("10.0.0.%d", i), time.Duration(i+1)*time.Hour, "test"); err != nil {
			t.Fatal(err)
		}
	}
	again, err := host.LoadBans(path)
	if err != nil || fmt.Sprint(again.List()) != fmt.Sprint(b.List()) || len(again.List()) != 3 {
		t.Fatalf("after a restart %v, %v", again.List(), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for name, text := range map[string]string{
		"cut": "[", "no list": "{}", "an unknown target": `[{"target":"x","until":"2999-01-01T00:00:00Z"}]`, "empty": "",
		"everybody": `[{"target":"0.0.0.0/0","until":"2999-01-01T00:00:00Z"}]`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := host.LoadBans(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte(`[{"target":"10.0.0.1","until":"1999-01-01T00:00:00Z"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := host.LoadBans(path); err != nil || len(b.List()) != 0 {
		t.Errorf("an old ban: %v", err)
	}
}

func TestBansAreBounded(t *testing.T) {
	b, err := host.LoadBans("")
	if err != nil {
		t.Fatal(err)
	}
	for i := range host.MaxBans {
		if _, err := b.Add(fmt.Sprintf("10.%d.%d.1", i/256, i%256), time.Hour, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Add("11.0.0.1", time.Hour, ""); err == nil {
		t.Error("one ban too many")
	}
	if _, err := b.Add("10.0.0.1", 2*time.Hour, "again"); err != nil {
		t.Errorf("a ban could not be renewed: %v", err)
	}
}

// TestShun: the node's own bans are by peer, end, are not saved, are bounded, and
// leave the operator's alone.
func TestShun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "bans.json")
		b, err := host.LoadBans(file)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.Decode(somePeer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Add("203.0.113.7", 24*time.Hour, "the operator's"); err != nil {
			t.Fatal(err)
		}
		if got := b.Shun(id, time.Hour, "sent\ngarbage"); !got.Auto || got.Reason != "sent garbage" || got.Until.Sub(got.Since) != time.Hour {
			t.Errorf("%+v", got)
		}
		if b.InterceptPeerDial(id) || !b.InterceptAddrDial("", ma.StringCast("/ip4/198.51.100.1/tcp/1")) {
			t.Error("the peer may be dialled, or others may not")
		}
		if list := b.List(); len(list) != 2 || list[0].Target != somePeer || !list[0].Auto || list[1].Auto {
			t.Errorf("%+v", list)
		}
		time.Sleep(30 * time.Minute)
		b.Shun(id, time.Hour, "again") // from now on
		if _, err := b.Add("203.0.113.8", time.Hour, ""); err != nil {
			t.Fatal(err) // and saves
		}
		again, err := host.LoadBans(file)
		if err != nil {
			t.Fatal(err)
		}
		if list := again.List(); len(list) != 2 || list[0].Auto || list[1].Auto {
			t.Errorf("after a restart: %+v", list)
		}
		time.Sleep(59 * time.Minute)
		if b.InterceptPeerDial(id) {
			t.Error("it may be dialled too early")
		}
		time.Sleep(2 * time.Minute)
		if !b.InterceptPeerDial(id) {
			t.Error("it is shunned for ever")
		}
		b.Shun(id, time.Hour, "")
		if err := b.Remove(somePeer); err != nil || !b.InterceptPeerDial(id) {
			t.Errorf("unban: %v", err)
		}
		// Of many the last are kept, and the operator's bans among them.
		for i := range host.MaxShunned + 10 {
			b.Shun(peer.ID(fmt.Sprint(i)), time.Hour+time.Duration(i)*time.Second, "")
		}
		if n := len(b.List()); n != host.MaxShunned+1 {
			t.Errorf("%d bans", n)
		}
		if !b.InterceptPeerDial("9") || b.InterceptPeerDial("10") || b.InterceptAddrDial("", ma.StringCast("/ip4/203.0.113.7/tcp/1")) {
			t.Error("the wrong ones were let in")
		}
	})
}
