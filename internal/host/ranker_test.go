package host_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/internal/host"
)

// TestDialOrder: TCP before QUIC, each in libp2p's order.
func TestDialOrder(t *testing.T) {
	const (
		tcp4, quic4   = "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"
		tcp6, quic6   = "/ip6/2600::1/tcp/1", "/ip6/2600::1/udp/1/quic-v1"
		lanTCP, lanUD = "/ip4/192.168.0.2/tcp/1", "/ip4/192.168.0.2/udp/1/quic-v1"
	)
	for _, tc := range []struct {
		in, want []string
	}{
		{nil, nil},
		{[]string{quic4, tcp4}, []string{tcp4 + " 0s", quic4 + " 250ms"}},
		{[]string{quic4}, []string{quic4 + " 0s"}},
		{[]string{tcp4}, []string{tcp4 + " 0s"}},
		{[]string{lanUD, lanTCP}, []string{lanTCP + " 0s", lanUD + " 30ms"}},
		{[]string{quic6, quic4, tcp6, tcp4}, []string{tcp6 + " 0s", tcp4 + " 250ms", quic6 + " 500ms", quic4 + " 750ms"}},
		{[]string{quic4, lanTCP}, []string{lanTCP + " 0s", quic4 + " 250ms"}},
	} {
		var got []string
		for _, d := range host.RankDials(addrs(t, tc.in...)) {
			got = append(got, fmt.Sprint(d.Addr, " ", d.Delay))
		}
		if fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%v:\n got %v\nwant %v", tc.in, got, tc.want)
		}
	}
}

// TestTCPFirst: a peer that has both is reached over TCP, one whose TCP does not
// answer over QUIC.
func TestTCPFirst(t *testing.T) {
	server := start(t, 1, nil)
	var quic ma.Multiaddr
	for _, a := range server.Addrs() {
		if _, err := a.ValueForProtocol(ma.P_UDP); err == nil {
			quic = a
		}
	}
	// A listener whose queue is full swallows what dials it, as a filter does.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	serial := uint64(10)
	for name, tc := range map[string]struct {
		addrs []ma.Multiaddr
		want  int
		tries int
	}{
		// QUIC gets its chance 30 ms later, which on a busy machine may be enough: TCP must
		// be the first once.
		"both":             {server.Addrs(), ma.P_TCP, 20},
		"QUIC only":        {[]ma.Multiaddr{quic}, ma.P_UDP, 1},
		"TCP does nothing": {append(addrs(t, silent), quic), ma.P_UDP, 1},
	} {
		t.Run(name, func(t *testing.T) {
			over := ""
			for tries := 0; tries < tc.tries && (tries == 0 || over != ""); tries++ {
				serial++
				client := start(t, serial, nil)
				began := time.Now()
				if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: tc.addrs}); err != nil {
					t.Fatal(err)
				}
				t.Log(time.Since(began).Round(time.Millisecond))
				over = ""
				for _, c := range client.Network().ConnsToPeer(server.ID()) {
					if _, err := c.RemoteMultiaddr().ValueForProtocol(tc.want); err != nil || c.Stat().Direction != network.DirOutbound {
						over = c.RemoteMultiaddr().String()
					}
				}
			}
			if over != "" {
				t.Errorf("connected over %s", over)
			}
		})
	}
}
