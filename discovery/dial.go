package discovery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	dialTimeout = 10 * time.Second
	// A dial that takes longer than this holds its slot no more: dead addresses do
	// not keep live ones waiting.
	dialPatience = time.Second
	maxDials     = 16 // at once
	// So many more may be under way that have taken longer: a seed that tells of a hundred addresses that do not
	// answer must not hold up the others for the ten seconds that each takes.
	maxSlowDials = 48
	// For so long after it was dialled a peer holds its slot, connected or not.
	settled = 500 * time.Millisecond

	// On a public network this many outbound peers of an IP group count towards the
	// target, and no more are dialled.
	maxPerGroup = 2

	// A peer behind a NAT makes three attempts at a direct connection, of some 10 s each, usually one.
	punchTimeout = 40 * time.Second
	punchLook    = 100 * time.Millisecond

	protectTag = "dunlin-discovery"
)

// rotation is the order in which the queues take turns once static peers and
// anchors are being dialled: no source starves another.
var rotation = []Source{
	SourceBook, SourceDNS, SourceDHT, SourcePeers, SourceMDNS, SourceInbound, SourceImport, SourceBookNew, SourceBootstrap, SourcePersistent,
	SourceAdded,
}

// links is a snapshot of the host's connections.
type links struct {
	peers    map[peer.ID]bool // true: at least one connection is outbound
	groups   map[string]int   // outbound peers of each IP group
	outbound int
	counted  int // outbound peers, as counted towards the target
	inbound  int
}

func (d *Discovery) links() links {
	l := links{peers: map[peer.ID]bool{}, groups: map[string]int{}}
	groups := map[peer.ID]string{}
	for _, c := range d.host.Network().Conns() {
		if c.IsClosed() || overRelay(c) {
			continue
		}
		p := c.RemotePeer()
		out := c.Stat().Direction == network.DirOutbound
		l.peers[p] = l.peers[p] || out
		if out {
			groups[p] = groupOf(c.RemoteMultiaddr())
		}
	}
	for p, out := range l.peers {
		if !out {
			l.inbound++
			continue
		}
		l.outbound++
		g := groups[p]
		if l.groups[g]++; d.opts.Private || l.groups[g] <= maxPerGroup {
			l.counted++
		}
	}
	return l
}

// dialLoop dials until there are MaxOutbound outbound peers, and again whenever
// there are fewer.
func (d *Discovery) dialLoop(ctx context.Context) {
	var dials sync.WaitGroup
	defer dials.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		picked, next := d.pick(time.Now())
		for _, t := range picked {
			dials.Go(func() { d.dial(ctx, t) })
		}
		timer.Reset(next)
	}
}

// target is one dial to make.
type target struct {
	info   peer.AddrInfo
	source Source
	static bool
}

// pick chooses the peers to dial now and says when to look again at the latest.
func (d *Discovery) pick(now time.Time) (picked []target, next time.Duration) {
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	next = 30 * time.Second
	lonely := len(l.peers) == 0
	if lonely {
		d.endRestLocked()
	}
	busy, slow, slots := 0, 0, d.opts.MaxOutbound+d.more-l.counted
	if !d.opts.Private {
		// Whoever answers our DHT queries chooses whom the DHT dials: on a public network
		// half of the target is for peers that we have picked ourselves.
		slots = max(slots, d.opts.MaxOutbound/2-d.pickedLocked(l))
	}
	queues := map[Source][]*entry{}
	var head []*entry
	for _, e := range d.book.byID {
		if !e.dialSince.IsZero() {
			if held := now.Sub(e.dialSince); held < dialPatience {
				busy++
				slots--
				next = min(next, dialPatience-held)
			} else if slow++; slow > maxSlowDials {
				busy++
			}
			l.groups[e.dialGroup()]++
			continue
		}
		if _, connected := l.peers[e.id]; !connected && now.Sub(e.lastUp) < settled {
			// It connected after the snapshot, or is gone again at once.
			slots--
			l.groups[e.dialGroup()]++
			next = min(next, settled)
			continue
		}
		if _, connected := l.peers[e.id]; connected || d.avoidedLocked(e.id, now) || len(d.dialable(e)) == 0 {
			continue
		}
		if e.tries+e.flaps > 0 {
			if rest := e.lastTry.Add(e.wait(lonely)).Sub(now); rest > 0 {
				next = min(next, rest)
				continue
			}
		}
		switch {
		case d.opts.Closed && !e.static:
		case e.persistent:
			if busy < maxDials {
				busy++
				picked = append(picked, d.startLocked(e, now))
			}
		case e.static, e.anchor, e.elder:
			head = append(head, e)
		default:
			queues[e.class()] = append(queues[e.class()], e)
		}
	}
	groups := l.groups
	take := func(e *entry) {
		if !d.opts.Private && !e.static {
			// By any of its addresses: which one is dialled is not ours to say, and the first may be made up.
			for _, a := range d.dialable(e) {
				if groups[dialGroup(a)] >= maxPerGroup {
					return
				}
			}
			groups[e.dialGroup()]++
		}
		slots--
		busy++
		picked = append(picked, d.startLocked(e, now))
	}
	free := func() bool { return slots > 0 && busy < maxDials }
	if !free() {
		return picked, max(next, 10*time.Millisecond)
	}
	rand.Shuffle(len(head), func(i, j int) { head[i], head[j] = head[j], head[i] })
	for _, e := range head {
		if free() {
			take(e)
		}
	}
	for src, q := range queues {
		rand.Shuffle(len(q), func(i, j int) { q[i], q[j] = q[j], q[i] })
		if !d.opts.Private {
			groupsFirst(q)
		}
		if src == SourceDNS {
			seedsFirst(q, d.book.failures(SourceDNS))
		}
	}
	for left := true; left && free(); {
		left = false
		for range rotation {
			src := rotation[d.turn%len(rotation)]
			d.turn++
			if q := queues[src]; len(q) > 0 && free() {
				left = true
				queues[src] = q[1:]
				take(q[0])
			}
		}
	}
	if slots > 0 && busy > 0 {
		next = min(next, dialPatience)
	}
	return picked, max(next, 10*time.Millisecond)
}

