package relay

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// Limits of an Assembler that are not in its config.
const (
	// maxAttempts is how many compact encodings of one block are filled at a time,
	// maxScans how many are looked at in all: each costs a look at the whole pool,
	// and no peer gets two.
	maxAttempts = 4
	maxScans    = 8
	// maxTxAsks and maxBlockAsks bound the requests that a block has under way.
	maxTxAsks    = 3
	maxBlockAsks = 2
	// maxAsksPerPeer is how often one peer is asked for transactions of a block, and
	// how often for all of it, but for maxEarly requests that it did not have yet; maxAsks
	// bounds the requests for a block in all.
	maxAsksPerPeer = 2
	maxEarly       = 4
	maxAsks        = 32
	// maxDisputes is how many peers must say otherwise before an encoding is
	// taken for false.
	maxDisputes = 2
	// maxDone is how many blocks are remembered that need no more work, maxTries
	// how often work on one is begun.
	maxDone  = 64
	maxTries = 3
	// shareTxs is how many transactions two peers are asked for at once, one from the
	// first on and one from the last: what a node lacks that much of, its neighbours lack
	// too, and it comes through more than one of them.
	shareTxs = 512
	// maxRecent is how many complete blocks lend their transactions to rivals.
	maxRecent = 3
	// maxAssemblerPeers is how many connected peers are known; a node has fewer.
	maxAssemblerPeers = 1024
	// A peer that had nothing, or was busy, is asked again after retryAfter.
	retryAfter = 250 * time.Millisecond
)

// AssemblerConfig configures an Assembler. Zero means the default.
type AssemblerConfig struct {
	Params     *consensus.Params // required
	Candidates Candidates        // default: none
	// CheckSeal is that of [Headers]. Default: every seal is right.
	CheckSeal func(b *consensus.Block) error
	Seed      uint64 // of the choice between equal peers
	MaxBlocks int    // in work at a time; default 8
	MaxBytes  int64  // of blocks in work; default and least: eight largest blocks
	// StallAfter is how long nothing may arrive before another peer is asked as
	// well; default 500 ms: ten round trips of a usual link.
	StallAfter time.Duration
	// OthersAfter is how long after the last request another peer is asked in any
	// case, and how long a silent request is waited for; default 2 s.
	OthersAfter time.Duration
	// WholeAfter is when the whole block is asked for as well, if no transactions have
	// come in for WholeStall, bytes of some not being enough; after twice the time it is in any case. Default 3 s.
	WholeAfter time.Duration
	// WholeStall is how long nothing may come in then; default 1 s.
	WholeStall time.Duration
	// GiveUpAfter is when a block is left to sync; default 10 s.
	GiveUpAfter time.Duration
}

func (c AssemblerConfig) withDefaults() (AssemblerConfig, error) {
	if c.Params == nil {
		return c, errors.New("params are required")
	}
	var errs []error
	if c.CheckSeal == nil {
		c.CheckSeal = func(*consensus.Block) error { return nil }
	}
	if c.Candidates == nil {
		c.Candidates = nothing{}
	}
	largest := int64(c.Params.MaxBlockBytes())
	c.MaxBlocks = cmp.Or(c.MaxBlocks, 8)
	c.MaxBytes = cmp.Or(c.MaxBytes, 8*largest)
	if c.MaxBlocks < 1 || c.MaxBlocks > 64 {
		errs = append(errs, fmt.Errorf("max blocks %d: must be from 1 to 64", c.MaxBlocks))
	}
	if c.MaxBytes < 8*largest { // one alone may take seven, with all its attempts
		errs = append(errs, fmt.Errorf("max bytes %d: must be at least %d", c.MaxBytes, 8*largest))
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		unset time.Duration
	}{
		{"stall after", &c.StallAfter, 500 * time.Millisecond},
		{"others after", &c.OthersAfter, 2 * time.Second},
		{"whole after", &c.WholeAfter, 3 * time.Second},
		{"whole stall", &c.WholeStall, time.Second},
		{"give up after", &c.GiveUpAfter, 10 * time.Second},
	} {
		if *d.value = cmp.Or(*d.value, d.unset); *d.value < 0 {
			errs = append(errs, fmt.Errorf("%s %v: must not be negative", d.name, *d.value))
		}
	}
	return c, errors.Join(errs...)
}

