package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/exchange"
	"dunlin/chain/mining"
)

// Two nodes, of which one has blocks: once they are connected the other one has them too.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	params := consensus.Regtest()
	var stops []func() error
	start := func() (host.Host, *chain.Chain, *exchange.Exchange) {
		dir, err := os.MkdirTemp("", "exchange")
		if err != nil {
			panic(err)
		}
		c, err := chain.Open(chain.Options{Dir: dir, Params: params, Engine: pow.New(params)})
		if err != nil {
			panic(err)
		}
		h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
		if err != nil {
			panic(err)
		}
		x, err := exchange.New(exchange.Options{
			Host: h, Chain: exchange.FromChain(c), ChainID: params.ChainID(),
			TipGrace: time.Millisecond, // there is no gossip here that could bring a block first
		})
		if err != nil {
			panic(err)
		}
		runs := make(chan error, 2)
		go func() { runs <- c.Run(ctx) }()
		go func() { runs <- x.Run(ctx) }()
		stops = append(stops, func() error { // in this order
			<-runs
			<-runs
			return errors.Join(h.Close(), c.Close(), os.RemoveAll(dir))
		})
		return h, c, x
	}
	ahead, full, _ := start()
	behind, empty, x := start()

	miner, err := mining.New(mining.Options{Chain: full, Engine: pow.New(params), Sealer: pow.NewSealer(1), PayTo: []byte{0x51}})
	if err != nil {
		panic(err)
	}
	for range 5 {
		if _, _, err := miner.MineOne(ctx, ""); err != nil {
			panic(err)
		}
	}
	if err := behind.Connect(ctx, peer.AddrInfo{ID: ahead.ID(), Addrs: ahead.Addrs()}); err != nil {
		panic(err)
	}
	tip, moved := empty.Tip()
	for tip.Height < 5 {
		select {
		case <-moved:
		case <-time.After(time.Minute):
			panic(fmt.Sprintf("%+v", x.Sync()))
		}
		tip, moved = empty.Tip()
	}
	want, _ := full.Tip()
	fmt.Println(tip.Height, tip.Hash == want.Hash)

	cancel()
	for _, stop := range stops {
		if err := stop(); err != nil {
			panic(err)
		}
	}
	// Output: 5 true
}
