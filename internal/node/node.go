// Package node wires every part of a dunlin daemon together, runs it and stops
// it in order.
//
// It decides nothing that another package could decide: engines are chosen here
// by a switch, settings are mapped to Options, callbacks of one part are tied to
// methods of another.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/ibd"
	"dunlin/chain/index"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
	"dunlin/config"
	"dunlin/discovery"
	"dunlin/gossip"
	"dunlin/internal/api"
	"dunlin/internal/flood"
	"dunlin/internal/host"
	"dunlin/internal/logs"
	"dunlin/internal/wallet"
)

const (
	keyFile = "identity.key"
	// peersDir holds discovery's address book, anchors and added peers.
	peersDir = "peers"
	bansFile = "bans.json" // in peersDir
	// avoidWrongNetwork (and who does not speak our protocols) and avoidMisbehaved are how long
	// a peer is not dialled.
	avoidWrongNetwork = time.Hour
	avoidMisbehaved   = 24 * time.Hour
	// blamePoints is what a provable breach of another protocol costs in gossip:
	// there its peer gets no more than its messages read; with the fourth within
	// half an hour it is shunned.
	blamePoints = 150
	// shunTime is how long a peer is kept away that stayed graylisted, or that
	// was blamed until it was.
	shunTime = time.Hour
	// liveInterval is the time between two drawings of a live progress line.
	liveInterval = 500 * time.Millisecond
)

// Options configure New.
type Options struct {
	Config  *config.Config
	Logger  *slog.Logger
	Levels  *logs.Levels
	Ring    *logs.Ring // of the lines of Logger; nil: none are kept
	Version string
	// Live says that the log's progress line is drawn anew in place: it is renewed as
	// often as an eye wants it, and not every 5 s.
	Live bool
	// ClockOffset sets the clock by which the chain and the miner go off the machine's, to test what a wrong clock
	// does. See CheckClockOffset.
	ClockOffset time.Duration
	// Stop is called when the operator asks for an end through the API.
	Stop func()
	// OnCatchUp is called, by one goroutine, when the node begins to run and whenever it changes: whether the node has many
	// blocks to validate before it is in sync. Optional; it must not block.
	OnCatchUp func(bool)
}

// A Node is a daemon that is built and listens, but does not run yet.
type Node struct {
	o       Options
	c       *config.Config
	log     *slog.Logger
	params  *consensus.Params
	agent   string
	started time.Time

	chain    *chain.Chain
	pool     *mempool.Pool
	engine   consensus.Engine
	miner    *mining.Miner
	host     *host.Host
	exchange *exchange.Exchange
	gossip   *gossip.Gossip
	bans     *host.Bans
	disc     *discovery.Discovery
	api      *api.Server
	blocks   *flood.Flood
	metrics  *prometheus.Registry
	wallet   *wallet.Wallet
	payTo    atomic.Pointer[string] // address that the miner pays
	private  bool                   // nodes live on private or shared addresses
	kept     map[peer.ID]bool       // persistent peers; fixed
	trusted  map[peer.ID]bool       // they, and bootstrap nodes; fixed
	rpcAddr  string                 // host:port of the HTTP interface

	refusals *logs.Limiter
	txPeer   chan struct{}                       // somebody hears of transactions now; capacity 1
	deeds    *deeds                              // of peers: what speaks for keeping them
	parents  *parents                            // of orphans, to be asked for
	closers  []func() error                      // in order of building
	named    atomic.Pointer[discovery.Discovery] // disc, once it is built, for the goroutines of the host
	floor    feeFloor                            // of peers
	pools    *reconciler                         // of peers

	sealer    consensus.Sealer
	stake     *stake // nil where work makes the blocks
	summed    summaries
	poolViews poolViews
	history   *history
	holders   holders
	indexes   map[index.Kind]*index.Index // those that are on; fixed
}

