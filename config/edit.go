package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// SetInFile sets one key in <home>/config.toml, which must exist, and returns the file's name. Values are texts as an environment variable has
// them: one, or any number for a list. All else in the file stays, comments too; it is replaced as a whole, by rename. A file in which the key
// stands in a form that this cannot change by its line (an inline table) is refused, and so is a value out of range.
func SetInFile(home, key string, values ...string) (string, error) {
	name := filepath.Join(home, FileName)
	data, err := readFile(name)
	if err != nil {
		return name, fmt.Errorf("config file: %w", err)
	}
	out, err := setTOML(name, data, key, values)
	if err != nil {
		return name, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return name, fmt.Errorf("config file: %w", err)
	}
	f, err := os.CreateTemp(home, FileName+".*.tmp")
	if err != nil {
		return name, fmt.Errorf("config file: %w", err)
	}
	_, err = f.Write(out)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return name, errors.Join(fmt.Errorf("config file %s: %w", name, err), os.Remove(f.Name()))
	}
	return name, nil
}

// setTOML returns data with a key set.
func setTOML(name string, data []byte, key string, values []string) ([]byte, error) {
	scratch := &Config{origins: map[string]string{}}
	fields := scratch.fields()
	at := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
	if at < 0 {
		return nil, &KeyError{Key: key, Problem: "unknown key" + suggestKey(fields, key)}
	}
	f := fields[at]
	if f.secret {
		return nil, fmt.Errorf("%s is for a person to write: it is never shown, so not written either", key)
	}
	if faults := scratch.setText(f, "", values); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	before, fault := parseTOML(name, data)
	if fault != nil {
		return nil, fault
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	section, last, _ := strings.Cut(key, ".")
	entry := []byte(last + " = " + f.format() + "\n")
	var from, to int
	if i := slices.IndexFunc(before, func(v tomlValue) bool { return v.key == key }); i >= 0 {
		from = before[i].line - 1
		left, _, found := bytes.Cut(lines[from], []byte("="))
		written := strings.ReplaceAll(strings.TrimSpace(string(left)), " ", "")
		if !found || written != last && written != key {
			return nil, fmt.Errorf("%s:%d: %s stands in a form that only a person can change", name, before[i].line, key)
		}
		entry = append(bytes.TrimRight(bytes.Clone(left), " \t"), " = "+f.format()+"\n"...)
		to = valueEnd(lines, from)
	} else {
		from, entry = place(lines, section, last, entry)
		to = from
	}
	out := bytes.Join(slices.Concat(lines[:from], [][]byte{entry}, lines[to:]), nil)
	after, fault := parseTOML(name, out)
	if fault != nil {
		return nil, fmt.Errorf("%s: %s could not be set: %w", name, key, fault)
	}
	if !onlyDiffer(before, after, key) {
		return nil, fmt.Errorf("%s: %s could not be set without touching others", name, key)
	}
	return out, nil
}

// valueEnd returns the line after the value that begins on line from: the fewest lines that are TOML by themselves.
func valueEnd(lines [][]byte, from int) int {
	for to := from + 1; to < len(lines); to++ {
		var v map[string]any
		if toml.Unmarshal(bytes.Join(lines[from:to], nil), &v) == nil {
			return to
		}
	}
	return len(lines)
}

// place returns where an entry of a section belongs: after its commented default as templates have it, else at the section's head, else in a
// section of its own at the end.
func place(lines [][]byte, section, last string, entry []byte) (int, []byte) {
	head := -1
	for i, line := range lines {
		text := strings.TrimSpace(string(line))
		switch {
		case head < 0:
			if text == "["+section+"]" {
				head = i
			}
		case strings.HasPrefix(text, "["):
			return head + 1, entry
		case strings.HasPrefix(text, "# "+last+" = "):
			if !bytes.HasSuffix(line, []byte("\n")) {
				entry = append([]byte("\n"), entry...)
			}
			return i + 1, entry
		}
	}
	if head >= 0 && bytes.HasSuffix(lines[head], []byte("\n")) {
		return head + 1, entry
	}
	newLine := ""
	if n := len(lines); n > 0 && len(lines[n-1]) > 0 {
		newLine = "\n"
	}
	if head >= 0 {
		return len(lines), append([]byte(newLine), entry...)
	}
	return len(lines), append([]byte(newLine+"\n["+section+"]\n"), entry...)
}

// onlyDiffer says whether two files say the same of all keys but one.
func onlyDiffer(a, b []tomlValue, key string) bool {
	rest := func(values []tomlValue) map[string]any {
		m := map[string]any{}
		for _, v := range values {
			table, empty := v.value.(map[string]any)
			if v.key != key && (!empty || len(table) > 0) { // a section that was empty says nothing
				m[v.key] = v.value
			}
		}
		return m
	}
	return reflect.DeepEqual(rest(a), rest(b))
}
