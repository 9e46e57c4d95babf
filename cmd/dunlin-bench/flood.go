package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/spf13/cobra"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/command"
	"dunlin/internal/simnet"
)

const (
	floodBlocks  = 3 // blocks of one simulation, each from another node
	floodDegree  = 8 // peers that each node dials, as discovery does
	floodTimeout = 60 * time.Second
)

// A floodCase is a kind of block in a kind of network.
type floodCase struct {
	name    string
	nodes   int
	block   string // for people
	bytes   int    // of a block
	txs     int    // with the coinbase
	missing float64
	mempool string        // for people
	bar     time.Duration // within which all nodes have the block
	aim     time.Duration
	alone   bool // ours only, unless systems are asked for: too large for what it is compared with
}

// floodCases are the rows of `dunlin-bench flood`. Blocks of 4 MB are four times those of 1 MB in every respect, which
// is more than Bitcoin's weight limit allows: it is lifted for them.
var floodCases = []floodCase{
	{name: "warm", nodes: 50, block: "1 MB, 2,500 tx", bytes: 1_000_000, txs: 2500, mempool: "warm", bar: 400 * time.Millisecond},
	{name: "missing5", nodes: 50, block: "1 MB, 2,500 tx", bytes: 1_000_000, txs: 2500, missing: 0.05, mempool: "5% missing everywhere", bar: 900 * time.Millisecond},
	{name: "cold", nodes: 50, block: "1 MB, 2,500 tx", bytes: 1_000_000, txs: 2500, missing: 1, mempool: "cold", bar: 4300 * time.Millisecond, aim: 2 * time.Second},
	{name: "warm4", nodes: 50, block: "4 MB, 10,000 tx", bytes: 4_000_000, txs: 10_000, mempool: "warm", bar: 700 * time.Millisecond},
	{name: "small500", nodes: 500, block: "1 KB", bytes: 1000, txs: 4, missing: 1, mempool: "–", bar: 300 * time.Millisecond},
	{name: "small1000", nodes: 1000, block: "1 KB", bytes: 1000, txs: 4, missing: 1, mempool: "–", bar: 400 * time.Millisecond, alone: true},
	{name: "warm1000", nodes: 1000, block: "1 MB, 2,500 tx", bytes: 1_000_000, txs: 2500, mempool: "warm", bar: 400 * time.Millisecond, alone: true},
}

// simulation names the one that the case needs. What ours is compared with knows no mempools: one simulation does for
// all cases with the same block.
func (c *floodCase) simulation(system string) string {
	if !strings.HasPrefix(system, floodSystems[0]) {
		i := slices.IndexFunc(floodCases, func(o floodCase) bool { return o.nodes == c.nodes && o.bytes == c.bytes })
		c = &floodCases[i]
	}
	return "flood/" + c.name + "/" + system
}

// words says for people what a row of the case is of.
func (c *floodCase) words(system string) string {
	text := fmt.Sprintf("%d nodes, %s", c.nodes, c.block)
	if c.mempool != "–" {
		text += ", " + c.mempool
	}
	if system != floodSystems[0] {
		text += "; " + system
	}
	return text
}

// floodSystems are ways to bring a block to everybody; the first is ours, the others are what it is compared with. Ours may have
// another degree of the mesh than the node's: dunlin@8.
var floodSystems = []string{"dunlin", "whole", "announce"}

// degreeOf returns the degree that the name of a system asks for; 0 is the default.
func degreeOf(system string) (kind string, degree int, err error) {
	kind, text, some := strings.Cut(system, "@")
	if !slices.Contains(floodSystems, kind) || some && kind != floodSystems[0] {
		return "", 0, fmt.Errorf("no system %q", system)
	}
	if some {
		if degree, err = strconv.Atoi(text); err != nil || degree < 4 || degree > 12 {
			return "", 0, fmt.Errorf("%s: a degree is a number from 4 to 12", system)
		}
	}
	return kind, degree, nil
}

// floodNode is one node's part in a system.
type floodNode interface {
	// publish floods a block of this node, which has it.
	publish(ctx context.Context, b *floodBlock) error
	// stats are sums since the start.
	stats() floodStats
}

type floodStats struct {
	duplicates uint64 // messages that were known
	pulled     uint64 // bytes fetched besides the flood, as received
}

// floodBlock is a block and what is known of it beforehand.
type floodBlock struct {
	*consensus.Block
	missing map[chainhash.Hash]bool // ids of the transactions that no mempool has
}

