package discovery_test

import (
	"bufio"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	dhtpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"dunlin/discovery"
)

// provided is the record of a provider as kad-dht stores it.
func provided(key string, id peer.ID, at time.Time) (ds.Key, []byte) {
	v := make([]byte, binary.MaxVarintLen64)
	name := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(id))
	return ds.NewKey(key + "/" + name), v[:binary.PutVarint(v, at.UnixNano())]
}

// TestProviderFloodFromTenGroups: whoever comes first with any number of records from ten IP groups leaves room for others.
func TestProviderFloodFromTenGroups(t *testing.T) {
	const own = "/providers/OWN"
	now := time.Now()
	groups := map[peer.ID]string{}
	s := discovery.NewProviderStore(own, func() time.Time { return now }, func(id peer.ID) string { return groups[id] })
	put := func(key string, id peer.ID) {
		k, v := provided(key, id, now)
		if err := s.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	has := func(key string, id peer.ID) bool {
		k, _ := provided(key, id, now)
		ok, err := s.Has(t.Context(), k)
		return ok && err == nil
	}
	const evil = 50_000
	ids := make([]peer.ID, evil)
	for i := range ids {
		ids[i] = peer.ID(fmt.Sprintf("evil %d", i))
		groups[ids[i]] = fmt.Sprint("group", i%10)
	}
	honest := make([]peer.ID, 100)
	for i := range honest {
		honest[i] = peer.ID(fmt.Sprintf("honest %d", i))
		groups[honest[i]] = fmt.Sprint("of its own ", i)
	}
	for _, id := range honest[:50] {
		put(own, id)
	}
	for i := range 2 * evil {
		key := own
		if i/10%2 == 1 {
			key = fmt.Sprintf("/providers/K%d", i%5000)
		}
		put(key, ids[i%evil])
	}
	r, err := s.Query(t.Context(), dsq.Query{Prefix: "/providers"})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.Rest(); err != nil || len(all) > 10*discovery.MaxGroupRecords+discovery.MaxProvidersPerKey {
		t.Errorf("%d records are kept, %v", len(all), err)
	}
	r, err = s.Query(t.Context(), dsq.Query{Prefix: own})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.Rest(); err != nil || len(all) != discovery.MaxProvidersPerKey {
		t.Errorf("%d records of the key, %v", len(all), err)
	}
	// Those that were there are there, and those that come have a place.
	for _, id := range honest[50:] {
		put(own, id)
	}
	for i, id := range honest {
		if !has(own, id) {
			t.Errorf("honest provider %d has no record", i)
		}
	}
	if !has("/providers/K11", ids[11]) {
		t.Error("nothing of the flood was kept: the test proves nothing")
	}
}

// TestProviderGroupOutlivesTheConnection: kad-dht stores what it was told minutes later, and who has hung up by then
// has the share of its group all the same.
func TestProviderGroupOutlivesTheConnection(t *testing.T) {
	inSim(t, func(s *sim) {
		n := s.start(simIP(0), func(o *discovery.Options) { o.Private = false })
		h := s.host(simIP(1))
		want := discovery.GroupOf(h.Addrs()[0])
		if got := n.disc.ConnectedGroup(h.ID()); got == "" || got == want {
			t.Errorf("a peer that was never here is of group %q", got)
		}
		if err := h.Connect(s.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		if _, met := s.Until(time.Minute, func() bool { return n.disc.ConnectedGroup(h.ID()) == want }); !met {
			t.Errorf("connected: group %q, want %q", n.disc.ConnectedGroup(h.ID()), want)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if _, met := s.Until(time.Minute, func() bool { return n.host.Network().Connectedness(h.ID()) == network.NotConnected }); !met {
			t.Fatal("still connected")
		}
		if _, met := s.Until(time.Minute, func() bool { return n.disc.ConnectedGroup(h.ID()) == want }); !met {
			t.Errorf("gone: group %q, want %q", n.disc.ConnectedGroup(h.ID()), want)
		}
		if got := n.disc.ConnectedGroup(n.host.ID()); got != "" {
			t.Errorf("our own records are of group %q", got)
		}
		stopAll([]*node{n})
	})
}

// TestProviderGroupShare: one IP group has its share of a key, in which stale records give way, and equals do not push each other out.
func TestProviderGroupShare(t *testing.T) {
	const key = "/providers/OWN"
	now := time.Now()
	group := func(id peer.ID) string { return string(id[:1]) }
	s := discovery.NewProviderStore(key, func() time.Time { return now }, group)
	put := func(id string) bool {
		k, v := provided(key, peer.ID(id), now)
		if err := s.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
		ok, err := s.Has(t.Context(), k)
		return ok && err == nil
	}
	for g := range 8 {
		in := 0
		for i := range 100 {
			if put(fmt.Sprintf("%c%d", 'a'+g, i)) {
				in++
			}
		}
		if in != discovery.MaxGroupPerKey {
			t.Fatalf("group %d has %d records, want %d", g, in, discovery.MaxGroupPerKey)
		}
	}
	in := 0
	for i := range 100 { // the key is full: a ninth group gets as much as the others keep, and no more
		if put(fmt.Sprintf("z%d", i)) {
			in++
		}
	}
	if most := discovery.MaxProvidersPerKey / 9; in < most-1 || in > most+1 {
		t.Errorf("a ninth group has %d records, want about %d", in, most)
	}
	if put("a1000") {
		t.Error("a group with its share got another place")
	}
	now = now.Add(discovery.ProviderStaleAfter + time.Second)
	if !put("a1001") {
		t.Error("stale records do not give way in a group")
	}
}

// TestValuesAreRefused: PUT_VALUE and GET_VALUE end the stream, and nothing is stored; ADD_PROVIDER for somebody else is not believed.
func TestValuesAreRefused(t *testing.T) {
	server, client := realHost(t), realHost(t)
	run(t, discovery.Options{Host: server, Namespace: simNamespace, Private: true})
	if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}); err != nil {
		t.Fatal(err)
	}
	kad := protocol.ID(simNamespace + "/kad/1.0.0")
	eventually(t, patience, "the DHT serves", func() bool {
		s, err := client.NewStream(t.Context(), server.ID(), kad)
		if err != nil {
			return false
		}
		defer s.Reset()
		m := &dhtpb.Message{Type: dhtpb.Message_PING}
		answer, err := ask(t, s, m)
		return err == nil && answer.GetType() == dhtpb.Message_PING
	})
	key := []byte("/v/key")
	// Its record is a message of a package that is none of our dependencies: key 1, value 2, in field 3.
	entry := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), []byte("value"))
	putValue := &dhtpb.Message{}
	if err := proto.Unmarshal(protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), entry), putValue); err != nil {
		t.Fatal(err)
	}
	putValue.Type, putValue.Key = dhtpb.Message_PUT_VALUE, key
	for _, m := range []*dhtpb.Message{putValue, {Type: dhtpb.Message_GET_VALUE, Key: key}} {
		s, err := client.NewStream(t.Context(), server.ID(), kad)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := ask(t, s, m); err == nil {
			t.Errorf("%s is answered with %v", m.GetType(), answer)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is left without an answer", m.GetType())
		}
		_ = s.Reset()
	}

	// For another peer than oneself.
	rendezvous, err := discovery.RendezvousKey(simNamespace + "/full")
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.NewStream(t.Context(), server.ID(), kad)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Reset() }()
	other := testPeers(t, 1)[0]
	m := &dhtpb.Message{Type: dhtpb.Message_ADD_PROVIDER, Key: rendezvous.Hash()}
	m.ProviderPeers = dhtpb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: other, Addrs: client.Addrs()}})
	if err := errors.Join(s.SetDeadline(time.Now().Add(patience)), write(s, m)); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseWrite() // an error when the server has reset the stream by now

	if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) { // it has been looked at
		t.Fatal(err)
	}
	if s, err = client.NewStream(t.Context(), server.ID(), kad); err != nil {
		t.Fatal(err)
	}
	answer, err := ask(t, s, &dhtpb.Message{Type: dhtpb.Message_GET_PROVIDERS, Key: rendezvous.Hash()})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range dhtpb.PBPeersToPeerInfos(answer.ProviderPeers) {
		if p.ID == other {
			t.Error("it tells of a provider that did not say so itself")
		}
	}
}

func write(s network.Stream, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
	return err
}

// ask sends a message of Kademlia and reads the answer.
func ask(t *testing.T, s network.Stream, m proto.Message) (*dhtpb.Message, error) {
	t.Helper()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := write(s, m); err != nil {
		return nil, err
	}
	in := bufio.NewReader(s)
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(n, 1<<20))
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, err
	}
	var answer dhtpb.Message
	return &answer, proto.Unmarshal(b, &answer)
}
