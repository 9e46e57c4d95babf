package node

import (
	"testing"

	"dunlin/internal/api"
)

// A node catches up until it was in sync, and again when it is far behind; a few blocks at the tip change nothing.
func TestCatchesUp(t *testing.T) {
	var s sampler
	for i, x := range []struct {
		state  string
		behind int32
		want   bool
	}{
		{api.StateStarting, 0, true},
		{api.StateHeaders, 0, true},
		{api.StateBlocks, 3, true},
		{api.StateSynced, 0, false},
		{api.StateBlocks, 1, false},
		{api.StateStalled, catchUpBlocks, false},
		{api.StateBlocks, catchUpBlocks + 1, true},
		{api.StateBlocks, 2, false},
		{api.StateSynced, 0, false},
	} {
		if got := s.catchesUp(api.Sync{SyncStatus: api.SyncStatus{State: x.state}, Height: 1000, HeaderHeight: 1000 + x.behind}); got != x.want {
			t.Errorf("%d: %s, %d behind: %v", i, x.state, x.behind, got)
		}
	}
}
