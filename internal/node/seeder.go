package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dunlin/chain/exchange"
	"dunlin/config"
	"dunlin/discovery"
	"dunlin/discovery/seeder"
	"dunlin/internal/host"
)

// SeederOptions configure RunSeeder.
type SeederOptions struct {
	Config  *config.Config // network, home, bootstrap, listen addresses
	Logger  *slog.Logger
	Version string

	Zone        string
	Nameservers []string
	Mailbox     string
	DNSListen   []string      // host:port
	Interval    time.Duration // between probes; 0: the package's default

	ZoneFile string // written every minute; empty: none
	Metrics  string // host:port of an HTTP server with /metrics; empty: none
}

const (
	// seederDir is the seeder's part of the home: a node may run in the same home.
	seederDir     = "seeder"
	zoneFileEvery = time.Minute
)

// RunSeeder crawls the network of o.Config and serves it by DNS until ctx ends. What it keeps is in <home>/seeder.
func RunSeeder(ctx context.Context, o SeederOptions) (err error) {
	c := *o.Config
	c.Home = filepath.Join(c.Home, seederDir)
	if err := config.EnsureHome(c.Home); err != nil {
		return err
	}
	bootstrap, err := seederBootstrap(c.P2P.Bootstrap)
	if err == nil && len(bootstrap)+len(c.P2P.DNSSeeds) == 0 {
		err = errors.New("p2p.bootstrap and p2p.dns_seeds: empty; a seeder needs at least one node to begin its crawl with (--bootstrap), or a name of nodes (--dns-seed)")
	}
	if err != nil {
		return err
	}
	key, err := host.LoadOrCreateKey(filepath.Join(c.Home, keyFile), o.Logger)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	g, err := newGreeter(&c, key, "dunlin-seeder/"+strings.TrimPrefix(o.Version, "v"), o.Logger, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	s, err := seeder.New(seeder.Options{
		Namespace: g.namespace, Zone: o.Zone, Nameservers: o.Nameservers, Mailbox: o.Mailbox, Listen: o.DNSListen,
		Dir: c.Home, Private: c.P2P.AllowPrivate, Bootstrap: bootstrap, Interval: o.Interval, Probe: g.probe,
		Logger: o.Logger.With("subsystem", "seeder"),
	})
	if err != nil {
		return err
	}
	registry.MustRegister(seederMetrics{s})
	var metrics net.Listener
	if o.Metrics != "" {
		if metrics, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.Metrics); err != nil {
			return errors.Join(fmt.Errorf("metrics: %w", err), s.Close())
		}
	}
	o.Logger.Info("dunlin seeder", "version", o.Version, "network", c.Chain.Params.Name, "chain_id", c.Chain.ChainID(), "zone", o.Zone,
		"dns", s.Addrs(), "bootstrap", len(bootstrap), "home", c.Home)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	if metrics != nil {
		o.Logger.Info("metrics", "url", "http://"+metrics.Addr().String()+"/metrics")
		srv := &http.Server{
			Handler:     promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 5 * time.Second}),
			ReadTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		}
		wg.Go(func() {
			if err := srv.Serve(metrics); !errors.Is(err, http.ErrServerClosed) {
				o.Logger.Warn("metrics are no longer served", "error", err)
			}
		})
		wg.Go(func() { <-ctx.Done(); _ = srv.Close() })
	}
	if o.ZoneFile != "" {
		wg.Go(func() { writeZones(ctx, o.Logger, s, o.ZoneFile) })
	}
	for _, name := range c.P2P.DNSSeeds {
		wg.Go(func() { followName(ctx, o.Logger, s, g.resolver(&c), name) })
	}
	err = s.Run(ctx)
	cancel()
	wg.Wait()
	return err
}

// Times between two looks at a name: while it gives nobody, and while it does. Nodes behind it come and go.
const (
	nameSoon = 2 * time.Second
	nameLate = 30 * time.Second
)

