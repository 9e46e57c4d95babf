//go:build slow

package gossip_test

import (
	"testing"
	"time"
)

// TestSlowSiege: twenty honest nodes among twenty hostile ones of all kinds, for two
// and a half minutes. 99% of the blocks reach all, and the delay at most doubles:
// by the whole run, in which the meshes have yet to find out who is who (1.5 to 1.7
// times in six runs), and by its second half (1.2 to 1.3 times). The time to the
// last node is logged.
func TestSlowSiege(t *testing.T) {
	kinds := []string{
		"silent", "silent", "silent", "silent", "silent", "censor", "censor", "censor", "censor", "replayer", "replayer",
		"invalid", "invalid", "wanter", "subscriber", "liar", "bomber", "equivocator", "equivocator", "grafter",
	}
	quiet, _ := besiege(t, 20, nil, 24, 6*time.Second)
	loud, later := besiege(t, 20, kinds, 24, 6*time.Second)
	if loud.share < 0.99 {
		t.Errorf("%.1f%% arrived, want 99%%", 100*loud.share)
	}
	if loud.mean > 2*quiet.mean || later.mean > 2*quiet.mean {
		t.Errorf("mean delay %v, in the second half %v; without attackers %v", loud.mean, later.mean, quiet.mean)
	}
}
