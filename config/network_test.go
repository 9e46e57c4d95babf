package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dunlin/chain/consensus"
	"dunlin/config"
)

func TestPresets(t *testing.T) {
	ports := map[uint16]string{}
	for _, name := range config.PresetNames() {
		n, err := config.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if n.Params.Name != name || !strings.HasPrefix(n.ChainID(), name+"-") {
			t.Errorf("%s is %s, %s", name, n.Params.Name, n.ChainID())
		}
		for _, port := range []uint16{n.P2PPort, n.RPCPort} {
			if other, taken := ports[port]; taken {
				t.Errorf("port %d of %s is %s's too", port, name, other)
			}
			ports[port] = name
		}
	}
	for name, want := range map[string]string{"mainnet": "bitcoin", "regtst": "regtest", "": "known networks", "staknet": "did you mean stakenet"} {
		if _, err := config.Preset(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

func TestNetworkFileRoundTrip(t *testing.T) {
	name := filepath.Join(t.TempDir(), "network.toml")
	made, err := config.WriteNetworkFile(name, spec())
	if err != nil {
		t.Fatal(err)
	}
	read, err := config.ReadNetworkFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(made, read) {
		t.Errorf("wrote\n%+v\nread\n%+v", made, read)
	}
	p := read.Params
	if p.TargetSpacing != 30*time.Second || p.BaseSubsidy != 50e8 || p.SubsidyHalvingInterval != 210_000 || !p.Test || !read.Private {
		t.Errorf("parameters %+v", p)
	}
	if !slices.Equal(read.Bootstrap, spec().Bootstrap) || !slices.Equal(read.DNSSeeds, spec().DNSSeeds) {
		t.Errorf("seeds %v %v", read.Bootstrap, read.DNSSeeds)
	}
	if _, err := config.WriteNetworkFile(name, spec()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second write replaced it: %v", err)
	}
	c := config.Default(read)
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(c.P2P.Bootstrap, spec().Bootstrap) || c.NetworkFile != name {
		t.Errorf("defaults %v %s", c.P2P.Bootstrap, c.NetworkFile)
	}
}

func TestNetworkFileFaults(t *testing.T) {
	good := string(spec().Encode())
	replace := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in\n%s", old, good)
		}
		return strings.Replace(good, old, by, 1)
	}
	rows := map[string]struct {
		text string
		want []string
	}{
		"empty":         {"", []string{"name: is missing", "engine: is missing", "genesis_text: is missing", "genesis_time: is missing", "halving_interval: is missing", "subsidy: is missing"}},
		"no spacing":    {replace(`spacing = "30s"`, ""), []string{"spacing: is missing"}},
		"no bits":       {replace(`pow_limit_bits = "0x207fffff"`, ""), []string{"pow_limit_bits: is missing"}},
		"preset's name": {replace(`"mynet"`, `"regtest"`), []string{"is the name of a preset"}},
		"bad name":      {replace(`"mynet"`, `"My Net"`), []string{"is no name", "1 to 32 of a-z"}},
		"engine":        {replace(`"pow"`, `"poa"`), []string{`engine = "poa"`, `one of "pow", "pos"`}},
		"other engine": {replace(`"pow"`, `"pos"`), []string{
			`spacing = "30s": is for networks with engine = "pow", and this one has "pos"`, "pow_limit_bits = ", "slot: is missing", "holders: is missing", "stake_maturity: is missing", "max_reorg: is missing",
		}},
		"text":        {replace(`"dunlin network mynet"`, `"`+strings.Repeat("x", 81)+`"`), []string{"has 81 bytes"}},
		"time":        {replace("2027-01-15T08:00:00Z", `"soon"`), []string{"genesis_time", "is a string", "2026-01-31T12:00:00Z"}},
		"local time":  {replace("2027-01-15T08:00:00Z", "2027-01-15T08:00:00"), []string{"genesis_time", "is a date or time"}},
		"far time":    {replace("2027-01-15", "2200-01-15"), []string{"does not fit a block header"}},
		"half second": {replace("08:00:00Z", "08:00:00.5Z"), []string{"is no whole second"}},
		"spacing":     {replace(`"30s"`, `"10ms"`), []string{"spacing", "is out of range"}},
		"halving":     {replace("210000", "0"), []string{"halving_interval = 0"}},
		"subsidy":     {replace("5000000000", "-1"), []string{"subsidy = -1"}},
		"bits":        {replace(`"0x207fffff"`, `"207fffff"`), []string{"pow_limit_bits"}},
		"genesis":     {replace(`genesis_hash = ""`, `genesis_hash = "`+strings.Repeat("ab", 32)+`"`), []string{"genesis_hash", "the other keys give"}},
		"unknown":     {good + "\nspaceing = 1\n", []string{"did you mean spacing?"}},
		"bootstrap":   {replace(peerA, "x"), []string{"bootstrap", "is no multiaddr"}},
		"port":        {replace("9363", "65536"), []string{"p2p_port = 65536"}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s, err := config.ParseNetworkSpec("network.toml", []byte(row.text))
			if err == nil {
				_, err = s.Network()
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("lacks %q:\n%v", want, err)
				}
			}
			if got := strings.Count(err.Error(), "\n") + 1; got != max(1, len(row.want)) && name == "empty" {
				t.Errorf("%d faults reported of %d:\n%v", got, len(row.want), err)
			}
		})
	}
}

