package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pow"
	"dunlin/config"
)

// A process is told from a later one with its number, from one that has ended, and from none; a suspended one is alive.
func TestProcess(t *testing.T) {
	me := Process{PID: os.Getpid(), Started: startOf(os.Getpid())}
	if !me.alive() {
		t.Errorf("%+v: I am dead", me)
	}
	for _, p := range []Process{{}, {PID: me.PID}, {PID: me.PID, Started: "another boot 1"}, {PID: 1 << 22, Started: me.Started}} {
		if p.alive() {
			t.Errorf("%+v is alive", p)
		}
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = attributes(false)
	if err := cmd.Start(); err != nil {
		t.Skipf("no sleep here: %v", err)
	}
	defer func() { _ = cmd.Wait() }()
	p := Process{PID: cmd.Process.Pid, Started: startOf(cmd.Process.Pid)}
	if err := suspend(p.PID); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !suspended(p.PID); {
		if time.Now().After(deadline) {
			t.Fatal("not suspended")
		}
	}
	if !p.alive() {
		t.Error("a suspended process counts as dead")
	}
	if err := kill(p.PID); err != nil {
		t.Fatal(err)
	}
	// Nobody has waited for it: it is there, but it has ended.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := waitGone(ctx, p); err != nil {
		t.Errorf("it does not end: %v", err)
	}
}

