package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/internal/api"
	"dunlin/internal/command"
)

// The flood between real daemons: processes on loopback that all have the same chain. The blocks are made here, of signed
// transactions, and handed in at one daemon, the maker. When a daemon has a block its own log says: there is one clock.
//
// A block's maker sends along what it guesses that others lack: what its pool does not have, or what nobody has been told
// of. So that it guesses nothing, as in the simulation, what the others are to lack is told beforehand to a listener, which is
// then stopped.

const (
	daemonsLeast, daemonsMost = 4, 50

	meshWanted     = 3                // neighbours on each topic
	meshTimeout    = 2 * time.Minute  // to have them
	tellTimeout    = 2 * time.Minute  // for the maker to tell the listener
	oldGossip      = 7 * time.Second  // after which GossipSub names a message to nobody any more: 5 heartbeats of 1 s, and some
	lostAfter      = 5 * time.Second  // without progress: what is missing is handed in
	poolTimeout    = 30 * time.Second // for a portion to be everywhere
	metricsTimeout = 10 * time.Second
	portion        = 250             // transactions handed in at once
	afterBlock     = 2 * time.Second // for late copies to be counted, and before the first for quiet
)

// daemonsOptions are those of floods between real daemons.
type daemonsOptions struct {
	daemons      int
	dunlin, work string
	keep         bool
	txs          int // of the large blocks, with the coinbase; 400 B each
}

// daemonsRow is one block.
type daemonsRow struct {
	Case    string `json:"case"`
	Txs     int    `json:"txs"` // with the coinbase
	Bytes   int    `json:"bytes"`
	Compact int    `json:"compact_bytes"` // 0: it is sent whole
	Missing int    `json:"missing"`       // of its transactions, at all but the maker

	MakerMS   float64  `json:"maker_ms"`   // until the maker has it in its chain
	Complete  *figures `json:"complete"`   // ms until the others have its bytes
	Connected *figures `json:"connected"`  // ms until it is in their chains, all scripts checked
	BytesIn   *figures `json:"bytes_in"`   // of the others: of the block topic with all copies, and pulled
	Pulled    *figures `json:"pulled_txs"` // of the others
	Hit       *figures `json:"hit_percent"`
	Fetched   int      `json:"fetched"`   // of the others, those that gave up the compact block and asked for it whole
	Otherwise int      `json:"otherwise"` // of the others, those that had it of sync, not of the flood

	BarMS float64 `json:"bar_ms"`
	Met   *bool   `json:"met"` // Complete within the bar at all
}

type daemonsReport struct {
	Bench   string       `json:"bench"`
	At      time.Time    `json:"at"`
	Machine machine      `json:"machine"`
	Dunlin  string       `json:"dunlin"`
	Daemons int          `json:"daemons"`
	Rows    []daemonsRow `json:"rows"`
}

