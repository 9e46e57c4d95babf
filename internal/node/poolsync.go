package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/mempool"
	"dunlin/chain/relay"
)

const (
	// partnersWanted is how many peers' mempools are followed. Outbound ones are
	// preferred: whom we chose is harder to surround us with.
	partnersWanted = 2
	// pollEvery is the time between two looks at a partner's list, about.
	pollEvery = 5 * time.Second
	// settle is what gossip gets to bring what a list has before it is asked for.
	settle = 1500 * time.Millisecond
	// newestListed is how far back the list of a peer that is no partner is looked
	// at, once: only if much of that is unknown the rest is too.
	newestListed = 1000
	// muchUnknown of them is much.
	muchUnknown = 100
	// maxListed is how many transactions of one peer are taken note of in one go.
	maxListed = 100_000
	// maxLists is how many lists they may come in: some may be short, for what pays
	// too little is left out, but a peer must not keep us reading empty ones.
	maxLists = 100
	// maxToldOn is how many transactions of one go are passed on by gossip. After a
	// partition that spreads them at once; the rest spreads from list to list.
	maxToldOn = 2000
	// fetchBytes is how much is asked for at once, by the sizes that the list says.
	fetchBytes = 1 << 20
	// listTimeout and fetchTimeout are what a peer has for one answer.
	listTimeout  = 10 * time.Second
	fetchTimeout = 30 * time.Second
	// lookTimeout is what all of one go may take.
	lookTimeout = 2 * time.Minute
	// restAfterFault doubles with each in a row, up to maxRest. restAfterWaste is
	// for a peer of whose transactions, worthFetching or more, not one in ten was
	// any good.
	restAfterFault = 30 * time.Second
	maxRest        = time.Hour
	restAfterWaste = 10 * time.Minute
	worthFetching  = 50
	// maxEarly is how often in a row a list is read again because of what came too
	// early: its peer is a block or two ahead.
	maxEarly = 3
)

// A reconciler follows the mempools of some peers and fetches what gossip did not
// bring: all of it to a newcomer, what went lost on full queues, what was on the
// other side of a partition. Compact blocks need that.
type reconciler struct {
	pool interface {
		Known(ids []chainhash.Hash) []bool
		SubmitAsked(ctx context.Context, tx *wire.MsgTx, from string) ([]*wire.MsgTx, error)
		SubmitPulled(ctx context.Context, tx *wire.MsgTx, from string) ([]*wire.MsgTx, error)
	}
	peers    func() []exchange.Peer
	list     func(context.Context, peer.ID, exchange.ListQuery) (exchange.List, error)
	fetch    func(context.Context, peer.ID, []chainhash.Hash) ([][]byte, error)
	orphan   func(from peer.ID, parents []chainhash.Hash)
	synced   func() bool
	minRate  func() int64
	maxBytes int64 // fetched in one go
	log      *slog.Logger

	state map[peer.ID]*listed // of connected peers; only run's goroutine uses it
	count reconcilerCounts
}

// reconcilerCounts are for metrics.
type reconcilerCounts struct{ lists, listed, fetched, accepted atomic.Uint64 }

// listed is what is known of a peer's list.
type listed struct {
	partner    bool
	run, after uint64
	looked     bool // at least once
	next       time.Time
	faults     int
	early      int // looks in a row that brought what is not good yet
}

// run follows peers' mempools until ctx ends.
func (r *reconciler) run(ctx context.Context) error {
	if r.maxBytes == 0 {
		<-ctx.Done() // the operator does not want it
		return ctx.Err()
	}
	r.state = make(map[peer.ID]*listed)
	timer := time.NewTimer(spread(time.Second))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.synced() {
			if p := r.choose(r.peers(), time.Now()); p != "" {
				r.look(ctx, p)
			}
		}
		timer.Reset(spread(time.Second))
	}
}

// spread is d, give or take a quarter: nodes that started together drift apart.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}

