package host

import (
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
	Connections uint64 // inbound, by total, address or rate
	Streams     uint64 // by protocol, peer or total
	Memory      uint64 // reservations
}

// refusals counts, and says so once a minute: a peer must not be able to write
// a line with each connection that is refused.
type refusals struct {
	logger                       *slog.Logger
	maxInbound                   int
	connections, streams, memory atomic.Uint64
	told                         atomic.Uint64 // connections that a line has told of
	nextLine                     atomic.Int64  // Unix nanoseconds
}

func (r *refusals) stats() Refusals {
	return Refusals{Connections: r.connections.Load(), Streams: r.streams.Load(), Memory: r.memory.Load()}
}

// connection counts a refused inbound connection.
func (r *refusals) connection(reason error) {
	total := r.connections.Add(1)
	now, next := time.Now(), r.nextLine.Load()
	if now.UnixNano() < next || !r.nextLine.CompareAndSwap(next, now.Add(refusalsInterval).UnixNano()) {
		return
	}
	r.logger.Warn("refused inbound connections",
		"count", total-r.told.Swap(total), "limit", r.maxInbound, "last_reason", reason)
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