// followName tells the seeder of the nodes behind a name until ctx ends. What is amiss is logged when it changes.
func followName(ctx context.Context, log *slog.Logger, s *seeder.Seeder, r *discovery.Resolver, name string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := "not asked yet"
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		found, err := r.Resolve(ctx, name)
		pause, why := nameLate, ""
		if err != nil {
			pause, why = nameSoon, err.Error()
		}
		s.Learn(found...)
		if ctx.Err() == nil && why != last {
			if last = why; err != nil {
				log.Warn("the name gives no node, it is asked again", "name", name, "error", err)
			} else {
				log.Info("the name gives nodes", "name", name, "nodes", len(found))
			}
		}
		timer.Reset(pause)
	}
}

// seederBootstrap parses the nodes to begin with.
func seederBootstrap(list []string) (out []peer.AddrInfo, err error) {
	var errs []error
	for _, text := range list {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("p2p.bootstrap %q: a seeder wants an address that ends in /p2p/<peer id>: %w", text, err))
			continue
		}
		if len(discovery.Dialable(info.Addrs, true)) == 0 {
			errs = append(errs, fmt.Errorf("p2p.bootstrap %q: a seeder wants an IP address, not a name", text))
			continue
		}
		out = append(out, *info)
	}
	return out, errors.Join(errs...)
}

// writeZones replaces the zone file from time to time.
func writeZones(ctx context.Context, log *slog.Logger, s *seeder.Seeder, path string) {
	tick := time.NewTicker(zoneFileEvery)
	defer tick.Stop()
	told := false
	for {
		if err := replaceFile(path, s.WriteZone); err != nil && !told {
			told = true
			log.Warn("the zone file was not written", "file", path, "error", err)
		} else if err == nil {
			told = false
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// replaceFile writes a file beside path and renames it, so that a reader sees the old one or the new one.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // a zone is public; the operator's path
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	return os.Rename(path+".tmp", path)
}

// probe is the seeder's.
func (g *greeter) probe(ctx context.Context, info peer.AddrInfo) (seeder.Report, error) {
	said, err := g.greet(ctx, info)
	if errors.Is(err, errForeign) {
		err = fmt.Errorf("%w: %w", seeder.ErrForeign, err)
	}
	h := said.hello
	return seeder.Report{
		Height: h.Tip.Height, Agent: h.Agent, Serves: h.Services&exchange.ServeBlocks != 0, Addr: said.addr, Peers: said.known,
	}, err
}

// seederMetrics shows a seeder's Stats.
type seederMetrics struct{ s *seeder.Seeder }

var (
	descSeedNodes     = prometheus.NewDesc("dunlin_seeder_nodes", "Nodes by state: known, answering (to the last probe), good (told to newcomers).", []string{"state"}, nil)
	descSeedHeight    = prometheus.NewDesc("dunlin_seeder_height", "Median height of the good nodes.", nil, nil)
	descSeedProbes    = prometheus.NewDesc("dunlin_seeder_probes_total", "Probes by result: answered, or why not.", []string{"result"}, nil)
	descSeedQuestions = prometheus.NewDesc("dunlin_seeder_questions_total", "DNS questions.", nil, nil)
	descSeedReplies   = prometheus.NewDesc("dunlin_seeder_replies_total", "DNS answers by kind.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (m seederMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m seederMetrics) Collect(ch chan<- prometheus.Metric) {
	st := m.s.Stats()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	total := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descSeedNodes, st.Known, "known")
	gauge(descSeedNodes, st.Answering, "answering")
	gauge(descSeedNodes, st.Good, "good")
	gauge(descSeedHeight, int(st.Height))
	total(descSeedProbes, st.Answered, "answered")
	for why, n := range st.Failures {
		total(descSeedProbes, n, why)
	}
	total(descSeedQuestions, st.Questions)
	for kind, n := range st.Replies {
		total(descSeedReplies, n, kind)
	}
}
