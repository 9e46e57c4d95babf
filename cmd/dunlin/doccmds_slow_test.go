//go:build slow && linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/internal/docbox"
	"dunlin/internal/netlab"
)

// forever are commands in boxes without words (README's first must be plain) that run until Ctrl-C: what the log must
// have told by then, and what it must tell at its end.
var forever = map[string][2]string{"go run ./cmd/dunlin testnet": {`all 6 agree on block \d+ `, `stopped 6 daemons in `}}

// before are what prose leaves to the reader, ahead of a command: who sends coins must have some.
var before = map[string]string{"dunlin wallet send": "seq 101 | dunlin miner block --data - >/dev/null\n"}

// TestDocCommands does what README.md and deploy/README.md tell the reader to type, to the letter, on machines with nothing but
// an address, an empty home and a folder: the first has the repository there, the others the program. Ports are
// those of the document, for nobody else is on these networks.
func TestDocCommands(t *testing.T) {
	t.Parallel()
	_ = netlab.New(t) // or skipped here
	env := goEnvironment(t)
	for _, doc := range docs {
		t.Run(filepath.ToSlash(doc), func(t *testing.T) {
			t.Parallel()
			boxes, err := docbox.Read(filepath.Join("..", "..", doc))
			if err != nil {
				t.Fatal(err)
			}
			walkThrough(t, doc, boxes, env)
		})
	}
}

func walkThrough(t *testing.T, doc string, boxes []docbox.Box, env []string) {
	t.Helper()
	lab := netlab.New(t)
	all := t.TempDir()
	r := newWalk(t, nil)
	r.make = func(name string) *machine {
		dir := filepath.Join(all, name)
		ip := fmt.Sprintf("192.168.1.%d", 20+len(r.machines))
		h := lab.Host(ip)
		// Hosts of a lab have an address without a network; these are neighbours on 192.168.1.0/24.
		if out, err := h.Run("ip", "addr", "add", ip+"/24", "dev", "eth0"); err != nil {
			t.Fatal(out, err)
		}
		m := &machine{dir: filepath.Join(dir, "folder"), home: filepath.Join(dir, "home"), env: env, at: h}
		for _, d := range []string{m.dir, m.home} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		provide(t, m, name == first)
		return m
	}
	_ = r.machine(first) // its address is the first
	r.answers = map[string]string{"assphrase: ": "correct horse", "passphrase again: ": "correct horse", "[y/N] ": "y"}
	r.begin = func(section string) {
		r.leave()
		m := r.machine(first)
		m.env = env
		if section == "The wallet" {
			// Coins at once, and of no worth.
			m.env = append(slices.Clone(env), "DUNLIN_NETWORK=regtest")
			r.start("node", m, section, "dunlin start")
			eventually(t, patience, "the wallet's node runs", func() error {
				if err := r.terminals["node"].ended(); err != nil {
					return err
				}
				_, err := r.shell(m, "dunlin status")
				return err
			})
		}
	}
	r.script = func(b docbox.Box) string {
		var script strings.Builder
		for _, c := range stripped(doc, b) {
			for prefix, more := range before {
				if strings.HasPrefix(c, prefix) {
					script.WriteString(more)
				}
			}
			for word, value := range readers {
				c = regexp.MustCompile(`\b`+word+`\b`).ReplaceAllLiteralString(c, value)
			}
			script.WriteString(c + "\n")
		}
		return script.String()
	}
	for i, b := range boxes {
		for _, c := range b.Commands() {
			if _, ok := forever[c]; ok {
				boxes[i].Kind = "sh terminal forever"
			}
		}
	}
	ran := 0
	r.after = func(b docbox.Box, term *terminal) {
		ran += len(stripped(doc, b))
		if b.Value("terminal") != "forever" {
			return
		}
		tells := func(what string) {
			eventually(t, patience, b.Text+" tells "+what, func() error {
				if log := term.log.String(); !regexp.MustCompile(what).MatchString(log) {
					return fmt.Errorf("%s", lastPart(log, 2000))
				}
				return nil
			})
		}
		for _, c := range stripped(doc, b) {
			tells(forever[c][0])
			r.leave()
			tells(forever[c][1])
		}
	}
	r.do(boxes)
	r.leave()
	if doc == docs[0] && ran < 10 {
		t.Errorf("%d commands only: was it read right?", ran)
	}
	t.Logf("%d commands of %s on %d machines", ran, doc, len(r.machines))
}

// leave gives all terminals a Ctrl-C: what runs there must end well, and leave nothing running on any machine.
func (r *walk) leave() {
	r.t.Helper()
	for name := range r.terminals {
		r.interrupt(name)
	}
	for name, m := range r.machines {
		eventually(r.t, patience, "nothing runs on "+name, func() error {
			if left := processesAt(r.t, m.at.(*netlab.Host)); len(left) > 0 {
				return fmt.Errorf("%q", left)
			}
			return nil
		})
	}
}

// processesAt lists the command lines of what runs on a host.
func processesAt(t *testing.T, h *netlab.Host) (lines []string) {
	t.Helper()
	var space string
	if err := h.Do(func() (err error) { space, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if at, err := os.Readlink(link); err != nil || at != space {
			continue // it has ended, or is elsewhere
		}
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "cmdline"))
		if err == nil && len(raw) > 0 { // not one that is only to be waited for
			lines = append(lines, strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return lines
}

// provide lays out a machine's folder: the repository, or the program.
func provide(t *testing.T, m *machine, repository bool) {
	t.Helper()
	program, err := exec.LookPath("dunlin")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{program}
	if repository {
		if files, err = filepath.Glob(filepath.Join("..", "..", "[A-Za-z]*")); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		abs, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(filepath.Base(abs), "dunlin") && repository {
			continue // what somebody has built there
		}
		if err := os.Symlink(abs, filepath.Join(m.dir, filepath.Base(abs))); err != nil {
			t.Fatal(err)
		}
	}
}

// goEnvironment is what a machine without the Internet needs to build: the modules of this one. It compiles the program
// once, so that nobody has to wait for that later.
func goEnvironment(t *testing.T) []string {
	t.Helper()
	env := []string{"GOPROXY=off", "GOTOOLCHAIN=local", "GOFLAGS=-trimpath", "CGO_ENABLED=0", "DUNLIN_HOME="}
	for _, name := range []string{"GOPATH", "GOMODCACHE", "GOCACHE"} {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", os.DevNull, ".")
	build.Env = append(os.Environ(), env...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return env
}
