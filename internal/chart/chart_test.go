package chart_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"dunlin/internal/chart"
)

// checked fails unless the drawing is well-formed, has nothing outside of itself and only finite coordinates.
func checked(t *testing.T, svg []byte) string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			if e.Name.Local == "script" || e.Name.Local == "image" || e.Name.Local == "use" {
				t.Errorf("element %s", e.Name.Local)
			}
			for _, a := range e.Attr {
				if a.Name.Local == "id" || a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
					t.Errorf("attribute %s=%q", a.Name.Local, a.Value)
				}
			}
		}
	}
	text := string(svg)
	for _, bad := range []string{"NaN", "Inf", "e+"} {
		if strings.Contains(text, bad) {
			t.Errorf("%s in the drawing:\n%s", bad, text)
		}
	}
	return text
}

// paths returns the d attributes of paths of a class.
func paths(svg, class string) (out []string) {
	for _, m := range regexp.MustCompile(`<path class="`+class+`" d="([^"]*)"`).FindAllStringSubmatch(svg, -1) {
		out = append(out, m[1])
	}
	return out
}

func line(points ...chart.Point) *chart.Line {
	return &chart.Line{Series: []chart.Series{{Name: "a", Points: points}}}
}

// TestLineDrawsWhatThereIs: values become points of one path in order; what cannot be shown is a gap, and a point alone between two gaps a dot.
func TestLineDrawsWhatThereIs(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name         string
		line         *chart.Line
		moves, draws int // commands in the path
		dots         int
	}{
		{"plain", line(chart.Point{X: 0, Y: 1}, chart.Point{X: 1, Y: 2}, chart.Point{X: 2, Y: 3}), 1, 2, 0},
		{"a gap", line(chart.Point{X: 0, Y: 1}, chart.Point{X: 1, Y: 2}, chart.Point{X: 2, Y: nan}, chart.Point{X: 3, Y: 4}, chart.Point{X: 4, Y: 4}), 2, 2, 0},
		{"alone", line(chart.Point{X: 0, Y: 1}, chart.Point{X: 1, Y: nan}, chart.Point{X: 2, Y: 2}, chart.Point{X: 3, Y: math.Inf(1)}, chart.Point{X: 4, Y: 4}), 3, 0, 3},
		{"one value", line(chart.Point{X: 5, Y: 7}), 1, 0, 1},
		{"one value many times", line(chart.Point{X: 0, Y: 1e12}, chart.Point{X: 1, Y: 1e12}), 1, 1, 0},
		{"zero", line(chart.Point{X: 0, Y: 0}, chart.Point{X: 1, Y: 0}), 1, 1, 0},
		{"negative", line(chart.Point{X: -3, Y: -5}, chart.Point{X: 1, Y: -4}), 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			svg := checked(t, c.line.SVG())
			d := paths(svg, "l s0")
			if len(d) != 1 || strings.Count(d[0], "M") != c.moves || strings.Count(d[0], "L") != c.draws {
				t.Errorf("paths %q, want one of %d moves and %d lines", d, c.moves, c.draws)
			}
			if dots := strings.Count(svg, "<circle"); dots != c.dots {
				t.Errorf("%d dots, want %d", dots, c.dots)
			}
		})
	}
	for name, l := range map[string]*chart.Line{
		"nothing": {}, "no points": line(), "only NaN": line(chart.Point{Y: nan}),
		"nothing above zero on a logarithm": {Y: chart.Axis{Log: true}, Series: []chart.Series{{Points: []chart.Point{{X: 1, Y: 0}, {X: 2, Y: -1}}}}},
	} {
		if svg := checked(t, l.SVG()); !strings.Contains(svg, ">no data<") {
			t.Errorf("%s: the chart does not say that there is no data", name)
		}
	}
}

// TestLineIsThinnedOut: a million points cost what the pixels cost, and the one spike among them is still seen.
func TestLineIsThinnedOut(t *testing.T) {
	const many = 1_000_000
	points := make([]chart.Point, many)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range points {
		points[i] = chart.Point{X: float64(i), Y: r.Float64()}
	}
	points[many/3].Y = 10
	svg := checked(t, line(points...).SVG())
	if len(svg) > 100_000 {
		t.Errorf("%d bytes", len(svg))
	}
	least := math.Inf(1) // y of the highest point drawn
	for _, m := range regexp.MustCompile(`[ML][0-9.]+ ([0-9.]+)`).FindAllStringSubmatch(paths(svg, "l s0")[0], -1) {
		y, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, y)
	}
	// The axis ends at 10: the spike is at its top tick.
	top := regexp.MustCompile(`<path class="g" d="M[0-9.]+ ([0-9.]+)`).FindAllStringSubmatch(svg, -1)
	if want := top[len(top)-1][1]; strconv.FormatFloat(least, 'f', -1, 64) != want {
		t.Errorf("the highest point is at %v, the spike would be at %s", least, want)
	}
}

