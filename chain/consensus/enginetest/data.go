package enginetest

import (
	"compress/bzip2"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// dataEnv names the folder with real blocks, headers and vectors; without it
// they are looked for in ../shared/data of the module's root.
const dataEnv = "DUNLIN_TESTDATA"

// DataPath returns the path of a file or folder of the test data. Without the
// data the test is skipped; with CI=true it fails.
func DataPath(tb testing.TB, name string) string {
	tb.Helper()
	dir := os.Getenv(dataEnv)
	if dir == "" {
		dir = filepath.Join(moduleRoot(tb), "..", "shared", "data")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("test data: %v", err)
		}
		tb.Skipf("test data: %v (set %s)", err, dataEnv)
	}
	return path
}

// Data returns a file of the test data, decompressed if its name ends in .zst or
// .bz2. Without the data the test is skipped; with CI=true it fails.
func Data(tb testing.TB, name string) []byte {
	tb.Helper()
	f, err := os.Open(DataPath(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(f)
		if err != nil {
			tb.Fatal(err)
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(name, ".bz2"):
		r = bzip2.NewReader(f)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatalf("test data %s: %v", name, err)
	}
	return b
}

// moduleRoot is the folder above the test's that holds go.mod.
func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}
