package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dunlin/config"
)

// Names of files in the folder of a testnet.
const (
	specFile       = "testnet.json"  // a Spec
	networkFile    = "network.toml"  // of the chain
	samplesFile    = "samples.jsonl" // a Sample a line
	chaosFile      = "chaos.jsonl"   // an Event a line
	blockAcksFile  = "acked-blocks.jsonl"
	txAcksFile     = "acked-txs.jsonl"
	senderKeyFile  = "sender.key"
	supervisorFile = "supervisor.log" // what a detached supervisor says
	runFile        = "run.json"       // in a node's home: a Process
	logFile        = "dunlin.log"     // in a node's home
)

// Limits of a testnet.
const (
	MinNodes   = 2
	MaxNodes   = 50
	MaxTxRate  = 200.0 // a second, all together
	MaxSpacing = time.Hour
)

// Engines and topologies that Up knows.
var (
	Engines    = []string{config.EnginePoW, config.EnginePoS}
	Topologies = []string{"line", "ring", "star", "random"}
)

// A Spec is what a testnet consists of. Up writes it, whole, by rename; everybody else reads it.
type Spec struct {
	Engine     string        `json:"engine"`
	Topology   string        `json:"topology"`
	Seed       uint64        `json:"seed"` // of the random topology
	Spacing    time.Duration `json:"spacing_ns"`
	TxRate     float64       `json:"txs_per_s"`
	Network    string        `json:"network_file"` // relative to the folder
	Program    string        `json:"program"`
	Detached   bool          `json:"detached"` // nodes outlive their supervisor
	Created    time.Time     `json:"created"`
	Ready      bool          `json:"ready"` // all nodes have been started once
	Nodes      []NodeSpec    `json:"nodes"`
	Supervisor Supervisor    `json:"supervisor"`

	dir string
	// resting: miners are started without mining, until the sender has its coins.
	resting bool
}

// A Supervisor is the process that started the nodes, records samples and sends transactions. It listens for
// requests to start a node, so that the node is its child and no one else's.
type Supervisor struct {
	Process
	Control string `json:"control"` // host:port
	Token   string `json:"token"`   // whoever can read the folder may drive it
}

// A NodeSpec is one node. Nodes count from 1.
type NodeSpec struct {
	ID     int      `json:"id"`
	Home   string   `json:"home"` // relative to the folder
	Listen string   `json:"listen"`
	RPC    string   `json:"rpc"` // host:port
	PeerID string   `json:"peer_id"`
	Dials  []int    `json:"dials"` // the nodes that it keeps connected to; the others of its links dial it
	Mines  bool     `json:"mines"`
	Args   []string `json:"args,omitempty"`        // of dunlin start, besides those that follow from the above
	Mining []string `json:"mining_args,omitempty"` // those of a node that makes blocks
}

// addr is where others dial a node.
func (n *NodeSpec) addr() string { return n.Listen + "/p2p/" + n.PeerID }

// A Process is told from a later one with the same number by when it started.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // see startOf
	// Offset is by how much the clock of a node is set off.
	Offset time.Duration `json:"clock_offset_ns,omitempty"`
}

// alive says whether the very process exists and has not ended.
func (p Process) alive() bool { return p.PID > 0 && p.Started != "" && startOf(p.PID) == p.Started }

// ErrNone says that there is no testnet in a folder.
var ErrNone = errors.New("no testnet")

// maxSpecBytes holds MaxNodes nodes by far.
const maxSpecBytes = 1 << 20

// Open reads the testnet in a folder. ErrNone: there is none.
func Open(dir string) (*Spec, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("testnet in %s: %w", dir, err)
	}
	s := &Spec{dir: abs}
	err = readJSON(filepath.Join(abs, specFile), maxSpecBytes, s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w in %s (no %s): dunlin testnet up --dir %s makes one", ErrNone, dir, specFile, dir)
	case err != nil:
		return nil, fmt.Errorf("testnet in %s: %w", dir, err)
	case len(s.Nodes) < MinNodes || len(s.Nodes) > MaxNodes:
		return nil, fmt.Errorf("testnet in %s: %s is damaged: %d nodes", dir, specFile, len(s.Nodes))
	}
	for i, n := range s.Nodes {
		// The home is what commands delete files in and kill processes by.
		if n.ID != i+1 || n.Home != homeName(n.ID) {
			return nil, fmt.Errorf("testnet in %s: %s is damaged: node %d", dir, specFile, i+1)
		}
	}
	return s, nil
}

