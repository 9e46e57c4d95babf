//go:build slow

package gossip_test

import (
	"testing"
	"time"
)

// TestSlowSiege: twenty honest nodes among twenty hostile ones of all kinds, for two
// and a half minutes. 99% of the blocks reach all, and the mean delay at most doubles.
// How fast meshes settle differs between sieges (1.5 to 1.8 times in nine), so the
// delay is that of two. The time to the last node is logged.
func TestSlowSiege(t *testing.T) {
	kinds := []string{
		"silent", "silent", "silent", "silent", "silent", "censor", "censor", "censor", "censor", "replayer", "replayer",
		"invalid", "invalid", "wanter", "subscriber", "liar", "bomber", "equivocator", "equivocator", "grafter",
	}
	quiet, _ := besiege(t, 20, nil, 24, 6*time.Second)
	var mean time.Duration
	const sieges = 2
	for range sieges {
		loud, _ := besiege(t, 20, kinds, 24, 6*time.Second)
		if loud.share < 0.99 {
			t.Errorf("%.1f%% arrived, want 99%%", 100*loud.share)
		}
		mean += loud.mean / sieges
	}
	if mean > 2*quiet.mean {
		t.Errorf("mean delay %v, without attackers %v", mean, quiet.mean)
	}
}
