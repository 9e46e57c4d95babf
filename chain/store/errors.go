package store

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked says that another process (or another Store of this one) has
	// the home open.
	ErrLocked = errors.New("is in use by another dunlin")
	// ErrNewerFormat says that a later version of dunlin wrote the home.
	ErrNewerFormat = errors.New("was written by a newer dunlin")
	// ErrOtherChain says that the home belongs to another network.
	ErrOtherChain = errors.New("belongs to another chain")
	// ErrPruned says that block files were removed on purpose that would be needed.
	ErrPruned = errors.New("was pruned")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// reindex is the mend of everything that can be rebuilt from the block files.
const reindex = "dunlin chain reindex"

// A DamageError says that bytes on disk are not what was written: a flipped
// bit, a truncated or a missing file. It is never the fault of a peer.
type DamageError struct {
	File   string // relative to the home: "blocks/00003.blk", "index"
	Offset int64  // of the damaged record in File; -1 if unknown
	What   string // what is wrong: the value seen and what would be right
	Mend   string // the command that repairs it
	Err    error  // the cause, if a library found the damage; else nil
}

// Error names the file, the place, the fault and the command that mends it.
func (e *DamageError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("damage in %s: %s; stop dunlin and run `%s`", e.File, e.What, e.Mend)
	}
	return fmt.Sprintf("damage in %s at byte %d: %s; stop dunlin and run `%s`", e.File, e.Offset, e.What, e.Mend)
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }
