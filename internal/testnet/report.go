package testnet

import (
	_ "embed"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dunlin/internal/chart"
)

//go:embed report.html
var reportPage string

const (
	verdictFile = "verdict.json"
	// ReportFile is the name of a report in the folder of its testnet.
	ReportFile = "report.html"

	// A block that comes later than this to a node came while it caught up, or healed: that is no flooding.
	maxPropagation = 30 * time.Second
	maxEventRows   = 500
	chartWidth     = 900
	maxFloodPoints = 150 // more would be a solid band
)

// A page is what a report shows. Its charts are markup, all else is text.
type page struct {
	Title, Made string
	Facts       [][2]string
	Passed      bool // of the verdict, if there is one
	Verdict     []string
	Charts      []string
	Nodes       [][]string
	Events      []eventRow
	Hidden      int // events that are not listed
}

type eventRow struct{ At, Kind, What, Took, Err string }

// Report draws what a testnet did as one HTML page that needs nothing else: samples of its supervisor, the logs of its nodes,
// and what chaos did. The testnet may be up or down.
func Report(s *Spec) ([]byte, error) {
	var samples []Sample
	if err := readLines(s.file(samplesFile), func(x Sample) { samples = append(samples, x) }); err != nil {
		return nil, fmt.Errorf("report: samples: %w", err)
	}
	if len(samples) == 0 {
		return nil, fmt.Errorf("report: no samples in %s: they are taken by dunlin testnet up", s.dir)
	}
	from := time.UnixMilli(samples[0].At)
	to := time.UnixMilli(samples[len(samples)-1].At)
	var done []Done
	if err := readLines(s.file(chaosFile), func(d Done) { done = append(done, d) }); err != nil {
		return nil, fmt.Errorf("report: events: %w", err)
	}
	slices.SortStableFunc(done, func(a, b Done) int { return int(a.Began - b.Began) })
	stories := make([]history, len(s.Nodes))
	for i := range s.Nodes {
		var err error
		if stories[i], err = readStory(s.log(i + 1)); err != nil {
			return nil, fmt.Errorf("report: log of node %d: %w", i+1, err)
		}
	}
	flood := propagation(stories, from)
	p := page{
		Title: fmt.Sprintf("Testnet of %d nodes", len(s.Nodes)),
		Made:  from.UTC().Format("2006-01-02 15:04:05") + " to " + to.UTC().Format("15:04:05 UTC"),
		Facts: s.facts(samples, flood, to.Sub(from)),
		Nodes: nodeRows(s, samples, stories),
	}
	var v Verdict
	switch err := readJSON(s.file(verdictFile), maxSpecBytes, &v); {
	case err == nil:
		p.Verdict, p.Passed = v.Lines(), len(v.Faults) == 0
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("report: %w", err)
	}
	d := drawing{samples: samples, from: samples[0].At, nodes: len(s.Nodes), done: done}
	p.Charts = append(p.Charts,
		d.line("Height", "Validated tip of each node. Shaded: a partition.", "block", true, func(n NodeSample) float64 { return up(n, float64(n.Height)) }),
		d.line("Lag", "Blocks behind the highest node, from when all had caught up for the first time.", "blocks", true, d.lag()))
	if len(done) > 0 {
		p.Charts = append(p.Charts, d.timeline())
	}
	p.Charts = append(p.Charts, flood.overTime(d.from), flood.byNode(len(s.Nodes)))
	p.Charts = append(p.Charts,
		d.spread("Peers", "Connections of a node: of those that answered, who had most, half of them, and who had fewest.", "peers", func(n NodeSample) float64 { return float64(n.Peers) }),
		d.spread("Mempool", "Unconfirmed transactions at a node, likewise.", "transactions", func(n NodeSample) float64 { return float64(n.Mempool) }),
		d.line("Memory", "Resident memory of each process; it begins anew with each restart.", "MiB", false, func(n NodeSample) float64 { return known(float64(n.Memory) / (1 << 20)) }),
		d.line("Live heap", "What the last garbage collection of each process found alive.", "MiB", false, func(n NodeSample) float64 { return known(float64(n.Heap) / (1 << 20)) }),
		d.line("Goroutines", "", "", false, func(n NodeSample) float64 { return known(float64(n.Goroutines)) }),
		d.line("Open files", "", "", false, func(n NodeSample) float64 { return known(float64(n.FDs)) }))
	for _, e := range done[:min(len(done), maxEventRows)] {
		row := eventRow{At: clock(e.Began - d.from), Kind: e.Kind, What: e.String(), Err: e.Err}
		if e.Took > 0 {
			row.Took = fmt.Sprintf("%.2f s", e.Took.Seconds())
		}
		p.Events = append(p.Events, row)
	}
	p.Hidden = len(done) - len(p.Events)
	return p.render(), nil
}

// render fills the page. Not by html/template: what that may call by name keeps the linker from leaving out what nobody
// calls, and the program would be 7 MB larger.
func (p *page) render() []byte {
	var facts, verdict, charts, nodes, events strings.Builder
	for _, f := range p.Facts {
		facts.WriteString(tag("dt", f[0]) + tag("dd", f[1]))
	}
	if len(p.Verdict) > 0 {
		class, word := "bad", "failed"
		if p.Passed {
			class, word = "good", "passed"
		}
		fmt.Fprintf(&verdict, `<h2>Chaos: <span class="%s">%s</span></h2><section>%s</section>`, class, word, tag("pre", strings.Join(p.Verdict, "\n")+"\n"))
	}
	for _, svg := range p.Charts {
		charts.WriteString("<figure>" + svg + "</figure>\n")
	}
	for _, row := range p.Nodes {
		nodes.WriteString("<tr>")
		for _, cell := range row {
			nodes.WriteString(tag("td", cell))
		}
		nodes.WriteString("</tr>")
	}
	if len(p.Events) > 0 {
		fmt.Fprintf(&events, "<h2>Events</h2>\n<section><details><summary>%d events", len(p.Events))
		if p.Hidden > 0 {
			fmt.Fprintf(&events, ", %d more are left out", p.Hidden)
		}
		events.WriteString("</summary>\n<table><thead><tr><th>at</th><th>kind</th><th>what</th><th>restart</th><th>fault</th></tr></thead>\n<tbody>")
		for _, e := range p.Events {
			events.WriteString("<tr>" + tag("td", e.At) + tag("td", e.Kind) + tag("td", e.What) + tag("td", e.Took) +
				`<td class="bad">` + html.EscapeString(e.Err) + "</td></tr>")
		}
		events.WriteString("</tbody></table></details></section>")
	}
	return []byte(strings.NewReplacer(
		"{{title}}", html.EscapeString(p.Title), "{{made}}", html.EscapeString(p.Made), "{{facts}}", facts.String(),
		"{{verdict}}", verdict.String(), "{{charts}}", charts.String(), "{{nodes}}", nodes.String(), "{{events}}", events.String(),
	).Replace(reportPage))
}

// tag is an element with a text in it.
func tag(name, text string) string {
	return "<" + name + ">" + html.EscapeString(text) + "</" + name + ">"
}

// WriteReport writes the page by rename; an empty path is report.html in the folder of the testnet. It returns the path.
func WriteReport(s *Spec, path string) (string, error) {
	raw, err := Report(s)
	if err != nil {
		return "", err
	}
	if path == "" {
		path = s.file(ReportFile)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	if err := writeFile(path, raw); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return path, nil
}

// up is a value of a node that answered; of any other there is none.
func up(n NodeSample, v float64) float64 {
	if n.State != "" {
		return math.NaN()
	}
	return v
}

// known is a value that is not asked for each time; 0 is none.
func known(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

func clock(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	return fmt.Sprintf("%d:%04.1f", int(d.Minutes()), math.Mod(d.Seconds(), 60))
}

// facts are the testnet in a few words.
func (s *Spec) facts(samples []Sample, flood *flooded, lasted time.Duration) [][2]string {
	height := int32(0)
	for _, n := range samples[len(samples)-1].Nodes {
		height = max(height, n.Height)
	}
	out := [][2]string{
		{"nodes", fmt.Sprintf("%d, of which %d make blocks", len(s.Nodes), len(s.miners()))},
		{"engine", map[string]string{"pow": "proof of work", "pos": "proof of stake"}[s.Engine] + ", a block every " + s.Spacing.String()},
		{"topology", fmt.Sprintf("%s, %d links", s.Topology, len(s.links()))},
		{"transactions", fmt.Sprintf("%g a second", s.TxRate)},
		{"recorded", lasted.Round(time.Second).String()},
		{"height", fmt.Sprint(height)},
	}
	if len(flood.blocks) > 0 {
		out = append(out, [2]string{"propagation", fmt.Sprintf("a block reaches half of the nodes in %s, the last one in %s (medians of %d blocks)",
			seconds(flood.median(func(b flooding) float64 { return b.after(0.5) })), seconds(flood.median(func(b flooding) float64 { return b.after(1) })), len(flood.blocks))})
	}
	return out
}

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0f ms", s*1000)
	}
	return fmt.Sprintf("%.1f s", s)
}

