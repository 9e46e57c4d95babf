package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// NodeFileName is the name of the running node's description in its home.
const NodeFileName = "node.json"

// A NodeFile describes a running node to scripts and to the command line.
type NodeFile struct {
	PID         int      `json:"pid"`
	PeerID      string   `json:"peer_id"`
	ListenAddrs []string `json:"listen_addrs"`       // full multiaddrs with /p2p/…
	RPCAddr     string   `json:"rpc_addr"`           // host:port
	RPCCert     string   `json:"rpc_cert,omitempty"` // PEM file of the certificate, if the interface speaks TLS
	Network     string   `json:"network"`
	ChainID     string   `json:"chain_id"`
	Version     string   `json:"version"`
}

// WriteNodeFile writes <home>/node.json by rename.
func WriteNodeFile(home string, n NodeFile) error {
	raw, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", NodeFileName, err)
	}
	return writeFile(home, NodeFileName, append(raw, '\n'))
}

// RemoveNodeFile removes <home>/node.json; none is no error.
func RemoveNodeFile(home string) error {
	if err := os.Remove(filepath.Join(home, NodeFileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", NodeFileName, err)
	}
	return nil
}

// maxNodeFileBytes bounds what is read of node.json and of the cookie.
const maxNodeFileBytes = 64 << 10

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxNodeFileBytes))
}

// ErrUnreachable says that no node answers (exit code 4 of the command line).
// Its wrappers say why: never started, gone without a word, not listening.
var ErrUnreachable = errors.New("node unreachable")

type unreachableError struct {
	reason string
	cause  error
}

func (e *unreachableError) Error() string { return e.reason }

// Is makes every such error an ErrUnreachable.
func (e *unreachableError) Is(target error) bool { return target == ErrUnreachable }

// Unwrap returns the error of the system or the network, if there is one.
func (e *unreachableError) Unwrap() error { return e.cause }

// ReadNodeFile reads <home>/node.json and checks that its process lives. Errors
// are ErrUnreachable when no node runs there; a stale file is told from none,
// and n is filled in then.
func ReadNodeFile(home string) (n NodeFile, err error) {
	name := filepath.Join(home, NodeFileName)
	raw, err := readSmall(name)
	if errors.Is(err, fs.ErrNotExist) {
		return n, &unreachableError{reason: "no node runs in " + home + " (no " + NodeFileName + "); dunlin start with the same flags starts one", cause: err}
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", NodeFileName, err)
	}
	if err := json.Unmarshal(raw, &n); err != nil || n.PID <= 0 {
		return n, fmt.Errorf("%s is damaged; a start of the node replaces it", name)
	}
	if !alive(n.PID) {
		return n, &unreachableError{reason: fmt.Sprintf("no node runs in %s: %s is stale, its process %d is gone (killed or crashed); dunlin start carries on from there", home, NodeFileName, n.PID)}
	}
	return n, nil
}

// alive says whether a process exists, whoever owns it.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}

// A Client calls a node's interface. It is safe for concurrent use. Errors are
// ErrUnreachable when nothing answers, and *Error when the node refuses.
type Client struct {
	base  string // http://host:port
	token string
	// instance is what the server must call itself; "" any will do.
	instance string
	http     *http.Client
}

// NewClient returns a client for an address, "host:port" or a URL, and a token,
// which may be empty: then only reads on loopback are answered.
func NewClient(addr, token string) (*Client, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("address %q: want host:port or an http(s) URL", addr)
	}
	return &Client{
		base: u.Scheme + "://" + u.Host, token: token,
		// The interface never redirects, and a token must not follow one.
		http: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Via makes the client connect with dial from now on, for a node that cannot be reached from here: behind a
// tunnel, in a container. Call it before the first request.
func (c *Client) Via(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	t := &http.Transport{DialContext: dial}
	if before, ok := c.http.Transport.(*http.Transport); ok {
		t.TLSClientConfig = before.TLSClientConfig
	}
	c.http.Transport = t
}

// Open returns a client for the node that runs in home, and its description.
func Open(home string) (*Client, NodeFile, error) {
	n, err := ReadNodeFile(home)
	if err != nil {
		return nil, n, err
	}
	token, err := ReadToken(home)
	if err != nil {
		return nil, n, err
	}
	addr := n.RPCAddr
	if n.RPCCert != "" {
		addr = "https://" + addr
	}
	c, err := NewClient(addr, token)
	if err != nil {
		return nil, n, fmt.Errorf("%s: %w", NodeFileName, err)
	}
	if n.RPCCert != "" {
		trust, err := pinned(n.RPCCert)
		if err != nil {
			return nil, n, err
		}
		c.http.Transport = &http.Transport{TLSClientConfig: trust}
	}
	if token != "" {
		c.instance = instanceOf(token)
	}
	return c, n, nil
}

// Endpoint returns the interface's URL and the HTTP client that trusts it, for what speaks another protocol there: JSON-RPC.
func (c *Client) Endpoint() (base string, client *http.Client) { return c.base, c.http }

// ReadToken reads <home>/api.cookie; "" if there is none. A file that others may read or write is an error.
func ReadToken(home string) (string, error) {
	name := filepath.Join(home, CookieFile)
	raw, err := readSmall(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", CookieFile, err)
	}
	// Whoever else can read it can do what the operator can; whoever can write it can have the token sent elsewhere.
	if fi, err := os.Stat(name); err == nil && fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return "", fmt.Errorf("%s: mode %04o lets others read or change the token; chmod 600 it and restart the node, which makes a new one", name, fi.Mode().Perm())
	}
	return strings.TrimSpace(string(raw)), nil
}

