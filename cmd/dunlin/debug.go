package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
)

// Limits of a bundle: it is to be sent to somebody.
const (
	maxBundleItem  = 8 << 20  // of one item
	maxBundleBytes = 48 << 20 // of all, before compression
	maxBundleFiles = 2000     // lines of the home's listing
	journalWithin  = 10 * time.Second
)

func newDebug(g *global) *cobra.Command {
	return group("debug", "What helpers want to know when something is wrong", newDebugBundle(g))
}

func newDebugBundle(g *global) *cobra.Command {
	var logFiles []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "bundle FILE.tar.gz",
		Short: "Write status, peers, settings, log, metrics and profiles of a node into one file, without secrets",
		Long: `bundle gathers what a helper asks for. It works with a running node, with one that hangs and with one that is stopped; what could not be
had is said in the file errors.txt. Keys, the token, rpc passwords and all that looks like a private key or the words of a wallet are left out, also where a
log or a comment of config.toml has them. IP addresses and ids of peers are in it, and the addresses that the node listens on: look before you publish it.

The log goes to standard error, so a bundle has what the running node remembers of it, the journal of systemd, and the files given with --log.`,
		Example: "  dunlin debug bundle node.tar.gz\n  dunlin debug bundle node.tar.gz --home /srv/dunlin --log /var/log/dunlin.log",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			if timeout < 100*time.Millisecond {
				return usage(fmt.Errorf("--timeout %v: must be at least 100ms", timeout))
			}
			c, loadErr := config.Load(config.LoadOptions{Home: g.home, Flags: config.FromFlags(cmd.Flags())})
			home := g.home
			switch {
			case c != nil:
				home = c.Home
			case home == "":
				home = os.Getenv("DUNLIN_HOME")
			}
			if home == "" { // broken settings say so themselves
				return usage(loadErr)
			}
			f, err := os.OpenFile(a[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return usage(fmt.Errorf("%s exists: choose another file", a[0]))
			}
			if err != nil {
				return err
			}
			b := &bundle{
				home: home, config: c, timeout: timeout, redact: newRedactor(home, c),
				zip: gzip.NewWriter(f), show: newProgress(cmd.ErrOrStderr(), slog.New(slog.DiscardHandler), "bundle"),
			}
			b.tar = tar.NewWriter(b.zip)
			if loadErr != nil {
				b.fault("settings", loadErr)
			}
			err = b.gather(cmd.Context(), logFiles)
			b.show.end()
			err = errors.Join(err, b.tar.Close(), b.zip.Close(), f.Sync(), f.Close())
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", a[0], err), os.Remove(a[0]))
			}
			v := struct {
				File   string   `json:"file"`
				Items  []string `json:"items"`
				Errors []string `json:"errors"`
			}{a[0], b.items, append([]string{}, b.faults...)}
			return g.print(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "%s has %d items; %d could not be had (errors.txt in it says why)\nLook before you publish it: it names peers and their addresses.\n", v.File, len(v.Items), len(v.Errors))
			})
		},
	}
	cmd.Flags().StringArrayVar(&logFiles, "log", nil, "a file that the log was written to; its end is taken (repeatable)")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long one answer of the node may take")
	return cmd
}

// A bundle is one that is being written.
type bundle struct {
	home    string
	config  *config.Config // nil: it could not be read
	timeout time.Duration
	redact  *redactor
	zip     *gzip.Writer
	tar     *tar.Writer
	show    *progress
	items   []string
	faults  []string
	bytes   int
}

// fault notes what could not be had.
func (b *bundle) fault(what string, err error) {
	b.faults = append(b.faults, what+": "+string(b.redact.text([]byte(err.Error()))))
}

// text adds a text, of which secrets are taken out and, if it is too long, the beginning.
func (b *bundle) text(name string, data []byte) error {
	data = b.redact.text(data)
	if most := min(maxBundleItem, maxBundleBytes-b.bytes); len(data) > most {
		data = append([]byte("(the beginning is left out)\n"), data[len(data)-max(0, most):]...)
	}
	return b.raw(name, data)
}

