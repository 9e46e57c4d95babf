package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/command"
)

// A scenario is how a client downloads a chain.
type scenario struct {
	chain    string   // tiny, fat, full or mainnet
	peers    int      // servers
	links    linkSpec // between them and the client; zero: none, loopback itself
	args     func(c *chainFile) []string
	freezeAt float64 // part of the blocks after which the busiest server hangs; 0: never
	killAt   float64 // part of the blocks after which the client is killed and started again; 0: never
	theirs   int     // runs of btcd at most: -1 none, 0 as many as ours
}

// linkSpec is a link to each server.
type linkSpec struct {
	rate  float64       // bytes a second from the server
	delay time.Duration // each way
}

// An ibdCase is one row of the table: a figure of a scenario and what it is to reach.
// Cases of one scenario share its runs.
type ibdCase struct {
	name     string
	scenario string
	what     string
	unit     string
	figure   func(s *sample, c *chainFile) float64
	bar      bar
}

var scenarios = map[string]scenario{
	"tiny":        {chain: "tiny", peers: 1},
	"fat":         {chain: "fat", peers: 1},
	"full":        {chain: "full", peers: 3},
	"assumevalid": {chain: "full", peers: 3, theirs: -1, args: func(c *chainFile) []string { return []string{"--assume-valid", c.last.String()} }},
	"links":       {chain: "fat", peers: 3, links: linkSpec{rate: 5e6, delay: 25 * time.Millisecond}},
	"freeze":      {chain: "fat", peers: 3, freezeAt: 0.25, theirs: 1},
	"kill9":       {chain: "full", peers: 1, killAt: 0.5, theirs: 1},
	"mainnet":     {chain: "mainnet", peers: 1, theirs: -1},
}

var (
	blocksPerSecond = func(s *sample, c *chainFile) float64 { return float64(c.blocks) / s.WallS }
	megabytesPerS   = func(s *sample, c *chainFile) float64 { return float64(c.bytes) / 1e6 / s.WallS }
	wallSeconds     = func(s *sample, _ *chainFile) float64 { return s.WallS }
)

// ibdCases are the rows in their order. Times are from the start of the client's
// process until its validated tip is the servers'.
var ibdCases = []ibdCase{
	{
		name: "tiny", scenario: "tiny", what: "empty blocks, 1 peer", unit: "blk/s", figure: blocksPerSecond,
		bar: bar{Of: "ratio", Least: true, Value: 3, Aim: 5},
	},
	{
		name: "fat", scenario: "fat", what: "big blocks, 1 peer", unit: "MB/s", figure: megabytesPerS,
		bar: bar{Of: "ratio", Least: true, Value: 1.5, Aim: 3},
	},
	{
		name: "full", scenario: "full", what: "many signatures, 3 peers, all scripts", unit: "s", figure: wallSeconds,
		bar: bar{Of: "ratio", Value: 0.9, Aim: 0.75},
	},
	{
		name: "assumevalid", scenario: "assumevalid", what: "the same, assume_valid at the tip", unit: "MB/s", figure: megabytesPerS,
		bar: bar{Of: "ours", Least: true, Value: 60, Aim: 80},
	},
	{
		name: "links", scenario: "links", what: "big blocks, 3 peers of 5 MB/s, 50 ms there and back", unit: "s", figure: wallSeconds,
		bar: bar{Of: "ours", Value: 22},
	},
	{
		name: "links-share", scenario: "links", what: "the same: what was used of the links' sum", unit: linksShare,
		figure: func(s *sample, _ *chainFile) float64 { return s.LinksShare },
		bar:    bar{Of: "ours", Least: true, Value: 0.74, Aim: 0.93}, // 22 s are 0.74
	},
	{
		name: "freeze", scenario: "freeze", what: "big blocks, 3 peers, the best frozen: longest gap of the tip", unit: "s",
		figure: func(s *sample, _ *chainFile) float64 { return s.GapS },
		bar:    bar{Of: "ours", Value: 3, Aim: 1.5},
	},
	{
		name: "kill9", scenario: "kill9", what: "kill -9 half way: from listening again to the height it had", unit: "s",
		figure: func(s *sample, _ *chainFile) float64 { return s.RecoveredS },
		bar:    bar{Of: "ours", Value: 5, Aim: 2},
	},
	{
		name: "memory", scenario: "fat", what: "peak memory of the client on fat", unit: "MB",
		figure: func(s *sample, _ *chainFile) float64 { return float64(s.PeakBytes) / 1e6 },
		bar:    bar{Of: "ours", Value: 250, Aim: 200},
	},
	{
		name: "mainnet", scenario: "mainnet", what: "real blocks of Bitcoin from genesis, 1 peer", unit: "s", figure: wallSeconds,
		bar: bar{Of: "ours", Value: 1, Aim: 0.6},
	},
}

