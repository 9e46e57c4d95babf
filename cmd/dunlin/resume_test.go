package main

import (
	"fmt"
	"testing"
	"time"
)

// TestE2EResume kills a daemon in the middle of a sync. After the restart it is
// back at its height at once and asks only for what it had not stored: the
// server counts the bytes.
func TestE2EResume(t *testing.T) {
	t.Parallel()
	branch := realBranch(t)
	server := newDaemon(t, "server", "--network", "bitcoin", "--p2p-max-upload-kb-per-s", "1000")
	importRealBlocks(t, server.home)
	server.start()
	served := func() int64 {
		t.Helper()
		n, err := server.metric("dunlin_serve_bytes_total")
		if err != nil {
			t.Fatal(err)
		}
		return int64(n)
	}
	d := startDaemon(t, "victim", "--network", "bitcoin", "--bootstrap", server.addr())
	var height int32
	eventually(t, patience, "half of the blocks", func() error {
		if height = d.mustStatus().Height; height < 7000 {
			return fmt.Errorf("height %d", height)
		}
		return nil
	})
	d.kill9()
	eventually(t, patience, "the server has lost it", func() error { // and counts no more for it
		s, err := server.status()
		if err == nil && s.Peers.Inbound+s.Peers.Outbound > 0 {
			err = fmt.Errorf("%+v", s.Peers)
		}
		return err
	})
	before := served()
	d.start()
	began := time.Now()
	var back time.Duration
	eventually(t, patience, "the height before", func() error {
		if h := d.mustStatus().Height; h < height {
			return fmt.Errorf("height %d of %d", h, height)
		}
		back = time.Since(began)
		return nil
	})
	d.reaches(realTip, patience)
	var missing int64
	for _, raw := range branch.raws[height:] {
		missing += int64(len(raw))
	}
	got := served() - before
	t.Logf("killed at height %d, back after %v; %d bytes downloaded, %d were missing", height, back.Round(time.Millisecond), got, missing)
	figure(t, "daemons/resume", float64(got)/float64(missing))
	figure(t, "daemons/resume-back", milliseconds(back))
	if got > missing+missing/50 {
		t.Errorf("%d bytes downloaded after the restart, only %d were missing", got, missing)
	}
}
