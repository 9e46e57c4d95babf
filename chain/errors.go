package chain

import (
	"errors"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// ErrClosed is returned when the chain is not running.
var ErrClosed = errors.New("chain: not running")

// ErrNotFound is returned when a block's bytes are not on disk.
var ErrNotFound = errors.New("chain: block not on disk")

// ErrPruned is returned for what needs blocks or undo data that were pruned.
var ErrPruned = store.ErrPruned

// ErrDamaged is returned for what needs a block whose bytes on disk are damaged.
var ErrDamaged = errors.New("is damaged on disk")

// ErrBusy is returned for a coin during a reorganisation so deep that the coins
// of the published tip are not at hand. Ask again after the next change of tip.
var ErrBusy = errors.New("chain: coins are not at hand during a deep reorganisation")

// ErrLowDisk is the verdict on blocks that somebody waits for while the disk is
// too full to store them.
var ErrLowDisk = errors.New("chain: too little free disk space")

// LowDisk says that no block is accepted because less than Options.MinFreeBytes
// are free. It ends by itself when there is space again.
func (c *Chain) LowDisk() bool { return c.lowDisk.Load() }

// errReindexing refuses what would stand in the way of a reindex.
var errReindexing = errors.New("a reindex is not finished, start dunlin and let it sync")

// errStopping ends the conductor when its context does.
var errStopping = errors.New("chain: stopping")

func ruleError(rule string, blame consensus.Blame, detail string) *consensus.RuleError {
	return &consensus.RuleError{Rule: rule, Blame: blame, Detail: detail}
}

// asRule returns err as a broken rule, or nil if it is our own trouble.
func asRule(err error) *consensus.RuleError {
	if r, ok := errors.AsType[*consensus.RuleError](err); ok {
		return r
	}
	return nil
}