func newIBD() *cobra.Command {
	var o ibdOptions
	var names []string
	for _, c := range ibdCases {
		names = append(names, c.name)
	}
	cmd := &cobra.Command{
		Use:   "ibd",
		Short: "Time initial block download, in turns with btcd",
		Long: `ibd imports a chain file into the homes of servers, starts them, and times fresh clients that download it over
loopback with default settings, from the start of the process until the validated tip is the servers'. With --btcd each
run is followed by one of btcd on the same blocks.

Chain files are in bootstrap.dat form: tiny.dat, fat.dat and full.dat in --chains, and Bitcoin's own blocks in --mainnet.
With --btcd DIR: DIR/bin/btcd, and DIR/data/srv_<chain>_<0, 1, 2>, btcd data folders that hold those chains. btcd serves
no headers while its tip is old, so a block is mined on top of them, which stays.`,
		Example: `  dunlin-bench ibd --btcd DIR --mainnet blocks.dat.zst --json ibd.json     everything, about 20 minutes
  dunlin-bench ibd --chains DIR/data --cases tiny,fat --runs 1             two cases, dunlin alone`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runIBD(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.btcd, "btcd", "", "folder with bin/btcd and data/srv_*: pair each run with btcd")
	f.StringVar(&o.chains, "chains", "", "folder with tiny.dat, fat.dat and full.dat (default: data in --btcd)")
	f.StringVar(&o.mainnet, "mainnet", "", "file with Bitcoin's first blocks, plain or zstd")
	f.StringSliceVar(&o.cases, "cases", nil, "which of "+strings.Join(names, ", ")+" (default: all that the given files allow)")
	f.IntVar(&o.runs, "runs", 3, "runs of each case, 1 to 100; btcd's slowest cases run once")
	o.flags(f, "2 GB")
	return cmd
}

// ibdOptions are the flags.
type ibdOptions struct {
	downloadOptions
	btcd, chains, mainnet string
}

// plan works out which cases to run and where their chains are, and reports every
// fault at once.
func (o *ibdOptions) plan() (cases []ibdCase, files map[string]string, left []string, err error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.runs < 1 || o.runs > 100 {
		fault("--runs %d: must be 1 to 100", o.runs)
	}
	if o.btcd != "" && o.chains == "" {
		o.chains = filepath.Join(o.btcd, "data")
	}
	for _, name := range o.cases {
		if !slices.ContainsFunc(ibdCases, func(c ibdCase) bool { return c.name == name }) {
			fault("--cases: no case %q", name)
		}
	}
	files = make(map[string]string)
	for _, c := range ibdCases {
		if len(o.cases) > 0 && !slices.Contains(o.cases, c.name) {
			continue
		}
		sc := scenarios[c.scenario]
		file, flag := filepath.Join(o.chains, sc.chain+".dat"), "--chains"
		given := o.chains != ""
		if sc.chain == "mainnet" {
			file, flag, given = o.mainnet, "--mainnet", o.mainnet != ""
		}
		switch {
		case !given && len(o.cases) == 0:
			left = append(left, c.name+": no "+flag)
			continue
		case !given:
			fault("case %s needs %s", c.name, flag)
			continue
		}
		if _, err := os.Stat(file); err != nil && files[sc.chain] == "" {
			fault("case %s: %w", c.name, err)
		}
		files[sc.chain] = file
		cases = append(cases, c)
		for i := range sc.peers {
			if home := filepath.Join(o.btcd, "data", fmt.Sprintf("srv_%s_%d", sc.chain, i)); o.btcd != "" && sc.theirs >= 0 {
				if _, err := os.Stat(home); err != nil {
					fault("case %s: btcd's server: %w", c.name, err)
				}
			}
		}
	}
	if o.btcd != "" {
		if _, err := os.Stat(filepath.Join(o.btcd, "bin", "btcd")); err != nil {
			fault("--btcd: %w", err)
		}
	}
	if o.dunlin != "" {
		if _, err := exec.LookPath(o.dunlin); err != nil {
			fault("--dunlin: %w", err)
		}
	}
	if len(cases) == 0 && len(errs) == 0 {
		fault("nothing to measure: give --btcd, --chains or --mainnet")
	}
	return cases, files, left, errors.Join(errs...)
}

// runIBD measures and reports.
func runIBD(ctx context.Context, stdout, stderr io.Writer, o ibdOptions) error {
	cases, files, left, err := o.plan()
	if err != nil {
		return command.Usage(err)
	}
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	pair := func(b *ibdBench) error {
		for _, name := range left {
			fmt.Fprintln(stderr, "left out:", name)
		}
		if o.btcd == "" {
			return nil
		}
		b.theirs = &btcds{program: filepath.Join(o.btcd, "bin", "btcd"), data: filepath.Join(o.btcd, "data"), dir: b.work, procs: b.procs}
		out, err := b.procs.toEnd(ctx, "btcd --version", b.theirs.program, "--version")
		b.report.Btcd = strings.TrimSpace(string(out))
		return err
	}
	return runDownloads(ctx, stdout, stderr, o.downloadOptions, report{Bench: "ibd"}, pair, names, func(b *ibdBench, i int) error {
		return b.measure(ctx, cases[i], files)
	})
}

// ibdBench is one run of the command.
type ibdBench struct {
	o      downloadOptions
	work   string
	procs  *procs
	out    io.Writer // progress
	ours   *dunlins
	theirs *btcds // nil: alone
	chains map[string]*chainFile
	done   map[string]*pairing // by scenario
	report report
}

// A pairing is what the runs of a scenario gave.
type pairing struct {
	ours, theirs []sample
	err          error
}

// measure adds the row of a case to the report.
func (b *ibdBench) measure(ctx context.Context, c ibdCase, files map[string]string) error {
	sc := scenarios[c.scenario]
	chain := b.chains[sc.chain]
	if chain == nil {
		var err error
		if chain, err = scanChain(files[sc.chain]); err != nil {
			return err
		}
		b.chains[sc.chain] = chain
	}
	p := b.done[c.scenario]
	if p == nil {
		p = b.pair(ctx, c.scenario, sc, chain)
		b.done[c.scenario] = p
		b.report.Samples = append(append(b.report.Samples, p.ours...), p.theirs...)
	}
	r := row{Case: c.name, What: c.what, Unit: c.unit, Bar: c.bar}
	values := func(samples []sample) *figures {
		var vs []float64
		for i := range samples {
			vs = append(vs, c.figure(&samples[i], chain))
		}
		return figuresOf(vs)
	}
	r.Ours, r.Btcd = values(p.ours), values(p.theirs)
	r.judge()
	if p.err != nil {
		r.Error, r.Met = lastLines(p.err.Error(), 100)[0], nil
		if ctx.Err() != nil {
			r.Error = "interrupted"
		}
	}
	b.report.Rows = append(b.report.Rows, r)
	return p.err
}

// pair runs a scenario in turns: ours, theirs, ours, theirs. Both sides' servers run
// all the while, unless one of them is to be frozen: then each run has its own.
func (b *ibdBench) pair(ctx context.Context, name string, sc scenario, chain *chainFile) *pairing {
	p := &pairing{}
	type side struct {
		system
		servers []*node
		runs    int
		samples *[]sample
	}
	sides := []*side{{system: b.ours, runs: b.o.runs, samples: &p.ours}}
	if b.theirs != nil && sc.theirs >= 0 {
		s := &side{system: b.theirs, runs: b.o.runs, samples: &p.theirs}
		if sc.theirs > 0 {
			s.runs = min(s.runs, sc.theirs)
		}
		sides = append(sides, s)
	}
	stop := func(s *side) error {
		err := b.procs.stop(processes(s.servers)...)
		s.servers = nil
		return err
	}
	defer func() {
		for _, s := range sides {
			p.err = errors.Join(p.err, stop(s))
		}
	}()
	for run := 1; run <= b.o.runs; run++ {
		for _, s := range sides {
			if run > s.runs {
				continue
			}
			if s.servers == nil {
				if s.servers, p.err = s.serve(ctx, sc.chain, chain, sc.peers); p.err != nil {
					return p
				}
			}
			one, err := b.sync(ctx, s.system, s.servers, sc, chain)
			if err != nil {
				p.err = fmt.Errorf("%s, run %d: %w", s.name(), run, err)
				return p
			}
			one.Case, one.System, one.Run = name, s.name(), run
			*s.samples = append(*s.samples, one)
			fmt.Fprintf(b.out, "%s %d/%d  %s: %.2f s (first block after %.2f s, longest gap %.2f s), CPU %.1f s, peak %.0f MB\n",
				name, run, s.runs, s.name(), one.WallS, one.FirstS, one.GapS, one.CPUS, float64(one.PeakBytes)/1e6)
			if sc.freezeAt > 0 {
				if p.err = stop(s); p.err != nil {
					return p
				}
			}
		}
	}
	return p
}

func processes(nodes []*node) (cs []*child) {
	for _, n := range nodes {
		cs = append(cs, n.child)
	}
	return cs
}

// syncTimeout is how long one download may take: btcd's with a frozen peer takes four minutes.
const syncTimeout = 15 * time.Minute

// sync times one fresh client.
func (b *ibdBench) sync(ctx context.Context, sys system, servers []*node, sc scenario, chain *chainFile) (s sample, err error) {
	want, tip, err := servers[0].ready(ctx)
	if err != nil {
		return s, err
	}
	from, proxies, unlink, err := link(ctx, servers, sc.links)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, unlink()) }()
	home, err := os.MkdirTemp(b.work, sys.name()+"-client-")
	if err != nil {
		return s, fmt.Errorf("client's home: %w", err)
	}
	if !b.o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	}
	var args []string
	if sc.args != nil && sys == system(b.ours) {
		args = sc.args(chain)
	}
	client, err := sys.client(ctx, chain, home, from, args)
	if err != nil {
		return s, err
	}
	defer func() { b.procs.kill(client.child) }()

	w := watch{started: client.at}
	freezeAt, killAt := int32(sc.freezeAt*float64(want)), int32(sc.killAt*float64(want))
	err = client.await(ctx, syncTimeout, func(height int32, hash string) (bool, error) {
		w.see(height, time.Now())
		if freezeAt > 0 && height >= freezeAt && s.FrozenAt == 0 {
			best, err := client.busiest(ctx, from)
			if err != nil {
				return false, err
			}
			if best >= 0 {
				s.FrozenAt = height
				if err := servers[best].freeze(); err != nil {
					return false, err
				}
			}
		}
		switch {
		case killAt > 0 && height >= killAt:
			return true, nil
		case height < want:
			return false, nil
		case hash != tip:
			return true, fmt.Errorf("%s is at height %d %s, its servers have %s", client.name, height, hash, tip)
		}
		return true, nil
	})
	if err != nil {
		return s, err
	}
	s.WallS, s.FirstS, s.GapS = w.last.Sub(client.at).Seconds(), w.first.Sub(client.at).Seconds(), w.gap.Seconds()
	cpu, peak := usageOf(client.pid)
	s.CPUS, s.PeakBytes = cpu.Seconds(), peak
	if freezeAt > 0 && s.FrozenAt == 0 {
		return s, errors.New("the download was over before a server could be frozen")
	}
	if err := s.usedLinks(proxies, sc.links, chain); err != nil {
		return s, err
	}
	if killAt > 0 {
		s.KilledAt = w.height
		b.procs.kill(client.child)
		again, err := sys.client(ctx, chain, home, from, args)
		if err != nil {
			return s, err
		}
		client = again // for the deferred kill
		if s.RecoveredS, err = recovery(ctx, again, s.KilledAt); err != nil {
			return s, err
		}
	}
	return s, nil
}

