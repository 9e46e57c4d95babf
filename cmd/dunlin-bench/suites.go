package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// on begins a session with what a report has of its machine.
func (m machine) on(at time.Time, command string) session {
	text := fmt.Sprintf("%d cores (load %.1f before)", m.CPUs, m.LoadBefore)
	if m.MemoryBytes > 0 {
		text += fmt.Sprintf(", %.0f GB", float64(m.MemoryBytes)/1e9)
	}
	text += ", " + m.OS + "/" + m.Arch
	if m.Model != "" {
		text += ", " + m.Model
	}
	return session{Date: at.UTC().Format(time.DateOnly), Machine: text, Go: m.Go, Command: command}
}

// recordOf takes a row of a report over. One without a figure is none.
func recordOf(id string, r row) (record, bool) {
	if r.Ours == nil || r.Error != "" {
		return record{}, false
	}
	rec := record{ID: id, What: r.What, Ours: *valueOf(r.Ours, r.Unit), Peer: valueOf(r.Btcd, r.Unit), Ratio: valueOf(r.Ratio, "×"), Met: r.Met, Note: r.Note}
	if r.Bar.Value != 0 {
		rec.Bar = &r.Bar
	}
	return rec, true
}

func measureAllIBD(ctx context.Context, o *allOptions) (outcome, error) {
	args, command := []string{"ibd", "--runs", strconv.Itoa(o.runs), "--dunlin", o.dunlin}, "dunlin-bench ibd"
	if o.quick {
		args, command = append(args, "--chains", o.kit().data(), "--cases", "tiny"), command+" --chains DIR/data --cases tiny"
	} else {
		args, command = append(args, "--btcd", o.kitDir), command+" --btcd DIR"
		if o.mainnet != "" {
			args, command = append(args, "--mainnet", o.mainnet), command+" --mainnet FILE"
		}
	}
	var r report
	err := o.report(ctx, &r, args...)
	return ibdOutcome(&r, command+" --runs "+strconv.Itoa(o.runs)), err
}

func ibdOutcome(r *report, command string) outcome {
	out := outcome{session: r.Machine.on(r.At, command), records: map[string][]record{}}
	if r.Btcd != "" {
		out.session.Peer = r.Btcd + ", in turns"
	}
	for _, row := range r.Rows {
		if rec, some := recordOf("ibd/"+row.Case, row); some {
			out.records["ibd"] = append(out.records["ibd"], rec)
		}
	}
	return out
}

// simArgs are the flags of a simulation: in the quick version only some cases.
func (o *allOptions) simArgs(name string, quick ...string) (args []string, command string) {
	args = []string{name, "--seed", "1"}
	if o.quick {
		args = append(args, "--only", strings.Join(quick, ","))
	} else {
		args = append(args, "--runs", strconv.Itoa(o.runs))
	}
	return args, "dunlin-bench " + strings.Join(args, " ")
}

func measureAllDiscovery(ctx context.Context, o *allOptions) (outcome, error) {
	args, command := o.simArgs("discovery", "join60", "advert60", "find60", "conns60")
	var r simReport
	err := o.report(ctx, &r, args...)
	return discoveryOutcome(&r, command), errors.Join(err, failedRows(r.Rows))
}

func discoveryOutcome(r *simReport, command string) outcome {
	out := outcome{session: r.Machine.on(r.At, command), records: map[string][]record{}}
	out.session.Note = "virtual time"
	for _, row := range r.Rows {
		if rec, some := recordOf("discovery/"+row.Case, row); some {
			out.records["discovery"] = append(out.records["discovery"], rec)
		}
	}
	return out
}

func measureAllFlood(ctx context.Context, o *allOptions) (outcome, error) {
	args, command := o.simArgs("flood", "warm")
	var r simReport
	err := o.report(ctx, &r, args...)
	return floodOutcome(&r, command), errors.Join(err, failedRows(r.Rows))
}

// failedRows is an error of all rows without a figure.
func failedRows(rows []row) error {
	var errs []error
	for _, r := range rows {
		switch {
		case r.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s", r.Case, r.Error))
		case r.Ours == nil:
			errs = append(errs, fmt.Errorf("%s: no figure", r.Case))
		}
	}
	return errors.Join(errs...)
}