// measureDaemons floods blocks between real daemons and writes the table.
func measureDaemons(ctx context.Context, do daemonsOptions, o simOptions, stdout, stderr io.Writer) (err error) {
	var errs []error
	if do.daemons < daemonsLeast || do.daemons > daemonsMost {
		errs = append(errs, fmt.Errorf("--daemons %d: must be %d to %d", do.daemons, daemonsLeast, daemonsMost))
	}
	if do.txs < 200 || do.txs > 2500 { // compact from 64 KiB on; a block holds little more
		errs = append(errs, fmt.Errorf("--txs %d: must be 200 to 2500", do.txs))
	}
	if o.runs != 1 {
		errs = append(errs, fmt.Errorf("--runs %d: with --daemons there is one", o.runs))
	}
	for _, only := range o.only {
		if !slices.ContainsFunc(daemonsCases, func(c daemonsCase) bool { return c.name == only }) {
			errs = append(errs, fmt.Errorf("--only: no case %q with --daemons", only))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return command.Usage(err)
	}
	return withDaemons(ctx, stderr, do.work, do.dunlin, do.keep, func(p *procs, ours *dunlins) error {
		return floodDaemons(ctx, stdout, stderr, o, do, p, ours)
	})
}

// floodDaemons reports what was measured before a failure all the same.
func floodDaemons(ctx context.Context, stdout, stderr io.Writer, o simOptions, do daemonsOptions, p *procs, ours *dunlins) (err error) {
	r := &daemonsReport{Bench: "flood", At: time.Now(), Machine: thisMachine(), Daemons: do.daemons, Rows: []daemonsRow{}}
	if r.Dunlin, err = ours.version(ctx); err != nil {
		return err
	}
	b := &daemonsBench{o: do, work: ours.dir, procs: p, program: ours, out: stderr, chain: newFloodChain(do.txs)}
	for _, c := range daemonsCases {
		if len(o.only) == 0 || slices.Contains(o.only, c.name) {
			b.cases = append(b.cases, b.chain.prepare(c, do.txs))
		}
	}
	if err := b.gather(ctx); err != nil {
		return err
	}
	var failed error
	for _, f := range b.cases {
		row, err := b.flood(ctx, f)
		if err != nil {
			failed = fmt.Errorf("case %s: %w", f.name, err)
			break // the daemons are in a state that nobody knows
		}
		fmt.Fprintf(stderr, "%s: everywhere after %.0f ms\n", f.name, row.Connected.Max)
		r.Rows = append(r.Rows, row)
	}
	if err := r.write(stdout); err != nil {
		return errors.Join(failed, err)
	}
	if o.json != "" {
		if err := writeJSON(o.json, r); err != nil {
			return errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	var missed []string
	for _, row := range r.Rows {
		if row.Met != nil && !*row.Met {
			missed = append(missed, row.Case)
		}
	}
	if o.bars && len(missed) > 0 {
		return command.Exit(exitBarred, fmt.Errorf("bars not met: %s", strings.Join(missed, ", ")))
	}
	return nil
}

// A daemonsCase is a kind of block.
type daemonsCase struct {
	name    string
	txs     int     // with the coinbase; 0: as many as asked for
	missing float64 // share of them that only the maker has
	unsent  bool    // nobody has them, the maker neither
	bar     time.Duration
}

// daemonsCases are the rows of `dunlin-bench flood --daemons`, with the bars of those in virtual time.
var daemonsCases = []daemonsCase{
	{name: "warm", bar: 400 * time.Millisecond},
	{name: "missing5", missing: 0.05, bar: 900 * time.Millisecond},
	{name: "cold", missing: 1, bar: 4300 * time.Millisecond},
	{name: "small", txs: 3, unsent: true, bar: 300 * time.Millisecond},
}

// A daemonsFlood is a case with its transactions.
type daemonsFlood struct {
	daemonsCase
	txs  []*wire.MsgTx
	kept []*wire.MsgTx // of them, those that only the maker gets
	sent []*wire.MsgTx // those that all get
}

// floodChain is the chain that all start with: its coins pay a key.
type floodChain struct {
	builder *enginetest.Builder
	key     *enginetest.Key
	blocks  []*consensus.Block // from height 1 on
	splits  []*wire.MsgTx      // not used yet; each has an output for each transaction of a block
	file    []byte             // of all blocks, in bootstrap.dat form
}

// newFloodChain makes a chain with coins for a block of so many transactions a case.
func newFloodChain(txs int) *floodChain {
	p := consensus.Regtest()
	f := &floodChain{builder: enginetest.NewBuilder(p), key: enginetest.NewKey(20)}
	tip := f.builder.Genesis()
	for range len(daemonsCases) + int(p.CoinbaseMaturity) {
		tip = f.builder.MineTemplate(tip, enginetest.Template{Script: f.key.Script()})
		f.blocks = append(f.blocks, tip)
	}
	for i := range daemonsCases {
		scripts := slices.Repeat([][]byte{f.key.Script()}, txs-1)
		split := enginetest.Spend(f.blocks[i], 0, 1_000_000, scripts...)
		f.key.Sign(split, []consensus.Coin{{Value: f.blocks[i].Txs[0].MsgTx().TxOut[0].Value, Script: f.key.Script()}})
		f.splits = append(f.splits, split)
	}
	f.blocks = append(f.blocks, f.builder.Mine(tip, f.splits...))
	for _, b := range f.blocks {
		f.file = binary.LittleEndian.AppendUint32(f.file, p.Magic)
		f.file = binary.LittleEndian.AppendUint32(f.file, uint32(len(b.Raw))) //nolint:gosec // a block
		f.file = append(f.file, b.Raw...)
	}
	return f
}

func (f *floodChain) tip() *consensus.Block { return f.blocks[len(f.blocks)-1] }

// prepare makes and signs the transactions of a case: one input, eight outputs, 409 bytes.
func (f *floodChain) prepare(c daemonsCase, txs int) daemonsFlood {
	const outputs, fee = 8, 2000
	split := f.splits[0]
	f.splits = f.splits[1:]
	if c.txs > 0 {
		txs = c.txs
	}
	out := daemonsFlood{daemonsCase: c}
	missing := int(c.missing * float64(txs-1))
	for i := range txs - 1 {
		from := split.TxOut[i]
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: split.TxHash(), Index: uint32(i)}, nil, nil)) //nolint:gosec // of a block
		for range outputs {
			tx.AddTxOut(wire.NewTxOut((from.Value-fee)/outputs, f.key.Script()))
		}
		f.key.Sign(tx, []consensus.Coin{{Value: from.Value, Script: from.PkScript}})
		out.txs = append(out.txs, tx)
		switch {
		case c.unsent:
		case (i+1)*missing/(txs-1) > i*missing/(txs-1): // evenly spread over the block
			out.kept = append(out.kept, tx)
		default:
			out.sent = append(out.sent, tx)
		}
	}
	return out
}

