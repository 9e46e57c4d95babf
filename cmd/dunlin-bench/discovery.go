package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"

	"dunlin/discovery"
	"dunlin/internal/command"
	"dunlin/internal/simnet"
)

const simNamespace = "/dunlin/bench-00000000"

// discoveryCases are the rows of `dunlin-bench discovery`: what issue and README promise of a network that finds itself,
// with links of 20 Mbit/s and round trips of 50 ms.
var discoveryCases = []simCase{
	{"join60", "join60", "60 nodes start at once with one bootstrap: the last one has 8 peers", "eight_s", "s", bar{Of: "ours", Value: 1.5}},
	{"advert60", "join60", "60 nodes at once: the last one's first advert that works", "advert_s", "s", bar{Of: "ours", Value: 3}},
	{"find60", "join60", "60 nodes at once: a stranger's one FindPeers, begun 5 s after the start, has all 60, after the start", "all_s", "s", bar{Of: "ours", Value: 10}},
	{"conns60", "join60", "60 nodes at once: connections a node after 10 s", "conns", "", bar{}},
	{"join200", "join200", "200 nodes start at once with one bootstrap: the last one has 8 peers", "eight_s", "s", bar{Of: "ours", Value: 3}},
	{"advert200", "join200", "200 nodes at once: the last one's first advert that works", "advert_s", "s", bar{}},
	{"conns200", "join200", "200 nodes at once: connections a node then", "conns", "", bar{}},
	{"book", "book", "the bootstrap is dead for an hour; a newcomer with a saved book has 4 peers", "four_s", "s", bar{Of: "ours", Value: 2}},
	{"book8", "book", "that newcomer has 8 peers", "eight_s", "s", bar{Of: "ours", Value: 2}},
	{"churn", "churn", "60 nodes, 30% replaced a minute, half of them cut off unheard, 10 min: fewest live peers", "fewest", "", bar{Of: "ours", Least: true, Value: 4}},
	{"newcomer", "churn", "60 nodes in that churn: the slowest newcomer has 4 peers", "newcomer_s", "s", bar{}},
	{"churn200", "churn200", "200 nodes, 30% replaced a minute likewise, 1 min: fewest live peers", "fewest", "", bar{Of: "ours", Least: true, Value: 4}},
	{"newcomer200", "churn200", "200 nodes in that churn: the slowest newcomer has 4 peers", "newcomer_s", "s", bar{}},
	{"settled60", "split60", "60 nodes 30 s after they found themselves: connections a node", "conns", "", bar{}},
	{"apart60", "split60", "60 nodes, halves cut off from each other for 2 min: fewest peers then", "fewest", "", bar{Of: "ours", Least: true, Value: 4}},
	{"heal60", "split60", "60 nodes in halves: the last one has a peer of the other half, after the line is back", "one_s", "s", bar{Of: "ours", Value: 10}},
	{"heal60x4", "split60", "60 nodes in halves: every second one has four of them", "four_s", "s", bar{}},
	{"settled200", "split200", "200 nodes 30 s after they found themselves: connections a node", "conns", "", bar{}},
	{"apart200", "split200", "200 nodes, halves cut off from each other for 2 min: fewest peers then", "fewest", "", bar{Of: "ours", Least: true, Value: 4}},
	{"heal200", "split200", "200 nodes in halves: the last one has a peer of the other half, after the line is back", "one_s", "s", bar{Of: "ours", Value: 10}},
	{"heal200x4", "split200", "200 nodes in halves: every second one has four of them", "four_s", "s", bar{}},
}

