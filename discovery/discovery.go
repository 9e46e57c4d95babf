// Package discovery finds the peers of one network and keeps a libp2p host
// connected to enough of them.
//
// Its sources are raced, never asked in turn: the last good outbound peers
// (anchors) and the address book of earlier runs, bootstrap and persistent peers,
// DNS seeds, a rendezvous in a Kademlia DHT of the network's own, what connected peers tell of others (peer
// exchange) and, on request, multicast DNS on the local network. No source is
// needed if another one answers, and none that is silent holds up the others. It
// retries for ever, with pauses that grow and are never in step, and says why
// there are no peers when there are none.
//
// It is not an admission control (who may dial us), does not know what the peers
// speak beyond the DHT, and disconnects no peer but those that it dialled itself: to
// see whether one answers (a feeler), for a walk of the DHT, or in the place of one that was away. The
// caller tells what it learns of peers by Good and Avoid.
//
// Invariants: everything that a peer, a DNS server or a file can make grow is
// bounded; on a public network no private address is dialled that the operator did
// not give, and what is left out is counted and logged; hearsay never displaces the
// addresses at which a peer answers; a crash leaves each file whole, old or new.
//
// The package needs libp2p only and works on a bare host; see the example.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multibase"
	"golang.org/x/time/rate"

	"dunlin/discovery/internal/lines"
	"dunlin/discovery/internal/mdns"
)

// Limits of what an operator may configure or add.
const (
	MaxStatic     = 256 // Bootstrap and Persistent together
	MaxAdded      = 64  // peers of AddPeer
	MaxSeeds      = 16
	MaxDNSServers = 8

	maxOutboundLimit = 256
	maxAvoided       = 4096
	maxReasonBytes   = 120
	maxAnchors       = 4 // enough that one honest one is likely among them
	maxNamed         = 512
)

// Errors of AddPeer and RemovePeer.
var (
	ErrTooManyPeers = fmt.Errorf("already %d added peers", MaxAdded)
	ErrSelf         = errors.New("this is our own peer id")
	ErrNotAdded     = errors.New("not an added peer")
)

// Options is what New needs. The zero value of an optional field is its default.
type Options struct {
	// Host is the libp2p host. Required. It stays the caller's: open it before Run and
	// close it after Run has returned.
	Host host.Host

	// Namespace is the network's: /dunlin/<chain id>. Required. It prefixes the protocols of
	// the DHT (<Namespace>/kad/1.0.0) and of peer exchange (<Namespace>/peers/1); the rendezvous is
	// <Namespace>/full.
	Namespace string

	// Bootstrap are addresses with a peer id, or /dnsaddr/<host>, with which to enter
	// the network. They may be forgotten once other peers are found.
	Bootstrap []ma.Multiaddr

	// Persistent are addresses like those of Bootstrap, but of peers to be connected
	// with always: they are redialled for ever and do not count against MaxOutbound
	// when they are dialled.
	Persistent []ma.Multiaddr

	// DNSSeeds are /dnsaddr/<host> or plain host names whose _dnsaddr TXT records list
	// the addresses of peers, or that have A or AAAA records of nodes.
	DNSSeeds []string

	// SeedPort is the TCP port of the nodes behind a DNS seed that has A and AAAA records only, as a headless
	// service of Kubernetes has. They are asked for their peer ids by a handshake, at most 16 of an answer. 0: such a seed is of no use.
	SeedPort uint16

	// DNSServers are the servers (host:port) that resolve all names; all are asked at
	// once. Empty: the resolver of the machine.
	DNSServers []string

	// Dir is the folder for address book, anchors and added peers, made if missing.
	// Empty: nothing is kept over restarts.
	Dir string

	// MaxOutbound is the number of outbound peers to reach and to keep, 1 to 256, or -1: none is
	// dialled but the persistent ones. Default 8. Connections that the DHT makes count too; those beyond the number are
	// closed within half a minute, unless the host's connection manager was told to protect the peer.
	MaxOutbound int

	// MaxBook bounds the address book, 16 to 65536 entries. Default 2048.
	MaxBook int

	// Private says that the network lives on private or loopback addresses, or on few
	// machines: they are dialled and published, IP diversity is not asked for, and
	// the DHT serves always. Off: only public addresses, spread over IP groups.
	Private bool

	// HolePunch says that the host makes direct connections with peers behind NATs (DCUtR): such peers are dialled through
	// their relays. Off: they are known and told to others, but not dialled.
	HolePunch bool

	// MDNS finds peers on the local network by multicast DNS, and lets them find us, on public networks too. At
	// most 128 of them are known at once, and about 30 a minute are listened to.
	MDNS bool

	// Closed says that no peers are looked for: those of Bootstrap and Persistent and added ones are dialled, and no
	// others, ever. There is no DHT, nobody is asked for peers or told of any, DNS seeds and multicast DNS are
	// left alone. Others may still connect. On: a network with the very links that its operator drew.
	Closed bool

	// FeelerInterval is the time between two feelers: dials that test whether the holder of a
	// place in the book still answers when another peer would take it, and, on public
	// networks, peers never reached. Default 2 min.
	FeelerInterval time.Duration

	// Logger gets the package's lines. Default: none.
	Logger *slog.Logger
}

