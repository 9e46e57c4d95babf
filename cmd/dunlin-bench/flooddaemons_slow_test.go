//go:build slow && !race

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunlin/internal/command"
)

// TestSlowDaemons: the flood between four real daemons is measured, what daemons lack is what they ask for, and nothing
// is left running. Times are of the machine: none is asserted.
func TestSlowDaemons(t *testing.T) {
	program := buildDunlin(t)
	work, file := t.TempDir(), filepath.Join(t.TempDir(), "flood.json")
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"flood", "--daemons", "4", "--txs", "200", "--dunlin", program, "--work", work, "--json", file}, &out, &errs); code != command.OK {
		t.Fatalf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	t.Log(out.String())
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r daemonsReport
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(daemonsCases) {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for i, row := range r.Rows {
		c := daemonsCases[i]
		if row.Case != c.name || row.Connected == nil || len(row.Connected.Runs) != 3 || row.Connected.Min <= 0 || row.MakerMS <= 0 {
			t.Errorf("%s: %+v", c.name, row)
		}
		if row.Pulled != nil && row.Pulled.Max > float64(row.Missing) {
			t.Errorf("%s: %d were missing, but %v were asked for", c.name, row.Missing, row.Pulled.Runs)
		}
		if row.Compact > 0 && row.Pulled != nil && row.Pulled.Min < float64(row.Missing) {
			t.Errorf("%s: %d were missing, but only %v were asked for", c.name, row.Missing, row.Pulled.Runs)
		}
		if row.Otherwise == 0 && row.BytesIn.Min < float64(max(row.Compact/2, row.Missing*row.Bytes/row.Txs*9/10)) {
			t.Errorf("%s: %v bytes came in", c.name, row.BytesIn.Runs)
		}
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if ps := processesOf(t, program); len(ps) > 0 {
		t.Errorf("left running: %v", ps)
	}
}
