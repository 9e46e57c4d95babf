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
// that answers and hangs up is full or does not want us: to those the growing pauses apply. Who is lost is dialled once to see which it
// is, for a node that has found as many others meanwhile dials nobody.
//
// A dark peer that is back stays, and who was dialled since it was lost goes in its stead: else each side would keep to itself for as long as
// it has enough of its own.
//
// Who answered and hung up at once (it is full, or a walk of the DHT or a feeler had dialled it) was not held: it is no loss to be looked into, or it
// would be dialled for ever, and it takes nobody's place, or it could hang up to push out those that we chose.
const (
	// For so long after an outbound peer was lost the pace is quick while some are missing or several are lost, and brisk otherwise: a node may
	// have had one peer only on the other side.
	reviveQuick    = 4 * time.Second
	reviveBrisk    = 8 * time.Second
	reviveQuickFor = 15 * time.Minute
	// Later it is slow.
	reviveSlow = 30 * time.Second
	// A peer that has been away for so long is dialled as any other of the book.
	lostFor = 3 * time.Hour
	// A dial takes up to dialTimeout, of which several may be under way.
	maxRevives = 4
	// So many are several: this share of MaxOutbound, and two at least.
	severalShare = 4
	// A connection that lasted for so long was held.
	heldAfter = queryGrace + trimEvery
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
		t, since, ok := d.pickDark(time.Now(), last)
		if !ok {
			continue
		}
		last = time.Now()
		slots <- struct{}{} // a dial ends with ctx
		dials.Go(func() {
			defer func() { <-slots }()
			d.dial(ctx, t)
			d.settleBack(ctx, t.info.ID, since)
			d.mu.Lock()
			delete(d.settling, t.info.ID)
			d.mu.Unlock()
		})
	}
}

// pickDark chooses, if it is time for one, the lost peer that was dialled longest ago. darkSince is when it was lost if it is dark and had been held,
// else zero.
func (d *Discovery) pickDark(now, last time.Time) (t target, darkSince time.Time, ok bool) {
	d.mu.Lock()
	quiet := now.Sub(d.lostAt) >= lostFor // as nearly always: then nobody is dark
	d.mu.Unlock()
	if quiet {
		return target{}, time.Time{}, false
	}
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := func(e *entry) bool { // nothing is known yet of the others
		return e.dark || e.held && !e.lostAt.IsZero() && e.lastTry.Before(e.lostAt) && e.flaps == 0
	}
	lost := 0
	for _, e := range d.book.byID {
		if gone(e) && now.Sub(e.lostAt) < reviveQuickFor {
			lost++
		}
	}
	pace := reviveSlow
	if now.Sub(d.lostAt) < reviveQuickFor {
		if pace = reviveBrisk; lost >= max(2, d.opts.MaxOutbound/severalShare) || l.counted < d.opts.MaxOutbound {
			pace = reviveQuick
		}
	}
	if now.Sub(last) < pace {
		return target{}, time.Time{}, false
	}
	var pick *entry
	for _, e := range d.book.byID {
		_, connected := l.peers[e.id]
		if connected || !gone(e) || now.Sub(e.lostAt) >= lostFor || !e.dialSince.IsZero() || len(e.addrs) == 0 ||
			now.Sub(e.lastTry) < pace || d.avoidedLocked(e.id, now) {
			continue
		}
		if pick == nil || e.lastTry.Before(pick.lastTry) {
			pick = e
		}
	}
	if pick == nil {
		return target{}, time.Time{}, false
	}
	d.feelers++
	d.settling[pick.id] = struct{}{}
	if pick.dark && pick.held {
		darkSince = pick.lostAt
	}
	return d.startLocked(pick, now), darkSince, true
}

// settleBack ends a connection with a peer that was lost and is back, or if it was dark since a moment with one that was dialled later, if there
// are more than are wanted.
func (d *Discovery) settleBack(ctx context.Context, id peer.ID, darkSince time.Time) {
	connected := func() bool { return d.host.Network().Connectedness(id) == network.Connected }
	if !connected() || !sleep(ctx, helloTime) || !connected() {
		return
	}
	all := d.outwards()
	d.mu.Lock()
	most := d.opts.MaxOutbound + d.more
	var instead []outward
	for _, o := range all {
		e := d.book.byID[o.id]
		_, settling := d.settling[o.id] // each makes room for itself
		if !settling && !o.needed && o.since.After(darkSince) && (e == nil || !e.static && !e.back) {
			instead = append(instead, o)
		}
	}
	back := d.book.byID[id]
	good := back != nil && back.success.After(darkSince) && !d.avoidedLocked(id, time.Now())
	d.mu.Unlock()
	if !darkSince.IsZero() && good && len(instead) > 0 && d.links().counted > most {
		d.hangUp(instead[len(instead)-1]) // the youngest, and of the DHT's own if there are any
		return
	}
	d.release(id)
}

// lostLocked notes that the last connection with a peer has ended, which we had opened. The caller holds mu.
func (d *Discovery) lostLocked(id peer.ID, opened, now time.Time) {
	if e := d.book.byID[id]; e != nil && e.tried() && !d.avoidedLocked(id, now) {
		d.lostAt, e.lostAt, e.seen = now, now, now
		e.held = now.Sub(opened) >= heldAfter
	}
}

// letGo ends a connection that a feeler made, unless the peer is needed or the operator's own; before that it gives hello the time to
// say whether it is a good one.
func (d *Discovery) letGo(ctx context.Context, id peer.ID) {
	if d.host.Network().Connectedness(id) != network.Connected || !sleep(ctx, helloTime) {
		return
	}
	d.release(id)
}

// helloTime is what a peer gets to show that it is a good one.
const helloTime = 5 * time.Second

// release ends a connection that is not needed.
func (d *Discovery) release(id peer.ID) {
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
		d.hangUp(outward{conns: d.host.Network().ConnsToPeer(id)})
	}
}
