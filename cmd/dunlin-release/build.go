package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"dunlin/internal/command"
)

// allTargets are the platforms of a release.
var allTargets = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64"}

// workPattern begins the name of the folder that a build works in; no file of a release may have it.
const workPattern = "dunlin-release-work-"

// options of a build.
type options struct {
	repo, commit, out string
	targets           []string
	snapshot, twice   bool
	progress          io.Writer // one line a step
}

// A source is a commit and what follows from it alone.
type source struct {
	commit  string    // whole hash
	version string    // v1.2.3, or of a snapshot a pseudo-version
	time    time.Time // the commit's: of every file in an archive
}

// versionPattern is what a tag must be: a semantic version with a v.
var versionPattern = regexp.MustCompile(`^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func build(ctx context.Context, o options) (err error) {
	for i, target := range o.targets {
		if !slices.Contains(allTargets, target) || slices.Contains(o.targets[:i], target) {
			return command.Usage(fmt.Errorf("--targets: %s: want some of %s, each once", target, strings.Join(allTargets, ", ")))
		}
	}
	if len(o.targets) == 0 {
		return command.Usage(errors.New("--targets: none"))
	}
	if entries, err := os.ReadDir(o.out); err == nil && len(entries) > 0 {
		return command.Usage(fmt.Errorf("--out %s is not empty: what is there would be published too", o.out))
	}
	src, err := sourceOf(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.progress, "%s from %s, %s\n", src.version, src.commit, runtime.Version())
	work, err := os.MkdirTemp("", workPattern)
	if err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	defer func() { err = errors.Join(err, removeAll(work)) }()

	first, err := buildAll(ctx, o, src, filepath.Join(work, "a", "source"), "")
	if err != nil {
		return err
	}
	if o.twice {
		// Longer by its path, and nothing of the first build's is in this cache.
		again, err := buildAll(ctx, o, src, filepath.Join(work, "b", "elsewhere", "source-of-the-second-build"), filepath.Join(work, "cache"))
		if err != nil {
			return fmt.Errorf("second build: %w", err)
		}
		if err := compare(first, again); err != nil {
			return err
		}
		fmt.Fprintf(o.progress, "built twice: all %d files are the same\n", len(first))
	}
	return writeRelease(o.out, first)
}

// sourceOf resolves the commit and its version.
func sourceOf(ctx context.Context, o options) (src source, err error) {
	git := func(args ...string) (string, error) {
		out, err := output(exec.CommandContext(ctx, "git", append([]string{"-C", o.repo}, args...)...))
		return strings.TrimSpace(out), err
	}
	if src.commit, err = git("rev-parse", "--verify", "--end-of-options", o.commit+"^{commit}"); err != nil {
		return src, err
	}
	seconds, err := git("log", "-1", "--format=%ct", src.commit)
	if err != nil {
		return src, err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return src, fmt.Errorf("time of commit %s: %w", src.commit, err)
	}
	src.time = time.Unix(unix, 0).UTC()
	tags, err := git("tag", "--points-at", src.commit)
	if err != nil {
		return src, err
	}
	var versions []string
	for tag := range strings.FieldsSeq(tags) {
		if versionPattern.MatchString(tag) {
			versions = append(versions, tag)
		}
	}
	switch {
	case len(versions) == 1:
		src.version = versions[0]
	case len(versions) > 1:
		return src, fmt.Errorf("commit %s has %d versions: %s", src.commit, len(versions), strings.Join(versions, ", "))
	case o.snapshot:
		src.version = "v0.0.0-" + src.time.Format("20060102150405") + "-" + src.commit[:12]
	default:
		return src, command.Usage(fmt.Errorf("commit %s has no tag vX.Y.Z: tag it (docs/release.md), or build a --snapshot", src.commit))
	}
	return src, nil
}

// buildAll exports the commit into a folder and makes all files of the release, by name. cache is the build cache; "": the user's.
func buildAll(ctx context.Context, o options, src source, dir, cache string) (map[string][]byte, error) {
	if err := export(ctx, o.repo, src.commit, dir); err != nil {
		return nil, err
	}
	compile := func(goos, goarch, program string) error {
		cmd := exec.CommandContext(ctx, "go", buildArgs(src.version, program)...)
		cmd.Dir, cmd.Env = dir, buildEnv(os.Environ(), goos, goarch, cache)
		if _, err := output(cmd); err != nil {
			return fmt.Errorf("build for %s/%s: %w", goos, goarch, err)
		}
		return nil
	}
	// Manual pages and completions are what the program itself prints: that of this machine.
	host := filepath.Join(filepath.Dir(dir), "host")
	if err := compile(runtime.GOOS, runtime.GOARCH, host); err != nil {
		return nil, err
	}
	shared, err := sharedFiles(ctx, dir, host)
	if err != nil {
		return nil, err
	}
	if got, err := output(exec.CommandContext(ctx, host, "version")); err != nil || !strings.Contains(got, " "+src.version+" ") {
		return nil, fmt.Errorf("the binary says of its version: %q, want %s: %w", got, src.version, err)
	}
	licences := newLicences()
	files := map[string][]byte{}
	for _, target := range o.targets {
		begun := time.Now()
		goos, goarch, _ := strings.Cut(target, "/")
		program := filepath.Join(filepath.Dir(dir), "dunlin-"+goos+"-"+goarch)
		if err := compile(goos, goarch, program); err != nil {
			return nil, err
		}
		binary, err := os.ReadFile(program)
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.Read(bytes.NewReader(binary))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		texts, err := licences.of(ctx, dir, info)
		if err != nil {
			return nil, err
		}
		bill, err := newBill(src, binary, info, texts).encode()
		if err != nil {
			return nil, err
		}
		name := archiveName(src.version, goos, goarch)
		content := maps.Clone(shared)
		content["sbom.cdx.json"] = entry{data: bill}
		for path, text := range texts.files {
			content["licences/"+path] = entry{data: text}
		}
		content[programName(goos)] = entry{data: binary, executable: true}
		archive, extension, err := pack(goos, name, content, src.time)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		files[name+extension], files[name+".cdx.json"] = archive, bill
		fmt.Fprintf(o.progress, "%s: binary %.1f MB, archive %.1f MB, %d modules, %.0f s\n", target, float64(len(binary))/1e6, float64(len(archive))/1e6, len(info.Deps), time.Since(begun).Seconds())
	}
	return files, nil
}

// buildArgs is the one way in which a binary of a release is built. docs/release.md shows it to those who build it again.
func buildArgs(version, program string) []string {
	return []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version=" + version, "-o", program, "./cmd/dunlin"}
}

// buildEnv leaves nothing of the builder's settings that could reach the binary.
func buildEnv(env []string, goos, goarch, cache string) []string {
	fixed := map[string]string{
		"CGO_ENABLED": "0", "GOOS": goos, "GOARCH": goarch, "GOAMD64": "v1", "GOARM64": "v8.0",
		"GOFLAGS": "-mod=readonly", "GOEXPERIMENT": "", "GODEBUG": "", "GOWORK": "off", "GOFIPS140": "off", "GOENV": "off", "GOTOOLCHAIN": "local",
	}
	// What go env -w has set for the proxy is not read then; what the environment has is.
	if cache != "" {
		fixed["GOCACHE"] = cache
	}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, ours := fixed[name]
		return ours
	})
	for _, name := range slices.Sorted(maps.Keys(fixed)) {
		env = append(env, name+"="+fixed[name])
	}
	return env
}

// export writes the files of a commit into a new folder, without its history.
func export(ctx context.Context, repo, commit, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	archive := exec.CommandContext(ctx, "git", "-C", repo, "archive", "--format=tar", commit)
	var complaint bytes.Buffer
	archive.Stderr = &complaint
	from, err := archive.StdoutPipe()
	if err != nil {
		return err
	}
	if err := archive.Start(); err != nil {
		return fmt.Errorf("git archive: %w", err)
	}
	err = untar(from, dir)
	if err != nil {
		_, _ = io.Copy(io.Discard, from) // so that git ends
	}
	if e := archive.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("git archive %s: %w: %s", commit, e, strings.TrimSpace(complaint.String())))
	}
	return err
}

// documents are the files of the repository that an archive has, or folders of them.
var documents = []string{"README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "docs", "deploy"}

// sharedFiles are those that are the same for every platform.
func sharedFiles(ctx context.Context, dir, program string) (map[string]entry, error) {
	files := map[string]entry{}
	for _, doc := range documents {
		err := filepath.WalkDir(filepath.Join(dir, doc), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if doc == "docs" && filepath.Ext(path) != ".md" && filepath.Ext(path) != ".svg" {
				return nil // screenshots and the like: large, and to be seen online
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			files[filepath.ToSlash(rel)] = entry{data: data, executable: info.Mode()&0o100 != 0}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("documents: %w", err)
		}
	}
	man := filepath.Join(filepath.Dir(program), "man")
	if _, err := output(exec.CommandContext(ctx, program, "man", man)); err != nil {
		return nil, err
	}
	pages, err := filepath.Glob(filepath.Join(man, "man[1-9]", "*"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			return nil, err
		}
		files["man/"+filepath.Base(filepath.Dir(page))+"/"+filepath.Base(page)] = entry{data: data}
	}
	for shell, file := range completions {
		script, err := output(exec.CommandContext(ctx, program, "completion", shell))
		if err != nil {
			return nil, err
		}
		files["completions/"+file] = entry{data: []byte(script)}
	}
	return files, nil
}

// completions are the files of the shells as these look for them.
var completions = map[string]string{"bash": "dunlin.bash", "zsh": "_dunlin", "fish": "dunlin.fish", "powershell": "dunlin.ps1"}

func archiveName(version, goos, goarch string) string {
	return "dunlin_" + strings.TrimPrefix(version, "v") + "_" + goos + "_" + goarch
}

func programName(goos string) string {
	if goos == "windows" {
		return "dunlin.exe"
	}
	return "dunlin"
}

// compare tells which files of two builds differ.
func compare(first, again map[string][]byte) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(first)) {
		if a, b := sha256.Sum256(first[name]), sha256.Sum256(again[name]); a != b {
			errs = append(errs, fmt.Errorf("%s is not reproducible: %x, built again %x", name, a, b))
		}
	}
	if len(first) != len(again) {
		errs = append(errs, fmt.Errorf("%d files, built again %d", len(first), len(again)))
	}
	return errors.Join(errs...)
}

// sumsFile is the file of checksums, in the format of sha256sum.
const sumsFile = "SHA256SUMS"

// writeRelease writes the files and their checksums.
func writeRelease(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // to be published
		return err
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256(files[name])
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), []byte(sums.String()), 0o644) //nolint:gosec // as above
}

// output runs a command and returns what it printed; an error has what it complained of.
func output(cmd *exec.Cmd) (string, error) {
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// removeAll removes a folder, also what Go writes without the right to write.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700) //nolint:gosec // a folder
		}
		return err
	})
	return os.RemoveAll(dir)
}
