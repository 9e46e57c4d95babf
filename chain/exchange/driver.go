package exchange

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/ibd"
)

const (
	maxPulls        = 8               // header pulls at once, near the tip
	nearHeaders     = MaxHeaders      // a peer ahead by no more than this is asked besides others
	pullSlow        = 3 * time.Second // without progress of the pulls, another peer is asked too
	pullLeast       = 2000            // new headers a second are progress
	probeEvery      = 5 * time.Second // between questions to a peer whether it agrees with a pull under way
	retryPull       = 5 * time.Second // before a peer whose claim did not come true is asked again; doubles
	maxWishes       = 256             // remembered hashes of FetchFrom
	wishAgain       = 30 * time.Second
	tickEvery       = 100 * time.Millisecond
	maxHysteresis   = 10 * time.Second // a synced node may be a block or two behind for so long
	hysteresisGap   = 2
	firstFetchGap   = 3 // blocks that gossip may be about to bring
	maxRetargetGap  = 2 * time.Second
	maxPullFailures = 3                // in a row: the peer is of no use
	maxIdle         = 2                // pulls in a row without a new header, from which on a claim is in doubt
	refusedAgain    = 5 * time.Second  // before a block that may become valid is fetched again
	aheadAgain      = time.Second      // before a peer is asked again whose headers are too far ahead
	deepAgain       = 30 * time.Second // before a peer on a refused branch is asked again; doubles, to deepMost
	deepMost        = 5 * time.Minute
)

// Events of the loop, besides blockEvents, pullProgress, pulled, verdictEvent,
// troubleEvent and besideEvent.
type (
	peerReady struct{ r *remote }
	peerGone  struct{ r *remote }
	peerTip   struct{ r *remote }
	wish      struct {
		from peer.ID
		hash chainhash.Hash
	}
)

// driver feeds the scheduler and performs what it decides. All but post, wish
// and snapshot belongs to the goroutine of run.
type driver struct {
	x      *Exchange
	sched  *ibd.Scheduler
	feed   *feeder
	events chan any
	wishes chan wish

	peers  map[ibd.PeerID]*peerSync
	held   map[heldKey][]byte // blocks that the scheduler has not delivered
	wished map[chainhash.Hash]time.Time
	pace   *rate.Limiter // of wishes
	ready  bool          // the chain takes blocks

	sealed     bool      // headers cost nothing: stake makes blocks
	followedAt time.Time // when the branch of best began to be followed
	unnamed    time.Time // when a branch that no peer claims was followed last

	best      chain.Tip // of the last Target
	targeted  bool      // there was one
	bestMoved bool      // a Target is due at targetAt
	targetAt  time.Time
	newsAt    time.Time      // the best header chain changed
	connected int32          // told to the scheduler
	stored    int32          // highest height whose verdict was that it is stored
	gaps      map[int32]bool // heights above connected whose block was refused and is not here yet; at most a window

	pulls     int
	pullCut   time.Time // the latest that made room
	pullMoved time.Time // the pulls brought new headers at a fair rate, or one began

	storing bool // one of the pulls under way has brought new headers

	withheld    map[chainhash.Hash]*withheldBlock // while there is one on the best header chain, see goal
	withholders int                               // peers that withhold one
	beside      int                               // fetches of withheld blocks under way
	gained      time.Time                         // a block was validated or stored, or the target is new
	bytesAt     time.Time                         // a byte of a block came

	accepted int64 // reorganisations that an operator accepted, of those who were asked since

	received atomic.Int64 // bytes of blocks
	trouble  error        // why the chain takes no blocks
	story    *story

	mu     sync.Mutex // guards status, held for a copy
	status SyncStatus
}

// peerSync is what the loop knows of a peer.
type peerSync struct {
	r         *remote
	tip       TipInfo
	tipAt     time.Time      // when tip last changed
	greeting  bool           // tip is from the hello: gossip will not bring it
	common    chainhash.Hash // highest header known to be on its chain
	pulling   bool
	pullTip   chainhash.Hash // tip when the latest pull began
	cut       func()         // ends the pull under way; nil: none, or it was called
	shown     int            // headers that the latest pull brought
	turn      time.Time      // when its latest pull began that was no probe, or it connected
	idle      int            // pulls in a row that were left, or ended, behind others without a new header
	doubts    int            // pulls in a row that ended well without what it claims
	failures  int            // pulls in a row that failed
	notBefore time.Time      // no pull until then
	pullBegan time.Time      // the latest
	agreed    time.Time      // when a probe found it on the best header chain
	wished    bool           // a wish wants its headers, whatever its tip
	ahead     bool           // it has more headers than are taken before blocks have followed
	deep      int            // pulls in a row that found it on a branch that the chain does not go over to
	withholds int            // blocks that it claims to have and did not hand out
	fetching  bool           // a withheld block is being fetched from it
	asked     int            // for withheld blocks
	followed  time.Time      // when its branch was followed last, or it connected
	told      bool           // low, high and rtt went to the scheduler
	low, high int32
	rtt       time.Duration
}

