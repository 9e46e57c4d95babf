package config

import (
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// Limits of lists: what is dialled, resolved or announced at start is bounded.
const (
	maxAddrs   = 128 // bootstrap; persistent
	maxNames   = 32  // listen, announce, hosts, origins
	maxSeeds   = 16
	maxServers = 8
)

// The caps of DESIGN.md §7 are a promise to other nodes: these keys lower them,
// nothing raises them. A request must still hold one largest block (4 MB).
const (
	capRequestsPerPeer = 16
	capBlocksPerPeer   = 1024
	capMBPerPeer       = 16
	capRequests        = 128
	capMB              = 64
	capWindow          = 16384
)

// fields is the one table of keys. Each points into c.
func (c *Config) fields() []field {
	return []field{
		oneOf("network", &c.Network, "Network to belong to.", PresetNames()...).flagged("network"),
		path("network_file", &c.NetworkFile, "A network.toml that describes the network, in place of `network`.").flagged("network-file"),

		list("p2p.listen", &c.P2P.Listen, maxNames, listenWant, checkListen,
			"Addresses to listen on, as multiaddrs. Port 0 lets the system choose.").flagged("listen"),
		list("p2p.announce", &c.P2P.Announce, maxNames, announceWant, checkAnnounce,
			"Addresses to tell other nodes in place of those found, for nodes behind a NAT or a proxy.").flagged("announce"),
		list("p2p.no_announce", &c.P2P.NoAnnounce, maxNames, "an IP address or a network in CIDR notation, such as 172.17.0.0/16", checkPrefix,
			"Addresses never to tell other nodes, of a container bridge or a VPN say."),
		list("p2p.bootstrap", &c.P2P.Bootstrap, maxAddrs, peerWant, checkPeer,
			"Nodes to meet the network through; may be forgotten once others are known.").flagged("bootstrap"),
		list("p2p.persistent", &c.P2P.Persistent, maxAddrs, peerWant, checkPeer,
			"Nodes to stay connected to: kept and redialled for ever.").flagged("persistent"),
		list("p2p.dns_seeds", &c.P2P.DNSSeeds, maxSeeds, seedWant, checkSeed,
			"Names to resolve into nodes: a host name whose _dnsaddr TXT records list multiaddrs, or /dnsaddr/….").flagged("dns-seed"),
		list("p2p.dns_servers", &c.P2P.DNSServers, maxServers, "host:port, such as 127.0.0.1:5353", checkHostPort,
			"DNS servers to resolve seeds and names through; empty: the system's.").flagged("dns-server"),
		boolean("p2p.discovery", &c.P2P.Discovery,
			"Find other nodes: in the DHT, through DNS seeds, multicast DNS, and by asking peers. Off: those of `bootstrap` and `persistent` and added ones are dialled, and nobody else; others may still connect."),
		num("p2p.max_outbound", &c.P2P.MaxOutbound, 0, 256, "connections",
			"Connections to make.").flagged("max-outbound"),
		num("p2p.max_inbound", &c.P2P.MaxInbound, 0, 4096, "connections",
			"Connections to accept; a newcomer may take the place of the one with the least right to it.").flagged("max-inbound"),
		boolean("p2p.allow_private", &c.P2P.AllowPrivate,
			"Dial and tell private addresses (10.0.0.0/8 and the like), and do not spread connections over IP groups, either way; on by default on test networks."),
		boolean("p2p.nat", &c.P2P.NAT,
			"Ask the router for a port mapping (UPnP, NAT-PMP); off by default on test networks."),
		boolean("p2p.hole_punch", &c.P2P.HolePunch,
			"Connect with nodes behind NATs directly, with a few words through a relay first; only bootstrap, persistent and seed nodes are asked to relay. Off by default on test networks."),
		boolean("p2p.relay", &c.P2P.Relay,
			"Relay those few words for other nodes of this network, within tight limits; for seeds with a public address."),
		boolean("p2p.websocket", &c.P2P.WebSocket,
			"Speak WebSocket too: listen on addresses that end in /tcp/<port>/ws, and dial such addresses."),
		boolean("p2p.mdns", &c.P2P.MDNS,
			"Find nodes of this network on the LAN by multicast DNS, and be found by them."),
		boolean("p2p.peer_exchange",
			&c.P2P.PeerExchange, "Tell peers for which there is no place in the gossip mesh of others: for bootstrap nodes. They are believed by those who have this node in their `bootstrap` or `persistent`."),
		num("p2p.max_upload_kb_per_s", &c.P2P.MaxUploadKB, 0, 1<<24, "KiB a second",
			"Blocks, headers and transactions to send to nodes that ask for them, all together; shared fairly among them. What is flooded is not counted; 0: no limit."),

		str("rpc.listen", &c.RPC.Listen, "host:port, such as 127.0.0.1:9332", checkHostPort,
			"Address of the HTTP interface. Off loopback it needs TLS or allow_remote. Port 0 lets the system choose.").flagged("rpc-listen"),
		boolean("rpc.open", &c.RPC.Open,
			"Take writes without a token: test networks on loopback only.").flagged("rpc-open"),
		boolean("rpc.allow_remote", &c.RPC.AllowRemote,
			"Listen off loopback without TLS, for a network that is trusted or a proxy in front. The token travels in the clear."),
		list("rpc.allowed_hosts", &c.RPC.AllowedHosts, maxNames, "a host name without port", checkHost,
			"Host names under which the interface may be reached, besides loopback's (a guard against DNS rebinding)."),
		list("rpc.allowed_origins", &c.RPC.AllowedOrigins, maxNames, "an origin such as https://example.org", checkOrigin,
			"Origins whose pages may call the interface, besides the node's own."),
		path("rpc.tls_cert", &c.RPC.TLSCert, "Certificate for HTTPS, a PEM file; with rpc.tls_key."),
		path("rpc.tls_key", &c.RPC.TLSKey, "Private key for HTTPS, a PEM file; with rpc.tls_cert."),
		num("rpc.max_connections", &c.RPC.MaxConnections, 4, 4096, "connections",
			"Connections to the interface at once; a new one takes the place of the one that has waited longest."),
		secretList("rpc.auth", &c.RPC.Auth, maxUsers, "user:salt$hash", checkAuth,
			"Users of the interface beside the cookie, as `dunlin config rpcauth USER` prints them (Bitcoin Core's rpcauth)."),
		list("rpc.whitelist", &c.RPC.Whitelist, maxUsers, "user:call, with more calls after commas or spaces, or user:*", checkWhitelist,
			"JSON-RPC calls that a user may make, and nothing else; with any entry, a user without one may call nothing (Bitcoin Core's rpcwhitelist)."),
		list("rpc.read_only", &c.RPC.ReadOnly, maxUsers, "the name of a user of rpc.auth", checkUser,
			"Users who may ask for anything that is not private and change nothing."),
		str("rpc.observe_listen", &c.RPC.ObserveListen, "host:port, such as 0.0.0.0:9331, or empty", checkOptionalHostPort,
			"Second address, for /livez, /readyz and /metrics alone, told to whoever asks: for probes and Prometheus from other machines. Nothing can be changed there; empty: none."),
		boolean("rpc.pprof", &c.RPC.Pprof,
			"Serve profiles of the running node under /debug/pprof/, to whoever has the token of api.cookie."),

		oneOf("log.format", &c.Log.Format, "Form of the log lines on standard error.", "text", "json").flagged("log-format"),
		oneOf("log.level", &c.Log.Level, "Least level that is logged.", "debug", "info", "warn", "error").flagged("log-level"),
		list("log.levels", &c.Log.Levels, maxNames, "a subsystem and its level, such as sync=debug", checkLevelOf,
			"Subsystems with a least level of their own; dunlin log level changes them at runtime."),
		oneOf("log.color", &c.Log.Color, "Colour in text lines; auto: on a terminal unless NO_COLOR is set.", "auto", "always", "never").flagged("log-color"),
		oneOf("log.libp2p_level", &c.Log.Libp2pLevel, "Least level of the network libraries' own lines.", "debug", "info", "warn", "error"),

		num("storage.cache_mb", &c.Storage.CacheMB, 8, 1<<20, "MiB", "Memory for unspent outputs."),
		num("storage.flush_mb", &c.Storage.FlushMB, 1, 1<<20, "MiB", "Changed outputs in memory that force a commit to disk."),
		num("storage.flush_blocks", &c.Storage.FlushBlocks, 1, 100_000, "blocks", "Blocks since the last commit that force one."),
		dur("storage.flush_interval", &c.Storage.FlushInterval, 100*time.Millisecond, 10*time.Minute,
			"Time since the last commit that forces one: what a crash may have to validate again."),
		num("storage.prune_mb", &c.Storage.PruneMB, 0, 1<<24, "MiB",
			"Block and undo files to keep: the oldest go, but never the last 288 blocks, and a home that was pruned cannot be reindexed; 0: keep all.").flagged("prune-mb"),
		num("storage.file_mb", &c.Storage.FileMB, 1, 2048, "MiB", "Size of one block or undo file, and so the step of pruning."),
		num("storage.min_free_mb", &c.Storage.MinFreeMB, 0, 1<<24, "MiB",
			"Free disk below which no block is accepted until there is room again; 0: no limit."),
		boolean("storage.tx_index", &c.Storage.TxIndex,
			"Keep an index of all transactions, so that any can be shown without naming its block; not with storage.prune_mb.").flagged("tx-index"),
		boolean("storage.address_index", &c.Storage.AddressIndex,
			"Keep an index of what every address received and spent, for explorers; not with storage.prune_mb.").flagged("address-index"),

		num("sync.max_requests_per_peer", &c.Sync.MaxRequestsPerPeer, 1, capRequestsPerPeer, "requests", "Requests in flight at one peer."),
		num("sync.max_blocks_per_peer", &c.Sync.MaxBlocksPerPeer, 1, capBlocksPerPeer, "blocks", "Blocks asked of one peer and not yet here."),
		num("sync.max_mb_per_peer", &c.Sync.MaxMBPerPeer, 4, capMBPerPeer, "MiB", "Bytes asked of one peer and not yet here."),
		num("sync.max_requests", &c.Sync.MaxRequests, 1, capRequests, "requests", "Requests in flight at all peers together."),
		num("sync.max_mb", &c.Sync.MaxMB, 8, capMB, "MiB", "Bytes in flight and waiting for validation, all peers together."),
		num("sync.window", &c.Sync.Window, 128, capWindow, "blocks", "How far past the validated tip blocks are asked for."),
		str("sync.assume_valid", &c.Sync.AssumeValid, "a block hash of 64 hex digits, or empty", checkBlockHash,
			"Hash of a block whose ancestors' scripts are not checked; empty: all are.").flagged("assume-valid"),

		boolean("mining.enabled", &c.Mining.Enabled, "Make blocks (test networks).").flagged("mine"),
		str("mining.address", &c.Mining.Address, "an address of the network, or empty", checkAddress,
			"Address that the coinbase pays; empty: a key made in the home, where stake makes the blocks that of the stake.").flagged("mine-address"),
		dur("mining.interval", &c.Mining.Interval, 0, 24*time.Hour,
			"Wanted time between own blocks; 0s: the network's spacing, where stake makes the blocks none.").flagged("mine-interval"),
		str("mining.coinbase_text", &c.Mining.CoinbaseText, "at most 60 bytes of text", checkCoinbaseText,
			"Text in the coinbase of own blocks.").flagged("coinbase-text"),
		num("mining.threads", &c.Mining.Threads, 1, 256, "threads", "Threads that search for a proof of work."),

		boolean("staking.enabled", &c.Staking.Enabled, "Make blocks with the coins of the wallet, or of the key file (proof-of-stake networks).").flagged("stake"),
		path("staking.key_file", &c.Staking.KeyFile,
			"Private keys whose coins are staked in place of the wallet's: a WIF a line, mode 0600. They can spend these coins.").flagged("key-file"),

		num("mempool.max_mb", &c.Mempool.MaxMB, 1, 1<<16, "MB", "Memory for unconfirmed transactions; the worst paid go first."),
		dur("mempool.expire_after", &c.Mempool.ExpireAfter, time.Minute, 365*24*time.Hour, "Time after which an unconfirmed transaction is dropped."),
		num("mempool.min_relay_fee", &c.Mempool.MinRelayFee, 0, 100_000_000, "satoshi for 1000 virtual bytes", "Least fee rate that is accepted and relayed."),
		num("mempool.max_orphans", &c.Mempool.MaxOrphans, 0, 10_000, "transactions", "Transactions kept whose inputs are unknown."),
		num("mempool.sync_mb", &c.Mempool.SyncMB, 0, 1024, "MB", "Unconfirmed transactions fetched from one peer in one go, the best paid first; 0: peers are not asked."),
		boolean("mempool.persist", &c.Mempool.Persist, "Keep unconfirmed transactions over restarts, in mempool.dat of the home."),
	}
}

const (
	listenWant   = "a multiaddr with a port, such as /ip4/0.0.0.0/tcp/9333, /ip4/0.0.0.0/udp/9333/quic-v1 or, with p2p.websocket, /ip4/0.0.0.0/tcp/9334/ws"
	announceWant = "a multiaddr that others can dial, such as /ip4/203.0.113.7/tcp/9333"
	peerWant     = "a multiaddr that ends in the node's id, such as /ip4/203.0.113.7/tcp/9333/p2p/12D3KooW…"
	seedWant     = "a host name, or /dnsaddr/<host name>"
)

// has says whether a carries one of the protocols.
func has(a ma.Multiaddr, codes ...int) bool {
	for _, code := range codes {
		if _, err := a.ValueForProtocol(code); err == nil {
			return true
		}
	}
	return false
}

func parseAddr(s string) (ma.Multiaddr, string) {
	if s == "" {
		return nil, "is empty"
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		if _, _, e := net.SplitHostPort(s); e == nil {
			return nil, "is host:port, not a multiaddr"
		}
		return nil, "is no multiaddr (" + err.Error() + ")"
	}
	return a, ""
}

func checkListen(s string) string {
	a, problem := parseAddr(s)
	switch {
	case problem != "":
		return problem
	case has(a, ma.P_P2P):
		return "names a node: leave out /p2p/…"
	case has(a, ma.P_UDP) && !has(a, ma.P_QUIC_V1):
		return "lacks /quic-v1 after the UDP port"
	case !has(a, ma.P_IP4, ma.P_IP6) || !has(a, ma.P_TCP, ma.P_UDP):
		return "is no IP address with a TCP or UDP port"
	case has(a, ma.P_WSS) || has(a, ma.P_TLS):
		return "asks for TLS: listen on /ws behind a proxy that does TLS, and announce that one's address"
	}
	return ""
}

// needsWebSocket says whether an address is of the transport that has a key of its own.
func needsWebSocket(s string) bool {
	a, problem := parseAddr(s)
	return problem == "" && has(a, ma.P_WS)
}

func checkLevelOf(s string) string {
	name, level, ok := strings.Cut(s, "=")
	switch {
	case !ok:
		return "has no ="
	case name == "" || strings.ContainsAny(name, " ,") || len(name) > 64:
		return "names no subsystem"
	case level != "debug" && level != "info" && level != "warn" && level != "error":
		return "has a level that is none of debug, info, warn, error"
	}
	return ""
}

func checkPrefix(s string) string {
	if _, err := netip.ParsePrefix(s); err == nil {
		return ""
	}
	if _, err := netip.ParseAddr(s); err != nil {
		return "is no IP address and no network"
	}
	return ""
}

func checkAnnounce(s string) string {
	a, problem := parseAddr(s)
	switch {
	case problem != "":
		return problem
	case !has(a, ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6) || !has(a, ma.P_TCP, ma.P_UDP):
		return "is no address with a TCP or UDP port"
	case has(a, ma.P_UDP) && !has(a, ma.P_QUIC_V1):
		return "lacks /quic-v1 after the UDP port"
	case has(a, ma.P_CIRCUIT):
		return "leads through a relay: the node finds such addresses by itself (p2p.hole_punch)"
	}
	for _, code := range []int{ma.P_IP4, ma.P_IP6} {
		if v, err := a.ValueForProtocol(code); err == nil && net.ParseIP(v).IsUnspecified() {
			return "is the unspecified address, which nobody can dial"
		}
	}
	return ""
}

func checkPeer(s string) string {
	a, problem := parseAddr(s)
	switch {
	case problem != "":
		return problem
	case has(a, ma.P_CIRCUIT):
		return "leads through a relay; a node to join by must be reached directly"
	case has(a, ma.P_DNSADDR):
		return ""
	case !has(a, ma.P_P2P):
		return "lacks the node's id at its end (`dunlin id` on that node prints its whole address)"
	case !has(a, ma.P_TCP, ma.P_UDP):
		return "has no TCP or UDP port"
	}
	return ""
}

func checkSeed(s string) string {
	if strings.HasPrefix(s, "/") {
		a, problem := parseAddr(s)
		if problem != "" {
			return problem
		}
		if !has(a, ma.P_DNSADDR) {
			return "is a multiaddr but not /dnsaddr/… (a node's address belongs into p2p.bootstrap)"
		}
		return ""
	}
	return checkHost(s)
}

func checkHost(s string) string {
	host := strings.TrimSuffix(s, ".")
	if host == "" {
		return "is empty"
	}
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return ""
	}
	if len(host) > 253 {
		return "is longer than the 253 bytes of a host name"
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return "is no host name"
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return "is no host name"
			}
		}
	}
	return ""
}