// raw adds what is no text and holds no secrets.
func (b *bundle) raw(name string, data []byte) error {
	if b.bytes+len(data) > maxBundleBytes {
		b.fault(name, errors.New("the bundle is full"))
		return nil
	}
	b.bytes += len(data)
	b.items = append(b.items, name)
	h := &tar.Header{Name: "dunlin-debug/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Now()}
	if err := b.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

func (b *bundle) json(name string, v any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return b.text(name, out.Bytes())
}

// gather writes everything. Its error is that the bundle could not be written; what could not be had is a fault in it.
func (b *bundle) gather(ctx context.Context, logFiles []string) error {
	steps := []func(context.Context) error{b.version, b.settings, b.files, b.node, b.machine}
	for _, f := range logFiles {
		steps = append(steps, func(context.Context) error { return b.logFile(f) })
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := b.text("errors.txt", []byte(strings.Join(b.faults, "\n")+"\n")); err != nil {
		return err
	}
	return b.raw("README.txt", []byte(bundleReadme))
}

const bundleReadme = `A debug bundle of a dunlin node (dunlin debug bundle).

version.json      the program that made this bundle
config.json       every setting, its value, and where it came from
config.toml       the config file, network.toml that of a network of its own
home.txt          names, sizes and modes of the files in the home, and the room on its disk
node.json         the running node, as it describes itself to scripts
api/…             what the node answered; metrics.txt are its metrics
pprof/…           goroutines (text), and heap and others for: go tool pprof FILE
process.txt       what the system says of the node's process, system.txt of the machine
log/…             the last lines that the node remembers, systemd's journal, and files that were given
errors.txt        what could not be had, and why

Secrets are left out; peers' ids and addresses are not.
`

func (b *bundle) version(context.Context) error {
	v := struct {
		Version  string            `json:"version"`
		Go       string            `json:"go"`
		Platform string            `json:"platform"`
		CPUs     int               `json:"cpus"`
		Time     time.Time         `json:"time"`
		Build    map[string]string `json:"build"`
	}{buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, runtime.NumCPU(), time.Now().UTC(), map[string]string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			v.Build[s.Key] = s.Value
		}
	}
	return b.json("version.json", v)
}

func (b *bundle) settings(context.Context) error {
	for _, name := range []string{config.FileName, networkFile} {
		if err := b.copyFile(filepath.Join(b.home, name), name); err != nil {
			return err
		}
	}
	if b.config == nil {
		return nil
	}
	if file := b.config.Chain.File; file != "" && file != filepath.Join(b.home, networkFile) {
		if err := b.copyFile(file, networkFile); err != nil {
			return err
		}
	}
	var settings []setting
	for _, e := range b.config.Entries() {
		if isSecretKey(e.Key) && e.Value != `""` && e.Value != "[]" {
			e.Value = redacted
		}
		settings = append(settings, setting(e))
	}
	return b.json("config.json", settings)
}

// copyFile adds a small text file; none is no fault.
func (b *bundle) copyFile(path, name string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		b.fault(name, err)
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBundleItem))
	if err != nil {
		b.fault(name, err)
		return nil
	}
	return b.text(name, data)
}

// files lists the home: names, sizes and modes, never what is in a file.
func (b *bundle) files(context.Context) error {
	var out bytes.Buffer
	if usage, err := vfs.Default.GetDiskUsage(b.home); err == nil {
		fmt.Fprintf(&out, "disk: %d MiB free of %d MiB\n\n", usage.AvailBytes>>20, usage.TotalBytes>>20)
	} else {
		b.fault("disk", err)
	}
	n := 0
	err := filepath.WalkDir(b.home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&out, "%v\n", err)
			return nil
		}
		if n++; n > maxBundleFiles {
			return fs.SkipAll
		}
		info, err := os.Lstat(path)
		if err != nil {
			return nil //nolint:nilerr // it went away meanwhile
		}
		rel, _ := filepath.Rel(b.home, path) // path is below home
		fmt.Fprintf(&out, "%s %12d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.DateTime), rel)
		return nil
	})
	if err != nil {
		b.fault("home", err)
	}
	if n > maxBundleFiles {
		fmt.Fprintf(&out, "… more than %d files\n", maxBundleFiles)
	}
	return b.text("home.txt", out.Bytes())
}

// questions is what the node is asked for, and the name of the answer in the bundle.
var questions = []struct{ path, name string }{
	{"/api/v1/status", "api/status.json"},
	{"/readyz?verbose", "api/readyz.txt"},
	{"/metrics", "api/metrics.txt"},
	{"/api/v1/sync", "api/sync.json"},
	{"/api/v1/peers", "api/peers.json"},
	{"/api/v1/reachability", "api/reachability.json"},
	{"/api/v1/discovery", "api/discovery.json"},
	{"/api/v1/bans", "api/bans.json"},
	{"/api/v1/mempool", "api/mempool.json"},
	{"/api/v1/chain/tips", "api/tips.json"},
	{"/api/v1/chain/blocks?last=20", "api/blocks.json"},
	{"/api/v1/storage", "api/storage.json"},
	{"/api/v1/miner", "api/miner.json"},
	{"/api/v1/staking", "api/staking.json"},
	{"/api/v1/log/level", "api/log-level.json"},
	{"/api/v1/log/records?limit=1000", "log/records.json"},
	{"/debug/pprof/goroutine?debug=2", "pprof/goroutine.txt"},
	{"/debug/pprof/heap", "pprof/heap.pb.gz"},
	{"/debug/pprof/mutex", "pprof/mutex.pb.gz"},
	{"/debug/pprof/block", "pprof/block.pb.gz"},
}

