package config_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
		"empty":         {"", []string{"name: is missing", "engine: is missing", "genesis_text: is missing", "genesis_time: is missing", "spacing: is missing", "halving_interval: is missing", "subsidy: is missing", "pow_limit_bits: is missing"}},
		"preset's name": {replace(`"mynet"`, `"regtest"`), []string{"is the name of a preset"}},
		"bad name":      {replace(`"mynet"`, `"My Net"`), []string{"is no name", "1 to 32 of a-z"}},
		"engine":        {replace(`"pow"`, `"pos"`), []string{`engine = "pos"`, `one of "pow"`}},
		"text":          {replace(`"dunlin network mynet"`, `"`+strings.Repeat("x", 81)+`"`), []string{"has 81 bytes"}},
		"time":          {replace("2027-01-15T08:00:00Z", `"soon"`), []string{"genesis_time", "is a string", "2026-01-31T12:00:00Z"}},
		"local time":    {replace("2027-01-15T08:00:00Z", "2027-01-15T08:00:00"), []string{"genesis_time", "is a date or time"}},
		"far time":      {replace("2027-01-15", "2200-01-15"), []string{"does not fit a block header"}},
		"half second":   {replace("08:00:00Z", "08:00:00.5Z"), []string{"is no whole second"}},
		"spacing":       {replace(`"30s"`, `"10ms"`), []string{"spacing", "is out of range"}},
		"halving":       {replace("210000", "0"), []string{"halving_interval = 0"}},
		"subsidy":       {replace("5000000000", "-1"), []string{"subsidy = -1"}},
		"bits":          {replace(`"0x207fffff"`, `"207fffff"`), []string{"pow_limit_bits"}},
		"genesis":       {replace(`genesis_hash = ""`, `genesis_hash = "`+strings.Repeat("ab", 32)+`"`), []string{"genesis_hash", "the other keys give"}},
		"unknown":       {good + "\nspaceing = 1\n", []string{"did you mean spacing?"}},
		"bootstrap":     {replace(peerA, "x"), []string{"bootstrap", "is no multiaddr"}},
		"port":          {replace("9363", "65536"), []string{"p2p_port = 65536"}},
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
