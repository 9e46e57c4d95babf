package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/command"
	"dunlin/internal/host"
)

// client returns a client of the running node: the one at --rpc, else the one in the home.
func (g *global) client(cmd *cobra.Command) (*api.Client, error) {
	// With the home given, the config file has nothing to say here, and one that
	// is broken must not keep the operator from asking.
	given := g.home != "" || os.Getenv("DUNLIN_HOME") != ""
	c, err := config.Load(config.LoadOptions{Home: g.home, Flags: config.FromFlags(cmd.Flags()), NoFile: given})
	if err != nil {
		return nil, usage(err)
	}
	if g.rpc != "" {
		token, err := api.ReadToken(c.Home)
		if err != nil {
			return nil, err
		}
		client, err := api.NewClient(g.rpc, token)
		if err != nil {
			return nil, usage(fmt.Errorf("--rpc: %w", err))
		}
		return client, nil
	}
	client, _, err := api.Open(c.Home)
	if err != nil {
		if g.home == "" && errors.Is(err, api.ErrUnreachable) {
			err = alsoRunning(err, c.Home)
		}
		return nil, unreachable(err)
	}
	return client, nil
}

// alsoRunning adds to err the nodes that run in the homes beside one: whoever
// started regtest and then asks without --network means that one.
func alsoRunning(err error, home string) error {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(home), "*", api.NodeFileName)) // the pattern is right
	for _, file := range files {
		if other := filepath.Dir(file); other != home {
			if n, e := api.ReadNodeFile(other); e == nil {
				err = fmt.Errorf("%w; a node of network %s runs in %s: --home says that it is meant", err, n.Network, other)
			}
		}
	}
	return err
}

// unreachable gives an error of the API client its exit code.
func unreachable(err error) error {
	var refused *api.Error
	switch {
	case errors.Is(err, api.ErrUnreachable):
		if !strings.Contains(err.Error(), "dunlin start") && !strings.Contains(err.Error(), "stale") {
			err = fmt.Errorf("%w\nis the node running there? dunlin start runs one, dunlin doctor says what keeps it from that", err)
		}
		return command.Exit(exitUnreachable, err)
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w\n--home DIR of the running node gives the command its token", err)
	case errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable:
		return command.Exit(exitNotReady, err)
	}
	return err
}

// misused is unreachable for commands that hand their argument on: if the node refuses it, it is a fault of usage.
func misused(err error) error {
	if refused, ok := errors.AsType[*api.Error](err); ok && (refused.Status == http.StatusBadRequest || refused.Status == http.StatusUnprocessableEntity) {
		return usage(err)
	}
	return unreachable(err)
}

// wantHash checks an argument that must be a hash, of what.
func wantHash(text, what string) error {
	if _, err := chainhash.NewHashFromStr(text); err != nil || len(text) != 2*chainhash.HashSize {
		return usage(fmt.Errorf("%q: must be a %s of %d hex digits", text, what, 2*chainhash.HashSize))
	}
	return nil
}

func newStatus(g *global) *cobra.Command {
	var again watch
	cmd := &cobra.Command{
		Use: "status", Short: "Print what the running node is doing", Args: args(cobra.NoArgs),
		Example: "  dunlin status --watch\n  dunlin status --watch -o json | jq .height",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := again.check(); err != nil {
				return err
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			return again.run(g, cmd, func(ctx context.Context) (any, error) {
				s, err := c.Status(ctx)
				return s, unreachable(err)
			}, func(w io.Writer, v any) {
				printStatus(w, v.(api.Status)) //nolint:forcetypeassert // look returned it
			}, func(v any) []string {
				return []string{statusLine(time.Now(), v.(api.Status))} //nolint:forcetypeassert // look returned it
			})
		},
	}
	again.flags(cmd)
	return cmd
}

