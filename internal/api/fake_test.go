package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dunlin/internal/api"
)

const peerAddr = "/ip4/10.0.0.5/tcp/9333/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

// fakeNode is a chain of numbered blocks.
type fakeNode struct {
	bans    []api.Ban
	addrs   []string // told to peers; set before use
	mu      sync.Mutex
	branch  string   // letter in the hashes
	marks   []string // hashes invalidated (-) and reconsidered (+)
	blocks  []api.Block
	byHash  map[string]api.Block
	changed chan struct{}
	doubles []int64 // slots; see double
	doubled chan struct{}
	state   string
	target  int32
	peers   []api.Peer
	added   []string
	mining  bool
	work    bool // work makes the blocks
	staked  bool // blocks are made by stake
	level   string
	stopped bool
	own     string   // level of subsystem sync
	pool    []string // ids
	records []api.LogRecord
	lost    []api.Tx
	mineErr error
	waits   bool          // MineBlock waits for its context
	takes   time.Duration // what MineBlock needs
	waiting chan struct{} // has a token when MineBlock waits
	ended   chan struct{} // and when it no longer does
}

func newFakeNode(blocks int) *fakeNode {
	n := &fakeNode{branch: "a", byHash: map[string]api.Block{}, changed: make(chan struct{}), doubled: make(chan struct{}), state: api.StateSynced, level: "info"}
	n.waiting, n.ended = make(chan struct{}, 9), make(chan struct{}, 9)
	for range blocks {
		n.grow("")
	}
	return n
}

func (n *fakeNode) hash(height int) string { return fmt.Sprintf("%s%063x", n.branch, height) }

func (n *fakeNode) grow(data string) api.Block {
	n.mu.Lock()
	defer n.mu.Unlock()
	height := len(n.blocks)
	b := api.Block{
		Height: int32(height), Hash: n.hash(height), PreviousHash: strings.Repeat("0", 64),
		Time: time.Unix(1_700_000_000+int64(height), 0).UTC(), Data: data, Txs: 1, Active: true,
	}
	if height == 0 {
		b.CoinbaseText = "genesis <text>"
	} else {
		b.PreviousHash = n.blocks[height-1].Hash
	}
	n.seal(&b)
	n.blocks = append(n.blocks, b)
	n.byHash[b.Hash] = b
	close(n.changed)
	n.changed = make(chan struct{})
	return b
}

// reorg replaces the blocks above height by n others, told as one change.
// seal says who made a block, where stake does. Callers hold mu.
func (n *fakeNode) seal(b *api.Block) {
	if !n.staked {
		return
	}
	slot, winner, share := int64(4*b.Height), "", 0.5
	if b.Slot, b.Validator = &slot, &winner; b.Height > 0 {
		winner = "winner of " + b.Hash[:1]
		b.Stake, b.Share = &api.StakeCoin{TxID: n.hash(9), VOut: 1, Value: 7}, &share
	}
}

func (n *fakeNode) reorg(height, count int) {
	n.mu.Lock()
	n.branch = "b"
	n.blocks = n.blocks[:height+1]
	for range count {
		h := len(n.blocks)
		b := api.Block{Height: int32(h), Hash: n.hash(h), PreviousHash: n.blocks[h-1].Hash, Time: time.Unix(1_700_000_000, 0)}
		n.seal(&b)
		n.blocks = append(n.blocks, b)
		n.byHash[b.Hash] = b
	}
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
}

func (n *fakeNode) Status() api.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	height := int32(len(n.blocks) - 1)
	return api.Status{
		Network: "regtest", ChainID: "regtest-0f9188f1", Genesis: n.blocks[0].Hash, PeerID: "12D3", Agent: "dunlin/test",
		Height: height, HeaderHeight: height, TargetHeight: max(height, n.target), TipHash: n.blocks[height].Hash,
		TipTime: n.blocks[height].Time, Work: "2a", Sync: api.SyncStatus{State: n.state, Percent: 100, InFlightLimit: 128},
		Peers: api.PeerCounts{Inbound: 1, Outbound: 2}, Mempool: api.MempoolStatus{Count: 3, Bytes: 4},
	}
}

func (n *fakeNode) Sync() api.Sync {
	s := n.Status()
	return api.Sync{
		SyncStatus: s.Sync, Height: s.Height, HeaderHeight: s.HeaderHeight, TargetHeight: s.TargetHeight, Since: s.TipTime,
		Stalls: 2, LastStall: &api.Stall{At: s.TipTime, WaitedS: 2.1, Height: s.Height + 1, Holder: "12D3a", Asked: "12D3b", Attempt: 2},
	}
}

