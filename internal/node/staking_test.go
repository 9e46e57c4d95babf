package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/config"
	"dunlin/internal/address"
)

// wif is holder n's public secret of stakenet.
func wif(t *testing.T, p *consensus.Params, n int) (text string, output [32]byte) {
	t.Helper()
	secret := consensus.StakenetKey(n)
	k, _ := btcec.PrivKeyFromBytes(secret[:])
	w, err := btcutil.NewWIF(k, address.Params(p), true)
	if err != nil {
		t.Fatal(err)
	}
	return w.String(), [32]byte(schnorr.SerializePubKey(txscript.ComputeTaprootKeyNoScript(k.PubKey())))
}

// TestKeyFile: keys of a file sign for their BIP86 outputs. What is wrong is told with its line,
// and never with what the line has.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	p := consensus.Stakenet()
	one, out1 := wif(t, p, 1)
	two, out2 := wif(t, p, 2)
	foreign, _ := wif(t, consensus.Bitcoin(), 1)
	file := func(mode os.FileMode, text string) string {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	k, err := loadStakingKeys(file(0o600, "# holder 1\r\n"+one+"\r\n\n  "+two+"  \n"+one), p)
	if err != nil || len(k.held) != 2 || !k.has(out1) || !k.has(out2) {
		t.Fatalf("%v", err)
	}
	h := &consensus.Header{}
	raw, err := k.Sign(&pos.Stake{Key: out2}, h)
	if err != nil {
		t.Fatal(err)
	}
	key, err := schnorr.ParsePubKey(out2[:])
	if err != nil {
		t.Fatal(err)
	}
	sig, err := schnorr.ParseSignature(raw[:])
	hash := consensus.HeaderHash(h)
	if err != nil || !sig.Verify(hash[:], key) {
		t.Errorf("signature %x: %v", raw, err)
	}
	if _, err := k.Sign(&pos.Stake{Key: [32]byte{1}}, h); err == nil {
		t.Error("signed by a key that is not held")
	}
	k.wipe()
	if _, err := k.Sign(&pos.Stake{Key: out2}, h); err == nil || k.has(out1) {
		t.Error("signed by a key that was wiped")
	}

	typo := one[:len(one)-1] + "x"
	for _, c := range []struct{ path, want string }{
		{file(0o640, one), "has mode 0640: others can read the keys; chmod 600 it"},
		{file(0o600, ""), "has no key"},
		{file(0o600, "# nothing\n"), "has no key"},
		{file(0o600, one+"\n"+typo+"\n"+foreign), "line 2: private key (WIF): "},
		{file(0o600, foreign), "line 1: private key (WIF): of another network than stakenet"},
		{file(0o600, strings.Repeat("#", maxKeyFileBytes+1)), "at most"},
		{t.TempDir(), "is no file"},
		{filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		_, err := loadStakingKeys(c.path, p)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		for _, secret := range []string{one, typo, foreign, two} {
			if err != nil && strings.Contains(err.Error(), secret[5:20]) {
				t.Errorf("a key is told: %v", err)
			}
		}
	}
}

// TestStakingSettings: what makes blocks fits the engine of the network, and every fault is told.
func TestStakingSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network string
		set     func(*config.Config)
		want    []string
	}{
		{"stakenet", func(c *config.Config) { c.Staking.Enabled = true }, nil},
		{"stakenet", func(c *config.Config) { c.Staking.Enabled, c.Staking.KeyFile = true, "none" }, []string{"staking.key_file", "no such file"}},
		{"stakenet", func(c *config.Config) { c.Mining.Enabled = true }, []string{"mining.enabled", "with stake"}},
		{"regtest", func(c *config.Config) { c.Mining.Enabled = true }, nil},
		{"regtest", func(c *config.Config) { c.Staking.Enabled, c.Staking.KeyFile = true, "keys" }, []string{"staking.enabled", "staking.key_file", "made by work"}},
	} {
		n, err := config.Preset(c.network)
		if err != nil {
			t.Fatal(err)
		}
		conf := config.Default(n)
		c.set(conf)
		err = CheckConfig(conf)
		if (err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: %v", c.network, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", c.network, err, want)
			}
		}
	}
}