// statusLine is a status in one line, as status --watch writes it where nothing can be drawn.
func statusLine(now time.Time, s api.Status) string {
	line := fmt.Sprintf("%s %s height %d of %d peers %d in %d out mempool %d", now.Format(time.TimeOnly), s.Sync.State, s.Height, s.TargetHeight,
		s.Peers.Inbound, s.Peers.Outbound, s.Mempool.Count)
	if s.Sync.State != api.StateSynced {
		line += " | " + syncLine(&s)
	} else if s.Sync.Reason != "" {
		line += " | " + s.Sync.Reason
	}
	return line
}

func printStatus(w io.Writer, s api.Status) {
	t := newTable(w)
	fmt.Fprintf(t, "network\t%s\n", s.ChainID)
	fmt.Fprintf(t, "peer id\t%s\n", s.PeerID)
	fmt.Fprintf(t, "height\t%d of %d (headers %d)\n", s.Height, s.TargetHeight, s.HeaderHeight)
	fmt.Fprintf(t, "tip\t%s, %s\n", s.TipHash, s.TipTime.Format(time.RFC3339))
	if n := s.Slots; n != nil {
		fmt.Fprintf(t, "stake\tabout %s of %s takes part; slot %d, the tip's was %d before\n", amount(n.Online), amount(n.Supply), n.Now, n.SinceBlock)
	}
	sync := s.Sync.State
	if s.Sync.State == api.StateBlocks || s.Sync.State == api.StateHeaders || s.Sync.State == api.StateStalled {
		eta := "unknown"
		if s.Sync.ETAS != nil {
			eta = (time.Duration(*s.Sync.ETAS) * time.Second).String()
		}
		sync += fmt.Sprintf(" %.1f%%, %.0f blk/s, %.1f MB/s, eta %s, behind %s, in flight %d/%d",
			shownPercent(&s.Sync), s.Sync.BlocksPerS, s.Sync.BytesPerS/1e6, eta,
			(time.Duration(s.Sync.BehindS) * time.Second).String(), s.Sync.InFlight, s.Sync.InFlightLimit)
	}
	if s.Sync.Reason != "" {
		sync += " (" + s.Sync.Reason + ")"
	}
	fmt.Fprintf(t, "sync\t%s\n", sync)
	fmt.Fprintf(t, "peers\t%d inbound, %d outbound\n", s.Peers.Inbound, s.Peers.Outbound)
	fmt.Fprintf(t, "mempool\t%d transactions, %d bytes\n", s.Mempool.Count, s.Mempool.Bytes)
	fmt.Fprintf(t, "gossip\t%s\n", describeGossip(&s.Gossip))
	if s.Staking != nil {
		fmt.Fprintf(t, "staking\t%s; %s\n", stakingState(s.Staking), stakingWeight(s.Staking))
	}
	fmt.Fprintf(t, "uptime\t%s\n", (time.Duration(s.UptimeS) * time.Second).String())
	t.Flush()
}

// describeGossip is how blocks reach the node.
func describeGossip(g *api.GossipStatus) string {
	out := fmt.Sprintf("%d of %d peers are neighbours; blocks: %d whole, %d compact", g.BlockMesh, g.BlockPeers, g.Whole+g.Fetched, g.Compact)
	if g.Compact > 0 {
		out += fmt.Sprintf(" (%.1f%% of their transactions were here)", g.HitPercent)
	}
	return out
}

func newHealthcheck(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "healthcheck", Short: "Exit 0 if the node is synced, 3 if not, 4 if there is none", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			if s.Sync.State != api.StateSynced { // as GET /readyz judges
				why := ""
				if s.Sync.Reason != "" {
					why = ": " + s.Sync.Reason
				}
				return command.Exit(exitNotReady, fmt.Errorf("not ready: %s, height %d of %d%s", s.Sync.State, s.Height, s.TargetHeight, why))
			}
			v := struct {
				State  string `json:"state"`
				Height int32  `json:"height"`
			}{s.Sync.State, s.Height}
			return g.print(cmd, v, func(w io.Writer) { fmt.Fprintf(w, "ok: %s at height %d\n", v.State, v.Height) })
		},
	}
}