func (n *fakeNode) Addrs() []string { return n.addrs }

func (n *fakeNode) Reachability() api.Reachability {
	return api.Reachability{Verdict: "unreachable", Reason: "no public address", Do: "forward a port", Listen: []string{"/ip4/0.0.0.0/tcp/1"}, NAT: "off"}
}

func (n *fakeNode) Peers() []api.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.peers)
}

func (n *fakeNode) Bans() []api.Ban {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.bans)
}

func (n *fakeNode) Ban(target string, how time.Duration, reason string) (api.Ban, error) {
	if target == "bad" {
		return api.Ban{}, api.Errorf(422, "ban %q: no target", target)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b := api.Ban{Target: target, Reason: reason, Since: time.Unix(0, 0).UTC(), Until: time.Unix(0, 0).UTC().Add(how)}
	n.bans = append(n.bans, b)
	return b, nil
}

func (n *fakeNode) AddedPeers() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.added)
}

func (n *fakeNode) RemovePeer(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.added)
	n.added = slices.DeleteFunc(n.added, func(a string) bool { return strings.HasSuffix(a, "/"+id) })
	if len(n.added) == before {
		return api.Errorf(http.StatusNotFound, "%s: not added", id)
	}
	return nil
}

func (n *fakeNode) JoinLine() string { return "dunlin start --bootstrap " + peerAddr }

func (n *fakeNode) Disconnect(id string) error {
	if id == "absent" {
		return api.Errorf(http.StatusNotFound, "%s is not connected", id)
	}
	return nil
}

func (n *fakeNode) Book(proven bool) []api.BookPeer {
	book := []api.BookPeer{{Addrs: []string{peerAddr}, Record: []byte("record"), Answered: 7}}
	if !proven {
		book = append(book, api.BookPeer{Addrs: []string{peerAddr}})
	}
	return book
}

func (n *fakeNode) ImportBook(list string) (api.BookImport, error) {
	lines := strings.Count(list, "\n")
	return api.BookImport{Peers: lines, Added: lines, Faults: []string{}}, nil
}

func (n *fakeNode) Unban(target string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.bans)
	n.bans = slices.DeleteFunc(n.bans, func(b api.Ban) bool { return b.Target == target })
	if len(n.bans) == before {
		return api.Errorf(404, "%s: not banned", target)
	}
	return nil
}

func (n *fakeNode) Tip() (int32, string, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int32(len(n.blocks) - 1), n.blocks[len(n.blocks)-1].Hash, n.changed
}

func (n *fakeNode) BlockAt(_ context.Context, height int32) (api.Block, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if int(height) >= len(n.blocks) {
		return api.Block{}, api.Errorf(404, "no block at height %d", height)
	}
	return n.blocks[height], nil
}

func (n *fakeNode) BlockByHash(_ context.Context, hash string) (api.Block, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b, ok := n.byHash[hash]; ok {
		return b, nil
	}
	return api.Block{}, api.Errorf(404, "no block %s", hash)
}

func (n *fakeNode) RawBlock(context.Context, string) ([]byte, error) { return []byte{1, 2, 255}, nil }

func (n *fakeNode) Tips() []api.ChainTip {
	return []api.ChainTip{{Height: 1, Hash: n.hash(1), Status: "active", Work: "2a"}}
}

func (n *fakeNode) MineBlock(ctx context.Context, data string) (api.Block, error) {
	if n.waits {
		n.waiting <- struct{}{}
		<-ctx.Done()
		n.ended <- struct{}{}
		return api.Block{}, ctx.Err()
	}
	if n.mineErr != nil {
		return api.Block{}, n.mineErr
	}
	found := time.NewTimer(n.takes)
	defer found.Stop()
	select {
	case <-found.C:
	case <-ctx.Done():
		return api.Block{}, ctx.Err()
	}
	if len(data) > 80 {
		return api.Block{}, api.Errorf(400, "data is longer than 80 bytes")
	}
	return n.grow(data), nil
}

func (n *fakeNode) Miner() api.MinerStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return api.MinerStatus{Running: n.mining, Address: "addr", Blocks: 5}
}

func (n *fakeNode) StartMiner() error { n.mu.Lock(); defer n.mu.Unlock(); n.mining = true; return nil }

func (n *fakeNode) StopMiner() error { n.mu.Lock(); defer n.mu.Unlock(); n.mining = false; return nil }

func (n *fakeNode) Staking(history int) (api.Staking, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.work {
		return api.Staking{}, api.Errorf(409, "blocks of testnet are made by work")
	}
	out := api.Staking{
		StakingSummary: api.StakingSummary{Enabled: n.mining, State: "off", Coins: 1, Weight: 5},
		Source:         "wallet", SlotS: 16, Maturity: 100, History: []api.StakedBlock{{Slot: 1}, {Slot: 0}},
	}
	out.History = out.History[:min(history, len(out.History))]
	return out, nil
}

