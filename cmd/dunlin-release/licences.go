package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A licences finds the texts under which the modules in a binary may be passed on: all of these licences ask for them to go along with it.
type licences struct {
	folders map[string]string // of modules, by path@version; filled by the first call
}

func newLicences() *licences { return &licences{folders: map[string]string{}} }

// texts are the licences of one binary.
type texts struct {
	files map[string][]byte   // path@version/NAME
	ids   map[string][]string // SPDX identifiers by path@version; those of a choice or of parts, all of them
}

// standardLibrary stands among the modules for what every Go program contains.
const standardLibrary = "std"

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense|notice|patents|authors)([-._].*)?$`)

// of returns the licences of all modules that a binary has. A module without any is an error.
func (l *licences) of(ctx context.Context, dir string, info *buildinfo.BuildInfo) (*texts, error) {
	if len(l.folders) == 0 {
		if err := l.find(ctx, dir); err != nil {
			return nil, err
		}
	}
	t := &texts{files: map[string][]byte{}, ids: map[string][]string{}}
	var errs []error
	for _, m := range modulesOf(info) {
		folder := l.folders[m.key()]
		if m.path == standardLibrary {
			root, err := output(exec.CommandContext(ctx, "go", "env", "GOROOT"))
			if err != nil {
				return nil, err
			}
			folder = strings.TrimSpace(root)
		}
		if folder == "" {
			errs = append(errs, fmt.Errorf("licence of %s: the module is in the binary, but go list does not know it", m.key()))
			continue
		}
		entries, err := os.ReadDir(folder)
		if err != nil {
			errs = append(errs, fmt.Errorf("licence of %s: %w", m.key(), err))
			continue
		}
		found := false
		for _, e := range entries {
			name := e.Name()
			if !e.Type().IsRegular() || !licenceFile.MatchString(name) || strings.HasSuffix(name, ".go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				errs = append(errs, fmt.Errorf("licence of %s: %w", m.key(), err))
				continue
			}
			t.files[m.key()+"/"+name] = text
			found = found || !slices.ContainsFunc([]string{"notice", "patents", "authors"}, func(other string) bool { return strings.HasPrefix(strings.ToLower(name), other) })
			for _, id := range licenceIDs(text) {
				if !slices.Contains(t.ids[m.key()], id) {
					t.ids[m.key()] = append(t.ids[m.key()], id)
				}
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("licence of %s: no file in %s", m.key(), m.key()))
		}
		slices.Sort(t.ids[m.key()])
	}
	return t, errors.Join(errs...)
}

// find asks Go where the modules are.
func (l *licences) find(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-mod=readonly", "-m", "-json=Path,Version,Dir,Replace", "all")
	cmd.Dir = dir
	out, err := output(cmd)
	if err != nil {
		return err
	}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var m struct {
			Path, Version, Dir string
			Replace            *struct{ Path string }
		}
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("go list -m: %w", err)
		}
		if m.Replace != nil {
			return fmt.Errorf("module %s is replaced: a release has what go.mod requires and nothing else", m.Path)
		}
		l.folders[m.Path+"@"+m.Version] = m.Dir
	}
}

// A module is one in a binary.
type module struct{ path, version, sum string }

func (m module) key() string { return m.path + "@" + m.version }

// modulesOf lists what is in a binary besides ourselves, the standard library first.
func modulesOf(info *buildinfo.BuildInfo) []module {
	all := []module{{path: standardLibrary, version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		all = append(all, module{d.Path, d.Version, d.Sum})
	}
	return all
}

// licenceIDs tells which licences a text is, by words that only they have. None: a text that is not known here, or no licence but a notice.
func licenceIDs(text []byte) (ids []string) {
	words := " " + strings.ToLower(string(bytes.Join(bytes.Fields(text), []byte(" ")))) + " "
	has := func(parts ...string) bool {
		for _, p := range parts {
			if !strings.Contains(words, p) {
				return false
			}
		}
		return true
	}
	for _, c := range []struct {
		id string
		is bool
	}{
		{"MIT", has("permission is hereby granted, free of charge, to any person obtaining a copy", "the above copyright notice and this permission notice")},
		{"Apache-2.0", has("apache license", "version 2.0", "grant of patent license") || has("licensed under the apache license, version 2.0")},
		{"MPL-2.0", has("mozilla public license", "version 2.0", "source code form")},
		{"ISC", has("permission to use, copy, modify, and", "distribute this software for any purpose with or without fee is hereby granted")},
		{"BSD-3-Clause", has("redistribution and use in source and binary forms", "may be used to endorse or promote products")},
		{"BSD-2-Clause", has("redistribution and use in source and binary forms") && !has("may be used to endorse or promote products")},
		{"Unlicense", has("this is free and unencumbered software released into the public domain")},
		{"CC0-1.0", has("cc0 1.0 universal")},
	} {
		if c.is {
			ids = append(ids, c.id)
		}
	}
	return ids
}

// digest names bytes for messages.
func digest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
