package host

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Shares of the inbound slots on a public network, while others want them or not: what one address, or one IP group
// (the /16 of IPv4, the /32 of IPv6), may hold. They leave room for a home or a cloud account full of nodes, and not for taking all.
const (
	groupShare    = 4 // a quarter
	minGroupSlots = 4
	ipShare       = 8
	minIPSlots    = 2
	maxIPSlots    = 16

	// Connections beyond MaxInbound that may be in their handshake, or about to end, at the same time. Who
	// stays is decided when the peer has proved its identity.
	minHandshakes = 16
)

// handshakes is how many inbound connections there may be that have no slot.
func handshakes(o *Options) int { return max(minHandshakes, o.MaxInbound/8) }

func slotsPerGroup(o *Options) int { return max(minGroupSlots, o.MaxInbound/groupShare) }

func slotsPerIP(o *Options) int { return min(max(minIPSlots, o.MaxInbound/ipShare), maxIPSlots) }

// errFull says that nobody made room.
var errFull = errors.New("all inbound slots are held by peers that have more right to them")

// shareError says that an address or an IP group has what it may have.
type shareError struct {
	who   string
	slots int
}

func (e *shareError) Error() string {
	return fmt.Sprintf("%s has its share of %d connections", e.who, e.slots)
}

// admission decides which inbound connections have a slot. There are never more than limit of them.
type admission struct {
	limit, perGroup, perIP int // perGroup and perIP 0: no share
	private                bool
	seed                   maphash.Seed
	refused                *refusals
	now                    func() time.Time
	// standing tells what speaks for the connected peers; nil: nothing is known.
	standing atomic.Pointer[func() map[peer.ID]Standing]
	// dialled lists the peers to whom there is a connection of ours that is to stay; see Host.dialled.
	dialled func() map[peer.ID]bool

	mu      sync.Mutex // guards what follows; held for work in memory only
	slots   map[string]*slot
	rotated struct{ all, share time.Time } // when an equal last made room, among all or within a share
}

// slot is an inbound connection that was let in.
type slot struct {
	inbound
	shares bool // the group has a share of the slots
	ip     netip.Addr
	conn   network.Conn
	// up: the swarm has told of the connection. Before that, ending it would confuse the swarm.
	up bool
}

func newAdmission(o *Options, refused *refusals) *admission {
	a := &admission{
		limit: o.MaxInbound, private: o.Private, seed: maphash.MakeSeed(), refused: refused, now: time.Now,
		dialled: func() map[peer.ID]bool { return nil }, slots: map[string]*slot{},
	}
	if !o.Private {
		a.perGroup, a.perIP = slotsPerGroup(o), slotsPerIP(o)
	}
	return a
}

// group names those that count as one operator, and whether they share the slots; ip is the address if it can be told apart. On a private network,
// and for what comes from private addresses (the Internet behind a container's proxy does), every peer stands for itself. Who comes
// through a relay counts with the relay's group: ids cost nothing, and neither does a relay of one's own.
func (a *admission) group(id peer.ID, addr ma.Multiaddr) (group string, shares bool, ip netip.Addr) {
	own := "peer/" + string(id)
	raw, err := manet.ToIP(addr)
	if err != nil {
		return own, false, netip.Addr{}
	}
	ip, _ = netip.AddrFromSlice(raw)
	ip = ip.Unmap().WithZone("")
	if a.private || isLocal(ip) {
		return own, false, netip.Addr{}
	}
	bits := 32
	if ip.Is4() {
		bits = 16
	} else if home, err := ip.Prefix(56); err == nil {
		ip = home.Addr() // what a home gets counts as one address
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return own, false, netip.Addr{}
	}
	if _, err := addr.ValueForProtocol(ma.P_CIRCUIT); err == nil {
		return "relay/" + p.String(), true, netip.Addr{}
	}
	return p.String(), true, ip
}

func isLocal(ip netip.Addr) bool {
	for _, list := range [][]netip.Prefix{localPrefixes, loopbackPrefixes} {
		for _, p := range list {
			if p.Contains(ip) {
				return true
			}
		}
	}
	return false
}

