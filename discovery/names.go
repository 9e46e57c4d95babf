package discovery

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// name is a DNS seed, or an operator's address with a DNS name in it. The
// Discovery's lock guards its fields from next on.
type name struct {
	addr       ma.Multiaddr
	label      string // as it was configured
	source     Source
	persistent bool
	added      peer.ID // of AddPeer, or empty

	next  time.Time
	busy  bool
	asked bool
	fails int // in a row
	peers int // of the last answer that had any
	err   string
	warn  time.Time // last told that it gives no peer ids
	given []peer.ID // static peers of the last answer
}

// maxGiven bounds the static peers that one name can make; more are ordinary.
const maxGiven = 8

// nameLoop resolves every name at once, again after a pause when that fails, and
// from time to time for ever: addresses behind names change.
func (d *Discovery) nameLoop(ctx context.Context) {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wakeName:
		case <-timer.C:
		}
		now, next := time.Now(), time.Hour
		d.mu.Lock()
		for _, n := range d.names {
			if n.busy {
				continue
			}
			if wait := n.next.Sub(now); wait > 0 {
				next = min(next, wait)
				continue
			}
			n.busy, n.asked = true, true
			lookups.Go(func() {
				d.resolve(ctx, n)
				signal(d.wakeName)
			})
		}
		d.mu.Unlock()
		timer.Reset(next)
	}
}

// askNamesSoon brings every question forward: the last peer is gone.
func (d *Discovery) askNamesSoon() {
	soon := time.Now().Add(time.Second)
	d.mu.Lock()
	for _, n := range d.names {
		n.next = earlier(n.next, soon)
	}
	d.mu.Unlock()
	signal(d.wakeName)
}

// askAgainLocked brings forward the question that gave a static peer which cannot be
// reached: its address may have changed. The caller holds mu.
func (d *Discovery) askAgainLocked(id peer.ID, now time.Time) {
	for _, n := range d.names {
		if slices.Contains(n.given, id) {
			n.next = earlier(n.next, now.Add(time.Second))
			signal(d.wakeName)
		}
	}
}

// noteAnswer takes the peers of a name. Those of an operator's address are static
// until the next answer, but a name that does not say which peers are meant may
// neither make many, nor lead a public network to private addresses.
func (d *Discovery) noteAnswer(n *name, answer seedAnswer) {
	if n.source == SourceDNS {
		for id, addrs := range answer.peers {
			d.learn(peer.AddrInfo{ID: id, Addrs: addrs}, SourceDNS, n.label)
		}
		return
	}
	if len(answer.peers) == 0 {
		return
	}
	_, named := splitPeer(n.addr)
	d.mu.Lock()
	if !slices.Contains(d.names, n) { // of an added peer that was removed while we asked
		d.mu.Unlock()
		return
	}
	before := n.given
	n.given = nil
	var rest []peer.ID
	for id, addrs := range answer.peers {
		keep, hidden := usable(addrs, d.opts.Private || named != "")
		if hidden > 0 {
			d.hidden.note(n.source, hidden)
		}
		switch {
		case len(keep) == 0:
		case len(n.given) < maxGiven:
			d.staticLocked(id, keep, n.source, n.persistent)
			n.given = append(n.given, id)
		default:
			rest = append(rest, id)
		}
	}
	for _, id := range before {
		given := slices.ContainsFunc(d.names, func(n *name) bool { return slices.Contains(n.given, id) })
		if e := d.book.byID[id]; e != nil && e.source == n.source && !given {
			e.static, e.persistent = e.fixed, e.fixedPers
			d.book.settle(e, time.Now())
		}
	}
	d.mu.Unlock()
	for _, id := range rest {
		d.learn(peer.AddrInfo{ID: id, Addrs: answer.peers[id]}, n.source, n.label)
	}
}

// resolve asks for one name and notes what it gave.
func (d *Discovery) resolve(ctx context.Context, n *name) {
	answer, err := resolveSeed(ctx, d.lookup, n.addr, d.opts.SeedPort)
	if errors.Is(err, errNoPeerIDs) {
		if hidden := answer.askable(d.opts.Private); hidden > 0 {
			d.mu.Lock()
			d.hidden.note(n.source, hidden)
			d.mu.Unlock()
		}
		err = answer.ask(ctx, d.host, err)
	}
	if ctx.Err() != nil {
		return
	}
	d.noteAnswer(n, answer)
	l := d.links()
	now := time.Now()
	d.mu.Lock()
	n.busy = false
	pause := 30 * time.Minute
	switch {
	case err != nil:
		n.err = err.Error()
		pause = min(time.Second<<min(n.fails, 8), 2*time.Minute)
		n.fails++
		if len(l.peers) == 0 {
			pause = min(pause, 4*time.Second) // whatever comes back first is the way back in
		}
	default:
		n.err, n.fails, n.peers = "", 0, len(answer.peers)
		if len(l.peers) == 0 {
			pause = 15 * time.Second
		} else if l.outbound < d.opts.MaxOutbound {
			pause = 5 * time.Minute
		}
	}
	n.next = now.Add(jitter(pause))
	tell := errors.Is(err, errNoPeerIDs) && now.Sub(n.warn) > time.Hour
	if tell {
		n.warn = now
	}
	d.mu.Unlock()
	if tell {
		d.log.Warn("this seed gives no peer ids, and no node answers at its addresses", slog.String("seed", n.label), slog.Any("error", err),
			slog.String("want", "TXT records at _dnsaddr.<host>: dnsaddr=/ip4/…/tcp/…/p2p/<peer id>, or addresses of nodes at the network's port"))
	}
	d.poke()
}