func TestSteps(t *testing.T) {
	l := line(chart.Point{X: 0, Y: 1}, chart.Point{X: 1, Y: 1}, chart.Point{X: 2, Y: 3})
	l.Steps = true
	d := paths(checked(t, l.SVG()), "l s0")[0]
	if !regexp.MustCompile(`^M[0-9. ]+H[0-9.]+H[0-9.]+V[0-9.]+$`).MatchString(d) {
		t.Errorf("path %q: want along, along, up", d)
	}
}

// TestTextIsEscaped: names come from peers and files.
func TestTextIsEscaped(t *testing.T) {
	evil := `</text><script>alert("1")</script>&'` + "\xff\x00"
	l := &chart.Line{
		Title: evil, Note: evil, X: chart.Axis{Label: evil}, Y: chart.Axis{Label: evil},
		Series: []chart.Series{{Name: evil, Points: []chart.Point{{X: 1, Y: 1}, {X: 2, Y: 2}}}, {Name: evil}},
		Marks:  []chart.Mark{{X: 1.5, Label: evil}}, Spans: []chart.Span{{From: 1, To: 2, Label: evil}},
	}
	checked(t, l.SVG())
	b := &chart.Bars{
		Title: evil, Note: evil, Axis: chart.Axis{Label: evil}, Kinds: []string{evil, evil}, Target: evil,
		Groups:     []chart.Group{{Label: evil, Bars: []chart.Bar{{Value: 1, Text: evil}, {Value: 2}}, Target: 1.5}},
		References: []chart.Reference{{Value: 1, Label: evil}},
	}
	checked(t, b.SVG())
}