// Candidates are transactions that a block may have: the pool's, and those that
// it refused or lost a moment ago. Methods answer from memory.
type Candidates interface {
	// WitnessIDs yields the witness ids of all, in any order; one may come twice.
	// What is yielded is read before the next. It should take little over 10 ns
	// for each: it is asked once for each compact block, of hundreds of thousands.
	WitnessIDs() iter.Seq[*chainhash.Hash]
	// ByWitnessID returns one of them and its id; ok is false if it has gone since.
	// The transaction is not changed by anybody any more.
	ByWitnessID(wtxid chainhash.Hash) (tx *wire.MsgTx, txid chainhash.Hash, ok bool)
}

// nothing is the Candidates of an empty pool.
type nothing struct{}

// WitnessIDs implements Candidates.
func (nothing) WitnessIDs() iter.Seq[*chainhash.Hash] {
	return func(func(*chainhash.Hash) bool) {}
}

// ByWitnessID implements Candidates.
func (nothing) ByWitnessID(chainhash.Hash) (*wire.MsgTx, chainhash.Hash, bool) {
	return nil, chainhash.Hash{}, false
}

// An Event is something that happened: one of the types below. Peers are named by
// any string that is not empty.
type Event interface{ isEvent() }

// Announced reports a compact block that [Blocks.Check] handed over (Verdict.Compact).
type Announced struct {
	From    string
	Block   *CompactBlock
	Relayed bool // it was passed on: the verdict was Accept
}

// Have reports a block that is complete without the Assembler: it came whole on
// the topic, was made here, or came by sync. Work on it ends without a Deliver,
// and its transactions serve for its rivals. Raw is a block whose commitments were
// checked; it is kept for a while.
type Have struct {
	Block chainhash.Hash
	Raw   []byte
}

// Peer reports a peer that can be asked, at first and whenever its validated
// tip changes. Announcers can be asked without it.
type Peer struct {
	Peer string
	Tip  chainhash.Hash // zero: not known
}

// PeerGone reports that a peer cannot be asked any more. It ends its requests.
type PeerGone struct{ Peer string }

// GotTxs answers AskTxs: the transactions asked for, in that order, serialised
// with witness. They are kept.
type GotTxs struct {
	ID  uint64
	Txs [][]byte
}

// SomeTxs is a part of the answer to AskTxs that came before the rest: the
// transactions at some of the indexes asked for, in the same order, as in GotTxs, which
// has those that are left then. What is here can be passed on while the rest is on its way.
type SomeTxs struct {
	ID      uint64
	Indexes []uint32
	Txs     [][]byte
}

// GotBlock answers AskBlock. Raw is kept.
type GotBlock struct {
	ID  uint64
	Raw []byte
}

// Failed reports that a request ended without an answer.
type Failed struct {
	ID  uint64
	Why Failure
}

// Arriving reports that bytes of an answer arrived: the peer is at work. It is
// optional and should be sent a few times a second at most.
type Arriving struct{ ID uint64 }

// Tick reports that it is now [Assembler.Next] or later.
type Tick struct{}

func (Announced) isEvent() {}
func (Have) isEvent()      {}
func (Peer) isEvent()      {}
func (PeerGone) isEvent()  {}
func (GotTxs) isEvent()    {}
func (SomeTxs) isEvent()   {}
func (GotBlock) isEvent()  {}
func (Failed) isEvent()    {}
func (Arriving) isEvent()  {}
func (Tick) isEvent()      {}

// A Failure is why a request was not answered.
type Failure uint8

