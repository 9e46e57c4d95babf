package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Verdicts of a Reachability.
const (
	ReachLocal       = "local"       // a private network: nobody is asked
	ReachAnnounced   = "announced"   // the operator said where: not checked
	ReachChecking    = "checking"    // not known yet
	ReachConfirmed   = "reachable"   // others have connected to a public address of this host
	ReachUnreachable = "unreachable" // they could not, or there is no public address
)

// States of the port mapping.
const (
	NATOff     = "off"
	NATAsking  = "asking the router"
	NATNone    = "no router answered UPnP or NAT-PMP"
	NATRefused = "the router refused"
	NATMapped  = "mapped"
)

const (
	// reachEvery is how often is looked for what has no event: port mappings and relayed connections.
	reachEvery = 5 * time.Second
	// reachLine is the least time between two lines about reachability: peers have a say in it.
	reachLine = 30 * time.Second
	// natPatience is how long a router may take: the library looks for one for 10 s, and mapping takes a few more.
	natPatience = 15 * time.Second

	maxReports  = 64 // of how others see us; the oldest makes room
	maxObserved = 4  // of these addresses that are shown

	// A hole takes at most three attempts of some 10 s each; what is still relayed then is of no use. Once there is a direct
	// connection, the words that made it have the time to end.
	maxRelayed   = 75 * time.Second
	relayedGrace = 10 * time.Second

	relaySourceEvery = time.Second
	wantedRelays     = 2
)

// Reachability is what is known of where the host can be reached. Its slices are the reader's own.
type Reachability struct {
	Verdict     string         // one of the constants above
	Listen      []ma.Multiaddr // sockets
	Announced   []ma.Multiaddr // told to others
	Observed    []Observed     // how others see us
	Confirmed   []ma.Multiaddr // public ones to which others have connected (AutoNAT v2)
	Unreachable []ma.Multiaddr // public ones to which they could not
	Unchecked   []ma.Multiaddr // public ones of which nothing is known yet
	Mapped      []ma.Multiaddr // of the router's ports
	Relays      []ma.Multiaddr // ways through relays that are told to others
	NAT         string         // state of the port mapping
	Inbound     int            // connections that others made, relayed ones left out
	Relaying    bool           // this host is a relay

	guesses []ma.Multiaddr // see portMapper
}

// Observed is an address that others see when the host dials them.
type Observed struct {
	Addr ma.Multiaddr
	By   int // IP groups of those who said so
}

// report is what one group of peers said of our address.
type report struct {
	by   string
	addr ma.Multiaddr
}

// reach is the part of a Host that knows where it can be reached.
type reach struct {
	now     atomic.Pointer[Reachability]
	sources sync.WaitGroup // goroutines that look for relays

	mu      sync.Mutex // guards reports, held for work in memory only
	reports []report

	// Of Run only.
	told    string
	toldAt  time.Time
	natTold string
	emitted network.Reachability
}

// Reachability is the present state, as Run sees it; before Run it is what is known without looking.
func (h *Host) Reachability() Reachability {
	r := h.reach.now.Load()
	if r == nil {
		return h.measure(time.Now())
	}
	out := *r
	for _, list := range []*[]ma.Multiaddr{&out.Listen, &out.Announced, &out.Confirmed, &out.Unreachable, &out.Unchecked, &out.Mapped, &out.Relays} {
		*list = slices.Clone(*list)
	}
	out.Observed = slices.Clone(out.Observed)
	return out
}

// learns says whether the host finds out where it can be reached.
func (o *Options) learns() bool { return !o.Private || o.NAT || o.HolePunch }

// newMapper makes the port mapper of a host that listens.
func (h *Host) newMapper(n network.Network) basichost.NATManager {
	h.mapper = &portMapper{guess: h.guess, since: time.Now()}
	if h.o.NAT {
		h.mapper.router = basichost.NewNATManager(n)
	}
	return h.mapper
}

