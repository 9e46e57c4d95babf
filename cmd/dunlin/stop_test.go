package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/spf13/pflag"
)

// stopWithin is how long any end may take: what waits for a node gives it this long before it kills.
const stopWithin = 10 * time.Second

// stopsSoon asks the daemon to end and checks how long that takes.
func (d *daemon) stopsSoon(state string) {
	d.t.Helper()
	cmd, began := d.cmd, time.Now()
	d.stop()
	took := time.Since(began)
	d.t.Logf("%s: stopped in %v", state, took)
	if took > stopWithin || cmd.ProcessState.ExitCode() != 0 {
		d.t.Errorf("%s: stopped in %v with code %d", state, took, cmd.ProcessState.ExitCode())
	}
}

// TestE2EStop: whatever a node is doing and whoever listens to it, it stops in order and soon.
func TestE2EStop(t *testing.T) {
	t.Parallel()
	t.Run("with listeners", func(t *testing.T) {
		t.Parallel()
		d := startDaemon(t, "heard", "--network", "regtest", "--mine", "--mine-interval", "100ms")
		token, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		// Event streams that are read and that are not, sockets, a long poll, and an idle connection.
		base, client := d.client.Endpoint()
		for range 5 {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/events", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Fatalf("events: %s", res.Status)
			}
			if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			c, _, err := websocket.Dial(ctx, "ws://"+d.info.RPCAddr+"/ws?token="+strings.TrimSpace(string(token)), nil) //nolint:bodyclose // a WebSocket has none
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.CloseNow() }()
		}
		user, password := cookie(t, d)
		polled := make(chan struct{})
		defer func() { <-polled }()
		go func() {
			defer close(polled)
			// No tip and no minute will end it: only the node's end does.
			body := `{"method":"getblocktemplate","params":[{"rules":["segwit"],"longpollid":"` + strings.Repeat("0", 64) + `0"}],"id":1}`
			for range 3 {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, base, strings.NewReader(body))
				if err != nil {
					return
				}
				req.SetBasicAuth(user, password)
				req.Header.Set("Content-Type", "application/json")
				res, err := client.Do(req)
				if err != nil {
					return
				}
				_ = res.Body.Close()
			}
		}()
		d.stopsSoon("with listeners")
	})

	const network = "bitcoin"
	file := testData(t, "chain/mainnet-blocks-0-14131.dat.zst")
	// importing starts an import into home and returns once it has written blocks.
	importing := func(t *testing.T, home string) (*exec.Cmd, chan error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "dunlin", "chain", "import", "--home", home, "--network", network, file)
		newOutput(t).of(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		eventually(t, patience, "blocks are written", func() error {
			info, err := os.Stat(filepath.Join(home, "blocks", "00000.blk"))
			if err == nil && info.Size() < 500_000 {
				err = fmt.Errorf("%d bytes", info.Size())
			}
			return err
		})
		return cmd, ended
	}
	t.Run("import", func(t *testing.T) {
		t.Parallel()
		home := filepath.Join(t.TempDir(), "h")
		cmd, ended := importing(t, home)
		began := time.Now()
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		<-ended // with an error, unless it was faster
		if took := time.Since(began); took > stopWithin {
			t.Errorf("an import ended %v after Ctrl-C", took)
		}
		verified(t, []string{"chain", "verify", "--depth", "10", "-o", "json", "--home", home, "--network", network})
	})
	t.Run("replay and sync", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, "replays", "--network", network)
		cmd, ended := importing(t, d.home)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) { // else it starts at the tip
			t.Fatal(err)
		}
		<-ended
		d.launch()
		eventually(t, patience, "it has begun", func() error {
			if !strings.Contains(d.log.String(), "listening") {
				return fmt.Errorf("log: %s", d.log)
			}
			return nil
		})
		d.stopsSoon("in the replay")

		// And a node that downloads from it, as soon as it has something.
		if out, errs, code := dunlin(t, nil, "chain", "import", "--home", d.home, "--network", network, file); code != 0 {
			t.Fatalf("exit %d: %s%s", code, out, errs)
		}
		d.start()
		young := startDaemon(t, "young", "--network", network, "--bootstrap", d.addr())
		eventually(t, patience, "it downloads", func() error {
			if s := young.mustStatus(); s.Height == 0 {
				return fmt.Errorf("%+v", s.Sync)
			}
			return nil
		})
		young.stopsSoon("in the sync")
		d.stopsSoon("after serving")
	})
}

// TestUnit: the units for systemd start what there is, with flags that exist, and systemd takes them. The template is the unit with the
// instance's name in four places.
func TestUnit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "deploy", "systemd")
	read := func(name string) string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	unit := read("dunlin.service")
	const program = "/usr/local/bin/dunlin"
	_, line, ok := strings.Cut(unit, "\nExecStart="+program+" ")
	line, _, _ = strings.Cut(line, "\n")
	cmd, rest, err := newRoot().Find(strings.Fields(line))
	if !ok || err != nil || cmd.CommandPath() != "dunlin start" {
		t.Fatalf("ExecStart=%s: %v", line, err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("ExecStart=%s: %v", line, err)
	}
	set := 0
	cmd.Flags().Visit(func(*pflag.Flag) { set++ })
	for _, want := range []string{"Type=notify", "WatchdogSec=", "User=dunlin", "NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=dunlin", "StateDirectoryMode=0700", fmt.Sprintf("RestartPreventExitStatus=%d", exitUsage)} {
		if !strings.Contains(unit, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if set != 2 {
		t.Errorf("%d flags in %s", set, line)
	}
	if users := read(filepath.Join("sysusers.d", "dunlin.conf")); !strings.Contains(users, "\nu dunlin - ") {
		t.Errorf("sysusers: %q", users)
	}
	_, body, _ := strings.Cut(unit, "[Unit]")
	_, template, _ := strings.Cut(read("dunlin@.service"), "[Unit]")
	body = strings.NewReplacer(
		"blockchain node\n", "blockchain node (%i)\n", "/etc/dunlin/dunlin.env", "/etc/dunlin/%i.env",
		"--home /var/lib/dunlin ", "--home /var/lib/dunlin-%i ", "StateDirectory=dunlin\n", "StateDirectory=dunlin-%i\n",
	).Replace(body)
	if body != template {
		t.Errorf("dunlin@.service is not dunlin.service with its instance:\n%s", template)
	}
	checker, err := exec.LookPath("systemd-analyze") //nolint:misspell // its name
	if err != nil {
		return // a machine without systemd has no say
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	for _, name := range []string{"dunlin.service", "dunlin@.service"} {
		file := filepath.Join(tmp, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(read(name), program, own)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), checker, "verify", "--man=no", file).CombinedOutput()
		// It looks at the machine's other units too; only what it says of this one counts.
		if strings.Contains(string(out), name) {
			t.Errorf("systemd does not like the unit: %v\n%s", err, out)
		}
	}
	// What a hole in the node could do, by systemd's own reckoning, out of 100 (less is better). Before version 250 it knows no unit that is not loaded.
	out, err := exec.CommandContext(t.Context(), checker, "security", "--offline=true", "--threshold=12", "--no-pager", filepath.Join(tmp, "dunlin.service")).CombinedOutput()
	if err != nil && strings.Contains(string(out), "exposure level") {
		t.Errorf("the unit is open to more than it was: %v\n%s", err, out)
	}
}