// What a folder holds is not believed: homes decide what is deleted and which processes are ended.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "dunlin testnet up --dir") {
		t.Errorf("no testnet: %v", err)
	}
	for text, want := range map[string]string{
		"{":             "damaged",
		"{}":            "0 nodes",
		`{"nodes": []}`: "0 nodes",
		`{"nodes": [{"id": 1, "home": "node1"}, {"id": 2, "home": "../.."}]}`: "damaged: node 2",
		`{"nodes": [{"id": 1, "home": "node1"}, {"id": 1, "home": "node1"}]}`: "damaged: node 2",
		strings.Repeat(" ", maxSpecBytes+1):                                   "at most",
	} {
		if err := os.WriteFile(filepath.Join(dir, specFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// Every fault of the options is named, and nothing is made.
func TestUpRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	err := Up(t.Context(), UpOptions{Program: "x", Dir: dir, Nodes: 51, Miners: 52, Engine: "steam", Topology: "knot", TxRate: -1, Spacing: 1500 * time.Millisecond})
	for _, want := range []string{
		"nodes 51: must be 2 to 50", "miners 52: must be 1 to the number of nodes, 51", `engine "steam": must be pow, pos`,
		`topology "knot": must be line, ring, star, random`, "txs -1: must be 0 to 200 a second", "spacing 1.5s: must be whole seconds",
	} {
		if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

// Two who start a testnet in one folder at the same moment do not spoil each other's: the second is told who the first is, and
// touches nothing.
func TestUpLocked(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, supervisorFile)
	if err := os.WriteFile(log, []byte("of the first"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := UpOptions{Program: "no such program", Dir: dir}
	_, detached := UpDetached(t.Context(), o, nil)
	for _, err := range []error{Up(t.Context(), o), detached} {
		want := fmt.Sprintf("another dunlin testnet up is just starting the one in %s", dir)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
			t.Errorf("%v, want %q and the process", err, want)
		}
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != "of the first" {
		t.Errorf("the log of the first: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, networkFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a network was made: %v", err)
	}
	for range 2 {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}
	if _, err := UpDetached(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), "no such program") {
		t.Errorf("when the first is done: %v", err)
	}
	again, err := lockDir(dir) // who failed holds nothing
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

// The file of samples keeps within its limit, and what is left is a thinner whole.
func TestSamplesAreBounded(t *testing.T) {
	r := recorder{path: filepath.Join(t.TempDir(), samplesFile), limit: 4 << 10}
	const n = 1000
	for i := range n {
		if err := r.add(Sample{At: int64(i + 1), Nodes: []NodeSample{{ID: 1, Height: int32(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(r.path)
	if err != nil || info.Size() > r.limit {
		t.Fatalf("%v, %v", info.Size(), err)
	}
	var at []int64
	if err := readLines(r.path, func(s Sample) { at = append(at, s.At) }); err != nil {
		t.Fatal(err)
	}
	if at[0] != 1 || at[len(at)-1] < n*9/10 || len(at) < 30 {
		t.Errorf("%d samples from %d to %d", len(at), at[0], at[len(at)-1])
	}
	for i := 2; i < len(at)-1; i++ {
		if gap, before := at[i]-at[i-1], at[i-1]-at[i-2]; gap > 2*before || before > 2*gap {
			t.Errorf("not even: %v", at)
			break
		}
	}
}

// A torn last line, as a kill leaves it, is passed over.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("{\"t\":1}\nnothing\n{\"t\":2}\n{\"t\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	var at []int64
	if err := readLines(path, func(s Sample) { at = append(at, s.At) }); err != nil || !reflect.DeepEqual(at, []int64{1, 2}) {
		t.Errorf("%v, %v", at, err)
	}
	if err := readLines(path+".none", func(Sample) { t.Error("a line of no file") }); err != nil {
		t.Error(err)
	}
}

// The blocks that are made in advance obey every rule of headers, at the times when they would have been made.
func TestFundingBlocks(t *testing.T) {
	spec := config.DefaultNetworkSpec("localtest", time.Now())
	spec.Spacing = 2 * time.Second
	now := time.Now()
	spec.GenesisTime = fundedGenesis(now, spec.Spacing)
	n, err := spec.Network()
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := fundingBlocks(n.Params, fundBlocks, []byte{0x51})
	if err != nil {
		t.Fatal(err)
	}
	engine := pow.New(n.Params)
	past := &grownPast{hash: n.Params.GenesisHash}
	past.add(n.Params.Genesis.Header.Timestamp.Unix(), n.Params.Genesis.Header.Bits)
	for i, raw := range blocks {
		b, err := consensus.DecodeBlock(n.Params, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := engine.CheckHeader(past, &b.Header, now); err != nil {
			t.Fatalf("block %d: %v", i+1, err)
		}
		past.hash = b.Hash
		past.add(b.Header.Timestamp.Unix(), b.Header.Bits)
	}
	if last := past.list[len(past.list)-1].Time; last > now.Unix() || last < now.Add(-2*spec.Spacing).Unix()-1 {
		t.Errorf("the last one is %d s from now", now.Unix()-last)
	}
}

// grownPast is a chain of headers.
type grownPast struct {
	hash chainhash.Hash
	list []consensus.PastHeader
}

func (p *grownPast) add(t int64, bits uint32) {
	p.list = append(p.list, consensus.PastHeader{Time: t, Bits: bits})
}
func (p *grownPast) Hash() chainhash.Hash            { return p.hash }
func (p *grownPast) Height() int32                   { return int32(len(p.list) - 1) }
func (p *grownPast) At(h int32) consensus.PastHeader { return p.list[h] }

// Growth counts when it is a tenth and more than the floor. What is alive is judged more strictly than what is resident.
func TestFlat(t *testing.T) {
	for _, x := range []struct {
		first, last int64 // MiB
		flat, heap  bool
	}{{100, 100, true, true}, {100, 109, true, true}, {100, 112, false, false}, {40, 43, true, true}, {40, 45, true, false}, {40, 47, false, false}, {68, 74, true, true}, {68, 75, false, false}, {100, 50, true, true}} {
		var samples []Sample
		for i := range int64(40) {
			m := x.first
			if i >= 30 {
				m = x.last
			}
			samples = append(samples, Sample{At: i, Nodes: []NodeSample{{ID: 1, Memory: m << 20, Heap: m << 20, Goroutines: 100, FDs: 30}, {ID: 2, State: NodeDown}}})
		}
		got := flat(samples, 0, 40, "all", func(NodeSample) bool { return true }, true)
		if len(got) != 4 || got[0].Flat != x.flat || got[1].Flat != x.heap || !got[2].Flat || !got[3].Flat || got[0].First != float64(x.first) || got[0].Last != float64(x.last) {
			t.Errorf("%d → %d: %+v", x.first, x.last, got)
		}
	}
}

// A log tells when the node was started, at which height, which blocks came and how deep it was reorganised.
func TestStory(t *testing.T) {
	path := filepath.Join(t.TempDir(), logFile)
	text := `2026-11-21T23:56:52.826 INF dunlin version=dev network=localtest chain_id=localtest-3cdcab87 peer_id=12D3 height=17 home=/tmp/x
2026-11-21T23:56:54.052 INF block 1,109 4b5bb7…72b3 txs=1 193 B from=12D3…GAPf delay=6.05s
not a line of a log
2026-11-21T23:57:17.936 INF block 122 7bb91e…a3d0 txs=12 2.1 kB from=miner delay=0.94s
2026-11-21T23:56:53.039 WRN reorg depth=2 old=2215f3…932d at 1 new=135909…e0c9 at 2 fork=0 subsystem=chain
` + strings.Repeat("x", 2*maxLogLine) + `
2026-11-21T23:58:52.826 INF dunlin version=dev height=20
2026-11-21T23:58:5`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := readStory(path)
	if err != nil || len(h.openings) != 2 || h.openings[0].height != 17 || h.openings[1].height != 20 || len(h.reorgs) != 1 || h.reorgs[0].depth != 2 || h.reorgs[0].fork != 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	at := h.reorgs[0].at
	for _, x := range []struct {
		height   int32
		from, to time.Duration
		left     bool
	}{{1, -time.Second, time.Second, true}, {1, 0, 0, true}, {0, -time.Second, time.Second, false}, {1, time.Second, time.Minute, false}, {1, -time.Minute, -time.Second, false}} {
		if got := h.left(x.height, at.Add(x.from), at.Add(x.to)); got != x.left {
			t.Errorf("%+v: %v", x, got)
		}
	}
	if len(h.blocks) != 2 || h.blocks[0].height != 1109 || h.blocks[0].hash != "4b5bb7…72b3" || h.blocks[0].own || !h.blocks[1].own {
		t.Errorf("%+v", h.blocks)
	}
}