// groupsFirst orders entries so that each IP group has its first one before any has its second, and so on: a
// thousand peer ids in few groups are no likelier to be dialled than a few in as many.
func groupsFirst(q []*entry) { inTurns(q, (*entry).group, map[string]int{}) }

// seedsFirst does the same for those who told of the entries, of which so many were of no use before: a seed that
// tells a hundred lies does not keep those waiting of whom another one tells.
func seedsFirst(q []*entry, useless map[string]int) {
	inTurns(q, func(e *entry) string { return e.told }, useless)
}

// inTurns orders entries so that each class has its first one before any has its second, and so on. Those classes begin
// later that had turns before: had, which it changes.
func inTurns(q []*entry, class func(*entry) string, had map[string]int) {
	type ranked struct {
		e   *entry
		nth int
	}
	all := make([]ranked, len(q))
	for i, e := range q {
		c := class(e)
		all[i] = ranked{e, had[c]}
		had[c]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.nth, b.nth) })
	for i, r := range all {
		q[i] = r.e
	}
}

// pickedLocked counts the outbound peers that we have dialled. The caller holds mu.
func (d *Discovery) pickedLocked(l links) (n int) {
	for p, out := range l.peers {
		if e := d.book.byID[p]; out && e != nil && !e.lastUp.IsZero() {
			n++
		}
	}
	return n
}

// dialable are the addresses of an entry that the host can dial.
func (d *Discovery) dialable(e *entry) []ma.Multiaddr {
	if d.opts.HolePunch {
		return e.addrs
	}
	return direct(e.addrs)
}

// startLocked marks an entry as being dialled. The caller holds mu.
func (d *Discovery) startLocked(e *entry, now time.Time) target {
	e.dialSince = now
	src := e.source
	switch {
	case e.static:
	case e.anchor:
		src = SourceAnchor
	default:
		src = e.class()
	}
	d.yield[src].Dialed++
	return target{info: peer.AddrInfo{ID: e.id, Addrs: d.dialable(e)}, source: src, static: e.static}
}

// dial makes one attempt and notes how it went.
func (d *Discovery) dial(run context.Context, t target) {
	ctx, cancel := context.WithTimeout(network.WithDialPeerTimeout(run, dialTimeout), dialTimeout)
	defer cancel()
	// The pauses are ours: the swarm's own would make a retry fail unseen.
	if s, ok := d.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(t.info.ID)
	}
	start := time.Now()
	err := d.host.Connect(ctx, t.info)
	if err == nil && !d.direct(t.info.ID) {
		d.log.Debug("reached through a relay, waiting for a direct connection", slog.String("peer", t.info.ID.String()))
		err = d.awaitDirect(run, t.info.ID)
	}
	now := time.Now()
	stopped := run.Err() != nil
	d.mu.Lock()
	e := d.book.byID[t.info.ID]
	if e != nil {
		e.dialSince = time.Time{}
	}
	var text string
	switch {
	case stopped:
	case err != nil:
		var reason string
		reason, text = dialReason(err, t.info.Addrs)
		d.failures[reason]++
		d.yield[t.source].Failed++
		if e != nil {
			e.failed(now, text, len(d.host.Network().Peers()) == 0)
			e.dark = !e.lostAt.IsZero() && (reason == reasonTimeout || reason == reasonUnreachable)
		}
		if t.static {
			d.askAgainLocked(t.info.ID, now)
		}
	default:
		d.yield[t.source].Connected++
		delete(d.queried, t.info.ID) // if the DHT was the first, it is ours from now on
		if e != nil {
			e.connected(start, now)
		}
	}
	d.mu.Unlock()
	switch {
	case err == nil:
		d.host.ConnManager().Protect(t.info.ID, protectTag)
	case !stopped:
		d.log.Debug("dial failed", slog.String("peer", t.info.ID.String()), slog.String("source", string(t.source)), slog.String("reason", text))
	}
	d.poke()
}

