package discovery_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// Three honest nodes, and an attacker with eight IP groups, enough for every outbound slot, who has 48 machines that answer and claims 1,000 more
// identities, by every way that is open: DNS, the DHT, peer exchange, dialling in. The victim is restarted again and
// again, half of the time without its anchors, and always has an honest outbound peer.
func TestEclipse(t *testing.T) {
	const groups = 8
	restarts := 20
	if testing.Short() { // with the race detector each costs seconds; the same build runs all of them without it
		restarts = 4
	}
	dir := t.TempDir()
	inSim(t, func(s *sim) {
		honest := map[peer.ID]bool{}
		var hosts []host.Host
		answer := func(h host.Host, records *[][]byte) {
			h.SetStreamHandler(simNamespace+"/kad/1.0.0", func(st network.Stream) { _ = st.Reset() })
			h.SetStreamHandler(peersProtocol, func(st network.Stream) {
				_, _ = st.Write(discovery.EncodeRecords(*records))
				_ = st.Close()
			})
			hosts = append(hosts, h)
		}
		var none [][]byte
		var good []peer.AddrInfo
		for i := range 3 {
			h := s.host(netip.AddrFrom4([4]byte{30, byte(i), 0, 1}))
			honest[h.ID()] = true
			good = append(good, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
			answer(h, &none)
		}
		var lies [][]byte
		var sybils []peer.AddrInfo
		sybilAt := func(i int) string { return fmt.Sprintf("66.%d.%d.%d", i%groups, 1+i/groups/200, 1+i/groups%200) }
		for i := range 48 {
			h := s.host(netip.MustParseAddr(sybilAt(i)))
			sybils = append(sybils, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
			answer(h, &lies)
			lie(h.Host, &sybils) // the DHT too: all that anybody of it names are Sybils
		}
		for i := range 1000 {
			key, id := newKey(t)
			addr := "/ip4/" + sybilAt(48+i) + "/udp/8000/quic-v1"
			sybils = append(sybils, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(addr)}})
			if i < discovery.MaxRecords {
				lies = append(lies, signed(t, id, key, addr))
			}
		}
		key, _ := newKey(t)
		start := func() *node {
			return s.startOn(s.hostWithKey(simIP(0), key), func(o *discovery.Options) { o.Private, o.Dir = false, dir })
		}
		lonely, worst := 0, 0
		for r := range restarts {
			n := start()
			if r == 0 {
				for _, ai := range good {
					n.disc.LearnFrom(time.Now(), ai, discovery.SourceDNS, "seed.honest.test")
				}
				s.Pass(time.Minute) // it was there before the attack began
			}
			// The attacker speaks first and most.
			for i, ai := range sybils {
				n.disc.LearnFrom(time.Now(), ai, []discovery.Source{discovery.SourceDNS, discovery.SourceDHT, discovery.SourcePeers}[i%3], "66")
			}
			s.Pass(2 * time.Minute)
			have, bad := 0, 0
			for _, c := range n.host.Network().Conns() {
				switch {
				case c.Stat().Direction != network.DirOutbound:
				case honest[c.RemotePeer()]:
					have++
				default:
					bad++
				}
			}
			if have == 0 {
				lonely++
				for _, ai := range good {
					t.Logf("restart %d, now %v: %s", r, time.Now(), n.disc.Describe(ai.ID))
				}
			}
			// We pick two of a group (TestSpreadOverGroups), the queries of the DHT are led to more.
			worst = max(worst, bad)
			n.stop()
			if r%2 == 1 {
				if err := os.Remove(filepath.Join(dir, "anchors.jsonl")); err != nil {
					t.Error(err)
				}
			}
		}
		t.Logf("at most %d outbound connections to the attacker's machines", worst)
		if lonely > 0 {
			t.Errorf("in %d of %d restarts the victim had no honest outbound peer", lonely, restarts)
		}
		for _, h := range hosts {
			_ = h.Close()
		}
	})
}
