package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// btcds is the other side: btcd on simnet, with its default settings but for what
// makes it talk to these peers only.
type btcds struct {
	program string
	data    string // holds srv_<chain>_<i>, data folders that have all blocks of a chain
	dir     string // logs
	procs   *procs
}

func (b *btcds) name() string { return "btcd" }

// fresh is how old a server's tip may be: btcd takes itself for unsynced when it is
// over 24 hours old, and then does not answer requests for headers.
const fresh = 12 * time.Hour

// minerAddress is simnet's address of the hash of 20 zero bytes: nobody's.
const minerAddress = "SMJ12qn9jNCCXJnTYRz5Yu9ZenERqvYwfg"

// serverHome is a data folder of a server.
func (b *btcds) serverHome(set string, i int) string {
	return filepath.Join(b.data, fmt.Sprintf("srv_%s_%d", set, i))
}

// serve implements system. A server whose tip is old mines one block first, which stays
// in its data folder, and the others are given it: a client then downloads a block or
// two more than the chain has.
func (b *btcds) serve(ctx context.Context, set string, _ *chainFile, n int) ([]*node, error) {
	var servers []*node
	var first *rpcClient
	for i := range n {
		// A peer that nobody is: without one it would look for others.
		s, err := b.start(ctx, fmt.Sprintf("btcd-%s-server%d", set, i), b.serverHome(set, i), "--connect=127.0.0.1:1", "--miningaddr="+minerAddress)
		if err != nil {
			return servers, err
		}
		servers = append(servers, s.node)
		if _, _, err := s.ready(ctx); err != nil {
			return servers, err
		}
		if first == nil {
			first = s.rpc
			err = freshen(ctx, first)
		} else {
			err = copyTip(ctx, s.rpc, first)
		}
		if err != nil {
			return servers, fmt.Errorf("%s: %w\n%s", s.name, err, s.tail())
		}
	}
	return servers, nil
}

// freshen mines a block if the tip is old.
func freshen(ctx context.Context, c *rpcClient) error {
	var hash string
	if err := c.call(ctx, &hash, "getbestblockhash"); err != nil {
		return err
	}
	var header struct {
		Time int64 `json:"time"`
	}
	if err := c.call(ctx, &header, "getblockheader", hash); err != nil {
		return err
	}
	if time.Since(time.Unix(header.Time, 0)) < fresh {
		return nil
	}
	return c.call(ctx, nil, "generate", 1)
}

// copyTip gives a server the blocks that another has on top of it.
func copyTip(ctx context.Context, to, from *rpcClient) error {
	var hash string
	if err := from.call(ctx, &hash, "getbestblockhash"); err != nil {
		return err
	}
	var missing []string // raw blocks, the highest first
	for range 100 {
		var raw string
		if err := to.call(ctx, &raw, "getblock", hash, 0); err == nil {
			for _, raw := range slices.Backward(missing) {
				var refused *string // null if it was taken
				if err := to.call(ctx, &refused, "submitblock", raw); err != nil {
					return err
				} else if refused != nil {
					return fmt.Errorf("submitblock: %s", *refused)
				}
			}
			return nil
		} else if _, refused := errors.AsType[*rpcError](err); !refused {
			return err
		}
		if err := from.call(ctx, &raw, "getblock", hash, 0); err != nil {
			return err
		}
		missing = append(missing, raw)
		var header struct {
			Previous string `json:"previousblockhash"`
		}
		if err := from.call(ctx, &header, "getblockheader", hash); err != nil {
			return err
		}
		hash = header.Previous
	}
	return errors.New("its blocks are not those of the first server")
}

// client implements system.
func (b *btcds) client(ctx context.Context, _ *chainFile, home string, from []remote, args []string) (*node, error) {
	for _, r := range from {
		args = append(slices.Clip(args), "--connect="+r.at)
	}
	n, err := b.start(ctx, "btcd-client", home, args...)
	if err != nil {
		return nil, err
	}
	return n.node, nil
}

// btcdNode is a node with what only this side knows of it.
type btcdNode struct {
	*node
	rpc *rpcClient
}

func (b *btcds) start(ctx context.Context, name, home string, args ...string) (*btcdNode, error) {
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, err
	}
	c := &rpcClient{url: "http://" + loopback(ports[1]) + "/"}
	child, err := b.procs.start(name, b.program, append([]string{
		"--simnet", "--datadir=" + home, "--logdir=" + filepath.Join(b.dir, "btcd-logs", name), "--configfile=" + os.DevNull,
		"--listen=" + loopback(ports[0]), "--rpclisten=" + loopback(ports[1]), "--rpcuser=" + rpcUser, "--rpcpass=" + rpcPassword,
		"--notls", "--nodnsseed", "--nobanning", "--debuglevel=info", "--rpcmaxclients=50",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	n := &btcdNode{rpc: c, node: &node{child: child, listen: loopback(ports[0])}}
	n.tip = func(ctx context.Context) (int32, string, error) {
		var best struct {
			Height int32  `json:"height"`
			Hash   string `json:"hash"`
		}
		err := c.call(ctx, &best, "getbestblock")
		return best.Height, best.Hash, err
	}
	n.busiest = func(ctx context.Context, from []remote) (int, error) {
		var peers []struct {
			Addr     string `json:"addr"`
			SyncNode bool   `json:"syncnode"`
		}
		err := c.call(ctx, &peers, "getpeerinfo")
		for _, p := range peers {
			if p.SyncNode {
				return slices.IndexFunc(from, func(r remote) bool { return r.at == p.Addr }), err
			}
		}
		return -1, err
	}
	return n, nil
}

// What btcd wants of a client; it listens on loopback only.
const (
	rpcUser     = "bench"
	rpcPassword = "bench"
)

// rpcClient calls btcd's JSON-RPC.
type rpcClient struct{ url string }

// rpcError is a refusal by the node.
type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// maxRPCBytes bounds an answer: a block as hex.
const maxRPCBytes = 16 << 20

// call asks for method and decodes the result into out, which may be nil. A node
// that does not answer is errNotYet.
func (c *rpcClient) call(ctx context.Context, out any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req.SetBasicAuth(rpcUser, rpcPassword)
	req.Header.Set("Content-Type", "application/json")
	w, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w: %w", method, errNotYet, err)
	}
	defer w.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(w.Body, maxRPCBytes))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", method, errNotYet, err)
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *rpcError       `json:"error"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("%s: answer %s: %q", method, w.Status, lastLines(string(raw[:min(len(raw), 200)]), 1)[0])
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", method, answer.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, out); err != nil {
		return fmt.Errorf("%s: decoding the result: %w", method, err)
	}
	return nil
}
