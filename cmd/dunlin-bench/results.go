package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dunlin/internal/chart"
)

// The published figures: docs/benchmarks/results.json has every one of them with where it came from, docs/benchmarks.md their tables between its
// words, docs/benchmarks/*.svg their charts. Tables and charts are made from the records (dunlin-bench all --render; a test compares), so that a figure
// is written in one place, by a program.

// results is the file of records.
type results struct {
	Sessions []session `json:"sessions"`
	Tables   []table   `json:"tables"`
}

// A session is one run of a command, on one machine at one commit: what a figure needs to mean something.
type session struct {
	ID      string `json:"id"`             // short: tables name it
	Date    string `json:"date"`           // 2026-11-21
	Commit  string `json:"commit"`         // what was measured; of records older than this file, the commit that published them
	Machine string `json:"machine"`        // cores, memory, platform, what else it did
	Go      string `json:"go"`             // its version
	Peer    string `json:"peer,omitempty"` // what it was compared with, and its version
	Command string `json:"command"`
	Note    string `json:"note,omitempty"`
}

// A table is a list of records that are shown together.
type table struct {
	ID string `json:"id"`
	// Head and Main name the columns of what was measured and of our figure. Main is "dunlin" if it is not given.
	Head string `json:"head"`
	Main string `json:"main,omitempty"`
	// Columns are further figures of a record, in the order of the table; those before "" stand left of Main.
	Columns []string `json:"columns,omitempty"`
	Records []record `json:"records"`
}

// A record is one figure.
type record struct {
	ID     string           `json:"id"` // table/case, for ever
	What   string           `json:"what"`
	Ours   value            `json:"dunlin"`
	Peer   *value           `json:"peer,omitempty"`
	Ratio  *value           `json:"ratio,omitempty"` // ours over the peer's
	Less   bool             `json:"less_is_better,omitempty"`
	Bar    *bar             `json:"bar,omitempty"`   // what it has to reach, in our unit or of the ratio
	Asked  string           `json:"asked,omitempty"` // the same in words, where it is no number
	Met    *bool            `json:"met,omitempty"`
	More   map[string]value `json:"more,omitempty"` // by the table's columns
	Note   string           `json:"note,omitempty"` // on this figure; a new one begins without
	Source string           `json:"session"`
}

// A value is a figure with its unit: the median of so many runs, with the least and the greatest. Where what was seen is no such number (a range over
// cases, a count of bytes and seconds) Text has it.
type value struct {
	Median *float64 `json:"median,omitempty"`
	Min    *float64 `json:"min,omitempty"`
	Max    *float64 `json:"max,omitempty"`
	Runs   int      `json:"runs,omitempty"`
	Unit   string   `json:"unit,omitempty"`
	Text   string   `json:"text,omitempty"`
}

// valueOf takes figures over; none stay none.
func valueOf(f *figures, unit string) *value {
	if f == nil {
		return nil
	}
	v := &value{Median: rounded(f.Median), Runs: len(f.Runs), Unit: unit}
	if len(f.Runs) > 1 {
		v.Min, v.Max = rounded(f.Min), rounded(f.Max)
	}
	return v
}

// single is a value of one run.
func single(v float64, unit string) value { return value{Median: rounded(v), Runs: 1, Unit: unit} }

// rounded keeps what a figure can mean: five digits.
func rounded(v float64) *float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 5, 64), 64)
	if err != nil {
		return nil // NaN and the like are no figures
	}
	return &r
}

func (v *value) String() string {
	switch {
	case v == nil:
		return ""
	case v.Text != "":
		return v.Text
	case v.Median == nil:
		return "–"
	}
	unit := ""
	if v.Unit != "" && v.Unit != "×" {
		unit = " "
	}
	unit += v.Unit
	s := chart.Number(*v.Median) // not digits: it would add noughts that nobody measured
	if v.Min != nil && v.Max != nil {
		s += " (" + chart.Number(*v.Min) + "–" + chart.Number(*v.Max) + ")"
	}
	return s + unit
}

