package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/command"
	"dunlin/internal/simnet"
)

// TestMain lets this binary be the child process of a simulation, as the real one is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "simulate" {
		os.Exit(execute())
	}
	os.Exit(m.Run())
}

// A simulation in a process of its own gives figures of virtual time, and what it cost.
func TestSimulationProcess(t *testing.T) {
	r, err := runSims(t.Context(), "discovery", []simCase{
		{name: "few", sim: "join8", figure: "eight_s", unit: "s", bar: bar{Of: "ours", Value: 1}},
		{name: "wrong", sim: "none", figure: "eight_s"},
	}, simOptions{runs: 1, seed: 7}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	few, wrong := r.Rows[0], r.Rows[1]
	if few.Error != "" || few.Met == nil || !*few.Met || few.Ours.Median <= 0 {
		t.Errorf("%+v", few)
	}
	if len(r.Runs) != 1 || r.Runs[0].Seed != 7 || r.Runs[0].VirtualS < 10 || r.Runs[0].CPUS <= 0 {
		t.Errorf("%+v", r.Runs)
	}
	if wrong.Error == "" {
		t.Errorf("%+v", wrong)
	}
	var out bytes.Buffer
	if err := r.writeTable(&out); err != nil || !strings.Contains(out.String(), "simulation none") {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := r.finish(simOptions{bars: true}); err == nil || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
}

// A simulation ends at once when it is told to, though virtual time would hide a cancelled context from it.
func TestSimulationStops(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "simulate", "churn200", "1") // it takes minutes
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.Contains(line, "seed 1") {
		t.Errorf("it said %q, %v", line, err)
	}
	told := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %s", cmd.ProcessState)
	}
	t.Logf("it ended %s after it was told to", time.Since(told).Round(time.Millisecond))
}

func TestUnknownCases(t *testing.T) {
	for _, args := range [][]string{
		{"discovery", "--only", "x"},
		{"discovery", "--runs", "0"},
		{"flood", "--systems", "x"},
		{"simulate", "x", "1"},
		{"simulate", "join8", "x"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, io.Discard, &stderr); code != command.Misuse {
			t.Errorf("%v: exit %d: %s", args, code, &stderr)
		}
	}
}

// Each scenario of discovery, with few nodes.
func TestDiscoveryScenarios(t *testing.T) {
	t.Run("book", func(t *testing.T) {
		simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
			f, err := savedBook(n, 10, 10*time.Second)
			if err != nil || f["four_s"] <= 0 || f["four_s"] > f["eight_s"] {
				t.Errorf("%v, %v", f, err)
			}
		})
	})
	t.Run("split", func(t *testing.T) {
		simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
			f, err := splitAndHeal(n, 12, time.Minute)
			if err != nil || f["fewest"] < 4 || f["one_s"] <= 0 || f["four_s"] < f["one_s"] {
				t.Errorf("%v, %v", f, err)
			}
		})
	})
	t.Run("churn", func(t *testing.T) {
		simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
			f, err := churn(n, 10, 40*time.Second)
			if err != nil || f["replaced"] != 2 || f["fewest"] < 1 {
				t.Errorf("%v, %v", f, err)
			}
		})
	})
}

// Each way to flood brings a block to every node.
func TestFloodSystems(t *testing.T) {
	c := floodCase{nodes: 6, bytes: 100_000, txs: 250, missing: 0.05}
	for _, system := range floodSystems {
		t.Run(system, func(t *testing.T) {
			simnet.Test(t, simnet.Options{}, func(t *testing.T, n *simnet.Network) {
				f, err := floodThrough(n, c, system)
				if err != nil || f[figLost] != 0 || f[figP50] < 25 || f[figMax] < f[figP99] || f[figBlock] < 90_000 || f[figBlock] > 110_000 {
					t.Errorf("%v, %v", f, err)
				}
			})
		})
	}
}
