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

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

// allOptions are the flags of `dunlin-bench all`.
type allOptions struct {
	only                          []string
	quick, render                 bool
	docs                          string
	runs                          int
	btcd, chains, mainnet, dunlin string
	take                          []string

	errs io.Writer // what the commands say while they work
	dir  string    // for their reports
}

// A suite is one part of all: a command, and what its report says in records.
type suite struct {
	name  string
	quick bool // it takes a minute or two, in a small version
	// needs says which flag is missing; "": none.
	needs func(o *allOptions) string
	run   func(ctx context.Context, o *allOptions) (outcome, error)
	// daemon: it runs the binary.
	daemon bool
}

// An outcome is what a suite found: the session but for its id and commit, and records by table.
type outcome struct {
	session session
	records map[string][]record
}

// allSuites lists them in their order.
func allSuites() []suite {
	return []suite{
		{"ibd", true, needsChains, measureAllIBD, true},
		{"stake", true, nil, measureAllStake, true},
		{"measure", true, needsMainnet, measureScript, false},
		{"go", true, nil, measureGo, false},
		{"import", false, needsChainFiles, measureImport, false},
		{"discovery", true, nil, measureAllDiscovery, false},
		{"flood", true, nil, measureAllFlood, false},
		{"daemons", false, nil, measureAllDaemons, true},
		{"api", true, needsMainnet, measureAllAPI, true},
	}
}

func needsChains(o *allOptions) string {
	if o.btcd == "" && o.chains == "" && o.mainnet == "" {
		return "--btcd, --chains or --mainnet"
	}
	return ""
}

func needsChainFiles(o *allOptions) string {
	if o.chainFiles() == "" {
		return "--btcd or --chains"
	}
	return ""
}

// chainFiles is the folder with tiny.dat, fat.dat and full.dat; "": none was given.
func (o *allOptions) chainFiles() string {
	if o.chains == "" && o.btcd != "" {
		return filepath.Join(o.btcd, "data")
	}
	return o.chains
}

func needsMainnet(o *allOptions) string {
	if o.mainnet == "" {
		return "--mainnet"
	}
	return ""
}

func newAll() *cobra.Command {
	var o allOptions
	var names []string
	for _, s := range allSuites() {
		names = append(names, s.name)
	}
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Measure everything that is published, and write docs/benchmarks.md with its charts",
		Long: `all runs the other commands, .ci/measure and the Go benchmarks, puts what they give into docs/benchmarks/results.json
(each figure with machine, versions, commit, date, command, what it was compared with, and the ratio), and makes tables and charts from that. Run it in a
clone, on a machine that does nothing else; some 90 minutes. What lacks its files is left out and told; its old records stay, with their dates.

With --btcd DIR, btcd is built into DIR/bin from .ci/btcd.mod if it is not there.`,
		Example: `  dunlin-bench all --btcd DIR --mainnet blocks.dat.zst     everything
  dunlin-bench all --only discovery,flood                  two suites
  dunlin-bench all --quick --mainnet blocks.dat.zst        small versions, some minutes
  dunlin-bench all --render                                measure nothing: make the page from the records`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.errs = cmd.ErrOrStderr()
			if o.render {
				return render(o.docs)
			}
			if len(o.take) > 0 {
				return takeReports(cmd.Context(), &o)
			}
			return measureAll(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.only, "only", nil, "suites, of "+strings.Join(names, ", ")+" (default all)")
	f.BoolVar(&o.quick, "quick", false, "small versions, and only of what has one; the records say how many runs there were")
	f.BoolVar(&o.render, "render", false, "measure nothing, make page and charts from the records")
	f.StringSliceVar(&o.take, "take", nil, "measure nothing: take the figures of these reports, which commands wrote with --json at this commit")
	f.StringVar(&o.docs, "docs", "docs", "folder with benchmarks.md and benchmarks/results.json")
	f.IntVar(&o.runs, "runs", 3, "runs of each, 1 to 100")
	f.StringVar(&o.btcd, "btcd", "", "as of ibd")
	f.StringVar(&o.chains, "chains", "", "as of ibd")
	f.StringVar(&o.mainnet, "mainnet", "", "file with Bitcoin's first blocks, plain or zstd")
	f.StringVar(&o.dunlin, "dunlin", "", "the binary to measure (default: built from the module of this folder)")
	return cmd
}

