package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dunlin/config"
	"dunlin/discovery"
	"dunlin/internal/api"
	"dunlin/internal/host"
)

// Verdicts of a Finding.
const (
	FindingOK   = "ok"
	FindingWarn = "warn" // works, but not as well as it could
	FindingFail = "fail"
)

// A Finding is the result of one check of Doctor.
type Finding struct {
	Check   string `json:"check"` // home, disk, clock, files, listen, dns, peer, sources, reach, dial-back, nat
	Target  string `json:"target,omitempty"`
	Verdict string `json:"verdict"` // ok, warn or fail
	Detail  string `json:"detail"`
	Do      string `json:"do,omitempty"` // what to do about it; empty if ok
}

const (
	doctorPeers   = 16 // of each source that are dialled
	doctorTimeout = 20 * time.Second
	slowFsync     = 100 * time.Millisecond
)

// Doctor looks for what would keep a node with these settings from working: home, disk, clock, ports, DNS, and every bootstrap, persistent
// and seed node, which it dials and greets; one that answers is asked to connect here, at the ports of the node, if that does not run: else
// the node is asked what it knows. With onlySources it looks at the nodes only. It changes nothing but
// for a file that it writes and removes in the home, and a port that it has the router map for a moment, and blocks for two minutes at most. A
// node may be running in the home.
func Doctor(ctx context.Context, c *config.Config, log *slog.Logger, version string, onlySources bool) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var out []Finding
	node, _, err := api.Open(c.Home)
	running := err == nil
	if !onlySources {
		out = append(out, checkHome(c, running)...)
		out = append(out, checkClock(), checkFiles())
		out = append(out, checkListen(c, running)...)
	}
	agent := "dunlin-doctor/" + strings.TrimPrefix(version, "v")
	sources, answered, err := checkSources(ctx, c, log, agent)
	out = append(out, sources...)
	switch {
	case err != nil || onlySources:
	case running:
		out = append(out, checkRunningReach(ctx, c, node)...)
	case len(answered) > 0 || len(sources) > 1:
		out = append(out, checkDialBack(ctx, c, log, agent, answered)...)
	}
	return out, err
}

// checkHome looks at the folder and its disk.
func checkHome(c *config.Config, running bool) []Finding {
	home := Finding{Check: "home", Target: c.Home, Verdict: FindingOK, Detail: "can be written"}
	if running {
		home.Detail += "; a node is running in it"
	}
	dir := c.Home
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir { // it will be made
		home.Detail = "will be made"
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	switch {
	case err != nil:
		home.Verdict, home.Detail, home.Do = FindingFail, err.Error(), "give another folder with --home, or mend its permissions"
		return []Finding{home}
	case !info.IsDir():
		home.Verdict, home.Detail, home.Do = FindingFail, dir+" is not a folder", "give another folder with --home"
		return []Finding{home}
	}
	took, err := syncedWrite(dir)
	if err != nil {
		home.Verdict, home.Detail, home.Do = FindingFail, err.Error(), "mend the permissions of the folder, or give another one with --home"
		return []Finding{home}
	}
	if key, err := os.Stat(filepath.Join(c.Home, keyFile)); err == nil && key.Mode().Perm()&0o077 != 0 {
		home.Verdict, home.Detail = FindingWarn, fmt.Sprintf("%s can be read by others (mode %#o)", keyFile, key.Mode().Perm())
		home.Do = "chmod 600 " + filepath.Join(c.Home, keyFile)
	}
	disk := Finding{Check: "disk", Target: dir, Verdict: FindingOK}
	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		disk.Verdict, disk.Detail, disk.Do = FindingWarn, err.Error(), "look at the disk by hand"
		return []Finding{home, disk}
	}
	free := usage.AvailBytes >> 20
	disk.Detail = fmt.Sprintf("%d MiB free, %d are kept; a synced write takes %.1f ms", free, c.Storage.MinFreeMB, float64(took.Microseconds())/1000)
	switch {
	case c.Storage.MinFreeMB > 0 && free < uint64(c.Storage.MinFreeMB): //nolint:gosec // a setting above 0
		disk.Verdict = FindingFail
		disk.Do = "free space, or lower storage.min_free_mb: no block is accepted below it; storage.prune_mb keeps less"
	case took > slowFsync:
		disk.Verdict = FindingWarn
		disk.Do = "a local SSD is faster; a network file system may lose what it said was written"
	}
	return []Finding{home, disk}
}

