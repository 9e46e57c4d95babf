package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A system is a kind of node under test: dunlin or btcd.
type system interface {
	name() string
	// serve starts n servers that have all blocks of a chain and hand them out.
	serve(ctx context.Context, set string, c *chainFile, n int) ([]*node, error)
	// client starts a node in a home that may not exist yet and has it download from
	// where servers are reached. It returns at once, before the node listens.
	client(ctx context.Context, c *chainFile, home string, from []remote, args []string) (*node, error)
}

// A remote is a server and the host:port where a client is to reach it: its own or
// that of a proxy.
type remote struct {
	server *node
	at     string
}

// A node is one running daemon of either system.
type node struct {
	*child
	listen string // host:port for peers; set once it is ready
	id     string // how its peers name it, if the system has names
	// tip asks for the height and the hash of the validated tip. Until the node listens,
	// and while it does not answer, the error is errNotYet.
	tip func(ctx context.Context) (height int32, hash string, err error)
	// busiest says which of the servers this client downloads from most: for dunlin the
	// one that sent most so far, for btcd the sync peer; -1 if none does yet.
	busiest func(ctx context.Context, from []remote) (int, error)
}

// errNotYet says that a node does not answer yet.
var errNotYet = errors.New("does not answer yet")

const (
	// pollEvery is how often a client is asked for its tip: 2% of the shortest sync here.
	pollEvery = 10 * time.Millisecond
	// startTimeout is how long a node may take to listen. btcd reads its whole index.
	startTimeout = time.Minute
)

// await polls a node's tip until done says that it is enough, at most for a time.
func (n *node) await(ctx context.Context, most time.Duration, done func(height int32, hash string) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("%s: not within %v", n.name, most))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := int32(-1)
	for {
		height, hash, err := n.tip(ctx)
		switch {
		case err == nil:
			last = height
			if enough, err := done(height, hash); err != nil || enough {
				return err
			}
		case ctx.Err() == nil && !errors.Is(err, errNotYet):
			return fmt.Errorf("%s: %w\n%s", n.name, err, n.tail())
		}
		if err := n.exited(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return fmt.Errorf("%w, at height %d\n%s", cause, last, n.tail())
			}
			return ctx.Err()
		}
	}
}

// ready waits until a node answers and returns its tip.
func (n *node) ready(ctx context.Context) (height int32, hash string, err error) {
	err = n.await(ctx, startTimeout, func(h int32, s string) (bool, error) {
		height, hash = h, s
		return true, nil
	})
	return height, hash, err
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