func checkHostPort(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "is not host:port"
	}
	if host != "" {
		if problem := checkHost(host); problem != "" {
			return "has a host that " + problem
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "has a port that is no number from 0 to 65535"
	}
	return ""
}

// checkOptionalHostPort lets a key be empty that names no address by default.
func checkOptionalHostPort(s string) string {
	if s == "" {
		return ""
	}
	return checkHostPort(s)
}

// maxUsers bounds the lists of users of the interface.
const maxUsers = 64

var (
	authForm = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}:[0-9A-Za-z]{1,128}\$[0-9a-fA-F]{64}$`)
	userForm = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)
	callForm = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}:[a-z0-9*]+([ ,]+[a-z0-9*]+)*$`)
)

func checkAuth(s string) string {
	if !authForm.MatchString(s) {
		return "is not what `dunlin config rpcauth` prints"
	}
	return ""
}

func checkUser(s string) string {
	if !userForm.MatchString(s) {
		return "is no user name"
	}
	return ""
}

func checkWhitelist(s string) string {
	if !callForm.MatchString(s) {
		return "is no user with calls"
	}
	return ""
}

func checkOrigin(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "is no origin"
	}
	return ""
}

func checkBlockHash(s string) string {
	if s == "" {
		return ""
	}
	if raw, err := hex.DecodeString(s); err != nil || len(raw) != 32 {
		return "is no block hash"
	}
	return ""
}

// checkAddress looks at the form only: whether an address belongs to the network
// is the miner's to say, which knows scripts.
func checkAddress(s string) string {
	if s == "" {
		return ""
	}
	if len(s) < 14 || len(s) > 100 {
		return "is no address"
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return "is no address"
		}
	}
	return ""
}

// A coinbase script holds 100 bytes, of which the height and the extranonce
// need up to 14 and their pushes some more.
const maxCoinbaseText = 60

func checkCoinbaseText(s string) string {
	if len(s) > maxCoinbaseText {
		return "has " + strconv.Itoa(len(s)) + " bytes"
	}
	return ""
}
