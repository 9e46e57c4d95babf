package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestParentsAreBounded: requests are served in order; neither one peer nor all of
// them can make them grow, and generations end.
func TestParentsAreBounded(t *testing.T) {
	p := newParents()
	ids := []chainhash.Hash{{1}}
	for range 2 * maxWantedPerPeer {
		p.want("greedy", ids)
	}
	if len(p.queue) != maxWantedPerPeer {
		t.Errorf("%d of one peer", len(p.queue))
	}
	for i := range 2 * maxWanted {
		p.want(peer.ID(fmt.Sprint(i)), ids)
	}
	p.want("empty", nil)
	p.add(wanted{"old", ids, maxGenerations})
	if len(p.queue) != maxWanted {
		t.Errorf("%d of all", len(p.queue))
	}
	for i := range maxWanted {
		w, err := p.next(t.Context())
		if want := peer.ID(fmt.Sprint(i - maxWantedPerPeer)); err != nil || i < maxWantedPerPeer && w.from != "greedy" || i >= maxWantedPerPeer && w.from != want {
			t.Fatalf("%d: %+v, %v", i, w, err)
		}
	}
	if len(p.of) != 0 {
		t.Errorf("%d peers are remembered", len(p.of))
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan wanted)
	go func() {
		w, _ := p.next(ctx)
		got <- w
	}()
	p.want("late", ids)
	if w := <-got; w.from != "late" {
		t.Errorf("%+v", w)
	}
	cancel()
	if _, err := p.next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