// nodeRows is the table of the nodes: the last that is known of each.
func nodeRows(s *Spec, samples []Sample, stories []history) (rows [][]string) {
	last := make([]NodeSample, len(s.Nodes)+1)
	peak := make([]int64, len(s.Nodes)+1)
	for _, x := range samples {
		for _, n := range x.Nodes {
			if n.ID >= 1 && n.ID <= len(s.Nodes) {
				if n.State == NodeDown || n.State == NodeSilent { // what it was when it was last heard of
					n.Height, n.Tip = last[n.ID].Height, last[n.ID].Tip
				}
				last[n.ID] = n
				peak[n.ID] = max(peak[n.ID], n.Memory)
			}
		}
	}
	for _, n := range s.Nodes {
		role := ""
		if n.Mines {
			role = "makes blocks"
		}
		var linked []int
		for _, l := range s.links() {
			switch n.ID {
			case l[0]:
				linked = append(linked, l[1])
			case l[1]:
				linked = append(linked, l[0])
			}
		}
		slices.Sort(linked)
		links := make([]string, len(linked))
		for i, id := range linked {
			links[i] = fmt.Sprint(id)
		}
		state := cmpOr(last[n.ID].State, NodeUp)
		own, deepest := 0, 0
		for _, b := range stories[n.ID-1].blocks {
			if b.own {
				own++
			}
		}
		for _, r := range stories[n.ID-1].reorgs {
			deepest = max(deepest, r.depth)
		}
		rows = append(rows, []string{
			fmt.Sprint(n.ID), role, strings.Join(links, ", "), state, fmt.Sprint(last[n.ID].Height), last[n.ID].Tip,
			fmt.Sprint(len(stories[n.ID-1].openings)), fmt.Sprint(own), fmt.Sprintf("%d (%d)", len(stories[n.ID-1].reorgs), deepest),
			fmt.Sprintf("%d MiB", peak[n.ID]>>20),
		})
	}
	return rows
}

// drawing is what the charts over time have in common.
type drawing struct {
	samples []Sample
	from    int64
	nodes   int
	done    []Done
}

func (d *drawing) at(ms int64) float64 { return float64(ms-d.from) / 1000 }

// line draws a value of each node over time. NaN leaves a gap where the node was down, and is passed over where a value is
// merely not asked for with each sample.
func (d *drawing) line(title, note, unit string, gaps bool, of func(NodeSample) float64) string {
	l := d.overTime(title, note, unit)
	l.Steps = gaps
	series := make([]chart.Series, d.nodes)
	for i := range series {
		series[i].Name = fmt.Sprintf("node %d", i+1)
	}
	for _, s := range d.samples {
		for _, n := range s.Nodes {
			if n.ID < 1 || n.ID > d.nodes {
				continue
			}
			if y := of(n); gaps || !math.IsNaN(y) || n.State != "" {
				series[n.ID-1].Points = append(series[n.ID-1].Points, chart.Point{X: d.at(s.At), Y: y})
			}
		}
	}
	l.Series = series
	return string(l.SVG())
}

// overTime is an empty chart over the time of the samples, with the partitions shaded.
func (d *drawing) overTime(title, note, unit string) chart.Line {
	l := chart.Line{
		Title: title, Note: note, X: chart.Axis{Seconds: true, Label: "time since the start"}, Y: chart.Axis{Label: unit, Zero: true}, Width: chartWidth,
	}
	for _, e := range d.done {
		if e.Kind == KindPartition {
			l.Spans = append(l.Spans, chart.Span{From: d.at(e.Began), To: d.at(e.Ended)})
		}
	}
	return l
}

