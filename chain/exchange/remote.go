package exchange

import (
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

// A Peer is a connected peer whose hello is complete.
type Peer struct {
	ID       peer.ID
	Addr     multiaddr.Multiaddr // remote end of the connection
	Inbound  bool                // none of the connections to it is one that we made
	Agent    string
	Version  uint32
	Services Services
	Height   int32 // of its validated tip, as it last claimed; see Proven
	Hash     chainhash.Hash
	Work     *big.Int // cumulative, as it claimed; must not be changed
	Proven   Proven
	Lowest   int32 // lowest height whose block it serves
	// MinFeeRate is what lets a transaction into its mempool, in satoshi per 1000
	// virtual bytes, about, as it last said; 0: it does not say.
	MinFeeRate int64
	RTT        time.Duration
	Since      time.Time
	BytesIn    int64 // over the protocols of this package
	BytesOut   int64
	InFlight   int // block requests outstanding at it
}

// Proven is the best header of which a peer showed that it has it: it sent it, or named it as its tip, and its
// proof of work is known here. Until there is one, Work is nil and Height -1.
type Proven struct {
	Height int32
	Hash   chainhash.Hash
	Work   *big.Int  // cumulative; must not be changed
	At     time.Time // when it was better than what it had shown before
}

// remote is a peer whose hello is complete, from then until it is gone.
type remote struct {
	id      peer.ID
	addr    multiaddr.Multiaddr
	inbound bool
	hello   Hello // as first received; Tip is superseded by tip below
	since   time.Time
	gone    chan struct{} // closed when the last hello stream ended

	in, out  atomic.Int64 // bytes
	stepwise atomic.Bool  // ask it for headers one reply at a time

	blocks   *blockClient
	account  account       // of what is sent to it; see gate
	searches account       // of what is searched for it
	requests *rate.Limiter // requests of every kind that it may make here
	pool     *rate.Limiter // bytes of the mempool that it may have from here

	mu      sync.Mutex // guards what follows, held for an instant
	tip     TipInfo
	proven  Proven
	rtt     time.Duration // smallest seen; 0 unknown
	closed  bool
	accused bool
	reason  string                     // why it was or is being disconnected; empty: it left
	streams map[network.Stream]bool    // every open stream but the hellos: reset when it is gone
	serving map[protocol.ID]int        // inbound streams by protocol
	current map[protocol.ID]*supplants // the newest inbound stream of a protocol that allows one
	hellos  int                        // live hello streams
}

// supplants is the inbound stream that a newer one of its protocol resets.
type supplants struct{ s network.Stream }

func newRemote(id peer.ID, h Hello, c network.Conn, now time.Time) *remote {
	return &remote{
		id: id, addr: c.RemoteMultiaddr(), inbound: c.Stat().Direction == network.DirInbound,
		hello: h, tip: h.Tip, proven: Proven{Height: -1}, since: now, gone: make(chan struct{}),
		// Serving 50,000 headers or 10,000 small blocks a second takes about a
		// hundred requests a second: ten times that is abuse and waits.
		requests: rate.NewLimiter(1000, 256),
		pool:     rate.NewLimiter(poolBytesPerSecond, poolBurst),
		streams:  make(map[network.Stream]bool),
		serving:  make(map[protocol.ID]int),
		current:  make(map[protocol.ID]*supplants),
	}
}

// track registers an open stream so that it ends with the peer; false: the peer is gone.
func (r *remote) track(s network.Stream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.streams[s] = true
	return true
}

func (r *remote) untrack(s network.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
}

// admit counts an inbound stream in, up to limit of its protocol.
func (r *remote) admit(s network.Stream, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.serving[s.Protocol()] >= limit {
		return false
	}
	r.serving[s.Protocol()]++
	r.streams[s] = true
	return true
}

func (r *remote) dismiss(s network.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving[s.Protocol()]--
	delete(r.streams, s)
	if c := r.current[s.Protocol()]; c != nil && c.s == s {
		delete(r.current, s.Protocol())
	}
}

// supplant makes s the one stream of its protocol and returns the one before.
func (r *remote) supplant(s network.Stream) (old network.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.current[s.Protocol()]; c != nil {
		old = c.s
	}
	r.current[s.Protocol()] = &supplants{s}
	return old
}

// close marks the peer gone and resets its streams.
func (r *remote) close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	open := make([]network.Stream, 0, len(r.streams))
	for s := range r.streams {
		open = append(open, s)
	}
	r.mu.Unlock()
	close(r.gone)
	for _, s := range open {
		_ = s.ResetWithError(network.StreamShutdown)
	}
}

// accuse notes why the peer is to blame; false: it has been already.
func (r *remote) accuse(reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accused {
		return false
	}
	r.accused, r.reason = true, reason
	return true
}

func (r *remote) setReason(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason == "" {
		r.reason = reason
	}
}

func (r *remote) whyGone() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

func (r *remote) setTip(t TipInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tip = t
}

// prove notes that the peer has the header of hash, if it is known here and good. It looks into the chain.
func (r *remote) prove(c Chain, hash chainhash.Hash, now time.Time) {
	st, ok := c.Status(hash)
	if !ok || st.Invalid || st.Work == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proven.Work == nil || st.Work.Cmp(r.proven.Work) > 0 {
		r.proven = Proven{Height: st.Height, Hash: hash, Work: st.Work, At: now}
	}
}

func (r *remote) lastTip() (TipInfo, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tip, r.rtt
}

func (r *remote) measured(rtt time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A clock that did not move means "under its resolution", not "unknown".
	rtt = max(rtt, time.Microsecond)
	if r.rtt == 0 || rtt < r.rtt {
		r.rtt = rtt
	}
}

func (r *remote) snapshot() Peer {
	r.mu.Lock()
	t, rtt, proven := r.tip, r.rtt, r.proven
	r.mu.Unlock()
	return Peer{
		ID: r.id, Addr: r.addr, Inbound: r.inbound, Agent: r.hello.Agent, Version: r.hello.Version,
		Services: r.hello.Services, Height: t.Height, Hash: t.Hash, Work: t.Work, Proven: proven, Lowest: t.Lowest, MinFeeRate: t.MinFeeRate,
		RTT: rtt, Since: r.since, BytesIn: r.in.Load(), BytesOut: r.out.Load(), InFlight: r.blocks.inFlight(),
	}
}