// validate fills in the defaults and reports every fault at once.
func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Host == nil {
		bad("Host: missing")
	}
	checkNamespace(o.Namespace, bad)
	for _, list := range []struct {
		name  string
		addrs []ma.Multiaddr
	}{{"Bootstrap", o.Bootstrap}, {"Persistent", o.Persistent}} {
		for _, a := range list.addrs {
			if err := checkStatic(a); err != nil {
				bad("%s: %w", list.name, err)
			}
		}
	}
	if n := len(o.Bootstrap) + len(o.Persistent); n > MaxStatic {
		bad("Bootstrap and Persistent: %d addresses, the limit is %d", n, MaxStatic)
	}
	for _, s := range o.DNSSeeds {
		if _, err := seedAddr(s); err != nil {
			bad("DNSSeeds: %w", err)
		}
	}
	if len(o.DNSSeeds) > MaxSeeds {
		bad("DNSSeeds: %d, the limit is %d", len(o.DNSSeeds), MaxSeeds)
	}
	for _, s := range o.DNSServers {
		if h, p, err := net.SplitHostPort(s); err != nil || h == "" || p == "" {
			bad("DNSServers: %q is not host:port", s)
		}
	}
	if len(o.DNSServers) > MaxDNSServers {
		bad("DNSServers: %d, the limit is %d", len(o.DNSServers), MaxDNSServers)
	}
	if o.MaxOutbound == -1 {
		o.MaxOutbound = 0
	} else {
		checkNumber("MaxOutbound", &o.MaxOutbound, 8, 1, maxOutboundLimit, bad)
	}
	checkNumber("MaxBook", &o.MaxBook, defaultMaxBook, leastMaxBook, mostMaxBook, bad)
	if o.FeelerInterval == 0 {
		o.FeelerInterval = 2 * time.Minute
	}
	if o.FeelerInterval < time.Second {
		bad("FeelerInterval: %s is under 1s", o.FeelerInterval)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// validateBook is validate for those options that a Book needs.
func (o *Options) validateBook() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	checkNamespace(o.Namespace, bad)
	if o.Dir == "" {
		bad("Dir: missing")
	}
	checkNumber("MaxBook", &o.MaxBook, defaultMaxBook, leastMaxBook, mostMaxBook, bad)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

func checkNamespace(s string, bad func(format string, args ...any)) {
	if !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || len(s) > 128 ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("Namespace: %q is not of the form /dunlin/<chain id>, at most 128 printable characters", s)
	}
}

// checkNumber fills in a default.
func checkNumber(name string, v *int, def, lowest, highest int, bad func(format string, args ...any)) {
	if *v == 0 {
		*v = def
	}
	if *v < lowest || *v > highest {
		bad("%s: %d is not within %d and %d", name, *v, lowest, highest)
	}
}

// avoidance is a peer that is not to be dialled for now.
type avoidance struct {
	until  time.Time
	reason string
	rest   bool // see Rest
}

// addedPeer is a peer of AddPeer.
type addedPeer struct {
	addrs      []ma.Multiaddr // as given, names too, without /p2p
	persistent bool
}

// Discovery finds peers. All methods are safe for concurrent use; none but Run,
// AddPeer and RemovePeer (which write a file) and Import (which reads) blocks.
type Discovery struct {
	opts     Options
	host     host.Host // nil in a Book
	self     peer.ID
	log      *slog.Logger
	key      cid.Cid
	kad      protocol.ID
	peersID  protocol.ID
	lookup   lookuper
	running  atomic.Bool
	wake     chan struct{} // to the dial loop: something has changed
	wakeName chan struct{} // to the name loop: a name was added
	lost     chan struct{} // to the find loop: an outbound peer is gone

	providers  *providerStore
	kadStreams kadStreams
	// Tests change these. interfaces are those for multicast DNS; nil: the machine's.
	punchFor   time.Duration
	interfaces func(open []string) (fresh map[string]mdns.Conn, gone []string, err error)

	saving sync.Mutex // held while a file is written, and never together with mu by one who waits for it

	mu        sync.Mutex // guards what follows; held for work in memory only
	book      *book
	avoid     map[peer.ID]avoidance
	added     map[peer.ID]addedPeer
	names     []*name
	yield     map[Source]*Yield
	failures  map[string]uint64 // by the reasons of dialReason
	hidden    hiddenAddrs
	advert    Advert
	table     func() int // size of the routing table; nil before Run
	feelers   uint64
	turn      int       // of the dialler's rotation
	lostAt    time.Time // an outbound peer was lost last
	more      int       // outbound peers wanted beyond MaxOutbound
	left      leftGroups
	mention   []string // private addresses that are dialled on a public network; told by the status loop
	bookDirty bool
	px        peerExchange
	badKad    uint64               // messages of the DHT that broke the limits
	queried   map[peer.ID]int      // peers that the DHT dialled and that are connected, or being dialled: so many times
	hungUp    map[string]time.Time // ids of the connections that we are closing, and since when
	settling  map[peer.ID]struct{} // peers that were lost and are being dialled, or looked at since; at most maxRevives and one
}

