package host

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// refusalsInterval is how often a refusal is told, however many there are.
const refusalsInterval = time.Minute

// Refusals counts what the resource limits turned away since the start.
type Refusals struct {
	Connections uint64 // inbound, by total, address, share or rate
	Full        uint64 // of these, because nobody had to make room
	Share       uint64 // of these, because their address or IP group has its share
	Evicted     uint64 // inbound connections ended to make room for another
	Streams     uint64 // by protocol, peer or total
	Memory      uint64 // reservations
}

// refusals counts, and says so once a minute: a peer must not be able to write
// a line with each connection that is refused.
type refusals struct {
	logger                       *slog.Logger
	maxInbound                   int
	connections, streams, memory atomic.Uint64
	full, share, left            atomic.Uint64
	lines, evictions             occasion
}

// occasion is a kind of line that is written once in refusalsInterval, with the count since the last one.
type occasion struct {
	told atomic.Uint64 // of the count, by a line
	next atomic.Int64  // Unix nanoseconds
}

// due reports whether a line is, and how much has been counted since the last one.
func (o *occasion) due(total uint64) (count uint64, ok bool) {
	now, next := time.Now(), o.next.Load()
	if now.UnixNano() < next || !o.next.CompareAndSwap(next, now.Add(refusalsInterval).UnixNano()) {
		return 0, false
	}
	return total - o.told.Swap(total), true
}

func (r *refusals) stats() Refusals {
	return Refusals{
		Connections: r.connections.Load(), Full: r.full.Load(), Share: r.share.Load(), Evicted: r.left.Load(),
		Streams: r.streams.Load(), Memory: r.memory.Load(),
	}
}

// connection counts a refused inbound connection.
func (r *refusals) connection(reason error) {
	var share *shareError
	switch {
	case errors.Is(reason, errFull):
		r.full.Add(1)
	case errors.As(reason, &share):
		r.share.Add(1)
	}
	if count, ok := r.lines.due(r.connections.Add(1)); ok {
		r.logger.Warn("refused inbound connections", "count", count, "limit", r.maxInbound, "last_reason", reason)
	}
}

// evicted counts an inbound connection that made room for another.
func (r *refusals) evicted(s *slot, now time.Time) {
	if count, ok := r.evictions.due(r.left.Add(1)); ok {
		r.logger.Info("inbound peers made room for others", "count", count, "limit", r.maxInbound,
			"last_peer", s.peer, "last_addr", s.conn.RemoteMultiaddr(), "connected_s", int(now.Sub(s.since).Seconds()))
	}
}

// The rest implements rcmgr.MetricsReporter. Refused connections are counted by
// resources.OpenConnection, which also sees those refused by address.

func (*refusals) AllowConn(network.Direction, bool)        {}
func (*refusals) BlockConn(network.Direction, bool)        {}
func (*refusals) AllowStream(peer.ID, network.Direction)   {}
func (r *refusals) BlockStream(peer.ID, network.Direction) { r.streams.Add(1) }
func (*refusals) AllowPeer(peer.ID)                        {}
func (*refusals) BlockPeer(peer.ID)                        {}
func (*refusals) AllowProtocol(protocol.ID)                {}
func (r *refusals) BlockProtocol(protocol.ID)              { r.streams.Add(1) }
func (r *refusals) BlockProtocolPeer(protocol.ID, peer.ID) { r.streams.Add(1) }
func (*refusals) AllowService(string)                      {}
func (r *refusals) BlockService(string)                    { r.streams.Add(1) }
func (r *refusals) BlockServicePeer(svc string, p peer.ID) { r.streams.Add(1) }
func (*refusals) AllowMemory(int)                          {}
func (r *refusals) BlockMemory(int)                        { r.memory.Add(1) }