// maxAnswerBytes bounds what a client reads: 1,000 blocks, or one block as hex.
const maxAnswerBytes = 64 << 20

// Call sends in as JSON (nil: no body) and decodes the answer into out (nil: dropped).
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var reader io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	w, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s: %w", method, path, ctx.Err())
		}
		return &unreachableError{reason: fmt.Sprintf("no node answers at %s: %v", c.base, err), cause: err}
	}
	defer w.Body.Close()
	if got := w.Header.Get(instanceHeader); c.instance != "" && got != c.instance {
		return &unreachableError{reason: "what answers at " + c.base + " is not the node of this home: " + NodeFileName + " is stale"}
	}
	raw, err := io.ReadAll(io.LimitReader(w.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	case len(raw) > maxAnswerBytes:
		return fmt.Errorf("%s %s: the answer is larger than %d bytes", method, path, maxAnswerBytes)
	case w.StatusCode >= 300:
		return refusal(w.StatusCode, raw)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: decoding the answer: %w", method, path, err)
	}
	return nil
}

// Fetch returns what a path answers, whatever its form, up to a number of bytes; more is an error.
func (c *Client) Fetch(ctx context.Context, path string, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	w, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	defer w.Body.Close()
	if got := w.Header.Get(instanceHeader); c.instance != "" && got != c.instance {
		return nil, &unreachableError{reason: "what answers at " + c.base + " is not the node of this home: " + NodeFileName + " is stale"}
	}
	raw, err := io.ReadAll(io.LimitReader(w.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("GET %s: reading the answer: %w", path, err)
	case w.StatusCode >= 300:
		return nil, refusal(w.StatusCode, raw)
	case int64(len(raw)) > most:
		return nil, fmt.Errorf("GET %s: the answer is larger than %d bytes", path, most)
	}
	return raw, nil
}

// refusal reads the reason from either form of error.
func refusal(status int, raw []byte) error {
	var problem huma.ErrorModel
	var simple struct {
		Message string `json:"message"`
	}
	e := &Error{Status: status, Reason: http.StatusText(status)}
	if json.Unmarshal(raw, &simple) == nil && simple.Message != "" {
		e.Reason = simple.Message
	} else if json.Unmarshal(raw, &problem) == nil && problem.Detail != "" {
		e.Reason = problem.Detail
		for _, d := range problem.Errors {
			e.Reason += "; " + d.Error()
		}
	}
	return e
}

func get[T any](ctx context.Context, c *Client, path string) (out T, err error) {
	err = c.Call(ctx, http.MethodGet, "/api/v1"+path, nil, &out)
	return out, err
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	err = c.Call(ctx, method, "/api/v1"+path, in, &out)
	return out, err
}

// Status returns the node's state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/status")
}

// Sync returns the state of the sync in full.
func (c *Client) Sync(ctx context.Context) (Sync, error) {
	return get[Sync](ctx, c, "/sync")
}

// Mempool describes the pool of unconfirmed transactions.
func (c *Client) Mempool(ctx context.Context) (Mempool, error) {
	return get[Mempool](ctx, c, "/mempool")
}

// Reachability tells where the node can be reached.
func (c *Client) Reachability(ctx context.Context) (Reachability, error) {
	return get[Reachability](ctx, c, "/reachability")
}

// Peers lists the connected peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	a, err := get[PeersAnswer](ctx, c, "/peers")
	return a.Peers, err
}

// AddPeer has the node keep and dial a multiaddr.
func (c *Client) AddPeer(ctx context.Context, addr string) error {
	return c.Call(ctx, http.MethodPost, "/api/v1/peers", PeerRequest{Addr: addr}, nil)
}

// RemovePeer has the node forget a peer that was added.
func (c *Client) RemovePeer(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodDelete, "/api/v1/peers?id="+url.QueryEscape(id), nil, nil)
}

