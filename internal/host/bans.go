package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Limits of the list of bans.
const (
	MaxBans      = 4096
	MaxShunned   = 1024
	maxBanReason = 200
	maxBanFile   = 8 << 20
	// MaxBanTime is the longest ban; what is meant for ever may be renewed.
	MaxBanTime = 10 * 365 * 24 * time.Hour
)

// ErrNotBanned is returned by Bans.Remove.
var ErrNotBanned = errors.New("not banned")

// A Ban keeps a peer, an address or a network of addresses away, both ways.
type Ban struct {
	Target string    `json:"target"` // a peer id, an IP address or a CIDR, in its usual form
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Auto   bool      `json:"auto,omitempty"` // by the node itself: forgotten when it stops

	id     peer.ID
	prefix netip.Prefix
}

// parseTarget reads a peer id, an IP address or a CIDR.
func (b *Ban) parseTarget(text string) error {
	if id, err := peer.Decode(text); err == nil {
		b.id, b.Target = id, id.String()
		return nil
	}
	if ip, err := netip.ParseAddr(text); err == nil {
		ip = ip.Unmap().WithZone("")
		b.prefix, b.Target = netip.PrefixFrom(ip, ip.BitLen()), ip.String()
		return nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if ip := p.Addr(); ip.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(ip.Unmap(), p.Bits()-96)
		}
		if p.Bits() == 0 {
			return fmt.Errorf("ban %q: that is everybody", text)
		}
		b.prefix, b.Target = p.Masked(), p.Masked().String()
		return nil
	}
	return fmt.Errorf("ban %q: want a peer id (12D3KooW…), an IP address (203.0.113.7) or a network (203.0.113.0/24)", text)
}

// matches reports whether the ban concerns the peer or the address; either may be missing.
func (b *Ban) matches(id peer.ID, ip netip.Addr) bool {
	return b.id != "" && b.id == id || b.prefix.IsValid() && ip.IsValid() && b.prefix.Contains(ip)
}

// Bans is the list of those with whom the operator wants no connection. It is libp2p's gate for connections in
// both directions and survives restarts in a file. All methods are safe for concurrent use.
type Bans struct {
	path string // empty: not kept
	now  func() time.Time

	saving sync.Mutex // held while the file is written

	mu      sync.RWMutex
	list    []Ban
	shunned []Ban // by the node, in order of their ends
}

// LoadBans reads the list at path, which may not exist yet; empty: the list is not kept. A file that cannot be
// understood is an error: an operator's ban is not to be forgotten in silence.
func LoadBans(path string) (*Bans, error) {
	b := &Bans{path: path, now: time.Now}
	if path == "" {
		return b, nil
	}
	f, err := os.Open(path) //nolint:gosec // the operator's home
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bans: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBanFile+1))
	if err != nil {
		return nil, fmt.Errorf("bans: read %s: %w", path, err)
	}
	var saved []Ban
	if err := json.Unmarshal(data, &saved); err != nil || len(data) > maxBanFile || len(saved) > MaxBans {
		return nil, fmt.Errorf("bans: %s is damaged (%w); mend it, or delete it to start without bans", path, cmpErr(err))
	}
	now := b.now()
	for _, s := range saved {
		if err := s.parseTarget(s.Target); err != nil {
			return nil, fmt.Errorf("bans: %s: %w", path, err)
		}
		if s.Until.After(now) {
			b.list = append(b.list, s)
		}
	}
	return b, nil
}

// cmpErr names the fault of a file that parses.
func cmpErr(err error) error {
	if err == nil {
		return fmt.Errorf("over %d bans or %d bytes", MaxBans, maxBanFile)
	}
	return err
}

// Add bans target (a peer id, an IP address or a CIDR) for a time, 1 s to MaxBanTime; a ban of the same target is replaced. It
// says which bytes of the reason, at most 200, are kept. It does not end connections: see Host.Enforce.
// Errors are the operator's, or of writing the file, when the ban holds until the next start only.
func (b *Bans) Add(target string, how time.Duration, reason string) (Ban, error) {
	if how < time.Second || how > MaxBanTime {
		return Ban{}, fmt.Errorf("ban %q: %s is not within 1s and %s", target, how, MaxBanTime)
	}
	now := b.now().UTC().Truncate(time.Second)
	ban := Ban{Reason: bounded(reason), Since: now, Until: now.Add(how)}
	if err := ban.parseTarget(strings.TrimSpace(target)); err != nil {
		return Ban{}, err
	}
	b.mu.Lock()
	b.expireLocked(now)
	i := slices.IndexFunc(b.list, func(x Ban) bool { return x.Target == ban.Target })
	switch {
	case i >= 0:
		b.list[i] = ban
	case len(b.list) >= MaxBans:
		b.mu.Unlock()
		return Ban{}, fmt.Errorf("ban %s: already %d bans; ban a network (203.0.113.0/24) in place of its addresses", ban.Target, MaxBans)
	default:
		b.list = append(b.list, ban)
	}
	b.mu.Unlock()
	return ban, b.save()
}

