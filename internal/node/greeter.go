package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"dunlin/chain/exchange"
	"dunlin/config"
	"dunlin/discovery"
	"dunlin/internal/host"
)

// greeter greets nodes without being one: it dials, says hello as a crawler does, and leaves. The seeder and the
// doctor use it.
type greeter struct {
	host      *host.Host
	exchange  *exchange.Exchange
	namespace string
	genesis   chainhash.Hash
	closers   []func() error
}

// newGreeter makes a greeter of c's network. A chain that stays at its genesis is made in c.Home, which must
// be no node's.
func newGreeter(c *config.Config, key crypto.PrivKey, agent string, log *slog.Logger, metrics prometheus.Registerer) (_ *greeter, err error) {
	g := &greeter{genesis: c.Chain.Params.GenesisHash}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	chain, err := OpenChain(c, log)
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, chain.Close)
	g.host, err = host.New(host.Options{ // it listens nowhere: nobody has a reason to connect to it
		Key: key, Agent: agent, Private: c.P2P.AllowPrivate, MaxConns: 1024, PrometheusRegisterer: metrics,
		Logger: log.With("subsystem", "host"),
	})
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, g.host.Close)
	chainID := c.Chain.Params.ChainID()
	g.namespace = exchange.Prefix(chainID)
	g.exchange, err = exchange.New(exchange.Options{
		Host: g.host, Chain: exchange.FromChain(chain), ChainID: chainID, Agent: agent, Logger: log.With("subsystem", "sync"),
	})
	return g, err
}

func (g *greeter) close() error {
	var errs []error
	for _, c := range slices.Backward(g.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// resolver resolves seeds as a node of c's would.
func (g *greeter) resolver(c *config.Config) *discovery.Resolver {
	return &discovery.Resolver{Servers: c.P2P.DNSServers, Host: g.host, Port: c.Chain.P2PPort, Private: c.P2P.AllowPrivate}
}

// greeting is what a node said.
type greeting struct {
	hello exchange.Hello
	addr  ma.Multiaddr    // where it answered
	known []peer.AddrInfo // whom it knows
}

// errForeign says that a node is of another network.
var errForeign = errors.New("another network")

// greet connects to a node, asks whom it knows, greets it and disconnects.
func (g *greeter) greet(ctx context.Context, info peer.AddrInfo) (out greeting, err error) {
	if err := g.host.Connect(ctx, info); err != nil {
		return out, err
	}
	defer func() { _ = g.host.Network().ClosePeer(info.ID) }()
	for _, c := range g.host.Network().ConnsToPeer(info.ID) {
		if c.Stat().Direction == network.DirOutbound {
			out.addr = c.RemoteMultiaddr()
		}
	}
	// First, for a node ends the connection of a crawler after the greeting; one that does not say is greeted all the same.
	if known, err := discovery.AskPeers(ctx, g.host, g.namespace, info.ID); err == nil {
		out.known = known
	}
	out.hello, err = g.exchange.Probe(ctx, info)
	if err != nil && out.hello.Version != 0 && out.hello.Genesis != g.genesis {
		err = fmt.Errorf("%w: genesis %s", errForeign, out.hello.Genesis)
	}
	return out, err
}
