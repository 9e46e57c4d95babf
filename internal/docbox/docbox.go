// Package docbox reads the boxes of a Markdown document (fenced code) for tests that do what the document
// says. What is on paper is then what is executed. It runs nothing itself: TestTutorial and
// TestDocCommands of cmd/dunlin do, and tests whose name stands in a box.
//
// The first word after a fence is the language, the words behind it, which a reader does not see, say
// what to do with the box:
//
//	sh                run in bash to its end; it must succeed
//	sh until          run again and again until it does, and prints what the text box behind it says
//	sh terminal NAME  goes on in a terminal of that name
//	sh by TestX       run by that Go test, which asks [For] for its boxes
//	sh by ci:STEP     run by that step of .ci/run
//	sh not            run by nobody
//	text              what the sh box right before it prints; where there is none it is only shown
//	text terminal NAME          lines that appear there sooner or later
//	text terminal NAME ctrl-c   the same, after Ctrl-C there; the program must end well
//	text terminal NAME joins M  the same; then what stands behind "join me:" runs on machine M, in a terminal M
//
// All kinds of sh may have "on MACHINE". Other languages are shown only, but for those that a test knows.
package docbox

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// maxBytes is more than any document has.
const maxBytes = 4 << 20

// Box is a fenced block.
type Box struct {
	Line    int    // of its opening fence in the document, from 1
	Section string // the last heading of the second level before it, "" if there is none
	Kind    string // the words after the fence, one space between
	Text    string // each line with its end
}

// Is reports whether the first word of the kind is the language.
func (b Box) Is(language string) bool {
	return b.Kind == language || strings.HasPrefix(b.Kind, language+" ")
}

// Has reports whether a word stands behind the language.
func (b Box) Has(word string) bool { return b.at(word) > 0 }

// Value is the word behind a word such as "terminal"; "" if there is none.
func (b Box) Value(word string) string {
	words := strings.Fields(b.Kind)
	if i := b.at(word); i > 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

func (b Box) at(word string) int { return slices.Index(strings.Fields(b.Kind), word) }

// Before reports whether another box begins right behind this one, with at most one line between.
func (b Box) Before(next Box) bool {
	end := b.Line + strings.Count(b.Text, "\n") + 1
	return next.Line > end && next.Line <= end+2
}

// remark is what a line says to the reader, behind its command.
var remark = regexp.MustCompile(`(^|\s+)#( .*)?$`)

// Commands are the lines of the box without remarks, those that a backslash continues joined; empty ones are left out.
func (b Box) Commands() []string {
	var out []string
	joined := strings.ReplaceAll(b.Text, "\\\n", "")
	for line := range strings.Lines(joined) {
		if line = remark.ReplaceAllString(strings.TrimSpace(line), ""); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// Check says what is wrong with a box of language sh or text: a word that nobody knows, or one without its value.
func (b Box) Check() error {
	if !b.Is("sh") && !b.Is("text") {
		return nil
	}
	values := map[string][]string{"sh": {"terminal", "on", "by"}, "text": {"terminal", "joins"}}
	alone := map[string][]string{"sh": {"until", "not"}, "text": {"ctrl-c"}}
	words := strings.Fields(b.Kind)
	var errs []error
	for i := 1; i < len(words); i++ {
		switch {
		case slices.Contains(alone[words[0]], words[i]):
		case !slices.Contains(values[words[0]], words[i]):
			errs = append(errs, fmt.Errorf("line %d: a box of %s knows no word %q", b.Line, words[0], words[i]))
		case i+1 == len(words):
			errs = append(errs, fmt.Errorf("line %d: %s whom?", b.Line, words[i]))
		default:
			i++ // the value
		}
	}
	if b.Is("text") && b.Has("joins") && !b.Has("terminal") {
		errs = append(errs, fmt.Errorf("line %d: joins what runs in which terminal?", b.Line))
	}
	return errors.Join(errs...)
}

// Parse reads a document. Fences are three backticks at the beginning of a line.
func Parse(doc string) ([]Box, error) {
	var boxes []Box
	var open *Box
	section, n := "", 0
	for line := range strings.Lines(doc) {
		n++
		line = strings.TrimRight(line, "\r\n")
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &Box{Line: n, Section: section, Kind: strings.Join(strings.Fields(kind), " ")}
		case fence:
			boxes = append(boxes, *open)
			open = nil
		case open != nil:
			open.Text += line + "\n"
		case strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the box is not closed", open.Line)
	}
	return boxes, nil
}

// Read is Parse of a file, and Check of its boxes.
func Read(file string) ([]Box, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", file, len(raw), maxBytes)
	}
	boxes, err := Parse(string(raw))
	errs := []error{err}
	for _, b := range boxes {
		errs = append(errs, b.Check())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return boxes, nil
}

// For are the boxes of a file that say "by" and this name: what a Go test of that name is to run. None is an error: the
// test would prove nothing.
func For(file, name string) ([]Box, error) {
	boxes, err := Read(file)
	if err != nil {
		return nil, err
	}
	boxes = slices.DeleteFunc(boxes, func(b Box) bool { return b.Value("by") != name })
	if len(boxes) == 0 {
		return nil, fmt.Errorf("%s: no box says that it is run by %s", file, name)
	}
	return boxes, nil
}