type heldKey struct {
	peer   ibd.PeerID
	id     ibd.RequestID
	height int32
}

func newDriver(x *Exchange, sched *ibd.Scheduler) *driver {
	return &driver{
		x: x, sched: sched, feed: newFeeder(x),
		events:   make(chan any, 256),
		wishes:   make(chan wish, 64),
		peers:    make(map[ibd.PeerID]*peerSync),
		held:     make(map[heldKey][]byte),
		gaps:     make(map[int32]bool),
		wished:   make(map[chainhash.Hash]time.Time),
		withheld: make(map[chainhash.Hash]*withheldBlock),
		sealed:   x.o.Chain.Params().SealBytes > 0,
		pace:     rate.NewLimiter(4, 16),
		story:    newStory(&x.o, x.log),
		status:   SyncStatus{State: Starting},
	}
}

// post hands an event to the loop. It blocks while the loop is behind.
func (d *driver) post(ctx context.Context, e any) {
	select {
	case d.events <- e:
	case <-ctx.Done():
	}
}

// wish never blocks: what does not fit is dropped, tips heal it.
func (d *driver) wish(w wish) {
	select {
	case d.wishes <- w:
	default:
	}
}

func (d *driver) snapshot() SyncStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// run is the event loop. It performs no I/O and never waits for a peer or the
// pipeline.
func (d *driver) run(ctx context.Context) {
	d.x.tasks.Go(func() { d.feed.run(ctx) })
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	now := d.x.o.Now()
	d.story.begin(now)
	chainReady := d.x.o.Chain.Ready()
	var bestMoved, tipMoved <-chan struct{} // nil until the chain is ready
	for {
		select {
		case <-ctx.Done():
			return
		case <-chainReady:
			chainReady = nil
			d.ready = true
			_, bestMoved = d.x.o.Chain.BestHeader()
			_, tipMoved = d.x.o.Chain.Tip()
			d.retarget(ctx)
		case <-bestMoved:
			_, bestMoved = d.x.o.Chain.BestHeader()
			d.onBest(ctx)
		case <-tipMoved:
			_, tipMoved = d.x.o.Chain.Tip()
			d.onTip(ctx)
		case e := <-d.events:
			d.handle(ctx, e)
		case w := <-d.wishes:
			d.onWish(ctx, w)
		case <-tick.C:
			d.onTick(ctx)
		}
	}
}

func (d *driver) handle(ctx context.Context, e any) {
	switch e := e.(type) {
	case peerReady:
		d.onReady(ctx, e.r)
	case peerTip:
		d.onPeerTip(ctx, e.r)
	case peerGone:
		d.onGone(ctx, e.r)
	case blockEvents:
		d.onBlocks(ctx, e)
	case pullProgress:
		d.onPullProgress(ctx, e)
	case pulled:
		d.onPulled(ctx, e)
	case verdictEvent:
		d.onVerdict(ctx, e)
	case troubleEvent:
		d.onTrouble(e.err)
	case besideEvent:
		d.onBeside(ctx, e)
	}
}

// step gives the scheduler an event and performs its actions. An action that
// cannot be performed becomes the next event.
func (d *driver) step(ctx context.Context, e ibd.Event) {
	next := []ibd.Event{e}
	for len(next) > 0 {
		e, next = next[0], next[1:]
		for _, a := range d.sched.Step(d.x.o.Now(), e) {
			if back := d.perform(ctx, a); back != nil {
				next = append(next, back)
			}
		}
	}
}