// New checks the options, every fault at once, and reads what earlier runs have
// saved. A damaged file is logged, kept beside as .damaged and used as far as it is
// whole; one of another network, or of a newer version, is an error. New starts nothing.
func New(opts Options) (*Discovery, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("discovery options: %w", err)
	}
	key, err := rendezvousKey(opts.Namespace + "/full")
	if err != nil {
		return nil, fmt.Errorf("rendezvous key: %w", err)
	}
	d := &Discovery{
		opts: opts, host: opts.Host, self: opts.Host.ID(), log: opts.Logger, key: key,
		kad: protocol.ID(opts.Namespace + "/kad/1.0.0"), peersID: protocol.ID(opts.Namespace + "/peers/1"),
		lookup: systemResolver{net.DefaultResolver},
		wake:   make(chan struct{}, 1), wakeName: make(chan struct{}, 1), lost: make(chan struct{}, 1),
		avoid: map[peer.ID]avoidance{}, added: map[peer.ID]addedPeer{},
		px: peerExchange{
			askers: map[peer.ID]*rate.Limiter{}, all: rate.NewLimiter(rate.Every(askAllEvery), askAllBurst),
			toAsk: make(chan peer.ID, maxToAsk),
		},
		punchFor: punchTimeout,
		yield:    map[Source]*Yield{}, failures: map[string]uint64{}, hidden: hiddenAddrs{},
		queried: map[peer.ID]int{}, hungUp: map[string]time.Time{}, settling: map[peer.ID]struct{}{},
	}
	if len(opts.DNSServers) > 0 {
		d.lookup = serverResolver{opts.DNSServers}
	}
	for _, s := range allSources {
		d.yield[s] = &Yield{}
	}
	d.providers = newProviderStore(providerKey(key), time.Now, d.connectedGroup)
	if err := d.load(time.Now()); err != nil {
		return nil, err
	}
	for _, a := range opts.Bootstrap {
		d.addStatic(a, SourceBootstrap, false)
	}
	for _, a := range opts.Persistent {
		d.addStatic(a, SourcePersistent, true)
	}
	for _, s := range opts.DNSSeeds {
		if opts.Closed {
			break
		}
		a, _ := seedAddr(s) // checked by validate
		d.names = append(d.names, &name{addr: a, label: s, source: SourceDNS})
	}
	return d, nil
}

// connectedGroup names the IP group from which a peer is connected, or was when it left: kad-dht stores what a peer
// provides up to minutes after it said so. Those of whom nothing is known any more are a group of their own, or hanging up would be the way
// around the shares. It is "" for ourselves, and on private networks, where groups say nothing.
func (d *Discovery) connectedGroup(id peer.ID) string {
	if d.opts.Private || id == d.self {
		return ""
	}
	for _, c := range d.host.Network().ConnsToPeer(id) {
		if g := groupOf(c.RemoteMultiaddr()); g != "" {
			return g
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return cmp.Or(d.left.of(id), "unknown")
}

// leftGroups remembers from which IP groups the last peers that left were connected: leftRemembered of them at least, twice as many at most.
type leftGroups struct{ fresh, old map[peer.ID]string }

const leftRemembered = 4096

func (l *leftGroups) of(id peer.ID) string { return cmp.Or(l.fresh[id], l.old[id]) }

func (l *leftGroups) note(id peer.ID, group string) {
	if l.fresh == nil || len(l.fresh) >= leftRemembered {
		l.fresh, l.old = map[peer.ID]string{}, l.fresh
	}
	l.fresh[id] = group
}

// providerKey is the datastore key of the records of a CID, as kad-dht makes it.
func providerKey(c cid.Cid) string {
	text, err := multibase.Encode(multibase.Base32Upper, c.Hash())
	if err != nil {
		panic(err) // the encoding is a constant
	}
	return "/providers/" + text[1:]
}

// Run finds and dials peers until ctx ends, then saves what it knows and returns
// nil. It returns an error if the DHT cannot start, and on a second call. All
// goroutines that it started have ended when it returns, but for DHT queries that
// wind down within moments.
func (d *Discovery) Run(ctx context.Context) error {
	if d.running.Swap(true) {
		return errors.New("discovery: Run called twice")
	}
	events, err := d.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(256), eventbus.Name("discovery"))
	if err != nil {
		return fmt.Errorf("discovery: subscribe to identify: %w", err)
	}
	notify := &network.NotifyBundle{
		ConnectedF:    func(network.Network, network.Conn) { d.poke() },
		DisconnectedF: func(n network.Network, c network.Conn) { d.disconnected(n, c) },
	}
	d.host.Network().Notify(notify)
	defer d.host.Network().StopNotify(notify)

	var wg sync.WaitGroup
	if d.opts.Closed {
		wg.Go(func() { d.identifyLoop(ctx, events) })
		wg.Go(func() { d.dialLoop(ctx) })
		wg.Go(func() { d.nameLoop(ctx) })
		wg.Go(func() { d.saveLoop(ctx) })
		wg.Go(func() { d.statusLoop(ctx) })
		<-ctx.Done()
		wg.Wait()
		return nil
	}

	kad, err := d.startDHT()
	if err != nil {
		_ = events.Close()
		return fmt.Errorf("discovery: start the DHT: %w", err)
	}
	d.mu.Lock()
	d.table = kad.RoutingTable().Size
	d.mu.Unlock()

	wg.Go(func() { d.identifyLoop(ctx, events) })
	wg.Go(func() { d.dialLoop(ctx) })
	wg.Go(func() { d.nameLoop(ctx) })
	wg.Go(func() { d.advertiseLoop(ctx, kad) })
	wg.Go(func() { d.findLoop(ctx, kad) })
	wg.Go(func() { d.exchangeLoop(ctx) })
	wg.Go(func() { d.saveLoop(ctx) })
	wg.Go(func() { d.statusLoop(ctx) })
	wg.Go(func() { d.feelerLoop(ctx) })
	wg.Go(func() { d.trimLoop(ctx) })
	if d.opts.MDNS {
		wg.Go(func() { d.mdnsLoop(ctx) })
	}
	wg.Go(func() { d.reviveLoop(ctx) })
	<-ctx.Done()
	wg.Wait()
	d.host.RemoveStreamHandler(d.kad)
	err = kad.Close()
	d.kadStreams.close()
	d.mu.Lock()
	d.table = nil
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("discovery: close the DHT: %w", err)
	}
	return nil
}

