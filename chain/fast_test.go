//go:build !slow

package chain_test

import "time"

// slow says that the long versions of tests are wanted.
const slow = false

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute
