package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandIsScripted: each command that does something is run by a script of testdata/script.
func TestEveryCommandIsScripted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var scripts bytes.Buffer
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		scripts.Write(raw)
	}
	leaves := 0
	for _, cmd := range commands(newRoot()) {
		if cmd.HasAvailableSubCommands() {
			continue
		}
		leaves++
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(cmd.CommandPath()) + `\b`).Match(scripts.Bytes()) {
			t.Errorf("no script runs %s", cmd.CommandPath())
		}
	}
	if leaves < 50 {
		t.Errorf("%d commands only", leaves)
	}
}

// TestCLIReference: docs/cli.md is what the code makes.
func TestCLIReference(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := cliReference(newRoot()); !bytes.Equal(have, want) {
		t.Errorf("docs/cli.md is of another version of the commands; make it anew: go run ./cmd/dunlin man --markdown docs/cli.md")
	}
}

// TestReadmeCommands: what README.md and deploy/README.md name in passing are commands and flags that exist. (What they tell the
// reader to type is executed: TestDocCommands.)
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	root := newRoot()
	var raw []byte
	for _, doc := range docs {
		text, err := os.ReadFile(filepath.Join("..", "..", doc))
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, text...)
	}
	for _, m := range regexp.MustCompile("`(?:\\./)?dunlin ([^`]+)`").FindAllStringSubmatch(string(raw), -1) {
		line := strings.ReplaceAll(m[1], `\|`, "|")
		var words []string
		for w := range strings.FieldsSeq(strings.NewReplacer("[", " ", "]", " ", "|", " ").Replace(line)) {
			if strings.HasPrefix(w, "--") || strings.ToUpper(w) == w {
				break
			}
			words = append(words, w)
		}
		cmd, _, err := root.Find(words[:1])
		if err != nil || cmd == root {
			t.Errorf("README: dunlin %s: no such command", line)
			continue
		}
		for _, w := range words[1:] { // each is a child, or a sister of one
			child, _, err := cmd.Find([]string{w})
			if last, _, _ := root.Find(words); !last.HasAvailableSubCommands() && last != cmd && last.Name() != w {
				break // an argument
			}
			if err != nil || child == cmd {
				t.Errorf("README: dunlin %s: %s has no %s", line, cmd.CommandPath(), w)
			}
		}
		for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(line, -1) {
			if f[1] != "help" && !anyFlag(root, words, f[1]) {
				t.Errorf("README: dunlin %s: no flag --%s", line, f[1])
			}
		}
	}
}

func anyFlag(root *cobra.Command, words []string, name string) bool {
	for i := range words {
		if cmd, _, err := root.Find(words[:i+1]); err == nil && cmd.Flags().Lookup(name) != nil {
			return true
		}
		if len(words) > 1 {
			if cmd, _, err := root.Find([]string{words[0], words[i]}); err == nil && cmd.Flags().Lookup(name) != nil {
				return true
			}
		}
	}
	return false
}

// TestManPages: every command has its page, in roff that has no line which it would take for a request by mistake.
func TestManPages(t *testing.T) {
	t.Parallel()
	pages := manPages(newRoot())
	for _, cmd := range commands(newRoot()) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		if pages[name] == nil {
			t.Errorf("no page %s", name)
		}
	}
	request := regexp.MustCompile(`^\.(TH|SH|PP|TP|B|BR|br|nf|fi)( |$)`)
	for name, page := range pages {
		for i, line := range strings.Split(string(page), "\n") {
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !request.MatchString(line) {
				t.Errorf("%s:%d: %q", name, i+1, line)
			}
		}
		for _, want := range []string{".TH ", ".SH NAME\n", ".SH DESCRIPTION\n"} {
			if !bytes.Contains(page, []byte(want)) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
	}
}

// TestRoff: what roff would read as its own is escaped.
func TestRoff(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{".x": `\&.x`, "'x": `\&'x`, `a\b`: `a\eb`, "--x": `\-\-x`, "a\nb": "a b", "": ""} {
		if got := roff(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestSecurityNames: the tests that SECURITY.md names as the proof of what it claims exist.
func TestSecurityNames(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var names strings.Builder // of all tests
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "node_modules" || e.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(raw, -1) {
			names.WriteString("\n" + string(m[1]) + "(")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)(…?)`").FindAllStringSubmatch(string(doc), -1) {
		found++
		want := "\n" + m[1]
		if m[2] == "" {
			want += "("
		}
		if !strings.Contains(names.String(), want) {
			t.Errorf("SECURITY.md names %s, which does not exist", m[1])
		}
	}
	if found < 80 {
		t.Errorf("%d names only", found)
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)

var (
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	docFence   = regexp.MustCompile("(?ms)^```.*?^```$")
	notInSlug  = regexp.MustCompile(`[^\pL\pN _-]`)
)

// TestDocLinks: what a document points at within the repository is there, with its heading.
func TestDocLinks(t *testing.T) {
	slugs := func(path string) []string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range docHeading.FindAllStringSubmatch(docFence.ReplaceAllString(string(raw), ""), -1) {
			out = append(out, strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), ""), " ", "-"))
		}
		return out
	}
	links := 0
	for _, pattern := range []string{"*.md", "deploy/*.md", "docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range docLink.FindAllStringSubmatch(docFence.ReplaceAllString(string(raw), ""), -1) {
				path, heading, anchored := strings.Cut(m[1], "#")
				if strings.Contains(path, ":") {
					continue // elsewhere
				}
				links++
				target := file
				if path != "" {
					target = filepath.Join(filepath.Dir(file), path)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: link %s: %v", file, m[1], err)
				} else if anchored && !slices.Contains(slugs(target), heading) {
					t.Errorf("%s: link %s: no such heading", file, m[1])
				}
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links found", links)
	}
}
