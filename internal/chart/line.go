package chart

import (
	"fmt"
	"math"
	"strings"
)

// A Point is one value of a series.
type Point struct{ X, Y float64 }

// A Series is one line, its points in the order of X. More of them than the chart has pixels are thinned out so that least and greatest stay.
type Series struct {
	Name   string
	Points []Point
}

// A Mark is an event: a vertical line with a label.
type Mark struct {
	X     float64
	Label string
}

// A Span is a time in which something lasted: a shaded band with a label.
type Span struct {
	From, To float64
	Label    string
}

// A Line is a chart of lines.
type Line struct {
	Title string
	Note  string // below the title: what was measured, where, how
	X, Y  Axis
	// Series have a colour each, and from the ninth on dashes. One alone has no legend.
	Series []Series
	Marks  []Mark
	Spans  []Span
	// Steps draws values that hold until the next one, such as heights, as stairs.
	Steps bool
	// Width and Height are in pixels; 0: 760 and 340. The least is 240 by 120.
	Width, Height int
}

// SVG draws the chart.
func (l *Line) SVG() []byte {
	width, height := size(l.Width, defaultWidth, 240), size(l.Height, defaultHeight, 120)
	var c canvas
	c.open(width, height, l.Title, l.Note)
	y := c.head(width, l.Title, l.Note)
	var keys []key
	if len(l.Series) > 1 {
		for i, s := range l.Series {
			keys = append(keys, key{s.Name, lineClass(i), true})
		}
	}
	y = c.legend(y, width, keys)
	if l.Y.Label != "" {
		y += textLine
		c.text(edge, y-2, "", "start", l.Y.Label)
	}
	labelled := false
	for _, m := range l.Marks {
		labelled = labelled || m.Label != ""
	}
	for _, s := range l.Spans {
		labelled = labelled || s.Label != ""
	}
	if labelled {
		y += textLine - 4
	}
	top, bottom := y+8, height-edge-textLine
	if l.X.Label != "" {
		bottom -= textLine
	}
	bottom = max(bottom, top+20)

	ys := l.Y.scale(l.values(func(p Point) float64 { return p.Y }), bottom, top, max(2, int((bottom-top)/44)))
	left := 0.0
	for _, t := range ys.ticks {
		left = max(left, textWidth(t.label, textSize))
	}
	left += edge + 8
	right := width - edge - 10
	xAxis := l.X
	xs := xAxis.scale(l.values(func(p Point) float64 { return p.X }), left, right, max(2, int((right-left)/90)))
	if !xAxis.Log { // times end where the data does, not at a whole step
		xs.fit(&xAxis, l.values(func(p Point) float64 { return p.X }))
	}

	for _, s := range l.Spans {
		from, to := clamp(xs.at(s.From), left, right), clamp(xs.at(s.To), left, right)
		if xAxis.shows(s.From) && xAxis.shows(s.To) && to > from {
			c.rect(from, top, to-from, bottom-top, "z", s.Label)
			c.text((from+to)/2, top-6, "", middleOf((from+to)/2, s.Label, left, right), s.Label)
		}
	}
	for _, t := range ys.ticks {
		c.line(left, ys.at(t.value), right, ys.at(t.value), "g")
		c.text(left-8, ys.at(t.value)+4, "", "end", t.label)
	}
	c.line(left, bottom, right, bottom, "a")
	for _, t := range xs.ticks {
		x := xs.at(t.value)
		if x < left-0.5 || x > right+0.5 {
			continue
		}
		c.line(x, bottom, x, bottom+4, "a")
		c.text(x, bottom+textLine, "", "middle", t.label)
	}
	c.text((left+right)/2, bottom+2*textLine, "", "middle", l.X.Label)
	for _, m := range l.Marks {
		x := xs.at(m.X)
		if !xAxis.shows(m.X) || x < left-0.5 || x > right+0.5 {
			continue
		}
		c.line(x, top, x, bottom, "r")
		c.text(x, top-6, "", middleOf(x, m.Label, left, right), m.Label)
	}
	drawn := false
	for i, s := range l.Series {
		drawn = c.series(i, s, l, xs, ys) || drawn
	}
	if !drawn {
		c.text((left+right)/2, (top+bottom)/2, "", "middle", "no data")
	}
	return c.close()
}

