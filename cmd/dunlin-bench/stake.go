package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/command"
)

// A stakeCase is a row of the table: a chain of stake, and one of work with the same
// number and kind of transactions.
type stakeCase struct {
	name, what string
	enginetest.Recipe
	quick bool
}

// stakeCases are the rows in their order. Without transactions there is nothing that costs
// what the signature of a seal does: the worst case, and what most blocks of a small
// network are.
var stakeCases = []stakeCase{
	{"empty", "20,000 blocks without transactions, four holders of stake", enginetest.Recipe{Blocks: 20_000}, true},
	{"keys", "5,000 blocks without transactions, 1,000 holders with as much each", enginetest.Recipe{Blocks: 5000, Holders: 1000}, false},
	{"one", "5,000 blocks with one signed input, four holders", enginetest.Recipe{Blocks: 5000, Inputs: 1}, true},
	{"four", "2,500 blocks with four", enginetest.Recipe{Blocks: 2500, Inputs: 4}, false},
	{"full", "40 blocks with 400", enginetest.Recipe{Blocks: 40, Inputs: 400}, false},
}

// stakeRatio is what the download of stake has to reach of that of work.
const stakeRatio = 0.7

// stakeOptions are the flags.
type stakeOptions struct {
	downloadOptions
	blocks int
}

func newStakeBench() *cobra.Command {
	var o stakeOptions
	var names []string
	for _, c := range stakeCases {
		names = append(names, c.name)
	}
	cmd := &cobra.Command{
		Use:   "stake",
		Short: "Time initial block download of chains of stake, in turns with chains of work",
		Long: `stake makes a chain of stake and one of work with the same number and kind of transactions on networks with the same
rules but for what proves a block, imports each into the home of a server, and times fresh clients that download them over loopback with
default settings, in turns, from the start of the process until the validated tip is the server's. Everything is checked: seals, coins,
scripts. The figures are blocks a second; the ratio is that of stake over that of work. A note has the same by the clients' processor time.`,
		Example: `  dunlin-bench stake --json stake.json       everything, some minutes
  dunlin-bench stake --cases empty --runs 5`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStake(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.cases, "cases", nil, "which of "+strings.Join(names, ", ")+" (default all)")
	f.IntVar(&o.runs, "runs", 3, "runs of each, 1 to 100")
	f.IntVar(&o.blocks, "blocks", 0, "blocks of each chain at most, to try it out; the records say nothing of it (0: those of the case)")
	o.flags(f, "200 MB")
	return cmd
}

func (o *stakeOptions) plan() (cases []stakeCase, err error) {
	var errs []error
	if o.runs < 1 || o.runs > 100 {
		errs = append(errs, fmt.Errorf("--runs %d: must be 1 to 100", o.runs))
	}
	if o.blocks < 0 {
		errs = append(errs, fmt.Errorf("--blocks %d: must be 0 or more", o.blocks))
	}
	for _, name := range o.cases {
		if !slices.ContainsFunc(stakeCases, func(c stakeCase) bool { return c.name == name }) {
			errs = append(errs, fmt.Errorf("--cases: no case %q", name))
		}
	}
	for _, c := range stakeCases {
		if len(o.cases) > 0 && !slices.Contains(o.cases, c.name) {
			continue
		}
		if o.blocks > 0 {
			c.Blocks = min(c.Blocks, o.blocks)
		}
		cases = append(cases, c)
	}
	return cases, errors.Join(errs...)
}

// runStake measures and reports.
func runStake(ctx context.Context, stdout, stderr io.Writer, o stakeOptions) error {
	cases, err := o.plan()
	if err != nil {
		return command.Usage(err)
	}
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	alone := func(*ibdBench) error { return nil }
	return runDownloads(ctx, stdout, stderr, o.downloadOptions, report{Bench: "stake", Peer: "work"}, alone, names, func(b *ibdBench, i int) error {
		return b.stake(ctx, cases[i], o.runs)
	})
}

// stake adds the row of a case: both servers run all the while, the clients in turns.
func (b *ibdBench) stake(ctx context.Context, c stakeCase, runs int) (err error) {
	type side struct {
		name    string
		chain   *chainFile
		servers []*node
		speeds  []float64
		cpu     []float64 // blocks a second of the processor's time
	}
	stake, work := &side{name: "stake"}, &side{name: "work"}
	sides := []*side{work, stake}
	r := row{Case: c.name, What: c.what, Unit: "blk/s", Bar: bar{Of: "ratio", Least: true, Value: stakeRatio}}
	defer func() {
		for _, s := range sides {
			err = errors.Join(err, b.procs.stop(processes(s.servers)...))
		}
		r.Btcd, r.Ours = figuresOf(work.speeds), figuresOf(stake.speeds)
		r.judge()
		if by := ratioOf(figuresOf(stake.cpu), figuresOf(work.cpu)); by != nil {
			r.Note = "by the clients' processor time " + by.text("×") // which other work on the machine changes less
		}
		if err != nil {
			r.Error, r.Met = lastLines(err.Error(), 100)[0], nil
			if ctx.Err() != nil {
				r.Error = "interrupted"
			}
		}
		b.report.Rows = append(b.report.Rows, r)
	}()
	for _, s := range sides {
		c.Stake = s == stake
		set := c.name + "-" + s.name
		if s.chain, err = writeRecipe(filepath.Join(b.work, set), c.Recipe); err != nil {
			return err
		}
		if s.servers, err = b.ours.serve(ctx, set, s.chain, 1); err != nil {
			return err
		}
	}
	for run := 1; run <= runs; run++ {
		for _, s := range sides {
			one, err := b.sync(ctx, b.ours, s.servers, scenario{peers: 1}, s.chain)
			if err != nil {
				return fmt.Errorf("%s, run %d: %w", s.name, run, err)
			}
			one.Case, one.System, one.Run = c.name, s.name, run
			b.report.Samples = append(b.report.Samples, one)
			s.speeds = append(s.speeds, float64(s.chain.blocks)/one.WallS)
			if one.CPUS > 0 { // it is not known everywhere
				s.cpu = append(s.cpu, float64(s.chain.blocks)/one.CPUS)
			}
			fmt.Fprintf(b.out, "%s %d/%d  %s: %.3f s (first block after %.3f s), CPU %.2f s, peak %.0f MB\n",
				c.name, run, runs, s.name, one.WallS, one.FirstS, one.CPUS, float64(one.PeakBytes)/1e6)
		}
		slices.Reverse(sides) // who comes first does not gain by it
	}
	return nil
}

// writeRecipe makes a chain and writes it beside its network.toml.
func writeRecipe(path string, r enginetest.Recipe) (*chainFile, error) {
	p, blocks, err := r.Make()
	if err != nil {
		return nil, err
	}
	c := &chainFile{path: path + ".dat", params: p, blocks: len(blocks), last: blocks[len(blocks)-1].Hash, network: path + ".toml"}
	var out []byte
	for _, b := range append([]*consensus.Block{p.GenesisBlock()}, blocks...) {
		out = binary.LittleEndian.AppendUint32(out, p.Magic)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Raw)))
		out = append(out, b.Raw...)
		c.bytes += int64(len(b.Raw))
	}
	c.bytes -= int64(len(p.GenesisBlock().Raw))
	if err := os.WriteFile(c.path, out, 0o600); err != nil {
		return nil, err
	}
	return c, os.WriteFile(c.network, networkTOML(r.Network(), p), 0o600)
}

