package mempool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// MaxPackage is how many transactions a package has at most (Core's
// MAX_PACKAGE_COUNT).
const MaxPackage = maxAncestors

// A PackageError says why a package is refused. It wraps the *consensus.RuleError.
type PackageError struct {
	// At is the place of the transaction that was refused; -1: the package as a
	// whole was.
	At    int
	Fault error
}

// Error implements error.
func (e *PackageError) Error() string {
	if e.At < 0 {
		return e.Fault.Error()
	}
	return fmt.Sprintf("transaction %d of the package: %v", e.At, e.Fault)
}

// Unwrap returns the broken rule.
func (e *PackageError) Unwrap() error { return e.Fault }

// CheckPackage says what the entries of transactions would be that came one after
// the other, each of which may spend outputs of those before it. Nothing is added,
// nobody charged. As in Bitcoin Core's test of packages nothing may be replaced,
// and each must pay for itself. A refusal is a *PackageError; its rules beside those
// of Check are package-too-many-transactions (MaxPackage), package-too-large (weight
// 404,000), package-contains-duplicates, package-not-sorted, conflict-in-package and
// package-mempool-limits of the whole, and bip125-replacement-disallowed of one.
func (p *Pool) CheckPackage(ctx context.Context, txs []*wire.MsgTx) ([]Entry, error) {
	if err := checkPackage(txs); err != nil {
		return nil, &PackageError{At: -1, Fault: err}
	}
	for i, tx := range txs {
		if err := checkAlone(tx); err != nil {
			return nil, &PackageError{At: i, Fault: err}
		}
	}
	for range maxTries {
		if err := p.await(ctx); err != nil {
			return nil, err
		}
		out, err := p.tryPackage(ctx, txs)
		if errors.Is(err, errMoved) || errors.Is(err, chain.ErrBusy) {
			continue
		}
		return out, err
	}
	return nil, refuse("tip-moving", "%v", errMoved)
}

// checkPackage checks what a package shows by itself.
func checkPackage(txs []*wire.MsgTx) error {
	if len(txs) > MaxPackage {
		return refuse("package-too-many-transactions", "%d, at most %d", len(txs), MaxPackage)
	}
	var weight int64
	at := make(map[chainhash.Hash]int, len(txs))
	for i, tx := range txs {
		weight += newCandidate(tx, "").weight
		at[tx.TxHash()] = i
	}
	switch {
	case len(txs) > 1 && weight > maxFamilyWeight:
		return refuse("package-too-large", "weight %d, at most %d", weight, maxFamilyWeight)
	case len(at) < len(txs):
		return refuse("package-contains-duplicates", "")
	}
	for i, tx := range txs {
		for _, in := range tx.TxIn {
			if j, ok := at[in.PreviousOutPoint.Hash]; ok && j >= i {
				return refuse("package-not-sorted", "")
			}
		}
	}
	spent := make(map[wire.OutPoint]int)
	for i, tx := range txs {
		for _, in := range tx.TxIn {
			if j, ok := spent[in.PreviousOutPoint]; ok && j != i { // twice in one is that one's fault
				return refuse("conflict-in-package", "")
			}
			spent[in.PreviousOutPoint] = i
		}
	}
	return nil
}

// tryPackage adds the transactions to a pool of their own, which begins with those
// entries that they build on.
func (p *Pool) tryPackage(ctx context.Context, txs []*wire.MsgTx) ([]Entry, error) {
	scratch, err := New(Options{Chain: p.o.Chain, Now: p.o.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	here := p.lend(scratch, txs)
	out := make([]Entry, len(txs))
	for i, tx := range txs {
		err := here[i]
		if err == nil {
			err = scratch.onlyChild(tx)
		}
		if err == nil {
			_, err = scratch.try(ctx, newCandidate(tx, ""))
		}
		rule, refused := errors.AsType[*consensus.RuleError](err)
		switch {
		case refused && rule.Rule == "too-long-mempool-chain":
			return nil, &PackageError{At: -1, Fault: refuse("package-mempool-limits", "%s", rule.Detail)}
		case refused:
			return nil, &PackageError{At: i, Fault: err}
		case err != nil:
			return nil, err
		}
		e, ok := scratch.Get(tx.TxHash())
		if !ok {
			return nil, fmt.Errorf("transaction %s was not kept", tx.TxHash())
		}
		out[i] = e
	}
	return out, nil
}

// lend fills an empty pool with copies of the entries that txs build on, and says
// which of txs this pool has, or could take only in place of others.
func (p *Pool) lend(scratch *Pool, txs []*wire.MsgTx) (faults []error) {
	now := p.o.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	scratch.mu.Lock()
	defer scratch.mu.Unlock()
	scratch.tip, scratch.o.MinFeeRate = p.tip, p.minFeeRate(now)
	faults = make([]error, len(txs))
	for i, tx := range txs {
		if p.byID[tx.TxHash()] != nil {
			faults[i] = refuse("txn-already-in-mempool", "")
			continue
		}
		for _, in := range tx.TxIn {
			if r := p.spent[in.PreviousOutPoint]; r != nil && faults[i] == nil {
				faults[i] = conflict(in.PreviousOutPoint, r.ID, "bip125-replacement-disallowed", "%s spends the same output", r.ID)
			}
		}
		_, parents, _ := p.poolCoins(tx, 0)
		if faults[i] == nil && len(parents) >= maxAncestors {
			faults[i] = refuse("too-long-mempool-chain", "more than %d unconfirmed ancestors", maxAncestors-1)
		}
		if faults[i] != nil {
			continue // nothing after it is looked at
		}
		for _, parent := range parents {
			scratch.borrow(parent)
		}
	}
	return faults
}

// borrow adds a copy of another pool's entry, and of all that it builds on: 25
// in all. Their children are there to be counted only. Callers hold the locks of both.
func (p *Pool) borrow(e *entry) *entry {
	if own := p.byID[e.ID]; own != nil {
		return own
	}
	own := &entry{Entry: e.Entry, flags: e.flags, memory: e.memory, family: e.family}
	for _, parent := range e.parents {
		own.parents = append(own.parents, p.borrow(parent))
	}
	for _, child := range e.children {
		own.children = append(own.children, &entry{Entry: child.Entry})
	}
	p.byID[own.ID], p.byWID[own.WID] = own, own
	p.order.add(own)
	return own
}

// onlyChild refuses a second child of a transaction of version 3, which would take the
// place of the first.
func (p *Pool) onlyChild(tx *wire.MsgTx) error {
	if tx.Version != trucVersion {
		return nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, parents, _ := p.poolCoins(tx, 0)
	for _, parent := range parents {
		if len(parent.children) > 0 {
			return refuse("truc-violation", "%s has a child already, %s", parent.ID, parent.children[0].ID)
		}
	}
	return nil
}