// poke makes the dial loop look.
func (d *Discovery) poke() { signal(d.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (d *Discovery) disconnected(n network.Network, c network.Conn) {
	p := c.RemotePeer()
	d.mu.Lock()
	_, byUs := d.hungUp[c.ID()]
	delete(d.hungUp, c.ID())
	d.mu.Unlock()
	if n.Connectedness(p) != network.Connected {
		d.mu.Lock()
		d.forgetQueriedLocked(p)
		d.mu.Unlock()
		d.host.ConnManager().Unprotect(p, protectTag)
		if g := groupOf(c.RemoteMultiaddr()); !d.opts.Private && g != "" {
			d.mu.Lock()
			d.left.note(p, g)
			d.mu.Unlock()
		}
	}
	if c.Stat().Direction == network.DirOutbound && !byUs {
		if !c.Stat().Limited && n.Connectedness(p) != network.Connected {
			d.mu.Lock()
			d.lostLocked(p, c.Stat().Opened, time.Now())
			d.mu.Unlock()
		}
		signal(d.lost)
	}
	if len(n.Peers()) == 0 {
		d.askNamesSoon()
	}
	d.poke()
}

// identifyLoop notes the peers of our network that are connected, by whatever way
// they came.
func (d *Discovery) identifyLoop(ctx context.Context, events event.Subscription) {
	defer events.Close()                         // at once: a subscriber that does not read holds up the host
	for _, c := range d.host.Network().Conns() { // those from before Run
		if ok, err := d.host.Peerstore().SupportsProtocols(c.RemotePeer(), d.kad, d.peersID); err == nil && len(ok) > 0 && !overRelay(c) {
			d.identified(c, d.host.Peerstore().Addrs(c.RemotePeer()), nil, true)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events.Out():
			if !ok {
				return
			}
			// A node that nobody can dial serves no DHT. What is seen through a relay proves nothing about where a peer is.
			if evt, ok := e.(event.EvtPeerIdentificationCompleted); ok && !overRelay(evt.Conn) && slices.ContainsFunc(evt.Protocols, d.ours) {
				d.identified(evt.Conn, evt.ListenAddrs, evt.SignedPeerRecord, true)
			}
		}
	}
}

// Protocols are those by which a peer of a namespace is known: it speaks at least one of them.
func Protocols(namespace string) []protocol.ID {
	return []protocol.ID{protocol.ID(namespace + "/kad/1.0.0"), protocol.ID(namespace + "/peers/1")}
}

func (d *Discovery) ours(p protocol.ID) bool { return p == d.kad || p == d.peersID }

// Named lists the peers that an operator chose to trust with the way into the network: bootstrap, persistent and added ones, and
// those that the DNS seeds gave; at most 512.
func (d *Discovery) Named() []peer.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []peer.ID
	for _, e := range d.book.byID {
		if (e.static || e.source == SourceDNS) && len(out) < maxNamed {
			out = append(out, e.id)
		}
	}
	return out
}

// identified notes a peer that speaks a protocol of ours, which names our chain, or that
// the caller vouches for. With count, the connection goes into the yields.
func (d *Discovery) identified(c network.Conn, listen []ma.Multiaddr, signed *record.Envelope, count bool) {
	remote := c.RemoteMultiaddr()
	outbound := c.Stat().Direction == network.DirOutbound
	if outbound {
		listen = append([]ma.Multiaddr{remote}, listen...)
	}
	if !manet.IsIPLoopback(remote) {
		// Its loopback is not ours.
		listen = slices.DeleteFunc(slices.Clone(listen), manet.IsIPLoopback)
	}
	// What a peer lists besides its public addresses is nobody's mistake: not counted.
	addrs, _ := usable(listen, d.opts.Private)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	src := SourceInbound
	if outbound {
		src = SourceDHT // ours are in the book before they are dialled
	}
	before, known := d.book.byID[c.RemotePeer()]
	byUs := known && (!before.dialSince.IsZero() || now.Sub(before.lastUp) < 5*time.Second)
	if !known && len(addrs) == 0 {
		return
	}
	e := d.book.reached(now, c.RemotePeer(), addrs, src, remote, outbound)
	if e == nil {
		return
	}
	d.bookDirty = true
	if outbound && now.Sub(e.asked) >= askPeersEvery {
		e.asked = now
		d.askPeersSoon(e.id)
	}
	e.seen = now
	d.keepRecordLocked(e, signed)
	if !known {
		d.yield[src].Found++
	}
	if count && !byUs {
		d.yield[src].Connected++
	}
}

// learn notes what a source says of a peer; told tells apart those who speak for one source.
// It reports whether the peer is new.
func (d *Discovery) learn(ai peer.AddrInfo, src Source, told string) (fresh bool) {
	if ai.ID == d.self || !validID(ai.ID) {
		return false
	}
	addrs, hidden := usable(ai.Addrs, d.opts.Private || src == SourceMDNS) // it told of neighbours only
	addrs = d.withoutOurRelay(addrs)
	d.mu.Lock()
	defer d.mu.Unlock()
	if hidden > 0 && len(addrs) == 0 {
		d.hidden.note(src, hidden)
	}
	if len(addrs) == 0 {
		return false
	}
	if _, fresh = d.book.learn(time.Now(), ai.ID, addrs, src, string(src)+"/"+told); fresh {
		d.yield[src].Found++
		d.bookDirty = true
	}
	return fresh
}

// withoutOurRelay leaves out the ways through ourselves: we need none to a peer that has a place here.
func (d *Discovery) withoutOurRelay(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool {
		_, relay, ok := relayOf(a)
		return ok && relay == d.host.ID()
	})
}