// spread draws the most, the median and the least of a value among the nodes that are up: where it changes by the second, a line
// for each node would hide the others.
func (d *drawing) spread(title, note, unit string, of func(NodeSample) float64) string {
	l := d.overTime(title, note, unit)
	l.Steps = true
	l.Series = []chart.Series{{Name: "most"}, {Name: "median"}, {Name: "fewest"}}
	for _, s := range d.samples {
		var all []float64
		for _, n := range s.Nodes {
			if n.State == "" {
				all = append(all, of(n))
			}
		}
		for i := range l.Series {
			y := math.NaN()
			if len(all) > 0 {
				y = []float64{slices.Max(all), median(all), slices.Min(all)}[i]
			}
			l.Series[i].Points = append(l.Series[i].Points, chart.Point{X: d.at(s.At), Y: y})
		}
	}
	return string(l.SVG())
}

// lag is how far a node was behind the best of its sample.
func (d *drawing) lag() func(NodeSample) float64 {
	i, seen := 0, 0
	together := false // all were, at some time
	best := func(s Sample) (h int32) {
		for _, n := range s.Nodes {
			h = max(h, n.Height)
		}
		return h
	}
	// line goes over the samples in order, and over all nodes of each.
	return func(n NodeSample) float64 {
		for i < len(d.samples) && seen == len(d.samples[i].Nodes) {
			i, seen = i+1, 0
		}
		seen++
		top := best(d.samples[i])
		together = together || !slices.ContainsFunc(d.samples[i].Nodes, func(n NodeSample) bool { return n.State != "" || n.Height < top-1 })
		if !together {
			return math.NaN()
		}
		return up(n, float64(top-n.Height))
	}
}

// timeline draws what chaos did: a row a node, a bar an event.
func (d *drawing) timeline() string {
	const left, row, top = 76.0, 18.0, 68.0
	right := chartWidth - 26.0
	lasted := d.at(d.samples[len(d.samples)-1].At)
	for _, e := range d.done {
		lasted = max(lasted, d.at(e.Ended))
	}
	lasted = max(lasted, 1)
	x := func(ms int64) float64 { return left + (right-left)*min(max(d.at(ms)/lasted, 0), 1) }
	bottom := top + row*float64(d.nodes)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="dc" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" aria-label="What chaos did to each node">`, chartWidth, int(bottom+44))
	fmt.Fprintf(&b, `<rect class="bg" width="%d" height="%d" rx="6"/><text class="t" x="16" y="29">What chaos did</text>`, chartWidth, int(bottom+44))
	kx := 16.0
	for i, k := range Kinds {
		fmt.Fprintf(&b, `<rect class="b s%d" x="%.1f" y="40" width="12" height="12" rx="2"/><text x="%.1f" y="50">%s</text>`, i, kx, kx+18, k)
		kx += 90
	}
	for i := range d.nodes {
		y := top + row*float64(i)
		fmt.Fprintf(&b, `<path class="g" d="M%.1f %.1fH%.1f"/><text x="%.1f" y="%.1f" text-anchor="end">node %d</text>`, left, y+row/2, right, left-8, y+row/2+4, i+1)
	}
	for _, e := range d.done {
		kind := slices.Index(Kinds, e.Kind)
		for _, id := range e.Nodes {
			if kind < 0 || id < 1 || id > d.nodes {
				continue
			}
			fmt.Fprintf(&b, `<rect class="b s%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2"><title>%s: %s</title></rect>`,
				kind, x(e.Began), top+row*float64(id-1)+3, max(2, x(e.Ended)-x(e.Began)), row-6, clock(e.Began-d.from), html.EscapeString(e.String()))
		}
	}
	step, unit, name := timeTicks(lasted)
	for at := 0.0; at <= lasted; at += step {
		label := "0"
		if at > 0 {
			label = fmt.Sprintf("%g %s", at/unit, name)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, left+(right-left)*at/lasted, bottom+20, label)
	}
	b.WriteString("</svg>")
	return b.String()
}

// timeTicks is how far apart the marks of an axis of so many seconds are, in seconds, and in which unit they are told.
func timeTicks(lasted float64) (step, unit float64, name string) {
	const most = 9
	for _, step = range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200} {
		if lasted/step <= most {
			break
		}
	}
	for lasted/step > most {
		step *= 2
	}
	switch {
	case step < 60:
		return step, 1, "s"
	case step < 3600:
		return step, 60, "min"
	}
	return step, 3600, "h"
}