// Shun keeps a peer away for a time, both ways, because of what it did here: the node's
// own judgement, beside the operator's bans. It is by peer id, never by address, which
// others may share; it is not saved, and beyond MaxShunned the one that ends first is let
// in. A peer that is shunned already is shunned from now on. See Host.Enforce.
func (b *Bans) Shun(id peer.ID, how time.Duration, reason string) Ban {
	now := b.now().UTC().Truncate(time.Second)
	ban := Ban{Target: id.String(), Reason: bounded(reason), Since: now, Until: now.Add(how), Auto: true, id: id}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked(now)
	b.shunned = slices.DeleteFunc(b.shunned, func(x Ban) bool { return x.id == id })
	if len(b.shunned) >= MaxShunned {
		b.shunned = slices.Delete(b.shunned, 0, 1)
	}
	at, _ := slices.BinarySearchFunc(b.shunned, ban, func(x, y Ban) int { return x.Until.Compare(y.Until) })
	b.shunned = slices.Insert(b.shunned, at, ban)
	return ban
}

// bounded makes a reason one printable line.
func bounded(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxBanReason {
		s = strings.ToValidUTF8(s[:maxBanReason], "")
	}
	return s
}

// Remove ends a ban. ErrNotBanned: there is none of exactly this target.
func (b *Bans) Remove(target string) error {
	var want Ban
	if err := want.parseTarget(strings.TrimSpace(target)); err != nil {
		return err
	}
	b.mu.Lock()
	b.expireLocked(b.now())
	before := len(b.list)
	b.list = slices.DeleteFunc(b.list, func(x Ban) bool { return x.Target == want.Target })
	gone := len(b.list) < before
	before = len(b.shunned)
	b.shunned = slices.DeleteFunc(b.shunned, func(x Ban) bool { return x.Target == want.Target })
	gone = gone || len(b.shunned) < before
	b.mu.Unlock()
	if !gone {
		return fmt.Errorf("%s: %w", want.Target, ErrNotBanned)
	}
	return b.save()
}

// List returns the bans in force, the operator's and the node's own, those that end first first.
func (b *Bans) List() []Ban {
	b.mu.Lock()
	b.expireLocked(b.now())
	out := slices.Concat(b.list, b.shunned)
	b.mu.Unlock()
	slices.SortStableFunc(out, func(x, y Ban) int { return x.Until.Compare(y.Until) })
	return out
}

func (b *Bans) expireLocked(now time.Time) {
	over := func(x Ban) bool { return !x.Until.After(now) }
	b.list, b.shunned = slices.DeleteFunc(b.list, over), slices.DeleteFunc(b.shunned, over)
}

// save writes the file: beside it, synced and renamed.
func (b *Bans) save() error {
	if b.path == "" {
		return nil
	}
	b.saving.Lock() // first: of two calls the later state is written last
	defer b.saving.Unlock()
	data, err := json.MarshalIndent(slices.DeleteFunc(b.List(), func(x Ban) bool { return x.Auto }), "", "  ")
	if err != nil {
		return fmt.Errorf("bans: %w", err)
	}
	tmp := b.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("bans: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, b.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("bans: %w", err), os.Remove(tmp))
	}
	return nil
}

// banned reports whether a ban concerns the peer at the address; either may be missing.
func (b *Bans) banned(id peer.ID, addr ma.Multiaddr) bool {
	var ip netip.Addr
	if addr != nil {
		if raw, err := manet.ToIP(addr); err == nil {
			ip, _ = netip.AddrFromSlice(raw)
			ip = ip.Unmap()
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	now := b.now()
	concerns := func(x Ban) bool { return x.Until.After(now) && x.matches(id, ip) }
	return slices.ContainsFunc(b.list, concerns) || id != "" && slices.ContainsFunc(b.shunned, concerns)
}

// The gate of libp2p (connmgr.ConnectionGater). An inbound connection of a banned address is refused before any
// handshake, one of a banned peer as soon as it has proved who it is.

// InterceptPeerDial implements connmgr.ConnectionGater.
func (b *Bans) InterceptPeerDial(id peer.ID) bool { return !b.banned(id, nil) }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (b *Bans) InterceptAddrDial(id peer.ID, addr ma.Multiaddr) bool { return !b.banned(id, addr) }

// InterceptAccept implements connmgr.ConnectionGater.
func (b *Bans) InterceptAccept(c network.ConnMultiaddrs) bool {
	return !b.banned("", c.RemoteMultiaddr())
}

// InterceptSecured implements connmgr.ConnectionGater.
func (b *Bans) InterceptSecured(_ network.Direction, id peer.ID, c network.ConnMultiaddrs) bool {
	return !b.banned(id, c.RemoteMultiaddr())
}

// InterceptUpgraded implements connmgr.ConnectionGater: a ban may have come during the handshake.
func (b *Bans) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return !b.banned(c.RemotePeer(), c.RemoteMultiaddr()), 0
}

// Enforce ends the connections that a ban concerns and returns how many there were.
func (h *Host) Enforce(b *Bans) (ended int) {
	for _, c := range h.Network().Conns() {
		if b.banned(c.RemotePeer(), c.RemoteMultiaddr()) {
			ended++
			_ = c.Close()
		}
	}
	return ended
}
