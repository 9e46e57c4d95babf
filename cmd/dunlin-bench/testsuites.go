package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Some of what is published is what tests see on their way: they need what only they have, liars, hosts in namespaces, clocks of their own. A test
// tells a figure as an attribute of its own with the name of the record, t.Attr("figure", "daemons/frozen 0.31"), which go test -v
// prints; with "#" behind that name it is one of the record's further columns. What it asserts is more lenient, for machines with other work.

// A testSuite is a table whose figures tests tell.
type testSuite struct {
	name    string
	runs    []testRun
	figures []testFigure
}

// A testRun is one go test.
type testRun struct {
	pkg, tags, tests string
	env              []string
	root             bool // it needs network namespaces
	parallel         int  // tests at once; 0: as many as there are processors
}

// A testFigure is a record of what tests tell: of all that they tell under its name the median, judged by the worst.
type testFigure struct {
	id, what, unit string
	bar            bar
	none           bool // anything but 0 is a fault
	more           []moreFigure
}

// A moreFigure is a further column.
type moreFigure struct{ column, name, unit string }

// scheduled are the columns of a scenario of the scheduler.
var scheduled = []moreFigure{{"longest gap", "gap", "s"}, {"blocks/s", "rate", ""}}

const linksShare = "of the links"

var testSuites = []testSuite{
	{
		name: "daemons",
		runs: []testRun{
			// One at a time: they are not to be each other's load.
			{pkg: "./cmd/dunlin", tags: "slow", tests: "^TestE2E(Flood|Kill9|FrozenPeer|HostileSync|Crowd|Resume)$", parallel: 1},
			{pkg: "./cmd/dunlin", tags: "slow", tests: "^TestNetnsTenHosts$", env: []string{"DUNLIN_LONG=1"}, root: true},
		},
		figures: []testFigure{
			{id: "line", what: "regtest, six daemons in a line of bootstraps: a block mined at an end or in the middle is at all others, after the answer to the miner", unit: "ms", bar: bar{Value: 2000}},
			{id: "mesh", what: "every one of the six has 3 peers or more, after the last start", unit: "s"},
			{id: "kill9-sync", what: "`kill -9` in the middle of sync: the next start is back at the height it had told, after the start", unit: "s", bar: bar{Value: 5}},
			{id: "kill9-mining", what: "`kill -9` while mining: blocks that were told and are missing after the restart", unit: "blocks", none: true},
			{id: "resume", what: "`kill -9` half way of a sync: bytes downloaded after the restart, over those that were missing (`-run TestE2EResume`)", unit: "×", bar: bar{Value: 1.02}},
			{id: "resume-back", what: "… and it is back at its height, after it listens", unit: "ms"},
			{id: "frozen", what: "the fastest of three servers is frozen (SIGSTOP) in the middle of a sync (`-run TestE2EFrozenPeer`): the longest gap of the height", unit: "s", bar: bar{Value: 3}},
			{id: "hostile", what: "four of five peers lie, in 26 ways (`-run TestE2EHostileSync`): time over that of a clean sync in the same run", unit: "×", bar: bar{Value: 3}},
			{id: "crowd", what: "100 clients fetch from one daemon blocks of 4 kB (`-tags slow -run TestE2ECrowd`)", unit: "MiB/s"},
			{id: "crowd-large", what: "… blocks of 900 kB", unit: "MiB/s"},
			{id: "crowd-capped", what: "… blocks of 4 kB, with `p2p.max_upload_kb_per_s = 16384`: 16 MiB/s", unit: "MiB/s", bar: bar{Value: 17.6}},
			{id: "crowd-fair", what: "… of each of these: fairness of the clients' shares (Jain's index; 1: all the same)", bar: bar{Least: true, Value: 0.95}},
			{id: "crowd-memory", what: "… the daemon's peak memory", unit: "MB", bar: bar{Value: 250}},
			{id: "crowd-block", what: "… a block made meanwhile is at its neighbour, the slowest", unit: "ms"},
			{id: "together", what: "ten hosts in network namespaces on lines of 100 Mbit/s, started together, told nothing but the name of a DNS seed (`-tags slow -run TestNetnsTenHosts`): each has 4 peers and the tip", unit: "s", bar: bar{Value: 10}},
			{id: "book", what: "… the node and the seed that they joined through are killed: one more, with another's address book and nothing else, has 4 peers and the tip", unit: "s"},
			{id: "heal", what: "… half of them are cut off for 2 min, blocks are made on both sides: all have one tip after the line is back", unit: "s", bar: bar{Value: 10}},
		},
	},
	{
		name: "tx",
		runs: []testRun{
			{pkg: "./gossip", tags: "slow", tests: "^TestFlow$"},
			{pkg: "./cmd/dunlin", tags: "slow", tests: "^TestE2ETxFlow$"},
		},
		figures: []testFigure{
			{id: "simulated", what: "20 simulated nodes, links of 20 Mbit/s and 50 ms, 500 messages of 250 B a second for 8 s, validators that accept everything: the last message is everywhere after", unit: "ms"},
			{id: "simulated-copies", what: "… copies of each at each node", unit: "copies"},
			{id: "simulated-bytes", what: "… bytes that a node receives, over those of the messages", unit: "×"},
			{id: "daemons", what: "20 daemons, 1,500 signed transactions at 50 a second, handed in at each in turn: all are in every mempool, after the last", unit: "ms"},
			{id: "daemons-copies", what: "… copies of each at each daemon besides the first", unit: "copies"},
			{id: "daemons-pulled", what: "… pulled from lists, since gossip had lost them", unit: "transactions"},
			{id: "daemons-memory", what: "… memory over what it was idle, the most of a daemon", unit: "MB", bar: bar{Value: 100}},
		},
	},
	{
		name: "schedule",
		runs: []testRun{{pkg: "./chain/ibd", tests: "^Test(Bandwidth|FreezeOfTheBestPeer|HostileCrowd)$"}},
		figures: []testFigure{
			{id: "three-peers", what: "three peers of 5 MB/s at 50 ms, blocks of about 1 MB", unit: linksShare, bar: bar{Least: true, Value: 0.9}, more: scheduled},
			{id: "one-slow-peer", what: "eight peers of 5 MB/s at 50 ms, but one of 50 kB/s; blocks of about 1 MB", unit: linksShare, bar: bar{Least: true, Value: 0.9}, more: scheduled},
			{id: "sizes-jump", what: "sizes jump from 250 B to about 0.55 MB and back every 500 blocks, four peers of 5 MB/s at 80 ms", unit: linksShare, bar: bar{Least: true, Value: 0.95}, more: scheduled},
			{id: "slow-to-answer", what: "six servers of 5 MB/s, hello in 1 ms, replies 200 ms later, overlapping; 50 kB", unit: linksShare, bar: bar{Least: true, Value: 0.93}, more: scheduled},
			{id: "slow-to-answer-tiny-blocks", what: "… of 20 MB/s; 250 B", unit: linksShare, more: scheduled},
			{id: "slow-to-begin", what: "six servers of 5 MB/s, one reply after the other, each 200 ms late; 50 kB", unit: linksShare, bar: bar{Least: true, Value: 0.42}, more: scheduled},
			{id: "slow-to-begin-tiny-blocks", what: "… of 20 MB/s; 250 B", unit: linksShare, more: scheduled},
			{id: "freeze", what: "the best of three is frozen at 24 moments: the longest gap", unit: "s", bar: bar{Value: 3}},
			{id: "hostile", what: "one honest peer and four of 16 other kinds: time over that of a download from the honest one alone", unit: "×", bar: bar{Value: 3}},
		},
	},
}