// choose returns the peer whose list is due, "" if none is: of partners, and of those
// who were never looked at, the one that has waited longest. A partner that is always due
// does not keep us from the others.
func (r *reconciler) choose(peers []exchange.Peer, now time.Time) peer.ID {
	here := make(map[peer.ID]bool, len(peers))
	partners := 0
	var candidates [2][]peer.ID // outbound, inbound
	for _, p := range peers {
		if p.Services&exchange.ServeList == 0 {
			continue
		}
		here[p.ID] = true
		s := r.state[p.ID]
		if s == nil {
			s = &listed{next: now}
			r.state[p.ID] = s
		}
		switch {
		case s.partner && s.faults == 0:
			partners++
		case s.partner:
			s.partner = false // somebody else may do better
		case s.next.After(now):
		case p.Inbound:
			candidates[1] = append(candidates[1], p.ID)
		default:
			candidates[0] = append(candidates[0], p.ID)
		}
	}
	for id := range r.state {
		if !here[id] {
			delete(r.state, id)
		}
	}
	for _, ids := range candidates {
		for ; partners < partnersWanted && len(ids) > 0; partners++ {
			i := rand.IntN(len(ids))
			r.state[ids[i]].partner = true
			ids = slices.Delete(ids, i, i+1)
		}
	}
	var best peer.ID
	for id, s := range r.state {
		if s.next.After(now) || !s.partner && s.looked {
			continue
		}
		if b := r.state[best]; b == nil || s.next.Before(b.next) || s.partner && !b.partner && s.next.Equal(b.next) {
			best = id
		}
	}
	return best
}

// look looks at a peer's list and fetches what of it is unknown.
func (r *reconciler) look(ctx context.Context, id peer.ID) {
	s := r.state[id]
	first, before := !s.looked, *s
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	unknown, whole, err := r.read(looking, id, s)
	asked, accepted, early := 0, 0, 0
	if err == nil && len(unknown) > 0 {
		// What a newcomer fetches everybody has.
		asked, accepted, early, err = r.fetchAll(looking, id, unknown, !first || !s.partner)
	}
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	switch {
	case err != nil:
		s.run, s.after = before.run, before.after // what was not fetched is still to be
		s.next = now.Add(spread(min(maxRest, restAfterFault<<min(s.faults, 10))))
		s.faults++
		r.log.Debug("mempool of a peer not read", "peer", id, "err", err)
	case asked >= worthFetching && accepted < asked/10:
		s.next, s.partner, s.looked, s.faults = now.Add(restAfterWaste), false, true, 0
		r.log.Debug("mempool of a peer is of no use", "peer", id, "fetched", asked, "accepted", accepted)
	case early > 0 && s.early < maxEarly:
		*s = before
		s.next, s.faults = now.Add(spread(pollEvery)), 0
		s.early++
	default:
		s.early = 0
		s.next, s.looked, s.faults = now, s.looked || whole, 0
		if whole {
			s.next = now.Add(spread(partnersWanted * pollEvery))
		}
	}
	if first && asked > 0 {
		r.log.Info("mempool compared with a peer's", "peer", id, "fetched", asked, "accepted", accepted)
	}
}

// read returns what of a peer's list is unknown here, and goes on in it: from
// where it was, or for a new partner from the beginning; of others just the newest,
// unless much of that is unknown. end says that it came to the end.
func (r *reconciler) read(ctx context.Context, id peer.ID, s *listed) (unknown []exchange.ListItem, end bool, err error) {
	run, after := s.run, s.after
	if !s.partner {
		at, err := r.ask(ctx, id, run, math.MaxUint64)
		if err != nil {
			return nil, false, err
		}
		run, after = at.Run, at.End-min(at.End, newestListed)
	}
	whole := s.partner
	for total, lists := 0, 0; total < maxListed && lists < maxLists; lists++ {
		l, err := r.ask(ctx, id, run, after)
		if err != nil {
			return nil, false, err
		}
		if l.Run != run {
			run, after = l.Run, 0
		}
		total += len(l.Items)
		items := r.unknown(l.Items)
		if !whole && len(items) > muchUnknown {
			whole, run, after, total, unknown = true, l.Run, 0, 0, nil
			continue
		}
		unknown = append(unknown, items...)
		if l.Last <= after || l.Last == l.End {
			after, end = max(after, l.Last), true
			break
		}
		after = l.Last
	}
	s.run, s.after = run, after
	return unknown, end, nil
}

func (r *reconciler) ask(ctx context.Context, id peer.ID, run, after uint64) (exchange.List, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	l, err := r.list(ctx, id, exchange.ListQuery{Run: run, After: after, MinRate: r.minRate()})
	if err == nil {
		r.count.lists.Add(1)
		r.count.listed.Add(uint64(len(l.Items)))
	}
	return l, err
}