// relaySource gives at most most connected peers of Options.Relays that are relays. It waits until there is one.
func (h *Host) relaySource(ctx context.Context, most int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, most)
	h.reach.sources.Go(func() {
		defer close(out)
		tick := time.NewTicker(relaySourceEvery)
		defer tick.Stop()
		for {
			given := 0 // not len(out): it is being emptied
			for _, p := range h.o.Relays() {
				if given < most && h.isRelay(p) {
					out <- peer.AddrInfo{ID: p, Addrs: h.Peerstore().Addrs(p)}
					given++
				}
			}
			if given > 0 {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return out
}

// isRelay says whether a peer is connected, not through a relay itself, and offers to relay.
func (h *Host) isRelay(p peer.ID) bool {
	if h.Network().Connectedness(p) != network.Connected {
		return false
	}
	offers, err := h.Peerstore().SupportsProtocols(p, proto.ProtoIDv2Hop)
	return err == nil && len(offers) > 0
}

// portMapper tells libp2p at which public addresses the host may be reachable: those of the router's ports, and where there is none a guess,
// for ports that somebody has forwarded by hand. AutoNAT tries both. A guess is announced only once it is confirmed.
type portMapper struct {
	router basichost.NATManager // nil: no router is asked
	guess  func(ma.Multiaddr) ma.Multiaddr
	since  time.Time
}

// GetMapping implements basichost.NATManager.
func (m *portMapper) GetMapping(a ma.Multiaddr) ma.Multiaddr {
	if out := m.mapped(a); out != nil {
		return out
	}
	return m.guess(a)
}

// mapped is what the router says; nil if it says nothing.
func (m *portMapper) mapped(a ma.Multiaddr) ma.Multiaddr {
	if m.router == nil {
		return nil
	}
	return m.router.GetMapping(a)
}

// HasDiscoveredNAT implements basichost.NATManager.
func (m *portMapper) HasDiscoveredNAT() bool { return m.router != nil && m.router.HasDiscoveredNAT() }

// Close implements basichost.NATManager.
func (m *portMapper) Close() error {
	if m.router == nil {
		return nil
	}
	return m.router.Close()
}

// guess is the address where most see us with the port of a listen address; nil if that cannot be right.
func (h *Host) guess(listen ma.Multiaddr) ma.Multiaddr {
	at, ok := addrIP(listen)
	if !ok || len(listen) < 2 || !at.IsUnspecified() && !at.IsPrivate() {
		return nil
	}
	h.reach.mu.Lock()
	reports := slices.Clone(h.reach.reports)
	h.reach.mu.Unlock()
	votes := map[netip.Addr]int{}
	var best netip.Addr
	for _, r := range reports {
		ip, ok := addrIP(r.addr)
		if !ok || ip.Is4() != at.Is4() || !manet.IsPublicAddr(r.addr) {
			continue
		}
		if votes[ip]++; votes[ip] > votes[best] {
			best = ip
		}
	}
	if !best.IsValid() {
		return nil
	}
	host, err := manet.FromIP(best.AsSlice())
	if err != nil {
		return nil
	}
	out := host.Encapsulate(listen[1:])
	// An address of the machine's own is no guess.
	own, err := h.Network().InterfaceListenAddresses()
	if err != nil || slices.ContainsFunc(own, out.Equal) {
		return nil
	}
	return out
}

// proven leaves out the guesses that nobody has confirmed.
func (h *Host) proven(found []ma.Multiaddr) []ma.Multiaddr {
	now := h.reach.now.Load()
	if now == nil || len(now.guesses) == 0 {
		return found
	}
	return slices.DeleteFunc(slices.Clone(found), func(a ma.Multiaddr) bool {
		return slices.ContainsFunc(now.guesses, a.Equal) && !slices.ContainsFunc(now.Confirmed, a.Equal)
	})
}

// Run finds out where the host can be reached, tells the log when that changes, and acts on it: it
// asks for places with relays while nobody can connect, and ends relayed connections that have served. It
// blocks until ctx ends and returns its error.
func (h *Host) Run(ctx context.Context) (err error) {
	if !h.o.learns() || len(h.o.Listen) == 0 {
		r := h.measure(time.Now())
		h.reach.now.Store(&r)
		tick := time.NewTicker(reachEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case now := <-tick.C:
				h.endRelayed(now) // one that does not listen may have dialled others through relays
				r := h.measure(now)
				h.reach.now.Store(&r)
			}
		}
	}
	events, err := h.EventBus().Subscribe([]any{
		new(event.EvtHostReachableAddrsChanged), new(event.EvtLocalAddressesUpdated), new(event.EvtPeerIdentificationCompleted),
	}, eventbus.BufSize(256), eventbus.Name("dunlin reachability"))
	if err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	// Relays, and the mode of the DHT, follow this event, which only AutoNAT of version 1 would send.
	changed, err := h.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	if err != nil {
		return fmt.Errorf("emit reachability: %w", err)
	}
	defer func() { err = errors.Join(err, changed.Close()) }()
	tick := time.NewTicker(reachEvery)
	defer tick.Stop()
	for {
		if err := h.look(changed); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			h.endRelayed(time.Now())
		case e, ok := <-events.Out():
			if !ok {
				return errors.New("reachability: the host is closed")
			}
			if id, ok := e.(event.EvtPeerIdentificationCompleted); ok {
				h.note(id)
			}
		}
	}
}

// look takes a new measure, tells of it and sends it to those parts of libp2p that act on it.
func (h *Host) look(changed event.Emitter) error {
	now := time.Now()
	r := h.measure(now)
	h.reach.now.Store(&r)
	h.tell(now, r)
	verdict := network.ReachabilityUnknown
	switch r.Verdict {
	case ReachConfirmed, ReachAnnounced:
		verdict = network.ReachabilityPublic
	case ReachUnreachable:
		verdict = network.ReachabilityPrivate
	}
	if verdict == network.ReachabilityUnknown || verdict == h.reach.emitted {
		return nil // what held goes on until something else is known
	}
	h.reach.emitted = verdict
	return changed.Emit(event.EvtLocalReachabilityChanged{Reachability: verdict})
}

// measure looks at everything.
func (h *Host) measure(now time.Time) Reachability {
	r := Reachability{Verdict: ReachLocal, Listen: h.Network().ListenAddresses(), Announced: h.Addrs(), NAT: NATOff, Relaying: h.relay != nil}
	r.Listen = slices.DeleteFunc(r.Listen, isRelayed)
	for _, a := range r.Announced {
		if isRelayed(a) {
			r.Relays = append(r.Relays, a)
		}
	}
	for _, c := range h.Network().Conns() {
		if c.Stat().Direction == network.DirInbound && !OverRelay(c) {
			r.Inbound++
		}
	}
	var public []ma.Multiaddr
	if b, ok := h.Host.(interface {
		AllAddrs() []ma.Multiaddr
		ConfirmedAddrs() (reachable, unreachable, unknown []ma.Multiaddr)
	}); ok {
		r.Confirmed, r.Unreachable, r.Unchecked = b.ConfirmedAddrs()
		public = slices.DeleteFunc(b.AllAddrs(), func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
	}
	h.measureNAT(now, &r)
	public = slices.DeleteFunc(public, func(a ma.Multiaddr) bool { return slices.ContainsFunc(r.guesses, a.Equal) })
	r.Unchecked = slices.DeleteFunc(r.Unchecked, func(a ma.Multiaddr) bool { return slices.ContainsFunc(r.guesses, a.Equal) })
	h.reach.mu.Lock()
	r.Observed = observed(h.reach.reports)
	h.reach.mu.Unlock()
	if !h.o.learns() || len(h.o.Listen) == 0 {
		return r
	}
	switch {
	case len(r.Confirmed) > 0:
		r.Verdict = ReachConfirmed
	case len(h.o.Announce) > 0:
		r.Verdict = ReachAnnounced
	case r.NAT == NATAsking:
		r.Verdict = ReachChecking
	case len(public) == 0, len(r.Unreachable) > 0 && len(r.Unchecked) == 0:
		r.Verdict = ReachUnreachable
	default:
		r.Verdict = ReachChecking
	}
	return r
}

// measureNAT looks at the port mappings.
func (h *Host) measureNAT(now time.Time, r *Reachability) {
	if h.mapper == nil {
		return
	}
	for _, a := range r.Listen {
		m := h.mapper.mapped(a)
		if g := h.mapper.guess(a); m == nil && g != nil {
			r.guesses = append(r.guesses, g)
		}
		if m != nil && !slices.ContainsFunc(r.Mapped, m.Equal) {
			r.Mapped = append(r.Mapped, m)
		}
	}
	if h.mapper.router == nil {
		return
	}
	switch early := now.Sub(h.mapper.since) < natPatience; {
	case len(r.Mapped) > 0:
		r.NAT = NATMapped
	case early:
		r.NAT = NATAsking
	case h.mapper.HasDiscoveredNAT():
		r.NAT = NATRefused
	default:
		r.NAT = NATNone
	}
}

// note keeps how a peer sees us: one word for each IP group of peers, of the last few.
func (h *Host) note(e event.EvtPeerIdentificationCompleted) {
	if e.ObservedAddr == nil || e.Conn == nil || OverRelay(e.Conn) || len(e.ObservedAddr.Bytes()) > 128 || isRelayed(e.ObservedAddr) {
		return
	}
	ip, ok := addrIP(e.Conn.RemoteMultiaddr())
	if _, ours := addrIP(e.ObservedAddr); !ok || !ours {
		return
	}
	bits := 32
	if ip.Is4() {
		bits = 16
	}
	group, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return
	}
	// A transport each: TCP and QUIC are mapped apart.
	by := group.String() + " " + fmt.Sprint(without(e.ObservedAddr, ma.P_TCP))
	h.reach.mu.Lock()
	defer h.reach.mu.Unlock()
	h.reach.reports = slices.DeleteFunc(h.reach.reports, func(r report) bool { return r.by == by })
	if len(h.reach.reports) >= maxReports {
		h.reach.reports = slices.Delete(h.reach.reports, 0, 1)
	}
	h.reach.reports = append(h.reach.reports, report{by, e.ObservedAddr})
}

// observed sums up the reports, what most say first.
func observed(reports []report) (out []Observed) {
	for _, r := range reports {
		if i := slices.IndexFunc(out, func(o Observed) bool { return o.Addr.Equal(r.addr) }); i >= 0 {
			out[i].By++
		} else {
			out = append(out, Observed{r.addr, 1})
		}
	}
	slices.SortStableFunc(out, func(a, b Observed) int { return cmp.Compare(b.By, a.By) })
	return out[:min(len(out), maxObserved)]
}

// endRelayed closes the relayed connections that have served or never will.
func (h *Host) endRelayed(now time.Time) {
	for _, c := range h.Network().Conns() {
		if !OverRelay(c) {
			continue
		}
		direct := slices.ContainsFunc(h.Network().ConnsToPeer(c.RemotePeer()), func(d network.Conn) bool {
			return !OverRelay(d) && now.Sub(d.Stat().Opened) > relayedGrace
		})
		if direct || now.Sub(c.Stat().Opened) > maxRelayed {
			_ = c.Close()
		}
	}
}

// tell writes a line when something has changed that an operator would want to know.
func (h *Host) tell(now time.Time, r Reachability) {
	if r.NAT != h.reach.natTold && r.NAT != NATAsking {
		h.reach.natTold = r.NAT
		switch r.NAT {
		case NATMapped:
			h.o.Logger.Info("the router forwards a port to this node", "external", r.Mapped, "listen", r.Listen)
		case NATRefused, NATNone:
			h.o.Logger.Info("the router forwards no port to this node", "reason", r.NAT)
		}
	}
	if r.Verdict == ReachChecking || r.Verdict == ReachLocal {
		return
	}
	key := fmt.Sprint(r.Verdict, r.Confirmed, r.Relays)
	if key == h.reach.told || !h.reach.toldAt.IsZero() && now.Sub(h.reach.toldAt) < reachLine {
		return
	}
	h.reach.told, h.reach.toldAt = key, now
	switch r.Verdict {
	case ReachConfirmed:
		h.o.Logger.Info("others can connect to this node", "addrs", r.Confirmed)
	case ReachAnnounced:
		h.o.Logger.Info("announcing the addresses that are set, nobody has checked them", "addrs", r.Announced)
	case ReachUnreachable:
		attrs := []any{"reason", r.Reason(), "do", r.Advice()}
		if len(r.Relays) > 0 {
			attrs = append(attrs, "reached_through", r.Relays)
		}
		h.o.Logger.Warn("others cannot connect to this node", attrs...)
	}
}

// Reason says in a few words why the host cannot be reached; empty if it can, or if nobody knows.
func (r Reachability) Reason() string {
	switch {
	case r.Verdict != ReachUnreachable:
		return ""
	case len(r.Unreachable) > 0:
		return fmt.Sprintf("nobody gets through to %s", join(r.Unreachable))
	case len(r.Observed) > 0:
		return fmt.Sprintf("this machine has no public address, others see it as %s", hostOf(r.Observed[0].Addr))
	}
	return "this machine has no public address"
}

// Advice says what an operator can do so that others can connect; empty if they can, or if nobody knows.
func (r Reachability) Advice() string {
	if r.Verdict != ReachUnreachable {
		return ""
	}
	where := "this machine"
	if i := slices.IndexFunc(r.Announced, func(a ma.Multiaddr) bool { ip, ok := addrIP(a); return ok && ip.Is4() && ip.IsPrivate() }); i >= 0 {
		where = hostOf(r.Announced[i])
	}
	out := fmt.Sprintf("forward %s on the router to %s", Ports(r.Listen), where)
	if len(r.Unreachable) > 0 && r.NAT != NATNone && r.NAT != NATOff {
		out = fmt.Sprintf("let %s through the firewall of this machine and of the router", Ports(r.Listen))
	}
	if r.NAT == NATOff {
		out += ", or set p2p.nat = true"
	}
	return out
}

// Ports names the ports of listen addresses for people: "TCP 9333 and UDP 9333".
func Ports(listen []ma.Multiaddr) string {
	var out []string
	for _, p := range []struct {
		code int
		name string
	}{{ma.P_TCP, "TCP "}, {ma.P_UDP, "UDP "}} {
		for _, a := range listen {
			if port, err := a.ValueForProtocol(p.code); err == nil && !slices.Contains(out, p.name+port) {
				out = append(out, p.name+port)
			}
		}
	}
	if len(out) == 0 {
		return "a port"
	}
	return strings.Join(out, " and ")
}

func hostOf(a ma.Multiaddr) string {
	if ip, ok := addrIP(a); ok {
		return ip.String()
	}
	return a.String()
}

func join(addrs []ma.Multiaddr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// ParsePrefix reads an address or a network in CIDR notation.
func ParsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no network in CIDR notation", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