func newDiscovery() *cobra.Command {
	var o simOptions
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "How fast a network finds itself, in virtual time",
		Long: `Runs networks of real libp2p hosts with discovery on them in virtual time, over
simulated links of 20 Mbit/s and 50 ms of round trip, and prints how long they take
to find themselves. Each simulation runs in a process of its own.`,
		Args: command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return measureSims(cmd.Context(), "discovery", discoveryCases, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.flags(cmd)
	return cmd
}

func discoverySimulations() map[string]simulation {
	join := func(size int, stranger bool) simulation {
		return simulation{run: func(n *simnet.Network) (map[string]float64, error) { return joinAtOnce(n, size, stranger) }}
	}
	return map[string]simulation{
		"join8":    join(9, true), // for the tests of this command
		"join60":   join(60, true),
		"join200":  join(200, false),
		"book":     {run: func(n *simnet.Network) (map[string]float64, error) { return savedBook(n, 30, time.Hour) }},
		"churn200": {run: func(n *simnet.Network) (map[string]float64, error) { return churn(n, 200, time.Minute) }},
		"split60":  {run: func(n *simnet.Network) (map[string]float64, error) { return splitAndHeal(n, 60, 2*time.Minute) }},
		"split200": {run: func(n *simnet.Network) (map[string]float64, error) { return splitAndHeal(n, 200, 2*time.Minute) }},
		"churn":    {run: func(n *simnet.Network) (map[string]float64, error) { return churn(n, 60, 10*time.Minute) }},
	}
}

// simNode is a host with a running discovery.
type simNode struct {
	*simnet.Host
	disc *discovery.Discovery
	born time.Time
	end  func() // ends Run and waits for it
}

// startNode starts a host and a discovery that knows the addresses.
func startNode(n *simnet.Network, ip netip.Addr, dir string, knows ...ma.Multiaddr) (*simNode, error) {
	h, err := n.NewHost(simnet.HostOptions{IP: ip})
	if err != nil {
		return nil, err
	}
	d, err := discovery.New(discovery.Options{Host: h, Namespace: simNamespace, Bootstrap: knows, Private: true, Dir: dir})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(n.Context())
	done := make(chan struct{})
	n.Go(func(context.Context) {
		defer close(done)
		_ = d.Run(ctx) // it fails only where the DHT cannot start: then the node finds nobody, which is seen
	})
	return &simNode{Host: h, disc: d, born: time.Now(), end: sync.OnceFunc(func() { cancel(); <-done })}, nil
}

// leave stops a node in order, or by a power cut.
func (s *simNode) leave(killed bool) {
	if killed {
		s.Cut()
	}
	s.end()
	_ = s.Close()
}

// slowest waits until every node's condition has been true once, and returns how long after its birth it was for the
// last one.
func slowest(n *simnet.Network, nodes []*simNode, within time.Duration, what string, ok func(*simNode) bool) (time.Duration, error) {
	left := append([]*simNode(nil), nodes...)
	var worst time.Duration
	_, met := n.Until(within, func() bool {
		kept := left[:0]
		for _, s := range left {
			if ok(s) {
				worst = max(worst, time.Since(s.born))
			} else {
				kept = append(kept, s)
			}
		}
		left = kept
		return len(left) == 0
	})
	if !met {
		return 0, fmt.Errorf("%d of %d nodes had not within %s: %s; one of them: %+v", len(left), len(nodes), within, what, left[0].disc.Stats())
	}
	return worst, nil
}

func hasPeers(count int) func(*simNode) bool {
	return func(s *simNode) bool { return len(s.Network().Peers()) >= count }
}

// joinAtOnce starts all nodes in the same moment, with the first one as bootstrap, and with a stranger lets one
// that is no node search for them all 5 s later.
func joinAtOnce(n *simnet.Network, size int, stranger bool) (map[string]float64, error) {
	nodes := make([]*simNode, 0, size)
	for i := range size {
		var knows []ma.Multiaddr
		if i > 0 {
			knows = append(knows, nodes[0].Addr())
		}
		s, err := startNode(n, simnet.IP(i), "", knows...)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, s)
	}
	start := time.Now()
	const limit = time.Minute
	eight, err := slowest(n, nodes, limit, "8 peers", hasPeers(8))
	if err != nil {
		return nil, err
	}
	advert, err := slowest(n, nodes, limit, "an advert that works", func(s *simNode) bool { return !s.disc.Stats().Advert.At.IsZero() })
	if err != nil {
		return nil, err
	}
	out := map[string]float64{"eight_s": eight.Seconds(), "advert_s": advert.Seconds()}
	if stranger {
		n.Pass(time.Until(start.Add(5 * time.Second)))
		seen, all, err := findOnce(n, start, nodes[0].Info(), size)
		if err != nil {
			return nil, err
		}
		if out["seen"] = float64(seen); seen == size {
			out["all_s"] = all.Seconds()
		}
		n.Pass(time.Until(start.Add(10 * time.Second)))
	}
	out["conns"] = meanPeers(nodes)
	for _, s := range nodes {
		s.end()
	}
	return out, nil
}

