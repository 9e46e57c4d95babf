package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A field is one row of a table of keys: what it is called, what is right, and
// where its value lives.
type field struct {
	key    string // "p2p.listen"
	flag   string // name of the flag if it is not made from the key
	common bool   // the flag shows in --help
	secret bool   // its values are not shown
	isPath bool   // relative to the folder of the file that names it
	doc    string
	unit   string
	want   string // what a right value looks like
	ptr    any    // *string, *bool, *int, *int64, *time.Duration, *time.Time or *[]string
	// check says what is wrong with the present value ("" nothing).
	check func() string
}

func (f field) flagged(name string) field {
	f.flag, f.common = name, true
	return f
}

func str(key string, p *string, want string, check func(string) string, doc string) field {
	return field{key: key, ptr: p, want: want, doc: doc, check: func() string { return check(*p) }}
}

func path(key string, p *string, doc string) field {
	f := str(key, p, "a path", func(s string) string {
		if strings.ContainsRune(s, 0) {
			return "has a zero byte"
		}
		return ""
	}, doc)
	f.isPath = true
	return f
}

func oneOf(key string, p *string, doc string, values ...string) field {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return str(key, p, "one of "+strings.Join(quoted, ", "), func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		if near := Nearest(s, values); near != "" {
			return "is unknown, did you mean " + strconv.Quote(near) + "?"
		}
		return "is unknown"
	}, doc)
}

func boolean(key string, p *bool, doc string) field {
	return field{key: key, ptr: p, want: "true or false", doc: doc, check: func() string { return "" }}
}

func num[T int | int64](key string, p *T, lo, hi T, unit, doc string) field {
	return field{
		key: key, ptr: p, unit: unit, doc: doc,
		want: fmt.Sprintf("an integer from %d to %d", lo, hi),
		check: func() string {
			if *p < lo || *p > hi {
				return "is out of range"
			}
			return ""
		},
	}
}

func dur(key string, p *time.Duration, lo, hi time.Duration, doc string) field {
	return field{
		key: key, ptr: p, doc: doc,
		want: fmt.Sprintf("a duration with its unit, such as \"5s\", from %v to %v", lo, hi),
		check: func() string {
			if *p < lo || *p > hi {
				return "is out of range"
			}
			return ""
		},
	}
}

// list checks each item by itself.
func list(key string, p *[]string, most int, want string, check func(string) string, doc string) field {
	return field{
		key: key, ptr: p, doc: doc,
		want: fmt.Sprintf("a list of at most %d, each %s", most, want),
		check: func() string {
			if len(*p) > most {
				return fmt.Sprintf("has %d items", len(*p))
			}
			var problems []string
			for i, s := range *p {
				if problem := check(s); problem != "" {
					problems = append(problems, fmt.Sprintf("item %d (%s) %s", i+1, clip(quote(s)), problem))
				}
			}
			return strings.Join(problems, "; ")
		},
	}
}

// secretList is a list whose values are shown up to their first colon only.
func secretList(key string, p *[]string, most int, want string, check func(string) string, doc string) field {
	f := list(key, p, most, want, check, doc)
	f.secret = true
	f.check = func() string {
		if len(*p) > most {
			return fmt.Sprintf("has %d items", len(*p))
		}
		for i, s := range *p {
			if problem := check(s); problem != "" {
				return fmt.Sprintf("item %d %s", i+1, problem)
			}
		}
		return ""
	}
	return f
}

// veil is what is shown of a secret: what it is of.
func veil(s string) string {
	name, _, ok := strings.Cut(s, ":")
	if !ok || !userForm.MatchString(name) {
		return "…"
	}
	return name + ":…"
}

func (f field) env() string {
	return "DUNLIN_" + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_"))
}

func (f field) flagName() string {
	if f.flag != "" {
		return f.flag
	}
	return strings.NewReplacer(".", "-", "_", "-").Replace(f.key)
}

func (f field) typeName() string {
	switch f.ptr.(type) {
	case *bool:
		return "boolean"
	case *int, *int64:
		return "integer"
	case *time.Duration:
		return "duration"
	case *time.Time:
		return "date and time"
	case *[]string:
		return "list of strings"
	default:
		return "string"
	}
}

