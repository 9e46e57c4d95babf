package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/host"
)

const (
	// maxInviteFile bounds what is read as an invitation or a network.toml.
	maxInviteFile = 64 << 10
	fetchTimeout  = 30 * time.Second
	// networkFile is the name of a joined network's description in its home.
	networkFile = "network.toml"
	// invitedAddrs is how many of a node's own addresses its invitation has: more make it long and help nobody.
	invitedAddrs = 3
)

func newNetworkJoin(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "join INVITATION|FILE|URL", Short: "Make a home of somebody's network, ready to start",
		Long: `join takes an invitation (dunlin1…, as dunlin network show --invite and dunlin id print it), a file that holds one or is a network.toml,
- for standard input, or an https URL of either. It makes the home with its key, and writes which chain it is and whom to meet it through.

In a home of that network it adds the nodes that are new; a home of another chain is refused. Compare the chain id with who invited you: an
invitation says what its sender wanted it to say.`,
		Example: "  dunlin network join dunlin1…\n  dunlin network join office.toml --home /srv/office\n  dunlin start --home /srv/office",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			for _, f := range []string{"network", "network-file"} {
				if cmd.Flags().Changed(f) {
					return usage(fmt.Errorf("--%s: the invitation says which network it is", f))
				}
			}
			i, err := readInvitation(cmd.Context(), cmd.InOrStdin(), a[0])
			if err != nil {
				return usage(err)
			}
			return g.join(cmd, i)
		},
	}
}

// readInvitation reads one from wherever it is.
func readInvitation(ctx context.Context, stdin io.Reader, what string) (config.Invitation, error) {
	switch {
	case config.IsInvitation(what):
		return config.ParseInvitation(what)
	case slices.Contains(config.PresetNames(), what):
		return config.Invitation{}, fmt.Errorf("%s needs no invitation: dunlin start --network %s --bootstrap ADDRESS", what, what)
	}
	var data []byte
	var err error
	switch {
	case what == "-":
		data, err = readBounded(stdin)
	case strings.Contains(what, "://"):
		data, err = fetch(ctx, what)
	default:
		data, err = readInviteFile(what)
	}
	if err != nil {
		return config.Invitation{}, fmt.Errorf("%s: %w", what, err)
	}
	if config.IsInvitation(string(data)) {
		return config.ParseInvitation(string(data))
	}
	return config.InvitationFrom(what, data)
}

func readInviteFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("is neither an invitation (dunlin1…) nor a file")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInviteFile+1))
	if err == nil && len(data) > maxInviteFile {
		err = fmt.Errorf("has more than %d bytes", maxInviteFile)
	}
	return data, err
}

// fetch gets a file by https; plain http only from this machine, for on the way anybody could exchange the network.
func fetch(ctx context.Context, text string) ([]byte, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	check := func(u *url.URL) error {
		local := u.Hostname() == "localhost"
		if ip := net.ParseIP(u.Hostname()); ip != nil {
			local = ip.IsLoopback()
		}
		if u.Scheme == "https" || u.Scheme == "http" && local {
			return nil
		}
		return errors.New("must be an https URL: over another one anybody on the way could put another network in its place")
	}
	if err := check(u); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 4 {
			return errors.New("too many redirects")
		}
		return check(r.URL)
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers %s", res.Status)
	}
	return readBounded(res.Body)
}

// joined is what network join prints.
type joined struct {
	Home      string   `json:"home"`
	Network   string   `json:"network"`
	ChainID   string   `json:"chain_id"`
	Genesis   string   `json:"genesis"`
	PeerID    string   `json:"peer_id"`
	Bootstrap []string `json:"bootstrap"`
	DNSSeeds  []string `json:"dns_seeds"`
	Start     string   `json:"start"`
}

