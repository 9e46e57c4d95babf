package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// LoadOptions say where settings come from. Zero means the default given.
type LoadOptions struct {
	// Home is what --home says; empty: DUNLIN_HOME, else the XDG data home
	// followed by dunlin/<chain id>.
	Home string
	// Env is the environment as os.Environ gives it; nil: the process's own.
	Env []string
	// Flags are the flags given, in any order; see FromFlags.
	Flags []Setting
	// NoFile leaves the config file unread.
	NoFile bool
}

// A Setting is one key set by a flag, or by a caller in a flag's place.
type Setting struct {
	Key    string   // p2p.listen
	Values []string // one, or several for a list
	From   string   // "flag --listen", for errors and `config show`
}

// FileName is the name of the config file in a home.
const FileName = "config.toml"

// Load resolves the network and the home, and gathers the settings: defaults of
// the network, then <home>/config.toml if there is one, then environment
// variables, then flags. It makes no folder and no file. On error it reports
// every fault it found, joined, each a *[KeyError] where it is about a setting.
func Load(o LoadOptions) (*Config, error) {
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	vars := environ(env)
	var faults []error

	home := o.Home
	if home == "" {
		home = vars["DUNLIN_HOME"]
	}
	var file string
	var values []tomlValue
	read := func(home string) {
		if o.NoFile {
			return
		}
		name := filepath.Join(home, FileName)
		data, err := readFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		file = name
		if err != nil {
			faults = append(faults, fmt.Errorf("config file: %w", err))
			return
		}
		var fault *KeyError
		if values, fault = parseTOML(name, data); fault != nil {
			faults = append(faults, fault)
		}
	}
	if home != "" {
		read(home)
	}
	network, choice, err := chooseNetwork(o.Flags, vars, values, home)
	if err != nil {
		faults = append(faults, err)
	}
	if network == nil {
		// Go on with some network, to report the faults of the other keys too.
		if network, err = Preset(DefaultNetwork); err != nil {
			return nil, errors.Join(append(faults, err)...)
		}
	} else if home == "" {
		if home, err = DefaultHome(env, network.ChainID()); err != nil {
			return nil, errors.Join(append(faults, err)...)
		}
		read(home)
		// The folder was found by the network's chain id, so its file cannot ask for another.
		if other, where, e := chooseNetwork(nil, nil, values, home); e != nil {
			faults = append(faults, e)
		} else if where != "" && other.ChainID() != network.ChainID() {
			faults = append(faults, &KeyError{
				From: where, Key: "network", Value: quote(other.Params.Name),
				Problem: fmt.Sprintf("this home belongs to %s; give the other network a home of its own (--home or --network)", network.ChainID()),
			})
		}
	}

	c := Default(network)
	c.File = file
	if home != "" {
		if c.Home, err = filepath.Abs(home); err != nil {
			faults = append(faults, fmt.Errorf("home %s: %w", home, err))
		}
	}
	fields := c.fields()
	origins, more := applyTOML(fields, file, values)
	c.origins = origins
	faults = append(faults, more...)
	for _, f := range fields {
		if p, ok := f.ptr.(*string); ok && f.isPath && origins[f.key] != "" && *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(file), *p)
		}
	}
	faults = append(faults, c.applyEnv(fields, vars)...)
	faults = append(faults, c.applySettings(fields, o.Flags)...)

	// What the network keys say has been decided above, over all sources at once.
	c.Network, c.NetworkFile = network.Params.Name, ""
	if network.File != "" {
		c.Network, c.NetworkFile = "", network.File
	}
	delete(c.origins, "network")
	delete(c.origins, "network_file")
	if choice != "" {
		key := "network"
		if c.NetworkFile != "" {
			key = "network_file"
		}
		c.origins[key] = choice
	}
	faults = append(faults, c.crossChecks()...)
	if err := errors.Join(withoutRepeats(faults)...); err != nil {
		return nil, err
	}
	return c, nil
}

// withoutRepeats drops faults that say the same: the network keys are looked at
// when the network is chosen and again with all others.
func withoutRepeats(faults []error) []error {
	seen := map[string]bool{}
	var out []error
	for _, f := range faults {
		about := f.Error()
		if f, ok := errors.AsType[*KeyError](f); ok && (f.Key == "network" || f.Key == "network_file") {
			about = f.Key + " " + f.From
		}
		if !seen[about] {
			seen[about] = true
			out = append(out, f)
		}
	}
	return out
}