// format writes the present value as TOML.
func (f field) format() string {
	switch p := f.ptr.(type) {
	case *string:
		return quote(*p)
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *int64:
		return strconv.FormatInt(*p, 10)
	case *time.Duration:
		return quote(formatDuration(*p))
	case *time.Time:
		return p.UTC().Format(time.RFC3339)
	case *[]string:
		items := make([]string, len(*p))
		for i, s := range *p {
			if f.secret {
				s = veil(s)
			}
			items[i] = quote(s)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	panic("config: no such type of key: " + f.key)
}

// formatDuration leaves out the zero units that time.Duration prints ("336h0m0s").
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// setTOML takes a value as go-toml decodes it. It returns what is wrong.
func (f field) setTOML(v any) string {
	switch p := f.ptr.(type) {
	case *string:
		if s, ok := v.(string); ok {
			*p = s
			return ""
		}
	case *bool:
		if b, ok := v.(bool); ok {
			*p = b
			return ""
		}
	case *int:
		if n, ok := v.(int64); ok && n >= math.MinInt && n <= math.MaxInt {
			*p = int(n)
			return ""
		}
	case *int64:
		if n, ok := v.(int64); ok {
			*p = n
			return ""
		}
	case *time.Duration:
		if s, ok := v.(string); ok {
			return f.setText(s)
		}
		if _, ok := v.(int64); ok {
			return "lacks its unit"
		}
	case *time.Time:
		if t, ok := v.(time.Time); ok {
			*p = t
			return ""
		}
	case *[]string:
		items, ok := v.([]any)
		if !ok {
			break
		}
		texts := make([]string, len(items))
		for i, item := range items {
			if texts[i], ok = item.(string); !ok {
				return fmt.Sprintf("has an item %d that is %s", i+1, tomlType(item))
			}
		}
		*p = texts
		return ""
	}
	return "is " + tomlType(v)
}

func tomlType(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a decimal number"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

// setText takes a value from a flag or an environment variable.
func (f field) setText(s string) string {
	switch p := f.ptr.(type) {
	case *string:
		*p = s
	case *bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return "is no boolean"
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return "is no integer"
		}
		*p = n
	case *int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return "is no integer"
		}
		*p = n
	case *time.Duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			if _, e := strconv.ParseFloat(s, 64); e == nil && s != "0" {
				return "lacks its unit"
			}
			return "is no duration"
		}
		*p = d
	case *time.Time:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return "is no date and time"
		}
		*p = t
	case *[]string:
		*p = splitList(s)
	}
	return ""
}

// splitList splits at commas, which no item of a list may hold.
func splitList(s string) []string {
	var out []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// quote writes a TOML basic string; JSON's escapes are a subset of TOML's.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("config: quoting a string: " + err.Error())
	}
	// TOML, unlike JSON, wants DEL escaped.
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007F`)
}

// maxShownBytes bounds how much of a wrong value an error repeats.
const maxShownBytes = 120

func clip(s string) string {
	if len(s) <= maxShownBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxShownBytes], "") + "…"
}

// A KeyError is one thing that is wrong with the settings.
type KeyError struct {
	Key     string // empty if it is not about a key (a syntax error)
	Value   string // as given, shortened; empty if it is not about a value
	From    string // file:line, "environment DUNLIN_…", "flag --…"; empty if unknown
	Problem string // what is wrong and what would be right
}

func (f *KeyError) Error() string {
	var b strings.Builder
	if f.From != "" {
		b.WriteString(f.From + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key)
		if f.Value != "" {
			b.WriteString(" = " + f.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Problem)
	return b.String()
}

func (f field) fault(from, value, problem string) *KeyError {
	if f.secret {
		value = ""
	}
	return &KeyError{Key: f.key, Value: clip(value), From: from, Problem: problem + "; want " + f.want}
}

// Nearest returns the candidate that s is most likely a slip for, or "".
func Nearest(s string, candidates []string) string {
	best, bestDistance := "", max(1, len(s)/3)+1
	for _, c := range candidates {
		if d := distance(s, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// maxDistanceBytes bounds the work of distance: nothing longer is a slip for a key.
const maxDistanceBytes = 64

// distance is the Levenshtein distance, with neighbours swapped counting once.
func distance(a, b string) int {
	if len(a) > maxDistanceBytes || len(b) > maxDistanceBytes {
		return maxDistanceBytes
	}
	var rows [3][maxDistanceBytes + 1]int
	before, last, now := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