// AddedPeers lists the full multiaddrs of the peers that were added.
func (c *Client) AddedPeers(ctx context.Context) ([]string, error) {
	a, err := get[AddedAnswer](ctx, c, "/peers/added")
	return a.Addrs, err
}

// Book lists the peers that the node knows, those that answered first; with proven only these.
func (c *Client) Book(ctx context.Context, proven bool) ([]BookPeer, error) {
	a, err := get[BookAnswer](ctx, c, "/peers/book?proven="+strconv.FormatBool(proven))
	return a.Peers, err
}

// ImportBook has the node note the peers of a list.
func (c *Client) ImportBook(ctx context.Context, list string) (BookImport, error) {
	return send[BookImport](ctx, c, http.MethodPost, "/peers/book", BookRequest{List: list})
}

// Bans lists the bans in force.
func (c *Client) Bans(ctx context.Context) ([]Ban, error) {
	a, err := get[BansAnswer](ctx, c, "/bans")
	return a.Bans, err
}

// Ban keeps a peer id, an IP address or a CIDR away for a time.
func (c *Client) Ban(ctx context.Context, target string, how time.Duration, reason string) (Ban, error) {
	return send[Ban](ctx, c, http.MethodPost, "/bans", BanRequest{Target: target, ForS: how.Seconds(), Reason: reason})
}

// Unban lifts a ban.
func (c *Client) Unban(ctx context.Context, target string) error {
	return c.Call(ctx, http.MethodDelete, "/api/v1/bans?target="+url.QueryEscape(target), nil, nil)
}

// Head returns the block at the validated tip.
func (c *Client) Head(ctx context.Context) (Block, error) { return get[Block](ctx, c, "/chain/head") }

// Block returns a block by height or hash.
func (c *Client) Block(ctx context.Context, id string) (Block, error) {
	return get[Block](ctx, c, "/chain/blocks/"+url.PathEscape(id))
}

// RawBlock returns the bytes of a block by height or hash, as hex.
func (c *Client) RawBlock(ctx context.Context, id string) (string, error) {
	a, err := get[RawBlockAnswer](ctx, c, "/chain/blocks/"+url.PathEscape(id)+"/raw")
	return a.Hex, err
}

// Blocks returns up to count blocks of the active chain, ascending from a height.
func (c *Client) Blocks(ctx context.Context, from int32, count int) ([]Block, error) {
	a, err := get[BlocksAnswer](ctx, c, "/chain/blocks?from="+strconv.Itoa(int(from))+"&count="+strconv.Itoa(count))
	return a.Blocks, err
}

// LastBlocks returns the last n blocks of the active chain, ascending.
func (c *Client) LastBlocks(ctx context.Context, n int) ([]Block, error) {
	a, err := get[BlocksAnswer](ctx, c, "/chain/blocks?last="+strconv.Itoa(n))
	return a.Blocks, err
}

// Tips lists the leaves of the header tree.
func (c *Client) Tips(ctx context.Context) ([]ChainTip, error) {
	a, err := get[TipsAnswer](ctx, c, "/chain/tips")
	return a.Tips, err
}

// StakeHolders lists up to most of those who can win slots, the richest first.
func (c *Client) StakeHolders(ctx context.Context, most int) (out StakeHolders, err error) {
	const page = 1000
	for cursor, all := "", []StakeHolder{}; ; cursor = out.Next {
		path := fmt.Sprintf("/staking/holders?limit=%d&cursor=%s", min(page, most-len(all)), url.QueryEscape(cursor))
		if out, err = get[StakeHolders](ctx, c, path); err != nil {
			return out, err
		}
		all = append(all, out.Holders...)
		if out.Next == "" || len(all) >= most {
			out.Holders = all
			return out, nil
		}
	}
}

// DoubleStakes lists the stakes that are known to have signed two blocks for one slot.
func (c *Client) DoubleStakes(ctx context.Context) (DoubleStakes, error) {
	return get[DoubleStakes](ctx, c, fmt.Sprintf("/staking/doubles?limit=%d", maxDoubles))
}

// SubmitBlock hands in a block as hex and returns the verdict.
func (c *Client) SubmitBlock(ctx context.Context, blockHex string) (SubmittedBlock, error) {
	return send[SubmittedBlock](ctx, c, http.MethodPost, "/chain/blocks", HexRequest{Hex: blockHex})
}

// Invalidate takes a block, and all that builds on it, out of the chain.
func (c *Client) Invalidate(ctx context.Context, hash string) (TipAnswer, error) {
	return send[TipAnswer](ctx, c, http.MethodPost, "/chain/invalidate", HashRequest{Hash: hash})
}

// AcceptReorg lets the chain go over to a branch that it refuses for its depth.
func (c *Client) AcceptReorg(ctx context.Context, hash string) (TipAnswer, error) {
	return send[TipAnswer](ctx, c, http.MethodPost, "/chain/accept-reorg", HashRequest{Hash: hash})
}

