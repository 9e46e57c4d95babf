package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/internal/command"
)

var someTime = time.Unix(1_750_000_001, 0).UTC()

// TestPackIsAFunctionOfItsContent: the same files make the same bytes, and what was packed is what is unpacked.
func TestPackIsAFunctionOfItsContent(t *testing.T) {
	content := map[string]entry{"dunlin": {bytes.Repeat([]byte("elf"), 10_000), true}, "docs/a.md": {data: []byte("a")}, "README.md": {}, "b/c/d": {data: []byte{0}}}
	for _, goos := range []string{"linux", "windows"} {
		archive, extension, err := pack(goos, "dunlin_1.0.0", content, someTime)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 { // maps are walked in another order each time
			again, _, err := pack(goos, "dunlin_1.0.0", maps.Clone(content), someTime)
			if err != nil || !bytes.Equal(archive, again) {
				t.Fatalf("%s: packed again it differs (%v)", goos, err)
			}
		}
		folder, got, err := unpack("x"+extension, archive)
		if err != nil || folder != "dunlin_1.0.0" {
			t.Fatalf("%s: folder %q, %v", goos, folder, err)
		}
		for name, want := range content {
			if e := got[name]; !bytes.Equal(e.data, want.data) || e.executable != want.executable {
				t.Errorf("%s: %s came back as %d bytes, executable %v", goos, name, len(e.data), e.executable)
			}
		}
		if len(got) != len(content) {
			t.Errorf("%s: %d files came back of %d", goos, len(got), len(content))
		}
	}
}

// TestPackHasNoOwnersAndNoOrderOfItsOwn: what the programs of the receiver will see.
func TestPackHasNoOwnersAndNoOrderOfItsOwn(t *testing.T) {
	content := map[string]entry{"b": {data: []byte("b")}, "a": {executable: true}}
	archive, _, err := pack("linux", "f", content, someTime)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("gzip header has time %v and name %q", z.ModTime, z.Name)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(someTime) || len(h.PAXRecords) > 0 {
			t.Errorf("header %+v", h)
		}
	}
	if !slices.Equal(names, []string{"f/a", "f/b"}) {
		t.Errorf("names %q", names)
	}
}

// TestUnpackRefuses: archives are downloaded, too.
func TestUnpackRefuses(t *testing.T) {
	tarOf := func(headers ...*tar.Header) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, h := range headers {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = w.Close(), z.Close()
		return b.Bytes()
	}
	file := func(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	many := make([]*tar.Header, maxEntries+1)
	for i := range many {
		many[i] = file(fmt.Sprintf("f/%d", i))
	}
	var z bytes.Buffer
	zw := zip.NewWriter(&z)
	if _, err := zw.Create("f/../../x"); err != nil {
		t.Fatal(err)
	}
	_ = zw.Close()
	for _, c := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"x.tar.gz", tarOf(file("f/../../etc/passwd")), "does not belong"},
		{"x.tar.gz", tarOf(file("/etc/passwd")), "does not belong"},
		{"x.tar.gz", tarOf(file("lonely")), "does not belong"},
		{"x.tar.gz", tarOf(file("f/a"), file("g/a")), "two folders"},
		{"x.tar.gz", tarOf(file("f/a"), file("f/a")), "twice"},
		{"x.tar.gz", tarOf(&tar.Header{Typeflag: tar.TypeSymlink, Name: "f/a", Linkname: "/etc/passwd"}), "no plain file"},
		{"x.tar.gz", tarOf(many...), "more than"},
		{"x.tar.gz", []byte("no gzip stream"), "gzip"},
		{"x.zip", z.Bytes(), ""},
		{"x.zip", []byte("rubbish"), "zip"},
	} {
		if _, _, err := unpack(c.name, c.archive); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that says %q", c.name, err, c.want)
		}
	}
}

func TestLicenceIDs(t *testing.T) {
	const bsd = "Redistribution and use in source and binary\n   forms, with or without"
	for _, c := range []struct {
		text string
		want []string
	}{
		{"MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of …\nThe above copyright notice and this permission notice shall be", []string{"MIT"}},
		{"Apache License\n Version 2.0, January 2004 … 3. Grant of Patent License.", []string{"Apache-2.0"}},
		{bsd, []string{"BSD-2-Clause"}},
		{bsd + " … may be used to endorse\nor promote products", []string{"BSD-3-Clause"}},
		{"Mozilla Public License, version 2.0 … Source Code Form", []string{"MPL-2.0"}},
		{"Permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted", []string{"ISC"}},
		{"All rights reserved.", nil},
	} {
		if got := licenceIDs([]byte(c.text)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.40q is taken for %q, want %q", c.text, got, c.want)
		}
	}
}