func (n *fakeNode) StartStaking() error { return n.StartMiner() }

func (n *fakeNode) StopStaking() error { return n.StopMiner() }

func (n *fakeNode) AddPeer(addr string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.added = append(n.added, addr)
	return nil
}

func (n *fakeNode) SubmitBlock(_ context.Context, raw []byte) (api.SubmittedBlock, error) {
	if len(raw) < 80 {
		return api.SubmittedBlock{}, api.Errorf(422, "bad-blk-length: %d bytes", len(raw))
	}
	return api.SubmittedBlock{Hash: n.hash(1), Height: 1, Outcome: "connected"}, nil
}

func (n *fakeNode) Invalidate(_ context.Context, hash string) error { return n.mark("-", hash) }
func (n *fakeNode) Reconsider(_ context.Context, hash string) error { return n.mark("+", hash) }
func (n *fakeNode) AcceptReorg(_ context.Context, hash string) error {
	return n.mark("*", hash)
}

func (n *fakeNode) Tx(_ context.Context, txid string) (api.Tx, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, tx := range n.lost {
		if tx.TxID == txid {
			return tx, nil
		}
	}
	return api.Tx{}, api.Errorf(404, "transaction %s is unknown", txid)
}

func (n *fakeNode) Mempool() api.Mempool {
	return api.Mempool{
		Count: 3, Bytes: 4, MinFeeRate: 1000,
		Gossip: api.TopicFlow{Ignored: map[string]uint64{"known": 1}, Rejected: map[string]uint64{}},
	}
}

func (n *fakeNode) LostTxs(after uint64) ([]api.Tx, uint64, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lost[after:]), uint64(len(n.lost)), n.changed
}

// lose tells of a lost transaction.
func (n *fakeNode) lose(tx api.Tx) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = append(n.lost, tx)
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNode) mark(sign, hash string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.byHash[hash]; !ok {
		return api.Errorf(404, "block %s is unknown", hash)
	}
	n.marks = append(n.marks, sign+hash)
	return nil
}

func (n *fakeNode) SubmitTx(_ context.Context, raw []byte) (string, error) {
	if len(raw) == 0 {
		return "", fmt.Errorf("disk on fire")
	}
	return n.hash(9), nil
}

func (n *fakeNode) Stop() { n.mu.Lock(); defer n.mu.Unlock(); n.stopped = true }

// running is a server that listens on loopback.
type running struct {
	t      *testing.T
	server *api.Server
	addr   string
	home   string
	token  string
	stop   func() error
}

// serve runs a server on a free port until the test ends.
func serve(t *testing.T, node api.Node, change func(*api.Options)) *running {
	t.Helper()
	o := api.Options{Listen: "127.0.0.1:0", Home: t.TempDir(), Test: true}
	if change != nil {
		change(&o)
	}
	s, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := api.ReadToken(o.Home)
	if err != nil {
		t.Fatal(err)
	}
	if node != nil {
		s.SetNode(node)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &running{t: t, server: s, addr: addr.String(), home: o.Home, token: token, stop: stop}
}

type answer struct {
	status int
	body   string
	header http.Header
}

// do sends a request. Headers come as "Name: value"; a POST says that it is JSON
// and carries the token unless a header says otherwise.
func (r *running) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	q, err := http.NewRequestWithContext(r.t.Context(), method, "http://"+r.addr+path, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if method != http.MethodGet {
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("Authorization", "Bearer "+r.token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch {
		case name == "Host":
			q.Host = value
		case value == "":
			q.Header.Del(name)
		default:
			q.Header.Set(name, value)
		}
	}
	w, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.Body.Close()
	raw, err := io.ReadAll(w.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{w.StatusCode, strings.TrimSuffix(string(raw), "\n"), w.Header}
}

func (r *running) want(got answer, status int, body string) {
	r.t.Helper()
	if got.status != status || got.body != body {
		r.t.Errorf("got %d\n%s\nwant %d\n%s", got.status, got.body, status, body)
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func exists(t *testing.T, home, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(home, name))
	return err == nil
}

func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Wallet implements api.Node: there is none.
func (n *fakeNode) Wallet() api.Wallet { return noWallet{} }

// noWallet is asked for nothing but its state.
type noWallet struct{ api.Wallet }

func (noWallet) Info() api.WalletInfo { return api.WalletInfo{Height: -1, Warnings: []string{}} }