// floodOutcome also compares ours with the better of the baselines, announce and pull, on the same block.
func floodOutcome(r *simReport, command string) outcome {
	out := outcome{session: r.Machine.on(r.At, command), records: map[string][]record{}}
	out.session.Note, out.session.Peer = "virtual time", "whole blocks over GossipSub; announcements that are answered by a pull"
	figuresBy := map[string]*figures{} // of the greatest delay, by simulation
	for _, row := range r.Rows {
		if i := slices.IndexFunc(floodCases, func(c floodCase) bool { return c.name == row.Case }); i >= 0 {
			figuresBy[floodCases[i].simulation(row.What)] = row.Ours
		}
	}
	for _, row := range r.Rows {
		i := slices.IndexFunc(floodCases, func(c floodCase) bool { return c.name == row.Case })
		rec, some := recordOf("flood/"+row.Case+"/"+row.What, row)
		if i < 0 || !some {
			continue
		}
		c := floodCases[i]
		first := c.simulation(row.What) == "flood/"+c.name+"/"+row.What
		if row.What != floodSystems[0] && !first {
			continue // the same simulation as of the case before
		}
		rec.What, rec.Less = c.words(row.What), true
		if row.What == floodSystems[0] {
			if theirs := figuresBy[c.simulation("announce")]; theirs != nil {
				rec.Peer, rec.Ratio = valueOf(theirs, row.Unit), valueOf(ratioOf(row.Ours, theirs), "×")
			}
		}
		of := func(figure string) *figures {
			var values []float64
			for _, run := range r.Runs {
				if run.Simulation == c.simulation(row.What) {
					values = append(values, run.Figures[figure])
				}
			}
			return figuresOf(values)
		}
		rec.More = map[string]value{}
		more := func(column, figure, unit string, scale float64) {
			if f := of(figure); f != nil {
				rec.More[column] = value{Median: rounded(f.Median * scale), Unit: unit}
			}
		}
		more("p50", figP50, "ms", 1)
		more("p99", figP99, "ms", 1)
		more("KB in", figBytes, "", 1e-3)
		more("duplicates", figDuplicates, "", 1)
		more("KB pulled", figPulled, "", 1e-3)
		if compact := of(figCompact); compact != nil && compact.Median > 0 && c.bytes > 64<<10 {
			rec.More["× the compact block"] = value{Median: rounded(of(figBytes).Median / compact.Median)}
		}
		out.records["flood"] = append(out.records["flood"], rec)
	}
	return out
}

func measureAllFloodDaemons(ctx context.Context, o *allOptions) (outcome, error) {
	args := []string{"flood", "--daemons", "20"}
	command := "dunlin-bench " + strings.Join(args, " ")
	var r daemonsReport
	err := o.report(ctx, &r, append(args, "--dunlin", o.dunlin)...)
	return daemonsOutcome(&r, command), err
}

func daemonsOutcome(r *daemonsReport, command string) outcome {
	out := outcome{session: r.Machine.on(r.At, command), records: map[string][]record{}}
	for _, row := range r.Rows {
		if row.Complete == nil || row.Connected == nil {
			continue
		}
		rec := record{ID: "flood-daemons/" + row.Case, What: row.Case, Ours: single(row.Complete.Max, "ms"), Met: row.Met, Bar: &bar{Of: "ours", Value: row.BarMS}, Less: true}
		rec.More = map[string]value{
			"complete: p50": single(row.Complete.Median, "ms"), "in the chain: p50": single(row.Connected.Median, "ms"),
			"in the chain: all": single(row.Connected.Max, "ms"), "the maker itself": single(row.MakerMS, "ms"),
		}
		if row.BytesIn != nil {
			rec.More["KB in"] = single(row.BytesIn.Median/1e3, "")
			if row.Compact > 0 {
				rec.More["× the compact block"] = single(row.BytesIn.Median/float64(row.Compact), "")
			}
		}
		if row.Hit != nil && row.Pulled != nil {
			rec.More["found, asked for"] = value{Text: fmt.Sprintf("%.3g%%, %.0f", row.Hit.Median, row.Pulled.Median)}
		}
		out.records["flood-daemons"] = append(out.records["flood-daemons"], rec)
	}
	return out
}

