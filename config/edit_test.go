package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunlin/config"
)

const (
	nodeA = "/ip4/192.0.2.1/tcp/9333/p2p/12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K"
	nodeB = "/ip4/192.0.2.2/tcp/9333/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
)

// TestSetInFile: one key changes, wherever and however it stands, and nothing else does.
func TestSetInFile(t *testing.T) {
	t.Parallel()
	set := `bootstrap = ["` + nodeA + `", "` + nodeB + `"]`
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "\n[p2p]\n" + set + "\n"},
		{"no section", "network = \"regtest\"\n# end", "network = \"regtest\"\n# end\n\n[p2p]\n" + set + "\n"},
		{"a bare section", "[p2p]", "[p2p]\n" + set + "\n"},
		{"at the head", "[p2p]\nmdns = true\n[log]\nlevel = \"debug\"\n", "[p2p]\n" + set + "\nmdns = true\n[log]\nlevel = \"debug\"\n"},
		{"after its default", "[p2p]\n# x\n# bootstrap = []\n\n# mdns = false\n[log]\n", "[p2p]\n# x\n# bootstrap = []\n" + set + "\n\n# mdns = false\n[log]\n"},
		{"after its default, at the end", "[p2p]\n# bootstrap = []", "[p2p]\n# bootstrap = []\n" + set + "\n"},
		{"one line", "[p2p]\nbootstrap = [\"" + nodeB + "\"] # mine\nmdns = true\n", "[p2p]\n" + set + "\nmdns = true\n"},
		{"many lines", "[p2p]\nbootstrap = [\n  # why\n  \"" + nodeB + "\",\n]\nmdns = true\n", "[p2p]\n" + set + "\nmdns = true\n"},
		{"indented", "[p2p]\n  bootstrap=[]\n  mdns = true\n", "[p2p]\n  " + set + "\n  mdns = true\n"},
		{"dotted", "p2p.bootstrap = []\np2p.mdns = true\n", "p2p." + set + "\np2p.mdns = true\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			file := filepath.Join(home, config.FileName)
			if err := os.WriteFile(file, []byte(tt.in), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time changes nothing
				if _, err := config.SetInFile(home, "p2p.bootstrap", nodeA, nodeB); err != nil {
					t.Fatal(err)
				}
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if got := string(raw); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			}
			c, err := config.Load(config.LoadOptions{Home: home, Env: []string{}})
			if err != nil || len(c.P2P.Bootstrap) != 2 {
				t.Errorf("%v, %v", c, err)
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestSetInFileRefuses: what cannot be changed safely is left alone.
func TestSetInFileRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, key, value, want string }{
		{"an inline table", "p2p = {bootstrap = []}\n", "p2p.bootstrap", nodeA, "stands in a form that only a person can change"},
		{"an inline table without it", "p2p = {mdns = true}\n", "p2p.bootstrap", nodeA, "could not be set"},
		{"no TOML", "p2p = \n", "p2p.bootstrap", nodeA, "is no TOML"},
		{"no such key", "", "p2p.bootstarp", nodeA, "did you mean p2p.bootstrap"},
		{"out of range", "", "p2p.max_outbound", "-1", "-1"},
		{"no address", "", "p2p.bootstrap", "192.0.2.1:9333", "is host:port, not a multiaddr"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			file := filepath.Join(home, config.FileName)
			if err := os.WriteFile(file, []byte(tt.in), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := config.SetInFile(home, tt.key, tt.value)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			raw, readErr := os.ReadFile(file)
			if readErr != nil || string(raw) != tt.in {
				t.Errorf("the file is now\n%s", raw)
			}
			if left, _ := filepath.Glob(filepath.Join(home, "*")); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := config.SetInFile(t.TempDir(), "p2p.bootstrap"); err == nil {
		t.Error("no file, no error")
	}
}
