package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTestSuites: what tests tell becomes records, judged by the worst; what one told that failed does not.
func TestTestSuites(t *testing.T) {
	s := testSuite{
		name: "daemons",
		runs: []testRun{{pkg: "./cmd/dunlin", tags: "slow", tests: "^TestA$", parallel: 1}, {pkg: "./cmd/dunlin", tests: "^TestB$", env: []string{"LONG=1"}}},
		figures: []testFigure{
			{id: "gap", what: "the gap", unit: "s", bar: bar{Value: 3}, more: []moreFigure{{"blocks/s", "rate", ""}}},
			{id: "fair", what: "fairness", bar: bar{Least: true, Value: 0.95}},
			{id: "lost", what: "lost", unit: "blocks", none: true},
			{id: "never", what: "never told"},
		},
	}
	broken := errors.New("exit status 1")
	said := map[string]string{
		"^TestA$": "=== RUN   TestA\n=== ATTR  TestA figure daemons/gap 0.5\n=== ATTR  TestA/sub_test figure daemons/gap 3.5\n=== ATTR  TestA figure daemons/gap#rate 1500\n" +
			"=== ATTR  TestA figure daemons/lost 0\n=== ATTR  TestA other daemons/gap 9\n--- PASS: TestA (1.00s)\n    --- PASS: TestA/sub_test (1.00s)\n",
		"^TestB$": "=== ATTR  TestB figure daemons/fair 0.99\n=== ATTR  TestB/sub figure daemons/fair 0.96\n=== ATTR  TestC/sub figure daemons/lost 7\n--- FAIL: TestC (0.10s)\n    --- FAIL: TestC/sub\n",
	}
	out, err := s.measure(t.Context(), &allOptions{errs: io.Discard}, func(_ context.Context, _ *allOptions, r testRun) (string, error) {
		if r.tests == "^TestB$" {
			return said[r.tests], broken
		}
		return said[r.tests], nil
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "LONG=1 go test -v ./cmd/dunlin -run '^TestB$'") || !strings.Contains(err.Error(), "no test told daemons/never") {
		t.Error(err)
	}
	if want := "go test -tags slow -parallel 1 -v ./cmd/dunlin -run '^TestA$'; LONG=1 go test -v ./cmd/dunlin -run '^TestB$'"; out.session.Command != want {
		t.Errorf("command %q", out.session.Command)
	}
	var got []string
	for _, r := range out.records["daemons"] {
		more := r.More["blocks/s"]
		got = append(got, strings.Join([]string{r.ID, r.Ours.String(), more.String(), r.asked(), verdict(r.Met)}, " | "))
	}
	if want := []string{"daemons/gap | 2 (0.5–3.5) s | 1,500 | ≤3 s | NO", "daemons/fair | 0.975 (0.96–0.99) | – | ≥0.95 | yes", "daemons/lost | 0 blocks | – | none | yes"}; !slices.Equal(got, want) {
		t.Errorf("records %q", got)
	}
}

// TestTestsTell: each figure is told by a test of the package that is run for it, under the name that is looked for.
func TestTestsTell(t *testing.T) {
	for _, s := range testSuites {
		source := ""
		for _, r := range s.runs {
			files, err := filepath.Glob(filepath.Join("..", "..", r.pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				source += string(raw)
			}
			for _, test := range regexp.MustCompile(`Test[A-Za-z0-9]+`).FindAllString(alternatives(r.tests), -1) {
				if !strings.Contains(source, "func "+test+"(t *testing.T) {") {
					t.Errorf("%s: there is no %s", s.name, test)
				}
			}
		}
		for _, f := range s.figures {
			// Scenarios and cases of a table are named there.
			if name := f.id; !strings.Contains(source, `"`+s.name+"/"+name+`"`) && !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, `"`+strings.ReplaceAll(name, "-", " ")+`"`) {
				t.Errorf("no test tells %s/%s", s.name, name)
			}
		}
	}
}

// alternatives spells ^Test(A|B)$ out.
func alternatives(tests string) string {
	prefix, rest, several := strings.Cut(strings.Trim(tests, "^$"), "(")
	if !several {
		return prefix
	}
	return prefix + strings.ReplaceAll(strings.TrimSuffix(rest, ")"), "|", " "+prefix)
}
