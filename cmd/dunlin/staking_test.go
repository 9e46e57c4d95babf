package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/api"
)

// guild makes a network of stake with slots of a second and a holder of each number of
// coins. It returns the file that describes it and those with the keys.
func guild(t *testing.T, coins ...int) (file string, keys []string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "guild.toml")
	args := []string{"network", "create", "--name", "guild", "--engine", "pos", "--slot", "1s", "--subsidy", "1000", "--out", file}
	for _, n := range coins {
		args = append(args, "--new-holder", fmt.Sprint(n))
	}
	mustRun(t, "", args...)
	keys, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*.key"))
	if err != nil || len(keys) != len(coins) {
		t.Fatalf("keys %v: %v", keys, err)
	}
	slices.Sort(keys)
	return file, keys
}

// mineBlock is the simple route, as the tutorials use it.
func (d *daemon) mineBlock(data string, seconds int) (status int, answer map[string]any) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, fmt.Sprintf("http://%s/mineBlock?timeout=%d", d.info.RPCAddr, seconds),
		strings.NewReader(fmt.Sprintf(`{"data": %q}`, data)))
	if err != nil {
		d.t.Fatal(err)
	}
	cookie, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(cookie)))
	req.Header.Set("Content-Type", "application/json")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		d.t.Fatal(err)
	}
	return r.StatusCode, answer
}

func (d *daemon) staking() api.Staking {
	d.t.Helper()
	s, err := d.client.Staking(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// waitLimit is how long a slot is waited for that comes within seconds, in seconds.
const waitLimit = 300

// TestE2EStaking: real nodes stake with a key file and with a wallet that can spend nothing,
// blocks can be asked for, and what was won outlives a kill.
func TestE2EStaking(t *testing.T) {
	t.Parallel()
	file, keys := guild(t, 700, 300)
	network := []string{"--network-file", file}
	a := startDaemon(t, "a", append(network, "--stake", "--key-file", keys[0])...)
	b := startDaemon(t, "b", append(network, "--key-file", keys[1], "--bootstrap", a.addr())...)

	status, answer := a.mineBlock("70", waitLimit)
	if status != http.StatusOK || answer["data"] != "70" || answer["index"].(float64) < 1 || answer["previous_hash"] == "" {
		t.Fatalf("mineBlock: %d %v", status, answer)
	}
	hash := answer["hash"].(string)
	b.has(hash)
	if s := b.staking(); s.Enabled || s.State != "off" || s.Blocks != 0 || len(s.History) != 0 || s.Source != "key-file" {
		t.Errorf("b, which does not stake: %+v", s)
	}
	// It is asked for one block, and starts then.
	if status, answer := b.mineBlock("30", waitLimit); status != http.StatusOK || answer["data"] != "30" {
		t.Fatalf("mineBlock at b: %d %v", status, answer)
	}
	mustRun(t, "", "stake", "start", "--home", b.home)
	eventually(t, patience, "b stakes", func() error {
		if s := b.staking(); s.State != "staking" || s.Weight != 300e8 || s.Coins < 1 || s.SlotChance <= 0 || s.ExpectedS == nil {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	mustRun(t, "", "stake", "stop", "--home", b.home)

	// What was won is known after a kill.
	a.kill9()
	a.start()
	s := a.staking()
	i := slices.IndexFunc(s.History, func(x api.StakedBlock) bool { return x.Hash == hash })
	if i < 0 || s.History[i].State != "active" || s.History[i].Reward != 1000 || s.History[i].Height < 1 {
		t.Errorf("%s of before the kill: %d in %+v", hash, i, s.History)
	}
	out := mustRun(t, "", "stake", "status", "--home", a.home)
	if !strings.Contains(out, "active") || !strings.Contains(out, hash) {
		t.Errorf("stake status:\n%s", out)
	}

	// A wallet has the second key; it is unlocked for staking only.
	b.stop()
	c := startDaemon(t, "c", append(network, "--bootstrap", a.addr())...)
	if status, answer := c.mineBlock("x", 1); status != http.StatusConflict || !strings.Contains(answer["message"].(string), "nothing to stake") {
		t.Errorf("without keys: %d %v", status, answer)
	}
	phrase := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(phrase, []byte("a good long passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "wallet", "create", "--home", c.home, "--passphrase-file", phrase)
	var wif string
	raw, err := os.ReadFile(keys[1])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			wif = line
		}
	}
	mustRun(t, wif, "wallet", "import", "--home", c.home, "--wif", "--passphrase-file", phrase)
	// What somebody must do something about is said at once, not when the time is over.
	if status, answer := c.mineBlock("x", waitLimit); status != http.StatusConflict || !strings.Contains(answer["message"].(string), "unlock it for staking") {
		t.Errorf("locked: %d %v", status, answer)
	}
	if out := mustRun(t, "", "miner", "status", "--home", c.home); strings.Contains(out, "address") {
		t.Errorf("miner status:\n%s", out)
	}
	mustRun(t, "", "wallet", "unlock", "--home", c.home, "--passphrase-file", phrase, "--staking")
	eventually(t, patience, "the wallet has its stake", func() error {
		if s := c.staking(); s.Weight != 300e8 || s.Source != "wallet" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if status, answer := c.mineBlock("by a wallet", waitLimit); status != http.StatusOK || answer["data"] != "by a wallet" {
		t.Fatalf("mineBlock with the wallet: %d %v", status, answer)
	} else {
		a.has(answer["hash"].(string))
	}
	if out, errs, code := dunlin(t, strings.NewReader(""), "wallet", "send", "--home", c.home, "--yes", mustAddress(t, c), "1"); code == 0 {
		t.Errorf("a wallet unlocked for staking sent: %s%s", out, errs)
	}
}

// mustAddress is an address of the daemon's wallet.
func mustAddress(t *testing.T, d *daemon) string {
	t.Helper()
	var a api.WalletAddress
	if err := json.Unmarshal([]byte(mustRun(t, "", "wallet", "receive", "--home", d.home, "-o", "json")), &a); err != nil {
		t.Fatal(err)
	}
	return a.Address
}

// has waits until a block is known.
func (d *daemon) has(hash string) {
	d.t.Helper()
	eventually(d.t, patience, d.name+" has "+hash, func() error {
		_, err := d.client.Block(d.t.Context(), hash)
		return err
	})
}