// chooseNetwork resolves the network from the strongest source that names one.
// from is empty if none did and the default was taken.
func chooseNetwork(flags []Setting, vars map[string]string, values []tomlValue, home string) (n *Network, from string, err error) {
	type source struct{ name, file, nameFrom, fileFrom, base string }
	var sources [3]source
	for _, s := range flags {
		if len(s.Values) == 0 {
			continue
		}
		switch s.Key {
		case "network":
			sources[0].name, sources[0].nameFrom = s.Values[len(s.Values)-1], s.From
		case "network_file":
			sources[0].file, sources[0].fileFrom = s.Values[len(s.Values)-1], s.From
		}
	}
	sources[1] = source{
		name: vars["DUNLIN_NETWORK"], nameFrom: "environment DUNLIN_NETWORK",
		file: vars["DUNLIN_NETWORK_FILE"], fileFrom: "environment DUNLIN_NETWORK_FILE",
	}
	sources[2].base = home
	for _, v := range values {
		s, _ := v.value.(string)
		at := fmt.Sprintf("%s:%d", filepath.Join(home, FileName), v.line)
		switch v.key {
		case "network":
			sources[2].name, sources[2].nameFrom = s, at
		case "network_file":
			sources[2].file, sources[2].fileFrom = s, at
		}
	}
	for _, s := range sources {
		switch {
		case s.name != "" && s.file != "":
			return nil, s.fileFrom, &KeyError{
				From: s.fileFrom, Key: "network_file", Value: quote(s.file),
				Problem: fmt.Sprintf("the network is also named by %s; set one of the two", s.nameFrom),
			}
		case s.file != "":
			name := s.file
			if s.base != "" && !filepath.IsAbs(name) {
				name = filepath.Join(s.base, name)
			}
			if n, err = ReadNetworkFile(name); err != nil {
				return nil, s.fileFrom, fmt.Errorf("%s: network_file: %w", s.fileFrom, err)
			}
			return n, s.fileFrom, nil
		case s.name != "":
			if n, err = Preset(s.name); err != nil {
				return nil, s.nameFrom, &KeyError{From: s.nameFrom, Key: "network", Value: clip(quote(s.name)), Problem: err.Error()}
			}
			return n, s.nameFrom, nil
		}
	}
	n, err = Preset(DefaultNetwork)
	return n, "", err
}

// environ keeps the variables that are ours. An empty variable counts as unset,
// as container tools pass on what is not set as empty.
func environ(env []string) map[string]string {
	vars := map[string]string{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && value != "" && strings.HasPrefix(name, "DUNLIN_") {
			vars[name] = value
		}
	}
	return vars
}

