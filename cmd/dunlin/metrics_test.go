package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrape is what Prometheus reads of a daemon.
func (d *daemon) scrape() []byte {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+d.info.RPCAddr+"/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer w.Body.Close()
	raw, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode != http.StatusOK {
		d.t.Fatalf("%d, %v: %.200s", w.StatusCode, err, raw)
	}
	return raw
}

// lint checks metrics as promtool does, and with promtool itself if PROMTOOL names it.
func lint(t *testing.T, metrics []byte) {
	t.Helper()
	problems, err := promlint.New(bytes.NewReader(metrics)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if bytes.Contains(metrics, []byte("12D3Koo")) {
		t.Error("a peer's id is among the metrics")
	}
	promtool(t, metrics, "check", "metrics")
}

func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	program := os.Getenv("PROMTOOL")
	if program == "" {
		return
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

var metricName = regexp.MustCompile(`\b(?:dunlin|libp2p|go|process)_[a-z0-9_]+`)

// TestE2EMetrics: what Prometheus reads of a node that syncs follows its conventions, and the alerts and the dashboard
// in deploy know no metric that is not there.
func TestE2EMetrics(t *testing.T) {
	t.Parallel()
	first := startDaemon(t, "first", "--network", "regtest")
	tip := first.mine(150)
	second := startDaemon(t, "second", "--network", "regtest", "--bootstrap", first.addr())
	for synced := false; !synced; { // a few, while it syncs
		lint(t, second.scrape())
		s, err := second.status()
		if err != nil {
			t.Fatal(err)
		}
		synced = s.TipHash == tip.Hash || t.Failed()
		if !synced {
			second.reaches(tip.Hash, patience)
		}
	}
	// A node in sync collects more often than one that catches up, unless it is told how often.
	if os.Getenv("GOGC") == "" {
		eventually(t, patience, "memory is collected as at the tip", func() error {
			if percent, err := second.metric("go_gc_gogc_percent"); err != nil || percent != tipPercent {
				return fmt.Errorf("GOGC is %v, %w", percent, err)
			}
			return nil
		})
	}
	if alive, err := second.metric("go_gc_heap_live_bytes"); err != nil || alive <= 0 {
		t.Errorf("heap found alive: %v, %v", alive, err)
	}
	metrics := second.scrape()
	lint(t, metrics)
	lint(t, first.scrape())
	// A network where stake makes blocks has some more.
	staked := startDaemon(t, "staked", "--network", "stakenet").scrape()
	lint(t, staked)
	metrics = append(metrics, staked...)

	have := map[string]bool{}
	for line := range strings.Lines(string(metrics)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[1] == "HELP" {
			have[fields[2]] = true
		} else if name := metricName.FindString(line); name != "" && !strings.HasPrefix(line, "#") {
			have[name] = true
		}
	}
	deploy := filepath.Join("..", "..", "deploy")
	for _, file := range []string{filepath.Join(deploy, "prometheus", "alerts.yml"), filepath.Join(deploy, "grafana", "dunlin.json")} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := metricName.FindAllString(string(raw), -1)
		if len(used) < 10 {
			t.Errorf("%s uses %d metrics", file, len(used))
		}
		for _, name := range used {
			if !have[name] {
				t.Errorf("%s uses %s, which the node does not have", file, name)
			}
		}
	}
	promtool(t, nil, "check", "rules", filepath.Join(deploy, "prometheus", "alerts.yml"))
	promtool(t, nil, "check", "config", filepath.Join(deploy, "prometheus", "prometheus.yml"))
}

// TestE2EMetricsOfManyPeers: what Prometheus has to keep does not grow with the peers.
func TestE2EMetricsOfManyPeers(t *testing.T) {
	t.Parallel()
	const peers = 200
	d := startDaemon(t, "crowded", "--network", "regtest", "--max-inbound", "400")
	series := func() int { return bytes.Count(d.scrape(), []byte("\n")) }
	visit := func(n int) {
		t.Helper()
		addr, err := ma.NewMultiaddr(d.addr())
		if err != nil {
			t.Fatal(err)
		}
		info, err := peer.AddrInfoFromP2pAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = h.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err = h.Connect(ctx, *info) // it may be sent away, for it is a stranger
			over := ctx.Err() != nil
			cancel()
			if err != nil && over {
				t.Fatal(err)
			}
		}
	}
	came := func(n float64) {
		t.Helper()
		eventually(t, patience, fmt.Sprintf("%.0f connections are counted", n), func() error {
			sum := 0.0
			for line := range strings.Lines(string(d.scrape())) {
				if strings.HasPrefix(line, "libp2p_swarm_connections_opened_total{") {
					f, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
					if err != nil {
						return err
					}
					sum += f
				}
			}
			if sum < n {
				return fmt.Errorf("%.0f", sum)
			}
			return nil
		})
	}
	visit(5)
	came(5)
	few := series()
	visit(peers)
	came(peers / 2) // some may have met a limit of connections
	many := series()
	lint(t, d.scrape())
	t.Logf("%d lines with 5 peers, %d after %d more", few, many, peers)
	if many > few+few/4 {
		t.Errorf("%d lines of metrics with 5 peers, %d after %d more", few, many, peers)
	}
}
