package api_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"dunlin/internal/api"
)

func TestClient(t *testing.T) {
	n := newFakeNode(3)
	n.peers = []api.Peer{{ID: "A", Endpoint: "10.0.0.5:9333"}}
	r := serve(t, n, nil)
	want := api.NodeFile{PID: os.Getpid(), PeerID: "12D3", ListenAddrs: []string{peerAddr}, RPCAddr: r.addr, Network: "regtest", ChainID: "regtest-0f9188f1", Version: "v1"}
	if err := api.WriteNodeFile(r.home, want); err != nil {
		t.Fatal(err)
	}
	c, got, err := api.Open(r.home)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("node.json %+v", got)
	}
	ctx := t.Context()
	check := func(name string, err error, ok bool) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	st, err := c.Status(ctx)
	check("status", err, st.Height == 2 && st.Sync.State == "synced")
	sync, err := c.Sync(ctx)
	check("sync", err, sync.Height == 2 && sync.State == "synced" && sync.InFlightLimit == 128 && sync.LastStall.Attempt == 2)
	reach, err := c.Reachability(ctx)
	check("reachability", err, reach.Verdict == "unreachable" && reach.Do == "forward a port" && len(reach.Listen) == 1)
	peers, err := c.Peers(ctx)
	check("peers", err, len(peers) == 1 && peers[0].ID == "A")
	check("add peer", c.AddPeer(ctx, peerAddr), len(n.added) == 1)
	b, err := c.Head(ctx)
	check("head", err, b.Height == 2)
	b, err = c.Block(ctx, "1")
	check("block", err, b.Height == 1)
	raw, err := c.RawBlock(ctx, "1")
	check("raw", err, raw == "0102ff")
	bs, err := c.Blocks(ctx, 1, 10)
	check("blocks", err, len(bs) == 2)
	bs, err = c.LastBlocks(ctx, 1)
	check("last", err, len(bs) == 1 && bs[0].Height == 2)
	tips, err := c.Tips(ctx)
	check("tips", err, len(tips) == 1)
	m, err := c.SwitchMiner(ctx, true)
	check("miner start", err, m.Running)
	m, err = c.SwitchMiner(ctx, false)
	check("miner stop", err, !m.Running)
	m, err = c.Miner(ctx)
	check("miner", err, m.Blocks == 5)
	b, err = c.MineBlock(ctx, "text", 0)
	check("mine", err, b.Data == "text")
	v, err := c.SubmitBlock(ctx, strings.Repeat("00", 80))
	check("submit", err, v.Outcome == "connected")
	id, err := c.SubmitTx(ctx, "00")
	check("tx", err, id == n.hash(9))
	levels, err := c.SetLogLevel(ctx, "", "warn")
	check("set level", err, levels.Level == "warn")
	levels, err = c.LogLevels(ctx)
	check("levels", err, levels.Level == "warn")
	check("stop", c.Stop(ctx), n.stopped)

	_, err = c.Block(ctx, "77")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Status != 404 || e.Reason != "no block at height 77" {
		t.Errorf("refusal: %v", err)
	}
	err = c.AddPeer(ctx, strings.Repeat("x", 600))
	if e, ok := errors.AsType[*api.Error](err); !ok || !strings.Contains(e.Reason, "length <= 512") {
		t.Errorf("validation: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	home := t.TempDir()
	open := func(want ...string) {
		t.Helper()
		_, _, err := api.Open(home)
		if !errors.Is(err, api.ErrUnreachable) {
			t.Errorf("%v is no ErrUnreachable", err)
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("lacks %q: %v", w, err)
			}
		}
	}
	open("no node runs in "+home, "dunlin start")

	// A process that has ended, as kill -9 leaves it.
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := api.WriteNodeFile(home, api.NodeFile{PID: cmd.Process.Pid, RPCAddr: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	open("stale", "killed or crashed")

	// A process that lives but does not listen.
	l, err := net.Listen("tcp", "127.71.3.9:0") // where nobody else listens
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if err := api.WriteNodeFile(home, api.NodeFile{PID: os.Getpid(), RPCAddr: addr}); err != nil {
		t.Fatal(err)
	}
	c, _, err := api.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.Status(t.Context()); !errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), addr) {
		t.Errorf("got %v", err)
	}

	// A port where another node listens now, and a process id that is somebody's.
	other := serve(t, newFakeNode(1), nil)
	if err := api.WriteNodeFile(home, api.NodeFile{PID: os.Getpid(), RPCAddr: other.addr}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, api.CookieFile), []byte("__cookie__:old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _, err = api.Open(home); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Status(t.Context()); !errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), "not the node of this home") {
		t.Errorf("got %v", err)
	}

	if err := os.WriteFile(filepath.Join(home, api.NodeFileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := api.Open(home); err == nil || errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged file: %v", err)
	}
	for range 2 {
		if err := api.RemoveNodeFile(home); err != nil {
			t.Fatal(err)
		}
	}
	open("no node runs")
	if _, err := api.NewClient("ftp://x", ""); err == nil {
		t.Error("no error for ftp")
	}
}
