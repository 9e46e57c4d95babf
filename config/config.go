// Package config says what a node is told to do: the network it belongs to
// ([Network]), its home, and every key an operator may set ([Config]).
//
// It reads and checks; it does not act: it opens no port, starts nothing and
// makes no file unless asked to ([EnsureHome], [WriteNetworkFile]).
//
// One table (keys.go) holds every key with its type, limits, unit and meaning.
// The file reader, the environment, the flags, the template and `config show`
// are all derived from it, so that they cannot disagree.
//
// Invariants: what is set later in the order defaults, file, environment, flags
// wins; a key nobody knows is an error, never passed over; Load reports every
// fault that it can find, each with the key, the value, where it came from and
// what would be right.
package config

import (
	"fmt"
	"strconv"
	"time"
)

// Config is everything an operator may set. The zero value is not usable: start
// from [Default] or [Load].
type Config struct {
	Network     string // name of a preset; ignored if NetworkFile is set
	NetworkFile string // path of a network.toml; empty: Network is a preset

	P2P     P2P
	RPC     RPC
	Log     Log
	Storage Storage
	Sync    Sync
	Mining  Mining
	Staking Staking
	Mempool Mempool

	// Home is the folder of the node, absolute. Load sets it; Default leaves it empty.
	Home string
	// File is the config file that was read; empty if there was none.
	File string
	// Chain is the network that Network or NetworkFile names. Never nil.
	Chain *Network

	origins map[string]string // key → where its value came from; absent: default
}

// P2P is how the node meets others.
type P2P struct {
	Listen       []string // multiaddrs
	Announce     []string // multiaddrs to tell others instead of those found; empty: those found
	NoAnnounce   []string // IP addresses and networks in CIDR notation never told to others
	Bootstrap    []string // multiaddrs with a peer id, or /dnsaddr/…; may be forgotten
	Persistent   []string // multiaddrs with a peer id; kept and redialled
	DNSSeeds     []string // host names or /dnsaddr/…
	DNSServers   []string // host:port; empty: the system's
	Discovery    bool     // find other nodes; off: only bootstrap, persistent and added ones are dialled
	MaxOutbound  int      // connections
	MaxInbound   int      // connections
	AllowPrivate bool     // dial and tell private addresses
	NAT          bool     // ask the router for a port mapping
	HolePunch    bool     // reach others, and be reached, behind NATs
	Relay        bool     // help others with that
	WebSocket    bool     // the transport for /ws addresses
	MDNS         bool     // find peers on the LAN
	PeerExchange bool     // tell pruned gossip peers of others: for bootstrap nodes
	MaxUploadKB  int      // KiB a second of blocks, headers and transactions served; 0: no limit
}

// RPC is the HTTP interface.
type RPC struct {
	Listen         string   // host:port
	Open           bool     // no token on loopback (test networks only)
	AllowRemote    bool     // listen off loopback without TLS
	AllowedHosts   []string // names accepted in the Host header besides loopback's and the listen address
	AllowedOrigins []string // origins whose pages may call, besides the node's own
	TLSCert        string   // path of a PEM file
	TLSKey         string   // path of a PEM file
	MaxConnections int
	Auth           []string // users with passwords: user:salt$hash, as dunlin config rpcauth prints it
	Whitelist      []string // user:call,call
	ReadOnly       []string // names of users
	ObserveListen  string   // host:port of probes and metrics alone; empty: none
	Pprof          bool     // profiles under /debug/pprof/
}

// Log is what is told, and how.
type Log struct {
	Format      string   // text or json
	Level       string   // debug, info, warn or error
	Levels      []string // subsystem=level, where it is another
	Color       string   // auto, always or never
	Libp2pLevel string   // level of the libraries below
}

// Storage is how the chain is kept on disk.
type Storage struct {
	CacheMB       int           // MiB of coins in memory
	FlushMB       int           // MiB of changed coins that force a commit
	FlushBlocks   int           // blocks that force a commit
	FlushInterval time.Duration // time that forces a commit
	PruneMB       int           // MiB of block and undo files to keep; 0: all
	FileMB        int           // MiB of one block or undo file
	MinFreeMB     int           // MiB of free disk below which no block is accepted; 0: off
	TxIndex       bool          // find the block of any transaction
	AddressIndex  bool          // find what happened to any address
}

