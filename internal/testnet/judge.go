package testnet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"dunlin/config"
	"dunlin/internal/api"
)

// A Verdict is what a run of chaos showed.
type Verdict struct {
	Seed    uint64         `json:"seed"`
	Nodes   int            `json:"nodes"`
	LastedS float64        `json:"lasted_s"`
	Events  map[string]int `json:"events"` // of each kind

	Height     int32   `json:"height"`      // on which all agree
	Tip        string  `json:"tip"`         // on which all agree; empty: they do not
	AgreedInS  float64 `json:"agreed_in_s"` // after the last event
	Compared   int     `json:"compared"`    // blocks whose hashes were compared at every node
	Reorgs     int     `json:"reorgs"`      // of all nodes together
	DeepestOld int     `json:"deepest_reorg"`

	Blocks AckCount `json:"acked_blocks"`
	Txs    AckCount `json:"acked_txs"`

	Restarts RestartTimes `json:"restarts"`
	Flat     []Flatness   `json:"flatness"` // empty: the run was too short to judge

	Faults []string `json:"faults"` // empty: it passed
}

// An AckCount says what became of what was acknowledged.
type AckCount struct {
	Acked int `json:"acked"`
	Alive int `json:"alive"` // blocks: on the chain; transactions: in a block or a mempool
	Left  int `json:"left"`  // blocks: a better chain went past them, and the node has them still
	Lost  int `json:"lost"`
}

// RestartTimes says how long nodes took from their start until they answered.
type RestartTimes struct {
	Count   int     `json:"count"`
	MedianS float64 `json:"median_s"`
	MaxS    float64 `json:"max_s"`
}

// A Flatness compares medians over the first and the last quarter of a run.
type Flatness struct {
	What   string  `json:"what"` // memory (resident), heap (alive), goroutines, files
	Of     string  `json:"of"`   // all nodes, or those whose processes never ended
	First  float64 `json:"first"`
	Last   float64 `json:"last"`
	Unit   string  `json:"unit"`
	Flat   bool    `json:"flat"`
	Judged bool    `json:"judged"` // false: too few samples, or too short
}

const (
	// MaxRestart is how long a node may take to answer after it was started, unless the options say otherwise.
	MaxRestart = 3 * time.Second
	// Growth from the first to the last quarter of less than a tenth, or less than the floor, is none. The heap's floor is what may
	// fill up within an hour and then fills no more: events for those who come back 0.6 MiB, log lines 1 MiB, summaries of blocks and samples
	// 0.6 MiB, and coins in the cache. Resident memory grows by up to twice that (GOGC 100).
	maxGrowth       = 0.10
	memoryFloor     = 6 << 20
	heapFloor       = 3 << 20
	goroutineFloor  = 20
	fileFloor       = 10
	minFlatRun      = 4 * time.Minute  // shorter ones show how a process warms up
	minFlatLonger   = 20 * time.Minute // for those that warm up once only
	minFlatSamples  = 12
	agreeTimeout    = 3 * time.Minute
	decideEvery     = 20  // looks, 200 ms apart
	compareAtOnce   = 500 // blocks an answer
	maxTxsJudged    = 20_000
	txSettleTimeout = time.Minute
)