func ticks(svg string) (out []string) {
	for _, m := range regexp.MustCompile(`<text x="[0-9.]+" y="[0-9.]+" text-anchor="(?:end|middle)">([^<]*)</text>`).FindAllStringSubmatch(svg, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestTicks: round values that a reader expects.
func TestTicks(t *testing.T) {
	two := func(a, b float64) []chart.Series {
		return []chart.Series{{Points: []chart.Point{{X: a, Y: 1}, {X: b, Y: 1}}}}
	}
	for _, c := range []struct {
		name     string
		axis     chart.Axis
		from, to float64
		want     string // the last ticks: those of x stand behind those of y
	}{
		{"small", chart.Axis{}, 0, 0.05, "0.00 0.01 0.02 0.03 0.04 0.05"},
		{"thousands", chart.Axis{}, 0, 50_000, "0 10k 20k 30k 40k 50k"},
		{"seconds", chart.Axis{Seconds: true}, 0, 60, "0 10 s 20 s 30 s 40 s 50 s 1:00 min"},
		{"minutes", chart.Axis{Seconds: true}, 0, 600, "0 2 min 4 min 6 min 8 min 10 min"},
		{"hours", chart.Axis{Seconds: true}, 0, 6 * 3600, "0 1 h 2 h 3 h 4 h 5 h 6 h"},
		{"a logarithm", chart.Axis{Log: true}, 1, 1000, "1 10 100 1,000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &chart.Line{X: c.axis, Series: two(c.from, c.to)}
			if got := strings.Join(ticks(checked(t, l.SVG())), " "); !strings.HasSuffix(got, c.want) {
				t.Errorf("ticks %q, want %q at the end", got, c.want)
			}
		})
	}
}

// TestBars: a bar is as long as its value, from the base; ranges, targets and dashes are there.
func TestBars(t *testing.T) {
	b := &chart.Bars{
		Kinds: []string{"ours", "theirs"}, Target: "asked for",
		Groups: []chart.Group{
			{Label: "one", Bars: []chart.Bar{{Value: 100, Least: 90, Most: 120}, {Value: 50}}, Target: 80},
			{Label: "two", Bars: []chart.Bar{{Value: 25, Text: "a quarter"}, {Value: math.NaN()}}},
		},
	}
	svg := checked(t, b.SVG())
	width := func(tip string) float64 {
		m := regexp.MustCompile(`width="([0-9.]+)" height="14" rx="2"><title>` + regexp.QuoteMeta(tip)).FindStringSubmatch(svg)
		if m == nil {
			t.Fatalf("no bar with the tooltip %q in\n%s", tip, svg)
		}
		w, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	full, half, quarter := width("one, ours: 100"), width("one, theirs: 50"), width("two, ours: a quarter")
	if math.Abs(full/half-2) > 0.01 || math.Abs(full/quarter-4) > 0.01 {
		t.Errorf("bars of %v, %v and %v pixels for 100, 50 and 25", full, half, quarter)
	}
	if got := len(paths(svg, "w")); got != 1 {
		t.Errorf("%d ranges, want 1", got)
	}
	if got := len(paths(svg, "m")); got != 2 { // one of them in the legend
		t.Errorf("%d targets, want 1 and its key", got)
	}
	if !strings.Contains(svg, ">–<") {
		t.Error("no dash for what is not known")
	}

	// Against a base both directions are drawn: half and twice are equally long on a logarithm.
	b = &chart.Bars{Axis: chart.Axis{Log: true}, Base: 1, Groups: []chart.Group{{Label: "x", Bars: []chart.Bar{{Value: 2}}}, {Label: "y", Bars: []chart.Bar{{Value: 0.5}}}}}
	svg = checked(t, b.SVG())
	if up, down := width("x: 2"), width("y: 0.5"); math.Abs(up-down) > 0.2 {
		t.Errorf("bars of %v and %v pixels for 2 and 0.5", up, down)
	}
	checked(t, new(chart.Bars).SVG())
}

// TestSameBytes: a chart kept in a repository changes only with its figures.
func TestSameBytes(t *testing.T) {
	a, b := demoLine().SVG(), demoLine().SVG()
	if !bytes.Equal(a, b) || !bytes.Equal(demoBars().SVG(), demoBars().SVG()) {
		t.Error("two drawings of the same figures differ")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.5: "0.5", 3.14159: "3.14", 12.34: "12.3", 123.4: "123", 1234: "1,234", -1234567: "-1,234,567", 0.0312: "0.031", 0.3812: "0.381", 99.96: "100", math.Inf(1): "–",
	} {
		if got := chart.Number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

// FuzzCharts: whatever the numbers, the drawing is well-formed and finite.
func FuzzCharts(f *testing.F) {
	f.Add(1.0, 2.0, 3.0, uint8(0), "x")
	f.Add(math.NaN(), math.Inf(1), -1e300, uint8(7), "<")
	f.Add(1e-320, 1e308, 0.0, uint8(255), "&")
	f.Fuzz(func(t *testing.T, a, b, c float64, kind uint8, text string) {
		x := chart.Axis{Label: text, Log: kind&1 > 0, Seconds: kind&2 > 0, Zero: kind&4 > 0}
		y := chart.Axis{Log: kind&8 > 0, Zero: kind&16 > 0, Most: b}
		l := &chart.Line{Title: text, X: x, Y: y, Steps: kind&32 > 0, Width: int(kind), Series: []chart.Series{{Name: text, Points: []chart.Point{{X: a, Y: b}, {X: b, Y: c}, {X: c, Y: a}}}}}
		wellFormed(t, l.SVG())
		bars := &chart.Bars{Title: text, Axis: y, Base: a, Groups: []chart.Group{{Label: text, Bars: []chart.Bar{{Value: a, Least: b, Most: c}, {Value: b}}, Target: c}}}
		wellFormed(t, bars.SVG())
	})
}

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, svg)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range e.Attr {
			switch a.Name.Local {
			case "x", "y", "width", "height", "cx", "cy", "d":
				if strings.ContainsAny(a.Value, "NIe") {
					t.Fatalf("%s=%q", a.Name.Local, a.Value)
				}
			}
		}
	}
}

func demoLine() *chart.Line {
	l := &chart.Line{
		Title: "Heights of ten nodes", Note: "One line a node; seed 1, ten processes on this machine.",
		X: chart.Axis{Label: "since the start", Seconds: true}, Y: chart.Axis{Label: "height", Zero: true}, Steps: true,
		Marks: []chart.Mark{{X: 60, Label: "kill -9 node 3"}, {X: 290, Label: "end of chaos"}}, Spans: []chart.Span{{From: 120, To: 180, Label: "partition"}},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 10 {
		s := chart.Series{Name: "node " + strconv.Itoa(n)}
		h := 0.0
		for x := 0.0; x < 300; x++ {
			h += math.Floor(r.Float64() * 1.2)
			y := h
			if n == 3 && x > 60 && x < 75 {
				y = math.NaN()
			}
			s.Points = append(s.Points, chart.Point{X: x, Y: y})
		}
		l.Series = append(l.Series, s)
	}
	return l
}

func demoBars() *chart.Bars {
	return &chart.Bars{
		Title: "How many times as fast as btcd", Note: "Medians of turns, with the least and the greatest ratio; btcd v0.26.2 on the same blocks and machine.",
		Axis: chart.Axis{Log: true, Label: "times btcd's speed"}, Base: 1, Target: "asked for", References: []chart.Reference{{Value: 1, Label: "btcd"}},
		Groups: []chart.Group{
			{Label: "20,000 empty blocks, 1 peer", Bars: []chart.Bar{{Value: 10.9, Least: 9.4, Most: 13.1, Text: "10.9×"}}, Target: 3},
			{Label: "246 MB in 672 blocks, 1 peer", Bars: []chart.Bar{{Value: 3.2, Least: 3.1, Most: 3.5, Text: "3.2×"}}, Target: 1.5},
			{Label: "slower", Bars: []chart.Bar{{Value: 0.7}}},
		},
	}
}

// TestDemo writes two charts to look at into the folder that DUNLIN_CHARTS names.
func TestDemo(t *testing.T) {
	dir := os.Getenv("DUNLIN_CHARTS")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, svg := range map[string][]byte{"line.svg": demoLine().SVG(), "bars.svg": demoBars().SVG()} {
		checked(t, svg)
		if err := os.WriteFile(filepath.Join(dir, name), svg, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