// identity is what `dunlin id -o json` prints.
type identity struct {
	api.NodeFile
	Reachability *api.Reachability `json:"reachability,omitempty"` // of the running node
	Invitation   string            `json:"invitation,omitempty"`   // with which others join it
}

func newID(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "id", Short: "Print the node's peer id and, if it runs, where it can be reached and its addresses", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			v := identity{NodeFile: api.NodeFile{Network: c.Chain.Params.Name, ChainID: c.Chain.ChainID(), ListenAddrs: []string{}}}
			if node, n, err := api.Open(c.Home); err == nil {
				v.NodeFile = n
				ctx, cancel := context.WithTimeout(cmd.Context(), idPatience)
				defer cancel()
				if r, err := node.Reachability(ctx); err == nil { // it starts, or it is of another version
					v.Reachability = &r
				}
				if v.Invitation, err = invite(c.Chain, &n); err != nil && !errors.Is(err, config.ErrInviteTooLong) {
					return err
				}
			} else {
				key, err := host.LoadKey(filepath.Join(c.Home, keyFile))
				if errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("%s has no key yet: dunlin init or dunlin start makes one", c.Home)
				}
				if err != nil {
					return err
				}
				id, err := peer.IDFromPrivateKey(key)
				if err != nil {
					return fmt.Errorf("peer id: %w", err)
				}
				v.PeerID = id.String()
			}
			return g.print(cmd, v, func(w io.Writer) {
				fmt.Fprintln(w, v.PeerID)
				if v.Reachability != nil {
					printReachability(w, v.Reachability)
				}
				if v.Invitation != "" {
					fmt.Fprintf(w, "join with    dunlin network join %s\n", v.Invitation)
				}
				for _, a := range v.ListenAddrs { // last: scripts take the last line
					fmt.Fprintln(w, a)
				}
			})
		},
	}
}

// idPatience is how long `dunlin id` waits for a node that is busy.
const idPatience = 2 * time.Second

func printReachability(w io.Writer, r *api.Reachability) {
	t := newTable(w)
	row := func(name string, list []string) {
		if len(list) > 0 {
			fmt.Fprintf(t, "%s\t%s\n", name, strings.Join(list, " "))
		}
	}
	row("listen", r.Listen)
	row("announced", r.Announced)
	var seen []string
	for _, o := range r.Observed {
		seen = append(seen, fmt.Sprintf("%s (%d)", o.Addr, o.By))
	}
	row("observed", seen)
	row("mapped", r.Mapped)
	row("unreachable", r.Unreachable)
	row("relayed", r.Relays)
	state := map[string]string{
		host.ReachLocal: "a private network, nobody is asked", host.ReachAnnounced: "as announced, not checked", host.ReachChecking: "not known yet",
		host.ReachConfirmed: "yes: " + strings.Join(r.Confirmed, " "), host.ReachUnreachable: "no: " + r.Reason + "; do: " + r.Do,
	}[r.Verdict]
	fmt.Fprintf(t, "reachable\t%s\n", cmp.Or(state, r.Verdict))
	t.Flush()
}

// listPeers makes cmd list the connected peers.
func (g *global) listPeers(cmd *cobra.Command) *cobra.Command {
	var again watch
	again.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := again.check(); err != nil {
			return err
		}
		c, err := g.client(cmd)
		if err != nil {
			return err
		}
		var before map[string]api.Peer
		return again.run(g, cmd, func(ctx context.Context) (any, error) {
			peers, err := c.Peers(ctx)
			sort.SliceStable(peers, func(i, j int) bool { return !peers[i].Inbound && peers[j].Inbound })
			return peers, unreachable(err)
		}, func(w io.Writer, v any) {
			printPeers(w, v.([]api.Peer)) //nolint:forcetypeassert // look returned it
		}, func(v any) (lines []string) {
			lines, before = peerChanges(time.Now(), before, v.([]api.Peer)) //nolint:forcetypeassert // look returned it
			return lines
		})
	}
	return cmd
}