// judge waits until all nodes agree and looks whether anything was lost.
func (c *chaos) judge(ctx context.Context, events []Event, ended time.Time) (*Verdict, error) {
	v := &Verdict{Seed: cmpOr(c.o.Seed, 1), Nodes: len(c.spec.Nodes), LastedS: math.Round(ended.Sub(c.began).Seconds()), Events: map[string]int{}}
	for _, e := range events {
		v.Events[e.Kind]++
	}
	v.Flat = c.flatness(ended)
	defer c.switchMiners(context.WithoutCancel(ctx), true)
	c.tell("all nodes run; waiting for one tip")
	since := time.Now()
	w := NewWatcher(c.spec)
	stake := c.spec.Engine == config.EnginePoS
	if !stake {
		c.switchMiners(ctx, false)
	}
	for looks := 0; ; looks++ {
		status := w.Look(ctx, false)
		one := status.Up == v.Nodes && status.Tips == 1
		if !stake && looks%decideEvery == 0 {
			// Two branches of the same work would stay: one more block decides, unless a last one of a miner came beside it.
			one = false
			if err := c.mine(ctx, 1, "chaos is over"); err != nil {
				c.tell("%v", err)
			}
		}
		if one && stake { // nobody can make a block at will: look again when nobody makes any
			c.switchMiners(ctx, false)
			pause(ctx, time.Second)
			if status = w.Look(ctx, false); status.Up != v.Nodes || status.Tips != 1 {
				c.switchMiners(ctx, true)
				one = false
			}
		}
		if one {
			v.Height, v.Tip, v.AgreedInS = status.Height, status.Nodes[0].TipHash, time.Since(since).Seconds()
			c.tell("all agree on block %d %s after %.1fs", v.Height, short(v.Tip), v.AgreedInS)
			break
		}
		if time.Since(since) > agreeTimeout {
			c.fault("no agreement after %v: %s\n%s", agreeTimeout, status.Summary(), strings.Join(status.Table(), "\n"))
			break
		}
		if !pause(ctx, 200*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
	hashes, err := c.compare(ctx)
	if err != nil {
		return nil, err
	}
	v.Compared = len(hashes)
	if err := c.judgeBlocks(ctx, v, hashes); err != nil {
		return nil, err
	}
	if err := c.judgeTxs(ctx, v); err != nil {
		return nil, err
	}
	for _, f := range v.Flat {
		if f.Judged && !f.Flat {
			c.fault("%s of %s grew from %.4g to %.4g %s", f.What, f.Of, f.First, f.Last, f.Unit)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.Restarts = timesOf(c.restarts)
	if limit := cmpOr(c.o.MaxRestart, MaxRestart); v.Restarts.MaxS > limit.Seconds() {
		c.faults = append(c.faults, fmt.Sprintf("a restart took %.1fs, the limit is %v", v.Restarts.MaxS, limit))
	}
	v.Faults = append([]string{}, c.faults...)
	if err := writeJSON(c.spec.file(verdictFile), v); err != nil {
		return nil, fmt.Errorf("chaos: verdict: %w", err)
	}
	return v, nil
}

func timesOf(all []time.Duration) RestartTimes {
	if len(all) == 0 {
		return RestartTimes{}
	}
	sorted := slices.Sorted(slices.Values(all))
	return RestartTimes{Count: len(all), MedianS: sorted[len(sorted)/2].Seconds(), MaxS: sorted[len(sorted)-1].Seconds()}
}

// switchMiners has the miners rest or go on.
func (c *chaos) switchMiners(ctx context.Context, on bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, id := range c.spec.miners() {
		if n, err := c.spec.client(id); err == nil {
			if c.spec.Engine == config.EnginePoS {
				_, err = n.SwitchStaking(ctx, on)
			} else {
				_, err = n.SwitchMiner(ctx, on)
			}
			if err != nil {
				c.tell("node %d: miner: %v", id, err)
			}
		}
	}
}

// compare reads the chains of all nodes and wants the same hash at each height that all have. It returns those of node 1.
func (c *chaos) compare(ctx context.Context) ([]string, error) {
	chains := make([][]string, len(c.spec.Nodes))
	errs := make([]error, len(c.spec.Nodes))
	var all sync.WaitGroup
	slots := make(chan struct{}, 3)
	for i := range c.spec.Nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			chains[i], errs[i] = chainOf(ctx, c.spec, i+1)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("chaos: compare the chains: %w", err)
	}
	for i, chain := range chains[1:] {
		for h := range min(len(chain), len(chains[0])) {
			if chain[h] != chains[0][h] {
				c.fault("nodes 1 and %d differ at height %d: %s, %s", i+2, h, chains[0][h], chain[h])
				break
			}
		}
	}
	return chains[0], nil
}

// chainOf lists the hashes of a node's chain, by height.
func chainOf(ctx context.Context, s *Spec, id int) (out []string, err error) {
	n, err := s.client(id)
	if err != nil {
		return nil, err
	}
	for {
		page, err := n.Blocks(ctx, int32(len(out)), compareAtOnce)
		if refused, ok := errors.AsType[*api.Error](err); ok && refused.Status == http.StatusNotFound && len(out) > 0 {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", id, err)
		}
		for _, b := range page {
			out = append(out, b.Hash)
		}
		if len(page) < compareAtOnce {
			return out, nil
		}
	}
}

// judgeBlocks looks for every block that a node acknowledged: the node must have it still, on its chain or beside it; and one that is on the
// chain now must have been there each time that the node was started.
func (c *chaos) judgeBlocks(ctx context.Context, v *Verdict, chain []string) error {
	var acks []BlockAck
	if err := readLines(c.spec.file(blockAcksFile), func(a BlockAck) { acks = append(acks, a) }); err != nil {
		return fmt.Errorf("chaos: acknowledged blocks: %w", err)
	}
	acks = slices.DeleteFunc(acks, func(a BlockAck) bool { return a.At < c.began.UnixMilli() })
	v.Blocks.Acked = len(acks)
	stories := make([]history, len(c.spec.Nodes)+1)
	for _, id := range c.spec.ids() {
		story, err := readStory(c.spec.log(id))
		if err != nil {
			return fmt.Errorf("chaos: log of node %d: %w", id, err)
		}
		stories[id] = story
		for _, r := range story.reorgs {
			if r.at.After(c.began) {
				v.Reorgs++
				v.DeepestOld = max(v.DeepestOld, r.depth)
			}
		}
	}
	for _, a := range acks {
		active := int(a.Height) < len(chain) && chain[a.Height] == a.Hash
		if active {
			story := &stories[a.Node]
			for _, o := range story.openings {
				// It may have been on another branch by then, of more work and yet lower, and have come back since.
				if o.at.UnixMilli() > a.At && o.height < a.Height && !story.left(a.Height, time.UnixMilli(a.At), o.at) {
					v.Blocks.Lost++
					c.fault("node %d acknowledged block %d %s and was started without it, at height %d", a.Node, a.Height, a.Hash, o.height)
					break
				}
			}
		}
		n, err := c.spec.client(a.Node)
		if err != nil {
			return fmt.Errorf("chaos: acknowledged blocks: %w", err)
		}
		_, err = n.Block(ctx, a.Hash)
		refused, ok := errors.AsType[*api.Error](err)
		switch {
		case err == nil && active:
			v.Blocks.Alive++
		case err == nil:
			v.Blocks.Left++
		case ok && refused.Status == http.StatusNotFound:
			v.Blocks.Lost++
			c.fault("node %d acknowledged block %d %s and does not have it", a.Node, a.Height, a.Hash)
		default:
			return fmt.Errorf("chaos: acknowledged blocks: %w", err)
		}
	}
	return nil
}

// judgeTxs looks for the transactions that were acknowledged, the last of them if there are many: each must be in a block
// or in the mempool of some node. What all nodes forgot, as they may when they are killed, their sender hands in again: it is given time for that.
func (c *chaos) judgeTxs(ctx context.Context, v *Verdict) error {
	acks, err := acknowledged(c.spec.dir, maxTxsJudged)
	if err != nil {
		return fmt.Errorf("chaos: acknowledged transactions: %w", err)
	}
	if v.Txs.Acked = len(acks); len(acks) == 0 {
		return nil
	}
	for deadline := time.Now().Add(txSettleTimeout); ; {
		before := len(acks)
		for _, id := range c.spec.ids() { // all agree on the chain: but for mempools the first one has them all
			if acks, err = missingAt(ctx, c.spec, id, acks); err != nil {
				return fmt.Errorf("chaos: acknowledged transactions: %w", err)
			}
		}
		v.Txs.Alive += before - len(acks)
		if len(acks) == 0 {
			return nil
		}
		if time.Now().After(deadline) || !c.spec.supervised() {
			break
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
	v.Txs.Lost = len(acks)
	c.fault("%d acknowledged transactions are nowhere, %s of node %d for one", len(acks), acks[0].TxID, acks[0].Node)
	return nil
}

// missingAt returns those of the transactions that are neither in the chain nor in the mempool of a node.
func missingAt(ctx context.Context, s *Spec, id int, acks []TxAck) (missing []TxAck, err error) {
	if len(acks) == 0 {
		return nil, nil
	}
	n, err := s.client(id)
	if err != nil {
		return nil, err
	}
	for _, a := range acks {
		there, err := hasTx(ctx, n, a.TxID)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", id, err)
		}
		if !there {
			missing = append(missing, a)
		}
	}
	return missing, nil
}

// hasTx asks a node, which has an index of transactions, whether one is in its chain or its mempool.
func hasTx(ctx context.Context, c *api.Client, id string) (bool, error) {
	request := map[string]any{"jsonrpc": "2.0", "id": 1, "method": "getrawtransaction", "params": []any{id, 0}}
	var answer struct {
		Error *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	const unknown = -5 // RPC_INVALID_ADDRESS_OR_KEY of Bitcoin Core
	switch err := c.Call(ctx, http.MethodPost, "/", request, &answer); {
	case err != nil:
		return false, err
	case answer.Error == nil:
		return true, nil
	case answer.Error.Code == unknown:
		return false, nil
	}
	return false, errors.New(answer.Error.Message)
}

// flatness compares the first quarter of the run with the last.
func (c *chaos) flatness(ended time.Time) []Flatness {
	var samples []Sample
	from, to := c.began.UnixMilli(), ended.UnixMilli()
	err := readLines(c.spec.file(samplesFile), func(s Sample) {
		if s.At >= from && s.At <= to {
			samples = append(samples, s)
		}
	})
	if err != nil {
		c.tell("samples: %v", err)
	}
	lasted := ended.Sub(c.began)
	all := flat(samples, from, to, "all nodes", func(NodeSample) bool { return true }, lasted >= minFlatRun)
	keep := len(c.spec.Nodes) - spared(len(c.spec.Nodes))
	return append(all, flat(samples, from, to, "nodes never restarted", func(n NodeSample) bool { return n.ID > keep }, lasted >= minFlatLonger)...)
}

// flat compares medians of the first and the last quarter of the time from from to to.
func flat(samples []Sample, from, to int64, of string, which func(NodeSample) bool, judge bool) (out []Flatness) {
	quarter := (to - from) / 4
	for _, m := range []struct {
		what, unit   string
		value        func(NodeSample) float64
		floor, scale float64
	}{
		{"memory", "MiB", func(n NodeSample) float64 { return float64(n.Memory) }, memoryFloor, 1 << 20},
		{"heap", "MiB", func(n NodeSample) float64 { return float64(n.Heap) }, heapFloor, 1 << 20},
		{"goroutines", "", func(n NodeSample) float64 { return float64(n.Goroutines) }, goroutineFloor, 1},
		{"files", "", func(n NodeSample) float64 { return float64(n.FDs) }, fileFloor, 1},
	} {
		var first, last []float64
		for _, s := range samples {
			for _, n := range s.Nodes {
				if x := m.value(n); x > 0 && which(n) {
					switch {
					case s.At < from+quarter:
						first = append(first, x)
					case s.At >= to-quarter:
						last = append(last, x)
					}
				}
			}
		}
		if len(first) == 0 || len(last) == 0 {
			continue
		}
		a, b := median(first), median(last)
		out = append(out, Flatness{
			What: m.what, Of: of, First: math.Round(a/m.scale*10) / 10, Last: math.Round(b/m.scale*10) / 10, Unit: m.unit,
			Flat:   b <= a*(1+maxGrowth) || b <= a+m.floor,
			Judged: judge && len(first) >= minFlatSamples && len(last) >= minFlatSamples,
		})
	}
	return out
}

func median(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Lines tells the verdict.
func (v *Verdict) Lines() []string {
	var kinds []string
	for _, k := range Kinds {
		if n := v.Events[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, k))
		}
	}
	out := []string{
		fmt.Sprintf("events      %s in %.0fs on %d nodes, seed %d", strings.Join(kinds, ", "), v.LastedS, v.Nodes, v.Seed),
		fmt.Sprintf("chain       height %d, tip %s; all agreed %.1fs after the end; %d heights compared; %d reorgs, the deepest %d",
			v.Height, short(v.Tip), v.AgreedInS, v.Compared, v.Reorgs, v.DeepestOld),
		fmt.Sprintf("blocks      %d acknowledged: %d on the chain, %d on branches that were left, %d lost", v.Blocks.Acked, v.Blocks.Alive, v.Blocks.Left, v.Blocks.Lost),
	}
	if v.Txs.Acked > 0 {
		out = append(out, fmt.Sprintf("txs         %d acknowledged: %d in blocks or mempools, %d lost", v.Txs.Acked, v.Txs.Alive, v.Txs.Lost))
	}
	out = append(out, fmt.Sprintf("restarts    %d, median %.2fs, longest %.2fs", v.Restarts.Count, v.Restarts.MedianS, v.Restarts.MaxS))
	for _, f := range v.Flat {
		word := "flat"
		switch {
		case !f.Judged:
			word = "not judged, the run is too short"
		case !f.Flat:
			word = "GREW"
		}
		out = append(out, fmt.Sprintf("%-11s %g → %g %s median of the first and the last quarter, %s: %s", f.What, f.First, f.Last, f.Unit, f.Of, word))
	}
	if len(v.Faults) == 0 {
		return append(out, "verdict     passed")
	}
	for _, f := range v.Faults {
		out = append(out, "FAULT       "+f)
	}
	return append(out, "verdict     FAILED")
}
