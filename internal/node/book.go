package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/exchange"
	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/discovery"
	"dunlin/internal/host"
)

// OpenBook opens the address book in the home of c, which it makes if it is missing, and locks the home until the
// closer is called. [store.ErrLocked]: a node runs there.
func OpenBook(c *config.Config, log *slog.Logger) (_ *discovery.Book, unlock io.Closer, err error) {
	if err := config.EnsureHome(c.Home); err != nil {
		return nil, nil, err
	}
	unlock, err = store.LockHome(c.Home)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock.Close())
		}
	}()
	if _, err := c.WriteFile(); err != nil { // as after a start, the home remembers its network from now on
		return nil, nil, err
	}
	listen, err1 := multiaddrs("p2p.listen", c.P2P.Listen)
	bootstrap, err2 := multiaddrs("p2p.bootstrap", c.P2P.Bootstrap)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	private, _ := onPrivateNetwork(c, listen, bootstrap)
	var self peer.ID
	key, err := host.LoadKey(filepath.Join(c.Home, keyFile))
	switch {
	case err == nil:
		if self, err = peer.IDFromPrivateKey(key); err != nil {
			return nil, nil, fmt.Errorf("peer id: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	book, err := discovery.OpenBook(discovery.Options{
		Namespace: exchange.Prefix(c.Chain.ChainID()), Dir: filepath.Join(c.Home, peersDir), Private: private,
		Logger: log.With("subsystem", "discovery"),
	}, self)
	return book, unlock, err
}
