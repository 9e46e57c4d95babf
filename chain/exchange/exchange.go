package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"dunlin/chain/ibd"
)

// An Exchange speaks the chain's stream protocols with every connected peer and
// keeps the chain up with them. All methods are safe for concurrent use.
type Exchange struct {
	o      Options
	log    *slog.Logger
	nonce  uint64 // of this run, in every hello
	limits map[protocol.ID]StreamLimit

	ran    atomic.Bool
	tasks  tasks
	driver *driver
	budget *budget
	conns  chan peer.ID  // peers to greet or to wait for; see watch
	rescan chan struct{} // conns was full
	said   logLimit      // peer connected and disconnected

	// Serving.
	gate       *gate    // turns to read and send
	decodes    *gate    // turns to decode a block for its transactions
	outbox     *outbox  // memory on its way out
	holds      holds    // requests for blocks that are in work
	unreadable logLimit // blocks on disk that cannot be served
	sent       struct{ bytes, busy atomic.Int64 }

	mu       sync.Mutex // guards what follows, held for an instant, never over a call out
	peers    map[peer.ID]*remote
	greeting map[peer.ID]int  // hello streams whose handshake is under way
	calling  map[peer.ID]bool // peers whom we are greeting as the dialler
	changed  chan struct{}    // closed and replaced when peers or greeting change
	foreign  map[peer.ID]time.Time
}

// turnsAtOnce bounds the turns to read from disk and send: enough to keep a
// solid-state disk busy, and 200 MB a second of peers that each let a turn last to
// its end; few enough that the order of turns counts.
const turnsAtOnce = 16

// maxForeign bounds the memory of who was told to be of another network.
const maxForeign = 1024

// New returns an Exchange that does nothing until Run. It reports every fault
// of o at once.
func New(o Options) (*Exchange, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("exchange options: %w", err)
	}
	sched, err := ibd.New(o.Limits)
	if err != nil {
		return nil, fmt.Errorf("exchange limits: %w", err)
	}
	x := &Exchange{
		o: o, log: o.Logger, nonce: rand.Uint64() | 1, limits: Limits(o.ChainID),
		gate:       newGate(turnsAtOnce, o.MaxUpload),
		decodes:    newGate(decodesAtOnce, 0),
		outbox:     newOutbox(o.ServeBytes),
		budget:     newBudget(o.Limits.MaxRequests, o.Limits.MaxBytes),
		conns:      make(chan peer.ID, 1024),
		rescan:     make(chan struct{}, 1),
		said:       logLimit{limiter: rate.NewLimiter(2, 50)},
		unreadable: logLimit{limiter: rate.NewLimiter(rate.Every(time.Minute), 1)},
		peers:      make(map[peer.ID]*remote),
		greeting:   make(map[peer.ID]int),
		calling:    make(map[peer.ID]bool),
		changed:    make(chan struct{}),
		foreign:    make(map[peer.ID]time.Time),
	}
	x.driver = newDriver(x, sched)
	return x, nil
}