// addStatic notes an address of the operator's, checked by checkStatic.
func (d *Discovery) addStatic(a ma.Multiaddr, src Source, persistent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	addr, id := splitPeer(a)
	if isDNS(addr) {
		d.names = append(d.names, &name{addr: a, label: a.String(), source: src, persistent: persistent})
		return
	}
	d.staticLocked(id, []ma.Multiaddr{addr}, src, persistent)
	if e := d.book.byID[id]; e != nil {
		e.fixed, e.fixedPers = true, e.fixedPers || persistent
	}
}

// staticLocked notes a peer of the operator's, but for ourselves. Private addresses pass, since they
// are wanted, but are mentioned by the status loop. The caller holds mu.
func (d *Discovery) staticLocked(id peer.ID, addrs []ma.Multiaddr, src Source, persistent bool) {
	if id == d.self {
		return
	}
	addrs, _ = usable(addrs, true)
	if len(addrs) == 0 {
		return
	}
	e := d.book.byID[id]
	if e == nil {
		e = &entry{id: id, heard: time.Now(), jitter: 1}
		d.book.byID[id] = e
	}
	if !e.static {
		d.yield[src].Found++
		if i := slices.IndexFunc(addrs, func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) }); i >= 0 && !d.opts.Private {
			d.mention = append(d.mention, addrs[i].String())
		}
	}
	e.static = true
	if !e.persistent || persistent {
		e.source = src
	}
	e.persistent = e.persistent || persistent
	e.addrs = mergeAddrs(addrs, e.addrs)
	d.book.settle(e, time.Now())
}

// DialStaticNow ends the pauses of the operator's own peers, whose dials failed before: bootstrap, persistent and added ones. It is for
// when the operator has removed what kept them away. It does not wait for the dials.
func (d *Discovery) DialStaticNow() {
	d.mu.Lock()
	for _, e := range d.book.byID {
		if e.static {
			e.tries, e.flaps, e.lastTry = 0, 0, time.Time{}
		}
	}
	d.mu.Unlock()
	d.poke()
}

// AddPeer makes a peer be dialled soon, kept over restarts and, if persistent,
// redialled for ever; otherwise it is treated like a bootstrap peer. Adding it
// again replaces what was added. Addresses may have DNS names. It does not wait
// for the dial. It returns ErrTooManyPeers, ErrSelf, what is wrong with the
// address, or the fault of writing the file, in which case the peer is dialled but not
// kept.
func (d *Discovery) AddPeer(ai peer.AddrInfo, persistent bool) error {
	if ai.ID == d.self {
		return fmt.Errorf("add peer %s: %w", ai.ID, ErrSelf)
	}
	if err := ai.ID.Validate(); err != nil {
		return fmt.Errorf("add peer: %w", err)
	}
	if len(ai.Addrs) == 0 || len(ai.Addrs) > maxAddrsPerPeer {
		return fmt.Errorf("add peer %s: %d addresses, want 1 to %d", ai.ID, len(ai.Addrs), maxAddrsPerPeer)
	}
	full, err := peer.AddrInfoToP2pAddrs(&ai)
	if err != nil {
		return fmt.Errorf("add peer %s: %w", ai.ID, err)
	}
	for _, a := range full {
		if err := checkStatic(a); err != nil {
			return fmt.Errorf("add peer: %w", err)
		}
	}
	d.mu.Lock()
	if _, again := d.added[ai.ID]; !again && len(d.added) >= MaxAdded {
		d.mu.Unlock()
		return fmt.Errorf("add peer %s: %w", ai.ID, ErrTooManyPeers)
	}
	d.added[ai.ID] = addedPeer{addrs: slices.Clone(ai.Addrs), persistent: persistent}
	delete(d.avoid, ai.ID)
	d.applyAddedLocked(ai.ID)
	d.mu.Unlock()
	signal(d.wakeName)
	d.poke()
	return d.saveAdded()
}