// Reconsider takes back that a block was found or declared invalid.
func (c *Client) Reconsider(ctx context.Context, hash string) (TipAnswer, error) {
	return send[TipAnswer](ctx, c, http.MethodPost, "/chain/reconsider", HashRequest{Hash: hash})
}

// SubmitTx hands in a transaction as hex and returns its id.
func (c *Client) SubmitTx(ctx context.Context, txHex string) (string, error) {
	a, err := send[TxAnswer](ctx, c, http.MethodPost, "/tx", HexRequest{Hex: txHex})
	return a.TxID, err
}

// Tx tells what the node knows of a transaction.
func (c *Client) Tx(ctx context.Context, txid string) (Tx, error) {
	return get[Tx](ctx, c, "/tx/"+url.PathEscape(txid))
}

// Miner tells what the miner does.
func (c *Client) Miner(ctx context.Context) (MinerStatus, error) {
	return get[MinerStatus](ctx, c, "/miner")
}

// SwitchMiner starts or stops the miner.
func (c *Client) SwitchMiner(ctx context.Context, on bool) (MinerStatus, error) {
	path := "/miner/stop"
	if on {
		path = "/miner/start"
	}
	return send[MinerStatus](ctx, c, http.MethodPost, path, nil)
}

// Staking tells how blocks are made by stake.
func (c *Client) Staking(ctx context.Context) (Staking, error) {
	return get[Staking](ctx, c, "/staking")
}

// SwitchStaking starts or stops staking.
func (c *Client) SwitchStaking(ctx context.Context, on bool) (Staking, error) {
	path := "/staking/stop"
	if on {
		path = "/staking/start"
	}
	return send[Staking](ctx, c, http.MethodPost, path, nil)
}

// MineBlock makes one block that carries data; it takes up to timeout, of whole seconds up to ten
// minutes; 0 is the node's own limit of 60 s.
func (c *Client) MineBlock(ctx context.Context, data string, timeout time.Duration) (Block, error) {
	path := "/miner/block"
	if timeout > 0 {
		path += fmt.Sprintf("?timeout_s=%d", int(timeout.Seconds()))
	}
	return send[Block](ctx, c, http.MethodPost, path, MineRequest{Data: data})
}

// LogLevels returns the least levels that are logged.
func (c *Client) LogLevels(ctx context.Context) (LogLevels, error) {
	return get[LogLevels](ctx, c, "/log/level")
}

// SetLogLevel changes the least level that is logged of a subsystem, or with "" the
// default; level "default" takes a subsystem's own away.
func (c *Client) SetLogLevel(ctx context.Context, subsystem, level string) (LogLevels, error) {
	return send[LogLevels](ctx, c, http.MethodPut, "/log/level", LogLevelRequest{Subsystem: subsystem, Level: level})
}

// LogRecords returns the last lines of the log, or with after those behind that number.
func (c *Client) LogRecords(ctx context.Context, after uint64, limit int) (LogRecords, error) {
	return get[LogRecords](ctx, c, fmt.Sprintf("/log/records?after=%d&limit=%d", after, limit))
}

// maxEventLine bounds a line of an event stream.
const maxEventLine = maxEventBytes + 1024

// Events follows the events of some types, those that come after an id if it is not
// empty, and calls f with each until it fails, ctx ends, or the stream does: then it
// returns nil, and may be called again with the last id.
func (c *Client) Events(ctx context.Context, types []string, after string, f func(Event) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+eventsPath+"?types="+url.QueryEscape(strings.Join(types, ",")), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	w, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &unreachableError{reason: "no answer from " + c.base + ": " + err.Error(), cause: err}
	}
	defer w.Body.Close()
	if c.instance != "" && w.Header.Get(instanceHeader) != c.instance {
		return &unreachableError{reason: "another server answers at " + c.base}
	}
	if w.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(w.Body, maxBodyBytes))
		return refusal(w.StatusCode, raw)
	}
	if kind, _, err := mime.ParseMediaType(w.Header.Get("Content-Type")); err != nil || kind != "text/event-stream" {
		return errNoStream
	}
	lines := bufio.NewScanner(w.Body)
	lines.Buffer(make([]byte, 0, 4096), maxEventLine)
	var e Event
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if e.Data != nil {
				if err := f(e); err != nil {
					return err
				}
			}
			e = Event{}
		case name == "id":
			e.ID = value
		case name == "event":
			e.Type = value
		case name == "data":
			e.Data = json.RawMessage(value)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("event stream: %w", err)
	}
	return nil
}

// Stop asks the node to stop and does not wait for it.
func (c *Client) Stop(ctx context.Context) error {
	return c.Call(ctx, http.MethodPost, "/api/v1/stop", nil, nil)
}