func direction(p *api.Peer) string {
	if p.Inbound {
		return "in"
	}
	return "out"
}

func printPeers(w io.Writer, peers []api.Peer) {
	t := newTable(w, "PEER", "DIR", "ADDRESS", "HEIGHT", "RTT", "AGENT", "SINCE", "STANDING")
	for _, p := range peers {
		height, since := "-", "-"
		if p.Ready {
			height, since = fmt.Sprint(p.Height), time.Since(p.Since).Round(time.Second).String()
		}
		standing := cmp.Or(p.Standing, "-")
		if len(p.Reasons) > 0 {
			standing += fmt.Sprintf(" %.0f: %s", p.Score, strings.Join(p.Reasons, "; "))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1fms\t%s\t%s\t%s\n", p.ID, direction(&p), p.Addr, height, p.RTTMS, printable(p.Agent), since, standing)
	}
	t.Flush()
}

// peerChanges tells who came and who went since the list before, and returns the list for the next time.
func peerChanges(now time.Time, before map[string]api.Peer, peers []api.Peer) (lines []string, after map[string]api.Peer) {
	after = make(map[string]api.Peer, len(peers))
	for _, p := range peers {
		after[p.ID] = p
		if _, known := before[p.ID]; !known {
			lines = append(lines, fmt.Sprintf("%s + %s %s %s", now.Format(time.TimeOnly), p.ID, direction(&p), p.Addr))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[id]; !still {
			lines = append(lines, fmt.Sprintf("%s - %s %s", now.Format(time.TimeOnly), id, before[id].Addr))
		}
	}
	return lines, after
}

func newPeers(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "peers", Short: "List the connected peers; add, remove, export, import, ban",
		Args:    onlyChildren,
		Example: "  dunlin peers --watch\n  dunlin peers -o jsonl | jq -r .addr",
	}
	g.listPeers(cmd)
	cmd.AddCommand(
		g.listPeers(&cobra.Command{Use: "list", Short: "List the connected peers", Args: args(cobra.NoArgs)}),
		&cobra.Command{
			Use: "added", Short: "List the peers that were added, connected or not", Args: args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				addrs, err := c.AddedPeers(cmd.Context())
				if err != nil {
					return unreachable(err)
				}
				return g.print(cmd, addrs, func(w io.Writer) {
					for _, a := range addrs {
						fmt.Fprintln(w, a)
					}
				})
			},
		},
		&cobra.Command{
			Use: "add MULTIADDR", Short: "Dial a peer and keep it over restarts", Args: args(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, a []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				if err := c.AddPeer(cmd.Context(), a[0]); err != nil {
					return misused(err)
				}
				return g.print(cmd, api.Accepted{Status: "accepted"}, func(w io.Writer) {
					fmt.Fprintln(w, "added: it is dialled in the background")
				})
			},
		},
		newPeersRemove(g),
		newPeersExport(g),
		newPeersImport(g),
		newBan(g),
		&cobra.Command{
			Use: "unban PEER_ID|IP|CIDR", Short: "Lift a ban", Args: args(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, a []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				if err := c.Unban(cmd.Context(), a[0]); err != nil {
					return misused(err)
				}
				return g.print(cmd, api.Accepted{Status: "lifted"}, func(w io.Writer) { fmt.Fprintln(w, "lifted") })
			},
		},
		&cobra.Command{
			Use: "bans", Short: "List the bans in force", Args: args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				bans, err := c.Bans(cmd.Context())
				if err != nil {
					return unreachable(err)
				}
				return g.print(cmd, bans, func(w io.Writer) {
					t := newTable(w, "TARGET", "SINCE", "UNTIL", "REASON")
					for _, b := range bans {
						if b.Auto {
							b.Reason = "(by the node) " + b.Reason
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", b.Target, b.Since.Format(time.DateTime), b.Until.Format(time.DateTime), b.Reason)
					}
					t.Flush()
				})
			},
		},
	)
	return cmd
}

