// Package chart draws line and bar charts as SVG: one standalone file each, which a browser, a Markdown viewer or an HTML page shows
// as it is, in light and dark (it follows what the reader's system prefers).
//
// It is a function from numbers to bytes: no clock, no file, no goroutine, and the same input always gives the same bytes, so that charts can be
// kept in a repository and compared. It is no plotting library: two kinds of charts, one look, no interaction beyond tooltips. Charts hold no
// scripts, no identifiers and no references to elsewhere: any number of them may stand inline in one page, under a strict content security policy
// that lets style elements in.
//
// Values that an axis cannot show (NaN, infinities, beyond 1e60; zero and less on a logarithmic one) are left out: a gap in a line, a dash for a bar.
// All text is escaped.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Sizes in pixels of the drawing, which scales as a whole.
const (
	defaultWidth  = 760
	defaultHeight = 340
	edge          = 16.0 // around everything
	textSize      = 12.0
	titleSize     = 15.0
	textLine      = 16.0 // height of a line of text
)

// colours is how many series differ in colour; the next ones differ in their dashes, too.
const colours = 8

// style serves every chart alike: inline in one page the last one holds for all. The palettes keep 3:1 to their background, and neighbours
// differ in lightness for those who do not see the hue.
const style = `.dc text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;fill:#57606a}
.dc .t{font-size:15px;font-weight:600;fill:#1f2328}.dc .v,.dc .n{fill:#1f2328}.dc .bg{fill:#fff}
.dc .g{stroke:#e3e6ea;fill:none}.dc .a{stroke:#afb8c1;fill:none}.dc .r{stroke:#6e7781;fill:none;stroke-dasharray:4 3}.dc .m{stroke:#1f2328;stroke-width:2;fill:none}.dc .z{fill:#8c959f;fill-opacity:.16}
.dc .l{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}.dc .d1{stroke-dasharray:6 4}.dc .d2{stroke-dasharray:2 4}.dc .d3{stroke-dasharray:9 3 2 3}
.dc .b{fill:currentColor}.dc .w{stroke:#1f2328;stroke-opacity:.65;fill:none}
.dc .s0{color:#1f6feb}.dc .s1{color:#d4521a}.dc .s2{color:#0b8068}.dc .s3{color:#a3358f}.dc .s4{color:#946800}.dc .s5{color:#5a46c8}.dc .s6{color:#4a7d12}.dc .s7{color:#b3263c}
@media (prefers-color-scheme:dark){.dc text{fill:#9aa4ae}.dc .t,.dc .v,.dc .n{fill:#e6edf3}.dc .bg{fill:#12171e}
.dc .g{stroke:#29303a}.dc .a{stroke:#57606a}.dc .r{stroke:#8b949e}.dc .m{stroke:#e6edf3}.dc .w{stroke:#e6edf3}
.dc .s0{color:#6cb0ff}.dc .s1{color:#ff9560}.dc .s2{color:#3fcfae}.dc .s3{color:#f08ad6}.dc .s4{color:#e3b341}.dc .s5{color:#ac9dff}.dc .s6{color:#93cc55}.dc .s7{color:#ff7f86}}`

// An Axis is one direction of a chart.
type Axis struct {
	// Label says what is shown, with its unit.
	Label string
	// Log makes it logarithmic.
	Log bool
	// Seconds makes ticks of seconds, minutes and hours; values are seconds.
	Seconds bool
	// Zero makes an axis that is not logarithmic begin (or end) at 0 at the latest. Otherwise it holds the values only.
	Zero bool
	// Least and Most widen the axis; it always has room for all values. 0: as the values want.
	Least, Most float64
}

// canvas collects an SVG.
type canvas struct{ bytes.Buffer }

