package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/chart"
	"dunlin/internal/command"
)

// A kit is a folder with what measuring needs and what takes a while to make: data/tiny.dat, data/fat.dat, data/full.dat, and for the
// comparison with btcd bin/btcd, bin/addblock and data/srv_<chain>_<n>, its data folders with those chains. What is there is kept.
type kit struct {
	dir    string
	out    io.Writer // what is there and what is made
	errs   io.Writer // what the programs say
	chains []benchChain
	// run runs a program in this folder to its end.
	run func(ctx context.Context, errs io.Writer, program string, args ...string) error
}

func newKit(dir string, out, errs io.Writer) *kit {
	return &kit{dir: dir, out: out, errs: errs, chains: benchChains, run: runToEnd}
}

// runToEnd keeps the end of what a program wrote for the error.
func runToEnd(ctx context.Context, errs io.Writer, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	inGroup(cmd)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out, said tail // each is written by a goroutine of its own
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, errs)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		lines := append(lastLines(string(out.last), 10), lastLines(string(said.last), 10)...)
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, indented(lines))
	}
	return nil
}

// A tail is the end of what was written to it.
type tail struct{ last []byte }

const tailBytes = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if len(t.last) > 2*tailBytes {
		t.last = append(t.last[:0], t.last[len(t.last)-tailBytes:]...)
	}
	return len(p), nil
}

func (k *kit) path(parts ...string) string {
	return filepath.Join(append([]string{k.dir}, parts...)...)
}

func (k *kit) data() string { return k.path("data") }

// file is a chain's.
func (k *kit) file(c *benchChain) string { return k.path("data", c.name+".dat") }

// server is a data folder of btcd.
func (k *kit) server(chain string, n int) string {
	return k.path("data", fmt.Sprintf("srv_%s_%d", chain, n))
}

// serversOf is how many servers of a chain the cases of ibd want at most.
func serversOf(chain string) (n int) {
	for _, s := range scenarios {
		if s.chain == chain && s.theirs >= 0 {
			n = max(n, s.peers)
		}
	}
	return n
}

// lacks says what is not there, without a look into it.
func (k *kit) lacks(btcd bool) (names []string) {
	lack := func(path, name string) {
		if _, err := os.Stat(path); err != nil {
			names = append(names, name)
		}
	}
	for i := range k.chains {
		c := &k.chains[i]
		lack(k.file(c), c.name+".dat")
		for n := range serversOf(c.name) {
			if btcd {
				lack(k.server(c.name, n), filepath.Base(k.server(c.name, n)))
			}
		}
	}
	if btcd {
		lack(k.path("bin", "btcd"), "btcd")
	}
	return names
}

// make makes what is not there: the chains with these names (none: all), and with btcd what the comparison needs.
func (k *kit) make(ctx context.Context, names []string, btcd bool) error {
	for _, folder := range []string{k.data(), k.path("bin")} {
		if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // as of any build
			return err
		}
	}
	if btcd {
		for _, pkg := range []string{"github.com/btcsuite/btcd", "github.com/btcsuite/btcd/cmd/addblock"} {
			if err := k.build(ctx, path.Base(pkg), pkg); err != nil {
				return err
			}
		}
	}
	for i := range k.chains {
		c := &k.chains[i]
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		if err := k.chain(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", k.file(c), err)
		}
		if !btcd {
			continue
		}
		if err := k.servers(ctx, c); err != nil {
			return fmt.Errorf("btcd's servers of %s: %w", c.name, err)
		}
	}
	return nil
}

// build builds a program of btcd's module, at the version of .ci/btcd.mod.
func (k *kit) build(ctx context.Context, program, pkg string) error {
	built, err := filepath.Abs(k.path("bin", program))
	if err != nil {
		return err
	}
	if _, err := os.Stat(built); err == nil {
		return nil
	}
	begun := time.Now()
	if err := k.run(ctx, k.errs, "go", "build", "-trimpath", "-modfile=.ci/btcd.mod", "-o", built, pkg); err != nil {
		return fmt.Errorf("build %s from .ci/btcd.mod (run it in the folder with go.mod; Go's module proxy must be in reach): %w", pkg, err)
	}
	k.made(built, program, begun)
	return nil
}

func (k *kit) made(path, name string, begun time.Time) {
	fmt.Fprintf(k.out, "%s: made in %.1f s: %s\n", path, time.Since(begun).Seconds(), name)
}