// syncedWrite times a small write that is on disk.
func syncedWrite(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, err = f.Write(bytes.Repeat([]byte{1}, 64<<10))
	err = errors.Join(err, f.Sync())
	took := time.Since(start)
	return took, errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// checkListen opens every address to listen on, unless the node that would is running.
func checkListen(c *config.Config, running bool) (out []Finding) {
	public := false
	for _, text := range c.P2P.Listen {
		f := Finding{Check: "listen", Target: text, Verdict: FindingOK, Detail: "free"}
		a, err := ma.NewMultiaddr(text)
		if err == nil && !running {
			err = tryListen(a)
		}
		if running {
			f.Detail = "a node is running: not tried"
		}
		switch {
		case err != nil && host.LacksIPv6(a, err):
			f.Detail, err = "left out: this machine has no IPv6", nil
		case err != nil:
			f.Verdict, f.Detail = FindingFail, err.Error()
			f.Do = "stop what uses it (ss -lntup shows it), or choose another address with --listen"
		}
		if err == nil && !manet.IsIPLoopback(a) {
			public = true
		}
		out = append(out, f)
	}
	if !public && len(c.P2P.Listen) > 0 {
		out = append(out, Finding{
			Check: "listen", Verdict: FindingWarn, Detail: "only on loopback: nobody on another machine can connect",
			Do: "--listen /ip4/0.0.0.0/tcp/9333 if others are to join by this node",
		})
	}
	if len(c.P2P.Listen) == 0 {
		out = append(out, Finding{Check: "listen", Verdict: FindingWarn, Detail: "nowhere: the node only dials", Do: "p2p.listen, if others are to join by this node"})
	}
	return out
}

func tryListen(a ma.Multiaddr) error {
	if _, err := a.ValueForProtocol(ma.P_UDP); err == nil {
		addr, err := manet.ToNetAddr(a[:2])
		if err != nil {
			return err
		}
		conn, err := net.ListenPacket("udp", addr.String())
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := manet.Listen(a)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkSources resolves and dials every node from which this one could learn of the network. It returns those that answered, too.
func checkSources(ctx context.Context, c *config.Config, log *slog.Logger, agent string) (out []Finding, answered []peer.AddrInfo, err error) {
	key, _, err := crypto.GenerateKeyPair(crypto.Ed25519, 0)
	if err != nil {
		return nil, nil, err
	}
	tmp, err := os.MkdirTemp("", "dunlin-doctor-")
	if err != nil {
		return nil, nil, fmt.Errorf("a folder for the check: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	gc := *c
	gc.Home, gc.Storage.MinFreeMB = tmp, 0
	g, err := newGreeter(&gc, key, agent, log, nil)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()

	type source struct{ kind, text string }
	var all []source
	for _, s := range c.P2P.Bootstrap {
		all = append(all, source{"bootstrap", s})
	}
	for _, s := range c.P2P.Persistent {
		all = append(all, source{"persistent", s})
	}
	for _, s := range c.P2P.DNSSeeds {
		all = append(all, source{"dns", s})
	}
	results := make([][]Finding, len(all))
	nodes := make([][]peer.AddrInfo, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { results[i], nodes[i] = g.checkSource(ctx, c, s.kind, s.text) })
	}
	wg.Wait()
	for i, r := range results {
		out = append(out, r...)
		answered = append(answered, nodes[i]...)
	}
	reached := len(answered)
	switch {
	case len(all) == 0:
		out = append(out, Finding{
			Check: "sources", Verdict: FindingWarn, Detail: "no bootstrap node, persistent peer or DNS seed is configured",
			Do: "--bootstrap ADDR with the line that another node prints as 'join me', or wait to be dialled",
		})
	case reached == 0:
		out = append(out, Finding{
			Check: "sources", Verdict: FindingFail, Detail: "none of the nodes that are configured answers as one of " + c.Chain.ChainID(),
			Do: "see each one above; a saved address book may still lead into the network",
		})
	default:
		out = append(out, Finding{Check: "sources", Verdict: FindingOK, Detail: fmt.Sprintf("%d nodes of %s answer", reached, c.Chain.ChainID())})
	}
	return out, answered, nil
}

// checkSource resolves one source and greets its nodes. It returns those that answered, too.
func (g *greeter) checkSource(ctx context.Context, c *config.Config, kind, text string) (out []Finding, answered []peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	var nodes []peer.AddrInfo
	if info, err := peer.AddrInfoFromString(text); err == nil && len(discovery.Dialable(info.Addrs, true)) > 0 {
		nodes = []peer.AddrInfo{*info}
	} else {
		f := Finding{Check: "dns", Target: text, Verdict: FindingOK}
		if nodes, err = g.resolver(c).Resolve(ctx, text); err != nil {
			f.Verdict, f.Detail = FindingFail, err.Error()
			f.Do = "dig TXT _dnsaddr.<host>, or A <host>, shows what the name gives; p2p.dns_servers asks others than the system's"
			return []Finding{f}, nil
		}
		f.Detail = fmt.Sprintf("%d nodes", len(nodes))
		out = append(out, f)
	}
	nodes = nodes[:min(len(nodes), doctorPeers)]
	peers := make([]Finding, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { peers[i] = g.checkNode(ctx, c, kind, n) })
	}
	wg.Wait()
	for i, f := range peers {
		if f.Verdict == FindingOK {
			answered = append(answered, nodes[i])
		}
	}
	// One dead node behind a seed is nobody's trouble as long as another answers.
	if kind == "dns" && slices.ContainsFunc(peers, func(f Finding) bool { return f.Verdict == FindingOK }) {
		for i := range peers {
			if peers[i].Verdict == FindingFail {
				peers[i].Verdict = FindingWarn
			}
		}
	}
	return append(out, peers...), answered
}

// checkNode greets one node.
func (g *greeter) checkNode(ctx context.Context, c *config.Config, kind string, n peer.AddrInfo) Finding {
	f := Finding{Check: "peer", Target: kind + " " + n.ID.String(), Verdict: FindingOK}
	if len(n.Addrs) > 0 {
		f.Target = kind + " " + n.Addrs[0].String() + "/p2p/" + n.ID.String()
	}
	start := time.Now()
	said, err := g.greet(ctx, n)
	took := time.Since(start)
	if err == nil {
		f.Detail = fmt.Sprintf("%s, height %d, knows %d others, greeted in %d ms", said.hello.Agent, said.hello.Tip.Height, len(said.known), took.Milliseconds())
		return f
	}
	f.Verdict = FindingFail
	if said.addr != nil { // it was reached
		f.Detail = err.Error()
		f.Do = "it is no node of " + c.Chain.ChainID() + ", or busy: compare --network (or the network file) on both"
		return f
	}
	reason, detail := discovery.DialError(err, n.Addrs)
	f.Detail = detail
	f.Do = map[string]string{
		"refused":       "nothing listens there: is the node running, and on that port?",
		"timeout":       "no answer: a firewall, or the machine is down",
		"unreachable":   "no route: is this machine on the network?",
		"wrong_peer_id": "another node answers there: correct the part after /p2p/ (dunlin id on that machine prints it)",
		"no_address":    "give an address that this machine can dial, with /tcp/ or /udp/…/quic-v1",
	}[reason]
	if f.Do == "" {
		f.Do = "see the log of that node"
	}
	return f
}
