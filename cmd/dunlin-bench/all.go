package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

// allOptions are the flags of `dunlin-bench all`.
type allOptions struct {
	only                      []string
	quick, render, plan, busy bool
	docs                      string
	runs                      int
	kitDir, mainnet, dunlin   string
	take                      []string

	errs   io.Writer // what the commands say while they work
	dir    string    // for their reports
	suites []suite
	// others says how many processors are at work, watching for a moment; 0 where that is not known.
	others func(ctx context.Context) (float64, error)
}

// A suite is one part of all: a command, and what its report says in records.
type suite struct {
	name string
	// minutes is about what it takes on an idle machine of two cores, with three runs; quick what its small version takes, which finds the
	// same but of less; 0: it has none.
	minutes, quick float64
	// virtual: other work on the machine changes nothing but how long it takes.
	virtual bool
	// kit: what it needs of that folder. daemon: it needs the binary.
	kit    kitNeed
	daemon bool
	// needs says what is missing that this command cannot make; "": nothing.
	needs func(o *allOptions) string
	run   func(ctx context.Context, o *allOptions) (outcome, error)
}

// A kitNeed is what a suite needs of the kit.
type kitNeed int

const (
	kitNothing kitNeed = iota
	kitChains
	kitBTCD // and the chains
)

// An outcome is what a suite found: the session but for its id and commit, and records by table. A suite that failed may have found some.
type outcome struct {
	session session
	records map[string][]record
}

func (o *outcome) count() (n int) {
	for _, records := range o.records {
		n += len(records)
	}
	return n
}

// allSuites lists them in their order. What has tables of its own is named after the first of them.
func allSuites() []suite {
	return []suite{
		{name: "ibd", minutes: 30, quick: 1, kit: kitBTCD, daemon: true, run: measureAllIBD},
		{name: "stake", minutes: 6, quick: 2, daemon: true, run: measureAllStake},
		{name: "measure", minutes: 1, quick: 1, needs: needsMainnet, run: measureScript},
		{name: "go", minutes: 5, quick: 2, run: measureGo},
		{name: "import", minutes: 12, kit: kitChains, daemon: true, run: measureImport},
		{name: "api", minutes: 1, quick: 1, daemon: true, needs: needsMainnet, run: measureAllAPI},
		{name: "flood-daemons", minutes: 3, daemon: true, run: measureAllFloodDaemons},
		{name: "daemons", minutes: 10, run: measureTests("daemons")},
		{name: "tx", minutes: 3, run: measureTests("tx")},
		{name: "schedule", minutes: 1, quick: 1, virtual: true, run: measureTests("schedule")},
		{name: "discovery", minutes: 45, quick: 1, virtual: true, run: measureAllDiscovery},
		{name: "flood", minutes: 20, quick: 1, virtual: true, run: measureAllFlood},
	}
}

func needsMainnet(o *allOptions) string {
	if o.mainnet == "" {
		return "--mainnet FILE"
	}
	return ""
}

// kit is the folder of what is made once.
func (o *allOptions) kit() *kit { return newKit(o.kitDir, o.errs, o.errs) }