// networkTOML describes a network as dunlin start --network-file wants it.
func networkTOML(c consensus.Custom, p *consensus.Params) []byte {
	var b strings.Builder
	text := func(key, value string) { fmt.Fprintf(&b, "%s = %q\n", key, value) }
	text("name", c.Name)
	text("genesis_text", c.GenesisText)
	fmt.Fprintf(&b, "genesis_time = %s\n", c.GenesisTime.UTC().Format(time.RFC3339))
	text("genesis_hash", p.GenesisHash.String())
	fmt.Fprintf(&b, "halving_interval = %d\nsubsidy = %d\nprivate = true\n", c.HalvingInterval, c.Subsidy)
	if len(c.Holders) == 0 {
		text("engine", "pow")
		text("spacing", c.Spacing.String())
		text("pow_limit_bits", fmt.Sprintf("0x%08x", p.PowLimitBits))
		return []byte(b.String())
	}
	text("engine", "pos")
	text("slot", p.SlotDuration.String())
	var holders []string
	for _, h := range c.Holders {
		coins := strconv.FormatFloat(float64(h.Value)/1e8, 'f', -1, 64)
		holders = append(holders, fmt.Sprintf("%q", fmt.Sprintf("%x=%s", h.Key, coins)))
	}
	fmt.Fprintf(&b, "holders = [%s]\nstake_maturity = %d\nmax_reorg = %d\n", strings.Join(holders, ", "), p.StakeMaturity, p.MaxReorg)
	return []byte(b.String())
}

func measureAllStake(ctx context.Context, o *allOptions) (outcome, error) {
	args, command := []string{"stake", "--runs", strconv.Itoa(o.runs)}, "dunlin-bench stake --runs "+strconv.Itoa(o.runs)
	if o.quick {
		var quick []string
		for _, c := range stakeCases {
			if c.quick {
				quick = append(quick, c.name)
			}
		}
		args, command = append(args, "--cases", strings.Join(quick, ",")), command+" --cases "+strings.Join(quick, ",")
	}
	var r report
	err := o.report(ctx, &r, append(args, "--dunlin", o.dunlin)...)
	return stakeOutcome(&r, command), err
}

func stakeOutcome(r *report, command string) outcome {
	out := outcome{session: r.Machine.on(r.At, command), records: map[string][]record{}}
	out.session.Peer = "dunlin on a chain of work, in turns"
	for _, row := range r.Rows {
		if rec, some := recordOf("stake/"+row.Case, row); some {
			out.records["stake"] = append(out.records["stake"], rec)
		}
	}
	return out
}