// applyAddedLocked makes an added peer be dialled. The caller holds mu.
func (d *Discovery) applyAddedLocked(id peer.ID) {
	p := d.added[id]
	d.names = slices.DeleteFunc(d.names, func(n *name) bool { return n.added == id })
	var addrs []ma.Multiaddr
	for _, a := range p.addrs {
		if !isDNS(a) {
			addrs = append(addrs, a)
			continue
		}
		full := a.Encapsulate(p2pAddr(id))
		d.names = append(d.names, &name{addr: full, label: full.String(), source: SourceAdded, persistent: p.persistent, added: id})
	}
	d.staticLocked(id, addrs, SourceAdded, p.persistent)
	if e := d.book.byID[id]; e != nil && e.source == SourceAdded {
		e.persistent = p.persistent || e.fixedPers
		e.tries, e.flaps = 0, 0 // dial it now
	}
}

func p2pAddr(id peer.ID) ma.Multiaddr {
	c, err := ma.NewComponent("p2p", id.String())
	if err != nil {
		panic(err) // the id was validated
	}
	return c.Multiaddr()
}

// RemovePeer forgets a peer of AddPeer, also for the next start; ErrNotAdded if it
// is none. It does not disconnect it. Another error is the fault of writing the file:
// the peer is forgotten, but comes back at the next start.
func (d *Discovery) RemovePeer(id peer.ID) error {
	d.mu.Lock()
	if _, ok := d.added[id]; !ok {
		d.mu.Unlock()
		return fmt.Errorf("remove peer %s: %w", id, ErrNotAdded)
	}
	delete(d.added, id)
	d.names = slices.DeleteFunc(d.names, func(n *name) bool { return n.added == id })
	if e := d.book.byID[id]; e != nil && e.source == SourceAdded {
		e.static, e.persistent = e.fixed, e.fixedPers
		d.book.settle(e, time.Now())
	}
	d.mu.Unlock()
	return d.saveAdded()
}

// Added returns the addresses of the peers of AddPeer, each with its peer id,
// sorted.
func (d *Discovery) Added() []ma.Multiaddr {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []ma.Multiaddr
	for id, p := range d.added {
		for _, a := range p.addrs {
			out = append(out, a.Encapsulate(p2pAddr(id)))
		}
	}
	slices.SortFunc(out, func(a, b ma.Multiaddr) int { return a.Compare(b) })
	return out
}

// Good says that a connected peer proved to be of our network (hello succeeded):
// it becomes an entry of the book that hearsay cannot displace, and may be an
// anchor.
func (d *Discovery) Good(id peer.ID) {
	conns := d.host.Network().ConnsToPeer(id)
	listen := d.host.Peerstore().Addrs(id)
	if len(conns) == 0 {
		return
	}
	for _, c := range conns {
		if c.Stat().Direction == network.DirOutbound {
			d.identified(c, listen, nil, false)
			return
		}
	}
	d.identified(conns[0], listen, nil, false)
}

