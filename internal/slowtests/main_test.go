package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("package x\n\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSkippable(t *testing.T) {
	a := write(t, map[string]string{
		"product.go": "func product() int { return 1 }\ntype thing struct{}\nfunc (thing) deep() bool { return slow }\n",
		"a_test.go": `
func TestPlain(t *testing.T)   { _ = product() }
func TestDirect(t *testing.T)  { if slow { return } }
func TestThrough(t *testing.T) { helper() }
func TestMethod(t *testing.T)  { thing{}.deep() }
func TestTable(t *testing.T)   { for range table {} }
func TestShared(t *testing.T)  {}
func FuzzPlain(f *testing.F)   {}
func Testament()               {}
var table = []int{rounds}
func helper() { other() }
func other()  { helper(); _ = slow }
`,
	})
	tagged := func(constraint, text string) string { return "//go:build " + constraint + "\n\npackage x\n\n" + text }
	for name, text := range map[string]string{
		"slow_test.go": tagged("slow", "const slow = true\nconst rounds = 9\nfunc TestOnlySlow(t *testing.T) {}\n"),
		"fast_test.go": tagged("!slow", "const slow = false\nconst rounds = 1\n"),
		"race_test.go": tagged("race && slow", "func product() int { return 2 }\n"),
		"none_test.go": tagged("ignore", "func TestIgnored(t *testing.T) {}\n"),
	} {
		if err := os.WriteFile(filepath.Join(a, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := skippable([]string{a})
	if want := []string{"FuzzPlain", "TestPlain", "TestShared"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("skippable %q, %v, want %q", got, err, want)
	}
	// The same name elsewhere, where it is another with the tag: it is run in both.
	b := write(t, map[string]string{"b_test.go": "func TestShared(t *testing.T) { _ = pace }\nfunc TestB(t *testing.T) {}\n"})
	if err := os.WriteFile(filepath.Join(b, "s_test.go"), []byte(tagged("!slow", "const pace = 1\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err = skippable([]string{a, b})
	if want := []string{"FuzzPlain", "TestB", "TestPlain"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("skippable in both %q, %v, want %q", got, err, want)
	}
	// A package that begins differently has no test that is the same.
	c := write(t, map[string]string{"c_test.go": "func TestC(t *testing.T) {}\nfunc TestMain(m *testing.M) { begin() }\n"})
	if err := os.WriteFile(filepath.Join(c, "s_test.go"), []byte(tagged("!slow", "func begin() {}\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err = skippable([]string{c}); err != nil || len(got) > 0 {
		t.Errorf("skippable %q, %v, want none", got, err)
	}
	if _, err := skippable([]string{t.TempDir()}); err == nil {
		t.Error("a folder without Go is taken")
	}
	if got := pattern(nil); got != "^$" {
		t.Errorf("no names give %q", got)
	}
}

// TestOurs: what is known to be slow is not skipped, and what is not is.
func TestOurs(t *testing.T) {
	skip, err := skippable([]string{"../../chain", "../../chain/ibd", "../../cmd/dunlin", "../../discovery", "../../gossip"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TestFullBlocks", "TestE2EKill9", "TestNetnsCable", "TestDig"} {
		if slices.Contains(skip, name) {
			t.Errorf("%s would be skipped", name)
		}
	}
	for _, name := range []string{"TestE2EHostileWire", "TestEclipse", "TestCLIReference"} {
		if !slices.Contains(skip, name) {
			t.Errorf("%s would run twice", name)
		}
	}
	t.Logf("%d tests run once", len(skip))
}
