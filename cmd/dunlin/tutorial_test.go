package main

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"dunlin/internal/docbox"
)

// TestTutorial does what docs/tutorial.md says, box by box, and compares what it
// sees with what the reader is told to see. What the words of a box mean stands in internal/docbox; besides
// those there are
//
//	js console      lines typed into the browser's console
//	json console    what the console prints next
//
// An … stands for anything. Hashes that boxes show for one height must agree.
func TestTutorial(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "tutorial.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lockTutorialPorts(t)
	boxes, err := docbox.Parse(onFreePorts(t, string(doc)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(boxes) < 40 {
		t.Fatalf("%s has %d boxes only: was it read right?", path, len(boxes))
	}
	dir := t.TempDir()
	r := newWalk(t, func(string) *machine { return &machine{dir: dir, home: dir} })
	r.do(boxes)
	outputs := 0
	for _, b := range boxes {
		if b.Kind == "text" {
			outputs++
		}
	}
	if r.compared != outputs {
		t.Errorf("%d boxes show what is printed, %d were compared with it", outputs, r.compared)
	}
	for n := range r.terminals {
		t.Errorf("terminal %s is never told to end", n)
	}
}

// onFreePorts is the document with ports that nobody uses on this machine, below those that
// the system chooses, and below those that scripts and testnets choose.
func onFreePorts(t *testing.T, doc string) string {
	t.Helper()
	port := regexp.MustCompile(`\b19([12][01]\d)\b`)
	for _, thousands := range rand.Perm(4) {
		moved := port.ReplaceAllString(doc, strconv.Itoa(10+thousands)+"$1")
		free := true
		for _, p := range regexp.MustCompile(`\b`+strconv.Itoa(10+thousands)+`[12][01]\d\b`).FindAllString(moved, -1) {
			l, err := net.Listen("tcp", ":"+p)
			if free = free && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if free {
			return moved
		}
	}
	t.Fatal("no free ports for the tutorial")
	return ""
}

// lockTutorialPorts keeps two runs of this test on one machine from using the
// tutorial's ports at once.
func lockTutorialPorts(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "dunlin-tutorial-test.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if err := lockFile(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // which unlocks it
}