// errRelayedOnly says that a peer was reached through a relay and not directly.
var errRelayedOnly = errors.New("reached through a relay, but no hole could be punched")

// awaitDirect waits until a peer that was reached through a relay has made a direct connection with us, which it tries by
// itself, and ends the relayed one if it does not: nothing of ours runs over that.
func (d *Discovery) awaitDirect(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, d.punchFor)
	defer cancel()
	for !d.direct(id) {
		if d.host.Network().Connectedness(id) != network.NotConnected && sleep(ctx, punchLook) {
			continue
		}
		for _, c := range d.host.Network().ConnsToPeer(id) {
			if overRelay(c) {
				_ = c.Close()
			}
		}
		if d.direct(id) { // at the last moment
			break
		}
		return errRelayedOnly
	}
	return nil
}

// direct says whether a peer is connected, and not through a relay only.
func (d *Discovery) direct(id peer.ID) bool {
	return slices.ContainsFunc(d.host.Network().ConnsToPeer(id), func(c network.Conn) bool { return !overRelay(c) && !c.IsClosed() })
}

// overRelay says whether a connection runs through a relay, whatever limits that one has.
func overRelay(c network.Conn) bool { return c.Stat().Limited || isRelay(c.RemoteMultiaddr()) }

// Reasons that say that nobody is there.
const (
	reasonTimeout     = "timeout"
	reasonUnreachable = "unreachable"
)

// dialReason gives a failure a name out of a small set, for counting, and a text
// for the operator.
func dialReason(err error, addrs []ma.Multiaddr) (reason, text string) {
	reason, where := "other", ""
	if len(addrs) > 0 {
		where = hostPort(addrs[0]) + " "
	}
	var mismatch sec.ErrPeerIDMismatch
	var transport *swarm.TransportError
	var timeout net.Error
	if errors.As(err, &transport) && transport.Address != nil {
		where = hostPort(transport.Address) + " "
	}
	switch {
	case errors.Is(err, errRelayedOnly):
		reason, text = "relayed_only", errRelayedOnly.Error()
	case errors.As(err, &mismatch):
		reason, text = "wrong_peer_id", "answers as another peer id"
	case errors.Is(err, syscall.ECONNREFUSED):
		reason, text = "refused", "connection refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		reason, text = reasonUnreachable, "no route"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		reason, text = "resource_limit", "our own resource limit"
	case errors.Is(err, swarm.ErrGaterDisallowedConnection):
		reason, text = "gated", "blocked by us"
	case errors.Is(err, swarm.ErrNoAddresses), errors.Is(err, swarm.ErrNoGoodAddresses), errors.Is(err, swarm.ErrNoTransport):
		reason, text = "no_address", "no address that we can dial"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		reason, text = reasonTimeout, "timed out"
	case transport != nil && transport.Cause != nil:
		text = shorten(transport.Cause.Error())
	default:
		text = cause(err)
	}
	return reason, where + text
}

// cause shortens an error to its innermost reason.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return shorten(err.Error())
		}
		err = inner
	}
}

// shorten bounds a text that may come from afar.
func shorten(s string) string {
	if len(s) > maxReasonBytes {
		return strings.ToValidUTF8(s[:maxReasonBytes], "") + "…"
	}
	return s
}

// feelerLoop dials, every FeelerInterval, one peer: the holder of a place that another peer
// would take, or, on public networks, one that was never reached, so that the book
// holds peers that answer.
func (d *Discovery) feelerLoop(ctx context.Context) {
	ticker := time.NewTicker(d.opts.FeelerInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t, ok := d.pickFeeler(time.Now())
		if !ok {
			continue
		}
		d.dial(ctx, t)
		d.letGo(ctx, t.info.ID)
	}
}

func (d *Discovery) pickFeeler(now time.Time) (target, bool) {
	l := d.links()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.book.settleTests(now, func(id peer.ID) bool { _, ok := l.peers[id]; return ok })
	if l.counted < d.opts.MaxOutbound || d.opts.MaxOutbound == 0 {
		return target{}, false // below the target the dial loop tries them anyhow
	}
	for _, t := range d.book.tests {
		if e := d.book.byID[t.holder]; e != nil && e.dialSince.IsZero() && !e.lastTry.After(t.since) && !d.avoidedLocked(e.id, now) {
			d.feelers++
			return d.startLocked(e, now), true
		}
	}
	var all []*entry
	for _, e := range d.book.byID {
		_, connected := l.peers[e.id]
		if d.opts.Private || connected || e.tried() || e.static || !e.dialSince.IsZero() || d.avoidedLocked(e.id, now) || len(direct(e.addrs)) == 0 ||
			e.tries+e.flaps > 0 && now.Sub(e.lastTry) < e.wait(false) {
			continue
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return target{}, false
	}
	t := d.startLocked(all[rand.IntN(len(all))], now)
	d.feelers++
	return t, true
}
