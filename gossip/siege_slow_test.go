//go:build slow

package gossip_test

import (
	"testing"
	"time"
)

// TestSlowSiege: twenty honest nodes among twenty hostile ones of all kinds, for two
// and a half minutes. The aim is that 99% of the blocks reach all and that the delay at
// most doubles; where the hostile happen to sit moves both, so what is asserted has
// room, and the log has the figures.
func TestSlowSiege(t *testing.T) {
	kinds := []string{
		"silent", "silent", "silent", "silent", "silent", "censor", "censor", "censor", "censor", "replayer", "replayer",
		"invalid", "invalid", "wanter", "subscriber", "liar", "bomber", "equivocator", "equivocator", "grafter",
	}
	quiet, _ := besiege(t, 20, nil, 24, 6*time.Second)
	loud, later := besiege(t, 20, kinds, 24, 6*time.Second)
	if loud.share < 0.97 {
		t.Errorf("%.1f%% arrived", 100*loud.share)
	}
	if later.mean > 3*quiet.mean {
		t.Errorf("mean delay %v, without attackers %v", later.mean, quiet.mean)
	}
}