// Sync bounds what is asked of peers while catching up (DESIGN.md §7).
type Sync struct {
	MaxRequestsPerPeer int
	MaxBlocksPerPeer   int
	MaxMBPerPeer       int // MiB
	MaxRequests        int
	MaxMB              int // MiB in flight and buffered, all peers together
	Window             int // heights past the validated tip
	AssumeValid        string
}

// Staking makes blocks of proof-of-stake networks.
type Staking struct {
	Enabled bool
	KeyFile string
}

// Mining makes blocks.
type Mining struct {
	Enabled      bool
	Address      string        // empty: a key made in the home
	Interval     time.Duration // 0: the network's spacing
	CoinbaseText string
	Threads      int
}

// Mempool bounds the unconfirmed transactions.
type Mempool struct {
	MaxMB       int           // MB
	ExpireAfter time.Duration // unconfirmed for longer: dropped
	MinRelayFee int           // satoshi for 1000 virtual bytes
	MaxOrphans  int           // transactions whose inputs are unknown
	Persist     bool          // kept in the home over restarts
	SyncMB      int           // MB fetched from one peer's mempool in one go
}

// DefaultNetwork is the network of a node that is told none: dunlin's own
// proof-of-work test network.
const DefaultNetwork = "testnet"

// Default returns the settings of a node on n that is told nothing. The
// result shares nothing with n but the pointer in Chain.
func Default(n *Network) *Config {
	c := &Config{
		Network: n.Params.Name,
		P2P: P2P{
			Listen:       ListenAddrs(n.P2PPort),
			Bootstrap:    append([]string(nil), n.Bootstrap...),
			DNSSeeds:     append([]string(nil), n.DNSSeeds...),
			Discovery:    true,
			MaxOutbound:  12,
			MaxInbound:   128,
			AllowPrivate: n.Private,
			NAT:          !n.Private,
			HolePunch:    !n.Private,
		},
		RPC: RPC{
			Listen:         "127.0.0.1:" + strconv.Itoa(int(n.RPCPort)),
			MaxConnections: 256,
		},
		Log: Log{Format: "text", Level: "info", Color: "auto", Libp2pLevel: "error"},
		Storage: Storage{
			CacheMB:       64,
			FlushMB:       32,
			FlushBlocks:   2000,
			FlushInterval: 3 * time.Second,
			FileMB:        128,
			MinFreeMB:     256,
		},
		Sync: Sync{
			MaxRequestsPerPeer: 16,
			MaxBlocksPerPeer:   1024,
			MaxMBPerPeer:       16,
			MaxRequests:        128,
			MaxMB:              64,
			Window:             16384,
		},
		Mining:  Mining{Threads: 1},
		Mempool: Mempool{MaxMB: 300, ExpireAfter: 14 * 24 * time.Hour, MinRelayFee: 1000, MaxOrphans: 100, Persist: true, SyncMB: 20},
		Chain:   n,
		origins: map[string]string{},
	}
	if n.File != "" {
		c.Network, c.NetworkFile = "", n.File
	}
	return c
}

// ListenAddrs are the default addresses for a port: TCP and QUIC, IPv4 and IPv6,
// every interface. Port 0 lets the system choose, for each address its own.
func ListenAddrs(port uint16) []string {
	return []string{
		fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", port),
		fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", port),
		fmt.Sprintf("/ip6/::/tcp/%d", port),
		fmt.Sprintf("/ip6/::/udp/%d/quic-v1", port),
	}
}

// An Entry is one key of a Config as `config show` prints it.
type Entry struct {
	Key    string // p2p.listen
	Value  string // as TOML
	Origin string // default, file:line, an environment variable or a flag
	Type   string
	Unit   string // empty if the type says it all
	Env    string
	Flag   string // with its dashes
	Doc    string
}

// Entries lists every key with its present value, in the order of the template.
func (c *Config) Entries() []Entry {
	fields := c.fields()
	out := make([]Entry, 0, len(fields))
	for _, f := range fields {
		out = append(out, Entry{
			Key: f.key, Value: f.format(), Origin: c.Origin(f.key), Type: f.typeName(), Unit: f.unit,
			Env: f.env(), Flag: "--" + f.flagName(), Doc: f.doc,
		})
	}
	return out
}

// Origin says where the value of a key came from: "default", "file:line",
// "environment DUNLIN_…" or "flag --…".
func (c *Config) Origin(key string) string {
	if o, ok := c.origins[key]; ok {
		return o
	}
	return "default"
}
