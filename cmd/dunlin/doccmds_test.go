package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/docbox"
)

// docs are the documents whose sh boxes are all executed by tests, beside docs/tutorial.md (TestTutorial), from the root of
// the repository. TestDocCommands (slow, Linux, root) runs them on machines of their own, but for those that
// name who else does.
var docs = []string{"README.md", filepath.Join("deploy", "README.md")}

// unrun are the commands in those documents that no walk executes, and why. Everything else is run, or the test fails.
var unrun = map[string]map[string]string{
	"README.md": {
		"go test ./...": "this test is one of them: step_test of .ci/run is that command",
	},
	filepath.Join("deploy", "README.md"): {
		"kubectl apply -k deploy/kubernetes":                      "there is no cluster: step_kubernetes of .ci/run builds and checks what would be applied",
		"kubectl -n dunlin rollout status statefulset/dunlin":     "there is no cluster",
		"kubectl -n dunlin exec dunlin-0 -- dunlin status":        "there is no cluster",
		"kubectl -n dunlin scale statefulset/dunlin --replicas=5": "there is no cluster",
	},
}

// readers are the words that the reader replaces.
var readers = map[string]string{
	"ADDRESS": "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202", // of regtest
	"FILE":    "wallet.backup",
}

// stripped is what a walk runs of a box: the rest of its lines.
func stripped(doc string, b docbox.Box) []string {
	return slices.DeleteFunc(b.Commands(), func(c string) bool { return unrun[doc][c] != "" })
}

// TestDocBoxes: each command of the documents is run by somebody, who exists; no exception is left over.
func TestDocBoxes(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	ci, err := os.ReadFile(filepath.Join(root, ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(ci), "\n\tgo test ./...\n") {
		t.Error(".ci/run does not run README's test command as it stands there")
	}
	capitals := regexp.MustCompile(`(^|\s)[A-Z]{3,}($|\s)`)
	for _, doc := range docs {
		boxes, err := docbox.Read(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		met := map[string]bool{}
		for _, b := range boxes {
			if !b.Is("sh") {
				continue
			}
			for _, c := range b.Commands() {
				met[c] = true
				if why := unrun[doc][c]; b.Has("not") && why == "" {
					t.Errorf("%s: line %d: nobody runs %q, and no reason is given", doc, b.Line, c)
				}
				for _, w := range capitals.FindAllString(c, -1) {
					if readers[strings.TrimSpace(w)] == "" && !b.Has("not") && !b.Has("by") {
						t.Errorf("%s: line %d: what does the reader put for %s?", doc, b.Line, w)
					}
				}
			}
			if by := b.Value("by"); by != "" && !runsBoxes(t, root, string(ci), by) {
				t.Errorf("%s: line %d: %s does not exist, or does not ask for its boxes (docbox.For)", doc, b.Line, by)
			}
		}
		for c := range unrun[doc] {
			if !met[c] {
				t.Errorf("%s has no command %q: the exception is for nothing", doc, c)
			}
		}
	}
}

// runsBoxes reports whether there is a step of .ci/run or a Go test of that name, the latter with a call of docbox.For for itself.
func runsBoxes(t *testing.T, root, ci, by string) bool {
	t.Helper()
	if step, ok := strings.CutPrefix(by, "ci:"); ok {
		return strings.Contains(ci, "\nstep_"+step+"() {")
	}
	found := false
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || found {
			return err
		}
		if e.IsDir() && (e.Name() == "node_modules" || e.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		found = strings.Contains(string(raw), "func "+by+"(t *testing.T)") && strings.Contains(string(raw), "docbox.For(")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
