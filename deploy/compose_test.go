//go:build compose && linux

package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/docbox"
)

// patience is for what takes seconds on a machine with nothing else to do.
const patience = 3 * time.Minute

// TestCompose types what README.md says of containers, with an engine of its own: image from the binary, five nodes that know one name,
// one of them killed twice, three more, and all gone. No image is pulled: the engine has no way out. It is a step of .ci/run of its own
// (compose), which installs what it needs; by hand: go test -tags compose -run TestCompose ./deploy, as root.
func TestCompose(t *testing.T) {
	boxes, err := docbox.For("README.md", "TestCompose")
	if err != nil {
		t.Fatal(err)
	}
	if len(boxes) != 6 {
		t.Fatalf("README.md has %d boxes for this test, want: build, up, look, backup, more, down", len(boxes))
	}
	c := startEngine(t)
	begin := time.Now()
	stage := func(name string) { t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), name) }

	c.enter(boxes[0])
	var images []struct {
		Size   int64
		Config struct{ User string }
	}
	c.decode(&images, "docker", "image", "inspect", "dunlin")
	if len(images) != 1 || images[0].Size > maxImageBytes || images[0].Config.User != "65532:65532" {
		t.Errorf("image %+v, want at most %d bytes and user 65532", images, maxImageBytes)
	}
	stage("image built")

	c.enter(boxes[1])
	c.agree(5, 3)
	stage("five nodes agree on a chain")
	c.healthy(6)
	stage("all are healthy")
	out := c.enter(boxes[2])
	for _, want := range []string{"sync     synced", "5 nodes of compose-", "dunlin/"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in what README's look shows:\n%s", want, out)
		}
	}
	// What Prometheus sees of the first node, from beside it: probes and metrics, and nothing else.
	first := c.nodes()[0]
	for path, want := range map[string]string{"/metrics": "dunlin_chain_height", "/readyz": "200 OK", "/livez": "200 OK", "/api/v1/status": "404 Not Found"} {
		if got := c.get(first.address(), path); !strings.Contains(got, want) {
			t.Errorf("%s at a node: no %q in %.300q", path, want, got)
		}
	}
	// The image's user cannot write but to its volume and /tmp, and has no capability.
	if got := c.sh("grep -E '^(CapEff|NoNewPrivs|Uid)' /proc/" + fmt.Sprint(first.State.Pid) + "/status"); !strings.Contains(got, "65532\t65532") ||
		!strings.Contains(got, "0000000000000000") || !strings.Contains(got, "NoNewPrivs:\t1") {
		t.Errorf("a node runs as\n%s", got)
	}
	if !first.HostConfig.ReadonlyRootfs {
		t.Error("the root is not read-only")
	}
	c.enter(boxes[3])
	for _, want := range []string{"identity.key", "config.toml", "blocks"} {
		if _, err := os.Stat(filepath.Join(c.dir, "backup", want)); err != nil {
			t.Errorf("the backup: %v", err)
		}
	}
	stage("looked at, backed up")

	// A crash: the engine starts it again, with its chain and its key.
	before := c.status(first)
	c.sh(fmt.Sprintf("kill -9 %d", first.State.Pid))
	c.until("the killed node is back", func() error {
		now := c.inspect(first.ID)
		if !now.State.Running || now.RestartCount != 1 {
			return fmt.Errorf("running %t, restarted %d times", now.State.Running, now.RestartCount)
		}
		s, err := c.try(now)
		if err != nil {
			return err
		}
		if s.PeerID != before.PeerID || s.Height < before.Height {
			return fmt.Errorf("before %+v, now %+v", before, s)
		}
		return nil
	})
	c.agree(5, 1)
	stage("killed, and back")
	// Off for some blocks, as when its machine is: then it takes what it missed.
	c.run("docker", "kill", "-s", "KILL", first.ID)
	c.until("others go on without it", func() error {
		s, err := c.try(c.nodes()[1])
		if err == nil && s.Height < before.Height+3 {
			err = fmt.Errorf("height %d", s.Height)
		}
		return err
	})
	c.run("docker", "start", first.ID)
	c.agree(5, 1)
	stage("gone for some blocks, and back")

	c.enter(boxes[4])
	c.agree(8, 1)
	stage("eight nodes agree")

	start := time.Now()
	c.enter(boxes[5])
	stage(fmt.Sprintf("all taken down in %.1f s", time.Since(start).Seconds()))
	for _, left := range [][]string{{"ps", "-aq"}, {"volume", "ls", "-q"}, {"network", "ls", "-q", "--filter", "type=custom"}} {
		if out := c.run("docker", left...); strings.TrimSpace(out) != "" {
			t.Errorf("docker %s: %s is left", strings.Join(left, " "), out)
		}
	}
}

// maxImageBytes bounds the image, which is the program and nothing else (42.9 MB in November 2026). When it no longer holds, a new dependency is
// the likely cause: internal/archtest has a list of those that were, and why.
const maxImageBytes = 45_000_000