func measureAll(ctx context.Context, o allOptions) (err error) {
	for _, name := range o.only {
		if !slices.ContainsFunc(allSuites(), func(s suite) bool { return s.name == name }) {
			return command.Usage(fmt.Errorf("--only: no suite %q", name))
		}
	}
	if o.runs < 1 || o.runs > 100 {
		return command.Usage(fmt.Errorf("--runs %d: must be 1 to 100", o.runs))
	}
	if o.quick {
		o.runs = 1
	}
	if _, err := renderedFiles(o.docs); err != nil { // before an hour is spent
		return err
	}
	if o.dir, err = os.MkdirTemp("", "dunlin-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if err := buildBTCD(ctx, &o); err != nil {
		return err
	}
	var errs []error
	ran, built := 0, o.dunlin != ""
	for _, s := range allSuites() {
		switch {
		case len(o.only) > 0 && !slices.Contains(o.only, s.name):
			continue
		case o.quick && !s.quick:
			fmt.Fprintf(o.errs, "left out: %s: it has no quick version\n", s.name)
			continue
		case s.needs != nil && s.needs(&o) != "":
			fmt.Fprintf(o.errs, "left out: %s: it needs %s\n", s.name, s.needs(&o))
			continue
		}
		if s.daemon && !built {
			if err := o.buildDunlin(ctx); err != nil {
				return errors.Join(append(errs, err)...)
			}
			built = true
		}
		begun := time.Now()
		fmt.Fprintf(o.errs, "== %s\n", s.name)
		if l := load(); l > 1 {
			fmt.Fprintf(o.errs, "the machine is busy (load %.1f): what is timed on it will be worse than it is; the records will say so\n", l)
		}
		if err := o.measure(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		ran++
		fmt.Fprintf(o.errs, "== %s: %s\n", s.name, time.Since(begun).Round(time.Second))
	}
	if ran == 0 && len(errs) == 0 {
		return command.Usage(errors.New("nothing to measure: give --mainnet, --btcd or --chains, or other suites"))
	}
	return errors.Join(errs...)
}

// measure runs one suite, adds its records to the file, and makes the page: what is measured is kept, whatever fails later.
func (o *allOptions) measure(ctx context.Context, s suite) error {
	commit, err := commitOf(ctx, o.docs)
	if err != nil {
		return err
	}
	out, err := s.run(ctx, o)
	if err != nil {
		return err
	}
	if o.quick {
		out.session.Note = strings.TrimPrefix(out.session.Note+"; quick", "; ")
	}
	return o.publish(out, commit)
}

// publish adds records to the file and makes the page.
func (o *allOptions) publish(out outcome, commit string) error {
	out.session.Commit = commit
	path := filepath.Join(o.docs, resultsFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r, err := readResults(raw)
	if err != nil {
		return err
	}
	if err := r.put(out.session, out.records); err != nil {
		return err
	}
	if raw, err = r.encode(); err != nil {
		return err
	}
	if _, err := readResults(raw); err != nil {
		return err
	}
	if err := replaceFile(path, raw); err != nil {
		return err
	}
	return render(o.docs)
}

// commitOf names what is measured.
func commitOf(ctx context.Context, dir string) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", args[0], err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit, err := git("rev-parse", "--short=7", "HEAD")
	if err != nil {
		return "", err
	}
	changed, err := git("status", "--porcelain", "--untracked-files=no", "--", ":(top)*.go", ":(top)go.mod")
	if err != nil {
		return "", err
	}
	if changed != "" {
		commit += " and changes"
	}
	return commit, nil
}

// buildDunlin builds the binary to measure, of what is here: one that happens to lie beside this program may be of another commit than the records say.
func (o *allOptions) buildDunlin(ctx context.Context) error {
	program := filepath.Join(o.dir, "dunlin")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./cmd/dunlin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = o.errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build dunlin: %w", err)
	}
	o.dunlin = program
	return nil
}

// buildBTCD builds the one that CI has, if there is none yet.
func buildBTCD(ctx context.Context, o *allOptions) error {
	if o.btcd == "" {
		return nil
	}
	program := filepath.Join(o.btcd, "bin", "btcd")
	if _, err := os.Stat(program); err == nil {
		return nil
	}
	path, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-modfile=.ci/btcd.mod", "-o", path, "github.com/btcsuite/btcd")
	cmd.Stderr = o.errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build btcd from .ci/btcd.mod: %w", err)
	}
	return nil
}