func newPeersRemove(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "remove PEER_ID|MULTIADDR", Short: "Forget a peer that was added; it is not disconnected", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			id := a[0]
			if i, err := peer.AddrInfoFromString(id); err == nil {
				id = i.ID.String()
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			if err := c.RemovePeer(cmd.Context(), id); err != nil {
				return misused(err)
			}
			return g.print(cmd, api.Accepted{Status: "removed"}, func(w io.Writer) { fmt.Fprintln(w, "removed") })
		},
	}
}

func newBan(g *global) *cobra.Command {
	var how time.Duration
	var reason string
	cmd := &cobra.Command{
		Use: "ban PEER_ID|IP|CIDR", Short: "Keep a peer or addresses away, both ways, over restarts",
		Example: "  dunlin peers ban 203.0.113.0/24 --for 72h --reason 'floods us'",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if how < time.Second {
				return usage(fmt.Errorf("--for %s: at least 1s", how))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			b, err := c.Ban(cmd.Context(), a[0], how, reason)
			if err != nil {
				return misused(err)
			}
			return g.print(cmd, b, func(w io.Writer) { fmt.Fprintf(w, "%s is banned until %s\n", b.Target, b.Until.Format(time.DateTime)) })
		},
	}
	cmd.Flags().DurationVar(&how, "for", 24*time.Hour, "how long")
	cmd.Flags().StringVar(&reason, "reason", "", "for people; at most 200 bytes are kept")
	return cmd
}