// kubernetesVar matches what Kubernetes puts into every container of a namespace
// with a service whose name starts with "dunlin".
var kubernetesVar = regexp.MustCompile(`^DUNLIN_(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func (c *Config) applyEnv(fields []field, vars map[string]string) (faults []error) {
	known := map[string]bool{"DUNLIN_HOME": true}
	var names []string
	for _, f := range fields {
		name := f.env()
		known[name] = true
		names = append(names, name)
		text, ok := vars[name]
		if !ok {
			continue
		}
		faults = append(faults, c.setText(f, "environment "+name, []string{text})...)
	}
	for _, name := range sorted(vars) {
		if known[name] || kubernetesVar.MatchString(name) {
			continue
		}
		// Other programs (tests, wrappers) may have variables that start like
		// ours; those that start like a section or look like a slip are faults.
		near := Nearest(name, names)
		section, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(name, "DUNLIN_")), "_")
		if !isSection(fields, section) && (near == "" || distance(name, near) > 2) {
			continue
		}
		problem := "unknown variable"
		if near != "" {
			problem += ", did you mean " + near + "?"
		}
		faults = append(faults, &KeyError{From: "environment " + name, Problem: problem})
	}
	return faults
}

func (c *Config) applySettings(fields []field, settings []Setting) (faults []error) {
	for _, s := range settings {
		found := false
		for _, f := range fields {
			if f.key == s.Key {
				found = true
				faults = append(faults, c.setText(f, s.From, s.Values)...)
			}
		}
		if !found {
			faults = append(faults, &KeyError{From: s.From, Key: s.Key, Value: clip(quote(strings.Join(s.Values, ","))), Problem: "unknown key" + suggestKey(fields, s.Key)})
		}
	}
	return faults
}

// setText sets one field from texts: all of them for a list, else the last.
func (c *Config) setText(f field, from string, texts []string) []error {
	c.origins[f.key] = from
	problem, shown := "", ""
	if p, ok := f.ptr.(*[]string); ok {
		*p = splitList(strings.Join(texts, ","))
		shown = f.format()
	} else if len(texts) > 0 {
		shown = quote(texts[len(texts)-1])
		problem = f.setText(texts[len(texts)-1])
	}
	if problem == "" {
		problem = f.check()
	}
	if problem != "" {
		return []error{f.fault(from, shown, problem)}
	}
	return nil
}

// Validate checks every key and what keys demand of one another, for a Config
// that was changed after Load. It reports every fault, joined.
func (c *Config) Validate() error {
	var faults []error
	for _, f := range c.fields() {
		if f.key == "network" && c.NetworkFile != "" {
			continue
		}
		if problem := f.check(); problem != "" {
			faults = append(faults, f.fault(c.origins[f.key], f.format(), problem))
		}
	}
	if c.Chain == nil {
		return errors.Join(append(faults, errors.New("config: no network resolved"))...)
	}
	return errors.Join(append(faults, c.crossChecks()...)...)
}

// crossChecks are the demands that keys make on one another.
func (c *Config) crossChecks() (faults []error) {
	fault := func(key, value, problem string) {
		faults = append(faults, &KeyError{Key: key, Value: value, From: c.origins[key], Problem: problem})
	}
	network := c.Chain.Params
	if len(c.P2P.Listen) == 0 && c.P2P.MaxOutbound == 0 {
		fault("p2p.listen", "[]", "the node neither listens nor dials (p2p.max_outbound = 0); set one of them")
	}
	if len(c.P2P.Listen) == 0 && c.P2P.Relay {
		fault("p2p.relay", "true", "asks others to connect here, and the node listens nowhere; set p2p.listen")
	}
	if !c.P2P.WebSocket {
		for _, l := range []struct {
			key   string
			addrs []string
		}{{"p2p.listen", c.P2P.Listen}, {"p2p.bootstrap", c.P2P.Bootstrap}, {"p2p.persistent", c.P2P.Persistent}} {
			if i := slices.IndexFunc(l.addrs, needsWebSocket); i >= 0 {
				fault(l.key, quote(l.addrs[i]), "is a WebSocket address, and that transport is off; set p2p.websocket = true, or use another address")
			}
		}
	}
	if c.Storage.PruneMB > 0 {
		for _, x := range []struct {
			key string
			on  bool
		}{{"storage.tx_index", c.Storage.TxIndex}, {"storage.address_index", c.Storage.AddressIndex}} {
			if key := x.key; x.on {
				fault(key, "true", "needs every block, and storage.prune_mb = "+strconv.Itoa(c.Storage.PruneMB)+" removes old ones; set storage.prune_mb = 0, or "+key+" = false")
			}
		}
	}
	if (c.RPC.TLSCert == "") != (c.RPC.TLSKey == "") {
		key, value := "rpc.tls_cert", c.RPC.TLSCert
		if value == "" {
			key, value = "rpc.tls_key", c.RPC.TLSKey
		}
		fault(key, quote(value), "rpc.tls_cert and rpc.tls_key go together; set both or none")
	}
	users := map[string]bool{}
	for _, entry := range c.RPC.Auth {
		name, _, _ := strings.Cut(entry, ":")
		if users[name] {
			fault("rpc.auth", quote(veil(entry)), "is there twice; give every user one entry")
		}
		if name == "__cookie__" {
			fault("rpc.auth", quote(veil(entry)), "is the name of the cookie's user; choose another")
		}
		users[name] = true
	}
	for _, l := range []struct {
		key   string
		items []string
	}{{"rpc.whitelist", c.RPC.Whitelist}, {"rpc.read_only", c.RPC.ReadOnly}} {
		for _, item := range l.items {
			if name, _, _ := strings.Cut(item, ":"); !users[name] {
				fault(l.key, quote(item), "names a user that rpc.auth does not have")
			}
		}
	}
	loopback := IsLoopback(c.RPC.Listen)
	if !loopback && c.RPC.TLSCert == "" && !c.RPC.AllowRemote && checkHostPort(c.RPC.Listen) == "" {
		fault("rpc.listen", quote(c.RPC.Listen), "is off loopback, where the token would travel in the clear; "+
			"set rpc.tls_cert and rpc.tls_key, or rpc.allow_remote = true if the network in between is trusted, or listen on 127.0.0.1")
	}
	if c.RPC.Open && !network.Test {
		fault("rpc.open", "true", "is for test networks; "+network.Name+" wants the token of api.cookie")
	}
	if c.RPC.Open && !loopback {
		fault("rpc.open", "true", "is for loopback only, and rpc.listen = "+quote(c.RPC.Listen)+" is not")
	}
	if c.Mining.Enabled && !network.Test {
		fault("mining.enabled", "true", "is for test networks: nobody finds a block of "+network.Name+" on a processor")
	}
	if c.Sync.MaxMBPerPeer > c.Sync.MaxMB {
		fault("sync.max_mb_per_peer", fmt.Sprint(c.Sync.MaxMBPerPeer), fmt.Sprintf("is more than sync.max_mb = %d for all peers together", c.Sync.MaxMB))
	}
	if c.Sync.MaxRequestsPerPeer > c.Sync.MaxRequests {
		fault("sync.max_requests_per_peer", fmt.Sprint(c.Sync.MaxRequestsPerPeer), fmt.Sprintf("is more than sync.max_requests = %d for all peers together", c.Sync.MaxRequests))
	}
	if c.Storage.FlushMB > c.Storage.CacheMB {
		fault("storage.flush_mb", fmt.Sprint(c.Storage.FlushMB), fmt.Sprintf("is more than storage.cache_mb = %d, which holds the changed outputs too", c.Storage.CacheMB))
	}
	return faults
}

// IsLoopback says whether a host:port can be reached from this machine only. An
// empty host means every interface; of names only localhost counts.
func IsLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// GlobalFlags registers --home, --network and --network-file, which every
// command takes. home receives the value of --home.
func GlobalFlags(fs *pflag.FlagSet, home *string) {
	fs.StringVar(home, "home", "", "folder of the node (default: DUNLIN_HOME, else the XDG data home, dunlin/<chain id>)")
	c := Config{}
	for _, f := range c.fields() {
		if f.key == "network" || f.key == "network_file" {
			addFlag(fs, f)
		}
	}
}

// Flags registers a flag for every other key, and the shorthands --debug and
// --port. Flags of rarely used keys are hidden from --help; `config show` lists
// them.
func Flags(fs *pflag.FlagSet) {
	c := Config{}
	for _, f := range c.fields() {
		if f.key != "network" && f.key != "network_file" {
			addFlag(fs, f)
		}
	}
	fs.Bool("debug", false, "short for --log-level debug")
	fs.Uint16("port", 0, "short for --listen on this port, TCP and QUIC, every interface; not together with --listen")
}

func addFlag(fs *pflag.FlagSet, f field) {
	usage := strings.ReplaceAll(f.doc, "`", "'") // pflag takes a word in back quotes for the type
	if f.unit != "" {
		usage += " [" + f.unit + "]"
	}
	if _, ok := f.ptr.(*[]string); ok {
		usage += " (repeatable)"
	}
	flag := fs.VarPF(&flagValue{field: f}, f.flagName(), "", usage)
	if _, ok := f.ptr.(*bool); ok {
		flag.NoOptDefVal = "true"
	}
	flag.Hidden = !f.common
}