// node asks the running node. One that hangs is asked for its goroutines only, after the first answer that does not come.
func (b *bundle) node(ctx context.Context) error {
	client, info, err := api.Open(b.home)
	if err != nil {
		b.fault("node", err)
	}
	if info.PID == 0 {
		return nil
	}
	if err := b.json("node.json", info); err != nil {
		return err
	}
	if err := b.process(ctx, info.PID); err != nil {
		return err
	}
	if client == nil {
		return nil
	}
	hangs := false
	for i, q := range questions {
		if hangs && !strings.HasPrefix(q.path, "/debug/pprof/goroutine") {
			continue
		}
		b.show.update(func() string { return fmt.Sprintf("%d of %d: %s", i+1, len(questions), q.path) })
		call, cancel := context.WithTimeout(ctx, b.timeout)
		raw, err := client.Fetch(call, q.path, maxBundleItem)
		over := call.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case over:
			hangs = true
			b.fault(q.name, fmt.Errorf("no answer within %v: the node hangs, so it is not asked for the rest", b.timeout))
		case err != nil:
			r, refused := errors.AsType[*api.Error](err)
			switch {
			case refused && r.Status == http.StatusConflict && q.path == "/api/v1/staking": // blocks are made by work
			case refused && r.Status == http.StatusNotFound && strings.Contains(q.path, "pprof"):
				b.fault("pprof", errors.New("rpc.pprof is off (true in config.toml lets the next bundle have profiles)"))
				return nil // they come last
			default:
				b.fault(q.name, err)
			}
		case strings.HasSuffix(q.name, ".pb.gz"):
			if err := b.raw(q.name, raw); err != nil {
				return err
			}
		default:
			if err := b.text(q.name, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// process adds what the system says of the node's process, and systemd's journal of it.
func (b *bundle) process(ctx context.Context, pid int) error {
	if runtime.GOOS != "linux" {
		b.fault("process.txt", errors.New("only Linux tells"))
		return nil
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	var out bytes.Buffer
	for _, name := range []string{"cmdline", "status", "limits", "io", "wchan", "cgroup", "oom_score"} {
		b.section(&out, filepath.Join(dir, name))
	}
	if fds, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		kinds := map[string]int{}
		for _, fd := range fds {
			to, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			kind, _, _ := strings.Cut(to, ":")
			if strings.HasPrefix(to, "/") {
				kind = "file"
			}
			kinds[kind]++
		}
		fmt.Fprintf(&out, "== open files: %d, by kind %v\n", len(fds), kinds)
	}
	if tasks, err := os.ReadDir(filepath.Join(dir, "task")); err == nil {
		waits := map[string]int{}
		for _, task := range tasks {
			raw, _ := os.ReadFile(filepath.Join(dir, "task", task.Name(), "wchan"))
			waits[string(raw)]++
		}
		fmt.Fprintf(&out, "== threads: %d, by what they wait for in the kernel %v\n", len(tasks), waits)
	}
	if err := b.text("process.txt", out.Bytes()); err != nil {
		return err
	}
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return nil // a machine without systemd
	}
	ctx, cancel := context.WithTimeout(ctx, journalWithin)
	defer cancel()
	journal, err := exec.CommandContext(ctx, program, "--no-pager", "-q", "-n", "5000", "_PID="+strconv.Itoa(pid)).Output() //nolint:gosec // a number
	if err != nil {
		b.fault("log/journal.txt", err)
	}
	if len(journal) == 0 {
		return nil
	}
	return b.text("log/journal.txt", journal)
}

// section writes a file of /proc under its name. NUL bytes part arguments there.
func (b *bundle) section(out *bytes.Buffer, path string) {
	raw, err := os.ReadFile(path)
	if err != nil {
		b.fault(path, err)
		return
	}
	fmt.Fprintf(out, "== %s\n%s\n", path, bytes.TrimRight(bytes.ReplaceAll(raw, []byte{0}, []byte(" ")), " \n"))
}

// machine adds the limits and the load of the system.
func (b *bundle) machine(context.Context) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	var out bytes.Buffer
	paths := []string{
		"/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/io", "/proc/pressure/memory", "/proc/pressure/cpu",
		"/proc/net/sockstat", "/proc/sys/fs/file-nr", "/proc/sys/fs/file-max", "/proc/sys/kernel/pid_max", "/proc/sys/vm/max_map_count",
		"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/swappiness", "/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max", "/proc/sys/net/core/somaxconn",
		"/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/net/ipv4/tcp_congestion_control", "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max",
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil { // kernels differ
			b.section(&out, path)
		}
	}
	return b.text("system.txt", out.Bytes())
}

// logFile adds the end of a log.
func (b *bundle) logFile(path string) error {
	name := "log/" + filepath.Base(path)
	for i := 2; slices.Contains(b.items, name); i++ {
		name = fmt.Sprintf("log/%d-%s", i, filepath.Base(path))
	}
	f, err := os.Open(path)
	if err != nil {
		b.fault(name, err)
		return nil
	}
	defer f.Close()
	cut := false
	if info, err := f.Stat(); err == nil && info.Size() > maxBundleItem {
		if _, err := f.Seek(info.Size()-maxBundleItem, io.SeekStart); err != nil {
			b.fault(name, err)
			return nil
		}
		cut = true
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBundleItem))
	if err != nil {
		b.fault(name, err)
		return nil
	}
	if cut { // the second half of a secret is none that would be found
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return b.text(name, data)
}
