package testnet

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"dunlin/internal/api"
)

// story keeps the last lines of what this command did and saw.
type story struct {
	lines []string
}

// maxStory is how many lines are kept and drawn.
const maxStory = 12

func (s *story) add(format string, args ...any) {
	s.lines = append(s.lines, time.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
	if len(s.lines) > maxStory {
		s.lines = s.lines[1:]
	}
}

// draw polls the daemons and writes the table.
func (n *network) draw(ctx context.Context) {
	statuses, errs := n.poll(ctx)
	if ctx.Err() != nil {
		return
	}
	n.notice(statuses, errs)
	var b strings.Builder
	if n.o.Terminal {
		b.WriteString("\x1b[H\x1b[2J") // top left, clear
	}
	fmt.Fprintf(&b, "dunlin testnet · %v · Ctrl-C ends it\n\n", time.Since(n.started).Round(time.Second))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tHEIGHT\tTIP\tSTATE\tPEERS in/out\tIN FLIGHT\tROLE\tLOG")
	for i, d := range n.nodes {
		role := ""
		switch {
		case i == 0:
			role = "mines"
		case d.late:
			role = "late"
		}
		if errs[i] != nil {
			fmt.Fprintf(t, "%d\t-\t-\tno answer\t-\t-\t%s\t%s\n", i+1, role, d.log)
			continue
		}
		s := statuses[i]
		state := s.Sync.State
		if state == api.StateBlocks || state == api.StateHeaders {
			state += fmt.Sprintf(" %.0f%%", s.Sync.Percent)
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%d/%d\t%d\t%s\t%s\n",
			i+1, s.Height, short(s.TipHash), state, s.Peers.Inbound, s.Peers.Outbound, s.Sync.InFlight, role, d.log)
	}
	if err := t.Flush(); err != nil {
		return // a strings.Builder does not fail
	}
	b.WriteString("\n")
	for _, line := range n.story.lines {
		b.WriteString(line + "\n")
	}
	if n.o.Terminal {
		last := n.nodes[len(n.nodes)-1]
		fmt.Fprintf(&b, "\nlog of node %d:\n", len(n.nodes))
		for _, line := range lastLines(last.log, 8) {
			if len(line) > 150 {
				line = strings.ToValidUTF8(line[:150], "") + "…"
			}
			b.WriteString("  " + line + "\n")
		}
	} else {
		b.WriteString("\n")
	}
	fmt.Fprint(n.o.Out, b.String())
}

// notice adds what is worth telling to the story: how far daemons have found one
// another, and when the late one has caught up.
func (n *network) notice(statuses []api.Status, errs []error) {
	top := int32(0)
	for i, s := range statuses {
		if errs[i] == nil {
			top = max(top, s.Height)
		}
	}
	for i, d := range n.nodes {
		if errs[i] != nil {
			continue
		}
		s := statuses[i]
		if peers := s.Peers.Inbound + s.Peers.Outbound; !d.told.met && peers >= min(3, len(n.nodes)-1) {
			d.told.met = true
			n.story.add("node %d has found %d peers", i+1, peers)
		}
		if d.late && !d.told.synced && s.Sync.State == api.StateSynced && s.Height > 0 && s.Height >= top-1 {
			d.told.synced = true
			n.story.add("node %d has caught up: height %d", i+1, s.Height)
		}
	}
	agree := len(statuses) > 1
	for i, s := range statuses {
		agree = agree && errs[i] == nil && s.TipHash == statuses[0].TipHash && s.Height > 0
	}
	if agree && n.agreed != len(n.nodes) {
		n.agreed = len(n.nodes)
		n.story.add("all %d agree on block %d %s", len(n.nodes), statuses[0].Height, short(statuses[0].TipHash))
	}
}

func short(hash string) string {
	if len(hash) < 12 {
		return hash
	}
	return hash[:8] + "…" + hash[len(hash)-4:]
}
