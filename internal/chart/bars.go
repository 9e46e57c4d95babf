package chart

import (
	"fmt"
	"math"
)

// A Bar is one value.
type Bar struct {
	Value float64
	// Least and Most are the range of several runs, drawn as a thin line; both 0: none.
	Least, Most float64
	// Text stands behind the bar; "": the value.
	Text string
}

// A Group is what is compared: a label and one bar of each kind.
type Group struct {
	Label string
	// Bars are of the chart's Kinds in turn, or of the first of them; a value that cannot be shown is a dash.
	Bars []Bar
	// Target is what the value is to reach, a short stroke across the bars; 0: none.
	Target float64
}

// A Reference is a dashed line through all groups.
type Reference struct {
	Value float64
	Label string
}

// Bars is a chart of lying bars, in groups.
type Bars struct {
	Title  string
	Note   string // below the title: what was measured, where, how
	Axis   Axis
	Kinds  []string // names of a group's bars; one alone has no legend
	Groups []Group
	// Target names the strokes in the legend; "": they are not named.
	Target string
	// Base is where bars begin: 0, or what the value is compared with. On a logarithmic axis 0 stands for its least value.
	Base       float64
	References []Reference
	// Width is in pixels; 0: 760; the least is 360. The height follows from the groups.
	Width int
}

const (
	barHeight = 14.0
	barGap    = 3.0
	groupGap  = 12.0
)

// SVG draws the chart.
func (b *Bars) SVG() []byte {
	width := size(b.Width, defaultWidth, 360)
	labelWidth := 0.0
	for _, g := range b.Groups {
		labelWidth = max(labelWidth, textWidth(g.Label, textSize))
	}
	labelWidth = min(labelWidth, 0.36*width)

	// The height of everything must be known before the first byte: draw below, then put the head before it.
	var head, body canvas
	y := head.head(width, b.Title, b.Note)
	var keys []key
	if len(b.Kinds) > 1 {
		for i, k := range b.Kinds {
			keys = append(keys, key{k, barClass(i), false})
		}
	}
	targets := false
	for _, g := range b.Groups {
		targets = targets || g.Target != 0
	}
	if targets && b.Target != "" {
		keys = append(keys, key{b.Target, "m", true})
	}
	y = head.legend(y, width, keys)
	if len(b.References) > 0 {
		y += textLine
	}
	top := y + 6

	left := edge + labelWidth + 10
	room := 0.0 // for texts behind the bars
	for _, g := range b.Groups {
		for _, bar := range g.Bars {
			room = max(room, textWidth(b.text(bar), textSize))
		}
	}
	right := max(width-edge-room-10, left+80)
	axis := b.Axis
	axis.Zero = axis.Zero || b.Base == 0
	s := axis.scale(b.values(), left, right, max(2, int((right-left)/90)))
	base := b.Base
	if !axis.shows(base) {
		base = s.from
	}

	y = top + groupGap/2
	for _, g := range b.Groups {
		lines := wrap(g.Label, labelWidth+1, textSize)
		bars := max(1, len(g.Bars))
		tall := max(float64(bars)*(barHeight+barGap)-barGap, float64(len(lines))*textLine-4)
		middle := y + tall/2
		for i, line := range lines {
			body.text(left-10, middle+4+(float64(i)-float64(len(lines)-1)/2)*textLine, "n", "end", line)
		}
		at := middle - (float64(bars)*(barHeight+barGap)-barGap)/2
		first := at
		for i, bar := range g.Bars {
			body.bar(i, bar, b, g, s, &axis, base, at)
			at += barHeight + barGap
		}
		if g.Target != 0 && axis.shows(g.Target) {
			x := s.at(g.Target)
			body.line(x, first-4, x, first+float64(bars)*(barHeight+barGap)-barGap+4, "m")
		}
		y += tall + groupGap
	}
	bottom := y
	if len(b.Groups) == 0 {
		bottom += textLine
		body.text((left+right)/2, bottom-4, "", "middle", "no data")
	}
	height := bottom + edge + textLine
	if axis.Label != "" {
		height += textLine
	}

	var c canvas
	c.open(width, height, b.Title, b.Note)
	_, _ = c.Write(head.Bytes())
	for _, t := range s.ticks {
		c.line(s.at(t.value), top, s.at(t.value), bottom, "g")
		c.text(s.at(t.value), bottom+textLine, "", "middle", t.label)
	}
	c.text((left+right)/2, bottom+2*textLine, "", "middle", axis.Label)
	for _, r := range b.References {
		if axis.shows(r.Value) {
			c.line(s.at(r.Value), top, s.at(r.Value), bottom, "r")
			c.text(s.at(r.Value), top-6, "", middleOf(s.at(r.Value), r.Label, left, right), r.Label)
		}
	}
	_, _ = c.Write(body.Bytes())
	if axis.shows(base) {
		c.line(s.at(base), top, s.at(base), bottom, "a")
	}
	return c.close()
}

// bar draws one bar with its range and its text.
func (c *canvas) bar(kind int, bar Bar, b *Bars, g Group, s *scale, axis *Axis, base, y float64) {
	text, label := b.text(bar), g.Label
	if !axis.shows(bar.Value) {
		c.text(s.at(base)+6, y+barHeight-3, "v", "start", "–")
		return
	}
	from, to := s.at(base), s.at(bar.Value)
	tip := label + ": " + text
	if kind < len(b.Kinds) && b.Kinds[kind] != "" {
		tip = label + ", " + b.Kinds[kind] + ": " + text
	}
	c.rect(min(from, to), y, max(1, math.Abs(to-from)), barHeight, barClass(kind), tip)
	end := max(from, to)
	if bar.Least != bar.Most && axis.shows(bar.Least) && axis.shows(bar.Most) {
		x1, x2, middle := s.at(bar.Least), s.at(bar.Most), y+barHeight/2
		fmt.Fprintf(c, `<path class="w" d="M%s %sH%sM%[1]s %[4]sV%sM%[3]s %[4]sV%[5]s"/>`+"\n", num(x1), num(middle), num(x2), num(middle-3), num(middle+3))
		end = max(end, x2)
	}
	if g.Target != 0 && axis.shows(g.Target) { // its stroke shall not go through the text
		if x := s.at(g.Target); x > end && x < end+6+textWidth(text, textSize)+4 {
			end = x
		}
	}
	c.text(end+6, y+barHeight-3, "v", "start", text)
}

func (b *Bars) text(bar Bar) string {
	if bar.Text != "" {
		return bar.Text
	}
	return Number(bar.Value)
}

// values goes over all that the axis has to have room for.
func (b *Bars) values() func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for _, g := range b.Groups {
			all := []float64{}
			if g.Target != 0 {
				all = append(all, g.Target)
			}
			for _, bar := range g.Bars {
				all = append(all, bar.Value)
				if bar.Least != bar.Most {
					all = append(all, bar.Least, bar.Most)
				}
			}
			for _, v := range all {
				if !yield(v) {
					return
				}
			}
		}
		for _, r := range b.References {
			if !yield(r.Value) {
				return
			}
		}
		if b.Base != 0 {
			yield(b.Base)
		}
	}
}

func barClass(i int) string { return fmt.Sprintf("b s%d", i%colours) }