// report runs another command of this program with --json and reads what it wrote into into.
func (o *allOptions) report(ctx context.Context, into any, args ...string) error {
	path := filepath.Join(o.dir, "report.json")
	_ = os.Remove(path) // of the suite before
	root := newRoot()
	root.SetArgs(append(args, "--json", path))
	root.SetOut(o.errs)
	root.SetErr(o.errs)
	if err := root.ExecuteContext(ctx); err != nil {
		return err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

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
	args, command := []string{"ibd", "--runs", strconv.Itoa(o.runs)}, "dunlin-bench ibd"
	for _, f := range []struct{ flag, value, shown string }{{"btcd", o.btcd, "DIR"}, {"chains", o.chains, "DIR"}, {"mainnet", o.mainnet, "FILE"}, {"dunlin", o.dunlin, ""}} {
		if f.value != "" {
			args = append(args, "--"+f.flag, f.value)
			if f.shown != "" {
				command += " --" + f.flag + " " + f.shown
			}
		}
	}
	if o.quick {
		cases := "tiny"
		if o.mainnet != "" {
			cases = "mainnet"
		}
		args, command = append(args, "--cases", cases), command+" --cases "+cases
	}
	var r report
	if err := o.report(ctx, &r, args...); err != nil {
		return outcome{}, err
	}
	return ibdOutcome(&r, command+" --runs "+strconv.Itoa(o.runs)), failedRows(r.Rows)
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
	if err := o.report(ctx, &r, args...); err != nil {
		return outcome{}, err
	}
	return discoveryOutcome(&r, command), failedRows(r.Rows)
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
	if err := o.report(ctx, &r, args...); err != nil {
		return outcome{}, err
	}
	return floodOutcome(&r, command), failedRows(r.Rows)
}

// failedRows is an error if none of the rows has a figure: then nothing is known, not even that something failed today.
func failedRows(rows []row) error {
	var errs []error
	for _, r := range rows {
		if r.Error == "" && r.Ours != nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %s", r.Case, r.Error))
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

func measureAllDaemons(ctx context.Context, o *allOptions) (outcome, error) {
	args := []string{"flood", "--daemons", "20"}
	command := "dunlin-bench " + strings.Join(args, " ")
	if o.dunlin != "" {
		args = append(args, "--dunlin", o.dunlin)
	}
	var r daemonsReport
	if err := o.report(ctx, &r, args...); err != nil {
		return outcome{}, err
	}
	return daemonsOutcome(&r, command), nil
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
	if o.dunlin != "" {
		args = append(args, "--dunlin", o.dunlin)
	}
	var r apiReport
	if err := o.report(ctx, &r, args...); err != nil {
		return outcome{}, err
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
	for _, b := range goBenchmarks {
		said, err := o.benchmark(ctx, nil, b.pkg, strings.Replace(b.bench, "^", "^Benchmark", 1), benchtime, count)
		if err != nil {
			return outcome{}, err
		}
		readBenchmarks("go/"+b.pkg+"/", said, runs)
	}
	s := m.on(time.Now(), fmt.Sprintf("go test -run xxx -bench . -benchtime %s -count %d PACKAGE", benchtime, count))
	s.Go, s.Peer = runtime.Version(), "btcutil and btcec as go.mod has them, in the same run"
	return outcome{session: s, records: goRecords(known, runs)}, nil
}

// benchmark runs Go benchmarks and returns what they printed.
func (o *allOptions) benchmark(ctx context.Context, env []string, pkg, bench, benchtime string, count int) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", bench, "-benchtime", benchtime, "-count", strconv.Itoa(count), "-timeout", "2h", "./"+pkg)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&said, o.errs), o.errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("benchmarks of %s: %w", pkg, err)
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

// measureImport runs the benchmarks that need the chain files: imports, in turns with btcd's, and reorganisations.
func measureImport(ctx context.Context, o *allOptions) (outcome, error) {
	dir, err := filepath.Abs(o.chainFiles())
	if err != nil {
		return outcome{}, err
	}
	m := thisMachine()
	const bench = "^Benchmark(AgainstBTCD|Import|Reorg)$/^(tiny|fat|full|full-restarted|tiny-assumed|fat-assumed|full-assumed)$"
	said, err := o.benchmark(ctx, []string{"DUNLIN_BENCHDATA=" + dir}, "chain", bench, "1x", o.runs)
	if err != nil {
		return outcome{}, err
	}
	s := m.on(time.Now(), fmt.Sprintf("DUNLIN_BENCHDATA=FOLDER go test ./chain -run xxx -bench 'AgainstBTCD|Import$|Reorg' -benchtime 1x -count %d", o.runs))
	s.Peer = "btcd's blockchain package (ffldb) as go.mod has it, in turns"
	out := outcome{session: s, records: importRecords(said)}
	if len(out.records) == 0 {
		return out, fmt.Errorf("the benchmarks printed no figure:\n%s", said)
	}
	return out, nil
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
