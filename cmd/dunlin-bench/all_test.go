package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/command"
)

// someDocs is a folder with the page and records of someResults, in a repository of its own.
func someDocs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	raw, err := someResults().encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "benchmarks"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, resultsFile), raw)
	writeFile(t, filepath.Join(dir, pageFile), []byte(somePage))
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "x"}} {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	return dir
}

// fakes are options whose suites find what they are told to.
func fakes(t *testing.T, errs io.Writer, suites ...suite) allOptions {
	t.Helper()
	return allOptions{
		docs: someDocs(t), runs: 3, kitDir: filepath.Join(t.TempDir(), "kit"), dunlin: "dunlin", errs: errs, suites: suites,
		others: func(context.Context) (float64, error) { return 0, nil },
	}
}

// finds is a suite that measures ibd/tiny, and fails if err is one.
func finds(name string, seconds float64, err error) suite {
	return suite{name: name, minutes: 2, run: func(context.Context, *allOptions) (outcome, error) {
		out := outcome{session: thisMachine().on(someResultsAt, "measure "+name)}
		if seconds > 0 {
			out.records = map[string][]record{"ibd": {{ID: "ibd/" + name, What: name, Ours: single(seconds, "s")}}}
		}
		return out, err
	}}
}

// recordsOf are the ids of a folder's table ibd, with their figures.
func recordsOf(t *testing.T, docs string) (out []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(docs, resultsFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := readResults(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range r.Tables[0].Records {
		out = append(out, rec.ID+" "+rec.Ours.String())
	}
	return out
}

// TestAllSurvives: a suite that fails keeps what it found, and keeps none of the others from running.
func TestAllSurvives(t *testing.T) {
	var errs strings.Builder
	broken, nothing := errors.New("it broke"), finds("nothing", 0, nil)
	o := fakes(t, &errs, finds("one", 1, nil), finds("half", 2, broken), finds("none", 0, broken), nothing, finds("last", 3, nil))
	err := measureAll(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "half: it broke") || !strings.Contains(err.Error(), "none: it broke") || !strings.Contains(err.Error(), "nothing: it found no figure") {
		t.Errorf("%v", err)
	}
	if got := recordsOf(t, o.docs); !slices.Equal(got, []string{"ibd/tiny 2 (1–3) s", "ibd/fat some", "ibd/one 1 s", "ibd/half 2 s", "ibd/last 3 s"}) {
		t.Errorf("records %q", got)
	}
	if !strings.Contains(errs.String(), "for the rest: dunlin-bench all --only half,none,nothing") {
		t.Error(errs.String())
	}
	page, err := os.ReadFile(filepath.Join(o.docs, pageFile))
	if err != nil || !strings.Contains(string(page), "| last |") || !strings.Contains(string(page), "`measure last`") {
		t.Errorf("%v\n%s", err, page)
	}
}

// TestAllInterrupted: what came before is written, what did not run is named.
func TestAllInterrupted(t *testing.T) {
	var errs strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	stops := finds("stops", 2, context.Canceled)
	run := stops.run
	stops.run = func(c context.Context, o *allOptions) (outcome, error) { cancel(); return run(c, o) }
	o := fakes(t, &errs, finds("one", 1, nil), stops, finds("never", 3, nil))
	if err := measureAll(ctx, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := recordsOf(t, o.docs)[2:]; !slices.Equal(got, []string{"ibd/one 1 s", "ibd/stops 2 s"}) || !strings.Contains(errs.String(), "--only stops,never") {
		t.Errorf("records %q\n%s", got, errs.String())
	}
}

// TestAllWantsAnIdleMachine: what is timed is not measured beside other work, unless that is asked for.
func TestAllWantsAnIdleMachine(t *testing.T) {
	var errs strings.Builder
	looks := 0
	virtual := finds("virtual", 5, nil)
	virtual.virtual = true
	o := fakes(t, &errs, finds("timed", 1, nil), virtual)
	o.others = func(context.Context) (float64, error) { looks++; return 1.5, nil }
	if err := measureAll(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the machine is busy: other work has 1.5 of its processors") || looks != idleTries {
		t.Errorf("%v after %d looks", err, looks)
	}
	if got := recordsOf(t, o.docs); len(got) != 2 {
		t.Errorf("measured all the same: %q", got)
	}
	o.busy = true
	if err := measureAll(t.Context(), o); err != nil || len(recordsOf(t, o.docs)) != 4 {
		t.Errorf("--busy: %v, %q", err, recordsOf(t, o.docs))
	}
	o.busy, o.only, looks = false, []string{"virtual"}, 0
	if err := measureAll(t.Context(), o); err != nil || looks > 0 {
		t.Errorf("in virtual time: %v after %d looks", err, looks)
	}
	// One that becomes busy fails the suite that was to come.
	o.only, looks = nil, 0
	o.others = func(context.Context) (float64, error) { looks++; return float64(min(looks, 2) - 1), nil }
	if err := measureAll(t.Context(), o); err == nil || !strings.Contains(err.Error(), "timed: the machine is busy") || strings.Contains(err.Error(), "virtual") {
		t.Error(err)
	}
	broken := errors.New("no clock")
	o.others = func(context.Context) (float64, error) { return 0, broken }
	if err := measureAll(t.Context(), o); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestAllPlan: said first, and with --plan nothing else.
func TestAllPlan(t *testing.T) {
	var errs strings.Builder
	lacks := finds("lacks", 1, nil)
	lacks.needs = needsMainnet
	chains := finds("chains", 1, nil)
	chains.kit, chains.quick = kitBTCD, 1
	o := fakes(t, &errs, finds("one", 1, nil), chains, lacks)
	t.Setenv("DUNLIN_TESTDATA", t.TempDir())
	o.plan, o.runs = true, 6
	if err := measureAll(t.Context(), o); err != nil || len(recordsOf(t, o.docs)) != 2 {
		t.Error(err)
	}
	for _, want := range []string{"     3  to make in " + o.kitDir + ": tiny.dat, srv_tiny_0, fat.dat", "     4  one\n", "     4  chains\n", "    11  in all\n", "left out: lacks: it needs --mainnet FILE\n"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("lacks %q:\n%s", want, errs.String())
		}
	}
	errs.Reset()
	o.quick = true
	if err := measureAll(t.Context(), o); err != nil || !strings.Contains(errs.String(), "left out: one: it has no quick version") || strings.Contains(errs.String(), "btcd") {
		t.Errorf("%v\n%s", err, errs.String())
	}
	o.only = []string{"lacks"}
	if err := measureAll(t.Context(), o); command.Report(io.Discard, "x", err) != command.Misuse {
		t.Error(err)
	}
	// The file is found where .ci/measure finds it.
	file := writeFile(t, filepath.Join(t.TempDir(), "blocks"), nil)
	t.Setenv("DUNLIN_BLOCKS", file)
	if got := foundMainnet(); got != file {
		t.Errorf("found %q", got)
	}
}

// TestPreparing: what cannot be made fails those that need it, once each.
func TestPreparing(t *testing.T) {
	o := fakes(t, io.Discard)
	writeFile(t, o.kitDir, nil) // where a folder is to be
	p := preparing{}
	for range 2 {
		if err := p.prepare(t.Context(), &o, suite{kit: kitChains}); err == nil {
			t.Error("it can be made")
		}
	}
	if err := p.prepare(t.Context(), &o, suite{daemon: true}); err != nil || len(p.made) != 1 {
		t.Errorf("%v, %v", err, p.made)
	}
}

// TestEverySuite: each has its minutes and its own name, and those that tests measure are there.
func TestEverySuite(t *testing.T) {
	names := map[string]bool{}
	for _, s := range allSuites() {
		if s.minutes <= 0 || s.run == nil || names[s.name] {
			t.Errorf("%+v", s)
		}
		names[s.name] = true
	}
	for _, s := range testSuites {
		if !names[s.name] {
			t.Errorf("no suite %s", s.name)
		}
	}
}