// meanPeers is how many peers a node has on the average.
func meanPeers(nodes []*simNode) float64 {
	sum := 0
	for _, s := range nodes {
		sum += len(s.Network().Peers())
	}
	return float64(sum) / float64(len(nodes))
}

// findOnce makes one search of a stranger that knows one node and the DHT's protocol: how many of the nodes it saw, and
// when the last one, after start.
func findOnce(n *simnet.Network, start time.Time, entry peer.AddrInfo, size int) (seen int, last time.Duration, err error) {
	h, err := n.NewHost(simnet.HostOptions{IP: simnet.IP(size + 1)})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = h.Close() }()
	kad, err := dht.New(h, dht.ProtocolPrefix(protocol.ID(simNamespace)), dht.Mode(dht.ModeClient), dht.DisableValues())
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = kad.Close() }()
	if err := h.Connect(n.Context(), entry); err != nil {
		return 0, 0, err
	}
	n.Until(5*time.Second, func() bool { return kad.RoutingTable().Size() > 0 })
	key, err := discovery.Rendezvous(simNamespace)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(n.Context(), 20*time.Second)
	defer cancel()
	found := map[peer.ID]bool{}
	for ai := range kad.FindProvidersAsync(ctx, key, 0) {
		if !found[ai.ID] {
			found[ai.ID] = true
			last = time.Since(start)
		}
	}
	return len(found), last, nil
}

// savedBook lets a node with a folder join, stops it, kills the bootstrap, and starts the node again some time later with its
// address book and nothing else.
func savedBook(n *simnet.Network, size int, gone time.Duration) (map[string]float64, error) {
	dir, err := os.MkdirTemp("", "dunlin-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	boot, err := startNode(n, simnet.IP(0), "")
	if err != nil {
		return nil, err
	}
	var nodes []*simNode
	for i := 1; i < size; i++ {
		s, err := startNode(n, simnet.IP(i), "", boot.Addr())
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, s)
	}
	old, err := startNode(n, simnet.IP(size), dir, boot.Addr())
	if err != nil {
		return nil, err
	}
	if _, err := slowest(n, append(nodes, old), time.Minute, "8 peers", hasPeers(8)); err != nil {
		return nil, err
	}
	n.Pass(time.Minute)
	old.leave(false)
	boot.leave(true)
	n.Pass(gone)
	if err := os.Remove(filepath.Join(dir, "anchors.jsonl")); err != nil {
		return nil, err // there must be one: the book alone is to be tried
	}
	again, err := startNode(n, simnet.IP(size+1), dir)
	if err != nil {
		return nil, err
	}
	four, err := slowest(n, []*simNode{again}, time.Minute, "4 peers", hasPeers(4))
	if err != nil {
		return nil, err
	}
	eight, err := slowest(n, []*simNode{again}, time.Minute, "8 peers", hasPeers(8))
	if err != nil {
		return nil, err
	}
	for _, s := range append(nodes, again) {
		s.end()
	}
	return map[string]float64{"four_s": four.Seconds(), "eight_s": eight.Seconds()}, nil
}

