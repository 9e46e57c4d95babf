package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dunlin/internal/docbox"
)

// TestSystemd installs the units as README.md says, in a folder that stands for the machine's root: systemd's own tools take them. That the
// unit starts a node is TestUnit of cmd/dunlin.
func TestSystemd(t *testing.T) {
	t.Parallel()
	boxes, err := docbox.For("README.md", "TestSystemd")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, dir := range []string{"usr/local/bin", "etc/systemd/system", "etc/sysusers.d", "etc/tmpfiles.d", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "dunlin")
	if err := os.WriteFile(program, []byte("#!/bin/true\n"), 0o700); err != nil { //nolint:gosec // it stands for the program
		t.Fatal(err)
	}
	missing := 0
	for _, b := range boxes {
		for _, line := range b.Commands() {
			words := strings.Fields(line)
			for i, w := range words[1:] {
				if i++; strings.HasPrefix(w, "/") {
					words[i] = filepath.Join(root, w)
				} else if w == "dunlin" && words[0] == "install" {
					words[i] = program
				}
			}
			if words[0] != "install" {
				if _, err := exec.LookPath(words[0]); err != nil {
					missing++
					continue // a machine without systemd has no say
				}
				words = append([]string{words[0], "--root=" + root}, words[1:]...)
			}
			cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
			cmd.Dir = ".."
			if out, err := cmd.CombinedOutput(); err != nil && !notRoot(words[0]) {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
	}
	if missing > 0 || os.Geteuid() != 0 {
		return
	}
	if info, err := os.Stat(filepath.Join(root, "etc", "dunlin")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("/etc/dunlin: %v, error %v", info, err)
	}
	if users, err := os.ReadFile(filepath.Join(root, "etc", "passwd")); err != nil || !strings.Contains(string(users), "dunlin node") {
		t.Errorf("users %q, error %v", users, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "etc", "systemd", "system", "multi-user.target.wants", "dunlin.service")); err != nil {
		t.Errorf("the unit is not enabled: %v", err)
	}
}

// notRoot says whether a command may fail because only root makes users.
func notRoot(command string) bool { return command != "install" && os.Geteuid() != 0 }
