//go:build linux

package netlab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout bounds one configuration command; they take milliseconds.
const commandTimeout = 2 * time.Minute

// A Lab is a network that nothing connects with the machine's own: one switch, the
// "Internet", on which hosts and routers have their addresses. Its methods and those of its
// hosts may be called by several goroutines, those that change the network by one at a time.
type Lab struct {
	t    testing.TB
	core *lan
}

// New makes an empty network for a test; it is gone when the test has ended.
func New(t testing.TB) *Lab {
	t.Helper()
	if why := missing(); why != "" {
		if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
			t.Fatalf("network namespaces: %s", why)
		}
		t.Skipf("network namespaces: %s", why)
	}
	return &Lab{t: t, core: newLAN(t, newSpace(t))}
}

// missing says what keeps this process from making networks; "" if nothing does.
func missing() string {
	if os.Geteuid() != 0 {
		return "they need root"
	}
	for _, tool := range []string{"ip", "tc", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is missing (Debian: apt-get install iproute2 iptables)"
		}
	}
	s, err := unshare()
	if err != nil {
		return err.Error()
	}
	_ = s.Close() // it has served
	return ""
}

// Host makes a host on the lab's switch, with one or several addresses; the first is the one that it
// sends from. Which addresses count as public is for the code under test to say:
// 20.0.0.0/8 and 2a01::/16 are, the blocks for documentation often are not.
func (l *Lab) Host(addrs ...string) *Host {
	l.t.Helper()
	return l.core.host(l.t, addrs)
}