// Avoid keeps a peer that is none of ours, or does harm, from being dialled, by the DHT too, for the given time; the
// reason (at most 120 bytes are kept) is for people. A peer of another genesis is
// avoided for an hour, say. It does not disconnect the peer. At most 4096 peers
// are remembered: the one that is due first makes room. Persistent peers are
// avoided too.
func (d *Discovery) Avoid(id peer.ID, how time.Duration, reason string) {
	if how <= 0 {
		return
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.avoidLocked(id, avoidance{until: now.Add(how), reason: shorten(reason)})
	// It is no peer of ours, whatever identify said.
	if e := d.book.byID[id]; e != nil {
		e.success, e.since, e.lastErr = time.Time{}, time.Time{}, "avoided: "+d.avoid[id].reason
		if e.slot.tried() {
			d.book.leave(e)
			d.book.settle(e, now)
		}
		d.bookDirty = true
	}
}

// Rest keeps a peer of our network from being dialled for the given time, as Avoid, but it keeps its place in the book: another one
// is wanted in its stead. It does not disconnect the peer. A longer Avoid stays; a node that has lost all its peers dials those at rest, too.
func (d *Discovery) Rest(id peer.ID, how time.Duration, reason string) {
	if how <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if until := time.Now().Add(how); d.avoid[id].until.Before(until) {
		d.avoidLocked(id, avoidance{until: until, reason: shorten(reason), rest: true})
	}
}

func (d *Discovery) avoidLocked(id peer.ID, as avoidance) {
	if _, known := d.avoid[id]; !known && len(d.avoid) >= maxAvoided {
		var due peer.ID
		for p, a := range d.avoid {
			if due == "" || a.until.Before(d.avoid[due].until) {
				due = p
			}
		}
		delete(d.avoid, due)
	}
	d.avoid[id] = as
}

// endRestLocked ends all rest: whoever did no harm is better than nobody. The caller holds mu.
func (d *Discovery) endRestLocked() {
	maps.DeleteFunc(d.avoid, func(_ peer.ID, a avoidance) bool { return a.rest })
}

// LookForMore says whether one outbound peer more than MaxOutbound is wanted for now.
func (d *Discovery) LookForMore(more bool) {
	d.mu.Lock()
	d.more = 0
	if more && d.opts.MaxOutbound > 0 {
		d.more = 1
	}
	d.mu.Unlock()
	d.poke()
}

// Spare counts the peers of the book that could be dialled in place of one that is connected.
func (d *Discovery) Spare() (n int) {
	l, now := d.links(), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.book.byID {
		if _, connected := l.peers[e.id]; !connected && e.tries < 3 && len(e.addrs) > 0 && !d.avoidedLocked(e.id, now) {
			n++
		}
	}
	return n
}

// Kept lists the operator's own peers: persistent and added ones, but not those of Bootstrap.
func (d *Discovery) Kept() (ids []peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, e := range d.book.byID {
		if _, added := d.added[id]; added || e.persistent {
			ids = append(ids, id)
		}
	}
	return ids
}

// avoidedLocked reports whether a peer must not be dialled now. The caller holds mu.
func (d *Discovery) avoidedLocked(id peer.ID, now time.Time) bool {
	a, ok := d.avoid[id]
	if !ok {
		return false
	}
	if now.Before(a.until) {
		return true
	}
	delete(d.avoid, id)
	return false
}

// The files in Options.Dir.
const (
	bookFile    = "peers.jsonl"
	anchorsFile = "anchors.jsonl"
	addedFile   = "added.jsonl"
)

// load reads the files.
func (d *Discovery) load(now time.Time) error {
	if d.opts.Dir == "" {
		d.book = newBook(d.opts.Private, d.opts.MaxBook, nil)
		return nil
	}
	if err := os.MkdirAll(d.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("discovery folder: %w", err)
	}
	read := func(file string, limit int, use func(id peer.ID, addrs []ma.Multiaddr, p savedPeer)) error {
		path := filepath.Join(d.opts.Dir, file)
		peers, salt, damaged, over, err := loadPeers(path, d.opts.Namespace, limit)
		if err != nil {
			return fmt.Errorf("read saved peers: %w", err)
		}
		if file == bookFile {
			d.book = newBook(d.opts.Private, d.opts.MaxBook, salt)
		}
		for _, p := range peers {
			id, addrs, err := p.decode()
			if err != nil {
				damaged++
				continue
			}
			use(id, addrs, p)
		}
		if damaged > 0 {
			attrs := []any{slog.String("file", path), slog.Int("lines_lost", damaged), slog.Int("lines_kept", len(peers))}
			if err := lines.KeepDamaged(path); err != nil {
				attrs = append(attrs, slog.Any("copy_error", err))
			}
			d.log.Warn("saved peers are damaged; going on with the rest", attrs...)
		}
		if over > 0 {
			d.log.Info("there are more saved peers than may be kept; the last ones are left out", slog.String("file", path), slog.Int("left_out", over), slog.Int("limit", limit))
		}
		return nil
	}
	saved := func(id peer.ID, addrs []ma.Multiaddr, p savedPeer) *entry {
		addrs, _ = usable(addrs, d.opts.Private)
		if len(addrs) == 0 || id == d.self {
			return nil
		}
		// A clock that was ahead must not keep an entry for ever.
		at := func(sec int64) time.Time { return earlier(time.Unix(sec, 0), now) }
		e := &entry{
			id: id, addrs: addrs, source: SourceBook, heard: at(p.Heard), jitter: 1, loaded: true,
			tries: min(max(p.Tries, 0), maxTriedAttempts), told: p.Told, choice: min(max(p.Choice, 0), choices-1),
		}
		if slices.Contains(allSources, p.Source) {
			e.source = p.Source
		}
		if p.Success > 0 {
			e.success, e.since = at(p.Success), at(p.Since)
			if p.Since <= 0 {
				e.since = e.success
			}
		}
		return e
	}
	err := read(bookFile, d.opts.MaxBook+MaxStatic+maxAnchors, func(id peer.ID, addrs []ma.Multiaddr, p savedPeer) {
		if e := saved(id, addrs, p); e != nil && !e.terrible(now) && d.book.byID[id] == nil && d.book.restore(e, p.Proven) {
			d.yield[e.class()].Found++
		}
	})
	if err != nil {
		return err
	}
	d.book.chooseElders()
	err = read(anchorsFile, maxAnchors, func(id peer.ID, addrs []ma.Multiaddr, p savedPeer) {
		if e := saved(id, addrs, p); e != nil {
			if old := d.book.byID[id]; old != nil {
				d.book.drop(old)
			}
			e.anchor = true
			d.book.byID[id] = e
			d.yield[SourceAnchor].Found++
		}
	})
	if err != nil {
		return err
	}
	return read(addedFile, MaxAdded, func(id peer.ID, addrs []ma.Multiaddr, p savedPeer) {
		d.added[id] = addedPeer{addrs: addrs, persistent: p.Persistent}
		d.applyAddedLocked(id)
	})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

const (
	saveTick      = 5 * time.Second // anchors that changed are written so soon
	bookSaveEvery = time.Minute
)

// saveLoop writes anchors and book when they have changed, and when ctx ends.
func (d *Discovery) saveLoop(ctx context.Context) {
	if d.opts.Dir == "" {
		return
	}
	ticker := time.NewTicker(saveTick)
	defer ticker.Stop()
	var s saveState
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-ticker.C:
		}
		d.saveTurn(&s, d.anchors(), done, time.Now())
	}
}

