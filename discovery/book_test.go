package discovery_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	blankhost "github.com/libp2p/go-libp2p/p2p/host/blank"
	swarmt "github.com/libp2p/go-libp2p/p2p/net/swarm/testing"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// idle is a host that neither listens nor dials.
func idle(tb testing.TB) host.Host {
	tb.Helper()
	h := blankhost.NewBlankHost(swarmt.GenSwarm(tb, swarmt.OptDialOnly))
	tb.Cleanup(func() { h.Close() })
	return h
}

func newDiscovery(tb testing.TB, o discovery.Options) *discovery.Discovery {
	tb.Helper()
	o.Namespace = simNamespace
	if o.Host == nil {
		o.Host = idle(tb)
	}
	d, err := discovery.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	seed := secret(tb)
	d.SetSalt(seed[:])
	return d
}

func at(id peer.ID, ip string) peer.AddrInfo {
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ipAddr(netip.MustParseAddr(ip), 9000)}}
}

func ipAddr(ip netip.Addr, port int) ma.Multiaddr {
	kind := "ip6"
	if ip.Is4() {
		kind = "ip4"
	}
	return ma.StringCast(fmt.Sprintf("/%s/%s/tcp/%d", kind, ip, port))
}

func TestOptionsReportEveryFault(t *testing.T) {
	id := testPeers(t, 1)[0].String()
	_, err := discovery.New(discovery.Options{
		Namespace: "dunlin", MaxOutbound: -2, MaxBook: 3, FeelerInterval: time.Millisecond,
		Bootstrap: []ma.Multiaddr{
			ma.StringCast("/ip4/10.0.0.1/tcp/1"), ma.StringCast("/ip4/0.0.0.0/tcp/1/p2p/" + id),
			ma.StringCast("/dns4/x.test/tcp/1"), ma.StringCast("/p2p/" + id), nil,
			ma.StringCast("/dnsaddr/fine.test"), ma.StringCast("/dns4/fine.test/tcp/1/p2p/" + id),
		},
		Persistent: []ma.Multiaddr{ma.StringCast("/ip4/10.0.0.1/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id)},
		DNSSeeds:   []string{"/ip4/10.0.0.1/tcp/1", "10.0.0.1", "a b", "", "fine.test", "/dnsaddr/fine.test"},
		DNSServers: []string{"10.0.0.1", "10.0.0.1:53"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"Host: missing", `Namespace: "dunlin"`, "MaxOutbound: -2", "MaxBook: 3", "FeelerInterval: 1ms",
		"Bootstrap: /ip4/10.0.0.1/tcp/1: no peer id", "Bootstrap: /ip4/0.0.0.0/", "Bootstrap: /dns4/x.test/tcp/1: no peer id",
		"without an address", "empty address", "Persistent: ", "relayed",
		`DNSSeeds: "/ip4/10.0.0.1/tcp/1"`, `"10.0.0.1": an IP address is no DNS seed`, `DNSSeeds: "a b"`, `DNSSeeds: ""`, `DNSServers: "10.0.0.1" is not`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if strings.Contains(err.Error(), "fine.test") {
		t.Error("a good address is blamed")
	}
	if t.Failed() {
		t.Log(err)
	}
}

// Hearsay adds addresses to a peer that answers, behind its own; once it no longer
// answers, new addresses come first.
func TestHearsayDoesNotDisplaceAddresses(t *testing.T) {
	now := time.Now()
	d := newDiscovery(t, discovery.Options{Private: true})
	id := testPeers(t, 1)[0]
	d.Reached(now, at(id, "10.0.0.1"))
	for i := range 20 {
		d.Learn(now, at(id, fmt.Sprintf("10.6.6.%d", i+1)), discovery.SourceDHT)
	}
	if got := d.Known(id); len(got) != 8 || got[0].String() != "/ip4/10.0.0.1/tcp/9000" {
		t.Fatalf("addresses %v", got)
	}
	d.Failed(now, id, 3)
	d.Learn(now, at(id, "10.0.0.2"), discovery.SourceDHT)
	if got := d.Known(id); len(got) != 8 || got[0].String() != "/ip4/10.0.0.2/tcp/9000" {
		t.Fatalf("addresses %v", got)
	}
}

func TestBookSurvivesRestartAndDamage(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ids := testPeers(t, 10)
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	for i, id := range ids {
		d.Learn(now, at(id, fmt.Sprintf("10.0.0.%d", i+1)), discovery.SourceDNS)
	}
	d.Failed(now, ids[9], 10) // never reached, tried often: not worth a place
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "peers.jsonl")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, error %v", info.Mode(), err)
	}
	reload := func(data []byte) (*discovery.Discovery, string) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var log logLines
		return newDiscovery(t, discovery.Options{Private: true, Dir: dir, Logger: log.logger()}), log.String()
	}
	if d, log := reload(good); d.Stats().Book != 9 || log != "" {
		t.Fatalf("book of %d, log %q", d.Stats().Book, log)
	}
	tests := []struct {
		name   string
		damage func(b []byte) []byte
		keep   int
	}{
		{"a bit", withABitFlipped, 8},
		{"the end is missing", func(b []byte) []byte { return b[:len(b)-5] }, 8},
		{"a line of garbage", func(b []byte) []byte { return append(b, "garbage\n"...) }, 9},
		{"zeros at the end", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, 9},
		{"a long line", func(b []byte) []byte { return append(b, bytes.Repeat([]byte{'x'}, 100_000)...) }, 9},
		{"all of it", func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, len(b)) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := tt.damage(bytes.Clone(good))
			d, log := reload(bad)
			if n := d.Stats().Book; n != tt.keep {
				t.Errorf("%d entries left, want %d", n, tt.keep)
			}
			if !strings.Contains(log, "level=WARN msg=\"saved peers are damaged") {
				t.Errorf("log %q", log)
			}
			if kept, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(kept, bad) {
				t.Errorf("the damaged file was not kept: %v", err)
			}
			d.Learn(now, at(testPeers(t, 1)[0], "10.0.1.1"), discovery.SourceDNS)
			if err := d.SaveBook(); err != nil {
				t.Fatal(err)
			}
			if d, log := reload(readFile(t, path)); d.Stats().Book != tt.keep+1 || log != "" {
				t.Errorf("after the next save: %d entries, log %q", d.Stats().Book, log)
			}
		})
	}
}