// The failures. None is anybody's fault but Broken by a violation, which the
// stream protocol blames.
const (
	NotYet  Failure = iota // the peer does not have it yet, or is busy: it may be asked again
	NotHere                // the peer has not heard of the block, or it has no such transaction
	Broken                 // the stream broke, the deadline passed, the answer was against the protocol
)

// An Action is something to do: one of the types below.
type Action interface{ isAction() }

// AskTxs asks a peer for transactions of a block at ascending indexes. It ends
// with GotTxs, Failed or PeerGone of the peer. What comes after Cancel, or for an
// unknown ID, is harmless.
type AskTxs struct {
	ID      uint64
	Peer    string
	Block   chainhash.Hash
	Indexes []uint32 // at most as many as a block has transactions: 16,666
	// Backwards asks for the last ones first: another peer is asked for the first.
	Backwards bool
}

// AskBlock asks a peer for a whole block. It ends with GotBlock, Failed or
// PeerGone of the peer.
type AskBlock struct {
	ID    uint64
	Peer  string
	Block chainhash.Hash
}

// Cancel withdraws a request. Nothing about it need be reported any more.
type Cancel struct {
	ID   uint64
	Peer string
}

// Deliver hands over a complete block: header ‖ seal ‖ transactions, whose merkle
// root and witness commitment are right. Whether it is valid is for the chain to
// say. Work on it has ended.
type Deliver struct {
	Block  chainhash.Hash
	Height int32
	Raw    []byte // the receiver's
	// From are the peers that it came from: who announced what it was made of
	// first, then those whose answers are in it. None of them could know whether the
	// block is valid, but one that answered with all of it.
	From []string

	Began     time.Time // first message
	Txs       int       // of the block: prefilled, from candidates (the rest), pulled
	Prefilled int
	Pulled    int   // that peers were asked for; all of them if Whole
	Bytes     int64 // of what peers answered, used or not
	Asks      int   // requests made
	Whole     bool  // a peer was asked for all of it
}

// Reflood asks to send a block out once more, in an encoding of this node's own
// ([MakeCompact] with a new nonce): it is complete, and all encodings of it that
// this node passed on were false. It comes after Deliver, or after Have.
type Reflood struct {
	Block chainhash.Hash
	Raw   []byte
}

// GiveUp leaves a block to sync: ask From for headers.
type GiveUp struct {
	Block  chainhash.Hash
	Height int32
	From   string // who announced it last and is still there; "" if nobody
	Reason string // "withheld": nobody sent it in time; "displaced": others took its place
}

// Blame reports a peer that provably broke the rules: its answer is no encoding of
// what was asked for, or its whole block does not belong to the header.
type Blame struct {
	Peer  string
	Block chainhash.Hash
	Err   *consensus.RuleError
}

func (AskTxs) isAction()   {}
func (AskBlock) isAction() {}
func (Cancel) isAction()   {}
func (Deliver) isAction()  {}
func (Reflood) isAction()  {}
func (GiveUp) isAction()   {}
func (Blame) isAction()    {}

