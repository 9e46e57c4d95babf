package consensus_test

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"

	"dunlin/chain/consensus"
)

func TestPresetGenesis(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p       *consensus.Params
		hash    string
		chainID string
		text    string
	}{
		{consensus.Bitcoin(), "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f", "bitcoin-00000000", "The Times 03/Jan/2009"},
		{consensus.Regtest(), "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", "regtest-0f9188f1", "The Times 03/Jan/2009"},
		{consensus.Simnet(), "683e86bd5c6d110d91b94b97137ba6bfe02dbbdb8e3dff722a669b5d69d77af6", "simnet-683e86bd", "The Times 03/Jan/2009"},
		{consensus.Testnet(), "0000a5c49c582ce721a7540815b998ec8083dfa8421ca695d55d7f6e8d5665bd", "testnet-0000a5c4", "dunlin testnet"},
	} {
		b := tt.p.GenesisBlock()
		if got := b.Hash.String(); got != tt.hash || tt.p.GenesisHash != b.Hash {
			t.Errorf("%s: genesis %s, params say %s, want %s", tt.p.Name, got, tt.p.GenesisHash, tt.hash)
		}
		if got := tt.p.ChainID(); got != tt.chainID {
			t.Errorf("%s: chain id %s, want %s", tt.p.Name, got, tt.chainID)
		}
		if err := consensus.CheckBlockContextFree(tt.p, b); err != nil {
			t.Errorf("%s: genesis: %v", tt.p.Name, err)
		}
		if blockchain.HashToBig(&b.Hash).Cmp(tt.p.PowLimit) > 0 {
			t.Errorf("%s: genesis %s is above the limit", tt.p.Name, b.Hash)
		}
		if got := blockchain.BigToCompact(tt.p.PowLimit); got != tt.p.PowLimitBits {
			t.Errorf("%s: limit is %08x, bits say %08x", tt.p.Name, got, tt.p.PowLimitBits)
		}
		if got := consensus.CoinbaseText(b); !strings.Contains(got, tt.text) {
			t.Errorf("%s: coinbase text %q, want %q in it", tt.p.Name, got, tt.text)
		}
		if got := consensus.CoinbaseData(b); got != "" {
			t.Errorf("%s: coinbase data %q, want none", tt.p.Name, got)
		}
	}
}

func custom() consensus.Custom {
	return consensus.Custom{
		Name:            "office-7",
		GenesisText:     strings.Repeat("g", 80),
		GenesisTime:     time.Unix(1_800_000_000, 0),
		Spacing:         2 * time.Second,
		HalvingInterval: 1000,
		Subsidy:         5_000_000_000,
	}
}