func (d *driver) perform(ctx context.Context, a ibd.Action) ibd.Event {
	switch a := a.(type) {
	case ibd.Request:
		last, ok := d.x.o.Chain.Ancestor(d.best.Hash, a.Start+int32(a.Count)-1)
		p := d.peers[a.Peer]
		if !ok || p == nil || !p.r.blocks.add(&ask{id: a.ID, req: blocksRequest{
			Start: a.Start, Count: a.Count, Last: last, MaxBytes: a.MaxBytes,
		}}) {
			return ibd.Done{Peer: a.Peer, ID: a.ID, Status: ibd.Failed}
		}
	case ibd.Cancel:
		if p := d.peers[a.Peer]; p == nil || p.r.blocks.withdraw(func(k *ask) bool { return k.id == a.ID }) {
			return ibd.Done{Peer: a.Peer, ID: a.ID, Status: ibd.Failed}
		}
	case ibd.Deliver:
		k := heldKey{a.Peer, a.ID, a.Height}
		raw := d.held[k]
		delete(d.held, k)
		d.feed.push(feedItem{peer: string(a.Peer), height: a.Height, raw: raw, old: max(d.best.Height, d.status.Target)-a.Height > 1})
	case ibd.Discard:
		delete(d.held, heldKey{a.Peer, a.ID, a.Height})
	case ibd.Drop:
		if p := d.peers[a.Peer]; p != nil && d.x.remote(p.r.id) == p.r {
			d.x.tasks.Go(func() { d.x.blame(p.r.id, a.Reason) })
		}
	case ibd.Stalled:
		d.late(a)
	}
	return nil
}

// Peers.

func (d *driver) onReady(ctx context.Context, r *remote) {
	tip, _ := r.lastTip()
	d.peers[ibd.PeerID(r.id)] = &peerSync{r: r, tip: tip, tipAt: d.x.o.Now(), turn: d.x.o.Now(), followed: d.x.o.Now(), greeting: true}
	d.tellPeer(ctx, d.peers[ibd.PeerID(r.id)])
	d.considerPulls(ctx)
}

func (d *driver) onPeerTip(ctx context.Context, r *remote) {
	p := d.peers[ibd.PeerID(r.id)]
	if p == nil || p.r != r {
		return
	}
	if tip, _ := r.lastTip(); tip.Hash != p.tip.Hash || tip.Lowest != p.tip.Lowest {
		p.tip, p.tipAt, p.greeting = tip, d.x.o.Now(), false
	}
	d.tellPeer(ctx, p)
	d.considerPulls(ctx)
}

func (d *driver) onGone(ctx context.Context, r *remote) {
	p := d.peers[ibd.PeerID(r.id)]
	if p == nil || p.r != r {
		return
	}
	d.withholding(p, 0)
	delete(d.peers, ibd.PeerID(r.id))
	if p.told {
		d.step(ctx, ibd.PeerGone{Peer: ibd.PeerID(r.id)})
	}
	d.considerPulls(ctx)
}

// tellPeer tells the scheduler which heights of the best header chain a peer serves.
func (d *driver) tellPeer(ctx context.Context, p *peerSync) {
	if !d.targeted || p.r.hello.Services&ServeBlocks == 0 {
		return
	}
	_, rtt := p.r.lastTip()
	low, high := p.tip.Lowest, d.serves(p)
	if p.told && p.low == low && p.high == high && p.rtt == rtt {
		return
	}
	p.told, p.low, p.high, p.rtt = true, low, high, rtt
	d.step(ctx, ibd.PeerTip{Peer: ibd.PeerID(p.r.id), Low: low, High: high, RTT: rtt})
}

// serves is the highest block of the best header chain that a peer has.
func (d *driver) serves(p *peerSync) int32 {
	c := d.x.o.Chain
	if p.fetching {
		return 0
	}
	if headerKnown(c, p.tip.Hash) {
		p.common = p.tip.Hash
		_, height, _ := c.Fork(p.tip.Hash, d.best.Hash)
		return height
	}
	// A tip that we do not know yet with more work most likely extends what we
	// know; if it does not, the peer answers not found.
	if p.deep == 0 && p.tip.Work.Cmp(d.best.Work) > 0 && !d.elsewhere(p) {
		return min(p.tip.Height, d.best.Height)
	}
	if p.common != (chainhash.Hash{}) {
		_, height, _ := c.Fork(p.common, d.best.Hash)
		return height
	}
	return 0
}

// elsewhere says whether the headers that a peer sent lie beside the target.
func (d *driver) elsewhere(p *peerSync) bool {
	if !d.sealed || p.common == (chainhash.Hash{}) {
		return false
	}
	s, ok := d.x.o.Chain.Status(p.common)
	if !ok {
		return false
	}
	_, height, ok := d.x.o.Chain.Fork(p.common, d.best.Hash)
	return ok && height < min(s.Height, d.best.Height)
}

// Target.

