package main

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"dunlin/internal/api"
)

// errEnough ends a stream from inside.
var errEnough = errors.New("enough")

// hears follows events until f says that it has enough; it returns the last id.
func (d *daemon) hears(after string, types []string, f func(api.Event) bool) string {
	d.t.Helper()
	c, err := api.NewClient(d.info.RPCAddr, "")
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	err = c.Events(ctx, types, after, func(e api.Event) error {
		after = e.ID
		if f(e) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		d.t.Fatalf("the stream ended: %v", err)
	}
	return after
}

// TestE2EEvents: a node that follows another tells its blocks, goes on for a reader that was
// away during a reorganisation, and tells one that was away over a restart to begin anew.
func TestE2EEvents(t *testing.T) {
	t.Parallel()
	maker := startDaemon(t, "maker", "--network", "regtest")
	d := startDaemon(t, "told", "--network", "regtest", "--bootstrap", maker.addr())
	types := []string{api.EventBlock, api.EventReorg}
	var stale, last api.Block
	after := d.hears("", types, func(e api.Event) bool {
		switch e.Type {
		case api.EventHello:
			stale = maker.mine(2)
			return false
		case api.EventBlock:
			var b api.BlockEvent
			if err := json.Unmarshal(e.Data, &b); err != nil {
				t.Error(err)
			}
			return b.Hash == stale.Hash
		}
		return false
	})
	// The reader is away; the chain changes to another branch.
	rpcRaw(t, maker, `{"method":"invalidateblock","params":["`+stale.Hash+`"],"id":1}`)
	last = maker.mine(3)
	d.reaches(last.Hash, patience)
	reorgs, told := 0, map[string]int{}
	after = d.hears(after, types, func(e api.Event) bool {
		switch e.Type {
		case api.EventReset:
			t.Errorf("reset: %s", e.Data)
		case api.EventReorg:
			reorgs++
			var r api.ReorgEvent
			if err := json.Unmarshal(e.Data, &r); err != nil || r.Depth != 1 || r.OldHash != stale.Hash || r.ForkHeight != 1 {
				t.Errorf("%v %s", err, e.Data)
			}
			if len(told) > 0 {
				t.Error("a block of the new branch before the reorganisation")
			}
		case api.EventBlock:
			var b api.BlockEvent
			if err := json.Unmarshal(e.Data, &b); err != nil {
				t.Error(err)
			}
			told[b.Hash]++
			return b.Hash == last.Hash
		}
		return false
	})
	if reorgs != 1 || told[last.Hash] != 1 || told[stale.Hash] != 0 {
		t.Errorf("%d reorganisations, blocks %v", reorgs, told)
	}
	// Another run of the node has other ids.
	d.stop()
	d.start()
	d.hears(after, types, func(e api.Event) bool { return e.Type == api.EventReset })
}