func TestPURL(t *testing.T) {
	for path, want := range map[string]string{
		"github.com/cockroachdb/pebble/v2": "pkg:golang/github.com/cockroachdb/pebble/v2@v1.0.0%2Bincompatible",
		"example.org/a b":                  "pkg:golang/example.org/a%20b@v1.0.0%2Bincompatible",
	} {
		if got := purl(path, "v1.0.0+incompatible"); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestBuildEnv: what the builder has set does not reach the binary; where modules come from does not matter to it.
func TestBuildEnv(t *testing.T) {
	env := buildEnv([]string{"PATH=/bin", "GOFLAGS=-tags=evil", "CGO_ENABLED=1", "GOAMD64=v3", "GOPROXY=https://proxy", "GOCACHE=/mine"}, "plan9", "amd64", "/empty")
	for _, want := range []string{"PATH=/bin", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0", "GOAMD64=v1", "GOPROXY=https://proxy", "GOCACHE=/empty", "GOOS=plan9"} {
		name, _, _ := strings.Cut(want, "=")
		var got []string
		for _, kv := range env {
			if strings.HasPrefix(kv, name+"=") {
				got = append(got, kv)
			}
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%q in the environment, want %s once", got, want)
		}
	}
}

func TestReadBillRefuses(t *testing.T) {
	good := func() *bill {
		root := component{Type: "application", Ref: "r", Name: "dunlin", Version: "v1.0.0", PURL: "pkg:golang/dunlin@v1.0.0", Hashes: []hash{{"SHA-256", strings.Repeat("00", 32)}}, Licenses: []licensing{{licence{ID: "MIT"}}}}
		lib := component{Type: "library", Ref: "l", Name: "lib", Version: "v1.0.0", PURL: "pkg:golang/lib@v1.0.0", Licenses: []licensing{{licence{ID: "MIT"}}}}
		return &bill{
			Schema: schemaURL, Format: "CycloneDX", SpecVersion: cyclonedx, Serial: serial([32]byte{1}), Version: 1,
			Metadata: metadata{
				Timestamp: someTime.Format(time.RFC3339), Component: root,
				Tools: tools{[]component{{Type: "application", Name: "dunlin-release", Version: "v1.0.0"}}},
			}, Components: []component{lib},
			Dependencies: []dependency{{Ref: "r", DependsOn: []string{"l"}}},
		}
	}
	for name, spoil := range map[string]func(*bill){
		"":                          func(*bill) {},
		"it is SPDX":                func(b *bill) { b.Format = "SPDX" },
		"serial number":             func(b *bill) { b.Serial = "1" },
		"time":                      func(b *bill) { b.Metadata.Timestamp = "yesterday" },
		"is not named in full":      func(b *bill) { b.Components[0].Version = "" },
		"has no licence":            func(b *bill) { b.Components[0].Licenses = nil },
		"a licence has an id or":    func(b *bill) { b.Components[0].Licenses[0].License.Name = "too" },
		"is there twice":            func(b *bill) { b.Components = append(b.Components, b.Components[0]) },
		"dependency x is no":        func(b *bill) { b.Dependencies[0].DependsOn[0] = "x" },
		"the program has no hash":   func(b *bill) { b.Metadata.Component.Hashes = nil },
		`of type "operating-system`: func(b *bill) { b.Components[0].Type = "operating-system" },
	} {
		b := good()
		spoil(b)
		raw, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readBill(raw); (err != nil) != (name != "") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// project makes a repository with a program that does what the release asks of dunlin, and nothing else: it is built in seconds.
func project(t *testing.T) (dir string, git func(args ...string)) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module dunlin\n\ngo 1.26\n")
	write("cmd/dunlin/main.go", `package main

import "os"

var version = ""

func main() {
	switch os.Args[1] {
	case "version":
		println2("dunlin " + version + " (go)")
	case "completion":
		println2("complete dunlin for " + os.Args[2])
	case "man":
		for _, page := range []string{"man1/dunlin.1", "man1/dunlin-start.1", "man5/dunlin-config.toml.5"} {
			must(os.MkdirAll(os.Args[2]+"/"+page[:4], 0o755))
			must(os.WriteFile(os.Args[2]+"/"+page, []byte(".TH"), 0o644))
		}
	}
}

func println2(s string) { _, err := os.Stdout.WriteString(s + "\n"); must(err) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
`)
	for _, name := range []string{"README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "docs/cli.md", "docs/operations.md", "deploy/x"} {
		write(name, name+"\n")
	}
	git = func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "all")
	return dir, git
}

// TestReleaseFromTagToVerify builds a release of a small project twice, in different folders and from different places, and looks at it; then
// spoils it in each way that verify must see.
func TestReleaseFromTagToVerify(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is needed")
	}
	repo, git := project(t)
	args := func(out string, more ...string) []string {
		return append([]string{"build", "--repo", repo, "--out", out, "--targets", runtime.GOOS + "/" + runtime.GOARCH}, more...)
	}
	call := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != want {
			t.Fatalf("dunlin-release %q: exit code %d, want %d\n%s", args, code, want, &out)
		}
		return out.String()
	}
	dist := filepath.Join(t.TempDir(), "dist")
	if said := call(command.Misuse, args(dist)...); !strings.Contains(said, "has no tag") {
		t.Errorf("a commit without a tag: %s", said)
	}
	git("tag", "v1.2.3")
	// What is not committed is not in it.
	if err := os.WriteFile(filepath.Join(repo, "README.md"), []byte("not committed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	call(command.OK, args(dist)...)
	call(command.Misuse, args(dist)...) // not empty
	again := filepath.Join(t.TempDir(), "again")
	call(command.OK, args(again)...)
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if a, b := read(t, filepath.Join(dist, e.Name())), read(t, filepath.Join(again, e.Name())); !bytes.Equal(a, b) {
			t.Errorf("%s differs from the one of the second build", e.Name())
		}
	}
	name := "dunlin_1.2.3_" + runtime.GOOS + "_" + runtime.GOARCH
	if said := call(command.OK, "verify", dist); !strings.Contains(said, name) || !strings.Contains(said, "v1.2.3") {
		t.Errorf("verify says %s", said)
	}
	_, content, err := unpack(name+".tar.gz", read(t, filepath.Join(dist, name+".tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(content["README.md"].data); got != "README.md\n" {
		t.Errorf("README.md in the archive is %q: not the committed one", got)
	}
	if len(content["licences/std@"+strings.TrimPrefix(runtime.Version(), "go")+"/LICENSE"].data) == 0 {
		t.Errorf("no licence of Go among %q", slices.Sorted(maps.Keys(content)))
	}

	for want, spoil := range map[string]func(map[string]entry){
		"is missing": func(c map[string]entry) { delete(c, "README.md") },
		"no licence of std": func(c map[string]entry) {
			maps.DeleteFunc(c, func(n string, _ entry) bool { return strings.HasPrefix(n, "licences/") })
		},
		"no program dunlin":                 func(c map[string]entry) { c["dunlin"] = entry{data: c["dunlin"].data} },
		"of another binary":                 func(c map[string]entry) { c["dunlin"] = entry{append(slices.Clone(c["dunlin"].data), 0), true} },
		"is not the one beside it":          func(c map[string]entry) { c["sbom.cdx.json"] = entry{data: append(c["sbom.cdx.json"].data, '\n')} },
		"the completion dunlin.fish is mis": func(c map[string]entry) { delete(c, "completions/dunlin.fish") },
	} {
		spoilt := maps.Clone(content)
		spoil(spoilt)
		archive, extension, err := pack(runtime.GOOS, name, spoilt, someTime)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := writeRelease(dir, map[string][]byte{name + extension: archive, name + ".cdx.json": read(t, filepath.Join(dist, name+".cdx.json"))}); err != nil {
			t.Fatal(err)
		}
		if said := call(command.Failed, "verify", dir); !strings.Contains(said, want) {
			t.Errorf("verify says %q, want %q", said, want)
		}
	}
	// One bit of a download.
	archive := read(t, filepath.Join(again, name+".tar.gz"))
	archive[len(archive)/2] ^= 1
	if err := os.WriteFile(filepath.Join(again, name+".tar.gz"), archive, 0o644); err != nil {
		t.Fatal(err)
	}
	if said := call(command.Failed, "verify", again); !strings.Contains(said, "is not what SHA256SUMS says") {
		t.Errorf("verify of a changed file says %s", said)
	}
}

// TestSource: the version is the tag, and a snapshot's sorts before every release.
func TestSource(t *testing.T) {
	repo, git := project(t)
	at := func(snapshot bool) (source, error) {
		return sourceOf(t.Context(), options{repo: repo, commit: "HEAD", snapshot: snapshot})
	}
	git("tag", "not-a-version")
	if _, err := at(false); err == nil {
		t.Error("a commit without a version's tag is taken for a release")
	}
	src, err := at(true)
	if err != nil || !strings.HasPrefix(src.version, "v0.0.0-20260102030405-") || !src.time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("snapshot %+v, %v", src, err)
	}
	git("tag", "v0.3.0-rc.1")
	if src, err := at(true); err != nil || src.version != "v0.3.0-rc.1" {
		t.Errorf("version %q, %v", src.version, err)
	}
	git("tag", "v0.3.0")
	if _, err := at(false); err == nil || !strings.Contains(err.Error(), "2 versions") {
		t.Errorf("two versions on a commit: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"build", "extra"}, {"build", "--targets", "plan9/amd64"}, {"build", "--targets", "linux/amd64,linux/amd64"}, {"build", "--targets="}, {"verify"}, {"build", "--nonsense"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != command.Misuse {
			t.Errorf("%q: exit code %d, want %d\n%s", args, code, command.Misuse, &out)
		}
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"verify", t.TempDir()}, &out, &out); code != command.Failed {
		t.Errorf("a folder without a release: exit code %d\n%s", code, &out)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
