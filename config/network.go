package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"dunlin/chain/consensus"
)

// A Network is what a node must know to belong to a chain: the rules and where
// others are to be found. Treat it as immutable.
type Network struct {
	Params    *consensus.Params
	P2PPort   uint16   // default port of the peer protocol
	RPCPort   uint16   // default port of the HTTP interface
	Bootstrap []string // multiaddrs
	DNSSeeds  []string // host names or /dnsaddr/…
	// Private says that nodes live behind private or shared addresses (test
	// networks): these are dialled and told, and spread over IP groups is not asked for.
	Private bool
	File    string // absolute path of its network.toml; empty for a preset
}

// ChainID is "<name>-<first 8 hex digits of the genesis hash>".
func (n *Network) ChainID() string { return n.Params.ChainID() }

// PresetNames lists the networks that need no network.toml.
func PresetNames() []string { return []string{"bitcoin", "regtest", "simnet", "stakenet", "testnet"} }

// Default ports of an operator's own networks.
const (
	customP2PPort = 9363
	customRPCPort = 9362
)

// Preset returns a network by name. The error for an unknown name lists the known.
// Ports keep clear of those of Bitcoin Core and btcd, which may run beside.
func Preset(name string) (*Network, error) {
	switch name {
	case "bitcoin":
		return &Network{Params: consensus.Bitcoin(), P2PPort: 9323, RPCPort: 9322}, nil
	case "regtest":
		return &Network{Params: consensus.Regtest(), P2PPort: 9343, RPCPort: 9342, Private: true}, nil
	case "simnet":
		return &Network{Params: consensus.Simnet(), P2PPort: 9353, RPCPort: 9352, Private: true}, nil
	case "stakenet":
		return &Network{Params: consensus.Stakenet(), P2PPort: 9373, RPCPort: 9372, Private: true}, nil
	case "testnet":
		return &Network{Params: consensus.Testnet(), P2PPort: 9333, RPCPort: 9332, Private: true}, nil
	}
	known := strings.Join(PresetNames(), ", ")
	if name == "mainnet" || name == "main" {
		return nil, errors.New("unknown network, did you mean bitcoin? Known networks are " + known)
	}
	hint := ""
	if near := Nearest(name, PresetNames()); near != "" {
		hint = ", did you mean " + near + "?"
	}
	return nil, fmt.Errorf("unknown network%s; known networks are %s; another one needs its network.toml (--network-file)", hint, known)
}

// The engines that a network may have.
const (
	EnginePoW = "pow"
	EnginePoS = "pos"
)

// A NetworkSpec is what a network.toml says. Fields of the other engine are ignored.
type NetworkSpec struct {
	Name            string
	Engine          string // EnginePoW or EnginePoS
	GenesisText     string
	GenesisTime     time.Time     // whole seconds
	GenesisHash     string        // RPC (reversed) hex; empty: not checked
	Spacing         time.Duration // pow; with pos it is four slots
	Slot            time.Duration // pos: whole seconds
	HalvingInterval int           // blocks
	Subsidy         int64         // satoshi
	PowLimitBits    string        // pow: compact form, "0x…"
	Holders         []string      // pos: who has the initial stake, as ParseHolder reads them
	StakeMaturity   int           // pos: blocks
	MaxReorg        int           // pos: blocks
	Bootstrap       []string
	DNSSeeds        []string
	P2PPort         int
	RPCPort         int
	Private         bool
}

// DefaultNetworkSpec is a private proof-of-work network with blocks every 30 s,
// born now. It lacks the genesis hash, which [NetworkSpec.Network] computes.
func DefaultNetworkSpec(name string, now time.Time) NetworkSpec {
	return NetworkSpec{
		Name:            name,
		Engine:          EnginePoW,
		GenesisText:     clipBytes("dunlin network "+name, maxGenesisText),
		GenesisTime:     now.UTC().Truncate(time.Second),
		Spacing:         30 * time.Second,
		HalvingInterval: 210_000,
		Subsidy:         50 * 100_000_000,
		PowLimitBits:    "0x207fffff",
		P2PPort:         customP2PPort,
		RPCPort:         customRPCPort,
		Private:         true,
	}
}

// DefaultStakeSpec is a private proof-of-stake network with slots of 16 s, born now,
// whose initial stake is the holders'.
func DefaultStakeSpec(name string, now time.Time, holders ...string) NetworkSpec {
	s := DefaultNetworkSpec(name, now)
	s.Engine, s.Spacing, s.PowLimitBits = EnginePoS, 0, ""
	s.Slot = 16 * time.Second
	s.Holders = holders
	s.StakeMaturity, s.MaxReorg = consensus.DefaultStakeMaturity, consensus.DefaultMaxReorg
	return s
}

