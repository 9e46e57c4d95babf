package docbox_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/docbox"
)

const document = "# A\n```sh\none  # so\n# two\n\nthree \\\n  four\n```\n## B\n### b\n```  text   terminal x  joins second\n…\n```\r\n```toml\n## no heading\n```\n" +
	"```sh until on second\n```\n```sh by TestX\nx\n```\n```\nplain\n```\n"

func TestParse(t *testing.T) {
	t.Parallel()
	boxes, err := docbox.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	want := []docbox.Box{
		{2, "", "sh", "one  # so\n# two\n\nthree \\\n  four\n"},
		{11, "B", "text terminal x joins second", "…\n"},
		{14, "B", "toml", "## no heading\n"},
		{17, "B", "sh until on second", ""},
		{19, "B", "sh by TestX", "x\n"},
		{22, "B", "", "plain\n"},
	}
	if !slices.Equal(boxes, want) {
		t.Errorf("%+v", boxes)
	}
	if got := boxes[0].Commands(); !slices.Equal(got, []string{"one", "three   four"}) {
		t.Errorf("commands %q", got)
	}
	for i, want := range []bool{false, true, true, true, true} {
		if boxes[i].Before(boxes[i+1]) != want || boxes[i+1].Before(boxes[i]) {
			t.Errorf("box %d stands right before the next: %v", i, !want)
		}
	}
	b := boxes[1]
	if !b.Is("text") || b.Is("tex") || !b.Has("joins") || b.Has("text") || b.Value("terminal") != "x" || b.Value("second") != "" || b.Value("on") != "" {
		t.Errorf("%+v", b)
	}
	if _, err := docbox.Parse("a\n```sh\nb\n"); err == nil || err.Error() != "line 2: the box is not closed" {
		t.Errorf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for kind, wrong := range map[string]string{
		"sh": "", "sh until on b": "", "sh terminal 1 on b": "", "sh by TestX": "", "sh not": "", "text": "", "text terminal 1 ctrl-c": "", "yaml on": "", "": "",
		"sh repeat":    `line 7: a box of sh knows no word "repeat"`,
		"sh terminal":  "line 7: terminal whom?",
		"sh joins b":   `line 7: a box of sh knows no word "joins"`,
		"text joins b": "line 7: joins what runs in which terminal?",
	} {
		err := docbox.Box{Line: 7, Kind: kind}.Check()
		got := ""
		if err != nil {
			got, _, _ = strings.Cut(err.Error(), "\n")
		}
		if got != wrong {
			t.Errorf("%q: %q, want %q", kind, got, wrong)
		}
	}
}

func TestFor(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	boxes, err := docbox.For(file, "TestX")
	if err != nil || len(boxes) != 1 || boxes[0].Line != 19 {
		t.Errorf("%+v, %v", boxes, err)
	}
	if _, err := docbox.For(file, "TestY"); err == nil {
		t.Error("no box is no error")
	}
	if err := os.WriteFile(file, []byte("```sh by\n```\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := docbox.For(file, "TestX"); err == nil || !strings.Contains(err.Error(), file+": line 1: by whom?") {
		t.Errorf("error %v", err)
	}
}
