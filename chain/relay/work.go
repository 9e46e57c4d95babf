package relay

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// work is a block in work.
type work struct {
	hash   chainhash.Hash
	header consensus.Header
	height int32
	segwit bool

	began time.Time        // first message
	moved [kinds]time.Time // last progress or request; zero: another may be asked at once
	fed   time.Time        // when transactions last came in
	next  time.Time        // when it must be looked at again
	ended bool

	announcers []string        // each once, in order, never empty
	relayed    []*CompactBlock // passed on; at most maxEncodings
	attempts   []*attempt      // at most maxAttempts, oldest first
	asks       []*ask          // under way
	shared     bool            // so much was missing that two peers were asked at once
	asked      int             // requests made
	askedAt    time.Time       // the last of them
	tried      map[string]*tried

	pulledBytes int64
}

// A kind is what is asked for.
type kind uint8

const (
	forTxs kind = iota
	forBlock
	kinds
)

// tried is what was asked of a peer for one block.
type tried struct {
	asks  [kinds]int       // requests that count
	rest  [kinds]time.Time // not to be asked before
	early int              // requests that were answered not yet and do not count
	gone  bool
}

// An ask is a request under way.
type ask struct {
	id      uint64
	work    *work
	peer    string
	kind    kind
	attempt *attempt  // whose transactions are asked for; nil: the block is
	indexes []uint32  // that have not come
	back    bool      // they come from the last on
	odd     bool      // some that came do not fit
	moved   time.Time // made, or the last bytes
}

func (w *work) tries(peer string) *tried {
	t := w.tried[peer]
	if t == nil {
		t = &tried{}
		w.tried[peer] = t
	}
	return t
}

// bytes is what the block takes, as messages, slots and answers.
func (w *work) bytes() (n int64) {
	for _, t := range w.attempts {
		n += t.bytes()
	}
	for _, c := range w.relayed {
		n += c.bytes()
	}
	return n
}

// add takes in an attempt. With too many, the one that lacks most goes: it might
// be that one.
func (w *work) add(t *attempt) {
	w.attempts = slices.DeleteFunc(w.attempts, func(x *attempt) bool { return x.dead })
	w.attempts = append(w.attempts, t)
	if len(w.attempts) > maxAttempts {
		most := slices.MaxFunc(w.attempts, func(x, y *attempt) int { return x.missing - y.missing })
		most.dead = true
		w.attempts = slices.DeleteFunc(w.attempts, func(x *attempt) bool { return x == most })
	}
}

// lead is the attempt that lacks least; nil: all that came are false.
func (w *work) lead() (lead *attempt) {
	for _, t := range w.attempts {
		if !t.dead && (lead == nil || t.missing < lead.missing) {
			lead = t
		}
	}
	return lead
}

// falseRelayed says whether encodings of the block were passed on and none of them is
// true to what it is.
func (w *work) falseRelayed(p *consensus.Params, r *recentBlock) bool {
	txs := r.txs(p)
	for _, c := range w.relayed {
		if bytes.HasPrefix(r.raw, c.head) && c.trueTo(txs) { // the seal is in the head
			return false
		}
	}
	return len(w.relayed) > 0
}

// checkWhole says whether raw is the block. Its faults are the sender's.
func (w *work) checkWhole(cfg *AssemblerConfig, raw []byte) (*consensus.Block, *consensus.RuleError) {
	if len(raw) < consensus.HeaderBytes || chainhash.DoubleHashH(raw[:consensus.HeaderBytes]) != w.hash {
		return nil, malformed("another-block", "%d bytes that are not block %s", len(raw), w.hash)
	}
	b, err := consensus.DecodeBlock(cfg.Params, raw)
	if err != nil {
		return nil, malformed("bad-encoding", "block %s: %v", w.hash, err)
	}
	if err := consensus.CheckCommitments(cfg.Params, w.segwit, b); err != nil {
		return nil, malformed("mutated", "block %s: %v", w.hash, err)
	}
	if err := cfg.CheckSeal(b); err != nil {
		return nil, malformed("bad-seal", "block %s: %v", w.hash, err)
	}
	return b, nil
}

// count returns the requests under way.
func (w *work) count() (n [kinds]int) {
	for _, k := range w.asks {
		n[k.kind]++
	}
	return n
}

// askSender asks whoever sent an encoding for what it lacks.
func (a *Assembler) askSender(w *work, t *attempt) {
	if w.count()[forTxs] < maxTxAsks && !t.dead && !t.doubted && w.free(t.from, forTxs, a.now) {
		a.ask(w, t.from, t)
	}
}

// free says whether a peer may be asked.
func (w *work) free(peer string, what kind, now time.Time) bool {
	if slices.ContainsFunc(w.asks, func(k *ask) bool { return k.peer == peer }) || w.asked >= maxAsks {
		return false
	}
	t := w.tried[peer]
	return t == nil || !t.gone && t.asks[what] < maxAsksPerPeer && !now.Before(t.rest[what])
}

// ask makes a request for what an attempt lacks, or, with none, for the block.
func (a *Assembler) ask(w *work, peer string, t *attempt) {
	a.lastID++
	k := &ask{id: a.lastID, work: w, peer: peer, attempt: t, moved: a.now}
	if t == nil {
		k.kind = forBlock
	}
	a.asks[k.id] = k
	w.asks = append(w.asks, k)
	w.asked++
	w.moved[k.kind], w.askedAt = a.now, a.now
	w.tries(peer).asks[k.kind]++
	if t == nil {
		a.act(AskBlock{k.id, peer, w.hash})
		return
	}
	k.indexes = t.lacking()
	k.back = w.forwards() > 1 // k is one of them so far
	a.act(AskTxs{k.id, peer, w.hash, slices.Clone(k.indexes), k.back})
}

