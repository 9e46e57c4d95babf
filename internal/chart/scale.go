package chart

import (
	"math"
	"strconv"
)

// A scale maps values to pixels.
type scale struct {
	from, to float64 // values
	a, b     float64 // pixels of them
	log      bool
	ticks    []tick
}

type tick struct {
	value float64
	label string
}

// Beyond these no figure of anything is meant, and the arithmetic of ticks would end in infinities.
const (
	mostShown  = 1e60
	leastShown = 1e-60 // on a logarithmic axis, and of a difference
)

// shows says whether an axis of the kind can show the value.
func (a *Axis) shows(v float64) bool {
	return math.Abs(v) <= mostShown && (!a.Log || v >= leastShown) // not so for NaN
}

// scale makes one that has room for all values that can be shown, between two pixels, with about so many ticks.
func (a *Axis) scale(values func(yield func(float64) bool), from, to float64, ticks int) *scale {
	least, most := math.Inf(1), math.Inf(-1)
	for v := range values {
		if a.shows(v) {
			least, most = min(least, v), max(most, v)
		}
	}
	for _, v := range []float64{a.Least, a.Most} {
		if v != 0 && a.shows(v) {
			least, most = min(least, v), max(most, v)
		}
	}
	if a.Zero && !a.Log {
		least, most = min(least, 0), max(most, 0)
	}
	if least > most { // nothing to show
		least, most = 0, 1
		if a.Log {
			least, most = 1, 10
		}
	}
	s := &scale{from: least, to: most, a: from, b: to, log: a.Log}
	switch {
	case a.Log:
		s.logTicks(ticks)
	default:
		s.linearTicks(ticks, a.Seconds)
	}
	return s
}

func (s *scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.log {
		v, from, to = math.Log(v), math.Log(from), math.Log(to)
	}
	return s.a + (v-from)/(to-from)*(s.b-s.a)
}

// steps of an axis of time, in seconds.
var steps = []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400}

// linearTicks widens the scale to whole steps.
func (s *scale) linearTicks(about int, seconds bool) {
	span := s.to - s.from
	if span < leastShown || span < 1e-9*max(math.Abs(s.from), math.Abs(s.to)) {
		// One value: it stands in the middle, or at the foot of an axis from 0.
		pad := max(math.Abs(s.from)/10, 1e-9)
		if s.from == 0 {
			pad = 1
		}
		if s.from >= 0 && s.from < pad {
			s.to += pad
		} else {
			s.from, s.to = s.from-pad, s.to+pad
		}
		span = s.to - s.from
	}
	rough := span / float64(max(1, about))
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step*m >= rough*0.999 {
			step *= m
			break
		}
	}
	if seconds && rough > 1 {
		day := steps[len(steps)-1]
		step = math.Ceil(rough/day) * day
		for _, t := range steps {
			if t >= rough*0.999 {
				step = t
				break
			}
		}
	}
	first, last := math.Floor(s.from/step+1e-9), math.Ceil(s.to/step-1e-9)
	s.from, s.to = first*step, last*step
	for i := first; i <= last; i++ {
		v := i * step
		label := tickLabel(v, step)
		if seconds {
			label = secondsLabel(v, step)
		}
		s.ticks = append(s.ticks, tick{v, label})
	}
}

// logTicks widens the scale to 1, 2 or 5 times a power of ten, and marks these or powers of ten alone.
func (s *scale) logTicks(about int) {
	marks := []float64{1, 2, 5}
	power := math.Pow(10, math.Floor(math.Log10(s.from)+1e-9))
	from := power
	for _, m := range marks {
		if power*m <= s.from*1.0001 {
			from = power * m
		}
	}
	power = math.Pow(10, math.Floor(math.Log10(s.to)+1e-9))
	to := power * 10
	for _, m := range []float64{5, 2, 1} {
		if power*m >= s.to*0.9999 {
			to = power * m
		}
	}
	if from >= to {
		to = from * 10
	}
	s.from, s.to = from, to
	decades := math.Log10(to / from)
	every := math.Max(1, math.Ceil(decades/float64(max(1, about))))
	start := math.Floor(math.Log10(from) + 1e-9)
	for e := start; math.Pow(10, e) <= to*1.0001; e++ {
		for _, m := range marks {
			v := math.Pow(10, e) * m
			plain := m == 1 && math.Mod(e-start, every) == 0
			if v < from*0.9999 || v > to*1.0001 || (!plain && decades*3 > float64(about)) {
				continue
			}
			s.ticks = append(s.ticks, tick{v, Number(v)})
		}
	}
}

// tickLabel writes a value with the decimals that its step asks for; thousands, millions and so on by letter where all ticks are round.
func tickLabel(v, step float64) string {
	for _, u := range []struct {
		value float64
		name  string
	}{{1e9, "G"}, {1e6, "M"}, {1e4, "k"}} {
		unit := u.value
		if u.name == "k" {
			unit = 1e3
		}
		if math.Abs(v) >= u.value && math.Abs(math.Mod(step/unit*10, 1)) < 1e-9 {
			return short(v/unit, 1) + u.name
		}
	}
	if step >= 1 {
		return Number(math.Round(v))
	}
	decimals := int(math.Ceil(-math.Log10(step) - 1e-9))
	if decimals > 6 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(v+0, 'f', decimals, 64)
}

// secondsLabel writes a time: 30 s, 1:30, 5 min, 2 h, 3 d.
func secondsLabel(v, step float64) string {
	switch {
	case v == 0:
		return "0"
	case step < 60 && math.Abs(v) < 60:
		return Number(v) + " s"
	case step < 60:
		sign := ""
		if v < 0 {
			sign, v = "-", -v
		}
		return sign + strconv.Itoa(int(v)/60) + ":" + strconv.Itoa(100 + int(v)%60)[1:] + " min"
	case step < 3600:
		return Number(v/60) + " min"
	case step < 86400:
		return Number(v/3600) + " h"
	}
	return Number(v/86400) + " d"
}
