package discovery_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"dunlin/discovery"
)

// notIDs are bytes that kad-dht hands on as peer ids, though no key has such an id.
func notIDs(tb testing.TB) []peer.ID {
	tb.Helper()
	sum := func(data string, code uint64) peer.ID {
		h, err := mh.Sum([]byte(data), code, -1)
		if err != nil {
			tb.Fatal(err)
		}
		return peer.ID(h)
	}
	return []peer.ID{"x", peer.ID(strings.Repeat("x", 64)), sum("x", mh.SHA1), peer.ID(append([]byte{mh.SHA2_256, 20}, make([]byte, 20)...))}
}

// A server of the DHT may call anything a peer id. What is none comes into no book: no address can be made of it.
func TestWhatIsNoPeerID(t *testing.T) {
	where := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/9")}
	honest := testPeers(t, 1)[0]
	told := []peer.AddrInfo{{ID: honest, Addrs: where}}
	for _, id := range notIDs(t) {
		told = append(told, peer.AddrInfo{ID: id, Addrs: where})
	}
	liar := realHost(t)
	lie(liar, &told)
	d := run(t, discovery.Options{
		Host: realHost(t), Namespace: simNamespace, Private: true,
		Bootstrap: []ma.Multiaddr{tcpAddr(t, liar).Encapsulate(ma.StringCast("/p2p/" + liar.ID().String()))},
	})
	eventually(t, patience, "the real one is learnt", func() bool { return d.Known(honest) != nil })
	for _, k := range d.Export(false) {
		for _, a := range k.Addrs {
			if _, err := peer.AddrInfoFromString(a); err != nil {
				t.Errorf("exported: %v", err)
			}
		}
	}
	for _, id := range notIDs(t) {
		if d.Known(id) != nil {
			t.Errorf("%d bytes that are no peer id are in the book", len(id))
		}
		if d.LearnAs(peer.AddrInfo{ID: id, Addrs: where}, discovery.SourceDHT) {
			t.Errorf("%d bytes that are no peer id were learnt", len(id))
		}
	}
	if !d.LearnAs(peer.AddrInfo{ID: testPeers(t, 1)[0], Addrs: where}, discovery.SourceDHT) {
		t.Error("a peer id was not learnt")
	}
}

// A long one keeps nobody busy: writing 4 MB as base58 takes hours, in which Run would not end.
func TestLongPeerID(t *testing.T) {
	told := []peer.AddrInfo{{ID: peer.ID(strings.Repeat("long", 500_000)), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/9")}}}
	liar := realHost(t)
	lie(liar, &told)
	d := run(t, discovery.Options{
		Host: realHost(t), Namespace: simNamespace, Private: true,
		Bootstrap: []ma.Multiaddr{tcpAddr(t, liar).Encapsulate(ma.StringCast("/p2p/" + liar.ID().String()))},
	})
	eventually(t, patience, "its answer is refused", func() bool { return d.Stats().BadMessages > 0 })
	if d.Known(told[0].ID) != nil {
		t.Error("it is in the book")
	}
}

// A message of the DHT is handed on whole if it keeps to the limits, and not at all if it does not.
func TestMessagesOfTheDHT(t *testing.T) {
	const most = 1 << 20
	peers := func(n, id int) []*kadpb.Message_Peer {
		all := make([]*kadpb.Message_Peer, n)
		for i := range all {
			all[i] = &kadpb.Message_Peer{Id: make([]byte, id), Addrs: [][]byte{make([]byte, 8)}, Connection: kadpb.Message_CONNECTED}
		}
		return all
	}
	framed := func(m *kadpb.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
	}
	key := func(n int) *kadpb.Message { return &kadpb.Message{Type: kadpb.Message_FIND_NODE, Key: make([]byte, n)} }
	largest := framed(key(most - 9))
	if size, n := binary.Uvarint(largest); size > most || len(largest)-n != int(size) || size < most-4 {
		t.Fatalf("the largest message has %d bytes", size)
	}
	for _, c := range []struct {
		what string
		in   []byte
		err  error // of the last Read
	}{
		{"none", nil, io.EOF},
		{"an empty one", []byte{0}, io.EOF},
		{"two", append(framed(key(34)), framed(&kadpb.Message{CloserPeers: peers(20, 38)})...), io.EOF},
		{"as many peers as may be", framed(&kadpb.Message{CloserPeers: peers(discovery.MaxKadPeers/2, 64), ProviderPeers: peers(discovery.MaxKadPeers/2, 64)}), io.EOF},
		{"one more", framed(&kadpb.Message{CloserPeers: peers(discovery.MaxKadPeers, 38), ProviderPeers: peers(1, 38)}), discovery.ErrKad},
		{"a long id near", framed(&kadpb.Message{CloserPeers: peers(1, 65)}), discovery.ErrKad},
		{"a long id of a provider", framed(&kadpb.Message{ProviderPeers: peers(1, 65)}), discovery.ErrKad},
		{"as large as may be", largest, io.EOF},
		{"larger", framed(key(most)), discovery.ErrKad},
		{"the length alone", binary.AppendUvarint(nil, most), io.ErrUnexpectedEOF},
		{"a part", framed(key(34))[:20], io.ErrUnexpectedEOF},
		{"half a length", []byte{0x80}, io.ErrUnexpectedEOF},
		{"no protobuf", []byte{3, 0xff, 0xff, 0xff}, discovery.ErrKad},
	} {
		for _, in := range []io.Reader{bytes.NewReader(c.in), iotest.OneByteReader(bytes.NewReader(c.in)), iotest.DataErrReader(bytes.NewReader(c.in))} {
			got, err := discovery.ReadKad(in, most)
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", c.what, err, c.err)
			}
			if want := map[bool]int{true: len(c.in)}[errors.Is(c.err, io.EOF)]; len(got) != want || !bytes.Equal(got, c.in[:want]) {
				t.Errorf("%s: %d bytes handed on, want %d", c.what, len(got), want)
			}
		}
	}
}

// Nor does one come in by the file of an earlier version that took them: the line costs itself only.
func TestWhatIsNoPeerIDInTheBook(t *testing.T) {
	dir := t.TempDir()
	o := discovery.Options{Host: realHost(t), Namespace: simNamespace, Private: true, Dir: dir}
	d, err := discovery.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ids := append(notIDs(t), testPeers(t, 1)...)
	for _, id := range ids {
		d.Learn(time.Now(), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/9")}}, discovery.SourceDHT)
	}
	if err := d.SaveBook(); err != nil {
		t.Fatal(err)
	}
	if d, err = discovery.New(o); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := discovery.WriteKnown(&out, d.Export(false), true); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out.String()); len(got) != 1 || !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, ids[len(ids)-1].String()) }) {
		t.Errorf("exported %q", got)
	}
}
