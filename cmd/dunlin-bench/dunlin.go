package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dunlin/internal/api"
)

// dunlins is our side: the dunlin binary with its default settings, on loopback.
type dunlins struct {
	program string
	dir     string // homes
	procs   *procs
	homes   map[string]int // of servers, by chain: how many were made
}

func (d *dunlins) name() string { return "dunlin" }

// version asks the binary for its version.
func (d *dunlins) version(ctx context.Context) (string, error) {
	out, err := d.procs.toEnd(ctx, "dunlin version", d.program, "version")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// serve implements system. The blocks are imported once a chain; further homes are copies.
func (d *dunlins) serve(ctx context.Context, set string, c *chainFile, n int) ([]*node, error) {
	home := func(i int) string { return filepath.Join(d.dir, fmt.Sprintf("dunlin-%s-%d", set, i)) }
	if d.homes[set] == 0 {
		// Its own file's blocks need no checks of scripts here: the clients make them.
		args := slices.Concat([]string{"chain", "import", "--home", home(0), "--assume-valid", c.last.String()}, c.flags(), []string{c.path})
		if _, err := d.procs.toEnd(ctx, "dunlin chain import "+c.path, d.program, args...); err != nil {
			return nil, err
		}
		d.homes[set] = 1
	}
	for ; d.homes[set] < n; d.homes[set]++ {
		if err := copyHome(home(d.homes[set]), home(0)); err != nil {
			return nil, err
		}
	}
	var servers []*node
	for i := range n {
		s, err := d.start(ctx, c, fmt.Sprintf("dunlin-%s-server%d", set, i), home(i), nil)
		if err != nil {
			return servers, err
		}
		servers = append(servers, s)
	}
	for _, s := range servers {
		height, hash, err := s.ready(ctx)
		if err != nil {
			return servers, err
		}
		if int(height) != c.blocks || hash != c.last.String() {
			return servers, fmt.Errorf("%s is at height %d %s; %s ends at height %d %v", s.name, height, hash, c.path, c.blocks, c.last)
		}
	}
	return servers, nil
}

// copyHome copies a stopped home without what makes it this very node.
func copyHome(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	for _, own := range []string{"identity.key", api.CookieFile, api.NodeFileName} {
		if err := os.Remove(filepath.Join(to, own)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// client implements system.
func (d *dunlins) client(ctx context.Context, c *chainFile, home string, from []remote, args []string) (*node, error) {
	for _, r := range from {
		_, port, err := net.SplitHostPort(r.at)
		if err != nil {
			return nil, err
		}
		args = append(slices.Clip(args), "--bootstrap", "/ip4/127.0.0.1/tcp/"+port+"/p2p/"+r.server.id)
	}
	return d.start(ctx, c, "dunlin-client", home, args)
}

func (d *dunlins) start(_ context.Context, c *chainFile, name, home string, args []string) (*node, error) {
	// What an earlier run left, killed, must not be taken for this one's.
	if err := os.Remove(filepath.Join(home, api.NodeFileName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	child, err := d.procs.start(name, d.program, slices.Concat([]string{
		"start", "--home", home, "--listen", "/ip4/127.0.0.1/tcp/0", "--rpc-listen", "127.0.0.1:0", "--log-color", "never",
	}, c.flags(), args)...)
	if err != nil {
		return nil, err
	}
	n := &node{child: child}
	var client *api.Client
	open := func() error {
		if client != nil {
			return nil
		}
		opened, info, err := api.Open(home)
		if errors.Is(err, api.ErrUnreachable) || (err == nil && info.PID != child.pid) {
			return errNotYet
		}
		if err != nil {
			return err
		}
		client, n.id = opened, info.PeerID
		for _, a := range info.ListenAddrs {
			if rest, ok := strings.CutPrefix(a, "/ip4/127.0.0.1/tcp/"); ok {
				port, _, _ := strings.Cut(rest, "/")
				n.listen = net.JoinHostPort("127.0.0.1", port)
			}
		}
		if n.listen == "" {
			return fmt.Errorf("listens on %v, not on TCP at loopback", info.ListenAddrs)
		}
		return nil
	}
	n.tip = func(ctx context.Context) (int32, string, error) {
		if err := open(); err != nil {
			return 0, "", err
		}
		s, err := client.Status(ctx)
		if errors.Is(err, api.ErrUnreachable) {
			return 0, "", errNotYet
		}
		return s.Height, s.TipHash, err
	}
	n.busiest = func(ctx context.Context, from []remote) (int, error) {
		if err := open(); err != nil {
			return -1, err
		}
		peers, err := client.Peers(ctx)
		best, most := -1, int64(0)
		for _, p := range peers {
			i := slices.IndexFunc(from, func(r remote) bool { return r.server.id == p.ID })
			if i >= 0 && p.BytesIn > most {
				best, most = i, p.BytesIn
			}
		}
		return best, err
	}
	return n, nil
}
