package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ma "github.com/multiformats/go-multiaddr"
)

// Limits of what callers register.
const (
	maxRegistered   = 1000 // addresses kept
	maxRegisterArgs = 100  // in one message
	maxAddrBytes    = 512
	// maxRegistryBytes holds maxRegistered addresses with their escapes.
	maxRegistryBytes = maxRegistered * (maxAddrBytes*2 + 16)
)

const registryFile = "registered.json"

// A registry keeps the addresses that WebSocket clients registered, over
// restarts, in the order of their coming.
type registry struct {
	path string

	mu    sync.Mutex // guards addrs and the file; held while it is written
	addrs []string
}

func (g *registry) load() error {
	f, err := os.Open(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("registered peers: %w", err)
	}
	defer f.Close()
	var addrs []string
	if err := json.NewDecoder(io.LimitReader(f, maxRegistryBytes)).Decode(&addrs); err != nil {
		return fmt.Errorf("registered peers: %s is damaged (%w); remove it to start with none", g.path, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if len(g.addrs) < maxRegistered && checkRegistered(a) == nil && !slices.Contains(g.addrs, a) {
			g.addrs = append(g.addrs, a)
		}
	}
	return nil
}

func (g *registry) list() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.addrs)
}

// add keeps those of addrs that are new. full says that some found no room.
func (g *registry) add(addrs []string) (full bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := slices.Clone(g.addrs)
	for _, a := range addrs {
		switch {
		case slices.Contains(next, a):
		case len(next) == maxRegistered:
			full = true
		default:
			next = append(next, a)
		}
	}
	if len(next) == len(g.addrs) {
		return full, nil
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return full, fmt.Errorf("registered peers: %w", err)
	}
	if err := writeFile(filepath.Dir(g.path), filepath.Base(g.path), raw); err != nil {
		return full, err
	}
	g.addrs = next
	return full, nil
}

// isURL tells WebSocket URLs from multiaddrs.
func isURL(addr string) bool { return !strings.HasPrefix(addr, "/") }

// checkRegistered says whether addr is a WebSocket URL or the multiaddr of a node.
func checkRegistered(addr string) error {
	if !isURL(addr) {
		return CheckPeerAddr(addr)
	}
	if len(addr) > maxAddrBytes {
		return fmt.Errorf("address of %d bytes, limit %d", len(addr), maxAddrBytes)
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || (u.Scheme != "ws" && u.Scheme != "wss") || u.User != nil {
		return fmt.Errorf("%q is neither a multiaddr nor a ws:// or wss:// URL", clip(addr))
	}
	return nil
}

// CheckPeerAddr says what is wrong with an address that is to be dialled: it
// must be a multiaddr that names a node and how to reach it.
func CheckPeerAddr(addr string) error {
	if len(addr) > maxAddrBytes {
		return fmt.Errorf("address of %d bytes, limit %d", len(addr), maxAddrBytes)
	}
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return fmt.Errorf("%q is no multiaddr such as /ip4/203.0.113.7/tcp/9333/p2p/12D3KooW…", clip(addr))
	}
	if _, last := ma.SplitLast(a); last == nil || last.Protocol().Code != ma.P_P2P {
		return fmt.Errorf("%q lacks the node's id at its end: /p2p/12D3KooW…", clip(addr))
	}
	if first, _ := ma.SplitFirst(a); first.Protocol().Code == ma.P_P2P {
		return fmt.Errorf("%q says who but not where", clip(addr))
	}
	return nil
}

// endpoint returns the ip:port of a multiaddr, "" if it has none.
func endpoint(addr string) string {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return ""
	}
	for _, ip := range []int{ma.P_IP4, ma.P_IP6} {
		host, err := a.ValueForProtocol(ip)
		if err != nil {
			continue
		}
		for _, transport := range []int{ma.P_TCP, ma.P_UDP} {
			if port, err := a.ValueForProtocol(transport); err == nil {
				return net.JoinHostPort(host, port)
			}
		}
	}
	return ""
}
