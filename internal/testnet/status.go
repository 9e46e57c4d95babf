package testnet

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"dunlin/config"
	"dunlin/internal/api"
)

// States of a node.
const (
	NodeUp        = "up"
	NodeSuspended = "suspended" // by SIGSTOP
	NodeDown      = "down"
	NodeSilent    = "no answer"
)

// A Status is what a testnet does now.
type Status struct {
	Dir        string       `json:"dir"`
	Engine     string       `json:"engine"`
	Topology   string       `json:"topology"`
	Supervisor int          `json:"supervisor_pid"` // 0: it is gone
	Up         int          `json:"up"`
	Height     int32        `json:"height"` // greatest
	Tips       int          `json:"tips"`   // different ones of the nodes that answer
	Sender     *Sender      `json:"sender,omitempty"`
	Nodes      []NodeStatus `json:"nodes"`
}

// A NodeStatus is one node. What is not known is 0.
type NodeStatus struct {
	ID          int     `json:"id"`
	State       string  `json:"state"`
	Sync        string  `json:"sync,omitempty"`
	PID         int     `json:"pid,omitempty"`
	Height      int32   `json:"height"`
	TipHash     string  `json:"tip_hash,omitempty"`
	Lag         int32   `json:"lag"` // blocks behind the highest
	Inbound     int     `json:"inbound"`
	Outbound    int     `json:"outbound"`
	Mempool     int     `json:"mempool"`
	MemoryBytes int64   `json:"memory_bytes"` // resident
	HeapBytes   int64   `json:"heap_bytes"`   // what the last collection found alive
	Goroutines  int     `json:"goroutines"`
	FDs         int     `json:"fds"`
	OffsetS     float64 `json:"clock_offset_s,omitempty"`
	Mines       bool    `json:"mines"`
	UptimeS     int64   `json:"uptime_s"`
}

// lookTimeout is how long a node may take to answer before it counts as silent.
const lookTimeout = 2 * time.Second

// A Watcher looks at the nodes of a testnet again and again. It is not safe for concurrent use.
type Watcher struct {
	spec    *Spec
	clients map[int]watched
}

type watched struct {
	process Process
	client  *api.Client
}

// NewWatcher returns a watcher of s.
func NewWatcher(s *Spec) *Watcher { return &Watcher{spec: s, clients: map[int]watched{}} }

// Look asks all nodes at once; with resources, for memory, goroutines and files too, which costs them more.
func (w *Watcher) Look(ctx context.Context, resources bool) Status {
	s := w.spec
	out := Status{Dir: s.dir, Engine: s.Engine, Topology: s.Topology, Nodes: make([]NodeStatus, len(s.Nodes))}
	if s.supervised() {
		out.Supervisor = s.Supervisor.PID
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i := range s.Nodes {
		n := &out.Nodes[i]
		*n = NodeStatus{ID: i + 1, State: NodeDown, Mines: s.Nodes[i].Mines}
		p := s.process(i + 1)
		if !p.alive() {
			delete(w.clients, i+1)
			continue
		}
		n.PID, n.OffsetS, n.State = p.PID, p.Offset.Seconds(), NodeSilent
		if suspended(p.PID) {
			n.State = NodeSuspended
			continue
		}
		known := w.clients[i+1]
		if known.process != p {
			c, info, err := api.Open(s.home(i + 1))
			if err != nil || info.PID != p.PID {
				continue // it is about to start
			}
			known = watched{p, c}
			w.clients[i+1] = known
		}
		all.Go(func() { fill(ctx, n, known.client, resources) })
	}
	all.Wait()
	tips := map[string]bool{}
	for _, n := range out.Nodes {
		if n.State == NodeUp {
			out.Up++
			out.Height = max(out.Height, n.Height)
			tips[n.TipHash] = true
		}
	}
	out.Tips = len(tips)
	for i := range out.Nodes {
		if n := &out.Nodes[i]; n.State == NodeUp {
			n.Lag = out.Height - n.Height
		}
	}
	return out
}

// fill asks one node.
func fill(ctx context.Context, n *NodeStatus, c *api.Client, resources bool) {
	a, err := c.Status(ctx)
	if err != nil {
		return
	}
	n.State, n.Sync, n.Height, n.TipHash = NodeUp, a.Sync.State, a.Height, a.TipHash
	n.Inbound, n.Outbound, n.Mempool, n.UptimeS = a.Peers.Inbound, a.Peers.Outbound, a.Mempool.Count, int64(a.UptimeS)
	if !resources {
		return
	}
	const most = 4 << 20
	raw, err := c.Fetch(ctx, "/metrics", most)
	if err != nil {
		return
	}
	m := metricsOf(raw, "process_resident_memory_bytes", "go_goroutines", "process_open_fds", "go_gc_heap_live_bytes")
	n.MemoryBytes, n.Goroutines, n.FDs, n.HeapBytes = int64(m[0]), int(m[1]), int(m[2]), int64(m[3])
}

// metricsOf reads metrics without labels out of what a node answers; 0 for those that are not there.
func metricsOf(raw []byte, names ...string) []float64 {
	out := make([]float64, len(names))
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if i := slices.Index(names, name); ok && i >= 0 {
			if v, err := strconv.ParseFloat(value, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
				out[i] = v
			}
		}
	}
	return out
}

// Table describes the nodes, a line each, under a line of headings.
func (s *Status) Table() []string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tHEIGHT\tTIP\tPEERS in/out\tLAG\tMEMORY\tPID\tROLE")
	for _, n := range s.Nodes {
		var role []string
		if n.Mines {
			role = append(role, map[bool]string{true: "stakes", false: "mines"}[s.Engine == config.EnginePoS])
		}
		if n.OffsetS != 0 {
			role = append(role, fmt.Sprintf("clock %+.0fs", n.OffsetS))
		}
		pid := "-"
		if n.PID > 0 {
			pid = strconv.Itoa(n.PID)
		}
		if n.State != NodeUp {
			fmt.Fprintf(t, "%d\t%s\t-\t-\t-\t-\t-\t%s\t%s\n", n.ID, n.State, pid, strings.Join(role, ", "))
			continue
		}
		memory := "-"
		if n.MemoryBytes > 0 {
			memory = fmt.Sprintf("%d MiB", n.MemoryBytes>>20)
		}
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%d/%d\t%d\t%s\t%s\t%s\n",
			n.ID, n.Sync, n.Height, short(n.TipHash), n.Inbound, n.Outbound, n.Lag, memory, pid, strings.Join(role, ", "))
	}
	_ = t.Flush() // a strings.Builder does not fail
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// Summary is the testnet in one line.
func (s *Status) Summary() string {
	line := fmt.Sprintf("%d of %d nodes answer, height %d, %d different tips", s.Up, len(s.Nodes), s.Height, s.Tips)
	if s.Tips == 1 {
		line = fmt.Sprintf("%d of %d nodes answer and agree on block %d", s.Up, len(s.Nodes), s.Height)
	}
	if t := s.Sender; t != nil {
		line += fmt.Sprintf("; transactions: %d acknowledged, %d confirmed, %d wait", t.Acked, t.Confirmed, t.Waiting)
	}
	return line
}