// Run greets and serves peers and keeps the chain up with them until ctx ends.
// It returns ctx's error after every goroutine that it started has ended. It
// can run once.
func (x *Exchange) Run(ctx context.Context) error {
	if !x.ran.CompareAndSwap(false, true) {
		return errors.New("exchange: run twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := x.o.Host

	h.SetStreamHandlerMatch(HelloID(x.o.ChainID), isHello, func(s network.Stream) { x.accept(ctx, s, x.serveHello) })
	h.SetStreamHandler(HeadersID(x.o.ChainID), func(s network.Stream) { x.accept(ctx, s, x.served(x.serveHeaders)) })
	h.SetStreamHandler(BlocksID(x.o.ChainID), func(s network.Stream) { x.accept(ctx, s, x.served(x.serveBlocks)) })
	h.SetStreamHandler(TxsID(x.o.ChainID), func(s network.Stream) { x.accept(ctx, s, x.served(x.serveTxs)) })
	n := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { x.noticed(c) }}
	h.Network().Notify(n)
	x.rescanSoon() // who is connected already

	x.tasks.Go(func() { x.watch(ctx) })
	x.tasks.Go(func() { x.driver.run(ctx) })
	<-ctx.Done()

	h.Network().StopNotify(n)
	for id := range x.limits {
		h.RemoveStreamHandler(id)
	}
	cancel()
	for _, r := range x.remotes() {
		r.close()
	}
	x.tasks.wait()
	x.gate.stop()
	return ctx.Err()
}

// accept runs f on an inbound stream as a task of Run.
func (x *Exchange) accept(ctx context.Context, s network.Stream, f func(context.Context, network.Stream)) {
	if ctx.Err() != nil || !x.tasks.enter() {
		_ = s.ResetWithError(network.StreamShutdown)
		return
	}
	defer x.tasks.leave()
	f(ctx, s)
}

// served wraps a protocol that only peers with a complete hello may use.
func (x *Exchange) served(f func(context.Context, *remote, network.Stream) error) func(context.Context, network.Stream) {
	return func(ctx context.Context, s network.Stream) {
		r := x.awaitHello(ctx, s.Conn().RemotePeer())
		if r == nil {
			_ = s.ResetWithError(network.StreamGated)
			return
		}
		if !r.admit(s, x.limits[s.Protocol()].PerPeer) {
			_ = s.ResetWithError(network.StreamResourceLimitExceeded)
			return
		}
		defer r.dismiss(s)
		err := f(ctx, r, s)
		if err == nil {
			_ = s.Close()
			return
		}
		resetFor(s, err)
		x.log.Debug("stream ended", "peer", r.id, "protocol", s.Protocol(), "err", err)
		if errors.Is(err, errProtocol) {
			x.blame(r.id, err.Error())
		}
	}
}

// awaitHello returns the peer once its hello is complete: at once, or while a
// handshake with it is under way. Nil: there is none.
func (x *Exchange) awaitHello(ctx context.Context, id peer.ID) *remote {
	timeout := time.NewTimer(x.o.HelloTimeout)
	defer timeout.Stop()
	for {
		x.mu.Lock()
		r, greeting, changed := x.peers[id], x.greeting[id], x.changed
		x.mu.Unlock()
		if r != nil || greeting == 0 {
			return r
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// changedLocked tells those who wait for a change of peers. The caller holds mu.
func (x *Exchange) changedLocked() {
	close(x.changed)
	x.changed = make(chan struct{})
}

func (x *Exchange) remote(id peer.ID) *remote {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.peers[id]
}

// remotes lists the peers with a complete hello by id.
func (x *Exchange) remotes() []*remote {
	x.mu.Lock()
	rs := make([]*remote, 0, len(x.peers))
	for _, r := range x.peers {
		rs = append(rs, r)
	}
	x.mu.Unlock()
	slices.SortFunc(rs, func(a, b *remote) int { return bytes.Compare([]byte(a.id), []byte(b.id)) })
	return rs
}

// Peers lists the peers whose hello is complete, by id.
func (x *Exchange) Peers() []Peer {
	rs := x.remotes()
	ps := make([]Peer, len(rs))
	for i, r := range rs {
		tip, _ := r.lastTip()
		r.prove(x.o.Chain, tip.Hash, x.o.Now()) // others may have brought the header since
		ps[i] = r.snapshot()
		ps[i].Inbound = !x.dialled(r)
	}
	return ps
}

// dialled reports whether a connection to the peer is one that we made: where both nodes dialled, both call it outbound.
func (x *Exchange) dialled(r *remote) bool {
	for _, c := range x.o.Host.Network().ConnsToPeer(r.id) {
		if c.Stat().Direction == network.DirOutbound && !c.Stat().Limited {
			return true
		}
	}
	return !r.inbound && x.o.Host.Network().Connectedness(r.id) != network.Connected // it has just gone
}

// Ready reports whether the peer's hello is complete.
func (x *Exchange) Ready(id peer.ID) bool { return x.remote(id) != nil }

// Sync says how far the chain is behind its peers and what is being done.
func (x *Exchange) Sync() SyncStatus { return x.driver.snapshot() }

// Serving says what was served to peers since the start.
func (x *Exchange) Serving() ServingStatus {
	x.gate.mu.Lock()
	waiting := len(x.gate.waiters)
	x.gate.mu.Unlock()
	x.outbox.mu.Lock()
	defer x.outbox.mu.Unlock()
	return ServingStatus{
		Bytes: x.sent.bytes.Load(), Busy: x.sent.busy.Load(), Dropped: x.outbox.dropped,
		Waiting: waiting, Streams: len(x.outbox.parcels), OutBytes: x.o.ServeBytes - x.outbox.free,
	}
}

// FetchFrom asks the peer from, and at most seven others, for headers that
// follow our locator: gossip brought a block whose parent, or itself, named hash is
// unknown. It returns at once. Requests are dropped when hash was asked for within 30 s or
// more than a few hashes a second are.
func (x *Exchange) FetchFrom(from peer.ID, hash chainhash.Hash) {
	x.driver.wish(wish{from: from, hash: hash})
}

// Blame disconnects a peer that was found to misbehave elsewhere, and tells OnBlame.
func (x *Exchange) Blame(id peer.ID, reason string) { x.blame(id, reason) }

// disconnect closes every connection to a peer; reason goes into the log.
func (x *Exchange) disconnect(id peer.ID, reason string) {
	if r := x.remote(id); r != nil {
		r.setReason(reason)
	} else {
		x.log.Debug("peer refused", "peer", id, "reason", reason)
	}
	if err := x.o.Host.Network().ClosePeer(id); err != nil {
		x.log.Debug("connection closed with an error", "peer", id, "err", err)
	}
}

// blame disconnects a peer that provably misbehaved and tells who keeps the
// list of peers to avoid, once a connection.
func (x *Exchange) blame(id peer.ID, reason string) {
	if r := x.remote(id); r != nil && !r.accuse("misbehaved: "+reason) {
		return
	}
	x.log.Debug("peer misbehaved", "peer", id, "reason", reason)
	x.disconnect(id, reason)
	x.o.OnBlame(id, reason)
}

// localTip is what we tell of our own tip, and a channel closed at its next change.
func (x *Exchange) localTip() (TipInfo, <-chan struct{}) {
	t, changed := x.o.Chain.Tip()
	return TipInfo{Height: t.Height, Hash: t.Hash, Work: t.Work, Lowest: x.o.Lowest(), MinFeeRate: x.o.MinFeeRate()}, changed
}

func (x *Exchange) localHello(extra Services) Hello {
	t, _ := x.localTip()
	return Hello{
		Version: Version, Agent: x.o.Agent, Genesis: x.o.Chain.Params().GenesisHash, Tip: t,
		Services: x.o.Services | extra, Nonce: x.nonce,
	}
}

// logLimit keeps what peers cause from filling the log: lines past the rate are
// counted and the count goes with the next line.
type logLimit struct {
	limiter    *rate.Limiter
	suppressed atomic.Int64
}

// allow reports whether a line may be written, and how many were not before it.
func (l *logLimit) allow(now time.Time) (suppressed int64, ok bool) {
	if !l.limiter.AllowN(now, 1) {
		l.suppressed.Add(1)
		return 0, false
	}
	return l.suppressed.Swap(0), true
}