// An Assembler puts blocks together that came as compact blocks, out of what this
// node has and what it asks peers for. It is a pure state machine: the same config
// and events give the same actions. It is not safe for concurrent use.
//
// # What it asks, and whom
//
// Whoever sent a compact block is asked at once for the transactions that are
// missing; if they are many, another peer too, for the last ones first, so that the two
// meet. What comes is passed on at once. If nothing arrives for StallAfter, another peer is asked as well, up to
// three at a time; OthersAfter the last request another is asked in any case, and a
// silent request is withdrawn. Peers whose validated tip is the block come first, then those that
// announced it, then any. After WholeAfter the whole block is asked for too, unless
// transactions are coming in; after twice the time in any case, for they may come from
// whoever made a false encoding.
//
// # What can go wrong
//
//	short id of two transactions of the block     both are asked for
//	short id of two candidates                    asked for
//	a peer that has the block lacks an index      the same as the next
//	an answer that does not fit the short id      used if the roots fit. Else another peer is asked,
//	                                              for what was prefilled too. Nobody's fault: the short
//	                                              ids may be false, or the answer come from one who is
//	                                              not done himself. When two peers say so, the encoding
//	                                              is taken for false
//	full, but the roots are wrong                 what was prefilled is asked for, once;
//	                                              then the encoding is taken for false
//	full, the roots are right, not the seal       the encoding is false
//	all encodings are false                       the whole block is asked for
//	a whole block with other roots, header, seal  the peer's fault: it can see that; another is asked
//	an answer of another number, or undecodable   the peer's fault
//	a second encoding                             filled beside the first; whichever is complete first counts
//	nobody sends it                               left to sync after GiveUpAfter
//
// # Invariants
//
//   - Every block that is announced ends in exactly one of Deliver, GiveUp and Have
//     at most GiveUpAfter later, if Ticks come.
//   - A delivered block is what its header commits to.
//   - At most three requests for transactions and two for blocks are under way for a
//     block, one to a peer; at most 32 are made.
//   - At most MaxBlocks are in work. One more displaces the oldest of whoever announced
//     most. What all take is at most MaxBytes, in the same way.
//   - Memory is bounded by MaxBytes, three largest blocks for rivals, and 1,024 peers.
//   - A Step costs at most one look at all candidates, or one decoded block.
type Assembler struct {
	cfg     AssemblerConfig
	rng     *rand.Rand
	now     time.Time // of the last Step; never goes back
	lastID  uint64
	actions []Action

	works  []*work // by age
	asks   map[uint64]*ask
	peers  map[string]*asked
	order  []string // of peers, by when they came
	done   []doneBlock
	recent []*recentBlock // oldest first
}

// asked is a peer that can be asked.
type asked struct{ tip chainhash.Hash }

// doneBlock is a block that was in work.
type doneBlock struct {
	hash     chainhash.Hash
	complete bool
	tries    int
}

// NewAssembler returns an Assembler. It reports every field of cfg that is wrong.
func NewAssembler(cfg AssemblerConfig) (*Assembler, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("block assembler config: %w", err)
	}
	return &Assembler{
		cfg:   cfg,
		rng:   rand.New(rand.NewPCG(cfg.Seed, 0xb10c)),
		asks:  make(map[uint64]*ask),
		peers: make(map[string]*asked),
	}, nil
}

// Step takes one event and returns what to do now, in order. The slice is reused
// by the next Step.
func (a *Assembler) Step(now time.Time, e Event) []Action {
	if now.After(a.now) {
		a.now = now
	}
	clear(a.actions)
	a.actions = a.actions[:0]
	switch e := e.(type) {
	case Announced:
		a.onAnnounced(e)
	case Have:
		a.onHave(e)
	case Peer:
		a.onPeer(e)
	case PeerGone:
		a.onPeerGone(e.Peer)
	case GotTxs:
		if k := a.asks[e.ID]; k != nil && k.kind == forTxs {
			a.onTxs(k, k.indexes, e.Txs, true)
		}
	case SomeTxs:
		a.onSomeTxs(e)
	case GotBlock:
		if k := a.asks[e.ID]; k != nil && k.kind == forBlock {
			a.onBlock(k, e.Raw)
		}
	case Failed:
		a.onFailed(e)
	case Arriving:
		if k := a.asks[e.ID]; k != nil {
			k.moved, k.work.moved[k.kind] = a.now, a.now
		}
	case Tick:
	default:
		panic(fmt.Sprintf("relay: unknown event %T", e))
	}
	for _, w := range slices.Clone(a.works) {
		a.drive(w)
	}
	return a.actions
}

// Next returns when Tick is due; false: not before another event.
func (a *Assembler) Next() (time.Time, bool) {
	var next time.Time
	for _, w := range a.works {
		if next.IsZero() || w.next.Before(next) {
			next = w.next
		}
	}
	return next, !next.IsZero()
}

// InWork returns how many blocks are in work, the requests under way for them and
// the bytes that they take.
func (a *Assembler) InWork() (blocks, asks int, bytes int64) {
	return len(a.works), len(a.asks), a.bytes()
}

