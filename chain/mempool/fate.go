package mempool

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A Cause is why a transaction left without being mined.
type Cause uint8

// The causes. Their numbers are in the file (docs/storage.md).
const (
	// Conflicted: a block has another transaction that spends the same output.
	Conflicted Cause = iota + 1
	// Invalid: after a reorganisation it is not valid any more, for another reason.
	Invalid
	// Replaced: the pool has, or had, another one that spends the same output.
	Replaced
	// Evicted: others pay more, or it did not fit when it came back from a block.
	Evicted
	// Expired: it was not mined within Options.Expiry.
	Expired
)

var causeNames = map[Cause]string{
	Conflicted: "conflicted", Invalid: "invalid", Replaced: "replaced", Evicted: "evicted", Expired: "expired",
}

// String is the name that users see.
func (c Cause) String() string {
	if name, ok := causeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// A Fate says why a transaction that was in the pool or in a block no longer is.
type Fate struct {
	Seq   uint64 // rises with each; 0: from before the start
	ID    chainhash.Hash
	Cause Cause
	Rule  string // of Invalid and Evicted: the rule that it breaks
	At    time.Time

	// By spends the same output (Conflicted, Replaced); Block, at Height, has it
	// (Conflicted).
	By     chainhash.Hash
	Block  chainhash.Hash
	Height int32
	// Via is the ancestor of ID that spends that output; zero if ID does itself.
	Via chainhash.Hash
	// Was is the block that had the transaction until a reorganisation
	// disconnected it, at WasHeight; zero if it was never in one.
	Was       chainhash.Hash
	WasHeight int32
}

// lost says whether somebody may have counted on the transaction in vain: it was
// in a block, or a block made it impossible.
func (f *Fate) lost() bool {
	return f.Cause == Conflicted || f.Cause == Invalid || f.Was != chainhash.Hash{}
}

// maxFates is how many fates are remembered, of lost ones and of others each.
// Others are cheap to cause, and must not push out lost ones.
const maxFates = 2048

// fateBook remembers fates, the oldest forgotten first. It is guarded by Pool.mu.
type fateBook struct {
	seq         uint64
	byID        map[chainhash.Hash]*Fate // the last of each
	lost, other []*Fate                  // by age
	lostEver    uint64                   // since the start
	added       chan struct{}            // closed and replaced when lost grows
}

func newFateBook() fateBook {
	return fateBook{byID: make(map[chainhash.Hash]*Fate), added: make(chan struct{})}
}

func (b *fateBook) add(f Fate) Fate {
	b.seq++
	f.Seq = b.seq
	b.keep(f)
	if f.lost() {
		b.lostEver++
		close(b.added)
		b.added = make(chan struct{})
	}
	return f
}

// keep remembers a fate without telling anybody.
func (b *fateBook) keep(f Fate) {
	book := &b.other
	if f.lost() {
		book = &b.lost
	}
	if len(*book) >= maxFates {
		old := (*book)[0]
		if b.byID[old.ID] == old {
			delete(b.byID, old.ID)
		}
		(*book)[0] = nil
		*book = (*book)[1:]
	}
	*book = append(*book, &f)
	b.byID[f.ID] = &f
}

// forget is for a transaction that is back. What was told of it stays told.
func (b *fateBook) forget(id chainhash.Hash) { delete(b.byID, id) }

// Fate returns what became of a transaction that left the pool or the chain, if
// it is among the last few thousand and did not come back.
func (p *Pool) Fate(txid chainhash.Hash) (Fate, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	f, ok := p.fates.byID[txid]
	if !ok {
		return Fate{}, false
	}
	return *f, true
}

// Lost returns the fates after number after, by age, of transactions that
// somebody may have counted on in vain: those that were in a block, and those
// that a block made impossible, since the start. The channel is closed when there
// is another. Of very many between two calls only the last 2048 are there.
func (p *Pool) Lost(after uint64) ([]Fate, <-chan struct{}) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var out []Fate
	for _, f := range p.fates.lost {
		if f.Seq > after {
			out = append(out, *f)
		}
	}
	return out, p.fates.added
}

// LostCount returns how many transactions were lost since the start.
func (p *Pool) LostCount() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.fates.lostEver
}

// bury records the fate of a transaction. Callers hold mu.
func (p *Pool) bury(f Fate, now time.Time) Fate {
	f.At = now
	p.changes++
	return p.fates.add(f)
}

// A ConflictError refuses a transaction because another one spends the same
// output. It wraps the *consensus.RuleError that says which rule is broken.
type ConflictError struct {
	Fault  *consensus.RuleError
	Output wire.OutPoint  // zero if it is another child of the same parent (BIP431)
	By     chainhash.Hash // the other transaction
	// Block, at Height, has the other transaction; zero if it is in the pool.
	Block  chainhash.Hash
	Height int32
}

// Error implements error.
func (e *ConflictError) Error() string { return e.Fault.Error() }

// Unwrap returns the broken rule.
func (e *ConflictError) Unwrap() error { return e.Fault }

// conflict makes a ConflictError for an output that an entry spends.
func conflict(op wire.OutPoint, by chainhash.Hash, rule, format string, args ...any) error {
	return &ConflictError{
		Fault:  &consensus.RuleError{Rule: rule, Blame: consensus.BlameNobody, Detail: fmt.Sprintf(format, args...)},
		Output: op, By: by,
	}
}