// stakeSpec is a proof-of-stake network whose holders are given in every form there is.
func stakeSpec() config.NetworkSpec {
	holders := consensus.StakenetHolders()
	s := config.DefaultStakeSpec("stakes", time.Unix(1_800_000_000, 0),
		config.FormatHolder(holders[0]), fmt.Sprintf("%x=0.5", holders[1].Key), strings.ToUpper(config.HolderAddress(holders[2].Key))+" = 00150000.00000001", fmt.Sprintf("%X=1", holders[3].Key))
	s.Slot, s.Bootstrap, s.DNSSeeds = 2*time.Second, []string{peerA}, []string{"seed.example.org"}
	return s
}

// TestStakeNetwork: the file says what the parameters are, and reads as it was written.
func TestStakeNetwork(t *testing.T) {
	name := filepath.Join(t.TempDir(), "network.toml")
	made, err := config.WriteNetworkFile(name, stakeSpec())
	if err != nil {
		t.Fatal(err)
	}
	read, err := config.ReadNetworkFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(made, read) {
		t.Errorf("wrote\n%+v\nread\n%+v", made, read)
	}
	p := read.Params
	if !p.ProofOfStake() || p.SlotDuration != 2*time.Second || p.TargetSpacing != 8*time.Second || p.StakeMaturity != 100 || p.MaxReorg != 100 || p.SealBytes != 140 {
		t.Errorf("parameters %+v", p)
	}
	want := []int64{500_000e8, 0.5e8, 150_000e8 + 1, 1e8}
	for i, h := range consensus.StakenetHolders() {
		out := p.Genesis.Transactions[0].TxOut[i]
		if out.Value != want[i] || string(out.PkScript[2:]) != string(h.Key[:]) {
			t.Errorf("holder %d: %d satoshi for %x, want %d for %x", i+1, out.Value, out.PkScript, want[i], h.Key)
		}
	}
	invite, err := config.NewInvitation(read, nodeA)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := config.ParseInvitation(invite.String())
	if err != nil || joined.Network.ChainID() != read.ChainID() || joined.Network.Params.MaxReorg != 100 {
		t.Errorf("invitation: %v, %v", joined.Network, err)
	}
	// Every key that shapes the chain is in its id.
	for name, change := range map[string]func(*config.NetworkSpec){
		"name":     func(s *config.NetworkSpec) { s.Name = "other" },
		"slot":     func(s *config.NetworkSpec) { s.Slot = time.Second },
		"halving":  func(s *config.NetworkSpec) { s.HalvingInterval++ },
		"subsidy":  func(s *config.NetworkSpec) { s.Subsidy++ },
		"maturity": func(s *config.NetworkSpec) { s.StakeMaturity++ },
		"reorg":    func(s *config.NetworkSpec) { s.MaxReorg++ },
		"amount":   func(s *config.NetworkSpec) { s.Holders[3] += ".1" },
		"order":    func(s *config.NetworkSpec) { slices.Reverse(s.Holders) },
	} {
		s := stakeSpec()
		change(&s)
		if n, err := s.Network(); err != nil || n.Params.GenesisHash == p.GenesisHash {
			t.Errorf("another %s leaves the chain id (%v)", name, err)
		}
	}
}