// asked writes what a record has to reach.
func (r *record) asked() string {
	if r.Asked != "" || r.Bar == nil || r.Bar.Value == 0 {
		return r.Asked
	}
	of := row{Unit: r.Ours.Unit, Bar: *r.Bar}
	text := strings.TrimSpace(of.limit(r.Bar.Value))
	if r.Bar.Aim != 0 {
		text += ", aim " + strings.TrimSpace(strings.TrimLeft(of.limit(r.Bar.Aim), "≤≥"))
	}
	return text
}

// readResults reads the records and checks that they are whole; every fault is reported.
func readResults(raw []byte) (*results, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var r results
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("records: "+format, args...)) }
	sessions, used, tables, ids := map[string]session{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range r.Sessions {
		if s.ID == "" || s.Date == "" || s.Commit == "" || s.Machine == "" || s.Go == "" || s.Command == "" {
			fault("session %q lacks some of id, date, commit, machine, go, command", s.ID)
		}
		if _, twice := sessions[s.ID]; twice {
			fault("session %s is there twice", s.ID)
		}
		sessions[s.ID] = s
	}
	for _, t := range r.Tables {
		if t.ID == "" || tables[t.ID] || t.Head == "" || len(t.Records) == 0 {
			fault("table %q: unnamed, there twice, or without a head or records", t.ID)
		}
		tables[t.ID] = true
		for _, rec := range t.Records {
			if !strings.HasPrefix(rec.ID, t.ID+"/") || ids[rec.ID] || rec.What == "" {
				fault("record %q of table %s: its name must begin with the table's and be its own, and say what it is of", rec.ID, t.ID)
			}
			ids[rec.ID] = true
			from, known := sessions[rec.Source]
			if !known {
				fault("record %s: no session %q", rec.ID, rec.Source)
			}
			used[rec.Source] = true
			if rec.Ours.Median == nil && rec.Ours.Text == "" {
				fault("record %s has no figure", rec.ID)
			}
			if rec.Ratio != nil && rec.Peer == nil && from.Peer == "" {
				fault("record %s has a ratio to nothing", rec.ID)
			}
			for column := range rec.More {
				if !slices.Contains(t.Columns, column) {
					fault("record %s: table %s has no column %q", rec.ID, t.ID, column)
				}
			}
		}
	}
	for _, s := range r.Sessions {
		if !used[s.ID] {
			fault("session %s gave no record that is left", s.ID)
		}
	}
	return &r, errors.Join(errs...)
}

// encode writes the records for people who look at differences.
func (r *results) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	return b.Bytes(), nil
}

// put takes new records of one session: those that are known are replaced but for their words, others come behind the one before
// them, the first of all last in its table. Sessions that gave
// nothing that is left are dropped.
func (r *results) put(s session, fresh map[string][]record) error {
	names := map[string]bool{}
	for _, known := range r.Sessions {
		names[known.ID] = true
	}
	for n := 1; names[s.ID] || s.ID == ""; n++ {
		s.ID = strings.ReplaceAll(s.Date, "-", "")[2:] + letters(n)
	}
	for id, records := range fresh {
		i := slices.IndexFunc(r.Tables, func(t table) bool { return t.ID == id })
		if i < 0 {
			return fmt.Errorf("records: no table %q", id)
		}
		after := len(r.Tables[i].Records) - 1
		for _, rec := range records {
			rec.Source = s.ID
			at := slices.IndexFunc(r.Tables[i].Records, func(old record) bool { return old.ID == rec.ID })
			if at < 0 {
				after++
				r.Tables[i].Records = slices.Insert(r.Tables[i].Records, after, rec)
				continue
			}
			after = at
			old := r.Tables[i].Records[at]
			rec.What, rec.Less = old.What, old.Less
			if rec.Bar == nil {
				rec.Bar, rec.Asked = old.Bar, old.Asked
				rec.judge()
			}
			r.Tables[i].Records[at] = rec
		}
	}
	r.Sessions = append(r.Sessions, s)
	r.Sessions = slices.DeleteFunc(r.Sessions, func(s session) bool {
		return !slices.ContainsFunc(r.Tables, func(t table) bool {
			return slices.ContainsFunc(t.Records, func(rec record) bool { return rec.Source == s.ID })
		})
	})
	return nil
}