func clipBytes(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// maxGenesisText is the limit of consensus.Custom.
const maxGenesisText = 80

// maxMoney is 21 million coins in satoshi, the most that any amount may be.
const maxMoney = 21_000_000 * 100_000_000

var networkName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// engineOf names the keys that networks of one engine have only.
var engineOf = map[string]string{
	"spacing": EnginePoW, "pow_limit_bits": EnginePoW,
	"slot": EnginePoS, "holders": EnginePoS, "stake_maturity": EnginePoS, "max_reorg": EnginePoS,
}

// foreign says whether a key is of networks of the other engine.
func (s *NetworkSpec) foreign(key string) bool {
	engine, ok := engineOf[key]
	return ok && engine != s.Engine && (s.Engine == EnginePoW || s.Engine == EnginePoS)
}

// fields are the keys of the network's engine.
func (s *NetworkSpec) fields() []field {
	return slices.DeleteFunc(s.all(), func(f field) bool { return s.foreign(f.key) })
}

// all are the keys of every engine.
func (s *NetworkSpec) all() []field {
	seconds := func(f field, p *time.Time) field {
		f.check = func() string {
			switch {
			case p.Unix() < 0 || p.Unix() > 1<<32-1:
				return "does not fit a block header"
			case p.Nanosecond() != 0:
				return "is no whole second"
			}
			return ""
		}
		return f
	}
	return []field{
		str("name", &s.Name, "1 to 32 of a-z, 0-9 and -, and no preset's name", func(v string) string {
			if !networkName.MatchString(v) {
				return "is no name"
			}
			if slices.Contains(PresetNames(), v) {
				return "is the name of a preset"
			}
			return ""
		}, "Name of the network; with the genesis hash it makes the chain id."),
		oneOf("engine", &s.Engine, "What proves a block: work or stake.", EnginePoW, EnginePoS),
		str("genesis_text", &s.GenesisText, "at most 80 bytes of text", func(v string) string {
			if len(v) > maxGenesisText {
				return fmt.Sprintf("has %d bytes", len(v))
			}
			return ""
		}, "Text in the coinbase of the first block."),
		seconds(field{
			key: "genesis_time", ptr: &s.GenesisTime, want: "a date and time such as 2026-01-31T12:00:00Z",
			doc: "Time of the first block.",
		}, &s.GenesisTime),
		str("genesis_hash", &s.GenesisHash, "the hash of the first block, 64 hex digits, or empty", checkBlockHash,
			"Hash of the first block, which follows from the other keys: a guard against slips."),
		dur("spacing", &s.Spacing, time.Second, 24*time.Hour, "Wanted time between blocks."),
		s.slotField(),
		num("halving_interval", &s.HalvingInterval, 1, 1<<31-1, "blocks", "Blocks after which the subsidy halves."),
		num("subsidy", &s.Subsidy, 0, maxMoney, "satoshi", "New money of each block before the first halving."),
		str("pow_limit_bits", &s.PowLimitBits, "compact bits such as \"0x207fffff\"", func(v string) string {
			if _, err := parseBits(v); err != nil {
				return "is no compact form"
			}
			return ""
		}, "Least difficulty, in the compact form of a block header."),
		holdersField("holders", &s.Holders, "Who has the initial stake: the outputs of the first block, in this order."),
		num("stake_maturity", &s.StakeMaturity, 1, consensus.MaxStakeMaturity, "blocks", "Blocks that a coin must have on it before it is stake; those of the first block are at once."),
		num("max_reorg", &s.MaxReorg, consensus.LeastMaxReorg, consensus.MostMaxReorg, "blocks", "Deepest reorganisation that nodes follow by themselves: a longer history from old keys does not take them along."),
		list("bootstrap", &s.Bootstrap, maxAddrs, peerWant, checkPeer, "Nodes to meet the network through."),
		list("dns_seeds", &s.DNSSeeds, maxNames, seedWant, checkSeed, "Names that resolve into nodes."),
		num("p2p_port", &s.P2PPort, 1, 65535, "", "Default port of the peer protocol."),
		num("rpc_port", &s.RPCPort, 1, 65535, "", "Default port of the HTTP interface."),
		boolean("private", &s.Private, "Nodes live on private or shared addresses."),
	}
}

func parseBits(s string) (uint32, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(s), "0x")
	if !ok {
		return 0, errors.New("no 0x in front")
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err
}

// ReadNetworkFile reads a network.toml. It reports every fault, joined.
func ReadNetworkFile(name string) (*Network, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("network file: %w", err)
	}
	spec, err := ParseNetworkSpec(name, data)
	if err != nil {
		return nil, err
	}
	n, err := spec.network()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if n.File, err = filepath.Abs(name); err != nil {
		return nil, fmt.Errorf("network file %s: %w", name, err)
	}
	return n, nil
}

