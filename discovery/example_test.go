package discovery_test

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
)

// Two bare libp2p hosts; the second knows one address of the first.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var bootstrap []ma.Multiaddr
	for range 2 {
		host, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			panic(err)
		}
		defer host.Close()
		d, err := discovery.New(discovery.Options{
			Host: host, Namespace: "/dunlin/example-00000000", Bootstrap: bootstrap, Private: true,
		})
		if err != nil {
			panic(err)
		}
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		defer func() { cancel(); <-done }()
		if len(bootstrap) > 0 {
			for range time.Tick(time.Millisecond) {
				if d.Stats().Outbound > 0 || ctx.Err() != nil {
					break
				}
			}
			fmt.Println("outbound peers:", d.Stats().Outbound)
		}
		bootstrap = []ma.Multiaddr{ma.StringCast(fmt.Sprintf("%s/p2p/%s", host.Addrs()[0], host.ID()))}
	}
	// Output: outbound peers: 1
}