// Router makes a router with the public address wan on the lab's switch and, behind it, a switch of
// its own on which it has the address and prefix of lan, such as 10.0.0.1/24. Its hosts reach
// the outside under its address (the port is kept if it is free); from outside only answers come in, and what
// [Router.Forward] lets in.
func (l *Lab) Router(wan, lan string) *Router {
	l.t.Helper()
	prefix, err := netip.ParsePrefix(lan)
	if err != nil {
		l.t.Fatalf("router: lan %q: %v", lan, err)
	}
	r := &Router{Outside: l.Host(wan), gateway: prefix.Addr()}
	r.inside = newLAN(l.t, r.Outside.space)
	r.Outside.must("ip", "addr", "add", lan, "dev", bridge)
	r.Outside.sysctl("net/ipv4/ip_forward", "1")
	// Without it the router would answer outside for its address inside.
	r.Outside.sysctl("net/ipv4/conf/all/arp_ignore", "1")
	r.Outside.must("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-o", uplink, "-j", "MASQUERADE")
	r.Outside.must("iptables", "-w", "-A", "FORWARD", "-i", uplink, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
	r.Outside.must("iptables", "-w", "-A", "FORWARD", "-i", uplink, "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
	r.Outside.must("iptables", "-w", "-A", "FORWARD", "-i", uplink, "-j", "DROP")
	return r
}

// A Node is a [Host] or a [Router].
type Node interface{ port() *Host }

// Partition lets the nodes of the lab's switch talk only within their group. Connections stay open on
// both sides, as they do when a line is cut far away: packets are lost. Nodes that are in
// no group are a group together.
func (l *Lab) Partition(groups ...[]Node) {
	l.t.Helper()
	for i, nodes := range groups {
		name := fmt.Sprintf("part%d", i)
		l.core.bridge(l.t, name)
		for _, n := range nodes {
			l.core.move(l.t, n.port(), name)
		}
	}
}

// Heal ends a partition.
func (l *Lab) Heal() {
	l.t.Helper()
	for _, h := range l.core.hosts {
		l.core.move(l.t, h, bridge)
	}
}

// A Router translates the addresses of those behind it.
type Router struct {
	Outside *Host // the router as the lab's switch sees it: its cable, its bandwidth
	inside  *lan
	gateway netip.Addr
}

func (r *Router) port() *Host { return r.Outside }

// Host makes a host behind the router. Its address should be in the router's prefix.
func (r *Router) Host(addrs ...string) *Host {
	r.Outside.t.Helper()
	h := r.inside.host(r.Outside.t, addrs)
	h.must("ip", "route", "replace", "default", "via", r.gateway.String(), "dev", uplink, "onlink")
	return h
}

// Symmetric makes the router choose another port of its own for each destination, at
// random: addresses that one peer sees are of no use to another. It is for connections that
// begin after it.
func (r *Router) Symmetric() {
	r.Outside.t.Helper()
	r.Outside.must("iptables", "-w", "-t", "nat", "-F", "POSTROUTING")
	r.Outside.must("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-o", uplink, "-j", "MASQUERADE", "--random-fully")
}

// Forward gives a port of the router, for TCP and UDP, to a host behind it.
func (r *Router) Forward(port uint16, to *Host) {
	r.Outside.t.Helper()
	for _, proto := range []string{"tcp", "udp"} {
		r.Outside.must("iptables", "-w", "-t", "nat", "-A", "PREROUTING", "-i", uplink, "-p", proto, "--dport", fmt.Sprint(port),
			"-j", "DNAT", "--to-destination", fmt.Sprintf("%s:%d", to.Addr(), port))
	}
}

// The names of interfaces, each in its own namespace.
const (
	uplink = "eth0" // a host's
	bridge = "br0"  // a switch's
)

// A Host is a machine of its own as far as the network goes: interfaces, addresses, routes,
// sockets, port numbers and packet filter. Files and processes are the machine's.
type Host struct {
	t     testing.TB
	space *os.File
	lan   *lan
	plug  string // its port on the switch
	addrs []netip.Addr
}

func (h *Host) port() *Host { return h }

// Addr is the host's first address.
func (h *Host) Addr() netip.Addr { return h.addrs[0] }

// Unplug pulls the host's cable: the link is down on both sides.
func (h *Host) Unplug() {
	h.t.Helper()
	h.lan.ip(h.t, "link set "+h.plug+" down")
}

// Plug puts the cable back.
func (h *Host) Plug() {
	h.t.Helper()
	h.lan.ip(h.t, "link set "+h.plug+" up")
}

// Bandwidth limits what the host sends and what it is sent, each to so many Mbit/s, with a queue of 100 ms
// as home routers have. 0 lifts the limit.
func (h *Host) Bandwidth(mbit int) {
	h.t.Helper()
	for _, end := range []struct {
		space *os.File
		dev   string
	}{{h.space, uplink}, {h.lan.space, h.plug}} {
		if mbit == 0 {
			_, _ = run(end.space, "", "tc", "qdisc", "del", "dev", end.dev, "root") // none is no fault
			continue
		}
		// A burst of 10 ms, or 32 KB: what a segmentation offload hands over at once must fit.
		must(h.t, end.space, "", "tc", "qdisc", "replace", "dev", end.dev, "root", "tbf", "rate", fmt.Sprintf("%dmbit", mbit),
			"burst", fmt.Sprint(max(mbit*1250, 64<<10)), "latency", "100ms")
	}
}

// Start starts a command on the host. The rest (waiting, output) is as with [exec.Cmd].
func (h *Host) Start(c *exec.Cmd) error { return within(h.space, c.Start) }

// Do calls f with its thread in the host's network: sockets that f itself opens, not goroutines that it
// starts, are the host's, and stay so after f has returned.
func (h *Host) Do(f func() error) error { return within(h.space, f) }

// DialContext connects from the host. The address is an IP with a port.
func (h *Host) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial from a host: %w", err) // a name would be looked up by goroutines outside
	}
	err = within(h.space, func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Run runs a command on the host to its end and returns what it wrote to both outputs; the error has it, too. It
// is for short commands: within 2 min.
func (h *Host) Run(name string, args ...string) (string, error) {
	return run(h.space, "", name, args...)
}

func (h *Host) must(name string, args ...string) {
	h.t.Helper()
	must(h.t, h.space, "", name, args...)
}

// sysctl sets a value of the host's own.
func (h *Host) sysctl(name, value string) {
	h.t.Helper()
	if err := h.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644) }); err != nil {
		h.t.Fatal(err)
	}
}

// A lan is a switch.
type lan struct {
	space *os.File // where the switch is
	mu    sync.Mutex
	hosts []*Host // guarded by mu
}

func newLAN(t testing.TB, space *os.File) *lan {
	t.Helper()
	s := &lan{space: space}
	s.bridge(t, bridge)
	return s
}

