package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dunlin/config"
)

// TestMiningKey: made once, kept, 0600, never overwritten; an address of another
// network is named.
func TestMiningKey(t *testing.T) {
	c, err := config.Load(config.LoadOptions{
		Home: t.TempDir(), Env: []string{}, NoFile: true,
		Flags: []config.Setting{{Key: "network", Values: []string{"regtest"}, From: "--network"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	script, addr, err := minerScript(c.Chain.Params, c)
	if err != nil || len(script) != 22 || !strings.HasPrefix(addr, "bcrt1q") {
		t.Fatalf("script %x, address %s, %v", script, addr, err)
	}
	path := filepath.Join(c.Home, miningKeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, again, err := minerScript(c.Chain.Params, c); err != nil || again != addr {
		t.Errorf("%s then %s, %v", addr, again, err)
	}
	if err := os.WriteFile(path, []byte("damaged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := minerScript(c.Chain.Params, c); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged key: %v", err)
	}
	c.Mining.Address = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	if err := CheckConfig(c); err == nil || !strings.Contains(err.Error(), "mining.address") {
		t.Errorf("an address of another network: %v", err)
	}
	c.Mining.Address = addr
	if err := CheckConfig(c); err != nil {
		t.Error(err)
	}
}