// New builds the node in the home of o.Config, making what is missing (home, key,
// config file), and listens. Whatever fails, nothing stays open.
func New(ctx context.Context, o Options) (_ *Node, err error) {
	n := &Node{
		o: o, c: o.Config, log: o.Logger, params: o.Config.Chain.Params,
		agent: "dunlin/" + strings.TrimPrefix(o.Version, "v"), started: time.Now(),
		refusals: logs.NewLimiter(3, time.Minute, 256),
		txPeer:   make(chan struct{}, 1),
		parents:  newParents(),
		deeds:    newDeeds(),
		history:  newHistory(),
		metrics:  prometheus.NewRegistry(),
	}
	if err := CheckClockOffset(n.c, o.ClockOffset); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := config.EnsureHome(n.c.Home); err != nil {
		return nil, err
	}
	// The chain's lock on the home comes first: nothing else may touch it.
	n.chain, err = openChain(n.c, n.log, func(o *chain.Options) {
		o.Now = n.now
		// The pool is made on top of the chain, and asked only once both run.
		o.ScriptsChecked = func(wtxid chainhash.Hash, flags uint32) bool { return n.pool.ScriptsChecked(wtxid, flags) }
	})
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.chain.Close)
	if _, err := n.c.WriteFile(); err != nil {
		return nil, err
	}
	if err := n.openIndexes(); err != nil {
		return nil, err
	}
	if err := n.openLedger(); err != nil {
		return nil, err
	}
	if err := n.openNetwork(); err != nil {
		return nil, err
	}
	if err := n.openAPI(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// openLedger makes what works on the chain: mempool and miner.
func (n *Node) openLedger() error {
	n.engine = newEngine(n.params)
	if err := n.openSealer(); err != nil {
		return err
	}
	o := mempool.Options{
		Chain:      n.chain,
		MaxBytes:   int64(n.c.Mempool.MaxMB) * 1_000_000,
		MinFeeRate: int64(cmp.Or(n.c.Mempool.MinRelayFee, -1)), // 0 here is none
		Expiry:     n.c.Mempool.ExpireAfter,
		MaxOrphans: cmp.Or(n.c.Mempool.MaxOrphans, -1),
		Logger:     n.log.With("subsystem", "mempool"),
	}
	if n.c.Mempool.Persist {
		o.File = filepath.Join(n.c.Home, poolFile)
	}
	var err error
	if n.pool, err = mempool.New(o); err != nil {
		return err
	}
	payTo, payAddr, err := minerScript(n.params, n.c)
	if err != nil {
		return err
	}
	n.payTo.Store(&payAddr)
	n.miner, err = mining.New(mining.Options{
		Chain: n.chain, Engine: n.engine, Sealer: n.sealer, Pool: n.pool,
		PayTo: payTo, CoinbaseText: n.c.Mining.CoinbaseText,
		Interval: n.c.Mining.Interval, Mine: n.c.Mining.Enabled || n.stake != nil && n.c.Staking.Enabled,
		Ready:    n.mayMine,
		OnSealed: func(b *consensus.Block) { n.blocks.Prepare(b) },
		OnBlock: func(_ context.Context, b *consensus.Block) {
			n.blocks.Publish(b.Raw, b.Hash)
			if n.stake != nil {
				n.logStaked(b)
			}
		},
		Now:    n.now,
		Logger: n.log.With("subsystem", "miner"),
	})
	if err != nil {
		return err
	}
	return n.openWallet()
}

// openNetwork makes the host and what speaks through it.
func (n *Node) openNetwork() error {
	key, err := host.LoadOrCreateKey(filepath.Join(n.c.Home, keyFile), n.log)
	if err != nil {
		return err
	}
	chainID := n.params.ChainID()
	listen, err1 := multiaddrs("p2p.listen", n.c.P2P.Listen)
	announce, err2 := multiaddrs("p2p.announce", n.c.P2P.Announce)
	bootstrap, err3 := multiaddrs("p2p.bootstrap", n.c.P2P.Bootstrap)
	persistent, err4 := multiaddrs("p2p.persistent", n.c.P2P.Persistent)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	var assumed bool
	if n.private, assumed = onPrivateNetwork(n.c, listen, bootstrap); assumed {
		n.log.Info("private network assumed: all addresses to listen on or to join are local; p2p.allow_private decides otherwise")
	}
	limits := make(map[protocol.ID]host.ProtocolLimit)
	for id, l := range exchange.Limits(chainID) {
		limits[id] = host.ProtocolLimit{InPerPeer: l.PerPeer, In: l.Total, MemoryPerPeer: l.Memory}
	}
	for _, id := range gossip.Protocols() { // one stream each way; a second while the first is replaced
		limits[id] = host.ProtocolLimit{InPerPeer: 2, In: 2 * (n.c.P2P.MaxInbound + 2*n.c.P2P.MaxOutbound + 16)}
	}
	if n.bans, err = host.LoadBans(filepath.Join(n.c.Home, peersDir, bansFile)); err != nil {
		return err
	}
	var noAnnounce []netip.Prefix
	for _, s := range n.c.P2P.NoAnnounce {
		p, err := host.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("p2p.no_announce: %w", err)
		}
		noAnnounce = append(noAnnounce, p)
	}
	prefix := exchange.Prefix(chainID)
	n.host, err = host.New(host.Options{
		Key: key, Listen: listen, Announce: announce, NoAnnounce: noAnnounce, Agent: n.agent,
		Private: n.private, NAT: n.wanted("p2p.nat", n.c.P2P.NAT), HolePunch: n.wanted("p2p.hole_punch", n.c.P2P.HolePunch),
		Relays: n.relays, Relay: n.c.P2P.Relay, RelayFor: discovery.Protocols(prefix), WebSocket: n.c.P2P.WebSocket,
		MaxInbound:           cmp.Or(n.c.P2P.MaxInbound, -1),
		MaxConns:             n.c.P2P.MaxInbound + 2*n.c.P2P.MaxOutbound + 16,
		ProtocolLimits:       limits,
		Bans:                 n.bans,
		PrometheusRegisterer: n.metrics,
		Logger:               n.log.With("subsystem", "host"),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.host.Close)

	n.disc, err = discovery.New(discovery.Options{
		Host: n.host, Namespace: prefix,
		Bootstrap: bootstrap, Persistent: persistent,
		DNSSeeds: n.c.P2P.DNSSeeds, SeedPort: n.c.Chain.P2PPort, DNSServers: n.c.P2P.DNSServers,
		Dir: filepath.Join(n.c.Home, peersDir), MaxOutbound: cmp.Or(n.c.P2P.MaxOutbound, -1),
		Private: n.private, HolePunch: n.wanted("p2p.hole_punch", n.c.P2P.HolePunch), MDNS: n.c.P2P.MDNS,
		Closed: !n.c.P2P.Discovery,
		Logger: n.log.With("subsystem", "discovery"),
	})
	if err != nil {
		return err
	}
	n.named.Store(n.disc)
	var progress, idle time.Duration // the defaults
	if n.o.Live {
		progress, idle = liveInterval, liveInterval
	}
	n.kept = make(map[peer.ID]bool)
	for _, a := range persistent {
		if info, err := peer.AddrInfoFromP2pAddr(a); err == nil {
			n.kept[info.ID] = true
		}
	}
	n.trusted = maps.Clone(n.kept)
	for _, a := range bootstrap {
		if info, err := peer.AddrInfoFromP2pAddr(a); err == nil { // not a /dnsaddr without an id
			n.trusted[info.ID] = true
		}
	}
	n.exchange, err = exchange.New(exchange.Options{
		Host: n.host, Chain: exchange.FromChain(n.chain), ChainID: chainID, Agent: n.agent,
		Limits: ibd.Config{
			MaxRequestsPerPeer: n.c.Sync.MaxRequestsPerPeer,
			MaxBlocksPerPeer:   n.c.Sync.MaxBlocksPerPeer,
			MaxBytesPerPeer:    int64(n.c.Sync.MaxMBPerPeer) << 20,
			MaxRequests:        n.c.Sync.MaxRequests,
			MaxBytes:           int64(n.c.Sync.MaxMB) << 20,
			Window:             int32(n.c.Sync.Window),
			MaxBlockBytes:      int64(n.params.MaxBlockBytes()),
			Seed:               uint64(n.started.UnixNano()),
		},
		MaxUpload: int64(n.c.P2P.MaxUploadKB) << 10,
		Logger:    n.log.With("subsystem", "sync"),

		ProgressInterval: progress, IdleInterval: idle,

		Pending: inWork{n},
		TxByID:  n.rawTx, List: n.listPool, MinFeeRate: n.feeRateToTell,
		Lowest: n.chain.Lowest,
		Held:   n.held,
		OnHello: func(p exchange.Peer) {
			n.disc.Good(p.ID)
			n.greeted(p)
		},
		ServicesFor: func(id peer.ID) exchange.Services {
			if n.kept[id] {
				return exchange.KeepsYou
			}
			return 0
		},
		OnWrongNetwork: func(id peer.ID, genesis chainhash.Hash) {
			n.disc.Avoid(id, avoidWrongNetwork, "another network: genesis "+genesis.String())
		},
		OnStranger: func(id peer.ID) { n.disc.Avoid(id, avoidWrongNetwork, "does not speak this chain's protocols") },
		OnBlame:    n.blamed,
	})
	if err != nil {
		return err
	}
	n.host.SetStanding(n.standing)
	n.floor.peers = n.exchange.Peers
	n.pools = &reconciler{
		pool: n.pool, peers: n.exchange.Peers, list: n.exchange.FetchList, fetch: n.exchange.FetchTxs,
		orphan:  n.parents.want,
		synced:  func() bool { return n.exchange.Sync().State == exchange.Synced },
		minRate: n.feeRateToTell, maxBytes: int64(n.c.Mempool.SyncMB) * 1_000_000,
		log: n.log.With("subsystem", "mempool"),
	}
	return n.openGossip()
}

// onPrivateNetwork says whether the nodes live on private or shared addresses; assumed: because they look like it.
func onPrivateNetwork(c *config.Config, listen, bootstrap []ma.Multiaddr) (private, assumed bool) {
	// A public chain on a private network: a test, a lab, containers. As on a
	// public one, such nodes would hide their addresses and find nobody.
	assumed = !c.P2P.AllowPrivate && c.Origin("p2p.allow_private") == "default" && (host.AllLocal(listen) || host.AllLocal(bootstrap))
	return c.P2P.AllowPrivate || assumed, assumed
}

// wanted says whether a setting that is on by default on public networks holds: a public chain whose node turned out to live on a private
// network asks no router and no relay, unless the operator said so.
func (n *Node) wanted(key string, on bool) bool {
	return on && (!n.private || n.c.Origin(key) != "default")
}

// relays are the peers that may be asked to relay: those that the operator named, and those that the seeds gave.
func (n *Node) relays() []peer.ID {
	d := n.named.Load()
	if d == nil {
		return nil // the host was built a moment ago
	}
	return d.Named()
}

// Run runs the node until ctx ends or a part fails; it returns when all has
// stopped and everything is on disk. Call it once; the node is closed after it.
func (n *Node) Run(ctx context.Context) error {
	n.banner()
	err := runStages(ctx, n.log, []stage{
		{"api", n.api.Run},
		{"chain", n.chain.Run},
		{"indexes", n.runIndexes},
		{"mempool", n.pool.Run},
		{"wallet", n.wallet.Run},
		{"reach", n.host.Run},
		{"exchange", n.exchange.Run},
		{"gossip", n.gossip.Run},
		{"flood", n.blocks.Run},
		{"txs", n.runTxs},
		{"parents", n.runParents},
		{"pools", n.pools.run},
		{"discovery", n.disc.Run},
		{"advance", n.runAdvance},
		{"mend", n.mend},
		{"watch", n.watch},
		{"stakes", n.runStaking},
		{"miner", n.miner.Run},
		{"history", n.runHistory},
		{"notify", n.notify},
	})
	err = errors.Join(err, n.close())
	n.log.Info("stopped", "uptime_s", int(time.Since(n.started).Seconds()))
	return err
}

// close releases what New opened, in reverse order.
func (n *Node) close() error {
	var errs []error
	for _, c := range slices.Backward(n.closers) {
		errs = append(errs, c())
	}
	n.closers = nil
	return errors.Join(errs...)
}

// banner says who this node is and how others join it.
func (n *Node) banner() {
	tip, _ := n.chain.Tip()
	n.log.Info("dunlin", "version", n.o.Version, "network", n.params.Name, "chain_id", n.params.ChainID(),
		"peer_id", n.host.ID(), "height", tip.Height, "home", n.c.Home)
	if n.o.ClockOffset != 0 {
		n.log.Warn("the clock of chain and miner is set off, for a test", "offset", n.o.ClockOffset, "clock", n.now().UTC())
	}
	n.log.Info("listening", "addrs", n.host.Network().ListenAddresses(), "announced", n.host.Addrs(), "rpc", n.rpcAddr)
	if a := n.api.Observed(); a != nil {
		n.log.Info("probes and metrics are told to everybody here", "addr", a)
	}
	if join := n.JoinLine(); join != "" {
		n.log.Info("join me: " + join) //nolint:sloglint // the line is there to be copied as it stands
	}
}

// JoinLine is the command with which the next machine joins; empty if the node
// does not listen.
func (n *Node) JoinLine() string {
	addrs := n.host.JoinAddrs()
	if len(addrs) == 0 {
		return ""
	}
	network := "--network " + n.params.Name
	if n.c.Chain.File != "" {
		network = "--network-file " + filepath.Base(n.c.Chain.File)
	}
	return fmt.Sprintf("dunlin start %s --bootstrap %s", network, addrs[0])
}

// mayMine says whether mining makes sense now.
func (n *Node) mayMine() (bool, string) {
	if n.stake != nil { // the sealer says it, which has other reasons too
		return true, ""
	}
	return n.nearTip()
}

// nearTip says whether a block on our tip may be one that others build on.
func (n *Node) nearTip() (bool, string) {
	s := n.exchange.Sync()
	switch { // test networks need no peers
	case n.chain.LowDisk():
		return false, "the disk is almost full"
	case n.params.Test && (s.State == exchange.Synced || s.State == exchange.Connecting || s.Target <= s.Height):
		return true, ""
	case s.State != exchange.Synced:
		return false, "not synced: " + string(s.State)
	case len(n.exchange.Peers()) == 0:
		return false, "no peers"
	}
	return true, ""
}

// rawTx serves a transaction of the mempool to peers.
func (n *Node) rawTx(id chainhash.Hash) ([]byte, bool) {
	e, ok := n.pool.Get(id)
	if !ok {
		return nil, false
	}
	var b strings.Builder
	b.Grow(e.Tx.SerializeSize())
	if err := e.Tx.Serialize(&b); err != nil {
		return nil, false
	}
	return []byte(b.String()), true
}

func multiaddrs(key string, list []string) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	var errs []error
	for _, s := range list {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", key, s, err))
			continue
		}
		out = append(out, a)
	}
	return out, errors.Join(errs...)
}
