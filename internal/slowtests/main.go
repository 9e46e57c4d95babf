// Command slowtests prints which tests need not run again with the build tag slow, because without it they are the same: an expression for go
// test -skip. .ci/run has run them by then, and the packages with slow tests are those whose other tests take longest.
//
// A test that is there without the tag compiles without it, so it can only differ by what stands in a file that the tag leaves out, and in another one
// that it adds: const slow, how many rounds, how much patience. It differs if it, or anything of its package that it may reach, names
// such a thing. What it may reach is judged by names alone, whatever they stand for: that can only run too many tests, never too few. A test that is
// the same here and not in another of the packages given is run in both.
//
//	go test -tags slow -skip "$(go run ./internal/slowtests ./chain ./gossip)" ./chain ./gossip
package main

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

func main() {
	skip, err := skippable(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "slowtests:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, pattern(skip))
}

// pattern matches the names and nothing else; without names, nothing.
func pattern(names []string) string {
	if len(names) == 0 {
		return "^$"
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// skippable lists the tests that are the same with the tag in every folder that has them.
func skippable(dirs []string) ([]string, error) {
	same, other := map[string]bool{}, map[string]bool{}
	for _, dir := range dirs {
		p, err := load(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range p.tests() {
			if p.differs(name) {
				other[name] = true
			} else {
				same[name] = true
			}
		}
	}
	var skip []string
	for name := range same {
		if !other[name] {
			skip = append(skip, name)
		}
	}
	slices.Sort(skip)
	return skip, nil
}

// A pkg is what a folder declares, tests and all.
type pkg struct {
	names  map[string]map[string]bool // what each declared name's declarations name
	tagged map[string]bool            // names declared in files that the tag leaves out
	added  map[string]bool            // names declared in files that it adds
}

// with says for which of the other tags files count: those of this platform, as the tests that were run.
func with(slow bool) func(tag string) bool {
	return func(tag string) bool {
		return tag == "slow" && slow || tag == runtime.GOOS || tag == runtime.GOARCH || tag == "unix" || tag == "gc" || strings.HasPrefix(tag, "go1.")
	}
}

func load(dir string) (*pkg, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	p := &pkg{names: map[string]map[string]bool{}, tagged: map[string]bool{}, added: map[string]bool{}}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		before, after := included(f, false), included(f, true)
		if !before && !after {
			continue
		}
		for _, d := range f.Decls {
			p.add(d, before && !after, after && !before)
		}
	}
	return p, nil
}

// included evaluates a file's build constraint.
func included(f *ast.File, slow bool) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			if expr, err := constraint.Parse(c.Text); err == nil && !expr.Eval(with(slow)) {
				return false
			}
		}
	}
	return true
}

// add notes what a declaration declares, and all that it names.
func (p *pkg) add(d ast.Decl, tagged, added bool) {
	var declared []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		declared = append(declared, d.Name.Name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				declared = append(declared, s.Name.Name)
			case *ast.ValueSpec:
				for _, n := range s.Names {
					declared = append(declared, n.Name)
				}
			}
		}
	}
	for _, name := range declared {
		if p.names[name] == nil {
			p.names[name] = map[string]bool{}
		}
		if tagged {
			p.tagged[name] = true
		}
		if added {
			p.added[name] = true
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				p.names[name][id.Name] = true
			}
			return true
		})
	}
}

var testName = regexp.MustCompile(`^(Test|Fuzz|Example)($|[^a-z])`)

func (p *pkg) tests() (names []string) {
	for name := range p.names {
		if testName.MatchString(name) && name != "TestMain" && !p.added[name] {
			names = append(names, name)
		}
	}
	return names
}

// differs says whether a name reaches one that depends on the tag. What the package does before any test (init, TestMain) counts for all.
func (p *pkg) differs(test string) bool {
	seen := map[string]bool{}
	var reach func(name string) bool
	reach = func(name string) bool {
		if p.tagged[name] {
			return true
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		for other := range p.names[name] {
			if _, declared := p.names[other]; declared && reach(other) {
				return true
			}
		}
		return false
	}
	return reach(test) || reach("TestMain") || reach("init")
}
