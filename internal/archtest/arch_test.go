// Package archtest enforces the rules that ARCHITECTURE.md states about the
// whole tree: who may import whom, which packages may know libp2p, who may start
// goroutines, who may read the clock, and that every package says what it is.
package archtest

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "dunlin"

// mayImport lists, for each package of this module, the packages of this module
// that its non-test files may import directly. A package that is missing may
// import none; "*" is the wiring's privilege.
var mayImport = map[string][]string{
	"config":                     {"chain/consensus"},
	"chain":                      {"chain/store", "chain/consensus"},
	"chain/chaintest":            {"chain", "chain/consensus"},
	"chain/store":                {"chain/consensus"},
	"chain/consensus":            {"chain/consensus/secp256k1"},
	"chain/consensus/secp256k1":  {},
	"chain/consensus/pow":        {"chain/consensus"},
	"chain/consensus/pos":        {"chain/consensus", "chain/consensus/secp256k1"},
	"chain/consensus/enginetest": {"chain/consensus", "chain/consensus/pos"},
	"chain/mempool":              {"chain", "chain/consensus"},
	"chain/mining":               {"chain", "chain/consensus", "chain/mempool"},
	"chain/staking":              {"chain", "chain/consensus", "chain/consensus/pos"},
	"chain/relay":                {"chain/consensus"},
	"chain/ibd":                  {},
	"chain/index":                {"chain", "chain/store", "chain/consensus"},
	"chain/exchange":             {"chain", "chain/consensus", "chain/ibd"},
	"discovery":                  {"discovery/internal/lines", "discovery/internal/mdns"},
	"discovery/internal/lines":   {},
	"discovery/internal/mdns":    {},
	"discovery/seeder":           {"discovery", "discovery/internal/lines"},
	"gossip":                     {},
	"internal/address":           {"chain/consensus"},
	"internal/jsonrpc":           {"chain", "chain/consensus", "chain/consensus/pos", "chain/mempool", "chain/mining", "internal/address", "internal/api", "internal/wallet", "internal/wallet/spend"},
	"internal/gbt":               {"chain/consensus", "chain/consensus/pow"},
	"internal/chart":             {},
	"internal/command":           {},
	"internal/faucet":            {},
	"internal/logs":              {"internal/ring"},
	"internal/ring":              {},
	"internal/host":              {},
	"internal/api":               {"chain/consensus", "internal/ring", "internal/web"},
	"internal/web":               {},
	"internal/wallet":            {"chain/consensus", "internal/address", "internal/wallet/descriptor", "internal/wallet/keys", "internal/wallet/spend"},
	"internal/simnet":            {},
	"internal/testnet":           {"config", "internal/api", "internal/chart", "internal/host", "chain/consensus", "chain/store"},
	"internal/netlab":            {}, // for tests only
	"internal/docbox":            {}, // for tests only
	"internal/flood":             {"gossip", "chain/relay", "chain/consensus"},
	"internal/wallet/keys":       {"chain/consensus"},
	"internal/wallet/descriptor": {"chain/consensus", "internal/address", "internal/wallet/keys"},
	"internal/wallet/spend":      {"internal/wallet/descriptor", "internal/wallet/keys", "chain/consensus"},
	"internal/node":              {"*"},
	"cmd/dunlin":                 {"*"},
	"cmd/dunlin-release":         {"internal/command"},
	"cmd/dunlin-bench":           {"internal/api", "internal/chart", "internal/command", "internal/simnet", "chain/consensus", "internal/flood", "chain/consensus/enginetest", "discovery", "gossip"},
}

// libraries may be imported by other modules: they take an Options struct and
// know neither config nor internal.
var libraries = []string{"discovery", "gossip", "chain"}

// mayUseLibp2p lists the packages that may depend, directly or not, on libp2p.
var mayUseLibp2p = []string{
	"discovery", "discovery/seeder", "gossip", "chain/exchange",
	"internal/flood", "internal/host", "internal/logs", "internal/node", "internal/simnet", "internal/testnet", "internal/wallet", "cmd/dunlin", "cmd/dunlin-bench",
}

// simulation is for tests and measurements: no product may contain it, not even where
// mayImport allows everything. It knows nothing of ours, so that the tests of a
// library may use it (and nothing else that is internal): whoever takes the library
// does not get its tests.
const simulation = "internal/simnet"

var mayContainSimulation = []string{simulation, "cmd/dunlin-bench"}

// mayStartGoroutines lists the packages in which a go statement may appear. The
// goroutine table of ARCHITECTURE.md says who waits for each.
var mayStartGoroutines = []string{
	"chain", "chain/chaintest", "chain/store", "chain/consensus/pow", "chain/consensus/enginetest", "chain/exchange", "chain/mempool", "chain/mining",
	"discovery", "discovery/internal/mdns", "discovery/seeder", "gossip",
	"internal/api", "internal/flood", "internal/gbt", "internal/host", "internal/node", "internal/simnet", "internal/testnet", "internal/wallet", "cmd/dunlin", "cmd/dunlin-bench",
}

// pure lists the packages that may not read the clock, sleep or draw random
// numbers: they take the time and the seed as arguments.
var pure = []string{"chain/consensus", "chain/consensus/secp256k1", "chain/consensus/pow", "chain/consensus/pos", "chain/ibd", "chain/relay", "internal/wallet/spend"}

