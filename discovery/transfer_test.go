package discovery_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/discovery"
)

// TestImportAndExport: what one book exports, in either form, another one imports; it counts as hearsay.
func TestImportAndExport(t *testing.T) {
	now := time.Now()
	from := newDiscovery(t, discovery.Options{Private: true})
	ids := testPeers(t, 40)
	for i, id := range ids {
		if i%2 == 0 {
			from.Reached(now.Add(-time.Duration(i)*time.Minute), at(id, fmt.Sprintf("10.0.0.%d", i+1)))
		} else {
			from.Learn(now, at(id, fmt.Sprintf("10.0.0.%d", i+1)), discovery.SourceDNS)
		}
	}
	if got := from.Export(true); len(got) != 20 || !strings.HasSuffix(got[0].Addrs[0], ids[0].String()) || got[0].Answered != now.Unix() {
		t.Fatalf("%d proven peers, first %+v", len(got), got[0])
	}
	all := from.Export(false)
	if len(all) != 40 || all[19].Answered == 0 || all[20].Answered != 0 {
		t.Fatalf("%d peers, or not those that answered first", len(all))
	}
	for _, text := range []bool{false, true} {
		var file bytes.Buffer
		if err := discovery.WriteKnown(&file, all, text); err != nil {
			t.Fatal(err)
		}
		to := newDiscovery(t, discovery.Options{Private: true})
		r, err := to.Import(bytes.NewReader(file.Bytes()))
		if err != nil || r.Peers != 40 || r.Added != 40 || r.Damaged != 0 {
			t.Fatalf("text %v: %+v, %v", text, r, err)
		}
		if s := to.Stats(); s.Book != 40 || s.Tried != 0 || s.Sources[discovery.SourceImport].Found != 40 {
			t.Errorf("text %v: book of %d, %d tried, %d found", text, s.Book, s.Tried, s.Sources[discovery.SourceImport].Found)
		}
		if r, err := to.Import(&file); err != nil || r.Known != 40 || r.Added != 0 {
			t.Errorf("text %v, once more: %+v, %v", text, r, err)
		}
	}
}

// TestImportIsSpread: a list of the operator's has more room than one teller among strangers, and no IP group of it has more than its own.
func TestImportIsSpread(t *testing.T) {
	d := newDiscovery(t, discovery.Options{})
	var list strings.Builder
	for i, id := range testPeers(t, 600) {
		ip := fmt.Sprintf("%d.%d.0.1", 20+i%60, i/60) // groups of their own
		if i >= 300 {
			ip = fmt.Sprintf("9.9.%d.1", i%256) // one group
		}
		fmt.Fprintf(&list, "/ip4/%s/tcp/9333/p2p/%s\n", ip, id)
	}
	r, err := d.Import(strings.NewReader(list.String()))
	if err != nil || r.Peers != 600 || r.NoPlace != 600-r.Added {
		t.Fatalf("%+v, %v", r, err)
	}
	if r.Added < 280 || r.Added > 300+discovery.BucketSize {
		t.Errorf("%d of 600 have a place; want nearly all of 300 groups, and at most %d of one", r.Added, discovery.BucketSize)
	}
}

// TestImportIsBounded: neither a large file nor a bad one does harm, and each bad line is told.
func TestImportIsBounded(t *testing.T) {
	id := testPeers(t, 1)[0]
	good := "/ip4/10.0.0.1/tcp/9333/p2p/" + id.String() + "\n"
	for name, c := range map[string]struct {
		list           string
		public         bool
		added, damaged int
		want           string // of the error or a fault
	}{
		"too many bytes":    {good + strings.Repeat("#"+strings.Repeat("x", 4000)+"\n", discovery.MaxImportBytes/4000), false, 1, 0, "more than 8388608 bytes"},
		"too many lines":    {good + strings.Repeat("\n", 65_536), false, 1, 0, "more than 65536 lines"},
		"a long line":       {strings.Repeat("x", 100_000) + "\n" + good, false, 1, 1, "line 1: over 8192 bytes"},
		"a long line last":  {good + strings.Repeat("x", 100_000), false, 1, 1, "line 2: over 8192 bytes"},
		"zeros":             {good + strings.Repeat("\x00", 5000), false, 1, 1, "line 2: address"},
		"no end of line":    {strings.TrimSpace(good), false, 1, 0, ""},
		"DOS line ends":     {"# list\r\n\r\n" + strings.TrimSpace(good) + "\r\n", false, 1, 0, ""},
		"nothing":           {"", false, 0, 0, ""},
		"private on public": {good, true, 0, 1, "private addresses only"},
		"unspecified":       {strings.Replace(good, "10.0.0.1", "0.0.0.0", 1), false, 0, 1, "not an address that can be dialled"},
		"too many addresses": {
			`{"addrs":["` + strings.Repeat(strings.TrimSpace(good)+`","`, 8) + strings.TrimSpace(good) + `"]}`, false, 0, 1, "9 addresses",
		},
		"two peers": {
			fmt.Sprintf(`{"addrs":[%q,"/ip4/10.0.0.1/tcp/1/p2p/%s"]}`, strings.TrimSpace(good), testPeers(t, 1)[0]), false, 0, 1, "addresses of two peers",
		},
		"no address":    {"{}", false, 0, 1, "line 1: no address"},
		"a huge record": {`{"record":"` + strings.Repeat("AAAA", 500) + `"}`, false, 0, 1, "a signed record of 1500 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiscovery(t, discovery.Options{Private: !c.public})
			r, err := d.Import(strings.NewReader(c.list))
			if r.Added != c.added || r.Damaged != c.damaged {
				t.Errorf("%d added, %d damaged, want %d, %d", r.Added, r.Damaged, c.added, c.damaged)
			}
			if text := fmt.Sprint(err, r.Faults); !strings.Contains(text, c.want) {
				t.Errorf("%s does not say %q", text, c.want)
			}
			if (err != nil) != strings.HasPrefix(name, "too many b") && (err != nil) != strings.HasPrefix(name, "too many l") {
				t.Errorf("error %v", err)
			}
		})
	}
	many := newDiscovery(t, discovery.Options{Private: true})
	if r, err := many.Import(strings.NewReader(strings.Repeat("nonsense\n", 1000))); err != nil || r.Damaged != 1000 || len(r.Faults) != 20 {
		t.Errorf("%d damaged, %d told, %v", r.Damaged, len(r.Faults), err)
	}
}