// Txs returns transactions of a block in work, serialised with witness, for a peer
// that asks for them: txs is nil if some are not here yet. Known is false if the
// block is not in work. err says that it has no such index, which is nobody's
// fault. They are guesses until the block is complete.
func (a *Assembler) Txs(block chainhash.Hash, indexes []uint32) (txs [][]byte, known bool, err error) {
	w := a.find(block)
	if w == nil {
		return nil, false, nil
	}
	most := 0
	for _, t := range w.attempts {
		most = max(most, len(t.slots))
		if txs := t.encodings(indexes); txs != nil {
			return txs, true, nil
		}
	}
	if n := len(indexes); most > 0 && n > 0 && int64(indexes[n-1]) >= int64(most) {
		return nil, true, fmt.Errorf("index %d in a block of %d transactions", indexes[n-1], most)
	}
	return nil, true, nil
}

func (a *Assembler) act(x Action) { a.actions = append(a.actions, x) }

func (a *Assembler) find(hash chainhash.Hash) *work {
	for _, w := range a.works {
		if w.hash == hash {
			return w
		}
	}
	return nil
}

func (a *Assembler) bytes() (n int64) {
	for _, w := range a.works {
		n += w.bytes()
	}
	return n
}

// Events.

func (a *Assembler) onAnnounced(e Announced) {
	c := e.Block
	w := a.find(c.Hash)
	if w == nil {
		if d := a.doneBlock(c.Hash); d.complete || d.tries >= maxTries {
			return
		}
		w = &work{hash: c.Hash, header: c.Header, height: c.Height, segwit: c.Segwit, began: a.now, tried: make(map[string]*tried)}
		a.works = append(a.works, w)
	}
	if e.Relayed && len(w.relayed) < maxEncodings {
		w.relayed = append(w.relayed, c)
	}
	if slices.Contains(w.announcers, e.From) || len(w.announcers) >= maxScans {
		return
	}
	w.announcers = append(w.announcers, e.From)
	t := newAttempt(a.cfg.Params, c, e.From)
	t.fill(a.cfg.Candidates, a.recent, a.cfg.Params)
	w.add(t)
	a.makeRoom(w)
	if !a.complete(w, t) {
		a.askSender(w, t)
	}
}

// makeRoom displaces blocks until w fits.
func (a *Assembler) makeRoom(w *work) {
	for len(a.works) > 1 && (len(a.works) > a.cfg.MaxBlocks || a.bytes() > a.cfg.MaxBytes) {
		count := make(map[string]int)
		for _, x := range a.works {
			count[x.announcers[0]]++
		}
		var victim *work
		for _, x := range a.works { // by age
			if x != w && (victim == nil || count[x.announcers[0]] > count[victim.announcers[0]]) {
				victim = x
			}
		}
		a.giveUp(victim, "displaced")
	}
}

func (a *Assembler) onHave(e Have) {
	w := a.find(e.Block)
	if w == nil && a.doneBlock(e.Block).complete {
		return
	}
	r := &recentBlock{hash: e.Block, raw: e.Raw}
	a.remember(r)
	if w == nil {
		a.finish(e.Block, true)
		return
	}
	reflood := w.falseRelayed(a.cfg.Params, r)
	a.end(w, true)
	if reflood {
		a.act(Reflood(e))
	}
}

func (a *Assembler) onPeer(e Peer) {
	if p := a.peers[e.Peer]; p != nil {
		p.tip = e.Tip
		return
	}
	if len(a.order) >= maxAssemblerPeers {
		return
	}
	a.peers[e.Peer] = &asked{tip: e.Tip}
	a.order = append(a.order, e.Peer)
}

func (a *Assembler) onPeerGone(peer string) {
	delete(a.peers, peer)
	if i := slices.Index(a.order, peer); i >= 0 {
		a.order = slices.Delete(a.order, i, i+1)
	}
	for _, w := range a.works {
		if w.tried[peer] != nil || slices.Contains(w.announcers, peer) {
			w.tries(peer).gone = true
		}
		for _, k := range slices.Clone(w.asks) {
			if k.peer == peer {
				a.drop(k)
			}
		}
	}
}

