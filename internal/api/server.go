package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits of the server.
const (
	maxBodyBytes    = 64 << 10 // simple routes and WebSocket messages
	maxHeaderBytes  = 8 << 10
	headerTimeout   = 5 * time.Second
	readTimeout     = 30 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	stopTimeout     = 1500 * time.Millisecond // Run returns within 2 s
	maxBlocks       = 1000                    // in one answer of /blocks
	mineTimeout     = 60 * time.Second
	maxMineTimeout  = 10 * time.Minute // that a caller can ask for
	readyLagBlocks  = 3                // a ready node stays so while no further behind
	defaultMaxConns = 256
)

// Options configure New. Zero means the default given.
type Options struct {
	Listen  string // host:port; no default
	Home    string // where the token's file is written; no default
	Open    bool   // no token from loopback, any page's WebSocket; needs Test and a loopback Listen
	Test    bool   // the network is one of tests
	Remote  bool   // allow a Listen off loopback without TLS
	TLSCert string // path of a PEM file
	TLSKey  string // path of a PEM file

	AllowedHosts   []string // names accepted as Host besides localhost and the listen address
	AllowedOrigins []string // besides the server's own
	MaxConnections int      // default 256; WebSockets of /ws may take half of them, event streams and one remote address a quarter
	MaxBlockBytes  int      // the network's largest block; default 4,000,000

	// Observe is the address (host:port) of a second listener, which serves /livez, /readyz and /metrics to everybody, under any
	// Host, and nothing else, in the clear: for probes and Prometheus from other machines. Default: none.
	Observe string

	Starting    func() Status // status before there is a node; default: just the state
	Metrics     http.Handler  // served at /metrics; default: none, 404
	RPC         http.Handler  // JSON-RPC, served at POST /, always behind the token unless Open; default: none, 404
	MaxRPCBytes int64         // of a JSON-RPC request; default 32 MiB
	Users       []User        // who may call with a password, beside the cookie; see ParseUsers
	Pprof       bool          // profiles under /debug/pprof/, behind the token
	AuthDelay   time.Duration // before wrong credentials are refused; default 250 ms
	MineTimeout time.Duration // for POST /mineBlock; default 60 s
	ReadTimeout time.Duration // for a whole request to arrive; default 30 s
	Version     string        // in the OpenAPI document; default "dev"
	Logger      *slog.Logger
	Now         func() time.Time // default time.Now
}

// A Server is the HTTP interface of one node. Make one with New, Listen, then Run.
type Server struct {
	o     Options
	log   *slog.Logger
	hosts []string // lower case
	token string
	// instance tells this server from others without giving the token away.
	instance string
	handler  http.Handler
	started  time.Time
	node     atomic.Pointer[Node]
	hub      *hub
	events   *broker
	begin    start       // of the events; set by SetNode, before anybody can follow them
	urls     chan string // registered WebSocket URLs that wait to be asked
	book     *registry
	ready    atomic.Bool    // was ready at the last look; see readiness
	sockets  sync.WaitGroup // WebSocket handlers, which http.Server does not track

	tries     tries
	profiling sync.Mutex // held while a profile over time is taken
	routed    []Route    // set by New
	gate      *gate      // set by Listen
	watched   *gate      // of Options.Observe; set by Listen

	listener net.Listener // set by Listen
	released sync.Once
}