func newAll() *cobra.Command {
	o := allOptions{suites: allSuites(), others: processorsAtWork}
	var names []string
	for _, s := range o.suites {
		names = append(names, s.name)
	}
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Measure everything that is published, and write docs/benchmarks.md with its charts",
		Long: `all runs the other commands, .ci/measure, Go benchmarks and tests that tell figures, puts what they give into docs/benchmarks/results.json
(each figure with machine, versions, commit, date, command, what it was compared with, and the ratio), and makes tables and charts from that. Run it in a
clone, on a machine that does nothing else. It tells first what it will do and about how long that takes; what it lacks it makes, in --dir, where
it stays: the chains of "dunlin-bench chains", btcd and its servers.

What was measured is written after each suite. A suite that fails does not keep the others from running: what it found before is kept, older records
stay as they are, and the exit code is 1; at the end it says how to run again what failed. What is timed is not measured while
the machine has other work to do, but with --busy; figures in virtual time do not depend on that.

FILE has Bitcoin's first 14,131 blocks in bootstrap.dat form, plain or zstd (Bitcoin Core's contrib/linearize writes it). Without
--mainnet it is $DUNLIN_BLOCKS, else chain/mainnet-blocks-0-14131.dat.zst in $DUNLIN_TESTDATA or ../shared/data. Tests in network namespaces want to be
root on Linux. What lacks its files is left out and told.`,
		Example: `  dunlin-bench all                                         everything
  dunlin-bench all --plan                                  say what that would be
  dunlin-bench all --only discovery,flood                  two suites
  dunlin-bench all --quick                                 small versions, some minutes
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
	f.BoolVar(&o.plan, "plan", false, "say what would be measured and about how long it takes, and do nothing")
	f.BoolVar(&o.busy, "busy", false, "measure though the machine has other work to do; the records say so")
	f.BoolVar(&o.quick, "quick", false, "small versions, and only of what has one; the records say how many runs there were")
	f.BoolVar(&o.render, "render", false, "measure nothing, make page and charts from the records")
	f.StringSliceVar(&o.take, "take", nil, "measure nothing: take the figures of these reports, which commands wrote with --json at this commit")
	f.StringVar(&o.docs, "docs", "docs", "folder with benchmarks.md and benchmarks/results.json")
	f.IntVar(&o.runs, "runs", 3, "runs of each, 1 to 100")
	f.StringVar(&o.kitDir, "dir", "", "folder for chains, btcd and its servers, 2 GB; what is there is kept (default: dunlin-bench in the user's cache)")
	f.StringVar(&o.mainnet, "mainnet", "", "file with Bitcoin's first blocks, plain or zstd")
	f.StringVar(&o.dunlin, "dunlin", "", "the binary to measure (default: built from the module of this folder)")
	return cmd
}

// fill works out what was not given.
func (o *allOptions) fill() error {
	var errs []error
	for _, name := range o.only {
		if !slices.ContainsFunc(o.suites, func(s suite) bool { return s.name == name }) {
			errs = append(errs, fmt.Errorf("--only: no suite %q", name))
		}
	}
	if o.runs < 1 || o.runs > 100 {
		errs = append(errs, fmt.Errorf("--runs %d: must be 1 to 100", o.runs))
	}
	if o.mainnet != "" {
		if _, err := os.Stat(o.mainnet); err != nil {
			errs = append(errs, fmt.Errorf("--mainnet: %w", err))
		}
	}
	if len(errs) > 0 {
		return command.Usage(errors.Join(errs...))
	}
	if o.quick {
		o.runs = 1
	}
	if o.mainnet == "" {
		o.mainnet = foundMainnet()
	}
	if o.kitDir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return command.Usage(fmt.Errorf("give --dir: %w", err))
		}
		o.kitDir = filepath.Join(cache, "dunlin-bench")
	}
	return nil
}

// foundMainnet is the file that .ci/measure takes too; "": there is none.
func foundMainnet() string {
	path := os.Getenv("DUNLIN_BLOCKS")
	if path == "" {
		folder := os.Getenv("DUNLIN_TESTDATA")
		if folder == "" {
			folder = filepath.Join("..", "shared", "data")
		}
		path = filepath.Join(folder, "chain", "mainnet-blocks-0-14131.dat.zst")
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// planned are the suites to run, and why the others that were asked for are not.
func (o *allOptions) planned() (run []suite, left []string) {
	for _, s := range o.suites {
		if len(o.only) > 0 && !slices.Contains(o.only, s.name) {
			continue
		}
		if o.quick {
			if s.quick == 0 {
				left = append(left, s.name+": it has no quick version")
				continue
			}
			s.kit = min(s.kit, kitChains)
		}
		if s.needs != nil && s.needs(o) != "" {
			left = append(left, s.name+": it needs "+s.needs(o))
			continue
		}
		run = append(run, s)
	}
	return run, left
}

// kitMinutes is about what it takes to make the kit.
const kitMinutes = 3

// tell says what will be measured.
func (o *allOptions) tell(run []suite, left []string) {
	sum := 0.0
	fmt.Fprintln(o.errs, "minutes, about, on an idle machine of two cores:")
	line := func(name string, minutes float64, note string) {
		sum += minutes
		fmt.Fprintf(o.errs, "%6.0f  %s%s\n", minutes, name, note)
	}
	need := kitNothing
	for _, s := range run {
		need = max(need, s.kit)
	}
	if lacks := o.kit().lacks(need == kitBTCD); need > kitNothing && len(lacks) > 0 {
		line("to make in "+o.kitDir, kitMinutes, ": "+strings.Join(lacks, ", "))
	}
	for _, s := range run {
		minutes, note := s.minutes*max(float64(o.runs)/3, 1./3), ""
		if o.quick {
			minutes = s.quick
		}
		if s.virtual {
			note = " (virtual time)"
		}
		line(s.name, minutes, note)
	}
	fmt.Fprintf(o.errs, "%6.0f  in all\n", sum)
	for _, name := range left {
		fmt.Fprintln(o.errs, "left out:", name)
	}
}

func measureAll(ctx context.Context, o allOptions) (err error) {
	if err := o.fill(); err != nil {
		return err
	}
	run, left := o.planned()
	o.tell(run, left)
	if len(run) == 0 {
		return command.Usage(errors.New("nothing to measure: give --mainnet, or other suites"))
	}
	if o.plan {
		return nil
	}
	if _, err := renderedFiles(o.docs); err != nil { // before an hour is spent
		return err
	}
	if o.dir, err = os.MkdirTemp("", "dunlin-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if slices.ContainsFunc(run, func(s suite) bool { return !s.virtual }) {
		if err := o.idle(ctx); err != nil { // nothing has been made or measured
			return err
		}
	}
	var errs []error
	var failed []string
	ready := preparing{}
	for _, s := range run {
		begun := time.Now()
		fmt.Fprintf(o.errs, "== %s\n", s.name)
		err := ready.prepare(ctx, &o, s)
		if err == nil && !s.virtual {
			err = o.idle(ctx)
		}
		if err == nil {
			err = o.measure(ctx, s)
		}
		if err != nil {
			errs, failed = append(errs, fmt.Errorf("%s: %w", s.name, err)), append(failed, s.name)
			fmt.Fprintf(o.errs, "== %s failed after %s: %v\n", s.name, time.Since(begun).Round(time.Second), err)
		} else {
			fmt.Fprintf(o.errs, "== %s: %s\n", s.name, time.Since(begun).Round(time.Second))
		}
		if ctx.Err() != nil {
			i := slices.IndexFunc(run, func(other suite) bool { return other.name == s.name })
			for _, next := range run[i+1:] {
				failed = append(failed, next.name)
			}
			break
		}
	}
	if len(failed) > 0 {
		fmt.Fprintf(o.errs, "what was measured is written; for the rest: dunlin-bench all --only %s\n", strings.Join(failed, ","))
	}
	return errors.Join(errs...)
}

// preparing makes what suites need, each thing once: what cannot be made fails those that need it, and no others.
type preparing struct {
	built  bool
	daemon error
	made   map[kitNeed]error
}

func (p *preparing) prepare(ctx context.Context, o *allOptions, s suite) error {
	if s.daemon && !p.built {
		p.built = true
		if o.dunlin == "" {
			p.daemon = o.buildDunlin(ctx)
		}
	}
	if s.daemon && p.daemon != nil {
		return p.daemon
	}
	if s.kit == kitNothing {
		return nil
	}
	err, tried := p.made[s.kit]
	if !tried {
		if p.made == nil {
			p.made = map[kitNeed]error{}
		}
		var names []string
		if o.quick {
			names = []string{"tiny"}
		}
		err = o.kit().make(ctx, names, s.kit == kitBTCD)
		p.made[s.kit] = err
	}
	return err
}

const (
	// idleCores is how many processors others may have at work: a quarter of one of two changes few figures by more than they differ from run to run.
	idleCores = 0.25
	// idleTries is how often it is looked, a few seconds each: what was just built or measured may still be busy with its end.
	idleTries = 10
)

// idle returns once the machine has nothing else to do, or says that it has.
func (o *allOptions) idle(ctx context.Context) error {
	for try := 1; ; try++ {
		busy, err := o.others(ctx)
		if err != nil || busy <= idleCores {
			return err
		}
		if o.busy {
			fmt.Fprintf(o.errs, "the machine is busy (%.1f processors at work): what is timed on it will be worse than it is; the records say so\n", busy)
			return nil
		}
		if try == idleTries {
			return fmt.Errorf("the machine is busy: other work has %.1f of its processors, and what is timed beside that says little (--busy measures all the same)", busy)
		}
		if try == 1 {
			fmt.Fprintf(o.errs, "the machine is busy (%.1f processors at work): waiting\n", busy)
		}
	}
}

// measure runs one suite, adds its records to the file, and makes the page: what is measured is kept, whatever fails later.
func (o *allOptions) measure(ctx context.Context, s suite) error {
	commit, err := commitOf(ctx, o.docs)
	if err != nil {
		return err
	}
	out, err := s.run(ctx, o)
	if out.count() == 0 {
		if err == nil {
			err = errors.New("it found no figure")
		}
		return err
	}
	if o.quick {
		out.session.Note = strings.TrimPrefix(out.session.Note+"; quick", "; ")
	}
	return errors.Join(err, o.publish(out, commit))
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
	inGroup(cmd)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = o.errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build dunlin: %w", err)
	}
	o.dunlin = program
	return nil
}

// report runs another command of this program with --json and reads what it wrote into into, what it wrote before it failed too.
func (o *allOptions) report(ctx context.Context, into any, args ...string) error {
	path := filepath.Join(o.dir, "report.json")
	_ = os.Remove(path) // of the suite before
	root := newRoot()
	root.SetArgs(append(args, "--json", path))
	root.SetOut(o.errs)
	root.SetErr(o.errs)
	err := root.ExecuteContext(ctx)
	raw, e := os.ReadFile(path)
	switch {
	case err != nil && errors.Is(e, os.ErrNotExist):
		return err
	case e != nil:
		return errors.Join(err, e)
	}
	return errors.Join(err, json.Unmarshal(raw, into))
}
