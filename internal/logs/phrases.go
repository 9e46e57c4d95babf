package logs

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A phrase is how one message is written in text: a few lines are what a person
// watches a node by, and those are made for the eye. Heights get separators, hashes
// and peers are cut to their ends, bytes and times get units. JSON has the same
// attributes whole. A record that lacks one of the keys is written like any other.
type phrase struct {
	keys []string // the attributes that text uses; others follow as key=value
	text func(v map[string]slog.Value) string
}

// phrases are tried in order for a message.
var phrases = map[string][]phrase{
	// block 1,000,121 5e0a3b…91c2 txs=12 12.4 kB from=12D3…k9aB delay=0.41s
	// block 121 5e0a3b…91c2 slot 4031 won by bcrt1p…, share 49.8% txs=12 12.4 kB from=12D3…k9aB delay=0.41s
	blockMessage: {{
		[]string{"height", "hash", "slot", "winner", "share", "txs", "bytes", "from", "delay"},
		func(v map[string]slog.Value) string {
			return grouped(v["height"]) + " " + ends(v["hash"]) + " slot " + v["slot"].String() + " won by " + v["winner"].String() +
				", share " + strconv.FormatFloat(100*number(v["share"]), 'f', 1, 64) + "% txs=" + grouped(v["txs"]) + " " + bytesText(v["bytes"]) +
				" from=" + ends(v["from"]) + " delay=" + seconds(v["delay"])
		},
	}, {
		[]string{"height", "hash", "txs", "bytes", "from", "delay"},
		func(v map[string]slog.Value) string {
			return grouped(v["height"]) + " " + ends(v["hash"]) + " txs=" + grouped(v["txs"]) + " " + bytesText(v["bytes"]) +
				" from=" + ends(v["from"]) + " delay=" + seconds(v["delay"])
		},
	}},
	// reorg depth=2 old=5e0a3b…91c2 new=77ab01…04fe fork=1,000,118
	reorgMessage: {{
		[]string{"depth", "old", "old_height", "new", "height", "fork"},
		func(v map[string]slog.Value) string {
			return "depth=" + grouped(v["depth"]) + " old=" + ends(v["old"]) + " at " + grouped(v["old_height"]) +
				" new=" + ends(v["new"]) + " at " + grouped(v["height"]) + " fork=" + grouped(v["fork"])
		},
	}},
	// syncing 41.2% 412,033/1,000,114 | 1,240 blk/s | eta 7m55s | behind 3d4h | peers 8 (5 serving) | in flight 96/128 | ↓ 18.4 MB/s
	progressMessage: {{
		[]string{"state", "percent", "height", "headers", "target", "blocks_per_s", "eta", "behind", "peers", "serving", "in_flight", "in_flight_limit", "bytes_per_s", "reason"},
		progressText,
	}},
	// sync stalled 2.1s at 412,033: 12D3…k9aB holds 412,034; asked 12D3…x2Yt too (attempt 2)
	"sync stalled": {{
		[]string{"waited", "height", "holder", "holds", "asked", "attempt"},
		func(v map[string]slog.Value) string {
			asked := v["asked"].String()
			if !strings.Contains(asked, " ") {
				asked = "asked " + ends(v["asked"]) + " too (attempt " + grouped(v["attempt"]) + ")"
			}
			return span(v["waited"]) + " at " + grouped(v["height"]) + ": " + ends(v["holder"]) + " holds " + grouped(v["holds"]) + "; " + asked
		},
	}, {
		[]string{"height", "target", "reason"},
		func(v map[string]slog.Value) string {
			return "at " + grouped(v["height"]) + " of " + grouped(v["target"]) + ": " + v["reason"].String()
		},
	}},
	// sync resumed after 14.2s at 412,034 of 1,000,114
	"sync resumed": {{
		[]string{"waited", "height", "target"},
		func(v map[string]slog.Value) string {
			return "after " + span(v["waited"]) + " at " + grouped(v["height"]) + " of " + grouped(v["target"])
		},
	}},
}