// flooded is how blocks went through the nodes.
type flooded struct{ blocks []flooding }

// A flooding is one block: when it was first seen, and how long after that each node had it, in seconds, in order.
type flooding struct {
	first  time.Time
	delays []float64
}

// after is when a share of the nodes that had the block had it.
func (f flooding) after(share float64) float64 {
	return f.delays[max(0, int(math.Ceil(share*float64(len(f.delays))))-1)]
}

// propagation gathers when each block came to each node, from a time on. Blocks that one node alone had are left out.
func propagation(stories []history, from time.Time) *flooded {
	type key struct {
		height int32
		hash   string
	}
	seen := map[key]map[int]time.Time{}
	for i, h := range stories {
		for _, b := range h.blocks {
			k := key{b.height, b.hash}
			if b.at.Before(from) {
				continue
			}
			if seen[k] == nil {
				seen[k] = map[int]time.Time{}
			}
			if at, again := seen[k][i]; !again || b.at.Before(at) {
				seen[k][i] = b.at
			}
		}
	}
	out := &flooded{}
	for _, nodes := range seen {
		var f flooding
		for _, at := range nodes {
			if f.first.IsZero() || at.Before(f.first) {
				f.first = at
			}
		}
		for _, at := range nodes {
			if d := at.Sub(f.first); d <= maxPropagation {
				f.delays = append(f.delays, d.Seconds())
			}
		}
		if len(f.delays) > 1 {
			slices.Sort(f.delays)
			out.blocks = append(out.blocks, f)
		}
	}
	slices.SortFunc(out.blocks, func(a, b flooding) int { return a.first.Compare(b.first) })
	return out
}

func (f *flooded) median(of func(flooding) float64) float64 {
	var all []float64
	for _, b := range f.blocks {
		all = append(all, of(b))
	}
	return median(all)
}

// least is what is shown of a delay below the resolution of a log.
const least = 0.001

func (f *flooded) overTime(from int64) string {
	together := max(1, (len(f.blocks)+maxFloodPoints-1)/maxFloodPoints)
	l := chart.Line{
		Title: "Propagation of blocks", Note: "From the first node that had a block until half of the nodes, nine in ten and the last one had it, by the times in their logs. What came after 30 s came by catching up and is left out.",
		X: chart.Axis{Seconds: true, Label: "time since the start"}, Y: chart.Axis{Label: "seconds", Log: true}, Width: chartWidth,
	}
	if together > 1 {
		l.Note += fmt.Sprintf(" Each point is the median of %d blocks.", together)
	}
	for _, share := range []struct {
		name string
		of   float64
	}{{"half", 0.5}, {"nine in ten", 0.9}, {"last", 1}} {
		s := chart.Series{Name: share.name}
		for some := range slices.Chunk(f.blocks, together) {
			of := flooded{some}
			s.Points = append(s.Points, chart.Point{
				X: float64(some[len(some)/2].first.UnixMilli()-from) / 1000, Y: max(of.median(func(b flooding) float64 { return b.after(share.of) }), least),
			})
		}
		l.Series = append(l.Series, s)
	}
	return string(l.SVG())
}

// byNode is the delay until the k-th node, over all blocks that came to so many.
func (f *flooded) byNode(nodes int) string {
	l := chart.Line{
		Title: "Until the k-th node has a block", Note: "Over all blocks that came to at least k nodes.",
		X: chart.Axis{Label: "k"}, Y: chart.Axis{Label: "seconds", Log: true}, Width: chartWidth,
		Series: []chart.Series{{Name: "half of the blocks"}, {Name: "nine in ten"}, {Name: "all but one in a hundred"}},
	}
	for k := 2; k <= nodes; k++ {
		var all []float64
		for _, b := range f.blocks {
			if len(b.delays) >= k {
				all = append(all, b.delays[k-1])
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.Sort(all)
		for i, share := range []float64{0.5, 0.9, 0.99} {
			y := all[max(0, int(math.Ceil(share*float64(len(all))))-1)]
			l.Series[i].Points = append(l.Series[i].Points, chart.Point{X: float64(k), Y: max(y, least)})
		}
	}
	return string(l.SVG())
}