// judge says whether the bar is met, if there is one in numbers and nobody has said so.
func (r *record) judge() {
	if r.Bar == nil || r.Bar.Value == 0 || r.Met != nil {
		return
	}
	v := &r.Ours
	if r.Bar.Of == "ratio" {
		v = r.Ratio
	}
	if v == nil || v.Median == nil {
		return
	}
	met := *v.Median <= r.Bar.Value
	if r.Bar.Least {
		met = *v.Median >= r.Bar.Value
	}
	r.Met = &met
}

// letters counts from a to z, then aa and so on.
func letters(n int) string {
	s := ""
	for ; n > 0; n = (n - 1) / 26 {
		s = string(rune('a'+(n-1)%26)) + s
	}
	return s
}

// region is a part of the page that is made: a table, with its chart, or the list of sessions.
var region = regexp.MustCompile(`(?s)<!-- made from results\.json: ([a-z-]+) -->\n(.*?)<!-- end of it -->\n`)

// page fills in what is made from the records and leaves the words as they are. Every table must have its place.
func (r *results) page(words []byte) ([]byte, error) {
	made := map[string]string{"sessions": r.sessionsTable(), "short": r.shortTable()}
	for i := range r.Tables {
		t := &r.Tables[i]
		made[t.ID] = t.markdown()
		if c, drawn := charts[t.ID]; drawn {
			made[t.ID] += fmt.Sprintf("\n![%s](benchmarks/%s.svg)\n", c.alt, t.ID)
		}
	}
	var errs []error
	out := region.ReplaceAllFunc(words, func(old []byte) []byte {
		name := string(region.FindSubmatch(old)[1])
		text, known := made[name]
		if !known {
			errs = append(errs, fmt.Errorf("page: there is no table %q, or its place is there twice", name))
		}
		delete(made, name)
		return []byte("<!-- made from results.json: " + name + " -->\n" + text + "<!-- end of it -->\n")
	})
	for _, name := range slices.Sorted(maps.Keys(made)) {
		errs = append(errs, fmt.Errorf("page: no place for the table %q", name))
	}
	return out, errors.Join(errs...)
}

