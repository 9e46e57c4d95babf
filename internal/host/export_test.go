package host

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

// Announced is announced, for tests.
var Announced = announced

// RankDials is the order in which a peer's addresses are dialled.
var RankDials = rankDials

// An Inbound is a connection as makeRoom sees it.
type Inbound struct {
	ID, Group string
	Peer      peer.ID
	Since     time.Time
	Standing
	Redundant bool
}

// Times of the choice.
const (
	Tenure         = tenure
	SupplantAfter  = supplantAfter
	RotateEvery    = rotateEvery
	MaxProtected   = maxByGroup + maxByRTT + maxByTx + maxByBlock + maxByUse
	ClassShare     = classShare
	MinGroupSlots  = minGroupSlots
	DefaultIPSlots = maxIPSlots
)

func (c Inbound) inner() inbound {
	return inbound{id: c.ID, peer: c.Peer, group: c.Group, since: c.Since, Standing: c.Standing, redundant: c.Redundant}
}

// MakeRoom is makeRoom.
func MakeRoom(now time.Time, seed maphash.Seed, all []Inbound, newcomer Inbound, rotate bool) (int, bool) {
	in := make([]inbound, len(all))
	for i, c := range all {
		in[i] = c.inner()
	}
	n := newcomer.inner()
	return makeRoom(now, seed, in, &n, rotate)
}

// An Admission decides on made-up connections.
type Admission struct{ a *admission }

// NewAdmission makes one with the clock now.
func NewAdmission(o Options, now func() time.Time) *Admission {
	a := newAdmission(&o, &refusals{logger: o.Logger, maxInbound: o.MaxInbound})
	a.now = now
	return &Admission{a}
}

// Admit decides on c; Up tells it that the swarm knows c, Down that c has ended.
func (a *Admission) Admit(c network.Conn) bool { return a.a.admit(c) }
func (a *Admission) Up(c network.Conn)         { a.a.connected(c) }
func (a *Admission) Down(c network.Conn)       { a.a.disconnected(c) }

// Stand sets what speaks for peers, Dialled whom we have a connection to that stays.
func (a *Admission) Stand(f func() map[peer.ID]Standing) { a.a.standing.Store(&f) }
func (a *Admission) Dialled(f func() map[peer.ID]bool)   { a.a.dialled = f }

// Refused counts.
func (a *Admission) Refused() Refusals { return a.a.refused.stats() }

// Held counts the slots taken.
func (a *Admission) Held() int {
	a.a.mu.Lock()
	defer a.a.mu.Unlock()
	return len(a.a.slots)
}

// Limits are the resource limits of validated options on top of defaults; with ours, of libp2p's services too.
func Limits(o Options, defaults rcmgr.ScalingLimitConfig, ours bool) rcmgr.ConcreteLimitConfig {
	if ours {
		serviceLimits(&defaults)
	}
	l := partialLimits(&o)
	return l.Build(defaults.AutoScale())
}

// QUICKeys are those of an identity.
var QUICKeys = quicKeys

// NewMapper makes the port mapper.
func (h *Host) NewMapper(n network.Network) basichost.NATManager { return h.newMapper(n) }

// Announce is the filter of addresses.
func (h *Host) Announce(found []ma.Multiaddr) []ma.Multiaddr { return h.announced(found) }

// RelaySource gives peers that may be asked for a place.
func (h *Host) RelaySource(ctx context.Context, most int) <-chan peer.AddrInfo {
	return h.relaySource(ctx, most)
}

// NewFailing is New, but that the constructor of one of libp2p's parts (host, circuit, relays) fails with err.
func NewFailing(o Options, part string, err error) (*Host, error) {
	parts := libp2ps()
	switch part {
	case "host":
		parts.host = func(network.Network, *basichost.HostOpts) (*basichost.BasicHost, error) { return nil, err }
	case "circuit":
		parts.circuit = func(host.Host, transport.Upgrader) error { return err }
	case "relays":
		parts.relays = func(host.Host, ...autorelay.Option) (*autorelay.AutoRelay, error) { return nil, err }
	default:
		panic("no part " + part)
	}
	return newHost(o, parts)
}
