// Package chaintest is for tests of whatever builds on a chain. It is not for
// production and keeps no state.
package chaintest

import (
	"context"
	"testing"

	"dunlin/chain"
)

// Audit opens a chain that has been closed and fails the test if something in its
// home is not as it should be: above all, every coin counted, the coins must be
// worth the subsidies that the blocks of the active chain claimed. (While a chain
// runs it checks that after each block by itself, from what the block changes.)
// A test calls it when it has done everything else; if it failed before, Audit
// does nothing.
func Audit(tb testing.TB, o chain.Options) {
	tb.Helper()
	if tb.Failed() {
		return
	}
	o.Reindex = false // as it is
	c, err := chain.Open(o)
	if err != nil {
		tb.Errorf("audit: %v", err)
		return
	}
	defer func() {
		if err := c.Close(); err != nil {
			tb.Errorf("audit: closing: %v", err)
		}
	}()
	r, err := c.Verify(context.WithoutCancel(tb.Context()), chain.VerifyOptions{})
	if err != nil {
		tb.Errorf("audit: %v", err)
	}
	for _, f := range r.Faults {
		tb.Errorf("audit: %v", f)
	}
	if r.Claimed >= 0 && r.Claimed != r.Supply { // below 0: blocks are pruned
		tb.Errorf("audit: %d coins are worth %d satoshi, %d were claimed", r.Coins, r.Supply, r.Claimed)
	}
}