func (d *driver) onBest(ctx context.Context) {
	now := d.x.o.Now()
	d.newsAt = now
	best := d.goal()
	tip, _ := d.x.o.Chain.Tip()
	at := d.targetAt
	// A header or two that no pull of ours brought come with their blocks: gossip, a
	// miner or an operator is submitting them. Only if they do not connect soon are they fetched.
	if d.pulls == 0 && d.story.state == Synced && best.Height-tip.Height <= firstFetchGap && best.Hash != tip.Hash {
		at = now.Add(d.x.o.TipGrace)
	}
	if !d.bestMoved || at.Before(d.targetAt) {
		d.bestMoved = true
		if at.After(d.targetAt) {
			d.targetAt = at
		}
	}
	if !d.targetAt.After(now) && !d.awaitsWork(now) {
		d.retarget(ctx)
	}
}

// awaitsWork reports whether the next block of the best header chain is being put
// together here from what gossip brought: to fetch it as well would double what it
// costs. After WorkGrace it is fetched all the same.
func (d *driver) awaitsWork(now time.Time) bool {
	if d.story.state != Synced || now.Sub(d.newsAt) >= d.x.o.WorkGrace {
		return false
	}
	c := d.x.o.Chain
	best := d.goal()
	tip, _ := c.Tip()
	if best.Height-tip.Height > firstFetchGap {
		return false
	}
	for height := tip.Height + 1; height <= best.Height; height++ {
		hash, ok := c.Ancestor(best.Hash, height)
		if !ok {
			return false
		}
		if s, _ := c.Status(hash); !s.HaveBlock {
			_, changed := d.x.o.Pending.Block(hash)
			return changed != nil
		}
	}
	return false
}

// retarget tells the scheduler what to download.
func (d *driver) retarget(ctx context.Context) {
	if !d.ready {
		return
	}
	c := d.x.o.Chain
	started := time.Now()
	best := d.goal()
	tip, _ := c.Tip()
	_, base, ok := c.Fork(tip.Hash, best.Hash)
	if !ok { // it was forgotten just now: the next tick finds another
		d.bestMoved = true
		return
	}
	keep := base
	if d.targeted {
		_, keep, _ = c.Fork(d.best.Hash, best.Hash)
	}
	c.Follow(best.Hash) // before Have: from then on none of its blocks makes way for others
	t := ibd.Target{Base: base, Best: best.Height, Keep: keep}
	if base < best.Height {
		t.Have = c.Have(best.Hash, base, best.Height)
	}
	// More headers on the same branch do not make up for its next block.
	if best.Hash != d.best.Hash && (keep <= d.connected || base > d.connected) {
		d.gained = d.x.o.Now()
	}
	other := best.Hash != d.best.Hash && keep < d.best.Height || !d.targeted || d.connected >= d.best.Height
	d.best, d.targeted, d.bestMoved, d.connected = best, true, false, base
	if d.sealed && other {
		d.nowFollowed()
	}
	maps.DeleteFunc(d.gaps, func(h int32, _ bool) bool { return h <= base || h > keep })
	if d.stored > keep {
		d.stored = base // Have says the rest
	}
	d.step(ctx, t)
	for _, p := range d.sorted() {
		d.tellPeer(ctx, p)
	}
	// While headers stream in, Targets may not cost more than a tenth of the time.
	d.targetAt = d.x.o.Now().Add(min(10*time.Since(started), maxRetargetGap))
}

func (d *driver) onTip(ctx context.Context) {
	tip, _ := d.x.o.Chain.Tip()
	if !d.targeted {
		return
	}
	// Blocks also connect that nobody delivered here, from gossip or from disk.
	if _, h, ok := d.x.o.Chain.Fork(tip.Hash, d.best.Hash); ok && h > d.connected {
		d.connected, d.gained = h, d.x.o.Now()
		d.step(ctx, ibd.Connected{Height: h})
	}
	if d.story.syncing && tip.Hash == d.best.Hash {
		d.tell(ctx, d.x.o.Now())
	}
}

// Blocks.

func (d *driver) onBlocks(ctx context.Context, e blockEvents) {
	id := ibd.PeerID(e.from.id)
	for _, b := range e.list {
		switch {
		case b.done:
			d.step(ctx, ibd.Done{Peer: id, ID: b.id, Status: b.status, Size: b.size})
		case b.raw != nil:
			k := heldKey{id, b.id, b.height}
			d.held[k] = b.raw
			d.step(ctx, ibd.Block{Peer: id, ID: b.id, Height: b.height, Size: int64(len(b.raw))})
		default:
			d.received.Add(b.n)
			d.bytesAt = d.x.o.Now()
			d.step(ctx, ibd.Bytes{Peer: id, ID: b.id, N: b.n})
		}
	}
}