func measureAllAPI(ctx context.Context, o *allOptions) (outcome, error) {
	args := []string{"api", "--runs", strconv.Itoa(max(o.runs, 3)), "--chain", o.mainnet}
	var r apiReport
	if err := o.report(ctx, &r, append(args, "--dunlin", o.dunlin)...); err != nil {
		return outcome{}, err // it has all figures or none
	}
	return apiOutcome(&r), nil
}

func apiOutcome(r *apiReport) outcome {
	out := outcome{session: r.Machine.on(r.At, fmt.Sprintf("dunlin-bench api --chain FILE --runs %d", len(r.Quiet)))}
	met := func(is bool) *bool { return &is }
	quiet, loaded := figuresOf(r.Quiet), figuresOf(r.Loaded)
	sync := record{ID: "api/sync", What: "the sync", Ours: *valueOf(loaded, "s"), Peer: valueOf(quiet, "s"), Ratio: valueOf(ratioOf(loaded, quiet), "×"), Met: met(r.SlowerPC <= apiAimSlow)}
	out.session.Note = fmt.Sprintf("%d requests, %d failed", r.Requests, r.Failed)
	out.records = map[string][]record{"api": {
		{ID: "api/p50", What: "median", Ours: single(r.P50MS, "ms")},
		{ID: "api/p99", What: "99 of 100", Ours: single(r.P99MS, "ms"), Met: met(r.P99MS <= ms(apiAimP99))},
		{ID: "api/most", What: "most", Ours: single(r.MostMS, "ms")},
		sync,
	}}
	return out
}

