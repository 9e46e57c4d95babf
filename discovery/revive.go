package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// When a line breaks, each side loses the peers that it had on the other at about the same time, and what is
// left of the network on each side is content with itself: the pauses between dials of what failed grow,
// and where enough peers are left nobody is dialled at all. So that the sides find each other within seconds when the
// line is back, the peers that have gone dark are dialled in turn, one at a time, at a steady pace.
//
// Dark is a peer that we had dialled, that was lost and since then does not answer at all. One that refuses was stopped, and one
// that answers and hangs up is full or does not want us: to those the growing pauses apply.
const (
	// For so long after an outbound peer was lost, while some are missing, the pace is the quick one.
	reviveQuick    = 4 * time.Second
	reviveQuickFor = 15 * time.Minute
	// Later, or with as many outbound peers as are wanted, the slow one.
	reviveSlow = 30 * time.Second
	// A peer that has been away for so long is dialled as any other of the book.
	lostFor = 3 * time.Hour
	// A dial takes up to dialTimeout, of which several may be under way.
	maxRevives = 4
)

// reviveLoop dials peers that have gone dark until ctx ends.
func (d *Discovery) reviveLoop(ctx context.Context) {
	if d.opts.MaxOutbound == 0 {
		return
	}
	var dials sync.WaitGroup
	defer dials.Wait()
	slots := make(chan struct{}, maxRevives)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t, ok := d.pickDark(time.Now(), last)
		if !ok {
			continue
		}
		last = time.Now()
		slots <- struct{}{} // a dial ends with ctx
		dials.Go(func() {
			defer func() { <-slots }()
			d.dial(ctx, t)
			d.letGo(ctx, t.info.ID)
		})
	}
}

// pickDark chooses, if it is time for one, the dark peer that was dialled longest ago.
func (d *Discovery) pickDark(now, last time.Time) (target, bool) {
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	pace := reviveSlow
	if l.counted < d.opts.MaxOutbound && now.Sub(d.lostAt) < reviveQuickFor {
		pace = reviveQuick
	}
	if now.Sub(last) < pace {
		return target{}, false
	}
	var pick *entry
	for _, e := range d.book.byID {
		_, connected := l.peers[e.id]
		if connected || !e.dark || now.Sub(e.lostAt) >= lostFor || !e.dialSince.IsZero() || len(e.addrs) == 0 ||
			now.Sub(e.lastTry) < pace || d.avoidedLocked(e.id, now) {
			continue
		}
		if pick == nil || e.lastTry.Before(pick.lastTry) {
			pick = e
		}
	}
	if pick == nil {
		return target{}, false
	}
	d.feelers++
	return d.startLocked(pick, now), true
}

// lostLocked notes that the last connection with a peer has ended, which we had opened. The caller holds mu.
func (d *Discovery) lostLocked(id peer.ID, now time.Time) {
	if e := d.book.byID[id]; e != nil && e.tried() {
		d.lostAt, e.lostAt, e.seen = now, now, now
	}
}

// letGo ends a connection that a feeler made, unless the peer is needed or the operator's own; before that it gives hello the time to
// say whether it is a good one.
func (d *Discovery) letGo(ctx context.Context, id peer.ID) {
	if d.host.Network().Connectedness(id) != network.Connected || !sleep(ctx, 5*time.Second) {
		return
	}
	d.mu.Lock()
	e := d.book.byID[id]
	own := e != nil && e.persistent // dialled beyond MaxOutbound, and wanted always
	d.mu.Unlock()
	if own {
		return
	}
	d.host.ConnManager().Unprotect(id, protectTag)
	l := d.links()
	over := false // a third of its group does not count, and is not needed either
	for _, c := range d.host.Network().ConnsToPeer(id) {
		over = over || !d.opts.Private && l.groups[groupOf(c.RemoteMultiaddr())] > maxPerGroup
	}
	d.mu.Lock()
	most := d.opts.MaxOutbound + d.more
	d.mu.Unlock()
	if over || l.counted > most {
		_ = d.host.Network().ClosePeer(id)
	}
}
