// Package seeder is a DNS seed: it crawls a network, keeps a record of how reliably each node
// answers, and serves a sample of the good ones by DNS, as dnsaddr TXT records (multiaddrs with
// peer ids, what libp2p nodes need) and as A and AAAA records.
//
// How a node is probed is the caller's: a function that connects, exchanges the network's
// greetings, asks whom the node knows and disconnects. Reliability is kept as in Bitcoin's seeder
// (github.com/sipa/bitcoin-seeder): exponentially decaying averages over 2 h, 8 h, 1 d and 1 w.
//
// Invariants: the number of nodes, the size of an answer, the answers a second and the
// connections are bounded; an answer over UDP has at most 512 bytes; the state survives a crash, whole.
package seeder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/miekg/dns"
	ma "github.com/multiformats/go-multiaddr"
)

// Limits of Options.
const (
	MaxListen      = 16
	MaxNameservers = 8

	defaultMaxNodes = 20_000
	maxMaxNodes     = 100_000
	defaultWorkers  = 32
	maxWorkers      = 512
	maxInterval     = 24 * time.Hour
)

// ErrForeign says that a node is of another network: it is forgotten and not probed again for a day.
// Options.Probe returns it, wrapped or not.
var ErrForeign = errors.New("a node of another network")

// Report is what a probe found out.
type Report struct {
	Height int32           // of the node's tip
	Agent  string          // at most 64 bytes are kept
	Serves bool            // it serves blocks to newcomers; others are never told
	Addr   ma.Multiaddr    // the address at which it answered, without /p2p; nil: the first it was probed at
	Peers  []peer.AddrInfo // whom it knows; at most 256 are taken
}

// Options is what New needs.
type Options struct {
	// Namespace is the network's, as discovery's: /dunlin/<chain id>. Required.
	Namespace string

	// Zone is the name that is served, such as seed.example.org. Required.
	Zone string
	// Nameservers are the host names of the zone's servers, for NS and SOA. Required, up to 8: the
	// first is the primary.
	Nameservers []string
	// Mailbox is the responsible person's, for SOA: hostmaster@example.org. Default hostmaster@<zone>.
	Mailbox string
	// Listen are the addresses (host:port) on which DNS is answered over UDP and TCP; port 0 works.
	// Empty: nothing is answered, the crawler runs for WriteZone's sake.
	Listen []string

	// Dir is the folder for the state, made if missing. Empty: nothing is kept over restarts.
	Dir string
	// Private says that addresses of private networks are probed and told.
	Private bool

	// Bootstrap are nodes with which to begin. They are never forgotten.
	Bootstrap []peer.AddrInfo
	// Candidates, if set, is asked once a minute for nodes that others have found (a DHT, say).
	Candidates func() []peer.AddrInfo
	// Probe greets a node. Required. It must honour ctx, which has a deadline of 20 s, and may be called
	// from several goroutines. An error counts against the node, unless ctx has ended.
	Probe func(ctx context.Context, node peer.AddrInfo) (Report, error)

	// Interval is the time between two probes of a good node, 1 s to 24 h. Default 15 min.
	Interval time.Duration
	// Workers is the number of probes at once, 1 to 512. Default 32.
	Workers int
	// MaxNodes bounds the nodes known, 16 to 100,000. Default 20,000.
	MaxNodes int

	// Logger gets the package's lines. Default: none.
	Logger *slog.Logger
}