// progressText writes how far a sync is. What matters most comes first: a terminal
// may be narrow.
func progressText(v map[string]slog.Value) string {
	parts := []string{
		strconv.FormatFloat(number(v["percent"]), 'f', 1, 64) + "% " + grouped(v["height"]) + "/" + grouped(v["target"]),
		grouped(v["blocks_per_s"]) + " blk/s", "eta " + span(v["eta"]), "behind " + span(v["behind"]),
		"peers " + grouped(v["peers"]) + " (" + grouped(v["serving"]) + " serving)",
		"in flight " + grouped(v["in_flight"]) + "/" + grouped(v["in_flight_limit"]),
		"↓ " + bytesText(v["bytes_per_s"]) + "/s",
	}
	// What is not the usual comes before the rest: which part of it this is, and why it waits.
	state, reason := v["state"].String(), v["reason"].String()
	if number(v["headers"]) < number(v["target"]) {
		parts = slices.Insert(parts, 1, "headers "+grouped(v["headers"]))
	}
	switch {
	case state != "blocks" && reason != "":
		parts = slices.Insert(parts, 0, state+": "+reason)
	case state != "blocks":
		parts = slices.Insert(parts, 0, state)
	case reason != "":
		parts = append(parts, reason)
	}
	return strings.Join(parts, " | ")
}

// phraseOf returns what follows a record's message if it has a phrase, and the
// attributes that are not in it.
func phraseOf(r slog.Record) (text string, rest []slog.Attr, ok bool) {
	candidates := phrases[r.Message]
	if candidates == nil {
		return "", nil, false
	}
	values := make(map[string]slog.Value, r.NumAttrs())
	var attrs []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		a.Value = a.Value.Resolve()
		values[a.Key] = a.Value
		attrs = append(attrs, a)
		return true
	})
	for _, p := range candidates {
		if slices.ContainsFunc(p.keys, func(k string) bool { _, there := values[k]; return !there }) {
			continue
		}
		rest := slices.DeleteFunc(attrs, func(a slog.Attr) bool {
			return slices.Contains(p.keys, a.Key) || (a.Key == "suppressed" && number(a.Value) == 0)
		})
		return p.text(values), rest, true
	}
	return "", nil, false
}

// number is a numeric value, 0 for any other.
func number(v slog.Value) float64 {
	switch v.Kind() {
	case slog.KindInt64:
		return float64(v.Int64())
	case slog.KindUint64:
		return float64(v.Uint64())
	case slog.KindFloat64:
		return v.Float64()
	}
	return 0
}

// grouped writes a whole number with thousands separators: 1,000,114.
func grouped(v slog.Value) string {
	n := int64(number(v))
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// ends cuts a hash to its first six and last four digits, a peer id to its
// first and last four characters, and leaves what is short.
func ends(v slog.Value) string {
	s := v.String()
	switch {
	case len(s) < 32:
		return s
	case strings.HasPrefix(s, "12D3") || strings.HasPrefix(s, "Qm") || strings.HasPrefix(s, "16Ui"):
		return s[:4] + "…" + s[len(s)-4:]
	}
	return s[:6] + "…" + s[len(s)-4:]
}

// bytesText writes a number of bytes with a decimal unit.
func bytesText(v slog.Value) string {
	n := number(v)
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if n >= u.size {
			return strconv.FormatFloat(n/u.size, 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(n, 'f', 0, 64) + " B"
}

// seconds writes a number of seconds: 0.41s, and in larger units from a minute on.
func seconds(v slog.Value) string {
	s := number(v)
	if s < 60 {
		return strconv.FormatFloat(s, 'f', -1, 64) + "s"
	}
	return span(slog.DurationValue(time.Duration(s) * time.Second))
}

// span writes a duration in its two largest units: 3d4h, 7m55s, 2.1s. What is no
// duration ("unknown") is left.
func span(v slog.Value) string {
	if v.Kind() != slog.KindDuration {
		return v.String()
	}
	d := v.Duration()
	const day = 24 * time.Hour
	switch {
	case d >= 365*day:
		return strconv.Itoa(int(d/(365*day))) + "y" + strconv.Itoa(int(d%(365*day)/day)) + "d"
	case d >= day:
		return strconv.Itoa(int(d/day)) + "d" + strconv.Itoa(int(d%day/time.Hour)) + "h"
	case d >= time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h" + strconv.Itoa(int(d%time.Hour/time.Minute)) + "m"
	case d >= time.Minute:
		return strconv.Itoa(int(d/time.Minute)) + "m" + strconv.Itoa(int(d%time.Minute/time.Second)) + "s"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
}