func newMiner(g *global) *cobra.Command {
	printMiner := func(cmd *cobra.Command, s api.MinerStatus) error {
		return g.print(cmd, s, func(w io.Writer) {
			state := "stopped"
			if s.Running {
				state = "running"
			}
			if s.Reason != "" {
				state += " (" + s.Reason + ")"
			}
			fmt.Fprintf(w, "miner    %s\n", state)
			if s.Address != "" { // where stake makes blocks it is the winner's own, unless mining.address is set
				fmt.Fprintf(w, "address  %s\n", s.Address)
			}
			fmt.Fprintf(w, "blocks   %d\n", s.Blocks)
		})
	}
	turn := func(on bool) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			s, err := c.SwitchMiner(cmd.Context(), on)
			if err != nil {
				return unreachable(err)
			}
			return printMiner(cmd, s)
		}
	}
	var data string
	var wait time.Duration
	block := &cobra.Command{
		Use:   "block --data TEXT",
		Short: "Make one block that carries a text (- reads lines, a block each)",
		Long: `block makes one block, also where the miner is stopped. On proof-of-stake networks it waits for the next slot that this node's stake
wins: dunlin stake status says how long that takes on average, and --timeout how long to wait.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usage(errors.New("--data is required: a text, or - to read lines from standard input"))
			}
			if wait != 0 && (wait < time.Second || wait > 10*time.Minute) {
				return usage(fmt.Errorf("--timeout %s: from 1s to 10m", wait))
			}
			c, err := g.client(cmd)
			if err != nil {
				return err
			}
			if data != "-" {
				return g.mineBlock(cmd, c, data, wait)
			}
			lines := bufio.NewScanner(cmd.InOrStdin())
			for lines.Scan() {
				if text := strings.TrimSpace(lines.Text()); text != "" {
					if err := g.mineBlock(cmd, c, text, wait); err != nil {
						return err
					}
				}
			}
			return lines.Err()
		},
	}
	block.Flags().DurationVar(&wait, "timeout", 0, "how long to wait for the block (default 1m0s)")
	block.Flags().StringVar(&data, "data", "", "text of the block, at most 80 bytes; - reads lines")
	return group("miner", "Make blocks (proof-of-work test networks)",
		&cobra.Command{
			Use: "status", Short: "Print what the miner does", Args: args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				s, err := c.Miner(cmd.Context())
				if err != nil {
					return unreachable(err)
				}
				return printMiner(cmd, s)
			},
		},
		&cobra.Command{Use: "start", Short: "Start mining", Args: args(cobra.NoArgs), RunE: turn(true)},
		&cobra.Command{Use: "stop", Short: "Stop mining", Args: args(cobra.NoArgs), RunE: turn(false)},
		block, newMinerGBT(g),
	)
}

func (g *global) mineBlock(cmd *cobra.Command, c *api.Client, data string, wait time.Duration) error {
	b, err := c.MineBlock(cmd.Context(), data, wait)
	if err != nil {
		return unreachable(err)
	}
	return g.print(cmd, b, func(w io.Writer) { fmt.Fprintf(w, "block %d %s data %q\n", b.Height, b.Hash, b.Data) })
}

func newTx(g *global) *cobra.Command {
	return group("tx", "Transactions",
		&cobra.Command{
			Use: "send HEX", Short: "Hand a signed transaction to the running node, which relays it", Args: args(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, a []string) error {
				if _, err := hex.DecodeString(a[0]); err != nil {
					return usage(errors.New("HEX: want the bytes of a transaction, two hex digits each"))
				}
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				id, err := c.SubmitTx(cmd.Context(), a[0])
				if err != nil {
					return unreachable(err)
				}
				return g.print(cmd, api.TxAnswer{TxID: id}, func(w io.Writer) { fmt.Fprintln(w, id) })
			},
		},
		&cobra.Command{
			Use: "show TXID", Short: "Print what is known of a transaction: waiting, in the chain, or lost, and why", Args: args(cobra.ExactArgs(1)),
			RunE: func(cmd *cobra.Command, a []string) error {
				if err := wantHash(a[0], "transaction id"); err != nil {
					return err
				}
				c, err := g.client(cmd)
				if err != nil {
					return err
				}
				tx, err := c.Tx(cmd.Context(), a[0])
				if err != nil {
					return unreachable(err)
				}
				return g.print(cmd, tx, func(w io.Writer) { printTx(w, tx) })
			},
		})
}

func printTx(w io.Writer, tx api.Tx) {
	t := newTable(w)
	fmt.Fprintf(t, "txid\t%s\n", tx.TxID)
	status := tx.Status
	switch tx.Status {
	case api.TxInMempool:
		status = fmt.Sprintf("in the mempool since %s, %d satoshi for %d virtual bytes", tx.Time.Format(time.RFC3339), tx.Fee, tx.VSize)
	case api.TxConfirmed:
		status = fmt.Sprintf("confirmed in block %d, %d confirmations", tx.Height, tx.Confirmations)
	case api.TxConflicted:
		status = fmt.Sprintf("conflicted by %s in block %d, %d confirmations", tx.SpentBy, tx.Height, tx.Confirmations)
		if tx.Confirmations == 0 {
			status += " (that block is no longer in the chain: it may be sent again)"
		}
	case api.TxReplaced:
		status = "replaced by " + tx.SpentBy
	case api.TxInvalid:
		status = "no longer valid after a reorg: " + tx.Rule
	case api.TxEvicted:
		status = "not kept: " + tx.Rule
	case api.TxExpired:
		status = "expired: not mined in time"
	}
	fmt.Fprintf(t, "status\t%s\n", status)
	if tx.BlockHash != "" {
		fmt.Fprintf(t, "block\t%s\n", tx.BlockHash)
	}
	if tx.Via != "" {
		fmt.Fprintf(t, "because of\t%s, which it spends from\n", tx.Via)
	}
	if tx.WasBlock != "" {
		fmt.Fprintf(t, "was in\tblock %d, %s\n", tx.WasHeight, tx.WasBlock)
	}
	for _, p := range tx.Parents {
		fmt.Fprintf(t, "spends from\t%s\n", p)
	}
	t.Flush()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && isatty.IsTerminal(f.Fd())
}

// pause waits for d and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