// daemonsBench is one network.
type daemonsBench struct {
	o       daemonsOptions
	work    string
	procs   *procs
	program *dunlins
	out     io.Writer // progress
	chain   *floodChain
	cases   []daemonsFlood
	all     []*floodDaemon // the maker is the first
	pooled  int            // transactions that all have
	kept    int            // that only the maker has
}

// A floodDaemon is one process.
type floodDaemon struct {
	*child
	client *api.Client
	addr   string // to join by
	rpc    string // host:port
	read   int64  // of its log
}

// gather starts the daemons and fills their mempools.
func (b *daemonsBench) gather(ctx context.Context) error {
	file := filepath.Join(b.work, "blocks.dat")
	if err := os.WriteFile(file, b.chain.file, 0o600); err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	first := filepath.Join(b.work, "first")
	if _, err := b.procs.toEnd(ctx, "dunlin chain import", b.program.program, "chain", "import", "--home", first, "--network", "regtest", file); err != nil {
		return err
	}
	// Mempools are not followed: what a daemon is to lack it would fetch.
	if err := os.WriteFile(filepath.Join(first, "config.toml"), []byte("network = 'regtest'\n[mempool]\nsync_mb = 0\n"), 0o600); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	maker, err := b.start(ctx, "maker", first)
	if err != nil {
		return err
	}
	b.all = []*floodDaemon{maker}
	if err := b.keep(ctx, maker, first); err != nil {
		return err
	}
	for i := 1; i < b.o.daemons; i++ {
		d, err := b.start(ctx, fmt.Sprintf("daemon%d", i), first, "--bootstrap", maker.addr)
		if err != nil {
			return err
		}
		b.all = append(b.all, d)
	}
	for _, d := range b.all {
		if err := d.until(ctx, meshTimeout, "has neighbours", func(s *api.Status) bool {
			wanted := min(meshWanted, len(b.all)-2)
			return s.TipHash == b.chain.tip().Hash.String() && s.Gossip.BlockMesh >= wanted && s.Gossip.TxMesh >= wanted
		}); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "%d daemons have found one another\n", len(b.all))
	return b.fill(ctx)
}

// start runs a daemon in a copy of the first home.
func (b *daemonsBench) start(ctx context.Context, name, first string, args ...string) (*floodDaemon, error) {
	home := filepath.Join(b.work, name)
	if err := copyHome(home, first); err != nil {
		return nil, err
	}
	chain := &chainFile{params: b.chain.builder.Params}
	n, err := b.program.start(ctx, chain, name, home, append([]string{"--log-format", "json"}, args...))
	if err != nil {
		return nil, err
	}
	if _, _, err := n.ready(ctx); err != nil {
		return nil, err
	}
	client, info, err := api.Open(home)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &floodDaemon{child: n.child, client: client, addr: info.ListenAddrs[0], rpc: info.RPCAddr}, nil
}

