package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
	"dunlin/internal/simnet"
)

// A simulation is a scenario in virtual time (internal/simnet), run in a process of its own:
// a bubble of virtual time can only be left by ending the process (simnet.Main), each
// starts with an empty heap, its CPU time and memory can be told, and it can be
// stopped.
type simulation struct {
	options simnet.Options
	// run gives figures by name. The rows of the table pick theirs.
	run func(n *simnet.Network) (map[string]float64, error)
}

// simulationOf returns one that the hidden subcommand can run, by name.
func simulationOf(name string) (simulation, bool) {
	if s, ok := floodSimulation(name); ok {
		return s, true
	}
	s, ok := discoverySimulations()[name]
	return s, ok
}

// A simCase is one row of a table: a figure of a simulation and what it is to reach.
type simCase struct {
	name   string
	sim    string
	what   string
	figure string
	unit   string
	bar    bar // Of is "ours"; a Value of 0: not judged
}

// simOptions is what the commands with simulations have in common.
type simOptions struct {
	only []string
	runs int
	seed uint64
	json string
	bars bool

	profile string // folder for CPU profiles; "": none
}

func (o *simOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.only, "only", nil, "cases to run, by name (default all)")
	f.IntVar(&o.runs, "runs", 1, "runs of each, each with the next seed")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the first run")
	f.StringVar(&o.json, "json", "", "also write the report to this file")
	f.BoolVar(&o.bars, "check", false, "exit with 3 if a bar is not met")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of each simulation into this folder")
}

// A simRun is one run of a simulation. Its figures are of virtual time; what it cost is of this machine.
type simRun struct {
	Simulation string             `json:"simulation"`
	Seed       uint64             `json:"seed"`
	Figures    map[string]float64 `json:"figures"`
	VirtualS   float64            `json:"virtual_s"`
	WallS      float64            `json:"wall_s"`
	CPUS       float64            `json:"cpu_s"`
	PeakBytes  int64              `json:"peak_bytes,omitempty"`
}

type simReport struct {
	Bench   string    `json:"bench"`
	At      time.Time `json:"at"`
	Machine machine   `json:"machine"`
	Rows    []row     `json:"rows"`
	Runs    []simRun  `json:"runs"`
}

// measureSims runs the simulations that the cases need and writes the table.
func measureSims(ctx context.Context, name string, cases []simCase, o simOptions, stdout, stderr io.Writer) error {
	r, err := runSims(ctx, name, cases, o, stderr)
	if err != nil {
		return err
	}
	if err := r.writeTable(stdout); err != nil {
		return err
	}
	return r.finish(o)
}

// runSims runs the simulations that the cases need, each once a seed. One that fails is noted in its rows.
func runSims(ctx context.Context, name string, cases []simCase, o simOptions, stderr io.Writer) (*simReport, error) {
	for _, only := range o.only {
		if !slices.ContainsFunc(cases, func(c simCase) bool { return c.name == only }) {
			return nil, command.Usage(fmt.Errorf("--only: no case %q", only))
		}
	}
	if o.runs < 1 {
		return nil, command.Usage(fmt.Errorf("--runs %d: want 1 or more", o.runs))
	}
	cases = slices.DeleteFunc(slices.Clone(cases), func(c simCase) bool { return len(o.only) > 0 && !slices.Contains(o.only, c.name) })
	r := &simReport{Bench: name, At: time.Now(), Machine: thisMachine()}
	runs, failed := map[string][]simRun{}, map[string]error{}
	for _, c := range cases {
		for i := range o.runs {
			if failed[c.sim] != nil || len(runs[c.sim]) > i {
				continue
			}
			run, err := runSim(ctx, c.sim, o.seed+uint64(i), o.profile, stderr)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				failed[c.sim] = err
				continue
			}
			fmt.Fprintf(stderr, "%s, seed %d: %.0f s of virtual time in %.1f s (CPU %.1f s, %d MB)\n", c.sim, run.Seed, run.VirtualS, run.WallS, run.CPUS, run.PeakBytes>>20)
			runs[c.sim] = append(runs[c.sim], run)
			r.Runs = append(r.Runs, run)
		}
		line := row{Case: c.name, What: c.what, Unit: c.unit, Bar: c.bar}
		if err := failed[c.sim]; err != nil {
			line.Error = err.Error()
		} else {
			var values []float64
			for _, run := range runs[c.sim] {
				if v, ok := run.Figures[c.figure]; ok {
					values = append(values, v)
				}
			}
			if line.Ours = figuresOf(values); c.bar.Value != 0 {
				line.judge()
			}
		}
		r.Rows = append(r.Rows, line)
	}
	return r, nil
}