// engine is a dockerd in namespaces of its own (network, mounts, processes): its bridges, firewall rules, mounts and containers end with it,
// however the test ends.
type engine struct {
	t   *testing.T
	dir string // where the reader stands
	env []string
	pid int // of dockerd here, by which its namespaces are entered
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "an engine needs root")
	}
	for _, tool := range []string{"dockerd", "docker", "docker-compose", "iptables", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			lack(t, tool+" is missing (Debian: apt-get install docker.io docker-compose iptables; bash .ci/run compose does it)")
		}
	}
	// Not t.TempDir: the path of a socket has little room. What is in it is the engine's: removed after its end.
	base, err := os.MkdirTemp("", "dunlin-compose") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	cgroup := filepath.Base(base)
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
		removeCgroups(t, cgroup)
	})
	socket := filepath.Join(base, "docker.sock")
	log, err := os.Create(filepath.Join(base, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// Nobody but this machine's loopback is there: nothing can be pulled. The engine picks overlay2, or vfs where that does not work.
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "sh", "-c",
		`ip link set lo up && exec dockerd "$@"`, "dockerd", "--data-root", filepath.Join(base, "data"), "--exec-root", filepath.Join(base, "exec"),
		"--pidfile", filepath.Join(base, "pid"), "--host", "unix://"+socket, "--cgroup-parent", "/"+cgroup, "--config-file", filepath.Join(base, "none.json"))
	if err := os.WriteFile(filepath.Join(base, "none.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	c := &engine{t: t, dir: repository(t), env: append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_BUILDKIT=0", "COMPOSE_PROJECT_NAME=", "COMPOSE_FILE=")}
	t.Cleanup(func() {
		if t.Failed() {
			if out, err := c.output(c.command("docker-compose", "-f", filepath.Join(c.deploy(), "compose.yaml"), "logs", "--no-color", "--tail", "40")); err == nil {
				t.Logf("logs of the containers:\n%s", tail(out, 20_000))
			}
			raw, err := os.ReadFile(log.Name())
			t.Logf("log of the engine (%v):\n%s", err, tail(string(raw), 4000))
		}
		_ = syscall.Kill(c.pid, syscall.SIGTERM) // dockerd: it takes down what still runs
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("dockerd did not stop")
			_ = cmd.Process.Kill() // and all in its namespaces with it
			<-ended
		}
	})
	c.pid = cmd.Process.Pid
	c.until("the engine answers", func() error {
		select {
		case <-ended:
			raw, _ := os.ReadFile(log.Name())
			t.Fatalf("dockerd ended:\n%s", tail(string(raw), 4000))
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(children), &c.pid); err != nil {
			return err
		}
		_, err = c.output(c.command("docker", "info", "--format", "{{.Driver}}"))
		return err
	})
	t.Logf("engine: %s", strings.TrimSpace(c.run("docker", "info", "--format", "{{.ServerVersion}}, {{.Driver}}, cgroup {{.CgroupVersion}}")))
	return c
}

// lack skips the test for what the machine does not have; in CI, where .ci/run has installed all, it fails.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// repository is a copy of what an image is made of and README.md's reader stands in.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-a", "--", ".dockerignore", "go.mod", "go.sum", "chain", "cmd", "config", "deploy", "discovery", "gossip", "internal", dir}
	cmd := exec.Command("cp", args...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// removeCgroups takes away what the engine's containers leave in the cgroup hierarchies: empty folders.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/*/*/*/" + name} {
		m, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m...)
	}
	for _, root := range found {
		var all []string
		// What is gone is gone.
		_ = filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, p)
			}
			return nil
		})
		for _, d := range slices.Backward(all) { // the innermost first
			if err := os.Remove(d); err != nil {
				t.Logf("a cgroup is left: %v", err)
			}
		}
	}
}

func (c *engine) deploy() string {
	if filepath.Base(c.dir) == "deploy" {
		return c.dir
	}
	return filepath.Join(c.dir, "deploy")
}

func (c *engine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(c.t.Context()), name, args...) // the end of a test runs commands too
	cmd.Dir, cmd.Env = c.dir, c.env
	return cmd
}

func (c *engine) output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, tail(out.String(), 2000), tail(errs.String(), 4000))
	}
	return out.String(), nil
}

// run runs a command that must succeed, and returns its standard output.
func (c *engine) run(name string, args ...string) string {
	c.t.Helper()
	out, err := c.output(c.command(name, args...))
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *engine) decode(into any, name string, args ...string) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.run(name, args...)), into); err != nil {
		c.t.Fatal(err)
	}
}

// enter runs a box of README.md as a reader would, who stands where the last one has left him.
func (c *engine) enter(b docbox.Box) string {
	c.t.Helper()
	where := filepath.Join(c.t.TempDir(), "pwd")
	out := c.run("bash", "-euo", "pipefail", "-c", b.Text+"\npwd > '"+where+"'")
	raw, err := os.ReadFile(where)
	if err != nil {
		c.t.Fatal(err)
	}
	c.dir = strings.TrimSpace(string(raw))
	return out
}

