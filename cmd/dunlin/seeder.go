package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/logs"
	"dunlin/internal/node"
)

func newSeeder(g *global) *cobra.Command {
	var o node.SeederOptions
	cmd := &cobra.Command{
		Use:   "seeder",
		Short: "Run a DNS seed: crawl the network and serve its good nodes by DNS",
		Long: `seeder crawls the network from the bootstrap nodes on, or from those behind a name (--dns-seed: dnsaddr records, or plain addresses such as
those of a Compose or Kubernetes service), keeps a record of how reliably each node answers, and serves a
sample of the good ones: dnsaddr TXT records at _dnsaddr.<zone> (what nodes take with --dns-seed), A and AAAA at the zone.

Delegate the zone to this machine: in the parent zone, "seed.example.org. NS ns1.example.org." and the address of ns1. Port 53
needs the capability to bind it (setcap cap_net_bind_service=+ep, AmbientCapabilities=CAP_NET_BIND_SERVICE), or a redirect.`,
		Example: `  dunlin seeder --zone seed.example.org --ns ns1.example.org --dns-listen 0.0.0.0:53 \
    --bootstrap /ip4/203.0.113.7/tcp/9333/p2p/12D3KooW…
  dig +tcp TXT _dnsaddr.seed.example.org @127.0.0.1 -p 5353
  dunlin start --dns-seed seed.example.org`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			log, levels, err := newLogger(cmd.ErrOrStderr(), c)
			if err != nil {
				return err
			}
			if o.Zone == "" || len(o.Nameservers) == 0 {
				return usage(errors.New("seeder: --zone and --ns are needed, such as --zone seed.example.org --ns ns1.example.org"))
			}
			if o.Interval != 0 && o.Interval < time.Second {
				return usage(fmt.Errorf("--interval %s: at least 1s", o.Interval))
			}
			logs.CaptureLibp2p(log, levels)
			o.Config, o.Logger, o.Version = c, log, buildVersion()
			return node.RunSeeder(cmd.Context(), o)
		},
	}
	config.Flags(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&o.Zone, "zone", "", "name to serve, such as seed.example.org")
	fs.StringArrayVar(&o.Nameservers, "ns", nil, "host name of this DNS server, for NS and SOA (repeatable)")
	fs.StringVar(&o.Mailbox, "mailbox", "", "address of the person in charge, for SOA (default hostmaster@<zone>)")
	fs.StringArrayVar(&o.DNSListen, "dns-listen", []string{"127.0.0.1:5353"}, "address to answer DNS on, UDP and TCP (repeatable)")
	fs.DurationVar(&o.Interval, "interval", 0, "time between two probes of a node (default 15m)")
	fs.StringVar(&o.ZoneFile, "zone-file", "", "file to write the zone to every minute, for a DNS server of your own")
	fs.StringVar(&o.Metrics, "metrics-listen", "", "address of an HTTP server with /metrics")
	return cmd
}
