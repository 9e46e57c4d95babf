package node

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/internal/host"
)

// maxDeeds bounds the memory of who brought what: more than there are peers.
const maxDeeds = 8192

// deeds remembers when the connected peers last brought what was new here, for that speaks for keeping them.
type deeds struct {
	now func() time.Time

	mu sync.Mutex // guards of, held for an instant
	of map[peer.ID]deed
}

type deed struct{ block, tx time.Time }

func newDeeds() *deeds { return &deeds{now: time.Now, of: map[peer.ID]deed{}} }

// broughtBlock and broughtTx note that the peer was the first to bring a good one.
func (d *deeds) broughtBlock(id peer.ID) {
	d.note(id, func(x *deed, now time.Time) { x.block = now })
}

func (d *deeds) broughtTx(id peer.ID) {
	d.note(id, func(x *deed, now time.Time) { x.tx = now })
}

func (d *deeds) note(id peer.ID, set func(*deed, time.Time)) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	x, known := d.of[id]
	if !known && len(d.of) >= maxDeeds {
		return
	}
	set(&x, now)
	d.of[id] = x
}

// get returns what a peer did; keep forgets all but the peers of which it says so.
func (d *deeds) get(id peer.ID) deed {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of[id]
}

func (d *deeds) keep(here func(peer.ID) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.of {
		if !here(id) {
			delete(d.of, id)
		}
	}
}

// standing says what speaks for the connected peers, when one of those that dialled us has to make room.
func (n *Node) standing() map[peer.ID]host.Standing {
	out := map[peer.ID]host.Standing{}
	for _, p := range n.exchange.Peers() {
		d := n.deeds.get(p.ID)
		out[p.ID] = host.Standing{
			RTT: p.RTT, LastBlock: d.block, LastTx: d.tx,
			InUse: n.host.ConnManager().IsProtected(p.ID, ""), // by a gossip mesh
		}
	}
	n.deeds.keep(func(id peer.ID) bool { _, here := out[id]; return here })
	for _, id := range n.disc.Kept() {
		s := out[id]
		s.Keep = true
		out[id] = s
	}
	return out
}
