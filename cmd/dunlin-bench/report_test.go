package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was written with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func exampleReport() *report {
	r := &report{
		Bench: "ibd", At: time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC), Runs: 3,
		Machine: machine{OS: "linux", Arch: "amd64", Go: "go1.26.8", CPUs: 2, MemoryBytes: 25e9, LoadBefore: 0.4},
		Dunlin:  "dunlin v0.1.0 (go1.26.8, linux/amd64)", Btcd: "btcd version 0.26.2-beta",
		Rows: []row{
			{
				Case: "tiny", What: "empty blocks", Unit: "blk/s", Ours: figuresOf([]float64{47519, 43144, 45000}),
				Btcd: figuresOf([]float64{4037, 4253, 4100}), Bar: bar{Of: "ratio", Least: true, Value: 3, Aim: 5},
			},
			{
				Case: "full", What: "signatures", Unit: "s", Ours: figuresOf([]float64{80, 82}),
				Btcd: figuresOf([]float64{84, 86}), Bar: bar{Of: "ratio", Value: 0.9, Aim: 0.75},
			},
			{Case: "links", What: "slow links", Unit: "s", Ours: figuresOf([]float64{17.25}), Bar: bar{Of: "ours", Value: 22}, Note: "dunlin used 0.95 of the links' sum (aim: 0.93)"},
			{Case: "fat", What: "alone", Unit: "MB/s", Ours: figuresOf([]float64{212.4}), Bar: bar{Of: "ratio", Least: true, Value: 1.5}},
			{
				Case: "kill9", What: "killed", Unit: "s", Ours: figuresOf([]float64{1.94, 0}), Btcd: figuresOf([]float64{134.2}),
				Bar: bar{Of: "ours", Value: 5, Aim: 2},
			},
			{Case: "freeze", What: "frozen", Unit: "s", Bar: bar{Of: "ours", Value: 3, Aim: 1.5}, Error: "btcd, run 1: did not start"},
		},
		Samples: []sample{{Case: "tiny", System: "dunlin", Run: 1, WallS: 0.42, FirstS: 0.06, GapS: 0.03, CPUS: 0.5, PeakBytes: 87e6}},
	}
	for i := range r.Rows {
		r.Rows[i].judge()
	}
	return r
}

func TestTable(t *testing.T) {
	var b strings.Builder
	r := exampleReport()
	if err := r.writeTable(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.String())
	if got := r.barred(); got != "full, freeze" {
		t.Errorf("not met: %s", got)
	}
}

func TestReportJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r := exampleReport()
	for range 2 { // the second replaces the first
		if err := writeJSON(path, r); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", string(raw))
	var back report
	if err := json.Unmarshal(raw, &back); err != nil || *back.Rows[0].Met != true || back.Rows[3].Met != nil {
		t.Errorf("%v, %+v", err, back.Rows)
	}
	if err := writeJSON(filepath.Join(path, "x"), r); err == nil {
		t.Error("a folder that is none was written to")
	}
}

func TestFigures(t *testing.T) {
	if f := figuresOf([]float64{4, 1, 3, 2}); f.Median != 2.5 || f.Min != 1 || f.Max != 4 {
		t.Errorf("%+v", f)
	}
	if figuresOf(nil) != nil || ratioOf(nil, figuresOf([]float64{1})) != nil || ratioOf(figuresOf([]float64{1}), figuresOf([]float64{0})) != nil {
		t.Error("figures of nothing")
	}
	// Paired run by run; what has no partner counts in the medians only.
	r := ratioOf(figuresOf([]float64{10, 40, 30}), figuresOf([]float64{5, 10}))
	if r.Median != 4 || r.Min != 2 || r.Max != 4 {
		t.Errorf("%+v", r)
	}
}

// TestWatch: the longest gap counts from the first block to the last.
func TestWatch(t *testing.T) {
	start := time.UnixMilli(0)
	w := watch{started: start}
	for _, s := range []struct {
		ms     int64
		height int32
	}{{0, 0}, {900, 0}, {1000, 5}, {1100, 6}, {1800, 6}, {2100, 7}, {2200, 9}, {9000, 9}} {
		w.see(s.height, time.UnixMilli(s.ms))
	}
	if w.height != 9 || w.gap != time.Second || w.first.Sub(start) != time.Second || w.last.Sub(start) != 2200*time.Millisecond {
		t.Errorf("%+v", w)
	}
}