// chain makes the file of a chain, unless it is there with the bytes that it must have.
func (k *kit) chain(ctx context.Context, c *benchChain) error {
	path := k.file(c)
	blocks := c.empty + c.splits + c.loaded
	about := fmt.Sprintf("%s blocks, %.1f MB, sha256 %s", chart.Number(float64(blocks)), float64(c.bytes)/1e6, c.sum)
	sum, err := sumOf(path)
	switch {
	case err == nil && sum == c.sum:
		fmt.Fprintf(k.out, "%s: there: %s\n", path, about)
		return nil
	case err == nil:
		fmt.Fprintf(k.out, "%s: is not what it must be (sha256 %s), made anew\n", path, sum)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	begun := time.Now()
	f, err := os.CreateTemp(k.data(), "."+c.name+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has another name by then, if all went well
	hash, told := sha256.New(), 0
	err = c.write(ctx, io.MultiWriter(f, hash), func(part float64) {
		if tenth := int(part * 10); tenth > told {
			told = tenth
			fmt.Fprintf(k.errs, "%s: %d%%\n", path, 10*tenth)
		}
	})
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != c.sum {
		return fmt.Errorf("what was made has sha256 %s, not %s: it would be another chain than the figures are of", sum, c.sum)
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil { //nolint:gosec // nothing of it is secret
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	k.made(path, about, begun)
	return nil
}

// sumOf is the SHA-256 of a file.
func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// servers makes btcd's data folders of a chain. One that has its name is whole: it gets it at the end.
func (k *kit) servers(ctx context.Context, c *benchChain) error {
	var whole string
	for n := range serversOf(c.name) {
		path := k.server(c.name, n)
		if _, err := os.Stat(path); err == nil {
			whole = path
			continue
		}
		begun, making := time.Now(), path+".making"
		if err := os.RemoveAll(making); err != nil { // of a run that was ended
			return err
		}
		var err error
		if whole == "" {
			err = k.run(ctx, io.Discard, k.path("bin", "addblock"), "--simnet", "-b", making, "-i", k.file(c), "-p", "30")
		} else {
			err = os.CopyFS(making, os.DirFS(whole))
		}
		if err != nil {
			return err
		}
		if err := os.Rename(making, path); err != nil {
			return err
		}
		whole = path
		k.made(path, "a data folder of btcd", begun)
	}
	return nil
}

func newChains() *cobra.Command {
	var dir string
	var only []string
	var btcd bool
	var names []string
	for _, c := range benchChains {
		names = append(names, c.name)
	}
	cmd := &cobra.Command{
		Use:   "chains",
		Short: "Make the three chains that imports and downloads are timed with",
		Long: `chains writes three chains of simnet in bootstrap.dat form into DIR/data: tiny.dat (20,000 blocks of a coinbase each, 4 MB: what a block
costs), fat.dat (672 blocks, 246 MB in few transactions: what a byte costs) and full.dat (1,440 blocks, 178 MB, 901,621 signed inputs: what
a signature costs). They are the same bytes everywhere; what is there is checked and kept. It takes about two minutes, most of it for signatures.

With --btcd also what ibd wants of it, 1.7 GB: btcd and its addblock at the version of .ci/btcd.mod in DIR/bin, built by the Go tool from the module proxy,
and data folders of btcd with those chains. Run that in a clone of dunlin's source.`,
		Example: `  dunlin-bench chains --dir DIR              then: dunlin-bench ibd --chains DIR/data
  dunlin-bench chains --dir DIR --btcd       then: dunlin-bench ibd --btcd DIR`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var errs []error
			if dir == "" {
				errs = append(errs, errors.New("--dir is missing"))
			}
			for _, name := range only {
				if !slices.Contains(names, name) {
					errs = append(errs, fmt.Errorf("--only: no chain %q", name))
				}
			}
			if len(errs) > 0 {
				return command.Usage(errors.Join(errs...))
			}
			return newKit(dir, cmd.OutOrStdout(), cmd.ErrOrStderr()).make(cmd.Context(), only, btcd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "folder to write to; data and bin are made in it")
	f.StringSliceVar(&only, "only", nil, "which of "+strings.Join(names, ", ")+" (default all)")
	f.BoolVar(&btcd, "btcd", false, "also build btcd, and give it the chains")
	return cmd
}