// A flagValue keeps what was given; Load checks it together with all else.
type flagValue struct {
	field field
	texts []string
}

// String is empty: defaults depend on the network, so usage shows none.
func (v *flagValue) String() string { return "" }

// Set never fails.
func (v *flagValue) Set(s string) error {
	v.texts = append(v.texts, s)
	return nil
}

// Type is the word for the value in usage texts.
func (v *flagValue) Type() string {
	switch {
	case v.field.unit == "MiB":
		return "MiB"
	case strings.HasPrefix(v.field.want, "one of ") && v.field.key != "network":
		return strings.ReplaceAll(strings.ReplaceAll(strings.TrimPrefix(v.field.want, "one of "), `"`, ""), ", ", "|")
	}
	switch v.field.ptr.(type) {
	case *bool:
		return "bool" // pflag leaves the type of a boolean out of its usage
	case *int, *int64:
		return "N"
	default:
		return strings.TrimPrefix(v.field.typeName(), "list of ")
	}
}

// FromFlags returns the settings that the flags of fs registered here were given.
func FromFlags(fs *pflag.FlagSet) []Setting {
	var out []Setting
	fs.Visit(func(f *pflag.Flag) {
		from := "flag --" + f.Name
		switch v := f.Value.(type) {
		case *flagValue:
			out = append(out, Setting{Key: v.field.key, Values: v.texts, From: from})
		default:
			switch f.Name {
			case "debug":
				if f.Value.String() == "true" && !fs.Changed("log-level") {
					out = append(out, Setting{Key: "log.level", Values: []string{"debug"}, From: from})
				}
			case "port":
				var port uint16
				// pflag has checked that it is a number of 16 bits.
				if _, err := fmt.Sscan(f.Value.String(), &port); err == nil && !fs.Changed("listen") {
					out = append(out, Setting{Key: "p2p.listen", Values: ListenAddrs(port), From: from})
				}
			}
		}
	})
	return out
}