func (a *Assembler) onFailed(e Failed) {
	k := a.asks[e.ID]
	if k == nil {
		return
	}
	a.drop(k)
	w := k.work
	switch t := w.tries(k.peer); e.Why {
	case NotYet:
		t.rest[k.kind] = a.now.Add(retryAfter)
		if t.early < maxEarly {
			t.early++
			t.asks[k.kind]--
		}
	case NotHere, Broken:
		t.rest[k.kind] = a.now.Add(4 * retryAfter)
		if p := a.peers[k.peer]; e.Why == NotHere && k.kind == forTxs && p != nil && p.tip == w.hash {
			k.attempt.disputed() // it has the block, and no such transactions
		}
	}
	w.moved[k.kind] = time.Time{} // another may be asked at once
}

// forget ends a request that is answered.
func (a *Assembler) forget(k *ask) {
	delete(a.asks, k.id)
	k.work.asks = slices.DeleteFunc(k.work.asks, func(x *ask) bool { return x == k })
	k.work.moved[k.kind] = a.now
}

// drop ends a request that is not, or not all.
func (a *Assembler) drop(k *ask) {
	a.forget(k)
	if k.odd {
		k.attempt.undo(k.peer)
	}
}

// onSomeTxs takes a part of an answer.
func (a *Assembler) onSomeTxs(e SomeTxs) {
	k := a.asks[e.ID]
	if k == nil || k.kind != forTxs {
		return
	}
	k.moved, k.work.moved[forTxs] = a.now, a.now
	k.indexes = slices.DeleteFunc(k.indexes, func(i uint32) bool {
		_, has := slices.BinarySearch(e.Indexes, i)
		return has
	})
	if !a.onTxs(k, e.Indexes, e.Txs, false) {
		a.act(Cancel{k.id, k.peer})
	}
}

// onTxs takes an answer, or a part of it that is not the last, and says whether it
// is one. What does not fit is kept until the last has come: short ids are hints, the
// roots decide.
func (a *Assembler) onTxs(k *ask, indexes []uint32, txs [][]byte, last bool) bool {
	w := k.work
	w.fed = a.now
	if last {
		a.forget(k)
	}
	if len(txs) != len(indexes) {
		a.blame(k, malformed("txs-count", "%d transactions, asked for %d", len(txs), len(indexes)))
		return false
	}
	got := make([]transaction, len(txs))
	for i, raw := range txs {
		txid, wtxid, err := consensus.TxIDs(raw)
		if err != nil {
			a.blame(k, malformed("txs-encoding", "transaction %d: %v", indexes[i], err))
			return false
		}
		got[i] = transaction{wtxid: wtxid, txid: txid, raw: raw, peer: k.peer}
		w.pulledBytes += int64(len(raw))
	}
	for _, t := range slices.Clone(w.attempts) {
		own := t == k.attempt
		if fits := t.take(indexes, got, own); own && !fits {
			k.odd = true
		}
		if a.complete(w, t) {
			return true
		}
	}
	if last && k.odd {
		a.dispute(k)
	}
	a.makeRoom(w)
	return true
}

// dispute is for an answer that does not fit: it or the encoding is false.
func (a *Assembler) dispute(k *ask) {
	k.attempt.undo(k.peer)
	k.attempt.doubt()
	k.attempt.disputed()
	k.work.tries(k.peer).asks[forTxs] = maxAsksPerPeer
	k.work.moved[forTxs] = time.Time{}
}

func (a *Assembler) onBlock(k *ask, raw []byte) {
	w := k.work
	a.forget(k)
	w.pulledBytes += int64(len(raw))
	b, err := w.checkWhole(&a.cfg, raw)
	if err != nil {
		a.blame(k, err)
		return
	}
	d := Deliver{Raw: raw, From: []string{k.peer}, Pulled: len(b.Txs), Txs: len(b.Txs), Whole: true}
	r := &recentBlock{hash: w.hash, raw: raw}
	a.deliver(w, d, r)
}