var (
	clockFuncs = []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"}
	// banned are calls that no non-test file may make, and why.
	banned = map[string]string{
		"os.Exit":            "only a command's main.go decides to exit",
		"context.TODO":       "take ctx from the caller",
		"context.Background": "take ctx from the caller",
		"slog.Default":       "use the logger you were given",
		"slog.SetDefault":    "use the logger you were given",
		"time.After":         "use a timer you stop",
		"time.Tick":          "use a ticker you stop",
	}
	bannedExcept = map[string][]string{
		"os.Exit": {"cmd/dunlin/main.go", "cmd/dunlin-bench/main.go", "cmd/dunlin-release/main.go", "internal/slowtests/main.go"},
		// Logging interfaces of libraries that hand over no context.
		"context.Background": {"cmd/dunlin/main.go", "cmd/dunlin-bench/main.go", "cmd/dunlin-release/main.go", "chain/store/index.go", "internal/logs/libp2p.go"},
		// What other libraries write through it must end in our log.
		"slog.SetDefault": {"internal/logs/libp2p.go"},
	}
)

type pkg struct {
	ImportPath, Dir, Doc string
	GoFiles              []string
	Imports, Deps        []string

	TestImports, XTestImports []string
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func TestArchitecture(t *testing.T) {
	for _, p := range list(t) {
		t.Run(p.name(), func(t *testing.T) {
			for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
				dep, ours := strings.CutPrefix(imp, module+"/")
				if ours && isLibrary(p.name()) && dep != simulation && (dep == "config" || strings.HasPrefix(dep, "internal/")) {
					t.Errorf("a test of a library imports %s", dep)
				}
			}
			if len(p.GoFiles) == 0 {
				return
			}
			if p.Doc == "" {
				t.Error("no package comment")
			}
			allowed := mayImport[p.name()]
			for _, imp := range p.Imports {
				dep, ours := strings.CutPrefix(imp, module+"/")
				if ours && !slices.Contains(allowed, dep) && !slices.Contains(allowed, "*") {
					t.Errorf("imports %s: not in mayImport", dep)
				}
				if ours && isLibrary(p.name()) && (dep == "config" || strings.HasPrefix(dep, "internal/")) {
					t.Errorf("a library imports %s", dep)
				}
			}
			if !slices.Contains(mayUseLibp2p, p.name()) {
				for _, dep := range p.Deps {
					if strings.HasPrefix(dep, "github.com/libp2p/") {
						t.Errorf("depends on %s: not in mayUseLibp2p", dep)
					}
				}
			}
			if slices.Contains(p.Deps, module+"/"+simulation) && !slices.Contains(mayContainSimulation, p.name()) {
				t.Errorf("depends on %s, which is for tests", simulation)
			}
			for _, f := range p.GoFiles {
				checkFile(t, p, f)
			}
		})
	}
}

// notInProgram lists what the daemon's program may not contain, not even through others, and why. What a package is tested with is free.
var notInProgram = map[string]string{
	"html/template":                      "it calls methods by name, so the linker keeps every exported method of every type: 7 MB",
	"github.com/libp2p/go-libp2p":        "it brings WebRTC and WebTransport: internal/host is put together from its parts (decision 0013)",
	"github.com/pion/webrtc/v4":          "no address of ours uses WebRTC: 3 MB",
	"github.com/quic-go/webtransport-go": "no address of ours uses WebTransport: 1 MB, with HTTP/3",
	"go.uber.org/fx":                     "parts are wired by hand",
	"net/http/pprof":                     "it registers handlers on a global mux",
}

// TestProgram keeps the program small: deploy's test holds the image, which is nothing else, below 45 MB.
func TestProgram(t *testing.T) {
	for _, p := range list(t) {
		if p.name() != "cmd/dunlin" {
			continue
		}
		for _, dep := range p.Deps {
			if why, no := notInProgram[dep]; no {
				t.Errorf("the program contains %s: %s", dep, why)
			}
		}
		return
	}
	t.Fatal("no cmd/dunlin")
}

// TestNoCgo holds the promise that the product builds without a C compiler.
func TestNoCgo(t *testing.T) {
	for _, p := range list(t) {
		if slices.Contains(p.Imports, "C") {
			t.Errorf("%s imports C", p.name())
		}
	}
}

// TestTopLevel holds the promise that a new top-level folder needs a decision
// record.
func TestTopLevel(t *testing.T) {
	want := []string{".ci", "chain", "cmd", "config", "deploy", "discovery", "docs", "gossip", "internal"}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != ".git" && !slices.Contains(want, e.Name()) {
			t.Errorf("top-level folder %s: not in DESIGN, see docs/decisions", e.Name())
		}
	}
}

func isLibrary(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return slices.Contains(libraries, top)
}

func checkFile(t *testing.T, p pkg, file string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	path := p.name() + "/" + file
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			mayGo(t, p, fset.Position(n.Pos()))
		case *ast.CallExpr: // errgroup.Group.Go, sync.WaitGroup.Go
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" {
				mayGo(t, p, fset.Position(n.Pos()))
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				t.Errorf("%s: func init: wire it by hand", fset.Position(n.Pos()))
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			call := x.Name + "." + n.Sel.Name
			if why, no := banned[call]; no && !slices.Contains(bannedExcept[call], path) {
				t.Errorf("%s: %s: %s", fset.Position(n.Pos()), call, why)
			}
			if x.Name == "time" && slices.Contains(clockFuncs, n.Sel.Name) && slices.Contains(pure, p.name()) {
				t.Errorf("%s: %s in a pure package: take the time as an argument", fset.Position(n.Pos()), call)
			}
		}
		return true
	})
}

func mayGo(t *testing.T, p pkg, at token.Position) {
	t.Helper()
	if !slices.Contains(mayStartGoroutines, p.name()) {
		t.Errorf("%s: starts a goroutine: not in mayStartGoroutines", at)
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
