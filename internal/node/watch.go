package node

import (
	"context"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dunlin/chain/exchange"
	"dunlin/internal/api"
	"dunlin/internal/jsonrpc"
)

func (n *Node) openAPI(ctx context.Context) (err error) {
	n.registerMetrics()
	rpc, err := n.openRPC()
	if err != nil {
		return err
	}
	users, err := api.ParseUsers(n.c.RPC.Auth, n.c.RPC.Whitelist, n.c.RPC.ReadOnly)
	if err != nil {
		return err
	}
	n.api, err = api.New(api.Options{
		Users: users, Pprof: n.c.RPC.Pprof, Observe: n.c.RPC.ObserveListen,
		Listen: n.c.RPC.Listen, Home: n.c.Home, Open: n.c.RPC.Open, Test: n.params.Test, Remote: n.c.RPC.AllowRemote,
		TLSCert: n.c.RPC.TLSCert, TLSKey: n.c.RPC.TLSKey,
		AllowedHosts: n.c.RPC.AllowedHosts, AllowedOrigins: n.c.RPC.AllowedOrigins,
		MaxConnections: n.c.RPC.MaxConnections, MaxBlockBytes: n.params.MaxBlockBytes(),
		Metrics: plainHere(promhttp.HandlerFor(conventional{n.metrics}, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout})), RPC: rpc, MaxRPCBytes: jsonrpc.MaxBodyBytes,
		Version: n.o.Version, Logger: n.log.With("subsystem", "api"),
	})
	if err != nil {
		return err
	}
	addr, err := n.api.Listen(ctx)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.api.Close)
	n.rpcAddr = addr.String()
	n.api.SetNode(face{n})
	return nil
}

// watch keeps node.json while the node runs and sends the tip out when it did
// not come by gossip.
func (n *Node) watch(ctx context.Context) error {
	if err := api.WriteNodeFile(n.c.Home, n.nodeFile()); err != nil {
		return err
	}
	defer func() {
		if err := api.RemoveNodeFile(n.c.Home); err != nil {
			n.log.Warn("not tidied up", "err", err)
		}
	}()
	sent, _ := n.chain.Tip()
	for {
		tip, moved := n.chain.Tip()
		if tip.Hash != sent.Hash && n.exchange.Sync().State == exchange.Synced {
			// What came by gossip is not sent again; what came by sync or import is
			// new to the topic, if it is new to anybody.
			if raw, err := n.chain.Block(tip.Hash); err == nil && !n.allHave(tip.Height) {
				n.blocks.Publish(raw, tip.Hash)
			}
		}
		sent = tip
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nodeFile describes the running node for scripts.
func (n *Node) nodeFile() api.NodeFile {
	info := api.NodeFile{
		PID: os.Getpid(), PeerID: n.host.ID().String(), ListenAddrs: []string{},
		RPCAddr: n.rpcAddr, RPCCert: n.c.RPC.TLSCert, Network: n.params.Name, ChainID: n.params.ChainID(), Version: n.o.Version,
	}
	if abs, err := filepath.Abs(info.RPCCert); err == nil && info.RPCCert != "" {
		info.RPCCert = abs
	}
	for _, a := range n.host.LocalAddrs() {
		info.ListenAddrs = append(info.ListenAddrs, a.String())
	}
	return info
}

func sortedPeers(ids []peer.ID) []peer.ID {
	slices.SortFunc(ids, func(a, b peer.ID) int { return strings.Compare(string(a), string(b)) })
	return ids
}

// plainHere asks a handler for what is not compressed where that would save nothing, on this machine: what compresses a page of metrics is 0.8 MB, which
// stay for as long as two collections are apart.
func plainHere(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && from.Addr().Unmap().IsLoopback() {
			r.Header.Del("Accept-Encoding")
		}
		h.ServeHTTP(w, r)
	})
}

// registerMetrics makes the node's own metrics; libp2p registers its.
func (n *Node) registerMetrics() {
	n.metrics.MustRegister(
		// What the last collection found alive: resident memory is that, times what GOGC allows, and pages of the binary.
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&meter{n},
	)
}