// until polls a daemon's status until it is as wanted.
func (d *floodDaemon) until(ctx context.Context, most time.Duration, what string, done func(s *api.Status) bool) error {
	return poll(ctx, most, fmt.Sprintf("%s %s", d.name, what), func() (bool, error) {
		s, err := d.client.Status(ctx)
		if err != nil {
			return false, errors.Join(fmt.Errorf("%s: %w", d.name, err), d.exited())
		}
		return done(&s), d.exited()
	})
}

// poll asks again and again until it is done or fails, at most for a time.
func poll(ctx context.Context, most time.Duration, what string, ask func() (done bool, err error)) error {
	deadline := time.Now().Add(most)
	tick := time.NewTicker(5 * pollEvery)
	defer tick.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", most, what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keep gives the maker what only it is to have, and has it told to a listener that nobody else meets.
func (b *daemonsBench) keep(ctx context.Context, maker *floodDaemon, first string) error {
	for _, f := range b.cases {
		b.kept += len(f.kept)
	}
	if b.kept == 0 {
		return nil
	}
	listener, err := b.start(ctx, "listener", first, "--bootstrap", maker.addr)
	if err != nil {
		return err
	}
	if err := maker.until(ctx, meshTimeout, "has met the listener", func(s *api.Status) bool { return s.Gossip.TxMesh > 0 }); err != nil {
		return err
	}
	for _, f := range b.cases {
		for _, tx := range f.kept {
			if err := maker.submit(ctx, tx); err != nil {
				return err
			}
		}
	}
	if err := poll(ctx, tellTimeout, "the maker has told the listener of all", func() (bool, error) {
		m, err := maker.client.Mempool(ctx)
		return m.Unsent == 0, err
	}); err != nil {
		return err
	}
	if err := b.procs.stop(listener.child); err != nil {
		return err
	}
	return rest(ctx, oldGossip)
}

func (d *floodDaemon) submit(ctx context.Context, tx *wire.MsgTx) error {
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		return err
	}
	if _, err := d.client.SubmitTx(ctx, hex.EncodeToString(raw.Bytes())); err != nil {
		return fmt.Errorf("transaction at %s: %w", d.name, err)
	}
	return nil
}

// fill hands the transactions that all are to have in at each daemon in turn, portion by portion, as fast as they spread.
func (b *daemonsBench) fill(ctx context.Context) error {
	start, lost := time.Now(), 0
	for _, f := range b.cases {
		for part := range slices.Chunk(f.sent, portion) {
			for i, tx := range part {
				if err := b.all[i%len(b.all)].submit(ctx, tx); err != nil {
					return err
				}
			}
			b.pooled += len(part)
			n, err := b.spread(ctx, part)
			if err != nil {
				return err
			}
			lost += n
		}
	}
	fmt.Fprintf(b.out, "%d transactions are in every mempool after %.0f s", b.pooled, time.Since(start).Seconds())
	if lost > 0 {
		fmt.Fprintf(b.out, " (%d had to be handed in once more somewhere)", lost)
	}
	fmt.Fprintln(b.out)
	return rest(ctx, afterBlock) // a maker sends along what it has taken in within the last half second
}

// spread waits until all have a portion. What gossip lost would come with the lists of mempools, which are off: it is
// handed in where it is missing; the answer is how many were.
func (b *daemonsBench) spread(ctx context.Context, part []*wire.MsgTx) (lost int, err error) {
	for i, d := range b.all {
		want, last, since := b.pooled, -1, time.Now()
		if i == 0 {
			want += b.kept
		}
		if err := d.until(ctx, poolTimeout, fmt.Sprintf("has %d transactions", want), func(s *api.Status) bool {
			if s.Mempool.Count != last {
				last, since = s.Mempool.Count, time.Now()
			}
			if last < want && time.Since(since) > lostAfter {
				for _, tx := range part {
					if d.submit(ctx, tx) == nil { // else it has it; if not, the wait tells
						lost++
					}
				}
				since = time.Now()
			}
			return last >= want
		}); err != nil {
			return lost, err
		}
		if last > want {
			return lost, fmt.Errorf("%s has %d transactions, not %d: what it was to lack has leaked", d.name, last, want)
		}
	}
	return lost, nil
}

