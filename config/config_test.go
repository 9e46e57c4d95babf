package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"dunlin/config"
)

const (
	peerA = "/ip4/10.0.0.5/tcp/9333/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	peerB = "/dns4/seed.example.org/udp/9333/quic-v1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
)

// home makes a home whose config file holds text.
func home(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, config.FileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t *testing.T, dir string, env []string, args ...string) (*config.Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("start", pflag.ContinueOnError)
	flagHome := ""
	config.GlobalFlags(fs, &flagHome)
	config.Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if flagHome == "" {
		flagHome = dir
	}
	if env == nil {
		env = []string{}
	}
	return config.Load(config.LoadOptions{Home: flagHome, Env: env, Flags: config.FromFlags(fs)})
}

func mustLoad(t *testing.T, dir string, env []string, args ...string) *config.Config {
	t.Helper()
	c, err := load(t, dir, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreValidOnEveryPreset(t *testing.T) {
	for _, name := range config.PresetNames() {
		n, err := config.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		c := config.Default(n)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.P2P.AllowPrivate != n.Private || n.Private == (name == "bitcoin") {
			t.Errorf("%s: private %v, allow_private %v", name, n.Private, c.P2P.AllowPrivate)
		}
	}
}

// Every commented key of the template, uncommented, loads and gives the defaults.
func TestTemplateRoundTrip(t *testing.T) {
	for _, name := range config.PresetNames() {
		n, err := config.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		want := config.Default(n)
		var b bytes.Buffer
		if err := config.WriteTemplate(&b, want); err != nil {
			t.Fatal(err)
		}
		asWritten := mustLoad(t, home(t, b.String()), nil)
		if asWritten.Network != name {
			t.Errorf("%s: template keeps network %q", name, asWritten.Network)
		}
		text := regexp.MustCompile(`(?m)^# ([a-z0-9_]+ = )`).ReplaceAllString(b.String(), "$1")
		text = strings.Replace(text, "network_file = \"\"\n", "", 1)
		got := mustLoad(t, home(t, text), nil)
		for i, e := range got.Entries() {
			w := want.Entries()[i]
			if e.Value != w.Value {
				t.Errorf("%s: %s = %s, default %s", name, e.Key, e.Value, w.Value)
			}
			if e.Key != "network_file" && !strings.Contains(e.Origin, config.FileName+":") {
				t.Errorf("%s: %s is not in the template (from %s)", name, e.Key, e.Origin)
			}
			for _, must := range []string{e.Env, e.Flag, e.Type, e.Doc, e.Unit} {
				if !strings.Contains(text, must) {
					t.Errorf("template lacks %q of %s", must, e.Key)
				}
			}
		}
	}
}

// coreAuth is the user of Bitcoin Core's own test of rpcauth.
const coreAuth = "rt:93648e835a54c573682c2eb19f882535$7681e9c5b74bdd85e78166031d2058e1069b3ed7ed967c93fc63abba06f31144"

// other is for each key a right value that is not the default.
var other = map[string]string{
	"network": "regtest", "network_file": "",
	"p2p.listen": "/ip4/127.0.0.1/tcp/0", "p2p.announce": "/ip4/203.0.113.7/tcp/9333", "p2p.bootstrap": peerA,
	"p2p.persistent": peerB, "p2p.dns_seeds": "seed.example.org", "p2p.dns_servers": "127.0.0.1:5353",
	"p2p.discovery": "false", "p2p.max_outbound": "3", "p2p.max_inbound": "4", "p2p.allow_private": "false",
	"p2p.nat": "true", "p2p.no_announce": "172.17.0.0/16", "p2p.hole_punch": "true", "p2p.relay": "true", "p2p.websocket": "true",
	"p2p.mdns": "true", "p2p.peer_exchange": "true", "p2p.max_upload_kb_per_s": "500",
	"rpc.listen": "127.0.0.1:1", "rpc.open": "true", "rpc.allow_remote": "true", "rpc.allowed_hosts": "node.example.org",
	"rpc.allowed_origins": "https://example.org", "rpc.tls_cert": "/c.pem", "rpc.tls_key": "/k.pem", "rpc.max_connections": "9",
	"rpc.auth": coreAuth, "rpc.whitelist": "rt:getblockcount", "rpc.read_only": "rt", "rpc.pprof": "true", "rpc.observe_listen": "0.0.0.0:9331",
	"log.format": "json", "log.level": "debug", "log.levels": "libp2p/swarm2=error", "log.color": "never", "log.libp2p_level": "info",
	"storage.cache_mb": "33", "storage.flush_mb": "31", "storage.flush_blocks": "7", "storage.flush_interval": "3s", "storage.min_free_mb": "0",
	"storage.prune_mb": "550", "storage.file_mb": "16", "storage.tx_index": "true", "storage.address_index": "true",
	"sync.max_requests_per_peer": "8", "sync.max_blocks_per_peer": "100", "sync.max_mb_per_peer": "8", "sync.max_requests": "64",
	"sync.max_mb": "32", "sync.window": "1024", "sync.assume_valid": strings.Repeat("0a", 32),
	"mining.enabled": "true", "mining.address": "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "mining.interval": "2s",
	"mining.coinbase_text": "hello", "mining.threads": "2",
	"staking.enabled": "true", "staking.key_file": "/keys",
	"mempool.max_mb": "5", "mempool.expire_after": "1h", "mempool.min_relay_fee": "0", "mempool.max_orphans": "1",
	"mempool.persist": "false", "mempool.sync_mb": "0",
}

// Each key can be set by file, variable and flag, with the same result.
func TestEveryKeyFromEverySource(t *testing.T) {
	n, err := config.Preset(config.DefaultNetwork)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range config.Default(n).Entries() {
		text, ok := other[e.Key]
		if !ok {
			t.Errorf("no value to test %s with", e.Key)
		}
		if text == "" {
			continue
		}
		t.Run(e.Key, func(t *testing.T) {
			value := text
			switch e.Type {
			case "string", "duration":
				value = `"` + text + `"`
			case "list of strings":
				value = `["` + text + `"]`
			}
			companion := ""
			switch e.Key {
			case "rpc.tls_cert":
				companion = "rpc.tls_key = \"/k.pem\"\n"
			case "rpc.tls_key":
				companion = "rpc.tls_cert = \"/c.pem\"\n"
			case "rpc.whitelist", "rpc.read_only":
				companion = "rpc.auth = [\"" + coreAuth + "\"]\n"
			}
			dir := home(t, companion)
			for source, c := range map[string]*config.Config{
				"config.toml:": mustLoad(t, home(t, companion+e.Key+" = "+value), nil),
				"environment ": mustLoad(t, dir, []string{e.Env + "=" + text}),
				"flag --":      mustLoad(t, dir, nil, e.Flag+"="+text),
			} {
				i := slices.IndexFunc(c.Entries(), func(x config.Entry) bool { return x.Key == e.Key })
				got := c.Entries()[i]
				if e.Key == "rpc.auth" { // its values are not shown
					if got.Value != `["rt:…"]` || !slices.Equal(c.RPC.Auth, []string{text}) || !strings.Contains(got.Origin, source) {
						t.Errorf("%s: %s = %s, %v", source, e.Key, got.Value, c.RPC.Auth)
					}
					continue
				}
				if got.Value != value || !strings.Contains(got.Origin, source) {
					t.Errorf("%s: %s = %s from %s, want %s", source, e.Key, got.Value, got.Origin, value)
				}
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	dir := home(t, "[p2p]\nmax_outbound = 1\nmax_inbound = 1\n[mempool]\nmax_orphans = 1\n")
	c := mustLoad(t, dir, []string{"DUNLIN_P2P_MAX_OUTBOUND=2", "DUNLIN_P2P_MAX_INBOUND=2", "DUNLIN_P2P_LISTEN="}, "--max-outbound", "3")
	got := []int{c.P2P.MaxOutbound, c.P2P.MaxInbound, c.Mempool.MaxOrphans, c.RPC.MaxConnections}
	if want := []int{3, 2, 1, 256}; !slices.Equal(got, want) {
		t.Errorf("flag, environment, file, default: got %v, want %v", got, want)
	}
	if len(c.P2P.Listen) != 4 {
		t.Errorf("an empty variable counts as unset, got listen %v", c.P2P.Listen)
	}
	for key, want := range map[string]string{
		"p2p.max_outbound": "flag --max-outbound", "p2p.max_inbound": "environment DUNLIN_P2P_MAX_INBOUND",
		"mempool.max_orphans": filepath.Join(dir, "config.toml") + ":5", "rpc.max_connections": "default",
	} {
		if c.Origin(key) != want {
			t.Errorf("%s comes from %q, want %q", key, c.Origin(key), want)
		}
	}
}

// What --help shows: the names and types that DESIGN.md promises.
func TestUsage(t *testing.T) {
	fs := pflag.NewFlagSet("start", pflag.ContinueOnError)
	home := ""
	config.GlobalFlags(fs, &home)
	config.Flags(fs)
	usage := regexp.MustCompile(` +`).ReplaceAllString(fs.FlagUsages(), " ")
	for _, want := range []string{
		"--home string", "--network string", "--network-file string", "--listen strings", "--bootstrap strings", "--persistent strings",
		"--dns-seed strings", "--dns-server strings", "--rpc-listen string", "--rpc-open ", "--mine ", "--mine-address string",
		"--mine-interval duration", "--coinbase-text string", "--log-format text|json", "--log-level debug|info|warn|error",
		"--log-color auto|always|never", "--debug ", "--port uint16", "--max-outbound N",
	} {
		if !strings.Contains(usage, want) {
			t.Errorf("usage lacks %q", want)
		}
	}
	if strings.Contains(usage, "--sync-window") || fs.Lookup("sync-window") == nil {
		t.Error("rarely used flags work but are hidden")
	}
	if t.Failed() {
		t.Log(usage)
	}
}

func TestListsAndShorthands(t *testing.T) {
	dir := t.TempDir()
	c := mustLoad(t, dir, []string{"DUNLIN_P2P_DNS_SEEDS=a.example.org, b.example.org"},
		"--bootstrap", peerA, "--bootstrap", peerB, "--port", "4001", "--debug", "--mine", "--network", "regtest")
	if want := []string{peerA, peerB}; !slices.Equal(c.P2P.Bootstrap, want) {
		t.Errorf("bootstrap %v", c.P2P.Bootstrap)
	}
	if want := []string{"a.example.org", "b.example.org"}; !slices.Equal(c.P2P.DNSSeeds, want) {
		t.Errorf("dns seeds %v", c.P2P.DNSSeeds)
	}
	if want := config.ListenAddrs(4001); !slices.Equal(c.P2P.Listen, want) {
		t.Errorf("listen %v", c.P2P.Listen)
	}
	if c.Log.Level != "debug" || !c.Mining.Enabled || c.Chain.Params.Name != "regtest" {
		t.Errorf("level %s, mining %v, network %s", c.Log.Level, c.Mining.Enabled, c.Chain.Params.Name)
	}
	c = mustLoad(t, dir, nil, "--port", "4001", "--listen", "/ip4/127.0.0.1/tcp/0", "--debug", "--log-level", "warn")
	if len(c.P2P.Listen) != 1 || c.Log.Level != "warn" {
		t.Errorf("the longhand wins over its shorthand: %v %s", c.P2P.Listen, c.Log.Level)
	}
	c = mustLoad(t, home(t, "[p2p]\nbootstrap = ['"+peerA+"']"), nil, "--bootstrap", "")
	if len(c.P2P.Bootstrap) != 0 {
		t.Errorf("an empty flag empties a list: %v", c.P2P.Bootstrap)
	}
}

// Each row is one fault and what its message must say: the key, the value,
// where it came from and what would be right.
func TestFaults(t *testing.T) {
	rows := []struct {
		name, file string
		env, args  []string
		want       []string
	}{
		{name: "unknown key", file: "[p2p]\nlsten = []", want: []string{"config.toml:2: p2p.lsten = []: unknown key, did you mean p2p.listen?"}},
		{name: "key outside its section", file: "max_outbound = 3", want: []string{"config.toml:1: max_outbound", "did you mean p2p.max_outbound?"}},
		{name: "key in another section", file: "[rpc]\nbootstrap = []", want: []string{"config.toml:2: rpc.bootstrap", "p2p.bootstrap"}},
		{name: "unknown key far from all", file: "xyzzyxyzzy = 1", want: []string{"config.toml:1: xyzzyxyzzy", "unknown key", "config show"}},
		{name: "unknown section", file: "[pear]\nx = 1", want: []string{"config.toml:2: pear.x", "unknown key"}},
		{name: "empty unknown section", file: "[pear]", want: []string{"config.toml:1: pear", "unknown key"}},
		{name: "syntax", file: "[p2p]\nlisten = [", want: []string{"config.toml:2:", "is no TOML"}},
		{name: "key twice", file: "network = 'regtest'\nnetwork = 'simnet'", want: []string{"config.toml:2:", "is no TOML"}},
		{name: "string for integer", file: "p2p.max_outbound = '3'", want: []string{`config.toml:1: p2p.max_outbound = "3": is a string; want an integer from 0 to 256`}},
		{name: "decimal for integer", file: "p2p.max_outbound = 3.5", want: []string{"is a decimal number", "want an integer"}},
		{name: "out of range", file: "p2p.max_outbound = 257", want: []string{"p2p.max_outbound = 257: is out of range; want an integer from 0 to 256"}},
		{name: "string for list", file: "p2p.listen = '/ip4/127.0.0.1/tcp/1'", want: []string{"is a string; want a list of at most 32"}},
		{name: "integer in list", file: "p2p.listen = [1]", want: []string{"p2p.listen = [1]: has an item 1 that is an integer"}},
		{name: "table for value", file: "p2p.listen = {a = 1}", want: []string{"config.toml:1: p2p.listen.a", "unknown key"}},
		{name: "integer for duration", file: "storage.flush_interval = 5", want: []string{"lacks its unit", `such as "5s"`}},
		{name: "string for boolean", file: "rpc.open = 'yes'", want: []string{"rpc.open", "want true or false"}},
		{name: "word", file: "log.level = 'inof'", want: []string{`log.level = "inof"`, `did you mean "info"?`, `one of "debug", "info", "warn", "error"`}},
		{name: "network", file: "network = 'bitcon'", want: []string{"config.toml:1: network", "did you mean bitcoin?", "bitcoin, regtest, simnet, stakenet, testnet"}},
		{name: "near a preset", args: []string{"--network", "staknet"}, want: []string{"flag --network: ", "did you mean stakenet?", "bitcoin, regtest, simnet, stakenet, testnet"}},
		{name: "network file missing", args: []string{"--network-file", "/nonexistent/network.toml"}, want: []string{"flag --network-file: ", "/nonexistent/network.toml"}},
		{name: "two networks", file: "network = 'regtest'\nnetwork_file = 'n.toml'", want: []string{"config.toml:2", "set one of the two"}},
		{name: "bootstrap without id", args: []string{"--bootstrap", "/ip4/10.0.0.5/tcp/9333"}, want: []string{"flag --bootstrap: p2p.bootstrap", "/ip4/10.0.0.5/tcp/9333", "lacks the node's id", "/p2p/12D3KooW…"}},
		{name: "bootstrap host:port", args: []string{"--bootstrap", "10.0.0.5:9333"}, want: []string{"is host:port, not a multiaddr"}},
		{name: "bad id", args: []string{"--bootstrap", "/ip4/10.0.0.5/tcp/9333/p2p/nonsense"}, want: []string{"is no multiaddr"}},
		{name: "listen with id", args: []string{"--listen", peerA}, want: []string{"flag --listen", "leave out /p2p/"}},
		{name: "listen bare udp", args: []string{"--listen", "/ip4/127.0.0.1/udp/1"}, want: []string{"lacks /quic-v1"}},
		{name: "announce unspecified", args: []string{"--announce", "/ip4/0.0.0.0/tcp/9333"}, want: []string{"nobody can dial"}},
		{name: "announce a relay", args: []string{"--announce", "/ip4/203.0.113.7/tcp/1/p2p/" + peerIDOf(peerA) + "/p2p-circuit"}, want: []string{"leads through a relay", "p2p.hole_punch"}},
		{name: "bootstrap by a relay", args: []string{"--bootstrap", peerA + "/p2p-circuit/p2p/" + peerIDOf(peerB)}, want: []string{"leads through a relay", "reached directly"}},
		{name: "no announce", args: []string{"--p2p-no-announce", "172.17.0.0/33"}, want: []string{"is no IP address and no network", "CIDR"}},
		{name: "websocket off", args: []string{"--listen", "/ip4/127.0.0.1/tcp/1/ws"}, want: []string{"flag --listen: p2p.listen", "/tcp/1/ws", "p2p.websocket = true"}},
		{name: "websocket with tls", args: []string{"--listen", "/ip4/127.0.0.1/tcp/1/tls/ws", "--p2p-websocket"}, want: []string{"asks for TLS", "announce"}},
		{name: "relay that does not listen", file: "p2p.listen = []\np2p.relay = true", want: []string{"config.toml:2: p2p.relay", "set p2p.listen"}},
		{name: "second item", args: []string{"--bootstrap", peerA, "--bootstrap", "x"}, want: []string{"item 2"}},
		{name: "dns server", args: []string{"--dns-server", "127.0.0.1"}, want: []string{"is not host:port"}},
		{name: "dns seed", args: []string{"--dns-seed", peerA}, want: []string{"p2p.bootstrap"}},
		{name: "integer flag", args: []string{"--max-outbound", "many"}, want: []string{`flag --max-outbound: p2p.max_outbound = "many": is no integer; want an integer`}},
		{name: "variable", env: []string{"DUNLIN_P2P_MAX_OUTBOUND=-1"}, want: []string{"environment DUNLIN_P2P_MAX_OUTBOUND: p2p.max_outbound = \"-1\": is out of range"}},
		{name: "unknown variable", env: []string{"DUNLIN_P2P_MAX_OUTBUND=1"}, want: []string{"environment DUNLIN_P2P_MAX_OUTBUND: unknown variable, did you mean DUNLIN_P2P_MAX_OUTBOUND?"}},
		{name: "misspelt variable", env: []string{"DUNLIN_NETWORC=regtest"}, want: []string{"did you mean DUNLIN_NETWORK?"}},
		{name: "assume valid", args: []string{"--assume-valid", "00"}, want: []string{"is no block hash", "64 hex digits"}},
		{name: "coinbase text", args: []string{"--coinbase-text", strings.Repeat("x", 61)}, want: []string{"has 61 bytes", "at most 60"}},
		{name: "origin", file: "rpc.allowed_origins = ['example.org']", want: []string{"is no origin", "https://example.org"}},
		{name: "off loopback", args: []string{"--rpc-listen", "0.0.0.0:9332"}, want: []string{"flag --rpc-listen", "0.0.0.0:9332", "rpc.allow_remote = true", "rpc.tls_cert"}},
		{name: "every interface", args: []string{"--rpc-listen", ":9332"}, want: []string{"off loopback"}},
		{name: "user twice", args: []string{"--rpc-auth", coreAuth + "," + coreAuth}, want: []string{"flag --rpc-auth", "rt:…", "is there twice"}},
		{name: "user of another form", args: []string{"--rpc-auth", "rt:" + coreAuth[36:]}, want: []string{"item 1", "dunlin config rpcauth"}},
		{name: "the cookie's user", args: []string{"--rpc-auth", "__cookie__" + coreAuth[2:]}, want: []string{"choose another"}},
		{name: "nobody's whitelist", args: []string{"--rpc-whitelist", "rt:stop"}, want: []string{"rpc.whitelist", "rpc.auth does not have"}},
		{name: "nobody reads", args: []string{"--rpc-read-only", "rt"}, want: []string{"rpc.read_only", "rpc.auth does not have"}},
		{name: "whitelist of another form", args: []string{"--rpc-auth", coreAuth, "--rpc-whitelist", "rt"}, want: []string{"is no user with calls"}},
		{name: "open off loopback", args: []string{"--rpc-listen", "10.0.0.1:1", "--rpc-allow-remote", "--rpc-open"}, want: []string{"flag --rpc-open", "loopback only"}},
		{name: "open on bitcoin", args: []string{"--network", "bitcoin", "--rpc-open"}, want: []string{"flag --rpc-open", "test networks"}},
		{name: "mining on bitcoin", args: []string{"--network", "bitcoin", "--mine"}, want: []string{"flag --mine", "mining.enabled", "test networks"}},
		{name: "half of tls", args: []string{"--rpc-tls-cert", "c.pem"}, want: []string{"flag --rpc-tls-cert", "go together"}},
		{name: "per peer above all", file: "sync.max_mb = 8", want: []string{"sync.max_mb_per_peer", "sync.max_mb = 8"}},
		{name: "cap", file: "sync.max_requests_per_peer = 17", want: []string{"from 1 to 16"}},
		{name: "flush above cache", file: "storage.cache_mb = 16", want: []string{"storage.flush_mb", "storage.cache_mb = 16"}},
		{name: "neither listens nor dials", file: "p2p.listen = []\np2p.max_outbound = 0", want: []string{"neither listens nor dials"}},
		{name: "long value", args: []string{"--log-level", strings.Repeat("x", 10_000)}, want: []string{"…"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(t, home(t, row.file), row.env, row.args...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("lacks %q:\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n"); n > 0 {
				t.Errorf("one fault gave %d lines:\n%v", n+1, err)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	dir := home(t, "network = 'nope'\n[p2p]\nlsten = 1\nmax_outbound = 'x'\n[log]\nlevel = 'loud'\n")
	_, err := load(t, dir, []string{"DUNLIN_RPC_LISTEN=nowhere"}, "--bootstrap", "x", "--mine-interval", "5")
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{":1: network", ":3: p2p.lsten", ":4: p2p.max_outbound", ":6: log.level", "DUNLIN_RPC_LISTEN", "--bootstrap", "--mine-interval"}
	if len(lines) != len(want) {
		t.Errorf("%d lines for %d faults:\n%v", len(lines), len(want), err)
	}
	for _, w := range want {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, w) }) {
			t.Errorf("no line about %q:\n%v", w, err)
		}
	}
	if _, ok := errors.AsType[*config.KeyError](err); !ok {
		t.Errorf("no *KeyError in %T", err)
	}
}

// Variables of Kubernetes services and of other programs are not ours.
func TestForeignVariables(t *testing.T) {
	mustLoad(t, t.TempDir(), []string{
		"DUNLIN_SERVICE_HOST=10.0.0.1", "DUNLIN_PORT=tcp://10.0.0.1:9333", "DUNLIN_PORT_9333_TCP_ADDR=10.0.0.1",
		"DUNLIN_RPC_SERVICE_PORT_HTTP=1", "DUNLIN_RPC_PORT=tcp://10.0.0.1:9332", "DUNLIN_TESTDATA=/x", "DUNLIN_TEST_CHILD=1",
	})
}

func TestHome(t *testing.T) {
	dir := t.TempDir()
	env := []string{"XDG_DATA_HOME=" + dir}
	c := mustLoad(t, "", env, "--network", "regtest")
	if want := filepath.Join(dir, "dunlin", c.Chain.ChainID()); c.Home != want {
		t.Errorf("home %s, want %s", c.Home, want)
	}
	if c.File != "" {
		t.Errorf("file %s", c.File)
	}
	if err := config.EnsureHome(c.Home); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(c.Home); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("home is %v, %v", fi.Mode(), err)
	}
	for _, want := range []bool{true, false} {
		if wrote, err := c.WriteFile(); err != nil || wrote != want {
			t.Errorf("wrote %v, %v; want %v", wrote, err, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(c.Home, config.FileName)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("config file is %v, %v", fi.Mode(), err)
	}
	// The home remembers its network.
	if again := mustLoad(t, c.Home, nil); again.Chain.ChainID() != c.Chain.ChainID() {
		t.Errorf("chain %s, want %s", again.Chain.ChainID(), c.Chain.ChainID())
	}
	if c = mustLoad(t, "", []string{"HOME=" + dir, "XDG_DATA_HOME=relative"}); c.Home != filepath.Join(dir, ".local/share/dunlin", c.Chain.ChainID()) {
		t.Errorf("home %s", c.Home)
	}
	if c = mustLoad(t, "", []string{"DUNLIN_HOME=" + dir}); c.Home != dir {
		t.Errorf("home %s", c.Home)
	}
	if _, err := load(t, "", nil); err == nil || !strings.Contains(err.Error(), "--home") {
		t.Errorf("nothing says where: %v", err)
	}
}

func TestDefaultHomeOfAnotherNetwork(t *testing.T) {
	dir := t.TempDir()
	env := []string{"XDG_DATA_HOME=" + dir}
	c := mustLoad(t, "", env, "--network", "regtest")
	if err := config.EnsureHome(c.Home); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Home, config.FileName), []byte("network = 'simnet'"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := load(t, "", env, "--network", "regtest")
	if err == nil || !strings.Contains(err.Error(), "this home belongs to "+c.Chain.ChainID()) {
		t.Errorf("got %v", err)
	}
}

func TestFileTooLarge(t *testing.T) {
	_, err := load(t, home(t, strings.Repeat("#\n", 1<<19+1)), nil)
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

// Paths in the file are relative to its folder, in flags to the working folder.
func TestRelativePaths(t *testing.T) {
	dir := home(t, "rpc.tls_cert = 'c.pem'\nrpc.tls_key = '/k.pem'\nnetwork_file = 'net.toml'\n")
	if _, err := config.WriteNetworkFile(filepath.Join(dir, "net.toml"), spec()); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, dir, nil)
	if c.RPC.TLSCert != filepath.Join(dir, "c.pem") || c.RPC.TLSKey != "/k.pem" || c.NetworkFile != filepath.Join(dir, "net.toml") {
		t.Errorf("%s %s %s", c.RPC.TLSCert, c.RPC.TLSKey, c.NetworkFile)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	if err := config.WriteTemplate(&b, c); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\nnetwork_file = ") || strings.Contains(b.String(), "\nnetwork = ") {
		t.Errorf("template names the wrong network:\n%s", b.String()[:800])
	}
}

func TestValidateAfterChange(t *testing.T) {
	c := mustLoad(t, t.TempDir(), nil)
	c.P2P.MaxOutbound, c.Log.Level = -1, "x"
	err := c.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("want two faults, got %v", err)
	}
}

// peerIDOf is what follows the last slash.
func peerIDOf(addr string) string { return addr[strings.LastIndexByte(addr, '/')+1:] }

func spec() config.NetworkSpec {
	s := config.DefaultNetworkSpec("mynet", time.Unix(1_800_000_000, 0))
	s.Bootstrap = []string{peerA}
	s.DNSSeeds = []string{"seed.example.org"}
	return s
}