// bridge makes a bridge if there is none of that name.
func (s *lan) bridge(t testing.TB, name string) {
	t.Helper()
	if _, err := run(s.space, "", "ip", "link", "show", name); err == nil {
		return
	}
	// No snooping: without a querier it loses what finds IPv6 neighbours.
	s.ip(t, "link add "+name+" type bridge stp_state 0 mcast_snooping 0", "link set "+name+" addrgenmode none up")
}

// move plugs a host into another bridge of the same switch. The host does not notice.
func (s *lan) move(t testing.TB, h *Host, bridge string) {
	t.Helper()
	if h.lan != s {
		t.Fatalf("host %s is on another switch", h.Addr())
	}
	s.ip(t, "link set "+h.plug+" master "+bridge)
}

// host makes a host and plugs it in.
func (s *lan) host(t testing.TB, addrs []string) *Host {
	t.Helper()
	h := &Host{t: t, space: newSpace(t), lan: s}
	for _, text := range addrs {
		a, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatalf("host: %v", err)
		}
		h.addrs = append(h.addrs, a)
	}
	if len(h.addrs) == 0 {
		t.Fatal("host: no address")
	}
	s.mu.Lock()
	h.plug = fmt.Sprintf("port%d", len(s.hosts))
	s.hosts = append(s.hosts, h)
	s.mu.Unlock()
	s.ip(t,
		fmt.Sprintf("link add %s type veth peer name %s netns %s", h.plug, uplink, path(h.space)),
		"link set "+h.plug+" master "+bridge+" addrgenmode none up",
	)
	lines := []string{"link set lo up", "link set " + uplink + " addrgenmode none up"}
	for _, a := range h.addrs {
		line := fmt.Sprintf("addr add %s/%d dev %s", a, a.BitLen(), uplink)
		if a.Is6() {
			line += " nodad" // usable at once
		}
		lines = append(lines, line)
	}
	has := func(is func(netip.Addr) bool) bool { return slices.ContainsFunc(h.addrs, is) }
	if has(netip.Addr.Is4) {
		first := h.addrs[slices.IndexFunc(h.addrs, netip.Addr.Is4)]
		lines = append(lines, fmt.Sprintf("route add default dev %s scope link src %s", uplink, first))
	}
	if has(netip.Addr.Is6) {
		lines = append(lines, "route add ::/0 dev "+uplink)
	}
	batch(t, h.space, lines)
	return h
}

// ip runs ip commands where the switch is.
func (s *lan) ip(t testing.TB, lines ...string) {
	t.Helper()
	batch(t, s.space, lines)
}

// batch runs the lines as one batch of ip.
func batch(t testing.TB, space *os.File, lines []string) {
	t.Helper()
	must(t, space, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

func must(t testing.TB, space *os.File, stdin, name string, args ...string) {
	t.Helper()
	if _, err := run(space, stdin, name, args...); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in a namespace.
func run(space *os.File, stdin, name string, args ...string) (string, error) {
	//nolint:noctx // the timer ends it
	c := exec.Command(name, args...)
	var out bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &out
	err := within(space, c.Start)
	if err == nil {
		timer := time.AfterFunc(commandTimeout, func() { _ = c.Process.Kill() })
		err = c.Wait()
		timer.Stop()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdin, out.String())
	}
	return out.String(), nil
}

// newSpace makes a namespace that lives until the test has ended and the last process in it.
func newSpace(t testing.TB) *os.File {
	t.Helper()
	s, err := unshare()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// path names an open namespace to other processes.
func path(space *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), space.Fd()) }

// current is the namespace of the calling thread.
func current() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// unshare makes a namespace.
func unshare() (space *os.File, err error) {
	err = away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		space, err = current()
		return err
	})
	return space, err
}

// within calls f with its thread in a namespace. Processes that f starts, and sockets that it
// opens itself, belong there.
func within(space *os.File, f func() error) error {
	return away(func() error {
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// away calls f on a thread that nobody else uses, and brings the thread back.
func away(f func() error) error {
	runtime.LockOSThread()
	home, err := current()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		_ = home.Close()
		if err != nil {
			// Whatever ran on this thread from now on would be lost in the other network.
			panic(fmt.Sprintf("netlab: the thread does not come back: %v", err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