func (d *driver) onVerdict(ctx context.Context, e verdictEvent) {
	v := &e.verdict
	at, ok := d.x.o.Chain.Ancestor(d.best.Hash, e.height)
	if wanted := ok && at == e.hash; !wanted {
		// The target has moved to another branch meanwhile.
		if v.Outcome == chain.Refused {
			d.blameClaimants(ctx, e)
		}
		return
	}
	switch v.Outcome {
	case chain.Connected:
		d.connectedTo(ctx, e.height)
	case chain.SideChain, chain.Stored:
		d.gained = d.x.o.Now()
		d.storedAt(ctx, e.height)
	case chain.Duplicate:
		if s, _ := d.x.o.Chain.Status(v.Hash); s.Active {
			d.connectedTo(ctx, e.height)
		} else {
			d.storedAt(ctx, e.height)
		}
	case chain.Refused:
		d.onRefused(ctx, e)
	default: // the chain lost it without a verdict
		d.rejected(ctx, ibd.Rejected{Height: e.height, Refetch: true})
	}
}

// rejected has a block asked for again: until it is here, what lies above it is
// stored, but not everything up to there.
func (d *driver) rejected(ctx context.Context, e ibd.Rejected) {
	if e.Height > d.connected {
		d.gaps[e.Height] = true
	}
	d.step(ctx, e)
}

// storedAt tells the scheduler up to where all blocks are on disk, now that the
// one at height is.
func (d *driver) storedAt(ctx context.Context, height int32) {
	delete(d.gaps, height)
	d.stored = max(d.stored, height)
	to := d.stored
	for gap := range d.gaps {
		to = min(to, gap-1)
	}
	if to > d.connected {
		d.step(ctx, ibd.Stored{Height: to})
	}
}

func (d *driver) connectedTo(ctx context.Context, height int32) {
	maps.DeleteFunc(d.gaps, func(h int32, _ bool) bool { return h <= height })
	if height > d.connected {
		d.connected, d.gained = height, d.x.o.Now()
		d.step(ctx, ibd.Connected{Height: height})
	}
}

func (d *driver) onRefused(ctx context.Context, e verdictEvent) {
	var rule *consensus.RuleError
	errors.As(e.verdict.Err, &rule)
	switch {
	case rule == nil:
		d.rejected(ctx, ibd.Rejected{Height: e.height, Refetch: true})
	case rule.Blame == consensus.BlameSender:
		d.rejected(ctx, ibd.Rejected{Height: e.height, BlameSender: true})
	default:
		d.step(ctx, ibd.Rejected{Height: e.height})
		d.blameClaimants(ctx, e)
		// The chain has another best header now, or the block may become valid later.
		d.bestMoved = true
		best, _ := d.x.o.Chain.BestHeader()
		if at, ok := d.x.o.Chain.Ancestor(best.Hash, e.height); ok && at == e.hash {
			d.targetAt = d.x.o.Now().Add(refusedAgain)
			d.gained = d.targetAt // that nothing comes until then is our doing
		}
	}
}

// blameClaimants blames whoever says that its validated chain holds a block
// that is invalid for ever: it follows other rules, whether or not it sent it.
func (d *driver) blameClaimants(ctx context.Context, e verdictEvent) {
	var rule *consensus.RuleError
	if !errors.As(e.verdict.Err, &rule) || rule.Blame != consensus.BlameBlock {
		return
	}
	for _, p := range d.sorted() {
		if d.claims(p, e.height, e.hash) {
			r := p.r
			d.x.tasks.Go(func() {
				if ctx.Err() == nil && d.x.remote(r.id) == r {
					d.x.blame(r.id, "its chain holds an invalid block: "+rule.Error())
				}
			})
		}
	}
}

func (d *driver) onTrouble(err error) {
	if err != nil && d.trouble == nil {
		d.x.log.Error("chain takes no blocks", "err", err)
	}
	d.trouble = err
}

// Headers.

