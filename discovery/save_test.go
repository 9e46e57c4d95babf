package discovery_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// What could not be written, because the disk was full, is written when there is room again, though nothing has changed since.
func TestBookIsSavedWhenThereIsRoomAgain(t *testing.T) {
	dir := t.TempDir()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir})
	id := testPeers(t, 1)[0]
	d.Learn(time.Now(), at(id, "10.0.0.1"), discovery.SourceDNS)
	full := filepath.Join(dir, "peers.jsonl.tmp") // a folder in the way of the file
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.SaveBook(); err == nil {
			t.Fatal("no error")
		}
	}
	if err := os.RemoveAll(full); err != nil {
		t.Fatal(err)
	}
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	if newDiscovery(t, discovery.Options{Private: true, Dir: dir}).Known(id) == nil {
		t.Error("the book was not saved")
	}
}

// A disk that stays full is told of once an hour, not with every attempt.
func TestFullDiskIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	var log logLines
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir, Logger: log.logger()})
	d.Learn(time.Now(), at(testPeers(t, 1)[0], "10.0.0.1"), discovery.SourceDNS)
	tell, now := d.TellTrouble(), time.Now()
	full := fmt.Errorf("write x: no space left on device")
	for range 1000 {
		now = now.Add(5 * time.Second)
		tell(full, now)
	}
	if n := strings.Count(log.String(), "peers were not saved"); n != 2 { // 5,000 s
		t.Errorf("told %d times", n)
	}
	tell(nil, now)
	tell(nil, now)
	if n := strings.Count(log.String(), "peers are saved again"); n != 1 {
		t.Errorf("told %d times that it is over", n)
	}
}

// Each file is told of by itself: the anchors are tried every few seconds and the book every minute, and one of them may have room.
func TestFullDiskIsToldOnceOfEachFile(t *testing.T) {
	dir := t.TempDir()
	var log logLines
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir, Logger: log.logger()})
	ids := testPeers(t, 2)
	d.Learn(time.Now(), at(ids[0], "10.0.0.1"), discovery.SourceDNS)
	block := func(file string) string {
		path := filepath.Join(dir, file+".tmp") // a folder in the way of the file
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	free := func(path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	told := func(when string, failed, again int) {
		t.Helper()
		if f, a := strings.Count(log.String(), "peers were not saved"), strings.Count(log.String(), "peers are saved again"); f != failed || a != again {
			t.Fatalf("%s: told %d times of trouble and %d times that it is over, want %d and %d:\n%s", when, f, a, failed, again, log.String())
		}
	}
	anchors, book := block("anchors.jsonl"), block("peers.jsonl")
	turn, now := d.SaveTurns(ids[1]), time.Now()
	turns := func() {
		for range 12 * 10 { // ten minutes
			now = now.Add(5 * time.Second)
			turn(now)
		}
	}
	turns()
	told("no room for either", 2, 0)
	free(anchors)
	turns()
	told("room for the anchors", 2, 1)
	free(book)
	turns()
	told("room for both", 2, 2)
}

// At the end of Run the book is written even if an attempt just failed.
func TestRunSavesAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	d, err := discovery.New(discovery.Options{Host: realHost(t), Namespace: simNamespace, Private: true, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	id := testPeers(t, 1)[0]
	d.Learn(time.Now(), at(id, "10.0.0.1"), discovery.SourceImport)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if newDiscovery(t, discovery.Options{Private: true, Dir: dir}).Known(id) == nil {
		t.Error("the book was not saved")
	}
}

// A file of a newer version says so, and is left as it is.
func TestBookOfANewerVersion(t *testing.T) {
	for _, file := range []string{"peers.jsonl", "anchors.jsonl", "added.jsonl"} {
		dir := t.TempDir()
		path := filepath.Join(dir, file)
		if err := discovery.WriteLines(path, [][]byte{[]byte(`{"dunlin_peers":2,"namespace":"` + simNamespace + `"}`), []byte(`{"who":"knows"}`)}); err != nil {
			t.Fatal(err)
		}
		before := readFile(t, path)
		_, err := discovery.New(discovery.Options{Host: idle(t), Namespace: simNamespace, Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", file, err)
		}
		if !slices.Equal(before, readFile(t, path)) {
			t.Errorf("%s was changed", file)
		}
	}
}

// Whoever lowers MaxBook is not told that the file is damaged.
func TestSmallerBook(t *testing.T) {
	dir := t.TempDir()
	d := newDiscovery(t, discovery.Options{Private: true, Dir: dir, MaxBook: 4096})
	for i, id := range testPeers(t, 1000) {
		d.Learn(time.Now(), at(id, fmt.Sprintf("10.0.%d.1", i%250)), discovery.SourceDNS)
	}
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	var log logLines
	d = newDiscovery(t, discovery.Options{Private: true, Dir: dir, MaxBook: 16, Logger: log.logger()})
	if n := d.Stats().Book; n == 0 || n > 16 {
		t.Errorf("a book of %d", n)
	}
	if text := log.String(); strings.Contains(text, "damaged") || !strings.Contains(text, "more saved peers than may be kept") {
		t.Errorf("log %q", text)
	}
	if _, err := os.Stat(filepath.Join(dir, "peers.jsonl.damaged")); err == nil {
		t.Error("a damaged copy was kept")
	}
}

// OpenBook reports every fault at once, as New does, and takes no options that New would not.
func TestOpenBookChecksItsOptions(t *testing.T) {
	_, err := discovery.OpenBook(discovery.Options{MaxBook: 3}, "")
	for _, want := range []string{"Namespace", "Dir", "MaxBook: 3 is not within 16 and 65536"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := discovery.OpenBook(discovery.Options{Namespace: simNamespace, Dir: t.TempDir(), MaxBook: -1}, ""); err == nil {
		t.Error("a book of -1 peers")
	}
}

// An added peer whose name is being asked for when it is removed does not come back by the answer.
func TestRemovedWhileItsNameIsAsked(t *testing.T) {
	d := newDiscovery(t, discovery.Options{Private: true})
	id := testPeers(t, 1)[0]
	if err := d.AddPeer(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/dns4/x.test/tcp/1")}}, true); err != nil {
		t.Fatal(err)
	}
	answer, again := d.LaterAnswer(id, ma.StringCast("/ip4/10.0.0.1/tcp/1")), d.LaterAnswer(id, ma.StringCast("/ip4/10.0.0.2/tcp/1"))
	answer()
	if kept, s := d.Kept(), d.Stats(); len(kept) != 1 || s.Static != 1 || s.Sources[discovery.SourceAdded].Found != 1 {
		t.Fatalf("kept %v, %+v", kept, s)
	}
	again() // it has moved
	if s := d.Stats(); s.Static != 1 || s.Sources[discovery.SourceAdded].Found != 1 {
		t.Errorf("found twice: %+v", s)
	}
	if err := d.RemovePeer(id); err != nil {
		t.Fatal(err)
	}
	again()
	if kept, s := d.Kept(), d.Stats(); len(kept) != 0 || s.Static != 0 {
		t.Errorf("after it was removed: kept %v, %d static", kept, s.Static)
	}
}
