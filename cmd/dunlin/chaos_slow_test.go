//go:build slow

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/testnet"
)

// TestChaos: a testnet of real processes is killed, suspended, cut off, restarted and misled at seed 1. In the end all are on
// one chain, and nothing that was acknowledged is lost. With DUNLIN_LONG=1 it is ten nodes and five minutes, and nothing that a
// process holds may have grown; an hour of the same is the command in docs/operations.md.
//
// The verdict's limits of time are not those of a machine that runs other tests beside: the figures are logged.
func TestChaos(t *testing.T) {
	t.Parallel()
	nodes, lasts, every, warm := "6", 30*time.Second, 2*time.Second, time.Duration(0)
	if long() {
		// The first quarter is not to be that in which processes grow for the first time.
		nodes, lasts, every, warm = "10", 5*time.Minute, 5*time.Second, 45*time.Second
	}
	dir := filepath.Join(t.TempDir(), "net")
	up := startTestnet(t, "up", "--dir", dir, "-n", nodes, "--topology", "random", "--miners", "3", "--txs", "4", "--spacing", "2s")
	up.tells(t, nodes+` of `+nodes+` nodes answer and agree on block \d+; transactions: [1-9]\d* acknowledged, [1-9]`)
	began := time.Now()
	eventually(t, patience, "processes are warm", func() error {
		if time.Since(began) < warm {
			return fmt.Errorf("%v of %v", time.Since(began), warm)
		}
		return nil
	})
	out, story, code := dunlin(t, nil, "testnet", "chaos", "--dir", dir, "--seed", "1", "--for", lasts.String(), "--every", every.String(),
		"--max-restart", patience.String(), "-o", "json")
	t.Logf("%s", story)
	var v testnet.Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("exit %d: %v\n%s", code, err, out)
	}
	t.Logf("\n%s", strings.Join(v.Lines(), "\n"))
	if len(v.Faults) > 0 || code != 0 {
		t.Errorf("exit %d, faults: %s", code, strings.Join(v.Faults, "\n"))
	}
	if v.Tip == "" || v.Compared <= int(v.Height) || v.Blocks.Acked == 0 || v.Blocks.Lost > 0 || v.Txs.Acked == 0 || v.Txs.Lost > 0 || v.Restarts.Count == 0 || len(v.Events) != len(testnet.Kinds) {
		t.Errorf("it shows too little: %+v", v)
	}
	if long() {
		judged := 0
		for _, f := range v.Flat {
			if f.Judged {
				judged++
			}
		}
		if judged < 3 {
			t.Errorf("memory, goroutines and files were not judged: %+v", v.Flat)
		}
	}
	page, errs, code := dunlin(t, nil, "testnet", "report", "--dir", dir)
	if raw, err := os.ReadFile(strings.TrimSpace(page)); code != 0 || err != nil || !strings.Contains(string(raw), "What chaos did") {
		t.Errorf("report: exit %d, %v\n%s", code, err, errs)
	}
	if err := up.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	up.ends(t)
	if left := processesWith(t, dir); len(left) > 0 {
		t.Errorf("still running:\n%s", strings.Join(left, "\n"))
	}
}