func (c *canvas) open(width, height float64, title, note string) {
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" class="dc" viewBox="0 0 %s %s" width="%[1]s" height="%[2]s" role="img" aria-label="%s">`+"\n",
		num(width), num(height), escape(strings.TrimSpace(title+". "+note)))
	fmt.Fprintf(c, "<style>%s</style>\n", style)
	fmt.Fprintf(c, `<rect class="bg" width="%s" height="%s" rx="6"/>`+"\n", num(width), num(height))
}

func (c *canvas) close() []byte {
	c.WriteString("</svg>\n")
	return c.Bytes()
}

// text writes one line; anchor is start, middle or end.
func (c *canvas) text(x, y float64, class, anchor, s string) {
	if s == "" {
		return
	}
	if class != "" {
		class = ` class="` + class + `"`
	}
	if anchor != "start" {
		class += ` text-anchor="` + anchor + `"`
	}
	fmt.Fprintf(c, `<text x="%s" y="%s"%s>%s</text>`+"\n", num(x), num(y), class, escape(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<path class="%s" d="M%s %sL%s %s"/>`+"\n", class, num(x1), num(y1), num(x2), num(y2))
}

// rect draws one with a tooltip, if there is one to show.
func (c *canvas) rect(x, y, width, height float64, class, tip string) {
	fmt.Fprintf(c, `<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="2">`, class, num(x), num(y), num(max(0, width)), num(max(0, height)))
	if tip != "" {
		fmt.Fprintf(c, "<title>%s</title>", escape(tip))
	}
	c.WriteString("</rect>\n")
}

// head writes title and note and returns where the next thing may begin.
func (c *canvas) head(width float64, title, note string) (y float64) {
	y = edge
	if title != "" {
		for _, line := range wrap(title, width-2*edge, titleSize*1.06) {
			y += titleSize
			c.text(edge, y-2, "t", "start", line)
			y += 4
		}
	}
	for _, line := range wrap(note, width-2*edge, textSize) {
		y += textLine
		c.text(edge, y-3, "", "start", line)
	}
	return y + 4
}

// A key is an entry of the legend.
type key struct {
	name  string
	class string // of a patch of colour
	line  bool   // a line with dashes instead of the patch
}

// legend writes the keys in rows and returns where the next thing may begin.
func (c *canvas) legend(y, width float64, keys []key) float64 {
	if len(keys) == 0 {
		return y
	}
	x := edge
	y += textLine
	for _, k := range keys {
		needs := 22 + textWidth(k.name, textSize) + 16
		if x > edge && x+needs > width-edge {
			x, y = edge, y+textLine+2
		}
		if k.line {
			c.line(x, y-4, x+16, y-4, k.class)
		} else {
			c.rect(x+2, y-10, 12, 12, k.class, "")
		}
		c.text(x+22, y, "", "start", k.name)
		x += needs
	}
	return y + 6
}

// num writes a coordinate.
func num(v float64) string {
	v = math.Round(v*10) / 10
	if v == 0 {
		v = 0 // not -0
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(strings.ToValidUTF8(s, "\ufffd"))) // a Builder takes everything
	return b.String()
}

// textWidth estimates how wide a text is: nobody measures fonts here, so it is rather too wide.
func textWidth(s string, size float64) float64 {
	return 0.56 * size * float64(utf8.RuneCountInString(s))
}

// wrap breaks a text at spaces into lines that fit; a word that does not is a line of its own.
func wrap(s string, width, size float64) (lines []string) {
	for word := range strings.FieldsSeq(s) {
		last := len(lines) - 1
		if last >= 0 && textWidth(lines[last]+" "+word, size) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// Number writes a value as charts do: with two or three digits that mean something, thousands apart (12,300; 4.25; 0.031).
func Number(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case abs >= 1000:
		s := strconv.FormatFloat(abs, 'f', 0, 64)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		if v < 0 {
			s = "-" + s
		}
		return s
	case abs >= 100:
		return short(v, 0)
	case abs >= 10:
		return short(v, 1)
	case abs >= 1 || v == 0:
		return short(v, 2)
	case abs >= 0.1:
		return short(v, 3)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// short writes so many decimals at most.
func short(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