// validate fills in the defaults and reports every fault at once.
func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !strings.HasPrefix(o.Namespace, "/") || len(o.Namespace) > 128 {
		bad("Namespace: %q is not of the form /dunlin/<chain id>", o.Namespace)
	}
	if o.Probe == nil {
		bad("Probe: missing")
	}
	if o.Zone = dns.CanonicalName(o.Zone); !hostName(o.Zone) || len("_dnsaddr."+o.Zone) > 254 {
		bad("Zone: %q is not a name such as seed.example.org", o.Zone)
	}
	if n := len(o.Nameservers); n == 0 || n > MaxNameservers {
		bad("Nameservers: %d names, want 1 to %d", n, MaxNameservers)
	}
	for i, ns := range o.Nameservers {
		if !hostName(dns.CanonicalName(ns)) {
			bad("Nameservers: %q is not a host name", ns)
		}
		o.Nameservers[i] = dns.CanonicalName(ns)
		if dns.IsSubDomain(o.Zone, o.Nameservers[i]) {
			bad("Nameservers: %q is within the zone, which answers for no host; name it in the parent zone", ns)
		}
	}
	if o.Mailbox == "" {
		o.Mailbox = "hostmaster@" + strings.TrimSuffix(o.Zone, ".")
	}
	if _, err := mailboxName(o.Mailbox); err != nil {
		bad("Mailbox: %w", err)
	}
	if len(o.Listen) > MaxListen {
		bad("Listen: %d addresses, the limit is %d", len(o.Listen), MaxListen)
	}
	for _, l := range o.Listen {
		if _, port, err := net.SplitHostPort(l); err != nil || port == "" {
			bad("Listen: %q is not host:port", l)
		}
	}
	for _, b := range o.Bootstrap {
		if b.ID.Validate() != nil || len(b.Addrs) == 0 {
			bad("Bootstrap: %s needs a peer id and an address", b.ID)
		}
	}
	number := func(name string, v *int, def, lowest, highest int) {
		if *v == 0 {
			*v = def
		}
		if *v < lowest || *v > highest {
			bad("%s: %d is not within %d and %d", name, *v, lowest, highest)
		}
	}
	number("MaxNodes", &o.MaxNodes, defaultMaxNodes, 16, maxMaxNodes)
	number("Workers", &o.Workers, defaultWorkers, 1, maxWorkers)
	if len(o.Bootstrap) > o.MaxNodes/2 {
		bad("Bootstrap: %d nodes, the limit is half of MaxNodes, %d", len(o.Bootstrap), o.MaxNodes/2)
	}
	if o.Interval == 0 {
		o.Interval = 15 * time.Minute
	}
	if o.Interval < time.Second || o.Interval > maxInterval {
		bad("Interval: %s is not within 1s and %s", o.Interval, maxInterval)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// hostName reports whether s, with its final dot, is a host name of two labels or more.
func hostName(s string) bool {
	labels, ok := dns.IsDomainName(s)
	if !ok || labels < 2 {
		return false
	}
	return !strings.ContainsFunc(strings.TrimSuffix(s, "."), func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
}

// mailboxName turns who@where into the name that SOA has; RFC 1035, 8.
func mailboxName(s string) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	domain = dns.CanonicalName(domain)
	if !ok || local == "" || strings.ContainsAny(local, "\\ \"") || !hostName(domain) {
		return "", fmt.Errorf("%q is not of the form hostmaster@example.org", s)
	}
	return strings.ReplaceAll(local, ".", `\.`) + "." + domain, nil
}

// Seeder crawls and answers. All methods are safe for concurrent use.
type Seeder struct {
	opts    Options
	log     *slog.Logger
	running atomic.Bool
	wake    chan struct{} // to the crawler: a node was learnt

	udp []net.PacketConn
	tcp []net.Listener

	limits *limiter

	mu      sync.Mutex // guards what follows; held for work in memory only
	nodes   map[peer.ID]*node
	foreign map[peer.ID]time.Time // of another network until
	best    int32                 // median height of the good ones
	sample  sample
	counts  counts
	serial  uint32 // of SOA
}

// New checks the options, every fault at once, reads the saved state and opens the sockets, so
// that a port which is taken or privileged is an error here. It starts nothing. Close it if Run is never called.
func New(opts Options) (*Seeder, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("seeder options: %w", err)
	}
	s := &Seeder{
		opts: opts, log: opts.Logger, wake: make(chan struct{}, 1),
		limits: newLimiter(), nodes: map[peer.ID]*node{}, foreign: map[peer.ID]time.Time{}, serial: uint32(time.Now().Unix()), //nolint:gosec // wraps in 2106, as serials do
	}
	now := time.Now()
	if opts.Dir != "" {
		if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("seeder folder: %w", err)
		}
		if err := s.load(now); err != nil {
			return nil, err
		}
	}
	for _, b := range opts.Bootstrap {
		s.learnLocked(b, byOperator)
	}
	for _, l := range opts.Listen {
		if err := s.open(l); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for DNS on %s: %w", l, err), s.Close())
		}
	}
	return s, nil
}

// open opens one address for UDP and TCP, on the same port.
func (s *Seeder) open(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	const tries = 16 // with port 0, the port that UDP got may be taken for TCP
	for try := 0; ; try++ {
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		_, got, err := net.SplitHostPort(u.LocalAddr().String())
		if err != nil {
			return errors.Join(err, u.Close())
		}
		t, err := net.Listen("tcp", net.JoinHostPort(host, got))
		if err == nil {
			s.udp, s.tcp = append(s.udp, u), append(s.tcp, t)
			return nil
		}
		if err = errors.Join(err, u.Close()); port != "0" || try == tries {
			return err
		}
	}
}

// Addrs returns the addresses (host:port) on which DNS is answered, over UDP and TCP alike.
func (s *Seeder) Addrs() []string {
	var out []string
	for _, u := range s.udp {
		out = append(out, u.LocalAddr().String())
	}
	return out
}

// Close closes the sockets of a Seeder whose Run is never called.
func (s *Seeder) Close() error {
	var errs []error
	for i := range s.udp {
		errs = append(errs, s.udp[i].Close(), s.tcp[i].Close())
	}
	s.udp, s.tcp = nil, nil
	return errors.Join(errs...)
}

// Run crawls and answers until ctx ends, then saves the state and returns nil. It returns an error
// if a DNS server fails, and on a second call. Every goroutine that it started has ended when it
// returns.
func (s *Seeder) Run(ctx context.Context) error {
	if s.running.Swap(true) {
		return errors.New("seeder: Run called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 2*len(s.udp))
	s.serve(ctx, &wg, func(err error) {
		errs <- err
		cancel()
	})
	wg.Go(func() { s.crawl(ctx) })
	wg.Go(func() { s.saveLoop(ctx) })
	<-ctx.Done()
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}
