package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestE2EPrune: a home of real blocks, pruned on request and while it syncs, is
// sound, goes on as a node, says what it lacks, and is not asked for it.
func TestE2EPrune(t *testing.T) {
	t.Parallel()
	small := []string{"--network", "bitcoin", "--storage-file-mb", "1"}
	server := newDaemon(t, "server", small...)
	file := testData(t, "chain/mainnet-blocks-0-14131.dat.zst")
	run := func(want int, args ...string) string {
		t.Helper()
		out, errs, code := dunlin(t, nil, args...)
		if code != want {
			t.Fatalf("%v: exit %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out + errs
	}
	with := func(home string, command ...string) []string {
		return append(append(append([]string{"chain"}, command...), "--home", home), small...)
	}
	run(0, with(server.home, "import", file)...)
	run(2, with(server.home, "prune")...)

	whole := verified(t, with(server.home, "verify", "-o", "json"))
	if whole.Coins != 13416 || whole.Supply != 706_550*1e8 || whole.Claimed == nil || *whole.Claimed != whole.Supply || whole.Reconnected != 6 {
		t.Errorf("verify: %+v", whole)
	}

	// A syncing node prunes as it goes.
	server.start()
	client := startDaemon(t, "client", append(small, "--bootstrap", server.addr(), "--prune-mb", "1", "--storage-flush-blocks", "500")...)
	client.reaches(realTip, patience)
	eventually(t, patience, "it prunes", func() error {
		if !strings.Contains(client.log.String(), "pruned") {
			return fmt.Errorf("no line says so")
		}
		return nil
	})
	if _, err := client.client.Block(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "not on disk") {
		t.Errorf("block 1: %v", err)
	}
	// Whoever joins by it alone gets the headers, and waits for somebody who has the blocks.
	late := startDaemon(t, "late", append(small, "--bootstrap", client.addr())...)
	eventually(t, patience, "headers", func() error {
		s, err := late.status()
		if err == nil && s.HeaderHeight != 14131 {
			err = fmt.Errorf("at %d", s.HeaderHeight)
		}
		return err
	})
	server.stop()
	client.stop()
	late.stop()

	out := run(0, with(server.home, "prune", "--keep-mb", "1")...)
	if !strings.Contains(out, "removed") || strings.Contains(out, "removed 0") {
		t.Errorf("prune: %s", out)
	}
	for _, d := range []*daemon{server, client} {
		if _, err := os.Stat(filepath.Join(d.home, "blocks", "00000.blk")); !os.IsNotExist(err) {
			t.Errorf("%s: the first block file is there: %v", d.name, err)
		}
		v := verified(t, with(d.home, "verify", "--depth", "100", "-o", "json"))
		if v.Lowest == 0 || v.Lowest > 14131-287 || v.Coins != whole.Coins || v.Supply != whole.Supply || v.Reconnected != 100 || v.Claimed != nil {
			t.Errorf("%s: %+v", d.name, v)
		}
		if out := run(1, with(d.home, "reindex")...); !strings.Contains(out, "was pruned") || !strings.Contains(out, "rm -r ") {
			t.Errorf("%s: reindex: %s", d.name, out)
		}
		verified(t, with(d.home, "verify", "-o", "json")) // it changed nothing
	}
}

// verified runs a verify that must find no fault.
func verified(t *testing.T, args []string) (v verifyAnswer) {
	t.Helper()
	out, errs, code := dunlin(t, nil, args...)
	if code != 0 {
		t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if v.FaultCount != 0 || v.Faults == nil {
		t.Errorf("%+v", v)
	}
	return v
}
