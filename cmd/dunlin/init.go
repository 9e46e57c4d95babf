package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"dunlin/config"
	"dunlin/internal/host"
)

// keyFile is the identity in the home.
const keyFile = "identity.key"

func newInit(g *global) *cobra.Command {
	var seed string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a home: key and config file (start does it too)",
		Long: `init makes the home, the node's key and a config file in which every key is explained. It changes nothing
that is there. dunlin start does the same on its first run.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load(cmd.Flags())
			if err != nil {
				return err
			}
			if err := sameChain(c); err != nil {
				return err
			}
			path := filepath.Join(c.Home, keyFile)
			if seed != "" {
				if err := initSeed(cmd.ErrOrStderr(), c, path, seed); err != nil {
					return err
				}
			}
			if err := config.EnsureHome(c.Home); err != nil {
				return err
			}
			key, err := host.LoadOrCreateKey(path, nil)
			if err != nil {
				return err
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return fmt.Errorf("peer id: %w", err)
			}
			wrote, err := c.WriteFile()
			if err != nil {
				return err
			}
			v := struct {
				Home    string `json:"home"`
				Network string `json:"network"`
				ChainID string `json:"chain_id"`
				PeerID  string `json:"peer_id"`
				Config  string `json:"config"`
				Wrote   bool   `json:"config_written"`
			}{c.Home, c.Chain.Params.Name, c.Chain.ChainID(), id.String(), filepath.Join(c.Home, config.FileName), wrote}
			return g.print(cmd, v, func(w io.Writer) {
				fmt.Fprintf(w, "home     %s\nchain    %s\npeer id  %s\nconfig   %s\n", v.Home, v.ChainID, v.PeerID, v.Config)
			})
		},
	}
	cmd.Flags().StringVar(&seed, "key-seed", "", "make the fixed key number N, for tests: anyone can compute it (refused on bitcoin)")
	return cmd
}

// sameChain refuses a home whose config file is for another chain than c: a home
// belongs to one.
func sameChain(c *config.Config) error {
	if _, err := os.Stat(filepath.Join(c.Home, config.FileName)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	there, err := config.Load(config.LoadOptions{Home: c.Home, Env: []string{}})
	if err != nil {
		return usage(err)
	}
	if have, want := there.Chain.ChainID(), c.Chain.ChainID(); have != want {
		return usage(fmt.Errorf("home %s belongs to another chain: %s, not %s: choose another --home", c.Home, have, want))
	}
	return nil
}

// initSeed writes the fixed key of a seed, unless the home has it already.
func initSeed(stderr io.Writer, c *config.Config, path, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return usage(fmt.Errorf("--key-seed %q: must be a number from 0 to 18446744073709551615", seed))
	}
	if !c.Chain.Params.Test {
		return usage(fmt.Errorf("--key-seed %d: anyone can compute this key, so it is refused on %s", n, c.Chain.Params.Name))
	}
	fmt.Fprintf(stderr, "dunlin: warning: the key of seed %d is no secret: anyone can pose as this node; use it in tests only\n", n)
	want := host.KeyFromSeed(n)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := config.EnsureHome(c.Home); err != nil {
			return err
		}
		return host.SaveKey(path, want)
	}
	have, err := host.LoadOrCreateKey(path, nil)
	if err != nil {
		return err
	}
	if !have.Equals(want) {
		return fmt.Errorf("%s holds another key already: give --key-seed a new home, or remove the file to become a new peer", path)
	}
	return nil
}