// saveState is what saveLoop knows of its files. Each has troubles of its own: on a full disk the smaller one may be written.
type saveState struct {
	anchors               []string // that are in the file
	bookAt                time.Time
	anchorsTold, bookTold saveTrouble
}

// saveTurn writes the anchors if they are others than in the file, and the book if it is due or this is the last turn.
func (d *Discovery) saveTurn(s *saveState, anchors []savedPeer, last bool, now time.Time) {
	if len(anchors) > 0 && !slices.EqualFunc(anchors, s.anchors, func(p savedPeer, id string) bool { return p.ID == id }) {
		err := d.save(anchorsFile, anchors)
		if err == nil {
			s.anchors = s.anchors[:0]
			for _, p := range anchors {
				s.anchors = append(s.anchors, p.ID)
			}
		}
		d.tellTrouble(&s.anchorsTold, err, now)
	}
	if last || now.Sub(s.bookAt) >= bookSaveEvery {
		if written, err := d.saveBook(); written || err != nil {
			s.bookAt = now
			d.tellTrouble(&s.bookTold, err, now)
		}
	}
}

// saveBook writes the book if it has changed since it was written last. What could not be written is written the next time.
func (d *Discovery) saveBook() (written bool, err error) {
	peers, dirty := d.snapshot()
	if !dirty {
		return false, nil
	}
	if err := d.save(bookFile, peers); err != nil {
		d.mu.Lock()
		d.bookDirty = true
		d.mu.Unlock()
		return false, err
	}
	return true, nil
}

// saveTrouble is what was told of files that could not be written.
type saveTrouble struct {
	text string
	at   time.Time
}

// saveTroubleEvery is the time between two lines about the same trouble, which may last: the disk is full.
const saveTroubleEvery = time.Hour

func (d *Discovery) tellTrouble(t *saveTrouble, err error, now time.Time) {
	switch {
	case err == nil && t.text != "":
		d.log.Info("peers are saved again")
		*t = saveTrouble{}
	case err != nil && (err.Error() != t.text || now.Sub(t.at) >= saveTroubleEvery):
		d.log.Warn("peers were not saved", slog.Any("error", err))
		*t = saveTrouble{err.Error(), now}
	}
}

// anchors returns the outbound peers of our network, those connected first first.
func (d *Discovery) anchors() []savedPeer {
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*entry
	for p, out := range l.peers {
		if e := d.book.byID[p]; out && e != nil && e.tried() {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if c := a.success.Compare(b.success); c != 0 {
			return c
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	var out []savedPeer
	for _, e := range all[:min(len(all), maxAnchors)] {
		out = append(out, e.saved())
	}
	return out
}

// snapshot returns the book's lines if they have changed since the last call.
func (d *Discovery) snapshot() (peers []savedPeer, dirty bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.bookDirty {
		return nil, false
	}
	d.bookDirty = false
	d.book.forget(time.Now())
	for _, e := range d.book.byID {
		if _, added := d.added[e.id]; !added {
			peers = append(peers, e.saved())
		}
	}
	// Those that answered first: if a file ends early, the others are lost.
	slices.SortFunc(peers, func(a, b savedPeer) int {
		if a.Proven != b.Proven {
			return map[bool]int{true: -1, false: 1}[a.Proven]
		}
		return strings.Compare(a.ID, b.ID)
	})
	return peers, true
}

// saveAdded writes the peers of AddPeer.
func (d *Discovery) saveAdded() error {
	if d.opts.Dir == "" {
		return nil
	}
	d.saving.Lock() // first, so that of two calls the later state is written last
	defer d.saving.Unlock()
	d.mu.Lock()
	var peers []savedPeer
	for id, p := range d.added {
		e := entry{id: id, addrs: p.addrs, source: SourceAdded, persistent: p.persistent, heard: time.Now()}
		peers = append(peers, e.saved())
	}
	d.mu.Unlock()
	slices.SortFunc(peers, func(a, b savedPeer) int { return strings.Compare(a.ID, b.ID) })
	return d.write(addedFile, peers)
}

func (d *Discovery) save(file string, peers []savedPeer) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	return d.write(file, peers)
}

// write replaces a file. The caller holds saving.
func (d *Discovery) write(file string, peers []savedPeer) error {
	var salt []byte
	if file == bookFile {
		salt = d.book.salt // constant
	}
	texts, err := encodePeers(d.opts.Namespace, salt, peers)
	if err != nil {
		return err
	}
	return lines.Write(filepath.Join(d.opts.Dir, file), texts)
}