// markdown is the table for people. Columns that no record fills are left out.
func (t *table) markdown() string {
	main := t.Main
	if main == "" {
		main = "dunlin"
	}
	type column struct {
		head string
		of   func(r *record) string
	}
	columns := []column{{t.Head, func(r *record) string { return r.What }}}
	add := func(head string, of func(r *record) string) { columns = append(columns, column{head, of}) }
	ours := func() {
		add(main, func(r *record) string {
			if r.Note != "" {
				return r.Ours.String() + "; " + r.Note
			}
			return r.Ours.String()
		})
	}
	if !slices.Contains(t.Columns, "") {
		ours()
	}
	for _, name := range t.Columns {
		if name == "" {
			ours()
			continue
		}
		add(name, func(r *record) string {
			if v, some := r.More[name]; some {
				return v.String()
			}
			return ""
		})
	}
	add("peer", func(r *record) string { return r.Peer.String() })
	add("ratio", func(r *record) string { return r.Ratio.String() })
	add("asked for", func(r *record) string { return r.asked() })
	add("met", func(r *record) string {
		if r.Met == nil {
			return ""
		}
		return verdict(r.Met)
	})
	add("session", func(r *record) string {
		if r.Ours.Runs > 1 {
			return fmt.Sprintf("%s, %d runs", r.Source, r.Ours.Runs)
		}
		return r.Source
	})
	columns = slices.DeleteFunc(columns, func(c column) bool {
		return c.head != t.Head && !slices.ContainsFunc(t.Records, func(r record) bool { return c.of(&r) != "" })
	})
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "| %s ", c.head)
	}
	b.WriteString("|\n" + strings.Repeat("|---", len(columns)) + "|\n")
	for _, r := range t.Records {
		for _, c := range columns {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(c.of(&r), "|", "\\|"))
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// shortTable lists what falls short: of what was asked for, of the aim beyond that, of its peer.
func (r *results) shortTable() string {
	var b strings.Builder
	b.WriteString("| table | what | dunlin | peer | ratio | falls short of |\n|---|---|---|---|---|---|\n")
	for _, t := range r.Tables {
		for _, rec := range t.Records {
			if of := rec.short(); len(of) > 0 {
				cells := []string{t.ID, rec.What, rec.Ours.String(), rec.Peer.String(), rec.Ratio.String(), strings.Join(of, "; ")}
				for i := range cells {
					cells[i] = strings.ReplaceAll(cells[i], "|", "\\|")
				}
				b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
			}
		}
	}
	return b.String()
}

// short says of what a record falls short.
func (r *record) short() (of []string) {
	if r.Met != nil && !*r.Met {
		of = append(of, "what was asked for, "+r.asked())
	}
	if r.Bar != nil && r.Bar.Aim != 0 && (r.Met == nil || *r.Met) {
		aim := *r
		aim.Bar, aim.Met = &bar{Of: r.Bar.Of, Least: r.Bar.Least, Value: r.Bar.Aim}, nil
		if aim.judge(); aim.Met != nil && !*aim.Met {
			aim.Asked = ""
			of = append(of, "the aim, "+aim.asked())
		}
	}
	if r.Ratio != nil && r.Ratio.Median != nil && (r.Less && *r.Ratio.Median > 1 || !r.Less && *r.Ratio.Median < 1) {
		of = append(of, "its peer")
	}
	return of
}

func (r *results) sessionsTable() string {
	var b strings.Builder
	b.WriteString("| session | date | commit | machine | Go | beside it | command |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.Sessions {
		command := "`" + strings.ReplaceAll(s.Command, "|", "\\|") + "`"
		if s.Note != "" {
			command += "; " + s.Note
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", s.ID, s.Date, s.Commit, s.Machine, strings.TrimPrefix(s.Go, "go"), s.Peer, command)
	}
	return b.String()
}

// render writes page and charts of a folder of documents from its records.
func render(docs string) error {
	made, err := renderedFiles(docs)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		path := filepath.Join(docs, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // documents
			return err
		}
		if err := os.WriteFile(path, made[name], 0o644); err != nil { //nolint:gosec // documents
			return err
		}
	}
	return nil
}

const (
	resultsFile = "benchmarks/results.json"
	pageFile    = "benchmarks.md"
)

// renderedFiles are all files that follow from the records, and these themselves, by their names in the folder.
func renderedFiles(docs string) (map[string][]byte, error) {
	root, err := os.OpenRoot(docs)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	raw, err := fs.ReadFile(root.FS(), resultsFile)
	if err != nil {
		return nil, err
	}
	words, err := fs.ReadFile(root.FS(), pageFile)
	if err != nil {
		return nil, err
	}
	r, err := readResults(raw)
	if err != nil {
		return nil, err
	}
	made := map[string][]byte{}
	if made[pageFile], err = r.page(words); err != nil {
		return nil, err
	}
	if made[resultsFile], err = r.encode(); err != nil { // as a run would write it: differences are those of figures
		return nil, err
	}
	for i := range r.Tables {
		if c, drawn := charts[r.Tables[i].ID]; drawn {
			made["benchmarks/"+r.Tables[i].ID+".svg"] = c.draw(&r.Tables[i])
		}
	}
	return made, nil
}

// number is a value's median; NaN if it has none.
func (v *value) number() float64 {
	if v == nil || v.Median == nil {
		return math.NaN()
	}
	return *v.Median
}