// takeReports publishes what was measured by hand.
func takeReports(ctx context.Context, o *allOptions) error {
	commit, err := commitOf(ctx, o.docs)
	if err != nil {
		return err
	}
	for _, path := range o.take {
		out, err := taken(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := o.publish(out, commit); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// taken reads the report that one of the commands wrote. What it was asked for follows from what it has.
func taken(path string) (outcome, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return outcome{}, err
	}
	var kind struct {
		Bench   string `json:"bench"`
		Daemons int    `json:"daemons"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return outcome{}, err
	}
	var out outcome
	switch {
	case kind.Bench == "ibd":
		var r report
		if err := json.Unmarshal(raw, &r); err != nil {
			return outcome{}, err
		}
		out = ibdOutcome(&r, "dunlin-bench ibd --cases "+casesOf(r.Rows)+" --runs "+strconv.Itoa(r.Runs))
	case kind.Bench == "stake":
		var r report
		if err := json.Unmarshal(raw, &r); err != nil {
			return outcome{}, err
		}
		out = stakeOutcome(&r, "dunlin-bench stake --cases "+casesOf(r.Rows)+" --runs "+strconv.Itoa(r.Runs))
	case kind.Bench == "flood" && kind.Daemons > 0:
		var r daemonsReport
		if err := json.Unmarshal(raw, &r); err != nil {
			return outcome{}, err
		}
		out = daemonsOutcome(&r, fmt.Sprintf("dunlin-bench flood --daemons %d", r.Daemons))
	case kind.Bench == "flood", kind.Bench == "discovery":
		var r simReport
		if err := json.Unmarshal(raw, &r); err != nil {
			return outcome{}, err
		}
		command := "dunlin-bench " + r.Bench + " --only " + casesOf(r.Rows)
		if out = discoveryOutcome(&r, command); r.Bench == "flood" {
			out = floodOutcome(&r, command)
		}
	case kind.Bench == "api":
		var r apiReport
		if err := json.Unmarshal(raw, &r); err != nil {
			return outcome{}, err
		}
		out = apiOutcome(&r)
	default:
		return outcome{}, fmt.Errorf("a report of %q is not known here", kind.Bench)
	}
	for _, records := range out.records {
		if len(records) > 0 {
			return out, nil
		}
	}
	return outcome{}, errors.New("it has no figure")
}

// casesOf names the cases of rows that have a figure, each once.
func casesOf(rows []row) string {
	var names []string
	for _, r := range rows {
		if r.Error == "" && r.Ours != nil && !slices.Contains(names, r.Case) {
			names = append(names, r.Case)
		}
	}
	return strings.Join(names, ",")
}

// measureScript runs .ci/measure, which prints a line a figure.
func measureScript(ctx context.Context, o *allOptions) (outcome, error) {
	runs := max(o.runs, 3)
	data, err := filepath.Abs(o.mainnet)
	if err != nil {
		return outcome{}, err
	}
	cmd := exec.CommandContext(ctx, "bash", ".ci/measure", strconv.Itoa(runs))
	inGroup(cmd)
	cmd.Env = append(os.Environ(), "DUNLIN_BLOCKS="+data)
	cmd.Stderr = o.errs
	var said bytes.Buffer
	cmd.Stdout = io.MultiWriter(&said, o.errs)
	m := thisMachine()
	if err := cmd.Run(); err != nil {
		return outcome{}, fmt.Errorf(".ci/measure: %w", err)
	}
	out := outcome{session: m.on(time.Now(), "bash .ci/measure "+strconv.Itoa(runs)), records: map[string][]record{}}
	out.records["measure"] = scriptRecords(said.String(), runs)
	if len(out.records["measure"]) == 0 {
		return out, fmt.Errorf(".ci/measure printed no figure:\n%s", said.String())
	}
	return out, nil
}

var (
	scriptLine = regexp.MustCompile(`^([^:]+), (ms|MB resident): ([0-9.]+)(?: \(min ([0-9.]+), max ([0-9.]+)\))?$`)
	scriptIDs  = []struct{ begins, id string }{
		{"start to listening", "start"},
		{"idle memory", "idle"},
		{"import of", "import"},
		{"sync of", "sync"},
		{"peak memory", "peak"},
	}
)

// scriptRecords reads what .ci/measure printed.
func scriptRecords(said string, runs int) (records []record) {
	for line := range strings.Lines(said) {
		m := scriptLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		i := slices.IndexFunc(scriptIDs, func(s struct{ begins, id string }) bool { return strings.HasPrefix(m[1], s.begins) })
		if i < 0 {
			continue
		}
		number := func(s string) *float64 {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return nil
			}
			return &f
		}
		unit, _, _ := strings.Cut(m[2], " ")
		v := value{Median: number(m[3]), Min: number(m[4]), Max: number(m[5]), Runs: runs, Unit: unit}
		if v.Min == nil {
			v.Runs = 1
		}
		records = append(records, record{ID: "measure/" + scriptIDs[i].id, What: m[1], Ours: v})
	}
	return records
}

// goBenchmarks are the packages with published benchmarks, and which of them.
var goBenchmarks = []struct{ pkg, bench string }{
	{"chain/consensus", "^(DecodeBlock|CheckBlockContextFree)$"},
	{"chain/consensus/secp256k1", "^Verify$"},
	{"chain", "^(Open|AcceptHeaders)$"},
	{"chain/exchange", "^Headers$"},
	{"chain/ibd", "^Step$"},
	{"chain/relay", "^(Reconstruct|MakeCompact|CheckCompact)$"},
	{"chain/store", "^(ReadBlock|AppendBlock|Commit)$"},
}

// goPeers are benchmarks of others' code on the same data, by the record they stand beside; goNames are records that are not named after their benchmark.
var (
	goPeers = map[string]string{
		"go/chain/consensus/DecodeBlock/mainnet-413567": "go/chain/consensus/DecodeBlock/mainnet-413567/btcutil",
		"signatures/ecdsa":  "go/chain/consensus/secp256k1/Verify/ecdsa/library",
		"signatures/bip340": "go/chain/consensus/secp256k1/Verify/schnorr/library",
	}
	goNames = map[string]string{
		"signatures/ecdsa":  "go/chain/consensus/secp256k1/Verify/ecdsa/ours",
		"signatures/bip340": "go/chain/consensus/secp256k1/Verify/schnorr/ours",
	}
)

func measureGo(ctx context.Context, o *allOptions) (outcome, error) {
	count, benchtime := max(o.runs, 3), "1s"
	if o.quick {
		benchtime = "0.3s"
	}
	raw, err := os.ReadFile(filepath.Join(o.docs, resultsFile))
	if err != nil {
		return outcome{}, err
	}
	known, err := readResults(raw)
	if err != nil {
		return outcome{}, err
	}
	m := thisMachine()
	runs := map[string]map[string][]float64{}
	var errs []error
	for _, b := range goBenchmarks {
		if ctx.Err() != nil {
			break
		}
		said, err := o.benchmark(ctx, nil, b.pkg, strings.Replace(b.bench, "^", "^Benchmark", 1), benchtime, count)
		if err != nil {
			errs = append(errs, err)
		}
		readBenchmarks("go/"+b.pkg+"/", said, runs)
	}
	s := m.on(time.Now(), fmt.Sprintf("go test -run xxx -bench . -benchtime %s -count %d PACKAGE", benchtime, count))
	s.Go, s.Peer = runtime.Version(), "btcutil and btcec as go.mod has them, in the same run"
	return outcome{session: s, records: goRecords(known, runs)}, errors.Join(errs...)
}

// benchmark runs Go benchmarks and returns what they printed, what came before a failure too.
func (o *allOptions) benchmark(ctx context.Context, env []string, pkg, bench, benchtime string, count int) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", bench, "-benchtime", benchtime, "-count", strconv.Itoa(count), "-timeout", "2h", "./"+pkg)
	inGroup(cmd)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&said, o.errs), o.errs
	if err := cmd.Run(); err != nil {
		return said.String(), fmt.Errorf("benchmarks of %s: %w", pkg, err)
	}
	return said.String(), nil
}

// importBenchmarks are the records of imports and reorganisations, and which figure of which benchmark they are.
var importBenchmarks = []struct{ id, name, metric, unit string }{
	{"import/tiny", "AgainstBTCD/tiny", "blocks/s", "blocks/s"},
	{"import/fat", "AgainstBTCD/fat", "MB/s", "MB/s"},
	{"import/full", "AgainstBTCD/full", "blocks/s", "blocks/s"},
	{"import/full-assumevalid", "AgainstBTCD/full-assumed", "MB/s", "MB/s"},
	{"import/fat-assumevalid", "AgainstBTCD/fat-assumed", "MB/s", "MB/s"},
	{"import/tiny-assumevalid", "AgainstBTCD/tiny-assumed", "blocks/s", "blocks/s"},
	{"reorg/import-heap", "Import/fat", "peak-MB", "MB"},
	{"reorg/fat", "Reorg/fat", "reorg-s", "s"},
	{"reorg/full", "Reorg/full", "ratio", "×"},
	{"reorg/full-restarted", "Reorg/full-restarted", "ratio", "×"},
}

// measureImport runs the benchmarks that need the chain files: imports, in turns with btcd's, and reorganisations; and the
// binary's own import, for its memory.
func measureImport(ctx context.Context, o *allOptions) (outcome, error) {
	dir, err := filepath.Abs(o.kit().data())
	if err != nil {
		return outcome{}, err
	}
	m := thisMachine()
	var said strings.Builder
	var errs []error
	for _, bench := range []string{"^BenchmarkAgainstBTCD$", "^BenchmarkReorg$", "^BenchmarkImport$/^fat$"} {
		if ctx.Err() != nil {
			break
		}
		text, err := o.benchmark(ctx, []string{"DUNLIN_BENCHDATA=" + dir}, "chain", bench, "1x", o.runs)
		said.WriteString(text)
		errs = append(errs, err)
	}
	s := m.on(time.Now(), fmt.Sprintf("DUNLIN_BENCHDATA=DIR/data go test ./chain -run xxx -bench 'AgainstBTCD|Reorg|Import$/^fat$' -benchtime 1x -count %d", o.runs))
	s.Peer = "btcd's blockchain package (ffldb) as go.mod has it, in turns"
	s.Note = "peak memory: dunlin chain import --network simnet DIR/data/fat.dat"
	out := outcome{session: s, records: importRecords(said.String())}
	if ctx.Err() != nil {
		return out, errors.Join(errs...)
	}
	peaks, err := importPeaks(ctx, o, filepath.Join(dir, "fat.dat"))
	if f := figuresOf(peaks); f != nil {
		out.records["reorg"] = append(out.records["reorg"], record{
			ID: "reorg/import-memory", What: "import-memory", Ours: *valueOf(f, "MB"), Less: true, Bar: &bar{Of: "ours", Value: 250},
		})
	}
	told := map[string][]float64{}
	text, e := runTests(ctx, o, testRun{pkg: "./chain", tags: "slow", tests: "^TestFullBlocks$/^regtest$"})
	if readFigures(text, told) > 0 {
		full := testFigure{id: "reorg/fullblocks", what: "fullblocks", unit: "s in all"}
		rec, _ := full.record(told)
		out.records["reorg"] = append(out.records["reorg"], rec)
	}
	return out, errors.Join(append(errs, err, e)...)
}

// importPeaks are the most MB that imports of a file had resident.
func importPeaks(ctx context.Context, o *allOptions, file string) (peaks []float64, err error) {
	for run := range o.runs {
		home := filepath.Join(o.dir, fmt.Sprintf("import%d", run))
		cmd := exec.CommandContext(ctx, o.dunlin, "chain", "import", "--home", home, "--network", "simnet", file)
		inGroup(cmd)
		cmd.Stderr = o.errs
		if err := cmd.Run(); err != nil {
			return peaks, fmt.Errorf("dunlin chain import: %w", err)
		}
		if peak := peakOf(cmd.ProcessState); peak > 0 { // it is not known everywhere
			peaks = append(peaks, float64(peak)/1e6)
		}
		if err := os.RemoveAll(home); err != nil {
			return peaks, err
		}
	}
	return peaks, nil
}

// importRecords reads what those benchmarks printed.
func importRecords(said string) map[string][]record {
	runs := map[string]map[string][]float64{}
	readBenchmarks("", said, runs)
	out := map[string][]record{}
	for _, b := range importBenchmarks {
		ours := figuresOf(runs[b.name][b.metric])
		if ours == nil {
			continue
		}
		rec := record{ID: b.id, What: b.name, Ours: *valueOf(ours, b.unit), Less: true}
		if theirs := figuresOf(runs[b.name]["btcd-"+b.metric]); theirs != nil {
			rec.Peer, rec.Ratio = valueOf(theirs, b.unit), valueOf(figuresOf(runs[b.name]["ratio"]), "×") // of the times
		}
		table, _, _ := strings.Cut(b.id, "/")
		out[table] = append(out[table], rec)
	}
	return out
}

// readBenchmarks collects what a go test -bench printed: by name, by unit, all runs.
func readBenchmarks(prefix, said string, runs map[string]map[string][]float64) {
	procs := regexp.MustCompile(`-\d+$`)
	for lines := bufio.NewScanner(strings.NewReader(said)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		name, is := "", false
		if len(fields) >= 4 {
			name, is = strings.CutPrefix(fields[0], "Benchmark")
		}
		if !is {
			continue
		}
		name = prefix + procs.ReplaceAllString(name, "")
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				if runs[name] == nil {
					runs[name] = map[string][]float64{}
				}
				runs[name][fields[i+1]] = append(runs[name][fields[i+1]], v)
			}
		}
	}
}

// goRecords are new figures for the records of benchmarks that there are, in the units these have.
func goRecords(known *results, runs map[string]map[string][]float64) map[string][]record {
	out := map[string][]record{}
	for _, t := range known.Tables {
		if t.ID != "go" && t.ID != "signatures" {
			continue
		}
		for _, old := range t.Records {
			in := func(name string) *figures {
				scale, is := map[string]float64{"s": 1e-9, "ms": 1e-6, "µs": 1e-3, "ns": 1}[old.Ours.Unit]
				if !is {
					return figuresOf(runs[name][old.Ours.Unit])
				}
				var scaled []float64
				for _, v := range runs[name]["ns/op"] {
					scaled = append(scaled, v*scale)
				}
				return figuresOf(scaled)
			}
			name := old.ID
			if other, named := goNames[old.ID]; named {
				name = other
			}
			ours := in(name)
			if ours == nil {
				continue
			}
			rec := record{ID: old.ID, What: old.What, Ours: *valueOf(ours, old.Ours.Unit)}
			if theirs := in(goPeers[old.ID]); theirs != nil {
				rec.Peer, rec.Ratio = valueOf(theirs, old.Ours.Unit), valueOf(ratioOf(ours, theirs), "×")
			}
			out[t.ID] = append(out[t.ID], rec)
		}
	}
	return out
}