// A floodRun is what one simulation gives, besides times.
const (
	figP50        = "p50_ms"
	figP99        = "p99_ms"
	figMax        = "max_ms" // of all nodes and blocks
	figBytes      = "bytes_in"
	figDuplicates = "duplicates"
	figPulled     = "pulled"
	figLost       = "lost"
	figCompact    = "compact_bytes"
	figBlock      = "block_bytes"
)

func newFlood() *cobra.Command {
	var o simOptions
	var systems []string
	processes := daemonsOptions{txs: 2500}
	cmd := &cobra.Command{
		Use:   "flood",
		Short: "How long a new block takes to every node, in virtual time or between real daemons",
		Long: `Floods blocks through networks of real libp2p hosts in virtual time, over simulated
links of 20 Mbit/s and 50 ms of round trip, each node connected with the eight that it
dials and those that dial it: by dunlin's relay, and beside it by whole blocks over
GossipSub and by announcements that are answered by a pull.

Code takes no virtual time: what reconstruction costs is to be added (go test -bench
Reconstruct ./chain/relay). Bytes are what a node receives in UDP payloads, with all
overhead, from the block's publication until everybody has it and a second more.

With --daemons N: between N real daemons on loopback (cases warm, missing5, cold and
small), timed by their logs. One machine does the work of all of them, and its links
cost nothing: that shows the CPU's part, which virtual time leaves out.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("daemons") {
				for _, other := range []string{"systems", "seed"} {
					if cmd.Flags().Changed(other) {
						return command.Usage(fmt.Errorf("--%s: not together with --daemons", other))
					}
				}
				return measureDaemons(cmd.Context(), processes, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return measureFlood(cmd.Context(), systems, cmd.Flags().Changed("systems"), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.flags(cmd)
	cmd.Flags().StringSliceVar(&systems, "systems", floodSystems, "ways to flood, of "+fmt.Sprint(floodSystems))
	cmd.Flags().IntVar(&processes.daemons, "daemons", 0, fmt.Sprintf("measure between so many real daemons, %d to %d", daemonsLeast, daemonsMost))
	cmd.Flags().IntVar(&processes.txs, "txs", processes.txs, "with --daemons: transactions of a large block, 200 to 2500 of 400 B")
	cmd.Flags().StringVar(&processes.dunlin, "dunlin", "", "with --daemons: the binary to measure (default: dunlin beside this program, else built from the module of this folder)")
	cmd.Flags().StringVar(&processes.work, "work", "", "with --daemons: folder for homes and logs (default: the system's for temporary files)")
	cmd.Flags().BoolVar(&processes.keep, "keep", false, "with --daemons: leave homes and logs in place")
	return cmd
}

// floodSimulation returns the simulation of a name: flood/<case>/<system>.
func floodSimulation(name string) (simulation, bool) {
	rest, ok := strings.CutPrefix(name, "flood/")
	of, system, _ := strings.Cut(rest, "/")
	i := slices.IndexFunc(floodCases, func(c floodCase) bool { return c.name == of })
	if _, _, err := degreeOf(system); !ok || i < 0 || err != nil {
		return simulation{}, false
	}
	return simulation{run: func(n *simnet.Network) (map[string]float64, error) { return floodThrough(n, floodCases[i], system) }}, true
}

// measureFlood runs all cases by all systems; asked says that these were named, and that no case may leave one out.
func measureFlood(ctx context.Context, systems []string, asked bool, o simOptions, stdout, stderr io.Writer) error {
	for _, s := range systems {
		if _, _, err := degreeOf(s); err != nil {
			return command.Usage(fmt.Errorf("--systems: %w", err))
		}
	}
	var cases []simCase
	for _, c := range floodCases {
		for _, s := range systems {
			if c.alone && s != floodSystems[0] && !asked {
				continue
			}
			limit := bar{Of: "ours"}
			if strings.HasPrefix(s, floodSystems[0]) {
				limit.Value, limit.Aim = ms(c.bar), ms(c.aim)
			}
			cases = append(cases, simCase{name: c.name, sim: c.simulation(s), what: s, figure: figMax, unit: "ms", bar: limit})
		}
	}
	r, err := runSims(ctx, "flood", cases, o, stderr)
	if err != nil {
		return err
	}
	if err := writeFlood(stdout, r); err != nil {
		return err
	}
	return r.finish(o)
}

// writeFlood writes the table for people; figures of several runs are medians, the greatest delay is that of all runs.
func writeFlood(w io.Writer, r *simReport) error {
	r.head(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nNODES\tBLOCK\tMEMPOOLS\tBY\tP50\tP99\tMAX\tBAR\tAIM\tMET\tKB IN\t×COMPACT\tDUPLICATES\tKB PULLED\tLOST\t")
	for _, row := range r.Rows {
		c := floodCases[slices.IndexFunc(floodCases, func(c floodCase) bool { return c.name == row.Case })]
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t", c.nodes, c.block, c.mempool, row.What)
		if row.Error != "" {
			fmt.Fprintln(t, row.Error+"\t")
			continue
		}
		get := func(figure string) float64 {
			var values []float64
			for _, run := range r.Runs {
				if run.Simulation == c.simulation(row.What) {
					values = append(values, run.Figures[figure])
				}
			}
			return figuresOf(values).Median
		}
		over := "–"
		if compact := get(figCompact); compact > 0 && c.bytes > 64<<10 {
			over = digits(get(figBytes) / compact)
		}
		fmt.Fprintf(t, "%.0f ms\t%.0f ms\t%.0f ms\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t\n", get(figP50), get(figP99), row.Ours.Max, row.limit(row.Bar.Value),
			row.limit(row.Bar.Aim), verdict(row.Met), digits(get(figBytes)/1e3), over, digits(get(figDuplicates)), digits(get(figPulled)/1e3), get(figLost))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// floodThrough runs one case by one system.
func floodThrough(n *simnet.Network, c floodCase, system string) (map[string]float64, error) {
	params := floodParams(c)
	builder := enginetest.NewBuilder(params)
	blocks := make([]*floodBlock, floodBlocks)
	tip := builder.Genesis()
	for i := range blocks {
		blocks[i] = makeBlock(n, builder, tip, c)
		tip = blocks[i].Block
	}
	world := newFloodWorld(builder, blocks)
	kind, degree, err := degreeOf(system)
	if err != nil {
		return nil, err
	}
	arrived := &arrivals{at: map[chainhash.Hash]map[int]time.Time{}}
	hosts, nodes := make([]*simnet.Host, c.nodes), make([]floodNode, c.nodes)
	for i := range c.nodes {
		h, err := n.NewHost(simnet.HostOptions{IP: simnet.IP(i)})
		if err != nil {
			return nil, err
		}
		got := func(hash chainhash.Hash) { arrived.note(hash, i) }
		switch hosts[i] = h; kind {
		case "dunlin":
			nodes[i], err = startDunlin(n, h, world, degree, got)
		case "whole":
			nodes[i], err = startWhole(n, h, got)
		case "announce":
			nodes[i], err = startAnnounce(n, h, got)
		}
		if err != nil {
			return nil, err
		}
	}
	connectAtRandom(n, hosts)
	n.Pass(10 * time.Second) // meshes form
	var delays []float64
	var lost int
	var in int64
	before := floodSum(nodes)
	for _, b := range blocks {
		var maker int
		n.Rand(func(r *rand.Rand) { maker = r.IntN(c.nodes) })
		bytes := make([]int64, c.nodes)
		for i, h := range hosts {
			bytes[i] = h.Traffic().BytesIn
		}
		start := time.Now()
		arrived.note(b.Hash, maker)
		if err := nodes[maker].publish(n.Context(), b); err != nil {
			return nil, err
		}
		n.Until(floodTimeout, func() bool { return arrived.count(b.Hash) == c.nodes })
		n.Pass(time.Second)
		for i, h := range hosts {
			if i != maker {
				in += h.Traffic().BytesIn - bytes[i]
			}
		}
		times := arrived.after(b.Hash, start, maker)
		lost += c.nodes - 1 - len(times)
		delays = append(delays, times...)
		n.Pass(20 * time.Second)
	}
	after := floodSum(nodes)
	slices.Sort(delays)
	each := float64(floodBlocks * (c.nodes - 1))
	return map[string]float64{
		figP50: quantile(delays, 0.5), figP99: quantile(delays, 0.99), figMax: quantile(delays, 1), figLost: float64(lost),
		figBytes: float64(in) / each, figDuplicates: float64(after.duplicates-before.duplicates) / each, figPulled: float64(after.pulled-before.pulled) / each,
		figBlock: float64(len(blocks[0].Raw)), figCompact: float64(compactSize(blocks[0].Block)),
	}, nil
}

// compactSize is the size of a compact block (BIP152): header, nonce, short ids of 6 bytes and the coinbase.
func compactSize(b *consensus.Block) int {
	return 1 + consensus.HeaderBytes + 8 + 2*3 + 1 + b.Txs[0].MsgTx().SerializeSize() + 6*(len(b.Txs)-1)
}

func floodSum(nodes []floodNode) (sum floodStats) {
	for _, n := range nodes {
		s := n.stats()
		sum.duplicates += s.duplicates
		sum.pulled += s.pulled
	}
	return sum
}

// quantile of sorted values; 0 if there is none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// arrivals notes when which node first had which block.
type arrivals struct {
	mu sync.Mutex
	at map[chainhash.Hash]map[int]time.Time
}

func (a *arrivals) note(hash chainhash.Hash, node int) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.at[hash]
	if m == nil {
		m = map[int]time.Time{}
		a.at[hash] = m
	}
	if _, again := m[node]; !again {
		m[node] = now
	}
}

func (a *arrivals) count(hash chainhash.Hash) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at[hash])
}

// after returns the delays in ms, but for the maker's.
func (a *arrivals) after(hash chainhash.Hash, start time.Time, maker int) (delays []float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for node, at := range a.at[hash] {
		if node != maker {
			delays = append(delays, ms(at.Sub(start)))
		}
	}
	return delays
}

// connectAtRandom has each host dial as many others as a node of ours does.
func connectAtRandom(n *simnet.Network, hosts []*simnet.Host) {
	var dials sync.WaitGroup
	for i, h := range hosts {
		var others []int
		n.Rand(func(r *rand.Rand) { others = r.Perm(len(hosts)) })
		others = slices.DeleteFunc(others, func(j int) bool { return j == i })
		for _, j := range others[:min(floodDegree, len(others))] {
			dials.Go(func() {
				ctx, cancel := context.WithTimeout(n.Context(), 20*time.Second)
				defer cancel()
				_ = h.Connect(ctx, hosts[j].Info()) // both may dial at once, and one of the two be closed
			})
		}
	}
	dials.Wait()
}

// floodParams are regtest's, with room for the block.
func floodParams(c floodCase) *consensus.Params {
	p := *consensus.Regtest()
	p.MaxBlockWeight = max(p.MaxBlockWeight, 4*c.bytes*11/10)
	return &p
}

// makeBlock makes a block of transactions with one input and as many outputs as the size asks for; their scripts and what they
// spend are random.
func makeBlock(n *simnet.Network, builder *enginetest.Builder, tip *consensus.Block, c floodCase) *floodBlock {
	const fixed, signature, output = 4 + 1 + 41 + 1 + 4, 107, 34
	each := c.bytes / c.txs
	txs := make([]*wire.MsgTx, 0, c.txs-1)
	n.Rand(func(r *rand.Rand) {
		random := func(bytes int) []byte {
			b := make([]byte, bytes+8)
			for i := 0; i < bytes; i += 8 {
				binary.LittleEndian.PutUint64(b[i:], r.Uint64())
			}
			return b[:bytes]
		}
		for range c.txs - 1 {
			tx := wire.NewMsgTx(2)
			in := &wire.TxIn{SignatureScript: random(signature), Sequence: wire.MaxTxInSequenceNum}
			copy(in.PreviousOutPoint.Hash[:], random(chainhash.HashSize))
			tx.AddTxIn(in)
			outputs := max(1, (each-fixed-signature)/output)
			for i := range outputs {
				script := 25
				if i == outputs-1 {
					script += max(0, (each-fixed-signature)-outputs*output)
				}
				tx.AddTxOut(&wire.TxOut{Value: r.Int64N(1e8), PkScript: random(script)})
			}
			txs = append(txs, tx)
		}
	})
	f := &floodBlock{Block: builder.MineTemplate(tip, enginetest.Template{Txs: txs}), missing: map[chainhash.Hash]bool{}}
	ids := make([]chainhash.Hash, len(txs))
	for i, tx := range txs {
		ids[i] = tx.TxHash()
	}
	slices.SortFunc(ids, func(a, b chainhash.Hash) int { return cmp.Compare(a.String(), b.String()) }) // any order that has nothing to do with the block's
	for _, id := range ids[:int(c.missing*float64(len(ids)))] {
		f.missing[id] = true
	}
	return f
}