// New checks the options, reporting every fault. It opens and starts nothing.
func New(o Options) (*Server, error) {
	var faults []error
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		faults = append(faults, fmt.Errorf("api: listen %q: want host:port", o.Listen))
	}
	ip := net.ParseIP(host)
	loopback := strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
	if err == nil && !loopback && o.TLSCert == "" && !o.Remote {
		faults = append(faults, fmt.Errorf("api: listen %s: off loopback the token would travel in the clear; set a TLS certificate and key, or allow remote use explicitly", o.Listen))
	}
	if o.Open && (!o.Test || !loopback) {
		faults = append(faults, errors.New("api: open is for test networks on loopback only"))
	}
	if o.Observe != "" {
		if _, _, err := net.SplitHostPort(o.Observe); err != nil {
			faults = append(faults, fmt.Errorf("api: observe %q: want host:port", o.Observe))
		}
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		faults = append(faults, errors.New("api: TLS wants both a certificate and a key"))
	}
	if o.Home == "" {
		faults = append(faults, errors.New("api: no home for "+CookieFile))
	}
	if o.MaxConnections < 0 || o.MaxBlockBytes < 0 || o.MineTimeout < 0 || o.ReadTimeout < 0 || o.MaxRPCBytes < 0 || o.AuthDelay < 0 {
		faults = append(faults, errors.New("api: limits must not be negative"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultMaxConns
	}
	if o.MaxBlockBytes == 0 {
		o.MaxBlockBytes = 4_000_000
	}
	if o.MaxRPCBytes == 0 {
		o.MaxRPCBytes = 32 << 20
	}
	if o.MineTimeout == 0 {
		o.MineTimeout = mineTimeout
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = readTimeout
	}
	if o.AuthDelay == 0 {
		o.AuthDelay = authDelay
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		o: o, log: o.Logger, token: newToken(), started: o.Now(),
		hub: newHub(max(1, o.MaxConnections/2)), urls: make(chan string, askQueue),
		events: newBroker(max(2, o.MaxConnections/4), o.Now),
	}
	s.instance = instanceOf(s.token)
	s.book = &registry{path: filepath.Join(o.Home, registryFile)}
	for _, h := range append([]string{host}, o.AllowedHosts...) {
		s.hosts = append(s.hosts, strings.TrimSuffix(strings.ToLower(h), "."))
	}
	s.handler = s.guard(s.routes())
	return s, nil
}

// SetNode says that the node is there; until then only status, probes and
// metrics answer. Call it once.
func (s *Server) SetNode(n Node) {
	s.begin = beginning(n)
	s.node.Store(&n)
	close(s.hub.ready)
}

// Handler returns the whole interface, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen opens the port, reads the registered peers and writes the token's file.
// It returns the address with the port that the system chose. Run calls it if
// the caller did not; without Run, Close releases the port.
func (s *Server) Listen(ctx context.Context) (net.Addr, error) {
	if s.listener != nil {
		return s.listener.Addr(), nil
	}
	var cert *certificate
	if s.o.TLSCert != "" {
		var err error
		if cert, err = loadCertificate(s.o.TLSCert, s.o.TLSKey, s.log, s.o.Now); err != nil {
			return nil, err
		}
	}
	if err := s.book.load(); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.o.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("api: %s is in use by another program; choose another with --rpc-listen (port 0 lets the system choose): %w", s.o.Listen, err)
	case err != nil:
		return nil, fmt.Errorf("api: listen: %w", err)
	}
	if err := s.listenToObservers(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := writeFile(s.o.Home, CookieFile, []byte(s.token)); err != nil {
		return nil, errors.Join(err, l.Close(), s.closeObserved())
	}
	s.gate = newGate(l, s.o.MaxConnections)
	s.listener = s.gate
	if cert != nil {
		s.listener = tls.NewListener(s.gate, &tls.Config{
			GetCertificate: cert.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		})
	}
	return s.listener.Addr(), nil
}

// Close releases the port and removes the token's file. Run does so itself;
// after it Close does nothing.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.release()
}

// release runs once, however often it is called.
func (s *Server) release() (err error) {
	s.released.Do(func() {
		if err = s.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil // http.Server closes it when it stops
		}
		err = errors.Join(err, s.closeObserved(), os.Remove(filepath.Join(s.o.Home, CookieFile)))
	})
	return err
}

// Run serves until ctx ends, then lets running requests end, for at most 2 s,
// and joins all it started. It returns nil after a stop by ctx.
func (s *Server) Run(ctx context.Context) error {
	if _, err := s.Listen(ctx); err != nil {
		return err
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: min(headerTimeout, s.o.ReadTimeout),
		ReadTimeout:       s.o.ReadTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		// net/http reads up to 4 KiB more than it is told.
		MaxHeaderBytes: maxHeaderBytes - 4<<10,
		// Requests end when the server is told to stop: those that wait (mining,
		// WebSockets) would hold it up.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.pushBlocks(gctx); return nil })
	g.Go(func() error { s.pushLost(gctx); return nil })
	g.Go(func() error { s.feed(gctx); return nil })
	g.Go(func() error { s.askURLs(gctx); return nil })
	g.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("api: serve: %w", err)
		}
		return nil
	})
	observer := s.observer(ctx)
	if observer != nil {
		g.Go(func() error {
			if err := observer.Serve(s.watched); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("api: serve probes and metrics: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		if observer != nil {
			defer func() { _ = observer.Close() }() // its answers are short; the last to go, so that a probe sees the stop
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := server.Shutdown(stop); err != nil {
			return errors.Join(server.Close())
		}
		return nil
	})
	err := g.Wait()
	s.sockets.Wait()
	// The token dies with the server.
	if e := s.release(); e != nil {
		s.log.Warn("api not tidied up", "err", e)
	}
	return err
}

// status is what the status route shows, node or not.
func (s *Server) status() Status {
	var st Status
	if n := s.node.Load(); n != nil {
		st = (*n).Status()
	} else {
		if s.o.Starting != nil {
			st = s.o.Starting()
		}
		st.Sync.State = StateStarting
	}
	st.UptimeS = s.o.Now().Sub(s.started).Round(time.Millisecond).Seconds()
	return st
}

// readiness returns what is checked, and "" or what is amiss, for each. A node
// becomes ready once it is synced and then stays so while it is no more than
// readyLagBlocks behind, so that a probe does not flap at every new block.
func (s *Server) readiness() (ready bool, listening, synced string) {
	st := s.status()
	if s.node.Load() == nil {
		listening = "the node is starting"
	}
	lag := max(st.TargetHeight, st.HeaderHeight) - st.Height
	catchingUp := st.Sync.State == StateHeaders || st.Sync.State == StateBlocks
	if st.Sync.State != StateSynced && (!s.ready.Load() || !catchingUp || lag > readyLagBlocks) {
		synced = "state " + st.Sync.State
		if catchingUp {
			synced += fmt.Sprintf(", height %d of %d", st.Height, max(st.TargetHeight, st.HeaderHeight))
		}
		if st.Sync.Reason != "" {
			synced += ": " + st.Sync.Reason
		}
	}
	ready = listening == "" && synced == ""
	s.ready.Store(ready)
	return ready, listening, synced
}