// churn replaces 30% of the nodes a minute, the bootstrap first of all: every other one leaves in order, the others are cut
// off. A newcomer has a new identity and knows one living node. Counted are connections to nodes that live, of every
// node that has been there for 2 s.
func churn(n *simnet.Network, size int, during time.Duration) (map[string]float64, error) {
	const perMinute, newcomerGrace = 0.3, 2 * time.Second
	var nodes []*simNode
	for i := range size {
		var knows []ma.Multiaddr
		if i > 0 {
			knows = append(knows, nodes[0].Addr())
		}
		s, err := startNode(n, simnet.IP(i), "", knows...)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, s)
	}
	if _, err := slowest(n, nodes, time.Minute, "8 peers", hasPeers(8)); err != nil {
		return nil, err
	}
	n.Pass(5 * time.Second)
	living := map[peer.ID]bool{}
	for _, s := range nodes {
		living[s.ID()] = true
	}
	live := func(s *simNode) (count int) {
		for _, p := range s.Network().Peers() {
			if living[p] {
				count++
			}
		}
		return count
	}
	start := time.Now()
	every := time.Duration(float64(time.Minute) / (perMinute * float64(size)))
	fewest, worst, next, replaced := size, time.Duration(0), size, 0
	young := map[*simNode]bool{} // those without their first 4 peers
	due := start
	for time.Since(start) < during {
		if !time.Now().Before(due) {
			due = due.Add(every)
			var i, k int
			n.Rand(func(r *rand.Rand) { i, k = r.IntN(size), 1+r.IntN(size-1) })
			if replaced == 0 {
				i = 0
			}
			gone, known := nodes[i], nodes[(i+k)%size]
			delete(living, gone.ID())
			delete(young, gone)
			gone.leave(replaced%2 == 0)
			replaced++
			s, err := startNode(n, simnet.IP(next%2000), "", known.Addr())
			if err != nil {
				return nil, err
			}
			next++
			nodes[i] = s
			living[s.ID()], young[s] = true, true
		}
		n.Pass(100 * time.Millisecond)
		for _, s := range nodes {
			peers, age := live(s), time.Since(s.born)
			if young[s] && peers >= 4 {
				delete(young, s)
				worst = max(worst, age)
			}
			if age >= newcomerGrace {
				fewest = min(fewest, peers)
			}
		}
	}
	if len(young) > 0 {
		worst = max(worst, time.Minute) // never: it shows
	}
	for _, s := range nodes {
		s.end()
	}
	return map[string]float64{"fewest": float64(fewest), "newcomer_s": worst.Seconds(), "replaced": float64(replaced)}, nil
}

// splitAndHeal cuts a network into halves, one of them with the bootstrap, for a while that all connections between them
// do not survive, and joins them again.
func splitAndHeal(n *simnet.Network, size int, apart time.Duration) (map[string]float64, error) {
	say := sayer()
	var nodes []*simNode
	var halves [2][]*simnet.Host
	half := map[peer.ID]int{}
	for i := range size {
		var knows []ma.Multiaddr
		if i > 0 {
			knows = append(knows, nodes[0].Addr())
		}
		s, err := startNode(n, simnet.IP(i), "", knows...)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, s)
		halves[i%2] = append(halves[i%2], s.Host)
		half[s.ID()] = i % 2
	}
	if _, err := slowest(n, nodes, time.Minute, "8 peers", hasPeers(8)); err != nil {
		return nil, err
	}
	say("all have 8 peers")
	n.Pass(30 * time.Second)
	settled := meanPeers(nodes)
	say("%.1f peers each, the halves are cut off from each other", settled)
	n.Partition(halves[0], halves[1])
	n.Pass(apart)
	say("%.1f peers each, the line is back", meanPeers(nodes))
	over := func(s *simNode) (count int) {
		for _, p := range s.Network().Peers() {
			if half[p] != half[s.ID()] {
				count++
			}
		}
		return count
	}
	fewest := size
	for _, s := range nodes {
		fewest = min(fewest, len(s.Network().Peers()))
		if over(s) > 0 {
			return nil, fmt.Errorf("after %s apart a node still counts peers of the other half: %d", apart, over(s))
		}
	}
	n.Heal()
	now := time.Now()
	for _, s := range nodes {
		s.born = now
	}
	out := map[string]float64{"fewest": float64(fewest), "conns": settled}
	took, err := slowest(n, nodes, 5*time.Minute, "a peer of the other half", func(s *simNode) bool { return over(s) > 0 })
	if err != nil {
		return nil, err
	}
	out["one_s"] = took.Seconds()
	say("every node has had a peer of the other half")
	// Four at a time are a matter of minutes for those that had few there before: the half of the nodes tells how fast they grow together.
	_, met := n.Until(5*time.Minute, func() bool {
		with := 0
		for _, s := range nodes {
			if over(s) >= 4 {
				with++
			}
		}
		return 2*with >= len(nodes)
	})
	if met {
		out["four_s"] = time.Since(now).Seconds()
		say("half of them have four")
	}
	for _, s := range nodes {
		s.end()
	}
	return out, nil
}