// considerPulls starts pulls of headers from peers that say they have a better
// chain: several near the tip, one at a time while there is much to fetch, unless
// that one is slow or stores nothing. While it goes on every other such peer is
// asked for one header, to see whether it is on the same branch; if it is not, it is
// pulled from as well, so that nobody can lead us up a branch of its own for long.
// While all pulls are taken and another peer waits, the slowest is ended now and then.
func (d *driver) considerPulls(ctx context.Context) {
	if !d.ready {
		return
	}
	now := d.x.o.Now()
	best, _ := d.x.o.Chain.BestHeader()
	tip, _ := d.x.o.Chain.Tip()
	// On a branch that was left blocks do not follow: others may have room.
	full := !d.sealed && best.Hash != tip.Hash && d.x.o.Chain.HeaderLimit()-best.Height < MaxHeaders && !d.lacks(best.Hash)
	if n := d.x.o.Chain.ReorgsAccepted(); n != d.accepted {
		d.accepted = n
		for _, p := range d.peers {
			if p.deep > 0 {
				p.deep, p.notBefore = 0, now
			}
		}
	}
	for _, p := range d.peers { // one that has left such a branch need not wait
		if p.deep == 0 || p.pulling {
			continue
		}
		if s, ok := d.x.o.Chain.Status(p.tip.Hash); ok && !s.Refused {
			p.deep, p.notBefore = 0, now
		}
	}
	var least *big.Int
	var candidates []*peerSync
	for _, p := range d.sorted() {
		if p.ahead && (full || d.sealed && d.fullOf(p, tip, best)) {
			continue // it would only send what is known
		}
		if !p.pulling && !now.Before(p.notBefore) && (p.wished || d.wants(p, &best, now)) {
			if least == nil {
				least = d.x.o.Chain.LeastWork()
			}
			if p.tip.Work.Cmp(least) < 0 && !p.wished {
				continue // by its own account it has nothing that would be kept
			}
			candidates = append(candidates, p)
		}
	}
	slices.SortStableFunc(candidates, comparePulls)
	for _, p := range candidates {
		near := p.wished || p.tip.Height-best.Height <= nearHeaders
		slow := now.Sub(d.pullMoved) > pullSlow
		whole := d.pulls == 0 || near || slow
		switch {
		case !whole && (!d.storing || now.Sub(p.agreed) < probeEvery):
		case d.pulls >= maxPulls:
			d.cutPull(now)
			return
		default:
			d.startPull(ctx, p, !whole)
		}
	}
}

// comparePulls orders the peers that headers could be asked of. Who waits longest
// comes first, as claims are free: peers that bring nothing, however many, and
// however much they claim, take turns with the others. One that has brought nothing
// before, or not what it claimed, is taken to have waited less.
func comparePulls(a, b *peerSync) int {
	if a.wished != b.wished {
		if a.wished {
			return -1
		}
		return 1
	}
	turn := func(p *peerSync) time.Time {
		return p.turn.Add(time.Duration(min(p.doubts+p.failures+p.idle, 8)) * retryPull)
	}
	return cmp.Or(turn(a).Compare(turn(b)), b.tip.Work.Cmp(a.tip.Work), cmp.Compare(a.rtt, b.rtt))
}

// fullOf says whether of a peer's branch as many headers are here as are taken before
// blocks have followed, but for less than a reply.
func (d *driver) fullOf(p *peerSync, tip, best chain.Tip) bool {
	c := d.x.o.Chain
	s, ok := c.Status(p.common)
	if !ok || s.Active {
		return false
	}
	_, off, _ := c.Fork(tip.Hash, best.Hash)
	_, at, _ := c.Fork(tip.Hash, p.common)
	return at+c.HeaderLimit()-off-s.Height < MaxHeaders
}

// cutPull ends the slowest of the pulls under way so that another peer can be
// asked, if one is slow. The one that has brought most goes on whatever its rate: if
// our own link is slow, all are, and one must come to its end.
func (d *driver) cutPull(now time.Time) {
	if now.Sub(d.pullCut) < pullSlow {
		return
	}
	var most, slowest *peerSync
	var least float64
	pulling := slices.DeleteFunc(d.sorted(), func(p *peerSync) bool { return p.cut == nil })
	for _, p := range pulling {
		if most == nil || p.shown > most.shown {
			most = p
		}
	}
	for _, p := range pulling {
		took := now.Sub(p.pullBegan)
		rate := float64(p.shown) / max(took, 1).Seconds()
		if p != most && took > pullSlow && rate < pullLeast && (slowest == nil || rate < least) {
			slowest, least = p, rate
		}
	}
	if slowest != nil {
		d.pullCut = now
		slowest.cut()
		slowest.cut = nil
	}
}

// wants reports whether the headers of a peer's tip are worth asking for.
func (d *driver) wants(p *peerSync, best *chain.Tip, now time.Time) bool {
	if headerKnown(d.x.o.Chain, p.tip.Hash) {
		return false
	}
	// A block that is being flooded overtakes nothing: give gossip its chance.
	if !p.greeting && d.story.state == Synced && p.tip.Height-best.Height <= firstFetchGap && now.Sub(p.tipAt) < d.x.o.TipGrace {
		return false
	}
	return true
}

