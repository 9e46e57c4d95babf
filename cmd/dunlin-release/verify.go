package main

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	serialPattern = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	sumLine       = regexp.MustCompile(`^([0-9a-f]{64})  ([A-Za-z0-9._-]+)$`)
	archiveFile   = regexp.MustCompile(`^(dunlin_(.+)_([a-z0-9]+)_([a-z0-9]+))(\.tar\.gz|\.zip)$`)
)

// verify looks at the files of a release and says of each archive what it found.
func verify(dir string) (found []string, err error) {
	files, err := readSums(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	versions := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		m := archiveFile.FindStringSubmatch(name)
		if m == nil {
			if !strings.HasSuffix(name, ".cdx.json") {
				errs = append(errs, fmt.Errorf("%s: neither an archive nor a bill of materials", name))
			}
			continue
		}
		versions[m[2]] = true
		line, err := verifyArchive(name, m[1], "v"+m[2], m[3], m[4], files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		found = append(found, name+": "+line)
	}
	if len(versions) != 1 {
		errs = append(errs, fmt.Errorf("%s has archives of %d versions", dir, len(versions)))
	}
	return found, errors.Join(errs...)
}

// readSums reads all files that SHA256SUMS names. Others, such as its signature, are nothing to it.
func readSums(dir string) (map[string][]byte, error) {
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	var errs []error
	for line := range strings.Lines(string(sums)) {
		m := sumLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fmt.Errorf("%s: line %q", sumsFile, line)
		}
		data, err := os.ReadFile(filepath.Join(dir, m[2]))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if got := digest(data); got != m[1] {
			errs = append(errs, fmt.Errorf("%s is not what %s says: %s", m[2], sumsFile, got))
		}
		files[m[2]] = data
	}
	return files, errors.Join(errs...)
}

// verifyArchive checks one archive against its name, its bill of materials and itself.
func verifyArchive(name, folder, version, goos, goarch string, files map[string][]byte) (string, error) {
	top, content, err := unpack(name, files[name])
	if err != nil {
		return "", err
	}
	if top != folder {
		return "", fmt.Errorf("its folder is %s", top)
	}
	program := content[programName(goos)]
	if !program.executable {
		return "", fmt.Errorf("no program %s that may be executed", programName(goos))
	}
	info, err := buildinfo.Read(bytes.NewReader(program.data))
	if err != nil {
		return "", err
	}
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for name, value := range map[string]string{"GOOS": goos, "GOARCH": goarch, "CGO_ENABLED": "0", "-trimpath": "true", "vcs.modified": ""} {
		got := setting(info, name)
		want(got == value, "the binary has %s=%q, want %q", name, got, value)
	}
	want(info.Path == "dunlin/cmd/dunlin", "the binary is %s", info.Path)
	want(bytes.Contains(program.data, []byte(version)), "the binary does not say that it is %s", version)
	want(!bytes.Contains(program.data, []byte(workPattern)) && !bytes.Contains(program.data, []byte("/pkg/mod/github.com/")), "the binary has paths of the machine that built it")

	outside, inside := files[folder+".cdx.json"], content["sbom.cdx.json"].data
	want(len(inside) > 0 && bytes.Equal(outside, inside), "the bill of materials inside is not the one beside it")
	b, err := readBill(inside)
	if err != nil {
		return "", errors.Join(append(errs, err)...)
	}
	want(b.Metadata.Component.Version == version, "the bill of materials is of %s", b.Metadata.Component.Version)
	want(len(b.Metadata.Component.Hashes) == 1 && b.Metadata.Component.Hashes[0].Content == digest(program.data), "the bill of materials is of another binary")
	listed := map[string]string{}
	for _, c := range b.Components {
		sum := ""
		for _, p := range c.Properties {
			if p.Name == "dunlin:go.sum" {
				sum = p.Value
			}
		}
		listed[c.Name+"@"+c.Version] = sum
	}
	modules := modulesOf(info)
	want(len(listed) == len(modules), "the bill of materials has %d components, the binary %d", len(listed), len(modules))
	for _, m := range modules {
		sum, there := listed[m.key()]
		want(there && sum == m.sum, "the bill of materials has not %s %s", m.key(), m.sum)
		want(slices.ContainsFunc(slices.Collect(maps.Keys(content)), func(path string) bool { return strings.HasPrefix(path, "licences/"+m.key()+"/") }), "no licence of %s", m.key())
	}
	for _, path := range []string{"README.md", "LICENSE", "CHANGELOG.md", "man/man1/dunlin.1", "man/man1/dunlin-start.1", "man/man5/dunlin-config.toml.5", "docs/cli.md", "docs/operations.md"} {
		want(len(content[path].data) > 0, "%s is missing", path)
	}
	for _, file := range completions {
		want(bytes.Contains(content["completions/"+file].data, []byte("dunlin")), "the completion %s is missing", file)
	}
	return fmt.Sprintf("%s %s, %s, static, %d modules, %d files", info.Path, version, info.GoVersion, len(info.Deps), len(content)), errors.Join(errs...)
}
