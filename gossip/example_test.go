package gossip_test

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/gossip"
)

// Two nodes on one topic; the second publishes when the first has joined.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heard, joined := make(chan string, 1), make(chan struct{}, 2)
	start := func() (h host.Host, g *gossip.Gossip, stop func()) {
		var err error
		h, err = libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			panic(err)
		}
		g, err = gossip.New(gossip.Options{
			Host: h,
			Topics: []gossip.Topic{{Name: "/demo/news/1", MaxBytes: 1024, Validate: func(_ context.Context, _ peer.ID, data []byte) gossip.Verdict {
				heard <- string(data)
				return gossip.Verdict{Result: gossip.Accept}
			}}},
			OnTopicPeer: func(string, peer.ID) { joined <- struct{}{} },
		})
		if err != nil {
			panic(err)
		}
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		select {
		case <-g.Ready():
		case err := <-done:
			panic(err)
		}
		return h, g, func() {
			cancel()
			<-done // before the host is closed
			h.Close()
		}
	}
	a, _, stop := start()
	defer stop()
	b, news, stop := start()
	defer stop()
	if err := b.Connect(ctx, peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}); err != nil {
		panic(err)
	}
	<-joined
	<-joined // both know of each other
	fmt.Println(news.Publish(ctx, "/demo/news/1", []byte("hello")), <-heard)
	// Output: <nil> hello
}
