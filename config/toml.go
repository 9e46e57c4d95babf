package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFileBytes bounds config.toml and network.toml.
const maxFileBytes = 1 << 20

// readFile reads at most maxFileBytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", path, maxFileBytes)
	}
	return data, nil
}

// A tomlValue is one key of a file with the line it stands on.
type tomlValue struct {
	key   string // dotted
	value any
	line  int
}

// parseTOML returns the keys of a file, flattened, in the order of their lines.
// file is the name that faults carry.
func parseTOML(file string, data []byte) ([]tomlValue, *KeyError) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		from := file
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, column := e.Position()
			from = fmt.Sprintf("%s:%d:%d", file, row, column)
		}
		return nil, &KeyError{From: from, Problem: "is no TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
	}
	lines := keyLines(data)
	var out []tomlValue
	flatten("", tree, lines, 0, &out)
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].line != out[j].line {
			return out[i].line < out[j].line
		}
		return out[i].key < out[j].key
	})
	return out, nil
}

// keyLines maps each dotted key, and each table, to the first line it stands on.
// go-toml's decoder tells no positions of values that it could decode, so this
// walks its syntax tree; data has been decoded before, so it is well formed.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue && e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
			continue
		}
		key := ""
		if e.Kind == unstable.KeyValue {
			key = table
		}
		for it := e.Key(); it.Next(); {
			n := it.Node()
			key = join(key, string(n.Data))
			if _, known := lines[key]; !known {
				lines[key] = p.Shape(n.Raw).Start.Line
			}
		}
		if e.Kind != unstable.KeyValue {
			table = key
		}
	}
	return lines
}

func flatten(prefix string, tree map[string]any, lines map[string]int, line int, out *[]tomlValue) {
	for name, v := range tree {
		key := join(prefix, name)
		at := line // keys inside an inline table stand where the table does
		if l, ok := lines[key]; ok {
			at = l
		}
		if sub, ok := v.(map[string]any); ok && len(sub) > 0 {
			flatten(key, sub, lines, at, out)
			continue
		}
		*out = append(*out, tomlValue{key: key, value: v, line: at})
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}

// showTOML writes a decoded value as it may have stood in the file.
func showTOML(v any) string {
	if s, ok := v.(string); ok {
		return quote(s)
	}
	raw, err := toml.Marshal(map[string]any{"v": v})
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(string(bytes.TrimPrefix(raw, []byte("v = "))))
}

// apply sets fields from the keys of a file. It returns where each key it knows
// was set, and every fault.
func applyTOML(fields []field, file string, values []tomlValue) (origins map[string]string, faults []error) {
	origins = map[string]string{}
	byKey := map[string]field{}
	for _, f := range fields {
		byKey[f.key] = f
	}
	for _, v := range values {
		from := fmt.Sprintf("%s:%d", file, v.line)
		f, ok := byKey[v.key]
		if !ok {
			// An empty section says nothing and harms nothing.
			if sub, isTable := v.value.(map[string]any); isTable && len(sub) == 0 && isSection(fields, v.key) {
				continue
			}
			faults = append(faults, &KeyError{From: from, Key: clip(v.key), Value: clip(showTOML(v.value)), Problem: "unknown key" + suggestKey(fields, v.key)})
			continue
		}
		origins[f.key] = from
		problem := f.setTOML(v.value)
		if problem == "" {
			problem = f.check()
		}
		if problem != "" {
			faults = append(faults, f.fault(from, showTOML(v.value), problem))
		}
	}
	return origins, faults
}

func isSection(fields []field, name string) bool {
	for _, f := range fields {
		if strings.HasPrefix(f.key, name+".") {
			return true
		}
	}
	return false
}

// suggestKey says what an unknown key may have been meant to be: the same name
// in another section, or a similar one.
func suggestKey(fields []field, key string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	var sameName, all []string
	for _, f := range fields {
		all = append(all, f.key)
		if f.key[strings.LastIndexByte(f.key, '.')+1:] == last {
			sameName = append(sameName, f.key)
		}
	}
	if len(sameName) > 0 {
		return ", did you mean " + strings.Join(sameName, " or ") + "?"
	}
	if near := Nearest(key, all); near != "" {
		return ", did you mean " + near + "?"
	}
	return "; `dunlin config show` lists all"
}
