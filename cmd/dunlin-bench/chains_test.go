package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/command"
)

// smallChains are made like those of the figures, in a moment.
var smallChains = []benchChain{
	{name: "tiny", empty: 30, bytes: 5290, sum: "430828cf03c1546aa588b7149517c2f2a6ae0b7b2767f25bf017b5309d59a06a"},
	{name: "fat", empty: unripe, splits: 1, loaded: 2, least: 3, most: 3, fat: true, bytes: 2_104_538, sum: "051c5ebca14573302a6f519e60cf4a1a217282dcd43b814a70fd715dd224d368"},
	{name: "full", empty: unripe, splits: 1, loaded: 2, least: 20, most: 40, bytes: 162_630, sum: "cc7f5e568f3f5ae62e81f10cb142d2da2fcd63452bf8989b35535efa3637139b"},
}

// TestChainsAreTheSameEverywhere: whatever makes one of these others makes other chains than the figures are of.
func TestChainsAreTheSameEverywhere(t *testing.T) {
	for i := range smallChains {
		c := &smallChains[i]
		var first bytes.Buffer
		part := 0.0
		if err := c.write(t.Context(), &first, func(p float64) { part = p }); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(first.Bytes())
		if hex.EncodeToString(sum[:]) != c.sum || int64(first.Len()) != c.bytes {
			t.Errorf("%s: %d bytes, sha256 %x", c.name, first.Len(), sum)
		}
		if c.loaded > 0 && part != 1 {
			t.Errorf("%s: said to be done at %v", c.name, part)
		}
		path := writeFile(t, filepath.Join(t.TempDir(), c.name), first.Bytes())
		if file, err := scanChain(path); err != nil || file.blocks != c.empty+c.splits+c.loaded || file.params.Name != "simnet" {
			t.Errorf("%s: %+v, %v", c.name, file, err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := smallChains[2].write(cancelled, io.Discard, func(float64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// aKit has the small chains, and programs that only seem to run.
func aKit(t *testing.T) (k *kit, out *strings.Builder, ran *[]string) {
	t.Helper()
	out, ran = &strings.Builder{}, new([]string)
	k = newKit(filepath.Join(t.TempDir(), "kit"), out, io.Discard)
	k.chains = slices.Clone(smallChains)
	k.run = func(_ context.Context, _ io.Writer, program string, args ...string) error {
		*ran = append(*ran, strings.Join(append([]string{filepath.Base(program)}, args...), " "))
		if program == "go" {
			return os.WriteFile(args[slices.Index(args, "-o")+1], nil, 0o600)
		}
		folder := args[slices.Index(args, "-b")+1]
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, "blocks"), []byte(filepath.Base(folder)), 0o600)
	}
	return k, out, ran
}

// TestKit: what is there is checked and kept, what is not is made, and nothing that is not whole has its name.
func TestKit(t *testing.T) {
	k, out, ran := aKit(t)
	all := []string{"tiny.dat", "srv_tiny_0", "fat.dat", "srv_fat_0", "srv_fat_1", "srv_fat_2", "full.dat", "srv_full_0", "srv_full_1", "srv_full_2", "btcd"}
	if got := k.lacks(true); !slices.Equal(got, all) {
		t.Errorf("an empty folder lacks %q", got)
	}
	if err := k.make(t.Context(), []string{"tiny"}, false); err != nil {
		t.Fatal(err)
	}
	if got := k.lacks(false); !slices.Equal(got, []string{"fat.dat", "full.dat"}) || len(*ran) > 0 {
		t.Errorf("with tiny it lacks %q, and ran %q", got, *ran)
	}
	left := filepath.Join(k.data(), "srv_full_0.making") // of a run that was ended
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.make(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	if got := k.lacks(true); len(got) > 0 || len(*ran) != 5 { // two builds, an import each
		t.Errorf("it lacks %q and ran %q", got, *ran)
	}
	for _, name := range []string{"srv_full_0", "srv_full_2"} {
		if raw, err := os.ReadFile(filepath.Join(k.data(), name, "blocks")); err != nil || string(raw) != "srv_full_0.making" {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
	if !strings.Contains(out.String(), "tiny.dat: there: 30 blocks, 0.0 MB, sha256 "+smallChains[0].sum) {
		t.Error(out.String())
	}

	// What is not the chain that it must be is made anew.
	writeFile(t, k.file(&k.chains[1]), []byte("cut"))
	*ran = nil
	out.Reset()
	if err := k.make(t.Context(), nil, true); err != nil || len(*ran) > 0 {
		t.Errorf("%v, ran %q", err, *ran)
	}
	if sum, err := sumOf(k.file(&k.chains[1])); err != nil || sum != smallChains[1].sum || !strings.Contains(out.String(), "is not what it must be") {
		t.Errorf("%s, %v\n%s", sum, err, out)
	}

	// What cannot be made leaves nothing.
	for name, spoil := range map[string]func(k *kit){
		"it would be another chain": func(k *kit) { k.chains[0].sum = "00" },
		"no proxy": func(k *kit) {
			k.run = func(context.Context, io.Writer, string, ...string) error { return errors.New("no proxy") }
		},
		"import": func(k *kit) {
			run := k.run
			k.run = func(ctx context.Context, errs io.Writer, program string, args ...string) error {
				if err := run(ctx, errs, program, args...); err != nil || program == "go" {
					return err
				}
				return errors.New("import")
			}
		},
	} {
		k, _, _ := aKit(t)
		spoil(k)
		if err := k.make(t.Context(), []string{"tiny"}, true); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		for _, path := range []string{k.server("tiny", 0), filepath.Join(k.data(), ".tiny*")} {
			if found, err := filepath.Glob(path); err != nil || len(found) > 0 {
				t.Errorf("%s leaves %q", name, found)
			}
		}
	}
}

func TestChainsUsage(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"chains", "--only", "huge"}, &out, &out); code != command.Misuse || !strings.Contains(out.String(), "--dir is missing") || !strings.Contains(out.String(), `no chain "huge"`) {
		t.Errorf("exit code %d\n%s", code, &out)
	}
}

// TestRunToEnd: what fails is told with the end of what it said.
func TestRunToEnd(t *testing.T) {
	err := runToEnd(t.Context(), io.Discard, "sh", "-c", "yes much | head -n 100000; echo last words >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "sh: exit status 3") || !strings.Contains(err.Error(), "last words") || strings.Count(err.Error(), "much") != 10 {
		t.Error(err)
	}
}
