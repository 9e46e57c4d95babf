package main

import (
	"math"
	"strings"

	"dunlin/internal/chart"
)

// A drawing is the chart of a table.
type drawing struct {
	alt  string
	draw func(t *table) []byte
}

// charts are the drawings by the table's name; the other tables have none.
var charts = map[string]drawing{
	"ibd": {"Speed of the initial download against btcd's on the same blocks and machine", func(t *table) []byte {
		return timesAsFast(t, "Initial block download: how many times as fast as btcd", "Real daemons on loopback, in turns on the same blocks; medians with the least and the greatest ratio of two runs that followed one another.")
	}},
	"import": {"Speed of importing three chains against btcd's", func(t *table) []byte {
		return timesAsFast(t, "Import from a file: how many times as fast as btcd's block chain", "In one process, in turns, from a file on disk to everything written and closed.")
	}},
	"discovery": {"Seconds that a simulated network takes to find itself, against what was asked for", func(t *table) []byte {
		b := chart.Bars{
			Title: "How fast a network finds itself", Note: "The real stack in virtual time, 20 Mbit/s and 50 ms of round trip.",
			Axis: chart.Axis{Label: "seconds"}, Target: "asked for",
		}
		for _, r := range t.Records {
			if r.Ours.Unit != "s" {
				continue
			}
			g := chart.Group{Label: plain(r.What), Bars: []chart.Bar{barOf(&r.Ours)}}
			if r.Bar != nil {
				g.Target = r.Bar.Value
			}
			b.Groups = append(b.Groups, g)
		}
		return b.SVG()
	}},
	"flood": {"Milliseconds until all nodes have a block: dunlin, announce and pull, whole blocks", func(t *table) []byte {
		b := chart.Bars{
			Title: "A new block at every node", Note: "Until the last of the nodes has it; the real stack in virtual time, 20 Mbit/s and 50 ms of round trip. Baselines know no mempools.",
			Axis: chart.Axis{Log: true, Label: "ms, logarithmic"}, Kinds: []string{"dunlin", "announce and pull", "whole over GossipSub"}, Target: "asked for",
		}
		kinds := map[string]int{"dunlin": 0, "announce": 1, "whole": 2}
		at := map[string]int{}
		for _, r := range t.Records { // flood/CASE/SYSTEM
			parts := strings.Split(r.ID, "/")
			kind, known := kinds[parts[len(parts)-1]]
			if !known || len(parts) != 3 {
				continue
			}
			i, seen := at[parts[1]]
			if !seen {
				i = len(b.Groups)
				at[parts[1]] = i
				none := chart.Bar{Value: math.NaN()}
				b.Groups = append(b.Groups, chart.Group{Label: plain(r.What), Bars: []chart.Bar{none, none, none}})
			}
			b.Groups[i].Bars[kind] = barOf(&r.Ours)
			if r.Bar != nil {
				b.Groups[i].Target = r.Bar.Value
			}
		}
		for i := range b.Groups { // those without baselines of their own need no rows for them
			g := &b.Groups[i]
			for len(g.Bars) > 1 && math.IsNaN(g.Bars[len(g.Bars)-1].Value) {
				g.Bars = g.Bars[:len(g.Bars)-1]
			}
		}
		return b.SVG()
	}},
}

// timesAsFast draws ratios so that longer is better, whatever they are of.
func timesAsFast(t *table, title, note string) []byte {
	b := chart.Bars{
		Title: title, Note: note, Axis: chart.Axis{Log: true, Label: "times as fast, logarithmic"}, Base: 1,
		References: []chart.Reference{{Value: 1, Label: "btcd"}}, Target: "asked for",
	}
	for _, r := range t.Records {
		if math.IsNaN(r.Ratio.number()) || strings.HasPrefix(r.What, "… ") { // another figure of the row before
			continue
		}
		faster := func(v *float64) float64 {
			if v == nil {
				return 0
			}
			if r.Less {
				return 1 / *v
			}
			return *v
		}
		bar := chart.Bar{Value: faster(r.Ratio.Median), Least: faster(r.Ratio.Min), Most: faster(r.Ratio.Max)}
		bar.Least, bar.Most = min(bar.Least, bar.Most), max(bar.Least, bar.Most)
		bar.Text = chart.Number(bar.Value) + "×"
		g := chart.Group{Label: plain(r.What), Bars: []chart.Bar{bar}}
		if r.Bar != nil && r.Bar.Of == "ratio" {
			g.Target = faster(&r.Bar.Value)
		}
		b.Groups = append(b.Groups, g)
	}
	return b.SVG()
}

func barOf(v *value) chart.Bar {
	b := chart.Bar{Value: v.number(), Text: v.String()}
	if v.Min != nil && v.Max != nil {
		b.Least, b.Most = *v.Min, *v.Max
	}
	return b
}

// plain takes Markdown's marks out of a text.
func plain(s string) string { return strings.NewReplacer("`", "", "**", "", "… ", "").Replace(s) }
