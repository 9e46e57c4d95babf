package seeder_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/discovery/seeder"
)

// A seed crawls a network of two nodes, of which it knows one, and writes a zone file. How a node is asked is the caller's.
func Example() {
	one, err := peer.AddrInfoFromString("/ip4/192.0.2.1/tcp/9333/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")
	if err != nil {
		panic(err)
	}
	two, err := peer.AddrInfoFromString("/ip4/198.51.100.1/tcp/9333/p2p/12D3KooWDMCQbZZvLgHiHntG1KwcHoqHPAxL37KvhgibWqFtpqUY")
	if err != nil {
		panic(err)
	}
	s, err := seeder.New(seeder.Options{
		Namespace: "/dunlin/example-00000000", Zone: "seed.example.org", Nameservers: []string{"ns.example.net"},
		Bootstrap: []peer.AddrInfo{*one}, Private: true, // addresses of examples are not public
		Probe: func(_ context.Context, node peer.AddrInfo) (seeder.Report, error) { // a real one connects, greets and asks
			return seeder.Report{Height: 100, Serves: true, Peers: []peer.AddrInfo{*two}}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for range time.Tick(time.Millisecond) {
		if s.Stats().Good == 2 {
			break
		}
	}
	cancel()
	fmt.Println(<-done)
	var zone strings.Builder
	if err := s.WriteZone(&zone); err != nil {
		panic(err)
	}
	fmt.Println(strings.Count(zone.String(), "dnsaddr="), "nodes")
	// Output:
	// <nil>
	// 2 nodes
}