// recovery is how long a node that was started again takes from listening until it
// is back at a height.
func recovery(ctx context.Context, n *node, height int32) (seconds float64, err error) {
	if _, _, err := n.ready(ctx); err != nil {
		return 0, err
	}
	listening := time.Now()
	err = n.await(ctx, syncTimeout, func(h int32, _ string) (bool, error) { return h >= height, nil })
	return time.Since(listening).Seconds(), err
}

// A watch sees the heights of a client and keeps what a sample tells of them.
type watch struct {
	started, first, last time.Time
	height               int32
	gap                  time.Duration
}

func (w *watch) see(height int32, now time.Time) {
	if height == w.height {
		return
	}
	if w.first.IsZero() {
		w.first = now
	} else {
		w.gap = max(w.gap, now.Sub(w.last))
	}
	w.height, w.last = height, now
}

// link puts a throttling proxy before each server, if the links are to be slow.
// The caller calls unlink, which ends them and waits.
func link(ctx context.Context, servers []*node, spec linkSpec) (from []remote, proxies []*proxy, unlink func() error, err error) {
	if spec == (linkSpec{}) {
		for _, s := range servers {
			from = append(from, remote{s, s.listen})
		}
		return from, nil, func() error { return nil }, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	errs := make([]error, len(servers))
	unlink = func() error {
		cancel()
		all.Wait()
		return errors.Join(errs...)
	}
	for i, s := range servers {
		p, err := newProxy(ctx, s.listen)
		if err != nil {
			return nil, nil, nil, errors.Join(err, unlink())
		}
		p.up.delay, p.down.delay, p.down.rate = spec.delay, spec.delay, spec.rate
		all.Go(func() {
			if err := p.run(ctx); !errors.Is(err, context.Canceled) {
				errs[i] = err
			}
		})
		proxies = append(proxies, p)
		from = append(from, remote{s, p.addr()})
	}
	return from, proxies, unlink, nil
}

// usedLinks works out how much of the links was used, and makes sure that the blocks
// did not find another way.
func (s *sample) usedLinks(proxies []*proxy, spec linkSpec, chain *chainFile) error {
	if len(proxies) == 0 {
		return nil
	}
	carried := int64(0)
	for _, p := range proxies {
		carried += p.down.carried.Load()
	}
	if carried < chain.bytes {
		return fmt.Errorf("%w: %d of %d bytes", errNoProxy, carried, chain.bytes)
	}
	if spec.rate > 0 {
		s.LinksShare = float64(chain.bytes) / (s.WallS * spec.rate * float64(len(proxies)))
	}
	return nil
}
