package node_test

import (
	"strings"
	"testing"
	"time"

	"dunlin/config"
	"dunlin/internal/node"
)

// A clock is set off on a test network that listens on loopback, and nowhere else.
func TestClockOffsetIsForTests(t *testing.T) {
	loopback := []string{"/ip4/127.0.0.1/tcp/0", "/ip6/::1/udp/0/quic-v1"}
	for _, x := range []struct {
		network string
		listen  []string
		offset  time.Duration
		want    string // of the error; empty: none
	}{
		{"regtest", loopback, 90 * time.Second, ""},
		{"testnet", loopback, -90 * time.Second, ""},
		{"bitcoin", nil, 0, ""},
		{"regtest", loopback, 91 * time.Second, "must be within 1m30s"},
		{"regtest", loopback, -time.Hour, "must be within 1m30s"},
		{"bitcoin", loopback, time.Second, "network bitcoin is not for tests"},
		{"regtest", nil, time.Second, "must listen on loopback"},
		{"regtest", []string{"/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/9333"}, time.Second, "/ip4/0.0.0.0/tcp/9333, which is not loopback"},
		{"regtest", []string{"/ip4/192.168.1.20/tcp/9333"}, time.Second, "not loopback"},
		{"regtest", []string{"nonsense"}, time.Second, "not loopback"},
	} {
		n, err := config.Preset(x.network)
		if err != nil {
			t.Fatal(err)
		}
		c := config.Default(n)
		c.P2P.Listen = x.listen
		err = node.CheckClockOffset(c, x.offset)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s %v %v: %v, want %q", x.network, x.listen, x.offset, err, x.want)
		}
	}
}