// measureTests runs the tests of a table.
func measureTests(name string) func(ctx context.Context, o *allOptions) (outcome, error) {
	return func(ctx context.Context, o *allOptions) (outcome, error) {
		s := testSuites[slices.IndexFunc(testSuites, func(s testSuite) bool { return s.name == name })]
		return s.measure(ctx, o, runTests)
	}
}

func (s *testSuite) measure(ctx context.Context, o *allOptions, run func(ctx context.Context, o *allOptions, r testRun) (said string, err error)) (outcome, error) {
	m, begun := thisMachine(), time.Now()
	told := map[string][]float64{}
	var commands []string
	var errs []error
	left := false
	for _, r := range s.runs {
		if ctx.Err() != nil {
			break
		}
		if r.root && (runtime.GOOS != "linux" || os.Geteuid() != 0) {
			fmt.Fprintf(o.errs, "left out: %s, which makes network namespaces: it needs root on Linux\n", r.command())
			left = true
			continue
		}
		said, err := run(ctx, o, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.command(), err))
		}
		if readFigures(said, told) > 0 {
			commands = append(commands, r.command())
		}
	}
	out := outcome{session: m.on(begun, strings.Join(commands, "; ")), records: map[string][]record{}}
	for _, f := range s.figures {
		f.id = s.name + "/" + f.id
		if rec, some := f.record(told); some {
			out.records[s.name] = append(out.records[s.name], rec)
		} else if !left {
			errs = append(errs, fmt.Errorf("no test told %s", f.id))
		}
	}
	return out, errors.Join(errs...)
}

