package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/internal/command"
)

const docs = "../../docs"

// TestPageIsWhatTheRecordsGive: no figure of docs/benchmarks.md's tables and charts is written by hand.
func TestPageIsWhatTheRecordsGive(t *testing.T) {
	made, err := renderedFiles(docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		there, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(there, made[name]) {
			t.Errorf("docs/%s is not what docs/%s gives: go run ./cmd/dunlin-bench all --render", name, resultsFile)
		}
	}
	charts, err := filepath.Glob(filepath.Join(docs, "benchmarks", "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range charts {
		if made["benchmarks/"+filepath.Base(path)] == nil {
			t.Errorf("%s is the chart of no table", path)
		}
	}
}

// TestRecordsAreOfWhatIsMeasured: a record whose case is gone would keep its figure for ever.
func TestRecordsAreOfWhatIsMeasured(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(docs, resultsFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := readResults(raw)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range ibdCases {
		known["ibd/"+c.name] = true
	}
	for _, c := range stakeCases {
		known["stake/"+c.name] = true
	}
	for _, c := range discoveryCases {
		known["discovery/"+c.name] = true
	}
	for _, c := range floodCases {
		for _, s := range floodSystems {
			known["flood/"+c.name+"/"+s] = true
		}
	}
	for _, c := range daemonsCases {
		known["flood-daemons/"+c.name] = true
	}
	for _, id := range scriptIDs {
		known["measure/"+id.id] = true
	}
	for _, s := range testSuites {
		for _, f := range s.figures {
			known[s.name+"/"+f.id] = true
		}
	}
	for _, b := range importBenchmarks {
		known[b.id] = true
	}
	known["reorg/import-memory"], known["reorg/fullblocks"] = true, true
	measured := []string{"ibd", "stake", "discovery", "flood", "flood-daemons", "measure", "daemons", "tx", "schedule", "import", "reorg"}
	ids := map[string]bool{}
	for _, table := range r.Tables {
		for _, rec := range table.Records {
			ids[rec.ID] = true
			if slices.Contains(measured, table.ID) && !known[rec.ID] {
				t.Errorf("record %s is of no case that there is", rec.ID)
			}
		}
	}
	for id := range maps.Keys(goPeers) {
		if !ids[id] {
			t.Errorf("no record %s, which has a peer", id)
		}
	}
}

// someResultsAt is when they were measured.
var someResultsAt = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

func someResults() *results {
	return &results{
		Sessions: []session{
			{ID: "a", Date: "2026-11-21", Commit: "1234567", Machine: "2 cores", Go: "go1.26.8", Peer: "btcd", Command: "x | y"},
			{ID: "b", Date: "2026-11-21", Commit: "1234567", Machine: "2 cores", Go: "go1.26.8", Command: "z"},
		},
		Tables: []table{
			{ID: "ibd", Head: "case", Records: []record{
				{ID: "ibd/tiny", What: "`tiny`", Ours: *valueOf(figuresOf([]float64{3, 1, 2}), "s"), Peer: valueOf(figuresOf([]float64{4}), "s"), Ratio: valueOf(figuresOf([]float64{0.5}), "×"), Less: true, Bar: &bar{Of: "ratio", Value: 0.9, Aim: 0.7}, Source: "a", Note: "slower before"},
				{ID: "ibd/fat", What: "`fat`|big", Ours: value{Text: "some"}, Asked: "much", Source: "b"},
			}},
			{ID: "load", Head: "what", Main: "all", Columns: []string{"p50", "", "KB"}, Records: []record{
				{ID: "load/x", What: "x", Ours: single(12345, "ms"), More: map[string]value{"p50": single(1.5, "ms")}, Source: "b"},
			}},
		},
	}
}

const somePage = "Words.\n<!-- made from results.json: ibd -->\nold\n<!-- end of it -->\nMore words.\n<!-- made from results.json: load -->\n<!-- end of it -->\n<!-- made from results.json: short -->\n<!-- end of it -->\n<!-- made from results.json: sessions -->\n<!-- end of it -->\nEnd.\n"

// TestPage: tables between the words, columns only where there is something to say.
func TestPage(t *testing.T) {
	got, err := someResults().page([]byte(somePage))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "page.md", string(got))
	again, err := someResults().page(got)
	if err != nil || !bytes.Equal(got, again) {
		t.Errorf("a page that is made again differs (%v)", err)
	}
	for name, page := range map[string]string{
		"no place for the table":  strings.Replace(somePage, "results.json: load", "results.json: sessions", 1),
		"there is no table":       somePage + "<!-- made from results.json: other -->\n<!-- end of it -->\n",
		"no place for the table ": "",
	} {
		if _, err := someResults().page([]byte(page)); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadResultsRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*results){
		"":                              func(*results) {},
		"lacks some of":                 func(r *results) { r.Sessions[0].Machine = "" },
		"session b is there twice":      func(r *results) { r.Sessions[0].ID = "b" },
		"no session":                    func(r *results) { r.Tables[0].Records[0].Source = "zz" },
		"gave no record":                func(r *results) { r.Tables[0].Records[0].Source = "b" },
		"there twice, or without":       func(r *results) { r.Tables[1].ID = "ibd" },
		"its name must begin with":      func(r *results) { r.Tables[0].Records[0].ID = "x" },
		"has no figure":                 func(r *results) { r.Tables[1].Records[0].Ours = value{} },
		`has no column "p99"`:           func(r *results) { r.Tables[1].Records[0].More["p99"] = value{} },
		"record load/x has a ratio to ": func(r *results) { r.Tables[1].Records[0].Ratio = &value{Text: "2"} },
	} {
		r := someResults()
		spoil(r)
		raw, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readResults(raw); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := readResults([]byte(`{"tables":[],"figures":[]}`)); err == nil {
		t.Error("an unknown key is taken")
	}
}

// TestPut: new figures take the place of the old, the words stay, a session without records goes.
func TestPut(t *testing.T) {
	r := someResults()
	s := session{Date: "2026-12-01", Commit: "abcdef0", Machine: "4 cores", Go: "go1.27", Command: "again"}
	fresh := record{ID: "ibd/tiny", What: "other words", Ours: single(9, "s"), Met: new(bool)}
	if err := r.put(s, map[string][]record{"ibd": {fresh, {ID: "ibd/new", What: "new", Ours: single(1, "s")}}}); err != nil {
		t.Fatal(err)
	}
	got := r.Tables[0].Records
	if len(got) != 3 || got[1].ID != "ibd/new" || got[2].Source != "b" { // behind the one that came before it
		t.Fatalf("records %+v", got)
	}
	tiny := got[0]
	if tiny.What != "`tiny`" || *tiny.Ours.Median != 9 || tiny.Note != "" || tiny.Ratio != nil || tiny.Bar == nil || tiny.Source != "261201a" {
		t.Errorf("record %+v", tiny)
	}
	if len(r.Sessions) != 2 || r.Sessions[0].ID != "b" || r.Sessions[1].ID != "261201a" {
		t.Errorf("sessions %+v: a has no record any more", r.Sessions)
	}
	if err := r.put(s, map[string][]record{"ibd": {{ID: "ibd/new", What: "new", Ours: single(2, "s")}}}); err != nil || r.Sessions[2].ID != "261201b" {
		t.Errorf("the second session of a day: %+v, %v", r.Sessions, err)
	}
	if err := r.put(s, map[string][]record{"nothing": nil}); err == nil {
		t.Error("records of a table that is not there are taken")
	}
	raw, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readResults(raw); err != nil {
		t.Error(err)
	}
}

// TestShort: what is not reached, and what a peer does better.
func TestShort(t *testing.T) {
	ratio := func(v float64) *value { return valueOf(figuresOf([]float64{v}), "×") }
	missed, met := new(bool), true
	for want, rec := range map[string]record{
		"":                                  {Ours: single(9, "s"), Less: true, Bar: &bar{Of: "ours", Value: 10, Aim: 9}, Met: &met, Ratio: ratio(0.5)},
		"what was asked for, ≤5 s, aim 2 s": {Ours: single(9, "s"), Bar: &bar{Of: "ours", Value: 5, Aim: 2}, Met: missed},
		"what was asked for, all":           {Ours: single(9, "s"), Asked: "all", Met: missed},
		"the aim, ≥0.9×":                    {Ours: single(9, "s"), Bar: &bar{Of: "ratio", Least: true, Value: 0.7, Aim: 0.9}, Ratio: ratio(0.8), Less: true},
		"its peer":                          {Ours: single(9, "s"), Ratio: ratio(1.1), Less: true},
		"what was asked for, ≥0.95×; its peer": {Ours: single(9, "blk/s"), Bar: &bar{Of: "ratio", Least: true, Value: 0.95}, Ratio: ratio(0.8), Met: missed},
	} {
		if got := strings.Join(rec.short(), "; "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestReadBenchmarks reads what go test -bench prints, and puts it into the units of the records.
func TestReadBenchmarks(t *testing.T) {
	runs := map[string]map[string][]float64{}
	readBenchmarks("go/chain/consensus/", `goos: linux
BenchmarkDecodeBlock/mainnet-413567-2         	     400	   2600000 ns/op	 380.00 MB/s
BenchmarkDecodeBlock/mainnet-413567-2         	     400	   2800000 ns/op	 360.00 MB/s
BenchmarkDecodeBlock/mainnet-413567/btcutil-2 	     300	   5200000 ns/op	 190.00 MB/s
PASS
ok  	dunlin/chain/consensus	3.1s
`, runs)
	known := &results{Tables: []table{{ID: "go", Records: []record{
		{ID: "go/chain/consensus/DecodeBlock/mainnet-413567", What: "decode", Ours: value{Unit: "ms"}},
		{ID: "go/chain/store/Commit", What: "was not run", Ours: value{Unit: "ms"}},
	}}}}
	got := goRecords(known, runs)["go"]
	if len(got) != 1 || *got[0].Ours.Median != 2.7 || *got[0].Ours.Min != 2.6 || got[0].Ours.Runs != 2 || *got[0].Peer.Median != 5.2 || *got[0].Ratio.Median != 0.51923 {
		raw, _ := json.Marshal(got)
		t.Errorf("records %s", raw)
	}
}

// TestImportRecords reads the benchmarks of imports; ours over btcd's is of the times, though speeds are shown.
func TestImportRecords(t *testing.T) {
	got := importRecords(`BenchmarkAgainstBTCD/tiny-2 	 1	 0 ns/op	 1.2 MB/s	 63500 blocks/s	 0.16 btcd-MB/s	 8500 btcd-blocks/s	 0.135 ratio
BenchmarkAgainstBTCD/full-assumed-2 	 1	 0 ns/op	 73 MB/s	 594 blocks/s	 26 btcd-MB/s	 200 btcd-blocks/s	 0.36 ratio
BenchmarkImport/fat-2 	 1	 600000000 ns/op	 370 MB/s	 84 peak-MB	 900 blocks/s	 5 B/op	 6 allocs/op
BenchmarkReorg/fat-2 	 1	 0 ns/op	 0.6 connect-s	 0.7 reorg-s	 1.1 ratio
`)
	var all []string
	for _, table := range []string{"import", "reorg"} {
		for _, r := range got[table] {
			all = append(all, strings.Join([]string{r.ID, r.Ours.String(), r.Peer.String(), r.Ratio.String()}, " | "))
		}
	}
	if want := []string{
		"import/tiny | 63,500 blocks/s | 8,500 blocks/s | 0.135×", "import/full-assumevalid | 73 MB/s | 26 MB/s | 0.36×",
		"reorg/import-heap | 84 MB |  | ", "reorg/fat | 0.7 s |  | ",
	}; !slices.Equal(all, want) {
		t.Errorf("records %q", all)
	}
	raw, err := os.ReadFile(filepath.Join(docs, resultsFile))
	if err != nil {
		t.Fatal(err)
	}
	known, err := readResults(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range importBenchmarks {
		if !slices.ContainsFunc(known.Tables, func(t table) bool {
			return slices.ContainsFunc(t.Records, func(r record) bool { return r.ID == b.id })
		}) {
			t.Errorf("there is no record %s", b.id)
		}
	}
}

// TestJudge: a new figure without a verdict is held against the bar of the old one.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		rec  record
		want string
	}{
		{record{Ours: single(9, "s")}, "-"},
		{record{Ours: single(9, "s"), Bar: &bar{Of: "ours", Value: 9}}, "yes"},
		{record{Ours: single(9, "s"), Bar: &bar{Of: "ours", Value: 9, Least: true}}, "yes"},
		{record{Ours: single(9, "s"), Bar: &bar{Of: "ours", Value: 8}}, "NO"},
		{record{Ours: single(9, "s"), Bar: &bar{Of: "ratio", Value: 8}}, "-"},
		{record{Ours: single(9, "s"), Ratio: valueOf(figuresOf([]float64{2}), "×"), Bar: &bar{Of: "ratio", Value: 3, Least: true}}, "NO"},
		{record{Ours: single(9, "s"), Bar: &bar{Of: "ours", Value: 10}, Met: new(bool)}, "NO"},
	} {
		c.rec.judge()
		if got := verdict(c.rec.Met); got != c.want {
			t.Errorf("%+v: %q, want %q", c.rec, got, c.want)
		}
	}
}

// TestScriptRecords reads what .ci/measure prints.
func TestScriptRecords(t *testing.T) {
	got := scriptRecords(`machine: 2 cores, 25 GB; go1.26.8 linux/amd64
start to listening on an empty home, ms: 36 (min 35, max 50)
idle memory after 5 s, MB resident: 40
peak memory of it, MB resident: 73 (min 69, max 76)
`, 5)
	if len(got) != 3 || got[0].ID != "measure/start" || got[0].Ours.String() != "36 (35–50) ms" || got[1].ID != "measure/idle" || got[1].Ours.String() != "40 MB" || got[1].Ours.Runs != 1 || got[2].Ours.Runs != 5 {
		t.Errorf("records %+v", got)
	}
	// The script prints what is read here.
	script, err := os.ReadFile("../../.ci/measure")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scriptIDs {
		if !regexp.MustCompile(`(?m)^echo "` + s.begins + `[^:]*, (ms|MB resident): `).Match(script) {
			t.Errorf(".ci/measure prints no line that begins with %q", s.begins)
		}
	}
}

// TestOutcomes: the reports of the other commands become records.
func TestOutcomes(t *testing.T) {
	at := time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC)
	m := machine{OS: "linux", Arch: "amd64", Go: "go1.26.8", CPUs: 2, MemoryBytes: 25e9, LoadBefore: 0.4}
	ibd := ibdOutcome(exampleReport(), "dunlin-bench ibd")
	if s := ibd.session; s.Date != "2026-11-21" || !strings.HasPrefix(s.Peer, "btcd version") || !strings.Contains(s.Machine, "2 cores (load 0.4 before), 25 GB") {
		t.Errorf("session %+v", s)
	}
	if r := ibd.records["ibd"]; len(r) != 5 || r[0].ID != "ibd/tiny" || r[0].Ratio == nil || r[0].Ours.Unit != "blk/s" || r[0].Bar.Aim != 5 { // the sixth failed
		t.Errorf("records %+v", r)
	}
	stakes := &report{Bench: "stake", At: at, Machine: m, Peer: "work", Runs: 3, Rows: []row{
		{Case: "empty", What: "empty blocks", Unit: "blk/s", Ours: figuresOf([]float64{80}), Btcd: figuresOf([]float64{100}), Bar: bar{Of: "ratio", Least: true, Value: stakeRatio}},
		{Case: "one", Error: "it failed"},
	}}
	stakes.Rows[0].judge()
	stake := stakeOutcome(stakes, "dunlin-bench stake")
	if r := stake.records["stake"]; len(r) != 1 || r[0].ID != "stake/empty" || *r[0].Ratio.Median != 0.8 || !*r[0].Met || !strings.Contains(stake.session.Peer, "work") {
		t.Errorf("%+v", stake)
	}
	var table strings.Builder
	if err := stakes.writeTable(&table); err != nil || !strings.Contains(table.String(), "ratio: stake's to work's") || !regexp.MustCompile(`STAKE +WORK +RATIO`).MatchString(table.String()) {
		t.Errorf("%v\n%s", err, table.String())
	}
	flood := simReport{Bench: "flood", At: at, Machine: m}
	for _, system := range floodSystems {
		for _, c := range []string{"warm", "missing5"} {
			flood.Rows = append(flood.Rows, row{Case: c, What: system, Unit: "ms", Ours: figuresOf([]float64{200}), Bar: bar{Of: "ours", Value: 400}})
		}
	}
	flood.Runs = []simRun{{Simulation: "flood/warm/dunlin", Figures: map[string]float64{figP50: 100, figBytes: 60_000, figCompact: 15_000}}}
	out := floodOutcome(&flood, "dunlin-bench flood")
	var ids []string
	for _, r := range out.records["flood"] {
		ids = append(ids, r.ID)
	}
	if !slices.Equal(ids, []string{"flood/warm/dunlin", "flood/missing5/dunlin", "flood/warm/whole", "flood/warm/announce"}) {
		t.Errorf("records %q", ids)
	}
	if r := out.records["flood"][0]; *r.Ratio.Median != 1 || textOf(r.More["p50"]) != "100 ms" {
		t.Errorf("record %+v", r)
	}
	one := figuresOf([]float64{80, 90, 239})
	daemons := daemonsOutcome(&daemonsReport{At: at, Machine: m, Rows: []daemonsRow{{Case: "warm", Compact: 15_000, Complete: one, Connected: one, BytesIn: figuresOf([]float64{60_000}), Pulled: one, Hit: figuresOf([]float64{100}), BarMS: 400}, {Case: "lost"}}}, "x")
	if r := daemons.records["flood-daemons"]; len(r) != 1 || *r[0].Ours.Median != 239 || textOf(r[0].More["complete: p50"]) != "90 ms" || r[0].More["found, asked for"].Text != "100%, 90" {
		t.Errorf("records %+v", r)
	}
	api := apiOutcome(&apiReport{At: at, Machine: m, Quiet: []float64{1, 1}, Loaded: []float64{1.1, 1.1}, P99MS: 30, SlowerPC: 10})
	if r := api.records["api"]; len(r) != 4 || *r[1].Met || !*r[3].Met || r[3].Ratio.String() != "1.1×" && r[3].Ratio.String() != "1.1 (1.1–1.1)×" {
		t.Errorf("records %+v", r)
	}
}

func textOf(v value) string { return v.String() }

// TestTake: a report of a run of its own becomes records, as if all had made it.
func TestTake(t *testing.T) {
	dir := t.TempDir()
	report := simReport{Bench: "discovery", At: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Machine: thisMachine(), Rows: []row{
		{Case: "join60", What: "x", Unit: "s", Ours: figuresOf([]float64{0.25}), Bar: bar{Of: "ours", Value: 1.5}},
		{Case: "churn", What: "x", Error: "it failed"},
	}}
	path := filepath.Join(dir, "report.json")
	if err := writeJSON(path, report); err != nil {
		t.Fatal(err)
	}
	out, err := taken(path)
	if err != nil {
		t.Fatal(err)
	}
	r := out.records["discovery"]
	if len(r) != 1 || r[0].ID != "discovery/join60" || out.session.Command != "dunlin-bench discovery --only join60" || out.session.Date != "2026-11-22" {
		t.Errorf("%+v", out)
	}
	for name, text := range map[string]string{"other.json": `{"bench":"other"}`, "none.json": "no JSON", "empty.json": `{"bench":"flood"}`} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := taken(path); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestAllUsage(t *testing.T) {
	t.Setenv("DUNLIN_TESTDATA", t.TempDir())
	for _, args := range [][]string{
		{"all", "extra"}, {"all", "--only", "nothing"}, {"all", "--runs", "0"}, {"all", "--only", "api"}, {"all", "--quick", "--only", "daemons", "--docs", docs}, {"all", "--mainnet", "nowhere"},
	} {
		if args[len(args)-1] != docs {
			args = append(args, "--docs", docs)
		}
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != command.Misuse {
			t.Errorf("%q: exit code %d, want %d\n%s", args, code, command.Misuse, &out)
		}
	}
}
