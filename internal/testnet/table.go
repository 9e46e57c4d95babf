package testnet

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dunlin/internal/api"
)

// story keeps the last lines of what this command did and saw.
type story struct {
	lines []string
	fresh int // how many of the last lines were not drawn yet
}

// maxStory is how many lines are kept.
const maxStory = 12

func (s *story) add(format string, args ...any) {
	s.lines = append(s.lines, time.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
	if len(s.lines) > maxStory {
		s.lines = s.lines[1:]
	}
	s.fresh = min(s.fresh+1, maxStory)
}

// tableEvery is the time between two tables where they stand one after the other.
const tableEvery = 5 * time.Second

// draw polls the daemons and shows the table: redrawn in place on a terminal;
// elsewhere now and then, with what is to be told in between.
func (n *network) draw(ctx context.Context) {
	statuses, errs := n.poll(ctx)
	if ctx.Err() != nil {
		return
	}
	n.notice(statuses, errs)
	told := n.story.lines
	if n.o.Size == nil {
		for _, line := range told[len(told)-n.story.fresh:] {
			fmt.Fprintln(n.o.Out, line)
		}
		n.story.fresh = 0
		if time.Since(n.tabled) >= tableEvery {
			n.tabled = time.Now()
			fmt.Fprintf(n.o.Out, "\n%s\n\n", strings.Join(n.table(statuses, errs), "\n"))
		}
		return
	}
	table := append([]string{
		fmt.Sprintf("dunlin testnet · %v · Ctrl-C ends it", time.Since(n.started).Round(time.Second)), "",
	}, n.table(statuses, errs)...)
	columns, rows := n.o.Size()
	// What the daemons did is worth as many lines as what this command saw.
	if room := rows - len(table) - 3; room > 0 {
		told = told[len(told)-min(len(told), max(room/2, room-len(n.nodes)*maxTail)):]
	}
	lines := append(append(table, ""), told...)
	if room := rows - len(lines) - 2; room > 0 {
		lines = append(append(lines, "", "logs, as in "+n.o.Dir+"/node*/dunlin.log:"), n.logs(room-1)...)
	}
	fmt.Fprint(n.o.Out, screen(lines, columns, rows, !n.drawn))
	n.drawn = true
}

// table describes the daemons, a line each, under a line of headings.
func (n *network) table(statuses []api.Status, errs []error) []string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tHEIGHT\tTIP\tSTATE\tPEERS in/out\tIN FLIGHT\tROLE")
	for i, d := range n.nodes {
		role := ""
		switch {
		case i == 0:
			role = "mines"
		case d.late:
			role = "late"
		}
		if errs[i] != nil {
			fmt.Fprintf(t, "%d\t-\t-\tno answer\t-\t-\t%s\n", i+1, role)
			continue
		}
		s := statuses[i]
		state := s.Sync.State
		if state == api.StateBlocks || state == api.StateHeaders {
			state += fmt.Sprintf(" %.0f%%", s.Sync.Percent)
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%d/%d\t%d\t%s\n",
			i+1, s.Height, short(s.TipHash), state, s.Peers.Inbound, s.Peers.Outbound, s.Sync.InFlight, role)
	}
	_ = t.Flush() // a strings.Builder does not fail
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// screen draws lines over what a terminal of the given size shows, without
// letting it scroll: what is too long or too many is cut.
func screen(lines []string, columns, rows int, first bool) string {
	var b strings.Builder
	if first {
		b.WriteString("\x1b[2J") // clear
	}
	b.WriteString("\x1b[H") // top left
	for i, line := range lines[:min(len(lines), max(rows-1, 1))] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(cut(line, columns) + "\x1b[K") // and clear the rest of the line
	}
	b.WriteString("\r\n\x1b[J") // and the rest of the screen
	return b.String()
}

// cut shortens a line to a number of columns.
func cut(line string, columns int) string {
	runes := []rune(line)
	if columns < 1 || len(runes) <= columns {
		return line
	}
	return string(runes[:columns-1]) + "…"
}

// maxTail is how many lines of each log are looked at.
const maxTail = 12

// longHex is a hash in a log line.
var longHex = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// logs returns the latest lines of all daemons' logs, at most most of them, in
// the order of their times, with the daemons' names in place of their ids.
func (n *network) logs(most int) []string {
	var names []string
	for i, d := range n.nodes {
		name := fmt.Sprintf("node%d", i+1)
		names = append(names, d.info.PeerID, name)
		if id := d.info.PeerID; len(id) > 8 { // as lines on blocks have it
			names = append(names, id[:4]+"…"+id[len(id)-4:], name)
		}
	}
	named := strings.NewReplacer(names...)
	type entry struct{ at, text string }
	var all []entry
	for i, d := range n.nodes {
		for _, line := range lastLines(d.log, maxTail) {
			at, rest, ok := strings.Cut(line, " ")
			_, clock, dated := strings.Cut(at, "T")
			if !ok || !dated {
				continue // the end of a message of several lines
			}
			rest = longHex.ReplaceAllStringFunc(named.Replace(rest), short)
			all = append(all, entry{at, fmt.Sprintf("  node%d %s %s", i+1, clock, rest)})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return strings.Compare(a.at, b.at) })
	var lines []string
	for _, e := range all[max(0, len(all)-max(most, 0)):] {
		lines = append(lines, e.text)
	}
	return lines
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
