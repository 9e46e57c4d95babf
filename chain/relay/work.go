package relay

import (
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

	began time.Time // first message
	moved time.Time // last progress or request; zero: another may be asked at once
	next  time.Time // when it must be looked at again
	ended bool

	announcers []string        // each once, in order, never empty
	relayed    []*CompactBlock // passed on; at most maxEncodings
	attempts   []*attempt      // at most maxAttempts, oldest first
	asks       []*ask          // under way
	shared     bool            // so much was missing that two peers were asked at once
	asked      int             // requests made
	tried      map[string]*tried

	pulledBytes int64
}

// tried is what was asked of a peer for one block.
type tried struct {
	txs, blocks int       // requests
	early       int       // of them, answered not yet and not counted
	rest        time.Time // not to be asked before
	gone        bool
}

// An ask is a request under way.
type ask struct {
	id      uint64
	work    *work
	peer    string
	whole   bool
	attempt *attempt  // whose transactions are asked for; nil if whole
	indexes []uint32  // that have not come
	back    bool      // they come from the last on
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
func (w *work) falseRelayed(txs []blockTx) bool {
	for _, c := range w.relayed {
		if c.trueTo(txs) {
			return false
		}
	}
	return len(w.relayed) > 0
}

// checkWhole says whether raw is the block. Its faults are the sender's.
func (w *work) checkWhole(p *consensus.Params, raw []byte) (*consensus.Block, *consensus.RuleError) {
	if len(raw) < consensus.HeaderBytes || chainhash.DoubleHashH(raw[:consensus.HeaderBytes]) != w.hash {
		return nil, malformed("another-block", "%d bytes that are not block %s", len(raw), w.hash)
	}
	b, err := consensus.DecodeBlock(p, raw)
	if err != nil {
		return nil, malformed("bad-encoding", "block %s: %v", w.hash, err)
	}
	if err := consensus.CheckCommitments(p, w.segwit, b); err != nil {
		return nil, malformed("mutated", "block %s: %v", w.hash, err)
	}
	return b, nil
}

// count returns the requests under way, for transactions and for the block.
func (w *work) count() (txs, blocks int) {
	for _, k := range w.asks {
		if k.whole {
			blocks++
		} else {
			txs++
		}
	}
	return txs, blocks
}

// peersAsked is how many were asked for anything.
func (w *work) peersAsked() (n int) {
	for _, t := range w.tried {
		if t.txs+t.blocks+t.early > 0 {
			n++
		}
	}
	return n
}

// askSender asks whoever sent an encoding for what it lacks.
func (a *Assembler) askSender(w *work, t *attempt) {
	if n, _ := w.count(); n < maxTxAsks && !t.dead && !t.doubted && w.free(t.from, false, a.now) {
		a.ask(w, t.from, t)
	}
}

// free says whether a peer may be asked.
func (w *work) free(peer string, whole bool, now time.Time) bool {
	if slices.ContainsFunc(w.asks, func(k *ask) bool { return k.peer == peer }) || w.asked >= maxAsks {
		return false
	}
	t := w.tried[peer]
	if t == nil {
		return true
	}
	n := t.txs
	if whole {
		n = t.blocks
	}
	return !t.gone && n < maxAsksPerPeer && !now.Before(t.rest)
}

// ask makes a request for what an attempt lacks, or, with none, for the block.
func (a *Assembler) ask(w *work, peer string, t *attempt) {
	a.lastID++
	k := &ask{id: a.lastID, work: w, peer: peer, attempt: t, whole: t == nil, moved: a.now}
	a.asks[k.id] = k
	w.asks = append(w.asks, k)
	w.asked++
	w.moved = a.now
	if k.whole {
		w.tries(peer).blocks++
		a.act(AskBlock{k.id, peer, w.hash})
		return
	}
	w.tries(peer).txs++
	k.indexes = t.lacking()
	k.back = w.forwards() > 1 // k is one of them so far
	a.act(AskTxs{k.id, peer, w.hash, slices.Clone(k.indexes), k.back})
}

// forwards returns how many more requests for transactions begin with the first than
// with the last.
func (w *work) forwards() (n int) {
	for _, k := range w.asks {
		switch {
		case k.whole:
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
func (a *Assembler) pick(w *work, whole bool, avoid string) (best string, wait time.Time) {
	type rank struct{ tries, class int }
	var least rank
	equal := 0
	look := func(peer string, class int) {
		if peer == avoid {
			return
		}
		t := w.tried[peer]
		if !w.free(peer, whole, a.now) {
			if t != nil && t.rest.After(a.now) && w.free(peer, whole, t.rest) && (wait.IsZero() || t.rest.Before(wait)) {
				wait = t.rest
			}
			return
		}
		r := rank{class: class}
		if t != nil {
			r.tries = t.txs + t.blocks
		}
		switch {
		case best == "" || r.tries < least.tries || r.tries == least.tries && r.class < least.class:
			best, least, equal = peer, r, 1
		case r == least:
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
			w.tries(k.peer).rest = a.now.Add(retryAfter)
		}
	}

	var wait [2]time.Time // for somebody to ask
	stalled := a.now.Sub(w.moved) >= a.cfg.StallAfter
	lead, avoid := w.lead(), ""
	if lead != nil && lead.doubted {
		avoid = lead.from // of whom is what was prefilled
	}
	txs, blocks := w.count()
	share := lead != nil && txs == 1 && !w.shared && lead.missing >= shareTxs
	most := 1
	if w.shared {
		most = 2
	}
	others := a.now.Sub(w.began) >= a.cfg.OthersAfter && txs < 2 && w.peersAsked() <= most
	if lead != nil && (txs == 0 || share || txs < maxTxAsks && (stalled || others)) {
		var peer string
		if peer, wait[0] = a.pick(w, false, avoid); peer != "" {
			a.ask(w, peer, lead)
			w.shared = w.shared || share
			txs++
		}
	}
	noTxs := lead == nil || txs == 0 && wait[0].IsZero()
	if whole := noTxs || a.now.Sub(w.began) >= a.cfg.WholeAfter; whole && (blocks == 0 || blocks < maxBlockAsks && stalled) {
		var peer string
		if peer, wait[1] = a.pick(w, true, ""); peer != "" {
			a.ask(w, peer, nil)
			blocks++
		}
	}
	if txs+blocks == 0 && wait[0].IsZero() && wait[1].IsZero() {
		a.giveUp(w, "withheld") // there is nobody left to ask
		return
	}
	a.schedule(w, txs, blocks, wait)
}

// schedule sets when a block must be looked at again.
func (a *Assembler) schedule(w *work, txs, blocks int, wait [2]time.Time) {
	w.next = w.began.Add(a.cfg.GiveUpAfter)
	at := func(t time.Time) {
		if t.After(a.now) && t.Before(w.next) {
			w.next = t
		}
	}
	for _, k := range w.asks {
		at(k.moved.Add(a.cfg.OthersAfter))
	}
	if txs < maxTxAsks || blocks < maxBlockAsks {
		at(w.moved.Add(a.cfg.StallAfter))
	}
	at(w.began.Add(a.cfg.OthersAfter))
	at(w.began.Add(a.cfg.WholeAfter))
	at(wait[0])
	at(wait[1])
}
