package chain

import "errors"

// ErrClosed is returned when the chain is not running.
var ErrClosed = errors.New("chain: not running")

// ErrNotFound is returned when a block's bytes are not on disk.
var ErrNotFound = errors.New("chain: block not on disk")