func TestNewIsDeterministic(t *testing.T) {
	t.Parallel()
	a, err := consensus.New(custom())
	if err != nil {
		t.Fatal(err)
	}
	b, err := consensus.New(custom())
	if err != nil {
		t.Fatal(err)
	}
	if a.ChainID() != b.ChainID() || a.Magic != b.Magic {
		t.Errorf("same fields: %s and %s", a.ChainID(), b.ChainID())
	}
	if hash := a.Genesis.BlockHash(); blockchain.HashToBig(&hash).Cmp(a.PowLimit) > 0 {
		t.Errorf("genesis %s is above the limit", hash)
	}
	if got := consensus.CoinbaseText(a.GenesisBlock()); got != strings.Repeat("g", 80) {
		t.Errorf("genesis text %q", got)
	}
	seen := map[string]string{a.GenesisHash.String(): "none"}
	for name, change := range map[string]func(*consensus.Custom){
		"name":    func(c *consensus.Custom) { c.Name = "office-8" },
		"text":    func(c *consensus.Custom) { c.GenesisText = "" },
		"time":    func(c *consensus.Custom) { c.GenesisTime = c.GenesisTime.Add(time.Second) },
		"spacing": func(c *consensus.Custom) { c.Spacing = 3 * time.Second },
		"halving": func(c *consensus.Custom) { c.HalvingInterval++ },
		"subsidy": func(c *consensus.Custom) { c.Subsidy++ },
		"limit":   func(c *consensus.Custom) { c.PowLimitBits = 0x1f00ffff },
	} {
		c := custom()
		change(&c)
		p, err := consensus.New(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if other, dup := seen[p.GenesisHash.String()]; dup {
			t.Errorf("changing %s gives the genesis of %s", name, other)
		}
		seen[p.GenesisHash.String()] = name
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := consensus.New(consensus.Custom{
		Name:            "Regtest!",
		GenesisText:     strings.Repeat("x", 81),
		GenesisTime:     time.Unix(1_800_000_000, 5),
		Spacing:         1500 * time.Millisecond,
		HalvingInterval: 0,
		Subsidy:         -1,
		PowLimitBits:    0x1d00ffff,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"name", "genesis text", "genesis time", "spacing", "halving interval", "subsidy", "pow limit bits"} {
		if !strings.Contains(err.Error(), want+" ") {
			t.Errorf("error does not name %q: %v", want, err)
		}
	}
	c := custom()
	c.Name = "stakenet"
	if _, err := consensus.New(c); err == nil {
		t.Error("a preset's name was accepted")
	}
}

func stakeCustom() consensus.Custom {
	c := custom()
	c.Spacing = 8 * time.Second
	c.Holders = consensus.StakenetHolders()
	return c
}

func TestNewStakeNetwork(t *testing.T) {
	t.Parallel()
	p, err := consensus.New(stakeCustom())
	if err != nil {
		t.Fatal(err)
	}
	if p.SealBytes != 140 || len(p.GenesisSeal) != 140 || p.SlotDuration != 2*time.Second || p.ASERTHalfLife != 512*time.Second {
		t.Errorf("%d and %d bytes of seal, slots of %s, half-life %s", p.SealBytes, len(p.GenesisSeal), p.SlotDuration, p.ASERTHalfLife)
	}
	outs := p.Genesis.Transactions[0].TxOut
	if len(outs) != 4 || outs[0].Value != 500_000e8 || outs[3].Value != 50_000e8 {
		t.Errorf("outputs %v", outs)
	}
	// All the stake together wins a slot in four.
	target := blockchain.CompactToBig(p.Genesis.Header.Bits)
	target.Mul(target, big.NewInt(1_000_000e8))
	if share, _ := new(big.Float).Quo(new(big.Float).SetInt(target), new(big.Float).SetMantExp(big.NewFloat(1), 256)).Float64(); math.Abs(share-0.25) > 1e-4 {
		t.Errorf("the first target is %f of a slot", share)
	}
	if got := p.GenesisBlock(); got.Hash != p.GenesisHash || len(got.Raw) <= 220 {
		t.Errorf("genesis block %s of %d bytes", got.Hash, len(got.Raw))
	}
	explicit := stakeCustom()
	explicit.MaxReorg, explicit.StakeMaturity = 100, 100
	if q, err := consensus.New(explicit); err != nil || p.MaxReorg != 100 || q.GenesisHash != p.GenesisHash {
		t.Errorf("max reorg %d by default, and the same said aloud is another network (%v)", p.MaxReorg, err)
	}
	// The same fields with work instead are another network, and so is every other stake.
	seen := map[string]string{p.GenesisHash.String(): "none"}
	for name, change := range map[string]func(*consensus.Custom){
		"work":    func(c *consensus.Custom) { c.Holders = nil },
		"fewer":   func(c *consensus.Custom) { c.Holders = c.Holders[:3] },
		"value":   func(c *consensus.Custom) { c.Holders[1].Value++ },
		"key":     func(c *consensus.Custom) { c.Holders[1].Key = c.Holders[2].Key },
		"spacing": func(c *consensus.Custom) { c.Spacing = 12 * time.Second },
		"text":    func(c *consensus.Custom) { c.GenesisText = "" },
		"reorg":   func(c *consensus.Custom) { c.MaxReorg = 101 },
		"mature":  func(c *consensus.Custom) { c.StakeMaturity = 101 },
	} {
		c := stakeCustom()
		change(&c)
		q, err := consensus.New(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if other, dup := seen[q.GenesisHash.String()]; dup {
			t.Errorf("changing %s gives the genesis of %s", name, other)
		}
		seen[q.GenesisHash.String()] = name
	}
	for want, change := range map[string]func(*consensus.Custom){
		"spacing 10s":                func(c *consensus.Custom) { c.Spacing = 10 * time.Second },
		"pow limit bits 0x207fffff:": func(c *consensus.Custom) { c.PowLimitBits = 0x207fffff },
		"holder 2: key":              func(c *consensus.Custom) { c.Holders[1].Key = [32]byte{31: 5} },
		"holder 3: 0 satoshi":        func(c *consensus.Custom) { c.Holders[2].Value = 0 },
		"holder 4: -1 satoshi":       func(c *consensus.Custom) { c.Holders[3].Value = -1 },
		"holders: more than":         func(c *consensus.Custom) { c.Holders[3].Value = 21e14 },
		"1001 holders":               func(c *consensus.Custom) { c.Holders = make([]consensus.Holder, 1001) },
		"stake maturity -1: want 1":  func(c *consensus.Custom) { c.StakeMaturity = -1 },
		"stake maturity 100001":      func(c *consensus.Custom) { c.StakeMaturity = 100_001 },
		"stake maturity 5: a netwo":  func(c *consensus.Custom) { c.Holders, c.StakeMaturity = nil, 5 },
		"max reorg 9: want 10":       func(c *consensus.Custom) { c.MaxReorg = 9 },
		"max reorg 10001":            func(c *consensus.Custom) { c.MaxReorg = 10_001 },
		"max reorg 50: a network of": func(c *consensus.Custom) { c.Holders, c.MaxReorg = nil, 50 },
	} {
		c := stakeCustom()
		change(&c)
		if _, err := consensus.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestSubsidy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p      *consensus.Params
		height int32
		want   int64
	}{
		{consensus.Bitcoin(), 0, 50e8},
		{consensus.Bitcoin(), 209_999, 50e8},
		{consensus.Bitcoin(), 210_000, 25e8},
		{consensus.Bitcoin(), 840_000, 312_500_000},
		{consensus.Bitcoin(), 6_929_999, 1},
		{consensus.Bitcoin(), 6_930_000, 0},
		{consensus.Bitcoin(), 64 * 210_000, 0},
		{consensus.Regtest(), 149, 50e8},
		{consensus.Regtest(), 150, 25e8},
		{consensus.Regtest(), 2_147_483_647, 0},
		{consensus.Testnet(), 1_051_200, 5e8},
	} {
		if got := tt.p.Subsidy(tt.height); got != tt.want {
			t.Errorf("%s: subsidy at %d is %d, want %d", tt.p.Name, tt.height, got, tt.want)
		}
	}
}