// blockLine is what a daemon's log says of a block: that it is complete ("block complete") and that it is in the chain
// ("block").
type blockLine struct {
	Time time.Time `json:"time"`
	Msg  string    `json:"msg"`
	Hash string    `json:"hash"`
	How  string    `json:"how"` // of a complete one: whole, compact, fetched

	Txs, Pulled int
}

// lines returns the whole lines on blocks that a daemon has logged since the last call.
func (d *floodDaemon) lines() ([]blockLine, error) {
	f, err := os.Open(d.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, d.read, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: log: %w", d.name, err)
	}
	raw = raw[:bytes.LastIndexByte(raw, '\n')+1]
	d.read += int64(len(raw))
	var out []blockLine
	for line := range bytes.Lines(raw) {
		var l blockLine
		if bytes.Contains(line, []byte(`"msg":"block`)) && json.Unmarshal(line, &l) == nil {
			out = append(out, l)
		}
	}
	return out, nil
}

// receivedMetrics are what a daemon has received of blocks: messages of the block topic, copies included, and what it
// asked others for.
var receivedMetrics = []string{`dunlin_gossip_bytes_total{direction="in",topic="block"} `, "dunlin_flood_pulled_bytes_total "}

// received is the sum of the metrics, in bytes.
func (d *floodDaemon) received(ctx context.Context) (sum float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.rpc+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", d.name, err)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", d.name, err)
	}
	defer w.Body.Close()
	found := 0
	in := bufio.NewScanner(io.LimitReader(w.Body, 16<<20))
	for in.Scan() {
		for _, m := range receivedMetrics {
			if value, ok := strings.CutPrefix(in.Text(), m); ok {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return 0, fmt.Errorf("metrics of %s: %w", d.name, err)
				}
				sum += n
				found++
			}
		}
	}
	if err := in.Err(); err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", d.name, err)
	}
	if found != len(receivedMetrics) {
		return 0, fmt.Errorf("metrics of %s: %d of %d found", d.name, found, len(receivedMetrics))
	}
	return sum, nil
}

// arrival is when a daemon had a block.
type arrival struct{ complete, connected *blockLine }

// flood makes a case's block, hands it in at the maker and waits until all have it.
func (b *daemonsBench) flood(ctx context.Context, f daemonsFlood) (daemonsRow, error) {
	// The lines on complete blocks are for debugging; whoever fills mempools has no need of thousands of others.
	before := make([]float64, len(b.all))
	for i, d := range b.all {
		if _, err := d.client.SetLogLevel(ctx, "", "debug"); err != nil {
			return daemonsRow{}, fmt.Errorf("log level of %s: %w", d.name, err)
		}
		if _, err := d.lines(); err != nil {
			return daemonsRow{}, err
		}
		var err error
		if before[i], err = d.received(ctx); err != nil {
			return daemonsRow{}, err
		}
	}
	block := b.chain.builder.MineTemplate(b.chain.tip(), enginetest.Template{Txs: f.txs, Time: time.Now().Truncate(time.Second)})
	b.chain.blocks = append(b.chain.blocks, block)
	text := hex.EncodeToString(block.Raw)
	start := time.Now()
	v, err := b.all[0].client.SubmitBlock(ctx, text)
	if err != nil {
		return daemonsRow{}, fmt.Errorf("submit block: %w", err)
	}
	if v.Outcome != "connected" {
		return daemonsRow{}, fmt.Errorf("submit block %s: %s", v.Hash, v.Outcome)
	}
	arrivals := make([]arrival, len(b.all))
	if err := poll(ctx, floodTimeout, "all have block "+block.Hash.String(), func() (bool, error) {
		return b.look(block.Hash.String(), arrivals)
	}); err != nil {
		return daemonsRow{}, err
	}
	if err := rest(ctx, afterBlock); err != nil {
		return daemonsRow{}, err
	}
	in := make([]float64, 0, len(b.all))
	for i, d := range b.all {
		after, err := d.received(ctx)
		if err != nil {
			return daemonsRow{}, err
		}
		in = append(in, after-before[i])
	}
	row := daemonsRow{Case: f.name, Txs: len(block.Txs), Bytes: len(block.Raw), Missing: len(f.kept), BarMS: ms(f.bar)}
	if f.unsent {
		row.Missing = len(f.txs)
	}
	if row.Bytes >= 64<<10 {
		row.Compact = compactSize(block)
	}
	row.MakerMS = ms(arrivals[0].connected.Time.Sub(start))
	row.sum(start, arrivals[1:], in[1:])
	return row, nil
}

