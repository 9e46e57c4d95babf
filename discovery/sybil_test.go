package discovery_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	kadpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"dunlin/discovery"
	"dunlin/internal/simnet"
)

// lie makes a host a server of our DHT that knows of nobody but the attacker's identities: it names twenty of them for
// whatever it is asked, near or providers, and forgets the records that it is given.
func lie(h host.Host, sybils *[]peer.AddrInfo) {
	h.SetStreamHandler(simNamespace+"/kad/1.0.0", func(s network.Stream) {
		defer s.Reset()
		r := bufio.NewReader(s)
		for {
			size, err := binary.ReadUvarint(r)
			if err != nil || size > 1<<20 {
				return
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			var m kadpb.Message
			if proto.Unmarshal(b, &m) != nil {
				return
			}
			if m.Type == kadpb.Message_ADD_PROVIDER {
				continue // it has no answer
			}
			some := make([]peer.AddrInfo, 0, 20)
			for range min(20, len(*sybils)) {
				some = append(some, (*sybils)[rand.IntN(len(*sybils))])
			}
			reply := &kadpb.Message{Type: m.Type, Key: m.Key, CloserPeers: kadpb.RawPeerInfosToPBPeers(some)}
			if m.Type == kadpb.Message_GET_PROVIDERS {
				reply.ProviderPeers = reply.CloserPeers
			}
			if b, err = proto.Marshal(reply); err != nil {
				return
			}
			if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...)); err != nil {
				return
			}
		}
	})
}

// nearKey makes n keys whose peers are nearer to the rendezvous than those of any few
// dozen honest nodes.
func nearKey(t *testing.T, n int) []crypto.PrivKey {
	t.Helper()
	rendezvous, err := discovery.Rendezvous(simNamespace)
	if err != nil {
		t.Fatal(err)
	}
	target := sha256.Sum256(rendezvous.Hash())
	type near struct {
		key  crypto.PrivKey
		dist [sha256.Size]byte
	}
	all := make([]near, 100*n)
	for i := range all {
		key, id := newKey(t)
		all[i] = near{key, sha256.Sum256([]byte(id))}
		for j := range all[i].dist {
			all[i].dist[j] ^= target[j]
		}
	}
	slices.SortFunc(all, func(a, b near) int { return bytes.Compare(a.dist[:], b.dist[:]) })
	keys := make([]crypto.PrivKey, n)
	for i := range keys {
		keys[i] = all[i].key
	}
	return keys
}

// Twenty-four Sybils hold all places next to the rendezvous key (twenty are asked), each in an IP group of its own. They forget
// every advert and name only one another, in the DHT and by peer exchange, and are connected with everybody. A newcomer
// that knows one honest node finds the others all the same, and so do the others find it: not all sources are one
// source.
func TestSybilsAtTheKey(t *testing.T) {
	inSim(t, func(s *sim) {
		const honest, sybils = 10, 24
		public := func(known ...*node) func(*discovery.Options) {
			return func(o *discovery.Options) {
				o.Private = false
				for _, n := range known {
					o.Bootstrap = append(o.Bootstrap, addr(n.host))
				}
			}
		}
		nodes := []*node{s.start(simIP(0), public())}
		for i := 1; i < honest; i++ {
			nodes = append(nodes, s.start(simIP(i), public(nodes[0])))
		}
		s.atLeast(nodes, 4, 10*time.Second)
		var infos []peer.AddrInfo
		var records [][]byte
		var bad []*simnet.Host
		for i, key := range nearKey(t, sybils) {
			h := s.hostWithKey(simIP(100+i), key)
			infos = append(infos, h.Info())
			records = append(records, signed(t, h.ID(), key, h.Addrs()[0].String()))
			bad = append(bad, h)
		}
		for _, h := range bad {
			lie(h, &infos)
			h.SetStreamHandler(peersProtocol, func(st network.Stream) {
				_, _ = st.Write(discovery.EncodeRecords(records))
				_ = st.Close()
			})
			for _, n := range nodes {
				if err := h.Connect(s.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.Pass(time.Minute) // adverts are made again, and go to the Sybils

		good := map[peer.ID]bool{}
		for _, n := range nodes {
			good[n.host.ID()] = true
		}
		// Which of those that it is told of it dials first is drawn, and now and then most of them are Sybils.
		few := 0
		for i := range 5 {
			newcomer := s.start(simIP(50+i), public(nodes[3]))
			friends := func() (count int) {
				for _, p := range newcomer.host.Network().Peers() {
					if good[p] {
						count++
					}
				}
				return count
			}
			took, met := s.Until(20*time.Second, func() bool { return friends() >= 4 })
			t.Logf("%d honest peers after %s, of %d", friends(), took, len(newcomer.host.Network().Peers()))
			if !met {
				few++
			}
			if friends() < 2 {
				t.Errorf("after %s the newcomer has %d honest peers: %+v", took, friends(), newcomer.disc.Stats())
			}
			newcomer.stop()
		}
		if few > 2 {
			t.Errorf("%d of 5 newcomers did not find four honest peers", few)
		}
		stopAll(nodes)
	})
}

// A million records of as many providers, for as many keys, and for the rendezvous itself, leave a store of
// 16,384 records and the honest ones in it.
func TestAMillionProviderRecords(t *testing.T) {
	key, err := discovery.Rendezvous(simNamespace)
	if err != nil {
		t.Fatal(err)
	}
	own, now := discovery.ProviderKey(key), time.Now()
	before := heap()
	s := discovery.NewProviderStore(own, func() time.Time { return now }, nil)
	put := func(key string, peer int) {
		k, v := providerEntry(key, peer, now)
		if err := s.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	const honest = 60
	for i := range honest {
		put(own, i)
	}
	start := time.Now()
	records := 1_000_000
	if testing.Short() { // with the race detector; the same build runs all of them without it
		records = 100_000
	}
	for i := range records {
		switch i % 4 {
		case 0:
			put(own, honest+i)
		case 1:
			put(fmt.Sprintf("/providers/K%d", i), i)
		case 2:
			put(fmt.Sprintf("/providers/K%d", i%64), i)
		default:
			put(fmt.Sprintf("/providers/K%d", i), 777_777)
		}
	}
	took := time.Since(start)
	// 16,384 records of some 300 bytes, with the maps that hold them.
	const most = 16 << 20
	if grown := heap() - before; grown > most {
		t.Errorf("the heap has grown by %d bytes, at most %d", grown, most)
	} else {
		t.Logf("%d records in %s, %d KB of heap", records, took, grown>>10)
	}
	for i := range honest {
		k, _ := providerEntry(own, i, now)
		if ok, err := s.Has(t.Context(), k); !ok || err != nil {
			t.Fatalf("the honest record %d is gone: %v", i, err)
		}
	}
	runtime.KeepAlive(s)
}

// heap is what is in use after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // below 2^63
}