// TestTooLongAFile: of a file that cannot be one of ours the beginning is read, and memory is not taken for the rest.
func TestTooLongAFile(t *testing.T) {
	dir := t.TempDir()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	d.Learn(time.Now(), at(testPeers(t, 1)[0], "10.0.0.1"), discovery.SourceDNS)
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "peers.jsonl")
	if err := os.Truncate(path, discovery.MaxFileBytes+1); err != nil { // a hole, which reads as zeros
		t.Fatal(err)
	}
	before := heap()
	lines, damaged, err := discovery.ReadLines(path)
	if err != nil || len(lines) != 2 || damaged != 2 {
		t.Errorf("%d lines, %d damaged, %v; want header and peer, the zeros and the end", len(lines), damaged, err)
	}
	if grew := heap() - before; grew > 4<<20 {
		t.Errorf("%d bytes of memory", grew)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFileOfAnotherNetworkIsRefused(t *testing.T) {
	dir := t.TempDir()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	d.Learn(time.Now(), at(testPeers(t, 1)[0], "10.0.0.1"), discovery.SourceDNS)
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	_, err := discovery.New(discovery.Options{Host: idle(t), Namespace: "/dunlin/other-00000000", Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "another network") {
		t.Fatalf("error %v", err)
	}
}

func TestOldEntriesAreForgotten(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ids := testPeers(t, 4)
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	d.Learn(now.Add(-31*24*time.Hour), at(ids[0], "10.0.0.1"), discovery.SourceDNS)
	d.Reached(now.Add(-31*24*time.Hour), at(ids[1], "10.0.0.1"))
	d.Reached(now.Add(-29*24*time.Hour), at(ids[2], "10.0.0.1"))
	d.Reached(now.Add(-8*24*time.Hour), at(ids[3], "10.0.0.1"))
	d.Failed(now, ids[3], 20)
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	d = newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	for i, want := range []bool{false, false, true, false} {
		if got := d.Known(ids[i]) != nil; got != want {
			t.Errorf("peer %d: kept %v, want %v", i, got, want)
		}
	}
}

func TestAddedPeers(t *testing.T) {
	dir := t.TempDir()
	ids := testPeers(t, discovery.MaxAdded+1)
	h := idle(t)
	d := newDiscovery(t, discovery.Options{Host: h, Dir: dir, Private: true})
	for i, id := range ids[:discovery.MaxAdded] {
		if err := d.AddPeer(at(id, "10.0.0.1"), i == 0); err != nil {
			t.Fatal(err)
		}
	}
	again := at(ids[0], "10.0.0.7")
	again.Addrs = append(again.Addrs, ma.StringCast("/dns4/x.test/tcp/1"))
	if err := d.AddPeer(again, true); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		ai   peer.AddrInfo
		err  error
	}{
		{"one too many", at(ids[discovery.MaxAdded], "10.0.0.1"), discovery.ErrTooManyPeers},
		{"ourselves", at(h.ID(), "10.0.0.1"), discovery.ErrSelf},
		{"no address", peer.AddrInfo{ID: ids[0]}, nil},
		{"no id", at("", "10.0.0.1"), nil},
		{"0.0.0.0", at(ids[0], "0.0.0.0"), nil},
	} {
		if err := d.AddPeer(tt.ai, false); err == nil || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	if err := d.RemovePeer(ids[1]); err != nil {
		t.Fatal(err)
	}
	if err := d.RemovePeer(ids[1]); !errors.Is(err, discovery.ErrNotAdded) {
		t.Fatalf("error %v", err)
	}
	want := d.Added()
	if len(want) != discovery.MaxAdded-1+1 { // one has two addresses
		t.Fatalf("%d addresses", len(want))
	}
	d = newDiscovery(t, discovery.Options{Host: h, Dir: dir, Private: true})
	if got := d.Added(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("after a restart %v, want %v", got, want)
	}
	if s := d.Stats(); s.Static != discovery.MaxAdded-1 || len(s.Names) != 1 {
		t.Fatalf("stats %+v", s)
	}
}

// An operator must hear that a peer is not kept.
func TestAddPeerTellsThatItCannotSave(t *testing.T) {
	dir := t.TempDir()
	d := newDiscovery(t, discovery.Options{Dir: dir, Private: true})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	id := testPeers(t, 1)[0]
	if err := d.AddPeer(at(id, "10.0.0.1"), true); err == nil || len(d.Added()) != 1 {
		t.Fatalf("error %v, added %v", err, d.Added())
	}
}

// RemovePeer takes back what AddPeer did, and no more.
func TestRemoveLeavesWhatIsConfigured(t *testing.T) {
	id, h := testPeers(t, 1)[0], idle(t)
	full := ma.StringCast("/ip4/10.0.0.1/tcp/1/p2p/" + id.String())
	own := ma.StringCast("/ip4/10.0.0.1/tcp/1/p2p/" + h.ID().String())
	d := newDiscovery(t, discovery.Options{Host: h, Private: true, Bootstrap: []ma.Multiaddr{full, own}})
	if s := d.Stats(); s.Static != 1 {
		t.Fatalf("our own address is dialled: %+v", s)
	}
	if err := d.AddPeer(at(id, "10.0.0.2"), true); err != nil {
		t.Fatal(err)
	}
	if err := d.RemovePeer(id); err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); s.Static != 1 || s.Added != 0 {
		t.Fatalf("stats %+v", s)
	}
}

func TestAvoidIsBounded(t *testing.T) {
	d := newDiscovery(t, discovery.Options{Private: true})
	ids := make([]peer.ID, discovery.MaxAvoided+1)
	for i := range ids {
		ids[i] = peer.ID(fmt.Sprintf("peer %d", i))
		d.Avoid(ids[i], time.Hour+time.Duration(i)*time.Second, strings.Repeat("x", 1000))
	}
	if n := d.Stats().Avoided; n != discovery.MaxAvoided {
		t.Fatalf("%d avoided, the limit is %d", n, discovery.MaxAvoided)
	}
	if d.Avoided(ids[0]) || !d.Avoided(ids[1]) || !d.Avoided(ids[len(ids)-1]) {
		t.Fatal("the one that is due first makes room, and only it")
	}
	d.Avoid(ids[0], -time.Second, "over")
	if d.Avoided(ids[0]) {
		t.Fatal("avoided for no time")
	}
}

func TestPrivateAddressesOnAPublicNetwork(t *testing.T) {
	d := newDiscovery(t, discovery.Options{})
	for _, ip := range []string{"10.0.0.1", "127.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1", "0.0.0.0", "224.0.0.1"} {
		if d.Learn(time.Now(), at(testPeers(t, 1)[0], ip), discovery.SourceDHT) {
			t.Errorf("%s is in the book of a public network", ip)
		}
	}
	for _, ip := range []string{"20.0.0.1", "2a00::1"} {
		if !d.Learn(time.Now(), at(testPeers(t, 1)[0], ip), discovery.SourceDHT) {
			t.Errorf("%s is not in the book of a public network", ip)
		}
	}
}

func TestGroupOf(t *testing.T) {
	for a, want := range map[string]string{
		"/ip4/20.1.2.3/tcp/1":                                "20.1.0.0/16",
		"/ip6/2a00:1:2::1/udp/1/quic-v1":                     "2a00:1::/32",
		"/ip6/::ffff:20.1.2.3/tcp/1":                         "20.1.0.0/16",
		"/dns4/x.test/tcp/1":                                 "",
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":                    "fe80::/32",
		"/ip4/20.1.2.3/tcp/1/ws/p2p-circuit":                 "",
		"/ip4/20.1.2.3/tcp/1/p2p/" + testID + "/p2p-circuit": "20.1.0.0/16",
	} {
		if got := discovery.GroupOf(ma.StringCast(a)); got != want {
			t.Errorf("%s: group %q, want %q", a, got, want)
		}
	}
}

func providerEntry(key string, peer int, at time.Time) (ds.Key, []byte) {
	v := make([]byte, binary.MaxVarintLen64)
	return ds.NewKey(fmt.Sprintf("%s/P%d", key, peer)), v[:binary.PutVarint(v, at.UnixNano())]
}

func TestProviderStoreIsCapped(t *testing.T) {
	key, err := discovery.RendezvousKey(simNamespace + "/full")
	if err != nil {
		t.Fatal(err)
	}
	own, now, ctx := discovery.ProviderKey(key), time.Now(), t.Context()
	clock := now
	s := discovery.NewProviderStore(own, func() time.Time { return clock }, nil)
	put := func(key string, peer int) {
		t.Helper()
		k, v := providerEntry(key, peer, clock)
		if err := s.Put(ctx, k, v); err != nil {
			t.Fatal(err)
		}
	}
	count := func(prefix string) int {
		t.Helper()
		r, err := s.Query(ctx, dsq.Query{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Rest()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	has := func(key string, peer int) bool {
		k, _ := providerEntry(key, peer, clock)
		ok, err := s.Has(ctx, k)
		return ok && err == nil
	}
	// A key is full: fresh records stay, stale ones give way.
	for i := range discovery.MaxProvidersPerKey + 100 {
		put(own, i)
	}
	if n := count(own); n != discovery.MaxProvidersPerKey || !has(own, 0) || has(own, discovery.MaxProvidersPerKey) {
		t.Fatalf("%d providers of a key, the limit is %d", n, discovery.MaxProvidersPerKey)
	}
	clock = now.Add(discovery.ProviderStaleAfter + time.Second)
	put(own, 1) // refreshed
	put(own, 100_000)
	if n := count(own); n != discovery.MaxProvidersPerKey || !has(own, 100_000) || !has(own, 1) {
		t.Fatalf("%d providers; the new one is kept: %v, the refreshed one: %v", n, has(own, 100_000), has(own, 1))
	}
	// One provider has few keys.
	for i := range 100 {
		put(fmt.Sprintf("/providers/K%d", i), 777_777)
	}
	if n := count("/providers"); n != discovery.MaxProvidersPerKey+discovery.MaxKeysPerProvider {
		t.Fatalf("%d records, one provider may add %d", n, discovery.MaxKeysPerProvider)
	}
	// All keys together are few, and our own is never crowded out.
	for i := range 3 * discovery.MaxProviderRecords {
		put(fmt.Sprintf("/providers/M%d", i%(2*discovery.MaxProviderKeys)), i)
	}
	if n := count("/providers"); n > discovery.MaxProviderRecords {
		t.Fatalf("%d records, the limit is %d", n, discovery.MaxProviderRecords)
	}
	for i := range discovery.MaxProvidersPerKey {
		if err := s.Delete(ctx, ds.NewKey(fmt.Sprintf("%s/P%d", own, i))); err != nil {
			t.Fatal(err)
		}
	}
	before := count(own)
	put(own, 888_888)
	if n := count(own); n != before+1 {
		t.Fatalf("our own key takes no record when the store is full: %d", n)
	}
	// What is not a record is not kept.
	for _, k := range []string{"/providers/" + strings.Repeat("X", 300) + "/P", "/pk/x", "/providers/a/b/c"} {
		if err := s.Put(ctx, ds.NewKey(k), []byte{1}); err != nil {
			t.Fatal(err)
		}
		if ok, _ := s.Has(ctx, ds.NewKey(k)); ok {
			t.Errorf("kept %s", k)
		}
	}
}

// A flood of new identities leave the records that were there.
func TestProviderFloodLeavesTheHonest(t *testing.T) {
	now := time.Now()
	s := discovery.NewProviderStore("/providers/OWN", func() time.Time { return now }, nil)
	for i := range 20_000 {
		k, v := providerEntry("/providers/OWN", i, now)
		_ = s.Put(t.Context(), k, v)
	}
	for i := range discovery.MaxProvidersPerKey {
		k, _ := providerEntry("/providers/OWN", i, now)
		if ok, _ := s.Has(t.Context(), k); !ok {
			t.Fatalf("record %d is gone", i)
		}
	}
}

func FuzzSavedPeers(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "peers.jsonl")
	line, err := json.Marshal(map[string]any{"id": testPeers(f, 1)[0].String(), "addrs": []string{"/ip4/10.0.0.1/tcp/1"}, "heard": time.Now().Unix()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line, true)
	f.Add([]byte(`{"dunlin_peers":1,"namespace":"`+simNamespace+`"}`), true)
	f.Add([]byte("garbage 00000000\n"), false)
	h := idle(f)
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum { // past the checksum, into the JSON
			if err := discovery.WriteLines(path, bytes.Split(data, []byte{'\n'})); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := discovery.New(discovery.Options{Host: h, Namespace: simNamespace, Dir: dir, Private: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			if strings.Contains(err.Error(), "another network") {
				return
			}
			t.Fatal(err)
		}
		if n := d.Stats().Book; n > 2048 {
			t.Fatalf("book of %d", n)
		}
	})
}

// The vector of docs/protocol-discovery.md.
func TestRendezvousKey(t *testing.T) {
	key, err := discovery.RendezvousKey("/dunlin/regtest-0f9188f1/full")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.String(), "bafkreiheyhjzxadu7nk7ajcryv32jjg65rwgqgxvkkgskeevdh3m2igmmm"; got != want {
		t.Errorf("cid %s, want %s", got, want)
	}
	if got, want := key.Hash().HexString(), "1220e4c1d39b8074fb55f02451c577a4a4deec6c681af5528d25109519f6cd20cc63"; got != want {
		t.Errorf("multihash %s, want %s", got, want)
	}
}

// The lines of docs/protocol-discovery.md.
func TestFileFormat(t *testing.T) {
	dir := t.TempDir()
	d, err := discovery.New(discovery.Options{Host: idle(t), Namespace: "/dunlin/regtest-0f9188f1", Dir: dir, Private: true})
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
	if err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-time.Hour).Truncate(time.Second)
	d.Reached(when, at(id, "203.0.113.7"))
	d.Failed(when, id, 2)
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(readFile(t, filepath.Join(dir, "peers.jsonl"))), "\n")
	head := regexp.MustCompile(`^\{"dunlin_peers":1,"namespace":"/dunlin/regtest-0f9188f1","salt":"[A-Za-z0-9+/]{22}=="\} [0-9a-f]{8}\n$`)
	if !head.MatchString(lines[0]) {
		t.Errorf("header %q", lines[0])
	}
	want := fmt.Sprintf(`{"id":"%s","addrs":["/ip4/203.0.113.7/tcp/9000"],"source":"dht","heard":%d,"success":%d,"since":%d,"tries":2,"told":"self/203.0.0.0/16","proven":true} `, id, when.Unix(), when.Unix(), when.Unix())
	if !strings.HasPrefix(lines[1], want) || len(lines[1]) != len(want)+9 {
		t.Errorf("line %q, want %q and a checksum", lines[1], want)
	}
}
