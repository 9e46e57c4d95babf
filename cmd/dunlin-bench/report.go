package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is what one command measured: the table for people, the same and each
// single run as JSON for machines.
type report struct {
	Bench   string    `json:"bench"`
	At      time.Time `json:"at"`
	Machine machine   `json:"machine"`
	Dunlin  string    `json:"dunlin"` // version
	Btcd    string    `json:"btcd,omitempty"`
	Peer    string    `json:"peer,omitempty"` // what the other figures are of; btcd if it is not given
	Runs    int       `json:"runs"`           // asked for; a row has how many there were
	Rows    []row     `json:"rows"`
	Samples []sample  `json:"samples"`
}

type machine struct {
	OS          string  `json:"os"`
	Arch        string  `json:"arch"`
	Go          string  `json:"go"` // of this tool
	CPUs        int     `json:"cpus"`
	Model       string  `json:"model,omitempty"`
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	LoadBefore  float64 `json:"load_before"` // processes that wanted to run over the minute before
}

func thisMachine() machine {
	m := machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), CPUs: runtime.NumCPU(), LoadBefore: load()}
	m.Model, m.MemoryBytes = describeMachine()
	return m
}

// A sample is one run of one system.
type sample struct {
	Case       string  `json:"case"`
	System     string  `json:"system"`
	Run        int     `json:"run"` // from 1
	WallS      float64 `json:"wall_s"`
	FirstS     float64 `json:"first_block_s"` // from the start of the process
	GapS       float64 `json:"longest_gap_s"` // without a change of the tip, from the first block on
	CPUS       float64 `json:"cpu_s"`         // of the client
	PeakBytes  int64   `json:"peak_bytes"`    // resident memory of the client
	FrozenAt   int32   `json:"frozen_at,omitempty"`
	KilledAt   int32   `json:"killed_at,omitempty"`
	RecoveredS float64 `json:"recovered_s,omitempty"` // from listening again until the height of the kill is reached
	LinksShare float64 `json:"links_share,omitempty"` // of what the throttled links could have carried
}

// figures are the values of several runs.
type figures struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Runs   []float64 `json:"runs"`
}

func figuresOf(runs []float64) *figures {
	if len(runs) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(runs))
	n := len(sorted)
	return &figures{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Runs: runs}
}

// ratioOf is the ratio of the medians, with the least and the greatest ratio of two
// runs that followed one another.
func ratioOf(ours, theirs *figures) *figures {
	if ours == nil || theirs == nil || theirs.Median == 0 {
		return nil
	}
	var pairs []float64
	for i := range min(len(ours.Runs), len(theirs.Runs)) {
		if theirs.Runs[i] != 0 {
			pairs = append(pairs, ours.Runs[i]/theirs.Runs[i])
		}
	}
	r := figuresOf(pairs)
	if r != nil {
		r.Median = ours.Median / theirs.Median
	}
	return r
}

// A bar is what a figure has to reach.
type bar struct {
	Of    string  `json:"of"`    // "ratio" to the other system, or "ours"
	Least bool    `json:"least"` // at least; else at most
	Value float64 `json:"value"`
	Aim   float64 `json:"aim,omitempty"` // what would be good; 0: nothing more
}

// A row is one line of the table.
type row struct {
	Case  string   `json:"case"`
	What  string   `json:"what"`
	Unit  string   `json:"unit"`
	Ours  *figures `json:"ours"`
	Btcd  *figures `json:"btcd"`
	Ratio *figures `json:"ratio"`
	Bar   bar      `json:"bar"`
	Met   *bool    `json:"met"` // nil: not judged
	Note  string   `json:"note,omitempty"`
	Error string   `json:"error,omitempty"`
}

// judge fills what follows from the figures.
func (r *row) judge() {
	r.Ratio = ratioOf(r.Ours, r.Btcd)
	judged := r.Ours
	if r.Bar.Of == "ratio" {
		judged = r.Ratio
	}
	if judged == nil {
		return
	}
	met := judged.Median <= r.Bar.Value
	if r.Bar.Least {
		met = judged.Median >= r.Bar.Value
	}
	r.Met = &met
}

// writeTable writes the report for people.
func (r *report) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "dunlin-bench %s · %s · %d cpus", r.Bench, r.At.Format("2006-01-02 15:04 MST"), r.Machine.CPUs)
	if r.Machine.MemoryBytes > 0 {
		fmt.Fprintf(w, ", %.0f GB", float64(r.Machine.MemoryBytes)/1e9)
	}
	fmt.Fprintf(w, ", %s/%s · load %.1f before · loopback\n%s\n", r.Machine.OS, r.Machine.Arch, r.Machine.LoadBefore, r.Dunlin)
	if r.Btcd != "" {
		fmt.Fprintln(w, r.Btcd)
	}
	ours, theirs := "dunlin", "btcd"
	if r.Peer != "" {
		ours, theirs = r.Bench, r.Peer
	}
	fmt.Fprintf(w, "medians (least to greatest); ratio: %s's to %s's, run for run in turns\n", ours, theirs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nCASE\tWHAT\t%s\t%s\tRATIO\tBAR\tAIM\tMET\n", strings.ToUpper(ours), strings.ToUpper(theirs))
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Case, row.What, row.Ours.text(" "+row.Unit), row.Btcd.text(" "+row.Unit),
			row.Ratio.text("×"), row.limit(row.Bar.Value), row.limit(row.Bar.Aim), verdict(row.Met))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	notes := false
	for _, row := range r.Rows {
		for _, text := range []string{row.Note, row.Error} {
			if text == "" {
				continue
			}
			if !notes {
				fmt.Fprintln(w)
				notes = true
			}
			fmt.Fprintf(w, "%s: %s\n", row.Case, text)
		}
	}
	return nil
}

// limit writes a bar or an aim; nothing for 0.
func (r *row) limit(v float64) string {
	if v == 0 {
		return ""
	}
	sign, unit := "≤", " "+r.Unit
	if r.Bar.Least {
		sign = "≥"
	}
	if r.Bar.Of == "ratio" || r.Unit == "×" {
		unit = "×"
	}
	return sign + strconv.FormatFloat(v, 'f', -1, 64) + unit
}

// text writes the figures: 31,204 (30,100–32,000) blk/s.
func (f *figures) text(unit string) string {
	if f == nil {
		return "-"
	}
	if len(f.Runs) < 2 {
		return digits(f.Median) + unit
	}
	return digits(f.Median) + " (" + digits(f.Min) + "–" + digits(f.Max) + ")" + unit
}

// digits writes a figure with two or more digits that mean something.
func digits(v float64) string {
	switch {
	case v > 0 && v < 0.1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	case v >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func verdict(met *bool) string {
	switch {
	case met == nil:
		return "-"
	case *met:
		return "yes"
	}
	return "NO"
}

// writeJSON writes a report to a file, by rename.
func writeJSON(path string, report any) error {
	raw, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("report as JSON: %w", err)
	}
	return replaceFile(path, append(raw, '\n'))
}

// replaceFile writes a file by rename.
func replaceFile(path string, raw []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write a report: %w", err)
	}
	_, err = temp.Write(raw)
	if e := temp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(temp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return fmt.Errorf("write a report: %w", err)
	}
	return nil
}

// barred lists the cases whose bar is not met or that failed.
func (r *report) barred() string {
	var names []string
	for _, row := range r.Rows {
		if row.Error != "" || (row.Met != nil && !*row.Met) {
			names = append(names, row.Case)
		}
	}
	return strings.Join(names, ", ")
}