// finish writes the report to the file asked for and says whether a bar was missed.
func (r *simReport) finish(o simOptions) error {
	if o.json != "" {
		if err := writeJSON(o.json, r); err != nil {
			return err
		}
	}
	all := report{Rows: r.Rows}
	if missed := all.barred(); missed != "" && o.bars {
		return command.Exit(exitBarred, fmt.Errorf("bars not met: %s", missed))
	}
	return nil
}

func (r *simReport) head(w io.Writer) {
	fmt.Fprintf(w, "dunlin-bench %s · %s · the real stack in virtual time: links, timers and protocols; code takes no time there\n",
		r.Bench, r.At.Format("2006-01-02 15:04 MST"))
}

func (r *simReport) writeTable(w io.Writer) error {
	r.head(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nCASE\tWHAT\tSEEN\tBAR\tAIM\tMET")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", row.Case, row.What, row.Ours.text(" "+row.Unit), row.limit(row.Bar.Value), row.limit(row.Bar.Aim), verdict(row.Met))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	for _, row := range r.Rows {
		if row.Error != "" {
			fmt.Fprintf(w, "\n%s: %s\n", row.Case, row.Error)
		}
	}
	return nil
}

// runSim runs one simulation in a child process. profile is a folder or "".
func runSim(ctx context.Context, name string, seed uint64, profile string, stderr io.Writer) (_ simRun, err error) {
	self, err := os.Executable()
	if err != nil {
		return simRun{}, fmt.Errorf("simulation %s: %w", name, err)
	}
	dir, err := os.MkdirTemp("", "dunlin-bench-") // it may be ended at any moment
	if err != nil {
		return simRun{}, fmt.Errorf("simulation %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{"simulate", name, strconv.FormatUint(seed, 10)}
	if profile != "" {
		args = append(args, "--profile", filepath.Join(profile, fmt.Sprintf("%s-%d.prof", strings.ReplaceAll(name, "/", "-"), seed)))
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.SysProcAttr = attributes()
	cmd.Stderr = stderr
	cmd.Env = append([]string{"GOGC=300", "GOMEMLIMIT=6GiB"}, os.Environ()...) // memory is cheaper here than time, up to a point; what is set wins
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	var out bytes.Buffer
	cmd.Stdout = &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return simRun{}, fmt.Errorf("simulation %s, seed %d: %w", name, seed, err)
	}
	var run simRun
	if err := json.NewDecoder(&out).Decode(&run); err != nil { // what testing.Main prints comes after it
		return simRun{}, fmt.Errorf("simulation %s, seed %d: its report: %w", name, seed, err)
	}
	run.WallS = time.Since(start).Seconds()
	run.CPUS = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	run.PeakBytes = peakOf(cmd.ProcessState)
	return run, nil
}

// newSimulate is what the child process runs. It does not return.
func newSimulate() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use: "simulate NAME SEED", Hidden: true, Short: "Run one simulation and print its figures as JSON", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			sim, ok := simulationOf(args[0])
			if !ok {
				return command.Usage(fmt.Errorf("no simulation %q", args[0]))
			}
			seed, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return command.Usage(fmt.Errorf("seed: %w", err))
			}
			stdout := cmd.OutOrStdout()
			sim.options.Seed = seed
			// Nothing inside would learn of a context that ends outside: a signal ends the process, as it does where nobody listens.
			signal.Reset(os.Interrupt, syscall.SIGTERM)
			fmt.Fprintf(cmd.ErrOrStderr(), "simulation %s, seed %d\n", args[0], seed)
			if profile != "" {
				file, err := os.Create(profile)
				if err != nil {
					return err
				}
				if err := pprof.StartCPUProfile(file); err != nil {
					return err
				}
			}
			simnet.Main(sim.options, func(n *simnet.Network) error {
				start := time.Now()
				figures, err := sim.run(n)
				pprof.StopCPUProfile()
				if err != nil {
					return err
				}
				return json.NewEncoder(stdout).Encode(simRun{Simulation: args[0], Seed: seed, Figures: figures, VirtualS: time.Since(start).Seconds()})
			})
			return errors.New("unreachable: the simulation ends the process")
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "write a CPU profile to this file")
	return cmd
}

// sayer returns what tells an operator how far a simulation is: a line with the virtual time since now.
func sayer() func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "  %4.0f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}
