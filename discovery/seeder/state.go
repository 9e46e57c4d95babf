package seeder

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/discovery"
	"dunlin/discovery/internal/lines"
)

const (
	stateFile   = "seeder.jsonl"
	stateFormat = 1
	saveEvery   = 5 * time.Minute
)

// savedHeader is the first line of the state.
type savedHeader struct {
	Format    int    `json:"dunlin_seeder"`
	Namespace string `json:"namespace"`
}

// savedNode is any other line. Times are Unix seconds, 0 for never.
type savedNode struct {
	ID      string     `json:"id"`
	Addrs   []string   `json:"addrs"`
	Height  int32      `json:"height,omitempty"`
	Agent   string     `json:"agent,omitempty"`
	Serves  bool       `json:"serves,omitempty"`
	Tries   uint64     `json:"tries,omitempty"`
	Success uint64     `json:"success,omitempty"`
	Fails   int        `json:"fails,omitempty"`
	First   int64      `json:"first"`
	Last    int64      `json:"last,omitempty"`
	LastOK  int64      `json:"last_ok,omitempty"`
	Average [4]average `json:"average"` // over 2 h, 8 h, 1 d, 1 w
}

// saveLoop writes the state from time to time and when ctx ends.
func (s *Seeder) saveLoop(ctx context.Context) {
	if s.opts.Dir == "" {
		return
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		if err := s.save(); err != nil {
			s.log.Warn("the seeder's state was not saved", slog.Any("error", err))
		}
	}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// save writes the state: the file is limited, so the nodes that answered come first.
func (s *Seeder) save() error {
	head, err := json.Marshal(savedHeader{Format: stateFormat, Namespace: s.opts.Namespace})
	if err != nil {
		return err
	}
	s.mu.Lock()
	var all []savedNode
	for _, n := range s.nodes {
		v := savedNode{
			ID: n.id.String(), Height: n.height, Agent: n.agent, Serves: n.serves, Tries: n.tries, Success: n.success, Fails: n.fails,
			First: unix(n.first), Last: unix(n.last), LastOK: unix(n.lastOK), Average: n.avg,
		}
		for _, a := range n.addrs {
			v.Addrs = append(v.Addrs, a.String())
		}
		all = append(all, v)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b savedNode) int { return cmp.Or(-cmp.Compare(a.LastOK, b.LastOK), cmp.Compare(a.ID, b.ID)) })
	texts, size := [][]byte{head}, len(head)
	for _, v := range all {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if size += len(line) + 10; size > lines.MaxFileBytes {
			break
		}
		texts = append(texts, line)
	}
	return lines.Write(filepath.Join(s.opts.Dir, stateFile), texts)
}

// load reads the state. Damaged lines are told, kept beside and left out.
func (s *Seeder) load(now time.Time) error {
	path := filepath.Join(s.opts.Dir, stateFile)
	texts, damaged, err := lines.Read(path)
	if err != nil {
		return fmt.Errorf("read the seeder's state: %w", err)
	}
	for _, text := range texts {
		var h savedHeader
		if json.Unmarshal(text, &h) == nil && h.Format != 0 {
			if h.Format != stateFormat || h.Namespace != s.opts.Namespace {
				return fmt.Errorf("%s belongs to another network or version: format %d, namespace %q; want %d, %q",
					path, h.Format, h.Namespace, stateFormat, s.opts.Namespace)
			}
			continue
		}
		var v savedNode
		if json.Unmarshal(text, &v) != nil || len(s.nodes) >= s.opts.MaxNodes || !s.restore(now, v) {
			damaged++
		}
	}
	if damaged > 0 {
		attrs := []any{slog.String("file", path), slog.Int("lines_lost", damaged), slog.Int("nodes_kept", len(s.nodes))}
		if err := lines.KeepDamaged(path); err != nil {
			attrs = append(attrs, slog.Any("copy_error", err))
		}
		s.log.Warn("the seeder's state is damaged; going on with the rest", attrs...)
	}
	return nil
}

// restore takes one saved node. Nothing of it is believed that could not be.
func (s *Seeder) restore(now time.Time, v savedNode) bool {
	id, err := peer.Decode(v.ID)
	if err != nil {
		return false
	}
	var addrs []ma.Multiaddr
	for _, t := range v.Addrs[:min(len(v.Addrs), maxAddrs)] {
		if a, err := ma.NewMultiaddr(t); err == nil {
			addrs = append(addrs, a)
		}
	}
	if addrs = discovery.Dialable(addrs, true); len(addrs) == 0 {
		return false
	}
	at := func(sec int64) time.Time { // a clock that was ahead must not keep a node from being probed
		t := time.Unix(sec, 0)
		switch {
		case sec <= 0:
			return time.Time{}
		case t.After(now):
			return now
		}
		return t
	}
	n := &node{
		id: id, addrs: merge(addrs, nil), height: v.Height, agent: printable(v.Agent), serves: v.Serves, tries: v.Tries,
		success: min(v.Success, v.Tries), fails: max(v.Fails, 0), first: at(v.First), last: at(v.Last), lastOK: at(v.LastOK), avg: v.Average,
	}
	for i := range n.avg {
		a := &n.avg[i]
		a.Reliability, a.Weight, a.Count = min(max(a.Reliability, 0), 1), min(max(a.Weight, 0), 1), max(a.Count, 0)
	}
	s.nodes[id] = n
	return true
}
