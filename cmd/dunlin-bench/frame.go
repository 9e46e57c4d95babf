package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"dunlin/internal/command"
)

// withDaemons gives use the dunlin to measure (the one that is named, or as findDunlin finds it) and a working folder in parent. When it returns,
// no process is left and, but with keep, no folder.
func withDaemons(ctx context.Context, stderr io.Writer, parent, named string, keep bool, use func(p *procs, ours *dunlins) error) (err error) {
	work, err := os.MkdirTemp(parent, "dunlin-bench-")
	if err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	p := &procs{dir: work}
	defer func() {
		err = errors.Join(err, p.stopAll())
		if keep {
			fmt.Fprintln(stderr, "homes and logs are in", work)
			return
		}
		err = errors.Join(err, os.RemoveAll(work))
	}()
	program, err := findDunlin(ctx, p, named, work)
	if err != nil {
		return err
	}
	return use(p, &dunlins{program: program, dir: work, procs: p, homes: make(map[string]int)})
}

// findDunlin returns the binary to measure: the one that is named, the one beside
// this program, or one built here.
func findDunlin(ctx context.Context, p *procs, named, work string) (string, error) {
	if named != "" {
		return exec.LookPath(named)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "dunlin")
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	built := filepath.Join(work, "dunlin")
	if _, err := p.toEnd(ctx, "go build dunlin/cmd/dunlin", "go", "build", "-trimpath", "-o", built, "dunlin/cmd/dunlin"); err != nil {
		return "", fmt.Errorf("no dunlin beside this program and none can be built here (give --dunlin PATH, or run it in dunlin's source): %w", err)
	}
	return built, nil
}

// downloadOptions are the flags that the commands have in common which time downloads.
type downloadOptions struct {
	cases              []string
	runs               int
	json, dunlin, work string
	keep, check        bool
}

// flags adds them, all but those that each command explains in words of its own: cases and runs. space is what homes and logs take.
func (o *downloadOptions) flags(f *pflag.FlagSet, space string) {
	f.StringVar(&o.json, "json", "", "write the table and every run to this file, too")
	f.StringVar(&o.dunlin, "dunlin", "", "the binary to measure (default: dunlin beside this program, else built from the module of this folder)")
	f.StringVar(&o.work, "work", "", "folder for homes and logs, "+space+" (default: the system's for temporary files)")
	f.BoolVar(&o.keep, "keep", false, "leave homes and logs in place")
	f.BoolVar(&o.check, "check", false, "exit with code 3 if a bar is not met")
}

// runDownloads measures the cases with these names, one after the other, and reports. What was measured before a failure
// or Ctrl-C is reported all the same.
func runDownloads(ctx context.Context, stdout, stderr io.Writer, o downloadOptions, head report, prepare func(b *ibdBench) error, cases []string, measure func(b *ibdBench, i int) error) error {
	return withDaemons(ctx, stderr, o.work, o.dunlin, o.keep, func(p *procs, ours *dunlins) (err error) {
		b := &ibdBench{o: o, work: ours.dir, procs: p, out: stderr, ours: ours, chains: make(map[string]*chainFile), done: make(map[string]*pairing), report: head}
		b.report.At, b.report.Machine, b.report.Runs = time.Now(), thisMachine(), o.runs
		b.report.Rows, b.report.Samples = []row{}, []sample{}
		if b.report.Dunlin, err = ours.version(ctx); err != nil {
			return err
		}
		if err := prepare(b); err != nil {
			return err
		}
		var failures []error
		for i, name := range cases {
			if err := measure(b, i); err != nil {
				failures = append(failures, fmt.Errorf("case %s: %w", name, err))
			}
			if ctx.Err() != nil {
				failures = []error{errors.New("interrupted: the table has what was measured before")}
				break
			}
		}
		if err := b.report.writeTable(stdout); err != nil {
			failures = append(failures, err)
		}
		if o.json != "" {
			if err := writeJSON(o.json, b.report); err != nil {
				failures = append(failures, err)
			}
		}
		if barred := b.report.barred(); o.check && barred != "" && len(failures) == 0 {
			return command.Exit(exitBarred, errors.New("not met: "+barred))
		}
		return errors.Join(failures...)
	})
}