// values goes over one coordinate of all points.
func (l *Line) values(of func(Point) float64) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for _, s := range l.Series {
			for _, p := range s.Points {
				if l.X.shows(p.X) && l.Y.shows(p.Y) && !yield(of(p)) {
					return
				}
			}
		}
	}
}

// series draws one line, and says whether there was anything to draw.
func (c *canvas) series(i int, s Series, l *Line, xs, ys *scale) bool {
	var d strings.Builder
	points := thin(s.Points, l, xs)
	pen, lone, last := false, Point{}, Point{}
	run := 0 // points since the last gap
	var dots []Point
	end := func() {
		if run == 1 {
			dots = append(dots, lone)
		}
		pen, run = false, 0
	}
	for _, p := range points {
		if !l.X.shows(p.X) || !l.Y.shows(p.Y) {
			end()
			continue
		}
		at := Point{xs.at(p.X), ys.at(p.Y)}
		switch {
		case !pen:
			fmt.Fprintf(&d, "M%s %s", num(at.X), num(at.Y))
			lone = at
		case l.Steps:
			if num(at.Y) != num(last.Y) {
				fmt.Fprintf(&d, "H%sV%s", num(at.X), num(at.Y))
			} else {
				fmt.Fprintf(&d, "H%s", num(at.X))
			}
		default:
			fmt.Fprintf(&d, "L%s %s", num(at.X), num(at.Y))
		}
		pen, last = true, at
		run++
	}
	end()
	if d.Len() == 0 {
		return false
	}
	fmt.Fprintf(c, `<path class="%s" d="%s"><title>%s</title></path>`+"\n", lineClass(i), d.String(), escape(s.Name))
	for _, p := range dots {
		fmt.Fprintf(c, `<circle class="b s%d" cx="%s" cy="%s" r="2.5"/>`+"\n", i%colours, num(p.X), num(p.Y))
	}
	return true
}

// thin leaves at most four points a pixel: the first, the least, the greatest and the last one. A gap stays one.
func thin(points []Point, l *Line, xs *scale) []Point {
	wide := int(math.Abs(xs.b-xs.a)) + 1
	if len(points) <= 4*wide {
		return points
	}
	var out []Point
	flush := func(column []Point) {
		if len(column) <= 4 {
			out = append(out, column...)
			return
		}
		least, most := 0, 0
		for i, p := range column {
			if p.Y < column[least].Y {
				least = i
			}
			if p.Y > column[most].Y {
				most = i
			}
		}
		kept := -1
		for _, i := range []int{0, min(least, most), max(least, most), len(column) - 1} {
			if i != kept {
				out = append(out, column[i])
			}
			kept = i
		}
	}
	begin, pixel := 0, math.NaN()
	for i, p := range points {
		if !l.X.shows(p.X) || !l.Y.shows(p.Y) {
			flush(points[begin:i])
			if len(out) > 0 && l.Y.shows(out[len(out)-1].Y) {
				out = append(out, p)
			}
			begin, pixel = i+1, math.NaN()
			continue
		}
		if at := math.Floor(xs.at(p.X)); at != pixel {
			flush(points[begin:i])
			begin, pixel = i, at
		}
	}
	flush(points[begin:])
	return out
}

// fit narrows a scale to its values; ticks beyond them are dropped by who draws them.
func (s *scale) fit(a *Axis, values func(func(float64) bool)) {
	least, most := math.Inf(1), math.Inf(-1)
	for v := range values {
		least, most = min(least, v), max(most, v)
	}
	if least >= most {
		return
	}
	for _, v := range []float64{a.Least, a.Most} {
		if v != 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	if a.Zero {
		least, most = min(least, 0), max(most, 0)
	}
	s.from, s.to = least, most
}

func lineClass(i int) string {
	class := fmt.Sprintf("l s%d", i%colours)
	if dash := i / colours % 4; dash > 0 {
		class += fmt.Sprintf(" d%d", dash)
	}
	return class
}

// middleOf anchors a label so that it stays within the plot.
func middleOf(x float64, label string, left, right float64) string {
	half := textWidth(label, textSize) / 2
	switch {
	case x-half < left:
		return "start"
	case x+half > right:
		return "end"
	}
	return "middle"
}

func clamp(v, least, most float64) float64 { return min(max(v, least), most) }

func size(asked, otherwise, least int) float64 {
	if asked == 0 {
		asked = otherwise
	}
	return float64(max(asked, least))
}