func homeName(id int) string { return fmt.Sprintf("node%d", id) }

// save writes the spec by rename. Only the supervisor may.
func (s *Spec) save() error { return writeJSON(filepath.Join(s.dir, specFile), s) }

func (s *Spec) home(id int) string      { return filepath.Join(s.dir, homeName(id)) }
func (s *Spec) file(name string) string { return filepath.Join(s.dir, name) }
func (s *Spec) log(id int) string       { return filepath.Join(s.home(id), logFile) }
func (s *Spec) node(id int) *NodeSpec   { return &s.Nodes[id-1] }
func (s *Spec) process(id int) Process  { return readProcess(s.home(id)) }
func (s *Spec) supervised() bool        { return s.Supervisor.alive() }
func (s *Spec) links() (out [][2]int)   { return linksOf(s.Nodes) }
func (s *Spec) miners() (out []int)     { return minersOf(s.Nodes) }
func (s *Spec) running() (out []int) {
	return slices.DeleteFunc(s.ids(), func(id int) bool { return !s.process(id).alive() })
}
func (s *Spec) ids() (out []int) { return idsOf(len(s.Nodes)) }

func idsOf(n int) (out []int) {
	for i := range n {
		out = append(out, i+1)
	}
	return out
}

func minersOf(nodes []NodeSpec) (out []int) {
	for _, n := range nodes {
		if n.Mines {
			out = append(out, n.ID)
		}
	}
	return out
}

// linksOf lists the links, the one who dials first.
func linksOf(nodes []NodeSpec) (out [][2]int) {
	for _, n := range nodes {
		for _, to := range n.Dials {
			out = append(out, [2]int{n.ID, to})
		}
	}
	return out
}

// randomDegree is how many links each node of the random topology makes, besides the one that keeps it in one piece.
const randomDegree = 2

// Links returns the links of a topology over n nodes: who dials, whom. Each topology is connected, no link is
// there twice and none leads to its own node. The same seed gives the same random one.
func Links(topology string, n int, seed uint64) [][2]int {
	var out [][2]int
	switch topology {
	case "line", "ring":
		for id := 2; id <= n; id++ {
			out = append(out, [2]int{id, id - 1})
		}
		if topology == "ring" && n > 2 {
			out = append(out, [2]int{1, n})
		}
	case "star":
		for id := 2; id <= n; id++ {
			out = append(out, [2]int{id, 1})
		}
	case "random":
		rng := rand.New(rand.NewPCG(seed, 0x6c696e6b73))
		there := map[[2]int]bool{}
		link := func(from, to int) {
			if from == to || there[[2]int{from, to}] || there[[2]int{to, from}] {
				return
			}
			there[[2]int{from, to}] = true
			out = append(out, [2]int{from, to})
		}
		for id := 2; id <= n; id++ {
			link(id, 1+rng.IntN(id-1)) // to one before it: one piece
		}
		for id := 1; id <= n; id++ {
			for range randomDegree {
				link(id, 1+rng.IntN(n))
			}
		}
	}
	return out
}

// readProcess reads who runs in a home; the zero Process if nobody was noted.
func readProcess(home string) (p Process) {
	_ = readJSON(filepath.Join(home, runFile), 4096, &p) // absent or torn: nobody
	return p
}

func readJSON(path string, most int64, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > most {
		return fmt.Errorf("%s: %d bytes, at most %d", path, info.Size(), most)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// writeJSON writes a file, 0600, by rename.
func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(raw, '\n'))
}

func writeFile(path string, raw []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600 by its contract
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// oneOfWords names a fault of a choice.
func oneOfWords(name, value string, known []string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("%s %q: must be %s", name, value, strings.Join(known, ", "))
}