func (d *driver) startPull(ctx context.Context, p *peerSync, probe bool) {
	now := d.x.o.Now()
	p.pulling, p.wished, p.ahead, p.pullTip, p.pullBegan = true, false, false, p.tip.Hash, now
	if d.pulls++; d.pulls == 1 {
		d.storing = false
	}
	if !probe {
		d.pullMoved, p.turn = now, now
	}
	within, cut := context.WithCancel(ctx)
	p.cut, p.shown = cut, 0
	d.tell(ctx, now) // a short sync is over before the next tick
	r, common := p.r, chainhash.Hash{}
	if d.sealed { // the best header chain may be far from the peer's
		common = p.common
	}
	d.x.tasks.Go(func() {
		defer cut()
		res := d.x.pull(within, r, common, probe, func(e pullProgress) { d.post(ctx, e) })
		if res.blame != "" && within.Err() == nil {
			d.x.blame(r.id, res.blame)
		}
		d.post(ctx, res)
	})
}

func (d *driver) onPullProgress(ctx context.Context, e pullProgress) {
	now := d.x.o.Now()
	d.story.progressed(now)
	p := d.peers[ibd.PeerID(e.from.id)]
	if p == nil || p.r != e.from {
		return
	}
	if e.last != (chainhash.Hash{}) {
		p.common = e.last
	}
	p.shown = e.shown
	if e.added > 0 && float64(e.added) >= pullLeast*now.Sub(p.pullBegan).Seconds() {
		d.pullMoved = now
	}
	if e.added > 0 && !d.storing {
		d.storing = true
		d.considerPulls(ctx)
	}
}

func (d *driver) onPulled(ctx context.Context, e pulled) {
	d.pulls--
	now := d.x.o.Now()
	if p := d.peers[ibd.PeerID(e.from.id)]; p != nil && p.r == e.from {
		wasCut := p.cut == nil
		p.pulling, p.cut = false, nil
		if e.added > 0 {
			p.idle = 0
		}
		if e.last != (chainhash.Hash{}) {
			p.common = e.last
		}
		if e.tip.Work != nil && e.tip.Work.Cmp(p.tip.Work) > 0 {
			p.tip, p.tipAt = e.tip, now
		}
		if !tooDeep(e.err) {
			p.deep = 0
		}
		switch {
		case tooDeep(e.err):
			// It is no source, and not to blame: it may have been on the other side of a
			// network cut in two. What it has beside our chain is not fetched.
			p.doubts, p.failures, p.idle = 0, 0, 0
			p.notBefore = now.Add(min(deepAgain<<min(p.deep, 8), deepMost))
			p.deep++
		case tooFar(e.err), e.ahead && e.err == nil:
			// It is asked on when blocks have followed.
			p.doubts, p.failures, p.idle = 0, 0, 0
			p.ahead = true
			if e.added == 0 {
				p.notBefore = now.Add(tickEvery)
				if len(d.withheld) > 0 { // then also those are asked who may have nothing new
					p.notBefore = now.Add(aheadAgain)
				}
			}
		case e.added == 0 && (e.behind || wasCut && e.err != nil):
			// Others are faster, or it sends for ever what is known. It will be asked
			// what they do not bring, but not at once.
			p.idle++
			p.notBefore = now.Add(retryPull << min(p.idle-1, 6))
		case headerKnown(d.x.o.Chain, p.pullTip):
			p.doubts, p.failures, p.idle = 0, 0, 0
		case e.agrees:
			p.agreed = now
		case e.behind: // it will be asked what the others do not bring
		case wasCut && e.err != nil:
			p.notBefore = now.Add(retryPull)
		case noRoom(e.err), unknownParent(e.err):
			p.notBefore = now.Add(retryPull)
		case e.err == nil || tooLittleWork(e.err):
			// It did not bring what it claimed: it was on another branch by then, or
			// it lies. The more often, the later it is asked again, and after that it
			// is left.
			p.doubts++
			p.notBefore = now.Add(retryPull << min(p.doubts-1, 6))
			if p.doubts >= maxPullFailures && e.blame == "" && ctx.Err() == nil {
				d.x.tasks.Go(func() { d.x.disconnect(e.from.id, "its headers end before the chain that it claims to have") })
			}
		default:
			p.failures++
			p.notBefore = now.Add(retryPull << min(p.failures-1, 6))
			if p.failures >= maxPullFailures && e.blame == "" && ctx.Err() == nil {
				d.x.tasks.Go(func() { d.x.disconnect(e.from.id, "does not send the headers it claims to have") })
			}
		}
		if e.err != nil {
			d.x.log.Debug("headers pull failed", "peer", e.from.id, "err", e.err)
		}
	}
	if best := d.goal(); best.Hash != d.best.Hash {
		d.targetAt = now // ours: no grace
		d.retarget(ctx)
	} else if p := d.peers[ibd.PeerID(e.from.id)]; p != nil {
		d.tellPeer(ctx, p)
	}
	d.considerPulls(ctx)
}