// TestSignedRecordsTravel: a record is exported, verified on import, and one that was changed is not taken.
func TestSignedRecordsTravel(t *testing.T) {
	key, id := newKey(t)
	record := signed(t, id, key, "/ip4/10.0.0.1/tcp/9333")
	line, err := json.Marshal(discovery.KnownPeer{Record: record})
	if err != nil {
		t.Fatal(err)
	}
	d := newDiscovery(t, discovery.Options{Private: true})
	if r, err := d.Import(bytes.NewReader(line)); err != nil || r.Added != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	out := d.Export(false)
	if len(out) != 1 || !bytes.Equal(out[0].Record, record) || len(out[0].Addrs) == 0 {
		t.Fatalf("exported %+v", out)
	}
	record[len(record)/2] ^= 1
	line, _ = json.Marshal(discovery.KnownPeer{Record: record, Addrs: out[0].Addrs})
	if r, err := d.Import(bytes.NewReader(line)); err != nil || r.Damaged != 1 || r.Peers != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestBookOfAStoppedNode: the book is edited without a host, and keeps what it had.
func TestBookOfAStoppedNode(t *testing.T) {
	dir, now, ids := t.TempDir(), time.Now(), testPeers(t, 3)
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	d.Reached(now, at(ids[0], "10.0.0.1"))
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	o := discovery.Options{Namespace: simNamespace, Private: true, Dir: dir}
	b, err := discovery.OpenBook(o, ids[2])
	if err != nil {
		t.Fatal(err)
	}
	list := fmt.Sprintf("/ip4/10.0.0.2/tcp/1/p2p/%s\n/ip4/10.0.0.3/tcp/1/p2p/%s\n", ids[1], ids[2])
	if r, err := b.Import(strings.NewReader(list)); err != nil || r.Added != 1 || r.Peers != 1 { // not itself
		t.Fatalf("%+v, %v", r, err)
	}
	again := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	if s := again.Stats(); s.Book != 2 || s.Tried != 1 || !again.Proven(ids[0]) {
		t.Errorf("%+v", s)
	}
	if _, err := discovery.OpenBook(discovery.Options{Namespace: "/dunlin/other-00000000", Dir: dir}, ""); err == nil || !strings.Contains(err.Error(), "another network") {
		t.Errorf("a book of another network: %v", err)
	}
	if _, err := discovery.OpenBook(discovery.Options{Namespace: simNamespace}, ""); err == nil {
		t.Error("a book without a folder")
	}
}

// TestLargestBook: the largest book there can be comes back whole.
func TestLargestBook(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	o := discovery.Options{Private: true, Dir: dir, MaxBook: 65_536}
	d := newDiscovery(t, o)
	const n = 45_000
	for i := range n {
		// Made-up ids: a key each would take a minute.
		id := peer.ID(fmt.Sprintf("\x00\x24\x08\x01\x12\x20%032d", i))
		ai := at(id, fmt.Sprintf("10.%d.%d.1", i/250, i%250))
		for k := range 7 {
			ai.Addrs = append(ai.Addrs, at(id, fmt.Sprintf("10.%d.%d.%d", i/250, i%250, k+2)).Addrs...)
		}
		d.Learn(now, ai, discovery.SourceDNS)
	}
	want := d.Stats().Book
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	if size := len(readFile(t, filepath.Join(dir, "peers.jsonl"))); size < 9<<20 {
		t.Fatalf("a book of %d bytes proves nothing", size)
	}
	var log logLines
	o.Logger = log.logger()
	if got := newDiscovery(t, o).Stats().Book; got != want || want < n/2 || log.String() != "" {
		t.Errorf("%d of %d peers came back: %s", got, want, log.String())
	}
}