// record is what was told under a name.
func (f *testFigure) record(told map[string][]float64) (record, bool) {
	all := figuresOf(told[f.id])
	if all == nil {
		return record{}, false
	}
	rec := record{ID: f.id, What: f.what, Ours: *valueOf(all, f.unit), Less: !f.bar.Least}
	if f.bar.Value != 0 {
		b := f.bar
		b.Of = "ours"
		rec.Bar = &b
		met := all.Max <= b.Value
		if b.Least {
			met = all.Min >= b.Value
		}
		rec.Met = &met
	}
	if f.none {
		met := all.Max == 0
		rec.Asked, rec.Met = "none", &met
	}
	for _, more := range f.more {
		if of := figuresOf(told[f.id+"#"+more.name]); of != nil {
			if rec.More == nil {
				rec.More = map[string]value{}
			}
			rec.More[more.column] = *valueOf(of, more.unit)
		}
	}
	return rec, true
}

// command is the command line, for records.
func (r *testRun) command() string {
	var b strings.Builder
	for _, e := range r.env {
		b.WriteString(e + " ")
	}
	b.WriteString("go test")
	if r.tags != "" {
		b.WriteString(" -tags " + r.tags)
	}
	if r.parallel > 0 {
		fmt.Fprintf(&b, " -parallel %d", r.parallel)
	}
	fmt.Fprintf(&b, " -v %s -run '%s'", r.pkg, r.tests)
	return b.String()
}

// runTests runs go test and returns what it printed.
func runTests(ctx context.Context, o *allOptions, r testRun) (string, error) {
	args := []string{"test", "-count", "1", "-v", "-timeout", "1h", "-run", r.tests}
	if r.tags != "" {
		args = append(args, "-tags", r.tags)
	}
	if r.parallel > 0 {
		args = append(args, "-parallel", strconv.Itoa(r.parallel))
	}
	cmd := exec.CommandContext(ctx, "go", append(args, r.pkg)...)
	inGroup(cmd)
	cmd.Env = append(os.Environ(), r.env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&said, o.errs), o.errs
	err := cmd.Run()
	return said.String(), err
}

var (
	toldLine   = regexp.MustCompile(`(?m)^=== ATTR +(\S+) figure (\S+) (\S+)$`)
	failedLine = regexp.MustCompile(`(?m)^--- FAIL: (\S+) `)
)

// readFigures collects what go test -v printed of figures, and says how many there were. What a test told that failed is none.
func readFigures(said string, into map[string][]float64) (count int) {
	failed := map[string]bool{}
	for _, m := range failedLine.FindAllStringSubmatch(said, -1) {
		failed[m[1]] = true
	}
	for _, m := range toldLine.FindAllStringSubmatch(said, -1) {
		test, _, _ := strings.Cut(m[1], "/")
		if v, err := strconv.ParseFloat(m[3], 64); err == nil && !failed[test] {
			into[m[2]] = append(into[m[2]], v)
			count++
		}
	}
	return count
}