// blame ends what the peer of a request is asked about a block.
func (a *Assembler) blame(k *ask, err *consensus.RuleError) {
	if a.asks[k.id] != nil || k.odd {
		a.drop(k)
	}
	k.work.tries(k.peer).asks = [kinds]int{maxAsksPerPeer, maxAsksPerPeer}
	k.work.moved[k.kind] = time.Time{}
	a.act(Blame{Peer: k.peer, Block: k.work.hash, Err: err})
}

// complete delivers the block if an attempt at it is full and right.
func (a *Assembler) complete(w *work, t *attempt) bool {
	if t.dead || t.missing > 0 || !t.changed {
		return false
	}
	t.changed = false
	raw, err := t.block(&a.cfg, w)
	switch {
	case err == nil:
	case errors.Is(err, errFalseSeal):
		t.dead = true
		return false
	case t.odd > 0:
		return false // the answer may be what is wrong, or more of it be to come
	case t.doubted:
		t.dead = true
		return false
	default:
		t.doubt()
		return false
	}
	d := Deliver{Raw: raw, From: []string{t.from}, Txs: len(t.slots)}
	r := &recentBlock{hash: w.hash, raw: raw, known: make([]blockTx, len(t.slots))}
	for i := range t.slots {
		s := &t.slots[i]
		r.known[i] = blockTx{wtxid: s.wtxid, txid: s.txid}
		switch {
		case s.peer != "":
			d.Pulled++
			if !slices.Contains(d.From, s.peer) {
				d.From = append(d.From, s.peer)
			}
		case t.isPrefilled(i):
			d.Prefilled++
		}
	}
	a.deliver(w, d, r)
	return true
}

func (a *Assembler) deliver(w *work, d Deliver, r *recentBlock) {
	d.Block, d.Height, d.Began, d.Asks, d.Bytes = w.hash, w.height, w.began, w.asked, w.pulledBytes
	a.remember(r)
	reflood := w.falseRelayed(a.cfg.Params, r)
	a.end(w, true)
	a.act(d)
	if reflood {
		a.act(Reflood{d.Block, d.Raw})
	}
}

// remember keeps a complete block for its rivals.
func (a *Assembler) remember(r *recentBlock) {
	if len(a.recent) >= maxRecent {
		a.recent = slices.Delete(a.recent, 0, 1)
	}
	a.recent = append(a.recent, r)
}

func (a *Assembler) giveUp(w *work, reason string) {
	g := GiveUp{Block: w.hash, Height: w.height, Reason: reason}
	for _, p := range w.announcers {
		if t := w.tried[p]; t == nil || !t.gone {
			g.From = p
		}
	}
	a.end(w, false)
	a.act(g)
}

// end ends the work on a block.
func (a *Assembler) end(w *work, complete bool) {
	for _, k := range w.asks {
		delete(a.asks, k.id)
		a.act(Cancel{k.id, k.peer})
	}
	w.asks, w.ended = nil, true
	a.works = slices.DeleteFunc(a.works, func(x *work) bool { return x == w })
	a.finish(w.hash, complete)
}

// finish remembers that a block needs no more work, or was tried.
func (a *Assembler) finish(hash chainhash.Hash, complete bool) {
	d := a.doneBlock(hash)
	d.hash, d.complete = hash, complete
	d.tries++
	a.done = slices.DeleteFunc(a.done, func(x doneBlock) bool { return x.hash == hash })
	if len(a.done) >= maxDone {
		a.done = slices.Delete(a.done, 0, 1)
	}
	a.done = append(a.done, d)
}

func (a *Assembler) doneBlock(hash chainhash.Hash) doneBlock {
	for _, d := range a.done {
		if d.hash == hash {
			return d
		}
	}
	return doneBlock{}
}
