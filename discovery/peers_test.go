package discovery_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

const peersProtocol = protocol.ID(simNamespace + "/peers/1")

func dialHost(t *testing.T, from, to host.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{tcpAddr(t, to)}}); err != nil {
		t.Fatal(err)
	}
}

// askRaw asks as a foreign implementation would, and returns the reply's bytes.
func askRaw(t *testing.T, from, to host.Host, ask []byte) ([]byte, error) {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), peersProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(patience))
	if _, err := s.Write(ask); err != nil {
		return nil, err
	}
	_ = s.CloseWrite()
	return io.ReadAll(s)
}

// signed makes a record of a peer, as identify carries it.
func signed(tb testing.TB, claim peer.ID, key crypto.PrivKey, addrs ...string) []byte {
	tb.Helper()
	rec := &peer.PeerRecord{PeerID: claim, Seq: 1}
	for _, a := range addrs {
		rec.Addrs = append(rec.Addrs, ma.StringCast(a))
	}
	env, err := record.Seal(rec, key)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// A node tells whom it is connected with, in records that prove themselves, and only so often.
func TestPeerExchange(t *testing.T) {
	hub := realHost(t)
	d := run(t, discovery.Options{Host: hub, Namespace: simNamespace, Private: true})
	want := map[peer.ID]bool{}
	for range 3 {
		h := realHost(t)
		run(t, discovery.Options{Host: h, Namespace: simNamespace, Private: true})
		dialHost(t, h, hub)
		want[h.ID()] = true
	}
	stranger := realHost(t) // not of the network: it is not told to anybody
	dialHost(t, stranger, hub)
	eventually(t, patience, "the hub knows three peers", func() bool { return len(d.Tell(time.Now(), stranger.ID(), 64)) == 3 })

	reply, err := askRaw(t, stranger, hub, []byte{2, 0x08, 64})
	if err != nil {
		t.Fatal(err)
	}
	body, err := discovery.ReadMessage(bytes.NewReader(reply), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	records, err := discovery.DecodeRecords(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		ai, err := discovery.OpenRecord(r, nil)
		if err != nil || !want[ai.ID] || len(ai.Addrs) == 0 {
			t.Errorf("record of %s at %v: %v", ai.ID, ai.Addrs, err)
		}
		delete(want, ai.ID)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
	if reply, err := askRaw(t, stranger, hub, []byte{0}); err != nil || len(reply) == 0 { // an empty question is one too
		t.Errorf("the second question: %d bytes, %v", len(reply), err)
	}
	if reply, err := askRaw(t, stranger, hub, []byte{0}); err == nil {
		t.Errorf("the third question at once was answered with %d bytes", len(reply))
	}
	for _, bad := range [][]byte{{5, 0xff, 0xff, 0xff, 0xff, 0xff}, {0xff, 0xff, 0x03}} {
		other := realHost(t)
		dialHost(t, other, hub)
		if reply, err := askRaw(t, other, hub, bad); err == nil {
			t.Errorf("%x was answered with %d bytes", bad, len(reply))
		}
	}
	if s := d.Stats(); s.AsksRefused != 1 {
		t.Errorf("%d questions refused", s.AsksRefused)
	}
}

// One that knows only a hub learns the others from it: here no other source can give them.
func TestPeersAreLearntByExchange(t *testing.T) {
	key, id := newKey(t)
	_, other := newKey(t)
	good := signed(t, id, key, "/ip4/127.0.0.1/tcp/1")
	hub := realHost(t)
	answered := make(chan struct{}, 10)
	hub.SetStreamHandler(simNamespace+"/kad/1.0.0", func(s network.Stream) { _ = s.Reset() }) // enough to count as one of the network
	hub.SetStreamHandler(peersProtocol, func(s network.Stream) {
		defer s.Close()
		_, _ = s.Write(discovery.EncodeRecords([][]byte{
			good,
			// Cut; of another peer; without an address; at no address.
			good[:len(good)-1],
			signed(t, other, key, "/ip4/127.0.0.1/tcp/2"),
			signed(t, id, key),
			signed(t, hub.ID(), hub.Peerstore().PrivKey(hub.ID()), "/ip4/0.0.0.0/tcp/2"),
			[]byte("garbage"),
		}))
		answered <- struct{}{}
	})
	h := realHost(t)
	d := run(t, discovery.Options{
		Host: h, Namespace: simNamespace, Private: true,
		Bootstrap: []ma.Multiaddr{ma.StringCast(tcpAddr(t, hub).String() + "/p2p/" + hub.ID().String())},
	})
	<-answered
	eventually(t, patience, "the peer of the good record is dialled, and the last record was looked at", func() bool {
		s := d.Stats()
		y := s.Sources[discovery.SourcePeers]
		return y.Found == 1 && y.Dialed > 0 && s.BadRecords >= 4
	})
	if got := fmt.Sprint(d.Known(id)); got != "[/ip4/127.0.0.1/tcp/1]" {
		t.Errorf("addresses %s", got)
	}
	if s := d.Stats(); s.BadRecords != 4 || d.Known(other) != nil {
		t.Errorf("%d bad records", s.BadRecords)
	}
}

func TestAskLimits(t *testing.T) {
	d := newDiscovery(t, discovery.Options{})
	now := time.Now()
	for i := range 10 {
		if got, want := d.MayAsk("a", now), i < discovery.AskBurst; got != want {
			t.Errorf("question %d: %v", i, got)
		}
	}
	if !d.MayAsk("a", now.Add(31*time.Second)) || d.MayAsk("a", now.Add(32*time.Second)) {
		t.Error("not one question each half minute")
	}
	// All together.
	allowed := 0
	for i := range 10_000 {
		if d.MayAsk(someID(i), now.Add(time.Hour)) {
			allowed++
		}
	}
	if allowed > 100 {
		t.Errorf("%d questions at once were answered", allowed)
	}
	// Those who asked long ago are forgotten for the next ones.
	if !d.MayAsk(someID(20_000), now.Add(2*time.Hour)) {
		t.Error("a newcomer may not ask")
	}
}

// The sample does not change with each question, so asking more shows no more.
func TestSampleIsTheSameForAll(t *testing.T) {
	hub := realHost(t)
	d := run(t, discovery.Options{Host: hub, Namespace: simNamespace, Private: true})
	const n = 24
	for range n {
		h := realHost(t)
		h.SetStreamHandler(simNamespace+"/kad/1.0.0", func(s network.Stream) { _ = s.Reset() })
		dialHost(t, h, hub)
	}
	eventually(t, patience, "all are known", func() bool { return d.Stats().Book >= n })
	now := time.Now().Add(time.Hour)
	seen := map[string]bool{}
	for i := range 50 {
		got := d.Tell(now, someID(i), discovery.MaxRecords)
		if len(got) != discovery.MaxRecords/4 {
			t.Fatalf("told %d of %d", len(got), n)
		}
		for _, r := range got {
			seen[string(r)] = true
		}
	}
	if len(seen) != discovery.MaxRecords/4 {
		t.Errorf("50 questions showed %d peers, one shows %d", len(seen), discovery.MaxRecords/4)
	}
	if got := d.Tell(now, "x", 3); len(got) != 3 {
		t.Errorf("asked for 3, told %d", len(got))
	}
}

func TestReplyLimits(t *testing.T) {
	record := bytes.Repeat([]byte{1}, discovery.MaxRecordBytes)
	full := make([][]byte, discovery.MaxRecords)
	for i := range full {
		full[i] = record
	}
	read := func(records [][]byte) ([][]byte, error) {
		body, err := discovery.ReadMessage(bytes.NewReader(discovery.EncodeRecords(records)), discovery.MaxRecords*(discovery.MaxRecordBytes+4))
		if err != nil {
			return nil, err
		}
		return discovery.DecodeRecords(body)
	}
	if got, err := read(full); err != nil || len(got) != discovery.MaxRecords {
		t.Errorf("a reply at the limit: %d records, %v", len(got), err)
	}
	if _, err := read(append(slices.Clone(full), nil)); err == nil {
		t.Error("one record too many")
	}
	if _, err := read([][]byte{append(record, 1)}); err == nil {
		t.Error("a record that is too long")
	}
	// A length is not believed before it is checked.
	if _, err := discovery.ReadMessage(bytes.NewReader(binary.AppendUvarint(nil, 1<<40)), 1000); err == nil {
		t.Error("a message of a terabyte")
	}
}

func FuzzPeerExchange(f *testing.F) {
	key, id := newKey(f)
	f.Add(signed(f, id, key, "/ip4/127.0.0.1/tcp/1"))
	f.Add(discovery.EncodeRecords([][]byte{signed(f, id, key, "/ip4/127.0.0.1/tcp/1")}))
	f.Add([]byte{0x08, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := discovery.DecodeAsk(b); err == nil && (n < 0 || n > discovery.MaxRecords) {
			t.Fatalf("asked for %d", n)
		}
		records, err := discovery.DecodeRecords(b)
		if err == nil && len(records) > discovery.MaxRecords {
			t.Fatalf("%d records", len(records))
		}
		for _, r := range append(records, b) {
			_, _ = discovery.OpenRecord(r, func(_ peer.ID, _ []byte) bool { return false })
		}
	})
}

// Only a record that is byte for byte the verified one is spared the check of its
// signature.
func TestRecordIsVerifiedOnce(t *testing.T) {
	key, id := newKey(t)
	good := signed(t, id, key, "/ip4/1.2.3.4/udp/1/quic-v1")
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	asked := 0
	known := func(p peer.ID, b []byte) bool {
		if asked++; p != id {
			t.Errorf("asked about %s", p)
		}
		return bytes.Equal(b, good)
	}
	if ai, err := discovery.OpenRecord(good, known); err != nil || ai.ID != id || len(ai.Addrs) != 1 {
		t.Errorf("the known record: %v, %v", ai, err)
	}
	if ai, err := discovery.OpenRecord(bad, known); err == nil {
		t.Errorf("a forged one passed: %v", ai)
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