// ParseNetworkSpec decodes and checks a network.toml strictly; name is the file
// that faults carry. Keys that make the chain what it is must all be there: what
// is left out would be filled in by the version that reads it.
func ParseNetworkSpec(name string, data []byte) (NetworkSpec, error) {
	values, fault := parseTOML(name, data)
	if fault != nil {
		return NetworkSpec{}, fault
	}
	s := NetworkSpec{P2PPort: customP2PPort, RPCPort: customRPCPort, Private: true}
	set, faults := applyTOML(s.all(), name, values)
	for _, f := range s.all() {
		from := set[f.key]
		switch f.key {
		case "genesis_hash", "bootstrap", "dns_seeds", "p2p_port", "rpc_port", "private": // say nothing of the chain, or follow
			continue
		}
		switch {
		case s.foreign(f.key):
			if from != "" {
				faults = append(faults, &KeyError{
					From: from, Key: f.key, Value: clip(f.format()), Problem: fmt.Sprintf("is for networks with engine = %q, and this one has %q", engineOf[f.key], s.Engine),
				})
			}
		case from == "" && (engineOf[f.key] == "" || s.Engine == engineOf[f.key]):
			faults = append(faults, &KeyError{From: name, Key: f.key, Problem: "is missing; want " + f.want})
		}
	}
	if err := errors.Join(faults...); err != nil {
		return NetworkSpec{}, err
	}
	return s, nil
}

// Network builds the network's parameters. It reports every field out of range,
// and a genesis hash that does not follow from the other fields.
func (s NetworkSpec) Network() (*Network, error) {
	var faults []error
	for _, f := range s.fields() {
		if problem := f.check(); problem != "" {
			faults = append(faults, f.fault("", f.format(), problem))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return s.network()
}

// network is Network where each field was checked already.
func (s *NetworkSpec) network() (*Network, error) {
	custom := consensus.Custom{
		Name:            s.Name,
		GenesisText:     s.GenesisText,
		GenesisTime:     s.GenesisTime,
		Spacing:         s.Spacing,
		HalvingInterval: int32(s.HalvingInterval),
		Subsidy:         s.Subsidy,
	}
	if s.Engine == EnginePoS {
		custom.Spacing = consensus.SlotsPerBlock * s.Slot
		custom.StakeMaturity, custom.MaxReorg = int32(s.StakeMaturity), int32(s.MaxReorg)
		custom.Holders, _ = readHolders(s.Holders) // checked before
	} else {
		custom.PowLimitBits, _ = parseBits(s.PowLimitBits)
	}
	params, err := consensus.New(custom)
	if err != nil {
		return nil, err
	}
	if got := params.GenesisHash.String(); s.GenesisHash != "" && !strings.EqualFold(got, s.GenesisHash) {
		return nil, &KeyError{
			Key: "genesis_hash", Value: quote(s.GenesisHash),
			Problem: "the other keys give " + got + ": one of them was changed",
		}
	}
	return &Network{
		Params:    params,
		P2PPort:   uint16(s.P2PPort),
		RPCPort:   uint16(s.RPCPort),
		Bootstrap: s.Bootstrap,
		DNSSeeds:  s.DNSSeeds,
		Private:   s.Private,
	}, nil
}

// Encode writes the network.toml with its comments.
func (s NetworkSpec) Encode() []byte {
	var b bytes.Buffer
	b.WriteString("# A network of dunlin. Every node of it starts with this file: dunlin start --network-file FILE\n\n")
	for _, f := range s.fields() {
		fmt.Fprintf(&b, "# %s\n", f.doc)
		if f.unit != "" {
			fmt.Fprintf(&b, "# unit: %s\n", f.unit)
		}
		value := f.format()
		if p, ok := f.ptr.(*[]string); ok && f.key == "holders" { // a line each
			value = "[\n"
			for _, h := range *p {
				value += "  " + quote(h) + ",\n"
			}
			value += "]"
		}
		fmt.Fprintf(&b, "%s = %s\n\n", f.key, value)
	}
	return b.Bytes()
}

// WriteNetworkFile checks s, fills in its genesis hash and writes it to a new
// file; it refuses to replace one. It returns the network.
func WriteNetworkFile(name string, s NetworkSpec) (*Network, error) {
	n, err := s.Network()
	if err != nil {
		return nil, err
	}
	s.GenesisHash = n.Params.GenesisHash.String()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("network file: %w", err)
	}
	_, err = f.Write(s.Encode())
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("network file %s: %w", name, err), os.Remove(name))
	}
	if n.File, err = filepath.Abs(name); err != nil {
		return nil, fmt.Errorf("network file %s: %w", name, err)
	}
	return n, nil
}