// admit decides on an inbound connection whose peer is known. It may end another one to make room.
func (a *admission) admit(c network.Conn) bool {
	id := c.RemotePeer()
	known := map[peer.ID]Standing{}
	if f := a.standing.Load(); f != nil {
		known = (*f)()
	}
	s := &slot{inbound: inbound{id: c.ID(), peer: id, since: a.now(), Standing: known[id]}, conn: c}
	s.group, s.shares, s.ip = a.group(id, c.RemoteMultiaddr())
	dialled := a.dialled()

	a.mu.Lock()
	leaves, err := a.decideLocked(s, known, dialled)
	if err == nil {
		a.slots[s.id] = s
	}
	if leaves != nil {
		delete(a.slots, leaves.id)
	}
	a.mu.Unlock()
	if leaves != nil {
		a.refused.evicted(leaves, s.since)
		_ = leaves.conn.CloseWithError(network.ConnGarbageCollected)
	}
	if err != nil {
		a.refused.connection(err)
		return false
	}
	return true
}

// decideLocked returns who leaves for s, nil if there is room, or why s cannot stay. The caller holds mu.
func (a *admission) decideLocked(s *slot, known map[peer.ID]Standing, dialled map[peer.ID]bool) (leaves *slot, err error) {
	inGroup, inIP := 0, 0
	for id, x := range a.slots {
		if x.conn.IsClosed() {
			delete(a.slots, id)
			continue
		}
		if x.group == s.group {
			inGroup++
		}
		if s.ip.IsValid() && x.ip == s.ip {
			inIP++
		}
	}
	among, rotated := func(*slot) bool { return true }, &a.rotated.share
	switch {
	case s.Keep:
		if len(a.slots) < a.limit {
			return nil, nil
		}
		err, rotated = errFull, &a.rotated.all
	case a.perIP > 0 && s.ip.IsValid() && inIP >= a.perIP:
		among = func(x *slot) bool { return x.ip == s.ip }
		err = &shareError{"address " + s.ip.String(), a.perIP}
	case a.perGroup > 0 && s.shares && inGroup >= a.perGroup:
		among = func(x *slot) bool { return x.group == s.group }
		err = &shareError{"IP group " + s.group, a.perGroup}
	case len(a.slots) < a.limit:
		return nil, nil
	default:
		err, rotated = errFull, &a.rotated.all
	}
	var all []inbound
	for _, x := range a.slots {
		if x.up && among(x) {
			in := x.inbound
			in.Standing = known[in.peer]
			in.redundant = s.since.Sub(in.since) >= supplantAfter && dialled[in.peer]
			all = append(all, in)
		}
	}
	rotate := s.since.Sub(*rotated) >= rotateEvery
	i, ok := makeRoom(s.since, a.seed, all, &s.inbound, rotate)
	if !ok {
		return nil, err
	}
	*rotated = s.since
	return a.slots[all[i].id], nil
}

// connected notes that the swarm has told of a connection, and forgets it when it has ended.
func (a *admission) connected(c network.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.slots[c.ID()]; s != nil {
		s.up = true
	}
}

func (a *admission) disconnected(c network.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.slots, c.ID())
}

// gate is libp2p's gate: the operator's bans, and after the handshake the decision on the slots.
type gate struct {
	*Bans
	admission *admission
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if ok, why := g.Bans.InterceptUpgraded(c); !ok {
		return false, why
	}
	if c.Stat().Direction != network.DirInbound {
		return true, 0
	}
	return g.admission.admit(c), 0
}

// dialled lists the peers whose own connection to us may go when we need the room, because there is one that we
// dialled: of two nodes that dialled each other, the one with the smaller id keeps the connection that it made, so that not both end.
func (h *Host) dialled() map[peer.ID]bool {
	out := map[peer.ID]bool{}
	for _, c := range h.Network().Conns() {
		if c.Stat().Direction == network.DirOutbound && !c.Stat().Limited && !c.IsClosed() && h.ID() < c.RemotePeer() {
			out[c.RemotePeer()] = true
		}
	}
	return out
}

// SetStanding gives the source of what speaks for keeping peers connected, asked when somebody has to make room.
// It must not block for long. Before that nothing is known of anybody.
func (h *Host) SetStanding(f func() map[peer.ID]Standing) { h.admission.standing.Store(&f) }