// join makes or extends the home of a network.
func (g *global) join(cmd *cobra.Command, i config.Invitation) error {
	n := *i.Network
	home, err := joinHome(g.home, &n)
	if err != nil {
		return usage(err)
	}
	there, err := homeChain(home)
	if err != nil {
		return usage(err)
	}
	if there != nil && there.ChainID() != n.ChainID() {
		return usage(fmt.Errorf("home %s belongs to another chain: %s, not %s: choose another --home", home, there.ChainID(), n.ChainID()))
	}
	if there == nil && hasChain(home) == nil {
		return usage(fmt.Errorf("home %s has a chain and no %s that says which: choose another --home", home, config.FileName))
	}
	if err := config.EnsureHome(home); err != nil {
		return err
	}
	key, err := host.LoadOrCreateKey(filepath.Join(home, keyFile), nil)
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return fmt.Errorf("peer id: %w", err)
	}
	v := joined{
		Home: home, Network: n.Params.Name, ChainID: n.ChainID(), Genesis: n.Params.GenesisHash.String(), PeerID: id.String(),
		Bootstrap: append([]string{}, n.Bootstrap...), DNSSeeds: append([]string{}, n.DNSSeeds...), Start: "dunlin start --home " + home,
	}
	if there == nil {
		if file := i.NetworkFile(); file != nil {
			n.File = filepath.Join(home, networkFile)
			if err := replaceFile(n.File, file); err != nil {
				return fmt.Errorf("network file: %w", err)
			}
		}
		c := config.Default(&n)
		c.Home = home
		if _, err := c.WriteFile(); err != nil {
			return err
		}
	}
	if v.Bootstrap, err = mergeSources(home, &n); err != nil {
		return err
	}
	return g.print(cmd, v, func(w io.Writer) {
		t := newTable(w)
		fmt.Fprintf(t, "network\t%s (chain id %s)\ngenesis\t%s\nhome\t%s\npeer id\t%s\n", v.Network, v.ChainID, v.Genesis, v.Home, v.PeerID)
		for _, b := range v.Bootstrap {
			fmt.Fprintf(t, "bootstrap\t%s\n", b)
		}
		if len(v.Bootstrap)+len(v.DNSSeeds) == 0 {
			fmt.Fprintf(t, "bootstrap\tnone: the invitation names no node; dunlin bootstrap add --home %s ADDRESS\n", v.Home)
		}
		fmt.Fprintf(t, "start\t%s\n", v.Start)
		t.Flush()
	})
}

// mergeSources writes what n names, and the home's settings lack, into the home's config file. It returns the bootstrap nodes that hold now.
func mergeSources(home string, n *config.Network) ([]string, error) {
	c, err := config.Load(config.LoadOptions{Home: home, Env: []string{}})
	if err != nil {
		return nil, err
	}
	for _, of := range []struct {
		key         string
		have, given []string
	}{{bootstrapKey, c.P2P.Bootstrap, n.Bootstrap}, {"p2p.dns_seeds", c.P2P.DNSSeeds, n.DNSSeeds}} {
		all := of.have
		for _, s := range of.given {
			if !slices.Contains(all, s) {
				all = append(slices.Clip(all), s)
			}
		}
		if len(all) == len(of.have) {
			continue
		}
		if _, err := config.SetInFile(home, of.key, all...); err != nil {
			return nil, err
		}
		if of.key == bootstrapKey {
			c.P2P.Bootstrap = all
		}
	}
	return append([]string{}, c.P2P.Bootstrap...), nil
}

// joinHome is where a network's home belongs, absolute.
func joinHome(given string, n *config.Network) (string, error) {
	home := given
	if home == "" {
		home = os.Getenv("DUNLIN_HOME")
	}
	if home == "" {
		return config.DefaultHome(os.Environ(), n.ChainID())
	}
	return filepath.Abs(home)
}

// homeChain is the network of a home, by its config file; nil if it has none.
func homeChain(home string) (*config.Network, error) {
	if _, err := os.Stat(filepath.Join(home, config.FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, which is no fault
	}
	c, err := config.Load(config.LoadOptions{Home: home, Env: []string{}})
	if err != nil {
		return nil, err
	}
	return c.Chain, nil
}

// invite makes the invitation into n that names a running node, if there is one, and others.
func invite(n *config.Network, node *api.NodeFile, others ...string) (string, error) {
	var own []string
	if node != nil && node.ChainID == n.ChainID() {
		// Those through a relay are for who is connected with it already.
		own = slices.DeleteFunc(slices.Clone(node.ListenAddrs), relayed)
		// The best come first; those that only this machine can dial are of use only if there are no others.
		if beyond := slices.DeleteFunc(slices.Clone(own), onlyHere); len(beyond) > 0 {
			own = beyond
		}
		own = own[:min(len(own), invitedAddrs)]
	}
	i, err := config.NewInvitation(n, append(slices.Clone(own), others...)...)
	if err != nil {
		return "", err
	}
	text := i.String()
	again, err := config.ParseInvitation(text) // what is handed out can be read
	if err == nil && !bytes.Equal(again.NetworkFile(), i.NetworkFile()) {
		err = errors.New("it does not say what it should")
	}
	if err != nil {
		return "", fmt.Errorf("invitation: %w", err)
	}
	return text, nil
}

func relayed(addr string) bool { return strings.Contains(addr, "/p2p-circuit") }

func onlyHere(addr string) bool {
	a, err := ma.NewMultiaddr(addr)
	return err == nil && manet.IsIPLoopback(a)
}
