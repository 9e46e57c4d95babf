package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/host"
)

// maxDialBackPeers bounds the nodes that are asked to dial back before the doctor gives up.
const maxDialBackPeers = 3

// checkRunningReach asks the running node what it has found out.
func checkRunningReach(ctx context.Context, c *config.Config, node *api.Client) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	f := Finding{Check: "reach", Verdict: FindingOK}
	r, err := node.Reachability(ctx)
	if err != nil {
		f.Verdict, f.Detail, f.Do = FindingWarn, "the running node does not say: "+err.Error(), "see its log"
		return []Finding{f}
	}
	switch r.Verdict {
	case host.ReachConfirmed:
		f.Detail = "others have connected to " + strings.Join(r.Confirmed, ", ")
	case host.ReachUnreachable:
		f.Verdict, f.Detail, f.Do = FindingWarn, r.Reason, r.Do
		if len(r.Relays) > 0 {
			f.Detail += fmt.Sprintf("; nodes of this network reach it through %d relayed addresses", len(r.Relays))
		}
	case host.ReachAnnounced:
		f.Detail = "as p2p.announce says, not checked: " + strings.Join(r.Announced, ", ")
	case host.ReachChecking:
		f.Detail = "not known yet: other nodes are being asked"
	default:
		f.Detail = "a private network: nobody is asked"
	}
	f.Detail += fmt.Sprintf("; %d connections from others", r.Inbound)
	out := []Finding{f}
	if c.P2P.NAT {
		out = append(out, natFinding(r.NAT, r.Mapped, r.Verdict == host.ReachConfirmed))
	}
	return out
}

// natFinding says what became of the port mapping. It is no fault if others get through without it.
func natFinding(state string, mapped []string, reached bool) Finding {
	f := Finding{Check: "nat", Verdict: FindingOK, Detail: state}
	switch state {
	case host.NATMapped:
		f.Detail = "the router maps " + strings.Join(mapped, ", ")
	case host.NATNone, host.NATRefused:
		if !reached {
			f.Verdict = FindingWarn
			f.Do = "switch UPnP on in the router, or forward the port by hand; on a machine with a public address p2p.nat = false ends the search"
		}
	}
	return f
}

// checkDialBack listens as the node would, and asks a node that answered to connect. It waits for nobody once one has.
func checkDialBack(ctx context.Context, c *config.Config, log *slog.Logger, agent string, answered []peer.AddrInfo) []Finding {
	f := Finding{Check: "dial-back", Verdict: FindingWarn}
	listen, err1 := multiaddrs("p2p.listen", c.P2P.Listen)
	announce, err2 := multiaddrs("p2p.announce", c.P2P.Announce)
	bootstrap, err3 := multiaddrs("p2p.bootstrap", c.P2P.Bootstrap)
	if err := errors.Join(err1, err2, err3); err != nil || len(listen) == 0 {
		return nil // told already
	}
	if len(answered) == 0 {
		f.Detail, f.Do = "nobody to ask whether this machine can be reached", "see the nodes above"
		return []Finding{f}
	}
	private, _ := onPrivateNetwork(c, listen, bootstrap)
	o := host.Options{
		Listen: listen, Announce: announce, Agent: agent, Private: private, WebSocket: c.P2P.WebSocket,
		NAT: c.P2P.NAT && (!private || c.Origin("p2p.nat") != "default"), Logger: log.With("subsystem", "host"),
	}
	var why error
	for _, server := range answered[:min(len(answered), maxDialBackPeers)] {
		results, state, err := host.TryDialBack(ctx, o, server)
		if err != nil {
			why = errors.Join(why, fmt.Errorf("%s: %w", server.ID, err))
			continue
		}
		out := dialBackFindings(server.ID, results, &state)
		if o.NAT {
			reached := slices.ContainsFunc(results, func(r host.DialBack) bool { return r.Reachable })
			out = append(out, natFinding(state.NAT, texts(state.Mapped), reached))
		}
		return out
	}
	f.Detail, f.Do = fmt.Sprintf("no node could be asked to connect here: %s", strings.ReplaceAll(why.Error(), "\n", "; ")), "try again, or try the port from another machine"
	return []Finding{f}
}

// dialBackFindings says for each address whether a node of elsewhere got through.
func dialBackFindings(by peer.ID, results []host.DialBack, state *host.Reachability) (out []Finding) {
	reached := slices.ContainsFunc(results, func(r host.DialBack) bool { return r.Reachable })
	for _, r := range results {
		f := Finding{Check: "dial-back", Target: r.Addr.String(), Verdict: FindingOK, Detail: fmt.Sprintf("%s connected to it", by)}
		switch {
		case r.Err != nil:
			f.Verdict, f.Detail, f.Do = FindingWarn, fmt.Sprintf("%s was asked: %v", by, r.Err), "try again, or try the port from another machine"
		case !r.Reachable && reached: // one way in is enough
			f.Verdict, f.Detail = FindingWarn, fmt.Sprintf("%s could not connect to it", by)
			f.Do = forward([]ma.Multiaddr{r.Addr}, state)
		case !r.Reachable:
			f.Verdict, f.Detail = FindingFail, fmt.Sprintf("%s could not connect to it", by)
			f.Do = forward([]ma.Multiaddr{r.Addr}, state)
		}
		out = append(out, f)
	}
	return out
}

// forward is the advice for addresses that nobody gets through to.
func forward(addrs []ma.Multiaddr, state *host.Reachability) string {
	r := *state
	r.Verdict, r.Unreachable, r.Listen = host.ReachUnreachable, nil, addrs
	return r.Advice() + "; a firewall on this machine must let it through too"
}