// wishAnew says whether a hash is to be asked for now, and remembers that it is: not so soon again, nor more than the pace allows.
func (d *driver) wishAnew(hash chainhash.Hash, now time.Time) bool {
	if at, ok := d.wished[hash]; ok && now.Sub(at) < wishAgain {
		return false
	}
	if !d.pace.AllowN(now, 1) {
		return false
	}
	if len(d.wished) >= maxWishes {
		maps.DeleteFunc(d.wished, func(_ chainhash.Hash, at time.Time) bool { return now.Sub(at) >= wishAgain })
		if len(d.wished) >= maxWishes {
			clear(d.wished)
		}
	}
	d.wished[hash] = now
	return true
}

func (d *driver) onWish(ctx context.Context, w wish) {
	now := d.x.o.Now()
	if headerKnown(d.x.o.Chain, w.hash) {
		return
	}
	if !d.wishAnew(w.hash, now) {
		return
	}
	// The sender first, then those with most work.
	ps := d.sorted()
	slices.SortStableFunc(ps, func(a, b *peerSync) int {
		if (a.r.id == w.from) != (b.r.id == w.from) {
			if a.r.id == w.from {
				return -1
			}
			return 1
		}
		return b.tip.Work.Cmp(a.tip.Work)
	})
	for _, p := range ps[:min(len(ps), maxPulls)] {
		p.wished = true
	}
	d.considerPulls(ctx)
}

// Time.

func (d *driver) onTick(ctx context.Context) {
	now := d.x.o.Now()
	if d.ready {
		d.watchFront(ctx, now)
		if d.bestMoved && !now.Before(d.targetAt) && !d.awaitsWork(now) {
			d.retarget(ctx)
		}
		d.considerPulls(ctx)
		if d.targeted {
			d.step(ctx, ibd.Tick{})
		}
	}
	d.tell(ctx, now)
}

// sorted lists the peers by id, so that the same events lead to the same deeds.
func (d *driver) sorted() []*peerSync {
	ps := make([]*peerSync, 0, len(d.peers))
	for _, p := range d.peers {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b *peerSync) int { return cmp.Compare(a.r.id, b.r.id) })
	return ps
}

// tell shows the story what there is to see and publishes the status.
func (d *driver) tell(ctx context.Context, now time.Time) {
	v := view{
		ready: d.ready, best: d.goal(), connected: d.connected, received: d.received.Load(),
		peers: len(d.peers), pulls: d.pulls, stats: d.sched.Stats(), trouble: d.trouble, held: d.x.o.Held(),
	}
	v.tip, _ = d.x.o.Chain.Tip()
	if refused := d.x.o.Chain.Refused(); len(refused) > 0 && slices.ContainsFunc(d.sorted(), d.isDeep) {
		v.refused = &refused[0]
	}
	// The best peer whose claim is more than our headers and not in doubt. A tip whose
	// header is known is not: the tree knows its work, whatever is claimed.
	var ahead *peerSync
	for _, p := range d.sorted() {
		if p.tip.Work.Cmp(v.best.Work) > 0 && p.deep == 0 && p.doubts == 0 && p.idle < maxIdle && !headerKnown(d.x.o.Chain, p.tip.Hash) && (ahead == nil || p.tip.Work.Cmp(ahead.tip.Work) > 0) {
			ahead = p
		}
	}
	if ahead != nil {
		v.ahead = &claim{peer: ahead.r.id.String(), height: ahead.tip.Height, attempt: 1 + ahead.failures}
		v.ahead.poor = ahead.tip.Work.Cmp(d.x.o.Chain.LeastWork()) < 0
	}
	s := d.story.see(ctx, now, &v)

	d.mu.Lock()
	d.status = s
	d.mu.Unlock()
}

// isDeep says whether a peer is on a branch that the chain does not go over to. What
// such a branch claims is not checked in full: when nobody is on it, it is not news.
func (d *driver) isDeep(p *peerSync) bool {
	if p.deep > 0 {
		return true
	}
	s, ok := d.x.o.Chain.Status(p.tip.Hash)
	return ok && s.Refused
}

// late tells who held what up and who was asked.
func (d *driver) late(a ibd.Stalled) {
	x := Stall{Waited: a.Waited, Height: a.Height, Holder: peer.ID(a.Peer).String(), Attempt: a.Attempt}
	if a.Asked != "" {
		x.Asked = peer.ID(a.Asked).String()
	}
	tip, _ := d.x.o.Chain.Tip()
	d.story.late(d.x.o.Now(), tip.Height, x)
}