// look reads the logs for a block and says whether all have it in their chains.
func (b *daemonsBench) look(hash string, arrivals []arrival) (bool, error) {
	all := true
	for i, d := range b.all {
		if arrivals[i].connected != nil {
			continue
		}
		lines, err := d.lines()
		if err != nil {
			return false, err
		}
		for _, l := range lines {
			switch {
			case l.Hash != hash:
			case l.Msg == "block complete":
				arrivals[i].complete = &l
			case l.Msg == "block":
				arrivals[i].connected = &l
			}
		}
		all = all && arrivals[i].connected != nil
		if err := d.exited(); err != nil {
			return false, err
		}
	}
	return all, nil
}

// sum fills in what the others saw.
func (r *daemonsRow) sum(start time.Time, others []arrival, in []float64) {
	var complete, connected, pulled, hit []float64
	for _, a := range others {
		connected = append(connected, ms(a.connected.Time.Sub(start)))
		if a.complete == nil {
			r.Otherwise++
			continue
		}
		complete = append(complete, ms(a.complete.Time.Sub(start)))
		if a.complete.How == "fetched" {
			r.Fetched++
		}
		if c := a.complete; c.How == "compact" && c.Txs > 0 {
			pulled = append(pulled, float64(c.Pulled))
			hit = append(hit, 100*float64(c.Txs-c.Pulled)/float64(c.Txs))
		}
	}
	r.Complete, r.Connected, r.BytesIn, r.Pulled, r.Hit = figuresOf(complete), figuresOf(connected), figuresOf(in), figuresOf(pulled), figuresOf(hit)
	if r.Complete != nil {
		met := r.Otherwise == 0 && r.Complete.Max <= r.BarMS
		r.Met = &met
	}
}

// write writes the table for people.
func (r *daemonsReport) write(w io.Writer) error {
	fmt.Fprintf(w, "dunlin-bench flood --daemons %d · %s · %d cpus · load %.1f before · loopback, real time\n%s\n",
		r.Daemons, r.At.Format("2006-01-02 15:04 MST"), r.Machine.CPUs, r.Machine.LoadBefore, r.Dunlin)
	fmt.Fprintf(w, "%d daemons share this machine and its links cost nothing: what is seen is the CPU, for each of them does all the work: with cold mempools all scripts, too.\n", r.Daemons)
	fmt.Fprintln(w, "Since the block was handed in at the maker, by the daemons' logs; COMPLETE: its bytes are there, CHAIN: all is checked. KB IN: messages on blocks and what was pulled.")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nCASE\tBYTES\tTX\tMISSING\tMAKER\tCOMPLETE P50\tMAX\tBAR\tMET\tCHAIN P50\tMAX\tKB IN\t×COMPACT\tHIT\tPULLED\tFETCHED\tBY SYNC\t")
	for _, row := range r.Rows {
		over := "–"
		if row.Compact > 0 {
			over = digits(row.BytesIn.Median / float64(row.Compact))
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.0f ms\t%s\t%s\t%.0f ms\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t\n", row.Case, row.Bytes, row.Txs, row.Missing, row.MakerMS,
			mid(row.Complete, " ms"), most(row.Complete, " ms"), row.BarMS, verdict(row.Met), mid(row.Connected, " ms"), most(row.Connected, " ms"),
			digits(row.BytesIn.Median/1e3), over, mid(row.Hit, "%"), mid(row.Pulled, ""), row.Fetched, row.Otherwise)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// mid and most are the median and the greatest for people.
func mid(f *figures, unit string) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.4g%s", f.Median, unit)
}

func most(f *figures, unit string) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.4g%s", f.Max, unit)
}