// unknown returns the items that are not known here.
func (r *reconciler) unknown(items []exchange.ListItem) (out []exchange.ListItem) {
	ids := make([]chainhash.Hash, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	for i, known := range r.pool.Known(ids) {
		if !known && items[i].Bytes > 0 && items[i].Bytes <= relay.MaxTxBytes {
			out = append(out, items[i])
		}
	}
	return out
}

// fetchAll fetches transactions, the best paying ones if there are too many, and
// submits them; on says that others should hear of them by gossip. early counts those
// that may be good when our tip is the peer's.
func (r *reconciler) fetchAll(ctx context.Context, from peer.ID, items []exchange.ListItem, on bool) (asked, accepted, early int, err error) {
	items = bestItems(items, r.maxBytes)
	if on { // gossip may be about to bring them
		wait := time.NewTimer(settle)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return 0, 0, 0, ctx.Err()
		}
	}
	told, left := 0, r.maxBytes // the list may say less than what comes
	for len(items) > 0 {
		n, bytes := 0, 0
		for n < len(items) && n < exchange.MaxTxIDs && (n == 0 || bytes+int(items[n].Bytes) <= fetchBytes) {
			bytes += int(items[n].Bytes)
			n++
		}
		var ids []chainhash.Hash
		for _, it := range r.unknown(items[:n]) {
			ids = append(ids, it.ID)
		}
		items = items[n:]
		if len(ids) == 0 {
			continue
		}
		fetching, cancel := context.WithTimeout(ctx, fetchTimeout)
		raws, err := r.fetch(fetching, from, ids)
		cancel()
		if err != nil {
			return asked, accepted, early, err
		}
		asked += len(ids)
		r.count.fetched.Add(uint64(len(ids)))
		for _, raw := range raws {
			left -= int64(len(raw))
		}
		if left < 0 {
			return asked, accepted, early, fmt.Errorf("over %d bytes came, %d more than listed", r.maxBytes, -left)
		}
		for i, raw := range raws {
			tx, err := consensus.DecodeTx(raw)
			if err != nil || tx.TxHash() != ids[i] {
				continue // it has left meanwhile, or it is not what we asked for: of no use
			}
			submit := r.pool.SubmitPulled
			if on && told < maxToldOn {
				submit = r.pool.SubmitAsked
			}
			txs, err := submit(ctx, tx, from.String())
			rule, refused := blame(err)
			if missing, ok := errors.AsType[*mempool.MissingError](err); ok {
				r.orphan(from, missing.Parents) // it is kept until they come
			} else if refused && tooEarly[rule.Rule] {
				early++
			}
			if ctx.Err() != nil {
				return asked, accepted, early, ctx.Err()
			}
			if err == nil {
				told += len(txs)
				accepted++
				r.count.accepted.Add(1)
			}
		}
	}
	return asked, accepted, early, nil
}

// tooEarly are the rules that a transaction breaks as long as our tip lags behind
// that of the peer who has it.
var tooEarly = map[string]bool{
	"bad-txns-premature-spend-of-coinbase": true,
	"missing-inputs":                       true,
	"non-final":                            true,
	"bad-txns-nonfinal":                    true,
	"tip-moving":                           true,
}

// bestItems returns those of items that fit into so many bytes, the best paying
// ones, in the order that they had.
func bestItems(items []exchange.ListItem, bytes int64) []exchange.ListItem {
	var total int64
	for _, it := range items {
		total += int64(it.Bytes)
	}
	if total <= bytes {
		return items
	}
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(items[b].Rate, items[a].Rate) })
	keep := make([]bool, len(items))
	for _, i := range order {
		if n := int64(items[i].Bytes); n <= bytes {
			bytes -= n
			keep[i] = true
		}
	}
	out := make([]exchange.ListItem, 0, len(items))
	for i, it := range items {
		if keep[i] {
			out = append(out, it)
		}
	}
	return out
}

// listPool lists the mempool for peers.
func (n *Node) listPool(q exchange.ListQuery) exchange.List {
	l := n.pool.List(q.Run, q.After, q.MinRate, exchange.MaxListItems)
	out := exchange.List{Run: l.Run, Last: l.Last, End: l.End, Items: make([]exchange.ListItem, len(l.Items))}
	for i, it := range l.Items {
		out.Items[i] = exchange.ListItem{ID: it.ID, Rate: uint32(min(it.Rate, math.MaxUint32)), Bytes: uint32(it.Bytes)}
	}
	return out
}