func TestStakeNetworkFaults(t *testing.T) {
	holders := consensus.StakenetHolders()
	key := fmt.Sprintf("%x", holders[0].Key)
	addr := config.HolderAddress(holders[0].Key)
	many := make([]string, consensus.MaxHolders+1)
	for i := range many {
		many[i] = addr + "=1"
	}
	with := func(list ...string) func(*config.NetworkSpec) {
		return func(s *config.NetworkSpec) { s.Holders = list }
	}
	for want, change := range map[string]func(*config.NetworkSpec){
		"slot = \"1.5s\": is no whole number of seconds":                        func(s *config.NetworkSpec) { s.Slot = 1500 * time.Millisecond },
		"slot = \"0s\": is out of range":                                        func(s *config.NetworkSpec) { s.Slot = 0 },
		"slot = \"2h\": is out of range":                                        func(s *config.NetworkSpec) { s.Slot = 2 * time.Hour },
		"stake_maturity = 0: is out of range; want an integer from 1 to 100000": func(s *config.NetworkSpec) { s.StakeMaturity = 0 },
		"max_reorg = 9: is out of range; want an integer from 10 to 10000":      func(s *config.NetworkSpec) { s.MaxReorg = 9 },
		"holders = []: is empty: somebody must have the stake":                  with(),
		"item 2 (\"x\") lacks its amount":                                       with(addr+"=1", "x"),
		"has neither an address nor a key":                                      with("x=1"),
		"is no point of the curve":                                              with("0000000000000000000000000000000000000000000000000000000000000005=1"),
		"compressed public key of 33 bytes":                                     with("02" + key + "=1"),
		"has a key of 2 bytes":                                                  with("abcd=1"),
		"of another network: it begins with bc1, not tdun1":                     with("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0=1"),
		"invalid checksum":                                                      with(addr[:len(addr)-1] + "q=1"),
		"is no decimal number of coins":                                         with(addr + "=1e6"),
		"has the amount \"\"":                                                   with(addr + "="),
		"has the amount \"1.\"":                                                 with(addr + "=1."),
		"has the amount \"-1\"":                                                 with(addr + "=-1"),
		"has the amount \"1=2\"":                                                with(addr + "=1=2"),
		"a coin has eight decimal places":                                       with(addr + "=0.123456789"),
		"has no coins":                                                          with(addr + "=0.0"),
		"has the amount 21000000.00000001: there are at most":                   with(addr + "=21000000.00000001"),
		"has the amount 99999999999999999999: there are at most":                with(addr + "=99999999999999999999"),
		"more than 21000000 coins in all, from item 2 on":                       with(addr+"=21000000", addr+"=0.00000001"),
		"has 1001 items":                                                        with(many...),
	} {
		s := stakeSpec()
		change(&s)
		_, err := s.Network()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", want, err)
		}
	}
	full := stakeSpec()
	full.Holders = many[1:]
	file := filepath.Join(t.TempDir(), "full.toml")
	n, err := config.WriteNetworkFile(file, full)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.ReadNetworkFile(file); err != nil {
		t.Errorf("as many holders as may be: %v", err)
	}
	if _, err := config.NewInvitation(n); !errors.Is(err, config.ErrInviteTooLong) {
		t.Errorf("an invitation with 1,000 holders: %v", err)
	}
}

// The same file gives the same chain on every machine: the genesis follows from
// the keys alone, and each key that shapes it changes the chain id.
func TestGenesisFollowsFromTheKeys(t *testing.T) {
	base, err := spec().Network()
	if err != nil {
		t.Fatal(err)
	}
	again, err := spec().Network()
	if err != nil {
		t.Fatal(err)
	}
	if base.ChainID() != again.ChainID() {
		t.Errorf("%s and %s", base.ChainID(), again.ChainID())
	}
	for name, change := range map[string]func(*config.NetworkSpec){
		"name": func(s *config.NetworkSpec) { s.Name = "other" },
		"text": func(s *config.NetworkSpec) { s.GenesisText = "other" },
		"time": func(s *config.NetworkSpec) { s.GenesisTime = s.GenesisTime.Add(time.Second) },
	} {
		s := spec()
		change(&s)
		n, err := s.Network()
		if err != nil {
			t.Fatal(err)
		}
		if n.ChainID() == base.ChainID() {
			t.Errorf("another %s leaves the chain id %s", name, n.ChainID())
		}
	}
}

func FuzzNetworkSpec(f *testing.F) {
	f.Add(spec().Encode())
	stake := stakeSpec()
	f.Add(stake.Encode())
	f.Add([]byte("name = 'a'\n[[x]]\ny = {a = [1979-05-27, 07:32:00, nan]}\n'' = 0"))
	f.Add([]byte("a.b.c = 1\n[a]\nd = 2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := config.ParseNetworkSpec("network.toml", data)
		if err != nil {
			return
		}
		// What was read can be written and read again.
		again, err := config.ParseNetworkSpec("network.toml", s.Encode())
		if err != nil {
			t.Fatalf("%v\n%s", err, s.Encode())
		}
		// Time zones and nil against empty lists do not survive, and need not.
		if string(again.Encode()) != string(s.Encode()) {
			t.Errorf("wrote\n%s\nthen\n%s", s.Encode(), again.Encode())
		}
	})
}