// forwards returns how many more requests for transactions begin with the first than
// with the last.
func (w *work) forwards() (n int) {
	for _, k := range w.asks {
		switch {
		case k.kind != forTxs:
		case k.back:
			n--
		default:
			n++
		}
	}
	return n
}

// pick chooses whom to ask: who was asked least, of those who has the block, then
// who announced it, then any. "" is nobody; wait is then when somebody has rested,
// zero if never. avoid is not chosen.
func (a *Assembler) pick(w *work, what kind, avoid string) (best string, wait time.Time) {
	type rank struct{ tries, class, all int }
	compare := func(x, y rank) int {
		return cmp.Or(cmp.Compare(x.tries, y.tries), cmp.Compare(x.class, y.class), cmp.Compare(x.all, y.all))
	}
	var least rank
	equal := 0
	look := func(peer string, class int) {
		if peer == avoid {
			return
		}
		t := w.tried[peer]
		if !w.free(peer, what, a.now) {
			if t == nil {
				return
			}
			if at := t.rest[what]; at.After(a.now) && w.free(peer, what, at) && (wait.IsZero() || at.Before(wait)) {
				wait = at
			}
			return
		}
		r := rank{class: class}
		if t != nil {
			r.tries, r.all = t.asks[what], t.asks[forTxs]+t.asks[forBlock]
		}
		switch c := compare(r, least); {
		case best == "" || c < 0:
			best, least, equal = peer, r, 1
		case c == 0:
			if equal++; a.rng.IntN(equal) == 0 {
				best = peer
			}
		}
	}
	for _, peer := range w.announcers {
		if p := a.peers[peer]; p == nil || p.tip != w.hash {
			look(peer, 1)
		}
	}
	for _, peer := range a.order {
		switch {
		case a.peers[peer].tip == w.hash:
			look(peer, 0)
		case !slices.Contains(w.announcers, peer):
			look(peer, 2)
		}
	}
	if best != "" {
		wait = time.Time{}
	}
	return best, wait
}

// drive does what is due for a block.
func (a *Assembler) drive(w *work) {
	if w.ended {
		return
	}
	if a.now.Sub(w.began) >= a.cfg.GiveUpAfter {
		a.giveUp(w, "withheld")
		return
	}
	for _, k := range slices.Clone(w.asks) {
		if a.now.Sub(k.moved) >= a.cfg.OthersAfter { // silent
			a.drop(k)
			a.act(Cancel{k.id, k.peer})
			w.tries(k.peer).rest[k.kind] = a.now.Add(retryAfter)
		}
	}

	var wait [kinds]time.Time // until somebody has rested
	n := w.count()
	ask := func(what kind, t *attempt, avoid string) {
		var peer string
		if peer, wait[what] = a.pick(w, what, avoid); peer != "" {
			a.ask(w, peer, t)
			n[what]++
		}
	}
	stalled := func(what kind) bool { return a.now.Sub(w.moved[what]) >= a.cfg.StallAfter }
	// Whatever arrives; but for large parts of a block two are enough.
	others := n[forTxs] < 2 && a.now.Sub(w.askedAt) >= a.cfg.OthersAfter
	lead, avoid := w.lead(), ""
	if lead != nil && lead.doubted {
		avoid = lead.from // of whom is what was prefilled
	}
	share := lead != nil && n[forTxs] == 1 && !w.shared && lead.missing >= shareTxs
	if lead != nil && (n[forTxs] == 0 || share || n[forTxs] < maxTxAsks && (stalled(forTxs) || others)) {
		before := n[forTxs]
		ask(forTxs, lead, avoid)
		w.shared = w.shared || share && n[forTxs] > before
	}
	whole := lead == nil || n[forTxs] == 0 && wait[forTxs].IsZero() || !a.now.Before(a.wholeAt(w))
	if whole && (n[forBlock] == 0 || n[forBlock] < maxBlockAsks && stalled(forBlock)) {
		ask(forBlock, nil, "")
	}
	if n == [kinds]int{} && wait == [kinds]time.Time{} {
		a.giveUp(w, "withheld") // there is nobody left to ask
		return
	}
	a.schedule(w, n, wait)
}

// wholeAt is when the whole block is asked for beside its parts, as far as is known now.
func (a *Assembler) wholeAt(w *work) time.Time {
	least, most := w.began.Add(a.cfg.WholeAfter), w.began.Add(2*a.cfg.WholeAfter)
	if stalled := w.fed.Add(a.cfg.WholeStall); stalled.After(least) {
		least = stalled
	}
	if least.After(most) {
		return most
	}
	return least
}

// schedule sets when a block must be looked at again.
func (a *Assembler) schedule(w *work, n [kinds]int, wait [kinds]time.Time) {
	w.next = w.began.Add(a.cfg.GiveUpAfter)
	at := func(t time.Time) {
		if t.After(a.now) && t.Before(w.next) {
			w.next = t
		}
	}
	for _, k := range w.asks {
		at(k.moved.Add(a.cfg.OthersAfter))
	}
	if n[forTxs] < maxTxAsks {
		at(w.moved[forTxs].Add(a.cfg.StallAfter))
	}
	if n[forBlock] < maxBlockAsks {
		at(w.moved[forBlock].Add(a.cfg.StallAfter))
	}
	at(w.askedAt.Add(a.cfg.OthersAfter))
	at(a.wholeAt(w))
	at(wait[forTxs])
	at(wait[forBlock])
}