// sh runs a line beside the engine, in its namespaces.
func (c *engine) sh(line string) string {
	c.t.Helper()
	return c.run("nsenter", "--target", fmt.Sprint(c.pid), "--net", "--pid", "--mount", "bash", "-c", line)
}

// get asks a port of a container from beside it.
func (c *engine) get(address, path string) string {
	c.t.Helper()
	return c.sh(fmt.Sprintf(`exec 3<>/dev/tcp/%s/9361; printf 'GET %s HTTP/1.0\r\nHost: node\r\n\r\n' >&3; cat <&3`, address, path))
}

// until tries until it works or the time is over.
func (c *engine) until(what string, try func() error) {
	c.t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not after %s: %v", what, patience, err)
		}
	}
}

// container is what `docker inspect` says of one.
type container struct {
	ID           string
	Name         string
	RestartCount int
	State        struct {
		Running bool
		Pid     int
		Health  struct{ Status string }
	}
	HostConfig      struct{ ReadonlyRootfs bool }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func (n container) address() string {
	for _, w := range n.NetworkSettings.Networks {
		return w.IPAddress
	}
	return ""
}

func (c *engine) inspect(ids ...string) container {
	c.t.Helper()
	return c.inspectAll(ids)[0]
}

func (c *engine) inspectAll(ids []string) []container {
	c.t.Helper()
	var all []container
	c.decode(&all, "docker", append([]string{"inspect"}, ids...)...)
	if len(all) != len(ids) {
		c.t.Fatalf("%d containers of %d", len(all), len(ids))
	}
	slices.SortFunc(all, func(a, b container) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// nodes are the containers of the service, by name, running or not.
func (c *engine) nodes() []container {
	c.t.Helper()
	ids := strings.Fields(c.run("docker", "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.service=node"))
	if len(ids) == 0 {
		c.t.Fatal("no container of the service node")
	}
	return c.inspectAll(ids)
}

// status is what is looked at of `dunlin status -o json`.
type status struct {
	PeerID string `json:"peer_id"`
	Height int    `json:"height"`
	Sync   struct {
		State string `json:"state"`
	} `json:"sync"`
	Peers struct {
		Inbound  int `json:"inbound"`
		Outbound int `json:"outbound"`
	} `json:"peers"`
}

func (c *engine) try(n container) (s status, err error) {
	out, err := c.output(c.command("docker", "exec", n.ID, "dunlin", "status", "-o", "json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func (c *engine) status(n container) (s status) {
	c.until(n.Name+" answers", func() (err error) { s, err = c.try(n); return err })
	return s
}

// agree waits until there are so many nodes, all mine, are synced and have four peers, and have the same block at a height that is so many
// above the one that a node has now. Tips are not compared: a new one comes every five seconds, and sometimes two.
func (c *engine) agree(nodes, more int) {
	c.t.Helper()
	height := c.status(c.nodes()[1]).Height + more
	c.until(fmt.Sprintf("%d nodes agree on block %d", nodes, height), func() error {
		all := c.nodes()
		if len(all) != nodes {
			return fmt.Errorf("%d nodes", len(all))
		}
		errs, hashes := make([]error, nodes), make([]string, nodes)
		var asked sync.WaitGroup
		for i, n := range all {
			asked.Go(func() { hashes[i], errs[i] = c.blockAt(n, height) })
		}
		asked.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if slices.Sort(hashes); hashes[0] != hashes[nodes-1] {
			return fmt.Errorf("blocks %v", hashes)
		}
		return nil
	})
}

// blockAt is the hash of a node's block at a height; an error, if it is not a node that is synced up to there, has peers and mines.
func (c *engine) blockAt(n container, height int) (string, error) {
	s, err := c.try(n)
	if err != nil {
		return "", err
	}
	if peers := s.Peers.Inbound + s.Peers.Outbound; s.Sync.State != "synced" || s.Height < height || peers < 4 {
		return "", fmt.Errorf("%s: %s, height %d of %d, %d peers", n.Name, s.Sync.State, s.Height, height, peers)
	}
	out, err := c.output(c.command("docker", "exec", n.ID, "dunlin", "miner", "status"))
	if err != nil || !strings.Contains(out, "running") {
		return "", fmt.Errorf("%s does not mine: %s (%w)", n.Name, out, err)
	}
	var b struct {
		Hash string `json:"hash"`
	}
	if out, err = c.output(c.command("docker", "exec", n.ID, "dunlin", "chain", "block", fmt.Sprint(height), "-o", "json")); err != nil {
		return "", err
	}
	if err := json.Unmarshal([]byte(out), &b); err != nil || b.Hash == "" {
		return "", fmt.Errorf("%s: block %d: %s (%w)", n.Name, height, out, err)
	}
	return b.Hash, nil
}

// healthy waits until so many containers are, as HEALTHCHECK of the image and compose.yaml say.
func (c *engine) healthy(want int) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d containers are healthy", want), func() error {
		ids := strings.Fields(c.run("docker", "ps", "-q", "--no-trunc", "--filter", "health=healthy"))
		if len(ids) != want {
			return fmt.Errorf("%d are", len(ids))
		}
		return nil
	})
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
