package testnet

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// A Sample is what the nodes did at a time.
type Sample struct {
	At    int64        `json:"t"` // Unix milliseconds
	Nodes []NodeSample `json:"n"`
}

// A NodeSample is one node at that time. Memory, heap, goroutines and files are 0 where they were not asked for.
type NodeSample struct {
	ID         int    `json:"i"`
	State      string `json:"s,omitempty"` // empty: up
	Height     int32  `json:"h,omitempty"`
	Tip        string `json:"t,omitempty"` // its first 12 digits
	Peers      int    `json:"p,omitempty"`
	Mempool    int    `json:"x,omitempty"`
	Memory     int64  `json:"m,omitempty"` // bytes, resident
	Heap       int64  `json:"l,omitempty"` // bytes, that the last collection found alive
	Goroutines int    `json:"g,omitempty"`
	FDs        int    `json:"f,omitempty"`
	Uptime     int64  `json:"u,omitempty"` // seconds
}

// sampleOf shortens a status.
func sampleOf(now time.Time, s *Status) Sample {
	out := Sample{At: now.UnixMilli()}
	for _, n := range s.Nodes {
		x := NodeSample{
			ID: n.ID, State: n.State, Height: n.Height, Tip: n.TipHash[:min(12, len(n.TipHash))], Peers: n.Inbound + n.Outbound, Mempool: n.Mempool,
			Memory: n.MemoryBytes, Heap: n.HeapBytes, Goroutines: n.Goroutines, FDs: n.FDs, Uptime: n.UptimeS,
		}
		if x.State == NodeUp {
			x.State = ""
		}
		out.Nodes = append(out.Nodes, x)
	}
	return out
}

// maxSamplesBytes bounds the file of samples: an hour of ten nodes takes some 3 MB.
const maxSamplesBytes = 32 << 20

// A recorder appends samples to a file. When that has grown to its limit every second line of it goes, and from then on
// every second sample is left out: all of the time is known, as finely as there is room for.
type recorder struct {
	path   string
	limit  int64 // bytes
	stride int   // of so many samples one is kept; 0: all
	seen   int
}

func (r *recorder) add(s Sample) error {
	r.stride = max(r.stride, 1)
	if r.seen++; (r.seen-1)%r.stride != 0 {
		return nil
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	if info, err := os.Stat(r.path); err == nil && info.Size()+int64(len(raw))+1 > r.limit {
		if err := r.thin(); err != nil {
			return err
		}
		r.stride, r.seen = 2*r.stride, 1
	}
	return appendLine(r.path, raw)
}

// appendLine adds a line to a file, 0600, in one write.
func appendLine(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	return errors.Join(err, f.Close())
}

func (r *recorder) thin() error {
	in, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	defer in.Close()
	var kept []byte
	lines, n := bufio.NewScanner(in), 0
	lines.Buffer(nil, maxSampleLine)
	for lines.Scan() {
		if n++; n%2 == 1 {
			kept = append(append(kept, lines.Bytes()...), '\n')
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	if err := writeFile(r.path, kept); err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	return nil
}

// maxSampleLine holds a sample of MaxNodes nodes several times over.
const maxSampleLine = 64 << 10

// readLines calls f with each line of a file that is JSON; what is torn, as a last line may be, is passed over.
// There may be no such file.
func readLines[T any](path string, f func(T)) error {
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxSampleLine)
	for lines.Scan() {
		var v T
		if json.Unmarshal(lines.Bytes(), &v) == nil {
			f(v)
		}
	}
	return lines.Err()
}
