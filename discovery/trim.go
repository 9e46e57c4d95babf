package discovery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// The DHT dials whomever a walk leads to and leaves the connection open: in a network of two hundred every node
// was connected with a hundred and fifty others, each of which is a peer that gossips, is greeted and pinged. A walk needs a
// connection for seconds. So those that the DHT made are closed soon after, but for as many as are missing from
// MaxOutbound; the routing table keeps the peers, and the next walk dials those that it needs.
const (
	// A connection of the DHT's may be so old before it is closed: walks come in groups, and the next one
	// asks many of the same peers.
	queryGrace = 20 * time.Second
	trimEvery  = 5 * time.Second
)

// dhtHost is the host as the DHT sees it: what it dials is noted, what it reads keeps to limits (kadstream.go), and nothing of it is protected. kad-dht protects what
// stands in the two widest buckets of its table, for ever.
type dhtHost struct {
	host.Host
	d *Discovery
}

// ConnManager implements host.Host.
func (dhtHost) ConnManager() connmgr.ConnManager { return connmgr.NullConnMgr{} }

// Connect implements host.Host.
func (h dhtHost) Connect(ctx context.Context, ai peer.AddrInfo) error {
	defer h.note(ai.ID)()
	return h.Host.Connect(ctx, ai)
}

// NewStream implements host.Host. It dials a peer that is not connected.
func (h dhtHost) NewStream(ctx context.Context, id peer.ID, ids ...protocol.ID) (network.Stream, error) {
	defer h.note(id)()
	s, err := h.Host.NewStream(ctx, id, ids...)
	if err != nil {
		return nil, err
	}
	k := h.d.kadStream(s, maxKadReplyBytes)
	if !h.d.kadStreams.add(k, false) {
		return nil, errors.New("the dht has ended")
	}
	return k, nil
}

// SetStreamHandler implements host.Host.
func (h dhtHost) SetStreamHandler(id protocol.ID, f network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) {
		k := h.d.kadStream(s, maxKadAskBytes)
		if !h.d.kadStreams.add(k, true) {
			return
		}
		defer h.d.kadStreams.served.Done()
		defer h.d.kadStreams.remove(k)
		f(k)
	})
}

// note says that the DHT is about to dial the peer, unless it is connected. The caller calls done when the dial has ended.
func (h dhtHost) note(id peer.ID) (done func()) {
	if h.Network().Connectedness(id) == network.Connected {
		return func() {}
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.queried[id]++
	return func() {
		h.d.mu.Lock()
		defer h.d.mu.Unlock()
		if n, ok := h.d.queried[id]; ok { // a dial of our own may have made the peer ours
			h.d.queried[id] = max(n-1, 0)
			h.d.forgetQueriedLocked(id)
		}
	}
}

// forgetQueriedLocked forgets that the DHT dialled a peer if it is not connected, and no dial is under way. The caller holds mu.
func (d *Discovery) forgetQueriedLocked(id peer.ID) {
	if d.queried[id] == 0 && d.host.Network().Connectedness(id) == network.NotConnected { // over a relay: a hole may be being punched
		delete(d.queried, id)
	}
}

// trimLoop closes the connections that the DHT made and nobody needs.
func (d *Discovery) trimLoop(ctx context.Context) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		surplus := d.surplus(time.Now())
		for _, o := range surplus {
			d.hangUp(o)
		}
		if len(surplus) > 0 {
			d.log.Debug("connections of the dht closed", slog.Int("count", len(surplus)))
		}
	}
}

// outward is a peer that is connected directly, by us.
type outward struct {
	id     peer.ID
	conns  []network.Conn // ours
	group  string
	since  time.Time
	query  bool // the DHT dialled it, and it is not the operator's own
	needed bool // somebody else protects it, such as a gossip mesh
}

// outwards lists the outbound peers: those that we chose first, then those that others need, then those connected longest.
func (d *Discovery) outwards() []outward {
	byID := map[peer.ID]*outward{}
	for _, c := range d.host.Network().Conns() {
		if c.IsClosed() || overRelay(c) || c.Stat().Direction != network.DirOutbound {
			continue
		}
		o := byID[c.RemotePeer()]
		if o == nil {
			o = &outward{id: c.RemotePeer(), group: groupOf(c.RemoteMultiaddr()), since: c.Stat().Opened}
			byID[o.id] = o
		}
		o.conns = append(o.conns, c)
		o.since = earlier(o.since, c.Stat().Opened)
	}
	all := make([]outward, 0, len(byID))
	d.mu.Lock()
	for _, o := range byID {
		_, o.query = d.queried[o.id]
		if e := d.book.byID[o.id]; e != nil && (e.static || !e.dialSince.IsZero()) {
			o.query = false
		}
		all = append(all, *o)
	}
	d.mu.Unlock()
	for i := range all {
		all[i].needed = all[i].query && d.host.ConnManager().IsProtected(all[i].id, "")
	}
	rank := func(o outward) int {
		switch {
		case !o.query:
			return 0
		case o.needed:
			return 1
		}
		return 2
	}
	slices.SortFunc(all, func(a, b outward) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.since.Compare(b.since), cmp.Compare(a.id, b.id))
	})
	return all
}

// surplus lists the peers that the DHT dialled, that are not needed to reach MaxOutbound and had their time. On a public network
// those that are spread over IP groups are preferred.
func (d *Discovery) surplus(now time.Time) (over []outward) {
	all := d.outwards()
	d.mu.Lock()
	most := d.opts.MaxOutbound + d.more
	d.mu.Unlock()
	groups := map[string]int{}
	kept, counted := 0, 0
	var rest []outward
	for _, o := range all {
		counts := d.opts.Private || groups[o.group] < maxPerGroup
		if o.query && !o.needed && (!counts || counted >= most) {
			rest = append(rest, o)
			continue
		}
		kept++
		groups[o.group]++
		if counts {
			counted++
		}
	}
	rest = rest[min(len(rest), max(0, most-kept)):] // in few groups, too, there are to be as many as asked for
	for _, o := range rest {
		if now.Sub(o.since) >= queryGrace {
			over = append(over, o)
		}
	}
	return over
}

// hangUp closes connections to a peer. That is no loss that another peer must make good.
func (d *Discovery) hangUp(o outward) {
	d.mu.Lock()
	now := time.Now()
	maps.DeleteFunc(d.hungUp, func(_ string, at time.Time) bool { return now.Sub(at) > time.Minute }) // they had ended before
	for _, c := range o.conns {
		d.hungUp[c.ID()] = now
	}
	d.mu.Unlock()
	for _, c := range o.conns {
		_ = c.CloseWithError(network.ConnGarbageCollected)
	}
}
