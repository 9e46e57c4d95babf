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

	"dunlin/config"
	"dunlin/internal/testnet"
)

// TestChaos: testnets of real processes are killed, suspended, cut off, restarted and misled at seed 1, one where work makes blocks and one
// where stake does. In the end all nodes of each are on one chain, and nothing that was acknowledged is lost. With DUNLIN_LONG=1 it is ten nodes
// and five minutes, and nothing that a process holds may have grown; an hour of the same is the command in docs/operations.md.
//
// The verdict's limits of time are not those of a machine that runs other tests beside: the figures are logged.
func TestChaos(t *testing.T) {
	t.Parallel()
	for engine, run := range map[string]chaosRun{
		config.EnginePoW: {nodes: 6, spacing: "2s", lasts: 24 * time.Second, every: 2 * time.Second},
		config.EnginePoS: {nodes: 5, spacing: "4s", lasts: 24 * time.Second, every: 2 * time.Second},
	} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			if long() && engine == config.EnginePoW {
				// The first quarter is not to be that in which processes grow for the first time.
				run = chaosRun{nodes: 10, spacing: "2s", lasts: 5 * time.Minute, every: 5 * time.Second, warm: 45 * time.Second, grows: true}
			}
			run.do(t, engine)
		})
	}
}

// A chaosRun is one testnet and what is done to it.
type chaosRun struct {
	nodes              int
	spacing            string
	lasts, every, warm time.Duration
	grows              bool // whether it has grown is judged
}

func (r *chaosRun) do(t *testing.T, engine string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	up := startTestnet(t, "up", "--dir", dir, "-n", fmt.Sprint(r.nodes), "--engine", engine, "--topology", "random", "--miners", "3", "--txs", "4", "--spacing", r.spacing)
	up.tells(t, fmt.Sprintf(`%d of %[1]d nodes answer and agree on block \d+; transactions: [1-9]\d* acknowledged, [1-9]`, r.nodes))
	began := time.Now()
	eventually(t, patience, "processes are warm", func() error {
		if time.Since(began) < r.warm {
			return fmt.Errorf("%v of %v", time.Since(began), r.warm)
		}
		return nil
	})
	out, story, code := dunlin(t, nil, "testnet", "chaos", "--dir", dir, "--seed", "1", "--for", r.lasts.String(), "--every", r.every.String(),
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
	if r.grows {
		judged := 0
		for _, f := range v.Flat {
			if f.Judged {
				judged++
			}
		}
		if judged < 4 {
			t.Errorf("memory, heap, goroutines and files were not judged: %+v", v.Flat)
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
