package testnet

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// An axis has a few round marks, however long the run was.
func TestTimeTicks(t *testing.T) {
	for lasted := 1.0; lasted < 30*24*3600; lasted *= 1.37 {
		step, unit, name := timeTicks(lasted)
		if n := lasted / step; n > 9 || (n < 2 && lasted > 2) {
			t.Errorf("%.0f s: a mark every %v s", lasted, step)
		}
		if want := map[string]float64{"s": 1, "min": 60, "h": 3600}[name]; unit != want || step < unit || math.Mod(step, unit) != 0 {
			t.Errorf("%.0f s: a mark every %v s, told in %s of %v s", lasted, step, name, unit)
		}
	}
}

// How far a node is behind is told from when all had caught up for the first time, and not for those that do not answer.
func TestLag(t *testing.T) {
	heights := [][2]int32{{100, 0}, {100, 50}, {101, 100}, {102, 99}, {103, -1}, {104, 104}}
	d := drawing{nodes: 2}
	for i, h := range heights {
		s := Sample{At: int64(i) * 1000}
		for j, height := range h {
			n := NodeSample{ID: j + 1, Height: height}
			if height < 0 {
				n = NodeSample{ID: j + 1, State: NodeDown}
			}
			s.Nodes = append(s.Nodes, n)
		}
		d.samples = append(d.samples, s)
	}
	lag := d.lag()
	var got []string
	for _, s := range d.samples {
		for _, n := range s.Nodes {
			got = append(got, fmt.Sprint(lag(n)))
		}
	}
	if text := strings.Join(got, " "); text != "NaN NaN NaN NaN 0 1 0 3 0 NaN 0 0" {
		t.Errorf("got %s", text)
	}
}

// A page is drawn of what little there is, of nodes that are down too, and what was told by anybody stands in it as text.
func TestReport(t *testing.T) {
	s := &Spec{dir: t.TempDir(), Engine: "pow", Topology: "<ring>", Spacing: time.Second, Nodes: []NodeSpec{
		{ID: 1, Home: homeName(1), Dials: []int{3, 2}, Mines: true}, {ID: 2, Home: homeName(2)}, {ID: 3, Home: homeName(3)},
	}}
	if _, err := Report(s); err == nil || !strings.Contains(err.Error(), "no samples in ") {
		t.Errorf("without samples: %v", err)
	}
	r := recorder{path: s.file(samplesFile), limit: 1 << 20}
	for i := range 20 {
		x := Sample{At: 1_700_000_000_000 + int64(i)*1000, Nodes: []NodeSample{
			{ID: 1, Height: int32(i), Tip: "aa", Peers: 2, Memory: 50 << 20, Heap: 10 << 20, Goroutines: 9, FDs: 8}, {ID: 2, Height: int32(i), Tip: "aa", Peers: 1}, {ID: 3, State: NodeSilent},
		}}
		if i > 10 {
			x.Nodes[1] = NodeSample{ID: 2, State: NodeDown}
		}
		if err := r.add(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.file(chaosFile), []byte(`{"kind":"kill","nodes":[2],"began":1700000011000,"ended":1700000019000,"err":"<b>"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := Report(s)
	page := string(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Testnet of 3 nodes", "&lt;ring&gt;, 2 links", "&lt;b&gt;", "What chaos did", "Live heap", ">median<", "<td>2, 3</td>",
		"<td>2</td><td></td><td>1</td><td>down</td><td>10</td><td>aa</td>", // as it was last heard of
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "{{") || strings.Contains(page, "<b>") {
		t.Error("the page has what it should not")
	}
}
